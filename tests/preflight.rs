//! Errors that would occur later on some rank are refused before the first step, with advice.

use crate::support::{
    Case, Outcome, arguments, has_extension, program, ranks, ranks_with_clock_skew, result, run,
    skip, succeed, text, trained, tree,
};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

const ENVIRONMENT: i32 = 5;
const SHORT: &str = "[train]\nepochs = 2\nbatch = 1024\nshards = 4\n";
const PROGRAM: &str = env!("CARGO_BIN_EXE_taiga-flow");

/// Runs two ranks, the second with another command line.
pub fn run_two_commands(first: &[OsString], second: &[OsString]) -> Outcome {
    let mut command = ranks(1, first);
    command.args([":", "-n", "1"]).args(second);
    run(&mut command)
}

fn command_of(program: &Path, arguments: &[OsString]) -> Vec<OsString> {
    [&[program.into()], arguments].concat()
}

fn refused(outcome: &Outcome, parts: &[&str]) {
    assert_eq!(outcome.code, Some(ENVIRONMENT), "{}", outcome.stderr);
    for part in parts.iter().chain(&["advice: "]) {
        assert!(outcome.stderr.contains(part), "'{part}' is not in: {}", outcome.stderr);
    }
}

#[test]
fn ranks_with_unequal_configurations_are_refused() {
    let case = Case::new(2000, SHORT);
    let (output, other) = (case.at("run"), case.at("other.toml"));
    let changed = text(&case.configuration).replace("epochs = 2", "epochs = 3");
    std::fs::write(&other, changed).expect("a configuration");
    let first = case.train(&output, &[]);
    let second = arguments!["train", "-c", &other, "-o", &output, "--threads", "1"];
    let outcome = run_two_commands(&first, &command_of(Path::new(PROGRAM), &second));
    refused(&outcome, &["the configuration is not the same on all ranks", "of rank 1 on"]);
    assert!(!output.exists());
}

#[test]
fn ranks_with_different_builds_are_refused() {
    let case = Case::new(2000, SHORT);
    let (output, other) = (case.at("run"), case.at("taiga-flow"));
    let mut bytes = std::fs::read(PROGRAM).expect("the program");
    bytes.push(0); // a byte after the ELF image changes only the hash of the file
    std::fs::write(&other, bytes).expect("a copy");
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&other, executable).expect("a program");
    let command = case.train(&output, &[]);
    let outcome = run_two_commands(&command, &command_of(&other, &command));
    refused(&outcome, &["the program is not the same on all ranks", "start the same file"]);
    assert_eq!(outcome.stderr.matches("is not the same").count(), 1, "{}", outcome.stderr);
    assert!(!output.exists());
    // A copy of the same file is the same program.
    std::fs::copy(PROGRAM, &other).expect("a copy");
    let outcome = run_two_commands(&command, &command_of(&other, &command));
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
}

/// Returns a command line that runs the program with a file system of its own at `folder`.
fn with_own_disk(folder: &Path, options: &str, arguments: &[OsString]) -> Vec<OsString> {
    after(&format!("mount -t tmpfs -o {options} tmpfs '{}'", folder.display()), arguments)
}

/// Returns a command line that runs the program with another file or folder mounted at `path`.
fn with_bind_mount(other: &Path, path: &Path, arguments: &[OsString]) -> Vec<OsString> {
    let bind = format!("mount --bind '{}' '{}'", other.display(), path.display());
    after(&bind, arguments)
}

/// Returns a command line that runs the program in its own mount namespace, after a command there.
pub fn after(prepared: &str, arguments: &[OsString]) -> Vec<OsString> {
    let mount = format!("{prepared} && exec \"$0\" \"$@\"");
    let shell = arguments!["unshare", "-r", "-m", "sh", "-c", mount, PROGRAM];
    [&shell, arguments].concat()
}

pub fn can_mount() -> bool {
    let mut tried = Command::new("unshare");
    tried.args(["-r", "-m", "mount", "-t", "tmpfs", "none", "/mnt"]);
    let works = tried.output().is_ok_and(|o| o.status.success());
    if !works {
        skip("file systems cannot be mounted here (unshare -r -m)");
    }
    works
}

