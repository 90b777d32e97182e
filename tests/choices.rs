//! Choices by evaluations: thresholds for an observation, scans over thresholds, TAIGA's cuts as a
//! baseline, two models on the same events, and features left out.

use crate::support::{
    Events, TwoClasses, arguments, json, program, ranks, run, seed, simulated, succeed,
};
use serde_json::Value;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use taiga_flow::config::Class;
use taiga_flow::model::Model;
use taiga_flow::statistics::Rule;
use taiga_flow::statistics::counts::on_off::li_ma;

const SIGNIFICANCE: &str = "rule = \"significance\"\ngamma_rate_per_hour = 4.0\nbackground_rate_per_hour = 3000.0\nhours = 20.0\n";

/// Writes the configuration of a ratio with the given `[calibration]`.
fn configuration(case: &TwoClasses, name: &str, calibration: &str) -> PathBuf {
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

[split]
train = 0.5
validation = 0.3
test = 0.2

[model]
mode = "ratio"
blocks = 2
hidden = [12]

[train]
epochs = 2
batch = 1024
learning_rate = 1e-2

[calibration]
{calibration}
"#
    );
    case.write_configuration(name, "", &more)
}

/// Trains a ratio with the given `[calibration]`.
fn train(case: &TwoClasses, name: &str, calibration: &str) -> PathBuf {
    case.train(&configuration(case, name, calibration), &[], name, 1)
}

fn evaluate(case: &TwoClasses, model: &Path, name: &str, more: &[&str]) -> Vec<OsString> {
    let [gamma, hadron] = &case.events;
    let output = case.at(name);
    let mut all = Vec::from(arguments!["evaluate", "-m", model, gamma, hadron, "-o", &output]);
    all.extend(more.iter().map(OsString::from));
    all
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("a number in place of {value}"))
}

fn refused(command: &[OsString], part: &str) {
    let outcome = run(&mut program(command));
    assert_eq!(outcome.code, Some(2), "{}", outcome.stderr);
    assert!(outcome.stderr.contains(part), "'{part}' is not in: {}", outcome.stderr);
}

#[test]
fn significance_rule_is_in_card_scan_and_page() {
    let case = TwoClasses::new(8000);
    let model = train(&case, "significance", SIGNIFICANCE);
    let threshold = Model::load(&model).expect("a model").0.card.threshold.expect("a threshold");
    let Rule::Significance(o) = threshold.rule else { panic!("{threshold:?}") };
    assert_eq!(o.off_positions, 5);
    assert!(o.gammas_inside > 0.1 && o.gammas_inside < 1.0, "{o:?}");
    assert!(o.hadrons_inside > 0.1 && o.hadrons_inside < 1.0, "{o:?}");

    let evaluation = json(&evaluate(&case, &model, "own", &[]));
    let points = evaluation["scan"]["points"].as_array().expect("points").clone();
    assert!((8..=20).contains(&points.len()), "{}", points.len());
    let own: Vec<&Value> = points.iter().filter(|p| p["own"] == true).collect();
    assert_eq!(own.len(), 1);
    assert!((number(&own[0]["threshold"]) - threshold.value).abs() < 1e-12);
    let at = &evaluation["at_threshold"];
    let share = |of: &str, which: &str| number(&at[of][which]["value"]);
    // Expected counts use efficiencies before the cuts: passing events per triggered event.
    let gammas = 80.0 * share("before_cuts", "gamma_efficiency");
    let background = 60_000.0 * share("before_cuts", "hadron_survival");
    let expected = &own[0]["expected"];
    assert!((number(&expected["on"]) / (gammas + background) - 1.0).abs() < 1e-9, "{expected}");
    assert!((number(&expected["off"]) / (5.0 * background) - 1.0).abs() < 1e-9, "{expected}");
    let sigma = li_ma(gammas + background, 5.0 * background, 0.2);
    assert!((number(&expected["significance"]) / sigma - 1.0).abs() < 1e-9, "{expected}");
    // Other events than those that chose the threshold: its significance is near the best row.
    let best = points.iter().map(|p| number(&p["expected"]["significance"])).fold(0.0, f64::max);
    assert!(sigma > 0.8 * best, "{sigma} of {best}");

    let page = std::fs::read_to_string(case.at("own").join("report.html")).expect("a page");
    assert!(page.contains("Scan over thresholds") && page.contains("N_off"), "no scan");
    let more = ["--gamma-rate", "2", "--background-rate", "100", "--hours", "5"];
    let more = [&more[..], &["--off-positions", "3", "--overwrite"]].concat();
    let report = succeed(&mut ranks(2, &evaluate(&case, &model, "own", &more))).stdout;
    assert!(
        report.contains("2 gammas and 100 background events per hour in 5 h, 3 OFF"),
        "{report}"
    );
    assert!(report.contains("of the model") && report.contains("largest σ"), "{report}");
}

