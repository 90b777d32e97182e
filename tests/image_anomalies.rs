//! Synthetic image anomalies, which represent hadrons: made from gammas alone, equal on any number
//! of threads, changed as physics predicts, and usable as a training class.

use crate::support::{
    arguments, folder, hash, json, program, run, seed, succeed, train_on_threads, training,
};
use std::path::{Path, PathBuf};
use taiga_flow::model::Model;

/// A file of gamma images.
struct GammaImages {
    folder: tempfile::TempDir,
    gamma: PathBuf,
}

fn simulate(path: &Path, class: &str, images: u64, seed: u64) {
    let (images, seed) = (images.to_string(), seed.to_string());
    succeed(&mut program(&arguments![
        "simulate", "--level", "images", "-o", path, "--class", class, "--events", images,
        "--seed", seed
    ]));
}

impl GammaImages {
    fn new(images: u64) -> GammaImages {
        let folder = folder();
        let gamma = folder.path().join("gamma.h5");
        simulate(&gamma, "gamma", images, seed());
        GammaImages { folder, gamma }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Makes anomalies of the gammas, and returns their file.
    fn make(&self, name: &str, more: &[&str]) -> PathBuf {
        let output = self.path(name);
        let mut command = program(&arguments!["anomalies", &self.gamma, "-o", &output]);
        succeed(command.args(more));
        output.join("gamma.h5")
    }

    fn extract(&self, images: &Path, name: &str) -> PathBuf {
        let output = self.path(name);
        succeed(&mut program(&arguments!["extract", images, "-o", &output]));
        output.join(images.file_name().expect("a name"))
    }

    fn configuration(&self, mode: &str, gamma: &Path, anomaly: &Path, more: &str) -> PathBuf {
        let configuration = self.path(&format!("{mode}.toml"));
        let text = format!(
            r#"
[data]
gamma = [{:?}]
bad_rows = 0.2

[features]
columns = [
  {{ name = "size", transform = "log10" }},
  {{ name = "width", transform = "ln", offset = 0.02 }},
  {{ name = "length", transform = "ln", offset = 0.02 }},
  {{ name = "con2", transform = "logit" }},
  {{ name = "alpha", transform = "signed" }},
]

[cuts]
num_pixels = {{ min = 3 }}
con2 = {{ max = 1.0 }}

[model]
mode = "{mode}"
blocks = 4
hidden = [16]

[train]
epochs = 6
batch = 1024
learning_rate = 1e-2

[anomalies]
files = [{:?}]
generators = [{{ kind = "file" }}, {{ kind = "noise", weight = 0.1 }}]

{more}
"#,
            gamma.display().to_string(),
            anomaly.display().to_string()
        );
        std::fs::write(&configuration, text).expect("a configuration");
        configuration
    }
}

fn column(path: &Path, name: &str) -> Vec<f32> {
    let file = hdf5::File::open(path).expect("an event file");
    file.dataset(&format!("events/{name}")).and_then(|d| d.read_raw()).expect("a column")
}

fn keys(path: &Path, name: &str) -> Vec<i64> {
    let file = hdf5::File::open(path).expect("an event file");
    file.dataset(&format!("events/{name}")).and_then(|d| d.read_raw()).expect("a key")
}

fn median(mut values: Vec<f64>) -> f64 {
    values.retain(|x| x.is_finite());
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[test]
fn each_kind_changes_images_as_expected() {
    let case = GammaImages::new(3000);
    let own = case.extract(&case.gamma, "own");
    let of = |path: &Path, name: &str| column(path, name);
    let made = |way: &str| {
        let images = case.make(way, &["--mix", &format!("{way}=1")]);
        case.extract(&images, &format!("{way}-events"))
    };
    // Median ratio of a parameter after and before the change, over the changed images.
    let grown = |path: &Path, way: i64, name: &str| {
        let ways = keys(path, "anomaly");
        let (now, before) = (of(path, name), of(&own, name));
        let ratios = now.iter().zip(&before).zip(&ways).filter(|(_, w)| **w == way);
        let ratios: Vec<f64> = ratios.map(|((a, b), _)| f64::from(a / b)).collect();
        assert!(ratios.len() > 2000, "{} images", ratios.len());
        median(ratios)
    };
    let turned = made("turned");
    for name in ["size", "length", "width", "con2", "num_pixels"] {
        let [now, before] = [of(&turned, name), of(&own, name)]
            .map(|v| v.iter().map(|x| x.to_bits()).collect::<Vec<u32>>());
        assert!(now == before, "{name}: the image is unchanged");
    }
    let alpha = median(of(&turned, "alpha").iter().map(|x| f64::from(*x)).collect());
    let before = median(of(&own, "alpha").iter().map(|x| f64::from(*x)).collect());
    assert!(alpha > 25.0 && before < 15.0, "alpha {before} became {alpha}");

    let merged = made("merged");
    let islands = made("islands");
    let muon = made("muon");
    println!("                size  length   width    con2 islands");
    for (name, path, way) in [("merged", &merged, 1), ("islands", &islands, 2), ("muon", &muon, 3)]
    {
        let figures =
            ["size", "length", "width", "con2", "num_islands"].map(|q| grown(path, way, q));
        println!("{name:10} {figures:8.3?}");
    }
    // Two merged showers are brighter and wider than one, and less concentrated.
    assert!(grown(&merged, 1, "size") > 1.3 && grown(&merged, 1, "size") < 2.0);
    assert!(grown(&merged, 1, "width") > 1.05 && grown(&merged, 1, "con2") < 0.9);
    // Islands far from the image make it much longer and wider, and are counted.
    assert!(grown(&islands, 2, "length") > 1.5 && grown(&islands, 2, "width") > 1.2);
    assert!(grown(&islands, 2, "num_islands") >= 2.0);
    assert!(grown(&islands, 2, "con2") < 0.85);
    // A muon arc is light along its own line: longer, less concentrated.
    assert!(grown(&muon, 3, "length") > 1.2 && grown(&muon, 3, "con2") < 0.85);
    assert!(grown(&muon, 3, "size") > 1.1);
    for path in [&turned, &merged, &islands, &muon] {
        for key in ["run_id", "event_id", "axis_scatter"] {
            assert_eq!(keys(path, key), keys(&own, key), "a shower keeps its keys");
        }
    }
}

#[test]
fn image_bytes_depend_only_on_the_seed() {
    let case = GammaImages::new(2500);
    let one = case.make("one", &["--threads", "1"]);
    assert_eq!(hash(&case.make("two", &["--threads", "2"])), hash(&one));
    assert_ne!(hash(&case.make("other", &["--seed", "2"])), hash(&one));
    let ways = keys(&case.extract(&one, "events"), "anomaly");
    for way in 0..4 {
        let images = ways.iter().filter(|w| **w == way).count();
        assert!(images > 400, "{images} of way {way}");
    }
    let only =
        keys(&case.extract(&case.make("mix", &["--mix", "merged=1", "muon=3"]), "m"), "anomaly");
    // Images of three pixels or fewer are not changed.
    let of = |way: i64| only.iter().filter(|w| **w == way).count() as f64;
    assert!(of(2) == 0.0 && of(0) < 0.4 * only.len() as f64, "{}", of(0));
    let muons = of(3) / (of(1) + of(3));
    assert!((0.7..0.8).contains(&muons), "{muons}");
}

#[test]
fn unsuitable_images_and_mixes_are_refused() {
    let case = GammaImages::new(60);
    let refused = |more: &[&str], code: i32, expected: &str| {
        let output = case.path("refused");
        let mut command = program(&arguments!["anomalies", &case.gamma, "-o", &output]);
        let outcome = run(command.args(more));
        assert_eq!(outcome.code, Some(code), "{more:?}: {}", outcome.stderr);
        assert!(outcome.stderr.contains(expected), "{more:?}: {}", outcome.stderr);
    };
    refused(&["--mix", "merge=1"], 2, "turned, merged, islands or muon");
    refused(&["--mix", "muon=-1"], 2, "weights of anomalies");
    refused(&["--mix", "muon=0"], 2, "weights of anomalies");
    refused(&["--camera", "taiga-560"], 3, "does not match the images");
    let made = case.make("made", &[]);
    let outcome = run(&mut program(&arguments!["anomalies", &made, "-o", case.path("twice")]));
    assert_eq!(outcome.code, Some(3), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("already anomalies"), "{}", outcome.stderr);
    // Hadron images are not changed.
    let hadron = case.path("hadron.h5");
    simulate(&hadron, "hadron", 40, 3);
    let output = case.path("of-hadrons");
    let report = json(&arguments!["anomalies", &hadron, "-o", &output]);
    assert_eq!((report["images"].as_u64(), report["left_out"].as_u64()), (Some(0), Some(40)));
}

#[test]
fn image_anomaly_training_is_equal_on_any_ranks() {
    let case = GammaImages::new(6000);
    let gamma = case.extract(&case.gamma, "gammas");
    let anomaly = case.extract(&case.make("made", &[]), "anomalies");
    let hadrons = case.path("hadron.h5");
    simulate(&hadrons, "hadron", 1500, seed() + 1);
    let hadron = case.extract(&hadrons, "hadrons");
    for (mode, more) in [
        ("synthetic-ratio", ""),
        ("synthetic-push", "[fine_tune]\nepochs = 2\nweight = 0.5\nnll_bound = 50.0\n"),
    ] {
        let configuration = case.configuration(mode, &gamma, &anomaly, more);
        let train = |ranks: usize| {
            let output = case.path(&format!("{mode}-{ranks}"));
            train_on_threads(&training(&configuration, &[], &output), ranks);
            output.join("model.safetensors")
        };
        let model = train(1);
        assert_eq!(hash(&train(3)), hash(&model), "{mode}");
        let card = Model::load(&model).expect("a model").0.card;
        assert_eq!(card.training.data.len(), 2, "the card lists the anomaly file");
        let anomalies = card.training.anomalies.expect("settings of the anomalies");
        assert!(anomalies.files.is_empty(), "no paths");
        let evaluation = case.path(&format!("{mode}-evaluation"));
        let evaluate = |hadron: &Path, output: &Path| {
            json(&arguments![
                "evaluate", "-m", &model, "--gamma", &gamma, "--hadron", hadron, "-o", output
            ])
        };
        let report = evaluate(&hadron, &evaluation);
        let area = report["auc"]["value"].as_f64().expect("an AUC");
        println!("{mode}: AUC {area} against toy hadrons");
        assert!(area > 0.75, "{mode}: {area}");
        // Only the test part of training files is evaluated, also for anomalies: a fifth of the
        // three quarters of the images that have more than three pixels.
        let context = evaluate(&anomaly, &case.path(&format!("{mode}-anomalies")));
        let counts = [&context["counts"]["gamma"], &context["counts"]["hadron"]];
        let [gammas, anomalies] = counts.map(|n| n.as_f64().expect("a number"));
        assert!((0.1..0.2).contains(&(gammas / 6000.0)), "{gammas}");
        assert!((0.1..0.2).contains(&(anomalies / 6000.0)), "{anomalies}");
    }
}

#[test]
fn unusable_anomaly_files_are_refused() {
    let case = GammaImages::new(2000);
    let gamma = case.extract(&case.gamma, "gammas");
    let anomaly = case.extract(&case.make("made", &[]), "anomalies");
    let configuration = case.configuration("synthetic-ratio", &gamma, &anomaly, "");
    let refused = |set: &str, code: i32, expected: &str| {
        let output = case.path("refused");
        let outcome = run(&mut program(&arguments![
            "train",
            "-c",
            &configuration,
            "-o",
            &output,
            "--set",
            set
        ]));
        assert_eq!(outcome.code, Some(code), "{set}: {}", outcome.stderr);
        assert!(outcome.stderr.contains(expected), "{set}: {}", outcome.stderr);
    };
    refused("anomalies.files=[]", 2, "anomalies.files without a generator");
    refused("anomalies.generators=[{kind=\"noise\"}]", 2, "anomalies.files without a generator");
    refused("anomalies.files=[\"nowhere.h5\"]", 3, "nowhere.h5");
    refused(&format!("anomalies.files=[{:?}]", gamma.display().to_string()), 3, "the same file");
    let few = case.path("few.h5");
    simulate(&few, "gamma", 60, 9);
    let few = case.extract(&few, "few");
    refused(&format!("anomalies.files=[{:?}]", few.display().to_string()), 3, "too few events");
}
