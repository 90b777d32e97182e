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
pub const TWO_SIGMA_TAIL: f64 = 0.0455;

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
    pub fn configured(settings: &config::CalibrationConfig) -> Result<Option<Rule>> {
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
    pub fn of_part(self, [gammas, hadrons]: [f64; 2]) -> Rule {
        match self {
            Rule::Significance(o) => {
                let inside = [o.gammas_inside * gammas, o.hadrons_inside * hadrons];
                Rule::Significance(o.with_inside(inside))
            }
            other => other,
        }
    }

    /// Returns the default rule for a flow trained on `normal`.
    pub fn two_sigma(normal: Class) -> Rule {
        Rule::Quantile { normal, fraction: TWO_SIGMA_TAIL }
    }

    /// Chooses the value on held-out scores. With hadrons as normal class the score is −log p, so
    /// "log p strictly below the quantile" becomes "score above its negative": the threshold is the
    /// next number above it.
    ///
    /// # Errors
    /// `Input` if the held-out events do not determine a value, `Usage` for a fixed value that is
    /// not finite.
    pub fn choose(self, held_out: &Sample) -> Result<Threshold> {
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
    pub fn classes(self) -> Vec<Class> {
        match self {
            Rule::Fixed { .. } => Vec::new(),
            Rule::Quantile { normal, .. } => vec![normal],
            Rule::GammaEfficiency { .. } => vec![Class::Gamma],
            Rule::HadronSurvival { .. } => vec![Class::Hadron],
            Rule::LargestQ | Rule::Significance(_) => vec![Class::Gamma, Class::Hadron],
        }
    }

    /// Returns whether the rule refuses a value that fewer than ten hadrons pass.
    pub fn needs_hadrons(self) -> bool {
        matches!(self, Rule::HadronSurvival { .. } | Rule::LargestQ | Rule::Significance(_))
    }

    /// Returns the description of the rule, for a score with this name.
    pub fn of_score(self, score: &str) -> String {
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
    pub fn limit_text(&self) -> Option<String> {
        self.limited_by_hadrons.map(limit_text)
    }
}

/// Returns the same remark for a number of hadrons.
pub fn limit_text(hadrons: u64) -> String {
    format!("limited by {hadrons} held-out hadrons")
}

/// Returns the point of the largest Q that at least ten hadrons pass.
fn largest_q(sample: &Sample) -> Option<PassingCounts> {
    let roc = Roc::of(sample);
    let quality = |p: &PassingCounts| p.gammas.weight / libm::sqrt(p.hadrons.weight);
    let measured = roc.points.iter().filter(|p| enough(&p.hadrons) && p.gammas.weight > 0.0);
    measured.max_by(|a, b| quality(a).total_cmp(&quality(b))).copied()
}

/// Returns the empirical quantile: the smallest value with at least a share `fraction` of all
/// values at or below it (Hyndman & Fan 1996, definition 1: the inverse of the empirical
/// distribution function, without interpolation). So at most that share is strictly below it.
/// `ascending` must be sorted; `None` if it is empty or `fraction` is not within 0…1.
pub fn quantile(ascending: &[f64], fraction: f64) -> Option<f64> {
    ascending.get(quantile_rank(ascending.len(), fraction)?).copied()
}

/// Returns the index of the quantile among n ascending values: ⌈n·fraction⌉ − 1, at least 0. The
/// product is reduced by a few roundings, so that 0.1 of 30 is the third value and not the fourth.
pub fn quantile_rank(count: usize, fraction: f64) -> Option<usize> {
    if !(0.0..=1.0).contains(&fraction) {
        return None;
    }
    let eased = count as f64 * fraction * (1.0 - 1e-12);
    Some((libm::ceil(eased) as usize).saturating_sub(1))
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
mod tests {
    use super::*;

    #[test]
    fn quantile_is_inverse_distribution_function() {
        let ten: Vec<f64> = (1..=10).map(f64::from).collect();
        for (fraction, value) in
            [(0.0, 1.0), (0.05, 1.0), (0.1, 1.0), (0.11, 2.0), (0.5, 5.0), (1.0, 10.0)]
        {
            assert_eq!(quantile(&ten, fraction), Some(value), "{fraction}");
        }
        let thirty: Vec<f64> = (1..=30).map(f64::from).collect();
        assert_eq!(quantile(&thirty, 0.1), Some(3.0));
        assert_eq!(quantile(&[], 0.5), None);
        assert_eq!(quantile(&ten, f64::NAN), None);
        assert_eq!(quantile(&ten, 1.5), None);
    }

    #[test]
    fn either_normal_class_loses_the_same_tail() {
        let log_p: Vec<f64> = (0..1000).map(|i| -f64::from(i) / 100.0).collect();
        let gammas = Sample::new(&log_p, &[true; 1000]).unwrap();
        let of_gamma = Rule::two_sigma(Class::Gamma).choose(&gammas).unwrap();
        let lost = log_p.iter().filter(|s| **s < of_gamma.value).count();
        let score: Vec<f64> = log_p.iter().map(|l| -l).collect();
        let hadrons = Sample::new(&score, &[false; 1000]).unwrap();
        let of_hadron = Rule::two_sigma(Class::Hadron).choose(&hadrons).unwrap();
        let kept = score.iter().filter(|s| **s >= of_hadron.value).count();
        assert_eq!((lost, kept), (45, 45));
    }

    #[test]
    fn rule_without_events_or_number_is_refused() {
        let error = Rule::two_sigma(Class::Gamma).choose(&Sample::default()).unwrap_err();
        assert_eq!(error.exit_code(), 3);
        let error = Rule::Fixed { value: f64::NAN }.choose(&Sample::default()).unwrap_err();
        assert_eq!(error.exit_code(), 2);
    }

    #[test]
    fn rules_on_both_classes_hold_or_are_refused() {
        let scores: Vec<f64> = (0..2000).map(|i| f64::from(i * 7919 % 2000)).collect();
        let gamma: Vec<bool> =
            scores.iter().map(|s| (*s as u32).is_multiple_of(2) && *s > 500.0).collect();
        let sample = Sample::new(&scores, &gamma).unwrap();
        let passing = |of: Class, value: f64| {
            let all = sample.of(of);
            all.iter().filter(|s| **s >= value).count() as f64 / all.len() as f64
        };
        let at = Rule::GammaEfficiency { efficiency: 0.8 }.choose(&sample).unwrap();
        assert!(passing(Class::Gamma, at.value) >= 0.8);
        assert!(passing(Class::Gamma, at.value.next_up()) < 0.8);
        let at = Rule::HadronSurvival { survival: 0.1 }.choose(&sample).unwrap();
        assert!(passing(Class::Hadron, at.value) <= 0.1 && passing(Class::Hadron, at.value) > 0.09);
        let quality = |v: f64| passing(Class::Gamma, v) / passing(Class::Hadron, v).sqrt();
        let best = Rule::LargestQ.choose(&sample).unwrap();
        let counted = |v: &f64| sample.hadron().iter().filter(|s| **s >= *v).count() >= 10;
        for value in scores.iter().copied().filter(counted) {
            assert!(quality(value) <= quality(best.value) + 1e-12, "{value}");
        }
        let refused = Rule::HadronSurvival { survival: 1e-4 }.choose(&sample).unwrap_err();
        assert_eq!(refused.exit_code(), 3);
        let text = refused.to_string();
        assert!(text.contains("at least 100000 held-out hadrons"), "{text}");
        assert!(
            text.contains(&format!("found {} held-out hadrons", sample.hadron().len())),
            "{text}"
        );
        assert!(Rule::LargestQ.choose(&Sample::default()).is_err());
        for rule in [Rule::LargestQ, Rule::HadronSurvival { survival: 0.01 }] {
            let text = serde_json::to_string(&rule).unwrap();
            assert_eq!(serde_json::from_str::<Rule>(&text).unwrap(), rule);
        }
    }

    #[test]
    fn largest_q_at_ten_hadrons_says_limited() {
        // Q rises up to the highest score: gammas are above all hadrons but the last few.
        let scores: Vec<f64> = (0..3000).map(f64::from).collect();
        let steep: Vec<bool> =
            scores.iter().map(|s| *s > 2000.0 && !(*s as u64).is_multiple_of(20)).collect();
        let sample = Sample::new(&scores, &steep).unwrap();
        let best = Rule::LargestQ.choose(&sample).unwrap();
        let passing = sample.hadron().iter().filter(|s| **s >= best.value).count() as u64;
        assert_eq!(passing, 49, "all gammas at 49 of 2050 hadrons is the best");
        assert_eq!(best.limited_by_hadrons, None);
        // The number of hadrons falls geometrically and that of gammas does not: the fewer hadrons,
        // the larger Q.
        let scores: Vec<f64> =
            (0..2000).map(|i| 20.0 * libm::sqrt(f64::from(i) / 2000.0)).collect();
        let hadrons: Vec<f64> =
            (1..=2000).map(|i| -2.0 * libm::log(f64::from(i) / 2000.0)).collect();
        let all: Vec<f64> = scores.iter().chain(&hadrons).copied().collect();
        let gamma: Vec<bool> = (0..4000).map(|i| i < 2000).collect();
        let best = Rule::LargestQ.choose(&Sample::new(&all, &gamma).unwrap()).unwrap();
        assert_eq!(best.limited_by_hadrons, Some(10), "{best:?}");
        assert_eq!(best.limit_text().unwrap(), "limited by 10 held-out hadrons");
    }

    #[test]
    fn threshold_round_trips_through_json() {
        let threshold = Threshold {
            rule: Rule::two_sigma(Class::Gamma),
            value: -9.25,
            events: 1200,
            limited_by_hadrons: None,
        };
        let text = serde_json::to_string(&threshold).unwrap();
        assert_eq!(serde_json::from_str::<Threshold>(&text).unwrap(), threshold, "{text}");
        let observation = Observation::new(str::to_string, [2.5, 3600.0, 85.0], 5).unwrap();
        let rule = Rule::Significance(observation.with_inside([0.5, 1.0]));
        let significance = Threshold { rule, limited_by_hadrons: Some(12), ..threshold };
        let text = serde_json::to_string(&significance).unwrap();
        assert_eq!(serde_json::from_str::<Threshold>(&text).unwrap(), significance, "{text}");
        let fixed = Rule::Fixed { value: 0.1 }.choose(&Sample::default()).unwrap();
        let text = serde_json::to_string(&fixed).unwrap();
        assert_eq!(serde_json::from_str::<Threshold>(&text).unwrap(), fixed, "{text}");
    }
}
