//! Scores archives: one output file per input file, with the rows and keys of the input.
//!
//! An output has the path of its input below the output folder, and appears there when it is
//! complete. Files are distributed longest first, and later to free ranks (`scheduler`); long files
//! are split into pieces. A bad file is reported and does not stop the others. Running the same
//! command again keeps finished outputs (`resume`).

mod earlier;
mod end;
mod energy;
mod extracted;
mod input;
mod listing;
mod manifest;
mod output;
mod pieces;
mod pipeline;
mod resume;
mod scheduler;
mod scoring_plan;
mod shards;
mod start;
mod survey;
mod suspects;
pub mod verify;

pub use manifest::{ScoredFile, Summary};

use crate::comm::{
    Communicator, StopFlag, any_rank, is_root, preflight, sync_result, watch_reading,
};
use crate::config::{Hardware, Score};
use crate::dataset::failures::Failure;
use crate::dataset::output::ledger::{self, Ledger};
use crate::dataset::output::started::{Start, Started};
use crate::engine::{self, RankResources, Scorer};
use crate::error::Result;
use crate::model::Model;
use crate::storage::{self, FolderIdentity};
use end::ScoringEnd;
use extracted::Extracted;
use listing::InputListing;
use pipeline::PipelineContext;
use scheduler::WorkQueue;
use scoring_plan::ScoringPlan;
use start::ScoringStart;
use std::cell::OnceCell;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::time::Duration;
use survey::{ScoringSurveyor, SurveyedFile};

pub(crate) const MANIFEST: &str = "manifest.json";
/// Rows read, scored and written at a time, which limits the memory.
pub(crate) const BLOCK_ROWS: u64 = 65_536;
/// Files of more rows may be split between ranks.
pub(crate) const SPLIT_ROWS: u64 = 1 << 20;

/// Format of the score files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(crate) enum Format {
    #[default]
    Hdf5,
    Csv,
}

#[derive(Debug, Clone)]
#[allow(clippy::struct_excessive_bools)] // independent flags of the command line
pub(crate) struct Options {
    pub model: PathBuf,
    pub output: PathBuf,
    pub inputs: Vec<PathBuf>,
    /// Outputs are placed relative to this folder; if absent, relative to the given folders.
    pub root: Option<PathBuf>,
    pub schema: Option<String>,
    pub score: Score,
    pub format: Format,
    /// Index of the part of the files, from 0, and number of parts.
    pub shard: (usize, usize),
    /// Whether files with runs that the model was trained on are left out, not refused.
    pub own_runs: bool,
    /// Whether files with events unlike those of the training fail.
    pub strict: bool,
    pub block_rows: u64,
    pub split_rows: u64,
    /// Whether missing outputs and missing failed inputs of earlier runs are removed from the
    /// manifest.
    pub forget_missing: bool,
    pub overwrite: bool,
    pub hardware: Hardware,
    /// Time after which a dead, hanging or stopped rank ends the job.
    pub watchdog: Option<Duration>,
    /// Time limit of a child process that reads a suspect, plus a second per megabyte.
    pub probe_timeout: Duration,
}

/// Scores all inputs. The summary lists failed files.
///
/// # Errors
/// The error of the first file if all files fail, and those of refused settings and outputs.
pub(crate) fn run(comm: &dyn Communicator, options: &Options, stop: &StopFlag) -> Result<Summary> {
    let root = is_root(comm);
    let made = root.then(|| storage::outermost_missing(&options.output)).flatten();
    let outcome = score_all(comm, options, stop);
    // A refused command leaves no folder behind.
    if root && outcome.is_err() {
        let ledger = options.output.join(ledger::FOLDER);
        storage::remove_if_empty(&ledger, &ledger);
    }
    if let (Err(_), Some(outermost)) = (&outcome, &made) {
        storage::remove_if_empty(&options.output, outermost);
    }
    outcome
}

