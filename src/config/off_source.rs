//! Settings of hadrons from experimental files, off the source: positions, excluded events, and
//! folds of runs.

use super::range::check;
use super::{Class, Config, Mode};
use crate::error::{Fault, Result};
use serde::{Deserialize, Serialize};

/// A position nearer to the source than this angle about the camera centre [deg] shares events with
/// it: excluding events of the source would cut a hole at small alpha.
pub(crate) const MIN_ANGLE: f64 = 45.0;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OffSource {
    /// Positions at which alpha and dist of training events are computed.
    pub positions: OffPositions,
    /// Events whose θ² at the source is below this value are excluded [deg²]; 0: none.
    pub exclude_theta2: f64,
    /// The key that identifies a run; if empty, `run` if all files have this key, otherwise
    /// `run_id`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub run: String,
    /// Number of folds of runs. Those of `fold` are not trained on, and are the only training files
    /// that the model may score.
    pub folds: u64,
    pub fold: u64,
}

/// Assumed source positions, at the distance of the source from the camera centre; one of them is
/// drawn per event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum OffPositions {
    /// A full turn in this many equal steps, without the source itself.
    Equal(usize),
    /// Angles from the source [deg].
    Angles(Vec<f64>),
    Named(NamedPositions),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NamedPositions {
    /// Any angle of at least 45 deg.
    Random,
}

impl Default for OffSource {
    fn default() -> OffSource {
        OffSource {
            positions: OffPositions::Equal(6),
            exclude_theta2: 0.0,
            run: String::new(),
            folds: 5,
            fold: 0,
        }
    }
}

impl Config {
    /// Returns the settings of hadrons from experimental files, if there are any.
    pub(crate) fn off_source(&self) -> Option<OffSource> {
        (!self.data.off.is_empty()).then(|| self.off_source.clone().unwrap_or_default())
    }

    pub(super) fn validate_off_source(&self) -> Result<()> {
        let Some(off) = self.off_source() else {
            return match &self.off_source {
                None => Ok(()),
                Some(_) => Err(Fault::new("configuration: [off_source] without data.off")
                    .expected("experimental files in data.off")
                    .usage()),
            };
        };
        let learns_hadrons = self.model.mode == Mode::Ratio || self.model.normal == Class::Hadron;
        if !learns_hadrons {
            return Err(Fault::new("configuration: data.off does not fit the mode")
                .expected("mode = \"ratio\", or model.normal = \"hadron\"")
                .usage());
        }
        if !self.data.mixed.is_empty() {
            return Err(Fault::new("configuration: hadrons both in data.off and in data.mixed")
                .expected("gammas in data.gamma, and no data.mixed together with data.off")
                .usage());
        }
        off.validate()
    }
}

impl OffSource {
    fn validate(&self) -> Result<()> {
        match &self.positions {
            OffPositions::Equal(count) => {
                let most = (360.0 / MIN_ANGLE) as usize;
                let allowed = (2..=most).contains(count);
                check("off_source.positions", count, allowed, &format!("2 to {most}"))?;
            }
            OffPositions::Angles(angles) => {
                let known = !angles.is_empty() && angles.iter().all(|a| a.is_finite());
                check("off_source.positions", angles.len(), known, "one angle or more")?;
                if let Some(near) = angles.iter().find(|a| from_source(**a) < MIN_ANGLE) {
                    return Err(Fault::new("configuration: a training position is too near to the source")
                        .expected(format!("off_source.positions at least {MIN_ANGLE} deg from it"))
                        .found(format!("{near} deg"))
                        .advice("events near the source are excluded, so hadrons of small alpha are missing: compute alpha and dist at other positions")
                        .usage());
                }
            }
            OffPositions::Named(NamedPositions::Random) => {}
        }
        let theta2 = self.exclude_theta2;
        check("off_source.exclude_theta2", theta2, (0.0..=1.0).contains(&theta2), "0 to 1 deg²")?;
        check("off_source.folds", self.folds, (2..=1000).contains(&self.folds), "2 to 1000")?;
        check("off_source.fold", self.fold, self.fold < self.folds, "below off_source.folds")
    }
}

/// Returns the angle to the source on the circle [deg].
fn from_source(angle: f64) -> f64 {
    let turn = angle.rem_euclid(360.0);
    turn.min(360.0 - turn) + 1e-9
}
