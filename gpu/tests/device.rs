//! Tests of the kernels against the reference, on every available device. A program that needs only
//! a driver.
#![cfg(feature = "device")]
#![allow(clippy::unwrap_used, clippy::expect_used)] // also in helpers of tests

use taiga_flow_gpu::device::{
    Adam, Backend, DeviceBatch, DeviceFlow, DeviceInfo, Events, Weights, devices, open,
};
use taiga_flow_gpu::layout::Layout;
use taiga_flow_gpu::random::Stream;
use taiga_flow_gpu::reference::ReferenceFlow;
use taiga_flow_gpu::spec::{Coupling, FlowSpec, Permutation};

fn all_devices() -> Vec<DeviceInfo> {
    let found: Vec<DeviceInfo> = [Backend::Cuda, Backend::Vulkan]
        .into_iter()
        .filter_map(|b| devices(b).ok())
        .flatten()
        .collect();
    assert!(!found.is_empty(), "no device: install a Vulkan driver, mesa-vulkan-drivers for one");
    found
}

fn random(seed: u64, purpose: &str, count: usize) -> Vec<f32> {
    let stream = Stream::new(seed, purpose, &[]);
    (0..count as u64).map(|i| stream.normal(i) as f32).collect()
}

/// Returns random weights with the magnitudes of a trained model.
fn random_params(spec: &FlowSpec, seed: u64) -> Vec<f32> {
    let layout = Layout::new(spec);
    let mut params = random(seed, "params", layout.len());
    for dense in layout.layers() {
        // The last layer is small, as training starts from the identity.
        let last = if spec.blocks > 8 { 0.1 } else { 0.4 };
        let scale = if dense.layer < spec.hidden.len() { 1.0 } else { last };
        let scale = scale / (dense.inputs as f32).sqrt();
        for range in [dense.weight.clone(), dense.bias.clone()] {
            params[range].iter_mut().for_each(|p| *p *= scale);
        }
    }
    params
}

fn specs() -> Vec<FlowSpec> {
    let base = FlowSpec::reference_study(6);
    let seeded = Permutation::Seeded(5);
    vec![
        FlowSpec { features: 2, blocks: 1, hidden: vec![1], ..base.clone() },
        FlowSpec { features: 3, blocks: 3, hidden: vec![7], ..base.clone() },
        FlowSpec { features: 6, blocks: 8, hidden: vec![512], ..base.clone() },
        FlowSpec { features: 6, blocks: 5, hidden: vec![130], permutation: seeded, ..base.clone() },
        FlowSpec {
            features: 10,
            blocks: 4,
            hidden: vec![64],
            coupling: Coupling::Additive,
            ..base.clone()
        },
        FlowSpec { features: 17, blocks: 6, hidden: vec![33], permutation: seeded, ..base.clone() },
        FlowSpec { features: 32, blocks: 2, hidden: vec![1024], ..base.clone() },
        FlowSpec { features: 6, blocks: 16, hidden: vec![48], ..base.clone() },
        FlowSpec {
            features: 5,
            blocks: 3,
            hidden: vec![33, 40],
            permutation: seeded,
            ..base.clone()
        },
        FlowSpec { features: 2, blocks: 2, hidden: vec![7, 1, 65], ..base.clone() },
        FlowSpec {
            features: 4,
            blocks: 3,
            hidden: vec![9, 70],
            coupling: Coupling::Additive,
            ..base
        },
    ]
}

fn start(found: &DeviceInfo, spec: &FlowSpec, params: &[f32]) -> Box<dyn DeviceFlow> {
    let mut flow = open(found, spec).unwrap();
    flow.set_params(params).unwrap();
    flow
}

