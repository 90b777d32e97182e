//! Tables: a file seen through a schema, read in blocks of rows.
//!
//! Promises: only the columns of a request are read; all are checked (there, numeric,
//! one-dimensional, equally long, of a possible shape, in the unit of the schema) before
//! the first row is; reading in blocks gives what reading at once gives. Expressions and
//! scales are evaluated in f64 and rounded once. Left to others: which rows, what NaN
//! means, and the order of files (`catalog`).

use super::h5;
use super::schema::{Class, Quantity, Schema, Source, canonical_unit, normal_unit};
use super::stored::{Numbers, StoredColumn};
use crate::error::{Error, Fault, Result, did_you_mean};
use hdf5::types::IntSize;
use hdf5::{File, Group};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// The library's own default; enough where chunks are small.
const SMALL_CACHE: usize = 1 << 20; // bytes

/// What is in a file, without its rows; holds no open file.
#[derive(Debug, Clone)]
pub struct Table {
    path: PathBuf,
    schema: Schema,
    rows: u64,
    quantities: BTreeMap<String, Quantity>, // whose columns are all there
    keys: BTreeMap<String, String>,         // name → dataset
    shower: Vec<String>,
    class: Option<Class>,
}

/// What to read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Request {
    pub quantities: Vec<String>,
    pub keys: Vec<String>,
    pub shower: bool,
    pub class: bool,
}

/// Rows of the requested columns. The vectors are in the order of the request, each of
/// length `rows`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Block {
    pub rows: usize,
    pub quantities: Vec<Vec<f32>>, // (quantities, rows), canonical units
    pub keys: Vec<Vec<i64>>,       // (keys, rows)
    pub shower: Vec<Vec<i64>>,     // (shower columns, rows); none if not requested or not there
    pub class: Option<Vec<i8>>,    // (rows): 1 gamma, 0 hadron, −1 unknown
}

