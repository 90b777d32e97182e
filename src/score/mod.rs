//! Scoring of archives: files in, files out, every row and key as it came.
//!
//! One output file per input file, at the same path below the output folder; it appears
//! when it is whole. Files go to ranks longest first, and to whoever is free (`scheduler`); a long
//! one in pieces. A bad one is told and never stops the others. The same command goes on
//! where an earlier one ended: what is finished is kept (`resume`).

mod earlier;
mod energy;
mod extracted;
mod input;
mod output;
mod pieces;
mod pipeline;
mod resume;
mod scheduler;
mod scoring_plan;
mod shards;
mod survey;
mod suspects;
pub mod verify;

use crate::comm::{
    Communicator, StopFlag, Work, any_rank, is_root, preflight, sync_result, value_of_root,
    watch_reading,
};
use crate::config::{Hardware, Score};
use crate::data::schema::Schema;
use crate::data::table::InputFile;
use crate::dataset::assignment::Assignment;
use crate::dataset::failures::{FailedFile, Failure};
use crate::dataset::output::given::Given;
use crate::dataset::output::ledger::{self, FailedEntry, Ledger, ListedFile};
use crate::dataset::output::started::{self, Start, Started};
use crate::engine::{self, RankResources, Scorer};
use crate::error::{Fault, Result};
use crate::model::{Card, Model};
use crate::storage;
use earlier::EarlierScores;
use extracted::Extracted;
use pipeline::PipelineContext;
use scheduler::WorkQueue;
use scoring_plan::ScoringPlan;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;
use survey::{ScoringSurveyor, SurveyedFile};
use suspects::Suspects;

pub const MANIFEST: &str = "manifest.json";
/// Rows read, scored and written at a time: bounds the memory.
pub const BLOCK_ROWS: u64 = 65_536;
/// Files of more rows are shared by several ranks.
pub const SPLIT_ROWS: u64 = 1 << 20;

/// What score files are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Format {
    #[default]
    Hdf5,
    Csv,
}

#[derive(Debug, Clone)]
#[allow(clippy::struct_excessive_bools)] // independent flags of the command line
pub struct Options {
    pub model: PathBuf,
    pub output: PathBuf,
    pub inputs: Vec<PathBuf>,
    /// Outputs are placed relative to this folder; to the folders given if absent.
    pub root: Option<PathBuf>,
    pub schema: Option<String>,
    pub score: Score,
    pub format: Format,
    /// Part of the files, from 0, and of how many.
    pub shard: (usize, usize),
    /// Whether files with runs that the model was trained on are left out, not refused.
    pub own_runs: bool,
    /// Whether files with events unlike those of the training fail.
    pub strict: bool,
    pub block_rows: u64,
    pub split_rows: u64,
    /// Whether outputs and failed inputs of earlier runs that are gone leave the manifest.
    pub forget_missing: bool,
    pub overwrite: bool,
    pub hardware: Hardware,
    /// Within this time a rank that dies, hangs or is stopped ends the job.
    pub watchdog: Option<Duration>,
    /// Time for a child process to read a suspect, besides a second per megabyte.
    pub probe_timeout: Duration,
}

/// One scored file, as it stands in the manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScoredFile {
    /// Relative to the output folder.
    pub output: String,
    pub rows: u64,
    pub input_blake3: String,
    pub output_blake3: String,
    /// Rows without a score at any position.
    #[serde(default)]
    pub unusable: u64,
    /// Rows with a score that are outside the cuts at all positions.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub outside: u64,
    /// Rows with a time outside of 2000 to 2100, such as seconds instead of nanoseconds.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub implausible_times: u64,
    /// Rows by status bit, or, with source positions, pairs of event and position; one can
    /// have several bits.
    pub status: BTreeMap<String, u64>,
}

/// A smaller share of the rows inside the cuts is warned of.
const LEAST_INSIDE: f64 = 0.01;

/// What the values by status of a scoring with source positions count.
const PAIRS: &str = "(event, position) pairs";

