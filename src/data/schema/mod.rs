//! Schemas: the meaning of the columns of a file, as quantities in canonical units.
//!
//! - A schema that parses is complete: constants resolved, units convertible, expressions valid.
//! - An unknown key is an error that names the nearest known key.
//!
//! The module `table` reads the columns.

mod built_in;
pub mod columns;
mod entry;
pub mod expression;
pub mod features;
pub(crate) mod layout;
pub(crate) mod plausible;
#[cfg(test)]
mod tests;
mod units;
pub(crate) mod unix_time;

pub(crate) use built_in::{BUILT_IN, built_in};
pub use units::{canonical_unit, normal_unit};

use super::hdf5;
use crate::bounded;
use crate::config::parse_toml;
use crate::error::{Error, Fault, Result, did_you_mean};
use entry::SchemaEntry;
use expression::Expression;
use layout::LayoutKind;
use plausible::Plausible;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// Root attribute `format` of the project's own event files.
pub(crate) const EVENT_FORMAT: &str = "taiga-flow-events";
/// Root attribute `version` of the event files that this program writes.
pub(crate) const EVENT_VERSION: i64 = 1;

/// Meaning of the columns of a file.
#[derive(Debug, Clone)]
pub struct Schema {
    pub name: String,
    pub description: String,
    /// Place of the table in an HDF5 file: a group of columns, or a compound dataset. It may
    /// contain `*`. `None` for text tables.
    pub place: Option<String>,
    /// The only layout that fits; `None` accepts every layout.
    pub layout: Option<LayoutKind>,
    /// Every numeric column is a quantity under its own name.
    pub open: bool,
    /// Root attributes `format` and `version`, if files of this schema have them.
    pub format: Option<(String, i64)>,
    pub quantities: BTreeMap<String, Quantity>,
    /// Units of columns that are used in expressions only.
    pub units: BTreeMap<String, String>,
    /// Keys copied to outputs: name → dataset.
    pub copy: BTreeMap<String, String>,
    /// Datasets of the shower key: the first list whose columns all exist is used.
    pub shower: Vec<Vec<String>>,
    pub class: Option<ClassColumn>,
    /// Columns that together identify a row; columns that a file lacks are ignored.
    pub event: Vec<String>,
    /// Second definitions of quantities, for comparison.
    pub compare: BTreeMap<String, Compare>,
    /// Plausible values by quantity, where they differ from the default ones.
    pub plausible: BTreeMap<String, Plausible>,
    /// Other names of quantities, such as those of earlier versions: name → quantity.
    pub aliases: BTreeMap<String, String>,
    /// Format of the lines, for text tables.
    pub text: Option<Text>,
}

/// A second definition of a quantity, in its canonical unit, with the allowed difference.
#[derive(Debug, Clone)]
pub struct Compare {
    pub quantity: Quantity,
    pub within: f64,
}

/// Format of the lines of a text table.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[allow(clippy::struct_excessive_bools)] // independent switches of the schema file
pub struct Text {
    /// The first line names the columns, in any order; otherwise `columns` names them.
    pub header: bool,
    pub columns: Vec<String>,
    /// Finite limits by column. A number outside makes the table invalid.
    pub limits: BTreeMap<String, [f64; 2]>,
    /// NaN and infinity are valid values; otherwise they make the table invalid.
    pub not_finite: bool,
    /// Order of the quantities in the event file; alphabetical if empty.
    pub outputs: Vec<String>,
    /// Adds a key `row_hash`, computed from the line.
    pub row_hash: bool,
    /// Quantities relative to the source position of the file. They are omitted where that
    /// position is replaced.
    pub of_source: Vec<String>,
    /// Adds a key `run_id`, computed from the content of the file and these columns.
    pub run: Option<Vec<String>>,
    /// Adds a key `run`, computed from date and number of the run, `DDMMYY.RR`, at the start of
    /// the name of the file or of its folder. Telescopes and portions of a run share it.
    pub run_of_name: bool,
    pub class: Option<TextClass>,
}

/// A column of texts that contains the class.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextClass {
    pub column: String,
    pub gamma: String,
    pub hadron: String,
}

/// One quantity: `scale` × source, in the canonical unit.
#[derive(Debug, Clone)]
pub struct Quantity {
    pub source: QuantitySource,
    /// Unit of the source.
    pub unit: String,
    pub canonical: String,
    pub scale: f64,
    /// Values above the first number have a different unit, with the second number as scale.
    pub larger: Option<(f64, f64)>,
}

impl Quantity {
    /// Returns a value of the source in the canonical unit.
    pub(crate) fn canonical_value(&self, value: f64) -> f64 {
        match self.larger {
            Some((than, scale)) if value > than => value * scale,
            _ => value * self.scale,
        }
    }
}

/// Source of the values of a quantity.
#[derive(Debug, Clone)]
pub enum QuantitySource {
    Column(String),
    /// An expression whose variables are columns.
    Expression(Expression),
}

impl QuantitySource {
    /// Returns the columns to read.
    pub(crate) fn columns(&self) -> &[String] {
        match self {
            QuantitySource::Column(name) => std::slice::from_ref(name),
            QuantitySource::Expression(expression) => expression.variables(),
        }
    }
}

/// The column of the class and the meaning of its values. Without lists the values are 1
/// gamma, 0 hadron, −1 unknown. With lists all other values are unknown.
#[derive(Clone, PartialEq, Eq)]
pub struct ClassColumn {
    pub column: String,
    pub gamma: Vec<i64>,
    pub hadron: Vec<i64>,
}

