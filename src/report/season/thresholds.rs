//! The section of counts at other thresholds.

use super::columns::bound;
use crate::report::elements::{Assessed, ReportTable, fact, heads};
use crate::report::format::{dash, fixed, measured, number};
use crate::season::{Season, Showers};
use crate::statistics::SeasonScanPoint;
use crate::statistics::measured::grouped;

/// Warning that a threshold must not be taken from its own scan.
const SCAN_WARNING: &str = "For planning only: a threshold chosen for the highest significance of these events selects their upward fluctuations, so its significance is too large (a trial factor). Choose it on simulated gammas or on a different season.";

/// Builds the section of counts at other thresholds.
pub(super) fn thresholds(season: &Season) -> Option<Assessed> {
    let scan = season.scan.as_ref()?;
    let per_hour = |rate: Option<f64>| dash(rate, |rate| number(rate, 3));
    let row = |point: &SeasonScanPoint| {
        let is_best = scan.best.is_some_and(|best| best == *point);
        vec![
            fixed(point.threshold, 3),
            grouped(point.on),
            grouped(point.off),
            measured(Some(point.excess)),
            format!("{}{}", fixed(point.significance, 2), if is_best { " (highest)" } else { "" }),
            per_hour(point.needed_per_hour),
            per_hour(point.needed_of_found),
        ]
    };
    let mut points = scan.points.clone();
    points.extend(scan.best.filter(|best| !scan.points.contains(best)));
    points.sort_by(|a, b| a.threshold.total_cmp(&b.threshold));
    let head = heads(&[
        "score ≥",
        "N on",
        "N off",
        "excess",
        "σ",
        "excess per hour for 5 σ in 50 h",
        "ratio to the excess found",
    ]);
    let total = &season.total.tally;
    let own =
        dash(total.significance, |s| format!("{}{} σ", bound(season.total.showers), fixed(s, 2)));
    let mut title = "Events counted once, by threshold".to_string();
    if season.total.showers != Showers::Distinct {
        title += "; telescopes counted as independent";
    }
    Some(Assessed {
        heading: "Other thresholds".into(),
        facts: vec![
            fact("significance at the threshold used", own, ""),
            fact(
                "highest of the scan",
                dash(scan.best, |best| {
                    let (sigma, least) = (fixed(best.significance, 2), fixed(best.threshold, 3));
                    format!("{sigma} σ at score ≥ {least}")
                }),
                "of thresholds with at least ten OFF events",
            ),
        ],
        warnings: vec![SCAN_WARNING.to_string()],
        tables: vec![ReportTable { title, head, rows: points.iter().map(row).collect() }],
        ..Assessed::default()
    })
}
