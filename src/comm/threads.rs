//! Ranks as threads of one process, for tests.
//!
//! A collective is a rendezvous of all ranks: each deposits its bytes, and the last one releases
//! all of them to every rank. A rank that leaves (by `Ok`, an error, a panic or `abort`) cannot
//! take part any more. A rank that waits for it gets
//! [`Error::Environment`](crate::error::Error::Environment) with its number, and never hangs. Ranks
//! that meet in different collectives, or with sums of different lengths, get an internal error;
//! under MPI this bug would hang or corrupt a run.

use std::any::Any;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::Communicator;
use crate::error::{Error, Fault, Result};

/// One rank among the threads of [`Threads::run`].
pub struct Threads {
    rank: usize,
    size: usize,
    rendezvous: Arc<Rendezvous>,
}

struct Rendezvous {
    state: Mutex<RendezvousState>,
    news: Condvar,
}

struct RendezvousState {
    /// Number of completed collectives.
    completed: u64,
    /// Deposits for the next collective, by rank.
    deposits: Vec<Option<Share>>,
    /// Results of the last collective. The next one cannot complete, and so replace them, before
    /// the slowest rank has taken them and returned.
    results: Arc<Vec<Share>>,
    /// The first rank that has left, and the reason.
    left: Option<(usize, String)>,
    /// Messages that are not received yet, by rank: (sender, bytes).
    mail: Vec<VecDeque<(usize, Vec<u8>)>>,
}

#[derive(Clone)]
struct Share {
    call: CollectiveCall,
    bytes: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CollectiveCall {
    Sum { values: usize },
    Gather,
    Broadcast,
    Barrier,
}

/// Payload of the unwinding of `abort`: no panic message, only an exit code.
struct Aborted(u8);

impl Threads {
    /// Runs `body` once per rank, each on its own thread, and returns the results in rank order.
    /// The result of a rank that panicked is an internal error; that of a rank that aborted has its
    /// exit code.
    #[must_use = "a failed assertion inside a rank is an Err in here"]
    pub fn run<T: Send>(
        ranks: usize,
        body: impl Fn(&Threads) -> Result<T> + Sync,
    ) -> Vec<Result<T>> {
        let rendezvous = Arc::new(Rendezvous::of(ranks));
        let (rendezvous, body) = (&rendezvous, &body);
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..ranks)
                .map(|rank| {
                    let comm = Threads { rank, size: ranks, rendezvous: Arc::clone(rendezvous) };
                    scope.spawn(move || comm.run_body(body))
                })
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap_or_else(|panic| Err(ending(&*panic).1)))
                .collect()
        })
    }

    fn run_body<T>(&self, body: &impl Fn(&Threads) -> Result<T>) -> Result<T> {
        // After an unwinding, nothing of the rank is used again except its place among the others,
        // which `leave` releases.
        let (how, outcome) = match catch_unwind(AssertUnwindSafe(|| body(self))) {
            Ok(Ok(value)) => ("is done".to_owned(), Ok(value)),
            Ok(Err(error)) => (format!("failed: {error}"), Err(error)),
            Err(panic) => {
                let (how, error) = ending(&*panic);
                (how, Err(error))
            }
        };
        self.leave(how);
        outcome
    }

    fn leave(&self, how: String) {
        let mut state = self.rendezvous.lock();
        state.left.get_or_insert((self.rank, how));
        self.rendezvous.news.notify_all();
    }

    /// Deposits `bytes`, waits for all ranks to do so, and returns all in rank order.
    fn meet(&self, call: CollectiveCall, bytes: Vec<u8>) -> Result<Arc<Vec<Share>>> {
        let mut state = self.rendezvous.lock();
        let before = state.completed;
        state.deposits[self.rank] = Some(Share { call, bytes });
        if state.deposits.iter().all(Option::is_some) {
            state.complete();
            self.rendezvous.news.notify_all();
        }
        let state = self
            .rendezvous
            .news
            .wait_while(state, |state| state.completed == before && state.left.is_none())
            .unwrap_or_else(PoisonError::into_inner);
        match &state.left {
            Some((rank, how)) if state.completed == before => {
                let what = format!("rank {} waits for rank {rank}, which {how}", self.rank);
                Err(Fault::new(what).environment())
            }
            _ => same_call(Arc::clone(&state.results)),
        }
    }
}

