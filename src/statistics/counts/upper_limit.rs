//! Upper limits at 95 % confidence of an excess whose background is itself a count.
//!
//! With many counts the limit is that of the profile likelihood, in which the background is
//! profiled out (Rolke, López and Conrad 2005, bounded likelihood). Below [`FEW`] counts its
//! coverage is too low, and the limit is that of Buehler (1957). It is the smallest limit with
//! coverage for any background, among all limits that order the counts as the profile likelihood
//! does (Kabaila and Lloyd 2002). It is the excess s at which
//!
//! sup over b of P(the profile-likelihood limit is at most the observed one | s, b) = 5 %.
//!
//! - The supremum is taken over the backgrounds b that N_off allows with confidence 1 −
//!   [`OUTSIDE`]; the rest is subtracted from the 5 % (Berger and Boos 1994).
//! - More ON counts never give a smaller limit, also across the border at [`FEW`].
//! - No limit is below −ln 0.05, which is the limit for no events without background.

use crate::statistics::OnOff;

/// Below this many counts, ON or OFF, the limit is exact.
pub(crate) const FEW: u64 = 10;
/// Upper bound of the exact limits for fewer ON counts.
const MAX_OF_FEW: f64 = 16.0;
/// Quantile of the normal distribution at 95 %.
const Z_95: f64 = 1.644_853_626_951_472_7;
/// Allowed probability that the limit is too small.
const MISSED: f64 = 0.05;
/// Probability that the background exceeds all tried ones.
const OUTSIDE: f64 = 1e-4;
/// Number of tried backgrounds, in equal steps of their square roots.
const BACKGROUNDS: usize = 64;
/// Rounding of a difference of deviances.
const ROUNDING: f64 = 1e-8;
/// Standard deviations of a Poisson number that are summed.
const WIDTHS: f64 = 7.0;

impl OnOff {
    /// Returns the upper limit of the excess at 95 % confidence.
    pub fn upper_limit(&self) -> f64 {
        let of_profile = self.profile_limit();
        let limit = if self.on < FEW || self.off < FEW {
            self.buehler_limit(of_profile)
        } else if of_profile < MAX_OF_FEW {
            // The limit is at least the exact one for fewer ON counts.
            let fewer = OnOff { on: FEW - 1, ..*self };
            of_profile.max(fewer.buehler_limit(fewer.profile_limit()))
        } else {
            of_profile
        };
        limit.max(-libm::log(MISSED))
    }

    /// Returns the excess above its best value ≥ 0 at which the profile likelihood has fallen by
    /// 2.706/2, as for a one-sided interval of a normal distribution.
    fn profile_limit(&self) -> f64 {
        let best = self.excess().value.max(0.0);
        let allowed = self.deviance(best) + Z_95 * Z_95;
        let mut step = 1.0 + self.excess().error;
        while self.deviance(best + step) < allowed {
            step *= 2.0;
        }
        bisect(best, best + step, |s| self.deviance(s) < allowed)
    }

    /// Returns −2 ln L of an excess s for the best-fitting background, up to a constant.
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

    /// Returns whether the profile-likelihood limit of these counts is at most `limit`.
    fn is_limited_by(&self, limit: f64) -> bool {
        let best = self.excess().value.max(0.0);
        best < limit && self.deviance(limit) - self.deviance(best) >= Z_95 * Z_95 - ROUNDING
    }

    /// Returns Buehler's limit in the order of profile-likelihood limits; `of_profile` is that of
    /// the observed counts.
    fn buehler_limit(&self, of_profile: f64) -> f64 {
        let order = Order::new(self, of_profile);
        let allowed = MISSED - OUTSIDE;
        let mut high = of_profile + 4.0;
        while order.worst_probability(high) > allowed {
            high *= 2.0;
        }
        bisect(0.0, high, |s| order.worst_probability(s) > allowed)
    }
}

/// The pairs of counts whose profile-likelihood limit is at most the observed one: for each N_off,
/// those with N_on up to a maximum, which rises with N_off.
struct Order {
    most_on: Vec<Option<u64>>, // rising, each once; None: not even N_on = 0
    backgrounds: Vec<Background>,
}

