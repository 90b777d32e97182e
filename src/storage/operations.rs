//! Performs disk operations, and describes their failures.

#[cfg(test)]
use super::faults;
use crate::bounded::kind_name;
use crate::error::{Error, Fault, Result};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

/// Name suffix of a file or folder that is being written, and of one that is being removed.
pub(super) const PART: &str = ".part";
pub(super) const REMOVED: &str = ".removed";
/// Longest file name on the file systems of Linux [bytes].
pub(super) const MAX_NAME_BYTES: usize = 255;
/// First words of the errors of a full disk.
pub(super) const FULL: &str = "disk full";
pub(super) const QUOTA: &str = "disk quota exceeded";

/// Performs an operation on the disk; all of them use this function, except for the bytes
/// themselves.
pub(super) fn perform<T>(
    operation: &str,
    path: &Path,
    action: impl FnOnce() -> io::Result<T>,
) -> Result<T> {
    #[cfg(test)]
    if let faults::FaultOutcome::Failed(error) | faults::FaultOutcome::Torn(error) =
        faults::next_outcome(operation.starts_with("create"))
    {
        return Err(disk_fault(operation, path, &error.to_string(), error.kind()));
    }
    action().map_err(|error| disk_fault(operation, path, &error.to_string(), error.kind()))
}

/// Writes bytes; all files of this program use this function.
pub(super) fn put(operation: &str, path: &Path, file: &mut File, bytes: &[u8]) -> Result<()> {
    #[cfg(test)]
    let written = match faults::next_outcome(true) {
        faults::FaultOutcome::Done => file.write_all(bytes),
        faults::FaultOutcome::Failed(error) => Err(error),
        faults::FaultOutcome::Torn(error) => {
            file.write_all(&bytes[..bytes.len() / 2]).and(Err(error))
        }
    };
    #[cfg(not(test))]
    let written = file.write_all(bytes);
    written.map_err(|error| disk_fault(operation, path, &error.to_string(), error.kind()))
}

/// Returns the error of a failed disk operation; libraries that write to an unfinished output
/// report theirs through it too.
pub fn disk_fault(operation: &str, path: &Path, reason: &str, kind: ErrorKind) -> Error {
    if kind == ErrorKind::InvalidFilename {
        return Fault::new(format!("the name is too long: cannot {}", on_path(operation)))
            .file(path)
            .found(reason)
            .advice("shorten it: file systems allow 255 bytes per name, also for the output")
            .input();
    }
    let (what, advice) = match kind {
        ErrorKind::StorageFull => {
            (FULL, "free space on this file system, or choose another output")
        }
        ErrorKind::QuotaExceeded => (QUOTA, "free space, or choose another output"),
        ErrorKind::FileTooLarge => (
            "the limit of file sizes is reached",
            "raise it (ulimit -f), then run the same command again",
        ),
        ErrorKind::ReadOnlyFilesystem => ("file system is read-only", "choose another output"),
        ErrorKind::PermissionDenied => {
            ("permission denied", "check the owner and mode of the folder")
        }
        ErrorKind::NotADirectory => {
            ("a file has the name of a needed folder", "choose another output")
        }
        _ => {
            ("disk error", "check that the file system is healthy, then run the same command again")
        }
    };
    Fault::new(format!("{what}: cannot {}", on_path(operation)))
        .file(path)
        .found(reason)
        .advice(advice)
        .environment()
}

/// Returns an operation with its object.
fn on_path(operation: &str) -> String {
    if operation.ends_with(" folder") {
        operation.to_string()
    } else {
        format!("{operation} this path")
    }
}

/// Refuses an output folder whose path, or that of a folder above it, is a file or a link that leads
/// nowhere.
///
/// # Errors
/// `Usage`.
pub fn refuse_no_folder(path: &Path) -> Result<()> {
    let existing = |place: &&Path| fs::symlink_metadata(place).is_ok();
    let Some(place) = path.ancestors().find(existing) else { return Ok(()) };
    let found = match fs::metadata(place) {
        Ok(data) if data.is_dir() => return Ok(()),
        Ok(data) => kind_name(data.file_type()),
        Err(error) if error.kind() == ErrorKind::NotFound => "a link that leads nowhere",
        Err(_) => return Ok(()),
    };
    Err(Fault::new("the output is not a folder")
        .file(place)
        .expected("a new name, or a folder")
        .found(found)
        .advice("choose another output, or remove it yourself")
        .usage())
}