#[allow(clippy::trivially_copy_pass_by_ref)] // the signature serde asks for
fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// What a scoring came to; also the manifest of the output folder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    pub format: String,
    pub model_blake3: String,
    /// Hash of the section `[score]`, the format and the energy table; absent in manifests of
    /// older programs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settings_blake3: Option<String>,
    /// Angles of the source positions [deg].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub positions: Option<Vec<f64>>,
    /// What the values by status count, where that is not rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status_counts: Option<String>,
    pub files: Vec<ScoredFile>,
    pub rows: u64,
    /// Input path → what was wrong with it.
    pub failed: BTreeMap<String, FailedFile>,
    /// Outputs that are missing because the model was trained on runs of their inputs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<String>,
    /// Whether the run that wrote it has ended; written only if not.
    #[serde(default = "complete", skip_serializing_if = "Clone::clone")]
    pub complete: bool,
    /// Of a part: hash of the list of files of all parts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listing: Option<String>,
}

fn complete() -> bool {
    true
}

/// Scores all inputs. Failed files are in the summary; if all failed, the first one's
/// error is returned.
pub fn run(comm: &dyn Communicator, options: &Options, stop: &StopFlag) -> Result<Summary> {
    let root = is_root(comm);
    let made = root.then(|| storage::outermost_missing(&options.output)).flatten();
    let outcome = scored(comm, options, stop);
    // What is refused leaves nothing behind.
    if root && outcome.is_err() {
        let ledger = options.output.join(ledger::FOLDER);
        storage::remove_if_empty(&ledger, &ledger);
    }
    if let (Err(_), Some(outermost)) = (&outcome, &made) {
        storage::remove_if_empty(&options.output, outermost);
    }
    outcome
}

fn scored(comm: &dyn Communicator, options: &Options, stop: &StopFlag) -> Result<Summary> {
    let (model, hash) = sync_result(comm, Model::load(&options.model))?;
    let shared = "name it by a path on a file system that all nodes of the job share";
    preflight::same_on_all(comm, "the model", &hash, shared)?;
    preflight::compare_clocks(comm)?;
    let schema = sync_result(comm, Schema::of_option(options.schema.as_deref()))?;
    let (inputs, root) = (&options.inputs, options.root.as_deref());
    let mut listed =
        Assignment::new(comm, inputs, &options.output, root)?.with_extension(options.extension());
    let suspects = Suspects::check(comm, &listed, options, stop)?;
    let file_schema = schema.as_ref();
    let left_out =
        keep_own_runs(comm, &mut listed, &model.card, options, (file_schema, &suspects))?;
    let assignment = listed.part(options.shard);
    let place = RankResources::new(comm, options.hardware)?;
    engine::use_threads(place.threads);
    let prepared = Scorer::new(model, &place).and_then(|s| ScoringPlan::new(&options.score, s));
    let (plan, scorer) = sync_result(comm, prepared)?;
    let settings = resume::shared_settings(options, &plan);
    let started = Started {
        overwrites: options.overwrite,
        model_blake3: Some(hash.clone()),
        settings_blake3: settings.clone(),
    };
    let start = Start::new(comm, &options.output, options.shard, started)?;
    let options = &Options { overwrite: start.overwrites(), ..options.clone() };
    let extracted = Extracted::read(comm, &listed, options)?;
    let opening = ScoringStart {
        comm,
        options,
        listed: &listed,
        assignment: &assignment,
        start: &start,
        suspects: &suspects,
    };
    let whose = (hash.as_str(), settings.as_str());
    let prepare = || opening.prepare(whose, &extracted);
    let prepared = if is_root(comm) { prepare() } else { Ok(Default::default()) };
    let (earlier, listing): (EarlierScores, String) = sync_result(comm, prepared)?;
    let is_read_only = any_rank(comm, is_root(comm) && storage::is_read_only(&options.output))?;
    let output = is_root(comm).then_some(options.output.as_path());
    let folder = output.filter(|_| !is_read_only);
    if !is_read_only {
        preflight::shared_folder(comm, folder)?;
    }
    let reading = suspects::reading_of(options);
    let comm: &dyn Communicator = &watch_reading(comm, folder, options.watchdog, reading)?;
    let mut ledger = Ledger::new(&options.output, shards::part_of(comm, options));
    let known = sync_result(comm, ledger::read(&options.output))?.entries;
    let see = ScoringSurveyor {
        options,
        schema: file_schema,
        plan: &plan,
        model_blake3: &hash,
        is_read_only,
        resumes_overwriting: start.resumes_overwriting,
        suspects: &suspects,
        extracted: &extracted,
    };
    let mut note = suspects.note(comm, options);
    let found = survey::survey(comm, &assignment, &known, &see, &mut ledger, &mut note)?;
    if is_read_only && found.iter().any(|found| matches!(found, SurveyedFile::Rows(_))) {
        preflight::shared_folder(comm, output)?; // says why nothing can be written
    }
    let empty = Summary { left_out, ..summary(&hash, &plan, &settings) };
    let begin = || {
        survey::check_room(&assignment, &found, &plan, options)?;
        opening.begin(&found, &earlier, empty.clone())
    };
    sync_result(comm, if is_root(comm) { begin() } else { Ok(()) })?;
    if is_root(comm) {
        log::info!(
            "scoring {} file(s) on {} rank(s); {}",
            assignment.jobs.len(),
            comm.size(),
            scorer.describe()
        );
    }
    let ranks = comm.size();
    let (tasks, merges) = survey::tasks(&assignment, &found, &plan, options.split_rows, ranks);
    let shared = PipelineContext {
        assignment: &assignment,
        options,
        schema: file_schema,
        plan: &plan,
        model_blake3: &hash,
        extracted: &extracted,
        pieces: &survey::pieces(&assignment, &tasks),
        signs: AtomicU64::new(0),
    };
    let mut pool = WorkQueue::new(comm, tasks, merges);
    let mut report = pipeline::run(comm, &shared, &scorer, &mut pool, (ledger, note), stop)?;
    if is_root(comm) {
        take_up(&mut report, found);
        report.failures.extend(assignment.unusable.iter().cloned());
    }
    let empty = Summary { failed: extracted.absent().clone(), ..empty };
    let ending =
        ScoringEnd { options, assignment: &assignment, earlier: &earlier, listing: &listing };
    ending.finish(comm, empty, &report)
}

