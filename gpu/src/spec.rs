//! Specification of a flow: a RealNVP of coupling blocks (Dinh et al. 2017).
//!
//! A [`FlowSpec`] with a flat vector of parameters (see `layout`) is a model.
//! [`FlowSpec::validate`] checks the specification once; all other code relies on that check.

use crate::random::{RandomPermutation as Shuffle, Stream};
use serde::{Deserialize, Serialize};

/// Largest number of features; bounds every buffer of one event.
pub const MAX_FEATURES: usize = 32;
pub const MAX_BLOCKS: usize = 256;
pub const MAX_HIDDEN_LAYERS: usize = 8;
pub const MAX_HIDDEN_WIDTH: usize = 16_384;

/// Shape of a flow.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FlowSpec {
    /// Dimension D of an event.
    pub features: usize,
    pub blocks: usize,
    /// Widths of the hidden layers of each scale and shift network.
    pub hidden: Vec<usize>,
    pub coupling: Coupling,
    /// a in s = a·tanh(σ/a): bounds the log-scale of one block.
    pub scale_clamp: f32,
    pub permutation: Permutation,
}

/// Transformation of a coupling block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Coupling {
    /// y_b = x_b · exp(s(x_a)) + μ(x_a)
    Affine,
    /// y_b = x_b + μ(x_a): volume-preserving, no scale network.
    Additive,
}

/// Assignment of features to the conditioning and the transformed half of each block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Permutation {
    /// The first half of the features conditions the even blocks, the second half the odd ones.
    Alternate,
    /// Blocks form pairs. Each pair halves a seeded permutation of the features, and its second
    /// block swaps the halves, so each pair transforms every feature.
    Seeded(u64),
}

/// The two index sets of a block, each in ascending order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Split {
    /// Features that pass unchanged and are the input of the networks.
    pub conditioner: Vec<usize>,
    /// Features that are scaled and shifted.
    pub transformed: Vec<usize>,
}

/// Error for a specification outside the limits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: expected {expected}, found {found}")]
pub struct SpecError {
    pub field: &'static str,
    pub expected: String,
    pub found: String,
}

impl FlowSpec {
    /// Returns the network of the reference study (arXiv 2510.20334) for D features.
    #[must_use]
    pub fn reference_study(features: usize) -> FlowSpec {
        FlowSpec {
            features,
            blocks: 8,
            hidden: vec![512],
            coupling: Coupling::Affine,
            scale_clamp: 2.0,
            permutation: Permutation::Alternate,
        }
    }

    /// Checks all numbers against their limits.
    ///
    /// # Errors
    /// [`SpecError`] with the first field outside its limits.
    pub fn validate(&self) -> Result<(), SpecError> {
        within("features", self.features, 2, MAX_FEATURES)?;
        within("blocks", self.blocks, 1, MAX_BLOCKS)?;
        within("number of hidden layers", self.hidden.len(), 1, MAX_HIDDEN_LAYERS)?;
        for width in &self.hidden {
            within("hidden width", *width, 1, MAX_HIDDEN_WIDTH)?;
        }
        if !(self.scale_clamp.is_finite() && self.scale_clamp > 0.0) {
            return Err(SpecError {
                field: "scale_clamp",
                expected: "a finite number above 0".into(),
                found: self.scale_clamp.to_string(),
            });
        }
        Ok(())
    }

    /// Returns the index sets of `block`.
    #[must_use]
    pub fn split(&self, block: usize) -> Split {
        let order = self.order(block / 2);
        let (first, second) = order.split_at(self.features.div_ceil(2));
        let (mut conditioner, mut transformed) = if block.is_multiple_of(2) {
            (first.to_vec(), second.to_vec())
        } else {
            (second.to_vec(), first.to_vec())
        };
        conditioner.sort_unstable();
        transformed.sort_unstable();
        Split { conditioner, transformed }
    }

    /// Returns the networks of each block: the scale network first, then the shift network.
    #[must_use]
    pub fn networks(&self) -> &'static [Network] {
        match self.coupling {
            Coupling::Affine => &[Network::Scale, Network::Shift],
            Coupling::Additive => &[Network::Shift],
        }
    }

    /// Counts the fused multiply-adds of one forward pass of one event: the matrix products.
    #[must_use]
    pub fn forward_fma(&self) -> u64 {
        (0..self.blocks)
            .map(|b| self.networks().len() as u64 * self.network_fma(&self.split(b)))
            .sum()
    }

    /// Counts the fused multiply-adds of one training step of one event: forward (1), backward with
    /// respect to inputs (1) and to weights (1), and the recomputed hidden layers (all products
    /// except the output layer's).
    #[must_use]
    pub fn training_fma(&self) -> u64 {
        let outputs =
            |split: &Split| (self.hidden[self.hidden.len() - 1] * split.transformed.len()) as u64;
        (0..self.blocks)
            .map(|b| {
                let split = self.split(b);
                self.networks().len() as u64 * (4 * self.network_fma(&split) - outputs(&split))
            })
            .sum()
    }

    fn network_fma(&self, split: &Split) -> u64 {
        let mut inputs = split.conditioner.len();
        let mut sum = 0;
        for outputs in self.hidden.iter().copied().chain([split.transformed.len()]) {
            sum += (inputs * outputs) as u64;
            inputs = outputs;
        }
        sum
    }

    fn order(&self, pair: usize) -> Vec<usize> {
        match self.permutation {
            Permutation::Alternate => (0..self.features).collect(),
            Permutation::Seeded(seed) => {
                let stream = Stream::new(seed, "coupling order", &[pair as u64]);
                let shuffle = Shuffle::new(self.features as u64, stream);
                (0..self.features as u64).map(|i| shuffle.at(i) as usize).collect()
            }
        }
    }
}

/// Network of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Network {
    /// σ(x_a), the unclamped log-scale.
    Scale,
    /// μ(x_a)
    Shift,
}

impl Network {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Network::Scale => "scale",
            Network::Shift => "shift",
        }
    }
}

fn within(field: &'static str, value: usize, low: usize, high: usize) -> Result<(), SpecError> {
    if (low..=high).contains(&value) {
        return Ok(());
    }
    Err(SpecError { field, expected: format!("{low} to {high}"), found: value.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reference_network_work_matches_publication() {
        let spec = FlowSpec::reference_study(6);
        assert_eq!(spec.forward_fma(), 49_152);
        assert_eq!(spec.training_fma(), 172_032);
    }

    #[test]
    fn every_block_pair_transforms_every_feature() {
        for features in 2..=MAX_FEATURES {
            for permutation in [Permutation::Alternate, Permutation::Seeded(11)] {
                let spec = FlowSpec { permutation, ..FlowSpec::reference_study(features) };
                for pair in 0..4 {
                    let (a, b) = (spec.split(2 * pair), spec.split(2 * pair + 1));
                    assert_eq!(a.conditioner, b.transformed);
                    assert_eq!(a.transformed, b.conditioner);
                    let mut all = [a.conditioner, a.transformed].concat();
                    all.sort_unstable();
                    assert_eq!(all, (0..features).collect::<Vec<_>>());
                }
            }
        }
    }

    #[test]
    fn out_of_range_specification_is_refused() {
        let spec = FlowSpec { features: 1, ..FlowSpec::reference_study(6) };
        assert_eq!(spec.validate().unwrap_err().found, "1");
        let spec = FlowSpec { scale_clamp: f32::NAN, ..FlowSpec::reference_study(6) };
        assert_eq!(spec.validate().unwrap_err().field, "scale_clamp");
    }
}
