//! Reads the lines of a text file in bounded memory.

use crate::bounded;
use crate::error::{Error, Fault, Result};
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};

/// Longest line. A file with longer lines is binary or has no line ends.
pub(crate) const MAX_LINE_BYTES: usize = 65_536;
/// Mark of UTF-8 that some programs (spreadsheets) write at the start of a text.
pub(in crate::data) const BYTE_ORDER_MARK: &str = "\u{feff}";
/// Bytes per read.
pub(super) const BUFFER: usize = 1 << 20;

/// Reader of the lines of a file that are not blank, without line ends and byte order mark.
#[derive(Debug)]
pub(super) struct TextLines {
    path: PathBuf,
    file: File,
    hasher: blake3::Hasher,
    buffer: Vec<u8>,
    begin: usize, // of the bytes not returned yet
    ended: bool,
    pub number: u64, // of the line returned last, from 1, as in editors
}

impl TextLines {
    /// Opens a file.
    ///
    /// # Errors
    /// `Input` if there is no such regular file; `Environment` if the system fails.
    pub(crate) fn open(path: &Path) -> Result<TextLines> {
        // A conversion opens the file more than once, which a pipe does not allow.
        bounded::refuse_irregular(path)?;
        let file = File::open(path).map_err(|error| unreadable(path, &error))?;
        Ok(TextLines::new(path, file))
    }

    /// Reads the lines of a file that is open at its beginning.
    pub(crate) fn new(path: &Path, file: File) -> TextLines {
        let path = path.to_path_buf();
        let hasher = blake3::Hasher::new();
        TextLines { path, file, hasher, buffer: Vec::new(), begin: 0, ended: false, number: 0 }
    }

    /// Returns the next line that is not blank; `None` at the end of the file.
    ///
    /// # Errors
    /// `Input` for a line longer than [`MAX_LINE_BYTES`]; `Environment` for a failed read.
    pub(crate) fn advance(&mut self) -> Result<Option<&[u8]>> {
        loop {
            let Some((begin, end)) = self.next_line()? else { return Ok(None) };
            self.number += 1;
            if self.buffer[begin..end].iter().any(|byte| !byte.is_ascii_whitespace()) {
                return Ok(Some(&self.buffer[begin..end]));
            }
        }
    }

    /// Returns the blake3 hash of the bytes read; of the whole file after the last line.
    pub(crate) fn hash(&self) -> blake3::Hash {
        self.hasher.finalize()
    }

    /// Returns the range of the next line in the buffer.
    fn next_line(&mut self) -> Result<Option<(usize, usize)>> {
        let mut searched = self.begin;
        loop {
            if let Some(at) = memchr::memchr(b'\n', &self.buffer[searched..]) {
                let line = (self.begin, searched + at);
                self.begin = searched + at + 1;
                return Ok(Some(line));
            }
            if self.ended {
                let line = (self.begin, self.buffer.len());
                self.begin = self.buffer.len();
                if line.0 == line.1 {
                    return Ok(None);
                }
                warn_of_last_line(&self.path, self.number + 1);
                return Ok(Some(line));
            }
            let pending = self.buffer.len() - self.begin;
            if pending > MAX_LINE_BYTES {
                let fault = Fault::new("not a text table").file(&self.path).row(self.number + 1);
                let fault = fault.expected(format!("lines of at most {MAX_LINE_BYTES} bytes"));
                return Err(fault.found(format!("a line of more than {pending} bytes")).input());
            }
            self.fill()?;
            searched = pending;
        }
    }

    /// Moves the pending bytes to the front of the buffer and reads more.
    fn fill(&mut self) -> Result<()> {
        self.buffer.drain(..self.begin);
        self.begin = 0;
        let pending = self.buffer.len();
        self.buffer.resize(pending + BUFFER, 0);
        let count = loop {
            match self.file.read(&mut self.buffer[pending..]) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                outcome => break outcome.map_err(|error| unreadable(&self.path, &error))?,
            }
        };
        self.buffer.truncate(pending + count);
        if self.hasher.count() == 0 && self.buffer.starts_with(BYTE_ORDER_MARK.as_bytes()) {
            self.begin = BYTE_ORDER_MARK.len();
        }
        self.hasher.update(&self.buffer[pending..]);
        self.ended = count == 0;
        Ok(())
    }

    /// Returns a fault of the last row with file and line.
    pub(crate) fn place(&self, fault: Fault) -> Error {
        fault.file(&self.path).row(self.number).input()
    }
}

/// Warns of a last line without a line end, which a complete text has.
pub(in crate::data) fn warn_of_last_line(path: &Path, row: u64) {
    log::warn!(
        "{}: the last line (row {row}) has no line end: if the file is an incomplete copy, its last \
         value is wrong",
        path.display()
    );
}

/// Returns the error of a failed read.
fn unreadable(path: &Path, error: &io::Error) -> Error {
    let fault = Fault::new("cannot read this table").file(path).found(error);
    match error.kind() {
        ErrorKind::NotFound | ErrorKind::IsADirectory | ErrorKind::PermissionDenied => {
            fault.input()
        }
        _ => fault.environment(),
    }
}
