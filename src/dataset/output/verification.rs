//! Compares an output folder with its manifest and ledgers.
//!
//! Every listed file must exist and have its recorded hash, and no other output may be in the
//! folder. The files are distributed over the ranks.

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

/// Result of the comparison.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputVerification {
    pub files: u64,
    pub rows: u64,
    pub bytes: u64,
    /// Whether the folder has a ledger; without one, only the manifest is compared.
    pub has_ledger: bool,
    /// Fault of each file that has one.
    pub wrong: BTreeMap<String, String>,
    /// Files of the folder that are neither outputs nor records of the command.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub other_files: Vec<String>,
    /// Files that no ledger lists, although there is one: compared with the manifest alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unrecorded: Vec<String>,
    /// Inputs given that are not at their place, so that added files cannot be found.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub absent_inputs: Vec<String>,
    /// Inputs that failed, with the reason.
    #[serde(default)]
    pub failed: BTreeMap<String, String>,
}

/// Contents of a manifest.
pub struct Claims<'a, F> {
    pub files: &'a [F],
    /// Rows of all files.
    pub rows: u64,
    /// Input path → why it failed.
    pub failed: &'a BTreeMap<String, FailedFile>,
    /// Outputs that are missing on purpose.
    pub left_out: &'a [String],
}

/// Compares an output folder with its manifest. `look` checks the attributes of a file whose hash
/// is the recorded one, and returns a fault if they differ from the manifest.
pub fn verify<F: ListedFile>(
    comm: &dyn Communicator,
    folder: &Path,
    claims: &Claims<F>,
    look: &dyn Fn(&Path, &F) -> std::result::Result<(), String>,
) -> Result<OutputVerification> {
    let mut wrong = BTreeMap::new();
    let mut bytes = 0;
    let mut unlisted = Unlisted::default();
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
        unlisted = claims.unlisted(folder)?;
        unlisted.absent_inputs = inputs.absent;
    }
    let mut all = OutputVerification {
        files: claims.files.len() as u64,
        rows: claims.rows,
        bytes: 0,
        has_ledger: ledger::exists(folder),
        wrong: BTreeMap::new(),
        other_files: Vec::new(),
        unrecorded: Vec::new(),
        absent_inputs: Vec::new(),
        failed: claims.failed.iter().map(|(file, why)| (file.clone(), why.to_string())).collect(),
    };
    for (bytes, wrong, unlisted) in gather_values(comm, &(bytes, wrong, unlisted))? {
        all.absent_inputs.extend(unlisted.absent_inputs);
        all.other_files.extend(unlisted.other_files);
        all.unrecorded.extend(unlisted.unrecorded);
        all.bytes += bytes;
        all.wrong.extend(wrong);
        all.wrong.extend(unlisted.wrong);
    }
    let rows: u64 = claims.files.iter().map(ListedFile::rows).sum();
    if rows != claims.rows {
        let found = format!("{rows} rows in its files, but {} in its total", claims.rows);
        all.wrong.insert(MANIFEST.to_string(), found);
    }
    mark_shared(Ok(all))
}

/// Returns the length of a file [bytes], or its fault if it differs from the manifest.
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

/// Findings of rank 0 about the folder as a whole.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Unlisted {
    wrong: BTreeMap<String, String>,
    other_files: Vec<String>,
    unrecorded: Vec<String>,
    absent_inputs: Vec<String>,
}

impl<F: ListedFile> Claims<'_, F> {
    /// Finds left-overs, files that the manifest does not list, and ledgers that differ from the
    /// manifest.
    fn unlisted(&self, folder: &Path) -> Result<Unlisted> {
        let mut found = Unlisted::default();
        let known: BTreeSet<&str> = self.files.iter().map(ListedFile::output).collect();
        let ledger::LedgerContents { entries, damaged, .. } = ledger::read::<F>(folder)?;
        for (name, lines) in damaged {
            found.wrong.insert(name, format!("{lines} line(s) are not as they were written"));
        }
        for file in self.files.iter().filter(|_| ledger::exists(folder)) {
            match entries.get(file.output()) {
                // The ledger was removed, or has been since the file was written: its hash is
                // that of the manifest, which was compared.
                None => found.unrecorded.push(file.output().to_string()),
                Some(entries) if entries.iter().any(|entry| entry.file == *file) => {}
                Some(_) => {
                    let text = "the ledger and the manifest have different entries";
                    found.wrong.insert(file.output().to_string(), text.to_string());
                }
            }
        }
        let mut files = Vec::new();
        walk(folder, folder, &mut files)?;
        for name in files.into_iter().filter(|name| !known.contains(name.as_str())) {
            let text = match Path::new(&name).extension().and_then(|extension| extension.to_str()) {
                Some("part") => "is left over",
                Some("h5" | "csv") => "is not in the manifest",
                _ if name == MANIFEST => continue,
                _ => {
                    found.other_files.push(name);
                    continue;
                }
            };
            found.wrong.insert(name, text.to_string());
        }
        found.other_files.sort();
        Ok(found)
    }
}

/// Lists the files below a folder, relative to it, without the ledgers and hidden entries at the
/// top. Links to folders are not followed, because no output is written through one.
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
        let and_more = |names: &[String]| match names {
            [one] => one.clone(),
            [first, ..] => format!("{first} and {} more", names.len() - 1),
            [] => String::new(),
        };
        writeln!(f, "verified {files} file(s), {rows} rows, {bytes} bytes")?;
        if !has_ledger {
            writeln!(f, "no ledger: compared with the manifest alone; its inputs are not known")?;
        }
        for input in &self.absent_inputs {
            writeln!(f, "not looked at: the input {input} is not here")?;
        }
        if !self.unrecorded.is_empty() {
            let names = and_more(&self.unrecorded);
            writeln!(f, "no line in the ledger, compared with the manifest alone: {names}")?;
        }
        if !self.other_files.is_empty() {
            let names = and_more(&self.other_files);
            writeln!(f, "warning: files that are not outputs of this command: {names}")?;
        }
        wrong.iter().try_for_each(|(file, why)| writeln!(f, "wrong: {file}: {why}"))?;
        failed.iter().try_for_each(|(file, why)| writeln!(f, "failed: {file}: {why}"))
    }
}
