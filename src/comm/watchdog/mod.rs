//! The watchdog: a rank that dies, hangs or is stopped ends the whole job within a
//! deadline, with a message that names it.
//!
//! A collective of MPI waits for ever for a rank that does not come. [`Watched`] counts
//! the collectives a rank enters, and takes signs of progress ([`Communicator::progress`])
//! between them. A thread per rank writes both to the rank's file (`heartbeats`) some twenty
//! times within the deadline, and reads the file of the next rank. Three things end the
//! job with exit code 5:
//!
//! - *silent*: the file no longer changes. The process or its node is dead or stopped;
//! - *stuck*: the file changes, but its main thread neither waits in a collective nor
//!   makes progress;
//! - *jammed*: every rank waits in a collective, and none of them ends.
//!
//! A rank that reads or computes for hours makes progress all the time and is waited for.
//! Silence is counted in turns of the watching thread, not by the clock: a job that is
//! suspended as a whole finds nobody silent when it goes on. The next rank in the ring is
//! enough to watch, because unless all ranks have stopped one of those that have is
//! followed up by one that has not.

mod alone;
pub(crate) mod heartbeats;
pub(crate) mod process_monitor;

use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::{Communicator, host, is_root, sync_result};
use crate::error::{Error, Fault, Result};
use crate::terminal::print_error;
use heartbeats::{Activity, Collective, Heartbeats, Record, Work};

/// Turns of the watching thread within a deadline, and limits of its pause.
const TURNS: u32 = 20;
const SHORTEST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Turns without a sign of life after which a rank is missing: the rest of the deadline
/// is for looking around and ending the job.
pub(super) const SILENT_SHARE: f64 = 0.5;
/// Turns between two looks at all ranks.
const LOOK_TURNS: u32 = 2;
/// How long an aborted job may take to end before this process ends by itself.
pub(super) const GRACE: Duration = Duration::from_secs(5);
/// How long rank 0 waits for the others to leave before it removes the files.
const FAREWELL: Duration = Duration::from_secs(2);
/// A file not seen for so long is not going to be seen: the folder is not shared.
const UNSEEN: Duration = Duration::from_secs(120);

/// A world whose collectives are watched.
pub struct Watched<'a> {
    inner: &'a dyn Communicator,
    watch: Option<Watch>,
}

struct Watch {
    shared: Arc<WatchState>,
    thread: Option<JoinHandle<()>>,
    /// Absent without other ranks.
    heartbeats: Option<Heartbeats>,
}

/// Returns the file that a rank is reading, for messages.
pub type ReadingOf = Arc<dyn Fn(usize) -> Option<String> + Send + Sync>;

/// What the main thread tells its monitor.
#[derive(Debug, Default)]
pub(super) struct WatchState {
    entered: AtomicU64,
    /// 0: none; else one more than the [`Collective`].
    waiting: AtomicUsize,
    pub(super) ticks: AtomicU64,
    work: AtomicUsize,
    at: AtomicU64,
    over: Mutex<bool>,
    news: Condvar,
}

/// Watches the collectives of `comm` from now on, if it has ranks as processes and there
/// is a deadline. Rank 0 names a folder that all ranks see and may write in; the other
/// ranks' is not asked for.
pub fn watch<'a>(
    comm: &'a dyn Communicator,
    folder: Option<&Path>,
    deadline: Option<Duration>,
) -> Result<Watched<'a>> {
    watch_ranks(comm, folder, deadline, Arc::new(|_| None))
}

/// Does the same for ranks that read one file after the other, also for a single one; `reading`
/// names the file.
pub fn watch_reading<'a>(
    comm: &'a dyn Communicator,
    folder: Option<&Path>,
    deadline: Option<Duration>,
    reading: ReadingOf,
) -> Result<Watched<'a>> {
    let Some(deadline) = deadline.filter(|_| comm.size() == 1) else {
        return watch_ranks(comm, folder, deadline, reading);
    };
    remove_old_heartbeats(folder);
    let shared = Arc::new(WatchState::default());
    let thread = Some(alone::start(Arc::clone(&shared), deadline, reading)?);
    Ok(Watched { inner: comm, watch: Some(Watch { shared, thread, heartbeats: None }) })
}

/// Removes what an earlier job that was killed may have left.
fn remove_old_heartbeats(folder: Option<&Path>) {
    if let Some(folder) = folder {
        let _ = Heartbeats::within(folder, 0).remove();
    }
}