#[test]
fn log_prob_matches_reference() {
    for found in all_devices() {
        for (i, spec) in specs().into_iter().enumerate() {
            let params = random_params(&spec, i as u64);
            let flow = start(&found, &spec, &params);
            let exact = ReferenceFlow::<f64>::new(&spec, &params);
            let plain = ReferenceFlow::<f32>::new(&spec, &params);
            for events in [1, 65, 130] {
                let rows = random(7 + i as u64, "events", events * spec.features);
                let mut log_prob = vec![f32::from_bits(0x7fc0_dead); events];
                flow.log_prob(&rows, &mut log_prob).unwrap();
                for (row, got) in rows.chunks(spec.features).zip(&log_prob) {
                    let wide: Vec<f64> = row.iter().map(|x| f64::from(*x)).collect();
                    let expected = exact.log_prob(&wide);
                    let plain_error = (f64::from(plain.log_prob(row)) - expected).abs();
                    let size = expected.abs().max(1.0);
                    let error = (f64::from(*got) - expected).abs();
                    assert!(
                        error <= (2e-6 * size).max(3.0 * plain_error),
                        "{found:?} {spec:?}: {got} for {expected}, plain f32 {plain_error:.1e}"
                    );
                }
            }
        }
    }
}

#[test]
fn gradients_match_reference() {
    for found in all_devices() {
        for (i, spec) in specs().into_iter().enumerate() {
            let params = random_params(&spec, 20 + i as u64);
            let flow = start(&found, &spec, &params);
            let offsets = [0, 1, 1, 70, 1200];
            let count = 1200 / (1 + spec.hidden[0] * spec.blocks / 1000);
            let offsets = offsets.map(|o| o * count / 1200);
            let events = random(30 + i as u64, "events", count * spec.features);
            let weights = random(31 + i as u64, "weights", count);
            for weights in [None, Some(weights.as_slice())] {
                let batch = DeviceBatch {
                    events: Events::Rows(&events),
                    weights,
                    offsets: &offsets,
                    shards: 8,
                };
                let gradient = flow.gradient(&batch).unwrap();
                let (exact, loss) = reference_gradient(&spec, &params, &batch);
                assert_eq!(gradient.unusable, 0);
                let (mut error, mut size) = (0.0, 0.0);
                for (sum, expected) in gradient.sums.iter().zip(&exact) {
                    error += (*sum as f64 / 4_294_967_296.0 - expected).powi(2);
                    size += expected.powi(2);
                }
                let error = (error / size).sqrt();
                assert!(error < 1e-5, "{found:?} {spec:?}: relative error {error:.1e}");
                for (got, expected) in gradient.loss.iter().zip(&loss) {
                    let error = (got - expected).abs() / expected.abs().max(1.0);
                    assert!(error < 1e-5, "{found:?} {spec:?}: loss {got} for {expected}");
                }
            }
        }
    }
}

/// Computes Σ weight · ∂(−log p)/∂params of a batch, and the loss of each shard, in f64.
fn reference_gradient(
    spec: &FlowSpec,
    params: &[f32],
    batch: &DeviceBatch,
) -> (Vec<f64>, Vec<f64>) {
    let exact = ReferenceFlow::<f64>::new(spec, params);
    let mut gradient = vec![0.0; params.len()];
    let mut losses = Vec::new();
    for range in batch.offsets.windows(2) {
        let mut loss = 0.0;
        for i in range[0]..range[1] {
            let Events::Rows(rows) = batch.events else { panic!("rows") };
            let row = &rows[i * spec.features..][..spec.features];
            let row: Vec<f64> = row.iter().map(|x| f64::from(*x)).collect();
            let weight = batch.weights.map_or(1.0, |w| f64::from(w[i]));
            loss -= weight * exact.add_gradient(&row, weight, &mut gradient);
        }
        losses.push(loss);
    }
    (gradient, losses)
}

#[test]
fn inverse_returns_the_event() {
    for found in all_devices() {
        for (i, spec) in specs().into_iter().enumerate() {
            let params = random_params(&spec, 40 + i as u64);
            let flow = start(&found, &spec, &params);
            let exact = ReferenceFlow::<f64>::new(&spec, &params);
            let rows = random(41 + i as u64, "events", 67 * spec.features);
            let mut latent = Vec::new();
            for row in rows.chunks(spec.features) {
                let row: Vec<f64> = row.iter().map(|x| f64::from(*x)).collect();
                latent.extend(exact.forward(&row).0.into_iter().map(|z| z as f32));
            }
            let mut back = vec![f32::NAN; rows.len()];
            flow.inverse(&latent, &mut back).unwrap();
            for (x, y) in rows.iter().zip(&back) {
                assert!((x - y).abs() <= 1e-4, "{found:?} {spec:?}: {y} for {x}");
            }
        }
    }
}

