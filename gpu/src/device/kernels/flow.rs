//! All blocks of a flow in one launch: log-likelihood and inverse.
//!
//! Each thread has several events in registers. The features of an event are in 2·P slots: first
//! the P features of the half that conditions even blocks, then the P of the other half. With
//! seeded halves the slots are permuted between pairs of blocks. With an odd number of features the
//! last slot is zero, and all weights that use it are zero.

use super::math::{exp, tanh};
use super::network::{KernelShape, Quad, network};
use cubecl::prelude::*;

/// Returns the index of this thread's event `e` among the n events of a launch.
#[cube]
pub(crate) fn position(#[comptime] e: usize, #[comptime] events: usize) -> usize {
    CUBE_POS * (CUBE_DIM as usize * events) + e * CUBE_DIM as usize + UNIT_POS as usize
}

/// Reads rows (n, features) into slots by `order` (slots). Threads beyond the last event read the
/// last event.
#[cube]
fn read_events(
    rows: &Array<f32>,
    order: &Array<u32>,
    n: usize,
    x: &mut Array<f32>,
    #[comptime] at: usize,
    #[comptime] events: usize,
    #[comptime] shape: KernelShape,
) {
    #[unroll]
    for slot in 0..comptime!(2 * shape.half) {
        let feature = order[at + slot] as usize;
        #[unroll]
        for e in 0..events {
            let index = comptime!(2 * shape.half * e) + slot;
            if comptime!(slot < shape.features) {
                let row = min(position(e, events), n - 1);
                x[index] = rows[row * shape.features + feature];
            } else {
                x[index] = 0.0f32;
            }
        }
    }
}

/// Sets slot i to the old value of slot `order[at + i]`.
#[cube]
pub(crate) fn shuffle(
    x: &mut Array<f32>,
    order: &Array<u32>,
    at: usize,
    #[comptime] events: usize,
    #[comptime] shape: KernelShape,
) {
    let slots = comptime!(2 * shape.half);
    // An array that is indexed at run time cannot stay in registers: index a copy instead.
    let mut old = Array::<f32>::new(comptime!(slots * events));
    #[unroll]
    for i in 0..comptime!(slots * events) {
        old[i] = x[i];
    }
    #[unroll]
    for slot in 0..slots {
        let from = order[at + slot] as usize;
        #[unroll]
        for e in 0..events {
            x[e * slots + slot] = old[e * slots + from];
        }
    }
}

/// Computes the log-scale s of a block from the scale network's output.
#[cube]
fn clamped(sigma: f32, clamp: f32) -> f32 {
    clamp * tanh(sigma / clamp)
}

/// Stores the features before block `block` for the gradient: `inputs` (blocks + 1, slots, n), the
/// last one is the latent. `coupling` stores s in `scales` (blocks, networks, P, n), in the rows of
/// the scale networks.
#[cube]
#[allow(clippy::too_many_arguments)]
fn keep_inputs(
    x: &Array<f32>,
    inputs: &mut Array<f32>,
    block: usize,
    n: usize,
    #[comptime] events: usize,
    #[comptime] shape: KernelShape,
) {
    let slots = comptime!(2 * shape.half);
    #[unroll]
    for e in 0..events {
        let at = position(e, events);
        if at < n {
            #[unroll]
            for slot in 0..slots {
                inputs[(block * slots + slot) * n + at] = x[e * slots + slot];
            }
        }
    }
}

