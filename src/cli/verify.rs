//! `verify`: checks that outputs are complete and unchanged.

use crate::comm::{Communicator, sync_result};
use crate::dataset::failures::partial;
use crate::dataset::output::ledger;
use crate::dataset::output::verification::OutputVerification;
use crate::error::{Fault, Result};
use crate::train::run::{self, run_folder::holds_run};
use crate::{extract, score};
use clap::Args;
use serde::Serialize;
use std::fmt;
use std::path::{Path, PathBuf};

#[derive(Debug, Args)]
pub struct Arguments {
    /// Output folder of `score` or `extract`, or run folder of `train`
    folder: PathBuf,
}

/// Findings by kind of folder.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum Verified {
    Outputs {
        folder: PathBuf,
        #[serde(flatten)]
        found: OutputVerification,
    },
    Run {
        folder: PathBuf,
        #[serde(flatten)]
        found: run::verify::RunVerification,
    },
    /// A run, and outputs of another command that were written into its folder.
    Both { folder: PathBuf, run: run::verify::RunVerification, outputs: OutputVerification },
}

impl Arguments {
    pub(super) fn run(&self, comm: &dyn Communicator) -> Result<Verified> {
        let folder = self.folder.clone();
        let has_run = holds_run(&folder);
        if !has_run {
            sync_result(comm, refuse_other_folders(&folder))?;
        }
        let found = has_run.then(|| run::verify::verify(comm, &folder)).transpose()?;
        let Some(run) = found else {
            let found = outputs(comm, &folder)?;
            return Ok(Verified::Outputs { folder, found });
        };
        if !has_outputs(&folder) {
            return Ok(Verified::Run { folder, found: run });
        }
        let mut outputs = outputs(comm, &folder)?;
        // The files of the run are compared with its own records.
        outputs.other_files.clear();
        Ok(Verified::Both { folder, run, outputs })
    }
}

/// Verifies the outputs of `score` or `extract` in a folder.
fn outputs(comm: &dyn Communicator, folder: &Path) -> Result<OutputVerification> {
    if extract::Summary::is_at(&folder.join(extract::MANIFEST)) {
        extract::verify::verify(comm, folder)
    } else {
        score::verify::verify(comm, folder)
    }
}

fn has_outputs(folder: &Path) -> bool {
    has_manifest(folder) || ledger::exists(folder)
}

fn has_manifest(folder: &Path) -> bool {
    [score::MANIFEST, extract::MANIFEST].iter().any(|name| folder.join(name).is_file())
}

/// Refuses a folder that no command of the program has written into.
fn refuse_other_folders(folder: &Path) -> Result<()> {
    if has_manifest(folder) {
        return Ok(());
    }
    if ledger::exists(folder) {
        return Err(Fault::new("the folder is not complete")
            .file(folder)
            .expected(format!("a {}", score::MANIFEST))
            .found("a ledger without a manifest: the command that writes the folder has not ended")
            .advice("run the same command again to finish it")
            .input());
    }
    Err(Fault::new("nothing to verify")
        .file(folder)
        .expected(format!("a {} and a folder {}", score::MANIFEST, ledger::FOLDER))
        .found("neither")
        .advice("give the output folder of `score` or `extract`, or the run folder of `train`")
        .input())
}

impl Verified {
    /// Returns an error: a refusal if anything is wrong, partial if files could not be scored.
    pub(super) fn outcome(&self) -> Result<()> {
        let (folder, run, outputs) = self.parts();
        let of_run = run.iter().flat_map(|found| &found.wrong);
        let wrong: Vec<_> = of_run.chain(outputs.iter().flat_map(|found| &found.wrong)).collect();
        let Some((file, why)) = wrong.first() else {
            return outputs.map_or(Ok(()), |found| {
                let total = found.failed.len() + found.files as usize;
                partial(&found.failed, total, "process", 0)
            });
        };
        Err(Fault::new(format!(
            "{} file(s) or record(s) differ from their written state",
            wrong.len()
        ))
        .file(folder)
        .found(format!("{file}: {why}"))
        .advice("restore these files, or remove them and run the same command again")
        .input()
        .shared())
    }

    fn parts(&self) -> (&Path, Option<&run::verify::RunVerification>, Option<&OutputVerification>) {
        match self {
            Verified::Outputs { folder, found } => (folder, None, Some(found)),
            Verified::Run { folder, found } => (folder, Some(found), None),
            Verified::Both { folder, run, outputs } => (folder, Some(run), Some(outputs)),
        }
    }
}

impl fmt::Display for Verified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (_, run, outputs) = self.parts();
        run.map_or(Ok(()), |found| found.fmt(f))?;
        outputs.map_or(Ok(()), |found| found.fmt(f))
    }
}
