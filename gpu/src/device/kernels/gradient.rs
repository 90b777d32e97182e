//! Gradients of weights and biases as exact integer sums over tiles of events.
//!
//! The events of a tile are summed in f32. The sum is rounded once to a 64-bit integer in units of
//! 2⁻³², and tiles are added as integers. A tile is a range of events of one shard and its order of
//! summation is fixed. Integer sums do not depend on their order, so the bits depend neither on the
//! number of cubes nor on the number of devices.

use super::fixed::{add_wide, is_usable, to_fixed};
use super::network::{KernelShape, Quad, before_activation, through_outputs};
use cubecl::prelude::*;

/// Tiling of the weight gradient.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct GradientTiling {
    /// Threads of a cube.
    pub(crate) threads: usize,
    /// Hidden units of one network per thread.
    pub(crate) owned: usize,
    /// Events in shared memory at a time.
    pub(crate) stage: usize,
}

impl GradientTiling {
    /// Returns the number of cubes per network.
    pub(crate) fn groups(&self, shape: &KernelShape) -> usize {
        shape.hidden.div_ceil(self.threads * self.owned)
    }
}

/// Returns the numbers of a hidden unit that have a gradient: P input weights, the bias, P output
/// weights.
pub(crate) fn per_unit(shape: &KernelShape) -> usize {
    2 * shape.half + 1
}

/// Returns the four-vectors per event in shared memory: P inputs, P upstream gradients.
pub(crate) fn event_quads(shape: &KernelShape) -> usize {
    (2 * shape.half).div_ceil(4)
}

/// Copies `stage` events starting at `start` into shared memory. Events from `end` on are zeros,
/// which add nothing.
#[cube]
#[allow(clippy::too_many_arguments)]
fn stage_events(
    staged: &mut SharedMemory<Quad>,
    inputs: &Array<f32>,
    upstream: &Array<f32>,
    first_input: usize,
    first_upstream: usize,
    start: usize,
    end: usize,
    n: usize,
    #[comptime] tiling: GradientTiling,
    #[comptime] shape: KernelShape,
) {
    let half = comptime!(shape.half);
    let quads = comptime!(event_quads(&shape));
    sync_cube();
    for i in range_stepped(UNIT_POS as usize, comptime!(tiling.stage), comptime!(tiling.threads)) {
        let at = start + i;
        #[unroll]
        for q in 0..quads {
            let mut four = Quad::new(0.0f32);
            if at < end {
                #[unroll]
                for c in 0..4usize {
                    let k = comptime!(4 * q + c);
                    if comptime!(k < half) {
                        four[c] = inputs[(first_input + k) * n + at];
                    } else if comptime!(k < 2 * half) {
                        four[c] = upstream[(first_upstream + comptime!(k - half)) * n + at];
                    }
                }
            }
            staged[i * quads + q] = four;
        }
    }
    sync_cube();
}

/// Computes the gradients of all hidden units. Cube (x, y): x is network and group of units, y the
/// tiles `ranges[y] … ranges[y + 1]`. The sum over these tiles goes to `partials` (y, network,
/// number of the unit, padded hidden units), two words each.
///
/// `tiles` has the first event and the number of events of each tile. `bounds` has the magnitude
/// below which a component of a tile is usable; `flags` (tiles) is set if one is not.
#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
pub(crate) fn weight_gradient(
    weights: &Array<Quad>,
    inputs: &Array<f32>,
    upstream: &Array<f32>,
    tiles: &Array<u32>,
    bounds: &Array<f32>,
    ranges: &Array<u32>,
    partials: &mut Array<u32>,
    flags: &mut Array<u32>,
    n: u32,
    #[comptime] tiling: GradientTiling,
    #[comptime] shape: KernelShape,
) {
    let n = n as usize;
    let half = comptime!(shape.half);
    let quads = comptime!(shape.quads());
    let numbers = comptime!(per_unit(&shape));
    let owned = comptime!(tiling.owned);
    let networks = comptime!(shape.networks());
    let network = CUBE_POS_X as usize / comptime!(tiling.groups(&shape));
    let group = CUBE_POS_X as usize % comptime!(tiling.groups(&shape));
    let block = network / networks;
    let first_input = block * comptime!(2 * half) + (block % 2) * half;
    let first_unit = group * comptime!(tiling.threads * owned) + UNIT_POS as usize;

    let mut staged = SharedMemory::<Quad>::new(comptime!(tiling.stage * event_quads(&shape)));
    let mut row = Array::<f32>::new(comptime!(4 * quads * owned));
    let mut sums = Array::<f32>::new(comptime!(numbers * owned));
    read_owned(weights, &mut row, network, first_unit, tiling, shape);

    let begin = ranges[CUBE_POS_Y as usize] as usize;
    let end = ranges[CUBE_POS_Y as usize + 1] as usize;
    for tile in begin..end {
        let start = tiles[2 * tile] as usize;
        let count = tiles[2 * tile + 1] as usize;
        #[unroll]
        for i in 0..comptime!(numbers * owned) {
            sums[i] = 0.0f32;
        }
        sum_tile(
            &mut staged,
            &row,
            &mut sums,
            inputs,
            upstream,
            first_input,
            network,
            start,
            count,
            n,
            tiling,
            shape,
        );
        add_to_partials(
            &sums, bounds, partials, flags, tile, begin, network, first_unit, tiling, shape,
        );
    }
}

