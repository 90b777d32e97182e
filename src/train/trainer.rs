//! One rank's part of a run: its events, its engines, and the operations of the loop.

use super::Options;
use super::few;
use super::flows::{FlowPlan, Objective, Population};
use super::objectives::contrast::follow;
use super::objectives::hadron_comparison;
use super::objectives::off_source::of_class;
use super::objectives::synthetic::Synthetic;
use super::offending_events;
use super::plan::TrainingPlan;
use super::replicas;
use super::run::checkpoint;
use super::run::journal::Journal;
use super::run::run_folder::{CHECKPOINTS, RunFolder};
use super::schedule::{adam, learning_rate};
use super::state::{BestWeights, TrainState};
use super::step::{BatchStep, UNITS};
use super::validation::ValidationMetrics;
use crate::comm::{
    Communicator, StopFlag, StopReason, Work, gather_slots, host, is_root, job_end, job_number,
    mark_shared, sync_result,
};
use crate::config::{Class, Mode, Train};
use crate::data::schema::features::{Moments, ScaledFeature, scaler_log_det};
use crate::data::selection::shards::Dealing;
use crate::dataset::classes;
use crate::dataset::cut_flow;
use crate::dataset::duplicates;
use crate::dataset::event_store::{EventStore, RowCounts, RowSelection, check_budget};
use crate::dataset::sketch::Sketches;
use crate::dataset::source::Source;
use crate::engine::{Engine, Weights};
use crate::error::{Error, Fault, Result};
use crate::metrics::{EpochMetrics, FlowMetrics};
use crate::model::{HadronComparison, OffSourceCard, initial_params};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

/// Steps per epoch below which the batch is probably too large for the sample.
const FEWEST_STEPS: u64 = 4;

/// Fewest events of a class for comparing two classes by densities.
const FEWEST_EVENTS: u64 = 100;

/// Options for the files of both classes.
const INPUTS: &str = "data.gamma and data.hadron";

/// One rank's part of a run.
pub struct Trainer<'a> {
    pub plan: &'a TrainingPlan,
    pub stores: Vec<EventStore>, // (real populations)
    pub scaler: Vec<ScaledFeature>,
    pub rows: Vec<RowCounts>, // (real populations)
    /// Selection of hadrons from experimental files, if any.
    pub off_source: Option<OffSourceCard>,
    pub synthetic: Option<Synthetic>,
    /// Sketches of this rank's events.
    pub sketches: Sketches,
    pub engines: Vec<Box<dyn Engine>>, // (flows)
    /// Steps per epoch.
    pub steps: u64,
    pub step: BatchStep,
    /// Journal, on rank 0 only.
    pub journal: Option<Journal>,
    pub checkpoint_every: Duration,
    pub last_checkpoint: Instant,
    pub began: Instant,
    /// Checkpoints of this start, and their total time.
    pub saved: (u32, Duration),
    /// Time and reason of the stop, if any.
    pub deadline: Option<(Instant, Stop)>,
}

fn warn(comm: &dyn Communicator, text: Option<String>) {
    if let Some(text) = text.filter(|_| is_root(comm)) {
        log::warn!("{text}");
    }
}

/// Compares simulated hadrons with the real ones that are trained on.
fn compared(
    comm: &dyn Communicator,
    plan: &TrainingPlan,
    scaler: &[ScaledFeature],
    stores: &[EventStore],
) -> Result<Option<HadronComparison>> {
    let is_hadron = |p: &Population| *p == Population::Real(Class::Hadron);
    let Some(real) = plan.populations.iter().position(is_hadron) else { return Ok(None) };
    let row_selection = plan.row_selection(Class::Hadron);
    let rows = plan.compared.iter().map(|source| source.rows).sum();
    let dealing = Dealing::new(rows, plan.dealing.shards(), plan.config.train.seed);
    let row_selection = RowSelection { dealing, ..row_selection };
    let loaded = EventStore::load(comm, &plan.compared, &row_selection);
    let (mut simulated, _) = sync_result(comm, loaded)?;
    simulated.scale(scaler);
    let names: Vec<String> = plan.selection.features().iter().map(|f| f.name.clone()).collect();
    let shards = plan.dealing.shards();
    let found = hadron_comparison::compare(comm, &names, &stores[real], &simulated, shards)?;
    if let Some(found) = found.as_ref().filter(|_| is_root(comm)) {
        log::info!("{}", hadron_comparison::describe(found));
        if found.differs() {
            log::warn!("{}", found.warning());
        }
    }
    Ok(found)
}

