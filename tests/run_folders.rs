//! `verify` of a run folder: its records and its model belong to each other.

use crate::support::{Case, arguments, program, run, seed, succeed};
use std::path::{Path, PathBuf};
use std::process::Command;

const INPUT: i32 = 3;
const SHORT: &str = "[train]\nepochs = 4\nbatch = 512\nshards = 2\npatience = 0\n\
                     [run]\ncheckpoint_seconds = 0\n";

fn copied(run: &Path, name: &str) -> PathBuf {
    let copy = run.with_file_name(name);
    let status = Command::new("cp").arg("-a").args([run, &copy]).status();
    assert!(status.expect("cp").success());
    copy
}

/// The files that `verify` finds wrong, and what it says.
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
    // Another seed, and other data.
    succeed(&mut program(&case.train(&case.at("seed"), &["--set", "train.seed=7"])));
    succeed(&mut program(&other.train(&other.at("run"), &[])));
    for (i, foreign) in [case.at("seed"), other.at("run")].iter().enumerate() {
        let copy = copied(&whole, &format!("copy-{i}"));
        std::fs::copy(foreign.join("model.safetensors"), copy.join("model.safetensors"))
            .expect("a model");
        let (names, printed) = wrong(&copy);
        assert_eq!(names, ["model.safetensors"], "{printed}");
        assert!(printed.contains("of another training"), "{printed}");
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
    // A run that was stopped has no model, and may have a torn line.
    let stopped = case.at("stopped");
    let outcome = run(&mut program(&case.train(&stopped, &["--stop-after", "0s"])));
    assert_eq!(outcome.code, Some(75), "{}", outcome.stderr);
    std::fs::write(stopped.join("metrics.jsonl"), "{\"epoch\"").expect("a torn line");
    assert_eq!(wrong(&stopped).0, [""; 0]);
}
