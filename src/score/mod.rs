//! Scoring of archives: files in, files out, every row and key as it came.
//!
//! One output file per input file, at the same path below the output folder; it appears
//! when it is whole. Files are dealt to ranks longest first; a bad one is told and never
//! stops the others. The same command goes on where an interrupted one ended: outputs that
//! are finished are kept.

mod output;
mod resume;

use crate::config::{Hardware, Score};
use crate::data::assign::Assignment;
use crate::data::catalog;
use crate::data::durable;
use crate::data::schema::Schema;
use crate::data::table::{Block, Request, Table};
use crate::engine::{self, Place, Scored, Scorer};
use crate::error::{Error, Fault, Result};
use crate::model::Model;
use crate::world::{StopFlag, StopReason, Work, World, agree, common, is_root, preflight, watch};
use output::{MadeOf, Output};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Rows read, scored and written at a time: bounds the memory.
const BLOCK_ROWS: u64 = 65_536;
pub const MANIFEST: &str = "manifest.json";

#[derive(Debug, Clone)]
pub struct Options {
    pub model: PathBuf,
    pub output: PathBuf,
    pub inputs: Vec<PathBuf>,
    /// Outputs are placed relative to this folder; to the folders given if absent.
    pub root: Option<PathBuf>,
    pub schema: Option<String>,
    pub columns: Score,
    pub overwrite: bool,
    pub hardware: Hardware,
    /// Within this time a rank that dies, hangs or is stopped ends the job.
    pub watchdog: Option<Duration>,
}

/// One scored file, as it stands in the manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScoredFile {
    /// Relative to the output folder.
    pub output: String,
    pub rows: u64,
    pub input_blake3: String,
    pub output_blake3: String,
    /// Rows by status bit; a row can have several.
    pub status: BTreeMap<String, u64>,
}

/// What a scoring came to; also the manifest of the output folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    pub format: String,
    pub model_blake3: String,
    pub files: Vec<ScoredFile>,
    pub rows: u64,
    /// Input path → what was wrong with it.
    pub failed: BTreeMap<String, String>,
}

/// Scores all inputs. Failed files are in the summary; if all failed, the first one's
/// error is returned.
pub fn run(world: &dyn World, options: &Options, stop: &StopFlag) -> Result<Summary> {
    let (model, hash) = agree(world, Model::load(&options.model))?;
    let assignment =
        agree(world, Assignment::new(&options.inputs, &options.output, options.root.as_deref()))?;
    check_ranks(world, &hash, &assignment)?;
    let place = Place::new(world, options.hardware)?;
    engine::use_threads(place.threads);
    let scorer = agree(world, Scorer::new(model, &place))?;
    let prepare = || resume::prepare(&assignment, options, &hash);
    agree(world, if is_root(world) { prepare() } else { Ok(()) })?;
    let folder = is_root(world).then_some(options.output.as_path());
    preflight::shared_folder(world, folder)?;
    let world: &dyn World = &watch(world, folder, options.watchdog)?;
    if is_root(world) {
        log::info!(
            "scoring {} file(s) on {} rank(s); {}",
            assignment.jobs.len(),
            world.size(),
            scorer.describe()
        );
    }
    let mut report = Report::default();
    let task = Task { world, scorer: &scorer, model_hash: &hash, options, stop };
    for job in assignment.of_rank(world.rank(), world.size()) {
        match task.score_file(&job.input, &job.output) {
            Ok(file) => report.files.push(ScoredFile { output: job.name.clone(), ..file }),
            Err(error @ (Error::Environment(_) | Error::Stopped(_) | Error::Interrupted)) => {
                return Err(error);
            }
            Err(error) => report.failures.push(Failure {
                file: job.input.display().to_string(),
                exit_code: error.exit_code(),
                text: told_without(&error, &job.input),
            }),
        }
    }
    finish(world, options, hash, &report)
}

/// Refuses ranks that see another model or another archive.
fn check_ranks(world: &dyn World, model: &str, assignment: &Assignment) -> Result<()> {
    let shared = "name it by a path on a file system that all nodes of the job share";
    preflight::same_on_all(world, "the model", model, shared)?;
    let files = blake3::hash(format!("{:?}", assignment.jobs).as_bytes()).to_hex().to_string();
    preflight::same_on_all(world, "the list of inputs and their sizes", &files, shared)?;
    preflight::compare_clocks(world)
}

/// What is the same for all files of a rank.
struct Task<'a> {
    world: &'a dyn World,
    scorer: &'a Scorer,
    model_hash: &'a str,
    options: &'a Options,
    stop: &'a StopFlag,
}

