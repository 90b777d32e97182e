//! What an output file of the project says of itself: whether it is complete, which
//! columns it has, of what it was made. Left to others: how it was written (`columns`).

use super::h5;
use crate::error::Result;
use hdf5::File;
use std::path::{Path, PathBuf};

/// Rows read at a time.
const BLOCK_ROWS: usize = 65_536;

/// An output file that is open and complete.
pub struct FinishedFile {
    file: File,
    path: PathBuf,
}

impl FinishedFile {
    /// `None` for what is not a complete file of `format`.
    pub fn open(path: &Path, format: &str) -> Option<FinishedFile> {
        let file = h5::open(path).ok()?;
        let complete = h5::integer_attribute(&file, "complete") == Some(1);
        let known = h5::text_attribute(&file, "format").as_deref() == Some(format);
        (complete && known).then(|| FinishedFile { file, path: path.to_path_buf() })
    }

    pub fn text(&self, attribute: &str) -> Option<String> {
        h5::text_attribute(&self.file, attribute)
    }

    pub fn rows(&self) -> Option<u64> {
        h5::integer_attribute(&self.file, "rows").and_then(|rows| u64::try_from(rows).ok())
    }

    /// Hands out the numbers of a column, block by block; its checksums are verified on
    /// the way. Returns how many there were.
    pub fn for_each_u32(&self, column: &str, mut each: impl FnMut(u32)) -> Result<u64> {
        let fault = |error: hdf5::Error| h5::read_fault(&self.path, column, &error);
        let dataset = self.file.dataset(column).map_err(fault)?;
        let rows = dataset.size();
        let mut first = 0;
        while first < rows {
            let next = (first + BLOCK_ROWS).min(rows);
            let values = dataset.read_slice_1d::<u32, _>(first..next).map_err(fault)?;
            values.iter().for_each(|value| each(*value));
            first = next;
        }
        Ok(rows as u64)
    }
}
