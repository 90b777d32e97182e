//! `train`: its arguments, and the training with its page.

use super::device::{DeviceArguments, parse_duration};
use super::global::Global;
use crate::comm::{Communicator, StopFlag, sync_result};
use crate::config;
use crate::error::{Result, path_text};
use crate::report;
use crate::train::{self, Existing, Options, Summary};
use clap::{Args, ValueEnum};
use std::path::{Path, PathBuf};
use std::time::Duration;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Resume {
    /// Resume from the newest valid checkpoint, if there is one
    Auto,
    /// Refuse a folder that contains a run
    Never,
}

#[derive(Debug, Args)]
pub struct Arguments {
    /// Configuration (TOML)
    #[arg(short, long)]
    config: PathBuf,
    /// Run folder
    #[arg(short, long)]
    pub(super) output: PathBuf,
    /// Override a key of the configuration: train.epochs=5
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Treatment of an existing run folder
    #[arg(long, value_enum, default_value = "auto")]
    resume: Resume,
    /// Stop after a time, with a checkpoint: 90s, 30m, 12h
    #[arg(long, value_parser = parse_duration, value_name = "TIME")]
    stop_after: Option<Duration>,
    /// Check everything, print the plan, and end
    #[arg(long)]
    dry_run: bool,
    /// Resume a checkpoint of a different device class (bits will differ)
    #[arg(long)]
    allow_engine_change: bool,
    /// Train on fewer than 50 events of a class, or choose a threshold on fewer than 20
    #[arg(long)]
    allow_few_events: bool,
    #[command(flatten)]
    pub(super) device: DeviceArguments,
}

impl Arguments {
    /// Trains, or prints the plan of a dry run.
    pub(super) fn run(&self, comm: &dyn Communicator, global: &Global) -> Result<()> {
        let mut config = sync_result(comm, config::load(&self.config, &self.set))?;
        self.device.apply(&mut config);
        let existing = match (global.overwrite, self.resume) {
            (true, _) => Existing::Replace,
            (false, Resume::Auto) => Existing::Resume,
            (false, Resume::Never) => Existing::Refuse,
        };
        let options = Options {
            config,
            output: self.output.clone(),
            existing,
            allow_engine_change: self.allow_engine_change,
            stop_after: self.stop_after,
            dry_run: self.dry_run,
            allow_few_events: self.allow_few_events,
            command: command_line(),
            lock_timeout: global.lock_timeout,
        };
        if self.dry_run {
            return global.print(comm, &train::estimate::dry_run(comm, &options)?);
        }
        match trained(comm, &options, &StopFlag::on_signals()?)? {
            Some(summary) => global.print(comm, &summary),
            None => Ok(()),
        }
    }
}

/// Trains a model and writes the page of the run.
pub(super) fn trained(
    comm: &dyn Communicator,
    options: &Options,
    stop: &StopFlag,
) -> Result<Option<Summary>> {
    let page = options.output.join(report::PAGE);
    train::run_and_conclude(comm, options, stop, &|summary| {
        // A run may have been killed between its model and its page.
        if summary.already_finished && page.is_file() {
            return Ok(());
        }
        let inputs = report::load(std::slice::from_ref(&options.output))?;
        report::write(&inputs, &page, true)
    })
}

/// Returns the command line as one text, for the record of a run.
pub(super) fn command_line() -> String {
    let arguments = std::env::args_os().map(|argument| path_text(Path::new(&argument)));
    arguments.collect::<Vec<_>>().join(" ")
}
