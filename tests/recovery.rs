//! Existing files stay until their replacement is complete, and an interrupted scoring resumes
//! with its finished files.

use crate::support::{
    Case, Watched, arguments, configuration, folder, hash, json, kill, program, ranks, run, seed,
    simulated, succeed, text, trained, tree,
};
use std::path::Path;
use std::time::Duration;
use taiga_flow::config::Class;

const USAGE: i32 = 2;
const INPUT: i32 = 3;
const STOPPED: i32 = 75;

#[test]
fn overwrite_replaces_old_run_only_on_success() {
    let case = Case::new(3000, "[train]\nepochs = 2\nbatch = 512\n");
    let run_folder = case.at("run");
    let command = case.train(&run_folder, &["--overwrite"]);
    succeed(&mut program(&command));
    let before = tree(&run_folder);
    // This error is only found when the rows are read: too many of them are unusable.
    let bad = case.train(&run_folder, &["--overwrite", "--set", "data.bad_rows=0.0", "--set"]);
    let column = "features.columns=[{name=\"asym\",transform=\"log10\"},{name=\"size\"}]";
    for count in [1, 2] {
        let bad = [&bad[..], &arguments![column]].concat();
        let outcome = run(&mut if count == 1 { program(&bad) } else { ranks(count, &bad) });
        assert_eq!(outcome.code, Some(INPUT), "{}", outcome.stderr);
        assert_eq!(tree(&run_folder), before, "{count} ranks: {}", outcome.stderr);
    }
    let other = case.train(&run_folder, &["--overwrite", "--set", "train.seed=7"]);
    succeed(&mut program(&other));
    let after = tree(&run_folder);
    assert_ne!(after["model.safetensors"], before["model.safetensors"]);
    assert_eq!(after.keys().collect::<Vec<_>>(), before.keys().collect::<Vec<_>>());
}

#[test]
fn set_aside_run_survives_killed_replacement() {
    let case = Case::new(3000, "[train]\nepochs = 2\nbatch = 512\n");
    let run_folder = case.at("run");
    succeed(&mut program(&case.train(&run_folder, &[])));
    let old = hash(&run_folder.join("model.safetensors"));
    let rarely = ["--overwrite", "--set", "train.epochs=100000", "--set", "train.patience=0"];
    let mut training = Watched::start(&mut program(&case.train(&run_folder, &rarely)));
    let lines = |run: &Path| text(&run.join("metrics.jsonl")).lines().count();
    while !run_folder.join("replaced/model.safetensors").exists() || lines(&run_folder) < 3 {
        assert_eq!(training.exit_status(), None);
        std::thread::sleep(Duration::from_millis(2));
    }
    kill(training.id());
    assert!(!training.wait().success());
    assert_eq!(hash(&run_folder.join("replaced/model.safetensors")), old);
    // After one checkpoint of the new run, the old one may be removed.
    let stopped = [&rarely[1..], &["--stop-after", "0s"]].concat();
    let outcome = run(&mut program(&case.train(&run_folder, &stopped)));
    assert_eq!(outcome.code, Some(STOPPED), "{}", outcome.stderr);
    assert!(!run_folder.join("replaced").exists());
}

#[test]
fn stopped_training_with_overwrite_is_resumed() {
    let case = Case::new(3000, "[train]\nepochs = 4\nbatch = 512\n");
    let (run_folder, whole) = (case.at("run"), case.at("whole"));
    succeed(&mut program(&case.train(&run_folder, &["--set", "train.seed=9"])));
    let overwrite = case.train(&run_folder, &["--overwrite"]);
    let stopped = [&overwrite[..], &arguments!["--stop-after", "0s"]].concat();
    for _ in 0..2 {
        let outcome = run(&mut program(&stopped));
        assert_eq!(outcome.code, Some(STOPPED), "{}", outcome.stderr);
    }
    let lines = text(&run_folder.join("train.log"));
    assert!(lines.contains("resumed at"), "{lines}");
    succeed(&mut program(&overwrite));
    succeed(&mut program(&case.train(&whole, &[])));
    assert_eq!(hash(&run_folder.join("model.safetensors")), hash(&whole.join("model.safetensors")));
    // `--overwrite` replaces an unfinished run with a different seed.
    let outcome = run(&mut program(&case.train(&whole, &["--overwrite", "--stop-after", "0s"])));
    assert_eq!(outcome.code, Some(STOPPED), "{}", outcome.stderr);
    let other = case.train(&whole, &["--overwrite", "--set", "train.seed=9"]);
    let outcome = succeed(&mut program(&other));
    assert!(!outcome.stderr.contains("resuming instead of replacing"), "{}", outcome.stderr);
}

#[test]
fn outputs_of_other_settings_are_refused() {
    let (trained, folder) = (trained(), folder());
    let archive = folder.path().join("archive");
    for i in 0..3 {
        simulated(archive.join(format!("{i}.h5")), Class::Gamma, 300, seed() + i);
    }
    let good = std::fs::read(archive.join("1.h5")).expect("a file");
    std::fs::write(archive.join("1.h5"), &good[..good.len() / 2]).expect("a file");
    let output = folder.path().join("scores");
    let command = arguments!["score", "-m", &trained.model, "-o", &output, &archive];
    let outcome = run(&mut program(&command));
    assert_eq!(outcome.code, Some(4), "{}", outcome.stderr);
    std::fs::write(archive.join("1.h5"), &good).expect("a file");
    let outcome = succeed(&mut program(&command));
    assert_eq!(outcome.stderr.matches("finished already").count(), 2, "{}", outcome.stderr);
    let before = tree(&output);
    let again = succeed(&mut program(&command));
    assert_eq!(again.stderr.matches("finished already").count(), 3, "{}", again.stderr);
    assert_eq!(tree(&output), before);
    let columns = configuration(folder.path(), &archive, "[score]\ncolumns = [\"log_prob\"]\n");
    let other = [&command[..], &arguments!["-c", &columns]].concat();
    let outcome = run(&mut program(&other));
    assert_eq!(outcome.code, Some(USAGE), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("with other settings"), "{}", outcome.stderr);
    simulated(folder.path().join("new.h5"), Class::Hadron, 300, seed());
    std::fs::rename(folder.path().join("new.h5"), archive.join("2.h5")).expect("another input");
    let outcome = run(&mut program(&command));
    assert_eq!(outcome.code, Some(4), "{}", outcome.stderr);
    assert!(outcome.stdout.contains("another content of its input"), "{}", outcome.stdout);
    assert_eq!(json(&[&command[..], &arguments!["--overwrite"]].concat())["rows"], 900);
    // Nothing is written through a link.
    let (outside, linked) = (folder.path().join("outside"), folder.path().join("linked"));
    std::fs::create_dir_all(&outside).expect("a folder");
    std::fs::create_dir_all(&linked).expect("a folder");
    simulated(archive.join("deep/3.h5"), Class::Gamma, 300, 1);
    std::os::unix::fs::symlink(&outside, linked.join("deep")).expect("a link");
    let outcome =
        run(&mut program(&arguments!["score", "-m", &trained.model, "-o", &linked, &archive]));
    assert_eq!(outcome.code, Some(USAGE), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("a link in the place of a folder"), "{}", outcome.stderr);
    assert_eq!(std::fs::read_dir(&outside).expect("a folder").count(), 0);
}
