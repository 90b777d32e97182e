//! How to choose: thresholds for an observation and where their choice ends, a scan over
//! thresholds, TAIGA's cuts as a baseline, two models on the same events, features left out.

use crate::support::{
    arguments, folder, json, program, ranks, run, seed, simulated, succeed, train_on_threads,
    training,
};
use serde_json::Value;
use std::path::{Path, PathBuf};
use taiga_flow::config::Class;
use taiga_flow::figures::Rule;
use taiga_flow::figures::on_off::li_ma;
use taiga_flow::model::Model;

const SIGNIFICANCE: &str = "rule = \"significance\"\ngamma_rate_per_hour = 4.0\nbackground_rate_per_hour = 3000.0\nhours = 20.0\n";

/// Toy events of both classes and ratios trained on them.
struct Case {
    folder: tempfile::TempDir,
    events: [PathBuf; 2],
}

impl Case {
    fn new(events: u64) -> Case {
        let folder = folder();
        let make =
            |name: &str, class, seed| simulated(folder.path().join(name), class, events, seed);
        let events =
            [make("gamma.h5", Class::Gamma, seed()), make("hadron.h5", Class::Hadron, seed() + 1)];
        Case { folder, events }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn configuration(&self, name: &str, calibration: &str) -> PathBuf {
        let path = self.path(&format!("{name}.toml"));
        let [gamma, hadron] = self.events.each_ref().map(|p| p.display().to_string());
        let text = format!(
            r#"
[data]
gamma = [{gamma:?}]
hadron = [{hadron:?}]

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
        std::fs::write(&path, text).expect("a configuration");
        path
    }

    /// Trains with `[calibration]` as given.
    fn train(&self, name: &str, calibration: &str) -> PathBuf {
        let configuration = self.configuration(name, calibration);
        let output = self.path(name);
        train_on_threads(&training(&configuration, &[], &output), 1);
        output.join("model.safetensors")
    }

    fn evaluate(&self, model: &Path, name: &str, more: &[&str]) -> Vec<std::ffi::OsString> {
        let [gamma, hadron] = &self.events;
        let output = self.path(name);
        let mut all = Vec::from(arguments!["evaluate", "-m", model, gamma, hadron, "-o", &output]);
        all.extend(more.iter().map(std::ffi::OsString::from));
        all
    }
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("a number in place of {value}"))
}

fn refused(command: &[std::ffi::OsString], part: &str) {
    let outcome = run(&mut program(command));
    assert_eq!(outcome.code, Some(2), "{}", outcome.stderr);
    assert!(outcome.stderr.contains(part), "'{part}' is not in: {}", outcome.stderr);
}

#[test]
fn significance_rule_is_in_card_scan_and_page() {
    let case = Case::new(8000);
    let model = case.train("significance", SIGNIFICANCE);
    let threshold = Model::load(&model).expect("a model").0.card.threshold.expect("a threshold");
    let Rule::Significance(o) = threshold.rule else { panic!("{threshold:?}") };
    assert_eq!(o.off_positions, 5);
    assert!(o.gammas_inside > 0.1 && o.gammas_inside < 1.0, "{o:?}");
    assert!(o.hadrons_inside > 0.1 && o.hadrons_inside < 1.0, "{o:?}");

    let evaluation = json(&case.evaluate(&model, "own", &[]));
    let points = evaluation["scan"]["points"].as_array().expect("points").clone();
    assert!((8..=20).contains(&points.len()), "{}", points.len());
    let own: Vec<&Value> = points.iter().filter(|p| p["own"] == true).collect();
    assert_eq!(own.len(), 1);
    assert!((number(&own[0]["threshold"]) - threshold.value).abs() < 1e-12);
    let at = &evaluation["at_threshold"];
    let share = |of: &str, which: &str| number(&at[of][which]["value"]);
    // Rates are those before the cuts: what passes is the share of all triggered events.
    let gammas = 80.0 * share("before_cuts", "gamma_efficiency");
    let background = 60_000.0 * share("before_cuts", "hadron_survival");
    let expected = &own[0]["expected"];
    assert!((number(&expected["on"]) / (gammas + background) - 1.0).abs() < 1e-9, "{expected}");
    assert!((number(&expected["off"]) / (5.0 * background) - 1.0).abs() < 1e-9, "{expected}");
    let sigma = li_ma(gammas + background, 5.0 * background, 0.2);
    assert!((number(&expected["significance"]) / sigma - 1.0).abs() < 1e-9, "{expected}");
    // On other events than those that chose it: near the best of the rows.
    let best = points.iter().map(|p| number(&p["expected"]["significance"])).fold(0.0, f64::max);
    assert!(sigma > 0.8 * best, "{sigma} of {best}");

    let page = std::fs::read_to_string(case.path("own").join("report.html")).expect("a page");
    assert!(page.contains("Scan over thresholds") && page.contains("N_off"), "no scan");
    let more = ["--gamma-rate", "2", "--background-rate", "100", "--hours", "5"];
    let more = [&more[..], &["--off-positions", "3", "--overwrite"]].concat();
    let told = succeed(&mut ranks(2, &case.evaluate(&model, "own", &more))).stdout;
    assert!(told.contains("2 gammas and 100 background events per hour in 5 h, 3 OFF"), "{told}");
    assert!(told.contains("the model's") && told.contains("largest σ"), "{told}");
}

#[test]
fn rates_without_use_or_missing_are_refused() {
    let case = Case::new(200);
    let train = |name: &str, calibration: &str| {
        let configuration = case.configuration(name, calibration);
        arguments!["train", "-c", &configuration, "-o", case.path(name)].to_vec()
    };
    refused(&train("lacking", "rule = \"significance\"\nhours = 3.0\n"), "lacks a rate");
    refused(&train("unused", "rule = \"largest-q\"\nhours = 3.0\n"), "without a use");
    refused(
        &train("negative", &SIGNIFICANCE.replace("4.0", "-4.0")),
        "calibration.gamma_rate_per_hour",
    );
    refused(
        &train("many", &format!("{SIGNIFICANCE}off_positions = 0\n")),
        "calibration.off_positions is out of range",
    );
    let model = case.path("none");
    refused(&case.evaluate(&model, "a", &["--hours", "3"]), "--gamma-rate, --background-rate");
    let wrong = ["--gamma-rate", "1", "--background-rate", "0", "--hours", "3"];
    refused(&case.evaluate(&model, "b", &wrong), "--background-rate is out of range");
}

#[test]
fn largest_q_limited_by_hadrons_says_so() {
    // Few hadrons and a spelling with '_': the choice ends at ten that pass.
    let case = Case::new(1500);
    let configuration = case.configuration("limited", "rule = \"largest_q\"");
    let output = case.path("limited");
    let told = succeed(&mut program(&arguments!["train", "-c", &configuration, "-o", &output]));
    let model = output.join("model.safetensors");
    let threshold = Model::load(&model).expect("a model").0.card.threshold.expect("a threshold");
    let hadrons = threshold.limited_by_hadrons.expect("limited");
    assert!((10..20).contains(&hadrons), "{hadrons}");
    let limit = format!("limited by {hadrons} held-out hadrons");
    assert!(told.stdout.contains(&limit) && told.stderr.contains(&limit), "{told:?}");
    let told = succeed(&mut program(&case.evaluate(&model, "evaluation", &[]))).stdout;
    assert!(told.contains(&limit), "{told}");
    let page = std::fs::read_to_string(case.path("evaluation").join("report.html"));
    assert!(page.expect("a page").contains(&limit));
}
