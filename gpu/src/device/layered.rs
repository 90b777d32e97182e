//! Networks with several hidden layers: one launch per layer, activations in device memory.

#![allow(unsafe_code)] // kernel launches

use super::device::{Buffer, Device, cubes};
use super::error::{DeviceError, Result};
use super::kernels::columns::{
    add_conditioner, couple, couple_backward, density, density_backward, take_conditioner,
    to_columns, to_rows, uncouple,
};
use super::kernels::layered::{GemmTiling, Product, layer, layer_gradient};
use super::network_kernels::{EventLaunch, GradientSums, Kernels, LAUNCH_EVENTS, LINE};
use super::tuning::{LaunchConfig, launch_config};
use crate::layout::{Dense, Layout};
use crate::spec::{FlowSpec, Network};
use cubecl::prelude::*;
use std::cell::RefCell;

/// Largest memory for the activations of a launch, in bytes.
const MEMORY: usize = 2 << 30;

/// Kernels of a flow whose networks have several hidden layers.
pub(crate) struct Layered {
    spec: FlowSpec,
    layout: Layout,
    tiling: GemmTiling,
    target_cubes: usize,
    params: Buffer,
    /// (blocks, features): the conditioning features of each block, then the transformed ones.
    halves: Buffer,
    /// Number of conditioning features of each block.
    conditioning: Vec<usize>,
    scratch: RefCell<Option<LayeredScratch>>,
}

/// Buffers for launches of at most `events` events, each (numbers, events).
#[derive(Clone)]
struct LayeredScratch {
    events: usize,
    /// Features before each block, and the latent.
    inputs: Buffer,
    /// s of each block.
    scales: Buffer,
    log_det: Buffer,
    /// Gradient with respect to the features.
    gradient: Buffer,
    /// Input, activations and output of one network.
    layers: Vec<Buffer>,
    /// Outputs of the scale network, and their gradients.
    sigma: Buffer,
    /// Gradients within a network, alternating between two buffers.
    backward: [Buffer; 2],
}

impl Layered {
    pub(crate) fn new<R: Runtime>(device: &Device<R>, spec: &FlowSpec) -> Result<Layered> {
        let LaunchConfig { gemm_tiling: tiling, cubes, .. } =
            launch_config(device.class, spec.features.div_ceil(2), device.processors());
        let needed = (8 * tiling.depth * tiling.edge()) as u64;
        let available = device.shared_memory() as u64;
        if needed > available {
            return Err(DeviceError::TooLittle { what: "shared memory", needed, available });
        }
        let layout = Layout::new(spec);
        let splits: Vec<_> = (0..spec.blocks).map(|b| spec.split(b)).collect();
        let halves: Vec<u32> = splits
            .iter()
            .flat_map(|s| s.conditioner.iter().chain(&s.transformed).map(|f| *f as u32))
            .collect();
        Ok(Layered {
            params: device.empty(layout.len())?,
            halves: device.upload(&halves),
            conditioning: splits.iter().map(|s| s.conditioner.len()).collect(),
            scratch: RefCell::new(None),
            target_cubes: cubes,
            spec: spec.clone(),
            layout,
            tiling,
        })
    }

    fn is_affine(&self) -> bool {
        self.spec.networks().len() == 2
    }

    /// Returns the numbers per event in the largest buffer and in all buffers.
    fn numbers(&self) -> [usize; 2] {
        let features = self.spec.features;
        let widest = self.spec.hidden.iter().copied().max().unwrap_or(0).max(features);
        let blocks = self.spec.blocks;
        let largest = ((blocks + 1) * features).max(widest);
        let all = (2 * blocks + 6) * features + self.spec.hidden.iter().sum::<usize>() + 2 * widest;
        [largest, all]
    }

