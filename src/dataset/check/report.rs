//! Reports of a check: contents and findings of each file, and findings on the set of files.

use crate::config::Class;
use crate::data::selection::cut_flow::CutFlow;
use crate::error::{Fault, Result, path_text};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// Findings on all files, in the order given, and on their set.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CheckReport {
    pub files: Vec<FileReport>,
    pub set: Vec<SetFinding>,
    /// Of all files that can be read.
    pub rows: u64,
    pub bytes: u64,
    /// Reason that a training of these files would be refused for; `None` if it was not checked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub training: Option<String>,
    /// Rows that the cuts of a configuration remove; empty without a configuration.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cuts: Vec<CutFlow>,
}

/// Findings on one file.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FileReport {
    #[serde(serialize_with = "as_text")]
    pub path: PathBuf,
    /// Class that the file was given as.
    pub role: Option<Class>,
    /// Absent if the file could not be read.
    pub contents: Option<FileContents>,
    /// Reasons that training would refuse the file for; empty if it accepts the file.
    pub refused: Vec<String>,
    pub warnings: Vec<String>,
}

/// Writes a path as text; bytes that are not UTF-8 are escaped.
fn as_text<S: serde::Serializer>(
    path: &Path,
    serializer: S,
) -> std::result::Result<S::Ok, S::Error> {
    serializer.serialize_str(&path_text(path))
}

/// Contents of a file that can be read.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FileContents {
    pub schema: String,
    pub rows: u64,
    pub bytes: u64,
    pub columns: Vec<ColumnReport>,
    pub keys: Vec<String>,
    /// Columns that identify the shower of an event; the split uses them.
    pub shower: Vec<String>,
    pub classes: Option<Classes>,
}

/// One quantity over all rows; minimum, mean and maximum are those of its finite values.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ColumnReport {
    pub name: String,
    pub unit: String,
    pub min: Option<f64>,
    pub mean: Option<f64>,
    pub max: Option<f64>,
    pub nan: u64,
    pub infinite: u64,
    /// Finite, but physically impossible.
    pub impossible: u64,
    pub constant: bool,
}

/// Rows by class.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Classes {
    pub gamma: u64,
    pub hadron: u64,
    pub unknown: u64,
}

impl CheckReport {
    /// Returns an error if one of the files should not be trained on.
    ///
    /// # Errors
    /// `Input`, with the first files.
    pub fn outcome(&self) -> Result<()> {
        let refused =
            |file: &&FileReport| !file.refused.is_empty() || refuses(&self.set, &file.path);
        let refused = self.files.iter().filter(refused);
        let names: Vec<String> = refused.map(|file| path_text(&file.path)).collect();
        if let (true, Some(reason)) = (names.is_empty(), &self.training) {
            return Err(Fault::new("training would refuse these files").found(reason).input());
        }
        if names.is_empty() {
            return Ok(());
        }
        let more = if names.len() > 3 { ", …" } else { "" };
        let shown: Vec<&str> = names.iter().map(String::as_str).take(3).collect();
        Err(Fault::new(format!("{} of {} file(s) cannot be used", names.len(), self.files.len()))
            .found(format!("{}{more}", shown.join(", ")))
            .advice("the report lists the reasons for each")
            .input())
    }
}

/// A finding on several files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SetFinding {
    /// `same-file`, `same-content`, `same-events`, `same-numbers`, `overlap`,
    /// `columns-differ`, `units-differ`, `source-positions`, `shared-events`, `repeated-rows`,
    /// `swapped-classes`.
    pub kind: &'static str,
    pub text: String,
    pub files: Vec<PathBuf>,
    /// Number of rows; 0 for a finding on whole files.
    pub rows: u64,
    pub refused: bool,
}

/// Returns whether a finding refuses a file.
pub fn refuses(findings: &[SetFinding], path: &Path) -> bool {
    findings.iter().any(|f| f.refused && f.files.iter().any(|file| file == path))
}
