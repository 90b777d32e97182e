//! The model card: everything except the weights that scoring needs, and a record of the training.
//!
//! It has no rank count, time, host or path, so that equal training gives equal bytes.

use super::reference::Reference;
use crate::config::{Anomalies, Class, Cut, Mode, SplitConfig};
use crate::data::schema::features::{MEASURE, ScaledFeature};
use crate::dataset::event_store::RowCounts;
use crate::error::{Error, Fault, Result};
use crate::statistics::{BinnedThresholds, Calibration, Measured, NullDistribution, Threshold};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt::Display;
use taiga_flow_gpu::random::Stream;
use taiga_flow_gpu::spec::{FlowSpec, Split as FeatureSplit};

pub const FORMAT: &str = "taiga-flow-model";
/// Version of models with one flow and no calibration, so that older programs can read them.
pub const VERSION: u32 = 1;
/// Version of models with several flows, or with a calibration.
pub const VERSION_OF_SEVERAL: u32 = 2;
/// Version of models with p-values.
pub const VERSION_WITH_NORMALS: u32 = 3;
/// Version of models of weighted events, or of off-source hadrons.
pub const VERSION_WITH_WEIGHT: u32 = 4;
/// Version of models with thresholds by bins, which older programs would ignore.
pub const VERSION_WITH_BINS: u32 = 5;
/// Version of models that describe their training events: all new models.
pub const VERSION_WITH_REFERENCE: u32 = 6;

/// The card of a model, stored as JSON in the model file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Card {
    pub format: String,
    pub version: u32,
    pub code_version: String,
    pub mode: Mode,
    /// The normal class; absent if there are several.
    pub normal: Option<Class>,
    /// Measure with respect to which log p is a density.
    pub measure: String,
    pub features: Vec<ScaledFeature>,
    pub cuts: BTreeMap<String, Cut>,
    pub flows: BTreeMap<String, FlowCard>,
    pub split: SplitConfig,
    pub threshold: Option<Threshold>,
    /// The same rule per bin of a quantity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thresholds: Option<BinnedThresholds>,
    /// Conversion of scores to probabilities, if both classes were held out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calibration: Option<Calibration>,
    /// Distribution of normal scores for p-values of a single flow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub normals: Option<NullDistribution>,
    /// The training events, to recognise them and events unlike them; since version 6.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<Reference>,
    pub training: TrainingRecord,
    /// blake3 of this card as JSON with an empty checksum, then of the bytes of all weights. A bit
    /// that flips later is detected before scoring.
    pub checksum: String,
}

/// One flow of the model; its name is the prefix of its tensors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FlowCard {
    pub class: Class,
    pub spec: FlowSpec,
    /// Index sets of each block, so that readers need not compute the permutations.
    pub splits: Vec<FeatureSplit>,
}

/// Record of the training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrainingRecord {
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
    /// Values that differ between the flows, if there are several or anomalies are used.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub flows: BTreeMap<String, FlowTraining>,
    /// Generators of synthetic anomalies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub anomalies: Option<Anomalies>,
    /// Expression for the weight of an event, which evaluation also uses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<String>,
    /// Selection of hadrons from experimental files, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub off_source: Option<OffSourceCard>,
}

/// Record of one flow; NLLs are those of its own held-out events.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FlowTraining {
    /// Rows of its class; absent for synthetic anomalies.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rows: Option<RowCounts>,
    pub best_epoch: u64,
    pub validation_nll: Option<f64>,
    pub validation_nll_median: Option<f64>,
}

/// An input file of the training.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataFile {
    pub blake3: String,
    pub rows: u64,
    pub class: Option<Class>,
}

/// Hadrons from experimental files, selected off the source.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OffSourceCard {
    /// Name of the key with the run number.
    pub run: String,
    /// Number of folds; runs of `fold` were not used for training.
    pub folds: u64,
    pub fold: u64,
    pub seed: u64,
    /// Runs whose events were used, ascending; none of their events is scored.
    pub runs: Vec<i64>,
    /// Events with a smaller θ² at the source were excluded [deg²].
    pub exclude_theta2: f64,
    /// Share of events that were not excluded, by alpha at the training position in bins of 10 deg;
    /// null for bins without events.
    pub survival: Vec<Option<f64>>,
    pub contamination: Contamination,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comparison: Option<HadronComparison>,
}

/// Gammas of the source among the training hadrons.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Contamination {
    /// Largest θ² of the regions that are counted [deg²].
    pub theta2: f64,
    /// Number of events in the region at the source in excess of other regions.
    pub excess: Measured,
    /// Share of simulated gammas in the region; if unknown, one half is assumed.
    pub share_inside: Option<f64>,
    /// Resulting share of gammas among the training events, before the cuts.
    pub share: Measured,
}

/// Comparison of simulated with real hadrons.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HadronComparison {
    pub real: u64,
    pub simulated: u64,
    /// AUC of a small classifier that separates the two.
    pub auc: Option<f64>,
    pub features: Vec<ComparedFeature>,
}

/// Differences of one feature.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ComparedFeature {
    pub name: String,
    /// Kolmogorov–Smirnov distance.
    pub ks: f64,
    /// Population stability index.
    pub psi: f64,
}

/// AUC above which the comparison classifier separates real from simulated hadrons.
const TELLS_APART: f64 = 0.6;
/// KS distance or PSI above which the warning names a feature.
const NAMED: f64 = 0.1;

impl HadronComparison {
    /// Returns whether the comparison classifier separates the two.
    pub(crate) fn differs(&self) -> bool {
        self.auc.is_some_and(|auc| auc > TELLS_APART)
    }

