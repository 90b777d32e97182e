//! Kernel for networks with any number of hidden layers of any width.
//!
//! It computes matrix products on a tile of 256 events, whose activations stay in cache. The
//! activations of a layer are stored feature by feature with events in lanes: `h[j * vectors + v]`.
//! The gradient keeps the transformed inputs and scales of each block in the forward pass. The
//! backward pass recomputes the hidden layers of one network at a time.

use super::forward::{LaneTile, affine, affine_back, clamped, standard_normal};
use super::pass::Pass;
use super::product::{Finish, LayerSums, Matrix, add_gradient, multiply, transpose};
use super::tiles::{GRADIENT_TILE, TileKernel};
use crate::engine::simd::lanes::{Lanes, ZERO};
use crate::engine::simd::vector::Vector;
use crate::engine::simd::{Isa, vectorised};
use rayon::prelude::*;
use taiga_flow_gpu::layout::{Dense, Layout};
use taiga_flow_gpu::spec::{FlowSpec, Network, Split};

/// A flow with any number of hidden layers.
pub(crate) struct General {
    clamp: f32,
    features: usize,
    layout: Layout,
    blocks: Vec<CouplingBlock>,
}

struct CouplingBlock {
    split: Split,
    networks: Vec<(Network, Vec<Layer>)>,
}

/// The weights of one layer, plain and transposed.
struct Layer {
    forward: Matrix,
    backward: Matrix,
}

impl Layer {
    fn zero(dense: &Dense) -> Layer {
        Layer {
            forward: Matrix::zero(dense.outputs, dense.inputs),
            backward: Matrix::zero(dense.inputs, dense.outputs),
        }
    }

    fn load(&mut self, dense: &Dense, params: &[f32]) {
        self.forward.load(dense, params);
        self.backward.load_transposed(dense, params);
    }
}

/// Results of the networks of a block for a tile.
#[derive(Default)]
pub(crate) struct CouplingWork {
    x: Vec<Lanes>,           // (conditioning features, vectors)
    hidden: Vec<Vec<Lanes>>, // (hidden layers) of (width, vectors): one network's
    scale: Vec<Lanes>,       // (transformed features, vectors) s
    shift: Vec<Lanes>,       // (transformed features, vectors) μ
    log_det: Vec<Lanes>,     // (vectors)
}

/// Working memory and sums of one thread for a gradient.
pub(crate) struct GradientScratch {
    pass: Pass,
    work: CouplingWork,
    sums: Vec<Vec<Vec<LayerSums>>>, // (blocks, networks, layers)
    g_scale: Vec<Lanes>,            // (transformed features, vectors) ∂L/∂σ
    g_shift: Vec<Lanes>,            // (transformed features, vectors) ∂L/∂μ
    upstream: Vec<Lanes>,           // (outputs, vectors) ∂L/∂ output of a layer
    below: Vec<Lanes>,              // (inputs, vectors) ∂L/∂ its input
    transposed: Vec<Lanes>,         // (events, vectors of inputs)
}

impl General {
    /// Creates a flow of `spec` with all parameters zero.
    pub(crate) fn new(spec: &FlowSpec) -> General {
        let layout = Layout::new(spec);
        let network = |b: usize, n: usize| layout.network(b, n).iter().map(Layer::zero).collect();
        let blocks = (0..spec.blocks)
            .map(|b| CouplingBlock {
                split: spec.split(b),
                networks: spec
                    .networks()
                    .iter()
                    .enumerate()
                    .map(|(n, k)| (*k, network(b, n)))
                    .collect(),
            })
            .collect();
        General { clamp: spec.scale_clamp, features: spec.features, layout, blocks }
    }

