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
    pub(crate) fn fraction(passed: u64, total: u64) -> Option<Measured> {
        Measured::share(WeightSum::of(passed), WeightSum::of(total))
    }

    /// Returns the share of the weight of `all` events that belongs to `passed`. The error is that
    /// of a ratio of sums over independent events, √((1−p)² Σ_passed w² + p² Σ_others w²)/Σw, which
    /// is the binomial one for equal weights, or that of [`end_error`] if none or all pass; `None`
    /// without weight.
    pub(crate) fn share(passed: WeightSum, all: WeightSum) -> Option<Measured> {
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
    pub(crate) fn compared(self) -> String {
        compared(self.value, |value| Measured { value, ..self }.to_string())
    }
}

/// Formats a difference with the formatted size of `text`; a size written as 0 is "equal".
pub(crate) fn compared(difference: f64, text: impl FnOnce(f64) -> String) -> String {
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
pub(crate) fn significant(value: f64, digits: u8) -> String {
    let size = value.abs();
    if value != 0.0 && !(1e-4..1e7).contains(&size) {
        return format!("{value:.*e}", usize::from(digits.saturating_sub(1)));
    }
    format!("{value:.*}", decimals(size, i32::from(digits)))
}

/// Formats a probability to `digits` significant digits, of its distance from 1 if it is near 1:
/// "0.99987", "1 − 3.2e-8". A value that rounds to 1 in single precision is at most half a step
/// away.
pub(crate) fn probability(p: f64, digits: u8) -> String {
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
pub(crate) fn grouped(count: u64) -> String {
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
mod tests;
