//! An input file is opened few times, however many checks look at it.

use crate::support::{arguments, folder, program, run, seed, simulated, skip, trained};
use std::ffi::OsString;
use std::path::Path;
use std::process::Command;
use taiga_flow::config::Class;

/// Most times that one process opens an input.
const MOST: usize = 3;

/// Runs the program under strace and counts its openings of a file; `None` without strace.
fn opens(arguments: &[OsString], input: &Path, log: &Path) -> Option<usize> {
    if Command::new("strace").arg("-V").output().is_err() {
        skip("strace is not installed");
        return None;
    }
    let program = program(arguments);
    let mut traced = Command::new("strace");
    traced.args(["-f", "-e", "trace=open,openat", "-o"]).arg(log);
    traced.arg(program.get_program()).args(program.get_args()).env_remove("TAIGA_FLOW_LOG");
    let outcome = run(&mut traced);
    if outcome.stderr.contains("ptrace") {
        skip("strace may not trace processes here");
        return None;
    }
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    let name = format!("\"{}\"", input.display());
    let log = std::fs::read_to_string(log).expect("a log");
    Some(log.lines().filter(|line| line.contains(&name) && !line.contains("ENOENT")).count())
}

#[test]
fn scored_file_opened_at_most_three_times() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    // Two files: one of a single chunk, one of several.
    for (name, events) in [("short.h5", 500), ("long.h5", 70_000)] {
        let input = simulated(at(name), Class::Gamma, events, seed());
        let output = at(&format!("scores-{name}"));
        let score = arguments!["score", "-q", "-m", &trained().model, "-o", &output, &input];
        // The second start compares the finished output.
        for start in ["first", "second"] {
            let Some(count) = opens(&score, &input, &at("log")) else { return };
            println!("{name}, {start} start: {count} openings");
            assert!((1..=MOST).contains(&count), "{name}, {start} start: {count} openings");
        }
    }
}

#[test]
fn converted_table_opened_at_most_three_times() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    let input = at("table.csv");
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/taiga-mc.csv");
    std::fs::copy(data, &input).expect("a table");
    let convert = arguments!["convert", "-q", &input, "-o", at("table.h5")];
    let Some(count) = opens(&convert, &input, &at("log")) else { return };
    println!("{count} openings");
    assert!((1..=MOST).contains(&count), "{count} openings");
}
