//! Values with standard errors, and the formatting of numbers.
//!
//! A measured value is printed to two significant digits of its error ("0.9138 ± 0.0012"), other
//! numbers to a given number of significant digits.

use super::WeightSum;
use serde::{Deserialize, Serialize};
use std::fmt;

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    pub value: f64,
    /// Standard error (one sigma).
    pub error: f64,
}

impl Measured {
    /// Returns `passed` of `total` events with the binomial error √(p(1−p)/n), or that of
    /// [`end_error`] if none or all pass; `None` without events.
    pub fn fraction(passed: u64, total: u64) -> Option<Measured> {
        Measured::share(WeightSum::of(passed), WeightSum::of(total))
    }

    /// Returns the share of the weight of `all` events that belongs to `passed`. The error is that
    /// of a ratio of sums over independent events, √((1−p)² Σ_passed w² + p² Σ_others w²)/Σw, which
    /// is the binomial one for equal weights, or that of [`end_error`] if none or all pass; `None`
    /// without weight.
    pub fn share(passed: WeightSum, all: WeightSum) -> Option<Measured> {
        if all.weight.is_nan() || all.weight <= 0.0 {
            return None;
        }
        let value = passed.weight / all.weight;
        if value <= 0.0 || value >= 1.0 - ROUNDING {
            return Some(Measured { value, error: end_error(all.effective()) });
        }
        let rest = (all.squares - passed.squares).max(0.0);
        let variance = (1.0 - value) * (1.0 - value) * passed.squares + value * value * rest;
        Some(Measured { value, error: variance.sqrt() / all.weight })
    }
}

/// Bound on the difference of sums of weights in different orders.
const ROUNDING: f64 = 1e-12;

/// Returns the error of a share of 0 or 1 of n (effective) events: the width of the Wilson interval
/// of 68.27 % (Wilson 1927), which is 0 … 1/(n + 1) or its mirror image.
fn end_error(n: f64) -> f64 {
    1.0 / (n + 1.0)
}

impl Measured {
    /// Formats a difference: "higher by 0.0031 ± 0.0012", "lower by …", "equal".
    pub fn compared(self) -> String {
        compared(self.value, |value| Measured { value, ..self }.to_string())
    }
}

/// Formats a difference with the formatted size of `text`; a size written as 0 is "equal".
pub fn compared(difference: f64, text: impl FnOnce(f64) -> String) -> String {
    let direction = if difference < 0.0 { "lower" } else { "higher" };
    let size = text(difference.abs());
    match size.strip_prefix("0 ") {
        _ if size == "0" => "equal".to_string(),
        Some(error) => format!("equal within {}", error.trim_start_matches("± ")),
        None => format!("{direction} by {size}"),
    }
}

impl fmt::Display for Measured {
    /// Writes two digits of the error. Omits an error of 0, which means that no event was counted,
    /// and uses powers of ten instead of a row of zeros.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Measured { value, error } = *self;
        let size = value.abs().max(error);
        f.pad(&if error == 0.0 {
            significant(value, 5)
        } else if value == 0.0 {
            format!("0 ± {}", significant(error, 2))
        } else if size < SMALL {
            let exponent = libm::floor(libm::log10(size)) as i32;
            let [value, error] = [value, error].map(|x| x / libm::pow(10.0, f64::from(exponent)));
            let decimals = decimals(error, 2);
            format!("({value:.decimals$} ± {error:.decimals$})e{exponent}")
        } else {
            let decimals = decimals(error, 2);
            format!("{value:.decimals$} ± {error:.decimals$}")
        })
    }
}

/// Smaller values are written with a power of ten.
const SMALL: f64 = 1e-5;

/// Returns the decimals that show `significant` digits of a number of this size.
fn decimals(size: f64, significant: i32) -> usize {
    if !size.is_finite() || size == 0.0 {
        return 0;
    }
    let leading = libm::floor(libm::log10(size.abs())) as i32;
    (significant - 1 - leading).clamp(0, 12) as usize
}

/// Formats a number to `digits` significant digits, in exponent form if it is very large or very
/// small.
pub fn significant(value: f64, digits: u8) -> String {
    let size = value.abs();
    if value != 0.0 && !(1e-4..1e7).contains(&size) {
        return format!("{value:.*e}", usize::from(digits.saturating_sub(1)));
    }
    format!("{value:.*}", decimals(size, i32::from(digits)))
}

/// Formats a probability to `digits` significant digits, of its distance from 1 if it is near 1:
/// "0.99987", "1 − 3.2e-8". A value that rounds to 1 in single precision is at most half a step
/// away.
pub fn probability(p: f64, digits: u8) -> String {
    let rest = 1.0 - p;
    if p <= 0.5 || rest > 0.1 {
        significant(p, digits)
    } else if rest < SMALL {
        format!("1 − {}", significant(rest.max(f64::from(f32::EPSILON) / 4.0), digits))
    } else {
        format!("{p:.*}", decimals(rest, i32::from(digits)))
    }
}

