//! Resumes a scoring: keeps finished outputs of the same model, input content and settings.
//!
//! This applies to interrupted scorings, and to finished ones whose archive has grown. An output
//! gets its name only when it is complete and on disk, so it is not read again; its entry of the
//! manifest is in the ledger. A text table has no attributes: its ledger entry alone identifies it.
//! Any other file with the name of an output is refused.

use super::output::{FORMAT, VERSION_WITH_POSITIONS};
use super::scoring_plan::ScoringPlan;
use super::{Format, MANIFEST, Options, ScoredFile, Summary};
use crate::data::files::finished::FinishedFile;
use crate::data::files::output_kind::OutputKind;
use crate::data::files::stamp;
use crate::data::schema::{Schema, built_in};
use crate::dataset::assignment::{Assignment, Job, refuse_links};
use crate::dataset::output::ledger::{self, Entries, LedgerEntry};
use crate::error::{Error, Fault, Result};
use crate::storage;
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

/// Longest first line of a text table [bytes].
const LONGEST_HEADER: u64 = 65_536;

/// Returns the hash of everything that determines an output except its input.
pub(crate) fn settings_hash(
    model: &str,
    schema: &Schema,
    options: &Options,
    plan: &ScoringPlan,
) -> String {
    let version = env!("CARGO_PKG_VERSION");
    let (score, format) = (&options.score, options.format);
    // Outputs of different file formats differ.
    let version = match &plan.positions {
        Some(_) => format!("{version}, format {VERSION_WITH_POSITIONS}"),
        None => version.to_string(),
    };
    let energy = plan.energy_blake3();
    let text = format!("{version}\n{model}\n{score:?}\n{format:?}\n{energy}\n{schema:?}");
    blake3::hash(text.as_bytes()).to_hex().to_string()
}

/// Returns the hashes of [`settings_hash`] of all schemas that these options can choose.
pub fn known_settings(
    model: &str,
    options: &Options,
    plan: &ScoringPlan,
) -> Result<BTreeSet<String>> {
    let given = Schema::of_option(options.schema.as_deref())?;
    let all = built_in()?.iter().chain(given.as_deref());
    Ok(all.map(|schema| settings_hash(model, schema, options, plan)).collect())
}

/// Returns the hash of the settings that all outputs of a folder share: those of [`settings_hash`]
/// without the schema, which may differ between files.
pub(crate) fn shared_settings(options: &Options, plan: &ScoringPlan) -> String {
    let version = env!("CARGO_PKG_VERSION");
    let text =
        format!("{version}\n{:?}\n{:?}\n{}", options.score, options.format, plan.energy_blake3());
    blake3::hash(text.as_bytes()).to_hex().to_string()
}

/// Refuses files that the outputs must not replace, and creates the output folder. `entries` are
/// those of the ledgers.
///
/// # Errors
/// `Usage`.
pub(crate) fn prepare(
    assignment: &Assignment,
    options: &Options,
    model: &str,
    entries: &Entries<ScoredFile>,
) -> Result<()> {
    let manifest = options.output.join(MANIFEST);
    match Summary::read(&manifest) {
        Ok(Some(summary)) if summary.model_blake3 != model && !options.overwrite => {
            return Err(Fault::new("the output folder has scores of a different model")
                .file(&options.output)
                .expected(model)
                .found(summary.model_blake3)
                .advice("choose another output, or give --overwrite to score everything again")
                .usage());
        }
        Err(error) if !options.overwrite => return Err(error),
        Ok(_) | Err(_) => {}
    }
    let inputs = assignment.protected(Some(options.model.as_path()));
    for job in &assignment.jobs {
        inputs.refuse(&job.output)?;
        refuse_links(&options.output, &job.output)?;
        let known = entries.get(&job.name).and_then(|e| e.last());
        if !is_of_model(job, model, options, known) {
            storage::refuse_existing(&job.output, options.overwrite)?;
            output_kind(options.format).refuse_other(&job.output, known.is_some())?;
        }
    }
    storage::create_folder(&options.output)
}

/// Returns what an output of this format is recognised by.
fn output_kind(format: Format) -> OutputKind {
    match format {
        Format::Hdf5 => OutputKind::Scores,
        Format::Csv => OutputKind::Other("a table of scores", begins_as_scores),
    }
}

/// Creates the folders of the outputs.
pub(crate) fn begin(jobs: &[&Job]) -> Result<()> {
    let parents: BTreeSet<&Path> = jobs.iter().filter_map(|job| job.output.parent()).collect();
    parents.into_iter().try_for_each(storage::create_folder)
}

