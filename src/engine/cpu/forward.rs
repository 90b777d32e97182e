//! Likelihood and inverse of one tile of events: all blocks at once, without storing the hidden
//! layer.
//!
//! A tile has its events in lanes, feature by feature: `x[d * vectors + v]` is feature d of events
//! 16 v … 16 v + 15. K vectors are evaluated together to hide the latency of the multiply-adds.
//! Lanes do not mix, so K does not change a bit.

use super::weights::{Packed, PackedBlock, PackedNetwork};
use crate::engine::simd::lanes::{self, LANES, Lanes, ZERO};
use crate::engine::simd::vector::Vector;
use crate::engine::simd::vectorised;
use taiga_flow_gpu::reference::LN_SQRT_2PI;

/// Vectors that are evaluated together.
pub(crate) const TOGETHER: usize = 4;

/// Features of a tile in lanes, padded with zero events.
#[derive(Debug, Clone, Default)]
pub(crate) struct LaneTile {
    pub x: Vec<Lanes>, // (features, vectors)
    pub vectors: usize,
    pub events: usize,
}

impl LaneTile {
    /// Loads row-major events (events, features).
    pub(crate) fn load(&mut self, features: usize, rows: &[f32]) {
        self.events = rows.len() / features;
        self.vectors = self.events.div_ceil(LANES);
        self.x.clear();
        self.x.resize(features * self.vectors, ZERO);
        for (e, row) in rows.chunks_exact(features).enumerate() {
            for (d, value) in row.iter().enumerate() {
                self.x[d * self.vectors + e / LANES][e % LANES] = *value;
            }
        }
    }

    /// Copies one vector of numbers per event, without padding, into the numbers of all events.
    #[inline(always)]
    pub(crate) fn store_vector(&self, vector: usize, values: &Lanes, all: &mut [f32]) {
        let start = vector * LANES;
        let end = self.events.min(start + LANES);
        all[start..end].copy_from_slice(&values.0[..end - start]);
    }

    /// Computes Σ x² of each event, in f64, into `squares` (events).
    pub(crate) fn squares(&self, features: usize, squares: &mut [f32]) {
        for (e, square) in squares.iter_mut().enumerate() {
            let x = |d: usize| f64::from(self.x[d * self.vectors + e / LANES][e % LANES]);
            *square = (0..features).map(|d| x(d) * x(d)).sum::<f64>() as f32;
        }
    }

    /// Writes the events, row-major.
    pub(crate) fn store(&self, features: usize, rows: &mut [f32]) {
        for (e, row) in rows.chunks_exact_mut(features).enumerate() {
            for (d, value) in row.iter_mut().enumerate() {
                *value = self.x[d * self.vectors + e / LANES][e % LANES];
            }
        }
    }
}

/// Clamped log-scale and shift of a block for K vectors.
pub(crate) struct CouplingLanes<const P: usize, const K: usize> {
    pub scale: [[Lanes; K]; P],
    pub shift: [[Lanes; K]; P],
}

vectorised!(pub fn log_prob<P>(flow: &Packed<P>, tile: &mut LaneTile, out: &mut [f32]) = log_prob_body);
vectorised!(pub fn inverse<P>(flow: &Packed<P>, tile: &mut LaneTile) = inverse_body);

#[inline(always)]
fn log_prob_body<V: Vector, const P: usize>(
    flow: &Packed<P>,
    tile: &mut LaneTile,
    out: &mut [f32],
) {
    let mut first = 0;
    while first + TOGETHER <= tile.vectors {
        log_prob_vectors::<V, P, TOGETHER>(flow, tile, first, out);
        first += TOGETHER;
    }
    while first < tile.vectors {
        log_prob_vectors::<V, P, 1>(flow, tile, first, out);
        first += 1;
    }
}

#[inline(always)]
fn log_prob_vectors<V: Vector, const P: usize, const K: usize>(
    flow: &Packed<P>,
    tile: &mut LaneTile,
    first: usize,
    out: &mut [f32],
) {
    let mut log_det = [V::splat(0.0); K];
    for block in &flow.blocks {
        let coupling = couple::<V, P, K>(block, flow.scale_clamp, tile, first);
        for (c, &d) in block.split.transformed.iter().enumerate() {
            for k in 0..K {
                let x = &mut tile.x[d * tile.vectors + first + k];
                affine::<V>(x, &coupling.scale[c][k], &coupling.shift[c][k]);
                log_det[k] = V::add(log_det[k], V::load(&coupling.scale[c][k]));
            }
        }
    }
    for k in 0..K {
        let log_prob = standard_normal(flow.features, tile, first + k, log_det[k]);
        tile.store_vector(first + k, &log_prob, out);
    }
}

