//! Extraction of Hillas parameters from camera images: files in, event files out, a row per
//! image.
//!
//! One output file per input file, at the same path below the output folder, with the keys
//! and columns of the input next to the parameters; every image has its row, in order, also
//! an empty one. While a block is worked on, the next ones are read. Files are assigned to
//! ranks longest first; a bad one is reported and never stops the others. The same command
//! resumes where an earlier one ended: what is finished is kept (`resume`).

mod block;
mod columns;
mod file;
mod manifest;
mod resume;
pub mod verify;

pub use block::{Extractor, ParameterRows};
pub use columns::ColumnLayout;
pub use manifest::{ExtractedFile, MANIFEST, Summary};

use crate::comm::{
    Communicator, StopFlag, any_rank, is_root, mark_shared, preflight, sync_result, value_of_root,
    watch,
};
use crate::config::Hardware;
use crate::data::table::events::GAMMA;
use crate::data::text::FIELD_RADIUS_DEG;
use crate::dataset::assignment::{Assignment, Job};
use crate::dataset::failures::{FailedFile, Failure, or_lack_of_memory};
use crate::dataset::output::given::Given;
use crate::dataset::output::ledger::{self, Ledger, LedgerEntry};
use crate::dataset::output::started::{self, Start, Started};
use crate::engine::{self, RankResources};
use crate::error::{Error, Fault, Result};
use crate::hillas::{Camera, Cleaning};
use crate::storage;
use resume::{EarlierExtractions, ExtractionSurveyor, FileState};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

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
    /// Whether outputs and failed inputs of earlier runs that are gone leave the manifest.
    pub forget_missing: bool,
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
            forget_missing: false,
            overwrite: false,
            threads: 0,
            watchdog: None,
        }
    }
}

/// An extraction has no parts.
const WHOLE: (usize, usize) = (0, 1);
/// Most positions of the source.
const MOST_POSITIONS: usize = 64;

type ExtractionReport = crate::dataset::rank_report::RankReport<ExtractedFile>;

/// Extracts all inputs. Failed files are in the summary; if all failed, the first one's
/// error is returned.
///
/// # Errors
/// `Stopped` if the run was asked to stop: the same command resumes it.
pub fn run(comm: &dyn Communicator, options: &Options, stop: &StopFlag) -> Result<Summary> {
    mark_shared(check(options))?;
    let root = is_root(comm);
    let made = root.then(|| storage::outermost_missing(&options.output)).flatten();
    let outcome = extracted(comm, options, stop);
    // What is refused leaves nothing behind.
    if root && outcome.is_err() {
        let ledger = options.output.join(ledger::FOLDER);
        storage::remove_if_empty(&ledger, &ledger);
    }
    if let (Err(_), Some(outermost)) = (&outcome, &made) {
        storage::remove_if_empty(&options.output, outermost);
    }
    outcome
}

fn extracted(comm: &dyn Communicator, options: &Options, stop: &StopFlag) -> Result<Summary> {
    let camera = sync_result(comm, file::requested_camera(options))?;
    let settings = resume::settings_hash(options, camera.as_ref());
    let (inputs, root) = (&options.inputs, options.root.as_deref());
    let assignment = Assignment::new(comm, inputs, &options.output, root)?;
    let hardware = Hardware { threads: options.threads, ..Hardware::default() };
    let threads = RankResources::new(comm, hardware)?.threads;
    engine::use_threads(threads);
    let started = Started {
        overwrites: options.overwrite,
        model_blake3: None,
        settings_blake3: settings.clone(),
    };
    let start = Start::new(comm, &options.output, WHOLE, started)?;
    let options = &Options { overwrite: start.overwrites(), ..options.clone() };
    let prepare = || resume::prepare(&assignment, options, &settings);
    let prepared = if is_root(comm) { prepare() } else { Ok(EarlierExtractions::default()) };
    let earlier = sync_result(comm, prepared)?;
    let is_read_only = any_rank(comm, is_root(comm) && storage::is_read_only(&options.output))?;
    let output = is_root(comm).then_some(options.output.as_path());
    let folder = output.filter(|_| !is_read_only);
    if !is_read_only {
        preflight::shared_folder(comm, folder)?;
    }
    let comm: &dyn Communicator = &watch(comm, folder, options.watchdog)?;
    let resumes_overwriting = start.resumes_overwriting;
    let see = ExtractionSurveyor { comm, options, settings: &settings, resumes_overwriting, stop };
    let found = see.survey(&assignment)?;
    let left = left_of(&assignment, &found);
    if is_read_only && !left.jobs.is_empty() {
        preflight::shared_folder(comm, output)?; // says why nothing can be written
    }
    let begin = || begin(&left, options, (&start, &settings), &earlier);
    sync_result(comm, if is_root(comm) { begin() } else { Ok(()) })?;
    if is_root(comm) {
        log::info!(
            "extracting {} file(s) on {} rank(s), {threads} thread(s) each",
            left.jobs.len(),
            comm.size()
        );
    }
    let mut ledger = Ledger::new(&options.output, (comm.rank(), comm.size()));
    let mut report = ExtractionReport::default();
    if is_root(comm) {
        report.failures.clone_from(&assignment.unusable);
    }
    let working =
        file::FileExtractor { comm, options, camera: camera.as_ref(), settings: &settings, stop };
    for job in left.of_rank(comm.rank(), comm.size()) {
        stop.refuse_if_requested()?;
        match extract_file(&working, job, &mut ledger).map_err(or_lack_of_memory) {
            Ok(file) => report.files.push(file),
            Err(error @ (Error::Environment(_) | Error::Stopped(_) | Error::Interrupted)) => {
                return Err(error);
            }
            Err(error) => report.failures.push(Failure::new(&job.input, &error)),
        }
    }
    if is_root(comm) {
        add_surveyed(&mut report, found);
    }
    let ending = ExtractionEnd { options, assignment: &assignment, settings: &settings };
    ending.finish(comm, &earlier, &report)
}

