//! Counts on and off the source: excess, significance, homogeneity, leakage.
//!
//! N_on events were counted at the source and N_off at n positions of the same exposure, so that α
//! = 1/n. All counts are of different events (see [`super::disjoint`]). So they are independent
//! Poisson numbers, which everything here assumes.

use crate::statistics::tails::chi2_above;
use crate::statistics::{Measured, WeightSum};
use serde::{Deserialize, Serialize};

/// Returns the significance of counts, or of expected counts, by eq. 17 of Li and Ma (1983). It is
/// negative if `on` is less than `alpha` × `off`; the term of a count of 0 has the limit 0.
pub fn li_ma(on: f64, off: f64, alpha: f64) -> f64 {
    let all = on + off;
    let term = |count: f64, expected: f64| {
        if count > 0.0 { count * libm::log(count / expected) } else { 0.0 }
    };
    let sum = term(on, alpha / (1.0 + alpha) * all) + term(off, all / (1.0 + alpha));
    // Rounding may give slightly less than 0 if the counts agree.
    let size = (2.0 * sum.max(0.0)).sqrt();
    if on < alpha * off { -size } else { size }
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct OnOff {
    pub on: u64,
    pub off: u64,
    /// Exposure of the source divided by that of all OFF positions.
    pub alpha: f64,
}

impl OnOff {
    /// Sums OFF counts of positions with equal exposure; `None` without positions.
    pub fn new(on: u64, off: &[u64]) -> Option<OnOff> {
        let positions = off.len() as f64;
        (!off.is_empty()).then(|| OnOff { on, off: off.iter().sum(), alpha: 1.0 / positions })
    }

    /// Returns N_on − αN_off ± √(N_on + α²N_off).
    pub fn excess(&self) -> Measured {
        let (on, off) = (self.on as f64, self.off as f64);
        Measured {
            value: on - self.alpha * off,
            error: (on + self.alpha * self.alpha * off).sqrt(),
        }
    }

    /// Returns the significance of the excess, see [`li_ma`]; 0 without counts.
    pub fn significance(&self) -> f64 {
        li_ma(self.on as f64, self.off as f64, self.alpha)
    }

    /// Returns the significance of the excess; `None` without counts.
    pub fn counted_significance(&self) -> Option<f64> {
        (self.on + self.off > 0).then(|| self.significance())
    }
}

/// χ² of counts against their mean, and the probability of a larger one.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Homogeneity {
    pub chi2: f64,
    pub degrees: u64,
    pub p_value: f64,
}

impl Homogeneity {
    /// Tests the numbers per OFF position; `None` with fewer than two positions or without events.
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

/// Leakage of simulated gammas of the source into the OFF counts, by which the excess must be
/// corrected.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Leak {
    /// Gammas counted at the source, and at all OFF positions.
    pub on: u64,
    pub off: u64,
    pub positions: u64, // OFF
    /// All gammas.
    pub events: u64,
    /// Weights of those counted at the source and at all OFF positions, from the simulated spectrum
    /// to that of the source; absent if all gammas have equal weight.
    #[serde(default)]
    pub weights: Option<[WeightSum; 2]>,
}

impl Leak {
    /// Fewer gammas counted at the source do not determine the leakage.
    pub const MIN_GAMMAS: u64 = 10;
    /// A larger relative error of 1 − leakage does not determine it either.
    pub const MAX_ERROR: f64 = 0.1;

    /// Returns the mean count of an OFF position divided by that of ON; `None` if ON has no counts.
    pub fn share(&self) -> Option<Measured> {
        if self.on == 0 || self.positions == 0 {
            return None;
        }
        let [on, off] = self.weights.unwrap_or([WeightSum::of(self.on), WeightSum::of(self.off)]);
        let (all, positions) = (on.plus(off), self.positions as f64);
        let at_source = on.weight / all.weight;
        // off/on = 1/at_source − 1
        let error = share_error(on, all) / (at_source * at_source);
        Some(Measured { value: off.weight / on.weight / positions, error: error / positions })
    }

    /// Returns whether there are enough gammas to correct an excess.
    pub fn is_resolved(&self) -> bool {
        self.on >= Leak::MIN_GAMMAS
            && self.share().is_some_and(|leak| {
                let left = 1.0 - leak.value;
                left > 0.0 && leak.error <= Leak::MAX_ERROR * left
            })
    }

    /// Returns the number of gammas counted at the source, excess/(1 − leakage). `None` if the
    /// leakage leaves no excess.
    pub fn corrected(&self, excess: Measured) -> Option<Measured> {
        let leak = self.share().filter(|leak| leak.value < 1.0)?;
        let left = 1.0 - leak.value;
        let value = excess.value / left;
        let error = libm::hypot(excess.error / left, value * leak.error / left);
        Some(Measured { value, error })
    }

    /// Returns the excess per gamma of the sample: ε(ON) − mean ε(OFF). `None` without gammas.
    pub fn net_efficiency(&self) -> Option<f64> {
        let off = self.off as f64 / self.positions.max(1) as f64;
        (self.events > 0).then(|| (self.on as f64 - off) / self.events as f64)
    }
}

