//! Preparation of a scoring: checks of earlier outputs, and the marks that it has begun.

use super::earlier::{self, EarlierScores};
use super::extracted::Extracted;
use super::scoring_plan::ScoringPlan;
use super::survey::{self, SurveyedFile};
use super::suspects::Suspects;
use super::{Options, ScoredFile, Summary, pieces, resume, shards};
use crate::comm::{Communicator, is_root, sync_result};
use crate::dataset::assignment::Assignment;
use crate::dataset::output::ledger;
use crate::dataset::output::started::Start;
use crate::error::Result;
use crate::storage::{self, FolderIdentity};

/// Settings and files of a scoring before its first file is scored.
pub(super) struct ScoringStart<'a> {
    pub(super) comm: &'a dyn Communicator,
    pub(super) options: &'a Options,
    /// All files, also those of other parts.
    pub(super) listed: &'a Assignment,
    pub(super) assignment: &'a Assignment,
    pub(super) start: &'a Start,
    pub(super) suspects: &'a Suspects,
}

impl ScoringStart<'_> {
    /// Refuses existing files that the outputs of this model and these settings must not replace.
    /// Returns the files of earlier runs, and the hash of the list of files. A collective.
    pub(super) fn prepare(
        &self,
        identity: (&str, &str),
        plan: &ScoringPlan,
        extracted: &Extracted,
    ) -> Result<(EarlierScores, String)> {
        let is_root = is_root(self.comm);
        let on_root = || self.prepare_on_root(identity, plan, extracted);
        sync_result(self.comm, if is_root { on_root() } else { Ok(Default::default()) })
    }

    fn prepare_on_root(
        &self,
        (model, settings): (&str, &str),
        plan: &ScoringPlan,
        extracted: &Extracted,
    ) -> Result<(EarlierScores, String)> {
        let ScoringStart { comm, options, listed, assignment, start, .. } = *self;
        // Another part may be writing.
        if options.shard.1 == 1 && !storage::is_read_only(&options.output) {
            ledger::remove_damaged_lines::<ScoredFile>(&options.output)?;
        }
        let entries = ledger::read(&options.output)?.entries;
        resume::prepare(assignment, options, model, &entries)?;
        let earlier = match earlier::read(options, listed, model, settings, (&entries, extracted))?
        {
            Some(earlier) => earlier,
            None => earlier::of_ledgers(options, listed, (model, plan), &entries)?,
        };
        if start.clears_ledgers(!earlier.files.is_empty()) {
            shards::refuse_other_parts(options, comm.size())?;
        }
        Ok((earlier, shards::listing_hash(listed)))
    }

    /// Checks the free space and marks the outputs as unfinished if some remain to be written. A
    /// collective.
    pub(super) fn begin(
        &self,
        plan: &ScoringPlan,
        found: &[SurveyedFile],
        (earlier, folder): (&EarlierScores, &FolderIdentity),
        empty: Summary,
    ) -> Result<()> {
        let on_root = || {
            survey::check_room(self.assignment, found, plan, self.options)?;
            self.begin_on_root(found, (earlier, folder), empty)
        };
        sync_result(self.comm, if is_root(self.comm) { on_root() } else { Ok(()) })
    }

    fn begin_on_root(
        &self,
        found: &[SurveyedFile],
        (earlier, folder): (&EarlierScores, &FolderIdentity),
        empty: Summary,
    ) -> Result<()> {
        let ScoringStart { comm, options, assignment, start, suspects, .. } = *self;
        let jobs = assignment.jobs.iter().zip(found);
        let left = jobs.filter(|(_, found)| matches!(found, SurveyedFile::Rows(_)));
        let left: Vec<_> = left.map(|(job, _)| job).collect();
        resume::remove_leftovers(options)?;
        if left.is_empty() {
            return Ok(());
        }
        start.note(&options.output, options.shard)?;
        // The manifest and the ledgers of another command must not be removed.
        folder.check()?;
        earlier::begin(earlier, options, empty)?;
        folder.check()?;
        let clears_ledgers = start.clears_ledgers(!earlier.files.is_empty());
        shards::begin(options, comm.size(), clears_ledgers)?;
        // Ledgers that were removed listed them.
        suspects.record(comm, options)?;
        for job in &left {
            pieces::remove_stale(&pieces::folder_of(&options.output, &job.name), &job.input)?;
        }
        resume::begin(&left)
    }
}
