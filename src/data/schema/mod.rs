//! Schemas: what the columns of a file mean, as quantities in canonical units.
//!
//! Owns the format of the schema files, the built-in ones, the canonical units and the
//! choice of a schema for a file. Promises: a schema that parses is complete (constants
//! resolved, units convertible, expressions readable); a misspelt key is answered with
//! the nearest one. Left to others: reading the columns (`table`).

pub mod columns;
pub mod expression;
pub mod features;
pub(crate) mod layout;
pub mod plausible;
pub mod unix_time;

use super::hdf5;
use crate::bounded;
use crate::config::explain_toml;
use crate::error::{Error, Fault, Result, did_you_mean, nearest};
use expression::Expression;
use layout::LayoutKind;
use plausible::Plausible;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, OnceLock};

/// Root attribute `format` of the project's own event files.
pub const EVENT_FORMAT: &str = "taiga-flow-events";
/// Root attribute `version` of the event files written now.
pub const EVENT_VERSION: i64 = 1;

/// Name and text of every built-in schema; the first that fits a file is taken.
pub const BUILT_IN: [(&str, &str); 12] = [
    ("taiga-events", include_str!("../../../configs/schema/taiga-events.toml")),
    ("fact", include_str!("../../../configs/schema/fact.toml")),
    ("ctapipe", include_str!("../../../configs/schema/ctapipe.toml")),
    ("ctapipe-camera", include_str!("../../../configs/schema/ctapipe-camera.toml")),
    ("lstchain", include_str!("../../../configs/schema/lstchain.toml")),
    ("pandas", include_str!("../../../configs/schema/pandas.toml")),
    ("pytables", include_str!("../../../configs/schema/pytables.toml")),
    ("matrix", include_str!("../../../configs/schema/matrix.toml")),
    ("magic", include_str!("../../../configs/schema/magic.toml")),
    ("taiga-experiment", include_str!("../../../configs/schema/taiga-experiment.toml")),
    ("taiga-mc", include_str!("../../../configs/schema/taiga-mc.toml")),
    ("taiga-mc-newer", include_str!("../../../configs/schema/taiga-mc-newer.toml")),
];

/// Canonical unit by quantity.
const CANONICAL: [(&str, &str); 26] = [
    ("size", "p.e."),
    ("length", "deg"),
    ("width", "deg"),
    ("dist", "deg"),
    ("dist_center", "deg"),
    ("dist_anti", "deg"),
    ("alpha", "deg"),
    ("alpha_anti", "deg"),
    ("con1", "1"),
    ("con2", "1"),
    ("con3", "1"),
    ("leakage", "1"),
    ("leakage1", "1"),
    ("leakage2", "1"),
    ("skewness", "1"),
    ("kurtosis", "1"),
    ("energy", "TeV"),
    ("zenith", "deg"),
    ("cog_x", "deg"),
    ("cog_y", "deg"),
    ("delta", "deg"),
    ("xc", "deg"),
    ("yc", "deg"),
    ("axis", "deg"),
    ("source_x", "deg"),
    ("source_y", "deg"),
];

/// The features of the reference study: a file that lacks one does not fit a schema.
const NEEDED: [&str; 6] = ["size", "length", "width", "dist", "alpha", "con2"];

