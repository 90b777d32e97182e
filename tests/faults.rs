//! Defects of input files are named and counted, and each has its exit code.

use crate::support::{
    Defect, Events, Outcome, arguments, configuration, folder, json, program, run, seed, simulated,
    skip, write_with_defect,
};
use serde_json::Value;
use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use taiga_flow::config::Class;
use taiga_flow::data::table::{Block, Request, Table};
use taiga_flow::data::{Attribute, ColumnSpec, ColumnType, ColumnValues, ColumnWriter, Schema};
use tempfile::TempDir;

const INPUT: i32 = 3;

/// Runs `check --json`, and returns its report for any outcome.
fn check(arguments: &[OsString]) -> (Outcome, Value) {
    let outcome = run(program(&arguments!["check"]).args(arguments).arg("--json"));
    assert!(!outcome.stderr.contains("panicked"), "{}", outcome.stderr);
    let report = serde_json::from_str(&outcome.stdout)
        .unwrap_or_else(|e| panic!("{e}: {}{}", outcome.stdout, outcome.stderr));
    (outcome, report)
}

/// Joins all reasons and warnings of a report into one text.
fn messages_of(report: &Value, what: &str) -> String {
    let files = report["files"].as_array().expect("files");
    let lists = files.iter().filter_map(|file| file[what].as_array());
    lists.flatten().filter_map(Value::as_str).collect::<Vec<&str>>().join("\n")
}

/// Returns the finding of one kind about the set of files.
fn finding(report: &Value, kind: &str) -> Value {
    let set = report["set"].as_array().expect("findings");
    set.iter().find(|f| f["kind"] == kind).unwrap_or_else(|| panic!("no {kind}: {report}")).clone()
}

fn refused(path: &Path, parts: &[&str]) {
    let (outcome, report) = check(&arguments![path]);
    assert_eq!(outcome.code, Some(INPUT), "{}: {report}", path.display());
    let reasons = messages_of(&report, "refused");
    for part in parts {
        assert!(reasons.contains(part), "{}: '{part}' is not in: {reasons}", path.display());
    }
}

/// Creates a folder with a file of toy gammas, and returns its events.
fn toy(rows: u64) -> (TempDir, PathBuf, Events) {
    let folder = folder();
    let path = simulated(folder.path().join("toy.h5"), Class::Gamma, rows, seed());
    let events = Events::read(&path);
    (folder, path, events)
}

