//! `verify`: whether what was written is complete and unchanged.

use crate::error::{Fault, Result};
use crate::score::verify::{self, Verification};
use crate::train;
use crate::world::World;
use clap::Args;
use serde::Serialize;
use std::fmt;
use std::path::PathBuf;

#[derive(Debug, Args)]
pub struct Arguments {
    /// Output folder of `score`, or run folder of `train`
    folder: PathBuf,
}

/// Of either kind of folder.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum Verified {
    Scores {
        folder: PathBuf,
        #[serde(flatten)]
        found: Verification,
    },
    Run {
        folder: PathBuf,
        #[serde(flatten)]
        found: train::verify::Verification,
    },
}

impl Arguments {
    pub fn run(&self, world: &dyn World) -> Result<Verified> {
        let folder = self.folder.clone();
        if folder.join(train::CHECKPOINTS).is_dir() || folder.join(train::MODEL).is_file() {
            let found = train::verify::verify(world, &folder)?;
            return Ok(Verified::Run { folder, found });
        }
        let found = verify::verify(world, &folder)?;
        Ok(Verified::Scores { folder, found })
    }
}

impl Verified {
    /// Refused if anything is wrong.
    pub fn outcome(&self) -> Result<()> {
        let (folder, wrong) = match self {
            Verified::Scores { folder, found } => (folder, &found.wrong),
            Verified::Run { folder, found } => (folder, &found.wrong),
        };
        let Some((file, why)) = wrong.iter().next() else { return Ok(()) };
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
            Verified::Scores { found, .. } => found.fmt(f),
            Verified::Run { found, .. } => found.fmt(f),
        }
    }
}