impl Task<'_> {
    /// Scores one file block by block, unless its output is finished.
    fn score_file(&self, input: &Path, output: &Path) -> Result<ScoredFile> {
        let Task { scorer, options, .. } = self;
        let schema = Schema::for_file(input, options.schema.as_deref())?;
        let table = Table::open(input, &schema)?;
        scorer.check_units(&table)?;
        let keys: Vec<String> = table.key_names().into_iter().map(str::to_string).collect();
        let reader = table.reader(&Request {
            quantities: scorer.selection.quantities().to_vec(),
            keys: keys.clone(),
            shower: false,
            class: table.has_class(),
        })?;
        let started = Instant::now();
        let hashed = || self.world.progress(Work::Hashing, 0);
        let input_blake3 = catalog::hash_text(&catalog::hash_file_telling(input, hashed)?);
        let hashing = started.elapsed();
        let settings_blake3 = resume::settings_hash(self.model_hash, &schema, options);
        if !options.overwrite
            && let Some(file) = resume::finished(output, &settings_blake3, &input_blake3)?
        {
            log::info!("{} is finished already", output.display());
            return Ok(file);
        }
        let calibrated = scorer.card.calibration.is_some();
        let columns = output::columns(&options.columns, &scorer.flow_names(), calibrated)?;
        let mut file =
            Output::create(output, &keys, table.has_class(), &columns, options.overwrite)?;
        let (mut block, mut scored) = (Block::default(), Scored::default());
        let mut first = 0;
        while first < table.rows() {
            self.refuse_to_go_on()?;
            self.world.progress(Work::Scoring, first);
            let next = (first + BLOCK_ROWS).min(table.rows());
            reader.read(first..next, &mut block)?;
            scorer.score(&block, &mut scored)?;
            file.append(&block, &scored)?;
            first = next;
        }
        let status = file.status();
        let made_of =
            MadeOf { input: &input_blake3, model: self.model_hash, settings: &settings_blake3 };
        let rows = file.finish(table.rows(), &made_of)?;
        log::debug!(
            "{}: {rows} rows in {:.3} s, {:.3} s of it for the hash of the input",
            input.display(),
            started.elapsed().as_secs_f64(),
            hashing.as_secs_f64()
        );
        let output_blake3 = catalog::hash_text(&catalog::hash_file(output)?);
        Ok(ScoredFile { output: String::new(), rows, input_blake3, output_blake3, status })
    }

    /// A request to stop ends this rank, and with it the others; finished outputs stay.
    fn refuse_to_go_on(&self) -> Result<()> {
        match self.stop.requested() {
            None => Ok(()),
            Some(StopReason::Interrupt) => Err(Error::Interrupted),
            Some(reason) => Err(Error::Stopped(Box::new(
                Fault::new(format!("stopped by {reason}"))
                    .advice("run the same command again to go on: finished outputs are kept"),
            ))),
        }
    }
}

/// The error's text, without the file's name in front.
fn told_without(error: &Error, file: &Path) -> String {
    let text = error.to_string();
    text.strip_prefix(&format!("{}: ", file.display())).map_or(text.clone(), str::to_string)
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Report {
    files: Vec<ScoredFile>,
    failures: Vec<Failure>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Failure {
    file: String,
    exit_code: u8,
    text: String,
}

/// Puts the ranks' reports together and writes the manifest.
fn finish(
    world: &dyn World,
    options: &Options,
    model_blake3: String,
    mine: &Report,
) -> Result<Summary> {
    let broken = |e: serde_json::Error| Fault::new("cannot exchange reports").found(e).internal();
    let mut files = Vec::new();
    let mut failures = Vec::new();
    for bytes in world.all_gather(&serde_json::to_vec(mine).map_err(broken)?)? {
        let report: Report = serde_json::from_slice(&bytes).map_err(broken)?;
        files.extend(report.files);
        failures.extend(report.failures);
    }
    files.sort_by(|a, b| a.output.cmp(&b.output));
    failures.sort_by(|a, b| a.file.cmp(&b.file));
    if let (true, Some(first)) = (files.is_empty(), failures.first()) {
        let fault = Fault::new(first.text.clone()).file(&first.file);
        return common(Err(Error::from_code(first.exit_code, fault)));
    }
    let summary = Summary {
        format: "taiga-flow-scores 1".to_string(),
        model_blake3,
        rows: files.iter().map(|f| f.rows).sum(),
        files,
        failed: failures.into_iter().map(|f| (f.file, f.text)).collect(),
    };
    let written = if is_root(world) { write_manifest(&options.output, &summary) } else { Ok(()) };
    agree(world, written)?;
    Ok(summary)
}

fn write_manifest(folder: &Path, summary: &Summary) -> Result<()> {
    let json = serde_json::to_vec_pretty(summary)
        .map_err(|e| Fault::new("cannot write the manifest").found(e).internal())?;
    durable::write_file(&folder.join(MANIFEST), &json)
}

impl std::fmt::Display for Summary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "scored {} rows in {} file(s)", self.rows, self.files.len())?;
        let mut status: BTreeMap<&str, u64> = BTreeMap::new();
        for (reason, rows) in self.files.iter().flat_map(|file| &file.status) {
            *status.entry(reason).or_default() += rows;
        }
        for (reason, rows) in status.iter().filter(|(_, rows)| **rows > 0) {
            writeln!(f, "  {rows} rows {reason}")?;
        }
        for (file, fault) in &self.failed {
            writeln!(f, "failed: {file}: {fault}")?;
        }
        Ok(())
    }
}
