//! From scores to probabilities: isotonic regression on held-out events of both classes.
//!
//! Both classes have the same total weight (gammaness is for equal numbers, π = 0.5);
//! nothing is subsampled. Pools of adjacent violators (Ayer et al. 1955) give a rising
//! step function of the score; each pool becomes a point at its mean score, and log-odds
//! are interpolated between points. They never leave the range that ten held-out events
//! of a class resolve, so that no event is ever certain.

use super::roc::LEAST_HADRONS;
use super::{Class, Measured, Sum};
use crate::error::{Fault, Result};
use serde::{Deserialize, Serialize};

/// Points kept at most: a card is read by people too.
const MOST_POINTS: usize = 200;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// Ascending scores and the log-odds of a gamma at equal numbers, ascending too.
    pub points: Vec<[f64; 2]>,
    /// Share of gammas that the posterior is for.
    pub prior: f64,
    /// Events it was fitted on.
    pub gammas: u64,
    pub hadrons: u64,
}

/// Adjacent events of one probability.
#[derive(Debug, Clone, Copy)]
struct Pool {
    score: f64, // Σ weight · score
    gamma: f64, // Σ weight of gammas
    all: f64,   // Σ weight
}

impl Pool {
    fn share(&self) -> f64 {
        self.gamma / self.all
    }
}

impl Calibration {
    /// Fits (score, class, weight). Refused with fewer than ten events of a class.
    pub fn fit(mut events: Vec<(f64, Class, f64)>, prior: f64) -> Result<Calibration> {
        events.retain(|(score, _, weight)| score.is_finite() && *weight > 0.0);
        let of = |class| events.iter().filter(move |e| e.1 == class);
        let [gammas, hadrons] = [Class::Gamma, Class::Hadron].map(|c| of(c).count() as u64);
        if gammas.min(hadrons) < LEAST_HADRONS {
            return Err(Fault::new("too few held-out events to calibrate")
                .expected(format!("at least {LEAST_HADRONS} of each class"))
                .found(format!("{gammas} gammas, {hadrons} hadrons"))
                .advice("raise split.calibration or split.validation")
                .input());
        }
        events.sort_by(|a, b| {
            a.0.total_cmp(&b.0).then(a.1.code().cmp(&b.1.code())).then(a.2.total_cmp(&b.2))
        });
        let total = |class| events.iter().filter(|e| e.1 == class).map(|e| e.2).sum::<f64>();
        let scale = [total(Class::Gamma), total(Class::Hadron)].map(|sum| 0.5 / sum);
        let pools = pools(&events, scale);
        let limit = libm::log(0.1 * gammas.min(hadrons) as f64).max(libm::log(2.0));
        let point = |pool: &Pool| {
            let share = pool.share();
            let odds = libm::log(share / (1.0 - share));
            [pool.score / pool.all, odds.clamp(-limit, limit)]
        };
        let points = thinned(pools.iter().map(point).collect());
        Ok(Calibration { points, prior, gammas, hadrons })
    }

    /// Probability of a gamma at equal numbers; NaN for a score that is NaN.
    pub fn gammaness(&self, score: f64) -> f64 {
        probability(self.log_odds(score))
    }

    /// The same at the prior share of gammas.
    pub fn posterior(&self, score: f64) -> f64 {
        probability(self.log_odds(score) + libm::log(self.prior / (1.0 - self.prior)))
    }

    fn log_odds(&self, score: f64) -> f64 {
        let after = self.points.partition_point(|p| p[0] <= score);
        match (after.checked_sub(1).and_then(|i| self.points.get(i)), self.points.get(after)) {
            _ if score.is_nan() => f64::NAN,
            (Some([x0, y0]), Some([x1, y1])) => y0 + (y1 - y0) * (score - x0) / (x1 - x0),
            (Some([_, y]), None) | (None, Some([_, y])) => *y,
            (None, None) => f64::NAN,
        }
    }

    /// Refuses points that are no rising function.
    pub fn validate(&self) -> Result<()> {
        let finite = self.points.iter().flatten().all(|x| x.is_finite());
        let rising = self.points.windows(2).all(|w| w[0][0] < w[1][0] && w[0][1] <= w[1][1]);
        if finite && rising && !self.points.is_empty() && self.prior > 0.0 && self.prior < 1.0 {
            return Ok(());
        }
        Err(Fault::new("a calibration that cannot be used")
            .expected("ascending scores with ascending log-odds, and a prior between 0 and 1")
            .input())
    }
}

