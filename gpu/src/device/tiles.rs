//! Divides a batch into tiles, and tiles into launches.

use super::error::{DeviceError, Result, expect_len};
use super::{DeviceBatch, Events};

/// Events whose gradient is summed in f32 before it is rounded to integers. It is part of the
/// definition of the result on every device.
const TILE_EVENTS: usize = 1024;

/// A range of events of one shard.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Tile {
    pub(crate) shard: usize,
    pub(crate) start: usize,
    pub(crate) count: usize,
    /// Components of its gradient are usable below this magnitude. The sum of all tiles of all
    /// shards then fits into 64 bits.
    pub(crate) bound: f32,
}

impl Tile {
    pub(crate) fn end(&self) -> usize {
        self.start + self.count
    }
}

/// Tiles of a batch, grouped into launches.
pub(crate) struct TilePlan {
    tiles: Vec<Tile>,
    /// First tile of each launch, and the number of tiles.
    starts: Vec<usize>,
    shards: usize,
}

impl TilePlan {
    /// Divides a batch into tiles, in launches of at most `most` events.
    pub(crate) fn new(batch: &DeviceBatch, features: usize, most: usize) -> Result<TilePlan> {
        let events = batch.offsets.last().copied().unwrap_or(0);
        match batch.events {
            Events::Rows(rows) => {
                expect_len("numbers of the events", events * features, rows.len())?;
            }
            Events::Held { numbers, flips } => {
                expect_len("events", events, numbers.len())?;
                expect_len("flips of events", events, flips.map_or(events, <[u32]>::len))?;
            }
        }
        if let Some(weights) = batch.weights {
            expect_len("loss weights", events, weights.len())?;
        }
        if most < TILE_EVENTS {
            return Err(DeviceError::TooLittle {
                what: "memory for one buffer, in events",
                needed: TILE_EVENTS as u64,
                available: most as u64,
            });
        }
        let mut tiles = Vec::new();
        for (shard, ends) in batch.offsets.windows(2).enumerate() {
            let length = ends[1].checked_sub(ends[0]).ok_or(DeviceError::Argument {
                what: "end of a shard",
                expected: ends[0],
                found: ends[1],
            })?;
            let bound = bound(batch.shards, length.div_ceil(TILE_EVENTS));
            tiles.extend((ends[0]..ends[1]).step_by(TILE_EVENTS).map(|start| Tile {
                shard,
                start,
                count: TILE_EVENTS.min(ends[1] - start),
                bound,
            }));
        }
        let mut starts = vec![0];
        for (i, tile) in tiles.iter().enumerate() {
            if tile.end() - tiles[starts[starts.len() - 1]].start > most {
                starts.push(i);
            }
        }
        starts.push(tiles.len());
        Ok(TilePlan { tiles, starts, shards: batch.offsets.len().saturating_sub(1) })
    }

    /// Returns the number of shards of the batch.
    pub(crate) fn shards(&self) -> usize {
        self.shards
    }

    /// Returns the tiles of each launch that has events.
    pub(crate) fn launches(&self) -> impl Iterator<Item = &[Tile]> {
        self.starts.windows(2).map(|s| &self.tiles[s[0]..s[1]]).filter(|tiles| !tiles.is_empty())
    }

    /// Returns the largest numbers of events and of tiles in a launch; none without events.
    pub(crate) fn largest(&self) -> Option<(usize, usize)> {
        let events = self.launches().map(|l| l[l.len() - 1].end() - l[0].start).max()?;
        Some((events, self.launches().map(<[Tile]>::len).max()?))
    }
}

/// Returns 2³⁰ divided by the tiles of all shards, rounded down to f32.
fn bound(shards: usize, tiles: usize) -> f32 {
    let exact = f64::from(1u32 << 30) / (shards.max(1) * tiles.max(1)) as f64;
    let near = exact as f32;
    if f64::from(near) > exact { near.next_down() } else { near }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_and_launches_have_every_event_once() {
        let offsets = [0, 1, 1, 1025, 5000];
        let events = vec![0.0; 5000 * 2];
        let batch = DeviceBatch {
            events: Events::Rows(&events),
            weights: None,
            offsets: &offsets,
            shards: 16,
        };
        let plan = TilePlan::new(&batch, 2, 1500).unwrap();
        let tiles: Vec<Tile> = plan.launches().flatten().copied().collect();
        let mut next = 0;
        for tile in &tiles {
            assert_eq!(tile.start, next);
            assert!(tile.count <= TILE_EVENTS && tile.end() <= offsets[tile.shard + 1]);
            next = tile.end();
        }
        assert_eq!(next, 5000);
        assert!(plan.launches().all(|l| l[l.len() - 1].end() - l[0].start <= 1500));
        assert_eq!(tiles[1].bound, 67_108_864.0);
        assert_eq!(tiles[3].bound, 16_777_216.0);
    }

    #[test]
    fn batch_with_mismatched_lengths_is_refused() {
        let batch = DeviceBatch {
            events: Events::Rows(&[0.0; 6]),
            weights: None,
            offsets: &[0, 4],
            shards: 1,
        };
        assert!(TilePlan::new(&batch, 2, 4096).is_err());
        let batch = DeviceBatch {
            events: Events::Rows(&[0.0; 6]),
            weights: Some(&[1.0]),
            offsets: &[0, 3],
            shards: 1,
        };
        assert!(TilePlan::new(&batch, 2, 4096).is_err());
        let batch = DeviceBatch {
            events: Events::Rows(&[0.0; 6]),
            weights: None,
            offsets: &[4, 3],
            shards: 1,
        };
        assert!(TilePlan::new(&batch, 2, 4096).is_err());
    }
}
