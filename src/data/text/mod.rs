//! Text tables: strict reading of their lines through a schema with a `[text]` part.
//!
//! Promises: a line that does not fit is an error with its number and column; nothing is
//! skipped, nothing guessed. Memory is bounded by one line, and a line by
//! [`MAX_LINE_BYTES`]. The bytes are hashed on the way, so that a file that changes while
//! it is read is noticed. Lines are split and decimal numbers read here rather than by a
//! general crate, because these two are most of the time of a conversion. Left to
//! `convert`: files and outputs.

pub mod convert;
mod lines;
mod number;
mod plan;
pub mod writer;

use super::schema::{self, Schema};
use crate::config::Class;
use crate::error::{Error, Fault, Result, did_you_mean};
use lines::TextLines;
use plan::TextPlan;
use std::collections::BTreeMap;
use std::path::Path;

pub use lines::MAX_LINE_BYTES;
pub use plan::hash as key_of_bytes;

/// The outcome of reading one line or field; the fault lacks its file and line.
type Parsed<T> = Result<T, Box<Fault>>;

/// Rows that are made into columns at a time: their numbers stay in a core's own cache.
const BLOCK_ROWS: usize = 512;

/// The schema of that name or path, if it is one of text tables.
pub fn dialect(name: &str) -> Result<Schema> {
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
        return Err(Fault::new("a schema without a [text] part").file(name).usage());
    }
    Ok(schema)
}

fn text_schemas() -> Result<Vec<&'static Schema>> {
    Ok(schema::built_in()?.iter().filter(|schema| schema.text.is_some()).collect())
}

/// The dialect that the first lines of a file fit; a row of the right number of columns
/// with a wrong value is told as such.
pub fn detect(path: &Path) -> Result<Schema> {
    let mut lines = TextLines::open(path)?;
    let Some(first) = lines.advance()? else { return Err(no_rows(path)) };
    let first = first.to_vec();
    let mut complaint = None;
    for schema in text_schemas()? {
        let Some(text) = &schema.text else { continue };
        match TextPlan::bind(schema, text, &first, None) {
            Ok(_) if text.header => return Ok(schema.clone()),
            Ok(mut plan) => match plan.accepts(&first) {
                Ok(()) => return Ok(schema.clone()),
                Err(fault) => complaint = Some(fault.file(path).row(lines.number).input()),
            },
            Err(_) => {}
        }
    }
    Err(complaint.unwrap_or_else(|| unknown_table(path, &first)))
}

pub fn no_rows(path: &Path) -> Error {
    Fault::new("the table has no rows").file(path).input()
}

fn unknown_table(path: &Path, first: &[u8]) -> Error {
    let text = String::from_utf8_lossy(first);
    let shown: String = text.chars().take(80).collect();
    let more = if shown.len() < text.len() { "…" } else { "" };
    let columns = text.split(',').count();
    let fault = Fault::new("this table is of no known dialect")
        .file(path)
        .row(1)
        .found(format!("{columns} columns: '{shown}{more}'"));
    if is_image_header(first) {
        let advice = "cleaned images of TAIGA are turned into tables with `taiga-flow extract`";
        return fault.advice(advice).input();
    }
    let (mut known, mut near) = (Vec::new(), None);
    let header: Vec<&str> = text.split(',').map(str::trim).collect();
    for schema in text_schemas().unwrap_or_default() {
        known.push(format!("{} ({})", schema.name, schema.description));
        let missing: Vec<&str> =
            schema.text_columns().into_iter().filter(|name| !header.contains(name)).collect();
        if !missing.is_empty() && missing.len() <= 3 {
            let lacking = format!("for '{}' it lacks {}", schema.name, missing.join(", "));
            near = Some(format!("{lacking}: {}", did_you_mean(missing[0], &header)));
        }
    }
    let known = format!("known dialects: {}", known.join("; "));
    fault.advice(near.unwrap_or(known)).input()
}

/// Whether a line is the first of a cleaned image: numbers, with blanks between them.
fn is_image_header(line: &[u8]) -> bool {
    let text = String::from_utf8_lossy(line);
    let words: Vec<&str> = text.split_whitespace().collect();
    !line.contains(&b',')
        && words.len() >= 5
        && words.iter().all(|word| word.parse::<f64>().is_ok())
}

/// What lines say: quantities in the order of the outputs, keys in that of their names.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ParsedColumns {
    pub rows: usize,
    pub values: Vec<Vec<f32>>, // (outputs, rows)
    pub keys: Vec<Vec<i64>>,   // (keys, rows)
    pub class: Vec<i8>,        // (rows)
}

