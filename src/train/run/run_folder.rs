//! The run folder: lock, content, and whether to resume.
//!
//! Only rank 0 writes. A lock file keeps other jobs out. The effective configuration identifies the
//! run. `provenance.json` has one entry per start; it is the only place for times, hosts and rank
//! counts. A folder with a first entry contains a run. So does one in which that file was lost, with a
//! model, metrics or checkpoints.
//!
//! A run that is to be replaced is moved to `replaced/` after the new run has read its events. It
//! is removed when the new run has a checkpoint or a model. Its provenance is moved first and moved
//! back last. So after a kill at any point, the place of that file shows which of the two runs the
//! folder contains.

use super::checkpoint;
use crate::comm::HEARTBEAT_FOLDER;
use crate::comm::preflight::MARK;
use crate::error::{Error, Fault, Result};
use crate::storage::lock::{self, OutputLock};
use crate::storage::{self, FolderIdentity};
use crate::train::plan::TrainingPlan;
use serde_json::{Value, json};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub const MODEL: &str = "model.safetensors";
pub const CONFIG: &str = "config.toml";
pub const METRICS: &str = "metrics.jsonl";
pub const PROVENANCE: &str = "provenance.json";
pub const CHECKPOINTS: &str = "checkpoints";
pub(crate) const LOG: &str = "train.log";
/// File that is written to test the free space, and its largest size.
const ROOM: &str = ".room";
const LARGEST_PROBE: usize = 256 << 20;
const REPORT: &str = "report.html";
/// Folder for a run that is being replaced.
const REPLACED: &str = "replaced";
/// All files of a run; the provenance is first.
const RUN: [&str; 7] = [PROVENANCE, CONFIG, MODEL, METRICS, LOG, REPORT, CHECKPOINTS];

/// An open, locked run folder. Dropping it releases the lock. It also removes a new folder in which
/// no run has begun, because it would only block the next start.
#[derive(Debug)]
pub(crate) struct RunFolder {
    pub path: PathBuf,
    pub identity: FolderIdentity,
    lock: Option<OutputLock>,
    existing: Existing,
    /// The outermost folder that was created for it.
    made: Option<PathBuf>,
    /// Whether the run in `replaced/` is removed at the next complete state of this one.
    replaces: bool,
    /// Whether this start has written the configuration.
    has_written_config: bool,
}

impl Drop for RunFolder {
    fn drop(&mut self) {
        // An error is already being reported: a second one could only hide it. Files of others keep
        // the folder. A run that is moved back only in part stays for the next start.
        if settle(&self.path).is_ok() && !has_begun(&self.path) {
            if self.has_written_config {
                let _ = storage::remove_file(&self.file(CONFIG));
            }
            let _ = storage::remove_file(&self.file(ROOM));
            let _ = storage::remove_file(&self.file(MARK));
            let _ = storage::remove_folder(&self.file(HEARTBEAT_FOLDER));
            // Without the lock file, the next start refuses a folder with a configuration.
            if !self.file(CONFIG).exists() {
                let _ = storage::remove_file(&self.file(lock::NAME));
            }
            self.lock = None;
            if let Some(outermost) = &self.made {
                storage::remove_if_empty(&self.path, outermost);
            }
        }
    }
}

/// Treatment of a folder that contains a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// Resume it if configuration and data are the same.
    Resume,
    /// Return an error.
    Refuse,
    /// Start from scratch in it.
    Replace,
}

impl RunFolder {
    /// Creates or opens the folder and locks it, waiting at most `timeout` for another job. Files
    /// of a run are not changed yet.
    ///
    /// # Errors
    /// Usage error if the folder has other files or an unwanted run; environment error of the lock or disk.
    pub(crate) fn open(path: &Path, existing: Existing, timeout: Duration) -> Result<RunFolder> {
        let occupied =
            path.is_dir() && std::fs::read_dir(path).is_ok_and(|mut d| d.next().is_some());
        let is_of_run = has_run(path)
            || path.join(lock::NAME).is_file()
            || path.join(CONFIG).is_file() && has_begun(path);
        if occupied && !is_of_run {
            return Err(Fault::new("the output folder has other files than a run")
                .file(path)
                .advice("choose another folder for -o")
                .usage());
        }
        let made = storage::outermost_missing(path);
        storage::create_folder(path)?;
        let lock = OutputLock::folder(path, timeout)?.map(OutputLock::leaving_files);
        let identity = FolderIdentity::of(path)?;
        storage::remove_dead_parts(path, true)?;
        let replaces = settle(path)?;
        let lost = has_begun(path) && !has_run(path);
        if has_begun(path) && existing == Existing::Refuse {
            let fault = Fault::new("the run already exists").file(path);
            let fault = if lost { fault.found(format!("{PROVENANCE} is missing")) } else { fault };
            return Err(fault
                .advice("resume it with --resume auto, choose another folder, or use --overwrite to start from scratch")
                .usage());
        }
        if lost {
            log::warn!(
                "{}: {PROVENANCE} is missing: the records of earlier starts are lost",
                path.display()
            );
        }
        Ok(RunFolder {
            path: path.to_path_buf(),
            identity,
            lock,
            existing,
            made,
            replaces,
            has_written_config: false,
        })
    }

    /// Returns an error if the folder contains a run with a different configuration.
    ///
    /// # Errors
    /// Usage error.
    pub(crate) fn check(&self, plan: &TrainingPlan) -> Result<()> {
        if self.existing == Existing::Replace || !has_begun(&self.path) {
            return Ok(());
        }
        if !has_run(&self.path) && !self.file(CONFIG).exists() {
            return Ok(()); // model and checkpoints are compared when they are read
        }
        self.check_same(plan)
    }

