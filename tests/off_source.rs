//! Hadrons from experimental files: no artificial hole, a stated gamma contamination, no event
//! scored by a model trained on its run, and early reports of differences between simulation and
//! data.

use crate::support::nights::{self, Cuts};
use crate::support::{
    Events, arguments, folder, hash, json, program, ranks, run, seed, simulated, succeed, text,
    train_on_threads, training,
};
use std::path::{Path, PathBuf};
use taiga_flow::config::Class;
use taiga_flow::model::{Card, Model, OffSourceCard};
use taiga_flow::simulate::toy::ToyEvent;

const RUNS: i64 = 12;
const HADRONS: u64 = 2500; // per run
const GAMMAS: u64 = 250;
const EXCLUDED: f64 = 0.1; // deg²
/// Runs that are in no training.
const NEW_RUNS: i64 = 6;
const FIRST_NEW_RUN: i64 = 9_100_000_000;

struct Season {
    folder: tempfile::TempDir,
    files: Vec<PathBuf>,
    gamma: PathBuf,
    /// Share of gammas among the events that are not near the source.
    contamination: f64,
}

type Column = fn(&ToyEvent) -> f32;

const COLUMNS: [(&str, Column); 12] = [
    ("size", |e| e.size),
    ("length", |e| e.length),
    ("width", |e| e.width),
    ("dist", |e| e.dist),
    ("alpha", |e| e.alpha),
    ("con2", |e| e.con2),
    ("skewness", |e| e.skewness),
    ("xc", |e| e.xc),
    ("yc", |e| e.yc),
    ("axis", |e| e.axis),
    ("source_x", |e| e.source_x),
    ("source_y", |e| e.source_y),
];

fn write(path: &Path, events: &[ToyEvent], run: i64, class: i8) {
    let rows = events.len();
    let keys = vec![
        ("run_id".to_string(), vec![run; rows]),
        ("event_id".to_string(), (0..rows as i64).collect()),
    ];
    let column = |(name, of): &(&str, Column)| {
        ((*name).to_string(), events.iter().map(of).collect::<Vec<f32>>())
    };
    let features = COLUMNS.iter().map(column).collect();
    Events { keys, features, class: vec![class; rows] }.write(path);
}

impl Season {
    /// Writes runs of hadrons of unknown class that contain gammas of the source.
    fn new() -> Season {
        let folder = folder();
        let (mut files, mut left) = (Vec::new(), [0u64; 2]);
        for number in 0..RUNS {
            let part = |class, per_run: u64| {
                let first = number as u64 * per_run;
                nights::events(class, seed() + 77, first..first + per_run)
            };
            let mut events = part(Class::Hadron, HADRONS);
            let gammas = part(Class::Gamma, GAMMAS);
            for (which, events) in [(0, &gammas), (1, &events)] {
                let away = |e: &&ToyEvent| Cuts::Study.project(e, 0).theta2 >= EXCLUDED;
                left[which] += events.iter().filter(away).count() as u64;
            }
            events.extend(gammas);
            let path = folder.path().join(format!("run-{number:02}.h5"));
            write(&path, &events, 9_000_000_000 + number, -1);
            files.push(path);
        }
        let gamma = simulated(folder.path().join("gamma.h5"), Class::Gamma, 12_000, seed() + 5);
        let contamination = left[0] as f64 / (left[0] + left[1]) as f64;
        Season { folder, files, gamma, contamination }
    }

