//! The complete state of a training, which checkpoints save and restore as a whole.

use crate::engine::Weights;
use crate::error::{Error, Fault, Result};
use crate::metrics::EpochMetrics;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};

/// Weights, progress, and the measurements so far.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainState {
    /// Weights of all flows, one after the other. During training the engines have the current
    /// ones; these are those of the last `FlowEngines::download_weights`.
    pub weights: Weights,
    /// Running mean of the weights in the epoch with the lowest held-out NLL, per flow; in
    /// fine-tuning, in the epoch with the lowest held-out loss.
    pub best: Vec<f32>, // (parameters of all flows)
    pub progress: Progress,
}

/// Counters and metrics of a training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Index of the stage, with the epochs and steps done in it.
    pub stage: usize,
    pub stage_epoch: u64,
    pub stage_step: u64,
    /// Epochs completed in all stages.
    pub epoch: u64,
    /// Steps done in the current epoch.
    pub step_in_epoch: u64,
    /// Steps done since the start, including skipped ones.
    pub step: u64,
    /// Updates done in this stage: steps that were not skipped.
    pub updates: u64,
    pub skipped: u64,
    pub skipped_in_a_row: u64,
    pub skipped_in_epoch: u64,
    /// Events of the current epoch that were used for updates, per flow.
    pub events_in_epoch: Vec<u64>, // (flows)
    /// Divisor of their loss: their number, or the sum of the weights of anomalies. Absent in older
    /// checkpoints.
    #[serde(default)]
    pub weight_in_epoch: Vec<f64>, // (flows)
    /// Loss of the current epoch per flow and shard, in shard order.
    pub loss: Vec<f64>, // (flows, shards)
    pub gradient_norm: f64,
    /// Latest epoch with an improvement in this stage.
    pub best_epoch: u64,
    /// Held-out loss of the best epoch of a fine-tuning.
    pub best_loss: Option<f64>,
    pub best: Vec<BestWeights>, // (flows)
    /// Held-out NLL of the first flow at the end of the likelihood stage.
    pub likelihood_nll: Option<f64>,
    /// Running quantile of normal log p, if the mode uses it.
    pub quantile: Option<f64>,
    pub history: Vec<EpochMetrics>,
}

/// Epoch and held-out metrics of the best weights of a flow.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct BestWeights {
    pub epoch: u64,
    pub nll: Option<f64>,
    pub median: Option<f64>,
}

impl Progress {
    /// Counts a finished epoch, and resets the counters of the epoch.
    pub(crate) fn next_epoch(&mut self, metrics: EpochMetrics) {
        self.epoch += 1;
        self.stage_epoch += 1;
        (self.step_in_epoch, self.skipped_in_epoch) = (0, 0);
        self.events_in_epoch.fill(0);
        self.weight_in_epoch.fill(0.0);
        self.loss.fill(0.0);
        self.history.push(metrics);
    }

    /// Returns the held-out NLL of the best weights, summed over all flows.
    pub(crate) fn best_nll(&self) -> Option<f64> {
        self.best.iter().map(|b| b.nll).sum()
    }
}

impl TrainState {
    /// Creates the state before the first step; `params` has those of all flows, one after the
    /// other.
    pub fn new(params: Vec<f32>, flows: usize, shards: usize) -> TrainState {
        TrainState {
            best: params.clone(),
            weights: Weights::new(params),
            progress: Progress {
                stage: 0,
                stage_epoch: 0,
                stage_step: 0,
                epoch: 0,
                step_in_epoch: 0,
                step: 0,
                updates: 0,
                skipped: 0,
                skipped_in_a_row: 0,
                skipped_in_epoch: 0,
                events_in_epoch: vec![0; flows],
                weight_in_epoch: vec![0.0; flows],
                loss: vec![0.0; flows * shards],
                gradient_norm: 0.0,
                best_epoch: 0,
                best_loss: None,
                best: vec![BestWeights::default(); flows],
                likelihood_nll: None,
                quantile: None,
                history: Vec::new(),
            },
        }
    }

    /// Starts the next stage from the best weights, with a new optimiser.
    pub(crate) fn next_stage(&mut self) {
        self.weights = Weights::new(self.best.clone());
        let p = &mut self.progress;
        p.stage += 1;
        (p.stage_epoch, p.stage_step, p.updates) = (0, 0, 0);
        p.likelihood_nll = p.best.first().and_then(|b| b.nll);
        p.best_epoch = p.epoch;
        p.best_loss = None;
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

    /// Returns the weights as safetensors and the progress as JSON.
    ///
    /// # Errors
    /// `Internal` if weights or progress cannot be serialised.
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

    /// Parses the bytes of a checkpoint with `parameters` weights.
    ///
    /// # Errors
    /// `Input` if the bytes are no checkpoint of so many parameters.
    pub fn from_bytes(weights: &[u8], progress: &[u8], parameters: usize) -> Result<TrainState> {
        let tensors = SafeTensors::deserialize(weights).map_err(|e| not_a_checkpoint(&e))?;
        let read = |name: &str| read_tensor(&tensors, name, parameters);
        let mut progress: Progress =
            serde_json::from_slice(progress).map_err(|e| not_a_checkpoint(&e))?;
        if progress.weight_in_epoch.is_empty() {
            progress.weight_in_epoch =
                progress.events_in_epoch.iter().map(|events| *events as f64).collect();
        }
        Ok(TrainState {
            weights: Weights {
                params: read("params")?,
                ema: read("ema")?,
                first_moment: read("first_moment")?,
                second_moment: read("second_moment")?,
            },
            best: read("best")?,
            progress,
        })
    }
}

/// Reads the numbers (parameters) of a tensor.
fn read_tensor(tensors: &SafeTensors, name: &str, parameters: usize) -> Result<Vec<f32>> {
    let view = tensors.tensor(name).map_err(|e| not_a_checkpoint(&e))?;
    if view.dtype() != Dtype::F32 || view.shape() != [parameters] {
        return Err(Fault::new("the checkpoint has a different network")
            .dataset(name)
            .expected(format!("{parameters} f32"))
            .found(format!("{:?} of shape {:?}", view.dtype(), view.shape()))
            .input());
    }
    Ok(view.data().as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect())
}

fn not_a_checkpoint(found: &dyn std::fmt::Display) -> Error {
    Fault::new("not a checkpoint").found(found).input()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_is_restored_bit_by_bit() {
        let mut state = TrainState::new(vec![0.1, -0.0, f32::MIN_POSITIVE / 4.0], 1, 2);
        state.progress.loss = vec![0.1 + 0.2, 1e300];
        state.progress.best[0].nll = Some(f64::MIN_POSITIVE);
        state.progress.quantile = Some(-0.1 - 0.2);
        state.weights.second_moment[1] = 3e-30;
        let (weights, progress) = state.to_bytes().unwrap();
        let back = TrainState::from_bytes(&weights, &progress, 3).unwrap();
        assert_eq!(back.progress, state.progress);
        for ((_, a), (_, b)) in state.tensors().into_iter().zip(back.tensors()) {
            assert!(a.iter().zip(b).all(|(x, y)| x.to_bits() == y.to_bits()));
        }
    }

    #[test]
    fn checkpoint_of_different_network_is_refused() {
        let (weights, progress) = TrainState::new(vec![0.0; 3], 1, 1).to_bytes().unwrap();
        assert_eq!(TrainState::from_bytes(&weights, &progress, 4).unwrap_err().exit_code(), 3);
        assert!(TrainState::from_bytes(&weights[..40], &progress, 3).is_err());
        assert!(TrainState::from_bytes(&weights, b"{}", 3).is_err());
    }
}
