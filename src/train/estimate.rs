//! Estimates the resources of a training: `train --dry-run`.
//!
//! The time of a step is measured on this machine, on random events of the same shape, and divided
//! by the number of ranks. The estimate does not include costs of ranks (sums over the network,
//! nodes of different speed). `bench/scaling` has a model of these.

use super::few;
use super::plan::TrainingPlan;
use super::run::checkpoint;
use super::{Options, describe};
use crate::comm::{Communicator, preflight, sync_result};
use crate::data::selection::cut_flow::CutFlow;
use crate::dataset::cut_flow;
use crate::engine::{self, Batch, Events, FixedSum, RankResources};
use crate::error::Result;
use crate::model::initial_params;
use serde::Serialize;
use std::time::{Duration, Instant};
use taiga_flow_gpu::random::Stream;

/// Rows of each file for the cut flow.
const ROWS_PER_FILE: u64 = 65_536;
/// Duration of the measurement of steps.
const SLICE: Duration = Duration::from_millis(400);
/// Events of a measured step.
const EVENTS: usize = 4096;
/// Fewest events per rank and step at which more ranks are useful.
const FEWEST: u64 = 1024;
/// Memory in addition to events and weights: program, MPI, buffers of reading [bytes].
const BASE: u64 = 200 << 20;
/// Factor on the estimated time for the time limit, and the shortest limit.
const MARGIN: f64 = 1.5;
const SHORTEST_S: f64 = 900.0;

/// Estimated resources of a training.
#[derive(Debug, Clone, Serialize)]
pub struct Estimate {
    pub rows: u64,
    pub files: usize,
    pub parameters: usize,
    pub shards: u64,
    pub batch: u64,
    /// Upper limit: cuts leave fewer.
    pub training_events: u64,
    pub steps: u64,
    pub epochs: u64,
    pub engine: String,
    pub threads: usize,
    /// Gradient and update on one rank, measured on this machine.
    pub events_per_s_per_rank: f64,
    pub checkpoint_bytes: u64,
    /// Estimates for the number of ranks of this start, and for other numbers.
    pub ranks: Vec<PerRanks>,
    pub sbatch: String,
    /// Events removed by the cuts in the first rows of each file.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cuts: Vec<CutFlow>,
}

/// Estimate for a number of ranks.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct PerRanks {
    pub ranks: u64,
    pub memory_bytes_per_rank: u64,
    pub seconds: f64,
    /// Events of a step on each rank.
    pub events_per_step: u64,
}

/// Work of a whole training.
struct TrainingWork {
    /// Gradients of events, including those that held-out events are equivalent to.
    events: f64,
    /// Gradients per second on one rank.
    rate: f64,
    training_events: u64,
    threads: u64,
}

impl TrainingWork {
    /// Estimates time and memory on a number of ranks.
    fn on(&self, plan: &TrainingPlan, ranks: u64) -> PerRanks {
        PerRanks {
            ranks,
            memory_bytes_per_rank: plan.memory(ranks, self.threads) + BASE,
            seconds: self.events / (self.rate * ranks as f64),
            events_per_step: plan.config.train.batch.min(self.training_events) / ranks,
        }
    }
}

/// Runs all checks of a training that do not read events, and estimates its resources.
///
/// # Errors
/// Those of a training before it reads events.
pub fn dry_run(comm: &dyn Communicator, options: &Options) -> Result<Estimate> {
    preflight::same_on_all(
        comm,
        "the configuration",
        &options.config.hash()?,
        super::SAME_CONFIGURATION,
    )?;
    let plan = TrainingPlan::new(comm, &options.config)?;
    let place = RankResources::new(comm, options.config.run.hardware())?;
    engine::use_threads(place.threads);
    describe(comm, &plan, place.threads);
    let cuts = cut_flows(comm, &plan)?;
    let (engine, rate) = sync_result(comm, measure(&plan, &place))?;
    let config = &plan.config;
    let training_events = (plan.rows() as f64 * config.split.train).ceil() as u64;
    sync_result(comm, few::check_rows(training_events, options.allow_few_events))?;
    few::check_weights(comm, &plan)?;
    let epochs: u64 = plan.stages.iter().map(|s| s.settings(&config.train).epochs).sum();
    let steps = training_events.div_ceil(config.train.batch) * epochs;
    // Held-out events need a likelihood, a third of the work of a gradient.
    let held_out = config.split.validation / (3.0 * config.split.train);
    let events = training_events as f64 * epochs as f64 * (1.0 + held_out);
    let (shards, mine) = (plan.dealing.shards(), comm.size() as u64);
    let work = TrainingWork { events, rate, training_events, threads: place.threads as u64 };
    let of = |ranks: u64| work.on(&plan, ranks);
    let mut counts: Vec<u64> =
        std::iter::successors(Some(1), |r| Some(4 * r)).take_while(|r| *r < shards).collect();
    counts.extend([mine, shards]);
    counts.sort_unstable();
    counts.dedup();
    let ranks: Vec<PerRanks> = counts.into_iter().map(of).collect();
    // Suggest the number of ranks of this start; for a single rank, as many as are useful.
    let useful = std::iter::successors(Some(1), |r| Some(2 * r))
        .take_while(|r| *r <= shards && of(*r).events_per_step >= FEWEST)
        .last();
    let suggested = if mine > 1 { mine } else { useful.unwrap_or(1) };
    Ok(Estimate {
        rows: plan.rows(),
        files: plan.sources.len(),
        parameters: plan.parameters,
        shards,
        batch: config.train.batch,
        training_events,
        steps,
        epochs,
        engine,
        threads: place.threads,
        events_per_s_per_rank: rate,
        checkpoint_bytes: checkpoint::bytes(plan.parameters),
        sbatch: sbatch(of(suggested), place.threads, options),
        ranks,
        cuts,
    })
}

