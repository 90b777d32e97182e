//! Extractions that stop, resume and grow keep finished files. `verify` checks their folder, and a
//! finished extraction needs no writable disk.

use crate::support::{
    Outcome, Watched, arguments, folder, json, ledger, program, rank_processes, ranks, run, seed,
    signal, simulated, simulated_images, skip, succeed, text, trained, tree,
};
use serde_json::Value;
use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use taiga_flow::config::Class;

/// Image files of several nights, two files per night.
struct Images {
    folder: tempfile::TempDir,
}

impl Images {
    fn new(files: u64, events: u64) -> Images {
        let images = Images { folder: folder() };
        (0..files).for_each(|file| images.add(file, events));
        images
    }

    fn add(&self, file: u64, events: u64) {
        let class = if file.is_multiple_of(2) { "gamma" } else { "hadron" };
        simulated_images(&self.input(file), class, events + 7 * file, seed() + file);
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn input(&self, file: u64) -> PathBuf {
        self.at(&format!("images/night-{}/run-{file}.h5", file / 2))
    }

    fn extract(&self, output: &str, input: &Path, more: &[&str]) -> Vec<OsString> {
        let mut all = Vec::from(arguments!["extract", "-o", self.at(output), input]);
        all.extend(more.iter().map(OsString::from));
        all
    }
}

fn manifest(output: &Path) -> Value {
    serde_json::from_str(&text(&output.join("manifest.json"))).expect("JSON")
}

fn refused(outcome: &Outcome, code: i32, part: &str) {
    assert_eq!(outcome.code, Some(code), "{}{}", outcome.stdout, outcome.stderr);
    assert!(outcome.stderr.contains(part), "'{part}' is not in: {}", outcome.stderr);
}

/// Changes one byte of a file and sets its modification time.
fn alter(path: &Path, modified: std::time::SystemTime) {
    let mut bytes = std::fs::read(path).expect("a file");
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(path, bytes).expect("a file");
    let file = File::options().write(true).open(path).expect("a file");
    file.set_modified(modified).expect("a time");
}

#[test]
fn finished_extraction_is_kept_without_reading() {
    let images = Images::new(4, 30);
    let (input, output) = (images.at("images"), images.at("hillas"));
    let command = images.extract("hillas", &input, &[]);
    succeed(&mut program(&command));
    let before = tree(&output);
    // An input with unchanged size and time is not read, so its changed content stays unnoticed.
    let first = images.input(0);
    let modified = std::fs::metadata(&first).and_then(|data| data.modified()).expect("a time");
    alter(&first, modified);
    for count in [1, 3] {
        let outcome =
            succeed(&mut if count == 1 { program(&command) } else { ranks(count, &command) });
        assert!(outcome.stderr.contains("is finished already"), "{}", outcome.stderr);
        assert_eq!(tree(&output), before);
    }
    // With another time it is read, and the changed content is refused.
    let file = File::options().write(true).open(&first).expect("a file");
    file.set_modified(modified + Duration::from_secs(5)).expect("a time");
    refused(&run(&mut program(&command)), 4, "1 of 4 files failed");
    // The original content with a new time is accepted.
    alter(&first, modified + Duration::from_secs(9));
    succeed(&mut program(&command));
    assert_eq!(tree(&output), before);
    assert!(ledger(&output).values().all(|times| *times == 1));
    // New files are extracted, and finished ones are kept.
    images.add(4, 20);
    succeed(&mut program(&command));
    assert_eq!(ledger(&output).len(), 5);
    assert!(ledger(&output).values().all(|times| *times == 1));
    // A changed output is refused.
    let changed = output.join("night-0/run-1.h5");
    std::fs::write(&changed, "no events").expect("a file");
    let outcome = run(&mut program(&command));
    refused(&outcome, 4, "1 of 5 files failed");
    assert!(outcome.stdout.contains("changed since it was written"), "{}", outcome.stdout);
}

#[test]
fn nights_extracted_singly_stay_in_manifest() {
    let images = Images::new(6, 20);
    let input = images.at("images");
    let root = ["--root", input.to_str().expect("UTF-8")];
    for night in 0..3 {
        let night = input.join(format!("night-{night}"));
        succeed(&mut program(&images.extract("hillas", &night, &root)));
    }
    succeed(&mut program(&images.extract("whole", &input, &[])));
    assert_eq!(tree(&images.at("hillas")), tree(&images.at("whole")));
    succeed(&mut program(&arguments!["verify", images.at("hillas")]));
    // Different settings in one folder are refused.
    let before = tree(&images.at("hillas"));
    images.add(6, 20);
    let other = [&root[..], &["--high", "20"]].concat();
    let outcome = run(&mut program(&images.extract("hillas", &input.join("night-3"), &other)));
    refused(&outcome, 2, "with other settings");
    assert_eq!(tree(&images.at("hillas")), before);
    // A night with a failed input leaves the others complete.
    let bad = input.join("night-9/run-9.h5");
    std::fs::create_dir_all(input.join("night-9")).expect("a folder");
    std::fs::write(&bad, "no images").expect("a file");
    let outcome = run(&mut program(&images.extract("hillas", &input.join("night-9"), &root)));
    assert_eq!(outcome.code, Some(3), "{}", outcome.stderr);
    assert_eq!(manifest(&images.at("hillas"))["files"].as_array().map(Vec::len), Some(6));
    assert!(manifest(&images.at("hillas"))["complete"].is_null());
    // A removed output stays in the manifest until `--forget-missing`.
    std::fs::remove_file(images.at("hillas/night-0/run-0.h5")).expect("an output");
    let outcome = run(&mut program(&images.extract("hillas", &input.join("night-3"), &root)));
    refused(&outcome, 4, "night-0/run-0.h5");
    assert!(outcome.stdout.contains("no longer as it was written"), "{}", outcome.stdout);
    assert_eq!(manifest(&images.at("hillas"))["files"].as_array().map(Vec::len), Some(7));
    let forget = [&root[..], &["--forget-missing"]].concat();
    succeed(&mut program(&images.extract("hillas", &input.join("night-3"), &forget)));
    assert_eq!(manifest(&images.at("hillas"))["files"].as_array().map(Vec::len), Some(6));
}

#[test]
fn stopped_extraction_exits_with_75_and_resumes() {
    let images = Images::new(1, 1500);
    for file in 1..24 {
        let path = images.input(file);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        simulated_images(&path, "gamma", 200, seed() + file);
    }
    let input = images.at("images");
    let command = images.extract("hillas", &input, &["--threads", "1"]);
    succeed(&mut program(&images.extract("whole", &input, &[])));
    let (output, expected) = (images.at("hillas"), tree(&images.at("whole")));
    let mut stopped = 0;
    for (count, asked) in [(1, libc::SIGTERM), (2, libc::SIGUSR1), (1, libc::SIGUSR1)] {
        let _ = std::fs::remove_dir_all(&output);
        let log_path = images.at("log");
        let start = &mut if count == 1 { program(&command) } else { ranks(count, &command) };
        let mut running = Watched::start_with_log(start, &log_path);
        while running.exit_status().is_none() && !output.join("ledger").is_dir() {
            std::thread::sleep(Duration::from_millis(1));
        }
        if count == 1 {
            signal(running.id(), asked);
        } else {
            rank_processes(&running).iter().take(1).for_each(|process| signal(*process, asked));
        }
        let code = running.wait().code();
        assert!(matches!(code, Some(75 | 0)), "{code:?}: {}", text(&log_path));
        stopped += usize::from(code == Some(75));
        assert_eq!(code == Some(0), output.join("manifest.json").exists());
        if code == Some(75) {
            assert!(text(&log_path).contains("run the same command again"), "{}", text(&log_path));
        }
        succeed(&mut ranks(3 - count, &command));
        assert_eq!(tree(&output), expected);
        assert!(ledger(&output).values().all(|times| *times == 1));
    }
    assert!(stopped > 0, "no extraction was stopped before its end");
}

#[test]
fn killed_extraction_keeps_earlier_nights() {
    let images = Images::new(4, 400);
    let input = images.at("images");
    let root = ["--root", input.to_str().expect("UTF-8"), "--threads", "1"];
    let night = |night: u64| images.extract("hillas", &input.join(format!("night-{night}")), &root);
    succeed(&mut program(&night(0)));
    let output = images.at("hillas");
    let mut running = Watched::start(&mut program(&night(1)));
    while running.exit_status().is_none() && manifest(&output)["complete"] != Value::Bool(false) {
        std::hint::spin_loop();
    }
    drop(running);
    assert_eq!(manifest(&output)["files"].as_array().map(Vec::len), Some(2));
    let outcome = run(&mut program(&arguments!["verify", &output]));
    refused(&outcome, 3, "not complete");
    succeed(&mut program(&night(1)));
    succeed(&mut program(&images.extract("whole", &input, &[])));
    assert_eq!(tree(&output), tree(&images.at("whole")));
}

#[test]
fn killed_overwrite_of_an_extraction_is_resumed() {
    let images = Images::new(8, 150);
    let (input, output) = (images.at("images"), images.at("hillas"));
    let other = ["--high", "20", "--threads", "1"];
    succeed(&mut program(&images.extract("whole", &input, &other)));
    for flag in [&[][..], &["--overwrite"]] {
        let _ = std::fs::remove_dir_all(&output);
        succeed(&mut program(&images.extract("hillas", &input, &[])));
        let overwrite = [&other[..], &["--overwrite"]].concat();
        let mut running =
            Watched::start(&mut program(&images.extract("hillas", &input, &overwrite)));
        let lines = || text(&output.join("ledger/1-of-1.jsonl")).lines().count();
        let is_begun = || output.join("ledger/started.json").exists();
        while running.exit_status().is_none() && !(is_begun() && (1..8).contains(&lines())) {
            std::hint::spin_loop();
        }
        drop(running);
        let finished = lines();
        // Neither old nor new files are accepted as a complete extraction.
        if is_begun() {
            let score = arguments!["score", "-m", &trained().model, "-o", images.at("s"), &output];
            refused(&run(&mut program(&score)), 3, "has not finished");
        }
        let resumed = [&other[..], flag].concat();
        let outcome = succeed(&mut program(&images.extract("hillas", &input, &resumed)));
        assert!(outcome.stderr.contains("extracting"), "{finished}: {}", outcome.stderr);
        assert_eq!(tree(&output), tree(&images.at("whole")));
        assert!(ledger(&output).values().all(|times| *times == 1), "{finished} of 8");
        succeed(&mut program(&arguments!["verify", &output]));
    }
}

#[test]
fn verify_checks_extractions() {
    let images = Images::new(4, 20);
    let (input, output) = (images.at("images"), images.at("hillas"));
    succeed(&mut program(&images.extract("hillas", &input, &[])));
    let verify = arguments!["verify", &output];
    let report = json(&verify);
    assert_eq!((&report["files"], &report["has_ledger"]), (&Value::from(4), &Value::from(true)));
    succeed(&mut ranks(2, &verify));
    let wrong = |part: &str| {
        let outcome = run(&mut program(&verify));
        assert_eq!(outcome.code, Some(3), "{}", outcome.stderr);
        assert!(outcome.stdout.contains(part), "'{part}' is not in: {}", outcome.stdout);
    };
    let path = output.join("night-1/run-3.h5");
    let whole = std::fs::read(&path).expect("an output");
    std::fs::write(&path, &whole[..whole.len() - 1]).expect("a file");
    wrong("night-1/run-3.h5: blake3 is");
    std::fs::remove_file(&path).expect("an output");
    wrong("night-1/run-3.h5: cannot be read");
    std::fs::write(&path, &whole).expect("a file");
    std::fs::write(output.join("other.h5"), &whole).expect("a file");
    wrong("other.h5: is not in the manifest");
    std::fs::remove_file(output.join("other.h5")).expect("a file");
    images.add(4, 20);
    wrong("run-4.h5 is in no manifest");
    std::fs::remove_file(images.input(4)).expect("an input");
    // An output listed twice in the manifest.
    let path = output.join("manifest.json");
    let before = text(&path);
    let mut doubled = manifest(&output);
    let first = doubled["files"][0].clone();
    doubled["images"] = Value::from(
        doubled["images"].as_u64().zip(first["images"].as_u64()).map_or(0, |(a, b)| a + b),
    );
    doubled["files"].as_array_mut().expect("files").push(first);
    std::fs::write(&path, doubled.to_string()).expect("a file");
    wrong("is listed twice in the manifest");
    std::fs::write(&path, before).expect("a file");
    succeed(&mut program(&verify));
    // A missing ledger is reported.
    std::fs::remove_dir_all(output.join("ledger")).expect("a ledger");
    let outcome = succeed(&mut program(&verify));
    assert!(outcome.stdout.contains("no ledger"), "{}", outcome.stdout);
    // Without a manifest there is nothing to compare with.
    std::fs::remove_file(path).expect("a manifest");
    let outcome = run(&mut program(&verify));
    refused(&outcome, 3, "nothing to verify");
    assert!(outcome.stderr.contains("advice"), "{}", outcome.stderr);
}

/// Runs a command with `place` mounted read-only. Returns `None` where mounting is not possible.
fn on_read_only_disk(place: &Path, command: &Command) -> Option<Outcome> {
    let mount = "mount --bind \"$0\" \"$0\" && mount -o remount,bind,ro \"$0\"";
    let isolated = |script: &str| {
        let mut isolated = Command::new("unshare");
        isolated.args(["-r", "-m", "sh", "-c", script]).arg(place);
        isolated
    };
    if !isolated(mount).output().is_ok_and(|o| o.status.success()) {
        skip("a read-only mount cannot be made here (unshare -r -m)");
        return None;
    }
    let mut isolated = isolated(&format!("{mount} && exec \"$@\""));
    isolated.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            isolated.env(name, value);
        }
    }
    Some(run(&mut isolated))
}

