//! Locks an output for one job at a time.
//!
//! The lock is an advisory one (`flock`) on a hidden file next to the outputs. The kernel releases
//! it when its holder ends, also by SIGKILL. Guarantees of file systems:
//!
//! - local disks: exclusion on one host;
//! - NFS: exclusion between hosts, by a lock of the server, which forgets a dead host after its
//!   lease (90 s by default); with the mount option `nolock` or `local_lock` on one host only;
//! - Lustre: exclusion between hosts if mounted with `flock`, on one host with `localflock`;
//!   without either there are no locks.
//!
//! On a file system without locks the existence of the file excludes others. The holder creates it,
//! and a job that finds it refuses to run unless its owner was a process of this host that has
//! ended. Unfinished outputs also carry the name of their process (`storage`), so that two jobs
//! that a file system does not exclude cannot write to one file.

use super::operations::parent_of;
use crate::comm::{host, job_number};
use crate::error::{Error, Fault, Result};
use crate::storage::{self, ProcessTag};
use serde::{Deserialize, Serialize};
use std::ffi::OsStr;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Name of the lock file of a folder.
pub(crate) const NAME: &str = ".lock";
const PAUSE: Duration = Duration::from_millis(50);
/// Limit of attempts to create a folder again that disappears.
const MAX_RESTORED: usize = 100;
/// Size limit of a record [bytes].
const MAX_RECORD_BYTES: u64 = 4096;

/// A locked output; it is unlocked when dropped.
#[derive(Debug)]
pub(crate) struct OutputLock {
    held: Vec<HeldFile>,
    folder: PathBuf,
    /// The outermost folder that was created for the lock file.
    created: Option<PathBuf>,
    leaves_files: bool,
}

#[derive(Debug)]
struct HeldFile {
    file: File,
    path: PathBuf,
    mode: LockMode,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LockMode {
    Exclusive,
    /// Several shards of one scoring.
    Shared,
    /// The file system has no locks: the existence of the file excludes others.
    ByExistence,
}

/// Holder of a lock, as recorded in its file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Holder {
    host: String,
    process: u32,
    tag: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    job: Option<String>,
    /// Seconds since 1970.
    since: u64,
}

/// Reasons why a lock could not be taken at once.
enum Busy {
    Held(Option<Holder>),
    /// The holder has just removed its file.
    Gone,
}

impl OutputLock {
    /// Locks a folder, which is created if needed.
    ///
    /// Returns `None` if the folder cannot be written to: then nothing else can write to it either,
    /// and the command reports the reason when it writes.
    ///
    /// # Errors
    /// `Stopped` (exit code 75) if another job still holds the lock after `timeout`.
    pub(crate) fn folder(folder: &Path, timeout: Duration) -> Result<Option<OutputLock>> {
        OutputLock::take(folder, &[(OsStr::new(NAME).into(), LockMode::Exclusive)], timeout)
    }

    /// Locks part `index` of `count` of a folder; other parts can be locked at the same time.
    ///
    /// # Errors
    /// As [`OutputLock::folder`].
    pub(crate) fn part(
        folder: &Path,
        (index, count): (usize, usize),
        timeout: Duration,
    ) -> Result<Option<OutputLock>> {
        let own = format!("{NAME}-{}-of-{count}", index + 1);
        let files = [(PathBuf::from(NAME), LockMode::Shared), (own.into(), LockMode::Exclusive)];
        OutputLock::take(folder, &files, timeout)
    }

    /// Locks a single output file.
    ///
    /// # Errors
    /// As [`OutputLock::folder`].
    pub(crate) fn file(target: &Path, timeout: Duration) -> Result<Option<OutputLock>> {
        let Some(name) = target.file_name() else { return Ok(None) };
        let hash = blake3::hash(name.as_encoded_bytes()).to_hex();
        let own = format!(".{}{NAME}", &hash[..16]);
        OutputLock::take(&parent_of(target), &[(own.into(), LockMode::Exclusive)], timeout)
    }

    fn take(
        folder: &Path,
        files: &[(PathBuf, LockMode)],
        timeout: Duration,
    ) -> Result<Option<OutputLock>> {
        let created = storage::outermost_missing(folder);
        if storage::create_folder(folder).is_err() {
            return Ok(None);
        }
        let mut lock = OutputLock {
            held: Vec::new(),
            folder: folder.to_path_buf(),
            created,
            leaves_files: false,
        };
        let start = Instant::now();
        let mut restored = 0;
        for (name, mode) in files {
            let path = folder.join(name);
            loop {
                match try_lock(&path, *mode) {
                    Ok(Ok(held)) => break lock.held.push(held),
                    Ok(Err(Busy::Held(holder))) if start.elapsed() >= timeout => {
                        return Err(busy(folder, &path, holder, timeout));
                    }
                    Ok(Err(Busy::Held(_))) => std::thread::sleep(PAUSE.min(timeout)),
                    Ok(Err(Busy::Gone)) => {}
                    Err(error)
                        if error.kind() == ErrorKind::NotFound && restored < MAX_RESTORED =>
                    {
                        restored += 1;
                        lock.restore_folder()?;
                    }
                    Err(error) if is_read_only(&error) => return Ok(None),
                    Err(error) => {
                        let reason = error.to_string();
                        return Err(storage::disk_fault("lock", &path, &reason, error.kind()));
                    }
                }
            }
        }
        Ok(Some(lock))
    }