/// A possible background.
struct Background {
    expected: f64,     // b, in the source region
    weights: Vec<f64>, // (most_on): probability of all N_off that have this largest N_on
}

impl Order {
    fn new(observed: &OnOff, of_profile: f64) -> Order {
        let largest = largest_mean(observed.off);
        let most_off = (largest + WIDTHS * largest.sqrt() + 20.0) as u64;
        let (mut most_on, mut starts): (Vec<Option<u64>>, Vec<u64>) = (Vec::new(), Vec::new());
        let mut next = 0; // the least N_on that is not in the set
        for off in 0..=most_off {
            let before = next;
            if off == observed.off {
                next = next.max(observed.on + 1);
            }
            while (OnOff { on: next, off, ..*observed }).is_limited_by(of_profile) {
                next += 1;
            }
            if off == 0 || next > before {
                most_on.push(next.checked_sub(1));
                starts.push(off);
            }
        }
        starts.push(most_off + 1);
        let background = |i: usize| {
            let root = largest.sqrt() * i as f64 / (BACKGROUNDS - 1) as f64;
            let mean = root * root;
            let weight = |pair: &[u64]| probability(pair[0], pair[1], mean);
            let weights = starts.windows(2).map(weight).collect();
            Background { expected: observed.alpha * mean, weights }
        };
        Order { most_on, backgrounds: (0..BACKGROUNDS).map(background).collect() }
    }

    /// Returns the largest probability of a limit at most the observed one, for an excess s and any
    /// of the backgrounds.
    fn worst_probability(&self, s: f64) -> f64 {
        let of = |background: &Background| {
            let mut below = Below::new(s + background.expected);
            let terms = self.most_on.iter().zip(&background.weights);
            terms.map(|(most, weight)| most.map_or(0.0, |most| weight * below.up_to(most))).sum()
        };
        self.backgrounds.iter().map(of).fold(0.0, f64::max)
    }
}

/// Cumulative probabilities of a Poisson number, requested in ascending order.
struct Below {
    mean: f64,
    next: u64,
    term: f64, // probability of `next`
    sum: f64,  // of all below `next`
}

impl Below {
    fn new(mean: f64) -> Below {
        // Smaller counts have a negligible probability.
        let first = (mean - WIDTHS * mean.sqrt() - 20.0).max(0.0) as u64;
        Below { mean, next: first, term: poisson(first, mean), sum: 0.0 }
    }

    fn up_to(&mut self, count: u64) -> f64 {
        while self.next <= count {
            self.sum += self.term;
            self.next += 1;
            self.term *= self.mean / self.next as f64;
        }
        self.sum
    }
}

/// Returns the probability of a count from `first` to below `end`.
fn probability(first: u64, end: u64, mean: f64) -> f64 {
    let width = WIDTHS * mean.sqrt() + 20.0;
    let first = first.max((mean - width).max(0.0) as u64);
    let end = end.min((mean + width) as u64 + 1);
    if first >= end {
        return 0.0;
    }
    let mut term = poisson(first, mean);
    let mut sum = 0.0;
    for count in first..end {
        sum += term;
        term *= mean / (count + 1) as f64;
    }
    sum
}

fn poisson(count: u64, mean: f64) -> f64 {
    if mean <= 0.0 {
        return if count == 0 { 1.0 } else { 0.0 };
    }
    let n = count as f64;
    libm::exp(n * libm::log(mean) - mean - libm::lgamma(n + 1.0))
}

/// Returns the mean for which a count this small has the probability [`OUTSIDE`].
fn largest_mean(count: u64) -> f64 {
    let n = count as f64;
    let high = n + 10.0 + 8.0 * (n + 1.0).sqrt();
    bisect(n, high, |mean| Below::new(mean).up_to(count) > OUTSIDE)
}

/// Returns the point at which `is_below` changes from true to false, by bisection.
fn bisect(mut low: f64, mut high: f64, is_below: impl Fn(f64) -> bool) -> f64 {
    while high - low > 1e-12 * high {
        let middle = f64::midpoint(low, high);
        if middle <= low || middle >= high {
            break;
        }
        if is_below(middle) { low = middle } else { high = middle }
    }
    f64::midpoint(low, high)
}

#[cfg(test)]
mod tests;
