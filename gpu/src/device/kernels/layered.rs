//! Networks with several hidden layers: tiled matrix products for the layers, and couplings between
//! the networks.
//!
//! Activations are in device memory (units, events). Every sum over k runs in the order of k, so
//! the shape of a tile does not change a bit.

use super::fixed::{add_wide, is_usable, to_fixed};
use cubecl::prelude::*;

/// Matrix product of a layer y = W x + b, W (outputs, inputs), for n events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Product {
    /// y (outputs, n), rectified or not.
    Forward { rectified: bool },
    /// Wᵀ g (inputs, n) for g (outputs, n). If the inputs are rectified units, inactive ones get 0.
    Backward { rectified: bool },
}

/// Tiling of a product: a cube computes (`side` · `each`)² numbers, each of its `side`² threads
/// `each`².
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct GemmTiling {
    pub(crate) side: usize,
    pub(crate) each: usize,
    /// Terms of the sums in shared memory at a time.
    pub(crate) depth: usize,
}

impl GemmTiling {
    pub(crate) fn edge(&self) -> usize {
        self.side * self.each
    }

    pub(crate) fn threads(&self) -> usize {
        self.side * self.side
    }
}

/// Adds the products of `depth` terms in shared memory to `sums` (each, each).
#[cube]
fn multiply(
    a: &SharedMemory<f32>,
    b: &SharedMemory<f32>,
    sums: &mut Array<f32>,
    #[comptime] tiling: GemmTiling,
) {
    let (side, each) = comptime!((tiling.side, tiling.each));
    let edge = comptime!(tiling.edge());
    let down = UNIT_POS as usize / side;
    let across = UNIT_POS as usize % side;
    let mut left = Array::<f32>::new(each);
    let mut right = Array::<f32>::new(each);
    for k in 0..comptime!(tiling.depth) {
        #[unroll]
        for i in 0..each {
            left[i] = a[k * edge + down + comptime!(i * side)];
            right[i] = b[k * edge + across + comptime!(i * side)];
        }
        #[unroll]
        for i in 0..each {
            #[unroll]
            for j in 0..each {
                sums[comptime!(i * each + j)] =
                    fma(left[i], right[j], sums[comptime!(i * each + j)]);
            }
        }
    }
}

/// Computes `out` (rows, n), a product with the weights at offset `weight` of the parameters. Cube
/// (x, y): events, rows. `x` is the layer's input; `Backward` reads its signs.
#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
pub(crate) fn layer(
    params: &Array<f32>,
    from: &Array<f32>,
    x: &Array<f32>,
    out: &mut Array<f32>,
    weight: u32,
    inputs: u32,
    outputs: u32,
    n: u32,
    #[comptime] product: Product,
    #[comptime] tiling: GemmTiling,
) {
    let (side, each) = comptime!((tiling.side, tiling.each));
    let edge = comptime!(tiling.edge());
    let forward = comptime!(matches!(product, Product::Forward { .. }));
    let (inputs, outputs, n) = (inputs as usize, outputs as usize, n as usize);
    let weight = weight as usize;
    let rows = if comptime!(forward) { outputs } else { inputs };
    let terms = if comptime!(forward) { inputs } else { outputs };
    let mut a = SharedMemory::<f32>::new(comptime!(tiling.depth * tiling.edge()));
    let mut b = SharedMemory::<f32>::new(comptime!(tiling.depth * tiling.edge()));
    let mut sums = Array::<f32>::new(comptime!(tiling.each * tiling.each));
    let top = CUBE_POS_Y as usize * edge;
    let first = CUBE_POS_X as usize * edge;
    let down = UNIT_POS as usize / side;
    let across = UNIT_POS as usize % side;
    #[unroll]
    for i in 0..each {
        let row = min(top + down + comptime!(i * side), rows - 1);
        // The bias comes first, as in the other engines.
        let mut start = 0.0f32;
        if comptime!(forward) {
            start = params[weight + inputs * outputs + row];
        }
        #[unroll]
        for j in 0..each {
            sums[comptime!(i * each + j)] = start;
        }
    }
    for k in range_stepped(0usize, terms, comptime!(tiling.depth)) {
        sync_cube();
        stage_terms(
            params, from, &mut a, &mut b, weight, inputs, outputs, n, k, top, first, forward,
            tiling,
        );
        sync_cube();
        multiply(&a, &b, &mut sums, tiling);
    }
    store_product(&sums, x, out, top, first, down, across, rows, n, product, tiling);
}

