//! Hosts that read different files: stale copies are refused with file and host, while other
//! mounts of the same files are accepted.

use crate::preflight::{after, can_mount, run_two_commands};
use crate::support::{
    Case, Outcome, arguments, folder, hash, program, ranks, run, seed, simulated, skip, succeed,
    trained, tree,
};
use std::ffi::OsString;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use taiga_flow::config::Class;
use taiga_flow_gpu::random::Stream;

const REFUSED: i32 = 3;
const SHORT: &str = "[train]\nepochs = 1\nbatch = 1024\nshards = 4\n";

/// Runs two ranks, the second on a host of its own after a shell command there.
fn with_other_host(prepared: &str, arguments: &[OsString]) -> Outcome {
    let mut line = after(&format!("hostname with_own_disk && {prepared}"), arguments);
    line.insert(1, "-u".into()); // option of `unshare`
    run_two_commands(arguments, &line)
}

fn can_name_a_host() -> bool {
    let mut tried = Command::new("unshare");
    tried.args(["-r", "-u", "hostname", "with_own_disk"]);
    let works = tried.output().is_ok_and(|o| o.status.success());
    if !works {
        skip("hosts cannot be named here (unshare -r -u)");
    }
    works && can_mount()
}

/// Writes a copy of equal length with one byte changed, and optionally the same modification time.
fn stale_copy(file: &Path, copy: &Path, at: u64, keep_time: bool) {
    std::fs::create_dir_all(copy.parent().expect("a folder")).expect("a folder");
    std::fs::copy(file, copy).expect("a copy");
    let opened = std::fs::File::options().read(true).write(true).open(copy).expect("a copy");
    let mut byte = [0];
    opened.read_exact_at(&mut byte, at).expect("a byte");
    opened.write_all_at(&[!byte[0]], at).expect("a byte");
    if keep_time {
        let time = std::fs::metadata(file).expect("a file").modified().expect("a time");
        opened.set_modified(time).expect("a time");
    }
}

#[test]
fn stale_copy_is_refused_by_file_and_host() {
    if !can_name_a_host() {
        return;
    }
    let case = Case::new(2000, SHORT);
    let gamma = case.at("gamma.h5");
    let bytes = std::fs::metadata(&gamma).expect("a file").len();
    let stream = Stream::new(seed(), "stale copy", &[]);
    let (run_folder, scores, evaluation) =
        (case.at("run"), case.at("scores"), case.at("evaluation"));
    let (model, hadron) = (&trained().model, &trained().hadron);
    let evaluate = arguments![
        "evaluate",
        "-m",
        model,
        "--gamma",
        &gamma,
        "--hadron",
        hadron,
        "-o",
        &evaluation
    ];
    let commands = [
        case.train(&run_folder, &[]),
        arguments!["score", "-m", model, "-o", &scores, &gamma, hadron].to_vec(),
        evaluate.to_vec(),
    ];
    for (i, command) in commands.iter().enumerate() {
        let copy = case.at(&format!("copy-{i}/gamma.h5"));
        stale_copy(&gamma, &copy, stream.bits(i as u64) % bytes, i % 2 == 0);
        let bind = format!("mount --bind '{}' '{}'", copy.display(), gamma.display());
        let outcome = with_other_host(&bind, command);
        assert_eq!(outcome.code, Some(REFUSED), "{command:?}: {}", outcome.stderr);
        for part in
            ["gamma.h5: the content of an input is not the same on all hosts", " on with_own_disk"]
        {
            assert!(outcome.stderr.contains(part), "'{part}' is not in: {}", outcome.stderr);
        }
        assert!(
            !run_folder.exists()
                && !scores.exists()
                && !evaluation.join("evaluation.json").exists()
        );
    }
}

#[test]
fn equal_copy_on_a_host_is_accepted() {
    if !can_name_a_host() {
        return;
    }
    let case = Case::new(2000, SHORT);
    let (gamma, copy) = (case.at("gamma.h5"), case.at("copy.h5"));
    std::fs::copy(&gamma, &copy).expect("a copy"); // with its own modification time
    let bind = format!("mount --bind '{}' '{}'", copy.display(), gamma.display());
    let (shared, alone) = (case.at("shared"), case.at("alone"));
    let outcome = with_other_host(&bind, &case.train(&shared, &[]));
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("but the same content"), "{}", outcome.stderr);
    succeed(&mut program(&case.train(&alone, &[])));
    let model = "model.safetensors";
    assert_eq!(hash(&shared.join(model)), hash(&alone.join(model)));
}

#[test]
fn long_file_on_other_mount_is_scored_in_pieces() {
    if !can_mount() {
        return;
    }
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    // More rows than a rank takes at once by default.
    simulated(at("copy/long.h5"), Class::Gamma, 1_400_000, seed());
    std::fs::create_dir(at("archive")).expect("a folder");
    let keep = ["-p", "copy/long.h5", "archive/long.h5"];
    let copied = Command::new("cp").args(keep).current_dir(folder.path()).status();
    assert!(copied.expect("cp").success());
    let score = |output: &Path| {
        let model = &trained().model;
        arguments!["score", "-v", "--threads", "1", "-m", model, "-o", output, at("archive")]
    };
    // The same content and time, but in a file system with another device number.
    let other = format!(
        "mount -t tmpfs tmpfs '{}' && cp -p '{}' '{}'",
        at("archive").display(),
        at("copy/long.h5").display(),
        at("archive/long.h5").display()
    );
    let (shared, alone) = (at("shared"), at("alone"));
    let outcome = run_two_commands(&score(&shared), &after(&other, &score(&shared)));
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    let rows = |line: &str| {
        let (_, rest) = line.split_once("rank 0: ").or_else(|| line.split_once("rank 1: "))?;
        rest.split_once(" rows in")?.0.parse::<u64>().ok()
    };
    let shares: Vec<u64> = outcome.stderr.lines().filter_map(rows).collect();
    assert!(shares.len() == 2 && shares.iter().all(|rows| *rows > 0), "{}", outcome.stderr);
    succeed(&mut program(&score(&alone)));
    assert_eq!(tree(&shared), tree(&alone));
    // No work is left on any number of ranks.
    let again = run(&mut ranks(2, &score(&shared)));
    assert!(again.stderr.contains("is finished already"), "{}", again.stderr);
}
