//! Job scripts as a user submits them, under a real Slurm: interrupted work resumes automatically
//! and ends with the same bytes.

use crate::support::{
    Case, Job, Outcome, Slurm, arguments, folder, has_extension, newest_checkpoint, program,
    result, run, seed, signal, simulated, succeed, text, trained, tree,
};
use std::ffi::OsString;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use taiga_flow::config::Class;

const SOME_SECONDS: &str = "[train]\nepochs = 40\nbatch = 2048\nshards = 8\nlearning_rate = 1e-2\npatience = 0\n\
                            [run]\ncheckpoint_seconds = 0\n";

/// Runs a training without disturbance as one process, and returns its result.
fn training(case: &Case) -> (String, String) {
    let whole = case.at("whole");
    succeed(&mut program(&case.train(&whole, &["--set", "run.checkpoint_seconds=3600"])));
    result(&whole)
}

/// Waits until a run has a checkpoint of at least this step.
fn wait_for_step(slurm: &Slurm, run: &Path, step: u64, log: &str) {
    let since = Instant::now();
    while newest_checkpoint(run).is_none_or(|newest| newest < step) {
        assert!(since.elapsed() < Duration::from_secs(120), "no step {step}: {}", slurm.log(log));
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Returns whether SIGUSR1 is pending for a process.
fn has_pending_user1(process: u32) -> bool {
    let status = text(Path::new(&format!("/proc/{process}/status")));
    let mask = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
    };
    (mask("ShdPnd:") | mask("SigPnd:")) >> (libc::SIGUSR1 - 1) & 1 == 1
}

#[test]
fn requeued_training_ends_with_same_bytes() {
    let Some(slurm) = Slurm::start(2, 2) else { return };
    let case = Case::new(8000, SOME_SECONDS);
    let (output, log) = (case.at("run"), "train.log");
    let expected = training(&case);
    let more = arguments![&case.configuration, &output];
    let limits = ["--time=1", "--signal=USR1@50"];
    let job = slurm.submit(&limits, "train.sbatch", &more, log);
    // The training takes seconds, but Slurm may send the signal later. Until then the ranks are
    // stopped.
    wait_for_step(&slurm, &output, 5, log);
    let ranks = slurm.ranks(None);
    assert_eq!(ranks.len(), 4, "{}", slurm.log(log));
    assert_eq!(slurm.ranks(Some("node2")).len(), 2);
    ranks.iter().for_each(|rank| signal(*rank, libc::SIGSTOP));
    let since = Instant::now();
    while slurm.job(&job).restarts == 0 {
        assert!(since.elapsed() < Duration::from_secs(60), "no signal: {}", slurm.log(log));
        if ranks.iter().all(|rank| has_pending_user1(*rank)) {
            ranks.iter().for_each(|rank| signal(*rank, libc::SIGCONT));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    slurm.start_again(&job, log);
    assert!(!output.join("model.safetensors").exists());
    let over = slurm.finish(&job, log);
    let printed = slurm.log(log);
    assert_eq!((over.state.as_str(), over.restarts), ("COMPLETED", 1), "{printed}");
    for part in ["stopped by SIGUSR1", "put back into the queue", "resumed at epoch"] {
        assert!(printed.contains(part), "'{part}' is not in: {printed}");
    }
    assert_eq!(result(&output), expected);
}

#[test]
fn dead_node_costs_at_most_one_checkpoint() {
    let Some(slurm) = Slurm::start(2, 2) else { return };
    let case = Case::new(8000, SOME_SECONDS);
    let (output, log) = (case.at("run"), "train.log");
    let expected = training(&case);
    let job = slurm.submit(&[], "train.sbatch", &arguments![&case.configuration, &output], log);
    wait_for_step(&slurm, &output, 3 + seed() % 20, log);
    // Node 1 runs the batch script; either node can be killed.
    let node = ["node1", "node2"][(seed() % 2) as usize];
    let ranks = slurm.ranks(Some(node));
    assert_eq!(ranks.len(), 2, "{}", slurm.log(log));
    slurm.kill_node(node);
    let left = newest_checkpoint(&output).expect("a checkpoint");
    println!("{node} died after step {left}");
    let again = |job: &Job| job.restarts == 1 && job.state == "PENDING";
    slurm.wait_for(&job, log, again);
    assert!(!output.join("model.safetensors").exists(), "it ended before the node died");
    slurm.restart_daemon(node);
    slurm.start_again(&job, log);
    let over = slurm.finish(&job, log);
    let printed = slurm.log(log);
    assert_eq!((over.state.as_str(), over.restarts), ("COMPLETED", 1), "{printed}");
    assert!(printed.contains("resumed at epoch"), "{printed}");
    assert_eq!(result(&output), expected);
}

#[test]
fn next_job_continues_where_requeue_is_forbidden() {
    let Some(slurm) = Slurm::start(1, 4) else { return };
    let case = Case::new(8000, SOME_SECONDS);
    let (output, log) = (case.at("run"), "train.log");
    let expected = training(&case);
    // A follow-up job must not start from scratch.
    let more = arguments![&case.configuration, &output, "--overwrite"];
    let job = slurm.submit(&["--no-requeue"], "train.sbatch", &more, log);
    let model = output.join("model.safetensors");
    let waits = format!("--dependency=afterok:{job}");
    let wrap = format!("--wrap=test -s {}", model.display());
    let next = slurm.query("sbatch", &arguments!["--parsable", waits, "--output=next.log", wrap]);
    wait_for_step(&slurm, &output, 3, log);
    slurm.query("scancel", &arguments!["--signal=USR1", &job]);
    assert_eq!(slurm.finish(&job, log).exit_code, 75, "{}", slurm.log(log));
    let over = slurm.finish(&next, log);
    let printed = slurm.log(log);
    assert_eq!(over.state, "COMPLETED", "{printed}");
    assert!(
        printed.contains("cannot be requeued: job") && printed.contains("resumed at epoch"),
        "{printed}"
    );
    assert_eq!(result(&output), expected);
}

#[test]
fn job_array_scores_equal_those_of_ranks() {
    let Some(slurm) = Slurm::start(2, 2) else { return };
    let trained = trained();
    let archive = slurm.at("archive");
    for i in 0..7 {
        simulated(
            archive.join(format!("night-{}/{i}.h5", i % 2)),
            Class::Gamma,
            3000 + 500 * i,
            seed() + i,
        );
    }
    let (ranks, array) = (slurm.at("by ranks"), slurm.at("by-array"));
    let more = arguments![&trained.model, &ranks, &archive];
    let job = slurm.submit(&[], "score.sbatch", &more, "ranks.log");
    assert_eq!(slurm.finish(&job, "ranks.log").state, "COMPLETED", "{}", slurm.log("ranks.log"));
    let more = arguments![&trained.model, &array, &archive];
    let job = slurm.submit(&["--array=0-2"], "score-array.sbatch", &more, "array-%a.log");
    for element in 0..3 {
        let (id, log) = (format!("{job}_{element}"), format!("array-{element}.log"));
        assert_eq!(slurm.finish(&id, &log).state, "COMPLETED", "{}", slurm.log(&log));
    }
    let scores = |folder: &Path| {
        let mut files = tree(folder);
        files.retain(|name, _| has_extension(name, "h5"));
        files
    };
    assert_eq!(scores(&array).len(), 7);
    assert_eq!(scores(&array), scores(&ranks));
    // If only some array elements run, the total number of shards must be given.
    let job = slurm.submit(&["--array=1,2"], "score-array.sbatch", &more, "some-%a.log");
    let over = slurm.finish(&format!("{job}_1"), "some-1.log");
    assert_eq!(over.exit_code, 2, "{}", slurm.log("some-1.log"));
    assert!(slurm.log("some-1.log").contains("set SHARDS"), "{}", slurm.log("some-1.log"));
}

#[test]
fn wrong_launcher_is_refused_before_any_write() {
    let Some(slurm) = Slurm::start(1, 4) else { return };
    let case = Case::new(3000, SOME_SECONDS);
    // Without PMI the program refuses the launch. With a PMI version that Open MPI does not speak,
    // MPI itself refuses after the same advice.
    for (launch, code) in [("srun --mpi=none", 5), ("srun --mpi=pmi2", 1)] {
        slurm.settings(launch);
        let (output, log) = (case.at("run"), "train.log");
        let job = slurm.submit(&[], "train.sbatch", &arguments![&case.configuration, &output], log);
        let over = slurm.finish(&job, log);
        let printed = slurm.log(log);
        assert_eq!((over.state.as_str(), over.exit_code), ("FAILED", code), "{printed}");
        for part in ["srun --mpi=pmix", "not put back into the queue"] {
            assert!(printed.contains(part), "'{part}' is not in: {printed}");
        }
        assert_eq!(
            printed.matches("expected 4 ranks").count(),
            usize::from(code == 5),
            "{printed}"
        );
        assert_eq!(over.restarts, 0);
        assert!(!output.exists());
        std::fs::remove_file(slurm.at(log)).expect("a log");
    }
}

#[test]
fn smoke_test_of_a_site_passes() {
    let Some(slurm) = Slurm::start(2, 2) else { return };
    let options = ["--nodes=2", "--ntasks=4"];
    let job = slurm.submit(&options, "smoke.sbatch", &[], "smoke.log");
    let over = slurm.finish(&job, "smoke.log");
    assert_eq!(over.state, "COMPLETED", "{}", slurm.log("smoke.log"));
    assert!(slurm.log("smoke.log").contains("smoke: passed on 4 ranks, 2 node(s)"));
}

#[test]
fn dependent_jobs_and_array_sweep_complete() {
    let Some(slurm) = Slurm::start(2, 2) else { return };
    let case = Case::new(8000, "[train]\nepochs = 3\nbatch = 2048\nshards = 4\n");
    let hadron = simulated(case.at("hadron.h5"), Class::Hadron, 3000, seed());
    let (work, archive) = (slurm.at("work"), case.at("archive"));
    for i in 0..3 {
        simulated(archive.join(format!("{i}.h5")), Class::Hadron, 2000, seed() + i);
    }
    let mut pipeline = slurm.command("bash", &arguments!["jobs/pipeline.sh"]);
    pipeline
        .env("CONFIG", &case.configuration)
        .env("WORK", &work)
        .env("ARCHIVE", &archive)
        .env("GAMMA", case.at("gamma.h5"))
        .env("HADRON", &hadron);
    let printed = succeed(&mut pipeline).stdout;
    let jobs = listed_jobs(&printed);
    assert_eq!(
        jobs.iter().map(|(name, _)| *name).collect::<Vec<_>>(),
        ["train", "evaluate", "score"]
    );
    let grid = arguments![
        &case.configuration,
        slurm.at("sweep"),
        "--grid",
        "model.blocks=2,4",
        "--grid",
        "train.seed=1,2"
    ];
    let array = slurm.submit(&["--array=0-3"], "sweep.sbatch", &grid, "sweep-%a.log");
    for (name, id) in jobs {
        let log = format!("work/{name}-{id}.log");
        assert_eq!(slurm.finish(id, &log).state, "COMPLETED", "{}", slurm.log(&log));
    }
    for product in ["run/model.safetensors", "run/evaluation/evaluation.json", "scores/2.h5"] {
        assert!(work.join(product).is_file(), "no {product}");
    }
    for point in 0..4 {
        let (id, log) = (format!("{array}_{point}"), format!("sweep-{point}.log"));
        assert_eq!(slurm.finish(&id, &log).state, "COMPLETED", "{}", slurm.log(&log));
    }
    let table = text(&slurm.at("sweep/sweep.tsv"));
    assert_eq!(table.matches("finished").count(), 4, "{table}");
}

/// Returns the jobs that a script has printed: name and number.
fn listed_jobs(expected: &str) -> Vec<(&str, &str)> {
    expected.lines().filter_map(|line| line.split_once(' ')).map(|(n, id)| (n, id.trim())).collect()
}

#[test]
fn image_array_pipeline_equals_single_commands() {
    let Some(slurm) = Slurm::start(2, 2) else { return };
    let case = Case::new(8000, "[train]\nepochs = 3\nbatch = 2048\nshards = 4\n");
    let (work, folder) = (slurm.at("the work"), case.at("camera images"));
    for run in 0..3_u64 {
        let output = folder.join(format!("run-{run}.h5"));
        let seed = (seed() + run).to_string();
        let images =
            arguments!["simulate", "--level", "images", "--class", "hadron", "--seed", seed];
        succeed(program(&images).args(["--events", "150", "-o"]).arg(output));
    }
    let archive = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/score/archive.toml");
    let mut pipeline = slurm.command("bash", &arguments!["jobs/pipeline.sh"]);
    pipeline
        .env("CONFIG", &case.configuration)
        .env("WORK", &work)
        .env("IMAGES", &folder)
        .env("EXTRACT", "--compare at-least")
        .env("SHARDS", "2")
        .env("SCORE", format!("-c {} --set score.keys=true", archive.display()))
        .env("SEASON", "--threshold -1000")
        .env("RANKS", "2");
    let printed = succeed(&mut pipeline).stdout;
    let jobs = listed_jobs(&printed);
    let names: Vec<&str> = jobs.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, ["extract", "train", "score", "season"]);
    let log_of = |name: &str, id: &str| match name {
        "score" => slurm.query("bash", &arguments!["-c", "cat 'the work'/score-*.log"]),
        _ => text(&work.join(format!("{name}-{id}.log"))),
    };
    for (name, id) in &jobs {
        let parts = if *name == "score" {
            vec![format!("{id}_0"), format!("{id}_1")]
        } else {
            vec![(*id).to_string()]
        };
        for id in parts {
            assert_eq!(slurm.finish(&id, "").state, "COMPLETED", "{name}: {}", log_of(name, &id));
        }
    }
    // The same steps by hand, without ranks, arrays or Slurm.
    let by_hand = |name: &str| case.at("by hand").join(name);
    let model = work.join("run/model.safetensors");
    let extract = arguments!["extract", "-o", by_hand("hillas"), "--compare", "at-least", &folder];
    let score = arguments![
        "score",
        "-m",
        &model,
        "-o",
        by_hand("scores"),
        by_hand("hillas"),
        "-c",
        &archive
    ];
    let season =
        arguments!["season", by_hand("scores"), "-o", by_hand("season"), "--threshold", "-1000"];
    for command in [&extract[..], &score, &season] {
        succeed(&mut program(command));
    }
    for name in ["hillas", "scores"] {
        let files = |folder: &Path| {
            let mut files = tree(folder);
            files.retain(|name, _| has_extension(name, "h5"));
            files
        };
        assert_eq!(files(&work.join(name)).len(), 3);
        assert_eq!(files(&work.join(name)), files(&by_hand(name)), "{name}");
    }
    let report: serde_json::Value =
        serde_json::from_str(&text(&work.join("season/season.json"))).expect("a report");
    assert_eq!(report["total"]["events"], 450, "{report}");
    let by_hand_text = text(&by_hand("season/season.json"));
    let by_hand_report: serde_json::Value = serde_json::from_str(&by_hand_text).expect("a report");
    assert_eq!(report["total"], by_hand_report["total"]);

    restarted_commands(&slurm, &work, &folder);
}

/// Runs finished commands again, as Slurm does and as a user does.
fn restarted_commands(slurm: &Slurm, work: &Path, folder: &Path) {
    // A command that does not resume starts again only if it may replace files it did not write.
    let counted = work.join("season");
    let more = arguments![
        &counted,
        "season.json",
        "season",
        work.join("scores"),
        "-o",
        &counted,
        "--threshold",
        "-1000"
    ];
    let job = slurm.submit(&[], "run.sbatch", &more, "again.log");
    assert_eq!(slurm.finish(&job, "again.log").exit_code, 2, "{}", slurm.log("again.log"));
    let restarted = ["--export=ALL,TAIGA_FLOW_RESTARTED=1"];
    let job = slurm.submit(&restarted, "run.sbatch", &more, "other.log");
    assert_eq!(slurm.finish(&job, "other.log").exit_code, 2, "{}", slurm.log("other.log"));
    let more = [&more[..], &arguments!["--overwrite"]].concat();
    let job = slurm.submit(&restarted, "run.sbatch", &more, "again-2.log");
    assert_eq!(
        slurm.finish(&job, "again-2.log").state,
        "COMPLETED",
        "{}",
        slurm.log("again-2.log")
    );
    // An extraction keeps finished outputs.
    let hillas = work.join("hillas");
    let more = arguments![&hillas, ".", "extract", "-o", &hillas, "--compare", "at-least", &folder];
    let job = slurm.submit(&[], "run.sbatch", &more, "resumed.log");
    assert_eq!(
        slurm.finish(&job, "resumed.log").state,
        "COMPLETED",
        "{}",
        slurm.log("resumed.log")
    );
    assert!(
        slurm.log("resumed.log").contains("is finished already"),
        "{}",
        slurm.log("resumed.log")
    );
}

#[test]
fn failed_first_job_leaves_no_job_waiting() {
    let Some(slurm) = Slurm::start(1, 2) else { return };
    let case = Case::new(2000, "[train]\nepochs = 1\nbatch = 1024\nshards = 2\n");
    let mut pipeline = slurm.command("bash", &arguments!["jobs/pipeline.sh"]);
    pipeline
        .env("CONFIG", &case.configuration)
        .env("WORK", slurm.at("work"))
        .env("ARCHIVE", case.at("gamma.h5"))
        .env("RANKS", "2")
        .env("SEASON", " ");
    // More ranks than shards.
    std::fs::write(
        &case.configuration,
        text(&case.configuration).replace("shards = 2", "shards = 1"),
    )
    .expect("a configuration");
    let printed = succeed(&mut pipeline).stdout;
    let jobs = listed_jobs(&printed);
    assert_eq!(jobs.iter().map(|(n, _)| *n).collect::<Vec<_>>(), ["train", "score", "season"]);
    let log = format!("work/train-{}.log", jobs[0].1);
    let over = slurm.finish(jobs[0].1, &log);
    assert_eq!((over.state.as_str(), over.exit_code), ("FAILED", 2), "{}", slurm.log(&log));
    assert!(slurm.log(&log).contains("more ranks than logical shards"), "{}", slurm.log(&log));
    for (_, id) in &jobs[1..] {
        assert_eq!(slurm.finish(id, &log).state, "CANCELLED");
    }
    assert!(!slurm.at("work/run").exists() && !slurm.at("work/scores").exists());
}

#[test]
fn pipeline_continues_with_allowed_failures() {
    let Some(slurm) = Slurm::start(1, 4) else { return };
    let case = Case::new(3000, "[train]\nepochs = 2\nbatch = 1024\nshards = 4\n");
    let (images, work) = (slurm.at("images"), slurm.at("work"));
    for run in 0..4_u64 {
        let output = images.join(format!("run-{run}.h5"));
        let of_images = ["--level", "images", "--class", "hadron", "--events", "60"];
        let seed = (seed() + run).to_string();
        let command = arguments!["simulate", "--seed", seed, "-o", &output];
        succeed(program(&command).args(of_images));
    }
    // One file cannot be extracted, and another one cannot be scored.
    let halve = |path: &Path| {
        let bytes = std::fs::read(path).expect("a file");
        std::fs::write(path, &bytes[..bytes.len() / 2]).expect("a file");
    };
    halve(&images.join("run-2.h5"));
    let archive = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/score/archive.toml");
    let submit = |archive_name: &str, input: &Path, allowed: &str, output: &Path| {
        let mut pipeline = slurm.command("bash", &arguments!["jobs/pipeline.sh"]);
        pipeline
            .env("CONFIG", &case.configuration)
            .env("WORK", output)
            .env(archive_name, input)
            .env("ALLOW_FAILED", allowed)
            .env("SHARDS", "2")
            .env("SCORE", format!("-c {}", archive.display()))
            .env("SEASON", "--threshold -1000")
            .env("RANKS", "2");
        let printed = succeed(&mut pipeline).stdout;
        let jobs = listed_jobs(&printed).into_iter();
        jobs.map(|(name, id)| (name.to_string(), id.to_string())).collect::<Vec<_>>()
    };
    let ends = |jobs: &[(String, String)], name: &str| {
        let id = &jobs.iter().find(|(known, _)| known == name).expect("a job").1;
        slurm.finish(id, "").state
    };
    let jobs = submit("IMAGES", &images, "1", &work);
    assert_eq!(ends(&jobs, "season"), "COMPLETED");
    let report: serde_json::Value =
        serde_json::from_str(&text(&work.join("season/season.json"))).expect("a report");
    assert_eq!(report["total"]["events"], 180, "{report}");
    let failed = report["failed"].as_object().expect("failed files");
    let (name, reason) = failed.iter().next().expect("a failed file");
    assert!(failed.len() == 1 && name.ends_with("run-2.h5"), "{failed:?}");
    assert!(reason.as_str().is_some_and(|r| r.contains("was not extracted")), "{failed:?}");
    // With `ALLOW_FAILED=0` the later jobs are cancelled; the remaining files are still scored.
    let hillas = work.join("hillas");
    halve(&hillas.join("run-1.h5"));
    let other = slurm.at("other");
    let jobs = submit("ARCHIVE", &hillas, "0", &other);
    assert_eq!(ends(&jobs, "season"), "CANCELLED");
    let manifest: serde_json::Value =
        serde_json::from_str(&text(&other.join("scores/manifest.json"))).expect("a manifest");
    assert_eq!(manifest["files"].as_array().map(Vec::len), Some(2), "{manifest}");
    assert_eq!(manifest["failed"].as_object().map(serde_json::Map::len), Some(2), "{manifest}");
}

#[test]
fn stopped_sweep_element_resumes_its_own_point() {
    let Some(slurm) = Slurm::start(1, 2) else { return };
    let case = Case::new(8000, SOME_SECONDS);
    let output = slurm.at("sweep");
    let grid = arguments![&case.configuration, &output, "--grid", "train.seed=1,2"];
    let array = slurm.submit(&["--array=1"], "sweep.sbatch", &grid, "sweep.log");
    let (id, run) = (format!("{array}_1"), output.join("point-1"));
    wait_for_step(&slurm, &run, 3, "sweep.log");
    slurm.query("scancel", &arguments!["--signal=USR1", &id]);
    slurm.start_again(&id, "sweep.log");
    let over = slurm.finish(&id, "sweep.log");
    let printed = slurm.log("sweep.log");
    assert_eq!((over.state.as_str(), over.restarts), ("COMPLETED", 1), "{printed}");
    assert!(printed.contains("resumed at epoch"), "{printed}");
    let whole = case.at("whole");
    succeed(&mut program(&case.train(&whole, &["--set", "train.seed=2"])));
    assert_eq!(result(&run), result(&whole));
    assert!(!output.join("point-0").exists());
}

/// Several hosts over TCP, with every algorithm of the sum between them: equal bytes.
#[test]
fn separate_hosts_give_same_bytes_by_every_sum() {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR"));
    let hosts = sources.join("tests/slurm/hosts.sh");
    // SAFETY: geteuid(2) reads a number and cannot fail.
    let root = unsafe { libc::geteuid() } == 0;
    let tried = std::process::Command::new("ip").args(["netns", "list"]).output();
    if !root || !tried.is_ok_and(|o| o.status.success()) {
        let why = "no network namespaces: needs root and the package iproute2";
        assert!(std::env::var("TAIGA_FLOW_SLURM").is_err(), "TAIGA_FLOW_SLURM is set, but {why}");
        crate::support::skip(why);
        return;
    }
    let case = Case::new(8000, "[train]\nepochs = 3\nbatch = 2048\nshards = 8\n");
    let whole = case.at("whole");
    // Long enough for lanes.
    let wide = ["--set", "model.hidden=[40]"];
    succeed(&mut program(&case.train(&whole, &wide)));
    let expected = result(&whole);
    for (shape, ways) in
        [(["2", "2"], &["flat", "lanes", "packed", ""][..]), (["1", "3"], &["packed"])]
    {
        for way in ways {
            let output = case.at(&format!("run-{}-{way}", shape.concat()));
            let mut command = std::process::Command::new("bash");
            command.arg(&hosts).args(shape).arg("none").arg(env!("CARGO_BIN_EXE_taiga-flow"));
            command.args(case.train(&output, &wide)).env("TAIGA_FLOW_REDUCTION", way);
            let outcome = succeed(&mut command);
            assert_eq!(result(&output), expected, "{shape:?} {way}");
            let chosen = outcome.stderr.contains("words over nodes: ");
            assert_eq!(chosen, way.is_empty(), "{}", outcome.stderr);
        }
    }
}

/// HTCondor passes shard number and number of shards as words (`jobs/condor/score.sub`).
#[test]
fn htcondor_parts_score_the_whole_archive() {
    let (trained, folder) = (trained(), crate::support::folder());
    let at = |name: &str| folder.path().join(name);
    let archive = at("the archive");
    for i in 0..5 {
        simulated(archive.join(format!("{i}.h5")), Class::Hadron, 1000 + 300 * i, seed() + i);
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("jobs/condor/score.sh");
    for part in ["2", "1", "3"] {
        let mut command = std::process::Command::new("bash");
        command.args(arguments![&script, &trained.model, at("parts"), &archive, part, "3"]);
        succeed(command.env("TAIGA_FLOW_PROGRAM", env!("CARGO_BIN_EXE_taiga-flow")));
    }
    let whole = arguments!["score", "-m", &trained.model, "-o", at("whole"), &archive];
    succeed(&mut program(&whole));
    let scores = |folder: &Path| {
        let mut files = tree(folder);
        files.retain(|name, _| has_extension(name, "h5") || name == "manifest.json");
        files
    };
    assert_eq!(scores(&at("parts")).len(), 6);
    assert_eq!(scores(&at("parts")), scores(&at("whole")));
}

/// Runs a command by `jobs/lib.sh`. Its launcher starts the command only in the attempts given by
/// `launches` (one digit each), and its `sleep` does not wait.
fn run_with_launches(folder: &Path, launches: &str, command: &[OsString]) -> Outcome {
    run(&mut command_with_launches(folder, launches, command))
}

/// Returns the command of [`run_with_launches`]. With `LOST_NODE` set, the launcher kills the script
/// after the program has ended, as the loss of its node would.
fn command_with_launches(folder: &Path, launches: &str, command: &[OsString]) -> Command {
    let tools = folder.join("tools");
    std::fs::create_dir_all(&tools).expect("a folder");
    let write = |name: &str, text: String| {
        std::fs::write(tools.join(name), format!("#!/bin/bash\n{text}\n")).expect("a script");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(tools.join(name), mode).expect("a mode");
    };
    let count = folder.join("attempts");
    let _ = std::fs::remove_file(&count);
    write("sleep", String::new());
    write(
        "srun",
        format!(
            "echo x >>'{0}'; n=$(grep -c x '{0}')\n\
             while [[ $1 == --* ]]; do shift; done\n\
             [[ {launches} == *$n* ]] || exit 0\n\
             [ -z \"${{LOST_NODE:-}}\" ] || {{ \"$@\"; kill -9 $PPID; exit; }}\nexec \"$@\"",
            count.display()
        ),
    );
    let script = "source \"$TAIGA_FLOW_JOBS/lib.sh\" || exit 2; on_ranks \"$@\"";
    let path = format!("{}:{}", tools.display(), std::env::var("PATH").expect("a path"));
    let jobs = Path::new(env!("CARGO_MANIFEST_DIR")).join("jobs");
    let mut bash = Command::new("bash");
    bash.args(["-uo", "pipefail", "-c", script, "job"]).args(command);
    bash.current_dir(folder)
        .env("PATH", path)
        .env("TAIGA_FLOW_JOBS", jobs)
        .env("TAIGA_FLOW_PROGRAM", env!("CARGO_BIN_EXE_taiga-flow"))
        .env("TAIGA_FLOW_LAUNCH", "srun");
    bash
}

#[test]
fn old_output_does_not_hide_a_failed_launch() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    simulated(at("archive/a.h5"), Class::Gamma, 300, seed());
    let (output, model) = (at("out/scores"), &trained().model);
    let command =
        arguments![&output, "manifest.json", "score", "-m", model, "-o", &output, at("archive")];
    let outcome = run_with_launches(folder.path(), "3", &command);
    assert_eq!(outcome.code, Some(0), "{}{}", outcome.stdout, outcome.stderr);
    assert_eq!(outcome.stdout.matches("without having launched").count(), 2, "{}", outcome.stdout);
    // All outputs are finished: the program writes nothing, but it did run.
    let before = tree(&output);
    let outcome = run_with_launches(folder.path(), "1", &command);
    assert_eq!(outcome.code, Some(0), "{}{}", outcome.stdout, outcome.stderr);
    assert!(!outcome.stdout.contains("without having launched"), "{}", outcome.stdout);
    assert_eq!(tree(&output), before);
    // The old output exists, and no attempt starts the program.
    simulated(at("archive/b.h5"), Class::Gamma, 300, seed() + 1);
    let outcome = run_with_launches(folder.path(), "none", &command);
    assert_eq!(outcome.code, Some(1), "{}{}", outcome.stdout, outcome.stderr);
    assert!(outcome.stdout.contains("the program was not started"), "{}", outcome.stdout);
    let outcome = run_with_launches(folder.path(), "2", &command);
    assert_eq!(outcome.code, Some(0), "{}{}", outcome.stdout, outcome.stderr);
    assert!(output.join("b.h5").is_file());
    // No temporary file of the jobs remains.
    let left = std::fs::read_dir(folder.path()).expect("a folder").flatten();
    let left: Vec<_> = left
        .chain(std::fs::read_dir(at("out")).expect("a folder").flatten())
        .map(|entry| entry.file_name().to_string_lossy().to_string())
        .filter(|name| name.starts_with('.'))
        .collect();
    assert_eq!(left, [""; 0]);
}

#[test]
fn restarted_job_replaces_only_its_own_files() {
    let folder = folder();
    let (output, name) = (folder.path().join("out/report"), "page.html");
    let page = output.join(name);
    let job = |restarts: &str, more: &[&str]| {
        let mut command =
            Vec::from(arguments![&output, name, "report", &trained().run, "-o", &page]);
        command.extend(more.iter().map(OsString::from));
        let mut bash = command_with_launches(folder.path(), "123", &command);
        bash.env("SLURM_JOB_ID", "4711").env("SLURM_RESTART_COUNT", restarts);
        bash
    };
    let notes = || {
        let list = [folder.path().to_path_buf(), folder.path().join("out")];
        let entries = list.iter().filter_map(|folder| std::fs::read_dir(folder).ok()).flatten();
        let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().to_string());
        names.filter(|name| name.contains("4711")).count()
    };
    let code = |bash: &mut Command| {
        let outcome = run(bash);
        println!("{}{}", outcome.stdout, outcome.stderr);
        outcome.code
    };
    // A page that the job did not write is refused by every start.
    std::fs::create_dir_all(&output).expect("a folder");
    let other = "<!doctype html>\nof somebody else";
    std::fs::write(&page, other).expect("a page");
    for restarts in ["0", "1", "2"] {
        assert_eq!(code(&mut job(restarts, &[])), Some(2));
        assert_eq!((text(&page).as_str(), notes()), (other, 0));
    }
    // It is replaced if `--overwrite` was given from the beginning.
    assert_eq!(code(&mut job("1", &["--overwrite"])), Some(0));
    assert_ne!(text(&page), other);
    // A page that the first start wrote before its node was lost is replaced by the next start.
    std::fs::remove_dir_all(folder.path().join("out")).expect("the folder");
    assert_eq!(code(job("0", &[]).env("LOST_NODE", "1")), None);
    assert!(page.is_file());
    assert_eq!((notes(), code(&mut job("1", &[])), notes()), (1, Some(0), 0));
    // The job has ended: a later start with the same number refuses.
    assert_eq!(code(&mut job("2", &[])), Some(2));
}
