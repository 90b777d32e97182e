//! Checks that the records of a run folder match each other and the model.
//!
//! `config.toml` is compared with the hash in `provenance.json`, the model with the configuration
//! and the files in both, `metrics.jsonl` with the model and the newest checkpoint. The model must
//! exist if `train.log` says that the run has finished. Hashes of a configuration are compared
//! within one version of the program. `[run]` in the configuration, and times and hosts in the
//! provenance are not checked: no other record contains them.

use super::journal::json_line;
use super::publish::training_hash;
use super::run_folder::{LOG, holds_run};
use super::{checkpoint, ending};
use crate::bounded;
use crate::config::{self, Config};
use crate::error::Result;
use crate::metrics::EpochMetrics;
use crate::model::Card;
use crate::train::plan::run_hash;
use crate::train::{CHECKPOINTS, CONFIG, METRICS, MODEL, PROVENANCE};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Largest record that is read [bytes].
const LARGEST_FILE: u64 = 1 << 30;
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Faults by name of the file.
type Wrong = BTreeMap<String, String>;

#[derive(Deserialize)]
struct Provenance {
    starts: Vec<RecordedStart>,
}

/// Configuration and data that a start recorded.
#[derive(Deserialize)]
struct RecordedStart {
    code_version: String,
    /// Hash of the configuration and of the content of the files.
    configuration: String,
    files: Vec<RecordedFile>,
    /// Largest number of epochs.
    epochs: Option<u64>,
    unix_time: Option<u64>,
}

#[derive(Deserialize)]
struct RecordedFile {
    path: Option<PathBuf>,
    blake3: String,
}

/// Hashes of a configuration, to compare run folders with.
#[derive(Debug, Clone)]
pub(crate) struct Configuration {
    /// Hash of everything except `[run]`.
    hash: String,
    /// Hash of the settings that affect the weights, as in model cards.
    training: String,
}

impl Configuration {
    /// Computes both hashes.
    pub(crate) fn new(config: &Config) -> Result<Configuration> {
        Ok(Configuration { hash: config.hash()?, training: training_hash(config)? })
    }

    /// Returns whether the run in a folder, if any, and its model have this configuration; `card`
    /// is that of the model.
    pub(crate) fn is_of(&self, run: &Path, card: Option<&Card>) -> bool {
        let card = card.filter(|card| card.code_version == VERSION);
        if card.is_some_and(|card| card.training.configuration != self.training) {
            return false;
        }
        // A configuration without a run is from a start that ended with an error.
        let path = run.join(CONFIG);
        if !holds_run(run) || card.is_some() && !path.exists() {
            return true;
        }
        let hash = read(&path).ok().and_then(|text| config::parse(&text, &[]).ok()?.hash().ok());
        hash.as_ref() == Some(&self.hash)
    }
}

/// Files that the last start of a run read.
#[derive(Debug)]
pub(crate) struct RecordedFiles {
    /// Time of the start [s since 1970].
    pub started_unix: u64,
    /// Path → hash of the content.
    by_path: BTreeMap<PathBuf, String>,
}

impl RecordedFiles {
    /// Returns a file in both records whose content differs.
    pub(crate) fn other_content(&self, other: &RecordedFiles) -> Option<&Path> {
        let differs = |(path, hash): &(&PathBuf, &String)| {
            other.by_path.get(*path).is_some_and(|known| known != *hash)
        };
        self.by_path.iter().find(differs).map(|(path, _)| path.as_path())
    }
}

/// Returns the files of the last start of a run; `None` if no start is recorded.
pub(crate) fn files(run: &Path) -> Option<RecordedFiles> {
    let start = last_start(&run.join(PROVENANCE)).ok()?;
    let files = start.files.into_iter().filter_map(|file| Some((file.path?, file.blake3)));
    Some(RecordedFiles { started_unix: start.unix_time.unwrap_or(0), by_path: files.collect() })
}

/// Returns the faults of the records of a run folder; `card` is that of its model.
///
/// # Errors
/// `Environment` if the checkpoints cannot be listed.
pub(crate) fn check(run: &Path, card: Option<&Card>) -> Result<Wrong> {
    let mut wrong = Wrong::new();
    let mut mark = |name: &str, why: String| {
        wrong.insert(name.to_string(), why);
    };
    let start = last_start(&run.join(PROVENANCE)).map_err(|why| mark(PROVENANCE, why)).ok();
    let config = known_configuration(&run.join(CONFIG), start.as_ref(), card);
    let config = config.map_err(|why| mark(CONFIG, why)).ok();
    let foreign = card.and_then(|card| foreign(card, config.as_ref(), start.as_ref()));
    // Metrics are not compared with the model of a different training.
    let own = card.filter(|_| foreign.is_none());
    foreign.into_iter().for_each(|why| mark(MODEL, why));
    let hashes = run_hashes(run);
    let history = checkpoint::history(&run.join(CHECKPOINTS), |hash| is_own(&hashes, hash))?;
    let text = read(&run.join(METRICS));
    let metrics = text.and_then(|text| check_metrics(&text, own, history.as_deref()));
    let epochs = metrics.unwrap_or_else(|why| {
        mark(METRICS, why);
        0
    });
    if std::fs::symlink_metadata(run.join(MODEL)).is_err() {
        let most = start.and_then(|start| start.epochs);
        let is_over = most.is_some_and(|most| most > 0 && epochs >= most);
        lost_model(run, is_over).into_iter().for_each(|why| mark(MODEL, why));
    }
    Ok(wrong)
}

