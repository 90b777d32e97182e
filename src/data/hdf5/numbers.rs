//! Opens and checks one stored column: a dataset, a field of a compound table, or a column of a
//! matrix.
//!
//! - A column is refused by name if it is absent, not one-dimensional, not numeric, never written,
//!   or of a shape that its storage cannot hold. This is checked before memory is allocated.
//! - Rows that were never written are not read as fill values.
//! - The library converts numbers. Booleans are read as bytes, because a damaged file may contain a
//!   byte that is not a valid `bool`.

#![allow(unsafe_code)] // HDF5 reads of other types

use super::compound::Field;
use super::types::{NumberClass, describe_type, is_unusual, numbers_of_type};
use super::{is_failure_of_system, read_fault, rows, text_attribute};
use crate::error::{Fault, Result, did_you_mean};
use hdf5::types::{IntSize, TypeDescriptor};
use hdf5::{Dataset, Group, H5Type};
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Below these numbers f16, f32 and f64 hold every integer.
const EXACT_F16: f64 = 2_048.0; // 2¹¹
const EXACT_F32: f64 = 16_777_216.0; // 2²⁴
pub(crate) const EXACT_F64: f64 = 9_007_199_254_740_992.0; // 2⁵³

/// Returns a floating-point number as an integer if it is whole and below `exact`.
pub(crate) fn whole(value: f64, exact: f64) -> Option<i64> {
    (value.abs() < exact && value.fract() == 0.0).then_some(value as i64)
}

/// Place of a column in its dataset.
#[derive(Debug, Clone)]
pub(crate) enum ColumnPlace {
    Whole,
    /// One item of a field of a record.
    Field {
        field: Field,
        item: usize,
    },
    /// One column of a matrix (rows, columns).
    Matrix {
        column: usize,
        columns: usize,
    },
}

/// Numbers stored as scaled integers, as in files of ctapipe: (stored − offset)/scale, with
/// three reserved integers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct FixedPoint {
    pub scale: f64,
    pub offset: f64,
    pub nan: i64,
    pub plus_infinity: i64,
    pub minus_infinity: i64,
}

impl FixedPoint {
    pub(crate) fn value(&self, stored: i64) -> f64 {
        match stored {
            _ if stored == self.nan => f64::NAN,
            _ if stored == self.plus_infinity => f64::INFINITY,
            _ if stored == self.minus_infinity => f64::NEG_INFINITY,
            _ => (stored as f64 - self.offset) / self.scale,
        }
    }
}

/// A numeric column.
#[derive(Debug, Clone)]
pub(crate) struct StoredColumn {
    pub dataset: Dataset,
    path: PathBuf,
    /// The dataset with its group, as in `events/width`.
    pub name: String,
    /// Name within the dataset; `None` if the column is the whole dataset.
    column: Option<String>,
    pub place: ColumnPlace,
    pub numbers: NumberClass,
    pub fixed_point: Option<FixedPoint>,
    pub rows: u64,
    unit: Option<String>,
}

/// A byte of an HDF5 boolean.
#[repr(transparent)]
#[derive(Clone, Copy)]
struct Flag(i8);

// SAFETY: HDF5's boolean, as h5py writes it, is an enumeration over one signed byte, so
// size and alignment agree, and every byte is a valid `Flag` (which `bool` would not be).
#[allow(unsafe_code)]
unsafe impl H5Type for Flag {
    fn type_descriptor() -> TypeDescriptor {
        TypeDescriptor::Boolean
    }
}

impl StoredColumn {
    /// Opens the dataset `name` of a group and checks that it is a numeric column.
    pub(crate) fn open(path: &Path, group: &Group, name: &str) -> Result<StoredColumn> {
        let full = full_name(&group.name(), name);
        let dataset = group.dataset(name).map_err(|error| {
            let names = group.member_names().unwrap_or_default();
            let fault = read_fault(path, &full, &error);
            if names.iter().any(|known| known == name) || is_failure_of_system(&fault) {
                return fault;
            }
            let known: Vec<&str> = names.iter().map(String::as_str).collect();
            let fault = Fault::new("dataset not found").file(path).dataset(&full);
            fault.advice(did_you_mean(name, &known)).input()
        })?;
        let numbers = numbers_of(path, &full, &dataset)?;
        let shape = dataset.get_shape().map_err(|error| read_fault(path, &full, &error))?;
        let [rows] = shape[..] else {
            return Err(Fault::new("not a column")
                .file(path)
                .dataset(full)
                .expected("one dimension")
                .found(format!("shape {shape:?}"))
                .advice("choose another column in the schema")
                .input());
        };
        let unit = ["units", "unit"].iter().find_map(|name| text_attribute(&dataset, name));
        let rows = rows as u64;
        Ok(StoredColumn {
            dataset,
            path: path.to_path_buf(),
            name: full,
            column: None,
            place: ColumnPlace::Whole,
            numbers,
            fixed_point: None,
            rows,
            unit,
        })
    }

