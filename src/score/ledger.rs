//! The ledger: one line per file that was scored, appended when its output is whole and on
//! disk, one file and one writer per rank (`ledger/I-of-N.jsonl`).
//!
//! It tells what was done, by whom and in which order; outputs and manifest do not depend on
//! it. A line says enough to know an output again without reading it.

use super::ScoredFile;
use crate::data::durable::AppendFile;
use crate::error::{Error, Fault, Result};
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

/// A line as it is written. A bit that flips in it must not become a count of the manifest.
#[derive(Serialize, Deserialize)]
struct Line {
    #[serde(flatten)]
    entry: Entry,
    /// The beginning of the blake3 of the entry's own JSON.
    seal: String,
}

impl Line {
    fn new(entry: &Entry) -> serde_json::Result<Line> {
        let hash = blake3::hash(serde_json::to_string(entry)?.as_bytes());
        Ok(Line { entry: entry.clone(), seal: hash.to_hex()[..16].to_string() })
    }

    /// The entry of a line that is as it was written.
    fn read(bytes: &[u8]) -> Option<Entry> {
        let line: Line = serde_json::from_slice(bytes).ok()?;
        let written = Line::new(&line.entry).ok()?;
        (written.seal == line.seal).then_some(line.entry)
    }
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
        let line = Line::new(entry)
            .and_then(|line| serde_json::to_string(&line))
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

/// What all ledgers of an output folder say.
#[derive(Debug, Default)]
pub struct Told {
    /// By output.
    pub entries: BTreeMap<String, Vec<Entry>>,
    /// How many lines of a ledger are not as they were written, where there are such. The last
    /// one may be torn by a death, which is no damage.
    pub damaged: BTreeMap<String, usize>,
}

/// Reads all ledgers; a line that is torn or damaged is no entry.
pub fn read(output: &Path) -> Result<Told> {
    let mut told = Told::default();
    for path in files(output)? {
        for line in text(&path)?.split_inclusive(|byte| *byte == b'\n') {
            if let Some(entry) = Line::read(line) {
                told.entries.entry(entry.file.output.clone()).or_default().push(entry);
            } else if line.ends_with(b"\n") {
                let name = path.strip_prefix(output).unwrap_or(&path).display().to_string();
                *told.damaged.entry(name).or_default() += 1;
            }
        }
    }
    Ok(told)
}

fn files(output: &Path) -> Result<Vec<PathBuf>> {
    let folder = output.join(FOLDER);
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let found = std::fs::read_dir(&folder).map_err(|e| unreadable(&folder, &e.to_string()))?;
    let mut paths: Vec<PathBuf> = found.flatten().map(|entry| entry.path()).collect();
    paths.retain(|path| is_ledger(path));
    paths.sort();
    Ok(paths)
}

fn text(path: &Path) -> Result<Vec<u8>> {
    let bytes = std::fs::metadata(path).map_or(0, |m| m.len());
    if bytes > LARGEST_FILE {
        return Err(unreadable(path, &format!("{bytes} bytes")));
    }
    std::fs::read(path).map_err(|e| unreadable(path, &e.to_string()))
}

fn unreadable(path: &Path, found: &str) -> Error {
    Fault::new("cannot read the ledger").file(path).found(found).environment()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_was_altered_says_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let file = ScoredFile {
            output: "night-1/run-1.h5".to_string(),
            rows: 1234,
            input_blake3: "a".repeat(64),
            output_blake3: "b".repeat(64),
            unusable: 7,
            outside: 0,
            implausible_times: 0,
            status: BTreeMap::from([("not finite".to_string(), 7)]),
        };
        let hash = "c".repeat(64);
        let entry = Entry { file, bytes: 99, model_blake3: hash.clone(), settings_blake3: hash };
        let mut ledger = Ledger::new(folder.path(), (0, 1));
        ledger.add(&entry).unwrap();
        ledger.add(&entry).unwrap();
        let told = || read(folder.path()).unwrap();
        let found = || told().entries.remove("night-1/run-1.h5").unwrap_or_default();
        assert_eq!(found(), [entry.clone(), entry]);
        let path = folder.path().join(FOLDER).join("1-of-1.jsonl");
        let whole = std::fs::read(&path).unwrap();
        for at in 0..whole.len() / 2 - 1 {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            std::fs::write(&path, bytes).unwrap();
            assert_eq!(found().len(), 1, "byte {at}");
            let damaged = BTreeMap::from([("ledger/1-of-1.jsonl".to_string(), 1)]);
            assert_eq!(told().damaged, damaged);
        }
        std::fs::write(&path, &whole[..whole.len() - 1]).unwrap();
        assert_eq!(told().damaged, BTreeMap::new(), "torn by a death");
    }
}
