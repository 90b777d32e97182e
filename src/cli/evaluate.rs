//! `evaluate`: its arguments, and the evaluation with its page.

use super::device::DeviceArguments;
use super::observation::ObservationArguments;
use crate::comm::{Communicator, is_root, sync_result};
use crate::config::Run;
use crate::data::files::output_kind::OutputKind;
use crate::data::selection::split::Part;
use crate::error::Result;
use crate::evaluate::{self, EvaluatedParts, Options};
use crate::report;
use crate::statistics::Evaluation;
use crate::train;
use clap::{Args, ValueEnum};
use std::path::{Path, PathBuf};

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

#[derive(Debug, Args)]
pub struct Arguments {
    /// Model file
    #[arg(short, long)]
    pub(super) model: PathBuf,
    /// Files with a class column
    pub(super) files: Vec<PathBuf>,
    /// Files of gammas
    #[arg(long, num_args = 1..)]
    pub(super) gamma: Vec<PathBuf>,
    /// Files of hadrons
    #[arg(long, num_args = 1..)]
    pub(super) hadron: Vec<PathBuf>,
    /// Part of the split [default: test for files that the model was trained on, else all]
    #[arg(long, value_enum)]
    part: Option<PartName>,
    /// Built-in schema or schema file [default: detected from the file]
    #[arg(long)]
    schema: Option<String>,
    /// Folder for evaluation.json and report.html
    #[arg(short, long)]
    pub(super) output: PathBuf,
    /// Weight of an event, an expression over quantities [default: that of the training; 1 for
    /// none]
    #[arg(long, value_name = "EXPRESSION")]
    weight: Option<String>,
    /// Train a random forest on the train and validation parts of these files (with a class
    /// column), and compare it with the model
    #[arg(long = "yardstick", num_args = 1.., value_name = "FILE")]
    pub(super) forest: Vec<PathBuf>,
    /// Compare with a selection without training: `cuts` applies the standard cuts of TAIGA to
    /// the same events
    #[arg(long, value_enum, value_name = "NAME")]
    baseline: Option<Baseline>,
    /// Measure the reliance of this model on each feature: the loss of AUC when its values are
    /// permuted between events (one more scoring per feature). For the value of a feature to
    /// any model, see `sweep --leave-one-out`
    #[arg(long)]
    importance: bool,
    /// Refuse events that differ from the training events, instead of a warning
    #[arg(long)]
    strict: bool,
    #[command(flatten)]
    observation: ObservationArguments,
    #[command(flatten)]
    pub(super) device: DeviceArguments,
}

impl Arguments {
    /// Returns the files that the command reads.
    pub(super) fn named_inputs(&self) -> Vec<&Path> {
        let files = [&self.files, &self.gamma, &self.hadron, &self.forest].into_iter().flatten();
        files.map(PathBuf::as_path).chain([self.model.as_path()]).collect()
    }

    /// Returns the files that the command writes.
    pub(super) fn outputs(&self) -> Vec<PathBuf> {
        [evaluate::EVALUATION, report::PAGE].map(|name| self.output.join(name)).to_vec()
    }

    /// Evaluates the model and writes the page.
    pub(super) fn run(&self, comm: &dyn Communicator, overwrite: bool) -> Result<Evaluation> {
        let options = self.options(overwrite)?;
        let page = self.output.join(report::PAGE);
        let check = || OutputKind::Page.refuse_existing(&page, overwrite);
        sync_result(comm, if is_root(comm) { check() } else { Ok(()) })?;
        let evaluation = evaluate::run(comm, &options)?;
        if is_root(comm) {
            let mut folders = vec![self.output.clone()];
            folders.extend(run_folder_of(&self.model));
            report::write(&report::load(&folders)?, &page, true)?;
        }
        Ok(evaluation)
    }

    fn options(&self, overwrite: bool) -> Result<Options> {
        Ok(Options {
            model: self.model.clone(),
            files: self.files.clone(),
            gamma: self.gamma.clone(),
            hadron: self.hadron.clone(),
            schema: self.schema.clone(),
            part: self.part.map_or(EvaluatedParts::Default, EvaluatedParts::from),
            output: self.output.clone(),
            overwrite,
            hardware: self.device.hardware(),
            weight: self.weight.clone(),
            importance: self.importance,
            strict: self.strict,
            baseline: self.forest.clone(),
            baseline_cuts: self.baseline == Some(Baseline::Cuts),
            observation: self.observation.observation()?,
            watchdog: self.device.watchdog(Run::default()),
        })
    }
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

/// Returns the run folder that contains the model, if it is in one.
fn run_folder_of(model: &Path) -> Option<PathBuf> {
    let folder = model.parent()?.to_path_buf();
    let is_run = [train::METRICS, train::CONFIG].iter().all(|name| folder.join(name).is_file());
    is_run.then_some(folder)
}