    /// Returns buffers for `events` events, and allocates them if the existing ones are too small.
    fn scratch_for<R: Runtime>(&self, device: &Device<R>, events: usize) -> Result<LayeredScratch> {
        let mut kept = self.scratch.borrow_mut();
        if let Some(scratch) = kept.as_ref().filter(|s| s.events >= events) {
            return Ok(scratch.clone());
        }
        // Release the old buffers first: there may not be enough memory for both.
        *kept = None;
        let room = |numbers: usize| device.empty(numbers * events);
        let features = self.spec.features;
        let widest = self.spec.hidden.iter().copied().max().unwrap_or(0).max(features);
        let widths = [&[features], self.spec.hidden.as_slice(), &[features]].concat();
        let scratch = LayeredScratch {
            events,
            inputs: room((self.spec.blocks + 1) * features)?,
            scales: room(self.spec.blocks * features)?,
            log_det: room(1)?,
            gradient: room(features)?,
            layers: widths.into_iter().map(room).collect::<Result<_>>()?,
            sigma: room(features)?,
            backward: [room(widest)?, room(widest)?],
        };
        *kept = Some(scratch.clone());
        Ok(scratch)
    }

    /// Launches a layer's product into `out`, with `x` the layer's input.
    fn launch_layer<R: Runtime>(
        &self,
        device: &Device<R>,
        dense: &Dense,
        product: Product,
        [from, x, out]: [&Buffer; 3],
        n: usize,
    ) {
        let edge = self.tiling.edge();
        let rows = match product {
            Product::Forward { .. } => dense.outputs,
            Product::Backward { .. } => dense.inputs,
        };
        // SAFETY: the kernel checks rows and events. The buffers are large enough for the layer's
        // inputs and outputs of n events; the parameters are those of the layout.
        unsafe {
            layer::launch_unchecked::<R>(
                &device.client,
                CubeCount::Static(n.div_ceil(edge) as u32, rows.div_ceil(edge) as u32, 1),
                CubeDim::new_1d(self.tiling.threads() as u32),
                self.params.arg(),
                from.arg(),
                x.arg(),
                out.arg(),
                dense.weight.start as u32,
                dense.inputs as u32,
                dense.outputs as u32,
                n as u32,
                product,
                self.tiling,
            );
        }
    }

    /// Launches a network: its output into `out`, its input and activations into `layers`.
    fn launch_network<R: Runtime>(
        &self,
        device: &Device<R>,
        block: usize,
        network: usize,
        out: &Buffer,
        n: usize,
        s: &LayeredScratch,
    ) {
        let layers = self.layout.network(block, network);
        for (l, dense) in layers.iter().enumerate() {
            let last = l + 1 == layers.len();
            let to = if last { out } else { &s.layers[l + 1] };
            let product = Product::Forward { rectified: !last };
            let from = &s.layers[l];
            self.launch_layer(device, dense, product, [from, from, to], n);
        }
    }

    /// Launches the copy of the conditioning features of `block` from the columns starting at
    /// `first`.
    fn launch_conditioner<R: Runtime>(
        &self,
        device: &Device<R>,
        block: usize,
        first: usize,
        n: usize,
        s: &LayeredScratch,
    ) {
        // SAFETY: the kernel checks events; `halves` has feature indices only.
        unsafe {
            take_conditioner::launch_unchecked::<R>(
                &device.client,
                cubes(n.div_ceil(LINE)),
                CubeDim::new_1d(LINE as u32),
                s.inputs.arg(),
                self.halves.arg(),
                s.layers[0].arg(),
                first as u32,
                block as u32,
                self.conditioning[block] as u32,
                n as u32,
                self.spec.features,
            );
        }
    }

    /// Launches both networks of a block; outputs go to `sigma` and to the last of `layers`.
    fn launch_networks<R: Runtime>(
        &self,
        device: &Device<R>,
        block: usize,
        n: usize,
        s: &LayeredScratch,
    ) {
        for (i, network) in self.spec.networks().iter().enumerate() {
            let out = match network {
                Network::Scale => &s.sigma,
                Network::Shift => &s.layers[s.layers.len() - 1],
            };
            self.launch_network(device, block, i, out, n, s);
        }
    }

