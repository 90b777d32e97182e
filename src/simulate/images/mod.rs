//! Toy simulation of camera images, which makes image files for tests of the whole pipeline.
//!
//! This is a **toy**, not a detector simulation; every file contains [`NOTICE`]. A shower is
//! placed at up to ten core positions around the telescope, as in the CORSIKA simulations of
//! TAIGA (`axis_scatter`). It gives one to four images, which share `run_id` and `event_id`. An
//! image is a function of (seed, class, index) alone, so equal options give equal bytes on any
//! number of threads. [`shower`] generates the images.

pub(crate) mod anomalies;
mod shower;

use super::{Class, MAX_EVENTS, keys};
use crate::data::files::output_kind::OutputKind;
use crate::data::images::{ImageSettings, ImageWriter};
use crate::data::schema::columns::{ColumnSpec, ColumnType, ColumnValues};
use crate::error::{Error, Fault, Result};
use crate::hillas::{Camera, FOCAL_LENGTH_CM};
use rayon::prelude::*;
use serde::Serialize;
use shower::{Thrower, TriggeredImage};
use std::path::PathBuf;
use taiga_flow_gpu::random::Stream;

/// Notice in the help text and in the attribute `simulation` of every file.
pub(crate) const NOTICE: &str = "toy camera Monte Carlo, not a detector simulation";

/// Version of the generated numbers (attribute `generator`); it changes whenever they do.
const GENERATOR: &str = "toy-camera 1";

/// Images of each shower of a group of four showers.
const MEMBERS: [usize; 4] = [4, 3, 2, 1];
/// Images of a group.
const GROUP_IMAGES: usize = 10;
/// Groups per block, which bounds the memory.
const BLOCK_GROUPS: u64 = 256;

/// Options of a simulation.
#[derive(Debug, Clone)]
pub struct Options {
    pub output: PathBuf,
    pub class: Class,
    pub events: u64,
    pub seed: u64,
    /// Name of a TAIGA camera.
    pub camera: String,
    /// Night-sky noise, mean σ of a pixel [p.e.].
    pub noise_pe: f64,
    /// Distance of the source from the camera centre [deg]; 0 is ON mode, otherwise wobble mode.
    pub offset_deg: f64,
    pub overwrite: bool,
}

/// Result of a simulation.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    pub output: PathBuf,
    pub class: Class,
    pub events: u64,
    pub seed: u64,
    pub camera: String,
    pub simulation: &'static str,
}

impl std::fmt::Display for Summary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Summary { class, events, seed, camera, .. } = self;
        let path = self.output.display();
        write!(f, "{path}: {events} {class} images, camera {camera}, seed {seed} ({NOTICE})")
    }
}

/// Writes `options.events` triggered images to the output, which gets its name when complete.
///
/// # Errors
/// `Usage` for invalid options or an existing output; `Environment` if writing fails.
pub fn run(options: &Options) -> Result<Summary> {
    check(options)?;
    OutputKind::Simulation.refuse_existing(&options.output, options.overwrite)?;
    let camera = Camera::by_name(&options.camera)?;
    let sigma = pedestal_sigma(options, camera.pixels());
    let images = ImageSettings {
        x_cm: camera.x_cm(),
        y_cm: camera.y_cm(),
        focal_length_cm: FOCAL_LENGTH_CM,
        pedestal_sigma: &sigma,
    };
    let mut writer = ImageWriter::create(&options.output, &images, &columns(), options.overwrite)?;
    let thrower = Thrower::new(options.class, options.seed, options.offset_deg, &camera, &sigma);
    let groups = options.events.div_ceil(GROUP_IMAGES as u64);
    for first in (0..groups).step_by(BLOCK_GROUPS as usize) {
        let block = simulate(&thrower, first..groups.min(first + BLOCK_GROUPS))?;
        let left = options.events - first * GROUP_IMAGES as u64;
        let count = block.len().min(left as usize);
        append(&mut writer, &block[..count], options)?;
    }
    let (seed, noise) = (options.seed.to_string(), options.noise_pe.to_string());
    let events = writer.finish(&[
        ("simulation", NOTICE),
        ("generator", GENERATOR),
        ("class", options.class.to_string().as_str()),
        ("seed", &seed),
        ("noise_pe", &noise),
    ])?;
    let Options { output, class, seed, camera, .. } = options.clone();
    Ok(Summary { output, class, events, seed, camera, simulation: NOTICE })
}

