//! Assigns rows to logical shards and steps, by the seed and the global row index alone.
//!
//! Rows are assigned in blocks: S consecutive blocks go to the S shards in a seeded order. Rank r
//! of R owns the shards s ≡ r (mod R). Each shard has its own permutation per epoch. Step t of T
//! uses its positions ⌊n·t/T⌋ … ⌊n·(t+1)/T⌋, where n is the number of events of the shard.

use std::ops::Range;
use taiga_flow_gpu::random::{RandomPermutation, Stream};

/// Largest block, so that the buffer of a reader is small.
const LONGEST_BLOCK: u64 = 65_536;
/// Smallest number of blocks per shard, if there are enough rows, so that shards are similar.
const BLOCKS_PER_SHARD: u64 = 16;
/// Events per shard and step below which the reduction of a shard costs too much.
const EVENTS_PER_SHARD: u64 = 256;
/// Largest number of shards.
const MOST_SHARDS: u64 = 64;

/// Returns the number of logical shards for a global batch: the largest power of two up to
/// batch/256, within 1…64.
pub fn default_shards(batch: u64) -> u64 {
    let wanted = (batch / EVENTS_PER_SHARD).clamp(1, MOST_SHARDS);
    1 << wanted.ilog2()
}

/// Assignment of rows to shards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dealing {
    rows: u64,
    shards: u64,
    block: u64,
    seed: u64,
}

impl Dealing {
    /// Returns the assignment of `rows` rows to `shards` shards.
    pub(crate) fn new(rows: u64, shards: u64, seed: u64) -> Dealing {
        let block = (rows / (BLOCKS_PER_SHARD * shards)).clamp(1, LONGEST_BLOCK);
        Dealing { rows, shards, block, seed }
    }

    /// Returns the number of shards.
    pub fn shards(&self) -> u64 {
        self.shards
    }

    /// Returns the number of blocks.
    pub(crate) fn blocks(&self) -> u64 {
        self.rows.div_ceil(self.block)
    }

    /// Returns the global rows of a block.
    pub(crate) fn rows_of(&self, block: u64) -> Range<u64> {
        block * self.block..((block + 1) * self.block).min(self.rows)
    }

    /// Returns the shard of a block.
    pub(crate) fn shard_of(&self, block: u64) -> u64 {
        let stream = Stream::new(self.seed, "deal", &[block / self.shards]);
        RandomPermutation::new(self.shards, stream).at(block % self.shards)
    }

    /// Returns the pieces (shard, global rows) of a rank, in ascending order of rows.
    pub(crate) fn pieces(
        &self,
        rank: u64,
        ranks: u64,
    ) -> impl Iterator<Item = (u64, Range<u64>)> + '_ {
        (0..self.blocks())
            .map(|b| (self.shard_of(b), self.rows_of(b)))
            .filter(move |(shard, _)| shard % ranks == rank)
    }
}

/// Returns the positions of step `step` of `steps` in a shard of `events` events.
pub(crate) fn step_range(events: u64, step: u64, steps: u64) -> Range<u64> {
    let edge = |t: u64| (u128::from(events) * u128::from(t) / u128::from(steps)) as u64;
    edge(step)..edge(step + 1)
}

/// Returns the order of the events of a shard in an epoch.
pub(crate) fn epoch_order(events: u64, seed: u64, epoch: u64, shard: u64) -> RandomPermutation {
    RandomPermutation::new(events, Stream::new(seed, "epoch order", &[epoch, shard]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn number_of_shards_follows_the_batch() {
        let expected = [
            (1, 1),
            (256, 1),
            (511, 1),
            (512, 2),
            (2048, 8),
            (8192, 32),
            (12_288, 32),
            (16_384, 64),
            (1 << 20, 64),
        ];
        for (batch, shards) in expected {
            assert_eq!(default_shards(batch), shards, "batch {batch}");
        }
    }

    #[test]
    fn every_row_has_one_shard_on_any_ranks() {
        for (rows, shards) in [(1u64, 1u64), (5, 4), (1000, 8), (16_384, 32), (100_003, 64)] {
            let dealing = Dealing::new(rows, shards, 9);
            let mut owner = vec![None; rows as usize];
            for ranks in [1, 2, 3] {
                let mut seen = 0;
                for rank in 0..ranks {
                    for (shard, range) in dealing.pieces(rank, ranks) {
                        assert_eq!(shard % ranks, rank);
                        for row in range {
                            seen += 1;
                            let known = owner[row as usize].get_or_insert(shard);
                            assert_eq!(*known, shard);
                        }
                    }
                }
                assert_eq!(seen, rows);
            }
        }
    }

    #[test]
    fn shards_have_similar_sizes() {
        let dealing = Dealing::new(100_000, 16, 2);
        let mut counts = [0u64; 16];
        for (shard, range) in dealing.pieces(0, 1) {
            counts[shard as usize] += range.end - range.start;
        }
        let (low, high) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
        assert!(high - low <= 2 * 390, "{counts:?}");
    }

    #[test]
    fn steps_take_every_position_once_and_evenly() {
        for (events, steps) in [(0, 3), (1, 1), (7, 3), (1000, 7), (3, 5)] {
            let mut next = 0;
            for step in 0..steps {
                let range = step_range(events, step, steps);
                assert_eq!(range.start, next);
                assert!(range.end - range.start <= events.div_ceil(steps));
                next = range.end;
            }
            assert_eq!(next, events);
        }
    }
}
