//! The command line: parses arguments and runs the commands.
//!
//! Results go to standard output (text, or one JSON object with `--json`), messages to standard
//! error. Only rank 0 prints.

mod anomalies;
mod check;
mod compare;
mod extract;
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
mod verify;

use crate::comm::{Communicator, StopFlag, is_root, sync_result};
use crate::config::{self, Class, Config, EngineChoice, Hardware, Run};
use crate::data::files::output_kind::OutputKind;
use crate::data::files::protected::ProtectedInputs;
use crate::data::selection::split::Part;
use crate::data::text::Placement;
use crate::data::text::convert;
use crate::error::{Fault, Result, path_text};
use crate::evaluate::{self, EvaluatedParts};
use crate::report;
use crate::simulate as simulation;
use crate::storage::lock::OutputLock;
use crate::terminal;
use crate::train::run::run_folder::refuse_run;
use crate::train::{self, Existing};
use clap::{Args, Parser, Subcommand, ValueEnum};
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

#[derive(Debug, Args)]
pub struct Global {
    /// Print one JSON object on standard output
    #[arg(long, global = true)]
    pub json: bool,
    /// Replace existing outputs
    #[arg(long, global = true)]
    pub overwrite: bool,
    /// Print more messages (repeat for even more)
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// Print errors only
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// Wait at most this long for another job that writes to the same output
    #[arg(long, global = true, value_name = "TIME", default_value = "30s",
          value_parser = parse_duration)]
    pub lock_timeout: Duration,
}