#[test]
fn bits_are_equal_on_any_run_and_devices() {
    let spec = FlowSpec { hidden: vec![37], blocks: 4, ..FlowSpec::reference_study(5) };
    let params = random_params(&spec, 3);
    let events = random(4, "events", 5000 * 5);
    let offsets = [0, 1030, 1031, 3500, 5000];
    for found in all_devices() {
        let flow = start(&found, &spec, &params);
        let of = |first: usize, last: usize| {
            let (start, end) = (offsets[first], offsets[last]);
            let local: Vec<usize> = offsets[first..=last].iter().map(|o| o - start).collect();
            let batch = DeviceBatch {
                events: Events::Rows(&events[start * 5..end * 5]),
                weights: None,
                offsets: &local,
                shards: 4,
            };
            flow.gradient(&batch).unwrap()
        };
        let whole = of(0, 4);
        for _ in 0..2 {
            assert_eq!(of(0, 4), whole);
        }
        for cut in [1, 2, 3] {
            let (mut a, b) = (of(0, cut), of(cut, 4));
            a.sums.iter_mut().zip(&b.sums).for_each(|(x, y)| *x += y);
            assert_eq!(a.sums, whole.sums, "{found:?}");
            assert_eq!([a.loss, b.loss].concat(), whole.loss);
        }
    }
}

#[test]
fn non_finite_event_affects_only_itself() {
    let spec = FlowSpec { hidden: vec![24], blocks: 4, ..FlowSpec::reference_study(6) };
    let params = random_params(&spec, 8);
    for found in all_devices() {
        let flow = start(&found, &spec, &params);
        let clean = random(9, "events", 200 * 6);
        let mut events = clean.clone();
        for (row, bad) in [(0, f32::NAN), (64, f32::INFINITY), (199, f32::NEG_INFINITY)] {
            events[row * 6 + row % 6] = bad;
        }
        let (mut expected, mut got) = (vec![1.0; 200], vec![1.0; 200]);
        flow.log_prob(&clean, &mut expected).unwrap();
        flow.log_prob(&events, &mut got).unwrap();
        for row in 0..200 {
            if [0, 64, 199].contains(&row) {
                assert!(!got[row].is_finite(), "{found:?} row {row}: {}", got[row]);
            } else {
                assert_eq!(got[row].to_bits(), expected[row].to_bits(), "{found:?} row {row}");
            }
        }
        let batch = DeviceBatch {
            events: Events::Rows(&events),
            weights: None,
            offsets: &[0, 100, 200],
            shards: 2,
        };
        assert_eq!(flow.gradient(&batch).unwrap().unusable, 2);
        let batch = DeviceBatch {
            events: Events::Rows(&clean),
            weights: None,
            offsets: &[0, 100, 200],
            shards: 2,
        };
        assert_eq!(flow.gradient(&batch).unwrap().unusable, 0);
    }
}

#[test]
fn arguments_of_wrong_length_are_refused() {
    let spec = FlowSpec { hidden: vec![8], blocks: 2, ..FlowSpec::reference_study(4) };
    for found in all_devices() {
        let mut flow = open(&found, &spec).unwrap();
        assert!(flow.set_params(&[0.0; 3]).is_err());
        assert!(flow.log_prob(&[0.0; 9], &mut [0.0; 2]).is_err());
        assert!(flow.inverse(&[0.0; 8], &mut [0.0; 4]).is_err());
    }
}

/// Adam as published, in f64, with clipping and the running mean.
struct Paper {
    values: [Vec<f64>; 4], // params, mean, first and second moment
}

