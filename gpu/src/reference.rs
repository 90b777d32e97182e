//! The flow in f64, event by event: the definition that every engine is tested
//! against. Written to be read, not to be fast.
//!
//! For each block, with x_a the conditioning and x_b the transformed features:
//! s = a·tanh(σ(x_a)/a), y_a = x_a, y_b = x_b·exp(s) + μ(x_a), and
//! log p(x) = Σ_blocks Σ s + log N(z; 0, 1) with z the last block's output
//! (Dinh et al. 2017; the clamp after Ardizzone et al. 2019).

use crate::layout::{Dense, Layout};
use crate::spec::{FlowSpec, Network, Split};

/// ln √(2π)
pub const LN_SQRT_2PI: f64 = 0.918_938_533_204_672_8;

/// A flow with parameters in f64.
#[derive(Debug, Clone)]
pub struct Reference {
    pub spec: FlowSpec,
    pub layout: Layout,
    pub params: Vec<f64>, // (parameters)
}

/// What the backward pass needs of a block's forward pass.
struct BlockTrace {
    split: Split,
    input: Vec<f64>,            // (features)
    hidden: Vec<Vec<Vec<f64>>>, // per network, per layer: activations, the input first
    scale: Vec<f64>,            // (transformed) s
}

impl Reference {
    #[must_use]
    pub fn new(spec: &FlowSpec, params: &[f32]) -> Reference {
        Reference {
            spec: spec.clone(),
            layout: Layout::new(spec),
            params: params.iter().map(|p| f64::from(*p)).collect(),
        }
    }

    /// Log-likelihood of one scaled event x (features).
    #[must_use]
    pub fn log_prob(&self, x: &[f64]) -> f64 {
        let (z, log_det) = self.forward(x);
        log_det + z.iter().map(|v| -0.5 * v * v - LN_SQRT_2PI).sum::<f64>()
    }

    /// Latent z and log|det ∂z/∂x|.
    #[must_use]
    pub fn forward(&self, x: &[f64]) -> (Vec<f64>, f64) {
        let mut x = x.to_vec();
        let mut log_det = 0.0;
        for block in 0..self.spec.blocks {
            let trace = self.block_forward(block, &mut x);
            log_det += trace.scale.iter().sum::<f64>();
        }
        (x, log_det)
    }

    /// The event x that z comes from, and log|det ∂x/∂z|.
    #[must_use]
    pub fn inverse(&self, z: &[f64]) -> (Vec<f64>, f64) {
        let mut x = z.to_vec();
        let mut log_det = 0.0;
        for block in (0..self.spec.blocks).rev() {
            let split = self.spec.split(block);
            let (s, shift, _) = self.networks(block, &split, &x);
            for (k, &i) in split.transformed.iter().enumerate() {
                x[i] = (x[i] - shift[k]) * libm::exp(-s[k]);
                log_det -= s[k];
            }
        }
        (x, log_det)
    }

    /// Log-likelihood of x; adds weight · ∂(−log p)/∂params to `gradient`.
    pub fn add_gradient(&self, x: &[f64], weight: f64, gradient: &mut [f64]) -> f64 {
        let mut z = x.to_vec();
        let traces: Vec<BlockTrace> =
            (0..self.spec.blocks).map(|block| self.block_forward(block, &mut z)).collect();
        let log_det: f64 = traces.iter().flat_map(|t| &t.scale).sum();
        let log_prob = log_det + z.iter().map(|v| -0.5 * v * v - LN_SQRT_2PI).sum::<f64>();
        // ∂(−log p)/∂z = z
        let mut g: Vec<f64> = z.iter().map(|v| weight * v).collect();
        for (block, trace) in traces.iter().enumerate().rev() {
            self.block_backward(block, trace, weight, &mut g, gradient);
        }
        log_prob
    }

    fn block_forward(&self, block: usize, x: &mut [f64]) -> BlockTrace {
        let split = self.spec.split(block);
        let input = x.to_vec();
        let (scale, shift, hidden) = self.networks(block, &split, x);
        for (k, &i) in split.transformed.iter().enumerate() {
            x[i] = x[i] * libm::exp(scale[k]) + shift[k];
        }
        BlockTrace { split, input, hidden, scale }
    }

