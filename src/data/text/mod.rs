//! Reads text tables through a schema with a `[text]` section.
//!
//! - A line that does not match the schema is an error with its number and column. No line is
//!   skipped, and no value is guessed.
//! - Memory is bounded by one block of rows and one line, and a line by [`lines::MAX_LINE_BYTES`].
//! - All bytes are hashed during reading, so that a change of the file is detected.
//!
//! `convert` handles files and outputs.

pub mod convert;
pub(super) mod lines;
mod number;
mod plan;
pub(crate) mod writer;

use super::schema::{self, Schema};
use crate::config::Class;
use crate::error::{Error, Fault, Result, did_you_mean};
use lines::TextLines;
use plan::TextPlan;
use std::collections::BTreeMap;
use std::path::Path;

pub(crate) use plan::hash as key_of_bytes;

/// Result of parsing one line or field; the caller adds file and line to the fault.
type Parsed<T> = Result<T, Box<Fault>>;

/// Rows per block, few enough that their numbers stay in the private cache of a core.
const BLOCK_ROWS: usize = 512;

/// Returns the schema of a text table by name or path.
///
/// # Errors
/// `Usage` for an unknown name, or a schema without [text].
pub(crate) fn dialect(name: &str) -> Result<Schema> {
    let texts = text_schemas()?;
    let names: Vec<&str> = texts.iter().map(|schema| schema.name.as_str()).collect();
    let is_path = name.contains(['/', '.']);
    if let (false, Some(schema)) = (is_path, texts.iter().find(|schema| schema.name == name)) {
        return Ok((*schema).clone());
    }
    if !is_path {
        let fault = Fault::new("unknown dialect").found(name).advice(did_you_mean(name, &names));
        return Err(fault.usage());
    }
    let schema = Schema::by_name_or_path(name)?;
    if schema.text.is_none() {
        return Err(Fault::new("schema without a [text] section").file(name).usage());
    }
    Ok(schema)
}

/// Returns the built-in schemas of text tables.
fn text_schemas() -> Result<Vec<&'static Schema>> {
    Ok(schema::built_in()?.iter().filter(|schema| schema.text.is_some()).collect())
}

/// Returns the dialect of a file, from its first line.
///
/// # Errors
/// `Input` if no dialect fits. A line with the right number of columns and an invalid value is
/// reported with that value.
pub fn detect(path: &Path) -> Result<Schema> {
    let mut lines = TextLines::open(path)?;
    let Some(first) = lines.advance()? else { return Err(no_rows(path)) };
    let first = first.to_vec();
    let schemas = text_schemas()?;
    let mut invalid_value = None;
    for schema in &schemas {
        let Some(text) = &schema.text else { continue };
        match TextPlan::bind(schema, text, &first, None) {
            Ok(_) if text.header => return Ok((*schema).clone()),
            Ok(mut plan) => match plan.accepts(&first) {
                Ok(()) => return Ok((*schema).clone()),
                Err(fault) => invalid_value = Some(fault.file(path).row(lines.number).input()),
            },
            Err(_) => {}
        }
    }
    Err(invalid_value.unwrap_or_else(|| unknown_table(path, &first, &schemas)))
}

/// Returns the error of an empty table.
pub(crate) fn no_rows(path: &Path) -> Error {
    Fault::new("the table has no rows").file(path).input()
}

/// Returns the error of a table that no dialect fits, with its first line.
fn unknown_table(path: &Path, first: &[u8], schemas: &[&Schema]) -> Error {
    let text = String::from_utf8_lossy(first);
    let shown: String = text.chars().take(80).collect();
    let more = if shown.len() < text.len() { "…" } else { "" };
    let columns = text.split(',').count();
    let fault = Fault::new("unknown dialect of a text table")
        .file(path)
        .row(1)
        .found(format!("{columns} columns: '{shown}{more}'"));
    if is_image_header(first) {
        let advice = "convert cleaned TAIGA images to tables with `taiga-flow extract`";
        return fault.advice(advice).input();
    }
    let (mut known, mut near) = (Vec::new(), None);
    let header: Vec<&str> = text.split(',').map(str::trim).collect();
    for schema in schemas {
        known.push(format!("{} ({})", schema.name, schema.description));
        let missing: Vec<&str> =
            schema.text_columns().into_iter().filter(|name| !header.contains(name)).collect();
        if !missing.is_empty() && missing.len() <= 3 {
            let names = missing.join(", ");
            let question = did_you_mean(missing[0], &header);
            near = Some(format!("dialect '{}' needs also {names}: {question}", schema.name));
        }
    }
    let known = format!("known dialects: {}", known.join("; "));
    fault.advice(near.unwrap_or(known)).input()
}

