//! Records which inputs were given to a command that fills an output folder, so that `verify`
//! can name files that have been added since.
//!
//! The record is in the folder of the ledger, since it holds paths of one machine: outputs and
//! manifest do not depend on it.

use super::ledger;
use crate::bounded;
use crate::data::files::walk;
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
    /// Whether runs that the model was trained on were left out.
    own_runs: bool,
    extension: String,
}

impl Given {
    /// Inputs whose outputs have the name `extension`.
    pub fn new(inputs: &[PathBuf], root: Option<&Path>, extension: &str) -> Given {
        let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.into());
        // A record is a text: paths that are not UTF-8 are not in it.
        let is_text = |path: &PathBuf| path.to_str().is_some();
        Given {
            inputs: inputs.iter().map(|path| absolute(path)).filter(is_text).collect(),
            root: root.map(absolute).filter(is_text),
            own_runs: false,
            extension: extension.to_string(),
        }
    }

    /// Notes that some inputs may have been left out on purpose.
    #[must_use]
    pub fn without_own_runs(self, own_runs: bool) -> Given {
        Given { own_runs, ..self }
    }

    /// Adds the inputs to the record of an output folder, once.
    pub fn record(self, output: &Path) -> Result<()> {
        let mut all = read(output);
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

/// Returns the inputs that are now below the folders given, but in no manifest: by output, what
/// is wrong. `known` are the outputs of the manifest, `failed` its failed inputs. Folders that
/// no longer exist are left out, since an archive may be verified elsewhere.
pub fn missing(
    folder: &Path,
    known: &BTreeSet<&str>,
    failed: &BTreeMap<String, FailedFile>,
) -> BTreeMap<String, String> {
    let mut wrong = BTreeMap::new();
    if ledger::exists(folder) && !path(folder).is_file() {
        let found = "is missing: inputs that are in no manifest cannot be found; run the same \
                     command again";
        wrong.insert(format!("{}/{NAME}", ledger::FOLDER), found.to_string());
    }
    for given in read(folder).iter().filter(|given| !given.own_runs) {
        for input in given.inputs.iter().filter(|input| input.exists()) {
            let root = given.root.as_deref();
            // A folder without files has nothing that could be missing.
            if input.is_dir() && walk::hdf5_files(input).is_ok_and(|files| files.is_empty()) {
                continue;
            }
            let names = assignment::output_names(std::slice::from_ref(input), folder, root);
            let names = names.unwrap_or_else(|error| {
                let found = format!("its files cannot be listed: {error}");
                wrong.insert(path_text(input), found);
                Vec::new()
            });
            for (input, name) in names {
                let output = Path::new(&name).with_extension(&given.extension);
                let output = output.display().to_string();
                let mut failed = failed.iter();
                let has_failed =
                    failed.any(|(path, file)| file.output == output || is_same(path, &input));
                if !known.contains(output.as_str()) && !has_failed {
                    let found = format!(
                        "the input {} is in no manifest: run the same command again",
                        input.display()
                    );
                    wrong.insert(output, found);
                }
            }
        }
    }
    wrong
}

/// Whether an input of a manifest, which may be relative, is this file.
fn is_same(failed: &str, input: &Path) -> bool {
    input.ends_with(failed.trim_start_matches("./")) || Path::new(failed) == input
}

fn read(folder: &Path) -> Vec<Given> {
    let text = bounded::read(&path(folder), LARGEST).unwrap_or_default();
    serde_json::from_slice(&text).unwrap_or_default()
}

fn path(folder: &Path) -> PathBuf {
    folder.join(ledger::FOLDER).join(NAME)
}
