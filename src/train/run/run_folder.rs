//! The run folder: who may write it, what stands in it, and whether to go on.
//!
//! One rank (0) writes. A lock file keeps a second job out; the effective configuration
//! says what the folder is of; `provenance.json` keeps one entry per start, the only
//! place where times, hosts and rank counts are written, and its first entry is what
//! makes the folder a run.
//!
//! A run that is to be replaced is set aside in `replaced/` once the new one has read its
//! events, and goes when the new one has a checkpoint or a model. Its provenance is moved
//! first and comes back last, so that after a kill at any point the place of that file
//! tells which of the two runs the folder holds.

use super::checkpoint;
use crate::comm::SIGNS_OF_LIFE;
use crate::comm::preflight::MARK;
use crate::error::{Fault, Result};
use crate::storage;
use crate::storage::lock::{self, OutputLock};
use crate::train::plan::Plan;
use serde_json::{Value, json};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub const MODEL: &str = "model.safetensors";
pub const CONFIG: &str = "config.toml";
pub const METRICS: &str = "metrics.jsonl";
pub const PROVENANCE: &str = "provenance.json";
pub const CHECKPOINTS: &str = "checkpoints";
pub const LOG: &str = "train.log";
/// What is written to see whether there is room, and at most how much.
const ROOM: &str = ".room";
const LARGEST_PROBE: usize = 256 << 20;
const REPORT: &str = "report.html";
/// Where a run stands that another one is about to replace.
const REPLACED: &str = "replaced";
/// All that a run consists of; the provenance leads.
const RUN: [&str; 7] = [PROVENANCE, CONFIG, MODEL, METRICS, LOG, REPORT, CHECKPOINTS];

/// An open run folder; the lock goes with it. One that was new and never came to begin a
/// run goes as well: it would only stand in the way of the next try.
#[derive(Debug)]
pub struct RunFolder {
    pub path: PathBuf,
    /// Device and inode of the folder when it was opened.
    identity: (u64, u64),
    lock: Option<OutputLock>,
    existing: Existing,
    /// The outermost folder that was made for it, if it was not there before.
    made: Option<PathBuf>,
    /// The run in `replaced/` is to go at the next whole state of this one.
    replaces: bool,
}

impl Drop for RunFolder {
    fn drop(&mut self) {
        // Already failing: a second error here could only hide the first. What is not
        // ours keeps the folder.
        let _ = settle(&self.path);
        if !has_run(&self.path) {
            let _ = storage::remove_file(&self.file(CONFIG));
            let _ = storage::remove_file(&self.file(ROOM));
            let _ = storage::remove_file(&self.file(MARK));
            let _ = storage::remove_folder(&self.file(SIGNS_OF_LIFE));
            let _ = storage::remove_file(&self.file(lock::NAME));
            self.lock = None;
            if let Some(outermost) = &self.made {
                storage::remove_if_empty(&self.path, outermost);
            }
        }
    }
}

/// What to do with a folder that holds a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// Go on with it if it is of the same configuration and data.
    Resume,
    /// Refuse it.
    Refuse,
    /// Begin anew in it.
    Replace,
}

impl RunFolder {
    /// Creates or opens the folder, and locks it, waiting for another job at most `timeout`.
    /// Nothing of a run in it is touched yet.
    pub fn open(path: &Path, existing: Existing, timeout: Duration) -> Result<RunFolder> {
        let occupied =
            path.is_dir() && std::fs::read_dir(path).is_ok_and(|mut d| d.next().is_some());
        if occupied && !has_run(path) && !path.join(lock::NAME).is_file() {
            return Err(Fault::new("the output folder holds something else than a run")
                .file(path)
                .advice("choose another folder for -o")
                .usage());
        }
        let made = storage::outermost_missing(path);
        storage::create_folder(path)?;
        let lock = OutputLock::folder(path, timeout)?.map(OutputLock::leaving_files);
        let identity = identity(path)?;
        storage::remove_dead_parts(path, true)?;
        let replaces = settle(path)?;
        if has_run(path) && existing == Existing::Refuse {
            return Err(Fault::new("the run exists already")
                .file(path)
                .advice("resume it with --resume auto, choose another folder, or give --overwrite to begin anew")
                .usage());
        }
        Ok(RunFolder { path: path.to_path_buf(), identity, lock, existing, made, replaces })
    }

