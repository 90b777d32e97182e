//! Checkpoints: one folder per step, published atomically, with size and blake3 of each file in a
//! manifest.
//!
//! `step-N.part/` is filled, the manifest last, then synced and renamed to `step-N/`. Resuming uses
//! the newest checkpoint whose manifest verifies; a damaged one is skipped with a warning. The
//! manifest has its own checksum: a flipped bit in the hash of the run must be detected as damage,
//! not as a checkpoint of a different run.

use crate::error::{Fault, Result};
use crate::metrics::EpochMetrics;
use crate::storage;
use crate::train::state::{Progress, TrainState};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const WEIGHTS: &str = "state.safetensors";
const PROGRESS: &str = "progress.json";
const MANIFEST: &str = "manifest.json";
const FORMAT: &str = "taiga-flow-checkpoint 2";
/// Largest file of a checkpoint that is read; five times the largest flow is smaller.
const LARGEST_FILE: u64 = 16 << 30;
const LARGEST_MANIFEST: u64 = 1 << 16;

/// Returns the bytes of a checkpoint's weights: parameters, running mean, two moments, the best so
/// far.
pub fn bytes(parameters: usize) -> u64 {
    parameters as u64 * 5 * 4
}

/// Identity of a checkpoint, and its files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointManifest {
    pub format: String,
    pub step: u64,
    /// Hash of the configuration without `[run]` and of the content of the data.
    pub run_hash: String,
    /// Device class: bits are equal within one.
    pub engine: String,
    pub shards: u64,
    files: BTreeMap<String, FileEntry>,
    /// blake3 of this manifest as JSON with an empty checksum.
    checksum: String,
}

impl CheckpointManifest {
    fn to_bytes(&self) -> Result<Vec<u8>> {
        serde_json::to_vec_pretty(self)
            .map_err(|e| Fault::new("cannot write the manifest").found(e).internal())
    }

    fn sealed(self) -> Result<CheckpointManifest> {
        let open = CheckpointManifest { checksum: String::new(), ..self };
        let checksum = blake3::hash(&open.to_bytes()?).to_hex().to_string();
        Ok(CheckpointManifest { checksum, ..open })
    }