/// Removes temporary files of killed jobs from the output folder.
pub(crate) fn remove_leftovers(options: &Options) -> Result<()> {
    let is_locked = options.shard.1 == 1;
    storage::remove_dead_parts_below(&options.output, is_locked)
}

/// An output that is kept.
pub(crate) struct KeptOutput {
    pub file: ScoredFile,
    /// Whether a ledger lists it.
    pub in_ledger: bool,
}

/// Returns the output of a job if it is finished: it has the hash that the last ledger line of its
/// settings and input, or else the manifest (`listed`), recorded. An output that neither lists, as
/// a kill leaves it, is scored again.
///
/// # Errors
/// `Usage` if the file is not the output of this input and these settings, or was changed.
pub(crate) fn finished(
    job: &Job,
    format: Format,
    (settings, input_blake3): (&str, &str),
    known: &[LedgerEntry<ScoredFile>],
    listed: Option<&ScoredFile>,
    progress: &dyn Fn(),
) -> Result<Option<KeptOutput>> {
    let path = &job.output;
    let Ok(metadata) = std::fs::symlink_metadata(path) else { return Ok(None) };
    let other = |what: &str| {
        Fault::new(format!("output already exists, {what}"))
            .file(path)
            .advice("give --overwrite to score everything again, or choose another output")
            .usage()
    };
    let hash = || Ok(stamp::hash_text(&stamp::hash_file_with_progress(path, progress)?));
    let entry = known.iter().rfind(|entry| {
        entry.settings_blake3 == settings && entry.file.input_blake3 == input_blake3
    });
    if let Some(entry) = entry {
        if entry.bytes != metadata.len() || hash()? != entry.file.output_blake3 {
            return Err(other("changed since it was written"));
        }
    } else if let (Format::Csv, Some(last)) = (format, known.last()) {
        return Err(differs(&other, last, settings));
    }
    if format == Format::Hdf5 {
        let file = FinishedFile::open(path, FORMAT).ok_or_else(|| other("and is not complete"))?;
        if file.text("settings_blake3").as_deref() != Some(settings) {
            return Err(other("made with other settings"));
        }
        if file.text("input_blake3").as_deref() != Some(input_blake3) {
            return Err(other("made from another content of its input"));
        }
    }
    if let Some(entry) = entry {
        return Ok(Some(KeptOutput { file: entry.file.clone(), in_ledger: true }));
    }
    // A text table does not record its settings.
    let listed = listed.filter(|file| format == Format::Hdf5 && file.input_blake3 == input_blake3);
    match listed {
        Some(file) if hash()? == file.output_blake3 => {
            Ok(Some(KeptOutput { file: file.clone(), in_ledger: false }))
        }
        Some(_) => Err(other("changed since it was written")),
        None => Ok(None),
    }
}

fn differs(
    other: &dyn Fn(&str) -> Error,
    entry: &LedgerEntry<ScoredFile>,
    settings: &str,
) -> Error {
    if entry.settings_blake3 == settings {
        other("made from another content of its input, or changed since")
    } else {
        other("made with other settings")
    }
}

/// Returns whether the file with the name of an output may be an output of this model.
fn is_of_model(
    job: &Job,
    model: &str,
    options: &Options,
    known: Option<&LedgerEntry<ScoredFile>>,
) -> bool {
    let is_file = std::fs::symlink_metadata(&job.output).is_ok_and(|m| m.is_file());
    match (options.format, known) {
        _ if !is_file => false,
        (Format::Csv, Some(entry)) => entry.model_blake3.as_deref() == Some(model),
        (Format::Csv, None) => {
            options.output.join(ledger::FOLDER).is_dir() && begins_as_scores(&job.output)
        }
        (Format::Hdf5, _) => FinishedFile::open(&job.output, FORMAT)
            .is_some_and(|file| file.text("model_blake3").as_deref() == Some(model)),
    }
}

/// Returns whether the first line of a text table names a column of scores.
fn begins_as_scores(path: &Path) -> bool {
    let Ok(file) = std::fs::File::open(path) else { return false };
    let mut line = String::new();
    let read = BufReader::new(file.take(LONGEST_HEADER)).read_line(&mut line);
    let is_score = |name: &str| name.starts_with("score") || name.starts_with("log_prob");
    read.is_ok() && line.trim_end().split(',').any(is_score)
}
