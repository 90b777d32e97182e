//! The command line: parses arguments and runs the commands.
//!
//! Results go to standard output (text, or one JSON object with `--json`), messages to standard
//! error. Only rank 0 prints.

mod anomalies;
mod check;
mod compare;
mod completions;
mod convert;
mod device;
mod evaluate;
mod extract;
mod global;
mod init;
mod left_out;
mod observation;
mod probe;
mod score;
mod season;
mod simulate;
mod status;
mod sweep;
mod sweep_points;
mod train;
mod verify;

use crate::comm::{Communicator, is_root, sync_result};
use crate::config::Run;
use crate::data::files::protected::ProtectedInputs;
use crate::error::Result;
use crate::report;
use crate::simulate as simulation;
use crate::storage::lock::OutputLock;
use crate::storage::{refuse_no_folder, refuse_not_utf8};
use crate::train::run::run_folder::refuse_run;
use clap::{CommandFactory, Parser, Subcommand};
use device::watchdog;
use global::Global;
use serde::Serialize;
use simulate::SimulationOptions;
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Train normalizing flows on Hillas parameters over MPI ranks, and score archives of gamma-ray
/// telescope seasons
#[derive(Debug, Parser)]
#[command(name = "taiga-flow", version, max_term_width = 100, after_help = EXIT_CODES)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
    #[command(flatten)]
    pub global: Global,
}

const EXIT_CODES: &str = "Exit codes: 0 success, 1 internal error, 2 usage or configuration, 3 input rejected, \
4 partial (some files failed), 5 environment (MPI, device, disk), 6 training diverged, 75 stopped early (run again), \
130 interrupted.\n\nEvery command runs as a single process; train, sweep, extract, evaluate, score, verify, season and compare also as `mpirun -n N taiga-flow …` or \
`srun taiga-flow …`.";

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Write commented configurations, schemas and job scripts into a folder
    Init {
        /// Folder to write into
        folder: PathBuf,
    },
    /// Write shell completions (bash, zsh, fish) and man pages into a folder
    Completions {
        /// Folder to write into
        folder: PathBuf,
    },
    /// Write toy Monte Carlo events: for tests and demonstrations, not for physics
    #[command(long_about = format!(
        "Write toy Monte Carlo events: Hillas parameters, or camera images.\n\n{}; {}",
        simulation::NOTICE,
        simulation::images::NOTICE
    ))]
    Simulate(simulate::Arguments),
    /// Compute Hillas parameters of camera images: one event file per input file
    Extract(extract::Arguments),
    /// Make hadron-like images from images of gammas, for `[anomalies] files`
    Anomalies(anomalies::Arguments),
    /// Convert CSV tables to an event file
    Convert(convert::Arguments),
    /// Show the content of files, and check them
    Check(check::Arguments),
    /// Train a model
    Train(train::Arguments),
    /// Train one model per point of a grid of settings, or without each feature in turn, and write
    /// one table of all
    Sweep(sweep::Arguments),
    /// Show the state of a run, also while it is running, and from a login node
    Status {
        /// Run folder
        run: PathBuf,
    },
    /// Measure the performance of a model on labelled events
    Evaluate(evaluate::Arguments),
    /// Score event files: one output file per input file
    Score(score::Arguments),
    /// Check that scores or a run are complete and unchanged
    Verify(verify::Arguments),
    /// Count a season of scored archives: ON and OFF counts, significance, drift
    Season(season::Arguments),
    /// Compare two scorings of the same inputs
    Compare(compare::Arguments),
    /// Read a file to its end: started by `score` for a file that has ended its reader
    #[command(name = crate::dataset::probe::COMMAND, hide = true)]
    ProbeFile(probe::Arguments),
    /// Write a run or evaluations as one HTML page
    Report {
        /// Run folders and evaluation folders
        #[arg(required = true)]
        folders: Vec<PathBuf>,
        /// Page to write
        #[arg(short, long)]
        output: PathBuf,
    },
}