/// What the columns of a file mean.
#[derive(Debug, Clone)]
pub struct Schema {
    pub name: String,
    pub description: String,
    /// Where the table is in an HDF5 file: a group of columns, or a compound dataset;
    /// may hold `*`. None for text tables.
    pub place: Option<String>,
    /// The only layout that fits, if that is so.
    pub layout: Option<LayoutKind>,
    /// Every numeric column is a quantity of its own name.
    pub open: bool,
    /// Root attributes `format` and `version`, if files of this schema carry them.
    pub format: Option<(String, i64)>,
    pub quantities: BTreeMap<String, Quantity>,
    /// Units of columns that only stand in expressions.
    pub units: BTreeMap<String, String>,
    /// Keys copied to outputs: name → dataset.
    pub copy: BTreeMap<String, String>,
    /// Datasets of the shower key: the first list that is wholly there counts.
    pub shower: Vec<Vec<String>>,
    pub class: Option<ClassColumn>,
    /// Columns that, as far as they are there, name one row together.
    pub event: Vec<String>,
    /// Second ways to quantities, for comparison.
    pub compare: BTreeMap<String, Compare>,
    /// Plausible values by quantity, where they differ from the usual ones.
    pub plausible: BTreeMap<String, Plausible>,
    /// Other names of quantities, such as those of earlier versions: name → quantity.
    pub aliases: BTreeMap<String, String>,
    /// Of text tables: how their lines are read.
    pub text: Option<Text>,
}

/// A second way to a quantity, in its canonical unit, and by how much the two may differ.
#[derive(Debug, Clone)]
pub struct Compare {
    pub quantity: Quantity,
    pub within: f64,
}

/// How the lines of a text table are read.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[allow(clippy::struct_excessive_bools)] // a form as it is filled in
pub struct Text {
    /// The first line names the columns, in any order; else they are those of `columns`.
    pub header: bool,
    pub columns: Vec<String>,
    /// Finite limits by column; a number outside refuses the table.
    pub limits: BTreeMap<String, [f64; 2]>,
    /// Whether NaN and infinity are values; else they refuse the table.
    pub not_finite: bool,
    /// Order of the quantities in the event file; by name if empty.
    pub outputs: Vec<String>,
    /// Whether a key `row_hash` is made of the line.
    pub row_hash: bool,
    /// Quantities of the file's own source position: left out where it is replaced.
    pub of_source: Vec<String>,
    /// A key `run_id` is made of the file's content and of these columns.
    pub run: Option<Vec<String>>,
    /// A key `run` is made of date and number of the run, `DDMMYY.RR`, that the name of the
    /// file or of its folder begins with; telescopes and portions of a run share it.
    pub run_of_name: bool,
    pub class: Option<TextClass>,
}

/// A column of texts that tells the class.
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
    /// Values above the first number are in another unit, with this scale.
    pub larger: Option<(f64, f64)>,
}

impl Quantity {
    /// A value of the source in the canonical unit.
    pub fn canonical_value(&self, value: f64) -> f64 {
        match self.larger {
            Some((than, scale)) if value > than => value * scale,
            _ => value * self.scale,
        }
    }
}

/// Where the values of a quantity come from.
#[derive(Debug, Clone)]
pub enum QuantitySource {
    Column(String),
    /// Its variables are columns.
    Expression(Expression),
}

impl QuantitySource {
    /// The datasets that are read for it.
    pub fn columns(&self) -> &[String] {
        match self {
            QuantitySource::Column(name) => std::slice::from_ref(name),
            QuantitySource::Expression(expression) => expression.variables(),
        }
    }
}

/// The column of the class, and which of its values mean what. Without lists the values
/// are 1 gamma, 0 hadron, −1 unknown; with lists all other values are unknown.
#[derive(Clone, PartialEq, Eq)]
pub struct ClassColumn {
    pub column: String,
    pub gamma: Vec<i64>,
    pub hadron: Vec<i64>,
}

