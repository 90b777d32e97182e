//! From camera images to Hillas parameters: files in, event files out, a row per image.
//!
//! One output file per input file, at the same path below the output folder, with the keys
//! and columns of the input beside the parameters; every image has its row, in order, also
//! an empty one. While a block is worked on, the next ones are read. Files are dealt to
//! ranks longest first; a bad one is told and never stops the others.

mod block;
mod columns;
mod file;

pub use block::{Extractor, Rows};
pub use columns::Layout;

use crate::config::Hardware;
use crate::data::assign::Assignment;
use crate::data::csv::FIELD_RADIUS_DEG;
use crate::data::durable;
use crate::data::events::GAMMA;
use crate::data::report::{Failure, Report};
use crate::engine::{self, Place};
use crate::error::{Error, Fault, Result};
use crate::hillas::{Cleaning, STATUS_BITS};
use crate::world::{World, agree, common, is_root, preflight, watch};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub const MANIFEST: &str = "manifest.json";

/// What to extract, and how.
#[derive(Debug, Clone)]
pub struct Options {
    pub inputs: Vec<PathBuf>,
    pub output: PathBuf,
    /// Outputs are placed relative to this folder; to the folders given if absent.
    pub root: Option<PathBuf>,
    /// Name of a camera or file with its pixels; the file's own where absent.
    pub camera: Option<String>,
    pub cleaning: Cleaning,
    /// Source position [deg] of files that have none.
    pub source: Option<[f64; 2]>,
    /// Puts the source at this distance from the camera's centre [deg], whatever the file
    /// says, at an azimuth seeded by the keys: simulated hadrons have no source, and what
    /// position their file gives can be learnt.
    pub random_source: Option<f64>,
    /// Positions of the source, equally turned about the camera's centre: the first is the
    /// source itself, each other one adds its `dist` and `alpha`.
    pub positions: usize,
    /// Class of files that have none: 1 gamma, 0 hadron.
    pub class: Option<i8>,
    pub overwrite: bool,
    pub threads: usize,
    /// Within this time a rank that dies, hangs or is stopped ends the job.
    pub watchdog: Option<Duration>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            inputs: Vec::new(),
            output: PathBuf::new(),
            root: None,
            camera: None,
            cleaning: Cleaning::default(),
            source: None,
            random_source: None,
            positions: 1,
            class: None,
            overwrite: false,
            threads: 0,
            watchdog: None,
        }
    }
}

/// Most positions of the source.
const MOST_POSITIONS: usize = 64;

/// One extracted file, as it stands in the manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExtractedFile {
    /// Relative to the output folder.
    pub output: String,
    pub images: u64,
    pub input_blake3: String,
    pub output_blake3: String,
    /// Images by status; an image can have several.
    pub status: BTreeMap<String, u64>,
}

/// What an extraction came to; also the manifest of the output folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    pub format: String,
    pub files: Vec<ExtractedFile>,
    pub images: u64,
    /// Input path → what was wrong with it.
    pub failed: BTreeMap<String, String>,
}

/// Extracts all inputs. Failed files are in the summary; if all failed, the first one's
/// error is returned.
pub fn run(world: &dyn World, options: &Options) -> Result<Summary> {
    common(check(options))?;
    let root = is_root(world);
    let made = root.then(|| durable::outermost_missing(&options.output)).flatten();
    let outcome = extracted(world, options);
    // What is refused leaves nothing behind.
    if let (Err(_), Some(outermost)) = (&outcome, &made) {
        durable::remove_if_empty(&options.output, outermost);
    }
    outcome
}

