//! A figure with its standard error, and how figures are written.
//!
//! A measured value is printed to two significant digits of its error
//! ("0.9138 ± 0.0012"), other numbers to a stated number of significant digits.

use serde::{Deserialize, Serialize};
use std::fmt;

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    pub value: f64,
    /// Standard error (one sigma).
    pub error: f64,
}

impl Measured {
    /// `passed` of `total` events with the binomial error √(p(1−p)/n), which is 0
    /// where none or all pass; `None` without events.
    pub fn fraction(passed: u64, total: u64) -> Option<Measured> {
        if total == 0 {
            return None;
        }
        let n = total as f64;
        let value = passed as f64 / n;
        Some(Measured { value, error: (value * (1.0 - value) / n).max(0.0).sqrt() })
    }
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let decimals = if self.error > 0.0 { decimals(self.error, 2) } else { 4 };
        f.pad(&format!("{:.decimals$} ± {:.decimals$}", self.value, self.error))
    }
}

/// Decimals that show `significant` digits of a number of this size.
fn decimals(size: f64, significant: i32) -> usize {
    if !size.is_finite() || size == 0.0 {
        return 0;
    }
    let leading = libm::floor(libm::log10(size.abs())) as i32;
    (significant - 1 - leading).clamp(0, 12) as usize
}

/// A number to so many significant digits, in exponent form where it is very
/// large or very small.
pub fn significant(value: f64, digits: u8) -> String {
    let size = value.abs();
    if value != 0.0 && !(1e-4..1e7).contains(&size) {
        return format!("{value:.*e}", usize::from(digits.saturating_sub(1)));
    }
    format!("{value:.*}", decimals(size, i32::from(digits)))
}

/// A count in groups of three digits, by narrow no-break spaces.
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

    #[test]
    fn figures_are_written_to_the_digits_of_their_error() {
        assert_eq!(Measured { value: 0.913_84, error: 0.001_21 }.to_string(), "0.9138 ± 0.0012");
        assert_eq!(Measured { value: 3.051, error: 0.14 }.to_string(), "3.05 ± 0.14");
        assert_eq!(Measured { value: 1.0, error: 0.0 }.to_string(), "1.0000 ± 0.0000");
    }

    #[test]
    fn numbers_and_counts_read_well() {
        assert_eq!(significant(-9.123_45, 4), "-9.123");
        assert_eq!(significant(0.0, 4), "0");
        assert_eq!(significant(3.4e38, 3), "3.40e38");
        assert_eq!(grouped(12), "12");
        assert_eq!(grouped(1_234_567), "1\u{202f}234\u{202f}567");
    }

    #[test]
    fn a_fraction_of_nothing_is_nothing() {
        assert_eq!(Measured::fraction(0, 0), None);
        let half = Measured::fraction(50, 100).unwrap();
        assert!((half.value - 0.5).abs() < 1e-15 && (half.error - 0.05).abs() < 1e-15);
    }
}
