//! Full disks and failing disk operations, each in turn: finished files stay intact, and the same
//! command resumes and ends with the same bytes.

use crate::support::{
    Case, EVERY_STEP, Outcome, arguments, folder, has_extension, hash, is_soak, ledger,
    newest_checkpoint, print_line, program, ranks, ranks_with_disk_fault, result, run, seed,
    simulated, skip, succeed, trained, tree, with_disk_fault,
};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use taiga_flow::config::Class;
use taiga_flow_gpu::random::Stream;

const ENVIRONMENT: i32 = 5;

/// Runs a shell script in a mount namespace with a small file system at `place`.
fn on_small_disk(place: &Path, size: &str, script: &str) -> Option<crate::support::Outcome> {
    std::fs::create_dir_all(place).expect("a folder");
    let mount = format!("mount -t tmpfs -o size={size} tmpfs '{}'", place.display());
    let isolated = |script: &str| {
        let mut command = Command::new("unshare");
        command.args(["-r", "-m", "sh", "-c", script]);
        command
    };
    if !isolated(&mount).output().is_ok_and(|o| o.status.success()) {
        skip("a small file system cannot be mounted here (unshare -r -m)");
        return None;
    }
    Some(run(&mut isolated(&format!("{mount} && {script}"))))
}

#[test]
fn full_disk_in_training_keeps_last_checkpoint() {
    // A checkpoint has 2.2 MB: the disk has room for one, but not for two.
    let case = Case::new(3000, EVERY_STEP);
    let (place, kept, whole) = (case.at("disk"), case.at("kept"), case.at("whole"));
    let wide = ["--set", "model.hidden=[2000]", "--set", "train.epochs=2"];
    let command = case.train(&place.join("run"), &wide);
    let line: Vec<String> = command.iter().map(|a| format!("'{}'", a.to_string_lossy())).collect();
    let script = format!(
        "{{ '{}' {}; code=$?; cp -a '{}/run' '{}'; exit $code; }}",
        env!("CARGO_BIN_EXE_taiga-flow"),
        line.join(" "),
        place.display(),
        kept.display()
    );
    let Some(outcome) = on_small_disk(&place, "3500k", &script) else { return };
    assert_eq!(outcome.code, Some(ENVIRONMENT), "{}", outcome.stderr);
    for part in ["disk full", "checkpoints/step-2.part/state.safetensors", "room for ", " bytes"] {
        assert!(outcome.stderr.contains(part), "'{part}' is not in: {}", outcome.stderr);
    }
    let names: Vec<String> = tree(&kept).into_keys().collect();
    assert!(!names.iter().any(|name| name.contains(".part")), "{names:?}");
    assert_eq!(newest_checkpoint(&kept), Some(1));
    let outcome = succeed(&mut program(&case.train(&kept, &wide)));
    assert!(outcome.stderr.contains("resumed at epoch 1, step 1"), "{}", outcome.stderr);
    succeed(&mut program(&case.train(&whole, &wide)));
    assert_eq!(result(&kept), result(&whole));
}

#[test]
fn full_disk_in_scoring_leaves_no_partial_output() {
    let (trained, folder) = (trained(), folder());
    let archive = folder.path().join("archive");
    for i in 0..3 {
        simulated(archive.join(format!("{i}.h5")), Class::Gamma, 40_000, seed() + i);
    }
    let (place, kept) = (folder.path().join("disk"), folder.path().join("kept"));
    let script = format!(
        "{{ '{}' score -m '{}' -o '{}/scores' '{}'; code=$?; cp -a '{}/scores' '{}'; exit $code; }}",
        env!("CARGO_BIN_EXE_taiga-flow"),
        trained.model.display(),
        place.display(),
        archive.display(),
        place.display(),
        kept.display()
    );
    let Some(outcome) = on_small_disk(&place, "600k", &script) else { return };
    assert_eq!(outcome.code, Some(ENVIRONMENT), "{}", outcome.stderr);
    for part in ["disk full", ".h5.", ".part", "room for ", " bytes"] {
        assert!(outcome.stderr.contains(part), "'{part}' is not in: {}", outcome.stderr);
    }
    let found = tree(&kept);
    assert!(!found.keys().any(|name| has_extension(name, "part")), "{found:?}");
    assert!(!found.is_empty() && found.len() < 3, "{found:?}");
    // On another disk, the same command resumes.
    let score = |output: &Path| arguments!["score", "-m", &trained.model, "-o", output, &archive];
    let whole = folder.path().join("whole");
    succeed(&mut program(&score(&whole)));
    let outcome = succeed(&mut program(&score(&kept)));
    assert!(outcome.stderr.contains("finished already"), "{}", outcome.stderr);
    assert_eq!(tree(&kept), tree(&whole));
}