fn extracted(world: &dyn World, options: &Options) -> Result<Summary> {
    let camera = agree(world, file::camera_asked(options))?;
    let (inputs, root) = (&options.inputs, options.root.as_deref());
    let assignment = Assignment::new(world, inputs, &options.output, root)?;
    let hardware = Hardware { threads: options.threads, ..Hardware::default() };
    let threads = Place::new(world, hardware)?.threads;
    engine::use_threads(threads);
    let prepared = if is_root(world) { prepare_outputs(&assignment, options) } else { Ok(()) };
    agree(world, prepared)?;
    let folder = is_root(world).then_some(options.output.as_path());
    preflight::shared_folder(world, folder)?;
    let world: &dyn World = &watch(world, folder, options.watchdog)?;
    if is_root(world) {
        log::info!(
            "extracting {} file(s) on {} rank(s), {threads} thread(s) each",
            assignment.jobs.len(),
            world.size()
        );
    }
    let mut report = Report::default();
    for job in assignment.of_rank(world.rank(), world.size()) {
        match file::extract(world, &job.input, &job.output, camera.as_ref(), options) {
            Ok(file) => report.files.push(ExtractedFile { output: job.name.clone(), ..file }),
            Err(error @ Error::Environment(_)) => return Err(error),
            Err(error) => report.failures.push(Failure::new(&job.input, &error)),
        }
    }
    finish(world, options, &report)
}

fn check(options: &Options) -> Result<()> {
    options.cleaning.check()?;
    if !(1..=MOST_POSITIONS).contains(&options.positions) {
        return Err(Fault::new("impossible number of source positions")
            .expected(format!("1 to {MOST_POSITIONS}"))
            .found(options.positions)
            .usage());
    }
    if let Some(offset) = options.random_source {
        if !(0.0..=FIELD_RADIUS_DEG).contains(&offset) {
            return Err(Fault::new("a random source outside the camera")
                .expected(format!("0 to {FIELD_RADIUS_DEG} deg, half the field of view"))
                .found(format!("--random-source {offset}"))
                .advice(
                    "give the distance of the gammas' source from the camera's centre, such as 1.2",
                )
                .usage());
        }
        if options.class == Some(GAMMA) {
            return Err(not_of_hadrons("--class gamma"));
        }
    }
    match options.source {
        Some([x, y]) if !(x.is_finite() && y.is_finite() && libm::hypot(x, y) < 20.0) => {
            Err(Fault::new("impossible source position")
                .expected("two numbers of deg within the camera")
                .found(format!("{x},{y}"))
                .usage())
        }
        _ => Ok(()),
    }
}

/// Random source positions where the particles are not known to be hadrons.
fn not_of_hadrons(found: &str) -> Error {
    Fault::new("--random-source is for simulated hadrons")
        .expected("--class hadron, or a file whose class column says hadron in every row")
        .found(found)
        .advice("it replaces the source position, which is true for gammas: leave it out for them")
        .usage()
}

fn prepare_outputs(assignment: &Assignment, options: &Options) -> Result<()> {
    durable::refuse_existing(&options.output.join(MANIFEST), options.overwrite)?;
    let inputs = assignment.protected(options.camera.as_deref().map(Path::new));
    for job in &assignment.jobs {
        inputs.refuse(&job.output)?;
        durable::refuse_existing(&job.output, options.overwrite)?;
    }
    durable::create_folder(&options.output)?;
    assignment.remove_dead_parts()
}

/// Puts the ranks' reports together and writes the manifest.
fn finish(world: &dyn World, options: &Options, mine: &Report<ExtractedFile>) -> Result<Summary> {
    let all = mine.gather(world, |file| &file.output)?;
    let summary = Summary {
        format: "taiga-flow-extraction 1".to_string(),
        images: all.files.iter().map(|file| file.images).sum(),
        files: all.files.clone(),
        failed: all.failed(),
    };
    let written = if is_root(world) { write_manifest(&options.output, &summary) } else { Ok(()) };
    agree(world, written)?;
    Ok(summary)
}

fn write_manifest(folder: &Path, summary: &Summary) -> Result<()> {
    let json = serde_json::to_vec_pretty(summary)
        .map_err(|e| Fault::new("cannot write the manifest").found(e).internal())?;
    durable::write_file(&folder.join(MANIFEST), &json)
}

impl std::fmt::Display for Summary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "extracted {} images from {} file(s)", self.images, self.files.len())?;
        for (_, reason) in STATUS_BITS {
            let images: u64 = self.files.iter().filter_map(|file| file.status.get(reason)).sum();
            if images > 0 {
                writeln!(f, "  {images} images: {reason}")?;
            }
        }
        for (file, fault) in &self.failed {
            writeln!(f, "failed: {file}: {fault}")?;
        }
        Ok(())
    }
}
