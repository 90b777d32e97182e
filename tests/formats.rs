//! Files written by version 0.1.0 of the program stay readable, and mean the same.
//!
//! `tests/data/version-0.1.0` has a model, a stopped run, scores and an extraction. Their inputs
//! are simulated again here: the same seed gives the same bytes.

use crate::support::{arguments, copy, folder, hash, json, program, succeed};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

fn stored(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/version-0.1.0").join(name)
}

/// Copies a stored folder, so that a command may write into it.
fn copied(name: &str, folder: &Path) -> PathBuf {
    let target = folder.join(name);
    copy(&stored(name), &target);
    target
}

/// Writes an input of the stored files again.
fn simulate(path: &Path, options: &[&str]) {
    std::fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
    let options: Vec<OsString> = options.iter().map(OsString::from).collect();
    let command = arguments!["simulate", "-o", path];
    succeed(&mut program(&[&command[..], &options[..]].concat()));
}

/// Returns a folder with the scored input `events/hadron.h5`.
fn scored_input() -> (TempDir, PathBuf) {
    let folder = folder();
    let events = folder.path().join("events");
    let options = ["--class", "hadron", "--events", "50", "--seed", "7"];
    simulate(&events.join("hadron.h5"), &options);
    (folder, events)
}

#[test]
fn stored_model_gives_the_stored_scores() {
    let (folder, events) = scored_input();
    let output = folder.path().join("scores");
    let model = stored("model.safetensors");
    succeed(&mut program(&arguments!["score", "-m", &model, &events, "-o", &output]));
    let scores = |folder: &Path| {
        let file = hdf5::File::open(folder.join("hadron.h5")).expect("a score file");
        let group = file.group("scores").expect("scores");
        let column = |name: &str| group.dataset(name).expect("a column").read_raw::<f32>();
        ["log_prob", "score"].map(|name| column(name).expect("values"))
    };
    assert_eq!(scores(&output), scores(&stored("scores")));
}

#[test]
fn stored_scores_are_kept_and_verified() {
    let (folder, events) = scored_input();
    let output = copied("scores", folder.path());
    let before = hash(&output.join("hadron.h5"));
    let model = stored("model.safetensors");
    let scored = succeed(&mut program(&arguments!["score", "-m", &model, &events, "-o", &output]));
    assert!(scored.stderr.contains("hadron.h5 is finished already"), "{}", scored.stderr);
    assert_eq!(hash(&output.join("hadron.h5")), before);
    succeed(&mut program(&arguments!["verify", &output]));
}

#[test]
fn stored_checkpoint_resumes_to_the_same_model() {
    let folder = folder();
    let options = ["--class", "gamma", "--events", "1200", "--seed", "5"];
    simulate(&folder.path().join("gamma.h5"), &options);
    let config = stored("config.toml");
    let train = |run: &str| {
        let options = ["--set", "train.epochs=4", "--set", "train.patience=0"].map(OsString::from);
        let command = arguments!["train", "-c", &config, "-o", run];
        let mut program = program(&[&command[..], &options[..]].concat());
        // The stored configuration has the input's name without a folder.
        let log = succeed(program.current_dir(folder.path())).stderr;
        (log, hash(&folder.path().join(run).join("model.safetensors")))
    };
    copied("stopped", folder.path());
    let (log, resumed) = train("stopped");
    assert!(log.contains("step 1"), "{log}");
    assert_eq!(resumed, train("whole").1);
}

#[test]
fn stored_extraction_is_kept_and_scored() {
    let folder = folder();
    let images = folder.path().join("images");
    let options = ["--level", "images", "--class", "gamma", "--events", "6", "--seed", "3"];
    simulate(&images.join("gamma.h5"), &options);
    let extracted = copied("extracted", folder.path());
    let before = hash(&extracted.join("gamma.h5"));
    succeed(&mut program(&arguments!["extract", "-o", &extracted, &images]));
    assert_eq!(hash(&extracted.join("gamma.h5")), before);
    succeed(&mut program(&arguments!["verify", &extracted]));
    let (model, scores) = (stored("model.safetensors"), folder.path().join("scores"));
    let scored = json(&arguments!["--json", "score", "-m", &model, &extracted, "-o", &scores]);
    assert_eq!(scored["rows"], 6, "{scored}");
}
