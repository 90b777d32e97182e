//! Files of every dialect, written by its own tool (`tests/data/make_tables.py`), are read without
//! a script. The quantities equal those that a user of the tool would compute.

use crate::support::{arguments, folder, json, program, run, succeed};
use serde_json::Value;
use std::path::{Path, PathBuf};
use taiga_flow::data::table::{Block, Request, Table};
use taiga_flow::data::text::convert;
use taiga_flow::data::{Schema, text};

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

fn expected() -> Value {
    let text = std::fs::read_to_string(data("expected.json")).expect("the expected contents");
    serde_json::from_str(&text).expect("JSON")
}

fn strings(object: &Value) -> Vec<String> {
    object.as_object().expect("an object").keys().cloned().collect()
}

/// Reads a table in windows of an odd length.
fn read(table: &Table, request: &Request, window: u64) -> Block {
    let mut reader = table.reader(request).expect("a reader");
    let mut whole = Block {
        quantities: vec![Vec::new(); request.quantities.len()],
        keys: vec![Vec::new(); request.keys.len()],
        ..Block::default()
    };
    let mut block = Block::default();
    for first in (0..table.rows()).step_by(window as usize) {
        reader.read(first..(first + window).min(table.rows()), &mut block).expect("rows");
        whole.rows += block.rows;
        for (all, part) in whole.quantities.iter_mut().zip(&block.quantities) {
            all.extend(part);
        }
        for (all, part) in whole.keys.iter_mut().zip(&block.keys) {
            all.extend(part);
        }
        if let Some(class) = &block.class {
            whole.class.get_or_insert_default().extend(class);
        }
    }
    whole
}

/// Compares the quantities of a table with the values that were written.
fn compare(name: &str, table: &Table, report: &Value, tolerance: f64) {
    assert_eq!(Value::from(table.rows()), report["rows"], "{name}");
    let request = Request {
        quantities: strings(&report["quantities"]),
        keys: strings(&report["keys"]),
        class: true,
        ..Request::default()
    };
    let block = read(table, &request, 17);
    for (quantity, values) in request.quantities.iter().zip(&block.quantities) {
        let written = report["quantities"][quantity].as_array().expect("numbers");
        assert_eq!(values.len(), written.len());
        for (row, (found, written)) in values.iter().zip(written).enumerate() {
            let (found, written) = (f64::from(*found), written.as_f64().unwrap_or(f64::NAN));
            let close = (found - written).abs() <= tolerance * written.abs().max(1.0);
            let both_nan = found.is_nan() && written.is_nan();
            assert!(close || both_nan, "{name}, {quantity}, row {row}: {found}, not {written}");
        }
    }
    for (key, values) in request.keys.iter().zip(&block.keys) {
        let written: Vec<Option<i64>> =
            report["keys"][key].as_array().expect("keys").iter().map(Value::as_i64).collect();
        let found: Vec<Option<i64>> = values.iter().map(|value| Some(*value)).collect();
        assert_eq!(found, written, "{name}, {key}");
    }
    match report["class"].as_array() {
        None => assert_eq!(block.class, None, "{name}"),
        Some(written) => {
            let found: Vec<i64> =
                block.class.expect("classes").iter().map(|c| i64::from(*c)).collect();
            let written: Vec<i64> = written.iter().filter_map(Value::as_i64).collect();
            assert_eq!(found, written, "{name}");
        }
    }
}

#[test]
fn tables_of_every_tool_round_trip() {
    let report = expected();
    let mut seen = 0;
    for name in strings(&report["files"]).iter().filter(|name| name.contains(".h5")) {
        let schema = Schema::detect(&data(name)).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(schema.name, report["files"][name]["schema"], "{name}");
        let table = Table::open(&data(name), &schema).unwrap_or_else(|error| panic!("{error}"));
        compare(name, &table, &report["files"][name], 2e-6);
        seen += 1;
    }
    assert_eq!(seen, 9);
}

