//! Training modes: the events that the normal class is contrasted with, and the objective.
//!
//! Synthetic anomalies are a weighted mixture of generators; fine-tuning follows the likelihood
//! training. Defaults belong to the methods, not to any data set.

use super::range::check;
use crate::error::{Fault, Result};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// The flows of a model, and its score.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// One flow on the normal class; the score is ±log p.
    OneClass,
    /// One flow on the normal class, with its density lowered at synthetic anomalies.
    SyntheticPush,
    /// A flow on the normal class and one on synthetic anomalies; the score is a ratio.
    SyntheticRatio,
    /// A flow on gammas and one on hadrons: log p(gamma) − log p(hadron).
    Ratio,
}

impl Mode {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Mode::OneClass => "one-class",
            Mode::SyntheticPush => "synthetic-push",
            Mode::SyntheticRatio => "synthetic-ratio",
            Mode::Ratio => "ratio",
        }
    }

    /// Returns the warning that every report on a model of this mode must show.
    pub(crate) fn caveat(self) -> Option<&'static str> {
        match self {
            Mode::OneClass | Mode::Ratio => None,
            Mode::SyntheticPush => Some(
                "The likelihood was lowered at synthetic anomalies: log p is not a density any more, χ² rules do not \
                 hold for it, and NLLs cannot be compared with other modes. Compare with one-class and ratio.",
            ),
            Mode::SyntheticRatio => Some(
                "The anomalies are generated from the normal class by assumptions about showers, not from hadrons: if \
                 these fail, so does the score. Compare with one-class and ratio.",
            ),
        }
    }

    pub(crate) fn is_synthetic(self) -> bool {
        matches!(self, Mode::SyntheticPush | Mode::SyntheticRatio)
    }

    /// Returns whether the score is a difference of two log-likelihoods.
    pub(crate) fn is_ratio(self) -> bool {
        matches!(self, Mode::SyntheticRatio | Mode::Ratio)
    }
}

/// Synthetic anomalies, generated from normal events in every epoch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Anomalies {
    /// A mixture: each anomaly comes from one of these, by weight.
    pub generators: Vec<Draw>,
    /// Files of events for generators of kind `file`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<PathBuf>,
    /// Draws per event before it is given up (it then counts with weight 0).
    #[serde(default = "default_attempts")]
    pub attempts: u64,
}

/// One generator of a mixture.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Draw {
    #[serde(default = "one")]
    pub weight: f64,
    #[serde(flatten)]
    pub generator: Generator,
}

/// Generator of one anomaly from a normal event. Spreads and reaches are in standard deviations of
/// the scaled features unless stated otherwise.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Generator {
    /// Latent points beyond the quantile of χ² with D degrees of freedom, through the inverse flow.
    LatentShell {
        #[serde(default = "default_shell")]
        quantile: f64,
    },
    /// Latent points of a widened normal distribution, kept if log p of the flow is below the
    /// quantile of normal events.
    LowDensity {
        #[serde(default = "default_low_density_spread")]
        spread: f64,
        #[serde(default = "default_beta")]
        quantile: f64,
    },
    /// Uniform in the box of the scaled features within ± `reach`.
    Box {
        #[serde(default = "default_reach")]
        reach: f64,
    },
    /// Features of other events: each is replaced with probability `fraction` (at least one), all
    /// of them if it is 1.
    Permutation {
        #[serde(default = "one")]
        fraction: f64,
    },
    /// Gaussian noise on the scaled features.
    Noise {
        #[serde(default = "one")]
        spread: f64,
    },
    /// x + u·(x − x′) with another event x′ and u uniform in 0 … `reach`.
    Extrapolation {
        #[serde(default = "one")]
        reach: f64,
    },
    /// Images of hadrons as shower physics suggests, at the level of Hillas parameters.
    Physics(Physics),
    /// Events of `anomalies.files`, such as images made by `anomalies` and then extracted.
    File {},
}

/// Parameters of the generator `physics`. A quantity that is not a feature is ignored.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Physics {
    /// Mean and spread of the normal distribution by which ln width grows.
    pub width_shift: f64,
    pub width_spread: f64,
    pub length_shift: f64,
    pub length_spread: f64,
    /// Spread of ln size; 0 keeps the size of the normal event.
    pub size_spread: f64,
    /// dist² is uniform up to the square of this quantile of dist of the normal events.
    pub dist_quantile: f64,
    /// Noise of the coordinate of con2 around its regression on size, width and length.
    pub con2_spread: f64,
}

impl Default for Physics {
    fn default() -> Physics {
        Physics {
            width_shift: 0.35,
            width_spread: 0.7,
            length_shift: 0.2,
            length_spread: 0.6,
            size_spread: 0.0,
            dist_quantile: 0.98,
            con2_spread: 0.2,
        }
    }
}