impl Rendezvous {
    fn of(ranks: usize) -> Rendezvous {
        let deposits = vec![None; ranks];
        let mail = vec![VecDeque::new(); ranks];
        let state =
            RendezvousState { completed: 0, deposits, results: Arc::default(), left: None, mail };
        Rendezvous { state: Mutex::new(state), news: Condvar::new() }
    }

    /// Returns the locked state. No code panics while it holds the lock, so poisoning is ignored.
    fn lock(&self) -> MutexGuard<'_, RendezvousState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RendezvousState {
    fn complete(&mut self) {
        self.results = Arc::new(self.deposits.iter_mut().filter_map(Option::take).collect());
        self.completed += 1;
    }
}

fn same_call(shares: Arc<Vec<Share>>) -> Result<Arc<Vec<Share>>> {
    let first = shares[0].call;
    match shares.iter().enumerate().find(|(_, share)| share.call != first) {
        None => Ok(shares),
        Some((rank, other)) => Err(Fault::new("ranks met for different collectives")
            .expected(format!("{first:?}, as on rank 0"))
            .found(format!("{:?} on rank {rank}", other.call))
            .internal()),
    }
}

/// Describes how a rank that unwound left, and returns the matching error.
fn ending(panic: &(dyn Any + Send)) -> (String, Error) {
    if let Some(Aborted(code)) = panic.downcast_ref() {
        let how = format!("aborted with exit code {code}");
        return (how.clone(), Error::from_code(*code, Fault::new(how)));
    }
    let message = panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_default();
    let how = format!("panicked: {message}");
    (how.clone(), Fault::new(how).internal())
}

impl Communicator for Threads {
    fn rank(&self) -> usize {
        self.rank
    }
    fn size(&self) -> usize {
        self.size
    }
    fn local_rank(&self) -> usize {
        self.rank
    }
    fn local_size(&self) -> usize {
        self.size
    }

    fn all_reduce_sum(&self, values: &mut [i64]) -> Result<()> {
        let bytes = values.iter().flat_map(|value| value.to_ne_bytes()).collect();
        let shares = self.meet(CollectiveCall::Sum { values: values.len() }, bytes)?;
        values.fill(0);
        for share in shares.iter() {
            for (sum, bytes) in values.iter_mut().zip(share.bytes.as_chunks().0) {
                *sum = sum.wrapping_add(i64::from_ne_bytes(*bytes));
            }
        }
        Ok(())
    }

    fn all_gather(&self, mine: &[u8]) -> Result<Vec<Vec<u8>>> {
        let shares = self.meet(CollectiveCall::Gather, mine.to_vec())?;
        Ok(shares.iter().map(|share| share.bytes.clone()).collect())
    }

    fn broadcast(&self, bytes: &mut Vec<u8>) -> Result<()> {
        let mine = if self.rank == 0 { bytes.clone() } else { Vec::new() };
        let shares = self.meet(CollectiveCall::Broadcast, mine)?;
        bytes.clone_from(&shares[0].bytes);
        Ok(())
    }

    fn barrier(&self) -> Result<()> {
        self.meet(CollectiveCall::Barrier, Vec::new()).map(|_| ())
    }

    fn send(&self, to: usize, bytes: &[u8]) -> Result<()> {
        self.rendezvous.lock().mail[to].push_back((self.rank, bytes.to_vec()));
        Ok(())
    }

    fn receive(&self) -> Result<Option<(usize, Vec<u8>)>> {
        let mut state = self.rendezvous.lock();
        let mail = state.mail[self.rank].pop_front();
        match &state.left {
            Some((rank, how)) if mail.is_none() => {
                let what = format!("rank {} waits for rank {rank}, which {how}", self.rank);
                Err(Fault::new(what).environment())
            }
            _ => Ok(mail),
        }
    }

