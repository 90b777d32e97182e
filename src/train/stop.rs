//! Reasons to end a training early: stop requests, time limits, divergence.

use super::state::TrainState;
use crate::comm::StopReason;
use crate::error::{Error, Fault};
use std::time::{Duration, Instant, SystemTime};

/// Reason to stop before the end of the training.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    Signal(StopReason),
    Time,
    JobEnd,
}

impl Stop {
    /// Returns the number of a time limit in a sum over ranks; only rank 0 reports one.
    pub(crate) fn to_word(limit: Option<Stop>) -> i64 {
        match limit {
            None | Some(Stop::Signal(_)) => 0,
            Some(Stop::Time) => 1,
            Some(Stop::JobEnd) => 2,
        }
    }

    /// Returns the time limit of a number of [`Stop::to_word`].
    pub(crate) fn from_word(word: i64) -> Option<Stop> {
        match word {
            0 => None,
            1 => Some(Stop::Time),
            _ => Some(Stop::JobEnd),
        }
    }
}

/// Returns the earlier of `stop_after` and the scheduler's end of the job minus a margin.
pub(crate) fn deadline(
    stop_after: Option<Duration>,
    job_end: Option<SystemTime>,
    margin_seconds: u64,
) -> Option<(Instant, Stop)> {
    let now = Instant::now();
    let left = job_end.map(|end| {
        // An end in the past leaves no time.
        let left = end.duration_since(SystemTime::now()).unwrap_or(Duration::ZERO);
        left.saturating_sub(Duration::from_secs(margin_seconds))
    });
    let asked = stop_after.map(|after| (now + after, Stop::Time));
    let of_job = left.map(|left| (now + left, Stop::JobEnd));
    asked.into_iter().chain(of_job).min_by_key(|(end, _)| *end)
}

/// Returns the error of a stopped training.
pub(crate) fn stopped(reason: Stop, state: &TrainState) -> Error {
    let why = match reason {
        Stop::Signal(StopReason::Interrupt) => return Error::Interrupted,
        Stop::Signal(signal) => signal.to_string(),
        Stop::Time => "--stop-after".to_string(),
        Stop::JobEnd => "the end of the job".to_string(),
    };
    let p = &state.progress;
    Error::Stopped(Box::new(
        Fault::new(format!(
            "stopped by {why} at epoch {}, step {}, after a checkpoint",
            p.epoch + 1,
            p.step_in_epoch
        ))
        .advice("run the same command again to resume"),
    ))
}

/// Returns the error of a diverged training.
pub(crate) fn diverged(skipped: u64, offending: &str) -> Error {
    Error::Diverged(Box::new(
        Fault::new("training diverged")
            .found(format!(
                "{skipped} steps in a row with gradients that are too large or not finite; {offending}"
            ))
            .advice("lower train.learning_rate or train.clip_norm, and check the data with `taiga-flow check`"),
    ))
}
