//! Engines: log-likelihood, inverse, gradient and update of one flow on one device.
//!
//! Events are scaled (see `data::schema::features`), row by row; an engine does not know raw
//! columns, files or ranks. It returns gradient sums as integers, so sums over shards, threads and
//! ranks have the same bits in any order.

pub mod cpu;
#[cfg(feature = "gpu")]
mod cube;
mod fixed;
mod optimiser;
mod positions;
mod preparation;
mod scorer;
mod simd;

pub use fixed::{FIXED_ONE, FixedSum};
pub use optimiser::update;
pub use positions::{AssumedPositions, ImageColumns, OF_POSITION, PositionColumns};
pub use preparation::{Preparation, Prepared};
pub use scorer::{ExtraOutputs, Scored, Scorer, check_units, refuse_used_runs, score, used_run};
pub use simd::Isa;

use crate::comm::{Communicator, host, is_root};
use crate::config::{EngineChoice, Hardware};
use crate::error::{Fault, Result};
use cpu::CpuEngine;
use taiga_flow_gpu::spec::FlowSpec;
pub use taiga_flow_gpu::training::{Adam, Events, Weights};

/// Events of one step, ordered by the logical shards of this rank.
#[derive(Debug, Clone, Copy)]
pub struct Batch<'a> {
    pub events: Events<'a>,
    /// Loss weight per event; 1 for all if absent.
    pub weights: Option<&'a [f32]>,
    /// Shard i has the events `offsets[i]..offsets[i + 1]`; one element more than shards.
    pub offsets: &'a [usize],
}

/// A flow on a device, for scoring or training.
///
/// In training the engine has the weights and the sums of a step. If it also stores the events, a
/// step transfers only a few numbers.
pub trait Engine {
    /// Returns device and configuration for logs: "cpu, AVX-512, 2 threads".
    fn describe(&self) -> String;
    /// Returns the device class, which checkpoints record: bits are equal within one class.
    fn class(&self) -> &'static str;
    /// Sets the parameters (flat, see `taiga_flow_gpu::layout`).
    fn set_params(&mut self, params: &[f32]) -> Result<()>;
    /// Computes log p of scaled events (events, features) into `log_prob` (events).
    fn log_prob(&self, events: &[f32], log_prob: &mut [f32]) -> Result<()>;
    /// Computes log p, and |z|² of the latent points into `chi2` (events).
    fn log_prob_and_chi2(
        &self,
        events: &[f32],
        log_prob: &mut [f32],
        chi2: &mut [f32],
    ) -> Result<()> {
        let _ = (events, log_prob, chi2);
        Err(Fault::new("this engine does not compute |z|²")
            .found(self.class())
            .advice("leave chi2 out of [score] columns, or compute with --engine cpu")
            .usage())
    }
    /// Computes the scaled events (events, features) of latent points of the same shape.
    fn inverse(&self, latent: &[f32], events: &mut [f32]) -> Result<()>;
    /// Adds Σ weight · ∂(−log p)/∂params of every shard to `sums`, and writes Σ weight · (−log p)
    /// per shard to `loss` (shards), in f64.
    fn gradient(&self, batch: &Batch, sums: &mut FixedSum, loss: &mut [f64]) -> Result<()>;

