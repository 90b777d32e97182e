//! Files as such: listing, stamps and hashes, finished outputs.

pub mod finished;
pub mod list;
pub mod output_kind;
pub mod pattern;
pub mod protected;
pub mod stamp;
pub mod walk;