    /// Refuses to go on with a run of another configuration.
    pub fn check(&self, plan: &Plan) -> Result<()> {
        if self.existing == Existing::Replace || !has_run(&self.path) {
            return Ok(());
        }
        self.check_same(plan)
    }

    /// Refuses a disk that has no room for a checkpoint: better now than after hours. Only a
    /// write tells, quotas are seen by nothing else.
    pub fn check_room(&self, plan: &Plan) -> Result<()> {
        let probe = self.file(ROOM);
        let bytes = (checkpoint::bytes(plan.parameters) as usize).min(LARGEST_PROBE);
        let written = storage::write_file(&probe, &vec![0; bytes]);
        let removed = storage::remove_file(&probe);
        written.map_err(|error| storage::needing(error, bytes as u64)).and(removed)
    }

    /// Makes the folder that of this run. To be called when everything that can be
    /// refused has been: a run that is to be replaced is set aside now. An unfinished one whose
    /// checkpoints `can_resume` accepts is resumed instead: it is what an earlier start of the
    /// same command has left, and gives the same model.
    pub fn claim(&mut self, plan: &Plan, can_resume: impl FnOnce(&Path) -> bool) -> Result<()> {
        let is_unfinished = !self.file(MODEL).exists();
        if self.existing == Existing::Replace
            && is_unfinished
            && can_resume(&self.file(CHECKPOINTS))
        {
            log::info!("the folder holds this run, unfinished: it is resumed, not replaced");
            self.existing = Existing::Resume;
        }
        if self.existing == Existing::Replace && has_run(&self.path) {
            let aside = self.file(REPLACED);
            if self.replaces {
                // The run here has no whole state yet; the one aside is worth more.
                RUN.iter().try_for_each(|name| remove(&self.file(name)))?;
            } else {
                storage::create_folder(&aside)?;
                move_run(RUN.iter(), &self.path, &aside)?;
                self.replaces = true;
            }
            log::info!(
                "the run that was here stands in {} until the new one has its first checkpoint",
                aside.display()
            );
        }
        storage::write_file(&self.file(CONFIG), plan.config.to_toml()?.as_bytes())
    }

    /// Removes the run that is set aside: this one has a state on disk to go on from.
    pub fn forget_replaced(&mut self) -> Result<()> {
        if std::mem::take(&mut self.replaces) {
            storage::remove_folder(&self.file(REPLACED))?;
        }
        Ok(())
    }