    /// Unwinds the thread of this rank: ending the process would end the test run.
    fn abort(&self, exit_code: u8) -> ! {
        self.leave(format!("aborted with exit code {exit_code}"));
        resume_unwind(Box::new(Aborted(exit_code)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure() -> Error {
        Fault::new("the disk is full").environment()
    }

    #[test]
    fn collectives_return_rank_order_every_time() {
        let outcomes = Threads::run(5, |comm| {
            for round in 0..200 {
                let mine = vec![round; comm.rank()];
                let all = comm.all_gather(&mine)?;
                assert!(
                    all.iter().enumerate().all(|(rank, message)| *message == vec![round; rank])
                );
                let mut message = vec![round, comm.rank() as u8];
                comm.broadcast(&mut message)?;
                assert_eq!(message, [round, 0]);
                comm.barrier()?;
            }
            Ok(())
        });
        for outcome in outcomes {
            outcome.unwrap();
        }
    }

    #[test]
    fn failing_rank_releases_the_others() {
        let outcomes = Threads::run(4, |comm| match comm.rank() {
            2 => Err(failure()),
            _ => comm.barrier(),
        });
        for (rank, outcome) in outcomes.into_iter().enumerate() {
            let error = outcome.unwrap_err();
            assert_eq!(error.exit_code(), 5);
            assert_eq!(error.to_string().contains("rank 2, which failed: the disk"), rank != 2);
        }
    }

    #[test]
    fn panicking_rank_releases_the_others() {
        let outcomes = Threads::run(3, |comm| {
            assert_ne!(comm.rank(), 1, "broken promise");
            comm.all_reduce_sum(&mut [1])
        });
        let codes: Vec<u8> = outcomes.iter().map(|o| o.as_ref().unwrap_err().exit_code()).collect();
        assert_eq!(codes, [5, 1, 5]);
        assert!(outcomes[0].as_ref().unwrap_err().to_string().contains("broken promise"));
    }

    #[test]
    fn early_returning_rank_releases_the_others() {
        let outcomes =
            Threads::run(3, |comm| if comm.rank() == 0 { Ok(()) } else { comm.barrier() });
        assert!(outcomes[0].is_ok());
        for outcome in &outcomes[1..] {
            assert!(outcome.as_ref().unwrap_err().to_string().contains("rank 0, which is done"));
        }
    }

    #[test]
    fn shared_data_stays_valid_after_a_rank_fails() {
        let outcomes = Threads::run(8, |comm| {
            let mut sum = [1];
            comm.all_reduce_sum(&mut sum)?;
            assert_eq!(sum, [8]);
            if comm.rank() == 3 { Err(failure()) } else { Ok(()) }
        });
        for (rank, outcome) in outcomes.into_iter().enumerate() {
            assert_eq!(outcome.is_err(), rank == 3);
        }
    }

    #[test]
    fn abort_ends_every_rank_with_its_code() {
        let outcomes: Vec<Result<()>> = Threads::run(3, |comm| {
            if comm.rank() == 0 {
                comm.abort(6);
            }
            comm.barrier()
        });
        let codes: Vec<u8> = outcomes.iter().map(|o| o.as_ref().unwrap_err().exit_code()).collect();
        assert_eq!(codes, [6, 5, 5]);
    }

    #[test]
    fn different_collectives_are_an_internal_error() {
        let different = Threads::run(2, |comm| {
            if comm.rank() == 0 { comm.barrier() } else { comm.all_gather(&[]).map(|_| ()) }
        });
        let lengths = Threads::run(2, |comm| comm.all_reduce_sum(&mut vec![0; comm.rank()]));
        for outcome in different.into_iter().chain(lengths) {
            assert_eq!(outcome.unwrap_err().exit_code(), 1);
        }
    }
}
