//! Rates and time of an observation for which a threshold is optimised.

use super::{CalibrationConfig, ThresholdRule};
use crate::error::{Fault, Result};
use serde::{Deserialize, Serialize};

/// OFF positions of TAIGA's wobble mode: six positions, one of which is the source.
pub(crate) const OFF_POSITIONS: u64 = 5;
/// Largest number of OFF positions, and largest rate and time, that are not a typing error.
const MAX_OFF: u64 = 1000;
const LARGEST: f64 = 1e12;

/// Assumed properties of an observation. Rates are those of triggered and cleaned events, before
/// the cuts of a model.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Observation {
    /// Gammas of the source.
    pub gamma_rate_per_hour: f64,
    /// Background events: all others.
    pub background_rate_per_hour: f64,
    pub hours: f64,
    /// OFF positions, each with the exposure of the source: α = 1/n.
    pub off_positions: u64,
    /// Share of the gammas inside the cuts.
    #[serde(default = "all", skip_serializing_if = "is_all")]
    pub gammas_inside: f64,
    /// Share of the background inside the cuts.
    #[serde(default = "all", skip_serializing_if = "is_all")]
    pub hadrons_inside: f64,
}

fn all() -> f64 {
    1.0
}

#[allow(clippy::trivially_copy_pass_by_ref)] // the signature serde requires
fn is_all(share: &f64) -> bool {
    share.to_bits() == 1.0_f64.to_bits()
}

impl Observation {
    /// Returns the observation of events that are all inside the cuts.
    ///
    /// # Errors
    /// A usage error if a number is out of range; `name` returns the name of its option or key.
    pub(crate) fn new(
        name: impl Fn(&str) -> String,
        [gammas, background, hours]: [f64; 3],
        off_positions: u64,
    ) -> Result<Observation> {
        let refused = |key: &str, expected: String, found: &dyn std::fmt::Display| {
            Fault::new(format!("{} is out of range", name(key)))
                .expected(expected)
                .found(found)
                .usage()
        };
        for (key, value) in [
            ("gamma_rate_per_hour", gammas),
            ("background_rate_per_hour", background),
            ("hours", hours),
        ] {
            if !(value > 0.0 && value < LARGEST) {
                return Err(refused(key, "a number above 0".to_string(), &value));
            }
        }
        if !(1..=MAX_OFF).contains(&off_positions) {
            return Err(refused("off_positions", format!("1 to {MAX_OFF}"), &off_positions));
        }
        Ok(Observation {
            gamma_rate_per_hour: gammas,
            background_rate_per_hour: background,
            hours,
            off_positions,
            gammas_inside: 1.0,
            hadrons_inside: 1.0,
        })
    }

    /// Returns the same observation with these shares of gammas and hadrons inside the cuts.
    #[must_use]
    pub(crate) fn with_inside(self, [gammas_inside, hadrons_inside]: [f64; 2]) -> Observation {
        Observation { gammas_inside, hadrons_inside, ..self }
    }
}

impl std::fmt::Display for Observation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} gammas and {} background events per hour in {} h, {} OFF positions",
            self.gamma_rate_per_hour, self.background_rate_per_hour, self.hours, self.off_positions
        )
    }
}

impl CalibrationConfig {
    /// Returns the observation of `rule = "significance"`; `None` with another rule.
    ///
    /// # Errors
    /// A usage error if the rule lacks a rate or the time, or if these are not used.
    pub(crate) fn observation(&self) -> Result<Option<Observation>> {
        let rates = [self.gamma_rate_per_hour, self.background_rate_per_hour, self.hours];
        if self.rule != Some(ThresholdRule::Significance) {
            if rates.iter().any(Option::is_some) || self.off_positions.is_some() {
                return Err(Fault::new("configuration: the rates of [calibration] are not used")
                    .expected("calibration.rule = \"significance\"")
                    .advice("set the rule, or remove gamma_rate_per_hour, background_rate_per_hour, hours and off_positions")
                    .usage());
            }
            return Ok(None);
        }
        let [Some(gammas), Some(background), Some(hours)] = rates else {
            return Err(Fault::new("configuration: calibration.rule = \"significance\" lacks a rate")
                .expected("gamma_rate_per_hour, background_rate_per_hour and hours in [calibration]")
                .advice("give the rates of triggered and cleaned events, before the cuts; the rate of a season of data is that of the background")
                .usage());
        };
        let off = self.off_positions.unwrap_or(OFF_POSITIONS);
        let name = |key: &str| format!("configuration: calibration.{key}");
        Observation::new(name, [gammas, background, hours], off).map(Some)
    }
}
