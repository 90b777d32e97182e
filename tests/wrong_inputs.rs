//! Inputs that would give meaningless results are refused, or cause a warning that names them.
//! Examples are swapped roles, tiny samples, training events with another hash, and data unlike
//! the training data.

use crate::support::{
    Events, Outcome, arguments, configuration, folder, hash, json, program, ranks, run, seed,
    simulated, succeed, trained, tree,
};
use serde_json::Value;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use taiga_flow::config::Class;

const SHORT: &str = "[train]\nepochs = 1\nbatch = 512\nshards = 4\nlearning_rate = 1e-3\n";

fn train(configuration: &Path, output: &Path, more: &[&str]) -> Outcome {
    let mut all = Vec::from(arguments!["train", "-c", configuration, "-o", output]);
    all.extend(arguments!["--threads", "1"]);
    all.extend(more.iter().map(OsString::from));
    run(&mut program(&all))
}

#[track_caller]
fn refused(outcome: &Outcome, code: i32, parts: &[&str]) {
    assert_eq!(outcome.code, Some(code), "{}", outcome.stderr);
    for part in parts {
        assert!(outcome.stderr.contains(part), "no '{part}' in {}", outcome.stderr);
    }
}

#[test]
fn swapped_class_column_refuses_training() {
    let folder = folder();
    let hadron = simulated(folder.path().join("other.h5"), Class::Hadron, 1500, seed());
    let of_hadrons = configuration(folder.path(), &hadron, SHORT);
    let output = folder.path().join("run");
    let says = ["wholly of the other class", "other.h5", "gammas", "1500", "data.mixed"];
    refused(&train(&of_hadrons, &output, &[]), 3, &says);
    refused(&train(&of_hadrons, &output, &["--dry-run"]), 3, &says);
    let both = ["--set", "model.mode=ratio"];
    let gamma = simulated(folder.path().join("gamma.h5"), Class::Gamma, 1500, seed());
    let hadrons = format!("data.hadron=[{:?}]", gamma.display().to_string());
    let with_both = [both[0], both[1], "--set", &hadrons, "--set"];
    let gammas = format!("data.gamma=[{:?}]", hadron.display().to_string());
    let swapped = [with_both.as_slice(), &[gammas.as_str()]].concat();
    refused(&train(&of_hadrons, &output, &swapped), 3, &["wholly of the other class"]);
    let over_ranks = arguments!["train", "-c", &of_hadrons, "-o", &output, "--threads", "1"];
    refused(&run(&mut ranks(2, &over_ranks)), 3, &says);
    // A mixed file given as gammas causes a warning; given as mixed it does not.
    let mut mixed = Events::read(&gamma);
    mixed.class[..300].fill(Class::Hadron.code());
    let path = folder.path().join("mixed.h5");
    mixed.write(&path);
    let set = format!("data.gamma=[{:?}]", path.display().to_string());
    let warned = train(&of_hadrons, &folder.path().join("warned"), &["--set", &set]);
    assert_eq!(warned.code, Some(0), "{}", warned.stderr);
    assert!(warned.stderr.contains("300 of 1500 rows are hadrons"), "{}", warned.stderr);
    let set = format!("data.mixed=[{:?}]", path.display().to_string());
    let set = ["--set", "data.gamma=[]", "--set", &set];
    let quiet = train(&of_hadrons, &folder.path().join("quiet"), &set);
    assert_eq!(quiet.code, Some(0), "{}", quiet.stderr);
    assert!(!quiet.stderr.contains("rows are hadrons"), "{}", quiet.stderr);
}

