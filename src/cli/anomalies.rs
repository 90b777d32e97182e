//! Arguments of `anomalies`.

use super::device::parse_threads;
use super::extract::CleaningArguments;
use crate::engine;
use crate::error::{Fault, Result};
use crate::simulate::images::anomalies::{self, AnomalyKind, Options, Summary};
use clap::Args;
use std::path::PathBuf;

#[derive(Debug, Args)]
pub struct Arguments {
    /// Image files of gammas, or folders of them
    #[arg(required = true)]
    inputs: Vec<PathBuf>,
    /// Folder for the outputs
    #[arg(short, long)]
    pub(super) output: PathBuf,
    /// Relative frequency of each kind, as KIND=WEIGHT: turned, merged, islands, muon [default: 1
    /// each]
    #[arg(long, num_args = 1.., value_name = "KIND=WEIGHT")]
    mix: Vec<String>,
    /// Seed: the same seed gives the same bytes
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// taiga-560 or taiga-595 [default: that of the file]
    #[arg(long)]
    camera: Option<String>,
    #[command(flatten)]
    cleaning: CleaningArguments,
    /// Threads [default: all cores]
    #[arg(long, value_parser = parse_threads)]
    threads: Option<usize>,
}

impl Arguments {
    pub(super) fn run(&self, overwrite: bool) -> Result<Summary> {
        if let Some(threads) = self.threads.filter(|threads| *threads > 0) {
            engine::use_threads(threads);
        }
        anomalies::run(&Options {
            inputs: self.inputs.clone(),
            output: self.output.clone(),
            camera: self.camera.clone(),
            weights: weights(&self.mix)?,
            seed: self.seed,
            cleaning: self.cleaning.cleaning(),
            overwrite,
        })
    }
}

fn weights(mix: &[String]) -> Result<[f64; 4]> {
    if mix.is_empty() {
        return Ok([1.0; 4]);
    }
    let mut weights = [0.0; 4];
    for text in mix {
        let parsed = text.split_once('=').and_then(|(name, weight)| {
            let kind = AnomalyKind::ALL.iter().position(|kind| kind.name() == name.trim())?;
            Some((kind, weight.trim().parse().ok()?))
        });
        let Some((kind, weight)) = parsed else {
            return Err(Fault::new("cannot parse --mix")
                .expected("turned, merged, islands or muon, with a weight: merged=2")
                .found(format!("'{text}'"))
                .usage());
        };
        weights[kind] = weight;
    }
    Ok(weights)
}
