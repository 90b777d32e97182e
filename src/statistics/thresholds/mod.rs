//! Thresholds on a score: their choice, bins, expected counts and calibration.

pub(crate) mod bins;
pub(crate) mod calibration;
pub(crate) mod expected;
pub(crate) mod reliability;
pub(crate) mod scan;
pub(crate) mod threshold;
