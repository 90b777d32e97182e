//! One rank's part of a run: its events, the engine, and the steps of the loop.

use super::Options;
use super::checkpoint;
use super::culprits;
use super::journal::Journal;
use super::optimiser::learning_rate;
use super::plan::Plan;
use super::quantile;
use super::replicas;
use super::run_folder::{CHECKPOINTS, RunFolder};
use super::state::TrainState;
use crate::config::Class;
use crate::data::features::{ScaledFeature, scaler_log_det};
use crate::data::store::{EventStore, RowCounts, Rows, check_budget};
use crate::engine::{self, Engine, FixedSum};
use crate::error::{Error, Fault, Result};
use crate::metrics::EpochMetrics;
use crate::model::initial_params;
use crate::world::{StopFlag, StopReason, Work, World, agree, common, gather_slots, job_end};
use std::time::{Duration, Instant, SystemTime};

/// Steps per epoch below which the batch is probably too large for the sample.
const FEWEST_STEPS: u64 = 4;

/// One rank's part of a run.
pub struct Job<'a> {
    pub plan: &'a Plan,
    pub store: EventStore,
    pub scaler: Vec<ScaledFeature>,
    pub rows: RowCounts,
    pub engine: Box<dyn Engine>,
    /// Steps per epoch.
    pub steps: u64,
    pub sums: FixedSum,
    pub losses: Vec<f64>, // (own shards), of the last step
    /// Rank 0's.
    pub journal: Option<Journal>,
    pub checkpoint_every: Duration,
    pub last_checkpoint: Instant,
    pub began: Instant,
    /// Checkpoints of this start, and the time they took.
    pub saved: (u32, Duration),
    /// When to stop, and why then.
    pub deadline: Option<(Instant, Stop)>,
}

/// What all ranks know after a step.
pub struct Agreed {
    pub events: u64,
    pub unusable: u64,
    pub stop: Option<Stop>,
    pub checkpoint: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    Signal(StopReason),
    Time,
    JobEnd,
}

