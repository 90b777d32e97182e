//! The section of the drift of runs.

use super::columns::{MAX_ROWS, shortened, telescope};
use super::plots;
use crate::error::Result;
use crate::report::elements::{Assessed, LegendEntry, ReportFigure, fact, heads};
use crate::report::format::number;
use crate::season::{RunRow, Season};
use crate::statistics::Measured;
use crate::statistics::measured::grouped;

pub(super) fn drift(season: &Season) -> Result<Option<Assessed>> {
    let first = season.runs.iter().find_map(|run| {
        let names = || run.drift.iter().map(|d| d.column.as_str());
        names().find(|name| name.starts_with("log_prob")).or_else(|| names().next())
    });
    let Some(column) = first else { return Ok(None) };
    let of = |run: &RunRow| run.drift.iter().find(|d| d.column == column).map(|d| d.drift.psi);
    let values: Vec<Measured> =
        season.runs.iter().filter_map(of).map(|value| Measured { value, error: 0.0 }).collect();
    let mut figures = Vec::new();
    if let Some(svg) = plots::in_order(&values, "run, in order", "stability index (PSI)")? {
        figures.push(ReportFigure {
            title: format!("Drift of {column} run by run"),
            svg,
            keys: vec![LegendEntry::new("gamma dot-of", "population stability index")],
            caption: format!(
                "Compared with {}; above 0.25 a population is usually considered different.",
                season.drift_reference
            ),
        });
    }
    let flagged: Vec<Vec<String>> = season
        .runs
        .iter()
        .flat_map(|run| {
            run.drift.iter().filter(|d| d.flagged).map(|d| {
                vec![
                    run.run.clone(),
                    telescope(run.telescope),
                    d.column.clone(),
                    grouped(d.drift.events),
                    number(d.drift.psi, 3),
                    number(d.drift.ks, 3),
                    number(d.drift.p_value, 2),
                ]
            })
        })
        .collect();
    let head = heads(&["run", "telescope", "quantity", "events", "PSI", "KS distance", "p"]);
    let mut section = Assessed { heading: "Drift".into(), figures, ..Assessed::default() };
    if flagged.is_empty() {
        section.facts.push(fact("flagged runs", "none", ""));
    } else {
        section.tables.push(shortened("Flagged runs", head, &flagged, Clone::clone, MAX_ROWS));
    }
    Ok(Some(section))
}
