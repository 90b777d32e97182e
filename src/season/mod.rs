//! Reports on scored archives: counts on and off the source per run, night and season, with their
//! significance.
//!
//! Score files are read once, distributed over the ranks, and give exact integer counts per run and
//! portion (`counting`). All results follow from these counts: runs, nights, seasons and drift
//! (`summary`), and areas (`counting::area`). `compare` compares two scorings of the same inputs. A
//! file or run that cannot be used is reported and does not stop the others.

pub(crate) mod compare;
mod count;
mod counting;
mod folder;
mod models;
mod names;
mod overlaps;
mod pages;
mod plan;
mod settings;
mod showers;
mod summary;
pub(crate) mod time;

pub(crate) use compare::{COMPARISON, Migration, SeasonComparison, Side};
pub(crate) use counting::area::{AreaBin, BinLeak, Simulation};
pub(crate) use counting::candidates::Candidate;
pub(crate) use counting::counts::{ALPHA_MAX, OnOffHistogram, THETA2_MAX};
pub(crate) use names::number_name;
pub(crate) use pages::pictures::Picture;
pub(crate) use showers::{INDEPENDENT, Showers};
pub(crate) use summary::{
    Cumulative, EnergyBin, EventTally, Group, Night, PortionRow, RunRow, ScoreHistogram, Season,
};

use crate::comm::{Communicator, is_root, mark_shared, sync_result};
use crate::config::SeasonSettings;
use crate::data::files::output_kind::OutputKind;
use crate::error::{Error, Fault, Result};
use crate::storage;
use count::{Counted, count, refuse_failed};
use folder::Folder;
use models::Models;
use plan::SeasonPlan;
use settings::{ComparedSettings, FolderSettings};
use std::path::{Path, PathBuf};

pub(crate) const SEASON: &str = "season.json";
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// Folders of score files.
    pub scores: Vec<PathBuf>,
    pub output: PathBuf,
    pub settings: SeasonSettings,
    /// Simulated gammas, scored at the same positions by the same model.
    pub gamma_mc: Option<PathBuf>,
    /// Scores that log p and quantities are compared with, instead of the other runs.
    pub reference: Option<PathBuf>,
    /// Folder of the images that the inputs were extracted from.
    pub images: Option<PathBuf>,
    /// Most files that may be missing because they could not be scored or read.
    pub allow_failed: usize,
    pub overwrite: bool,
}

/// Computes the report and writes `season.json`. Every rank gets the report; rank 0 alone gets the
/// pictures of candidates.
pub(crate) fn run(comm: &dyn Communicator, options: &Options) -> Result<Season> {
    let path = options.output.join(SEASON);
    sync_result(comm, OutputKind::Json(summary::FORMAT).refuse_existing(&path, options.overwrite))?;
    let settings = &options.settings;
    let models = sync_result(comm, Models::new(settings))?;
    let folder = sync_result(comm, Folder::open(&options.scores))?;
    let total = folder.files.len() + folder.failed.len();
    let refuse =
        |counted: &Counted| mark_shared(refuse_failed(&folder, counted, options.allow_failed));
    refuse(&Counted::default())?;
    let plan =
        sync_result(comm, folder.head().and_then(|head| SeasonPlan::new(&head, settings, false)))?;
    let stated = FolderSettings::read(comm, &folder)?;
    mark_shared(stated.refuse_mixed(&folder, &ComparedSettings::new(&plan, settings)))?;
    let counted = count(comm, &folder, &plan, settings)?;
    refuse(&counted)?;
    let simulation = match &options.gamma_mc {
        Some(path) => Some(simulated(comm, path, (&folder, &stated), &plan, settings)?),
        None => None,
    };
    let reference = match &options.reference {
        Some(path) => Some(reference(comm, path, &folder, settings)?),
        None => None,
    };
    let own_reference = reference.as_ref().and_then(|(_, warning)| warning.clone());
    let made = Season::new(summary::SeasonParts {
        folder: &folder,
        plan: &plan,
        settings,
        models: &models,
        counted: &counted,
        simulation,
        reference: reference.as_ref().map(|(counted, _)| counted),
    });
    let mut season = mark_shared(made)?;
    season.warnings.extend(own_reference);
    if let Some(first) = folder.left_out.first() {
        season.warnings.push(format!(
            "{} file(s) are missing, such as {first}: the models were trained on their runs, or the runs are of other folds (score --own-runs); score them with the model of a different fold and give its folder too",
            folder.left_out.len()
        ));
    }
    if !season.failed.is_empty() {
        season.warnings.push(format!(
            "{} of {total} files are in no figure: they could not be scored or read",
            season.failed.len()
        ));
    }
    if let Some(folder) = options.images.as_deref().filter(|_| is_root(comm)) {
        let (pictures, missing) = pages::pictures::pictures(&season.candidates, folder);
        season.pictures = pictures;
        season.warnings.extend(missing);
    }
    sync_result(comm, if is_root(comm) { write(&path, &season) } else { Ok(()) })?;
    Ok(season)
}

