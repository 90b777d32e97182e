//! Going on with a scoring that was interrupted: an output that is complete, of the same
//! model, the same content of the input and the same settings is kept as it is.
//!
//! An output has its name only when it is whole and on disk, so what is found under a
//! name needs no second reading, except for what the manifest says about it. Anything
//! else under the name of an output is refused before any work, as ever.

use super::output::{FORMAT, GROUP};
use super::{MANIFEST, Options, ScoredFile, Summary};
use crate::data::assign::Assignment;
use crate::data::catalog;
use crate::data::durable;
use crate::data::finished::FinishedFile;
use crate::data::schema::Schema;
use crate::data::selection::STATUS_BITS;
use crate::error::{Fault, Result};
use std::path::Path;

/// Hash of all that shapes an output besides its input.
pub fn settings_hash(model: &str, schema: &Schema, options: &Options) -> String {
    let version = env!("CARGO_PKG_VERSION");
    let text = format!("{version}\n{model}\n{:?}\n{schema:?}", options.columns.columns);
    blake3::hash(text.as_bytes()).to_hex().to_string()
}

/// Makes the folders, and refuses what stands in the way of an output.
pub fn prepare(assignment: &Assignment, options: &Options, model: &str) -> Result<()> {
    let manifest = options.output.join(MANIFEST);
    if !has_failures(&manifest, model) {
        durable::refuse_existing(&manifest, options.overwrite)?;
    }
    for job in &assignment.jobs {
        refuse_links(&options.output, &job.output)?;
        if !is_of_model(&job.output, model) {
            durable::refuse_existing(&job.output, options.overwrite)?;
        }
    }
    durable::create_folder(&options.output)?;
    // From here on it would no longer tell the truth.
    durable::remove_file(&manifest)?;
    for job in &assignment.jobs {
        if let Some(parent) = job.output.parent() {
            durable::create_folder(parent)?;
        }
    }
    Ok(())
}

/// The output at `path` if it is finished; a fault if it is of something else.
pub fn finished(path: &Path, settings: &str, input_blake3: &str) -> Result<Option<ScoredFile>> {
    if std::fs::symlink_metadata(path).is_err() {
        return Ok(None);
    }
    let other = |what: &str| {
        Fault::new(format!("output exists already, {what}"))
            .file(path)
            .advice("give --overwrite to score everything again, or choose another output")
            .usage()
    };
    let file = FinishedFile::open(path, FORMAT).ok_or_else(|| other("and is not complete"))?;
    if file.text("settings_blake3").as_deref() != Some(settings) {
        return Err(other("made with other settings"));
    }
    if file.text("input_blake3").as_deref() != Some(input_blake3) {
        return Err(other("made from another content of its input"));
    }
    let mut counts = [0; STATUS_BITS.len()];
    let rows = file.for_each_u32(&format!("{GROUP}/status"), |status| {
        for (count, (bit, _)) in counts.iter_mut().zip(STATUS_BITS) {
            *count += u64::from(status & bit != 0);
        }
    })?;
    if file.rows() != Some(rows) {
        return Err(other("with another number of rows than it says"));
    }
    Ok(Some(ScoredFile {
        output: String::new(),
        rows,
        input_blake3: input_blake3.to_string(),
        output_blake3: catalog::hash_text(&catalog::hash_file(path)?),
        status: super::output::named_counts(counts),
    }))
}

/// Whether there is a manifest of this model that names failed files: they may be mended.
fn has_failures(manifest: &Path, model: &str) -> bool {
    let bytes = std::fs::read(manifest).unwrap_or_default();
    let summary = serde_json::from_slice::<Summary>(&bytes);
    summary.is_ok_and(|s| s.model_blake3 == model && !s.failed.is_empty())
}

fn is_of_model(output: &Path, model: &str) -> bool {
    let is_file = std::fs::symlink_metadata(output).is_ok_and(|m| m.is_file());
    is_file
        && FinishedFile::open(output, FORMAT)
            .is_some_and(|file| file.text("model_blake3").as_deref() == Some(model))
}

/// Outputs never leave the output folder, also not through a link in it.
fn refuse_links(folder: &Path, output: &Path) -> Result<()> {
    let between = output.ancestors().skip(1).take_while(|place| *place != folder);
    for place in between {
        if std::fs::symlink_metadata(place).is_ok_and(|m| m.is_symlink()) {
            return Err(Fault::new("a link stands where a folder of the outputs is needed")
                .file(place)
                .expected(format!("a folder below {}", folder.display()))
                .advice("remove the link, or choose another output")
                .usage());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_output_goes_through_a_link() {
        let folder = tempfile::tempdir().unwrap();
        let (inside, outside) = (folder.path().join("scores"), folder.path().join("outside"));
        std::fs::create_dir_all(inside.join("real")).unwrap();
        std::fs::create_dir(&outside).unwrap();
        std::os::unix::fs::symlink(&outside, inside.join("night-1")).unwrap();
        let error = refuse_links(&inside, &inside.join("night-1/deep/run.h5")).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains("night-1"), "{error}");
        refuse_links(&inside, &inside.join("real/run.h5")).unwrap();
        refuse_links(&inside, &inside.join("new/run.h5")).unwrap();
        // The output folder itself may be a link: the user has named it.
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&inside, &link).unwrap();
        refuse_links(&link, &link.join("real/run.h5")).unwrap();
    }
}
