//! Bad input is refused with the right exit code. The message has the position, the expected and
//! the found value, and advice. No partial output remains.

use crate::support::{
    Defect, Events, Outcome, arguments, configuration, folder, json, program, ranks, run, seed,
    simulated, succeed, trained, tree, write_with_defect,
};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use taiga_flow::config::Class;

const USAGE: i32 = 2;
const INPUT: i32 = 3;
const PARTIAL: i32 = 4;
const ENVIRONMENT: i32 = 5;

/// Runs a command that must be refused; the folder must stay as it was.
fn refuse(command: &mut Command, folder: &Path, code: i32, expected: &[&str]) -> Outcome {
    let before = tree(folder);
    let outcome = run(command);
    assert_eq!(outcome.code, Some(code), "{}{}", outcome.stdout, outcome.stderr);
    for text in expected {
        assert!(outcome.stderr.contains(text), "'{text}' is not in: {}", outcome.stderr);
    }
    assert!(!outcome.stderr.contains("panicked"), "{}", outcome.stderr);
    assert_eq!(tree(folder), before, "something was left behind: {}", outcome.stderr);
    outcome
}

fn refused(arguments: &[OsString], folder: &Path, code: i32, expected: &[&str]) -> Outcome {
    let outcome = refuse(&mut program(arguments), folder, code, expected);
    assert_eq!(outcome.stdout, "", "a refused command prints no result");
    outcome
}

/// Returns some toy gammas.
fn events() -> Events {
    Events::read(&trained().gamma).chosen(&(0..3000).collect::<Vec<usize>>())
}

/// Checks that training and scoring both refuse a bad file.
fn refused_by_all(path: &Path, expected: &[&str]) {
    let folder = path.parent().expect("a folder");
    let name = path.file_name().and_then(|name| name.to_str()).expect("a name");
    let expected: Vec<&str> = expected.iter().copied().chain([name, "advice: "]).collect();
    let configuration = configuration(folder, path, "");
    let output = folder.join("output");
    refused(&arguments!["train", "-c", &configuration, "-o", &output], folder, INPUT, &expected);
    let model = &trained().model;
    let score = arguments!["score", "-m", model, "-o", &output, path];
    // An empty output folder may stay.
    std::fs::create_dir_all(&output).expect("a folder");
    refused(&score, folder, INPUT, &expected);
    std::fs::remove_dir(&output).expect("an empty folder");
    let evaluate = arguments!["evaluate", "-m", model, "--gamma", path, "-o", &output];
    refused(&evaluate, folder, INPUT, &expected);
}

#[test]
fn invalid_columns_are_refused() {
    let folder = folder();
    let events = events();
    let cases: [(&str, Defect, &[&str]); 5] = [
        ("misspelt", Defect::Renamed("widht"), &["'width'", "did you mean 'widht'?"]),
        ("missing", Defect::Renamed("zzz"), &["'width'", "size, "]),
        (
            "text",
            Defect::Text,
            &["not a numeric column", "events/width", "expected numbers, found text"],
        ),
        (
            "shorter",
            Defect::Shorter,
            &["differ in length", "events/width", "expected 3000 rows", "found 2999 rows"],
        ),
        (
            "table",
            Defect::Table,
            &["not a column", "events/width", "expected one dimension", "[1500, 2]"],
        ),
    ];
    for (name, odd, expected) in cases {
        let path = folder.path().join(format!("{name}.h5"));
        write_with_defect(&events, &path, "width", &odd);
        refused_by_all(&path, expected);
        std::fs::remove_file(&path).expect("the file");
    }
}

