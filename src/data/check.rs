//! What is in a file, and what is wrong with it.
//!
//! Promises: one pass over the data in blocks of rows; one bad file does not stop the
//! others; a file that training would refuse is marked as refused, with the reason, and
//! [`Report::outcome`] is then an input error. How a report looks is `check::text`'s.

mod text;

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::catalog::list_files;
use super::columns::CHUNK_ROWS;
use super::schema::Schema;
use super::table::{Block, Request, Table};
use crate::error::{Fault, Result};

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
        "size" | "energy" => Limits::above(0.0, None),
        "length" | "width" | "dist" | "dist_center" | "dist_anti" => Limits::from(0.0, CAMERA_DEG),
        "alpha" | "alpha_anti" | "zenith" => Limits::from(0.0, 90.0),
        "con1" | "con2" | "con3" => Limits::above(0.0, Some(1.0)),
        "leakage" | "leakage1" | "leakage2" => Limits::from(0.0, 1.0),
        _ => return None,
    })
}

/// Quantities of which the first can never exceed the second.
const ORDERED: [(&str, &str); 3] = [("width", "length"), ("con1", "con2"), ("con2", "con3")];

/// What was found in all files, in the order given.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    pub files: Vec<FileReport>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FileReport {
    pub path: PathBuf,
    /// Absent if the file could not be read.
    pub contents: Option<Contents>,
    /// Why training would refuse the file; empty if it would not.
    pub refused: Vec<String>,
    pub warnings: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Contents {
    pub schema: String,
    pub rows: u64,
    pub bytes: u64,
    pub columns: Vec<Column>,
    pub keys: Vec<String>,
    /// Columns that name the shower of an event; a split is made by them.
    pub shower: Vec<String>,
    pub classes: Option<Classes>,
}

/// One quantity over all rows; minimum, mean and maximum are those of its finite values.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Column {
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

