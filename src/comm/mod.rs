//! Ranks, collectives and messages.
//!
//! A [`Communicator`] is passed as a value and is never a global. Collectives carry integers and
//! bytes only: a sum of integers has the same bits on any number of ranks and in any order, a sum
//! of floats does not. All ranks must call every collective, in the same order.

mod environment;
mod exchange;
mod host;
mod lanes;
mod mpi;
mod packing;
pub(crate) mod preflight;
mod single_rank;
mod stop;
mod threads;
mod watchdog;
pub(crate) mod wire;

pub use environment::{
    is_launcher_variable, job_end, job_number, launched_rank, launched_ranks, mark_start, start,
};
pub(crate) use exchange::{gather_values, value_of_root};
pub(crate) use host::host;
pub use single_rank::SingleRank;
pub use stop::{StopFlag, StopReason, survive_file_size_limit};
pub use threads::Threads;
pub(crate) use watchdog::heartbeats::{
    FOLDER as HEARTBEAT_FOLDER, RankStatus, Work, read_heartbeats,
};
pub(crate) use watchdog::{ReadingOf, watch, watch_reading};

use crate::error::{Error, Fault, Result};

/// The communicator, as one rank sees it.
///
/// Collectives return an error if the communication fails.
#[allow(clippy::missing_errors_doc)] // described for all methods
pub trait Communicator {
    fn rank(&self) -> usize;
    fn size(&self) -> usize;
    /// Returns the rank among those on the same node; it chooses the GPU.
    fn local_rank(&self) -> usize;
    /// Returns the number of ranks on this node; it chooses the number of threads.
    fn local_size(&self) -> usize;
    /// Adds `values` over all ranks, in place (wrapping, exact). The number of values must be the
    /// same on every rank.
    fn all_reduce_sum(&self, values: &mut [i64]) -> Result<()>;
    /// Returns the bytes of all ranks, in rank order, on every rank.
    fn all_gather(&self, mine: &[u8]) -> Result<Vec<Vec<u8>>>;
    /// Copies the bytes of rank 0 to every rank.
    fn broadcast(&self, bytes: &mut Vec<u8>) -> Result<()>;
    fn barrier(&self) -> Result<()>;
    /// Sends a few kilobytes to another rank, which takes them with [`Communicator::receive`].
    fn send(&self, _to: usize, _bytes: &[u8]) -> Result<()> {
        Err(Fault::new("this communicator has no messages").internal())
    }
    /// Returns the next message to this rank and its sender, or `None` if there is none yet. Does
    /// not wait. Messages of one sender keep their order.
    fn receive(&self) -> Result<Option<(usize, Vec<u8>)>> {
        Ok(None)
    }
    /// Ends all ranks at once, when they cannot call a collective any more.
    fn abort(&self, exit_code: u8) -> !;
    /// Records for the watchdog the work of this rank between collectives, and its step, row or
    /// file. The cost is negligible.
    fn progress(&self, _work: Work, _at: u64) {}
    /// Sets whether heartbeats are read from now on; if so, the ranks need no other monitor.
    fn heartbeats_watched(&self, _watched: bool) {}
    /// Returns the function that ends all ranks from any thread, if ranks are processes.
    fn aborter(&self) -> Option<fn(u8) -> !> {
        None
    }
}

pub fn is_root(comm: &dyn Communicator) -> bool {
    comm.rank() == 0
}

/// Returns an error on every rank if any rank failed. A rank that failed keeps its own error; the
/// others get an error with the exit code of the lowest failing rank.
///
/// # Errors
/// That of this rank, otherwise that of the lowest failing rank.
pub(crate) fn sync_result<T>(comm: &dyn Communicator, outcome: Result<T>) -> Result<T> {
    if comm.size() == 1 {
        return outcome;
    }
    let mine = match &outcome {
        Ok(_) => Vec::new(),
        Err(error) => [&[error.exit_code()], error.to_string().as_bytes()].concat(),
    };
    let all = comm.all_gather(&mine)?;
    match (outcome, all.iter().enumerate().find(|(_, message)| !message.is_empty())) {
        (Ok(value), None) => Ok(value),
        // If several ranks have the same error, rank 0 prints its own.
        (Err(error), _) => Err(error.shared()),
        (Ok(_), Some((rank, message))) => {
            let text = String::from_utf8_lossy(&message[1..]);
            Err(Error::from_code(message[0], Fault::new(format!("rank {rank}: {text}"))).shared())
        }
    }
}

/// Returns on every rank whether `mine` is true on any rank. A collective.
///
/// # Errors
/// That of the collective.
pub(crate) fn any_rank(comm: &dyn Communicator, mine: bool) -> Result<bool> {
    let mut count = [i64::from(mine)];
    comm.all_reduce_sum(&mut count)?;
    Ok(count[0] > 0)
}

/// Marks an error as shared: every rank has it, because it follows from values that all ranks know.
pub(crate) fn mark_shared<T>(outcome: Result<T>) -> Result<T> {
    outcome.map_err(Error::shared)
}

/// Merges `slots` over the ranks; at most one rank fills a slot, the others pass `None`. The bits
/// do not change; empty slots are 0. A collective.
///
/// # Errors
/// That of the collective.
pub(crate) fn gather_slots(comm: &dyn Communicator, slots: &[Option<f64>]) -> Result<Vec<f64>> {
    let mut bits: Vec<i64> =
        slots.iter().map(|slot| slot.map_or(0, |x| x.to_bits() as i64)).collect();
    comm.all_reduce_sum(&mut bits)?;
    Ok(bits.into_iter().map(|b| f64::from_bits(b as u64)).collect())
}

#[cfg(test)]
mod tests;
