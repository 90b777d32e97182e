//! Networks with one hidden layer: one launch for all blocks.

#![allow(unsafe_code)] // kernel launches

use super::device::{Buffer, Device, cubes};
use super::error::{DeviceError, Result};
use super::kernels::flow::{forward, inverse};
use super::kernels::flow_backward::backward;
use super::kernels::gradient::{event_quads, pack, weight_gradient};
use super::kernels::network::KernelShape;
use super::network_kernels::{EventLaunch, GradientSums, Kernels, LAUNCH_EVENTS, LINE};
use super::packing::{FeatureSlots, Packing, shape};
use super::tuning::{LaunchConfig, launch_config};
use crate::spec::FlowSpec;
use cubecl::prelude::*;
use std::cell::RefCell;

/// Kernels of a flow whose networks have one hidden layer.
pub(crate) struct FusedKernels {
    shape: KernelShape,
    clamp: f32,
    config: LaunchConfig,
    packing: Packing,
    /// Packed hidden units, and biases of the outputs.
    weights: Buffer,
    biases: Buffer,
    weight_map: Buffer,
    bias_map: Buffer,
    order: Buffer,
    back: Buffer,
    nothing: [Buffer; 2],
    kept: RefCell<Option<ForwardState>>,
}

/// Results of a forward pass that the backward pass reads, for launches of at most `events` events.
#[derive(Clone)]
struct ForwardState {
    events: usize,
    /// (blocks + 1, slots, events)
    inputs: Buffer,
    /// (blocks, networks, P, events): first s, then the gradients of the networks' outputs.
    upstream: Buffer,
}

impl FusedKernels {
    pub(crate) fn new<R: Runtime>(device: &Device<R>, spec: &FlowSpec) -> Result<FusedKernels> {
        let config = launch_config(device.class, spec.features.div_ceil(2), device.processors());
        let shape = shape(spec, config.tile);
        let fours =
            (shape.tile * shape.quads()).max(config.gradient_tiling.stage * event_quads(&shape));
        let (needed, available) = (16 * fours as u64, device.shared_memory() as u64);
        if needed > available {
            return Err(DeviceError::TooLittle { what: "shared memory", needed, available });
        }
        let packing = Packing::new(spec, &shape);
        let slots = FeatureSlots::new(spec);
        Ok(FusedKernels {
            weights: device.empty(packing.weights.len())?,
            biases: device.empty(packing.biases.len())?,
            weight_map: device.upload(&packing.weights),
            bias_map: device.upload(&packing.biases),
            order: device.upload(&slots.order),
            back: device.upload(&slots.back),
            nothing: [device.empty(1)?, device.empty(1)?],
            kept: RefCell::new(None),
            clamp: spec.scale_clamp,
            packing,
            shape,
            config,
        })
    }

    fn networks(&self) -> usize {
        self.shape.blocks * self.shape.networks()
    }

    /// Launches the copy of the parameters into the order of `map`.
    fn launch_pack<R: Runtime>(device: &Device<R>, params: &Buffer, map: &Buffer, packed: &Buffer) {
        // SAFETY: the kernel checks its index against the number of values, and the indices of the
        // map against the number of parameters.
        unsafe {
            pack::launch_unchecked::<R>(
                &device.client,
                cubes(packed.len().div_ceil(LINE)),
                CubeDim::new_1d(LINE as u32),
                params.arg(),
                map.arg(),
                packed.arg(),
                packed.len() as u32,
                params.len() as u32,
            );
        }
    }

    /// Launches the forward pass of n events; with `kept`, its results for the backward pass go
    /// there.
    fn launch_forward<R: Runtime>(
        &self,
        device: &Device<R>,
        rows: &Buffer,
        log_prob: &Buffer,
        n: usize,
        kept: Option<&ForwardState>,
    ) {
        let events = self.config.forward_events;
        let [inputs, scales] =
            kept.map_or([&self.nothing[0], &self.nothing[1]], |k| [&k.inputs, &k.upstream]);
        // SAFETY: threads beyond n read the last event and write nothing; the callers allocate all
        // buffers for n events.
        unsafe {
            forward::launch_unchecked::<R>(
                &device.client,
                cubes(n.div_ceil(self.config.threads * events)),
                CubeDim::new_1d(self.config.threads as u32),
                self.weights.arg(),
                self.biases.arg(),
                self.order.arg(),
                rows.arg(),
                log_prob.arg(),
                inputs.arg(),
                scales.arg(),
                n as u32,
                self.clamp,
                kept.is_some(),
                events,
                self.shape,
            );
        }
    }

