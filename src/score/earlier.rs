//! Scores that earlier runs have written to the same output folder.
//!
//! They stay in the manifest if model and settings are the same. During a run the manifest is marked
//! as incomplete and lists the files of other runs, so that a kill cannot lose them.

use super::extracted::Extracted;
use super::output::FORMAT;
use super::scoring_plan::ScoringPlan;
use super::{MANIFEST, Options, ScoredFile, Summary, resume};
use crate::data::files::finished::FinishedFile;
use crate::dataset::assignment::Assignment;
use crate::dataset::output::earlier::{has_recorded_length, refuse_other_settings};
use crate::dataset::output::ledger::{Entries, LedgerEntry};
use crate::error::{Error, Fault, Result};
use crate::storage;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

pub(crate) type EarlierScores = crate::dataset::output::earlier::EarlierFiles<ScoredFile>;

/// Reads the manifest of `options.output`; `listed` are all files of this run, also those of
/// other shards, and `settings` is the hash of its settings. Failures that the manifests of
/// extractions repeat are left to these. Returns `None` if there is no manifest, or an unreadable one
/// that is replaced.
///
/// # Errors
/// `Usage` if other files of the folder were scored by another model or with other settings.
pub(crate) fn read(
    options: &Options,
    listed: &Assignment,
    model: &str,
    settings: &str,
    (entries, extracted): (&Entries<ScoredFile>, &Extracted),
) -> Result<Option<EarlierScores>> {
    let manifest = match Summary::read(&options.output.join(MANIFEST)) {
        Ok(Some(manifest)) => manifest,
        Ok(None) => return Ok(None),
        Err(error) if options.overwrite => {
            log::warn!("{error}; files of earlier runs are taken from the ledger");
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    let left_out = manifest.left_out;
    let same_settings = manifest.settings_blake3.as_deref().is_none_or(|s| s == settings);
    if !same_settings && !options.overwrite {
        let again = "score everything again";
        refuse_other_settings(&options.output, &manifest.files, "scored", again)?;
    }
    let mut earlier =
        EarlierScores { left_out, ..EarlierScores::new(manifest.files, manifest.failed, listed) };
    earlier.failed.retain(|_, file| !extracted.is_outdated(file));
    if let Some(other) = earlier.files.first()
        && (manifest.model_blake3 != model || !same_settings)
    {
        let what = if same_settings { "by a different model" } else { "with other settings" };
        return Err(holds_others(options, what, &other.output, earlier.files.len()));
    }
    earlier.find_lost(&options.inputs, options.forget_missing, |file| {
        is_present(&options.output, file, entries, model)
    });
    Ok(Some(earlier))
}

/// Returns the files of earlier runs from the ledgers, without a manifest: those that are there and
/// are not files of this run.
///
/// # Errors
/// `Usage` if one was scored by another model or with other settings.
pub fn of_ledgers(
    options: &Options,
    listed: &Assignment,
    (model, plan): (&str, &ScoringPlan),
    entries: &Entries<ScoredFile>,
) -> Result<EarlierScores> {
    let existing = entries.iter().filter_map(|(output, entries)| {
        let path = options.output.join(output);
        std::fs::symlink_metadata(&path).ok()?;
        entry_of(&path, entries)
    });
    let found: Vec<&LedgerEntry<ScoredFile>> = existing.collect();
    let files = found.iter().map(|entry| entry.file.clone()).collect();
    let mut earlier = EarlierScores::new(files, BTreeMap::new(), listed);
    if earlier.files.is_empty() {
        return Ok(earlier);
    }
    let known = resume::known_settings(model, options, plan)?;
    let names: BTreeSet<&str> = earlier.files.iter().map(|file| file.output.as_str()).collect();
    for entry in found.iter().filter(|entry| names.contains(entry.file.output.as_str())) {
        let what = match entry.model_blake3.as_deref() {
            Some(other) if other != model => "by a different model",
            _ if !known.contains(&entry.settings_blake3) => "with other settings",
            _ => continue,
        };
        return Err(holds_others(options, what, &entry.file.output, earlier.files.len()));
    }
    earlier.find_lost(&options.inputs, options.forget_missing, |file| {
        is_present(&options.output, file, entries, model)
    });
    Ok(earlier)
}

/// Returns the entry of an output: of a score file the one with its settings and input, otherwise the
/// last one.
fn entry_of<'a>(
    path: &Path,
    entries: &'a [LedgerEntry<ScoredFile>],
) -> Option<&'a LedgerEntry<ScoredFile>> {
    let open = FinishedFile::open(path, FORMAT);
    let text = |name: &str| open.as_ref().and_then(|file| file.text(name));
    let (settings, input) = (text("settings_blake3"), text("input_blake3"));
    let is_same = |entry: &&LedgerEntry<ScoredFile>| {
        settings.as_ref() == Some(&entry.settings_blake3)
            && input.as_ref() == Some(&entry.file.input_blake3)
    };
    entries.iter().rfind(is_same).or(entries.last())
}

/// Returns the error of `count` files of earlier runs that differ in model or settings.
fn holds_others(options: &Options, what: &str, output: &str, count: usize) -> Error {
    Fault::new(format!("the output folder holds other files scored {what}"))
        .file(&options.output)
        .found(format!("{output} and {} more", count - 1))
        .advice("choose another output, or score all inputs at once with --overwrite")
        .usage()
}

/// Marks the scoring as incomplete: the manifest then lists only the files of other runs, or is
/// removed if there are none.
pub(crate) fn begin(earlier: &EarlierScores, options: &Options, summary: Summary) -> Result<()> {
    let manifest = options.output.join(MANIFEST);
    if earlier.files.is_empty() {
        return storage::remove_file(&manifest);
    }
    let started = Summary { complete: false, ..merged(earlier, summary) };
    storage::write_file(&manifest, &started.to_bytes()?)
}

/// Adds the files of other runs to those of this one.
pub(crate) fn merged(earlier: &EarlierScores, mut summary: Summary) -> Summary {
    earlier.add_to(&mut summary.files, &mut summary.failed);
    summary.rows = summary.files.iter().map(|file| file.rows).sum();
    let scored: BTreeSet<&str> = summary.files.iter().map(|file| file.output.as_str()).collect();
    summary.left_out.extend(earlier.left_out.iter().cloned());
    summary.left_out.retain(|name| !scored.contains(name.as_str()));
    summary.left_out.sort();
    summary.left_out.dedup();
    summary
}

/// Returns whether an output agrees with the manifest: by its length if a ledger lists it, otherwise
/// by its attributes.
fn is_present(
    folder: &Path,
    file: &ScoredFile,
    entries: &Entries<ScoredFile>,
    model: &str,
) -> bool {
    has_recorded_length(folder, file, entries).unwrap_or_else(|| {
        FinishedFile::open(&folder.join(&file.output), FORMAT).is_some_and(|open| {
            open.rows() == Some(file.rows) && open.text("model_blake3").as_deref() == Some(model)
        })
    })
}
