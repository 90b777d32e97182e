//! Writes a group of equally long datasets, (rows) or (rows, positions), of event and score files.
//!
//! - Chunks have 65 536 rows of one position, with shuffle, lzf and fletcher32.
//! - Equal data give identical bytes: no times are stored, and the sizes of the appended pieces
//!   have no effect.
//! - Memory is bounded by one chunk per column.
//! - The file gets its final name only when it is complete.

use crate::data::hdf5::write_fault;
use crate::error::{Error, Fault, Result};
use crate::storage::{Staged, needing};
use hdf5::file::LibraryVersion;
use hdf5::types::{FixedUnicode, TypeDescriptor};
use hdf5::{Dataset, File, Group, H5Type, Location};
use ndarray::ArrayView2;
use std::ops::Range;
use std::path::Path;
use std::str::FromStr;

/// Rows of a chunk, the same in every file of the project.
pub const CHUNK_ROWS: usize = 65_536;

/// Approximate size of a file without rows [bytes].
const SMALLEST_FILE: u64 = 4096;

/// Largest text attribute [bytes].
const LONGEST_TEXT: usize = 4096;

/// The type of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ColumnType {
    F32,
    F64,
    I64,
    I8,
    U8,
    U32,
}

impl ColumnType {
    /// Returns the size of a value [bytes].
    pub(crate) fn bytes(self) -> u64 {
        match self {
            ColumnType::I8 | ColumnType::U8 => 1,
            ColumnType::F32 | ColumnType::U32 => 4,
            ColumnType::F64 | ColumnType::I64 => 8,
        }
    }
}

/// A column to write; the unit becomes the attribute `units`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColumnSpec {
    pub name: String,
    pub kind: ColumnType,
    pub unit: Option<String>,
    /// Values per row of a two-dimensional dataset; `None` for a one-dimensional one.
    pub positions: Option<usize>,
}

/// Refuses two columns of one name in the output of an input file, such as a key with the name of a
/// computed column.
///
/// # Errors
/// `Input`.
pub(crate) fn refuse_equal_names(specs: &[ColumnSpec], input: &Path) -> Result<()> {
    let equal = (1..specs.len()).find(|i| specs[..*i].iter().any(|s| s.name == specs[*i].name));
    let Some(index) = equal else { return Ok(()) };
    Err(Fault::new("a column has the name of a column that is written")
        .file(input)
        .column(&specs[index].name)
        .advice("rename the column in the file, or map it to another name in a schema")
        .input())
}

impl ColumnSpec {
    /// Returns a one-dimensional column.
    pub fn new(name: impl Into<String>, kind: ColumnType, unit: Option<&str>) -> ColumnSpec {
        ColumnSpec { name: name.into(), kind, unit: unit.map(str::to_string), positions: None }
    }

    /// Returns the same column as a dataset of (rows, positions).
    #[must_use]
    pub(crate) fn at_positions(self, positions: Option<usize>) -> ColumnSpec {
        ColumnSpec { positions, ..self }
    }

    /// Returns the number of values per row.
    pub(crate) fn width(&self) -> usize {
        self.positions.unwrap_or(1)
    }
}

