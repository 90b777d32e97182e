//! Objectives in addition to the likelihood, and their events.

pub(crate) mod contrast;
pub(crate) mod hadron_comparison;
pub(crate) mod off_source;
pub(crate) mod quantile;
pub(crate) mod synthetic;
