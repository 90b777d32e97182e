//! Reads several columns of one table together, by ranges of rows.
//!
//! Each dataset is read once per range, for all of its columns. Memory is bounded by the range and a
//! few megabytes.

use crate::data::hdf5::compound::{Field, RecordReader, Slot};
use crate::data::hdf5::numbers::{ColumnPlace, StoredColumn};
use crate::data::hdf5::types::NumberClass;
use crate::error::Result;
use hdf5::types::IntSize;
use std::ops::Range;

/// Type that a column is read as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Want {
    F32,
    F64,
    I64,
}

/// Values of one column: (rows).
#[derive(Debug, Clone, PartialEq)]
pub(super) enum ColumnData {
    F32(Vec<f32>),
    F64(Vec<f64>),
    I64(Vec<i64>),
}

/// Bytes of a matrix that are read at a time.
const LARGEST_READ: usize = 32 << 20;

impl ColumnData {
    pub(crate) fn new(want: Want) -> ColumnData {
        match want {
            Want::F32 => ColumnData::F32(Vec::new()),
            Want::F64 => ColumnData::F64(Vec::new()),
            Want::I64 => ColumnData::I64(Vec::new()),
        }
    }

    /// Removes the values and keeps their memory.
    pub(crate) fn clear(&mut self) {
        match self {
            ColumnData::F32(values) => values.clear(),
            ColumnData::F64(values) => values.clear(),
            ColumnData::I64(values) => values.clear(),
        }
    }

    /// Swaps the values with those of a block.
    pub(crate) fn swap_f32(&mut self, other: &mut Vec<f32>) {
        if let ColumnData::F32(values) = self {
            std::mem::swap(values, other);
        }
    }

    /// Swaps the values with those of a block, as [`ColumnData::swap_f32`] does.
    pub(crate) fn swap_i64(&mut self, other: &mut Vec<i64>) {
        if let ColumnData::I64(values) = self {
            std::mem::swap(values, other);
        }
    }

    pub(crate) fn f64(&self) -> &[f64] {
        match self {
            ColumnData::F64(values) => values,
            _ => &[],
        }
    }

    pub(crate) fn i64(&self) -> &[i64] {
        match self {
            ColumnData::I64(values) => values,
            _ => &[],
        }
    }
}

/// Columns that are read together.
#[derive(Debug)]
pub(super) struct ColumnBatch {
    columns: Vec<(StoredColumn, Want)>,
    records: Vec<Records>,
    matrices: Vec<Vec<usize>>, // columns of one dataset
}

/// Columns of one compound dataset, with their slots in a record.
#[derive(Debug)]
struct Records {
    reader: RecordReader,
    columns: Vec<(usize, Slot)>,
}

/// Memory that successive reads use.
#[derive(Debug, Default)]
pub(super) struct ReadScratch {
    records: Vec<u8>,
    words: Vec<u64>,
}

impl ColumnBatch {
    pub(crate) fn new(columns: Vec<(StoredColumn, Want)>) -> Result<ColumnBatch> {
        let mut of_records: Vec<Vec<usize>> = Vec::new();
        let mut matrices: Vec<Vec<usize>> = Vec::new();
        for (index, (column, _)) in columns.iter().enumerate() {
            let groups = match column.place {
                ColumnPlace::Whole => continue,
                ColumnPlace::Field { .. } => &mut of_records,
                ColumnPlace::Matrix { .. } => &mut matrices,
            };
            let same = |group: &&mut Vec<usize>| columns[group[0]].0.name == column.name;
            match groups.iter_mut().find(same) {
                Some(group) => group.push(index),
                None => groups.push(vec![index]),
            }
        }
        let records = of_records.iter().map(|group| Records::new(&columns, group));
        Ok(ColumnBatch { records: records.collect::<Result<_>>()?, matrices, columns })
    }

    pub(crate) fn columns(&self) -> &[(StoredColumn, Want)] {
        &self.columns
    }

    /// Appends rows to the values, one per column.
    pub(crate) fn read(
        &self,
        rows: &Range<u64>,
        values: &mut [ColumnData],
        scratch: &mut ReadScratch,
    ) -> Result<()> {
        for ((column, _), values) in self.columns.iter().zip(values.iter_mut()) {
            if matches!(column.place, ColumnPlace::Whole) {
                match values {
                    ColumnData::F32(values) => column.append_f32(rows, values)?,
                    ColumnData::F64(values) => column.append_f64(rows, values)?,
                    ColumnData::I64(values) => column.append_i64(rows, values)?,
                }
            }
        }
        for records in &self.records {
            records.read(&self.columns, rows, values, scratch)?;
        }
        for group in &self.matrices {
            self.read_matrix(group, rows, values)?;
        }
        Ok(())
    }

