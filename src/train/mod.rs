//! Training: the loop, and what stands around it.
//!
//! Every decision (skip, checkpoint, stop, best) is made from reduced values, so that
//! all ranks make the same; every sum that reaches a weight is a sum of integers or is
//! taken in the order of shards, so that the result does not depend on the ranks.

mod checkpoint;
mod optimiser;
pub mod plan;
mod quantile;
mod run_folder;
mod state;
mod status;

pub use run_folder::{CHECKPOINTS, CONFIG, Existing, METRICS, MODEL, PROVENANCE};

use crate::config::{Class, Config};
use crate::data::durable::AppendFile;
use crate::data::features::{ScaledFeature, scaler_log_det};
use crate::data::store::{EventStore, RowCounts, check_budget};
use crate::engine::{self, Batch, Engine, FixedSum};
use crate::error::{Error, Fault, Result};
use crate::figures::{Rule, Threshold};
use crate::metrics::EpochMetrics;
use crate::model::{self, Card, FlowCard, Model, Training, initial_params};
use crate::world::{StopFlag, StopReason, World, agree, common, gather_slots, is_root};
use optimiser::learning_rate;
use plan::Plan;
use run_folder::RunFolder;
use serde::Serialize;
use state::TrainState;
use status::Status;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

#[derive(Debug, Clone)]
pub struct Options {
    pub config: Config,
    pub output: PathBuf,
    pub existing: Existing,
    pub allow_engine_change: bool,
    pub stop_after: Option<Duration>,
    pub dry_run: bool,
    /// The command as typed, for the provenance.
    pub command: String,
}

/// What a training came to.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    pub run: PathBuf,
    pub model: PathBuf,
    pub model_blake3: String,
    pub rows: RowCounts,
    pub epochs: u64,
    pub best_epoch: u64,
    pub validation_nll: Option<f64>,
    pub threshold: Option<f64>,
    pub already_finished: bool,
}

/// Trains, or goes on training, until the end or a request to stop.
pub fn run(world: &dyn World, options: &Options, stop: &StopFlag) -> Result<Option<Summary>> {
    let plan = Plan::new(world, &options.config)?;
    let threads = engine::threads(world, options.config.run.threads);
    describe(world, &plan, threads);
    if options.dry_run {
        return Ok(None);
    }
    let folder = open_folder(world, options, &plan)?;
    if let Some(summary) = finished(world, options, &plan)? {
        return Ok(Some(summary));
    }
    let engine = agree(world, engine::start(options.config.run.engine, &plan.spec, threads))?;
    let mut job = Job::prepare(world, options, &plan, folder, engine)?;
    let mut state = job.resume(world, options)?;
    job.begin(world, options, &state)?;
    train(world, &mut job, &mut state, stop)?;
    job.publish(world, &state).map(Some)
}

/// The training loop.
fn train(world: &dyn World, job: &mut Job, state: &mut TrainState, stop: &StopFlag) -> Result<()> {
    let (seed, steps) = (job.plan.config.train.seed, job.steps);
    let (mut events, mut offsets) = (Vec::new(), Vec::new());
    while !job.is_over(state) {
        job.engine.set_params(&state.weights.params)?;
        for step in state.progress.step_in_epoch..steps {
            let epoch = state.progress.epoch;
            job.store.gather(seed, epoch, step, steps, &mut events, &mut offsets);
            let batch = Batch { events: &events, weights: None, offsets: &offsets };
            job.sums.clear();
            job.engine.gradient(&batch, &mut job.sums, &mut job.losses)?;
            let agreed = job.reduce(world, offsets[offsets.len() - 1], stop)?;
            job.update(state, &agreed)?;
            job.engine.set_params(&state.weights.params)?;
            job.tell(state, &agreed)?;
            if agreed.checkpoint || agreed.stop.is_some() {
                job.save(world, state)?;
            }
            if let Some(reason) = agreed.stop {
                return common(Err(stopped(&reason, state)));
            }
        }
        job.end_epoch(world, state)?;
    }
    Ok(())
}

