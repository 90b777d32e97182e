//! Training, scoring and extraction killed at any time end with the same bytes after a restart.

use crate::support::writers::kill_all;
use crate::support::{
    Case, EVERY_STEP, Watched, arguments, descendants, folder, has_extension, is_soak, kill,
    ledger, newest_checkpoint, print_line, program, rank_processes, ranks, repetitions, result,
    run, seed, simulated, simulated_images, succeed, trained, tree,
};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;
use std::time::{Duration, Instant};
use taiga_flow::config::Class;
use taiga_flow_gpu::random::Stream;

#[test]
fn killed_training_ends_with_same_bytes() {
    let case = Case::new(3000, EVERY_STEP);
    let (whole, output) = (case.at("whole"), case.at("run"));
    let rarely = ["--set", "run.checkpoint_seconds=3600"];
    succeed(&mut program(&case.train(&whole, &rarely)));
    let expected = result(&whole);
    let command = case.train(&output, &[]);
    let since = Instant::now();
    succeed(&mut ranks(2, &command));
    let took = since.elapsed();
    assert_eq!(result(&output), expected);
    let stream = Stream::new(seed(), "kills", &[]);
    let trials = repetitions(6, 200);
    let (mut inside, mut too_late, mut ran) = (0, 0, 0);
    // On a busy machine few kills hit the writing of a checkpoint: repeat until enough do.
    for trial in 0..8 * trials {
        if trial >= trials && 4 * inside >= trial {
            break;
        }
        ran += 1;
        std::fs::remove_dir_all(&output).expect("the last trial");
        let draw = |i: u64| stream.bits(8 * trial as u64 + i);
        let mut training = Watched::start(&mut ranks(2, &command));
        let processes = if trial % 2 == 0 {
            // Kill during the writing of a checkpoint: its folder does not have its final name
            // yet.
            let first = draw(0) % 25;
            while training.exit_status().is_none()
                && newest_checkpoint(&output).unwrap_or(0) < first
            {
                std::thread::sleep(Duration::from_millis(1));
            }
            let processes = rank_processes(&training);
            while training.exit_status().is_none() && !writes_checkpoint(&output) {
                std::hint::spin_loop();
            }
            processes
        } else {
            std::thread::sleep(took.mul_f64(draw(0) as f64 / u64::MAX as f64));
            rank_processes(&training)
        };
        match draw(1) % 3 {
            0 => processes.iter().for_each(|process| kill(*process)),
            1 => processes.iter().take(1).for_each(|process| kill(*process)),
            _ => processes.iter().skip(1).for_each(|process| kill(*process)),
        }
        too_late += usize::from(training.wait().success());
        inside += usize::from(writes_checkpoint(&output));
        if is_soak() && trial % 20 == 19 {
            print_line(&format!("training killed: {} of {trials} so far", trial + 1));
        }
        let resumed = 1 + (draw(2) % 3) as usize;
        let outcome =
            succeed(&mut if resumed == 1 { program(&command) } else { ranks(resumed, &command) });
        assert!(!outcome.stderr.contains("damaged"), "trial {trial}: {}", outcome.stderr);
        assert_eq!(result(&output), expected, "trial {trial}: {}", outcome.stderr);
    }
    print_line(&format!(
        "training killed: {ran} of {ran} with the same bytes, {inside} inside checkpoint writing, {too_late} after the end"
    ));
    assert!(4 * inside >= ran, "only {inside} of {ran} inside checkpoint writing");
}

fn writes_checkpoint(run: &Path) -> bool {
    let entries = std::fs::read_dir(run.join("checkpoints")).into_iter().flatten().flatten();
    entries.into_iter().any(|entry| entry.file_name().to_string_lossy().ends_with(".part"))
}

