//! Inputs of a training step: events, weights, and the coefficients of an update.

/// Events of a batch.
#[derive(Debug, Clone, Copy)]
pub enum Events<'a> {
    /// Scaled features (events, features), row-major.
    Rows(&'a [f32]),
    /// Events that the engine holds, by index. Feature d of an event changes its sign if bit d of
    /// its entry in `flips` is set.
    Held { numbers: &'a [u32], flips: Option<&'a [u32]> },
}

/// Weights in training with their running mean and moments, each (parameters).
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Weights {
    pub params: Vec<f32>,
    /// Running mean of the weights.
    pub ema: Vec<f32>,
    pub first_moment: Vec<f32>,
    pub second_moment: Vec<f32>,
}

impl Weights {
    /// Creates untrained weights: the running mean equals the weights, the moments are zero.
    pub fn new(params: Vec<f32>) -> Weights {
        let zeros = vec![0.0; params.len()];
        Weights { ema: params.clone(), params, first_moment: zeros.clone(), second_moment: zeros }
    }

    /// Returns all four vectors.
    pub fn all(&self) -> [&Vec<f32>; 4] {
        [&self.params, &self.ema, &self.first_moment, &self.second_moment]
    }

    /// Returns all four vectors for modification.
    pub fn all_mut(&mut self) -> [&mut Vec<f32>; 4] {
        [&mut self.params, &mut self.ema, &mut self.first_moment, &mut self.second_moment]
    }
}

/// Coefficients of one update by Adam (Kingma and Ba 2015).
///
/// With the mean gradient g clipped to a norm: m ← m + (1 − β₁)(g − m), v ← v + (1 − β₂)(g² − v), θ
/// ← θ − step·m/(√v + ε), θ̄ ← θ̄ + keep·(θ − θ̄).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Adam {
    /// Divisor of the gradient sum: the sum of the loss weights, which is the number of events if
    /// all weights are 1.
    pub divisor: f64,
    pub clip_norm: f64,
    pub beta1: f32,
    pub beta2: f32,
    pub step: f32,
    pub epsilon: f32,
    pub keep: f32,
}
