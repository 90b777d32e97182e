//! Resumes an extraction: keeps complete outputs with the same settings and input content.
//!
//! An output has its final name only when it is complete and on disk. A line of the ledger
//! identifies it without reading it. Its input is not read either if size and time of change
//! equal those of the line. A kill can leave an output without a line. It is extracted again if
//! its attributes have the same settings and input. Any other file with the name of an output is
//! refused.

use super::manifest::{EarlierExtractions, ExtractedFile, MANIFEST, Summary};
use super::{Camera, Options};
use crate::comm::{Communicator, StopFlag, Work};
use crate::data::files::finished::FinishedFile;
use crate::data::files::output_kind::OutputKind;
use crate::data::files::stamp::{self, Stamp};
use crate::dataset::assignment::{Assignment, Job, refuse_links};
use crate::dataset::failures::Failure;
use crate::dataset::output::earlier::{has_recorded_length, refuse_other_settings};
use crate::dataset::output::extraction::FORMAT;
use crate::dataset::output::ledger::{self, Entries, LedgerEntry};
use crate::error::{Error, Fault, Result};
use crate::storage;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Root attribute of an output with the hash of its settings.
pub(crate) const SETTINGS: &str = "settings_blake3";

/// Returns the hash of all settings on which an output depends, besides its input.
pub(crate) fn settings_hash(options: &Options, camera: Option<&Camera>) -> String {
    let version = env!("CARGO_PKG_VERSION");
    let pixels = camera.map(|camera| (camera.x_cm(), camera.y_cm(), camera.radius_deg()));
    let Options { cleaning, source, random_source, positions, class, .. } = options;
    let text = format!(
        "{version}\n{pixels:?}\n{cleaning:?}\n{source:?}\n{random_source:?}\n{positions}\n{class:?}"
    );
    blake3::hash(text.as_bytes()).to_hex().to_string()
}

/// Checks existing files with the names of outputs, creates the output folder, and returns the
/// files of earlier runs.
///
/// # Errors
/// `Usage` if other files of the folder were extracted with other settings, or an existing file
/// is not an output of an extraction.
pub(crate) fn prepare(
    assignment: &Assignment,
    options: &Options,
    settings: &str,
) -> Result<EarlierExtractions> {
    let folder = &options.output;
    ledger::refuse_other_command::<ExtractedFile>(folder, FORMAT)?;
    if !storage::is_read_only(folder) {
        ledger::remove_damaged_lines::<ExtractedFile>(folder)?;
    }
    let manifest = folder.join(MANIFEST);
    let inputs = assignment.protected(options.camera.as_deref().map(Path::new));
    let entries: Entries<ExtractedFile> = ledger::read(folder)?.entries;
    for job in &assignment.jobs {
        inputs.refuse(&job.output)?;
        refuse_links(folder, &job.output)?;
        if options.overwrite {
            let is_recorded = entries.contains_key(&job.name);
            OutputKind::Extraction.refuse_other(&job.output, is_recorded)?;
        }
    }
    let earlier = match Summary::read(&manifest) {
        Ok(Some(summary)) => earlier(assignment, options, settings, summary)?,
        Ok(None) => EarlierExtractions::default(),
        Err(error) if !options.overwrite => return Err(error),
        Err(error) => {
            log::warn!("{error}; files of earlier runs are removed from the manifest");
            EarlierExtractions::default()
        }
    };
    storage::create_folder(folder)?;
    Ok(earlier)
}

/// Returns the files of a manifest that are not files of this run.
fn earlier(
    assignment: &Assignment,
    options: &Options,
    settings: &str,
    summary: Summary,
) -> Result<EarlierExtractions> {
    let same_settings = summary.settings_blake3.as_deref() == Some(settings);
    if !same_settings && !options.overwrite {
        let again = "extract everything again";
        refuse_other_settings(&options.output, &summary.files, "extracted", again)?;
    }
    let mut earlier = EarlierExtractions::new(summary.files, summary.failed, assignment);
    if let (Some(other), false) = (earlier.files.first(), same_settings) {
        return Err(Fault::new(
            "the output folder contains other files extracted with other settings",
        )
        .file(&options.output)
        .found(format!("{} and {} more", other.output, earlier.files.len() - 1))
        .advice("choose a different output folder, or extract all inputs at once into a new one")
        .usage());
    }
    let entries = ledger::read(&options.output)?.entries;
    earlier.find_lost(&options.inputs, options.forget_missing, |file| {
        has_recorded_length(&options.output, file, &entries).unwrap_or_else(|| {
            FinishedFile::open_events(&options.output.join(&file.output)).is_some_and(|open| {
                open.rows() == Some(file.images)
                    && open.text("source_blake3").as_ref() == Some(&file.input_blake3)
            })
        })
    });
    Ok(earlier)
}

