//! Objectives of a training beyond the likelihood, and the events they are made of.

pub(crate) mod contrast;
pub(crate) mod hadron_comparison;
pub(crate) mod off_source;
pub(crate) mod quantile;
pub(crate) mod synthetic;
