//! Tables: a file seen through a schema, read in blocks of rows.
//!
//! A table may consist of several parts in one file, such as one per telescope; their
//! rows follow each other in the order of their names.
//!
//! Promises: only the columns of a request are read; all are checked (there, numeric,
//! one-dimensional, equally long, of a possible shape, in the unit of the schema) before
//! the first row is; reading in blocks gives what reading at once gives. Expressions and
//! scales are evaluated in f64 and rounded once. Left to others: which rows, what NaN
//! means, how columns are stored (`layout`), and the order of files (`catalog`).

mod batch;
pub mod events;
pub mod scores;

use super::files::stamp::Stamp;
use super::hdf5;
use super::hdf5::numbers::{NumberClass, StoredColumn};
use super::schema::layout::{self, TableLayout};
use super::schema::unix_time;
use super::schema::{ClassColumn, Quantity, QuantitySource, Schema, canonical_unit, normal_unit};
use crate::error::{Error, Fault, Result, did_you_mean};
use ::hdf5::File;
use ::hdf5::types::IntSize;
use batch::{ColumnBatch, ColumnData, ReadScratch, Want};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};

/// The library's own default; enough where chunks are small.
const SMALL_CACHE: usize = 1 << 20; // bytes
/// Columns that name an observed event, and that of its telescope.
const OBSERVED_EVENT: [&str; 3] = ["run", "event_id", unix_time::COLUMN];
const TELESCOPE: [&str; 1] = ["telescope_id"];

/// What is in a file, without its rows; holds no open file.
#[derive(Debug, Clone)]
pub struct Table {
    path: PathBuf,
    schema: Schema,
    rows: u64,
    parts: Vec<TablePart>,
    quantities: BTreeMap<String, Quantity>, // whose columns are all there
    keys: BTreeMap<String, String>,         // name → dataset
    shower: Vec<String>,
    class: Option<ClassColumn>,
    columns: BTreeSet<String>, // of all parts
    stamp: Option<Stamp>,
}

