//! Counts the values of a file in one pass over its rows.

use super::limits::{Limits, physical_limits};
use super::report::{Classes, ColumnReport};
use crate::data::schema::columns::CHUNK_ROWS;
use crate::data::schema::{plausible, unix_time};
use crate::data::table::{Block, InputFile, Request, Table};
use crate::error::Result;
use std::collections::BTreeMap;

/// Pairs of quantities of which the first never exceeds the second.
const ORDERED: [(&str, &str); 3] = [("width", "length"), ("con1", "con2"), ("con2", "con3")];

/// Distances of the assumed source from the centre of the camera [deg].
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct SourceOffsets {
    pub rows: u64,
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

    pub(crate) fn merge(&mut self, other: &SourceOffsets) {
        self.rows += other.rows;
        self.sum += other.sum;
        self.squares += other.squares;
    }

    pub(crate) fn mean_and_spread(&self) -> Option<(f64, f64)> {
        let mean = self.sum / self.rows as f64;
        let square = (self.squares / self.rows as f64 - mean * mean).max(0.0);
        (self.rows > 0).then(|| (mean, square.sqrt()))
    }
}

/// Counts from one pass over the rows of a file.
pub(crate) struct FileCheck {
    pub tallies: Vec<ColumnTally>, // (quantities)
    pub disorder: Vec<Disorder>,
    pub differences: Vec<Difference>,
    pub classes: Classes,
    pub sources: SourceOffsets,
    source: Option<[usize; 2]>, // quantities of the source's position
    pub times: Times,
}

/// Times that are not plausible.
#[derive(Default)]
pub(crate) struct Times {
    key: Option<usize>, // in the request
    rows: u64,          // seen
    pub implausible: u64,
    /// Row and value of the first.
    pub first: Option<(u64, i64)>,
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
    pub(crate) fn new(table: &Table, request: &Request) -> FileCheck {
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

    /// Reads all rows of a file in blocks.
    pub(crate) fn read(&mut self, file: &mut InputFile, request: &Request) -> Result<()> {
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

    /// Returns whether no row has an image after cleaning: neither light nor parameters.
    pub(crate) fn has_no_image(&self) -> bool {
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

/// Rows in which a quantity differs from its value by other columns.
pub(crate) struct Difference {
    pub name: String,
    quantity: usize, // in the request
    pub within: f64,
    pub rows: u64,
}

impl Difference {
    fn all(within: &BTreeMap<String, f64>, request: &Request) -> Vec<Difference> {
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

/// Counts of the values of one column.
pub(crate) struct ColumnTally {
    name: String,
    pub plausible: plausible::ValueTally,
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

    /// Returns the report of the column.
    pub(crate) fn column(&self, name: &str, unit: String) -> ColumnReport {
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

/// Rows in which a quantity exceeds another quantity that is always larger.
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

/// Returns the pairs of ordered quantities among `names`.
pub(crate) fn ordered_pairs(names: &[String]) -> Vec<Disorder> {
    let index = |wanted: &str| names.iter().position(|name| name == wanted);
    let pair = |names: &(&'static str, &'static str)| {
        let (smaller, larger) = (index(names.0)?, index(names.1)?);
        Some(Disorder { smaller, larger, names: *names, rows: 0 })
    };
    ORDERED.iter().filter_map(pair).collect()
}
