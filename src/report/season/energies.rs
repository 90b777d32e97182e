//! The section of the excess per bin of energy.

use super::columns::{edges, percent};
use super::plots;
use crate::error::Result;
use crate::report::elements::{Assessed, LegendEntry, ReportFigure, ReportTable, heads};
use crate::report::format::{dash, fixed, measured, number};
use crate::season::{BinLeak, EnergyBin, Season};
use crate::statistics::measured::grouped;

pub(super) fn energies(season: &Season) -> Result<Option<Assessed>> {
    let bins = &season.total.energy;
    let Some(svg) = plots::energies(bins)? else { return Ok(None) };
    let head = [
        "energy [TeV]",
        "N on",
        "N off",
        "excess",
        "leakage",
        "corrected excess",
        "σ",
        "below, 95 %",
    ];
    Ok(Some(Assessed {
        heading: "Energy".into(),
        figures: vec![ReportFigure {
            title: "Excess against energy".into(),
            svg,
            keys: vec![LegendEntry::new("gamma dot-of", "N on − α N off")],
            caption: "An event has the energy at the position at which it counts; the correction for leakage is that of its bin.".into(),
        }],
        tables: vec![ReportTable {
            title: "Excess per bin of energy".into(),
            head: heads(&head),
            rows: bins.iter().map(energy_row).collect(),
        }],
        ..Assessed::default()
    }))
}

/// Formats the counts of an energy bin.
fn energy_row(bin: &EnergyBin) -> Vec<String> {
    vec![
        edges(bin.low_tev, bin.high_tev),
        grouped(bin.on),
        grouped(bin.off),
        measured(Some(bin.excess)),
        dash(bin.leak, leak_of_bin),
        measured(bin.corrected),
        dash(bin.significance, |s| fixed(s, 2)),
        bin.upper_limit.map_or_else(String::new, |limit| number(limit, 3)),
    ]
}

/// Formats the leakage of a bin in percent, or states that it is not resolved.
pub(super) fn leak_of_bin(leak: BinLeak) -> String {
    if leak.resolved {
        return dash(leak.share, percent);
    }
    format!("not resolved ({} gammas)", grouped(leak.counts.on))
}
