//! The only writer to disk, and so the only place where faults are injected.
//!
//! - A file or folder has its final name only when it is complete and on stable storage: it is
//!   written to `NAME.part` in the same folder, synced and renamed, and the folder is synced.
//! - An append file never keeps a torn line.
//! - An error names the operation, the path and the reason of the system; a full disk is reported
//!   as such.
//! - Only regular files are replaced: a device, pipe, socket or folder with the name of an output
//!   is refused. A symbolic link to a regular file is replaced itself, and its target remains; an
//!   append file is written through a link.
//!
//! The content of the files is up to the callers. They call [`refuse_existing`] before any work to
//! check whether an output may be replaced.

#![allow(unsafe_code)] // statvfs

#[cfg(test)]
pub(crate) mod faults;
mod identity;
mod lines;
pub(crate) mod lock;
mod operations;
mod process_tag;
mod staged;

pub(crate) use identity::FolderIdentity;
pub(crate) use lines::{AppendFile, NoteFile};
pub use operations::{create_folder, disk_fault, needing, refuse_existing, remove_file};
pub(crate) use operations::{refuse_no_folder, refuse_not_utf8};
pub(crate) use process_tag::{ProcessTag, remove_dead_parts, remove_dead_parts_below};
pub(crate) use staged::{Staged, StagedFile};

use crate::error::{Fault, Result};
use operations::{
    PART, REMOVED, parent_of, perform, put, refuse_irregular, remove_tree, rename, sync_folder,
    sync_tree, unless_absent, with_suffix,
};
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

/// Writes a whole file. After success it is on stable storage under its name; after any failure the
/// name keeps its earlier content.
///
/// # Errors
/// `Usage` if the output is not a regular file, `Environment` if the disk fails.
pub(crate) fn write_file(path: &Path, bytes: &[u8]) -> Result<()> {
    let written = || {
        let staged = Staged::new(path, true)?;
        let mut file = perform("create", staged.part(), || File::create_new(staged.part()))?;
        put("write", staged.part(), &mut file, bytes)?;
        drop(file);
        staged.commit()
    };
    written().map_err(|error| needing(error, bytes.len() as u64))
}

/// Writes a whole file as [`write_file`] does, unless it already has these bytes: a finished output
/// needs no permission to write.
///
/// # Errors
/// `Usage` if the output is not a regular file, `Environment` if the disk fails.
pub(crate) fn write_if_changed(path: &Path, bytes: &[u8]) -> Result<()> {
    let is_same = fs::metadata(path)
        .is_ok_and(|data| data.is_file() && data.len() == bytes.len() as u64)
        && fs::read(path).is_ok_and(|found| found == bytes);
    if is_same { Ok(()) } else { write_file(path, bytes) }
}

/// Returns whether a folder exists and this process cannot write to it.
pub(crate) fn is_read_only(folder: &Path) -> bool {
    use std::os::unix::ffi::OsStrExt;
    let Ok(path) = std::ffi::CString::new(folder.as_os_str().as_bytes()) else { return false };
    // SAFETY: access(2) reads a text that ends with 0 and writes nothing.
    let answer = unsafe { libc::access(path.as_ptr(), libc::W_OK) };
    let reason = io::Error::last_os_error().kind();
    answer != 0
        && folder.is_dir()
        && matches!(reason, ErrorKind::ReadOnlyFilesystem | ErrorKind::PermissionDenied)
}

/// Returns the number of bytes that this process may still write to the file system of a folder;
/// `None` if the system does not report it.
pub(crate) fn free_bytes(folder: &Path) -> Option<u64> {
    use std::os::unix::ffi::OsStrExt;
    let path = std::ffi::CString::new(folder.as_os_str().as_bytes()).ok()?;
    let mut stats = std::mem::MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: statvfs(3) reads a text that ends with 0, and fills the struct it is given; the
    // struct is read only if the call reports success.
    let stats = unsafe {
        if libc::statvfs(path.as_ptr(), stats.as_mut_ptr()) != 0 {
            return None;
        }
        stats.assume_init()
    };
    Some(stats.f_bavail.saturating_mul(stats.f_frsize))
}

/// Gives a finished folder its name: syncs every file and folder in it, renames it, and syncs the
/// parent. An existing folder must be removed first.
///
/// # Errors
/// `Usage` if the target exists, `Environment` if the disk fails.
pub(crate) fn publish_folder(part: &Path, target: &Path) -> Result<()> {
    if fs::symlink_metadata(target).is_ok() {
        return Err(Fault::new("the folder to publish already exists")
            .file(target)
            .advice("remove it, or choose another output")
            .usage());
    }
    sync_tree(part)?;
    rename(part, target)?;
    sync_folder(&parent_of(target))
}

/// Removes a folder with its content; an absent one is accepted. It is renamed first, so that a
/// kill never leaves a partial folder under its name.
///
/// # Errors
/// `Environment` if the disk fails.
pub fn remove_folder(path: &Path) -> Result<()> {
    let doomed = with_suffix(path, REMOVED);
    remove_tree(&doomed)?;
    if fs::symlink_metadata(path).is_err() {
        return Ok(());
    }
    rename(path, &doomed)?;
    sync_folder(&parent_of(path))?;
    remove_tree(&doomed)
}

/// Returns the outermost of the folders that [`create_folder`] would create; `None` if all exist.
pub(crate) fn outermost_missing(path: &Path) -> Option<PathBuf> {
    let missing = |folder: &&Path| !folder.as_os_str().is_empty() && !folder.exists();
    path.ancestors().take_while(missing).last().map(Path::to_path_buf)
}

/// Removes this folder and its parents up to `outermost`, as long as they are empty.
pub(crate) fn remove_if_empty(path: &Path, outermost: &Path) {
    for folder in path.ancestors() {
        let removed = unless_absent(fs::remove_dir(folder));
        if removed.is_err() || folder == outermost {
            return;
        }
    }
}

/// Renames or moves a file or folder within a file system; it replaces a regular file.
///
/// # Errors
/// `Usage` if the target is not a regular file, `Environment` if the disk fails.
pub(crate) fn move_to(from: &Path, to: &Path) -> Result<()> {
    refuse_irregular(to)?;
    perform("move", from, || fs::rename(from, to))?;
    sync_folder(&parent_of(to))?;
    sync_folder(&parent_of(from))
}

/// Returns the name of an unfinished file or folder: `NAME.part` in the same folder.
pub(crate) fn part_path(target: &Path) -> PathBuf {
    with_suffix(target, PART)
}

/// Removes the remains of killed processes from a folder: unfinished outputs, and outputs that have
/// lost their name. Only for folders with one writer.
///
/// # Errors
/// `Environment` if the disk fails.
pub(crate) fn sweep_folder(folder: &Path) -> Result<()> {
    if !folder.is_dir() {
        return Ok(());
    }
    let entries =
        perform("list", folder, || fs::read_dir(folder)?.collect::<io::Result<Vec<_>>>())?;
    for path in entries.iter().map(fs::DirEntry::path) {
        let name = path.as_os_str().as_encoded_bytes();
        if !(name.ends_with(PART.as_bytes()) || name.ends_with(REMOVED.as_bytes())) {
            continue;
        }
        if path.is_dir() { remove_tree(&path) } else { remove_file(&path) }?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
