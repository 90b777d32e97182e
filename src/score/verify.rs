//! Compares an output folder of `score` with its manifest.

use super::output::FORMAT;
use super::{MANIFEST, ScoredFile, Summary, pieces};
use crate::comm::{Communicator, sync_result};
use crate::data::files::finished::FinishedFile;
use crate::dataset::output::verification::{self, Claims, OutputVerification};
use crate::error::{Fault, Result};
use std::path::Path;

/// Verifies an output folder of `score`.
///
/// # Errors
/// `Input` if the scoring is not complete.
pub fn verify(comm: &dyn Communicator, folder: &Path) -> Result<OutputVerification> {
    let manifest = folder.join(MANIFEST);
    let read = Summary::read(&manifest).and_then(|summary| {
        summary.filter(|summary| summary.complete).ok_or_else(|| {
            Fault::new("the scoring is not complete")
                .file(folder)
                .expected(format!("a {MANIFEST}"))
                .advice("run the same `taiga-flow score` again to finish it")
                .input()
        })
    });
    let summary = sync_result(comm, read)?;
    let claims = Claims {
        files: &summary.files,
        rows: summary.rows,
        failed: &summary.failed,
        left_out: &summary.left_out,
    };
    let look = |path: &Path, file: &ScoredFile| check_attributes(path, file, &summary);
    let mut found = verification::verify(comm, folder, &claims, &look)?;
    if folder.join(pieces::FOLDER).exists() {
        found.wrong.insert(pieces::FOLDER.to_string(), "is left over".to_string());
    }
    Ok(found)
}

/// Compares the attributes of a score file with the manifest; text tables have none.
fn check_attributes(
    path: &Path,
    file: &ScoredFile,
    summary: &Summary,
) -> std::result::Result<(), String> {
    if path.extension().is_none_or(|extension| extension != "h5") {
        return Ok(());
    }
    let open = FinishedFile::open(path, FORMAT).ok_or("is not a complete score file")?;
    let made_of = [("model_blake3", &summary.model_blake3), ("input_blake3", &file.input_blake3)];
    for (name, expected) in made_of {
        if open.text(name).as_ref() != Some(expected) {
            return Err(format!("has a {name} that differs from the manifest"));
        }
    }
    if open.rows() != Some(file.rows) {
        return Err(format!("has {:?} rows instead of {}", open.rows(), file.rows));
    }
    Ok(())
}