#[test]
fn run_folder_not_shared_is_refused() {
    if !can_mount() {
        return;
    }
    let case = Case::new(2000, SHORT);
    let place = case.at("local");
    std::fs::create_dir(&place).expect("a folder");
    let command = case.train(&place.join("run"), &[]);
    let outcome = run_two_commands(&command, &with_own_disk(&place, "size=9m", &command));
    refused(&outcome, &["is not shared by all ranks", "no such file on"]);
    assert!(tree(&place).is_empty(), "{:?}", tree(&place));
    // The same for scores, because every rank writes some.
    let score =
        arguments!["score", "-m", &trained().model, "-o", place.join("scores"), &trained().gamma];
    let outcome = run_two_commands(&score, &with_own_disk(&place, "size=9m", &score));
    refused(&outcome, &["is not shared by all ranks"]);
    assert!(!tree(&place).keys().any(|name| has_extension(name, "h5")), "{:?}", tree(&place));
}

/// A file that differs on a node although its path is the same.
#[test]
fn differing_file_at_same_path_is_refused() {
    if !can_mount() {
        return;
    }
    let case = Case::new(2000, SHORT);
    let (output, other) = (case.at("run"), case.at("old.toml"));
    std::fs::write(&other, text(&case.configuration).replace("hidden = [24]", "hidden = [25]"))
        .expect("a configuration");
    let command = case.train(&output, &[]);
    let outcome =
        run_two_commands(&command, &with_bind_mount(&other, &case.configuration, &command));
    refused(&outcome, &["the configuration is not the same on all ranks", "of rank 1 on"]);
    assert!(!output.exists());

    let model = case.at("model.safetensors");
    std::fs::copy(&trained().model, &model).expect("a model");
    let (run, scores) = (case.at("other"), case.at("scores"));
    succeed(&mut program(&case.train(&run, &[])));
    let score = arguments!["score", "-m", &model, "-o", &scores, &trained().gamma];
    let instead = with_bind_mount(&run.join("model.safetensors"), &model, &score);
    let outcome = run_two_commands(&score, &instead);
    refused(&outcome, &["the model is not the same on all ranks", "of rank 1 on"]);
    assert!(!scores.exists());
    // A copy of the same model at another path is the same model.
    let outcome = run_two_commands(&score, &with_bind_mount(&trained().model, &model, &score));
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
}

#[test]
fn inputs_seen_differently_by_a_rank_are_refused() {
    if !can_mount() {
        return;
    }
    let case = Case::new(2000, SHORT);
    let (archive, old) = (case.at("archive"), case.at("old"));
    for (folder, sources) in [(&archive, ["gamma", "gamma"]), (&old, ["gamma", "hadron"])] {
        std::fs::create_dir(folder).expect("a folder");
        for (i, class) in sources.iter().enumerate() {
            let source = if *class == "gamma" { &case.at("gamma.h5") } else { &trained().hadron };
            std::fs::copy(source, folder.join(format!("{i}.h5"))).expect("a file");
        }
    }
    let (run, scores) = (case.at("run"), case.at("scores"));
    let train = case.train(&run, &["--set", &format!("data.gamma=[\"{}\"]", archive.display())]);
    let score = arguments!["score", "-m", &trained().model, "-o", &scores, &archive];
    let extract = arguments!["extract", "-o", &scores, &archive];
    for command in [&train[..], &score, &extract] {
        for (line, found) in [
            (with_own_disk(&archive, "size=1m", command), "No such file"),
            (with_bind_mount(&old, &archive, command), " bytes, on "),
        ] {
            let outcome = run_two_commands(command, &line);
            refused(&outcome, &["an input is not the same on all ranks", "rank 1: ", found]);
            assert!(!run.exists() && !scores.exists());
        }
    }
}

#[test]
fn clock_skew_is_reported_or_refused() {
    let case = Case::new(2000, SHORT);
    let (run_folder, scores) = (case.at("run"), case.at("scores"));
    let train = case.train(&run_folder, &[]);
    let score = arguments!["score", "-m", &trained().model, "-o", &scores, &trained().gamma];
    for (command, victim, seconds, way) in [
        (&train[..], 1, 3600, "ahead of"),
        (&train, 0, 45, "behind"),
        (&score, 1, -86_400, "behind"),
    ] {
        let outcome = run(&mut ranks_with_clock_skew(2, command, victim, seconds));
        let context = format!(" s {way} that of rank 0");
        refused(&outcome, &["the clocks of the ranks differ", "the clock of rank 1 on ", &context]);
        assert!(!run_folder.exists() && !scores.exists());
    }
    // The usual clock drift of a cluster does not change the model.
    let whole = case.at("whole");
    succeed(&mut program(&case.train(&whole, &[])));
    let outcome = succeed(&mut ranks_with_clock_skew(2, &train, 1, -7));
    assert!(outcome.stderr.contains("behind that of rank 0"), "{}", outcome.stderr);
    assert_eq!(result(&run_folder), result(&whole));
}

