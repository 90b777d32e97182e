//! The section of nights, runs and portions.

use super::columns::{HOUR, MAX_ROWS, figures_of, shortened, telescope, with_figures};
use super::plots;
use crate::error::Result;
use crate::report::elements::{Assessed, LegendEntry, ReportFigure, heads};
use crate::report::format::{dash, number};
use crate::season::{Night, PortionRow, RunRow, Season, time};
use crate::statistics::Measured;
use crate::statistics::measured::grouped;

/// Builds the section of nights, runs and portions.
pub(super) fn nights(season: &Season) -> Result<Assessed> {
    let portion_head = with_figures(&["run", "telescope", "portion", "begins (UTC)"]);
    let mut run_head = with_figures(&["run", "telescope", "begins (UTC)", "portions"]);
    run_head.extend(heads(&["p of OFF", "flag"]));
    let night_head = with_figures(&["night", "telescope", "runs"]);
    let title = "Nights; an upper limit of the excess where the significance is below 3";
    Ok(Assessed {
        heading: "Nights and runs".into(),
        figures: excess_figure(season)?.into_iter().collect(),
        tables: vec![
            shortened(title, night_head, &season.nights, night_row, MAX_ROWS),
            shortened("Runs", run_head, &season.runs, run_row, MAX_ROWS),
            shortened(
                "Portions of the runs",
                portion_head,
                &season.portions,
                portion_row,
                MAX_ROWS,
            ),
        ],
        ..Assessed::default()
    })
}

/// Draws the excess per hour of nights with times; `None` without any.
fn excess_figure(season: &Season) -> Result<Option<ReportFigure>> {
    let timed = season.nights.iter().filter(|night| night.tally.without_time == 0);
    let hourly: Vec<Measured> = timed.filter_map(excess_per_hour).collect();
    let svg = plots::in_order(&hourly, "night (and telescope), in order", "excess per hour")?;
    Ok(svg.map(|svg| ReportFigure {
        title: "Excess night by night".into(),
        svg,
        keys: vec![LegendEntry::new("gamma dot-of", "N on − α N off, per hour of live time")],
        caption: "Nights with times are those of the table below.".into(),
    }))
}

/// Returns the excess per hour of live time.
fn excess_per_hour(night: &Night) -> Option<Measured> {
    let (excess, hours) = (night.tally.excess?, night.tally.live_s? / HOUR);
    (hours > 0.0).then(|| Measured { value: excess.value / hours, error: excess.error / hours })
}

fn night_row(night: &Night) -> Vec<String> {
    let date = night.night.clone().unwrap_or_else(|| "undated".to_string());
    let mut row = vec![date, telescope(night.telescope), grouped(night.runs)];
    row.extend(figures_of(&night.tally));
    row
}

fn run_row(run: &RunRow) -> Vec<String> {
    let mut row =
        vec![run.run.clone(), telescope(run.telescope), start(run.start_ns), grouped(run.portions)];
    row.extend(figures_of(&run.tally));
    row.push(dash(run.tally.homogeneity, |h| number(h.p_value, 2)));
    row.push(if run.drift.iter().any(|d| d.flagged) { "drifts" } else { "" }.to_string());
    row
}

fn portion_row(portion: &PortionRow) -> Vec<String> {
    let name = if portion.name.is_empty() { "–".to_string() } else { portion.name.clone() };
    let mut row =
        vec![portion.run.clone(), telescope(portion.telescope), name, start(portion.start_ns)];
    row.extend(figures_of(&portion.tally));
    row
}

/// Formats the start of a run, to the minute.
fn start(start_ns: Option<i64>) -> String {
    dash(start_ns, |t| time::utc(t)[..16].to_string())
}
