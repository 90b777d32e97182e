//! Verifies a run folder: every checkpoint against its manifest, the model against its card, and
//! the records against both. The checkpoints are distributed over the ranks.

use super::checkpoint;
use super::records;
use crate::comm::{Communicator, gather_values, is_root, mark_shared, sync_result};
use crate::error::Result;
use crate::model::Model;
use crate::train::{CHECKPOINTS, MODEL, PROVENANCE};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::Path;

/// Result of the verification.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RunVerification {
    pub checkpoints: u64,
    /// blake3 of the model file, if the run is finished.
    pub model_blake3: Option<String>,
    /// Faults by file or checkpoint.
    pub wrong: BTreeMap<String, String>,
}

/// Verifies a run folder.
///
/// # Errors
/// Environment error if the folder cannot be listed; faults of files are part of the result.
pub fn verify(comm: &dyn Communicator, run: &Path) -> Result<RunVerification> {
    let folder = run.join(CHECKPOINTS);
    let steps = checkpoint::list(&folder)?;
    let mut wrong = BTreeMap::new();
    let hashes = records::run_hashes(run);
    for (i, step) in steps.iter().enumerate() {
        if i % comm.size() != comm.rank() {
            continue;
        }
        let why = match checkpoint::verify(&folder.join(format!("step-{step}"))) {
            Ok(hash) if records::is_own(&hashes, &hash) => continue,
            Ok(hash) => {
                format!("from a different run: no start in {PROVENANCE} has its hash {hash}")
            }
            Err(error) => error.to_string(),
        };
        wrong.insert(format!("{CHECKPOINTS}/step-{step}"), why);
    }
    let checked = if is_root(comm) { check_records(run, &mut wrong) } else { Ok(None) };
    // An error on rank 0 must not leave the other ranks waiting.
    let model = sync_result(comm, checked)?;
    let checkpoints = steps.len() as u64;
    let mut all = RunVerification { checkpoints, model_blake3: None, wrong: BTreeMap::new() };
    for (model, wrong) in gather_values(comm, &(model, wrong))? {
        all.model_blake3 = all.model_blake3.or(model);
        all.wrong.extend(wrong);
    }
    mark_shared(Ok(all))
}

/// Checks the model and the records of a run, and adds their faults to `wrong`; returns the blake3
/// of the model.
fn check_records(run: &Path, wrong: &mut BTreeMap<String, String>) -> Result<Option<String>> {
    let loaded = run.join(MODEL).exists().then(|| Model::load(&run.join(MODEL))).transpose();
    let loaded = loaded.unwrap_or_else(|error| {
        wrong.insert(MODEL.to_string(), error.to_string());
        None
    });
    let card = loaded.as_ref().map(|(model, _)| &model.card);
    // Only the first fault of a file is reported.
    for (name, why) in records::check(run, card)? {
        wrong.entry(name).or_insert(why);
    }
    Ok(loaded.map(|(_, hash)| hash))
}

impl std::fmt::Display for RunVerification {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "verified {} checkpoint(s)", self.checkpoints)?;
        match &self.model_blake3 {
            Some(hash) => writeln!(f, "model: {hash}")?,
            None => writeln!(f, "no readable model")?,
        }
        self.wrong.iter().try_for_each(|(place, why)| writeln!(f, "wrong: {place}: {why}"))
    }
}
