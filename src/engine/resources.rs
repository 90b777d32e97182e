//! Hardware that a rank may use: its engine, its threads, its place in the node.

use crate::comm::{Communicator, host, is_root, sync_result};
use crate::config::{EngineChoice, Hardware};
use crate::error::{Fault, Result};

/// Hardware that a rank may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RankResources {
    pub(super) hardware: Hardware,
    /// Threads of this rank.
    pub threads: usize,
    pub(super) local_rank: usize,
    pub(super) local_size: usize,
    /// Whether this rank logs the choice of the engine.
    pub(super) is_reporting: bool,
}

impl RankResources {
    /// Determines the threads of this rank: the configured number, or else its cores divided by the
    /// ranks on its node with the same allowed cores. A launcher that binds each rank to its own
    /// cores has already divided them.
    ///
    /// # Errors
    /// Environment error if the allowed cores cannot be read; usage error for too many threads.
    pub fn new(comm: &dyn Communicator, hardware: Hardware) -> Result<RankResources> {
        sync_result(comm, refuse_many(hardware.threads))?;
        // Configured threads need no count of cores.
        let cores = if hardware.threads > 0 { Ok(String::new()) } else { allowed_cores() };
        let mine = [host(), sync_result(comm, cores)?].join("\n");
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
    pub(crate) fn for_flow(self, flow: usize) -> RankResources {
        RankResources { is_reporting: self.is_reporting && flow == 0, ..self }
    }

    /// Returns resources for a single rank on the CPU.
    pub fn cpu(threads: usize) -> RankResources {
        let hardware = Hardware { engine: EngineChoice::Cpu, threads, share_devices: false };
        RankResources { hardware, threads, local_rank: 0, local_size: 1, is_reporting: false }
    }
}

/// Smallest limit of the threads of a rank.
const THREADS: usize = 1024;
/// Largest number of threads per core, where that is more than `THREADS`.
const THREADS_PER_CORE: usize = 16;

/// Returns the largest number of threads of a rank on this host. A system with far more threads than
/// cores does not progress.
pub fn most_threads() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    THREADS.max(THREADS_PER_CORE * cores)
}

fn refuse_many(threads: usize) -> Result<()> {
    let most = most_threads();
    if threads <= most {
        return Ok(());
    }
    Err(Fault::new("too many threads per rank")
        .expected(format!("0 to {most}"))
        .found(threads)
        .advice("give --threads, or the key run.threads")
        .usage())
}

/// Sets the number of threads for work outside engines (reading, ordering events).
pub fn use_threads(threads: usize) {
    // The global pool can be built once per process; later calls do not change it.
    let _ = rayon::ThreadPoolBuilder::new().num_threads(threads).build_global();
}

/// Returns the cores that this process may run on, in the format of the kernel.
fn allowed_cores() -> Result<String> {
    const PATH: &str = "/proc/self/status";
    let fault = |found: &dyn std::fmt::Display| {
        let fault = Fault::new("cannot read the allowed cores").file(PATH).found(found);
        fault.advice("give the number of threads: --threads").environment()
    };
    let status = std::fs::read_to_string(PATH).map_err(|e| fault(&e))?;
    let line = status.lines().find(|line| line.starts_with("Cpus_allowed_list:"));
    line.map(str::to_string).ok_or_else(|| fault(&"no line Cpus_allowed_list"))
}
