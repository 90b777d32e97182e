//! Parameters in the order in which the kernels read them.
//!
//! Each hidden unit has its input weights, bias and output weights in one place, padded with zeros
//! to P inputs and P outputs. A padded input is zero and has weight zero, and fma(0, 0, c) = c, so
//! the bits do not depend on the padding. Gradients are in the same order, as integers, in groups
//! that fill a register.

use crate::engine::simd::vector::GROUP;
use taiga_flow_gpu::layout::{Dense, Layout};
use taiga_flow_gpu::spec::{FlowSpec, Network, Split};

/// One unit of the hidden layer.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(crate) struct Unit<const P: usize> {
    pub input: [f32; P],
    pub bias: f32,
    pub output: [f32; P],
}

/// One network with one hidden layer.
#[derive(Debug, Clone)]
pub(crate) struct PackedNetwork<const P: usize> {
    pub units: Vec<Unit<P>>, // (hidden)
    pub output_bias: [f32; P],
}

/// One coupling block, packed.
#[derive(Debug, Clone)]
pub(crate) struct PackedBlock<const P: usize> {
    pub split: Split,
    /// Absent for additive coupling.
    pub scale: Option<PackedNetwork<P>>,
    pub shift: PackedNetwork<P>,
}

/// A whole flow, packed. The padding P is at least half of the features, rounded up.
#[derive(Debug, Clone)]
pub(crate) struct Packed<const P: usize> {
    pub features: usize,
    pub scale_clamp: f32,
    pub blocks: Vec<PackedBlock<P>>,
}

impl<const P: usize> Packed<P> {
    /// Packs the flat parameters of `spec`.
    pub(crate) fn new(spec: &FlowSpec, layout: &Layout, params: &[f32]) -> Packed<P> {
        let blocks = (0..spec.blocks)
            .map(|block| {
                let mut scale = None;
                let mut shift = PackedNetwork { units: Vec::new(), output_bias: [0.0; P] };
                for (n, network) in spec.networks().iter().enumerate() {
                    let packed = pack_network(layout.network(block, n), params);
                    match network {
                        Network::Scale => scale = Some(packed),
                        Network::Shift => shift = packed,
                    }
                }
                PackedBlock { split: spec.split(block), scale, shift }
            })
            .collect();
        Packed { features: spec.features, scale_clamp: spec.scale_clamp, blocks }
    }
}

fn pack_network<const P: usize>(layers: &[Dense], params: &[f32]) -> PackedNetwork<P> {
    let (first, last) = (&layers[0], &layers[1]);
    let units = (0..first.outputs)
        .map(|j| {
            let mut unit =
                Unit { input: [0.0; P], bias: params[first.bias.start + j], output: [0.0; P] };
            for i in 0..first.inputs {
                unit.input[i] = params[first.weight.start + j * first.inputs + i];
            }
            for o in 0..last.outputs {
                unit.output[o] = params[last.weight.start + o * last.inputs + j];
            }
            unit
        })
        .collect();
    let mut output_bias = [0.0; P];
    output_bias[..last.outputs].copy_from_slice(&params[last.bias.clone()]);
    PackedNetwork { units, output_bias }
}

/// Returns the number of groups for the 2 P + 1 gradients of a unit (inputs, bias, outputs); they
/// also fit the P of the output bias.
pub(crate) const fn groups(p: usize) -> usize {
    (2 * p + 1).div_ceil(GROUP)
}

/// Fixed-point gradient sums of one network: all units in order, then the output bias.
#[derive(Debug, Clone)]
pub(crate) struct NetworkSums {
    pub fixed: Vec<[i64; GROUP]>, // ((hidden + 1) · groups)
}

impl NetworkSums {
    /// Creates sums of 0.
    pub(crate) fn new(hidden: usize, p: usize) -> NetworkSums {
        NetworkSums { fixed: vec![[0; GROUP]; (hidden + 1) * groups(p)] }
    }

    /// Sets all sums to 0.
    pub(crate) fn clear(&mut self) {
        self.fixed.fill([0; GROUP]);
    }

    /// Adds the sums to flat ones, at the positions in the layout.
    pub(crate) fn add_to(&self, layers: &[Dense], p: usize, flat: &mut [i64]) {
        let (first, last) = (&layers[0], &layers[1]);
        let width = groups(p) * GROUP;
        let (units, bias) = self.fixed.as_flattened().split_at(first.outputs * width);
        for (j, unit) in units.chunks_exact(width).enumerate() {
            for i in 0..first.inputs {
                add(&mut flat[first.weight.start + j * first.inputs + i], unit[i]);
            }
            add(&mut flat[first.bias.start + j], unit[p]);
            for o in 0..last.outputs {
                add(&mut flat[last.weight.start + o * last.inputs + j], unit[p + 1 + o]);
            }
        }
        for o in 0..last.outputs {
            add(&mut flat[last.bias.start + o], bias[o]);
        }
    }
}

fn add(total: &mut i64, value: i64) {
    *total = total.wrapping_add(value);
}
