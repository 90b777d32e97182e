//! Figures of merit of a gamma/hadron separation, and of counts on and off a source.
//!
//! Everything here follows one sign convention: **a higher score is more
//! gamma-like**, and an event counts as gamma when `score >= threshold`. The files
//! of this folder are pure functions of scores, labels and counts; a class without
//! events gives `None`, never NaN.

pub mod band;
pub mod baseline;
pub mod bins;
pub mod calibration;
pub mod confusion;
pub mod crossed;
pub mod disjoint;
pub mod distribution;
pub mod evaluation;
pub mod expected;
pub mod histogram;
pub mod latent;
pub mod likeness;
pub mod measured;
pub mod normals;
pub mod on_off;
pub mod paired;
pub mod parameters;
pub mod roc;
pub mod sample;
pub mod scan;
pub mod summary;
pub mod tails;
#[cfg(test)]
mod tests;
pub mod threshold;
pub mod threshold_scan;
pub mod upper_limit;
pub mod yardstick;

pub use baseline::{CutEvent, CutsBaseline};
pub use bins::{AtBins, BinnedThresholds, HeldOutEvent};
pub use calibration::{Bound, CalibratedRange, Calibration, CutEfficiency};
pub use confusion::{AtThreshold, Confusion, Separation};
pub use crossed::{Crossed, Selected};
pub use distribution::{Distribution, Drift};
pub use evaluation::{About, Evaluation, FileCounts, Weights};
pub use expected::Expected;
pub use histogram::Histogram;
pub use likeness::{Bounds, FeatureBounds, LikenessTally};
pub use measured::Measured;
pub use normals::Normals;
pub use on_off::{Homogeneity, Leak, OnOff};
pub use paired::Paired;
pub use parameters::ParameterHistogram;
pub use roc::{Auc, Roc, RocPoint, WorkingPoint};
pub use sample::{Sample, Sum};
pub use scan::Scan;
pub use threshold::{Rule, Threshold};
pub use threshold_scan::{ScanPoint, ThresholdScan};

pub use crate::config::Class;
use serde::{Deserialize, Serialize};

/// Events of each class.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClassCounts {
    pub gamma: u64,
    pub hadron: u64,
}

impl ClassCounts {
    /// Share of gammas; `None` without events.
    pub fn gamma_fraction(&self) -> Option<f64> {
        let all = self.gamma + self.hadron;
        (all > 0).then(|| self.gamma as f64 / all as f64)
    }
}
