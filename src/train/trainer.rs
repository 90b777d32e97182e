//! One rank's part of a run: its parts, and the operations of the training loop.

use super::bins;
use super::checkpoints::Checkpoints;
use super::engines::FlowEngines;
use super::epoch;
use super::events::TrainingEvents;
use super::objectives::contrast::follow;
use super::offending_events;
use super::options::{Options, Summary};
use super::plan::TrainingPlan;
use super::reduce::{self, Agreed, Requests};
use super::replicas;
use super::run::journal::Journal;
use super::run::publish::publish;
use super::run::run_folder::RunFolder;
use super::schedule::{adam, learning_rate};
use super::state::TrainState;
use super::step::BatchStep;
use super::stop::{Stop, deadline, diverged};
use super::validation::Validation;
use crate::comm::{
    Communicator, StopFlag, Work, host, job_end, job_number, mark_shared, sync_result,
};
use crate::config::Train;
use crate::dataset::duplicates;
use crate::engine::RankResources;
use crate::error::{Error, Result};
use std::time::Instant;

/// One rank's part of a run.
pub struct Trainer<'a> {
    plan: &'a TrainingPlan,
    events: TrainingEvents<'a>,
    flows: FlowEngines<'a>,
    step: BatchStep,
    checkpoints: Checkpoints<'a>,
    /// Journal, on rank 0 only.
    journal: Option<Journal>,
    /// Time and reason of the stop, if any.
    deadline: Option<(Instant, Stop)>,
}

