//! Rules that choose a threshold, and the chosen value.
//!
//! A threshold always applies to the score (higher = more gamma-like): an event counts as gamma
//! when `score >= value`. The caller must choose it on events held out from training.

use super::expected::most_significant;
use crate::config::{self, Observation, ThresholdRule};
use crate::error::{Fault, Result};
use crate::statistics::measured::significant;
use crate::statistics::roc::{MIN_HADRONS, PassingCounts, enough};
use crate::statistics::{Class, Roc, Sample};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Share of a normal distribution beyond two standard deviations on both sides; "two-sigma" means
/// this share (as the empirical quantile of log p).
pub(crate) const TWO_SIGMA_TAIL: f64 = 0.0455;

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "rule", rename_all = "snake_case")]
pub enum Rule {
    /// An event is an anomaly if its log p is strictly below this empirical quantile of log p of
    /// held-out events of the normal class.
    Quantile { normal: Class, fraction: f64 },
    /// The highest value that at least this share of held-out gammas passes.
    GammaEfficiency { efficiency: f64 },
    /// The lowest value that at most this share of held-out hadrons passes; refused if fewer than
    /// ten do.
    HadronSurvival { survival: f64 },
    /// The largest `Q = ε_γ/√ε_h` among values that at least ten hadrons pass.
    LargestQ,
    /// The largest significance (Li and Ma) expected of an observation, among values that at least
    /// ten hadrons pass.
    Significance(Observation),
    /// A value given by the user.
    Fixed { value: f64 },
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Threshold {
    #[serde(flatten)]
    pub rule: Rule,
    /// Smallest score of an event that is classified as gamma.
    #[serde(rename = "threshold")]
    pub value: f64,
    /// Number of events on which the value was chosen; 0 for a fixed one.
    pub events: u64,
    /// Number of passing held-out hadrons, if they are so few that a higher threshold, which fewer
    /// would pass, may be better.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limited_by_hadrons: Option<u64>,
}

/// A choice with fewer passing hadrons is limited by their number: ten are the minimum, and below
/// twice as many the search has reached its end.
const LIMITED_BELOW: f64 = 2.0 * MIN_HADRONS as f64;

impl Rule {
    /// Returns the configured rule that replaces the quantile.
    ///
    /// # Errors
    /// A usage error if the rule lacks a rate of the observation.
    pub(crate) fn configured(settings: &config::CalibrationConfig) -> Result<Option<Rule>> {
        let observation = settings.observation()?;
        Ok(settings.rule.and_then(|rule| match rule {
            ThresholdRule::GammaEfficiency(efficiency) => {
                Some(Rule::GammaEfficiency { efficiency })
            }
            ThresholdRule::HadronSurvival(survival) => Some(Rule::HadronSurvival { survival }),
            ThresholdRule::LargestQ => Some(Rule::LargestQ),
            ThresholdRule::Significance => observation.map(Rule::Significance),
        }))
    }

    /// Returns the rule for a part of the events with these shares of the gammas and hadrons.
    #[must_use]
    pub(crate) fn of_part(self, [gammas, hadrons]: [f64; 2]) -> Rule {
        match self {
            Rule::Significance(o) => {
                let inside = [o.gammas_inside * gammas, o.hadrons_inside * hadrons];
                Rule::Significance(o.with_inside(inside))
            }
            other => other,
        }
    }

    /// Returns the default rule for a flow trained on `normal`.
    pub(crate) fn two_sigma(normal: Class) -> Rule {
        Rule::Quantile { normal, fraction: TWO_SIGMA_TAIL }
    }

    /// Chooses the value on held-out scores. With hadrons as normal class the score is −log p, so
    /// "log p strictly below the quantile" becomes "score above its negative": the threshold is the
    /// next number above it.
    ///
    /// # Errors
    /// `Input` if the held-out events do not determine a value, `Usage` for a fixed value that is
    /// not finite.
    pub(crate) fn choose(self, held_out: &Sample) -> Result<Threshold> {
        let mut limited_by_hadrons = None;
        let mut of_point = |point: Option<PassingCounts>| {
            let few = point.filter(|p| p.hadrons.effective() < LIMITED_BELOW);
            limited_by_hadrons = few.map(|p| p.hadrons.events);
            let counts = held_out.counts();
            (point.map(|p| p.threshold), counts.gamma + counts.hadron)
        };
        let (value, events) = match self {
            Rule::Fixed { value } => (Some(value), 0),
            Rule::Quantile { normal, fraction } => {
                let value = match normal {
                    Class::Gamma => held_out.quantile(normal, fraction),
                    Class::Hadron => held_out.mirrored_quantile(normal, fraction).map(f64::next_up),
                };
                (value, held_out.of(normal).len() as u64)
            }
            Rule::GammaEfficiency { efficiency } => {
                let value = held_out.quantile(Class::Gamma, 1.0 - efficiency);
                (value, held_out.counts().gamma)
            }
            Rule::HadronSurvival { survival } => {
                let point = Roc::of(held_out).at_hadron_survival(survival);
                (point.map(|p| p.threshold), held_out.counts().hadron)
            }
            Rule::LargestQ => of_point(largest_q(held_out)),
            Rule::Significance(observation) => of_point(most_significant(held_out, &observation)),
        };
        match value.filter(|v| v.is_finite()) {
            Some(value) => Ok(Threshold { rule: self, value, events, limited_by_hadrons }),
            None => Err(self.refused(events)),
        }
    }

