//! Files without their rows: listing, stamps, hashes, and finished outputs.

pub(crate) mod finished;
pub(crate) mod list;
pub(crate) mod output_kind;
pub(crate) mod pattern;
pub(crate) mod protected;
pub(crate) mod stamp;
pub(crate) mod walk;
