//! Measures the parts of a training step.
//!
//! The parts are order and gathering of events, gradient, reduction over ranks, update, and packing
//! of the new weights.
//!
//! `cargo bench --bench step` trains on simulated events in memory with one rank. It prints one
//! JSON object: seconds per step of each part, and the share of all parts except the gradient.

use serde_json::json;
use std::time::{Duration, Instant};
use taiga_flow::comm::{Communicator, SingleRank};
use taiga_flow::config::{self, Class};
use taiga_flow::dataset::event_store::{EventStore, Gathered};
use taiga_flow::engine::{self, Batch, Events, RankResources, Weights};
use taiga_flow::error::Result;
use taiga_flow::model::initial_params;
use taiga_flow::simulate;
use taiga_flow::train::plan::TrainingPlan;
use taiga_flow::train::schedule::adam;

const EVENTS: u64 = 400_000;
const STEPS: u64 = 200;

fn main() -> Result<()> {
    let folder = std::env::temp_dir().join(format!("taiga-flow-step-{}", std::process::id()));
    let outcome = measure(&folder);
    taiga_flow::storage::remove_folder(&folder)?;
    println!("{}", outcome?);
    Ok(())
}

fn measure(folder: &std::path::Path) -> Result<serde_json::Value> {
    let path = folder.join("gamma.h5");
    let (class, seed) = (Class::Gamma, 1);
    taiga_flow::storage::create_folder(folder)?;
    simulate::run(&simulate::Options {
        output: path.clone(),
        class,
        events: EVENTS,
        seed,
        overwrite: true,
    })?;
    let text = include_str!("../configs/reference-study.toml");
    let files = format!("data.gamma=[{:?}]", path.display().to_string());
    let config =
        config::parse(text, &[files, "train.batch=8192".to_string(), "cuts={}".to_string()])?;
    let comm = SingleRank;
    let plan = TrainingPlan::new(&comm, &config)?;
    let (mut store, _) = EventStore::load(&comm, &plan.sources, &plan.row_selection(class))?;
    let scaler = store
        .moments(&comm, &plan.row_selection(class))?
        .scaler(plan.selection.features(), &plan.units)?;
    store.scale(&scaler);
    let place = RankResources::new(&comm, config.run.hardware())?;
    let mut engine = engine::start(&place, &plan.spec)?;
    let shards = plan.dealing.shards() as usize;
    engine.begin(&Weights::new(initial_params(&plan.spec, 1)), shards)?;
    let mut sums = vec![0; plan.parameters];
    let mut loss = vec![0.0; store.shards.len()];
    let mut events = Gathered::default();
    let steps = (EVENTS * 7 / 10).div_ceil(config.train.batch);
    let mut parts = [Duration::ZERO; 4];
    for step in 0..STEPS {
        let mut marks = [Instant::now(); 5];
        store.gather(1, step / steps, step % steps, steps, &mut events);
        marks[1] = Instant::now();
        let rows = Events::Rows(&events.rows);
        engine.add_gradient(&Batch { events: rows, weights: None, offsets: &events.offsets })?;
        engine.collect(&mut loss)?;
        marks[2] = Instant::now();
        engine.sums(&mut sums)?;
        comm.all_reduce_sum(&mut sums)?;
        marks[3] = Instant::now();
        let count = events.len() as f64;
        engine.update(Some(&sums), &adam(&config.train, 1e-4, step + 1, count))?;
        marks[4] = Instant::now();
        for (part, pair) in parts.iter_mut().zip(marks.windows(2)) {
            *part += pair[1] - pair[0];
        }
    }
    let seconds = parts.map(|p| p.as_secs_f64() / STEPS as f64);
    let all: f64 = seconds.iter().sum();
    Ok(json!({
        "case": "step",
        "engine": engine.describe(),
        "batch": config.train.batch,
        "order_s": seconds[0],
        "gradient_s": seconds[1],
        "reduction_s": seconds[2],
        "update_s": seconds[3],
        "share_besides_gradient": 1.0 - seconds[1] / all,
    }))
}