/// Names it as in earlier versions: hashes of the settings of outputs contain this text.
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
    /// 1 gamma, 0 hadron, −1 unknown; none for a value that means nothing.
    pub fn meaning(&self, value: i64) -> Option<i8> {
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

/// Largest schema file read [bytes].
const LARGEST_FILE: u64 = 1 << 20;

impl Schema {
    /// A built-in schema by its name, or one of the user's by the path of its file.
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
        // Each rank reads it.
        if let Some(fault) = bounded::irregular(path) {
            return Err(fault.usage());
        }
        let toml = bounded::read_text(path, LARGEST_FILE).map_err(|error| {
            Fault::new("cannot read the schema").file(path).found(error).usage()
        })?;
        Schema::parse(&toml, text)
    }

    /// The schema that fits a file: by its root attribute `format`, else the first
    /// built-in one whose needed columns are all there.
    pub fn detect(path: &Path) -> Result<Schema> {
        Schema::detect_in(path, &hdf5::open(path)?)
    }

    /// Returns the schema that fits an open file, as [`Schema::detect`] does.
    pub(super) fn detect_in(path: &Path, file: &::hdf5::File) -> Result<Schema> {
        let schemas = built_in()?;
        if let Some(format) = hdf5::text_attribute(file, "format") {
            let own = schemas.iter().find(|schema| schema.is_format(&format));
            let own = own.ok_or_else(|| other_format(path, EVENT_FORMAT, &format))?;
            own.check_format(path, file)?;
            return Ok(own.clone());
        }
        let mut misfits = Vec::new();
        let (open, closed): (Vec<&Schema>, Vec<&Schema>) = schemas
            .iter()
            .filter(|schema| schema.place.is_some() && schema.format.is_none())
            .partition(|schema| schema.open);
        for schema in closed {
            let found = schema.columns_in(path, file)?;
            let missing = schema.missing(&found);
            if missing.is_empty() {
                return Ok(schema.clone());
            }
            misfits.push((missing.len(), &schema.name, missing, found));
        }
        for schema in open {
            if schema.fits_names(path, file)? {
                return Ok(schema.clone());
            }
        }
        let groups = hdf5::describe_root(file);
        // The two that lack least.
        misfits.sort_by(|a, b| (a.0, a.1).cmp(&(b.0, b.1)));
        misfits.truncate(2);
        let mut near = Vec::new();
        for (_, _, missing, found) in misfits.iter().take(1) {
            let known = || found.iter().map(String::as_str);
            near.extend(missing.iter().filter_map(|column| {
                nearest(column, known()).map(|near| format!("is '{near}' meant to be '{column}'?"))
            }));
        }
        let misfits: Vec<String> = misfits
            .iter()
            .map(|(_, name, missing, _)| format!("'{name}' ({} missing)", missing.join(", ")))
            .collect();
        near.push("name a schema: copy configs/schema/fact.toml and map your columns in it".into());
        Err(Fault::new("no built-in schema fits this file")
            .file(path)
            .expected(format!(
                "root attribute format = '{EVENT_FORMAT}', or the columns of {}",
                misfits.join(" or of ")
            ))
            .found(groups)
            .advice(near.join(" else "))
            .input())
    }

    /// Reads the schema of an option, as [`Schema::by_name_or_path`] does; `None` without one:
    /// then each file has the schema that fits it.
    pub fn of_option(given: Option<&str>) -> Result<Option<Arc<Schema>>> {
        Ok(given.map(Schema::by_name_or_path).transpose()?.map(Arc::new))
    }

    /// Reads the text of a schema; `origin` is its name or path, for messages.
    pub fn parse(text: &str, origin: &str) -> Result<Schema> {
        let entry: SchemaEntry =
            toml::from_str(text).map_err(|e| explain_toml(&e, text).in_file(Path::new(origin)))?;
        entry.resolve().map_err(|error| error.in_file(Path::new(origin)))
    }

    /// Refuses a file whose root attributes say that it is something else. A file
    /// without these attributes passes: the user named the schema.
    pub(super) fn check_format(&self, path: &Path, file: &::hdf5::File) -> Result<()> {
        let Some((format, version)) = &self.format else { return Ok(()) };
        let Some(found) = hdf5::text_attribute(file, "format") else { return Ok(()) };
        if found != *format {
            return Err(other_format(path, format, &found));
        }
        match hdf5::integer_attribute(file, "version") {
            Some(found) if found == *version => Ok(()),
            found => Err(Fault::new("event file of another version")
                .file(path)
                .expected(format!("version {version}"))
                .found(found.map_or("no version".to_string(), |v| format!("version {v}")))
                .advice("use the program version that wrote it, or write the file anew")
                .input()),
        }
    }

    /// Where the table is in an HDF5 file.
    pub(super) fn hdf5_place(&self) -> Result<&str> {
        self.place.as_deref().ok_or_else(|| {
            Fault::new(format!("the schema '{}' is one of text tables", self.name))
                .advice("turn text tables into event files with `taiga-flow convert`")
                .usage()
        })
    }

    fn is_format(&self, found: &str) -> bool {
        self.format.as_ref().is_some_and(|(format, _)| format == found)
    }

    /// Whether an open schema finds features under their own names.
    fn fits_names(&self, path: &Path, file: &::hdf5::File) -> Result<bool> {
        let found = self.columns_in(path, file)?;
        Ok(NEEDED.iter().filter(|name| found.iter().any(|column| column == *name)).count() >= 2)
    }

    /// The columns of a text table that this schema needs.
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

    /// Columns of a file at the place of this schema; none if there is no table.
    ///
    /// # Errors
    /// `Environment` if the system fails to read it.
    fn columns_in(&self, path: &Path, file: &::hdf5::File) -> Result<Vec<String>> {
        let Some(place) = &self.place else { return Ok(Vec::new()) };
        let layouts = hdf5::unless_system(layout::find(path, file, place, self.layout))?;
        Ok(layouts.and_then(|all| all.first().map(layout::TableLayout::names)).unwrap_or_default())
    }

    /// Columns of the needed quantities that are not among `found`.
    fn missing(&self, found: &[String]) -> Vec<String> {
        let needed = NEEDED.iter().filter_map(|name| self.quantities.get(*name));
        let mut columns: Vec<String> = needed
            .flat_map(|quantity| quantity.source.columns())
            .filter(|column| !found.contains(column))
            .cloned()
            .collect();
        columns.sort();
        columns.dedup();
        columns
    }
}

