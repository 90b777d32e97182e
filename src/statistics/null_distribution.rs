//! p-values of events among held-out normal events.

use super::Class;
use crate::error::{Fault, Result};
use serde::{Deserialize, Serialize};

/// Number of smallest ranks that are all kept: p-values matter in the tail.
const KEPT_RANKS: usize = 64;
/// Number of points kept of the other ranks.
const MAX_POINTS: usize = 192;

/// Order statistics of log p of held-out events of the normal class.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NullDistribution {
    pub normal: Class,
    pub events: u64,
    /// Ascending log p, and the number of events with at most this value.
    pub points: Vec<[f64; 2]>,
}

impl NullDistribution {
    /// Computes the distribution from log p of held-out events; `None` without any finite value.
    pub(crate) fn of(normal: Class, mut log_prob: Vec<f64>) -> Option<NullDistribution> {
        log_prob.retain(|l| l.is_finite());
        log_prob.sort_unstable_by(f64::total_cmp);
        let events = log_prob.len();
        let mut ranks: Vec<usize> = (1..=events.min(KEPT_RANKS)).collect();
        if events > KEPT_RANKS {
            let growth = libm::pow(events as f64 / KEPT_RANKS as f64, 1.0 / MAX_POINTS as f64);
            let rank = |i: usize| KEPT_RANKS as f64 * libm::pow(growth, i as f64);
            ranks.extend((1..MAX_POINTS).map(|i| (rank(i) as usize).min(events)));
            ranks.push(events);
        }
        let mut points: Vec<[f64; 2]> = Vec::new();
        for rank in ranks {
            let value = log_prob[rank - 1];
            // All events of equal value are at most this value.
            let rank = log_prob.partition_point(|l| *l <= value) as f64;
            if points.last().is_none_or(|[last, _]| *last < value) {
                points.push([value, rank]);
            }
        }
        (events > 0).then_some(NullDistribution { normal, events: events as u64, points })
    }

    /// Returns (k + 1)/(n + 1), where k of n held-out normal events have at most the log p of this
    /// event; the score is ± log p. Between the kept points k is interpolated.
    pub(crate) fn p_value(&self, score: f64) -> f64 {
        let log_prob = if self.normal == Class::Gamma { score } else { -score };
        let after = self.points.partition_point(|[value, _]| *value <= log_prob);
        let below = after.checked_sub(1).map(|i| self.points[i]);
        let k = match (below, self.points.get(after)) {
            _ if log_prob.is_nan() => f64::NAN,
            (None, _) => 0.0,
            (Some([_, k]), None) => k,
            (Some([x0, k0]), Some([x1, k1])) => {
                // The event at x1 itself is not among those below.
                let between = (k1 - k0 - 1.0).max(0.0);
                k0 + (between * (log_prob - x0) / (x1 - x0)).floor()
            }
        };
        (k + 1.0) / (self.events as f64 + 1.0)
    }

    /// Refuses values that [`NullDistribution::of`] cannot have made.
    ///
    /// # Errors
    /// `Input`.
    pub(crate) fn validate(&self) -> Result<()> {
        let finite = self.points.iter().flatten().all(|x| x.is_finite());
        let rising = self.points.windows(2).all(|p| p[0][0] < p[1][0] && p[0][1] < p[1][1]);
        let ends = self.points.last().is_some_and(|[_, k]| *k <= self.events as f64);
        if finite && rising && ends {
            return Ok(());
        }
        Err(Fault::new("the order statistics of normal events are unusable")
            .expected("ascending values and counts")
            .input())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use taiga_flow_gpu::random::Stream;

    #[test]
    fn p_values_agree_with_counting_exact_in_tail() {
        let stream = Stream::new(crate::test_seed(), "normals", &[]);
        for events in [1_usize, 5, 64, 65, 3000] {
            let values: Vec<f64> = (0..events as u64).map(|i| -10.0 + stream.normal(i)).collect();
            let normals = NullDistribution::of(Class::Gamma, values.clone()).unwrap();
            normals.validate().unwrap();
            let counted = |x: f64| {
                let k = values.iter().filter(|v| **v <= x).count();
                (k as f64 + 1.0) / (events as f64 + 1.0)
            };
            let mirrored = NullDistribution { normal: Class::Hadron, ..normals.clone() };
            for i in 0..2000 {
                let x = -10.0 + 1.3 * stream.normal(100_000 + i);
                let (found, exact) = (normals.p_value(x), counted(x));
                let rank = exact * (events as f64 + 1.0) - 1.0;
                let allowed = if rank <= 63.0 { 1e-12 } else { 0.04 * exact };
                assert!((found - exact).abs() <= allowed, "{events} {x}: {found} {exact}");
                assert_eq!(mirrored.p_value(-x).to_bits(), found.to_bits());
            }
        }
        assert!(NullDistribution::of(Class::Gamma, vec![f64::NAN]).is_none());
        let normals = NullDistribution::of(Class::Gamma, vec![1.0; 7]).unwrap();
        assert_eq!(normals.points, [[1.0, 7.0]]);
        assert_eq!([normals.p_value(0.9), normals.p_value(1.0)], [0.125, 1.0]);
        assert!(normals.p_value(f64::NAN).is_nan());
    }
}
