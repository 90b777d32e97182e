//! Distributes tasks to the ranks, longest first and in decreasing shares.
//!
//! All ranks know the tasks and the first share of each rank, so that work begins without a
//! message. More than half of the work is distributed later: a rank that is about to run out asks
//! rank 0, which sends 1/(2·ranks) of the remaining tasks, at least one (guided self-scheduling,
//! Polychronopoulos and Kuck 1987). Slow ranks therefore ask less often. Messages are two-sided and
//! few; rank 0 answers between two blocks of its own work. The pieces of a file may go to any
//! ranks; when all are complete, one rank merges them.

use crate::comm::{Communicator, is_root};
use crate::error::Result;
use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;

/// Least duration of a share of several tasks [ns]: shorter ones would cost more messages.
const LEAST_SHARE: u64 = 200_000_000;
/// Most tasks in one message, which MPI then sends eagerly, without a handshake.
const MOST_TASKS: usize = 64;

/// A unit of work; `job` is the index of a file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Task {
    /// A whole file.
    File { job: usize },
    /// A range of rows of a file, written to a separate file.
    Piece { job: usize, rows: (u64, u64) },
    /// Merging of the pieces of a file into its output.
    Merge { job: usize },
}

/// A task and its approximate duration [ns].
pub(crate) type Costed = (Task, u64);

impl Task {
    pub(crate) fn job(&self) -> usize {
        match self {
            Task::File { job } | Task::Piece { job, .. } | Task::Merge { job } => *job,
        }
    }

    /// Returns the rows to score, of a file with `all` rows.
    pub(crate) fn rows(&self, all: u64) -> Range<u64> {
        match self {
            Task::File { .. } => 0..all,
            Task::Piece { rows, .. } => rows.0..rows.1,
            Task::Merge { .. } => 0..0,
        }
    }

    fn to_words(&self, cost: u64) -> [u64; 5] {
        match self {
            Task::File { job } => [0, *job as u64, 0, 0, cost],
            Task::Piece { job, rows } => [1, *job as u64, rows.0, rows.1, cost],
            Task::Merge { job } => [2, *job as u64, 0, 0, cost],
        }
    }

    fn from_words([kind, job, start, end, cost]: [u64; 5]) -> Costed {
        let job = job as usize;
        let task = match kind {
            0 => Task::File { job },
            1 => Task::Piece { job, rows: (start, end) },
            _ => Task::Merge { job },
        };
        (task, cost)
    }
}

/// Remaining tasks and waiting ranks, on rank 0.
#[derive(Debug)]
struct Manager {
    ranks: u64,
    left: VecDeque<Costed>, // longest first
    cost: u64,              // of those left
    /// Number of unfinished pieces of each file, and whether a piece failed.
    pieces: BTreeMap<usize, (usize, bool)>,
    merges: BTreeMap<usize, u64>, // cost
    waiting: Vec<usize>,
    informed: usize, // ranks that know that there is no more
}

impl Manager {
    fn new(mut tasks: Vec<Costed>, merges: BTreeMap<usize, u64>, ranks: usize) -> Manager {
        tasks.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(&b.0)));
        let mut pieces: BTreeMap<usize, (usize, bool)> = BTreeMap::new();
        for (task, _) in &tasks {
            if let Task::Piece { job, .. } = task {
                pieces.entry(*job).or_default().0 += 1;
            }
        }
        let cost = tasks.iter().map(|(_, cost)| cost).sum();
        let left = tasks.into();
        let (ranks, waiting) = (ranks as u64, Vec::new());
        Manager { ranks, left, cost, pieces, merges, waiting, informed: 0 }
    }

    /// Returns the next share; empty if no task is left now.
    fn share(&mut self) -> Vec<Costed> {
        let enough = (self.cost / (2 * self.ranks)).max(LEAST_SHARE);
        let (mut share, mut sum) = (Vec::new(), 0);
        while share.len() < MOST_TASKS && sum < enough {
            let Some(task) = self.left.pop_front() else { break };
            sum += task.1;
            share.push(task);
        }
        self.cost -= sum;
        share
    }

    /// Records the end of a task and its success.
    fn done(&mut self, task: &Task, well: bool) {
        let Task::Piece { job, .. } = task else { return };
        let Some((left, failed)) = self.pieces.get_mut(job) else { return };
        *left -= 1;
        *failed |= !well;
        if *left > 0 {
            return;
        }
        let failed = *failed;
        self.pieces.remove(job);
        let cost = self.merges.get(job).copied().unwrap_or_default();
        if !failed {
            self.left.push_front((Task::Merge { job: *job }, cost));
            self.cost += cost;
        }
    }

    /// Returns whether no task is left and none will be added.
    fn is_over(&self) -> bool {
        self.left.is_empty() && self.pieces.is_empty()
    }
}

