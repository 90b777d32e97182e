//! Gradient of one tile of events: forward keeps each block's transformed inputs and
//! scales (2 P numbers per block and event), backward recomputes the hidden layer
//! unit by unit and sums the weight gradients in registers.
//!
//! Order of sums: over the vectors of the tile lane by lane, then over lanes by the
//! fixed tree, in f32; over tiles of a shard in f64 (see `mod`).

use super::dispatch::vectorised;
use super::forward::{Tile, couple, groups, standard_normal};
use super::lanes::{self, LANES, Lanes, ZERO};
use super::weights::{NetworkGradient, Packed, PackedBlock, PackedNetwork, Unit};

/// Per-thread working space, reused from tile to tile.
#[derive(Debug, Clone)]
pub struct Scratch<const P: usize> {
    pub tile: Tile,
    pub weight: Vec<Lanes>, // (vectors), loss weight per event, 0 where padded
    pub loss: Vec<f32>,     // (events) weight · (−log p)
    input: Vec<Lanes>,      // (blocks, P, vectors) transformed features before the block
    scale: Vec<Lanes>,      // (blocks, P, vectors)
    upstream: Vec<Lanes>,   // (features, vectors) ∂L/∂x, walking backward
    local: Local<P>,
    pub gradient: Vec<BlockGradient<P>>, // (blocks)
}

/// What one block's backward pass works on.
#[derive(Debug, Clone, Default)]
struct Local<const P: usize> {
    x: Vec<[Lanes; P]>,       // (vectors) conditioning features
    g_scale: Vec<[Lanes; P]>, // (vectors) ∂L/∂σ
    g_shift: Vec<[Lanes; P]>, // (vectors) ∂L/∂μ
    g_x: Vec<[Lanes; P]>,     // (vectors) ∂L/∂x_a through the networks
}

#[derive(Debug, Clone)]
pub struct BlockGradient<const P: usize> {
    pub scale: Option<NetworkGradient<P>>,
    pub shift: NetworkGradient<P>,
}

impl<const P: usize> Scratch<P> {
    pub fn new(flow: &Packed<P>) -> Scratch<P> {
        let gradient = flow
            .blocks
            .iter()
            .map(|b| BlockGradient {
                scale: b.scale.as_ref().map(|n| NetworkGradient::new(n.units.len())),
                shift: NetworkGradient::new(b.shift.units.len()),
            })
            .collect();
        Scratch {
            tile: Tile::default(),
            weight: Vec::new(),
            loss: Vec::new(),
            input: Vec::new(),
            scale: Vec::new(),
            upstream: Vec::new(),
            local: Local {
                x: Vec::new(),
                g_scale: Vec::new(),
                g_shift: Vec::new(),
                g_x: Vec::new(),
            },
            gradient,
        }
    }

    /// Loads events (events, features) and their loss weights.
    pub fn load(&mut self, features: usize, rows: &[f32], weights: Option<&[f32]>) {
        self.tile.load(features, rows);
        self.weight.clear();
        self.weight.resize(self.tile.vectors, ZERO);
        for e in 0..self.tile.events {
            self.weight[e / LANES][e % LANES] = weights.map_or(1.0, |w| w[e]);
        }
    }
}

vectorised!(pub fn gradient<P>(flow: &Packed<P>, scratch: &mut Scratch<P>) = gradient_body);

#[inline(always)]
fn gradient_body<const P: usize>(flow: &Packed<P>, scratch: &mut Scratch<P>) {
    forward(flow, scratch);
    // ∂(−log p)/∂z = z
    for d in 0..flow.features {
        for v in 0..scratch.tile.vectors {
            let i = d * scratch.tile.vectors + v;
            scratch.upstream[i] = lanes::mul(scratch.weight[v], scratch.tile.x[i]);
        }
    }
    for b in (0..flow.blocks.len()).rev() {
        backward(b, &flow.blocks[b], flow.scale_clamp, scratch);
    }
}

#[inline(always)]
fn forward<const P: usize>(flow: &Packed<P>, scratch: &mut Scratch<P>) {
    let vectors = scratch.tile.vectors;
    let kept = flow.blocks.len() * P * vectors;
    scratch.input.resize(kept, ZERO);
    scratch.scale.resize(kept, ZERO);
    scratch.upstream.resize(flow.features * vectors, ZERO);
    scratch.loss.resize(scratch.tile.events, 0.0);
    for (first, together) in groups(vectors) {
        if together == 1 {
            forward_vectors::<P, 1>(flow, scratch, first);
        } else {
            forward_vectors::<P, 4>(flow, scratch, first);
        }
    }
}

