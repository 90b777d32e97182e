//! The CPU engine: kernels for tiles of events in vector lanes, threads for tiles.
//!
//! Networks with one hidden layer have a fused kernel, others a general one. The bits depend on
//! neither the instruction set nor the number of threads: the likelihood of an event is a function
//! of the event. The gradient of a tile is summed by one thread in a fixed order, then added as
//! integers.

mod backward;
mod forward;
mod fused;
mod general;
mod kernel;
mod pass;
mod product;
mod tiles;
mod weights;

use super::fixed::FixedSum;
use super::interface::{Batch, Engine};
use super::optimiser::WeightTraining;
use super::simd::Isa;
use crate::error::{Fault, Result};
use fused::FusedKernel;
use general::General;
use kernel::{Kernel, RowBatch};
use taiga_flow_gpu::spec::FlowSpec;
use taiga_flow_gpu::training::{Adam, Events, Weights};
use tiles::{TileKernel, Tiled};

/// A flow on the CPU.
pub struct CpuEngine {
    kernel: Box<dyn Kernel>,
    isa: Isa,
    pool: rayon::ThreadPool,
    training: Option<WeightTraining>,
}

impl CpuEngine {
    /// Creates an engine for flows of `spec` on `threads` threads, with all parameters zero.
    ///
    /// # Errors
    /// Environment error if the threads cannot be started.
    pub fn new(spec: &FlowSpec, threads: usize, isa: Isa) -> Result<CpuEngine> {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().map_err(|e| {
            Fault::new("cannot start the worker threads")
                .expected(format!("{threads} threads"))
                .found(e)
                .advice("lower --threads")
                .environment()
        })?;
        Ok(CpuEngine { kernel: kernel_for(spec, threads), isa, pool, training: None })
    }
}

impl Engine for CpuEngine {
    fn describe(&self) -> String {
        let threads = self.pool.current_num_threads();
        format!("cpu, {}, {threads} thread{}", self.isa.name(), if threads == 1 { "" } else { "s" })
    }

    fn class(&self) -> &'static str {
        "cpu"
    }

    fn set_params(&mut self, params: &[f32]) -> Result<()> {
        let CpuEngine { kernel, pool, .. } = self;
        pool.install(|| kernel.set_params(params));
        Ok(())
    }

    fn log_prob(&self, events: &[f32], log_prob: &mut [f32]) -> Result<()> {
        self.pool.install(|| self.kernel.log_prob(self.isa, events, log_prob));
        Ok(())
    }

    fn log_prob_and_chi2(
        &self,
        events: &[f32],
        log_prob: &mut [f32],
        chi2: &mut [f32],
    ) -> Result<()> {
        self.pool.install(|| self.kernel.log_prob_and_chi2(self.isa, events, log_prob, chi2));
        Ok(())
    }

    fn inverse(&self, latent: &[f32], events: &mut [f32]) -> Result<()> {
        self.pool.install(|| self.kernel.inverse(self.isa, latent, events));
        Ok(())
    }

    fn gradient(&self, batch: &Batch, sums: &mut FixedSum, loss: &mut [f64]) -> Result<()> {
        self.kernel.gradient(&self.pool, self.isa, &rows(batch)?, sums, loss)
    }

    fn upload_events(&mut self, _: usize, _: &mut dyn Iterator<Item = &[f32]>) -> Result<()> {
        Ok(()) // its capacity is 0, so batches contain rows
    }

    fn begin(&mut self, weights: &Weights, shards: usize) -> Result<()> {
        self.set_params(&weights.params)?;
        self.training = Some(WeightTraining::new(weights.clone(), shards));
        Ok(())
    }

    fn add_gradient(&mut self, batch: &Batch) -> Result<()> {
        let CpuEngine { kernel, isa, pool, training } = self;
        let training = training.as_mut().ok_or_else(not_training)?;
        training.begin_batch();
        let mut loss = vec![0.0; batch.offsets.len() - 1];
        kernel.gradient(pool, *isa, &rows(batch)?, &mut training.sums, &mut loss)?;
        training.add_loss(&loss);
        Ok(())
    }

    fn collect(&mut self, loss: &mut [f64]) -> Result<u64> {
        let training = self.training.as_mut().ok_or_else(not_training)?;
        training.begin_batch(); // a step without batches has sums of 0
        training.complete = true;
        loss.fill(0.0);
        loss.iter_mut().zip(&training.loss).for_each(|(loss, of_step)| *loss = *of_step);
        Ok(training.sums.unusable)
    }

    fn sums(&self, sums: &mut [i64]) -> Result<()> {
        let training = self.training.as_ref().ok_or_else(not_training)?;
        sums.copy_from_slice(&training.sums.values);
        Ok(())
    }

    fn update(&mut self, sums: Option<&[i64]>, adam: &Adam) -> Result<()> {
        let CpuEngine { kernel, pool, training, .. } = self;
        let training = training.as_mut().ok_or_else(not_training)?;
        training.update(sums, adam);
        pool.install(|| kernel.set_params(&training.weights.params));
        Ok(())
    }

    fn gradient_norm(&self) -> Result<Option<f64>> {
        Ok(self.training.as_ref().ok_or_else(not_training)?.gradient_norm)
    }

    fn weights(&self, weights: &mut Weights) -> Result<()> {
        let training = self.training.as_ref().ok_or_else(not_training)?;
        weights.clone_from(&training.weights);
        Ok(())
    }
}

/// Returns the rows of a batch: this engine stores no events.
fn rows<'a>(batch: &Batch<'a>) -> Result<RowBatch<'a>> {
    match batch.events {
        Events::Rows(events) => {
            Ok(RowBatch { events, weights: batch.weights, offsets: batch.offsets })
        }
        Events::Held { .. } => Err(Fault::new("the CPU engine stores no events")
            .advice("this is a bug in taiga-flow: please report it")
            .internal()),
    }
}

fn not_training() -> crate::error::Error {
    Fault::new("no weights to train were given")
        .advice("this is a bug in taiga-flow: please report it")
        .internal()
}

/// Creates the fused kernel with the least padding for half of the features if there is one hidden
/// layer, else the general kernel.
fn kernel_for(spec: &FlowSpec, threads: usize) -> Box<dyn Kernel> {
    if spec.hidden.len() > 1 {
        return tiled(spec, threads, General::new(spec));
    }
    match spec.features.div_ceil(2) {
        1 => tiled(spec, threads, FusedKernel::<1>::new(spec)),
        2 => tiled(spec, threads, FusedKernel::<2>::new(spec)),
        3 => tiled(spec, threads, FusedKernel::<3>::new(spec)),
        4 => tiled(spec, threads, FusedKernel::<4>::new(spec)),
        5 => tiled(spec, threads, FusedKernel::<5>::new(spec)),
        6 => tiled(spec, threads, FusedKernel::<6>::new(spec)),
        7 | 8 => tiled(spec, threads, FusedKernel::<8>::new(spec)),
        9..=12 => tiled(spec, threads, FusedKernel::<12>::new(spec)),
        _ => tiled(spec, threads, FusedKernel::<16>::new(spec)),
    }
}

fn tiled<T: TileKernel + 'static>(spec: &FlowSpec, threads: usize, kernel: T) -> Box<dyn Kernel> {
    Box::new(Tiled::new(spec.features, threads, kernel))
}

#[cfg(test)]
mod tests;