/// The project's unit of a quantity, if the project knows the quantity.
pub fn canonical_unit(quantity: &str) -> Option<&'static str> {
    CANONICAL.iter().find(|(name, _)| *name == quantity).map(|(_, unit)| *unit)
}

/// One spelling per unit, so that `degree` and `deg` do not contradict each other.
pub fn normal_unit(unit: &str) -> String {
    let unit = unit.trim();
    let known = match unit.to_lowercase().as_str() {
        "pe" | "p.e." | "p.e" | "phe" | "photoelectron" | "photoelectrons" | "photo-electrons" => {
            "p.e."
        }
        "deg" | "degree" | "degrees" | "°" => "deg",
        "rad" | "radian" | "radians" => "rad",
        "mm" | "millimeter" | "millimetre" => "mm",
        "cm" | "centimeter" | "centimetre" => "cm",
        "m" | "meter" | "metre" => "m",
        "" | "1" | "none" | "dimensionless" => "1",
        _ => unit,
    };
    known.to_string()
}

fn other_format(path: &Path, expected: &str, found: &str) -> Error {
    Fault::new("not an event file")
        .file(path)
        .expected(format!("root attribute format = '{expected}'"))
        .found(format!("'{found}'"))
        .advice("give event files here, not scores or other outputs")
        .input()
}

/// All built-in schemas. They are parsed once: archives have many files to be recognised.
pub fn built_in() -> Result<&'static [Schema]> {
    static PARSED: OnceLock<Vec<Schema>> = OnceLock::new();
    if let Some(schemas) = PARSED.get() {
        return Ok(schemas);
    }
    let parse = |(name, text): &(&str, &str)| Schema::parse(text, name);
    let schemas = BUILT_IN.iter().map(parse).collect::<Result<Vec<_>>>()?;
    Ok(PARSED.get_or_init(|| schemas))
}

