//! Scores of both classes in common bins over a robust range.
//!
//! The range spans the 0.5 % to 99.5 % quantiles of either class; what lies outside
//! is counted in the end bins, so that the bins always sum to all events, and its
//! number is kept beside them.

use super::{ClassCounts, Sample, threshold::quantile};
use serde::{Deserialize, Serialize};

/// Share of each class that may lie outside the range on either side.
const TAIL: f64 = 0.005;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Histogram {
    pub low: f64,
    pub high: f64,
    /// Events per bin; all bins are equally wide.
    pub gamma: Vec<u64>,
    pub hadron: Vec<u64>,
    /// Events below `low`, counted in the first bin.
    pub below: ClassCounts,
    /// Events above `high`, counted in the last bin.
    pub above: ClassCounts,
}

impl Histogram {
    /// `None` without events or bins.
    pub fn of(sample: &Sample, bins: usize) -> Option<Histogram> {
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
        })
    }

    /// Lower edge of a bin, upper edge of the one before.
    pub fn edge(&self, bin: usize) -> f64 {
        let share = bin as f64 / self.gamma.len().max(1) as f64;
        self.low + (self.high - self.low) * share
    }
}

fn robust_range(sample: &Sample) -> Option<(f64, f64)> {
    let classes = [sample.gamma(), sample.hadron()];
    let at = |fraction: f64| classes.into_iter().filter_map(move |s| quantile(s, fraction));
    let low = at(TAIL).reduce(f64::min)?;
    let high = at(1.0 - TAIL).reduce(f64::max)?;
    // Equal or nearly equal scores still need bins of some width.
    let least = 1e-6 * low.abs().max(high.abs()).max(1e-6);
    if high - low < least { Some((low - least, high + least)) } else { Some((low, high)) }
}

fn fill(scores: &[f64], low: f64, high: f64, bins: usize) -> Vec<u64> {
    let mut counts = vec![0; bins];
    for score in scores {
        let place = (score - low) / (high - low) * bins as f64;
        counts[(place.max(0.0) as usize).min(bins - 1)] += 1;
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outliers_are_clipped_into_the_end_bins_and_counted() {
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
    fn equal_scores_and_no_scores() {
        let sample = Sample::new(&[5.0; 4], &[true, false, true, false]).unwrap();
        let histogram = Histogram::of(&sample, 10).unwrap();
        assert!(histogram.low < 5.0 && histogram.high > 5.0);
        assert_eq!(histogram.gamma.iter().sum::<u64>(), 2);
        assert_eq!(Histogram::of(&Sample::default(), 10), None);
        assert_eq!(Histogram::of(&sample, 0), None);
    }
}
