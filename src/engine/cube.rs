//! The engine on a GPU: an adapter to the kernels of the crate `taiga-flow-gpu`.

use super::fixed::FixedSum;
use super::interface::{Batch, Engine};
use super::resources::RankResources;
use crate::config::EngineChoice;
use crate::error::{Error, Fault, Result};
use taiga_flow_gpu::device::{self, Backend, DeviceError, DeviceFlow, DeviceInfo};
use taiga_flow_gpu::spec::FlowSpec;
use taiga_flow_gpu::training::{Adam, Weights};

/// A GPU engine, or the reason to use the CPU.
pub enum DeviceChoice {
    Device(Box<dyn Engine>),
    Cpu { reason: String },
}

struct CubeEngine {
    flow: Box<dyn DeviceFlow>,
    backend: Backend,
    /// Number of all shards; a batch has some of them.
    shards: usize,
}

/// Opens the configured device; with `auto`, a GPU if there is one.
pub fn start(choice: EngineChoice, place: &RankResources, spec: &FlowSpec) -> Result<DeviceChoice> {
    let found = match choice {
        EngineChoice::Cuda => device::devices(Backend::Cuda).map_err(|e| fault(&e))?,
        EngineChoice::Vulkan => device::devices(Backend::Vulkan).map_err(|e| fault(&e))?,
        EngineChoice::Auto | EngineChoice::Cpu => match gpus() {
            Ok(found) => found,
            Err(reason) => return Ok(DeviceChoice::Cpu { reason }),
        },
    };
    let found = share(&found, place)?;
    let flow = device::open(found, spec).map_err(|e| fault(&e))?;
    Ok(DeviceChoice::Device(Box::new(CubeEngine { flow, backend: found.backend, shards: 1 })))
}

/// Returns the devices that are faster than the CPU, or the reason why there are none.
fn gpus() -> std::result::Result<Vec<DeviceInfo>, String> {
    let why = match device::devices(Backend::Cuda) {
        Ok(found) => return Ok(found),
        Err(error) => error.to_string(),
    };
    // A GPU has a device file. Without this check a software driver would be started and stopped
    // for nothing.
    let has_gpu = std::path::Path::new("/dev/dri").exists();
    if !has_gpu {
        return Err(format!("{why}; no GPU on Vulkan"));
    }
    let found = match device::devices(Backend::Vulkan) {
        Ok(found) => found,
        Err(error) => return Err(format!("{why}; {error}")),
    };
    let found: Vec<DeviceInfo> = found.into_iter().filter(DeviceInfo::is_discrete).collect();
    if found.is_empty() { Err(format!("{why}; no GPU on Vulkan")) } else { Ok(found) }
}

/// Selects the device of this rank by its number within the node: one device per rank.
fn share<'a>(found: &'a [DeviceInfo], place: &RankResources) -> Result<&'a DeviceInfo> {
    let software = found.iter().all(|f| f.class == device::DeviceClass::Software);
    if place.local_size > found.len() && !place.hardware.share_devices && !software {
        return Err(Fault::new("more ranks on this node than GPUs")
            .expected(format!("at most {} rank(s) per node", found.len()))
            .found(place.local_size)
            .advice("start fewer ranks per node (--ntasks-per-node), or use --share-devices")
            .environment());
    }
    Ok(&found[place.local_rank % found.len()])
}

fn fault(error: &DeviceError) -> Error {
    let advice = match error {
        DeviceError::Missing { .. } => "compute on the CPU: --engine cpu",
        DeviceError::TooLittle { .. } => {
            "lower train.batch or the width of the network, or compute with --engine cpu"
        }
        DeviceError::Argument { .. } => "this is a bug in taiga-flow: please report it",
        DeviceError::Failed { .. } => {
            "run the same command again to resume training from the last checkpoint; \
             --engine cpu needs no device"
        }
    };
    let fault = Fault::new(error.to_string()).advice(advice);
    if matches!(error, DeviceError::Argument { .. }) {
        fault.internal()
    } else {
        fault.environment()
    }
}

impl Engine for CubeEngine {
    fn describe(&self) -> String {
        self.flow.describe().to_string()
    }

    fn class(&self) -> &'static str {
        match self.backend {
            Backend::Cuda => "cuda",
            Backend::Vulkan => "vulkan",
        }
    }

    fn set_params(&mut self, params: &[f32]) -> Result<()> {
        self.flow.set_params(params).map_err(|e| fault(&e))
    }

    fn log_prob(&self, events: &[f32], log_prob: &mut [f32]) -> Result<()> {
        self.flow.log_prob(events, log_prob).map_err(|e| fault(&e))
    }

    fn inverse(&self, latent: &[f32], events: &mut [f32]) -> Result<()> {
        self.flow.inverse(latent, events).map_err(|e| fault(&e))
    }

    fn gradient(&self, batch: &Batch, sums: &mut FixedSum, loss: &mut [f64]) -> Result<()> {
        let gradient =
            self.flow.gradient(&with_shards(batch, sums.shards())).map_err(|e| fault(&e))?;
        sums.unusable += gradient.unusable;
        for (sum, value) in sums.values.iter_mut().zip(&gradient.sums) {
            *sum = sum.wrapping_add(*value);
        }
        loss.copy_from_slice(&gradient.loss);
        Ok(())
    }

    fn capacity(&self) -> usize {
        self.flow.capacity()
    }

    fn upload_events(
        &mut self,
        events: usize,
        pieces: &mut dyn Iterator<Item = &[f32]>,
    ) -> Result<()> {
        self.flow.upload_events(events, pieces).map_err(|e| fault(&e))
    }

    fn begin(&mut self, weights: &Weights, shards: usize) -> Result<()> {
        self.shards = shards;
        self.flow.begin(weights).map_err(|e| fault(&e))
    }

    fn add_gradient(&mut self, batch: &Batch) -> Result<()> {
        self.flow.add_gradient(&with_shards(batch, self.shards)).map_err(|e| fault(&e))
    }

    fn collect(&mut self, loss: &mut [f64]) -> Result<u64> {
        let summed = self.flow.collect().map_err(|e| fault(&e))?;
        loss.fill(0.0);
        loss.iter_mut().zip(&summed.loss).for_each(|(loss, of_step)| *loss = *of_step);
        Ok(summed.unusable)
    }

    fn sums(&self, sums: &mut [i64]) -> Result<()> {
        self.flow.sums(sums).map_err(|e| fault(&e))
    }

    fn update(&mut self, sums: Option<&[i64]>, adam: &Adam) -> Result<()> {
        self.flow.update(sums, adam).map_err(|e| fault(&e))
    }

    fn gradient_norm(&self) -> Result<Option<f64>> {
        self.flow.gradient_norm().map_err(|e| fault(&e))
    }

    fn weights(&self, weights: &mut Weights) -> Result<()> {
        self.flow.weights(weights).map_err(|e| fault(&e))
    }
}

fn with_shards<'a>(batch: &Batch<'a>, shards: usize) -> device::DeviceBatch<'a> {
    let Batch { events, weights, offsets } = *batch;
    device::DeviceBatch { events, weights, offsets, shards }
}
