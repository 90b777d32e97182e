//! Ranks that are stopped, die, or get a stop request: the job ends in time, reports the missing
//! rank, and the same command resumes.

use crate::support::{
    Case, LONG, Watched, arguments, folder, is_soak, newest_checkpoint, print_line, program,
    rank_processes, ranks, ranks_with_signal, repetitions, run, seed, signal, simulated, succeed,
    text, trained, tree, wait_for_step,
};
use std::path::Path;
use std::time::{Duration, Instant};
use taiga_flow::config::Class;
use taiga_flow_gpu::random::Stream;

const ENVIRONMENT: i32 = 5;
const STOPPED: i32 = 75;

#[test]
fn stopped_or_dead_rank_ends_job_and_is_named() {
    let case = Case::new(3000, LONG);
    let deadline = Duration::from_secs(5);
    let stream = Stream::new(seed(), "stop", &[]);
    for trial in 0..repetitions(2, 20) as u64 {
        let (dies, victim) = (trial % 2 == 1, (stream.bits(2 * trial) % 4) as usize);
        let output = case.at(&format!("run-{trial}"));
        let log = case.at(&format!("log-{trial}"));
        let command = case.train(&output, &["--watchdog", "5s"]);
        let mut training = Watched::start_with_log(&mut ranks(4, &command), &log);
        wait_for_step(&mut training, &output, 2 + stream.bits(2 * trial + 1) % 20);
        let processes = rank_processes(&training);
        assert_eq!(processes.len(), 4);
        let since = Instant::now();
        signal(processes[victim], if dies { libc::SIGKILL } else { libc::SIGSTOP });
        let status = training.wait();
        let took = since.elapsed();
        assert!(!status.success());
        let log = text(&log);
        if dies {
            // The launcher may report the death before the watchdog does.
            assert!(log.contains(&format!("process rank {victim} ")), "{log}");
        } else {
            assert_eq!(status.code(), Some(ENVIRONMENT), "{log}");
            let host = text(Path::new("/proc/sys/kernel/hostname"));
            let process = format!("(process {})", processes[victim]);
            for part in ["is missing from all-", " step ", host.trim(), &process, "rank "] {
                assert!(log.contains(part), "'{part}' is not in: {log}");
            }
            assert_eq!(log.matches("is missing from").count(), 1, "{log}");
        }
        let how = if dies { "killed" } else { "stopped" };
        print_line(&format!("watchdog: rank {how}, job over after {:.2} s", took.as_secs_f64()));
        // On a machine with more processes than cores, the launcher itself may be slow.
        assert!(took < deadline + Duration::from_secs(if is_soak() { 0 } else { 5 }), "{took:?}");
        let again = case.train(&output, &["--stop-after", "0s"]);
        let outcome = run(&mut ranks(2, &again));
        assert_eq!(outcome.code, Some(STOPPED), "{}", outcome.stderr);
        assert!(outcome.stderr.contains("resumed at epoch"), "{}", outcome.stderr);
        assert!(!output.join(".ranks").exists(), "heartbeats are left behind");
    }
}

#[test]
fn rank_stopped_in_scoring_ends_job_and_is_named() {
    let (trained, folder) = (trained(), folder());
    let archive = folder.path().join("archive");
    for i in 0..8 {
        simulated(archive.join(format!("{i}.h5")), Class::Gamma, 200_000, seed() + i);
    }
    let output = folder.path().join("scores");
    let command = arguments![
        "score",
        "-m",
        &trained.model,
        "-o",
        &output,
        &archive,
        "--threads",
        "1",
        "--watchdog",
        "5s"
    ];
    let log = folder.path().join("log");
    let mut scoring = Watched::start_with_log(&mut ranks(4, &command), &log);
    let is_part = |entry: std::fs::DirEntry| entry.path().extension().is_some_and(|e| e == "part");
    let begun = || std::fs::read_dir(&output).is_ok_and(|all| all.flatten().any(is_part));
    while !begun() {
        assert_eq!(scoring.exit_status(), None, "{}", text(&log));
        std::thread::sleep(Duration::from_millis(2));
    }
    signal(rank_processes(&scoring)[1 + seed() as usize % 3], libc::SIGSTOP);
    assert_eq!(scoring.wait().code(), Some(ENVIRONMENT), "{}", text(&log));
    assert!(text(&log).contains("is missing from"), "{}", text(&log));
    let whole = folder.path().join("whole");
    let alone = arguments!["score", "-m", &trained.model, "-o", &whole, &archive];
    succeed(&mut program(&alone));
    succeed(&mut ranks(2, &command));
    assert_eq!(tree(&output), tree(&whole));
}