    /// Computes s and μ of a block.
    fn couple(&self, isa: Isa, block: &CouplingBlock, tile: &LaneTile, work: &mut CouplingWork) {
        let vectors = tile.vectors;
        gather(tile, &block.split.conditioner, &mut work.x);
        for output in [&mut work.scale, &mut work.shift] {
            output.clear();
            output.resize(block.split.transformed.len() * vectors, ZERO);
        }
        for (kind, layers) in &block.networks {
            run_hidden(isa, layers, vectors, &work.x, &mut work.hidden);
            let (Some(last), Some(h)) = (layers.last(), work.hidden.last()) else { return };
            let out = match kind {
                Network::Scale => &mut work.scale,
                Network::Shift => &mut work.shift,
            };
            multiply(isa, &last.forward, h, vectors, Finish::Plain, out);
            if *kind == Network::Scale {
                clamp_all(isa, self.clamp, out);
            }
        }
    }

    /// Applies all blocks, and keeps the values for the backward pass.
    fn forward(&self, isa: Isa, pass: &mut Pass, work: &mut CouplingWork) {
        work.start(pass.tile.vectors);
        for (b, block) in self.blocks.iter().enumerate() {
            self.couple(isa, block, &pass.tile, work);
            transform_kept(isa, b, &block.split.transformed, work, pass);
        }
        turn(isa, self.features, &work.log_det, pass);
    }

    /// Computes ∂L/∂x of block b from ∂L/∂y; restores the tile before the block.
    fn backward(&self, isa: Isa, b: usize, scratch: &mut GradientScratch) {
        let CouplingBlock { split, networks } = &self.blocks[b];
        let vectors = scratch.pass.tile.vectors;
        gather(&scratch.pass.tile, &split.conditioner, &mut scratch.work.x);
        scratch.g_scale.resize(split.transformed.len() * vectors, ZERO);
        scratch.g_shift.resize(split.transformed.len() * vectors, ZERO);
        transform_back(isa, (b, self.clamp), &split.transformed, scratch);
        for (n, (kind, layers)) in networks.iter().enumerate() {
            run_hidden(isa, layers, vectors, &scratch.work.x, &mut scratch.work.hidden);
            let from = match kind {
                Network::Scale => &scratch.g_scale,
                Network::Shift => &scratch.g_shift,
            };
            scratch.upstream.clone_from(from);
            network_backward(isa, layers, (b, n), scratch);
            add_upstream(isa, &split.conditioner, &scratch.upstream, &mut scratch.pass);
        }
    }
}

/// Copies the conditioning features of a tile.
fn gather(tile: &LaneTile, features: &[usize], x: &mut Vec<Lanes>) {
    x.clear();
    for d in features {
        x.extend_from_slice(&tile.x[d * tile.vectors..][..tile.vectors]);
    }
}

/// Computes the rectified hidden layers of a network.
fn run_hidden(
    isa: Isa,
    layers: &[Layer],
    vectors: usize,
    x: &[Lanes],
    hidden: &mut Vec<Vec<Lanes>>,
) {
    hidden.resize_with(layers.len() - 1, Vec::new);
    for l in 0..layers.len() - 1 {
        let (before, after) = hidden.split_at_mut(l);
        let input = before.last().map_or(x, Vec::as_slice);
        let (matrix, out) = (&layers[l].forward, &mut after[0]);
        out.resize(matrix.rows() * vectors, ZERO);
        multiply(isa, matrix, input, vectors, Finish::Rectify, out);
    }
}

/// Adds the gradient of network (block, number) to its sums, layer by layer from the last; replaces
/// the gradient of the output in `upstream` by that of the input.
fn network_backward(
    isa: Isa,
    layers: &[Layer],
    (b, n): (usize, usize),
    scratch: &mut GradientScratch,
) {
    let GradientScratch { pass, work, sums, upstream, below, transposed, .. } = scratch;
    let vectors = pass.tile.vectors;
    for l in (0..layers.len()).rev() {
        let input = if l > 0 { &work.hidden[l - 1] } else { &work.x };
        let finish = if l > 0 { Finish::WherePositive(input) } else { Finish::Plain };
        transpose(input, vectors, transposed);
        let (sums, unusable) = (&mut sums[b][n][l], &mut pass.unusable);
        add_gradient(isa, upstream, transposed, vectors, pass.bound, sums, unusable);
        below.resize(input.len(), ZERO);
        multiply(isa, &layers[l].backward, upstream, vectors, finish, below);
        std::mem::swap(upstream, below);
    }
}

