//! Manifest of a folder of scores, which is also the summary of the command.

use super::scoring_plan::ScoringPlan;
use crate::dataset::failures::FailedFile;
use crate::dataset::output::ledger::{self, ListedFile};
use crate::error::{Fault, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// Entry of a scored file in the manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScoredFile {
    /// Path relative to the output folder.
    pub output: String,
    pub rows: u64,
    pub input_blake3: String,
    pub output_blake3: String,
    /// Rows without a score at any position.
    #[serde(default)]
    pub unusable: u64,
    /// Rows with a score that are outside the cuts at all positions.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub outside: u64,
    /// Rows with a time outside of 2000 to 2100, such as seconds instead of nanoseconds.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub implausible_times: u64,
    /// Quantities of the input whose first values are not plausible.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// Rows by status bit; with source positions, pairs of event and position. A row can have
    /// several bits.
    pub status: BTreeMap<String, u64>,
}

/// Format of the manifest.
pub(super) const FORMAT: &str = "taiga-flow-scores 1";

/// Least share of the rows inside the cuts without a warning.
const LEAST_INSIDE: f64 = 0.01;

/// Unit of the counts by status of a scoring with source positions.
const PAIRS: &str = "(event, position) pairs";

#[allow(clippy::trivially_copy_pass_by_ref)] // the signature that serde requires
fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// Result of a scoring, and manifest of the output folder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    pub format: String,
    pub model_blake3: String,
    /// Hash of the section `[score]`, the format and the energy table; absent in manifests of
    /// older programs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settings_blake3: Option<String>,
    /// Angles of the source positions [deg].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub positions: Option<Vec<f64>>,
    /// Unit of the counts by status, if it is not rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status_counts: Option<String>,
    pub files: Vec<ScoredFile>,
    pub rows: u64,
    /// Input path → fault.
    pub failed: BTreeMap<String, FailedFile>,
    /// Outputs that are missing because the model was trained on runs of their inputs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<String>,
    /// Whether the run has ended; written only if not.
    #[serde(default = "complete", skip_serializing_if = "Clone::clone")]
    pub complete: bool,
    /// Hash of the list of files of all parts, in the manifest of a part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listing: Option<String>,
}

fn complete() -> bool {
    true
}

impl ListedFile for ScoredFile {
    const ROWS_KEY: &str = "rows";

    fn output(&self) -> &str {
        &self.output
    }

    fn rows(&self) -> u64 {
        self.rows
    }

    fn input_blake3(&self) -> &str {
        &self.input_blake3
    }

    fn output_blake3(&self) -> &str {
        &self.output_blake3
    }
}

impl ScoredFile {
    /// Returns warnings about the file. They do not affect its scores.
    pub(super) fn warnings(&self) -> impl Iterator<Item = String> {
        let times = (self.implausible_times > 0).then(|| {
            format!(
                "{}: {} of {} rows have a time (unix_time_ns) outside of 2000 to 2100; seconds instead of ns? `season` leaves such runs out of live time, rates and σ/√h",
                self.output, self.implausible_times, self.rows
            )
        });
        let inside = self.rows - self.unusable.min(self.rows) - self.outside.min(self.rows);
        let none = ((inside as f64) < LEAST_INSIDE * self.rows as f64).then(|| {
            let few = match inside {
                0 => "no row is".to_string(),
                few => format!("only {few} of {} rows are", self.rows),
            };
            format!(
                "{}: {few} inside the model's cuts ({} of {} rows have no score); are units and schema right?",
                self.output, self.unusable, self.rows
            )
        });
        times.into_iter().chain(none)
    }
}

impl Summary {
    /// Creates a summary without files.
    pub(super) fn empty(model: &str, plan: &ScoringPlan, settings: &str) -> Summary {
        Summary {
            format: FORMAT.to_string(),
            model_blake3: model.to_string(),
            settings_blake3: Some(settings.to_string()),
            positions: plan.positions.as_ref().map(|at| at.angles.clone()),
            status_counts: plan.positions.as_ref().map(|_| PAIRS.to_string()),
            files: Vec::new(),
            rows: 0,
            failed: BTreeMap::new(),
            left_out: Vec::new(),
            complete: true,
            listing: None,
        }
    }

    /// Returns whether both have the same model, settings and positions.
    pub(super) fn is_like(&self, other: &Summary) -> bool {
        self.model_blake3 == other.model_blake3
            && self.settings_blake3 == other.settings_blake3
            && self.positions == other.positions
    }

    /// Reads the manifest at a path; `None` if there is none.
    ///
    /// # Errors
    /// `Input` if the file cannot be read, or if its counts are impossible.
    pub fn read(path: &Path) -> Result<Option<Summary>> {
        let Some(summary) = ledger::read_manifest::<Summary>(path)? else { return Ok(None) };
        ledger::refuse_impossible(path, &summary.files, "rows", |f| f.rows.max(f.unusable))?;
        Ok(Some(summary))
    }

    pub(super) fn to_bytes(&self) -> Result<Vec<u8>> {
        serde_json::to_vec_pretty(self)
            .map_err(|e| Fault::new("cannot write the manifest").found(e).internal())
    }
}

impl std::fmt::Display for Summary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "scored {} rows in {} file(s)", self.rows, self.files.len())?;
        let mut status: BTreeMap<&str, u64> = BTreeMap::new();
        for (reason, rows) in self.files.iter().flat_map(|file| &file.status) {
            *status.entry(reason).or_default() += rows;
        }
        let positions = self.positions.as_ref().map(Vec::len);
        for (reason, count) in status.iter().filter(|(_, count)| **count > 0) {
            match positions {
                None => writeln!(f, "  {count} rows {reason}")?,
                Some(positions) => {
                    let all = self.rows * positions as u64;
                    writeln!(f, "  {count} of {all} {PAIRS} {reason}")?;
                }
            }
        }
        let unusable: u64 = self.files.iter().map(|file| file.unusable).sum();
        if positions.is_some() && unusable > 0 {
            writeln!(f, "  {unusable} rows without a score at any position")?;
        }
        for (file, fault) in &self.failed {
            writeln!(f, "failed: {file}: {fault}")?;
        }
        Ok(())
    }
}