    /// Launches the forward pass of `rows` (n, features) into `log_prob` (n).
    fn launch_forward<R: Runtime>(
        &self,
        device: &Device<R>,
        rows: &Buffer,
        log_prob: &Buffer,
        n: usize,
        s: &LayeredScratch,
    ) {
        let (client, line) = (&device.client, CubeDim::new_1d(LINE as u32));
        let features = self.spec.features;
        // SAFETY: the kernels check events; the scratch buffers are large enough for n events.
        unsafe {
            to_columns::launch_unchecked::<R>(
                client,
                cubes(n.div_ceil(LINE)),
                line,
                rows.arg(),
                s.inputs.arg(),
                n as u32,
                features,
            );
            for block in 0..self.spec.blocks {
                self.launch_conditioner(device, block, block * features, n, s);
                self.launch_networks(device, block, n, s);
                couple::launch_unchecked::<R>(
                    client,
                    cubes(n.div_ceil(LINE)),
                    line,
                    s.inputs.arg(),
                    self.halves.arg(),
                    s.sigma.arg(),
                    s.layers[s.layers.len() - 1].arg(),
                    s.scales.arg(),
                    s.log_det.arg(),
                    block as u32,
                    self.conditioning[block] as u32,
                    n as u32,
                    self.spec.scale_clamp,
                    features,
                    self.is_affine(),
                );
            }
            density::launch_unchecked::<R>(
                client,
                cubes(n.div_ceil(LINE)),
                line,
                s.inputs.arg(),
                s.log_det.arg(),
                log_prob.arg(),
                n as u32,
                features,
                self.spec.blocks,
            );
        }
    }

    /// Launches the gradients of one network's parameters and of its conditioning features.
    /// `of_output` (outputs, n) is the gradient with respect to the network's output.
    fn launch_network_backward<R: Runtime>(
        &self,
        device: &Device<R>,
        (block, network): (usize, usize),
        of_output: &Buffer,
        launch: &EventLaunch,
        sums: &GradientSums,
        s: &LayeredScratch,
    ) {
        let n = launch.n;
        // The buffers have the activations of the network that ran last: compute these again.
        self.launch_network(device, block, network, &s.backward[0], n, s);
        let layers = self.layout.network(block, network);
        let mut from = of_output;
        for (l, dense) in layers.iter().enumerate().rev() {
            let x = &s.layers[l];
            self.launch_layer_gradient(device, dense, [from, x], launch, sums);
            let to = &s.backward[l % 2];
            let product = Product::Backward { rectified: l > 0 };
            self.launch_layer(device, dense, product, [from, x, to], n);
            from = to;
        }
        // SAFETY: the kernel checks events; `halves` has feature indices only.
        unsafe {
            add_conditioner::launch_unchecked::<R>(
                &device.client,
                cubes(n.div_ceil(LINE)),
                CubeDim::new_1d(LINE as u32),
                from.arg(),
                self.halves.arg(),
                s.gradient.arg(),
                block as u32,
                self.conditioning[block] as u32,
                n as u32,
                self.spec.features,
            );
        }
    }

    /// Launches the gradients of a layer's weights and biases, from the gradient `g` of its output
    /// and its input `x`.
    fn launch_layer_gradient<R: Runtime>(
        &self,
        device: &Device<R>,
        dense: &Dense,
        [g, x]: [&Buffer; 2],
        launch: &EventLaunch,
        sums: &GradientSums,
    ) {
        let edge = self.tiling.edge();
        // SAFETY: the kernel checks rows and columns. Tiles lie within the n events, ranges within
        // the tiles, and the partials have space for all parameters.
        unsafe {
            layer_gradient::launch_unchecked::<R>(
                &device.client,
                CubeCount::Static(
                    (dense.inputs + 1).div_ceil(edge) as u32,
                    dense.outputs.div_ceil(edge) as u32,
                    launch.chunks as u32,
                ),
                CubeDim::new_1d(self.tiling.threads() as u32),
                g.arg(),
                x.arg(),
                launch.tiles.arg(),
                launch.bounds.arg(),
                launch.ranges.arg(),
                sums.partials.arg(),
                launch.flags.arg(),
                dense.weight.start as u32,
                dense.inputs as u32,
                dense.outputs as u32,
                self.layout.len() as u32,
                launch.n as u32,
                self.tiling,
            );
        }
    }
}

impl<R: Runtime> Kernels<R> for Layered {
    fn rows(&self) -> usize {
        0
    }

    fn stride(&self) -> usize {
        self.layout.len()
    }

    fn gradient_map(&self) -> Vec<u32> {
        (0..self.layout.len() as u32).collect()
    }

