//! Compares two scorings of the same inputs: rank correlation, events that only one selects, and
//! counts on the same runs.
//!
//! The rank correlation (Spearman 1904) is of all events that both scored at the source. Scores are
//! compared to 11 of their 23 bits of mantissa; equal ones share the mean of their ranks. Doubled
//! ranks are integers, so that sums over files and ranks are exact in any order. If events have a
//! class, the same bins give the areas under both ROC curves and the error of their difference.

mod pairs;
mod ranks;
mod rows;
mod text;
mod types;

pub(crate) use text::IDENTICAL;
pub(crate) use types::{Migration, SeasonComparison, Side};

use super::count::{Counted, count, refuse_failed};
use super::folder::Folder;
use super::models::Models;
use super::plan::{SeasonPlan, refuse_selections};
use super::settings::{ComparedSettings, FolderSettings};
use super::summary::{Season, SeasonParts};
use crate::comm::{Communicator, is_root, mark_shared, sync_result};
use crate::config::SeasonSettings;
use crate::data::files::output_kind::OutputKind;
use crate::error::{Fault, Result};
use crate::statistics::Paired;
use crate::storage;
use pairs::FilePairs;
use rows::has_events;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

pub(crate) const COMPARISON: &str = "comparison.json";
const FORMAT: &str = "taiga-flow-comparison 1";
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// Two folders of score files.
    pub scores: [PathBuf; 2],
    pub settings: SeasonSettings,
    /// Folder for `comparison.json`.
    pub output: Option<PathBuf>,
    /// Most files of either that may be missing because they could not be scored.
    pub allow_failed: usize,
    pub overwrite: bool,
}

/// Compares two scorings; every rank gets the comparison.
pub(crate) fn run(comm: &dyn Communicator, options: &Options) -> Result<SeasonComparison> {
    let path = options.output.as_ref().map(|folder| folder.join(COMPARISON));
    if let Some(path) = &path {
        let kind = OutputKind::Json(FORMAT);
        sync_result(comm, kind.refuse_existing(path, options.overwrite))?;
    }
    let settings = &options.settings;
    let folders = sync_result(comm, open(&options.scores))?;
    for folder in &folders {
        mark_shared(refuse_failed(folder, &Counted::default(), options.allow_failed))?;
    }
    let plans = sync_result(comm, plans(&folders, settings))?;
    let mut stated = Vec::new();
    for (folder, plan) in folders.iter().zip(&plans) {
        let of_folder = FolderSettings::read(comm, folder)?;
        mark_shared(of_folder.refuse_mixed(folder, &ComparedSettings::new(plan, settings)))?;
        stated.push(of_folder);
    }
    let counts = [
        count(comm, &folders[0], &plans[0], settings)?,
        count(comm, &folders[1], &plans[1], settings)?,
    ];
    mark_shared(refuse_unreadable(&counts))?;
    for (plan, counted) in plans.iter().zip(&counts) {
        let selections = counted.runs.values().flat_map(|run| &run.selections);
        mark_shared(refuse_selections(&plan.label, selections))?;
    }
    let (sides, runs) = mark_shared(sides(&folders, &plans, counts, settings))?;
    let pairs = FilePairs { comm, folders: &folders, plans: &plans };
    let (found, bins) = pairs.go_through()?;
    let events: i64 = bins.all[0].iter().sum();
    let (products, sums) = pairs.second_pass(&bins)?;
    let rank_correlation = bins.correlation(events, products);
    let labelled = has_events(&found.labelled).then(|| Paired::of(sums, &found.labelled));
    let [first, second] = sides;
    let comparison = SeasonComparison {
        format: FORMAT.to_string(),
        first,
        second,
        runs,
        events: found.events,
        scored: events as u64,
        rank_correlation,
        labelled,
        at_source: found.at_source,
        off_source: found.off_source,
        counted: found.counted,
        settings: stated[0].differences(&stated[1]),
        identical: are_identical(&folders),
        changed: found.changed,
    };
    let written = match path.filter(|_| is_root(comm)) {
        Some(path) => write(&path, &comparison),
        None => Ok(()),
    };
    sync_result(comm, written)?;
    Ok(comparison)
}

/// Opens two folders, which must be scorings of the same inputs.
fn open([a, b]: &[PathBuf; 2]) -> Result<[Folder; 2]> {
    let folder = |path: &PathBuf| Folder::open(std::slice::from_ref(path));
    let folders = [folder(a)?, folder(b)?];
    check_inputs(&folders)?;
    Ok(folders)
}