fn score_all(comm: &dyn Communicator, options: &Options, stop: &StopFlag) -> Result<Summary> {
    let refuse = || ledger::refuse_other_command::<ScoredFile>(&options.output, manifest::FORMAT);
    sync_result(comm, if is_root(comm) { refuse() } else { Ok(()) })?;
    let (model, hash) = load_model(comm, &options.model)?;
    let inputs = InputListing::new(comm, options, &model.card, stop)?;
    let (listed, suspects) = (&inputs.listed, &inputs.suspects);
    let assignment = listed.part(options.shard);
    let place = RankResources::new(comm, options.hardware)?;
    engine::use_threads(place.threads);
    let prepared = Scorer::new(model, &place).and_then(|s| ScoringPlan::new(&options.score, s));
    let (plan, scorer) = sync_result(comm, prepared)?;
    let settings = resume::shared_settings(options, &plan);
    let start = begin(comm, options, &hash, &settings)?;
    let options = &Options { overwrite: start.overwrites(), ..options.clone() };
    let extracted = &Extracted::read(comm, listed, options)?;
    let opening =
        ScoringStart { comm, options, listed, assignment: &assignment, start: &start, suspects };
    let (earlier, listing) = opening.prepare((&hash, &settings), &plan, extracted)?;
    let is_read_only = is_read_only(comm, options)?;
    let folder = &sync_result(comm, FolderIdentity::of(&options.output))?;
    let output = is_root(comm).then_some(options.output.as_path());
    let (watched, reading) = (output.filter(|_| !is_read_only), suspects::reading_of(options));
    let comm: &dyn Communicator = &watch_reading(comm, watched, options.watchdog, reading)?;
    let mut ledger = Ledger::new(&options.output, shards::part_of(comm, options));
    let mut note = suspects.note(comm, options);
    let surveyor = ScoringSurveyor {
        options,
        schema: inputs.schema.as_ref(),
        plan: &plan,
        model_blake3: &hash,
        is_read_only,
        resumes_overwriting: start.resumes_overwriting,
        suspects,
        extracted,
        manifest: OnceCell::new(),
    };
    let found = survey::survey(comm, &assignment, &surveyor, &mut ledger, &mut note)?;
    if is_read_only && found.iter().any(|found| matches!(found, SurveyedFile::Rows(_))) {
        preflight::shared_folder(comm, output)?; // returns the reason why nothing can be written
    }
    let left_out = inputs.left_out.clone();
    let empty = Summary { left_out, ..Summary::empty(&hash, &plan, &settings) };
    opening.begin(&plan, &found, (&earlier, folder), empty.clone())?;
    if is_root(comm) {
        let (files, ranks) = (assignment.jobs.len(), comm.size());
        log::info!("scoring {files} file(s) on {ranks} rank(s); {}", scorer.describe());
    }
    let (tasks, merges) =
        survey::tasks(&assignment, &found, &plan, options.split_rows, comm.size());
    let context = PipelineContext {
        assignment: &assignment,
        options,
        folder,
        schema: inputs.schema.as_ref(),
        plan: &plan,
        model_blake3: &hash,
        extracted,
        pieces: &survey::pieces(&assignment, &tasks),
        progress: AtomicU64::new(0),
    };
    let mut queue = WorkQueue::new(comm, tasks, merges);
    let mut report = pipeline::run(comm, &context, &scorer, &mut queue, (ledger, note), stop)?;
    if is_root(comm) {
        end::add_surveyed(&mut report, found);
        report.failures.extend(assignment.unusable.iter().cloned());
    }
    let empty = Summary { failed: extracted.absent().clone(), ..empty };
    let (earlier, listing) = (&earlier, listing.as_str());
    let ending = ScoringEnd { options, folder, assignment: &assignment, earlier, listing };
    ending.finish(comm, empty, &report)
}

/// Compares this start with an earlier one of the same output folder.
fn begin(comm: &dyn Communicator, options: &Options, model: &str, settings: &str) -> Result<Start> {
    let started = Started {
        overwrites: options.overwrite,
        model_blake3: Some(model.to_string()),
        settings_blake3: settings.to_string(),
    };
    Start::new(comm, &options.output, options.shard, started)
}

/// Loads the model, which must be the same on all ranks, and compares the clocks of the hosts.
fn load_model(comm: &dyn Communicator, path: &Path) -> Result<(Model, String)> {
    let (model, hash) = sync_result(comm, Model::load(path))?;
    let shared = "name it by a path on a file system that all nodes of the job share";
    preflight::same_on_all(comm, "the model", &hash, shared)?;
    preflight::compare_clocks(comm)?;
    Ok((model, hash))
}

/// Returns whether the output folder is read-only; otherwise checks that all ranks share it.
fn is_read_only(comm: &dyn Communicator, options: &Options) -> Result<bool> {
    let is_read_only = any_rank(comm, is_root(comm) && storage::is_read_only(&options.output))?;
    if !is_read_only {
        preflight::shared_folder(comm, is_root(comm).then_some(options.output.as_path()))?;
    }
    Ok(is_read_only)
}

impl Options {
    fn extension(&self) -> &'static str {
        match self.format {
            Format::Hdf5 => "h5",
            Format::Csv => "csv",
        }
    }
}

type ScoringReport = crate::dataset::rank_report::RankReport<ScoredFile>;
