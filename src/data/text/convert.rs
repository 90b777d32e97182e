//! Converts text tables to one event file.
//!
//! - The output has the rows of the inputs, in their order.
//! - Equal inputs give identical bytes.
//! - One invalid row makes the whole conversion fail, and no output remains.
//! - Implausible values are an error or a warning (`plausible`).
//! - Rows of an earlier table are an error if they are many, else a warning (`repeats`).
//! - Memory is bounded by one chunk of rows and the keys of `repeats`.

mod repeats;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::config::Class;
use crate::data::files::output_kind::OutputKind;
use crate::data::files::protected::ProtectedInputs;
use crate::data::files::stamp::{hash_and_rewind, same_content};
use crate::data::schema::columns::{ColumnSpec, ColumnType, ColumnValues, ColumnWriter};
use crate::data::schema::plausible::ValueTally;
use crate::data::schema::unix_time;
use crate::data::schema::{Schema, Text};
use crate::data::table::events::{self, MOST_REPEATED};
use crate::data::text::{self, ParsedColumns, Placement, TextRows};
use crate::error::{Fault, Result};
use crate::hillas::MOST_DIFFERENT;
use repeats::RepeatedRows;

/// Options of a conversion.
#[derive(Debug, Clone)]
pub struct Options {
    /// Tables of one dialect, in the order of their rows in the output.
    pub inputs: Vec<PathBuf>,
    pub output: PathBuf,
    /// Name of the dialect, or path of its schema; detected from the first input if absent.
    pub dialect: Option<String>,
    /// Class of all rows, for tables without a class column.
    pub class: Option<Class>,
    /// New source positions for hadrons.
    pub placement: Option<Placement>,
    pub overwrite: bool,
}

/// Result of a conversion.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    pub output: PathBuf,
    pub dialect: String,
    pub files: usize,
    pub rows: u64,
    pub gammas: u64,
    pub hadrons: u64,
    /// Possible faults of the inputs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {} rows ({}) from {} file(s) of the dialect {}",
            self.output.display(),
            self.rows,
            match self.gammas + self.hadrons {
                0 => "of unknown class".to_string(),
                _ => format!("{} gammas, {} hadrons", self.gammas, self.hadrons),
            },
            self.files,
            self.dialect
        )
    }
}

/// Converts all inputs into one output file.
///
/// # Errors
/// `Usage` for options that do not fit the tables or an existing output; `Input` for an invalid
/// row, implausible values, two inputs with the same content or with many equal rows. There is then
/// no output.
pub fn run(options: &Options) -> Result<Summary> {
    OutputKind::Conversion.refuse_existing(&options.output, options.overwrite)?;
    let first = distinct_inputs(options)?;
    let named = options.dialect.as_deref().map(Path::new);
    let inputs = options.inputs.iter().map(PathBuf::as_path).chain(named);
    ProtectedInputs::new(inputs).refuse(&options.output)?;
    let schema = match &options.dialect {
        Some(name) => text::dialect(name)?,
        None => text::detect(first)?,
    };
    let Some(text) = &schema.text else {
        return Err(Fault::new("not a dialect of text tables").found(&schema.name).usage());
    };
    if let (Some(_), Some(own)) = (options.class, &text.class) {
        return Err(Fault::new("`--class` is for tables without a class column")
            .found(format!("column '{}' of the dialect {}", own.column, schema.name))
            .advice("omit --class")
            .usage());
    }
    if let Some(placement) = options.placement {
        placement.check(options.class, text.class.is_some())?;
    }
    let mut job = Conversion::start(options, &schema, text, first)?;
    if options.class == Some(Class::Gamma) && is_observed(&schema, text) {
        job.warn(format!(
            "{}: observed events are labelled as gammas: the dialect {} is that of an experiment, and most of its events are hadrons; give --class hadron for background, or no class",
            first.display(),
            schema.name
        ));
    }
    let mut hashes = Vec::with_capacity(options.inputs.len());
    for input in &options.inputs {
        hashes.push(blake3::Hash::from_bytes(job.copy_rows(input)?).to_hex().to_string());
    }
    let summary = job.summary(options.inputs.len());
    let mut origin = vec![("dialect", schema.name.as_str())];
    let hashes = source_text(&hashes);
    origin.push(("source_blake3", &hashes));
    let placed = options.placement.map(|p| format!("{} deg, seed {}", p.offset_deg, p.seed));
    origin.extend(placed.as_deref().map(|text| ("source_placed_at", text)));
    let rows = job.finish(&origin)?;
    Ok(Summary { rows, ..summary })
}

/// Returns whether tables of a dialect contain observed events: they have a run in their names,
/// or times.
fn is_observed(schema: &Schema, text: &Text) -> bool {
    text.run_of_name || schema.copy.contains_key(unix_time::COLUMN)
}

/// Returns the hashes of the inputs, or the hash of their list if it is too long for an attribute.
fn source_text(hashes: &[String]) -> String {
    let list = hashes.join(" ");
    if hashes.len() <= 60 {
        return list;
    }
    format!("{} inputs, blake3 of their list {}", hashes.len(), blake3::hash(list.as_bytes()))
}

