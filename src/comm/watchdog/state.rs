//! State that a rank's main thread shares with its watching thread, and the timing of the latter.

use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// Turns of the watching thread within a deadline, and limits of its pause.
const TURNS: u32 = 20;
const SHORTEST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Share of the deadline without a heartbeat after which a rank is missing; the rest is for the
/// investigation and the end of the job.
pub(super) const SILENT_SHARE: f64 = 0.5;
/// Time that an aborted job may take to end before this process exits on its own.
pub(super) const GRACE: Duration = Duration::from_secs(5);

/// Returns the file that a rank is reading, for messages.
pub(crate) type ReadingOf = Arc<dyn Fn(usize) -> Option<String> + Send + Sync>;

/// State that the main thread shares with its monitor.
#[derive(Debug, Default)]
pub(super) struct WatchState {
    pub(super) entered: AtomicU64,
    /// 0 outside of a collective, otherwise one more than the [`Collective`].
    pub(super) waiting: AtomicUsize,
    pub(super) ticks: AtomicU64,
    pub(super) work: AtomicUsize,
    pub(super) at: AtomicU64,
    pub(super) over: Mutex<bool>,
    pub(super) news: Condvar,
}

impl WatchState {
    /// Waits for `pause`, or until the rank has left; returns whether it has.
    pub(super) fn is_over(&self, pause: Duration) -> bool {
        let over = self.over.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.news.wait_timeout_while(over, pause, |over| !*over);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

/// Returns the pause between two turns of a watching thread.
pub(super) fn pause_of(deadline: Duration) -> Duration {
    (deadline / TURNS).clamp(SHORTEST_PAUSE, LONGEST_PAUSE)
}
