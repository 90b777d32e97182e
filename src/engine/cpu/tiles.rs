//! Distributes tiles of events to threads, for every kernel.
//!
//! A kernel defines the arithmetic on one tile. The sums of a thread are added as integers, so the
//! assignment of tiles to threads does not change a bit. The events of a tile belong to one shard,
//! counted from its start, so a sum depends neither on other shards nor on the threads.

use super::forward::LaneTile;
use super::kernel::{Kernel, RowBatch};
use super::pass::Pass;
use crate::engine::fixed::FixedSum;
use crate::engine::simd::Isa;
use crate::error::{Fault, Result};
use rayon::prelude::*;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard};

/// Events of one shard whose gradient is summed in f32 before it is rounded and added as integers.
/// Like the order of shards, it is part of the definition of a sum.
pub const GRADIENT_TILE: usize = 256;

/// Arithmetic on one tile.
pub trait TileKernel: Send + Sync {
    /// Working memory of a thread for scores and inverses.
    type Work: Default + Send;
    /// Working memory and sums of a thread for gradients.
    type Scratch: Send;
    /// Events that a thread scores at a time.
    const SCORE_TILE: usize;

    /// Sets the parameters (flat, see `Layout`).
    fn set_params(&mut self, params: &[f32]);
    /// Computes log p of the tile's events into `out` (events); the tile then has their latent
    /// points.
    fn log_prob(&self, isa: Isa, tile: &mut LaneTile, work: &mut Self::Work, out: &mut [f32]);
    /// Replaces latent points by events.
    fn inverse(&self, isa: Isa, tile: &mut LaneTile, work: &mut Self::Work);

    /// Creates working memory with sums of 0.
    fn scratch(&self) -> Self::Scratch;
    /// Returns the pass of the scratch memory.
    fn pass(scratch: &mut Self::Scratch) -> &mut Pass;
    /// Sets all sums to zero.
    fn clear(scratch: &mut Self::Scratch);
    /// Adds the gradient of the tile in the pass to the sums, and writes its losses.
    fn gradient(&self, isa: Isa, scratch: &mut Self::Scratch);
    /// Adds the sums to flat ones.
    fn collect(&self, scratch: &Self::Scratch, flat: &mut [i64]);
}

/// A kernel with the working memory of all threads.
pub struct Tiled<T: TileKernel> {
    features: usize,
    kernel: T,
    workers: Vec<Mutex<TileWorker<T::Scratch>>>, // (threads)
}

/// Memory of one thread for a gradient.
struct TileWorker<S> {
    scratch: S,
    unusable: u64,
}

/// Events of one shard that form a tile.
struct TileOf {
    shard: usize,
    events: Range<usize>,
    bound: f32,
}

impl<T: TileKernel> Tiled<T> {
    /// Tiles that a thread takes at a time, some milliseconds of work. If other work delays a
    /// thread, other threads take the tiles that it has not started.
    const TILES_TOGETHER: usize = 4096 / T::SCORE_TILE;

    /// Creates working memory for `threads` threads.
    pub fn new(features: usize, threads: usize, kernel: T) -> Tiled<T> {
        let workers = (0..threads)
            .map(|_| Mutex::new(TileWorker { scratch: kernel.scratch(), unusable: 0 }))
            .collect();
        Tiled { features, kernel, workers }
    }

    /// Adds the gradient of one tile to `worker`; returns its loss.
    fn tile(
        &self,
        isa: Isa,
        batch: &RowBatch,
        tile: &TileOf,
        worker: &mut TileWorker<T::Scratch>,
    ) -> f64 {
        let rows =
            &batch.events[tile.events.start * self.features..tile.events.end * self.features];
        let weights = batch.weights.map(|w| &w[tile.events.clone()]);
        T::pass(&mut worker.scratch).load(self.features, rows, weights, tile.bound);
        self.kernel.gradient(isa, &mut worker.scratch);
        let pass = T::pass(&mut worker.scratch);
        worker.unusable += u64::from(pass.unusable);
        pass.loss.iter().map(|l| f64::from(*l)).sum()
    }

