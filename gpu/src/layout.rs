//! Positions of the weights in the flat vector of parameters.
//!
//! Order: block by block; within a block the scale network (affine coupling only),
//! then the shift network; within a network layer by layer, each as its weight
//! matrix (outputs, inputs) row by row, then its bias (outputs). For the reference
//! network at D = 6 that is 8 · 2 · (3·512 + 512 + 512·3 + 3) = 57 392 numbers.

use crate::spec::{FlowSpec, Network};
use std::ops::Range;

/// One fully connected layer: y = W x + b, W of shape (outputs, inputs).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dense {
    pub block: usize,
    pub network: Network,
    pub layer: usize,
    pub inputs: usize,
    pub outputs: usize,
    pub weight: Range<usize>,
    pub bias: Range<usize>,
}

/// A tensor of a model file: a named view of the flat vector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tensor {
    pub name: String,
    pub shape: Vec<usize>,
    pub range: Range<usize>,
}

/// Layers of all networks of a flow, in the order of the flat vector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    layers: Vec<Dense>,
    layers_per_network: usize,
    networks: usize,
    len: usize,
}

impl Layout {
    /// Computes the layout of the parameters of `spec`.
    #[must_use]
    pub fn new(spec: &FlowSpec) -> Layout {
        let mut layers = Vec::new();
        let mut next = 0;
        for block in 0..spec.blocks {
            let split = spec.split(block);
            for &network in spec.networks() {
                let mut inputs = split.conditioner.len();
                let widths = spec.hidden.iter().copied().chain([split.transformed.len()]);
                for (layer, outputs) in widths.enumerate() {
                    let weight = next..next + inputs * outputs;
                    let bias = weight.end..weight.end + outputs;
                    next = bias.end;
                    layers.push(Dense { block, network, layer, inputs, outputs, weight, bias });
                    inputs = outputs;
                }
            }
        }
        Layout {
            layers,
            layers_per_network: spec.hidden.len() + 1,
            networks: spec.networks().len(),
            len: next,
        }
    }

    /// Returns the number of parameters.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns all layers in the order of the flat vector.
    #[must_use]
    pub fn layers(&self) -> &[Dense] {
        &self.layers
    }

    /// Returns the layers of one network, from input to output. `network` is an index into
    /// [`FlowSpec::networks`].
    #[must_use]
    pub fn network(&self, block: usize, network: usize) -> &[Dense] {
        let start = (block * self.networks + network) * self.layers_per_network;
        &self.layers[start..start + self.layers_per_network]
    }

    /// Returns names and shapes as written to a model file, without the prefix of the flow:
    /// `blocks.0.scale.0.weight`.
    #[must_use]
    pub fn tensors(&self) -> Vec<Tensor> {
        let mut tensors = Vec::with_capacity(2 * self.layers.len());
        for d in &self.layers {
            let stem = format!("blocks.{}.{}.{}", d.block, d.network.name(), d.layer);
            tensors.push(Tensor {
                name: format!("{stem}.weight"),
                shape: vec![d.outputs, d.inputs],
                range: d.weight.clone(),
            });
            tensors.push(Tensor {
                name: format!("{stem}.bias"),
                shape: vec![d.outputs],
                range: d.bias.clone(),
            });
        }
        tensors
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::Coupling;

    #[test]
    fn reference_network_has_57_392_parameters() {
        assert_eq!(Layout::new(&FlowSpec::reference_study(6)).len(), 57_392);
    }

    #[test]
    fn tensors_tile_vector_without_gap_or_overlap() {
        for coupling in [Coupling::Affine, Coupling::Additive] {
            let spec = FlowSpec {
                coupling,
                hidden: vec![7, 5],
                blocks: 3,
                ..FlowSpec::reference_study(5)
            };
            let layout = Layout::new(&spec);
            let mut next = 0;
            for tensor in layout.tensors() {
                assert_eq!(tensor.range.start, next);
                assert_eq!(tensor.range.len(), tensor.shape.iter().product::<usize>());
                next = tensor.range.end;
            }
            assert_eq!(next, layout.len());
        }
    }

    #[test]
    fn network_of_block_is_found_by_its_index() {
        let layout = Layout::new(&FlowSpec { hidden: vec![7, 5], ..FlowSpec::reference_study(5) });
        let layers = layout.network(3, 1);
        assert_eq!(layers.len(), 3);
        assert!(layers.iter().all(|d| d.block == 3 && d.network == Network::Shift));
        assert_eq!(layers[0].layer, 0);
    }
}