/// Adds the gradients of the `count` events of a tile, starting at `start`, to `sums`.
#[cube]
#[allow(clippy::too_many_arguments)]
fn sum_tile(
    staged: &mut SharedMemory<Quad>,
    row: &Array<f32>,
    sums: &mut Array<f32>,
    inputs: &Array<f32>,
    upstream: &Array<f32>,
    first_input: usize,
    network: usize,
    start: usize,
    count: usize,
    n: usize,
    #[comptime] tiling: GradientTiling,
    #[comptime] shape: KernelShape,
) {
    let half = comptime!(shape.half);
    let stages = (count + comptime!(tiling.stage - 1)) / comptime!(tiling.stage);
    for s in 0..stages {
        let from = start + s * comptime!(tiling.stage);
        stage_events(
            staged,
            inputs,
            upstream,
            first_input,
            network * half,
            from,
            start + count,
            n,
            tiling,
            shape,
        );
        let here = min(start + count - from, comptime!(tiling.stage));
        for i in 0..here {
            add_event(staged, row, sums, i, tiling, shape);
        }
    }
}

/// Reads the packed hidden units of this thread into `row`.
#[cube]
fn read_owned(
    weights: &Array<Quad>,
    row: &mut Array<f32>,
    network: usize,
    first_unit: usize,
    #[comptime] tiling: GradientTiling,
    #[comptime] shape: KernelShape,
) {
    let quads = comptime!(shape.quads());
    let padded = comptime!(shape.padded());
    #[unroll]
    for u in 0..comptime!(tiling.owned) {
        let unit = min(first_unit + comptime!(u * tiling.threads), comptime!(padded - 1));
        #[unroll]
        for q in 0..quads {
            let four = weights[(network * padded + unit) * quads + q];
            #[unroll]
            for c in 0..4usize {
                row[comptime!(4 * (u * quads + q) + c)] = four[c];
            }
        }
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
    network: usize,
    first_unit: usize,
    #[comptime] tiling: GradientTiling,
    #[comptime] shape: KernelShape,
) {
    let numbers = comptime!(per_unit(&shape));
    let padded = comptime!(shape.padded());
    #[unroll]
    for u in 0..comptime!(tiling.owned) {
        let unit = first_unit + comptime!(u * tiling.threads);
        if unit < padded {
            #[unroll]
            for k in 0..numbers {
                let value = sums[comptime!(u * numbers + k)];
                if !is_usable(value, bounds[tile]) {
                    flags[tile] = 1u32;
                }
                let (low, high) = to_fixed(value);
                let place = ((CUBE_POS_Y as usize * comptime!(shape.blocks * shape.networks())
                    + network)
                    * numbers
                    + k)
                    * padded
                    + unit;
                if tile == begin {
                    partials[2 * place] = low;
                    partials[2 * place + 1] = high;
                } else {
                    let (low, high) =
                        add_wide(low, high, partials[2 * place], partials[2 * place + 1]);
                    partials[2 * place] = low;
                    partials[2 * place + 1] = high;
                }
            }
        }
    }
}

/// Adds the contribution of one event to the sums of the hidden units of this thread.
#[cube]
fn add_event(
    staged: &SharedMemory<Quad>,
    rows: &Array<f32>,
    sums: &mut Array<f32>,
    event: usize,
    #[comptime] tiling: GradientTiling,
    #[comptime] shape: KernelShape,
) {
    let half = comptime!(shape.half);
    let quads = comptime!(shape.quads());
    let numbers = comptime!(per_unit(&shape));
    let mut record = Array::<f32>::new(comptime!(4 * event_quads(&shape)));
    #[unroll]
    for q in 0..comptime!(event_quads(&shape)) {
        let four = staged[event * comptime!(event_quads(&shape)) + q];
        #[unroll]
        for c in 0..4usize {
            record[comptime!(4 * q + c)] = four[c];
        }
    }
    #[unroll]
    for u in 0..comptime!(tiling.owned) {
        let at = comptime!(4 * u * quads);
        let mut row = Array::<f32>::new(comptime!(4 * quads));
        #[unroll]
        for i in 0..comptime!(4 * quads) {
            row[i] = rows[at + i];
        }
        let sum = before_activation(&row, &record, 0usize, shape);
        let through = through_outputs(&row, &record, half, shape);
        let through = select(sum > 0.0f32, through, 0.0f32);
        let h = max(sum, 0.0f32);
        let base = comptime!(u * numbers);
        #[unroll]
        for k in 0..half {
            let (w, v) = comptime!((base + k, base + half + 1 + k));
            sums[w] = fma(through, record[k], sums[w]);
            sums[v] = fma(h, record[half + k], sums[v]);
        }
        sums[base + half] += through;
    }
}

/// Sums each row of `upstream` (rows, n) over the events of each tile into `sums` (rows, tiles).
/// The sum of weight · (−log p), treated as one more row, goes to `losses` (tiles). Cube (x, y):
/// row and tile.
#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
pub(crate) fn row_sums(
    upstream: &Array<f32>,
    log_prob: &Array<f32>,
    loss_weights: &Array<f32>,
    tiles: &Array<u32>,
    sums: &mut Array<f32>,
    losses: &mut Array<f32>,
    n: u32,
    rows: u32,
    count: u32,
    #[comptime] threads: usize,
) {
    let mut parts = SharedMemory::<f32>::new(threads);
    let row = CUBE_POS_X as usize;
    let unit = UNIT_POS as usize;
    // Each axis of a grid has a limit, so a cube may process several tiles.
    for tile in range_stepped(CUBE_POS_Y as usize, count as usize, CUBE_COUNT_Y as usize) {
        let start = tiles[2 * tile] as usize;
        let end = start + tiles[2 * tile + 1] as usize;
        let mut sum = 0.0f32;
        for at in range_stepped(start + unit, end, threads) {
            if row < rows as usize {
                sum += upstream[row * n as usize + at];
            } else {
                sum -= loss_weights[at] * log_prob[at];
            }
        }
        sync_cube();
        parts[unit] = sum;
        sync_cube();
        #[unroll]
        for level in 0..comptime!(threads.ilog2() as usize) {
            let width = comptime!(threads >> (level + 1));
            if unit < width {
                parts[unit] = parts[unit] + parts[unit + width];
            }
            sync_cube();
        }
        if unit == 0 {
            if row < rows as usize {
                sums[row * count as usize + tile] = parts[0];
            } else {
                losses[tile] = parts[0];
            }
        }
    }
}

/// Adds the gradient of a launch to `sums` in the order of the flat parameters. `map` (parameters)
/// has the position of a parameter's sums: within a partial, or, from `stride` on, the row of
/// `row_sums`. With `begin` = 1, `sums` (parameters, two words) is overwritten.
#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
pub(crate) fn reduce(
    partials: &Array<u32>,
    row_sums: &Array<f32>,
    map: &Array<u32>,
    bounds: &Array<f32>,
    sums: &mut Array<u32>,
    flags: &mut Array<u32>,
    parameters: u32,
    stride: u32,
    chunks: u32,
    tiles: u32,
    begin: u32,
) {
    let i = ABSOLUTE_POS;
    if i < parameters as usize {
        let mut low = 0u32;
        let mut high = 0u32;
        if begin == 0u32 {
            low = sums[2 * i];
            high = sums[2 * i + 1];
        }
        let from = map[i] as usize;
        if from < stride as usize {
            for chunk in 0..chunks as usize {
                let at = 2 * (chunk * stride as usize + from);
                let (l, h) = add_wide(low, high, partials[at], partials[at + 1]);
                low = l;
                high = h;
            }
        } else {
            for tile in 0..tiles as usize {
                let value = row_sums[(from - stride as usize) * tiles as usize + tile];
                if !is_usable(value, bounds[tile]) {
                    flags[tile] = 1u32;
                }
                let (more_low, more_high) = to_fixed(value);
                let (l, h) = add_wide(low, high, more_low, more_high);
                low = l;
                high = h;
            }
        }
        sums[2 * i] = low;
        sums[2 * i + 1] = high;
    }
}

/// Computes `packed[i] = params[map[i]]`, or 0 if `map[i]` is not the index of a parameter.
#[cube(launch_unchecked)]
pub(crate) fn pack(
    params: &Array<f32>,
    map: &Array<u32>,
    packed: &mut Array<f32>,
    count: u32,
    parameters: u32,
) {
    let i = ABSOLUTE_POS;
    if i < count as usize {
        let from = map[i];
        let inside = from < parameters;
        let value = params[select(inside, from, 0u32) as usize];
        packed[i] = select(inside, value, 0.0f32);
    }
}