/// Events of a range of gammaness: what it says, and what is true at equal numbers.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ReliabilityBin {
    pub low: f64,
    pub high: f64,
    pub gammas: u64,
    pub hadrons: u64,
    /// Mean gammaness, both classes having equal weight in all.
    pub said: f64,
    /// Share of gammas at equal numbers, with the error that the (effective) counts give it.
    pub found: Measured,
}

const RELIABILITY_BINS: usize = 10;

/// Reliability of gammaness on labelled events (true = gamma), by their weights where they
/// have any; empty ranges are left out.
pub fn reliability(
    gammaness: &[f32],
    gamma: &[bool],
    weights: Option<&[f64]>,
) -> Vec<ReliabilityBin> {
    let mut events: Vec<(f64, bool, f64)> = gammaness
        .iter()
        .zip(gamma)
        .enumerate()
        .map(|(i, (g, gamma))| (f64::from(*g), *gamma, weights.map_or(1.0, |w| w[i])))
        .filter(|(g, _, weight)| g.is_finite() && *weight > 0.0)
        .collect();
    // Sums must not depend on the order in which events come.
    events.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.2.total_cmp(&b.2)));
    let mut counts = [[Sum::default(); 2]; RELIABILITY_BINS]; // gammas, hadrons
    let mut sums = [[0.0; 2]; RELIABILITY_BINS];
    for (g, gamma, weight) in events {
        let bin = ((g * RELIABILITY_BINS as f64) as usize).min(RELIABILITY_BINS - 1);
        let class = usize::from(!gamma);
        counts[bin][class] = counts[bin][class].with(weight);
        sums[bin][class] += weight * g;
    }
    let all = [0, 1].map(|class| counts.iter().map(|c| c[class].weight).sum::<f64>());
    if all[0].min(all[1]) <= 0.0 {
        return Vec::new();
    }
    let bin = |(i, ([gammas, hadrons], sum)): (usize, ([Sum; 2], [f64; 2]))| {
        let (g, h) = (gammas.weight / all[0], hadrons.weight / all[1]);
        let share = g / (g + h);
        let [n_g, n_h] = [gammas, hadrons].map(|sum| sum.effective());
        let relative = 1.0 / n_g.max(1.0) + 1.0 / n_h.max(1.0);
        // An empty class is one of less than about one event.
        let least = n_g + n_h;
        let spread = (share * (1.0 - share)).max(1.0 / ((least + 2.0) * (least + 2.0)));
        ReliabilityBin {
            low: i as f64 / RELIABILITY_BINS as f64,
            high: (i + 1) as f64 / RELIABILITY_BINS as f64,
            gammas: gammas.events,
            hadrons: hadrons.events,
            said: (sum[0] / all[0] + sum[1] / all[1]) / (g + h),
            found: Measured { value: share, error: spread * libm::sqrt(relative) },
        }
    };
    let bins = counts.into_iter().zip(sums).enumerate();
    bins.filter(|(_, (c, _))| c[0].events + c[1].events > 0).map(bin).collect()
}

fn probability(log_odds: f64) -> f64 {
    1.0 / (1.0 + libm::exp(-log_odds))
}

/// Pools of events in the order of scores, with rising shares of gammas.
fn pools(events: &[(f64, Class, f64)], scale: [f64; 2]) -> Vec<Pool> {
    let mut pools: Vec<Pool> = Vec::new();
    let mut last = f64::NAN;
    for (score, class, weight) in events {
        let gamma = *class == Class::Gamma;
        let all = weight * scale[usize::from(!gamma)];
        let mut pool = Pool { score: all * score, gamma: if gamma { all } else { 0.0 }, all };
        // Equal scores have one probability; a share that does not rise joins the pool before.
        let tied = last.total_cmp(score).is_eq();
        last = *score;
        let mut join = tied;
        while let Some(before) =
            pools.last().filter(|before| join || before.share() >= pool.share())
        {
            pool = Pool {
                score: before.score + pool.score,
                gamma: before.gamma + pool.gamma,
                all: before.all + pool.all,
            };
            pools.pop();
            join = false;
        }
        pools.push(pool);
    }
    pools
}

