//! Checks files, each alone and all together, before a training reads them.
//!
//! - Each file is read in one pass in blocks; further passes read the keys alone. A quick check
//!   reads only metadata.
//! - A bad file does not stop the others.
//! - A file that should not be trained on is marked as refused, with the reason and counts;
//!   [`CheckReport::outcome`] is then an input error.

mod file;
mod keys;
mod limits;
mod report;
mod set;
mod tally;
mod text;

use super::output::extraction::Extractions;
use crate::config::Class;
use crate::data::files::list::{is_pattern, list_in, list_path};
use crate::data::schema::Schema;
use crate::data::selection::Selection;
use crate::error::{Fault, Result};
use file::check_file;
pub use limits::{Limits, physical_limits};
pub use report::{CheckReport, Classes, ColumnReport, FileContents, FileReport, SetFinding};

use set::SetMember;
use std::path::{Path, PathBuf};
pub(super) use tally::ordered_pairs;

/// Features of the default model. A wrong value of one of them can refuse a file.
const FEATURES: [&str; 6] = ["size", "length", "width", "dist", "alpha", "con2"];

/// Files to check, and the extent of the checks.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Files, folders, patterns or lists.
    pub files: Vec<PathBuf>,
    pub gamma: Vec<PathBuf>,
    pub hadron: Vec<PathBuf>,
    /// Experimental files that hadrons are taken from, whatever their class column contains.
    pub off: Vec<PathBuf>,
    /// Files that synthetic anomalies are drawn from; their keys may be those of gammas.
    pub anomalies: Vec<PathBuf>,
    pub schema: Option<String>,
    /// Features, cuts and other quantities of a configuration: a file without one of them is
    /// refused. Without it, classes are compared by the features of the default model.
    pub selection: Option<Selection>,
    /// Metadata alone: no rows, keys or contents.
    pub quick: bool,
}

/// Numbers of the roles of experimental files and of anomalies.
const OFF: usize = 3;
const ANOMALIES: usize = 4;
/// Checks files through the schema of the options, or each through the one that fits it.
///
/// # Errors
/// `Usage` without files or with an unknown schema; `Input` if a folder or list has no files.
pub fn run(options: &Options) -> Result<CheckReport> {
    let roles = [
        (&options.files, None),
        (&options.gamma, Some(Class::Gamma)),
        (&options.hadron, Some(Class::Hadron)),
        (&options.off, Some(Class::Hadron)),
        (&options.anomalies, None),
    ];
    let mut files = Vec::new();
    for (number, (paths, role)) in roles.into_iter().enumerate() {
        for path in paths {
            files.extend(expand(path)?.into_iter().map(|path| (path, role, number)));
        }
    }
    if files.is_empty() {
        return Err(Fault::new("no file to check").expected("one or more files").usage());
    }
    let schema = Schema::of_option(options.schema.as_deref())?;
    let mut checked = Vec::with_capacity(files.len());
    for (path, role, number) in &files {
        checked.push(check_file(path, *role, *number == OFF, schema.as_ref(), options));
    }
    let extractions = Extractions::of(files.iter().map(|(path, ..)| path.as_path()))?;
    for (path, error) in extractions.unlisted() {
        let of_file = checked.iter_mut().filter(|checked| checked.report.path == path);
        of_file.for_each(|checked| checked.report.refused.push(error.to_string()));
    }
    let given: Vec<PathBuf> = [&options.files, &options.gamma, &options.hadron, &options.off]
        .into_iter()
        .flatten()
        .cloned()
        .collect();
    extractions.warn_of_absent(&given);
    drop(extractions);
    let members: Vec<SetMember> = checked
        .iter()
        .zip(&files)
        .filter(|(_, (.., number))| *number != ANOMALIES)
        .map(|(checked, _)| SetMember {
            report: &checked.report,
            role: checked.report.role,
            table: checked.table.clone(),
            sources: checked.sources,
        })
        .collect();
    let mut set = set::findings(&members, !options.quick);
    if !options.quick {
        let simulated = members.iter().zip(&files);
        let simulated = simulated.filter(|(_, (.., number))| *number != OFF);
        let simulated: Vec<&SetMember> = simulated.map(|(member, _)| member).collect();
        set.extend(set::of_classes(&simulated, options.selection.as_ref())?);
    }
    drop(members);
    let files: Vec<FileReport> = checked.into_iter().map(|checked| checked.report).collect();
    let contents = || files.iter().filter_map(|file| file.contents.as_ref());
    let rows = contents().map(|contents| contents.rows).sum();
    let bytes = contents().map(|contents| contents.bytes).sum();
    Ok(CheckReport { files, set, rows, bytes, training: None, cuts: Vec::new() })
}

/// Lists the files of a path. The error of a file itself is part of its report.
fn expand(path: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let missing = std::fs::metadata(path).is_err();
    if missing && list_in(path).is_none() && !is_pattern(path) {
        return Ok(vec![path.to_path_buf()]);
    }
    list_path(path, &mut files)?;
    Ok(files)
}

#[cfg(test)]
mod tests;
