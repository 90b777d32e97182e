//! The section `[score]`: the columns of a score file, and the source positions at which events are
//! scored.

use super::range::check;
use super::{Config, Cut};
use crate::error::{Fault, Result, did_you_mean};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Largest number of source positions; memory is proportional to it.
pub(crate) const MAX_POSITIONS: usize = 32;
/// Positions nearer to each other than this contain the same events [deg].
const MIN_TURN_DEG: f64 = 15.0;
/// Bits of the column `pass`.
pub(crate) const MAX_WORKING_POINTS: usize = 8;
/// Bits of the column `quality`.
pub(crate) const MAX_QUALITY_CUTS: usize = 32;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Score {
    /// Columns in addition to keys and `status`.
    pub columns: Vec<ScoreColumn>,
    /// Whether keys and `class` are copied.
    #[serde(skip_serializing_if = "is_true")]
    pub keys: bool,
    /// Whether the column `status` is written.
    #[serde(skip_serializing_if = "is_true")]
    pub status: bool,
    /// Quantities that are copied as they were read.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub copy: Vec<String>,
    /// Positions at which each event is scored; if absent, the `alpha` and `dist` of the file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub positions: Option<SourcePositions>,
    #[serde(skip_serializing_if = "is_default")]
    pub disp: Disp,
    /// Bounds by quantity; a row outside of one gets its bit of `quality`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub quality: BTreeMap<String, Cut>,
    /// Thresholds of the column `pass`; if empty, the threshold of the model.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub working_points: Vec<WorkingPoint>,
    /// Table from which `energy` is looked up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub energy_table: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScoreColumn {
    /// Higher values are more gamma-like.
    Score,
    LogProb,
    /// log p with the Jacobian of the coordinates: the density per raw unit.
    LogProbRaw,
    /// Probability of a gamma for equal numbers of both classes, of calibrated models.
    Gammaness,
    /// The same for the share of gammas among triggered events in the model.
    Posterior,
    /// Share of held-out normal events that are at most as normal as this one.
    PValue,
    /// |z|² of the latent point.
    Chi2,
    /// Bit i is set if working point i is passed.
    Pass,
    /// Computed from centroid and axis, at a source position.
    Dist,
    Alpha,
    Theta2,
}

impl ScoreColumn {
    pub(crate) fn name(self) -> &'static str {
        match self {
            ScoreColumn::Score => "score",
            ScoreColumn::LogProb => "log_prob",
            ScoreColumn::LogProbRaw => "log_prob_raw",
            ScoreColumn::Gammaness => "gammaness",
            ScoreColumn::Posterior => "posterior",
            ScoreColumn::PValue => "p_value",
            ScoreColumn::Chi2 => "chi2",
            ScoreColumn::Pass => "pass",
            ScoreColumn::Dist => "dist",
            ScoreColumn::Alpha => "alpha",
            ScoreColumn::Theta2 => "theta2",
        }
    }

    /// Returns whether the column needs assumed source positions.
    pub(crate) fn is_of_position(self) -> bool {
        matches!(self, ScoreColumn::Dist | ScoreColumn::Alpha | ScoreColumn::Theta2)
    }
}

/// Rotations of the source about the camera centre.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum SourcePositions {
    /// A full turn in this many equal steps, starting at the source.
    Equal(usize),
    /// Angles from the source [deg].
    Angles(Vec<f64>),
}

impl SourcePositions {
    /// Checks the number of positions and their distances.
    fn validate(&self) -> Result<()> {
        let angles = match self {
            SourcePositions::Equal(count) => vec![0.0; *count],
            SourcePositions::Angles(angles) => angles.clone(),
        };
        let allowed = (1..=MAX_POSITIONS).contains(&angles.len());
        let expected = format!("1 to {MAX_POSITIONS}");
        check("number of score.positions", angles.len(), allowed, &expected)?;
        let found = format!("{angles:?}");
        let usable = angles.iter().all(|a| a.is_finite() && a.abs() <= 360.0) && angles[0] == 0.0;
        let expected = "angles within ±360 deg, the first of them 0";
        check("score.positions", &found, usable, expected)?;
        let SourcePositions::Angles(angles) = self else { return Ok(()) };
        let is_apart = |i: usize| angles[..i].iter().all(|b| turn(angles[i], *b) >= MIN_TURN_DEG);
        let expected = format!("positions at least {MIN_TURN_DEG} deg apart, also from the source");
        check("score.positions", found, (1..angles.len()).all(is_apart), &expected)
    }

