//! One flow on one device: log-likelihood, gradient sums, sampling.
//!
//! Events come scaled (see `data::schema::features`), row by row; an engine never sees raw
//! columns, files or ranks. Gradient sums leave it as integers, so that whatever
//! adds them up afterwards, in whatever order, gets the same bits.

pub mod cpu;
#[cfg(feature = "gpu")]
mod cube;
mod fixed;
mod optimiser;
mod positions;
mod preparation;
mod scorer;

pub use fixed::{FIXED_ONE, FixedSum};
pub use optimiser::update;
pub use positions::{AssumedPositions, ImageColumns, OF_POSITION, PositionColumns};
pub use preparation::{Preparation, Prepared};
pub use scorer::{ExtraOutputs, Scored, Scorer, check_units, refuse_used_runs, score, used_run};

use crate::comm::{Communicator, host, is_root};
use crate::config::{EngineChoice, Hardware};
use crate::error::{Fault, Result};
use cpu::{CpuEngine, Isa};
use taiga_flow_gpu::spec::FlowSpec;
pub use taiga_flow_gpu::training::{Adam, Events, Weights};

/// Events of one step, all logical shards of this rank one after the other.
#[derive(Debug, Clone, Copy)]
pub struct Batch<'a> {
    pub events: Events<'a>,
    /// Loss weight per event; 1 for all if absent.
    pub weights: Option<&'a [f32]>,
    /// Shard i holds events `offsets[i]..offsets[i + 1]`; one more than shards.
    pub offsets: &'a [usize],
}

/// A trained or training flow on a device.
///
/// In training the engine holds the weights, the sums of a step, and if it `holds` them
/// the events: then nothing but a few numbers moves in a step.
pub trait Engine {
    /// What runs where, for logs: "cpu, AVX-512, 2 threads".
    fn describe(&self) -> String;
    /// Device class, recorded in checkpoints: bits are equal within one class.
    fn class(&self) -> &'static str;
    /// Takes over new parameters (flat, see `taiga_flow_gpu::layout`).
    fn set_params(&mut self, params: &[f32]) -> Result<()>;
    /// log p of scaled events (events, features) into `log_prob` (events).
    fn log_prob(&self, events: &[f32], log_prob: &mut [f32]) -> Result<()>;
    /// The same, and |z|² of the latent points into `chi2` (events).
    fn log_prob_and_chi2(
        &self,
        events: &[f32],
        log_prob: &mut [f32],
        chi2: &mut [f32],
    ) -> Result<()> {
        let _ = (events, log_prob, chi2);
        Err(Fault::new("this engine gives no |z|²")
            .found(self.class())
            .advice("leave chi2 out of [score] columns, or compute with --engine cpu")
            .usage())
    }
    /// Scaled events (events, features) that latent points of the same shape come from.
    fn inverse(&self, latent: &[f32], events: &mut [f32]) -> Result<()>;
    /// Adds Σ weight · ∂(−log p)/∂params of every shard to `sums`, and writes
    /// Σ weight · (−log p) per shard to `loss` (shards), in f64.
    fn gradient(&self, batch: &Batch, sums: &mut FixedSum, loss: &mut [f64]) -> Result<()>;

    /// Events that it can keep for batches to name: none, where that gains nothing.
    fn capacity(&self) -> usize {
        0
    }
    /// Keeps so many scaled events, given in pieces (events, features).
    fn upload_events(
        &mut self,
        events: usize,
        pieces: &mut dyn Iterator<Item = &[f32]>,
    ) -> Result<()>;
    /// Takes over weights to train, by gradients of `shards` shards of all ranks.
    fn begin(&mut self, weights: &Weights, shards: usize) -> Result<()>;
    /// Adds the gradient of a batch to the sums of the step; may not wait for it. The
    /// first batch after `collect` begins a new step.
    fn add_gradient(&mut self, batch: &Batch) -> Result<()>;
    /// Waits for the step's gradients: writes Σ weight · (−log p) per shard to `loss`
    /// (shards) and gives the number of parts of shards that cannot be added.
    fn collect(&mut self, loss: &mut [f64]) -> Result<u64>;
    /// The step's sums (parameters), in units of 2⁻³².
    fn sums(&self, sums: &mut [i64]) -> Result<()>;
    /// Updates the weights from the step's sums, or from `sums` of all ranks; the bits are
    /// those of one rank with all of the batch.
    fn update(&mut self, sums: Option<&[i64]>, adam: &Adam) -> Result<()>;
    /// Norm of the mean gradient of the last update since `begin`, before clipping.
    fn gradient_norm(&self) -> Result<Option<f64>>;
    /// The weights in training, into vectors of their length.
    fn weights(&self, weights: &mut Weights) -> Result<()>;
}

/// What a rank may compute on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RankResources {
    hardware: Hardware,
    /// Threads of this rank.
    pub threads: usize,
    local_rank: usize,
    local_size: usize,
    /// Whether this rank tells what was chosen.
    is_reporting: bool,
}

impl RankResources {
    /// Threads: as asked, else the rank's cores, shared with the ranks of its node that
    /// may run on the same ones. A launcher that binds each rank to cores of its own has
    /// shared them out already.
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

    /// The same place for further flows: what was chosen is reported once.
    #[must_use]
    pub fn for_flow(self, flow: usize) -> RankResources {
        RankResources { is_reporting: self.is_reporting && flow == 0, ..self }
    }

    /// This rank alone on the processor.
    pub fn cpu(threads: usize) -> RankResources {
        let hardware = Hardware { engine: EngineChoice::Cpu, threads, share_devices: false };
        RankResources { hardware, threads, local_rank: 0, local_size: 1, is_reporting: false }
    }
}

/// The engine asked for, for flows of `spec`.
pub fn start(place: &RankResources, spec: &FlowSpec) -> Result<Box<dyn Engine>> {
    let cpu = || CpuEngine::new(spec, place.threads, Isa::detect()).map(Box::new);
    match place.hardware.engine {
        EngineChoice::Cpu => Ok(cpu()?),
        #[cfg(feature = "gpu")]
        choice => match cube::start(choice, place, spec)? {
            cube::DeviceChoice::Device(engine) => Ok(engine),
            cube::DeviceChoice::Cpu { reason } => {
                if place.is_reporting {
                    log::info!("computing on the processor: {reason}");
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

/// Makes work outside of engines (reading, ordering events) use as many threads.
pub fn use_threads(threads: usize) {
    // The pool can be made once in a process; later calls find it as it is.
    let _ = rayon::ThreadPoolBuilder::new().num_threads(threads).build_global();
}

/// The cores this process may run on, as the kernel writes them; empty where it does not.
fn allowed_cores() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("Cpus_allowed_list:"));
    line.unwrap_or_default().to_string()
}
