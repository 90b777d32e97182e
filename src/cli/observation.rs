//! Options with the rates and the time of an observation.

use crate::config::{OFF_POSITIONS, Observation};
use crate::error::{Fault, Result};
use clap::Args;

#[derive(Debug, Args)]
pub struct ObservationArguments {
    /// Gammas of the source per hour, triggered and cleaned, before the cuts: with a background
    /// rate and a time, the scan over thresholds shows expected counts and significances
    #[arg(long, value_name = "PER_HOUR")]
    gamma_rate: Option<f64>,
    /// Other events per hour, triggered and cleaned, before the cuts
    #[arg(long, value_name = "PER_HOUR")]
    background_rate: Option<f64>,
    /// Observation time in hours
    #[arg(long, value_name = "HOURS")]
    hours: Option<f64>,
    /// Number of OFF positions at which the background is counted [default: 5]
    #[arg(long, value_name = "N")]
    off_positions: Option<u64>,
}

impl ObservationArguments {
    /// Returns the observation, if its options are given.
    ///
    /// # Errors
    /// A usage error if one of the rates or the time is missing, or out of range.
    pub(super) fn observation(&self) -> Result<Option<Observation>> {
        let given = [self.gamma_rate, self.background_rate, self.hours];
        let [Some(gammas), Some(background), Some(hours)] = given else {
            if given.iter().all(Option::is_none) && self.off_positions.is_none() {
                return Ok(None);
            }
            return Err(Fault::new("an expected significance needs both rates and the time")
                .expected("--gamma-rate, --background-rate and --hours together")
                .usage());
        };
        let name = |key: &str| match key {
            "gamma_rate_per_hour" => "--gamma-rate".to_string(),
            "background_rate_per_hour" => "--background-rate".to_string(),
            "off_positions" => "--off-positions".to_string(),
            key => format!("--{key}"),
        };
        let off = self.off_positions.unwrap_or(OFF_POSITIONS);
        Observation::new(name, [gammas, background, hours], off).map(Some)
    }
}
