//! Couplings between networks with several hidden layers, on features in columns (features, events).

use super::math::{exp, tanh};
use cubecl::prelude::*;

/// Transposes rows (n, features) into columns (features, n).
#[cube(launch_unchecked)]
pub(crate) fn to_columns(
    rows: &Array<f32>,
    columns: &mut Array<f32>,
    n: u32,
    #[comptime] features: usize,
) {
    let event = ABSOLUTE_POS;
    if event < n as usize {
        #[unroll]
        for d in 0..features {
            columns[d * n as usize + event] = rows[event * features + d];
        }
    }
}

/// Transposes columns (features, n) into rows (n, features).
#[cube(launch_unchecked)]
pub(crate) fn to_rows(
    columns: &Array<f32>,
    rows: &mut Array<f32>,
    n: u32,
    #[comptime] features: usize,
) {
    let event = ABSOLUTE_POS;
    if event < n as usize {
        #[unroll]
        for d in 0..features {
            rows[event * features + d] = columns[d * n as usize + event];
        }
    }
}

/// Copies the conditioning features of block `block` into `conditioner` (count, n), from the
/// columns of `inputs` (columns, n) starting at `first`. `halves` (blocks, features) has the
/// conditioning features of each block, then the transformed ones.
#[cube(launch_unchecked)]
pub(crate) fn take_conditioner(
    inputs: &Array<f32>,
    halves: &Array<u32>,
    conditioner: &mut Array<f32>,
    first: u32,
    block: u32,
    count: u32,
    n: u32,
    #[comptime] features: usize,
) {
    let (n, at) = (n as usize, ABSOLUTE_POS);
    if at < n {
        for k in 0..count as usize {
            let feature = halves[block as usize * features + k] as usize;
            conditioner[k * n + at] = inputs[(first as usize + feature) * n + at];
        }
    }
}

/// Applies one block: computes the next `inputs` from those of `block` and the networks' outputs
/// (transformed, n). s goes to `scales` (blocks, features, n), Σ s is added to `log_det`.
#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
pub(crate) fn couple(
    inputs: &mut Array<f32>,
    halves: &Array<u32>,
    sigma: &Array<f32>,
    shift: &Array<f32>,
    scales: &mut Array<f32>,
    log_det: &mut Array<f32>,
    block: u32,
    count: u32,
    n: u32,
    clamp: f32,
    #[comptime] features: usize,
    #[comptime] affine: bool,
) {
    let (n, at, block) = (n as usize, ABSOLUTE_POS, block as usize);
    if at < n {
        let mut sum = 0.0f32;
        if block > 0 {
            sum = log_det[at];
        }
        for k in 0..count as usize {
            let feature = halves[block * features + k] as usize;
            inputs[((block + 1) * features + feature) * n + at] =
                inputs[(block * features + feature) * n + at];
        }
        for k in 0..features - count as usize {
            let feature = halves[block * features + count as usize + k] as usize;
            let x = inputs[(block * features + feature) * n + at];
            let mut y = x + shift[k * n + at];
            if comptime!(affine) {
                let s = clamp * tanh(sigma[k * n + at] / clamp);
                y = fma(x, exp(s), shift[k * n + at]);
                scales[(block * features + k) * n + at] = s;
                sum += s;
            }
            inputs[((block + 1) * features + feature) * n + at] = y;
        }
        log_det[at] = sum;
    }
}

/// Inverts one block: replaces `state` (features, n) after the block by the state before it.
#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
pub(crate) fn uncouple(
    state: &mut Array<f32>,
    halves: &Array<u32>,
    sigma: &Array<f32>,
    shift: &Array<f32>,
    block: u32,
    count: u32,
    n: u32,
    clamp: f32,
    #[comptime] features: usize,
    #[comptime] affine: bool,
) {
    let (n, at, block) = (n as usize, ABSOLUTE_POS, block as usize);
    if at < n {
        for k in 0..features - count as usize {
            let feature = halves[block * features + count as usize + k] as usize;
            let mut x = state[feature * n + at] - shift[k * n + at];
            if comptime!(affine) {
                x *= exp(-(clamp * tanh(sigma[k * n + at] / clamp)));
            }
            state[feature * n + at] = x;
        }
    }
}

/// Computes log p from the latent, which is the last of `inputs`, and `log_det` (n).
#[cube(launch_unchecked)]
pub(crate) fn density(
    inputs: &Array<f32>,
    log_det: &Array<f32>,
    log_prob: &mut Array<f32>,
    n: u32,
    #[comptime] features: usize,
    #[comptime] blocks: usize,
) {
    let (n, at) = (n as usize, ABSOLUTE_POS);
    if at < n {
        let mut tiling = 0.0f32;
        #[unroll]
        for d in 0..features {
            let z = inputs[comptime!(blocks * features + d) * n + at];
            tiling = fma(z, z, tiling);
        }
        let normal = comptime!(features as f32 * 0.918_938_5f32);
        log_prob[at] = log_det[at] - 0.5f32 * tiling - normal;
    }
}

/// Computes ∂(weight · −log p)/∂z = weight · z into `gradient` (features, n).
#[cube(launch_unchecked)]
pub(crate) fn density_backward(
    inputs: &Array<f32>,
    loss_weights: &Array<f32>,
    gradient: &mut Array<f32>,
    n: u32,
    #[comptime] features: usize,
    #[comptime] blocks: usize,
) {
    let (n, at) = (n as usize, ABSOLUTE_POS);
    if at < n {
        #[unroll]
        for d in 0..features {
            let z = inputs[comptime!(blocks * features + d) * n + at];
            gradient[d * n + at] = loss_weights[at] * z;
        }
    }
}

/// Applies one block backwards: computes the gradients of the networks' outputs (transformed, n),
/// and `gradient` (features, n) of the block's transformed inputs.
#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
pub(crate) fn couple_backward(
    inputs: &Array<f32>,
    halves: &Array<u32>,
    scales: &Array<f32>,
    loss_weights: &Array<f32>,
    gradient: &mut Array<f32>,
    of_sigma: &mut Array<f32>,
    of_shift: &mut Array<f32>,
    block: u32,
    count: u32,
    n: u32,
    clamp: f32,
    #[comptime] features: usize,
    #[comptime] affine: bool,
) {
    let (n, at, block) = (n as usize, ABSOLUTE_POS, block as usize);
    if at < n {
        for k in 0..features - count as usize {
            let feature = halves[block * features + count as usize + k] as usize;
            let g = gradient[feature * n + at];
            of_shift[k * n + at] = g;
            if comptime!(affine) {
                let s = scales[(block * features + k) * n + at];
                let scale = exp(s);
                let x = inputs[(block * features + feature) * n + at];
                // The same order of operations as in the fused kernel.
                let of_s = fma(g * x, scale, -loss_weights[at]);
                let ratio = s / clamp;
                of_sigma[k * n + at] = of_s * fma(-ratio, ratio, 1.0f32);
                gradient[feature * n + at] = g * scale;
            }
        }
    }
}

/// Adds `of_conditioner` (count, n) to the `gradient` of the conditioning features.
#[cube(launch_unchecked)]
pub(crate) fn add_conditioner(
    of_conditioner: &Array<f32>,
    halves: &Array<u32>,
    gradient: &mut Array<f32>,
    block: u32,
    count: u32,
    n: u32,
    #[comptime] features: usize,
) {
    let (n, at) = (n as usize, ABSOLUTE_POS);
    if at < n {
        for k in 0..count as usize {
            let feature = halves[block as usize * features + k] as usize;
            gradient[feature * n + at] += of_conditioner[k * n + at];
        }
    }
}