impl Command {
    /// Returns whether the command distributes its work over ranks.
    pub fn is_parallel(&self) -> bool {
        matches!(
            self,
            Command::Train(_)
                | Command::Evaluate(_)
                | Command::Score(_)
                | Command::Verify(_)
                | Command::Extract(_)
                | Command::Sweep(_)
                | Command::Season(_)
                | Command::Compare(_)
        )
    }
}

impl Cli {
    /// Returns the time within which a missing rank ends the job at the start and end of MPI. It is
    /// the value of the option, because the configuration is read later.
    pub fn deadline(&self) -> Option<Duration> {
        let given = match &self.command {
            Command::Train(arguments) => arguments.device.watchdog,
            Command::Evaluate(arguments) => arguments.device.watchdog,
            Command::Score(arguments) => arguments.device.watchdog,
            Command::Sweep(arguments) => arguments.device.watchdog,
            Command::Extract(arguments) => arguments.watchdog,
            _ => None,
        };
        watchdog(given, Run::default())
    }

    /// Runs the command as one rank of `comm`.
    ///
    /// # Errors
    /// The error of the command, shared by all ranks if it may differ between them.
    pub fn run(&self, comm: &dyn Communicator) -> Result<()> {
        sync_result(comm, if is_root(comm) { self.refuse_no_output() } else { Ok(()) })?;
        sync_result(comm, self.protect_inputs())?;
        sync_result(comm, self.output_folder().map_or(Ok(()), refuse_run))?;
        let _lock = sync_result(comm, if is_root(comm) { self.lock() } else { Ok(None) })?;
        self.dispatch(comm)
    }

    /// Runs the command and prints its result.
    fn dispatch(&self, comm: &dyn Communicator) -> Result<()> {
        let (out, overwrite) = (&self.global, self.global.overwrite);
        match &self.command {
            Command::Init { folder } => out.print(comm, &init::run(folder, overwrite)?),
            Command::Completions { folder } => {
                out.print(comm, &completions::run(Cli::command(), folder, overwrite)?)
            }
            Command::Simulate(arguments) => match arguments.options(overwrite)? {
                SimulationOptions::Hillas(options) => out.print(comm, &simulation::run(&options)?),
                SimulationOptions::Images(options) => {
                    out.print(comm, &simulation::images::run(&options)?)
                }
            },
            Command::Extract(arguments) => {
                let summary = arguments.run(comm, overwrite)?;
                out.print(comm, &summary)?;
                arguments.outcome(&summary)
            }
            Command::Anomalies(arguments) => out.print(comm, &arguments.run(overwrite)?),
            Command::Convert(arguments) => out.print(comm, &arguments.run(overwrite)?),
            Command::Check(arguments) => {
                let report = arguments.run(comm)?;
                out.print(comm, &report)?;
                report.outcome()
            }
            Command::Train(arguments) => arguments.run(comm, &self.global),
            Command::Sweep(arguments) => {
                let lock_timeout = self.global.lock_timeout;
                let sweep = arguments.run(comm, sweep::Writing { overwrite, lock_timeout })?;
                out.print(comm, &sweep)?;
                sweep::outcome(&sweep)
            }
            Command::ProbeFile(arguments) => arguments.run(),
            Command::Status { run } => out.print(comm, &status::run(run)?),
            Command::Evaluate(arguments) => out.print(comm, &arguments.run(comm, overwrite)?),
            Command::Score(arguments) => {
                let summary = arguments.run(comm, overwrite)?;
                out.print(comm, &summary)?;
                arguments.outcome(&summary)
            }
            Command::Verify(arguments) => {
                let verification = arguments.run(comm)?;
                out.print(comm, &verification)?;
                verification.outcome()
            }
            Command::Season(arguments) => {
                let season = arguments.run(comm, overwrite)?;
                out.print(comm, &season)?;
                crate::season::outcome(&season)
            }
            Command::Compare(arguments) => out.print(comm, &arguments.run(comm, overwrite)?),
            Command::Report { folders, output } => {
                let inputs = report::load(folders)?;
                report::write(&inputs, output, overwrite)?;
                out.print(comm, &Written { report: output.clone() })
            }
        }
    }

