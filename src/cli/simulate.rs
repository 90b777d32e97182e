//! Arguments of `simulate`.

use crate::config::Class;
use crate::error::{Fault, Result};
use crate::simulate::{self, images, toy};
use clap::{Args, ValueEnum};
use std::path::PathBuf;

/// Mean σ of the night-sky noise of a pixel [p.e.].
const NOISE_PE: f64 = 4.0;
const CAMERA: &str = "taiga-595";

#[derive(Debug, Args)]
pub struct Arguments {
    /// Event file to write
    #[arg(short, long)]
    pub(super) output: PathBuf,
    /// Class of the showers
    #[arg(long, value_enum)]
    class: Class,
    /// Number of events
    #[arg(long)]
    events: u64,
    /// Seed: the same seed gives the same bytes
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Content of an event
    #[arg(long, value_enum, default_value = "hillas")]
    level: Level,
    /// Camera of images: taiga-560 or taiga-595 [default: taiga-595]
    #[arg(long)]
    camera: Option<String>,
    /// Night-sky noise of images, mean σ of a pixel in p.e. [default: 4]
    #[arg(long, value_name = "PE")]
    noise: Option<f64>,
    /// Distance of the source from the camera centre in images, in deg; 0: ON [default: that of the
    /// toy]
    #[arg(long, value_name = "DEG")]
    offset: Option<f64>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Level {
    /// One row of Hillas parameters per event
    Hillas,
    /// One camera image per event
    Images,
}

/// Options by the content of an event.
pub enum SimulationOptions {
    Hillas(simulate::Options),
    Images(images::Options),
}

impl Arguments {
    /// Returns the options; refuses options of images at another level, because they would have no
    /// effect.
    pub(super) fn options(&self, overwrite: bool) -> Result<SimulationOptions> {
        let (output, class) = (self.output.clone(), self.class);
        let (events, seed) = (self.events, self.seed);
        if matches!(self.level, Level::Images) {
            return Ok(SimulationOptions::Images(images::Options {
                output,
                class,
                events,
                seed,
                camera: self.camera.clone().unwrap_or_else(|| CAMERA.to_string()),
                noise_pe: self.noise.unwrap_or(NOISE_PE),
                offset_deg: self.offset.unwrap_or(toy::SOURCE_OFFSET_DEG),
                overwrite,
            }));
        }
        let given = [
            ("--camera", self.camera.is_some()),
            ("--noise", self.noise.is_some()),
            ("--offset", self.offset.is_some()),
        ];
        if let Some((option, _)) = given.iter().find(|(_, given)| *given) {
            return Err(Fault::new(format!("`{option}` requires `--level images`"))
                .found("`--level hillas`")
                .advice("remove the option, or add --level images")
                .usage());
        }
        Ok(SimulationOptions::Hillas(simulate::Options { output, class, events, seed, overwrite }))
    }
}