impl Paper {
    fn update(&mut self, gradient: &[f64], adam: &Adam) -> f64 {
        let mean = |g: &f64| g / adam.divisor;
        let norm = gradient.iter().map(mean).map(|g| g * g).sum::<f64>().sqrt();
        let clip = (adam.clip_norm / norm).min(1.0);
        let (b1, b2) = (f64::from(adam.beta1), f64::from(adam.beta2));
        let [params, ema, first, second] = &mut self.values;
        for (i, g) in gradient.iter().enumerate() {
            let g = mean(g) * clip;
            first[i] = b1 * first[i] + (1.0 - b1) * g;
            second[i] = b2 * second[i] + (1.0 - b2) * g * g;
            let root = second[i].sqrt() + f64::from(adam.epsilon);
            params[i] -= f64::from(adam.step) * first[i] / root;
            ema[i] += f64::from(adam.keep) * (params[i] - ema[i]);
        }
        norm
    }
}

#[test]
fn steps_on_device_match_adam() {
    for (s, hidden) in [vec![21], vec![9, 14]].into_iter().enumerate() {
        let spec = FlowSpec { hidden, blocks: 3, ..FlowSpec::reference_study(5) };
        let params = random_params(&spec, 50 + s as u64);
        let table = random(51, "events", 3000 * 5);
        for found in all_devices() {
            let mut flow = open(&found, &spec).unwrap();
            let mut weights = Weights::new(params.clone());
            flow.upload_events(3000, &mut table.chunks(35)).unwrap();
            assert!(flow.capacity() >= 3000);
            flow.begin(&weights).unwrap();
            let wide = |v: &[f32]| v.iter().map(|x| f64::from(*x)).collect::<Vec<_>>();
            let mut paper = Paper {
                values: [
                    &weights.params,
                    &weights.ema,
                    &weights.first_moment,
                    &weights.second_moment,
                ]
                .map(|v| wide(v)),
            };
            for (k, clip_norm) in [0.1, 100.0, 100.0].into_iter().enumerate() {
                let numbers: Vec<u32> =
                    (0..1500).map(|i| (i * 7 + k as u32 * 311) % 3000).collect();
                let flips: Vec<u32> = (0..1500).map(|i| i % 3).collect();
                let mut rows = Vec::new();
                for (number, flip) in numbers.iter().zip(&flips) {
                    let row = &table[*number as usize * 5..][..5];
                    rows.extend(
                        row.iter().enumerate().map(
                            |(d, x)| {
                                if flip >> d & 1 == 1 { -x } else { *x }
                            },
                        ),
                    );
                }
                let adam = Adam {
                    divisor: 1500.0,
                    clip_norm,
                    beta1: 0.9,
                    beta2: 0.999,
                    step: 1e-3,
                    epsilon: 1e-8,
                    keep: 0.5,
                };
                let offsets = [0, 700, 1500];
                let held = Events::Held { numbers: &numbers, flips: Some(&flips) };
                let batch =
                    DeviceBatch { events: held, weights: None, offsets: &offsets, shards: 2 };
                let rows = DeviceBatch { events: Events::Rows(&rows), ..batch };
                let now: Vec<f32> = paper.values[0].iter().map(|p| *p as f32).collect();
                let (gradient, loss) = reference_gradient(&spec, &now, &rows);
                // The same sums from another function, as if from several devices.
                let sums = flow.gradient(&rows).unwrap();
                assert_eq!(flow.gradient(&batch).unwrap(), sums);
                if k == 1 {
                    flow.update(Some(&sums.sums), &adam).unwrap();
                } else {
                    flow.add_gradient(&batch).unwrap();
                    let step = flow.collect().unwrap();
                    assert_eq!((step.unusable, &step.loss), (0, &sums.loss));
                    let mut of_step = vec![7; sums.sums.len()];
                    flow.sums(&mut of_step).unwrap();
                    assert_eq!(of_step, sums.sums);
                    flow.update(None, &adam).unwrap();
                }
                let norm = flow.gradient_norm().unwrap().unwrap();
                let expected = paper.update(&gradient, &adam);
                assert!((norm / expected - 1.0).abs() < 1e-4, "{norm} for {expected}");
                assert!((sums.loss[0] / loss[0] - 1.0).abs() < 1e-4);
            }
            flow.weights(&mut weights).unwrap();
            let got =
                [&weights.params, &weights.ema, &weights.first_moment, &weights.second_moment];
            for (which, (got, expected)) in got.into_iter().zip(&paper.values).enumerate() {
                let error: f64 =
                    got.iter().zip(expected).map(|(x, y)| (f64::from(*x) - y).powi(2)).sum();
                let size: f64 = expected.iter().map(|y| y * y).sum();
                assert!((error / size).sqrt() < 1e-4, "{found:?}: tensor {which}");
            }
        }
    }
}

