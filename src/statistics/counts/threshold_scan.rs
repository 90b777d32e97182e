//! Counts and significance at every threshold, from the scores of events counted once.
//!
//! An event counts at the position of its highest score, whatever the threshold. So the counts at a
//! threshold are those of the scores from there on. Thresholds are the edges of the bins of
//! [`Distribution`], where counts are exact.
//!
//! - A threshold chosen on the same counts selects upward fluctuations, so its significance is too
//!   large. The scan is for planning.

use super::on_off::li_ma;
use crate::statistics::{Distribution, Measured, OnOff};
use serde::{Deserialize, Serialize};

/// Significance and time of the sensitivity [h].
pub(crate) const SIGMA: f64 = 5.0;
pub(crate) const HOURS: f64 = 50.0;
/// Smallest number of excess events, for any background.
const MIN_EXCESS: f64 = 10.0;
/// Smallest number of OFF events at the best threshold.
const MIN_OFF: u64 = 10;
/// Number of listed thresholds.
const LISTED: usize = 25;

/// Counts by threshold.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct ThresholdScan {
    /// Points of ascending threshold; their numbers of counts decrease by about a constant factor.
    pub points: Vec<SeasonScanPoint>,
    /// The highest significance of all thresholds with at least ten OFF events.
    pub best: Option<SeasonScanPoint>,
    /// Significance and time to which `needed_per_hour` refers.
    pub needed_sigma: f64,
    pub needed_hours: f64,
}

/// Events with at least a given score.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct SeasonScanPoint {
    pub threshold: f64,
    pub on: u64,
    pub off: u64,
    pub excess: Measured,
    pub significance: f64,
    /// Excess per hour that reaches 5 σ (Li and Ma) and ten events in 50 h.
    pub needed_per_hour: Option<f64>,
    /// The same, divided by the excess per hour found here.
    pub needed_of_found: Option<f64>,
}

impl ThresholdScan {
    /// Scans the scores of events counted at the source and at all OFF positions together; `alpha`
    /// is the exposure of the source divided by that of OFF. `None` without events.
    pub(crate) fn new(
        on: &Distribution,
        off: &Distribution,
        alpha: f64,
        hours: Option<f64>,
    ) -> Option<ThresholdScan> {
        let counts = counts_from(on, off, alpha);
        let all = |counts: &OnOff| counts.on + counts.off;
        let most = counts.first().map(|(_, counts)| all(counts))?;
        let mut best: Option<(f64, OnOff)> = None;
        for point in counts.iter().filter(|(_, counts)| counts.off >= MIN_OFF) {
            if best.is_none_or(|(_, known)| point.1.significance() > known.significance()) {
                best = Some(*point);
            }
        }
        let (mut points, mut step) = (Vec::new(), 0);
        let factor = libm::pow(most as f64, -1.0 / (LISTED - 1) as f64);
        for (threshold, counts) in &counts {
            let left = all(counts) as f64 / most as f64;
            if step < LISTED && left <= libm::pow(factor, step as f64) * (1.0 + 1e-9) {
                points.push(SeasonScanPoint::new(*threshold, counts, hours));
                while step < LISTED && left <= libm::pow(factor, step as f64) * (1.0 + 1e-9) {
                    step += 1;
                }
            }
        }
        let best = best.map(|(threshold, counts)| SeasonScanPoint::new(threshold, &counts, hours));
        Some(ThresholdScan { points, best, needed_sigma: SIGMA, needed_hours: HOURS })
    }
}

/// Returns the counts from the smallest value of each bin on, in ascending order.
fn counts_from(on: &Distribution, off: &Distribution, alpha: f64) -> Vec<(f64, OnOff)> {
    let of = |scores: &Distribution, is_on: bool| -> Vec<(f64, u64, bool)> {
        scores.by_least_value().map(|(least, count)| (least, count, is_on)).collect()
    };
    let mut bins = of(on, true);
    bins.extend(of(off, false));
    bins.sort_by(|a, b| b.0.total_cmp(&a.0));
    let mut sum = OnOff { on: 0, off: 0, alpha };
    let mut counts: Vec<(f64, OnOff)> = Vec::new();
    for (least, count, is_on) in bins {
        *(if is_on { &mut sum.on } else { &mut sum.off }) += count;
        match counts.last_mut().filter(|(last, _)| last.total_cmp(&least).is_eq()) {
            Some((_, known)) => *known = sum,
            None => counts.push((least, sum)),
        }
    }
    counts.reverse();
    counts
}