#[test]
fn too_small_disk_is_refused_before_any_work() {
    let (trained, folder) = (trained(), folder());
    let archive = folder.path().join("archive");
    simulated(archive.join("a.h5"), Class::Gamma, 90_000, seed());
    let place = folder.path().join("disk");
    let script = format!(
        "'{}' score -m '{}' -o '{}/scores' '{}'; code=$?; ls -A '{}/scores'; exit $code",
        env!("CARGO_BIN_EXE_taiga-flow"),
        trained.model.display(),
        place.display(),
        archive.display(),
        place.display()
    );
    let Some(outcome) = on_small_disk(&place, "300k", &format!("{{ {script}; }}")) else { return };
    assert_eq!(outcome.code, Some(ENVIRONMENT), "{}", outcome.stderr);
    // Two f32 columns, of which compression removes half at best.
    for part in ["no space for the outputs", "between 360000 and", "bytes free"] {
        assert!(outcome.stderr.contains(part), "'{part}' is not in: {}", outcome.stderr);
    }
    assert_eq!(outcome.stdout, "", "work was started");
}

/// Returns the operations to fail: all in a soak, otherwise increasingly sparse ones from a random
/// start.
fn operations(kind: &str) -> impl Iterator<Item = u64> {
    let first = seed() % 7 + kind.len() as u64 % 3;
    let step = move |n: &u64| Some(if is_soak() { n + 1 } else { n + 5 + n / 4 });
    std::iter::successors(Some(if is_soak() { 0 } else { first }), step)
}

#[test]
fn training_resumes_after_any_disk_fault() {
    let case = Case::new(
        1500,
        "[train]\nepochs = 2\nbatch = 512\nshards = 2\n[run]\ncheckpoint_seconds = 0\n",
    );
    let (whole, mark) = (case.at("whole"), case.at("mark"));
    succeed(&mut program(&case.train(&whole, &[])));
    let expected = result(&whole);
    let mut failed_operations = BTreeMap::new();
    for kind in crate::support::FAULT_KINDS {
        for n in operations(kind) {
            let output = case.at("run");
            let command = case.train(&output, &[]);
            let outcome = run(&mut with_disk_fault(&command, &output, n, kind, &mark));
            let context = format!("{kind} {n}: {}", outcome.stderr);
            let ends = if kind == "death" { [None, None] } else { [Some(ENVIRONMENT), Some(0)] };
            let over = !mark.exists();
            assert!(over || ends.contains(&outcome.code), "{:?} {context}", outcome.code);
            if !over && outcome.code == Some(ENVIRONMENT) {
                assert!(
                    outcome.stderr.contains("disk ") && outcome.stderr.contains("run"),
                    "{context}"
                );
            }
            let again = succeed(&mut program(&command));
            assert!(!again.stderr.contains("damaged"), "{context}{}", again.stderr);
            assert_eq!(result(&output), expected, "{context}{}", again.stderr);
            let left: Vec<String> = outputs(&output).into_keys().collect();
            assert!(!left.iter().any(|name| name.contains(".part")), "{context}{left:?}");
            std::fs::remove_dir_all(&output).expect("the run");
            if over {
                assert!(n > 20, "only {n} operations");
                break;
            }
            *failed_operations.entry(kind).or_insert(0) += 1;
            if is_soak() && n % 20 == 0 {
                print_line(&format!("faults: {kind} in operation {n}"));
            }
        }
    }
    print_line(&format!(
        "faults in training, all resumed to the same bytes: {failed_operations:?}"
    ));
}

#[test]
fn replacing_run_on_bad_disk_leaves_one_whole() {
    let case = Case::new(
        1500,
        "[train]\nepochs = 2\nbatch = 512\nshards = 2\n[run]\ncheckpoint_seconds = 0\n",
    );
    let (old, mark) = (case.at("old"), case.at("mark"));
    succeed(&mut program(&case.train(&old, &["--set", "train.seed=3"])));
    let before = hash(&old.join("model.safetensors"));
    let output = case.at("run");
    for kind in crate::support::FAULT_KINDS {
        for n in operations(kind) {
            assert!(
                Command::new("cp").arg("-a").args([&old, &output]).status().expect("cp").success()
            );
            let command = case.train(&output, &["--overwrite"]);
            let outcome = run(&mut with_disk_fault(&command, &output, n, kind, &mark));
            let over = !mark.exists();
            let is_old = |place: &str| {
                let model = output.join(place).join("model.safetensors");
                model.exists() && hash(&model) == before
            };
            let new = newest_checkpoint(&output).is_some();
            assert!(is_old("") || is_old("replaced") || new, "{kind} {n}: {}", outcome.stderr);
            succeed(&mut program(&command));
            assert!(!output.join("replaced").exists());
            std::fs::remove_dir_all(&output).expect("the run");
            if over {
                break;
            }
        }
    }
}