impl Table {
    /// Looks at a file: which quantities and keys it has, and how many rows.
    pub fn open(path: &Path, schema: &Schema) -> Result<Table> {
        let file = h5::open(path)?;
        schema.check_format(path, &file)?;
        let group = h5::group(path, &file, &schema.group)?;
        let names = group.member_names().map_err(|e| h5::read_fault(path, &schema.group, &e))?;
        let (quantities, keys) = if schema.open {
            open_columns(path, &group, &names, schema)
        } else {
            known_columns(&names, schema)
        };
        let has = |column: &String| names.contains(column);
        let mut table = Table {
            path: path.to_path_buf(),
            schema: schema.clone(),
            rows: 0,
            quantities,
            keys,
            shower: schema
                .shower
                .iter()
                .find(|list| list.iter().all(has))
                .cloned()
                .unwrap_or_default(),
            class: schema.class.clone().filter(|class| has(&class.column)),
        };
        table.rows = table.count_rows(&group, &names)?;
        table.check_declared_rows(&file)?;
        Ok(table)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn schema(&self) -> &Schema {
        &self.schema
    }

    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Names of the quantities that can be read, sorted.
    pub fn quantities(&self) -> Vec<&str> {
        self.quantities.keys().map(String::as_str).collect()
    }

    /// Canonical unit of a quantity that can be read.
    pub fn unit(&self, quantity: &str) -> Option<&str> {
        self.quantities.get(quantity).map(|quantity| quantity.canonical.as_str())
    }

    /// Names of the keys that can be copied, sorted.
    pub fn key_names(&self) -> Vec<&str> {
        self.keys.keys().map(String::as_str).collect()
    }

    /// Datasets of the shower key; none if the file has no such key.
    pub fn shower_columns(&self) -> Vec<String> {
        self.shower.clone()
    }

    pub fn has_class(&self) -> bool {
        self.class.is_some()
    }

    /// Opens the requested columns and checks them. A shower key or class that the file
    /// does not have is left out of the blocks; a quantity or key is refused.
    pub fn reader(&self, request: &Request) -> Result<Reader> {
        let reader = self.reader_with_cache(request, SMALL_CACHE)?;
        let wanted = reader.wanted_cache();
        if wanted <= SMALL_CACHE {
            return Ok(reader);
        }
        // The library takes the cache from the first opening of a file that is open.
        drop(reader);
        self.reader_with_cache(request, wanted)
    }

    fn reader_with_cache(&self, request: &Request, cache: usize) -> Result<Reader> {
        let file = h5::open_with_cache(&self.path, cache)?;
        let group = h5::group(&self.path, &file, &self.schema.group)?;
        let opening = Opening { table: self, group, bytes: h5::file_length(&self.path)? };
        let mut shared = Vec::new();
        let mut plans = Vec::new();
        for name in &request.quantities {
            plans.push(opening.quantity(name, &mut shared)?);
        }
        let keys = request.keys.iter().map(|name| opening.key(name)).collect::<Result<_>>()?;
        let wanted = if request.shower { self.shower.as_slice() } else { &[] };
        let shower = wanted.iter().map(|name| opening.integers(name)).collect::<Result<_>>()?;
        let class = match self.class.as_ref().filter(|_| request.class) {
            Some(class) => Some((opening.integers(&class.column)?, class.clone())),
            None => None,
        };
        Ok(Reader {
            _file: file,
            path: self.path.clone(),
            rows: self.rows,
            shared,
            plans,
            keys,
            shower,
            class,
        })
    }

    /// Rows of the first needed column; that the others agree is checked when they are
    /// read.
    fn count_rows(&self, group: &Group, names: &[String]) -> Result<u64> {
        let first = ["size", "width", "length"].iter().find_map(|name| self.quantities.get(*name));
        let Some(quantity) = first.or_else(|| self.quantities.values().next()) else {
            return Err(self.nothing_there(names));
        };
        let column = StoredColumn::open(&self.path, group, &quantity.source.columns()[0])?;
        if column.rows == 0 {
            return Err(Fault::new("the table is empty")
                .file(&self.path)
                .dataset(column.name)
                .found("0 rows")
                .advice("leave the file out, or write it again")
                .input());
        }
        // Callers size their work by this number.
        column.check_storage(h5::file_length(&self.path)?)?;
        Ok(column.rows)
    }

    /// Files of the project say how many rows were written; the shape must agree.
    fn check_declared_rows(&self, file: &File) -> Result<()> {
        let own = self.schema.format.is_some() && h5::text_attribute(file, "format").is_some();
        match h5::integer_attribute(file, "rows").filter(|_| own) {
            Some(declared) if declared != self.rows as i64 => {
                Err(Fault::new("the file does not hold the rows that were written")
                    .file(&self.path)
                    .expected(format!("{declared} rows, as its attribute says"))
                    .found(format!("{} rows", self.rows))
                    .advice("the file is damaged: copy or write it again")
                    .input())
            }
            _ => Ok(()),
        }
    }

    fn nothing_there(&self, names: &[String]) -> Error {
        let fault =
            Fault::new(format!("no quantity of the schema '{}' is there", self.schema.name))
                .file(&self.path)
                .found(match names.len() {
                    0 => format!("nothing in group '{}'", self.schema.group),
                    _ => format!("{} datasets: {}", names.len(), shorten(names)),
                });
        match self.schema.quantities.values().next() {
            Some(quantity) => {
                let columns = quantity.source.columns();
                let known: Vec<&str> = names.iter().map(String::as_str).collect();
                let missing = columns.iter().find(|column| !names.contains(column));
                let advice =
                    missing.map(|column| format!("'{column}': {}", did_you_mean(column, &known)));
                fault.advice(advice.unwrap_or_default()).input()
            }
            None => fault.expected("numeric one-dimensional datasets").input(),
        }
    }
}

/// Quantities and keys of a closed schema that a file has.
fn known_columns(
    names: &[String],
    schema: &Schema,
) -> (BTreeMap<String, Quantity>, BTreeMap<String, String>) {
    let complete =
        |quantity: &Quantity| quantity.source.columns().iter().all(|c| names.contains(c));
    let quantities = schema.quantities.iter().filter(|(_, quantity)| complete(quantity));
    let keys = schema.copy.iter().filter(|(_, dataset)| names.contains(dataset));
    (
        quantities.map(|(name, quantity)| (name.clone(), quantity.clone())).collect(),
        keys.map(|(name, dataset)| (name.clone(), dataset.clone())).collect(),
    )
}

/// Quantities and keys of an open schema: every numeric column under its own name.
fn open_columns(
    path: &Path,
    group: &Group,
    names: &[String],
    schema: &Schema,
) -> (BTreeMap<String, Quantity>, BTreeMap<String, String>) {
    let (mut quantities, mut keys) = known_columns(names, schema);
    let class = schema.class.as_ref().map(|class| &class.column);
    for name in names.iter().filter(|name| Some(*name) != class) {
        // What is no numeric column (text, images) is no quantity.
        let Ok(column) = StoredColumn::open(path, group, name) else { continue };
        if column.numbers == Numbers::Integer(IntSize::U8) {
            keys.insert(name.clone(), name.clone());
            continue;
        }
        let declared = || column.unit().map_or("1".to_string(), |unit| normal_unit(&unit));
        let unit = canonical_unit(name).map_or_else(declared, str::to_string);
        let source = Source::Column(name.clone());
        let quantity = Quantity { source, canonical: unit.clone(), unit, scale: 1.0 };
        quantities.entry(name.clone()).or_insert(quantity);
    }
    (quantities, keys)
}

/// The first names of a list, for messages.
fn shorten(names: &[String]) -> String {
    let shown: Vec<&str> = names.iter().take(8).map(String::as_str).collect();
    format!("{}{}", shown.join(", "), if names.len() > 8 { ", …" } else { "" })
}

/// A table whose columns are being opened and checked.
struct Opening<'a> {
    table: &'a Table,
    group: Group,
    bytes: u64, // of the file
}

