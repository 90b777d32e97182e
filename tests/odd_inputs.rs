//! Inputs that are not regular files with ordinary names: link loops, names that are not UTF-8 or
//! very long, devices and pipes. Such an input fails by name, and all others are processed.

use crate::support::{
    Case, Outcome, arguments, folder, json, program, ranks, run, seed, simulated, succeed, text,
    trained, tree,
};
use serde_json::Value;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use taiga_flow::config::Class;

const USAGE: i32 = 2;
const INPUT: i32 = 3;
const PARTIAL: i32 = 4;
/// Form of a name that is not UTF-8 in messages.
const ESCAPED: &str = "run-\\xff\\xe9.h5";

/// Returns the name of [`ESCAPED`].
fn not_utf8() -> &'static OsStr {
    OsStr::from_bytes(b"run-\xff\xe9.h5")
}

/// Writes an archive of events of two nights.
fn archive(root: &Path) -> PathBuf {
    let archive = root.join("archive");
    for (i, name) in ["a.h5", "night-1/b.h5", "night-2/c.h5"].into_iter().enumerate() {
        simulated(archive.join(name), Class::Gamma, 400 + 100 * i as u64, seed() + i as u64);
    }
    archive
}

/// Adds links to parent folders and to listed files.
fn add_links(archive: &Path) {
    for (target, link) in [
        (".", "0-here"),
        ("..", "night-1/0-up"),
        ("../..", "night-2/above"),
        ("night-2", "0-same-night"),
        ("night-1/b.h5", "0-same-run.h5"),
        ("nowhere", ".#a.h5"),
    ] {
        symlink(target, archive.join(link)).expect("a link");
    }
}

fn images(root: &Path) -> PathBuf {
    let images = root.join("images");
    for (name, seed) in [("a.h5", "1"), ("night-1/b.h5", "2"), ("night-2/c.h5", "3")] {
        let level = ["simulate", "--level", "images", "--class", "gamma", "--events", "40"];
        let mut command: Vec<OsString> = level.iter().map(OsString::from).collect();
        command.extend(arguments!["--seed", seed, "-o", images.join(name)]);
        succeed(&mut program(&command));
    }
    images
}

fn score(output: &Path, input: &Path) -> Vec<OsString> {
    arguments!["score", "-m", &trained().model, "-o", output, input].to_vec()
}

fn manifest(output: &Path) -> Value {
    serde_json::from_str(&text(&output.join("manifest.json"))).expect("a manifest")
}

fn refused(outcome: &Outcome, code: i32, parts: &[&str]) {
    assert_eq!(outcome.code, Some(code), "{}{}", outcome.stdout, outcome.stderr);
    for part in parts {
        assert!(outcome.stderr.contains(part), "'{part}' is not in: {}", outcome.stderr);
    }
}

#[test]
fn folder_with_link_loops_is_walked_once() {
    let folder = folder();
    let (events, images) = (archive(folder.path()), images(folder.path()));
    let at = |name: &str| folder.path().join(name);
    let extract = |output: &Path| arguments!["extract", "-o", output, &images].to_vec();
    succeed(&mut program(&score(&at("plain"), &events)));
    succeed(&mut program(&extract(&at("plain-hillas"))));
    let checked = json(&arguments!["check", &events]);
    let train = |name: &str| {
        let configuration = at(&format!("{name}.toml"));
        let base = text(&trained().configuration);
        let gamma = format!("\"{}\"", trained().gamma.display());
        let changed = base.replace(&gamma, &format!("\"{}\"", events.display()));
        let changed = changed.replace("epochs = 12", "epochs = 1");
        std::fs::write(&configuration, changed).expect("a configuration");
        let output = at(name);
        succeed(&mut program(&arguments!["train", "-c", &configuration, "-o", &output]));
        crate::support::hash(&output.join("model.safetensors"))
    };
    let model = train("plain-run");
    add_links(&events);
    add_links(&images);
    for (n, name) in [(1, "alone"), (2, "shared")] {
        let outcome = succeed(&mut ranks(n, &score(&at(name), &events)));
        assert!(outcome.stderr.contains("0-here: a link to what is listed"), "{}", outcome.stderr);
        assert_eq!(tree(&at(name)), tree(&at("plain")));
    }
    succeed(&mut program(&extract(&at("hillas"))));
    assert_eq!(tree(&at("hillas")), tree(&at("plain-hillas")));
    assert_eq!(json(&arguments!["check", &events]), checked);
    assert_eq!(train("run"), model);
    succeed(&mut program(&arguments!["verify", at("alone")]));
}

