//! Reliability of calibrated probabilities: stated and true shares of gammas, in bins.

use super::calibration::{Calibration, probability};
use crate::statistics::{Measured, WeightSum};
use serde::{Deserialize, Serialize};

/// Events of a range of gammaness, or of the log-odds of the posterior, with the stated and the
/// true probability.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct ReliabilityBin {
    pub low: f64,
    pub high: f64,
    pub gammas: u64,
    pub hadrons: u64,
    /// Mean probability, with the classes weighted as in the prior (gammaness: equally).
    pub said: f64,
    /// Share of gammas at that prior, with the error from the (effective) counts.
    pub found: Measured,
}

const RELIABILITY_BINS: usize = 10;

/// Range of the log-odds of posteriors, ± this value in bins of width 1; the outer bins also
/// contain all values beyond.
const ODDS_RANGE: usize = 20;

/// A labelled event, with the bin of its stated probability.
#[derive(Debug, Clone, Copy)]
struct Labelled {
    bin: usize,
    said: f64,
    gamma: bool,
    weight: f64,
}

/// Returns the reliability of gammaness on labelled events (true = gamma), with their weights, if
/// any; empty ranges are omitted.
pub(crate) fn reliability(
    gammaness: &[f32],
    gamma: &[bool],
    weights: Option<&[f64]>,
) -> Vec<ReliabilityBin> {
    let event = |i: usize| {
        let said = f64::from(gammaness[i]);
        let bin = ((said * RELIABILITY_BINS as f64) as usize).min(RELIABILITY_BINS - 1);
        Labelled { bin, said, gamma: gamma[i], weight: weights.map_or(1.0, |w| w[i]) }
    };
    let edges: Vec<f64> =
        (0..=RELIABILITY_BINS).map(|i| i as f64 / RELIABILITY_BINS as f64).collect();
    binned((0..gamma.len()).map(event).collect(), &edges, 1.0)
}

/// Returns the reliability of the posterior in bins of its log-odds: if few of many events are
/// gammas, bins of one tenth are too coarse.
pub(crate) fn reliability_odds(
    calibration: &Calibration,
    scores: &[f32],
    gamma: &[bool],
    weights: Option<&[f64]>,
) -> Vec<ReliabilityBin> {
    let range = ODDS_RANGE as f64;
    let event = |i: usize| {
        let log_odds = calibration.posterior_log_odds(f64::from(scores[i]));
        let bin = (log_odds.clamp(-range, range) + range) as usize;
        Labelled {
            bin: bin.min(2 * ODDS_RANGE - 1),
            said: probability(log_odds),
            gamma: gamma[i],
            weight: weights.map_or(1.0, |w| w[i]),
        }
    };
    let edges: Vec<f64> = (0..=2 * ODDS_RANGE).map(|i| i as f64 - range).collect();
    let events = (0..gamma.len()).map(event).collect();
    binned(events, &edges, libm::exp(calibration.prior_log_odds()))
}

/// Bins events at prior odds of gammas; bins without events are omitted.
fn binned(mut events: Vec<Labelled>, edges: &[f64], odds: f64) -> Vec<ReliabilityBin> {
    events.retain(|event| event.said.is_finite() && event.weight > 0.0);
    // Sums must not depend on the order of the events.
    events.sort_unstable_by(|a, b| a.said.total_cmp(&b.said).then(a.weight.total_cmp(&b.weight)));
    let mut counts = vec![[WeightSum::default(); 2]; edges.len() - 1]; // gammas, hadrons
    let mut sums = vec![[0.0; 2]; edges.len() - 1];
    for Labelled { bin, said, gamma, weight } in events {
        let class = usize::from(!gamma);
        counts[bin][class] = counts[bin][class].with(weight);
        sums[bin][class] += weight * said;
    }
    let all = [0, 1]
        .map(|class| counts.iter().map(|c| c[class]).fold(WeightSum::default(), WeightSum::plus));
    if all.iter().any(|sum| sum.weight <= 0.0) {
        return Vec::new();
    }
    let per_weight = [odds / all[0].weight, 1.0 / all[1].weight];
    let bin = |i: usize| {
        let [g, h] = [0, 1].map(|class| counts[i][class].weight * per_weight[class]);
        let [n_g, n_h] = [0, 1].map(|class| counts[i][class].effective().max(1.0));
        // An empty class has a weight of at most about one event.
        let [least_g, least_h] = [0, 1].map(|class| {
            let one = all[class].weight / all[class].effective();
            counts[i][class].weight.max(one) * per_weight[class]
        });
        let spread = least_g * least_h / ((least_g + least_h) * (least_g + least_h));
        let said = sums[i][0] * per_weight[0] + sums[i][1] * per_weight[1];
        ReliabilityBin {
            low: edges[i],
            high: edges[i + 1],
            gammas: counts[i][0].events,
            hadrons: counts[i][1].events,
            said: said / (g + h),
            found: Measured {
                value: g / (g + h),
                error: spread * libm::sqrt(1.0 / n_g + 1.0 / n_h),
            },
        }
    };
    let filled = |i: &usize| counts[*i].iter().any(|sum| sum.events > 0);
    (0..counts.len()).filter(filled).map(bin).collect()
}
