//! Flows on GPUs with CUDA or Vulkan, through CubeCL.
//!
//! [`open`] returns a [`DeviceFlow`] on a device from [`devices`]. Safe functions check all lengths
//! and limits; the launches behind them are unchecked.

#[allow(clippy::module_inception)]
mod device;
mod error;
mod event_table;
mod flow;
mod fused;
mod kernels;
mod layered;
mod network_kernels;
mod packing;
mod peak;
mod probe;
mod tiles;
mod training_buffers;
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

/// Result of the gradients of a step.
#[derive(Debug, Clone, PartialEq)]
pub struct Summed {
    /// Tiles with a component that cannot be added. If there is one, the step has no update.
    pub unusable: u64,
    /// Σ weight · (−log p) of each shard, over all batches.
    pub loss: Vec<f64>,
}

/// Events of one step, ordered by shard.
#[derive(Debug, Clone, Copy)]
pub struct DeviceBatch<'a> {
    pub events: Events<'a>,
    /// Loss weight per event; 1 for all if absent.
    pub weights: Option<&'a [f32]>,
    /// Shard i has the events `offsets[i]..offsets[i + 1]`; one element more than shards.
    pub offsets: &'a [usize],
    /// Number of all shards, including those on other devices.
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

/// A flow on a device. Every method returns an error if the device fails or if lengths differ.
#[allow(clippy::missing_errors_doc)] // described for all methods
pub trait DeviceFlow {
    /// Returns the name of the device for messages.
    fn describe(&self) -> &str;
    /// Sets the parameters (flat, see `layout`).
    fn set_params(&mut self, params: &[f32]) -> Result<()>;
    /// Computes log p of scaled events (events, features) into `log_prob` (events).
    fn log_prob(&self, events: &[f32], log_prob: &mut [f32]) -> Result<()>;
    /// Computes the scaled events (events, features) of latent points of the same shape.
    fn inverse(&self, latent: &[f32], events: &mut [f32]) -> Result<()>;
    /// Returns gradient sums and losses of a batch.
    fn gradient(&self, batch: &DeviceBatch) -> Result<Gradient>;
    /// Returns the largest number of events that the device can store.
    fn capacity(&self) -> usize;
    /// Stores `events` scaled events on the device, for batches to refer to by index. The pieces
    /// have the shape (events, features).
    fn upload_events(
        &mut self,
        events: usize,
        pieces: &mut dyn Iterator<Item = &[f32]>,
    ) -> Result<()>;
    /// Computes log p of the stored events `turns` times and leaves it on the device: the cost of
    /// scoring without copies to and from the device.
    fn score_held(&self, turns: usize) -> Result<()>;
    /// Uploads weights to train.
    fn begin(&mut self, weights: &Weights) -> Result<()>;
    /// Adds the gradient of a batch to the sums of the step on the device, without waiting. The
    /// first batch after `collect` starts a new step.
    fn add_gradient(&mut self, batch: &DeviceBatch) -> Result<()>;
    /// Waits for the gradients of the step.
    fn collect(&mut self) -> Result<Summed>;
    /// Copies the sums of the step (parameters), in units of 2⁻³².
    fn sums(&self, sums: &mut [i64]) -> Result<()>;
    /// Updates the weights without waiting, from the sums of the step on the device or from `sums`,
    /// for example those of several devices. The bits are the same.
    fn update(&mut self, sums: Option<&[i64]>, adam: &Adam) -> Result<()>;
    /// Returns the norm of the mean gradient of the last update since `begin`, before clipping.
    fn gradient_norm(&self) -> Result<Option<f64>>;
    /// Copies the weights in training into vectors of their length.
    fn weights(&self, weights: &mut Weights) -> Result<()>;
}

/// Opens a flow of `spec` on the device `found`; its parameters are not yet set.
///
/// # Errors
/// [`DeviceError`] if the device fails or has too little memory for the kernels.
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

/// Measures the peak rate of f32 multiply-adds, in 10⁹ per second: the best of ten launches.
///
/// # Errors
/// [`DeviceError`] if the device fails.
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
