//! Scores with true classes and weights, in the form that the metrics use.
//!
//! Scores are sorted ascending per class, without NaN.
//!
//! NaN marks an unusable row in a score file: such rows are **excluded and counted**. Infinite
//! scores have a place in the order and are kept, at the ends of the `f32` range in which scores
//! are stored (JSON has no infinity either).

use super::{Class, ClassCounts};
use crate::error::{Fault, Result};
use serde::{Deserialize, Serialize};

const MAX_SCORE: f64 = f32::MAX as f64;

#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Sample {
    gamma: ClassScores,
    hadron: ClassScores,
    excluded: ClassCounts,
    infinite: u64,
}

/// The events of one class.
#[derive(Debug, Clone, Default, PartialEq)]
struct ClassScores {
    score: Vec<f64>,       // (events), ascending
    weight: Vec<f64>,      // (events), of mean 1; empty where all are 1
    above: Vec<WeightSum>, // (events): each with all above it; empty where all weights are 1
    scale: f64,            // from weights as given to those of mean 1
}

/// Number and total weight of some events.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct WeightSum {
    pub events: u64,
    /// Σw
    pub weight: f64,
    /// Σw²
    pub squares: f64,
}

impl WeightSum {
    /// Returns the sum of `events` events of weight 1.
    pub(crate) fn of(events: u64) -> WeightSum {
        WeightSum { events, weight: events as f64, squares: events as f64 }
    }

    /// Returns the sum with one more event.
    #[must_use]
    pub(crate) fn with(self, weight: f64) -> WeightSum {
        WeightSum {
            events: self.events + 1,
            weight: self.weight + weight,
            squares: self.squares + weight * weight,
        }
    }

    #[must_use]
    pub(crate) fn plus(self, other: WeightSum) -> WeightSum {
        WeightSum {
            events: self.events + other.events,
            weight: self.weight + other.weight,
            squares: self.squares + other.squares,
        }
    }

    /// Returns the sum with each weight multiplied by `scale`.
    #[must_use]
    pub(crate) fn scaled(self, scale: f64) -> WeightSum {
        WeightSum { weight: self.weight * scale, squares: self.squares * scale * scale, ..self }
    }

    /// Returns the effective number of events, (Σw)²/Σw² (Kish 1965): the number of events of equal
    /// weight with the same precision.
    pub(crate) fn effective(&self) -> f64 {
        if self.squares > 0.0 { self.weight * self.weight / self.squares } else { 0.0 }
    }
}

impl Sample {
    /// Sorts scores by class; `scores` and `gamma` (true = gamma) have one entry per event.
    ///
    /// # Errors
    /// As [`Sample::weighted`].
    pub(crate) fn new<S: Copy + Into<f64>>(scores: &[S], gamma: &[bool]) -> Result<Sample> {
        Sample::weighted(scores, gamma, None)
    }

    /// Sorts scores with a weight per event (finite, 0 or more), if events have any. Weights are
    /// divided by their mean over the usable events of the class: the mixture of the classes
    /// remains that of their numbers.
    ///
    /// # Errors
    /// `Internal` if the lengths differ, `Input` if a weight is unusable.
    pub(crate) fn weighted<S: Copy + Into<f64>>(
        scores: &[S],
        gamma: &[bool],
        weights: Option<&[f64]>,
    ) -> Result<Sample> {
        let count = weights.map_or(scores.len(), <[f64]>::len);
        if scores.len() != gamma.len() || scores.len() != count {
            return Err(Fault::new("scores, classes and weights differ in number")
                .expected(format!("{} classes", scores.len()))
                .found(format!("{}, {count} weights", gamma.len()))
                .internal());
        }
        let mut sample = Sample::default();
        let mut classes = [Vec::new(), Vec::new()];
        for (i, (&score, &is_gamma)) in scores.iter().zip(gamma).enumerate() {
            if let Some(score) = sample.usable(score.into(), is_gamma) {
                classes[usize::from(!is_gamma)].push((score, weights.map_or(1.0, |w| w[i])));
            }
        }
        let [gamma, hadron] = classes.map(|events| ClassScores::of(events, weights.is_some()));
        (sample.gamma, sample.hadron) = (gamma?, hadron?);
        Ok(sample)
    }

    /// Returns the score as stored; `None` if it is NaN, which is counted.
    fn usable(&mut self, score: f64, gamma: bool) -> Option<f64> {
        if score.is_nan() {
            let excluded = &mut self.excluded;
            *(if gamma { &mut excluded.gamma } else { &mut excluded.hadron }) += 1;
            return None;
        }
        self.infinite += u64::from(score.is_infinite());
        // Adding 0 turns -0 into +0, which the total order would separate.
        Some(score.clamp(-MAX_SCORE, MAX_SCORE) + 0.0)
    }