/// Copies `depth` terms of a product, starting at term `k`, into shared memory: weights of the rows
/// from `top`, and values of the events from `first`. Terms outside the matrix are zeros.
#[cube]
#[allow(clippy::too_many_arguments)]
fn stage_terms(
    params: &Array<f32>,
    from: &Array<f32>,
    a: &mut SharedMemory<f32>,
    b: &mut SharedMemory<f32>,
    weight: usize,
    inputs: usize,
    outputs: usize,
    n: usize,
    k: usize,
    top: usize,
    first: usize,
    #[comptime] forward: bool,
    #[comptime] tiling: GemmTiling,
) {
    let edge = comptime!(tiling.edge());
    let rows = if comptime!(forward) { outputs } else { inputs };
    let terms = if comptime!(forward) { inputs } else { outputs };
    for i in range_stepped(
        UNIT_POS as usize,
        comptime!(tiling.depth * tiling.edge()),
        comptime!(tiling.threads()),
    ) {
        let term = k + i / edge;
        let row = top + i % edge;
        let event = first + i % edge;
        let mut w = 0.0f32;
        let mut v = 0.0f32;
        if term < terms {
            if row < rows {
                if comptime!(forward) {
                    w = params[weight + row * inputs + term];
                } else {
                    w = params[weight + term * inputs + row];
                }
            }
            if event < n {
                v = from[term * n + event];
            }
        }
        a[i] = w;
        b[i] = v;
    }
}

/// Applies the rectification of a product, and stores it.
#[cube]
#[allow(clippy::too_many_arguments)]
fn store_product(
    sums: &Array<f32>,
    x: &Array<f32>,
    out: &mut Array<f32>,
    top: usize,
    first: usize,
    down: usize,
    across: usize,
    rows: usize,
    n: usize,
    #[comptime] product: Product,
    #[comptime] tiling: GemmTiling,
) {
    let (side, each) = comptime!((tiling.side, tiling.each));
    #[unroll]
    for i in 0..each {
        let row = top + down + comptime!(i * side);
        #[unroll]
        for j in 0..each {
            let event = first + across + comptime!(j * side);
            if row < rows {
                if event < n {
                    let mut y = sums[comptime!(i * each + j)];
                    if comptime!(product == Product::Forward { rectified: true }) {
                        y = max(y, 0.0f32);
                    }
                    if comptime!(product == Product::Backward { rectified: true }) {
                        y = select(x[row * n + event] > 0.0f32, y, 0.0f32);
                    }
                    out[row * n + event] = y;
                }
            }
        }
    }
}

/// Computes the gradients of a layer's weights and biases: g xᵀ and the sums of g (outputs, n) over
/// the events of each tile. Cube (x, y, z): inputs and the bias, outputs, tiles `ranges[z] …
/// ranges[z + 1]`. The sum over these tiles goes to `partials` (z, parameters) as two words each.
/// `tiles`, `bounds` and `flags` are as for the fused kernel.
#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
pub(crate) fn layer_gradient(
    g: &Array<f32>,
    x: &Array<f32>,
    tiles: &Array<u32>,
    bounds: &Array<f32>,
    ranges: &Array<u32>,
    partials: &mut Array<u32>,
    flags: &mut Array<u32>,
    weight: u32,
    inputs: u32,
    outputs: u32,
    parameters: u32,
    n: u32,
    #[comptime] tiling: GemmTiling,
) {
    let side = comptime!(tiling.side);
    let edge = comptime!(tiling.edge());
    let (inputs, outputs, n) = (inputs as usize, outputs as usize, n as usize);
    let mut a = SharedMemory::<f32>::new(comptime!(tiling.depth * tiling.edge()));
    let mut b = SharedMemory::<f32>::new(comptime!(tiling.depth * tiling.edge()));
    let mut sums = Array::<f32>::new(comptime!(tiling.each * tiling.each));
    let top = CUBE_POS_Y as usize * edge;
    let first = CUBE_POS_X as usize * edge;
    let down = UNIT_POS as usize / side;
    let across = UNIT_POS as usize % side;
    let begin = ranges[CUBE_POS_Z as usize] as usize;
    let end = ranges[CUBE_POS_Z as usize + 1] as usize;
    for tile in begin..end {
        let start = tiles[2 * tile] as usize;
        let stop = start + tiles[2 * tile + 1] as usize;
        #[unroll]
        for i in 0..comptime!(tiling.each * tiling.each) {
            sums[i] = 0.0f32;
        }
        for from in range_stepped(start, stop, comptime!(tiling.depth)) {
            sync_cube();
            stage_events(g, x, &mut a, &mut b, inputs, outputs, n, from, stop, top, first, tiling);
            sync_cube();
            multiply(&a, &b, &mut sums, tiling);
        }
        add_to_partials(
            &sums,
            bounds,
            partials,
            flags,
            tile,
            begin,
            weight as usize,
            inputs,
            outputs,
            parameters as usize,
            top,
            first,
            down,
            across,
            tiling,
        );
    }
}

