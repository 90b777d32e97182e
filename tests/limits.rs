//! Limits of the system and stop requests: lack of memory is not reported as a damaged file,
//! signals are handled while the program waits, and in-place changes of a file are noticed.

use crate::support::{
    Case, LONG, Watched, arguments, folder, program, run, seed, signal, simulated, text, trained,
    wait_for_step,
};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::time::Duration;
use taiga_flow::config::Class;
use taiga_flow::data::Schema;
use taiga_flow::data::table::{Block, Request, Table};

const ENVIRONMENT: i32 = 5;
const STOPPED: i32 = 75;
const PROGRAM: &str = env!("CARGO_BIN_EXE_taiga-flow");

#[test]
fn low_memory_is_not_reported_as_damaged_file() {
    let folder = folder();
    let events = simulated(folder.path().join("events.h5"), Class::Gamma, 300_000, seed());
    let mut codes = Vec::new();
    for (i, megabytes) in (100..=420).step_by(16).enumerate() {
        let output = folder.path().join(format!("scores-{i}"));
        let limited = format!("ulimit -v {} && exec \"$0\" \"$@\"", 1024 * megabytes);
        let mut command = Command::new("sh");
        command.args(["-c", &limited, PROGRAM]);
        command.args(arguments!["score", "--threads", "2", "-m", &trained().model]);
        command.args(arguments!["-o", &output, &events]);
        let outcome = run(&mut command);
        println!("{megabytes} MB: {:?}", outcome.code);
        // A library that ignores a failed allocation is killed by a signal, or exits.
        assert_ne!(outcome.code, Some(3), "{megabytes} MB: {}", outcome.stderr);
        assert!(!outcome.stderr.contains("damaged"), "{}", outcome.stderr);
        let has_advice = outcome.code != Some(ENVIRONMENT) || outcome.stderr.contains("ulimit");
        assert!(has_advice, "{megabytes} MB: {}", outcome.stderr);
        codes.push(outcome.code);
    }
    assert!(codes.contains(&Some(0)), "{codes:?}");
}

#[test]
fn exhausted_descriptors_are_no_input_fault() {
    let folder = folder();
    let archive = folder.path().join("archive");
    std::fs::create_dir(&archive).expect("a folder");
    for i in 0..4 {
        simulated(archive.join(format!("{i}.h5")), Class::Gamma, 50, seed() + i);
    }
    let mut codes = Vec::new();
    for limit in 4..=40 {
        let output = folder.path().join(format!("scores-{limit}"));
        let limited = format!("ulimit -n {limit} && exec \"$0\" \"$@\"");
        let mut command = Command::new("sh");
        command.args(["-c", &limited, PROGRAM]);
        command.args(arguments!["score", "--allow-failed", "4", "--threads", "1"]);
        command.args(arguments!["-m", &trained().model, "-o", &output, &archive]);
        let outcome = run(&mut command);
        println!("{limit} descriptors: {:?}", outcome.code);
        // Without any descriptor to spare the loader of the program fails, with 127.
        assert!([Some(0), Some(5), Some(127)].contains(&outcome.code), "{}", outcome.stderr);
        if outcome.code == Some(0) {
            let manifest = text(&output.join("manifest.json"));
            assert!(manifest.contains("\"failed\": {}"), "{limit}: {manifest}");
        }
        codes.push(outcome.code);
    }
    assert!(codes.contains(&Some(0)) && codes.contains(&Some(ENVIRONMENT)), "{codes:?}");
}

#[test]
fn in_place_change_with_the_old_time_is_noticed() {
    let folder = folder();
    let path = simulated(folder.path().join("events.h5"), Class::Gamma, 150_000, seed());
    let schema = Schema::by_name_or_path("taiga-events").expect("a schema");
    let table = Table::open(&path, &schema).expect("a table");
    let request = Request { quantities: vec!["size".to_string()], ..Request::default() };
    let mut reader = table.reader(&request).expect("columns");
    let mut block = Block::default();
    reader.read(0..65_536, &mut block).expect("rows");
    let before = std::fs::metadata(&path).expect("a file");
    let file = std::fs::File::options().read(true).write(true).open(&path).expect("a file");
    let mut byte = [0];
    file.read_exact_at(&mut byte, before.len() - 1).expect("a byte");
    file.write_all_at(&[!byte[0]], before.len() - 1).expect("a byte");
    file.set_modified(before.modified().expect("a time")).expect("a time");
    let after = std::fs::metadata(&path).expect("a file");
    assert_eq!((before.mtime_nsec(), before.len()), (after.mtime_nsec(), after.len()));
    let error = reader.read(65_536..131_072, &mut block).expect_err("a changed file");
    assert!(error.to_string().contains("changed while it was read"), "{error}");
}

