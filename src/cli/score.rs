//! Arguments of `score`.

use super::device::{DeviceArguments, parse_duration};
use crate::comm::{Communicator, StopFlag, sync_result};
use crate::config::{self, ScoringConfig};
use crate::dataset::failures::{partial, total};
use crate::error::Result;
use crate::score::{self, BLOCK_ROWS, Format, Options, SPLIT_ROWS, Summary};
use clap::Args;
use std::path::PathBuf;
use std::time::Duration;

#[derive(Debug, Args)]
pub struct Arguments {
    /// Model file
    #[arg(short, long)]
    model: PathBuf,
    /// Folder for the outputs
    #[arg(short, long)]
    pub(super) output: PathBuf,
    /// Event files, folders, patterns in quotes, or @LIST with one path per line
    #[arg(required = true)]
    inputs: Vec<PathBuf>,
    /// Place outputs relative to this folder [default: the given folders]
    #[arg(long)]
    root: Option<PathBuf>,
    /// Configuration with a section [score]
    #[arg(short, long)]
    config: Option<PathBuf>,
    /// Override a key of the configuration: score.positions=6
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Built-in schema or schema file [default: detected from the file]
    #[arg(long)]
    schema: Option<String>,
    /// Format of the outputs
    #[arg(long, value_enum, default_value = "hdf5")]
    format: Format,
    /// Score part I of N of the files, with one job per part; together they form the whole
    #[arg(long, value_parser = parse_shard, value_name = "I/N", default_value = "1/1")]
    pub(super) shard: (usize, usize),
    /// Rows read, scored and written at a time: fewer rows need less memory
    #[arg(long, value_name = "ROWS", default_value_t = BLOCK_ROWS,
          value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    batch: u64,
    /// Skip files with runs that the model was trained on, instead of refusing them; score them
    /// with the model of another fold
    #[arg(long)]
    own_runs: bool,
    /// Fail files whose events differ from the training events, instead of a warning
    #[arg(long)]
    strict: bool,
    /// Split files with more rows than this between ranks
    #[arg(long, value_name = "ROWS", default_value_t = SPLIT_ROWS,
          value_parser = clap::value_parser!(u64).range(1..))]
    split_rows: u64,
    /// Succeed if up to this many files fail; they are listed in any case
    #[arg(long, value_name = "N", default_value_t = 0)]
    allow_failed: usize,
    /// Remove lost outputs and failed inputs of earlier runs from the manifest, instead of exit
    /// code 4
    #[arg(long)]
    forget_missing: bool,
    /// Time limit of a child process that reads a file during which an earlier start ended, plus
    /// one second per megabyte; then the file fails
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = parse_duration)]
    probe_timeout: Duration,
    #[command(flatten)]
    pub(super) device: DeviceArguments,
}

impl Arguments {
    pub(super) fn run(&self, comm: &dyn Communicator, overwrite: bool) -> Result<Summary> {
        let loaded = config::load_for_scoring(self.config.as_deref(), &self.set);
        let ScoringConfig { score, run, data } = sync_result(comm, loaded)?;
        let options = Options {
            model: self.model.clone(),
            output: self.output.clone(),
            inputs: self.inputs.clone(),
            root: self.root.clone(),
            schema: self.schema.clone().or(data.schema),
            score,
            format: self.format,
            shard: self.shard,
            own_runs: self.own_runs,
            strict: self.strict,
            block_rows: self.batch,
            split_rows: self.split_rows,
            forget_missing: self.forget_missing,
            overwrite,
            hardware: self.device.hardware(),
            watchdog: self.device.watchdog(run),
            probe_timeout: self.probe_timeout,
        };
        score::run(comm, &options, &StopFlag::on_signals()?)
    }

    /// Returns the outcome of the command: partial if more files failed than allowed.
    pub(super) fn outcome(&self, summary: &Summary) -> Result<()> {
        let total = total(&summary.files, &summary.failed);
        partial(&summary.failed, total, "score", self.allow_failed)
    }
}

/// Parses a part such as `3/10`: the third of ten.
fn parse_shard(text: &str) -> std::result::Result<(usize, usize), String> {
    let numbers = text.split_once('/').and_then(|(i, n)| Some((i.parse().ok()?, n.parse().ok()?)));
    match numbers {
        Some((i, n)) if (1..=n).contains(&i) && n <= 1_000_000 => Ok((i - 1, n)),
        _ => Err("expected a part and the number of parts, such as 3/10".to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_counted_from_one() {
        assert_eq!(parse_shard("1/1").unwrap(), (0, 1));
        assert_eq!(parse_shard("10/10").unwrap(), (9, 10));
        for wrong in ["", "0/3", "4/3", "1", "1/0", "a/b", "1/2/3", "-1/2"] {
            assert!(parse_shard(wrong).is_err(), "{wrong}");
        }
    }
}
