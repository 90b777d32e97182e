//! Gradient of one tile of events: forward keeps each block's transformed inputs and
//! scales (2 P numbers per block and event), backward recomputes the hidden layer
//! unit by unit and sums the weight gradients in registers.
//!
//! Order of sums: over the vectors of the tile lane by lane, then over lanes by the
//! fixed tree, in f32; the tile's sum is rounded to units of 2⁻³² and added to integers.

use super::dispatch::vectorised;
use super::forward::{TOGETHER, Tile, affine, couple, standard_normal};
use super::lanes::{self, LANES, Lanes, ZERO};
use super::vector::{GROUP, Vector};
use super::weights::{NetworkSums, Packed, PackedBlock, PackedNetwork, groups};

/// Most groups of a unit: that of 32 features.
const MOST_GROUPS: usize = groups(16);

/// Per-thread working space, reused from tile to tile.
#[derive(Debug, Clone)]
pub struct Scratch<const P: usize> {
    pub tile: Tile,
    pub weight: Vec<Lanes>, // (vectors), loss weight per event, 0 where padded
    pub loss: Vec<f32>,     // (events) weight · (−log p)
    /// Largest magnitude (exclusive) of a component of one tile.
    pub bound: f32,
    /// Whether a component of the last tile was too large or not finite.
    pub unusable: bool,
    pub sums: Vec<BlockSums>, // (blocks)
    input: Vec<Lanes>,        // (blocks, P, vectors) transformed features before the block
    scale: Vec<Lanes>,        // (blocks, P, vectors)
    upstream: Vec<Lanes>,     // (features, vectors) ∂L/∂x, walking backward
    local: Local<P>,
}

/// What one block's backward pass works on, each (vectors).
#[derive(Debug, Clone, Default)]
struct Local<const P: usize> {
    x: Vec<[Lanes; P]>,       // conditioning features
    g_scale: Vec<[Lanes; P]>, // ∂L/∂σ
    g_shift: Vec<[Lanes; P]>, // ∂L/∂μ
    g_x: Vec<[Lanes; P]>,     // ∂L/∂x_a through the networks
}

#[derive(Debug, Clone)]
pub struct BlockSums {
    pub scale: Option<NetworkSums>,
    pub shift: NetworkSums,
}