impl CouplingWork {
    fn start(&mut self, vectors: usize) {
        self.log_det.clear();
        self.log_det.resize(vectors, ZERO);
    }
}

impl TileKernel for General {
    type Work = CouplingWork;
    type Scratch = GradientScratch;
    const SCORE_TILE: usize = GRADIENT_TILE;

    fn set_params(&mut self, params: &[f32]) {
        let layout = &self.layout;
        self.blocks.par_iter_mut().enumerate().for_each(|(b, block)| {
            for (n, (_, layers)) in block.networks.iter_mut().enumerate() {
                for (layer, dense) in layers.iter_mut().zip(layout.network(b, n)) {
                    layer.load(dense, params);
                }
            }
        });
    }

    fn log_prob(&self, isa: Isa, tile: &mut LaneTile, work: &mut CouplingWork, out: &mut [f32]) {
        work.start(tile.vectors);
        for block in &self.blocks {
            self.couple(isa, block, tile, work);
            transform(isa, &block.split.transformed, work, tile);
        }
        densities(isa, self.features, &work.log_det, tile, out);
    }

    fn inverse(&self, isa: Isa, tile: &mut LaneTile, work: &mut CouplingWork) {
        for block in self.blocks.iter().rev() {
            self.couple(isa, block, tile, work);
            invert(isa, &block.split.transformed, work, tile);
        }
    }

    fn scratch(&self) -> GradientScratch {
        let network =
            |b: usize, n: usize| self.layout.network(b, n).iter().map(LayerSums::new).collect();
        let sums = self
            .blocks
            .iter()
            .enumerate()
            .map(|(b, block)| (0..block.networks.len()).map(|n| network(b, n)).collect());
        GradientScratch {
            pass: Pass::new(self.blocks.len(), self.features.div_ceil(2)),
            work: CouplingWork::default(),
            sums: sums.collect(),
            g_scale: Vec::new(),
            g_shift: Vec::new(),
            upstream: Vec::new(),
            below: Vec::new(),
            transposed: Vec::new(),
        }
    }

    fn pass(scratch: &mut GradientScratch) -> &mut Pass {
        &mut scratch.pass
    }

    fn clear(scratch: &mut GradientScratch) {
        scratch.sums.iter_mut().flatten().flatten().for_each(LayerSums::clear);
    }

    fn gradient(&self, isa: Isa, scratch: &mut GradientScratch) {
        self.forward(isa, &mut scratch.pass, &mut scratch.work);
        for b in (0..self.blocks.len()).rev() {
            self.backward(isa, b, scratch);
        }
    }

    fn collect(&self, scratch: &GradientScratch, flat: &mut [i64]) {
        let layers = scratch.sums.iter().flatten().flatten();
        for (sums, dense) in layers.zip(self.layout.layers()) {
            sums.add_to(dense, flat);
        }
    }
}

vectorised!(fn clamp_all(clamp: f32, scale: &mut [Lanes]) = clamp_all_body);
vectorised!(fn transform(features: &[usize], work: &mut CouplingWork, tile: &mut LaneTile) = transform_body);
vectorised!(fn invert(features: &[usize], work: &CouplingWork, tile: &mut LaneTile) = invert_body);
vectorised!(fn densities(
    features: usize,
    log_det: &[Lanes],
    tile: &LaneTile,
    out: &mut [f32],
) = densities_body);
vectorised!(fn transform_kept(
    block: usize,
    features: &[usize],
    work: &mut CouplingWork,
    pass: &mut Pass,
) = transform_kept_body);
vectorised!(fn turn(features: usize, log_det: &[Lanes], pass: &mut Pass) = turn_body);
vectorised!(fn transform_back(
    block: (usize, f32), // number, clamp
    features: &[usize],
    scratch: &mut GradientScratch,
) = transform_back_body);
vectorised!(fn add_upstream(features: &[usize], g: &[Lanes], pass: &mut Pass) = add_upstream_body);

