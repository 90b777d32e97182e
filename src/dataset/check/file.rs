//! Checks one file: its columns, values, classes and times.

use super::limits::{Limits, physical_limits};
use super::report::{ColumnReport, FileContents, FileReport};
use super::tally::{Difference, Disorder, FileCheck, SourceOffsets, Times};
use super::{FEATURES, Options};
use crate::config::Class;
use crate::data::schema::{Schema, plausible, unix_time};
use crate::data::selection::Selection;
use crate::data::table::{InputFile, Request, Table};
use crate::dataset::roles;
use crate::error::{Error, Fault, Result};
use std::path::Path;
use std::sync::Arc;

/// Quantities that training computes for experimental files.
const OFF_SOURCE: [&str; 3] = ["dist", "alpha", "theta2"];
/// Impossible values in more than this share of the rows mean wrong units or a wrong
/// column, not a few bad images.
const MOST_IMPOSSIBLE: f64 = 0.01;

/// Angles of a whole table that stay below π/2 are in radians, if there are so many.
const RADIAN_ROWS: u64 = 100;

/// The report of a file, with the values that the checks of the set of files need.
pub(crate) struct Checked {
    pub report: FileReport,
    pub table: Option<Table>,
    pub sources: SourceOffsets,
}

/// Checks one file; `off` is whether hadrons are taken from it off a source.
pub(crate) fn check_file(
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

/// Returns the text of an error without the name of the file, which the report contains.
fn without_file(error: &Error) -> String {
    let mut fault = error.fault().cloned().unwrap_or_else(|| Fault::new(error.to_string()));
    fault.file = None;
    fault.to_string()
}

/// Reads a file in one pass, or only its metadata if `quick`.
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

/// Returns warnings of features, keys and classes that a file lacks.
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
    /// Adds the findings on one column. NaN is allowed, because an image on a line has no slope:
    /// such rows get a status and are not used.
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

    /// Adds implausible values. A feature that is wrong as a whole, or in more than 1 % of the
    /// rows, refuses the file; all other findings are warnings.
    fn add_findings(&mut self, name: &str, tally: &plausible::ValueTally) {
        let is_feature = FEATURES.contains(&name);
        for finding in tally.findings() {
            self.add(finding.severe || is_feature, finding.line(name));
        }
    }

    /// Adds rows with quantities in the wrong order.
    fn check_order(&mut self, pair: &Disorder, rows: u64) {
        if pair.rows == 0 {
            return;
        }
        let (smaller, larger) = pair.names;
        let text = format!("'{smaller}' exceeds '{larger}' in {} rows", share(pair.rows, rows));
        self.add(FEATURES.contains(&smaller) && too_many(pair.rows, rows), text);
    }

    /// Adds rows in which a quantity contradicts other columns.
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

    /// Adds times that are not in ns, or not plausible.
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

    /// Adds rows whose class differs from the class of the file.
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

/// Returns the finding on a valid file without usable rows.
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