impl<'a> Job<'a> {
    /// Reads this rank's shards and scales them.
    pub fn prepare(
        world: &dyn World,
        options: &Options,
        plan: &'a Plan,
        folder: Option<RunFolder>,
        engine: Box<dyn Engine>,
    ) -> Result<Job<'a>> {
        let recipe = plan.recipe();
        let (mut store, counts) = agree(world, EventStore::load(world, &plan.sources, &recipe))?;
        let rows = counts.reduce(world)?;
        common(check_budget(&rows, plan.config.data.bad_rows))?;
        common(check_events(&rows, plan))?;
        let moments = store.moments(world, &recipe)?;
        let scaler = common(moments.scaler(plan.selection.features(), &plan.units))?;
        store.scale(&scaler);
        let shards = plan.dealing.shards() as usize;
        let run = &plan.config.run;
        Ok(Job {
            plan,
            losses: vec![0.0; store.shards.len()],
            store,
            scaler,
            rows,
            engine,
            steps: rows.train.div_ceil(plan.config.train.batch),
            sums: FixedSum::new(plan.parameters, shards),
            journal: folder.map(Journal::new),
            checkpoint_every: Duration::from_secs(run.checkpoint_seconds),
            last_checkpoint: Instant::now(),
            began: Instant::now(),
            saved: (0, Duration::ZERO),
            deadline: deadline(options.stop_after, job_end(), run.end_margin_seconds),
        })
    }

    /// Takes the run folder for this run, now that nothing can be refused any more.
    pub fn claim(&mut self, world: &dyn World) -> Result<()> {
        let plan = self.plan;
        let claimed = self.journal.as_mut().map(|journal| journal.folder.claim(plan));
        agree(world, claimed.unwrap_or(Ok(())))
    }

    /// The newest checkpoint's state on all ranks, or a new one.
    pub fn resume(&self, world: &dyn World, options: &Options) -> Result<TrainState> {
        let found = self.journal.as_ref().map(|journal| {
            let folder = journal.folder.file(CHECKPOINTS);
            let parameters = self.plan.parameters;
            checkpoint::newest(&folder, self.identity(), parameters, options.allow_engine_change)
        });
        let found = agree(world, found.transpose())?.flatten();
        let (mut weights, mut progress) = match found.as_ref().map(TrainState::to_bytes).transpose()
        {
            Ok(bytes) => bytes.unwrap_or_default(),
            Err(error) => return Err(error),
        };
        world.broadcast(&mut weights)?;
        world.broadcast(&mut progress)?;
        if weights.is_empty() {
            let params = initial_params(&self.plan.spec, self.plan.config.train.seed);
            return Ok(TrainState::new(params, self.plan.dealing.shards() as usize));
        }
        TrainState::from_bytes(&weights, &progress, self.plan.parameters)
    }

    /// Opens the files that grow, and says how the run begins.
    pub fn begin(
        &mut self,
        world: &dyn World,
        options: &Options,
        state: &TrainState,
    ) -> Result<()> {
        let engine = self.engine.describe();
        let (plan, events, steps) = (self.plan, self.rows.train, self.steps);
        let opened = self.journal.as_mut().map_or(Ok(()), |journal| {
            let entry = provenance(world, options, plan, &engine, state);
            journal.begin(plan, state, events, steps, &entry)?;
            journal.say(&format!("{} rank(s); {engine}", world.size()))
        });
        agree(world, opened)
    }

    pub fn is_over(&self, state: &TrainState) -> bool {
        let (p, train) = (&state.progress, &self.plan.config.train);
        let impatient =
            train.patience > 0 && p.best_nll.is_some() && p.epoch - p.best_epoch >= train.patience;
        p.epoch >= train.epochs || impatient
    }

    /// Adds gradient sums over all ranks, exactly, and agrees on what to do.
    pub fn reduce(&mut self, world: &dyn World, events: usize, stop: &StopFlag) -> Result<Agreed> {
        let due = self.journal.is_some() && self.last_checkpoint.elapsed() >= self.checkpoint_every;
        let late =
            self.deadline.filter(|(end, _)| self.journal.is_some() && Instant::now() >= *end);
        let late = late.map_or(0, |(_, why)| if why == Stop::JobEnd { 2 } else { 1 });
        let words = [self.sums.unusable as i64, events as i64, i64::from(due), late];
        let values = &mut self.sums.values;
        values.extend(words);
        values.extend(stop.counts());
        world.all_reduce_sum(values)?;
        let words = values.split_off(self.plan.parameters);
        let signals = [words[4], words[5], words[6], words[7]];
        let time = match words[3] {
            0 => None,
            1 => Some(Stop::Time),
            _ => Some(Stop::JobEnd),
        };
        Ok(Agreed {
            unusable: words[0] as u64,
            events: words[1] as u64,
            checkpoint: words[2] > 0,
            stop: StopReason::from_counts(&signals).map(Stop::Signal).or(time),
        })
    }

    /// Moves the weights, or skips the step on all ranks together.
    pub fn update(
        &mut self,
        world: &dyn World,
        state: &mut TrainState,
        agreed: &Agreed,
    ) -> Result<()> {
        let train = &self.plan.config.train;
        let rate = learning_rate(train, state.progress.step, self.steps * train.epochs);
        let p = &mut state.progress;
        p.step += 1;
        p.step_in_epoch += 1;
        world.progress(Work::Training, p.step);
        if agreed.unusable > 0 || agreed.events == 0 {
            p.skipped += 1;
            p.skipped_in_epoch += 1;
            p.skipped_in_a_row += 1;
            log::warn!(
                "step {} skipped: the gradient of {} part(s) of the batch is too large or not finite",
                p.step,
                agreed.unusable
            );
            if p.skipped_in_a_row <= train.skip_limit {
                return Ok(());
            }
            let (epoch, step) = (p.epoch, p.step_in_epoch - 1);
            let culprits = culprits::describe(world, self, epoch, step)?;
            return common(Err(diverged(p.skipped_in_a_row, &culprits)));
        }
        p.skipped_in_a_row = 0;
        p.updates += 1;
        p.events_in_epoch += agreed.events;
        for (shard, loss) in self.store.shards.iter().zip(&self.losses) {
            p.loss[shard.id as usize] += loss;
        }
        p.gradient_norm =
            state.weights.update(&self.sums.values, agreed.events, p.updates, rate, train);
        Ok(())
    }

    pub fn tell(&mut self, state: &TrainState, events: u64) -> Result<()> {
        let epochs = self.plan.config.train.epochs;
        let told =
            |journal: &mut Journal| journal.step(&state.progress, events, self.steps, epochs);
        self.journal.as_mut().map_or(Ok(()), told)
    }

    /// Measures the epoch, notes the best weights, and begins the next.
    pub fn end_epoch(&mut self, world: &dyn World, state: &mut TrainState) -> Result<()> {
        self.gather_losses(world, state)?;
        let log_det = scaler_log_det(&self.scaler);
        self.engine.set_params(&state.weights.ema)?;
        let held_out = self.held_out(world, state.progress.step)?;
        let (validation_nll, validation_nll_median) =
            held_out.map_or((None, None), |h| (h.mean, h.median));
        let p = &mut state.progress;
        let improved = match (validation_nll, p.best_nll) {
            (Some(now), Some(best)) => now < best,
            (Some(_), None) => true,
            // Without held-out events the last weights are the ones to publish.
            (None, _) => self.rows.validation == 0,
        };
        if improved {
            p.best_epoch = p.epoch + 1;
            p.best_nll = validation_nll;
            p.best_median = validation_nll_median;
            state.best.clone_from(&state.weights.ema);
        }
        let train = &self.plan.config.train;
        let epoch = EpochMetrics {
            epoch: p.epoch + 1,
            step: p.step,
            train_nll: p.loss.iter().sum::<f64>() / p.events_in_epoch as f64 - log_det,
            validation_nll,
            validation_nll_median,
            learning_rate: learning_rate(
                train,
                p.step.saturating_sub(1),
                self.steps * train.epochs,
            ),
            gradient_norm: p.gradient_norm,
            skipped_steps: p.skipped_in_epoch,
            events: p.events_in_epoch,
            best: improved,
        };
        p.epoch += 1;
        (p.step_in_epoch, p.events_in_epoch, p.skipped_in_epoch) = (0, 0, 0);
        p.loss.fill(0.0);
        let written = self.journal.as_mut().map_or(Ok(()), |journal| journal.end_epoch(&epoch));
        p.history.push(epoch);
        agree(world, written)
    }

    /// Mean and median NLL of the held-out normal events with the engine's weights.
    fn held_out(&self, world: &dyn World, step: u64) -> Result<Option<HeldOut>> {
        let mut slots = vec![None; self.plan.dealing.shards() as usize];
        let mut all = Vec::new();
        for shard in &self.store.shards {
            let start = all.len();
            world.progress(Work::Measuring, step);
            self.log_prob(&shard.validation, &mut all)?;
            let sum = all[start..].iter().map(|l| f64::from(*l)).sum();
            slots[shard.id as usize] = Some(sum);
        }
        let sum: f64 = gather_slots(world, &slots)?.iter().sum();
        let median = quantile::quantile(world, &all, 0.5)?;
        let log_det = scaler_log_det(&self.scaler);
        let finite = |nll: f64| Some(nll).filter(|nll| nll.is_finite());
        Ok((self.rows.validation > 0).then(|| HeldOut {
            mean: finite(-(sum / self.rows.validation as f64) - log_det),
            median: median.and_then(|m| finite(-f64::from(m) - log_det)),
        }))
    }

    /// Appends log p of scaled events, without the scaler's part.
    pub fn log_prob(&self, rows: &Rows, all: &mut Vec<f32>) -> Result<()> {
        for chunk in rows.chunks() {
            let first = all.len();
            all.resize(first + chunk.len() / self.plan.spec.features, 0.0);
            self.engine.log_prob(chunk, &mut all[first..])?;
        }
        Ok(())
    }

    /// The epoch's losses of all shards on all ranks.
    fn gather_losses(&self, world: &dyn World, state: &mut TrainState) -> Result<()> {
        let mut slots = vec![None; state.progress.loss.len()];
        for shard in &self.store.shards {
            slots[shard.id as usize] = Some(state.progress.loss[shard.id as usize]);
        }
        state.progress.loss = gather_slots(world, &slots)?;
        Ok(())
    }

    /// Every so many steps: whether all ranks still hold the same weights.
    pub fn compare(&self, world: &dyn World, state: &TrainState) -> Result<()> {
        let every = self.plan.config.run.replica_steps;
        if every > 0 && state.progress.step.is_multiple_of(every) {
            return replicas::check(world, state);
        }
        Ok(())
    }

    pub fn save(&mut self, world: &dyn World, state: &mut TrainState) -> Result<()> {
        replicas::check(world, state)?;
        self.gather_losses(world, state)?;
        let since = Instant::now();
        let identity = self.identity();
        let keep = self.plan.config.run.keep;
        let saved = self.journal.as_mut().map(|journal| {
            checkpoint::save(&journal.folder.file(CHECKPOINTS), state, identity, keep)?;
            journal.folder.forget_replaced()
        });
        self.last_checkpoint = Instant::now();
        self.saved = (self.saved.0 + 1, self.saved.1 + since.elapsed());
        agree(world, saved.unwrap_or(Ok(())))
    }

    fn identity(&self) -> checkpoint::Identity<'a> {
        checkpoint::Identity {
            run_hash: &self.plan.run_hash,
            engine: self.engine.class(),
            shards: self.plan.dealing.shards(),
        }
    }
}