#[test]
fn few_events_are_refused_unless_allowed() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    let few = simulated(at("few.h5"), Class::Gamma, 50, seed());
    let of_few = configuration(folder.path(), &few, SHORT);
    let says = ["too few gamma events", "at least 50", "--allow-few-events"];
    refused(&train(&of_few, &at("few"), &[]), 3, &says);
    refused(&train(&of_few, &at("few"), &["--dry-run"]), 3, &["at least 50", "at most 35"]);
    let allowed = train(&of_few, &at("few"), &["--allow-few-events"]);
    assert_eq!(allowed.code, Some(0), "{}", allowed.stderr);
    assert!(allowed.stderr.contains("parameters: fewer than a tenth"), "{}", allowed.stderr);
    // Enough to train on, but only about 6 events for the threshold.
    let more = simulated(at("more.h5"), Class::Gamma, 120, seed());
    let set = format!("data.gamma=[{:?}]", more.display().to_string());
    let says = ["too few events to choose a threshold", "at least 20 gamma", "validation part"];
    let sets = [&set, "split.train=0.8", "split.validation=0.05", "split.test=0.15"];
    let sets = sets.map(|set| ["--set", set]).concat();
    refused(&train(&of_few, &at("more"), &sets), 3, &says);
    let grid = arguments!["sweep", "-c", &of_few, "-o", &at("sweep"), "--grid", "model.hidden=[8]"];
    let grid = [&grid[..], &sets.iter().map(OsString::from).collect::<Vec<_>>()].concat();
    refused(&run(&mut program(&grid)), 4, &["too few events to choose"]);
    let point = [grid.as_slice(), &arguments!["--point", "0"]].concat();
    refused(&run(&mut program(&point)), 3, &["too few events to choose"]);
    let waived = [grid.as_slice(), &arguments!["--allow-few-events"]].concat();
    succeed(&mut program(&waived));
    // The flag does not change a model.
    let enough = simulated(at("enough.h5"), Class::Gamma, 1000, seed());
    let set = format!("data.gamma=[{:?}]", enough.display().to_string());
    let of = |name: &str, more: &[&str]| {
        let outcome = train(&of_few, &at(name), &[&["--set", set.as_str()], more].concat());
        assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
        hash(&at(name).join("model.safetensors"))
    };
    assert_eq!(of("one", &[]), of("other", &["--allow-few-events"]));
}

/// Evaluates gammas together with the hadrons of the trained model.
fn evaluate(folder: &Path, name: &str, gamma: &Path, more: &[&str]) -> Value {
    let trained = trained();
    let mut all = Vec::from(arguments!["evaluate", "-m", &trained.model, "--gamma", gamma]);
    all.extend(arguments!["--hadron", &trained.hadron, "-o", &folder.join(name)]);
    all.extend(more.iter().map(OsString::from));
    json(&all)
}

fn gammas(evaluation: &Value) -> u64 {
    evaluation["about"]["files"][0]["gamma"].as_u64().expect("a count")
}

fn warnings(evaluation: &Value) -> String {
    evaluation["warnings"].to_string()
}

#[test]
fn training_events_in_another_file_are_known() {
    let (trained, folder) = (trained(), folder());
    let at = |name: &str| folder.path().join(name);
    let known = evaluate(folder.path(), "known", &trained.gamma, &[]);
    let events = Events::read(&trained.gamma);
    let backwards: Vec<usize> = (0..events.rows()).rev().collect();
    let copy = at("copy.h5");
    events.chosen(&backwards).write(&copy);
    assert_ne!(hash(&copy), hash(&trained.gamma));
    let found = evaluate(folder.path(), "copy", &copy, &[]);
    assert_eq!(gammas(&found), gammas(&known));
    assert_eq!(found["auc"]["value"], known["auc"]["value"]);
    let text = warnings(&found);
    assert!(text.contains("copy.h5") && text.contains("another hash"), "{text}");
    assert!(text.contains("--part all"), "{text}");
    // The result is equal on any number of ranks. With `--part all` there is no warning.
    let over_ranks = arguments![
        "evaluate",
        "-m",
        &trained.model,
        "--gamma",
        &copy,
        "--hadron",
        &trained.hadron,
        "-o",
        &at("ranks"),
        "--threads",
        "1"
    ];
    succeed(&mut ranks(2, &over_ranks));
    let read = |name: &str| std::fs::read(at(name).join("evaluation.json")).expect("it");
    assert_eq!(read("ranks"), read("copy"));
    let all = evaluate(folder.path(), "all", &copy, &["--part", "all"]);
    assert!(gammas(&all) > 4 * gammas(&known) && warnings(&all).contains("another hash"));
    // A tenth of the file is enough to be noticed.
    let fresh = simulated(at("fresh.h5"), Class::Gamma, 9000, seed() + 77);
    let unseen = evaluate(folder.path(), "fresh", &fresh, &[]);
    assert!(!warnings(&unseen).contains("training events"), "{}", warnings(&unseen));
    assert!(!warnings(&unseen).contains("unlike"), "{}", warnings(&unseen));
    let mut partly = Events::read(&fresh);
    let some = events.chosen(&(0..1000).collect::<Vec<_>>());
    for ((_, values), (_, more)) in partly.keys.iter_mut().zip(&some.keys) {
        values.extend(more);
    }
    for (name, values) in &mut partly.features {
        let more = some.features.iter().find(|(known, _)| known == name).expect("a feature");
        values.extend(&more.1);
    }
    partly.class.extend(&some.class);
    partly.write(&at("partly.h5"));
    let found = evaluate(folder.path(), "partly", &at("partly.h5"), &[]);
    assert!(warnings(&found).contains("partly.h5"), "{}", warnings(&found));
    // Known keys with other values are reported as such. Known values with other keys cannot be
    // assigned to the test part.
    let mut other = events.clone();
    other.feature("size").iter_mut().for_each(|x| *x *= 1.01);
    other.write(&at("other.h5"));
    let found = evaluate(folder.path(), "other", &at("other.h5"), &[]);
    assert!(warnings(&found).contains("other values"), "{}", warnings(&found));
    let mut renamed = events.clone();
    let runs = renamed.keys.iter_mut().find(|(name, _)| name == "run_id").expect("runs");
    runs.1.iter_mut().for_each(|run| *run += 7_000_000_000_000);
    renamed.write(&at("renamed.h5"));
    let outcome = run(&mut program(&arguments![
        "evaluate",
        "-m",
        &trained.model,
        "--gamma",
        &at("renamed.h5"),
        "--hadron",
        &trained.hadron,
        "-o",
        &at("renamed")
    ]));
    let says = ["trained on events of this file", "renamed.h5", "under other keys", "--part all"];
    refused(&outcome, 3, &says);
}

