//! Files without rows, and files without usable events, give valid empty outputs, unless a
//! training needs their events.

use crate::support::{
    Defect, Events, Outcome, TABLE_HEADER, arguments, configuration, folder, json, program, run,
    seed, simulated, simulated_images, succeed, table_dialect, text, trained, write_with_defect,
};
use serde_json::Value;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use taiga_flow::config::Class;

/// Writes an event file without rows, with all columns of a simulated one.
fn empty_events(path: &Path, like: &Path) {
    let mut events = Events::read(like);
    events = events.chosen(&[]);
    events.write(path);
}

/// Writes an image file with the first images of `from`.
fn first_images(path: &Path, from: &Path, images: usize) {
    std::fs::copy(from, path).expect("a copy");
    let file = hdf5::File::open_rw(path).expect("images");
    for group in ["images", "events"] {
        let group = file.group(group).expect("a group");
        for name in group.member_names().expect("names") {
            let dataset = group.dataset(&name).expect("a dataset");
            let mut shape = dataset.shape();
            if name == "pedestal_sigma" {
                continue;
            }
            shape[0] = images;
            dataset.resize(shape).expect("another length");
        }
    }
    let rows = file.attr("rows").expect("rows");
    rows.write_scalar(&(images as i64)).expect("rows");
}

fn scores(model: &Path, output: &Path, input: &Path, more: &[&str]) -> Vec<OsString> {
    let all = arguments!["score", "-m", model, "-o", output, input];
    all.into_iter().chain(more.iter().map(OsString::from)).collect()
}

fn refused(outcome: &Outcome, code: i32, part: &str) {
    assert_eq!(outcome.code, Some(code), "{}{}", outcome.stdout, outcome.stderr);
    assert!(outcome.stderr.contains(part), "'{part}' is not in: {}", outcome.stderr);
}

#[test]
fn empty_event_files_are_scored_and_checked() {
    let (trained, folder) = (trained(), folder());
    let at = |name: &str| folder.path().join(name);
    std::fs::create_dir(at("archive")).expect("a folder");
    empty_events(&at("archive/empty.h5"), &trained.gamma);
    // Two files without rows may have equal content.
    std::fs::copy(at("archive/empty.h5"), at("archive/other.h5")).expect("a copy");
    simulated(at("archive/full.h5"), Class::Gamma, 300, seed());
    for (name, more) in [
        ("one", &[][..]),
        ("positions", &["--set", "score.positions=2"]),
        ("table", &["--format", "csv"]),
    ] {
        let command = scores(&trained.model, &at(name), &at("archive"), more);
        let summary = json(&command);
        assert_eq!(
            (&summary["rows"], &summary["files"][0]["rows"]),
            (&Value::from(300), &Value::from(0))
        );
        // Run again; then verify by the attributes of the file.
        assert_eq!(json(&command)["rows"], 300, "{name}");
        succeed(&mut program(&arguments!["verify", at(name)]));
    }
    // As one process, and on two ranks.
    let alone = scores(&trained.model, &at("alone"), &at("archive/empty.h5"), &[]);
    assert_eq!(json(&alone)["rows"], 0);
    std::fs::remove_dir_all(at("alone/ledger")).expect("a ledger");
    assert_eq!(json(&alone)["rows"], 0);
    let summary = json(&arguments!["check", at("archive/empty.h5")]);
    assert!(summary["files"][0]["warnings"].to_string().contains("empty"), "{summary}");
    succeed(&mut program(&arguments!["check", at("archive")]));
    // An empty file as another program writes it.
    write_with_defect(&Events::read(&trained.gamma), &at("other.h5"), "width", &Defect::Empty);
    let other = scores(&trained.model, &at("other"), &at("other.h5"), &[]);
    assert_eq!(json(&other)["rows"], 0);
    succeed(&mut program(&arguments!["check", at("other.h5")]));
    // A season counts no events of it.
    let season = arguments!["season", at("positions"), "-o", at("season"), "--threshold", "-1000"];
    succeed(&mut program(&season));
    let report: Value = serde_json::from_str(&text(&at("season/season.json"))).expect("JSON");
    assert_eq!(report["total"]["events"], 300);
    // A training needs events.
    let training = configuration(folder.path(), &at("archive/empty.h5"), "");
    let train = arguments!["train", "-c", &training, "-o", at("run")];
    refused(&run(&mut program(&train)), 3, "the table is empty");
    let check = arguments!["check", "--gamma", at("archive/empty.h5")];
    assert_eq!(run(&mut program(&check)).code, Some(3));
}

#[test]
fn empty_image_files_are_extracted() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    simulated_images(&at("full.h5"), "gamma", 40, seed());
    std::fs::create_dir(at("images")).expect("a folder");
    first_images(&at("images/empty.h5"), &at("full.h5"), 0);
    first_images(&at("images/some.h5"), &at("full.h5"), 5);
    let report = json(&arguments!["extract", "-o", at("hillas"), at("images")]);
    assert_eq!(
        (&report["images"], &report["files"][0]["images"]),
        (&Value::from(5), &Value::from(0))
    );
    succeed(&mut program(&arguments!["verify", at("hillas")]));
    let empty = at("hillas/empty.h5");
    let report = json(&arguments!["check", &empty]);
    assert_eq!(report["rows"], 0);
    assert_eq!(json(&scores(&trained().model, &at("scores"), &empty, &[]))["rows"], 0);
    // Images that have no pixel after cleaning.
    let high = ["--high", "1e6", "--low", "1e6"].map(OsString::from);
    let dark = arguments!["extract", "-o", at("dark"), at("full.h5")];
    let dark: Vec<OsString> = dark.into_iter().chain(high).collect();
    let report = json(&dark);
    assert_eq!(report["files"][0]["status"]["no pixel survived"], 40);
    let report = json(&arguments!["check", at("dark/full.h5")]);
    assert!(report["files"][0]["warnings"].to_string().contains("no image survived"), "{report}");
    let report = json(&scores(&trained().model, &at("dark-scores"), &at("dark/full.h5"), &[]));
    assert_eq!(
        (&report["rows"], &report["files"][0]["unusable"]),
        (&Value::from(40), &Value::from(40))
    );
    let positions = ["--set", "score.positions=2"];
    let dark = scores(&trained().model, &at("dark-positions"), &at("dark/full.h5"), &positions);
    assert_eq!(json(&dark)["rows"], 40);
    let season =
        arguments!["season", at("dark-positions"), "-o", at("season"), "--threshold", "-1000"];
    succeed(&mut program(&season));
}

#[test]
fn tables_without_rows_are_converted() {
    let folder = folder();
    let at = |name: &str| -> PathBuf { folder.path().join(name) };
    let dialect = table_dialect(folder.path());
    std::fs::write(at("empty.csv"), format!("{TABLE_HEADER}\n")).expect("a table");
    let command = arguments!["convert", at("empty.csv"), "-o", at("out.h5"), "--dialect", &dialect];
    let report = json(&command);
    assert_eq!(report["rows"], 0);
    assert!(report["warnings"].to_string().contains("no rows"), "{report}");
    let report = json(&arguments!["check", at("out.h5")]);
    assert_eq!(report["rows"], 0);
    assert_eq!(json(&scores(&trained().model, &at("scores"), &at("out.h5"), &[]))["rows"], 0);
}
