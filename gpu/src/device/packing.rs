//! Positions of the parameters in the kernels' memory: packed hidden units, slots of features, and
//! partial sums of gradients.

use super::kernels::gradient::per_unit;
use super::kernels::network::KernelShape;
use crate::layout::Layout;
use crate::spec::{Coupling, FlowSpec, Permutation};

/// Index of padding: a zero that is not a parameter.
pub(crate) const NONE: u32 = u32::MAX;

/// Index tables of a flow with one hidden layer.
#[derive(Debug, Clone)]
pub(crate) struct Packing {
    /// Parameter index of each number of the packed hidden units (blocks, networks, padded hidden
    /// units, 4 · quads).
    pub(crate) weights: Vec<u32>,
    /// Parameter index of each output bias (blocks, networks, P).
    pub(crate) biases: Vec<u32>,
    /// Position of each parameter's gradient: see `reduce`.
    pub(crate) gradient: Vec<u32>,
    /// Numbers of hidden-unit gradients in one partial sum.
    pub(crate) stride: usize,
}

/// Returns the shape that the kernels are compiled for, with at most `tile` hidden units in shared
/// memory at a time.
pub(crate) fn shape(spec: &FlowSpec, tile: usize) -> KernelShape {
    let hidden = spec.hidden[0];
    // Tiles of equal length need the least padding.
    let tiles = hidden.div_ceil(tile);
    KernelShape {
        features: spec.features,
        blocks: spec.blocks,
        hidden,
        half: spec.features.div_ceil(2),
        affine: spec.coupling == Coupling::Affine,
        seeded: spec.permutation != Permutation::Alternate,
        tile: hidden.div_ceil(tiles),
    }
}

impl Packing {
    /// Computes the index tables of `spec`.
    pub(crate) fn new(spec: &FlowSpec, shape: &KernelShape) -> Packing {
        let layout = Layout::new(spec);
        let networks = shape.blocks * shape.networks();
        let (padded, half) = (shape.padded(), shape.half);
        let (row, numbers) = (4 * shape.quads(), per_unit(shape));
        let stride = networks * numbers * padded;
        let mut packing = Packing {
            weights: vec![NONE; networks * padded * row],
            biases: vec![NONE; networks * half],
            gradient: vec![NONE; layout.len()],
            stride,
        };
        for network in 0..networks {
            let layers = layout.network(network / shape.networks(), network % shape.networks());
            let (first, second) = (&layers[0], &layers[1]);
            for unit in 0..shape.hidden {
                let mut place = |number: usize, parameter: usize| {
                    packing.weights[(network * padded + unit) * row + number] = parameter as u32;
                    packing.gradient[parameter] =
                        ((network * numbers + number) * padded + unit) as u32;
                };
                for k in 0..first.inputs {
                    place(k, first.weight.start + unit * first.inputs + k);
                }
                place(half, first.bias.start + unit);
                for k in 0..second.outputs {
                    place(half + 1 + k, second.weight.start + k * shape.hidden + unit);
                }
            }
            for k in 0..second.outputs {
                let at = network * half + k;
                packing.biases[at] = (second.bias.start + k) as u32;
                packing.gradient[second.bias.start + k] = (stride + at) as u32;
            }
        }
        packing
    }
}

/// Assignment of an event's features to slots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FeatureSlots {
    /// First the feature of each slot in the first pair of blocks. Then, for each further pair, the
    /// previous slot of each of its slots. Last the feature of each slot in the last pair.
    pub(crate) order: Vec<u32>,
    /// For each pair except the first: the slot that each slot of the previous pair takes its value
    /// from in the backward pass.
    pub(crate) back: Vec<u32>,
}

impl FeatureSlots {
    /// Computes the slots of all pairs of blocks.
    pub(crate) fn new(spec: &FlowSpec) -> FeatureSlots {
        let slots = 2 * spec.features.div_ceil(2);
        let pairs = spec.blocks.div_ceil(2);
        let first = features_of_slots(spec, 0);
        let (mut order, mut back) = (first.clone(), (0..slots as u32).collect::<Vec<_>>());
        let mut before = first;
        for pair in 1..pairs {
            let now = features_of_slots(spec, pair);
            order.extend(places(&now, &before));
            back.extend(places(&before, &now));
            before = now;
        }
        order.extend(before);
        FeatureSlots { order, back }
    }
}

/// Returns the feature of each slot in a pair of blocks.
fn features_of_slots(spec: &FlowSpec, pair: usize) -> Vec<u32> {
    let split = spec.split(2 * pair);
    let mut features = [split.conditioner, split.transformed].concat();
    // With an odd number of features one slot is unused: it gets a feature index out of range.
    features.resize(2 * spec.features.div_ceil(2), spec.features);
    features.into_iter().map(|f| f as u32).collect()
}

/// Returns the position in `those` of each member of `these`; both have the same members.
fn places<'a>(these: &'a [u32], those: &'a [u32]) -> impl Iterator<Item = u32> + 'a {
    these.iter().filter_map(|f| those.iter().position(|g| g == f).map(|at| at as u32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_parameter_has_value_and_gradient_place() {
        for (features, hidden, affine) in [(2, 1, true), (5, 7, false), (6, 130, true)] {
            let spec = FlowSpec {
                hidden: vec![hidden],
                blocks: 3,
                coupling: if affine { Coupling::Affine } else { Coupling::Additive },
                permutation: Permutation::Seeded(7),
                ..FlowSpec::reference_study(features)
            };
            let packing = Packing::new(&spec, &shape(&spec, 64));
            let parameters = Layout::new(&spec).len();
            let mut seen: Vec<u32> = packing
                .weights
                .iter()
                .chain(&packing.biases)
                .copied()
                .filter(|p| *p != NONE)
                .collect();
            seen.sort_unstable();
            assert_eq!(seen, (0..parameters as u32).collect::<Vec<_>>());
            let mut places = packing.gradient.clone();
            places.sort_unstable();
            places.dedup();
            assert_eq!(places.len(), parameters);
            assert!(!places.contains(&NONE));
        }
    }

    #[test]
    fn slots_map_from_pair_to_pair_and_back() {
        let spec = FlowSpec {
            blocks: 5,
            permutation: Permutation::Seeded(3),
            ..FlowSpec::reference_study(7)
        };
        let slots = FeatureSlots::new(&spec);
        let width = 8;
        let mut now: Vec<u32> = slots.order[..width].to_vec();
        for pair in 1..3 {
            let before = now.clone();
            let step = &slots.order[pair * width..][..width];
            now = step.iter().map(|from| before[*from as usize]).collect();
            let split = spec.split(2 * pair);
            let half: Vec<u32> = split.conditioner.iter().map(|f| *f as u32).collect();
            assert_eq!(now[..4], half);
            let back: Vec<u32> = slots.back[pair * width..][..width]
                .iter()
                .map(|from| now[*from as usize])
                .collect();
            assert_eq!(back, before);
        }
        assert_eq!(now, slots.order[3 * width..]);
    }
}