/// What is done before the first file is scored.
struct ScoringStart<'a> {
    comm: &'a dyn Communicator,
    options: &'a Options,
    /// All files, also those of other parts.
    listed: &'a Assignment,
    assignment: &'a Assignment,
    start: &'a Start,
    suspects: &'a Suspects,
}

impl ScoringStart<'_> {
    /// Refuses what stands in the way of the outputs of this model and these settings; returns
    /// the files of earlier runs, and the hash of the list of files.
    fn prepare(
        &self,
        (model, settings): (&str, &str),
        extracted: &Extracted,
    ) -> Result<(EarlierScores, String)> {
        let ScoringStart { comm, options, listed, assignment, start, .. } = *self;
        // Of several parts, another may be writing.
        if options.shard.1 == 1 && !storage::is_read_only(&options.output) {
            ledger::remove_damaged_lines::<ScoredFile>(&options.output)?;
        }
        let entries = ledger::read(&options.output)?.entries;
        resume::prepare(assignment, options, model, &entries)?;
        let earlier = earlier::read(options, listed, model, settings, (&entries, extracted))?;
        if start.clears_ledgers(!earlier.files.is_empty()) {
            shards::refuse_other_parts(options, comm.size())?;
        }
        Ok((earlier, shards::listing_hash(listed)))
    }

    /// Marks the outputs as unfinished if any are left to write.
    fn begin(&self, found: &[SurveyedFile], earlier: &EarlierScores, empty: Summary) -> Result<()> {
        let ScoringStart { comm, options, assignment, start, suspects, .. } = *self;
        let left = assignment.jobs.iter().zip(found);
        let left =
            left.filter(|(_, found)| matches!(found, SurveyedFile::Rows(_))).map(|(job, _)| job);
        let left: Vec<_> = left.collect();
        resume::remove_leftovers(options)?;
        if left.is_empty() {
            return Ok(());
        }
        start.note(&options.output, options.shard)?;
        earlier::begin(earlier, options, empty)?;
        let clears_ledgers = start.clears_ledgers(!earlier.files.is_empty());
        shards::begin(options, comm.size(), clears_ledgers)?;
        // Ledgers that were removed had them.
        suspects.record(comm, options)?;
        for job in &left {
            pieces::remove_stale(&pieces::folder_of(&options.output, &job.name), &job.input)?;
        }
        resume::begin(&left)
    }
}

/// A summary without files.
fn summary(model: &str, plan: &ScoringPlan, settings: &str) -> Summary {
    Summary {
        format: "taiga-flow-scores 1".to_string(),
        model_blake3: model.to_string(),
        settings_blake3: Some(settings.to_string()),
        positions: plan.positions.as_ref().map(|at| at.angles.clone()),
        status_counts: plan.positions.as_ref().map(|_| PAIRS.to_string()),
        files: Vec::new(),
        rows: 0,
        failed: BTreeMap::new(),
        left_out: Vec::new(),
        complete: true,
        listing: None,
    }
}