    /// Opens one item of a field of a compound dataset, with the metadata of the field.
    pub(crate) fn field(
        path: &Path,
        dataset: &Dataset,
        name: &str,
        field: &Field,
        item: usize,
        meta: FieldMeta,
    ) -> Result<StoredColumn> {
        let full = full_name("", &dataset.name());
        let numbers = field.numbers.clone().map_err(|found| {
            let fault = Fault::new("not a numeric column").file(path).dataset(&full).column(name);
            let fault = fault.expected("numbers").found(found);
            fault.advice("choose another column in the schema").input()
        })?;
        let rows = rows_of(path, &full, dataset, 1)?;
        Ok(StoredColumn {
            dataset: dataset.clone(),
            path: path.to_path_buf(),
            name: full,
            column: Some(name.to_string()),
            place: ColumnPlace::Field { field: field.clone(), item },
            numbers,
            fixed_point: meta.fixed_point,
            rows,
            unit: meta.unit,
        })
    }

    /// Opens a column of a two-dimensional dataset.
    pub(crate) fn matrix(
        path: &Path,
        dataset: &Dataset,
        name: &str,
        (column, columns): (usize, usize),
        unit: Option<String>,
    ) -> Result<StoredColumn> {
        let full = full_name("", &dataset.name());
        let numbers = numbers_of(path, &full, dataset)?;
        let rows = rows_of(path, &full, dataset, 2)?;
        Ok(StoredColumn {
            dataset: dataset.clone(),
            path: path.to_path_buf(),
            name: full,
            column: Some(name.to_string()),
            place: ColumnPlace::Matrix { column, columns },
            numbers,
            fixed_point: None,
            rows,
            unit,
        })
    }

