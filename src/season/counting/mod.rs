//! Counts events on and off the source, per run and portion.

pub(crate) mod area;
pub(crate) mod candidates;
pub(crate) mod clock;
pub(crate) mod combine;
pub(crate) mod counts;
pub(crate) mod event_classifier;
pub(crate) mod images;
pub(crate) mod labels;
pub(crate) mod repeated;
pub(crate) mod scan;
pub(crate) mod sums;
