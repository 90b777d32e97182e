//! Computes the report of a season (`season.json`) from its counts.

mod drift;
mod figures;
mod runs;
mod types;
mod warnings;

pub(crate) use types::{
    Cumulative, EnergyBin, EventTally, Group, Night, PortionRow, Refused, RunRow, ScoreHistogram,
    Season,
};

use super::count::{Counted, not_in_figures};
use super::counting::area::Simulation;
use super::counting::candidates::Candidate;
use super::counting::combine;
use super::counting::counts::RunKey;
use super::folder::Folder;
use super::models::Models;
use super::plan::{SeasonPlan, refuse_selections};
use super::showers::{INDEPENDENT, Showers};
use crate::config::SeasonSettings;
use crate::error::{Fault, Result};
use drift::Drifts;
use figures::{Figures, pair, scan, scores};
use runs::{Dated, grouped_by, sum_of};
use std::collections::BTreeSet;

pub(crate) const FORMAT: &str = "taiga-flow-season 1";

/// Counts and settings of a report.
pub(crate) struct SeasonParts<'a> {
    pub folder: &'a Folder,
    pub plan: &'a SeasonPlan,
    pub settings: &'a SeasonSettings,
    pub models: &'a Models,
    pub counted: &'a Counted,
    pub simulation: Option<Simulation>,
    pub reference: Option<&'a Counted>,
}

/// Runs by whether they count.
struct SelectedRuns<'a> {
    used: Vec<Dated<'a>>, // in the order of their times
    refused: Vec<Refused>,
    /// Keys of the refused runs.
    not_counted: BTreeSet<&'a RunKey>,
}

impl Season {
    /// Computes the report.
    ///
    /// # Errors
    /// `Input` if no run can be counted, or if the runs were scored in ways that cannot be combined.
    pub(crate) fn new(parts: SeasonParts) -> Result<Season> {
        let mut warnings = warnings_of_files(&parts);
        let selected = SelectedRuns::new(&parts, &mut warnings)?;
        warnings.extend(selected.check(&parts)?);
        let SeasonParts { folder, plan, settings, counted, simulation, reference, .. } = parts;
        let SelectedRuns { used, refused, not_counted } = selected;
        let figures = Figures {
            plan,
            leak: simulation.as_ref().map(|s| s.leak),
            leaks: simulation.as_ref().map_or(&[], |s| &s.leaks),
        };
        let total = figures.group(None, None, &used.iter().collect::<Vec<_>>());
        if let Some(simulation) = &simulation {
            warnings::warn_of_simulation(simulation, &used, &total, &plan.edges, &mut warnings);
        }
        warnings::warn_of_energies(&total, &mut warnings);
        warnings::warn_of_background(&total.tally, &mut warnings);
        if total.showers == Showers::Independent {
            warnings.push(INDEPENDENT.to_string());
        }
        let groups = grouped_by(&used, |run| (run.season.clone(), run.key.telescope))
            .into_iter()
            .map(|((season, telescope), runs)| figures.group(season, telescope, &runs));
        let drifts = Drifts::new(&used, reference, settings);
        let rows = used.iter().zip(drifts.all(&used));
        let used_models: BTreeSet<&String> = used.iter().flat_map(|r| &r.counts.models).collect();
        let candidates = counted.candidates.iter();
        let candidates = candidates.filter(|c| !not_counted.contains(&key_of(c))).cloned();
        Ok(Season {
            format: FORMAT.to_string(),
            scores: folder.label.clone(),
            models: used_models.into_iter().cloned().collect(),
            point: plan.label.clone(),
            threshold: plan.threshold,
            cuts: settings.cuts.clone(),
            positions: plan.positions.clone(),
            off_positions: plan.off().map(|k| plan.positions[k]).collect(),
            groups: groups.collect(),
            nights: nights(&used, &figures),
            runs: rows.map(|(run, drift)| figures.run(run, drift)).collect(),
            portions: used.iter().flat_map(|run| figures.portions(run)).collect(),
            cumulative: figures.cumulative(&used, total.showers),
            theta2: pair(&used, |c| &c.theta2),
            alpha: pair(&used, |c| &c.alpha),
            score: scores(&used),
            scan: scan(&used, plan, &total),
            drift_reference: drifts.label,
            candidates: candidates.collect(),
            pictures: Vec::new(),
            total,
            simulation,
            refused,
            failed: not_in_figures(folder, counted),
            warnings: warnings::merge_warnings(warnings),
        })
    }
}

