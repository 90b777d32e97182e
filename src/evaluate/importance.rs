//! Reliance of a model on each feature (permutation importance, Breiman 2001).
//!
//! The events are scored again with the value of a feature taken from an event of either class. The
//! loss of area under the ROC curve measures how much this model uses the feature, even if a model
//! without it would be as good: the exchange breaks correlations and gives events that do not exist.
//! `sweep --leave-one-out` measures the value of a feature for training.

use crate::data::table::{Block, Request, Table};
use crate::dataset::event_store::class_of;
use crate::dataset::source::Source;
use crate::engine::{Scored, Scorer};
use crate::error::Result;
use taiga_flow_gpu::random::Stream;

/// Number of first rows of each file that values are taken from.
const ROWS: u64 = 65_536;

/// Values of the features of usable events, by class.
#[derive(Debug, Default)]
pub struct FeatureValues {
    values: Vec<[Vec<f32>; 2]>, // (features)
}

impl FeatureValues {
    /// Reads the values from the first rows of each file; the same on every rank.
    pub fn read(scorer: &Scorer, sources: &[Source]) -> Result<FeatureValues> {
        let features = scorer.card.features.len();
        let mut pool = FeatureValues { values: vec![[Vec::new(), Vec::new()]; features] };
        let (mut block, mut scored) = (Block::default(), Scored::default());
        for source in sources {
            let table = Table::open(&source.path, &source.schema)?;
            let mut reader = table.reader(&Request {
                quantities: scorer.selection().quantities().to_vec(),
                class: table.has_class(),
                ..Request::default()
            })?;
            reader.read(0..source.rows.min(ROWS), &mut block)?;
            scorer.score(&block, &mut scored)?;
            for row in (0..block.rows).filter(|row| scored.status[*row] == 0) {
                let Some(class @ 0..=1) = class_of(source, &block, row) else { continue };
                for (values, own) in pool.values.iter_mut().zip(&block.quantities) {
                    values[class as usize].push(own[row]);
                }
            }
        }
        Ok(pool)
    }

    pub fn features(&self) -> usize {
        self.values.len()
    }

    /// Returns a value of feature `d`, from either class with equal probability.
    fn value(&self, d: usize, draw: Stream, row: u64) -> Option<f32> {
        let [hadrons, gammas] = &self.values[d];
        let from = match draw.uniform(2 * row) < 0.5 {
            _ if hadrons.is_empty() => gammas,
            _ if gammas.is_empty() => hadrons,
            true => gammas,
            false => hadrons,
        };
        from.get((draw.uniform(2 * row + 1) * from.len() as f64) as usize).copied()
    }

    /// Appends the scores of some rows of a block, without each of the features in turn; `place` is
    /// the number of the file and of the first row of the block.
    pub fn scores(
        &self,
        scorer: &Scorer,
        block: &mut Block,
        rows: &[usize],
        [file, first]: [u64; 2],
        without: &mut [Vec<f32>], // (features)(events)
    ) -> Result<()> {
        let mut scored = Scored::default();
        for (d, scores) in without.iter_mut().enumerate() {
            let draw = draws([file, first], d);
            let own = block.quantities[d].clone();
            for row in rows {
                let value = self.value(d, draw, *row as u64);
                block.quantities[d][*row] = value.unwrap_or(own[*row]);
            }
            scorer.score(block, &mut scored)?;
            scores.extend(rows.iter().map(|row| scored.score[*row]));
            block.quantities[d] = own;
        }
        Ok(())
    }
}

/// Returns the random stream of a feature in a block, from the number of its file and its first row.
fn draws([file, first]: [u64; 2], feature: usize) -> Stream {
    Stream::new(first, "importance", &[file, feature as u64])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_of_different_files_have_different_draws() {
        let places = [[0, 0], [1, 0], [0, 65_536], [1, 65_536]];
        let streams: Vec<Stream> =
            places.iter().flat_map(|place| [0, 1].map(|d| draws(*place, d))).collect();
        for (i, one) in streams.iter().enumerate() {
            for other in &streams[..i] {
                let equal = (0..100).filter(|row| one.bits(*row) == other.bits(*row)).count();
                assert_eq!(equal, 0);
            }
        }
    }
}
