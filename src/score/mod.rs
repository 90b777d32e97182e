//! Scoring of archives: files in, files out, every row and key as it came.
//!
//! One output file per input file, at the same path below the output folder; it appears
//! when it is whole. Files are dealt to ranks longest first; a bad one is told and never
//! stops the others.

mod assign;
mod output;

use crate::config::{EngineChoice, Score};
use crate::data::catalog;
use crate::data::durable;
use crate::data::schema::Schema;
use crate::data::table::{Block, Request, Table};
use crate::engine::{self, Scored, Scorer};
use crate::error::{Error, Fault, Result};
use crate::model::Model;
use crate::world::{World, agree, common, is_root};
use assign::Assignment;
use output::Output;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

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
    pub engine: EngineChoice,
    pub threads: usize,
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
pub fn run(world: &dyn World, options: &Options) -> Result<Summary> {
    let (model, hash) = agree(world, Model::load(&options.model))?;
    let assignment = agree(world, Assignment::new(options))?;
    let threads = engine::threads(world, options.threads)?;
    engine::use_threads(threads);
    let scorer = agree(world, Scorer::new(model, options.engine, threads))?;
    let prepared = if is_root(world) { prepare_outputs(&assignment, options) } else { Ok(()) };
    agree(world, prepared)?;
    if is_root(world) {
        log::info!(
            "scoring {} file(s) on {} rank(s); {}",
            assignment.jobs.len(),
            world.size(),
            scorer.describe()
        );
    }
    let mut report = Report::default();
    for job in assignment.of_rank(world.rank(), world.size()) {
        match score_file(&scorer, &hash, &job.input, &job.output, options) {
            Ok(file) => report.files.push(ScoredFile { output: job.name.clone(), ..file }),
            Err(error @ Error::Environment(_)) => return Err(error),
            Err(error) => report.failures.push(Failure {
                file: job.input.display().to_string(),
                exit_code: error.exit_code(),
                text: told_without(&error, &job.input),
            }),
        }
    }
    finish(world, options, hash, &report)
}

/// Scores one file block by block.
fn score_file(
    scorer: &Scorer,
    model_hash: &str,
    input: &Path,
    output: &Path,
    options: &Options,
) -> Result<ScoredFile> {
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
    let input_blake3 = catalog::hash_text(&catalog::hash_file(input)?);
    let mut file =
        Output::create(output, &keys, table.has_class(), &options.columns, options.overwrite)?;
    let (mut block, mut scored) = (Block::default(), Scored::default());
    let mut first = 0;
    while first < table.rows() {
        let next = (first + BLOCK_ROWS).min(table.rows());
        reader.read(first..next, &mut block)?;
        scorer.score(&block, &mut scored)?;
        file.append(&block, &scored)?;
        first = next;
    }
    let status = file.status();
    let rows = file.finish(table.rows(), &input_blake3, model_hash)?;
    let output_blake3 = catalog::hash_text(&catalog::hash_file(output)?);
    Ok(ScoredFile { output: String::new(), rows, input_blake3, output_blake3, status })
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

fn prepare_outputs(assignment: &Assignment, options: &Options) -> Result<()> {
    durable::refuse_existing(&options.output.join(MANIFEST), options.overwrite)?;
    for job in &assignment.jobs {
        durable::refuse_existing(&job.output, options.overwrite)?;
        if let Some(parent) = job.output.parent() {
            durable::create_folder(parent)?;
        }
    }
    Ok(())
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
