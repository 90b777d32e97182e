//! Excess per energy bin: an event has the energy at the position where it counts, and a
//! background without a source has no excess in any bin.

use crate::support::scores::{Scores, write_folder};
use crate::support::{arguments, folder, json, program, seed, simulated, succeed, trained};
use hdf5::File;
use serde_json::Value;
use std::path::{Path, PathBuf};
use taiga_flow::config::Class;
use taiga_flow_gpu::random::Stream;

/// A table in which the energy depends on `dist` as strongly as on `size`.
const TABLE: &str = "log10_size = [1.0, 6.0]\ndist = [0.0, 9.0]\n\
                     log10_energy = [[-0.8, 2.35], [3.7, 6.85]]\n";

/// Returns log10 of the energy by TABLE.
fn log10_energy(size: f32, dist: f32) -> f64 {
    -0.8 + 0.9 * (f64::from(size).log10() - 1.0) + 0.35 * f64::from(dist)
}

/// Scores toy events of one class at six positions with TABLE.
fn scored(folder: &Path, name: &str, class: Class, events: u64, more: &str) -> PathBuf {
    let at = |name: &str| folder.join(name);
    let input = simulated(at(&format!("{name}.h5")), class, events, seed() + 77);
    std::fs::write(at("table.toml"), TABLE).expect("a table");
    let text = format!(
        "[score]\npositions = 6\ncolumns = [\"score\", \"log_prob\", \"dist\"]\n\
         energy_table = \"{}\"\n{more}",
        at("table.toml").display()
    );
    std::fs::write(at("score.toml"), text).expect("a configuration");
    let output = at(&format!("{name}-scores"));
    let model = &trained().model;
    let config = at("score.toml");
    succeed(&mut program(&arguments![
        "score", "-q", "-m", model, "-o", &output, "-c", &config, &input
    ]));
    output
}

fn columns(path: &Path, name: &str) -> Vec<Vec<f32>> {
    let dataset = File::open(path).and_then(|f| f.dataset(&format!("scores/{name}")));
    let all = dataset.and_then(|d| d.read_2d::<f32>()).expect("a column of positions");
    all.columns().into_iter().map(|column| column.to_vec()).collect()
}

#[test]
fn energy_at_each_position_equals_the_table() {
    let folder = folder();
    let scores = scored(folder.path(), "run", Class::Hadron, 4000, "copy = [\"size\"]\n");
    let path = scores.join("run.h5");
    let (energy, dist) = (columns(&path, "energy"), columns(&path, "dist"));
    let file = File::open(&path).expect("scores");
    let size = file.dataset("scores/size").and_then(|d| d.read_raw::<f32>()).expect("sizes");
    let version = file.attr("version").and_then(|a| a.read_scalar::<i64>()).expect("a version");
    assert_eq!((version, energy.len(), size.len()), (3, 6, 4000));
    let mut differing = 0;
    for row in 0..size.len() {
        for k in 0..6 {
            let expected = log10_energy(size[row], dist[k][row]);
            let found = f64::from(energy[k][row]).log10();
            assert!((found - expected).abs() < 1e-5, "row {row}, position {k}");
            differing += u32::from((energy[k][row] / energy[0][row] - 1.0).abs() > 0.1);
        }
    }
    assert!(differing > 10_000, "{differing}");
}

#[test]
fn background_energy_bins_have_no_excess() {
    let folder = folder();
    let scores = scored(folder.path(), "run", Class::Hadron, 150_000, "");
    let output = folder.path().join("report");
    let ask = arguments!["season", &scores, "-o", &output, "--threshold", "-30"];
    let total = json(&ask)["total"].clone();
    let bins = total["energy"].as_array().expect("bins of energy").clone();
    assert!(bins.len() >= 8, "{bins:?}");
    let count = |name: &str| bins.iter().map(|b| b[name].as_u64().expect("a count")).sum::<u64>();
    let sigmas: Vec<f64> =
        bins.iter().map(|bin| bin["significance"].as_f64().expect("a significance")).collect();
    println!("{sigmas:.2?}; {} ON, {} OFF in the bins", count("on"), count("off"));
    assert!(count("on") > 10_000);
    assert!(sigmas.iter().all(|sigma| sigma.abs() < 5.0), "{sigmas:?}");
    // The sum of the squares of 10 standard normal numbers exceeds 45 once in a million times.
    assert!(sigmas.iter().map(|sigma| sigma * sigma).sum::<f64>() < 45.0, "{sigmas:?}");
    // The share of OFF events inside the bins equals that of ON events.
    let off: u64 = total["off"].as_array().unwrap().iter().map(|n| n.as_u64().unwrap()).sum();
    let inside = |n: u64, all: u64| n as f64 / all as f64;
    let on = total["on"].as_u64().unwrap();
    let difference = inside(count("on"), on) - inside(count("off"), off);
    assert!(difference.abs() < 5.0 * 0.5 / (on as f64).sqrt(), "{difference}");
}

