//! Extractions as inputs: `score`, `train` and `check` compare them with their manifest. No event
//! is missing, outdated or altered without an error.

use crate::support::{
    Outcome, arguments, configuration, folder, program, ranks, run, seed, simulated_images,
    succeed, text, trained,
};
use serde_json::Value;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// Four image files of two nights, extracted to `hillas`.
struct Extraction {
    folder: TempDir,
}

impl Extraction {
    fn new() -> Extraction {
        let extraction = Extraction { folder: folder() };
        (0..4).for_each(|file| extraction.write_images(file, 0));
        succeed(&mut program(&extraction.extract()));
        extraction
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn images(&self, file: u64) -> PathBuf {
        self.at(&format!("images/night-{}/run-{file}.h5", file / 2))
    }

    fn hillas(&self, file: u64) -> PathBuf {
        self.at(&format!("hillas/night-{}/run-{file}.h5", file / 2))
    }

    fn write_images(&self, file: u64, version: u64) {
        let _ = std::fs::remove_file(self.images(file));
        simulated_images(&self.images(file), "gamma", 30 + file, seed() + file + 100 * version);
    }

    fn extract(&self) -> Vec<OsString> {
        Vec::from(arguments!["extract", "-o", self.at("hillas"), self.at("images")])
    }

    /// Scores inputs to a new folder. Returns the outcome, and the manifest if it exists.
    fn score(&self, inputs: &[PathBuf], more: &[&str]) -> (Outcome, Value) {
        let output = self.at("scores");
        let _ = std::fs::remove_dir_all(&output);
        let mut line = Vec::from(arguments!["score", "-m", &trained().model, "-o", &output]);
        line.extend(inputs.iter().map(OsString::from));
        line.extend(more.iter().map(OsString::from));
        let outcome = run(&mut program(&line));
        let manifest = text(&output.join("manifest.json"));
        (outcome, serde_json::from_str(&manifest).unwrap_or_default())
    }

    /// Starts a dry run of a training on the extraction.
    fn train(&self) -> Outcome {
        let small = "[train]\nepochs = 1\n";
        let path = configuration(self.folder.path(), &self.at("hillas"), small);
        let line = arguments!["train", "--dry-run", "-c", path, "-o", self.at("run")];
        run(&mut program(&line))
    }

    /// Makes the images of a file unreadable and extracts again.
    fn fail(&self, file: u64) {
        std::fs::write(self.images(file), "no images").expect("a file");
        let outcome = run(&mut program(&self.extract()));
        assert_eq!(outcome.code, Some(4), "{}", outcome.stderr);
    }

    /// Returns an extraction of which one input could never be read.
    fn with_failure(file: u64) -> Extraction {
        let extraction = Extraction { folder: folder() };
        (0..4).for_each(|file| extraction.write_images(file, 0));
        extraction.fail(file);
        extraction
    }
}

fn refused(outcome: &Outcome, code: i32, part: &str) {
    assert_eq!(outcome.code, Some(code), "{}{}", outcome.stdout, outcome.stderr);
    let expected = [outcome.stdout.as_str(), &outcome.stderr].concat();
    assert!(expected.contains(part), "'{part}' is not in: {expected}");
}

fn failed(manifest: &Value) -> Vec<(String, String)> {
    let failed = manifest["failed"].as_object().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_string();
    failed.iter().map(|(_, f)| (text(&f["output"]), text(&f["reason"]))).collect()
}

#[test]
fn unfinished_extraction_is_refused() {
    let extraction = Extraction::new();
    let manifest = extraction.at("hillas/manifest.json");
    let whole = text(&manifest);
    let unfinished = whole.replacen('{', "{\"complete\": false,", 1);
    let states: [(&str, Option<&str>); 3] = [
        ("marked", Some(&unfinished)),
        ("truncated", Some(&whole[..whole.len() / 2])),
        ("no manifest", None),
    ];
    for (state, content) in states {
        match content {
            Some(content) => std::fs::write(&manifest, content).expect("a manifest"),
            None => std::fs::remove_file(&manifest).expect("a manifest"),
        }
        let inputs = [
            vec![extraction.at("hillas")],
            vec![extraction.at("hillas/night-1")],
            vec![extraction.hillas(0)],
            vec![extraction.at("hillas/night-*/*.h5")],
        ];
        for inputs in inputs {
            let (outcome, _) = extraction.score(&inputs, &[]);
            refused(&outcome, 3, "has not finished");
            assert!(!extraction.at("scores").exists(), "{state}: {inputs:?}");
        }
        refused(&extraction.train(), 3, "has not finished");
        let outcome = run(&mut program(&arguments!["check", extraction.at("hillas")]));
        refused(&outcome, 3, "has not finished");
    }
    // Files copied out of an extraction are ordinary event files.
    std::fs::create_dir(extraction.at("copied")).expect("a folder");
    std::fs::copy(extraction.hillas(0), extraction.at("copied/run.h5")).expect("a copy");
    let (outcome, _) = extraction.score(&[extraction.at("copied")], &[]);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
}

#[test]
fn output_of_later_failed_input_is_not_used() {
    let extraction = Extraction::new();
    extraction.fail(1);
    assert!(extraction.hillas(1).exists(), "the old output exists");
    let (outcome, manifest) = extraction.score(&[extraction.at("hillas")], &[]);
    refused(&outcome, 4, "not in the manifest of the extraction");
    assert_eq!(manifest["files"].as_array().map(Vec::len), Some(3));
    assert!(!extraction.at("scores/night-0/run-1.h5").exists());
    refused(&extraction.train(), 3, "not in the manifest of the extraction");
    let outcome = run(&mut program(&arguments!["check", extraction.at("hillas")]));
    refused(&outcome, 3, "not in the manifest of the extraction");
    // With repaired images the extraction is complete.
    extraction.write_images(1, 1);
    std::fs::remove_file(extraction.hillas(1)).expect("an output");
    succeed(&mut program(&extraction.extract()));
    let (outcome, _) = extraction.score(&[extraction.at("hillas")], &[]);
    assert_eq!(outcome.code, Some(0), "{}{}", outcome.stdout, outcome.stderr);
}

#[test]
fn altered_and_lost_outputs_fail() {
    let extraction = Extraction::new();
    let path = extraction.hillas(2);
    let file = hdf5::File::open_rw(&path).expect("an event file");
    let size = file.dataset("events/size").expect("sizes");
    let larger: Vec<f32> = size.read_raw().expect("sizes").iter().map(|x: &f32| x * 2.0).collect();
    size.write_raw(&larger).expect("sizes");
    drop((size, file));
    std::fs::remove_file(extraction.hillas(3)).expect("an output");
    for count in [1, 3] {
        let output = extraction.at(&format!("scores-{count}"));
        let line = arguments![
            "score",
            "-m",
            &trained().model,
            "-o",
            &output,
            extraction.at("hillas"),
            "--split-rows",
            "10"
        ];
        let outcome = run(&mut if count == 1 { program(&line) } else { ranks(count, &line) });
        refused(&outcome, 4, "was changed since it was extracted");
        refused(&outcome, 4, "is lost");
        assert!(!output.join("night-1/run-2.h5").exists());
    }
    let line = arguments![
        "train",
        "-c",
        configuration(extraction.folder.path(), &extraction.at("hillas"), "[train]\nepochs = 1\n"),
        "-o",
        extraction.at("run")
    ];
    refused(&run(&mut program(&line)), 3, "was changed since it was extracted");
}

#[test]
fn failed_images_are_missing_from_the_scores() {
    let extraction = Extraction::with_failure(1);
    let folder = extraction.folder.path().to_path_buf();
    let root = folder.to_str().expect("UTF-8");
    std::fs::write(extraction.at("list"), "hillas\n").expect("a list");
    let list = PathBuf::from(format!("@{}", extraction.at("list").display()));
    let named: [(PathBuf, &[&str], &str); 6] = [
        (extraction.at("hillas"), &[], "night-0/run-1.h5"),
        (extraction.at("hillas/night-0"), &[], "run-1.h5"),
        (extraction.at("hillas"), &["--root", root], "hillas/night-0/run-1.h5"),
        (list, &["--root", root], "hillas/night-0/run-1.h5"),
        (extraction.at("hillas/night-*"), &["--root", root], "hillas/night-0/run-1.h5"),
        (extraction.at("hillas/*/run-?.h5"), &["--root", root], "hillas/night-0/run-1.h5"),
    ];
    for (input, more, output) in named {
        let (outcome, manifest) = extraction.score(std::slice::from_ref(&input), more);
        refused(&outcome, 4, "was not extracted");
        let failed = failed(&manifest);
        assert_eq!(failed.len(), 1, "{input:?}: {manifest}");
        assert_eq!(failed[0].0, output, "{input:?}");
    }
    // The input is the parent folder of the extraction.
    let above = extraction.at("above");
    std::fs::create_dir(&above).expect("a folder");
    std::fs::rename(extraction.at("hillas"), above.join("hillas")).expect("moved");
    let (outcome, manifest) = extraction.score(&[above], &[]);
    refused(&outcome, 4, "was not extracted");
    assert_eq!(failed(&manifest)[0].0, "hillas/night-0/run-1.h5");
    // Other nights are not affected. Single files are accepted with a warning.
    let night = extraction.at("above/hillas/night-1");
    let (outcome, _) = extraction.score(std::slice::from_ref(&night), &[]);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    let (outcome, _) = extraction.score(&[night.join("run-2.h5")], &[]);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("could not be extracted"), "{}", outcome.stderr);
}