    /// Returns an error if the path no longer leads to the folder that was opened: a folder
    /// that has been moved or removed must not be replaced by half a run in a new one.
    pub fn check_identity(&self) -> Result<()> {
        if identity(&self.path).ok() == Some(self.identity) {
            return Ok(());
        }
        Err(Fault::new(
            "the run folder was moved, removed or replaced while the run was writing it",
        )
        .file(&self.path)
        .expected("the folder that this run has opened")
        .advice("move it back and run the same command again to resume, or choose another folder")
        .environment())
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    fn check_same(&self, plan: &Plan) -> Result<()> {
        let path = self.file(CONFIG);
        let there = crate::config::load(&path, &[])?;
        if there.hash()? == plan.config.hash()? {
            return Ok(());
        }
        Err(Fault::new("the folder holds a run of another configuration")
            .file(&path)
            .expected("the same configuration apart from [run]")
            .advice("choose another folder, or give --overwrite to begin anew")
            .usage())
    }

    /// Adds an entry to `provenance.json`: with it, a run has begun.
    pub fn add_provenance(&mut self, entry: &Value) -> Result<()> {
        let path = self.file(PROVENANCE);
        let starts =
            std::fs::read(&path).ok().and_then(|b| serde_json::from_slice::<Value>(&b).ok());
        let mut starts = starts
            .and_then(|v| v.get("starts").and_then(Value::as_array).cloned())
            .unwrap_or_default();
        starts.push(entry.clone());
        let text = serde_json::to_vec_pretty(&json!({ "starts": starts }))
            .map_err(|e| Fault::new("cannot write the provenance").found(e).internal())?;
        storage::write_file(&path, &text)
    }
}

/// Device and inode of a folder.
fn identity(path: &Path) -> Result<(u64, u64)> {
    let metadata = std::fs::metadata(path)
        .map_err(|e| storage::disk_fault("look at", path, &e.to_string(), e.kind()))?;
    Ok((metadata.dev(), metadata.ino()))
}

/// Whether a folder holds anything of a run that a job would resume or `verify` checks.
pub fn holds_run(path: &Path) -> bool {
    has_run(path) || path.join(CHECKPOINTS).is_dir() || path.join(MODEL).is_file()
}

/// Refuses the folder of a run as the output of another command.
///
/// # Errors
/// `Usage`.
pub fn refuse_run(path: &Path) -> Result<()> {
    if !holds_run(path) {
        return Ok(());
    }
    Err(Fault::new("the output folder holds a run")
        .file(path)
        .expected("a folder of its own for the output")
        .advice(format!("choose a folder below it, such as {}", path.join("scores").display()))
        .usage())
}

/// A run has begun here: it has left a provenance.
fn has_run(path: &Path) -> bool {
    path.join(PROVENANCE).is_file()
}

/// Puts in order what a kill may have left: brings back a run that was set aside for one
/// that never began, and removes one that has been replaced for good. Returns whether a
/// run is still set aside.
fn settle(path: &Path) -> Result<bool> {
    let aside = path.join(REPLACED);
    if !has_run(&aside) {
        // Empty: its run is in place, not yet moved or moved back.
        storage::remove_folder(&aside)?;
        return Ok(false);
    }
    if !has_run(path) {
        move_run(RUN.iter().rev(), &aside, path)?;
        storage::remove_folder(&aside)?;
        return Ok(false);
    }
    if path.join(MODEL).is_file() || checkpoint::any(&path.join(CHECKPOINTS)) {
        storage::remove_folder(&aside)?;
        return Ok(false);
    }
    Ok(true)
}

/// Moves what there is of a run, in the order given; what stands in the way goes.
fn move_run<'a>(
    mut names: impl Iterator<Item = &'a &'a str>,
    from: &Path,
    to: &Path,
) -> Result<()> {
    names.try_for_each(|name| {
        let source = from.join(name);
        if std::fs::symlink_metadata(&source).is_err() {
            return Ok(());
        }
        remove(&to.join(name))?;
        storage::move_to(&source, &to.join(name))
    })
}

