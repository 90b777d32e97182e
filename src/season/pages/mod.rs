//! Text and pictures of the report of a season.

pub(crate) mod pictures;
mod text;
