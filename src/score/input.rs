//! Opens, checks and reads an input file.
//!
//! Some checks need the rows: `dist` and `alpha` of the file must agree with centroid, axis and
//! source, and the source must be far enough from the camera centre.

use super::scoring_plan::{AtPositions, ScoredRows, ScoringPlan};
use crate::data::schema::plausible;
use crate::data::table::{Block, InputFile, Request, Table, TableReader};
use crate::engine::check_units;
use crate::error::{Fault, Result};
use crate::hillas::{self, LEAST_OFFSET_DEG, MOST_DIFFERENT};
use std::ops::Range;
use std::path::Path;

/// [`hillas::WITHIN_DEG`] in the precision of scored quantities [deg].
const WITHIN_DEG: f32 = hillas::WITHIN_DEG as f32;

/// Input file with open columns.
pub(crate) struct ScoringInput {
    pub file: InputFile,
    reader: TableReader,
    quantities: Vec<String>, // names of those that are read
    /// Whether each slot of a block is read.
    slots: Vec<bool>,
    pub keys: Vec<String>,
    pub class: bool,
    /// Quantities whose first values are not plausible.
    pub warnings: Vec<String>,
}

/// Findings in the rows of a file.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Facts {
    /// Quantities whose first values are not plausible.
    pub warnings: Vec<String>,
    /// Least and largest distance of the source from the camera centre [deg].
    pub offset: Option<[f64; 2]>,
    compared: u64,
    different: u64,
}

impl ScoringInput {
    /// Opens the columns of a file, and makes all checks that need no rows.
    ///
    /// # Errors
    /// `Input`.
    pub(crate) fn new(mut file: InputFile, plan: &ScoringPlan) -> Result<ScoringInput> {
        let table = file.table();
        check_units(&plan.card, table)?;
        check_geometry(plan, table)?;
        let keys = table.key_names().into_iter().filter(|_| plan.keys).map(str::to_string);
        let keys: Vec<String> = keys.collect();
        let known = table.quantities();
        let (mut quantities, mut slots) = (Vec::new(), Vec::new());
        for wanted in &plan.wanted {
            let there = wanted.as_ref().and_then(|w| {
                let named = w.names.iter().find(|name| known.contains(&name.as_str()));
                // The table reports a required quantity that is missing.
                named.or(w.names.first().filter(|_| w.needed))
            });
            slots.push(there.is_some());
            quantities.extend(there.cloned());
        }
        let class = plan.keys && table.has_class();
        let request = Request { quantities, keys: keys.clone(), shower: false, class };
        let reader = file.reader(&request)?;
        let (quantities, warnings) = (request.quantities, Vec::new());
        Ok(ScoringInput { file, reader, quantities, slots, keys, class, warnings })
    }

    pub(crate) fn rows(&self) -> u64 {
        self.file.rows()
    }

    /// Returns the portable and the exact stamp of the file.
    pub(crate) fn stamps(&self) -> [String; 2] {
        let stamp = self.file.stamp();
        [stamp.portable(), stamp.exact()]
    }

    /// Reads rows into the slots of a block; slots that are not read stay empty.
    pub(crate) fn read(&mut self, rows: Range<u64>, block: &mut Block) -> Result<()> {
        // The slots keep their memory from block to block.
        let mut is_read = self.slots.iter();
        block.quantities.retain(|_| is_read.next().is_some_and(|is_read| *is_read));
        let is_first = rows.start == 0;
        self.reader.read(rows, block)?;
        if is_first {
            self.find_implausible(&block.quantities);
        }
        let mut read = std::mem::take(&mut block.quantities).into_iter();
        let mut next = |is_read: &bool| is_read.then(|| read.next()).flatten().unwrap_or_default();
        block.quantities = self.slots.iter().map(&mut next).collect();
        Ok(())
    }
}

impl ScoringInput {
    /// Warns of quantities whose first values no telescope has, such as angles in a wrong unit.
    fn find_implausible(&mut self, values: &[Vec<f32>]) {
        for (name, finding) in plausible::findings(self.file.table(), &self.quantities, values) {
            let line = finding.line(name);
            log::warn!("{}: {line}", self.file.path().display());
            self.warnings.push(line);
        }
    }
}

