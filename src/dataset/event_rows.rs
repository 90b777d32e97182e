//! Events in memory, in chunks: growing never copies or doubles the memory.

use crate::config::Feature;
use crate::data::schema::features;
use crate::data::selection::Selection;
use crate::data::table::Block;
use crate::error::Result;

/// Events of a chunk.
const CHUNK_EVENTS: usize = 4096;

/// Events (events, features), row-major in chunks of the same length.
#[derive(Debug, Clone)]
pub struct EventRows {
    features: usize,
    len: usize,
    chunks: Vec<Vec<f32>>,
    pub(super) weights: Vec<f32>, // (events); empty if all are 1
    pub(super) bins: Vec<u16>,    // (events); of held-out events, if thresholds have bins
}

impl EventRows {
    pub(super) fn new(features: usize) -> EventRows {
        EventRows { features, len: 0, chunks: Vec::new(), weights: Vec::new(), bins: Vec::new() }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(crate) fn get(&self, i: usize) -> &[f32] {
        &self.chunks[i / CHUNK_EVENTS][(i % CHUNK_EVENTS) * self.features..][..self.features]
    }

    /// Returns the events in their order, one chunk after the other: (events, features).
    pub(crate) fn chunks(&self) -> impl Iterator<Item = &[f32]> {
        self.chunks.iter().map(Vec::as_slice)
    }

    pub(super) fn push(&mut self, row: impl Iterator<Item = f32>) {
        if self.len.is_multiple_of(CHUNK_EVENTS) {
            self.chunks.push(Vec::with_capacity(CHUNK_EVENTS * self.features));
        }
        if let Some(chunk) = self.chunks.last_mut() {
            chunk.extend(row);
            self.len += 1;
        }
    }

    /// Adds the features and the weight of a row; `uniform` draws the noise of a feature.
    pub(super) fn push_event(
        &mut self,
        selection: &Selection,
        block: &Block,
        row: usize,
        uniform: impl Fn(usize) -> f64,
    ) -> Result<()> {
        let features = selection.features().iter().enumerate();
        self.push(
            features
                .map(|(d, feature)| dequantised(feature, block.quantities[d][row], || uniform(d))),
        );
        if selection.has_weight() {
            self.weights.push(selection.weight(block, row)? as f32);
        }
        Ok(())
    }

    /// Returns the loss weights (events); `None` if all are 1.
    pub(crate) fn weights(&self) -> Option<&[f32]> {
        (!self.weights.is_empty()).then_some(&self.weights)
    }

    /// Returns the threshold bins (events); empty without bins.
    pub(crate) fn bins(&self) -> &[u16] {
        &self.bins
    }

    /// Returns Σ weight and Σ weight², summed in the order of the events.
    pub(super) fn weight_sums(&self) -> (f64, f64) {
        match self.weights() {
            None => (self.len as f64, self.len as f64),
            Some(weights) => weights.iter().fold((0.0, 0.0), |(sum, squares), w| {
                let w = f64::from(*w);
                (sum + w, squares + w * w)
            }),
        }
    }

    pub(super) fn rows_mut(&mut self) -> impl Iterator<Item = &mut [f32]> {
        let features = self.features;
        self.chunks.iter_mut().flat_map(move |c| c.chunks_exact_mut(features))
    }

    pub(crate) fn rows(&self) -> impl Iterator<Item = &[f32]> {
        self.chunks.iter().flat_map(|c| c.chunks_exact(self.features))
    }
}

/// Returns a value with uniform noise of the quantum of its feature; `uniform` draws from 0 to 1.
fn dequantised(feature: &Feature, x: f32, uniform: impl FnOnce() -> f64) -> f32 {
    if feature.quantum == 0.0 {
        return x;
    }
    let noisy = (f64::from(x) + feature.quantum * (uniform() - 0.5)) as f32;
    // Noise must not move a value out of the domain of the transform.
    if features::transform(feature, f64::from(noisy)).is_finite() { noisy } else { x }
}
