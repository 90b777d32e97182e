//! Evaluates the scale or shift network of a block with one hidden layer, for several events per
//! thread.
//!
//! Hidden activations stay in registers. Weights are read through shared memory, one tile of hidden
//! units at a time.
//!
//! A hidden unit is packed as `[w_0 … w_{P−1}, bias, v_0 … v_{P−1}, 0 …]` in vectors of four: w is
//! its row of the first layer, v its column of the second, P the size of the larger half of the
//! features. Missing features of the smaller half are zeros.

use cubecl::prelude::*;

pub(crate) type Quad = Vector<f32, Const<4>>;

/// Shape that a kernel is compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct KernelShape {
    pub(crate) features: usize,
    pub(crate) blocks: usize,
    /// Hidden units of a network.
    pub(crate) hidden: usize,
    /// P: number of features in the larger half.
    pub(crate) half: usize,
    pub(crate) affine: bool,
    /// Whether the halves differ between pairs of blocks.
    pub(crate) seeded: bool,
    /// Hidden units in shared memory at a time.
    pub(crate) tile: usize,
}

impl KernelShape {
    /// Returns the number of networks of a block.
    pub(crate) fn networks(&self) -> usize {
        1 + usize::from(self.affine)
    }

    /// Returns the number of four-vectors per packed hidden unit.
    pub(crate) fn quads(&self) -> usize {
        (2 * self.half + 1).div_ceil(4)
    }

    pub(crate) fn tiles(&self) -> usize {
        self.hidden.div_ceil(self.tile)
    }

    /// Returns the number of hidden units including padding.
    pub(crate) fn padded(&self) -> usize {
        self.tiles() * self.tile
    }
}

/// Copies the hidden units of tile `tile` of network `index` into shared memory.
#[cube]
fn stage(
    weights: &Array<Quad>,
    staged: &mut SharedMemory<Quad>,
    index: usize,
    tile: usize,
    #[comptime] shape: KernelShape,
) {
    let quads = comptime!(shape.tile * shape.quads());
    sync_cube();
    let base = (index * comptime!(shape.tiles()) + tile) * quads;
    for i in range_stepped(UNIT_POS as usize, quads, CUBE_DIM as usize) {
        staged[i] = weights[base + i];
    }
    sync_cube();
}

/// Reads one packed hidden unit into `row`.
#[cube]
pub(crate) fn read_unit(
    staged: &SharedMemory<Quad>,
    unit: usize,
    row: &mut Array<f32>,
    #[comptime] shape: KernelShape,
) {
    #[unroll]
    for q in 0..comptime!(shape.quads()) {
        let four = staged[unit * comptime!(shape.quads()) + q];
        #[unroll]
        for i in 0..4usize {
            row[q * 4 + i] = four[i];
        }
    }
}

/// Returns Σ_k w_k · x_k + bias of the hidden unit in `row`, for inputs starting at `at`.
#[cube]
pub(crate) fn before_activation(
    row: &Array<f32>,
    x: &Array<f32>,
    #[comptime] at: usize,
    #[comptime] shape: KernelShape,
) -> f32 {
    let mut sum = row[comptime!(shape.half)];
    #[unroll]
    for k in 0..comptime!(shape.half) {
        sum = fma(row[k], x[at + k], sum);
    }
    sum
}

/// Computes the outputs (events, P) of network `index`. `x` has 2·P numbers per event; the network
/// reads the P numbers starting at `first`.
#[cube]
#[allow(clippy::too_many_arguments)]
pub(crate) fn network(
    weights: &Array<Quad>,
    biases: &Array<f32>,
    staged: &mut SharedMemory<Quad>,
    x: &Array<f32>,
    out: &mut Array<f32>,
    index: usize,
    #[comptime] first: usize,
    #[comptime] events: usize,
    #[comptime] shape: KernelShape,
) {
    let half = comptime!(shape.half);
    #[unroll]
    for k in 0..half {
        let bias = biases[index * half + k];
        #[unroll]
        for e in 0..events {
            out[e * half + k] = bias;
        }
    }
    let mut row = Array::<f32>::new(comptime!(4 * shape.quads()));
    for tile in 0..comptime!(shape.tiles()) {
        stage(weights, staged, index, tile, shape);
        for unit in 0..comptime!(shape.tile) {
            read_unit(staged, unit, &mut row, shape);
            #[unroll]
            for e in 0..events {
                let sum = before_activation(&row, x, comptime!(2 * half * e + first), shape);
                let h = max(sum, 0.0f32);
                #[unroll]
                for k in 0..half {
                    out[e * half + k] = fma(row[comptime!(half + 1 + k)], h, out[e * half + k]);
                }
            }
        }
    }
}

/// Adds the gradient of network `index` with respect to its inputs to `gradient` (2·P per event, the
/// P numbers starting at `first`): Σ_units w · 1[unit active] · (v · upstream). The inputs are `x`
/// (events, P); `upstream` has the gradients of the outputs (events, P).
#[cube]
#[allow(clippy::too_many_arguments)]
pub(crate) fn network_backward(
    weights: &Array<Quad>,
    staged: &mut SharedMemory<Quad>,
    x: &Array<f32>,
    upstream: &Array<f32>,
    gradient: &mut Array<f32>,
    index: usize,
    #[comptime] first: usize,
    #[comptime] events: usize,
    #[comptime] shape: KernelShape,
) {
    let half = comptime!(shape.half);
    let mut row = Array::<f32>::new(comptime!(4 * shape.quads()));
    for tile in 0..comptime!(shape.tiles()) {
        stage(weights, staged, index, tile, shape);
        for unit in 0..comptime!(shape.tile) {
            read_unit(staged, unit, &mut row, shape);
            #[unroll]
            for e in 0..events {
                let sum = before_activation(&row, x, comptime!(half * e), shape);
                let through = through_outputs(&row, upstream, comptime!(half * e), shape);
                let through = select(sum > 0.0f32, through, 0.0f32);
                #[unroll]
                for k in 0..half {
                    let at = comptime!(2 * half * e + first + k);
                    gradient[at] = fma(row[k], through, gradient[at]);
                }
            }
        }
    }
}

/// Returns Σ_k v_k · upstream_k of the hidden unit in `row`.
#[cube]
pub(crate) fn through_outputs(
    row: &Array<f32>,
    upstream: &Array<f32>,
    #[comptime] at: usize,
    #[comptime] shape: KernelShape,
) -> f32 {
    let mut sum = row[comptime!(shape.half + 1)] * upstream[at];
    #[unroll]
    for k in 1..comptime!(shape.half) {
        sum = fma(row[comptime!(shape.half + 1 + k)], upstream[at + k], sum);
    }
    sum
}
