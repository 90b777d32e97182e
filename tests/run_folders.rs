//! `verify` checks that the records and the model of a run folder belong together.

use crate::support::{Case, arguments, copy, program, run, seed, succeed, tree};
use std::path::{Path, PathBuf};

const INPUT: i32 = 3;
const SHORT: &str = "[train]\nepochs = 4\nbatch = 512\nshards = 2\npatience = 0\n\
                     [run]\ncheckpoint_seconds = 0\n";

fn copied(run: &Path, name: &str) -> PathBuf {
    let target = run.with_file_name(name);
    copy(run, &target);
    target
}

/// Returns the files that `verify` reports, and its output.
fn wrong(run_folder: &Path) -> (Vec<String>, String) {
    let outcome = run(&mut program(&arguments!["verify", run_folder]));
    let lines = outcome.stdout.lines().filter_map(|line| line.strip_prefix("wrong: "));
    let names: Vec<String> = lines.filter_map(|l| l.split(": ").next()).map(String::from).collect();
    let expected = if names.is_empty() { 0 } else { INPUT };
    assert_eq!(outcome.code, Some(expected), "{}{}", outcome.stdout, outcome.stderr);
    (names, outcome.stdout)
}

#[test]
fn model_of_another_training_is_found() {
    let (case, other) = (Case::new(1500, SHORT), Case::new(1600, SHORT));
    let whole = case.at("run");
    succeed(&mut program(&case.train(&whole, &[])));
    assert_eq!(wrong(&whole).0, [""; 0]);
    // Models with a different seed and with different data.
    succeed(&mut program(&case.train(&case.at("seed"), &["--set", "train.seed=7"])));
    succeed(&mut program(&other.train(&other.at("run"), &[])));
    for (i, foreign) in [case.at("seed"), other.at("run")].iter().enumerate() {
        let copy = copied(&whole, &format!("copy-{i}"));
        std::fs::copy(foreign.join("model.safetensors"), copy.join("model.safetensors"))
            .expect("a model");
        let (names, printed) = wrong(&copy);
        assert_eq!(names, ["model.safetensors"], "{printed}");
        assert!(printed.contains("from a different training"), "{printed}");
    }
}

#[test]
fn missing_or_altered_record_is_named() {
    let case = Case::new(1500, SHORT);
    let whole = case.at("run");
    succeed(&mut program(&case.train(&whole, &[])));
    let read = |name: &str| std::fs::read_to_string(whole.join(name)).expect("a record");
    let records = ["config.toml", "metrics.jsonl", "provenance.json"];
    for name in records {
        let copy = copied(&whole, &format!("without-{name}"));
        std::fs::remove_file(copy.join(name)).expect("a record");
        let (names, printed) = wrong(&copy);
        assert_eq!(names, [name], "{printed}");
        assert!(printed.contains("missing"), "{printed}");
    }
    let metrics = read("metrics.jsonl");
    let lines: Vec<&str> = metrics.lines().collect();
    let line = seed() as usize % 3;
    let changed = lines[line].replacen("\"events\":", "\"events\":1", 1);
    assert_ne!(changed, lines[line]);
    let without = |left: usize| {
        let kept = lines.iter().enumerate().filter(|(i, _)| *i != left);
        kept.flat_map(|(_, line)| [*line, "\n"]).collect::<String>()
    };
    let altered = [
        ("config.toml", read("config.toml").replacen("epochs = 4", "epochs = 5", 1)),
        ("config.toml", format!("nonsense = 1\n{}", read("config.toml"))),
        ("metrics.jsonl", metrics.replacen(lines[line], &changed, 1)),
        ("metrics.jsonl", without(line)),
        ("metrics.jsonl", without(3)),
        ("metrics.jsonl", format!("{metrics}{{\"epoch\":5")),
        ("provenance.json", read("provenance.json").replacen("starts", "begins", 1)),
        ("provenance.json", "{\"starts\": []}".to_string()),
    ];
    for (i, (name, text)) in altered.iter().enumerate() {
        assert_ne!(*text, read(name), "{i}");
        let copy = copied(&whole, &format!("altered-{i}"));
        std::fs::write(copy.join(name), text).expect("a record");
        let (names, printed) = wrong(&copy);
        assert_eq!(names, [*name], "{i}: {printed}");
    }
    // A stopped run has no model, and may have an incomplete line.
    let stopped = case.at("stopped");
    let outcome = run(&mut program(&case.train(&stopped, &["--stop-after", "0s"])));
    assert_eq!(outcome.code, Some(75), "{}", outcome.stderr);
    std::fs::write(stopped.join("metrics.jsonl"), "{\"epoch\"").expect("a torn line");
    assert_eq!(wrong(&stopped).0, [""; 0]);
}

/// Replaces the checkpoints of a run by those of `other`.
fn exchange_checkpoints(run_folder: &Path, other: &Path) {
    let own = run_folder.join("checkpoints");
    std::fs::remove_dir_all(&own).expect("checkpoints");
    copy(&other.join("checkpoints"), &own);
}

#[test]
fn checkpoints_of_another_run_are_found() {
    let case = Case::new(1500, SHORT);
    let stopped = |name: &str, more: &[&str]| {
        let path = case.at(name);
        let more = [&["--stop-after", "0s"][..], more].concat();
        assert_eq!(run(&mut program(&case.train(&path, &more))).code, Some(75));
        path
    };
    let finished = case.at("finished");
    succeed(&mut program(&case.train(&finished, &[])));
    let other = format!("train.seed={}", 10 + seed() % 1000);
    let foreign = stopped("foreign", &["--set", &other]);
    for run_folder in [stopped("stopped", &[]), finished] {
        exchange_checkpoints(&run_folder, &foreign);
        let (names, printed) = wrong(&run_folder);
        assert!(names.iter().all(|name| name.starts_with("checkpoints/step-")), "{printed}");
        assert!(!names.is_empty() && printed.contains("from a different run"), "{printed}");
    }
}