/// Returns the hashes of configuration and data that the starts of a run recorded; none if they
/// cannot be read.
pub(crate) fn run_hashes(run: &Path) -> Vec<String> {
    let read = read(&run.join(PROVENANCE)).ok();
    let provenance: Option<Provenance> = read.and_then(|text| serde_json::from_str(&text).ok());
    let starts = provenance.map_or(Vec::new(), |provenance| provenance.starts);
    starts.into_iter().map(|start| start.configuration).collect()
}

/// Returns whether the hash of a checkpoint is one of `hashes`; true if there are none.
pub(crate) fn is_own(hashes: &[String], hash: &str) -> bool {
    hashes.is_empty() || hashes.iter().any(|own| own == hash)
}

/// Returns the fault if the model is missing after the run finished. A run without a log is
/// finished if its metrics have all epochs (`is_over`).
fn lost_model(run: &Path, is_over: bool) -> Option<String> {
    match read(&run.join(LOG)) {
        Ok(log) => ending::has_finished(&log).then(|| format!("missing, and {LOG} says finished")),
        Err(_) => is_over.then(|| format!("missing, and {METRICS} has all epochs")),
    }
}

/// Returns the text of a record, or the reason why it cannot be read.
fn read(path: &Path) -> std::result::Result<String, String> {
    if let Some(fault) = bounded::irregular(path) {
        return Err(fault.what);
    }
    bounded::read_text(path, LARGEST_FILE).map_err(|error| match error.kind() {
        ErrorKind::NotFound => "missing".to_string(),
        _ => error.to_string(),
    })
}

/// Returns the record of the last start.
fn last_start(path: &Path) -> std::result::Result<RecordedStart, String> {
    let provenance: Provenance =
        serde_json::from_str(&read(path)?).map_err(|error| format!("not readable: {error}"))?;
    provenance.starts.into_iter().next_back().ok_or_else(|| "no start is recorded".to_string())
}

/// Returns the configuration if the last start recorded the same one.
fn known_configuration(
    path: &Path,
    start: Option<&RecordedStart>,
    card: Option<&Card>,
) -> std::result::Result<Config, String> {
    let config = config::parse(&read(path)?, &[]).map_err(|error| error.to_string())?;
    let Some(start) = start.filter(|start| start.code_version == VERSION) else {
        return Ok(config);
    };
    // The provenance does not list files of anomalies; the card of a model does.
    let of_start = start.files.iter().map(|file| file.blake3.as_str()).collect();
    let of_card = card.map(|card| card.training.data.iter().map(|f| f.blake3.as_str()).collect());
    let mut files: Vec<Vec<&str>> = [of_start].into_iter().chain(of_card).collect();
    if card.is_none() && config.anomalies.as_ref().is_some_and(|a| !a.files.is_empty()) {
        files.clear();
    }
    let is_recorded =
        |files: &Vec<&str>| run_hash(&config, files).is_ok_and(|hash| hash == start.configuration);
    if files.is_empty() || files.iter().any(is_recorded) {
        return Ok(config);
    }
    Err(format!("not the configuration that {PROVENANCE} records"))
}

/// Returns the reason if a model is from a different run.
fn foreign(card: &Card, config: Option<&Config>, start: Option<&RecordedStart>) -> Option<String> {
    let training = &card.training;
    let hash = config.filter(|_| card.code_version == VERSION).map(training_hash);
    if hash.is_some_and(|hash| hash.is_ok_and(|hash| hash != training.configuration)) {
        return Some(format!(
            "from a different training: the configuration in its card differs from {CONFIG}"
        ));
    }
    let recorded = start.map_or(&[][..], |start| &start.files);
    let is_same = training.data.len() >= recorded.len()
        && recorded.iter().zip(&training.data).all(|(own, other)| own.blake3 == other.blake3);
    (!is_same).then(|| {
        format!("from a different training: the files in its card differ from {PROVENANCE}")
    })
}

/// Checks the lines of the metrics: every epoch once, equal to the newest checkpoint, and as many
/// as the model was trained for. A torn last line is allowed without a model, because a killed
/// training leaves one. Returns the number of epochs.
fn check_metrics(
    text: &str,
    card: Option<&Card>,
    history: Option<&[EpochMetrics]>,
) -> std::result::Result<u64, String> {
    let whole = text.rfind('\n').map_or("", |end| &text[..=end]);
    if card.is_some() && whole.len() < text.len() {
        return Err("the last line is torn".to_string());
    }
    let mut last = None;
    for (i, line) in whole.lines().enumerate() {
        let row = i + 1;
        let epoch: EpochMetrics =
            serde_json::from_str(line).map_err(|error| format!("line {row}: {error}"))?;
        let known = history.and_then(|history| history.get(i)).map(json_line);
        if epoch.epoch != row as u64 || known.is_some_and(|known| known.is_ok_and(|k| k != line)) {
            return Err(format!("line {row} was changed after it was written"));
        }
        last = Some(epoch);
    }
    let epochs = last.as_ref().map_or(0, |epoch| epoch.epoch);
    let fewest = history.map_or(0, |history| history.len() as u64);
    let expected = card.map_or(epochs.max(fewest), |card| card.training.epochs);
    if epochs != expected {
        return Err(format!("expected {expected} epochs, found {epochs}"));
    }
    match (last, card) {
        (Some(last), Some(card)) if last.step != card.training.steps => {
            Err(format!("expected {} steps, found {}", card.training.steps, last.step))
        }
        _ => Ok(epochs),
    }
}
