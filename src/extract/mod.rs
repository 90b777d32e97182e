//! Extracts Hillas parameters from camera images into event files with one row per image.
//!
//! There is one output file per input file, at the same path below the output folder. It contains
//! keys and columns of the input and the parameters. Every image has a row, in order, also an
//! empty image. While a block is processed, the next ones are read. Files are assigned to ranks
//! longest first. An invalid file is reported and does not stop the others. The same command
//! resumes a stopped run and keeps finished outputs (`resume`).

mod block;
mod columns;
mod file;
mod file_columns;
mod manifest;
mod resume;
pub(crate) mod verify;

pub use block::{Extractor, ParameterRows};
pub use columns::ColumnLayout;
pub(crate) use manifest::{ExtractedFile, MANIFEST, Summary};

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
use crate::storage::{self, FolderIdentity};
use manifest::EarlierExtractions;
use resume::{ExtractionSurveyor, FileState};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Options of an extraction.
#[derive(Debug, Clone)]
pub struct Options {
    pub inputs: Vec<PathBuf>,
    pub output: PathBuf,
    /// Folder to which the paths of outputs are relative; absent for the folders of the inputs.
    pub root: Option<PathBuf>,
    /// Name of a camera or path of a file with its pixels; absent for the camera in the file.
    pub camera: Option<String>,
    pub cleaning: Cleaning,
    /// Source position [deg] of files that have none.
    pub source: Option<[f64; 2]>,
    /// Distance of a random source from the camera centre [deg], used instead of the source
    /// position of the file. The azimuth is seeded by the keys. Simulated hadrons have no source,
    /// and a model could learn the classes from the position in their files.
    pub random_source: Option<f64>,
    /// Number of source positions, equally spaced around the camera centre. The first one is the
    /// source; each other one adds its `dist` and `alpha`.
    pub positions: usize,
    /// Class of files that have none: 1 gamma, 0 hadron.
    pub class: Option<i8>,
    /// Removes missing outputs and missing failed inputs of earlier runs from the manifest.
    pub forget_missing: bool,
    pub overwrite: bool,
    pub threads: usize,
    /// Time after which the job ends if a rank has died, hangs or was stopped.
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

/// Part and number of parts: an extraction is not divided into parts.
const WHOLE: (usize, usize) = (0, 1);
/// Largest number of source positions.
const MOST_POSITIONS: usize = 64;

type ExtractionReport = crate::dataset::rank_report::RankReport<ExtractedFile>;

/// Extracts all inputs. Failed files are listed in the summary.
///
/// # Errors
/// The error of the first file if all files failed; `Stopped` after a stop request: the same
/// command resumes the run.
pub fn run(comm: &dyn Communicator, options: &Options, stop: &StopFlag) -> Result<Summary> {
    mark_shared(check(options))?;
    let root = is_root(comm);
    let created = root.then(|| storage::outermost_missing(&options.output)).flatten();
    let outcome = extract_all(comm, options, stop);
    // A refused extraction leaves no folders.
    if root && outcome.is_err() {
        let ledger = options.output.join(ledger::FOLDER);
        storage::remove_if_empty(&ledger, &ledger);
    }
    if let (Err(_), Some(outermost)) = (&outcome, &created) {
        storage::remove_if_empty(&options.output, outermost);
    }
    outcome
}

/// Prepares the output folder, extracts the files that are not finished, and writes the manifest.
fn extract_all(comm: &dyn Communicator, options: &Options, stop: &StopFlag) -> Result<Summary> {
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
    let identity = &sync_result(comm, FolderIdentity::of(&options.output))?;
    let comm: &dyn Communicator = &watch(comm, folder, options.watchdog)?;
    let resumes_overwriting = start.resumes_overwriting;
    let surveyor =
        ExtractionSurveyor { comm, options, settings: &settings, resumes_overwriting, stop };
    let states = surveyor.survey(&assignment)?;
    let left = left_of(&assignment, &states);
    if is_read_only && !left.jobs.is_empty() {
        preflight::shared_folder(comm, output)?; // returns the reason why writing fails
    }
    let begin = || begin(&left, options, (&start, &settings), (&earlier, identity));
    sync_result(comm, if is_root(comm) { begin() } else { Ok(()) })?;
    if is_root(comm) {
        log::info!(
            "extracting {} file(s) on {} rank(s), {threads} thread(s) each",
            left.jobs.len(),
            comm.size()
        );
    }
    let (camera, settings) = (camera.as_ref(), settings.as_str());
    let extractor = file::FileExtractor { comm, options, folder: identity, camera, settings, stop };
    let mut report = extract_files(&extractor, &left)?;
    if is_root(comm) {
        report.failures.splice(0..0, assignment.unusable.iter().cloned());
        add_surveyed(&mut report, states);
    }
    let ending = ExtractionEnd { options, folder: identity, assignment: &assignment, settings };
    ending.finish(comm, &earlier, &report)
}

/// Extracts the files of this rank.
fn extract_files(extractor: &file::FileExtractor, left: &Assignment) -> Result<ExtractionReport> {
    let comm = extractor.comm;
    let mut ledger = Ledger::new(&extractor.options.output, (comm.rank(), comm.size()));
    let mut report = ExtractionReport::default();
    for job in left.of_rank(comm.rank(), comm.size()) {
        extractor.stop.refuse_if_requested()?;
        match extract_file(extractor, job, &mut ledger).map_err(or_lack_of_memory) {
            Ok(file) => report.files.push(file),
            Err(error @ (Error::Environment(_) | Error::Stopped(_) | Error::Interrupted)) => {
                return Err(error);
            }
            Err(error) => report.failures.push(Failure::new(&job.input, &error)),
        }
    }
    Ok(report)
}

/// Returns the files whose outputs are not finished.
fn left_of(assignment: &Assignment, states: &[FileState]) -> Assignment {
    let jobs = assignment.jobs.iter().zip(states);
    let left = jobs.filter(|(_, state)| matches!(state, FileState::Left));
    Assignment { jobs: left.map(|(job, _)| job.clone()).collect(), unusable: Vec::new() }
}

/// Records the start, marks the manifest as incomplete, and creates the folders of the outputs.
/// Removes a ledger whose outputs are all written again, and incomplete files of killed jobs.
fn begin(
    left: &Assignment,
    options: &Options,
    (start, settings): (&Start, &str),
    (earlier, folder): (&EarlierExtractions, &FolderIdentity),
) -> Result<()> {
    if left.jobs.is_empty() {
        return Ok(());
    }
    start.note(&options.output, WHOLE)?;
    // The manifest and the ledgers of another command must not be removed.
    folder.check()?;
    Summary::begin(&options.output, settings, earlier)?;
    folder.check()?;
    if start.clears_ledgers(!earlier.files.is_empty()) {
        ledger::remove_all(&options.output)?;
    }
    let parents: BTreeSet<&Path> = left.jobs.iter().filter_map(|job| job.output.parent()).collect();
    parents.into_iter().try_for_each(storage::create_folder)?;
    left.remove_dead_parts()
}

/// Extracts one file and adds it to the ledger.
fn extract_file(
    extractor: &file::FileExtractor,
    job: &Job,
    ledger: &mut Ledger,
) -> Result<ExtractedFile> {
    let (file, input_stamp) = extractor.extract(&job.input, &job.output)?;
    let file = ExtractedFile { output: job.name.clone(), ..file };
    ledger.add(&LedgerEntry {
        file: file.clone(),
        bytes: std::fs::metadata(&job.output).map_or(0, |data| data.len()),
        model_blake3: None,
        settings_blake3: extractor.settings.to_string(),
        input_stamp,
    })?;
    Ok(file)
}

/// Adds the files whose state was known before the extraction.
fn add_surveyed(report: &mut ExtractionReport, states: Vec<FileState>) {
    for state in states {
        match state {
            FileState::Finished(file) => report.files.push(file),
            FileState::Failed(failure) => report.failures.push(failure),
            FileState::Left => {}
        }
    }
}

/// Checks cleaning, source positions and class.
fn check(options: &Options) -> Result<()> {
    options.cleaning.check()?;
    if !(1..=MOST_POSITIONS).contains(&options.positions) {
        return Err(Fault::new("number of source positions out of range")
            .expected(format!("1 to {MOST_POSITIONS}"))
            .found(options.positions)
            .usage());
    }
    if let Some(offset) = options.random_source {
        if !(0.0..=FIELD_RADIUS_DEG).contains(&offset) {
            return Err(Fault::new("random source outside the camera")
                .expected(format!("0 to {FIELD_RADIUS_DEG} deg, half the field of view"))
                .found(format!("--random-source {offset}"))
                .advice("give the distance of the gamma source from the camera centre, such as 1.2")
                .usage());
        }
        if options.class == Some(GAMMA) {
            return Err(not_of_hadrons("--class gamma"));
        }
    }
    match options.source {
        Some([x, y]) if !(x.is_finite() && y.is_finite() && libm::hypot(x, y) < 20.0) => {
            Err(Fault::new("source position outside the camera")
                .expected("x and y [deg], less than 20 deg from the centre")
                .found(format!("{x},{y}"))
                .usage())
        }
        _ => Ok(()),
    }
}

/// Returns the error of random source positions for particles that are not known to be hadrons.
fn not_of_hadrons(found: &str) -> Error {
    Fault::new("--random-source is for simulated hadrons")
        .expected("--class hadron, or a file with class hadron in every row")
        .found(found)
        .advice(
            "it replaces the source position, which is the true one for gammas: omit it for them",
        )
        .usage()
}

/// Last step of an extraction.
struct ExtractionEnd<'a> {
    options: &'a Options,
    /// The output folder when the extraction began.
    folder: &'a FolderIdentity,
    assignment: &'a Assignment,
    settings: &'a str,
}

