//! Loss weights per event for the objectives of fine-tuning.
//!
//! Every objective here is a function of log p alone. So its gradient is that of −log p with a
//! weight per event, which may be negative: ∂L/∂θ = Σ w ∂(−log p)/∂θ with w = −∂L/∂(log p). Engines
//! do not depend on objectives.
//!
//! Push, with ℓ = log p / D (D features): λ·D·T·softplus((ℓ − b)/T) per anomaly. b is a margin
//! below a running quantile of normal ℓ and has no gradient. The push is bounded, because the slope
//! of the softplus vanishes once an anomaly is well below b. Hinge: λ·D·(b_n − ℓ)₊ per normal event
//! and λ·D·(ℓ − b_a)₊ per anomaly (after Yao et al., CVPR 2023).
//!
//! Cross-entropy of t = log p₁ − log p₂ with classes of equal weight: λ/2 · softplus(−t) per event
//! of the first class, λ/2 · softplus(t) per event of the second.

use crate::config::{FineTune, Push, PushForm};

/// Computes ln(1 + eˣ) without overflow.
pub(crate) fn softplus(x: f64) -> f64 {
    x.max(0.0) + libm::log1p(libm::exp(-x.abs()))
}

/// Computes 1/(1 + e⁻ˣ) without overflow.
pub(crate) fn sigmoid(x: f64) -> f64 {
    let e = libm::exp(-x.abs());
    if x >= 0.0 { 1.0 / (1.0 + e) } else { e / (1.0 + e) }
}

/// The push at a value of the running quantile.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PushAt {
    pub push: Push,
    /// λ
    pub weight: f64,
    pub features: usize,
    /// Running quantile of normal log p (of the engine, not per dimension).
    pub quantile: f64,
}

impl PushAt {
    /// Creates the push of a fine-tuning at a weight; without a quantile, anomalies are not pushed.
    pub(crate) fn new(
        fine_tune: &FineTune,
        weight: f64,
        features: usize,
        quantile: Option<f64>,
    ) -> PushAt {
        PushAt {
            push: fine_tune.push,
            weight,
            features,
            quantile: quantile.unwrap_or(f64::INFINITY),
        }
    }

    /// Returns b of anomalies, per dimension.
    fn bound(&self) -> f64 {
        self.quantile / self.features as f64 - self.push.margin
    }

    fn per_dimension(&self, log_prob: f32) -> f64 {
        f64::from(log_prob) / self.features as f64
    }

    /// Returns the loss weight of a normal event, including the 1 of its likelihood.
    pub(crate) fn of_normal(&self, log_prob: f32) -> f64 {
        let above = self.per_dimension(log_prob) >= self.quantile / self.features as f64;
        match self.push.form {
            PushForm::Hinge if !above => 1.0 + self.weight,
            _ => 1.0,
        }
    }

    /// Returns the loss weight of an anomaly: negative, so that its likelihood decreases.
    pub(crate) fn of_anomaly(&self, log_prob: f32) -> f64 {
        let over = self.per_dimension(log_prob) - self.bound();
        match self.push.form {
            PushForm::Softplus => -self.weight * sigmoid(over / self.push.temperature),
            PushForm::Hinge => -self.weight * f64::from(u8::from(over > 0.0)),
        }
    }

    /// Returns the loss of an anomaly, in nats.
    pub(crate) fn loss_of_anomaly(&self, log_prob: f32) -> f64 {
        let over = self.per_dimension(log_prob) - self.bound();
        let t = self.push.temperature;
        let excess = match self.push.form {
            PushForm::Softplus => t * softplus(over / t),
            PushForm::Hinge => over.max(0.0),
        };
        self.weight * self.features as f64 * excess
    }

    /// Returns the loss of a normal event in addition to its likelihood, in nats.
    pub(crate) fn loss_of_normal(&self, log_prob: f32) -> f64 {
        let below = (self.quantile - f64::from(log_prob)).max(0.0);
        if self.push.form == PushForm::Hinge { self.weight * below } else { 0.0 }
    }
}

/// The cross-entropy at a weight.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CrossEntropyAt {
    pub weight: f64,
    /// Events of the first class per unit of weight of the second. The gradient of a flow is
    /// divided by the weight of its own class, for any mixture.
    pub ratio: f64,
}

