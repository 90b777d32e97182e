//! Learning rate of each step, and the coefficients of its update.

use crate::config::Train;
use taiga_flow_gpu::training::Adam;

/// Returns the coefficients of the `update`-th update, counted from 1, for a gradient sum that is
/// divided by `divisor`.
pub fn adam(train: &Train, rate: f64, update: u64, divisor: f64) -> Adam {
    let exponent = update as f64;
    let bias1 = 1.0 - libm::pow(train.beta1, exponent);
    let bias2 = 1.0 - libm::pow(train.beta2, exponent);
    // For the first updates the running mean decays faster.
    let decay = train.ema.min((1.0 + exponent) / (10.0 + exponent));
    Adam {
        divisor,
        clip_norm: train.clip_norm,
        beta1: train.beta1 as f32,
        beta2: train.beta2 as f32,
        // θ ← θ − α·m̂/(√v̂ + ε), with both corrections as two factors
        step: (rate * libm::sqrt(bias2) / bias1) as f32,
        epsilon: (train.epsilon * libm::sqrt(bias2)) as f32,
        keep: (1.0 - decay) as f32,
    }
}

/// Returns the learning rate of a step: linear warm-up, then half a cosine down to `final_rate`.
pub(crate) fn learning_rate(train: &Train, step: u64, steps: u64) -> f64 {
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
    use crate::engine::fixed::FIXED_ONE;
    use crate::engine::optimiser::update;
    use taiga_flow_gpu::training::Weights;

    /// Computes Adam as published, in f64.
    fn published_adam(gradients: &[f64], rate: f64) -> f64 {
        let (mut theta, mut m, mut v) = (0.3, 0.0, 0.0);
        let (beta1, beta2, epsilon) = (0.9_f64, 0.999_f64, 1e-8);
        for (t, g) in gradients.iter().enumerate() {
            m = beta1 * m + (1.0 - beta1) * g;
            v = beta2 * v + (1.0 - beta2) * g * g;
            let t = t as i32 + 1;
            let (m_hat, v_hat) = (m / (1.0 - beta1.powi(t)), v / (1.0 - beta2.powi(t)));
            theta -= rate * m_hat / (v_hat.sqrt() + epsilon);
        }
        theta
    }

    #[test]
    fn updates_match_adam() {
        let train = Train::default();
        let gradients = [0.5, -1.5, 2.0, 0.25];
        let mut weights = Weights::new(vec![0.3]);
        for (t, g) in gradients.iter().enumerate() {
            let sums = [(g * 10.0 * FIXED_ONE) as i64];
            let norm = update(&mut weights, &sums, &adam(&train, 0.01, t as u64 + 1, 10.0));
            assert!((norm - f64::abs(*g)).abs() < 1e-9);
        }
        assert!((f64::from(weights.params[0]) - published_adam(&gradients, 0.01)).abs() < 1e-6);
    }

    #[test]
    fn large_gradient_is_clipped_to_the_norm() {
        let train = Train { clip_norm: 1.0, ..Train::default() };
        let sums = [(300.0 * FIXED_ONE) as i64, (400.0 * FIXED_ONE) as i64];
        let mut weights = Weights::new(vec![0.0, 0.0]);
        assert!((update(&mut weights, &sums, &adam(&train, 0.1, 1, 1.0)) - 500.0).abs() < 1e-9);
        assert!((weights.first_moment[0] - 0.06).abs() < 1e-6);
        assert!((weights.first_moment[1] - 0.08).abs() < 1e-6);
    }

    #[test]
    fn rate_rises_then_falls_to_its_end() {
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
