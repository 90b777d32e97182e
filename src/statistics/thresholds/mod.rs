//! Thresholds on a score: their choice, bins, expected counts and calibration.

pub mod bins;
pub mod calibration;
pub mod expected;
pub mod reliability;
pub mod scan;
pub mod threshold;