/// Loads the files of anomalies, in the shards and parts of the normal events.
fn filed(
    comm: &dyn Communicator,
    plan: &TrainingPlan,
    scaler: &[ScaledFeature],
    normal: &RowCounts,
) -> Result<Option<EventStore>> {
    if plan.filed.is_empty() {
        return Ok(None);
    }
    let row_selection = plan.row_selection(plan.config.model.normal);
    let row_selection = RowSelection { sketched: Some(plan.sketched()), ..row_selection };
    let rows = plan.filed.iter().map(|source| source.rows).sum();
    let dealing = Dealing::new(rows, plan.dealing.shards(), plan.config.train.seed);
    let row_selection = RowSelection { dealing, ..row_selection };
    let (mut store, counts) =
        sync_result(comm, EventStore::load(comm, &plan.filed, &row_selection))?;
    let counts = counts.reduce(comm)?;
    mark_shared(check_budget(&counts, plan.config.data.bad_rows))?;
    let held_out = normal.validation == 0 || counts.validation > 0;
    if counts.train < FEWEST_EVENTS || !held_out {
        let found = format!("{} to train on, {} held out", counts.train, counts.validation);
        let error = Fault::new("too few events in the files of anomalies")
            .expected(format!("{FEWEST_EVENTS} or more, and some held out"))
            .found(found)
            .advice("give more events in anomalies.files, or check the cuts")
            .input();
        let class = plan.config.model.normal;
        return mark_shared(Err(explained(comm, plan, &plan.filed, &counts, class, error)));
    }
    store.scale(scaler);
    Ok(Some(store))
}

/// Reduced values of a step, equal on all ranks.
pub struct Agreed {
    pub events: Vec<u64>, // (flows)
    /// Divisor of each flow's gradient sum.
    divisors: Vec<f64>, // (flows)
    pub unusable: u64,
    pub stop: Option<Stop>,
    pub checkpoint: bool,
    /// Sums of all ranks; a single rank's sums stay in its engines.
    sums: Option<Vec<i64>>, // (parameters of all flows)
    below: u64,
    normals: u64,
}

/// Reason to stop before the end of the training.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    Signal(StopReason),
    Time,
    JobEnd,
}