    /// Returns an error if the disk has no space for a checkpoint: better now than after hours.
    /// Only a write shows it, because quotas are not visible otherwise.
    pub(crate) fn check_room(&self, plan: &TrainingPlan) -> Result<()> {
        let probe = self.file(ROOM);
        let bytes = (checkpoint::bytes(plan.parameters) as usize).min(LARGEST_PROBE);
        let written = storage::write_file(&probe, &vec![0; bytes]);
        let removed = storage::remove_file(&probe);
        written.map_err(|error| storage::needing(error, bytes as u64)).and(removed)
    }

    /// Claims the folder for this run. Called after all checks: a run that is to be replaced is
    /// moved aside now. An unfinished run whose checkpoints `can_resume` accepts is resumed
    /// instead. It is from an earlier start of the same command and gives the same model.
    pub(crate) fn claim_run_folder(
        &mut self,
        plan: &TrainingPlan,
        can_resume: impl FnOnce(&Path) -> bool,
    ) -> Result<()> {
        let is_unfinished = !self.file(MODEL).exists();
        if self.existing == Existing::Replace
            && is_unfinished
            && can_resume(&self.file(CHECKPOINTS))
        {
            log::info!("the folder contains this run, unfinished: resuming instead of replacing");
            self.existing = Existing::Resume;
        }
        if self.existing == Existing::Replace && has_begun(&self.path) {
            let aside = self.file(REPLACED);
            if !has_run(&self.path) {
                // Only a folder with this file counts as a run that was moved aside.
                write_starts(&self.file(PROVENANCE), &[])?;
            }
            if self.replaces {
                // The run here has no complete state yet; keep the one that was
                // moved aside.
                RUN.iter().try_for_each(|name| remove(&self.file(name)))?;
            } else {
                storage::create_folder(&aside)?;
                move_run(RUN.iter(), &self.path, &aside)?;
                self.replaces = true;
            }
            log::info!(
                "the previous run is kept in {} until the new one has its first checkpoint",
                aside.display()
            );
        }
        self.has_written_config = true;
        storage::write_file(&self.file(CONFIG), plan.config.to_toml()?.as_bytes())
    }

    /// Removes the run that was moved aside: this one now has a state on disk to resume from.
    pub(crate) fn forget_replaced(&mut self) -> Result<()> {
        if std::mem::take(&mut self.replaces) {
            storage::remove_folder(&self.file(REPLACED))?;
        }
        Ok(())
    }

    /// Returns the path of a file in the folder.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Returns an error if the configuration in the folder differs.
    fn check_same(&self, plan: &TrainingPlan) -> Result<()> {
        let path = self.file(CONFIG);
        let there = crate::config::load(&path, &[])?;
        if there.hash()? == plan.config.hash()? {
            return Ok(());
        }
        Err(Fault::new("the folder contains a run with a different configuration")
            .file(&path)
            .expected("the same configuration apart from [run]")
            .advice("choose another folder, or use --overwrite to start from scratch")
            .usage())
    }

    /// Adds an entry to `provenance.json`; from then on the folder contains a run.
    pub(crate) fn add_provenance(&mut self, entry: &Value) -> Result<()> {
        let path = self.file(PROVENANCE);
        let mut starts = recorded_starts(&path)?;
        starts.push(entry.clone());
        write_starts(&path, &starts)
    }
}

/// Writes a list of starts to `provenance.json`.
fn write_starts(path: &Path, starts: &[Value]) -> Result<()> {
    let text = serde_json::to_vec_pretty(&json!({ "starts": starts }))
        .map_err(|e| Fault::new("cannot write the provenance").found(e).internal())?;
    storage::write_file(path, &text)
}

/// Returns the starts in `provenance.json`; none if there is no such file.
fn recorded_starts(path: &Path) -> Result<Vec<Value>> {
    let fault = |found: &dyn std::fmt::Display| unreadable_starts(path, found);
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(fault(&error)),
    };
    let value: Value = serde_json::from_slice(&bytes).map_err(|error| fault(&error))?;
    let starts = value.get("starts").and_then(Value::as_array).cloned();
    starts.ok_or_else(|| fault(&"no list of starts"))
}

fn unreadable_starts(path: &Path, found: &dyn std::fmt::Display) -> Error {
    Fault::new("cannot read the earlier starts of the run")
        .file(path)
        .found(found)
        .advice("move the file away to resume without its record of earlier starts")
        .input()
}

/// Returns whether a folder has anything of a run that a job would resume or `verify` checks.
pub(crate) fn holds_run(path: &Path) -> bool {
    has_run(path) || path.join(CHECKPOINTS).is_dir() || path.join(MODEL).is_file()
}

/// Returns an error if a folder contains a run and so cannot be the output of a different command.
///
/// # Errors
/// `Usage`.
pub(crate) fn refuse_run(path: &Path) -> Result<()> {
    if !holds_run(path) {
        return Ok(());
    }
    Err(Fault::new("the output folder contains a run")
        .file(path)
        .expected("a separate folder for the output")
        .advice(format!("choose a subfolder, such as {}", path.join("scores").display()))
        .usage())
}

/// Returns whether a run has begun in a folder, also where its provenance was lost.
fn has_begun(path: &Path) -> bool {
    holds_run(path) || path.join(METRICS).is_file()
}

/// Returns whether a folder has the provenance of a run.
fn has_run(path: &Path) -> bool {
    path.join(PROVENANCE).is_file()
}

/// Cleans up after a kill: moves back a run whose replacement never began, and removes one that has
/// been replaced. Returns whether a run is still set aside.
fn settle(path: &Path) -> Result<bool> {
    let aside = path.join(REPLACED);
    if !has_run(&aside) {
        // Empty: its run is in place, because it was not yet moved or is moved back.
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

/// Moves the existing files of a run in the given order; replaces existing targets.
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
mod tests;
