//! What is in files, and what is wrong with each and with all of them together.
//!
//! Promises: one pass over the rows in blocks, and further ones over the keys alone; one
//! bad file does not stop the others; a file that should not be trained on is marked as
//! refused, with the reason and counts, and [`CheckReport::outcome`] is then an input error.
//! A quick check reads metadata only. How a report looks is `check::text`'s, what files
//! have to do with each other `check::set`'s.

mod keys;
mod set;
mod text;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;

use super::output::extraction::Extractions;
use super::roles;
use crate::config::Class;
use crate::data::files::list::{is_pattern, list_in, list_path};
use crate::data::schema::Schema;
use crate::data::schema::columns::CHUNK_ROWS;
use crate::data::schema::plausible;
use crate::data::schema::unix_time;
use crate::data::selection::Selection;
use crate::data::selection::cut_flow::CutFlow;
use crate::data::table::{Block, InputFile, Request, Table};
use crate::error::{Error, Fault, Result, path_text};
pub use set::SetFinding;
use set::SetMember;

/// The six features of the default model: what is wrong with one of them matters most.
const FEATURES: [&str; 6] = ["size", "length", "width", "dist", "alpha", "con2"];

/// Impossible values in more than this share of the rows mean wrong units or a wrong
/// column, not a few bad images.
const MOST_IMPOSSIBLE: f64 = 0.01;

/// A camera is about 10 deg across: a larger "deg" is a millimetre or a radian.
const CAMERA_DEG: f64 = 20.0;

/// What a quantity can be: above `low`, or equal to it if `from`; at most `high`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Limits {
    pub low: f64,
    pub from: bool,
    pub high: Option<f64>,
}

impl Limits {
    const fn from(low: f64, high: f64) -> Limits {
        Limits { low, from: true, high: Some(high) }
    }

    const fn above(low: f64, high: Option<f64>) -> Limits {
        Limits { low, from: false, high }
    }

    fn contain(self, value: f64) -> bool {
        let above = if self.from { value >= self.low } else { value > self.low };
        above && self.high.is_none_or(|high| value <= high)
    }
}

/// The physical limits of a quantity in its canonical unit.
pub fn physical_limits(quantity: &str) -> Option<Limits> {
    Some(match quantity {
        "size" => Limits::above(0.0, None),
        // 10⁶ TeV is above what any shower has: GeV or eV instead of TeV.
        "energy" => Limits::above(0.0, Some(1e6)),
        "length" | "width" | "dist" | "dist_center" | "dist_anti" => Limits::from(0.0, CAMERA_DEG),
        "alpha" | "alpha_anti" | "zenith" => Limits::from(0.0, 90.0),
        "con1" | "con2" | "con3" => Limits::above(0.0, Some(1.0)),
        "leakage" | "leakage1" | "leakage2" => Limits::from(0.0, 1.0),
        _ => return None,
    })
}

/// Quantities of which the first can never exceed the second.
const ORDERED: [(&str, &str); 3] = [("width", "length"), ("con1", "con2"), ("con2", "con3")];

/// Angles of a whole table that stay below π/2 are in radians, if there are so many.
const RADIAN_ROWS: u64 = 100;

/// What to check, and how thoroughly.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Files, folders, patterns or lists.
    pub files: Vec<PathBuf>,
    pub gamma: Vec<PathBuf>,
    pub hadron: Vec<PathBuf>,
    /// Experimental files that hadrons are taken from, whatever they say of their class.
    pub off: Vec<PathBuf>,
    /// Files that synthetic anomalies are drawn from; their keys may be those of gammas.
    pub anomalies: Vec<PathBuf>,
    pub schema: Option<String>,
    /// Features, cuts and other quantities of a configuration: a file without one of them is
    /// refused. Without it, classes are compared by the features of the default model.
    pub selection: Option<Selection>,
    /// Metadata alone: no rows, keys or contents.
    pub quick: bool,
}

