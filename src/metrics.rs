//! One line of `metrics.jsonl`: the measurements of one training epoch.
//!
//! The training loop writes it, the report reads it. It contains no wall time, host or number of
//! ranks, so that equal training writes equal bytes. A number that is not finite is written as
//! `null` (JSON has no NaN) and read as NaN.

use serde::{Deserialize, Deserializer, Serialize};

/// Measurements of an epoch. Losses are mean negative log-likelihoods per event, in nats.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EpochMetrics {
    /// Counted from 1.
    pub epoch: u64,
    /// Optimiser steps taken since the start.
    pub step: u64,
    #[serde(deserialize_with = "number_or_nan")]
    pub train_nll: f64,
    /// `None` in epochs without validation.
    pub validation_nll: Option<f64>,
    pub validation_nll_median: Option<f64>,
    #[serde(deserialize_with = "number_or_nan")]
    pub learning_rate: f64,
    /// Norm before clipping, of the last step.
    #[serde(deserialize_with = "number_or_nan")]
    pub gradient_norm: f64,
    /// Steps of this epoch that were skipped for gradients out of range.
    pub skipped_steps: u64,
    /// Training events seen in this epoch.
    pub events: u64,
    /// Whether this is the lowest validation loss of a flow so far.
    pub best: bool,
    /// The stage, unless it is the first one; NLLs are then additional to the minimised loss.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stage: Option<String>,
    /// Validation loss of a fine-tuning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation_loss: Option<f64>,
    /// Each flow on its own, if there are several; the NLLs above are their sums.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub flows: Vec<FlowMetrics>,
}

/// Measurements of one flow, on its own population.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FlowMetrics {
    pub flow: String,
    #[serde(deserialize_with = "number_or_nan")]
    pub train_nll: f64,
    pub validation_nll: Option<f64>,
    pub validation_nll_median: Option<f64>,
}

/// Returns the epoch with the lowest validation loss; the earlier one of equals.
pub(crate) fn best_epoch(metrics: &[EpochMetrics]) -> Option<&EpochMetrics> {
    let held_out = |m: &&EpochMetrics| m.validation_nll.is_some_and(f64::is_finite);
    metrics.iter().filter(held_out).min_by(|a, b| {
        let loss = |m: &EpochMetrics| m.validation_nll.unwrap_or(f64::INFINITY);
        loss(a).total_cmp(&loss(b))
    })
}

/// Reads a number; `null` is NaN.
fn number_or_nan<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Option::<f64>::deserialize(deserializer)?.unwrap_or(f64::NAN))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_round_trips_with_null_losses() {
        let line = r#"{"epoch":1,"step":12,"train_nll":null,"validation_nll":null,
            "validation_nll_median":null,"learning_rate":0.001,"gradient_norm":3.2,
            "skipped_steps":0,"events":7842,"best":true}"#;
        let epoch: EpochMetrics = serde_json::from_str(line).unwrap();
        assert!(epoch.train_nll.is_nan() && epoch.validation_nll.is_none() && epoch.best);
        let again = serde_json::to_string(&epoch).unwrap();
        assert!(again.contains(r#""train_nll":null"#), "{again}");
    }
}
