//! Arguments of `compare`.

use super::season::SelectionArguments;
use crate::comm::{Communicator, sync_result};
use crate::error::Result;
use crate::season::SeasonComparison;
use crate::season::compare::{self, Options};
use clap::Args;
use std::path::{Path, PathBuf};

#[derive(Debug, Args)]
pub struct Arguments {
    /// Folder of score files
    first: PathBuf,
    /// Folder of score files of the same inputs
    second: PathBuf,
    /// Folder for comparison.json
    #[arg(short, long)]
    pub(super) output: Option<PathBuf>,
    #[command(flatten)]
    selection: SelectionArguments,
    /// Compare even if up to this many files of either could not be scored; they are listed
    #[arg(long, value_name = "N", default_value_t = 0)]
    allow_failed: usize,
}

impl Arguments {
    pub(super) fn named_inputs(&self) -> Vec<&Path> {
        self.selection.config().into_iter().collect()
    }

    pub(super) fn outputs(&self) -> Vec<PathBuf> {
        self.output.iter().map(|folder| folder.join(compare::COMPARISON)).collect()
    }

    pub(super) fn run(&self, comm: &dyn Communicator, overwrite: bool) -> Result<SeasonComparison> {
        let options = Options {
            scores: [self.first.clone(), self.second.clone()],
            settings: sync_result(comm, self.selection.settings())?,
            output: self.output.clone(),
            allow_failed: self.allow_failed,
            overwrite,
        };
        compare::run(comm, &options)
    }
}
