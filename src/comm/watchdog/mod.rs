//! Ends the whole job within a deadline if a rank dies, hangs or is stopped, and names that rank.
//!
//! A collective of MPI waits indefinitely for a rank that does not call it. [`Watched`] counts the
//! collectives that a rank enters, and the progress reports ([`Communicator::progress`]) between
//! them. One thread per rank writes both to the file of the rank (`heartbeats`), about twenty times
//! within the deadline, and reads the file of the next rank. Three states end the job with exit
//! code 5:
//!
//! - *silent*: the file no longer changes, so the process or its node is dead or stopped;
//! - *stuck*: the file changes, but the main thread neither waits in a collective nor makes
//!   progress;
//! - *jammed*: every rank waits in a collective, and none of them completes.
//!
//! A rank that reads or computes for hours reports progress all the time, and the job waits for it.
//! Silence is counted in turns of the watching thread, not by the clock, so a job that is suspended
//! as a whole finds no silent rank when it resumes. Watching the next rank in the ring is enough:
//! unless all ranks have stopped, one of the stopped ranks is followed by a running one.

mod alone;
mod findings;
pub(crate) mod heartbeats;
mod monitor;
pub(crate) mod process_monitor;
mod state;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::{Communicator, is_root, sync_result};
use crate::error::{Error, Fault, Result};
use heartbeats::{Activity, Collective, Heartbeats, Work};
use monitor::Monitor;
pub(crate) use state::ReadingOf;
use state::WatchState;

/// Time that rank 0 waits for the others to leave before it removes the files.
const FAREWELL: Duration = Duration::from_secs(2);
/// A communicator whose collectives are watched.
pub(crate) struct Watched<'a> {
    inner: &'a dyn Communicator,
    watch: Option<Watch>,
}

struct Watch {
    shared: Arc<WatchState>,
    thread: Option<JoinHandle<()>>,
    /// `None` without other ranks.
    heartbeats: Option<Heartbeats>,
}

/// Watches the collectives of `comm` from now on, if its ranks are processes and there is a
/// deadline. Rank 0 passes a folder that all ranks see and may write to; the folder of other ranks
/// is ignored.
///
/// # Errors
/// `Environment` if the folder cannot be emptied or the thread cannot be started.
pub(crate) fn watch<'a>(
    comm: &'a dyn Communicator,
    folder: Option<&Path>,
    deadline: Option<Duration>,
) -> Result<Watched<'a>> {
    watch_ranks(comm, folder, deadline, Arc::new(|_| None))
}

/// Watches ranks that read one file after the other, also a single rank; `reading` returns the name
/// of the file.
///
/// # Errors
/// As [`watch`].
pub(crate) fn watch_reading<'a>(
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

/// Removes the files of an earlier job that was killed.
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
    let folder = Path::new(OsStr::from_bytes(folder));
    let heartbeats = Heartbeats::within(folder, u64::from_le_bytes(*job));
    let shared = Arc::new(WatchState::default());
    let mut monitor =
        Monitor::new(comm, Arc::clone(&shared), heartbeats.clone(), deadline, abort, reading);
    // The job can run without a watchdog if one rank cannot write to the folder.
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
    comm.heartbeats_watched(true);
    let watch = Watch { shared, thread: Some(thread), heartbeats: Some(heartbeats) };
    Ok(Watched { inner: comm, watch: Some(watch) })
}

fn unusable(folder: &Path, error: &std::io::Error) -> Error {
    Fault::new("cannot write the heartbeats of the ranks").file(folder).found(error).environment()
}

/// Returns a number that differs from those of earlier jobs in the same folder.
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
    fn heartbeats_watched(&self, watched: bool) {
        self.inner.heartbeats_watched(watched);
    }
    fn aborter(&self) -> Option<fn(u8) -> !> {
        self.inner.aborter()
    }
}

impl Drop for Watched<'_> {
    /// Reports that this rank has left, so that the others do not take its silence for its death.
    /// Rank 0 waits shortly for the others to leave, and removes the files.
    fn drop(&mut self) {
        let Some(watch) = &mut self.watch else { return };
        self.inner.heartbeats_watched(false);
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
        // The next job overwrites the remaining files.
        let _ = heartbeats.remove();
    }
}