fn remove(path: &Path) -> Result<()> {
    if path.is_dir() { storage::remove_folder(path) } else { storage::remove_file(path) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comm::Solo;
    use crate::config::{self, Class};
    use crate::simulate;
    use crate::storage::faults::{KINDS, memory_folder, with_fault};

    const SHORT: Duration = Duration::from_millis(100);

    /// A plan on a few toy events in `folder`.
    fn plan(folder: &Path) -> Plan {
        let output = folder.join("gamma.h5");
        let (class, events, seed) = (Class::Gamma, 50, 1);
        let options =
            simulate::Options { output: output.clone(), class, events, seed, overwrite: false };
        simulate::run(&options).unwrap();
        let columns = "[features]\ncolumns = [{name = \"size\"}, {name = \"width\"}]";
        let text = format!("[data]\ngamma = [{:?}]\n{columns}\n", output.display().to_string());
        Plan::new(&Solo, &config::parse(&text, &[]).unwrap()).unwrap()
    }

    /// What a run with a checkpoint and a model leaves.
    fn old_run(path: &Path, plan: &Plan) {
        let mut folder = RunFolder::open(path, Existing::Resume, SHORT).unwrap();
        folder.claim(plan, |_| false).unwrap();
        folder.add_provenance(&json!("old")).unwrap();
        for name in [MODEL, METRICS, LOG, "checkpoints/step-5/manifest.json"] {
            storage::write_file(&path.join(name), b"old").unwrap();
        }
    }

    fn is_old(path: &Path) -> bool {
        let is_old = |name: &&str| std::fs::read(path.join(name)).is_ok_and(|b| b == b"old");
        has_run(path)
            && path.join(CONFIG).is_file()
            && [MODEL, METRICS, LOG, "checkpoints/step-5/manifest.json"].iter().all(is_old)
    }

    /// Begins a run in place of the old one, up to its first checkpoint.
    fn replace(path: &Path, plan: &Plan) -> Result<()> {
        let mut folder = RunFolder::open(path, Existing::Replace, SHORT)?;
        folder.claim(plan, |_| false)?;
        folder.add_provenance(&json!("new"))?;
        storage::write_file(&path.join(METRICS), b"new")?;
        storage::write_file(&path.join("checkpoints/step-1/manifest.json"), b"new")?;
        folder.forget_replaced()
    }

    #[test]
    fn whatever_operation_fails_the_old_run_or_the_new_one_is_whole() {
        let inputs = tempfile::tempdir().unwrap();
        let plan = plan(inputs.path());
        for kind in KINDS {
            for n in 0.. {
                let folder = memory_folder();
                let path = folder.path().join("run");
                old_run(&path, &plan);
                let (outcome, struck) = with_fault(n, kind, || replace(&path, &plan));
                assert!(struck || outcome.is_ok(), "{kind:?} {n}: {outcome:?}");
                drop(RunFolder::open(&path, Existing::Resume, SHORT).unwrap());
                let new = checkpoint::any(&path.join(CHECKPOINTS)) && !is_old(&path);
                let aside = is_old(&path.join(REPLACED));
                assert!(is_old(&path) || aside || new, "{kind:?} {n}: both runs are lost");
                assert!(outcome.is_err() || (new && !aside), "{kind:?} {n}");
                // Asked again, it is done, and nothing of the old one is left.
                replace(&path, &plan).unwrap();
                assert!(!path.join(REPLACED).exists() && !path.join(MODEL).exists());
                if !struck {
                    assert!(n > 20, "only {n} operations");
                    break;
                }
            }
        }
    }

    #[test]
    fn a_refusal_brings_the_old_run_back_as_it_was() {
        let inputs = tempfile::tempdir().unwrap();
        let plan = plan(inputs.path());
        let path = inputs.path().join("run");
        old_run(&path, &plan);
        drop(RunFolder::open(&path, Existing::Replace, SHORT).unwrap());
        assert!(is_old(&path));
        let mut folder = RunFolder::open(&path, Existing::Replace, SHORT).unwrap();
        folder.claim(&plan, |_| false).unwrap();
        assert!(is_old(&path.join(REPLACED)) && !is_old(&path));
        drop(folder); // refused after all, before the new run began
        assert!(is_old(&path) && !path.join(REPLACED).exists());
    }

    #[test]
    fn a_third_run_in_place_of_one_without_a_checkpoint_keeps_the_first() {
        let inputs = tempfile::tempdir().unwrap();
        let plan = plan(inputs.path());
        let path = inputs.path().join("run");
        old_run(&path, &plan);
        for _ in 0..2 {
            let mut folder = RunFolder::open(&path, Existing::Replace, SHORT).unwrap();
            folder.claim(&plan, |_| false).unwrap();
            folder.add_provenance(&json!("new")).unwrap();
            drop(folder);
            assert!(is_old(&path.join(REPLACED)));
        }
    }

    #[test]
    fn a_folder_in_which_no_run_began_is_free_for_any() {
        let inputs = tempfile::tempdir().unwrap();
        let plan = plan(inputs.path());
        let path = inputs.path().join("run");
        let mut folder = RunFolder::open(&path, Existing::Resume, SHORT).unwrap();
        folder.claim(&plan, |_| false).unwrap();
        std::mem::forget(folder); // killed
        assert!(path.join(CONFIG).is_file());
        let mut other = plan.clone();
        other.config.train.seed = 9;
        // The lock of a process that is gone is no lock; here it is still held.
        std::fs::remove_file(path.join(lock::NAME)).unwrap();
        storage::write_file(&path.join(lock::NAME), b"").unwrap();
        let mut folder = RunFolder::open(&path, Existing::Refuse, SHORT).unwrap();
        folder.check(&other).unwrap();
        folder.claim(&other, |_| false).unwrap();
    }
}
