//! Writes an output file with a row per input row: HDF5 (group `scores`, one dataset per column),
//! or a text table.

use super::Format;
use super::input::Facts;
use super::scoring_plan::{ScoredRows, ScoringPlan};
use crate::data::schema::columns::{Attribute, ColumnSpec, ColumnType, ColumnValues, ColumnWriter};
use crate::data::schema::unix_time;
use crate::data::selection::{STATUS_BITS, UNUSABLE};
use crate::data::text::writer::TextWriter;
use crate::error::{Fault, Result};
use std::collections::BTreeMap;
use std::path::Path;

pub(crate) const GROUP: &str = "scores";
pub(crate) const FORMAT: &str = "taiga-flow-scores";
pub(crate) const VERSION: i64 = 1;
/// Version of files with assumed source positions. In version 2, `energy` was one value per event,
/// at the source, also for events that count at an OFF position.
pub(crate) const VERSION_WITH_POSITIONS: i64 = 3;
/// Format of the pieces of a file, which are merged later.
pub(crate) const PIECE_FORMAT: &str = "taiga-flow-scores-piece";

/// Origin of an output, as in its attributes: the blake3 of input, model and settings.
#[derive(Debug, Clone)]
pub(crate) struct Provenance {
    /// Path of the input relative to the root.
    pub name: String,
    pub input: String,
    pub model: String,
    /// See [`settings_hash`](super::resume::settings_hash).
    pub settings: String,
}

/// Numbers of rows by status.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct StatusCounts {
    /// By status bit, over all positions.
    status: [u64; STATUS_BITS.len()],
    /// Without a score at any position.
    pub unusable: u64,
    /// With a score, but outside the cuts at all positions.
    pub outside: u64,
    /// With a time (key `unix_time_ns`) that is not plausible.
    pub implausible_times: u64,
}

impl StatusCounts {
    /// Adds the status (positions, rows) of rows.
    pub(crate) fn add(&mut self, status: &[u32], positions: usize) {
        for (count, (bit, _)) in self.status.iter_mut().zip(STATUS_BITS) {
            *count += status.iter().filter(|s| *s & bit != 0).count() as u64;
        }
        let rows = status.len() / positions.max(1);
        let without = |row: &usize| (0..positions).all(|k| status[k * rows + row] & UNUSABLE != 0);
        let unusable = (0..rows).filter(without).count() as u64;
        let not_inside = |row: &usize| (0..positions).all(|k| status[k * rows + row] != 0);
        self.unusable += unusable;
        self.outside += (0..rows).filter(not_inside).count() as u64 - unusable;
    }

    /// Adds the times of rows.
    pub(crate) fn add_times(&mut self, times: &[i64]) {
        let implausible = times.iter().filter(|time| !unix_time::is_plausible(**time));
        self.implausible_times += implausible.count() as u64;
    }

    pub(crate) fn merge(&mut self, other: &StatusCounts) {
        self.implausible_times += other.implausible_times;
        self.status.iter_mut().zip(other.status).for_each(|(a, b)| *a += b);
        self.unusable += other.unusable;
        self.outside += other.outside;
    }

    /// Returns the counts by the name of the bit.
    pub(crate) fn by_name(&self) -> BTreeMap<String, u64> {
        let named = STATUS_BITS.iter().zip(self.status);
        named.map(|((_, name), count)| ((*name).to_string(), count)).collect()
    }

    pub(crate) fn to_numbers(&self) -> Vec<f64> {
        let more = [&self.unusable, &self.implausible_times, &self.outside];
        self.status.iter().chain(more).map(|n| *n as f64).collect()
    }

    pub(crate) fn from_numbers(numbers: &[f64]) -> StatusCounts {
        let at = |i: usize| numbers.get(i).copied().unwrap_or(0.0) as u64;
        let [unusable, implausible_times, outside] = [0, 1, 2].map(|i| at(STATUS_BITS.len() + i));
        let mut counts =
            StatusCounts { unusable, outside, implausible_times, ..StatusCounts::default() };
        counts.status.iter_mut().enumerate().for_each(|(i, count)| *count = at(i));
        counts
    }
}

/// An output file being written.
pub(crate) struct ScoreOutput {
    writer: Writer,
    class: bool,
    /// Index of the key with times, if there is one.
    time: Option<usize>,
    pub counts: StatusCounts,
}

enum Writer {
    Columns(ColumnWriter),
    Text(TextWriter),
}

impl ScoreOutput {
    pub(crate) fn create(
        path: &Path,
        format: Format,
        specs: &[ColumnSpec],
        class: bool,
        overwrite: bool,
    ) -> Result<ScoreOutput> {
        let writer = match format {
            Format::Hdf5 => Writer::Columns(ColumnWriter::create(path, GROUP, specs, overwrite)?),
            Format::Csv => Writer::Text(TextWriter::create(path, specs, overwrite)?),
        };
        let is_time =
            |spec: &ColumnSpec| spec.name == unix_time::COLUMN && spec.kind == ColumnType::I64;
        let time = specs.iter().position(is_time);
        Ok(ScoreOutput { writer, class, time, counts: StatusCounts::default() })
    }

