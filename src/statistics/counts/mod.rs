//! Counts on and off a source: significance, limits and scans.

pub mod disjoint;
pub mod on_off;
pub(crate) mod threshold_scan;
pub(crate) mod upper_limit;
