//! Tests of the CPU engine against the f64 reference, on random networks and events.

use super::*;
use taiga_flow_gpu::layout::Layout;
use taiga_flow_gpu::random::Stream;
use taiga_flow_gpu::reference::ReferenceFlow;
use taiga_flow_gpu::spec::{Coupling, Permutation};

fn random_params(spec: &FlowSpec, seed: u64) -> Vec<f32> {
    let stream = Stream::new(seed, "test weights", &[]);
    let mut params = vec![0.0; Layout::new(spec).len()];
    for dense in Layout::new(spec).layers() {
        let spread = 0.7 / (dense.inputs as f64).sqrt();
        for i in dense.weight.clone().chain(dense.bias.clone()) {
            params[i] = (spread * stream.normal(i as u64)) as f32;
        }
    }
    params
}

fn random_events(features: usize, count: usize, seed: u64) -> Vec<f32> {
    let stream = Stream::new(seed, "test events", &[]);
    (0..(features * count) as u64).map(|i| stream.normal(i) as f32).collect()
}

fn engine(spec: &FlowSpec, params: &[f32], threads: usize, isa: Isa) -> CpuEngine {
    let mut engine = CpuEngine::new(spec, threads, isa).unwrap();
    engine.set_params(params).unwrap();
    engine
}

fn specs() -> Vec<FlowSpec> {
    let base = FlowSpec { blocks: 4, hidden: vec![33], ..FlowSpec::reference_study(6) };
    let mut specs: Vec<FlowSpec> = [2, 3, 5, 6, 7, 10, 13, 17, 32]
        .into_iter()
        .map(|features| FlowSpec { features, ..base.clone() })
        .collect();
    specs.push(FlowSpec { hidden: vec![1], blocks: 1, ..base.clone() });
    specs.push(FlowSpec { coupling: Coupling::Additive, ..base.clone() });
    specs.push(FlowSpec { permutation: Permutation::Seeded(9), features: 9, ..base.clone() });
    specs.push(FlowSpec::reference_study(6));
    specs.extend(deep_specs(&base));
    specs
}

/// Returns specifications with several hidden layers, of widths that fill neither registers nor
/// vectors.
fn deep_specs(base: &FlowSpec) -> Vec<FlowSpec> {
    let deep =
        |features, hidden: &[usize]| FlowSpec { features, hidden: hidden.into(), ..base.clone() };
    vec![
        deep(2, &[7, 33]),
        deep(3, &[65, 1]),
        deep(6, &[33, 65, 7]),
        deep(17, &[7, 65]),
        FlowSpec { coupling: Coupling::Additive, ..deep(6, &[16, 64]) },
        FlowSpec { permutation: Permutation::Seeded(9), ..deep(9, &[1, 33, 33]) },
    ]
}

fn row_f64(row: &[f32]) -> Vec<f64> {
    row.iter().map(|v| f64::from(*v)).collect()
}

#[test]
fn log_prob_matches_reference_at_odd_sizes() {
    for (n, spec) in specs().iter().enumerate() {
        let params = random_params(spec, n as u64);
        let reference: ReferenceFlow = ReferenceFlow::new(spec, &params);
        let plain: ReferenceFlow<f32> = ReferenceFlow::new(spec, &params);
        let engine = engine(spec, &params, 2, Isa::detect());
        for count in [1, 15, 17, 65, 1025] {
            let events = random_events(spec.features, count, 100 + n as u64);
            let mut out = vec![f32::NAN; count];
            engine.log_prob(&events, &mut out).unwrap();
            for (row, got) in events.chunks(spec.features).zip(&out).step_by(7) {
                let exact = reference.log_prob(&row_f64(row));
                let rounding = (f64::from(plain.log_prob(row)) - exact).abs();
                let bar = (1e-5 * exact.abs().max(1.0)).max(3.0 * rounding);
                assert!((f64::from(*got) - exact).abs() <= bar, "{spec:?}: {got} {exact}");
            }
            assert!(out.iter().all(|v| v.is_finite()));
        }
    }
}