/// Writes gammas with sizes and shapes far from those of the training telescope.
fn of_larger_telescope(gamma: &Path, output: PathBuf) -> PathBuf {
    let mut events = Events::read(gamma);
    events.feature("size").iter_mut().for_each(|x| *x *= 30.0);
    for name in ["width", "length"] {
        events.feature(name).iter_mut().for_each(|x| *x *= 30.0);
    }
    events.write(&output);
    output
}

#[test]
fn data_unlike_training_are_warned_of_or_refused() {
    let (trained, folder) = (trained(), folder());
    let at = |name: &str| folder.path().join(name);
    let fresh = simulated(at("fresh.h5"), Class::Gamma, 4000, seed() + 78);
    let other = of_larger_telescope(&fresh, at("other.h5"));
    let usual = evaluate(folder.path(), "usual", &fresh, &["--strict"]);
    assert!(!warnings(&usual).contains("unlike"), "{}", warnings(&usual));
    let unlike = evaluate(folder.path(), "unlike", &other, &[]);
    let text = warnings(&unlike);
    for part in ["gammas: ", "unlike", "width far outside", "log p below"] {
        assert!(text.contains(part), "no '{part}' in {text}");
    }
    let strict = run(&mut program(&arguments![
        "evaluate",
        "-m",
        &trained.model,
        "--gamma",
        &other,
        "--hadron",
        &trained.hadron,
        "-o",
        &at("strict"),
        "--strict"
    ]));
    refused(&strict, 3, &["unlike", "width", "--strict"]);
    assert!(!at("strict").join("evaluation.json").exists());
    // `--strict` does not change scores. Hadrons cause no warning for a flow of gammas.
    let score = |name: &str, more: &[&str]| {
        let mut all = Vec::from(arguments!["score", "-m", &trained.model, "-o", &at(name)]);
        all.extend(arguments![&other, &fresh, &trained.hadron, "--threads", "1"]);
        all.extend(more.iter().map(OsString::from));
        run(&mut program(&all))
    };
    let scored = score("scores", &[]);
    assert_eq!(scored.code, Some(0), "{}", scored.stderr);
    let alarms: Vec<&str> = scored.stderr.lines().filter(|l| l.contains("unlike")).collect();
    assert_eq!(alarms.len(), 1, "{}", scored.stderr);
    assert!(alarms[0].contains("other.h5") && alarms[0].contains("log p"), "{alarms:?}");
    refused(&score("strict-scores", &["--strict"]), 4, &["other.h5"]);
    let (all, strict) = (tree(&at("scores")), tree(&at("strict-scores")));
    assert!(!strict.contains_key("other.h5"));
    assert!(["fresh.h5", "hadron.h5"].iter().all(|name| all[*name] == strict[*name]));
}