    /// Writes runs that no configuration lists.
    fn new_runs(&self) -> Vec<PathBuf> {
        let write_run = |number: i64| {
            let first = (RUNS + number) as u64 * HADRONS;
            let events = nights::events(Class::Hadron, seed() + 77, first..first + 300);
            let path = self.path(&format!("new-{number:02}.h5"));
            write(&path, &events, FIRST_NEW_RUN + number, -1);
            path
        };
        (0..NEW_RUNS).map(write_run).collect()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn configuration(&self, more: &str) -> PathBuf {
        let path = self.path("off.toml");
        let runs = self.folder.path().join("run-*.h5");
        let text = format!(
            r#"
[data]
gamma = [{:?}]
off = [{:?}]

[features]
columns = [
  {{ name = "size", transform = "log10" }},
  {{ name = "width", transform = "ln", offset = 0.01 }},
  {{ name = "length", transform = "ln", offset = 0.01 }},
  {{ name = "dist" }},
  {{ name = "alpha", transform = "signed" }},
]

[cuts]
size = {{ min = 60 }}

[model]
mode = "ratio"
blocks = 4
hidden = [12]

[train]
epochs = 2
batch = 2048
learning_rate = 1e-2

[off_source]
exclude_theta2 = {EXCLUDED}
folds = 3
{more}
"#,
            self.gamma.display().to_string(),
            runs.display().to_string()
        );
        std::fs::write(&path, text).expect("a configuration");
        path
    }

    fn train(&self, configuration: &Path, name: &str, sets: &[&str]) -> (PathBuf, String) {
        let output = self.path(name);
        let mut command = program(&arguments!["train", "-c", configuration, "-o", &output]);
        sets.iter().for_each(|set| {
            command.args(["--set", set]);
        });
        let printed = succeed(&mut command).stderr;
        (output.join("model.safetensors"), printed)
    }

    fn refused(&self, configuration: &Path, sets: &[&str], code: i32, text: &str) {
        let output = self.path("refused");
        let mut command = program(&arguments!["train", "-c", configuration, "-o", &output]);
        sets.iter().for_each(|set| {
            command.args(["--set", set]);
        });
        let outcome = run(&mut command);
        assert_eq!(outcome.code, Some(code), "{sets:?}: {}", outcome.stderr);
        assert!(outcome.stderr.contains(text), "{sets:?}: {}", outcome.stderr);
        assert!(!output.join("model.safetensors").exists());
    }
}

fn card(model: &Path) -> Card {
    Model::load(model).expect("a model").0.card
}

#[test]
fn off_source_hadrons_have_no_hole_on_any_ranks() {
    let season = Season::new();
    let configuration = season.configuration("");
    let mut models = Vec::new();
    for ranks in [1, 2, 3] {
        let output = season.path(&format!("ranks-{ranks}"));
        train_on_threads(&training(&configuration, &[], &output), ranks);
        models.push(output.join("model.safetensors"));
    }
    assert!(models.iter().all(|model| hash(model) == hash(&models[0])));
    let card = card(&models[0]);
    assert_eq!(card.version, 6);
    let off = card.training.off_source.expect("a record of the selection");
    assert!(off.runs.len() < RUNS as usize && !off.runs.is_empty());
    let survival: Vec<f64> = off.survival.iter().flatten().copied().collect();
    let mean = survival.iter().sum::<f64>() / survival.len() as f64;
    assert_eq!(survival.len(), 9);
    assert!(mean < 0.99, "no event was excluded: {survival:?}");
    assert!(survival.iter().all(|s| (s / mean - 1.0).abs() < 0.06), "{survival:?}");
    let rows = card.training.flows["hadron"].rows.expect("counts");
    assert!(rows.on_source > 0 && rows.test > 0, "{rows:?}");
    let contamination = off.contamination;
    assert!(contamination.share_inside.is_some_and(|s| s > 0.1 && s < 0.5), "{contamination:?}");
    let (share, truth) = (contamination.share, season.contamination);
    assert!(
        (share.value - truth).abs() < 4.0 * share.error + 0.1 * truth,
        "{share}, truly {truth}"
    );
    assert!(share.error < 0.5 * truth, "{share}, truly {truth}: too imprecise");
}

#[test]
fn positions_with_hole_and_bad_runs_are_refused() {
    let season = Season::new();
    let configuration = season.configuration("");
    season.refused(&configuration, &["off_source.positions=[0.0]"], 2, "too near to the source");
    season.refused(&configuration, &["off_source.positions=[180.0,-40.0]"], 2, "too near");
    season.refused(&configuration, &["off_source.positions=9"], 2, "2 to 8");
    season.refused(&configuration, &["off_source.positions=\"anywhere\""], 2, "positions");
    season.refused(&configuration, &["off_source.fold=3"], 2, "below off_source.folds");
    season.refused(&configuration, &["model.mode=one-class"], 2, "data.off does not fit");
    season.refused(&configuration, &["data.mixed=[\"more.h5\"]"], 2, "both in data.off");
    season.refused(&configuration, &["data.off=[]"], 2, "without data.off");
    season.refused(&configuration, &["off_source.run=\"event\""], 3, "event");
    let far = ["off_source.exclude_theta2=1.0", "off_source.positions=[45.0]"];
    season.refused(&configuration, &far, 3, "causes a hole in alpha");
    let one = format!("data.off=[{:?}]", season.files[0].display().to_string());
    season.refused(&configuration, &[&one], 3, "too few runs");
    let skewed = r#"features.columns=[{name="size",transform="log10"},{name="skewness"}]"#;
    season.refused(&configuration, &[skewed], 2, "file's own source position");
}

#[test]
fn gammas_given_as_hadron_data_are_refused() {
    let season = Season::new();
    let (mut gammas, mut strong) = (Vec::new(), Vec::new());
    for number in 0..6_i64 {
        let part = |class, seed, per_run: u64| {
            nights::events(class, seed, number as u64 * per_run..(number as u64 + 1) * per_run)
        };
        let path = season.path(&format!("gamma-{number}.h5"));
        write(&path, &part(Class::Gamma, seed() + 31, 1500), 100 + number, 1);
        gammas.push(path.display().to_string());
        let path = season.path(&format!("strong-{number}.h5"));
        let mut events = part(Class::Hadron, seed() + 32, 2000);
        events.extend(part(Class::Gamma, seed() + 33, 1000));
        write(&path, &events, 200 + number, -1);
        strong.push(path.display().to_string());
    }
    let configuration = season.configuration("");
    let set = format!("data.off={gammas:?}");
    season.refused(&configuration, &[&set], 3, "most events of the experimental files are gammas");
    // A strong source causes a warning, a usual one does not.
    let set = format!("data.off={strong:?}");
    let (_, printed) = season.train(&configuration, "strong", &[&set]);
    assert!(printed.contains("learns these gammas as hadrons"), "{printed}");
    let clean: Vec<String> = season.files.iter().map(|path| path.display().to_string()).collect();
    for path in &clean {
        std::fs::remove_file(path).expect("removed");
    }
    for (number, path) in clean.iter().enumerate() {
        let first = number as u64 * HADRONS;
        let hadrons = nights::events(Class::Hadron, seed() + 34, first..first + HADRONS);
        write(Path::new(path), &hadrons, 300 + number as i64, -1);
    }
    let (_, printed) = season.train(&configuration, "clean", &[]);
    assert!(!printed.contains("learns these gammas"), "{printed}");
}

#[test]
fn no_event_is_scored_by_model_of_its_own_run() {
    let season = Season::new();
    let configuration = season.configuration("");
    let mut scored = vec![0; RUNS as usize];
    let (new_runs, mut new_scored) = (season.new_runs(), vec![0; NEW_RUNS as usize]);
    for fold in 0..3 {
        let set = format!("off_source.fold={fold}");
        let (model, _) = season.train(&configuration, &format!("fold-{fold}"), &[&set]);
        let off = card(&model).training.off_source.expect("a record of the selection");
        let refusing = season.path(&format!("refused-{fold}"));
        let mut command = program(&arguments!["score", "-m", &model, "-o", &refusing]);
        let outcome = run(command.args(&season.files));
        assert_eq!(outcome.code, Some(4), "{}", outcome.stderr);
        let manifest = text(&refusing.join("manifest.json"));
        assert!(manifest.contains("trained on events of this run"), "{manifest}");
        let output = season.path(&format!("scores-{fold}"));
        let own = arguments!["score", "-q", "--own-runs", "-m", &model, "-o", &output];
        succeed(ranks(1 + fold % 2, &own).args(&season.files).args(&new_runs));
        for name in (0..RUNS).map(|number| format!("run-{number:02}.h5")) {
            assert_eq!(output.join(&name).exists(), refusing.join(&name).exists(), "{name}");
        }
        for (number, count) in scored.iter_mut().enumerate() {
            let written = output.join(format!("run-{number:02}.h5")).exists();
            assert_eq!(written, !off.has_used(9_000_000_000 + number as i64), "run {number}");
            *count += u32::from(written);
        }
        for (number, count) in new_scored.iter_mut().enumerate() {
            let written = output.join(format!("new-{number:02}.h5")).exists();
            let run = FIRST_NEW_RUN + number as i64;
            assert_eq!(written, OffSourceCard::fold_of(off.seed, run, 3) == off.fold, "run {run}");
            *count += u32::from(written);
        }
        let evaluation = season.path(&format!("evaluation-{fold}"));
        let mut arguments = arguments!["evaluate", "-m", &model, "-o", &evaluation].to_vec();
        arguments.extend(arguments!["--gamma", &season.gamma, "--hadron"]);
        arguments.extend(season.files.iter().map(Into::into));
        let report = json(&arguments);
        let used = &report["unusable"]["of a run the model was trained on"];
        let rows = off.runs.len() as u64 * (HADRONS + GAMMAS);
        assert_eq!(used.as_u64(), Some(rows), "{}", report["unusable"]);
    }
    assert_eq!(scored, vec![1; RUNS as usize], "one model may score each run");
    assert_eq!(new_scored, vec![1; NEW_RUNS as usize], "one model scores each new run");
    let missing = |folds: &[u64], name: &str| -> bool {
        let mut season_of = program(&arguments!["season", "-o", season.path(name)]);
        season_of.args(["--threshold", "-1000"]);
        let outcome =
            run(season_of.args(folds.iter().map(|f| season.path(&format!("scores-{f}")))));
        assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
        [outcome.stdout, outcome.stderr].concat().contains("score --own-runs")
    };
    assert!(missing(&[0, 2], "two") && !missing(&[0, 1, 2], "three"));
    let outcome = run(&mut program(&arguments!["verify", season.path("scores-1")]));
    assert_eq!(outcome.code, Some(0), "{}", outcome.stdout);
}

#[test]
fn differing_simulated_hadrons_are_reported() {
    let season = Season::new();
    let alike = season.path("alike.h5");
    let events = nights::events(Class::Hadron, seed() + 990, 0..8000);
    write(&alike, &events, 1, 0);
    let configuration = season.configuration("");
    let of = |path: &Path| format!("data.hadron=[{:?}]", path.display().to_string());
    let (model, printed) = season.train(&configuration, "alike", &[&of(&alike)]);
    let comparison = |model: &Path| {
        let off = card(model).training.off_source.expect("a record of the selection");
        off.comparison.expect("a comparison")
    };
    assert!(comparison(&model).auc.expect("an AUC") < 0.6, "{:?}", comparison(&model));
    assert!(printed.contains("separates them") && !printed.contains("may learn"), "{printed}");
    let wider: Vec<ToyEvent> =
        events.iter().map(|e| ToyEvent { width: 1.4 * e.width, ..*e }).collect();
    let different = season.path("different.h5");
    write(&different, &wider, 1, 0);
    let (model, printed) = season.train(&configuration, "different", &[&of(&different)]);
    assert!(printed.contains("; width") && printed.contains("may learn"), "{printed}");
    assert!(comparison(&model).auc.expect("an AUC") > 0.6);
}

#[test]
fn check_refuses_like_training() {
    let season = Season::new();
    let configuration = season.configuration("");
    let check = |path: &Path, quick: bool| {
        let mut command = program(&arguments!["check", "--json", "-c", path]);
        if quick {
            command.arg("--quick");
        }
        run(&mut command)
    };
    let good = check(&configuration, false);
    assert_eq!(good.code, Some(0), "{}", good.stderr);
    let report: serde_json::Value = serde_json::from_str(&good.stdout).expect("a report");
    let files = report["files"].as_array().expect("files");
    assert_eq!(files.len(), 1 + RUNS as usize, "experimental files are included");
    assert!(report["training"].is_null());

    let changed = |name: &str, from: &str, to: &str| {
        let path = season.path(name);
        let whole = text(&configuration);
        assert!(whole.contains(from), "{from}");
        std::fs::write(&path, whole.replace(from, to)).expect("written");
        path
    };
    let both = |path: &Path, quick: bool, expected: &str| {
        let checked = check(path, quick);
        assert_eq!(checked.code, Some(3), "{expected}: {}{}", checked.stdout, checked.stderr);
        assert!(
            format!("{}{}", checked.stdout, checked.stderr).contains(expected),
            "{expected}: {}",
            checked.stderr
        );
        let output = season.path("refused");
        let trained = run(&mut program(&arguments!["train", "-c", path, "-o", &output]));
        assert_ne!(trained.code, Some(0), "{expected}: training must refuse it too");
    };
    let gone = changed("gone.toml", "run-*.h5", "gone-*.h5");
    both(&gone, true, "gone-");
    let one = changed("one.toml", "run-*.h5", "run-00.h5");
    both(&one, false, "too few runs");
    let keyless = changed("keyless.toml", "folds = 3", "folds = 3\nrun = \"night\"");
    both(&keyless, true, "night");
    let hole = changed(
        "hole.toml",
        &format!("exclude_theta2 = {EXCLUDED}"),
        "exclude_theta2 = 1.0\npositions = [45.0]",
    );
    both(&hole, false, "causes a hole in alpha");
    // A file that is data and simulation at once.
    let first = season.files[0].display().to_string();
    let twice = changed("twice.toml", "off = [", &format!("hadron = [{first:?}]\noff = ["));
    both(&twice, true, "run-00.h5");
    // An axis other than the one that alpha was computed with.
    let path = season.path("run-00.h5");
    let mut events = Events::read(&path);
    events.feature("axis").iter_mut().for_each(|axis| *axis += 40.0);
    std::fs::remove_file(&path).expect("removed");
    events.write(&path);
    both(&configuration, false, "alpha");
    // A damaged file.
    std::fs::write(&path, b"nothing").expect("written");
    both(&configuration, true, "run-00.h5");
}

#[test]
fn telescopes_of_a_run_are_in_one_fold() {
    let season = Season::new();
    // Each pair of files is two telescopes of one run.
    for (number, path) in season.files.iter().enumerate() {
        let mut events = Events::read(path);
        let rows = events.rows();
        events.keys.push(("run".to_string(), vec![1000 + number as i64 / 2; rows]));
        std::fs::remove_file(path).expect("removed");
        events.write(path);
    }
    let configuration = season.configuration("");
    let (model, _) = season.train(&configuration, "runs", &[]);
    let off = card(&model).training.off_source.expect("a record of the selection");
    assert_eq!(off.run, "run");
    assert!(off.runs.iter().all(|run| (1000..1000 + RUNS / 2).contains(run)), "{:?}", off.runs);
    // With another key by `off_source.run`, or if one file lacks the key `run`, files count as
    // runs.
    let (model, _) = season.train(&configuration, "named", &["off_source.run=run_id"]);
    assert_eq!(card(&model).training.off_source.expect("a record").run, "run_id");
    let mut events = Events::read(&season.files[3]);
    events.features.retain(|(name, _)| name != "run"); // read as floating point
    std::fs::remove_file(&season.files[3]).expect("removed");
    events.write(&season.files[3]);
    let (model, _) = season.train(&configuration, "mixed", &[]);
    assert_eq!(card(&model).training.off_source.expect("a record").run, "run_id");
}

#[test]
fn file_without_the_key_of_used_runs_is_refused() {
    let season = Season::new();
    let keyless = season.path("keyless.h5");
    std::fs::copy(&season.files[3], &keyless).expect("a copy");
    let empty = season.path("empty.h5");
    Events::read(&keyless).chosen(&[]).write(&empty);
    for (number, path) in season.files.iter().enumerate() {
        let mut events = Events::read(path);
        let rows = events.rows();
        events.keys.push(("run".to_string(), vec![1000 + number as i64; rows]));
        std::fs::remove_file(path).expect("removed");
        events.write(path);
    }
    let (model, _) = season.train(&season.configuration(""), "runs", &[]);
    assert_eq!(card(&model).training.off_source.expect("a record").run, "run");
    let score = |name: &str, input: &Path, more: &[&str]| {
        let output = season.path(name);
        run(program(&arguments!["score", "-m", &model, "-o", &output, input]).args(more))
    };
    for (name, more) in [("plain", &[][..]), ("own", &["--own-runs"])] {
        let outcome = score(name, &keyless, more);
        assert_eq!(outcome.code, Some(3), "{more:?}: {}", outcome.stderr);
        let parts = ["keyless.h5", "lacks the key of the runs", "run"];
        assert!(parts.iter().all(|part| outcome.stderr.contains(part)), "{}", outcome.stderr);
    }
    // Simulated gammas have no run, and a file without rows has no event of a run.
    for (name, input) in [("gammas", &season.gamma), ("none", &empty)] {
        let outcome = score(name, input, &[]);
        assert_eq!(outcome.code, Some(0), "{name}: {}", outcome.stderr);
    }
}