/// One rank's part of a run.
struct Job<'a> {
    plan: &'a Plan,
    store: EventStore,
    scaler: Vec<ScaledFeature>,
    rows: RowCounts,
    engine: Box<dyn Engine>,
    /// Steps per epoch.
    steps: u64,
    sums: FixedSum,
    losses: Vec<f64>, // (own shards), of the last step
    root: Option<Root>,
    checkpoint_every: Duration,
    last_checkpoint: Instant,
    deadline: Option<Instant>,
}

/// What only rank 0 holds.
struct Root {
    folder: RunFolder,
    metrics: Option<AppendFile>,
    status: Option<Status>,
}

/// What all ranks know after a step.
struct Agreed {
    events: u64,
    unusable_shards: u64,
    stop: Option<Stop>,
    checkpoint: bool,
}

enum Stop {
    Signal(StopReason),
    Time,
}

impl std::fmt::Display for Summary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = if self.already_finished { "finished before" } else { "finished" };
        writeln!(f, "{state}: {} epochs, best {}", self.epochs, self.best_epoch)?;
        if let Some(nll) = self.validation_nll {
            writeln!(f, "held-out NLL: {nll:.4}")?;
        }
        if let Some(threshold) = self.threshold {
            writeln!(f, "threshold:    {threshold:.4}")?;
        }
        writeln!(f, "model:        {}", self.model.display())?;
        write!(f, "blake3:       {}", self.model_blake3)
    }
}

