//! The watching thread of a rank: it writes its own heartbeat and reads that of the next rank.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::findings::{jammed, missing};
use super::heartbeats::{Activity, Collective, Heartbeats, Record, Work};
use super::state::{GRACE, ReadingOf, SILENT_SHARE, WatchState, pause_of};
use crate::comm::Communicator;
use crate::comm::host::host;
use crate::error::Error;
use crate::terminal::print_error;

/// Turns between two readings of all ranks.
const LOOK_TURNS: u32 = 2;
/// Time after which a file that was never visible counts as not shared.
const UNSEEN: Duration = Duration::from_secs(120);

/// The watching thread of one rank.
pub(super) struct Monitor {
    rank: usize,
    size: usize,
    shared: Arc<WatchState>,
    heartbeats: Heartbeats,
    pause: Duration,
    limit: Duration,
    abort: fn(u8) -> !,
    process: u32,
    host: String,
    beat: u64,
    reading: ReadingOf,
}

/// History of a watched rank.
#[derive(Debug, Default)]
struct RankHistory {
    last: Option<Record>,
    /// Time for which its file has not changed.
    silent: Duration,
    /// Time for which it has neither waited nor made progress.
    idle: Duration,
    /// Time for which it has been in the same collective.
    waiting: Duration,
}

impl RankHistory {
    /// Adds a record that was read after `elapsed` more time of watching.
    fn look(&mut self, found: Option<Record>, elapsed: Duration) {
        let same = |key: fn(&Record) -> u64| match (&self.last, &found) {
            (Some(last), Some(found)) => key(last) == key(found),
            // A record that cannot be read now is not a heartbeat.
            (_, None) => true,
            (None, Some(_)) => false,
        };
        let (beat, ticks, entered) = (same(|r| r.beat), same(|r| r.ticks), same(|r| r.entered));
        let waits = |record: &Option<Record>| {
            record.as_ref().is_some_and(|r| matches!(r.activity, Activity::Waiting(_)))
        };
        let (waited, waits) = (waits(&self.last), waits(&found));
        let grown = |kept: bool, time: Duration| if kept { time + elapsed } else { Duration::ZERO };
        self.silent = grown(beat, self.silent);
        self.idle = grown(ticks && entered && !waits, self.idle);
        self.waiting = grown(waited && waits && entered, self.waiting);
        if found.is_some() {
            self.last = found;
        }
    }

    fn has_left(&self) -> bool {
        self.last.as_ref().is_some_and(|r| r.activity == Activity::Left)
    }
}

impl Monitor {
    /// Returns the monitor of this rank.
    pub(super) fn new(
        comm: &dyn Communicator,
        shared: Arc<WatchState>,
        heartbeats: Heartbeats,
        deadline: Duration,
        abort: fn(u8) -> !,
        reading: ReadingOf,
    ) -> Monitor {
        Monitor {
            rank: comm.rank(),
            size: comm.size(),
            shared,
            heartbeats,
            pause: pause_of(deadline),
            limit: deadline.mul_f64(SILENT_SHARE),
            abort,
            process: std::process::id(),
            host: host(),
            beat: 0,
            reading,
        }
    }

    /// Returns the next record of this rank.
    fn record(&mut self) -> Record {
        let shared = &self.shared;
        self.beat += 1;
        Record {
            beat: self.beat,
            activity: match shared.waiting.load(Ordering::Acquire) {
                0 => Activity::Working,
                code => Activity::Waiting(Collective::of(code - 1)),
            },
            entered: shared.entered.load(Ordering::Relaxed),
            ticks: shared.ticks.load(Ordering::Relaxed),
            work: Work::of(shared.work.load(Ordering::Relaxed)),
            at: shared.at.load(Ordering::Relaxed),
            process: self.process,
            host: self.host.clone(),
        }
    }