#[test]
fn name_that_is_not_utf8_fails_alone() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    let (events, images) = (archive(folder.path()), images(folder.path()));
    let commands = |output: &Path| {
        [score(output, &events), arguments!["extract", "-o", output, &images].to_vec()]
    };
    let [plain, plain_hillas] = [at("plain"), at("plain-hillas")];
    succeed(&mut program(&commands(&plain)[0]));
    succeed(&mut program(&commands(&plain_hillas)[1]));
    std::fs::copy(&trained().gamma, events.join(not_utf8())).expect("a copy");
    std::fs::copy(images.join("a.h5"), images.join(not_utf8())).expect("a copy");
    for n in [1, 3] {
        for (i, expected) in [&plain, &plain_hillas].into_iter().enumerate() {
            let output = at(&format!("output-{n}-{i}"));
            let outcome = run(&mut ranks(n, &commands(&output)[i]));
            refused(&outcome, PARTIAL, &["1 of 4 files failed", ESCAPED]);
            let (mut found, mut expected) = (tree(&output), tree(expected));
            for tree in [&mut found, &mut expected] {
                tree.remove("manifest.json");
            }
            assert_eq!(found, expected);
            let failed = manifest(&output)["failed"].as_object().expect("failures").clone();
            assert_eq!(failed.len(), 1, "{failed:?}");
            let (name, why) = failed.iter().next().expect("a failure");
            assert!(name.ends_with(ESCAPED), "{name}");
            assert!(why.to_string().contains("not UTF-8"), "{why}");
        }
    }
    let alone = run(&mut program(&score(&at("none"), &events.join(not_utf8()))));
    refused(&alone, INPUT, &[ESCAPED, "not UTF-8"]);
    let verified = run(&mut program(&arguments!["verify", at("output-1-0")]));
    assert!(verified.stdout.contains(ESCAPED), "{}", verified.stdout);
}

#[test]
fn non_utf8_name_is_named_by_each_command() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    let events = archive(folder.path());
    std::fs::copy(&trained().gamma, events.join(not_utf8())).expect("a copy");
    let case = Case::new(2000, "[train]\nepochs = 1\n");
    let set = format!("data.gamma=[\"{}\"]", events.display());
    let outcome = run(&mut program(&case.train(&at("run"), &["--set", &set])));
    refused(&outcome, INPUT, &[ESCAPED]);
    assert!(!at("run").exists());
    for more in [&[][..], &["--json"]] {
        let mut check = program(&arguments!["check", &events]);
        let outcome = run(check.args(more));
        refused(&outcome, INPUT, &["1 of 4 file(s) cannot be used", ESCAPED]);
        assert!(outcome.stdout.contains("c.h5"), "{}", outcome.stdout);
    }
    // A table may have any name, because it is read as bytes.
    let table = folder.path().join(OsStr::from_bytes(b"table-\xff.csv"));
    let rows = "28.7967,16.0021,2.6449,0.3918,0.1982,27.7004,22.011,-8.2027,40.092,81.8828,g\n";
    std::fs::write(&table, rows).expect("a table");
    let convert = arguments!["convert", &table, "-o", at("table.h5"), "--dialect", "magic"];
    succeed(&mut program(&convert));
    // An argument that is not UTF-8 is recorded in escaped form.
    let output = folder.path().join(OsStr::from_bytes(b"run-\xff"));
    succeed(&mut program(&case.train(&output, &[])));
    assert!(output.join("model.safetensors").is_file());
}