    /// Returns the warning for different hadrons.
    pub(crate) fn warning(&self) -> String {
        let mut named: Vec<&ComparedFeature> =
            self.features.iter().filter(|f| f.psi > NAMED || f.ks > NAMED).collect();
        named.sort_by(|a, b| b.ks.total_cmp(&a.ks));
        let names: Vec<&str> = named.iter().map(|f| f.name.as_str()).collect();
        let names = match names.as_slice() {
            [] => "no single feature, but their correlations".to_string(),
            names => names.join(", "),
        };
        format!(
            "Real hadrons differ from the simulated ones (AUC {:.3}; {names}): a model of \
             simulated gammas and real hadrons may learn the simulation. Train again without these \
             features and compare.",
            self.auc.unwrap_or(0.5)
        )
    }
}

impl OffSourceCard {
    /// Returns the fold of a run.
    pub fn fold_of(seed: u64, run: i64, folds: u64) -> u64 {
        Stream::new(seed, "fold of a run", &[]).bits(run as u64) % folds.max(1)
    }

    /// Returns whether the model was trained on events of a run.
    pub fn has_used(&self, run: i64) -> bool {
        self.runs.binary_search(&run).is_ok()
    }
}

impl FlowCard {
    /// Creates the card of a flow with its index sets.
    pub(crate) fn new(class: Class, spec: &FlowSpec) -> FlowCard {
        let splits = (0..spec.blocks).map(|block| spec.split(block)).collect();
        FlowCard { class, spec: spec.clone(), splits }
    }
}

impl Card {
    /// Returns the mode for messages: "one-class, gammas normal".
    pub(crate) fn mode_text(&self) -> String {
        match self.normal {
            Some(class) => format!("{}, {class}s normal", self.mode.name()),
            None => self.mode.name().to_string(),
        }
    }

    /// Returns the score as a formula: "log p", "−log p", "log p(gamma) − log p(hadron)".
    pub(crate) fn score_text(&self) -> String {
        let names: Vec<&String> = self.flows_in_order().map(|(name, _)| name).collect();
        match (names.as_slice(), self.score_class()) {
            ([first, second], Class::Gamma) => format!("log p({first}) − log p({second})"),
            ([first, second], Class::Hadron) => format!("log p({second}) − log p({first})"),
            (_, Class::Gamma) => "log p".to_string(),
            (_, Class::Hadron) => "−log p".to_string(),
        }
    }

    /// Returns the class for which the first flow gives a high log p.
    pub(crate) fn score_class(&self) -> Class {
        let only = || self.flows.values().next().map_or(Class::Gamma, |flow| flow.class);
        self.normal.unwrap_or(if self.flows.len() == 1 { only() } else { Class::Gamma })
    }

    /// Returns the flows, that of the normal class (or of gammas) first.
    pub fn flows_in_order(&self) -> impl Iterator<Item = (&String, &FlowCard)> {
        let first = self.score_class();
        let of =
            move |own: bool| move |(_, flow): &(&String, &FlowCard)| (flow.class == first) == own;
        self.flows.iter().filter(of(true)).chain(self.flows.iter().filter(of(false)))
    }

    /// Checks that this program can score with the card.
    ///
    /// # Errors
    /// Input error with the first value that it cannot use.
    pub fn validate(&self) -> Result<()> {
        self.check_format()?;
        self.check_flows()?;
        if let Some(calibration) = &self.calibration {
            calibration.validate()?;
        }
        if let Some(normals) = &self.normals {
            normals.validate()?;
        }
        if let Some(thresholds) = &self.thresholds {
            thresholds.validate()?;
        }
        if let Some(reference) = &self.reference {
            reference.validate()?;
        }
        if let Some(off) = &self.training.off_source
            && !off.runs.is_sorted()
        {
            return Err(refuse("invalid runs", "ascending runs", "unsorted runs"));
        }
        for flow in self.flows.values() {
            flow.validate(self.features.len())?;
        }
        let is_usable = |f: &&ScaledFeature| f.mean.is_finite() && f.std.is_finite() && f.std > 0.0;
        if let Some(feature) = self.features.iter().find(|f| !is_usable(f)) {
            let found = format!("mean {}, standard deviation {}", feature.mean, feature.std);
            return Err(Fault::new("invalid scaler")
                .column(&feature.feature.name)
                .found(found)
                .input());
        }
        Ok(())
    }

    /// Checks format, version and measure.
    fn check_format(&self) -> Result<()> {
        let known = (VERSION..=VERSION_WITH_REFERENCE).contains(&self.version);
        if self.format != FORMAT || !known {
            return Err(refuse(
                "unknown model format",
                format!("{FORMAT} version {VERSION} to {VERSION_WITH_REFERENCE}"),
                format!("{} version {}", self.format, self.version),
            ));
        }
        if self.measure != MEASURE {
            return Err(refuse("unknown measure of log p", MEASURE, &self.measure));
        }
        Ok(())
    }

    /// Checks number and classes of the flows.
    fn check_flows(&self) -> Result<()> {
        let classes: Vec<Class> = self.flows.values().map(|flow| flow.class).collect();
        let fit = match classes.as_slice() {
            [_] => !self.mode.is_ratio(),
            [a, b] => self.mode.is_ratio() && a != b,
            _ => false,
        };
        if fit {
            return Ok(());
        }
        Err(refuse(
            "the flows do not fit the mode",
            "one flow, or for a ratio one flow of either class",
            format!("{} of {classes:?}", self.mode.name()),
        ))
    }
}

/// Returns the error for a card of a different version.
fn refuse(what: &str, expected: impl Display, found: impl Display) -> Error {
    Fault::new(what)
        .expected(expected)
        .found(found)
        .advice("score with the taiga-flow version that wrote the model")
        .input()
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
            return Err(fault("the index sets of the blocks differ from the specification")
                .advice("the file was written by a different version, or changed")
                .input());
        }
        Ok(())
    }
}