/// At most [`MOST_POINTS`], both ends among them, no two at one score.
fn thinned(mut points: Vec<[f64; 2]>) -> Vec<[f64; 2]> {
    points.dedup_by(|b, a| b[0] <= a[0]);
    let count = points.len();
    if count <= MOST_POINTS {
        return points;
    }
    (0..MOST_POINTS).map(|i| points[i * (count - 1) / (MOST_POINTS - 1)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use taiga_flow_gpu::random::Stream;

    /// Gammas N(1, 1), hadrons N(−1, 1): the log-odds of a score s are 2·s.
    fn events(count: u64, seed: u64) -> Vec<(f64, Class, f64)> {
        let stream = Stream::new(seed, "calibration", &[]);
        let one = |i: u64| match i % 4 {
            0 => (1.0 + stream.normal(i), Class::Gamma, 1.0),
            _ => (-1.0 + stream.normal(i), Class::Hadron, 0.7),
        };
        (0..count).map(one).collect()
    }

    #[test]
    fn gammaness_is_the_probability_at_equal_numbers_whatever_the_mixture() {
        let calibration = Calibration::fit(events(80_000, 3), 1e-3).unwrap();
        calibration.validate().unwrap();
        for s in [-1.5, -0.5, 0.0, 0.3, 1.2] {
            let exact = 1.0 / (1.0 + f64::exp(-2.0 * s));
            assert!((calibration.gammaness(s) - exact).abs() < 0.03, "{s}");
        }
        let odds = |p: f64| p / (1.0 - p);
        let (g, p) = (calibration.gammaness(0.4), calibration.posterior(0.4));
        assert!((odds(p) / odds(g) - 1e-3 / 0.999).abs() < 1e-9);
    }

    #[test]
    fn gammaness_means_what_it_says_on_other_events_of_another_mixture() {
        let calibration = Calibration::fit(events(40_000, 5), 1e-3).unwrap();
        let other: Vec<_> = events(60_000, 6).into_iter().filter(|e| e.0 > -2.0).collect();
        let said: Vec<f32> = other.iter().map(|e| calibration.gammaness(e.0) as f32).collect();
        let gamma: Vec<bool> = other.iter().map(|e| e.1 == Class::Gamma).collect();
        let bins = reliability(&said, &gamma, None);
        assert_eq!(bins.iter().map(|b| b.gammas + b.hadrons).sum::<u64>(), other.len() as u64);
        for bin in &bins {
            // The calibration's own error is as large as the other sample's.
            let allowed = 5.0 * bin.found.error + 0.02;
            assert!((bin.said - bin.found.value).abs() < allowed, "{bin:?}");
        }
        // Weights that take from each class in turn change what is true of it.
        let weights: Vec<f64> = other.iter().map(|e| if e.0 > 0.0 { 3.0 } else { 1.0 }).collect();
        let weighted = reliability(&said, &gamma, Some(&weights));
        let moved = |(a, b): (&ReliabilityBin, &ReliabilityBin)| a.found.value - b.found.value;
        assert!(weighted.iter().zip(&bins).map(moved).any(|m| m.abs() > 0.05));
        // One that says the opposite is found out.
        let wrong: Vec<f32> = said.iter().map(|g| 1.0 - g).collect();
        assert!(
            reliability(&wrong, &gamma, None).iter().any(|b| (b.said - b.found.value).abs() > 0.5)
        );
        assert!(reliability(&said, &vec![true; said.len()], None).is_empty());
    }

    #[test]
    fn no_event_is_ever_certain_and_nan_stays_nan() {
        let apart: Vec<(f64, Class, f64)> = (0..200)
            .map(|i| (f64::from(i), if i < 100 { Class::Hadron } else { Class::Gamma }, 1.0))
            .collect();
        let calibration = Calibration::fit(apart, 0.5).unwrap();
        let (low, high) = (calibration.gammaness(-1e9), calibration.gammaness(1e9));
        // Ten of a hundred events resolve odds of 10.
        assert!((low - 1.0 / 11.0).abs() < 1e-9 && (high - 10.0 / 11.0).abs() < 1e-9);
        assert!(calibration.gammaness(f64::NAN).is_nan());
        let scores: Vec<f64> = (-20..220).map(|i| calibration.gammaness(f64::from(i))).collect();
        assert!(scores.windows(2).all(|w| w[0] <= w[1]), "a higher score is no less gamma-like");
    }

    #[test]
    fn ties_and_few_events_and_broken_points_are_seen_to() {
        let tied: Vec<(f64, Class, f64)> = (0..40)
            .map(|i| (1.0, if i % 2 == 0 { Class::Gamma } else { Class::Hadron }, 1.0))
            .collect();
        let calibration = Calibration::fit(tied, 0.5).unwrap();
        assert!((calibration.gammaness(1.0) - 0.5).abs() < 1e-12);
        assert_eq!(Calibration::fit(events(20, 1), 0.5).unwrap_err().exit_code(), 3);
        let broken = Calibration { points: vec![[0.0, 1.0], [1.0, 0.0]], ..calibration };
        assert_eq!(broken.validate().unwrap_err().exit_code(), 3);
    }
}
