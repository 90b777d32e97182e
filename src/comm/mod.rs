//! Ranks and what they say to each other.
//!
//! A [`Communicator`] is a value passed down, never a global. Collectives carry integers
//! and bytes only: sums of integers have the same bits on any number of ranks and
//! in any order, sums of floats do not. Every collective must be called by all
//! ranks in the same order.

mod environment;
mod exchange;
mod lanes;
mod mpi;
mod packing;
pub mod preflight;
mod single_rank;
mod stop;
mod threads;
mod watchdog;
pub(crate) mod wire;

pub use environment::{
    host, is_launcher_variable, job_end, job_number, launched_rank, launched_ranks, mark_start,
    start,
};
pub use exchange::{gather_values, value_of_root};
pub use single_rank::SingleRank;
pub use stop::{StopFlag, StopReason, survive_file_size_limit};
pub use threads::Threads;
pub use watchdog::heartbeats::{FOLDER as SIGNS_OF_LIFE, RankSign, Work, signs_of_life};
pub use watchdog::{ReadingOf, Watched, watch, watch_reading};

use crate::error::{Error, Fault, Result};

/// One rank's view of all ranks.
pub trait Communicator {
    fn rank(&self) -> usize;
    fn size(&self) -> usize;
    /// Rank among those on the same node (chooses the GPU).
    fn local_rank(&self) -> usize;
    /// Number of ranks on this node (chooses the thread count).
    fn local_size(&self) -> usize;
    /// Adds `values` over all ranks, in place (wrapping, exact). Every rank must bring
    /// the same number of them.
    fn all_reduce_sum(&self, values: &mut [i64]) -> Result<()>;
    /// Everyone's bytes, in rank order, on every rank.
    fn all_gather(&self, mine: &[u8]) -> Result<Vec<Vec<u8>>>;
    /// Rank 0's bytes on every rank.
    fn broadcast(&self, bytes: &mut Vec<u8>) -> Result<()>;
    fn barrier(&self) -> Result<()>;
    /// Sends a few kilobytes to another rank, which takes them by [`Communicator::receive`].
    fn send(&self, _to: usize, _bytes: &[u8]) -> Result<()> {
        Err(Fault::new("this world has no messages").internal())
    }
    /// The next message to this rank and its sender, if one has come; those of one sender
    /// come in their order. Does not wait.
    fn receive(&self) -> Result<Option<(usize, Vec<u8>)>> {
        Ok(None)
    }
    /// Ends all ranks at once; the way out where the ranks cannot agree any more.
    fn abort(&self, exit_code: u8) -> !;
    /// A sign of life for the watchdog: what this rank does between collectives, and at
    /// which step, row or file. Costs nothing worth counting.
    fn progress(&self, _work: Work, _at: u64) {}
    /// Whether the ranks' signs of life are looked at from now on: then nothing else needs to
    /// watch them.
    fn signs_watched(&self, _watched: bool) {}
    /// What ends all ranks at once from any thread, where ranks are processes.
    fn aborter(&self) -> Option<fn(u8) -> !> {
        None
    }
}

pub fn is_root(comm: &dyn Communicator) -> bool {
    comm.rank() == 0
}

/// Makes an outcome common to all ranks: if any rank failed, every rank gets an
/// error of the lowest failing rank's exit code (its own error stays with it).
pub fn sync_result<T>(comm: &dyn Communicator, outcome: Result<T>) -> Result<T> {
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
        // Rank 0 tells an error that several have in its own words.
        (Err(error), _) => Err(error.shared()),
        (Ok(_), Some((rank, message))) => {
            let text = String::from_utf8_lossy(&message[1..]);
            Err(Error::from_code(message[0], Fault::new(format!("rank {rank}: {text}"))).shared())
        }
    }
}

/// Returns on every rank whether any rank has said yes. A collective.
pub fn any_rank(comm: &dyn Communicator, mine: bool) -> Result<bool> {
    let mut count = [i64::from(mine)];
    comm.all_reduce_sum(&mut count)?;
    Ok(count[0] > 0)
}

/// Marks an error that every rank has because it follows from what all ranks know.
pub fn mark_shared<T>(outcome: Result<T>) -> Result<T> {
    outcome.map_err(Error::shared)
}

