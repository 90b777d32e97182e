//! Builds the page of a season: sections of texts and tables from the values of `season.json`.

use super::season_plots as plots;
use super::view::{
    Assessed, Fact, LegendEntry, Page, ReportFigure, ReportTable, dash, fact, heads, measured,
    number,
};
use crate::error::Result;
use crate::season::{
    ALPHA_MAX, AreaBin, BinLeak, EnergyBin, EventTally, Group, INDEPENDENT, Night, Picture,
    PortionRow, RunRow, Season, Showers, Simulation, THETA2_MAX, number_name, time,
};
use crate::statistics::measured::grouped;
use crate::statistics::{Measured, SeasonScanPoint};
use crate::storage;
use std::path::Path;

/// Name of the page in the folder of the report.
pub const SEASON_PAGE: &str = "season.html";
/// Largest number of rows shown; season.json contains all.
const MAX_ROWS: usize = 300;
const MAX_CANDIDATES: usize = 100;
const HOUR: f64 = 3600.0;
/// Warning that a threshold must not be taken from its own scan.
const SCAN_WARNING: &str = "For planning only: a threshold chosen for the highest significance of these events selects their upward fluctuations, so its significance is too large (a trial factor). Choose it on simulated gammas or on a different season.";

/// Renders the page and writes it as a whole file.
pub fn write_season(season: &Season, output: &Path) -> Result<()> {
    storage::write_file(output, season_page(season)?.as_bytes())
}

