//! Interface of the kernels for each kind of network.

use crate::engine::fixed::FixedSum;
use crate::engine::simd::Isa;
use crate::error::Result;

/// A batch with its rows.
#[derive(Debug, Clone, Copy)]
pub(super) struct RowBatch<'a> {
    pub(super) events: &'a [f32],
    pub(super) weights: Option<&'a [f32]>,
    pub(super) offsets: &'a [usize],
}

/// Arithmetic of the engine for some kind of network, on all tiles.
pub(super) trait Kernel: Send + Sync {
    fn set_params(&mut self, params: &[f32]);
    fn log_prob(&self, isa: Isa, events: &[f32], out: &mut [f32]);
    fn log_prob_and_chi2(&self, isa: Isa, events: &[f32], out: &mut [f32], chi2: &mut [f32]);
    fn inverse(&self, isa: Isa, latent: &[f32], events: &mut [f32]);
    fn gradient(
        &self,
        pool: &rayon::ThreadPool,
        isa: Isa,
        batch: &RowBatch,
        sums: &mut FixedSum,
        loss: &mut [f64],
    ) -> Result<()>;
}
