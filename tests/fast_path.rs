//! The engine stays on its fast path: instructions are counted, not seconds, so that the
//! figure does not depend on how busy the machine is. valgrind has no AVX-512 and counts
//! the AVX2 kernels; a call per multiply-add, which is what is left when a kernel is
//! compiled without its instruction set, costs thirty times the bound.

use crate::support::*;
use std::process::Command;

/// Training a small sample of the reference network for one epoch and for two: the
/// difference is one epoch, whatever starting costs.
const EVENTS: u64 = 1024;
/// 172 032 multiply-adds in registers of 8 are 21 504 instructions; loads, stores and
/// lane sums bring them to 74 000.
const MOST_PER_EVENT: f64 = 90_000.0;

#[test]
fn a_training_step_takes_no_more_instructions_than_it_did() {
    if Command::new("valgrind").arg("--version").output().is_err() {
        assert!(std::env::var_os("CI").is_none(), "valgrind is missing");
        eprintln!("skipped: valgrind is not installed");
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let events = folder.path().join("gamma.h5");
    let arguments =
        ["simulate", "--class", "gamma", "--seed", "5", "--events", &EVENTS.to_string(), "-o"];
    let mut simulate: Vec<std::ffi::OsString> = arguments.iter().map(Into::into).collect();
    simulate.push(events.clone().into());
    succeed(&mut program(&simulate));
    let counts = [1, 2].map(|epochs| instructions(folder.path(), &events, epochs));
    let per_event = (counts[1] - counts[0]) / EVENTS as f64;
    println!("{per_event:.0} instructions per event and training step");
    assert!(
        per_event < MOST_PER_EVENT,
        "{per_event} instructions per event, at most {MOST_PER_EVENT}"
    );
    assert!(
        per_event > 21_504.0,
        "{per_event}: less than the arithmetic itself, so the count is wrong"
    );
}

/// Instructions of a training of `epochs` epochs, on one thread.
fn instructions(folder: &std::path::Path, events: &std::path::Path, epochs: u32) -> f64 {
    let config = folder.join("config.toml");
    let text = format!(
        "[data]\ngamma = [{events:?}]\n[features]\ncolumns = [{{ name = \"size\", transform = \"log10\" }}, \
         {{ name = \"width\", transform = \"ln\", offset = 0.01 }}, {{ name = \"length\" }}, \
         {{ name = \"con2\" }}, {{ name = \"dist\" }}, {{ name = \"alpha\", transform = \"signed\" }}]\n\
         [split]\ntrain = 1.0\nvalidation = 0.0\ncalibration = 0.0\ntest = 0.0\n[train]\nbatch = 512\nepochs = {epochs}\n"
    );
    std::fs::write(&config, text).expect("a configuration");
    let mut command = Command::new("valgrind");
    command
        .args([
            "--tool=callgrind",
            "--callgrind-out-file=/dev/null",
            env!("CARGO_BIN_EXE_taiga-flow"),
        ])
        .args(["train", "--threads", "1", "-c"])
        .arg(&config)
        .arg("-o")
        .arg(folder.join(format!("run-{epochs}")));
    let outcome = succeed(&mut command);
    let line = outcome.stderr.lines().find(|line| line.contains("Collected :")).expect("a count");
    let count = line.rsplit(':').next().expect("a number").trim();
    count.split_whitespace().next().expect("a number").parse().expect("a number")
}
