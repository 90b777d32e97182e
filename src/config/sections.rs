//! Sections of the configuration that need no module of their own, with their defaults.

use super::{Mode, ThresholdRule};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::time::Duration;
use taiga_flow_gpu::spec::{Coupling, FlowSpec, Permutation};

/// Files to train on. Paths are relative to the working directory of the command; a folder means
/// all HDF5 files below it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Data {
    /// Files that contain only gammas.
    #[serde(default)]
    pub gamma: Vec<PathBuf>,
    /// Files that contain only hadrons.
    #[serde(default)]
    pub hadron: Vec<PathBuf>,
    /// Files with a class column.
    #[serde(default)]
    pub mixed: Vec<PathBuf>,
    /// Experimental files whose events off the source serve as hadrons; those of `hadron` are then
    /// only compared with them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub off: Vec<PathBuf>,
    /// Built-in schema or path of a schema file; detected from the file if absent.
    #[serde(default)]
    pub schema: Option<String>,
    /// Weight of an event in losses, metrics and calibration: an expression over
    /// quantities, such as "energy^-0.7"; 1 for all if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<String>,
    /// Largest fraction of rows with values that cannot be used.
    #[serde(default = "default_bad_rows")]
    pub bad_rows: f64,
    /// Whether events of one class may have the same key; otherwise they are refused as copies.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub allow_repeated_events: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Features {
    /// In the order of the flow's dimensions.
    pub columns: Vec<Feature>,
}

/// One dimension of the flow: a quantity and the coordinate it is modelled in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Feature {
    pub name: String,
    #[serde(default)]
    pub transform: Transform,
    /// x₀ in ln(x + x₀).
    #[serde(default, skip_serializing_if = "is_zero")]
    pub offset: f64,
    /// k in xᵏ.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub exponent: f64,
    /// Step of the values in the file: training adds seeded noise of ± half a step.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub quantum: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Transform {
    /// x
    #[default]
    None,
    /// log₁₀ x
    Log10,
    /// ln(x + x₀)
    Ln,
    /// ln(x/(1 − x))
    Logit,
    /// xᵏ
    Power,
    /// ±x with a random sign, drawn for each event and epoch in training, + elsewhere: for
    /// magnitudes of symmetric quantities, such as alpha folded at 0.
    Signed,
}

/// Open interval; a bound is a number or an expression over quantities.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cut {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<CutBound>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<CutBound>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum CutBound {
    Number(f64),
    Expression(String),
}

impl std::fmt::Display for CutBound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            CutBound::Number(number) => write!(f, "{number}"),
            CutBound::Expression(text) => f.write_str(text),
        }
    }
}

/// Fractions of showers; their sum is 1.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SplitConfig {
    pub train: f64,
    pub validation: f64,
    pub calibration: f64,
    pub test: f64,
    pub seed: u64,
    /// Key columns that identify a shower; those of the schema if absent, or the content of the row
    /// if the schema has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<Vec<String>>,
}

/// True class of an event, or the class taken as normal or as positive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    Gamma,
    Hadron,
}

impl std::fmt::Display for Class {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Class::Gamma => "gamma",
            Class::Hadron => "hadron",
        })
    }
}

impl Class {
    pub(crate) fn other(self) -> Class {
        match self {
            Class::Gamma => Class::Hadron,
            Class::Hadron => Class::Gamma,
        }
    }

