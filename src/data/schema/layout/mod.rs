//! Storage layouts of tables in HDF5 files.
//!
//! A table is a group with one dataset per column, a compound dataset (PyTables, pandas `table`,
//! ctapipe), or one or more matrices with column names (pandas `fixed`, h5py). This module
//! opens a table and reads names, units and number formats of its columns. The module `table`
//! maps columns to quantities, the module `batch` reads them.

mod attributes;
mod search;

pub(crate) use search::find;

use crate::data::hdf5;
use crate::data::hdf5::compound::{self, Field};
use crate::data::hdf5::numbers::StoredColumn;
use crate::data::hdf5::types::numbers_of_type;
use crate::error::{Fault, Result, did_you_mean};
use ::hdf5::{Dataset, File, Group, LocationType};
use attributes::{field_meta, pickled_names, text_list, texts};
use std::collections::BTreeSet;
use std::path::Path;

/// Limit for the columns of a compound dataset or matrix.
const MOST_COLUMNS: usize = 4096;
/// Names of the attribute of a matrix, or of the dataset in its group, with the column names.
const NAMES: [&str; 3] = ["columns", "column_names", "names"];

/// Layouts that a schema may be restricted to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LayoutKind {
    Columns,
    Compound,
    Pandas,
    Matrix,
}

/// A table of a file, or one of several tables that are read as one.
#[derive(Debug)]
pub(crate) struct TableLayout {
    /// Path in the file.
    pub name: String,
    pub kind: LayoutKind,
    columns: LayoutColumns,
    /// A dataset that a pandas frame declares and lacks.
    missing: Option<String>,
}

#[derive(Debug)]
enum LayoutColumns {
    Datasets { group: Group, names: Vec<String> },
    Record { dataset: Dataset, columns: Vec<FieldColumn> },
    Matrices(Vec<MatrixDataset>),
}

#[derive(Debug)]
struct FieldColumn {
    name: String,
    field: Field,
    index: usize, // of the field in the compound type
    item: usize,  // in the array of the field; 0 for a single number
}

/// A dataset (rows, columns).
#[derive(Debug)]
struct MatrixDataset {
    dataset: Dataset,
    names: Vec<String>,
    units: Vec<String>,
}

impl TableLayout {
    /// Returns the names of all columns.
    pub(crate) fn names(&self) -> Vec<String> {
        match &self.columns {
            LayoutColumns::Datasets { names, .. } => names.clone(),
            LayoutColumns::Record { columns, .. } => {
                columns.iter().map(|c| c.name.clone()).collect()
            }
            LayoutColumns::Matrices(matrices) => {
                matrices.iter().flat_map(|matrix| matrix.names.iter().cloned()).collect()
            }
        }
    }

    /// Opens the numeric column `name`.
    ///
    /// # Errors
    /// `Input` if there is no such column, or its values are not numbers.
    pub(crate) fn column(&self, path: &Path, name: &str) -> Result<StoredColumn> {
        match &self.columns {
            LayoutColumns::Datasets { group, .. } => StoredColumn::open(path, group, name),
            LayoutColumns::Record { dataset, columns } => {
                let Some(column) = columns.iter().find(|column| column.name == name) else {
                    return Err(self.missing(path, name));
                };
                let FieldColumn { field, index, item, .. } = column;
                let meta = field_meta(path, dataset, *index, &field.name)?;
                StoredColumn::field(path, dataset, name, field, *item, meta)
            }
            LayoutColumns::Matrices(matrices) => {
                for matrix in matrices {
                    if let Some(index) = matrix.names.iter().position(|known| known == name) {
                        let unit = matrix.units.get(index).filter(|unit| !unit.is_empty());
                        let place = (index, matrix.names.len());
                        return StoredColumn::matrix(
                            path,
                            &matrix.dataset,
                            name,
                            place,
                            unit.cloned(),
                        );
                    }
                }
                Err(self.missing(path, name))
            }
        }
    }

    /// Opens a column; returns `None` if it is not numeric, such as a text, an image or a group.
    ///
    /// # Errors
    /// `Input` if the column is damaged: a failed read does not show its type.
    pub fn numeric_column(&self, path: &Path, name: &str) -> Result<Option<StoredColumn>> {
        let is_numeric = match &self.columns {
            LayoutColumns::Datasets { group, .. } => {
                return match self.column(path, name) {
                    Err(error) if hdf5::is_readable(group, name) => hdf5::unless_system(Err(error)),
                    found => found.map(Some),
                };
            }
            LayoutColumns::Record { columns, .. } => {
                let column = columns.iter().find(|column| column.name == name);
                column.is_none_or(|column| column.field.numbers.is_ok())
            }
            LayoutColumns::Matrices(matrices) => {
                let matrix = matrices.iter().find(|m| m.names.iter().any(|known| known == name));
                matrix.is_none_or(|matrix| {
                    matrix.dataset.dtype().map_or(true, |t| numbers_of_type(&t).is_some())
                })
            }
        };
        if is_numeric { self.column(path, name).map(Some) } else { Ok(None) }
    }

