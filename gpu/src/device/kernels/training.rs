//! A training step on the device: selects stored events, and updates the weights from the exact
//! sums.
//!
//! The update is Adam (Kingma and Ba 2015) with clipping and a running mean.

use super::fixed::from_fixed;
use cubecl::prelude::*;

/// Copies rows (n, features) of `table` by index. Feature d of a row changes its sign if bit d of
/// its entry in `flips` is set.
#[cube(launch_unchecked)]
pub(crate) fn gather(
    table: &Array<f32>,
    numbers: &Array<u32>,
    flips: &Array<u32>,
    rows: &mut Array<f32>,
    n: u32,
    #[comptime] flipped: bool,
    #[comptime] features: usize,
) {
    let at = ABSOLUTE_POS;
    if at < n as usize {
        let from = numbers[at] as usize * features;
        #[unroll]
        for d in 0..features {
            let mut x = table[from + d];
            if comptime!(flipped) {
                let flip = (flips[at] >> comptime!(d as u32)) & 1u32;
                x = select(flip == 1u32, -x, x);
            }
            rows[at * features + d] = x;
        }
    }
}

/// Copies `count` numbers into the table, starting at `first`.
#[cube(launch_unchecked)]
pub(crate) fn place(piece: &Array<f32>, table: &mut Array<f32>, first: u32, count: u32) {
    let at = ABSOLUTE_POS;
    if at < count as usize {
        table[first as usize + at] = piece[at];
    }
}

/// Adds the number of set `flags` to `tally`, or stores it if `begin` is 1. One cube.
#[cube(launch_unchecked)]
pub(crate) fn count_flags(
    flags: &Array<u32>,
    tally: &mut Array<u32>,
    count: u32,
    begin: u32,
    #[comptime] threads: usize,
) {
    let mut parts = SharedMemory::<u32>::new(threads);
    let unit = UNIT_POS as usize;
    let mut sum = 0u32;
    for i in range_stepped(unit, count as usize, threads) {
        sum += flags[i];
    }
    parts[unit] = sum;
    sync_cube();
    if unit == 0 {
        let mut total = 0u32;
        if begin == 0u32 {
            total = tally[0];
        }
        for i in 0..threads {
            total += parts[i];
        }
        tally[0] = total;
    }
}

/// Sums the squares of the mean gradient, in one part per cube.
#[cube(launch_unchecked)]
pub(crate) fn squares(
    sums: &Array<u32>,
    parts: &mut Array<f32>,
    parameters: u32,
    to_mean: f32,
    #[comptime] threads: usize,
) {
    let mut lines = SharedMemory::<f32>::new(threads);
    let unit = UNIT_POS as usize;
    let mut sum = 0.0f32;
    let stride = CUBE_COUNT * threads;
    for i in range_stepped(CUBE_POS * threads + unit, parameters as usize, stride) {
        let g = from_fixed(sums[2 * i], sums[2 * i + 1]) * to_mean;
        sum = fma(g, g, sum);
    }
    lines[unit] = sum;
    sync_cube();
    #[unroll]
    for level in 0..comptime!(threads.ilog2() as usize) {
        let width = comptime!(threads >> (level + 1));
        if unit < width {
            lines[unit] = lines[unit] + lines[unit + width];
        }
        sync_cube();
    }
    if unit == 0 {
        parts[CUBE_POS] = lines[0];
    }
}

/// Applies one update, unless `tally` counts unusable tiles. The norm of the mean gradient before
/// clipping goes to `norm`.
#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
pub(crate) fn adam(
    sums: &Array<u32>,
    parts: &Array<f32>,
    tally: &Array<u32>,
    params: &mut Array<f32>,
    ema: &mut Array<f32>,
    first: &mut Array<f32>,
    second: &mut Array<f32>,
    norm: &mut Array<f32>,
    parameters: u32,
    to_mean: f32,
    clip_norm: f32,
    beta1: f32,
    beta2: f32,
    step: f32,
    epsilon: f32,
    keep: f32,
    #[comptime] count: usize,
) {
    let i = ABSOLUTE_POS;
    let mut square = 0.0f32;
    for part in 0..count {
        square += parts[part];
    }
    let length = f32::sqrt(square);
    if i == 0 {
        norm[0] = length;
    }
    if i < parameters as usize {
        if tally[0] == 0u32 {
            let clip = select(length > clip_norm, clip_norm / length, 1.0f32);
            let g = from_fixed(sums[2 * i], sums[2 * i + 1]) * to_mean * clip;
            // As in the CPU engine: differences first, to lose few bits.
            let m = fma(beta1, first[i] - g, g);
            let v = fma(beta2, second[i] - g * g, g * g);
            let theta = fma(-step, m / (f32::sqrt(v) + epsilon), params[i]);
            first[i] = m;
            second[i] = v;
            params[i] = theta;
            ema[i] = fma(keep, theta - ema[i], ema[i]);
        }
    }
}