#[test]
fn non_event_files_are_refused() {
    let folder = folder();
    let whole = std::fs::read(&trained().gamma).expect("a file");
    let path = |name: &str| folder.path().join(name);
    let cases: [(&str, Vec<u8>, &[&str]); 4] = [
        ("nothing.h5", Vec::new(), &["empty", "0 bytes"]),
        (
            "table.h5",
            b"size,width\n1,2\n".to_vec(),
            &["not an HDF5 file", "a text file", "taiga-flow convert"],
        ),
        (
            "noise.h5",
            (0..5000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8 | 128).collect(),
            &["not an HDF5 file"],
        ),
        (
            "truncated.h5",
            whole[..whole.len() * 2 / 3].to_vec(),
            &["truncated", "copy or write it again"],
        ),
    ];
    for (name, bytes, expected) in cases {
        std::fs::write(path(name), bytes).expect("a file");
        refused_by_all(&path(name), expected);
        std::fs::remove_file(path(name)).expect("the file");
    }
    std::fs::write(path("gamma.h5"), &whole).expect("a file");
    let configuration = configuration(folder.path(), &path("gamam.h5"), "");
    let command = arguments!["train", "-c", &configuration, "-o", &path("output")];
    refused(
        &command,
        folder.path(),
        INPUT,
        &["gamam.h5: file not found", "did you mean 'gamma.h5'?"],
    );
    let command =
        arguments!["score", "-m", &trained().model, "-o", &path("output"), &path("gamam.h5")];
    refused(
        &command,
        folder.path(),
        INPUT,
        &["gamam.h5: file not found", "did you mean 'gamma.h5'?"],
    );
}

#[test]
fn file_truncated_anywhere_is_refused() {
    let folder = folder();
    let whole = std::fs::read(&trained().gamma).expect("a file");
    let path = folder.path().join("cut.h5");
    for i in 1..12 {
        let length = (seed() as usize).wrapping_mul(i * i + 7) % whole.len();
        std::fs::write(&path, &whole[..length]).expect("a file");
        let output = folder.path().join("output");
        let evaluate =
            arguments!["evaluate", "-m", &trained().model, "--gamma", &path, "-o", &output];
        refused(&evaluate, folder.path(), INPUT, &["cut.h5"]);
    }
}

#[test]
fn unusable_rows_over_the_budget_are_refused() {
    let folder = folder();
    let mut events = events();
    for row in 0..90 {
        events.feature("width")[31 * row] = [f32::NAN, f32::INFINITY][row % 2];
        events.feature("size")[31 * row] = 100.0; // inside the cut
        // Outside the cut: counted as not finite, but not part of the budget.
        events.feature("size")[31 * row + 2] = 59.0;
        events.feature("width")[31 * row + 2] = f32::NAN;
    }
    for row in 0..30 {
        events.feature("con2")[31 * row + 1] = -1.0;
        events.feature("size")[31 * row + 1] = 100.0; // inside the cut
    }
    let path = folder.path().join("holes.h5");
    events.write(&path);
    let (configuration, output) =
        (configuration(folder.path(), &path, "[train]\nepochs = 2\n"), folder.path().join("run"));
    let train = arguments!["train", "-c", &configuration, "-o", &output];
    let printed =
        ["90 not finite", "30 outside a transform's domain", "0.01 of 3000", "data.bad_rows"];
    refused(&train, folder.path(), INPUT, &printed);
    refuse(&mut ranks(2, &train), folder.path(), INPUT, &printed);
    let within =
        arguments!["train", "-c", &configuration, "-o", &output, "--set", "data.bad_rows=0.05"];
    let report = json(&within);
    assert_eq!(
        (report["rows"]["not_finite"].as_u64(), report["rows"]["out_of_domain"].as_u64()),
        (Some(180), Some(30))
    );
    assert_eq!(report["rows"]["read"], 3000);
}

