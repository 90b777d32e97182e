//! The lines of a text file, one after the other, in bounded memory.

use crate::bounded;
use crate::error::{Error, Fault, Result};
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};

/// A longer line is no row of numbers: a binary file, or one without line ends.
pub const MAX_LINE_BYTES: usize = 65_536;
pub(super) const BUFFER: usize = 1 << 20;

/// The lines of a file that are not blank, without their ends.
#[derive(Debug)]
pub(super) struct TextLines {
    path: PathBuf,
    file: File,
    hasher: blake3::Hasher,
    buffer: Vec<u8>,
    begin: usize, // of what is not yet given out
    ended: bool,
    pub number: u64, // of the line given out last, from 1, as editors count
}

impl TextLines {
    pub fn open(path: &Path) -> Result<TextLines> {
        // A conversion opens it more than once.
        bounded::refuse_irregular(path)?;
        let file = File::open(path).map_err(|error| unreadable(path, &error))?;
        Ok(TextLines::new(path, file))
    }

    /// Reads the lines of a file that is open at its beginning.
    pub fn new(path: &Path, file: File) -> TextLines {
        let path = path.to_path_buf();
        let hasher = blake3::Hasher::new();
        TextLines { path, file, hasher, buffer: Vec::new(), begin: 0, ended: false, number: 0 }
    }

    /// The next line with something in it.
    pub fn advance(&mut self) -> Result<Option<&[u8]>> {
        loop {
            let Some((begin, end)) = self.next_line()? else { return Ok(None) };
            self.number += 1;
            if self.buffer[begin..end].iter().any(|byte| !byte.is_ascii_whitespace()) {
                return Ok(Some(&self.buffer[begin..end]));
            }
        }
    }

    /// blake3 of the bytes read; of the whole file once there is no more line.
    pub fn hash(&self) -> blake3::Hash {
        self.hasher.finalize()
    }

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
                return Ok((line.0 < line.1).then_some(line));
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

    /// Moves what is pending to the front and reads more behind it.
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
        self.hasher.update(&self.buffer[pending..]);
        self.ended = count == 0;
        Ok(())
    }

    /// Adds file and line to a fault of the last row.
    pub fn place(&self, fault: Fault) -> Error {
        fault.file(&self.path).row(self.number).input()
    }
}

fn unreadable(path: &Path, error: &io::Error) -> Error {
    let fault = Fault::new("cannot read this table").file(path).found(error);
    match error.kind() {
        ErrorKind::NotFound | ErrorKind::IsADirectory | ErrorKind::PermissionDenied => {
            fault.input()
        }
        _ => fault.environment(),
    }
}
