//! Builds the page of a season: sections of texts and tables from the values of `season.json`.

mod candidates;
mod columns;
mod counts;
mod drift;
mod energies;
mod excluded;
mod nights;
mod plots;
mod simulation;
mod thresholds;

use super::elements::{Assessed, Fact, fact};
use super::format::{dash, fixed, measured, number};
use super::view::Page;
use crate::config::Interval;
use crate::error::Result;
use crate::season::{EventTally, Group, INDEPENDENT, Season, Showers, Simulation};
use crate::statistics::measured::grouped;
use crate::storage;
use columns::{HOUR, bound, expected, hours, percent};
use counts::{count_figures, cut_flow, groups, of_positions, rejected};
use std::path::Path;

/// Name of the page in the folder of the report.
pub(crate) const SEASON_PAGE: &str = "season.html";

/// Renders the page and writes it as a whole file.
pub(crate) fn write_season(season: &Season, output: &Path) -> Result<()> {
    storage::write_file(output, season_page(season)?.as_bytes())
}

/// Returns the whole document.
pub(crate) fn season_page(season: &Season) -> Result<String> {
    let mut sections = vec![overview(season)?, nights::nights(season)?];
    sections.extend(thresholds::thresholds(season));
    sections.extend(energies::energies(season)?);
    sections.extend(simulation::simulation(season)?);
    sections.extend(drift::drift(season)?);
    sections.extend(candidates::candidates(season));
    sections.extend(excluded::left_out(season));
    super::render(&Page::of_sections(title(season), sections))
}

fn title(season: &Season) -> String {
    let named: Vec<&str> = season.groups.iter().filter_map(|g| g.season.as_deref()).collect();
    match (named.first(), named.last()) {
        (Some(first), Some(last)) if first == last => format!("Season {first}"),
        (Some(first), Some(last)) => format!("Seasons {first} to {last}"),
        _ => "Season".to_string(),
    }
}

fn overview(season: &Season) -> Result<Assessed> {
    let total = &season.total.tally;
    Ok(Assessed {
        heading: format!("{} · ON and OFF", season.point),
        headline: headline(&season.total, season.simulation.as_ref()),
        facts: facts(season),
        warnings: season.warnings.clone(),
        parameters: Vec::new(),
        figures: count_figures(season)?,
        tables: [
            Some(cut_flow(total)),
            rejected(total),
            of_positions(season),
            Some(groups(season)),
        ]
        .into_iter()
        .flatten()
        .collect(),
    })
}

/// Returns the most important values, each with a note on the counted events.
fn headline(group: &Group, simulation: Option<&Simulation>) -> Vec<Fact> {
    let total = &group.tally;
    let sigma = |s: f64| format!("{} σ", fixed(s, 2));
    let bound = bound(group.showers);
    let many = total.off.len();
    let of_runs = if total.without_time > 0 { "of the runs with times; " } else { "" };
    let mut facts = vec![
        fact(
            "significance",
            dash(total.significance, |s| format!("{bound}{}", sigma(s))),
            dash(total.naive.as_ref(), |n| {
                format!(
                    "Li & Ma, events counted once; {} if counted wherever they pass",
                    sigma(n.significance)
                )
            }),
        ),
        fact(
            "excess",
            measured(total.excess),
            match simulation {
                Some(_) => format!(
                    "events counted once; {} corrected for leakage",
                    measured(total.corrected)
                ),
                None => "events counted once; leakage into OFF unknown (no simulated gammas)"
                    .to_string(),
            },
        ),
        fact(
            "N on",
            grouped(total.on),
            dash(expected(total), |b| {
                format!("events counted at the source; {} expected from {many} OFF", fixed(b, 1))
            }),
        ),
        fact(
            "sensitivity",
            dash(total.per_root_hour, |s| format!("{bound}{} σ/√h", fixed(s, 2))),
            format!("{of_runs}σ of events counted once, per root of live time"),
        ),
        fact("live time", dash(total.live_s, hours), format!("telescope-hours; {}", gaps(total))),
        fact(
            "rate",
            dash(total.rate_hz, |r| format!("{} Hz", number(r, 3))),
            format!("{} events in live time, before all cuts", grouped(total.live_events)),
        ),
    ];
    if let Some(limit) = total.upper_limit {
        facts[1].note = format!("{}; below {} at 95 %", facts[1].note, number(limit, 3));
    }
    facts
}

fn gaps(tally: &EventTally) -> String {
    let text = match tally.gaps {
        0 => "no pauses".to_string(),
        n => format!("{} pauses, {} h in total", grouped(n), fixed(tally.gap_s / HOUR, 2)),
    };
    if tally.bad_s > 0.0 {
        return format!("{text}, {} h of bad quality", fixed(tally.bad_s / HOUR, 2));
    }
    text
}

/// Returns the inputs and settings of the season.
fn facts(season: &Season) -> Vec<Fact> {
    let total = &season.total.tally;
    let threshold = match season.threshold {
        Some(threshold) => format!("score ≥ {}", number(threshold, 5)),
        None => "a threshold per bin".to_string(),
    };
    let rotation = "rotation about the camera centre; 0° is the source";
    let mut facts = vec![
        fact("scores", &season.scores, ""),
        fact("model", season.models.join(", "), ""),
        fact("working point", &season.point, threshold),
        fact("positions", angles(&season.positions), rotation),
    ];
    if season.off_positions.len() + 1 < season.positions.len() {
        facts.push(fact("OFF positions counted", angles(&season.off_positions), ""));
    }
    if !season.cuts.is_empty() {
        facts.push(fact("cuts in addition to those of the model", cuts(season), ""));
    }
    if let Some(simulation) = &season.simulation {
        let [all, on] = [simulation.leak.events, simulation.leak.on].map(grouped);
        let note = format!("of {all} simulated gammas, {on} counted at the source");
        facts.push(fact("leakage into an OFF position", dash(simulation.share, percent), note));
    }
    facts.push(fact(
        "counting",
        "an event that passes at several positions counts once, where its score is highest",
        match season.total.showers {
            Showers::Distinct => String::new(),
            Showers::Independent => INDEPENDENT.to_string(),
            Showers::Combined => format!(
                "a shower seen by several telescopes counts once, where its image has the largest size; {} images do not count",
                grouped(season.total.repeated_images)
            ),
        },
    ));
    if total.without_time > 0 {
        facts.push(fact(
            "without times",
            format!("{} events", grouped(total.without_time)),
            "their runs are in all counts, but not in live time, rate and σ/√h",
        ));
    }
    facts
}

/// Formats rotations in degrees.
fn angles(of: &[f64]) -> String {
    of.iter().map(|a| format!("{a:.0}°")).collect::<Vec<_>>().join(", ")
}

/// Formats the cuts of the report.
fn cuts(season: &Season) -> String {
    let bound = |b: Option<f64>| b.map_or("…".to_string(), |b| number(b, 4));
    let cut = |(name, cut): (&String, &Interval)| {
        format!("{name} in {} … {}", bound(cut.min), bound(cut.max))
    };
    season.cuts.iter().map(cut).collect::<Vec<_>>().join("; ")
}
