//! Ledgers of an output folder: one line per finished file, in one file per rank
//! (`ledger/I-of-N.jsonl`).
//!
//! A line is appended when the output is complete and on disk. It identifies the output without
//! reading it. Failed files have lines too. Outputs and manifests do not depend on the ledgers.

pub(crate) use super::listed::ListedFile;
use crate::bounded;
use crate::dataset::failures::Failure;
use crate::error::{Error, Fault, Result};
use crate::storage::{self, AppendFile};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

pub(crate) const FOLDER: &str = "ledger";
/// Largest ledger or manifest read [bytes].
const LARGEST_FILE: u64 = 1 << 30;
/// Most rows in a file; larger numbers are damaged.
const MOST_ROWS: u64 = 1 << 40;
/// Keys of the number of rows, one for each command that writes ledgers.
const ROWS_KEYS: [&str; 2] = ["rows", "images"];

/// Line of a finished file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LedgerEntry<F> {
    #[serde(flatten)]
    pub file: F,
    /// Bytes of the output.
    pub bytes: u64,
    /// blake3 of the model, for scores.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_blake3: Option<String>,
    pub settings_blake3: String,
    /// Size and modification time of the input when it was read, if later runs compare them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input_stamp: Option<String>,
}

/// Line with a checksum, so that a flipped bit cannot change a count of the manifest.
#[derive(Serialize, Deserialize)]
struct Line<E> {
    #[serde(flatten)]
    entry: E,
    /// First digits of the blake3 of the JSON of the entry.
    seal: String,
}

impl<E: Clone + Serialize + DeserializeOwned> Line<E> {
    fn new(entry: &E) -> serde_json::Result<Line<E>> {
        let hash = blake3::hash(serde_json::to_string(entry)?.as_bytes());
        Ok(Line { entry: entry.clone(), seal: hash.to_hex()[..16].to_string() })
    }

    /// Returns the entry of a line, if its checksum is right.
    fn read(bytes: &[u8]) -> Option<E> {
        let line: Line<E> = serde_json::from_slice(bytes).ok()?;
        let written = Line::new(&line.entry).ok()?;
        (written.seal == line.seal).then_some(line.entry)
    }
}

/// Line of a failed file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FailedEntry {
    pub output: String,
    pub input: String,
    /// Reason of the failure.
    pub failed: String,
    pub exit_code: u8,
    /// Whether it ends or stops the process that reads it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub quarantined: bool,
}

impl FailedEntry {
    pub(crate) fn new(output: &str, failure: &Failure, quarantined: bool) -> FailedEntry {
        FailedEntry {
            output: output.to_string(),
            input: failure.file.clone(),
            failed: failure.text.clone(),
            exit_code: failure.exit_code,
            quarantined,
        }
    }
}

/// Ledger of one rank; the file is created with its first line.
pub(crate) struct Ledger {
    path: PathBuf,
    file: Option<AppendFile>,
}

impl Ledger {
    /// Creates the ledger of part `index` (from 0) of `count`.
    pub(crate) fn new(output: &Path, (index, count): (usize, usize)) -> Ledger {
        let name = format!("{}-of-{count}.jsonl", index + 1);
        Ledger { path: output.join(FOLDER).join(name), file: None }
    }

    pub(crate) fn add<F: ListedFile>(&mut self, entry: &LedgerEntry<F>) -> Result<()> {
        self.append(entry)
    }

    pub(crate) fn add_failed(&mut self, entry: &FailedEntry) -> Result<()> {
        self.append(entry)
    }

