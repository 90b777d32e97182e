//! Toy simulation of camera images: files of charges to try the whole road with.
//!
//! This is a **toy**, not a detector simulation; [`NOTICE`] says so in every file. A shower
//! is thrown at up to ten places around the telescope, as TAIGA throws its CORSIKA showers
//! (`axis_scatter`), and gives one to four images, which share `run_id` and `event_id`. An
//! image is a function of (seed, class, index) alone: the same options give the same bytes
//! on any number of threads. What a shower looks like is [`shower`]'s business.

pub mod anomalies;
mod shower;

use super::{Class, MAX_EVENTS, keys};
use crate::data::files::output_kind::OutputKind;
use crate::data::images::{ImageWriter, Images};
use crate::data::schema::columns::{ColumnSpec, Kind, Values};
use crate::error::{Error, Fault, Result};
use crate::hillas::{Camera, FOCAL_LENGTH_CM};
use rayon::prelude::*;
use serde::Serialize;
use shower::{Thrower, Thrown};
use std::path::PathBuf;
use taiga_flow_gpu::random::Stream;

/// Stands in the help text and, as the attribute `simulation`, in every file written.
pub const NOTICE: &str = "toy camera Monte Carlo, not a detector simulation";

/// Changes with every change of the generated numbers (attribute `generator`).
const GENERATOR: &str = "toy-camera 1";

/// Images of ten showers' worth: how many images each of four showers in turn has.
const MEMBERS: [usize; 4] = [4, 3, 2, 1];
const GROUP_IMAGES: usize = 10;
/// Groups of images made at a time: bounds the memory.
const BLOCK_GROUPS: u64 = 256;

/// What to simulate.
#[derive(Debug, Clone)]
pub struct Options {
    pub output: PathBuf,
    pub class: Class,
    pub events: u64,
    pub seed: u64,
    /// A camera of TAIGA by name.
    pub camera: String,
    /// Night-sky noise, mean σ of a pixel [p.e.].
    pub noise_pe: f64,
    /// Distance of the source from the camera's centre [deg]: 0 is ON, else wobble.
    pub offset_deg: f64,
    pub overwrite: bool,
}

/// What was simulated.
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

/// Writes `options.events` triggered images to the output, whole or not at all.
pub fn run(options: &Options) -> Result<Summary> {
    check(options)?;
    OutputKind::Simulation.refuse_existing(&options.output, options.overwrite)?;
    let camera = Camera::by_name(&options.camera)?;
    let sigma = pedestal_sigma(options, camera.pixels());
    let images = Images {
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
        let wanted = block.len().min(left as usize);
        append(&mut writer, &block[..wanted], options)?;
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

fn check(options: &Options) -> Result<()> {
    let number = |what: &str, expected: String, found: String| {
        Err(Fault::new(what).expected(expected).found(found).usage())
    };
    if options.events == 0 || options.events > MAX_EVENTS {
        let found = options.events.to_string();
        return number("wrong number of events to simulate", format!("1 to {MAX_EVENTS}"), found);
    }
    if !(0.0..=10.0).contains(&options.noise_pe) {
        let found = options.noise_pe.to_string();
        return number("impossible night-sky noise", "0 to 10 p.e.".to_string(), found);
    }
    if !(0.0..=3.0).contains(&options.offset_deg) {
        let found = options.offset_deg.to_string();
        return number("impossible offset of the source", "0 to 3 deg".to_string(), found);
    }
    Ok(())
}

/// Noise of each pixel [p.e.]: a tenth more or less than the mean, the same in all files
/// of a seed.
fn pedestal_sigma(options: &Options, pixels: usize) -> Vec<f32> {
    let stream = Stream::new(options.seed, "toy camera noise", &[]);
    let factor = |pixel: u64| 1.0 + 0.2 * (stream.uniform(pixel) - 0.5);
    (0..pixels as u64).map(|pixel| (options.noise_pe * factor(pixel)) as f32).collect()
}

/// The images of a range of groups, in order.
fn simulate(thrower: &Thrower, groups: std::ops::Range<u64>) -> Result<Vec<Event>> {
    let showers = groups.start * MEMBERS.len() as u64..groups.end * MEMBERS.len() as u64;
    let images: Vec<Vec<Thrown>> = showers
        .clone()
        .into_par_iter()
        .map(|shower| {
            let members = MEMBERS[(shower % MEMBERS.len() as u64) as usize];
            thrower.shower(shower, members).ok_or_else(|| no_trigger(shower))
        })
        .collect::<Result<_>>()?;
    let numbered = showers.zip(images);
    let events = |(shower, images): (u64, Vec<Thrown>)| {
        images.into_iter().map(move |thrown| Event { shower, thrown })
    };
    Ok(numbered.flat_map(events).collect())
}

/// An image of a shower.
struct Event {
    shower: u64,
    thrown: Thrown,
}

fn no_trigger(shower: u64) -> Error {
    Fault::new("no simulated shower triggered the camera")
        .row(shower)
        .found(format!("{} attempts", shower::MAX_ATTEMPTS))
        .internal()
}

/// A stored quantity: name, unit, and where an image holds it.
type Quantity = (&'static str, &'static str, fn(&Thrown) -> f64);

const QUANTITIES: [Quantity; 4] = [
    ("energy", "TeV", |t| t.energy_tev),
    ("impact", "m", |t| 1000.0 * t.impact_km),
    ("source_x", "deg", |t| t.source[0]),
    ("source_y", "deg", |t| t.source[1]),
];

fn columns() -> Vec<ColumnSpec> {
    let keys = ["run_id", "event_id", "axis_scatter"];
    let keys = keys.map(|name| ColumnSpec::new(name, Kind::I64, None)).into_iter();
    let quantities =
        QUANTITIES.iter().map(|(name, unit, _)| ColumnSpec::new(*name, Kind::F32, Some(unit)));
    keys.chain(quantities).chain([ColumnSpec::new("class", Kind::I8, None)]).collect()
}

fn append(writer: &mut ImageWriter, block: &[Event], options: &Options) -> Result<()> {
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
    let mut values = vec![Values::I64(&runs), Values::I64(&numbers), Values::I64(&scatters)];
    values.extend(quantities.iter().map(|quantity| Values::F32(quantity)));
    values.push(Values::I8(&class));
    writer.append(&charge, &values)
}

#[cfg(test)]
mod tests;