#[test]
fn rank_stopped_in_evaluation_ends_the_job() {
    let (trained, folder) = (trained(), folder());
    let gamma = simulated(folder.path().join("gamma.h5"), Class::Gamma, 1_500_000, seed());
    let hadron = simulated(folder.path().join("hadron.h5"), Class::Hadron, 4000, seed() + 1);
    let (output, log) = (folder.path().join("evaluation"), folder.path().join("log"));
    let command = arguments![
        "evaluate",
        "-m",
        &trained.model,
        "--gamma",
        &gamma,
        "--hadron",
        &hadron,
        "-o",
        &output,
        "--threads",
        "1",
        "--watchdog",
        "4s"
    ];
    let mut evaluating = Watched::start_with_log(&mut ranks(3, &command), &log);
    while !(0..3).all(|rank| output.join(format!(".ranks/rank-{rank}")).exists()) {
        assert_eq!(evaluating.exit_status(), None, "{}", text(&log));
        std::thread::sleep(Duration::from_millis(2));
    }
    signal(rank_processes(&evaluating)[1 + seed() as usize % 2], libc::SIGSTOP);
    assert_eq!(evaluating.wait().code(), Some(ENVIRONMENT), "{}", text(&log));
    assert!(text(&log).contains("is missing from"), "{}", text(&log));
    succeed(&mut ranks(2, &command));
    assert!(output.join("evaluation.json").exists() && !output.join(".ranks").exists());
}

#[test]
fn rank_stopped_in_extraction_ends_the_job() {
    let folder = folder();
    let images = folder.path().join("images");
    let first = images.join("0.h5");
    let simulate = arguments![
        "simulate",
        "--level",
        "images",
        "-o",
        &first,
        "--class",
        "gamma",
        "--events",
        "2000",
        "--seed",
        seed().to_string()
    ];
    succeed(&mut program(&simulate));
    for i in 1..24_u64 {
        let path = images.join(format!("{i}.h5"));
        std::fs::copy(&first, &path).expect("a copy");
        // Copies with equal content would be refused.
        let file = hdf5::File::open_rw(&path).expect("a file");
        file.new_attr::<u64>().create("number").and_then(|a| a.write_scalar(&i)).expect("a number");
    }
    let (output, log) = (folder.path().join("hillas"), folder.path().join("log"));
    let extract = |output: &Path| {
        arguments!["extract", "-o", output, &images, "--threads", "1", "--watchdog", "4s"]
    };
    let mut extracting = Watched::start_with_log(&mut ranks(3, &extract(&output)), &log);
    while !(0..3).all(|rank| output.join(format!(".ranks/rank-{rank}")).exists()) {
        assert_eq!(extracting.exit_status(), None, "{}", text(&log));
        std::thread::sleep(Duration::from_millis(2));
    }
    let victim = 1 + seed() as usize % 2;
    signal(rank_processes(&extracting)[victim], libc::SIGSTOP);
    assert_eq!(extracting.wait().code(), Some(ENVIRONMENT), "{}", text(&log));
    for part in ["is missing from", &format!("rank {victim} on ")] {
        assert!(text(&log).contains(part), "'{part}' is not in: {}", text(&log));
    }
    let whole = folder.path().join("whole");
    succeed(&mut program(&extract(&whole)));
    let again = [&extract(&output)[..], &arguments!["--overwrite"]].concat();
    succeed(&mut ranks(2, &again));
    assert_eq!(tree(&output), tree(&whole));
}

