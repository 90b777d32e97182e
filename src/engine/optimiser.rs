//! Training on the processor: the gradient sums of a step, and Adam (Kingma and Ba 2015)
//! with gradient clipping and the running mean of the weights (EMA) that is published.
//!
//! Every rank applies the same update to the same reduced gradient, so that parameters
//! stay equal without being sent around. The loops are compiled per instruction set, as
//! the engine's kernels are: without one, a fused multiply-add is a function call.

use super::cpu::{Isa, vectorised};
use super::{FIXED_ONE, FixedSum};
use taiga_flow_gpu::training::{Adam, Weights};

/// Weights in training, and what the batches of a step come to.
#[derive(Debug)]
pub struct WeightTraining {
    pub weights: Weights,
    pub sums: FixedSum,
    pub loss: Vec<f64>, // (shards of the batches)
    /// The step's sums are complete: the next batch begins anew.
    pub complete: bool,
    /// Of the last update.
    pub gradient_norm: Option<f64>,
}

impl WeightTraining {
    /// Of `shards` parts of a batch that are summed, other ranks' included.
    pub fn new(weights: Weights, shards: usize) -> WeightTraining {
        let sums = FixedSum::new(weights.params.len(), shards);
        WeightTraining { weights, sums, loss: Vec::new(), complete: true, gradient_norm: None }
    }

    /// Before a batch: begins a new step if the last one is complete.
    pub fn begin_batch(&mut self) {
        if std::mem::take(&mut self.complete) {
            self.sums.clear();
            self.loss.clear();
        }
    }

    /// Adds the losses of a batch to the step's.
    pub fn add_loss(&mut self, of_batch: &[f64]) {
        let shards = self.loss.len().max(of_batch.len());
        self.loss.resize(shards, 0.0);
        self.loss.iter_mut().zip(of_batch).for_each(|(loss, batch)| *loss += batch);
    }

    /// One update from the step's sums, or from `sums`.
    pub fn update(&mut self, sums: Option<&[i64]>, adam: &Adam) {
        let sums = sums.unwrap_or(&self.sums.values);
        self.gradient_norm = Some(update(&mut self.weights, sums, adam));
    }
}

/// One update from the fixed-point gradient sum, to be divided by `adam.divisor`. Returns the
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
#[allow(clippy::extra_unused_type_parameters)] // the loops vectorise by themselves
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

/// In eight running sums: a fixed order that vectorises.
#[inline(always)]
#[allow(clippy::extra_unused_type_parameters)] // the loops vectorise by themselves
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