impl<'a> Trainer<'a> {
    /// Reads this rank's shards and scales them.
    pub fn prepare(
        comm: &dyn Communicator,
        options: &Options,
        plan: &'a TrainingPlan,
        folder: Option<RunFolder>,
        mut engines: Vec<Box<dyn Engine>>,
    ) -> Result<Trainer<'a>> {
        let (mut stores, mut rows, mut off_source) = (Vec::new(), Vec::new(), None);
        let shards = plan.dealing.shards() as usize;
        let mut moments = Moments::new(plan.spec.features);
        let mut sketches = Sketches::new(plan.sketched());
        for population in &plan.populations {
            let Population::Real(class) = population else { continue };
            let row_selection =
                RowSelection { sketched: Some(plan.sketched()), ..plan.row_selection(*class) };
            let (mut store, counts) =
                sync_result(comm, EventStore::load(comm, &plan.sources, &row_selection))?;
            let counts = counts.reduce(comm)?;
            if let Some(of_class) = store.sketches.take() {
                let repeated = classes::refuse_shared(comm, &sketches, &of_class)?;
                let is_allowed = plan.config.data.allow_repeated_events;
                if let (Some(repeated), false) = (&repeated, is_allowed)
                    && sync_result(comm, duplicates::lack_event_keys(&plan.sources))?
                {
                    mark_shared(classes::refuse_repeated(repeated))?;
                }
                warn(comm, repeated);
                sketches.join(&of_class);
            }
            if let Some(off) = plan.off.as_ref().filter(|_| *class == Class::Hadron) {
                let gammas = of_class(&plan.sources, Class::Gamma);
                off_source = Some(off.conclude(comm, &gammas)?);
            }
            mark_shared(check_budget(&counts, plan.config.data.bad_rows))?;
            let checked = few::check_training(&counts, plan, *class, options.allow_few_events)
                .and_then(|()| check_events(&counts, plan, *class));
            if let Err(error) = checked {
                let error = explained(comm, plan, &plan.sources, &counts, *class, error);
                return mark_shared(Err(error));
            }
            if is_root(comm) {
                few::warn_of_parameters(counts.train, *class, plan);
            }
            let effective = mark_shared(store.normalise_weights(comm, shards as u64))?;
            if let Some(effective) = effective.filter(|_| is_root(comm)) {
                log::info!(
                    "weights: the effective number of {} {class} events is {effective:.1}",
                    counts.train
                );
            }
            let of_class = store.moments(comm, &row_selection)?;
            let (selection, units) = (&plan.selection, &plan.units);
            mark_shared(classes::refuse_constant(&of_class, selection, units, *class))?;
            if !stores.is_empty() {
                let [gammas, hadrons] = match class {
                    Class::Gamma => [&of_class, &moments],
                    Class::Hadron => [&moments, &of_class],
                };
                warn(comm, classes::swapped(gammas, hadrons, selection, INPUTS));
            }
            // Merging with empty moments would round: a model of one class keeps the bits of its
            // moments.
            if stores.is_empty() {
                moments = of_class;
            } else {
                moments.merge(&of_class);
            }
            stores.push(store);
            rows.push(counts);
        }
        check_calibration(comm, plan, &stores)?;
        if !options.allow_few_events {
            let classes = plan.populations.iter().filter_map(|p| match p {
                Population::Real(class) => Some(*class),
                Population::Synthetic => None,
            });
            let of_class: Vec<_> = classes.zip(rows.iter().copied()).collect();
            mark_shared(few::check_threshold(&of_class, plan))?;
        }
        let scaler = mark_shared(moments.scaler(plan.selection.features(), &plan.units))?;
        stores.iter_mut().for_each(|store| store.scale(&scaler));
        if let (Some(off), false) = (&mut off_source, plan.compared.is_empty()) {
            off.comparison = compared(comm, plan, &scaler, &stores)?;
        }
        let (config, seed) = (&plan.config, plan.config.train.seed);
        let synthetic = match &config.anomalies {
            Some(a) => {
                let mut filed = filed(comm, plan, &scaler, &rows[0])?;
                if let Some(of_filed) = filed.as_mut().and_then(|f| f.sketches.take()) {
                    sketches.join(&of_filed);
                }
                let (shards, normal) = (shards as u64, &stores[0]);
                Some(Synthetic::learn(comm, a, &scaler, normal, shards, seed, filed)?)
            }
            None => None,
        };
        let most = rows.iter().map(|r| r.train).max().unwrap_or(0);
        let (flows, own) = (plan.flows.len(), stores[0].shards.len());
        let held = sync_result(comm, upload_events(plan, &stores, &mut engines))?;
        Ok(Trainer {
            plan,
            step: BatchStep::new(flows, plan.populations.len(), own, held),
            stores,
            scaler,
            steps: most.div_ceil(config.train.batch),
            rows,
            off_source,
            synthetic,
            sketches,
            engines,
            journal: folder.map(Journal::new),
            checkpoint_every: Duration::from_secs(config.run.checkpoint_seconds),
            last_checkpoint: Instant::now(),
            began: Instant::now(),
            saved: (0, Duration::ZERO),
            deadline: deadline(options.stop_after, job_end(), config.run.end_margin_seconds),
        })
    }

    /// Claims the run folder for this run, after all checks.
    pub fn claim_run_folder(&mut self, comm: &dyn Communicator, options: &Options) -> Result<()> {
        let (plan, identity) = (self.plan, self.identity());
        let can_resume = |folder: &Path| {
            let (parameters, other_engine) = (plan.parameters, options.allow_engine_change);
            let newest = checkpoint::newest(folder, identity, parameters, other_engine);
            newest.is_ok_and(|state| state.is_some())
        };
        let claimed =
            self.journal.as_mut().map(|journal| journal.folder.claim_run_folder(plan, can_resume));
        sync_result(comm, claimed.unwrap_or(Ok(())))
    }

    /// Sets the parameters of each engine to those of its flow.
    pub fn set_params(&mut self, params: &[f32]) -> Result<()> {
        let each = self.plan.parameters / self.plan.flows.len();
        for (engine, params) in self.engines.iter_mut().zip(params.chunks(each)) {
            engine.set_params(params)?;
        }
        Ok(())
    }

    /// Sets the weights to train of each engine to those of its flow.
    pub fn begin_epoch(&mut self, state: &TrainState) -> Result<()> {
        let each = self.plan.parameters / self.plan.flows.len();
        // A gradient may be that of all populations, so each one has its share of the range.
        let shards = self.plan.dealing.shards() as usize * self.plan.populations.len();
        for (f, engine) in self.engines.iter_mut().enumerate() {
            let [params, ema, first_moment, second_moment] =
                state.weights.all().map(|values| values[FlowPlan::range(f, each)].to_vec());
            engine.begin(&Weights { params, ema, first_moment, second_moment }, shards)?;
        }
        Ok(())
    }

    /// Updates the state to the weights of the engines.
    fn download_weights(&self, state: &mut TrainState) -> Result<()> {
        let each = self.plan.parameters / self.plan.flows.len();
        let mut of_flow = Weights::new(vec![0.0; each]);
        let mut norm: Option<f64> = None;
        for (f, engine) in self.engines.iter().enumerate() {
            engine.weights(&mut of_flow)?;
            for (all, values) in state.weights.all_mut().into_iter().zip(of_flow.all()) {
                all[FlowPlan::range(f, each)].copy_from_slice(values);
            }
            norm = norm.into_iter().chain(engine.gradient_norm()?).reduce(f64::max);
        }
        state.progress.gradient_norm = norm.unwrap_or(state.progress.gradient_norm);
        Ok(())
    }

    /// Returns the settings of the optimiser in the current stage.
    fn settings(&self, state: &TrainState) -> Train {
        self.plan.stages[state.progress.stage].settings(&self.plan.config.train)
    }

    /// Returns the state of the newest checkpoint on all ranks, or a new one.
    pub fn resume(&self, comm: &dyn Communicator, options: &Options) -> Result<TrainState> {
        let found = self.journal.as_ref().map(|journal| {
            let folder = journal.folder.file(CHECKPOINTS);
            let parameters = self.plan.parameters;
            checkpoint::newest(&folder, self.identity(), parameters, options.allow_engine_change)
        });
        let found = sync_result(comm, found.transpose())?.flatten();
        let (mut weights, mut progress) = match found.as_ref().map(TrainState::to_bytes).transpose()
        {
            Ok(bytes) => bytes.unwrap_or_default(),
            Err(error) => return Err(error),
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

    /// Opens the growing files, and logs the start.
    pub fn begin(
        &mut self,
        comm: &dyn Communicator,
        options: &Options,
        state: &TrainState,
    ) -> Result<()> {
        let engine = self.engines[0].describe();
        let events = self.rows.iter().map(|rows| rows.train).sum();
        let (plan, steps, epochs) = (self.plan, self.steps, self.epochs());
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

    /// Returns whether there is more to train; advances to the next stage at the end of one.
    pub fn advance_to_next_epoch(&self, state: &mut TrainState) -> bool {
        let over = |state: &TrainState| {
            let (p, train) = (&state.progress, self.settings(state));
            let impatient = train.patience > 0
                && p.best.iter().any(|best| best.nll.is_some())
                && p.epoch - p.best_epoch >= train.patience;
            p.stage_epoch >= train.epochs || (p.stage_epoch > 0 && impatient)
        };
        while over(state) {
            if state.progress.stage + 1 == self.plan.stages.len() {
                return false;
            }
            state.next_stage();
        }
        true
    }

    /// Adds gradient sums over all ranks exactly, with the flags for common decisions.
    pub fn reduce(&mut self, comm: &dyn Communicator, stop: &StopFlag) -> Result<Agreed> {
        let due = self.journal.is_some() && self.last_checkpoint.elapsed() >= self.checkpoint_every;
        let late =
            self.deadline.filter(|(end, _)| self.journal.is_some() && Instant::now() >= *end);
        let late = late.map_or(0, |(_, why)| if why == Stop::JobEnd { 2 } else { 1 });
        let alone = comm.size() == 1;
        let mut values = vec![0; if alone { 0 } else { self.plan.parameters }];
        if !alone {
            let each = self.plan.parameters / self.plan.flows.len();
            for (engine, sums) in self.engines.iter().zip(values.chunks_mut(each)) {
                engine.sums(sums)?;
            }
        }
        let parameters = values.len();
        values.extend([self.step.unusable as i64, i64::from(due), late]);
        values.extend(stop.counts());
        values.extend([self.step.below as i64, self.step.events(0) as i64]);
        let (flows, step) = (&self.plan.flows, &self.step);
        values.extend(flows.iter().map(|f| step.events(f.population) as i64));
        values.extend(flows.iter().map(|f| step.divisor(self.plan, f.population)));
        comm.all_reduce_sum(&mut values)?;
        let words = values.split_off(parameters);
        let (signals, more) = words[3..].split_at(StopReason::ALL.len());
        let time = match words[2] {
            0 => None,
            1 => Some(Stop::Time),
            _ => Some(Stop::JobEnd),
        };
        Ok(Agreed {
            unusable: words[0] as u64,
            checkpoint: words[1] > 0,
            stop: StopReason::from_counts(signals).map(Stop::Signal).or(time),
            sums: (!alone).then_some(values),
            below: more[0] as u64,
            normals: more[1] as u64,
            events: more[2..2 + flows.len()].iter().map(|n| *n as u64).collect(),
            divisors: more[2 + flows.len()..].iter().map(|n| *n as f64 / UNITS as f64).collect(),
        })
    }

    /// Updates the weights, or skips the step on all ranks together.
    pub fn update(
        &mut self,
        comm: &dyn Communicator,
        state: &mut TrainState,
        agreed: &Agreed,
    ) -> Result<()> {
        let train = self.settings(state);
        let stage_steps = self.stage_steps(&self.plan.stages[state.progress.stage]);
        let rate = learning_rate(&train, state.progress.stage_step, stage_steps);
        let followed = self.followed_quantile(state.progress.stage);
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
            let offending = offending_events::describe(comm, self, epoch, step)?;
            return mark_shared(Err(diverged(p.skipped_in_a_row, &offending)));
        }
        p.skipped_in_a_row = 0;
        p.updates += 1;
        let shards = self.plan.dealing.shards() as usize;
        let each = self.plan.parameters / self.plan.flows.len();
        for (f, divisor) in agreed.divisors.iter().enumerate().filter(|(_, w)| **w > 0.0) {
            p.events_in_epoch[f] += agreed.events[f];
            p.weight_in_epoch[f] += divisor;
            for (shard, loss) in self.stores[0].shards.iter().zip(&self.step.losses[f]) {
                p.loss[f * shards + shard.id as usize] += loss;
            }
            let sums = agreed.sums.as_ref().map(|sums| &sums[FlowPlan::range(f, each)]);
            self.engines[f].update(sums, &adam(&train, rate, p.updates, *divisor))?;
        }
        Ok(())
    }

    /// Logs the step if the interval has passed.
    pub fn log_step(&mut self, state: &TrainState, agreed: &Agreed) -> Result<()> {
        let events = agreed.events.iter().sum();
        let epochs = self.epochs();
        let write =
            |journal: &mut Journal| journal.step(&state.progress, events, self.steps, epochs);
        self.journal.as_mut().map_or(Ok(()), write)
    }

    /// Returns the number of epochs of all stages together.
    pub fn epochs(&self) -> u64 {
        self.plan.stages.iter().map(|s| s.settings(&self.plan.config.train).epochs).sum()
    }

    /// Measures the epoch, records the best weights, and starts the next epoch.
    pub fn end_epoch(&mut self, comm: &dyn Communicator, state: &mut TrainState) -> Result<()> {
        self.gather_losses(comm, state)?;
        self.download_weights(state)?;
        self.set_params(&state.weights.ema)?;
        let held_out = self.held_out(comm, &state.progress)?;
        let improved = self.note_best(state, held_out.as_ref());
        let train = self.settings(state);
        let stage = &self.plan.stages[state.progress.stage];
        let stage_steps = self.stage_steps(stage);
        let log_det = scaler_log_det(&self.scaler);
        let shards = self.plan.dealing.shards() as usize;
        let p = &mut state.progress;
        let each = |(f, flow): (usize, &FlowPlan)| FlowMetrics {
            flow: flow.name.to_string(),
            train_nll: p.loss[f * shards..(f + 1) * shards].iter().sum::<f64>()
                / p.weight_in_epoch[f]
                - log_det,
            validation_nll: held_out.as_ref().and_then(|h| h.mean[f]),
            validation_nll_median: held_out.as_ref().and_then(|h| h.median[f]),
        };
        let flows: Vec<FlowMetrics> = self.plan.flows.iter().enumerate().map(each).collect();
        let epoch = EpochMetrics {
            epoch: p.epoch + 1,
            step: p.step,
            train_nll: flows.iter().map(|f| f.train_nll).sum(),
            validation_nll: flows.iter().map(|f| f.validation_nll).sum(),
            validation_nll_median: flows.iter().map(|f| f.validation_nll_median).sum(),
            learning_rate: learning_rate(&train, p.stage_step.saturating_sub(1), stage_steps),
            gradient_norm: p.gradient_norm,
            skipped_steps: p.skipped_in_epoch,
            events: p.events_in_epoch.iter().sum(),
            best: improved,
            stage: (p.stage > 0).then(|| stage.name().to_string()),
            validation_loss: held_out.as_ref().and_then(|h| h.loss),
            flows: if flows.len() > 1 { flows } else { Vec::new() },
        };
        p.epoch += 1;
        p.stage_epoch += 1;
        (p.step_in_epoch, p.skipped_in_epoch) = (0, 0);
        p.events_in_epoch.fill(0);
        p.weight_in_epoch.fill(0.0);
        p.loss.fill(0.0);
        let written = self.journal.as_mut().map_or(Ok(()), |journal| journal.end_epoch(&epoch));
        p.history.push(epoch);
        sync_result(comm, written)?;
        mark_shared(self.check_bound(state, held_out.as_ref()))
    }

    /// Keeps the weights with the best held-out metrics: for each flow by its likelihood, or for
    /// all flows together by the loss of a fine-tuning. Without held-out events, the last weights
    /// are published.
    fn note_best(&self, state: &mut TrainState, held_out: Option<&ValidationMetrics>) -> bool {
        let epoch = state.progress.epoch + 1;
        let each = self.plan.parameters / self.plan.flows.len();
        let fine_tuned = state.progress.stage > 0;
        let loss = held_out.and_then(|h| h.loss);
        let loss_fell =
            loss.is_some_and(|now| state.progress.best_loss.is_none_or(|best| now < best));
        if loss_fell {
            state.progress.best_loss = loss;
        }
        let mut improved = false;
        for f in 0..self.plan.flows.len() {
            let now = held_out.and_then(|h| h.mean[f]);
            let better = match (held_out, now, state.progress.best[f].nll) {
                (None, ..) => true,
                _ if fine_tuned => loss_fell,
                (_, Some(now), Some(best)) => now < best,
                (_, now, None) => now.is_some(),
                (_, None, Some(_)) => false,
            };
            if better {
                let median = held_out.and_then(|h| h.median[f]);
                state.progress.best[f] = BestWeights { epoch, nll: now, median };
                let range = FlowPlan::range(f, each);
                state.best[range.clone()].copy_from_slice(&state.weights.ema[range]);
                improved = true;
            }
        }
        if improved {
            state.progress.best_epoch = epoch;
        }
        improved
    }

    /// Returns an error if a push has raised the NLL of normal events beyond its bound.
    fn check_bound(&self, state: &TrainState, held_out: Option<&ValidationMetrics>) -> Result<()> {
        let p = &state.progress;
        let Objective::Push(fine_tune) = &self.plan.stages[p.stage] else { return Ok(()) };
        let (Some(before), Some(held_out)) = (p.likelihood_nll, held_out) else { return Ok(()) };
        let now = held_out.mean[0].unwrap_or(f64::INFINITY);
        if now <= before + fine_tune.nll_bound {
            return Ok(());
        }
        Err(Error::Diverged(Box::new(
                        Fault::new("the push has raised the NLL of normal events beyond its bound")
                .expected(format!("a held-out NLL of at most {before:.3} + {} nats", fine_tune.nll_bound))
                .found(format!("{now:.3} nats with weight {} and margin {}", fine_tune.weight, fine_tune.push.margin))
                .advice("lower fine_tune.weight or fine_tune.learning_rate, raise fine_tune.push.margin, or allow more with fine_tune.nll_bound"),
        )))
    }

    /// Gathers the losses of the epoch of all shards on all ranks.
    fn gather_losses(&self, comm: &dyn Communicator, state: &mut TrainState) -> Result<()> {
        let shards = self.plan.dealing.shards() as usize;
        let mut slots = vec![None; state.progress.loss.len()];
        for f in 0..self.plan.flows.len() {
            for shard in &self.stores[0].shards {
                let at = f * shards + shard.id as usize;
                slots[at] = Some(state.progress.loss[at]);
            }
        }
        state.progress.loss = gather_slots(comm, &slots)?;
        Ok(())
    }

    /// Checks at the configured interval that all ranks have the same weights.
    pub fn check_replicas(&self, comm: &dyn Communicator, state: &mut TrainState) -> Result<()> {
        let every = self.plan.config.run.replica_steps;
        if every > 0 && comm.size() > 1 && state.progress.step.is_multiple_of(every) {
            sync_result(comm, self.download_weights(state))?;
            return replicas::check(comm, state);
        }
        Ok(())
    }

    /// Writes a checkpoint.
    pub fn save(&mut self, comm: &dyn Communicator, state: &mut TrainState) -> Result<()> {
        sync_result(comm, self.download_weights(state))?;
        replicas::check(comm, state)?;
        self.gather_losses(comm, state)?;
        let since = Instant::now();
        let identity = self.identity();
        let keep = self.plan.config.run.keep;
        let saved = self.journal.as_mut().map(|journal| {
            journal.folder.check_identity()?;
            checkpoint::save(&journal.folder.file(CHECKPOINTS), state, identity, keep)?;
            journal.folder.forget_replaced()
        });
        self.last_checkpoint = Instant::now();
        self.saved = (self.saved.0 + 1, self.saved.1 + since.elapsed());
        sync_result(comm, saved.unwrap_or(Ok(())))
    }

    fn identity(&self) -> checkpoint::CheckpointIdentity<'a> {
        checkpoint::CheckpointIdentity {
            run_hash: &self.plan.run_hash,
            engine: self.engines[0].class(),
            shards: self.plan.dealing.shards(),
        }
    }
}