/// Formats a count in groups of three digits, separated by narrow no-break spaces.
pub fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use taiga_flow_gpu::random::Stream;

    #[test]
    fn values_are_written_to_their_errors_digits() {
        assert_eq!(Measured { value: 0.913_84, error: 0.001_21 }.to_string(), "0.9138 ± 0.0012");
        assert_eq!(Measured { value: 3.051, error: 0.14 }.to_string(), "3.05 ± 0.14");
        assert_eq!(Measured { value: 1.0, error: 0.0 }.to_string(), "1.0000");
    }

    #[test]
    fn small_values_avoid_rows_of_zeros() {
        let text = |value, error| Measured { value, error }.to_string();
        assert_eq!(text(0.0, 0.0), "0");
        assert_eq!(text(0.0, 0.0099), "0 ± 0.0099");
        assert_eq!(text(0.0, 3.1e-9), "0 ± 3.1e-9");
        assert_eq!(text(4.21e-7, 3.4e-8), "(4.21 ± 0.34)e-7");
        assert_eq!(text(-2.0e-9, 3.0e-8), "(-0.2 ± 3.0)e-8");
    }

    #[test]
    fn probabilities_near_one_do_not_round_to_it() {
        for (p, text) in [
            (0.0361, "0.0361"),
            (0.62, "0.620"),
            (0.999_873, "0.999873"),
            (1.0 - 3.2e-8, "1 − 3.20e-8"),
            (1.0, "1 − 2.98e-8"),
            (1.25e-7, "1.25e-7"),
        ] {
            assert_eq!(probability(p, 3), text);
        }
    }

    #[test]
    fn difference_shows_direction_and_size() {
        let describe = |value| Measured { value, error: 0.0012 }.compared();
        assert_eq!(describe(-0.0106), "lower by 0.0106 ± 0.0012");
        assert_eq!(describe(0.0106), "higher by 0.0106 ± 0.0012");
        assert_eq!(describe(0.0), "equal within 0.0012");
        assert_eq!(Measured { value: 0.0, error: 0.0 }.compared(), "equal");
        assert_eq!(compared(0.0, |size| significant(size, 3)), "equal");
    }

    #[test]
    fn numbers_and_counts_are_formatted() {
        assert_eq!(significant(-9.123_45, 4), "-9.123");
        assert_eq!(significant(0.0, 4), "0");
        assert_eq!(significant(3.4e38, 3), "3.40e38");
        assert_eq!(grouped(12), "12");
        assert_eq!(grouped(1_234_567), "1\u{202f}234\u{202f}567");
    }

    #[test]
    fn weighted_share_error_agrees_with_samples() {
        let stream = Stream::new(u64::from(std::process::id()), "shares", &[]);
        let sample = |replica: u64| {
            let (mut passed, mut all) = (WeightSum::default(), WeightSum::default());
            for i in 0..300 {
                let at = 2 * (300 * replica + i);
                let weight = 1.0 / (0.05 + stream.uniform(at));
                all = all.with(weight);
                if stream.uniform(at + 1) < 0.3 {
                    passed = passed.with(weight);
                }
            }
            Measured::share(passed, all).unwrap()
        };
        let found: Vec<Measured> = (0..600).map(sample).collect();
        let mean = found.iter().map(|m| m.value).sum::<f64>() / 600.0;
        let spread = found.iter().map(|m| (m.value - mean) * (m.value - mean)).sum::<f64>() / 599.0;
        let said = found.iter().map(|m| m.error * m.error).sum::<f64>() / 600.0;
        assert!((mean - 0.3).abs() < 0.01, "{mean}");
        // Four standard errors of a variance of 600.
        assert!((said / spread).ln().abs() < 0.25, "{said} {spread}");
        let binomial = Measured::share(WeightSum::of(50), WeightSum::of(100)).unwrap();
        assert!((binomial.error - 0.05).abs() < 1e-15);
        assert_eq!(Measured::share(WeightSum::default(), WeightSum::default()), None);
    }

    /// Returns the Wilson interval at z = 1 of k of n events, by its formula.
    fn wilson(k: f64, n: f64) -> [f64; 2] {
        let p = k / n;
        let centre = (p + 0.5 / n) / (1.0 + 1.0 / n);
        let half = libm::sqrt(p * (1.0 - p) / n + 0.25 / (n * n)) / (1.0 + 1.0 / n);
        [centre - half, centre + half]
    }

    #[test]
    fn shares_of_none_and_all_have_wilson_errors() {
        for n in [1_u64, 10, 137, 100_000] {
            let [none, all] = [0, n].map(|k| Measured::fraction(k, n).unwrap());
            let width = wilson(0.0, n as f64)[1];
            assert!((none.error / width - 1.0).abs() < 1e-9, "{none:?}, {width}");
            assert!((none.error - all.error).abs() < 1e-15 && all.value > 0.999);
            // The error is not smaller than with one passing event, within a few per cent.
            let one = Measured::fraction(1, n + 1).unwrap();
            assert!(none.error < 1.5 * one.error && none.error > 0.9 * one.error);
        }
        // Equal weights of any size act as none; unequal weights leave fewer effective events.
        let equal = Measured::share(WeightSum::default(), WeightSum::of(50).scaled(7.0)).unwrap();
        assert!((equal.error - 1.0 / 51.0).abs() < 1e-12);
        let unequal = WeightSum::default().with(10.0).with(1.0).with(1.0);
        let all = Measured::share(unequal, unequal).unwrap();
        assert!(all.error > 0.4, "{all:?}");
    }

    #[test]
    fn fraction_without_events_is_none() {
        assert_eq!(Measured::fraction(0, 0), None);
        let half = Measured::fraction(50, 100).unwrap();
        assert!((half.value - 0.5).abs() < 1e-15 && (half.error - 0.05).abs() < 1e-15);
    }
}