#[inline(always)]
fn clamp_all_body<V: Vector>(clamp: f32, scale: &mut [Lanes]) {
    for s in scale {
        *s = clamped(V::load(s), clamp);
    }
}

#[inline(always)]
fn transform_body<V: Vector>(features: &[usize], work: &mut CouplingWork, tile: &mut LaneTile) {
    for (c, &d) in features.iter().enumerate() {
        for v in 0..tile.vectors {
            let (scale, shift) =
                (work.scale[c * tile.vectors + v], work.shift[c * tile.vectors + v]);
            affine::<V>(&mut tile.x[d * tile.vectors + v], &scale, &shift);
            add::<V>(&mut work.log_det[v], &scale);
        }
    }
}

#[inline(always)]
fn transform_kept_body<V: Vector>(
    block: usize,
    features: &[usize],
    work: &mut CouplingWork,
    pass: &mut Pass,
) {
    let vectors = pass.tile.vectors;
    for (c, &d) in features.iter().enumerate() {
        for v in 0..vectors {
            let (scale, shift) = (work.scale[c * vectors + v], work.shift[c * vectors + v]);
            pass.transform::<V>((block, c, d), v, &scale, &shift);
            add::<V>(&mut work.log_det[v], &scale);
        }
    }
}

#[inline(always)]
fn invert_body<V: Vector>(features: &[usize], work: &CouplingWork, tile: &mut LaneTile) {
    for (c, &d) in features.iter().enumerate() {
        for v in 0..tile.vectors {
            let at = c * tile.vectors + v;
            let x = &mut tile.x[d * tile.vectors + v];
            affine_back::<V>(x, &work.scale[at], &work.shift[at]);
        }
    }
}

#[inline(always)]
fn densities_body<V: Vector>(features: usize, log_det: &[Lanes], tile: &LaneTile, out: &mut [f32]) {
    for v in 0..tile.vectors {
        let log_prob = standard_normal(features, tile, v, V::load(&log_det[v]));
        tile.store_vector(v, &log_prob, out);
    }
}

#[inline(always)]
fn turn_body<V: Vector>(features: usize, log_det: &[Lanes], pass: &mut Pass) {
    for v in 0..pass.tile.vectors {
        pass.turn(features, v, V::load(&log_det[v]));
    }
}

#[inline(always)]
fn transform_back_body<V: Vector>(
    (block, clamp): (usize, f32),
    features: &[usize],
    scratch: &mut GradientScratch,
) {
    let vectors = scratch.pass.tile.vectors;
    for (c, &d) in features.iter().enumerate() {
        for v in 0..vectors {
            let (g_scale, g_shift) = scratch.pass.transform_back::<V>((block, c, d), v, clamp);
            g_scale.store(&mut scratch.g_scale[c * vectors + v]);
            g_shift.store(&mut scratch.g_shift[c * vectors + v]);
        }
    }
}

#[inline(always)]
fn add_upstream_body<V: Vector>(features: &[usize], g: &[Lanes], pass: &mut Pass) {
    let vectors = pass.tile.vectors;
    for (c, &d) in features.iter().enumerate() {
        for v in 0..vectors {
            pass.add_upstream::<V>(d, v, &g[c * vectors + v]);
        }
    }
}

#[inline(always)]
fn add<V: Vector>(total: &mut Lanes, x: &Lanes) {
    V::add(V::load(total), V::load(x)).store(total);
}