fn generated(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

#[test]
fn good_file_has_no_findings() {
    let (_folder, path, _) = toy(3000);
    let (outcome, report) = check(&arguments![&path]);
    assert_eq!(outcome.code, Some(0), "{report}");
    assert_eq!(
        (messages_of(&report, "refused"), messages_of(&report, "warnings")),
        (String::new(), String::new())
    );
    assert_eq!((report["rows"].as_u64(), &report["set"]), (Some(3000), &serde_json::json!([])));
}

#[test]
fn unreadable_and_foreign_files_are_refused() {
    let (folder, path, _) = toy(3000);
    let whole = std::fs::read(&path).expect("a file");
    let at = |name: &str| folder.path().join(name);
    for (name, bytes, parts) in [
        ("truncated.h5", &whole[..whole.len() / 2], &["the file is truncated", "eof"][..]),
        ("text.h5", b"size,width\n1,2\n", &["not an HDF5 file", "a text file"]),
        ("fits.h5", b"SIMPLE  =                    T", &["a FITS file"]),
        ("zero.h5", b"", &["the file is empty", "0 bytes"]),
    ] {
        std::fs::write(at(name), bytes).expect("a file");
        refused(&at(name), parts);
    }
    refused(&at("absent.h5"), &["file not found"]);
}

#[test]
fn missing_or_mistyped_datasets_are_found() {
    let (folder, _, events) = toy(3000);
    let at = |name: &str| folder.path().join(name);
    write_with_defect(&events, &at("shorter.h5"), "width", &Defect::Shorter);
    refused(&at("shorter.h5"), &["columns differ in length", "2999 rows", "3000 rows"]);
    // A missing quantity is an error if a configuration needs it, and otherwise a warning.
    for (name, odd, part) in [
        ("missing.h5", Defect::Renamed("zzz"), "quantity 'width' is not available"),
        ("misspelt.h5", Defect::Renamed("widht"), "did you mean 'widht'?"),
        ("text.h5", Defect::Text, "expected numbers, found text"),
        ("table.h5", Defect::Table, "expected one dimension"),
    ] {
        write_with_defect(&events, &at(name), "width", &odd);
        let (outcome, report) = check(&arguments![&at(name)]);
        assert_eq!(outcome.code, Some(0), "{report}");
        assert!(messages_of(&report, "warnings").contains("not there: width"), "{report}");
        let configuration = configuration(folder.path(), &at(name), "");
        let (outcome, report) = check(&arguments!["-c", &configuration]);
        assert_eq!(outcome.code, Some(INPUT), "{report}");
        assert!(messages_of(&report, "refused").contains(part), "{part}: {report}");
    }
}

#[test]
fn column_missing_in_one_file_is_found() {
    let (folder, path, mut events) = toy(500);
    events.features.push(("novelty".to_string(), vec![1.5; 500]));
    events.features.retain(|(name, _)| name != "skewness");
    events.keys[0].1.iter_mut().for_each(|run| *run += 1_000_000);
    let other = folder.path().join("other.h5");
    events.write(&other);
    let (outcome, report) = check(&arguments![&path, &other]);
    assert_eq!(outcome.code, Some(0), "{report}");
    let text = finding(&report, "columns-differ")["text"].to_string();
    assert!(text.contains("lacks skewness and has novelty besides"), "{text}");
}

#[test]
fn wrong_units_are_found() {
    let (folder, _, events) = toy(3000);
    let at = |name: &str| folder.path().join(name);
    for (column, unit, expected) in [
        ("alpha", "rad", "expected deg, found rad"),
        ("energy", "GeV", "expected TeV, found GeV"),
        ("length", "mm", "expected deg, found mm"),
    ] {
        let path = at(&format!("{column}.h5"));
        write_with_defect(&events, &path, column, &Defect::Unit(unit));
        refused(&path, &[expected, column]);
    }
    let changed = |name: &str, column: &str, factor: f32| {
        let mut events = events.clone();
        events.feature(column).iter_mut().for_each(|value| *value *= factor);
        events.write(&at(name));
        at(name)
    };
    refused(&changed("radians.h5", "alpha", 0.017_453), &["never exceeds", "radians"]);
    refused(&changed("mm.h5", "length", 85.0), &["'length' is not 0 to 20 deg in", "of 3000 rows"]);
    let (_, report) = check(&arguments![&changed("ev.h5", "energy", 1e12)]);
    let warnings = messages_of(&report, "warnings");
    assert!(warnings.contains("'energy' is not 0 to 1000000 TeV in 3000 of 3000"), "{report}");
}

#[test]
fn file_of_other_version_is_refused() {
    let folder = folder();
    let path = folder.path().join("old.h5");
    let specs = [ColumnSpec::new("size", ColumnType::F32, Some("p.e."))];
    let mut writer = ColumnWriter::create(&path, "events", &specs, false).expect("a file");
    writer.append(&[ColumnValues::F32(&[1.0])]).expect("a row");
    let format = Attribute::Text("taiga-flow-events".to_string());
    let version = Attribute::Integer(2);
    writer.finish(&[("format".to_string(), format), ("version".to_string(), version)]).expect("it");
    refused(&path, &["expected version 1, found version 2"]);
}

#[test]
fn unusable_and_constant_values_are_counted() {
    let (folder, _, events) = toy(3000);
    let path = folder.path().join("values.h5");
    let with = |change: &dyn Fn(&mut Events)| {
        let mut events = events.clone();
        change(&mut events);
        let _ = std::fs::remove_file(&path);
        events.write(&path);
        check(&arguments![&path])
    };
    let (outcome, report) = with(&|events| {
        events.feature("width")[7] = f32::NAN;
        events.feature("con2")[8] = f32::INFINITY;
        events.feature("con2")[9] = f32::NEG_INFINITY;
        events.feature("con2")[10] = 1.5;
    });
    assert_eq!(outcome.code, Some(0), "{report}");
    let column = |name: &str| {
        let columns = report["files"][0]["contents"]["columns"].as_array().expect("columns");
        columns.iter().find(|column| column["name"] == name).expect("a column").clone()
    };
    assert_eq!(column("width")["nan"], 1);
    assert_eq!(
        (&column("con2")["infinite"], &column("con2")["impossible"]),
        (&2.into(), &1.into())
    );
    for text in ["'width' is NaN in 1 of 3000", "'con2' is not 0 to 1 in 3 of 3000"] {
        assert!(messages_of(&report, "warnings").contains(text), "{report}");
    }
    for (change, part) in [
        (
            &(|e: &mut Events| e.feature("con2").fill(0.5)) as &dyn Fn(&mut Events),
            "the same in every row",
        ),
        (&|e: &mut Events| e.feature("con2").fill(f32::NAN), "NaN in every row"),
        (&|e: &mut Events| e.feature("con2")[..40].fill(2.0), "not 0 to 1 in 40 of 3000"),
        (
            &|e: &mut Events| e.feature("axis").iter_mut().for_each(|a| *a = -*a),
            "'alpha' differs from",
        ),
        (
            &|e: &mut Events| e.feature("source_x").iter_mut().for_each(|x| *x = -*x),
            "'dist' differs from",
        ),
    ] {
        let (outcome, report) = with(change);
        assert_eq!(outcome.code, Some(INPUT), "{report}");
        assert!(messages_of(&report, "refused").contains(part), "{part}: {report}");
    }
}

#[test]
fn duplicate_keys_are_found_across_files() {
    let (folder, path, events) = toy(2000);
    let at = |name: &str| folder.path().join(name);
    let rows: Vec<usize> = (0..1000).chain(100..117).collect();
    events.chosen(&rows).write(&at("within.h5"));
    let (outcome, report) = check(&arguments![&at("within.h5")]);
    assert_eq!(outcome.code, Some(INPUT), "{report}");
    let found = finding(&report, "same-events");
    assert_eq!(found["rows"], 17, "{found}");
    assert!(found["text"].to_string().contains("row 1000 that of row 100 (run_id "), "{found}");
    events.chosen(&(1500..2000).collect::<Vec<usize>>()).write(&at("across.h5"));
    let (outcome, report) = check(&arguments![&path, &at("across.h5")]);
    assert_eq!(outcome.code, Some(INPUT), "{report}");
    let found = finding(&report, "same-events");
    assert_eq!((&found["rows"], found["files"].as_array().map(Vec::len)), (&500.into(), Some(2)));
}

#[test]
fn links_and_copies_of_a_file_are_found() {
    let (folder, path, _) = toy(500);
    let at = |name: &str| folder.path().join(name);
    std::os::unix::fs::symlink(&path, at("link.h5")).expect("a link");
    std::fs::hard_link(&path, at("hard.h5")).expect("a link");
    std::fs::copy(&path, at("copy.h5")).expect("a copy");
    for (other, kind) in [
        ("toy.h5", "same-file"),
        ("link.h5", "same-file"),
        ("hard.h5", "same-file"),
        ("copy.h5", "same-content"),
    ] {
        let (outcome, report) = check(&arguments![&path, &at(other)]);
        assert_eq!(outcome.code, Some(INPUT), "{report}");
        assert_eq!(report["set"].as_array().map(Vec::len), Some(1), "{report}");
        assert_eq!(finding(&report, kind)["refused"], true);
    }
}

#[test]
fn swapped_or_overlapping_classes_are_found() {
    let (folder, gamma, events) = toy(1000);
    let at = |name: &str| folder.path().join(name);
    let hadron = simulated(at("hadron.h5"), Class::Hadron, 1000, seed());
    let swapped = arguments!["--gamma", &hadron, "--hadron", &gamma];
    let (outcome, report) = check(&swapped);
    assert_eq!(outcome.code, Some(INPUT), "{report}");
    let reasons = messages_of(&report, "refused");
    for part in [
        "given as gammas, but 1000 of 1000 rows are hadrons: the files are swapped",
        "given as hadrons",
    ] {
        assert!(reasons.contains(part), "{reasons}");
    }
    let (outcome, report) = check(&arguments!["--gamma", &gamma, "--hadron", &hadron]);
    assert_eq!(outcome.code, Some(0), "{report}");
    // Some gammas, given as hadrons.
    let mut some = events.chosen(&(0..70).collect::<Vec<usize>>());
    some.class.fill(0);
    some.write(&at("some.h5"));
    let (outcome, report) = check(&arguments!["--gamma", &gamma, "--hadron", &at("some.h5")]);
    assert_eq!(outcome.code, Some(INPUT), "{report}");
    let found = finding(&report, "overlap");
    assert_eq!(found["rows"], 70);
    assert!(found["text"].to_string().contains("as gammas and as hadrons"), "{found}");
    // Different events with the same keys.
    some.feature("size").iter_mut().for_each(|size| *size *= 1.5);
    std::fs::remove_file(at("some.h5")).expect("the file");
    some.write(&at("some.h5"));
    let (outcome, report) = check(&arguments!["--gamma", &gamma, "--hadron", &at("some.h5")]);
    assert_eq!(outcome.code, Some(0), "{report}");
    assert_eq!(finding(&report, "same-numbers")["rows"], 70);
}

#[test]
fn hadron_sources_on_a_circle_are_found() {
    let (folder, gamma, _) = toy(1000);
    let path = simulated(folder.path().join("hadron.h5"), Class::Hadron, 1000, seed());
    let mut events = Events::read(&path);
    let far: Vec<f32> = (0..1000).map(|i| 5.0 * (i as f32 / 1000.0).sqrt()).collect();
    events.feature("source_x").copy_from_slice(&far);
    events.feature("source_y").fill(0.0);
    std::fs::remove_file(&path).expect("the file");
    events.write(&path);
    let (_, report) = check(&arguments!["--gamma", &gamma, "--hadron", &path]);
    let found = finding(&report, "source-positions");
    assert!(found["text"].to_string().contains("would learn the generator"), "{found}");
    assert_eq!((&found["refused"], &found["rows"]), (&false.into(), &1000.into()));
}

#[test]
fn file_without_read_permission_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let (_folder, path, _) = toy(100);
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o000)).expect("a mode");
    if std::fs::File::open(&path).is_ok() {
        return skip("an unreadable file cannot be made for the superuser");
    }
    refused(&path, &["no permission to read the file"]);
}

