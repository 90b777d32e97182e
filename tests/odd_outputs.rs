//! An output whose name belongs to a pipe, socket, folder or link, or cannot be an output: only
//! regular files are replaced.

use crate::support::{arguments, folder, hash, program, run, simulated, succeed, trained};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use taiga_flow::config::Class;

const USAGE: i32 = 2;
const ROW: &str = "28.7967,16.0021,2.6449,0.3918,0.1982,27.7004,22.011,-8.2027,40.092,81.8828,g\n";

/// Returns each command that writes files, with the path of one of its files below a folder.
fn commands(root: &Path, folder: &Path) -> Vec<(Vec<OsString>, PathBuf)> {
    let (gamma, model, run) = (&trained().gamma, &trained().model, &trained().run);
    let (table, out) = (root.join("table.csv"), |name: &str| folder.join(name));
    std::fs::write(&table, ROW).expect("a table");
    let images = root.join("images.h5");
    if !images.exists() {
        let level = arguments!["simulate", "--level", "images", "--class", "gamma", "--events"];
        succeed(program(&level).args(["20", "-o"]).arg(&images));
    }
    let simulate = ["simulate", "--class", "gamma", "--events", "20"].map(OsString::from);
    let images = images.as_path();
    let file = |command: &[OsString], name: &str| {
        ([command, &arguments!["-o", out(name)]].concat(), out(name))
    };
    let below = |command: &[OsString], name: &str| {
        ([command, &arguments!["-o", folder]].concat(), out(name))
    };
    vec![
        file(&simulate, "simulated.h5"),
        file(&arguments!["convert", &table], "converted.h5"),
        file(&arguments!["report", run], "page.html"),
        below(&arguments!["score", "-m", model, gamma], "gamma.h5"),
        below(&arguments!["score", "-m", model, gamma, "--format", "csv"], "gamma.csv"),
        below(&arguments!["extract", images], "images.h5"),
        below(&arguments!["anomalies", images], "images.h5"),
        below(&arguments!["evaluate", "-m", model, gamma, &trained().hadron], "evaluation.json"),
        ([&arguments!["init"][..], &arguments![folder]].concat(), out("configs/quickstart.toml")),
    ]
}

#[test]
fn irregular_output_is_refused_by_each_command() {
    let folder = folder();
    let root = folder.path();
    let made = |kind: &str, path: &Path| match kind {
        "pipe" => {
            assert!(Command::new("mkfifo").arg(path).status().expect("mkfifo").success());
        }
        "folder" => std::fs::create_dir(path).expect("a folder"),
        _ => {
            let pipe = root.join("pipe");
            if !pipe.exists() {
                assert!(Command::new("mkfifo").arg(&pipe).status().expect("mkfifo").success());
            }
            symlink(pipe, path).expect("a link");
        }
    };
    for kind in ["pipe", "folder", "link"] {
        let output = root.join(kind);
        for (i, (command, path)) in commands(root, &output.join("x")).into_iter().enumerate() {
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
            made(kind, &path);
            for more in [&[][..], &["--overwrite"]] {
                let outcome = run(program(&command).args(more));
                assert_eq!(outcome.code, Some(USAGE), "{i} {kind} {command:?}: {}", outcome.stderr);
                let printed =
                    ["not a regular file", "the output is a folder", "output already exists, and"];
                assert!(printed.iter().any(|t| outcome.stderr.contains(t)), "{}", outcome.stderr);
                let left = std::fs::symlink_metadata(&path).expect("the output").file_type();
                assert_eq!(
                    (left.is_fifo(), left.is_dir(), left.is_symlink()),
                    match kind {
                        "pipe" => (true, false, false),
                        "folder" => (false, true, false),
                        _ => (false, false, true),
                    }
                );
            }
            std::fs::remove_dir_all(output.join("x")).expect("the folder");
        }
    }
}