/// Leaves out the files with runs that the model was trained on, on all ranks alike; returns the
/// names of their outputs. A file
/// that cannot be looked at stays: it is told later.
fn keep_own_runs(
    comm: &dyn Communicator,
    listed: &mut Assignment,
    card: &Card,
    options: &Options,
    (schema, suspects): (Option<&Arc<Schema>>, &Suspects),
) -> Result<Vec<String>> {
    if !options.own_runs {
        return Ok(Vec::new());
    }
    let mut note = suspects.note(comm, options);
    let used = |input: &Path| -> Result<bool> {
        let mut file = InputFile::open(input, schema)?;
        Ok(engine::used_run(card, &mut file, |row| comm.progress(Work::Hashing, row))?.is_some())
    };
    let mine = listed.jobs.iter().enumerate().map(|(i, job)| {
        if i % comm.size() != comm.rank() || suspects.failure(&job.name).is_some() {
            return 0;
        }
        note.begin(job);
        let is_used = used(&job.input).unwrap_or(false);
        note.end();
        i64::from(is_used)
    });
    let mut left_out: Vec<i64> = mine.collect();
    comm.all_reduce_sum(&mut left_out)?;
    let count: i64 = left_out.iter().sum();
    if is_root(comm) && count > 0 {
        log::info!("{count} file(s) with runs that the model was trained on are left out");
    }
    let all = std::mem::take(&mut listed.jobs).into_iter().zip(left_out);
    let (left_out, jobs): (Vec<_>, Vec<_>) = all.partition(|(_, is_used)| *is_used > 0);
    listed.jobs = jobs.into_iter().map(|(job, _)| job).collect();
    Ok(left_out.into_iter().map(|(job, _)| job.name).collect())
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

/// Takes up what was found before the work.
fn take_up(report: &mut ScoringReport, found: Vec<SurveyedFile>) {
    for found in found {
        match found {
            SurveyedFile::Finished(file) => report.files.push(file),
            SurveyedFile::Failed(failure) => report.failures.push(failure),
            SurveyedFile::Rows(_) => {}
        }
    }
}

/// What the end of a scoring needs besides the ranks' reports.
struct ScoringEnd<'a> {
    options: &'a Options,
    assignment: &'a Assignment,
    earlier: &'a EarlierScores,
    listing: &'a str,
}

impl ScoringEnd<'_> {
    /// Puts the ranks' reports together and writes the manifest. If nothing at all was scored,
    /// returns the first failure as an error.
    fn finish(
        &self,
        comm: &dyn Communicator,
        empty: Summary,
        mine: &ScoringReport,
    ) -> Result<Summary> {
        let ScoringEnd { options, earlier, listing, .. } = self;
        let all = mine.gather(comm, |file| &file.output)?;
        // Other parts and earlier runs need a manifest all the same.
        let has_others = options.shard.1 > 1 || !earlier.files.is_empty();
        if !any_rank(comm, has_others)?
            && let Err(error) = all.refuse_all_failed()
        {
            let remove = || started::remove(&options.output, options.shard);
            sync_result(comm, if is_root(comm) { remove() } else { Ok(()) })?;
            return Err(error);
        }
        let summary = Summary {
            rows: all.files.iter().map(|f| f.rows).sum(),
            files: all.files.clone(),
            failed: all.failed(self.assignment).into_iter().chain(empty.failed).collect(),
            ..empty
        };
        let conclude = || {
            if storage::is_read_only(&options.output) {
                let written = shards::write_manifest(options, &summary, earlier, listing)?;
                return earlier.unresolved(&options.output, &written.files);
            }
            storage::remove_folder(&options.output.join(pieces::FOLDER))?;
            // A start that died while it wrote the manifest left its part.
            storage::remove_dead_parts(&options.output, options.shard.1 == 1)?;
            Given::new(&options.inputs, options.root.as_deref(), options.extension())
                .record(&options.output)?;
            self.record_failures(comm, &summary.failed)?;
            let written = shards::write_manifest(options, &summary, earlier, listing)?;
            started::remove(&options.output, options.shard)?;
            earlier.unresolved(&options.output, &written.files)
        };
        let unresolved = value_of_root(comm, conclude)?;
        if is_root(comm) {
            let files = summary.files.iter();
            files.flat_map(ScoredFile::warnings).for_each(|text| log::warn!("{text}"));
        }
        let failed = unresolved.into_iter().chain(summary.failed).collect();
        Ok(Summary { failed, ..summary })
    }

    /// Adds to the ledger the failures that it does not know.
    fn record_failures(
        &self,
        comm: &dyn Communicator,
        failed: &BTreeMap<String, FailedFile>,
    ) -> Result<()> {
        if failed.is_empty() {
            return Ok(());
        }
        let known = ledger::read::<ScoredFile>(&self.options.output)?.failed;
        let part = shards::part_of(comm, self.options);
        let mut ledger = Ledger::new(&self.options.output, part);
        for (input, FailedFile { output, reason, exit_code, .. }) in
            failed.iter().filter(|(_, failed)| failed.extraction.is_none())
        {
            let failure =
                Failure { file: input.clone(), exit_code: *exit_code, text: reason.clone() };
            let entry = FailedEntry::new(output, &failure, false);
            let quarantined = FailedEntry { quarantined: true, ..entry.clone() };
            if !known.get(output).is_some_and(|last| *last == entry || *last == quarantined) {
                ledger.add_failed(&entry)?;
            }
        }
        Ok(())
    }
}

