//! Counts on and off the source: excess, significance, upper limits, homogeneity.
//!
//! N_on events were counted at the source and N_off at n positions of the same exposure,
//! so that α = 1/n. All counts are of different events (see [`super::disjoint`]): then
//! they are independent Poisson numbers, which everything here assumes.

use super::Measured;
use super::tails::chi2_above;
use serde::{Deserialize, Serialize};

/// Quantile of the normal distribution at 95 %.
const Z_95: f64 = 1.644_853_626_951_472_7;

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct OnOff {
    pub on: u64,
    pub off: u64,
    /// Exposure of the source over that of all OFF positions.
    pub alpha: f64,
}

impl OnOff {
    /// `None` without OFF positions.
    pub fn new(on: u64, off: &[u64]) -> Option<OnOff> {
        let positions = off.len() as f64;
        (!off.is_empty()).then(|| OnOff { on, off: off.iter().sum(), alpha: 1.0 / positions })
    }

    /// N_on − αN_off ± √(N_on + α²N_off)
    pub fn excess(&self) -> Measured {
        let (on, off) = (self.on as f64, self.off as f64);
        Measured {
            value: on - self.alpha * off,
            error: (on + self.alpha * self.alpha * off).sqrt(),
        }
    }

    /// Significance of the excess by eq. 17 of Li and Ma (1983), negative where N_on is less
    /// than αN_off; where a count is 0 its term has the limit 0.
    pub fn significance(&self) -> f64 {
        let (on, off, alpha) = (self.on as f64, self.off as f64, self.alpha);
        let all = on + off;
        let term = |count: f64, expected: f64| {
            if count > 0.0 { count * libm::log(count / expected) } else { 0.0 }
        };
        let sum = term(on, alpha / (1.0 + alpha) * all) + term(off, all / (1.0 + alpha));
        // Rounding may leave a little below 0 where the counts agree.
        let size = (2.0 * sum.max(0.0)).sqrt();
        if on < alpha * off { -size } else { size }
    }

    /// Upper limit of the excess at 95 % confidence: where the profile likelihood, its
    /// background profiled out, has fallen from its best value at an excess ≥ 0 by as much
    /// as a one-sided 95 % interval of a normal distribution allows, 2.706/2 (Rolke, López
    /// and Conrad 2005, bounded likelihood). It was chosen because the background is itself
    /// a count here: Helene's (1983) and Feldman and Cousins' (1998) limits take it as
    /// known. Below about 5 events the coverage of a profile likelihood is only near 95 %.
    pub fn upper_limit(&self) -> f64 {
        let best = self.excess().value.max(0.0);
        let allowed = self.deviance(best) + Z_95 * Z_95;
        let mut step = 1.0 + self.excess().error;
        while self.deviance(best + step) < allowed {
            step *= 2.0;
        }
        let (mut low, mut high) = (best, best + step);
        for _ in 0..200 {
            let middle = f64::midpoint(low, high);
            if middle <= low || middle >= high {
                break;
            }
            if self.deviance(middle) < allowed { low = middle } else { high = middle }
        }
        f64::midpoint(low, high)
    }

    /// −2 ln L of an excess s, for the background that fits best beside it, up to a constant.
    fn deviance(&self, s: f64) -> f64 {
        let (on, off, alpha) = (self.on as f64, self.off as f64, self.alpha);
        // μ, the expectation of N_off, solves N_on·α/(s + αμ) + N_off/μ = 1 + α.
        let c = alpha * (on + off) - (1.0 + alpha) * s;
        let root = (c * c + 4.0 * alpha * (1.0 + alpha) * s * off).sqrt();
        // The form without cancellation.
        let mu = if c >= 0.0 {
            (c + root) / (2.0 * alpha * (1.0 + alpha))
        } else {
            2.0 * s * off / (root - c)
        };
        let term = |count: f64, expected: f64| {
            expected - if count > 0.0 { count * libm::log(expected) } else { 0.0 }
        };
        2.0 * (term(on, s + alpha * mu) + term(off, mu))
    }
}

/// χ² of counts against their mean, and the probability of a greater one.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Homogeneity {
    pub chi2: f64,
    pub degrees: u64,
    pub p_value: f64,
}

impl Homogeneity {
    /// Of N per OFF position; `None` with fewer than two positions or without events.
    pub fn of(counts: &[u64]) -> Option<Homogeneity> {
        let mean = counts.iter().sum::<u64>() as f64 / counts.len().max(1) as f64;
        if counts.len() < 2 || mean <= 0.0 {
            return None;
        }
        let chi2 = counts.iter().map(|n| (*n as f64 - mean) * (*n as f64 - mean) / mean).sum();
        let degrees = counts.len() as u64 - 1;
        Some(Homogeneity { chi2, degrees, p_value: chi2_above(chi2, degrees) })
    }
}

/// What simulated gammas from the source do at the positions: the share that is lost to
/// the OFF counts must be given back to the excess.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Leak {
    /// Gammas counted at the source, and at all OFF positions.
    pub on: u64,
    pub off: u64,
    pub positions: u64, // OFF
    /// Gammas at all.
    pub events: u64,
}

