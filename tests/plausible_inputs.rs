//! Inputs that would give meaningless results are refused or cause a warning.
//!
//! The tests use angles in other units, displaced sources of gammas, impossible image sizes, cuts
//! that remove all events, and images of one shower in several parts of a split.

use crate::support::{
    Events, Outcome, arguments, configuration, folder, json, program, public_data, run, seed,
    simulated, succeed,
};
use serde_json::Value;
use std::ffi::OsString;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use taiga_flow::comm::Threads;
use taiga_flow::config::{Class, load};
use taiga_flow::data::selection::Selection;
use taiga_flow::data::table::{Block, Request, Table};
use taiga_flow::data::{ColumnSpec, ColumnType, ColumnValues, ColumnWriter, Schema};
use taiga_flow::dataset::cut_flow;
use taiga_flow::dataset::source::Source;
use taiga_flow::hillas::Camera;
use taiga_flow_gpu::random::Stream;

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

/// A changed column of a sample table: (column, function of the old value).
type Change<'a> = (&'a str, &'a dyn Fn(f64) -> f64);

fn changed(name: &str, output: &Path, changes: &[Change]) -> PathBuf {
    let text = std::fs::read_to_string(data(name)).expect("a table");
    let mut lines = text.lines();
    let header = lines.next().expect("a header");
    let places: Vec<usize> = changes
        .iter()
        .map(|(column, _)| header.split(',').position(|name| name == *column).expect(column))
        .collect();
    let mut table = format!("{header}\n");
    for line in lines {
        let mut cells: Vec<String> = line.split(',').map(str::to_string).collect();
        for (place, (_, change)) in places.iter().zip(changes) {
            cells[*place] = format!("{:.6}", change(cells[*place].parse().expect("a number")));
        }
        table += &(cells.join(",") + "\n");
    }
    std::fs::write(output, table).expect("a table");
    output.to_path_buf()
}

/// Runs a command that must exit with this code and print all of these texts on standard error.
fn refused(command: &[OsString], code: i32, texts: &[&str]) -> Outcome {
    let outcome = run(&mut program(command));
    assert_eq!(outcome.code, Some(code), "{}{}", outcome.stdout, outcome.stderr);
    for text in texts {
        assert!(outcome.stderr.contains(text), "'{text}' is not in: {}", outcome.stderr);
    }
    outcome
}

/// Reads one column of an event file through the schema that fits it.
fn quantity(path: &Path, name: &str) -> (Vec<f32>, String) {
    let schema = Schema::detect(path).expect("a schema");
    let table = Table::open(path, &schema).expect("a table");
    let request = Request { quantities: vec![name.to_string()], ..Request::default() };
    let mut block = Block::default();
    let mut reader = table.reader(&request).expect("a reader");
    reader.read(0..table.rows(), &mut block).expect("rows");
    (block.quantities.remove(0), table.unit(name).expect("a unit").to_string())
}

fn key(path: &Path, name: &str) -> Option<Vec<i64>> {
    let file = hdf5::File::open(path).expect("an event file");
    file.dataset(&format!("events/{name}")).ok().map(|d| d.read_raw().expect("a key"))
}

fn texts(list: &Value) -> Vec<String> {
    let list = list.as_array().cloned().unwrap_or_default();
    list.iter().filter_map(|text| text.as_str().map(str::to_string)).collect()
}