/// Trains with anomalies of which many drafts are impossible, with a limited number of attempts,
/// and returns the epochs. The weights hardly change.
fn epochs(folder: &Path, mode: &str, attempts: u64, more: &str) -> Vec<Value> {
    let gamma = folder.join("gamma.h5");
    if !gamma.exists() {
        simulated(gamma.clone(), Class::Gamma, 20_000, seed());
    }
    let anomalies = format!(
        "[train]\nepochs = 1\nbatch = 20000\nlearning_rate = 1e-9\nwarm_up = 0.0\n{more}\n\
         [anomalies]\nattempts = {attempts}\ngenerators = [{{ kind = \"noise\", spread = 2.0 }}]\n"
    );
    let path = configuration(folder, &gamma, &anomalies);
    let output = folder.join(format!("{mode}-{attempts}"));
    let set = format!("model.mode={mode}");
    let outcome = train(&path, &output, &["--set", &set]);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    let lines = std::fs::read_to_string(output.join("metrics.jsonl")).expect("metrics");
    lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

#[test]
fn impossible_drafts_do_not_thin_the_loss() {
    let folder = folder();
    // The training NLL is a mean over the anomalies, like the held-out NLL.
    for attempts in [1, 100] {
        let epoch = epochs(folder.path(), "synthetic-ratio", attempts, "").remove(0);
        let flow = &epoch["flows"][1];
        let [train, held_out] =
            ["train_nll", "validation_nll"].map(|key| flow[key].as_f64().expect("an NLL"));
        assert_eq!(flow["flow"], "anomaly");
        // 4 in 10 of the 2000 held-out drafts are possible; their NLLs spread by some 10 nats
        // around 17.
        assert!((train - held_out).abs() < 2.0, "{attempts}: {train} and {held_out}");
    }
    // The weight of anomalies does not depend on the number of possible drafts.
    let push = "[fine_tune]\nepochs = 1\nlearning_rate = 1e-9\nweight = 30.0\nramp = 0.0\n\
                nll_bound = 1000.0\n";
    let norm = |attempts: u64| {
        let all = epochs(folder.path(), "synthetic-push", attempts, push);
        assert_eq!(all[1]["stage"], "push");
        all[1]["gradient_norm"].as_f64().expect("a norm")
    };
    let (few, many) = (norm(1), norm(100));
    println!("norms {few} and {many}");
    assert!((few / many - 1.0).abs() < 0.1, "{few} and {many}");
}

/// A change of a feature.
type Change = fn(f32) -> f32;

/// Writes toy gammas with one feature changed.
fn with_feature(path: PathBuf, name: &str, change: impl Fn(f32) -> f32) -> PathBuf {
    let gamma = simulated(path.with_extension("toy.h5"), Class::Gamma, 1500, seed());
    let mut events = Events::read(&gamma);
    events.feature(name).iter_mut().for_each(|x| *x = change(*x));
    events.write(&path);
    path
}

#[test]
fn impossible_values_refuse_training_warn_score() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    let good = simulated(at("good.h5"), Class::Gamma, 1500, seed());
    let of_good = configuration(folder.path(), &good, SHORT);
    let model = &trained().model;
    let cases: [(&str, Change, &str); 4] = [
        ("width", |x| 10.0 * x, "a median from 0.005 to 0.4 deg"),
        ("alpha", f32::to_radians, "radians"),
        ("dist", f32::to_radians, "a median from 0.05"),
        ("size", f32::log10, "p.e."),
    ];
    for (name, change, says) in cases {
        let wrong = with_feature(at(&format!("{name}.h5")), name, change);
        let set = format!("data.gamma=[{:?}]", wrong.display().to_string());
        let texts = &[name, says];
        let output = at("refused");
        // The cut on the size would remove all events whose size is a logarithm.
        let sets = ["--set", set.as_str(), "--set", "cuts.size.min=0"];
        refused(&train(&of_good, &output, &sets), 3, texts);
        refused(&train(&of_good, &output, &[&sets[..], &["--dry-run"]].concat()), 3, texts);
        assert!(!output.join("model.safetensors").exists());
        let scored = run(&mut program(&arguments![
            "score",
            &wrong,
            "-m",
            model,
            "-o",
            &at(&format!("{name}-scores"))
        ]));
        assert_eq!(scored.code, Some(0), "{}", scored.stderr);
        assert!(scored.stderr.contains(says), "{name}: {}", scored.stderr);
        let manifest = at(&format!("{name}-scores/manifest.json"));
        let manifest = std::fs::read_to_string(manifest).expect("a manifest");
        let manifest: Value = serde_json::from_str(&manifest).expect("JSON");
        assert!(manifest["files"][0]["warnings"].to_string().contains(says), "{manifest}");
        let none = scored.stderr.contains("no row is inside the model's cuts");
        assert_eq!(none, name == "size", "{name}: {}", scored.stderr);
    }
}

#[test]
fn constant_image_quantity_is_warned_of() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    let wrong = with_feature(at("constant.h5"), "width", |_| 0.12);
    let says = "'width': expected values that differ from image to image";
    let printed = evaluate(folder.path(), "evaluation", &wrong, &[]);
    assert!(warnings(&printed).contains(says), "{}", warnings(&printed));
    let score = arguments!["score", "-m", &trained().model, "-o", &at("scores"), &wrong];
    let scored = run(&mut program(&score));
    assert!(scored.code == Some(0) && scored.stderr.contains(says), "{}", scored.stderr);
    let good = evaluate(folder.path(), "good", &trained().gamma, &[]);
    assert!(!warnings(&good).contains("image to image"), "{}", warnings(&good));
}