/// Returns the standard error of the share of the weight of `all` events that belongs to `part`.
fn share_error(part: WeightSum, all: WeightSum) -> f64 {
    let share = part.weight / all.weight;
    let rest = (all.squares - part.squares).max(0.0);
    let variance = (1.0 - share) * (1.0 - share) * part.squares + share * share * rest;
    wilson_error(share, variance / (all.weight * all.weight), all.effective())
}

/// Returns the standard error of a share of this many events: its distance from the further end of
/// the interval of Wilson (1927). It is √variance for many events, and above 0 if none or all pass.
fn wilson_error(share: f64, variance: f64, events: f64) -> f64 {
    let narrower = 1.0 + 1.0 / events;
    let middle = (share + 0.5 / events) / narrower;
    let half = (variance + 0.25 / (events * events)).sqrt() / narrower;
    half + (middle - share).abs()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statistics::tests::lines;
    use taiga_flow_gpu::random::Stream;

    #[test]
    fn significance_agrees_with_gammapy() {
        let line = lines("li_ma");
        assert!(line.len() >= 100);
        let mut largest = 0.0_f64;
        for line in line {
            let (counts, expected) = OnOff::of_line(&line);
            // The sign of gammapy at N_on = αN_off is that of rounding; the size is 0 there.
            let difference = (counts.significance() - expected).abs();
            assert!(difference < 1e-6, "{counts:?}: {}, {expected}", counts.significance());
            largest = largest.max(difference);
        }
        println!("largest difference from gammapy: {largest:.1e}");
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
    fn leakage_correction_restores_the_excess() {
        let leak = Leak { on: 8000, off: 5600, positions: 5, events: 10_000, weights: None };
        assert!((leak.share().unwrap().value - 0.14).abs() < 1e-12);
        let corrected = leak.corrected(Measured { value: 86.0, error: 10.0 }).unwrap();
        assert!((corrected.value - 100.0).abs() < 1e-9, "{corrected:?}");
        assert!((11.6..11.9).contains(&corrected.error), "{corrected:?}");
        assert!((leak.net_efficiency().unwrap() - 0.688).abs() < 1e-12);
        assert_eq!(Leak { on: 0, ..leak }.corrected(corrected), None);
    }

    fn leak(on: u64, off: u64) -> Leak {
        Leak { on, off, positions: 5, events: 2 * (on + off), weights: None }
    }

    #[test]
    fn leak_error_at_zero_and_all_is_not_zero() {
        // Wilson's interval of 0 of n extends to 1/(n + 1).
        for n in [1_u64, 12, 400] {
            let none = leak(n, 0).share().unwrap();
            let expected = n as f64 / (n + 1) as f64;
            let back = 1.0 - none.error * 5.0;
            assert!(none.value.abs() < 1e-15 && (back - expected).abs() < 1e-12, "{none:?}");
        }
        assert!((wilson_error(1.0, 0.0, 12.0) - 1.0 / 13.0).abs() < 1e-12);
        // With many counts: the error of a ratio of Poisson numbers.
        let many = leak(10_000, 2500).share().unwrap();
        let expected = many.value * (1.0_f64 / 10_000.0 + 1.0 / 2500.0).sqrt();
        assert!((many.error / expected - 1.0).abs() < 0.01, "{many:?}, {expected}");
    }

    #[test]
    fn leak_few_gammas_is_not_resolved() {
        assert!(leak(400, 300).is_resolved());
        assert!(!leak(9, 0).is_resolved(), "fewer than ten");
        assert!(!leak(12, 40).is_resolved(), "a large error of 1 − leakage");
        assert!(!leak(100, 500).is_resolved(), "no excess remains");
        assert!(!leak(0, 500).is_resolved());
    }

    #[test]
    fn leak_weighted_equals_sum_of_weights() {
        let stream = Stream::new(u64::from(std::process::id()), "weights", &[]);
        let one = |replica: u64| {
            let mut sums = [WeightSum::default(); 2];
            for i in 0..600 {
                let at = 2 * (600 * replica + i);
                let which = usize::from(stream.uniform(at) < 0.4);
                // Gammas of any weight are lost to OFF equally often.
                sums[which] = sums[which].with(0.2 + 2.0 * stream.uniform(at + 1));
            }
            let [on, off] = sums.map(|sum| sum.events);
            Leak { weights: Some(sums), ..leak(on, off) }.share().unwrap()
        };
        let found: Vec<Measured> = (0..400).map(one).collect();
        let n = found.len() as f64;
        let mean = found.iter().map(|m| m.value).sum::<f64>() / n;
        let spread = found.iter().map(|m| (m.value - mean) * (m.value - mean)).sum::<f64>() / n;
        let said = found.iter().map(|m| m.error * m.error).sum::<f64>() / n;
        assert!((mean - 0.4 / 0.6 / 5.0).abs() < 5.0 * (spread / n).sqrt() + 1e-3, "{mean}");
        assert!((said / spread).ln().abs() < 0.35, "{said} {spread}");
        let same = Leak { weights: Some([WeightSum::of(80), WeightSum::of(30)]), ..leak(80, 30) };
        assert_eq!(same.share(), leak(80, 30).share());
    }
}
