//! Working points at given hadron survivals.

use super::{Roc, RocWorkingPoint};
use serde::{Deserialize, Serialize};

/// Hadron survivals of the working points.
const SURVIVALS: [f64; 4] = [1e-1, 1e-2, 1e-3, 1e-4];

/// The working point at a hadron survival.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct AtSurvival {
    pub hadron_survival: f64,
    /// `None` if fewer than 10 hadrons pass.
    pub point: Option<RocWorkingPoint>,
}

impl AtSurvival {
    /// Returns the working points of a curve at all survivals.
    pub(crate) fn all(roc: &Roc) -> Vec<AtSurvival> {
        let at = |hadron_survival| AtSurvival {
            hadron_survival,
            point: roc.at_hadron_survival(hadron_survival),
        };
        SURVIVALS.map(at).to_vec()
    }
}