/// Device and threads of a command.
#[derive(Debug, Clone, Args)]
pub struct DeviceArguments {
    /// Device to compute on [default: that of the configuration, else auto]
    #[arg(long, value_enum)]
    engine: Option<EngineChoice>,
    /// Threads per rank [default: the cores of the node divided by its ranks]
    #[arg(long)]
    threads: Option<usize>,
    /// End the job within this time if a rank dies, hangs or is stopped; 0: never [default: that of
    /// the configuration, else 10m]
    #[arg(long, value_parser = parse_duration, value_name = "TIME")]
    watchdog: Option<Duration>,
    /// Allow several ranks of a node to use one GPU
    #[arg(long)]
    share_devices: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum PartName {
    Train,
    Validation,
    Calibration,
    Test,
    All,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Baseline {
    /// Standard cuts of TAIGA for one telescope
    Cuts,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Resume {
    /// Resume from the newest valid checkpoint, if there is one
    Auto,
    /// Refuse a folder that contains a run
    Never,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Write commented configurations, schemas and job scripts into a folder
    Init {
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
    Convert {
        /// CSV files, in the order of their rows
        #[arg(required = true)]
        inputs: Vec<PathBuf>,
        /// Event file to write
        #[arg(short, long)]
        output: PathBuf,
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
    },
    /// Show the content of files, and check them
    Check {
        /// Files, folders, patterns in quotes, or @LIST with one path per line
        #[arg(required_unless_present_any = ["gamma", "hadron", "config"])]
        files: Vec<PathBuf>,
        /// Files of gammas
        #[arg(long, num_args = 1..)]
        gamma: Vec<PathBuf>,
        /// Files of hadrons
        #[arg(long, num_args = 1..)]
        hadron: Vec<PathBuf>,
        /// Configuration with schema, features and cuts; without files, those of the configuration
        /// are checked
        #[arg(short, long)]
        config: Option<PathBuf>,
        /// Read metadata only: no rows, keys or contents
        #[arg(long)]
        quick: bool,
        /// Built-in schema or schema file [default: detected from the file]
        #[arg(long)]
        schema: Option<String>,
    },
    /// Train a model
    Train {
        /// Configuration (TOML)
        #[arg(short, long)]
        config: PathBuf,
        /// Run folder
        #[arg(short, long)]
        output: PathBuf,
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
        device: DeviceArguments,
    },
    /// Train one model per point of a grid of settings, or without each feature in turn, and write
    /// one table of all
    Sweep(sweep::Arguments),
    /// Show the state of a run, also while it is running, and from a login node
    Status {
        /// Run folder
        run: PathBuf,
    },
    /// Measure the performance of a model on labelled events
    Evaluate {
        /// Model file
        #[arg(short, long)]
        model: PathBuf,
        /// Files with a class column
        files: Vec<PathBuf>,
        /// Files of gammas
        #[arg(long, num_args = 1..)]
        gamma: Vec<PathBuf>,
        /// Files of hadrons
        #[arg(long, num_args = 1..)]
        hadron: Vec<PathBuf>,
        /// Part of the split [default: test for files that the model was trained on, else all]
        #[arg(long, value_enum)]
        part: Option<PartName>,
        /// Built-in schema or schema file [default: detected from the file]
        #[arg(long)]
        schema: Option<String>,
        /// Folder for evaluation.json and report.html
        #[arg(short, long)]
        output: PathBuf,
        /// Weight of an event, an expression over quantities [default: that of the training; 1 for
        /// none]
        #[arg(long, value_name = "EXPRESSION")]
        weight: Option<String>,
        /// Train a random forest on the train and validation parts of these files (with a class
        /// column), and compare it with the model
        #[arg(long = "yardstick", num_args = 1.., value_name = "FILE")]
        forest: Vec<PathBuf>,
        /// Compare with a selection without training: `cuts` applies the standard cuts of TAIGA to
        /// the same events
        #[arg(long, value_enum, value_name = "NAME")]
        baseline: Option<Baseline>,
        /// Measure how much this model relies on each feature: the loss of AUC when its values are
        /// permuted between events (one more scoring per feature). For the value of a feature to
        /// any model, see `sweep --leave-one-out`
        #[arg(long)]
        importance: bool,
        /// Refuse events that differ from the training events, instead of a warning
        #[arg(long)]
        strict: bool,
        #[command(flatten)]
        observation: observation::Arguments,
        #[command(flatten)]
        device: DeviceArguments,
    },
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
            Command::Train { .. }
                | Command::Evaluate { .. }
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
    /// Returns the time within which a rank that is missing at the start or end of MPI ends the
    /// job: the value of the option, because the configuration is read later.
    pub fn deadline(&self) -> Option<Duration> {
        let given = match &self.command {
            Command::Train { device, .. } | Command::Evaluate { device, .. } => device.watchdog,
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
        let overwrite = self.global.overwrite;
        sync_result(comm, self.protect_inputs())?;
        sync_result(comm, self.output_folder().map_or(Ok(()), refuse_run))?;
        let _lock = sync_result(comm, if is_root(comm) { self.lock() } else { Ok(None) })?;
        match &self.command {
            Command::Init { folder } => self.print(comm, &init::run(folder, overwrite)?),
            Command::Simulate(arguments) => match arguments.options(overwrite)? {
                SimulationOptions::Hillas(options) => self.print(comm, &simulation::run(&options)?),
                SimulationOptions::Images(options) => {
                    self.print(comm, &simulation::images::run(&options)?)
                }
            },
            Command::Extract(arguments) => {
                let summary = arguments.run(comm, overwrite)?;
                self.print(comm, &summary)?;
                arguments.outcome(&summary)
            }
            Command::Anomalies(arguments) => self.print(comm, &arguments.run(overwrite)?),
            Command::Convert { inputs, output, dialect, class, source_offset, seed } => {
                let offset = source_offset.map(|offset_deg| Placement { offset_deg, seed: *seed });
                let options = convert::Options {
                    inputs: inputs.clone(),
                    output: output.clone(),
                    dialect: dialect.clone(),
                    class: *class,
                    placement: offset,
                    overwrite,
                };
                self.print(comm, &convert::run(&options)?)
            }
            Command::Check { files, gamma, hadron, config, schema, quick } => {
                let options = crate::dataset::check::Options {
                    files: files.clone(),
                    gamma: gamma.clone(),
                    hadron: hadron.clone(),
                    schema: schema.clone(),
                    quick: *quick,
                    ..crate::dataset::check::Options::default()
                };
                let report = check::run(comm, options, config.as_deref())?;
                self.print(comm, &report)?;
                report.outcome()
            }
            Command::Train { .. } => self.train(comm),
            Command::Sweep(arguments) => {
                let lock_timeout = self.global.lock_timeout;
                let sweep = arguments.run(comm, sweep::Writing { overwrite, lock_timeout })?;
                self.print(comm, &sweep)?;
                sweep::outcome(&sweep)
            }
            Command::ProbeFile(arguments) => arguments.run(),
            Command::Status { run } => self.print(comm, &status::run(run)?),
            Command::Evaluate { .. } => self.evaluate(comm),
            Command::Score(arguments) => {
                let summary = arguments.run(comm, overwrite)?;
                self.print(comm, &summary)?;
                arguments.outcome(&summary)
            }
            Command::Verify(arguments) => {
                let verification = arguments.run(comm)?;
                self.print(comm, &verification)?;
                verification.outcome()
            }
            Command::Season(arguments) => {
                let season = arguments.run(comm, overwrite)?;
                self.print(comm, &season)?;
                crate::season::outcome(&season)
            }
            Command::Compare(arguments) => {
                let comparison = arguments.run(comm, overwrite)?;
                self.print(comm, &comparison)
            }
            Command::Report { folders, output } => {
                let inputs = report::load(folders)?;
                report::write(&inputs, output, overwrite)?;
                self.print(comm, &Written { report: output.clone() })
            }
        }
    }

    /// Locks the outputs of the command. `train` and `sweep` lock each run folder.
    fn lock(&self) -> Result<Option<OutputLock>> {
        let timeout = self.global.lock_timeout;
        let folder = |path: &Path| OutputLock::folder(path, timeout);
        let file = |path: &Path| OutputLock::file(path, timeout);
        match &self.command {
            Command::Init { folder: path } => folder(path),
            Command::Simulate(arguments) => file(&arguments.output),
            Command::Extract(arguments) => folder(&arguments.output),
            Command::Anomalies(arguments) => folder(&arguments.output),
            Command::Convert { output, .. } | Command::Report { output, .. } => file(output),
            Command::Evaluate { output, .. } => folder(output),
            Command::Score(arguments) if arguments.shard == (0, 1) => folder(&arguments.output),
            Command::Score(arguments) => {
                OutputLock::part(&arguments.output, arguments.shard, timeout)
            }
            Command::Season(arguments) => folder(&arguments.output),
            Command::Compare(arguments) => arguments.output.as_deref().map_or(Ok(None), folder),
            Command::Train { .. }
            | Command::Sweep(_)
            | Command::Check { .. }
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
            Command::Evaluate { output, .. } => Some(output),
            _ => None,
        }
    }

    /// Refuses outputs with fixed names that the command also reads. Outputs that are named after
    /// inputs are checked where the inputs are listed.
    fn protect_inputs(&self) -> Result<()> {
        let (inputs, outputs): (Vec<&Path>, Vec<PathBuf>) = match &self.command {
            Command::Evaluate { model, files, gamma, hadron, forest, output, .. } => {
                let files = [files, gamma, hadron, forest].into_iter().flatten();
                let inputs = files.map(PathBuf::as_path).chain([model.as_path()]).collect();
                (inputs, vec![output.join(evaluate::EVALUATION), output.join(report::PAGE)])
            }
            Command::Season(arguments) => (arguments.named_inputs(), arguments.outputs()),
            Command::Compare(arguments) => (arguments.named_inputs(), arguments.outputs()),
            _ => return Ok(()),
        };
        let inputs = ProtectedInputs::new(inputs);
        outputs.iter().try_for_each(|output| inputs.refuse(output))
    }

    fn train(&self, comm: &dyn Communicator) -> Result<()> {
        let Command::Train {
            config,
            output,
            set,
            resume,
            stop_after,
            dry_run,
            allow_engine_change,
            allow_few_events,
            device,
        } = &self.command
        else {
            return Ok(());
        };
        let mut config = sync_result(comm, config::load(config, set))?;
        device.apply(&mut config);
        let existing = match (self.global.overwrite, resume) {
            (true, _) => Existing::Replace,
            (false, Resume::Auto) => Existing::Resume,
            (false, Resume::Never) => Existing::Refuse,
        };
        let options = train::Options {
            config,
            output: output.clone(),
            existing,
            allow_engine_change: *allow_engine_change,
            stop_after: *stop_after,
            dry_run: *dry_run,
            allow_few_events: *allow_few_events,
            command: command_line(),
            lock_timeout: self.global.lock_timeout,
        };
        if *dry_run {
            return self.print(comm, &train::estimate::dry_run(comm, &options)?);
        }
        match trained(comm, &options, &StopFlag::on_signals()?)? {
            Some(summary) => self.print(comm, &summary),
            None => Ok(()),
        }
    }

    fn evaluate(&self, comm: &dyn Communicator) -> Result<()> {
        let Command::Evaluate {
            model,
            files,
            gamma,
            hadron,
            part,
            schema,
            output,
            weight,
            forest,
            baseline,
            importance,
            strict,
            observation,
            device,
        } = &self.command
        else {
            return Ok(());
        };
        let options = evaluate::Options {
            model: model.clone(),
            files: files.clone(),
            gamma: gamma.clone(),
            hadron: hadron.clone(),
            schema: schema.clone(),
            part: part.map_or(EvaluatedParts::Default, EvaluatedParts::from),
            output: output.clone(),
            overwrite: self.global.overwrite,
            hardware: device.hardware(),
            weight: weight.clone(),
            importance: *importance,
            strict: *strict,
            baseline: forest.clone(),
            baseline_cuts: *baseline == Some(Baseline::Cuts),
            observation: observation.observation()?,
            watchdog: device.watchdog(Run::default()),
        };
        let page = output.join(report::PAGE);
        let check = || OutputKind::Page.refuse_existing(&page, self.global.overwrite);
        sync_result(comm, if is_root(comm) { check() } else { Ok(()) })?;
        let evaluation = evaluate::run(comm, &options)?;
        if is_root(comm) {
            let mut folders = vec![output.clone()];
            folders.extend(run_folder_of(model));
            report::write(&report::load(&folders)?, &page, true)?;
        }
        self.print(comm, &evaluation)
    }

    fn print(&self, comm: &dyn Communicator, result: &(impl Serialize + Display)) -> Result<()> {
        if !is_root(comm) {
            return Ok(());
        }
        let text = if self.global.json {
            serde_json::to_string(result)
                .map_err(|e| Fault::new("cannot write the result").found(e).internal())?
        } else {
            result.to_string().trim_end().to_string()
        };
        terminal::print_result(&text)
    }
}

/// Trains a model and writes the page of the run.
fn trained(
    comm: &dyn Communicator,
    options: &train::Options,
    stop: &StopFlag,
) -> Result<Option<train::Summary>> {
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
fn command_line() -> String {
    let arguments = std::env::args_os().map(|argument| path_text(Path::new(&argument)));
    arguments.collect::<Vec<_>>().join(" ")
}

/// Returns the run folder that contains the model, if it is in one.
fn run_folder_of(model: &Path) -> Option<PathBuf> {
    let folder = model.parent()?.to_path_buf();
    let is_run = [train::METRICS, train::CONFIG].iter().all(|name| folder.join(name).is_file());
    is_run.then_some(folder)
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

impl DeviceArguments {
    fn hardware(&self) -> Hardware {
        Hardware {
            engine: self.engine.unwrap_or_default(),
            threads: self.threads.unwrap_or_default(),
            share_devices: self.share_devices,
        }
    }

    fn apply(&self, config: &mut Config) {
        if let Some(engine) = self.engine {
            config.run.engine = engine;
        }
        if let Some(threads) = self.threads {
            config.run.threads = threads;
        }
        if let Some(watchdog) = self.watchdog {
            config.run.watchdog_seconds = watchdog.as_secs_f64();
        }
        config.run.share_devices |= self.share_devices;
    }

    fn watchdog(&self, run: Run) -> Option<Duration> {
        watchdog(self.watchdog, run)
    }
}

/// Returns the watchdog time of the option, otherwise that of the configuration.
fn watchdog(given: Option<Duration>, mut run: Run) -> Option<Duration> {
    run.watchdog_seconds = given.map_or(run.watchdog_seconds, |time| time.as_secs_f64());
    run.watchdog()
}

impl From<PartName> for EvaluatedParts {
    fn from(name: PartName) -> EvaluatedParts {
        match name {
            PartName::Train => EvaluatedParts::Only(Part::Train),
            PartName::Validation => EvaluatedParts::Only(Part::Validation),
            PartName::Calibration => EvaluatedParts::Only(Part::Calibration),
            PartName::Test => EvaluatedParts::Only(Part::Test),
            PartName::All => EvaluatedParts::All,
        }
    }
}

/// Parses a time such as `90s`, `30m`, `12h`, or plain seconds.
fn parse_duration(text: &str) -> std::result::Result<Duration, String> {
    let (number, unit) = match text.strip_suffix(['s', 'm', 'h']) {
        Some(number) => (number, &text[number.len()..]),
        None => (text, "s"),
    };
    let factor = match unit {
        "h" => 3600.0,
        "m" => 60.0,
        _ => 1.0,
    };
    match number.parse::<f64>() {
        Ok(value) if value >= 0.0 && value * factor < 1e9 => {
            Ok(Duration::from_secs_f64(value * factor))
        }
        _ => Err("expected a time such as 90s, 30m or 12h".to_string()),
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

    #[test]
    fn times_are_read_with_their_units() {
        assert_eq!(parse_duration("90").unwrap(), Duration::from_secs(90));
        assert_eq!(parse_duration("1.5m").unwrap(), Duration::from_secs(90));
        assert_eq!(parse_duration("2h").unwrap(), Duration::from_secs(7200));
        for wrong in ["", "m", "-3s", "1d", "nan"] {
            assert!(parse_duration(wrong).is_err(), "{wrong}");
        }
    }
}