/// Stores the events in the engines if they have enough memory for all; returns whether they are
/// stored.
fn upload_events(
    plan: &TrainingPlan,
    stores: &[EventStore],
    engines: &mut [Box<dyn Engine>],
) -> Result<bool> {
    let of_flow = |f: usize| stores.get(plan.flows[f].population);
    let fits =
        |f: usize| of_flow(f).is_some_and(|store| store.train_len() <= engines[f].capacity());
    if !(0..engines.len()).all(fits) {
        return Ok(false);
    }
    for (f, engine) in engines.iter_mut().enumerate() {
        let Some(store) = of_flow(f) else { continue };
        engine.upload_events(store.train_len(), &mut store.train_rows())?;
    }
    Ok(true)
}

/// Returns the earlier of `stop_after` and the scheduler's end of the job minus a margin.
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
    let of_job = left.map(|left| (now + left, Stop::JobEnd));
    asked.into_iter().chain(of_job).min_by_key(|(end, _)| *end)
}

/// Returns an error if a ratio cannot be calibrated with the weights of its held-out events.
fn check_calibration(
    comm: &dyn Communicator,
    plan: &TrainingPlan,
    stores: &[EventStore],
) -> Result<()> {
    let of = |class| plan.populations.iter().position(|p| *p == Population::Real(class));
    let both = of(Class::Gamma).zip(of(Class::Hadron));
    let Some((gammas, hadrons)) = both.filter(|_| plan.config.model.mode == Mode::Ratio) else {
        return Ok(());
    };
    let held_out = |i: usize| stores[i].held_out(comm, plan.dealing.shards());
    mark_shared(few::check_calibration(held_out(gammas)?, held_out(hadrons)?))
}

