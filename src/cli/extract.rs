//! Arguments of `extract`.

use super::device::{parse_duration, parse_threads, watchdog};
use crate::comm::{Communicator, StopFlag};
use crate::config::{Class, Run};
use crate::dataset::failures::{partial, total};
use crate::error::Result;
use crate::extract::{self, Options, Summary};
use crate::hillas::{Cleaning, CleaningThresholds, Islands, ThresholdComparison};
use clap::{Args, ValueEnum};
use std::path::PathBuf;
use std::time::Duration;

#[derive(Debug, Args)]
pub struct Arguments {
    /// Image files, or folders of them
    #[arg(required = true)]
    inputs: Vec<PathBuf>,
    /// Folder for the outputs
    #[arg(short, long)]
    pub(super) output: PathBuf,
    /// Place outputs relative to this folder [default: the given folders]
    #[arg(long)]
    root: Option<PathBuf>,
    /// taiga-560, taiga-595, or a file with the pixels [default: that of the file]
    #[arg(long)]
    camera: Option<String>,
    #[command(flatten)]
    cleaning: CleaningArguments,
    /// Source position of files that have none, as X,Y [deg]
    #[arg(long, value_parser = parse_position, allow_hyphen_values = true, value_name = "X,Y")]
    source: Option<[f64; 2]>,
    /// Move the source to this distance from the camera centre [deg], at random azimuths, instead
    /// of the position in the file: for simulated hadrons. Needs --class hadron, or a class column;
    /// at most 4.8, the edge of the camera
    #[arg(long, value_name = "DEG", conflicts_with = "source")]
    random_source: Option<f64>,
    /// Number of source positions, rotated about the camera centre: 1 ON, the others OFF
    #[arg(long, default_value_t = 1, value_name = "N")]
    positions: usize,
    /// Class of files that have none
    #[arg(long, value_enum)]
    class: Option<Class>,
    /// Succeed if up to this many files fail; they are listed in any case
    #[arg(long, value_name = "N", default_value_t = 0)]
    allow_failed: usize,
    /// Remove lost outputs and failed inputs of earlier runs from the manifest, instead of exit
    /// code 4
    #[arg(long)]
    forget_missing: bool,
    /// Threads per rank [default: the cores of the node divided by its ranks]
    #[arg(long, value_parser = parse_threads)]
    threads: Option<usize>,
    /// End the job within this time if a rank dies, hangs or is stopped; 0: never [default: 10m]
    #[arg(long, value_parser = parse_duration, value_name = "TIME")]
    pub(super) watchdog: Option<Duration>,
}

/// Options of the image cleaning.
#[derive(Debug, Args)]
pub(crate) struct CleaningArguments {
    /// Unit of the thresholds, or the selection of pixels in the input
    #[arg(long, value_enum, default_value = "fixed")]
    cleaning: CleaningName,
    /// High threshold [default: 14 p.e., or 6 σ]
    #[arg(long)]
    high: Option<f64>,
    /// Low threshold [default: 7 p.e., or 3 σ]
    #[arg(long)]
    low: Option<f64>,
    /// Comparison of a charge with a threshold
    #[arg(long, value_enum, default_value = "above")]
    compare: ComparisonName,
    /// Islands of an image that are kept
    #[arg(long, value_enum, default_value = "all")]
    islands: IslandsName,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum CleaningName {
    /// Thresholds in p.e.
    Fixed,
    /// Thresholds in units of the pedestal σ of the pixel
    Sigma,
    /// The pixels selected in the input
    Given,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ComparisonName {
    /// Greater, as in the program of TAIGA
    Above,
    /// Greater or equal, as in ctapipe
    AtLeast,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum IslandsName {
    All,
    /// The island with the largest charge
    Largest,
}

impl CleaningArguments {
    /// Returns the requested cleaning.
    pub(super) fn cleaning(&self) -> Cleaning {
        let level = |given: Option<f64>, default: f64| given.unwrap_or(default);
        let thresholds = match self.cleaning {
            CleaningName::Fixed => CleaningThresholds::Fixed {
                high: level(self.high, 14.0),
                low: level(self.low, 7.0),
            },
            CleaningName::Sigma => {
                CleaningThresholds::Sigma { high: level(self.high, 6.0), low: level(self.low, 3.0) }
            }
            CleaningName::Given => CleaningThresholds::Given,
        };
        let comparison = match self.compare {
            ComparisonName::Above => ThresholdComparison::Above,
            ComparisonName::AtLeast => ThresholdComparison::AtLeast,
        };
        let islands = match self.islands {
            IslandsName::All => Islands::All,
            IslandsName::Largest => Islands::Largest,
        };
        Cleaning { thresholds, comparison, islands }
    }
}

impl Arguments {
    pub(super) fn run(&self, comm: &dyn Communicator, overwrite: bool) -> Result<Summary> {
        let options = Options {
            inputs: self.inputs.clone(),
            output: self.output.clone(),
            root: self.root.clone(),
            camera: self.camera.clone(),
            cleaning: self.cleaning.cleaning(),
            source: self.source,
            random_source: self.random_source,
            positions: self.positions,
            class: self.class.map(Class::code),
            forget_missing: self.forget_missing,
            overwrite,
            threads: self.threads.unwrap_or(0),
            watchdog: watchdog(self.watchdog, Run::default()),
        };
        extract::run(comm, &options, &StopFlag::on_signals()?)
    }

    /// Returns the outcome of the command: partial if more files failed than allowed.
    pub(super) fn outcome(&self, summary: &Summary) -> Result<()> {
        let total = total(&summary.files, &summary.failed);
        partial(&summary.failed, total, "extract", self.allow_failed)
    }
}

/// Parses a position such as `1.2,-0.4`.
fn parse_position(text: &str) -> std::result::Result<[f64; 2], String> {
    let numbers: Option<Vec<f64>> = text.split(',').map(|x| x.trim().parse().ok()).collect();
    match numbers.as_deref() {
        Some([x, y]) => Ok([*x, *y]),
        _ => Err("expected two numbers of deg such as 1.2,-0.4".to_string()),
    }
}