#[test]
fn radian_directions_of_taiga_become_degrees() {
    let folder = folder();
    for name in ["taiga-mc.csv", "taiga-mc-newer.csv"] {
        let zenith = |_: f64| 0.610_865;
        let azimuth = |_: f64| 2.617_994;
        let changes: [Change; 4] = [
            ("tel_tet", &zenith),
            ("source_tet", &zenith),
            ("tel_fi", &azimuth),
            ("source_fi", &azimuth),
        ];
        let table = changed(name, &folder.path().join(name), &changes);
        let output = folder.path().join(name).with_extension("h5");
        let summary = json(&arguments!["convert", &table, "-o", &output, "--class", "gamma"]);
        assert!(summary.get("warnings").is_none(), "{summary}");
        for (column, degrees) in
            [("tel_tet", 35.0), ("source_tet", 35.0), ("tel_fi", 150.0), ("source_fi", 150.0)]
        {
            let (values, unit) = quantity(&output, column);
            assert_eq!((values.len(), unit.as_str()), (60, "deg"));
            assert!(values.iter().all(|x| (x - degrees).abs() < 1e-3), "{column}: {values:?}");
        }
        let report = json(&arguments!["check", &output]);
        let warnings = texts(&report["files"][0]["warnings"]);
        assert!(!warnings.iter().any(|text| text.contains("radians")), "{warnings:?}");
    }
}

#[test]
fn directions_in_another_unit_warn() {
    let folder = folder();
    let degrees = |_: f64| 35.0;
    let table =
        changed("taiga-mc.csv", &folder.path().join("degrees.csv"), &[("tel_tet", &degrees)]);
    let output = folder.path().join("degrees.h5");
    let converted = succeed(&mut program(&arguments!["convert", &table, "-o", &output]));
    for text in ["degrees.csv", "'tel_tet'", "2005.3", "look like degrees"] {
        assert!(converted.stderr.contains(text), "{text}: {}", converted.stderr);
    }
    let summary = json(&arguments!["--overwrite", "convert", &table, "-o", &output]);
    assert_eq!(texts(&summary["warnings"]).len(), 1, "{summary}");
    // Experimental tables use degrees.
    let radians = |_: f64| 0.959_931;
    let table =
        changed("taiga-experiment.csv", &folder.path().join("r.csv"), &[("tel_el", &radians)]);
    let output = folder.path().join("r.h5");
    let converted = succeed(&mut program(&arguments!["convert", &table, "-o", &output]));
    for part in ["look like radians", "attribute `units`", "schema"] {
        assert!(converted.stderr.contains(part), "no '{part}' in {}", converted.stderr);
    }
    let report = json(&arguments!["check", &output]);
    let warnings = texts(&report["files"][0]["warnings"]);
    let about = |text: &&String| text.contains("'tel_el'") && text.contains("0.9599");
    assert_eq!(warnings.iter().filter(about).count(), 1, "{warnings:?}");
    assert!(texts(&report["files"][0]["refused"]).is_empty(), "{report}");
}

#[test]
fn source_offsets_of_gammas_are_refused() {
    let folder = folder();
    let output = folder.path().join("out.h5");
    let command = |more: &[&str]| {
        let mut all = Vec::from(arguments!["convert", &data("taiga-mc.csv"), "-o", &output]);
        all.extend(more.iter().map(OsString::from));
        all
    };
    let texts =
        ["--source-offset is for simulated hadrons", "--class gamma", "true one for gammas"];
    refused(&command(&["--class", "gamma", "--source-offset", "1.2"]), 2, &texts);
    let texts = ["--source-offset is for simulated hadrons", "no --class"];
    refused(&command(&["--source-offset", "1.2"]), 2, &texts);
    for offset in ["100", "4.81", "nan", "-0.5"] {
        let option = format!("--source-offset={offset}");
        let texts = ["source offset outside the camera", "0 to 4.8 deg"];
        refused(&command(&["--class", "hadron", &option]), 2, &texts);
    }
    assert!(!output.exists());
    succeed(&mut program(&command(&["--class", "hadron", "--source-offset", "4.8"])));
}

#[test]
fn observed_events_given_as_gammas_are_warned_of() {
    let folder = folder();
    let of = |class: &str| {
        let output = folder.path().join(format!("{class}.h5"));
        let convert =
            arguments!["convert", data("taiga-experiment.csv"), "-o", &output, "--class", class];
        let outcome = run(&mut program(&convert));
        assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
        outcome.stderr
    };
    let says = "observed events are labelled as gammas: the dialect taiga-experiment";
    let printed = of("gamma");
    assert!(printed.contains(says) && printed.contains("--class hadron"), "{printed}");
    let printed = of("hadron");
    assert!(!printed.contains("observed events"), "{printed}");
}