/// Returns the first input, after a check that no input is given twice or is the output.
fn distinct_inputs(options: &Options) -> Result<&Path> {
    let Some(first) = options.inputs.first() else {
        return Err(Fault::new("no table to convert").expected("one or more input files").usage());
    };
    let place = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
    let mut seen = std::collections::HashSet::from([place(&options.output)]);
    for input in &options.inputs {
        if !seen.insert(place(input)) {
            return Err(Fault::new("input is given twice, or is also the output")
                .file(input)
                .advice("give each input once, and a different output: rows would be duplicated, or lost")
                .usage());
        }
    }
    Ok(first)
}

/// State of a conversion.
struct Conversion<'a> {
    options: &'a Options,
    schema: &'a Schema,
    writer: ColumnWriter,
    outputs: Vec<(String, String)>, // names and units
    warnings: Vec<String>,
    given: Option<i8>, // class of all rows, from the options
    has_class: bool,
    has_run: bool, // a key `run`
    gammas: u64,   // of all rows so far
    hadrons: u64,
    repeats: RepeatedRows,
    known: BTreeMap<[u8; 32], &'a Path>, // tables with rows so far, by the hash of their content
}

impl<'a> Conversion<'a> {
    /// Opens the first input for its columns and creates the output.
    fn start(
        options: &'a Options,
        schema: &'a Schema,
        text: &Text,
        first: &Path,
    ) -> Result<Conversion<'a>> {
        let outputs = TextRows::open(first, schema, [0; 32], options.placement)?.outputs();
        let has_class = text.class.is_some() || options.class.is_some();
        let has_run = text.run_of_name && run_of_name(first).is_some();
        let columns = columns(schema, text, &outputs, has_class, has_run);
        let writer =
            ColumnWriter::create(&options.output, events::GROUP, &columns, options.overwrite)?;
        let given = options.class.map(Class::code);
        Ok(Conversion {
            options,
            schema,
            writer,
            outputs,
            warnings: Vec::new(),
            given,
            has_class,
            has_run,
            gammas: 0,
            hadrons: 0,
            repeats: RepeatedRows::new(&key_names(schema, text, has_run)),
            known: BTreeMap::new(),
        })
    }

    /// Logs a warning and adds it to the summary.
    fn warn(&mut self, text: String) {
        log::warn!("{text}");
        self.warnings.push(text);
    }

    /// Appends the rows of one table and returns the hash of its content.
    ///
    /// # Errors
    /// `Input` for an invalid row, implausible values, or a copy of an earlier table.
    fn copy_rows(&mut self, input: &'a Path) -> Result<[u8; 32]> {
        let (before, file) = hash_and_rewind(input)?;
        if let Some(other) = self.known.get(&before) {
            return Err(same_content(input, other));
        }
        let placement = self.options.placement;
        let mut rows = TextRows::of_file(input, self.schema, (before, file), placement)?;
        if self.has_run {
            let run = run_of_name(input).ok_or_else(|| {
                Fault::new("no run in the name, unlike the name of the first table")
                    .file(input)
                    .expected("DDMMYY.RR at the start of the name of the file or its folder")
                    .advice("convert tables with and without a run in their names separately")
                    .input()
            })?;
            rows = rows.with_run(run);
        }
        let tally = |(name, unit): &(String, String)| {
            ValueTally::new(self.schema.plausible.get(name), name, unit)
        };
        let mut tallies: Vec<ValueTally> = self.outputs.iter().map(tally).collect();
        let mut columns = ParsedColumns::default();
        let mut count = 0u64;
        while rows.read(&mut columns)? {
            count += columns.rows as u64;
            tallies.iter_mut().zip(&columns.values).for_each(|(tally, x)| tally.add(x));
            self.repeats.add(&columns.keys, columns.rows);
            self.append(&mut columns)?;
        }
        if count == 0 {
            self.warn(format!("{}: the table has no rows", input.display()));
        } else {
            self.known.insert(before, input);
        }
        if *rows.source_hash().as_bytes() != before {
            return Err(Fault::new("the file changed while it was read")
                .file(input)
                .advice("wait until its writer has finished")
                .input());
        }
        refuse_different(input, &rows)?;
        self.check_repeats(input)?;
        self.check_tallies(input, &tallies)?;
        Ok(before)
    }

    /// Ends a table: refuses it if many of its rows are in an earlier table, and warns of few.
    fn check_repeats(&mut self, input: &Path) -> Result<()> {
        let counts = self.repeats.finish_table();
        if counts.repeated == 0 {
            return Ok(());
        }
        let found = format!(
            "{:.2} % of its rows have the {} of a row in {}",
            100.0 * counts.share(),
            self.repeats.names(),
            self.options.inputs[counts.first_table].display()
        );
        if counts.share() <= MOST_REPEATED {
            self.warn(format!("{}: {found}: copies?", input.display()));
            return Ok(());
        }
        Err(Fault::new("rows of an earlier table")
            .file(input)
            .expected(format!("at most {} % of equal rows", 100.0 * MOST_REPEATED))
            .found(found)
            .advice("give each table once, and remove rows that are in two tables")
            .input())
    }

    /// Returns an error for a quantity that is wrong as a whole, and warns about other findings.
    fn check_tallies(&mut self, input: &Path, tallies: &[ValueTally]) -> Result<()> {
        let mut texts = Vec::new();
        for ((name, _), tally) in self.outputs.iter().zip(tallies) {
            for finding in tally.findings() {
                if finding.severe {
                    return Err(Fault::new("values that no Cherenkov camera records")
                        .file(input)
                        .column(name)
                        .expected(finding.expected)
                        .found(finding.found)
                        .advice(format!("{}, and give it as --dialect", finding.advice))
                        .input());
                }
                texts.push(format!("{}: {}", input.display(), finding.line(name)));
            }
        }
        texts.into_iter().for_each(|text| self.warn(text));
        Ok(())
    }

    /// Appends a block of rows to the output and counts the classes.
    fn append(&mut self, columns: &mut ParsedColumns) -> Result<()> {
        if let Some(class) = self.given {
            columns.class.fill(class);
        }
        let count = |class: i8| columns.class.iter().filter(|other| **other == class).count();
        self.gammas += count(events::GAMMA) as u64;
        self.hadrons += count(events::HADRON) as u64;
        let mut values: Vec<ColumnValues> =
            columns.keys.iter().map(|key| ColumnValues::I64(key)).collect();
        values.extend(columns.values.iter().map(|feature| ColumnValues::F32(feature)));
        if self.has_class {
            values.push(ColumnValues::I8(&columns.class));
        }
        self.writer.append(&values)
    }

    /// Returns the summary, without the number of rows.
    fn summary(&self, files: usize) -> Summary {
        Summary {
            output: self.options.output.clone(),
            dialect: self.schema.name.clone(),
            files,
            rows: 0,
            gammas: self.gammas,
            hadrons: self.hadrons,
            warnings: self.warnings.clone(),
        }
    }

    /// Completes the output and returns its number of rows.
    fn finish(self, origin: &[(&str, &str)]) -> Result<u64> {
        self.writer.finish(&events::attributes(origin))
    }
}

