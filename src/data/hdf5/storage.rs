//! Checks that the storage of a column can hold its shape, before memory is allocated.

use super::numbers::{ColumnPlace, StoredColumn};
use super::{check_filters, rows};
use crate::error::{Error, Result};
use hdf5::dataset::Layout;

/// More rows in one file are a damaged header.
const MOST_ROWS: u64 = 1 << 40;
/// A chunk is read as a whole. A larger one is a damaged header, or cannot be used.
const LARGEST_CHUNK: u64 = 1 << 30; // bytes
/// Most chunks of a column that are checked in the index before it is read.
const MOST_CHUNKS_CHECKED: u64 = 4096;

/// Refuses a column whose shape its storage in a file of `file_bytes` bytes cannot hold, or whose
/// data are outside the file.
///
/// # Errors
/// `Input`, with shape and storage; those of reading the index of the chunks.
pub(crate) fn check(column: &StoredColumn, file_bytes: u64) -> Result<()> {
    ColumnStorage { column }.check(file_bytes)
}

/// The storage of a column.
struct ColumnStorage<'a> {
    column: &'a StoredColumn,
}

impl ColumnStorage<'_> {
    fn check(&self, file_bytes: u64) -> Result<()> {
        let columns = match self.column.place {
            ColumnPlace::Matrix { columns, .. } => columns as u64,
            _ => 1,
        };
        let items = self.column.rows.checked_mul(columns).filter(|_| self.column.rows <= MOST_ROWS);
        let needed = items.and_then(|items| items.checked_mul(self.column.item_bytes()));
        let Some(needed) = needed else {
            return Err(
                self.absurd(&format!("{} rows", self.column.rows), "a file that can hold them")
            );
        };
        let is_virtual = self.column.dataset.layout() == Layout::Virtual;
        if self.column.rows == 0 && !is_virtual {
            return Ok(()); // no storage
        }
        match self.column.dataset.layout() {
            Layout::Chunked => {
                check_filters(&self.column.dataset)
                    .map_err(|e| self.column.read_fault(&(0..self.column.rows), &e))?;
                self.check_chunks(file_bytes)
            }
            Layout::Compact => self.check_size(needed),
            Layout::Contiguous => {
                if self.column.dataset.dcpl().is_ok_and(|list| !list.external().is_empty()) {
                    return Err(self.elsewhere("external files"));
                }
                let end = self.column.dataset.offset().map(|offset| offset.saturating_add(needed));
                match end {
                    None => Err(self.unwritten("no data at all")),
                    Some(end) if end > file_bytes => Err(self.absurd(
                        &format!("{} rows that end at byte {end}", self.column.rows),
                        &format!("at most the {file_bytes} bytes of the file"),
                    )),
                    Some(_) => self.check_size(needed),
                }
            }
            Layout::Virtual => Err(self.elsewhere("other files (a virtual dataset)")),
        }
    }

    fn check_size(&self, needed: u64) -> Result<()> {
        match self.column.dataset.storage_size() {
            stored if stored == needed => Ok(()),
            stored => Err(self.absurd(
                &format!("{} rows, which need {needed} bytes", self.column.rows),
                &format!("as many as the {stored} bytes stored"),
            )),
        }
    }

    fn check_chunks(&self, file_bytes: u64) -> Result<()> {
        let bytes = self.column.chunk_bytes() as u64;
        let chunk = self.column.dataset.chunk().unwrap_or_default();
        let shape = self.column.dataset.shape();
        if chunk.len() != shape.len() || chunk.contains(&0) || bytes > LARGEST_CHUNK {
            return Err(self.absurd(
                &format!("chunks of {chunk:?}"),
                &format!("chunks of at most {LARGEST_CHUNK} bytes"),
            ));
        }
        let counts = shape.iter().zip(&chunk).map(|(n, c)| n.div_ceil(*c) as u64);
        let counts: Vec<u64> = counts.collect();
        let expected = counts.iter().fold(1u64, |product, n| product.saturating_mul(*n));
        let stored = rows::stored_chunks(&self.column.dataset)
            .map_err(|error| self.column.read_fault(&(0..self.column.rows), &error))?;
        if stored < expected {
            return Err(self.unwritten(&format!("{stored} of {expected} chunks")));
        }
        // Each lookup walks the index, which takes long with very many chunks.
        let few = (0..expected).filter(|_| expected <= MOST_CHUNKS_CHECKED);
        for index in few {
            let Some(info) = self.column.dataset.chunk_info(index as usize) else { continue };
            let first = first_item(index, &counts, &chunk);
            if info.offset != first || info.addr.saturating_add(info.size) > file_bytes {
                return Err(self
                    .column
                    .fault("the index of the chunks is damaged")
                    .row(first[0])
                    .advice("its rows would read as zeros: copy or write the file again")
                    .input());
            }
        }
        Ok(())
    }

    fn absurd(&self, found: &str, expected: &str) -> Error {
        self.column
            .fault("shape and storage do not agree")
            .expected(expected)
            .found(found)
            .advice("the file is damaged: copy or write it again")
            .input()
    }

    fn unwritten(&self, found: &str) -> Error {
        self.column
            .fault("part of the dataset was never written")
            .expected(format!("{} rows", self.column.rows))
            .found(found)
            .advice("its missing rows would read as zeros: write the file again")
            .input()
    }

    fn elsewhere(&self, place: &str) -> Error {
        self.column
            .fault("the data lie outside the file")
            .found(place)
            .advice("copy them into one file, for example with h5repack")
            .input()
    }
}

/// Returns the first item of chunk `index`; chunks are counted row by row.
fn first_item(index: u64, counts: &[u64], chunk: &[usize]) -> Vec<u64> {
    let mut rest = index;
    let mut first = vec![0; counts.len()];
    for dimension in (0..counts.len()).rev() {
        first[dimension] = rest % counts[dimension] * chunk[dimension] as u64;
        rest /= counts[dimension];
    }
    first
}