#[test]
fn killed_scoring_ends_with_same_outputs() {
    let (trained, folder) = (trained(), folder());
    let archive = folder.path().join("archive");
    let stream = Stream::new(seed(), "archive", &[]);
    for i in 0..50 {
        let name = format!("night-{}/run-{i}.h5", i % 7);
        simulated(archive.join(name), Class::Gamma, 100 + stream.bits(i) % 3000, seed() + i);
    }
    // Long enough to be split into pieces.
    simulated(archive.join("night-3/long.h5"), Class::Gamma, 140_000, seed() + 50);
    let output = folder.path().join("scores");
    let command =
        arguments!["score", "-m", &trained.model, "-o", &output, &archive, "--threads", "1"];
    let more = arguments!["--set", "score.positions=2", "--split-rows", "65536"];
    let command = [&command[..], &more].concat();
    let since = Instant::now();
    succeed(&mut ranks(2, &command));
    let took = since.elapsed();
    let expected = tree(&output);
    let trials = repetitions(6, 200);
    let (mut complete, mut resumed_files) = (0, 0);
    for trial in 0..trials as u64 {
        std::fs::remove_dir_all(&output).expect("the last trial");
        let draw = |i: u64| stream.bits(1000 + 8 * trial + i);
        let scoring = Watched::start(&mut ranks(2, &command));
        std::thread::sleep(took.mul_f64(1.1 * draw(0) as f64 / u64::MAX as f64));
        let processes = rank_processes(&scoring);
        let killed = if draw(1) % 2 == 0 { processes.len() } else { 1 };
        processes.iter().take(killed).for_each(|process| kill(*process));
        // The launcher must have ended too.
        drop(scoring);
        let found = if output.exists() { tree(&output) } else { BTreeMap::new() };
        let is_output = |name: &str| has_extension(name, "h5") && !name.starts_with(".pieces");
        for (name, content) in found.iter().filter(|(name, _)| is_output(name)) {
            assert_eq!(expected.get(name), Some(content), "trial {trial}: {name}");
            resumed_files += 1;
        }
        if found.contains_key("manifest.json") {
            complete += 1;
            let is_output = |name: &String| !name.starts_with(".ranks");
            let found: BTreeMap<_, _> = found.into_iter().filter(|(n, _)| is_output(n)).collect();
            assert_eq!(found, expected, "trial {trial}");
            continue;
        }
        if is_soak() && trial % 20 == 19 {
            print_line(&format!("scoring killed: {} of {trials} so far", trial + 1));
        }
        let count = 1 + (draw(2) % 3) as usize;
        succeed(&mut if count == 1 { program(&command) } else { ranks(count, &command) });
        assert_eq!(tree(&output), expected, "trial {trial}");
        let scored = ledger(&output);
        assert_eq!(scored.len(), 51, "trial {trial}");
        assert!(scored.values().all(|times| *times == 1), "trial {trial}: {scored:?}");
    }
    print_line(&format!(
        "scoring killed: {trials} of {trials} with the same outputs, {resumed_files} finished files kept, {complete} killed after the end"
    ));
}

#[test]
fn killed_extraction_ends_with_the_same_outputs() {
    let folder = folder();
    let images = folder.path().join("images");
    let stream = Stream::new(seed(), "images", &[]);
    let files = 16;
    for i in 0..files {
        let name = format!("night-{}/run-{i}.h5", i % 4);
        let class = if i % 3 == 0 { "hadron" } else { "gamma" };
        let (events, own) = (60 + stream.bits(i) % 900, seed() + i);
        simulated_images(&images.join(name), class, events, own);
    }
    let output = folder.path().join("hillas");
    let command = arguments!["extract", "-o", &output, &images, "--threads", "1"];
    let since = Instant::now();
    succeed(&mut ranks(2, &command));
    let took = since.elapsed();
    let expected = tree(&output);
    let trials = repetitions(6, 50);
    let (mut complete, mut kept) = (0, 0);
    for trial in 0..trials as u64 {
        std::fs::remove_dir_all(&output).expect("the last trial");
        let draw = |i: u64| stream.bits(1000 + 8 * trial + i);
        let extraction = Watched::start(&mut ranks(2, &command));
        std::thread::sleep(took.mul_f64(1.1 * draw(0) as f64 / u64::MAX as f64));
        let processes = rank_processes(&extraction);
        // Kill all ranks, the first, the second, or the launcher.
        let killed = match draw(1) % 4 {
            0 => &processes[..],
            1 => &processes[..processes.len().min(1)],
            2 => &processes[processes.len().min(1)..],
            _ => &[],
        };
        killed.iter().for_each(|process| kill(*process));
        drop(extraction);
        let found = if output.exists() { tree(&output) } else { BTreeMap::new() };
        for (name, content) in found.iter().filter(|(name, _)| has_extension(name, "h5")) {
            assert_eq!(expected.get(name), Some(content), "trial {trial}: {name}");
            kept += 1;
        }
        complete += usize::from(found.contains_key("manifest.json"));
        if is_soak() && trial % 10 == 9 {
            print_line(&format!("extraction killed: {} of {trials} so far", trial + 1));
        }
        let count = 1 + (draw(2) % 3) as usize;
        succeed(&mut if count == 1 { program(&command) } else { ranks(count, &command) });
        assert_eq!(tree(&output), expected, "trial {trial}");
        let extracted = ledger(&output);
        assert_eq!(extracted.len(), files as usize, "trial {trial}");
        assert!(extracted.values().all(|times| *times == 1), "trial {trial}: {extracted:?}");
    }
    print_line(&format!(
        "extraction killed: {trials} of {trials} with the same outputs, {kept} finished files kept, {complete} killed after the end"
    ));
}

/// The processes to kill: one rank, the launcher, or all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Victim {
    Rank,
    Launcher,
    All,
}

/// A killed job whose command was restarted immediately.
struct Restart {
    victim: Victim,
    /// Ranks of the killed job and of the next one.
    ranks: [usize; 2],
    pause: Duration,
    /// How often the command exited with 75 before it exited with 0.
    stops: usize,
    was_running: bool,
}

