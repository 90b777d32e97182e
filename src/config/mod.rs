//! The configuration: TOML sections, defaults, and the checks that need no file. `train::plan`
//! derives rows, steps and shards from it, once.
//!
//! Every key has a default or is required; an unknown key is refused, and the error names the
//! nearest known one.

mod load;
mod modes;
mod observation;
mod off_source;
mod parse;
mod range;
mod score;
mod season;
mod sections;
mod thresholds;
mod validate;

pub use load::{ScoringConfig, load, load_for_scoring, parse};
pub(crate) use modes::{
    Anomalies, Draw, FineTune, Generator, Mode, Physics, Push, PushForm, ThresholdRule,
};
pub(crate) use observation::{OFF_POSITIONS, Observation};
pub(crate) use off_source::{MIN_ANGLE, NamedPositions, OffPositions, OffSource};
pub use season::{
    DriftLimits, Interval, ModelOf, OffPositionSettings, OtherModel, SeasonSettings, Thrown,
};

pub use parse::parse_toml;
pub(crate) use score::{Disp, Score, ScoreColumn, SourcePositions, WorkingPoint};
pub use sections::{
    CalibrationConfig, Class, Cut, CutBound, Data, EngineChoice, Feature, Features, Hardware,
    ModelConfig, Run, SplitConfig, Train, Transform,
};
pub use thresholds::{BinnedThresholdConfig, Few, NO_BIN, bin_of};

use crate::error::{Fault, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use taiga_flow_gpu::spec::FlowSpec;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub data: Data,
    pub features: Features,
    /// Bounds by quantity; rows outside of them are not used.
    #[serde(default)]
    pub cuts: BTreeMap<String, Cut>,
    #[serde(default)]
    pub split: SplitConfig,
    #[serde(default)]
    pub model: ModelConfig,
    #[serde(default)]
    pub train: Train,
    /// Synthetic anomalies, in the modes that train on them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub anomalies: Option<Anomalies>,
    /// Settings of the hadrons in `data.off`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub off_source: Option<OffSource>,
    /// A stage after the likelihood training: a push on anomalies, or cross-entropy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fine_tune: Option<FineTune>,
    #[serde(default)]
    pub calibration: CalibrationConfig,
    /// Bins of a quantity, such as size or energy, with one threshold each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thresholds: Option<BinnedThresholdConfig>,
    #[serde(default)]
    pub score: Score,
    #[serde(default)]
    pub run: Run,
}

impl Config {
    /// Returns the specification of the flow.
    pub(crate) fn flow_spec(&self) -> FlowSpec {
        FlowSpec {
            features: self.features.columns.len(),
            blocks: self.model.blocks,
            hidden: self.model.hidden.clone(),
            coupling: self.model.coupling,
            scale_clamp: self.model.scale_clamp,
            permutation: self.model.permutation,
        }
    }

    /// Returns the configuration as TOML, with defaults.
    ///
    /// # Errors
    /// `Internal` if a value has no form in TOML.
    pub fn to_toml(&self) -> Result<String> {
        toml::to_string(self)
            .map_err(|e| Fault::new("cannot write the configuration").found(e).internal())
    }

    /// Returns the hash of everything that must be equal to resume a run: all except `[run]`.
    pub(crate) fn hash(&self) -> Result<String> {
        let same = Config { run: Run::default(), ..self.clone() };
        Ok(blake3::hash(same.to_toml()?.as_bytes()).to_hex().to_string())
    }
}

#[cfg(test)]
mod tests;
