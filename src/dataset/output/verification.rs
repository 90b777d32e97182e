//! Compares an output folder with its manifest and ledgers: every file there, whole and
//! unchanged, nothing missing and nothing else. Ranks share the files.

use super::given;
use super::ledger::{self, ListedFile};
use crate::comm::{Communicator, Work, gather_values, is_root, mark_shared};
use crate::data::files::stamp;
use crate::dataset::failures::FailedFile;
use crate::error::{Fault, Result};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// The manifest of an output folder.
const MANIFEST: &str = "manifest.json";

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputVerification {
    pub files: u64,
    pub rows: u64,
    pub bytes: u64,
    /// Whether the folder has a ledger; without one, only the manifest is compared.
    pub has_ledger: bool,
    /// What is wrong, by file.
    pub wrong: BTreeMap<String, String>,
    /// Inputs given that are not here, so that nobody can say whether files were added.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub absent_inputs: Vec<String>,
    /// Inputs that failed, with the reason.
    #[serde(default)]
    pub failed: BTreeMap<String, String>,
}

/// What a manifest says of its folder.
pub struct Claims<'a, F> {
    pub files: &'a [F],
    /// Rows of all files.
    pub rows: u64,
    /// Input path → why it failed.
    pub failed: &'a BTreeMap<String, FailedFile>,
    /// Outputs that are missing on purpose.
    pub left_out: &'a [String],
}

/// Compares an output folder with its manifest. `look` checks what a file says of itself, once
/// its content is known to be as it was written, and returns what is wrong.
pub fn verify<F: ListedFile>(
    comm: &dyn Communicator,
    folder: &Path,
    claims: &Claims<F>,
    look: &dyn Fn(&Path, &F) -> std::result::Result<(), String>,
) -> Result<OutputVerification> {
    let mut wrong = BTreeMap::new();
    let mut bytes = 0;
    let mut absent = Vec::new();
    for (i, file) in claims.files.iter().enumerate() {
        if i % comm.size() != comm.rank() {
            continue;
        }
        let progress = || comm.progress(Work::Hashing, i as u64);
        match check(folder, file, look, &progress) {
            Ok(length) => bytes += length,
            Err(found) => {
                wrong.insert(file.output().to_string(), found);
            }
        }
    }
    if is_root(comm) {
        wrong.extend(ledger::duplicates(claims.files));
        let left_out = claims.left_out.iter().map(String::as_str);
        let known = claims.files.iter().map(ListedFile::output).chain(left_out).collect();
        let inputs = given::compare(folder, &known, claims.failed);
        wrong.extend(inputs.wrong);
        absent = inputs.absent;
        wrong.extend(claims.unlisted(folder)?);
    }
    let mut all = OutputVerification {
        files: claims.files.len() as u64,
        rows: claims.rows,
        bytes: 0,
        has_ledger: ledger::exists(folder),
        wrong: BTreeMap::new(),
        absent_inputs: Vec::new(),
        failed: claims.failed.iter().map(|(file, why)| (file.clone(), why.to_string())).collect(),
    };
    for (bytes, wrong, absent) in gather_values(comm, &(bytes, wrong, absent))? {
        all.absent_inputs.extend(absent);
        all.bytes += bytes;
        all.wrong.extend(wrong);
    }
    let rows: u64 = claims.files.iter().map(ListedFile::rows).sum();
    if rows != claims.rows {
        let found = format!("{rows} rows in its files, not the {} it tells", claims.rows);
        all.wrong.insert(MANIFEST.to_string(), found);
    }
    mark_shared(Ok(all))
}

/// Bytes of a file that is as the manifest says, or what is wrong with it.
fn check<F: ListedFile>(
    folder: &Path,
    file: &F,
    look: &dyn Fn(&Path, &F) -> std::result::Result<(), String>,
    progress: &dyn Fn(),
) -> std::result::Result<u64, String> {
    let path = folder.join(file.output());
    let length = std::fs::metadata(&path).map_err(|e| format!("cannot be read: {e}"))?.len();
    let hash = stamp::hash_file_with_progress(&path, progress).map_err(|e| e.to_string())?;
    let hash = stamp::hash_text(&hash);
    if hash != file.output_blake3() {
        return Err(format!("blake3 is {hash}, not {}", file.output_blake3()));
    }
    look(&path, file)?;
    Ok(length)
}

impl<F: ListedFile> Claims<'_, F> {
    /// Left-overs, files that no manifest lists, and ledgers that differ from the manifest.
    fn unlisted(&self, folder: &Path) -> Result<BTreeMap<String, String>> {
        let mut wrong = BTreeMap::new();
        let known: BTreeSet<&str> = self.files.iter().map(ListedFile::output).collect();
        let ledger::LedgerContents { entries, damaged, .. } = ledger::read::<F>(folder)?;
        for (name, lines) in damaged {
            wrong.insert(name, format!("{lines} line(s) are not as they were written"));
        }
        for file in self.files.iter().filter(|_| !entries.is_empty()) {
            let is_recorded =
                entries.get(file.output()).is_some_and(|e| e.iter().any(|e| e.file == *file));
            if !is_recorded {
                let found = "the ledger tells something else than the manifest";
                wrong.insert(file.output().to_string(), found.to_string());
            }
        }
        let mut files = Vec::new();
        walk(folder, folder, &mut files)?;
        for name in files.iter().filter(|name| !known.contains(name.as_str())) {
            let found = match Path::new(name).extension().and_then(|extension| extension.to_str()) {
                Some("part") => "is left over",
                Some("h5" | "csv") => "is not in the manifest",
                _ => continue,
            };
            wrong.insert(name.clone(), found.to_string());
        }
        Ok(wrong)
    }
}

/// Files below a folder, relative to it; hidden ones and the ledgers are passed over. Links to
/// folders are not followed: no output is written through one.
fn walk(root: &Path, folder: &Path, files: &mut Vec<String>) -> Result<()> {
    let unreadable =
        |e: std::io::Error| Fault::new("cannot list").file(folder).found(e).environment();
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        let path = entry.path();
        let name = path.strip_prefix(root).unwrap_or(&path).display().to_string();
        if name.starts_with('.') || name == ledger::FOLDER {
            continue;
        }
        if entry.file_type().map_err(unreadable)?.is_dir() {
            walk(root, &path, files)?;
        } else {
            files.push(name);
        }
    }
    Ok(())
}

impl std::fmt::Display for OutputVerification {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let OutputVerification { files, rows, bytes, wrong, failed, has_ledger, .. } = self;
        writeln!(f, "verified {files} file(s), {rows} rows, {bytes} bytes")?;
        if !has_ledger {
            writeln!(f, "no ledger: compared with the manifest alone; its inputs are not known")?;
        }
        for input in &self.absent_inputs {
            writeln!(f, "not looked at: the input {input} is not here")?;
        }
        wrong.iter().try_for_each(|(file, why)| writeln!(f, "wrong: {file}: {why}"))?;
        failed.iter().try_for_each(|(file, why)| writeln!(f, "failed: {file}: {why}"))
    }
}