    /// Returns buffers for `events` events, and allocates them if the existing ones are too small.
    fn kept_for<R: Runtime>(&self, device: &Device<R>, events: usize) -> Result<ForwardState> {
        let mut kept = self.kept.borrow_mut();
        if let Some(kept) = kept.as_ref().filter(|k| k.events >= events) {
            return Ok(kept.clone());
        }
        // Release the old buffers first: there may not be enough memory for both.
        *kept = None;
        let new = ForwardState {
            events,
            inputs: device.empty((self.shape.blocks + 1) * 2 * self.shape.half * events)?,
            upstream: device.empty(self.networks() * self.shape.half * events)?,
        };
        *kept = Some(new.clone());
        Ok(new)
    }
}

impl<R: Runtime> Kernels<R> for FusedKernels {
    fn rows(&self) -> usize {
        self.networks() * self.shape.half
    }

    fn stride(&self) -> usize {
        self.packing.stride
    }

    fn gradient_map(&self) -> Vec<u32> {
        self.packing.gradient.clone()
    }

    fn launch_events(&self, device: &Device<R>) -> [usize; 2] {
        let inputs = (self.shape.blocks + 1) * 2 * self.shape.half;
        let numbers = inputs.max(self.networks() * self.shape.half);
        [self.shape.features, numbers]
            .map(|n| (device.largest_buffer() as usize / (4 * n)).min(LAUNCH_EVENTS))
    }

    fn event_bytes(&self) -> usize {
        let inputs = (self.shape.blocks + 1) * 2 * self.shape.half;
        4 * (inputs + self.networks() * self.shape.half)
    }

    fn cubes(&self) -> usize {
        self.networks() * self.config.gradient_tiling.groups(&self.shape)
    }

    fn target_cubes(&self) -> usize {
        self.config.cubes
    }

    fn set_params(&mut self, device: &Device<R>, params: Buffer) {
        Self::launch_pack(device, &params, &self.weight_map, &self.weights);
        Self::launch_pack(device, &params, &self.bias_map, &self.biases);
    }

    fn log_prob(
        &self,
        device: &Device<R>,
        rows: &Buffer,
        log_prob: &Buffer,
        n: usize,
    ) -> Result<()> {
        self.launch_forward(device, rows, log_prob, n, None);
        Ok(())
    }

    fn inverse(&self, device: &Device<R>, latent: &Buffer, rows: &Buffer, n: usize) -> Result<()> {
        let events = self.config.forward_events;
        // SAFETY: as for `forward`.
        unsafe {
            inverse::launch_unchecked::<R>(
                &device.client,
                cubes(n.div_ceil(self.config.threads * events)),
                CubeDim::new_1d(self.config.threads as u32),
                self.weights.arg(),
                self.biases.arg(),
                self.order.arg(),
                self.back.arg(),
                latent.arg(),
                rows.arg(),
                n as u32,
                self.clamp,
                events,
                self.shape,
            );
        }
        Ok(())
    }

    fn gradient(
        &self,
        device: &Device<R>,
        launch: &EventLaunch,
        sums: &GradientSums,
    ) -> Result<Buffer> {
        let (grip, shape, n) = (self.config.gradient_tiling, self.shape, launch.n);
        let kept = self.kept_for(device, n)?;
        self.launch_forward(device, &launch.rows, &launch.log_prob, n, Some(&kept));
        let events = self.config.backward_events;
        let cubes_y = launch.chunks as u32;
        // SAFETY: as for `forward`. Tiles lie within the n events, ranges within the tiles, and
        // `sums` is large enough for both. The kernel checks the hidden units that it owns.
        unsafe {
            backward::launch_unchecked::<R>(
                &device.client,
                cubes(n.div_ceil(self.config.threads * events)),
                CubeDim::new_1d(self.config.threads as u32),
                self.weights.arg(),
                self.back.arg(),
                launch.loss_weights.arg(),
                kept.inputs.arg(),
                kept.upstream.arg(),
                n as u32,
                self.clamp,
                events,
                shape,
            );
            weight_gradient::launch_unchecked::<R>(
                &device.client,
                CubeCount::Static(<Self as Kernels<R>>::cubes(self) as u32, cubes_y, 1),
                CubeDim::new_1d(grip.threads as u32),
                self.weights.arg(),
                kept.inputs.arg(),
                kept.upstream.arg(),
                launch.tiles.arg(),
                launch.bounds.arg(),
                launch.ranges.arg(),
                sums.partials.arg(),
                launch.flags.arg(),
                n as u32,
                grip,
                shape,
            );
        }
        Ok(kept.upstream)
    }
}
