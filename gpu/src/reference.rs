//! Reference implementation of the flow, one event at a time.
//!
//! In f64 it is the definition that every engine is tested against. In f32 it is the plain loop
//! whose rounding error sets the accuracy tolerances, because strongly curved networks amplify any
//! rounding.
//!
//! For each block, with x_a the conditioning and x_b the transformed features:
//! s = a·tanh(σ(x_a)/a), y_a = x_a, y_b = x_b·exp(s) + μ(x_a), and
//! log p(x) = Σ_blocks Σ s + log N(z; 0, 1) with z the last block's output
//! (Dinh et al. 2017; the clamp after Ardizzone et al. 2019).

use crate::layout::{Dense, Layout};
use crate::spec::{FlowSpec, Network, Split};
use std::iter::Sum;
use std::ops::{Add, AddAssign, Div, Mul, MulAssign, Neg, Sub, SubAssign};

/// ln √(2π)
pub const LN_SQRT_2PI: f64 = 0.918_938_533_204_672_8;

/// Floating-point type of a reference flow: f64 as the definition, f32 to measure rounding.
pub trait Real:
    Copy
    + PartialOrd
    + From<f32>
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
    + AddAssign
    + SubAssign
    + MulAssign
    + Sum
{
    const LN_SQRT_2PI: Self;
    fn exp(self) -> Self;
    fn tanh(self) -> Self;
}

impl Real for f64 {
    const LN_SQRT_2PI: f64 = LN_SQRT_2PI;
    fn exp(self) -> f64 {
        libm::exp(self)
    }
    fn tanh(self) -> f64 {
        libm::tanh(self)
    }
}

impl Real for f32 {
    const LN_SQRT_2PI: f32 = LN_SQRT_2PI as f32;
    fn exp(self) -> f32 {
        libm::expf(self)
    }
    fn tanh(self) -> f32 {
        libm::tanhf(self)
    }
}

/// A flow with parameters of type `T`.
#[derive(Debug, Clone)]
pub struct ReferenceFlow<T = f64> {
    pub spec: FlowSpec,
    pub layout: Layout,
    pub params: Vec<T>, // (parameters)
}

/// Intermediate values of a block's forward pass that its backward pass reads.
struct BlockTrace<T> {
    split: Split,
    input: Vec<T>,            // (features)
    hidden: Vec<Vec<Vec<T>>>, // per network, per layer: activations, the input first
    scale: Vec<T>,            // (transformed) s
}

impl<T: Real> ReferenceFlow<T> {
    /// Creates a flow from parameters in the order of [`Layout`].
    #[must_use]
    pub fn new(spec: &FlowSpec, params: &[f32]) -> ReferenceFlow<T> {
        ReferenceFlow {
            spec: spec.clone(),
            layout: Layout::new(spec),
            params: params.iter().map(|p| T::from(*p)).collect(),
        }
    }

    /// Returns the log-likelihood of one scaled event x (features).
    #[must_use]
    pub fn log_prob(&self, x: &[T]) -> T {
        let (z, log_det) = self.forward(x);
        log_det + log_normal(&z)
    }

    /// Returns the latent z (features) and log|det ∂z/∂x|.
    #[must_use]
    pub fn forward(&self, x: &[T]) -> (Vec<T>, T) {
        let mut x = x.to_vec();
        let mut log_det = T::from(0.0);
        for block in 0..self.spec.blocks {
            let trace = self.block_forward(block, &mut x);
            log_det += trace.scale.iter().copied().sum::<T>();
        }
        (x, log_det)
    }

    /// Returns the event x (features) of the latent z, and log|det ∂x/∂z|.
    #[must_use]
    pub fn inverse(&self, z: &[T]) -> (Vec<T>, T) {
        let mut x = z.to_vec();
        let mut log_det = T::from(0.0);
        for block in (0..self.spec.blocks).rev() {
            let split = self.spec.split(block);
            let (s, shift, _) = self.networks(block, &split, &x);
            for (k, &i) in split.transformed.iter().enumerate() {
                x[i] = (x[i] - shift[k]) * (-s[k]).exp();
                log_det -= s[k];
            }
        }
        (x, log_det)
    }