/// Tasks of one rank, and its connection to rank 0.
pub(crate) struct WorkQueue<'a> {
    comm: &'a dyn Communicator,
    manager: Option<Manager>,
    at_hand: VecDeque<Costed>,
    asked: bool,
    over: bool,
}

const ASK: u8 = 0;
const SHARE: u8 = 1;
const DONE: u8 = 2;
const FAILED: u8 = 3;

impl<'a> WorkQueue<'a> {
    /// Creates the queue of a rank. All ranks pass the same tasks; `merges` is the cost of merging
    /// each file.
    pub(crate) fn new(
        comm: &'a dyn Communicator,
        tasks: Vec<Costed>,
        merges: BTreeMap<usize, u64>,
    ) -> WorkQueue<'a> {
        let mut manager = Manager::new(tasks, merges, comm.size());
        let shares: Vec<Vec<Costed>> = (0..comm.size()).map(|_| manager.share()).collect();
        let at_hand = shares.into_iter().nth(comm.rank()).unwrap_or_default().into();
        let manager = is_root(comm).then_some(manager);
        WorkQueue { comm, manager, at_hand, asked: false, over: false }
    }

    /// Returns the next task of this rank.
    pub(crate) fn take(&mut self) -> Option<Costed> {
        self.at_hand.pop_front()
    }

    /// Asks rank 0 for tasks, unless some are left or a request is pending.
    pub(crate) fn ask(&mut self) -> Result<()> {
        if !self.at_hand.is_empty() || self.asked || self.over {
            return Ok(());
        }
        let Some(manager) = &mut self.manager else {
            self.asked = true;
            return self.comm.send(0, &[ASK]);
        };
        self.at_hand = manager.share().into();
        self.over = self.at_hand.is_empty() && manager.is_over();
        Ok(())
    }

    /// Reports the end of a task and its success.
    pub(crate) fn done(&mut self, task: &Task, well: bool) -> Result<()> {
        match &mut self.manager {
            Some(manager) => manager.done(task, well),
            None if matches!(task, Task::Piece { .. }) => {
                let kind = if well { DONE } else { FAILED };
                self.comm.send(0, &message(kind, &[(task.clone(), 0)]))?;
            }
            None => {}
        }
        Ok(())
    }

    /// Receives pending messages; rank 0 also answers waiting ranks.
    pub(crate) fn poll(&mut self) -> Result<()> {
        while let Some((from, bytes)) = self.comm.receive()? {
            let (kind, tasks) = parse(&bytes);
            match (&mut self.manager, kind) {
                (Some(manager), ASK) => manager.waiting.push(from),
                (Some(manager), kind) => {
                    tasks.iter().for_each(|(task, _)| manager.done(task, kind == DONE));
                }
                (None, _) => {
                    self.asked = false;
                    self.over = tasks.is_empty();
                    self.at_hand = tasks.into();
                }
            }
        }
        let Some(manager) = &mut self.manager else { return Ok(()) };
        for rank in std::mem::take(&mut manager.waiting) {
            let share = manager.share();
            if share.is_empty() && !manager.is_over() {
                // Pieces are being scored, and their file will have to be merged.
                manager.waiting.push(rank);
                continue;
            }
            manager.informed += usize::from(share.is_empty());
            self.comm.send(rank, &message(SHARE, &share))?;
        }
        Ok(())
    }

    /// Returns whether this rank has no more work and no rank to answer.
    pub(crate) fn is_over(&self) -> bool {
        let others = self.manager.as_ref().is_none_or(|m| m.informed + 1 >= self.comm.size());
        self.over && self.at_hand.is_empty() && others
    }
}

fn message(kind: u8, tasks: &[Costed]) -> Vec<u8> {
    let words = tasks.iter().flat_map(|(task, cost)| task.to_words(*cost));
    [kind].into_iter().chain(words.flat_map(u64::to_le_bytes)).collect()
}