impl Opening<'_> {
    fn column(&self, name: &str) -> Result<StoredColumn> {
        let column = StoredColumn::open(&self.table.path, &self.group, name)?;
        column.check_rows(self.table.rows)?;
        column.check_storage(self.bytes)?;
        Ok(column)
    }

    fn integers(&self, name: &str) -> Result<StoredColumn> {
        let column = self.column(name)?;
        column.check_integer("keys and classes")?;
        Ok(column)
    }

    fn key(&self, name: &str) -> Result<StoredColumn> {
        let Some(dataset) = self.table.keys.get(name) else {
            return Err(Fault::new(format!("key '{name}' is not available"))
                .file(&self.table.path)
                .advice(did_you_mean(name, &self.table.key_names()))
                .input());
        };
        self.integers(dataset)
    }

    /// How a quantity is read; columns that are computed with go to `shared`, once each.
    fn quantity(&self, name: &str, shared: &mut Vec<(String, StoredColumn)>) -> Result<Plan> {
        let Some(quantity) = self.table.quantities.get(name) else {
            return Err(self.missing_quantity(name));
        };
        let column = match &quantity.source {
            Source::Column(column) => column,
            Source::Expression(expression) => {
                let columns = expression.variables().iter().map(|name| self.share(name, shared));
                return Ok(Plan::Computed {
                    columns: columns.collect::<Result<_>>()?,
                    expression: expression.clone(),
                    scale: quantity.scale,
                });
            }
        };
        let stored = self.column(column)?;
        check_unit(name, quantity, &stored)?;
        if is_one(quantity.scale) {
            return Ok(Plan::Direct(stored));
        }
        Ok(Plan::Scaled { column: self.share(column, shared)?, scale: quantity.scale })
    }

    fn share(&self, name: &str, shared: &mut Vec<(String, StoredColumn)>) -> Result<usize> {
        if let Some(index) = shared.iter().position(|(known, _)| known == name) {
            return Ok(index);
        }
        shared.push((name.to_string(), self.column(name)?));
        Ok(shared.len() - 1)
    }

    fn missing_quantity(&self, name: &str) -> Error {
        let table = self.table;
        let columns = match table.schema.quantities.get(name) {
            Some(quantity) => quantity.source.columns().to_vec(),
            None if table.schema.open => vec![name.to_string()],
            None => Vec::new(),
        };
        // A column that is missing, or no numbers, is told with the reason for it.
        let reason = columns.iter().find_map(|column| self.column(column).err());
        if let (Some(error), true) =
            (reason, table.schema.quantities.contains_key(name) || self.group.link_exists(name))
        {
            return error;
        }
        Fault::new(format!("quantity '{name}' is not available"))
            .file(&table.path)
            .expected(format!("a quantity of the schema '{}'", table.schema.name))
            .advice(did_you_mean(name, &table.quantities()))
            .input()
    }
}

fn is_one(scale: f64) -> bool {
    scale.to_bits() == 1.0f64.to_bits()
}

