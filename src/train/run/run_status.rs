//! Reads the status of a run from its directory, also while the job runs.
//!
//! It can be used on a login node. Nothing is written, and files may be incomplete.

use super::run_folder::{CHECKPOINTS, LOG, METRICS, MODEL, PROVENANCE};
use super::{checkpoint, ending};
use crate::comm::{RankStatus, read_heartbeats};
use crate::error::{Fault, Result};
use crate::metrics::EpochMetrics;
use serde::Serialize;
use serde_json::Value;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Age from which a log or heartbeat no longer shows that a run is active.
const FRESH: Duration = Duration::from_secs(45);

/// Time after the last line of a log in which ranks of an ended start may still send heartbeats.
const RESTARTED: Duration = Duration::from_secs(10);

/// Exit codes of trainings that diverged, were stopped, or were interrupted.
const DIVERGED: u8 = 6;
const STOPPED: u8 = 75;
const INTERRUPTED: u8 = 130;

/// State of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// The model is published.
    Finished,
    /// Ranks sent a heartbeat, or the log grew, a short time ago.
    Running,
    /// Neither; the same command resumes it.
    Stopped,
    /// The weights became unusable: the same command would end in the same way.
    Diverged,
    /// The last start ended with another error.
    Failed,
    /// The folder exists, but no run has begun in it.
    NotBegun,
}

/// Status of a run.
#[derive(Debug, Clone, Serialize)]
pub struct RunStatus {
    pub run: PathBuf,
    pub state: State,
    /// Number of starts; the fields below are of the last one.
    pub starts: usize,
    pub started_unix: Option<u64>,
    pub host: Option<String>,
    pub ranks: Option<u64>,
    pub engine: Option<String>,
    /// Number of the scheduler's job for that start.
    pub job: Option<String>,
    /// Finished epochs, and the largest number of epochs.
    pub epoch: u64,
    pub epochs: Option<u64>,
    pub step: u64,
    pub steps: Option<u64>,
    pub train_nll: Option<f64>,
    pub validation_nll: Option<f64>,
    pub best_validation_nll: Option<f64>,
    pub best_epoch: Option<u64>,
    pub skipped_steps: u64,
    pub checkpoint_step: Option<u64>,
    pub checkpoint_age_s: Option<f64>,
    /// Estimated time for all steps, by the rate since the last start; patience may end it earlier.
    pub seconds_left: Option<f64>,
    pub signs: Vec<RankStatus>,
    /// The last line of the log.
    pub last_line: Option<String>,
    /// Reason for the end of the last start, if it ended with an error or was stopped.
    pub ended: Option<String>,
}

/// Reads the status of a run from its folder.
///
/// # Errors
/// Usage error if there is no such folder; environment error if the metrics cannot be read.
pub fn run_status(run: &Path) -> Result<RunStatus> {
    if !run.is_dir() {
        return Err(Fault::new("no such run")
            .file(run)
            .advice("give the folder of `train -o`")
            .usage());
    }
    let start = last_start(run);
    let started = start.as_ref().map_or(&Value::Null, |(_, start)| start);
    let number = |key: &str| started.get(key).and_then(Value::as_u64);
    let text = |key: &str| started.get(key).and_then(Value::as_str).map(str::to_string);
    let metrics = metrics(run)?;
    let last = metrics.last();
    let signs = read_heartbeats(run);
    let newest = checkpoint::newest_step(&run.join(CHECKPOINTS));
    let last_line = last_line(&run.join(LOG));
    let (state, ended) = activity(run, start.is_some(), last_line.as_deref(), &signs);
    let steps_seen =
        [last.map(|m| m.step), newest, signs.iter().filter_map(|sign| sign.step).max()];
    let step = steps_seen.into_iter().flatten().max().unwrap_or(0);
    let steps = number("steps");
    let held_out = |m: &EpochMetrics| Some((m.validation_nll?, m.epoch));
    let best = metrics.iter().filter_map(held_out).min_by(|a, b| a.0.total_cmp(&b.0));
    let left = (state == State::Running)
        .then(|| seconds_left(step, steps?, number("from_step")?, number("unix_time")?))
        .flatten();
    Ok(RunStatus {
        run: run.to_path_buf(),
        state,
        starts: start.as_ref().map_or(0, |(starts, _)| *starts),
        started_unix: number("unix_time"),
        host: text("host"),
        ranks: number("ranks"),
        engine: text("engine"),
        job: text("job"),
        epoch: last.map_or(0, |m| m.epoch),
        epochs: number("epochs"),
        step,
        steps,
        train_nll: last.map(|m| m.train_nll).filter(|nll| nll.is_finite()),
        validation_nll: last.and_then(|m| m.validation_nll),
        best_validation_nll: best.map(|(nll, _)| nll),
        best_epoch: best.map(|(_, epoch)| epoch),
        skipped_steps: metrics.iter().map(|m| m.skipped_steps).sum(),
        checkpoint_step: newest,
        checkpoint_age_s: newest
            .and_then(|step| age(&run.join(CHECKPOINTS).join(format!("step-{step}")))),
        seconds_left: left,
        signs,
        last_line,
        ended,
    })
}