#[test]
fn quantities_of_simulations_are_warned_of() {
    let folder = folder();
    let gamma = simulated(folder.path().join("gamma.h5"), Class::Gamma, 1500, seed());
    let configuration = configuration(folder.path(), &gamma, SHORT);
    let output = folder.path().join("run");
    let bins = "thresholds={per=\"log10(energy)\",edges=[1.0],few=\"global\"}";
    let cases = [("cuts.energy.min=0.1", "[cuts]"), (bins, "thresholds.per")];
    for (set, place) in cases {
        let says = format!("only simulations have: energy in {place}");
        for more in [&["--dry-run"][..], &["--overwrite"]] {
            let printed = train(&configuration, &output, &[&["--set", set], more].concat());
            assert_eq!(printed.code, Some(0), "{}", printed.stderr);
            assert!(printed.stderr.contains(&says), "no '{says}' in {}", printed.stderr);
        }
    }
    // Only labelled events have weights.
    let printed = train(&configuration, &output, &["--dry-run", "--set", "data.weight=\"energy\""]);
    assert!(!printed.stderr.contains("only simulations have"), "{}", printed.stderr);
}

/// Returns the `--set` values of a ratio training of two files.
fn ratio_of(gamma: &Path, hadron: &Path) -> Vec<String> {
    let files = |name: &str, path: &Path| format!("data.{name}=[{:?}]", path.display().to_string());
    let mode = "model.mode=ratio".to_string();
    let sets = [files("gamma", gamma), files("hadron", hadron), mode];
    sets.into_iter().flat_map(|set| ["--set".to_string(), set]).collect()
}

#[test]
fn weights_that_leave_no_events_are_refused() {
    let (trained, folder) = (trained(), folder());
    let at = |name: &str| folder.path().join(name);
    let weighted = |name: &str, weight: &str| {
        let all = arguments![
            "evaluate",
            "-m",
            &trained.model,
            "--gamma",
            &trained.gamma,
            "--hadron",
            &trained.hadron,
            "-o",
            &at(name),
            "--weight",
            weight
        ];
        run(&mut program(&all))
    };
    refused(&weighted("zero", "0*dist"), 3, &["all weights of the gammas are 0", "0*dist"]);
    assert!(!at("zero").exists());
    assert_eq!(weighted("even", "1 + dist").code, Some(0));
    // A weight that few events have: a ratio cannot be calibrated, which is detected at the start.
    let gamma = simulated(at("gamma.h5"), Class::Gamma, 3000, seed());
    let hadron = simulated(at("hadron.h5"), Class::Hadron, 3000, seed() + 1);
    let configuration = configuration(folder.path(), &gamma, SHORT);
    let mut sets = ratio_of(&gamma, &hadron);
    let uneven = ["--set", "data.weight=\"size^6\""].map(str::to_string);
    let with = |more: &[&str]| {
        let sets: Vec<&str> = sets.iter().chain(&uneven).map(String::as_str).collect();
        train(&configuration, &at("run"), &[&sets[..], more].concat())
    };
    for more in [&["--dry-run"][..], &[]] {
        let outcome = with(more);
        refused(&outcome, 3, &["too few held-out events to calibrate", "effective"]);
        assert!(!outcome.stderr.contains("epoch 1"), "{}", outcome.stderr);
    }
    sets.extend(["--set", "data.weight=\"1 + dist\""].map(str::to_string));
    let sets: Vec<&str> = sets.iter().map(String::as_str).collect();
    let trained = train(&configuration, &at("run"), &sets);
    assert_eq!(trained.code, Some(0), "{}", trained.stderr);
    // The reported likelihood is the sum of both flows.
    assert!(trained.stdout.contains(", the sum over 2 flows"), "{}", trained.stdout);
    assert!(trained.stderr.contains(" (sums over 2 flows)"), "{}", trained.stderr);
}

#[test]
fn file_of_two_roles_is_named_with_both() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    let gamma = simulated(at("gamma.h5"), Class::Gamma, 1500, seed());
    let configuration = configuration(folder.path(), &gamma, SHORT);
    let sets = ratio_of(&gamma, &gamma);
    let sets: Vec<&str> = sets.iter().map(String::as_str).collect();
    let says = ["data.gamma and data.hadron have the same file", "gamma.h5"];
    refused(&train(&configuration, &at("run"), &sets), 3, &says);
    let evaluate = arguments![
        "evaluate",
        "-m",
        &trained().model,
        "--gamma",
        &gamma,
        "--hadron",
        &gamma,
        "-o",
        &at("e")
    ];
    refused(&run(&mut program(&evaluate)), 3, &["--gamma and --hadron have the same file"]);
    assert!(!at("e").exists());
}

