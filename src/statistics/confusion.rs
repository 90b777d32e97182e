//! Results at a threshold: confusion matrix, precision, recall and F1 for either class as the
//! positive one, efficiencies, Q and purity.
//!
//! Precision and F1 hold only for the class mixture of the sample, so the mixture is stored with
//! them; efficiencies and Q do not depend on it. A value that its counts do not define is `None`.
//! The matrix counts events; if events have weights, all shares are shares of weight.

use super::{Class, ClassCounts, Measured, Sample, WeightSum};
use crate::error::{Fault, Result};
use serde::{Deserialize, Serialize};

/// Default share of gammas among triggered events for purities.
pub const DEFAULT_PRIOR: f64 = 1e-3;

/// Events by true class and by class according to the threshold.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confusion {
    pub gamma_as_gamma: u64,
    pub gamma_as_hadron: u64,
    pub hadron_as_gamma: u64,
    pub hadron_as_hadron: u64,
}

/// Precision, recall and F1 with one class as the positive one.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct PositiveClass {
    pub positive: Class,
    pub precision: Option<Measured>,
    pub recall: Option<Measured>,
    pub f1: Option<f64>,
}

/// Efficiencies relative to a given set of events, and derived values.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Separation {
    /// The events that the efficiencies are relative to.
    pub of: ClassCounts,
    pub gamma_efficiency: Option<Measured>,
    pub hadron_survival: Option<Measured>,
    /// Q = `ε_γ/√ε_h`; `None` if no hadron passes.
    pub quality: Option<Measured>,
    /// Share of gammas among the passing events for a mixture with `prior`; `None` if no hadron
    /// passes (it would be 1).
    pub purity: Option<Measured>,
    pub prior: f64,
}

/// All results at one threshold.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AtThreshold {
    pub confusion: Confusion,
    /// The class mixture of precision, F1 and the matrix.
    pub gamma_fraction: Option<f64>,
    pub gamma_positive: PositiveClass,
    pub hadron_positive: PositiveClass,
    /// Relative to the scored events, which have passed the pre-cuts.
    pub after_cuts: Separation,
    /// Relative to triggered and cleaned events, if their number is known.
    pub before_cuts: Option<Separation>,
}

impl Confusion {
    pub fn at(sample: &Sample, threshold: f64) -> Confusion {
        let below = |scores: &[f64]| scores.partition_point(|s| *s < threshold) as u64;
        let counts = sample.counts();
        let (gamma_as_hadron, hadron_as_hadron) = (below(sample.gamma()), below(sample.hadron()));
        Confusion {
            gamma_as_gamma: counts.gamma - gamma_as_hadron,
            gamma_as_hadron,
            hadron_as_gamma: counts.hadron - hadron_as_hadron,
            hadron_as_hadron,
        }
    }

    pub fn counts(&self) -> ClassCounts {
        ClassCounts {
            gamma: self.gamma_as_gamma + self.gamma_as_hadron,
            hadron: self.hadron_as_gamma + self.hadron_as_hadron,
        }
    }
}

/// Both classes by the decision of the threshold: (as gammas, as hadrons).
struct Classified {
    gamma: [WeightSum; 2],
    hadron: [WeightSum; 2],
}

impl Classified {
    fn at(sample: &Sample, threshold: f64) -> Classified {
        let of = |class| {
            let passing = sample.from(class, sample.of(class).partition_point(|s| *s < threshold));
            let all = sample.from(class, 0);
            let rest = |all: f64, passing: f64| (all - passing).max(0.0);
            let others = WeightSum {
                events: all.events - passing.events,
                weight: rest(all.weight, passing.weight),
                squares: rest(all.squares, passing.squares),
            };
            [passing, others]
        };
        Classified { gamma: of(Class::Gamma), hadron: of(Class::Hadron) }
    }

    fn positive(&self, positive: Class) -> PositiveClass {
        let (hits, false_alarms, misses) = match positive {
            Class::Gamma => (self.gamma[0], self.hadron[0], self.gamma[1]),
            Class::Hadron => (self.hadron[1], self.gamma[1], self.hadron[0]),
        };
        let both = 2.0 * hits.weight + false_alarms.weight + misses.weight;
        PositiveClass {
            positive,
            precision: Measured::share(hits, hits.plus(false_alarms)),
            recall: Measured::share(hits, hits.plus(misses)),
            f1: (both > 0.0).then(|| 2.0 * hits.weight / both),
        }
    }

