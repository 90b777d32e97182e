//! Keys stored as floating point are copied exactly if they are integers. Otherwise they are
//! refused with column, row and value.

use crate::support::{
    Events, TABLE_HEADER, arguments, configuration, folder, json, program, run, seed, simulated,
    simulated_images, succeed, table_dialect, trained,
};
use std::path::Path;
use taiga_flow::config::Class;
use taiga_flow_gpu::random::Stream;

/// Stores an integer column of a file as f64 or f32, with one value changed.
fn store_as_real(path: &Path, name: &str, as_f32: bool, change: Option<(usize, f64)>) {
    let file = hdf5::File::open_rw(path).expect("a file");
    let group = file.group("events").expect("a group");
    let keys: Vec<i64> = group.dataset(name).and_then(|d| d.read_raw()).expect("keys");
    let mut values: Vec<f64> = keys.iter().map(|key| *key as f64).collect();
    if let Some((row, value)) = change {
        values[row] = value;
    }
    group.unlink(name).expect("a link");
    if as_f32 {
        let values: Vec<f32> = values.iter().map(|value| *value as f32).collect();
        group.new_dataset_builder().with_data(&values).create(name).expect("a dataset");
    } else {
        group.new_dataset_builder().with_data(&values).create(name).expect("a dataset");
    }
}

fn keys(path: &Path, group: &str, name: &str) -> Vec<i64> {
    let file = hdf5::File::open(path).expect("a file");
    let dataset = file.dataset(&format!("{group}/{name}")).expect("a key");
    assert!(dataset.dtype().is_ok_and(|dtype| dtype.is::<i64>()), "{name} is not i64");
    dataset.read_raw().expect("keys")
}

#[test]
fn whole_keys_of_floating_point_are_copied() {
    let (trained, folder) = (trained(), folder());
    let at = |name: &str| folder.path().join(name);
    // f64 represents the keys of small seeds exactly.
    let small = seed() % 1000;
    let input = simulated(at("events.h5"), Class::Gamma, 400, small);
    let before = Events::read(&input);
    store_as_real(&input, "run_id", false, None);
    store_as_real(&input, "event_id", true, None);
    succeed(&mut program(&arguments!["score", "-m", &trained.model, "-o", at("scores"), &input]));
    for name in ["run_id", "event_id"] {
        assert_eq!(keys(&at("scores/events.h5"), "scores", name), before.key(name), "{name}");
    }
    let report = json(&arguments!["check", &input]);
    assert_eq!(report["files"][0]["contents"]["keys"], serde_json::json!(["event_id", "run_id"]));
    // The split depends on these keys: it is the same with and without floating point.
    let whole = at("whole.h5");
    before.write(&whole);
    let train = |data: &Path, run: &str| {
        let own = at(&format!("{run}-configuration"));
        std::fs::create_dir_all(&own).expect("a folder");
        let more = "[train]\nepochs = 1\nbatch = 256\n";
        let configuration = configuration(&own, data, more);
        succeed(&mut program(&arguments!["train", "-q", "-c", &configuration, "-o", at(run)]));
        std::fs::read_to_string(at(run).join("metrics.jsonl")).expect("metrics")
    };
    assert_eq!(train(&input, "a"), train(&whole, "b"));
    // Image files.
    simulated_images(&at("images.h5"), "gamma", 30, small);
    let run_ids = keys(&at("images.h5"), "events", "run_id");
    store_as_real(&at("images.h5"), "run_id", false, None);
    succeed(&mut program(&arguments!["extract", "-o", at("hillas"), at("images.h5")]));
    assert_eq!(keys(&at("hillas/images.h5"), "events", "run_id"), run_ids);
}

#[test]
fn keys_with_fractions_are_refused_by_name() {
    let (trained, folder) = (trained(), folder());
    let at = |name: &str| folder.path().join(name);
    let stream = Stream::new(seed(), "rows", &[]);
    let row = (stream.bits(0) % 300) as usize;
    let cases = [
        ("fraction", 17.5, false, "17.5"),
        ("nan", f64::NAN, false, "NaN"),
        ("large", 9_007_199_254_740_992.0, false, "2^53"),
        ("large32", 16_777_216.0, true, "2^24"),
    ];
    for (i, (name, value, as_f32, expected)) in cases.into_iter().enumerate() {
        let input = simulated(at(&format!("{name}.h5")), Class::Gamma, 300, seed() + i as u64);
        store_as_real(&input, "event_id", as_f32, Some((row, value)));
        let configuration = configuration(folder.path(), &input, "[train]\nepochs = 1\n");
        simulated_images(&at(&format!("images-{name}.h5")), "gamma", 300, seed());
        let images = at(&format!("images-{name}.h5"));
        store_as_real(&images, "event_id", as_f32, Some((row, value)));
        for (command, says) in [
            (arguments!["score", "-m", &trained.model, "-o", at("scores"), &input].to_vec(), true),
            (arguments!["check", &input].to_vec(), false),
            (arguments!["train", "-c", &configuration, "-o", at("run")].to_vec(), true),
            (arguments!["extract", "-o", at("hillas"), &images].to_vec(), true),
        ] {
            let outcome = run(&mut program(&command));
            assert_eq!(outcome.code, Some(3), "{command:?}: {}", outcome.stderr);
            let text = if says { &outcome.stderr } else { &outcome.stdout };
            for part in ["event_id", &format!("row {row}"), expected] {
                assert!(text.contains(part), "{command:?}: '{part}' is not in: {text}");
            }
        }
    }
}

#[test]
fn decimal_keys_of_tables_are_copied_or_refused() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    let dialect = table_dialect(folder.path());
    let line = |key: &str| format!("{key},120.5,0.3,0.1,0.6,0.36,8.0");
    let table = |name: &str, keys: &[&str]| {
        let lines: Vec<String> = keys.iter().map(|key| line(key)).collect();
        std::fs::write(at(name), format!("{TABLE_HEADER}\n{}\n", lines.join("\n")))
            .expect("a table");
        at(name)
    };
    let good = table("good.csv", &["17.0", "18", "1.9e1"]);
    let convert = |table: &Path, output: &str| {
        arguments!["convert", table, "-o", at(output), "--dialect", &dialect].to_vec()
    };
    succeed(&mut program(&convert(&good, "good.h5")));
    assert_eq!(keys(&at("good.h5"), "events", "event_id"), [17, 18, 19]);
    let bad = table("bad.csv", &["17", "18.25"]);
    let outcome = run(&mut program(&convert(&bad, "bad.h5")));
    assert_eq!(outcome.code, Some(3), "{}", outcome.stderr);
    for part in ["event_number", "row 3", "18.25"] {
        assert!(outcome.stderr.contains(part), "'{part}' is not in: {}", outcome.stderr);
    }
}
