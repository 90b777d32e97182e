//! Toy simulation of Hillas parameters, which makes event files for tests and demonstrations.
//!
//! This is a **toy**, not a detector simulation; every file and the help text contain
//! [`NOTICE`]. An event is a function of (seed, class, index) alone, so equal options give equal
//! bytes on any number of threads. Memory is bounded by one block of rows. [`toy`] generates the
//! events.

pub mod images;
pub mod toy;

use std::path::PathBuf;

use rayon::prelude::*;
use serde::Serialize;
use taiga_flow_gpu::random::Stream;

pub(crate) use crate::config::Class;
use crate::data::files::output_kind::OutputKind;
use crate::data::schema::columns::{
    CHUNK_ROWS, ColumnSpec, ColumnType, ColumnValues, ColumnWriter,
};
use crate::data::table::events;
use crate::error::{Error, Fault, Result};
pub(crate) use toy::ToyEvent;

/// Notice in the help text and in the attribute `simulation` of every file.
pub(crate) const NOTICE: &str = "toy Hillas-level Monte Carlo, not a detector simulation";

/// Version of the generated numbers (attribute `generator`); it changes whenever they do.
const GENERATOR: &str = "toy-hillas 1";

/// Largest number of events of one file, so that its keys are unique and its size is below 100 TB.
const MAX_EVENTS: u64 = 1 << 40;
/// Events of one simulated run, as many as a TAIGA telescope records in about half an hour.
const EVENTS_PER_RUN: u64 = 10_000;
/// Run numbers of one seed and class.
const RUNS_PER_CLASS: i64 = 500_000_000;
/// Limit below which different seeds have different run numbers.
const SEEDS_APART: u64 = 1_000_000_000;

/// Options of a simulation.
#[derive(Debug, Clone)]
pub struct Options {
    pub output: PathBuf,
    pub class: Class,
    pub events: u64,
    pub seed: u64,
    pub overwrite: bool,
}

/// Result of a simulation.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    pub output: PathBuf,
    pub class: Class,
    pub events: u64,
    pub seed: u64,
    pub simulation: &'static str,
}

impl std::fmt::Display for Summary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (path, class) = (self.output.display(), self.class);
        write!(f, "{path}: {} {class} events, seed {} ({NOTICE})", self.events, self.seed)
    }
}

/// Writes `options.events` triggered events to the output, which gets its name when complete.
///
/// # Errors
/// `Usage` for a wrong number of events or an existing output; `Environment` if writing fails.
pub fn run(options: &Options) -> Result<Summary> {
    if options.events == 0 || options.events > MAX_EVENTS {
        return Err(Fault::new("wrong number of events to simulate")
            .expected(format!("1 to {MAX_EVENTS}"))
            .found(options.events)
            .usage());
    }
    OutputKind::Simulation.refuse_existing(&options.output, options.overwrite)?;
    let stream = toy::stream(options.seed, options.class);
    let columns = columns();
    let mut writer =
        ColumnWriter::create(&options.output, events::GROUP, &columns, options.overwrite)?;
    for first in (0..options.events).step_by(CHUNK_ROWS) {
        let end = options.events.min(first + CHUNK_ROWS as u64);
        let block = simulate(options.class, stream, first..end)?;
        append(&mut writer, &block, first, options)?;
    }
    let seed = options.seed.to_string();
    let rows = writer.finish(&events::attributes(&[
        ("simulation", NOTICE),
        ("generator", GENERATOR),
        ("class", options.class.to_string().as_str()),
        ("seed", &seed),
    ]))?;
    let Options { output, class, seed, .. } = options.clone();
    Ok(Summary { output, class, events: rows, seed, simulation: NOTICE })
}

/// Returns the events of a range of indices, in order.
fn simulate(class: Class, stream: Stream, indices: std::ops::Range<u64>) -> Result<Vec<ToyEvent>> {
    indices
        .into_par_iter()
        .map(|index| toy::event(class, stream, index).ok_or_else(|| no_trigger(index)))
        .collect()
}

/// Returns the error of an event without a triggered shower.
fn no_trigger(index: u64) -> Error {
    Fault::new("no simulated shower triggered the camera")
        .row(index)
        .found(format!("{} attempts", toy::MAX_ATTEMPTS))
        .internal()
}

/// A stored feature: name, unit, and its value in an event.
type StoredFeature = (&'static str, &'static str, fn(&ToyEvent) -> f32);

const FEATURES: [StoredFeature; 13] = [
    ("size", "p.e.", |event| event.size),
    ("length", "deg", |event| event.length),
    ("width", "deg", |event| event.width),
    ("dist", "deg", |event| event.dist),
    ("alpha", "deg", |event| event.alpha),
    ("con2", "1", |event| event.con2),
    ("skewness", "1", |event| event.skewness),
    ("xc", "deg", |event| event.xc),
    ("yc", "deg", |event| event.yc),
    ("axis", "deg", |event| event.axis),
    ("source_x", "deg", |event| event.source_x),
    ("source_y", "deg", |event| event.source_y),
    ("energy", "TeV", |event| event.energy_tev),
];

/// Returns the columns of an event file: keys, features, class.
fn columns() -> Vec<ColumnSpec> {
    let keys = ["run_id", "event_id"].map(|name| ColumnSpec::new(name, ColumnType::I64, None));
    let features =
        FEATURES.iter().map(|(name, unit, _)| ColumnSpec::new(*name, ColumnType::F32, Some(unit)));
    let class = ColumnSpec::new("class", ColumnType::I8, None);
    keys.into_iter().chain(features).chain([class]).collect()
}

/// Appends the events `first..` to the output.
fn append(
    writer: &mut ColumnWriter,
    block: &[ToyEvent],
    first: u64,
    options: &Options,
) -> Result<()> {
    let indices = first..first + block.len() as u64;
    let (runs, numbers): (Vec<i64>, Vec<i64>) =
        indices.map(|index| keys(options.seed, options.class, index)).unzip();
    let features: Vec<Vec<f32>> =
        FEATURES.par_iter().map(|(_, _, feature)| block.iter().map(feature).collect()).collect();
    let class = vec![options.class.code(); block.len()];
    let mut values = vec![ColumnValues::I64(&runs), ColumnValues::I64(&numbers)];
    values.extend(features.iter().map(|feature| ColumnValues::F32(feature)));
    values.push(ColumnValues::I8(&class));
    writer.append(&values)
}

/// Returns (`run_id`, `event_id`). The pair is unique in a file, and across classes and seeds
/// below 10⁹.
fn keys(seed: u64, class: Class, index: u64) -> (i64, i64) {
    let series = 2 * (seed % SEEDS_APART) as i64 + i64::from(class == Class::Hadron);
    let run = series * RUNS_PER_CLASS + (index / EVENTS_PER_RUN) as i64 + 1;
    (run, (index % EVENTS_PER_RUN) as i64)
}

#[cfg(test)]
mod tests;
