//! Reads and writes the manifest of an extraction: the output files and the status of their images.
//!
//! During a run, the manifest is marked as incomplete and lists only the files of earlier runs, so
//! that a kill cannot lose them.

use crate::dataset::failures::FailedFile;
use crate::dataset::output::extraction::FORMAT;
pub(crate) use crate::dataset::output::extraction::MANIFEST;
use crate::dataset::output::ledger::{self, ListedFile};
use crate::error::{Fault, Result};
use crate::hillas::STATUS_BITS;
use crate::storage;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// Files of earlier runs.
pub(crate) type EarlierExtractions = crate::dataset::output::earlier::EarlierFiles<ExtractedFile>;

/// Entry of one extracted file in the manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExtractedFile {
    /// Path relative to the output folder.
    pub output: String,
    pub images: u64,
    pub input_blake3: String,
    pub output_blake3: String,
    /// Number of images by status; an image can have several bits.
    pub status: BTreeMap<String, u64>,
}

/// Result of an extraction, and content of the manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    pub format: String,
    /// Hash of the settings; absent in manifests of older versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settings_blake3: Option<String>,
    pub files: Vec<ExtractedFile>,
    pub images: u64,
    /// Failed inputs with their errors, by path.
    pub failed: BTreeMap<String, FailedFile>,
    /// The run that wrote it has ended. The field is written only if it is false.
    #[serde(default = "complete", skip_serializing_if = "Clone::clone")]
    pub complete: bool,
}

/// Returns the default of [`Summary::complete`].
fn complete() -> bool {
    true
}

impl ListedFile for ExtractedFile {
    const ROWS_KEY: &str = "images";

    fn output(&self) -> &str {
        &self.output
    }

    fn rows(&self) -> u64 {
        self.images
    }

    fn input_blake3(&self) -> &str {
        &self.input_blake3
    }

    fn output_blake3(&self) -> &str {
        &self.output_blake3
    }
}

impl Summary {
    /// Returns the summary of a complete extraction.
    pub(crate) fn new(
        settings: &str,
        files: Vec<ExtractedFile>,
        failed: BTreeMap<String, FailedFile>,
    ) -> Summary {
        Summary {
            format: FORMAT.to_string(),
            settings_blake3: Some(settings.to_string()),
            images: files.iter().map(|file| file.images).sum(),
            files,
            failed,
            complete: true,
        }
    }

    /// Returns whether a manifest is that of an extraction, complete or not.
    pub(crate) fn is_at(path: &Path) -> bool {
        Summary::read(path).is_ok_and(|summary| summary.is_some())
    }

    /// Reads the manifest at a path; `None` if there is none.
    ///
    /// # Errors
    /// `Input` if it cannot be read, or is not the manifest of an extraction.
    pub(crate) fn read(path: &Path) -> Result<Option<Summary>> {
        let Some(summary) = ledger::read_manifest::<Summary>(path)? else { return Ok(None) };
        if summary.format != FORMAT {
            return Err(ledger::unreadable_manifest(
                path,
                &format!("the format '{}'", summary.format),
            ));
        }
        ledger::refuse_impossible(path, &summary.files, "images", |file| file.images)?;
        Ok(Some(summary))
    }

    /// Marks the extraction as incomplete: the manifest then lists only the files of earlier
    /// runs, and is removed if there are none.
    pub(super) fn begin(folder: &Path, settings: &str, earlier: &EarlierExtractions) -> Result<()> {
        let manifest = folder.join(MANIFEST);
        if earlier.files.is_empty() {
            return storage::remove_file(&manifest);
        }
        let empty = Summary::new(settings, Vec::new(), BTreeMap::new());
        let started = Summary { complete: false, ..empty.with_earlier(earlier) };
        storage::write_file(&manifest, &started.to_bytes()?)
    }

    /// Writes the manifest of a folder, with the files of earlier runs, and returns it.
    pub(super) fn write(&self, folder: &Path, earlier: &EarlierExtractions) -> Result<Summary> {
        let whole = self.clone().with_earlier(earlier);
        storage::write_if_changed(&folder.join(MANIFEST), &whole.to_bytes()?)?;
        Ok(whole)
    }

    /// Adds the files of earlier runs.
    fn with_earlier(mut self, earlier: &EarlierExtractions) -> Summary {
        earlier.add_to(&mut self.files, &mut self.failed);
        self.images = self.files.iter().map(|file| file.images).sum();
        self
    }

    /// Returns the summary as JSON.
    fn to_bytes(&self) -> Result<Vec<u8>> {
        serde_json::to_vec_pretty(self)
            .map_err(|e| Fault::new("cannot write the manifest").found(e).internal())
    }
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
