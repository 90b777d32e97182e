//! A small training with its input folder, and readers of its results.

use super::{configuration, folder, hash, seed, simulated};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use taiga_flow::comm::{StopFlag, Threads};
use taiga_flow::config::{self, Class};
use taiga_flow::train::{self, Existing, Options};

/// A training that writes a checkpoint after every step; its 4 shards allow up to 4 ranks.
pub const EVERY_STEP: &str = "[train]\nepochs = 8\nbatch = 512\nshards = 4\nlearning_rate = 1e-2\npatience = 0\n\
                          [run]\ncheckpoint_seconds = 0\n";
/// The same training with practically unlimited epochs, for tests that stop it.
pub const LONG: &str = "[train]\nepochs = 100000\nbatch = 512\nshards = 4\nlearning_rate = 1e-2\npatience = 0\n\
                    [run]\ncheckpoint_seconds = 0\n";

/// A training of some seconds. Dropping it removes its files.
pub struct Case {
    pub folder: tempfile::TempDir,
    pub configuration: PathBuf,
}

impl Case {
    pub fn new(events: u64, more: &str) -> Case {
        let folder = folder();
        let gamma = simulated(folder.path().join("gamma.h5"), Class::Gamma, events, seed());
        let configuration = configuration(folder.path(), &gamma, more);
        Case { folder, configuration }
    }

    pub fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn train(&self, output: &Path, more: &[&str]) -> Vec<OsString> {
        let mut all =
            Vec::from(super::arguments!["train", "-c", &self.configuration, "-o", output]);
        if !more.contains(&"--threads") {
            all.extend(super::arguments!["--threads", "1"]);
        }
        all.extend(more.iter().map(OsString::from));
        all
    }
}

/// Toy events of both classes.
pub struct TwoClasses {
    pub folder: tempfile::TempDir,
    /// Files of gammas and of hadrons.
    pub events: [PathBuf; 2],
}

impl TwoClasses {
    /// Simulates so many events of each class.
    pub fn new(events: u64) -> TwoClasses {
        let folder = folder();
        let make =
            |name: &str, class, seed| simulated(folder.path().join(name), class, events, seed);
        let events =
            [make("gamma.h5", Class::Gamma, seed()), make("hadron.h5", Class::Hadron, seed() + 1)];
        TwoClasses { folder, events }
    }

    pub fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes the configuration `NAME.toml`: section `[data]`, then `more`.
    pub fn write_configuration(&self, name: &str, data: &str, more: &str) -> PathBuf {
        let path = self.at(&format!("{name}.toml"));
        let [gamma, hadron] = self.events.each_ref().map(|p| p.display().to_string());
        let text = format!("[data]\ngamma = [{gamma:?}]\nhadron = [{hadron:?}]\n{data}\n{more}");
        std::fs::write(&path, text).expect("a configuration");
        path
    }

    /// Trains to the run folder `name` on ranks that are threads, and returns the model file.
    pub fn train(&self, configuration: &Path, set: &[&str], name: &str, ranks: usize) -> PathBuf {
        let output = self.at(name);
        let set: Vec<String> = set.iter().map(|s| (*s).to_string()).collect();
        train_on_threads(&training(configuration, &set, &output), ranks);
        output.join("model.safetensors")
    }
}

/// Returns the values that must be equal between runs: model hash and metrics text.
pub fn result(run: &Path) -> (String, String) {
    let metrics = std::fs::read_to_string(run.join("metrics.jsonl")).expect("metrics");
    (hash(&run.join("model.safetensors")), metrics)
}

/// Returns whether a path has the given extension.
pub fn has_extension(name: &str, extension: &str) -> bool {
    Path::new(name).extension().is_some_and(|found| found == extension)
}

/// Returns the text of a file, or an empty text if the file does not exist.
pub fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// Counts the ledger lines of a scoring per output.
pub fn ledger(output: &Path) -> BTreeMap<String, usize> {
    let mut lines = BTreeMap::new();
    for entry in std::fs::read_dir(output.join("ledger")).expect("a ledger").flatten() {
        let path = entry.path();
        if !has_extension(&path.to_string_lossy(), "jsonl") {
            continue;
        }
        for line in std::fs::read_to_string(path).expect("lines").lines() {
            let entry: serde_json::Value = serde_json::from_str(line).expect("JSON");
            *lines.entry(entry["output"].as_str().expect("a name").to_string()).or_default() += 1;
        }
    }
    lines
}

/// Returns the options of a training of `configuration` with some keys set, on one thread per
/// rank.
pub fn training(configuration: &Path, set: &[String], output: &Path) -> Options {
    let mut config = config::load(configuration, set).expect("a configuration");
    config.run.threads = 1;
    Options {
        config,
        output: output.to_path_buf(),
        existing: Existing::Refuse,
        allow_engine_change: false,
        stop_after: None,
        dry_run: false,
        allow_few_events: false,
        command: String::new(),
        lock_timeout: std::time::Duration::from_secs(30),
    }
}

/// Trains on ranks that are threads of this process.
pub fn train_on_threads(options: &Options, ranks: usize) {
    for outcome in Threads::run(ranks, |comm| train::run(comm, options, &StopFlag::default())) {
        outcome.expect("a training").expect("a summary");
    }
}