    /// Returns the unit that the file declares.
    pub(crate) fn unit(&self) -> Option<&str> {
        self.unit.as_deref()
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns whether a name in a schema refers to this column.
    pub(crate) fn is_named(&self, name: &str) -> bool {
        match &self.column {
            Some(column) => column == name,
            None => self.name.rsplit('/').next() == Some(name),
        }
    }

    /// Returns the bytes of one chunk; 0 if the dataset has no chunks.
    pub(crate) fn chunk_bytes(&self) -> usize {
        let items = self.dataset.chunk().map_or(0, |chunk| {
            chunk.iter().fold(1usize, |product, length| product.saturating_mul(*length))
        });
        items.saturating_mul(self.item_bytes() as usize)
    }

    /// Reads rows as f32: (rows).
    pub(crate) fn read_f32(&self, rows: Range<u64>) -> Result<Vec<f32>> {
        let mut values = Vec::new();
        self.append_f32(&rows, &mut values)?;
        Ok(values)
    }

    /// Reads rows as f64: (rows).
    pub(crate) fn read_f64(&self, rows: Range<u64>) -> Result<Vec<f64>> {
        let mut values = Vec::new();
        self.append_f64(&rows, &mut values)?;
        Ok(values)
    }

    /// Reads rows as i64: (rows); the column must contain integers in range.
    pub(crate) fn read_i64(&self, rows: Range<u64>) -> Result<Vec<i64>> {
        let mut values = Vec::new();
        self.append_i64(&rows, &mut values)?;
        Ok(values)
    }

    /// Appends rows as f32.
    pub(crate) fn append_f32(&self, rows: &Range<u64>, values: &mut Vec<f32>) -> Result<()> {
        match self.numbers {
            NumberClass::Boolean => self.append_flags(rows, values),
            _ => self.append(rows, values),
        }
    }

    /// Appends rows as f64.
    pub(crate) fn append_f64(&self, rows: &Range<u64>, values: &mut Vec<f64>) -> Result<()> {
        match self.numbers {
            NumberClass::Boolean => self.append_flags(rows, values),
            _ => self.append(rows, values),
        }
    }

    /// Appends rows as i64; the column must contain integers in range.
    pub(crate) fn append_i64(&self, rows: &Range<u64>, values: &mut Vec<i64>) -> Result<()> {
        match self.numbers {
            NumberClass::Boolean => self.append_flags(rows, values),
            // The library would clip larger numbers, and two keys would become equal.
            NumberClass::Unsigned(IntSize::U8) => {
                let mut stored: Vec<u64> = Vec::new();
                self.append(rows, &mut stored)?;
                for (row, value) in stored.into_iter().enumerate() {
                    values.push(i64::try_from(value).map_err(|_| {
                        self.fault("key too large")
                            .row(rows.start + row as u64)
                            .expected(format!("at most {}", i64::MAX))
                            .found(value)
                            .input()
                    })?);
                }
                Ok(())
            }
            // The library would truncate fractions.
            NumberClass::Real => {
                let mut stored: Vec<f64> = Vec::new();
                self.append(rows, &mut stored)?;
                for (row, value) in stored.into_iter().enumerate() {
                    values.push(self.whole(rows.start + row as u64, value)?);
                }
                Ok(())
            }
            _ => self.append(rows, values),
        }
    }

    /// Refuses a column of scaled numbers in place of integers. In a column of floating point
    /// each number is checked when it is read.
    pub(crate) fn check_integer(&self, what: &str) -> Result<()> {
        if self.fixed_point.is_none() {
            return Ok(());
        }
        Err(self
            .fault(&format!("{what} must be integers"))
            .expected("integers")
            .found("scaled numbers (TRANSFORM)")
            .input())
    }

    /// Returns a number of floating point as the integer that it is.
    ///
    /// # Errors
    /// `Input`, with column, row and value, if it is not an integer, or so large that the type cannot
    /// distinguish it from its neighbours.
    pub(crate) fn whole(&self, row: u64, value: f64) -> Result<i64> {
        let bytes = match &self.place {
            ColumnPlace::Field { field, .. } => field.item_bytes(),
            _ => self.item_bytes() as usize,
        };
        let (exact, limit) = match bytes {
            ..4 => (EXACT_F16, "2^11"),
            4 => (EXACT_F32, "2^24"),
            _ => (EXACT_F64, "2^53"),
        };
        whole(value, exact).ok_or_else(|| {
            let name = self.column.as_deref().or_else(|| self.name.rsplit('/').next());
            self.fault("keys and classes must be integers")
                .column(name.unwrap_or_default())
                .row(row)
                .expected(format!("a whole number below {limit}"))
                .found(value)
                .advice("write the column as 64-bit integers")
                .input()
        })
    }

    /// Refuses a column whose length differs from `rows`.
    pub(crate) fn check_rows(&self, rows: u64) -> Result<()> {
        if self.rows == rows {
            return Ok(());
        }
        Err(self
            .fault("columns differ in length")
            .expected(format!("{rows} rows, as the other columns have"))
            .found(format!("{} rows", self.rows))
            .advice("write the file again: its columns do not belong together")
            .input())
    }

    pub(crate) fn fault(&self, what: &str) -> Fault {
        let fault = Fault::new(what).file(&self.path).dataset(&self.name);
        match &self.column {
            Some(column) => fault.column(column),
            None => fault,
        }
    }

    /// Returns the error of a library call that read rows of this dataset.
    pub(crate) fn read_fault(&self, rows: &Range<u64>, error: &hdf5::Error) -> crate::error::Error {
        with_rows(read_fault(&self.path, &self.name, error), rows)
    }

    fn append<T: H5Type + Copy>(&self, rows: &Range<u64>, values: &mut Vec<T>) -> Result<()> {
        rows::append(&self.dataset, rows, values).map_err(|error| self.read_fault(rows, &error))
    }

    fn append_flags<T: From<i8>>(&self, rows: &Range<u64>, values: &mut Vec<T>) -> Result<()> {
        let mut flags: Vec<Flag> = Vec::new();
        self.append(rows, &mut flags)?;
        values.extend(flags.iter().map(|flag| T::from(flag.0)));
        Ok(())
    }

    /// Returns the bytes of one number as it is stored.
    pub(crate) fn item_bytes(&self) -> u64 {
        self.dataset.dtype().map_or(8, |dtype| dtype.size() as u64)
    }
}

/// Metadata of a field of a record.
#[derive(Debug, Clone, Default)]
pub(crate) struct FieldMeta {
    pub unit: Option<String>,
    pub fixed_point: Option<FixedPoint>,
}

/// Returns the name of a dataset with its group, without the leading slash.
fn full_name(group: &str, name: &str) -> String {
    format!("{group}/{name}").trim_start_matches('/').to_string()
}

/// Returns the rows of a dataset of `dimensions` dimensions.
fn rows_of(path: &Path, name: &str, dataset: &Dataset, dimensions: usize) -> Result<u64> {
    let shape = dataset.get_shape().map_err(|error| read_fault(path, name, &error))?;
    match shape.first() {
        Some(rows) if shape.len() == dimensions => Ok(*rows as u64),
        _ => Err(Fault::new("not a table")
            .file(path)
            .dataset(name)
            .expected(format!("{dimensions} dimension(s)"))
            .found(format!("shape {shape:?}"))
            .input()),
    }
}

/// Returns the class of numbers of a dataset.
///
/// # Errors
/// `Input` if the dataset is not numeric, or in an unusual format.
fn numbers_of(path: &Path, name: &str, dataset: &Dataset) -> Result<NumberClass> {
    let dtype = dataset.dtype();
    if dtype.as_ref().is_ok_and(is_unusual) {
        return Err(Fault::new("not a usual number format")
            .file(path)
            .dataset(name)
            .expected("IEEE floating point or whole-byte integers")
            .advice("the file is damaged, or its writer was unusual: write it again")
            .input());
    }
    let found = match &dtype {
        Ok(dtype) => match numbers_of_type(dtype) {
            Some(numbers) => return Ok(numbers),
            None => describe_type(dtype),
        },
        Err(error) => format!("a type that cannot be read ({error})"),
    };
    Err(Fault::new("not a numeric column")
        .file(path)
        .dataset(name)
        .expected("numbers")
        .found(found)
        .advice("choose another column in the schema")
        .input())
}

/// Adds the first row of a range that could not be read.
fn with_rows(error: crate::error::Error, rows: &Range<u64>) -> crate::error::Error {
    let code = error.exit_code();
    match error.fault() {
        Some(fault) => crate::error::Error::from_code(code, fault.clone().row(rows.start)),
        None => error,
    }
}