/// Keeps the type name of earlier versions: settings hashes of outputs contain this text.
impl std::fmt::Debug for ClassColumn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ClassColumn { column, gamma, hadron } = self;
        f.debug_struct("Class")
            .field("column", column)
            .field("gamma", gamma)
            .field("hadron", hadron)
            .finish()
    }
}

impl ClassColumn {
    /// Returns 1 for gamma, 0 for hadron, −1 for unknown, and `None` for an undefined value.
    pub(crate) fn meaning(&self, value: i64) -> Option<i8> {
        if self.gamma.is_empty() && self.hadron.is_empty() {
            return i8::try_from(value).ok().filter(|class| (-1..=1).contains(class));
        }
        if self.gamma.contains(&value) {
            Some(1)
        } else {
            Some(-i8::from(!self.hadron.contains(&value)))
        }
    }
}

/// Largest schema file that is read [bytes].
const LARGEST_FILE: u64 = 1 << 20;

impl Schema {
    /// Returns a built-in schema by its name, or reads a schema file.
    ///
    /// # Errors
    /// `Usage` for an unknown name, and for a file that is unreadable or not a valid schema.
    pub fn by_name_or_path(text: &str) -> Result<Schema> {
        if let Some((name, toml)) = BUILT_IN.iter().find(|(name, _)| *name == text) {
            return Schema::parse(toml, name);
        }
        let path = Path::new(text);
        let is_path = path.extension().is_some() || path.components().count() > 1;
        if !is_path && !path.is_file() {
            let names: Vec<&str> = BUILT_IN.iter().map(|(name, _)| *name).collect();
            return Err(Fault::new(format!("unknown schema '{text}'"))
                .expected("a built-in name or the path of a schema file")
                .advice(did_you_mean(text, &names))
                .usage());
        }
        // Every rank opens the file, and a pipe can be read only once.
        if let Some(fault) = bounded::irregular(path) {
            return Err(fault.usage());
        }
        let toml = bounded::read_text(path, LARGEST_FILE).map_err(|error| {
            Fault::new("cannot read the schema").file(path).found(error).usage()
        })?;
        Schema::parse(&toml, text)
    }

    /// Returns the schema that fits a file: the one of its root attribute `format`, else the
    /// first built-in one whose needed columns are all in the file.
    ///
    /// # Errors
    /// `Input` if no schema fits; `Environment` if the system fails to read the file.
    pub fn detect(path: &Path) -> Result<Schema> {
        built_in::detect(path, &hdf5::open(path)?)
    }

    /// Returns the schema that fits an open file, as [`Schema::detect`] does.
    pub(super) fn detect_in(path: &Path, file: &::hdf5::File) -> Result<Schema> {
        built_in::detect(path, file)
    }

    /// Reads the schema of an option, as [`Schema::by_name_or_path`] does. Returns `None` without
    /// one: then each file has the schema that fits it.
    ///
    /// # Errors
    /// As [`Schema::by_name_or_path`].
    pub(crate) fn of_option(given: Option<&str>) -> Result<Option<Arc<Schema>>> {
        Ok(given.map(Schema::by_name_or_path).transpose()?.map(Arc::new))
    }

    /// Parses the text of a schema; `origin` is its name or path, for messages.
    ///
    /// # Errors
    /// `Usage` with the line or the quantity that is not valid.
    pub fn parse(text: &str, origin: &str) -> Result<Schema> {
        let entry: SchemaEntry = parse_toml(text).map_err(|e| e.in_file(Path::new(origin)))?;
        entry.resolve().map_err(|error| error.in_file(Path::new(origin)))
    }

    /// Refuses a file whose root attributes name a different format or version. A file without
    /// these attributes passes, because the user named the schema.
    pub(super) fn check_format(&self, path: &Path, file: &::hdf5::File) -> Result<()> {
        let Some((format, version)) = &self.format else { return Ok(()) };
        let Some(found) = hdf5::text_attribute(file, "format") else { return Ok(()) };
        if found != *format {
            return Err(other_format(path, format, &found));
        }
        match hdf5::integer_attribute(file, "version") {
            Some(found) if found == *version => Ok(()),
            found => Err(Fault::new("unsupported version of an event file")
                .file(path)
                .expected(format!("version {version}"))
                .found(found.map_or("no version".to_string(), |v| format!("version {v}")))
                .advice("use the program version that wrote the file, or write the file again")
                .input()),
        }
    }

    /// Returns the place of the table in an HDF5 file.
    pub(super) fn hdf5_place(&self) -> Result<&str> {
        self.place.as_deref().ok_or_else(|| {
            Fault::new(format!("the schema '{}' describes text tables, not HDF5 files", self.name))
                .advice("convert text tables to event files with `taiga-flow convert`")
                .usage()
        })
    }

    /// Returns the columns of a text table that this schema needs, sorted.
    pub fn text_columns(&self) -> Vec<&str> {
        let mut columns: Vec<&str> = Vec::new();
        let quantities = self.quantities.values();
        let compared = self.compare.values().map(|compare| &compare.quantity);
        for quantity in quantities.chain(compared) {
            columns.extend(quantity.source.columns().iter().map(String::as_str));
        }
        columns.extend(self.copy.values().map(String::as_str));
        if let Some(text) = &self.text {
            columns.extend(text.run.iter().flatten().map(String::as_str));
            columns.extend(text.class.iter().map(|class| class.column.as_str()));
        }
        columns.sort_unstable();
        columns.dedup();
        columns
    }
}

/// Returns the error of a file with a different root attribute `format`.
fn other_format(path: &Path, expected: &str, found: &str) -> Error {
    Fault::new("not an event file")
        .file(path)
        .expected(format!("root attribute format = '{expected}'"))
        .found(format!("'{found}'"))
        .advice("give event files here, not scores or other outputs")
        .input()
}