#[test]
fn file_changed_while_read_is_refused() {
    let (_folder, path, _) = toy(3000);
    let schema = Schema::detect(&path).expect("a schema");
    let table = Table::open(&path, &schema).expect("a table");
    let request = Request { quantities: vec!["size".to_string()], ..Request::default() };
    let mut reader = table.reader(&request).expect("a reader");
    let mut block = Block::default();
    reader.read(0..1000, &mut block).expect("rows");
    // As a copy that is still running would do.
    let mut file = std::fs::OpenOptions::new().append(true).open(&path).expect("the file");
    file.write_all(b"more").expect("more");
    let error = reader.read(1000..2000, &mut block).expect_err("a refusal");
    assert_eq!(i32::from(error.exit_code()), INPUT);
    assert!(error.to_string().contains("the file changed while it was read"), "{error}");
}

#[test]
fn table_of_more_than_2_31_rows_is_read() {
    let folder = folder();
    let path = folder.path().join("long.h5");
    let rows = (1usize << 31) + 1_000_003;
    let file = hdf5::File::create(&path).expect("a file");
    let group = file.create_group("events").expect("a group");
    for name in ["size", "width"] {
        use hdf5::plist::dataset_create::{AllocTime, FillTime};
        let dataset = group
            .new_dataset::<i8>()
            .shape((rows,))
            .no_chunk()
            .alloc_time(Some(AllocTime::Early))
            .fill_time(FillTime::Never)
            .create(name)
            .expect("a dataset");
        dataset.write_slice(&[7i8, 8, 9], rows - 3..rows).expect("rows");
    }
    drop((group, file));
    let data = std::fs::metadata(&path).expect("a file");
    let stored = 512 * std::os::unix::fs::MetadataExt::blocks(&data);
    assert!(stored < 64 << 20, "this file system does not support sparse files: {stored} bytes");
    let report = json(&arguments!["check", &path, "--quick", "--schema", "taiga-events"]);
    assert_eq!(report["rows"].as_u64(), Some(rows as u64));
    let schema = Schema::by_name_or_path("taiga-events").expect("a schema");
    let table = Table::open(&path, &schema).expect("a table");
    let request = Request { quantities: vec!["width".to_string()], ..Request::default() };
    let mut block = Block::default();
    let rows = rows as u64;
    table.reader(&request).expect("a reader").read(rows - 5..rows, &mut block).expect("rows");
    assert_eq!(block.quantities[0], [0.0, 0.0, 7.0, 8.0, 9.0]);
}

