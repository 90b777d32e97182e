//! Options and result of a training.

use super::run::run_folder::Existing;
use crate::config::Config;
use crate::dataset::event_store::RowCounts;
use crate::statistics::thresholds::threshold::limit_text;
use serde::Serialize;
use std::path::PathBuf;
use std::time::Duration;

/// Options of `train`.
#[derive(Debug, Clone)]
pub struct Options {
    pub config: Config,
    pub output: PathBuf,
    pub existing: Existing,
    pub allow_engine_change: bool,
    pub stop_after: Option<Duration>,
    pub dry_run: bool,
    /// Whether to train on samples that are too small to learn from.
    pub allow_few_events: bool,
    /// Command line, for the provenance.
    pub command: String,
    /// Time to wait for another job that writes the same run.
    pub lock_timeout: Duration,
}

/// Result of a training.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    pub run: PathBuf,
    pub model: PathBuf,
    pub model_blake3: String,
    pub rows: RowCounts,
    pub epochs: u64,
    pub best_epoch: u64,
    /// Sum over the flows.
    pub validation_nll: Option<f64>,
    #[serde(skip)]
    pub flows: usize,
    pub threshold: Option<f64>,
    /// Held-out hadrons that pass it, if their number limits the choice.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limited_by_hadrons: Option<u64>,
    pub already_finished: bool,
}

impl std::fmt::Display for Summary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = if self.already_finished { "finished before" } else { "finished" };
        writeln!(f, "{state}: {} epochs, best {}", self.epochs, self.best_epoch)?;
        if let Some(nll) = self.validation_nll {
            let sum = match self.flows {
                0 | 1 => String::new(),
                flows => format!(", the sum over {flows} flows"),
            };
            writeln!(f, "held-out NLL: {nll:.4}{sum}")?;
        }
        if let Some(threshold) = self.threshold {
            let limit = self.limited_by_hadrons.map_or(String::new(), |hadrons| {
                format!(" ({}: a higher one may be better)", limit_text(hadrons))
            });
            writeln!(f, "threshold:    {threshold:.4}{limit}")?;
        }
        writeln!(f, "model:        {}", self.model.display())?;
        write!(f, "blake3:       {}", self.model_blake3)
    }
}