/// Returns the whole document.
pub fn season_page(season: &Season) -> Result<String> {
    let mut sections = vec![overview(season)?, nights(season)?];
    sections.extend(thresholds(season));
    sections.extend(energies(season)?);
    sections.extend(simulation(season)?);
    sections.extend(drift(season)?);
    sections.extend(candidates(season));
    sections.extend(left_out(season));
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
                None => {
                    "events counted once; leakage into OFF unknown (no simulated gammas)".to_string()
                }
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

/// Returns the prefix of a significance that is an upper bound.
fn bound(showers: Showers) -> &'static str {
    match showers {
        Showers::Distinct | Showers::Combined => "",
        Showers::Independent => "≤ ",
    }
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

fn facts(season: &Season) -> Vec<Fact> {
    let angles = |of: &[f64]| of.iter().map(|a| format!("{a:.0}°")).collect::<Vec<_>>().join(", ");
    let total = &season.total.tally;
    let mut facts = vec![
        fact("scores", &season.scores, ""),
        fact("model", season.models.join(", "), ""),
        fact(
            "working point",
            &season.point,
            season.threshold.map_or_else(
                || "a threshold per bin".to_string(),
                |threshold| format!("score ≥ {}", number(threshold, 5)),
            ),
        ),
        fact(
            "positions",
            angles(&season.positions),
            "rotation about the camera centre; 0° is the source",
        ),
    ];
    if season.off_positions.len() + 1 < season.positions.len() {
        facts.push(fact("OFF positions counted", angles(&season.off_positions), ""));
    }
    if !season.cuts.is_empty() {
        let bound = |b: Option<f64>| b.map_or("…".to_string(), |b| number(b, 4));
        let cuts: Vec<String> = season
            .cuts
            .iter()
            .map(|(name, cut)| format!("{name} in {} … {}", bound(cut.min), bound(cut.max)))
            .collect();
        facts.push(fact("cuts in addition to those of the model", cuts.join("; "), ""));
    }
    if let Some(simulation) = &season.simulation {
        let note = format!(
            "of {} simulated gammas, {} counted at the source",
            grouped(simulation.leak.events),
            grouped(simulation.leak.on)
        );
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

fn count_figures(season: &Season) -> Result<Vec<ReportFigure>> {
    let total = &season.total.tally;
    let mut figures = Vec::new();
    let Some(alpha) = total.alpha else { return Ok(figures) };
    let keys = || {
        vec![
            LegendEntry::new("gamma dot-of", "at the source"),
            LegendEntry::new("hadron area", "mean of the OFF positions"),
        ]
    };
    let off: Vec<(f64, u64)> =
        season.off_positions.iter().copied().zip(total.off.iter().copied()).collect();
    let homogeneity = dash(total.homogeneity, |h| {
        format!(
            "χ² of the OFF positions {} of {}, p = {}.",
            fixed(h.chi2, 2),
            h.degrees,
            number(h.p_value, 2)
        )
    });
    figures.push(ReportFigure {
        title: "Events per position".into(),
        svg: plots::positions(total.on, &off)?,
        keys: vec![
            LegendEntry::new("gamma dot-of", "source"),
            LegendEntry::new("hadron dot-of", "OFF"),
            LegendEntry::new("hadron dashed", "their mean"),
        ],
        caption: homogeneity,
    });
    let caption = "Events that pass the threshold and all cuts except one on this quantity, counted at every position.";
    let shown = [
        ("θ²", plots::on_and_off(&season.theta2, THETA2_MAX, alpha, "θ² [deg²]")?, caption),
        ("Alpha", plots::on_and_off(&season.alpha, ALPHA_MAX, alpha, "alpha [deg]")?, caption),
        (
            "Scores",
            season.score.as_ref().map(|s| plots::scores(s, alpha)).transpose()?.flatten(),
            "Inside all cuts, before the threshold, at every position; the end bins also contain outliers.",
        ),
    ];
    for (title, svg, caption) in shown {
        let Some(svg) = svg else { continue };
        figures.push(ReportFigure {
            title: title.into(),
            svg,
            keys: keys(),
            caption: caption.into(),
        });
    }
    if let Some(svg) = plots::cumulative(&season.cumulative)? {
        figures.push(ReportFigure {
            title: "Significance against live time".into(),
            svg,
            keys: vec![
                LegendEntry::new("gamma line", "run after run"),
                LegendEntry::new("muted dashed", "a steady source"),
            ],
            caption: match season.total.showers {
                Showers::Distinct | Showers::Combined => {
                    "Telescope-hours, runs with times in the order of their start.".into()
                }
                Showers::Independent => format!(
                    "Telescope-hours, runs with times in the order of their start; {INDEPENDENT}."
                ),
            },
        });
    }
    Ok(figures)
}

fn cut_flow(total: &EventTally) -> ReportTable {
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

fn rejected(total: &EventTally) -> Option<ReportTable> {
    let reasons = total.status.iter().chain(&total.quality).filter(|(_, n)| **n > 0);
    let rows: Vec<Vec<String>> =
        reasons.map(|(reason, n)| vec![reason.clone(), grouped(*n)]).collect();
    (!rows.is_empty()).then(|| ReportTable {
        title: "Rejected at the source, by reason (an event can have several)".into(),
        head: heads(&["reason", "events"]),
        rows,
    })
}

fn of_positions(season: &Season) -> Option<ReportTable> {
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

fn groups(season: &Season) -> ReportTable {
    let row = |group: &Group| {
        let mut row = vec![
            group.season.clone().unwrap_or_else(|| "undated".to_string()),
            telescope(group.telescope),
            grouped(group.nights),
            grouped(group.runs),
        ];
        row.extend(figures_of(&group.tally));
        row
    };
    let mut rows: Vec<Vec<String>> = season.groups.iter().map(row).collect();
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

const FIGURES: [&str; 9] = [
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

fn with_figures(head: &[&str]) -> Vec<String> {
    heads(&[head, &FIGURES].concat())
}

/// Returns the columns that tables of nights, runs and seasons share.
fn figures_of(tally: &EventTally) -> Vec<String> {
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
fn expected(tally: &EventTally) -> Option<f64> {
    tally.alpha.map(|alpha| alpha * tally.off.iter().sum::<u64>() as f64)
}

fn nights(season: &Season) -> Result<Assessed> {
    let mut figures = Vec::new();
    let hourly: Vec<Measured> = season
        .nights
        .iter()
        .filter(|night| night.tally.without_time == 0)
        .filter_map(|night| {
            let (excess, hours) = (night.tally.excess?, night.tally.live_s? / HOUR);
            (hours > 0.0)
                .then(|| Measured { value: excess.value / hours, error: excess.error / hours })
        })
        .collect();
    if let Some(svg) =
        plots::in_order(&hourly, "night (and telescope), in order", "excess per hour")?
    {
        figures.push(ReportFigure {
            title: "Excess night by night".into(),
            svg,
            keys: vec![LegendEntry::new("gamma dot-of", "N on − α N off, per hour of live time")],
            caption: "Nights with times are those of the table below.".into(),
        });
    }
    let night = |night: &Night| {
        let date = night.night.clone().unwrap_or_else(|| "undated".to_string());
        let mut row = vec![date, telescope(night.telescope), grouped(night.runs)];
        row.extend(figures_of(&night.tally));
        row
    };
    let run = |run: &RunRow| {
        let mut row = vec![
            run.run.clone(),
            telescope(run.telescope),
            dash(run.start_ns, |t| time::utc(t)[..16].to_string()),
            grouped(run.portions),
        ];
        row.extend(figures_of(&run.tally));
        row.push(dash(run.tally.homogeneity, |h| number(h.p_value, 2)));
        row.push(if run.drift.iter().any(|d| d.flagged) { "drifts" } else { "" }.to_string());
        row
    };
    let portion = |portion: &PortionRow| {
        let mut row = vec![
            portion.run.clone(),
            telescope(portion.telescope),
            if portion.name.is_empty() { "–".to_string() } else { portion.name.clone() },
            dash(portion.start_ns, |t| time::utc(t)[..16].to_string()),
        ];
        row.extend(figures_of(&portion.tally));
        row
    };
    let portion_head = with_figures(&["run", "telescope", "portion", "begins (UTC)"]);
    let mut run_head = with_figures(&["run", "telescope", "begins (UTC)", "portions"]);
    run_head.extend(heads(&["p of OFF", "flag"]));
    Ok(Assessed {
        heading: "Nights and runs".into(),
        figures,
        tables: vec![
            shortened(
                "Nights; an upper limit of the excess where the significance is below 3",
                with_figures(&["night", "telescope", "runs"]),
                &season.nights,
                night,
                MAX_ROWS,
            ),
            shortened("Runs", run_head, &season.runs, run, MAX_ROWS),
            shortened("Portions of the runs", portion_head, &season.portions, portion, MAX_ROWS),
        ],
        ..Assessed::default()
    })
}

/// Builds a table of at most `most` rows; its last row gives the number of omitted ones.
fn shortened<T>(
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

/// Builds the section of counts at other thresholds.
fn thresholds(season: &Season) -> Option<Assessed> {
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

fn energies(season: &Season) -> Result<Option<Assessed>> {
    let bins = &season.total.energy;
    let Some(svg) = plots::energies(bins)? else { return Ok(None) };
    let row = |bin: &EnergyBin| {
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
    };
    let head =
        ["energy [TeV]", "N on", "N off", "excess", "leakage", "corrected excess", "σ", "below, 95 %"];
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
            rows: bins.iter().map(row).collect(),
        }],
        ..Assessed::default()
    }))
}

/// Formats the leakage of a bin in percent, or states that it is not resolved.
fn leak_of_bin(leak: BinLeak) -> String {
    if leak.resolved {
        return dash(leak.share, percent);
    }
    format!("not resolved ({} gammas)", grouped(leak.counts.on))
}

fn percent(share: Measured) -> String {
    format!("{} ± {} %", fixed(100.0 * share.value, 2), fixed(100.0 * share.error, 2))
}

fn simulation(season: &Season) -> Result<Option<Assessed>> {
    let Some(simulation) = &season.simulation else { return Ok(None) };
    let whole = |x: f64| grouped(x.round() as u64);
    let area =
        |m: Option<Measured>| dash(m, |m| format!("{} ± {}", whole(m.value), whole(m.error)));
    let row = |bin: &AreaBin| {
        vec![
            edges(bin.low_tev, bin.high_tev),
            grouped(bin.events),
            grouped(bin.on),
            measured(bin.efficiency),
            area(bin.area_before_m2),
            area(bin.area_m2),
        ]
    };
    let mut section = Assessed {
        heading: "Simulated gammas".into(),
        facts: vec![
            fact("scores", &simulation.scores, ""),
            fact("gammas", grouped(simulation.leak.events), "scored"),
            fact("counted at the source", grouped(simulation.leak.on), ""),
            fact(
                "counted at OFF positions",
                grouped(simulation.leak.off),
                format!("{} positions", simulation.leak.positions),
            ),
        ],
        ..Assessed::default()
    };
    if let Some(thrown) = &simulation.thrown {
        let [low, high] = thrown.energy_tev;
        section.facts.push(fact(
            "simulated showers",
            format!(
                "{} over a radius of {} m, E^−{} from {} to {} TeV",
                grouped(thrown.events),
                number(thrown.radius_m, 4),
                number(thrown.index, 3),
                number(low, 3),
                number(high, 4)
            ),
            "assumed: uniform over the area, all triggered ones scored",
        ));
        let weighted = match &simulation.unweighted {
            Some(reason) => format!("as simulated: {reason}"),
            None => format!("weighted to E^−{} of the source", number(thrown.source_index, 3)),
        };
        section.facts.push(fact("spectrum of the leakage", weighted, ""));
    }
    if let Some(svg) = plots::areas(&simulation.area)? {
        section.figures.push(ReportFigure {
            title: "Effective area".into(),
            svg,
            keys: vec![
                LegendEntry::new("gamma line", "counted at the source"),
                LegendEntry::new("muted dashed", "scored"),
            ],
            caption: "Against the true energy.".into(),
        });
    }
    if !simulation.area.is_empty() {
        let head = [
            "true energy [TeV]",
            "scored",
            "counted",
            "efficiency",
            "area scored [m²]",
            "area counted [m²]",
        ];
        section.tables.push(ReportTable {
            title: "Efficiency and effective area".into(),
            head: heads(&head),
            rows: simulation.area.iter().map(row).collect(),
        });
    }
    Ok(Some(section))
}

fn drift(season: &Season) -> Result<Option<Assessed>> {
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

fn candidates(season: &Season) -> Option<Assessed> {
    let value = |v: Option<f32>, digits: u8| dash(v, |v| number(f64::from(v), digits));
    let key = |keys: &[(String, i64)], name: &str| {
        dash(keys.iter().find(|(known, _)| known == name), |(_, v)| v.to_string())
    };
    let probability = |c: &crate::season::Candidate, p: Option<f32>| {
        dash(p, |p| c.probability(p).replace('-', "−"))
    };
    let is_calibrated = season.candidates.iter().any(|c| c.gammaness.or(c.posterior).is_some());
    let of_model = if is_calibrated { 5..5 } else { 5..7 };
    let row = |c: &crate::season::Candidate| {
        let mut row = vec![
            key(&c.keys, "event_id"),
            c.run.map_or_else(|| c.file.clone(), number_name),
            telescope(c.telescope),
            dash(c.time_ns, time::utc),
            number(f64::from(c.score), 5),
            probability(c, c.gammaness),
            probability(c, c.posterior),
            value(c.theta2, 3),
            value(c.alpha, 3),
            value(c.dist, 3),
            value(c.size, 4),
            value(c.energy, 3),
            format!("{}, row {}", c.file, c.row),
        ];
        row.drain(of_model.clone());
        row
    };
    let mut head = heads(&[
        "event",
        "run",
        "telescope",
        "time (UTC)",
        "score",
        "gammaness",
        "posterior",
        "θ² [deg²]",
        "alpha [deg]",
        "dist [deg]",
        "size [p.e.]",
        "energy [TeV]",
        "file",
    ]);
    head.drain(of_model.clone());
    let picture = |picture: &Picture| {
        let of = &season.candidates[picture.candidate];
        let brightest = picture.charge.iter().copied().fold(0.0, f32::max);
        ReportFigure {
            title: format!(
                "Event {}, run {}",
                key(&of.keys, "event_id"),
                of.run.map_or_else(|| of.file.clone(), number_name)
            ),
            svg: plots::image(picture),
            keys: Vec::new(),
            caption: format!(
                "Score {}; brightest pixel {} p.e.",
                number(f64::from(of.score), 4),
                number(f64::from(brightest), 3)
            ),
        }
    };
    (!season.candidates.is_empty()).then(|| Assessed {
        heading: "Candidates".into(),
        figures: season.pictures.iter().map(picture).collect(),
        tables: vec![shortened(
            "Events counted at the source, the highest scores first",
            head,
            &season.candidates,
            row,
            MAX_CANDIDATES,
        )],
        ..Assessed::default()
    })
}

fn left_out(season: &Season) -> Option<Assessed> {
    let mut tables = Vec::new();
    if !season.refused.is_empty() {
        tables.push(ReportTable {
            title: "Runs that were not counted".into(),
            head: heads(&["run", "telescope", "events", "reason"]),
            rows: season
                .refused
                .iter()
                .map(|r| {
                    vec![r.run.clone(), telescope(r.telescope), grouped(r.events), r.reason.clone()]
                })
                .collect(),
        });
    }
    if !season.failed.is_empty() {
        tables.push(ReportTable {
            title: format!("Files that could not be scored or read: {}", season.failed.len()),
            head: heads(&["file", "reason"]),
            rows: season.failed.iter().map(|(file, why)| vec![file.clone(), why.clone()]).collect(),
        });
    }
    (!tables.is_empty()).then(|| Assessed {
        heading: "Not counted".into(),
        tables,
        ..Assessed::default()
    })
}

fn telescope(number: Option<i64>) -> String {
    dash(number, |t| t.to_string())
}

fn hours(seconds: f64) -> String {
    format!("{} h", fixed(seconds / HOUR, 2))
}

fn edges(low: f64, high: f64) -> String {
    format!("{} … {}", number(low, 3), number(high, 3))
}

/// Formats a number with `decimals` decimals and a true minus sign.
fn fixed(value: f64, decimals: usize) -> String {
    format!("{value:.decimals$}").replace('-', "−")
}