    /// Returns the scores of the gammas, ascending.
    pub(crate) fn gamma(&self) -> &[f64] {
        &self.gamma.score
    }

    /// Returns the scores of the hadrons, ascending.
    pub(crate) fn hadron(&self) -> &[f64] {
        &self.hadron.score
    }

    pub(crate) fn of(&self, class: Class) -> &[f64] {
        &self.class(class).score
    }

    fn class(&self, class: Class) -> &ClassScores {
        match class {
            Class::Gamma => &self.gamma,
            Class::Hadron => &self.hadron,
        }
    }

    /// Returns the weights in the order of the scores, with mean 1; `None` if all are 1.
    pub(crate) fn weights(&self, class: Class) -> Option<&[f64]> {
        let weight = &self.class(class).weight;
        (!weight.is_empty()).then_some(weight)
    }

    /// Returns the factor from given weights to those of mean 1.
    pub(crate) fn scale(&self, class: Class) -> f64 {
        if self.weights(class).is_some() { self.class(class).scale } else { 1.0 }
    }

    /// Returns the sum over the events of a class from index `from` on.
    pub(crate) fn from(&self, class: Class, from: usize) -> WeightSum {
        let scores = self.class(class);
        if scores.weight.is_empty() {
            return WeightSum::of(scores.score.len().saturating_sub(from) as u64);
        }
        scores.above.get(from).copied().unwrap_or_default()
    }

    /// Returns the empirical quantile of a class, as [`super::thresholds::threshold::quantile`]:
    /// the smallest score with at least a share `fraction` of the weight at or below it.
    pub(crate) fn quantile(&self, class: Class, fraction: f64) -> Option<f64> {
        let ClassScores { score, weight, .. } = self.class(class);
        if weight.is_empty() {
            return super::quantile::quantile(score, fraction);
        }
        weighted_rank(weight.iter(), fraction).and_then(|rank| score.get(rank)).copied()
    }

    /// Returns the negative of the quantile of the negated scores.
    pub(crate) fn mirrored_quantile(&self, class: Class, fraction: f64) -> Option<f64> {
        let ClassScores { score, weight, .. } = self.class(class);
        let rank = if weight.is_empty() {
            super::quantile::quantile_rank(score.len(), fraction)
        } else {
            weighted_rank(weight.iter().rev(), fraction)
        };
        score.len().checked_sub(rank? + 1).and_then(|i| score.get(i)).copied()
    }

    /// Returns the numbers of events with a usable score.
    pub(crate) fn counts(&self) -> ClassCounts {
        let count = |scores: &ClassScores| scores.score.len() as u64;
        ClassCounts { gamma: count(&self.gamma), hadron: count(&self.hadron) }
    }

    /// Returns the numbers of events whose score is NaN.
    pub(crate) fn excluded(&self) -> ClassCounts {
        self.excluded
    }

    /// Returns the number of events whose score is infinite (kept, at the end of the range).
    pub(crate) fn infinite(&self) -> u64 {
        self.infinite
    }
}

impl ClassScores {
    /// Sorts (score, weight) pairs.
    fn of(mut events: Vec<(f64, f64)>, weighted: bool) -> Result<ClassScores> {
        // Weights of equal scores are ordered too: sums must not depend on the ranks.
        events.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
        let score = events.iter().map(|event| event.0).collect();
        if !weighted {
            return Ok(ClassScores { score, ..ClassScores::default() });
        }
        if let Some((_, weight)) = events.iter().find(|(_, w)| !(w.is_finite() && *w >= 0.0)) {
            return Err(Fault::new("a weight is unusable")
                .expected("finite numbers of 0 or more")
                .found(weight)
                .input());
        }
        let total: f64 = events.iter().map(|event| event.1).sum();
        let scale = if total > 0.0 { events.len() as f64 / total } else { 0.0 };
        let weight: Vec<f64> = events.iter().map(|event| event.1 * scale).collect();
        let mut above = vec![WeightSum::default(); weight.len()];
        let mut sum = WeightSum::default();
        for (place, weight) in above.iter_mut().zip(&weight).rev() {
            sum = sum.with(*weight);
            *place = sum;
        }
        Ok(ClassScores { score, weight, above, scale })
    }
}

