//! Stamps of files, which show a change, and hashes of their content.

use crate::bounded;
use crate::error::{Error, Fault, Result, path_text};
use std::fs::{File, Metadata};
use std::io::{Read, Seek};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Returns the error of a file with the content of `other`.
pub(crate) fn same_content(path: &Path, other: &Path) -> Error {
    copied(path, format!("a copy of {}", path_text(other)))
}

/// Returns the error of a copied file; `found` names the original.
pub(crate) fn copied(path: &Path, found: String) -> Error {
    Fault::new("two files have the same content")
        .file(path)
        .expected("every event once")
        .found(found)
        .advice("leave one of them out: its events would count twice")
        .input()
}

/// State of a file, which differs after a change: length, time of the last change, time of the last
/// change of the inode, which no program can set back, device and inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    length: u64,
    changed: (i64, i64),
    inode_changed: (i64, i64),
    file: (u64, u64),
}

impl Stamp {
    /// Returns the stamp of a file as it is now; `None` if the system gives no metadata.
    pub(crate) fn of(path: &Path) -> Option<Stamp> {
        std::fs::metadata(path).ok().map(|metadata| Stamp::new(&metadata))
    }

    /// Returns the stamp that metadata of a file contain.
    pub(crate) fn new(metadata: &Metadata) -> Stamp {
        Stamp {
            length: metadata.len(),
            changed: (metadata.mtime(), metadata.mtime_nsec()),
            inode_changed: (metadata.ctime(), metadata.ctime_nsec()),
            file: (metadata.dev(), metadata.ino()),
        }
    }

    /// Returns the length of the file [bytes].
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// Returns length and time of change as text. Device, inode and its time are left out: network
    /// file systems number their mounts on each host, and copies have their own inodes.
    pub(crate) fn portable(&self) -> String {
        format!("{} {}.{:09}", self.length, self.changed.0, self.changed.1)
    }

    /// Returns length, times of change and inode as text. It differs after a change that sets back
    /// the time of change, for another file of the same name, and for copies on other hosts.
    pub(crate) fn exact(&self) -> String {
        let (seconds, nanoseconds) = self.inode_changed;
        format!("{} {seconds}.{nanoseconds:09} {}", self.portable(), self.file.1)
    }

    /// Returns device and inode, which identify the file under any name.
    pub(crate) fn file(&self) -> (u64, u64) {
        self.file
    }
}

/// Returns the blake3 hash of a file's content, which is streamed.
pub(crate) fn hash_file(path: &Path) -> Result<[u8; 32]> {
    hash_file_with_progress(path, || ())
}

/// Returns the same hash, and calls `progress` for each part that is read.
pub(crate) fn hash_file_with_progress(path: &Path, progress: impl Fn()) -> Result<[u8; 32]> {
    hash_bytes(path, open_regular(path)?, progress)
}

/// Returns the blake3 hash of a file's content, and the file, open at its beginning.
pub(crate) fn hash_and_rewind(path: &Path) -> Result<([u8; 32], File)> {
    let mut file = open_regular(path)?;
    let hash = hash_bytes(path, &file, || ())?;
    file.rewind().map_err(|error| unreadable(path, &error))?;
    Ok((hash, file))
}

fn open_regular(path: &Path) -> Result<File> {
    bounded::refuse_irregular(path)?;
    File::open(path).map_err(|error| unreadable(path, &error))
}

/// Returns the blake3 hash of the bytes of the file `path`, and calls `progress` for each part
/// that is read.
pub(crate) fn hash_bytes(path: &Path, bytes: impl Read, progress: impl Fn()) -> Result<[u8; 32]> {
    let mut hasher = blake3::Hasher::new();
    let bytes = ProgressReader { bytes, progress };
    hasher.update_reader(bytes).map_err(|error| unreadable(path, &error))?;
    Ok(*hasher.finalize().as_bytes())
}

fn unreadable(path: &Path, error: &std::io::Error) -> Error {
    Fault::new("cannot read the file").file(path).found(error).advice("check the path").input()
}

struct ProgressReader<R, F> {
    bytes: R,
    progress: F,
}

impl<R: Read, F: Fn()> Read for ProgressReader<R, F> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        (self.progress)();
        self.bytes.read(buffer)
    }
}

/// Returns a hash as hexadecimal text.
pub(crate) fn hash_text(hash: &[u8; 32]) -> String {
    blake3::Hash::from_bytes(*hash).to_hex().to_string()
}
