//! Adam (Kingma and Ba 2015) with gradient clipping, a warm-up and cosine schedule, and
//! the running mean of the weights (EMA) that is published.
//!
//! Every rank applies the same update to the same reduced gradient, so that parameters
//! stay equal without being sent around. The loops are compiled per instruction set, as
//! the engine's kernels are: without one, a fused multiply-add is a function call.

use crate::config::Train;
use crate::engine::FIXED_ONE;
use crate::engine::cpu::{Isa, vectorised};

/// Parameters and everything that moves with them, each (parameters).
#[derive(Debug, Clone, PartialEq)]
pub struct Weights {
    pub params: Vec<f32>,
    pub ema: Vec<f32>,
    pub first_moment: Vec<f32>,
    pub second_moment: Vec<f32>,
}

impl Weights {
    pub fn new(params: Vec<f32>) -> Weights {
        let zeros = vec![0.0; params.len()];
        Weights { ema: params.clone(), params, first_moment: zeros.clone(), second_moment: zeros }
    }

    /// One update of the parameters from `first` on, from the fixed-point gradient sum of
    /// `count` events; `update` counts from 1. Returns the norm of the mean gradient before
    /// clipping.
    pub fn update(
        &mut self,
        first: usize,
        sums: &[i64],
        count: u64,
        update: u64,
        rate: f64,
        train: &Train,
    ) -> f64 {
        let isa = Isa::detect();
        let mut norm = 0.0;
        euclidean_norm(isa, sums, &mut norm);
        let to_mean = 1.0 / (FIXED_ONE * count as f64);
        norm *= to_mean;
        let clip = if norm > train.clip_norm { train.clip_norm / norm } else { 1.0 };
        let exponent = update as f64;
        let bias1 = 1.0 - libm::pow(train.beta1, exponent);
        let bias2 = 1.0 - libm::pow(train.beta2, exponent);
        // Early on the running mean is over what there is.
        let decay = train.ema.min((1.0 + exponent) / (10.0 + exponent));
        let factors = Factors {
            first,
            scale: to_mean * clip,
            beta1: train.beta1 as f32,
            beta2: train.beta2 as f32,
            // θ ← θ − α·m̂/(√v̂ + ε), with both corrections drawn into two factors
            step: (rate * libm::sqrt(bias2) / bias1) as f32,
            epsilon: (train.epsilon * libm::sqrt(bias2)) as f32,
            keep: (1.0 - decay) as f32,
        };
        adam(isa, self, sums, &factors);
        norm
    }
}

/// What is the same for all parameters in one update.
struct Factors {
    first: usize,
    scale: f64,
    beta1: f32,
    beta2: f32,
    step: f32,
    epsilon: f32,
    keep: f32,
}

vectorised!(fn adam(weights: &mut Weights, sums: &[i64], factors: &Factors) = adam_body);
vectorised!(fn euclidean_norm(sums: &[i64], norm: &mut f64) = euclidean_norm_body);

#[inline(always)]
#[allow(clippy::extra_unused_type_parameters)] // the loops vectorise by themselves
fn adam_body<V>(weights: &mut Weights, sums: &[i64], f: &Factors) {
    let count = sums.len();
    let of = f.first..f.first + count;
    let (params, ema) = (&mut weights.params[of.clone()], &mut weights.ema[of.clone()]);
    let (first, second) = (&mut weights.first_moment[of.clone()], &mut weights.second_moment[of]);
    for i in 0..count {
        let g = (sums[i] as f64 * f.scale) as f32;
        first[i] = f.beta1.mul_add(first[i] - g, g);
        second[i] = f.beta2.mul_add(second[i] - g * g, g * g);
        params[i] = (-f.step).mul_add(first[i] / (second[i].sqrt() + f.epsilon), params[i]);
        ema[i] = f.keep.mul_add(params[i] - ema[i], ema[i]);
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

/// Learning rate of a step: linear warm-up, then half a cosine down to `final_rate`.
pub fn learning_rate(train: &Train, step: u64, steps: u64) -> f64 {
    let warm_up = libm::ceil(train.warm_up * steps as f64);
    let done = step as f64 + 1.0;
    if done <= warm_up {
        return train.learning_rate * done / warm_up;
    }
    let progress = ((done - warm_up) / (steps as f64 - warm_up).max(1.0)).min(1.0);
    let cosine = 0.5 * (1.0 + libm::cos(std::f64::consts::PI * progress));
    train.learning_rate * (train.final_rate + (1.0 - train.final_rate) * cosine)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Adam as the paper writes it, in f64.
    fn by_the_paper(gradients: &[f64], train: &Train, rate: f64) -> f64 {
        let (mut theta, mut m, mut v) = (0.3, 0.0, 0.0);
        for (t, g) in gradients.iter().enumerate() {
            m = train.beta1 * m + (1.0 - train.beta1) * g;
            v = train.beta2 * v + (1.0 - train.beta2) * g * g;
            let t = t as i32 + 1;
            let (m_hat, v_hat) = (m / (1.0 - train.beta1.powi(t)), v / (1.0 - train.beta2.powi(t)));
            theta -= rate * m_hat / (v_hat.sqrt() + train.epsilon);
        }
        theta
    }

    #[test]
    fn updates_are_those_of_adam() {
        let train = Train::default();
        let gradients = [0.5, -1.5, 2.0, 0.25];
        let mut weights = Weights::new(vec![0.3]);
        for (t, g) in gradients.iter().enumerate() {
            let sums = [(g * 10.0 * FIXED_ONE) as i64];
            let norm = weights.update(0, &sums, 10, t as u64 + 1, 0.01, &train);
            assert!((norm - f64::abs(*g)).abs() < 1e-9);
        }
        assert!(
            (f64::from(weights.params[0]) - by_the_paper(&gradients, &train, 0.01)).abs() < 1e-6
        );
    }

    #[test]
    fn a_large_gradient_is_clipped_to_the_norm() {
        let train = Train { clip_norm: 1.0, ..Train::default() };
        let sums = [(300.0 * FIXED_ONE) as i64, (400.0 * FIXED_ONE) as i64];
        let mut weights = Weights::new(vec![0.0, 0.0]);
        assert!((weights.update(0, &sums, 1, 1, 0.1, &train) - 500.0).abs() < 1e-9);
        assert!((weights.first_moment[0] - 0.06).abs() < 1e-6);
        assert!((weights.first_moment[1] - 0.08).abs() < 1e-6);
    }

    #[test]
    fn the_rate_rises_then_falls_to_its_end() {
        let train =
            Train { learning_rate: 1.0, warm_up: 0.1, final_rate: 0.01, ..Train::default() };
        let rates: Vec<f64> = (0..100).map(|s| learning_rate(&train, s, 100)).collect();
        assert!((rates[0] - 0.1).abs() < 1e-12);
        assert!((rates[9] - 1.0).abs() < 1e-12);
        assert!(rates.windows(2).skip(9).all(|w| w[1] < w[0]));
        assert!((rates[99] - 0.01).abs() < 1e-12);
        assert!(learning_rate(&train, 0, 1) > 0.0);
    }
}