/// An event that counts at the source (0) or at the opposite position (1).
#[derive(Clone, Copy)]
struct Counted {
    place: usize,
    energy: f32,      // [TeV]
    true_energy: f32, // [TeV]
}

/// Returns a run of such events. At the other position each event fails, and has ten times the
/// energy.
fn run_of(number: i64, events: &[Counted]) -> Scores {
    let start = 1_669_914_000_000_000_000 + number * 86_400_000_000_000;
    let rows_of = |value: &dyn Fn(&Counted, bool) -> f32| -> Vec<f32> {
        events.iter().flat_map(|e| [0, 1].map(|k| value(e, k == e.place))).collect()
    };
    let column =
        |name: &str, unit: &str, values: Vec<f32>| (name.to_string(), unit.to_string(), values);
    let key = |name: &str, value: &dyn Fn(i64) -> i64| {
        (name.to_string(), (0..events.len() as i64).map(value).collect())
    };
    let true_energy = events.iter().map(|event| event.true_energy).collect();
    Scores {
        positions: vec![0.0, 180.0],
        threshold: 0.0,
        keys: vec![
            key("run_id", &|_| number),
            key("portion", &|_| 1),
            key("event_id", &|i| i),
            key("unix_time_ns", &|i| start + 1_000_000 * i),
        ],
        at_positions: vec![
            column("score", "nat", rows_of(&|_, counts| if counts { 1.0 } else { -1.0 })),
            column(
                "energy",
                "TeV",
                rows_of(&|e, counts| {
                    if counts { e.energy } else { 10.0 * e.energy }
                }),
            ),
        ],
        status: vec![0; 2 * events.len()],
        copied: vec![column("energy_true", "TeV", true_energy)],
        quality: None,
        source_offset: Some([1.2, 1.2]),
        model: "ab".repeat(32),
        input: format!("run-{number}.h5"),
    }
}

fn written(folder: &Path, runs: &[Scores]) -> PathBuf {
    let named: Vec<(String, &Scores)> = runs.iter().map(|run| (run.input.clone(), run)).collect();
    let files: Vec<(&str, &Scores)> = named.iter().map(|(n, run)| (n.as_str(), *run)).collect();
    write_folder(folder, &files)
}

fn season_of(folder: &Path, runs: &[Scores]) -> Value {
    let scores = written(&folder.join("scores"), runs);
    json(&arguments!["season", &scores, "-o", &folder.join("report")])
}

#[test]
fn energy_of_source_alone_is_not_binned() {
    let (good, mixed, old) = (folder(), folder(), folder());
    let event = |i: usize| Counted { place: i % 2, energy: 4.0, true_energy: 4.0 };
    let events: Vec<Counted> = (0..600).map(event).collect();
    let new = run_of(1, &events);
    let report = season_of(good.path(), std::slice::from_ref(&new));
    let bins = report["total"]["energy"].as_array().expect("bins").clone();
    let counts = |low: f64| {
        let bin = bins.iter().find(|bin| bin["low_tev"] == low).expect("a bin");
        [bin["on"].as_u64().unwrap(), bin["off"].as_u64().unwrap()]
    };
    assert_eq!((counts(3.2), counts(31.7)), ([300, 300], [0, 0]));
    // A file of version 2 with the same events has one energy per event.
    let mut of_source = run_of(2, &events);
    let energy = of_source.column("energy").iter().step_by(2).copied().collect();
    of_source.at_positions.retain(|(name, _, _)| name != "energy");
    of_source.copied.push(("energy".to_string(), "TeV".to_string(), energy));
    let report = season_of(mixed.path(), &[new, of_source.clone()]);
    assert_eq!(report["total"]["on"], 600);
    assert_eq!(report["total"]["energy"], Value::Array(bins), "only bins of the new run");
    let warnings = report["warnings"].to_string();
    assert!(warnings.contains("run 2") && warnings.contains("score again"), "{warnings}");
    let report = season_of(old.path(), &[of_source]);
    assert_eq!(report["total"]["energy"], Value::Array(Vec::new()));
    assert!(report["candidates"].as_array().unwrap().iter().all(|c| c["energy"].is_null()));
}