/// Returns the warnings that the score files and their events give before they are grouped by run.
fn warnings_of_files(parts: &SeasonParts) -> Vec<String> {
    let SeasonParts { folder, counted, .. } = parts;
    let mut all: Vec<String> = counted.warning.iter().cloned().collect();
    all.extend(counted.labels.warning(folder.files.len()));
    all.extend(folder.few_inside(warnings::LEAST_INSIDE));
    all.extend(folder.implausible());
    all
}

impl<'a> SelectedRuns<'a> {
    /// Sorts the runs by time and selects those that count.
    ///
    /// # Errors
    /// `Input` if no run counts.
    fn new(parts: &SeasonParts<'a>, warnings: &mut Vec<String>) -> Result<SelectedRuns<'a>> {
        let SeasonParts { plan, settings, models, counted, .. } = *parts;
        let (mut used, mut refused, mut not_counted) = (Vec::new(), Vec::new(), BTreeSet::new());
        let mut all: Vec<Dated> =
            counted.runs.iter().map(|(key, counts)| Dated::new(key, counts, settings)).collect();
        all.sort_by_key(Dated::order);
        for run in all {
            run.warn(warnings);
            match run.rejection_reason(plan, models, warnings) {
                None => used.push(run),
                Some(reason) => {
                    not_counted.insert(run.key);
                    refused.push(run.refused(reason));
                }
            }
        }
        warnings.extend(warnings::overlapping(&used));
        warnings.extend(warnings::without_score(&used));
        if let (true, Some(first)) = (used.is_empty(), refused.first()) {
            return Err(Fault::new(format!("no run can be counted; run {}", first.run))
                .found(&first.reason)
                .input());
        }
        Ok(SelectedRuns { used, refused, not_counted })
    }

    /// Refuses runs that cannot be counted together; returns a warning of different models.
    fn check(&self, parts: &SeasonParts) -> Result<Option<String>> {
        let SeasonParts { folder, plan, models, simulation, .. } = parts;
        let scored = self.used.iter().flat_map(|run| {
            let of = (run.key.telescope, run.season.as_deref());
            run.counts.models.iter().map(move |model| (of.0, of.1, model.as_str()))
        });
        let warning = models.refuse_mixed(scored, folder.are_folds)?;
        let selections = self.used.iter().flat_map(|run| &run.counts.selections);
        let of_simulation = simulation.iter().flat_map(|s| &s.selections);
        refuse_selections(&plan.label, selections.chain(of_simulation))?;
        let images = self.used.iter().map(|run| (run.key.telescope, &run.counts.images[..]));
        combine::check_keys(&plan.shower_key, images)?;
        Ok(warning)
    }
}

/// Returns the nights by date, those without a date last.
fn nights(used: &[Dated], figures: &Figures) -> Vec<Night> {
    let groups = grouped_by(used, |run| (run.night.clone(), run.key.telescope)).into_iter();
    let night = |((night, telescope), runs): ((Option<String>, Option<i64>), Vec<&Dated>)| Night {
        night,
        telescope,
        runs: runs.len() as u64,
        tally: figures.tally(&sum_of(&runs)),
    };
    let mut nights: Vec<Night> = groups.map(night).collect();
    nights.sort_by_key(|night| night.night.is_none());
    nights
}

/// Returns the run that a candidate belongs to.
fn key_of(candidate: &Candidate) -> RunKey {
    let Candidate { telescope, run, .. } = *candidate;
    let file = if run.is_none() { candidate.file.clone() } else { String::new() };
    RunKey { telescope, run, file }
}