#[test]
fn events_of_unknown_class_are_excluded() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    let mut events = Events::read(&simulated(at("toy.h5"), Class::Gamma, 600, seed() + 9));
    events.class.iter_mut().take(70).for_each(|class| *class = -1);
    events.class.iter_mut().skip(300).for_each(|class| *class = 0);
    let path = at("mixed.h5");
    events.write(&path);
    let of = |input: &str, name: &str| {
        let mut all = Vec::from(arguments!["evaluate", "-m", &trained().model, "-o", &at(name)]);
        if !input.is_empty() {
            all.push(input.into());
        }
        all.push(path.clone().into());
        all.extend(arguments!["--hadron", &trained().hadron]);
        json(&all)["about"]["files"][0]["unusable"].clone()
    };
    let mixed = of("", "mixed");
    assert_eq!(mixed["of unknown class"], 70, "{mixed}");
    assert!(mixed["of another class"].is_null(), "{mixed}");
    let given = of("--gamma", "given");
    assert_eq!(given["of another class"], 300, "{given}");
    assert!(given["of unknown class"].is_null(), "{given}");
}

#[test]
fn mislabelled_and_exchanged_classes_are_found() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    let gamma = simulated(at("gamma.h5"), Class::Gamma, 3000, seed());
    let hadron = simulated(at("hadron.h5"), Class::Hadron, 3000, seed() + 1);
    let of_gamma = configuration(folder.path(), &gamma, SHORT);
    let unknown = |path: &Path, class: Class| {
        let mut events = Events::read(path);
        events.class.fill(-1);
        let path = at(&format!("unknown-{class}.h5"));
        events.write(&path);
        path
    };
    // Half of the hadrons are gammas with new keys.
    let [mut some, others] = [&gamma, &hadron].map(|path| Events::read(path));
    let half: Vec<usize> = (0..1500).collect();
    some = some.chosen(&half);
    for (name, values) in &mut some.features {
        let own = others.features.iter().find(|(known, _)| known == name).expect("a feature");
        values.extend(&own.1[..1500]);
    }
    some.keys.iter_mut().for_each(|(_, values)| *values = (5_000_000..5_003_000).collect());
    some.class = vec![Class::Hadron.code(); 3000];
    some.write(&at("half.h5"));
    let ratio = |gamma: &Path, hadron: &Path, output: &str| {
        let list = |path: &Path| format!("[{:?}]", path.display().to_string());
        let sets = [
            "model.mode=ratio".to_string(),
            format!("data.gamma={}", list(gamma)),
            format!("data.hadron={}", list(hadron)),
        ];
        let sets: Vec<&str> = sets.iter().flat_map(|set| ["--set", set.as_str()]).collect();
        train(&of_gamma, &at(output), &sets)
    };
    let says = ["gammas and hadrons share events", " % of the events of the smaller class"];
    let check = |gamma: &Path, hadron: &Path, more: &[OsString]| {
        let files = arguments!["check", "--gamma", gamma, "--hadron", hadron];
        run(&mut program(&[files.as_slice(), more].concat()))
    };
    refused(&ratio(&gamma, &at("half.h5"), "half"), 3, &says);
    let checked = check(&gamma, &at("half.h5"), &[]);
    assert_eq!(checked.code, Some(3), "{}", checked.stderr);
    for part in says.iter().chain(&["half.h5"]) {
        assert!(checked.stdout.contains(part), "no '{part}' in {}", checked.stdout);
    }
    let configured = check(&gamma, &at("half.h5"), &arguments!["-c", &of_gamma]);
    assert_eq!(configured.code, Some(3), "{}", configured.stdout);
    let swapped = "exchanged?";
    let outcome = ratio(&gamma, &hadron, "good");
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    assert!(!outcome.stderr.contains(swapped), "{}", outcome.stderr);
    let printed = outcome.stderr.matches("computing on the CPU").count();
    assert!(printed <= 1, "{}", outcome.stderr);
    let checked = check(&gamma, &hadron, &[]);
    assert_eq!(checked.code, Some(0), "{}", checked.stdout);
    assert!(!checked.stdout.contains(swapped), "{}", checked.stdout);
    let (gamma, hadron) = (unknown(&gamma, Class::Gamma), unknown(&hadron, Class::Hadron));
    let outcome = ratio(&hadron, &gamma, "swapped");
    assert!(outcome.stderr.contains(swapped), "{}", outcome.stderr);
    let unlabelled = "3000 of 3000 rows have no class in the class column, and count as gammas";
    assert!(outcome.stderr.contains(unlabelled), "{}", outcome.stderr);
    let checked = check(&hadron, &gamma, &[]);
    assert_eq!(checked.code, Some(0), "{}", checked.stdout);
    for part in [swapped, "--gamma and --hadron", unlabelled] {
        assert!(checked.stdout.contains(part), "no '{part}' in {}", checked.stdout);
    }
}

