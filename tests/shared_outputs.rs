//! Several jobs with one output: concurrent jobs, archives that grow between runs, outputs that
//! are also inputs, and streams that cannot be written.

use crate::support::{
    Case, EVERY_STEP, Outcome, Watched, arguments, folder, hash, kill, program, ranks, run, signal,
    simulated, simulated_images, succeed, trained, tree,
};
use serde_json::Value;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use taiga_flow::config::Class;

/// An archive of nights with one run each, of different lengths.
struct Archive {
    folder: tempfile::TempDir,
}

impl Archive {
    fn new(runs: u64) -> Archive {
        let archive = Archive { folder: folder() };
        (0..runs).for_each(|run| archive.add(run));
        archive
    }

    fn add(&self, run: u64) {
        let night = self.at("archive").join(format!("night-{}", run / 2));
        std::fs::create_dir_all(&night).expect("a folder");
        simulated(
            night.join(format!("run-{run}.h5")),
            Class::Gamma,
            300 + 90 * (run % 4),
            100 + run,
        );
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn score(output: &Path, input: &Path, more: &[&str]) -> Vec<OsString> {
        let model = &trained().model;
        let mut all = Vec::from(arguments!["score", "-q", "-m", model, "-o", output, input]);
        all.extend(more.iter().map(OsString::from));
        all
    }
}

fn manifest(output: &Path) -> Value {
    let text = std::fs::read(output.join("manifest.json")).expect("a manifest");
    serde_json::from_slice(&text).expect("JSON")
}

/// Returns the outputs that a manifest lists, with the number of entries.
fn listed(output: &Path) -> BTreeMap<String, usize> {
    let mut listed = BTreeMap::new();
    for file in manifest(output)["files"].as_array().expect("files") {
        *listed.entry(file["output"].as_str().expect("a name").to_string()).or_default() += 1;
    }
    listed
}

fn names(runs: std::ops::Range<u64>) -> BTreeMap<String, usize> {
    runs.map(|run| (format!("night-{}/run-{run}.h5", run / 2), 1)).collect()
}

fn verified(output: &Path) -> Outcome {
    run(&mut program(&arguments!["verify", output]))
}

#[test]
fn shards_of_a_grown_archive_do_not_merge() {
    let archive = Archive::new(6);
    let (input, output) = (archive.at("archive"), archive.at("scores"));
    let shard =
        |which: &str| run(&mut program(&Archive::score(&output, &input, &["--shard", which])));
    assert_eq!(shard("1/2").code, Some(0));
    archive.add(6);
    let second = shard("2/2");
    assert_eq!(second.code, Some(4), "{}", second.stderr);
    assert!(second.stderr.contains("different lists of files"), "{}", second.stderr);
    assert!(second.stderr.contains("--shard 1/2"), "{}", second.stderr);
    assert_eq!(verified(&output).code, Some(3));
    assert_eq!(shard("1/2").code, Some(0));
    assert_eq!(listed(&output), names(0..7));
    assert_eq!(verified(&output).code, Some(0));
}

#[test]
fn missing_output_of_other_shard_is_reported() {
    let archive = Archive::new(6);
    let (input, output) = (archive.at("archive"), archive.at("scores"));
    let shard =
        |which: &str| run(&mut program(&Archive::score(&output, &input, &["--shard", which])));
    assert_eq!(shard("1/2").code, Some(0));
    let scored = names(0..6).into_keys().find(|name| output.join(name).exists());
    std::fs::remove_file(output.join(scored.expect("an output"))).expect("an output");
    let second = shard("2/2");
    assert_eq!(second.code, Some(4), "{}", second.stderr);
    assert!(second.stderr.contains("--shard 1/2"), "{}", second.stderr);
    assert!(!output.join("manifest.json").exists());
    assert_eq!(shard("1/2").code, Some(0));
    assert_eq!(listed(&output), names(0..6));
    assert_eq!(verified(&output).code, Some(0));
}

#[test]
fn copies_and_renamed_inputs_are_named() {
    let archive = Archive::new(4);
    let (input, output) = (archive.at("archive"), archive.at("scores"));
    let copy = input.join("night-1/copy.h5");
    std::fs::copy(input.join("night-0/run-0.h5"), &copy).expect("a copy");
    let score = Archive::score(&output, &input, &[]);
    let outcome = run(&mut program(&score));
    assert_eq!(outcome.code, Some(4), "{}", outcome.stderr);
    assert!(outcome.stdout.contains("has the same input as"), "{}", outcome.stdout);
    std::fs::remove_file(copy).expect("a copy");
    std::fs::remove_file(output.join("night-1/copy.h5")).expect("an output");
    let forget = Archive::score(&output, &input, &["--forget-missing"]);
    succeed(&mut program(&forget));
    assert_eq!(verified(&output).code, Some(0));
    std::fs::rename(input.join("night-0/run-1.h5"), input.join("night-0/run-9.h5")).expect("moved");
    let outcome = run(&mut program(&score));
    assert_eq!(outcome.code, Some(4), "{}", outcome.stderr);
    assert!(outcome.stdout.contains("has the same input as"), "{}", outcome.stdout);
    std::fs::remove_file(output.join("night-0/run-1.h5")).expect("an output");
    succeed(&mut program(&forget));
    assert_eq!(verified(&output).code, Some(0));
}

#[test]
fn altered_outputs_are_found_by_score_and_season() {
    let archive = Archive::new(4);
    let (input, output) = (archive.at("archive"), archive.at("scores"));
    let score = Archive::score(&output, &input, &[]);
    succeed(&mut program(&score));
    let file = hdf5::File::open_rw(output.join("night-1/run-2.h5")).expect("a score file");
    let scores = file.dataset("scores/score").expect("scores");
    let larger: Vec<f32> =
        scores.read_raw().expect("scores").iter().map(|x: &f32| x + 9.0).collect();
    scores.write_raw(&larger).expect("scores");
    drop((scores, file));
    let season = arguments!["season", &output, "-o", archive.at("report"), "--threshold", "-99"];
    let outcome = run(&mut program(&season));
    assert_eq!(outcome.code, Some(4), "{}", outcome.stderr);
    let expected = [outcome.stdout, outcome.stderr].concat();
    assert!(expected.contains("not as it was written"), "{expected}");
    let outcome = run(&mut program(&score));
    assert_eq!(outcome.code, Some(4), "{}", outcome.stderr);
    assert!(outcome.stdout.contains("changed since it was written"), "{}", outcome.stdout);
    let overwrite = Archive::score(&output, &input, &["--overwrite"]);
    succeed(&mut program(&overwrite));
    assert_eq!(verified(&output).code, Some(0));
}

#[test]
fn damaged_ledger_and_lost_record_are_repaired() {
    let archive = Archive::new(4);
    let (input, output) = (archive.at("archive"), archive.at("scores"));
    let score = Archive::score(&output, &input, &[]);
    succeed(&mut program(&score));
    let ledger = output.join("ledger/1-of-1.jsonl");
    let mut bytes = std::fs::read(&ledger).expect("a ledger");
    bytes[20] ^= 1;
    std::fs::write(&ledger, bytes).expect("a ledger");
    std::fs::remove_file(output.join("ledger/inputs.json")).expect("a record");
    let outcome = verified(&output);
    assert_eq!(outcome.code, Some(3), "{}", outcome.stdout);
    assert!(outcome.stdout.contains("inputs.json: is missing"), "{}", outcome.stdout);
    assert!(outcome.stdout.contains("are not as they were written"), "{}", outcome.stdout);
    succeed(&mut program(&score));
    assert_eq!(verified(&output).code, Some(0));
    // A truncated manifest is named, and the advice is not to overwrite.
    let manifest = output.join("manifest.json");
    let whole = std::fs::read(&manifest).expect("a manifest");
    std::fs::write(&manifest, &whole[..whole.len() / 2]).expect("a manifest");
    let outcome = run(&mut program(&score));
    assert_eq!(outcome.code, Some(3), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("move it away"), "{}", outcome.stderr);
    std::fs::remove_file(&manifest).expect("a manifest");
    let outcome =
        run(&mut program(&arguments!["score", "-m", &trained().model, "-o", &output, &input]));
    assert_eq!(outcome.stderr.matches("finished already").count(), 4, "{}", outcome.stderr);
    assert_eq!(std::fs::read(&manifest).expect("a manifest"), whole);
}

#[test]
fn verify_finds_new_files_of_lists_and_patterns() {
    let archive = Archive::new(4);
    let (input, list) = (archive.at("archive"), archive.at("list"));
    std::fs::write(&list, "archive/night-0\narchive/night-1\n").expect("a list");
    let listed = PathBuf::from(format!("@{}", list.display()));
    let root = ["--root", input.to_str().expect("UTF-8")];
    for (name, given) in [("by-list", listed), ("by-pattern", input.join("night-*/*.h5"))] {
        let output = archive.at(name);
        succeed(&mut program(&Archive::score(&output, &given, &root)));
        assert_eq!(verified(&output).code, Some(0), "{name}");
        let new = input.join("night-1/run-9.h5");
        simulated(new.clone(), Class::Gamma, 100, 77);
        let outcome = verified(&output);
        assert_eq!(outcome.code, Some(3), "{name}: {}", outcome.stdout);
        assert!(outcome.stdout.contains("run-9.h5 is in no manifest"), "{}", outcome.stdout);
        std::fs::remove_file(new).expect("a file");
        std::fs::rename(&input, archive.at("moved")).expect("moved");
        let outcome = verified(&output);
        let is_missed = outcome.stdout.contains("not looked at: the input");
        assert!(is_missed || outcome.code == Some(3), "{name}: {}", outcome.stdout);
        std::fs::rename(archive.at("moved"), &input).expect("moved back");
    }
}

#[test]
fn settings_of_a_grown_archive_are_refused() {
    let archive = Archive::new(4);
    let (input, output) = (archive.at("archive"), archive.at("scores"));
    let root = ["--root", input.to_str().expect("UTF-8")];
    succeed(&mut program(&Archive::score(&output, &input.join("night-0"), &root)));
    let before = tree(&output);
    let set = ["--set", "score.keys=false", "--allow-failed", "9"];
    let outcome = run(&mut program(&Archive::score(&output, &input, &set)));
    assert_eq!(outcome.code, Some(2), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("with other settings"), "{}", outcome.stderr);
    assert_eq!(tree(&output), before);
}

#[test]
fn output_removed_during_run_is_reported() {
    let archive = Archive::new(4);
    for run in 0..12 {
        let path = archive.at("archive").join(format!("night-9/run-{run}.h5"));
        simulated(path, Class::Gamma, 4000, 900 + run);
    }
    let (input, output) = (archive.at("archive"), archive.at("scores"));
    let mut scoring = Watched::start(&mut program(&Archive::score(&output, &input, &[])));
    let first = || {
        let files = std::fs::read_dir(output.join("night-9")).into_iter().flatten().flatten();
        let mut names = files.map(|entry| entry.path());
        names.find(|path| path.extension().is_some_and(|extension| extension == "h5"))
    };
    while first().is_none() && scoring.exit_status().is_none() {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    let is_running = scoring.exit_status().is_none();
    std::fs::remove_file(first().expect("an output")).expect("an output");
    let code = scoring.wait().code();
    // If the file was removed before its ledger line was written, its rank fails.
    assert!(code == Some(4) || !is_running, "{code:?}");
    if code == Some(4) {
        succeed(&mut program(&Archive::score(&output, &input, &[])));
        assert_eq!(verified(&output).code, Some(0));
    }
}

#[test]
fn pieces_of_another_content_are_not_used() {
    let archive = Archive::new(1);
    let (input, output) = (archive.at("long"), archive.at("scores"));
    let (old, new) = (input.join("a.h5"), archive.at("new.h5"));
    simulated(old.clone(), Class::Gamma, 400_000, 1);
    simulated(new.clone(), Class::Gamma, 400_000, 2);
    let bytes = |path: &Path| std::fs::metadata(path).expect("a file").len();
    // Equal length and modification time, as after a copy by rsync.
    let longer = bytes(&old).max(bytes(&new));
    for path in [&old, &new] {
        let file = File::options().write(true).open(path).expect("a file");
        file.set_len(longer).expect("a length");
        file.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_700_000_000))
            .expect("a time");
    }
    let score = Archive::score(&output, &input, &["--split-rows", "10000"]);
    let mut scoring = Watched::start(&mut ranks(2, &score));
    let pieces = || {
        let files = std::fs::read_dir(output.join(".pieces/a.h5")).into_iter().flatten().flatten();
        files.filter(|entry| entry.path().extension().is_some_and(|e| e == "h5")).count()
    };
    while pieces() == 0 {
        assert_eq!(scoring.exit_status(), None, "it ended without a piece");
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    kill(scoring.id());
    drop(scoring);
    assert!(pieces() > 0, "no piece exists");
    std::fs::rename(&new, &old).expect("another content");
    succeed(&mut ranks(2, &score));
    let clean = archive.at("clean");
    succeed(&mut program(&Archive::score(&clean, &input, &[])));
    assert_eq!(tree(&output), tree(&clean));
}

#[test]
fn piece_that_was_edited_is_scored_again() {
    let archive = Archive::new(1);
    let (input, output) = (archive.at("long"), archive.at("scores"));
    simulated(input.join("a.h5"), Class::Gamma, 400_000, 1);
    let score = Archive::score(&output, &input, &["--split-rows", "10000"]);
    let scoring = Watched::start(&mut ranks(2, &score));
    let pieces = || -> Vec<PathBuf> {
        let files = std::fs::read_dir(output.join(".pieces/a.h5")).into_iter().flatten().flatten();
        let paths = files.map(|entry| entry.path());
        let is_complete = |path: &PathBuf| path.with_extension("blake3").exists();
        paths.filter(|p| p.extension().is_some_and(|e| e == "h5")).filter(is_complete).collect()
    };
    while pieces().is_empty() {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    kill(scoring.id());
    drop(scoring);
    let piece = pieces().swap_remove(0);
    let file = hdf5::File::open_rw(&piece).expect("a piece");
    let scores = file.dataset("scores/score").expect("scores");
    let values: Vec<f32> = scores.read_raw().expect("scores");
    scores.write_raw(&vec![77.0_f32; values.len()]).expect("scores");
    drop((scores, file));
    succeed(&mut ranks(2, &score));
    let clean = archive.at("clean");
    succeed(&mut program(&Archive::score(&clean, &input, &[])));
    assert_eq!(tree(&output), tree(&clean));
}

#[test]
fn removed_ledger_gives_no_false_alarm() {
    let archive = Archive::new(4);
    let (input, output) = (archive.at("archive"), archive.at("scores"));
    let root = ["--root", input.to_str().expect("UTF-8")];
    succeed(&mut program(&Archive::score(&output, &input.join("night-0"), &root)));
    std::fs::remove_dir_all(output.join("ledger")).expect("a ledger");
    succeed(&mut program(&Archive::score(&output, &input.join("night-1"), &root)));
    let outcome = verified(&output);
    assert_eq!(outcome.code, Some(0), "{}{}", outcome.stdout, outcome.stderr);
    let note = "no line in the ledger, compared with the manifest alone: night-0/run-0.h5";
    assert!(outcome.stdout.contains(note), "{}", outcome.stdout);
    // A change is found by the hash in the manifest.
    std::fs::write(output.join("night-0/run-0.h5"), b"other").expect("a file");
    assert_eq!(verified(&output).code, Some(3));
}

#[test]
fn files_of_other_kinds_are_named() {
    let archive = Archive::new(2);
    let (input, output) = (archive.at("archive"), archive.at("scores"));
    for name in ["night-0/notes.txt", "night-0/.run-7.h5"] {
        std::fs::write(input.join(name), "x").expect("a file");
    }
    let score = arguments!["score", "-m", &trained().model, "-o", &output, &input];
    let printed = succeed(&mut program(&score)).stderr;
    let line = "2 file(s) of other kinds in the input folders are left out (first: ";
    assert_eq!(printed.matches(line).count(), 1, "{printed}");
    assert!(printed.contains(".run-7.h5"), "{printed}");
    std::fs::write(output.join("night-0/run-0.h5.bak"), "x").expect("a file");
    let outcome = verified(&output);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stdout);
    let line = "warning: files that are not outputs of this command: night-0/run-0.h5.bak";
    assert!(outcome.stdout.contains(line), "{}", outcome.stdout);
}

#[test]
fn damaged_record_of_inputs_is_replaced() {
    let archive = Archive::new(2);
    let (input, output) = (archive.at("archive"), archive.at("scores"));
    let score = Archive::score(&output, &input, &[]);
    succeed(&mut program(&score));
    std::fs::write(output.join("ledger/inputs.json"), "[{").expect("a record");
    let outcome = verified(&output);
    assert_eq!(outcome.code, Some(3), "{}", outcome.stdout);
    assert!(outcome.stdout.contains("cannot read the record of inputs"), "{}", outcome.stdout);
    succeed(&mut program(&score));
    assert_eq!(verified(&output).code, Some(0));
}

#[test]
fn nights_scored_one_by_one_stay_in_the_manifest() {
    let archive = Archive::new(6);
    let (input, output) = (archive.at("archive"), archive.at("scores"));
    for night in 0..3 {
        let night = input.join(format!("night-{night}"));
        let root = ["--root", input.to_str().expect("UTF-8")];
        succeed(&mut program(&Archive::score(&output, &night, &root)));
    }
    assert_eq!(listed(&output), names(0..6));
    assert_eq!(verified(&output).code, Some(0));
    // The same bytes as in one run.
    let whole = archive.at("whole");
    succeed(&mut program(&Archive::score(&whole, &input, &[])));
    assert_eq!(tree(&output), tree(&whole));
}

#[test]
fn other_settings_in_one_folder_are_refused() {
    let archive = Archive::new(4);
    let (input, output) = (archive.at("archive"), archive.at("scores"));
    let root = ["--root", input.to_str().expect("UTF-8")];
    succeed(&mut program(&Archive::score(&output, &input.join("night-0"), &root)));
    let before = tree(&output);
    for more in [&[][..], &["--overwrite"]] {
        let set = ["--set", "score.keys=false"];
        let all = [&root[..], &set[..], more].concat();
        let outcome = run(&mut program(&Archive::score(&output, &input.join("night-1"), &all)));
        assert_eq!(outcome.code, Some(2), "{}", outcome.stderr);
        assert!(outcome.stderr.contains("with other settings"), "{}", outcome.stderr);
        assert_eq!(tree(&output), before);
    }
}

#[test]
fn added_input_is_named_by_verify() {
    let archive = Archive::new(4);
    let (input, output) = (archive.at("archive"), archive.at("scores"));
    succeed(&mut program(&Archive::score(&output, &input, &[])));
    archive.add(4);
    let outcome = verified(&output);
    assert_eq!(outcome.code, Some(3), "{}", outcome.stderr);
    assert!(outcome.stdout.contains("run-4.h5"), "{}", outcome.stdout);
    succeed(&mut program(&Archive::score(&output, &input, &[])));
    assert_eq!(verified(&output).code, Some(0));
}

#[test]
fn outputs_below_inputs_are_not_read() {
    let archive = Archive::new(3);
    let input = archive.at("archive");
    let output = input.join("scores");
    for _ in 0..2 {
        succeed(&mut program(&Archive::score(&output, &input, &[])));
        assert_eq!(listed(&output), names(0..3));
    }
}

#[test]
fn same_score_command_twice_gives_one_result() {
    let archive = Archive::new(6);
    let input = archive.at("archive");
    let expected = archive.at("expected");
    succeed(&mut program(&Archive::score(&expected, &input, &["--format", "csv"])));
    for pause in [0, 20, 60, 150] {
        let output = archive.at(&format!("scores-{pause}"));
        let arguments = Archive::score(&output, &input, &["--format", "csv"]);
        let first = Watched::start(&mut program(&arguments));
        std::thread::sleep(std::time::Duration::from_millis(pause));
        let second = Watched::start(&mut program(&arguments));
        let codes = [first.wait().code(), second.wait().code()];
        assert!(codes.iter().all(|code| matches!(code, Some(0 | 75))), "{codes:?}");
        assert!(codes.contains(&Some(0)), "{codes:?}");
        assert_eq!(tree(&output), tree(&expected), "started {pause} ms apart");
    }
}

#[test]
fn locked_output_is_awaited_then_refused_with_75() {
    let archive = Archive::new(1);
    let output = archive.at("scores");
    std::fs::create_dir_all(&output).expect("a folder");
    let lock = File::create(output.join(".lock")).expect("a lock file");
    lock.lock().expect("a lock");
    let more = ["--lock-timeout", "0.3s"];
    let arguments = Archive::score(&output, &archive.at("archive"), &more);
    let outcome = run(&mut program(&arguments));
    assert_eq!(outcome.code, Some(75), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("another job is writing"), "{}", outcome.stderr);
    drop(lock);
    succeed(&mut program(&arguments));
}

#[test]
fn training_restarts_at_once_after_a_kill() {
    let case = Case::new(2000, EVERY_STEP);
    let output = case.at("run");
    let arguments = case.train(&output, &[]);
    for _ in 0..3 {
        let running = Watched::start(&mut program(&arguments));
        std::thread::sleep(std::time::Duration::from_millis(120));
        drop(running); // SIGKILL
    }
    succeed(&mut program(&arguments));
}

#[test]
fn moved_run_folder_ends_the_training() {
    let case = Case::new(2000, crate::support::LONG);
    let (output, moved) = (case.at("run"), case.at("moved"));
    let log_path = case.at("messages");
    let mut running = Watched::start_with_log(&mut program(&case.train(&output, &[])), &log_path);
    crate::support::wait_for_step(&mut running, &output, 3);
    std::fs::rename(&output, &moved).expect("a move");
    let code = running.wait().code();
    let text = std::fs::read_to_string(&log_path).expect("messages");
    assert_eq!(code, Some(5), "{text}");
    assert!(text.contains("moved, removed or replaced"), "{text}");
    assert!(!output.join("model.safetensors").exists());
}

/// Moves the output folder of a stopped command, lets another one write under its name, and
/// continues the first.
fn moved_output_is_left_alone(slow: &[OsString], other: &[OsString], output: &Path, result: &str) {
    let log_path = output.with_extension("log");
    let mut running = Watched::start_with_log(&mut program(slow), &log_path);
    while !output.join("ledger/started.json").exists() {
        assert_eq!(running.exit_status(), None, "the first command ended too early");
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    signal(running.id(), libc::SIGSTOP);
    std::fs::rename(output, output.with_extension("moved")).expect("a move");
    succeed(&mut program(other));
    let before = hash(&output.join(result));
    signal(running.id(), libc::SIGCONT);
    let code = running.wait().code();
    let text = std::fs::read_to_string(&log_path).expect("messages");
    assert_eq!(code, Some(5), "{text}");
    assert!(text.contains("moved, removed or replaced"), "{text}");
    assert_eq!(hash(&output.join(result)), before);
    let outcome = verified(output);
    assert_eq!(outcome.code, Some(0), "{}{}", outcome.stdout, outcome.stderr);
}

#[test]
fn moved_output_folder_ends_the_command() {
    let archive = Archive::new(0);
    let (events, images) = (archive.at("events"), archive.at("images"));
    simulated(events.join("run.h5"), Class::Gamma, 200_000, 1);
    simulated_images(&images.join("run.h5"), "gamma", 4000, 1);
    let small = (archive.at("few-events"), archive.at("few-images"));
    simulated(small.0.join("run.h5"), Class::Gamma, 200, 2);
    simulated_images(&small.1.join("run.h5"), "gamma", 20, 2);
    let output = archive.at("scores");
    let score = |input: &Path| Archive::score(&output, input, &[]);
    moved_output_is_left_alone(&score(&events), &score(&small.0), &output, "run.h5");
    let output = archive.at("extracted");
    let extract = |input: &Path| arguments!["extract", "-q", "-o", &output, input].to_vec();
    moved_output_is_left_alone(&extract(&images), &extract(&small.1), &output, "run.h5");
}

#[test]
fn output_without_a_ledger_line_is_compared() {
    let archive = Archive::new(2);
    let (input, output) = (archive.at("archive"), archive.at("scores"));
    let score = Archive::score(&output, &input, &[]);
    succeed(&mut program(&score));
    let path = output.join("night-0/run-1.h5");
    let whole = hash(&path);
    let alter = || {
        let file = hdf5::File::open_rw(&path).expect("a score file");
        let scores = file.dataset("scores/score").expect("scores");
        let larger: Vec<f32> =
            scores.read_raw().expect("scores").iter().map(|x: &f32| x + 9.0).collect();
        scores.write_raw(&larger).expect("scores");
    };
    std::fs::remove_dir_all(output.join("ledger")).expect("a ledger");
    // The manifest has its hash: it is kept, or refused after a change.
    succeed(&mut program(&score));
    assert_eq!((hash(&path), verified(&output).code), (whole.clone(), Some(0)));
    std::fs::remove_dir_all(output.join("ledger")).expect("a ledger");
    alter();
    let outcome = run(&mut program(&score));
    assert_eq!(outcome.code, Some(4), "{}", outcome.stderr);
    assert!(outcome.stdout.contains("changed since it was written"), "{}", outcome.stdout);
    // Without the manifest nothing says that it is finished.
    std::fs::remove_dir_all(output.join("ledger")).expect("a ledger");
    std::fs::remove_file(output.join("manifest.json")).expect("a manifest");
    succeed(&mut program(&score));
    assert_eq!((hash(&path), verified(&output).code), (whole, Some(0)));
}

#[test]
fn output_that_is_an_input_is_refused() {
    let archive = Archive::new(1);
    let events = archive.at("archive").join("night-0/run-0.h5");
    let before = hash(&events);
    let model = archive.at("model.h5");
    std::fs::copy(&trained().model, &model).expect("a copy");
    let night = events.parent().expect("a folder").to_path_buf();
    let run_folder = archive.at("run");
    std::fs::create_dir(&run_folder).expect("a folder");
    std::fs::copy(&trained().model, run_folder.join("model.safetensors")).expect("a copy");
    std::fs::copy(trained().run.join("config.toml"), run_folder.join("config.toml"))
        .expect("a copy");
    let page = run_folder.join("model.safetensors");
    for command in [
        arguments!["score", "-m", &model, "-o", &night, &night, "--overwrite"].to_vec(),
        arguments!["convert", &events, "-o", &events, "--overwrite"].to_vec(),
        arguments!["report", &run_folder, "-o", &page, "--overwrite"].to_vec(),
    ] {
        let outcome = run(&mut program(&command));
        assert_eq!(outcome.code, Some(2), "{command:?}: {}", outcome.stderr);
        assert_eq!(hash(&events), before, "{command:?}");
        assert_eq!(hash(&page), hash(&trained().model), "{command:?}");
    }
    let images = archive.at("images");
    let image = images.join("gamma.h5");
    let simulate = ["simulate", "--level", "images", "--class", "gamma", "--events", "50", "-o"];
    let mut simulate: Vec<OsString> = simulate.iter().map(OsString::from).collect();
    simulate.push(image.clone().into());
    succeed(&mut program(&simulate));
    let before = hash(&image);
    for command in ["extract", "anomalies"] {
        let arguments = arguments![command, "-o", &images, &images, "--overwrite"];
        let outcome = run(&mut program(&arguments));
        assert_eq!(outcome.code, Some(2), "{command}: {}", outcome.stderr);
        assert!(outcome.stderr.contains("an input of the same command"), "{}", outcome.stderr);
        assert_eq!(hash(&image), before, "{command}");
    }
}

#[test]
fn unwritable_streams_do_not_change_exit_codes() {
    let archive = Archive::new(1);
    let full = || Stdio::from(File::options().write(true).open("/dev/full").expect("/dev/full"));
    let missing =
        arguments!["score", "-m", archive.at("none"), "-o", archive.at("o"), archive.at("archive")];
    let status = program(&missing).stderr(full()).status().expect("a status");
    assert_eq!(status.code(), Some(3), "an error keeps its code without a writable stderr");
    let check = arguments!["check", archive.at("archive")];
    let status = program(&check).stdout(full()).stderr(Stdio::null()).status().expect("a status");
    assert_eq!(status.code(), Some(5), "a result that cannot be written is an error");
    let status = program(&arguments!["--help"]).stdout(full()).stderr(Stdio::null()).status();
    assert_eq!(status.expect("a status").code(), Some(5));
    // A reader that closes the pipe early is not an error.
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let status = program(&check).stdout(Stdio::from(writer)).stderr(Stdio::null()).status();
    assert_eq!(status.expect("a status").code(), Some(0));
}

#[test]
fn external_links_are_refused() {
    let Some(python) = std::env::var_os("TAIGA_FLOW_PYTHON") else { return };
    let archive = Archive::new(1);
    let events = archive.at("archive").join("night-0/run-0.h5");
    let script = r#"
import h5py, sys
source, linked, stored, virtual = sys.argv[1:]
with h5py.File(source) as f:
    columns = {name: f["events"][name][:] for name in f["events"]}
    units = {name: dict(f["events"][name].attrs) for name in f["events"]}
    root = dict(f.attrs)
for path in (linked, stored, virtual):
    with h5py.File(path, "w", libver=("earliest", "v110")) as f:
        f.attrs.update(root)
        for name, values in columns.items():
            full = "events/" + name
            if name == "width" and path == linked:
                f.create_group("events") if "events" not in f else None
                f[full] = h5py.ExternalLink(source, full)
                continue
            if name == "width" and path == stored:
                raw = path + ".raw"
                values.tofile(raw)
                f.create_dataset(full, shape=values.shape, dtype=values.dtype, external=[(raw, 0, values.nbytes)])
            elif name == "width" and path == virtual:
                layout = h5py.VirtualLayout(shape=values.shape, dtype=values.dtype)
                layout[:] = h5py.VirtualSource(source, full, shape=values.shape)
                f.create_virtual_dataset(full, layout)
            else:
                f[full] = values
            f[full].attrs.update(units[name])
"#;
    let paths: Vec<PathBuf> =
        ["linked.h5", "stored.h5", "virtual.h5"].iter().map(|name| archive.at(name)).collect();
    let status =
        std::process::Command::new(python).arg("-c").arg(script).arg(&events).args(&paths).status();
    assert!(status.expect("Python").success());
    for path in &paths {
        let output = archive.at("scores");
        let arguments = arguments!["score", "-m", &trained().model, "-o", &output, path];
        let outcome = run(&mut program(&arguments));
        assert_eq!(
            outcome.code,
            Some(3),
            "{}: {}{}",
            path.display(),
            outcome.stdout,
            outcome.stderr
        );
        let names = ["another file", "outside the file"];
        let named = names.iter().any(|name| outcome.stderr.contains(name));
        assert!(named, "{}: {}", path.display(), outcome.stderr);
        assert!(outcome.stderr.contains("width"), "{}: {}", path.display(), outcome.stderr);
    }
}

#[test]
fn names_with_control_characters_are_escaped() {
    let folder = folder();
    let path = folder.path().join("run\x1b[2J.h5");
    std::fs::write(&path, "no HDF5").expect("a file");
    let outcome = run(&mut program(&arguments!["check", &path]));
    assert!(!outcome.stdout.contains('\x1b'), "{:?}", outcome.stdout);
    let messages = outcome.stderr.split_once('\n').map_or("", |(_, rest)| rest);
    assert!(!messages.contains('\x1b'), "{messages:?}");
}

#[test]
fn output_folder_with_inputs_is_refused() {
    let archive = Archive::new(4);
    let events = archive.at("archive");
    let score = |output: &Path| {
        run(&mut program(&arguments!["score", "-m", &trained().model, "-o", output, &events]))
    };
    let before = tree(&events);
    let outcome = score(&events.join("night-0"));
    assert_eq!(outcome.code, Some(2), "{}", outcome.stderr);
    let expected = ["contains an input", "night-0/run-0.h5", "choose a separate output folder"];
    assert!(expected.iter().all(|part| outcome.stderr.contains(part)), "{}", outcome.stderr);
    assert_eq!(tree(&events), before);
    // Outputs below the folder of the inputs are no inputs.
    for _ in 0..2 {
        let outcome = score(&events.join("scores"));
        assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    }
    assert!(events.join("scores/night-1/run-2.h5").exists());
    let images = archive.at("images");
    for (name, number) in [("night-0/a.h5", 1), ("night-1/b.h5", 2)] {
        simulated_images(&images.join(name), "gamma", 20, number);
    }
    let output = images.join("night-1");
    let outcome = run(&mut program(&arguments!["extract", "-o", &output, &images]));
    assert_eq!(outcome.code, Some(2), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("night-1/b.h5"), "{}", outcome.stderr);
}

/// Returns the hashes of all files of a folder, also of its ledger.
fn everything(folder: &Path) -> BTreeMap<String, String> {
    let ledger = tree(&folder.join("ledger")).into_iter();
    let ledger = ledger.map(|(name, hash)| (format!("ledger/{name}"), hash));
    tree(folder).into_iter().chain(ledger).collect()
}

#[test]
fn outputs_of_another_command_are_refused() {
    let archive = Archive::new(2);
    let (events, images) = (archive.at("archive"), archive.at("images"));
    std::fs::create_dir(&images).expect("a folder");
    simulated_images(&images.join("image.h5"), "gamma", 40, 1);
    let (scores, extracted) = (archive.at("scores"), archive.at("extracted"));
    let extract = |output: &Path| Vec::from(arguments!["extract", "-q", "-o", output, &images]);
    let score = |output: &Path| Archive::score(output, &events, &[]);
    succeed(&mut program(&score(&scores)));
    succeed(&mut program(&extract(&extracted)));
    for (folder, command) in [(&scores, extract(&scores)), (&extracted, score(&extracted))] {
        // The ledger shows the kind of the outputs if the manifest is lost.
        for name in ["nothing", "manifest.json"] {
            if name == "manifest.json" {
                std::fs::remove_file(folder.join(name)).expect("a manifest");
            }
            let before = everything(folder);
            for more in [&[][..], &["--overwrite"]] {
                let outcome = run(program(&command).args(more));
                assert_eq!(outcome.code, Some(2), "{name} {command:?}: {}", outcome.stderr);
                let text = "outputs of a different command";
                assert!(outcome.stderr.contains(text), "{}", outcome.stderr);
                assert_eq!(everything(folder), before, "{name} {command:?}");
            }
        }
    }
    // The own command continues.
    succeed(program(&score(&scores)).arg("--overwrite"));
    succeed(program(&extract(&extracted)).arg("--overwrite"));
}

#[test]
fn ledger_counts_where_the_manifest_is_lost() {
    let archive = Archive::new(4);
    let (input, output) = (archive.at("archive"), archive.at("scores"));
    succeed(&mut program(&Archive::score(&output, &input, &[])));
    let case = Case::new(1500, "[train]\nepochs = 2\nbatch = 512\n");
    succeed(&mut program(&case.train(&case.at("run"), &["-q"])));
    let other = case.at("run/model.safetensors");
    let one = input.join("night-1/run-3.h5");
    let score = |model: &Path, more: &[&str]| {
        let root = arguments!["score", "-q", "--overwrite", "-m", model, "-o", &output, "--root"];
        run(program(&root).arg(&input).arg(&one).args(more))
    };
    let own = trained().model.clone();
    for is_empty in [false, true] {
        let manifest = output.join("manifest.json");
        if is_empty {
            std::fs::write(&manifest, "").expect("a manifest");
        } else {
            std::fs::remove_file(&manifest).expect("a manifest");
        }
        let before = everything(&output);
        let settings = ["--set", "score.positions=2"];
        let csv = ["--format", "csv"];
        for (model, more) in [(&other, &[][..]), (&own, &settings[..]), (&own, &csv[..])] {
            let outcome = score(model, more);
            assert_eq!(outcome.code, Some(2), "{more:?}: {}", outcome.stderr);
            assert!(outcome.stderr.contains("holds other files"), "{}", outcome.stderr);
            assert_eq!(everything(&output), before, "{more:?}");
        }
        let outcome = score(&own, &[]);
        assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
        assert_eq!(listed(&output), names(0..4));
        assert_eq!(verified(&output).code, Some(0));
    }
}
