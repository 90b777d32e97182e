//! Lists the inputs of a scoring, reads suspects, and leaves out files with runs that the model was
//! trained on (`--own-runs`).

use super::Options;
use super::suspects::Suspects;
use crate::comm::{Communicator, StopFlag, Work, is_root, sync_result};
use crate::data::schema::Schema;
use crate::data::table::InputFile;
use crate::dataset::assignment::Assignment;
use crate::engine;
use crate::error::Result;
use crate::model::Card;
use std::path::Path;
use std::sync::Arc;

/// Inputs of a scoring.
pub(super) struct InputListing {
    /// Files of all parts.
    pub(super) listed: Assignment,
    pub(super) suspects: Suspects,
    /// Schema of the option `--schema`; without it each file has the schema that fits it.
    pub(super) schema: Option<Arc<Schema>>,
    /// Outputs of files that are left out.
    pub(super) left_out: Vec<String>,
}

impl InputListing {
    /// Lists the inputs; the same on all ranks. A collective.
    pub(super) fn new(
        comm: &dyn Communicator,
        options: &Options,
        card: &Card,
        stop: &StopFlag,
    ) -> Result<InputListing> {
        let schema = sync_result(comm, Schema::of_option(options.schema.as_deref()))?;
        let (inputs, root) = (&options.inputs, options.root.as_deref());
        let listed = Assignment::new(comm, inputs, &options.output, root)?
            .with_extension(options.extension());
        let suspects = Suspects::check(comm, &listed, options, stop)?;
        let mut listing = InputListing { listed, suspects, schema, left_out: Vec::new() };
        if options.own_runs {
            listing.leave_out_own_runs(comm, card, options)?;
        }
        Ok(listing)
    }

    /// Leaves out the files with runs that the model was trained on. A file that cannot be opened
    /// stays, and is reported when it is scored.
    fn leave_out_own_runs(
        &mut self,
        comm: &dyn Communicator,
        card: &Card,
        options: &Options,
    ) -> Result<()> {
        let InputListing { listed, suspects, schema, .. } = self;
        let mut note = suspects.note(comm, options);
        let mut is_used = Vec::with_capacity(listed.jobs.len());
        for (i, job) in listed.jobs.iter().enumerate() {
            if i % comm.size() != comm.rank() || suspects.failure(&job.name).is_some() {
                is_used.push(0);
                continue;
            }
            note.begin(job);
            is_used.push(i64::from(
                has_own_run(comm, &job.input, card, schema.as_ref()).unwrap_or(false),
            ));
            note.end();
        }
        comm.all_reduce_sum(&mut is_used)?;
        let count: i64 = is_used.iter().sum();
        if is_root(comm) && count > 0 {
            log::info!("{count} file(s) with runs that the model was trained on are left out");
        }
        let all = std::mem::take(&mut listed.jobs).into_iter().zip(is_used);
        let (left_out, jobs): (Vec<_>, Vec<_>) = all.partition(|(_, is_used)| *is_used > 0);
        listed.jobs = jobs.into_iter().map(|(job, _)| job).collect();
        self.left_out = left_out.into_iter().map(|(job, _)| job.name).collect();
        Ok(())
    }
}

/// Returns whether a file has a run that the model was trained on.
fn has_own_run(
    comm: &dyn Communicator,
    input: &Path,
    card: &Card,
    schema: Option<&Arc<Schema>>,
) -> Result<bool> {
    let mut file = InputFile::open(input, schema)?;
    Ok(engine::used_run(card, &mut file, |row| comm.progress(Work::Hashing, row))?.is_some())
}
