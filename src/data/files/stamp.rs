//! Stamps and hashes of files: whether a file has changed, and what its bytes hash to.

use crate::bounded;
use crate::error::{Error, Fault, Result, path_text};
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Returns the error of a file that has the content of another one.
pub(crate) fn same_content(path: &Path, other: &Path) -> Error {
    copied(path, format!("a copy of {}", path_text(other)))
}

pub(crate) fn copied(path: &Path, found: String) -> Error {
    Fault::new("two files have the same content")
        .file(path)
        .expected("every event once")
        .found(found)
        .advice("leave one of them out: its events would count twice")
        .input()
}

/// What tells whether a file was changed: length, time of the last change, time of the last
/// change of its inode, which no program can set back, and which file it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    length: u64,
    changed: (i64, i64),
    inode_changed: (i64, i64),
    file: (u64, u64),
}

impl Stamp {
    /// None if the file cannot be looked at.
    pub fn of(path: &Path) -> Option<Stamp> {
        let data = std::fs::metadata(path).ok()?;
        Some(Stamp {
            length: data.len(),
            changed: (data.mtime(), data.mtime_nsec()),
            inode_changed: (data.ctime(), data.ctime_nsec()),
            file: (data.dev(), data.ino()),
        })
    }

    /// Length and time of change as text. Device, inode and its time are left out: network file
    /// systems number their mounts on each host, and copies have inodes of their own.
    pub fn portable(&self) -> String {
        format!("{} {}.{:09}", self.length, self.changed.0, self.changed.1)
    }

    /// Length, times of change and inode as text. A change that sets back the time of change is
    /// seen, and so is another file of the same name; copies on other hosts differ.
    pub fn exact(&self) -> String {
        let (seconds, nanoseconds) = self.inode_changed;
        format!("{} {seconds}.{nanoseconds:09} {}", self.portable(), self.file.1)
    }

    /// The file itself, under whatever name.
    pub fn file(&self) -> (u64, u64) {
        self.file
    }
}

/// blake3 of a file's content, streamed.
pub fn hash_file(path: &Path) -> Result<[u8; 32]> {
    hash_file_with_progress(path, || ())
}

/// The same, with a call whenever some of the file has been read.
pub fn hash_file_with_progress(path: &Path, progress: impl Fn()) -> Result<[u8; 32]> {
    let unreadable = |error: std::io::Error| {
        Fault::new("cannot read the file").file(path).found(error).advice("check the path").input()
    };
    bounded::refuse_irregular(path)?;
    let file = ProgressReader { file: File::open(path).map_err(unreadable)?, progress };
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(file).map_err(unreadable)?;
    Ok(*hasher.finalize().as_bytes())
}

struct ProgressReader<F> {
    file: File,
    progress: F,
}

impl<F: Fn()> Read for ProgressReader<F> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        (self.progress)();
        self.file.read(buffer)
    }
}

/// A hash as text.
pub fn hash_text(hash: &[u8; 32]) -> String {
    blake3::Hash::from_bytes(*hash).to_hex().to_string()
}
