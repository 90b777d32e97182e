//! Notes of the input that each rank is reading.
//!
//! A note remains if its process dies. The next start finds it and reads the file in a child process
//! first (`probe`), because the HDF5 library may have ended or stopped the rank.
//!
//! - One note per rank of a shard, `SHARD-of-SHARDS-RANK.reading` in the folder of the ledger.
//! - The notes of a shard belong to the job that holds its lock: those that it finds at its start
//!   are of jobs that have ended.
//! - A note that cannot be written does not stop the job.

use crate::dataset::assignment::Job;
use crate::error::{Error, Fault, Result};
use crate::storage::{self, NoteFile};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::io::Read;
use std::path::{Path, PathBuf};

const EXTENSION: &str = "reading";
/// Longest note read [bytes].
const LONGEST: u64 = 65_536;

/// The file that a rank is reading.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reading {
    /// Name of its output.
    pub output: String,
    pub input: String,
    /// Whether a child process could read it at this start.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub probed: bool,
}

/// The notes of all ranks of one shard.
#[derive(Debug, Clone)]
pub struct ReadingNotes {
    folder: PathBuf,
    shard: (usize, usize),
}

impl ReadingNotes {
    /// Creates the notes of shard `index` (from 0) of `count`.
    pub fn new(folder: &Path, shard: (usize, usize)) -> ReadingNotes {
        ReadingNotes { folder: folder.to_path_buf(), shard }
    }

    /// Returns the note of a rank, which writes it; `probed` are the outputs whose inputs a child
    /// process could read.
    pub fn note(&self, rank: usize, probed: &BTreeSet<String>) -> ReadingNote {
        let path = self.folder.join(format!("{}{rank}.{EXTENSION}", self.prefix()));
        let probed = probed.clone();
        ReadingNote {
            path,
            file: None,
            is_kept: false,
            has_failed: false,
            probed,
            is_probed: false,
        }
    }

    /// Returns what a rank is reading.
    pub fn of_rank(&self, rank: usize) -> Option<Reading> {
        read(&self.folder.join(format!("{}{rank}.{EXTENSION}", self.prefix())))
    }

    /// Returns what the ranks of jobs that have ended were reading: of this shard, and of jobs
    /// without shards, which cannot run at the same time.
    pub fn left_behind(&self) -> Result<Vec<Reading>> {
        Ok(self.paths()?.iter().filter_map(|path| read(path)).collect())
    }

    /// Removes the notes of jobs that have ended, except those that other shards may still need.
    pub fn clear(&self) -> Result<()> {
        let own = self.prefix();
        let is_own = |path: &&PathBuf| name(path).starts_with(&own);
        self.paths()?.iter().filter(is_own).try_for_each(|path| storage::remove_file(path))
    }

    fn prefix(&self) -> String {
        format!("{}-of-{}-", self.shard.0 + 1, self.shard.1)
    }

    fn paths(&self) -> Result<Vec<PathBuf>> {
        if !self.folder.is_dir() {
            return Ok(Vec::new());
        }
        let unreadable =
            |e: std::io::Error| Fault::new("cannot list").file(&self.folder).found(e).environment();
        let found = std::fs::read_dir(&self.folder).map_err(unreadable)?;
        let own = self.prefix();
        let is_note = |path: &PathBuf| {
            let is_of_job = name(path).starts_with(&own) || name(path).starts_with("1-of-1-");
            path.extension().is_some_and(|extension| extension == EXTENSION) && is_of_job
        };
        let mut paths: Vec<PathBuf> = found.flatten().map(|entry| entry.path()).collect();
        paths.retain(is_note);
        paths.sort();
        Ok(paths)
    }
}

fn name(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
}

fn read(path: &Path) -> Option<Reading> {
    let mut text = String::new();
    std::fs::File::open(path).ok()?.take(LONGEST).read_to_string(&mut text).ok()?;
    serde_json::from_str(text.lines().next()?).ok()
}

/// Note of one rank, removed when dropped, unless the rank panics or the note is kept.
#[derive(Debug)]
pub struct ReadingNote {
    path: PathBuf,
    file: Option<NoteFile>,
    is_kept: bool,
    has_failed: bool,
    probed: BTreeSet<String>,
    /// Whether the file that is being read is one of these.
    is_probed: bool,
}