/// Returns the plans of two folders, which must be scored at the same positions.
fn plans([a, b]: &[Folder; 2], settings: &SeasonSettings) -> Result<[SeasonPlan; 2]> {
    let plan = |folder: &Folder| SeasonPlan::new(&folder.head()?, settings, false);
    let plans = [plan(a)?, plan(b)?];
    if plans[0].positions == plans[1].positions {
        return Ok(plans);
    }
    Err(Fault::new("the two were scored at other positions")
        .expected(format!("{:?} deg", plans[0].positions))
        .found(format!("{:?} deg", plans[1].positions))
        .advice("score both with the same configuration")
        .input())
}

fn write(path: &Path, comparison: &SeasonComparison) -> Result<()> {
    let json = serde_json::to_vec_pretty(comparison)
        .map_err(|e| Fault::new("cannot write the comparison").found(e).internal())?;
    storage::write_file(path, &json)
}

/// Refuses score files that cannot be used, since their events would be missing from one side.
fn refuse_unreadable(counts: &[Counted; 2]) -> Result<()> {
    let mut failed = counts.iter().flat_map(|counted| &counted.failed);
    let Some((file, why)) = failed.next() else { return Ok(()) };
    Err(Fault::new("a score file cannot be compared")
        .file(file)
        .found(format!("{why}, and {} more", failed.count()))
        .advice("run `taiga-flow verify` on both folders, and score these inputs again")
        .input())
}

/// Refuses scorings of different inputs.
fn check_inputs(folders: &[Folder; 2]) -> Result<()> {
    let [a, b] = folders;
    let refuse = |what: &str, expected: String, found: String| {
        Err(Fault::new(what.to_string())
            .file(&b.label)
            .expected(expected)
            .found(found)
            .advice("compare scorings of the same inputs")
            .input())
    };
    let names = |folder: &Folder| -> BTreeSet<String> {
        folder.files.iter().map(|file| file.name.clone()).collect()
    };
    let (of_a, of_b) = (names(a), names(b));
    if let Some(name) = of_a.symmetric_difference(&of_b).next() {
        let only = if of_a.contains(name) { "the first" } else { "the second" };
        return refuse(
            "the two are scorings of different inputs",
            format!("the files of {}", a.label),
            format!("{name} in {only} alone"),
        );
    }
    for (x, y) in a.files.iter().zip(&b.files) {
        if x.input_blake3 != y.input_blake3 || x.rows != y.rows {
            return refuse(
                "the two are scorings of different inputs",
                format!("{} of {} rows, input {}", x.name, x.rows, x.input_blake3),
                format!("{} rows, input {}", y.rows, y.input_blake3),
            );
        }
    }
    Ok(())
}

/// Returns whether all score files of two scorings have the same content.
fn are_identical([a, b]: &[Folder; 2]) -> bool {
    let mut pairs = a.files.iter().zip(&b.files);
    pairs.all(|(x, y)| !x.output_blake3.is_empty() && x.output_blake3 == y.output_blake3)
}

/// Returns the results of both on the runs that both can count.
fn sides(
    folders: &[Folder; 2],
    plans: &[SeasonPlan; 2],
    mut counts: [Counted; 2],
    settings: &SeasonSettings,
) -> Result<([Side; 2], Vec<String>)> {
    let models = Models::new(settings)?;
    let season = |which: usize, counted: &Counted| {
        Season::new(SeasonParts {
            folder: &folders[which],
            plan: &plans[which],
            settings,
            models: &models,
            counted,
            simulation: None,
            reference: None,
        })
    };
    let used = |season: &Season| -> BTreeSet<(Option<i64>, String)> {
        season.runs.iter().map(|run| (run.telescope, run.run.clone())).collect()
    };
    let (first, second) = (season(0, &counts[0])?, season(1, &counts[1])?);
    let both = &used(&first) & &used(&second);
    // In the order of the report: by their beginnings.
    let in_both = first.runs.iter().filter(|run| both.contains(&(run.telescope, run.run.clone())));
    let names = in_both.map(|run| run.run.clone()).collect();
    for counted in &mut counts {
        counted.runs.retain(|key, _| both.contains(&(key.telescope, key.label())));
    }
    let side = |which: usize| -> Result<Side> {
        let season = season(which, &counts[which])?;
        Ok(Side {
            scores: season.scores,
            models: season.models,
            point: season.point,
            threshold: season.threshold,
            failed: season.failed,
            tally: season.total.tally,
        })
    };
    Ok(([side(0)?, side(1)?], names))
}