#[test]
fn every_text_dialect_becomes_an_event_file() {
    let (summary, folder) = (expected(), folder());
    let mut seen = 0;
    for name in strings(&summary["files"]).iter().filter(|name| name.contains(".csv")) {
        let output = folder.path().join(name).with_extension("h5");
        let found = text::detect(&data(name)).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(found.name, summary["files"][name]["schema"], "{name}");
        let command = arguments!["convert", &data(name), "-o", &output];
        assert_eq!(json(&command)["dialect"], summary["files"][name]["schema"]);
        let table = Table::open(&output, &Schema::detect(&output).expect("a schema"));
        // Tables have six digits after the decimal point.
        compare(name, &table.expect("a table"), &summary["files"][name], 2e-5);
        let report = json(&arguments!["check", &output]);
        assert_eq!(report["files"][0]["refused"].as_array().map(Vec::len), Some(0), "{report}");
        seen += 1;
    }
    assert_eq!(seen, 3);
}

#[test]
fn conversion_is_reproducible_and_keeps_scatters() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    for name in ["one.h5", "two.h5"] {
        let command =
            arguments!["convert", &data("taiga-mc.csv"), "-o", &at(name), "--class", "gamma"];
        succeed(&mut program(&command));
    }
    let bytes = |name: &str| std::fs::read(at(name)).expect("a file");
    assert!(bytes("one.h5") == bytes("two.h5"));
    let schema = Schema::detect(&at("one.h5")).expect("a schema");
    let table = Table::open(&at("one.h5"), &schema).expect("a table");
    assert_eq!(table.shower_columns(), ["run_id", "event_id"]);
    assert_eq!(table.event_columns(), ["run_id", "event_id", "axis_scatter", "clean_number"]);
    let request = Request { class: true, shower: true, ..Request::default() };
    let mut block = Block::default();
    table.reader(&request).expect("a reader").read(0..table.rows(), &mut block).expect("rows");
    assert_eq!(block.class, Some(vec![1; 60]));
    // Each shower has three images.
    let showers: std::collections::BTreeSet<(i64, i64)> =
        block.shower[0].iter().copied().zip(block.shower[1].iter().copied()).collect();
    assert_eq!(showers.len(), 20);
}

#[test]
fn table_with_contradictory_alpha_is_refused() {
    let folder = folder();
    let text = std::fs::read_to_string(data("taiga-mc.csv")).expect("a table");
    // Axis without its sign: a wrong axis.
    let axis = text.lines().next().and_then(|l| l.split(',').position(|name| name == "a_axis"));
    let axis = axis.expect("the axis");
    let mut wrong = String::new();
    for (number, line) in text.lines().enumerate() {
        let mut cells: Vec<&str> = line.split(',').collect();
        if number > 0 {
            cells[axis] = cells[axis].trim_start_matches('-');
        }
        wrong += &(cells.join(",") + "\n");
    }
    let path = folder.path().join("wrong.csv");
    std::fs::write(&path, wrong).expect("a table");
    let output = folder.path().join("wrong.h5");
    let outcome = run(&mut program(&arguments!["convert", &path, "-o", &output]));
    assert_eq!(outcome.code, Some(3), "{}", outcome.stderr);
    for part in ["'alpha' contradicts the other columns", "of 60 rows", "units, axis or sign"] {
        assert!(outcome.stderr.contains(part), "{}", outcome.stderr);
    }
    assert!(!output.exists());
}

