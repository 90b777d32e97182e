//! Checkpoints: a folder per step, whole or not there, each file with size and blake3
//! in a manifest that is written last.
//!
//! `step-N.part/` is filled, synced and renamed to `step-N/`. Resuming takes the newest
//! one whose manifest verifies; a torn or altered one is passed over with a warning.

use super::state::TrainState;
use crate::data::durable;
use crate::error::{Fault, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const WEIGHTS: &str = "state.safetensors";
const PROGRESS: &str = "progress.json";
const MANIFEST: &str = "manifest.json";
const FORMAT: &str = "taiga-flow-checkpoint 1";
/// Largest file of a checkpoint read: five times the largest flow is below.
const LARGEST_FILE: u64 = 16 << 30;

/// What a checkpoint belongs to and what its files are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    pub format: String,
    pub step: u64,
    /// Configuration without `[run]`, and the data's content.
    pub run_hash: String,
    /// Device class: bits are equal within one.
    pub engine: String,
    pub shards: u64,
    files: BTreeMap<String, FileEntry>,
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

/// What must be equal for a checkpoint to go on with this run.
#[derive(Debug, Clone, Copy)]
pub struct Identity<'a> {
    pub run_hash: &'a str,
    pub engine: &'a str,
    pub shards: u64,
}

/// Writes `folder/step-N`, then removes all but the newest `keep`. The best weights so
/// far are part of every state.
pub fn save(folder: &Path, state: &TrainState, identity: Identity, keep: usize) -> Result<()> {
    let step = state.progress.step;
    let target = folder.join(format!("step-{step}"));
    let part = durable::part_path(&target);
    durable::remove_folder(&part)?;
    durable::remove_folder(&target)?;
    durable::create_folder(&part)?;
    let (weights, progress) = state.to_bytes()?;
    let mut files = BTreeMap::new();
    for (name, bytes) in [(WEIGHTS, &weights), (PROGRESS, &progress)] {
        durable::write_file(&part.join(name), bytes)?;
        files.insert(name.to_string(), FileEntry::of(bytes));
    }
    let manifest = Manifest {
        format: FORMAT.to_string(),
        step,
        run_hash: identity.run_hash.to_string(),
        engine: identity.engine.to_string(),
        shards: identity.shards,
        files,
    };
    let json = serde_json::to_vec_pretty(&manifest)
        .map_err(|e| Fault::new("cannot write the manifest").found(e).internal())?;
    durable::write_file(&part.join(MANIFEST), &json)?;
    durable::publish_folder(&part, &target)?;
    for old in list(folder)?.iter().rev().skip(keep.max(1)) {
        durable::remove_folder(&folder.join(format!("step-{old}")))?;
    }
    Ok(())
}