/// Rows of one column to append. A two-dimensional column is given as (positions, rows): all
/// rows of the first position, then those of the next one.
#[derive(Debug, Clone, Copy)]
pub enum ColumnValues<'a> {
    F32(&'a [f32]),
    F64(&'a [f64]),
    I64(&'a [i64]),
    I8(&'a [i8]),
    U8(&'a [u8]),
    U32(&'a [u32]),
}

impl ColumnValues<'_> {
    /// Returns the type of the values.
    pub(crate) fn kind(&self) -> ColumnType {
        match self {
            ColumnValues::F32(_) => ColumnType::F32,
            ColumnValues::F64(_) => ColumnType::F64,
            ColumnValues::I64(_) => ColumnType::I64,
            ColumnValues::I8(_) => ColumnType::I8,
            ColumnValues::U8(_) => ColumnType::U8,
            ColumnValues::U32(_) => ColumnType::U32,
        }
    }

    /// Returns the number of values of all positions.
    pub(crate) fn len(&self) -> usize {
        match self {
            ColumnValues::F32(values) => values.len(),
            ColumnValues::F64(values) => values.len(),
            ColumnValues::I64(values) => values.len(),
            ColumnValues::I8(values) => values.len(),
            ColumnValues::U8(values) => values.len(),
            ColumnValues::U32(values) => values.len(),
        }
    }
}

/// An attribute of the file's root or of the group.
#[derive(Debug, Clone, PartialEq)]
pub enum Attribute {
    Text(String),
    Integer(i64),
    Number(f64),
    Numbers(Vec<f64>),
}

/// Writer of one output file. If it is dropped before [`ColumnWriter::finish`], it removes the
/// incomplete file.
pub struct ColumnWriter {
    // Fields are dropped in this order: the datasets close before the file, and the file closes
    // before the incomplete file is removed.
    columns: Vec<OutputColumn>,
    group: Group,
    file: File,
    staged: Staged,
    rows: u64,       // written to the datasets
    buffered: usize, // not written yet, because their chunk is not full
}

struct OutputColumn {
    spec: ColumnSpec,
    dataset: Dataset,
    buffer: ColumnBuffer,
}

/// Rows of one column that are not written yet: (positions)(rows).
enum ColumnBuffer {
    F32(Vec<Vec<f32>>),
    F64(Vec<Vec<f64>>),
    I64(Vec<Vec<i64>>),
    I8(Vec<Vec<i8>>),
    U8(Vec<Vec<u8>>),
    U32(Vec<Vec<u32>>),
}

impl ColumnWriter {
    /// Creates the file `path` with the columns in `group` (one level, such as `events`).
    ///
    /// # Errors
    /// `Usage` if the file exists and `overwrite` is false; `Environment` if writing fails.
    pub fn create(
        path: &Path,
        group: &str,
        specs: &[ColumnSpec],
        overwrite: bool,
    ) -> Result<ColumnWriter> {
        let staged = Staged::new(path, overwrite)?;
        let failed = |error| needing(write_fault("create", staged.part(), &error), SMALLEST_FILE);
        // In the format of HDF5 1.10 headers and indices have checksums, in older formats they do
        // not. Stored times would make files with equal data differ.
        let format = LibraryVersion::V110;
        let file = File::with_options()
            .with_fapl(|access| access.libver_bounds(format, format).file_locking(false))
            .with_fcpl(|create| create.obj_track_times(false))
            .create(staged.part())
            .map_err(failed)?;
        let group =
            file.create_group_builder().obj_track_times(false).create(group).map_err(failed)?;
        let columns = specs
            .iter()
            .map(|spec| OutputColumn::create(&group, spec))
            .collect::<hdf5::Result<Vec<_>>>()
            .map_err(failed)?;
        Ok(ColumnWriter { columns, group, file, staged, rows: 0, buffered: 0 })
    }

    /// Writes an attribute of the group of the columns.
    ///
    /// # Errors
    /// `Environment` if writing fails.
    pub(crate) fn group_attribute(&self, name: &str, value: &Attribute) -> Result<()> {
        write_attribute(&self.group, name, value)
            .map_err(|error| write_fault("write", self.staged.part(), &error))
    }

    /// Returns the open file, for additional groups.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Returns the path of the incomplete file.
    pub(crate) fn part(&self) -> &Path {
        self.staged.part()
    }

    /// Returns the number of rows appended so far.
    pub(crate) fn rows(&self) -> u64 {
        self.rows + self.buffered as u64
    }

    /// Appends the same number of rows to every column, in the order of the specs.
    ///
    /// # Errors
    /// `Internal` if the values do not match the specs; `Environment` if writing fails.
    pub fn append(&mut self, values: &[ColumnValues]) -> Result<()> {
        let rows = self.check(values)?;
        let mut done = 0;
        while done < rows {
            let take = (CHUNK_ROWS - self.buffered).min(rows - done);
            for (column, values) in self.columns.iter_mut().zip(values) {
                column.buffer.extend(values, rows, done..done + take);
            }
            done += take;
            self.buffered += take;
            if self.buffered == CHUNK_ROWS {
                self.flush()?;
            }
        }
        Ok(())
    }

    /// Writes the buffered rows, the attributes of the root and `rows`, closes the file and
    /// renames it to its final name. Returns the number of rows.
    ///
    /// # Errors
    /// `Environment` if writing fails.
    pub fn finish(mut self, attributes: &[(String, Attribute)]) -> Result<u64> {
        self.flush()?;
        let need = self.need();
        let ColumnWriter { columns, group, file, staged, rows, .. } = self;
        let failed =
            |error: hdf5::Error| needing(write_fault("write", staged.part(), &error), need);
        for (name, value) in attributes {
            write_attribute(&file, name, value).map_err(failed)?;
        }
        write_attribute(&file, "rows", &Attribute::Integer(rows as i64)).map_err(failed)?;
        for column in &columns {
            column.dataset.flush().map_err(failed)?;
        }
        drop(columns);
        drop(group);
        file.flush().map_err(failed)?;
        file.close().map_err(failed)?;
        staged.commit().map_err(|error| needing(error, need))?;
        Ok(rows)
    }

    /// Returns the size of the rows appended so far, before compression [bytes].
    fn need(&self) -> u64 {
        let row: u64 =
            self.columns.iter().map(|c| c.spec.kind.bytes() * c.spec.width() as u64).sum();
        self.rows() * row
    }

    /// Returns the number of rows of a piece to append, after a check of its types and shapes.
    fn check(&self, values: &[ColumnValues]) -> Result<usize> {
        if values.len() != self.columns.len() {
            return Err(self.mismatch(
                "columns",
                self.columns.len().to_string(),
                values.len().to_string(),
            ));
        }
        let width = self.columns.first().map_or(1, |column| column.spec.width());
        let rows = values.first().map_or(0, ColumnValues::len) / width.max(1);
        for (column, values) in self.columns.iter().zip(values) {
            let name = &column.spec.name;
            if values.kind() != column.spec.kind {
                let (expected, found) = (column.spec.kind, values.kind());
                return Err(self.mismatch(name, format!("{expected:?}"), format!("{found:?}")));
            }
            if values.len() != rows * column.spec.width() {
                let expected = format!("{rows} rows of {}", column.spec.width());
                let found = format!("{} values", values.len());
                return Err(self.mismatch(name, expected, found));
            }
        }
        Ok(rows)
    }

    /// Returns the error of values that do not match the specs.
    fn mismatch(&self, column: &str, expected: String, found: String) -> Error {
        Fault::new("values do not match the columns of an output")
            .file(self.staged.target())
            .column(column)
            .expected(expected)
            .found(found)
            .internal()
    }

    /// Writes the buffered rows.
    fn flush(&mut self) -> Result<()> {
        let (first, next) = (self.rows as usize, self.rows as usize + self.buffered);
        let need = self.need();
        for column in &mut self.columns {
            column
                .flush(first, next)
                .map_err(|error| needing(write_fault("write", self.staged.part(), &error), need))?;
        }
        self.rows = next as u64;
        self.buffered = 0;
        Ok(())
    }
}

impl OutputColumn {
    /// Creates the dataset of a column.
    fn create(group: &Group, spec: &ColumnSpec) -> hdf5::Result<OutputColumn> {
        fn start<T: H5Type>(
            group: &Group,
            spec: &ColumnSpec,
        ) -> hdf5::Result<(Dataset, Vec<Vec<T>>)> {
            let buffer = (0..spec.width()).map(|_| Vec::new()).collect();
            Ok((new_dataset::<T>(group, spec)?, buffer))
        }
        let (dataset, buffer) = match spec.kind {
            ColumnType::F32 => start(group, spec).map(|(d, b)| (d, ColumnBuffer::F32(b)))?,
            ColumnType::F64 => start(group, spec).map(|(d, b)| (d, ColumnBuffer::F64(b)))?,
            ColumnType::I64 => start(group, spec).map(|(d, b)| (d, ColumnBuffer::I64(b)))?,
            ColumnType::I8 => start(group, spec).map(|(d, b)| (d, ColumnBuffer::I8(b)))?,
            ColumnType::U8 => start(group, spec).map(|(d, b)| (d, ColumnBuffer::U8(b)))?,
            ColumnType::U32 => start(group, spec).map(|(d, b)| (d, ColumnBuffer::U32(b)))?,
        };
        if let Some(unit) = &spec.unit {
            write_attribute(&dataset, "units", &Attribute::Text(unit.clone()))?;
        }
        Ok(OutputColumn { spec: spec.clone(), dataset, buffer })
    }

    /// Extends the dataset to `next` rows and writes the buffer to rows `first..next`.
    fn flush(&mut self, first: usize, next: usize) -> hdf5::Result<()> {
        if next == first {
            return Ok(());
        }
        match self.spec.positions {
            None => self.dataset.resize((next,))?,
            Some(positions) => self.dataset.resize((next, positions))?,
        }
        let two = self.spec.positions.is_some();
        match &mut self.buffer {
            ColumnBuffer::F32(values) => write_rows(&self.dataset, values, first, two),
            ColumnBuffer::F64(values) => write_rows(&self.dataset, values, first, two),
            ColumnBuffer::I64(values) => write_rows(&self.dataset, values, first, two),
            ColumnBuffer::I8(values) => write_rows(&self.dataset, values, first, two),
            ColumnBuffer::U8(values) => write_rows(&self.dataset, values, first, two),
            ColumnBuffer::U32(values) => write_rows(&self.dataset, values, first, two),
        }
    }
}

impl ColumnBuffer {
    /// Appends the rows `rows` of a piece with `all` rows.
    fn extend(&mut self, values: &ColumnValues, all: usize, rows: Range<usize>) {
        fn take<T: Copy>(buffer: &mut [Vec<T>], values: &[T], all: usize, rows: &Range<usize>) {
            for (position, buffer) in buffer.iter_mut().enumerate() {
                let first = position * all;
                buffer.extend_from_slice(&values[first + rows.start..first + rows.end]);
            }
        }
        match (self, values) {
            (ColumnBuffer::F32(buffer), ColumnValues::F32(values)) => {
                take(buffer, values, all, &rows);
            }
            (ColumnBuffer::F64(buffer), ColumnValues::F64(values)) => {
                take(buffer, values, all, &rows);
            }
            (ColumnBuffer::I64(buffer), ColumnValues::I64(values)) => {
                take(buffer, values, all, &rows);
            }
            (ColumnBuffer::I8(buffer), ColumnValues::I8(values)) => {
                take(buffer, values, all, &rows);
            }
            (ColumnBuffer::U8(buffer), ColumnValues::U8(values)) => {
                take(buffer, values, all, &rows);
            }
            (ColumnBuffer::U32(buffer), ColumnValues::U32(values)) => {
                take(buffer, values, all, &rows);
            }
            _ => {} // `append` has checked the types
        }
    }
}

/// Creates an empty dataset of unlimited rows.
fn new_dataset<T: H5Type>(group: &Group, spec: &ColumnSpec) -> hdf5::Result<Dataset> {
    let builder = group.new_dataset::<T>();
    let builder = match spec.positions {
        None => builder.shape((0..,)).chunk((CHUNK_ROWS,)),
        // A chunk has one position, so that a single position can be read alone.
        Some(positions) => builder.shape((0.., positions)).chunk((CHUNK_ROWS, 1)),
    };
    builder.shuffle().lzf().fletcher32().obj_track_times(false).create(spec.name.as_str())
}

/// Writes and clears the buffered rows of each position, which are contiguous in memory and
/// have their own chunks.
fn write_rows<T: H5Type>(
    dataset: &Dataset,
    buffer: &mut [Vec<T>],
    first: usize,
    two_dimensional: bool,
) -> hdf5::Result<()> {
    for (position, values) in buffer.iter_mut().enumerate() {
        let rows = first..first + values.len();
        if two_dimensional {
            let column = ArrayView2::from_shape((values.len(), 1), values.as_slice())
                .map_err(|error| error.to_string())?;
            dataset.write_slice(column, (rows, position..position + 1))?;
        } else {
            dataset.write_slice(values.as_slice(), rows)?;
        }
        values.clear();
    }
    Ok(())
}

/// Writes one attribute of a file, group or dataset.
fn write_attribute(place: &Location, name: &str, value: &Attribute) -> hdf5::Result<()> {
    match value {
        Attribute::Text(text) => write_text(place, name, text),
        Attribute::Integer(value) => place.new_attr::<i64>().create(name)?.write_scalar(value),
        Attribute::Number(value) => place.new_attr::<f64>().create(name)?.write_scalar(value),
        Attribute::Numbers(values) => {
            place.new_attr::<f64>().shape(values.len()).create(name)?.write(values)
        }
    }
}

/// Writes a text attribute of fixed length. It is stored in the header, which has a checksum.
/// Texts of variable length are stored in a heap without checksum, and damage to the heap
/// crashes the library.
pub(crate) fn write_text(place: &Location, name: &str, text: &str) -> hdf5::Result<()> {
    let value = FixedUnicode::<LONGEST_TEXT>::from_str(text)
        .map_err(|_| format!("attribute '{name}' is longer than {LONGEST_TEXT} bytes"))?;
    let stored = TypeDescriptor::FixedUnicode(text.len().max(1));
    place.new_attr_builder().empty_as(&stored).create(name)?.write_scalar(&value)
}

#[cfg(test)]
mod tests;