/// Checks the ranges of the options.
fn check(options: &Options) -> Result<()> {
    if options.events == 0 || options.events > MAX_EVENTS {
        return Err(Fault::new("wrong number of events to simulate")
            .expected(format!("1 to {MAX_EVENTS}"))
            .found(options.events)
            .usage());
    }
    if !(0.0..=10.0).contains(&options.noise_pe) {
        return Err(Fault::new("night-sky noise out of range")
            .expected("0 to 10 p.e.")
            .found(options.noise_pe)
            .usage());
    }
    if !(0.0..=3.0).contains(&options.offset_deg) {
        return Err(Fault::new("source offset out of range")
            .expected("0 to 3 deg")
            .found(options.offset_deg)
            .usage());
    }
    Ok(())
}

/// Returns the noise of each pixel [p.e.], within 10 % of the mean. It is the same in all files of
/// a seed.
fn pedestal_sigma(options: &Options, pixels: usize) -> Vec<f32> {
    let stream = Stream::new(options.seed, "toy camera noise", &[]);
    let factor = |pixel: u64| 1.0 + 0.2 * (stream.uniform(pixel) - 0.5);
    (0..pixels as u64).map(|pixel| (options.noise_pe * factor(pixel)) as f32).collect()
}

/// Returns the images of a range of groups, in order.
fn simulate(thrower: &Thrower, groups: std::ops::Range<u64>) -> Result<Vec<ShowerImage>> {
    let showers = groups.start * MEMBERS.len() as u64..groups.end * MEMBERS.len() as u64;
    let images: Vec<Vec<TriggeredImage>> = showers
        .clone()
        .into_par_iter()
        .map(|shower| {
            let members = MEMBERS[(shower % MEMBERS.len() as u64) as usize];
            thrower.shower(shower, members).ok_or_else(|| no_trigger(shower))
        })
        .collect::<Result<_>>()?;
    let numbered = showers.zip(images);
    let events = |(shower, images): (u64, Vec<TriggeredImage>)| {
        images.into_iter().map(move |thrown| ShowerImage { shower, thrown })
    };
    Ok(numbered.flat_map(events).collect())
}

/// Image with the number of its shower.
struct ShowerImage {
    shower: u64,
    thrown: TriggeredImage,
}

/// Returns the error of a shower without enough triggered images.
fn no_trigger(shower: u64) -> Error {
    Fault::new("no simulated shower triggered the camera")
        .row(shower)
        .found(format!("{} attempts", shower::MAX_ATTEMPTS))
        .internal()
}

/// A stored quantity: name, unit, and its value in an image.
type StoredQuantity = (&'static str, &'static str, fn(&TriggeredImage) -> f64);

const QUANTITIES: [StoredQuantity; 4] = [
    ("energy", "TeV", |t| t.energy_tev),
    ("impact", "m", |t| 1000.0 * t.impact_km),
    ("source_x", "deg", |t| t.source[0]),
    ("source_y", "deg", |t| t.source[1]),
];

/// Returns the columns of an image file: keys, quantities, class.
fn columns() -> Vec<ColumnSpec> {
    let keys = ["run_id", "event_id", "axis_scatter"];
    let keys = keys.map(|name| ColumnSpec::new(name, ColumnType::I64, None)).into_iter();
    let quantities = QUANTITIES
        .iter()
        .map(|(name, unit, _)| ColumnSpec::new(*name, ColumnType::F32, Some(unit)));
    keys.chain(quantities).chain([ColumnSpec::new("class", ColumnType::I8, None)]).collect()
}

/// Appends images to the output.
fn append(writer: &mut ImageWriter, block: &[ShowerImage], options: &Options) -> Result<()> {
    let (runs, numbers): (Vec<i64>, Vec<i64>) =
        block.iter().map(|event| keys(options.seed, options.class, event.shower)).unzip();
    let scatters: Vec<i64> = block.iter().map(|event| event.thrown.scatter as i64).collect();
    let quantities: Vec<Vec<f32>> = QUANTITIES
        .iter()
        .map(|(_, _, of)| block.iter().map(|event| of(&event.thrown) as f32).collect())
        .collect();
    let class = vec![options.class.code(); block.len()];
    let charge: Vec<f32> =
        block.iter().flat_map(|event| event.thrown.charge.iter().copied()).collect();
    let mut values =
        vec![ColumnValues::I64(&runs), ColumnValues::I64(&numbers), ColumnValues::I64(&scatters)];
    values.extend(quantities.iter().map(|quantity| ColumnValues::F32(quantity)));
    values.push(ColumnValues::I8(&class));
    writer.append(&charge, &values)
}

#[cfg(test)]
mod tests;