#[test]
fn hadrons_get_gamma_offset_at_seeded_azimuths() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    for (name, seed) in [("a.h5", "7"), ("b.h5", "7"), ("c.h5", "8")] {
        let command = arguments![
            "convert",
            &data("taiga-mc.csv"),
            "-o",
            &at(name),
            "--class",
            "hadron",
            "--source-offset",
            "0.9",
            "--seed",
            seed
        ];
        succeed(&mut program(&command));
    }
    let bytes = |name: &str| std::fs::read(at(name)).expect("a file");
    assert!(bytes("a.h5") == bytes("b.h5") && bytes("a.h5") != bytes("c.h5"));
    let quantities =
        ["source_x", "source_y", "xc", "yc", "axis", "dist", "alpha"].map(str::to_string);
    let request = Request { quantities: quantities.to_vec(), ..Request::default() };
    let schema = Schema::detect(&at("a.h5")).expect("a schema");
    let table = Table::open(&at("a.h5"), &schema).expect("a table");
    let [x, y, xc, yc, axis, dist, alpha] = &read(&table, &request, 60).quantities[..] else {
        panic!("seven quantities")
    };
    let mut quadrants = [0; 4];
    for row in 0..60 {
        let (x, y) = (f64::from(x[row]), f64::from(y[row]));
        assert!((x.hypot(y) - 0.9).abs() < 1e-6);
        quadrants[usize::from(x > 0.0) + 2 * usize::from(y > 0.0)] += 1;
        let (dx, dy) = (f64::from(xc[row]) - x, f64::from(yc[row]) - y);
        assert!((dx.hypot(dy) - f64::from(dist[row])).abs() < 1e-5);
        let slope = f64::from(axis[row]).to_radians();
        let sine = (slope.cos() * dy - slope.sin() * dx).abs() / dx.hypot(dy);
        assert!((sine.asin().to_degrees() - f64::from(alpha[row])).abs() < 0.02);
    }
    assert!(quadrants.iter().all(|count| *count > 0), "{quadrants:?}");
    // Columns that belonged to the file's own source are removed.
    assert!(!table.quantities().contains(&"alpha_anti"));
}

#[test]
fn user_schema_reads_other_header() {
    let folder = folder();
    let own = include_str!("../configs/schema/taiga-mc.toml").replace("\"width\"", "\"breadth\"");
    let schema = folder.path().join("own.toml");
    std::fs::write(&schema, own).expect("a schema");
    let text = std::fs::read_to_string(data("taiga-mc.csv")).expect("a table");
    let table = folder.path().join("own.csv");
    std::fs::write(&table, text.replacen(",width,", ",breadth,", 1)).expect("a table");
    let output = folder.path().join("own.h5");
    let unknown = run(&mut program(&arguments!["convert", &table, "-o", &output]));
    assert_eq!(unknown.code, Some(3), "{}", unknown.stderr);
    assert!(unknown.stderr.contains("needs also width"), "{}", unknown.stderr);
    let command = arguments!["convert", &table, "-o", &output, "--dialect", &schema];
    assert_eq!(json(&command)["rows"], 60);
    let none = convert::Options {
        inputs: vec![table],
        output: folder.path().join("none.h5"),
        dialect: Some("fact".to_string()),
        class: None,
        placement: None,
        overwrite: false,
    };
    assert_eq!(convert::run(&none).expect_err("no dialect").exit_code(), 2);
}