#[test]
fn rates_without_use_or_missing_are_refused() {
    let case = TwoClasses::new(200);
    let train = |name: &str, calibration: &str| {
        let configuration = configuration(&case, name, calibration);
        arguments!["train", "-c", &configuration, "-o", case.at(name)].to_vec()
    };
    refused(&train("lacking", "rule = \"significance\"\nhours = 3.0\n"), "lacks a rate");
    refused(&train("unused", "rule = \"largest-q\"\nhours = 3.0\n"), "are not used");
    refused(
        &train("negative", &SIGNIFICANCE.replace("4.0", "-4.0")),
        "calibration.gamma_rate_per_hour",
    );
    refused(
        &train("many", &format!("{SIGNIFICANCE}off_positions = 0\n")),
        "calibration.off_positions is out of range",
    );
    let model = case.at("none");
    refused(&evaluate(&case, &model, "a", &["--hours", "3"]), "--gamma-rate, --background-rate");
    let wrong = ["--gamma-rate", "1", "--background-rate", "0", "--hours", "3"];
    refused(&evaluate(&case, &model, "b", &wrong), "--background-rate is out of range");
}

#[test]
fn largest_q_limited_by_hadrons_is_reported() {
    // Gammas point at the source and hadrons do not, so Q rises with the threshold until some
    // forty held-out hadrons limit it. The rule is written with '_'.
    let case = TwoClasses::new(1500);
    let mut gammas = Events::read(&case.events[0]);
    gammas.feature("alpha").iter_mut().for_each(|alpha| *alpha *= 0.02);
    std::fs::remove_file(&case.events[0]).expect("removed");
    gammas.write(&case.events[0]);
    let configuration = configuration(&case, "limited", "rule = \"largest_q\"");
    let output = case.at("limited");
    let mut command = arguments!["train", "-c", &configuration, "-o", &output].to_vec();
    let more = ["train.epochs=10", "split.train=0.82", "split.validation=0.03", "split.test=0.15"];
    for assignment in more {
        command.extend(arguments!["--set", assignment]);
    }
    let printed = succeed(&mut program(&command));
    let model = output.join("model.safetensors");
    let threshold = Model::load(&model).expect("a model").0.card.threshold.expect("a threshold");
    let hadrons = threshold.limited_by_hadrons.expect("limited");
    assert!((10..20).contains(&hadrons), "{hadrons}");
    let limit = format!("limited by {hadrons} held-out hadrons");
    assert!(printed.stdout.contains(&limit) && printed.stderr.contains(&limit), "{printed:?}");
    let report = succeed(&mut program(&evaluate(&case, &model, "evaluation", &[]))).stdout;
    assert!(report.contains(&limit), "{report}");
    let page = std::fs::read_to_string(case.at("evaluation").join("report.html"));
    assert!(page.expect("a page").contains(&limit));
}

