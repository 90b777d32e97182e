//! Training: the loop, and its preparation.
//!
//! Every decision (skip, checkpoint, stop, best) is made from reduced values, so all ranks decide the
//! same. Every sum that affects a weight is a sum of integers, or is computed in the order of shards.
//! So the result does not depend on the ranks.

mod bins;
mod checkpoints;
mod engines;
mod epoch;
pub mod estimate;
mod events;
mod few;
mod flows;
mod objectives;
mod offending_events;
mod options;
pub mod plan;
mod progress;
mod reduce;
mod reference;
mod replicas;
pub mod run;
pub mod schedule;
pub mod state;
mod step;
mod stop;
mod trainer;
mod validate_inputs;
mod validation;

pub use options::{Options, Summary};
pub use run::run_folder::{CHECKPOINTS, CONFIG, Existing, METRICS, MODEL, PROVENANCE};
pub use validate_inputs::{cut_flows, validate_inputs};

use crate::comm::{Communicator, StopFlag, is_root, mark_shared, preflight, sync_result, watch};
use crate::data::selection::Selection;
use crate::engine::{self, RankResources};
use crate::error::Result;
use plan::TrainingPlan;
use run::publish::finished;
use run::run_folder::RunFolder;
use state::TrainState;
use stop::stopped;
use trainer::Trainer;

const SAME_CONFIGURATION: &str = "give a configuration on a file system that all nodes share; a copy on each node may be an old one";

/// Trains or resumes training until the end or a request to stop.
///
/// # Errors
/// Stopped, interrupted or diverged, or an error of input, usage or environment.
pub fn run(comm: &dyn Communicator, options: &Options, stop: &StopFlag) -> Result<Option<Summary>> {
    run_and_conclude(comm, options, stop, &|_| Ok(()))
}

/// Trains as [`run`] does; rank 0 then calls `conclude`, which may write into the run folder,
/// because the folder is still locked.
///
/// # Errors
/// Those of [`run`] and of `conclude`.
pub fn run_and_conclude(
    comm: &dyn Communicator,
    options: &Options,
    stop: &StopFlag,
    conclude: &dyn Fn(&Summary) -> Result<()>,
) -> Result<Option<Summary>> {
    let concluded = |comm: &dyn Communicator, summary: &Summary| {
        sync_result(comm, if is_root(comm) { conclude(summary) } else { Ok(()) })
    };
    preflight::same_on_all(comm, "the configuration", &options.config.hash()?, SAME_CONFIGURATION)?;
    preflight::compare_clocks(comm)?;
    let folder = open_folder(comm, options)?;
    preflight::shared_folder(comm, folder.as_ref().map(|f| f.path.as_path()))?;
    let deadline = options.config.run.watchdog();
    let comm: &dyn Communicator =
        &watch(comm, folder.as_ref().map(|f| f.path.as_path()), deadline)?;
    let plan = TrainingPlan::new(comm, &options.config)?;
    let place = RankResources::new(comm, options.config.run.hardware())?;
    engine::use_threads(place.threads);
    describe(comm, &plan, place.threads);
    if options.dry_run {
        return Ok(None);
    }
    let of_folder = |check: &dyn Fn(&RunFolder) -> Result<()>| {
        sync_result(comm, folder.as_ref().map_or(Ok(()), check))
    };
    of_folder(&|folder| folder.check(&plan))?;
    if let Some(summary) = finished(comm, options, &plan)? {
        concluded(comm, &summary)?;
        return Ok(Some(summary));
    }
    of_folder(&|folder| folder.check_room(&plan))?;
    let mut trainer = Trainer::prepare(comm, options, &plan, folder, &place)?;
    trainer.claim_run_folder(comm)?;
    let mut state = trainer.resume(comm)?;
    trainer.begin(comm, options, &state)?;
    let trained = train(comm, &mut trainer, &mut state, stop);
    let published = trained.and_then(|()| trainer.publish(comm, &state));
    let summary = published.inspect_err(|error| trainer.log_end(error))?;
    concluded(comm, &summary)?;
    Ok(Some(summary))
}

/// Runs the training loop.
fn train(
    comm: &dyn Communicator,
    trainer: &mut Trainer,
    state: &mut TrainState,
    stop: &StopFlag,
) -> Result<()> {
    while trainer.advance_to_next_epoch(state) {
        trainer.begin_epoch(state)?;
        for _ in trainer.steps_left(state) {
            trainer.gradient(comm, state)?;
            let agreed = trainer.reduce(comm, stop)?;
            trainer.update(comm, state, &agreed)?;
            trainer.check_replicas(comm, state)?;
            trainer.log_step(state, &agreed)?;
            if agreed.checkpoint || agreed.stop.is_some() {
                trainer.save(comm, state)?;
            }
            if let Some(reason) = agreed.stop {
                return mark_shared(Err(stopped(reason, state)));
            }
        }
        trainer.end_epoch(comm, state)?;
    }
    Ok(())
}

/// Opens and locks the run folder on rank 0; a dry run does not touch it.
fn open_folder(comm: &dyn Communicator, options: &Options) -> Result<Option<RunFolder>> {
    let opens = is_root(comm) && !options.dry_run;
    let folder =
        opens.then(|| RunFolder::open(&options.output, options.existing, options.lock_timeout));
    sync_result(comm, folder.transpose())
}

/// Quantities that simulations have and observations do not.
const OF_SIMULATION: [&str; 6] =
    ["energy", "energy_true", "x_max", "x_ground", "y_ground", "axis_scatter"];

/// Returns the quantities of a selection that only simulations have, with their use. Weights are
/// not included: they are for labelled events only.
fn simulated_quantities(selection: &Selection) -> Option<String> {
    let features = selection.features().iter().map(|feature| feature.name.as_str());
    let uses: [(&str, Vec<&str>); 3] = [
        ("features", features.collect()),
        ("[cuts]", selection.cut_quantities().collect()),
        ("thresholds.per", selection.bin_quantities().collect()),
    ];
    let found: Vec<String> =
        uses.into_iter().filter_map(|(place, names)| simulated_names(names, place)).collect();
    (!found.is_empty()).then(|| found.join("; "))
}

/// Returns the names that only simulations have, with the place of their use.
fn simulated_names(mut names: Vec<&str>, place: &str) -> Option<String> {
    names.retain(|name| OF_SIMULATION.contains(name));
    names.sort_unstable();
    names.dedup();
    (!names.is_empty()).then(|| format!("{} in {place}", names.join(", ")))
}

/// Logs the plan on rank 0.
fn describe(comm: &dyn Communicator, plan: &TrainingPlan, threads: usize) {
    if !is_root(comm) {
        return;
    }
    if let Some(simulated) = simulated_quantities(&plan.selection) {
        log::warn!(
            "quantities that only simulations have: {simulated}; the model cannot score observations"
        );
    }
    let (ranks, train) = (comm.size(), &plan.config.train);
    log::info!(
        "{} rows in {} file(s); {}; {} features, {} blocks of hidden {:?}: {} parameters",
        plan.rows(),
        plan.sources.len(),
        match plan.flows.len() {
            1 => "one flow".to_string(),
            n => format!("{n} flows"),
        },
        plan.spec.features,
        plan.spec.blocks,
        plan.spec.hidden,
        plan.parameters
    );
    log::info!(
        "batch {}, {} logical shards, {ranks} rank(s) with {threads} thread(s) each, about {} MB per rank",
        train.batch,
        plan.dealing.shards(),
        plan.memory(ranks as u64, threads as u64) / 1_000_000 + 60
    );
}