/// Returns the state of a run, and the reason for the end of its last start.
fn activity(
    run: &Path,
    has_start: bool,
    last_line: Option<&str>,
    signs: &[RankStatus],
) -> (State, Option<String>) {
    if run.join(MODEL).is_file() {
        return (State::Finished, None);
    }
    let log_age = age(&run.join(LOG));
    let fresh = |age: Option<f64>| age.is_some_and(|age| age < FRESH.as_secs_f64());
    let running = signs.iter().any(|sign| fresh(sign.age_s)) || fresh(log_age);
    // Heartbeats long after the end of the log are those of a new start.
    let ended_s = log_age.map(|age| age - RESTARTED.as_secs_f64());
    let restarted = signs.iter().any(|sign| fresh(sign.age_s) && sign.age_s < ended_s);
    let ending = last_line.and_then(ending::read).filter(|_| !restarted);
    let state = match &ending {
        _ if !has_start => State::NotBegun,
        Some(ending) => match ending.code {
            DIVERGED => State::Diverged,
            STOPPED | INTERRUPTED => State::Stopped,
            _ => State::Failed,
        },
        None if running => State::Running,
        None => State::Stopped,
    };
    (state, ending.map(|ending| ending.reason))
}

/// Returns the number of starts, and the record of the last one.
fn last_start(run: &Path) -> Option<(usize, Value)> {
    let text = std::fs::read(run.join(PROVENANCE)).ok()?;
    let entry: Value = serde_json::from_slice(&text).ok()?;
    let starts = entry.get("starts")?.as_array()?;
    Some((starts.len(), starts.last()?.clone()))
}

/// Reads all complete lines; the last one may be torn. None before the first epoch.
fn metrics(run: &Path) -> Result<Vec<EpochMetrics>> {
    let path = run.join(METRICS);
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => {
            let fault = Fault::new("cannot read the metrics of the run").file(&path);
            return Err(fault.found(error).environment());
        }
    };
    let text = String::from_utf8_lossy(&bytes);
    Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
}

/// Returns the last line of the log that is not empty.
fn last_line(log: &Path) -> Option<String> {
    let text = std::fs::read(log).ok()?;
    let text = String::from_utf8_lossy(&text);
    text.lines().rfind(|line| !line.trim().is_empty()).map(str::to_string)
}

/// Returns the seconds since a file changed, by the clock of this machine.
fn age(path: &Path) -> Option<f64> {
    let changed = std::fs::metadata(path).ok()?.modified().ok()?;
    Some(SystemTime::now().duration_since(changed).unwrap_or_default().as_secs_f64())
}

/// Estimates the remaining time from the steps since the start.
fn seconds_left(step: u64, steps: u64, from: u64, since: u64) -> Option<f64> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_secs_f64();
    let (done, took) = (step.checked_sub(from).filter(|done| *done > 0)?, now - since as f64);
    Some((steps.saturating_sub(step)) as f64 * took.max(0.0) / done as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        folder
    }

    const START: &str = r#"{"starts": [{"unix_time": 5, "ranks": 1, "host": "a"},
        {"unix_time": 100, "ranks": 4, "host": "b", "from_step": 6, "steps": 100, "epochs": 20, "job": "17"}]}"#;
    const EPOCH: &str = r#"{"epoch":2,"step":10,"train_nll":1.5,"validation_nll":1.25,"validation_nll_median":1.0,"learning_rate":0.001,"gradient_norm":1,"skipped_steps":1,"events":9,"best":true}"#;

    #[test]
    fn status_is_read_despite_a_torn_last_line() {
        let torn = format!("{EPOCH}\n{{\"epoch\":3,\"st");
        let run = folder(&[
            (PROVENANCE, START),
            (METRICS, &torn),
            (LOG, "one\nstep 11\n"),
            ("checkpoints/step-9/manifest.json", "{}"),
            ("checkpoints/step-12.part/manifest.json", "{}"),
        ]);
        let status = run_status(run.path()).unwrap();
        assert_eq!(status.state, State::Running, "its log is recent");
        assert_eq!((status.starts, status.ranks, status.job.as_deref()), (2, Some(4), Some("17")));
        assert_eq!(
            (status.epoch, status.epochs, status.step, status.steps),
            (2, Some(20), 10, Some(100))
        );
        assert_eq!((status.best_epoch, status.validation_nll), (Some(2), Some(1.25)));
        assert_eq!((status.checkpoint_step, status.skipped_steps), (Some(9), 1));
        assert_eq!(status.last_line.as_deref(), Some("step 11"));
        assert!(status.seconds_left.is_some_and(|s| s > 0.0));
    }

    #[test]
    fn finished_stopped_and_new_runs_are_distinct() {
        let state = |files: &[(&str, &str)]| run_status(folder(files).path()).unwrap().state;
        assert_eq!(state(&[(PROVENANCE, START), (MODEL, "x"), (LOG, "x")]), State::Finished);
        assert_eq!(state(&[(PROVENANCE, START)]), State::Stopped);
        let ended = |line: &str| state(&[(PROVENANCE, START), (LOG, line)]);
        assert_eq!(ended("ended with exit code 75: stopped by SIGUSR1\n"), State::Stopped);
        assert_eq!(ended("ended with exit code 6: training diverged\n"), State::Diverged);
        assert_eq!(ended("ended with exit code 5: disk full\n"), State::Failed);
        assert_eq!(ended("ended with exit code 6: a\nepoch 3: b\n"), State::Running);
        assert_eq!(state(&[]), State::NotBegun);
        assert_eq!(run_status(Path::new("/nowhere/run")).unwrap_err().exit_code(), 2);
    }
}
