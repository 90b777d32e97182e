//! Files that rank 0 writes during a run: metrics per epoch, log, status.

use super::ending::{self, STARTED};
use super::run_folder::{LOG, METRICS, RunFolder};
use crate::error::{Error, Fault, Result};
use crate::metrics::EpochMetrics;
use crate::storage::AppendFile;
use crate::train::plan::TrainingPlan;
use crate::train::progress::ProgressLog;
use crate::train::state::{Progress, TrainState};
use std::time::Duration;

/// The run folder and its growing files.
#[derive(Debug)]
pub(crate) struct Journal {
    pub folder: RunFolder,
    metrics: Option<AppendFile>,
    status: Option<ProgressLog>,
}

impl Journal {
    /// Creates a journal without opening its files.
    pub(crate) fn new(folder: RunFolder) -> Journal {
        Journal { folder, metrics: None, status: None }
    }

    /// Opens the files. Lines of `metrics.jsonl` after the checkpoint are removed, because these
    /// epochs will be repeated.
    pub(crate) fn begin(
        &mut self,
        plan: &TrainingPlan,
        state: &TrainState,
        events: u64,
        steps: u64,
        epochs: u64,
        provenance: &serde_json::Value,
    ) -> Result<()> {
        self.folder.add_provenance(provenance)?;
        let mut metrics = AppendFile::create(&self.folder.file(METRICS), true)?;
        for epoch in &state.progress.history {
            metrics.append_line(&json_line(epoch)?)?;
        }
        self.metrics = Some(metrics);
        let interval = Duration::from_secs(plan.config.run.status_seconds);
        self.status = Some(ProgressLog::new(&self.folder.file(LOG), steps * epochs, interval)?);
        let shards = plan.dealing.shards();
        self.say(&format!(
            "{STARTED}{events} events in {shards} shards, {steps} steps in each of {epochs} epochs"
        ))?;
        let p = &state.progress;
        if p.step == 0 {
            return Ok(());
        }
        self.say(&format!("resumed at epoch {}, step {}", p.epoch + 1, p.step_in_epoch))
    }

    /// Logs a line, in the log file too.
    pub(crate) fn say(&mut self, line: &str) -> Result<()> {
        self.status.as_mut().map_or(Ok(()), |status| status.say(line))
    }

    /// Appends the reason for the end of this start to the log, as its last line.
    pub(crate) fn log_end(&mut self, error: &Error) {
        let line = ending::line(error);
        // An error is already being reported: a second one could only hide it.
        let _ = self.status.as_mut().map(|status| status.log(&line));
    }

    /// Counts a finished step with `events` events.
    pub(crate) fn step(
        &mut self,
        p: &Progress,
        events: u64,
        steps: u64,
        epochs: u64,
    ) -> Result<()> {
        let Some(status) = &mut self.status else { return Ok(()) };
        status.step(p.step, events, |rate| {
            let best = p.best_nll().map_or("–".to_string(), |nll| format!("{nll:.4}"));
            let (epoch, step) = (p.epoch + 1, p.step_in_epoch);
            let sum = if p.best.len() > 1 { " (sum over flows)" } else { "" };
            format!(
                "epoch {epoch}/{epochs}, step {step}/{steps}: best held-out NLL {best}{sum}, {rate:.0} events/s"
            )
        })
    }

    /// Appends the metrics of an epoch, and logs a line.
    pub(crate) fn end_epoch(&mut self, epoch: &EpochMetrics) -> Result<()> {
        if let Some(metrics) = &mut self.metrics {
            metrics.append_line(&json_line(epoch)?)?;
        }
        let held_out = epoch.validation_nll.map_or("–".to_string(), |nll| format!("{nll:.4}"));
        let best = match (epoch.best, epoch.flows.len() > 1 && epoch.stage.is_none()) {
            (false, _) => "",
            (true, false) => ", best",
            (true, true) => ", best so far of at least one flow",
        };
        let loss = match (&epoch.stage, epoch.validation_loss) {
            (Some(stage), Some(loss)) => format!(" ({stage}: held-out loss {loss:.4})"),
            _ => String::new(),
        };
        let sums = match epoch.flows.len() {
            0 | 1 => String::new(),
            flows => format!(" (sums over {flows} flows)"),
        };
        self.say(&format!(
            "epoch {}: training NLL {:.4}, held-out NLL {held_out}{sums}{loss}{best}",
            epoch.epoch, epoch.train_nll
        ))
    }
}

/// Returns the line of an epoch in `metrics.jsonl`.
pub(super) fn json_line(epoch: &EpochMetrics) -> Result<String> {
    serde_json::to_string(epoch).map_err(|e| Fault::new("cannot write metrics").found(e).internal())
}
