//! Reports of the files that each rank has processed, merged over all ranks.

use super::assignment::Assignment;
use super::failures::{FailedFile, Failure};
use crate::comm::{Communicator, gather_values, mark_shared};
use crate::error::{Result, path_text};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The finished and the failed files of a rank, or of all ranks.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct RankReport<F> {
    pub files: Vec<F>,
    pub failures: Vec<Failure>,
}

impl<F> Default for RankReport<F> {
    fn default() -> RankReport<F> {
        RankReport { files: Vec::new(), failures: Vec::new() }
    }
}

impl<F: Serialize + DeserializeOwned> RankReport<F> {
    /// Merges the reports of all ranks, with files in the order of their outputs. A collective.
    pub(crate) fn gather(
        &self,
        comm: &dyn Communicator,
        output: impl Fn(&F) -> &str,
    ) -> Result<RankReport<F>> {
        let mut all = RankReport::default();
        for report in gather_values(comm, self)? {
            all.files.extend(report.files);
            all.failures.extend(report.failures);
        }
        all.files.sort_by(|a, b| output(a).cmp(output(b)));
        all.failures.sort_by(|a, b| a.file.cmp(&b.file));
        // Pieces of one file may fail on several ranks.
        all.failures.dedup_by(|a, b| a.file == b.file);
        Ok(all)
    }

    /// Returns the error of the first file if all files of all ranks failed.
    ///
    /// # Errors
    /// That of the first file.
    pub(crate) fn refuse_all_failed(&self) -> Result<()> {
        let (true, Some(first)) = (self.files.is_empty(), self.failures.first()) else {
            return Ok(());
        };
        mark_shared(Err(first.to_error()))
    }

    /// Returns the failed files by input path, with the names that the assignment gives their
    /// outputs.
    pub(crate) fn failed(&self, assignment: &Assignment) -> BTreeMap<String, FailedFile> {
        let jobs = assignment.jobs.iter();
        let outputs: BTreeMap<String, &str> =
            jobs.map(|job| (path_text(&job.input), job.name.as_str())).collect();
        let failed = self.failures.iter().map(|failure| {
            let output = outputs.get(&failure.file).copied().unwrap_or_default();
            (failure.file.clone(), FailedFile::new(output, failure))
        });
        failed.collect()
    }
}
