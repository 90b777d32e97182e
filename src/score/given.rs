//! Records which inputs were given to `score`, so that `verify` can name files that have been
//! added since.
//!
//! The record is in the folder of the ledger, since it holds paths of one machine: outputs and
//! manifest do not depend on it.

use super::{Options, Summary, ledger};
use crate::data::assign;
use crate::data::durable;
use crate::error::{Fault, Result};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

const NAME: &str = "inputs.json";
/// Largest record read [bytes].
const LARGEST: u64 = 1 << 24;

/// The inputs of one command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Given {
    inputs: Vec<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    root: Option<PathBuf>,
    /// Whether runs that the model was trained on were left out.
    own_runs: bool,
    extension: String,
}

/// Adds the inputs of this command to the record, once.
pub fn record(options: &Options) -> Result<()> {
    let absolute = |path: &PathBuf| std::path::absolute(path).unwrap_or_else(|_| path.clone());
    let given = Given {
        inputs: options.inputs.iter().map(absolute).collect(),
        root: options.root.as_ref().map(absolute),
        own_runs: options.own_runs,
        extension: options.extension().to_string(),
    };
    let mut all = read(&options.output);
    if all.contains(&given) {
        return Ok(());
    }
    all.push(given);
    let text = serde_json::to_vec_pretty(&all)
        .map_err(|e| Fault::new("cannot write the record of inputs").found(e).internal())?;
    let path = path(&options.output);
    durable::create_folder(&options.output.join(ledger::FOLDER))?;
    durable::write_file(&path, &text)
}

/// Returns the inputs that are now below the folders given, but in no manifest: by output, what
/// is wrong. Folders that no longer exist are left out, since an archive may be verified elsewhere.
pub fn missing(folder: &Path, summary: &Summary) -> BTreeMap<String, String> {
    let known: BTreeSet<&str> = summary.files.iter().map(|file| file.output.as_str()).collect();
    let mut wrong = BTreeMap::new();
    for given in read(folder).iter().filter(|given| !given.own_runs) {
        for input in given.inputs.iter().filter(|input| input.exists()) {
            wrong.extend(unlisted(input, folder, given, summary, &known));
        }
    }
    wrong
}

/// The files of one input that are in no manifest.
fn unlisted(
    input: &PathBuf,
    folder: &Path,
    given: &Given,
    summary: &Summary,
    known: &BTreeSet<&str>,
) -> BTreeMap<String, String> {
    let root = given.root.as_deref();
    let names = assign::output_names(std::slice::from_ref(input), folder, root);
    let mut wrong = BTreeMap::new();
    // A folder without files has nothing that could be missing.
    for (input, name) in names.unwrap_or_default() {
        let output = Path::new(&name).with_extension(&given.extension);
        let output = output.display().to_string();
        let has_failed = summary.failed.keys().any(|failed| is_same(failed, &input));
        if !known.contains(output.as_str()) && !has_failed {
            let found = format!("the input {} is in no manifest: score again", input.display());
            wrong.insert(output, found);
        }
    }
    wrong
}

/// Whether an input of a manifest, which may be relative, is this file.
fn is_same(failed: &str, input: &Path) -> bool {
    input.ends_with(failed.trim_start_matches("./")) || Path::new(failed) == input
}

fn read(folder: &Path) -> Vec<Given> {
    let path = path(folder);
    if std::fs::metadata(&path).map_or(true, |metadata| metadata.len() > LARGEST) {
        return Vec::new();
    }
    let text = std::fs::read(&path).unwrap_or_default();
    serde_json::from_slice(&text).unwrap_or_default()
}

fn path(folder: &Path) -> PathBuf {
    folder.join(ledger::FOLDER).join(NAME)
}