impl Leak {
    /// Mean count of an OFF position over that of ON; `None` where none is counted at ON.
    pub fn share(&self) -> Option<Measured> {
        if self.on == 0 || self.positions == 0 {
            return None;
        }
        let (on, off) = (self.on as f64, self.off as f64);
        let value = off / self.positions as f64 / on;
        let error = value * (1.0 / on + if off > 0.0 { 1.0 / off } else { 0.0 }).sqrt();
        Some(Measured { value, error })
    }

    /// Gammas counted at the source, of which the excess is what OFF leaves of them:
    /// excess/(1 − leak). `None` where the leak leaves nothing.
    pub fn corrected(&self, excess: Measured) -> Option<Measured> {
        let leak = self.share().filter(|leak| leak.value < 1.0)?;
        let left = 1.0 - leak.value;
        let value = excess.value / left;
        let error = libm::hypot(excess.error / left, value * leak.error / left);
        Some(Measured { value, error })
    }

    /// Excess per gamma of the sample: ε(ON) − mean ε(OFF). `None` without gammas.
    pub fn net_efficiency(&self) -> Option<f64> {
        let off = self.off as f64 / self.positions.max(1) as f64;
        (self.events > 0).then(|| (self.on as f64 - off) / self.events as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::tests::lines;

    fn counts(told: &[f64]) -> (OnOff, f64) {
        let [on, off, alpha, expected] = told[..] else { panic!("{told:?}") };
        (OnOff { on: on as u64, off: off as u64, alpha }, expected)
    }

    #[test]
    fn significances_are_gammapys_to_a_millionth() {
        let told = lines("li_ma");
        assert!(told.len() >= 100);
        let mut largest = 0.0_f64;
        for told in told {
            let (counts, expected) = counts(&told);
            // gammapy's sign at N_on = αN_off is that of rounding; the size is 0 there.
            let difference = (counts.significance() - expected).abs();
            assert!(difference < 1e-6, "{counts:?}: {}, {expected}", counts.significance());
            largest = largest.max(difference);
        }
        println!("largest difference from gammapy: {largest:.1e}");
    }

    #[test]
    fn upper_limits_are_gammapys() {
        let told = lines("limit");
        assert!(told.len() >= 80);
        for told in told {
            let (counts, expected) = counts(&told);
            let limit = counts.upper_limit();
            // Below an excess of 0 gammapy starts from the unphysical best value, which
            // gives lower limits.
            if counts.excess().value < 0.0 {
                assert!(limit > expected, "{counts:?}: {limit}, {expected}");
                continue;
            }
            let difference = (limit - expected).abs();
            assert!(difference < 1e-5 * expected.max(1.0), "{counts:?}: {limit}, {expected}");
        }
    }

    #[test]
    fn an_upper_limit_is_where_the_deviance_has_risen() {
        for (on, off) in [(0, 0), (0, 3), (3, 0), (7, 40), (100, 300)] {
            let counts = OnOff { on, off, alpha: 0.2 };
            let (best, limit) = (counts.excess().value.max(0.0), counts.upper_limit());
            let risen = counts.deviance(limit) - counts.deviance(best);
            assert!(limit > best && (risen - Z_95 * Z_95).abs() < 1e-8, "{on} {off}: {risen}");
        }
    }

    #[test]
    fn limits_where_a_count_is_zero_are_taken() {
        let counts = |on, off| OnOff { on, off, alpha: 0.2 };
        assert!(counts(0, 0).significance().abs() < 1e-12);
        let none_on = -(2.0 * 10.0 * libm::log(1.2)).sqrt();
        assert!((counts(0, 10).significance() - none_on).abs() < 1e-12);
        let none_off = (2.0 * 10.0 * libm::log(6.0)).sqrt();
        assert!((counts(10, 0).significance() - none_off).abs() < 1e-12);
        assert!(OnOff::new(3, &[]).is_none());
    }

    #[test]
    fn uneven_positions_have_an_unlikely_chi_square() {
        let even = Homogeneity::of(&[100, 103, 98, 101, 99]).unwrap();
        assert!(even.degrees == 4 && even.p_value > 0.9, "{even:?}");
        let uneven = Homogeneity::of(&[100, 103, 180, 101, 99]).unwrap();
        assert!(uneven.p_value < 1e-6, "{uneven:?}");
        assert_eq!((Homogeneity::of(&[5]), Homogeneity::of(&[0, 0])), (None, None));
    }

    #[test]
    fn the_leak_is_given_back_to_the_excess() {
        let leak = Leak { on: 8000, off: 5600, positions: 5, events: 10_000 };
        assert!((leak.share().unwrap().value - 0.14).abs() < 1e-12);
        let corrected = leak.corrected(Measured { value: 86.0, error: 10.0 }).unwrap();
        assert!((corrected.value - 100.0).abs() < 1e-9, "{corrected:?}");
        assert!((11.6..11.9).contains(&corrected.error), "{corrected:?}");
        assert!((leak.net_efficiency().unwrap() - 0.688).abs() < 1e-12);
        assert_eq!(Leak { on: 0, ..leak }.corrected(corrected), None);
    }
}
