//! Flows on GPUs, on CUDA and on Vulkan, by CubeCL.
//!
//! [`open`] gives a [`DeviceFlow`] on a device that [`devices`] found. All checks of
//! lengths and limits stand in safe functions; launches are unchecked behind them.

#[allow(clippy::module_inception)]
mod device;
mod error;
mod flow;
mod fused;
mod kernels;
mod layered;
mod packing;
mod peak;
mod probe;
mod tiles;
mod tuning;

pub use error::{DeviceError, Result};
pub use probe::{Backend, Found, devices};
pub use tuning::DeviceClass;

use crate::spec::FlowSpec;
use cubecl::cuda::CudaRuntime;
use cubecl::prelude::Runtime;
use cubecl::wgpu::WgpuRuntime;
use device::{Device, guarded};
use flow::Flow;
use fused::Fused;
use layered::Layered;

/// Where the events of a batch are.
#[derive(Debug, Clone, Copy)]
pub enum Events<'a> {
    /// Scaled features (events, features), row-major.
    Rows(&'a [f32]),
    /// Events that the device holds, by their numbers; feature d of an event changes its
    /// sign where bit d of its `flips` is set.
    Held { numbers: &'a [u32], flips: Option<&'a [u32]> },
}

/// Weights in training and all that moves with them, each (parameters).
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Weights {
    pub params: Vec<f32>,
    /// Running mean of the weights.
    pub ema: Vec<f32>,
    pub first_moment: Vec<f32>,
    pub second_moment: Vec<f32>,
}

impl Weights {
    fn all(&self) -> [&Vec<f32>; 4] {
        [&self.params, &self.ema, &self.first_moment, &self.second_moment]
    }
}

/// Numbers of one update by Adam (Kingma and Ba 2015), with the mean gradient g clipped to
/// a norm: m ← m + (1 − β₁)(g − m), v ← v + (1 − β₂)(g² − v), θ ← θ − step·m/(√v + ε),
/// θ̄ ← θ̄ + keep·(θ − θ̄).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Adam {
    /// Events that the gradient is summed over.
    pub events: u64,
    pub clip_norm: f32,
    pub beta1: f32,
    pub beta2: f32,
    pub step: f32,
    pub epsilon: f32,
    pub keep: f32,
}

/// What a step on the device came to.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// Tiles with a component that cannot be added: if any, nothing was updated.
    pub unusable: u64,
    /// As in [`Gradient`].
    pub loss: Vec<f64>,
    /// Norm of the mean gradient before clipping.
    pub gradient_norm: f64,
}

/// Events of one step, shard after shard.
#[derive(Debug, Clone, Copy)]
pub struct Batch<'a> {
    pub events: Events<'a>,
    /// Loss weight per event; 1 for all if absent.
    pub weights: Option<&'a [f32]>,
    /// Shard i holds events `offsets[i]..offsets[i + 1]`; one more than shards.
    pub offsets: &'a [usize],
    /// All shards there are, those of other devices included.
    pub shards: usize,
}

/// Gradient sums of a batch.
#[derive(Debug, Clone, PartialEq)]
pub struct Gradient {
    /// Σ weight · ∂(−log p)/∂params (parameters), in units of 2⁻³².
    pub sums: Vec<i64>,
    /// Tiles with a component that cannot be added.
    pub unusable: u64,
    /// Σ weight · (−log p) of each shard of the batch.
    pub loss: Vec<f64>,
}

/// A flow on a device.
pub trait DeviceFlow {
    /// The device, for people.
    fn describe(&self) -> &str;
    /// Takes over new parameters (flat, see `layout`).
    fn set_params(&mut self, params: &[f32]) -> Result<()>;
    /// log p of scaled events (events, features) into `log_prob` (events).
    fn log_prob(&self, events: &[f32], log_prob: &mut [f32]) -> Result<()>;
    /// Scaled events (events, features) that latent points of the same shape come from.
    fn inverse(&self, latent: &[f32], events: &mut [f32]) -> Result<()>;
    /// Gradient sums and losses of a batch.
    fn gradient(&self, batch: &Batch) -> Result<Gradient>;
    /// Keeps scaled events (events, features) on the device, for batches to name.
    fn hold(&mut self, events: &[f32]) -> Result<()>;
    /// Computes log p of the events held, `turns` times over, and leaves it there: what
    /// scoring takes without the copies to and from the device.
    fn score_held(&self, turns: usize) -> Result<()>;
    /// Takes over weights to train.
    fn begin(&mut self, weights: &Weights) -> Result<()>;
    /// Gradient of a batch and update of the weights, with nothing but a few numbers
    /// coming back.
    fn step(&mut self, batch: &Batch, adam: &Adam) -> Result<Step>;
    /// Update of the weights from gradient sums, as those of several devices together.
    /// Gives the norm of the mean gradient before clipping.
    fn apply(&mut self, sums: &[i64], adam: &Adam) -> Result<f64>;
    /// The weights in training, into vectors of their length.
    fn weights(&self, weights: &mut Weights) -> Result<()>;
}

/// A flow of `spec` on the device `found`, its parameters not yet set.
pub fn open(found: &Found, spec: &FlowSpec) -> Result<Box<dyn DeviceFlow>> {
    guarded(|| match found.backend {
        Backend::Cuda => {
            flow(Device::<CudaRuntime>::open(&probe::cuda_device(found), found)?, spec)
        }
        Backend::Vulkan => {
            flow(Device::<WgpuRuntime>::open(&probe::wgpu_device(found), found)?, spec)
        }
    })
}

fn flow<R: Runtime>(device: Device<R>, spec: &FlowSpec) -> Result<Box<dyn DeviceFlow>> {
    if spec.hidden.len() == 1 {
        let kernels = Fused::new(&device, spec)?;
        return Ok(Box::new(Flow::new(device, kernels, spec.features)));
    }
    let kernels = Layered::new(&device, spec)?;
    Ok(Box::new(Flow::new(device, kernels, spec.features)))
}

/// The device's peak of f32 multiply-adds, in 10⁹ per second: the best of ten launches.
pub fn fma_peak(found: &Found) -> Result<f64> {
    guarded(|| match found.backend {
        Backend::Cuda => {
            peak::measure(&Device::<CudaRuntime>::open(&probe::cuda_device(found), found)?)
        }
        Backend::Vulkan => {
            peak::measure(&Device::<WgpuRuntime>::open(&probe::wgpu_device(found), found)?)
        }
    })
}

#[cfg(test)]
mod tests;