/// Returns the outcome of the command.
///
/// # Errors
/// `Partial` if runs could not be used.
pub(crate) fn outcome(season: &Season) -> Result<()> {
    if season.refused.is_empty() {
        return Ok(());
    }
    let reasons = season.refused.iter().map(|r| format!("{}: {}", r.run, r.reason));
    let fault = Fault::new(format!("{} run(s) could not be counted", season.refused.len()))
        .found(reasons.collect::<Vec<_>>().join("; "))
        .advice("the report is of all others");
    Err(Error::Partial(Box::new(fault)).shared())
}

/// Counts the simulated gammas, which must be scored at the same positions.
fn simulated(
    comm: &dyn Communicator,
    path: &Path,
    (season, of_season): (&Folder, &FolderSettings),
    plan: &SeasonPlan,
    settings: &SeasonSettings,
) -> Result<Simulation> {
    let folder = sync_result(comm, Folder::open(&[path.to_path_buf()]))?;
    if let Some((own, same)) = folder.shared(season).first() {
        return mark_shared(Err(Fault::new("--gamma-mc has events of the season")
            .file(&own.path)
            .expected("scores of simulated gammas")
            .found(format!("the input of {}", same.path.display()))
            .advice("give the folder of the scored simulation: leak and areas would be those of the observation")
            .input()));
    }
    let own =
        sync_result(comm, folder.head().and_then(|head| SeasonPlan::new(&head, settings, true)))?;
    if own.positions != plan.positions || own.label != plan.label {
        return mark_shared(Err(Fault::new(
            "the simulated gammas were scored with other settings",
        )
        .file(path)
        .expected(format!("{} at {:?} deg", plan.label, plan.positions))
        .found(format!("{} at {:?} deg", own.label, own.positions))
        .advice("score them with the configuration of the season")
        .input()));
    }
    let stated = FolderSettings::read(comm, &folder)?;
    mark_shared(stated.refuse_mixed(&folder, &ComparedSettings::new(&own, settings)))?;
    let compared = ComparedSettings::new(plan, settings);
    mark_shared(of_season.refuse_simulation(&stated, &folder, &compared))?;
    let counted = count(comm, &folder, &own, settings)?;
    mark_shared(Simulation::new(path, &counted, &own, settings))
}

/// Counts the reference scores; returns a warning if they have events of the season.
fn reference(
    comm: &dyn Communicator,
    path: &Path,
    season: &Folder,
    settings: &SeasonSettings,
) -> Result<(Counted, Option<String>)> {
    let folder = sync_result(comm, Folder::open(&[path.to_path_buf()]))?;
    let plan =
        sync_result(comm, folder.head().and_then(|head| SeasonPlan::new(&head, settings, false)))?;
    let shared = folder.shared(season);
    let warning = shared.first().map(|(own, _)| {
        format!(
            "{} of {} files of --reference are files of the season, such as {}: runs are compared with themselves, and drift less than they do",
            shared.len(),
            folder.files.len(),
            own.name
        )
    });
    Ok((count(comm, &folder, &plan, settings)?, warning))
}

fn write(path: &Path, season: &Season) -> Result<()> {
    let json = serde_json::to_vec_pretty(season)
        .map_err(|e| Fault::new("cannot write the season").found(e).internal())?;
    storage::write_file(path, &json)
}