#[test]
fn full_or_read_only_disk_is_refused_at_start() {
    if !can_mount() {
        return;
    }
    let case = Case::new(2000, SHORT);
    let place = case.at("disk");
    std::fs::create_dir(&place).expect("a folder");
    // A checkpoint has 2.2 MB.
    let command = case.train(&place.join("run"), &["--set", "model.hidden=[2000]"]);
    let on = |options: &str| {
        let line = with_own_disk(&place, options, &command);
        run(Command::new(&line[0]).args(&line[1..]))
    };
    let outcome = on("size=1m");
    refused_disk(&outcome, &["disk full", "room for "]);
    let outcome = on("ro");
    refused_disk(&outcome, &["cannot"]);
    // A disk with enough space succeeds.
    let outcome = on("size=20m");
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    // Scores of 30 000 events per file: both ranks write to a disk that both see.
    let files = [&trained().gamma, &trained().hadron];
    let score =
        arguments!["score", "-m", &trained().model, "-o", place.join("scores"), files[0], files[1]];
    for (options, expected) in [("size=64k", "disk full"), ("ro", "cannot")] {
        let job =
            [&["mpirun".into(), "-n".into(), "2".into(), PROGRAM.into()], &score[..]].concat();
        let outcome = run(&mut ranks_with_own_disk(&place, options, &job));
        assert_eq!(outcome.code, Some(ENVIRONMENT), "{}", outcome.stderr);
        assert!(outcome.stderr.contains(expected), "'{expected}' is not in: {}", outcome.stderr);
        assert!(!outcome.stderr.contains("scoring 2 file(s)"), "too late: {}", outcome.stderr);
    }
}

/// Returns a launcher and its ranks with a file system of their own at `folder`.
fn ranks_with_own_disk(folder: &Path, options: &str, job: &[OsString]) -> Command {
    let mount =
        format!("mount -t tmpfs -o {options} tmpfs '{}' && exec \"$0\" \"$@\"", folder.display());
    let mut command = Command::new("unshare");
    command.args(["-r", "-m", "sh", "-c", &mount]).args(job);
    // Set the launcher's environment variables.
    for (name, value) in ranks(2, &[]).get_envs() {
        if let Some(value) = value {
            command.env(name, value);
        }
    }
    command
}

fn refused_disk(outcome: &Outcome, parts: &[&str]) {
    assert_eq!(outcome.code, Some(ENVIRONMENT), "{}", outcome.stderr);
    for part in parts {
        assert!(outcome.stderr.contains(part), "'{part}' is not in: {}", outcome.stderr);
    }
    assert!(!outcome.stderr.contains("training on"), "too late: {}", outcome.stderr);
}

#[test]
fn dry_run_prints_needs_and_writes_nothing() {
    let case = Case::new(5000, SHORT);
    let output: PathBuf = case.at("run");
    let mut command = case.train(&output, &["--dry-run"]);
    let printed = succeed(&mut program(&command)).stdout;
    for part in ["4 shards", "events/s on one rank", "sbatch --ntasks=", "jobs/train.sbatch"] {
        assert!(printed.contains(part), "'{part}' is not in: {printed}");
    }
    command.push("--json".into());
    let printed = succeed(&mut ranks(2, &command)).stdout;
    let printed: serde_json::Value = serde_json::from_str(&printed).expect("one object");
    assert!(
        printed["events_per_s_per_rank"].as_f64().is_some_and(|rate| rate > 1000.0),
        "{printed}"
    );
    assert_eq!(printed["epochs"], 2);
    let counts: Vec<u64> = printed["ranks"]
        .as_array()
        .expect("ranks")
        .iter()
        .filter_map(|r| r["ranks"].as_u64())
        .collect();
    assert_eq!(counts, [1, 2, 4]);
    assert!(
        printed["sbatch"].as_str().is_some_and(|line| line.contains("--ntasks=2 ")),
        "{printed}"
    );
    assert!(!output.exists());
}