    fn append<E: Clone + Serialize + DeserializeOwned>(&mut self, entry: &E) -> Result<()> {
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

/// Reads the manifest at a path; `None` if there is none.
///
/// # Errors
/// `Input` if it cannot be read.
pub(crate) fn read_manifest<M: DeserializeOwned>(path: &Path) -> Result<Option<M>> {
    if !path.is_file() {
        return Ok(None);
    }
    let bytes = bounded::read(path, LARGEST_FILE).map_err(|e| unreadable_manifest(path, &e))?;
    serde_json::from_slice(&bytes).map(Some).map_err(|e| unreadable_manifest(path, &e))
}

/// Refuses a manifest with files outside of its folder, or with impossible numbers of `rows` (of
/// this `unit`) in a file.
///
/// # Errors
/// `Input`.
pub(crate) fn refuse_impossible<F: ListedFile>(
    path: &Path,
    files: &[F],
    unit: &str,
    rows: impl Fn(&F) -> u64,
) -> Result<()> {
    if files.iter().any(|file| rows(file) > MOST_ROWS) {
        let found = format!("a file of more than {MOST_ROWS} {unit}");
        return Err(unreadable_manifest(path, &found));
    }
    let is_inside =
        |name: &str| Path::new(name).components().all(|c| matches!(c, Component::Normal(_)));
    match files.iter().find(|file| !is_inside(file.output())) {
        Some(file) => {
            let found = format!("a file outside of its folder, '{}'", file.output());
            Err(unreadable_manifest(path, &found))
        }
        None => Ok(()),
    }
}

/// Returns the outputs that are listed twice, and those whose inputs have equal content, by name:
/// their events would be counted twice. Files without rows may be equal.
pub(crate) fn duplicates<F: ListedFile>(files: &[F]) -> BTreeMap<String, String> {
    let (mut outputs, mut inputs) = (BTreeSet::new(), BTreeMap::new());
    let mut found = BTreeMap::new();
    for file in files {
        let name = file.output();
        if !outputs.insert(name) {
            found.insert(name.to_string(), "is listed twice in the manifest".to_string());
        } else if file.rows() > 0
            && let Some(other) = inputs.insert(file.input_blake3(), name)
        {
            let text = format!("has the same input as {other}: its events count twice");
            found.insert(name.to_string(), text);
        }
    }
    found
}

/// Refuses a folder with outputs of a different command, by the `format` of its manifest and the
/// lines of its ledgers: they would be replaced, also by `--overwrite`. `format` is that of `F`.
///
/// # Errors
/// `Usage`.
pub fn refuse_other_command<F: ListedFile>(folder: &Path, format: &str) -> Result<()> {
    let refused = |path: &Path, found: &dyn std::fmt::Display| {
        Err(Fault::new("the output folder contains outputs of a different command")
            .file(path)
            .expected(format!("no manifest, or one of {format}"))
            .found(found)
            .advice("choose a different folder for -o")
            .usage())
    };
    let manifest = folder.join("manifest.json");
    let json = bounded::read(&manifest, LARGEST_FILE).unwrap_or_default();
    let json: Option<Value> = serde_json::from_slice(&json).ok();
    if let Some(found) = json.as_ref().and_then(|json| json.get("format")?.as_str())
        && found.starts_with("taiga-flow-")
        && found != format
    {
        return refused(&manifest, &found);
    }
    for path in files(folder)? {
        for line in text(&path)?.split_inclusive(|byte| *byte == b'\n') {
            // A line of `F` that a flipped bit has damaged still has the keys of `F`.
            if Line::<LedgerEntry<F>>::read(line).is_none() && has_other_keys::<F>(line) {
                return refused(&path, &"a line of a different command");
            }
        }
    }
    Ok(())
}

/// Returns whether a line of a ledger is of a finished file, and without the number of rows of `F`.
fn has_other_keys<F: ListedFile>(line: &[u8]) -> bool {
    let line: Option<Value> = serde_json::from_slice(line).ok();
    let has = |key: &str| line.as_ref().is_some_and(|line| line.get(key).is_some());
    has("output_blake3") && !has(F::ROWS_KEY) && ROWS_KEYS.into_iter().any(has)
}

/// Returns the error of a manifest that cannot be read.
pub(crate) fn unreadable_manifest(path: &Path, found: &dyn std::fmt::Display) -> Error {
    Fault::new("cannot read the manifest")
        .file(path)
        .found(found)
        .advice(
            "restore it, or move it away and run the same command again, which keeps what is \
             finished",
        )
        .input()
}

/// Returns whether an output folder has a ledger.
pub(crate) fn exists(output: &Path) -> bool {
    files(output).is_ok_and(|files| !files.is_empty())
}

/// Returns whether a file in the folder is a ledger.
pub(crate) fn is_ledger(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "jsonl")
}

/// Entries of a folder by output, in the order of their ledgers.
pub(crate) type Entries<F> = BTreeMap<String, Vec<LedgerEntry<F>>>;

/// Contents of all ledgers of an output folder.
#[derive(Debug)]
pub(crate) struct LedgerContents<F> {
    pub entries: Entries<F>,
    /// The last failure, by output; the file may have been finished since.
    pub failed: BTreeMap<String, FailedEntry>,
    /// Number of damaged lines of each ledger that has some. A last line that a killed process left
    /// incomplete does not count.
    pub damaged: BTreeMap<String, usize>,
}

/// Reads all ledgers, without incomplete or damaged lines.
pub(crate) fn read<F: ListedFile>(output: &Path) -> Result<LedgerContents<F>> {
    let mut contents = LedgerContents {
        entries: BTreeMap::new(),
        failed: BTreeMap::new(),
        damaged: BTreeMap::new(),
    };
    for path in files(output)? {
        for line in text(&path)?.split_inclusive(|byte| *byte == b'\n') {
            if let Some(entry) = Line::<LedgerEntry<F>>::read(line) {
                let output = entry.file.output().to_string();
                contents.entries.entry(output).or_default().push(entry);
            } else if let Some(entry) = Line::<FailedEntry>::read(line) {
                contents.failed.insert(entry.output.clone(), entry);
            } else if line.ends_with(b"\n") {
                let name = path.strip_prefix(output).unwrap_or(&path).display().to_string();
                *contents.damaged.entry(name).or_default() += 1;
            }
        }
    }
    Ok(contents)
}

/// Removes damaged lines, so that `verify` no longer reports them; their files are checked again. No
/// other process may write the ledgers.
pub(crate) fn remove_damaged_lines<F: ListedFile>(output: &Path) -> Result<()> {
    for path in files(output)? {
        let text = text(&path)?;
        let is_good = |line: &&[u8]| {
            Line::<LedgerEntry<F>>::read(line).is_some()
                || Line::<FailedEntry>::read(line).is_some()
        };
        let lines = || text.split_inclusive(|byte| *byte == b'\n');
        let damaged = lines().filter(|line| line.ends_with(b"\n") && !is_good(line)).count();
        if damaged > 0 {
            let good: Vec<&[u8]> = lines().filter(is_good).collect();
            log::warn!("{}: {damaged} damaged line(s) are removed", path.display());
            storage::write_file(&path, &good.concat())?;
        }
    }
    Ok(())
}

/// Removes the ledgers, the manifests of parts and the record of inputs of an output folder.
pub(crate) fn remove_all(output: &Path) -> Result<()> {
    let folder = output.join(FOLDER);
    let entries = std::fs::read_dir(&folder).map_err(|e| unreadable(&folder, &e.to_string()))?;
    let is_part = |name: &str| name.contains("-of-") && !name.starts_with("started");
    for path in entries.flatten().map(|entry| entry.path()) {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let extension = path.extension().and_then(|extension| extension.to_str());
        let is_record = extension == Some("json") && (is_part(name) || name == "inputs.json");
        if is_ledger(&path) || is_record {
            storage::remove_file(&path)?;
        }
    }
    Ok(())
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

    #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
    struct TestFile {
        output: String,
        rows: u64,
        input_blake3: String,
        output_blake3: String,
        status: BTreeMap<String, u64>,
    }

    impl ListedFile for TestFile {
        const ROWS_KEY: &str = "rows";

        fn output(&self) -> &str {
            &self.output
        }
        fn rows(&self) -> u64 {
            self.rows
        }
        fn input_blake3(&self) -> &str {
            &self.input_blake3
        }
        fn output_blake3(&self) -> &str {
            &self.output_blake3
        }
    }

    #[test]
    fn a_line_that_was_altered_says_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let file = TestFile {
            output: "night-1/run-1.h5".to_string(),
            rows: 1234,
            input_blake3: "a".repeat(64),
            output_blake3: "b".repeat(64),
            status: BTreeMap::from([("not finite".to_string(), 7)]),
        };
        let hash = "c".repeat(64);
        let entry = LedgerEntry {
            file,
            bytes: 99,
            model_blake3: Some(hash.clone()),
            settings_blake3: hash,
            input_stamp: Some("12 34.000000056".to_string()),
        };
        let mut ledger = Ledger::new(folder.path(), (0, 1));
        ledger.add(&entry).unwrap();
        ledger.add(&entry).unwrap();
        let contents = || read::<TestFile>(folder.path()).unwrap();
        let found = || contents().entries.remove("night-1/run-1.h5").unwrap_or_default();
        assert_eq!(found(), [entry.clone(), entry]);
        let path = folder.path().join(FOLDER).join("1-of-1.jsonl");
        let whole = std::fs::read(&path).unwrap();
        for at in 0..whole.len() / 2 - 1 {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            std::fs::write(&path, bytes).unwrap();
            assert_eq!(found().len(), 1, "byte {at}");
            let damaged = BTreeMap::from([("ledger/1-of-1.jsonl".to_string(), 1)]);
            assert_eq!(contents().damaged, damaged);
        }
        let failure = Failure { file: "in.h5".into(), exit_code: 3, text: "torn".into() };
        let failed = FailedEntry::new("night-1/run-2.h5", &failure, true);
        Ledger::new(folder.path(), (1, 2)).add_failed(&failed).unwrap();
        assert_eq!(contents().failed, BTreeMap::from([("night-1/run-2.h5".to_string(), failed)]));
        std::fs::write(&path, &whole[..whole.len() - 1]).unwrap();
        assert_eq!(contents().damaged, BTreeMap::new(), "torn by a death");
        let mut bytes = whole.clone();
        bytes[9] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        remove_damaged_lines::<TestFile>(folder.path()).unwrap();
        assert_eq!((found().len(), contents().damaged.len(), contents().failed.len()), (1, 0, 1));
    }
}
