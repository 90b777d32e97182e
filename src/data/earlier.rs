//! Files that earlier runs have written into the same output folder.
//!
//! A folder can be filled night by night. Its manifest always lists all files in it, whatever run
//! has written them, provided that all have the same settings.

use super::assign::Assignment;
use super::ledger::{Entries, ListedFile};
use crate::error::path_text;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Names of files shown in messages.
const SHOWN: usize = 3;

/// Files of earlier runs, apart from those of this one.
#[derive(Debug, Clone)]
pub struct Earlier<F, R = String> {
    pub files: Vec<F>,
    /// Input path → why it failed.
    pub failed: BTreeMap<String, R>,
}

impl<F, R> Default for Earlier<F, R> {
    fn default() -> Earlier<F, R> {
        Earlier { files: Vec::new(), failed: BTreeMap::new() }
    }
}

impl<F: ListedFile, R: Clone> Earlier<F, R> {
    /// Takes from a manifest what is not of the files of this run, `listed`.
    pub fn new(files: Vec<F>, failed: BTreeMap<String, R>, listed: &Assignment) -> Earlier<F, R> {
        let own: BTreeSet<&str> = listed.jobs.iter().map(|job| job.name.as_str()).collect();
        let inputs: BTreeSet<String> =
            listed.jobs.iter().map(|job| path_text(&job.input)).collect();
        let (mut files, mut failed) = (files, failed);
        files.retain(|file| !own.contains(file.output()));
        failed.retain(|input, _| !inputs.contains(input));
        forget_removed(&mut failed);
        Earlier { files, failed }
    }

    /// Keeps the files that are still there, and reports those that are not.
    pub fn retain_present(&mut self, is_present: impl Fn(&F) -> bool) {
        let name = |file: &F| file.output().to_string();
        let gone: Vec<String> = self.files.iter().filter(|f| !is_present(f)).map(name).collect();
        if !gone.is_empty() {
            self.files.retain(|file| !gone.iter().any(|name| name == file.output()));
            log::warn!(
                "{} file(s) of earlier runs are no longer as they were written and leave the \
                 manifest: {}; run the command on their inputs again",
                gone.len(),
                shown(&gone)
            );
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

    /// Adds the files of earlier runs to those of this one, in the order of their names.
    pub fn add_to(&self, files: &mut Vec<F>, failed: &mut BTreeMap<String, R>) {
        files.extend(self.files.iter().cloned());
        files.sort_by(|a, b| a.output().cmp(b.output()));
        files.dedup_by(|a, b| a.output() == b.output());
        for (input, reason) in &self.failed {
            failed.entry(input.clone()).or_insert_with(|| reason.clone());
        }
    }
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

/// Removes failed inputs that no longer exist.
fn forget_removed<R>(failed: &mut BTreeMap<String, R>) {
    let is_gone = |input: &String| std::fs::symlink_metadata(input).is_err();
    let gone: Vec<String> = failed.keys().filter(|input| is_gone(input)).cloned().collect();
    if gone.is_empty() {
        return;
    }
    log::warn!(
        "{} input(s) that failed in earlier runs no longer exist and leave the manifest: {}",
        gone.len(),
        shown(&gone)
    );
    failed.retain(|input, _| !is_gone(input));
}

fn shown(names: &[String]) -> String {
    let more = if names.len() > SHOWN { ", …" } else { "" };
    format!("{}{more}", names[..names.len().min(SHOWN)].join(", "))
}