#[test]
fn finished_outputs_on_read_only_disk_complete() {
    let images = Images::new(3, 30);
    let archive = images.at("archive");
    for i in 0..3 {
        simulated(archive.join(format!("run-{i}.h5")), Class::Gamma, 200, seed() + i);
    }
    let model = &trained().model;
    let score = |more: &[&str], output: &str| -> Vec<OsString> {
        let all = arguments!["score", "-m", model, "-o", images.at(output), &archive];
        all.into_iter().chain(more.iter().map(OsString::from)).collect()
    };
    let commands = [
        ("hillas", images.extract("hillas", &images.at("images"), &[])),
        ("scores", score(&[], "scores")),
        ("tables", score(&["--format", "csv"], "tables")),
        ("shards", score(&["--shard", "2/2"], "shards")),
    ];
    succeed(&mut program(&score(&["--shard", "1/2"], "shards")));
    for (name, command) in &commands {
        let output = images.at(name);
        succeed(&mut program(command));
        let before = tree(&output);
        for count in [1, 2] {
            let command = if count == 1 { program(command) } else { ranks(count, command) };
            let Some(outcome) = on_read_only_disk(&output, &command) else { return };
            assert_eq!(outcome.code, Some(0), "{name}, {count}: {}", outcome.stderr);
            assert!(outcome.stderr.contains("finished already"), "{name}: {}", outcome.stderr);
        }
        assert_eq!(tree(&output), before, "{name}");
    }
    // An unfinished output cannot be written, and the message names the disk as the reason.
    images.add(3, 20);
    simulated(archive.join("run-3.h5"), Class::Gamma, 200, seed() + 3);
    for (name, command) in &commands[..2] {
        for count in [1, 2] {
            let command = if count == 1 { program(command) } else { ranks(count, command) };
            let Some(outcome) = on_read_only_disk(&images.at(name), &command) else { return };
            refused(&outcome, 5, "ead-only");
        }
    }
}
