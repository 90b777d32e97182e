//! `status`: prints the state of a run.

use crate::config;
use crate::error::Result;
use crate::train::CONFIG;
use crate::train::run::run_status::{self, RunStatus, State};
use serde::Serialize;
use std::fmt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Time limit for an answer of the scheduler.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Debug, Serialize)]
pub struct JobStatus {
    #[serde(flatten)]
    run_status: RunStatus,
    /// Whether the model is a ratio, so that NLLs are sums over two flows.
    #[serde(skip)]
    has_two_flows: bool,
    /// State and reason of the job of the last start, as the scheduler reports them.
    scheduler: Option<String>,
}

pub(super) fn run(folder: &Path) -> Result<JobStatus> {
    let status = run_status::run_status(folder)?;
    let is_open = status.state != State::Finished;
    let scheduler = status.job.as_deref().filter(|_| is_open).and_then(ask);
    // A run without a readable configuration still has a status.
    let has_two_flows =
        config::load(&folder.join(CONFIG), &[]).is_ok_and(|config| config.model.mode.is_ratio());
    Ok(JobStatus { run_status: status, has_two_flows, scheduler })
}

/// Asks Slurm, if present, with a time limit.
fn ask(job: &str) -> Option<String> {
    let mut query = Command::new("squeue")
        .args(["--noheader", "--format=%T (%r)", "--jobs", job])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let since = Instant::now();
    while query.try_wait().ok()?.is_none() {
        if since.elapsed() > PATIENCE {
            let _ = query.kill();
            let _ = query.wait();
            return None;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let answer = query.wait_with_output().ok()?;
    let text = String::from_utf8_lossy(&answer.stdout).trim().to_string();
    Some(if text.is_empty() { "not in the queue".to_string() } else { text })
}

impl fmt::Display for JobStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write_start(f)?;
        self.write_training(f)?;
        self.write_ranks(f)
    }
}

impl JobStatus {
    /// Writes the state of the run, its job and its last start.
    fn write_start(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let s = &self.run_status;
        writeln!(f, "{}: {}", s.run.display(), state_text(s.state))?;
        if let Some(reason) = &s.ended {
            writeln!(f, "  ended         {reason}")?;
        }
        if let Some(job) = &s.job {
            let state = self.scheduler.as_ref().map_or(String::new(), |state| format!(", {state}"));
            writeln!(f, "  job           {job}{state}")?;
        }
        if let (Some(ranks), Some(host)) = (s.ranks, &s.host) {
            let engine = s.engine.as_deref().unwrap_or("unknown engine");
            let starts = if s.starts > 1 { format!(", start {}", s.starts) } else { String::new() };
            writeln!(f, "  last start    {ranks} rank(s), first on {host}, {engine}{starts}")?;
        }
        Ok(())
    }

    /// Writes progress and losses.
    fn write_training(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let s = &self.run_status;
        let of = |all: Option<u64>| all.map_or(String::new(), |all| format!(" of {all}"));
        if s.step > 0 {
            let (epochs, steps) = (of(s.epochs), of(s.steps));
            writeln!(f, "  progress      epoch {}{epochs}, step {}{steps}", s.epoch, s.step)?;
        }
        if let Some(nll) = s.train_nll {
            let of = if self.has_two_flows { " (sum of the two flows of a ratio)" } else { "" };
            writeln!(f, "  training NLL  {nll:.4}{of}")?;
        }
        if let (Some(now), Some(best), Some(epoch)) =
            (s.validation_nll, s.best_validation_nll, s.best_epoch)
        {
            writeln!(f, "  held-out NLL  {now:.4}, best {best:.4} in epoch {epoch}")?;
        }
        if s.skipped_steps > 0 {
            writeln!(f, "  skipped       {} step(s), for gradients out of range", s.skipped_steps)?;
        }
        Ok(())
    }

    /// Writes the last checkpoint, the remaining time, and the heartbeats.
    fn write_ranks(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let s = &self.run_status;
        let is_open = s.state != State::Finished;
        if let (Some(step), Some(age), true) = (s.checkpoint_step, s.checkpoint_age_s, is_open) {
            writeln!(f, "  checkpoint    step {step}, {} ago", time(age))?;
        }
        if let Some(left) = s.seconds_left {
            writeln!(f, "  time left     {} at most, at the pace so far", time(left))?;
        }
        if !is_open {
            return Ok(());
        }
        for sign in &s.signs {
            let age = sign.age_s.map_or("unknown".to_string(), time);
            writeln!(f, "  rank {:<8} {} on {}, {age} ago", sign.rank, sign.place, sign.host)?;
        }
        if let (Some(line), None) = (&s.last_line, &s.ended) {
            writeln!(f, "  log           {line}")?;
        }
        Ok(())
    }
}

/// Returns the description of a state.
fn state_text(state: State) -> &'static str {
    match state {
        State::Finished => "finished",
        State::Running => "running",
        State::Stopped => "stopped; the same command resumes it",
        State::Diverged => "diverged",
        State::Failed => "failed",
        State::NotBegun => "not begun",
    }
}

/// Formats a duration with a suitable unit.
pub(super) fn time(seconds: f64) -> String {
    match seconds {
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7200.0 => format!("{:.0} min", s / 60.0),
        s if s < 172_800.0 => format!("{:.1} h", s / 3600.0),
        s => format!("{:.1} days", s / 86_400.0),
    }
}
