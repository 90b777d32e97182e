//! Reads the tables of event files through a schema, in blocks of rows.
//!
//! An [`InputFile`] is an open file; a [`Table`] describes its contents and holds no open file.
//! A table may consist of several parts in one file, such as one per telescope; their rows follow
//! each other in the order of their names.
//!
//! - Only the columns of a request are read. All of them are checked before the first row: they
//!   exist, are numeric, have one dimension, equal lengths, a possible shape, and the unit of the
//!   schema.
//! - Rows read in blocks are equal to rows read at once.
//! - Expressions and scales are evaluated in f64 and rounded once.

mod batch;
pub mod events;
mod input;
mod opening;
mod plan;
mod reader;
pub mod scores;

use super::files::stamp::Stamp;
use super::hdf5::storage;
use super::hdf5::types::NumberClass;
use super::hdf5::{self, OpenInput};
use super::schema::layout::{self, TableLayout};
use super::schema::unix_time;
use super::schema::{ClassColumn, Quantity, QuantitySource, Schema, canonical_unit, normal_unit};
use crate::error::{Error, Fault, Result, did_you_mean};
use ::hdf5::File;
use ::hdf5::types::IntSize;
pub use input::InputFile;
pub use reader::TableReader;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Columns that identify an observed event, and the column of its telescope.
pub(super) const OBSERVED_EVENT: [&str; 3] = ["run", "event_id", unix_time::COLUMN];
pub(super) const TELESCOPE: [&str; 1] = ["telescope_id"];

/// The contents of an event file, without its rows; holds no open file.
#[derive(Debug, Clone)]
pub struct Table {
    path: PathBuf,
    schema: Arc<Schema>,
    rows: u64,
    parts: Vec<TablePart>,
    quantities: BTreeMap<String, Quantity>, // those with all their columns
    keys: BTreeMap<String, String>,         // name → dataset
    shower: Vec<String>,
    class: Option<ClassColumn>,
    columns: BTreeSet<String>, // of all parts
    stamp: Stamp,
}

/// A part of a table: a place in the file, and its rows.
#[derive(Debug, Clone)]
struct TablePart {
    /// Path in the file.
    place: String,
    /// Rows of the table.
    rows: Range<u64>,
}

/// The columns to read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Request {
    pub quantities: Vec<String>,
    pub keys: Vec<String>,
    pub shower: bool,
    pub class: bool,
}

/// Rows of the requested columns. The vectors have the order of the request and the length
/// `rows`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Block {
    pub rows: usize,
    pub quantities: Vec<Vec<f32>>, // (quantities, rows), canonical units
    pub keys: Vec<Vec<i64>>,       // (keys, rows)
    pub shower: Vec<Vec<i64>>,     // (shower columns, rows); empty if not requested, or absent
    pub class: Option<Vec<i8>>,    // (rows): 1 gamma, 0 hadron, −1 unknown
}

impl Table {
    /// Describes an open file through a schema.
    ///
    /// # Errors
    /// `Input` if the table is absent, damaged, or of a different format or version; `Usage` if the
    /// schema is one of text tables.
    fn of(path: &Path, input: &OpenInput, schema: Arc<Schema>) -> Result<Table> {
        let file = &input.file;
        schema.check_format(path, file)?;
        let layouts = layout::find(path, file, schema.hdf5_place()?, schema.layout)?;
        let mut table = Table {
            path: path.to_path_buf(),
            schema,
            rows: 0,
            parts: Vec::new(),
            quantities: BTreeMap::new(),
            keys: BTreeMap::new(),
            shower: Vec::new(),
            class: None,
            columns: BTreeSet::new(),
            stamp: input.stamp,
        };
        let mut names = BTreeSet::new();
        for layout in &layouts {
            layout.check(path)?;
            table.add_part(layout, &mut names, false)?;
        }
        if let (true, Some(first)) = (table.parts.is_empty(), layouts.first()) {
            table.add_part(first, &mut names, true)?;
        }
        let has = |column: &String| names.contains(column);
        let shower = table.schema.shower.iter().find(|list| list.iter().all(has));
        table.shower = shower.cloned().unwrap_or_default();
        table.class = table.schema.class.clone().filter(|class| has(&class.column));
        table.columns = names;
        table.check_declared_rows(file)?;
        Ok(table)
    }

