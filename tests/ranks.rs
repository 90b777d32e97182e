//! Training gives the same bits on any number of ranks and threads, and after any kill and resume.

use crate::support::{
    Watched, arguments, configuration, folder, hash, kill, newest_checkpoint, program,
    rank_processes, ranks, run, seed, send_user1, simulated, succeed, train_on_threads, training,
    wait_for_step,
};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use taiga_flow::config::Class;

const EVENTS: u64 = 20_000;

/// A training of some seconds, and its input folder.
struct Case {
    folder: tempfile::TempDir,
    configuration: PathBuf,
}

impl Case {
    fn new(more: &str) -> Case {
        let folder = folder();
        let gamma = simulated(folder.path().join("gamma.h5"), Class::Gamma, EVENTS, seed());
        let configuration = configuration(folder.path(), &gamma, more);
        Case { folder, configuration }
    }

    fn output(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, output: &Path, more: &[&str]) -> Vec<OsString> {
        let mut arguments = Vec::from(arguments!["train", "-c", &self.configuration, "-o", output]);
        if !more.contains(&"--threads") {
            arguments.extend(arguments!["--threads", "1"]);
        }
        arguments.extend(more.iter().map(OsString::from));
        arguments
    }
}

/// Returns the values that must be equal between runs: model hash and metrics text.
fn result(run: &Path) -> (String, String) {
    let metrics = std::fs::read_to_string(run.join("metrics.jsonl")).expect("metrics");
    (hash(&run.join("model.safetensors")), metrics)
}

const SHORT: &str = "[train]\nepochs = 4\nbatch = 2048\nlearning_rate = 1e-2\n";

#[test]
fn model_bytes_equal_on_any_ranks_and_threads() {
    let case = Case::new(SHORT);
    let alone = case.output("alone");
    let printed = succeed(program(&case.command(&alone, &[])).arg("--json"));
    let expected = result(&alone);
    assert!(printed.stdout.contains(&expected.0), "{}", printed.stdout);
    assert_eq!(expected.1.lines().count(), 4);
    for threads in ["2", "5"] {
        let output = case.output(&format!("threads-{threads}"));
        succeed(&mut program(&case.command(&output, &["--threads", threads])));
        assert_eq!(result(&output), expected, "{threads} threads");
    }
    for count in 1..=4 {
        let output = case.output(&format!("ranks-{count}"));
        succeed(&mut ranks(count, &case.command(&output, &[])));
        assert_eq!(result(&output), expected, "{count} ranks");
    }
    // Negative control: another seed gives other bytes.
    let other = case.output("other");
    succeed(&mut program(&case.command(&other, &["--set", "train.seed=2"])));
    assert_ne!(result(&other).0, expected.0);
}

#[test]
fn ranks_as_threads_give_the_same_bytes() {
    let case = Case::new(SHORT);
    let trained = |count: usize| {
        let output = case.output(&format!("threads-{count}"));
        let options = training(&case.configuration, &[], &output);
        train_on_threads(&options, count);
        result(&output)
    };
    let expected = trained(1);
    for count in [2, 3, 8] {
        assert_eq!(trained(count), expected, "{count} ranks");
    }
}

#[test]
fn resuming_on_other_ranks_ends_with_same_bytes() {
    // A checkpoint after every step; 7 steps in each of 40 epochs.
    let case = Case::new(
        "[train]\nepochs = 40\nbatch = 2048\nlearning_rate = 1e-2\npatience = 0\n[run]\ncheckpoint_seconds = 0\n",
    );
    let whole = case.output("whole");
    let rarely = ["--set", "run.checkpoint_seconds=3600"];
    succeed(&mut program(&case.command(&whole, &rarely)));
    let expected = result(&whole);
    assert_eq!(newest_checkpoint(&whole), None);

    let output = case.output("broken");
    let command = case.command(&output, &[]);
    let first_kill = 20 + seed() % 60;
    let mut training = Watched::start(&mut ranks(2, &command));
    wait_for_step(&mut training, &output, first_kill);
    let processes = rank_processes(&training);
    assert_eq!(processes.len(), 2);
    processes.into_iter().for_each(kill);
    assert!(!training.wait().success());
    assert!(!output.join("model.safetensors").exists());
    let killed_at = newest_checkpoint(&output).expect("a checkpoint");
    println!("killed after step {killed_at}");
    assert!((first_kill..270).contains(&killed_at), "{killed_at}");

    let outcome = run(&mut ranks(3, &case.command(&output, &["--stop-after", "0s"])));
    assert_eq!(outcome.code, Some(75), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("resumed at epoch"), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("run the same command again"), "{}", outcome.stderr);
    assert_eq!(newest_checkpoint(&output), Some(killed_at + 1));

    let mut training = Watched::start(&mut ranks(4, &command));
    wait_for_step(&mut training, &output, killed_at + 5);
    let processes = rank_processes(&training);
    send_user1(processes[processes.len() - 1]);
    assert_eq!(training.wait().code(), Some(75));

    succeed(&mut ranks(3, &command));
    assert_eq!(result(&output), expected);
    // A finished run is not changed.
    let again = succeed(&mut ranks(2, &command));
    assert!(again.stdout.contains("finished before"), "{}", again.stdout);
    assert_eq!(result(&output), expected);
}

#[test]
fn dead_rank_ends_all_and_training_resumes() {
    let case = Case::new(
        "[train]\nepochs = 40\nbatch = 2048\nlearning_rate = 1e-2\npatience = 0\n[run]\ncheckpoint_seconds = 0\n",
    );
    let output = case.output("run");
    let command = case.command(&output, &[]);
    let mut training = Watched::start(&mut ranks(3, &command));
    wait_for_step(&mut training, &output, 3 + seed() % 20);
    let processes = rank_processes(&training);
    kill(processes[(seed() % 3) as usize]);
    assert!(!training.wait().success());
    assert!(!output.join("model.safetensors").exists());
    let outcome = succeed(&mut program(&command));
    assert!(outcome.stderr.contains("resumed at epoch"), "{}", outcome.stderr);
}