/// Starts `command` on some ranks, kills random processes within about the duration `took`, and
/// restarts it after 0 to 1 s on another number of ranks until it exits with 0.
fn restart(command: &[OsString], stream: Stream, trial: u64, took: Duration) -> Restart {
    let draw = |i: u64| stream.bits(8 * trial + i);
    let share = |i: u64| draw(i) as f64 / u64::MAX as f64;
    let first = 1 + (trial % 3) as usize;
    let second = 1 + ((trial + 1 + draw(0) % 2) % 3) as usize;
    let start = |n: usize| if n == 1 { program(command) } else { ranks(n, command) };
    let mut job = Watched::start(&mut start(first));
    std::thread::sleep(took.mul_f64(1.2 * share(1)));
    let victim = match draw(2) % 3 {
        _ if first == 1 => Victim::All,
        0 => Victim::Rank,
        1 => Victim::Launcher,
        _ => Victim::All,
    };
    let all = descendants(job.id());
    let processes = rank_processes(&job);
    let was_running = job.exit_status().is_none();
    match victim {
        Victim::Rank if !processes.is_empty() => {
            kill(processes[draw(3) as usize % processes.len()]);
        }
        Victim::Rank | Victim::Launcher => kill(job.id()),
        Victim::All => {
            kill(job.id());
            all.iter().for_each(|process| kill(*process));
        }
    }
    let pause = Duration::from_secs(1).mul_f64(share(4));
    std::thread::sleep(pause);
    let mut stops = 0;
    loop {
        let outcome = run(&mut start(second));
        let context = format!("{victim:?} of {first}, again on {second} after {pause:?}");
        match outcome.code {
            Some(0) => break,
            Some(75) if stops < 3 => stops += 1,
            code => panic!("{context}: {code:?} {}", outcome.stderr),
        }
    }
    drop(job);
    kill_all(&all);
    Restart { victim, ranks: [first, second], pause, stops, was_running }
}

/// Reports which processes were killed, and how often a restart exited with 75.
fn report_restarts(name: &str, restarts: &[Restart]) {
    let of = |victim| restarts.iter().filter(|r| r.victim == victim).count();
    let running = restarts.iter().filter(|restart| restart.was_running).count();
    let stops: usize = restarts.iter().map(|restart| restart.stops).sum();
    print_line(&format!(
        "restarts of {name}: {0} of {0} with the same bytes: {1} after the kill of a rank, {2} of the launcher, {3} of all; {running} while it ran; {stops} stops with 75 (seed {4})",
        restarts.len(),
        of(Victim::Rank),
        of(Victim::Launcher),
        of(Victim::All),
        seed()
    ));
}

#[test]
fn killed_training_restarts_within_a_second() {
    let case = Case::new(2000, EVERY_STEP);
    let (whole, output) = (case.at("whole"), case.at("run"));
    succeed(&mut program(&case.train(&whole, &[])));
    let expected = result(&whole);
    let command = case.train(&output, &[]);
    let since = Instant::now();
    succeed(&mut ranks(2, &command));
    let took = since.elapsed();
    let stream = Stream::new(seed(), "restarts of train", &[]);
    let mut restarts = Vec::new();
    for trial in 0..repetitions(3, 50) as u64 {
        std::fs::remove_dir_all(&output).expect("the last trial");
        let restart = restart(&command, stream, trial, took);
        let context = format!("{trial}: {:?} of {:?}", restart.victim, restart.ranks);
        assert_eq!(result(&output), expected, "{context} after {:?}", restart.pause);
        succeed(&mut program(&arguments!["verify", &output]));
        assert!(tree(&output).keys().all(|name| !name.contains(".part")), "{context}");
        restarts.push(restart);
    }
    report_restarts("train", &restarts);
}

#[test]
fn killed_scoring_restarts_within_a_second() {
    let (trained, folder) = (trained(), folder());
    let archive = folder.path().join("archive");
    for i in 0..12 {
        let name = format!("night-{}/run-{i}.h5", i % 4);
        simulated(archive.join(name), Class::Gamma, 1000 + 800 * i, 300 + i);
    }
    // Long enough to be split into pieces.
    simulated(archive.join("night-3/long.h5"), Class::Gamma, 140_000, 400);
    for format in ["hdf5", "csv"] {
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
            "--format",
            format,
            "--split-rows",
            "65536"
        ];
        let since = Instant::now();
        succeed(&mut ranks(2, &command));
        let took = since.elapsed();
        let expected = tree(&output);
        let stream = Stream::new(seed(), "restarts of score", &[format.len() as u64]);
        let mut restarts = Vec::new();
        for trial in 0..repetitions(2, 50) as u64 {
            std::fs::remove_dir_all(&output).expect("the last trial");
            let restart = restart(&command, stream, trial, took);
            let context = format!("{trial}: {:?} of {:?}", restart.victim, restart.ranks);
            assert_eq!(tree(&output), expected, "{context} after {:?}", restart.pause);
            succeed(&mut program(&arguments!["verify", &output]));
            restarts.push(restart);
        }
        report_restarts(&format!("score ({format})"), &restarts);
        std::fs::remove_dir_all(&output).expect("the last trial");
    }
}
