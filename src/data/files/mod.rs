//! Files without their rows: listing, stamps, hashes, and finished outputs.

pub mod finished;
pub mod list;
pub mod output_kind;
pub mod pattern;
pub mod protected;
pub mod stamp;
pub mod walk;
