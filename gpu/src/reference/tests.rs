use super::*;
use crate::random::Stream;
use crate::spec::{Coupling, Permutation};

fn random_flow(spec: &FlowSpec, seed: u64, spread: f64) -> ReferenceFlow {
    let stream = Stream::new(seed, "test weights", &[]);
    let count = Layout::new(spec).len();
    let params: Vec<f32> = (0..count as u64).map(|i| (spread * stream.normal(i)) as f32).collect();
    ReferenceFlow::new(spec, &params)
}

fn specs() -> Vec<FlowSpec> {
    let base = FlowSpec { blocks: 3, hidden: vec![9], ..FlowSpec::reference_study(6) };
    vec![
        base.clone(),
        FlowSpec { features: 2, ..base.clone() },
        FlowSpec {
            features: 5,
            hidden: vec![7, 4],
            permutation: Permutation::Seeded(3),
            ..base.clone()
        },
        FlowSpec { features: 3, coupling: Coupling::Additive, ..base },
    ]
}

fn event(spec: &FlowSpec, seed: u64) -> Vec<f64> {
    (0..spec.features as u64).map(|i| Stream::new(seed, "test event", &[]).normal(i)).collect()
}

#[test]
fn inverse_of_forward_returns_event_and_log_det() {
    for (seed, spec) in specs().iter().enumerate() {
        let flow = random_flow(spec, seed as u64, 0.5);
        let x = event(spec, 40 + seed as u64);
        let (z, log_det) = flow.forward(&x);
        let (back, inverse_log_det) = flow.inverse(&z);
        for (a, b) in x.iter().zip(&back) {
            assert!((a - b).abs() < 1e-10);
        }
        assert!((log_det + inverse_log_det).abs() < 1e-10);
    }
}

#[test]
fn log_det_agrees_with_finite_differences() {
    for (seed, spec) in specs().iter().enumerate() {
        let flow = random_flow(spec, 7 + seed as u64, 0.4);
        let x = event(spec, 60 + seed as u64);
        let d = spec.features;
        let mut jacobian = vec![vec![0.0; d]; d];
        for j in 0..d {
            let h = 1e-6;
            let (mut up, mut down) = (x.clone(), x.clone());
            up[j] += h;
            down[j] -= h;
            let (zu, zd) = (flow.forward(&up).0, flow.forward(&down).0);
            for i in 0..d {
                jacobian[i][j] = (zu[i] - zd[i]) / (2.0 * h);
            }
        }
        let log_det = log_abs_det(jacobian);
        assert!((log_det - flow.forward(&x).1).abs() < 1e-6, "{log_det} {}", flow.forward(&x).1);
    }
}

#[test]
fn gradients_agree_with_finite_differences() {
    for (seed, spec) in specs().iter().enumerate() {
        let mut flow = random_flow(spec, 17 + seed as u64, 0.4);
        let x = event(spec, 80 + seed as u64);
        let mut gradient = vec![0.0; flow.params.len()];
        flow.add_gradient(&x, 1.5, &mut gradient);
        for i in 0..flow.params.len() {
            let (h, p) = (1e-6, flow.params[i]);
            flow.params[i] = p + h;
            let up = -1.5 * flow.log_prob(&x);
            flow.params[i] = p - h;
            let down = -1.5 * flow.log_prob(&x);
            flow.params[i] = p;
            let difference = (up - down) / (2.0 * h);
            let tolerance = 1e-6 * (1.0 + difference.abs());
            assert!(
                (gradient[i] - difference).abs() < tolerance,
                "{spec:?} {i}: {} {difference}",
                gradient[i]
            );
        }
    }
}

fn log_abs_det(mut m: Vec<Vec<f64>>) -> f64 {
    let n = m.len();
    let mut log_det = 0.0;
    for c in 0..n {
        let p = (c..n).max_by(|a, b| m[*a][c].abs().total_cmp(&m[*b][c].abs())).unwrap();
        m.swap(c, p);
        log_det += m[c][c].abs().ln();
        for r in c + 1..n {
            let f = m[r][c] / m[c][c];
            for k in c..n {
                m[r][k] -= f * m[c][k];
            }
        }
    }
    log_det
}
