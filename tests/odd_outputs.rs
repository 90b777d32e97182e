//! Outputs whose name belongs to a pipe, socket, folder or link: only regular files are replaced.

use crate::support::{arguments, folder, hash, program, run, simulated, succeed, trained};
use std::ffi::OsString;
use std::os::unix::fs::{FileTypeExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use taiga_flow::config::Class;

const USAGE: i32 = 2;
const ROW: &str = "28.7967,16.0021,2.6449,0.3918,0.1982,27.7004,22.011,-8.2027,40.092,81.8828,g\n";

/// Each command that writes files, with the name of one of them below a folder.
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
                    ["not a regular file", "the output is a folder", "output exists already, and"];
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
