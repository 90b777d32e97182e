//! Compares two selections or two scores of the same events.

pub(crate) mod baseline;
pub(crate) mod crossed;
pub(crate) mod cuts;
pub(crate) mod paired;