    /// Writes the heartbeat of this rank.
    pub(super) fn post(&mut self) -> std::io::Result<Record> {
        let record = self.record();
        self.heartbeats.post(self.rank, &record).map(|()| record)
    }

    /// Watches until the rank has left; ends the job when a rank is missing.
    pub(super) fn run(mut self) {
        let next = (self.rank + 1) % self.size;
        let (mut own, mut seen) = (RankHistory::default(), RankHistory::default());
        let (mut watched, mut reported, mut unposted) = (Duration::ZERO, false, false);
        let mut turn = Instant::now();
        while !self.shared.is_over(self.pause) {
            // A longer turn means that this process itself was stopped.
            let elapsed = turn.elapsed().min(2 * self.pause);
            turn = Instant::now();
            watched += elapsed;
            // A disk that is full for a while must not end the job here.
            let posted = self.post();
            if let Err(error) = &posted
                && !std::mem::replace(&mut unposted, true)
            {
                log::warn!("rank {} cannot write its heartbeat: {error}", self.rank);
            }
            own.look(posted.ok(), elapsed);
            seen.look(self.heartbeats.read(next), elapsed);
            if seen.last.is_none() {
                if watched >= UNSEEN && !std::mem::replace(&mut reported, true) {
                    log::warn!(
                        "rank {} does not see the heartbeat of rank {next}: the output folder is not \
                         shared, and a rank that hangs will not be detected",
                        self.rank
                    );
                }
                continue;
            }
            let jammed = self.rank == 0 && own.waiting.min(seen.waiting) >= self.limit;
            let suspicious = seen.silent >= self.limit || seen.idle >= self.limit || jammed;
            if suspicious
                && !seen.has_left()
                && let Some(complaint) = self.investigate(next, &seen)
            {
                print_error(&complaint);
                self.end_all(complaint.exit_code());
            }
        }
        let farewell = Record { activity: Activity::Left, ..self.record() };
        let _ = self.heartbeats.post(self.rank, &farewell);
    }

    /// Reads all ranks twice, some turns apart, and returns the error if the fault persists.
    fn investigate(&self, next: usize, suspect: &RankHistory) -> Option<Error> {
        let mut all: Vec<RankHistory> = (0..self.size).map(|_| RankHistory::default()).collect();
        for elapsed in [Duration::ZERO, self.pause * LOOK_TURNS] {
            if self.shared.is_over(elapsed) {
                return None;
            }
            for (rank, seen) in all.iter_mut().enumerate() {
                seen.look(self.heartbeats.read(rank), elapsed);
            }
        }
        // While this thread is here, no other one writes the file of this rank.
        let alive = |rank: usize| rank == self.rank || all[rank].silent.is_zero();
        let silent: Vec<usize> =
            (0..self.size).filter(|rank| !alive(*rank) && !all[*rank].has_left()).collect();
        let records: Vec<Option<&Record>> = all.iter().map(|seen| seen.last.as_ref()).collect();
        if suspect.silent >= self.limit && silent.contains(&next) {
            let why = format!("no heartbeat for {:.1} s", suspect.silent.as_secs_f64());
            return Some(missing(&records, &silent, &why, &self.reading));
        }
        let idle = !all[next].idle.is_zero() && alive(next);
        if suspect.idle >= self.limit && idle {
            let why = format!("no progress for {:.1} s", suspect.idle.as_secs_f64());
            return Some(missing(&records, &[next], &why, &self.reading));
        }
        let waits = |rank: usize| rank == self.rank || !all[rank].waiting.is_zero();
        (self.rank == 0 && suspect.waiting >= self.limit && (0..self.size).all(waits))
            .then(|| jammed(&records, suspect.waiting))
    }

    fn end_all(&self, exit_code: u8) -> ! {
        std::thread::spawn(move || {
            std::thread::sleep(GRACE);
            signal_hook::low_level::exit(i32::from(exit_code))
        });
        (self.abort)(exit_code)
    }
}

#[cfg(test)]
mod tests;