#[test]
fn offsets_move_the_hadrons_of_mixed_tables() {
    let folder = folder();
    let own = include_str!("../configs/schema/taiga-mc.toml");
    let class = "[text.class]\ncolumn = \"particle\"\ngamma = \"gamma\"\nhadron = \"proton\"\n\n[quantities]\n";
    let schema = folder.path().join("own.toml");
    std::fs::write(&schema, own.replacen("[quantities]\n", class, 1)).expect("a schema");
    let text = std::fs::read_to_string(data("taiga-mc.csv")).expect("a table");
    let mut table = String::new();
    for (number, line) in text.lines().enumerate() {
        let particle =
            ["particle", "gamma", "proton"][if number == 0 { 0 } else { 1 + number % 2 }];
        writeln!(table, "{line},{particle}").expect("a line");
    }
    let input = folder.path().join("mixed.csv");
    std::fs::write(&input, table).expect("a table");
    let [plain, placed] = ["plain.h5", "placed.h5"].map(|name| folder.path().join(name));
    let dialect = arguments!["--dialect", &schema];
    let convert = |output: &Path, more: &[&str]| {
        let mut command = program(&arguments!["convert", &input, "-o", output]);
        succeed(command.args(&dialect).args(more));
    };
    convert(&plain, &[]);
    convert(&placed, &["--source-offset", "0.7"]);
    let class = hdf5::File::open(&placed).and_then(|f| f.dataset("events/class")?.read_raw::<i8>());
    let class = class.expect("classes");
    let source = |path: &Path| [quantity(path, "source_x").0, quantity(path, "source_y").0];
    let ([x0, y0], [x, y]) = (source(&plain), source(&placed));
    let mut seen = [0, 0];
    for row in 0..60 {
        seen[usize::from(class[row] == 0)] += 1;
        if class[row] == 1 {
            assert_eq!((x[row], y[row]), (x0[row], y0[row]));
        } else {
            assert!((x[row].hypot(y[row]) - 0.7).abs() < 1e-5);
        }
    }
    assert_eq!(seen, [30, 30]);
}

#[test]
fn random_sources_of_gammas_are_refused() {
    let folder = folder();
    let images = folder.path().join("gammas.h5");
    let simulate = arguments![
        "simulate", "--level", "images", "-o", &images, "--class", "gamma", "--events", "20"
    ];
    succeed(&mut program(&simulate));
    let text = folder.path().join("clean.txt");
    std::fs::write(&text, image_text(3, 2, seed())).expect("a text");
    let output = folder.path().join("out");
    let command = |input: &Path, more: &[&str]| {
        let mut all =
            Vec::from(arguments!["extract", input, "-o", &output, "--camera", "taiga-595"]);
        all.extend(more.iter().map(OsString::from));
        all
    };
    let rows = ["--random-source is for simulated hadrons", "rows of the class column"];
    refused(&command(&images, &["--random-source", "1.2"]), 2, &rows);
    let given = ["--random-source is for simulated hadrons", "--class gamma"];
    refused(&command(&text, &["--random-source", "1.2", "--class", "gamma"]), 2, &given);
    let none = ["--random-source is for simulated hadrons", "no --class"];
    refused(&command(&text, &["--random-source", "1.2"]), 2, &none);
    let outside = ["random source outside the camera", "0 to 4.8 deg"];
    refused(&command(&text, &["--random-source", "100", "--class", "hadron"]), 2, &outside);
    assert!(!output.exists());
    succeed(&mut program(&command(&text, &["--random-source", "1.2", "--class", "hadron"])));
    let (x, y) = (
        quantity(&output.join("clean.h5"), "source_x").0,
        quantity(&output.join("clean.h5"), "source_y").0,
    );
    assert!(x.iter().zip(&y).all(|(x, y)| (x.hypot(*y) - 1.2).abs() < 1e-5));
}

