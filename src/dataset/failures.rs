//! Inputs that could not be used, with their reasons and exit codes.

use super::output::listed::ListedFile;
use crate::error::{Error, Fault, Result, path_text};
use crate::memory;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// An input that could not be used.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Failure {
    pub file: String,
    pub exit_code: u8,
    pub text: String,
}

impl Failure {
    pub(crate) fn new(input: &Path, error: &Error) -> Failure {
        Failure {
            file: path_text(input),
            exit_code: error.exit_code(),
            text: without_file_name(error, input),
        }
    }

    pub(crate) fn to_error(&self) -> Error {
        Error::from_code(self.exit_code, Fault::new(self.text.clone()).file(&self.file))
    }
}

/// Returns the error, or an environment error if the file may have failed for lack of memory.
pub(crate) fn or_lack_of_memory(error: Error) -> Error {
    match error {
        Error::Input(fault) if memory::is_near_limit() => {
            let Fault { file, .. } = *fault.clone();
            let lack = Fault::new("out of memory").found(fault).advice(memory::ADVICE);
            Fault { file, ..lack }.environment()
        }
        other => other,
    }
}

/// Returns the text of an error without the name of the file at its beginning.
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
    /// Exit code of the reason; 0 if unknown.
    pub exit_code: u8,
    /// Folder of the extraction that a file is missing from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub extraction: Option<String>,
}

/// A failure as manifests contain it; those of older programs have the reason alone.
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
    /// Describes a failure that leaves `output` missing.
    pub(crate) fn new(output: &str, failure: &Failure) -> FailedFile {
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

/// Returns the number of files: those with outputs, and those that failed without one. Outputs that
/// are lost, and copies, are in both lists.
pub(crate) fn total<F: ListedFile>(files: &[F], failed: &BTreeMap<String, FailedFile>) -> usize {
    let listed: BTreeSet<&str> = files.iter().map(ListedFile::output).collect();
    let others = failed.values().filter(|file| !listed.contains(file.output.as_str()));
    files.len() + others.count()
}

/// Returns an error if more than `allowed` of `total` files failed; `again` is the verb for
/// processing the mended files.
///
/// # Errors
/// `Partial`, with the names of the files.
pub(crate) fn partial<R>(
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
