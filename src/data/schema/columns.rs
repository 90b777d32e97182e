//! Writes a group of equally long datasets, one-dimensional or (rows, positions): the
//! layout that event files and score files share.
//!
//! Promises: chunks of 65 536 rows (of one position) with shuffle, lzf and fletcher32; equal data gives
//! byte-identical files (no times are stored, and the sizes of the appended pieces do
//! not show); memory is bounded by one chunk per column; the file has its name only
//! when it is whole. Left to others: which columns, and what they mean.

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

/// About the bytes of a file without rows.
const SMALLEST_FILE: u64 = 4096;

/// Bytes of the longest text attribute.
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
    pub fn bytes(self) -> u64 {
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
    /// Values per row, of a two-dimensional dataset.
    pub positions: Option<usize>,
}

impl ColumnSpec {
    pub fn new(name: impl Into<String>, kind: ColumnType, unit: Option<&str>) -> ColumnSpec {
        ColumnSpec { name: name.into(), kind, unit: unit.map(str::to_string), positions: None }
    }

    /// The same as a dataset of (rows, positions).
    #[must_use]
    pub fn at_positions(self, positions: Option<usize>) -> ColumnSpec {
        ColumnSpec { positions, ..self }
    }

    /// Values per row.
    pub fn width(&self) -> usize {
        self.positions.unwrap_or(1)
    }
}

