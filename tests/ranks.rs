//! Training gives the same bits on any number of ranks and threads, and after any kill and resume.

use crate::support::{
    Case, Watched, kill, newest_checkpoint, program, rank_processes, ranks, result, run, seed,
    send_user1, succeed, train_on_threads, training, wait_for_step,
};

const EVENTS: u64 = 20_000;

const SHORT: &str = "[train]\nepochs = 4\nbatch = 2048\nlearning_rate = 1e-2\n";

#[test]
fn model_bytes_equal_on_any_ranks_and_threads() {
    let case = Case::new(EVENTS, SHORT);
    let alone = case.at("alone");
    let printed = succeed(program(&case.train(&alone, &[])).arg("--json"));
    let expected = result(&alone);
    assert!(printed.stdout.contains(&expected.0), "{}", printed.stdout);
    assert_eq!(expected.1.lines().count(), 4);
    for threads in ["2", "5"] {
        let output = case.at(&format!("threads-{threads}"));
        succeed(&mut program(&case.train(&output, &["--threads", threads])));
        assert_eq!(result(&output), expected, "{threads} threads");
    }
    for count in 1..=4 {
        let output = case.at(&format!("ranks-{count}"));
        succeed(&mut ranks(count, &case.train(&output, &[])));
        assert_eq!(result(&output), expected, "{count} ranks");
    }
    // Negative control: another seed gives other bytes.
    let other = case.at("other");
    succeed(&mut program(&case.train(&other, &["--set", "train.seed=2"])));
    assert_ne!(result(&other).0, expected.0);
}

#[test]
fn ranks_as_threads_give_the_same_bytes() {
    let case = Case::new(EVENTS, SHORT);
    let trained = |count: usize| {
        let output = case.at(&format!("threads-{count}"));
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
        EVENTS,
        "[train]\nepochs = 40\nbatch = 2048\nlearning_rate = 1e-2\npatience = 0\n[run]\ncheckpoint_seconds = 0\n",
    );
    let whole = case.at("whole");
    let rarely = ["--set", "run.checkpoint_seconds=3600"];
    succeed(&mut program(&case.train(&whole, &rarely)));
    let expected = result(&whole);
    assert_eq!(newest_checkpoint(&whole), None);

    let output = case.at("broken");
    let command = case.train(&output, &[]);
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

    let outcome = run(&mut ranks(3, &case.train(&output, &["--stop-after", "0s"])));
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
        EVENTS,
        "[train]\nepochs = 40\nbatch = 2048\nlearning_rate = 1e-2\npatience = 0\n[run]\ncheckpoint_seconds = 0\n",
    );
    let output = case.at("run");
    let command = case.train(&output, &[]);
    let mut training = Watched::start(&mut ranks(3, &command));
    wait_for_step(&mut training, &output, 3 + seed() % 20);
    let processes = rank_processes(&training);
    kill(processes[(seed() % 3) as usize]);
    assert!(!training.wait().success());
    assert!(!output.join("model.safetensors").exists());
    let outcome = succeed(&mut program(&command));
    assert!(outcome.stderr.contains("resumed at epoch"), "{}", outcome.stderr);
}