    /// Processes tiles on one thread until none are left; returns (tile, loss).
    fn work(
        &self,
        isa: Isa,
        batch: &RowBatch,
        tiles: &[TileOf],
        next: &AtomicUsize,
        mut worker: MutexGuard<TileWorker<T::Scratch>>,
    ) -> Vec<(usize, f64)> {
        let mut done = Vec::new();
        T::clear(&mut worker.scratch);
        worker.unusable = 0;
        loop {
            let t = next.fetch_add(1, Ordering::Relaxed);
            let Some(tile) = tiles.get(t) else { return done };
            done.push((t, self.tile(isa, batch, tile, &mut worker)));
        }
    }
}

/// Returns the tiles of all shards. The tiles of a shard share its bound, so that no sum of all
/// shards can overflow.
fn tiles(offsets: &[usize], bound: f64) -> Vec<TileOf> {
    let mut tiles = Vec::new();
    for (shard, range) in offsets.windows(2).enumerate() {
        let (start, end) = (range[0], range[1]);
        let count = (end - start).div_ceil(GRADIENT_TILE);
        for first in (start..end).step_by(GRADIENT_TILE) {
            let events = first..(first + GRADIENT_TILE).min(end);
            tiles.push(TileOf { shard, events, bound: (bound / count as f64) as f32 });
        }
    }
    tiles
}

impl<T: TileKernel> Kernel for Tiled<T> {
    fn set_params(&mut self, params: &[f32]) {
        self.kernel.set_params(params);
    }

    fn log_prob(&self, isa: Isa, events: &[f32], out: &mut [f32]) {
        let width = T::SCORE_TILE * self.features;
        out.par_chunks_mut(T::SCORE_TILE)
            .zip(events.par_chunks(width))
            .with_max_len(Self::TILES_TOGETHER)
            .for_each_init(<(LaneTile, T::Work)>::default, |(tile, work), (out, rows)| {
                tile.load(self.features, rows);
                self.kernel.log_prob(isa, tile, work, out);
            });
    }

    fn log_prob_and_chi2(&self, isa: Isa, events: &[f32], out: &mut [f32], chi2: &mut [f32]) {
        let width = T::SCORE_TILE * self.features;
        out.par_chunks_mut(T::SCORE_TILE)
            .zip(chi2.par_chunks_mut(T::SCORE_TILE))
            .zip(events.par_chunks(width))
            .with_max_len(Self::TILES_TOGETHER)
            .for_each_init(<(LaneTile, T::Work)>::default, |(tile, work), ((out, chi2), rows)| {
                tile.load(self.features, rows);
                self.kernel.log_prob(isa, tile, work, out);
                tile.squares(self.features, chi2);
            });
    }

    fn inverse(&self, isa: Isa, latent: &[f32], events: &mut [f32]) {
        let width = T::SCORE_TILE * self.features;
        events
            .par_chunks_mut(width)
            .zip(latent.par_chunks(width))
            .with_max_len(Self::TILES_TOGETHER)
            .for_each_init(<(LaneTile, T::Work)>::default, |(tile, work), (events, rows)| {
                tile.load(self.features, rows);
                self.kernel.inverse(isa, tile, work);
                tile.store(self.features, events);
            });
    }

    fn gradient(
        &self,
        pool: &rayon::ThreadPool,
        isa: Isa,
        batch: &RowBatch,
        sums: &mut FixedSum,
        loss: &mut [f64],
    ) -> Result<()> {
        let died = || Fault::new("a worker thread panicked").internal();
        let tiles = tiles(batch.offsets, sums.bound());
        let next = AtomicUsize::new(0);
        let losses: Vec<Vec<(usize, f64)>> =
            pool.broadcast(|thread| match self.workers[thread.index()].lock() {
                Ok(worker) => self.work(isa, batch, &tiles, &next, worker),
                Err(_) => Vec::new(),
            });
        let mut by_tile: Vec<(usize, f64)> = losses.into_iter().flatten().collect();
        by_tile.sort_unstable_by_key(|(t, _)| *t);
        loss.fill(0.0);
        for ((_, value), tile) in by_tile.iter().zip(&tiles) {
            loss[tile.shard] += value;
        }
        for worker in &self.workers {
            let worker = worker.lock().map_err(|_| died())?;
            self.kernel.collect(&worker.scratch, &mut sums.values);
            sums.unusable += worker.unusable;
        }
        if by_tile.len() == tiles.len() { Ok(()) } else { Err(died()) }
    }
}