#[test]
fn images_ten_times_too_large_are_refused() {
    let folder = folder();
    for factor in [10.0, 17.0] {
        let scale = |value: f64| factor * value;
        let both: [Change; 2] = [("width", &scale), ("length", &scale)];
        for (changes, column) in
            [(&both[..], "'length'"), (&both[..1], "'width'"), (&both[1..], "'length'")]
        {
            let table = changed("taiga-mc.csv", &folder.path().join("large.csv"), changes);
            let output = folder.path().join("large.h5");
            let command = arguments!["convert", &table, "-o", &output, "--class", "gamma"];
            let texts = [
                "values that no Cherenkov camera records",
                "large.csv",
                column,
                "a median from",
                "of 60 values above",
            ];
            refused(&command, 3, &texts);
            assert!(!output.exists());
        }
    }
}

#[test]
fn large_images_of_event_files_fail_the_check() {
    let folder = folder();
    let mut files = Vec::new();
    for class in [Class::Gamma, Class::Hadron] {
        files.push(simulated(folder.path().join(format!("toy-{class}.h5")), class, 2000, seed()));
    }
    if let Some(magic) = public_data("magic04-dev.data") {
        let output = folder.path().join("magic.h5");
        succeed(&mut program(&arguments!["convert", &magic, "-o", &output]));
        let mut events = Events::read(&output);
        events.features.retain(|(name, _)| name != "row_hash");
        for class in [1, 0] {
            let rows: Vec<usize> =
                (0..events.rows()).filter(|row| events.class[*row] == class).collect();
            let path = folder.path().join(format!("magic-{class}.h5"));
            events.chosen(&rows).write(&path);
            files.push(path);
        }
    }
    for path in files {
        let report = json(&arguments!["check", &path]);
        let found = [texts(&report["files"][0]["refused"]), texts(&report["files"][0]["warnings"])];
        assert!(!found.concat().iter().any(|text| text.contains("expected")), "{found:?}");
        for name in ["width", "length"] {
            let mut events = Events::read(&path);
            events.feature(name).iter_mut().for_each(|x| *x *= 10.0);
            let large = folder.path().join("large.h5");
            let _ = std::fs::remove_file(&large);
            events.write(&large);
            let outcome = run(&mut program(&arguments!["check", &large]));
            assert_eq!(outcome.code, Some(3), "{}", outcome.stdout);
            let text = format!("'{name}': expected a median from");
            assert!(outcome.stdout.contains(&text), "{}: {}", path.display(), outcome.stdout);
        }
    }
}

#[test]
fn public_tables_are_plausible() {
    for name in ["fact-gamma.hdf5", "fact-proton.hdf5"] {
        let Some(path) = public_data(name) else { return };
        let report = json(&arguments!["check", &path]);
        let found = [texts(&report["files"][0]["refused"]), texts(&report["files"][0]["warnings"])];
        assert!(!found.concat().iter().any(|text| text.contains("expected")), "{found:?}");
    }
}

/// Writes toy gammas with three times their width, and a configuration that cuts on it.
fn wide_events(folder: &Path) -> (PathBuf, Events) {
    let gamma = simulated(folder.join("toy.h5"), Class::Gamma, 3000, seed());
    let mut events = Events::read(&gamma);
    for (name, factor) in [("width", 3.0), ("length", 2.0)] {
        events.feature(name).iter_mut().for_each(|x| *x *= factor);
    }
    events.feature("con2")[7] = f32::NAN;
    let wide = folder.join("wide.h5");
    events.write(&wide);
    let more = "[split]\ntrain = 0.6\nvalidation = 0.2\ntest = 0.2\n";
    let path = configuration(folder, &wide, more);
    let text = std::fs::read_to_string(&path).expect("a configuration");
    let cuts = "size = { min = 60 }\nwidth = { min = 0.02, max = 0.24 }\n";
    std::fs::write(&path, text.replace("size = { min = 60 }\n", cuts)).expect("one");
    (path, events)
}