/// Applies block `block` to `x` and adds its log-determinant; with `keep`, s goes to `scales`.
#[cube]
#[allow(clippy::too_many_arguments)]
fn coupling(
    weights: &Array<Quad>,
    biases: &Array<f32>,
    staged: &mut SharedMemory<Quad>,
    x: &mut Array<f32>,
    log_det: &mut Array<f32>,
    scales: &mut Array<f32>,
    block: usize,
    n: usize,
    clamp: f32,
    #[comptime] first: usize,
    #[comptime] keep: bool,
    #[comptime] events: usize,
    #[comptime] shape: KernelShape,
) {
    let half = comptime!(shape.half);
    let second = comptime!(half - first);
    let networks = comptime!(shape.networks());
    let mut sigma = Array::<f32>::new(comptime!(half * events));
    let mut shift = Array::<f32>::new(comptime!(half * events));
    if comptime!(shape.affine) {
        network(weights, biases, staged, x, &mut sigma, block * 2, first, events, shape);
    }
    let last = block * networks + comptime!(networks - 1);
    network(weights, biases, staged, x, &mut shift, last, first, events, shape);
    #[unroll]
    for e in 0..events {
        let at = position(e, events);
        #[unroll]
        for k in 0..half {
            let slot = comptime!(2 * half * e + second + k);
            if comptime!(shape.affine) {
                let s = clamped(sigma[e * half + k], clamp);
                x[slot] = fma(x[slot], exp(s), shift[e * half + k]);
                log_det[e] += s;
                if comptime!(keep) {
                    if at < n {
                        scales[(block * 2 * half + k) * n + at] = s;
                    }
                }
            } else {
                x[slot] += shift[e * half + k];
            }
        }
    }
}

/// Computes log p of rows (n, features) into `log_prob` (n). With `keep`, also stores the values
/// that the gradient needs: see `keep_inputs`.
///
/// `order` has the features of the slots of the first pair, then for each further pair the previous
/// slot of each slot.
#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
pub(crate) fn forward(
    weights: &Array<Quad>,
    biases: &Array<f32>,
    order: &Array<u32>,
    rows: &Array<f32>,
    log_prob: &mut Array<f32>,
    inputs: &mut Array<f32>,
    scales: &mut Array<f32>,
    n: u32,
    clamp: f32,
    #[comptime] keep: bool,
    #[comptime] events: usize,
    #[comptime] shape: KernelShape,
) {
    let n = n as usize;
    let slots = comptime!(2 * shape.half);
    let mut staged = SharedMemory::<Quad>::new(comptime!(shape.tile * shape.quads()));
    let mut x = Array::<f32>::new(comptime!(slots * events));
    let mut log_det = Array::<f32>::new(events);
    #[unroll]
    for e in 0..events {
        log_det[e] = 0.0f32;
    }
    read_events(rows, order, n, &mut x, 0usize, events, shape);
    for pair in 0..comptime!(shape.blocks.div_ceil(2)) {
        if comptime!(shape.seeded) {
            if pair > 0 {
                shuffle(&mut x, order, pair * slots, events, shape);
            }
        }
        couple_pair(
            weights,
            biases,
            &mut staged,
            &mut x,
            &mut log_det,
            inputs,
            scales,
            pair,
            n,
            clamp,
            keep,
            events,
            shape,
        );
    }
    if comptime!(keep) {
        keep_inputs(&x, inputs, comptime!(shape.blocks), n, events, shape);
    }
    densities(&x, &log_det, log_prob, n, events, shape);
}

/// Applies the two blocks of a pair; with `keep`, the features before each block are stored.
#[cube]
#[allow(clippy::too_many_arguments)]
fn couple_pair(
    weights: &Array<Quad>,
    biases: &Array<f32>,
    staged: &mut SharedMemory<Quad>,
    x: &mut Array<f32>,
    log_det: &mut Array<f32>,
    inputs: &mut Array<f32>,
    scales: &mut Array<f32>,
    pair: usize,
    n: usize,
    clamp: f32,
    #[comptime] keep: bool,
    #[comptime] events: usize,
    #[comptime] shape: KernelShape,
) {
    let half = comptime!(shape.half);
    let even = pair * 2;
    if comptime!(keep) {
        keep_inputs(x, inputs, even, n, events, shape);
    }
    coupling(
        weights, biases, staged, x, log_det, scales, even, n, clamp, 0usize, keep, events, shape,
    );
    // With an odd number of blocks the last pair has one block only. The condition is the same
    // for all threads, as barriers require.
    if even + 1 < comptime!(shape.blocks) {
        if comptime!(keep) {
            keep_inputs(x, inputs, even + 1, n, events, shape);
        }
        coupling(
            weights,
            biases,
            staged,
            x,
            log_det,
            scales,
            even + 1,
            n,
            clamp,
            half,
            keep,
            events,
            shape,
        );
    }
}