fn watch_ranks<'a>(
    comm: &'a dyn Communicator,
    folder: Option<&Path>,
    deadline: Option<Duration>,
    reading: ReadingOf,
) -> Result<Watched<'a>> {
    let passive = Watched { inner: comm, watch: None };
    remove_old_heartbeats(folder);
    let (Some(deadline), Some(abort), true) = (deadline, comm.aborter(), comm.size() > 1) else {
        return Ok(passive);
    };
    let absolute = folder.map(|f| std::path::absolute(f).unwrap_or_else(|_| f.to_path_buf()));
    let cleared = match &absolute {
        Some(folder) => Heartbeats::clear(folder).map_err(|error| unusable(folder, &error)),
        None => Ok(()),
    };
    sync_result(comm, cleared)?;
    let mut message = match &absolute {
        Some(folder) => [&new_job().to_le_bytes(), folder.as_os_str().as_encoded_bytes()].concat(),
        None => Vec::new(),
    };
    comm.broadcast(&mut message)?;
    let Some((job, folder)) = message.split_first_chunk::<8>() else { return Ok(passive) };
    let folder = Path::new(std::str::from_utf8(folder).unwrap_or_default());
    let heartbeats = Heartbeats::within(folder, u64::from_le_bytes(*job));
    let shared = Arc::new(WatchState::default());
    let mut monitor =
        Monitor::new(comm, Arc::clone(&shared), heartbeats.clone(), deadline, abort, reading);
    // A folder that one rank cannot write in is no reason not to work.
    let posted = monitor.post().map_err(|error| unusable(folder, &error));
    if let Err(error) = sync_result(comm, posted) {
        if is_root(comm) {
            log::warn!("no watchdog: {error}");
        }
        return Ok(passive);
    }
    let thread = std::thread::Builder::new()
        .name("watchdog".to_string())
        .spawn(move || monitor.run())
        .map_err(|error| Fault::new("cannot start a thread").found(error).environment())?;
    comm.signs_watched(true);
    let watch = Watch { shared, thread: Some(thread), heartbeats: Some(heartbeats) };
    Ok(Watched { inner: comm, watch: Some(watch) })
}

/// Between two turns of a watching thread.
pub(super) fn pause_of(deadline: Duration) -> Duration {
    (deadline / TURNS).clamp(SHORTEST_PAUSE, LONGEST_PAUSE)
}

fn unusable(folder: &Path, error: &std::io::Error) -> Error {
    Fault::new("cannot write the ranks' signs of life").file(folder).found(error).environment()
}

/// A number that no earlier job in the same folder has.
fn new_job() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let nanoseconds = now.map_or(0, |t| t.as_nanos() as u64);
    nanoseconds.rotate_left(16) ^ u64::from(std::process::id())
}

impl Watched<'_> {
    fn meet<T>(&self, call: Collective, collective: impl FnOnce() -> T) -> T {
        let Some(Watch { shared, .. }) = &self.watch else { return collective() };
        shared.entered.fetch_add(1, Ordering::Relaxed);
        shared.waiting.store(1 + call as usize, Ordering::Release);
        let outcome = collective();
        shared.waiting.store(0, Ordering::Release);
        shared.ticks.fetch_add(1, Ordering::Relaxed);
        outcome
    }
}

impl Communicator for Watched<'_> {
    fn rank(&self) -> usize {
        self.inner.rank()
    }
    fn size(&self) -> usize {
        self.inner.size()
    }
    fn local_rank(&self) -> usize {
        self.inner.local_rank()
    }
    fn local_size(&self) -> usize {
        self.inner.local_size()
    }
    fn all_reduce_sum(&self, values: &mut [i64]) -> Result<()> {
        self.meet(Collective::Reduce, || self.inner.all_reduce_sum(values))
    }
    fn all_gather(&self, mine: &[u8]) -> Result<Vec<Vec<u8>>> {
        self.meet(Collective::Gather, || self.inner.all_gather(mine))
    }
    fn broadcast(&self, bytes: &mut Vec<u8>) -> Result<()> {
        self.meet(Collective::Broadcast, || self.inner.broadcast(bytes))
    }
    fn barrier(&self) -> Result<()> {
        self.meet(Collective::Barrier, || self.inner.barrier())
    }
    fn send(&self, to: usize, bytes: &[u8]) -> Result<()> {
        self.inner.send(to, bytes)
    }
    fn receive(&self) -> Result<Option<(usize, Vec<u8>)>> {
        self.inner.receive()
    }
    fn abort(&self, exit_code: u8) -> ! {
        self.inner.abort(exit_code)
    }
    fn progress(&self, work: Work, at: u64) {
        if let Some(Watch { shared, .. }) = &self.watch {
            shared.work.store(work as usize, Ordering::Relaxed);
            shared.at.store(at, Ordering::Relaxed);
            shared.ticks.fetch_add(1, Ordering::Relaxed);
        }
    }
    fn signs_watched(&self, watched: bool) {
        self.inner.signs_watched(watched);
    }
    fn aborter(&self) -> Option<fn(u8) -> !> {
        self.inner.aborter()
    }
}