/// Returns for each cut in order how many rows fail it, fail only it, and remain: counted row by
/// row.
fn counted(events: &mut Events) -> [Vec<u64>; 3] {
    let columns = ["size", "width", "con2", "length", "dist", "alpha"]
        .map(|name| events.feature(name).clone());
    let [size, width, ..] = &columns;
    let (mut fails, mut only, mut left) = (vec![0; 5], vec![0; 5], vec![0; 5]);
    for row in 0..events.class.len() {
        let (size, width) = (f64::from(size[row]), f64::from(width[row]));
        let finite = columns.iter().all(|column| column[row].is_finite());
        let con2 = columns[2][row];
        let failed = [
            size <= 60.0,
            width <= 0.02,
            width >= 0.24,
            !finite,
            finite && !(con2 > 0.0 && con2 < 1.0 && size > 0.0),
        ];
        let count = failed.iter().filter(|fails| **fails).count();
        for (cut, failed_cut) in failed.iter().enumerate() {
            fails[cut] += u64::from(*failed_cut);
            only[cut] += u64::from(*failed_cut && count == 1);
            left[cut] += u64::from(!failed[..=cut].iter().any(|fails| *fails));
        }
    }
    [fails, only, left]
}

#[test]
fn cut_flows_agree_with_counts_row_by_row() {
    let folder = folder();
    let (configuration, mut events) = wide_events(folder.path());
    let expected = counted(&mut events);
    let outcome = run(program(&arguments!["check", "-c", &configuration]).arg("--json"));
    let report: Value = serde_json::from_str(&outcome.stdout).expect("JSON");
    let dry = json(&arguments![
        "train",
        "--dry-run",
        "-c",
        &configuration,
        "-o",
        &folder.path().join("run")
    ]);
    let wide = folder.path().join("wide.h5");
    let given = run(program(&arguments!["check", "-c", &configuration, &wide]).arg("--json"));
    let given: Value = serde_json::from_str(&given.stdout).expect("JSON");
    for (flows, bound) in [
        (&report["cuts"], Value::Null),
        (&given["cuts"], Value::Null),
        (&dry["cuts"], 65_536.into()),
    ] {
        assert_eq!(flows.as_array().map(Vec::len), Some(1), "{flows}");
        let flow = &flows[0];
        assert_eq!((&flow["class"], &flow["rows"]), (&"gamma".into(), &3000.into()));
        assert_eq!(flow["rows_per_file"], bound);
        let cuts = flow["cuts"].as_array().expect("cuts");
        let names: Vec<&str> = cuts.iter().filter_map(|cut| cut["cut"].as_str()).collect();
        assert_eq!(
            names,
            ["size > 60", "width > 0.02", "width < 0.24", "finite values", "domain of transforms"]
        );
        for (column, expected) in ["fails", "fails_only_this", "left"].iter().zip(&expected) {
            let found: Vec<u64> = cuts.iter().filter_map(|cut| cut[column].as_u64()).collect();
            assert_eq!(&found, expected, "{column}");
        }
    }
    assert!(expected[0][2] > 1000 && expected[0][3] == 1, "{expected:?}");
    let text = run(&mut program(&arguments!["check", "-c", &configuration])).stdout;
    assert!(text.contains("cut flow of class gamma: 3000 rows"), "{text}");
}

#[test]
fn cut_flows_are_equal_on_any_ranks() {
    let folder = folder();
    let (configuration, _) = wide_events(folder.path());
    let config = load(&configuration, &[]).expect("a configuration");
    let selection = Selection::new(&config.features.columns, &config.cuts).expect("a selection");
    let source = |name: &str, class: Option<Class>| {
        let path = folder.path().join(name);
        let schema = Arc::new(Schema::detect(&path).expect("a schema"));
        Source::open(&path, Some(&schema), class).expect("a file").0
    };
    simulated(folder.path().join("other.h5"), Class::Hadron, 70_000, seed());
    let sources = [source("wide.h5", Some(Class::Gamma)), source("other.h5", None)];
    let of = |ranks: usize| {
        let flows = Threads::run(ranks, |comm| cut_flow::count(comm, &sources, &selection, None));
        flows.into_iter().map(|flow| flow.expect("a flow")).collect::<Vec<_>>()
    };
    let alone = of(1).remove(0);
    assert_eq!(
        alone.iter().map(|flow| (flow.class, flow.rows)).collect::<Vec<_>>(),
        [("gamma", 3000), ("hadron", 70_000)]
    );
    for ranks in [2, 3] {
        assert!(of(ranks).iter().all(|flow| *flow == alone), "{ranks}");
    }
}