/// The newest checkpoint that verifies; `None` if there is no checkpoint at all.
/// Refuses one of another configuration, data, shard count or engine.
pub fn newest(
    folder: &Path,
    identity: Identity,
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
            Err(error) => log::warn!("passing over a damaged checkpoint: {error}"),
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

fn check(
    manifest: &Manifest,
    path: &Path,
    identity: Identity,
    allow_engine_change: bool,
) -> Result<()> {
    let fault = |what: &str, expected: &str, found: &str, advice: &str| {
        Err(Fault::new(what).file(path).expected(expected).found(found).advice(advice).usage())
    };
    if manifest.run_hash != identity.run_hash {
        return fault(
            "the checkpoint is of another configuration or other data",
            identity.run_hash,
            &manifest.run_hash,
            "resume with the configuration and files the run began with, or choose another folder",
        );
    }
    if manifest.shards != identity.shards {
        let (expected, found) = (identity.shards.to_string(), manifest.shards.to_string());
        return fault(
            "the checkpoint has another number of shards",
            &expected,
            &found,
            "set train.shards",
        );
    }
    if manifest.engine != identity.engine && !allow_engine_change {
        return fault(
            "the checkpoint was written on another kind of device",
            identity.engine,
            &manifest.engine,
            "choose that --engine, or give --allow-engine-change (bits will differ)",
        );
    }
    Ok(())
}

fn read(path: &Path, parameters: usize) -> Result<(Manifest, TrainState)> {
    let damaged = |e: &dyn std::fmt::Display| {
        Fault::new("not a whole checkpoint").file(path).found(e).input()
    };
    let manifest: Manifest =
        serde_json::from_slice(&read_file(&path.join(MANIFEST))?).map_err(|e| damaged(&e))?;
    if manifest.format != FORMAT {
        return Err(damaged(&format!("format '{}'", manifest.format)));
    }
    let file = |name: &str| -> Result<Vec<u8>> {
        let bytes = read_file(&path.join(name))?;
        if manifest.files.get(name) != Some(&FileEntry::of(&bytes)) {
            return Err(damaged(&format!("{name} does not match the manifest")));
        }
        Ok(bytes)
    };
    let state = TrainState::from_bytes(&file(WEIGHTS)?, &file(PROGRESS)?, parameters)
        .map_err(|e| e.in_file(path))?;
    Ok((manifest, state))
}

fn read_file(path: &Path) -> Result<Vec<u8>> {
    let unreadable =
        |e: &dyn std::fmt::Display| Fault::new("cannot read").file(path).found(e).input();
    let size = std::fs::metadata(path).map_err(|e| unreadable(&e))?.len();
    if size > LARGEST_FILE {
        return Err(unreadable(&format!("{size} bytes")));
    }
    std::fs::read(path).map_err(|e| unreadable(&e))
}

/// Steps of the checkpoints in a folder, ascending; none if there is no folder.
fn list(folder: &Path) -> Result<Vec<u64>> {
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
mod tests {
    use super::*;

    const IDENTITY: Identity = Identity { run_hash: "abc", engine: "cpu", shards: 2 };

    fn state(step: u64) -> TrainState {
        let mut state = TrainState::new(vec![step as f32; 5], 2);
        state.progress.step = step;
        state
    }

    #[test]
    fn the_newest_is_taken_and_the_last_ones_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        for step in [3, 9, 10, 21] {
            save(folder.path(), &state(step), IDENTITY, 3).unwrap();
        }
        assert_eq!(list(folder.path()).unwrap(), [9, 10, 21]);
        assert_eq!(newest(folder.path(), IDENTITY, 5, false).unwrap().unwrap(), state(21));
    }

    #[test]
    fn a_damaged_checkpoint_is_passed_over_and_never_loaded() {
        let folder = tempfile::tempdir().unwrap();
        save(folder.path(), &state(1), IDENTITY, 3).unwrap();
        save(folder.path(), &state(2), IDENTITY, 3).unwrap();
        for name in [WEIGHTS, PROGRESS, MANIFEST] {
            let path = folder.path().join("step-2").join(name);
            let whole = std::fs::read(&path).unwrap();
            for cut in [0, whole.len() / 2, whole.len() - 1] {
                std::fs::write(&path, &whole[..cut]).unwrap();
                assert_eq!(newest(folder.path(), IDENTITY, 5, false).unwrap().unwrap(), state(1));
            }
            let mut flipped = whole.clone();
            flipped[whole.len() / 2] ^= 1;
            std::fs::write(&path, &flipped).unwrap();
            let found = newest(folder.path(), IDENTITY, 5, false);
            assert!(found.is_err() || found.unwrap().unwrap() == state(1), "{name}");
            std::fs::write(&path, &whole).unwrap();
        }
    }

    #[test]
    fn another_configuration_or_engine_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        save(folder.path(), &state(1), IDENTITY, 3).unwrap();
        let other = Identity { run_hash: "abd", ..IDENTITY };
        assert_eq!(newest(folder.path(), other, 5, false).unwrap_err().exit_code(), 2);
        let other = Identity { engine: "cuda", ..IDENTITY };
        assert_eq!(newest(folder.path(), other, 5, false).unwrap_err().exit_code(), 2);
        assert!(newest(folder.path(), other, 5, true).unwrap().is_some());
    }

    #[test]
    fn no_checkpoint_is_no_error() {
        let folder = tempfile::tempdir().unwrap();
        assert!(newest(&folder.path().join("none"), IDENTITY, 5, false).unwrap().is_none());
    }
}
