//! Forward and backward pass of one tile through the blocks, for every kernel.
//!
//! It keeps the transformed inputs and scales of each block, the losses, and ∂L/∂x during the
//! backward pass. Kept values of block b are at `kept(b, c, v)`: its c-th transformed feature,
//! vector v.

use super::forward::{LaneTile, affine, standard_normal};
use crate::engine::simd::lanes::{self, LANES, Lanes, ZERO};
use crate::engine::simd::vector::{GROUP, Vector};

/// State of a pass.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pass {
    pub tile: LaneTile,
    pub loss: Vec<f32>, // (events) weight · (−log p)
    /// Largest magnitude (exclusive) of a component of one tile.
    pub bound: f32,
    /// Whether a component of the last tile was too large or not finite.
    pub unusable: bool,
    weight: Vec<Lanes>, // (vectors), loss weight per event, 0 where padded
    blocks: usize,
    width: usize,         // transformed features of a block, padded
    input: Vec<Lanes>,    // (blocks, width, vectors) transformed features before the block
    scale: Vec<Lanes>,    // (blocks, width, vectors)
    upstream: Vec<Lanes>, // (features, vectors) ∂L/∂x
}

impl Pass {
    /// Creates a pass for blocks that transform at most `width` features.
    pub(crate) fn new(blocks: usize, width: usize) -> Pass {
        Pass { blocks, width, ..Pass::default() }
    }

    /// Loads events (events, features) and their loss weights.
    pub(crate) fn load(
        &mut self,
        features: usize,
        rows: &[f32],
        weights: Option<&[f32]>,
        bound: f32,
    ) {
        self.tile.load(features, rows);
        self.bound = bound;
        self.unusable = false;
        self.weight.clear();
        self.weight.resize(self.tile.vectors, ZERO);
        for e in 0..self.tile.events {
            self.weight[e / LANES][e % LANES] = weights.map_or(1.0, |w| w[e]);
        }
        self.loss.resize(self.tile.events, 0.0);
        self.upstream.resize(features * self.tile.vectors, ZERO);
        let kept = self.blocks * self.width * self.tile.vectors;
        self.input.resize(kept, ZERO);
        self.scale.resize(kept, ZERO);
    }

    #[inline(always)]
    fn kept(&self, b: usize, c: usize, v: usize) -> usize {
        (b * self.width + c) * self.tile.vectors + v
    }

    /// Applies block b to feature d, its c-th, of one vector of events.
    #[inline(always)]
    pub(crate) fn transform<V: Vector>(
        &mut self,
        (b, c, d): (usize, usize, usize),
        v: usize,
        scale: &Lanes,
        shift: &Lanes,
    ) {
        let kept = self.kept(b, c, v);
        let x = &mut self.tile.x[d * self.tile.vectors + v];
        self.input[kept] = *x;
        self.scale[kept] = *scale;
        affine::<V>(x, scale, shift);
    }

    /// Computes the losses of one vector of events, and the gradient at which the backward pass
    /// starts.
    #[inline(always)]
    pub(crate) fn turn<V: Vector>(&mut self, features: usize, v: usize, log_det: V) {
        let vectors = self.tile.vectors;
        let mut loss = standard_normal(features, &self.tile, v, log_det);
        let weight = V::load(&self.weight[v]);
        V::sub(V::splat(0.0), V::mul(weight, V::load(&loss))).store(&mut loss);
        self.tile.store_vector(v, &loss, &mut self.loss);
        // ∂(−log p)/∂z = z
        for d in 0..features {
            let z = V::load(&self.tile.x[d * vectors + v]);
            V::mul(weight, z).store(&mut self.upstream[d * vectors + v]);
        }
    }

    /// Reverts `transform` in the tile and applies it to ∂L/∂x; returns ∂L/∂σ and ∂L/∂μ.
    #[inline(always)]
    pub(crate) fn transform_back<V: Vector>(
        &mut self,
        (b, c, d): (usize, usize, usize),
        v: usize,
        clamp: f32,
    ) -> (V, V) {
        let (kept, at) = (self.kept(b, c, v), d * self.tile.vectors + v);
        let mut factor = self.scale[kept];
        lanes::exp(&mut factor);
        let g = V::load(&self.upstream[at]);
        let passed = V::mul(g, V::load(&factor));
        // ∂L/∂s = g·x·eˢ − weight; through the clamp, ∂s/∂σ = 1 − (s/a)²
        let g_s = V::sub(V::mul(passed, V::load(&self.input[kept])), V::load(&self.weight[v]));
        let t = V::mul(V::splat(1.0 / clamp), V::load(&self.scale[kept]));
        let slope = V::fma(V::sub(V::splat(0.0), t), t, V::splat(1.0));
        passed.store(&mut self.upstream[at]);
        self.tile.x[at] = self.input[kept];
        (V::mul(g_s, slope), g)
    }

    /// Adds the gradient through the networks to ∂L/∂x of feature d.
    #[inline(always)]
    pub(crate) fn add_upstream<V: Vector>(&mut self, d: usize, v: usize, g: &Lanes) {
        let total = &mut self.upstream[d * self.tile.vectors + v];
        V::add(V::load(total), V::load(g)).store(total);
    }
}

/// Adds sums of a tile as integers; returns whether one was too large or not finite.
#[inline(always)]
pub(crate) fn add_group<V: Vector>(
    sums: &[f32; GROUP],
    fixed: &mut [i64; GROUP],
    bound: f32,
) -> bool {
    let mut usable = true;
    for sum in sums {
        usable &= sum.abs() < bound; // false for NaN too
    }
    V::add_fixed(sums, fixed);
    !usable
}