/// The earlier of what the user asked for and the scheduler's end of the job less a margin.
fn deadline(
    stop_after: Option<Duration>,
    job_end: Option<SystemTime>,
    margin_seconds: u64,
) -> Option<(Instant, Stop)> {
    let now = Instant::now();
    let left = job_end.map(|end| {
        let left = end.duration_since(SystemTime::now()).unwrap_or_default();
        left.saturating_sub(Duration::from_secs(margin_seconds))
    });
    let asked = stop_after.map(|after| (now + after, Stop::Time));
    let told = left.map(|left| (now + left, Stop::JobEnd));
    asked.into_iter().chain(told).min_by_key(|(end, _)| *end)
}

struct HeldOut {
    mean: Option<f64>,
    median: Option<f64>,
}

fn check_events(rows: &RowCounts, plan: &Plan) -> Result<()> {
    let normal = plan.config.model.normal;
    if rows.train == 0 {
        return Err(Fault::new(format!("no {normal} event to train on"))
            .expected("usable rows of the normal class in the training part")
            .found(format!(
                "{} rows read: {} of another class, {} outside the cuts, {} not usable",
                rows.read,
                rows.other_class,
                rows.cut,
                rows.not_finite + rows.out_of_domain
            ))
            .advice("look at the files with `taiga-flow check`, and at [cuts] and [split]")
            .input());
    }
    let steps = rows.train.div_ceil(plan.config.train.batch);
    if steps < FEWEST_STEPS {
        log::warn!(
            "only {steps} step(s) per epoch: {} events in batches of {}; a smaller train.batch learns more per epoch",
            rows.train,
            plan.config.train.batch
        );
    }
    if rows.validation == 0 {
        log::warn!(
            "no held-out events (split.validation): training runs to its last epoch, and no threshold is chosen unless split.calibration is given"
        );
    }
    if normal == Class::Hadron {
        log::warn!(
            "hadrons as normal: gammas lie inside the dense core of the hadron cloud, so the score of such a model \
             is usually at chance or inverted; train with gammas as normal, or with both classes"
        );
    }
    Ok(())
}

pub fn stopped(reason: Stop, state: &TrainState) -> Error {
    let why = match reason {
        Stop::Signal(StopReason::Interrupt) => return Error::Interrupted,
        Stop::Signal(signal) => signal.to_string(),
        Stop::Time => "--stop-after".to_string(),
        Stop::JobEnd => "the end of the job, which is near,".to_string(),
    };
    let p = &state.progress;
    Error::Stopped(Box::new(
        Fault::new(format!(
            "stopped by {why} at epoch {}, step {}, after a checkpoint",
            p.epoch + 1,
            p.step_in_epoch
        ))
        .advice("run the same command again to go on"),
    ))
}

pub fn diverged(skipped: u64, culprits: &str) -> Error {
    Error::Diverged(Box::new(
        Fault::new("training diverged")
            .found(format!(
                "{skipped} steps in a row with gradients that are too large or not finite; {culprits}"
            ))
            .advice("lower train.learning_rate or train.clip_norm, and look at the data with `taiga-flow check`"),
    ))
}

fn provenance(
    world: &dyn World,
    options: &Options,
    plan: &Plan,
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
        "host": engine::host(),
        "ranks": world.size(),
        "engine": engine,
        "from_step": state.progress.step,
        "files": files,
    })
}