/// The stage after the likelihood training: it starts from the best weights of each flow.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FineTune {
    pub epochs: u64,
    pub learning_rate: f64,
    /// Weight of the cross-entropy (ratios) or of the push (λ) relative to the likelihood.
    pub weight: f64,
    /// Fraction of the steps over which the weight rises from 0.
    pub ramp: f64,
    /// Epochs without a lower validation loss after which it ends; 0: never.
    pub patience: u64,
    /// Largest rise of the validation NLL of normal events [nats].
    pub nll_bound: f64,
    /// The push on synthetic anomalies, in `synthetic-push`.
    pub push: Push,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Push {
    pub form: PushForm,
    /// The running quantile of normal log p per dimension that the bound follows.
    pub quantile: f64,
    /// Distance of the bound below the quantile [nats per dimension].
    pub margin: f64,
    /// Width of the softplus, in nats per dimension.
    pub temperature: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PushForm {
    /// T·softplus((ℓ − b)/T) of anomalies.
    Softplus,
    /// (b_n − ℓ)₊ of normal events and (ℓ − b_a)₊ of anomalies.
    Hinge,
}

impl Default for FineTune {
    fn default() -> FineTune {
        FineTune {
            epochs: 20,
            learning_rate: 3e-4,
            weight: 1.0,
            ramp: 0.2,
            patience: 0,
            nll_bound: 2.0,
            push: Push::default(),
        }
    }
}

impl Default for Push {
    fn default() -> Push {
        Push { form: PushForm::Softplus, quantile: 0.05, margin: 1.0, temperature: 1.0 }
    }
}

/// Rules for the threshold that use more than a quantile of normal events.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ThresholdRule {
    /// At least this share of held-out gammas passes.
    #[serde(alias = "gamma_efficiency")]
    GammaEfficiency(f64),
    /// At most this share of held-out hadrons passes; in a `ratio`.
    #[serde(alias = "hadron_survival")]
    HadronSurvival(f64),
    /// Largest Q on held-out events of both classes; in a `ratio`.
    #[serde(alias = "largest_q")]
    LargestQ,
    /// Largest significance expected of an observation; in a `ratio`.
    Significance,
}

fn one() -> f64 {
    1.0
}
fn default_attempts() -> u64 {
    16
}
fn default_shell() -> f64 {
    0.99
}
fn default_low_density_spread() -> f64 {
    2.0
}
fn default_beta() -> f64 {
    0.05
}
fn default_reach() -> f64 {
    4.0
}

impl Anomalies {
    pub(super) fn validate(&self) -> Result<()> {
        check(
            "anomalies.attempts",
            self.attempts,
            (1..=1000).contains(&self.attempts),
            "1 to 1000",
        )?;
        let draws_from_files =
            self.generators.iter().any(|draw| matches!(draw.generator, Generator::File {}));
        if draws_from_files == self.files.is_empty() {
            return Err(Fault::new(
                "configuration: anomalies.files without a generator of kind \"file\", or the generator without files",
            )
            .expected("both anomalies.files and a generator { kind = \"file\" }, or neither")
            .usage());
        }
        let total: f64 = self.generators.iter().map(|d| d.weight).sum();
        check("sum of the weights of anomalies.generators", total, total > 0.0, "above 0")?;
        for draw in &self.generators {
            let positive = draw.weight >= 0.0 && draw.weight.is_finite();
            check("anomalies.generators: weight", draw.weight, positive, "0 or more")?;
            draw.generator.validate()?;
        }
        Ok(())
    }
}

impl Generator {
    fn validate(&self) -> Result<()> {
        let share = |x: f64| x > 0.0 && x <= 1.0;
        let numbers: Vec<(&str, f64, bool)> = match self {
            Generator::LatentShell { quantile } => {
                vec![("quantile", *quantile, *quantile < 1.0 && share(*quantile))]
            }
            Generator::LowDensity { spread, quantile } => {
                vec![("spread", *spread, *spread > 0.0), ("quantile", *quantile, share(*quantile))]
            }
            Generator::Box { reach } | Generator::Extrapolation { reach } => {
                vec![("reach", *reach, *reach > 0.0)]
            }
            Generator::Permutation { fraction } => vec![("fraction", *fraction, share(*fraction))],
            Generator::Noise { spread } => vec![("spread", *spread, *spread > 0.0)],
            Generator::File {} => Vec::new(),
            Generator::Physics(p) => vec![
                ("width_shift", p.width_shift, true),
                ("width_spread", p.width_spread, p.width_spread >= 0.0),
                ("length_shift", p.length_shift, true),
                ("length_spread", p.length_spread, p.length_spread >= 0.0),
                ("size_spread", p.size_spread, p.size_spread >= 0.0),
                ("dist_quantile", p.dist_quantile, share(p.dist_quantile)),
                ("con2_spread", p.con2_spread, p.con2_spread >= 0.0),
            ],
        };
        for (name, value, allowed) in numbers {
            let expected = "a number in the range of this parameter";
            check(
                &format!("anomalies.generators: {name}"),
                value,
                allowed && value.is_finite(),
                expected,
            )?;
        }
        Ok(())
    }
}

impl FineTune {
    pub(super) fn validate(&self) -> Result<()> {
        let p = &self.push;
        let numbers = [
            ("learning_rate", self.learning_rate, self.learning_rate > 0.0, "above 0"),
            ("weight", self.weight, self.weight >= 0.0, "0 or more"),
            ("ramp", self.ramp, (0.0..=1.0).contains(&self.ramp), "0 to 1"),
            ("nll_bound", self.nll_bound, self.nll_bound > 0.0, "above 0"),
            ("push.quantile", p.quantile, p.quantile > 0.0 && p.quantile < 1.0, "between 0 and 1"),
            ("push.margin", p.margin, p.margin >= 0.0, "0 or more"),
            ("push.temperature", p.temperature, p.temperature > 0.0, "above 0"),
        ];
        for (name, value, allowed, expected) in numbers {
            check(&format!("fine_tune.{name}"), value, allowed && value.is_finite(), expected)?;
        }
        check("fine_tune.epochs", self.epochs, self.epochs > 0, "1 or more")
    }
}
