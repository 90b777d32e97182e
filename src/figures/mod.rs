//! Figures of merit of a gamma/hadron separation.
//!
//! Everything here follows one sign convention: **a higher score is more
//! gamma-like**, and an event counts as gamma when `score >= threshold`. The files
//! of this folder are pure functions of scores and labels; a class without events
//! gives `None`, never NaN.

pub mod band;
pub mod calibration;
pub mod confusion;
pub mod evaluation;
pub mod histogram;
pub mod measured;
pub mod normals;
pub mod roc;
pub mod sample;
pub mod summary;
pub mod threshold;

pub use calibration::Calibration;
pub use confusion::{AtThreshold, Confusion, Separation};
pub use evaluation::{About, Evaluation, FileCounts};
pub use histogram::Histogram;
pub use measured::Measured;
pub use normals::Normals;
pub use roc::{Auc, Roc, RocPoint, WorkingPoint};
pub use sample::Sample;
pub use threshold::{Rule, Threshold};

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
