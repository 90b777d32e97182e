//! Measures events per second on a GPU, and the share of its f32 multiply-add peak.
//!
//! Both are measured in the same rounds. The program needs only a driver and prints one JSON object
//! per line.
//!
//!     cargo bench -p taiga-flow-gpu --features device --bench device -- [cuda|vulkan]
//!         [--case score|train] [--rounds N] [--batch N]
//!
//! A training step is gather, gradient, exact sum, update and packing of the new weights, with the
//! events on the device. `train` waits for each step, as training does. `train-queued` waits for
//! every sixteenth step; the difference is the cost of the host. `score` is scoring without the
//! copies to and from the device, `score-with-copies` includes them.

use std::time::Instant;
use taiga_flow_gpu::device::{
    Adam, Backend, DeviceBatch, DeviceFlow, DeviceInfo, Events, Result, Weights, devices, fma_peak,
    open,
};
use taiga_flow_gpu::layout::Layout;
use taiga_flow_gpu::random::Stream;
use taiga_flow_gpu::spec::FlowSpec;

/// Shortest measurement of a case in a round, in seconds.
const SLICE: f64 = 0.4;
const CASES: [&str; 4] = ["score", "score-with-copies", "train", "train-queued"];
/// Steps that `train-queued` queues before it waits.
const QUEUED: usize = 16;

struct Case {
    name: &'static str,
    spec: FlowSpec,
    batch: usize,
    shards: usize,
    flow: Box<dyn DeviceFlow>,
    events: Vec<f32>,
    rates: Vec<f64>,
    shares: Vec<f64>,
}

struct Options {
    backend: Backend,
    case: Option<String>,
    batch: Option<usize>,
    rounds: usize,
}

impl Case {
    fn new(name: &'static str, found: &DeviceInfo, spec: FlowSpec, batch: usize) -> Result<Case> {
        let layout = Layout::new(&spec);
        let stream = Stream::new(1, "benchmark", &[]);
        let events: Vec<f32> =
            (0..(batch * spec.features) as u64).map(|i| stream.normal(i) as f32).collect();
        let mut params: Vec<f32> =
            (0..layout.len() as u64).map(|i| stream.uniform(i) as f32 - 0.5).collect();
        for dense in layout.layers() {
            let scale = 0.5 / (dense.inputs as f32).sqrt();
            params[dense.weight.start..dense.bias.end].iter_mut().for_each(|p| *p *= scale);
        }
        let mut flow = open(found, &spec)?;
        flow.upload_events(batch, &mut [events.as_slice()].into_iter())?;
        flow.begin(&Weights::new(params))?;
        let shards = (batch / 256).clamp(1, 64);
        Ok(Case { name, spec, batch, shards, flow, events, rates: vec![], shares: vec![] })
    }

    /// Returns the multiply-adds per event.
    fn work(&self) -> u64 {
        if self.name.starts_with("train") {
            self.spec.training_fma()
        } else {
            self.spec.forward_fma()
        }
    }

    /// Runs the case for at least a slice of time; returns the events per second.
    fn measure(&mut self) -> Result<f64> {
        let mut out = vec![0.0; self.batch];
        let numbers: Vec<u32> = (0..self.batch as u32).collect();
        let offsets: Vec<usize> = (0..=self.shards).map(|s| self.batch * s / self.shards).collect();
        let adam = Adam {
            divisor: self.batch as f64,
            clip_norm: 5.0,
            beta1: 0.9,
            beta2: 0.999,
            step: 1e-4,
            epsilon: 1e-8,
            keep: 1e-3,
        };
        let (start, mut turns) = (Instant::now(), 0);
        while turns == 0 || start.elapsed().as_secs_f64() < SLICE {
            match self.name {
                "train" | "train-queued" => {
                    let events = Events::Held { numbers: &numbers, flips: None };
                    let batch = DeviceBatch {
                        events,
                        weights: None,
                        offsets: &offsets,
                        shards: self.shards,
                    };
                    let queued = if self.name == "train" { 1 } else { QUEUED };
                    for _ in 0..queued {
                        self.flow.add_gradient(&batch)?;
                        self.flow.update(None, &adam)?;
                    }
                    self.flow.collect()?;
                    turns += queued;
                }
                "score" => {
                    self.flow.score_held(8)?;
                    turns += 8;
                }
                _ => {
                    self.flow.log_prob(&self.events, &mut out)?;
                    turns += 1;
                }
            }
        }
        Ok((turns * self.batch) as f64 / start.elapsed().as_secs_f64())
    }

    /// Prints the result as one JSON object.
    fn line(&self, device: &str, peak: f64) {
        let rate = median(&self.rates);
        println!(
            "{{\"engine\": \"{}\", \"device\": \"{device}\", \"case\": \"{}\", \"features\": {}, \
             \"blocks\": {}, \"hidden\": {:?}, \"batch\": {}, \"events_per_s\": {:.0}, \
             \"gfma_per_s\": {:.1}, \"fma_peak\": {peak:.1}, \"share_of_fma_peak\": {:.4}}}",
            device.split(',').next().unwrap_or_default(),
            self.name,
            self.spec.features,
            self.spec.blocks,
            self.spec.hidden,
            self.batch,
            rate,
            rate * self.work() as f64 / 1e9,
            median(&self.shares),
        );
    }
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

fn options() -> std::result::Result<Options, String> {
    let mut options = Options { backend: Backend::Cuda, case: None, batch: None, rounds: 5 };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut number = || words.next().and_then(|w| w.parse().ok()).ok_or(format!("{word} N"));
        match word.as_str() {
            "cuda" => options.backend = Backend::Cuda,
            "vulkan" => options.backend = Backend::Vulkan,
            "--rounds" => options.rounds = number()?,
            "--batch" => options.batch = Some(number()?),
            "--case" => {
                let case = words.next().filter(|w| CASES.contains(&w.as_str()));
                options.case = Some(case.ok_or(format!("--case one of {CASES:?}"))?);
            }
            // An argument that `cargo bench` adds.
            "--bench" => {}
            _ => return Err(format!("unknown: {word}")),
        }
    }
    Ok(options)
}

fn run(options: &Options) -> Result<()> {
    let found = &devices(options.backend)?[0];
    let deep = FlowSpec { hidden: vec![512, 512], ..FlowSpec::reference_study(6) };
    let mut cases = Vec::new();
    for name in CASES {
        if options.case.as_ref().is_some_and(|case| case != name) {
            continue;
        }
        let batches = options.batch.map_or(vec![65_536, 262_144, 1 << 20], |b| vec![b]);
        for batch in batches {
            cases.push(Case::new(name, found, FlowSpec::reference_study(6), batch)?);
        }
        if options.batch.is_none() && name != "score-with-copies" {
            cases.push(Case::new(name, found, deep.clone(), 65_536)?);
        }
    }
    let mut peaks = Vec::new();
    for round in 0..=options.rounds {
        let peak = fma_peak(found)?;
        peaks.push(peak);
        for case in &mut cases {
            let rate = case.measure()?;
            // The first round compiles and warms up.
            if round > 0 {
                case.rates.push(rate);
                case.shares.push(rate * case.work() as f64 / 1e9 / peak);
            }
        }
    }
    for case in &cases {
        case.line(case.flow.describe(), median(&peaks));
    }
    Ok(())
}

fn main() -> std::process::ExitCode {
    match options().and_then(|o| run(&o).map_err(|e| e.to_string())) {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            std::process::ExitCode::from(5)
        }
    }
}
