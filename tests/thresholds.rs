//! Thresholds per bin of a quantity: chosen on the events of the bin, equal on any number of
//! ranks, applied by scoring and shown by evaluations. Too few events are refused before the first
//! step.

use crate::support::{
    Events, TwoClasses, arguments, hash, json, program, ranks, run, succeed, text,
};
use std::path::{Path, PathBuf};
use taiga_flow::config::{NO_BIN, bin_of};
use taiga_flow::model::Model;
use taiga_flow::statistics::BinnedThresholds;

fn configuration(case: &TwoClasses, name: &str, more: &str) -> PathBuf {
    let more = format!(
        r#"
[features]
columns = [
  {{ name = "width", transform = "ln", offset = 0.01 }},
  {{ name = "length", transform = "ln", offset = 0.01 }},
  {{ name = "alpha", transform = "signed" }},
]

[cuts]
size = {{ min = 60 }}

[model]
mode = "ratio"
blocks = 2
hidden = [12]

[train]
epochs = 2
batch = 2048
learning_rate = 1e-2
{more}
"#
    );
    case.write_configuration(name, "", &more)
}

fn thresholds(model: &Path) -> BinnedThresholds {
    let card = Model::load(model).expect("a model").0.card;
    assert_eq!(card.version, 6);
    card.thresholds.expect("thresholds by bins")
}

fn read<T: hdf5::H5Type>(path: &Path, column: &str) -> Vec<T> {
    let file = hdf5::File::open(path).expect("scores");
    file.dataset(&format!("scores/{column}")).and_then(|d| d.read_raw()).expect("a column")
}

#[test]
fn bin_thresholds_apply_in_score_and_evaluate() {
    let case = TwoClasses::new(8000);
    let bins = "[calibration]\nrule = { gamma-efficiency = 0.8 }\n\n[thresholds]\nper = \"size\"\nedges = [90.0, 180.0]\nleast = 40\n";
    let configuration = configuration(&case, "bins", bins);
    let model = case.train(&configuration, &[], "one", 1);
    assert_eq!(hash(&case.train(&configuration, &[], "three", 3)), hash(&model));
    let own = thresholds(&model);
    assert_eq!(
        (own.per.as_str(), own.edges.as_slice(), own.bins.len()),
        ("size", &[90.0, 180.0][..], 3)
    );
    assert!(
        own.bins.windows(2).all(|pair| (pair[0].threshold - pair[1].threshold).abs() > 1e-9),
        "{own:?}"
    );
    let global = Model::load(&model).expect("a model").0.card.threshold.expect("one for all");

    // Scores: bit 0 by the bin of the event, bit 1 by the given global threshold.
    let score = case.at("score.toml");
    let points = format!(
        "[score]\ncolumns = [\"score\", \"pass\"]\nworking_points = [{{ name = \"own\" }}, {{ name = \"all\", threshold = {:?} }}]\n",
        global.value
    );
    std::fs::write(&score, points).expect("written");
    let scores = case.at("scores");
    let [gamma, hadron] = &case.events;
    json(&arguments!["score", "-m", &model, "-o", &scores, "-c", &score, gamma, hadron]);
    let (mut passed, mut differ) = ([[0u64; 3]; 2], 0);
    for (class, path) in case.events.iter().enumerate() {
        let size = Events::read(path).feature("size").clone();
        let file = scores.join(path.file_name().expect("a name"));
        let (score, status) = (read::<f32>(&file, "score"), read::<u32>(&file, "status"));
        for (row, pass) in read::<u8>(&file, "pass").into_iter().enumerate() {
            let bin = bin_of(&own.edges, f64::from(size[row]));
            let value = f64::from(score[row]);
            let expected = [own.of(bin), global.value].map(|t| status[row] == 0 && value >= t);
            assert_eq!(pass, u8::from(expected[0]) | u8::from(expected[1]) << 1, "row {row}");
            passed[class][usize::from(bin)] += u64::from(expected[0]);
            differ += u64::from(expected[0] != expected[1]);
        }
    }
    assert!(differ > 20, "the bins change few results: {differ}");
    let stored = hdf5::File::open(scores.join("gamma.h5")).expect("scores");
    let group = stored.group("scores").expect("the group");
    let stored =
        group.attr("working_points").and_then(|a| a.read_scalar::<hdf5::types::FixedAscii<4096>>());
    if let Ok(stored) = stored {
        let stored: serde_json::Value = serde_json::from_str(stored.as_str()).expect("JSON");
        assert!(stored[0]["threshold"].is_null() && stored[1]["threshold"].is_number(), "{stored}");
        assert_eq!(stored[0]["edges"], serde_json::json!([90.0, 180.0]));
    }

    // Evaluations have the same counts as scores, on any number of ranks.
    let evaluate = |name: &str| {
        let output = case.at(name);
        arguments!["evaluate", "-m", &model, "--part", "all", gamma, hadron, "-o", &output].to_vec()
    };
    let at = json(&evaluate("evaluation"))["at_bins"].clone();
    for (bin, of) in at["bins"].as_array().expect("bins").iter().enumerate() {
        let c = &of["confusion"];
        let found = [&c["gamma_as_gamma"], &c["hadron_as_gamma"]].map(|n| n.as_u64().expect("one"));
        assert_eq!(found, [passed[0][bin], passed[1][bin]], "bin {bin}");
        assert_eq!(of["threshold"].as_f64(), Some(own.bins[bin].threshold));
        let efficiency = of["after_cuts"]["gamma_efficiency"]["value"].as_f64().expect("one");
        assert!((0.72..0.88).contains(&efficiency), "bin {bin}: {efficiency}");
    }
    let all = &at["all"]["confusion"];
    let sum = |class: usize| passed[class].iter().sum::<u64>();
    assert_eq!(all["gamma_as_gamma"].as_u64(), Some(sum(0)));
    assert_eq!(all["hadron_as_gamma"].as_u64(), Some(sum(1)));
    let page = text(&case.at("evaluation").join("report.html"));
    assert!(page.contains("Thresholds per bin of size") && page.contains("90 … 180"));
    let mut again = evaluate("ranked");
    again.push("-q".into());
    succeed(&mut ranks(2, &again));
    let file = |name: &str| std::fs::read(case.at(name).join("evaluation.json")).expect("one");
    assert!(file("evaluation") == file("ranked"), "different bytes on two ranks");
    let printed = succeed(&mut program(&evaluate("shown"))).stdout;
    assert!(
        printed.contains("the threshold of all events; `pass` of scores uses the bins"),
        "{printed}"
    );
}

