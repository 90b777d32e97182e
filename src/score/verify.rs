//! Whether an output folder is what its manifest says: every file there, whole and
//! unchanged, nothing missing and nothing beside it. Ranks share the files.

use super::output::FORMAT;
use super::{MANIFEST, ScoredFile, Summary, given, ledger, pieces};
use crate::data::catalog;
use crate::data::finished::FinishedFile;
use crate::error::{Fault, Result};
use crate::world::{Work, World, agree, common, is_root};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verification {
    pub files: u64,
    pub rows: u64,
    pub bytes: u64,
    /// What is wrong, by file.
    pub wrong: BTreeMap<String, String>,
}

/// Verifies an output folder of `score`.
pub fn verify(world: &dyn World, folder: &Path) -> Result<Verification> {
    let manifest = folder.join(MANIFEST);
    let read = Summary::read(&manifest).and_then(|summary| {
        summary.filter(|summary| summary.complete).ok_or_else(|| {
            Fault::new("the scoring is not complete")
                .file(folder)
                .expected(format!("a {MANIFEST}"))
                .advice("run the same `taiga-flow score` again to finish it")
                .input()
        })
    });
    let summary = agree(world, read)?;
    let mut wrong = BTreeMap::new();
    let mut bytes = 0;
    for (i, file) in summary.files.iter().enumerate() {
        if i % world.size() != world.rank() {
            continue;
        }
        let progress = || world.progress(Work::Hashing, i as u64);
        match check(folder, file, &summary, &progress) {
            Ok(length) => bytes += length,
            Err(found) => {
                wrong.insert(file.output.clone(), found);
            }
        }
    }
    if is_root(world) {
        wrong.extend(duplicates(&summary));
        wrong.extend(given::missing(folder, &summary));
        wrong.extend(beside(folder, &summary)?);
        let failed = summary.failed.iter();
        wrong.extend(failed.map(|(file, why)| (file.clone(), format!("was not scored: {why}"))));
    }
    let broken = |e: serde_json::Error| Fault::new("cannot exchange findings").found(e).internal();
    let mut all = Verification {
        files: summary.files.len() as u64,
        rows: summary.rows,
        bytes: 0,
        wrong: BTreeMap::new(),
    };
    let mine = serde_json::to_vec(&(bytes, wrong)).map_err(broken)?;
    for told in world.all_gather(&mine)? {
        let (bytes, wrong): (u64, BTreeMap<String, String>) =
            serde_json::from_slice(&told).map_err(broken)?;
        all.bytes += bytes;
        all.wrong.extend(wrong);
    }
    let rows: u64 = summary.files.iter().map(|file| file.rows).sum();
    if rows != summary.rows {
        let found = format!("{rows} rows in its files, not the {} it tells", summary.rows);
        all.wrong.insert(MANIFEST.to_string(), found);
    }
    common(Ok(all))
}

/// Outputs, and contents of inputs, that the manifest lists twice: their events would be
/// counted twice.
fn duplicates(summary: &Summary) -> BTreeMap<String, String> {
    let (mut outputs, mut inputs) = (BTreeSet::new(), BTreeMap::new());
    let mut wrong = BTreeMap::new();
    for file in &summary.files {
        if !outputs.insert(&file.output) {
            wrong.insert(file.output.clone(), "is listed twice in the manifest".to_string());
        } else if let Some(other) = inputs.insert(&file.input_blake3, &file.output) {
            let found = format!("has the same input as {other}: its events count twice");
            wrong.insert(file.output.clone(), found);
        }
    }
    wrong
}

/// Bytes of a file that is as the manifest says, or what is wrong with it.
fn check(
    folder: &Path,
    file: &ScoredFile,
    summary: &Summary,
    progress: &dyn Fn(),
) -> std::result::Result<u64, String> {
    let path = folder.join(&file.output);
    let length = std::fs::metadata(&path).map_err(|e| format!("cannot be read: {e}"))?.len();
    let hash = catalog::hash_file_telling(&path, progress).map_err(|e| e.to_string())?;
    let hash = catalog::hash_text(&hash);
    if hash != file.output_blake3 {
        return Err(format!("blake3 is {hash}, not {}", file.output_blake3));
    }
    if path.extension().is_some_and(|extension| extension == "h5") {
        let open = FinishedFile::open(&path, FORMAT).ok_or("is no complete score file")?;
        let made_of =
            [("model_blake3", &summary.model_blake3), ("input_blake3", &file.input_blake3)];
        for (name, expected) in made_of {
            if open.text(name).as_ref() != Some(expected) {
                return Err(format!("says another {name} than the manifest"));
            }
        }
        if open.rows() != Some(file.rows) {
            return Err(format!("holds {:?} rows, not {}", open.rows(), file.rows));
        }
    }
    Ok(length)
}

/// What is wrong beside the files of the manifest: left-overs, and files that nobody knows.
fn beside(folder: &Path, summary: &Summary) -> Result<BTreeMap<String, String>> {
    let mut wrong = BTreeMap::new();
    let known: BTreeSet<&str> = summary.files.iter().map(|file| file.output.as_str()).collect();
    if folder.join(pieces::FOLDER).exists() {
        wrong.insert(pieces::FOLDER.to_string(), "is left over".to_string());
    }
    let ledger::Told { entries, damaged } = ledger::read(folder)?;
    for (name, lines) in damaged {
        wrong.insert(name, format!("{lines} line(s) are not as they were written"));
    }
    for file in summary.files.iter().filter(|_| !entries.is_empty()) {
        let told = entries.get(&file.output).is_some_and(|e| e.iter().any(|e| e.file == *file));
        if !told {
            let found = "the ledger tells something else than the manifest";
            wrong.insert(file.output.clone(), found.to_string());
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

/// Files below a folder, relative to it; hidden ones and the ledgers are passed over.
fn walk(root: &Path, folder: &Path, files: &mut Vec<String>) -> Result<()> {
    let unreadable =
        |e: std::io::Error| Fault::new("cannot list").file(folder).found(e).environment();
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        let name = path.strip_prefix(root).unwrap_or(&path).display().to_string();
        if name.starts_with('.') || name == ledger::FOLDER {
            continue;
        }
        if path.is_dir() {
            walk(root, &path, files)?;
        } else {
            files.push(name);
        }
    }
    Ok(())
}

impl std::fmt::Display for Verification {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Verification { files, rows, bytes, wrong } = self;
        writeln!(f, "verified {files} file(s), {rows} rows, {bytes} bytes")?;
        wrong.iter().try_for_each(|(file, why)| writeln!(f, "wrong: {file}: {why}"))
    }
}