#[test]
fn duplicate_events_are_not_trained_on() {
    let folder = folder();
    let (first, at) = (events(), |name: &str| folder.path().join(name));
    let mut second = first.chosen(&(100..140).collect::<Vec<usize>>());
    first.write(&at("first.h5"));
    second.feature("size").iter_mut().for_each(|size| *size += 1.0);
    second.write(&at("second.h5"));
    let configuration = configuration(folder.path(), &at("*.h5"), "[train]\nepochs = 2\n");
    let train = arguments!["train", "-c", &configuration, "-o", &at("run")];
    let expected = ["duplicate events", "second.h5", "40 rows", "row 100 of", "first.h5", "run_id"];
    refused(&train, folder.path(), INPUT, &expected);
    refuse(&mut ranks(2, &train), folder.path(), INPUT, &expected);
    let allowed =
        [&train[..], &arguments!["--set", "data.allow_repeated_events=true"][..]].concat();
    assert_eq!(json(&allowed)["rows"]["read"], 3040);
}

#[test]
fn options_without_effect_are_refused() {
    let folder = folder();
    let output = folder.path().join("gamma.h5");
    for option in [["--camera", "taiga-560"], ["--noise", "3"], ["--offset", "0"]] {
        let simulate = arguments!["simulate", "-o", &output, "--class", "gamma", "--events", "9"];
        let simulate = [&simulate[..], &arguments![option[0], option[1]][..]].concat();
        refused(&simulate, folder.path(), USAGE, &[option[0], "--level images"]);
    }
    assert!(!output.exists());
}

#[test]
fn invalid_configurations_are_refused() {
    let folder = folder();
    let gamma = &trained().gamma;
    let output = folder.path().join("run");
    let cases: [(&str, &[&str]); 6] = [
        (
            "[train]\nepoch = 3\n",
            &["line 24", "unknown key `train.epoch`", "did you mean 'epochs'?"],
        ),
        ("[trian]\nepochs = 3\n", &["unknown key `trian`", "did you mean 'train'?"]),
        (
            "[train]\nepochs = \"three\"\n",
            &["line 24", "`train.epochs` must be a whole number, found \"three\""],
        ),
        ("[train]\nepochs = 0\n", &["train.epochs", "expected 1 or more", "found 0"]),
        ("[split]\ntrain = 0.9\n", &["split", "expected 1"]),
        ("[train\n", &["line 23"]),
    ];
    for (more, expected) in cases {
        let configuration = configuration(folder.path(), gamma, more);
        let train = arguments!["train", "-c", &configuration, "-o", &output];
        let expected: Vec<&str> = expected.iter().copied().chain(["configuration.toml"]).collect();
        refused(&train, folder.path(), USAGE, &expected);
    }
    let configuration = configuration(folder.path(), gamma, "");
    let settings: [(&str, &[&str]); 4] = [
        ("train.epoch=3", &["unknown key `train.epoch`", "did you mean 'epochs'?"]),
        ("train.epochs", &["--set", "section.key=value"]),
        ("train.epochs=-1", &["`train.epochs` must be a whole number, found -1"]),
        ("model.blocks=1000", &["blocks", "256"]),
    ];
    for (setting, expected) in settings {
        let train = arguments!["train", "-c", &configuration, "-o", &output, "--set", setting];
        refused(&train, folder.path(), USAGE, expected);
    }
    let absent = folder.path().join("absent.toml");
    let train = arguments!["train", "-c", &absent, "-o", &output];
    refused(&train, folder.path(), USAGE, &["absent.toml", "cannot read the configuration"]);
}

