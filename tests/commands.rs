//! Behaviour of the command line: help without MPI, one JSON object per command, results separate
//! from messages, valid configurations, and a self-contained page.

use crate::support::{
    arguments, configuration, folder, json, program, ranks, run, simulated, succeed, trained, tree,
};
use std::ffi::OsString;
use std::path::Path;
use std::time::{Duration, Instant};
use taiga_flow::config::{self, Class};

const COMMANDS: [&str; 16] = [
    "init",
    "completions",
    "simulate",
    "extract",
    "anomalies",
    "convert",
    "check",
    "train",
    "sweep",
    "status",
    "evaluate",
    "score",
    "verify",
    "season",
    "compare",
    "report",
];

#[test]
fn help_is_quick_and_needs_no_mpi() {
    let mut all = program(&arguments!["--help"]);
    // The environment of a launcher with four ranks: starting MPI here would fail.
    let outcome = succeed(all.env("OMPI_COMM_WORLD_SIZE", "4"));
    for command in COMMANDS {
        assert!(outcome.stdout.contains(&format!("\n  {command} ")), "{}", outcome.stdout);
        let started = Instant::now();
        let mut of_one = program(&arguments![command, "--help"]);
        let outcome = succeed(of_one.env("OMPI_COMM_WORLD_SIZE", "4"));
        assert!(started.elapsed() < Duration::from_secs(2));
        assert!(outcome.stdout.contains("Usage: taiga-flow"), "{}", outcome.stdout);
    }
    assert!(succeed(&mut program(&arguments!["--version"])).stdout.starts_with("taiga-flow "));
    assert_eq!(run(&mut program(&arguments!["trian"])).code, Some(2));
}

#[test]
fn json_output_is_one_object_for_every_command() {
    let (trained, folder) = (trained(), folder());
    let at = |name: &str| folder.path().join(name);
    let table = at("table.csv");
    std::fs::write(&table, "28.8,16.0,2.6,0.39,0.2,27.7,22.0,-8.2,40.1,81.9,g\n").expect("a table");
    let report = json(&arguments!["init", &at("start")]);
    assert!(report["files"].as_array().is_some_and(|files| !files.is_empty()));
    let simulated = at("events.h5");
    let report =
        json(&arguments!["simulate", "-o", &simulated, "--class", "gamma", "--events", "2000"]);
    assert_eq!(report["events"], 2000);
    json(&arguments!["convert", &table, "-o", &at("converted.h5")]);
    assert!(json(&arguments!["check", &simulated])["files"].is_array());
    let again = arguments!["train", "-c", &trained.configuration, "-o", &trained.run];
    let report = json(&again);
    assert_eq!(report["already_finished"], true);
    assert_eq!(report["model_blake3"], crate::support::hash(&trained.model));
    let evaluation = at("evaluation");
    let report = json(&arguments![
        "evaluate",
        "-m",
        &trained.model,
        "--gamma",
        &trained.gamma,
        "--hadron",
        &trained.hadron,
        "-o",
        &evaluation
    ]);
    assert!(report["auc"]["value"].as_f64().is_some_and(|auc| auc > 0.7), "{}", report["auc"]);
    assert_eq!(
        json(&arguments!["score", "-m", &trained.model, "-o", &at("scores"), &simulated])["rows"],
        2000
    );
    assert_eq!(json(&arguments!["verify", &at("scores")])["rows"], 2000);
    json(&arguments!["report", &trained.run, &evaluation, "-o", &at("page.html")]);
}

#[test]
fn results_go_to_stdout_and_messages_to_stderr() {
    let (trained, folder) = (trained(), folder());
    let output = folder.path().join("scores");
    let printed = succeed(&mut program(&arguments![
        "score",
        "-m",
        &trained.model,
        "-o",
        &output,
        &trained.gamma
    ]));
    assert!(printed.stdout.starts_with("scored 30000 rows in 1 file"), "{}", printed.stdout);
    assert!(
        !printed.stdout.contains("INFO") && printed.stderr.contains("INFO"),
        "{}",
        printed.stderr
    );
    let refused = run(&mut program(&arguments![
        "score",
        "-m",
        &trained.model,
        "-o",
        &output,
        "--set",
        "score.columns=[\"score\"]",
        &trained.gamma
    ]));
    assert_eq!((refused.code, refused.stdout.as_str()), (Some(2), ""));
    let quiet = succeed(&mut program(&arguments![
        "score",
        "-q",
        "--overwrite",
        "-m",
        &trained.model,
        "-o",
        &output,
        &trained.gamma
    ]));
    assert!(!quiet.stderr.contains("INFO"), "{}", quiet.stderr);
}