#[test]
fn long_name_fails_only_its_file() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    let events = at("archive");
    for length in [248, 252, 255] {
        let name = format!("{}.h5", "n".repeat(length - 3));
        simulated(events.join(name), Class::Gamma, 500, seed() + length as u64);
    }
    simulated(events.join("short.h5"), Class::Gamma, 140_000, seed());
    succeed(&mut program(&score(&at("hdf5"), &events)));
    // `.csv` is one letter longer than `.h5`.
    let csv = [score(&at("csv"), &events), arguments!["--format", "csv"].to_vec()].concat();
    for n in [1, 2] {
        let outcome = run(&mut ranks(n, &csv));
        refused(&outcome, PARTIAL, &["1 of 4 files failed"]);
        let failed = manifest(&at("csv"))["failed"].to_string();
        assert!(failed.contains("the name is too long"), "{failed}");
        assert_eq!(manifest(&at("csv"))["files"].as_array().expect("files").len(), 3);
    }
    // A long file in pieces, whose folder has the long name.
    let long = at("long").join(format!("{}.h5", "l".repeat(252)));
    simulated(long, Class::Gamma, 200_000, seed() + 1);
    let more = arguments!["--split-rows", "65536", "--threads", "1"].to_vec();
    succeed(&mut ranks(2, &[score(&at("pieces"), &at("long")), more].concat()));
    succeed(&mut program(&score(&at("whole"), &at("long"))));
    assert_eq!(tree(&at("pieces")), tree(&at("whole")));
}

#[test]
fn endless_or_absurd_text_file_is_refused() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    let huge = at("huge.toml");
    std::fs::File::create(&huge).and_then(|file| file.set_len(1 << 40)).expect("a sparse file");
    let (gamma, model) = (&trained().gamma, &trained().model);
    let output = at("output");
    for path in [Path::new("/dev/zero"), &huge] {
        let list = format!("@{}", path.display());
        for (command, code) in [
            (arguments!["train", "-c", path, "-o", &output].to_vec(), USAGE),
            (arguments!["score", "-c", path, "-m", model, "-o", &output, gamma].to_vec(), USAGE),
            (
                arguments!["score", "--schema", path, "-m", model, "-o", &output, gamma].to_vec(),
                USAGE,
            ),
            (arguments!["check", "--schema", path, gamma].to_vec(), USAGE),
            (arguments!["season", "-c", path, "-o", &output, at("scores")].to_vec(), USAGE),
            (arguments!["convert", "--dialect", path, "-o", &output, gamma].to_vec(), USAGE),
            (arguments!["score", "-m", path, "-o", &output, gamma].to_vec(), INPUT),
            (arguments!["score", "-m", model, "-o", &output, list].to_vec(), INPUT),
        ] {
            let outcome = run(&mut program(&command));
            assert_eq!(outcome.code, Some(code), "{command:?}: {}", outcome.stderr);
            let evaluated =
                ["are read", "not a regular file"].iter().any(|t| outcome.stderr.contains(t));
            assert!(evaluated || command[1] == "--dialect", "{command:?}: {}", outcome.stderr);
            assert!(!output.exists(), "{command:?}");
        }
    }
    for convert in [
        arguments!["convert", "/dev/zero", "-o", &output].to_vec(),
        arguments!["convert", "/dev/zero", "-o", &output, "--dialect", "magic"].to_vec(),
    ] {
        refused(&run(&mut program(&convert)), INPUT, &["/dev/zero: "]);
    }
    // A pipe of ordinary length is read.
    let given = std::fs::File::open(&trained().configuration).expect("a configuration");
    let (reader, mut writer) = std::io::pipe().expect("a pipe");
    let feeding = std::thread::spawn(move || {
        let mut given = given;
        std::io::copy(&mut given, &mut writer).expect("a pipe");
    });
    let train = arguments!["train", "-c", "/dev/stdin", "-o", &output, "--dry-run"];
    let status = program(&train).stdin(reader).output().expect("a status");
    assert!(status.status.success(), "{}", String::from_utf8_lossy(&status.stderr));
    feeding.join().expect("a pipe");
}

#[test]
fn pipe_in_an_archive_fails_alone() {
    let folder = folder();
    let (events, images) = (archive(folder.path()), images(folder.path()));
    for archive in [&events, &images] {
        let pipe = archive.join("night-1/pipe.h5");
        assert!(
            std::process::Command::new("mkfifo").arg(&pipe).status().expect("mkfifo").success()
        );
    }
    let output = folder.path().join("scores");
    let outcome = run(&mut program(&score(&output, &events)));
    refused(&outcome, PARTIAL, &["1 of 4 files failed", "night-1/pipe.h5"]);
    let hillas = folder.path().join("hillas");
    let outcome = run(&mut program(&arguments!["extract", "-o", &hillas, &images]));
    refused(&outcome, PARTIAL, &["1 of 4 files failed", "night-1/pipe.h5"]);
    let outcome = run(&mut program(&arguments!["check", &events]));
    refused(&outcome, INPUT, &["1 of 4 file(s) cannot be used", "night-1/pipe.h5"]);
}

