//! Reads suspect inputs in child processes before this process opens them.
//!
//! A suspect is a file that a rank was reading when an earlier start died
//! (`dataset::output::reading`), or a file that, according to the ledger, has ended its reader and
//! has not been scored since.

use super::{Options, ScoredFile, shards};
use crate::comm::{
    Communicator, ReadingOf, StopFlag, gather_values, is_root, sync_result, value_of_root,
};
use crate::dataset::assignment::{Assignment, Job};
use crate::dataset::failures::Failure;
use crate::dataset::output::ledger::{self, FailedEntry, Ledger};
use crate::dataset::output::reading::{ReadingNote, ReadingNotes};
use crate::dataset::probe;
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Results of reading the suspects, by name of their output; the same on all ranks.
#[derive(Debug, Default)]
pub(crate) struct Suspects {
    /// Inputs that a child process could read.
    probed: BTreeSet<String>,
    /// Inputs that end or stop their reader.
    quarantined: BTreeMap<String, Failure>,
}

/// Result of one suspect.
#[derive(Serialize, Deserialize)]
struct ProbeResult {
    output: String,
    failure: Option<Failure>,
}

impl Suspects {
    /// Reads the suspects among the files in child processes, distributed over the ranks, and
    /// records those that must not be read.
    pub(crate) fn check(
        comm: &dyn Communicator,
        listed: &Assignment,
        options: &Options,
        stop: &StopFlag,
    ) -> Result<Suspects> {
        let named = value_of_root(comm, || named(options))?;
        let jobs = listed.jobs.iter().filter(|job| named.contains(&job.name));
        let own = jobs.skip(comm.rank()).step_by(comm.size());
        let mine: Result<Vec<ProbeResult>> = own.map(|job| probe(job, options, stop)).collect();
        let mut suspects = Suspects::default();
        for ProbeResult { output, failure } in
            gather_values(comm, &sync_result(comm, mine)?)?.into_iter().flatten()
        {
            match failure {
                Some(failure) => drop(suspects.quarantined.insert(output, failure)),
                None => drop(suspects.probed.insert(output)),
            }
        }
        let record = || {
            suspects.record(comm, options)?;
            notes(options).clear()
        };
        sync_result(comm, if is_root(comm) { record() } else { Ok(()) })?;
        Ok(suspects)
    }

    /// Records the files that must not be read in the ledger, for the next start.
    pub(crate) fn record(&self, comm: &dyn Communicator, options: &Options) -> Result<()> {
        if self.quarantined.is_empty() {
            return Ok(());
        }
        let known = ledger::read::<ScoredFile>(&options.output)?.failed;
        let mut ledger = Ledger::new(&options.output, shards::part_of(comm, options));
        for (output, failure) in &self.quarantined {
            let entry = FailedEntry::new(output, failure, true);
            if known.get(output) != Some(&entry) {
                ledger.add_failed(&entry)?;
            }
        }
        Ok(())
    }

    /// Returns why the input of an output must not be read.
    pub(crate) fn failure(&self, output: &str) -> Option<&Failure> {
        self.quarantined.get(output)
    }

    /// Returns the note of this rank.
    pub(crate) fn note(&self, comm: &dyn Communicator, options: &Options) -> ReadingNote {
        notes(options).note(comm.rank(), &self.probed)
    }
}

/// Returns a function that names the file that a rank is reading.
pub(crate) fn reading_of(options: &Options) -> ReadingOf {
    let notes = notes(options);
    Arc::new(move |rank| notes.of_rank(rank).map(|reading| reading.input))
}

fn notes(options: &Options) -> ReadingNotes {
    ReadingNotes::new(&options.output.join(ledger::FOLDER), options.shard)
}

/// Returns the names of the outputs whose inputs are suspects.
fn named(options: &Options) -> Result<BTreeSet<String>> {
    let recorded = ledger::read::<ScoredFile>(&options.output)?;
    let unscored = |(output, entry): &(String, FailedEntry)| {
        entry.quarantined && !recorded.entries.contains_key(output)
    };
    let of_ledger = recorded.failed.clone().into_iter().filter(unscored).map(|(output, _)| output);
    let left_behind = notes(options).left_behind()?.into_iter().map(|reading| reading.output);
    Ok(of_ledger.chain(left_behind).collect())
}

fn probe(job: &Job, options: &Options, stop: &StopFlag) -> Result<ProbeResult> {
    log::warn!(
        "{}: an earlier start ended while it was read; a child process reads it first",
        job.input.display()
    );
    let poll = || stop.refuse_if_requested();
    let error = probe::run(&job.input, options.schema.as_deref(), options.probe_timeout, &poll)?;
    if let Some(error) = &error {
        log::warn!("{error}");
    }
    let failure = error.as_ref().map(|error: &Error| Failure::new(&job.input, error));
    Ok(ProbeResult { output: job.name.clone(), failure })
}
