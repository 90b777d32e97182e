//! Backward pass of all blocks of a flow in one launch. Slots are as in `flow`.

use super::flow::{position, shuffle};
use super::math::exp;
use super::network::{KernelShape, Quad, network_backward};
use cubecl::prelude::*;

/// Computes the backward pass of n events from the values that `forward` kept. Writes the gradients
/// of weight · (−log p) with respect to the outputs of every network to `upstream` (blocks,
/// networks, P, n). The rows of the scale networks contain s before.
#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
pub(crate) fn backward(
    weights: &Array<Quad>,
    back: &Array<u32>,
    loss_weights: &Array<f32>,
    inputs: &Array<f32>,
    upstream: &mut Array<f32>,
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
    let mut gradient = Array::<f32>::new(comptime!(slots * events));
    let mut weight = Array::<f32>::new(events);
    density_backward(loss_weights, inputs, &mut weight, &mut gradient, n, events, shape);
    for i in 0..pairs {
        let pair = comptime!(pairs - 1) - i;
        let even = pair * 2;
        if even + 1 < comptime!(shape.blocks) {
            coupling_backward(
                weights,
                &mut staged,
                inputs,
                upstream,
                &weight,
                &mut gradient,
                even + 1,
                n,
                clamp,
                half,
                events,
                shape,
            );
        }
        coupling_backward(
            weights,
            &mut staged,
            inputs,
            upstream,
            &weight,
            &mut gradient,
            even,
            n,
            clamp,
            0usize,
            events,
            shape,
        );
        if comptime!(shape.seeded) {
            if pair > 0 {
                shuffle(&mut gradient, back, pair * slots, events, shape);
            }
        }
    }
}

/// Reads the loss weights of this thread's events, and computes their gradients at the latent
/// points.
#[cube]
fn density_backward(
    loss_weights: &Array<f32>,
    inputs: &Array<f32>,
    weight: &mut Array<f32>,
    gradient: &mut Array<f32>,
    n: usize,
    #[comptime] events: usize,
    #[comptime] shape: KernelShape,
) {
    let slots = comptime!(2 * shape.half);
    #[unroll]
    for e in 0..events {
        let at = min(position(e, events), n - 1);
        weight[e] = loss_weights[at];
        // ∂(−log p)/∂z = z
        #[unroll]
        for slot in 0..slots {
            let z = inputs[comptime!(shape.blocks * slots + slot) * n + at];
            gradient[e * slots + slot] = weight[e] * z;
        }
    }
}

/// Applies block `block` backwards: gradients of the networks' outputs, and of the block's inputs.
#[cube]
#[allow(clippy::too_many_arguments)]
fn coupling_backward(
    weights: &Array<Quad>,
    staged: &mut SharedMemory<Quad>,
    inputs: &Array<f32>,
    upstream: &mut Array<f32>,
    weight: &Array<f32>,
    gradient: &mut Array<f32>,
    block: usize,
    n: usize,
    clamp: f32,
    #[comptime] first: usize,
    #[comptime] events: usize,
    #[comptime] shape: KernelShape,
) {
    let half = comptime!(shape.half);
    let second = comptime!(half - first);
    let slots = comptime!(2 * shape.half);
    let networks = comptime!(shape.networks());
    let last = block * networks + comptime!(networks - 1);
    let mut x = Array::<f32>::new(comptime!(half * events));
    let mut of_sigma = Array::<f32>::new(comptime!(half * events));
    let mut of_shift = Array::<f32>::new(comptime!(half * events));
    #[unroll]
    for e in 0..events {
        let at = position(e, events);
        let from = min(at, n - 1);
        #[unroll]
        for k in 0..half {
            x[e * half + k] = inputs[(block * slots + first + k) * n + from];
            let slot = comptime!(slots * e + second + k);
            let g = gradient[slot];
            of_shift[e * half + k] = g;
            if comptime!(shape.affine) {
                let input = inputs[(block * slots + second + k) * n + from];
                let row = (block * 2 * half + k) * n + from;
                let s = upstream[row];
                let scale = exp(s);
                // ∂L/∂s = g_y · x · e^s − weight (from the log-determinant); through the clamp
                // ∂s/∂σ = 1 − (s/a)²
                let of_s = fma(g * input, scale, -weight[e]);
                let ratio = s / clamp;
                let of_output = of_s * fma(-ratio, ratio, 1.0f32);
                of_sigma[e * half + k] = of_output;
                gradient[slot] = g * scale;
                if at < n {
                    upstream[row] = of_output;
                }
            }
            if at < n {
                upstream[(last * half + k) * n + at] = g;
            }
        }
    }
    if comptime!(shape.affine) {
        network_backward(weights, staged, &x, &of_sigma, gradient, block * 2, first, events, shape);
    }
    network_backward(weights, staged, &x, &of_shift, gradient, last, first, events, shape);
}