    /// Parses the bytes of a manifest, which must be exactly those that were written.
    fn from_bytes(bytes: &[u8]) -> Result<CheckpointManifest> {
        let damaged = |e: &dyn std::fmt::Display| Fault::new("invalid checkpoint").found(e).input();
        let manifest: CheckpointManifest =
            serde_json::from_slice(bytes).map_err(|e| damaged(&e))?;
        if manifest.format != FORMAT {
            return Err(damaged(&format!("format '{}'", manifest.format)));
        }
        let sealed = manifest.clone().sealed()?;
        if sealed.to_bytes()? != bytes {
            return Err(damaged(&"a manifest that does not match its checksum"));
        }
        Ok(manifest)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct FileEntry {
    bytes: u64,
    blake3: String,
}

impl FileEntry {
    fn of(bytes: &[u8]) -> FileEntry {
        FileEntry { bytes: bytes.len() as u64, blake3: blake3::hash(bytes).to_hex().to_string() }
    }
}

/// Values that a checkpoint must have to be resumed by this run.
#[derive(Debug, Clone, Copy)]
pub struct CheckpointIdentity<'a> {
    pub run_hash: &'a str,
    pub engine: &'a str,
    pub shards: u64,
}

/// Writes `folder/step-N`, then removes all but the newest `keep`. Every state includes the best
/// weights so far.
///
/// # Errors
/// Environment error if the files cannot be written.
pub fn save(
    folder: &Path,
    state: &TrainState,
    identity: CheckpointIdentity,
    keep: usize,
) -> Result<()> {
    storage::sweep_folder(folder)?;
    let target = folder.join(format!("step-{}", state.progress.step));
    let part = storage::part_path(&target);
    let filled = fill(&part, state, identity).and_then(|()| {
        storage::remove_folder(&target)?;
        storage::publish_folder(&part, &target)
    });
    if filled.is_err() {
        // An error is already being reported: a second one could only hide it.
        let _ = storage::remove_folder(&part);
    }
    filled?;
    for old in list(folder)?.iter().rev().skip(keep.max(1)) {
        storage::remove_folder(&folder.join(format!("step-{old}")))?;
    }
    Ok(())
}

/// Writes the files of a checkpoint into a new folder, the manifest last.
fn fill(part: &Path, state: &TrainState, identity: CheckpointIdentity) -> Result<()> {
    storage::create_folder(part)?;
    let (weights, progress) = state.to_bytes()?;
    let mut files = BTreeMap::new();
    for (name, bytes) in [(WEIGHTS, &weights), (PROGRESS, &progress)] {
        storage::write_file(&part.join(name), bytes)?;
        files.insert(name.to_string(), FileEntry::of(bytes));
    }
    let manifest = CheckpointManifest {
        format: FORMAT.to_string(),
        step: state.progress.step,
        run_hash: identity.run_hash.to_string(),
        engine: identity.engine.to_string(),
        shards: identity.shards,
        files,
        checksum: String::new(),
    };
    storage::write_file(&part.join(MANIFEST), &manifest.sealed()?.to_bytes()?)
}

/// Returns whether there is any checkpoint, complete or not.
pub fn any(folder: &Path) -> bool {
    list(folder).is_ok_and(|steps| !steps.is_empty())
}

/// Returns the step of the newest checkpoint with its final name.
pub fn newest_step(folder: &Path) -> Option<u64> {
    list(folder).ok()?.last().copied()
}

/// Returns the newest checkpoint that verifies; `None` if there is no checkpoint at all. A
/// different configuration, data, number of shards or engine is an error.
///
/// # Errors
/// Usage error if the newest checkpoint belongs to a different run; input error if none can be read.
pub fn newest(
    folder: &Path,
    identity: CheckpointIdentity,
    parameters: usize,
    allow_engine_change: bool,
) -> Result<Option<TrainState>> {
    let steps = list(folder)?;
    for step in steps.iter().rev() {
        let path = folder.join(format!("step-{step}"));
        match read(&path, parameters) {
            Ok((manifest, state)) => {
                check(&manifest, &path, identity, allow_engine_change)?;
                return Ok(Some(state));
            }
            Err(error) => log::warn!("skipping a damaged checkpoint: {error}"),
        }
    }
    if steps.is_empty() {
        return Ok(None);
    }
    Err(Fault::new("no checkpoint of this run can be read")
        .file(folder)
        .found(format!("{} damaged ones", steps.len()))
        .advice("start again in another folder, or with --resume never")
        .input())
}

/// Returns an error if a checkpoint does not belong to this run.
fn check(
    manifest: &CheckpointManifest,
    path: &Path,
    identity: CheckpointIdentity,
    allow_engine_change: bool,
) -> Result<()> {
    let fault = |what: &str, expected: &str, found: &str, advice: &str| {
        Err(Fault::new(what).file(path).expected(expected).found(found).advice(advice).usage())
    };
    if manifest.run_hash != identity.run_hash {
        return fault(
            "the checkpoint has a different configuration or different data",
            identity.run_hash,
            &manifest.run_hash,
            "resume with the configuration and files of the first start, or choose another folder",
        );
    }
    if manifest.shards != identity.shards {
        let (expected, found) = (identity.shards.to_string(), manifest.shards.to_string());
        return fault(
            "the checkpoint has a different number of shards",
            &expected,
            &found,
            "set train.shards",
        );
    }
    if manifest.engine != identity.engine && !allow_engine_change {
        return fault(
            "the checkpoint was written on a different kind of device",
            identity.engine,
            &manifest.engine,
            "choose that --engine, or use --allow-engine-change (bits will differ)",
        );
    }
    Ok(())
}

/// Reads and verifies a checkpoint.
fn read(path: &Path, parameters: usize) -> Result<(CheckpointManifest, TrainState)> {
    let manifest =
        CheckpointManifest::from_bytes(&read_file(&path.join(MANIFEST), LARGEST_MANIFEST)?)
            .map_err(|e| e.in_file(path))?;
    let file = |name: &str| read_listed(path, &manifest, name);
    let state = TrainState::from_bytes(&file(WEIGHTS)?, &file(PROGRESS)?, parameters)
        .map_err(|e| e.in_file(path))?;
    let flows = state.progress.best.len() as u64;
    if flows == 0 || state.progress.loss.len() as u64 != flows * manifest.shards {
        let found = format!("losses of {} shards", state.progress.loss.len());
        return Err(Fault::new("invalid checkpoint").file(path).found(found).input());
    }
    Ok((manifest, state))
}

/// Reads a file of a checkpoint that must match its entry in the manifest.
fn read_listed(path: &Path, manifest: &CheckpointManifest, name: &str) -> Result<Vec<u8>> {
    let length = manifest.files.get(name).map_or(0, |entry| entry.bytes);
    let bytes = read_file(&path.join(name), length.min(LARGEST_FILE))?;
    if manifest.files.get(name) != Some(&FileEntry::of(&bytes)) {
        let found = format!("{name} does not match the manifest");
        return Err(Fault::new("invalid checkpoint").file(path).found(found).input());
    }
    Ok(bytes)
}

/// Reads a file of at most `largest` bytes.
fn read_file(path: &Path, largest: u64) -> Result<Vec<u8>> {
    let unreadable =
        |e: &dyn std::fmt::Display| Fault::new("cannot read").file(path).found(e).input();
    let size = std::fs::metadata(path).map_err(|e| unreadable(&e))?.len();
    if size > largest {
        return Err(unreadable(&format!("{size} bytes, expected at most {largest}")));
    }
    std::fs::read(path).map_err(|e| unreadable(&e))
}

/// Verifies the files of a checkpoint against its manifest; returns the hash of its run.
///
/// # Errors
/// Input error if a file is missing or damaged.
pub fn verify(path: &Path) -> Result<String> {
    let manifest =
        CheckpointManifest::from_bytes(&read_file(&path.join(MANIFEST), LARGEST_MANIFEST)?)
            .map_err(|e| e.in_file(path))?;
    for (name, entry) in &manifest.files {
        let bytes = read_file(&path.join(name), entry.bytes.min(LARGEST_FILE))?;
        if *entry != FileEntry::of(&bytes) {
            let fault = Fault::new("invalid checkpoint").file(path);
            return Err(fault.found(format!("{name} does not match the manifest")).input());
        }
    }
    Ok(manifest.run_hash)
}

/// Returns the metrics of the finished epochs in the newest complete checkpoint of a folder whose
/// run hash `is_own` accepts; `None` if there is none.
pub fn history(folder: &Path, is_own: impl Fn(&str) -> bool) -> Result<Option<Vec<EpochMetrics>>> {
    for step in list(folder)?.iter().rev() {
        if let Ok(Some(progress)) = progress(&folder.join(format!("step-{step}")), &is_own) {
            return Ok(Some(progress.history));
        }
    }
    Ok(None)
}

/// Reads the progress of a verified checkpoint; `None` if `is_own` does not accept its run hash.
fn progress(path: &Path, is_own: impl Fn(&str) -> bool) -> Result<Option<Progress>> {
    if !is_own(&verify(path)?) {
        return Ok(None);
    }
    serde_json::from_slice(&read_file(&path.join(PROGRESS), LARGEST_FILE)?)
        .map(Some)
        .map_err(|e| Fault::new("invalid checkpoint").file(path).found(e).input())
}

/// Returns the steps of the checkpoints in a folder, ascending; none if there is no folder.
///
/// # Errors
/// Environment error if the folder cannot be listed.
pub fn list(folder: &Path) -> Result<Vec<u64>> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let unreadable =
        |e: std::io::Error| Fault::new("cannot list").file(folder).found(e).environment();
    let mut steps = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let name: PathBuf = entry.map_err(unreadable)?.file_name().into();
        if let Some(step) = name.to_str().and_then(|n| n.strip_prefix("step-")?.parse().ok()) {
            steps.push(step);
        }
    }
    steps.sort_unstable();
    Ok(steps)
}

#[cfg(test)]
mod tests;