    /// Clamped log-scale, shift, and the activations of both networks.
    #[allow(clippy::type_complexity)]
    fn networks(
        &self,
        block: usize,
        split: &Split,
        x: &[f64],
    ) -> (Vec<f64>, Vec<f64>, Vec<Vec<Vec<f64>>>) {
        let clamp = f64::from(self.spec.scale_clamp);
        let conditioner: Vec<f64> = split.conditioner.iter().map(|&i| x[i]).collect();
        let mut scale = vec![0.0; split.transformed.len()];
        let mut shift = scale.clone();
        let mut hidden = Vec::new();
        for (n, network) in self.spec.networks().iter().enumerate() {
            let mut activations = vec![conditioner.clone()];
            let layers = self.layout.network(block, n);
            for (l, dense) in layers.iter().enumerate() {
                let mut y = self.dense(dense, &activations[l]);
                if l + 1 < layers.len() {
                    y.iter_mut().for_each(|v| *v = if *v > 0.0 { *v } else { 0.0 });
                }
                activations.push(y);
            }
            let output = activations.pop().unwrap_or_default();
            match network {
                Network::Scale => {
                    scale = output.iter().map(|v| clamp * libm::tanh(v / clamp)).collect()
                }
                Network::Shift => shift = output,
            }
            hidden.push(activations);
        }
        (scale, shift, hidden)
    }

    fn block_backward(
        &self,
        block: usize,
        trace: &BlockTrace,
        weight: f64,
        g: &mut [f64],
        gradient: &mut [f64],
    ) {
        let clamp = f64::from(self.spec.scale_clamp);
        let (mut g_scale, mut g_shift) = (Vec::new(), Vec::new());
        for (k, &i) in trace.split.transformed.iter().enumerate() {
            let s = trace.scale[k];
            // ∂L/∂s = g_y · x · e^s − weight (the log-determinant's part); through the
            // clamp ∂s/∂σ = 1 − (s/a)²
            let g_s = g[i] * trace.input[i] * libm::exp(s) - weight;
            g_scale.push(g_s * (1.0 - (s / clamp) * (s / clamp)));
            g_shift.push(g[i]);
            g[i] *= libm::exp(s);
        }
        for (n, network) in self.spec.networks().iter().enumerate() {
            let mut upstream = match network {
                Network::Scale => g_scale.clone(),
                Network::Shift => g_shift.clone(),
            };
            for (l, dense) in self.layout.network(block, n).iter().enumerate().rev() {
                let input = &trace.hidden[n][l];
                upstream = self.dense_backward(dense, input, &upstream, gradient);
                if l > 0 {
                    upstream.iter_mut().zip(input).for_each(|(u, h)| {
                        if *h <= 0.0 {
                            *u = 0.0
                        }
                    });
                }
            }
            for (k, &i) in trace.split.conditioner.iter().enumerate() {
                g[i] += upstream[k];
            }
        }
    }

    fn dense(&self, d: &Dense, x: &[f64]) -> Vec<f64> {
        (0..d.outputs)
            .map(|o| {
                let row = &self.params[d.weight.start + o * d.inputs..][..d.inputs];
                self.params[d.bias.start + o] + row.iter().zip(x).map(|(w, v)| w * v).sum::<f64>()
            })
            .collect()
    }

    fn dense_backward(
        &self,
        d: &Dense,
        x: &[f64],
        upstream: &[f64],
        gradient: &mut [f64],
    ) -> Vec<f64> {
        let mut g_x = vec![0.0; d.inputs];
        for (o, u) in upstream.iter().enumerate() {
            gradient[d.bias.start + o] += u;
            for i in 0..d.inputs {
                gradient[d.weight.start + o * d.inputs + i] += u * x[i];
                g_x[i] += u * self.params[d.weight.start + o * d.inputs + i];
            }
        }
        g_x
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Stream;
    use crate::spec::{Coupling, Permutation};

    fn random_flow(spec: &FlowSpec, seed: u64, spread: f64) -> Reference {
        let stream = Stream::new(seed, "test weights", &[]);
        let count = Layout::new(spec).len();
        let params: Vec<f32> =
            (0..count as u64).map(|i| (spread * stream.normal(i)) as f32).collect();
        Reference::new(spec, &params)
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
    fn inverse_of_forward_returns_the_event_and_the_negative_log_determinant() {
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
    fn the_log_determinant_is_that_of_the_jacobian_by_finite_differences() {
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
            assert!(
                (log_det - flow.forward(&x).1).abs() < 1e-6,
                "{log_det} {}",
                flow.forward(&x).1
            );
        }
    }

    #[test]
    fn every_parameters_gradient_is_that_of_finite_differences() {
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
}