#[test]
fn existing_outputs_are_refused_and_unchanged() {
    let (trained, folder) = (trained(), folder());
    let at = |name: &str| folder.path().join(name);
    let (file, table) = (at("events.h5"), at("table.csv"));
    std::fs::write(&file, "precious").expect("a file");
    std::fs::write(&table, "1,2\n").expect("a file");
    let exists = ["events.h5", "already exists", "--overwrite"];
    let simulate = arguments!["simulate", "-o", &file, "--class", "gamma", "--events", "10"];
    refused(&simulate, folder.path(), USAGE, &exists);
    refused(&arguments!["convert", &table, "-o", &file], folder.path(), USAGE, &exists);
    refused(&arguments!["report", &trained.run, "-o", &file], folder.path(), USAGE, &exists);
    for name in ["scores/gamma.h5", "evaluation/evaluation.json", "other/notes.txt"] {
        std::fs::create_dir_all(at(name).parent().expect("a folder")).expect("a folder");
        std::fs::write(at(name), "precious").expect("a file");
    }
    let score = arguments!["score", "-m", &trained.model, "-o", &at("scores"), &trained.gamma];
    refused(&score, folder.path(), USAGE, &["gamma.h5", "already exists"]);
    refuse(&mut ranks(2, &score), folder.path(), USAGE, &["gamma.h5", "already exists"]);
    let evaluate = arguments![
        "evaluate",
        "-m",
        &trained.model,
        "--gamma",
        &trained.gamma,
        "-o",
        &at("evaluation")
    ];
    refused(&evaluate, folder.path(), USAGE, &["evaluation.json", "already exists"]);
    let train = arguments!["train", "-c", &trained.configuration, "-o", &at("other")];
    refused(&train, folder.path(), USAGE, &["other files than a run"]);
    let run_folder = trained.run.parent().expect("a folder");
    let train =
        arguments!["train", "-c", &trained.configuration, "-o", &trained.run, "--resume", "never"];
    refused(&train, run_folder, USAGE, &["the run already exists", "--resume auto"]);
    let train = arguments![
        "train",
        "-c",
        &trained.configuration,
        "-o",
        &trained.run,
        "--set",
        "train.seed=9"
    ];
    refused(&train, run_folder, USAGE, &["a different configuration", "--overwrite"]);
}

#[test]
fn model_with_other_features_is_refused() {
    let folder = folder();
    let events = events();
    let output = folder.path().join("output");
    let path = folder.path().join("millimetres.h5");
    write_with_defect(&events, &path, "length", &Defect::Unit("mm"));
    let expected = ["millimetres.h5", "length", "expected deg", "found mm"];
    for command in ["score", "evaluate"] {
        std::fs::create_dir_all(&output).expect("a folder");
        let mut arguments = Vec::from(arguments![command, "-m", &trained().model, "-o", &output]);
        if command == "evaluate" {
            arguments.push("--gamma".into());
        }
        arguments.push(path.clone().into());
        refused(&arguments, folder.path(), INPUT, &expected);
    }
    // Train on a quantity that the file does not have.
    let configuration = configuration(folder.path(), &trained().gamma, "[train]\nepochs = 1\n");
    let model = folder.path().join("run");
    let column = "features.columns=[{name=\"skewness\"},{name=\"size\",transform=\"log10\"}]";
    succeed(&mut program(&arguments![
        "train",
        "-q",
        "-c",
        &configuration,
        "-o",
        &model,
        "--set",
        column
    ]));
    let mut without = events.clone();
    without.features.retain(|(name, _)| name != "skewness");
    let path = folder.path().join("without.h5");
    without.write(&path);
    let score = arguments!["score", "-m", &model.join("model.safetensors"), "-o", &output, &path];
    refused(&score, folder.path(), INPUT, &["without.h5", "'skewness'"]);
}

#[test]
fn invalid_or_damaged_models_are_refused() {
    let (trained, folder) = (trained(), folder());
    let whole = std::fs::read(&trained.model).expect("a model");
    let path = folder.path().join("model.safetensors");
    let output = folder.path().join("output");
    let score = arguments!["score", "-m", &path, "-o", &output, &trained.gamma];
    refused(&score, folder.path(), INPUT, &["model.safetensors", "cannot read the model"]);
    let events = std::fs::read(&trained.gamma).expect("a file");
    for bytes in [&b""[..], b"not a model", &events] {
        std::fs::write(&path, bytes).expect("a file");
        refused(
            &score,
            folder.path(),
            INPUT,
            &["model.safetensors", "not a taiga-flow model", "advice: "],
        );
    }
    for length in [8, 100, whole.len() / 2, whole.len() - 1] {
        std::fs::write(&path, &whole[..length]).expect("a file");
        refused(&score, folder.path(), INPUT, &["model.safetensors", "not a taiga-flow model"]);
    }
}

