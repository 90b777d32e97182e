//! The ledger: one line per file that was scored, appended when its output is whole and on
//! disk, one file and one writer per rank (`ledger/I-of-N.jsonl`).
//!
//! It tells what was done, by whom and in which order; outputs and manifest do not depend on
//! it. A line says enough to know an output again without reading it.

use super::ScoredFile;
use crate::data::durable::AppendFile;
use crate::error::{Fault, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

pub const FOLDER: &str = "ledger";
/// A longer ledger is something else.
const LARGEST_FILE: u64 = 1 << 30;

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    #[serde(flatten)]
    pub file: ScoredFile,
    /// Bytes of the output.
    pub bytes: u64,
    pub model_blake3: String,
    pub settings_blake3: String,
}

/// The ledger of one rank; the file is made with its first line.
pub struct Ledger {
    path: PathBuf,
    file: Option<AppendFile>,
}

impl Ledger {
    /// Of part `index` (from 0) of `count`.
    pub fn new(output: &Path, (index, count): (usize, usize)) -> Ledger {
        let name = format!("{}-of-{count}.jsonl", index + 1);
        Ledger { path: output.join(FOLDER).join(name), file: None }
    }

    pub fn add(&mut self, entry: &Entry) -> Result<()> {
        let line = serde_json::to_string(entry)
            .map_err(|e| Fault::new("cannot write the ledger").found(e).internal())?;
        let file = match &mut self.file {
            Some(file) => file,
            None => self.file.insert(AppendFile::resume(&self.path)?),
        };
        file.append_line(&line)
    }
}

/// Whether a file in the folder is a ledger.
pub fn is_ledger(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "jsonl")
}

/// All entries of all ledgers in an output folder, by output; a line that is torn says
/// nothing.
pub fn read(output: &Path) -> Result<BTreeMap<String, Vec<Entry>>> {
    let folder = output.join(FOLDER);
    let unreadable = |path: &Path, found: String| {
        Fault::new("cannot read the ledger").file(path).found(found).environment()
    };
    let mut entries: BTreeMap<String, Vec<Entry>> = BTreeMap::new();
    if !folder.is_dir() {
        return Ok(entries);
    }
    let found = std::fs::read_dir(&folder).map_err(|e| unreadable(&folder, e.to_string()))?;
    let mut paths: Vec<PathBuf> = found.flatten().map(|entry| entry.path()).collect();
    paths.retain(|path| is_ledger(path));
    paths.sort();
    for path in paths {
        let bytes = std::fs::metadata(&path).map_or(0, |m| m.len());
        if bytes > LARGEST_FILE {
            return Err(unreadable(&path, format!("{bytes} bytes")));
        }
        let text = std::fs::read_to_string(&path).map_err(|e| unreadable(&path, e.to_string()))?;
        for entry in text.lines().filter_map(|line| serde_json::from_str::<Entry>(line).ok()) {
            entries.entry(entry.file.output.clone()).or_default().push(entry);
        }
    }
    Ok(entries)
}
