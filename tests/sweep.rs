//! A sweep gives the same results as separate trainings, and reports the status of each.

use crate::support::{Case, arguments, hash, json, program, ranks, run, seed, succeed, text};
use std::ffi::OsString;
use std::path::Path;

const SHORT: &str = "[train]\nepochs = 2\nbatch = 1024\nshards = 4\n";

fn sweep(case: &Case, output: &Path, more: &[&str]) -> Vec<OsString> {
    let mut all = Vec::from(arguments!["sweep", "-c", &case.configuration, "-o", output]);
    all.extend(arguments![
        "--grid",
        "train.learning_rate=1e-3,1e-2",
        "--grid",
        "model.hidden=[8],[8, 4]"
    ]);
    all.extend(arguments!["--threads", "1", "-q"]);
    all.extend(more.iter().map(OsString::from));
    all
}

fn models(output: &Path) -> Vec<String> {
    (0..4).map(|i| hash(&output.join(format!("point-{i}/model.safetensors")))).collect()
}

#[test]
fn sweep_equals_its_trainings_by_ranks_and_array() {
    let case = Case::new(3000, SHORT);
    let (alone, array) = (case.at("alone"), case.at("array"));
    let printed = succeed(&mut program(&sweep(&case, &alone, &[]))).stdout;
    let expected = models(&alone);
    let single = case.at("single");
    let settings = ["--set", "train.learning_rate=1e-2", "--set", "model.hidden=[8]"];
    succeed(&mut program(&case.train(&single, &settings)));
    assert_eq!(hash(&single.join("model.safetensors")), expected[2]);
    let table = text(&alone.join("sweep.tsv"));
    let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split('\t').collect()).collect();
    assert_eq!(rows[0][..3], ["point", "train.learning_rate", "model.hidden"]);
    assert_eq!(rows[2][..4], ["1", "1e-3", "[8, 4]", "finished"]);
    assert_eq!(rows.len(), 5);
    let best = rows.iter().filter(|row| row.iter().any(|cell| cell.ends_with('*'))).count();
    assert_eq!(best, 1, "{table}");
    assert!(printed.contains("sweep.tsv"), "{printed}");
    // Elements of an array in any order, one of them on several ranks and one repeated.
    for point in ["3", "0", "2", "0"] {
        succeed(&mut program(&sweep(&case, &array, &["--point", point])));
    }
    let so_far = text(&array.join("sweep.tsv"));
    assert!(so_far.contains("not-begun"), "{so_far}");
    succeed(&mut ranks(2, &sweep(&case, &array, &["--point", "1"])));
    assert_eq!(models(&array), expected);
    assert_eq!(text(&array.join("sweep.tsv")), table);
}

#[test]
fn invalid_points_and_grids_are_refused_first() {
    let case = Case::new(500, SHORT);
    let output = case.at("sweep");
    let refused = |more: &[&str], part: &str| {
        let outcome = run(&mut program(&sweep(&case, &output, more)));
        assert_eq!(outcome.code, Some(2), "{}", outcome.stderr);
        assert!(outcome.stderr.contains(part), "'{part}' is not in: {}", outcome.stderr);
        assert!(!output.exists());
    };
    refused(&["--point", "4"], "expected --point 0 to 3");
    refused(&["--grid", "train.learning_rate=3"], "two grids");
    refused(&["--grid", "train.epoch=3,4"], "did you mean 'epochs'?");
    refused(&["--grid", "train.batch=512,0"], "train.batch");
    let listed = json(&sweep(&case, &output, &["--dry-run"]));
    assert_eq!(listed["points"].as_array().map(Vec::len), Some(4));
    assert!(!output.exists());
}

#[test]
fn status_is_reported_before_during_and_after() {
    let case = Case::new(3000, SHORT);
    let output = case.at("run");
    let status = || json(&arguments!["status", &output]);
    let none = run(&mut program(&arguments!["status", &output]));
    assert_eq!(none.code, Some(2), "{}", none.stderr);
    let stopped = run(&mut program(&case.train(&output, &["--stop-after", "0s"])));
    assert_eq!(stopped.code, Some(75), "{}", stopped.stderr);
    let report = status();
    assert_eq!((report["step"].as_u64(), report["checkpoint_step"].as_u64()), (Some(1), Some(1)));
    assert_eq!((report["epochs"].as_u64(), report["starts"].as_u64()), (Some(2), Some(1)));
    let mut resumed = program(&case.train(&output, &[]));
    succeed(resumed.env("SLURM_JOB_ID", "4711"));
    let report = status();
    assert_eq!(
        (report["state"].as_str(), report["job"].as_str()),
        (Some("finished"), Some("4711"))
    );
    assert_eq!((report["epoch"].as_u64(), report["starts"].as_u64()), (Some(2), Some(2)));
    let text = succeed(&mut program(&arguments!["status", &output])).stdout;
    assert!(text.contains(": finished") && text.contains("held-out NLL"), "{text}");
}