    /// Returns the efficiencies of the passing events, relative to gammas and hadrons `of`.
    fn separation(&self, of: [WeightSum; 2], prior: f64) -> Separation {
        let gamma_efficiency = Measured::share(self.gamma[0], of[0]);
        let hadron_survival = Measured::share(self.hadron[0], of[1]);
        let both = gamma_efficiency.zip(hadron_survival.filter(|h| h.value > 0.0));
        Separation {
            of: ClassCounts { gamma: of[0].events, hadron: of[1].events },
            gamma_efficiency,
            hadron_survival,
            quality: both.map(|(gamma, hadron)| quality(gamma, hadron)),
            purity: both.map(|(gamma, hadron)| purity(gamma, hadron, prior)),
            prior,
        }
    }
}

impl AtThreshold {
    /// Computes the results. `before_cuts` are triggered and cleaned gammas and hadrons of the same
    /// showers, with their given weights.
    ///
    /// # Errors
    /// `Internal` if there are fewer events before the cuts than after them.
    pub fn of(
        sample: &Sample,
        threshold: f64,
        before_cuts: Option<[WeightSum; 2]>,
        prior: f64,
    ) -> Result<AtThreshold> {
        let confusion = Confusion::at(sample, threshold);
        let counts = confusion.counts();
        if let Some([gammas, hadrons]) = before_cuts.map(|before| before.map(|sum| sum.events))
            && (gammas < counts.gamma || hadrons < counts.hadron)
        {
            return Err(Fault::new("fewer events before the cuts than after them")
                .expected(format!("at least {} gammas, {} hadrons", counts.gamma, counts.hadron))
                .found(format!("{gammas} gammas, {hadrons} hadrons"))
                .internal());
        }
        let classified = Classified::at(sample, threshold);
        let classes = [Class::Gamma, Class::Hadron];
        let scaled = |[gammas, hadrons]: [WeightSum; 2]| {
            [gammas.scaled(sample.scale(Class::Gamma)), hadrons.scaled(sample.scale(Class::Hadron))]
        };
        Ok(AtThreshold {
            confusion,
            gamma_fraction: counts.gamma_fraction(),
            gamma_positive: classified.positive(Class::Gamma),
            hadron_positive: classified.positive(Class::Hadron),
            after_cuts: classified.separation(classes.map(|c| sample.from(c, 0)), prior),
            before_cuts: before_cuts.map(|before| classified.separation(scaled(before), prior)),
        })
    }
}

/// Returns Q with the propagated errors of both efficiencies.
pub(crate) fn quality(gamma: Measured, hadron: Measured) -> Measured {
    let value = gamma.value / hadron.value.sqrt();
    let from_gamma = gamma.error / hadron.value.sqrt();
    let from_hadron = value * hadron.error / (2.0 * hadron.value);
    Measured { value, error: libm::hypot(from_gamma, from_hadron) }
}