    fn read_matrix(
        &self,
        group: &[usize],
        rows: &Range<u64>,
        values: &mut [ColumnData],
    ) -> Result<()> {
        let place = |index: &usize| match self.columns[*index].0.place {
            ColumnPlace::Matrix { column, .. } => column,
            _ => 0,
        };
        let first = group.iter().map(place).min().unwrap_or(0);
        let end = group.iter().map(place).max().unwrap_or(0) + 1;
        let (dataset, numbers) =
            (&self.columns[group[0]].0.dataset, self.columns[group[0]].0.numbers);
        let step = (LARGEST_READ / (8 * (end - first))).max(1) as u64;
        let mut start = rows.start;
        while start < rows.end {
            let piece = start..rows.end.min(start + step);
            let range = piece.start as usize..piece.end as usize;
            let words: hdf5::Result<Vec<u64>> = match numbers {
                NumberClass::Integer(_) => dataset
                    .read_slice_2d::<i64, _>((range, first..end))
                    .map(|array| array.iter().map(|value| *value as u64).collect()),
                NumberClass::Unsigned(_) => dataset
                    .read_slice_2d::<u64, _>((range, first..end))
                    .map(|array| array.into_raw_vec_and_offset().0),
                _ => dataset
                    .read_slice_2d::<f64, _>((range, first..end))
                    .map(|array| array.iter().map(|value| value.to_bits()).collect()),
            };
            let words =
                words.map_err(|error| self.columns[group[0]].0.read_fault(&piece, &error))?;
            for index in group {
                let words = words.chunks_exact(end - first).map(|row| row[place(index) - first]);
                convert(&self.columns[*index].0, piece.start, words, &mut values[*index])?;
            }
            start = piece.end;
        }
        Ok(())
    }
}

impl Records {
    fn new(columns: &[(StoredColumn, Want)], group: &[usize]) -> Result<Records> {
        let mut fields: Vec<&Field> = Vec::new();
        let mut slots = Vec::new();
        for index in group {
            let ColumnPlace::Field { field, item } = &columns[*index].0.place else { continue };
            let known = fields.iter().position(|known| known.name == field.name);
            slots.push((*index, known.unwrap_or(fields.len()), *item));
            if known.is_none() {
                fields.push(field);
            }
        }
        let column = &columns[group[0]].0;
        let (reader, first) = RecordReader::new(&column.dataset, &fields)
            .map_err(|error| crate::data::hdf5::read_fault(column.path(), &column.name, &error))?;
        let columns =
            slots.into_iter().map(|(index, field, item)| (index, first[field].item(item)));
        Ok(Records { reader, columns: columns.collect() })
    }

    fn read(
        &self,
        columns: &[(StoredColumn, Want)],
        rows: &Range<u64>,
        values: &mut [ColumnData],
        scratch: &mut ReadScratch,
    ) -> Result<()> {
        let mut start = rows.start;
        let mut outcome = Ok(());
        let bytes = self.reader.record_bytes();
        let ReadScratch { records, words } = scratch;
        let read = self.reader.read(rows.clone(), records, |records| {
            for (index, slot) in &self.columns {
                let (column, values) = (&columns[*index].0, &mut values[*index]);
                if let (ColumnData::F32(values), None) = (&mut *values, column.fixed_point)
                    && slot.append_f32(records, bytes, values)
                {
                    continue;
                }
                if outcome.is_ok() {
                    slot.words(records, bytes, words);
                    outcome = convert(column, start, words.iter().copied(), values);
                }
            }
            start += (records.len() / bytes) as u64;
        });
        let first = &columns[self.columns[0].0].0;
        read.map_err(|error| first.read_fault(rows, &error))?;
        outcome
    }
}

/// Converts words of 8 bytes, as they were read, and appends them to the values.
fn convert(
    column: &StoredColumn,
    first: u64,
    words: impl Iterator<Item = u64>,
    values: &mut ColumnData,
) -> Result<()> {
    let numbers = column.numbers;
    let real = |word: u64| match column.fixed_point {
        Some(fixed_point) => fixed_point.value(word as i64),
        None => number(numbers, word),
    };
    match values {
        // Rounded once from the stored number, as by the library.
        ColumnData::F32(values) => values.extend(words.map(|word| match numbers {
            NumberClass::Integer(_) if column.fixed_point.is_none() => word as i64 as f32,
            NumberClass::Unsigned(_) if column.fixed_point.is_none() => word as f32,
            _ => real(word) as f32,
        })),
        ColumnData::F64(values) => values.extend(words.map(real)),
        ColumnData::I64(values) => {
            for (row, word) in words.enumerate() {
                values.push(integer(column, first + row as u64, word)?);
            }
        }
    }
    Ok(())
}

fn number(numbers: NumberClass, word: u64) -> f64 {
    match numbers {
        NumberClass::Real => f64::from_bits(word),
        NumberClass::Integer(_) => word as i64 as f64,
        NumberClass::Unsigned(_) => word as f64,
        NumberClass::Boolean => f64::from(word as u8),
    }
}

fn integer(column: &StoredColumn, row: u64, word: u64) -> Result<i64> {
    match column.numbers {
        NumberClass::Boolean => Ok(i64::from(word as u8)),
        NumberClass::Unsigned(IntSize::U8) => i64::try_from(word).map_err(|_| {
            let fault = column.fault("key too large").row(row);
            fault.expected(format!("at most {}", i64::MAX)).found(word).input()
        }),
        NumberClass::Real => column.whole(row, f64::from_bits(word)),
        NumberClass::Integer(_) | NumberClass::Unsigned(_) => Ok(word as i64),
    }
}