#[test]
fn position_dependent_bins_apply_per_position() {
    let case = TwoClasses::new(8000);
    let bins = "[thresholds]\nper = \"log10(size) + dist\"\nedges = [3.4, 4.4]\nleast = 20\nfew = \"global\"\n";
    let model = case.train(&configuration(&case, "bins", bins), &[], "run", 1);
    let own = thresholds(&model);
    let score = case.at("score.toml");
    let settings = "[score]\npositions = [0.0, 70.0]\ncolumns = [\"score\", \"pass\", \"dist\"]\ncopy = [\"size\"]\n";
    std::fs::write(&score, settings).expect("written");
    let scores = case.at("scores");
    json(&arguments!["score", "-m", &model, "-o", &scores, "-c", &score, &case.events[1]]);
    let file = scores.join("hadron.h5");
    let (score, status) = (read::<f32>(&file, "score"), read::<u32>(&file, "status"));
    let (dist, size) = (read::<f32>(&file, "dist"), read::<f32>(&file, "size"));
    let mut moved = 0;
    for (place, pass) in read::<u8>(&file, "pass").into_iter().enumerate() {
        let size = f64::from(size[place / 2]).log10();
        let value = size + f64::from(dist[place]);
        if own.edges.iter().any(|edge| (value - edge).abs() < 1e-9) {
            continue; // the logarithm may be rounded to the other side
        }
        let bin = bin_of(&own.edges, value);
        let passes = status[place] == 0 && f64::from(score[place]) >= own.of(bin);
        assert_eq!(pass, u8::from(passes), "row {} position {}", place / 2, place % 2);
        let other = size + f64::from(dist[place ^ 1]);
        moved += usize::from(bin != NO_BIN && bin != bin_of(&own.edges, other));
    }
    assert!(moved > 100, "events change their bin with the position: {moved}");
}

#[test]
fn sparse_bins_are_refused_before_training() {
    let case = TwoClasses::new(8000);
    let bins = |few: &str| {
        format!("[thresholds]\nper = \"size\"\nedges = [90.0, 1e7]\nleast = 40\nfew = \"{few}\"\n")
    };
    let sparse = configuration(&case, "refuse", &bins("refuse"));
    let output = case.at("refused");
    let outcome = run(&mut program(&arguments!["train", "-c", &sparse, "-o", &output]));
    assert_eq!(outcome.code, Some(3), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("from 10000000: 0 gammas, 0 hadrons"), "{}", outcome.stderr);
    assert!(!output.join("metrics.jsonl").exists(), "nothing was trained");
    let checked = run(&mut program(&arguments!["check", "-c", &sparse]));
    assert_eq!(checked.code, Some(3), "{}", checked.stderr);
    assert!(checked.stderr.contains("too few held-out events"), "{}", checked.stderr);
    let model = case.train(&configuration(&case, "global", &bins("global")), &[], "global", 2);
    let own = thresholds(&model);
    let global = Model::load(&model).expect("a model").0.card.threshold.expect("one for all");
    assert!(
        own.bins[2].global && own.bins[2].threshold.to_bits() == global.value.to_bits(),
        "{own:?}"
    );
    let [gamma, hadron] = &case.events;
    let report = json(&arguments!["evaluate", "-m", &model, gamma, hadron, "-o", case.at("e")]);
    assert!(report["warnings"].to_string().contains("too few held-out events"), "{report}");
    // A quantity that the files do not have.
    let unknown = configuration(&case, "unknown", &bins("global").replace("size", "hight"));
    let outcome = run(&mut program(&arguments!["train", "-c", &unknown, "-o", &output]));
    assert_eq!(outcome.code, Some(3), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("hight"), "{}", outcome.stderr);
}

#[test]
fn file_without_bin_quantity_is_scored_unbinned() {
    let case = TwoClasses::new(8000);
    let bins = "[thresholds]\nper = \"con2\"\nedges = [0.6]\nfew = \"global\"\n";
    let model = case.train(&configuration(&case, "bins", bins), &[], "run", 1);
    let without = case.at("without.h5");
    let mut events = Events::read(&case.events[0]);
    events.features.retain(|(name, _)| name != "con2");
    events.write(&without);
    json(&arguments!["score", "-m", &model, "-o", case.at("scores"), &without]);
    let score = case.at("pass.toml");
    std::fs::write(&score, "[score]\ncolumns = [\"score\", \"pass\"]\n").expect("written");
    let outcome = run(&mut program(&arguments![
        "score",
        "-m",
        &model,
        "-c",
        &score,
        "-o",
        case.at("pass"),
        &without
    ]));
    assert_eq!(outcome.code, Some(3), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("con2"), "{}", outcome.stderr);
    let hadron = &case.events[1];
    let report = json(&arguments!["evaluate", "-m", &model, &without, hadron, "-o", case.at("e")]);
    assert!(report["at_bins"].is_null());
    assert!(report["warnings"].to_string().contains("without.h5 has no con2"), "{report}");
}
