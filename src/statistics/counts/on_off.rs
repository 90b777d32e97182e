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
    pub(crate) fn counted_significance(&self) -> Option<f64> {
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
    pub(crate) fn of(counts: &[u64]) -> Option<Homogeneity> {
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
    pub(crate) const MIN_GAMMAS: u64 = 10;
    /// A larger relative error of 1 − leakage does not determine it either.
    pub(crate) const MAX_ERROR: f64 = 0.1;

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
    pub(crate) fn is_resolved(&self) -> bool {
        self.on >= Leak::MIN_GAMMAS
            && self.share().is_some_and(|leak| {
                let left = 1.0 - leak.value;
                left > 0.0 && leak.error <= Leak::MAX_ERROR * left
            })
    }

    /// Returns the number of gammas counted at the source, excess/(1 − leakage). `None` if the
    /// leakage leaves no excess.
    pub(crate) fn corrected(&self, excess: Measured) -> Option<Measured> {
        let leak = self.share().filter(|leak| leak.value < 1.0)?;
        let left = 1.0 - leak.value;
        let value = excess.value / left;
        let error = libm::hypot(excess.error / left, value * leak.error / left);
        Some(Measured { value, error })
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
mod tests;
