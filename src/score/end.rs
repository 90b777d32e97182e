//! End of a scoring: merges the reports of the ranks, writes the manifest and records failures.

use super::earlier::EarlierScores;
use super::survey::SurveyedFile;
use super::{Options, ScoredFile, ScoringReport, Summary, pieces, shards};
use crate::comm::{Communicator, any_rank, is_root, sync_result, value_of_root};
use crate::dataset::assignment::Assignment;
use crate::dataset::failures::{FailedFile, Failure};
use crate::dataset::output::given::Given;
use crate::dataset::output::ledger::{self, FailedEntry, Ledger};
use crate::dataset::output::started;
use crate::error::Result;
use crate::storage::{self, FolderIdentity};
use std::collections::BTreeMap;

/// Adds finished and failed files of the survey to the report.
pub(super) fn add_surveyed(report: &mut ScoringReport, found: Vec<SurveyedFile>) {
    for found in found {
        match found {
            SurveyedFile::Finished(file) => report.files.push(file),
            SurveyedFile::Failed(failure) => report.failures.push(failure),
            SurveyedFile::Rows(_) => {}
        }
    }
}

/// Settings and records that the end of a scoring needs besides the reports of the ranks.
pub(super) struct ScoringEnd<'a> {
    pub(super) options: &'a Options,
    /// The output folder when the scoring began.
    pub(super) folder: &'a FolderIdentity,
    pub(super) assignment: &'a Assignment,
    pub(super) earlier: &'a EarlierScores,
    pub(super) listing: &'a str,
}

impl ScoringEnd<'_> {
    /// Merges the reports of the ranks and writes the manifest.
    ///
    /// # Errors
    /// The first failure if no file was scored.
    pub(super) fn finish(
        &self,
        comm: &dyn Communicator,
        empty: Summary,
        mine: &ScoringReport,
    ) -> Result<Summary> {
        let ScoringEnd { options, earlier, listing, .. } = self;
        let all = mine.gather(comm, |file| &file.output)?;
        // Other parts and earlier runs need a manifest in any case.
        let has_others = options.shard.1 > 1 || !earlier.files.is_empty();
        if !any_rank(comm, has_others)?
            && let Err(error) = all.refuse_all_failed()
        {
            let remove = || started::remove(&options.output, options.shard);
            sync_result(comm, if is_root(comm) { remove() } else { Ok(()) })?;
            return Err(error);
        }
        let summary = Summary {
            rows: all.files.iter().map(|f| f.rows).sum(),
            files: all.files.clone(),
            failed: all.failed(self.assignment).into_iter().chain(empty.failed).collect(),
            ..empty
        };
        let conclude = || {
            self.folder.check()?;
            if storage::is_read_only(&options.output) {
                let written = shards::write_manifest(options, &summary, earlier, listing)?;
                return earlier.unresolved(&options.output, &written.files);
            }
            storage::remove_folder(&options.output.join(pieces::FOLDER))?;
            // A start that died while it wrote the manifest left a temporary file.
            storage::remove_dead_parts(&options.output, options.shard.1 == 1)?;
            Given::new(&options.inputs, options.root.as_deref(), options.extension())
                .record(&options.output)?;
            self.record_failures(comm, &summary.failed)?;
            let written = shards::write_manifest(options, &summary, earlier, listing)?;
            started::remove(&options.output, options.shard)?;
            earlier.unresolved(&options.output, &written.files)
        };
        let unresolved = value_of_root(comm, conclude)?;
        if is_root(comm) {
            let files = summary.files.iter();
            files.flat_map(ScoredFile::warnings).for_each(|text| log::warn!("{text}"));
        }
        let failed = unresolved.into_iter().chain(summary.failed).collect();
        Ok(Summary { failed, ..summary })
    }

    /// Adds new failures to the ledger.
    fn record_failures(
        &self,
        comm: &dyn Communicator,
        failed: &BTreeMap<String, FailedFile>,
    ) -> Result<()> {
        if failed.is_empty() {
            return Ok(());
        }
        let known = ledger::read::<ScoredFile>(&self.options.output)?.failed;
        let part = shards::part_of(comm, self.options);
        let mut ledger = Ledger::new(&self.options.output, part);
        for (input, FailedFile { output, reason, exit_code, .. }) in
            failed.iter().filter(|(_, failed)| failed.extraction.is_none())
        {
            let failure =
                Failure { file: input.clone(), exit_code: *exit_code, text: reason.clone() };
            let entry = FailedEntry::new(output, &failure, false);
            let quarantined = FailedEntry { quarantined: true, ..entry.clone() };
            if !known.get(output).is_some_and(|last| *last == entry || *last == quarantined) {
                ledger.add_failed(&entry)?;
            }
        }
        Ok(())
    }
}