/// Checks the split of a class, and warns of settings that rarely give a good model.
fn check_events(rows: &RowCounts, plan: &TrainingPlan, class: Class) -> Result<()> {
    let (mode, normal) = (plan.config.model.mode, plan.config.model.normal);
    if rows.validation == 0 && mode != Mode::OneClass {
        return Err(Fault::new(format!("no held-out {class} showers"))
            .expected(
                "split.validation above 0: fine-tuning and ratios are evaluated on held-out events",
            )
            .found(format!("{} of {} rows for validation", rows.validation, rows.read))
            .usage());
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
    if normal == Class::Hadron && !mode.is_ratio() {
        log::warn!(
            "hadrons as normal: gammas are inside the dense core of the hadron distribution, so the score of such a model \
             is usually at chance or inverted; train with gammas as normal, or with both classes"
        );
    }
    Ok(())
}

/// Adds the effect of the cuts to an error about too few events, if cuts removed any. All ranks
/// call it with the same counts.
fn explained(
    comm: &dyn Communicator,
    plan: &TrainingPlan,
    sources: &[Source],
    rows: &RowCounts,
    class: Class,
    error: Error,
) -> Error {
    if rows.cut + rows.not_finite + rows.out_of_domain == 0 {
        return error;
    }
    cut_flow::explain(comm, sources, &plan.selection, class, error)
}

/// Returns the error of a stopped training.
pub fn stopped(reason: Stop, state: &TrainState) -> Error {
    let why = match reason {
        Stop::Signal(StopReason::Interrupt) => return Error::Interrupted,
        Stop::Signal(signal) => signal.to_string(),
        Stop::Time => "--stop-after".to_string(),
        Stop::JobEnd => "the end of the job".to_string(),
    };
    let p = &state.progress;
    Error::Stopped(Box::new(
        Fault::new(format!(
            "stopped by {why} at epoch {}, step {}, after a checkpoint",
            p.epoch + 1,
            p.step_in_epoch
        ))
        .advice("run the same command again to resume"),
    ))
}

/// Returns the error of a diverged training.
pub fn diverged(skipped: u64, offending: &str) -> Error {
    Error::Diverged(Box::new(
        Fault::new("training diverged")
            .found(format!(
                "{skipped} steps in a row with gradients that are too large or not finite; {offending}"
            ))
                        .advice("lower train.learning_rate or train.clip_norm, and check the data with `taiga-flow check`"),
    ))
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