/// Counts the events that the cuts remove, from the first rows of each file.
fn cut_flows(comm: &dyn Communicator, plan: &TrainingPlan) -> Result<Vec<CutFlow>> {
    if plan.config.cuts.is_empty() {
        return Ok(Vec::new());
    }
    cut_flow::count(comm, &plan.sources, &plan.selection, Some(ROWS_PER_FILE))
}

/// Measures events per second of gradient and update of all flows; returns the engine too.
fn measure(plan: &TrainingPlan, place: &RankResources) -> Result<(String, f64)> {
    let spec = &plan.spec;
    let params = initial_params(spec, 1);
    let mut engine = engine::start(place, spec)?;
    let stream = Stream::new(1, "estimate", &[]);
    let values = (0..(EVENTS * spec.features) as u64).map(|i| stream.normal(i) as f32);
    let events: Vec<f32> = values.collect();
    let offsets = [0, EVENTS];
    let mut sums = FixedSum::new(params.len(), plan.dealing.shards() as usize);
    let batch = Batch { events: Events::Rows(&events), weights: None, offsets: &offsets };
    let mut loss = [0.0];
    let mut once = || {
        sums.clear();
        engine.set_params(&params)?;
        engine.gradient(&batch, &mut sums, &mut loss)
    };
    once()?; // compiles kernels and starts threads
    let (since, mut steps) = (Instant::now(), 0);
    while since.elapsed() < SLICE {
        once()?;
        steps += 1;
    }
    let rate = f64::from(steps) * EVENTS as f64 / since.elapsed().as_secs_f64();
    Ok((engine.describe(), rate / plan.flows.len() as f64))
}

/// Returns a command line that submits the training to Slurm.
fn sbatch(suggested: PerRanks, threads: usize, options: &Options) -> String {
    let seconds = (suggested.seconds * MARGIN).max(SHORTEST_S);
    let minutes = (seconds / 60.0).ceil() as u64;
    // Unit of --mem-per-cpu: whole hundreds of megabytes.
    let memory =
        (suggested.memory_bytes_per_rank / threads as u64).div_ceil(100_000_000).max(2) * 100;
    let output = options.output.display();
    format!(
        "sbatch --ntasks={} --cpus-per-task={threads} --mem-per-cpu={memory}M --time={:02}:{:02}:00 jobs/train.sbatch CONFIG {output}",
        suggested.ranks,
        minutes / 60,
        minutes % 60
    )
}

impl std::fmt::Display for Estimate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(
            f,
            "{} rows in {} file(s), at most {} to train on",
            self.rows, self.files, self.training_events
        )?;
        writeln!(
            f,
            "{} parameters, {} steps in {} epochs at most, batch {} in {} shards",
            self.parameters, self.steps, self.epochs, self.batch, self.shards
        )?;
        writeln!(
            f,
            "{:.0} events/s on one rank ({}), measured here",
            self.events_per_s_per_rank, self.engine
        )?;
        writeln!(f, "checkpoint {:.1} MB", self.checkpoint_bytes as f64 / 1e6)?;
        writeln!(f, "  ranks  memory/rank        time  events/step/rank")?;
        for r in &self.ranks {
            let few =
                if r.events_per_step < FEWEST { "  few: sums over ranks will show" } else { "" };
            writeln!(
                f,
                "{:>7} {:>9} MB {:>11} {:>17}{few}",
                r.ranks,
                r.memory_bytes_per_rank / 1_000_000,
                format!("{:.1} min", r.seconds / 60.0),
                r.events_per_step
            )?;
        }
        for flow in &self.cuts {
            writeln!(f, "{flow}")?;
        }
        if !self.cuts.is_empty() {
            writeln!(f, "`taiga-flow check -c CONFIG` counts all rows")?;
        }
        write!(f, "{}", self.sbatch)
    }
}
