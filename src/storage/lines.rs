//! Files of lines: append files and notes.

use super::operations::{
    create_folder, needing, parent_of, perform, put, refuse_existing, refuse_irregular,
    remove_file, sync_folder,
};
use crate::error::{Fault, Result};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// A file of lines that only grows: ledgers, metrics, logs. It has one writer.
#[derive(Debug)]
pub(crate) struct AppendFile {
    file: File,
    path: PathBuf,
    length: u64, // bytes, up to and with the last line end
}

impl AppendFile {
    /// Creates a new, empty file.
    ///
    /// # Errors
    /// `Usage` if the file exists and may not be replaced, `Environment` if the disk fails.
    pub(crate) fn create(path: &Path, overwrite: bool) -> Result<AppendFile> {
        refuse_existing(path, overwrite)?;
        create_folder(&parent_of(path))?;
        let file = perform("create", path, || {
            OpenOptions::new().create(true).write(true).truncate(true).open(path)
        })?;
        perform("sync", path, || file.sync_all())?;
        sync_folder(&parent_of(path))?;
        Ok(AppendFile { file, path: path.to_path_buf(), length: 0 })
    }

    /// Continues a file, or creates it; a torn last line, which a kill during a write leaves, is
    /// cut off.
    ///
    /// # Errors
    /// `Environment` if the disk fails.
    pub(crate) fn resume(path: &Path) -> Result<AppendFile> {
        if !path.exists() {
            return AppendFile::create(path, false);
        }
        refuse_irregular(path)?;
        let mut file =
            perform("open", path, || OpenOptions::new().read(true).write(true).open(path))?;
        let length = perform("read", path, || end_of_last_line(&mut file))?;
        perform("cut the torn last line of", path, || {
            file.set_len(length)?;
            file.seek(SeekFrom::Start(length))?;
            file.sync_all()
        })?;
        Ok(AppendFile { file, path: path.to_path_buf(), length })
    }

    /// Appends one line and syncs it; after a failure the file keeps its earlier end.
    ///
    /// # Errors
    /// `Internal` for a line with a line end, `Environment` if the disk fails.
    pub(crate) fn append_line(&mut self, line: &str) -> Result<()> {
        if line.contains('\n') {
            return Err(Fault::new("a line to append contains a line end")
                .file(&self.path)
                .internal());
        }
        let bytes = format!("{line}\n").into_bytes();
        let (file, path) = (&mut self.file, &self.path);
        let outcome = put("append to", path, file, &bytes)
            .and_then(|()| perform("sync", path, || file.sync_data()));
        if outcome.is_ok() {
            self.length += bytes.len() as u64;
        } else {
            // If this fails, `resume` cuts the rest off.
            let _ = perform("cut", path, || {
                file.set_len(self.length)?;
                file.seek(SeekFrom::Start(self.length))
            });
        }
        outcome.map_err(|error| needing(error, bytes.len() as u64))
    }
}

/// A short text that is replaced in place. It survives the death of its process, but not that of
/// its host: it is not synced.
#[derive(Debug)]
pub(crate) struct NoteFile {
    file: File,
    path: PathBuf,
}

impl NoteFile {
    /// Creates the file and its folders; earlier content is lost.
    ///
    /// # Errors
    /// `Environment` if the disk fails.
    pub(crate) fn create(path: &Path) -> Result<NoteFile> {
        create_folder(&parent_of(path))?;
        refuse_irregular(path)?;
        let file = perform("create", path, || {
            OpenOptions::new().create(true).write(true).truncate(true).open(path)
        })?;
        Ok(NoteFile { file, path: path.to_path_buf() })
    }

    /// Replaces the first line; bytes after it have no meaning.
    ///
    /// # Errors
    /// `Environment` if the disk fails.
    pub(crate) fn write(&mut self, line: &str) -> Result<()> {
        let bytes = format!("{line}\n").into_bytes();
        perform("write", &self.path, || self.file.write_all_at(&bytes, 0))
    }

    /// Removes the file.
    ///
    /// # Errors
    /// `Environment` if the disk fails.
    pub(crate) fn remove(self) -> Result<()> {
        remove_file(&self.path)
    }
}

/// Returns the number of bytes up to and including the last line end. Reads backwards in blocks, so
/// that a torn line of any length costs no memory.
fn end_of_last_line(file: &mut File) -> io::Result<u64> {
    const BLOCK: u64 = 65_536;
    let mut end = file.metadata()?.len();
    let mut block = Vec::new();
    while end > 0 {
        let start = end.saturating_sub(BLOCK);
        block.resize((end - start) as usize, 0);
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(&mut block)?;
        if let Some(position) = block.iter().rposition(|byte| *byte == b'\n') {
            return Ok(start + position as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}
