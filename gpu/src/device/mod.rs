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
pub use probe::{Backend, DeviceInfo, devices};
pub use tuning::DeviceClass;

pub use crate::training::{Adam, Events, Weights};

use crate::spec::FlowSpec;
use cubecl::cuda::CudaRuntime;
use cubecl::prelude::Runtime;
use cubecl::wgpu::WgpuRuntime;
use device::{Device, guarded};
use flow::Flow;
use fused::FusedKernels;
use layered::Layered;

/// What the gradients of a step came to.
#[derive(Debug, Clone, PartialEq)]
pub struct Summed {
    /// Tiles with a component that cannot be added: if any, no update follows.
    pub unusable: u64,
    /// Σ weight · (−log p) of each shard, over all batches.
    pub loss: Vec<f64>,
}

/// Events of one step, shard after shard.
#[derive(Debug, Clone, Copy)]
pub struct DeviceBatch<'a> {
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
    fn gradient(&self, batch: &DeviceBatch) -> Result<Gradient>;
    /// Events that can be kept on the device at most.
    fn capacity(&self) -> usize;
    /// Keeps so many scaled events on the device, for batches to name: given in pieces
    /// (events, features).
    fn upload_events(
        &mut self,
        events: usize,
        pieces: &mut dyn Iterator<Item = &[f32]>,
    ) -> Result<()>;
    /// Computes log p of the events held, `turns` times over, and leaves it there: what
    /// scoring takes without the copies to and from the device.
    fn score_held(&self, turns: usize) -> Result<()>;
    /// Takes over weights to train.
    fn begin(&mut self, weights: &Weights) -> Result<()>;
    /// Adds the gradient of a batch to the sums of the step, which stay on the device, and
    /// does not wait for it. The first batch after `collect` begins a new step.
    fn add_gradient(&mut self, batch: &DeviceBatch) -> Result<()>;
    /// Waits for the step's gradients.
    fn collect(&mut self) -> Result<Summed>;
    /// The step's sums (parameters), in units of 2⁻³².
    fn sums(&self, sums: &mut [i64]) -> Result<()>;
    /// Update of the weights from the step's sums on the device, or from `sums`, as those
    /// of several devices together; the bits are the same. Does not wait for it.
    fn update(&mut self, sums: Option<&[i64]>, adam: &Adam) -> Result<()>;
    /// Norm of the mean gradient of the last update since `begin`, before clipping.
    fn gradient_norm(&self) -> Result<Option<f64>>;
    /// The weights in training, into vectors of their length.
    fn weights(&self, weights: &mut Weights) -> Result<()>;
}

/// A flow of `spec` on the device `found`, its parameters not yet set.
pub fn open(found: &DeviceInfo, spec: &FlowSpec) -> Result<Box<dyn DeviceFlow>> {
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
        let kernels = FusedKernels::new(&device, spec)?;
        return Ok(Box::new(Flow::new(device, kernels, spec.features)?));
    }
    let kernels = Layered::new(&device, spec)?;
    Ok(Box::new(Flow::new(device, kernels, spec.features)?))
}

/// The device's peak of f32 multiply-adds, in 10⁹ per second: the best of ten launches.
pub fn fma_peak(found: &DeviceInfo) -> Result<f64> {
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