/// Puts together what the ranks hold of `slots` values, each slot filled by at most
/// one rank (the others pass `None`). Bits travel unchanged; empty slots are 0.
pub fn gather_slots(comm: &dyn Communicator, slots: &[Option<f64>]) -> Result<Vec<f64>> {
    let mut bits: Vec<i64> =
        slots.iter().map(|slot| slot.map_or(0, |x| x.to_bits() as i64)).collect();
    comm.all_reduce_sum(&mut bits)?;
    Ok(bits.into_iter().map(|b| f64::from_bits(b as u64)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same `terms` values summed by any number of ranks, dealt in turns.
    fn summed_by(ranks: usize, terms: usize) -> Vec<[i64; 2]> {
        let value = |i: usize| (i as i64).wrapping_mul(0x7f4a_7c15_9e37_79b9);
        Threads::run(ranks, |comm| {
            let mut sum = [0_i64; 2];
            for i in (comm.rank()..terms).step_by(comm.size()) {
                sum = [sum[0].wrapping_add(value(i)), sum[1].wrapping_sub(value(i))];
            }
            comm.all_reduce_sum(&mut sum)?;
            Ok(sum)
        })
        .into_iter()
        .map(Result::unwrap)
        .collect()
    }

    #[test]
    fn sums_are_equal_on_any_rank_and_rank_count() {
        let alone = summed_by(1, 1000)[0];
        for ranks in [2, 3, 8] {
            assert_eq!(summed_by(ranks, 1000), vec![alone; ranks]);
        }
    }

    #[test]
    fn one_rank_among_threads_is_like_one_alone() {
        fn tour(comm: &dyn Communicator) -> Result<[Vec<u8>; 3]> {
            let (mut sums, mut bytes) = (vec![3, -4], b"abc".to_vec());
            comm.all_reduce_sum(&mut sums)?;
            comm.broadcast(&mut bytes)?;
            comm.barrier()?;
            assert!(is_root(comm) && (comm.local_rank(), comm.local_size()) == (0, 1));
            let sums = sums.into_iter().flat_map(i64::to_ne_bytes).collect();
            Ok([sums, bytes, comm.all_gather(b"xyz")?.concat()])
        }
        let alone = tour(&SingleRank).unwrap();
        let threads = Threads::run(1, |comm| tour(comm)).pop().unwrap().unwrap();
        assert_eq!(alone, threads);
    }

    #[test]
    fn sync_result_shares_failing_ranks_exit_code() {
        let outcomes = Threads::run(4, |comm| {
            let mine = if comm.rank() == 1 { Err(Fault::new("bad row").input()) } else { Ok(()) };
            sync_result(comm, mine)
        });
        for (rank, outcome) in outcomes.into_iter().enumerate() {
            let error = outcome.unwrap_err();
            assert_eq!(error.exit_code(), 3);
            assert_eq!(error.to_string(), if rank == 1 { "bad row" } else { "rank 1: bad row" });
        }
    }

    #[test]
    fn agree_keeps_the_value_where_nobody_failed() {
        let values = Threads::run(3, |comm| sync_result(comm, Ok(comm.rank())));
        assert_eq!(values.into_iter().map(Result::unwrap).collect::<Vec<_>>(), [0, 1, 2]);
    }

    #[test]
    fn messages_keep_order_and_lost_rank_is_reported() {
        let outcomes = Threads::run(4, |comm| {
            let mut next = vec![0_u8; comm.size()];
            if comm.rank() > 0 {
                for number in 0..100 {
                    comm.send(0, &[number, comm.rank() as u8])?;
                }
                return comm.barrier();
            }
            while next[1..].iter().any(|n| *n < 100) {
                if let Some((from, bytes)) = comm.receive()? {
                    assert_eq!(bytes, [next[from], from as u8]);
                    next[from] += 1;
                }
            }
            comm.barrier()
        });
        assert!(outcomes.iter().all(Result::is_ok));
        let outcomes = Threads::run(2, |comm| {
            if comm.rank() == 1 {
                return Err(Fault::new("the disk is full").environment());
            }
            loop {
                if comm.receive()?.is_some() {
                    return Ok(());
                }
            }
        });
        let error = outcomes[0].as_ref().unwrap_err().to_string();
        assert!(error.contains("rank 1, which failed: the disk is full"), "{error}");
    }

    #[test]
    fn gather_slots_moves_bits_unchanged() {
        let bits = [0x7ff0_0000_dead_beef, 0xfff8_0000_0000_0001, (-0.0_f64).to_bits(), 1];
        let gathered = Threads::run(3, |comm| {
            let slots: Vec<Option<f64>> = bits
                .iter()
                .enumerate()
                .map(|(slot, bits)| (slot % 3 == comm.rank()).then(|| f64::from_bits(*bits)))
                .chain([None])
                .collect();
            gather_slots(comm, &slots)
        });
        for values in gathered {
            let values: Vec<u64> = values.unwrap().into_iter().map(f64::to_bits).collect();
            assert_eq!(values[..4], bits);
            assert_eq!(values[4], 0);
        }
    }
}