/// A flipped bit anywhere in a model file (header, card or weight) is refused, or changes nothing
/// that is read, such as a space or the name of a default.
#[test]
fn flipped_bit_in_a_model_refused_or_harmless() {
    use taiga_flow::model::Model;
    let whole = std::fs::read(&trained().model).expect("a model");
    let model = Model::from_bytes(&whole).expect("a whole model");
    let weights = 8 + u64::from_le_bytes(whole[..8].try_into().expect("8 bytes")) as usize;
    let stream = taiga_flow_gpu::random::Stream::new(seed(), "flip", &[]);
    let mut harmless = 0;
    for i in 0..3000 {
        // Half of the flips are in the header, which contains the card, half in the weights behind
        // it.
        let place = if i % 2 == 0 { 0..weights } else { weights..whole.len() };
        let at = place.start + (stream.bits(2 * i) % place.len() as u64) as usize;
        let mut flipped = whole.clone();
        flipped[at] ^= 1 << (stream.bits(2 * i + 1) % 8);
        match Model::from_bytes(&flipped) {
            Err(error) => assert_eq!(i32::from(error.exit_code()), INPUT, "byte {at}: {error}"),
            Ok(read) => {
                assert!(at < weights, "byte {at}: a weight");
                assert_eq!(read, model, "byte {at}");
                harmless += 1;
            }
        }
    }
    println!("{harmless} of 1500 flips in the header were harmless");
    assert!(harmless < 150);
}

#[test]
fn more_ranks_than_shards_are_refused() {
    let (trained, folder) = (trained(), folder());
    let output = folder.path().join("run");
    let train =
        arguments!["train", "-c", &trained.configuration, "-o", &output, "--set", "train.shards=2"];
    let expected = ["more ranks than logical shards", "at most 2 ranks", "found 3", "train.shards"];
    let outcome = refuse(&mut ranks(3, &train), folder.path(), USAGE, &expected);
    let times = outcome.stderr.matches("more ranks than logical shards").count();
    assert_eq!(times, 1, "printed once, not by every rank: {}", outcome.stderr);
}

#[test]
fn processes_without_mpi_world_are_refused() {
    let (trained, folder) = (trained(), folder());
    let output = folder.path().join("output");
    let train = arguments!["train", "-c", &trained.configuration, "-o", &output];
    let score = arguments!["score", "-m", &trained.model, "-o", &output, &trained.gamma];
    for arguments in [&train[..], &score[..]] {
        let mut command = program(arguments);
        command.env("OMPI_COMM_WORLD_SIZE", "4").env("OMPI_ALLOW_RUN_AS_ROOT", "1");
        command.env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1");
        let expected = ["expected 4 ranks", "found 1 in MPI_COMM_WORLD", "advice: "];
        refuse(&mut command, folder.path(), ENVIRONMENT, &expected);
    }
}