/// Half the field of view of TAIGA-IACT, 9.6 deg: no observed source lies farther from the
/// camera's centre [deg].
pub const FIELD_RADIUS_DEG: f64 = 4.8;

/// Places the source anew, as for simulated hadrons, whose own source position would tell
/// them from gammas: at this distance from the camera's centre, at an azimuth drawn from
/// the seed and the shower's key. Rows that a class column says are gammas keep their source.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Placement {
    pub offset_deg: f64,
    pub seed: u64,
}

impl Placement {
    /// Refuses a source outside the camera, and one for particles that are not hadrons.
    ///
    /// # Errors
    /// A usage error where the offset is not within the camera, or where neither the table nor
    /// the user says that there are hadrons.
    pub fn check(&self, class: Option<Class>, table_tells_class: bool) -> Result<()> {
        if !(0.0..=FIELD_RADIUS_DEG).contains(&self.offset_deg) {
            return Err(Fault::new("a source offset outside the camera")
                .expected(format!("0 to {FIELD_RADIUS_DEG} deg, half the field of view"))
                .found(format!("--source-offset {}", self.offset_deg))
                .advice(
                    "give the distance of the gammas' source from the camera's centre, such as 1.2",
                )
                .usage());
        }
        let found = match class {
            Some(Class::Hadron) => return Ok(()),
            None if table_tells_class => return Ok(()),
            Some(Class::Gamma) => "--class gamma",
            None => "no --class, and no class column in the table",
        };
        Err(Fault::new("--source-offset is for simulated hadrons")
            .expected("--class hadron, or a table with a class column")
            .found(found)
            .advice(
                "it replaces the source position, which is true for gammas: leave it out for them",
            )
            .usage())
    }
}

/// The rows of one file, one after the other.
#[derive(Debug)]
pub struct TextRows {
    lines: TextLines,
    plan: TextPlan,
    /// The first line, where it is a row.
    first: Option<Vec<u8>>,
    count: u64,
}

impl TextRows {
    /// Opens a file; `hash` is the hash of its content, of which keys are made.
    pub fn open(
        path: &Path,
        schema: &Schema,
        hash: [u8; 32],
        placement: Option<Placement>,
    ) -> Result<TextRows> {
        TextRows::new(path, schema, hash, placement, || TextLines::open(path))
    }

    /// Reads the rows of an open file, as [`TextRows::open`] does.
    pub fn of_file(
        path: &Path,
        schema: &Schema,
        (hash, file): ([u8; 32], std::fs::File),
        placement: Option<Placement>,
    ) -> Result<TextRows> {
        TextRows::new(path, schema, hash, placement, || Ok(TextLines::new(path, file)))
    }

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

    /// With a key `run` that is the same for all rows.
    #[must_use]
    pub fn with_run(mut self, run: i64) -> TextRows {
        self.plan.set_run(run);
        self
    }

    /// Names and units of the values of a row.
    pub fn outputs(&self) -> Vec<(String, String)> {
        let name_and_unit = |output: &plan::OutputQuantity| {
            (output.name.clone(), output.quantity.canonical.clone())
        };
        self.plan.outputs.iter().map(name_and_unit).collect()
    }

    /// Reads the next rows, at most [`BLOCK_ROWS`], in place of what `columns` holds; false
    /// at the end of the file.
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

    /// Adds file and line to a fault of the last row, and in how many rows its column is out of
    /// range, if that is the fault; so many rows of the block were good.
    fn counted(&mut self, fault: Fault, good: u64) -> Error {
        if fault.what != plan::OUT_OF_RANGE {
            return self.lines.place(fault);
        }
        let first = self.lines.number;
        let (mut all, mut bad) = (self.count + good + 1, 1_u64);
        // What cannot be read further on is left to the next attempt.
        while let Ok(Some(line)) = self.lines.advance() {
            all += 1;
            let same = |of: &Fault| of.what == fault.what && of.column == fault.column;
            bad += u64::from(self.plan.accepts(line).is_err_and(|of| same(&of)));
        }
        self.lines.number = first;
        let found = fault.found.clone().unwrap_or_default();
        self.lines.place(fault.found(format!("{found}, and such values in {bad} of {all} rows")))
    }

    /// Rows in which a quantity differs from what the file itself says, and the rows read.
    pub fn differences(&self) -> (BTreeMap<&str, (u64, f64)>, u64) {
        let comparisons = self.plan.comparisons.iter();
        (comparisons.map(|c| (c.first.name.as_str(), (c.rows, c.within))).collect(), self.count)
    }

    /// blake3 of the bytes read; of the whole file once `read` has said false.
    pub fn source_hash(&self) -> blake3::Hash {
        self.lines.hash()
    }
}

#[cfg(test)]
mod tests;
