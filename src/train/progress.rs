//! Reports the progress of a run: a bar on a terminal, otherwise a line per interval, and the same
//! lines in `train.log`. Rank 0 only.

use crate::error::Result;
use crate::storage::AppendFile;
use indicatif::{ProgressBar, ProgressStyle};
use std::io::IsTerminal;
use std::path::Path;
use std::time::{Duration, Instant};

/// Progress bar and log file of a run.
#[derive(Debug)]
pub(crate) struct ProgressLog {
    log: AppendFile,
    bar: Option<ProgressBar>,
    interval: Duration,
    last: Instant,
    events: u64,
}

impl ProgressLog {
    /// Opens the log; the bar is shown on a terminal only.
    pub(crate) fn new(log: &Path, steps: u64, interval: Duration) -> Result<ProgressLog> {
        let bar =
            (std::io::stderr().is_terminal() && log::log_enabled!(log::Level::Info)).then(|| {
                let style =
                    ProgressStyle::with_template("{wide_bar} {pos}/{len} steps, {eta} left  {msg}");
                ProgressBar::new(steps)
                    .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
            });
        Ok(ProgressLog {
            log: AppendFile::resume(log)?,
            bar,
            interval,
            last: Instant::now(),
            events: 0,
        })
    }

    /// Logs a line immediately, in the log file too.
    pub(crate) fn say(&mut self, line: &str) -> Result<()> {
        match &self.bar {
            Some(bar) => bar.suspend(|| log::info!("{line}")),
            None => log::info!("{line}"),
        }
        self.log.append_line(line)
    }

    /// Writes a line to the log file only.
    pub(crate) fn log(&mut self, line: &str) -> Result<()> {
        self.log.append_line(line)
    }

    /// Counts a step with `events` events; logs `line` of the rate if the interval has passed.
    pub(crate) fn step(
        &mut self,
        step: u64,
        events: u64,
        line: impl Fn(f64) -> String,
    ) -> Result<()> {
        self.events += events;
        if let Some(bar) = &self.bar {
            bar.set_position(step);
        }
        let elapsed = self.last.elapsed();
        if elapsed < self.interval {
            return Ok(());
        }
        let rate = self.events as f64 / elapsed.as_secs_f64();
        (self.last, self.events) = (Instant::now(), 0);
        let line = line(rate);
        if let Some(bar) = &self.bar {
            bar.set_message(line.clone());
            return self.log.append_line(&line);
        }
        self.say(&line)
    }
}

impl Drop for ProgressLog {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
