//! Files that earlier runs have written to the same output folder.
//!
//! A folder can be filled night by night. Its manifest always lists all files in it, whatever run
//! has written them, provided that all have the same settings.

use super::ledger::{self, Entries, ListedFile};
use crate::dataset::assignment::Assignment;
use crate::dataset::failures::FailedFile;
use crate::error::{Fault, Result, path_text};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Names of files shown in messages.
const SHOWN: usize = 3;

/// Files of earlier runs, apart from those of this one.
#[derive(Debug, Clone)]
pub struct EarlierFiles<F> {
    pub files: Vec<F>,
    /// Input path → why it failed.
    pub failed: BTreeMap<String, FailedFile>,
    /// Outputs that were changed or removed since they were written, and failed inputs of the
    /// folders of this run that no longer exist: path → reason and advice.
    pub lost: BTreeMap<String, FailedFile>,
    /// Outputs of scorings that leave out runs which the model was trained on.
    pub left_out: Vec<String>,
}

impl<F> Default for EarlierFiles<F> {
    fn default() -> EarlierFiles<F> {
        EarlierFiles {
            files: Vec::new(),
            failed: BTreeMap::new(),
            lost: BTreeMap::new(),
            left_out: Vec::new(),
        }
    }
}

impl<F: ListedFile> EarlierFiles<F> {
    /// Returns the entries of a manifest that are not of the files of this run, `listed`.
    pub fn new(
        files: Vec<F>,
        failed: BTreeMap<String, FailedFile>,
        listed: &Assignment,
    ) -> EarlierFiles<F> {
        let own: BTreeSet<&str> = listed.jobs.iter().map(|job| job.name.as_str()).collect();
        let inputs: BTreeSet<String> =
            listed.jobs.iter().map(|job| path_text(&job.input)).collect();
        let (mut files, mut failed) = (files, failed);
        files.retain(|file| !own.contains(file.output()));
        failed.retain(|input, file| !inputs.contains(input) && !own.contains(file.output.as_str()));
        EarlierFiles { files, failed, ..EarlierFiles::default() }
    }

    /// Finds outputs that were changed or removed, and failed inputs that no longer exist. They stay
    /// in the manifest unless `forget` is set, so that a loss is not overlooked.
    pub fn find_lost(&mut self, given: &[PathBuf], forget: bool, is_present: impl Fn(&F) -> bool) {
        let name = |file: &F| file.output().to_string();
        let gone: Vec<String> = self.files.iter().filter(|f| !is_present(f)).map(name).collect();
        let is_gone = |input: &&String| std::fs::symlink_metadata(input).is_err();
        let inputs: Vec<String> = self.failed.keys().filter(is_gone).cloned().collect();
        if forget {
            self.files.retain(|file| !gone.iter().any(|name| name == file.output()));
            self.failed.retain(|input, _| !inputs.contains(input));
            if !(gone.is_empty() && inputs.is_empty()) {
                let all: Vec<String> = gone.into_iter().chain(inputs).collect();
                log::warn!("{} file(s) leave the manifest: {}", all.len(), shown(&all));
            }
        } else {
            for output in gone {
                let reason = "the output is no longer as it was written: run the command on its \
                              input again, or forget it with --forget-missing";
                self.lost.insert(output.clone(), lost(&output, reason));
            }
            let is_given = |input: &&String| {
                given.iter().any(|given| Path::new(input.as_str()).starts_with(given))
            };
            for input in inputs.iter().filter(is_given) {
                let reason = "the input failed before and no longer exists: put it back, or \
                              forget it with --forget-missing";
                self.lost.insert(input.clone(), lost(&self.failed[input].output, reason));
            }
        }
        if !self.files.is_empty() {
            let names: Vec<String> = self.files.iter().map(name).collect();
            log::info!(
                "{} file(s) of earlier runs, not among these inputs, stay in the manifest: {}",
                names.len(),
                shown(&names)
            );
        }
    }

    /// Returns the faults of a folder with these files: files that were lost, also during this run,
    /// and inputs of equal content.
    pub fn unresolved(&self, folder: &Path, all: &[F]) -> Result<BTreeMap<String, FailedFile>> {
        let entries = ledger::read(folder)?.entries;
        let is_lost = |file: &&F| has_recorded_length(folder, *file, &entries) == Some(false);
        let gone = all.iter().filter(is_lost).map(|file| {
            let reason = "the output is no longer as it was written: run the same command again";
            (file.output().to_string(), lost(file.output(), reason))
        });
        let duplicates = ledger::duplicates(all).into_iter();
        let advice = "remove one of the two inputs with its output, and run the command again \
                      with --forget-missing";
        let duplicates = duplicates.map(|(output, found)| {
            let reason = format!("{found}; {advice}");
            (output.clone(), lost(&output, &reason))
        });
        Ok(gone.chain(self.lost.clone()).chain(duplicates).collect())
    }

    /// Adds the files of earlier runs to those of this one, in the order of their names.
    pub fn add_to(&self, files: &mut Vec<F>, failed: &mut BTreeMap<String, FailedFile>) {
        files.extend(self.files.iter().cloned());
        files.sort_by(|a, b| a.output().cmp(b.output()));
        files.dedup_by(|a, b| a.output() == b.output());
        for (input, reason) in &self.failed {
            failed.entry(input.clone()).or_insert_with(|| reason.clone());
        }
    }
}

/// Refuses to add to outputs that were `made` ("scored") with other settings; `again` is the advice
/// to replace them.
///
/// # Errors
/// `Usage` if one of the files is there.
pub fn refuse_other_settings<F: ListedFile>(
    output: &Path,
    files: &[F],
    made: &str,
    again: &str,
) -> Result<()> {
    let Some(other) = files.iter().find(|file| output.join(file.output()).exists()) else {
        return Ok(());
    };
    Err(Fault::new(format!("the output folder holds files {made} with other settings"))
        .file(output)
        .found(other.output())
        .advice(format!("choose another output, or give --overwrite to {again}"))
        .usage())
}

/// Returns whether an output has the length that its ledger states; `None` if no ledger has it.
pub fn has_recorded_length<F: ListedFile>(
    folder: &Path,
    file: &F,
    entries: &Entries<F>,
) -> Option<bool> {
    let entry = entries.get(file.output())?.iter().rfind(|entry| entry.file == *file)?;
    let metadata = std::fs::symlink_metadata(folder.join(file.output())).ok();
    Some(metadata.is_some_and(|data| data.is_file() && data.len() == entry.bytes))
}

fn lost(output: &str, reason: &str) -> FailedFile {
    let (output, reason) = (output.to_string(), reason.to_string());
    FailedFile { output, reason, exit_code: 3, extraction: None }
}

fn shown(names: &[String]) -> String {
    let more = if names.len() > SHOWN { ", …" } else { "" };
    format!("{}{more}", names[..names.len().min(SHOWN)].join(", "))
}