#[test]
fn repaired_failure_leaves_the_manifest() {
    let extraction = Extraction::with_failure(1);
    let (outcome, _) = extraction.score(&[extraction.at("hillas")], &[]);
    refused(&outcome, 4, "was not extracted");
    let outcome = extraction.train();
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("could not be extracted"), "{}", outcome.stderr);
    extraction.write_images(1, 1);
    succeed(&mut program(&extraction.extract()));
    let line = arguments![
        "score",
        "-m",
        &trained().model,
        "-o",
        extraction.at("scores"),
        extraction.at("hillas")
    ];
    succeed(&mut program(&line));
    succeed(&mut program(&arguments!["verify", extraction.at("scores")]));
    let manifest: Value =
        serde_json::from_str(&text(&extraction.at("scores/manifest.json"))).expect("JSON");
    assert_eq!(manifest["files"].as_array().map(Vec::len), Some(4));
    assert_eq!(failed(&manifest), []);
}

#[test]
fn file_added_to_extraction_is_not_scored() {
    let extraction = Extraction::new();
    let other: &Path = &extraction.at("hillas/night-0/other.h5");
    std::fs::copy(&trained().gamma, other).expect("a copy");
    let (outcome, manifest) = extraction.score(&[extraction.at("hillas")], &[]);
    refused(&outcome, 4, "other.h5");
    assert_eq!(manifest["files"].as_array().map(Vec::len), Some(4));
}