impl ReadingNote {
    /// Notes that the input of a job is being read.
    pub fn begin(&mut self, job: &Job) {
        let reading = Reading {
            output: job.name.clone(),
            input: job.input.display().to_string(),
            probed: self.probed.contains(&job.name),
        };
        self.is_probed = reading.probed;
        self.write(&serde_json::to_string(&reading).unwrap_or_default());
    }

    /// Notes that it was read.
    pub fn end(&mut self) {
        self.write("");
    }

    /// Notes the end of a reading. If the system could not read the file, the note is kept for the
    /// next start, and the error ends this one. If this also happened at an earlier start, only the
    /// file fails.
    pub fn finish<T>(&mut self, outcome: Result<T>) -> Result<T> {
        match outcome {
            Err(Error::Environment(fault)) if self.is_probed => {
                self.end();
                Err(Error::Input(fault))
            }
            Err(error @ Error::Environment(_)) => {
                self.is_kept = true;
                Err(error)
            }
            outcome => {
                self.end();
                outcome
            }
        }
    }

    fn write(&mut self, line: &str) {
        if self.has_failed || self.is_kept {
            return;
        }
        let mut write = || {
            let file = match &mut self.file {
                Some(file) => file,
                None => self.file.insert(NoteFile::create(&self.path)?),
            };
            file.write(line)
        };
        if let Err(error) = write() {
            log::debug!("no note of what is being read: {error}");
            self.has_failed = true;
        }
    }
}

impl Drop for ReadingNote {
    fn drop(&mut self) {
        if let Some(file) = self.file.take()
            && !self.is_kept
            && !std::thread::panicking()
        {
            let _ = file.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(name: &str) -> Job {
        let (output, relative) = (PathBuf::from(name), name.to_string());
        Job { input: output.clone(), output, name: name.to_string(), relative, bytes: 1 }
    }

    fn outputs(notes: &ReadingNotes) -> Vec<String> {
        notes.left_behind().unwrap().into_iter().map(|reading| reading.output).collect()
    }

    #[test]
    fn note_of_a_dead_rank_is_found_by_its_shard() {
        let folder = tempfile::tempdir().unwrap();
        let notes = ReadingNotes::new(folder.path(), (1, 3));
        let probed = BTreeSet::from(["b.h5".to_string()]);
        let mut first = notes.note(0, &probed);
        first.begin(&job("a-long-name.h5"));
        first.begin(&job("b.h5"));
        assert!(notes.of_rank(0).unwrap().probed);
        assert_eq!(notes.of_rank(1), None);
        let mut second = notes.note(11, &probed);
        second.begin(&job("c.h5"));
        second.end();
        std::mem::forget((first, second)); // as a kill would
        assert_eq!(outputs(&notes), ["b.h5"]);
        assert!(outputs(&ReadingNotes::new(folder.path(), (0, 3))).is_empty());
        ReadingNotes::new(folder.path(), (0, 3)).clear().unwrap();
        assert_eq!(outputs(&notes), ["b.h5"]);
        notes.clear().unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn dropped_note_leaves_nothing_unless_kept() {
        let folder = tempfile::tempdir().unwrap();
        let notes = ReadingNotes::new(folder.path(), (0, 1));
        let mut note = notes.note(0, &BTreeSet::new());
        note.begin(&job("a.h5"));
        drop(note);
        assert!(outputs(&notes).is_empty());
        let mut note = notes.note(0, &BTreeSet::new());
        let failed = || -> Result<()> { Err(Fault::new("Input/output error").environment()) };
        note.begin(&job("a.h5"));
        assert_eq!(note.finish(failed()).unwrap_err().exit_code(), 5);
        drop(note);
        let probed = BTreeSet::from(["b.h5".to_string()]);
        let mut again = notes.note(1, &probed);
        again.begin(&job("b.h5"));
        assert_eq!(again.finish(failed()).unwrap_err().exit_code(), 3);
        drop(again);
        // Shards that replace the job know of it too.
        assert_eq!(outputs(&ReadingNotes::new(folder.path(), (0, 3))), ["a.h5"]);
    }
}
