//! Metrics of a gamma/hadron separation, and of counts on and off a source.
//!
//! One sign convention holds everywhere: **a higher score is more gamma-like**, and an event counts
//! as gamma when `score >= threshold`. The files of this folder are pure functions of scores,
//! labels and counts. A class without events gives `None`, never NaN.

pub mod band;
pub mod comparison;
pub mod confusion;
pub mod counts;
pub mod distribution;
pub mod evaluation;
pub mod histogram;
pub mod latent;
pub mod likeness;
pub mod measured;
pub mod null_distribution;
pub mod parameters;
pub mod roc;
pub mod sample;
pub mod summary;
pub mod survival;
pub mod tails;
#[cfg(test)]
mod tests;
pub mod thresholds;
mod warnings;

pub use comparison::crossed::{Crossed, Selected};
pub use comparison::cuts::{CutEvent, CutsBaseline};
pub use comparison::paired::Paired;
pub use confusion::{AtThreshold, Confusion, Separation};
pub use counts::on_off::{Homogeneity, Leak, OnOff};
pub use counts::threshold_scan::{SeasonScanPoint, ThresholdScan};
pub use distribution::{Distribution, Drift};
pub use evaluation::{About, Evaluation, EventWeights, FileCounts};
pub use histogram::Histogram;
pub use likeness::{Bounds, FeatureBounds, LikenessTally};
pub use measured::Measured;
pub use null_distribution::NullDistribution;
pub use parameters::ParameterHistogram;
pub use roc::{Auc, Roc, RocPoint, RocWorkingPoint};
pub use sample::{Sample, WeightSum};
pub use thresholds::bins::{AtBins, BinnedThresholds, HeldOutEvent};
pub use thresholds::calibration::{BoundSide, CalibratedRange, Calibration, CutEfficiency};
pub use thresholds::expected::Expected;
pub use thresholds::scan::Scan;
pub use thresholds::threshold::{Rule, Threshold};

pub use crate::config::Class;
use serde::{Deserialize, Serialize};

/// Numbers of events of each class.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClassCounts {
    pub gamma: u64,
    pub hadron: u64,
}

impl ClassCounts {
    /// Returns the share of gammas; `None` without events.
    pub fn gamma_fraction(&self) -> Option<f64> {
        let all = self.gamma + self.hadron;
        (all > 0).then(|| self.gamma as f64 / all as f64)
    }
}