#[test]
fn inverse_of_forward_returns_the_event() {
    for (n, spec) in specs().iter().enumerate() {
        let params = random_params(spec, 30 + n as u64);
        let reference: ReferenceFlow = ReferenceFlow::new(spec, &params);
        let engine = engine(spec, &params, 2, Isa::detect());
        let events = random_events(spec.features, 77, 200 + n as u64);
        let latent: Vec<f32> = events
            .chunks(spec.features)
            .flat_map(|row| reference.forward(&row_f64(row)).0)
            .map(|z| z as f32)
            .collect();
        let mut back = vec![f32::NAN; events.len()];
        engine.inverse(&latent, &mut back).unwrap();
        for (a, b) in events.iter().zip(&back) {
            assert!((a - b).abs() < 1e-4 * a.abs().max(1.0), "{spec:?}: {a} {b}");
        }
    }
}

fn reference_gradient(
    spec: &FlowSpec,
    params: &[f32],
    events: &[f32],
    weights: &[f32],
) -> (Vec<f64>, f64) {
    let reference: ReferenceFlow = ReferenceFlow::new(spec, params);
    let mut gradient = vec![0.0; params.len()];
    let mut loss = 0.0;
    for (row, w) in events.chunks(spec.features).zip(weights) {
        let log_prob = reference.add_gradient(&row_f64(row), f64::from(*w), &mut gradient);
        loss -= f64::from(*w) * log_prob;
    }
    (gradient, loss)
}

#[test]
fn gradients_match_reference_at_odd_sizes() {
    for (n, spec) in specs().iter().enumerate() {
        let params = random_params(spec, 60 + n as u64);
        let engine = engine(spec, &params, 2, Isa::detect());
        let offsets = [0usize, 1, 1, 18, 291];
        let events = random_events(spec.features, 291, 300 + n as u64);
        let weights: Vec<f32> = (0..291).map(|i| 0.25 + (i % 5) as f32).collect();
        let mut sums = FixedSum::new(params.len(), 4);
        let mut loss = vec![f64::NAN; 4];
        let batch =
            Batch { events: Events::Rows(&events), weights: Some(&weights), offsets: &offsets };
        engine.gradient(&batch, &mut sums, &mut loss).unwrap();
        assert_eq!(sums.unusable, 0);
        let (exact, exact_loss) = reference_gradient(spec, &params, &events, &weights);
        let norm: f64 = exact.iter().map(|g| g * g).sum::<f64>().sqrt();
        let difference: f64 = exact
            .iter()
            .zip(&sums.values)
            .map(|(g, v)| (g - *v as f64 / crate::engine::fixed::FIXED_ONE).powi(2))
            .sum::<f64>()
            .sqrt();
        assert!(difference < 1e-5 * norm, "{spec:?}: {difference} of {norm}");
        let total: f64 = loss.iter().sum();
        assert!((total - exact_loss).abs() < 1e-5 * exact_loss.abs(), "{total} {exact_loss}");
    }
}

#[test]
fn bits_are_equal_on_any_isa_and_threads() {
    let reference = FlowSpec::reference_study(6);
    for spec in [
        reference.clone(),
        FlowSpec { hidden: vec![5], ..FlowSpec::reference_study(9) },
        FlowSpec { hidden: vec![65, 33], ..FlowSpec::reference_study(9) },
        FlowSpec { hidden: vec![7, 80, 1], coupling: Coupling::Additive, ..reference },
    ] {
        let params = random_params(&spec, 1);
        let events = random_events(spec.features, 777, 2);
        let offsets = [0usize, 257, 300, 777];
        let mut outcomes = Vec::new();
        for isa in Isa::supported() {
            for threads in [1, 2, 3] {
                let engine = engine(&spec, &params, threads, isa);
                let mut log_prob = vec![f32::NAN; 777];
                engine.log_prob(&events, &mut log_prob).unwrap();
                let mut back = vec![f32::NAN; events.len()];
                engine.inverse(&events, &mut back).unwrap();
                let mut sums = FixedSum::new(params.len(), 3);
                let mut loss = vec![f64::NAN; 3];
                let batch =
                    Batch { events: Events::Rows(&events), weights: None, offsets: &offsets };
                engine.gradient(&batch, &mut sums, &mut loss).unwrap();
                let bits = |v: &[f32]| v.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
                let loss: Vec<u64> = loss.iter().map(|l| l.to_bits()).collect();
                outcomes.push((isa, threads, bits(&log_prob), bits(&back), sums, loss));
            }
        }
        for other in &outcomes[1..] {
            let (first, same) = (&outcomes[0], "portable, 1 thread");
            assert!(
                first.2 == other.2,
                "log_prob of {:?}, {} threads differs from {same}",
                other.0,
                other.1
            );
            assert!(
                first.3 == other.3,
                "inverse of {:?}, {} threads differs from {same}",
                other.0,
                other.1
            );
            assert!(
                first.4 == other.4,
                "gradient of {:?}, {} threads differs from {same}",
                other.0,
                other.1
            );
            assert!(
                first.5 == other.5,
                "loss of {:?}, {} threads differs from {same}",
                other.0,
                other.1
            );
        }
    }
}

