//! Events of one step, as an engine takes them.

/// Events of one step, of all shards of this rank in their order.
#[derive(Debug, Clone, Default)]
pub struct Gathered {
    pub rows: Vec<f32>,      // (events, features), scaled; empty if numbers are used
    pub numbers: Vec<u32>,   // (events), and the features whose sign changes, if used
    pub flips: Vec<u32>,     // (events); empty if no feature is signed
    pub weights: Vec<f32>,   // (events); empty if all are 1
    pub offsets: Vec<usize>, // (shards + 1)
    /// Position of each event among the training events of its shard. Shard and position are
    /// functions of the plan, so that draws named by them do not depend on the ranks.
    pub places: Vec<u64>, // (events)
}

impl Gathered {
    pub fn len(&self) -> usize {
        self.places.len()
    }

    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    pub(crate) fn weights(&self) -> Option<&[f32]> {
        (!self.weights.is_empty()).then_some(&self.weights)
    }
}
