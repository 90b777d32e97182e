//! Binds a schema to the columns of one text table and parses its lines.

use super::number::{number, split, whole};
use super::{Parsed, ParsedColumns, Placement};
use crate::data::schema::unix_time;
use crate::data::schema::{self, Quantity, QuantitySource, Schema, Text};
use crate::data::table::events::{GAMMA, HADRON, UNKNOWN};
use crate::error::{Fault, did_you_mean};
use taiga_flow_gpu::random::Stream;

/// Schema bound to the columns of a file.
#[derive(Debug)]
pub(super) struct TextPlan {
    columns: usize,
    fields: Vec<(usize, usize)>, // begin and end of each column in the line
    inputs: Vec<NumberColumn>,
    numbers: Vec<Vec<f64>>, // (inputs, rows)
    pub outputs: Vec<OutputQuantity>,
    keys: Vec<KeyColumn>,
    class: Option<(usize, schema::TextClass)>,
    pub comparisons: Vec<ColumnComparison>,
    source: Option<([(usize, f64); 2], Placement)>, // inputs x and y with their scales
    text: Text,
    scratch: Vec<u8>,
    values: [Vec<f64>; 2], // (rows), before rounding to f32
}

/// Column that is parsed as a number.
#[derive(Debug)]
struct NumberColumn {
    name: String,
    column: usize,
    limits: Option<[f64; 2]>,
}

/// Quantity of the output with the columns that it is computed from.
#[derive(Debug)]
pub(super) struct OutputQuantity {
    pub name: String,
    pub quantity: Quantity,
    arguments: Vec<usize>, // indices of inputs
}

/// Two definitions of one quantity and the number of rows in which they differ.
#[derive(Debug)]
pub(super) struct ColumnComparison {
    pub first: OutputQuantity,
    second: OutputQuantity,
    pub within: f64,
    pub rows: u64, // that differ by more than `within`
}

/// Source of an integer key.
#[derive(Debug)]
enum KeyColumn {
    Column {
        name: String,
        column: usize,
        /// The values must be plausible as `unix_time_ns`.
        is_time: bool,
    },
    /// Hash of the fields of the row.
    RowHash,
    /// Hash of the file and these columns.
    Run { file: [u8; 32], columns: Vec<(String, usize)>, last: Option<(Vec<u8>, i64)> },
    /// The same value in all rows.
    Fixed(i64),
}

impl TextPlan {
    /// Binds a schema to the columns of the header, or to those that the schema lists.
    ///
    /// `first` is the first line and `file` the hash of the content.
    ///
    /// # Errors
    /// A fault for a wrong number of columns, and for a missing or duplicate column.
    pub(crate) fn bind(
        schema: &Schema,
        text: &Text,
        first: &[u8],
        file: Option<[u8; 32]>,
    ) -> Parsed<TextPlan> {
        let names = column_names(text, first)?;
        let mut plan = TextPlan {
            columns: names.len(),
            fields: Vec::with_capacity(names.len()),
            inputs: Vec::new(),
            numbers: Vec::new(),
            outputs: Vec::new(),
            keys: Vec::new(),
            class: None,
            comparisons: Vec::new(),
            source: None,
            text: text.clone(),
            scratch: Vec::new(),
            values: Default::default(),
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
            plan.comparisons.push(ColumnComparison {
                first,
                second,
                within: compare.within,
                rows: 0,
            });
        }
        // Columns with limits are checked even if no quantity uses them.
        for name in text.limits.keys() {
            plan.input(&names, name)?;
        }
        if let Some(class) = &text.class {
            plan.class = Some((position(&names, &class.column)?, class.clone()));
        }
        plan.numbers = vec![Vec::new(); plan.inputs.len()];
        Ok(plan)
    }

    /// Adds the keys of the schema.
    fn bind_keys(
        &mut self,
        schema: &Schema,
        text: &Text,
        names: &[String],
        file: [u8; 32],
    ) -> Parsed<()> {
        if text.row_hash {
            self.keys.push(KeyColumn::RowHash);
        }
        if let Some(columns) = &text.run {
            let columns = columns.iter().map(|name| Ok((name.clone(), position(names, name)?)));
            let columns = columns.collect::<Parsed<_>>()?;
            self.keys.push(KeyColumn::Run { file, columns, last: None });
        }
        for (key, name) in &schema.copy {
            let (column, is_time) = (position(names, name)?, key == unix_time::COLUMN);
            self.keys.push(KeyColumn::Column { name: name.clone(), column, is_time });
        }
        Ok(())
    }