    /// Refuses a table of which a block is missing, or with two columns of one name.
    ///
    /// # Errors
    /// `Input`, with the block or the name.
    pub fn check(&self, path: &Path) -> Result<()> {
        let fault = |what: &str| Fault::new(what).file(path).dataset(&self.name);
        if let Some(block) = &self.missing {
            return Err(fault("a block of the pandas frame is missing")
                .expected(format!("a dataset '{block}', as the attribute nblocks says"))
                .advice("the file is damaged, or was changed: copy or write it again")
                .input());
        }
        let mut seen = BTreeSet::new();
        match self.names().into_iter().find(|name| !name.is_empty() && !seen.insert(name.clone())) {
            None => Ok(()),
            Some(name) => Err(fault("two columns of one name")
                .column(name)
                .expected("every name once")
                .advice("which column is the quantity is unknown: rename or remove one of them")
                .input()),
        }
    }

    /// Returns the error of a missing column, with the most similar name.
    fn missing(&self, path: &Path, name: &str) -> crate::error::Error {
        let names = self.names();
        let known: Vec<&str> = names.iter().map(String::as_str).collect();
        let fault = Fault::new("column not found").file(path).dataset(&self.name).column(name);
        fault.advice(did_you_mean(name, &known)).input()
    }
}

/// Opens the table at a place without patterns.
///
/// # Errors
/// `Input` if there is no table at this place.
pub(crate) fn open(path: &Path, file: &File, place: &str) -> Result<TableLayout> {
    let kind = if place.is_empty() { None } else { file.loc_type_by_name(place).ok() };
    if kind == Some(LocationType::Dataset) {
        let dataset = file.dataset(place).map_err(|error| hdf5::read_fault(path, place, &error))?;
        return of_dataset(path, place, &dataset);
    }
    of_group(path, place, hdf5::group(path, file, place)?)
}

/// Returns the layout of a compound dataset or of a matrix with column names.
fn of_dataset(path: &Path, place: &str, dataset: &Dataset) -> Result<TableLayout> {
    let name = place.to_string();
    if compound::is_record(dataset) {
        let columns = record_columns(path, place, dataset)?;
        let columns = LayoutColumns::Record { dataset: dataset.clone(), columns };
        return Ok(TableLayout { name, kind: LayoutKind::Compound, columns, missing: None });
    }
    if let Some(matrix) = matrix(dataset, None) {
        return Ok(TableLayout {
            name,
            kind: LayoutKind::Matrix,
            columns: LayoutColumns::Matrices(vec![matrix]),
            missing: None,
        });
    }
    Err(Fault::new("dataset is not a table")
        .file(path)
        .dataset(place)
        .expected("a compound dataset, a matrix with column names, or a group of columns")
        .found(format!("shape {:?}", dataset.shape()))
        .advice("correct the place of the table in the schema")
        .input())
}

/// Returns the layout of a group: a pandas frame, matrices with names, or one dataset per column.
fn of_group(path: &Path, place: &str, group: Group) -> Result<TableLayout> {
    let name = place.to_string();
    match hdf5::text_attribute(&group, "pandas_type").as_deref() {
        Some("frame_table") => {
            let dataset =
                group.dataset("table").map_err(|error| hdf5::read_fault(path, place, &error))?;
            let columns = record_columns(path, place, &dataset)?;
            return Ok(TableLayout {
                name,
                kind: LayoutKind::Pandas,
                columns: LayoutColumns::Record { dataset, columns },
                missing: None,
            });
        }
        Some("frame") => {
            let columns = LayoutColumns::Matrices(pandas_blocks(path, place, &group)?);
            let missing = missing_block(path, place, &group)?;
            return Ok(TableLayout { name, kind: LayoutKind::Pandas, columns, missing });
        }
        Some(other) => {
            return Err(Fault::new("not a pandas table")
                .file(path)
                .dataset(place)
                .expected("a data frame")
                .found(format!("a '{other}'"))
                .input());
        }
        None => {}
    }
    let names = group.member_names().map_err(|error| hdf5::read_fault(path, place, &error))?;
    let matrices = matrices_of(path, &group, &names)?;
    if !matrices.is_empty() {
        return Ok(TableLayout {
            name,
            kind: LayoutKind::Matrix,
            columns: LayoutColumns::Matrices(matrices),
            missing: None,
        });
    }
    let columns = LayoutColumns::Datasets { group, names };
    Ok(TableLayout { name, kind: LayoutKind::Columns, columns, missing: None })
}