impl CrossEntropyAt {
    /// Returns the loss weights of an event in the first and the second flow, including the 1 of
    /// the likelihood in its own flow.
    pub(crate) fn weights(&self, first_class: bool, log_prob: [f32; 2]) -> [f64; 2] {
        let t = f64::from(log_prob[0]) - f64::from(log_prob[1]);
        let half = 0.5 * self.weight;
        if first_class {
            let pull = half * sigmoid(-t);
            [1.0 + pull, -pull / self.ratio]
        } else {
            let pull = half * sigmoid(t);
            [-pull * self.ratio, 1.0 + pull]
        }
    }

    /// Returns the loss of an event in addition to its likelihood, in nats.
    pub(crate) fn loss(&self, first_class: bool, log_prob: [f32; 2]) -> f64 {
        let t = f64::from(log_prob[0]) - f64::from(log_prob[1]);
        0.5 * self.weight * softplus(if first_class { -t } else { t })
    }
}

/// Returns the running quantile after a step in which `below` of `events` normal events were below
/// it.
///
/// This is stochastic approximation (Robbins and Monro 1951) with a constant gain. It uses counts
/// only, so the number of ranks cannot change it. A step in which all events are on one side moves
/// it by one nat per dimension.
pub(crate) fn follow(
    quantile: f64,
    below: u64,
    events: u64,
    fraction: f64,
    features: usize,
) -> f64 {
    let share = below as f64 / events.max(1) as f64;
    quantile + features as f64 * (fraction - share)
}

#[cfg(test)]
mod tests {
    use super::*;
    use taiga_flow_gpu::random::Stream;

    fn push(form: PushForm) -> PushAt {
        let push = Push { form, ..Push::default() };
        PushAt { push, weight: 0.7, features: 3, quantile: -9.0 }
    }

    /// Returns −∂L/∂(log p) by finite differences.
    fn slope(loss: impl Fn(f32) -> f64, at: f32) -> f64 {
        -(loss(at + 0.01) - loss(at - 0.01)) / f64::from((at + 0.01) - (at - 0.01))
    }

    #[test]
    fn loss_weights_are_slopes_of_the_losses() {
        for form in [PushForm::Softplus, PushForm::Hinge] {
            let push = push(form);
            for log_prob in [-40.0, -13.3, -11.0, -5.0, 2.0] {
                let found = slope(|l| push.loss_of_anomaly(l), log_prob);
                assert!((found - push.of_anomaly(log_prob)).abs() < 2e-3, "{form:?} {log_prob}");
                let found = slope(|l| push.loss_of_normal(l), log_prob);
                assert!(
                    (found + 1.0 - push.of_normal(log_prob)).abs() < 2e-3,
                    "{form:?} {log_prob}"
                );
            }
        }
        // The gradient of each flow is divided by the number of events of its class.
        let entropy = CrossEntropyAt { weight: 3.0, ratio: 2.5 };
        for (first, pair) in [(true, [-3.0, -4.0]), (false, [-3.0, -4.0]), (true, [-60.0, 50.0])] {
            let weights = entropy.weights(first, pair);
            let own = slope(
                |l| entropy.loss(first, if first { [l, pair[1]] } else { [pair[0], l] }),
                pair[usize::from(!first)],
            );
            let other = slope(
                |l| entropy.loss(first, if first { [pair[0], l] } else { [l, pair[1]] }),
                pair[usize::from(first)],
            );
            let scale = if first { 1.0 / 2.5 } else { 2.5 };
            assert!((weights[usize::from(!first)] - 1.0 - own).abs() < 5e-3, "{weights:?} {own}");
            assert!(
                (weights[usize::from(first)] - scale * other).abs() < 5e-3,
                "{weights:?} {other}"
            );
        }
    }

    #[test]
    fn push_is_bounded_and_ignores_far_anomalies() {
        let push = push(PushForm::Softplus);
        assert!(push.of_anomaly(-1e30).abs() < 1e-12);
        assert!((push.of_anomaly(1e30) + 0.7).abs() < 1e-12);
        assert!(push.loss_of_anomaly(-1e30).abs() < 1e-12);
    }

    #[test]
    fn running_quantile_converges_to_quantile() {
        let stream = Stream::new(4, "running quantile", &[]);
        let mut quantile = 3.0;
        for step in 0..2000u64 {
            let batch = (0..256).map(|i| -8.0 + stream.normal(256 * step + i));
            let below = batch.filter(|l| *l < quantile).count() as u64;
            quantile = follow(quantile, below, 256, 0.05, 1);
        }
        // The 5 % quantile of N(−8, 1).
        assert!((quantile + 9.645).abs() < 0.15, "{quantile}");
    }
}