/// Returns the index of the first weight at which a share `fraction` of the sum is reached; the
/// product is relaxed as in [`super::quantile::quantile_rank`].
pub(super) fn weighted_rank<'a>(
    weights: impl Iterator<Item = &'a f64> + Clone,
    fraction: f64,
) -> Option<usize> {
    if !(0.0..=1.0).contains(&fraction) {
        return None;
    }
    let wanted = weights.clone().sum::<f64>() * fraction * (1.0 - 1e-12);
    let mut sum = 0.0;
    let mut reached = weights.enumerate().filter(|(_, weight)| {
        sum += **weight;
        **weight > 0.0 && sum >= wanted
    });
    reached.next().map(|(i, _)| i)
}

#[cfg(test)]
mod tests {
    use super::*;
    use taiga_flow_gpu::random::Stream;

    #[test]
    fn nan_is_excluded_and_infinity_is_ordered() {
        let scores = [f32::NAN, 2.0, f32::NEG_INFINITY, f32::NAN, -0.0, f32::INFINITY];
        let sample = Sample::new(&scores, &[true, true, false, false, false, true]).unwrap();
        assert_eq!(sample.gamma(), [2.0, MAX_SCORE]);
        assert_eq!(sample.hadron(), [-MAX_SCORE, 0.0]);
        assert!(sample.hadron()[1].is_sign_positive());
        assert_eq!(sample.excluded(), ClassCounts { gamma: 1, hadron: 1 });
        assert_eq!(sample.infinite(), 2);
    }

    #[test]
    fn weight_n_equals_n_events() {
        let stream = Stream::new(crate::test_seed(), "weights", &[]);
        let count = 137;
        let draw = |i: u64, k: u64, below: f64| (stream.uniform(4 * i + k) * below) as u64;
        let (mut once, mut often) = ((vec![], vec![], vec![]), (vec![], vec![]));
        for i in 0..count {
            let (score, gamma) = (draw(i, 0, 40.0) as f64, draw(i, 1, 2.0) == 1);
            let times = draw(i, 2, 4.0);
            once.0.push(score);
            once.1.push(gamma);
            once.2.push(0.3 * times as f64);
            for _ in 0..times {
                often.0.push(score);
                often.1.push(gamma);
            }
        }
        let weighted = Sample::weighted(&once.0, &once.1, Some(&once.2)).unwrap();
        let repeated = Sample::new(&often.0, &often.1).unwrap();
        for class in [Class::Gamma, Class::Hadron] {
            let all = weighted.from(class, 0);
            assert!((all.weight - all.events as f64).abs() < 1e-9, "the mean is 1");
            assert!(all.effective() < all.events as f64);
            for i in 1..20 {
                let fraction = f64::from(i) / 20.0 + 1e-4;
                assert_eq!(
                    weighted.quantile(class, fraction),
                    repeated.quantile(class, fraction),
                    "{class} {fraction}"
                );
                assert_eq!(
                    weighted.mirrored_quantile(class, fraction),
                    repeated.mirrored_quantile(class, fraction)
                );
            }
            for from in 0..weighted.of(class).len() {
                let value = weighted.of(class)[from];
                let first = weighted.of(class).partition_point(|s| *s < value);
                let share = weighted.from(class, first).weight / all.weight;
                let of = repeated.of(class);
                let passed = of.iter().filter(|s| **s >= value).count() as f64;
                assert!((share - passed / of.len() as f64).abs() < 1e-12);
            }
        }
    }

    #[test]
    fn unusable_weights_refused_unless_score_is_nan() {
        for wrong in [-1.0, f64::NAN, f64::INFINITY] {
            let refused = Sample::weighted(&[1.0, 2.0], &[true, true], Some(&[1.0, wrong]));
            assert_eq!(refused.unwrap_err().exit_code(), 3);
        }
        assert!(Sample::weighted(&[1.0], &[true], Some(&[])).is_err());
        let sample =
            Sample::weighted(&[f64::NAN, 1.0, 2.0], &[true; 3], Some(&[9.0, 1.0, 3.0])).unwrap();
        assert_eq!(sample.weights(Class::Gamma), Some(&[0.5, 1.5][..]));
        assert!((sample.scale(Class::Gamma) - 0.5).abs() < 1e-15);
        let nothing = Sample::weighted(&[1.0, 2.0], &[true; 2], Some(&[0.0, 0.0])).unwrap();
        assert!(nothing.from(Class::Gamma, 0).weight < 1e-300);
        assert_eq!(nothing.quantile(Class::Gamma, 0.5), None);
    }

    #[test]
    fn unequal_lengths_are_refused() {
        assert_eq!(Sample::new(&[1.0_f32], &[]).unwrap_err().exit_code(), 1);
    }
}
