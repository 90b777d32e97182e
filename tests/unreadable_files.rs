//! Bad files do not affect the others: files that cannot be read, that kill the reading process,
//! or that stop it, are named and left out. All other files are scored.

use crate::support::{
    Outcome, arguments, folder, kill, ledger, program, ranks, run, seed, simulated, succeed,
    trained, tree, with_bad_reads,
};
use serde_json::Value;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use taiga_flow::config::Class;

const PARTIAL: i32 = 4;

/// An archive of good files, and of files that will be bad for their reader.
struct Archive {
    folder: tempfile::TempDir,
    good: usize,
}

impl Archive {
    fn new(good: usize, bad: &[&str]) -> Archive {
        let archive = Archive { folder: folder(), good };
        let names = (0..good).map(|run| format!("night-{}/run-{run}.h5", run % 3));
        for (i, name) in names.chain(bad.iter().map(|name| (*name).to_string())).enumerate() {
            let path = archive.at("archive").join(name);
            simulated(path, Class::Gamma, 300 + 40 * i as u64, seed() + i as u64);
        }
        archive
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn score(&self, output: &Path, more: &[&str]) -> Vec<OsString> {
        let mut all = Vec::from(arguments!["score", "-m", &trained().model, "-o", output]);
        all.extend(arguments![self.at("archive"), "--threads", "1"]);
        all.extend(more.iter().map(OsString::from));
        all
    }

    /// Returns the outputs of the good files.
    fn expected(&self, bad: &[&str]) -> Vec<Value> {
        let whole = self.at("whole");
        succeed(&mut program(&self.score(&whole, &[])));
        let files = manifest(&whole)["files"].as_array().expect("files").clone();
        let is_bad = |file: &Value| bad.contains(&file["output"].as_str().expect("a name"));
        let good: Vec<Value> = files.into_iter().filter(|file| !is_bad(file)).collect();
        assert_eq!(good.len(), self.good);
        good
    }

    /// Repeats the same command until it finishes, and returns all outcomes.
    fn run_until_done(
        &self,
        output: &Path,
        count: usize,
        more: &[&str],
        bad: &str,
    ) -> Vec<Outcome> {
        let command = self.score(output, more);
        let mut outcomes = Vec::new();
        loop {
            let started = if count == 1 { program(&command) } else { ranks(count, &command) };
            outcomes.push(run(&mut with_bad_reads(started, bad)));
            let context: Vec<String> =
                outcomes.iter().map(|o| format!("{:?} {}", o.code, o.stderr)).collect();
            let done = [Some(0), Some(PARTIAL)].contains(&outcomes[outcomes.len() - 1].code);
            if done {
                return outcomes;
            }
            assert!(outcomes.len() < 8, "{}", context.join("\n---\n"));
        }
    }
}

fn manifest(output: &Path) -> Value {
    let text = std::fs::read(output.join("manifest.json")).expect("a manifest");
    serde_json::from_slice(&text).expect("JSON")
}

/// Returns the failed files of a manifest: output, exit code and reason.
fn failed(output: &Path) -> Vec<(String, u64, String)> {
    let manifest = manifest(output);
    assert_eq!(manifest["complete"], Value::Null, "complete");
    let failed = manifest["failed"].as_object().expect("failed files").values();
    let text = |value: &Value| value.as_str().expect("a text").to_string();
    failed
        .map(|f| (text(&f["output"]), f["exit_code"].as_u64().expect("a code"), text(&f["reason"])))
        .collect()
}

fn verified(output: &Path) -> Outcome {
    run(&mut program(&arguments!["verify", output]))
}

/// With these limits, the watchdog finds a rank without progress within half of its deadline.
const LIMITS: [&str; 4] = ["--watchdog", "12s", "--probe-timeout", "3s"];

fn check_aborts_and_hangs(count: usize) {
    let bad = ["night-1/abort.h5", "night-2/hang.h5"];
    let archive = Archive::new(20, &bad);
    let expected = archive.expected(&bad);
    let output = archive.at("scores");
    let how = "/abort.h5:abort,/hang.h5:hang";
    let outcomes = archive.run_until_done(&output, count, &LIMITS, how);
    assert!(outcomes.len() <= 3, "{} starts", outcomes.len());
    println!("{count} rank(s): {} restart(s)", outcomes.len() - 1);
    let stopped = outcomes.iter().find(|o| o.stderr.contains("no progress for"));
    if let Some(stopped) = stopped {
        assert_eq!(stopped.code, Some(5), "{}", stopped.stderr);
        assert!(stopped.stderr.contains("night-2/hang.h5"), "{}", stopped.stderr);
    }
    let last = &outcomes[outcomes.len() - 1];
    assert_eq!(last.code, Some(PARTIAL), "{}", last.stderr);
    let named = failed(&output);
    assert_eq!(named.iter().map(|(output, ..)| output.as_str()).collect::<Vec<_>>(), bad);
    assert!(named[0].2.contains("SIGABRT"), "{named:?}");
    assert!(named[1].2.contains("did not read it in 3 s"), "{named:?}");
    assert!(named.iter().all(|(_, code, _)| *code == 3), "{named:?}");
    assert_eq!(manifest(&output)["files"].as_array(), Some(&expected));
    for name in bad {
        assert!(last.stderr.contains(name), "{}", last.stderr);
        assert!(ledger(&output).contains_key(name));
    }
    let verified = verified(&output);
    assert_eq!(verified.code, Some(PARTIAL), "{}", verified.stderr);
    assert!(verified.stdout.contains("abort.h5") && verified.stdout.contains("hang.h5"));
    // Child processes read these files at each start. Once repaired, the program reads them
    // itself.
    let again = archive.run_until_done(&output, count, &LIMITS, how);
    assert_eq!((again.len(), again[0].code), (1, Some(PARTIAL)), "{}", again[0].stderr);
    let mended = archive.run_until_done(&output, count, &LIMITS, "");
    assert_eq!((mended.len(), mended[0].code), (1, Some(0)), "{}", mended[0].stderr);
    assert_eq!(tree(&output), tree(&archive.at("whole")));
    assert!(
        std::fs::read_dir(output.join("ledger"))
            .expect("a ledger")
            .flatten()
            .all(|entry| { !entry.file_name().to_string_lossy().ends_with(".reading") })
    );
}

#[test]
fn crashing_files_are_excluded_on_one_rank() {
    check_aborts_and_hangs(1);
}

#[test]
fn crashing_files_are_excluded_on_three_ranks() {
    check_aborts_and_hangs(3);
}

#[test]
fn late_crashing_files_are_excluded() {
    let bad = ["late-bus.h5", "late-eio.h5", "late-segv.h5"];
    let archive = Archive::new(6, &bad);
    let expected = archive.expected(&bad);
    let output = archive.at("scores");
    // The reads after the file was opened and checked.
    let how = "/late-bus.h5:bus+40,/late-eio.h5:eio+46,/late-segv.h5:segv+40";
    let outcomes = archive.run_until_done(&output, 1, &LIMITS, how);
    // The child process makes fewer reads than the program, so it may not reach the failing one.
    // Such a file costs a second restart if another one kills the process in between.
    assert!(outcomes.len() <= bad.len() + 2, "{} starts", outcomes.len());
    let named = failed(&output);
    assert_eq!(named.iter().map(|(output, ..)| output.as_str()).collect::<Vec<_>>(), bad);
    for ((_, _, reason), part) in named.iter().zip(["SIGBUS", "Input/output", "SIGSEGV"]) {
        assert!(reason.contains(part), "{reason}");
    }
    assert_eq!(manifest(&output)["files"].as_array(), Some(&expected));
}

/// Failed reads of a file are reported as system errors, wherever they occur. The HDF5 library
/// gives no reason when it follows the links of a group.
#[test]
fn failed_read_is_reported_as_system_error() {
    let folder = folder();
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/ctapipe.h5");
    let chunked = simulated(folder.path().join("chunked.h5"), Class::Gamma, 70_000, seed());
    for path in [data, chunked] {
        let name = format!("/{}", path.file_name().expect("a name").to_string_lossy());
        let check = arguments!["check", &path, "--json"];
        let whole = run(&mut program(&check));
        let mut failed_reads = 0;
        let mut read = seed() % 2;
        loop {
            let outcome = run(&mut with_bad_reads(program(&check), &format!("{name}:eio+{read}")));
            let context = format!("read {read} of {name}: {}{}", outcome.stdout, outcome.stderr);
            if outcome.stdout == whole.stdout {
                break;
            }
            assert_eq!(outcome.code, Some(3), "{context}");
            assert!(!context.contains("never written"), "{context}");
            let no_reason = context.contains("no built-in schema fits");
            assert!(no_reason || context.contains("Input/output error"), "{context}");
            failed_reads += 1;
            read += 1 + read / 8;
        }
        assert!(failed_reads > 3, "only {failed_reads} reads of {name}");
    }
}

#[test]
fn killed_reader_does_not_fail_good_files() {
    let archive = Archive::new(8, &["night-1/slow.h5"]);
    let output = archive.at("scores");
    let command = archive.score(&output, &[]);
    // The read hangs, a user kills the process, and at the second attempt the disk works again.
    let mut scoring =
        with_bad_reads(program(&command), "/slow.h5:hang").spawn().expect("a process");
    let note = output.join("ledger/1-of-1-0.reading");
    while !std::fs::read_to_string(&note).unwrap_or_default().contains("slow.h5") {
        assert_eq!(scoring.try_wait().expect("a child"), None, "it ended");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    kill(scoring.id());
    let _ = scoring.wait();
    let outcome = succeed(&mut program(&command));
    assert!(outcome.stderr.contains("a child process reads it first"), "{}", outcome.stderr);
    assert_eq!(manifest(&output)["files"].as_array().map(Vec::len), Some(9));
    assert_eq!(verified(&output).code, Some(0));
}

#[test]
fn shards_with_failed_files_complete() {
    let archive = Archive::new(4, &["night-1/bad.h5"]);
    let output = archive.at("scores");
    let bad = archive.at("archive/night-1/bad.h5");
    let good = std::fs::read(&bad).expect("a file");
    std::fs::write(&bad, &good[..good.len() / 2]).expect("a file");
    let shard = |which: &str, more: &[&str]| {
        run(&mut program(&archive.score(&output, &[&["--shard", which], more].concat()))).code
    };
    // One file per shard, so that one shard has only the bad file.
    let codes: Vec<Option<i32>> = (1..=5).map(|i| shard(&format!("{i}/5"), &[])).collect();
    assert_eq!(codes.iter().filter(|code| **code == Some(PARTIAL)).count(), 1, "{codes:?}");
    assert_eq!(codes.iter().filter(|code| **code == Some(0)).count(), 4, "{codes:?}");
    assert_eq!(manifest(&output)["files"].as_array().map(Vec::len), Some(4));
    assert_eq!(failed(&output)[0].0, "night-1/bad.h5");
    assert_eq!(verified(&output).code, Some(PARTIAL));
    let part = 1 + codes.iter().position(|code| *code == Some(PARTIAL)).expect("a part");
    assert_eq!(shard(&format!("{part}/5"), &["--allow-failed", "1"]), Some(0));
    std::fs::write(&bad, good).expect("a file");
    // Files are assigned to shards by length, so all files are assigned again.
    let codes: Vec<Option<i32>> =
        (1..=5).map(|i| shard(&format!("{i}/5"), &["--overwrite"])).collect();
    assert!(codes.iter().skip(4).all(|code| *code == Some(0)), "{codes:?}");
    assert_eq!(manifest(&output)["files"].as_array().map(Vec::len), Some(5));
    assert!(failed(&output).is_empty());
}

#[test]
fn night_that_fails_stays_in_the_manifest() {
    let archive = Archive::new(3, &["night-3/bad.h5"]);
    let output = archive.at("scores");
    let bad = archive.at("archive/night-3/bad.h5");
    let good = std::fs::read(&bad).expect("a file");
    std::fs::write(&bad, &good[..good.len() / 2]).expect("a file");
    let night = |number: usize| {
        let input = archive.at("archive").join(format!("night-{number}"));
        let root = archive.at("archive");
        let model = &trained().model;
        let six = ["--set", "score.positions=6"].map(OsString::from);
        let all = arguments!["score", "-m", model, "-o", &output, input, "--root", root];
        run(&mut program(&[&all[..], &six].concat()))
    };
    (0..3).for_each(|number| assert_eq!(night(number).code, Some(0)));
    let outcome = night(3);
    assert_eq!(outcome.code, Some(PARTIAL), "{}", outcome.stderr);
    assert_eq!(failed(&output).len(), 1);
    assert_eq!(manifest(&output)["files"].as_array().map(Vec::len), Some(3));
    let outcome = verified(&output);
    assert_eq!(outcome.code, Some(PARTIAL), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("bad.h5"), "{}", outcome.stderr);
    // The season report also needs `--allow-failed`.
    let season = |name: &str, more: &[&str]| {
        let all = arguments!["season", &output, "-o", archive.at(name), "--threshold", "-1000"];
        run(program(&all).args(more))
    };
    let refused = season("refused", &[]);
    assert_eq!(refused.code, Some(PARTIAL), "{}", refused.stderr);
    for part in ["1 of 4 files", "bad.h5", "truncated", "--allow-failed 1"] {
        assert!(refused.stderr.contains(part), "'{part}' is not in: {}", refused.stderr);
    }
    assert!(!archive.at("refused/season.json").exists());
    let report = season("allowed", &["--allow-failed", "1"]);
    assert_eq!(report.code, Some(0), "{}", report.stderr);
    let page = std::fs::read_to_string(archive.at("allowed/season.html")).expect("a page");
    let json = std::fs::read_to_string(archive.at("allowed/season.json")).expect("a season");
    for text in [&page, &json] {
        assert!(text.contains("1 of 4 files are in no figure") && text.contains("bad.h5"));
    }
    // So does a comparison.
    let compare = |more: &[&str]| {
        let all = arguments!["compare", &output, &output, "-o", archive.at("compared")];
        run(program(&all).args(["--threshold", "-1000"]).args(more))
    };
    let refused = compare(&[]);
    assert_eq!(refused.code, Some(PARTIAL), "{}", refused.stderr);
    for part in ["1 of 4 files", "bad.h5", "--allow-failed 1"] {
        assert!(refused.stderr.contains(part), "'{part}' is not in: {}", refused.stderr);
    }
    let written = archive.at("compared/comparison.json");
    assert!(!written.exists());
    let outcome = compare(&["--allow-failed", "1"]);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    assert!(
        outcome.stdout.contains("in no figure") && outcome.stdout.contains("bad.h5"),
        "{outcome:?}"
    );
    let json: Value =
        serde_json::from_slice(&std::fs::read(written).expect("a comparison")).expect("JSON");
    for side in ["first", "second"] {
        let failed = json[side]["failed"].as_object().expect("failed files");
        assert!(failed.len() == 1 && failed.keys().all(|name| name.ends_with("bad.h5")));
    }
    let page = archive.at("compared.html");
    succeed(&mut program(&arguments!["report", archive.at("compared"), "-o", &page]));
    assert!(std::fs::read_to_string(page).expect("a page").contains("bad.h5"));
    // The repaired file is scored like the others.
    std::fs::write(&bad, good).expect("a file");
    assert_eq!(night(3).code, Some(0));
    assert!(failed(&output).is_empty());
    assert_eq!(verified(&output).code, Some(0));
}

#[test]
fn demo_in_foreign_folder_is_refused() {
    let folder = folder();
    let kept = folder.path().join("run/model.safetensors");
    std::fs::create_dir_all(folder.path().join("run")).expect("a folder");
    std::fs::write(&kept, "of somebody").expect("a file");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("jobs/slurm-demo.sh");
    let mut demo = Command::new("bash");
    demo.args([&script, folder.path()]).env("TAIGA_FLOW_PROGRAM", "/bin/false");
    let outcome = run(&mut demo);
    assert_eq!(outcome.code, Some(2), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("not empty"), "{}", outcome.stderr);
    assert_eq!(std::fs::read_to_string(&kept).expect("the file"), "of somebody");
}
