//! Tails of distributions for tests of significance: normal, χ², Kolmogorov.

use std::f64::consts::{PI, SQRT_2};

/// A term that adds less than this to a sum ends it.
const NEGLIGIBLE: f64 = 1e-17;
/// Number of terms after which every series or fraction has converged.
const MAX_TERMS: u32 = 100_000;

/// Returns the share of the standard normal distribution below x.
pub fn normal_below(x: f64) -> f64 {
    0.5 * libm::erfc(-x / SQRT_2)
}

/// Returns the share of χ² with `degrees` degrees of freedom above x: Q(k/2, x/2), as a series below its
/// middle and as a continued fraction above (Abramowitz and Stegun 1964, 6.5.29 and 6.5.31).
/// It is 1 without degrees of freedom.
pub(crate) fn chi2_above(x: f64, degrees: u64) -> f64 {
    let (a, x) = (0.5 * degrees as f64, 0.5 * x);
    if degrees == 0 || x <= 0.0 {
        return 1.0;
    }
    let scale = libm::exp(a * libm::log(x) - x - libm::lgamma(a));
    if x < a + 1.0 { 1.0 - scale * lower_series(a, x) } else { scale * upper_fraction(a, x) }
}

fn lower_series(a: f64, x: f64) -> f64 {
    let (mut term, mut sum) = (1.0 / a, 1.0 / a);
    for n in 1..MAX_TERMS {
        term *= x / (a + f64::from(n));
        sum += term;
        if term < NEGLIGIBLE * sum {
            break;
        }
    }
    sum
}

/// Evaluates the continued fraction by the method of Lentz (1976).
fn upper_fraction(a: f64, x: f64) -> f64 {
    const TINY: f64 = 1e-300;
    let mut b = x + 1.0 - a;
    let mut c = 1.0 / TINY;
    let mut d = 1.0 / b;
    let mut value = d;
    for n in 1..MAX_TERMS {
        let n = f64::from(n);
        let numerator = -n * (n - a);
        b += 2.0;
        d = 1.0 / nonzero(numerator * d + b, TINY);
        c = nonzero(b + numerator / c, TINY);
        value *= d * c;
        if (d * c - 1.0).abs() < 1e-16 {
            break;
        }
    }
    value
}

/// Returns the regularised incomplete beta function `I_x(a, b)`, a and b above 0. For whole numbers
/// it is the probability that at least a of a + b − 1 events pass, each with probability x. Uses
/// its continued fraction (Abramowitz and Stegun 1964, 26.5.8) on the side where it converges.
pub(crate) fn beta_below(x: f64, a: f64, b: f64) -> f64 {
    if x <= 0.0 || x >= 1.0 {
        return if x <= 0.0 { 0.0 } else { 1.0 };
    }
    let gamma = libm::lgamma(a + b) - libm::lgamma(a) - libm::lgamma(b);
    let scale = libm::exp(gamma + a * libm::log(x) + b * libm::log1p(-x));
    if x < (a + 1.0) / (a + b + 2.0) {
        scale * beta_fraction(x, a, b) / a
    } else {
        1.0 - scale * beta_fraction(1.0 - x, b, a) / b
    }
}

/// Evaluates the continued fraction by the method of Lentz (1976).
fn beta_fraction(x: f64, a: f64, b: f64) -> f64 {
    const TINY: f64 = 1e-300;
    let mut c = 1.0;
    let mut d = 1.0 / nonzero(1.0 - (a + b) * x / (a + 1.0), TINY);
    let mut value = d;
    for m in 1..MAX_TERMS {
        let m = f64::from(m);
        let even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        let odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        let before = value;
        for numerator in [even, odd] {
            d = 1.0 / nonzero(numerator * d + 1.0, TINY);
            c = nonzero(1.0 + numerator / c, TINY);
            value *= d * c;
        }
        if (value / before - 1.0).abs() < 1e-16 {
            break;
        }
    }
    value
}

fn nonzero(x: f64, tiny: f64) -> f64 {
    if x.abs() < tiny { tiny } else { x }
}

/// Returns the share of Kolmogorov's distribution above x (Kolmogorov 1933; for small x the form of
/// Feller 1948, which converges there).
fn kolmogorov_above(x: f64) -> f64 {
    if x <= 0.0 {
        return 1.0;
    }
    if x < 1.0 {
        let term = |k: u32| {
            let odd = f64::from(2 * k - 1);
            libm::exp(-odd * odd * PI * PI / (8.0 * x * x))
        };
        let below = libm::sqrt(2.0 * PI) / x * (1..=20).map(term).sum::<f64>();
        return (1.0 - below).clamp(0.0, 1.0);
    }
    let term = |k: u32| {
        let sign = if k % 2 == 1 { 2.0 } else { -2.0 };
        sign * libm::exp(-2.0 * f64::from(k * k) * x * x)
    };
    (1..=20).map(term).sum::<f64>().clamp(0.0, 1.0)
}

/// Returns the p-value of a Kolmogorov–Smirnov distance with this many effective events, n for one
/// sample and nm/(n + m) for two, in the approximation of Stephens (1970).
pub fn distance_p_value(distance: f64, events: f64) -> f64 {
    let root = libm::sqrt(events.max(0.0));
    kolmogorov_above((root + 0.12 + 0.11 / root.max(1e-9)) * distance)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statistics::tests::lines;

    #[test]
    fn tails_agree_with_scipy() {
        let close = |got: f64, expected: f64, line: &[f64]| {
            let allowed = 1e-12_f64.max(1e-10 * expected);
            assert!((got - expected).abs() < allowed, "{line:?}: {got}, scipy {expected}");
        };
        let mut compared = 0;
        for line in lines("chi2") {
            close(chi2_above(line[1], line[0] as u64), line[2], &line);
            compared += 1;
        }
        for line in lines("kolmogorov") {
            close(kolmogorov_above(line[0]), line[1], &line);
            compared += 1;
        }
        for line in lines("normal") {
            close(normal_below(line[0]), line[1], &line);
            compared += 1;
        }
        assert!(compared > 70);
    }

    #[test]
    fn beta_sums_the_binomial_distribution() {
        for (n, p) in [(1_u32, 0.3_f64), (7, 0.5), (40, 0.02), (300, 0.1), (300, 0.97)] {
            let mut above = 0.0;
            let mut term = (f64::from(n) * libm::log(p)).exp(); // k = n
            for k in (1..=n).rev() {
                above += term;
                let (a, b) = (f64::from(k), f64::from(n - k + 1));
                let got = beta_below(p, a, b);
                assert!((got - above).abs() < 1e-11, "{n} {p} {k}: {got}, sum {above}");
                term *= a / b * (1.0 - p) / p;
            }
        }
        assert_eq!([0.0, 1.0].map(|x| beta_below(x, 2.0, 3.0)), [0.0, 1.0]);
    }

    #[test]
    fn distance_p_values_are_near_the_exact_ones() {
        for line in lines("ks") {
            let [distance, events, exact] = line[..] else { panic!("{line:?}") };
            let p = distance_p_value(distance, events);
            assert!((p - exact).abs() < 0.01 * exact + 0.002, "{line:?}: {p}");
        }
        assert!((distance_p_value(0.0, 10.0) - 1.0).abs() < 1e-12);
    }
}
