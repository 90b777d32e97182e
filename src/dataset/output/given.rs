//! Record of the inputs of a command, by which `verify` finds files that were added since.
//!
//! The record has paths of one machine and is therefore in the folder of the ledger: outputs and
//! manifest do not depend on it.

use super::ledger;
use crate::bounded;
use crate::data::files::list::{is_pattern, list_in};
use crate::data::files::{pattern, walk};
use crate::dataset::assignment;
use crate::dataset::failures::FailedFile;
use crate::error::{Fault, Result, path_text};
use crate::storage;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

const NAME: &str = "inputs.json";
/// Largest record read [bytes].
const LARGEST: u64 = 1 << 24;

/// The inputs of one command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Given {
    inputs: Vec<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    root: Option<PathBuf>,
    /// Whether runs that the model was trained on were left out, by an older program: its
    /// manifests do not name them.
    own_runs: bool,
    extension: String,
}

impl Given {
    /// Creates the record of inputs whose outputs have this extension.
    pub fn new(inputs: &[PathBuf], root: Option<&Path>, extension: &str) -> Given {
        let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.into());
        let absolute = |path: &Path| match list_in(path) {
            Some(list) => PathBuf::from(format!("@{}", absolute(list).display())),
            None => absolute(path),
        };
        // The record is JSON, which cannot hold paths that are not UTF-8.
        let is_text = |path: &PathBuf| path.to_str().is_some();
        Given {
            inputs: inputs.iter().map(|path| absolute(path)).filter(is_text).collect(),
            root: root.map(absolute).filter(is_text),
            own_runs: false,
            extension: extension.to_string(),
        }
    }

    /// Adds the inputs to the record of an output folder, once.
    pub fn record(self, output: &Path) -> Result<()> {
        let mut all = read(output).unwrap_or_else(|error| {
            log::warn!("{error}; it is replaced");
            Vec::new()
        });
        if all.contains(&self) {
            return Ok(());
        }
        all.push(self);
        let text = serde_json::to_vec_pretty(&all)
            .map_err(|e| Fault::new("cannot write the record of inputs").found(e).internal())?;
        storage::create_folder(&output.join(ledger::FOLDER))?;
        storage::write_file(&path(output), &text)
    }
}

/// Changes of the inputs since the command.
#[derive(Debug, Default)]
pub struct Inputs {
    /// By output, or by path: inputs that are in no manifest, or cannot be listed.
    pub wrong: BTreeMap<String, String>,
    /// Given paths that do not exist here: an archive may be verified elsewhere.
    pub absent: Vec<String>,
}

/// Compares the files that the given folders, patterns and lists now contain with a manifest: `known`
/// are its outputs and those that it leaves out, `failed` its failed inputs.
pub fn compare(
    folder: &Path,
    known: &BTreeSet<&str>,
    failed: &BTreeMap<String, FailedFile>,
) -> Inputs {
    let mut inputs = Inputs::default();
    if ledger::exists(folder) && !path(folder).is_file() {
        let found = "is missing: inputs that are in no manifest cannot be found; run the same \
                     command again";
        inputs.wrong.insert(format!("{}/{NAME}", ledger::FOLDER), found.to_string());
    }
    let recorded = read(folder).unwrap_or_else(|error| {
        inputs.wrong.insert(format!("{}/{NAME}", ledger::FOLDER), error.to_string());
        Vec::new()
    });
    for given in recorded.iter().filter(|given| !given.own_runs) {
        for input in &given.inputs {
            if !is_here(input) {
                inputs.absent.push(path_text(input));
                continue;
            }
            // A folder or pattern without files has no missing file.
            let is_empty =
                input.is_dir() && walk::hdf5_files(input).is_ok_and(|files| files.is_empty());
            if is_empty
                || (is_pattern(input) && pattern::fitting(input).is_ok_and(|p| p.is_empty()))
            {
                continue;
            }
            let root = given.root.as_deref();
            match assignment::output_names(std::slice::from_ref(input), folder, root) {
                Ok(names) => inputs.add_missing(&names, given, known, failed),
                Err(error) => {
                    let found = format!("its files cannot be listed: {error}");
                    inputs.wrong.insert(path_text(input), found);
                }
            }
        }
    }
    inputs
}

impl Inputs {
    fn add_missing(
        &mut self,
        names: &[(PathBuf, String)],
        given: &Given,
        known: &BTreeSet<&str>,
        failed: &BTreeMap<String, FailedFile>,
    ) {
        for (input, name) in names {
            let output = Path::new(name).with_extension(&given.extension).display().to_string();
            let mut failed = failed.iter();
            let has_failed =
                failed.any(|(path, file)| file.output == output || is_same(path, input));
            if !known.contains(output.as_str()) && !has_failed {
                let found = format!(
                    "the input {} is in no manifest: run the same command again",
                    input.display()
                );
                self.wrong.insert(output, found);
            }
        }
    }
}

/// Returns whether a given path exists: the file or folder, the list, or the folder in which a
/// pattern begins.
fn is_here(given: &Path) -> bool {
    if given.symlink_metadata().is_ok() {
        return true;
    }
    if let Some(list) = list_in(given) {
        return list.exists();
    }
    let is_plain = |part: &Path| !is_pattern(part);
    is_pattern(given)
        && given.ancestors().skip(1).find(|part| is_plain(part)).is_some_and(Path::exists)
}

/// Returns whether an input of a manifest, which may be relative, is this file.
fn is_same(failed: &str, input: &Path) -> bool {
    input.ends_with(failed.trim_start_matches("./")) || Path::new(failed) == input
}

/// Reads the record of an output folder; it is empty if there is none.
fn read(folder: &Path) -> Result<Vec<Given>> {
    let path = path(folder);
    let unreadable = |found: &dyn std::fmt::Display| {
        Fault::new("cannot read the record of inputs")
            .file(&path)
            .found(found)
            .advice("run the same command again, which writes a new record")
            .input()
    };
    match bounded::read(&path, LARGEST) {
        Ok(text) => serde_json::from_slice(&text).map_err(|e| unreadable(&e)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(unreadable(&error)),
    }
}

fn path(folder: &Path) -> PathBuf {
    folder.join(ledger::FOLDER).join(NAME)
}