#[test]
fn standard_cuts_are_compared_event_by_event() {
    let case = TwoClasses::new(8000);
    let model = train(&case, "cuts", "rule = { gamma-efficiency = 0.8 }");
    let command = evaluate(&case, &model, "one", &["--baseline", "cuts", "--part", "all"]);
    let printed = succeed(&mut program(&command)).stdout;
    assert!(
        printed.contains("TAIGA's standard cuts") && printed.contains("by DISP from alpha"),
        "{printed}"
    );
    let text = std::fs::read_to_string(case.at("one").join("evaluation.json"));
    let evaluation: Value = serde_json::from_str(&text.expect("an evaluation")).expect("JSON");
    let cuts = &evaluation["baseline_cuts"];
    // The cuts computed by hand, with θ² of the nearer of the two points on the axis.
    let (mut passed, mut all) = ([0.0; 2], [0.0; 2]);
    for (class, path) in case.events.iter().enumerate() {
        let mut events = Events::read(path);
        let column = |name| events.feature(name).iter().map(|x| f64::from(*x)).collect();
        let columns: [Vec<f64>; 5] = ["size", "dist", "width", "length", "alpha"].map(column);
        let [size, dist, width, length, alpha] = columns;
        for i in 0..size.len() {
            let l = size[i].log10();
            let shape = size[i] > 120.0
                && (0.36..1.44).contains(&dist[i])
                && width[i] > 0.024
                && width[i] < 0.068 * l - 0.047
                && length[i] < 0.145 * l;
            let xi = match dist[i] {
                d if d <= 0.9045 => 1.3,
                d if d <= 1.206 => 1.6,
                _ => match size[i] {
                    s if s < 700.0 => 2.0,
                    s if s < 1000.0 => 1.9,
                    s if s < 1250.0 => 1.75,
                    s if s < 1500.0 => 1.5,
                    _ => 1.3,
                },
            };
            let disp = xi * (1.0 - width[i] / length[i]);
            let along = alpha[i].to_radians().cos();
            let theta2 = disp * disp + dist[i] * dist[i] - 2.0 * disp * dist[i] * along;
            all[class] += 1.0;
            passed[class] += f64::from(u8::from(shape && theta2 < 0.05));
        }
    }
    assert!(passed[0] > 20.0 && passed[1] >= 1.0, "the cuts select events: {passed:?}");
    let value = |of: &str| number(&cuts["selected"][of]["value"]);
    assert!((value("gamma_efficiency") - passed[0] / all[0]).abs() < 1e-9, "{cuts}");
    assert!((value("hadron_survival") - passed[1] / all[1]).abs() < 1e-9, "{cuts}");
    let model_survival = number(&cuts["model"]["hadron_survival"]["value"]);
    assert!(model_survival <= value("hadron_survival") + 1e-12, "{cuts}");
    let difference =
        number(&cuts["model"]["quality"]["value"]) - number(&cuts["selected"]["quality"]["value"]);
    assert!((number(&cuts["difference"]["value"]) - difference).abs() < 1e-9, "{cuts}");
    assert!(number(&cuts["difference"]["error"]) > 0.0, "{cuts}");
    let page = std::fs::read_to_string(case.at("one").join("report.html")).expect("a page");
    assert!(page.contains("Q of the model is"), "no baseline");
    let command = evaluate(&case, &model, "two", &["--baseline", "cuts", "--part", "all"]);
    let over_ranks = json_of(&mut ranks(3, &command), &case.at("two"));
    assert_eq!(&over_ranks["baseline_cuts"], cuts);
}

/// Runs an evaluation and reads its JSON file.
fn json_of(command: &mut std::process::Command, output: &Path) -> Value {
    succeed(command);
    let text = std::fs::read_to_string(output.join("evaluation.json")).expect("an evaluation");
    serde_json::from_str(&text).expect("JSON")
}

