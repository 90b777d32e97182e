//! The run folder: who may write it, what stands in it, and whether to go on.
//!
//! One rank (0) writes. A lock file keeps a second job out; the effective configuration
//! says what the folder is of; `provenance.json` keeps one entry per start, the only
//! place where times, hosts and rank counts are written.

use super::plan::Plan;
use crate::data::durable;
use crate::error::{Fault, Result};
use serde_json::{Value, json};
use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

pub const MODEL: &str = "model.safetensors";
pub const CONFIG: &str = "config.toml";
pub const METRICS: &str = "metrics.jsonl";
pub const PROVENANCE: &str = "provenance.json";
pub const CHECKPOINTS: &str = "checkpoints";
pub const LOG: &str = "train.log";
const LOCK: &str = ".lock";

/// An open run folder; the lock goes with it. One that was new and never came to begin a
/// run goes as well: it would only stand in the way of the next try.
#[derive(Debug)]
pub struct RunFolder {
    pub path: PathBuf,
    _lock: File,
    /// No run has begun in it.
    empty: bool,
    /// It was not there before.
    created: bool,
}

impl Drop for RunFolder {
    fn drop(&mut self) {
        if self.empty {
            // Already failing: a second error here could only hide the first. What is not
            // ours keeps the folder.
            let _ = std::fs::remove_file(self.file(CONFIG));
            let _ = std::fs::remove_file(self.file(LOCK));
            if self.created {
                let _ = std::fs::remove_dir(&self.path);
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
    /// Creates or opens the folder, and locks it.
    pub fn open(path: &Path, plan: &Plan, existing: Existing) -> Result<RunFolder> {
        let config = path.join(CONFIG);
        let occupied =
            path.is_dir() && std::fs::read_dir(path).is_ok_and(|mut d| d.next().is_some());
        let is_run = config.is_file();
        if occupied && !is_run && !path.join(LOCK).is_file() {
            return Err(Fault::new("the output folder holds something else than a run")
                .file(path)
                .advice("choose another folder for -o")
                .usage());
        }
        if is_run && existing == Existing::Refuse {
            return Err(Fault::new("the run exists already")
                .file(path)
                .advice("resume it with --resume auto, choose another folder, or give --overwrite to begin anew")
                .usage());
        }
        let created = !path.exists();
        durable::create_folder(path)?;
        let lock = lock(path)?;
        let folder = RunFolder {
            path: path.to_path_buf(),
            _lock: lock,
            empty: !is_run || existing == Existing::Replace,
            created,
        };
        if is_run && existing == Existing::Replace {
            folder.clear()?;
        } else if is_run {
            folder.check_same(plan)?;
        }
        durable::write_file(&config, plan.config.to_toml()?.as_bytes())?;
        Ok(folder)
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    fn clear(&self) -> Result<()> {
        // The configuration goes first: without it the folder is no run any more.
        for name in [CONFIG, MODEL, METRICS, PROVENANCE, LOG, "report.html"] {
            durable::remove_file(&self.file(name))?;
        }
        durable::remove_folder(&self.file(CHECKPOINTS))
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
        self.empty = false;
        durable::write_file(&path, &text)
    }
}

fn lock(path: &Path) -> Result<File> {
    let lock_path = path.join(LOCK);
    let unusable = |e: std::io::Error| {
        Fault::new("cannot lock the run folder").file(&lock_path).found(e).environment()
    };
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&lock_path)
        .map_err(unusable)?;
    let busy = || {
        Fault::new("another job is writing this run")
            .file(path)
            .advice("wait for it to end, or choose another folder")
            .usage()
    };
    match file.try_lock() {
        // A job that came to nothing takes its lock file away: that one locks nobody out.
        Ok(()) if !is_same_file(&file, &lock_path) => Err(busy()),
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(busy()),
        Err(TryLockError::Error(e)) => Err(unusable(e)),
    }
}

fn is_same_file(file: &File, path: &Path) -> bool {
    let inode = |metadata: std::io::Result<std::fs::Metadata>| metadata.map(|m| m.ino()).ok();
    inode(file.metadata()).is_some_and(|own| inode(std::fs::metadata(path)) == Some(own))
}