/// Returns date and number of the run at the start of the name of a table or of its folder:
/// `DDMMYY.RR` gives YYYYMMDDRRR. It is the same for all telescopes and portions of a run.
pub(crate) fn run_of_name(path: &Path) -> Option<i64> {
    let folder = path.parent().and_then(Path::file_name);
    path.file_name().into_iter().chain(folder).find_map(|name| run_of(name.to_str()?))
}

/// Returns the run at the start of a name.
fn run_of(name: &str) -> Option<i64> {
    let (date, rest) = name.split_once('.')?;
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    let ends = rest.as_bytes().get(digits).is_none_or(|next| !next.is_ascii_alphanumeric());
    if date.len() != 6
        || !date.bytes().all(|b| b.is_ascii_digit())
        || !(1..=3).contains(&digits)
        || !ends
    {
        return None;
    }
    let number = |text: &str| text.parse::<i64>().ok();
    let (day, month, year) = (number(&date[..2])?, number(&date[2..4])?, number(&date[4..])?);
    let run = number(&rest[..digits])?;
    let possible = (1..=31).contains(&day) && (1..=12).contains(&month);
    possible.then_some((((2000 + year) * 100 + month) * 100 + day) * 1000 + run)
}

/// Checks that the values of a table agree with those computed from its other columns. Too many
/// differences are due to wrong units, a wrong axis or a wrong sign.
fn refuse_different(input: &Path, rows: &TextRows) -> Result<()> {
    let (differences, all) = rows.differences();
    for (name, (count, within)) in differences {
        if count as f64 > MOST_DIFFERENT * all as f64 {
            return Err(Fault::new(format!("'{name}' contradicts the other columns"))
                .file(input)
                .expected(format!("differences above {within} in at most 1 % of the rows"))
                .found(format!("{count} of {all} rows"))
                .advice("units, axis or sign differ from the schema: correct a copy of it, and give that as --dialect")
                .input());
        }
    }
    Ok(())
}

/// Returns the columns of the output: keys, quantities, class.
fn columns(
    schema: &Schema,
    text: &Text,
    outputs: &[(String, String)],
    has_class: bool,
    has_run: bool,
) -> Vec<ColumnSpec> {
    let keys = key_names(schema, text, has_run);
    let keys = keys.into_iter().map(|name| ColumnSpec::new(name, ColumnType::I64, None));
    let features =
        outputs.iter().map(|(name, unit)| ColumnSpec::new(name, ColumnType::F32, Some(unit)));
    let class = has_class.then(|| ColumnSpec::new("class", ColumnType::I8, None));
    keys.chain(features).chain(class).collect()
}

/// Returns the names of the keys of the output, in the order of its columns.
fn key_names(schema: &Schema, text: &Text, has_run: bool) -> Vec<String> {
    let own = [("row_hash", text.row_hash), ("run_id", text.run.is_some()), ("run", has_run)];
    let own = own.into_iter().filter(|(_, is_there)| *is_there).map(|(name, _)| name.to_string());
    own.chain(schema.copy.keys().cloned()).collect()
}

#[cfg(test)]
mod tests;