#[test]
fn key_with_the_name_of_an_output_fails_alone() {
    let folder = folder();
    let (events, images) = (archive(folder.path()), images(folder.path()));
    for (archive, column) in [(&events, "score"), (&images, "status")] {
        let file = hdf5::File::open_rw(archive.join("night-1/b.h5")).expect("a file");
        let group = file.group("events").expect("events");
        let rows = group.dataset("event_id").expect("keys").shape()[0];
        let key: Vec<i64> = (0..rows as i64).collect();
        group.new_dataset_builder().with_data(&key).create(column).expect("a column");
    }
    let refused = |command: &[OsString]| {
        let outcome = run(&mut program(command));
        refused(&outcome, PARTIAL, &["1 of 3 files failed", "night-1/b.h5"]);
        assert!(outcome.stdout.contains("has the name of a column"), "{}", outcome.stdout);
    };
    for format in ["hdf5", "csv"] {
        let output = folder.path().join(format);
        let mut command = score(&output, &events);
        command.extend(["--format", format].map(OsString::from));
        refused(&command);
    }
    let output = folder.path().join("hillas");
    refused(&arguments!["extract", "-o", &output, &images]);
}

#[test]
fn broken_link_to_a_file_fails_alone() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    let (events, images) = (archive(folder.path()), images(folder.path()));
    let commands = |output: &Path, input: [&Path; 2]| {
        [score(output, input[0]), arguments!["extract", "-o", output, input[1]].to_vec()]
    };
    let plain = [at("plain-0"), at("plain-1")];
    for (i, output) in plain.iter().enumerate() {
        succeed(&mut program(&commands(output, [&events, &images])[i]));
    }
    let lost = "night-1/lost.h5";
    for archive in [&events, &images] {
        symlink("../../not-mounted/lost.h5", archive.join(lost)).expect("a link");
    }
    let patterns = [at("archive/*/*.h5"), at("images/*/*.h5")];
    for (name, inputs) in
        [("folder", [&events, &images]), ("pattern", [&patterns[0], &patterns[1]])]
    {
        for i in 0..2 {
            let output = at(&format!("{name}-{i}"));
            let mut command = commands(&output, inputs.map(PathBuf::as_path))[i].clone();
            command.extend(arguments!["--root", [&events, &images][i]]);
            let outcome = run(&mut ranks(1 + i, &command));
            refused(&outcome, PARTIAL, &["files failed", lost]);
            let failed = manifest(&output)["failed"].as_object().expect("failures").clone();
            assert_eq!(failed.len(), 1, "{failed:?}");
            let why = failed.values().next().expect("a failure").to_string();
            assert!(why.contains("leads nowhere") && why.contains("not-mounted"), "{why}");
            for scored in ["night-1/b.h5", "night-2/c.h5"] {
                let hash = crate::support::hash;
                assert_eq!(hash(&output.join(scored)), hash(&plain[i].join(scored)));
            }
            let verified = run(&mut program(&arguments!["verify", &output]));
            refused(&verified, PARTIAL, &[lost]);
        }
    }
    // `verify` names a link that is added later. Once the link leads to its file, everything
    // succeeds.
    let mut night = score(&at("plain-0"), &at("archive/night-2"));
    night.extend(arguments!["--root", at("archive")]);
    succeed(&mut program(&night));
    let verified = run(&mut program(&arguments!["verify", at("plain-0")]));
    refused(&verified, INPUT, &["lost.h5"]);
    simulated(at("not-mounted/lost.h5"), Class::Gamma, 300, seed() + 9);
    let command =
        [score(&at("folder-0"), &events), arguments!["--root", &events].to_vec()].concat();
    succeed(&mut program(&command));
    succeed(&mut program(&arguments!["verify", at("folder-0")]));
}

