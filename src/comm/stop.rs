//! Requests to stop, by signals.
//!
//! Slurm sends SIGUSR1 or SIGUSR2 some minutes before the time limit, and SIGTERM at the limit or
//! at preemption. The keyboard sends SIGINT, a closed terminal SIGHUP (unless it was ignored at the
//! start, as by `nohup`).
//!
//! This module only records a request. The loops check for it and stop when their state is
//! complete. A second SIGINT ends the process at once with exit code 130; a second SIGTERM or
//! SIGHUP takes the default action, also while the process waits for a disk. Ranks may get a signal
//! at different moments. So a loop over ranks must use [`StopFlag::agreed`], or add
//! [`StopFlag::counts`] to a sum that it makes anyway.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::Signals;
use signal_hook::{flag, low_level};

use crate::error::{Error, Fault, Result};

/// A launcher and a scheduler may both send the first signal: only one that comes later than this
/// is a second one.
const ONE_SIGNAL: Duration = Duration::from_secs(1);

/// Reasons to stop. If there are several at once, the first listed one counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopReason {
    Interrupt,
    Terminate,
    Hangup,
    User1,
    User2,
}

impl StopReason {
    pub(crate) const ALL: [StopReason; 5] = [
        StopReason::Interrupt,
        StopReason::Terminate,
        StopReason::Hangup,
        StopReason::User1,
        StopReason::User2,
    ];

    /// Returns the reason of any rank, from the sum of [`StopFlag::counts`] over ranks.
    pub(crate) fn from_counts(summed: &[i64]) -> Option<StopReason> {
        Self::ALL.into_iter().zip(summed).find(|(_, count)| **count != 0).map(|(reason, _)| reason)
    }

    fn signal(self) -> i32 {
        match self {
            StopReason::Interrupt => SIGINT,
            StopReason::Terminate => SIGTERM,
            StopReason::Hangup => SIGHUP,
            StopReason::User1 => SIGUSR1,
            StopReason::User2 => SIGUSR2,
        }
    }
}

impl fmt::Display for StopReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            StopReason::Interrupt => "SIGINT",
            StopReason::Terminate => "SIGTERM",
            StopReason::Hangup => "SIGHUP",
            StopReason::User1 => "SIGUSR1",
            StopReason::User2 => "SIGUSR2",
        })
    }
}

/// Stop requests that this process has received. Clones share their state.
#[derive(Debug, Clone, Default)]
pub struct StopFlag {
    raised: [Arc<AtomicBool>; StopReason::ALL.len()],
}

impl StopFlag {
    /// Records the signals from now on, instead of ending the process: for commands that check for
    /// them regularly.
    ///
    /// # Errors
    /// `Environment` if a handler cannot be installed.
    pub(crate) fn on_signals() -> Result<StopFlag> {
        let stop = StopFlag::default();
        let ignored = is_ignored(SIGHUP);
        let is_handled = |reason: &StopReason| !(ignored && *reason == StopReason::Hangup);
        for reason in StopReason::ALL.into_iter().filter(is_handled) {
            let raised = &stop.raised[reason as usize];
            watch(reason, raised).map_err(|error| cannot_watch(reason, &error))?;
        }
        let ending = [StopReason::Interrupt, StopReason::Terminate, StopReason::Hangup];
        for reason in ending.into_iter().filter(is_handled) {
            end_at_second(reason).map_err(|error| cannot_watch(reason, &error))?;
        }
        Ok(stop)
    }

    /// Requests a stop as a signal would.
    #[cfg(test)]
    pub(crate) fn raise(&self, reason: StopReason) {
        self.raised[reason as usize].store(true, Ordering::SeqCst);
    }

    /// Returns the reason requested of this rank; other ranks may not know it yet.
    pub(crate) fn requested(&self) -> Option<StopReason> {
        StopReason::from_counts(&self.counts())
    }

    /// Returns an error if this rank was requested to stop: for loops whose finished outputs
    /// remain, and whose other ranks end with this one.
    ///
    /// # Errors
    /// `Interrupted` after SIGINT, `Stopped` after any other signal.
    pub(crate) fn refuse_if_requested(&self) -> Result<()> {
        match self.requested() {
            None => Ok(()),
            Some(StopReason::Interrupt) => Err(Error::Interrupted),
            Some(reason) => Err(Error::Stopped(Box::new(
                Fault::new(format!("stopped by {reason}"))
                    .advice("run the same command again to resume: finished outputs are kept"),
            ))),
        }
    }

    /// Returns one word per [`StopReason`], 1 if it was raised on this rank.
    pub(crate) fn counts(&self) -> [i64; StopReason::ALL.len()] {
        self.raised.each_ref().map(|raised| i64::from(raised.load(Ordering::SeqCst)))
    }
}

/// Makes a write beyond the limit of file sizes (`ulimit -f`) an ordinary error, instead of a
/// signal that ends the process.
pub fn survive_file_size_limit() {
    // If this fails, such a write ends the process, as without the call.
    let _ = flag::register(libc::SIGXFSZ, Arc::new(AtomicBool::new(false)));
}

fn watch(reason: StopReason, raised: &Arc<AtomicBool>) -> std::io::Result<()> {
    if reason == StopReason::Interrupt {
        // Actions run in the order of their registration: the first SIGINT finds the flag down here
        // and raises it below, the second one ends the process.
        flag::register_conditional_shutdown(reason.signal(), 130, Arc::clone(raised))?;
    }
    flag::register(reason.signal(), Arc::clone(raised)).map(|_| ())
}

/// Starts a thread that logs the first signal and ends the process at a second one: the main thread
/// may be waiting for a disk.
fn end_at_second(reason: StopReason) -> std::io::Result<()> {
    let signals = Signals::new([reason.signal()])?;
    let thread = std::thread::Builder::new().name("signals".to_string());
    thread.spawn(move || handle_signals(reason, signals)).map(|_| ())
}

/// Logs the first signal, and takes the default action of a second one.
fn handle_signals(reason: StopReason, mut signals: Signals) {
    let mut first: Option<Instant> = None;
    for signal in signals.forever() {
        match first {
            None => log::warn!(
                "{reason} received: stopping as soon as the state is complete; a second one ends the process at once"
            ),
            Some(first) if first.elapsed() < ONE_SIGNAL => {}
            Some(_) => {
                log::warn!("a second {reason} received: ending at once");
                let _ = low_level::emulate_default_handler(signal);
            }
        }
        first.get_or_insert_with(Instant::now);
    }
}

/// Returns whether the process ignores a signal, as one started by `nohup` ignores SIGHUP; `false`
/// if the system does not show it.
fn is_ignored(signal: i32) -> bool {
    let Ok(status) = std::fs::read_to_string("/proc/self/status") else { return false };
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}

fn cannot_watch(reason: StopReason, error: &std::io::Error) -> Error {
    Fault::new(format!("cannot watch for {reason}: {error}")).environment()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interrupt_takes_precedence_over_signal() {
        let stop = StopFlag::on_signals().unwrap();
        assert_eq!(stop.requested(), None);
        signal_hook::low_level::raise(SIGUSR2).unwrap();
        assert_eq!(stop.requested(), Some(StopReason::User2));
        stop.raise(StopReason::Interrupt);
        assert_eq!(stop.clone().requested(), Some(StopReason::Interrupt));
    }

    #[test]
    fn reasons_have_the_order_of_their_counts() {
        for (index, reason) in StopReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index);
        }
    }
}