#[test]
fn duplicate_events_are_warned_of_in_evaluations() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    let gamma = simulated(at("gamma.h5"), Class::Gamma, 600, seed() + 7);
    let hadron = simulated(at("hadron.h5"), Class::Hadron, 600, seed() + 8);
    let again: Vec<usize> = (100..140).collect();
    Events::read(&gamma).chosen(&again).write(&at("again.h5"));
    let evaluated = |files: &[&Path], output: &str| {
        let mut all = Vec::from(arguments!["evaluate", "-m", &trained().model]);
        all.extend(files.iter().map(OsString::from));
        all.extend(arguments!["-o", &at(output)]);
        let outcome = run(&mut program(&all));
        assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
        outcome.stdout
    };
    let text = evaluated(&[&gamma, &hadron, &at("again.h5")], "twice");
    for part in ["duplicate events", "40 rows", "again.h5", "errors of all figures"] {
        assert!(text.contains(part), "no '{part}' in {text}");
    }
    let text = evaluated(&[&gamma, &hadron], "once");
    assert!(!text.contains("duplicate") && !text.contains("copies"), "{text}");
    // The same rows under other keys.
    let mut renamed = Events::read(&gamma).chosen(&(0..300).collect::<Vec<usize>>());
    for (_, values) in &mut renamed.keys {
        values.iter_mut().for_each(|value| *value += 1_000_000);
    }
    renamed.write(&at("renamed.h5"));
    let text = evaluated(&[&gamma, &hadron, &at("renamed.h5")], "renamed");
    assert!(text.contains("copies with other keys?"), "{text}");
}

#[test]
fn copies_without_keys_refuse_training() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    let without_keys = |name: &str, rows: &[usize]| {
        let mut events = Events::read(&trained().gamma).chosen(rows);
        events.keys.clear();
        events.write(&at(name));
        at(name)
    };
    let all: Vec<usize> = (0..2000).collect();
    let of = |repeated: usize| {
        let rows = [&all[..], &all[..repeated]].concat();
        let file = without_keys(&format!("{repeated}.h5"), &rows);
        let path = at(&format!("of-{repeated}"));
        std::fs::create_dir_all(&path).expect("a folder");
        configuration(&path, &file, SHORT)
    };
    let allow = ["--set", "data.allow_repeated_events=true"];
    let (few, many) = (of(10), of(1000));
    assert_eq!(train(&few, &at("few"), &[]).code, Some(0));
    refused(&train(&many, &at("many"), &[]), 3, &["duplicate events", "allow_repeated_events"]);
    assert_eq!(train(&many, &at("allowed"), &allow).code, Some(0));
}

#[test]
fn copies_of_a_file_are_not_evaluated() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    let gamma = simulated(at("gamma.h5"), Class::Gamma, 600, seed() + 9);
    let hadron = simulated(at("hadron.h5"), Class::Hadron, 600, seed() + 10);
    // Without keys, events cannot be identified.
    for path in [&gamma, &hadron] {
        let mut events = Events::read(path);
        std::fs::remove_file(path).expect("a file to replace");
        events.keys.clear();
        events.class.fill(-1);
        events.write(path);
    }
    std::fs::copy(&gamma, at("copy.h5")).expect("a copy");
    let evaluated = |gammas: &[&Path], hadrons: &[&Path], output: &str| {
        let mut all = Vec::from(arguments!["evaluate", "-m", &trained().model]);
        for (option, files) in [("--gamma", gammas), ("--hadron", hadrons)] {
            all.push(option.into());
            all.extend(files.iter().map(OsString::from));
        }
        all.extend(arguments!["-o", &at(output)]);
        all
    };
    let says = ["two files have the same content", "copy.h5", "gamma.h5", "count twice"];
    let twice = evaluated(&[&gamma, &at("copy.h5")], &[&hadron], "twice");
    refused(&run(&mut program(&twice)), 3, &says);
    let both = evaluated(&[&gamma], &[&at("copy.h5")], "both");
    let says = [says.as_slice(), &["given as gammas and here as hadrons"]].concat();
    refused(&run(&mut program(&both)), 3, &says);
    refused(&run(&mut ranks(2, &both)), 3, &says);
    let good = succeed(&mut program(&evaluated(&[&gamma], &[&hadron], "good")));
    let unlabelled = "600 of 600 rows have no class in the class column, and count as hadrons";
    assert!(good.stdout.contains(unlabelled), "{}", good.stdout);
    assert!(!at("twice").exists() && !at("both").exists());
}