#[test]
fn rank_lost_at_mpi_start_or_end_ends_the_job() {
    let case = Case::new(1500, "[train]\nepochs = 1\nbatch = 512\nshards = 4\n");
    let without_end = Case::new(1500, LONG);
    let stream = Stream::new(seed(), "where mpi begins", &[]);
    let host = text(Path::new("/proc/sys/kernel/hostname"));
    for trial in 0..repetitions(6, 60) as u64 {
        let draw = |i: u64| stream.bits(4 * trial + i);
        let victim = (draw(0) % 4) as usize;
        let within = (draw(1) % 300_000).to_string(); // µs
        let (place, phase) = [
            ("before", "the start of MPI"),
            ("init", "the start of MPI"),
            ("finalize", "the end of MPI"),
            (&within, "rank"),
        ][trial as usize % 4];
        let dies = trial % 6 > 3;
        let sent = if dies { libc::SIGKILL } else { libc::SIGSTOP };
        let (output, log) = (case.at(&format!("run-{trial}")), case.at(&format!("log-{trial}")));
        let of = if place == within { &without_end } else { &case };
        // With a longer deadline, the watchdog first checks after the start of MPI.
        let deadline = if place == "finalize" { 16 } else { 5 };
        let command = of.train(&output, &["--watchdog", &format!("{deadline}s")]);
        let since = Instant::now();
        let mut job =
            Watched::start_with_log(&mut ranks_with_signal(4, &command, victim, place, sent), &log);
        let mut processes = Vec::new();
        while job.exit_status().is_none() {
            let found = rank_processes(&job);
            processes = if found.len() == 4 { found } else { processes };
            std::thread::sleep(Duration::from_millis(5));
        }
        let status = job.wait();
        let (took, log) = (since.elapsed(), text(&log));
        let context = format!("{place}, signal {sent} to rank {victim}: {status}: {log}");
        assert!(!status.success(), "{context}");
        if dies {
            // The launcher may report the death first. It does not always name a rank that has not
            // yet contacted it.
            let named = log.contains(&format!("process rank {victim} "));
            let unheard = ["before", "init"].contains(&place) && log.contains("non-zero exit code");
            assert!(named || unheard, "{context}");
        } else {
            assert_eq!(status.code(), Some(ENVIRONMENT), "{context}");
            let process = format!("(process {})", processes[victim]);
            let who = format!("rank {victim} on {} {process}", host.trim());
            for part in [phase, &who] {
                assert!(log.contains(part), "'{part}' is not in: {context}");
            }
        }
        print_line(&format!(
            "watchdog: rank ranks_with_signal at {place}, job over after {:.2} s",
            took.as_secs_f64()
        ));
        // The time includes the start of the job.
        assert!(took < Duration::from_secs(deadline + 5), "{took:?}: {context}");
        if place == within {
            let again = of.train(&output, &["--stop-after", "0s"]);
            assert_eq!(run(&mut ranks(2, &again)).code, Some(STOPPED), "{context}");
        } else {
            succeed(&mut ranks(2, &command));
        }
    }
}

#[test]
fn stopped_scoring_exits_75_and_resumes() {
    let (trained, folder) = (trained(), folder());
    let archive = folder.path().join("archive");
    for i in 0..6 {
        simulated(archive.join(format!("{i}.h5")), Class::Gamma, 150_000, seed() + i);
    }
    let whole = folder.path().join("whole");
    let score = |output: &Path| {
        arguments!["score", "-m", &trained.model, "-o", output, &archive, "--threads", "1"]
    };
    succeed(&mut program(&score(&whole)));
    for count in [1, 2] {
        let output = folder.path().join(format!("scores-{count}"));
        let log = folder.path().join(format!("log-{count}"));
        let command = score(&output);
        let mut command = if count == 1 { program(&command) } else { ranks(count, &command) };
        let mut scoring = Watched::start_with_log(&mut command, &log);
        let finished = || (0..6).filter(|i| output.join(format!("{i}.h5")).exists()).count();
        while finished() < 1 {
            assert_eq!(scoring.exit_status(), None, "{}", text(&log));
            std::thread::sleep(Duration::from_millis(2));
        }
        let process = rank_processes(&scoring).last().copied().unwrap_or(scoring.id());
        signal(process, [libc::SIGTERM, libc::SIGUSR1][count - 1]);
        assert_eq!(scoring.wait().code(), Some(STOPPED), "{}", text(&log));
        assert!(text(&log).contains("run the same command again"), "{}", text(&log));
        assert!((1..6).contains(&finished()));
        let outcome = succeed(&mut ranks(3 - count, &score(&output)));
        assert!(outcome.stderr.contains("finished already"), "{}", outcome.stderr);
        assert_eq!(tree(&output), tree(&whole));
    }
}