impl<const P: usize> Scratch<P> {
    pub fn new(flow: &Packed<P>) -> Scratch<P> {
        let sums = |n: &PackedNetwork<P>| NetworkSums::new(n.units.len(), P);
        let of_block = |b: &PackedBlock<P>| BlockSums {
            scale: b.scale.as_ref().map(sums),
            shift: sums(&b.shift),
        };
        Scratch {
            tile: Tile::default(),
            weight: Vec::new(),
            loss: Vec::new(),
            bound: 0.0,
            unusable: false,
            sums: flow.blocks.iter().map(of_block).collect(),
            input: Vec::new(),
            scale: Vec::new(),
            upstream: Vec::new(),
            local: Local {
                x: Vec::new(),
                g_scale: Vec::new(),
                g_shift: Vec::new(),
                g_x: Vec::new(),
            },
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

    pub fn clear(&mut self) {
        for block in &mut self.sums {
            block.scale.iter_mut().for_each(NetworkSums::clear);
            block.shift.clear();
        }
    }
}

vectorised!(pub fn gradient<P>(flow: &Packed<P>, scratch: &mut Scratch<P>) = gradient_body);

/// Adds the loaded tile's gradient to `scratch.sums`, and writes its losses.
#[inline(always)]
fn gradient_body<V: Vector, const P: usize>(flow: &Packed<P>, scratch: &mut Scratch<P>) {
    let vectors = scratch.tile.vectors;
    scratch.unusable = false;
    forward::<V, P>(flow, scratch);
    // ∂(−log p)/∂z = z
    for d in 0..flow.features {
        for v in 0..vectors {
            let z = V::load(&scratch.tile.x[d * vectors + v]);
            V::mul(V::load(&scratch.weight[v]), z).store(&mut scratch.upstream[d * vectors + v]);
        }
    }
    for b in (0..flow.blocks.len()).rev() {
        backward::<V, P>(b, &flow.blocks[b], flow.scale_clamp, scratch);
    }
}

#[inline(always)]
fn forward<V: Vector, const P: usize>(flow: &Packed<P>, scratch: &mut Scratch<P>) {
    let vectors = scratch.tile.vectors;
    let kept = flow.blocks.len() * P * vectors;
    scratch.input.resize(kept, ZERO);
    scratch.scale.resize(kept, ZERO);
    scratch.upstream.resize(flow.features * vectors, ZERO);
    scratch.loss.resize(scratch.tile.events, 0.0);
    let mut first = 0;
    while first + TOGETHER <= vectors {
        forward_vectors::<V, P, TOGETHER>(flow, scratch, first);
        first += TOGETHER;
    }
    while first < vectors {
        forward_vectors::<V, P, 1>(flow, scratch, first);
        first += 1;
    }
}

#[inline(always)]
fn forward_vectors<V: Vector, const P: usize, const K: usize>(
    flow: &Packed<P>,
    scratch: &mut Scratch<P>,
    first: usize,
) {
    let vectors = scratch.tile.vectors;
    let mut log_det = [V::splat(0.0); K];
    for (b, block) in flow.blocks.iter().enumerate() {
        let coupling = couple::<V, P, K>(block, flow.scale_clamp, &scratch.tile, first);
        for (c, &d) in block.split.transformed.iter().enumerate() {
            for k in 0..K {
                let x = &mut scratch.tile.x[d * vectors + first + k];
                let kept = (b * P + c) * vectors + first + k;
                scratch.input[kept] = *x;
                scratch.scale[kept] = coupling.scale[c][k];
                affine::<V>(x, &coupling.scale[c][k], &coupling.shift[c][k]);
                log_det[k] = V::add(log_det[k], V::load(&coupling.scale[c][k]));
            }
        }
    }
    for k in 0..K {
        let mut loss = standard_normal(flow.features, &scratch.tile, first + k, log_det[k]);
        let weighted = V::mul(V::load(&scratch.weight[first + k]), V::load(&loss));
        V::sub(V::splat(0.0), weighted).store(&mut loss);
        let start = (first + k) * LANES;
        let end = scratch.tile.events.min(start + LANES);
        scratch.loss[start..end].copy_from_slice(&loss.0[..end - start]);
    }
}

/// One block, from ∂L/∂y to ∂L/∂x; leaves the tile as it was before the block.
#[inline(always)]
fn backward<V: Vector, const P: usize>(
    b: usize,
    block: &PackedBlock<P>,
    clamp: f32,
    scratch: &mut Scratch<P>,
) {
    let vectors = scratch.tile.vectors;
    let Scratch { tile, weight, input, scale, upstream, local, sums, bound, unusable, .. } =
        scratch;
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
            let (kept, at) = ((b * P + c) * vectors + v, d * vectors + v);
            let mut factor = scale[kept];
            lanes::exp(&mut factor);
            let g = V::load(&upstream[at]);
            let passed = V::mul(g, V::load(&factor));
            // ∂L/∂s = g·x·eˢ − weight; through the clamp, ∂s/∂σ = 1 − (s/a)²
            let g_s = V::sub(V::mul(passed, V::load(&input[kept])), V::load(&weight[v]));
            let t = V::mul(V::splat(1.0 / clamp), V::load(&scale[kept]));
            let slope = V::fma(V::sub(V::splat(0.0), t), t, V::splat(1.0));
            V::mul(g_s, slope).store(&mut local.g_scale[v][c]);
            g.store(&mut local.g_shift[v][c]);
            passed.store(&mut upstream[at]);
            tile.x[at] = input[kept];
        }
    }
    let Local { x, g_scale, g_shift, g_x } = local;
    if let (Some(network), Some(sums)) = (&block.scale, &mut sums[b].scale) {
        *unusable |= network_backward::<V, P>(network, x, g_scale, g_x, sums, *bound);
    }
    *unusable |=
        network_backward::<V, P>(&block.shift, x, g_shift, g_x, &mut sums[b].shift, *bound);
    for (c, &d) in block.split.conditioner.iter().enumerate() {
        for v in 0..vectors {
            let g = &mut upstream[d * vectors + v];
            V::add(V::load(g), V::load(&g_x[v][c])).store(g);
        }
    }
}