/// Computes log p of the events of this thread from their latent points.
#[cube]
fn densities(
    x: &Array<f32>,
    log_det: &Array<f32>,
    log_prob: &mut Array<f32>,
    n: usize,
    #[comptime] events: usize,
    #[comptime] shape: KernelShape,
) {
    let slots = comptime!(2 * shape.half);
    #[unroll]
    for e in 0..events {
        let mut square = 0.0f32;
        #[unroll]
        for slot in 0..slots {
            square = fma(x[e * slots + slot], x[e * slots + slot], square);
        }
        let at = position(e, events);
        if at < n {
            // D · ln √(2π)
            let normal = comptime!(shape.features as f32 * 0.918_938_5f32);
            log_prob[at] = log_det[e] - 0.5f32 * square - normal;
        }
    }
}

/// Computes the rows (n, features) of latent points of the same shape. `order` is as for `forward`,
/// followed by the features of the slots of the last pair.
#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
pub(crate) fn inverse(
    weights: &Array<Quad>,
    biases: &Array<f32>,
    order: &Array<u32>,
    back: &Array<u32>,
    latent: &Array<f32>,
    rows: &mut Array<f32>,
    n: u32,
    clamp: f32,
    #[comptime] events: usize,
    #[comptime] shape: KernelShape,
) {
    let n = n as usize;
    let half = comptime!(shape.half);
    let slots = comptime!(2 * shape.half);
    let pairs = comptime!(shape.blocks.div_ceil(2));
    let mut staged = SharedMemory::<Quad>::new(comptime!(shape.tile * shape.quads()));
    let mut x = Array::<f32>::new(comptime!(slots * events));
    read_events(latent, order, n, &mut x, comptime!(slots * pairs), events, shape);
    for i in 0..pairs {
        let pair = comptime!(pairs - 1) - i;
        let even = pair * 2;
        if even + 1 < comptime!(shape.blocks) {
            uncouple(weights, biases, &mut staged, &mut x, even + 1, clamp, half, events, shape);
        }
        uncouple(weights, biases, &mut staged, &mut x, even, clamp, 0usize, events, shape);
        if comptime!(shape.seeded) {
            if pair > 0 {
                shuffle(&mut x, back, pair * slots, events, shape);
            }
        }
    }
    #[unroll]
    for slot in 0..comptime!(shape.features) {
        let feature = order[slot] as usize;
        #[unroll]
        for e in 0..events {
            let at = position(e, events);
            if at < n {
                rows[at * shape.features + feature] = x[e * slots + slot];
            }
        }
    }
}

/// Applies the inverse of block `block` to `x`.
#[cube]
#[allow(clippy::too_many_arguments)]
fn uncouple(
    weights: &Array<Quad>,
    biases: &Array<f32>,
    staged: &mut SharedMemory<Quad>,
    x: &mut Array<f32>,
    block: usize,
    clamp: f32,
    #[comptime] first: usize,
    #[comptime] events: usize,
    #[comptime] shape: KernelShape,
) {
    let half = comptime!(shape.half);
    let second = comptime!(half - first);
    let networks = comptime!(shape.networks());
    let mut sigma = Array::<f32>::new(comptime!(half * events));
    let mut shift = Array::<f32>::new(comptime!(half * events));
    if comptime!(shape.affine) {
        network(weights, biases, staged, x, &mut sigma, block * 2, first, events, shape);
    }
    let last = block * networks + comptime!(networks - 1);
    network(weights, biases, staged, x, &mut shift, last, first, events, shape);
    #[unroll]
    for e in 0..events {
        #[unroll]
        for k in 0..half {
            let slot = comptime!(2 * half * e + second + k);
            let moved = x[slot] - shift[e * half + k];
            if comptime!(shape.affine) {
                x[slot] = moved * exp(-clamped(sigma[e * half + k], clamp));
            } else {
                x[slot] = moved;
            }
        }
    }
}
