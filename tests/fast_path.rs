//! The engine stays on its fast path, measured by instruction count, which does not depend on the
//! load of the machine.
//!
//! valgrind has no AVX-512, so it counts the AVX2 kernels. A kernel compiled without its
//! instruction set calls a function per multiply-add, which exceeds the limit many times.

use crate::support::{configuration, folder, seed, simulated, skip, succeed};
use std::path::Path;
use std::process::Command;
use taiga_flow::config::Class;

const EVENTS: u64 = 1024;
/// 172 032 multiply-adds in registers of 8 are 21 504 instructions. With loads, stores and lane
/// sums, the test profile needs 83 000.
const MOST_PER_EVENT: f64 = 100_000.0;
const ARITHMETIC_PER_EVENT: f64 = 21_504.0;

#[test]
fn training_step_stays_within_instruction_count() {
    if Command::new("valgrind").arg("--version").output().is_err() {
        assert!(std::env::var_os("CI").is_none(), "valgrind is missing");
        return skip("valgrind is not installed");
    }
    let folder = folder();
    let gamma = simulated(folder.path().join("gamma.h5"), Class::Gamma, EVENTS, seed());
    // Starting costs the same for one epoch and for two: the difference is one epoch.
    let counts = [1, 2].map(|epochs| instructions(folder.path(), &gamma, epochs));
    let per_event = (counts[1] - counts[0]) / EVENTS as f64;
    println!("{per_event:.0} instructions per event and training step");
    assert!(per_event < MOST_PER_EVENT, "{per_event} instructions per event");
    assert!(
        per_event > ARITHMETIC_PER_EVENT,
        "{per_event} is less than the arithmetic: the count is wrong"
    );
}

/// Counts the instructions of a training of the reference network on one thread.
fn instructions(folder: &Path, gamma: &Path, epochs: u32) -> f64 {
    let more = "[split]\ntrain = 1.0\nvalidation = 0.0\ncalibration = 0.0\ntest = 0.0";
    let config = configuration(folder, gamma, more);
    let mut command = Command::new("valgrind");
    command
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(env!("CARGO_BIN_EXE_taiga-flow"))
        .args(["train", "--threads", "1", "--set", "model.blocks=8", "--set", "model.hidden=[512]"])
        .args(["--set", "train.batch=512", "--set", "cuts={}", "--set"])
        .arg(format!("train.epochs={epochs}"))
        .arg("-c")
        .arg(&config)
        .arg("-o")
        .arg(folder.join(format!("run-{epochs}")));
    let printed = succeed(&mut command).stderr;
    let count = printed
        .lines()
        .find_map(|line| line.split_once("Collected :"))
        .map(|(_, count)| count.trim());
    count.and_then(|count| count.parse().ok()).unwrap_or_else(|| panic!("no count in: {printed}"))
}