impl Drop for Watched<'_> {
    /// Leaves: the others must not take this rank's silence for its death. Rank 0 waits
    /// a moment for the others to leave as well, and removes the files.
    fn drop(&mut self) {
        let Some(watch) = &mut self.watch else { return };
        self.inner.signs_watched(false);
        *watch.shared.over.lock().unwrap_or_else(PoisonError::into_inner) = true;
        watch.shared.news.notify_all();
        let _ = watch.thread.take().map(JoinHandle::join);
        let Some(heartbeats) = watch.heartbeats.as_ref().filter(|_| is_root(self.inner)) else {
            return;
        };
        let since = Instant::now();
        let left = |rank| heartbeats.read(rank).is_some_and(|r| r.activity == Activity::Left);
        let all_left = || heartbeats.are_gone() || (1..self.inner.size()).all(left);
        while !all_left() && since.elapsed() < FAREWELL {
            std::thread::sleep(Duration::from_millis(5));
        }
        // What stays is overwritten by the next job.
        let _ = heartbeats.remove();
    }
}

/// The watching thread of one rank.
struct Monitor {
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

/// What is known of a watched rank.
#[derive(Debug, Default)]
struct RankHistory {
    last: Option<Record>,
    /// How long its file has not changed.
    silent: Duration,
    /// How long it has neither waited nor made progress.
    idle: Duration,
    /// How long it has been in the same collective.
    waiting: Duration,
}

impl RankHistory {
    /// Takes what was read after another `elapsed` of watching.
    fn look(&mut self, found: Option<Record>, elapsed: Duration) {
        let same = |key: fn(&Record) -> u64| match (&self.last, &found) {
            (Some(last), Some(found)) => key(last) == key(found),
            // A record that cannot be read now is no sign of life.
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
    fn new(
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

    fn post(&mut self) -> std::io::Result<Record> {
        let record = self.record();
        self.heartbeats.post(self.rank, &record).map(|()| record)
    }

    fn run(mut self) {
        let next = (self.rank + 1) % self.size;
        let (mut own, mut seen) = (RankHistory::default(), RankHistory::default());
        let (mut watched, mut reported, mut unposted) = (Duration::ZERO, false, false);
        let mut turn = Instant::now();
        while !self.shared.is_over(self.pause) {
            // A longer turn means that this process itself was stopped.
            let elapsed = turn.elapsed().min(2 * self.pause);
            turn = Instant::now();
            watched += elapsed;
            // A disk that is full for a while is no reason to end a job here.
            let posted = self.post();
            if let Err(error) = &posted
                && !std::mem::replace(&mut unposted, true)
            {
                log::warn!("rank {} cannot write its signs of life: {error}", self.rank);
            }
            own.look(posted.ok(), elapsed);
            seen.look(self.heartbeats.read(next), elapsed);
            if seen.last.is_none() {
                if watched >= UNSEEN && !std::mem::replace(&mut reported, true) {
                    log::warn!(
                        "rank {} does not see the signs of life of rank {next}: the output folder is not \
                         shared, and a rank that hangs will not be noticed",
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

    /// Looks at all ranks, and some turns later once more; what is wrong, if it still is.
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
        // Nobody writes this rank's own file while this thread is here.
        let alive = |rank: usize| rank == self.rank || all[rank].silent.is_zero();
        let silent: Vec<usize> =
            (0..self.size).filter(|rank| !alive(*rank) && !all[*rank].has_left()).collect();
        let records: Vec<Option<&Record>> = all.iter().map(|seen| seen.last.as_ref()).collect();
        if suspect.silent >= self.limit && silent.contains(&next) {
            let why = format!("no sign of life for {:.1} s", suspect.silent.as_secs_f64());
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

impl WatchState {
    /// Whether the rank has left, after waiting for it for some time.
    pub(super) fn is_over(&self, pause: Duration) -> bool {
        let over = self.over.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.news.wait_timeout_while(over, pause, |over| !*over);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

/// Who is missing, from which collective, where it was last, and which file it was reading.
fn missing(records: &[Option<&Record>], ranks: &[usize], why: &str, reading: &ReadingOf) -> Error {
    let who = |rank: &usize| {
        let file = reading(*rank).map_or(String::new(), |file| format!(", reading {file}"));
        match records[*rank] {
            Some(r) => format!(
                "rank {rank} on {} (process {}), last seen {}{file}",
                r.host,
                r.process,
                r.place()
            ),
            None => format!("rank {rank}{file}"),
        }
    };
    let is_reading = ranks.iter().any(|rank| reading(*rank).is_some());
    let who: Vec<String> = ranks.iter().map(who).collect();
    let waiting = records.iter().flatten().filter_map(|r| match r.activity {
        Activity::Waiting(call) => Some((r.entered, call, r)),
        Activity::Working | Activity::Left => None,
    });
    let furthest = waiting.max_by_key(|(entered, ..)| *entered);
    let collective = if let Some((number, call, r)) = furthest {
        format!("{} {number}, {}", call.name(), r.place())
    } else {
        let reached = records.iter().flatten().map(|r| r.entered).max().unwrap_or(0);
        format!("collective {}", reached + 1)
    };
    Fault::new(format!("a rank is missing from {collective}"))
        .expected(format!("{} ranks", records.len()))
        .found(format!("{why} of {}", who.join("; ")))
        .advice(advice(is_reading))
        .environment()
}

/// What to do where the work stands still.
pub(super) fn advice(is_reading: bool) -> &'static str {
    if is_reading {
        "run the same command again: a child process then reads this file first, and it is left \
         out if that fails"
    } else {
        "look at that node, leave it out if it is broken, and run the same command again"
    }
}

fn jammed(records: &[Option<&Record>], waited: Duration) -> Error {
    let describe = |(rank, record): (usize, Option<&Record>)| {
        let Record { activity: Activity::Waiting(call), host, entered, .. } = record? else {
            return None;
        };
        Some(format!("rank {rank} on {host} in {} {entered}", call.name()))
    };
    let calls: Vec<String> = records.iter().copied().enumerate().filter_map(describe).collect();
    Fault::new("all ranks wait, and no collective ends")
        .found(format!("for {:.1} s: {}", waited.as_secs_f64(), calls.join(", ")))
        .advice("look at the network between these nodes, and run the same command again")
        .environment()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(beat: u64, ticks: u64, entered: u64, doing: Activity) -> Record {
        Record {
            beat,
            entered,
            activity: doing,
            ticks,
            work: Work::Training,
            at: 57,
            process: 4242,
            host: "node7".to_string(),
        }
    }

    const TURN: Duration = Duration::from_millis(250);

    fn unknown() -> ReadingOf {
        Arc::new(|_| None)
    }

    #[test]
    fn silence_grows_only_while_file_is_unchanged() {
        let mut seen = RankHistory::default();
        seen.look(Some(record(1, 1, 1, Activity::Working)), TURN);
        assert_eq!((seen.silent, seen.idle), (Duration::ZERO, Duration::ZERO));
        for _ in 0..4 {
            seen.look(Some(record(1, 1, 1, Activity::Working)), TURN);
        }
        // A record that cannot be read is no sign of life, and the last one stays known.
        seen.look(None, TURN);
        assert_eq!((seen.silent, seen.idle), (5 * TURN, 5 * TURN));
        assert_eq!(seen.last.as_ref().map(|r| r.beat), Some(1));
        seen.look(Some(record(2, 1, 1, Activity::Working)), TURN);
        assert_eq!((seen.silent, seen.idle), (Duration::ZERO, 6 * TURN));
        seen.look(Some(record(3, 2, 1, Activity::Working)), TURN);
        assert_eq!(seen.idle, Duration::ZERO);
    }

    #[test]
    fn waiting_is_not_idle_nor_working_waiting() {
        let mut seen = RankHistory::default();
        for beat in 0..9 {
            seen.look(Some(record(beat, 5, 7, Activity::Waiting(Collective::Reduce))), TURN);
        }
        assert_eq!(
            (seen.silent, seen.idle, seen.waiting),
            (Duration::ZERO, Duration::ZERO, 8 * TURN)
        );
        seen.look(Some(record(10, 5, 8, Activity::Waiting(Collective::Reduce))), TURN);
        assert_eq!(seen.waiting, Duration::ZERO);
        // Hours of reading, a tick in every turn.
        for beat in 11..1000 {
            seen.look(Some(record(beat, beat, 8, Activity::Working)), TURN);
        }
        assert_eq!((seen.silent, seen.idle, seen.waiting), Default::default());
    }

    #[test]
    fn message_names_rank_host_step_and_collective() {
        let waits = record(9, 9, 1235, Activity::Waiting(Collective::Reduce));
        let gone = record(3, 3, 1234, Activity::Working);
        let error = missing(
            &[Some(&waits), None, Some(&gone)],
            &[2],
            "no sign of life for 3.0 s",
            &unknown(),
        );
        let text = error.to_string();
        assert_eq!(error.exit_code(), 5);
        for part in ["rank 2 on node7", "process 4242", "step 57", "all-reduce 1235", "3.0 s"] {
            assert!(text.contains(part), "'{part}' is not in: {text}");
        }
        let reads: ReadingOf = Arc::new(|rank| (rank == 1).then(|| "run-7.h5".to_string()));
        let text = missing(&[Some(&waits), Some(&gone)], &[1], "", &reads).to_string();
        assert!(text.contains("step 57, reading run-7.h5") && text.contains("child"), "{text}");
        let works = record(9, 9, 41, Activity::Working);
        let text = missing(&[Some(&works), Some(&gone)], &[1], "", &unknown()).to_string();
        assert!(text.contains("collective 1235"), "{text}");
    }

    /// The monitor of rank 0 of two in a job whose files lie in `folder`.
    fn monitor(folder: &Path) -> Monitor {
        Heartbeats::clear(folder).unwrap();
        Monitor {
            rank: 0,
            size: 2,
            shared: Arc::default(),
            heartbeats: Heartbeats::within(folder, 7),
            pause: Duration::from_millis(20),
            limit: Duration::from_secs(3),
            abort: |_| panic!("aborted"),
            process: 1,
            host: "node1".to_string(),
            beat: 0,
            reading: unknown(),
        }
    }

    /// What rank 0 finds out about rank 1, whose file is written again and again.
    fn diagnosis(
        suspect: &RankHistory,
        mine: Activity,
        other: impl Fn(u64) -> Record + Send,
    ) -> Option<Error> {
        let folder = tempfile::tempdir().unwrap();
        let monitor = monitor(folder.path());
        monitor.heartbeats.post(0, &record(1, 1, 5, mine)).unwrap();
        monitor.heartbeats.post(1, &other(0)).unwrap();
        let over = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            let (heartbeats, over) = (&monitor.heartbeats, &over);
            scope.spawn(move || {
                for beat in 1.. {
                    if over.load(Ordering::Relaxed) {
                        break;
                    }
                    heartbeats.post(1, &other(beat)).unwrap();
                    std::thread::sleep(Duration::from_millis(2));
                }
            });
            let found = monitor.investigate(1, suspect);
            over.store(true, Ordering::Relaxed);
            found
        })
    }

    #[test]
    fn only_a_live_rank_without_progress_is_stuck() {
        let idle = RankHistory { idle: Duration::from_secs(4), ..RankHistory::default() };
        let waits = Activity::Waiting(Collective::Reduce);
        let error = diagnosis(&idle, waits, |beat| record(beat, 3, 4, Activity::Working)).unwrap();
        let text = error.to_string();
        for part in ["missing from all-reduce 5", "no progress for 4.0 s of rank 1 on node7"] {
            assert!(text.contains(part), "'{part}' is not in: {text}");
        }
        assert!(diagnosis(&idle, waits, |beat| record(beat, beat, 4, Activity::Working)).is_none());
        // Silent a moment ago, and alive now.
        let silent = RankHistory { silent: Duration::from_secs(4), ..RankHistory::default() };
        assert!(diagnosis(&silent, waits, |beat| record(beat, 3, 4, Activity::Working)).is_none());
        let error = diagnosis(&silent, waits, |_| record(9, 3, 4, Activity::Working)).unwrap();
        assert!(error.to_string().contains("no sign of life for 4.0 s of rank 1"), "{error}");
        assert!(diagnosis(&silent, waits, |_| record(9, 3, 4, Activity::Left)).is_none());
    }

    #[test]
    fn deadlock_is_reported_waiting_for_work_is_not() {
        let long = RankHistory { waiting: Duration::from_secs(4), ..RankHistory::default() };
        let (waits, gathers) =
            (Activity::Waiting(Collective::Reduce), Activity::Waiting(Collective::Gather));
        let error = diagnosis(&long, waits, |beat| record(beat, 3, 5, gathers)).unwrap();
        let text = error.to_string();
        for part in ["all ranks wait", "rank 0 on node7 in all-reduce 5", "in all-gather 5"] {
            assert!(text.contains(part), "'{part}' is not in: {text}");
        }
        assert!(diagnosis(&long, waits, |beat| record(beat, beat, 5, Activity::Working)).is_none());
    }
}