#[test]
fn two_models_have_paired_differences() {
    let case = TwoClasses::new(6000);
    let models = [
        train(&case, "a", "rule = { gamma-efficiency = 0.8 }"),
        case.train(
            &configuration(&case, "b", "rule = { hadron-survival = 0.1 }"),
            &["train.seed=2"],
            "b",
            1,
        ),
    ];
    // Events that neither model was trained on.
    let fresh = |name: &str, class, seed| simulated(case.at(name), class, 5000, seed);
    let events = [
        fresh("new-gamma.h5", Class::Gamma, seed() + 7),
        fresh("new-hadron.h5", Class::Hadron, seed() + 8),
    ];
    let [gamma, hadron] = &events;
    let score = case.at("score.toml");
    std::fs::write(&score, "[score]\ncolumns = [\"score\", \"pass\"]\n").expect("written");
    let mut evaluations = Vec::new();
    for (model, name) in models.iter().zip(["a", "b"]) {
        let scores = case.at(&format!("scores-{name}"));
        json(&arguments!["score", "-m", model, "-o", &scores, "-c", &score, gamma, hadron]);
        let output = case.at(&format!("evaluation-{name}"));
        evaluations.push(json(&arguments!["evaluate", "-m", model, gamma, hadron, "-o", &output]));
    }
    let (a, b, output) = (case.at("scores-a"), case.at("scores-b"), case.at("compared"));
    let command = arguments!["compare", &a, &b, "-o", &output];
    let comparison = json(&command);
    let labelled = &comparison["labelled"];
    let auc = |which: usize| number(&evaluations[which]["auc"]["value"]);
    // Scores are stored with 12 bits, so areas agree to some 1e-5.
    for which in [0, 1] {
        assert!((number(&labelled["auc"][which]) - auc(which)).abs() < 1e-4, "{labelled}");
        let of = &evaluations[which]["at_threshold"]["before_cuts"]["quality"];
        let quality = number(&labelled["selected"][which]["quality"]["value"]);
        assert!((quality - number(&of["value"])).abs() < 1e-9, "{quality} {of}");
    }
    let difference = &labelled["auc_difference"];
    assert!((number(&difference["value"]) - auc(0) + auc(1)).abs() < 1e-4, "{difference}");
    let own = number(&evaluations[0]["auc"]["error"]);
    let error = number(&difference["error"]);
    assert!(error > 0.0 && error < own, "pairing gains: {error} of {own}");
    assert!(number(&labelled["quality_difference"]["error"]) > 0.0, "{labelled}");
    let printed =
        succeed(&mut ranks(2, &[&command[..], &arguments!["--overwrite"]].concat())).stdout;
    assert!(printed.contains("AUC, paired") && printed.contains("the first is"), "{printed}");
    let text = std::fs::read_to_string(output.join("comparison.json")).expect("a comparison");
    let again: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(&again["labelled"], labelled, "the same on any ranks");
    let page = case.at("page.html");
    succeed(&mut program(&arguments!["report", &output, "-o", &page]));
    let page = std::fs::read_to_string(&page).expect("a page");
    assert!(page.contains("ΔAUC") && page.contains("ΔQ"), "no differences");
}

/// Writes gammas and hadrons into one file with a class column.
fn labelled(path: &Path, events: u64, seed: u64) {
    let of = |name: &str, class, seed| {
        let file = path.with_file_name(name);
        std::fs::remove_file(&file).ok();
        Events::read(&simulated(file, class, events, seed))
    };
    let mut all = of("of-gammas.h5", Class::Gamma, 1000 + seed);
    let hadrons = of("of-hadrons.h5", Class::Hadron, 2000 + seed);
    for ((_, values), (_, more)) in all.keys.iter_mut().zip(hadrons.keys) {
        values.extend(more);
    }
    for ((_, values), (_, more)) in all.features.iter_mut().zip(hadrons.features) {
        values.extend(more);
    }
    all.class.extend(hadrons.class);
    all.write(path);
}

