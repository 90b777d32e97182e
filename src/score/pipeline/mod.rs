//! Scores the tasks of one rank. While a block is scored, the next ones are read and prepared and
//! the last ones written, also across files.
//!
//! One thread reads, one prepares and one writes; the thread of the rank scores and communicates.
//!
//! - Preparing and scoring share one thread pool, so that no core waits for the end of either.
//! - At most two blocks wait between two threads, so that memory does not grow with the files.
//!   Blocks are reused, since the system would have to clear new memory.
//! - A fault of a file ends that file. A fault of the disk, the device or another rank ends the work.

mod context;
mod messages;
mod reading;
mod writing;

pub(crate) use context::PipelineContext;

use super::input::Facts;
use super::scheduler::{Costed, Task, WorkQueue};
use super::scoring_plan::ScoredRows;
use super::{Failure, ScoringReport};
use crate::comm::{Communicator, StopFlag, Work};
use crate::dataset::failures::or_lack_of_memory;
use crate::dataset::output::ledger::Ledger;
use crate::dataset::output::reading::ReadingNote;
use crate::engine::Scorer;
use crate::error::{Error, Fault, Result};
use crate::statistics::LikenessTally;
use messages::{Done, Read, Write};
use reading::{prepare_all, read_all};
use std::sync::atomic::Ordering;
use std::sync::mpsc::{
    Receiver, RecvTimeoutError, Sender, SyncSender, TryRecvError, TrySendError, channel,
    sync_channel,
};
use std::time::{Duration, Instant};
use writing::write_all;

/// Most blocks that wait to be scored, or to be written.
const WAITING: usize = 2;
/// A rank asks for more tasks when its remaining ones take less time [ns].
const SOON: u64 = 1_000_000_000;
/// Rows of a file that are compared with the training events, in whole blocks.
const COMPARED: u64 = 65_536;
/// Longest time without a check for messages.
const TICK: Duration = Duration::from_millis(2);

/// Processes tasks until none are left; returns the outcomes of the files.
pub(crate) fn run(
    comm: &dyn Communicator,
    shared: &PipelineContext,
    scorer: &Scorer,
    pool: &mut WorkQueue,
    (ledger, note): (Ledger, ReadingNote),
    stop: &StopFlag,
) -> Result<ScoringReport> {
    let (to_read, tasks) = channel();
    let (read, blocks) = sync_channel(WAITING);
    let (prepared, ready) = sync_channel(1);
    let (to_write, writes) = sync_channel(WAITING);
    let (done, outcomes) = channel();
    let (used_rows, spare_rows) = channel();
    let (used_blocks, spare_blocks) = channel();
    let preparation = scorer.preparation();
    std::thread::scope(|scope| {
        let reading = scope.spawn(move || read_all(shared, &tasks, &read, &spare_blocks, note));
        let preparing = scope.spawn(move || {
            let spare = (spare_rows, used_blocks);
            prepare_all(shared, preparation, &blocks, &prepared, &spare);
        });
        let writing = scope.spawn(move || write_all(shared, &writes, &done, &used_rows, ledger));
        let scored = RankScoring {
            comm,
            shared,
            scorer,
            stop,
            to_read,
            ready,
            to_write,
            outcomes,
            current: None,
            failed: None,
            likeness: None,
            in_work: 0,
            left: 0,
            signs: 0,
            report: ScoringReport::default(),
            time: Spent::default(),
        }
        .score_all(pool);
        // The channels are closed now, so all threads end.
        let died = |_| Fault::new("a thread of the scoring died").internal();
        reading.join().map_err(died)?;
        preparing.join().map_err(died)?;
        writing.join().map_err(died)??;
        scored
    })
}

/// State of the rank's own thread.
struct RankScoring<'a, 'b> {
    comm: &'a dyn Communicator,
    shared: &'a PipelineContext<'b>,
    scorer: &'a Scorer,
    stop: &'a StopFlag,
    to_read: Sender<Costed>,
    ready: Receiver<(Read<Box<ScoredRows>>, u64)>,
    to_write: SyncSender<Write>,
    outcomes: Receiver<Done>,
    /// The task whose rows arrive, with their facts; `None` while a failed task is skipped.
    current: Option<(Task, Facts)>,
    /// The task that has failed here, and whose rows are skipped.
    failed: Option<Task>,
    /// Comparison of the first rows of a file with the training, until it is checked.
    likeness: Option<LikenessTally>,
    in_work: usize, // started tasks without an outcome
    left: u64,      // cost of the rows that are not read yet
    signs: u64,
    report: ScoringReport,
    time: Spent,
}

/// Time spent by the rank's own thread.
#[derive(Debug, Default)]
struct Spent {
    rows: u64,
    scoring: Duration,
    /// Part of `scoring` spent in the engine.
    engine: Duration,
}

impl RankScoring<'_, '_> {
    /// Scores until all tasks are done, and returns the outcomes of the files.
    fn score_all(mut self, pool: &mut WorkQueue) -> Result<ScoringReport> {
        let started = Instant::now();
        loop {
            self.check_stop()?;
            pool.poll()?;
            self.take_outcomes(pool)?;
            self.take_tasks(pool)?;
            if self.in_work == 0 && pool.is_over() {
                self.log_time(started.elapsed());
                return Ok(self.report);
            }
            self.report_progress();
            let (read, cost) = match self.ready.recv_timeout(TICK) {
                Ok(read) => read,
                Err(RecvTimeoutError::Timeout) => continue,
                Err(RecvTimeoutError::Disconnected) => return Ok(self.report),
            };
            self.left = self.left.saturating_sub(cost);
            if let Some(write) = self.process(read)? {
                self.write(write, pool)?;
            }
        }
    }

