//! The CPU engine: fused kernels over tiles of events in lanes, threads over tiles.
//!
//! The bits depend on neither the instruction set nor the number of threads: an event's
//! likelihood is a function of the event, and the gradient of a tile (a fixed part of a
//! shard) is summed by one thread in a fixed order, then added as integers.

mod backward;
mod dispatch;
mod forward;
pub mod lanes;
pub(crate) mod vector;
mod weights;

pub use dispatch::Isa;
pub(crate) use dispatch::vectorised;

use super::{Batch, Engine, FixedSum};
use crate::error::{Fault, Result};
use backward::Scratch;
use forward::Tile;
use rayon::prelude::*;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use taiga_flow_gpu::layout::Layout;
use taiga_flow_gpu::spec::FlowSpec;
use weights::Packed;

/// Events a thread scores at a time.
const SCORE_TILE: usize = 1024;
/// Events of one shard whose gradient is summed in f32 before it is rounded and added
/// as integers; part of the definition of a sum, like the order of shards.
const GRADIENT_TILE: usize = 256;

/// One flow on the CPU.
pub struct CpuEngine {
    kernel: Box<dyn Kernel>,
    isa: Isa,
    pool: rayon::ThreadPool,
}

impl CpuEngine {
    /// An engine for flows of `spec` on `threads` threads, with all parameters zero.
    pub fn new(spec: &FlowSpec, threads: usize, isa: Isa) -> Result<CpuEngine> {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().map_err(|e| {
            Fault::new("cannot start the worker threads")
                .expected(format!("{threads} threads"))
                .found(e)
                .advice("lower --threads")
                .environment()
        })?;
        Ok(CpuEngine { kernel: kernel(spec, threads)?, isa, pool })
    }
}

impl Engine for CpuEngine {
    fn describe(&self) -> String {
        let threads = self.pool.current_num_threads();
        format!("cpu, {}, {threads} thread{}", self.isa.name(), if threads == 1 { "" } else { "s" })
    }

    fn class(&self) -> &'static str {
        "cpu"
    }

    fn set_params(&mut self, params: &[f32]) -> Result<()> {
        self.kernel.set_params(params);
        Ok(())
    }

    fn log_prob(&self, events: &[f32], log_prob: &mut [f32]) -> Result<()> {
        self.pool.install(|| self.kernel.log_prob(self.isa, events, log_prob));
        Ok(())
    }

    fn inverse(&self, latent: &[f32], events: &mut [f32]) -> Result<()> {
        self.pool.install(|| self.kernel.inverse(self.isa, latent, events));
        Ok(())
    }

    fn gradient(&self, batch: &Batch, sums: &mut FixedSum, loss: &mut [f64]) -> Result<()> {
        self.kernel.gradient(&self.pool, self.isa, batch, sums, loss)
    }
}

/// The kernels at one padding P.
trait Kernel: Send + Sync {
    fn set_params(&mut self, params: &[f32]);
    fn log_prob(&self, isa: Isa, events: &[f32], out: &mut [f32]);
    fn inverse(&self, isa: Isa, latent: &[f32], events: &mut [f32]);
    fn gradient(
        &self,
        pool: &rayon::ThreadPool,
        isa: Isa,
        batch: &Batch,
        sums: &mut FixedSum,
        loss: &mut [f64],
    ) -> Result<()>;
}

/// The kernel with the least padding that holds half of the features.
fn kernel(spec: &FlowSpec, threads: usize) -> Result<Box<dyn Kernel>> {
    if spec.hidden.len() != 1 {
        return Err(Fault::new("the cpu engine has networks with one hidden layer only")
            .expected("model.hidden = [width]")
            .found(format!("{:?}", spec.hidden))
            .usage());
    }
    Ok(match spec.features.div_ceil(2) {
        1 => Box::new(Fused::<1>::new(spec, threads)),
        2 => Box::new(Fused::<2>::new(spec, threads)),
        3 => Box::new(Fused::<3>::new(spec, threads)),
        4 => Box::new(Fused::<4>::new(spec, threads)),
        5 => Box::new(Fused::<5>::new(spec, threads)),
        6 => Box::new(Fused::<6>::new(spec, threads)),
        7 | 8 => Box::new(Fused::<8>::new(spec, threads)),
        9..=12 => Box::new(Fused::<12>::new(spec, threads)),
        _ => Box::new(Fused::<16>::new(spec, threads)),
    })
}

struct Fused<const P: usize> {
    spec: FlowSpec,
    layout: Layout,
    flow: Packed<P>,
    workers: Vec<Mutex<Worker<P>>>, // (threads)
}