/// Draws gammas of a power law from 2 to 200 TeV. The share that counts at the OFF position rises
/// with energy: 5 % at 2 TeV, 40 % from 10 TeV.
fn gammas(index: f64, count: u64, stream: Stream) -> Vec<Counted> {
    let k = 1.0 - index;
    let one = |i: u64| {
        let far = 100.0_f64.powf(k) - 1.0;
        let energy = 2.0 * (1.0 + stream.uniform(4 * i + 2) * far).powf(1.0 / k);
        let leaks = (0.05 + 0.5 * (energy / 2.0).log10()).min(0.4);
        let smeared = energy * (0.2 * stream.normal(2 * i)).exp();
        let place = usize::from(stream.uniform(4 * i + 3) < leaks);
        Counted { place, energy: smeared as f32, true_energy: energy as f32 }
    };
    (0..count).map(one).collect()
}

#[test]
fn leak_per_bin_recovers_planted_gammas() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    let stream = |name: &str| Stream::new(seed(), name, &[]);
    // Without background, the gammas that count at the source are those of the file.
    let planted = gammas(2.6, 30_000, stream("season"));
    let thrown = gammas(2.0, 30_000, stream("thrown"));
    let scores = written(&at("scores"), &[run_of(1, &planted)]);
    let mc = written(&at("mc"), &[run_of(9, &thrown)]);
    let season = |name: &str, settings: &str| {
        let path = at(&format!("{name}.toml"));
        std::fs::write(&path, settings).expect("settings");
        json(&arguments!["season", &scores, "-o", &at(name), "-c", &path, "--gamma-mc", &mc])
    };
    let simulation = |source: f64| {
        format!(
            "[simulation]\nevents = 30000\nradius_m = 700.0\nindex = 2.0\n\
             energy_tev = [2.0, 200.0]\nsource_index = {source}\n"
        )
    };
    let number = |value: &Value| value.as_f64().expect("a number");
    let pull = |of: &Value, truth: usize| {
        (number(&of["corrected"]["value"]) - truth as f64) / number(&of["corrected"]["error"])
    };
    let report = season("weighted", &simulation(2.6));
    let on = planted.iter().filter(|event| event.place == 0).count();
    assert!(pull(&report["total"], on).abs() < 4.5, "{}, {on}", report["total"]["corrected"]);
    let (mut resolved, mut unresolved) = (0, 0);
    for bin in report["total"]["energy"].as_array().expect("bins") {
        if bin["leak"]["resolved"] == false {
            assert!(bin["corrected"].is_null(), "{bin}");
            unresolved += 1;
            continue;
        }
        let edges = number(&bin["low_tev"])..number(&bin["high_tev"]);
        let of_bin = |e: &&Counted| e.place == 0 && edges.contains(&f64::from(e.energy));
        let truth = planted.iter().filter(of_bin).count();
        println!("{edges:?} TeV: {} planted, {}", truth, bin["corrected"]);
        assert!(pull(bin, truth).abs() < 4.5, "{bin}, {truth}");
        resolved += 1;
    }
    assert!(resolved >= 4 && unresolved >= 1, "{resolved} {unresolved}");
    assert!(
        report["warnings"].to_string().contains("simulate more gammas"),
        "{}",
        report["warnings"]
    );
    // With the simulated spectrum the leak differs strongly, and a warning reports it.
    let as_thrown = season("as-thrown", "");
    assert!(pull(&as_thrown["total"], on).abs() > 6.0, "{}", as_thrown["total"]["corrected"]);
    let warnings = as_thrown["warnings"].to_string();
    assert!(warnings.contains("[simulation]") && warnings.contains("spectrum thrown"));
    let same = season("same", &simulation(2.0));
    assert_eq!(same["total"]["corrected"], as_thrown["total"]["corrected"]);
}