impl<'a> Trainer<'a> {
    /// Starts the engines, and reads and checks the events: the last checks before the first step.
    pub fn prepare(
        comm: &dyn Communicator,
        options: &Options,
        plan: &'a TrainingPlan,
        folder: Option<RunFolder>,
        place: &RankResources,
    ) -> Result<Trainer<'a>> {
        if !options.config.data.allow_repeated_events {
            duplicates::refuse(comm, &plan.sources)?;
        }
        let mut flows = FlowEngines::start(comm, plan, place)?;
        let events = TrainingEvents::load(comm, plan, options.allow_few_events)?;
        let held = sync_result(comm, flows.upload_events(&events.stores))?;
        bins::check(comm, &events)?;
        let (own, populations) = (events.stores[0].shards.len(), plan.populations.len());
        Ok(Trainer {
            plan,
            step: BatchStep::new(plan.flows.len(), populations, own, held),
            checkpoints: Checkpoints::new(plan, flows.class(), options.allow_engine_change),
            events,
            flows,
            journal: folder.map(Journal::new),
            deadline: deadline(options.stop_after, job_end(), plan.config.run.end_margin_seconds),
        })
    }

    /// Claims the run folder for this run, after all checks.
    pub fn claim_run_folder(&mut self, comm: &dyn Communicator) -> Result<()> {
        let Trainer { plan, checkpoints, journal, .. } = self;
        let claimed = journal.as_mut().map(|journal| {
            journal.folder.claim_run_folder(plan, |folder| checkpoints.can_resume(folder))
        });
        sync_result(comm, claimed.unwrap_or(Ok(())))
    }

    /// Returns the state of the newest checkpoint on all ranks, or a new one.
    pub fn resume(&self, comm: &dyn Communicator) -> Result<TrainState> {
        self.checkpoints.resume(comm, self.journal.as_ref())
    }

    /// Opens the growing files, and logs the start.
    pub fn begin(
        &mut self,
        comm: &dyn Communicator,
        options: &Options,
        state: &TrainState,
    ) -> Result<()> {
        let engine = self.flows.describe();
        let events = self.events.rows.iter().map(|rows| rows.train).sum();
        let (plan, steps, epochs) = (self.plan, self.events.steps(), self.epochs());
        let opened = self.journal.as_mut().map_or(Ok(()), |journal| {
            let mut entry = provenance(comm, options, plan, &engine, state);
            entry["steps"] = (steps * epochs).into();
            entry["epochs"] = epochs.into();
            entry["job"] = job_number().into();
            journal.begin(plan, state, events, steps, epochs, &entry)?;
            journal.say(&format!("{} rank(s); {engine}", comm.size()))
        });
        sync_result(comm, opened)
    }

    /// Logs the reason for the end of this start, for later readers of the folder.
    pub fn log_end(&mut self, error: &Error) {
        if let Some(journal) = &mut self.journal {
            journal.log_end(error);
        }
    }

    /// Returns the steps of the current epoch that are not done yet.
    pub fn steps_left(&self, state: &TrainState) -> std::ops::Range<u64> {
        state.progress.step_in_epoch..self.events.steps()
    }

    /// Returns whether there is more to train; advances to the next stage at the end of one.
    pub fn advance_to_next_epoch(&self, state: &mut TrainState) -> bool {
        while self.is_stage_over(state) {
            if state.progress.stage + 1 == self.plan.stages.len() {
                return false;
            }
            state.next_stage();
        }
        true
    }

    /// Returns whether the current stage has all its epochs, or has not improved for too long.
    fn is_stage_over(&self, state: &TrainState) -> bool {
        let (p, train) = (&state.progress, self.settings(state));
        let impatient = train.patience > 0
            && p.best.iter().any(|best| best.nll.is_some())
            && p.epoch - p.best_epoch >= train.patience;
        p.stage_epoch >= train.epochs || (p.stage_epoch > 0 && impatient)
    }

    /// Returns the settings of the optimiser in the current stage.
    fn settings(&self, state: &TrainState) -> Train {
        self.plan.stages[state.progress.stage].settings(&self.plan.config.train)
    }

    /// Returns the number of epochs of all stages together.
    fn epochs(&self) -> u64 {
        self.plan.stages.iter().map(|s| s.settings(&self.plan.config.train).epochs).sum()
    }

    /// Sets the weights to train of the engines.
    pub fn begin_epoch(&mut self, state: &TrainState) -> Result<()> {
        self.flows.begin(&state.weights)
    }

    /// Gathers the events of the current step, and sums the gradients of all flows.
    pub fn gradient(&mut self, comm: &dyn Communicator, state: &mut TrainState) -> Result<()> {
        self.step.gradient(comm, &self.events, &mut self.flows, state)
    }

    /// Adds gradient sums over all ranks exactly, with the values for common decisions.
    pub fn reduce(&self, comm: &dyn Communicator, stop: &StopFlag) -> Result<Agreed> {
        let requests = match self.journal {
            Some(_) => Requests {
                checkpoint: self.checkpoints.is_due(),
                limit: self.deadline.filter(|(end, _)| Instant::now() >= *end).map(|(_, why)| why),
            },
            None => Requests { checkpoint: false, limit: None },
        };
        reduce::reduce(comm, self.plan, &self.flows, &self.step, requests, stop)
    }

    /// Updates the weights, or skips the step on all ranks together.
    pub fn update(
        &mut self,
        comm: &dyn Communicator,
        state: &mut TrainState,
        agreed: &Agreed,
    ) -> Result<()> {
        let train = self.settings(state);
        let stage = state.progress.stage;
        let stage_steps = self.events.stage_steps(&self.plan.stages[stage]);
        let rate = learning_rate(&train, state.progress.stage_step, stage_steps);
        let followed = self.events.followed_quantile(stage);
        let p = &mut state.progress;
        p.step += 1;
        p.stage_step += 1;
        p.step_in_epoch += 1;
        comm.progress(Work::Training, p.step);
        if let (Some(fraction), Some(quantile)) = (followed, &mut p.quantile) {
            let features = self.plan.spec.features;
            *quantile = follow(*quantile, agreed.below, agreed.normals, fraction, features);
        }
        if agreed.unusable > 0 || agreed.events.iter().all(|n| *n == 0) {
            return self.skip(comm, state, agreed, train.skip_limit);
        }
        p.skipped_in_a_row = 0;
        p.updates += 1;
        let shards = self.plan.dealing.shards() as usize;
        for (f, divisor) in agreed.divisors.iter().enumerate().filter(|(_, w)| **w > 0.0) {
            p.events_in_epoch[f] += agreed.events[f];
            p.weight_in_epoch[f] += divisor;
            for (shard, loss) in self.events.stores[0].shards.iter().zip(&self.step.losses[f]) {
                p.loss[f * shards + shard.id as usize] += loss;
            }
            let adam = adam(&train, rate, p.updates, *divisor);
            self.flows.update(f, agreed.sums.as_deref(), &adam)?;
        }
        Ok(())
    }

    /// Counts a skipped step; too many in a row are an error.
    fn skip(
        &self,
        comm: &dyn Communicator,
        state: &mut TrainState,
        agreed: &Agreed,
        limit: u64,
    ) -> Result<()> {
        let p = &mut state.progress;
        p.skipped += 1;
        p.skipped_in_epoch += 1;
        p.skipped_in_a_row += 1;
        log::warn!(
            "step {} skipped: the gradient of {} part(s) of the batch is too large or not finite",
            p.step,
            agreed.unusable
        );
        if p.skipped_in_a_row <= limit {
            return Ok(());
        }
        let (epoch, step) = (p.epoch, p.step_in_epoch - 1);
        let offending = offending_events::describe(comm, &self.events, &self.flows, epoch, step)?;
        mark_shared(Err(diverged(p.skipped_in_a_row, &offending)))
    }

    /// Checks at the configured interval that all ranks have the same weights.
    pub fn check_replicas(&self, comm: &dyn Communicator, state: &mut TrainState) -> Result<()> {
        let every = self.plan.config.run.replica_steps;
        if every > 0 && comm.size() > 1 && state.progress.step.is_multiple_of(every) {
            sync_result(comm, self.flows.download_weights(state))?;
            return replicas::check(comm, state);
        }
        Ok(())
    }

    /// Logs the step if the interval has passed.
    pub fn log_step(&mut self, state: &TrainState, agreed: &Agreed) -> Result<()> {
        let events = agreed.events.iter().sum();
        let (steps, epochs) = (self.events.steps(), self.epochs());
        let write = |journal: &mut Journal| journal.step(&state.progress, events, steps, epochs);
        self.journal.as_mut().map_or(Ok(()), write)
    }

    /// Writes a checkpoint.
    pub fn save(&mut self, comm: &dyn Communicator, state: &mut TrainState) -> Result<()> {
        sync_result(comm, self.flows.download_weights(state))?;
        replicas::check(comm, state)?;
        epoch::gather_losses(comm, &self.events, state)?;
        self.checkpoints.save(comm, self.journal.as_mut(), state)
    }

    /// Measures the epoch, records the best weights, and starts the next epoch.
    pub fn end_epoch(&mut self, comm: &dyn Communicator, state: &mut TrainState) -> Result<()> {
        epoch::gather_losses(comm, &self.events, state)?;
        self.flows.download_weights(state)?;
        self.flows.set_params(&state.weights.ema)?;
        let validation = Validation { events: &self.events, flows: &self.flows };
        let held_out = validation.metrics(comm, &state.progress)?;
        let improved = epoch::keep_best(self.plan, state, held_out.as_ref());
        let metrics = epoch::metrics(&self.events, &state.progress, held_out.as_ref(), improved);
        let written = self.journal.as_mut().map_or(Ok(()), |journal| journal.end_epoch(&metrics));
        state.progress.next_epoch(metrics);
        sync_result(comm, written)?;
        mark_shared(epoch::check_bound(self.plan, &state.progress, held_out.as_ref()))
    }

    /// Chooses the threshold, calibrates, and writes the model file.
    pub fn publish(&mut self, comm: &dyn Communicator, state: &TrainState) -> Result<Summary> {
        let Trainer { events, flows, journal, checkpoints, .. } = self;
        publish(comm, events, flows, journal.as_mut(), checkpoints, state)
    }
}

/// Returns the entry of this start in `provenance.json`.
fn provenance(
    comm: &dyn Communicator,
    options: &Options,
    plan: &TrainingPlan,
    engine: &str,
    state: &TrainState,
) -> serde_json::Value {
    let files: Vec<serde_json::Value> = plan
        .sources
        .iter()
        .zip(&plan.data)
        .map(|(s, d)| serde_json::json!({ "path": s.path, "rows": d.rows, "blake3": d.blake3, "schema": s.schema.name }))
        .collect();
    let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    serde_json::json!({
        "command": options.command,
        "code_version": env!("CARGO_PKG_VERSION"),
        "configuration": plan.run_hash,
        "unix_time": since_epoch.map_or(0, |t| t.as_secs()),
        "host": host(),
        "ranks": comm.size(),
        "engine": engine,
        "from_step": state.progress.step,
        "files": files,
    })
}
