//! Measures events per second of the CPU engine, and their share of the peak of the machine.
//!
//! `cargo bench --bench throughput` prints one JSON object per line. All cases and the peak
//! alternate, for several rounds, and medians are printed: machines are noisy, so compared values
//! must be measured together. A training step is gradient, exact sum, update and the packing of the
//! new weights.
//!
//! Options after `--` choose cases, so that another program can alternate with this one: `cargo
//! bench --bench throughput -- --case train --threads 2 --rounds 1`.

mod peak;

use clap::Parser;
use serde_json::json;
use std::time::{Duration, Instant};
use taiga_flow::config::Train;
use taiga_flow::data::selection::shards::default_shards;
use taiga_flow::engine::Isa;
use taiga_flow::engine::cpu::CpuEngine;
use taiga_flow::engine::{Batch, Engine, Events, Weights};
use taiga_flow::error::Result;
use taiga_flow::model::initial_params;
use taiga_flow::train::schedule::adam;
use taiga_flow_gpu::random::Stream;
use taiga_flow_gpu::spec::FlowSpec;

/// Shortest measurement of a case in a round.
const SLICE: Duration = Duration::from_millis(400);

/// Selection of cases; without options all of them.
#[derive(Parser)]
struct Options {
    /// Only this case
    #[arg(long, value_parser = ["score", "train"])]
    case: Option<String>,
    /// Only on this number of threads, with the widest instruction set
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    threads: Option<u16>,
    /// Number of rounds of all cases; medians over them are printed
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Added by `cargo bench`; ignored
    #[arg(long, hide = true)]
    bench: bool,
}

struct Case {
    name: &'static str,
    spec: FlowSpec,
    batch: usize,
    threads: usize,
    isa: Isa,
    engine: CpuEngine,
    events: Vec<f32>,
    offsets: Vec<usize>,
    rates: Vec<f64>,  // events per second, one per round
    shares: Vec<f64>, // of the peak in the same round
}

impl Case {
    fn new(
        name: &'static str,
        spec: FlowSpec,
        batch: usize,
        threads: usize,
        isa: Isa,
    ) -> Result<Case> {
        let params = initial_params(&spec, 1);
        let stream = Stream::new(1, "benchmark events", &[]);
        let events = (0..(batch * spec.features) as u64).map(|i| stream.normal(i) as f32).collect();
        let shards = default_shards(batch as u64) as usize;
        let mut engine = CpuEngine::new(&spec, threads, isa)?;
        engine.begin(&Weights::new(params), shards)?;
        Ok(Case {
            offsets: (0..=shards).map(|s| batch * s / shards).collect(),
            rates: Vec::new(),
            shares: Vec::new(),
            name,
            spec,
            batch,
            threads,
            isa,
            engine,
            events,
        })
    }

    fn work(&self) -> u64 {
        if self.name == "score" { self.spec.forward_fma() } else { self.spec.training_fma() }
    }

    fn once(&mut self, step: u64) -> Result<()> {
        if self.name == "score" {
            let mut out = vec![0.0; self.batch];
            return self.engine.log_prob(&self.events, &mut out);
        }
        let events = Events::Rows(&self.events);
        self.engine.add_gradient(&Batch { events, weights: None, offsets: &self.offsets })?;
        self.engine.collect(&mut vec![0.0; self.offsets.len() - 1])?;
        self.engine.update(None, &adam(&Train::default(), 1e-4, step, self.batch as f64))
    }

    fn measure(&mut self, peak: f64) -> Result<()> {
        let start = Instant::now();
        let mut steps = 0;
        while start.elapsed() < SLICE {
            steps += 1;
            self.once(steps)?;
        }
        let rate = steps as f64 * self.batch as f64 / start.elapsed().as_secs_f64();
        self.rates.push(rate);
        self.shares.push(rate * self.work() as f64 / 1e9 / peak);
        Ok(())
    }

    fn line(&self) -> serde_json::Value {
        let rate = median(&self.rates);
        json!({
            "engine": "cpu",
            "case": self.name,
            "features": self.spec.features,
            "blocks": self.spec.blocks,
            "hidden": self.spec.hidden,
            "batch": self.batch,
            "threads": self.threads,
            "isa": self.isa.name(),
            "events_per_s": rate.round(),
            "gfma_per_s": rate * self.work() as f64 / 1e9,
            "share_of_fma_peak": median(&self.shares),
        })
    }
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

fn main() -> Result<()> {
    let options = Options::parse();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let best = Isa::detect();
    let settings = if let Some(threads) = options.threads {
        vec![(usize::from(threads), best)]
    } else {
        let below = Isa::supported().into_iter().find(|isa| *isa != best && isa.name() == "AVX2");
        [(cores, best), (1, best)].into_iter().chain(below.map(|isa| (cores, isa))).collect()
    };
    let reference = FlowSpec::reference_study(6);
    let deep = FlowSpec { hidden: vec![512, 512], ..reference.clone() };
    let mut cases = Vec::new();
    for (threads, isa) in settings {
        for (name, batch) in [("score", 65_536), ("train", 8192)] {
            for spec in [&reference, &deep] {
                let wanted = options.case.as_deref().is_none_or(|only| only == name);
                // Comparisons use the reference network; the deep one has no AVX2 value.
                let deep_too = options.case.is_none() && isa == best;
                if wanted && (spec == &reference || deep_too) {
                    cases.push(Case::new(name, spec.clone(), batch, threads, isa)?);
                }
            }
        }
    }
    for _ in 0..options.rounds {
        for case in &mut cases {
            let peak = peak::gfma_per_s(case.threads, 10);
            case.measure(peak)?;
        }
    }
    for case in &cases {
        println!("{}", case.line());
    }
    Ok(())
}