    /// Adds the key `run` after the computed keys, before those copied from columns.
    pub(crate) fn set_run(&mut self, run: i64) {
        let is_computed = |key: &&KeyColumn| !matches!(key, KeyColumn::Column { .. });
        let place = self.keys.iter().filter(is_computed).count();
        self.keys.insert(place, KeyColumn::Fixed(run));
    }

    /// Returns the index of the input that parses a column, and adds it if necessary.
    fn input(&mut self, names: &[String], name: &str) -> Parsed<usize> {
        if let Some(known) = self.inputs.iter().position(|input| input.name == name) {
            return Ok(known);
        }
        let limits = self.text.limits.get(name).copied();
        self.inputs.push(NumberColumn {
            name: name.to_string(),
            column: position(names, name)?,
            limits,
        });
        Ok(self.inputs.len() - 1)
    }

    /// Returns a quantity bound to its inputs.
    fn output(
        &mut self,
        names: &[String],
        name: &str,
        quantity: &Quantity,
    ) -> Parsed<OutputQuantity> {
        let columns = quantity.source.columns().to_vec();
        let arguments = columns.iter().map(|column| self.input(names, column));
        let arguments = arguments.collect::<Parsed<_>>()?;
        Ok(OutputQuantity { name: name.to_string(), quantity: quantity.clone(), arguments })
    }

    /// Replaces the source position, and removes quantities relative to that of the file.
    ///
    /// # Errors
    /// A fault if the schema has no source position in columns.
    pub(crate) fn place_source(&mut self, schema: &Schema, placement: Placement) -> Parsed<()> {
        let of = |name: &str| {
            let output = self.outputs.iter().find(|output| output.name == name)?;
            let column = matches!(output.quantity.source, QuantitySource::Column(_));
            column.then(|| (output.arguments[0], output.quantity.scale))
        };
        let (Some(x), Some(y)) = (of("source_x"), of("source_y")) else {
            let fault = Fault::new("dialect without a source position that could be replaced");
            return Err(Box::new(fault.found(&schema.name)));
        };
        self.source = Some(([x, y], placement));
        let of_file = &self.text.of_source;
        self.outputs.retain(|output| !of_file.contains(&output.name));
        Ok(())
    }

    /// Starts a new block of rows.
    pub(crate) fn begin(&mut self, columns: &mut ParsedColumns) {
        self.numbers.iter_mut().for_each(Vec::clear);
        columns.rows = 0;
        columns.keys.resize_with(self.keys.len(), Vec::new);
        columns.keys.iter_mut().for_each(Vec::clear);
        columns.class.clear();
    }

    /// Checks that a line is a valid row.
    pub(crate) fn accepts(&mut self, line: &[u8]) -> Parsed<()> {
        let mut columns = ParsedColumns::default();
        self.begin(&mut columns);
        self.parse(line, &mut columns)
    }

    /// Parses a line and adds it as a row.
    ///
    /// # Errors
    /// A fault with the column of an invalid value.
    pub(crate) fn parse(&mut self, line: &[u8], columns: &mut ParsedColumns) -> Parsed<()> {
        split(line, &mut self.fields);
        if self.fields.len() != self.columns {
            return Err(self.wrong_columns(line));
        }
        for (input, numbers) in self.inputs.iter().zip(&mut self.numbers) {
            let (begin, end) = self.fields[input.column];
            numbers.push(input.parse(&line[begin..end], self.text.not_finite)?);
        }
        self.read_keys(line, &mut columns.keys)?;
        columns.class.push(match &self.class {
            Some((column, class)) => class_of(class, field(line, self.fields[*column]))?,
            None => UNKNOWN,
        });
        columns.rows += 1;
        Ok(())
    }