#[test]
fn configurations_of_init_are_accepted() {
    let folder = folder();
    succeed(&mut program(&arguments!["init", folder.path()]));
    let mut tried = 0;
    for entry in std::fs::read_dir(folder.path().join("configs")).expect("configs").flatten() {
        if entry.path().is_dir() {
            continue; // schemas
        }
        // The files that the configuration names, as a user would have put them there.
        let loaded = config::load(&entry.path(), &[]).expect("a configuration");
        if loaded.anomalies.is_some_and(|anomalies| !anomalies.files.is_empty()) {
            // The commands in the head of the file.
            for line in [
                "simulate --level images -o images/gamma.h5 --class gamma --events 300",
                "anomalies images/gamma.h5 -o made",
                "extract -o gammas images",
                "extract -o anomalies made",
            ] {
                let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
                succeed(program(&words).current_dir(folder.path()));
            }
        }
        let data = loaded.data;
        for name in data.gamma.iter().chain(&data.hadron).chain(&data.mixed) {
            let path = folder.path().join(name);
            if !path.exists() {
                simulated(path, Class::Gamma, 3000, 2);
            }
        }
        for name in &data.off {
            // A folder of runs.
            simulated(folder.path().join(name).join("run-1.h5"), Class::Hadron, 3000, 3);
        }
        let command = arguments!["train", "--dry-run", "-c", &entry.path(), "-o", "run"];
        let outcome = succeed(program(&command).current_dir(folder.path()));
        assert!(outcome.stderr.contains("parameters"), "{}", outcome.stderr);
        tried += 1;
    }
    assert!(tried >= 3);
    assert!(!folder.path().join("run").exists(), "a dry run writes nothing");
    let again = run(&mut program(&arguments!["init", folder.path()]));
    assert_eq!(again.code, Some(2), "{}", again.stderr);
}

#[test]
fn report_is_one_self_contained_page() {
    let (trained, folder) = (trained(), folder());
    let evaluation = folder.path().join("evaluation");
    json(&arguments![
        "evaluate",
        "-m",
        &trained.model,
        "--gamma",
        &trained.gamma,
        "--hadron",
        &trained.hadron,
        "-o",
        &evaluation
    ]);
    let page = folder.path().join("page.html");
    json(&arguments!["report", &trained.run, &evaluation, "-o", &page]);
    let text = std::fs::read_to_string(&page).expect("the page");
    assert!(text.matches("<svg").count() >= 3, "loss, ROC and histograms");
    assert_eq!(text.matches("</html>").count(), 1);
    assert_self_contained(&text);
    for page in [trained.run.join("report.html"), evaluation.join("report.html")] {
        assert_self_contained(&std::fs::read_to_string(&page).expect("a page"));
    }
}

/// Checks that a page has no address that a browser would load. Names of XML namespaces are not
/// addresses.
fn assert_self_contained(page: &str) {
    for attribute in ["src=", "href=", "url(", "@import", "<link", "<script"] {
        for (at, _) in page.match_indices(attribute) {
            let place: String = page[at..].chars().take(60).collect();
            let inner = place[attribute.len()..].trim_start_matches(['"', '\'']);
            let harmless = inner.starts_with('#') || inner.starts_with("data:");
            assert!(harmless, "refers to an external resource: {place}");
        }
    }
}

