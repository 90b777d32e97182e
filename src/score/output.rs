//! One output file: group `scores`, one dataset per column, a row per input row.

use crate::config::{Score, ScoreColumn};
use crate::data::columns::{Attribute, ColumnSpec, ColumnWriter, Kind, Values};
use crate::data::selection::STATUS_BITS;
use crate::data::table::Block;
use crate::engine::Scored;
use crate::error::{Fault, Result};
use std::collections::BTreeMap;
use std::path::Path;

pub const GROUP: &str = "scores";
pub const FORMAT: &str = "taiga-flow-scores";
pub const VERSION: i64 = 1;

/// What an output is made of: the blake3 of each, as its attributes tell.
pub struct MadeOf<'a> {
    pub input: &'a str,
    pub model: &'a str,
    /// See [`settings_hash`](super::resume::settings_hash).
    pub settings: &'a str,
}

/// An output file being written.
pub struct Output {
    writer: ColumnWriter,
    columns: Vec<ScoreColumn>,
    class: bool,
    status: [u64; STATUS_BITS.len()],
}

impl Output {
    pub fn create(
        path: &Path,
        keys: &[String],
        class: bool,
        score: &Score,
        overwrite: bool,
    ) -> Result<Output> {
        let mut specs: Vec<ColumnSpec> =
            keys.iter().map(|k| ColumnSpec::new(k, Kind::I64, None)).collect();
        if class {
            specs.push(ColumnSpec::new("class", Kind::I8, None));
        }
        for column in &score.columns {
            let (name, unit) = match column {
                ScoreColumn::Score => ("score", "nat"),
                ScoreColumn::LogProb => ("log_prob", "nat"),
                ScoreColumn::LogProbRaw => ("log_prob_raw", "nat"),
            };
            specs.push(ColumnSpec::new(name, Kind::F32, Some(unit)));
        }
        specs.push(ColumnSpec::new("status", Kind::U32, None));
        let writer = ColumnWriter::create(path, GROUP, &specs, overwrite)?;
        Ok(Output { writer, columns: score.columns.clone(), class, status: [0; STATUS_BITS.len()] })
    }

    pub fn append(&mut self, block: &Block, scored: &Scored) -> Result<()> {
        let mut values: Vec<Values> = block.keys.iter().map(|k| Values::I64(k)).collect();
        if let (true, Some(class)) = (self.class, &block.class) {
            values.push(Values::I8(class));
        }
        for column in &self.columns {
            values.push(Values::F32(match column {
                ScoreColumn::Score => &scored.score,
                ScoreColumn::LogProb => &scored.log_prob,
                ScoreColumn::LogProbRaw => &scored.log_prob_raw,
            }));
        }
        values.push(Values::U32(&scored.status));
        for (count, (bit, _)) in self.status.iter_mut().zip(STATUS_BITS) {
            *count += scored.status.iter().filter(|s| *s & bit != 0).count() as u64;
        }
        self.writer.append(&values)
    }

    /// Rows so far by status bit.
    pub fn status(&self) -> BTreeMap<String, u64> {
        named_counts(self.status)
    }

    /// Gives the file its name; refuses if a row is missing.
    pub fn finish(self, rows: u64, made_of: &MadeOf) -> Result<u64> {
        if self.writer.rows() != rows {
            return Err(Fault::new("rows out are not rows in")
                .expected(rows)
                .found(self.writer.rows())
                .internal());
        }
        let bits: Vec<String> =
            STATUS_BITS.iter().map(|(bit, name)| format!("{bit}: {name}")).collect();
        let text = |name: &str, value: &str| (name.to_string(), Attribute::Text(value.to_string()));
        self.writer.finish(&[
            text("format", FORMAT),
            ("version".to_string(), Attribute::Integer(VERSION)),
            text("input_blake3", made_of.input),
            text("model_blake3", made_of.model),
            text("settings_blake3", made_of.settings),
            text("code_version", env!("CARGO_PKG_VERSION")),
            text("status_bits", &bits.join("; ")),
            ("complete".to_string(), Attribute::Integer(1)),
        ])
    }
}

/// Counts in the order of the status bits, by name.
pub fn named_counts(counts: [u64; STATUS_BITS.len()]) -> BTreeMap<String, u64> {
    STATUS_BITS.iter().zip(counts).map(|((_, name), count)| ((*name).to_string(), count)).collect()
}
