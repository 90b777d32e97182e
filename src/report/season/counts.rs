//! Counts of a season: figures, cut flow, positions and groups.

use super::columns::{bound, figures_of, telescope, with_figures};
use super::plots;
use crate::error::Result;
use crate::report::elements::{LegendEntry, ReportFigure, ReportTable, heads};
use crate::report::format::{dash, fixed, measured, number};
use crate::season::{ALPHA_MAX, EventTally, Group, INDEPENDENT, Season, Showers, THETA2_MAX};
use crate::statistics::measured::grouped;

/// Draws counts per position, distributions and the growth of the significance.
pub(super) fn count_figures(season: &Season) -> Result<Vec<ReportFigure>> {
    let Some(alpha) = season.total.tally.alpha else { return Ok(Vec::new()) };
    let mut figures = vec![positions_figure(season)?];
    let caption = "Events that pass the threshold and all cuts except one on this quantity, counted at every position.";
    let scores = season.score.as_ref().map(|s| plots::scores(s, alpha)).transpose()?.flatten();
    let inside = "Inside all cuts, before the threshold, at every position; the end bins also contain outliers.";
    let shown = [
        ("θ²", plots::on_and_off(&season.theta2, THETA2_MAX, alpha, "θ² [deg²]")?, caption),
        ("Alpha", plots::on_and_off(&season.alpha, ALPHA_MAX, alpha, "alpha [deg]")?, caption),
        ("Scores", scores, inside),
    ];
    for (title, svg, caption) in shown {
        let Some(svg) = svg else { continue };
        let keys = vec![
            LegendEntry::new("gamma dot-of", "at the source"),
            LegendEntry::new("hadron area", "mean of the OFF positions"),
        ];
        figures.push(ReportFigure { title: title.into(), svg, keys, caption: caption.into() });
    }
    figures.extend(growth_figure(season)?);
    Ok(figures)
}

/// Draws the counts of all positions.
fn positions_figure(season: &Season) -> Result<ReportFigure> {
    let total = &season.total.tally;
    let off: Vec<(f64, u64)> =
        season.off_positions.iter().copied().zip(total.off.iter().copied()).collect();
    let caption = dash(total.homogeneity, |h| {
        let (chi2, p_value) = (fixed(h.chi2, 2), number(h.p_value, 2));
        format!("χ² of the OFF positions {chi2} of {}, p = {p_value}.", h.degrees)
    });
    Ok(ReportFigure {
        title: "Events per position".into(),
        svg: plots::positions(total.on, &off)?,
        keys: vec![
            LegendEntry::new("gamma dot-of", "source"),
            LegendEntry::new("hadron dot-of", "OFF"),
            LegendEntry::new("hadron dashed", "their mean"),
        ],
        caption,
    })
}

/// Draws the significance against live time; `None` without times.
fn growth_figure(season: &Season) -> Result<Option<ReportFigure>> {
    let Some(svg) = plots::cumulative(&season.cumulative)? else { return Ok(None) };
    let order = "Telescope-hours, runs with times in the order of their start";
    let caption = match season.total.showers {
        Showers::Distinct | Showers::Combined => format!("{order}."),
        Showers::Independent => format!("{order}; {INDEPENDENT}."),
    };
    Ok(Some(ReportFigure {
        title: "Significance against live time".into(),
        svg,
        keys: vec![
            LegendEntry::new("gamma line", "run after run"),
            LegendEntry::new("muted dashed", "a steady source"),
        ],
        caption,
    }))
}

/// Lists the numbers of events after each step of the selection.
pub(super) fn cut_flow(total: &EventTally) -> ReportTable {
    let rows = [
        ("events", total.events),
        ("with a score", total.scored),
        ("inside the cuts of the model", total.inside),
        ("of good quality", total.good),
        ("inside the cuts of the report", total.selected),
        ("above the threshold", total.passing),
        ("counted at the source", total.on),
    ];
    let share = |n: u64| {
        let percent = 100.0 * n as f64 / total.events.max(1) as f64;
        format!("{} %", number(percent, 3))
    };
    ReportTable {
        title: "Cut flow at the source".into(),
        head: heads(&["", "events", "of all"]),
        rows: rows.map(|(name, n)| vec![name.to_string(), grouped(n), share(n)]).to_vec(),
    }
}

/// Lists the reasons of rejected events; `None` without any.
pub(super) fn rejected(total: &EventTally) -> Option<ReportTable> {
    let reasons = total.status.iter().chain(&total.quality).filter(|(_, n)| **n > 0);
    let rows: Vec<Vec<String>> =
        reasons.map(|(reason, n)| vec![reason.clone(), grouped(*n)]).collect();
    (!rows.is_empty()).then(|| ReportTable {
        title: "Rejected at the source, by reason (an event can have several)".into(),
        head: heads(&["reason", "events"]),
        rows,
    })
}

/// Compares events counted once with those counted at every position.
pub(super) fn of_positions(season: &Season) -> Option<ReportTable> {
    let total = &season.total.tally;
    let naive = total.naive.as_ref()?;
    let row =
        |name: String, counted: u64, passing: u64| vec![name, grouped(counted), grouped(passing)];
    let mut rows = vec![row("source".to_string(), total.on, naive.on)];
    for (k, angle) in season.off_positions.iter().enumerate() {
        rows.push(row(format!("{angle:.0}°"), total.off[k], naive.off[k]));
    }
    let mean = |of: &[u64]| of.iter().sum::<u64>() as f64 / of.len().max(1) as f64;
    rows.push(vec![
        "mean of OFF".to_string(),
        fixed(mean(&total.off), 1),
        fixed(mean(&naive.off), 1),
    ]);
    rows.push(vec!["excess".to_string(), measured(total.excess), measured(Some(naive.excess))]);
    let sigma = |s: f64| fixed(s, 2);
    rows.push(vec![
        "significance [σ]".to_string(),
        dash(total.significance, sigma),
        sigma(naive.significance),
    ]);
    rows.push(vec![
        "events passing at several positions".to_string(),
        String::new(),
        grouped(naive.overlapping),
    ]);
    rows.push(vec![
        "of these at the source".to_string(),
        String::new(),
        grouped(naive.overlapping_on),
    ]);
    Some(ReportTable {
        title: "Events per position; only those counted once are independent".into(),
        head: heads(&["position", "counted once", "wherever they pass"]),
        rows,
    })
}

/// Lists the counts by season and telescope.
pub(super) fn groups(season: &Season) -> ReportTable {
    let mut rows: Vec<Vec<String>> = season.groups.iter().map(group_row).collect();
    let head = ["season", "telescope", "nights", "runs"];
    let mut title = "By season and telescope".to_string();
    if season.groups.len() > 1 {
        let total = &season.total;
        let mut sum = vec!["all".to_string(), String::new()];
        sum.extend([grouped(total.nights), grouped(total.runs)]);
        sum.extend(figures_of(&total.tally));
        if total.showers == Showers::Independent {
            let of_sigma = [head.len() + 3, head.len() + 4];
            for column in of_sigma {
                sum[column] = format!("{}{}", bound(total.showers), sum[column]);
            }
            title = format!("{title}; {INDEPENDENT}");
        }
        rows.push(sum);
    }
    ReportTable { title, head: with_figures(&head), rows }
}

/// Formats the counts of a season and telescope.
fn group_row(group: &Group) -> Vec<String> {
    let mut row = vec![
        group.season.clone().unwrap_or_else(|| "undated".to_string()),
        telescope(group.telescope),
        grouped(group.nights),
        grouped(group.runs),
    ];
    row.extend(figures_of(&group.tally));
    row
}