    /// Creates the folder again: a job that has failed removes the folder that it had created, even
    /// while another one waits there.
    fn restore_folder(&mut self) -> Result<()> {
        if let Some(missing) = storage::outermost_missing(&self.folder) {
            self.created = Some(missing);
        }
        storage::create_folder(&self.folder)
    }

    /// Keeps the lock files, unlocked: they then mark the purpose of the folder.
    #[must_use]
    pub(crate) fn leaving_files(mut self) -> OutputLock {
        self.leaves_files = true;
        self
    }
}

impl Drop for OutputLock {
    fn drop(&mut self) {
        for held in self.held.drain(..).rev() {
            // A shared lock file is removed by its last holder.
            let is_last = held.mode != LockMode::Shared || held.file.try_lock().is_ok();
            if self.leaves_files {
                let _ = held.file.set_len(0);
            } else if is_last && is_same_file(&held.file, &held.path) {
                let _ = std::fs::remove_file(&held.path);
            }
        }
        if let Some(created) = &self.created {
            storage::remove_if_empty(&self.folder, created);
        }
    }
}

fn try_lock(path: &Path, mode: LockMode) -> std::io::Result<std::result::Result<HeldFile, Busy>> {
    let mut file =
        OpenOptions::new().create(true).truncate(false).read(true).write(true).open(path)?;
    let outcome = match mode {
        LockMode::Shared => file.try_lock_shared(),
        _ => file.try_lock(),
    };
    match outcome {
        Ok(()) if !is_same_file(&file, path) => return Ok(Err(Busy::Gone)),
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(Err(Busy::Held(read_holder(&mut file)))),
        Err(TryLockError::Error(error)) if has_no_locks(&error) => {
            drop(file);
            return lock_by_existence(path);
        }
        Err(TryLockError::Error(error)) => return Err(error),
    }
    if mode == LockMode::Exclusive {
        write_holder(&mut file);
    }
    Ok(Ok(HeldFile { file, path: path.to_path_buf(), mode }))
}

/// Takes the lock on a file system without locks.
fn lock_by_existence(path: &Path) -> std::io::Result<std::result::Result<HeldFile, Busy>> {
    let mut found = OpenOptions::new().read(true).open(path)?;
    let holder = read_holder(&mut found);
    // An empty file is the one that `try_lock` has just created.
    let is_free = found.metadata()?.len() == 0
        || holder.as_ref().is_some_and(|holder| ProcessTag::parse(&holder.tag).is_dead());
    if !is_free {
        return Ok(Err(Busy::Held(holder)));
    }
    std::fs::remove_file(path)?;
    match File::create_new(path) {
        Ok(mut file) => {
            write_holder(&mut file);
            log::warn!(
                "{}: this file system has no locks; only this file excludes two jobs on different \
                 hosts",
                path.display()
            );
            Ok(Ok(HeldFile { file, path: path.to_path_buf(), mode: LockMode::ByExistence }))
        }
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(Err(Busy::Held(None))),
        Err(error) => Err(error),
    }
}

fn has_no_locks(error: &std::io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EOPNOTSUPP | libc::ENOLCK))
        || error.kind() == ErrorKind::Unsupported
}

fn is_read_only(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::ReadOnlyFilesystem | ErrorKind::PermissionDenied)
}

/// Records the holder of the lock. The record only serves messages: a disk that fails or is full
/// must not prevent locking.
fn write_holder(file: &mut File) {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    let Ok(tag) = ProcessTag::own() else { return };
    let holder = Holder {
        host: host(),
        process: std::process::id(),
        tag: tag.to_string(),
        job: job_number(),
        since,
    };
    let Ok(text) = serde_json::to_string(&holder) else { return };
    let rewound = file.set_len(0).and_then(|()| file.seek(SeekFrom::Start(0)));
    let _ = rewound.and_then(|_| file.write_all(text.as_bytes()));
}

fn read_holder(file: &mut File) -> Option<Holder> {
    let mut text = String::new();
    file.take(MAX_RECORD_BYTES).read_to_string(&mut text).ok()?;
    serde_json::from_str(&text).ok()
}