/// What one thread owns during a gradient.
struct Worker<const P: usize> {
    scratch: Scratch<P>,
    unusable: u64,
}

/// Some events of one shard.
struct TileOf {
    shard: usize,
    events: Range<usize>,
    bound: f32,
}

impl<const P: usize> Fused<P> {
    fn new(spec: &FlowSpec, threads: usize) -> Fused<P> {
        let layout = Layout::new(spec);
        let flow = Packed::new(spec, &layout, &vec![0.0; layout.len()]);
        let workers = (0..threads)
            .map(|_| Mutex::new(Worker { scratch: Scratch::new(&flow), unusable: 0 }))
            .collect();
        Fused { spec: spec.clone(), layout, flow, workers }
    }

    /// Adds one tile's gradient to `worker`; returns its loss.
    fn tile(&self, isa: Isa, batch: &Batch, tile: &TileOf, worker: &mut Worker<P>) -> f64 {
        let features = self.spec.features;
        let rows = &batch.events[tile.events.start * features..tile.events.end * features];
        let weights = batch.weights.map(|w| &w[tile.events.clone()]);
        let scratch = &mut worker.scratch;
        scratch.load(features, rows, weights);
        scratch.bound = tile.bound;
        backward::gradient::<P>(isa, &self.flow, scratch);
        worker.unusable += u64::from(scratch.unusable);
        scratch.loss.iter().map(|l| f64::from(*l)).sum()
    }

    /// Adds a worker's sums to flat ones.
    fn collect(&self, worker: &Worker<P>, sums: &mut FixedSum) {
        let networks = self.spec.networks().len();
        for (b, block) in worker.scratch.sums.iter().enumerate() {
            if let Some(scale) = &block.scale {
                scale.add_to(self.layout.network(b, 0), P, &mut sums.values);
            }
            block.shift.add_to(self.layout.network(b, networks - 1), P, &mut sums.values);
        }
        sums.unusable += worker.unusable;
    }
}

/// The tiles of all shards. The tiles of a shard share its bound, so that no sum of all
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

impl<const P: usize> Kernel for Fused<P> {
    fn set_params(&mut self, params: &[f32]) {
        self.flow = Packed::new(&self.spec, &self.layout, params);
    }

    fn log_prob(&self, isa: Isa, events: &[f32], out: &mut [f32]) {
        let features = self.spec.features;
        out.par_chunks_mut(SCORE_TILE).zip(events.par_chunks(SCORE_TILE * features)).for_each_init(
            Tile::default,
            |tile, (out, rows)| {
                tile.load(features, rows);
                forward::log_prob::<P>(isa, &self.flow, tile, out);
            },
        );
    }

    fn inverse(&self, isa: Isa, latent: &[f32], events: &mut [f32]) {
        let width = SCORE_TILE * self.spec.features;
        events.par_chunks_mut(width).zip(latent.par_chunks(width)).for_each_init(
            Tile::default,
            |tile, (events, rows)| {
                tile.load(self.spec.features, rows);
                forward::inverse::<P>(isa, &self.flow, tile);
                tile.store(self.spec.features, events);
            },
        );
    }

    fn gradient(
        &self,
        pool: &rayon::ThreadPool,
        isa: Isa,
        batch: &Batch,
        sums: &mut FixedSum,
        loss: &mut [f64],
    ) -> Result<()> {
        let tiles = tiles(batch.offsets, sums.bound());
        let next = AtomicUsize::new(0);
        let losses: Vec<Vec<(usize, f64)>> = pool.broadcast(|thread| {
            let mut mine = Vec::new();
            let Ok(mut worker) = self.workers[thread.index()].lock() else { return mine };
            worker.scratch.clear();
            worker.unusable = 0;
            loop {
                let t = next.fetch_add(1, Ordering::Relaxed);
                let Some(tile) = tiles.get(t) else { return mine };
                mine.push((t, self.tile(isa, batch, tile, &mut worker)));
            }
        });
        let mut by_tile: Vec<(usize, f64)> = losses.into_iter().flatten().collect();
        by_tile.sort_unstable_by_key(|(t, _)| *t);
        loss.fill(0.0);
        for ((_, value), tile) in by_tile.iter().zip(&tiles) {
            loss[tile.shard] += value;
        }
        for worker in &self.workers {
            let worker =
                worker.lock().map_err(|_| Fault::new("a worker thread died").internal())?;
            self.collect(&worker, sums);
        }
        if by_tile.len() == tiles.len() {
            Ok(())
        } else {
            Err(Fault::new("a worker thread died").internal())
        }
    }
}

#[cfg(test)]
mod tests;