/// Refuses an output whose name is not UTF-8: the HDF5 library accepts no other names.
///
/// # Errors
/// `Usage`.
pub fn refuse_not_utf8(path: &Path) -> Result<()> {
    if path.to_str().is_some() {
        return Ok(());
    }
    Err(Fault::new("the name of the output is not UTF-8")
        .file(path)
        .advice("choose another output")
        .usage())
}

/// Adds the needed space to the error of a full disk.
pub fn needing(error: Error, bytes: u64) -> Error {
    match error {
        Error::Environment(fault)
            if fault.what.starts_with(FULL) || fault.what.starts_with(QUOTA) =>
        {
            fault.expected(format!("room for {bytes} bytes")).environment()
        }
        other => other,
    }
}

/// Refuses an output that exists, unless it is a regular file and may be replaced; call it before
/// any work.
///
/// # Errors
/// `Usage`.
pub fn refuse_existing(path: &Path, overwrite: bool) -> Result<()> {
    if fs::symlink_metadata(path).is_err() {
        return Ok(());
    }
    refuse_irregular(path)?;
    if overwrite {
        return Ok(());
    }
    Err(Fault::new("output already exists")
        .file(path)
        .advice("choose another output, or use --overwrite to replace it")
        .usage())
}

/// Refuses to replace anything but a regular file; a link is checked by its target.
pub(super) fn refuse_irregular(path: &Path) -> Result<()> {
    let Ok(own) = fs::symlink_metadata(path) else { return Ok(()) };
    let found = match fs::metadata(path) {
        Ok(data) if data.is_file() => return Ok(()),
        Ok(data) if own.is_symlink() => format!("a link to {}", kind_name(data.file_type())),
        Ok(data) => kind_name(data.file_type()).to_string(),
        Err(_) => "a link that leads nowhere".to_string(),
    };
    let what = if own.is_dir() { "the output is a folder" } else { "not a regular file" };
    Err(Fault::new(what)
        .file(path)
        .expected("a new name, or a regular file to replace")
        .found(found)
        .advice("choose another output, or remove it yourself")
        .usage())
}

/// Creates a folder with its parents; an existing one is accepted.
///
/// # Errors
/// `Environment` if the disk fails.
pub fn create_folder(path: &Path) -> Result<()> {
    if path.as_os_str().is_empty() || path.is_dir() {
        return Ok(());
    }
    let parent = parent_of(path);
    create_folder(&parent)?;
    perform("create the folder", path, || match fs::create_dir(path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        outcome => outcome,
    })?;
    sync_folder(&parent)
}

/// Removes a file; an absent one is accepted.
///
/// # Errors
/// `Environment` if the disk fails.
pub fn remove_file(path: &Path) -> Result<()> {
    perform("remove", path, || unless_absent(fs::remove_file(path)))
}

pub(super) fn remove_tree(path: &Path) -> Result<()> {
    perform("remove the folder", path, || unless_absent(fs::remove_dir_all(path)))
}

/// Accepts an absent file or folder.
pub(super) fn unless_absent(outcome: io::Result<()>) -> io::Result<()> {
    match outcome {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        outcome => outcome,
    }
}

pub(super) fn rename(from: &Path, to: &Path) -> Result<()> {
    perform("rename a finished part to", to, || fs::rename(from, to))
}

pub(super) fn sync_file(path: &Path) -> Result<()> {
    perform("sync", path, || File::open(path)?.sync_all())
}

/// Makes names in a folder (created, renamed, removed) survive a power failure.
pub(super) fn sync_folder(path: &Path) -> Result<()> {
    perform("sync the folder", path, || File::open(path)?.sync_all())
}

pub(super) fn sync_tree(folder: &Path) -> Result<()> {
    let entries =
        perform("list", folder, || fs::read_dir(folder)?.collect::<io::Result<Vec<_>>>())?;
    for entry in entries {
        let path = entry.path();
        let kind = perform("read", &path, || entry.file_type())?;
        if kind.is_dir() {
            sync_tree(&path)?;
        } else if kind.is_file() {
            sync_file(&path)?;
        }
    }
    sync_folder(folder)
}

/// Returns the folder of a path; that of a bare name is the current one.
pub(super) fn parent_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
        _ => PathBuf::from("."),
    }
}

/// Appends to the name of a path; a name that would be too long is replaced by its hash.
pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let name = path.file_name().unwrap_or_default();
    let mut longer = name.to_os_string();
    if name.len() + suffix.len() > MAX_NAME_BYTES {
        let hash = blake3::hash(name.as_encoded_bytes()).to_hex();
        longer = OsString::from(&hash[..16]);
    }
    longer.push(suffix);
    path.with_file_name(longer)
}