    /// Locks the outputs of the command. `train` and `sweep` lock each run folder.
    fn lock(&self) -> Result<Option<OutputLock>> {
        let timeout = self.global.lock_timeout;
        let folder = |path: &Path| OutputLock::folder(path, timeout);
        let file = |path: &Path| OutputLock::file(path, timeout);
        match &self.command {
            Command::Init { folder: path } | Command::Completions { folder: path } => folder(path),
            Command::Simulate(arguments) => file(&arguments.output),
            Command::Extract(arguments) => folder(&arguments.output),
            Command::Anomalies(arguments) => folder(&arguments.output),
            Command::Convert(arguments) => file(&arguments.output),
            Command::Report { output, .. } => file(output),
            Command::Evaluate(arguments) => folder(&arguments.output),
            Command::Score(arguments) if arguments.shard == (0, 1) => folder(&arguments.output),
            Command::Score(arguments) => {
                OutputLock::part(&arguments.output, arguments.shard, timeout)
            }
            Command::Season(arguments) => folder(&arguments.output),
            Command::Compare(arguments) => arguments.output.as_deref().map_or(Ok(None), folder),
            Command::Train(_)
            | Command::Sweep(_)
            | Command::Check(_)
            | Command::Status { .. }
            | Command::ProbeFile(_)
            | Command::Verify(_) => Ok(None),
        }
    }

    /// Returns the output folder of a command that must not write into the folder of a run.
    fn output_folder(&self) -> Option<&Path> {
        match &self.command {
            Command::Score(arguments) => Some(&arguments.output),
            Command::Extract(arguments) => Some(&arguments.output),
            Command::Anomalies(arguments) => Some(&arguments.output),
            Command::Season(arguments) => Some(&arguments.output),
            Command::Compare(arguments) => arguments.output.as_deref(),
            Command::Evaluate(arguments) => Some(&arguments.output),
            _ => None,
        }
    }

    /// Refuses an output that no command can write: a file in the place of a folder, or a name that
    /// is not UTF-8 for a file of HDF5.
    fn refuse_no_output(&self) -> Result<()> {
        let folder = match &self.command {
            Command::Init { folder } | Command::Completions { folder } => Some(folder.as_path()),
            Command::Train(arguments) => Some(arguments.output.as_path()),
            Command::Sweep(arguments) => Some(arguments.output.as_path()),
            _ => self.output_folder(),
        };
        folder.map_or(Ok(()), refuse_no_folder)?;
        match &self.command {
            Command::Score(score::Arguments { output, .. })
            | Command::Extract(extract::Arguments { output, .. })
            | Command::Anomalies(anomalies::Arguments { output, .. })
            | Command::Simulate(simulate::Arguments { output, .. })
            | Command::Convert(convert::Arguments { output, .. }) => refuse_not_utf8(output),
            _ => Ok(()),
        }
    }

    /// Refuses outputs with fixed names that the command also reads. Outputs that are named after
    /// inputs are checked where the inputs are listed.
    fn protect_inputs(&self) -> Result<()> {
        let (inputs, outputs): (Vec<&Path>, Vec<PathBuf>) = match &self.command {
            Command::Evaluate(arguments) => (arguments.named_inputs(), arguments.outputs()),
            Command::Season(arguments) => (arguments.named_inputs(), arguments.outputs()),
            Command::Compare(arguments) => (arguments.named_inputs(), arguments.outputs()),
            _ => return Ok(()),
        };
        let inputs = ProtectedInputs::new(inputs);
        outputs.iter().try_for_each(|output| inputs.refuse(output))
    }
}

#[derive(Debug, Serialize)]
struct Written {
    report: PathBuf,
}

impl Display for Written {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "report: {}", self.report.display())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn command_line_is_consistent_and_has_help() {
        Cli::command().debug_assert();
        for command in Cli::command().get_subcommands() {
            for argument in command.get_arguments() {
                let (command, id) = (command.get_name(), argument.get_id());
                assert!(argument.get_help().is_some(), "{command}: {id} has no help");
            }
        }
    }
}