#[test]
fn telescopes_and_portions_share_the_run_key() {
    let folder = folder();
    let table = std::fs::read_to_string(data("taiga-experiment.csv")).expect("a table");
    let place = |name: &str, table: &str| {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        std::fs::write(&path, table).expect("a table");
        path
    };
    // The second telescope has a table with different rows.
    let lines: Vec<&str> = table.lines().collect();
    let other = lines[..lines.len() - 1].join("\n") + "\n";
    let first = place("IACT01/121223.05_out_hillas_14_7.0fix.csv", &table);
    let second = place("IACT02/121223.05_out_hillas_14_7.0fix.csv", &other);
    let less = |rows: usize| lines[..lines.len() - rows].join("\n") + "\n";
    let third = place("IACT01/121223.06/portions.csv", &less(2));
    let unnamed = place("table.csv", &less(3));
    let converted = |inputs: &[&PathBuf], name: &str| {
        let output = folder.path().join(name);
        let mut command = program(&arguments!["convert", "-o", &output]);
        succeed(command.args(inputs));
        output
    };
    let key = |path: &Path, name: &str| -> Option<Vec<i64>> {
        let file = hdf5::File::open(path).expect("an event file");
        file.dataset(&format!("events/{name}")).ok().map(|d| d.read_raw().expect("a key"))
    };
    let [one, two, three, none] =
        [(&first, "1.h5"), (&second, "2.h5"), (&third, "3.h5"), (&unnamed, "4.h5")]
            .map(|(input, name)| converted(&[input], name));
    for (path, run) in [(&one, 20_231_212_005), (&two, 20_231_212_005), (&three, 20_231_212_006)] {
        let runs = key(path, "run").expect("a run");
        assert!(!runs.is_empty() && runs.iter().all(|r| *r == run), "{runs:?}");
    }
    assert_ne!(key(&one, "run_id"), key(&two, "run_id"), "tables keep their own numbers");
    assert_eq!(key(&none, "run"), None);
    assert!(key(&none, "run_id").is_some());
    let both = converted(&[&first, &third], "both.h5");
    let runs: std::collections::BTreeSet<i64> =
        key(&both, "run").expect("runs").into_iter().collect();
    assert_eq!(runs.len(), 2);
    let mut command = program(&arguments!["convert", "-o", folder.path().join("no.h5")]);
    let refused = run(command.args([&first, &unnamed]));
    assert_eq!(refused.code, Some(3), "{}", refused.stderr);
    assert!(refused.stderr.contains("DDMMYY.RR"), "{}", refused.stderr);
}

#[test]
fn byte_order_mark_of_a_table_is_skipped() {
    let folder = folder();
    let table = std::fs::read(data("taiga-experiment.csv")).expect("a table");
    let converted = |name: &str, text: &[u8]| {
        let input = folder.path().join(name).join("151123.01_table.csv");
        std::fs::create_dir_all(input.parent().expect("a parent")).expect("a folder");
        std::fs::write(&input, text).expect("a table");
        let output = folder.path().join(format!("{name}.h5"));
        let outcome = run(&mut program(&arguments!["convert", &input, "-o", &output]));
        assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
        (text::detect(&input).expect("a dialect").name, outcome.stderr)
    };
    let (dialect, _) = converted("plain", &table);
    let (marked, _) = converted("marked", &[b"\xef\xbb\xbf", &table[..]].concat());
    assert_eq!(marked, dialect);
}

#[test]
fn table_without_a_last_line_end_is_warned_of() {
    let folder = folder();
    let table = std::fs::read(data("taiga-experiment.csv")).expect("a table");
    for (bytes, expected) in [(table.len(), 0), (table.len() - 1, 1)] {
        let input = folder.path().join(format!("{bytes}/151123.01_table.csv"));
        std::fs::create_dir_all(input.parent().expect("a parent")).expect("a folder");
        std::fs::write(&input, &table[..bytes]).expect("a table");
        let output = folder.path().join(format!("{bytes}.h5"));
        let outcome = run(&mut program(&arguments!["convert", &input, "-o", &output]));
        assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
        let warnings = outcome.stderr.matches("the last line (row").count();
        assert_eq!(warnings, expected, "{}", outcome.stderr);
    }
}