#[test]
fn unusable_gradient_changes_no_weight() {
    let spec = FlowSpec { hidden: vec![9], blocks: 2, ..FlowSpec::reference_study(4) };
    let params = random_params(&spec, 60);
    for found in all_devices() {
        let mut flow = open(&found, &spec).unwrap();
        let mut weights = Weights {
            params: params.clone(),
            ema: params.clone(),
            first_moment: vec![0.5; params.len()],
            second_moment: vec![0.25; params.len()],
        };
        let before = weights.clone();
        flow.upload_events(1, &mut [[1.0, f32::NAN, 0.0, 2.0].as_slice()].into_iter()).unwrap();
        let gone = flow.upload_events(2, &mut [[1.0; 4].as_slice()].into_iter());
        assert!(gone.is_err());
        flow.upload_events(1, &mut [[1.0, f32::NAN, 0.0, 2.0].as_slice()].into_iter()).unwrap();
        flow.begin(&weights).unwrap();
        let events = Events::Held { numbers: &[0], flips: None };
        let batch = DeviceBatch { events, weights: None, offsets: &[0, 1], shards: 1 };
        let adam = Adam {
            divisor: 1.0,
            clip_norm: 1.0,
            beta1: 0.9,
            beta2: 0.9,
            step: 0.1,
            epsilon: 1e-8,
            keep: 1.0,
        };
        flow.add_gradient(&batch).unwrap();
        assert_eq!(flow.collect().unwrap().unusable, 1);
        flow.update(None, &adam).unwrap();
        flow.weights(&mut weights).unwrap();
        assert_eq!(weights, before);
        let beyond = DeviceBatch { events: Events::Held { numbers: &[1], flips: None }, ..batch };
        assert!(flow.add_gradient(&beyond).is_err());
    }
}

#[test]
fn step_sums_its_batches_and_next_starts_at_zero() {
    let spec = FlowSpec { hidden: vec![13], blocks: 2, ..FlowSpec::reference_study(3) };
    let params = random_params(&spec, 70);
    for found in all_devices() {
        let mut flow = open(&found, &spec).unwrap();
        flow.begin(&Weights::new(params.clone())).unwrap();
        let mut sums = vec![7; params.len()];
        // The second batch is larger than the first: earlier sums must not be lost.
        for sizes in [[40, 2500], [0, 900], [300, 0], [0, 0]] {
            let (mut expected, mut loss) = (vec![0_i64; params.len()], 0.0);
            for (seed, n) in sizes.into_iter().enumerate() {
                let rows = random(71 + seed as u64, "events", n * 3);
                let weights = random(72 + seed as u64, "weights", n);
                let batch = DeviceBatch {
                    events: Events::Rows(&rows),
                    weights: Some(&weights),
                    offsets: &[0, n],
                    shards: 2,
                };
                flow.add_gradient(&batch).unwrap();
                let alone = flow.gradient(&batch).unwrap();
                expected.iter_mut().zip(&alone.sums).for_each(|(e, s)| *e += s);
                loss += alone.loss[0];
            }
            let step = flow.collect().unwrap();
            assert_eq!(step.unusable, 0);
            assert!((step.loss[0] - loss).abs() <= 1e-9 * loss.abs());
            flow.sums(&mut sums).unwrap();
            assert_eq!(sums, expected, "{sizes:?}");
        }
    }
}
