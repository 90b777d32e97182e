//! How this process was launched, and the world that follows from it.
//!
//! Launchers tell their processes through the environment how many they are. One
//! process, or nothing told, means [`Solo`](super::Solo) without touching MPI. Several
//! means MPI, whose world must then have the promised size: where launcher and MPI
//! library speak different PMI, N lone copies would each do the whole work and write
//! over each other, without a word.

use super::mpi::{Mpi, abort_on_panic};
use super::{Solo, World, agree};
use crate::error::{Fault, Result};

/// What tells the number of processes, the innermost launcher first: `mpirun` starts
/// its daemons by `srun`, whose count is then one of daemons.
const COUNTS: [&str; 3] = ["OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE", "PMI_SIZE"];

/// What tells that there is a launcher, but not how many processes it started.
const RANKS: [&str; 2] = ["PMI_RANK", "PMIX_RANK"];

/// Slurm's numbers for what is not a step of `srun` (batch script, interactive shell,
/// outside processes) begin here.
const FIRST_SPECIAL_STEP: u32 = 0xffff_fff0;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Launch {
    Alone,
    /// So many processes, by the word of this variable.
    Promised(usize, &'static str),
    /// By a launcher that does not tell how many.
    Untold,
}

/// How many processes the launcher says it started; `None` where no launcher tells.
pub fn launched_ranks() -> Option<usize> {
    match launch(|name| std::env::var(name).ok()) {
        Launch::Promised(ranks, _) => Some(ranks),
        Launch::Alone | Launch::Untold => None,
    }
}

/// The world this process belongs to. To be called once, on the main thread, after
/// everything that needs no other rank (flags, help, the configuration's text).
///
/// With MPI running, a panic on any thread ends all ranks with exit code 1.
pub fn start() -> Result<Box<dyn World>> {
    match launch(|name| std::env::var(name).ok()) {
        Launch::Alone | Launch::Promised(..=1, _) => Ok(Box::new(Solo)),
        Launch::Promised(ranks, told_by) => {
            let world = start_mpi()?;
            let kept = promise_kept(ranks, told_by, world.size());
            agree(&world, kept)?;
            Ok(Box::new(world))
        }
        Launch::Untold => Ok(Box::new(start_mpi()?)),
    }
}

fn start_mpi() -> Result<Mpi> {
    let world = Mpi::initialise()?;
    abort_on_panic();
    Ok(world)
}

fn promise_kept(ranks: usize, told_by: &str, found: usize) -> Result<()> {
    if found == ranks {
        return Ok(());
    }
    Err(Fault::new("the launcher and the MPI library do not find each other")
        .expected(format!("{ranks} ranks ({told_by})"))
        .found(format!("a world of {found}"))
        .advice(
            "start with `srun --mpi=pmix` (`srun --mpi=list` names what there is), or with the \
             mpirun of the MPI library that this program was built with; for copies that know \
             nothing of each other, `env -u SLURM_STEP_ID taiga-flow …`",
        )
        .environment())
}

fn launch(lookup: impl Fn(&str) -> Option<String>) -> Launch {
    let number = |name: &str| lookup(name)?.trim().parse::<usize>().ok();
    let told = COUNTS.into_iter().find_map(|name| Some(Launch::Promised(number(name)?, name)));
    let in_step = || Some(Launch::Promised(step_tasks(&lookup)?, "SLURM_STEP_NUM_TASKS"));
    let untold = || RANKS.into_iter().find_map(|name| number(name).map(|_| Launch::Untold));
    told.or_else(in_step).or_else(untold).unwrap_or(Launch::Alone)
}

/// Tasks of the `srun` step we are in. A batch script is one process whatever the
/// number of tasks of its job, and has no step number.
fn step_tasks(lookup: impl Fn(&str) -> Option<String>) -> Option<usize> {
    let step: u32 = lookup("SLURM_STEP_ID")?.trim().parse().ok()?;
    let tasks = lookup("SLURM_STEP_NUM_TASKS")?.trim().parse().ok()?;
    (step < FIRST_SPECIAL_STEP).then_some(tasks)
}