fn parse(bytes: &[u8]) -> (u8, Vec<Costed>) {
    let Some((kind, rest)) = bytes.split_first() else { return (ASK, Vec::new()) };
    let words: Vec<u64> = rest.as_chunks::<8>().0.iter().map(|b| u64::from_le_bytes(*b)).collect();
    (*kind, words.as_chunks::<5>().0.iter().map(|words| Task::from_words(*words)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comm::{SingleRank, Threads};
    use taiga_flow_gpu::random::Stream;

    /// Returns tasks for files of very uneven length, the longest in pieces.
    fn tasks(stream: Stream) -> (Vec<Costed>, BTreeMap<usize, u64>) {
        let (mut tasks, mut merges) = (Vec::new(), BTreeMap::new());
        for job in 0..60 {
            let cost = (libm::exp(10.0 + 12.0 * stream.uniform(job)) as u64).max(1);
            let job = job as usize;
            if cost < 1_000_000_000 {
                tasks.push((Task::File { job }, cost));
                continue;
            }
            let pieces = 1 + cost / 500_000_000;
            let piece = |i| (Task::Piece { job, rows: (i, i + 1) }, cost / pieces);
            tasks.extend((0..pieces).map(piece));
            merges.insert(job, cost / 20);
        }
        (tasks, merges)
    }

    /// Processes the tasks as a rank does, and lets some of them fail.
    fn work(
        comm: &dyn Communicator,
        stream: Stream,
        fails: impl Fn(&Task) -> bool,
    ) -> Result<Vec<Task>> {
        let (tasks, merges) = tasks(stream);
        let mut pool = WorkQueue::new(comm, tasks, merges);
        let mut done = Vec::new();
        while !pool.is_over() {
            pool.poll()?;
            match pool.take() {
                Some((task, cost)) => {
                    std::thread::sleep(std::time::Duration::from_nanos(cost / 2000));
                    pool.done(&task, !fails(&task))?;
                    done.push(task);
                }
                None => pool.ask()?,
            }
        }
        comm.barrier()?;
        Ok(done)
    }

    #[test]
    fn every_task_has_one_rank_and_merges_come_last() {
        let stream = Stream::new(crate::test_seed(), "tasks", &[]);
        let (all, merges) = tasks(stream);
        let fails = |task: &Task| matches!(task, Task::Piece { rows: (2, _), .. });
        let pieces = |job: usize| {
            all.iter().filter(|(t, _)| matches!(t, Task::Piece { .. }) && t.job() == job).count()
        };
        let merged = merges.keys().filter(|job| pieces(**job) < 3);
        let mut expected: Vec<Task> = all.iter().map(|(task, _)| task.clone()).collect();
        expected.extend(merged.map(|job| Task::Merge { job: *job }));
        expected.sort();
        for ranks in [1, 2, 3, 5] {
            let mut outcomes: Vec<Vec<Task>> = if ranks == 1 {
                vec![work(&SingleRank, stream, fails).unwrap()]
            } else {
                let outcomes = Threads::run(ranks, |comm| work(comm, stream, fails));
                outcomes.into_iter().map(Result::unwrap).collect()
            };
            let mut found: Vec<Task> = outcomes.drain(..).flatten().collect();
            found.sort();
            assert_eq!(found, expected, "{ranks} ranks");
        }
    }

    #[test]
    fn slow_rank_gets_less_and_first_shares_half() {
        let tasks: Vec<Costed> =
            (0..400).map(|job| (Task::File { job }, 1_000_000_000 + job as u64)).collect();
        let mut manager = Manager::new(tasks.clone(), BTreeMap::new(), 4);
        let first: usize = (0..4).map(|_| manager.share().len()).sum();
        assert!((100..=200).contains(&first), "{first}");
        let counts = Threads::run(2, |comm| {
            let mut pool = WorkQueue::new(comm, tasks.clone(), BTreeMap::new());
            let mut count = 0;
            while !pool.is_over() {
                pool.poll()?;
                let Some((task, _)) = pool.take() else {
                    pool.ask()?;
                    continue;
                };
                let slow = if comm.rank() == 1 { 9 } else { 1 };
                std::thread::sleep(std::time::Duration::from_micros(200 * slow));
                pool.done(&task, true)?;
                count += 1;
            }
            comm.barrier()?;
            Ok(count)
        });
        let counts: Vec<usize> = counts.into_iter().map(Result::unwrap).collect();
        assert_eq!(counts.iter().sum::<usize>(), 400);
        assert!(counts[1] < 140, "{counts:?}");
    }
}