impl ExtractionEnd<'_> {
    /// Merges the reports of all ranks and writes the manifest.
    fn finish(
        &self,
        comm: &dyn Communicator,
        earlier: &EarlierExtractions,
        mine: &ExtractionReport,
    ) -> Result<Summary> {
        let ExtractionEnd { options, assignment, settings, .. } = self;
        let all = mine.gather(comm, |file| &file.output)?;
        let outcome = all.refuse_all_failed();
        let summary = Summary::new(settings, all.files.clone(), all.failed(assignment));
        let unresolved: BTreeMap<String, FailedFile> = value_of_root(comm, || {
            // Files of earlier runs remain in the manifest, even if this run adds none.
            if outcome.is_err() && earlier.files.is_empty() {
                started::remove(&options.output, WHOLE)?;
                return Ok(BTreeMap::new());
            }
            self.write(&summary, earlier)
        })?;
        outcome?;
        let failed = unresolved.into_iter().chain(summary.failed).collect();
        Ok(Summary { failed, ..summary })
    }

    /// Writes the manifest and removes the mark of the start. Returns the failures of earlier runs
    /// that remain.
    fn write(
        &self,
        summary: &Summary,
        earlier: &EarlierExtractions,
    ) -> Result<BTreeMap<String, FailedFile>> {
        let options = self.options;
        self.folder.check()?;
        let is_read_only = storage::is_read_only(&options.output);
        if !is_read_only {
            Given::new(&options.inputs, options.root.as_deref(), "h5").record(&options.output)?;
        }
        let whole = summary.write(&options.output, earlier)?;
        if !is_read_only {
            started::remove(&options.output, WHOLE)?;
        }
        earlier.unresolved(&options.output, &whole.files)
    }
}