fn is_same_file(file: &File, path: &Path) -> bool {
    let identity = |metadata: std::fs::Metadata| (metadata.dev(), metadata.ino());
    let own = file.metadata().map(identity).ok();
    own.is_some() && std::fs::metadata(path).map(identity).ok() == own
}

fn busy(folder: &Path, path: &Path, holder: Option<Holder>, timeout: Duration) -> Error {
    let found = match holder {
        Some(holder) => holder.to_string(),
        None => format!("the lock {} is held", path.display()),
    };
    let fault = Fault::new("another job is writing to this output")
        .file(folder)
        .found(format!("{found}; waited {:.0} s", timeout.as_secs_f64()))
        .advice(
            "run the same command again when it has ended, wait longer with --lock-timeout, \
             or choose another output",
        );
    Error::Stopped(Box::new(fault))
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "process {} on {}", self.process, self.host)?;
        if let Some(job) = &self.job {
            write!(f, ", job {job}")?;
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
        write!(f, ", since {} s", now.saturating_sub(self.since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(120);

    fn names(folder: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(folder).unwrap().flatten();
        entries.map(|entry| entry.file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn second_job_waits_and_then_stops_with_75() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("deep/out");
        let first = OutputLock::folder(&out, SHORT).unwrap().unwrap();
        let start = Instant::now();
        let error = OutputLock::folder(&out, SHORT).unwrap_err();
        assert!(start.elapsed() >= SHORT);
        assert_eq!(error.exit_code(), 75);
        let text = error.to_string();
        assert!(text.contains(&format!("process {}", std::process::id())), "{text}");
        drop(first);
        assert!(!folder.path().join("deep").exists(), "no file remains");
        OutputLock::folder(&out, SHORT).unwrap().unwrap();
    }

    #[test]
    fn waiting_job_gets_the_lock_when_it_is_released() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().to_path_buf();
        let first = OutputLock::folder(&out, SHORT).unwrap().unwrap();
        let waiting = std::thread::spawn(move || {
            OutputLock::folder(&out, Duration::from_secs(30)).unwrap().is_some()
        });
        std::thread::sleep(SHORT);
        drop(first);
        assert!(waiting.join().unwrap());
    }

    #[test]
    fn waiting_job_outlives_the_folder() {
        let parent = tempfile::tempdir().unwrap();
        let out = parent.path().join("deep/out");
        let first = OutputLock::folder(&out, SHORT).unwrap().unwrap();
        let (sent, received) = std::sync::mpsc::channel();
        let place = out.clone();
        let waiting = std::thread::spawn(move || {
            let lock = OutputLock::folder(&place, Duration::from_secs(30)).unwrap().unwrap();
            sent.send(()).unwrap();
            drop(lock);
        });
        std::thread::sleep(SHORT);
        // The same as a failing job, in the order that leaves no folder to the other job.
        std::fs::remove_dir_all(parent.path().join("deep")).unwrap();
        drop(first);
        received.recv_timeout(Duration::from_secs(20)).unwrap();
        waiting.join().unwrap();
        assert!(!parent.path().join("deep").exists(), "no file remains");
    }

    #[test]
    fn parts_exclude_the_whole_but_not_each_other() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path();
        let first = OutputLock::part(out, (0, 3), SHORT).unwrap().unwrap();
        let second = OutputLock::part(out, (1, 3), SHORT).unwrap().unwrap();
        assert_eq!(OutputLock::part(out, (1, 3), SHORT).unwrap_err().exit_code(), 75);
        assert_eq!(OutputLock::folder(out, SHORT).unwrap_err().exit_code(), 75);
        drop(first);
        assert_eq!(OutputLock::folder(out, SHORT).unwrap_err().exit_code(), 75);
        drop(second);
        let whole = OutputLock::folder(out, SHORT).unwrap().unwrap();
        assert_eq!(OutputLock::part(out, (0, 3), SHORT).unwrap_err().exit_code(), 75);
        drop(whole);
        assert!(names(out).is_empty(), "{:?}", names(out));
    }

    #[test]
    fn files_of_one_folder_are_locked_apart() {
        let folder = tempfile::tempdir().unwrap();
        let (a, b) = (folder.path().join("a.h5"), folder.path().join("b.h5"));
        let _a = OutputLock::file(&a, SHORT).unwrap().unwrap();
        let _b = OutputLock::file(&b, SHORT).unwrap().unwrap();
        assert_eq!(OutputLock::file(&a, SHORT).unwrap_err().exit_code(), 75);
    }

    #[test]
    fn lock_file_of_a_dead_process_is_ignored() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(NAME), "{\"host\": \"gone\"").unwrap();
        OutputLock::folder(folder.path(), SHORT).unwrap().unwrap();
    }
}