#[test]
fn scoring_resumes_after_any_disk_fault() {
    let (trained, folder) = (trained(), folder());
    let archive = folder.path().join("archive");
    for (number, name) in ["one/a.h5", "two/b.h5", "c.h5"].into_iter().enumerate() {
        simulated(archive.join(name), Class::Gamma, 500, seed() + number as u64);
    }
    let score = |output: &Path| {
        arguments!["score", "-m", &trained.model, "-o", output, &archive, "--threads", "1"]
    };
    let (whole, output) = (folder.path().join("whole"), folder.path().join("scores"));
    let mark = folder.path().join("mark");
    succeed(&mut program(&score(&whole)));
    let expected = tree(&whole);
    let mut failed_operations = BTreeMap::new();
    for kind in crate::support::FAULT_KINDS {
        for n in operations(kind) {
            let outcome = run(&mut with_disk_fault(&score(&output), &output, n, kind, &mark));
            let over = !mark.exists();
            let context = format!("{kind} {n}: {:?} {}", outcome.code, outcome.stderr);
            let ends = if kind == "death" { [None, None] } else { [Some(ENVIRONMENT), Some(0)] };
            assert!(over || ends.contains(&outcome.code), "{context}");
            let found = if output.exists() { outputs(&output) } else { BTreeMap::new() };
            for (name, content) in &found {
                let whole = expected.get(name) == Some(content);
                assert!(whole || has_extension(name, "part"), "{name} is not whole: {context}");
                assert!(
                    kind == "death" || !has_extension(name, "part"),
                    "{name} is left: {context}"
                );
            }
            if found.contains_key("manifest.json") {
                assert_eq!(found, expected, "{context}");
            } else {
                succeed(&mut program(&score(&output)));
                assert_eq!(outputs(&output), expected, "{context}");
            }
            let _ = std::fs::remove_dir_all(&output);
            if over {
                assert!(n > 20, "only {n} operations");
                break;
            }
            *failed_operations.entry(kind).or_insert(0) += 1;
            if is_soak() && n % 20 == 0 {
                print_line(&format!("faults: {kind} in operation {n}"));
            }
        }
    }
    print_line(&format!(
        "faults in scoring, all finished with the same bytes: {failed_operations:?}"
    ));
}

/// Watchdog deadline of the tests in which one of two ranks fails, and the time that a launcher
/// may need on a machine with more processes than cores.
const DEADLINE: Duration = Duration::from_secs(10);
const LAUNCH: Duration = Duration::from_secs(20);

/// Returns the operations of a rank to fail: all in a soak, otherwise three of about `most`.
fn drawn(victim: usize, kind: &str, most: u64) -> Vec<u64> {
    if is_soak() {
        return (0..10_000).collect();
    }
    let stream = Stream::new(seed(), kind, &[victim as u64, most]);
    // One of the first operations, which prepare the job, and two random ones.
    vec![stream.bits(0) % 8, stream.bits(1) % most, stream.bits(2) % most]
}

/// Runs a job of two ranks in which operation `n` of rank `victim` fails. Returns `None` if the
/// rank had no such operation.
fn run_with_rank_fault(
    command: &[OsString],
    victim: usize,
    under: &Path,
    (n, kind): (u64, &str),
    mark: &Path,
) -> Option<Outcome> {
    let since = Instant::now();
    let outcome = run(&mut ranks_with_disk_fault(2, command, victim, under, (n, kind), mark));
    let (took, code) = (since.elapsed(), outcome.code);
    let context = format!("rank {victim}, {kind} {n}: {code:?} {}", outcome.stderr);
    assert!(took < DEADLINE + LAUNCH, "{took:?} {context}");
    if !mark.exists() {
        assert_eq!(code, Some(0), "{context}");
        return None;
    }
    if kind == "death" {
        // The launcher may report the death before the watchdog does.
        assert!(
            code != Some(0) && context.contains(&format!("process rank {victim} ")),
            "{context}"
        );
    } else {
        assert!([Some(ENVIRONMENT), Some(0)].contains(&code), "{context}");
        if code == Some(ENVIRONMENT) {
            let named = ["disk ", "cannot write ", "no heartbeat"];
            assert!(named.iter().any(|part| context.contains(part)), "{context}");
        }
    }
    Some(outcome)
}