#[test]
fn link_to_a_file_is_replaced_by_the_output() {
    let folder = folder();
    let (target, link) = (folder.path().join("target.h5"), folder.path().join("link.h5"));
    simulated(target.clone(), Class::Gamma, 30, 1);
    let before = hash(&target);
    symlink("target.h5", &link).expect("a link");
    let simulate = arguments!["simulate", "--class", "gamma", "--events", "20", "-o", &link];
    assert_eq!(run(&mut program(&simulate)).code, Some(USAGE));
    succeed(program(&simulate).arg("--overwrite"));
    assert!(!link.is_symlink() && hash(&link) != before);
    assert_eq!(hash(&target), before);
}

/// Checks that a command with `--overwrite` keeps a file `foreign` at the path of its output.
fn assert_kept(command: &[OsString], output: &Path, foreign: &[u8]) {
    std::fs::create_dir_all(output.parent().expect("a folder")).expect("a folder");
    std::fs::write(output, foreign).expect("a file");
    let outcome = run(program(command).arg("--overwrite"));
    assert_eq!(outcome.code, Some(USAGE), "{command:?}: {}", outcome.stderr);
    let (name, printed) = (output.display().to_string(), &outcome.stderr);
    assert!(
        printed.contains("not an output of this command") && printed.contains(&name),
        "{printed}"
    );
    assert_eq!(std::fs::read(output).expect("the file"), foreign, "{command:?}");
    std::fs::remove_file(output).expect("the file");
}

#[test]
fn overwrite_replaces_only_outputs_of_command() {
    let folder = folder();
    let output = folder.path().join("out");
    let mut all = commands(folder.path(), &output);
    all.truncate(all.len() - 1); // `init` writes texts that users change
    let read = |path: &Path| std::fs::read(path).expect("a file");
    let model = read(&trained().model);
    let mut made = Vec::new();
    for (command, path) in &all {
        for foreign in [&model[..], b"[train]\nepochs = 3\n", b"{\"format\": \"other 1\"}"] {
            assert_kept(command, path, foreign);
        }
        succeed(&mut program(command));
        succeed(program(command).arg("--overwrite"));
        made.push(read(path));
        std::fs::remove_dir_all(&output).expect("the folder");
    }
    // Files of all other commands of the program.
    for (i, (command, path)) in all.iter().enumerate() {
        for (j, (other, _)) in all.iter().enumerate().filter(|(j, _)| *j != i) {
            assert_ne!(made[i], made[j], "{command:?} {other:?}");
            assert_kept(command, path, &made[j]);
        }
    }
}

#[test]
fn init_keeps_changed_files_as_old() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    let init = arguments!["init", folder.path()];
    succeed(&mut program(&init));
    let template = std::fs::read(at("jobs/env.sh")).expect("a template");
    let own = b"module load site-mpi\n";
    std::fs::write(at("jobs/env.sh"), own).expect("a file");
    let printed = succeed(program(&init).arg("--overwrite")).stdout;
    assert_eq!(std::fs::read(at("jobs/env.sh")).expect("a file"), template);
    assert_eq!(std::fs::read(at("jobs/env.sh.old")).expect("a file"), own);
    assert!(printed.contains("kept the earlier file as"), "{printed}");
    // Files that did not change are not kept twice.
    assert!(!at("configs/quickstart.toml.old").exists());
    succeed(program(&init).arg("--overwrite"));
    // The kept file would be lost: nothing is written.
    std::fs::write(at("jobs/env.sh"), b"other").expect("a file");
    std::fs::remove_file(at("configs/quickstart.toml")).expect("a file");
    let outcome = run(program(&init).arg("--overwrite"));
    assert_eq!(outcome.code, Some(USAGE), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("env.sh.old"), "{}", outcome.stderr);
    assert!(!at("configs/quickstart.toml").exists());
    assert_eq!(std::fs::read(at("jobs/env.sh.old")).expect("a file"), own);
}