#[test]
fn simulation_is_called_a_toy_everywhere() {
    let folder = folder();
    let path = folder.path().join("toy.h5");
    let help = succeed(&mut program(&arguments!["simulate", "--help"])).stdout;
    let printed = succeed(&mut program(&arguments![
        "simulate", "-o", &path, "--class", "hadron", "--events", "100"
    ]));
    let file = hdf5::File::open(&path).expect("events");
    let attribute = file.attr("simulation").expect("a label");
    let label: String = attribute
        .read_scalar::<hdf5::types::FixedUnicode<4096>>()
        .expect("a text")
        .trim_end_matches('\0')
        .to_string();
    for text in [&help, &printed.stdout, &label] {
        assert!(text.contains("toy") && text.contains("not a detector simulation"), "{text}");
    }
}

#[test]
fn same_bytes_from_same_seed_only() {
    let folder = folder();
    let made = |name: &str, seed: u64| {
        let path = simulated(folder.path().join(name), Class::Hadron, 1000, seed);
        crate::support::hash(Path::new(&path))
    };
    assert_eq!(made("a.h5", 3), made("b.h5", 3));
    assert_ne!(made("c.h5", 3), made("d.h5", 4));
}

#[test]
fn refused_command_leaves_no_folder() {
    let folder = folder();
    let bad = folder.path().join("bad.h5");
    std::fs::write(&bad, b"no events").expect("a file");
    let (model, deep) = (&trained().model, folder.path().join("a/b/c"));
    let configuration = configuration(folder.path(), &bad, "");
    let commands = [
        arguments!["evaluate", "-m", model, "--gamma", &bad, "-o", &deep].to_vec(),
        arguments!["score", "-m", model, &bad, "-o", &deep].to_vec(),
        arguments!["extract", &bad, "-o", &deep].to_vec(),
        arguments!["train", "-c", &configuration, "-o", &deep].to_vec(),
    ];
    for command in commands {
        for count in [1, 2] {
            let outcome =
                run(&mut if count == 1 { program(&command) } else { ranks(count, &command) });
            assert_eq!(outcome.code, Some(3), "{command:?}: {}", outcome.stderr);
            let left: Vec<String> = tree(folder.path()).into_keys().collect();
            assert_eq!(left, ["bad.h5", "configuration.toml"], "{command:?} on {count} rank(s)");
        }
    }
    // Existing folders stay, also empty ones.
    std::fs::create_dir(folder.path().join("a")).expect("a folder");
    run(&mut program(&arguments!["evaluate", "-m", model, "--gamma", &bad, "-o", &deep]));
    assert!(folder.path().join("a").is_dir() && !folder.path().join("a/b").exists());
}

#[test]
fn redundant_report_argument_is_refused() {
    let (trained, folder) = (trained(), folder());
    let at = |name: &str| folder.path().join(name);
    let evaluation = at("evaluation");
    let evaluate = arguments!["evaluate", "-q", "-m", &trained.model, "-o", &evaluation];
    let files = arguments!["--gamma", &trained.gamma, "--hadron", &trained.hadron];
    succeed(&mut program(&[&evaluate[..], &files].concat()));
    let without = at("without");
    std::fs::create_dir(&without).expect("a folder");
    std::fs::copy(evaluation.join("report.html"), without.join("report.html")).expect("a page");
    std::fs::create_dir(at("season")).expect("a folder");
    std::fs::write(at("season/season.json"), "{}").expect("a season");
    let second = at("second");
    std::fs::create_dir(&second).expect("a folder");
    std::fs::copy(trained.run.join("config.toml"), second.join("config.toml")).expect("a copy");
    let page = at("page.html");
    let others = ["nix", "without", "season", "second", "evaluation/evaluation.json"];
    for name in others {
        let (run_folder, other) = (&trained.run, at(name));
        for order in [[run_folder, &evaluation, &other], [&evaluation, run_folder, &other]] {
            let [a, b, c] = order;
            let outcome = run(&mut program(&arguments!["report", a, b, c, "-o", &page]));
            assert_eq!(outcome.code, Some(2), "{name}: {}", outcome.stderr);
            let named = other.display().to_string();
            assert!(outcome.stderr.lines().any(|line| line.contains(&named)), "{}", outcome.stderr);
            assert!(!page.exists());
        }
    }
    // A run with an evaluation inside is shown with both.
    let whole = [&trained.run, &evaluation].map(OsString::from);
    succeed(&mut program(&[&arguments!["report", "-o", &page][..], &whole].concat()));
}