/// Computes x ← x · exp(s) + μ.
#[inline(always)]
pub(crate) fn affine<V: Vector>(x: &mut Lanes, scale: &Lanes, shift: &Lanes) {
    let mut factor = *scale;
    lanes::exp(&mut factor);
    V::fma(V::load(x), V::load(&factor), V::load(shift)).store(x);
}

/// Computes x ← (x − μ) · exp(−s).
#[inline(always)]
pub(crate) fn affine_back<V: Vector>(x: &mut Lanes, scale: &Lanes, shift: &Lanes) {
    let mut factor = ZERO;
    V::sub(V::splat(0.0), V::load(scale)).store(&mut factor);
    lanes::exp(&mut factor);
    V::mul(V::sub(V::load(x), V::load(shift)), V::load(&factor)).store(x);
}

/// Computes s = a·tanh(σ/a).
#[inline(always)]
pub(crate) fn clamped<V: Vector>(sigma: V, clamp: f32) -> Lanes {
    let mut s = ZERO;
    V::mul(V::splat(1.0 / clamp), sigma).store(&mut s);
    lanes::tanh(&mut s);
    V::mul(V::splat(clamp), V::load(&s)).store(&mut s);
    s
}

/// Computes log|det| + log N(z; 0, 1) of one vector of events.
#[inline(always)]
pub(crate) fn standard_normal<V: Vector>(
    features: usize,
    tile: &LaneTile,
    vector: usize,
    log_det: V,
) -> Lanes {
    let mut square = V::splat(0.0);
    for d in 0..features {
        let z = V::load(&tile.x[d * tile.vectors + vector]);
        square = V::fma(z, z, square);
    }
    let constant = V::splat(features as f32 * LN_SQRT_2PI as f32);
    let mut out = ZERO;
    V::sub(V::fma(square, V::splat(-0.5), log_det), constant).store(&mut out);
    out
}

#[inline(always)]
fn inverse_body<V: Vector, const P: usize>(flow: &Packed<P>, tile: &mut LaneTile) {
    for vector in 0..tile.vectors {
        for block in flow.blocks.iter().rev() {
            let coupling = couple::<V, P, 1>(block, flow.scale_clamp, tile, vector);
            for (c, &d) in block.split.transformed.iter().enumerate() {
                let x = &mut tile.x[d * tile.vectors + vector];
                affine_back::<V>(x, &coupling.scale[c][0], &coupling.shift[c][0]);
            }
        }
    }
}

/// Computes s = a·tanh(σ(x_a)/a) and μ(x_a) of K vectors.
#[inline(always)]
pub(crate) fn couple<V: Vector, const P: usize, const K: usize>(
    block: &PackedBlock<P>,
    clamp: f32,
    tile: &LaneTile,
    first: usize,
) -> CouplingLanes<P, K> {
    let mut x = [[V::splat(0.0); K]; P];
    for (c, &d) in block.split.conditioner.iter().enumerate() {
        for k in 0..K {
            x[c][k] = V::load(&tile.x[d * tile.vectors + first + k]);
        }
    }
    let mut scale = [[ZERO; K]; P];
    if let Some(network) = &block.scale {
        let sigma = evaluate(network, &x);
        for c in 0..block.split.transformed.len() {
            for k in 0..K {
                scale[c][k] = clamped(sigma[c][k], clamp);
            }
        }
    }
    let mut shift = [[ZERO; K]; P];
    let mu = evaluate(&block.shift, &x);
    for c in 0..P {
        for k in 0..K {
            mu[c][k].store(&mut shift[c][k]);
        }
    }
    CouplingLanes { scale, shift }
}

/// Evaluates one hidden layer of rectified units; sums are over ascending units.
#[inline(always)]
fn evaluate<V: Vector, const P: usize, const K: usize>(
    network: &PackedNetwork<P>,
    x: &[[V; K]; P],
) -> [[V; K]; P] {
    let mut out = [[V::splat(0.0); K]; P];
    for c in 0..P {
        out[c] = [V::splat(network.output_bias[c]); K];
    }
    for unit in &network.units {
        for k in 0..K {
            let mut h = V::splat(unit.bias);
            for c in 0..P {
                h = V::fma(V::splat(unit.input[c]), x[c][k], h);
            }
            let h = V::relu(h);
            for c in 0..P {
                out[c][k] = V::fma(V::splat(unit.output[c]), h, out[c][k]);
            }
        }
    }
    out
}
