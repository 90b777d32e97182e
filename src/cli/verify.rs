//! `verify`: tells whether what was written is complete and unchanged.

use crate::comm::{Communicator, sync_result};
use crate::dataset::failures::partial;
use crate::dataset::output::ledger;
use crate::dataset::output::verification::OutputVerification;
use crate::error::{Fault, Result};
use crate::{extract, score, train};
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
        found: train::run::verify::RunVerification,
    },
}

impl Arguments {
    pub fn run(&self, comm: &dyn Communicator) -> Result<Verified> {
        let folder = self.folder.clone();
        if folder.join(train::CHECKPOINTS).is_dir() || folder.join(train::MODEL).is_file() {
            let found = train::run::verify::verify(comm, &folder)?;
            return Ok(Verified::Run { folder, found });
        }
        sync_result(comm, refuse_other_folders(&folder))?;
        let found = if extract::Summary::is_at(&folder.join(extract::MANIFEST)) {
            extract::verify::verify(comm, &folder)?
        } else {
            score::verify::verify(comm, &folder)?
        };
        Ok(Verified::Outputs { folder, found })
    }
}

/// Refuses a folder that no command of the program has written into.
fn refuse_other_folders(folder: &Path) -> Result<()> {
    let manifests = [score::MANIFEST, extract::MANIFEST];
    if manifests.iter().any(|name| folder.join(name).is_file()) {
        return Ok(());
    }
    if ledger::exists(folder) {
        return Err(Fault::new("the folder is not complete")
            .file(folder)
            .expected(format!("a {}", score::MANIFEST))
            .found("a ledger, and no manifest: the command that fills the folder has not ended")
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
    /// Refused if anything is wrong; partial if files could not be scored.
    pub fn outcome(&self) -> Result<()> {
        let (folder, wrong) = match self {
            Verified::Outputs { folder, found } => (folder, &found.wrong),
            Verified::Run { folder, found } => (folder, &found.wrong),
        };
        let Some((file, why)) = wrong.iter().next() else {
            return match self {
                Verified::Outputs { found, .. } => {
                    let total = found.failed.len() + found.files as usize;
                    partial(&found.failed, total, "process", 0)
                }
                Verified::Run { .. } => Ok(()),
            };
        };
        Err(Fault::new(format!("{} thing(s) are not as they were written", wrong.len()))
            .file(folder)
            .found(format!("{file}: {why}"))
            .advice("restore these files, or remove them and run the same command again")
            .input()
            .shared())
    }
}

impl fmt::Display for Verified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verified::Outputs { found, .. } => found.fmt(f),
            Verified::Run { found, .. } => found.fmt(f),
        }
    }
}