    /// Hands new tasks to the reading thread, and asks for more when few are left.
    fn take_tasks(&mut self, pool: &mut WorkQueue) -> Result<()> {
        while let Some((task, cost)) = pool.take() {
            self.left += cost;
            self.in_work += 1;
            // If the reader has ended, its error is returned when it is joined.
            let _ = self.to_read.send((task, cost));
        }
        if self.left < SOON { pool.ask() } else { Ok(()) }
    }

    /// Processes a message of the preparing thread; returns the message to the writing thread.
    fn process(&mut self, read: Read<Box<ScoredRows>>) -> Result<Option<Write>> {
        Ok(match read {
            Read::Begin(opened) => {
                self.likeness = (opened.rows.start == 0).then(LikenessTally::default);
                self.current = Some((opened.task.clone(), Facts::default()));
                Some(Write::Begin(opened))
            }
            Read::Rows(rows, first) => self.score_rows(rows, first)?,
            Read::End(warnings) => self.end_task(warnings),
            Read::Kept(task) => Some(Write::Kept(task)),
            Read::Failed(task, error) => {
                self.current = None;
                let is_reported = self.failed.take().as_ref() == Some(&task);
                (!is_reported).then_some(Write::Failed(task, error))
            }
        })
    }

    /// Scores a block and checks its facts; the rest of a failed task is skipped.
    fn score_rows(&mut self, mut rows: Box<ScoredRows>, first: u64) -> Result<Option<Write>> {
        let Some((task, facts)) = &mut self.current else { return Ok(None) };
        let job = &self.shared.assignment.jobs[task.job()];
        let plan = self.shared.plan;
        let (began, before) = (Instant::now(), rows.scored.engine_time);
        plan.score(self.scorer, &mut rows)?;
        self.time.rows += rows.block.rows as u64;
        self.time.scoring += began.elapsed();
        self.time.engine += rows.scored.engine_time.saturating_sub(before);
        let checked = match &plan.positions {
            Some(at) => facts.look(&rows, at, &job.input, first),
            None => Ok(()),
        };
        if let Some(tally) = &mut self.likeness {
            plan.compare(&rows, tally);
        }
        let enough = first + rows.block.rows as u64 >= COMPARED;
        let compared = if enough { self.likeness.take() } else { None };
        match checked.and_then(|()| self.shared.check_likeness(&job.input, compared)) {
            Ok(()) => Ok(Some(Write::Rows(rows))),
            Err(error) => {
                let task = task.clone();
                (self.current, self.failed) = (None, Some(task.clone()));
                Ok(Some(Write::Failed(task, error)))
            }
        }
    }

    fn end_task(&mut self, warnings: Vec<String>) -> Option<Write> {
        let (task, mut facts) = self.current.take()?;
        facts.warnings = warnings;
        let input = &self.shared.assignment.jobs[task.job()].input;
        Some(match self.shared.check_likeness(input, self.likeness.take()) {
            Ok(()) => Write::End(facts),
            Err(error) => Write::Failed(task, error),
        })
    }

    fn log_time(&self, elapsed: Duration) {
        let Spent { rows, scoring, engine } = self.time;
        log::debug!(
            "rank {}: {rows} rows in {:.3} s, {:.3} s of it scoring, of that {:.3} s in the engine",
            self.comm.rank(),
            elapsed.as_secs_f64(),
            scoring.as_secs_f64(),
            engine.as_secs_f64()
        );
    }

    /// Sends a message to the writing thread, and answers other ranks while it is busy.
    fn write(&mut self, mut write: Write, pool: &mut WorkQueue) -> Result<()> {
        loop {
            write = match self.to_write.try_send(write) {
                Err(TrySendError::Full(write)) => write,
                Ok(()) => return Ok(()),
                // The cause is returned when the thread is joined.
                Err(TrySendError::Disconnected(_)) => {
                    return Err(Fault::new("the writing thread ended").internal());
                }
            };
            self.check_stop()?;
            pool.poll()?;
            self.take_outcomes(pool)?;
            self.report_progress();
            std::thread::sleep(TICK / 4);
        }
    }

    fn take_outcomes(&mut self, pool: &mut WorkQueue) -> Result<()> {
        loop {
            let Done { task, outcome } = match self.outcomes.try_recv() {
                Ok(done) => done,
                Err(TryRecvError::Empty) => return Ok(()),
                // The cause is returned when the thread is joined.
                Err(TryRecvError::Disconnected) => {
                    return Err(Fault::new("the writing thread ended").internal());
                }
            };
            self.in_work -= 1;
            pool.done(&task, outcome.is_ok())?;
            match outcome.map_err(or_lack_of_memory) {
                Ok(file) => self.report.files.extend(file),
                Err(error @ (Error::Environment(_) | Error::Stopped(_) | Error::Interrupted)) => {
                    return Err(error);
                }
                Err(error) => {
                    let input = &self.shared.assignment.jobs[task.job()].input;
                    let failure = Failure::new(input, &error);
                    // Every piece of a bad file may fail.
                    if !self.report.failures.iter().any(|f| f.file == failure.file) {
                        self.report.failures.push(failure);
                    }
                }
            }
        }
    }

    /// Reports blocks that were read or written to the watchdog; waiting is not progress.
    fn report_progress(&mut self) {
        let signs = self.shared.progress.load(Ordering::Relaxed);
        // A rank without tasks waits for other ranks: for an answer, or for their end.
        if signs != self.signs || self.in_work == 0 {
            self.comm.progress(Work::Scoring, signs);
        }
        self.signs = signs;
    }

    /// Returns an error after a request to stop, which ends all ranks; finished outputs stay.
    fn check_stop(&self) -> Result<()> {
        self.stop.refuse_if_requested()
    }
}