    pub(crate) fn append(&mut self, plan: &ScoringPlan, rows: &ScoredRows) -> Result<()> {
        self.counts.add(&rows.scored.status, plan.width());
        if let Some(times) = self.time.and_then(|key| rows.block.keys.get(key)) {
            self.counts.add_times(times);
        }
        self.append_values(&plan.values(rows, self.class))
    }

    pub(crate) fn append_values(&mut self, values: &[ColumnValues]) -> Result<()> {
        match &mut self.writer {
            Writer::Columns(writer) => writer.append(values),
            Writer::Text(writer) => writer.append(values),
        }
    }

    fn rows(&self) -> u64 {
        match &self.writer {
            Writer::Columns(writer) => writer.rows(),
            Writer::Text(writer) => writer.rows(),
        }
    }

    /// Writes the attributes and gives the file its final name.
    ///
    /// # Errors
    /// `Internal` if a row is missing.
    pub(crate) fn finish(
        self,
        plan: &ScoringPlan,
        rows: u64,
        made_of: &Provenance,
        facts: &Facts,
    ) -> Result<()> {
        self.refuse_missing(rows)?;
        let writer = match self.writer {
            Writer::Columns(writer) => writer,
            Writer::Text(writer) => return writer.finish(),
        };
        let text = |name: &str, value: &str| (name.to_string(), Attribute::Text(value.to_string()));
        let bits: Vec<String> =
            STATUS_BITS.iter().map(|(bit, name)| format!("{bit}: {name}")).collect();
        let version = if plan.positions.is_some() { VERSION_WITH_POSITIONS } else { VERSION };
        let mut attributes = vec![
            text("format", FORMAT),
            ("version".to_string(), Attribute::Integer(version)),
            text("input", &made_of.name),
            text("input_blake3", &made_of.input),
            text("model_blake3", &made_of.model),
            text("settings_blake3", &made_of.settings),
            text("settings", &plan.settings_text),
            text("code_version", env!("CARGO_PKG_VERSION")),
            text("status_bits", &bits.join("; ")),
            ("complete".to_string(), Attribute::Integer(1)),
        ];
        if let Some(at) = &plan.positions {
            writer.group_attribute("positions", &Attribute::Numbers(at.angles.clone()))?;
            let offset = facts.offset.unwrap_or([f64::NAN; 2]).to_vec();
            attributes.push(("source_offset".to_string(), Attribute::Numbers(offset)));
        }
        if !plan.working_points.is_empty() {
            let text = Attribute::Text(plan.working_points_text());
            writer.group_attribute("working_points", &text)?;
        }
        if let Some(calibration) = plan.written_calibration() {
            for (name, ends) in [
                ("resolved_scores", calibration.resolved),
                ("gammaness_limits", calibration.gammaness_limits()),
                ("posterior_limits", calibration.posterior_limits()),
            ] {
                let Some(ends) = ends else { continue };
                writer.group_attribute(name, &Attribute::Numbers(ends.to_vec()))?;
            }
        }
        if !plan.quality.is_empty() {
            writer.group_attribute("quality_bits", &Attribute::Text(plan.quality_text()))?;
        }
        writer.finish(&attributes).map(|_| ())
    }

    /// Finishes a piece of `rows` rows; `stamps` are the portable and the exact stamp of the input.
    pub(crate) fn finish_piece(
        self,
        rows: u64,
        settings: &str,
        stamps: [&str; 2],
        facts: &Facts,
    ) -> Result<()> {
        self.refuse_missing(rows)?;
        let Writer::Columns(writer) = self.writer else {
            return Err(Fault::new("a piece of a file cannot be a text table").internal());
        };
        let text = |name: &str, value: &str| (name.to_string(), Attribute::Text(value.to_string()));
        let warnings = serde_json::to_string(&facts.warnings)
            .map_err(|e| Fault::new("cannot write the warnings").found(e).internal())?;
        writer
            .finish(&[
                text("format", PIECE_FORMAT),
                text("warnings", &warnings),
                text("settings_blake3", settings),
                text("input_stamp", stamps[0]),
                text("input_exact_stamp", stamps[1]),
                ("counts".to_string(), Attribute::Numbers(self.counts.to_numbers())),
                ("facts".to_string(), Attribute::Numbers(facts.to_numbers())),
                ("complete".to_string(), Attribute::Integer(1)),
            ])
            .map(|_| ())
    }

    fn refuse_missing(&self, rows: u64) -> Result<()> {
        if self.rows() == rows {
            return Ok(());
        }
        Err(Fault::new("the output does not have the rows of its input")
            .expected(rows)
            .found(self.rows())
            .internal())
    }
}