    /// Computes the quantities of all rows of the block.
    pub(crate) fn finish(&mut self, columns: &mut ParsedColumns) {
        let [values, other] = &mut self.values;
        for comparison in &mut self.comparisons {
            comparison.first.evaluate(&self.numbers, values);
            comparison.second.evaluate(&self.numbers, other);
            comparison.add(values, other);
        }
        if let Some((inputs, placement)) = &self.source {
            place(&mut self.numbers, *inputs, *placement, columns, self.class.is_some());
        }
        columns.values.resize_with(self.outputs.len(), Vec::new);
        for (output, column) in self.outputs.iter().zip(&mut columns.values) {
            output.evaluate(&self.numbers, values);
            column.clear();
            column.extend(values.iter().map(|value| *value as f32));
        }
    }

    /// Returns the fault of a line with a wrong number of columns.
    fn wrong_columns(&self, line: &[u8]) -> Box<Fault> {
        if let Err(error) = std::str::from_utf8(line) {
            let fault = Fault::new("not a text table").expected("text in UTF-8");
            return Box::new(fault.found(error));
        }
        let fault = Fault::new("wrong number of columns");
        Box::new(fault.expected(self.columns).found(self.fields.len()))
    }

    /// Appends the keys of a row.
    fn read_keys(&mut self, line: &[u8], columns: &mut [Vec<i64>]) -> Parsed<()> {
        for (key, column) in self.keys.iter_mut().zip(columns) {
            column.push(match key {
                KeyColumn::Column { name, column, is_time } => {
                    let value = integer(name, field(line, self.fields[*column]))?;
                    if *is_time && !unix_time::is_plausible(value) {
                        return Err(Box::new(unix_time::fault(value).column(name.as_str())));
                    }
                    value
                }
                KeyColumn::Fixed(run) => *run,
                KeyColumn::RowHash => {
                    self.scratch.clear();
                    for place in &self.fields {
                        self.scratch.extend_from_slice(field(line, *place));
                        self.scratch.push(b',');
                    }
                    hash(&self.scratch)
                }
                KeyColumn::Run { file, columns, last } => {
                    // Consecutive rows mostly have the same key, so its hash is kept.
                    self.scratch.clear();
                    self.scratch.extend_from_slice(file);
                    for (name, column) in columns {
                        let word = integer(name, field(line, self.fields[*column]))?;
                        self.scratch.extend_from_slice(&word.to_le_bytes());
                    }
                    match last {
                        Some((known, run)) if *known == self.scratch => *run,
                        _ => {
                            let run = hash(&self.scratch);
                            *last = Some((self.scratch.clone(), run));
                            run
                        }
                    }
                }
            });
        }
        Ok(())
    }
}

/// Replaces source positions by drawn ones; with a class column, only those of hadrons.
fn place(
    numbers: &mut [Vec<f64>],
    [x, y]: [(usize, f64); 2],
    placement: Placement,
    columns: &ParsedColumns,
    has_class: bool,
) {
    let mut words = Vec::with_capacity(columns.keys.len());
    let placed = |row: &usize| !has_class || columns.class[*row] == HADRON;
    for row in (0..columns.rows).filter(placed) {
        words.clear();
        words.extend(columns.keys.iter().map(|key| key[row] as u64));
        let azimuth = Stream::new(placement.seed, "source position", &words).uniform(0);
        let azimuth = std::f64::consts::TAU * azimuth;
        numbers[x.0][row] = placement.offset_deg * libm::cos(azimuth) / x.1;
        numbers[y.0][row] = placement.offset_deg * libm::sin(azimuth) / y.1;
    }
}

impl OutputQuantity {
    /// Sets `values` to those of all rows, in the canonical unit.
    fn evaluate(&self, numbers: &[Vec<f64>], values: &mut Vec<f64>) {
        values.clear();
        match &self.quantity.source {
            QuantitySource::Column(_) => values.extend_from_slice(&numbers[self.arguments[0]]),
            QuantitySource::Expression(expression) => {
                let arguments: Vec<&[f64]> =
                    self.arguments.iter().map(|input| numbers[*input].as_slice()).collect();
                let rows = numbers.first().map_or(0, Vec::len);
                expression.evaluate_rows(&arguments, rows, |value| values.push(value));
            }
        }
        values.iter_mut().for_each(|value| *value = self.quantity.canonical_value(*value));
    }
}

