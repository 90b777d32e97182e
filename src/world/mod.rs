//! Ranks and what they say to each other.
//!
//! A [`World`] is a value passed down, never a global. Collectives carry integers
//! and bytes only: sums of integers have the same bits on any number of ranks and
//! in any order, sums of floats do not. Every collective must be called by all
//! ranks in the same order.

mod launcher;
mod mpi;
mod solo;
mod stop;
mod threads;

pub use launcher::{launched_ranks, start};
pub use solo::Solo;
pub use stop::{StopFlag, StopReason};
pub use threads::Threads;

use crate::error::{Error, Fault, Result};

/// One rank's view of all ranks.
pub trait World {
    fn rank(&self) -> usize;
    fn size(&self) -> usize;
    /// Rank among those on the same node (chooses the GPU).
    fn local_rank(&self) -> usize;
    /// Number of ranks on this node (chooses the thread count).
    fn local_size(&self) -> usize;
    /// Adds `values` over all ranks, in place (wrapping, exact).
    fn all_reduce_sum(&self, values: &mut [i64]) -> Result<()>;
    /// Everyone's bytes, in rank order, on every rank.
    fn all_gather(&self, mine: &[u8]) -> Result<Vec<Vec<u8>>>;
    /// Rank 0's bytes on every rank.
    fn broadcast(&self, bytes: &mut Vec<u8>) -> Result<()>;
    fn barrier(&self) -> Result<()>;
    /// Ends all ranks at once; the way out where the ranks cannot agree any more.
    fn abort(&self, exit_code: u8) -> !;
}

pub fn is_root(world: &dyn World) -> bool {
    world.rank() == 0
}

/// Makes an outcome common to all ranks: if any rank failed, every rank gets an
/// error of the lowest failing rank's exit code (its own error stays with it).
pub fn agree<T>(world: &dyn World, outcome: Result<T>) -> Result<T> {
    if world.size() == 1 {
        return outcome;
    }
    let mine = match &outcome {
        Ok(_) => Vec::new(),
        Err(error) => [&[error.exit_code()], error.to_string().as_bytes()].concat(),
    };
    let all = world.all_gather(&mine)?;
    match (outcome, all.iter().enumerate().find(|(_, told)| !told.is_empty())) {
        (Ok(value), None) => Ok(value),
        (Err(error), _) => Err(error),
        (Ok(_), Some((rank, told))) => {
            let text = String::from_utf8_lossy(&told[1..]);
            Err(Error::from_code(told[0], Fault::new(format!("rank {rank}: {text}"))))
        }
    }
}

/// Puts together what the ranks hold of `slots` values, each slot filled by at most
/// one rank (the others pass `None`). Bits travel unchanged; empty slots are 0.
pub fn gather_slots(world: &dyn World, slots: &[Option<f64>]) -> Result<Vec<f64>> {
    let mut bits: Vec<i64> =
        slots.iter().map(|slot| slot.map_or(0, |x| x.to_bits() as i64)).collect();
    world.all_reduce_sum(&mut bits)?;
    Ok(bits.into_iter().map(|b| f64::from_bits(b as u64)).collect())
}
