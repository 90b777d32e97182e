//! Metrics of a gamma/hadron separation, and of counts on and off a source.
//!
//! One sign convention holds everywhere: **a higher score is more gamma-like**, and an event counts
//! as gamma when `score >= threshold`. The files of this folder are pure functions of scores,
//! labels and counts. A class without events gives `None`, never NaN.

pub(crate) mod band;
pub(crate) mod comparison;
pub(crate) mod confusion;
pub mod counts;
pub(crate) mod distribution;
pub(crate) mod evaluation;
pub(crate) mod histogram;
pub(crate) mod latent;
pub(crate) mod likeness;
pub(crate) mod measured;
pub(crate) mod null_distribution;
pub(crate) mod parameters;
pub(crate) mod quantile;
pub(crate) mod roc;
pub(crate) mod sample;
pub(crate) mod summary;
pub(crate) mod survival;
pub mod tails;
#[cfg(test)]
mod tests;
pub(crate) mod thresholds;
mod warnings;

pub(crate) use comparison::crossed::{Crossed, Selected};
pub(crate) use comparison::cuts::{CutEvent, CutsBaseline};
pub(crate) use comparison::paired::Paired;
pub(crate) use confusion::{AtThreshold, Confusion, Separation};
pub use counts::on_off::{Homogeneity, Leak, OnOff};
pub(crate) use counts::threshold_scan::{SeasonScanPoint, ThresholdScan};
pub(crate) use distribution::{Distribution, Drift};
pub(crate) use evaluation::{About, Evaluation, EventWeights, FileCounts};
pub(crate) use histogram::Histogram;
pub(crate) use likeness::{Bounds, FeatureBounds, LikenessTally};
pub(crate) use measured::Measured;
pub(crate) use null_distribution::NullDistribution;
pub(crate) use parameters::ParameterHistogram;
pub(crate) use roc::{Auc, Roc, RocPoint, RocWorkingPoint};
pub(crate) use sample::{Sample, WeightSum};
pub use thresholds::bins::{AtBins, BinnedThresholds, HeldOutEvent};
pub(crate) use thresholds::calibration::{BoundSide, Calibration, CutEfficiency};
pub(crate) use thresholds::expected::Expected;
pub(crate) use thresholds::scan::Scan;
pub use thresholds::threshold::{Rule, Threshold};

pub(crate) use crate::config::Class;
use serde::{Deserialize, Serialize};

/// Numbers of events of each class.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClassCounts {
    pub gamma: u64,
    pub hadron: u64,
}

impl ClassCounts {
    /// Returns the share of gammas; `None` without events.
    pub(crate) fn gamma_fraction(&self) -> Option<f64> {
        let all = self.gamma + self.hadron;
        (all > 0).then(|| self.gamma as f64 / all as f64)
    }
}
