//! Counts on and off a source: significance, limits and scans.

pub mod disjoint;
pub mod on_off;
pub mod threshold_scan;
pub mod upper_limit;