/// Rows of one column to append; of several positions (positions, rows): all rows of the
/// first position, then those of the next.
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
    pub fn kind(&self) -> ColumnType {
        match self {
            ColumnValues::F32(_) => ColumnType::F32,
            ColumnValues::F64(_) => ColumnType::F64,
            ColumnValues::I64(_) => ColumnType::I64,
            ColumnValues::I8(_) => ColumnType::I8,
            ColumnValues::U8(_) => ColumnType::U8,
            ColumnValues::U32(_) => ColumnType::U32,
        }
    }

    pub fn len(&self) -> usize {
        match self {
            ColumnValues::F32(values) => values.len(),
            ColumnValues::F64(values) => values.len(),
            ColumnValues::I64(values) => values.len(),
            ColumnValues::I8(values) => values.len(),
            ColumnValues::U8(values) => values.len(),
            ColumnValues::U32(values) => values.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
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

/// One open output. Dropped without [`ColumnWriter::finish`], it leaves nothing behind.
pub struct ColumnWriter {
    // The datasets close before the file, and the file before the part is removed:
    // fields are dropped in this order.
    columns: Vec<OutputColumn>,
    group: Group,
    file: File,
    staged: Staged,
    rows: u64,       // written to the datasets
    buffered: usize, // waiting for their chunk to fill
}

struct OutputColumn {
    spec: ColumnSpec,
    dataset: Dataset,
    buffer: ColumnBuffer,
}

/// Rows of one column that wait for their chunk to fill: (positions)(rows).
enum ColumnBuffer {
    F32(Vec<Vec<f32>>),
    F64(Vec<Vec<f64>>),
    I64(Vec<Vec<i64>>),
    I8(Vec<Vec<i8>>),
    U8(Vec<Vec<u8>>),
    U32(Vec<Vec<u32>>),
}

impl ColumnWriter {
    /// Starts the file `path` with the columns in `group` (one level, such as
    /// `events`); an existing file is refused unless `overwrite`.
    pub fn create(
        path: &Path,
        group: &str,
        specs: &[ColumnSpec],
        overwrite: bool,
    ) -> Result<ColumnWriter> {
        let staged = Staged::new(path, overwrite)?;
        let failed = |error| needing(write_fault("create", staged.part(), &error), SMALLEST_FILE);
        // The format of HDF5 1.10: its headers and indices carry checksums, the older
        // formats' do not. Times would make equal data differ.
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

    /// An attribute of the group of the columns.
    pub fn group_attribute(&self, name: &str, value: &Attribute) -> Result<()> {
        write_attribute(&self.group, name, value)
            .map_err(|error| write_fault("write", self.staged.part(), &error))
    }

    /// The open file, for groups beside that of the columns.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Where the file is written until it is finished.
    pub(crate) fn part(&self) -> &Path {
        self.staged.part()
    }

    /// Rows appended so far.
    pub fn rows(&self) -> u64 {
        self.rows + self.buffered as u64
    }

    /// Appends equally many rows to every column, in the order of the specs.
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

    /// Writes what is left and the attributes of the root (and `rows`), closes the
    /// file and gives it its name. Returns the rows written.
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

    /// Bytes that the rows so far need, before compression.
    fn need(&self) -> u64 {
        let row: u64 =
            self.columns.iter().map(|c| c.spec.kind.bytes() * c.spec.width() as u64).sum();
        self.rows() * row
    }

    /// Rows of a piece to append, if its shape is that of the columns.
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

    fn mismatch(&self, what: &str, expected: String, found: String) -> Error {
        Fault::new("values do not fit the columns of an output")
            .file(self.staged.target())
            .column(what)
            .expected(expected)
            .found(found)
            .internal()
    }

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
    fn create(group: &Group, spec: &ColumnSpec) -> hdf5::Result<OutputColumn> {
        fn start<T: H5Type>(
            group: &Group,
            spec: &ColumnSpec,
        ) -> hdf5::Result<(Dataset, Vec<Vec<T>>)> {
            let buffer = (0..spec.width()).map(|_| Vec::new()).collect();
            Ok((new_dataset::<T>(group, spec)?, buffer))
        }
        let with = |(dataset, buffer): (Dataset, ColumnBuffer)| -> hdf5::Result<OutputColumn> {
            if let Some(unit) = &spec.unit {
                write_attribute(&dataset, "units", &Attribute::Text(unit.clone()))?;
            }
            Ok(OutputColumn { spec: spec.clone(), dataset, buffer })
        };
        with(match spec.kind {
            ColumnType::F32 => start(group, spec).map(|(d, b)| (d, ColumnBuffer::F32(b)))?,
            ColumnType::F64 => start(group, spec).map(|(d, b)| (d, ColumnBuffer::F64(b)))?,
            ColumnType::I64 => start(group, spec).map(|(d, b)| (d, ColumnBuffer::I64(b)))?,
            ColumnType::I8 => start(group, spec).map(|(d, b)| (d, ColumnBuffer::I8(b)))?,
            ColumnType::U8 => start(group, spec).map(|(d, b)| (d, ColumnBuffer::U8(b)))?,
            ColumnType::U32 => start(group, spec).map(|(d, b)| (d, ColumnBuffer::U32(b)))?,
        })
    }

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
    /// Takes a range of the rows of a piece of `all` rows.
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
            _ => {} // `append` has checked the kinds
        }
    }
}

fn new_dataset<T: H5Type>(group: &Group, spec: &ColumnSpec) -> hdf5::Result<Dataset> {
    let builder = group.new_dataset::<T>();
    let builder = match spec.positions {
        None => builder.shape((0..,)).chunk((CHUNK_ROWS,)),
        // One position is read as easily as all.
        Some(positions) => builder.shape((0.., positions)).chunk((CHUNK_ROWS, 1)),
    };
    builder.shuffle().lzf().fletcher32().obj_track_times(false).create(spec.name.as_str())
}

/// Writes the buffered rows of each position: contiguous in memory, and a chunk of their
/// own.
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

/// Texts have a fixed length, and so lie in the header, under its checksum: those of
/// variable length lie in a heap without one, which crashes the library when damaged.
pub(crate) fn write_text(place: &Location, name: &str, text: &str) -> hdf5::Result<()> {
    let value = FixedUnicode::<LONGEST_TEXT>::from_str(text)
        .map_err(|_| format!("attribute '{name}' is longer than {LONGEST_TEXT} bytes"))?;
    let stored = TypeDescriptor::FixedUnicode(text.len().max(1));
    place.new_attr_builder().empty_as(&stored).create(name)?.write_scalar(&value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn specs() -> Vec<ColumnSpec> {
        vec![
            ColumnSpec::new("width", ColumnType::F32, Some("deg")),
            ColumnSpec::new("energy", ColumnType::F64, Some("TeV")),
            ColumnSpec::new("event_id", ColumnType::I64, None),
            ColumnSpec::new("class", ColumnType::I8, None),
            ColumnSpec::new("status", ColumnType::U32, None),
        ]
    }

    /// Writes `rows` rows in pieces of `piece` rows.
    fn write(path: &Path, rows: usize, piece: usize, overwrite: bool) -> Result<u64> {
        let width: Vec<f32> = (0..rows).map(|i| i as f32 * 0.5).collect();
        let energy: Vec<f64> = (0..rows).map(|i| i as f64 * 0.1).collect();
        let event_id: Vec<i64> = (0..rows).map(|i| i as i64 - 7).collect();
        let class: Vec<i8> = (0..rows).map(|i| (i % 3) as i8 - 1).collect();
        let status: Vec<u32> = (0..rows).map(|i| i as u32).collect();
        let mut writer = ColumnWriter::create(path, "events", &specs(), overwrite)?;
        for first in (0..rows).step_by(piece) {
            let range = first..(first + piece).min(rows);
            writer.append(&[
                ColumnValues::F32(&width[range.clone()]),
                ColumnValues::F64(&energy[range.clone()]),
                ColumnValues::I64(&event_id[range.clone()]),
                ColumnValues::I8(&class[range.clone()]),
                ColumnValues::U32(&status[range]),
            ])?;
        }
        writer.finish(&[
            ("format".to_string(), Attribute::Text("taiga-flow-events".to_string())),
            ("version".to_string(), Attribute::Integer(1)),
            ("fraction".to_string(), Attribute::Number(0.25)),
        ])
    }

    #[test]
    fn equal_data_gives_equal_bytes_however_appended() {
        let folder = tempfile::tempdir().unwrap();
        let [a, b, c] = ["a.h5", "b.h5", "c.h5"].map(|name| folder.path().join(name));
        let rows = CHUNK_ROWS + 1234;
        assert_eq!(write(&a, rows, 1000, false).unwrap(), rows as u64);
        std::thread::sleep(Duration::from_millis(1100)); // a stored time would differ
        write(&b, rows, rows, false).unwrap();
        write(&c, rows, 70_001, false).unwrap();
        let bytes = std::fs::read(&a).unwrap();
        assert!(bytes == std::fs::read(&b).unwrap());
        assert!(bytes == std::fs::read(&c).unwrap());
    }

    #[test]
    fn values_units_and_attributes_round_trip() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.h5");
        let rows = 2 * CHUNK_ROWS;
        write(&path, rows, 50_000, false).unwrap();
        let file = File::open(&path).unwrap();
        let width = file.dataset("events/width").unwrap();
        assert_eq!(width.shape(), [rows]);
        assert_eq!(width.chunk(), Some(vec![CHUNK_ROWS]));
        assert_eq!(width.filters().len(), 3);
        let last = width.read_raw::<f32>().unwrap()[rows - 1];
        assert!((last - (rows - 1) as f32 * 0.5).abs() < 1e-6);
        let text = |place: &Location, name: &str| {
            place.attr(name).unwrap().read_scalar::<FixedUnicode<64>>().unwrap().to_string()
        };
        assert_eq!(text(&width, "units"), "deg");
        assert_eq!(text(&file, "format"), "taiga-flow-events");
        let status = file.dataset("events/status").unwrap().read_raw::<u32>().unwrap();
        assert_eq!(status[CHUNK_ROWS + 1], CHUNK_ROWS as u32 + 1);
        assert_eq!(file.attr("rows").unwrap().read_scalar::<i64>().unwrap(), rows as i64);
        let fraction = file.attr("fraction").unwrap().read_scalar::<f64>().unwrap();
        assert!((fraction - 0.25).abs() < 1e-15);
    }

    #[test]
    fn columns_of_several_positions_round_trip() {
        let folder = tempfile::tempdir().unwrap();
        let (rows, positions) = (CHUNK_ROWS + 77, 3);
        let mut files = Vec::new();
        for (name, piece) in [("a.h5", 40_000), ("b.h5", rows)] {
            let path = folder.path().join(name);
            let specs = [
                ColumnSpec::new("score", ColumnType::F32, Some("nat"))
                    .at_positions(Some(positions)),
                ColumnSpec::new("pass", ColumnType::U8, None).at_positions(Some(positions)),
                ColumnSpec::new("event_id", ColumnType::I64, None),
            ];
            let mut writer = ColumnWriter::create(&path, "scores", &specs, false).unwrap();
            for first in (0..rows).step_by(piece) {
                let next = (first + piece).min(rows);
                let all = |k: usize| (first..next).map(move |row| 10 * row + k);
                let score: Vec<f32> = (0..positions).flat_map(all).map(|v| v as f32).collect();
                let pass: Vec<u8> = (0..positions).flat_map(all).map(|v| v as u8).collect();
                let event_id: Vec<i64> = (first..next).map(|row| row as i64).collect();
                let values = [
                    ColumnValues::F32(&score),
                    ColumnValues::U8(&pass),
                    ColumnValues::I64(&event_id),
                ];
                writer.append(&values).unwrap();
            }
            let angles = Attribute::Numbers(vec![0.0, 120.0, 240.0]);
            writer.group_attribute("positions", &angles).unwrap();
            assert_eq!(writer.finish(&[]).unwrap(), rows as u64);
            files.push(std::fs::read(&path).unwrap());
            let file = File::open(&path).unwrap();
            let score = file.dataset("scores/score").unwrap();
            assert_eq!((score.shape(), score.chunk()), (vec![rows, 3], Some(vec![CHUNK_ROWS, 1])));
            let values = score.read_2d::<f32>().unwrap();
            let pass = file.dataset("scores/pass").unwrap().read_2d::<u8>().unwrap();
            for row in 0..rows {
                for k in 0..positions {
                    assert_eq!(values[[row, k]].to_bits(), ((10 * row + k) as f32).to_bits());
                    assert_eq!(pass[[row, k]], (10 * row + k) as u8);
                }
            }
            let angles = file.group("scores").unwrap().attr("positions").unwrap();
            assert_eq!(angles.read_raw::<f64>().unwrap(), [0.0, 120.0, 240.0]);
        }
        assert!(files[0] == files[1]);
    }

    #[test]
    fn a_dropped_writer_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.h5");
        let mut writer = ColumnWriter::create(&path, "events", &specs()[..1], false).unwrap();
        writer.append(&[ColumnValues::F32(&vec![1.0; CHUNK_ROWS + 5])]).unwrap();
        assert_eq!(writer.rows(), CHUNK_ROWS as u64 + 5);
        drop(writer);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn values_unlike_their_columns_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.h5");
        let mut writer = ColumnWriter::create(&path, "events", &specs()[..2], false).unwrap();
        assert!(writer.append(&[ColumnValues::F32(&[1.0])]).is_err());
        assert!(writer.append(&[ColumnValues::F32(&[1.0]), ColumnValues::F32(&[1.0])]).is_err());
        let error =
            writer.append(&[ColumnValues::F32(&[1.0]), ColumnValues::F64(&[])]).unwrap_err();
        assert!(error.to_string().contains("energy"), "{error}");
        assert_eq!(writer.finish(&[]).unwrap(), 0);
    }

    #[test]
    fn existing_output_is_replaced_only_on_request() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.h5");
        write(&path, 10, 10, false).unwrap();
        assert_eq!(write(&path, 20, 10, false).unwrap_err().exit_code(), 2);
        assert_eq!(write(&path, 20, 10, true).unwrap(), 20);
    }
}