/// Copies `depth` events of a tile, starting at `from`, into shared memory: gradients of the
/// outputs from `top`, and inputs from `first` with a 1 for the bias. Events from `stop` on are
/// zeros.
#[cube]
#[allow(clippy::too_many_arguments)]
fn stage_events(
    g: &Array<f32>,
    x: &Array<f32>,
    a: &mut SharedMemory<f32>,
    b: &mut SharedMemory<f32>,
    inputs: usize,
    outputs: usize,
    n: usize,
    from: usize,
    stop: usize,
    top: usize,
    first: usize,
    #[comptime] tiling: GemmTiling,
) {
    let edge = comptime!(tiling.edge());
    for i in range_stepped(
        UNIT_POS as usize,
        comptime!(tiling.depth * tiling.edge()),
        comptime!(tiling.threads()),
    ) {
        // Neighbouring threads of a cube read neighbouring events.
        let k = i % comptime!(tiling.depth);
        let line = i / comptime!(tiling.depth);
        let event = from + k;
        let (row, column) = (top + line, first + line);
        let mut up = 0.0f32;
        let mut value = 0.0f32;
        if event < stop {
            if row < outputs {
                up = g[row * n + event];
            }
            if column < inputs {
                value = x[column * n + event];
            } else if column == inputs {
                value = 1.0f32;
            }
        }
        a[k * edge + line] = up;
        b[k * edge + line] = value;
    }
}

/// Rounds the sums of a tile and adds them to the partials of its range; the first tile of a range
/// overwrites them.
#[cube]
#[allow(clippy::too_many_arguments)]
fn add_to_partials(
    sums: &Array<f32>,
    bounds: &Array<f32>,
    partials: &mut Array<u32>,
    flags: &mut Array<u32>,
    tile: usize,
    begin: usize,
    weight: usize,
    inputs: usize,
    outputs: usize,
    parameters: usize,
    top: usize,
    first: usize,
    down: usize,
    across: usize,
    #[comptime] tiling: GemmTiling,
) {
    let (side, each) = comptime!((tiling.side, tiling.each));
    #[unroll]
    for i in 0..each {
        let row = top + down + comptime!(i * side);
        #[unroll]
        for j in 0..each {
            let column = first + across + comptime!(j * side);
            if row < outputs {
                if column <= inputs {
                    let value = sums[comptime!(i * each + j)];
                    if !is_usable(value, bounds[tile]) {
                        flags[tile] = 1u32;
                    }
                    let (low, high) = to_fixed(value);
                    let of_weight = weight + row * inputs + column;
                    let of_bias = weight + inputs * outputs + row;
                    let parameter = select(column < inputs, of_weight, of_bias);
                    let place = 2 * (CUBE_POS_Z as usize * parameters + parameter);
                    if tile == begin {
                        partials[place] = low;
                        partials[place + 1] = high;
                    } else {
                        let (low, high) = add_wide(low, high, partials[place], partials[place + 1]);
                        partials[place] = low;
                        partials[place + 1] = high;
                    }
                }
            }
        }
    }
}
