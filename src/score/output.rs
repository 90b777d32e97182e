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

/// The columns of a score file for a model: (what, which flow, name). Log-likelihoods of a
/// model of several flows are one column per flow, `log_prob_gamma`, `log_prob_hadron`.
pub fn columns(
    score: &Score,
    flows: &[&str],
    calibrated: bool,
) -> Result<Vec<(ScoreColumn, usize, String)>> {
    let mut columns = Vec::new();
    for column in &score.columns {
        let stem = match column {
            ScoreColumn::Score => "score",
            ScoreColumn::LogProb => "log_prob",
            ScoreColumn::LogProbRaw => "log_prob_raw",
            ScoreColumn::Gammaness => "gammaness",
            ScoreColumn::Posterior => "posterior",
        };
        match column {
            ScoreColumn::LogProb | ScoreColumn::LogProbRaw if flows.len() > 1 => {
                for (flow, name) in flows.iter().enumerate() {
                    columns.push((*column, flow, format!("{stem}_{name}")));
                }
            }
            ScoreColumn::Gammaness | ScoreColumn::Posterior if !calibrated => {
                return Err(Fault::new(format!("the model gives no {stem}"))
                    .expected(
                        "a model calibrated on held-out events of both classes (mode = \"ratio\")",
                    )
                    .advice("leave the column out of [score] columns")
                    .usage());
            }
            _ => columns.push((*column, 0, stem.to_string())),
        }
    }
    Ok(columns)
}

/// An output file being written.
pub struct Output {
    writer: ColumnWriter,
    columns: Vec<(ScoreColumn, usize)>, // and which flow's
    class: bool,
    status: [u64; STATUS_BITS.len()],
}

impl Output {
    pub fn create(
        path: &Path,
        keys: &[String],
        class: bool,
        columns: &[(ScoreColumn, usize, String)],
        overwrite: bool,
    ) -> Result<Output> {
        let mut specs: Vec<ColumnSpec> =
            keys.iter().map(|k| ColumnSpec::new(k, Kind::I64, None)).collect();
        if class {
            specs.push(ColumnSpec::new("class", Kind::I8, None));
        }
        for (column, _, name) in columns {
            let unit = match column {
                ScoreColumn::Gammaness | ScoreColumn::Posterior => "1",
                _ => "nat",
            };
            specs.push(ColumnSpec::new(name, Kind::F32, Some(unit)));
        }
        specs.push(ColumnSpec::new("status", Kind::U32, None));
        let writer = ColumnWriter::create(path, GROUP, &specs, overwrite)?;
        let columns = columns.iter().map(|(column, flow, _)| (*column, *flow)).collect();
        Ok(Output { writer, columns, class, status: [0; STATUS_BITS.len()] })
    }

    pub fn append(&mut self, block: &Block, scored: &Scored) -> Result<()> {
        let mut values: Vec<Values> = block.keys.iter().map(|k| Values::I64(k)).collect();
        if let (true, Some(class)) = (self.class, &block.class) {
            values.push(Values::I8(class));
        }
        for (column, flow) in &self.columns {
            values.push(Values::F32(match column {
                ScoreColumn::Score => &scored.score,
                ScoreColumn::LogProb => &scored.log_prob[*flow],
                ScoreColumn::LogProbRaw => &scored.log_prob_raw[*flow],
                ScoreColumn::Gammaness => &scored.gammaness,
                ScoreColumn::Posterior => &scored.posterior,
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