    fn launch_events(&self, device: &Device<R>) -> [usize; 2] {
        let [largest, all] = self.numbers();
        let events = (device.largest_buffer() as usize / (4 * largest)).min(MEMORY / (4 * all));
        [events.min(LAUNCH_EVENTS); 2]
    }

    fn event_bytes(&self) -> usize {
        4 * self.numbers()[1]
    }

    fn cubes(&self) -> usize {
        // Count those of the smallest layers, which need ranges most.
        1
    }

    fn target_cubes(&self) -> usize {
        // Wide layers have many cubes without ranges.
        let tiles = self.spec.hidden[0].div_ceil(self.tiling.edge());
        (self.target_cubes / (tiles * tiles)).clamp(1, 64)
    }

    fn set_params(&mut self, _: &Device<R>, params: Buffer) {
        self.params = params;
    }

    fn log_prob(
        &self,
        device: &Device<R>,
        rows: &Buffer,
        log_prob: &Buffer,
        n: usize,
    ) -> Result<()> {
        let scratch = self.scratch_for(device, n)?;
        self.launch_forward(device, rows, log_prob, n, &scratch);
        Ok(())
    }

    fn inverse(&self, device: &Device<R>, latent: &Buffer, rows: &Buffer, n: usize) -> Result<()> {
        let (client, line) = (&device.client, CubeDim::new_1d(LINE as u32));
        let features = self.spec.features;
        let s = self.scratch_for(device, n)?;
        // SAFETY: the kernels check events; the scratch buffers are large enough for n events.
        unsafe {
            to_columns::launch_unchecked::<R>(
                client,
                cubes(n.div_ceil(LINE)),
                line,
                latent.arg(),
                s.inputs.arg(),
                n as u32,
                features,
            );
            for block in (0..self.spec.blocks).rev() {
                self.launch_conditioner(device, block, 0, n, &s);
                self.launch_networks(device, block, n, &s);
                uncouple::launch_unchecked::<R>(
                    client,
                    cubes(n.div_ceil(LINE)),
                    line,
                    s.inputs.arg(),
                    self.halves.arg(),
                    s.sigma.arg(),
                    s.layers[s.layers.len() - 1].arg(),
                    block as u32,
                    self.conditioning[block] as u32,
                    n as u32,
                    self.spec.scale_clamp,
                    features,
                    self.is_affine(),
                );
            }
            to_rows::launch_unchecked::<R>(
                client,
                cubes(n.div_ceil(LINE)),
                line,
                s.inputs.arg(),
                rows.arg(),
                n as u32,
                features,
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
        let (client, line, n) = (&device.client, CubeDim::new_1d(LINE as u32), launch.n);
        let features = self.spec.features;
        let s = self.scratch_for(device, n)?;
        self.launch_forward(device, &launch.rows, &launch.log_prob, n, &s);
        let of_shift = s.layers[s.layers.len() - 1].clone();
        // SAFETY: the kernels check events; the scratch buffers are large enough for n events.
        unsafe {
            density_backward::launch_unchecked::<R>(
                client,
                cubes(n.div_ceil(LINE)),
                line,
                s.inputs.arg(),
                launch.loss_weights.arg(),
                s.gradient.arg(),
                n as u32,
                features,
                self.spec.blocks,
            );
            for block in (0..self.spec.blocks).rev() {
                couple_backward::launch_unchecked::<R>(
                    client,
                    cubes(n.div_ceil(LINE)),
                    line,
                    s.inputs.arg(),
                    self.halves.arg(),
                    s.scales.arg(),
                    launch.loss_weights.arg(),
                    s.gradient.arg(),
                    s.sigma.arg(),
                    of_shift.arg(),
                    block as u32,
                    self.conditioning[block] as u32,
                    n as u32,
                    self.spec.scale_clamp,
                    features,
                    self.is_affine(),
                );
                self.launch_conditioner(device, block, block * features, n, &s);
                for (i, network) in self.spec.networks().iter().enumerate() {
                    let of_output = match network {
                        Network::Scale => &s.sigma,
                        Network::Shift => &of_shift,
                    };
                    self.launch_network_backward(device, (block, i), of_output, launch, sums, &s);
                }
            }
        }
        Ok(s.log_det)
    }
}
