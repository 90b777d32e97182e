//! Histograms of scores of both classes, in common bins over a robust range.
//!
//! The range spans the 0.5 % to 99.5 % quantiles of either class. It extends no more than four
//! times the distance of its quartiles beyond them, because ratios have tails of hundreds of nats.
//! Values outside are counted in the end bins, so that the bins always sum to all events; their
//! number is also stored.

use super::quantile::quantile;
use super::{Class, ClassCounts, Sample};
use serde::{Deserialize, Serialize};

/// Share of each class that may be outside of the range on either side.
const TAIL: f64 = 0.005;
/// Extent of the range beyond the quartiles, in distances of the quartiles.
const REACH: f64 = 4.0;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Histogram {
    pub low: f64,
    pub high: f64,
    /// Events per bin; all bins are equally wide.
    pub gamma: Vec<u64>,
    pub hadron: Vec<u64>,
    /// Events below `low`, counted in the first bin.
    pub below: ClassCounts,
    /// Events above `high`, counted in the last bin.
    pub above: ClassCounts,
    /// Weight per bin, if events have weights.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gamma_weight: Vec<f64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hadron_weight: Vec<f64>,
}

impl Histogram {
    /// Fills a histogram; `None` without events or bins.
    pub(crate) fn of(sample: &Sample, bins: usize) -> Option<Histogram> {
        let (low, high) = robust_range(sample)?;
        if bins == 0 {
            return None;
        }
        let outside = |is_outside: &dyn Fn(f64) -> bool| ClassCounts {
            gamma: sample.gamma().iter().filter(|s| is_outside(**s)).count() as u64,
            hadron: sample.hadron().iter().filter(|s| is_outside(**s)).count() as u64,
        };
        Some(Histogram {
            low,
            high,
            gamma: fill(sample.gamma(), low, high, bins),
            hadron: fill(sample.hadron(), low, high, bins),
            below: outside(&|s| s < low),
            above: outside(&|s| s > high),
            gamma_weight: fill_weights(sample, Class::Gamma, low, high, bins),
            hadron_weight: fill_weights(sample, Class::Hadron, low, high, bins),
        })
    }

    /// Returns the share of a class per bin, by weight if events have weights; empty without any.
    pub(crate) fn shares(&self, class: Class) -> Vec<f64> {
        let (counts, weights) = match class {
            Class::Gamma => (&self.gamma, &self.gamma_weight),
            Class::Hadron => (&self.hadron, &self.hadron_weight),
        };
        let in_bins = if weights.is_empty() {
            counts.iter().map(|count| *count as f64).collect()
        } else {
            weights.clone()
        };
        let all: f64 = in_bins.iter().sum();
        if all > 0.0 { in_bins.iter().map(|x| x / all).collect() } else { Vec::new() }
    }

    /// Returns the lower edge of a bin, which is the upper edge of the one before.
    pub(crate) fn edge(&self, bin: usize) -> f64 {
        let share = bin as f64 / self.gamma.len().max(1) as f64;
        self.low + (self.high - self.low) * share
    }
}

fn robust_range(sample: &Sample) -> Option<(f64, f64)> {
    let ends = [sample.gamma(), sample.hadron()].into_iter().filter_map(|scores| {
        let at = |fraction: f64| quantile(scores, fraction);
        let (low, high, first, third) = (at(TAIL)?, at(1.0 - TAIL)?, at(0.25)?, at(0.75)?);
        let reach = REACH * (third - first);
        Some((low.max(first - reach), high.min(third + reach)))
    });
    let (low, high) = ends.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)))?;
    // Equal or nearly equal scores also need bins of some width.
    let least = 1e-6 * low.abs().max(high.abs()).max(1e-6);
    if high - low < least { Some((low - least, high + least)) } else { Some((low, high)) }
}

fn fill(scores: &[f64], low: f64, high: f64, bins: usize) -> Vec<u64> {
    let mut counts = vec![0; bins];
    for score in scores {
        counts[bin_of(*score, low, high, bins)] += 1;
    }
    counts
}

/// Sums the weights per bin; empty if events have no weights.
fn fill_weights(sample: &Sample, class: Class, low: f64, high: f64, bins: usize) -> Vec<f64> {
    let Some(weights) = sample.weights(class) else { return Vec::new() };
    let mut sums = vec![0.0; bins];
    for (score, weight) in sample.of(class).iter().zip(weights) {
        sums[bin_of(*score, low, high, bins)] += weight;
    }
    sums
}

fn bin_of(score: f64, low: f64, high: f64, bins: usize) -> usize {
    let place = (score - low) / (high - low) * bins as f64;
    (place.max(0.0) as usize).min(bins - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outliers_are_clipped_to_end_bins_and_counted() {
        let mut scores: Vec<f64> = (0..1000).map(f64::from).collect();
        scores.extend([-1e9, 1e9, f64::INFINITY]);
        let mut gamma = vec![true; 1000];
        gamma.extend([true, false, true]);
        let sample = Sample::new(&scores, &gamma).unwrap();
        let histogram = Histogram::of(&sample, 20).unwrap();
        assert_eq!(histogram.gamma.iter().sum::<u64>(), 1002);
        assert_eq!(histogram.hadron.iter().sum::<u64>(), 1);
        assert!(histogram.below.gamma >= 1 && histogram.low > -1.0);
        assert_eq!(histogram.edge(20).to_bits(), histogram.high.to_bits());
    }

    #[test]
    fn thin_tail_does_not_flatten_the_rest() {
        let mut scores: Vec<f64> = (0..980).map(|i| f64::from(i % 98) / 98.0).collect();
        scores.extend((0..20).map(|i| -1000.0 - f64::from(i)));
        let sample = Sample::new(&scores, &[false; 1000]).unwrap();
        let histogram = Histogram::of(&sample, 50).unwrap();
        assert!(histogram.low > -3.0 && histogram.high < 1.0 + 1e-9, "{histogram:?}");
        assert_eq!((histogram.below.hadron, histogram.hadron[0]), (20, 20));
        assert_eq!(histogram.hadron.iter().sum::<u64>(), 1000);
    }

    #[test]
    fn shares_use_weights_if_present() {
        let scores = [0.0, 0.0, 1.0, 5.0];
        let weights = [3.0, 1.0, 4.0, 7.0];
        let gamma = [true, true, true, false];
        let weighted = Sample::weighted(&scores, &gamma, Some(&weights)).unwrap();
        let shares = Histogram::of(&weighted, 5).unwrap().shares(Class::Gamma);
        assert!((shares[0] - 0.5).abs() < 1e-12 && (shares[1] - 0.5).abs() < 1e-12, "{shares:?}");
        let plain = Sample::new(&scores, &gamma).unwrap();
        let shares = Histogram::of(&plain, 5).unwrap().shares(Class::Gamma);
        assert!((shares[0] - 2.0 / 3.0).abs() < 1e-12, "{shares:?}");
    }

    #[test]
    fn equal_scores_and_no_scores() {
        let sample = Sample::new(&[5.0; 4], &[true, false, true, false]).unwrap();
        let histogram = Histogram::of(&sample, 10).unwrap();
        assert!(histogram.low < 5.0 && histogram.high > 5.0);
        assert_eq!(histogram.gamma.iter().sum::<u64>(), 2);
        assert_eq!(Histogram::of(&Sample::default(), 10), None);
        assert_eq!(Histogram::of(&sample, 0), None);
    }
}
