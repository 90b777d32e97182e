//! Compares an output folder of `extract` with its manifest.

use super::manifest::{ExtractedFile, MANIFEST, Summary};
use super::resume::SETTINGS;
use crate::comm::{Communicator, sync_result};
use crate::data::files::finished::FinishedFile;
use crate::dataset::output::verification::{self, Claims, OutputVerification};
use crate::error::{Fault, Result};
use std::path::Path;

/// Verifies an output folder of `extract`.
///
/// # Errors
/// `Input` if the extraction is not complete.
pub(crate) fn verify(comm: &dyn Communicator, folder: &Path) -> Result<OutputVerification> {
    let read = Summary::read(&folder.join(MANIFEST)).and_then(|summary| {
        summary.filter(|summary| summary.complete).ok_or_else(|| {
            Fault::new("the extraction is not complete")
                .file(folder)
                .expected(format!("a complete {MANIFEST}"))
                .advice("run the same `taiga-flow extract` again to finish it")
                .input()
        })
    });
    let summary = sync_result(comm, read)?;
    let claims = Claims {
        files: &summary.files,
        rows: summary.images,
        failed: &summary.failed,
        left_out: &[],
    };
    let look = |path: &Path, file: &ExtractedFile| check_attributes(path, file, &summary);
    verification::verify(comm, folder, &claims, &look)
}

/// Compares the attributes of an output with the manifest.
fn check_attributes(
    path: &Path,
    file: &ExtractedFile,
    summary: &Summary,
) -> std::result::Result<(), String> {
    let open = FinishedFile::open_events(path).ok_or("is not an event file")?;
    if open.text("source_blake3").as_ref() != Some(&file.input_blake3) {
        return Err("has a different source_blake3 than the manifest".to_string());
    }
    if summary.settings_blake3.is_some() && open.text(SETTINGS) != summary.settings_blake3 {
        return Err(format!("has a different {SETTINGS} than the manifest"));
    }
    if open.rows() != Some(file.images) {
        let rows = open.rows().map_or("no number of".to_string(), |rows| rows.to_string());
        return Err(format!("has {rows} rows, not {}", file.images));
    }
    Ok(())
}