fn check_unit(name: &str, quantity: &Quantity, column: &StoredColumn) -> Result<()> {
    match column.unit().map(|unit| normal_unit(&unit)) {
        Some(found) if found != quantity.unit => Err(column
            .fault(&format!("quantity '{name}' is in another unit than the schema says"))
            .expected(&quantity.unit)
            .found(found)
            .advice("correct the unit in the schema (with a factor where needed) or in the file")
            .input()),
        _ => Ok(()),
    }
}

/// How one quantity is read.
enum Plan {
    Direct(StoredColumn),
    Scaled { column: usize, scale: f64 },
    Computed { expression: super::Expression, columns: Vec<usize>, scale: f64 },
}

/// Open columns, ready to be read by ranges of rows.
pub struct Reader {
    _file: File, // keeps the chunk cache
    path: PathBuf,
    rows: u64,
    shared: Vec<(String, StoredColumn)>, // read as f64, for scales and expressions
    plans: Vec<Plan>,
    keys: Vec<StoredColumn>,
    shower: Vec<StoredColumn>,
    class: Option<(StoredColumn, Class)>,
}

impl Reader {
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Reads rows into a block; what was in it before is replaced. Ranges along the
    /// file, aligned to chunks (65 536 rows in the project's own files), are fastest.
    pub fn read(&self, rows: Range<u64>, block: &mut Block) -> Result<()> {
        if rows.start > rows.end || rows.end > self.rows {
            return Err(Fault::new("rows outside the table")
                .file(&self.path)
                .expected(format!("rows within 0..{}", self.rows))
                .found(format!("{}..{}", rows.start, rows.end))
                .internal());
        }
        let wide = self.shared.iter().map(|(_, column)| column.read_f64(rows.clone()));
        let wide: Vec<Vec<f64>> = wide.collect::<Result<_>>()?;
        block.rows = (rows.end - rows.start) as usize;
        block.quantities.clear();
        for plan in &self.plans {
            block.quantities.push(plan.values(&rows, &wide)?);
        }
        block.keys = read_integers(&self.keys, &rows)?;
        block.shower = read_integers(&self.shower, &rows)?;
        block.class = match &self.class {
            Some((column, class)) => Some(read_class(column, class, &rows)?),
            None => None,
        };
        Ok(())
    }

    /// Two chunks of the column with the largest ones: a block may end inside a chunk.
    fn wanted_cache(&self) -> usize {
        let direct = self.plans.iter().filter_map(|plan| match plan {
            Plan::Direct(column) => Some(column),
            _ => None,
        });
        let columns = direct
            .chain(self.shared.iter().map(|(_, column)| column))
            .chain(&self.keys)
            .chain(&self.shower)
            .chain(self.class.as_ref().map(|(column, _)| column));
        columns.map(|column| 2 * column.chunk_bytes()).max().unwrap_or(0)
    }
}

impl Plan {
    fn values(&self, rows: &Range<u64>, wide: &[Vec<f64>]) -> Result<Vec<f32>> {
        Ok(match self {
            Plan::Direct(column) => column.read_f32(rows.clone())?,
            Plan::Scaled { column, scale } => {
                wide[*column].iter().map(|value| (value * scale) as f32).collect()
            }
            Plan::Computed { expression, columns, scale } => {
                let mut arguments = vec![0.0; columns.len()];
                let row_value = |row: usize| {
                    for (argument, column) in arguments.iter_mut().zip(columns) {
                        *argument = wide[*column][row];
                    }
                    (expression.evaluate(&arguments) * scale) as f32
                };
                (0..(rows.end - rows.start) as usize).map(row_value).collect()
            }
        })
    }
}

fn read_integers(columns: &[StoredColumn], rows: &Range<u64>) -> Result<Vec<Vec<i64>>> {
    columns.iter().map(|column| column.read_i64(rows.clone())).collect()
}

fn read_class(column: &StoredColumn, class: &Class, rows: &Range<u64>) -> Result<Vec<i8>> {
    let values = column.read_i64(rows.clone())?;
    let meaning = |(row, value): (usize, &i64)| {
        class.meaning(*value).ok_or_else(|| {
            column
                .fault("a class that means nothing")
                .row(rows.start + row as u64)
                .expected("1 gamma, 0 hadron or -1 unknown")
                .found(value)
                .input()
        })
    };
    values.iter().enumerate().map(meaning).collect()
}

#[cfg(test)]
mod tests;