impl ListedFile for ScoredFile {
    fn output(&self) -> &str {
        &self.output
    }

    fn rows(&self) -> u64 {
        self.rows
    }

    fn input_blake3(&self) -> &str {
        &self.input_blake3
    }

    fn output_blake3(&self) -> &str {
        &self.output_blake3
    }
}

impl ScoredFile {
    /// What must be known of the file besides its scores, which do not depend on it.
    fn warnings(&self) -> impl Iterator<Item = String> {
        let times = (self.implausible_times > 0).then(|| {
            format!(
                "{}: {} of {} rows have a time (unix_time_ns) outside of 2000 to 2100; seconds instead of ns? `season` leaves such runs out of live time, rates and σ/√h",
                self.output, self.implausible_times, self.rows
            )
        });
        let inside = self.rows - self.unusable.min(self.rows) - self.outside.min(self.rows);
        let none = ((inside as f64) < LEAST_INSIDE * self.rows as f64).then(|| {
            let few = match inside {
                0 => "no row is".to_string(),
                few => format!("only {few} of {} rows are", self.rows),
            };
            format!(
                "{}: {few} inside the model's cuts ({} of {} rows have no score); are units and schema right?",
                self.output, self.unusable, self.rows
            )
        });
        times.into_iter().chain(none)
    }
}

impl Summary {
    /// Whether both have the same model, settings and positions.
    fn is_like(&self, other: &Summary) -> bool {
        self.model_blake3 == other.model_blake3
            && self.settings_blake3 == other.settings_blake3
            && self.positions == other.positions
    }

    /// The manifest at a path; `None` if there is none.
    pub fn read(path: &Path) -> Result<Option<Summary>> {
        let Some(summary) = ledger::read_manifest::<Summary>(path)? else { return Ok(None) };
        ledger::refuse_impossible(path, &summary.files, "rows", |f| f.rows.max(f.unusable))?;
        Ok(Some(summary))
    }

    fn to_bytes(&self) -> Result<Vec<u8>> {
        serde_json::to_vec_pretty(self)
            .map_err(|e| Fault::new("cannot write the manifest").found(e).internal())
    }
}

impl std::fmt::Display for Summary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "scored {} rows in {} file(s)", self.rows, self.files.len())?;
        let mut status: BTreeMap<&str, u64> = BTreeMap::new();
        for (reason, rows) in self.files.iter().flat_map(|file| &file.status) {
            *status.entry(reason).or_default() += rows;
        }
        let positions = self.positions.as_ref().map(Vec::len);
        for (reason, count) in status.iter().filter(|(_, count)| **count > 0) {
            match positions {
                None => writeln!(f, "  {count} rows {reason}")?,
                Some(positions) => {
                    let all = self.rows * positions as u64;
                    writeln!(f, "  {count} of {all} {PAIRS} {reason}")?;
                }
            }
        }
        let unusable: u64 = self.files.iter().map(|file| file.unusable).sum();
        if positions.is_some() && unusable > 0 {
            writeln!(f, "  {unusable} rows without a score at any position")?;
        }
        for (file, fault) in &self.failed {
            writeln!(f, "failed: {file}: {fault}")?;
        }
        Ok(())
    }
}
