//! Everything that a resumed training needs: one struct, saved and restored whole.

use super::optimiser::Weights;
use crate::error::{Fault, Result};
use crate::metrics::EpochMetrics;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};

/// Weights, progress, and what has been measured so far.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainState {
    pub weights: Weights,
    /// EMA of the epoch with the lowest held-out NLL.
    pub best: Vec<f32>, // (parameters)
    pub progress: Progress,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Epochs completed.
    pub epoch: u64,
    /// Steps of the current epoch that are done.
    pub step_in_epoch: u64,
    /// Steps done since the start, skipped ones included.
    pub step: u64,
    /// Updates done: steps that were not skipped.
    pub updates: u64,
    pub skipped: u64,
    pub skipped_in_a_row: u64,
    pub skipped_in_epoch: u64,
    /// Events of the current epoch that updates have seen.
    pub events_in_epoch: u64,
    /// Loss of the current epoch per shard, in shard order.
    pub loss: Vec<f64>, // (shards)
    pub gradient_norm: f64,
    pub best_epoch: u64,
    pub best_nll: Option<f64>,
    pub best_median: Option<f64>,
    pub history: Vec<EpochMetrics>,
}

impl TrainState {
    pub fn new(params: Vec<f32>, shards: usize) -> TrainState {
        TrainState {
            best: params.clone(),
            weights: Weights::new(params),
            progress: Progress {
                epoch: 0,
                step_in_epoch: 0,
                step: 0,
                updates: 0,
                skipped: 0,
                skipped_in_a_row: 0,
                skipped_in_epoch: 0,
                events_in_epoch: 0,
                loss: vec![0.0; shards],
                gradient_norm: 0.0,
                best_epoch: 0,
                best_nll: None,
                best_median: None,
                history: Vec::new(),
            },
        }
    }

    fn tensors(&self) -> [(&'static str, &Vec<f32>); 5] {
        let w = &self.weights;
        [
            ("params", &w.params),
            ("ema", &w.ema),
            ("first_moment", &w.first_moment),
            ("second_moment", &w.second_moment),
            ("best", &self.best),
        ]
    }

    /// Weights as safetensors, progress as JSON.
    pub fn to_bytes(&self) -> Result<(Vec<u8>, Vec<u8>)> {
        let broken = |e: &dyn std::fmt::Display| {
            Fault::new("cannot write the checkpoint").found(e).internal()
        };
        let bytes: Vec<(&str, Vec<u8>)> = self
            .tensors()
            .into_iter()
            .map(|(name, values)| (name, values.iter().flat_map(|x| x.to_le_bytes()).collect()))
            .collect();
        let views = bytes
            .iter()
            .map(|(name, b)| {
                TensorView::new(Dtype::F32, vec![b.len() / 4], b)
                    .map(|view| (*name, view))
                    .map_err(|e| broken(&e))
            })
            .collect::<Result<Vec<_>>>()?;
        let weights = safetensors::serialize(views, None).map_err(|e| broken(&e))?;
        let progress = serde_json::to_vec(&self.progress).map_err(|e| broken(&e))?;
        Ok((weights, progress))
    }

    /// The state in the bytes of a checkpoint, for `parameters` weights.
    pub fn from_bytes(weights: &[u8], progress: &[u8], parameters: usize) -> Result<TrainState> {
        let fault =
            |what: &str, e: &dyn std::fmt::Display| Fault::new(what.to_string()).found(e).input();
        let tensors =
            SafeTensors::deserialize(weights).map_err(|e| fault("not a checkpoint", &e))?;
        let read = |name: &str| -> Result<Vec<f32>> {
            let view = tensors.tensor(name).map_err(|e| fault("not a checkpoint", &e))?;
            if view.dtype() != Dtype::F32 || view.shape() != [parameters] {
                return Err(Fault::new("a checkpoint of another network")
                    .dataset(name)
                    .expected(format!("{parameters} f32"))
                    .found(format!("{:?} of shape {:?}", view.dtype(), view.shape()))
                    .input());
            }
            Ok(view.data().as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect())
        };
        Ok(TrainState {
            weights: Weights {
                params: read("params")?,
                ema: read("ema")?,
                first_moment: read("first_moment")?,
                second_moment: read("second_moment")?,
            },
            best: read("best")?,
            progress: serde_json::from_slice(progress)
                .map_err(|e| fault("not a checkpoint", &e))?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_comes_back_bit_by_bit() {
        let mut state = TrainState::new(vec![0.1, -0.0, f32::MIN_POSITIVE / 4.0], 2);
        state.progress.loss = vec![0.1 + 0.2, 1e300];
        state.progress.best_nll = Some(f64::MIN_POSITIVE);
        state.weights.second_moment[1] = 3e-30;
        let (weights, progress) = state.to_bytes().unwrap();
        let back = TrainState::from_bytes(&weights, &progress, 3).unwrap();
        assert_eq!(back.progress, state.progress);
        for ((_, a), (_, b)) in state.tensors().into_iter().zip(back.tensors()) {
            assert!(a.iter().zip(b).all(|(x, y)| x.to_bits() == y.to_bits()));
        }
    }

    #[test]
    fn a_checkpoint_of_another_network_is_refused() {
        let (weights, progress) = TrainState::new(vec![0.0; 3], 1).to_bytes().unwrap();
        assert_eq!(TrainState::from_bytes(&weights, &progress, 4).unwrap_err().exit_code(), 3);
        assert!(TrainState::from_bytes(&weights[..40], &progress, 3).is_err());
        assert!(TrainState::from_bytes(&weights, b"{}", 3).is_err());
    }
}