    /// Returns the number of events that it can store for batches; 0 if storing has no advantage.
    fn capacity(&self) -> usize {
        0
    }
    /// Stores `events` scaled events, given in pieces (events, features).
    fn upload_events(
        &mut self,
        events: usize,
        pieces: &mut dyn Iterator<Item = &[f32]>,
    ) -> Result<()>;
    /// Sets weights to train, with gradients of `shards` shards on all ranks together.
    fn begin(&mut self, weights: &Weights, shards: usize) -> Result<()>;
    /// Adds the gradient of a batch to the sums of the step, possibly without waiting. The first
    /// batch after `collect` starts a new step.
    fn add_gradient(&mut self, batch: &Batch) -> Result<()>;
    /// Waits for the gradients of the step, writes Σ weight · (−log p) per shard to `loss`
    /// (shards), and returns the number of parts of shards that cannot be added.
    fn collect(&mut self, loss: &mut [f64]) -> Result<u64>;
    /// Copies the sums of the step (parameters), in units of 2⁻³².
    fn sums(&self, sums: &mut [i64]) -> Result<()>;
    /// Updates the weights from the sums of the step, or from `sums` of all ranks. The bits are
    /// those of one rank with the whole batch.
    fn update(&mut self, sums: Option<&[i64]>, adam: &Adam) -> Result<()>;
    /// Returns the norm of the mean gradient of the last update since `begin`, before clipping.
    fn gradient_norm(&self) -> Result<Option<f64>>;
    /// Copies the weights in training into vectors of their length.
    fn weights(&self, weights: &mut Weights) -> Result<()>;
}

/// Hardware that a rank may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RankResources {
    hardware: Hardware,
    /// Threads of this rank.
    pub threads: usize,
    local_rank: usize,
    local_size: usize,
    /// Whether this rank logs the choice of the engine.
    is_reporting: bool,
}

impl RankResources {
    /// Determines the threads of this rank: the configured number, or else its cores divided by the
    /// ranks on its node with the same allowed cores. A launcher that binds each rank to its own
    /// cores has already divided them.
    pub fn new(comm: &dyn Communicator, hardware: Hardware) -> Result<RankResources> {
        let mine = [host(), allowed_cores()].join("\n");
        let sharers =
            comm.all_gather(mine.as_bytes())?.iter().filter(|r| **r == mine.as_bytes()).count();
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let shared = (cores / sharers.max(1)).max(1);
        Ok(RankResources {
            hardware,
            threads: if hardware.threads > 0 { hardware.threads } else { shared },
            local_rank: comm.local_rank(),
            local_size: comm.local_size(),
            is_reporting: is_root(comm),
        })
    }

    /// Returns the resources for flow number `flow`: only the first flow logs the engine.
    #[must_use]
    pub fn for_flow(self, flow: usize) -> RankResources {
        RankResources { is_reporting: self.is_reporting && flow == 0, ..self }
    }

    /// Returns resources for a single rank on the CPU.
    pub fn cpu(threads: usize) -> RankResources {
        let hardware = Hardware { engine: EngineChoice::Cpu, threads, share_devices: false };
        RankResources { hardware, threads, local_rank: 0, local_size: 1, is_reporting: false }
    }
}

/// Starts the configured engine for a flow of `spec`.
pub fn start(place: &RankResources, spec: &FlowSpec) -> Result<Box<dyn Engine>> {
    let cpu = || CpuEngine::new(spec, place.threads, Isa::detect()).map(Box::new);
    match place.hardware.engine {
        EngineChoice::Cpu => Ok(cpu()?),
        #[cfg(feature = "gpu")]
        choice => match cube::start(choice, place, spec)? {
            cube::DeviceChoice::Device(engine) => Ok(engine),
            cube::DeviceChoice::Cpu { reason } => {
                if place.is_reporting {
                    log::info!("computing on the CPU: {reason}");
                }
                Ok(cpu()?)
            }
        },
        #[cfg(not(feature = "gpu"))]
        EngineChoice::Auto => Ok(cpu()?),
        #[cfg(not(feature = "gpu"))]
        choice => Err(Fault::new("this program was built without GPU engines")
            .expected("--engine auto or cpu")
            .found(format!("{choice:?}").to_lowercase())
            .advice("build with the feature `gpu`")
            .environment()),
    }
}

/// Sets the number of threads for work outside engines (reading, ordering events).
pub fn use_threads(threads: usize) {
    // The global pool can be built once per process; later calls do not change it.
    let _ = rayon::ThreadPoolBuilder::new().num_threads(threads).build_global();
}

/// Returns the cores that this process may run on, in the format of the kernel; empty if unknown.
fn allowed_cores() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("Cpus_allowed_list:"));
    line.unwrap_or_default().to_string()
}