#[inline(always)]
fn forward_vectors<const P: usize, const K: usize>(
    flow: &Packed<P>,
    scratch: &mut Scratch<P>,
    first: usize,
) {
    let vectors = scratch.tile.vectors;
    let mut log_det = [ZERO; K];
    for (b, block) in flow.blocks.iter().enumerate() {
        let coupling = couple::<P, K>(block, flow.scale_clamp, &scratch.tile, first);
        for (c, &d) in block.split.transformed.iter().enumerate() {
            for k in 0..K {
                let x = &mut scratch.tile.x[d * vectors + first + k];
                let s = coupling.scale[c][k];
                let kept = (b * P + c) * vectors + first + k;
                scratch.input[kept] = *x;
                scratch.scale[kept] = s;
                *x = lanes::fma(*x, lanes::exp(s), coupling.shift[c][k]);
                log_det[k] = lanes::add(log_det[k], s);
            }
        }
    }
    for k in 0..K {
        let log_prob = standard_normal(flow.features, &scratch.tile, first + k, log_det[k]);
        let loss = lanes::sub(ZERO, lanes::mul(scratch.weight[first + k], log_prob));
        let start = (first + k) * LANES;
        let end = scratch.tile.events.min(start + LANES);
        scratch.loss[start..end].copy_from_slice(&loss.0[..end - start]);
    }
}

/// One block, from ∂L/∂y to ∂L/∂x; leaves the tile as it was before the block.
#[inline(always)]
fn backward<const P: usize>(
    b: usize,
    block: &PackedBlock<P>,
    clamp: f32,
    scratch: &mut Scratch<P>,
) {
    let vectors = scratch.tile.vectors;
    let Scratch { tile, weight, input, scale, upstream, local, gradient, .. } = scratch;
    for buffer in [&mut local.x, &mut local.g_scale, &mut local.g_shift, &mut local.g_x] {
        buffer.clear();
        buffer.resize(vectors, [ZERO; P]);
    }
    for (c, &d) in block.split.conditioner.iter().enumerate() {
        for v in 0..vectors {
            local.x[v][c] = tile.x[d * vectors + v];
        }
    }
    for (c, &d) in block.split.transformed.iter().enumerate() {
        for v in 0..vectors {
            let kept = (b * P + c) * vectors + v;
            let (s, x, g) = (scale[kept], input[kept], upstream[d * vectors + v]);
            let passed = lanes::mul(g, lanes::exp(s));
            // ∂L/∂s = g·x·eˢ − weight; through the clamp, ∂s/∂σ = 1 − (s/a)²
            let g_s = lanes::sub(lanes::mul(passed, x), weight[v]);
            let t = lanes::scale(1.0 / clamp, s);
            let slope = lanes::fma(lanes::sub(ZERO, t), t, lanes::splat(1.0));
            local.g_scale[v][c] = lanes::mul(g_s, slope);
            local.g_shift[v][c] = g;
            upstream[d * vectors + v] = passed;
            tile.x[d * vectors + v] = x;
        }
    }
    if let (Some(network), Some(sums)) = (&block.scale, &mut gradient[b].scale) {
        network_backward(network, &local.x, &local.g_scale, &mut local.g_x, sums);
    }
    network_backward(
        &block.shift,
        &local.x,
        &local.g_shift,
        &mut local.g_x,
        &mut gradient[b].shift,
    );
    for (c, &d) in block.split.conditioner.iter().enumerate() {
        for v in 0..vectors {
            let g = &mut upstream[d * vectors + v];
            *g = lanes::add(*g, local.g_x[v][c]);
        }
    }
}

/// Overwrites `sums` with this tile's gradient of one network, and adds to `g_x`.
#[inline(always)]
fn network_backward<const P: usize>(
    network: &PackedNetwork<P>,
    x: &[[Lanes; P]],
    g: &[[Lanes; P]],
    g_x: &mut [[Lanes; P]],
    sums: &mut NetworkGradient<P>,
) {
    for c in 0..P {
        let mut bias = ZERO;
        for v in 0..g.len() {
            bias = lanes::add(bias, g[v][c]);
        }
        sums.output_bias[c] = lanes::sum(bias);
    }
    for (unit, sum) in network.units.iter().zip(&mut sums.units) {
        *sum = unit_backward(unit, x, g, g_x);
    }
}

#[inline(always)]
fn unit_backward<const P: usize>(
    unit: &Unit<P>,
    x: &[[Lanes; P]],
    g: &[[Lanes; P]],
    g_x: &mut [[Lanes; P]],
) -> Unit<P> {
    let (mut input, mut bias, mut output) = ([ZERO; P], ZERO, [ZERO; P]);
    for ((x, g), g_x) in x.iter().zip(g).zip(g_x) {
        let mut h = lanes::splat(unit.bias);
        let mut g_h = ZERO;
        for c in 0..P {
            h = lanes::weighted(unit.input[c], x[c], h);
            g_h = lanes::weighted(unit.output[c], g[c], g_h);
        }
        let g_h = lanes::where_positive(h, g_h);
        let h = lanes::relu(h);
        for c in 0..P {
            output[c] = lanes::fma(h, g[c], output[c]);
            input[c] = lanes::fma(g_h, x[c], input[c]);
            g_x[c] = lanes::weighted(unit.input[c], g_h, g_x[c]);
        }
        bias = lanes::add(bias, g_h);
    }
    Unit { input: input.map(lanes::sum), bias: lanes::sum(bias), output: output.map(lanes::sum) }
}
