//! The CPU engine: fused kernels over tiles of events in lanes, threads over tiles
//! (likelihood) or shards (gradient).
//!
//! The bits depend on neither the instruction set nor the number of threads: an event's
//! likelihood is a function of the event, and a shard's gradient is summed by one
//! thread in a fixed order, then added as integers.

mod backward;
mod dispatch;
mod forward;
pub mod lanes;
mod weights;

pub use dispatch::Isa;

use super::{Batch, Engine, FixedSum};
use crate::error::{Fault, Result};
use backward::Scratch;
use forward::Tile;
use rayon::prelude::*;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use taiga_flow_gpu::layout::Layout;
use taiga_flow_gpu::spec::FlowSpec;
use weights::Packed;

/// Events a thread scores at a time.
const SCORE_TILE: usize = 1024;
/// Events whose gradient is summed in f32 before it goes to f64.
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
    shard: Vec<f64>, // (parameters)
    sums: FixedSum,
}

impl<const P: usize> Fused<P> {
    fn new(spec: &FlowSpec, threads: usize) -> Fused<P> {
        let layout = Layout::new(spec);
        let flow = Packed::new(spec, &layout, &vec![0.0; layout.len()]);
        let workers = (0..threads)
            .map(|_| {
                Mutex::new(Worker {
                    scratch: Scratch::new(&flow),
                    shard: vec![0.0; layout.len()],
                    sums: FixedSum::new(layout.len(), 1),
                })
            })
            .collect();
        Fused { spec: spec.clone(), layout, flow, workers }
    }

    /// One shard's gradient, summed into `worker.shard`; returns its loss.
    fn shard(
        &self,
        isa: Isa,
        events: &[f32],
        weights: Option<&[f32]>,
        worker: &mut Worker<P>,
    ) -> f64 {
        let features = self.spec.features;
        let networks = self.spec.networks().len();
        worker.shard.fill(0.0);
        let mut loss = 0.0;
        for (t, rows) in events.chunks(GRADIENT_TILE * features).enumerate() {
            let start = t * GRADIENT_TILE;
            let weights = weights.map(|w| &w[start..start + rows.len() / features]);
            worker.scratch.load(features, rows, weights);
            backward::gradient::<P>(isa, &self.flow, &mut worker.scratch);
            loss += worker.scratch.loss.iter().map(|l| f64::from(*l)).sum::<f64>();
            for (b, gradient) in worker.scratch.gradient.iter().enumerate() {
                if let Some(scale) = &gradient.scale {
                    scale.add_to(&self.layout, b, 0, &mut worker.shard);
                }
                gradient.shift.add_to(&self.layout, b, networks - 1, &mut worker.shard);
            }
        }
        loss
    }
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
        let shards = batch.offsets.len().saturating_sub(1);
        let features = self.spec.features;
        let next = AtomicUsize::new(0);
        let empty = sums.emptied();
        let losses: Vec<Vec<(usize, f64)>> = pool.broadcast(|thread| {
            let mut mine = Vec::new();
            let Ok(mut worker) = self.workers[thread.index()].lock() else { return mine };
            worker.sums.clone_from(&empty);
            loop {
                let s = next.fetch_add(1, Ordering::Relaxed);
                if s >= shards {
                    return mine;
                }
                let range = batch.offsets[s]..batch.offsets[s + 1];
                let weights = batch.weights.map(|w| &w[range.clone()]);
                let events = &batch.events[range.start * features..range.end * features];
                mine.push((s, self.shard(isa, events, weights, &mut worker)));
                let Worker { shard, sums, .. } = &mut *worker;
                sums.add_shard(shard);
            }
        });
        let done: usize = losses.iter().map(Vec::len).sum();
        if done != shards {
            return Err(Fault::new("a worker thread died before").internal());
        }
        for (s, value) in losses.into_iter().flatten() {
            loss[s] = value;
        }
        for worker in &self.workers {
            let worker =
                worker.lock().map_err(|_| Fault::new("a worker thread died").internal())?;
            sums.merge(&worker.sums);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