/// Returns whether a line is the header of a cleaned image: at least five numbers, separated by
/// blanks.
fn is_image_header(line: &[u8]) -> bool {
    let text = String::from_utf8_lossy(line);
    let words: Vec<&str> = text.split_whitespace().collect();
    !line.contains(&b',')
        && words.len() >= 5
        && words.iter().all(|word| word.parse::<f64>().is_ok())
}

/// Columns of a block of rows: quantities in the order of the outputs, keys in that of their
/// names.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ParsedColumns {
    pub rows: usize,
    pub values: Vec<Vec<f32>>, // (outputs, rows)
    pub keys: Vec<Vec<i64>>,   // (keys, rows)
    pub class: Vec<i8>,        // (rows)
}

/// Half the field of view of TAIGA-IACT, 9.6 deg: the largest distance of an observed source
/// from the camera centre [deg].
pub(crate) const FIELD_RADIUS_DEG: f64 = 4.8;

/// New source positions for simulated hadrons, whose own source position would distinguish them
/// from gammas. The distance from the camera centre is given, and the azimuth is drawn from the
/// seed and the keys of the row. Rows with class gamma keep their source.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Placement {
    pub offset_deg: f64,
    pub seed: u64,
}

impl Placement {
    /// Checks that the source is in the camera and that the particles are hadrons.
    ///
    /// # Errors
    /// `Usage` if the offset is outside the camera, or if neither `class` nor a class column
    /// of the table identifies hadrons.
    pub(crate) fn check(&self, class: Option<Class>, has_class_column: bool) -> Result<()> {
        if !(0.0..=FIELD_RADIUS_DEG).contains(&self.offset_deg) {
            return Err(Fault::new("source offset outside the camera")
                .expected(format!("0 to {FIELD_RADIUS_DEG} deg, half the field of view"))
                .found(format!("--source-offset {}", self.offset_deg))
                .advice("give the distance of the gamma source from the camera centre, such as 1.2")
                .usage());
        }
        let found = match class {
            Some(Class::Hadron) => return Ok(()),
            None if has_class_column => return Ok(()),
            Some(Class::Gamma) => "--class gamma",
            None => "no --class, and no class column in the table",
        };
        Err(Fault::new("--source-offset is for simulated hadrons")
            .expected("--class hadron, or a table with a class column")
            .found(found)
            .advice(
                "it replaces the source position, which is the true one for gammas: omit it for them",
            )
            .usage())
    }
}

/// Reader of the rows of one file.
#[derive(Debug)]
pub struct TextRows {
    lines: TextLines,
    plan: TextPlan,
    /// The first line, if it is a row and not a header.
    first: Option<Vec<u8>>,
    count: u64,
}

impl TextRows {
    /// Opens a table; `hash` is the hash of its content, from which keys are computed.
    ///
    /// # Errors
    /// `Input` if the columns do not match the schema; `Usage` for a schema without [text] or
    /// without the source position that `placement` replaces.
    pub fn open(
        path: &Path,
        schema: &Schema,
        hash: [u8; 32],
        placement: Option<Placement>,
    ) -> Result<TextRows> {
        TextRows::new(path, schema, hash, placement, || TextLines::open(path))
    }

