//! The trait of an engine, and the events of a step.

use super::fixed::FixedSum;
use crate::error::{Fault, Result};
use taiga_flow_gpu::training::{Adam, Events, Weights};

/// Events of one step, ordered by the logical shards of this rank.
#[derive(Debug, Clone, Copy)]
pub struct Batch<'a> {
    pub events: Events<'a>,
    /// Loss weight per event; 1 for all if absent.
    pub weights: Option<&'a [f32]>,
    /// Shard i has the events `offsets[i]..offsets[i + 1]`; one element more than shards.
    pub offsets: &'a [usize],
}

/// A flow on a device, for scoring or training.
///
/// In training the engine has the weights and the sums of a step. If it also stores the events, a
/// step transfers only a few numbers.
///
/// Methods return an error if the device fails.
#[allow(clippy::missing_errors_doc)] // described for all methods
pub trait Engine {
    /// Returns device and configuration for logs: "cpu, AVX-512, 2 threads".
    fn describe(&self) -> String;
    /// Returns the device class, which checkpoints record: bits are equal within one class.
    fn class(&self) -> &'static str;
    /// Sets the parameters (flat, see `taiga_flow_gpu::layout`).
    fn set_params(&mut self, params: &[f32]) -> Result<()>;
    /// Computes log p of scaled events (events, features) into `log_prob` (events).
    fn log_prob(&self, events: &[f32], log_prob: &mut [f32]) -> Result<()>;
    /// Computes log p, and |z|² of the latent points into `chi2` (events).
    fn log_prob_and_chi2(
        &self,
        events: &[f32],
        log_prob: &mut [f32],
        chi2: &mut [f32],
    ) -> Result<()> {
        let _ = (events, log_prob, chi2);
        Err(Fault::new("this engine does not compute |z|²")
            .found(self.class())
            .advice("leave chi2 out of [score] columns, or compute with --engine cpu")
            .usage())
    }
    /// Computes the scaled events (events, features) of latent points of the same shape.
    fn inverse(&self, latent: &[f32], events: &mut [f32]) -> Result<()>;
    /// Adds Σ weight · ∂(−log p)/∂params of every shard to `sums`, and writes Σ weight · (−log p)
    /// per shard to `loss` (shards), in f64.
    fn gradient(&self, batch: &Batch, sums: &mut FixedSum, loss: &mut [f64]) -> Result<()>;

    /// Returns the number of events that it can store for batches; 0 if storing has no advantage.
    fn capacity(&self) -> usize {
        0
    }
    /// Stores `events` scaled events, given in pieces (events, features).
    fn upload_events(
        &mut self,
        events: usize,
        pieces: &mut dyn Iterator<Item = &[f32]>,
    ) -> Result<()>;
    /// Sets weights to train, with gradients of `shards` shards on all ranks together.
    fn begin(&mut self, weights: &Weights, shards: usize) -> Result<()>;
    /// Adds the gradient of a batch to the sums of the step, possibly without waiting. The first
    /// batch after `collect` starts a new step.
    fn add_gradient(&mut self, batch: &Batch) -> Result<()>;
    /// Waits for the gradients of the step, and writes Σ weight · (−log p) per shard to `loss`
    /// (shards). Returns the number of parts of shards that cannot be added.
    fn collect(&mut self, loss: &mut [f64]) -> Result<u64>;
    /// Copies the sums of the step (parameters), in units of 2⁻³².
    fn sums(&self, sums: &mut [i64]) -> Result<()>;
    /// Updates the weights from the sums of the step, or from `sums` of all ranks. The bits are
    /// those of one rank with the whole batch.
    fn update(&mut self, sums: Option<&[i64]>, adam: &Adam) -> Result<()>;
    /// Returns the norm of the mean gradient of the last update since `begin`, before clipping.
    fn gradient_norm(&self) -> Result<Option<f64>>;
    /// Copies the weights in training into vectors of their length.
    fn weights(&self, weights: &mut Weights) -> Result<()>;
}
