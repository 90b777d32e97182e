//! `compare`: the arguments as typed, and what they ask for.

use super::season::Selection;
use crate::error::Result;
use crate::season::Comparison;
use crate::season::compare::{self, Options};
use crate::world::{World, agree};
use clap::Args;
use std::path::PathBuf;

#[derive(Debug, Args)]
pub struct Arguments {
    /// Folder of score files
    first: PathBuf,
    /// Folder of score files of the same inputs
    second: PathBuf,
    /// Folder for comparison.json
    #[arg(short, long)]
    output: Option<PathBuf>,
    #[command(flatten)]
    selection: Selection,
}

impl Arguments {
    pub fn run(&self, world: &dyn World, overwrite: bool) -> Result<Comparison> {
        let options = Options {
            scores: [self.first.clone(), self.second.clone()],
            settings: agree(world, self.selection.settings())?,
            output: self.output.clone(),
            overwrite,
        };
        compare::run(world, &options)
    }
}