/// Returns the matrices of a group that have column names.
fn matrices_of(path: &Path, group: &Group, names: &[String]) -> Result<Vec<MatrixDataset>> {
    let open = |name: &String| hdf5::present(path, name, group.dataset(name));
    let shared = NAMES.iter().find_map(|name| names.iter().find(|known| known == name));
    let shared = shared.map(open).transpose()?.flatten().and_then(|dataset| texts(&dataset));
    let (mut matrices, mut unreadable) = (Vec::new(), None);
    for name in names {
        match open(name)? {
            Some(dataset) => matrices.extend(matrix(&dataset, shared.as_deref())),
            None if !hdf5::is_readable(group, name) => unreadable = unreadable.or(Some(name)),
            None => {}
        }
    }
    match unreadable.filter(|_| !matrices.is_empty()) {
        // It may be another matrix of the table.
        Some(name) => match group.dataset(name) {
            Err(error) => Err(hdf5::read_fault(path, name, &error)),
            Ok(_) => Ok(matrices),
        },
        None => Ok(matrices),
    }
}

/// Returns a dataset (rows, columns) with as many names as columns. The names are in an attribute
/// of the dataset, or are the `shared` ones of its group.
fn matrix(dataset: &Dataset, shared: Option<&[String]>) -> Option<MatrixDataset> {
    let shape = dataset.shape();
    let [_, columns] = shape[..] else { return None };
    let own = NAMES.iter().find_map(|name| text_list(dataset, name));
    let names = own.or_else(|| shared.map(<[String]>::to_vec))?;
    let units = ["units", "unit"].iter().find_map(|name| text_list(dataset, name));
    (names.len() == columns && columns <= MOST_COLUMNS).then(|| MatrixDataset {
        dataset: dataset.clone(),
        names,
        units: units.unwrap_or_default(),
    })
}

/// Returns the columns of a compound dataset; each item of an array field is a column.
fn record_columns(path: &Path, place: &str, dataset: &Dataset) -> Result<Vec<FieldColumn>> {
    let fields =
        compound::fields(dataset).map_err(|error| hdf5::read_fault(path, place, &error))?;
    let mut columns = Vec::new();
    for (index, field) in fields.into_iter().enumerate() {
        if !field.is_array {
            columns.push(FieldColumn { name: field.name.clone(), field, index, item: 0 });
            continue;
        }
        // pandas stores columns of one type as an array, and their names as a pickled list.
        let names = hdf5::text_attribute(dataset, &format!("{}_kind", field.name));
        let names = names.and_then(|text| pickled_names(&text)).unwrap_or_default();
        // The length of a field that is not numeric may be damaged.
        let items = if field.numbers.is_ok() { field.items } else { 0 };
        if columns.len() + items > MOST_COLUMNS {
            return Err(Fault::new("too many columns")
                .file(path)
                .dataset(place)
                .expected(format!("at most {MOST_COLUMNS}"))
                .found(format!("an array of {items} in field '{}'", field.name))
                .advice("correct the place of the table in the schema; if it is right, the table is damaged")
                .input());
        }
        for item in 0..items {
            let name = match names.get(item) {
                Some(name) if names.len() == field.items => name.clone(),
                _ => format!("{}[{item}]", field.name),
            };
            columns.push(FieldColumn { name, field: field.clone(), index, item });
        }
    }
    Ok(columns)
}

/// Returns the blocks of a frame in the fixed format of pandas: `blockN_values` (rows, columns)
/// with the names in `blockN_items`.
fn pandas_blocks(path: &Path, place: &str, group: &Group) -> Result<Vec<MatrixDataset>> {
    let names = group.member_names().map_err(|error| hdf5::read_fault(path, place, &error))?;
    let blocks = names.iter().filter_map(|name| name.strip_suffix("_values"));
    let mut matrices = Vec::new();
    for block in blocks.filter(|name| name.starts_with("block")) {
        let open = |name: String| {
            group.dataset(&name).map_err(|error| hdf5::read_fault(path, &name, &error))
        };
        let dataset = open(format!("{block}_values"))?;
        let items = open(format!("{block}_items"))?;
        // Blocks of texts or objects are skipped.
        let (Some(names), [_, columns]) = (texts(&items), &dataset.shape()[..]) else { continue };
        if names.len() == *columns && names.len() <= MOST_COLUMNS {
            matrices.push(MatrixDataset { dataset, names, units: Vec::new() });
        }
    }
    if matrices.is_empty() {
        return Err(Fault::new("pandas frame without numeric columns")
            .file(path)
            .dataset(place)
            .advice("write it with format='table'")
            .input());
    }
    Ok(matrices)
}

/// Returns a dataset of the blocks that a frame declares (`nblocks`) and the group lacks.
fn missing_block(path: &Path, place: &str, group: &Group) -> Result<Option<String>> {
    let names = group.member_names().map_err(|error| hdf5::read_fault(path, place, &error))?;
    let blocks = hdf5::integer_attribute(group, "nblocks").unwrap_or(0);
    let blocks = 0..blocks.min(MOST_COLUMNS as i64);
    let mut declared =
        blocks.flat_map(|i| ["items", "values"].map(|part| format!("block{i}_{part}")));
    Ok(declared.find(|name| !names.contains(name)))
}
