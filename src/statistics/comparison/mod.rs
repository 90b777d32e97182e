//! Compares two selections or two scores of the same events.

pub mod baseline;
pub mod crossed;
pub mod cuts;
pub mod paired;