/// Starts a scoring that waits for its model, a pipe without a writer.
fn waiting(folder: &std::path::Path) -> (Watched, std::path::PathBuf) {
    let pipe = folder.join("model.safetensors");
    if !pipe.exists() {
        assert!(Command::new("mkfifo").arg(&pipe).status().expect("mkfifo").success());
    }
    let log_path = folder.join("log");
    let output = folder.join("scores");
    let command = arguments!["score", "-m", &pipe, "-o", &output, &trained().gamma];
    let mut watched = Watched::start_with_log(&mut program(&command), &log_path);
    // Wait until it sleeps in open(2).
    let asleep =
        |id: u32| text(std::path::Path::new(&format!("/proc/{id}/wchan"))) == "wait_for_partner";
    for _ in 0..200 {
        assert_eq!(watched.exit_status(), None, "{}", text(&log_path));
        if asleep(watched.id()) {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    (watched, log_path)
}

#[test]
fn second_signal_ends_a_waiting_program() {
    for (number, name) in
        [(libc::SIGTERM, "SIGTERM"), (libc::SIGHUP, "SIGHUP"), (libc::SIGINT, "SIGINT")]
    {
        let folder = folder();
        let (mut watched, printed) = waiting(folder.path());
        signal(watched.id(), number);
        let message = format!("{name} received: stopping");
        while !text(&printed).contains(&message) {
            assert_eq!(watched.exit_status(), None, "{name}: {}", text(&printed));
            std::thread::sleep(Duration::from_millis(10));
        }
        // Signals within 1 s count as one (`ONE_SIGNAL` in src/comm/stop.rs).
        std::thread::sleep(Duration::from_millis(1200));
        assert_eq!(watched.exit_status(), None, "one signal ended it: {}", text(&printed));
        signal(watched.id(), number);
        let status = watched.wait();
        let expected = if number == libc::SIGINT { None } else { Some(number) };
        assert_eq!(status.signal(), expected, "{name}: {status}");
        assert_eq!(status.code(), (number == libc::SIGINT).then_some(130), "{name}: {status}");
    }
}

#[test]
fn two_signals_at_once_are_one_request() {
    let case = Case::new(2000, LONG);
    let output = case.at("run");
    let mut training = Watched::start(&mut program(&case.train(&output, &[])));
    wait_for_step(&mut training, &output, 2);
    // A launcher and a scheduler both send one.
    signal(training.id(), libc::SIGTERM);
    signal(training.id(), libc::SIGTERM);
    assert_eq!(training.wait().code(), Some(STOPPED));
}

#[test]
fn hangup_stops_after_checkpoint_unless_ignored() {
    let case = Case::new(2000, LONG);
    let output = case.at("run");
    let mut training = Watched::start(&mut program(&case.train(&output, &[])));
    wait_for_step(&mut training, &output, 2);
    signal(training.id(), libc::SIGHUP);
    assert_eq!(training.wait().code(), Some(STOPPED));
    // Under nohup the training continues.
    let mut shell = Command::new("sh");
    shell.args(["-c", "trap '' HUP; exec \"$0\" \"$@\"", PROGRAM]).args(case.train(&output, &[]));
    let mut training = Watched::start(&mut shell);
    let step = crate::support::newest_checkpoint(&output).expect("a checkpoint");
    wait_for_step(&mut training, &output, step + 5);
    signal(training.id(), libc::SIGHUP);
    let step = crate::support::newest_checkpoint(&output).expect("a checkpoint");
    wait_for_step(&mut training, &output, step + 20);
    signal(training.id(), libc::SIGTERM);
    assert_eq!(training.wait().code(), Some(STOPPED));
}

#[test]
fn too_many_threads_are_refused_with_the_range() {
    let (folder, trained) = (folder(), trained());
    let output = folder.path().join("out");
    let (gamma, hadron) = (&trained.gamma, &trained.hadron);
    let train = arguments!["train", "-c", &trained.configuration, "-o", &output];
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let most = (16 * cores).max(1024);
    for command in [
        &train[..],
        &arguments!["score", "-m", &trained.model, "-o", &output, gamma],
        &arguments!["extract", "-o", &output, gamma],
        &arguments!["anomalies", "-o", &output, gamma],
        &arguments![
            "evaluate",
            "-m",
            &trained.model,
            "-o",
            &output,
            "--gamma",
            gamma,
            "--hadron",
            hadron
        ],
        &arguments!["sweep", "-c", &trained.configuration, "-o", &output, "--leave-one-out"],
    ] {
        let outcome = run(program(command).args(["--threads", "100000"]));
        assert_eq!(outcome.code, Some(2), "{command:?}: {}", outcome.stderr);
        let text = format!("100000 is not in 0..={most}");
        assert!(outcome.stderr.contains(&text), "{command:?}: {}", outcome.stderr);
    }
    let outcome = run(program(&train).args(["--set", "run.threads=100000"]));
    assert_eq!(outcome.code, Some(2), "{}", outcome.stderr);
    assert!(outcome.stderr.contains(&format!("0 to {most}")), "{}", outcome.stderr);
    assert!(!output.exists());
}