/// State of one file before the extraction.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum FileState {
    Finished(ExtractedFile),
    Left,
    Failed(Failure),
}

/// Surveyor of the files before the extraction.
pub(crate) struct ExtractionSurveyor<'a> {
    pub comm: &'a dyn Communicator,
    pub options: &'a Options,
    pub settings: &'a str,
    /// An earlier run has started to replace the outputs; its finished outputs are kept.
    pub resumes_overwriting: bool,
    pub stop: &'a StopFlag,
}

impl ExtractionSurveyor<'_> {
    /// Examines the files of this rank, and returns the states of all files.
    ///
    /// # Errors
    /// `Environment` if the system fails to read a file; `Stopped` after a stop request.
    pub(crate) fn survey(&self, assignment: &Assignment) -> Result<Vec<FileState>> {
        let entries: Entries<ExtractedFile> = ledger::read(&self.options.output)?.entries;
        assignment.survey(self.comm, |job| {
            self.stop.refuse_if_requested()?;
            let known = entries.get(&job.name).map_or(&[][..], Vec::as_slice);
            match self.finished_output(job, known) {
                Ok(Some(file)) => Ok(FileState::Finished(file)),
                Ok(None) => Ok(FileState::Left),
                Err(error @ Error::Environment(_)) => Err(error),
                Err(error) => Ok(FileState::Failed(Failure::new(&job.input, &error))),
            }
        })
    }

    /// Returns the output of a job; `None` if it is not finished.
    ///
    /// # Errors
    /// `Usage` if a file with its name has other settings or a different input.
    fn finished_output(
        &self,
        job: &Job,
        known: &[LedgerEntry<ExtractedFile>],
    ) -> Result<Option<ExtractedFile>> {
        if std::fs::symlink_metadata(&job.output).is_err() {
            return Ok(None);
        }
        let entry = known.iter().rfind(|entry| entry.settings_blake3 == self.settings);
        if self.options.overwrite {
            let entry = entry.filter(|_| self.resumes_overwriting);
            return match entry.map(|entry| self.recorded(job, entry)) {
                None | Some(Err(Error::Usage(_))) => Ok(None),
                Some(outcome) => outcome.map(Some),
            };
        }
        if let Some(entry) = entry {
            let file = self.recorded(job, entry)?;
            log::info!("{} is finished already", job.output.display());
            return Ok(Some(file));
        }
        let Some(file) = FinishedFile::open_events(&job.output) else {
            return Err(differs(job, "and is not an event file"));
        };
        if file.text(SETTINGS).as_deref() != Some(self.settings) {
            return Err(differs(job, "with other settings"));
        }
        if file.text("source_blake3") != Some(self.hash(&job.input)?) {
            return Err(differs(job, "from a different content of its input"));
        }
        Ok(None)
    }

    /// Returns the output of a ledger line, after a check that it and its input are unchanged.
    fn recorded(&self, job: &Job, entry: &LedgerEntry<ExtractedFile>) -> Result<ExtractedFile> {
        let metadata = std::fs::symlink_metadata(&job.output);
        let is_whole = metadata.is_ok_and(|data| data.is_file() && data.len() == entry.bytes);
        if !is_whole || self.hash(&job.output)? != entry.file.output_blake3 {
            return Err(differs(job, "and was changed since it was written"));
        }
        let stamp = Stamp::of(&job.input).map(|stamp| stamp.portable());
        let is_same_file = stamp.is_some() && stamp == entry.input_stamp;
        if !is_same_file && self.hash(&job.input)? != entry.file.input_blake3 {
            return Err(differs(job, "from a different content of its input"));
        }
        Ok(entry.file.clone())
    }

    /// Returns the hash of a file.
    fn hash(&self, path: &Path) -> Result<String> {
        let progress = || self.comm.progress(Work::Hashing, 0);
        Ok(stamp::hash_text(&stamp::hash_file_with_progress(path, progress)?))
    }
}

/// Returns the error of an existing file with the name of an output.
fn differs(job: &Job, difference: &str) -> Error {
    Fault::new(format!("output already exists, {difference}"))
        .file(&job.output)
        .advice("give --overwrite to extract everything again, or choose a different output")
        .usage()
}