    /// Returns the log-likelihood of x and adds weight · ∂(−log p)/∂params to `gradient`.
    pub fn add_gradient(&self, x: &[T], weight: T, gradient: &mut [T]) -> T {
        let mut z = x.to_vec();
        let traces: Vec<BlockTrace<T>> =
            (0..self.spec.blocks).map(|block| self.block_forward(block, &mut z)).collect();
        let log_det: T = traces.iter().flat_map(|t| t.scale.iter().copied()).sum();
        let log_prob = log_det + log_normal(&z);
        // ∂(−log p)/∂z = z
        let mut g: Vec<T> = z.iter().map(|v| weight * *v).collect();
        for (block, trace) in traces.iter().enumerate().rev() {
            self.block_backward(block, trace, weight, &mut g, gradient);
        }
        log_prob
    }

    fn block_forward(&self, block: usize, x: &mut [T]) -> BlockTrace<T> {
        let split = self.spec.split(block);
        let input = x.to_vec();
        let (scale, shift, hidden) = self.networks(block, &split, x);
        for (k, &i) in split.transformed.iter().enumerate() {
            x[i] = x[i] * scale[k].exp() + shift[k];
        }
        BlockTrace { split, input, hidden, scale }
    }

    /// Returns the clamped log-scale, the shift, and the activations of both networks.
    #[allow(clippy::type_complexity)]
    fn networks(&self, block: usize, split: &Split, x: &[T]) -> (Vec<T>, Vec<T>, Vec<Vec<Vec<T>>>) {
        let clamp = T::from(self.spec.scale_clamp);
        let conditioner: Vec<T> = split.conditioner.iter().map(|&i| x[i]).collect();
        let mut scale = vec![T::from(0.0); split.transformed.len()];
        let mut shift = scale.clone();
        let mut hidden = Vec::new();
        for (n, network) in self.spec.networks().iter().enumerate() {
            let (mut activations, mut output) = (Vec::new(), conditioner.clone());
            let layers = self.layout.network(block, n);
            for (l, dense) in layers.iter().enumerate() {
                let mut y = self.dense(dense, &output);
                if l + 1 < layers.len() {
                    y.iter_mut()
                        .for_each(|v| *v = if *v > T::from(0.0) { *v } else { T::from(0.0) });
                }
                activations.push(std::mem::replace(&mut output, y));
            }
            match network {
                Network::Scale => {
                    scale = output.iter().map(|v| clamp * (*v / clamp).tanh()).collect();
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
        trace: &BlockTrace<T>,
        weight: T,
        g: &mut [T],
        gradient: &mut [T],
    ) {
        let clamp = T::from(self.spec.scale_clamp);
        let (mut g_scale, mut g_shift) = (Vec::new(), Vec::new());
        for (k, &i) in trace.split.transformed.iter().enumerate() {
            let s = trace.scale[k];
            // ∂L/∂s = g_y · x · e^s − weight (from the log-determinant); through the clamp
            // ∂s/∂σ = 1 − (s/a)²
            let g_s = g[i] * trace.input[i] * s.exp() - weight;
            g_scale.push(g_s * (T::from(1.0) - (s / clamp) * (s / clamp)));
            g_shift.push(g[i]);
            g[i] *= s.exp();
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
                        if *h <= T::from(0.0) {
                            *u = T::from(0.0);
                        }
                    });
                }
            }
            for (k, &i) in trace.split.conditioner.iter().enumerate() {
                g[i] += upstream[k];
            }
        }
    }

    fn dense(&self, d: &Dense, x: &[T]) -> Vec<T> {
        (0..d.outputs)
            .map(|o| {
                let row = &self.params[d.weight.start + o * d.inputs..][..d.inputs];
                self.params[d.bias.start + o] + row.iter().zip(x).map(|(w, v)| *w * *v).sum::<T>()
            })
            .collect()
    }

    fn dense_backward(&self, d: &Dense, x: &[T], upstream: &[T], gradient: &mut [T]) -> Vec<T> {
        let mut g_x = vec![T::from(0.0); d.inputs];
        for (o, u) in upstream.iter().enumerate() {
            gradient[d.bias.start + o] += *u;
            for i in 0..d.inputs {
                gradient[d.weight.start + o * d.inputs + i] += *u * x[i];
                g_x[i] += *u * self.params[d.weight.start + o * d.inputs + i];
            }
        }
        g_x
    }
}

/// Returns log N(z; 0, 1).
fn log_normal<T: Real>(z: &[T]) -> T {
    z.iter().map(|v| T::from(-0.5) * *v * *v - T::LN_SQRT_2PI).sum()
}

#[cfg(test)]
mod tests;