#[test]
fn broken_link_is_named_by_each_command() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    let (events, images) = (archive(folder.path()), images(folder.path()));
    let case = Case::new(2000, "[train]\nepochs = 1\n");
    let output = at("output");
    for (target, link) in [
        ("nowhere", "night-2/lost.h5"),
        ("../not-mounted", "night-3"),
        ("night-4", "night-4"),
        ("a.h5/night", "night-5"),
    ] {
        for archive in [&events, &images] {
            symlink(target, archive.join(link)).expect("a link");
        }
        let is_file = link.ends_with("h5");
        for input in [events.clone(), at("archive/*/*.h5"), at("archive/**/*.h5")] {
            let set = format!("data.gamma=[\"{}\"]", input.display());
            for command in [
                case.train(&output, &["--set", &set]),
                arguments!["check", &input].to_vec(),
                arguments!["check", "--quick", &input].to_vec(),
                arguments!["evaluate", "-m", &trained().model, "-o", &output, &input].to_vec(),
                score(&output, &input),
                arguments!["extract", "-o", &output, at("images")].to_vec(),
            ] {
                let partial =
                    is_file && ["score", "extract"].iter().any(|name| command[0] == *name);
                if partial {
                    continue; // the file fails alone
                }
                let outcome = run(&mut program(&command));
                assert_eq!(outcome.code, Some(INPUT), "{command:?}: {}", outcome.stderr);
                let context = format!("{}{}", outcome.stdout, outcome.stderr);
                for part in [link, "leads nowhere", target] {
                    assert!(context.contains(part), "'{part}' is not in: {context}");
                }
                assert!(!output.exists(), "{command:?}");
            }
        }
        for archive in [&events, &images] {
            std::fs::remove_file(archive.join(link)).expect("a link");
        }
    }
    let table = at("table.csv");
    symlink("nowhere", &table).expect("a link");
    let convert = arguments!["convert", &table, "-o", &output];
    refused(&run(&mut program(&convert)), INPUT, &["table.csv"]);
}

#[test]
fn pipe_as_a_table_or_list_is_refused_unopened() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    let pipe = at("pipe.csv");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().expect("mkfifo").success());
    let (gamma, model, output) = (&trained().gamma, &trained().model, at("output"));
    let list = format!("@{}", pipe.display());
    let set = format!("data.gamma=[\"{list}\"]");
    let configuration = &trained().configuration;
    for (command, code) in [
        (arguments!["convert", &pipe, "-o", &output].to_vec(), INPUT),
        (arguments!["convert", &pipe, "-o", &output, "--dialect", "magic"].to_vec(), INPUT),
        (arguments!["convert", gamma, "-o", &output, "--dialect", &pipe].to_vec(), USAGE),
        (arguments!["check", &pipe].to_vec(), INPUT),
        (arguments!["check", "--schema", &pipe, gamma].to_vec(), USAGE),
        (arguments!["check", &list].to_vec(), INPUT),
        (arguments!["score", "-m", model, "-o", &output, &list].to_vec(), INPUT),
        (arguments!["score", "--schema", &pipe, "-m", model, "-o", &output, gamma].to_vec(), USAGE),
        (arguments!["train", "-c", configuration, "-o", &output, "--set", &set].to_vec(), INPUT),
        (arguments!["extract", "--camera", &pipe, "-o", &output, gamma].to_vec(), INPUT),
    ] {
        let outcome = run(&mut program(&command));
        assert_eq!(outcome.code, Some(code), "{command:?}: {}", outcome.stderr);
        let context = format!("{}{}", outcome.stdout, outcome.stderr);
        for part in ["not a regular file", "write its content to a file first"] {
            assert!(context.contains(part), "{command:?}: '{part}' is not in: {context}");
        }
        assert!(!output.exists(), "{command:?}");
    }
    // The standard input as a pipe.
    let mut convert = program(&arguments!["convert", "/dev/stdin", "-o", &output]);
    let status = convert.stdin(std::process::Stdio::piped()).output().expect("a status");
    let printed = String::from_utf8_lossy(&status.stderr);
    assert_eq!(status.status.code(), Some(INPUT), "{printed}");
    assert!(printed.contains("not a regular file") && !printed.contains("no rows"), "{printed}");
}
