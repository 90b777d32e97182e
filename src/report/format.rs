//! Formats numbers for pages: suitable digits, a true minus sign, and a dash for a missing value.

use crate::statistics::Measured;
use crate::statistics::measured::significant;

/// Formats a measured value with a true minus sign; an en dash without one.
pub(super) fn measured(figure: Option<Measured>) -> String {
    dash(figure, |m| m.to_string().replace('-', "−"))
}

/// Formats a value, or returns an en dash without one.
pub(super) fn dash<T>(figure: Option<T>, text: impl FnOnce(T) -> String) -> String {
    figure.map_or_else(|| "–".to_owned(), text)
}

/// Formats a number to `digits` significant digits, with a true minus sign.
pub(super) fn number(value: f64, digits: u8) -> String {
    significant(value, digits).replace('-', "−")
}

/// Formats a number with `decimals` decimals and a true minus sign.
pub(super) fn fixed(value: f64, decimals: usize) -> String {
    format!("{value:.decimals$}").replace('-', "−")
}
