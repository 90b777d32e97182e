//! Columns and formats that the sections of a season share.

use crate::report::elements::{ReportTable, heads};
use crate::report::format::{dash, fixed, measured, number};
use crate::season::{EventTally, Showers};
use crate::statistics::Measured;
use crate::statistics::measured::grouped;

pub(super) const FIGURES: [&str; 9] = [
    "N on",
    "expected",
    "excess",
    "σ",
    "σ/√h",
    "below, 95 %",
    "live [h]",
    "events",
    "live rate [Hz]",
];

pub(super) fn with_figures(head: &[&str]) -> Vec<String> {
    heads(&[head, &FIGURES].concat())
}

/// Returns the columns that tables of nights, runs and seasons share.
pub(super) fn figures_of(tally: &EventTally) -> Vec<String> {
    vec![
        grouped(tally.on),
        dash(expected(tally), |b| fixed(b, 1)),
        measured(tally.excess),
        dash(tally.significance, |s| fixed(s, 2)),
        dash(tally.per_root_hour, |s| fixed(s, 2)),
        tally.upper_limit.map_or_else(String::new, |limit| number(limit, 3)),
        dash(tally.live_s, |s| fixed(s / HOUR, 2)),
        grouped(tally.events),
        dash(tally.rate_hz, |r| number(r, 3)),
    ]
}

/// Returns αN_off.
pub(super) fn expected(tally: &EventTally) -> Option<f64> {
    tally.alpha.map(|alpha| alpha * tally.off.iter().sum::<u64>() as f64)
}

/// Builds a table of at most `most` rows; its last row gives the number of omitted ones.
pub(super) fn shortened<T>(
    title: &str,
    head: Vec<String>,
    all: &[T],
    row: impl Fn(&T) -> Vec<String>,
    most: usize,
) -> ReportTable {
    let mut rows: Vec<Vec<String>> = all.iter().take(most).map(row).collect();
    if all.len() > most {
        let mut rest = vec![String::new(); head.len()];
        rest[0] = format!("and {} more, in season.json", grouped((all.len() - most) as u64));
        rows.push(rest);
    }
    ReportTable { title: title.to_string(), head, rows }
}

pub(super) fn telescope(number: Option<i64>) -> String {
    dash(number, |t| t.to_string())
}

pub(super) fn hours(seconds: f64) -> String {
    format!("{} h", fixed(seconds / HOUR, 2))
}

pub(super) fn edges(low: f64, high: f64) -> String {
    format!("{} … {}", number(low, 3), number(high, 3))
}

/// Returns the prefix of a significance that is an upper bound.
pub(super) fn bound(showers: Showers) -> &'static str {
    match showers {
        Showers::Distinct | Showers::Combined => "",
        Showers::Independent => "≤ ",
    }
}

pub(super) fn percent(share: Measured) -> String {
    format!("{} ± {} %", fixed(100.0 * share.value, 2), fixed(100.0 * share.error, 2))
}

pub(super) const HOUR: f64 = 3600.0;

/// Largest number of rows shown; season.json contains all.
pub(super) const MAX_ROWS: usize = 300;
