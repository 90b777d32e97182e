//! Arguments of `convert`.

use crate::config::Class;
use crate::data::text::Placement;
use crate::data::text::convert::{self, Options, Summary};
use crate::error::Result;
use clap::Args;
use std::path::PathBuf;

#[derive(Debug, Args)]
pub struct Arguments {
    /// CSV files, in the order of their rows
    #[arg(required = true)]
    inputs: Vec<PathBuf>,
    /// Event file to write
    #[arg(short, long)]
    pub(super) output: PathBuf,
    /// Dialect of the tables, or path of its schema [default: detected from the content]
    #[arg(long)]
    dialect: Option<String>,
    /// Class of the particles, if the tables do not contain it
    #[arg(long, value_enum)]
    class: Option<Class>,
    /// Move the source to this distance from the camera centre [deg], at seeded random
    /// azimuths: for simulated hadrons, whose own source positions would distinguish them.
    /// Needs --class hadron, or a class column; at most 4.8, the edge of the camera
    #[arg(long, value_name = "DEG")]
    source_offset: Option<f64>,
    /// Seed of these azimuths
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

impl Arguments {
    pub(super) fn run(&self, overwrite: bool) -> Result<Summary> {
        let place = |offset_deg| Placement { offset_deg, seed: self.seed };
        convert::run(&Options {
            inputs: self.inputs.clone(),
            output: self.output.clone(),
            dialect: self.dialect.clone(),
            class: self.class,
            placement: self.source_offset.map(place),
            overwrite,
        })
    }
}
