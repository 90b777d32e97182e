//! Likelihood and inverse of one tile of events: all blocks at once, the hidden layer
//! never stored.
//!
//! A tile holds its events in lanes, feature by feature: `x[d * vectors + v]` is
//! feature d of events 16 v … 16 v + 15. K vectors go through a network together,
//! which hides the latency of the multiply-adds; lanes do not mix, so K changes no bit.

use super::dispatch::vectorised;
use super::lanes::{self, LANES, Lanes, ZERO};
use super::weights::{Packed, PackedBlock, PackedNetwork};
use taiga_flow_gpu::reference::LN_SQRT_2PI;

/// Vectors that go through a network together.
const TOGETHER: usize = 4;

/// Features of a tile in lanes, padded with zero events.
#[derive(Debug, Clone, Default)]
pub struct Tile {
    pub x: Vec<Lanes>, // (features, vectors)
    pub vectors: usize,
    pub events: usize,
}

impl Tile {
    /// Loads row-major events (events, features).
    pub fn load(&mut self, features: usize, rows: &[f32]) {
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

    /// Writes the events back, row-major.
    pub fn store(&self, features: usize, rows: &mut [f32]) {
        for (e, row) in rows.chunks_exact_mut(features).enumerate() {
            for (d, value) in row.iter_mut().enumerate() {
                *value = self.x[d * self.vectors + e / LANES][e % LANES];
            }
        }
    }
}

/// Outputs of both networks of a block for K vectors.
pub struct Coupling<const P: usize, const K: usize> {
    pub scale: [[Lanes; K]; P],
    pub shift: [[Lanes; K]; P],
}

vectorised!(pub fn log_prob<P>(flow: &Packed<P>, tile: &mut Tile, out: &mut [f32]) = log_prob_body);
vectorised!(pub fn inverse<P>(flow: &Packed<P>, tile: &mut Tile) = inverse_body);

#[inline(always)]
fn log_prob_body<const P: usize>(flow: &Packed<P>, tile: &mut Tile, out: &mut [f32]) {
    for (first, together) in groups(tile.vectors) {
        if together == TOGETHER {
            log_prob_vectors::<P, TOGETHER>(flow, tile, first, out);
        } else {
            log_prob_vectors::<P, 1>(flow, tile, first, out);
        }
    }
}

/// (first, count) of groups of `TOGETHER` vectors, then of single ones. To be looped over:
/// a closure called for each would be a function of its own, compiled without the
/// caller's vector instructions.
#[inline(always)]
pub fn groups(vectors: usize) -> impl Iterator<Item = (usize, usize)> {
    let whole = vectors - vectors % TOGETHER;
    let together = (0..whole).step_by(TOGETHER).map(|first| (first, TOGETHER));
    together.chain((whole..vectors).map(|first| (first, 1)))
}

#[inline(always)]
fn log_prob_vectors<const P: usize, const K: usize>(
    flow: &Packed<P>,
    tile: &mut Tile,
    first: usize,
    out: &mut [f32],
) {
    let mut log_det = [ZERO; K];
    for block in &flow.blocks {
        let coupling = couple::<P, K>(block, flow.scale_clamp, tile, first);
        for (c, &d) in block.split.transformed.iter().enumerate() {
            for k in 0..K {
                let x = &mut tile.x[d * tile.vectors + first + k];
                let s = coupling.scale[c][k];
                *x = lanes::fma(*x, lanes::exp(s), coupling.shift[c][k]);
                log_det[k] = lanes::add(log_det[k], s);
            }
        }
    }
    for k in 0..K {
        let log_prob = standard_normal(flow.features, tile, first + k, log_det[k]);
        let start = (first + k) * LANES;
        let end = tile.events.min(start + LANES);
        out[start..end].copy_from_slice(&log_prob.0[..end - start]);
    }
}

/// log|det| + log N(z; 0, 1) of one vector of events.
#[inline(always)]
pub fn standard_normal(features: usize, tile: &Tile, vector: usize, log_det: Lanes) -> Lanes {
    let mut square = ZERO;
    for d in 0..features {
        let z = tile.x[d * tile.vectors + vector];
        square = lanes::fma(z, z, square);
    }
    let constant = lanes::splat(features as f32 * LN_SQRT_2PI as f32);
    lanes::sub(lanes::fma(square, lanes::splat(-0.5), log_det), constant)
}

#[inline(always)]
fn inverse_body<const P: usize>(flow: &Packed<P>, tile: &mut Tile) {
    for vector in 0..tile.vectors {
        for block in flow.blocks.iter().rev() {
            let coupling = couple::<P, 1>(block, flow.scale_clamp, tile, vector);
            for (c, &d) in block.split.transformed.iter().enumerate() {
                let x = &mut tile.x[d * tile.vectors + vector];
                let inverse_scale = lanes::exp(lanes::sub(ZERO, coupling.scale[c][0]));
                *x = lanes::mul(lanes::sub(*x, coupling.shift[c][0]), inverse_scale);
            }
        }
    }
}

/// s = a·tanh(σ(x_a)/a) and μ(x_a) of K vectors.
#[inline(always)]
pub fn couple<const P: usize, const K: usize>(
    block: &PackedBlock<P>,
    clamp: f32,
    tile: &Tile,
    first: usize,
) -> Coupling<P, K> {
    let mut x = [[ZERO; K]; P];
    for (c, &d) in block.split.conditioner.iter().enumerate() {
        for k in 0..K {
            x[c][k] = tile.x[d * tile.vectors + first + k];
        }
    }
    let mut scale = [[ZERO; K]; P];
    if let Some(network) = &block.scale {
        scale = evaluate(network, &x);
        for c in 0..block.split.transformed.len() {
            for k in 0..K {
                let bounded = lanes::tanh(lanes::scale(1.0 / clamp, scale[c][k]));
                scale[c][k] = lanes::scale(clamp, bounded);
            }
        }
    }
    Coupling { scale, shift: evaluate(&block.shift, &x) }
}

/// One hidden layer of rectified units, summed unit by unit.
#[inline(always)]
fn evaluate<const P: usize, const K: usize>(
    network: &PackedNetwork<P>,
    x: &[[Lanes; K]; P],
) -> [[Lanes; K]; P] {
    let mut out = [[ZERO; K]; P];
    for c in 0..P {
        out[c] = [lanes::splat(network.output_bias[c]); K];
    }
    for unit in &network.units {
        for k in 0..K {
            let mut h = lanes::splat(unit.bias);
            for c in 0..P {
                h = lanes::weighted(unit.input[c], x[c][k], h);
            }
            let h = lanes::relu(h);
            for c in 0..P {
                out[c][k] = lanes::weighted(unit.output[c], h, out[c][k]);
            }
        }
    }
    out
}