impl SeasonScanPoint {
    fn new(threshold: f64, counts: &OnOff, hours: Option<f64>) -> SeasonScanPoint {
        let excess = counts.excess();
        let hours = hours.filter(|hours| *hours > 0.0);
        let needed = hours.map(|hours| needed_excess(counts, hours) / HOURS);
        let found = hours.map(|hours| excess.value / hours).filter(|rate| *rate > 0.0);
        SeasonScanPoint {
            threshold,
            on: counts.on,
            off: counts.off,
            excess,
            significance: counts.significance(),
            needed_per_hour: needed,
            needed_of_found: needed.zip(found).map(|(needed, found)| needed / found),
        }
    }
}

/// Returns the excess that is significant in [`HOURS`] on the OFF rate of these counts.
fn needed_excess(counts: &OnOff, hours: f64) -> f64 {
    let off = counts.off as f64 * HOURS / hours;
    let significance = |excess: f64| li_ma(counts.alpha * off + excess, off, counts.alpha);
    let (mut low, mut high) = (MIN_EXCESS, MIN_EXCESS);
    if significance(low) >= SIGMA {
        return low;
    }
    while significance(high) < SIGMA {
        (low, high) = (high, 2.0 * high);
    }
    while high - low > 1e-9 * high {
        let middle = f64::midpoint(low, high);
        if significance(middle) < SIGMA { low = middle } else { high = middle }
    }
    high
}

#[cfg(test)]
mod tests {
    use super::*;
    use taiga_flow_gpu::random::Stream;

    fn scores(seed: u64, count: u64, mean: f64) -> Vec<f32> {
        let stream = Stream::new(seed, "scores", &[]);
        (0..count).map(|i| (mean + stream.normal(i)) as f32).collect()
    }

    fn distribution(scores: &[f32]) -> Distribution {
        let mut of = Distribution::default();
        scores.iter().for_each(|score| of.add(*score));
        of
    }

    #[test]
    fn scan_counts_equal_those_of_sorted_scores() {
        let seed = crate::test_seed();
        let mut on = scores(seed, 4000, 0.0);
        on.extend(scores(seed + 1, 300, 2.0));
        let off = scores(seed + 2, 20_000, 0.0);
        let scan =
            ThresholdScan::new(&distribution(&on), &distribution(&off), 0.2, Some(10.0)).unwrap();
        let from = |scores: &[f32], least: f64| {
            scores.iter().filter(|score| f64::from(**score) >= least).count() as u64
        };
        assert!((15..=25).contains(&scan.points.len()), "{}", scan.points.len());
        for point in scan.points.iter().chain(&scan.best) {
            let least = point.threshold;
            assert_eq!([point.on, point.off], [from(&on, least), from(&off, least)], "{least}");
        }
        let first = &scan.points[0];
        assert_eq!([first.on, first.off], [4300, 20_000]);
        assert!(scan.points.is_sorted_by(|a, b| a.threshold < b.threshold));
        // The best of a fine scan is equally significant.
        let fine = (-300..400).map(|i| {
            let least = 0.01 * f64::from(i);
            (li_ma(from(&on, least) as f64, from(&off, least) as f64, 0.2), from(&off, least))
        });
        let highest = fine.filter(|(_, off)| *off >= MIN_OFF).map(|(s, _)| s);
        let highest = highest.fold(0.0, f64::max);
        let best = scan.best.unwrap().significance;
        assert!(best >= 0.99 * highest && best <= 1.02 * highest, "{best} {highest}");
        assert!(scan.points.iter().all(|p| p.off < MIN_OFF || p.significance <= best));
    }

    #[test]
    fn needed_excess_reaches_five_sigma() {
        for (on, off, hours) in [(400, 1000, 20.0), (40, 35, 5.0), (900_000, 4_000_000, 100.0)] {
            let counts = OnOff { on, off, alpha: 0.2 };
            let point = SeasonScanPoint::new(1.0, &counts, Some(hours));
            let needed = point.needed_per_hour.unwrap();
            let off = off as f64 / hours * HOURS;
            let reached = li_ma(0.2 * off + needed * HOURS, off, 0.2);
            assert!((reached - SIGMA).abs() < 1e-6, "{counts:?}: {reached}");
        }
        let none = OnOff { on: 0, off: 0, alpha: 0.2 };
        let point = SeasonScanPoint::new(1.0, &none, Some(4.0));
        assert!((point.needed_per_hour.unwrap() - MIN_EXCESS / HOURS).abs() < 1e-12);
        assert_eq!(point.needed_of_found, None);
        assert_eq!(SeasonScanPoint::new(1.0, &none, None).needed_per_hour, None);
    }

    #[test]
    fn scan_no_events_is_none() {
        let none = Distribution::default();
        assert_eq!(ThresholdScan::new(&none, &none, 0.2, None), None);
        let one = distribution(&[3.0]);
        let scan = ThresholdScan::new(&one, &none, 0.2, None).unwrap();
        assert_eq!((scan.points.len(), scan.points[0].on, scan.best), (1, 1, None));
    }
}