/// One of the places in a file whose rows follow each other.
#[derive(Debug, Clone)]
struct TablePart {
    /// Path in the file.
    place: String,
    /// Rows of the table.
    rows: Range<u64>,
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
        let stamp = Stamp::of(path);
        let file = hdf5::open(path)?;
        schema.check_format(path, &file)?;
        let layouts = layout::find(path, &file, schema.hdf5_place()?, schema.layout)?;
        let mut table = Table {
            path: path.to_path_buf(),
            schema: schema.clone(),
            rows: 0,
            parts: Vec::new(),
            quantities: BTreeMap::new(),
            keys: BTreeMap::new(),
            shower: Vec::new(),
            class: None,
            columns: BTreeSet::new(),
            stamp,
        };
        let mut names = BTreeSet::new();
        for layout in &layouts {
            table.add_part(layout, &mut names, false)?;
        }
        if let (true, Some(first)) = (table.parts.is_empty(), layouts.first()) {
            table.add_part(first, &mut names, true)?;
        }
        let has = |column: &String| names.contains(column);
        let of_shower = schema.shower.iter().find(|list| list.iter().all(has));
        table.shower = of_shower.cloned().unwrap_or_default();
        table.class = schema.class.clone().filter(|class| has(&class.column));
        table.columns = names;
        table.check_declared_rows(&file)?;
        Ok(table)
    }

    /// Takes up the rows of a part; quantities, keys and columns are those that all parts
    /// with rows have. A part without rows counts only if it is `alone`.
    fn add_part(
        &mut self,
        layout: &TableLayout,
        names: &mut BTreeSet<String>,
        alone: bool,
    ) -> Result<()> {
        let mine = layout.names();
        let (quantities, keys) = if self.schema.open {
            open_columns(&self.path, layout, &mine, &self.schema)
        } else {
            known_columns(&mine, &self.schema)
        };
        let rows = self.count_rows(layout, &mine, &quantities)?;
        if rows == 0 && !alone {
            return Ok(());
        }
        if self.parts.is_empty() {
            (self.quantities, self.keys) = (quantities, keys);
            names.extend(mine);
        } else {
            self.quantities.retain(|name, _| quantities.contains_key(name));
            self.keys.retain(|name, _| keys.contains_key(name));
            names.retain(|name| mine.contains(name));
        }
        let end = self.rows.saturating_add(rows);
        self.parts.push(TablePart { place: layout.name.clone(), rows: self.rows..end });
        self.rows = end;
        Ok(())
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
        self.quantity(quantity).map(|quantity| quantity.canonical.as_str())
    }

    /// A quantity by its name, or by another name that the schema gives it.
    fn quantity(&self, name: &str) -> Option<&Quantity> {
        let aliases = &self.schema.aliases;
        let other = |name: &str| {
            let older = aliases.iter().find(|(_, newer)| *newer == name).map(|(older, _)| older);
            self.quantities.get(aliases.get(name).or(older)?)
        };
        self.quantities.get(name).or_else(|| other(name))
    }

    /// Names of the columns that all parts of the table have, sorted.
    pub fn columns(&self) -> &BTreeSet<String> {
        &self.columns
    }

    /// Names of the keys that can be copied, sorted.
    pub fn key_names(&self) -> Vec<&str> {
        self.keys.keys().map(String::as_str).collect()
    }

    /// Datasets of the shower key; none if the file has no such key.
    pub fn shower_columns(&self) -> Vec<String> {
        self.shower.clone()
    }

    /// Columns that together name one row; none if the file does not have what names its
    /// showers. Where an event has a run and a time, they name it: a `run_id` that is a hash of
    /// the file differs between copies of which one byte differs.
    pub fn event_columns(&self) -> Vec<String> {
        if OBSERVED_EVENT.iter().all(|name| self.columns.contains(*name)) {
            let all = OBSERVED_EVENT.into_iter().chain(TELESCOPE);
            let there = all.filter(|name| self.columns.contains(*name));
            return there.map(str::to_string).collect();
        }
        let named = self.schema.event.iter().any(|column| self.shower.contains(column));
        let there = |column: &&String| named && self.columns.contains(*column);
        self.schema.event.iter().filter(there).cloned().collect()
    }

    /// The quantities that can be computed a second way, read under their own names, and
    /// by how much the two may differ.
    pub fn second_ways(&self) -> Option<(Table, BTreeMap<String, f64>)> {
        let there = |quantity: &Quantity| {
            quantity.source.columns().iter().all(|column| self.columns.contains(column))
        };
        let usable = self.schema.compare.iter().filter(|(name, compare)| {
            self.quantities.contains_key(*name) && there(&compare.quantity)
        });
        let mut table = self.clone();
        table.quantities.clear();
        let mut within = BTreeMap::new();
        for (name, compare) in usable {
            table.quantities.insert(name.clone(), compare.quantity.clone());
            within.insert(name.clone(), compare.within);
        }
        (!within.is_empty()).then_some((table, within))
    }

    /// The same table with these columns as its shower key: to read any integers.
    #[must_use]
    pub fn with_shower(&self, columns: Vec<String>) -> Table {
        Table { shower: columns, ..self.clone() }
    }

    pub fn has_class(&self) -> bool {
        self.class.is_some()
    }

    /// Opens the requested columns and checks them. A shower key or class that the file
    /// does not have is left out of the blocks; a quantity or key is refused.
    pub fn reader(&self, request: &Request) -> Result<TableReader> {
        let reader = self.reader_with_cache(request, SMALL_CACHE)?;
        let wanted = reader.cache_bytes();
        if wanted <= SMALL_CACHE {
            return Ok(reader);
        }
        // The library takes the cache from the first opening of a file that is open.
        drop(reader);
        self.reader_with_cache(request, wanted)
    }

    fn reader_with_cache(&self, request: &Request, cache: usize) -> Result<TableReader> {
        let file = hdf5::open_with_cache(&self.path, cache)?;
        let bytes = hdf5::file_length(&self.path)?;
        let mut plan = BlockPlan::default();
        let mut parts = Vec::with_capacity(self.parts.len());
        for part in &self.parts {
            let layout = layout::open(&self.path, &file, &part.place)?;
            let mut opening = PartOpener {
                table: self,
                layout,
                rows: part.rows.end - part.rows.start,
                bytes,
                columns: Vec::new(),
                checked: BTreeSet::new(),
            };
            // The columns of all parts are the same and in the same order.
            plan = opening.plan(request)?;
            parts.push((part.rows.clone(), ColumnBatch::new(opening.columns)?));
        }
        let (path, stamp) = (self.path.clone(), self.stamp);
        let wants = parts.first().map(|(_, batch)| batch.columns()).unwrap_or_default();
        let values = wants.iter().map(|(_, want)| ColumnData::new(*want)).collect();
        let scratch = ReadScratch::default();
        Ok(TableReader { _file: file, path, rows: self.rows, parts, plan, stamp, values, scratch })
    }

    /// Rows of the first needed column of a part; that the others agree is checked when
    /// they are read.
    fn count_rows(
        &self,
        layout: &TableLayout,
        names: &[String],
        quantities: &BTreeMap<String, Quantity>,
    ) -> Result<u64> {
        let first = ["size", "width", "length"].iter().find_map(|name| quantities.get(*name));
        let Some(quantity) = first.or_else(|| quantities.values().next()) else {
            return Err(self.nothing_there(layout, names));
        };
        let column = layout.column(&self.path, &quantity.source.columns()[0])?;
        if column.rows > 0 {
            // Callers size their work by this number.
            column.check_storage(hdf5::file_length(&self.path)?)?;
        }
        Ok(column.rows)
    }

    /// Refuses a table without rows: for commands that need events of every file.
    pub fn refuse_empty(&self) -> Result<()> {
        if self.rows > 0 {
            return Ok(());
        }
        let place = self.parts.first().map_or(String::new(), |part| part.place.clone());
        Err(Fault::new("the table is empty")
            .file(&self.path)
            .dataset(place)
            .found("0 rows")
            .advice("leave the file out, or write it again")
            .input())
    }

    /// Files of the project say how many rows were written; the shape must agree.
    fn check_declared_rows(&self, file: &File) -> Result<()> {
        let own = self.schema.format.is_some() && hdf5::text_attribute(file, "format").is_some();
        match hdf5::integer_attribute(file, "rows").filter(|_| own) {
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

    fn nothing_there(&self, layout: &TableLayout, names: &[String]) -> Error {
        // Where all columns are there and none can be opened, the reason is the file's.
        let features = ["size", "width", "length"].iter().filter(|_| self.schema.open);
        for name in features.filter(|name| names.iter().any(|known| known == *name)) {
            if let Err(error) = layout.column(&self.path, name) {
                return error;
            }
        }
        let fault =
            Fault::new(format!("no quantity of the schema '{}' is there", self.schema.name))
                .file(&self.path)
                .found(match names.len() {
                    0 => format!("nothing in group '{}'", layout.name),
                    _ => format!("{} columns: {}", names.len(), shorten(names)),
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
    layout: &TableLayout,
    names: &[String],
    schema: &Schema,
) -> (BTreeMap<String, Quantity>, BTreeMap<String, String>) {
    let (mut quantities, mut keys) = known_columns(names, schema);
    let class = schema.class.as_ref().map(|class| &class.column);
    for name in names.iter().filter(|name| Some(*name) != class) {
        // What is no numeric column (text, images) is no quantity.
        let Ok(column) = layout.column(path, name) else { continue };
        let named = events::KEYS.contains(&name.as_str())
            || schema.event.contains(name)
            || schema.shower.iter().flatten().any(|n| n == name);
        let is_key = column.numbers == NumberClass::Integer(IntSize::U8);
        if is_key || named && column.check_integer("keys").is_ok() {
            keys.insert(name.clone(), name.clone());
            continue;
        }
        let declared = || column.unit().map_or("1".to_string(), normal_unit);
        let unit = canonical_unit(name).map_or_else(declared, str::to_string);
        let source = QuantitySource::Column(name.clone());
        let quantity = Quantity { source, canonical: unit.clone(), unit, scale: 1.0, larger: None };
        quantities.entry(name.clone()).or_insert(quantity);
    }
    (quantities, keys)
}

/// The first names of a list, for messages.
fn shorten(names: &[String]) -> String {
    let shown: Vec<&str> = names.iter().take(8).map(String::as_str).collect();
    format!("{}{}", shown.join(", "), if names.len() > 8 { ", …" } else { "" })
}

/// A part of a table whose columns are being opened and checked.
struct PartOpener<'a> {
    table: &'a Table,
    layout: TableLayout,
    rows: u64,  // of the part
    bytes: u64, // of the file
    columns: Vec<(StoredColumn, Want)>,
    checked: BTreeSet<String>, // datasets whose storage was looked at
}

impl PartOpener<'_> {
    fn plan(&mut self, request: &Request) -> Result<BlockPlan> {
        let mut plan = BlockPlan::default();
        for name in &request.quantities {
            plan.quantities.push(self.quantity(name)?);
        }
        for name in &request.keys {
            plan.keys.push(self.key(name)?);
        }
        if request.shower {
            for name in &self.table.shower {
                plan.shower.push(self.integers(name)?);
            }
        }
        if let Some(class) = self.table.class.as_ref().filter(|_| request.class) {
            plan.class = Some((self.integers(&class.column)?, class.clone()));
        }
        Ok(plan)
    }

    /// Index of a column among those that are read.
    fn column(&mut self, name: &str, want: Want) -> Result<usize> {
        let column = self.layout.column(&self.table.path, name)?;
        if want == Want::I64 {
            column.check_integer("keys and classes")?;
        }
        column.check_rows(self.rows)?;
        if self.checked.insert(column.name.clone()) {
            column.check_storage(self.bytes)?;
        }
        self.columns.push((column, want));
        Ok(self.columns.len() - 1)
    }

    fn integers(&mut self, name: &str) -> Result<usize> {
        self.column(name, Want::I64)
    }

    fn key(&mut self, name: &str) -> Result<usize> {
        let Some(dataset) = self.table.keys.get(name) else {
            return Err(Fault::new(format!("key '{name}' is not available"))
                .file(&self.table.path)
                .advice(did_you_mean(name, &self.table.key_names()))
                .input());
        };
        self.integers(dataset)
    }

    /// How a quantity is read; columns that are computed with are read once each.
    fn quantity(&mut self, name: &str) -> Result<QuantityPlan> {
        let Some(quantity) = self.table.quantity(name) else {
            return Err(self.missing_quantity(name));
        };
        let column = match &quantity.source {
            QuantitySource::Column(column) => column,
            QuantitySource::Expression(expression) => {
                let mut columns = Vec::new();
                for name in expression.variables() {
                    let index = self.share(name)?;
                    if let Some(unit) = self.table.schema.units.get(name) {
                        check_column_unit(&self.columns[index].0, unit)?;
                    }
                    columns.push(index);
                }
                return Ok(QuantityPlan::Computed {
                    columns,
                    expression: expression.clone(),
                    scale: quantity.scale,
                });
            }
        };
        let stored = self.layout.column(&self.table.path, column)?;
        let scale = scale_of(name, quantity, &stored)?;
        if is_one(scale) {
            return Ok(QuantityPlan::Direct(self.column(column, Want::F32)?));
        }
        Ok(QuantityPlan::Scaled { column: self.share(column)?, scale })
    }

    fn share(&mut self, name: &str) -> Result<usize> {
        let known =
            |(column, want): &(StoredColumn, Want)| *want == Want::F64 && column.is_named(name);
        match self.columns.iter().position(known) {
            Some(index) => Ok(index),
            None => self.column(name, Want::F64),
        }
    }

    fn missing_quantity(&self, name: &str) -> Error {
        let table = self.table;
        let columns = match table.schema.quantities.get(name) {
            Some(quantity) => quantity.source.columns().to_vec(),
            None if table.schema.open => vec![name.to_string()],
            None => Vec::new(),
        };
        // A column that is missing, or no numbers, is told with the reason for it.
        let reason = columns.iter().find_map(|column| {
            let opened = self.layout.column(&table.path, column);
            opened.and_then(|column| column.check_rows(self.rows)).err()
        });
        let known = table.schema.quantities.contains_key(name)
            || self.layout.names().iter().any(|known| known == name);
        if let (Some(error), true) = (reason, known) {
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

/// The factor from the stored column to the canonical unit. A column that says that it is
/// in the canonical unit already is believed; any other contradiction is refused.
fn scale_of(name: &str, quantity: &Quantity, column: &StoredColumn) -> Result<f64> {
    match column.unit().map(normal_unit) {
        Some(found) if found == quantity.unit => Ok(quantity.scale),
        Some(found) if found == quantity.canonical => Ok(1.0),
        Some(found) => Err(column
            .fault(&format!("quantity '{name}' is in another unit than the schema says"))
            .expected(&quantity.unit)
            .found(found)
            .advice("correct the unit in the schema (with a factor where needed) or in the file")
            .input()),
        None => Ok(quantity.scale),
    }
}

/// Refuses a column of an expression that declares another unit than the schema gives.
fn check_column_unit(column: &StoredColumn, expected: &str) -> Result<()> {
    match column.unit().map(normal_unit) {
        Some(found) if found != expected => Err(column
            .fault("the column is in another unit than the schema says")
            .expected(expected)
            .found(found)
            .advice("correct the unit and the expressions in the schema, or the file")
            .input()),
        _ => Ok(()),
    }
}

/// How one quantity comes from the columns that are read.
#[derive(Debug)]
enum QuantityPlan {
    Direct(usize),
    Scaled { column: usize, scale: f64 },
    Computed { expression: super::Expression, columns: Vec<usize>, scale: f64 },
}

/// What a block is made of: indices of columns.
#[derive(Debug, Default)]
struct BlockPlan {
    quantities: Vec<QuantityPlan>,
    keys: Vec<usize>,
    shower: Vec<usize>,
    class: Option<(usize, ClassColumn)>,
}

/// Open columns, ready to be read by ranges of rows.
pub struct TableReader {
    _file: File, // keeps the chunk cache
    path: PathBuf,
    rows: u64,
    parts: Vec<(Range<u64>, ColumnBatch)>, // rows of the table
    plan: BlockPlan,
    stamp: Option<Stamp>,
    values: Vec<ColumnData>, // (columns)
    scratch: ReadScratch,
}

impl TableReader {
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Reads rows into a block; what was in it before is replaced, its memory used again.
    /// Ranges along the file, aligned to chunks (65 536 rows in the project's own files),
    /// are fastest.
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
        // Also where the reading failed: then this is the reason.
        if self.stamp.is_some() && Stamp::of(&self.path) != self.stamp {
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

    /// Exchanges the columns that are taken as they are with those of a block.
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

    /// All columns in the rows, which may lie in several parts.
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

    /// Two chunks of the column with the largest ones: a block may end inside a chunk.
    fn cache_bytes(&self) -> usize {
        let columns = self.parts.iter().flat_map(|(_, batch)| batch.columns());
        columns.map(|(column, _)| 2 * column.chunk_bytes()).max().unwrap_or(0)
    }
}

impl QuantityPlan {
    /// Fills a quantity that is not taken as it is.
    fn compute(&self, read: &[ColumnData], rows: usize, quantity: &mut Vec<f32>) {
        match self {
            QuantityPlan::Direct(_) => {}
            QuantityPlan::Scaled { column, scale } => {
                quantity.clear();
                quantity.extend(read[*column].f64().iter().map(|value| (value * scale) as f32));
            }
            QuantityPlan::Computed { expression, columns, scale } => {
                let columns: Vec<&[f64]> =
                    columns.iter().map(|column| read[*column].f64()).collect();
                quantity.clear();
                expression.evaluate_rows(&columns, rows, |value| {
                    quantity.push((value * scale) as f32);
                });
            }
        }
    }
}

#[cfg(test)]
mod tests;