#[test]
fn nan_in_one_event_affects_only_that_event() {
    for hidden in [vec![512], vec![65, 33]] {
        let spec = FlowSpec { hidden, ..FlowSpec::reference_study(6) };
        let params = random_params(&spec, 4);
        let engine = engine(&spec, &params, 2, Isa::detect());
        let clean = random_events(6, 40, 5);
        let mut dirty = clean.clone();
        dirty[6 * 17 + 2] = f32::NAN;
        dirty[6 * 21] = f32::INFINITY;
        let (mut a, mut b) = (vec![0.0; 40], vec![0.0; 40]);
        engine.log_prob(&clean, &mut a).unwrap();
        engine.log_prob(&dirty, &mut b).unwrap();
        for e in 0..40 {
            if e == 17 || e == 21 {
                assert!(!b[e].is_finite());
            } else {
                assert_eq!(a[e].to_bits(), b[e].to_bits());
            }
        }
    }
}

#[test]
fn non_finite_event_makes_its_shard_unusable() {
    for hidden in [vec![33], vec![7, 33]] {
        let spec = FlowSpec { hidden, ..FlowSpec::reference_study(6) };
        let params = random_params(&spec, 4);
        let engine = engine(&spec, &params, 2, Isa::detect());
        let mut events = random_events(6, 40, 5);
        events[6 * 17 + 2] = f32::NAN;
        let mut sums = FixedSum::new(params.len(), 2);
        let batch = Batch { events: Events::Rows(&events), weights: None, offsets: &[0, 20, 40] };
        engine.gradient(&batch, &mut sums, &mut [0.0; 2]).unwrap();
        assert_eq!(sums.unusable, 1);
    }
}

#[test]
fn both_kernels_agree_on_one_hidden_layer() {
    let spec = FlowSpec { hidden: vec![65], blocks: 4, ..FlowSpec::reference_study(7) };
    let params = random_params(&spec, 8);
    let fused = engine(&spec, &params, 2, Isa::detect());
    let mut general = engine(&spec, &params, 2, Isa::detect());
    general.kernel = tiled(&spec, 2, General::new(&spec));
    general.set_params(&params).unwrap();
    let events = random_events(7, 300, 9);
    let batch = Batch { events: Events::Rows(&events), weights: None, offsets: &[0, 300] };
    let outcomes = [fused, general].map(|engine| {
        let mut log_prob = vec![f32::NAN; 300];
        engine.log_prob(&events, &mut log_prob).unwrap();
        let mut sums = FixedSum::new(params.len(), 1);
        engine.gradient(&batch, &mut sums, &mut [0.0]).unwrap();
        (log_prob, sums.values)
    });
    // Each number is one chain of multiply-adds in either kernel: the same bits.
    assert_eq!(outcomes[0].0, outcomes[1].0);
    let norm = outcomes[0].1.iter().map(|g| (*g as f64).powi(2)).sum::<f64>().sqrt();
    let pairs = outcomes[0].1.iter().zip(&outcomes[1].1);
    let difference = pairs.map(|(a, b)| ((a - b) as f64).powi(2)).sum::<f64>().sqrt();
    assert!(difference < 1e-5 * norm, "{difference} of {norm}");
}
