//! Training state of the CPU engine: gradient sums of a step, and the update by Adam.
//!
//! The update (Kingma and Ba 2015) has gradient clipping and the running mean of the weights (EMA)
//! that is published. Every rank applies the same update to the same reduced gradient, so
//! parameters stay equal without communication. The loops are compiled per instruction set, like
//! the kernels of the engine: without one, a fused multiply-add is a function call.

use super::fixed::{FIXED_ONE, FixedSum};
use super::simd::{Isa, vectorised};
use taiga_flow_gpu::training::{Adam, Weights};

/// Weights in training, and the sums of the current step.
#[derive(Debug)]
pub struct WeightTraining {
    pub weights: Weights,
    pub sums: FixedSum,
    pub loss: Vec<f64>, // (shards of the batches)
    /// Whether the sums of the step are complete; the next batch then starts a new step.
    pub complete: bool,
    /// Norm of the mean gradient of the last update.
    pub gradient_norm: Option<f64>,
}

impl WeightTraining {
    /// Creates the state for `shards` summed parts of a batch, including those of other ranks.
    pub fn new(weights: Weights, shards: usize) -> WeightTraining {
        let sums = FixedSum::new(weights.params.len(), shards);
        WeightTraining { weights, sums, loss: Vec::new(), complete: true, gradient_norm: None }
    }

    /// Starts a new step if the last one is complete. Called before each batch.
    pub fn begin_batch(&mut self) {
        if std::mem::take(&mut self.complete) {
            self.sums.clear();
            self.loss.clear();
        }
    }

    /// Adds the losses of a batch to those of the step.
    pub fn add_loss(&mut self, of_batch: &[f64]) {
        let shards = self.loss.len().max(of_batch.len());
        self.loss.resize(shards, 0.0);
        self.loss.iter_mut().zip(of_batch).for_each(|(loss, batch)| *loss += batch);
    }

    /// Updates the weights from the sums of the step, or from `sums`.
    pub fn update(&mut self, sums: Option<&[i64]>, adam: &Adam) {
        let sums = sums.unwrap_or(&self.sums.values);
        self.gradient_norm = Some(update(&mut self.weights, sums, adam));
    }
}

/// Updates the weights from the fixed-point gradient sum, divided by `adam.divisor`. Returns the
/// norm of the mean gradient before clipping.
pub fn update(weights: &mut Weights, sums: &[i64], adam: &Adam) -> f64 {
    let isa = Isa::detect();
    let mut norm = 0.0;
    euclidean_norm(isa, sums, &mut norm);
    let to_mean = 1.0 / (FIXED_ONE * adam.divisor);
    norm *= to_mean;
    let clip = if norm > adam.clip_norm { adam.clip_norm / norm } else { 1.0 };
    step(isa, weights, sums, adam, to_mean * clip);
    norm
}

vectorised!(fn step(weights: &mut Weights, sums: &[i64], adam: &Adam, scale: f64) = step_body);
vectorised!(fn euclidean_norm(sums: &[i64], norm: &mut f64) = euclidean_norm_body);

#[inline(always)]
#[allow(clippy::extra_unused_type_parameters)] // the compiler vectorises the loops
fn step_body<V>(weights: &mut Weights, sums: &[i64], a: &Adam, scale: f64) {
    let count = sums.len();
    let [params, ema, first, second] = weights.all_mut().map(|values| &mut values[..count]);
    for i in 0..count {
        let g = (sums[i] as f64 * scale) as f32;
        first[i] = a.beta1.mul_add(first[i] - g, g);
        second[i] = a.beta2.mul_add(second[i] - g * g, g * g);
        params[i] = (-a.step).mul_add(first[i] / (second[i].sqrt() + a.epsilon), params[i]);
        ema[i] = a.keep.mul_add(params[i] - ema[i], ema[i]);
    }
}

/// Computes the norm in eight partial sums: a fixed order that is vectorised.
#[inline(always)]
#[allow(clippy::extra_unused_type_parameters)] // the compiler vectorises the loops
fn euclidean_norm_body<V>(sums: &[i64], norm: &mut f64) {
    let mut squares = [0.0_f64; 8];
    let (chunks, rest) = sums.as_chunks::<8>();
    for chunk in chunks {
        for (square, x) in squares.iter_mut().zip(chunk) {
            *square = (*x as f64).mul_add(*x as f64, *square);
        }
    }
    for (square, x) in squares.iter_mut().zip(rest) {
        *square = (*x as f64).mul_add(*x as f64, *square);
    }
    *norm = libm::sqrt(squares.iter().sum());
}
