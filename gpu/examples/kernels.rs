//! Compiles and launches every kernel once for several networks, without checking the results.
//!
//! It runs on the first device of the given backend (`cuda` or `vulkan`) and shows whether the
//! compiler accepts the kernels.

use std::process::ExitCode;
use taiga_flow_gpu::device::{Adam, Backend, DeviceBatch, Events, Result, Weights, devices, open};
use taiga_flow_gpu::layout::Layout;
use taiga_flow_gpu::spec::{Coupling, FlowSpec, Permutation};

fn networks() -> Vec<FlowSpec> {
    let reference = FlowSpec::reference_study(6);
    let seeded = Permutation::Seeded(1);
    vec![
        reference.clone(),
        FlowSpec { permutation: seeded, ..FlowSpec::reference_study(10) },
        FlowSpec { hidden: vec![64], permutation: seeded, ..FlowSpec::reference_study(17) },
        FlowSpec { hidden: vec![1024], blocks: 5, ..FlowSpec::reference_study(32) },
        FlowSpec { coupling: Coupling::Additive, ..FlowSpec::reference_study(2) },
        FlowSpec { hidden: vec![512, 512], ..reference },
    ]
}

fn launch_all(backend: Backend, spec: &FlowSpec) -> Result<String> {
    let mut flow = open(&devices(backend)?[0], spec)?;
    let (n, features) = (3000, spec.features);
    let zeros = vec![0.0; Layout::new(spec).len()];
    let events = vec![0.5; n * features];
    let mut out = vec![0.0; n * features];
    flow.begin(&Weights::new(zeros))?;
    flow.log_prob(&events, &mut out[..n])?;
    flow.inverse(&events, &mut out)?;
    flow.upload_events(n, &mut [events.as_slice()].into_iter())?;
    let numbers: Vec<u32> = (0..n as u32).collect();
    let adam = Adam {
        divisor: n as f64,
        clip_norm: 1.0,
        beta1: 0.9,
        beta2: 0.999,
        step: 0.0,
        epsilon: 1e-8,
        keep: 0.0,
    };
    for flips in [None, Some(numbers.as_slice())] {
        let events = Events::Held { numbers: &numbers, flips };
        flow.add_gradient(&DeviceBatch { events, weights: None, offsets: &[0, n], shards: 1 })?;
        flow.collect()?;
        flow.update(None, &adam)?;
    }
    Ok(flow.describe().to_string())
}

fn main() -> ExitCode {
    let backend = match std::env::args().nth(1).as_deref() {
        Some("cuda") => Backend::Cuda,
        Some("vulkan") => Backend::Vulkan,
        _ => {
            eprintln!("usage: kernels cuda|vulkan");
            return ExitCode::from(2);
        }
    };
    for spec in networks() {
        let network =
            format!("{} features, {} blocks, hidden {:?}", spec.features, spec.blocks, spec.hidden);
        match launch_all(backend, &spec) {
            Ok(device) => println!("{network}: launched on {device}"),
            Err(error) => {
                eprintln!("{network}: {error}");
                return ExitCode::from(5);
            }
        }
    }
    ExitCode::SUCCESS
}
