//! Compares inputs that `extract` has written with the manifest of their extraction.
//!
//! Images that the extraction could not read are missing from the scores too, and are listed there.

use super::Options;
use crate::comm::{Communicator, value_of_root};
use crate::dataset::assignment::{self, Assignment};
use crate::dataset::failures::{FailedFile, Failure};
use crate::dataset::output::extraction::{self, AbsentOutput, Extractions};
use crate::error::Result;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// Contents of the manifests of the extractions; the same on all ranks.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Extracted {
    /// By output: inputs that are in the folder of an extraction, but not in its manifest.
    unlisted: BTreeMap<String, Failure>,
    /// By output: hash of the input when it was extracted.
    hashes: BTreeMap<String, String>,
    /// Files that the extractions should have written. Only the first of several shards lists them.
    absent: BTreeMap<String, FailedFile>,
    /// Extractions that are inputs as a whole.
    whole: Vec<String>,
}

impl Extracted {
    /// Reads the manifests of the extractions that have written the files.
    ///
    /// # Errors
    /// `Input` if an extraction has not finished.
    pub(crate) fn read(
        comm: &dyn Communicator,
        listed: &Assignment,
        options: &Options,
    ) -> Result<Extracted> {
        value_of_root(comm, || {
            let extractions = Extractions::of(listed.jobs.iter().map(|job| job.input.as_path()))?;
            extractions.warn_of_uncovered(&options.inputs);
            let mut found = Extracted {
                whole: extractions.covered_whole(&options.inputs),
                ..Extracted::default()
            };
            let names: BTreeMap<&Path, &str> =
                listed.jobs.iter().map(|job| (job.input.as_path(), job.name.as_str())).collect();
            for (input, error) in extractions.unlisted() {
                let failure = Failure::new(input, &error);
                found.unlisted.insert(names[input].to_string(), failure);
            }
            for (index, job) in listed.jobs.iter().enumerate() {
                if let Some(hash) = extractions.recorded_hash(index) {
                    found.hashes.insert(job.name.clone(), hash.to_string());
                }
            }
            if options.shard.0 == 0 {
                let absent = extractions.absent(&options.inputs).into_iter();
                found.absent =
                    absent.map(|absent| failed(absent, options)).collect::<Result<_>>()?;
            }
            Ok(found)
        })
    }

    /// Returns why the input of an output must not be scored.
    pub(crate) fn failure(&self, output: &str) -> Option<&Failure> {
        self.unlisted.get(output)
    }

    /// Refuses an input whose hash is not the one that the extraction recorded.
    ///
    /// # Errors
    /// `Input`.
    pub(crate) fn refuse_altered(&self, output: &str, input: &Path, hash: &str) -> Result<()> {
        match self.hashes.get(output) {
            Some(recorded) => extraction::refuse_altered(input, recorded, hash),
            None => Ok(()),
        }
    }

    /// Returns the files that the extractions should have written, by path.
    pub(crate) fn absent(&self) -> &BTreeMap<String, FailedFile> {
        &self.absent
    }

    /// Returns whether a failure of an earlier run is repeated by the manifests read now.
    pub(crate) fn is_outdated(&self, failed: &FailedFile) -> bool {
        failed.extraction.as_ref().is_some_and(|extraction| self.whole.contains(extraction))
    }
}

fn failed(absent: AbsentOutput, options: &Options) -> Result<(String, FailedFile)> {
    let AbsentOutput { file, output, given, extraction, reason, exit_code } = absent;
    let root = options.root.as_deref();
    let name = match &output {
        Some(path) => assignment::output_name(path, &given, root)?,
        None => None,
    };
    let output = name.map_or(String::new(), |(name, _)| {
        let stem = name.strip_suffix("h5").unwrap_or(&name);
        format!("{stem}{}", options.extension())
    });
    Ok((file, FailedFile { output, reason, exit_code, extraction: Some(extraction) }))
}