#[test]
fn path_with_spaces_and_wildcards_is_read() {
    let (folder, path, _) = toy(300);
    let odd = folder.path().join("Таёжный γ [1] *?.h5");
    std::fs::rename(&path, &odd).expect("a new name");
    assert_eq!(json(&arguments!["check", &odd])["rows"], 300);
    assert_eq!(json(&arguments!["check", folder.path()])["rows"], 300);
}

#[test]
fn newer_hdf5_or_unknown_filter_is_refused() {
    let (outcome, report) = check(&arguments![&generated("newer.h5"), "--schema", "taiga-events"]);
    assert_eq!(outcome.code, Some(INPUT), "{report}");
    assert!(messages_of(&report, "refused").contains("needs a newer HDF5 library"), "{report}");
    refused(&generated("blosc2.h5"), &["advice", "write it with gzip, lzf or blosc"]);
}

#[test]
fn absurd_shape_is_refused_in_little_memory() {
    let folder = folder();
    let path = folder.path().join("absurd.h5");
    for rows in [1u64 << 33, 1 << 45, u64::MAX - 1] {
        let file = hdf5::File::create(&path).expect("a file");
        let group = file.create_group("events").expect("a group");
        for name in ["size", "width"] {
            let values = vec![1.0f32; 12_345];
            group.new_dataset_builder().with_data(&values).create(name).expect("a dataset");
        }
        drop((group, file));
        let mut bytes = std::fs::read(&path).expect("a file");
        for at in 0..bytes.len() - 8 {
            if bytes[at..at + 8] == 12_345u64.to_le_bytes() {
                bytes[at..at + 8].copy_from_slice(&rows.to_le_bytes());
            }
        }
        std::fs::write(&path, bytes).expect("a file");
        let limited = format!(
            "ulimit -v 4000000; exec '{}' check --schema taiga-events '{}' --json",
            env!("CARGO_BIN_EXE_taiga-flow"),
            path.display()
        );
        let outcome = run(std::process::Command::new("sh").args(["-c", &limited]));
        assert_eq!(outcome.code, Some(INPUT), "{rows}: {}", outcome.stderr);
        std::fs::remove_file(&path).expect("the file");
    }
}

/// The HDF5 library itself would read memory behind the record, or crash.
#[test]
fn field_outside_its_record_is_refused() {
    let folder = folder();
    let mut bytes = std::fs::read(generated("ctapipe.h5")).expect("a file");
    let name = b"morphology_n_pixels\0\0\0\0\0"; // padded; the offset follows, 4 bytes
    let is_type = |at: &usize| {
        let rest = &bytes[*at..];
        rest.starts_with(name) && rest[name.len() + 1..].starts_with(&[0, 0, 0])
    };
    let places: Vec<usize> = (0..bytes.len() - name.len() - 4).filter(is_type).collect();
    assert!(!places.is_empty(), "the layout of the type in the file");
    for at in places {
        bytes[at + name.len() + 2] ^= 0x80;
    }
    let path = folder.path().join("outside.h5");
    std::fs::write(&path, bytes).expect("a file");
    let (outcome, report) = check(&arguments![&path, "--schema", "ctapipe"]);
    assert_eq!(outcome.code, Some(INPUT), "{report}");
    assert!(messages_of(&report, "refused").contains("end outside of their record"), "{report}");
}
