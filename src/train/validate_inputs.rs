//! Runs all checks of a training before its first step, without a run folder.

use super::options::Options;
use super::plan::TrainingPlan;
use super::run::run_folder::Existing;
use super::trainer::Trainer;
use crate::comm::Communicator;
use crate::config::{Config, EngineChoice, Hardware};
use crate::data::selection::cut_flow::CutFlow;
use crate::dataset::cut_flow;
use crate::engine::{self, RankResources};
use crate::error::Result;
use std::path::PathBuf;

/// Finds, reads and checks the files of a configuration as a training would; with `quick`, their
/// metadata only.
///
/// # Errors
/// Those of a training before its first step.
pub fn validate_inputs(comm: &dyn Communicator, config: &Config, quick: bool) -> Result<()> {
    let plan = TrainingPlan::new(comm, config)?;
    if quick {
        return Ok(());
    }
    let hardware =
        Hardware { engine: EngineChoice::Cpu, threads: config.run.threads, share_devices: false };
    let place = RankResources::new(comm, hardware)?;
    engine::use_threads(place.threads);
    let options = Options {
        config: config.clone(),
        output: PathBuf::new(),
        existing: Existing::Refuse,
        allow_engine_change: false,
        stop_after: None,
        dry_run: true,
        allow_few_events: false,
        command: String::new(),
        lock_timeout: std::time::Duration::ZERO,
    };
    Trainer::prepare(comm, &options, &plan, None, &place).map(drop)
}

/// Counts the events that the cuts remove from the files of a training.
///
/// # Errors
/// Those of finding, opening and reading the files.
pub fn cut_flows(comm: &dyn Communicator, config: &Config) -> Result<Vec<CutFlow>> {
    let plan = TrainingPlan::without_hashes(comm, config)?;
    cut_flow::count(comm, &plan.sources, &plan.selection, None)
}