/// Adds this tile's gradient of one network to `sums` and to `g_x`; returns whether a
/// component was too large or not finite.
#[inline(always)]
fn network_backward<V: Vector, const P: usize>(
    network: &PackedNetwork<P>,
    x: &[[Lanes; P]],
    g: &[[Lanes; P]],
    g_x: &mut [[Lanes; P]],
    sums: &mut NetworkSums,
    bound: f32,
) -> bool {
    let mut unusable = false;
    let (units, output_bias) = sums.fixed.split_at_mut(network.units.len() * groups(P));
    for (unit, fixed) in network.units.iter().zip(units.chunks_exact_mut(groups(P))) {
        let bias = V::splat(unit.bias);
        let (mut input, mut output) = ([V::splat(0.0); P], [V::splat(0.0); P]);
        for c in 0..P {
            input[c] = V::splat(unit.input[c]);
            output[c] = V::splat(unit.output[c]);
        }
        // gradients of the input weights, the bias, the output weights
        let (mut of_input, mut of_bias, mut of_output) =
            ([V::splat(0.0); P], V::splat(0.0), [V::splat(0.0); P]);
        for v in 0..x.len() {
            let (x, g, g_x) = (&x[v], &g[v], &mut g_x[v]);
            let mut h = bias;
            let mut g_h = V::mul(output[0], V::load(&g[0]));
            for c in 0..P {
                h = V::fma(input[c], V::load(&x[c]), h);
            }
            for c in 1..P {
                g_h = V::fma(output[c], V::load(&g[c]), g_h);
            }
            let g_h = V::where_positive(h, g_h);
            let h = V::relu(h);
            for c in 0..P {
                of_output[c] = V::fma(h, V::load(&g[c]), of_output[c]);
                of_input[c] = V::fma(g_h, V::load(&x[c]), of_input[c]);
                V::fma(input[c], g_h, V::load(&g_x[c])).store(&mut g_x[c]);
            }
            of_bias = V::add(of_bias, g_h);
        }
        let mut all = [V::splat(0.0); MOST_GROUPS * GROUP];
        for c in 0..P {
            all[c] = of_input[c];
            all[P + 1 + c] = of_output[c];
        }
        all[P] = of_bias;
        unusable |= add_groups::<V>(&all, fixed, bound);
    }
    let mut all = [V::splat(0.0); MOST_GROUPS * GROUP];
    for c in 0..P {
        for v in 0..g.len() {
            all[c] = V::add(all[c], V::load(&g[v][c]));
        }
    }
    unusable | add_groups::<V>(&all, output_bias, bound)
}

/// Sums lanes, checks the sums, and adds them as integers.
#[inline(always)]
fn add_groups<V: Vector>(
    all: &[V; MOST_GROUPS * GROUP],
    fixed: &mut [[i64; GROUP]],
    bound: f32,
) -> bool {
    let mut usable = true;
    for (group, fixed) in all.as_chunks::<GROUP>().0.iter().zip(fixed) {
        let sums = V::sum_lanes(group);
        for sum in &sums {
            usable &= sum.abs() < bound;
        }
        V::add_fixed(&sums, fixed);
    }
    !usable
}
