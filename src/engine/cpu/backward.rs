//! Gradient of one tile of events, with fused networks of one hidden layer.
//!
//! The forward pass keeps the transformed inputs and scales of each block (2 P numbers per block
//! and event). The backward pass recomputes the hidden layer unit by unit and sums the weight
//! gradients in registers. The order of sums is fixed: over the vectors of the tile lane by lane,
//! then over lanes by the fixed tree, in f32. The sum of the tile is rounded to units of 2⁻³² and
//! added to integers.

use super::forward::{TOGETHER, couple};
use super::pass::{Pass, add_group};
use super::weights::{NetworkSums, Packed, PackedBlock, PackedNetwork, groups};
use crate::engine::simd::lanes::{Lanes, ZERO};
use crate::engine::simd::vector::{GROUP, Vector};
use crate::engine::simd::vectorised;

/// Largest number of groups of a unit, for 32 features.
const MOST_GROUPS: usize = groups(16);

/// Working memory of one thread, reused for each tile.
#[derive(Debug, Clone)]
pub struct FusedScratch<const P: usize> {
    pub pass: Pass,
    pub sums: Vec<BlockSums>, // (blocks)
    local: Local<P>,
}

/// Buffers of the backward pass of one block, each (vectors).
#[derive(Debug, Clone, Default)]
struct Local<const P: usize> {
    x: Vec<[Lanes; P]>,       // conditioning features
    g_scale: Vec<[Lanes; P]>, // ∂L/∂σ
    g_shift: Vec<[Lanes; P]>, // ∂L/∂μ
    g_x: Vec<[Lanes; P]>,     // ∂L/∂x_a through the networks
}

/// Gradient sums of one block.
#[derive(Debug, Clone)]
pub struct BlockSums {
    pub scale: Option<NetworkSums>,
    pub shift: NetworkSums,
}

impl BlockSums {
    fn new<const P: usize>(block: &PackedBlock<P>) -> BlockSums {
        let sums = |n: &PackedNetwork<P>| NetworkSums::new(n.units.len(), P);
        BlockSums { scale: block.scale.as_ref().map(sums), shift: sums(&block.shift) }
    }
}

impl<const P: usize> FusedScratch<P> {
    /// Allocates working memory for a flow.
    pub fn new(flow: &Packed<P>) -> FusedScratch<P> {
        FusedScratch {
            pass: Pass::new(flow.blocks.len(), P),
            sums: flow.blocks.iter().map(BlockSums::new).collect(),
            local: Local {
                x: Vec::new(),
                g_scale: Vec::new(),
                g_shift: Vec::new(),
                g_x: Vec::new(),
            },
        }
    }

    /// Sets all sums to 0.
    pub fn clear(&mut self) {
        for block in &mut self.sums {
            block.scale.iter_mut().for_each(NetworkSums::clear);
            block.shift.clear();
        }
    }
}

vectorised!(pub fn gradient<P>(flow: &Packed<P>, scratch: &mut FusedScratch<P>) = gradient_body);

/// Adds the gradient of the loaded tile to `scratch.sums`, and writes its losses.
#[inline(always)]
fn gradient_body<V: Vector, const P: usize>(flow: &Packed<P>, scratch: &mut FusedScratch<P>) {
    forward::<V, P>(flow, &mut scratch.pass);
    for b in (0..flow.blocks.len()).rev() {
        backward::<V, P>(b, &flow.blocks[b], flow.scale_clamp, scratch);
    }
}

#[inline(always)]
fn forward<V: Vector, const P: usize>(flow: &Packed<P>, pass: &mut Pass) {
    let vectors = pass.tile.vectors;
    let mut first = 0;
    while first + TOGETHER <= vectors {
        forward_vectors::<V, P, TOGETHER>(flow, pass, first);
        first += TOGETHER;
    }
    while first < vectors {
        forward_vectors::<V, P, 1>(flow, pass, first);
        first += 1;
    }
}

#[inline(always)]
fn forward_vectors<V: Vector, const P: usize, const K: usize>(
    flow: &Packed<P>,
    pass: &mut Pass,
    first: usize,
) {
    let mut log_det = [V::splat(0.0); K];
    for (b, block) in flow.blocks.iter().enumerate() {
        let coupling = couple::<V, P, K>(block, flow.scale_clamp, &pass.tile, first);
        for (c, &d) in block.split.transformed.iter().enumerate() {
            for k in 0..K {
                let (scale, shift) = (&coupling.scale[c][k], &coupling.shift[c][k]);
                pass.transform::<V>((b, c, d), first + k, scale, shift);
                log_det[k] = V::add(log_det[k], V::load(scale));
            }
        }
    }
    for k in 0..K {
        pass.turn(flow.features, first + k, log_det[k]);
    }
}

/// Computes ∂L/∂x of one block from ∂L/∂y; restores the tile before the block.
#[inline(always)]
fn backward<V: Vector, const P: usize>(
    b: usize,
    block: &PackedBlock<P>,
    clamp: f32,
    scratch: &mut FusedScratch<P>,
) {
    let FusedScratch { pass, local, sums } = scratch;
    let (vectors, bound) = (pass.tile.vectors, pass.bound);
    for buffer in [&mut local.x, &mut local.g_scale, &mut local.g_shift, &mut local.g_x] {
        buffer.clear();
        buffer.resize(vectors, [ZERO; P]);
    }
    for (c, &d) in block.split.conditioner.iter().enumerate() {
        for v in 0..vectors {
            local.x[v][c] = pass.tile.x[d * vectors + v];
        }
    }
    for (c, &d) in block.split.transformed.iter().enumerate() {
        for v in 0..vectors {
            let (g_scale, g_shift) = pass.transform_back::<V>((b, c, d), v, clamp);
            g_scale.store(&mut local.g_scale[v][c]);
            g_shift.store(&mut local.g_shift[v][c]);
        }
    }
    let Local { x, g_scale, g_shift, g_x } = local;
    if let (Some(network), Some(sums)) = (&block.scale, &mut sums[b].scale) {
        pass.unusable |= network_backward::<V, P>(network, x, g_scale, g_x, sums, bound);
    }
    let sums = &mut sums[b].shift;
    pass.unusable |= network_backward::<V, P>(&block.shift, x, g_shift, g_x, sums, bound);
    for (c, &d) in block.split.conditioner.iter().enumerate() {
        for v in 0..vectors {
            pass.add_upstream::<V>(d, v, &g_x[v][c]);
        }
    }
}

/// Adds this tile's gradient of one network to `sums` and to `g_x`; returns whether a component was
/// too large or not finite.
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
        // Gradients of the input weights, the bias, the output weights.
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
    let mut unusable = false;
    for (group, fixed) in all.as_chunks::<GROUP>().0.iter().zip(fixed) {
        let sums = V::sum_lanes(group);
        unusable |= add_group::<V>(&sums, fixed, bound);
    }
    unusable
}