impl Facts {
    /// Adds rows whose positions are computed, the first of which is the source; `first` is the number
    /// of the first row in the file.
    ///
    /// # Errors
    /// `Input` if the source is too near to the camera centre to be rotated.
    pub(crate) fn look(
        &mut self,
        rows: &ScoredRows,
        at: &AtPositions,
        path: &Path,
        first: u64,
    ) -> Result<()> {
        let column = |slot: usize| rows.block.quantities[slot].as_slice();
        let [.., source_x, source_y] = at.geometry.map(column);
        for (row, (x, y)) in source_x.iter().zip(source_y).enumerate() {
            let [x, y] = [x, y].map(|s| f64::from(*s));
            let offset = (x * x + y * y).sqrt();
            if !offset.is_finite() {
                continue; // a row without a score
            }
            if at.angles.len() > 1 && offset < LEAST_OFFSET_DEG {
                let what = "the source is too near to the camera centre to be rotated about it";
                return Err(Fault::new(what)
                    .file(path)
                    .row(first + row as u64)
                    .expected(format!("an offset of at least {LEAST_OFFSET_DEG} deg"))
                    .found(format!("{offset:.3} deg"))
                    .advice("score this run with [score] positions = 1")
                    .input());
            }
            let [least, most] = self.offset.get_or_insert([offset; 2]);
            (*least, *most) = (least.min(offset), most.max(offset));
        }
        let [dist, alpha] = at.own.map(column);
        self.compared += dist.len().max(alpha.len()) as u64;
        let [seen_dist, seen_alpha] = rows.at_source();
        // NaN in one of the two cannot be compared.
        let differs =
            |own: Option<&f32>, seen: f32| own.is_some_and(|own| (own - seen).abs() > WITHIN_DEG);
        let pairs = seen_dist.iter().zip(seen_alpha).enumerate();
        let different = pairs
            .filter(|(row, (d, a))| differs(dist.get(*row), **d) || differs(alpha.get(*row), **a));
        self.different += different.count() as u64;
        Ok(())
    }

    /// Adds the facts of other rows of the same file.
    pub(crate) fn merge(&mut self, other: &Facts) {
        self.warnings.extend(other.warnings.iter().cloned());
        self.compared += other.compared;
        self.different += other.different;
        self.offset = match (self.offset, other.offset) {
            (Some([a, b]), Some([c, d])) => Some([a.min(c), b.max(d)]),
            (one, other) => one.or(other),
        };
    }

    /// Returns the facts as numbers, for the attributes of a piece.
    pub(crate) fn to_numbers(&self) -> Vec<f64> {
        let counts = [self.compared as f64, self.different as f64];
        counts.into_iter().chain(self.offset.into_iter().flatten()).collect()
    }

    /// Returns the facts of a piece from its numbers and its warnings.
    pub(crate) fn from_numbers(numbers: &[f64], warnings: Vec<String>) -> Facts {
        let offset = numbers.get(2).zip(numbers.get(3)).map(|(a, b)| [*a, *b]);
        let count = |i: usize| numbers.get(i).copied().unwrap_or(0.0) as u64;
        Facts { warnings, offset, compared: count(0), different: count(1) }
    }

    /// Refuses a file whose `dist` and `alpha` do not agree with its geometry.
    ///
    /// # Errors
    /// `Input`.
    pub(crate) fn refuse_wrong_geometry(&self, path: &Path) -> Result<()> {
        let allowed = MOST_DIFFERENT * self.compared as f64;
        if self.different as f64 <= allowed {
            return Ok(());
        }
        Err(Fault::new("dist and alpha do not agree with centroid, axis and source")
            .file(path)
            .expected(format!("differences over {WITHIN_DEG} deg in at most 1 % of the rows"))
            .found(format!("{} of {} rows", self.different, self.compared))
            .advice("units, axis or sign are wrong: look at the file with `taiga-flow check`")
            .input())
    }
}

/// Refuses a table whose centroid, axis or source is not in deg.
fn check_geometry(plan: &ScoringPlan, table: &Table) -> Result<()> {
    let geometry = plan.positions.iter().flat_map(|at| at.geometry);
    for wanted in geometry.filter_map(|slot| plan.wanted[slot].as_ref()) {
        let mut units = wanted.names.iter().filter_map(|name| Some((name, table.unit(name)?)));
        if let Some((name, unit)) = units.next().filter(|(_, unit)| *unit != "deg") {
            return Err(Fault::new("source positions need degrees")
                .file(table.path())
                .column(name)
                .expected("deg")
                .found(unit)
                .advice("convert the column in a schema file (see configs/schema)")
                .input());
        }
    }
    Ok(())
}