    /// Returns the classes whose events the rule uses.
    pub(crate) fn classes(self) -> Vec<Class> {
        match self {
            Rule::Fixed { .. } => Vec::new(),
            Rule::Quantile { normal, .. } => vec![normal],
            Rule::GammaEfficiency { .. } => vec![Class::Gamma],
            Rule::HadronSurvival { .. } => vec![Class::Hadron],
            Rule::LargestQ | Rule::Significance(_) => vec![Class::Gamma, Class::Hadron],
        }
    }

    /// Returns whether the rule refuses a value that fewer than ten hadrons pass.
    pub(crate) fn needs_hadrons(self) -> bool {
        matches!(self, Rule::HadronSurvival { .. } | Rule::LargestQ | Rule::Significance(_))
    }

    /// Returns the description of the rule, for a score with this name.
    pub(crate) fn of_score(self, score: &str) -> String {
        let text = self.to_string();
        if score.contains('(') { text.replace("log p", score) } else { text }
    }

    fn refused(self, events: u64) -> crate::error::Error {
        match self {
            Rule::Fixed { value } => {
                Fault::new("a fixed threshold must be a finite number").found(value).usage()
            }
            Rule::GammaEfficiency { .. } => Fault::new("no threshold can be chosen")
                .expected(format!("held-out gammas for {self}"))
                .found(format!("{events} held-out gammas"))
                .advice("hold out more events (split.calibration)")
                .input(),
            Rule::HadronSurvival { survival } => Fault::new("no threshold can be chosen")
                .expected(format!(
                    "at least {:.0} held-out hadrons (effective, if they have weights), so that {MIN_HADRONS} pass at {self}",
                    (MIN_HADRONS as f64 / survival * (1.0 - 1e-9)).ceil()
                ))
                .found(format!("{events} held-out hadrons"))
                .advice("hold out more events (split.calibration), or allow more hadrons")
                .input(),
            Rule::LargestQ | Rule::Significance(_) => Fault::new("no threshold can be chosen")
                .expected(format!(
                    "{self} where at least {MIN_HADRONS} held-out hadrons (effective, if they have weights) and some gammas pass"
                ))
                .found(format!("{events} held-out events of both classes"))
                .advice("hold out more events (split.calibration)")
                .input(),
            Rule::Quantile { normal, fraction } => Fault::new("no threshold can be chosen")
                .expected(format!("held-out {normal} events and a fraction within 0…1"))
                .found(format!("{events} events, fraction {fraction}"))
                .advice(format!("add {normal} events, or give a fixed threshold"))
                .input(),
        }
    }
}

impl Threshold {
    /// Returns the remark on a choice that is limited by the number of held-out hadrons.
    pub(crate) fn limit_text(&self) -> Option<String> {
        self.limited_by_hadrons.map(limit_text)
    }
}

/// Returns the same remark for a number of hadrons.
pub(crate) fn limit_text(hadrons: u64) -> String {
    format!("limited by {hadrons} held-out hadrons")
}

/// Returns the point of the largest Q that at least ten hadrons pass.
fn largest_q(sample: &Sample) -> Option<PassingCounts> {
    let roc = Roc::of(sample);
    let quality = |p: &PassingCounts| p.gammas.weight / libm::sqrt(p.hadrons.weight);
    let measured = roc.points.iter().filter(|p| enough(&p.hadrons) && p.gammas.weight > 0.0);
    measured.max_by(|a, b| quality(a).total_cmp(&quality(b))).copied()
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Rule::Quantile { normal, fraction } => {
                let percent = significant(100.0 * fraction, 3);
                write!(f, "{percent} % quantile of log p of held-out {normal}s")?;
                let is_default = (fraction - TWO_SIGMA_TAIL).abs() < 1e-9;
                f.write_str(if is_default { " (two-sigma)" } else { "" })
            }
            Rule::GammaEfficiency { efficiency } => {
                write!(f, "gamma efficiency {}", significant(*efficiency, 3))
            }
            Rule::HadronSurvival { survival } => {
                write!(f, "hadron survival {}", significant(*survival, 3))
            }
            Rule::LargestQ => f.write_str("largest Q"),
            Rule::Significance(observation) => write!(f, "largest significance of {observation}"),
            Rule::Fixed { .. } => f.write_str("fixed"),
        }
    }
}

#[cfg(test)]
mod tests;