/// The factor between two units where it is a fact of nature, not of a camera.
fn known_conversion(from: &str, to: &str) -> Option<f64> {
    match (from, to) {
        (from, to) if from == to => Some(1.0),
        ("rad", "deg") => Some(180.0 / std::f64::consts::PI),
        ("GeV", "TeV") => Some(1e-3),
        ("MeV", "TeV") => Some(1e-6),
        ("eV", "TeV") => Some(1e-12),
        _ => None,
    }
}

/// A schema file as typed.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SchemaEntry {
    name: String,
    #[serde(default)]
    description: String,
    group: Option<String>,
    table: Option<String>,
    layout: Option<LayoutKind>,
    #[serde(default)]
    open: bool,
    format: Option<String>,
    version: Option<i64>,
    #[serde(default)]
    constants: BTreeMap<String, f64>,
    #[serde(default)]
    quantities: BTreeMap<String, QuantityEntry>,
    /// Units of columns that only stand in expressions.
    #[serde(default)]
    units: BTreeMap<String, String>,
    #[serde(default)]
    keys: KeysEntry,
    class: Option<ClassEntry>,
    #[serde(default)]
    compare: BTreeMap<String, CompareEntry>,
    #[serde(default)]
    plausible: BTreeMap<String, Plausible>,
    #[serde(default)]
    aliases: BTreeMap<String, String>,
    text: Option<Text>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CompareEntry {
    column: Option<String>,
    expression: Option<String>,
    unit: String,
    within: f64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Larger {
    than: f64,
    unit: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct QuantityEntry {
    column: Option<String>,
    expression: Option<String>,
    unit: String,
    factor: Option<Factor>,
    canonical: Option<String>,
    larger: Option<Larger>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Factor {
    Number(f64),
    Constant(String),
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct KeysEntry {
    #[serde(default)]
    copy: BTreeMap<String, String>,
    #[serde(default)]
    shower: Vec<String>,
    #[serde(default)]
    shower_else: Vec<String>,
    #[serde(default)]
    event: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ClassEntry {
    column: String,
    #[serde(default)]
    gamma: Vec<i64>,
    #[serde(default)]
    hadron: Vec<i64>,
}

impl SchemaEntry {
    fn resolve(self) -> Result<Schema> {
        if self.quantities.is_empty() && !self.open {
            return Err(Fault::new("a schema without quantities")
                .advice("add [quantities.NAME] tables, or open = true")
                .usage());
        }
        let place = match (self.group, self.table, &self.text) {
            (Some(place), None, None) | (None, Some(place), None) => {
                Some(place.trim_matches('/').to_string())
            }
            (None, None, Some(_)) => None,
            _ => {
                return Err(Fault::new("a schema without a place")
                    .expected("one of group (of one dataset per column), table or [text]")
                    .usage());
            }
        };
        let constants = &self.constants;
        let quantities = self
            .quantities
            .into_iter()
            .map(|(name, entry)| {
                let quantity = entry.resolve(&name, constants)?;
                Ok((name, quantity))
            })
            .collect::<Result<BTreeMap<_, _>>>()?;
        let shower = [self.keys.shower, self.keys.shower_else];
        let compare = self.compare.into_iter().map(|(name, entry)| {
            let CompareEntry { column, expression, unit, within } = entry;
            let entry = QuantityEntry {
                column,
                expression,
                unit,
                factor: None,
                canonical: None,
                larger: None,
            };
            let quantity = entry.resolve(&name, constants)?;
            Ok((name, Compare { quantity, within }))
        });
        let compare = compare.collect::<Result<BTreeMap<_, _>>>()?;
        self.plausible.iter().try_for_each(|(name, plausible)| check_plausible(name, plausible))?;
        Ok(Schema {
            name: self.name,
            description: self.description,
            place,
            layout: self.layout,
            units: self
                .units
                .iter()
                .map(|(name, unit)| (name.clone(), normal_unit(unit)))
                .collect(),
            open: self.open,
            format: self.format.map(|format| (format, self.version.unwrap_or(1))),
            quantities,
            copy: self.keys.copy,
            shower: shower.into_iter().filter(|columns| !columns.is_empty()).collect(),
            class: self.class.map(|entry| ClassColumn {
                column: entry.column,
                gamma: entry.gamma,
                hadron: entry.hadron,
            }),
            event: self.keys.event,
            compare,
            plausible: self.plausible,
            aliases: self.aliases,
            text: self.text,
        })
    }
}

impl QuantityEntry {
    fn resolve(self, name: &str, constants: &BTreeMap<String, f64>) -> Result<Quantity> {
        let source = match (self.column, self.expression) {
            (Some(column), None) => QuantitySource::Column(column),
            (None, Some(text)) => {
                QuantitySource::Expression(Expression::parse(&text)?.with_constants(constants))
            }
            _ => {
                return Err(quantity_fault(name, "needs a source")
                    .expected("either column or expression")
                    .usage());
            }
        };
        if source.columns().is_empty() {
            return Err(quantity_fault(name, "is computed from no column").usage());
        }
        let unit = normal_unit(&self.unit);
        let canonical = match (canonical_unit(name), self.canonical) {
            (Some(known), Some(given)) if normal_unit(&given) != known => {
                return Err(quantity_fault(name, "has another canonical unit")
                    .expected(known)
                    .found(given)
                    .usage());
            }
            (Some(known), _) => known.to_string(),
            (None, Some(given)) => normal_unit(&given),
            (None, None) => unit.clone(),
        };
        let scale = resolve_scale(name, self.factor, &unit, &canonical, constants)?;
        let larger = self.larger.map(|larger| {
            let unit = normal_unit(&larger.unit);
            resolve_scale(name, None, &unit, &canonical, constants)
                .map(|scale| (larger.than, scale))
        });
        Ok(Quantity { source, unit, canonical, scale, larger: larger.transpose()? })
    }
}

fn resolve_scale(
    name: &str,
    factor: Option<Factor>,
    unit: &str,
    canonical: &str,
    constants: &BTreeMap<String, f64>,
) -> Result<f64> {
    let scale = match factor {
        Some(Factor::Number(value)) => value,
        Some(Factor::Constant(constant)) => *constants.get(&constant).ok_or_else(|| {
            let known: Vec<&str> = constants.keys().map(String::as_str).collect();
            quantity_fault(name, "has an unknown factor")
                .found(format!("'{constant}'"))
                .advice(did_you_mean(&constant, &known))
                .usage()
        })?,
        None => known_conversion(unit, canonical).ok_or_else(|| {
            quantity_fault(name, &format!("cannot be converted from '{unit}' to '{canonical}'"))
                .advice("give a factor, such as the plate scale in deg per mm")
                .usage()
        })?,
    };
    if scale.is_finite() && scale != 0.0 {
        return Ok(scale);
    }
    Err(quantity_fault(name, "has an impossible factor").found(scale).usage())
}

/// Refuses ranges whose ends are exchanged or not numbers.
fn check_plausible(name: &str, plausible: &Plausible) -> Result<()> {
    let mut ranges = [plausible.range, plausible.median].into_iter().flatten();
    match ranges.find(|[low, high]| low.is_nan() || high.is_nan() || low > high) {
        None => Ok(()),
        Some(range) => Err(quantity_fault(name, "has an impossible plausible range")
            .expected("[lowest, highest]")
            .found(format!("{range:?}"))
            .usage()),
    }
}

fn quantity_fault(name: &str, what: &str) -> Fault {
    Fault::new(format!("quantity '{name}' {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> String {
        let error = Schema::parse(text, "own.toml").unwrap_err();
        assert_eq!(error.exit_code(), 2);
        error.to_string()
    }

    #[test]
    fn class_column_keeps_its_text_in_settings_hashes() {
        let class = ClassColumn { column: "kind".into(), gamma: vec![1], hadron: vec![0, 2] };
        let text = r#"Class { column: "kind", gamma: [1], hadron: [0, 2] }"#;
        assert_eq!(format!("{class:?}"), text);
    }

    #[test]
    fn built_in_schemas_parse_with_six_features() {
        let fact = Schema::by_name_or_path("fact").unwrap();
        for name in NEEDED {
            assert_eq!(fact.quantities[name].canonical, canonical_unit(name).unwrap());
        }
        assert!((fact.quantities["alpha"].scale - 57.295_779_513_082_32).abs() < 1e-12);
        assert_eq!(fact.quantities["dist"].source.columns().len(), 4);
        let own = Schema::by_name_or_path("taiga-events").unwrap();
        assert!(own.open);
        assert_eq!(own.format, Some((EVENT_FORMAT.to_string(), EVENT_VERSION)));
        assert_eq!(own.shower, [vec!["run_id", "event_id"], vec!["row_hash"]]);
    }

    #[test]
    fn misspelt_key_names_nearest_key_and_line() {
        let text =
            "name = \"x\"\ngroup = \"e\"\n[quantities.size]\ncolunm = \"s\"\nunit = \"p.e.\"\n";
        let text = refusal(text);
        assert!(text.contains("line 4") && text.contains("did you mean 'column'?"), "{text}");
        let text = refusal("nmae = \"x\"\ngroup = \"e\"\n");
        assert!(text.contains("did you mean 'name'?") && text.contains("own.toml"), "{text}");
    }

    #[test]
    fn a_quantity_that_cannot_be_had_is_refused() {
        let schema = |entry: &str| {
            let head = "name = \"x\"\ngroup = \"e\"\n[constants]\nscale = 0.1\n";
            refusal(&format!("{head}[quantities.width]\n{entry}"))
        };
        for (entry, part) in [
            ("unit = \"deg\"", "either column or expression"),
            ("column = \"a\"\nexpression = \"b\"\nunit = \"deg\"", "either column or expression"),
            ("column = \"a\"\nunit = \"mm\"", "from 'mm' to 'deg'"),
            ("column = \"a\"\nunit = \"mm\"\nfactor = \"scael\"", "did you mean 'scale'?"),
            ("column = \"a\"\nunit = \"mm\"\nfactor = 0", "impossible factor"),
            ("column = \"a\"\nunit = \"mm\"\nfactor = 2\ncanonical = \"mm\"", "expected deg"),
            ("expression = \"a +\"\nunit = \"deg\"", "found the end"),
            ("expression = \"2*scale\"\nunit = \"deg\"", "no column"),
        ] {
            let text = schema(entry);
            assert!(text.contains(part), "{entry}: {text}");
        }
        assert!(refusal("name = \"x\"\ngroup = \"e\"\n").contains("without quantities"));
    }

    #[test]
    fn schema_by_name_or_path_and_misspelt_name() {
        let text = Schema::by_name_or_path("fatc").unwrap_err().to_string();
        assert!(text.contains("did you mean 'fact'?"), "{text}");
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("own.toml");
        std::fs::write(&path, BUILT_IN[1].1).unwrap();
        assert_eq!(Schema::by_name_or_path(path.to_str().unwrap()).unwrap().name, "fact");
        assert_eq!(Schema::by_name_or_path("no/such.toml").unwrap_err().exit_code(), 2);
    }

    #[test]
    fn units_have_one_spelling() {
        assert_eq!(normal_unit(" Degrees"), "deg");
        assert_eq!(normal_unit("phe"), "p.e.");
        assert_eq!(normal_unit("TeV"), "TeV");
    }

    #[test]
    fn class_values_mean_what_the_schema_says() {
        let plain = ClassColumn { column: "class".into(), gamma: vec![], hadron: vec![] };
        assert_eq!([1, 0, -1, 2].map(|v| plain.meaning(v)), [Some(1), Some(0), Some(-1), None]);
        let corsika = ClassColumn { column: "id".into(), gamma: vec![1], hadron: vec![14, 402] };
        assert_eq!([1, 402, 3].map(|v| corsika.meaning(v)), [Some(1), Some(0), Some(-1)]);
    }
}
