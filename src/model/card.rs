//! The model card: everything besides weights that scoring needs, and how the model
//! came about. Holds no rank count, time, host or path, so that equal training gives
//! equal bytes.

use crate::config::{Class, Cut, Mode, Split};
use crate::data::features::{MEASURE, ScaledFeature};
use crate::data::store::RowCounts;
use crate::error::{Fault, Result};
use crate::figures::Threshold;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use taiga_flow_gpu::spec::{FlowSpec, Split as FeatureSplit};

pub const FORMAT: &str = "taiga-flow-model";
pub const VERSION: u32 = 1;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Card {
    pub format: String,
    pub version: u32,
    pub code_version: String,
    pub mode: Mode,
    /// The class modelled; absent where several are.
    pub normal: Option<Class>,
    /// What log p is the density of.
    pub measure: String,
    pub features: Vec<ScaledFeature>,
    pub cuts: BTreeMap<String, Cut>,
    pub flows: BTreeMap<String, FlowCard>,
    pub split: Split,
    pub threshold: Option<Threshold>,
    pub training: Training,
    /// blake3 of this card as JSON with an empty checksum, then of the bytes of all
    /// weights: a bit that flips later is noticed before anything is scored.
    pub checksum: String,
}

/// One flow of the model; its tensors carry its name as prefix.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FlowCard {
    pub class: Class,
    pub spec: FlowSpec,
    /// Index sets of each block, written out so that any reader can do without our
    /// permutations.
    pub splits: Vec<FeatureSplit>,
}

/// How the model came about.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Training {
    pub seed: u64,
    pub configuration: String, // hash
    /// blake3 and rows of each input file, in order.
    pub data: Vec<DataFile>,
    pub rows: RowCounts,
    pub epochs: u64,
    pub best_epoch: u64,
    pub steps: u64,
    pub skipped_steps: u64,
    pub validation_nll: Option<f64>,
    pub validation_nll_median: Option<f64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataFile {
    pub blake3: String,
    pub rows: u64,
    pub class: Option<Class>,
}

impl FlowCard {
    pub fn new(class: Class, spec: &FlowSpec) -> FlowCard {
        let splits = (0..spec.blocks).map(|block| spec.split(block)).collect();
        FlowCard { class, spec: spec.clone(), splits }
    }
}

impl Card {
    /// "one-class, gammas normal"
    pub fn mode_text(&self) -> String {
        match (self.mode, self.normal) {
            (Mode::OneClass, Some(class)) => format!("one-class, {class}s normal"),
            (Mode::OneClass, None) => "one-class".to_string(),
        }
    }

    /// Refuses a card that this program cannot score with.
    pub fn validate(&self) -> Result<()> {
        let refuse = |what: &str, expected: String, found: String| {
            Fault::new(what)
                .expected(expected)
                .found(found)
                .advice("score with the taiga-flow version that wrote the model")
                .input()
        };
        if self.format != FORMAT || self.version != VERSION {
            let found = format!("{} version {}", self.format, self.version);
            return Err(refuse(
                "unknown model format",
                format!("{FORMAT} version {VERSION}"),
                found,
            ));
        }
        if self.measure != MEASURE {
            return Err(refuse("unknown measure of log p", MEASURE.into(), self.measure.clone()));
        }
        for flow in self.flows.values() {
            flow.validate(self.features.len())?;
        }
        let unusable = self
            .features
            .iter()
            .find(|f| !(f.mean.is_finite() && f.std.is_finite() && f.std > 0.0));
        if let Some(feature) = unusable {
            let found = format!("mean {}, standard deviation {}", feature.mean, feature.std);
            return Err(Fault::new("a scaler that cannot be used")
                .column(&feature.feature.name)
                .found(found)
                .input());
        }
        Ok(())
    }
}

impl FlowCard {
    fn validate(&self, features: usize) -> Result<()> {
        let fault = |what: &str| Fault::new(what.to_string());
        self.spec.validate().map_err(|e| {
            fault("model out of limits").column(e.field).expected(e.expected).found(e.found).input()
        })?;
        if self.spec.features != features {
            let found = format!("a flow of {}", self.spec.features);
            return Err(fault("features and flow disagree")
                .expected(format!("{features} features"))
                .found(found)
                .input());
        }
        if *self != FlowCard::new(self.class, &self.spec) {
            return Err(fault("the index sets of the blocks are not those of the specification")
                .advice("the file was written by another version, or altered")
                .input());
        }
        Ok(())
    }
}
