//! Reads finished output files of the project: attributes, and columns that the program wrote.

use crate::data::hdf5;
use crate::data::schema::EVENT_FORMAT;
use crate::data::schema::columns::{ColumnSpec, ColumnType, ColumnValues};
use crate::error::{Fault, Result};
use ::hdf5::{File, H5Type};
use std::ops::Range;
use std::path::{Path, PathBuf};

/// A complete output file that is open.
pub(crate) struct FinishedFile {
    file: File,
    path: PathBuf,
}

impl FinishedFile {
    /// Opens a complete file of `format`; returns `None` for any other file.
    pub(crate) fn open(path: &Path, format: &str) -> Option<FinishedFile> {
        let file = hdf5::open(path).ok()?;
        let complete = hdf5::integer_attribute(&file, "complete") == Some(1);
        let known = hdf5::text_attribute(&file, "format").as_deref() == Some(format);
        (complete && known).then(|| FinishedFile { file, path: path.to_path_buf() })
    }

    /// Opens an event file of the project; returns `None` for any other file.
    pub(crate) fn open_events(path: &Path) -> Option<FinishedFile> {
        let file = hdf5::open(path).ok()?;
        let format = hdf5::text_attribute(&file, "format");
        let is_events = format.as_deref() == Some(EVENT_FORMAT);
        is_events.then(|| FinishedFile { file, path: path.to_path_buf() })
    }

    pub(crate) fn text(&self, attribute: &str) -> Option<String> {
        hdf5::text_attribute(&self.file, attribute)
    }

    pub(crate) fn rows(&self) -> Option<u64> {
        hdf5::integer_attribute(&self.file, "rows").and_then(|rows| u64::try_from(rows).ok())
    }

    /// Returns the numbers of a root attribute.
    ///
    /// # Errors
    /// `Input` if the attribute is absent, or cannot be read.
    pub(crate) fn numbers(&self, attribute: &str) -> Result<Vec<f64>> {
        hdf5::number_list_attribute(&self.file, attribute).ok_or_else(|| {
            Fault::new(format!("cannot read the attribute '{attribute}'"))
                .file(&self.path)
                .advice("the file is damaged: remove it, and run the same command again")
                .input()
        })
    }

    /// Reads rows of a column that was written by this specification.
    pub(crate) fn read(
        &self,
        group: &str,
        spec: &ColumnSpec,
        rows: Range<usize>,
    ) -> Result<FinishedColumn> {
        let name = format!("{group}/{}", spec.name);
        let name = name.trim_start_matches('/');
        let fault = |error: ::hdf5::Error| hdf5::read_fault(&self.path, name, &error);
        let dataset = self.file.dataset(name).map_err(fault)?;
        let shape = dataset.shape();
        let expected = 1 + usize::from(spec.positions.is_some());
        let fits = shape.len() == expected
            && shape[0] >= rows.end
            && spec.positions.is_none_or(|positions| shape[1] == positions);
        if !fits {
            return Err(Fault::new("not the column that was written")
                .file(&self.path)
                .dataset(name)
                .expected(format!("at least {} rows of {}", rows.end, spec.width()))
                .found(format!("shape {shape:?}"))
                .input());
        }
        match spec.kind {
            ColumnType::F32 => all(&dataset, spec, &rows).map(FinishedColumn::F32),
            ColumnType::F64 => all(&dataset, spec, &rows).map(FinishedColumn::F64),
            ColumnType::I64 => all(&dataset, spec, &rows).map(FinishedColumn::I64),
            ColumnType::I8 => all(&dataset, spec, &rows).map(FinishedColumn::I8),
            ColumnType::U8 => all(&dataset, spec, &rows).map(FinishedColumn::U8),
            ColumnType::U32 => all(&dataset, spec, &rows).map(FinishedColumn::U32),
        }
        .map_err(fault)
    }
}

/// Reads all positions of some rows, one position after the other.
fn all<T: H5Type + Clone>(
    dataset: &::hdf5::Dataset,
    spec: &ColumnSpec,
    rows: &Range<usize>,
) -> ::hdf5::Result<Vec<T>> {
    let Some(positions) = spec.positions else {
        let values = dataset.read_slice_1d::<T, _>(rows.clone())?;
        return Ok(values.into_raw_vec_and_offset().0);
    };
    let mut values = Vec::with_capacity(positions * rows.len());
    for k in 0..positions {
        let one = dataset.read_slice_2d::<T, _>((rows.clone(), k..k + 1))?;
        values.extend(one.into_raw_vec_and_offset().0);
    }
    Ok(values)
}

/// Values of a column: (rows), or (positions, rows).
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum FinishedColumn {
    F32(Vec<f32>),
    F64(Vec<f64>),
    I64(Vec<i64>),
    I8(Vec<i8>),
    U8(Vec<u8>),
    U32(Vec<u32>),
}

impl FinishedColumn {
    pub(crate) fn values(&self) -> ColumnValues<'_> {
        match self {
            FinishedColumn::F32(values) => ColumnValues::F32(values),
            FinishedColumn::F64(values) => ColumnValues::F64(values),
            FinishedColumn::I64(values) => ColumnValues::I64(values),
            FinishedColumn::I8(values) => ColumnValues::I8(values),
            FinishedColumn::U8(values) => ColumnValues::U8(values),
            FinishedColumn::U32(values) => ColumnValues::U32(values),
        }
    }
}
