//! Text tables: strict reading of their lines through a schema with a `[text]` part.
//!
//! Promises: a line that does not fit is an error with its number and column; nothing is
//! skipped, nothing guessed. Memory is bounded by one line, and a line by
//! [`MAX_LINE_BYTES`]. The bytes are hashed on the way, so that a file that changes while
//! it is read is noticed. Lines are split and decimal numbers read here rather than by a
//! general crate, because these two are most of the time of a conversion. Left to
//! `convert`: files and outputs.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};

use super::events::{GAMMA, HADRON, UNKNOWN};
use super::expression::Expression;
use super::schema::{self, Quantity, Schema, Source, Text};
use crate::error::{Error, Fault, Result, did_you_mean};
use taiga_flow_gpu::random::Stream;

/// The outcome of reading one line or field; the fault lacks its file and line.
type Parsed<T> = Result<T, Box<Fault>>;

/// A longer line is no row of numbers: a binary file, or one without line ends.
pub const MAX_LINE_BYTES: usize = 65_536;
const BUFFER: usize = 1 << 20;
/// Largest power of ten that f64 holds exactly.
const EXACT_POWERS: usize = 22;

/// The schema of that name or path, if it is one of text tables.
pub fn dialect(name: &str) -> Result<Schema> {
    let texts = text_schemas()?;
    let names: Vec<&str> = texts.iter().map(|schema| schema.name.as_str()).collect();
    let is_path = name.contains(['/', '.']);
    if let (false, Some(schema)) = (is_path, texts.iter().find(|schema| schema.name == name)) {
        return Ok(schema.clone());
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

fn text_schemas() -> Result<Vec<Schema>> {
    Ok(schema::built_in()?.into_iter().filter(|schema| schema.text.is_some()).collect())
}

/// The dialect that the first lines of a file fit; a row of the right number of columns
/// with a wrong value is told as such.
pub fn detect(path: &Path) -> Result<Schema> {
    let mut lines = Lines::open(path)?;
    let Some(first) = lines.advance()? else { return Err(no_rows(path)) };
    let first = first.to_vec();
    let mut complaint = None;
    for schema in text_schemas()? {
        let Some(text) = &schema.text else { continue };
        match Plan::bind(&schema, text, &first, None) {
            Ok(_) if text.header => return Ok(schema),
            Ok(mut plan) => match plan.parse(&first, &mut Row::default()) {
                Ok(()) => return Ok(schema),
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
            let told = format!("for '{}' it lacks {}", schema.name, missing.join(", "));
            near = Some(format!("{told}: {}", did_you_mean(missing[0], &header)));
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

/// What a line says: quantities in the order of the outputs, keys in that of their names.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Row {
    pub values: Vec<f32>,
    pub keys: Vec<i64>,
    pub class: i8,
}

/// Places the source anew, as for simulated hadrons, whose own source position would tell
/// them from gammas: at this distance from the camera's centre, at an azimuth drawn from
/// the seed and the shower's key.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Placement {
    pub offset_deg: f64,
    pub seed: u64,
}

/// A schema bound to the columns of a file.
#[derive(Debug)]
struct Plan {
    columns: usize,
    fields: Vec<(usize, usize)>, // begin and end of each column in the line
    inputs: Vec<Input>,
    numbers: Vec<f64>, // (inputs)
    outputs: Vec<Output>,
    keys: Vec<Key>,
    class: Option<(usize, schema::TextClass)>,
    comparisons: Vec<Comparison>,
    source: Option<([(usize, f64); 2], Placement)>, // inputs x and y with their scales
    text: Text,
    scratch: Vec<u8>,
}

/// A column that is read as a number.
#[derive(Debug)]
struct Input {
    name: String,
    column: usize,
    limits: Option<[f64; 2]>,
}

#[derive(Debug)]
struct Output {
    name: String,
    quantity: Quantity,
    arguments: Vec<usize>, // inputs
}

#[derive(Debug)]
struct Comparison {
    first: Output,
    second: Output,
    within: f64,
    rows: u64, // that differ by more
}

#[derive(Debug)]
enum Key {
    Column {
        name: String,
        column: usize,
    },
    RowHash,
    /// Of the file and of these columns.
    Run {
        file: [u8; 32],
        columns: Vec<(String, usize)>,
        last: Option<(Vec<i64>, i64)>,
    },
}

impl Plan {
    /// Finds the columns in the header, or takes them as the schema lists them.
    fn bind(schema: &Schema, text: &Text, first: &[u8], file: Option<[u8; 32]>) -> Parsed<Plan> {
        let own = |name: &str| String::from(name.trim());
        let names: Vec<String> = if text.header {
            String::from_utf8_lossy(first).split(',').map(own).collect()
        } else {
            text.columns.clone()
        };
        let columns = first.split(|byte| *byte == b',').count();
        if columns != names.len() {
            let fault = Fault::new("wrong number of columns");
            return Err(Box::new(fault.expected(names.len()).found(columns)));
        }
        if let Some(twice) = names.iter().enumerate().find(|(i, name)| names[..*i].contains(name)) {
            return Err(Box::new(Fault::new("a column is there twice").column(twice.1)));
        }
        let mut plan = Plan {
            columns,
            fields: Vec::with_capacity(columns),
            inputs: Vec::new(),
            numbers: Vec::new(),
            outputs: Vec::new(),
            keys: Vec::new(),
            class: None,
            comparisons: Vec::new(),
            source: None,
            text: text.clone(),
            scratch: Vec::new(),
        };
        for name in output_names(schema, text) {
            let quantity = &schema.quantities[&name];
            let output = plan.output(&names, &name, quantity)?;
            plan.outputs.push(output);
        }
        plan.bind_keys(schema, text, &names, file.unwrap_or_default())?;
        for (name, compare) in &schema.compare {
            let Some(quantity) = schema.quantities.get(name) else { continue };
            let first = plan.output(&names, name, quantity)?;
            let second = plan.output(&names, name, &compare.quantity)?;
            plan.comparisons.push(Comparison { first, second, within: compare.within, rows: 0 });
        }
        // All numbers are looked at, also those that nothing is made of.
        for name in text.limits.keys() {
            plan.input(&names, name)?;
        }
        if let Some(class) = &text.class {
            plan.class = Some((position(&names, &class.column)?, class.clone()));
        }
        plan.numbers = vec![0.0; plan.inputs.len()];
        Ok(plan)
    }

    fn bind_keys(
        &mut self,
        schema: &Schema,
        text: &Text,
        names: &[String],
        file: [u8; 32],
    ) -> Parsed<()> {
        if text.row_hash {
            self.keys.push(Key::RowHash);
        }
        if let Some(columns) = &text.run {
            let columns = columns.iter().map(|name| Ok((name.clone(), position(names, name)?)));
            let columns = columns.collect::<Parsed<_>>()?;
            self.keys.push(Key::Run { file, columns, last: None });
        }
        for column in schema.copy.values() {
            let place = position(names, column)?;
            self.keys.push(Key::Column { name: column.clone(), column: place });
        }
        Ok(())
    }

    fn input(&mut self, names: &[String], name: &str) -> Parsed<usize> {
        if let Some(known) = self.inputs.iter().position(|input| input.name == name) {
            return Ok(known);
        }
        let limits = self.text.limits.get(name).copied();
        self.inputs.push(Input { name: name.to_string(), column: position(names, name)?, limits });
        Ok(self.inputs.len() - 1)
    }

    fn output(&mut self, names: &[String], name: &str, quantity: &Quantity) -> Parsed<Output> {
        let columns = quantity.source.columns().to_vec();
        let arguments = columns.iter().map(|column| self.input(names, column));
        let arguments = arguments.collect::<Parsed<_>>()?;
        Ok(Output { name: name.to_string(), quantity: quantity.clone(), arguments })
    }

    /// Replaces the source; quantities of the file's own source position are left out.
    fn place_source(&mut self, schema: &Schema, placement: Placement) -> Parsed<()> {
        let of = |name: &str| {
            let output = self.outputs.iter().find(|output| output.name == name)?;
            let column = matches!(output.quantity.source, Source::Column(_));
            column.then(|| (output.arguments[0], output.quantity.scale))
        };
        let (Some(x), Some(y)) = (of("source_x"), of("source_y")) else {
            let fault = Fault::new("this dialect has no source position to replace");
            return Err(Box::new(fault.found(&schema.name)));
        };
        self.source = Some(([x, y], placement));
        let of_file = &self.text.of_source;
        self.outputs.retain(|output| !of_file.contains(&output.name));
        Ok(())
    }

    /// Reads one line into `row`.
    fn parse(&mut self, line: &[u8], row: &mut Row) -> Parsed<()> {
        self.split(line)?;
        for (input, number) in self.inputs.iter().zip(&mut self.numbers) {
            let (begin, end) = self.fields[input.column];
            *number = input.parse(&line[begin..end], self.text.not_finite)?;
        }
        self.read_keys(line, &mut row.keys)?;
        for comparison in &mut self.comparisons {
            comparison.add(&self.numbers);
        }
        if let Some(([x, y], placement)) = &self.source {
            let words: Vec<u64> = row.keys.iter().map(|key| *key as u64).collect();
            let azimuth = Stream::new(placement.seed, "source position", &words).uniform(0);
            let azimuth = std::f64::consts::TAU * azimuth;
            self.numbers[x.0] = placement.offset_deg * libm::cos(azimuth) / x.1;
            self.numbers[y.0] = placement.offset_deg * libm::sin(azimuth) / y.1;
        }
        row.values.clear();
        row.values.extend(self.outputs.iter().map(|output| output.value(&self.numbers) as f32));
        row.class = match &self.class {
            Some((column, class)) => class_of(class, field(line, self.fields[*column]))?,
            None => UNKNOWN,
        };
        Ok(())
    }

    /// Finds the columns, without the blanks around them.
    fn split(&mut self, line: &[u8]) -> Parsed<()> {
        self.fields.clear();
        let mut begin = 0;
        for end in memchr::memchr_iter(b',', line).chain([line.len()]) {
            let (mut b, mut e) = (begin, end);
            while b < e && line[b].is_ascii_whitespace() {
                b += 1;
            }
            while e > b && line[e - 1].is_ascii_whitespace() {
                e -= 1;
            }
            self.fields.push((b, e));
            begin = end + 1;
        }
        if self.fields.len() == self.columns {
            return Ok(());
        }
        if let Err(error) = std::str::from_utf8(line) {
            let fault = Fault::new("not a text table").expected("text in UTF-8");
            return Err(Box::new(fault.found(error)));
        }
        let fault = Fault::new("wrong number of columns");
        Err(Box::new(fault.expected(self.columns).found(self.fields.len())))
    }

    fn read_keys(&mut self, line: &[u8], keys: &mut Vec<i64>) -> Parsed<()> {
        keys.clear();
        for key in &mut self.keys {
            keys.push(match key {
                Key::Column { name, column } => integer(name, field(line, self.fields[*column]))?,
                Key::RowHash => {
                    self.scratch.clear();
                    for place in &self.fields {
                        self.scratch.extend_from_slice(field(line, *place));
                        self.scratch.push(b',');
                    }
                    hash(&self.scratch)
                }
                Key::Run { file, columns, last } => {
                    let read = |(name, column): &(String, usize)| {
                        integer(name, field(line, self.fields[*column]))
                    };
                    let now = columns.iter().map(read).collect::<Parsed<Vec<i64>>>()?;
                    match last {
                        Some((known, run)) if *known == now => *run,
                        _ => {
                            let words = now.iter().flat_map(|word| word.to_le_bytes());
                            let bytes: Vec<u8> = file.iter().copied().chain(words).collect();
                            let run = hash(&bytes);
                            *last = Some((now, run));
                            run
                        }
                    }
                }
            });
        }
        Ok(())
    }
}

impl Output {
    fn value(&self, numbers: &[f64]) -> f64 {
        let value = match &self.quantity.source {
            Source::Column(_) => numbers[self.arguments[0]],
            Source::Expression(expression) => evaluate(expression, &self.arguments, numbers),
        };
        self.quantity.canonical_value(value)
    }
}

fn evaluate(expression: &Expression, arguments: &[usize], numbers: &[f64]) -> f64 {
    let mut values = [0.0; 16];
    if arguments.len() <= values.len() {
        for (value, input) in values.iter_mut().zip(arguments) {
            *value = numbers[*input];
        }
        return expression.evaluate(&values[..arguments.len()]);
    }
    let values: Vec<f64> = arguments.iter().map(|input| numbers[*input]).collect();
    expression.evaluate(&values)
}

impl Comparison {
    /// Rows where one of the two is not finite are judged by neither.
    fn add(&mut self, numbers: &[f64]) {
        let difference = self.first.value(numbers) - self.second.value(numbers);
        self.rows += u64::from(difference.abs() > self.within);
    }
}

fn output_names(schema: &Schema, text: &Text) -> Vec<String> {
    let listed = text.outputs.iter().filter(|name| schema.quantities.contains_key(*name));
    let rest = schema.quantities.keys().filter(|name| !text.outputs.contains(name));
    listed.chain(rest).cloned().collect()
}

fn position(names: &[String], name: &str) -> Parsed<usize> {
    names.iter().position(|known| known == name).ok_or_else(|| {
        let known: Vec<&str> = names.iter().map(String::as_str).collect();
        let fault = Fault::new("a column is missing").column(name);
        Box::new(fault.advice(did_you_mean(name, &known)))
    })
}

fn field(line: &[u8], (begin, end): (usize, usize)) -> &[u8] {
    &line[begin..end]
}

impl Input {
    fn parse(&self, text: &[u8], not_finite: bool) -> Parsed<f64> {
        let number = number(text);
        let possible = |number: f64| match self.limits {
            Some([low, high]) => {
                (low..=high).contains(&number) || (not_finite && !number.is_finite())
            }
            None => not_finite || number.is_finite(),
        };
        let what = match number {
            Some(number) if possible(number) => return Ok(number),
            Some(_) => "value out of range",
            None => "not a number",
        };
        let expected = match self.limits {
            Some([low, high]) => format!("a number from {low} to {high}"),
            None => "a finite number".to_string(),
        };
        let fault = Fault::new(what).column(&self.name);
        Err(Box::new(fault.expected(expected).found(quoted(text))))
    }
}

/// A decimal number, rounded to the nearest f64. Up to 15 digits with a small exponent,
/// which is nearly all, two exact numbers and one rounding give that (Clinger 1990); the
/// rest is left to the standard library.
fn number(text: &[u8]) -> Option<f64> {
    let (negative, digits) = match text.first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    let (mut mantissa, mut count, mut after, mut point) = (0u64, 0, 0usize, false);
    for byte in digits {
        match byte {
            b'0'..=b'9' if count < 18 => {
                mantissa = mantissa * 10 + u64::from(byte - b'0');
                count += 1;
                after += usize::from(point);
            }
            b'.' if !point => point = true,
            _ => return slow_number(text),
        }
    }
    if count == 0 || mantissa >= 1 << 53 || after > EXACT_POWERS {
        return slow_number(text);
    }
    let value = mantissa as f64 / POWERS[after];
    Some(if negative { -value } else { value })
}

fn slow_number(text: &[u8]) -> Option<f64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

const POWERS: [f64; EXACT_POWERS + 1] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16,
    1e17, 1e18, 1e19, 1e20, 1e21, 1e22,
];

fn integer(name: &str, text: &[u8]) -> Parsed<i64> {
    let number = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
    number.ok_or_else(|| {
        let fault = Fault::new("not a whole number").column(name);
        Box::new(fault.expected("an integer, as keys are").found(quoted(text)))
    })
}

fn class_of(class: &schema::TextClass, text: &[u8]) -> Parsed<i8> {
    if text == class.gamma.as_bytes() {
        return Ok(GAMMA);
    }
    if text == class.hadron.as_bytes() {
        return Ok(HADRON);
    }
    let fault = Fault::new("unknown class").column(&class.column);
    let expected = format!("{} or {}", class.gamma, class.hadron);
    Err(Box::new(fault.expected(expected).found(quoted(text))))
}

/// 63 bits of a hash: a key that is never negative.
fn hash(bytes: &[u8]) -> i64 {
    let mut first = [0; 8];
    first.copy_from_slice(&blake3::hash(bytes).as_bytes()[..8]);
    (u64::from_le_bytes(first) >> 1) as i64
}

fn quoted(text: &[u8]) -> String {
    format!("'{}'", String::from_utf8_lossy(text).chars().take(40).collect::<String>())
}

/// The rows of one file, one after the other.
#[derive(Debug)]
pub struct Rows {
    lines: Lines,
    plan: Plan,
    /// The first line, where it is a row.
    first: Option<Vec<u8>>,
    count: u64,
}

impl Rows {
    /// `file` is the hash of the content, of which keys are made.
    pub fn open(
        path: &Path,
        schema: &Schema,
        file: [u8; 32],
        placement: Option<Placement>,
    ) -> Result<Rows> {
        let Some(text) = &schema.text else {
            return Err(Fault::new("not a schema of text tables").found(&schema.name).usage());
        };
        let mut lines = Lines::open(path)?;
        let Some(first) = lines.advance()? else { return Err(no_rows(path)) };
        let first = first.to_vec();
        let mut plan =
            Plan::bind(schema, text, &first, Some(file)).map_err(|fault| lines.place(*fault))?;
        if let Some(placement) = placement {
            plan.place_source(schema, placement).map_err(|fault| fault.usage())?;
        }
        Ok(Rows { lines, plan, first: (!text.header).then_some(first), count: 0 })
    }

    /// Names and units of the values of a row.
    pub fn outputs(&self) -> Vec<(String, String)> {
        let told = |output: &Output| (output.name.clone(), output.quantity.canonical.clone());
        self.plan.outputs.iter().map(told).collect()
    }

    /// Reads the next row into `row`; false at the end of the file.
    pub fn read(&mut self, row: &mut Row) -> Result<bool> {
        let outcome = if let Some(first) = self.first.take() {
            self.plan.parse(&first, row)
        } else {
            match self.lines.advance()? {
                None => return Ok(false),
                Some(line) => self.plan.parse(line, row),
            }
        };
        outcome.map_err(|fault| self.lines.place(*fault))?;
        self.count += 1;
        Ok(true)
    }

    /// Rows in which a quantity differs from what the file itself says, and the rows read.
    pub fn differences(&self) -> (BTreeMap<&str, (u64, f64)>, u64) {
        let comparisons = self.plan.comparisons.iter();
        (comparisons.map(|c| (c.first.name.as_str(), (c.rows, c.within))).collect(), self.count)
    }

    /// blake3 of the bytes read; of the whole file once `read` has said false.
    pub fn source_hash(&self) -> blake3::Hash {
        self.lines.hasher.finalize()
    }
}

/// The lines of a file that are not blank, without their ends.
#[derive(Debug)]
struct Lines {
    path: PathBuf,
    file: File,
    hasher: blake3::Hasher,
    buffer: Vec<u8>,
    begin: usize, // of what is not yet given out
    ended: bool,
    number: u64, // of the line given out last, from 1, as editors count
}

impl Lines {
    fn open(path: &Path) -> Result<Lines> {
        let file = File::open(path).map_err(|error| unreadable(path, &error))?;
        let path = path.to_path_buf();
        let hasher = blake3::Hasher::new();
        Ok(Lines { path, file, hasher, buffer: Vec::new(), begin: 0, ended: false, number: 0 })
    }

    /// The next line with something in it.
    fn advance(&mut self) -> Result<Option<&[u8]>> {
        loop {
            let Some((begin, end)) = self.next_line()? else { return Ok(None) };
            self.number += 1;
            if self.buffer[begin..end].iter().any(|byte| !byte.is_ascii_whitespace()) {
                return Ok(Some(&self.buffer[begin..end]));
            }
        }
    }

    fn next_line(&mut self) -> Result<Option<(usize, usize)>> {
        let mut searched = self.begin;
        loop {
            if let Some(at) = memchr::memchr(b'\n', &self.buffer[searched..]) {
                let line = (self.begin, searched + at);
                self.begin = searched + at + 1;
                return Ok(Some(line));
            }
            if self.ended {
                let line = (self.begin, self.buffer.len());
                self.begin = self.buffer.len();
                return Ok((line.0 < line.1).then_some(line));
            }
            let pending = self.buffer.len() - self.begin;
            if pending > MAX_LINE_BYTES {
                let fault = Fault::new("not a text table").file(&self.path).row(self.number + 1);
                let fault = fault.expected(format!("lines of at most {MAX_LINE_BYTES} bytes"));
                return Err(fault.found(format!("a line of more than {pending} bytes")).input());
            }
            self.fill()?;
            searched = pending;
        }
    }

    /// Moves what is pending to the front and reads more behind it.
    fn fill(&mut self) -> Result<()> {
        self.buffer.drain(..self.begin);
        self.begin = 0;
        let pending = self.buffer.len();
        self.buffer.resize(pending + BUFFER, 0);
        let count = loop {
            match self.file.read(&mut self.buffer[pending..]) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                outcome => break outcome.map_err(|error| unreadable(&self.path, &error))?,
            }
        };
        self.buffer.truncate(pending + count);
        self.hasher.update(&self.buffer[pending..]);
        self.ended = count == 0;
        Ok(())
    }

    /// Adds file and line to a fault of the last row.
    fn place(&self, fault: Fault) -> Error {
        fault.file(&self.path).row(self.number).input()
    }
}

fn unreadable(path: &Path, error: &io::Error) -> Error {
    let fault = Fault::new("cannot read this table").file(path).found(error);
    match error.kind() {
        ErrorKind::NotFound | ErrorKind::IsADirectory | ErrorKind::PermissionDenied => {
            fault.input()
        }
        _ => fault.environment(),
    }
}

#[cfg(test)]
mod tests;