#[test]
fn training_names_the_cuts_that_removed_events() {
    let folder = folder();
    let (configuration, mut events) = wide_events(folder.path());
    let text = std::fs::read_to_string(&configuration).expect("a configuration");
    std::fs::write(&configuration, text.replace("max = 0.24", "max = 0.02001")).expect("one");
    let removed = events.feature("width").iter().filter(|x| f64::from(**x) >= 0.02001).count();
    let cut = format!("width < 0.02001 removed {removed}");
    let output = folder.path().join("run");
    let texts = ["events to train on", "cuts left", " of 3000 gamma rows: ", &cut];
    refused(&arguments!["train", "-c", &configuration, "-o", &output], 3, &texts);
    assert!(!output.join("model.safetensors").exists());
}

/// Returns a text of cleaned images in the format of TAIGA's program, with several scatters per
/// shower.
fn image_text(showers: u64, throws: u64, seed: u64) -> String {
    let camera = Camera::by_name("taiga-595").expect("a camera");
    let stream = Stream::new(seed, "image text", &[]);
    let mut text = String::new();
    for image in 0..showers * throws {
        let (event, throw) = (10 + image / throws, image % throws);
        let centre = (stream.bits(1000 * image) % 400) as usize;
        let mut pixels: Vec<usize> =
            camera.neighbours(centre).iter().map(|p| usize::from(*p)).collect();
        pixels.push(centre);
        pixels.extend(camera.neighbours(pixels[0]).iter().map(|p| usize::from(*p)));
        pixels.sort_unstable();
        pixels.dedup();
        writeln!(text, "{image} {event} {throw} {} 12.5 9.0 -4.0", pixels.len()).expect("text");
        for (i, pixel) in pixels.into_iter().enumerate() {
            let charge = 20.0 + 100.0 * stream.uniform(1000 * image + 1 + i as u64);
            let (x, y) = (camera.x_cm()[pixel], camera.y_cm()[pixel]);
            writeln!(text, "1 {i} {x:.3} {y:.3} {charge:.3}").expect("text");
        }
    }
    text
}