impl ColumnComparison {
    /// Counts the rows that differ. Rows with a value that is not finite are not counted.
    fn add(&mut self, first: &[f64], second: &[f64]) {
        let differ = |(a, b): &(&f64, &f64)| (*a - *b).abs() > self.within;
        self.rows += first.iter().zip(second).filter(differ).count() as u64;
    }
}

/// Message about a number outside the limits of its column.
pub(super) const OUT_OF_RANGE: &str = "value out of range";

/// Returns the names of the columns: those of the header, or those that the schema lists.
fn column_names(text: &Text, first: &[u8]) -> Parsed<Vec<String>> {
    let names: Vec<String> = if text.header {
        let header = String::from_utf8_lossy(first);
        header.split(',').map(|name| name.trim().to_string()).collect()
    } else {
        text.columns.clone()
    };
    let columns = first.split(|byte| *byte == b',').count();
    if columns != names.len() {
        let fault = Fault::new("wrong number of columns");
        return Err(Box::new(fault.expected(names.len()).found(columns)));
    }
    match names.iter().enumerate().find(|(i, name)| names[..*i].contains(name)) {
        Some((_, name)) => Err(Box::new(Fault::new("duplicate column").column(name))),
        None => Ok(names),
    }
}

/// Returns the quantities in the order of `outputs`, then the others by name.
fn output_names(schema: &Schema, text: &Text) -> Vec<String> {
    let listed = text.outputs.iter().filter(|name| schema.quantities.contains_key(*name));
    let rest = schema.quantities.keys().filter(|name| !text.outputs.contains(name));
    listed.chain(rest).cloned().collect()
}

/// Returns the index of a column.
fn position(names: &[String], name: &str) -> Parsed<usize> {
    names.iter().position(|known| known == name).ok_or_else(|| {
        let known: Vec<&str> = names.iter().map(String::as_str).collect();
        let fault = Fault::new("missing column").column(name);
        Box::new(fault.advice(did_you_mean(name, &known)))
    })
}

/// Returns the bytes of a field.
fn field(line: &[u8], (begin, end): (usize, usize)) -> &[u8] {
    &line[begin..end]
}

const OTHER_UNIT: &str = "check the unit of this column in the table; if the unit, the factor or the [text] limits of the dialect differ, correct a copy of its schema and give it as --dialect";

impl NumberColumn {
    /// Parses a number and checks its limits.
    fn parse(&self, text: &[u8], not_finite: bool) -> Parsed<f64> {
        let number = number(text);
        let message = match number {
            Some(number) if self.accepts(number, not_finite) => return Ok(number),
            Some(_) => OUT_OF_RANGE,
            None => "not a number",
        };
        let expected = match self.limits {
            Some([low, high]) => format!("a number from {low} to {high}"),
            None => "a finite number".to_string(),
        };
        let fault = Fault::new(message).column(&self.name).expected(expected).found(quoted(text));
        let is_limited = self.limits.is_some() && number.is_some_and(f64::is_finite);
        Err(Box::new(if is_limited { fault.advice(OTHER_UNIT) } else { fault }))
    }

    /// Returns whether a number is within the limits of the column.
    fn accepts(&self, number: f64, not_finite: bool) -> bool {
        match self.limits {
            Some([low, high]) => {
                (low..=high).contains(&number) || (not_finite && !number.is_finite())
            }
            None => not_finite || number.is_finite(),
        }
    }
}

/// Parses an integer key.
fn integer(name: &str, text: &[u8]) -> Parsed<i64> {
    whole(text).ok_or_else(|| {
        let fault = Fault::new("not a whole number").column(name);
        Box::new(fault.expected("an integer key").found(quoted(text)))
    })
}

/// Returns the class of a text.
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

/// Returns 63 bits of the blake3 hash of `bytes`, as a key that is not negative.
pub(crate) fn hash(bytes: &[u8]) -> i64 {
    let mut first = [0; 8];
    first.copy_from_slice(&blake3::hash(bytes).as_bytes()[..8]);
    (u64::from_le_bytes(first) >> 1) as i64
}

/// Returns at most 40 characters in quotes, for messages.
fn quoted(text: &[u8]) -> String {
    format!("'{}'", String::from_utf8_lossy(text).chars().take(40).collect::<String>())
}