/// The files whose outputs are not finished.
fn left_of(assignment: &Assignment, found: &[FileState]) -> Assignment {
    let left = assignment.jobs.iter().zip(found);
    let left =
        left.filter(|(_, found)| matches!(found, FileState::Left)).map(|(job, _)| job.clone());
    Assignment { jobs: left.collect(), unusable: Vec::new() }
}

/// Notes the start, marks the manifest as incomplete, removes a ledger of which all is written
/// again, makes the folders of the outputs, and removes what killed jobs have left in them.
fn begin(
    left: &Assignment,
    options: &Options,
    (start, settings): (&Start, &str),
    earlier: &EarlierExtractions,
) -> Result<()> {
    if left.jobs.is_empty() {
        return Ok(());
    }
    start.note(&options.output, WHOLE)?;
    Summary::begin(&options.output, settings, earlier)?;
    if start.clears_ledgers(!earlier.files.is_empty()) {
        ledger::remove_all(&options.output)?;
    }
    let parents: BTreeSet<&Path> = left.jobs.iter().filter_map(|job| job.output.parent()).collect();
    parents.into_iter().try_for_each(storage::create_folder)?;
    left.remove_dead_parts()
}

/// Extracts one file and adds it to the ledger.
fn extract_file(
    working: &file::FileExtractor,
    job: &Job,
    ledger: &mut Ledger,
) -> Result<ExtractedFile> {
    let (file, input_stamp) = working.extract(&job.input, &job.output)?;
    let file = ExtractedFile { output: job.name.clone(), ..file };
    ledger.add(&LedgerEntry {
        file: file.clone(),
        bytes: std::fs::metadata(&job.output).map_or(0, |data| data.len()),
        model_blake3: None,
        settings_blake3: working.settings.to_string(),
        input_stamp,
    })?;
    Ok(file)
}

/// Adds what was found before the work.
fn add_surveyed(report: &mut ExtractionReport, found: Vec<FileState>) {
    for found in found {
        match found {
            FileState::Finished(file) => report.files.push(file),
            FileState::Failed(failure) => report.failures.push(failure),
            FileState::Left => {}
        }
    }
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

/// What the end of an extraction needs besides the ranks' reports.
struct ExtractionEnd<'a> {
    options: &'a Options,
    assignment: &'a Assignment,
    settings: &'a str,
}

impl ExtractionEnd<'_> {
    /// Puts the ranks' reports together and writes the manifest.
    fn finish(
        &self,
        comm: &dyn Communicator,
        earlier: &EarlierExtractions,
        mine: &ExtractionReport,
    ) -> Result<Summary> {
        let ExtractionEnd { options, assignment, settings } = self;
        let all = mine.gather(comm, |file| &file.output)?;
        let outcome = all.refuse_all_failed();
        let summary = Summary::new(settings, all.files.clone(), all.failed(assignment));
        let conclude = || {
            // Files of earlier runs stay in the manifest, also where none is added to them.
            if outcome.is_err() && earlier.files.is_empty() {
                started::remove(&options.output, WHOLE)?;
                return Ok(BTreeMap::new());
            }
            let is_read_only = storage::is_read_only(&options.output);
            if !is_read_only {
                Given::new(&options.inputs, options.root.as_deref(), "h5")
                    .record(&options.output)?;
            }
            let whole = summary.write(&options.output, earlier)?;
            if !is_read_only {
                started::remove(&options.output, WHOLE)?;
            }
            earlier.unresolved(&options.output, &whole.files)
        };
        let unresolved: BTreeMap<String, FailedFile> = value_of_root(comm, conclude)?;
        outcome?;
        let failed = unresolved.into_iter().chain(summary.failed).collect();
        Ok(Summary { failed, ..summary })
    }
}