/// What was found in all files, in the order given, and in the set of them.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CheckReport {
    pub files: Vec<FileReport>,
    pub set: Vec<SetFinding>,
    /// Of all files that can be read.
    pub rows: u64,
    pub bytes: u64,
    /// Why a training of these files would be refused, where that was looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub training: Option<String>,
    /// What the cuts of a configuration remove, where there is one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cuts: Vec<CutFlow>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FileReport {
    #[serde(serialize_with = "as_text")]
    pub path: PathBuf,
    /// The class that it was given as.
    pub role: Option<Class>,
    /// Absent if the file could not be read.
    pub contents: Option<FileContents>,
    /// Why training would refuse the file; empty if it would not.
    pub refused: Vec<String>,
    pub warnings: Vec<String>,
}

/// Paths that are not UTF-8 are escaped.
fn as_text<S: serde::Serializer>(
    path: &Path,
    serializer: S,
) -> std::result::Result<S::Ok, S::Error> {
    serializer.serialize_str(&path_text(path))
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FileContents {
    pub schema: String,
    pub rows: u64,
    pub bytes: u64,
    pub columns: Vec<ColumnReport>,
    pub keys: Vec<String>,
    /// Columns that name the shower of an event; a split is made by them.
    pub shower: Vec<String>,
    pub classes: Option<Classes>,
}

/// One quantity over all rows; minimum, mean and maximum are those of its finite values.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ColumnReport {
    pub name: String,
    pub unit: String,
    pub min: Option<f64>,
    pub mean: Option<f64>,
    pub max: Option<f64>,
    pub nan: u64,
    pub infinite: u64,
    /// Finite, but physically impossible.
    pub impossible: u64,
    pub constant: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Classes {
    pub gamma: u64,
    pub hadron: u64,
    pub unknown: u64,
}

impl CheckReport {
    /// An input error if one of the files should not be trained on.
    pub fn outcome(&self) -> Result<()> {
        let refused =
            |file: &&FileReport| !file.refused.is_empty() || set::refuses(&self.set, &file.path);
        let refused = self.files.iter().filter(refused);
        let names: Vec<String> = refused.map(|file| path_text(&file.path)).collect();
        if let (true, Some(reason)) = (names.is_empty(), &self.training) {
            return Err(Fault::new("training would refuse these files").found(reason).input());
        }
        if names.is_empty() {
            return Ok(());
        }
        let more = if names.len() > 3 { ", …" } else { "" };
        let shown: Vec<&str> = names.iter().map(String::as_str).take(3).collect();
        Err(Fault::new(format!("{} of {} file(s) cannot be used", names.len(), self.files.len()))
            .found(format!("{}{more}", shown.join(", ")))
            .advice("the report lists the reasons for each")
            .input())
    }
}

/// Numbers of roles: experimental files, and those of anomalies.
const OFF: usize = 3;
const ANOMALIES: usize = 4;
/// Quantities that training computes for experimental files.
const OFF_SOURCE: [&str; 3] = ["dist", "alpha", "theta2"];

/// Checks files through the schema of that name or path, or each through the one that
/// fits it.
pub fn run(options: &Options) -> Result<CheckReport> {
    let roles = [
        (&options.files, None),
        (&options.gamma, Some(Class::Gamma)),
        (&options.hadron, Some(Class::Hadron)),
        (&options.off, Some(Class::Hadron)),
        (&options.anomalies, None),
    ];
    let mut files = Vec::new();
    for (number, (paths, role)) in roles.into_iter().enumerate() {
        for path in paths {
            files.extend(expand(path)?.into_iter().map(|path| (path, role, number)));
        }
    }
    if files.is_empty() {
        return Err(Fault::new("no file to check").expected("one or more files").usage());
    }
    let schema = Schema::of_option(options.schema.as_deref())?;
    let mut checked = Vec::with_capacity(files.len());
    for (path, role, number) in &files {
        checked.push(check_file(path, *role, *number == OFF, schema.as_ref(), options));
    }
    let extractions = Extractions::of(files.iter().map(|(path, ..)| path.as_path()))?;
    for (path, error) in extractions.unlisted() {
        let of_file = checked.iter_mut().filter(|checked| checked.report.path == path);
        of_file.for_each(|checked| checked.report.refused.push(error.to_string()));
    }
    let given: Vec<PathBuf> = [&options.files, &options.gamma, &options.hadron, &options.off]
        .into_iter()
        .flatten()
        .cloned()
        .collect();
    extractions.warn_of_absent(&given);
    drop(extractions);
    let members: Vec<SetMember> = checked
        .iter()
        .zip(&files)
        .filter(|(_, (.., number))| *number != ANOMALIES)
        .map(|(checked, _)| SetMember {
            report: &checked.report,
            role: checked.report.role,
            table: checked.table.clone(),
            sources: checked.sources,
        })
        .collect();
    let mut set = set::findings(&members, !options.quick);
    if !options.quick {
        let simulated = members.iter().zip(&files);
        let simulated = simulated.filter(|(_, (.., number))| *number != OFF);
        let simulated: Vec<&SetMember> = simulated.map(|(member, _)| member).collect();
        set.extend(set::of_classes(&simulated, options.selection.as_ref())?);
    }
    drop(members);
    let files: Vec<FileReport> = checked.into_iter().map(|checked| checked.report).collect();
    let contents = || files.iter().filter_map(|file| file.contents.as_ref());
    let rows = contents().map(|contents| contents.rows).sum();
    let bytes = contents().map(|contents| contents.bytes).sum();
    Ok(CheckReport { files, set, rows, bytes, training: None, cuts: Vec::new() })
}

/// What a path stands for; what is wrong with a file itself is for its report.
fn expand(path: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let missing = std::fs::metadata(path).is_err();
    if missing && list_in(path).is_none() && !is_pattern(path) {
        return Ok(vec![path.to_path_buf()]);
    }
    list_path(path, &mut files)?;
    Ok(files)
}

/// A file's report, and what the set of files needs of it.
struct Checked {
    report: FileReport,
    table: Option<Table>,
    sources: SourceOffsets,
}

fn check_file(
    path: &Path,
    role: Option<Class>,
    off: bool,
    schema: Option<&Arc<Schema>>,
    options: &Options,
) -> Checked {
    let path = path.to_path_buf();
    match examine(&path, schema, options.quick) {
        Ok((contents, mut file, counts)) => {
            let mut report = FileReport {
                refused: Vec::new(),
                warnings: missing(&contents, role),
                path,
                role,
                contents: None,
            };
            let computed = |name: &&String| !(off && OFF_SOURCE.contains(&name.as_str()));
            let needed = options.selection.iter().flat_map(Selection::quantities);
            for name in needed.filter(computed) {
                let request = Request { quantities: vec![name.clone()], ..Request::default() };
                report.refused.extend(file.reader(&request).err().map(|e| without_file(&e)));
            }
            if contents.rows == 0 || counts.has_no_image() {
                report.add(role.is_some(), empty(contents.rows));
            } else if !options.quick {
                for (column, tally) in contents.columns.iter().zip(&counts.tallies) {
                    report.check_column(column, contents.rows);
                    report.add_findings(&column.name, &tally.plausible);
                }
            }
            for pair in &counts.disorder {
                report.check_order(pair, contents.rows);
            }
            for difference in &counts.differences {
                report.check_difference(difference, contents.rows);
            }
            report.check_times(&counts.times, contents.rows);
            if !off {
                report.check_role(&contents);
            }
            report.contents = Some(contents);
            Checked { report, table: Some(file.into_table()), sources: counts.sources }
        }
        Err(error) => {
            let refused = vec![without_file(&error)];
            let report = FileReport { path, role, contents: None, refused, warnings: vec![] };
            Checked { report, table: None, sources: SourceOffsets::default() }
        }
    }
}

/// What is wrong, without the name of the file, which stands beside it.
fn without_file(error: &Error) -> String {
    let mut fault = error.fault().cloned().unwrap_or_else(|| Fault::new(error.to_string()));
    fault.file = None;
    fault.to_string()
}

/// One pass over a file, or only its metadata.
fn examine(
    path: &Path,
    schema: Option<&Arc<Schema>>,
    quick: bool,
) -> Result<(FileContents, InputFile, FileCheck)> {
    let mut file = InputFile::open(path, schema)?;
    let table = file.table();
    let owned = |names: Vec<&str>| names.into_iter().map(str::to_string).collect::<Vec<_>>();
    let quantities = owned(table.quantities());
    let keys = owned(table.key_names());
    let request = Request { quantities, keys, shower: true, class: true };
    let mut counts = FileCheck::new(table, &request);
    if quick {
        file.reader(&request)?;
    } else {
        counts.read(&mut file, &request)?;
    }
    let table = file.table();
    let columns = request.quantities.iter().zip(&counts.tallies).map(|(name, tally)| {
        let unit = table.unit(name).unwrap_or_default();
        tally.column(name, unit.to_string())
    });
    let contents = FileContents {
        schema: table.schema().name.clone(),
        rows: table.rows(),
        bytes: file.stamp().length(),
        columns: columns.collect(),
        keys: request.keys.clone(),
        shower: table.shower_columns(),
        classes: (table.has_class() && !quick).then_some(counts.classes),
    };
    Ok((contents, file, counts))
}

/// Distances of the assumed source from the camera's centre [deg].
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct SourceOffsets {
    rows: u64,
    sum: f64,
    squares: f64,
}

impl SourceOffsets {
    fn add(&mut self, x: f32, y: f32) {
        let square = f64::from(x) * f64::from(x) + f64::from(y) * f64::from(y);
        if square.is_finite() {
            self.rows += 1;
            self.sum += square.sqrt();
            self.squares += square;
        }
    }

    fn merge(&mut self, other: &SourceOffsets) {
        self.rows += other.rows;
        self.sum += other.sum;
        self.squares += other.squares;
    }

    fn mean_and_spread(&self) -> Option<(f64, f64)> {
        let mean = self.sum / self.rows as f64;
        let square = (self.squares / self.rows as f64 - mean * mean).max(0.0);
        (self.rows > 0).then(|| (mean, square.sqrt()))
    }
}

/// What is counted on the way through the rows of a file.
struct FileCheck {
    tallies: Vec<ColumnTally>, // (quantities)
    disorder: Vec<Disorder>,
    differences: Vec<Difference>,
    classes: Classes,
    sources: SourceOffsets,
    source: Option<[usize; 2]>, // quantities of the source's position
    times: Times,
}

/// Times that are not plausible.
#[derive(Default)]
struct Times {
    key: Option<usize>, // in the request
    rows: u64,          // seen
    implausible: u64,
    /// Row and value of the first.
    first: Option<(u64, i64)>,
}

impl Times {
    fn add(&mut self, block: &Block) {
        let Some(times) = self.key.map(|key| &block.keys[key]) else { return };
        for (row, time) in times.iter().enumerate().filter(|(_, t)| !unix_time::is_plausible(**t)) {
            self.implausible += 1;
            self.first.get_or_insert((self.rows + row as u64, *time));
        }
        self.rows += block.rows as u64;
    }
}

impl FileCheck {
    fn new(table: &Table, request: &Request) -> FileCheck {
        let index = |name: &str| request.quantities.iter().position(|known| known == name);
        let in_degrees =
            ["source_x", "source_y"].iter().all(|name| table.unit(name) == Some("deg"));
        let source = index("source_x").zip(index("source_y")).filter(|_| in_degrees);
        FileCheck {
            tallies: request.quantities.iter().map(|name| ColumnTally::new(table, name)).collect(),
            disorder: ordered_pairs(&request.quantities),
            differences: Vec::new(),
            classes: Classes::default(),
            sources: SourceOffsets::default(),
            source: source.map(|(x, y)| [x, y]),
            times: Times {
                key: request.keys.iter().position(|key| key == unix_time::COLUMN),
                ..Times::default()
            },
        }
    }

    fn read(&mut self, file: &mut InputFile, request: &Request) -> Result<()> {
        let mut reader = file.reader(request)?;
        let rows_of_file = file.rows();
        let second = file.table().second_ways();
        let second = second.as_ref().map(|(table, within)| {
            let quantities: Vec<String> = within.keys().cloned().collect();
            self.differences = Difference::all(within, request);
            file.reader_of(table, &Request { quantities, ..Request::default() })
        });
        let mut second = second.transpose()?;
        let (mut block, mut other) = (Block::default(), Block::default());
        for first in (0..rows_of_file).step_by(CHUNK_ROWS) {
            let rows = first..rows_of_file.min(first + CHUNK_ROWS as u64);
            reader.read(rows.clone(), &mut block)?;
            self.add(&block);
            if let Some(second) = &mut second {
                second.read(rows, &mut other)?;
                for (slot, difference) in self.differences.iter_mut().enumerate() {
                    difference.add(&block.quantities[difference.quantity], &other.quantities[slot]);
                }
            }
        }
        Ok(())
    }

    /// Whether no row has an image that survived its cleaning: no light, and no parameters.
    fn has_no_image(&self) -> bool {
        let rows = |tally: &ColumnTally| tally.finite + tally.nan + tally.infinite;
        let of = |name: &str| self.tallies.iter().find(|tally| tally.name == name);
        let is_dark = |tally: &ColumnTally| tally.max <= 0.0 && tally.infinite == 0;
        let is_nan = |tally: &ColumnTally| rows(tally) > 0 && tally.nan == rows(tally);
        of("size").is_some_and(is_dark)
            && ["length", "width"].iter().all(|n| of(n).is_some_and(is_nan))
    }

    fn add(&mut self, block: &Block) {
        for (tally, values) in self.tallies.iter_mut().zip(&block.quantities) {
            tally.add(values);
        }
        for pair in &mut self.disorder {
            pair.add(block);
        }
        if let Some([x, y]) = self.source {
            let pairs = block.quantities[x].iter().zip(&block.quantities[y]);
            pairs.for_each(|(x, y)| self.sources.add(*x, *y));
        }
        self.classes.add(block.class.as_deref().unwrap_or_default());
        self.times.add(block);
    }
}

/// Rows in which a quantity differs from what other columns give for it.
struct Difference {
    name: String,
    quantity: usize, // in the request
    within: f64,
    rows: u64,
}

impl Difference {
    fn all(within: &std::collections::BTreeMap<String, f64>, request: &Request) -> Vec<Difference> {
        let one = |(name, within): (&String, &f64)| {
            let quantity = request.quantities.iter().position(|known| known == name)?;
            Some(Difference { name: name.clone(), quantity, within: *within, rows: 0 })
        };
        within.iter().filter_map(one).collect()
    }

    fn add(&mut self, values: &[f32], others: &[f32]) {
        let differ = |(a, b): (&f32, &f32)| f64::from((a - b).abs()) > self.within;
        self.rows += values.iter().zip(others).filter(|pair| differ(*pair)).count() as u64;
    }
}

impl Classes {
    fn add(&mut self, values: &[i8]) {
        for value in values {
            match value {
                1 => self.gamma += 1,
                0 => self.hadron += 1,
                _ => self.unknown += 1,
            }
        }
    }
}

/// What is counted of one column on the way through its rows.
struct ColumnTally {
    name: String,
    plausible: plausible::ValueTally,
    limits: Option<Limits>,
    finite: u64,
    sum: f64,
    min: f64,
    max: f64,
    nan: u64,
    infinite: u64,
    impossible: u64,
}

impl ColumnTally {
    fn new(table: &Table, name: &str) -> ColumnTally {
        let unit = table.unit(name).unwrap_or_default();
        ColumnTally {
            name: name.to_string(),
            plausible: plausible::ValueTally::new(table.schema().plausible.get(name), name, unit),
            limits: physical_limits(name),
            finite: 0,
            sum: 0.0,
            min: f64::INFINITY,
            max: f64::NEG_INFINITY,
            nan: 0,
            infinite: 0,
            impossible: 0,
        }
    }

    fn add(&mut self, values: &[f32]) {
        self.plausible.add(values);
        for value in values.iter().map(|value| f64::from(*value)) {
            if value.is_nan() {
                self.nan += 1;
                continue;
            }
            if value.is_infinite() {
                self.infinite += 1;
                continue;
            }
            self.finite += 1;
            self.sum += value;
            self.min = self.min.min(value);
            self.max = self.max.max(value);
            self.impossible += u64::from(self.limits.is_some_and(|limits| !limits.contain(value)));
        }
    }

    fn column(&self, name: &str, unit: String) -> ColumnReport {
        let known = |value: f64| (self.finite > 0).then_some(value);
        ColumnReport {
            name: name.to_string(),
            unit,
            min: known(self.min),
            mean: known(self.sum / self.finite as f64),
            max: known(self.max),
            nan: self.nan,
            infinite: self.infinite,
            impossible: self.impossible,
            constant: self.finite > 0 && self.min >= self.max,
        }
    }
}

/// Rows in which a quantity exceeds one that it cannot exceed.
pub(crate) struct Disorder {
    smaller: usize, // index of the quantity in the request
    larger: usize,
    pub(crate) names: (&'static str, &'static str),
    pub(crate) rows: u64,
}

impl Disorder {
    pub(crate) fn add(&mut self, block: &Block) {
        let pairs = block.quantities[self.smaller].iter().zip(&block.quantities[self.larger]);
        self.rows += pairs.filter(|(smaller, larger)| smaller > larger).count() as u64;
    }
}

pub(crate) fn ordered_pairs(names: &[String]) -> Vec<Disorder> {
    let index = |wanted: &str| names.iter().position(|name| name == wanted);
    let pair = |names: &(&'static str, &'static str)| {
        let (smaller, larger) = (index(names.0)?, index(names.1)?);
        Some(Disorder { smaller, larger, names: *names, rows: 0 })
    };
    ORDERED.iter().filter_map(pair).collect()
}

fn missing(contents: &FileContents, role: Option<Class>) -> Vec<String> {
    let has = |name: &&str| contents.columns.iter().any(|column| column.name == **name);
    let absent: Vec<&str> = FEATURES.into_iter().filter(|name| !has(name)).collect();
    let mut warnings = Vec::new();
    if !absent.is_empty() {
        warnings.push(format!("features of the default model not there: {}", absent.join(", ")));
    }
    if contents.shower.is_empty() {
        warnings.push("no shower key: a split goes by the content of the rows".to_string());
    }
    match contents.classes {
        None if role.is_none() => {
            warnings.push("no class: the file's role must be given".to_string());
        }
        Some(classes) if classes.unknown > 0 => {
            warnings.push(match role {
                Some(role) => roles::unlabelled(classes.unknown, contents.rows, role),
                None => format!("{} rows of unknown class", classes.unknown),
            });
        }
        _ => {}
    }
    warnings
}

impl FileReport {
    /// What is wrong with one column. NaN is allowed (an image on a line has no slope):
    /// such rows are flagged, never used.
    fn check_column(&mut self, column: &ColumnReport, rows: u64) {
        let ColumnReport { name, nan, infinite, impossible, .. } = column;
        let is_feature = FEATURES.contains(&name.as_str());
        let bad = infinite + impossible;
        if is_feature && *nan == rows {
            return self.refused.push(format!("'{name}' is NaN in every row"));
        }
        if is_feature && column.constant {
            return self.refused.push(format!("'{name}' is the same in every row"));
        }
        let highest = column.max.unwrap_or(f64::NAN);
        if name == "alpha" && rows >= RADIAN_ROWS && highest <= std::f64::consts::FRAC_PI_2 {
            let text = format!("'alpha' never exceeds {highest:.4}: radians, not degrees");
            return self.refused.push(text);
        }
        if bad > 0 {
            self.add(is_feature && too_many(bad, rows), describe(column, rows));
        }
        if *nan > 0 && is_feature {
            self.warnings.push(format!("'{name}' is NaN in {} rows", share(*nan, rows)));
        }
    }

    /// Values that no telescope has. Features that are wrong as a whole, or in more than 1 %
    /// of the rows, refuse the file; all else is a warning.
    fn add_findings(&mut self, name: &str, tally: &plausible::ValueTally) {
        let is_feature = FEATURES.contains(&name);
        for finding in tally.findings() {
            self.add(finding.severe || is_feature, finding.line(name));
        }
    }

    fn check_order(&mut self, pair: &Disorder, rows: u64) {
        if pair.rows == 0 {
            return;
        }
        let (smaller, larger) = pair.names;
        let text = format!("'{smaller}' exceeds '{larger}' in {} rows", share(pair.rows, rows));
        self.add(FEATURES.contains(&smaller) && too_many(pair.rows, rows), text);
    }

    fn check_difference(&mut self, difference: &Difference, rows: u64) {
        let Difference { name, within, rows: bad, .. } = difference;
        if *bad > 0 {
            let text = format!(
                "'{name}' differs from what centroid, axis and source give by more than {within} in {} rows",
                share(*bad, rows)
            );
            self.add(too_many(*bad, rows), text);
        }
    }

    /// Times in another unit than ns, or of no telescope's life.
    fn check_times(&mut self, times: &Times, rows: u64) {
        let Some((row, time)) = times.first else { return };
        let text = format!(
            "'{}' is outside of 2000 to 2100 in {} rows: {} in row {row}; TAIGA writes ns since 1970",
            unix_time::COLUMN,
            share(times.implausible, rows),
            unix_time::describe(time)
        );
        self.add(too_many(times.implausible, rows), text);
    }

    /// A file of one class that holds the other.
    fn check_role(&mut self, contents: &FileContents) {
        let (Some(role), Some(counts)) = (self.role, contents.classes) else { return };
        let (other, count) = match role {
            Class::Gamma => (Class::Hadron, counts.hadron),
            Class::Hadron => (Class::Gamma, counts.gamma),
        };
        let wholly = count == contents.rows;
        if count > 0 {
            let rows = share(count, contents.rows);
            let mut text = format!("given as {role}s, but {rows} rows are {other}s");
            if wholly {
                text += ": the files are swapped";
            }
            self.add(wholly, text);
        }
    }

    fn add(&mut self, refused: bool, text: String) {
        let list = if refused { &mut self.refused } else { &mut self.warnings };
        list.push(text);
    }
}

/// A file that is fine, and that no training can use.
fn empty(rows: u64) -> String {
    match rows {
        0 => "the table is empty: training refuses it".to_string(),
        _ => "no image survived the cleaning: no row can be trained on".to_string(),
    }
}

fn too_many(bad: u64, rows: u64) -> bool {
    bad as f64 > MOST_IMPOSSIBLE * rows as f64
}

fn share(count: u64, rows: u64) -> String {
    format!("{count} of {rows}")
}

fn describe(column: &ColumnReport, rows: u64) -> String {
    let bad = share(column.infinite + column.impossible, rows);
    let possible = match physical_limits(&column.name) {
        Some(Limits { low, high: Some(high), .. }) => format!("{low} to {high}"),
        Some(Limits { low, high: None, .. }) => format!("above {low}"),
        None => "finite".to_string(),
    };
    let unit = if column.unit == "1" { String::new() } else { format!(" {}", column.unit) };
    format!("'{}' is not {possible}{unit} in {bad} rows", column.name)
}

#[cfg(test)]
mod tests;