#[test]
fn diverged_point_is_reported() {
    let case = Case::new(2000, "[train]\nepochs = 3\nbatch = 512\nshards = 2\nskip_limit = 2\n");
    let output = case.at("sweep");
    let grid = "train.learning_rate=1e30,1e-3";
    let command = arguments!["sweep", "-c", &case.configuration, "-o", &output, "--grid", grid];
    let outcome = run(program(&command).args(["--threads", "1"]));
    assert_eq!(outcome.code, Some(4), "{}", outcome.stderr);
    let reason = "point 0: training diverged";
    assert!(outcome.stdout.contains(reason), "{}", outcome.stdout);
    let table = text(&output.join("sweep.tsv"));
    let state = |line: usize| {
        table.lines().nth(line).and_then(|line| line.split('\t').nth(2)).map(str::to_string)
    };
    assert_eq!((state(1).as_deref(), state(2).as_deref()), (Some("diverged"), Some("finished")));
    // In a later call, the status is read from the folder alone.
    let listed = json(&[&command[..], &arguments!["--dry-run"]].concat());
    let points = listed["points"].as_array().expect("points");
    assert_eq!(points[0]["state"], "diverged");
    assert!(points[0]["ended"].to_string().contains("training diverged"), "{listed}");
    assert_eq!((&points[1]["state"], &points[1]["ended"]), (&"finished".into(), &().into()));
    let run_folder = output.join("point-0");
    assert_eq!(json(&arguments!["status", &run_folder])["state"], "diverged");
    let printed = succeed(&mut program(&arguments!["status", &run_folder])).stdout;
    assert!(printed.contains(": diverged") && printed.contains("training diverged"), "{printed}");
}

fn rows(output: &Path) -> Vec<Vec<String>> {
    let table = text(&output.join("sweep.tsv"));
    table.lines().map(|line| line.split('\t').map(String::from).collect()).collect()
}

#[test]
fn run_with_other_settings_has_no_metrics() {
    let case = Case::new(1500, SHORT);
    let output = case.at("sweep");
    let sweep = |grid: &str, more: &[&str]| {
        let command = arguments!["sweep", "-q", "-c", &case.configuration, "-o", &output];
        let grid = arguments!["--grid", grid, "--threads", "1"];
        run(program(&[&command[..], &grid].concat()).args(more))
    };
    let first = sweep("train.learning_rate=1e-3,3e-3", &[]);
    assert_eq!(first.code, Some(0), "{}", first.stderr);
    let state = |line: usize| rows(&output)[line][2].clone();
    assert_eq!((state(1), state(2)), ("finished".to_string(), "finished".to_string()));
    // Point 0 is the same, point 1 is not.
    let other = sweep("train.learning_rate=1e-3,1e-2", &["--point", "0"]);
    assert_eq!(other.code, Some(0), "{}", other.stderr);
    let table = rows(&output);
    assert_eq!(table[2][1..6], ["1e-2", "other-settings", "0", "-", "-"], "{table:?}");
    assert!(table[1][5].ends_with('*'), "{table:?}");
    assert!(other.stdout.contains("point 1: its folder contains a run with other settings"));
    // All other runs have other settings, and calls that would train them fail.
    for more in [&["--point", "1"][..], &[]] {
        let refused = sweep("train.learning_rate=1e-3,1e-2", more);
        assert_ne!(refused.code, Some(0), "{}", refused.stdout);
        assert_eq!(rows(&output)[2][2], "other-settings");
    }
    let base = sweep("train.learning_rate=1e-3,3e-3", &["--set", "train.epochs=3"]);
    assert_ne!(base.code, Some(0), "{}", base.stdout);
    let table = rows(&output);
    let listed = |row: &Vec<String>| row[2] == "other-settings" && !row[5].ends_with('*');
    assert!(table[1..].iter().all(listed), "{table:?}");
    // A model copied from another point is not accepted.
    let model = |point: usize| output.join(format!("point-{point}/model.safetensors"));
    std::fs::copy(model(0), model(1)).expect("a model");
    let listed = sweep("train.learning_rate=1e-3,3e-3", &["--dry-run", "--json"]).stdout;
    let listed: serde_json::Value = serde_json::from_str(&listed).expect("JSON");
    assert_eq!(listed["points"][1]["state"], "other-settings", "{listed}");
    assert_eq!((&listed["points"][0]["state"], &listed["best"]), (&"finished".into(), &0.into()));
}

#[test]
fn run_with_other_data_has_no_metrics() {
    let case = Case::new(1500, SHORT);
    let output = case.at("sweep");
    let sweep = |more: &[&str]| {
        let command = arguments!["sweep", "-q", "-c", &case.configuration, "-o", &output];
        let grid = arguments!["--grid", "train.seed=1,2", "--threads", "1"];
        run(program(&[&command[..], &grid].concat()).args(more))
    };
    assert_eq!(sweep(&["--point", "1"]).code, Some(0));
    let gamma = case.at("gamma.h5");
    std::fs::remove_file(&gamma).expect("the events");
    crate::support::simulated(gamma, taiga_flow::config::Class::Gamma, 1600, seed() + 1);
    assert_eq!(sweep(&["--point", "0"]).code, Some(0));
    let table = rows(&output);
    assert_eq!((table[1][2].as_str(), table[2][2].as_str()), ("finished", "other-data"));
    assert!(table[1][5].ends_with('*') && table[2][5] == "-", "{table:?}");
    assert_ne!(sweep(&[]).code, Some(0));
}

#[test]
fn incomparable_points_have_no_best() {
    let case = Case::new(1500, SHORT);
    let output = case.at("sweep");
    let command = arguments!["sweep", "-q", "-c", &case.configuration, "-o", &output, "--grid"];
    let cuts = arguments!["cuts.size={ min = 60 },{ min = 80 }", "--threads", "1"];
    let printed = succeed(&mut program(&[&command[..], &cuts].concat())).stdout;
    assert!(printed.contains("no point is marked as the best"), "{printed}");
    assert!(!text(&output.join("sweep.tsv")).contains('*'));
}