#[test]
fn one_bad_file_does_not_stop_the_others() {
    let (trained, folder) = (trained(), folder());
    let archive = folder.path().join("archive");
    let events = events();
    for (number, name) in ["a.h5", "c.h5", "d.h5"].into_iter().enumerate() {
        let mut own = events.chosen(&(0..events.rows()).collect::<Vec<_>>());
        own.feature("dist")[0] += 0.01 * number as f32;
        own.write(&archive.join(name));
    }
    write_with_defect(&events, &archive.join("b.h5"), "dist", &Defect::Text);
    let mut whole = std::fs::read(archive.join("d.h5")).expect("a file");
    whole.truncate(5000);
    std::fs::write(archive.join("e.h5"), whole).expect("a file");
    for count in [1, 2] {
        let output = folder.path().join(format!("scores-{count}"));
        let arguments = arguments!["score", "-m", &trained.model, "-o", &output, &archive];
        let mut command = if count == 1 { program(&arguments) } else { ranks(count, &arguments) };
        let outcome = run(&mut command);
        assert_eq!(outcome.code, Some(PARTIAL), "{}", outcome.stderr);
        for text in ["2 of 5 files failed", "b.h5", "e.h5"] {
            assert!(outcome.stderr.contains(text), "'{text}' is not in: {}", outcome.stderr);
        }
        let left: Vec<String> = tree(&output).into_keys().collect();
        assert_eq!(left, ["a.h5", "c.h5", "d.h5", "manifest.json"]);
        let manifest = std::fs::read_to_string(output.join("manifest.json")).expect("a manifest");
        let manifest: serde_json::Value = serde_json::from_str(&manifest).expect("JSON");
        assert_eq!(manifest["rows"], 9000);
        assert_eq!(manifest["failed"].as_object().map(serde_json::Map::len), Some(2));
        let file = hdf5::File::open(output.join("c.h5")).expect("scores");
        assert_eq!(file.dataset("scores/score").expect("scores").size(), 3000);
    }
}

#[test]
fn inputs_with_equal_outputs_are_refused() {
    let (trained, folder) = (trained(), folder());
    let at = |name: &str| -> PathBuf { folder.path().join(name) };
    let events = events();
    events.write(&at("one/run.h5"));
    events.chosen(&[5, 6, 7]).write(&at("two/run.hdf5"));
    let inputs = [at("one/run.h5"), at("two/run.hdf5")];
    let score =
        arguments!["score", "-m", &trained.model, "-o", &at("scores"), &inputs[0], &inputs[1]];
    refused(&score, folder.path(), USAGE, &["same output", "run.h5", "--root"]);
    let root = folder.path();
    let score = arguments![
        "score",
        "-m",
        &trained.model,
        "-o",
        &at("scores"),
        "--root",
        root,
        &inputs[0],
        &inputs[1]
    ];
    assert_eq!(json(&score)["rows"], 3003);
}

#[test]
fn swapped_gammas_and_hadrons_are_refused() {
    let (trained, folder) = (trained(), folder());
    let output = folder.path().join("evaluation");
    let evaluate = arguments![
        "evaluate",
        "-m",
        &trained.model,
        "--gamma",
        &trained.hadron,
        "--hadron",
        &trained.gamma,
        "-o",
        &output
    ];
    let expected = ["wholly of the other class", "hadron.h5", "swapped"];
    refused(&evaluate, folder.path(), INPUT, &expected);
    refuse(&mut ranks(2, &evaluate), folder.path(), INPUT, &expected);
}

#[test]
fn unwritable_output_folder_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let (trained, folder) = (trained(), folder());
    let closed = folder.path().join("closed");
    std::fs::create_dir(&closed).expect("a folder");
    std::fs::set_permissions(&closed, PermissionsExt::from_mode(0o555)).expect("a mode");
    // The superuser may write anywhere.
    if std::fs::write(closed.join("probe"), "").is_ok() {
        std::fs::remove_file(closed.join("probe")).expect("the probe");
        crate::support::skip("an unwritable folder cannot be made for the superuser");
    } else {
        let score = arguments!["score", "-m", &trained.model, "-o", &closed, &trained.gamma];
        refused(&score, folder.path(), ENVIRONMENT, &["closed", "ermission"]);
        let train = arguments!["train", "-c", &trained.configuration, "-o", &closed.join("run")];
        refused(&train, folder.path(), ENVIRONMENT, &["closed", "ermission"]);
    }
    std::fs::set_permissions(&closed, PermissionsExt::from_mode(0o755)).expect("a mode");
    // A path below a regular file cannot be created by any user.
    let file = folder.path().join("file");
    std::fs::write(&file, "precious").expect("a file");
    let simulate =
        arguments!["simulate", "-o", &file.join("x.h5"), "--class", "gamma", "--events", "9"];
    refused(&simulate, folder.path(), ENVIRONMENT, &["file"]);
}