#[test]
fn removed_model_of_a_finished_run_is_named() {
    let case = Case::new(1500, SHORT);
    let (whole, model) = (case.at("run"), "model.safetensors");
    succeed(&mut program(&case.train(&whole, &[])));
    let before = std::fs::read(whole.join(model)).expect("a model");
    std::fs::remove_file(whole.join(model)).expect("a model");
    let (names, printed) = wrong(&whole);
    assert!(names == [model] && printed.contains("missing"), "{printed}");
    // The same without the log, which records the end of the training.
    let copy = copied(&whole, "without-log");
    std::fs::remove_file(copy.join("train.log")).expect("a log");
    assert_eq!(wrong(&copy).0, [model]);
    // The same command writes the model again.
    succeed(&mut program(&case.train(&whole, &[])));
    assert_eq!(std::fs::read(whole.join(model)).expect("a model"), before);
    assert_eq!(wrong(&whole).0, [""; 0]);
}

#[test]
fn run_folder_is_refused_as_an_output() {
    let case = Case::new(1500, SHORT);
    let whole = case.at("run");
    succeed(&mut program(&case.train(&whole, &[])));
    let (model, gamma) = (whole.join("model.safetensors"), case.at("gamma.h5"));
    let before = tree(&whole);
    let score = arguments!["score", "-m", &model, "-o", &whole, &gamma];
    for command in [
        &score[..],
        &arguments!["extract", "-o", &whole, &gamma],
        &arguments!["anomalies", "-o", &whole, &gamma],
        &arguments!["evaluate", "-m", &model, "-o", &whole, "--gamma", &gamma, "--hadron", &gamma],
        &arguments!["season", &gamma, "-o", &whole],
        &arguments!["compare", &gamma, &gamma, "-o", &whole],
    ] {
        for more in [&[][..], &["--overwrite"]] {
            let outcome = run(program(command).args(more));
            assert_eq!(outcome.code, Some(2), "{}", outcome.stderr);
            assert!(outcome.stderr.contains("contains a run"), "{}", outcome.stderr);
        }
    }
    assert_eq!(tree(&whole), before);
    // Scores that an earlier version wrote to a run folder are also verified.
    let scores = case.at("scores");
    succeed(&mut program(&arguments!["score", "-m", &model, "-o", &scores, &gamma]));
    copy(&scores.join("."), &whole);
    let (names, printed) = wrong(&whole);
    assert!(
        names.is_empty() && printed.contains("checkpoint") && printed.contains("rows"),
        "{printed}"
    );
    std::fs::remove_file(whole.join("gamma.h5")).expect("scores");
    assert_eq!(wrong(&whole).0, ["gamma.h5"]);
    std::fs::remove_file(whole.join("metrics.jsonl")).expect("metrics");
    assert_eq!(wrong(&whole).0, ["metrics.jsonl", "gamma.h5"]);
}

#[test]
fn lost_provenance_keeps_the_run() {
    let case = Case::new(1500, SHORT);
    let whole = case.at("run");
    succeed(&mut program(&case.train(&whole, &[])));
    let model = std::fs::read(whole.join("model.safetensors")).expect("a model");
    let lose = |path: &Path| {
        std::fs::remove_file(path.join("provenance.json")).expect("the provenance");
    };
    let contents = |path: &Path| {
        let mut all = tree(path);
        all.retain(|name, _| !name.starts_with('.') && name != "report.html");
        all
    };
    let lost = copied(&whole, "lost");
    lose(&lost);
    let before = contents(&lost);
    let nowhere = format!("data.gamma=[{:?}]", case.at("nowhere.h5").display().to_string());
    let refused: [(&[&str], i32); 4] = [
        (&["--set", "train.seed=77"], 2),
        (&["--resume", "never"], 2),
        (&["--set", &nowhere], INPUT),
        (&["--set", &nowhere, "--overwrite"], INPUT),
    ];
    let train = |path: &Path, more: &[&str], code: i32| {
        let outcome = run(&mut program(&case.train(path, more)));
        assert_eq!(outcome.code, Some(code), "{more:?}: {}", outcome.stderr);
        assert!(outcome.stderr.contains("provenance.json is missing"), "{}", outcome.stderr);
    };
    for (more, code) in refused {
        train(&lost, more, code);
        assert_eq!(contents(&lost), before, "{more:?}");
    }
    train(&lost, &[], 0);
    assert_eq!(contents(&lost), before);
    train(&lost, &["--overwrite", "--set", "train.seed=77"], 0);
    assert_eq!(wrong(&lost).0, [""; 0]);
    assert_ne!(std::fs::read(lost.join("model.safetensors")).expect("a model"), model);
    // The same for an unfinished run, which is then resumed.
    let stopped = case.at("stopped");
    assert_eq!(run(&mut program(&case.train(&stopped, &["--stop-after", "0s"]))).code, Some(75));
    lose(&stopped);
    let before = contents(&stopped);
    for (more, code) in refused {
        train(&stopped, more, code);
        assert_eq!(contents(&stopped), before, "{more:?}");
    }
    train(&stopped, &[], 0);
    assert_eq!(std::fs::read(stopped.join("model.safetensors")).expect("a model"), model);
    assert_eq!(wrong(&stopped).0, [""; 0]);
}
