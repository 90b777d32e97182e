//! Text and pictures of a season's report.

pub(crate) mod pictures;
mod text;