/// Returns π `ε_γ` / (π `ε_γ` + (1−π) `ε_h`) with propagated errors.
fn purity(gamma: Measured, hadron: Measured, prior: f64) -> Measured {
    let (signal, noise) = (prior * gamma.value, (1.0 - prior) * hadron.value);
    let all = signal + noise;
    let from_gamma = noise * prior * gamma.error;
    let from_hadron = signal * (1.0 - prior) * hadron.error;
    Measured { value: signal / all, error: libm::hypot(from_gamma, from_hadron) / (all * all) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns gammas 1 2 3 4 and hadrons 0 1 2; at threshold 2, 3 of 4 and 1 of 3 pass.
    fn small() -> Sample {
        let scores = [1.0, 2.0, 3.0, 4.0, 0.0, 1.0, 2.0];
        Sample::new(&scores, &[true, true, true, true, false, false, false]).unwrap()
    }

    fn near(figure: Option<Measured>, value: f64) -> bool {
        figure.is_some_and(|f| (f.value - value).abs() < 1e-12)
    }

    #[test]
    fn small_table_agrees_with_hand_calculation() {
        let at = AtThreshold::of(&small(), 2.0, None, 0.5).unwrap();
        let expected = Confusion {
            gamma_as_gamma: 3,
            gamma_as_hadron: 1,
            hadron_as_gamma: 1,
            hadron_as_hadron: 2,
        };
        assert_eq!(at.confusion, expected);
        assert!(near(at.gamma_positive.precision, 0.75));
        assert!(near(at.gamma_positive.recall, 0.75));
        assert!((at.gamma_positive.f1.unwrap() - 0.75).abs() < 1e-12);
        assert!(near(at.hadron_positive.precision, 2.0 / 3.0));
        assert!(near(at.hadron_positive.recall, 2.0 / 3.0));
        assert!((at.gamma_fraction.unwrap() - 4.0 / 7.0).abs() < 1e-12);
        assert!(near(at.after_cuts.quality, 0.75 * 3.0_f64.sqrt()));
        assert!(near(at.after_cuts.purity, 0.75 / (0.75 + 1.0 / 3.0)));
    }

    type Metric = fn(Measured, Measured) -> Measured;

    #[test]
    fn quality_and_purity_errors_follow_differences() {
        let gamma = Measured { value: 0.775, error: 0.01 };
        let hadron = Measured { value: 0.1, error: 0.004 };
        for figure in [quality as Metric, |g, h| purity(g, h, 1e-3)] {
            let slope = |g: f64, h: f64| {
                let shifted = |sign: f64| {
                    figure(
                        Measured { value: gamma.value + sign * g, ..gamma },
                        Measured { value: hadron.value + sign * h, ..hadron },
                    )
                    .value
                };
                (shifted(1e-6) - shifted(-1e-6)) / 2e-6
            };
            let expected = libm::hypot(slope(1.0, 0.0) * 0.01, slope(0.0, 1.0) * 0.004);
            assert!((figure(gamma, hadron).error / expected - 1.0).abs() < 1e-6);
        }
    }

    #[test]
    fn efficiencies_before_cuts_are_of_all_triggered() {
        let before = [WeightSum::of(8), WeightSum::of(30)];
        let at = AtThreshold::of(&small(), 2.0, Some(before), 0.5).unwrap();
        let separation = at.before_cuts.unwrap();
        assert!(near(separation.gamma_efficiency, 3.0 / 8.0));
        assert!(near(separation.hadron_survival, 1.0 / 30.0));
        let fewer = [WeightSum::of(3), WeightSum::of(30)];
        assert!(AtThreshold::of(&small(), 2.0, Some(fewer), 0.5).is_err());
    }

    /// Events with keys as weights: those kept, all, and those before the cuts.
    #[test]
    fn shares_at_a_threshold_are_shares_of_weight() {
        let scores = [1.0, 2.0, 3.0, 0.0, 1.0, 2.0];
        let gamma = [true, true, true, false, false, false];
        let weights = [5.0, 1.0, 4.0, 0.5, 0.25, 0.25];
        let sample = Sample::weighted(&scores, &gamma, Some(&weights)).unwrap();
        let before = [WeightSum::default().with(20.0).with(0.0).with(0.0), WeightSum::of(3)];
        let at = AtThreshold::of(&sample, 2.0, Some(before), 0.5).unwrap();
        assert_eq!((at.confusion.gamma_as_gamma, at.confusion.hadron_as_gamma), (2, 1));
        assert!(near(at.after_cuts.gamma_efficiency, 0.5));
        assert!(near(at.after_cuts.hadron_survival, 0.25));
        let triggered = at.before_cuts.unwrap();
        assert!(near(triggered.gamma_efficiency, 0.25));
        assert!(near(triggered.hadron_survival, 0.25 / 3.0));
        // Each class keeps the weight of its number: 1.5 of 3 gammas, 0.75 of 3 hadrons.
        assert!(near(at.gamma_positive.precision, 1.5 / 2.25));
        assert!(near(at.hadron_positive.recall, 0.75));
    }

    #[test]
    fn empty_classes_and_decisions_give_none() {
        let gammas = Sample::new(&[1.0, 2.0], &[true, true]).unwrap();
        let at = AtThreshold::of(&gammas, 1.5, None, 1e-3).unwrap();
        assert!(near(at.gamma_positive.recall, 0.5));
        assert_eq!(at.hadron_positive.recall, None);
        assert_eq!(at.after_cuts.hadron_survival, None);
        assert_eq!(at.after_cuts.quality, None);
        let nothing_passes = AtThreshold::of(&small(), 9.0, None, 1e-3).unwrap();
        assert_eq!(nothing_passes.gamma_positive.precision, None);
        assert_eq!(nothing_passes.after_cuts.purity, None);
        let nothing = AtThreshold::of(&Sample::default(), 0.0, None, 1e-3).unwrap();
        assert_eq!(nothing.gamma_fraction, None);
        assert_eq!(nothing.gamma_positive.f1, None);
    }
}