/// Lets operations of one rank fail in all ways. `check` evaluates what each job left, and
/// finishes it. Returns how many operations failed, by kind.
fn fail_rank_operations(
    command: &[OsString],
    victim: usize,
    under: &Path,
    most: u64,
    mark: &Path,
    mut check: impl FnMut(&str),
) -> BTreeMap<&'static str, u64> {
    let mut failed = BTreeMap::new();
    for kind in crate::support::FAULT_KINDS {
        let mut missed = 0;
        for n in drawn(victim, kind, most) {
            let outcome = run_with_rank_fault(command, victim, under, (n, kind), mark);
            missed = if outcome.is_some() { 0 } else { missed + 1 };
            *failed.entry(kind).or_insert(0) += u64::from(outcome.is_some());
            let message = outcome.map_or(String::new(), |outcome| outcome.stderr);
            check(&format!("rank {victim}, {kind} {n}: {message}"));
            if is_soak() && missed == 2 {
                break;
            }
            if is_soak() && n % 20 == 0 {
                print_line(&format!("faults: rank {victim}, {kind} in operation {n}"));
            }
        }
    }
    assert!(failed.values().sum::<u64>() > 3, "{failed:?}");
    failed
}

#[test]
fn two_rank_training_resumes_after_disk_fault() {
    let case = Case::new(
        1500,
        "[train]\nepochs = 2\nbatch = 512\nshards = 2\n[run]\ncheckpoint_seconds = 0\n",
    );
    let (whole, output, mark) = (case.at("whole"), case.at("run"), case.at("mark"));
    succeed(&mut program(&case.train(&whole, &[])));
    let expected = result(&whole);
    let deadline = format!("{}s", DEADLINE.as_secs());
    let command = case.train(&output, &["--watchdog", &deadline]);
    let mut finished = 0;
    let mut finish = |expected_text: &str| {
        // Mostly on one rank, because it is faster.
        finished += 1;
        let alone = finished % 4 > 0;
        let again = succeed(&mut if alone { program(&command) } else { ranks(2, &command) });
        assert!(!again.stderr.contains("damaged"), "{expected_text}{}", again.stderr);
        assert_eq!(result(&output), expected, "{expected_text}{}", again.stderr);
        for name in outputs(&output).into_keys() {
            let left = [".part", ".seen", ".ranks", ".room"].iter().any(|end| name.ends_with(end));
            assert!(!left, "{expected_text}{name} is left");
        }
        std::fs::remove_dir_all(&output).expect("the run");
    };
    // Only rank 0 writes the run; the other ranks write only their heartbeats.
    for (victim, under, most) in [(0, output.clone(), 170), (1, output.join(".ranks"), 5)] {
        let failed = fail_rank_operations(&command, victim, &under, most, &mark, &mut finish);
        print_line(&format!(
            "faults in training, rank {victim} of 2, all resumed to the same bytes: {failed:?}"
        ));
    }
}

#[test]
fn two_rank_scoring_resumes_after_disk_fault() {
    let (trained, folder) = (trained(), folder());
    let archive = folder.path().join("archive");
    // Six positions make enough work for both ranks.
    for i in 0..6 {
        simulated(archive.join(format!("{i}/a.h5")), Class::Gamma, 20_000, seed() + i);
    }
    // Long enough to be split into pieces.
    simulated(archive.join("long.h5"), Class::Gamma, 140_000, seed());
    let score = |output: &Path| {
        let deadline = format!("{}s", DEADLINE.as_secs());
        let all =
            arguments!["score", "-m", &trained.model, "-o", output, &archive, "--threads", "1"];
        [
            &all[..],
            &arguments![
                "--set",
                "score.positions=6",
                "--batch",
                "8192",
                "--split-rows",
                "65536",
                "--watchdog",
                deadline
            ],
        ]
        .concat()
    };
    let (whole, output) = (folder.path().join("whole"), folder.path().join("scores"));
    let mark = folder.path().join("mark");
    succeed(&mut program(&score(&whole)));
    let expected = tree(&whole);
    let command = score(&output);
    let mut finished = 0;
    let mut finish = |expected_text: &str| {
        let found = if output.exists() { outputs(&output) } else { BTreeMap::new() };
        for (name, content) in found.iter().filter(|(name, _)| !name.starts_with('.')) {
            let whole = expected.get(name) == Some(content);
            assert!(whole || has_extension(name, "part"), "{name} is not whole: {expected_text}");
        }
        // Mostly on one rank, because it is faster.
        finished += 1;
        let alone = finished % 4 > 0;
        succeed(&mut if alone { program(&command) } else { ranks(2, &command) });
        assert_eq!(outputs(&output), expected, "{expected_text}");
        let scored = ledger(&output);
        assert!(
            scored.len() == 7 && scored.values().all(|n| *n == 1),
            "{scored:?} {expected_text}"
        );
        std::fs::remove_dir_all(&output).expect("the scores");
    };
    for victim in [0, 1] {
        let failed = fail_rank_operations(&command, victim, &output, 70, &mark, &mut finish);
        print_line(&format!(
            "faults in scoring, rank {victim} of 2, all finished with the same bytes: {failed:?}"
        ));
    }
}

/// Returns the content of an output folder without a lock file that could not be removed; such a
/// file locks nothing.
fn outputs(folder: &Path) -> BTreeMap<String, String> {
    let mut found = tree(folder);
    found.remove(".lock");
    found
}