    /// Adds the rows of a part. Quantities, keys and columns are those that all parts with rows
    /// have; a part without rows counts only if it is `alone`.
    fn add_part(
        &mut self,
        layout: &TableLayout,
        names: &mut BTreeSet<String>,
        alone: bool,
    ) -> Result<()> {
        let mine = layout.names();
        let (quantities, keys) = if self.schema.open {
            open_columns(&self.path, layout, &mine, &self.schema)?
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

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn schema(&self) -> &Arc<Schema> {
        &self.schema
    }

    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Returns the names of the quantities that can be read, sorted.
    pub fn quantities(&self) -> Vec<&str> {
        self.quantities.keys().map(String::as_str).collect()
    }

    /// Returns the canonical unit of a quantity that can be read.
    pub fn unit(&self, quantity: &str) -> Option<&str> {
        self.quantity(quantity).map(|quantity| quantity.canonical.as_str())
    }

    /// Returns a quantity by its name, or by an alias of the schema.
    fn quantity(&self, name: &str) -> Option<&Quantity> {
        let aliases = &self.schema.aliases;
        let other = |name: &str| {
            let older = aliases.iter().find(|(_, newer)| *newer == name).map(|(older, _)| older);
            self.quantities.get(aliases.get(name).or(older)?)
        };
        self.quantities.get(name).or_else(|| other(name))
    }

    /// Returns the names of the columns that all parts have, sorted.
    pub(crate) fn columns(&self) -> &BTreeSet<String> {
        &self.columns
    }

    /// Returns the names of the keys that can be copied, sorted.
    pub(crate) fn key_names(&self) -> Vec<&str> {
        self.keys.keys().map(String::as_str).collect()
    }

    /// Returns the datasets of the shower key; empty if the file has no such key.
    pub fn shower_columns(&self) -> Vec<String> {
        self.shower.clone()
    }

    /// Returns the columns that together identify one row; empty if the file has no shower key.
    /// Where an event has a run and a time, these identify it: a `run_id` that is a hash of the
    /// file differs between copies of which one byte differs.
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

    /// Returns a table of the quantities that other columns give a second time, under the same
    /// names, and the largest difference allowed between both.
    pub(crate) fn second_ways(&self) -> Option<(Table, BTreeMap<String, f64>)> {
        let has_columns = |quantity: &Quantity| {
            quantity.source.columns().iter().all(|column| self.columns.contains(column))
        };
        let usable = self.schema.compare.iter().filter(|(name, compare)| {
            self.quantities.contains_key(*name) && has_columns(&compare.quantity)
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

    /// Returns the same table with these columns as its shower key, to read any integers.
    #[must_use]
    pub(crate) fn with_shower(&self, columns: Vec<String>) -> Table {
        Table { shower: columns, ..self.clone() }
    }

    pub(crate) fn has_class(&self) -> bool {
        self.class.is_some()
    }

    /// Returns the rows of the first needed column of a part. The other columns are compared with
    /// it when they are opened.
    fn count_rows(
        &self,
        layout: &TableLayout,
        names: &[String],
        quantities: &BTreeMap<String, Quantity>,
    ) -> Result<u64> {
        let first = ["size", "width", "length"].iter().find_map(|name| quantities.get(*name));
        let Some(quantity) = first.or_else(|| quantities.values().next()) else {
            return Err(self.no_quantity(layout, names));
        };
        let column = layout.column(&self.path, &quantity.source.columns()[0])?;
        if column.rows > 0 {
            // Callers size their work by this number.
            storage::check(&column, self.stamp.length())?;
        }
        Ok(column.rows)
    }

    /// Refuses a table without rows: for commands that need events of every file.
    pub(crate) fn refuse_empty(&self) -> Result<()> {
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

    /// Refuses a file of the project whose shape differs from the number of rows that its writer
    /// has recorded.
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

    fn no_quantity(&self, layout: &TableLayout, names: &[String]) -> Error {
        // If the columns exist and none can be opened, the error of the file is the reason.
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

/// Returns the quantities and keys of a closed schema that a file has.
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

/// Returns the quantities and keys of an open schema: every numeric column under its own name.
///
/// # Errors
/// `Input` for a column that cannot be opened: it may be a key.
fn open_columns(
    path: &Path,
    layout: &TableLayout,
    names: &[String],
    schema: &Schema,
) -> Result<(BTreeMap<String, Quantity>, BTreeMap<String, String>)> {
    let (mut quantities, mut keys) = known_columns(names, schema);
    let class = schema.class.as_ref().map(|class| &class.column);
    for name in names.iter().filter(|name| Some(*name) != class) {
        // Texts and images are not quantities.
        let Some(column) = layout.numeric_column(path, name)? else { continue };
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
    Ok((quantities, keys))
}

/// Returns the first names of a list, for messages.
fn shorten(names: &[String]) -> String {
    let shown: Vec<&str> = names.iter().take(8).map(String::as_str).collect();
    format!("{}{}", shown.join(", "), if names.len() > 8 { ", …" } else { "" })
}

#[cfg(test)]
mod tests;