#[test]
fn season_replaces_only_pages_and_its_own_json() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    simulated(at("archive/a.h5"), Class::Hadron, 300, 1);
    let model = &trained().model;
    let scores = at("scores");
    let score = arguments!["score", "-q", "-m", model, "-o", &scores, at("archive")];
    succeed(program(&score).args(["--set", "score.positions=2"]));
    let least = ["--threshold", "-1000"].map(OsString::from);
    let out = at("out");
    let season = [&arguments!["season", &scores, "-o", &out][..], &least].concat();
    let compare = [&arguments!["compare", &scores, &scores, "-o", &out][..], &least].concat();
    let files = [(&season, "season.json"), (&season, "season.html"), (&compare, "comparison.json")];
    for (command, name) in files {
        assert_kept(command, &out.join(name), b"[train]\nepochs = 3\n");
    }
    succeed(&mut program(&season));
    succeed(&mut program(&compare));
    let of_season = std::fs::read(out.join("season.json")).expect("a season");
    assert_kept(&compare, &out.join("comparison.json"), &of_season);
    std::fs::remove_file(out.join("season.json")).expect("the season");
    // Its page exists, and `--overwrite` was not given.
    let outcome = run(&mut program(&season));
    assert_eq!(outcome.code, Some(USAGE), "{}", outcome.stderr);
    succeed(program(&season).arg("--overwrite"));
}

#[test]
fn root_that_is_a_file_is_refused() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    let (events, images) = (simulated(at("events.h5"), Class::Gamma, 30, 1), at("images.h5"));
    crate::support::simulated_images(&images, "gamma", 20, 1);
    let model = &trained().model;
    let score = arguments!["score", "-m", model, "-o", at("out"), "--root", &events, &events];
    let extract = arguments!["extract", "-o", at("out"), "--root", &images, &images];
    for command in [&score[..], &extract] {
        for more in [&[][..], &["--overwrite"]] {
            let outcome = run(program(command).args(more));
            assert_eq!(outcome.code, Some(USAGE), "{command:?}: {}", outcome.stderr);
            assert!(outcome.stderr.contains("--root: not a folder"), "{}", outcome.stderr);
            assert!(!at("out.h5").exists() && !at("out").exists(), "{command:?}");
        }
    }
}

#[test]
fn output_that_cannot_be_a_folder_is_refused() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    std::fs::write(at("file"), "x").expect("a file");
    symlink("nowhere", at("link")).expect("a link");
    std::fs::create_dir(at("inputs")).expect("a folder");
    let train = |output: &Path| {
        let (configuration, name) = (&trained().configuration, output.join("model.safetensors"));
        (arguments!["train", "-c", configuration, "-o", output].to_vec(), name)
    };
    let places = [at("file"), at("file/below"), at("link"), PathBuf::from("/dev/null")];
    for output in places {
        let all = commands(&at("inputs"), &output).into_iter().chain([train(&output)]);
        // Other commands write one file.
        let writes_folder = |(command, path): &(Vec<OsString>, PathBuf)| {
            !command.contains(&path.as_os_str().to_os_string())
        };
        for (command, _) in all.filter(writes_folder) {
            let outcome = run(&mut program(&command));
            assert_eq!(outcome.code, Some(USAGE), "{command:?}: {}", outcome.stderr);
            assert!(outcome.stderr.contains("is not a folder"), "{}", outcome.stderr);
        }
    }
    assert_eq!(std::fs::read(at("file")).expect("a file"), b"x");
    assert!(at("link").is_symlink() && !at("nowhere").exists());
    let name = |more: &[u8]| folder.path().join(OsStr::from_bytes(&[b"o\xff", more].concat()));
    for (command, _) in commands(&at("inputs"), &name(b"")) {
        let writes_hdf5 = ["simulate", "convert", "score", "extract", "anomalies"];
        if writes_hdf5.iter().any(|name| command[0] == *name) {
            let outcome = run(&mut program(&command));
            assert_eq!(outcome.code, Some(USAGE), "{command:?}: {}", outcome.stderr);
            assert!(outcome.stderr.contains("is not UTF-8"), "{}", outcome.stderr);
            assert!(!name(b"").exists(), "{command:?}");
        }
    }
}
