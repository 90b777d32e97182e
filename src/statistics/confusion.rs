//! Results at a threshold: confusion matrix, precision, recall and F1 for either class,
//! efficiencies, Q and purity.
//!
//! Precision and F1 hold only for the class mixture of the sample, so the mixture is stored with
//! them; efficiencies and Q do not depend on it. A value that its counts do not define is `None`.
//! The matrix counts events; if events have weights, all shares are shares of weight.

use super::{Class, ClassCounts, Measured, Sample, WeightSum};
use crate::error::{Fault, Result};
use serde::{Deserialize, Serialize};

/// Default share of gammas among triggered events for purities.
pub(crate) const DEFAULT_PRIOR: f64 = 1e-3;

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
    pub(crate) fn at(sample: &Sample, threshold: f64) -> Confusion {
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

    pub(crate) fn counts(&self) -> ClassCounts {
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
    pub(crate) fn of(
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
mod tests;
