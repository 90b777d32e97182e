//! What became of the files of an archive: each rank's report, put together on all.

use super::assignment::Assignment;
use super::output::ledger::ListedFile;
use crate::comm::{Communicator, gather_values, mark_shared};
use crate::error::{Error, Fault, Result, path_text};
use crate::memory;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// An input that could not be used.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Failure {
    pub file: String,
    pub exit_code: u8,
    pub text: String,
}

impl Failure {
    pub fn new(input: &Path, error: &Error) -> Failure {
        Failure {
            file: path_text(input),
            exit_code: error.exit_code(),
            text: without_file_name(error, input),
        }
    }

    pub fn to_error(&self) -> Error {
        Error::from_code(self.exit_code, Fault::new(self.text.clone()).file(&self.file))
    }
}

/// Returns the error, or one of the environment where a file may have failed for lack of memory.
pub fn or_lack_of_memory(error: Error) -> Error {
    match error {
        Error::Input(fault) if memory::is_near_limit() => {
            let Fault { file, .. } = *fault.clone();
            let lack = Fault::new("out of memory").found(fault).advice(memory::ADVICE);
            Fault { file, ..lack }.environment()
        }
        other => other,
    }
}

/// The error's text, without the file's name in front.
fn without_file_name(error: &Error, file: &Path) -> String {
    let text = error.to_string();
    text.strip_prefix(&format!("{}: ", path_text(file))).map_or(text.clone(), str::to_string)
}

/// A file that could not be used, as a manifest lists it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "StoredFailure")]
pub struct FailedFile {
    /// Name of the output that is missing; empty if unknown.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub output: String,
    pub reason: String,
    /// Exit code that stands for the kind of the reason; 0 if unknown.
    pub exit_code: u8,
    /// Of a file that is missing from an extraction: the folder of the extraction.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub extraction: Option<String>,
}

/// What manifests hold: those of older programs have the reason alone.
#[derive(Deserialize)]
#[serde(untagged)]
enum StoredFailure {
    Reason(String),
    Failed {
        #[serde(default)]
        output: String,
        reason: String,
        #[serde(default)]
        exit_code: u8,
        #[serde(default)]
        extraction: Option<String>,
    },
}

impl From<StoredFailure> for FailedFile {
    fn from(stored: StoredFailure) -> FailedFile {
        match stored {
            StoredFailure::Reason(reason) => {
                FailedFile { output: String::new(), reason, exit_code: 0, extraction: None }
            }
            StoredFailure::Failed { output, reason, exit_code, extraction } => {
                FailedFile { output, reason, exit_code, extraction }
            }
        }
    }
}

impl FailedFile {
    /// A file without the output `output`.
    pub fn new(output: &str, failure: &Failure) -> FailedFile {
        FailedFile {
            output: output.to_string(),
            reason: failure.text.clone(),
            exit_code: failure.exit_code,
            extraction: None,
        }
    }
}

impl std::fmt::Display for FailedFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.reason)
    }
}

/// Finished files, and those that failed.
#[derive(Debug, Serialize, Deserialize)]
pub struct RankReport<F> {
    pub files: Vec<F>,
    pub failures: Vec<Failure>,
}

impl<F> Default for RankReport<F> {
    fn default() -> RankReport<F> {
        RankReport { files: Vec::new(), failures: Vec::new() }
    }
}

impl<F: Serialize + DeserializeOwned> RankReport<F> {
    /// All ranks' reports, files in the order of their outputs.
    pub fn gather(
        &self,
        comm: &dyn Communicator,
        output: impl Fn(&F) -> &str,
    ) -> Result<RankReport<F>> {
        let mut all = RankReport::default();
        for report in gather_values(comm, self)? {
            all.files.extend(report.files);
            all.failures.extend(report.failures);
        }
        all.files.sort_by(|a, b| output(a).cmp(output(b)));
        all.failures.sort_by(|a, b| a.file.cmp(&b.file));
        // Pieces of one file may fail on several ranks.
        all.failures.dedup_by(|a, b| a.file == b.file);
        Ok(all)
    }

    /// Returns the first file's error if all files of all ranks failed.
    pub fn refuse_all_failed(&self) -> Result<()> {
        let (true, Some(first)) = (self.files.is_empty(), self.failures.first()) else {
            return Ok(());
        };
        mark_shared(Err(first.to_error()))
    }

    /// Input path → what was wrong with it; the outputs' names are those of the assignment.
    pub fn failed(&self, assignment: &Assignment) -> BTreeMap<String, FailedFile> {
        let jobs = assignment.jobs.iter();
        let outputs: BTreeMap<String, &str> =
            jobs.map(|job| (path_text(&job.input), job.name.as_str())).collect();
        let failed = self.failures.iter().map(|failure| {
            let output = outputs.get(&failure.file).copied().unwrap_or_default();
            (failure.file.clone(), FailedFile::new(output, failure))
        });
        failed.collect()
    }
}

/// Returns how many files there are: those with outputs, and those that failed without one. Outputs
/// that are lost, or copies, are in both lists.
pub fn total<F: ListedFile>(files: &[F], failed: &BTreeMap<String, FailedFile>) -> usize {
    let listed: BTreeSet<&str> = files.iter().map(ListedFile::output).collect();
    let others = failed.values().filter(|file| !listed.contains(file.output.as_str()));
    files.len() + others.count()
}

/// Partial if more than `allowed` of `total` files failed; `again` is what to do with them once
/// mended.
pub fn partial<R>(
    failed: &BTreeMap<String, R>,
    total: usize,
    again: &str,
    allowed: usize,
) -> Result<()> {
    let names: Vec<&str> = failed.keys().map(String::as_str).collect();
    if names.len() <= allowed {
        return Ok(());
    }
    let fault = Fault::new(format!("{} of {total} files failed", names.len()))
        .found(names.join(", "))
        .advice(format!("the other outputs are complete; mend these files and {again} them again"));
    Err(Error::Partial(Box::new(fault)).shared())
}