    /// Reads the rows of an open file, as [`TextRows::open`] does.
    ///
    /// # Errors
    /// As [`TextRows::open`].
    pub(crate) fn of_file(
        path: &Path,
        schema: &Schema,
        (hash, file): ([u8; 32], std::fs::File),
        placement: Option<Placement>,
    ) -> Result<TextRows> {
        TextRows::new(path, schema, hash, placement, || Ok(TextLines::new(path, file)))
    }

    /// Binds the schema to the first line.
    fn new(
        path: &Path,
        schema: &Schema,
        hash: [u8; 32],
        placement: Option<Placement>,
        lines: impl FnOnce() -> Result<TextLines>,
    ) -> Result<TextRows> {
        let Some(text) = &schema.text else {
            return Err(Fault::new("not a schema of text tables").found(&schema.name).usage());
        };
        let mut lines = lines()?;
        let Some(first) = lines.advance()? else { return Err(no_rows(path)) };
        let first = first.to_vec();
        let mut plan = TextPlan::bind(schema, text, &first, Some(hash))
            .map_err(|fault| lines.place(*fault))?;
        if let Some(placement) = placement {
            plan.place_source(schema, placement).map_err(|fault| fault.usage())?;
        }
        Ok(TextRows { lines, plan, first: (!text.header).then_some(first), count: 0 })
    }

    /// Adds a key `run` with the same value in all rows.
    #[must_use]
    pub(crate) fn with_run(mut self, run: i64) -> TextRows {
        self.plan.set_run(run);
        self
    }

    /// Returns names and units of the quantities.
    pub(crate) fn outputs(&self) -> Vec<(String, String)> {
        let name_and_unit = |output: &plan::OutputQuantity| {
            (output.name.clone(), output.quantity.canonical.clone())
        };
        self.plan.outputs.iter().map(name_and_unit).collect()
    }

    /// Replaces the content of `columns` by the next rows, at most [`BLOCK_ROWS`]. Returns false
    /// at the end of the file.
    ///
    /// # Errors
    /// `Input` with line and column of an invalid value.
    pub fn read(&mut self, columns: &mut ParsedColumns) -> Result<bool> {
        self.plan.begin(columns);
        while columns.rows < BLOCK_ROWS {
            let outcome = if let Some(first) = self.first.take() {
                self.plan.parse(&first, columns)
            } else {
                match self.lines.advance()? {
                    None => break,
                    Some(line) => self.plan.parse(line, columns),
                }
            };
            if let Err(fault) = outcome {
                return Err(self.counted(*fault, columns.rows as u64));
            }
        }
        self.plan.finish(columns);
        self.count += columns.rows as u64;
        Ok(columns.rows > 0)
    }

    /// Adds file and line to a fault of the last row. For a value out of range, it adds the
    /// number of rows with such a value; `valid` rows of the block precede the fault.
    fn counted(&mut self, fault: Fault, valid: u64) -> Error {
        if fault.what != plan::OUT_OF_RANGE {
            return self.lines.place(fault);
        }
        let first = self.lines.number;
        let (mut all, mut bad) = (self.count + valid + 1, 1_u64);
        // A failed read ends the count: the first fault is the one to report.
        while let Ok(Some(line)) = self.lines.advance() {
            all += 1;
            let same = |of: &Fault| of.what == fault.what && of.column == fault.column;
            bad += u64::from(self.plan.accepts(line).is_err_and(|of| same(&of)));
        }
        self.lines.number = first;
        let found = fault.found.clone().unwrap_or_default();
        self.lines.place(fault.found(format!("{found}, and such values in {bad} of {all} rows")))
    }

    /// Returns, by quantity, the number of rows in which it differs from the value in the file
    /// and the allowed difference, and the number of rows read.
    pub(crate) fn differences(&self) -> (BTreeMap<&str, (u64, f64)>, u64) {
        let comparisons = self.plan.comparisons.iter();
        (comparisons.map(|c| (c.first.name.as_str(), (c.rows, c.within))).collect(), self.count)
    }

    /// Returns the blake3 hash of the bytes read; of the whole file after `read` returned false.
    pub(crate) fn source_hash(&self) -> blake3::Hash {
        self.lines.hash()
    }
}

#[cfg(test)]
mod tests;
