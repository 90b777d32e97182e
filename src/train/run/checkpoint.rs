//! Checkpoints: a folder per step, whole or not there, each file with size and blake3
//! in a manifest that is written last.
//!
//! `step-N.part/` is filled, synced and renamed to `step-N/`. Resuming takes the newest
//! one whose manifest verifies; a torn or altered one is passed over with a warning. The
//! manifest carries its own checksum: a flipped bit in the hash of the run must read as
//! damage, and not as a checkpoint of another run.

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
/// Largest file of a checkpoint read: five times the largest flow is below.
const LARGEST_FILE: u64 = 16 << 30;
const LARGEST_MANIFEST: u64 = 1 << 16;

/// Bytes of a checkpoint's weights: parameters, running mean, two moments, the best so far.
pub fn bytes(parameters: usize) -> u64 {
    parameters as u64 * 5 * 4
}

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
    /// blake3 of this manifest as JSON with an empty checksum.
    checksum: String,
}

impl Manifest {
    fn to_bytes(&self) -> Result<Vec<u8>> {
        serde_json::to_vec_pretty(self)
            .map_err(|e| Fault::new("cannot write the manifest").found(e).internal())
    }

    fn sealed(self) -> Result<Manifest> {
        let open = Manifest { checksum: String::new(), ..self };
        let checksum = blake3::hash(&open.to_bytes()?).to_hex().to_string();
        Ok(Manifest { checksum, ..open })
    }

