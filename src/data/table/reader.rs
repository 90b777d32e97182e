//! Reads ranges of rows of the columns of a request into blocks.

use super::batch::{ColumnBatch, ColumnData, ReadScratch};
use super::opening::PartOpener;
use super::plan::{BlockPlan, QuantityPlan};
use super::{Block, Request, Table};
use crate::data::files::stamp::Stamp;
use crate::data::hdf5::OpenInput;
use crate::data::schema::{ClassColumn, layout};
use crate::error::{Fault, Result};
use hdf5::File;
use std::ops::Range;
use std::path::PathBuf;

/// Open columns of a table; reads ranges of rows.
pub struct TableReader {
    _file: File, // keeps the chunk cache
    path: PathBuf,
    rows: u64,
    parts: Vec<(Range<u64>, ColumnBatch)>, // rows of the table
    plan: BlockPlan,
    stamp: Stamp,
    values: Vec<ColumnData>, // (columns)
    scratch: ReadScratch,
}

impl TableReader {
    /// Opens the columns of a request in a file that is open.
    pub(super) fn new(table: &Table, input: &OpenInput, request: &Request) -> Result<TableReader> {
        let mut plan = BlockPlan::default();
        let mut parts = Vec::with_capacity(table.parts.len());
        for part in &table.parts {
            let layout = layout::open(&table.path, &input.file, &part.place)?;
            let rows = part.rows.end - part.rows.start;
            let mut opener = PartOpener::new(table, layout, rows, input.stamp.length());
            // The columns of all parts are the same and in the same order.
            plan = opener.plan(request)?;
            parts.push((part.rows.clone(), ColumnBatch::new(opener.columns)?));
        }
        let wants = parts.first().map(|(_, batch)| batch.columns()).unwrap_or_default();
        Ok(TableReader {
            _file: input.file.clone(),
            path: table.path.clone(),
            rows: table.rows,
            values: wants.iter().map(|(_, want)| ColumnData::new(*want)).collect(),
            parts,
            plan,
            stamp: table.stamp,
            scratch: ReadScratch::default(),
        })
    }

    pub(crate) fn rows(&self) -> u64 {
        self.rows
    }

    /// Reads rows into a block, replaces its contents and reuses its memory. Ranges along the
    /// file that are aligned to chunks (65 536 rows in the project's own files) are fastest.
    ///
    /// # Errors
    /// `Input` if the rows cannot be read, or the file has changed since it was opened.
    pub fn read(&mut self, rows: Range<u64>, block: &mut Block) -> Result<()> {
        if rows.start > rows.end || rows.end > self.rows {
            return Err(Fault::new("rows outside the table")
                .file(&self.path)
                .expected(format!("rows within 0..{}", self.rows))
                .found(format!("{}..{}", rows.start, rows.end))
                .internal());
        }
        self.exchange(block);
        let read = self.columns(&rows);
        // Compared after a failed read too, because the change is then the reason.
        if Stamp::of(&self.path) != Some(self.stamp) {
            return Err(Fault::new("the file changed while it was read")
                .file(&self.path)
                .row(rows.start)
                .advice("wait until its writer has finished")
                .input());
        }
        read?;
        block.rows = (rows.end - rows.start) as usize;
        for (plan, quantity) in self.plan.quantities.iter().zip(&mut block.quantities) {
            plan.compute(&self.values, block.rows, quantity);
        }
        block.class = match &self.plan.class {
            Some((index, class)) => {
                Some(self.classes(*index, class, self.values[*index].i64(), rows.start)?)
            }
            None => None,
        };
        self.exchange(block);
        Ok(())
    }

    /// Swaps the columns that need no computation with those of a block.
    fn exchange(&mut self, block: &mut Block) {
        let BlockPlan { quantities, keys, shower, .. } = &self.plan;
        block.quantities.resize_with(quantities.len(), Vec::new);
        for (plan, quantity) in quantities.iter().zip(&mut block.quantities) {
            if let QuantityPlan::Direct(column) = plan {
                self.values[*column].swap_f32(quantity);
            }
        }
        for (indices, keys) in [(keys, &mut block.keys), (shower, &mut block.shower)] {
            keys.resize_with(indices.len(), Vec::new);
            for (index, key) in indices.iter().zip(keys) {
                self.values[*index].swap_i64(key);
            }
        }
    }

    /// Reads all columns of the rows, which may belong to several parts.
    fn columns(&mut self, rows: &Range<u64>) -> Result<()> {
        self.values.iter_mut().for_each(ColumnData::clear);
        for (part, batch) in &self.parts {
            let (start, end) = (rows.start.max(part.start), rows.end.min(part.end));
            if start < end {
                let rows = start - part.start..end - part.start;
                batch.read(&rows, &mut self.values, &mut self.scratch)?;
            }
        }
        Ok(())
    }

    /// Returns the classes of the rows of a block from the values of the class column.
    fn classes(
        &self,
        index: usize,
        class: &ClassColumn,
        values: &[i64],
        first: u64,
    ) -> Result<Vec<i8>> {
        let meaning = |(row, value): (usize, &i64)| {
            class.meaning(*value).ok_or_else(|| {
                let fault = match self.parts.first() {
                    Some((_, batch)) => {
                        batch.columns()[index].0.fault("a class that means nothing")
                    }
                    None => Fault::new("a class that means nothing"),
                };
                fault
                    .row(first + row as u64)
                    .expected("1 gamma, 0 hadron or -1 unknown")
                    .found(value)
                    .input()
            })
        };
        values.iter().enumerate().map(meaning).collect()
    }

    /// Returns the cache that the columns need [bytes]: two chunks of the column with the largest
    /// chunks, because a block may end inside a chunk.
    pub(super) fn cache_bytes(&self) -> usize {
        let columns = self.parts.iter().flat_map(|(_, batch)| batch.columns());
        columns.map(|(column, _)| 2 * column.chunk_bytes()).max().unwrap_or(0)
    }
}
