//! Parameters as the kernels read them: per hidden unit its input weights, bias and
//! output weights side by side, padded with zeros to P inputs and P outputs.
//!
//! A padded input is zero and has weight zero, so fma(0, 0, c) = c leaves sums as
//! they are: the bits do not depend on the padding.

use taiga_flow_gpu::layout::Layout;
use taiga_flow_gpu::spec::{FlowSpec, Network, Split};

/// One unit of the hidden layer.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct Unit<const P: usize> {
    pub input: [f32; P],
    pub bias: f32,
    pub output: [f32; P],
}

/// One network with one hidden layer.
#[derive(Debug, Clone)]
pub struct PackedNetwork<const P: usize> {
    pub units: Vec<Unit<P>>, // (hidden)
    pub output_bias: [f32; P],
}

#[derive(Debug, Clone)]
pub struct PackedBlock<const P: usize> {
    pub split: Split,
    /// Absent for additive coupling.
    pub scale: Option<PackedNetwork<P>>,
    pub shift: PackedNetwork<P>,
}

/// A whole flow, packed. The padding P is at least the larger half of the features.
#[derive(Debug, Clone)]
pub struct Packed<const P: usize> {
    pub features: usize,
    pub scale_clamp: f32,
    pub blocks: Vec<PackedBlock<P>>,
}

impl<const P: usize> Packed<P> {
    pub fn new(spec: &FlowSpec, layout: &Layout, params: &[f32]) -> Packed<P> {
        let blocks = (0..spec.blocks)
            .map(|block| {
                let mut scale = None;
                let mut shift = PackedNetwork { units: Vec::new(), output_bias: [0.0; P] };
                for (n, network) in spec.networks().iter().enumerate() {
                    let packed = pack_network(layout, block, n, params);
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

fn pack_network<const P: usize>(
    layout: &Layout,
    block: usize,
    n: usize,
    params: &[f32],
) -> PackedNetwork<P> {
    let layers = layout.network(block, n);
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

/// Lane sums of the gradient of one network, in packed order.
#[derive(Debug, Clone)]
pub struct NetworkGradient<const P: usize> {
    pub units: Vec<Unit<P>>, // (hidden)
    pub output_bias: [f32; P],
}

impl<const P: usize> NetworkGradient<P> {
    pub fn new(hidden: usize) -> NetworkGradient<P> {
        let unit = Unit { input: [0.0; P], bias: 0.0, output: [0.0; P] };
        NetworkGradient { units: vec![unit; hidden], output_bias: [0.0; P] }
    }

    /// Adds to the flat gradient (f64) at the places the layout gives.
    pub fn add_to(&self, layout: &Layout, block: usize, n: usize, flat: &mut [f64]) {
        let layers = layout.network(block, n);
        let (first, last) = (&layers[0], &layers[1]);
        for (j, unit) in self.units.iter().enumerate() {
            for i in 0..first.inputs {
                flat[first.weight.start + j * first.inputs + i] += f64::from(unit.input[i]);
            }
            flat[first.bias.start + j] += f64::from(unit.bias);
            for o in 0..last.outputs {
                flat[last.weight.start + o * last.inputs + j] += f64::from(unit.output[o]);
            }
        }
        for o in 0..last.outputs {
            flat[last.bias.start + o] += f64::from(self.output_bias[o]);
        }
    }
}