impl<'a> Job<'a> {
    /// Reads this rank's shards and scales them.
    fn prepare(
        world: &dyn World,
        options: &Options,
        plan: &'a Plan,
        folder: Option<RunFolder>,
        engine: Box<dyn Engine>,
    ) -> Result<Job<'a>> {
        let recipe = plan.recipe();
        let (mut store, counts) = agree(world, EventStore::load(world, &plan.sources, &recipe))?;
        let rows = EventStore::total(world, counts)?;
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
            root: folder.map(|folder| Root { folder, metrics: None, status: None }),
            checkpoint_every: Duration::from_secs(run.checkpoint_seconds),
            last_checkpoint: Instant::now(),
            deadline: options.stop_after.map(|after| Instant::now() + after),
        })
    }

    /// The newest checkpoint's state on all ranks, or a new one.
    fn resume(&self, world: &dyn World, options: &Options) -> Result<TrainState> {
        let found = self.root.as_ref().map(|root| {
            let folder = root.folder.file(CHECKPOINTS);
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
    fn begin(&mut self, world: &dyn World, options: &Options, state: &TrainState) -> Result<()> {
        let opened = self.open_logs(world, options, state);
        agree(world, opened)
    }

    fn open_logs(
        &mut self,
        world: &dyn World,
        options: &Options,
        state: &TrainState,
    ) -> Result<()> {
        let (steps, interval) =
            (self.steps * self.plan.config.train.epochs, self.plan.config.run.status_seconds);
        let engine = self.engine.describe();
        let Some(root) = &mut self.root else { return Ok(()) };
        // Lines after the checkpoint are of steps that will be done again.
        let mut metrics = AppendFile::create(&root.folder.file(METRICS), true)?;
        for epoch in &state.progress.history {
            metrics.append_line(&json_line(epoch)?)?;
        }
        root.metrics = Some(metrics);
        root.folder.add_provenance(provenance(world, options, self.plan, &engine, state))?;
        let mut status =
            Status::new(&root.folder.file(run_folder::LOG), steps, Duration::from_secs(interval))?;
        let p = &state.progress;
        status.say(&format!(
            "training on {} events in {} shards, {} steps of {} epochs; {} ranks, {engine}",
            self.rows.train,
            self.plan.dealing.shards(),
            self.steps,
            self.plan.config.train.epochs,
            world.size(),
        ))?;
        if p.step > 0 {
            status.say(&format!("resumed at epoch {}, step {}", p.epoch + 1, p.step_in_epoch))?;
        }
        root.status = Some(status);
        Ok(())
    }

    fn is_over(&self, state: &TrainState) -> bool {
        let (p, train) = (&state.progress, &self.plan.config.train);
        let impatient =
            train.patience > 0 && p.best_nll.is_some() && p.epoch - p.best_epoch >= train.patience;
        p.epoch >= train.epochs || impatient
    }

    /// Adds gradient sums over all ranks, exactly, and agrees on what to do.
    fn reduce(&mut self, world: &dyn World, events: usize, stop: &StopFlag) -> Result<Agreed> {
        let due = self.root.is_some() && self.last_checkpoint.elapsed() >= self.checkpoint_every;
        let late = self.root.is_some() && self.deadline.is_some_and(|d| Instant::now() >= d);
        let words =
            [self.sums.unusable_shards as i64, events as i64, i64::from(due), i64::from(late)];
        let values = &mut self.sums.values;
        values.extend(words);
        values.extend(stop.counts());
        world.all_reduce_sum(values)?;
        let words = values.split_off(self.plan.parameters);
        let signals = [words[4], words[5], words[6], words[7]];
        let time = (words[3] > 0).then_some(Stop::Time);
        Ok(Agreed {
            unusable_shards: words[0] as u64,
            events: words[1] as u64,
            checkpoint: words[2] > 0,
            stop: StopReason::from_counts(&signals).map(Stop::Signal).or(time),
        })
    }

    /// Moves the weights, or skips the step on all ranks together.
    fn update(&mut self, state: &mut TrainState, agreed: &Agreed) -> Result<()> {
        let train = &self.plan.config.train;
        let rate = learning_rate(train, state.progress.step, self.steps * train.epochs);
        let p = &mut state.progress;
        p.step += 1;
        p.step_in_epoch += 1;
        if agreed.unusable_shards > 0 || agreed.events == 0 {
            p.skipped += 1;
            p.skipped_in_epoch += 1;
            p.skipped_in_a_row += 1;
            log::warn!(
                "step {} skipped: gradients of {} shards are too large or not finite",
                p.step,
                agreed.unusable_shards
            );
            return if p.skipped_in_a_row > train.skip_limit {
                common(Err(diverged(p.skipped_in_a_row)))
            } else {
                Ok(())
            };
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

    fn tell(&mut self, state: &TrainState, agreed: &Agreed) -> Result<()> {
        let (steps, epochs) = (self.steps, self.plan.config.train.epochs);
        let Some(status) = self.root.as_mut().and_then(|r| r.status.as_mut()) else {
            return Ok(());
        };
        let p = &state.progress;
        status.step(p.step, agreed.events, |rate| {
            let best = p.best_nll.map_or("–".to_string(), |nll| format!("{nll:.4}"));
            format!(
                "epoch {}/{epochs}, step {}/{steps}: best held-out NLL {best}, {rate:.0} events/s",
                p.epoch + 1,
                p.step_in_epoch
            )
        })
    }

    /// Measures the epoch, notes the best weights, and begins the next.
    fn end_epoch(&mut self, world: &dyn World, state: &mut TrainState) -> Result<()> {
        self.gather_losses(world, state)?;
        let log_det = scaler_log_det(&self.scaler);
        self.engine.set_params(&state.weights.ema)?;
        let held_out = self.held_out(world)?;
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
        let written = self.write_epoch(&epoch);
        p.history.push(epoch);
        agree(world, written)
    }

    fn write_epoch(&mut self, epoch: &EpochMetrics) -> Result<()> {
        let Some(root) = &mut self.root else { return Ok(()) };
        if let Some(metrics) = &mut root.metrics {
            metrics.append_line(&json_line(epoch)?)?;
        }
        if let Some(status) = &mut root.status {
            let held_out =
                epoch.validation_nll.map_or("–".to_string(), |nll| format!("{nll:.4}"));
            let best = if epoch.best { ", best" } else { "" };
            status.say(&format!(
                "epoch {}: training NLL {:.4}, held-out NLL {held_out}{best}",
                epoch.epoch, epoch.train_nll
            ))?;
        }
        Ok(())
    }

    /// Mean and median NLL of the held-out normal events with the engine's weights.
    fn held_out(&self, world: &dyn World) -> Result<Option<HeldOut>> {
        let log_det = scaler_log_det(&self.scaler);
        let mut slots = vec![None; self.plan.dealing.shards() as usize];
        let mut all = Vec::new();
        for shard in &self.store.shards {
            let start = all.len();
            for chunk in shard.validation.chunks() {
                let first = all.len();
                all.resize(first + chunk.len() / self.plan.spec.features, 0.0);
                self.engine.log_prob(chunk, &mut all[first..])?;
            }
            slots[shard.id as usize] = Some(all[start..].iter().map(|l| f64::from(*l)).sum());
        }
        let sum: f64 = gather_slots(world, &slots)?.iter().sum();
        let median = quantile::quantile(world, &all, 0.5)?;
        let finite = |nll: f64| Some(nll).filter(|nll| nll.is_finite());
        Ok((self.rows.validation > 0).then(|| HeldOut {
            mean: finite(-(sum / self.rows.validation as f64) - log_det),
            median: median.and_then(|m| finite(-f64::from(m) - log_det)),
        }))
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

    fn save(&mut self, world: &dyn World, state: &mut TrainState) -> Result<()> {
        self.gather_losses(world, state)?;
        self.last_checkpoint = Instant::now();
        let saved = self.root.as_ref().map(|root| {
            let keep = self.plan.config.run.keep;
            checkpoint::save(&root.folder.file(CHECKPOINTS), state, self.identity(), keep)
        });
        agree(world, saved.unwrap_or(Ok(())))
    }

    fn identity(&self) -> checkpoint::Identity<'_> {
        checkpoint::Identity {
            run_hash: &self.plan.run_hash,
            engine: self.engine.class(),
            shards: self.plan.dealing.shards(),
        }
    }

    /// Chooses the threshold and writes the model file.
    fn publish(&mut self, world: &dyn World, state: &TrainState) -> Result<Summary> {
        if state.best.iter().any(|p| !p.is_finite()) {
            return common(Err(diverged(state.progress.skipped_in_a_row)));
        }
        self.engine.set_params(&state.best)?;
        let threshold = self.threshold(world)?;
        let model = self.model(state, threshold)?;
        let written = self.root.as_mut().map(|root| {
            let hash = model.save(&root.folder.file(MODEL))?;
            if let Some(status) = &mut root.status {
                status.say(&format!(
                    "finished: {} with blake3 {hash}",
                    root.folder.file(MODEL).display()
                ))?;
            }
            Ok(root.folder.path.clone())
        });
        let run = agree(world, written.transpose())?.unwrap_or_default();
        summary(&model, run, self.rows, false)
    }

    /// The quantile of log p of held-out normal events, as a score.
    fn threshold(&self, world: &dyn World) -> Result<Option<Threshold>> {
        let fraction = self.plan.config.calibration.quantile;
        let normal = self.plan.config.model.normal;
        let calibration = self.rows.calibration > 0;
        let mut all = Vec::new();
        for shard in &self.store.shards {
            let rows = if calibration { &shard.calibration } else { &shard.validation };
            for chunk in rows.chunks() {
                let first = all.len();
                all.resize(first + chunk.len() / self.plan.spec.features, 0.0);
                self.engine.log_prob(chunk, &mut all[first..])?;
            }
        }
        let events = if calibration { self.rows.calibration } else { self.rows.validation };
        let quantile = quantile::quantile(world, &all, fraction)?;
        let log_det = scaler_log_det(&self.scaler);
        Ok(quantile.map(|q| {
            // Exactly as a score is computed: f32 log p plus the scaler's part, in f32.
            let log_p = f64::from((f64::from(q) + log_det) as f32);
            let value = match normal {
                Class::Gamma => log_p,
                Class::Hadron => (-log_p).next_up(),
            };
            Threshold { rule: Rule::Quantile { normal, fraction }, value, events }
        }))
    }

    fn model(&self, state: &TrainState, threshold: Option<Threshold>) -> Result<Model> {
        let (config, p) = (&self.plan.config, &state.progress);
        let name = "main".to_string();
        let flow = FlowCard::new(config.model.normal, &self.plan.spec);
        let card = Card {
            format: model::FORMAT.to_string(),
            version: model::VERSION,
            code_version: env!("CARGO_PKG_VERSION").to_string(),
            mode: config.model.mode,
            normal: Some(config.model.normal),
            measure: crate::data::features::MEASURE.to_string(),
            features: self.scaler.clone(),
            cuts: config.cuts.clone(),
            flows: BTreeMap::from([(name.clone(), flow)]),
            split: config.split.clone(),
            threshold,
            training: Training {
                seed: config.train.seed,
                configuration: training_hash(config)?,
                data: self.plan.data.clone(),
                rows: self.rows,
                epochs: p.epoch,
                best_epoch: p.best_epoch,
                steps: p.step,
                skipped_steps: p.skipped,
                validation_nll: p.best_nll,
                validation_nll_median: p.best_median,
            },
        };
        Ok(Model { card, flows: BTreeMap::from([(name, state.best.clone())]) })
    }
}

struct HeldOut {
    mean: Option<f64>,
    median: Option<f64>,
}

/// Hash of what shapes the weights, without the paths of the files.
fn training_hash(config: &Config) -> Result<String> {
    let mut shape = config.clone();
    shape.data.gamma.clear();
    shape.data.hadron.clear();
    shape.data.mixed.clear();
    shape.hash()
}

fn open_folder(world: &dyn World, options: &Options, plan: &Plan) -> Result<Option<RunFolder>> {
    let folder = is_root(world).then(|| RunFolder::open(&options.output, plan, options.existing));
    agree(world, folder.transpose())
}

/// The summary of a run that is finished already, on all ranks.
fn finished(world: &dyn World, options: &Options, plan: &Plan) -> Result<Option<Summary>> {
    let path = options.output.join(MODEL);
    let loaded = is_root(world)
        .then(|| if path.is_file() { Model::load(&path).map(Some) } else { Ok(None) });
    let loaded = agree(world, loaded.transpose())?.flatten();
    let mut bytes = match &loaded {
        Some((model, _)) => model.to_bytes()?,
        None => Vec::new(),
    };
    world.broadcast(&mut bytes)?;
    if bytes.is_empty() {
        return Ok(None);
    }
    let model = Model::from_bytes(&bytes)?;
    if model.card.training.data != plan.data {
        return common(Err(Fault::new("the run is finished, on other data")
            .file(&path)
            .advice("choose another folder, or give --overwrite to begin anew")
            .usage()));
    }
    let rows = model.card.training.rows;
    summary(&model, options.output.clone(), rows, true).map(Some)
}

fn summary(
    model: &Model,
    run: PathBuf,
    rows: RowCounts,
    already_finished: bool,
) -> Result<Summary> {
    let training = &model.card.training;
    Ok(Summary {
        model: run.join(MODEL),
        run,
        model_blake3: blake3::hash(&model.to_bytes()?).to_hex().to_string(),
        rows,
        epochs: training.epochs,
        best_epoch: training.best_epoch,
        validation_nll: training.validation_nll,
        threshold: model.card.threshold.map(|t| t.value),
        already_finished,
    })
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

fn stopped(reason: &Stop, state: &TrainState) -> Error {
    let why = match reason {
        Stop::Signal(StopReason::Interrupt) => return Error::Interrupted,
        Stop::Signal(signal) => signal.to_string(),
        Stop::Time => "--stop-after".to_string(),
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

fn diverged(skipped: u64) -> Error {
    Error::Diverged(Box::new(
        Fault::new("training diverged")
            .found(format!("{skipped} steps in a row with gradients that are too large or not finite"))
            .advice("lower train.learning_rate or train.clip_norm, and look at the data with `taiga-flow check`"),
    ))
}

fn json_line(epoch: &EpochMetrics) -> Result<String> {
    serde_json::to_string(epoch).map_err(|e| Fault::new("cannot write metrics").found(e).internal())
}

fn describe(world: &dyn World, plan: &Plan, threads: usize) {
    if !is_root(world) {
        return;
    }
    let (ranks, train) = (world.size(), &plan.config.train);
    log::info!(
        "{} rows in {} files; {} features, {} blocks of hidden {:?}: {} parameters",
        plan.rows(),
        plan.sources.len(),
        plan.spec.features,
        plan.spec.blocks,
        plan.spec.hidden,
        plan.parameters
    );
    log::info!(
        "batch {}, {} logical shards, {ranks} ranks with {threads} threads each, about {} MB per rank",
        train.batch,
        plan.dealing.shards(),
        plan.memory(ranks as u64, threads as u64) / 1_000_000 + 60
    );
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
        "host": std::fs::read_to_string("/proc/sys/kernel/hostname").map_or_else(|_| String::new(), |h| h.trim().to_string()),
        "ranks": world.size(),
        "engine": engine,
        "from_step": state.progress.step,
        "files": files,
    })
}