impl Report {
    /// An input error if training would refuse one of the files.
    pub fn outcome(&self) -> Result<()> {
        let refused = self.files.iter().filter(|file| !file.refused.is_empty());
        let names: Vec<String> = refused.map(|file| file.path.display().to_string()).collect();
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

/// Checks files through the schema of that name or path, or each through the one that
/// fits it.
pub fn run(files: &[PathBuf], schema: Option<&str>) -> Result<Report> {
    if files.is_empty() {
        return Err(Fault::new("no file to check").expected("one or more files").usage());
    }
    let schema = schema.map(Schema::by_name_or_path).transpose()?;
    let files = files.iter().map(|path| expand(path)).collect::<Result<Vec<_>>>()?.concat();
    Ok(Report { files: files.iter().map(|path| file_report(path, schema.as_ref())).collect() })
}

/// A folder stands for the HDF5 files in it; what is wrong with a file is for its report.
fn expand(path: &Path) -> Result<Vec<PathBuf>> {
    if path.is_dir() { list_files(&[path.to_path_buf()]) } else { Ok(vec![path.to_path_buf()]) }
}

fn file_report(path: &Path, schema: Option<&Schema>) -> FileReport {
    let path = path.to_path_buf();
    match examine(&path, schema) {
        Ok((contents, disorder)) => {
            let mut report = FileReport {
                refused: Vec::new(),
                warnings: missing(&contents),
                path,
                contents: None,
            };
            for column in &contents.columns {
                report.judge(column, contents.rows);
            }
            for pair in &disorder {
                report.judge_order(pair, contents.rows);
            }
            report.contents = Some(contents);
            report
        }
        Err(error) => {
            let mut fault = error.fault().cloned().unwrap_or_else(|| Fault::new(error.to_string()));
            fault.file = None; // it stands beside the reason
            FileReport { path, contents: None, refused: vec![fault.to_string()], warnings: vec![] }
        }
    }
}

/// One pass over a file.
fn examine(path: &Path, schema: Option<&Schema>) -> Result<(Contents, Vec<Disorder>)> {
    let schema = match schema {
        Some(schema) => schema.clone(),
        None => Schema::detect(path)?,
    };
    let table = Table::open(path, &schema)?;
    let owned = |names: Vec<&str>| names.into_iter().map(str::to_string).collect::<Vec<_>>();
    let quantities = owned(table.quantities());
    let keys = owned(table.key_names());
    let request = Request { quantities, keys, shower: true, class: true };
    let counts = Counts::of(&table, &request)?;
    let columns = request.quantities.iter().zip(&counts.tallies).map(|(name, tally)| {
        let unit = table.unit(name).unwrap_or_default();
        tally.column(name, unit.to_string())
    });
    let contents = Contents {
        schema: schema.name.clone(),
        rows: table.rows(),
        bytes: std::fs::metadata(path).map_or(0, |data| data.len()),
        columns: columns.collect(),
        keys: request.keys.clone(),
        shower: table.shower_columns(),
        classes: table.has_class().then_some(counts.classes),
    };
    Ok((contents, counts.disorder))
}

/// What is counted on the way through the rows of a file.
struct Counts {
    tallies: Vec<Tally>, // (quantities)
    disorder: Vec<Disorder>,
    classes: Classes,
}

impl Counts {
    fn of(table: &Table, request: &Request) -> Result<Counts> {
        let mut counts = Counts {
            tallies: request.quantities.iter().map(|name| Tally::new(name)).collect(),
            disorder: ordered_pairs(&request.quantities),
            classes: Classes::default(),
        };
        let reader = table.reader(request)?;
        let mut block = Block::default();
        for first in (0..table.rows()).step_by(CHUNK_ROWS) {
            reader.read(first..table.rows().min(first + CHUNK_ROWS as u64), &mut block)?;
            counts.add(&block);
        }
        Ok(counts)
    }

    fn add(&mut self, block: &Block) {
        for (tally, values) in self.tallies.iter_mut().zip(&block.quantities) {
            tally.add(values);
        }
        for pair in &mut self.disorder {
            pair.add(block);
        }
        self.classes.add(block.class.as_deref().unwrap_or_default());
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
struct Tally {
    limits: Option<Limits>,
    finite: u64,
    sum: f64,
    min: f64,
    max: f64,
    nan: u64,
    infinite: u64,
    impossible: u64,
}

impl Tally {
    fn new(name: &str) -> Tally {
        Tally {
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

    fn column(&self, name: &str, unit: String) -> Column {
        let known = |value: f64| (self.finite > 0).then_some(value);
        Column {
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
struct Disorder {
    smaller: usize, // index of the quantity in the request
    larger: usize,
    names: (&'static str, &'static str),
    rows: u64,
}

impl Disorder {
    fn add(&mut self, block: &Block) {
        let pairs = block.quantities[self.smaller].iter().zip(&block.quantities[self.larger]);
        self.rows += pairs.filter(|(smaller, larger)| smaller > larger).count() as u64;
    }
}

fn ordered_pairs(names: &[String]) -> Vec<Disorder> {
    let index = |wanted: &str| names.iter().position(|name| name == wanted);
    let pair = |names: &(&'static str, &'static str)| {
        let (smaller, larger) = (index(names.0)?, index(names.1)?);
        Some(Disorder { smaller, larger, names: *names, rows: 0 })
    };
    ORDERED.iter().filter_map(pair).collect()
}

fn missing(contents: &Contents) -> Vec<String> {
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
        None => warnings.push("no class: the file's role must be given".to_string()),
        Some(classes) if classes.unknown > 0 => {
            warnings.push(format!("{} rows of unknown class", classes.unknown));
        }
        Some(_) => {}
    }
    warnings
}

impl FileReport {
    /// What is wrong with one column. NaN is allowed (an image on a line has no slope):
    /// such rows are flagged, never used.
    fn judge(&mut self, column: &Column, rows: u64) {
        let Column { name, nan, infinite, impossible, .. } = column;
        let is_feature = FEATURES.contains(&name.as_str());
        let bad = infinite + impossible;
        if is_feature && *nan == rows {
            return self.refused.push(format!("'{name}' is NaN in every row"));
        }
        if is_feature && column.constant {
            return self.refused.push(format!("'{name}' is the same in every row"));
        }
        if bad > 0 {
            self.add(is_feature && too_many(bad, rows), describe(column, rows));
        }
        if *nan > 0 && is_feature {
            self.warnings.push(format!("'{name}' is NaN in {} rows", share(*nan, rows)));
        }
    }

    fn judge_order(&mut self, pair: &Disorder, rows: u64) {
        if pair.rows == 0 {
            return;
        }
        let (smaller, larger) = pair.names;
        let text = format!("'{smaller}' exceeds '{larger}' in {} rows", share(pair.rows, rows));
        self.add(FEATURES.contains(&smaller) && too_many(pair.rows, rows), text);
    }

    fn add(&mut self, refused: bool, text: String) {
        let list = if refused { &mut self.refused } else { &mut self.warnings };
        list.push(text);
    }
}

fn too_many(bad: u64, rows: u64) -> bool {
    bad as f64 > MOST_IMPOSSIBLE * rows as f64
}

fn share(count: u64, rows: u64) -> String {
    format!("{count} of {rows}")
}

fn describe(column: &Column, rows: u64) -> String {
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