    /// Returns the value in the column `class` of event files.
    pub fn code(self) -> i8 {
        match self {
            Class::Gamma => 1,
            Class::Hadron => 0,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ModelConfig {
    pub mode: Mode,
    /// The class whose density is learned.
    pub normal: Class,
    pub blocks: usize,
    pub hidden: Vec<usize>,
    pub coupling: Coupling,
    pub scale_clamp: f32,
    pub permutation: Permutation,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Train {
    pub seed: u64,
    pub epochs: u64,
    /// Events per step over all ranks.
    pub batch: u64,
    /// Number of logical shards; a power of two near batch/256 if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shards: Option<u64>,
    pub learning_rate: f64,
    /// Fraction of all steps over which the rate rises from 0.
    pub warm_up: f64,
    /// Rate at the end of the cosine, as a fraction of `learning_rate`.
    pub final_rate: f64,
    pub beta1: f64,
    pub beta2: f64,
    pub epsilon: f64,
    /// Largest norm of the mean gradient.
    pub clip_norm: f64,
    /// Decay of the running mean of the weights that is published.
    pub ema: f64,
    /// Epochs without a lower validation NLL after which training stops; 0: never.
    pub patience: u64,
    /// Number of consecutive steps that may be skipped because of an unusable gradient.
    pub skip_limit: u64,
}

/// Choice of the threshold on held-out normal events.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CalibrationConfig {
    /// Fraction of normal events that are classified as anomalous.
    pub quantile: f64,
    /// Share of gammas among triggered events that the posterior assumes.
    #[serde(skip_serializing_if = "is_default_prior")]
    pub prior: f64,
    /// Another rule for the threshold, instead of the quantile.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<ThresholdRule>,
    /// For `rule = "significance"`: triggered and cleaned gammas of the source per hour.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gamma_rate_per_hour: Option<f64>,
    /// Other triggered and cleaned events per hour.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub background_rate_per_hour: Option<f64>,
    /// Observation time [h].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hours: Option<f64>,
    /// Number of positions at which the background is counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub off_positions: Option<u64>,
}

/// Settings that may differ between a run and its resumption.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Run {
    pub engine: EngineChoice,
    /// Threads per rank; 0: the cores of the node divided by its ranks.
    pub threads: usize,
    /// Whether several ranks of a node may use one GPU.
    pub share_devices: bool,
    pub checkpoint_seconds: u64,
    pub status_seconds: u64,
    /// Newest checkpoints that are kept; each also contains the best weights so far.
    pub keep: usize,
    /// Time within which a rank that dies, hangs or is stopped ends the job; 0: never.
    pub watchdog_seconds: f64,
    /// Steps between two comparisons of the weights of all ranks; 0: never.
    pub replica_steps: u64,
    /// Time before the end of the job, as given by the scheduler, at which the run stops with a
    /// checkpoint.
    pub end_margin_seconds: u64,
}

/// Device and threads to compute with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Hardware {
    pub engine: EngineChoice,
    /// As in [`Run`].
    pub threads: usize,
    pub share_devices: bool,
}

impl Run {
    /// Returns the time of the watchdog; `None` if it is off.
    pub(crate) fn watchdog(&self) -> Option<Duration> {
        (self.watchdog_seconds > 0.0).then(|| Duration::from_secs_f64(self.watchdog_seconds))
    }

    /// Returns the device and threads to compute with.
    pub fn hardware(&self) -> Hardware {
        Hardware { engine: self.engine, threads: self.threads, share_devices: self.share_devices }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum EngineChoice {
    #[default]
    Auto,
    Cpu,
    Cuda,
    Vulkan,
}

impl Default for SplitConfig {
    fn default() -> SplitConfig {
        SplitConfig { train: 0.7, validation: 0.1, calibration: 0.0, test: 0.2, seed: 1, key: None }
    }
}

impl Default for ModelConfig {
    fn default() -> ModelConfig {
        let reference = FlowSpec::reference_study(6);
        ModelConfig {
            mode: Mode::OneClass,
            normal: Class::Gamma,
            blocks: reference.blocks,
            hidden: reference.hidden,
            coupling: reference.coupling,
            scale_clamp: reference.scale_clamp,
            permutation: reference.permutation,
        }
    }
}

impl Default for Train {
    fn default() -> Train {
        Train {
            seed: 1,
            epochs: 60,
            batch: 8192,
            shards: None,
            learning_rate: 1e-3,
            warm_up: 0.05,
            final_rate: 0.01,
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-8,
            clip_norm: 5.0,
            ema: 0.999,
            patience: 20,
            skip_limit: 10,
        }
    }
}

impl Default for CalibrationConfig {
    fn default() -> CalibrationConfig {
        // The fraction outside two sigma of a normal distribution.
        CalibrationConfig {
            quantile: 0.0455,
            rule: None,
            prior: DEFAULT_PRIOR,
            gamma_rate_per_hour: None,
            background_rate_per_hour: None,
            hours: None,
            off_positions: None,
        }
    }
}

impl Default for Run {
    fn default() -> Run {
        Run {
            engine: EngineChoice::Auto,
            threads: 0,
            share_devices: false,
            checkpoint_seconds: 300,
            status_seconds: 10,
            keep: 3,
            watchdog_seconds: 600.0,
            replica_steps: 100,
            end_margin_seconds: 120,
        }
    }
}

/// Gammas are at most one in a thousand events.
const DEFAULT_PRIOR: f64 = 1e-3;

#[allow(clippy::trivially_copy_pass_by_ref, clippy::float_cmp)] // the signature serde requires; a constant
fn is_default_prior(x: &f64) -> bool {
    *x == DEFAULT_PRIOR
}

fn default_bad_rows() -> f64 {
    0.01
}

#[allow(clippy::trivially_copy_pass_by_ref)] // the signature serde requires
fn is_zero(x: &f64) -> bool {
    *x == 0.0
}