#[test]
fn excluded_events_are_reported_by_class() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    let gamma = simulated(at("gamma.h5"), Class::Gamma, 600, seed() + 11);
    let mut gammas = Events::read(&gamma);
    gammas.feature("width")[..90].fill(f32::NAN);
    gammas.feature("size")[90..].iter_mut().for_each(|size| *size = size.max(61.0));
    gammas.write(&at("gammas.h5"));
    let hadron = simulated(at("hadron.h5"), Class::Hadron, 1000, seed() + 12);
    let mut hadrons = Events::read(&hadron);
    let sizes = hadrons.feature("size");
    sizes[..4].fill(500.0);
    sizes[4..].fill(20.0);
    hadrons.write(&at("hadrons.h5"));
    let command = arguments![
        "evaluate",
        "-m",
        &trained().model,
        "--gamma",
        &at("gammas.h5"),
        "--hadron",
        &at("hadrons.h5"),
        "-o",
        &at("evaluation")
    ];
    let text = succeed(&mut program(&command)).stdout;
    for part in [
        "Only 4 of 1000 hadrons (0.40 %) are evaluated: 996 outside the cuts",
        "90 of 600 gammas (15.00 %) have values that are not finite",
        "996: outside the cuts (0 gammas, 996 hadrons)",
    ] {
        assert!(text.contains(part), "no '{part}' in {text}");
    }
    let text = std::fs::read_to_string(at("evaluation/evaluation.json")).expect("an evaluation");
    let evaluation: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(evaluation["left_out"]["outside the cuts"]["hadron"], 996);
    let over_ranks = [&command[..], &arguments!["--overwrite"]].concat();
    succeed(&mut ranks(2, &over_ranks));
    let again = std::fs::read_to_string(at("evaluation/evaluation.json")).expect("an evaluation");
    assert_eq!(again, text);
}

/// Evaluates gammas and hadrons with the shared model.
fn evaluation(gamma: &Path, hadron: &Path, output: &Path, more: &[&str]) -> Vec<OsString> {
    let model = &trained().model;
    let all = arguments!["evaluate", "-m", model, "--gamma", gamma, "--hadron", hadron];
    let more = more.iter().map(OsString::from);
    all.into_iter().chain(arguments!["-o", output]).chain(more).collect()
}

#[test]
fn events_of_both_classes_are_not_evaluated() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    let gamma = simulated(at("gamma.h5"), Class::Gamma, 3000, seed() + 11);
    let hadron = simulated(at("hadron.h5"), Class::Hadron, 3000, seed() + 12);
    // The same keys and values, as in a copy with another attribute and without classes.
    let mut copy = Events::read(&gamma);
    copy.class.fill(-1);
    copy.write(&at("copy.h5"));
    // Some hadrons are gammas with their keys.
    let mut some = Events::read(&gamma).chosen(&(0..1000).collect::<Vec<usize>>());
    let others = Events::read(&hadron);
    for (name, values) in &mut some.features {
        let own = others.features.iter().find(|(known, _)| known == name).expect("a feature");
        values.extend(&own.1[..2000]);
    }
    for (name, values) in &mut some.keys {
        values.extend(&others.key(name)[..2000]);
    }
    some.class = vec![-1; 3000];
    some.write(&at("some.h5"));
    let says = ["gammas and hadrons share events", " % of the events of the smaller class"];
    for name in ["copy", "some"] {
        let both = evaluation(&gamma, &at(&format!("{name}.h5")), &at(name), &[]);
        refused(&run(&mut program(&both)), 3, &says);
        refused(&run(&mut ranks(2, &both)), 3, &says);
        assert!(!at(name).exists());
    }
    succeed(&mut program(&evaluation(&gamma, &hadron, &at("good"), &[])));
}

#[test]
fn extreme_weights_refused_before_writing() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    let gamma = simulated(at("gamma.h5"), Class::Gamma, 600, seed() + 13);
    let hadron = simulated(at("hadron.h5"), Class::Hadron, 600, seed() + 14);
    for (weight, size) in [("1e300", "large"), ("1e-310", "small"), ("1e-200", "small")] {
        let output = at(&format!("weight-{weight}"));
        let outcome =
            run(&mut program(&evaluation(&gamma, &hadron, &output, &["--weight", weight])));
        let what = format!("the weights of the gammas are too {size}");
        refused(&outcome, 3, &[what.as_str(), "sum of squared weights", weight]);
        assert!(!output.exists());
    }
    let usable = evaluation(&gamma, &hadron, &at("usable"), &["--weight", "1e100"]);
    succeed(&mut program(&usable));
}
