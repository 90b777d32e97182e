//! Results of a season as lines of text.

use crate::season::counting::candidates::Candidate;
use crate::season::showers::{INDEPENDENT, Showers};
use crate::season::summary::{EventTally, Group, Season};
use crate::statistics::measured::significant;
use std::fmt::{self, Display, Formatter};

const NAME: usize = 36;
/// Most candidates in the text, for calibrated models.
const MOST_CANDIDATES: usize = 5;

impl Display for Season {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let runs = self.runs.len();
        writeln!(f, "season of {runs} run(s), {} · {}", self.scores, self.point)?;
        tally(f, &self.total.tally, &self.off_positions)?;
        if let Some(best) = self.scan.as_ref().and_then(|scan| scan.best) {
            let text = format!(
                "{:.2} σ at score ≥ {}, for planning only: chosen on the same events",
                best.significance,
                significant(best.threshold, 4)
            );
            line(f, "highest of all thresholds", text)?;
        }
        if self.groups.len() > 1 {
            let head = ["runs", "hours", "N_on", "α·N_off", "σ"];
            write!(f, "  {:NAME$}", "season, telescope")?;
            head.iter().try_for_each(|name| write!(f, "{name:>10}"))?;
            writeln!(f)?;
            self.groups.iter().try_for_each(|group| row(f, group))?;
        }
        if self.total.showers == Showers::Independent {
            writeln!(f, "  {INDEPENDENT}")?;
        }
        if self.total.repeated_images > 0 {
            line(f, "images of showers counted elsewhere", self.total.repeated_images)?;
        }
        for candidate in self.candidates.iter().take(MOST_CANDIDATES) {
            candidate_line(f, candidate)?;
        }
        let flagged = self.runs.iter().filter(|run| run.drift.iter().any(|d| d.flagged)).count();
        if flagged > 0 {
            writeln!(f, "  {flagged} run(s) drift from {}", self.drift_reference)?;
        }
        for refused in &self.refused {
            writeln!(f, "not counted: run {}: {}", refused.run, refused.reason)?;
        }
        for (file, why) in &self.failed {
            writeln!(f, "failed: {file}: {why}")?;
        }
        for warning in &self.warnings {
            writeln!(f, "warning: {warning}")?;
        }
        Ok(())
    }
}

/// Writes a candidate with its probabilities; writes nothing for models without a calibration.
fn candidate_line(f: &mut Formatter<'_>, of: &Candidate) -> fmt::Result {
    let named = [("posterior", of.posterior), ("gammaness", of.gammaness)];
    let probabilities: Vec<String> = named
        .iter()
        .filter_map(|(name, value)| Some(format!("{name} {}", of.probability((*value)?))))
        .collect();
    if probabilities.is_empty() {
        return Ok(());
    }
    let score = significant(f64::from(of.score), 4);
    let text = format!("score {score}, {}; {}, row {}", probabilities.join(", "), of.file, of.row);
    line(f, "candidate", text)
}

fn row(f: &mut Formatter<'_>, group: &Group) -> fmt::Result {
    let dash = || "-".to_string();
    let season = group.season.clone().unwrap_or_else(dash);
    let telescope = group.telescope.map_or_else(dash, |t| t.to_string());
    write!(f, "  {:NAME$}{:>10}", format!("{season}, {telescope}"), group.runs)?;
    let tally = &group.tally;
    let off = tally.alpha.map(|alpha| alpha * tally.off.iter().sum::<u64>() as f64);
    let hours = tally.live_s.map_or_else(dash, |s| format!("{:.2}", s / 3600.0));
    write!(f, "{hours:>10}{:>10}", tally.on)?;
    write!(f, "{:>10}", off.map_or_else(dash, |off| format!("{off:.1}")))?;
    writeln!(f, "{:>10}", tally.significance.map_or_else(dash, |s| format!("{s:.2}")))
}

fn tally(f: &mut Formatter<'_>, tally: &EventTally, positions: &[f64]) -> fmt::Result {
    line(f, "events", tally.events)?;
    line(f, "with a score, at the source", tally.scored)?;
    line(f, "inside the model's cuts", tally.inside)?;
    line(f, "of good quality", tally.good)?;
    line(f, "inside the report's cuts", tally.selected)?;
    if let Some(live) = tally.live_s {
        let rate = tally.rate_hz.map_or(String::new(), |r| {
            format!(", {} Hz ({} events in it)", significant(r, 4), tally.live_events)
        });
        line(f, "live time", format!("{:.3} h{rate}", live / 3600.0))?;
    }
    if tally.without_time > 0 {
        line(f, "events of runs without times", tally.without_time)?;
    }
    line(f, "N_on", tally.on)?;
    let Some(excess) = tally.excess else {
        return line(f, "OFF positions", "none: scored at the source alone");
    };
    let off: Vec<String> =
        tally.off.iter().zip(positions).map(|(n, angle)| format!("{n} ({angle:.0}°)")).collect();
    line(f, "N per OFF position", off.join(", "))?;
    if let Some(of) = tally.homogeneity {
        let text =
            format!("χ² = {:.2} of {}, p = {}", of.chi2, of.degrees, significant(of.p_value, 2));
        line(f, "  homogeneity", text)?;
    }
    if tally.on + tally.off.iter().sum::<u64>() == 0 {
        line(f, "excess", "none: no event counts at any position")?;
    } else {
        line(f, "excess", excess)?;
    }
    if let Some(corrected) = tally.corrected.filter(|of| of.error > 0.0) {
        line(f, "  with the leak given back", corrected)?;
    }
    if let Some(significance) = tally.significance {
        let hourly = tally.per_root_hour.map_or(String::new(), |s| format!(", {s:.2} σ/√h"));
        line(f, "significance (Li & Ma)", format!("{significance:.2} σ{hourly}"))?;
    }
    if let Some(limit) = tally.upper_limit {
        line(f, "  excess below, at 95 %", significant(limit, 3))?;
    }
    if let Some(naive) = &tally.naive {
        let off: u64 = naive.off.iter().sum();
        let text = format!(
            "N_on {}, N_off {off}, {:.2} σ; {} events pass at several positions, {} of them at the source",
            naive.on, naive.significance, naive.overlapping, naive.overlapping_on
        );
        line(f, "counted wherever they pass", text)?;
    }
    Ok(())
}

fn line(f: &mut Formatter<'_>, name: &str, value: impl Display) -> fmt::Result {
    writeln!(f, "  {name:NAME$}{value}")
}