    /// Returns the angles from the source [deg].
    pub(crate) fn angles(&self) -> Vec<f64> {
        match self {
            SourcePositions::Equal(count) => {
                (0..*count).map(|k| 360.0 * k as f64 / *count as f64).collect()
            }
            SourcePositions::Angles(angles) => angles.clone(),
        }
    }
}

/// Returns the angle between two rotations [deg].
fn turn(a: f64, b: f64) -> f64 {
    libm::fabs(libm::remainder(a - b, 360.0))
}

/// Choice between the two points on the axis at the distance DISP from the centroid, for θ².
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Disp {
    /// The nearer one.
    #[default]
    Near,
    /// The one on the side of the head of the image, as given by its skewness.
    Head,
}

/// A named threshold.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkingPoint {
    pub name: String,
    /// Smallest value that passes; if absent, the threshold of the model, by bins if it has them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threshold: Option<f64>,
    #[serde(default = "score_column")]
    pub column: ScoreColumn,
}

fn score_column() -> ScoreColumn {
    ScoreColumn::Score
}

impl Default for Score {
    fn default() -> Score {
        Score {
            columns: vec![ScoreColumn::Score, ScoreColumn::LogProb],
            keys: true,
            status: true,
            copy: Vec::new(),
            positions: None,
            disp: Disp::default(),
            quality: BTreeMap::new(),
            working_points: Vec::new(),
            energy_table: None,
        }
    }
}

#[allow(clippy::trivially_copy_pass_by_ref)] // the signature serde requires
fn is_true(x: &bool) -> bool {
    *x
}

#[allow(clippy::trivially_copy_pass_by_ref)] // the signature serde requires
fn is_default(disp: &Disp) -> bool {
    *disp == Disp::default()
}

impl Config {
    pub(super) fn validate_score(&self) -> Result<()> {
        self.score.validate()
    }
}

impl Score {
    /// Runs the checks that need neither file nor model.
    ///
    /// # Errors
    /// `Usage`, with the key and its value.
    pub(crate) fn validate(&self) -> Result<()> {
        self.validate_columns()?;
        self.positions.iter().try_for_each(SourcePositions::validate)?;
        let points = self.working_points.len();
        let allowed = points <= MAX_WORKING_POINTS;
        check("number of score.working_points", points, allowed, "at most 8")?;
        self.working_points.iter().try_for_each(WorkingPoint::validate)?;
        for (i, point) in self.working_points.iter().enumerate() {
            let is_new = self.working_points[..i].iter().all(|other| other.name != point.name);
            check("name in score.working_points", &point.name, is_new, "different names")?;
        }
        self.validate_quality()
    }

    /// Checks the number of quality cuts and their bounds.
    fn validate_quality(&self) -> Result<()> {
        let cuts = self.quality.len();
        check("number of score.quality", cuts, cuts <= MAX_QUALITY_CUTS, "at most 32")?;
        for (name, cut) in &self.quality {
            let name = format!("score.quality.{name}");
            let has_bound = cut.min.is_some() || cut.max.is_some();
            check(&name, "no bounds", has_bound, "min, max or both")?;
            cut.validate(&name)?;
        }
        Ok(())
    }

    /// Checks the columns one by one.
    fn validate_columns(&self) -> Result<()> {
        let any = !self.columns.is_empty() || self.status;
        check("number of score.columns", self.columns.len(), any, "1 or more without status")?;
        for (i, column) in self.columns.iter().enumerate() {
            let fault = |what: &str| Fault::new(what).column(column.name());
            if self.columns[..i].contains(column) {
                return Err(fault("a duplicate column in score.columns").usage());
            }
            if column.is_of_position() && self.positions.is_none() {
                return Err(fault("a column that needs source positions")
                    .advice("set score.positions = 6 (or 1), or copy the column of the file with score.copy")
                    .usage());
            }
        }
        Ok(())
    }
}

impl WorkingPoint {
    /// Checks the threshold and its column.
    fn validate(&self) -> Result<()> {
        if let Some(threshold) = self.threshold {
            let name = format!("threshold of working point {}", self.name);
            check(&name, threshold, threshold.is_finite(), "a finite number")?;
        }
        let column = self.column;
        let own = column == ScoreColumn::Score || self.threshold.is_some();
        let expected = "a threshold: that of the model applies to the score only";
        check(&format!("working point {}", self.name), column.name(), own, expected)?;
        let other = matches!(column, ScoreColumn::Pass | ScoreColumn::Chi2);
        if !other && !column.is_of_position() {
            return Ok(());
        }
        let known = ["score", "log_prob", "gammaness", "posterior", "p_value"];
        Err(Fault::new("a working point of a column that is not a score")
            .column(column.name())
            .advice(did_you_mean(column.name(), &known))
            .usage())
    }
}
