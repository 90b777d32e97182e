//! Files that earlier runs have scored into the same output folder.
//!
//! A folder can be filled night by night. The manifest always lists all files in it, whatever
//! run has scored them, provided that they have the same model and settings. While a run works,
//! the manifest is marked as incomplete and lists the files of other runs, so that no kill
//! can lose them.

use super::ledger::Entry;
use super::output::FORMAT;
use super::{MANIFEST, Options, ScoredFile, Summary};
use crate::data::assign::Assignment;
use crate::data::durable;
use crate::data::finished::FinishedFile;
use crate::error::{Fault, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Names of files shown in messages.
const SHOWN: usize = 3;

/// What earlier runs have left, apart from the files of this one.
#[derive(Debug, Clone, Default)]
pub struct Earlier {
    pub files: Vec<ScoredFile>,
    /// Input path → why it could not be scored.
    pub failed: BTreeMap<String, String>,
}

impl Earlier {
    /// Reads the manifest of `options.output`; `listed` are all files of this run, also those
    /// of other shards, and `settings` is the hash of its settings.
    ///
    /// # Errors
    /// `Usage` if other files of the folder were scored by another model or with other settings.
    pub fn read(
        options: &Options,
        listed: &Assignment,
        model: &str,
        settings: &str,
        entries: &BTreeMap<String, Vec<Entry>>,
    ) -> Result<Earlier> {
        let manifest = match Summary::read(&options.output.join(MANIFEST)) {
            Ok(Some(manifest)) => manifest,
            Ok(None) => return Ok(Earlier::default()),
            Err(error) if options.overwrite => {
                log::warn!("{error}; files that earlier runs have scored leave the manifest");
                return Ok(Earlier::default());
            }
            Err(error) => return Err(error),
        };
        let own: BTreeSet<&str> = listed.jobs.iter().map(|job| job.name.as_str()).collect();
        let is_other = |file: &ScoredFile| !own.contains(file.output.as_str());
        let mut others: Vec<ScoredFile> = manifest.files.into_iter().filter(is_other).collect();
        let inputs: BTreeSet<String> =
            listed.jobs.iter().map(|job| job.input.display().to_string()).collect();
        let mut failed = manifest.failed;
        failed.retain(|input, _| !inputs.contains(input));
        forget_removed(&mut failed);
        if let Some(other) = others.first() {
            let same_settings = manifest.settings_blake3.as_deref().is_none_or(|s| s == settings);
            if manifest.model_blake3 != model || !same_settings {
                let what = if same_settings { "by another model" } else { "with other settings" };
                return Err(Fault::new(format!(
                    "the output folder holds other files scored {what}"
                ))
                .file(&options.output)
                .found(format!("{} and {} more", other.output, others.len() - 1))
                .advice("choose another output, or score all inputs at once with --overwrite")
                .usage());
            }
        }
        let is_there = |file: &ScoredFile| stands(&options.output, file, entries, model);
        let gone: Vec<String> =
            others.iter().filter(|f| !is_there(f)).map(|f| f.output.clone()).collect();
        others.retain(is_there);
        if !gone.is_empty() {
            log::warn!(
                "{} file(s) of earlier runs are no longer as they were written and leave the \
                 manifest: {}; score their inputs again",
                gone.len(),
                shown(&gone)
            );
        }
        if !others.is_empty() {
            let names: Vec<String> = others.iter().map(|file| file.output.clone()).collect();
            log::info!(
                "{} file(s) of earlier runs, not among these inputs, stay in the manifest: {}",
                names.len(),
                shown(&names)
            );
        }
        Ok(Earlier { files: others, failed })
    }

    /// Marks the scoring as incomplete: the manifest then lists only the files of other runs, and
    /// is removed if there are none.
    pub fn begin(&self, options: &Options, summary: Summary) -> Result<()> {
        let manifest = options.output.join(MANIFEST);
        if self.files.is_empty() {
            return durable::remove_file(&manifest);
        }
        let started = Summary { complete: false, ..self.merged(summary) };
        durable::write_file(&manifest, &started.to_bytes()?)
    }

    /// Adds the files of other runs to those of this one.
    pub fn merged(&self, mut summary: Summary) -> Summary {
        summary.files.extend(self.files.iter().cloned());
        summary.files.sort_by(|a, b| a.output.cmp(&b.output));
        summary.files.dedup_by(|a, b| a.output == b.output);
        summary.rows = summary.files.iter().map(|file| file.rows).sum();
        for (input, reason) in &self.failed {
            summary.failed.entry(input.clone()).or_insert_with(|| reason.clone());
        }
        summary
    }
}

/// Removes inputs that could not be scored and no longer exist.
fn forget_removed(failed: &mut BTreeMap<String, String>) {
    let is_gone = |input: &String| std::fs::symlink_metadata(input).is_err();
    let gone: Vec<String> = failed.keys().filter(|input| is_gone(input)).cloned().collect();
    if gone.is_empty() {
        return;
    }
    log::warn!(
        "{} input(s) that earlier runs could not score no longer exist and leave the manifest: {}",
        gone.len(),
        shown(&gone)
    );
    failed.retain(|input, _| !is_gone(input));
}

/// Whether an output is as the manifest says: by its length where a ledger knows it, else by
/// what it says of itself.
fn stands(
    folder: &Path,
    file: &ScoredFile,
    entries: &BTreeMap<String, Vec<Entry>>,
    model: &str,
) -> bool {
    let path = folder.join(&file.output);
    let Ok(metadata) = std::fs::symlink_metadata(&path) else { return false };
    let known = entries.get(&file.output).and_then(|e| e.iter().rfind(|e| e.file == *file));
    match known {
        Some(entry) => metadata.is_file() && metadata.len() == entry.bytes,
        None => FinishedFile::open(&path, FORMAT).is_some_and(|open| {
            open.rows() == Some(file.rows) && open.text("model_blake3").as_deref() == Some(model)
        }),
    }
}

fn shown(names: &[String]) -> String {
    let more = if names.len() > SHOWN { ", …" } else { "" };
    format!("{}{more}", names[..names.len().min(SHOWN)].join(", "))
}