    /// The manifest in the bytes of its file, which must be the very ones written.
    fn from_bytes(bytes: &[u8]) -> Result<Manifest> {
        let damaged =
            |e: &dyn std::fmt::Display| Fault::new("not a whole checkpoint").found(e).input();
        let manifest: Manifest = serde_json::from_slice(bytes).map_err(|e| damaged(&e))?;
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
    storage::sweep_folder(folder)?;
    let target = folder.join(format!("step-{}", state.progress.step));
    let part = storage::part_path(&target);
    let filled = fill(&part, state, identity).and_then(|()| {
        storage::remove_folder(&target)?;
        storage::publish_folder(&part, &target)
    });
    if filled.is_err() {
        // Already failing: a second error here could only hide the first.
        let _ = storage::remove_folder(&part);
    }
    filled?;
    for old in list(folder)?.iter().rev().skip(keep.max(1)) {
        storage::remove_folder(&folder.join(format!("step-{old}")))?;
    }
    Ok(())
}

/// Writes the files of a checkpoint into a new folder, the manifest last.
fn fill(part: &Path, state: &TrainState, identity: Identity) -> Result<()> {
    storage::create_folder(part)?;
    let (weights, progress) = state.to_bytes()?;
    let mut files = BTreeMap::new();
    for (name, bytes) in [(WEIGHTS, &weights), (PROGRESS, &progress)] {
        storage::write_file(&part.join(name), bytes)?;
        files.insert(name.to_string(), FileEntry::of(bytes));
    }
    let manifest = Manifest {
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

/// Whether there is any checkpoint, whole or not.
pub fn any(folder: &Path) -> bool {
    list(folder).is_ok_and(|steps| !steps.is_empty())
}

/// Step of the newest checkpoint that has its final name.
pub fn newest_step(folder: &Path) -> Option<u64> {
    list(folder).ok()?.last().copied()
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
    let manifest = Manifest::from_bytes(&read_file(&path.join(MANIFEST), LARGEST_MANIFEST)?)
        .map_err(|e| e.in_file(path))?;
    let file = |name: &str| -> Result<Vec<u8>> {
        let length = manifest.files.get(name).map_or(0, |entry| entry.bytes);
        let bytes = read_file(&path.join(name), length.min(LARGEST_FILE))?;
        if manifest.files.get(name) != Some(&FileEntry::of(&bytes)) {
            return Err(damaged(&format!("{name} does not match the manifest")));
        }
        Ok(bytes)
    };
    let state = TrainState::from_bytes(&file(WEIGHTS)?, &file(PROGRESS)?, parameters)
        .map_err(|e| e.in_file(path))?;
    let flows = state.progress.best.len() as u64;
    if flows == 0 || state.progress.loss.len() as u64 != flows * manifest.shards {
        return Err(damaged(&format!("losses of {} shards", state.progress.loss.len())));
    }
    Ok((manifest, state))
}

/// A file of at most `largest` bytes.
fn read_file(path: &Path, largest: u64) -> Result<Vec<u8>> {
    let unreadable =
        |e: &dyn std::fmt::Display| Fault::new("cannot read").file(path).found(e).input();
    let size = std::fs::metadata(path).map_err(|e| unreadable(&e))?.len();
    if size > largest {
        return Err(unreadable(&format!("{size} bytes, expected at most {largest}")));
    }
    std::fs::read(path).map_err(|e| unreadable(&e))
}

/// Refuses a checkpoint whose files are not those of its manifest; returns the hash of its run.
pub fn verify(path: &Path) -> Result<String> {
    let manifest = Manifest::from_bytes(&read_file(&path.join(MANIFEST), LARGEST_MANIFEST)?)
        .map_err(|e| e.in_file(path))?;
    for (name, entry) in &manifest.files {
        let bytes = read_file(&path.join(name), entry.bytes.min(LARGEST_FILE))?;
        if *entry != FileEntry::of(&bytes) {
            let fault = Fault::new("not a whole checkpoint").file(path);
            return Err(fault.found(format!("{name} does not match the manifest")).input());
        }
    }
    Ok(manifest.run_hash)
}

/// Returns the metrics of the finished epochs that the newest whole checkpoint of a folder holds,
/// of those that `is_own` accepts by the hash of their run; `None` where there is none.
pub fn history(folder: &Path, is_own: impl Fn(&str) -> bool) -> Result<Option<Vec<EpochMetrics>>> {
    for step in list(folder)?.iter().rev() {
        let path = folder.join(format!("step-{step}"));
        let read = || -> Result<Option<Progress>> {
            if !is_own(&verify(&path)?) {
                return Ok(None);
            }
            serde_json::from_slice(&read_file(&path.join(PROGRESS), LARGEST_FILE)?)
                .map_err(|e| Fault::new("not a whole checkpoint").file(&path).found(e).input())
        };
        if let Ok(Some(progress)) = read() {
            return Ok(Some(progress.history));
        }
    }
    Ok(None)
}

/// Steps of the checkpoints in a folder, ascending; none if there is no folder.
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
mod tests {
    use super::*;
    use crate::storage::faults::{KINDS, memory_folder, with_fault};
    use taiga_flow_gpu::random::Stream;

    const IDENTITY: Identity = Identity { run_hash: "abc", engine: "cpu", shards: 2 };

    fn state(step: u64) -> TrainState {
        let mut state = TrainState::new(vec![step as f32; 5], 1, 2);
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
            assert_eq!(found.unwrap().unwrap(), state(1), "{name}");
            std::fs::write(&path, &whole).unwrap();
        }
    }

    /// A flipped byte in the hash of the run is damage, not a checkpoint of another run.
    #[test]
    fn a_manifest_with_another_hash_of_the_run_is_damaged_unless_it_was_written_so() {
        let folder = tempfile::tempdir().unwrap();
        save(folder.path(), &state(1), IDENTITY, 3).unwrap();
        save(folder.path(), &state(2), IDENTITY, 3).unwrap();
        let path = folder.path().join("step-2").join(MANIFEST);
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text.replace("\"abc\"", "\"abd\"")).unwrap();
        assert_eq!(newest(folder.path(), IDENTITY, 5, false).unwrap().unwrap(), state(1));
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

    #[test]
    fn whatever_operation_fails_the_newest_checkpoint_is_the_old_or_the_new_one() {
        for kind in KINDS {
            for n in 0.. {
                let folder = memory_folder();
                // The oldest one is removed by the third.
                save(folder.path(), &state(1), IDENTITY, 2).unwrap();
                save(folder.path(), &state(2), IDENTITY, 2).unwrap();
                let action = || save(folder.path(), &state(3), IDENTITY, 2);
                let (outcome, struck) = with_fault(n, kind, action);
                assert!(struck || outcome.is_ok(), "{kind:?} {n}: {outcome:?}");
                let found = newest(folder.path(), IDENTITY, 5, false).unwrap().unwrap();
                let step = found.progress.step;
                assert_eq!(found, state(step), "{kind:?} {n}");
                assert!(step == 3 || (step == 2 && outcome.is_err()), "{kind:?} {n}: {step}");
                // The same step again, as a resumed run would write it.
                save(folder.path(), &state(3), IDENTITY, 2).unwrap();
                let found = newest(folder.path(), IDENTITY, 5, false).unwrap().unwrap();
                assert_eq!(found, state(3));
                assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2, "{kind:?} {n}");
                if !struck {
                    assert!(n > 10, "only {n} operations");
                    break;
                }
            }
        }
    }

    /// Every file of the newest checkpoint damaged in every way: the older one is found.
    #[test]
    fn truncated_anywhere_or_with_any_byte_flipped_a_checkpoint_is_never_loaded() {
        let folder = memory_folder();
        let big = |step| {
            let mut state = TrainState::new((0..1500).map(|i| i as f32 + 0.5).collect(), 1, 2);
            state.progress.step = step;
            state
        };
        save(folder.path(), &big(1), IDENTITY, 3).unwrap();
        save(folder.path(), &big(2), IDENTITY, 3).unwrap();
        let older = |what: &str| {
            let found = newest(folder.path(), IDENTITY, 1500, false).unwrap().unwrap();
            assert_eq!(found, big(1), "{what}");
        };
        let stream = Stream::new(u64::from(std::process::id()), "flips", &[]);
        println!("flips of process {}", std::process::id());
        for name in [WEIGHTS, PROGRESS, MANIFEST] {
            let path = folder.path().join("step-2").join(name);
            let whole = std::fs::read(&path).unwrap();
            for cut in (0..whole.len()).step_by(512).chain([whole.len() - 1]) {
                std::fs::write(&path, &whole[..cut]).unwrap();
                older(&format!("{name} cut at {cut}"));
            }
            for flip in 0..1000 {
                let at = (stream.bits(2 * flip) % whole.len() as u64) as usize;
                let by = (stream.bits(2 * flip + 1) % 255 + 1) as u8;
                let mut flipped = whole.clone();
                flipped[at] ^= by;
                std::fs::write(&path, &flipped).unwrap();
                older(&format!("{name}, byte {at} by {by}"));
            }
            std::fs::write(&path, [&whole[..], b" "].concat()).unwrap();
            older(&format!("{name} with a byte more"));
            std::fs::remove_file(&path).unwrap();
            older(&format!("no {name}"));
            std::fs::write(&path, &whole).unwrap();
        }
        assert_eq!(newest(folder.path(), IDENTITY, 1500, false).unwrap().unwrap(), big(2));
    }
}