#[test]
fn files_given_twice_are_refused() {
    let (trained, folder) = (trained(), folder());
    let copy = folder.path().join("copy.h5");
    std::fs::copy(&trained.gamma, &copy).expect("a copy");
    let configuration = configuration(folder.path(), &copy, "");
    let output = folder.path().join("run");
    let both = format!("data.gamma=[\"{}\", \"{}\"]", copy.display(), trained.gamma.display());
    let train = arguments!["train", "-c", &configuration, "-o", &output, "--set", &both];
    refused(&train, folder.path(), INPUT, &["same content", "gamma.h5", "copy.h5"]);
    let other = simulated(folder.path().join("other.h5"), Class::Gamma, 100, 1);
    let score = arguments!["score", "-m", &trained.model, "-o", &output, &other, &other];
    refused(&score, folder.path(), INPUT, &["listed twice", "other.h5"]);
}

/// A misspelt column in a FACT file, whose schema is recognised by the columns.
#[test]
fn misspelt_column_of_foreign_file_is_named() {
    let folder = folder();
    let path = folder.path().join("fact-like.h5");
    let columns = [
        "size",
        "widht",
        "length",
        "delta",
        "cog_x",
        "cog_y",
        "source_position_x",
        "source_position_y",
        "concentration_two_pixel",
    ];
    let file = hdf5::File::create(&path).expect("a file");
    let group = file.create_group("events").expect("a group");
    for column in columns {
        group.new_dataset_builder().with_data(&[1.0f64, 2.0]).create(column).expect("a dataset");
    }
    drop((group, file));
    let expected = ["width", "is 'widht' meant to be 'width'?"];
    refused_by_all(&path, &expected);
}

/// Damage that is only noticed when the rows are read, after the output was begun.
#[test]
fn file_damaged_half_way_leaves_no_output() {
    let folder = folder();
    let path = simulated(folder.path().join("long.h5"), Class::Gamma, 150_000, seed());
    let whole = std::fs::read(&path).expect("a file");
    let output = folder.path().join("scores");
    std::fs::create_dir(&output).expect("a folder");
    let score = arguments!["score", "-m", &trained().model, "-o", &output, &path];
    let mut half_way = 0;
    for percent in [35, 50, 65, 80, 95] {
        let mut damaged = whole.clone();
        let at = whole.len() * percent / 100;
        damaged[at..at + 8].iter_mut().for_each(|byte| *byte ^= 0x55);
        std::fs::write(&path, damaged).expect("a file");
        let before = tree(folder.path());
        let outcome = run(&mut program(&score));
        if outcome.code == Some(0) {
            // The damaged column is not read.
            std::fs::remove_dir_all(&output).expect("the outputs");
            std::fs::create_dir(&output).expect("a folder");
            continue;
        }
        assert_eq!(outcome.code, Some(INPUT), "{}", outcome.stderr);
        assert_eq!(tree(folder.path()), before, "{}", outcome.stderr);
        for text in ["long.h5", "dataset 'events/", "row ", "checksum does not agree"] {
            assert!(outcome.stderr.contains(text), "'{text}' is not in: {}", outcome.stderr);
        }
        half_way += 1;
    }
    assert!(half_way > 0, "no damage was in a column that is read");
}

#[test]
fn adjacent_positions_are_refused() {
    let (trained, folder) = (trained(), folder());
    for positions in ["[0,360]", "[0,0]", "[0,10]", "[0,180,-180]"] {
        let set = format!("score.positions={positions}");
        let output = folder.path().join("scores");
        let arguments =
            arguments!["score", "-m", &trained.model, "-o", &output, &trained.gamma, "--set", &set];
        refused(&arguments, folder.path(), USAGE, &["positions", "15 deg apart"]);
    }
}