#[test]
fn tables_with_rows_of_another_are_refused() {
    let folder = folder();
    let place = |name: &str, table: &str| {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        std::fs::write(&path, table).expect("a table");
        path
    };
    let converted = |inputs: [&PathBuf; 2], name: &str| {
        let output = folder.path().join(name);
        let mut command = program(&arguments!["convert", "-o", &output]);
        let outcome = run(command.args(inputs));
        assert_eq!(output.exists(), outcome.code == Some(0), "{}", outcome.stderr);
        outcome
    };
    let rows = |numbers: std::ops::Range<u32>| -> String {
        let row =
            |i| format!("{}.5,16.0021,2.6449,0.3918,0.1982,27.7,22.0,-8.2,40.0,81.8,g\n", 30 + i);
        numbers.map(row).collect()
    };
    let plain = place("plain.data", &rows(0..100));
    let crlf = place("crlf.data", &rows(0..100).replace('\n', "\r\n"));
    let half = place("half.data", &rows(0..50));
    let other = place("other.data", &rows(99..199));
    for (second, code, text) in [
        (&crlf, 3, "crlf.data: rows of an earlier table"),
        (&half, 3, "100.00 % of its rows have the row_hash of a row in"),
        (&other, 0, "1.00 % of its rows have the row_hash of a row in"),
    ] {
        let outcome = converted([&plain, second], &format!("magic-{code}.h5"));
        assert_eq!(outcome.code, Some(code), "{}", outcome.stderr);
        assert!(outcome.stderr.contains(text), "{}", outcome.stderr);
    }
    let table = std::fs::read_to_string(data("taiga-experiment.csv")).expect("a table");
    let first = place("a/151123.01_x.csv", &table);
    let second = place("b/151123.01_y.csv", &(table.clone() + "\n"));
    let outcome = converted([&first, &second], "experiment.h5");
    assert_eq!(outcome.code, Some(3), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("have the run, event_id, unix_time_ns"), "{}", outcome.stderr);
    // The same events of another run are other events.
    let second = place("b/151123.02_y.csv", &(table + "\n"));
    let outcome = converted([&first, &second], "runs.h5");
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
}

/// Writes names into a dataset of a group, or an attribute of a dataset.
fn names_as_texts(names: &[&str]) -> Vec<hdf5::types::VarLenUnicode> {
    names.iter().map(|name| name.parse().expect("a text")).collect()
}

#[test]
fn matrix_with_a_duplicate_name_is_refused() {
    let folder = folder();
    let path = folder.path().join("matrix.h5");
    for (last, is_refused) in [("con2", false), ("size", true)] {
        let file = hdf5::File::create(&path).expect("a file");
        let shape = (20, 6);
        let matrix = file.new_dataset::<f64>().shape(shape).create("m").expect("a matrix");
        matrix.write_raw(&[1.5; 120]).expect("values");
        let names = names_as_texts(&["size", "width", "length", "alpha", "dist", last]);
        let attribute = matrix.new_attr_builder().with_data(&names).create("columns");
        drop((attribute.expect("names"), matrix, file));
        let schema = Schema::detect(&path).expect("a schema");
        let opened = Table::open(&path, &schema);
        assert_eq!(opened.is_err(), is_refused, "{:?}", opened.err());
        let Err(error) = opened else { continue };
        assert_eq!(error.exit_code(), 3);
        let text = error.to_string();
        let parts = ["matrix.h5", "two columns of one name", "size"];
        assert!(parts.iter().all(|part| text.contains(part)), "{text}");
    }
}

#[test]
fn pandas_frame_without_a_block_is_refused() {
    let folder = folder();
    let path = folder.path().join("frame.h5");
    let opened = |change: &dyn Fn(&hdf5::Group, usize)| -> Vec<String> {
        let blocks = (0..).take_while(|i| {
            std::fs::copy(data("pandas-fixed.h5"), &path).expect("a copy");
            let file = hdf5::File::open_rw(&path).expect("a file");
            let name = file.member_names().expect("names").remove(0);
            let group = file.group(&name).expect("a frame");
            let exists = group.link_exists(&format!("block{i}_values"));
            if exists {
                change(&group, *i);
            }
            exists
        });
        let opened = blocks.map(|_| {
            let opened = Schema::detect(&path).and_then(|schema| Table::open(&path, &schema));
            opened.map_or_else(|error| error.to_string(), |_| "accepted".to_string())
        });
        opened.collect()
    };
    let whole = opened(&|_, _| {});
    assert!(whole.len() > 1 && whole.iter().all(|text| text == "accepted"), "{whole:?}");
    let without = opened(&|group, block| {
        for part in ["items", "values"] {
            group.unlink(&format!("block{block}_{part}")).expect("removed");
        }
    });
    assert!(without.iter().all(|text| text.contains("frame.h5")), "{without:?}");
    let named = without.iter().any(|text| text.contains("a block of the pandas frame is missing"));
    assert!(named, "{without:?}");
}