#[test]
fn image_text_has_the_keys_of_hillas_tables() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    std::fs::write(at("plain.txt"), image_text(6, 3, seed())).expect("a text");
    std::fs::write(at("121223.05_clean.txt"), image_text(6, 3, seed() + 1)).expect("a text");
    let inputs = [at("plain.txt"), at("121223.05_clean.txt")];
    let mut command = program(&arguments![
        "extract",
        "-o",
        &at("out"),
        "--class",
        "gamma",
        "--camera",
        "taiga-595"
    ]);
    succeed(command.args(&inputs));
    succeed(&mut program(&arguments![
        "convert",
        &data("taiga-mc.csv"),
        "-o",
        &at("mc.h5"),
        "--class",
        "gamma"
    ]));
    succeed(&mut program(&arguments![
        "convert",
        &data("taiga-mc-newer.csv"),
        "-o",
        &at("newer.h5"),
        "--class",
        "gamma"
    ]));
    let (plain, named) = (at("out/plain.h5"), at("out/121223.05_clean.h5"));
    let report = json(&arguments!["check", &plain, &named, &at("mc.h5"), &at("newer.h5")]);
    let list = |file: usize, what: &str| texts(&report["files"][file]["contents"][what]);
    assert_eq!(list(0, "keys"), list(2, "keys"));
    assert_eq!(list(0, "shower"), ["run_id", "event_id"]);
    assert_eq!(list(1, "keys"), ["axis_scatter", "clean_number", "event_id", "run", "run_id"]);
    let names = |file: usize| -> Vec<String> {
        let columns =
            report["files"][file]["contents"]["columns"].as_array().cloned().unwrap_or_default();
        columns.iter().filter_map(|c| c["name"].as_str().map(str::to_string)).collect()
    };
    // Columns of images that Hillas tables lack: signs along the axis, and the charge at the edge.
    let tables = [names(2), names(3)].concat();
    let own: Vec<String> = names(0).into_iter().filter(|name| !tables.contains(name)).collect();
    assert_eq!(own, ["leakage", "skewness_l", "status"]);
    assert_eq!(key(&named, "run"), Some(vec![20_231_212_005; 18]));
    let [one, other] = [&plain, &named].map(|path| key(path, "run_id").expect("runs"));
    assert!(one.iter().all(|run| *run == one[0]) && one[0] != other[0] && one[0] > 0);
    let events: Vec<i64> = (0..18).map(|image| 10 + image / 3).collect();
    assert_eq!(key(&plain, "event_id"), Some(events));
    assert_eq!(key(&plain, "axis_scatter"), Some((0..18).map(|image| image % 3).collect()));
    assert_eq!(key(&plain, "clean_number"), Some((0..18).collect()));
}

#[test]
fn earlier_column_names_stay_readable() {
    let folder = folder();
    for (stored, asked) in
        [("num_pixels", "num_pix"), ("num_pix", "num_pixels"), ("kurtosis", "kurtosis_l")]
    {
        let path = folder.path().join(format!("{stored}.h5"));
        let specs = [
            ColumnSpec::new("size", ColumnType::F32, None),
            ColumnSpec::new(stored, ColumnType::F32, None),
        ];
        let mut writer = ColumnWriter::create(&path, "events", &specs, false).expect("a file");
        writer
            .append(&[ColumnValues::F32(&[100.0, 200.0]), ColumnValues::F32(&[5.0, 9.0])])
            .expect("rows");
        writer.finish(&taiga_flow::data::table::events::attributes(&[])).expect("a file");
        assert_eq!(quantity(&path, asked).0, [5.0, 9.0]);
        let schema = Schema::detect(&path).expect("a schema");
        let table = Table::open(&path, &schema).expect("a table");
        assert_eq!(table.quantities(), {
            let mut names = vec![stored, "size"];
            names.sort_unstable();
            names
        });
    }
}

#[test]
fn scattered_showers_without_a_key_are_refused() {
    let folder = folder();
    let gamma = simulated(folder.path().join("toy.h5"), Class::Gamma, 3000, seed());
    let mut events = Events::read(&gamma);
    let rows = events.rows() as i64;
    let scatter = |row: i64| row % 10;
    let keyed = |number: &dyn Fn(i64) -> i64| {
        vec![
            ("event_number".to_string(), (0..rows).map(number).collect()),
            ("axis_scatter".to_string(), (0..rows).map(scatter).collect::<Vec<i64>>()),
        ]
    };
    let path = folder.path().join("scattered.h5");
    events.features.retain(|(name, _)| name != "axis_scatter");
    events.keys = keyed(&|row| row / 10);
    events.write(&path);
    let configuration = configuration(folder.path(), &path, "");
    let output = folder.path().join("run");
    let command = arguments!["train", "--dry-run", "-c", &configuration, "-o", &output];
    let texts = [
        "scattered.h5",
        "images of one shower would be in different parts",
        "event_number 0 with axis_scatter 0 and 1",
        "split.key",
    ];
    refused(&command, 3, &texts);
    let keyed_split = "split.key=[\"event_number\"]";
    succeed(program(&command).args(["--set", keyed_split]));
    std::fs::remove_file(&path).expect("no file");
    events.keys = keyed(&|row| row);
    events.write(&path);
    succeed(&mut program(&command));
}