#[test]
fn features_are_left_out_one_by_one_with_seeds() {
    let case = TwoClasses::new(3000);
    let configuration = configuration(&case, "left-out", "");
    let output = case.at("sweep");
    let command = arguments![
        "sweep",
        "-q",
        "-c",
        &configuration,
        "-o",
        &output,
        "--leave-one-out",
        "--seeds",
        "2",
        "--set",
        "train.epochs=3",
        "--threads",
        "1"
    ];
    let sweep = json(&command);
    assert_eq!(sweep["points"].as_array().map(Vec::len), Some(8));
    let features = sweep["features"].as_array().expect("features");
    assert_eq!(features.len(), 3);
    let of = |name: &str| features.iter().find(|f| f["feature"] == name).expect("a feature");
    // Toy hadrons have no source: without alpha little separation remains.
    let alpha = of("alpha");
    assert_eq!(features[0]["feature"], "alpha", "{features:?}");
    assert!(number(&alpha["lost"]) > 3.0 * number(&alpha["error"]), "{alpha}");
    let auc = |point: usize| {
        let path = output.join(format!("point-{point}/evaluation/evaluation.json"));
        let text = std::fs::read_to_string(path).expect("an evaluation");
        let evaluation: Value = serde_json::from_str(&text).expect("JSON");
        number(&evaluation["auc"]["value"])
    };
    // Points 0 and 1 have all features, 6 and 7 lack alpha.
    let lost = [auc(0) - auc(6), auc(1) - auc(7)];
    let mean = f64::midpoint(lost[0], lost[1]);
    assert!((number(&alpha["lost"]) - mean).abs() < 1e-12, "{alpha}");
    let spread = (lost[0] - lost[1]).abs() / 2.0_f64.sqrt();
    assert!((number(&alpha["spread"]) - spread).abs() < 1e-12, "{alpha}");
    let text = std::fs::read_to_string(output.join("leave-one-out.tsv")).expect("a table");
    assert_eq!(text.lines().count(), 4, "{text}");
    // NLLs of different feature sets cannot be compared.
    assert!(sweep["best"].is_null(), "{}", sweep["best"]);
    let table = std::fs::read_to_string(output.join("sweep.tsv")).expect("a table");
    assert!(!table.contains('*'), "{table}");
    let again = succeed(&mut program(&command)).stdout;
    assert!(again.contains("cannot be compared"), "{again}");
    // Other files to evaluate: the AUC is computed again, also that of a file that has changed.
    let both = || [auc(0), auc(6)].map(f64::to_bits);
    let own = both();
    let file = case.at("labelled.h5");
    let mut of_others = Vec::new();
    for seed in [1, 2] {
        std::fs::remove_file(&file).ok();
        labelled(&file, 2000, seed);
        let evaluate = ["--evaluate".into(), file.clone().into_os_string()];
        let sweep = json(&[&command[..], &evaluate].concat());
        assert!((number(&sweep["points"][0]["auc"]) - auc(0)).abs() < 1e-12);
        of_others.push(both());
    }
    assert!(own != of_others[0] && of_others[0] != of_others[1], "{own:?} {of_others:?}");
    json(&command);
    assert_eq!(both(), own);
    assert!(again.contains("AUC lost by training without a feature"), "{again}");
    let alone = arguments!["sweep", "-c", &configuration, "-o", case.at("x")];
    refused(&alone, "--grid");
    let test = ["--leave-one-out", "--set", "split.test=0.0", "--set", "split.train=0.7"];
    let mut unlabelled = alone.to_vec();
    unlabelled.extend(test.map(OsString::from));
    refused(&unlabelled, "split.test above 0");
}

#[test]
fn importance_is_called_reliance_of_the_model() {
    let case = TwoClasses::new(2000);
    let model = train(&case, "reliance", "");
    let report = succeed(&mut program(&evaluate(&case, &model, "reliance-of", &["--importance"])));
    assert!(report.stdout.contains("reliance of this model on"), "{}", report.stdout);
    assert!(report.stdout.contains("not the value of the feature"), "{}", report.stdout);
    let page = std::fs::read_to_string(case.at("reliance-of").join("report.html"));
    let page = page.expect("a page");
    assert!(page.contains("Reliance of this model") && page.contains("--leave-one-out"));
    let printed = succeed(&mut program(&arguments!["help", "evaluate"])).stdout;
    assert!(printed.contains("Measure the reliance of this model"), "{printed}");
}
