//! Checkpoints of a training: when they are due, writing, and resuming from the newest one.

use super::plan::TrainingPlan;
use super::run::checkpoint::{self, CheckpointIdentity};
use super::run::journal::Journal;
use super::run::run_folder::CHECKPOINTS;
use super::state::TrainState;
use crate::comm::{Communicator, sync_result};
use crate::error::Result;
use crate::model::initial_params;
use std::path::Path;
use std::time::{Duration, Instant};

/// Checkpoints of one start. Rank 0 writes them; its journal has the run folder.
pub struct Checkpoints<'a> {
    plan: &'a TrainingPlan,
    /// Device class of the engines.
    engine: &'static str,
    allow_engine_change: bool,
    began: Instant,
    last: Instant,
    /// Number of checkpoints of this start, and their total time.
    count: u32,
    time: Duration,
}

impl<'a> Checkpoints<'a> {
    /// Creates the state of a start; `engine` is the device class of its engines.
    pub fn new(
        plan: &'a TrainingPlan,
        engine: &'static str,
        allow_engine_change: bool,
    ) -> Checkpoints<'a> {
        let now = Instant::now();
        let (count, time) = (0, Duration::ZERO);
        Checkpoints { plan, engine, allow_engine_change, began: now, last: now, count, time }
    }

    /// Returns whether the configured interval has passed.
    pub fn is_due(&self) -> bool {
        self.last.elapsed() >= Duration::from_secs(self.plan.config.run.checkpoint_seconds)
    }

    /// Returns whether the newest checkpoint in a folder can be resumed by this run.
    pub fn can_resume(&self, folder: &Path) -> bool {
        self.newest(folder).is_ok_and(|state| state.is_some())
    }

    /// Returns the state of the newest checkpoint on all ranks, or a new one.
    pub fn resume(&self, comm: &dyn Communicator, journal: Option<&Journal>) -> Result<TrainState> {
        let found = journal.map(|journal| self.newest(&journal.folder.file(CHECKPOINTS)));
        let found = sync_result(comm, found.transpose())?.flatten();
        let (mut weights, mut progress) = match &found {
            Some(state) => state.to_bytes()?,
            None => (Vec::new(), Vec::new()),
        };
        comm.broadcast(&mut weights)?;
        comm.broadcast(&mut progress)?;
        if weights.is_empty() {
            let (seed, flows) = (self.plan.config.train.seed, self.plan.flows.len());
            // Each flow has different initial weights.
            let params = |f| initial_params(&self.plan.spec, seed.wrapping_add(f));
            let params: Vec<f32> = (0..flows as u64).flat_map(params).collect();
            return Ok(TrainState::new(params, flows, self.plan.dealing.shards() as usize));
        }
        TrainState::from_bytes(&weights, &progress, self.plan.parameters)
    }

    /// Writes a checkpoint on rank 0.
    pub fn save(
        &mut self,
        comm: &dyn Communicator,
        journal: Option<&mut Journal>,
        state: &TrainState,
    ) -> Result<()> {
        let since = Instant::now();
        let saved = journal.map(|journal| {
            journal.folder.identity.check()?;
            let folder = journal.folder.file(CHECKPOINTS);
            checkpoint::save(&folder, state, self.identity(), self.plan.config.run.keep)?;
            journal.folder.forget_replaced()
        });
        self.last = Instant::now();
        self.count += 1;
        self.time += since.elapsed();
        sync_result(comm, saved.unwrap_or(Ok(())))
    }

    /// Returns number and time of the checkpoints of this start, for the log.
    pub fn summary(&self) -> String {
        let all = self.began.elapsed().as_secs_f64();
        let share = 100.0 * self.time.as_secs_f64() / all;
        format!("{} checkpoint(s) took {share:.2} % of {all:.1} s", self.count)
    }

    fn newest(&self, folder: &Path) -> Result<Option<TrainState>> {
        let parameters = self.plan.parameters;
        checkpoint::newest(folder, self.identity(), parameters, self.allow_engine_change)
    }

    fn identity(&self) -> CheckpointIdentity<'a> {
        CheckpointIdentity {
            run_hash: &self.plan.run_hash,
            engine: self.engine,
            shards: self.plan.dealing.shards(),
        }
    }
}