/// Slow reading does not end a job as long as it makes progress: the other ranks wait for rank 0,
/// which is slowed down.
#[test]
fn slow_rank_does_not_end_the_job() {
    let case = Case::new(400_000, "[train]\nepochs = 1\nbatch = 65536\nshards = 2\n");
    let output = case.at("run");
    let log = case.at("log");
    let command = case.train(&output, &["--watchdog", "1s", "--set", "model.hidden=[4]"]);
    let mut training = Watched::start_with_log(&mut ranks(2, &command), &log);
    let since = Instant::now();
    // Stopped and continued in intervals much shorter than the deadline: slow, but with
    // heartbeats.
    while training.exit_status().is_none() && since.elapsed() < Duration::from_secs(6) {
        if let Some(process) = rank_processes(&training).first() {
            signal(*process, libc::SIGSTOP);
            std::thread::sleep(Duration::from_millis(120));
            signal(*process, libc::SIGCONT);
        }
        std::thread::sleep(Duration::from_millis(40));
    }
    assert!(training.wait().success(), "{}", text(&log));
}

#[test]
fn signal_to_any_rank_stops_all_after_checkpoint() {
    let case = Case::new(3000, LONG);
    let stream = Stream::new(seed(), "signals", &[]);
    let signals = [libc::SIGTERM, libc::SIGUSR1, libc::SIGUSR2];
    for trial in 0..repetitions(3, 30) {
        let output = case.at(&format!("run-{trial}"));
        let log = case.at(&format!("log-{trial}"));
        let mut training = Watched::start_with_log(&mut ranks(4, &case.train(&output, &[])), &log);
        wait_for_step(&mut training, &output, 3);
        let victim = rank_processes(&training)[(stream.bits(trial as u64) % 4) as usize];
        // While one rank is stopped, no step can end, so the steps can be counted.
        signal(victim, libc::SIGSTOP);
        let (mut before, mut quiet) = (newest_checkpoint(&output), 0);
        while quiet < 10 {
            std::thread::sleep(Duration::from_millis(30));
            let now = newest_checkpoint(&output);
            quiet = if now == before { quiet + 1 } else { 0 };
            before = now;
        }
        let since = Instant::now();
        signal(victim, signals[trial % 3]);
        signal(victim, libc::SIGCONT);
        assert_eq!(training.wait().code(), Some(STOPPED), "{}", text(&log));
        let after = newest_checkpoint(&output).expect("a checkpoint");
        let steps = after - before.expect("a checkpoint");
        print_line(&format!(
            "stop protocol: {steps} step(s), {:.2} s",
            since.elapsed().as_secs_f64()
        ));
        // The step in which the rank was stopped, or the next one if its reduction was over.
        assert!(steps <= 2, "{steps} steps after the signal");
        let again = run(&mut program(&case.train(&output, &["--stop-after", "0s"])));
        assert!(again.stderr.contains("resumed at epoch"), "{}", again.stderr);
        assert!(!again.stderr.contains("damaged"), "{}", again.stderr);
        assert_eq!(newest_checkpoint(&output), Some(after + 1));
    }
}

#[test]
fn scheduled_job_end_stops_with_a_checkpoint() {
    let case = Case::new(3000, LONG);
    let output = case.at("run");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let end = now.expect("a clock").as_secs() + 63;
    let command = case.train(&output, &["--set", "run.end_margin_seconds=60"]);
    let mut training = program(&command);
    let outcome = run(training.env("SLURM_JOB_END_TIME", end.to_string()));
    assert_eq!(outcome.code, Some(STOPPED), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("stopped by the end of the job"), "{}", outcome.stderr);
    let done = newest_checkpoint(&output).expect("a checkpoint");
    assert!(done > 1, "it stopped after one step");
}
