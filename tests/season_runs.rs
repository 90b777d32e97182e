//! Runs of a season with the names of TAIGA's tables: grouping, order, times, rates of live time,
//! and telescopes that record the same showers.

use crate::support::scores::{Scores, write_folder};
use crate::support::{
    Events, arguments, configuration, folder, hash, json, program, ranks, run, seed, succeed,
    trained,
};
use serde_json::Value;
use std::path::{Path, PathBuf};
use taiga_flow::statistics::OnOff;
use taiga_flow_gpu::random::{Stream, mix};

const SECOND: i64 = 1_000_000_000;
/// 2022-12-01 17:00 UTC.
const EVENING: i64 = 1_669_914_000 * SECOND;
const POSITIONS: usize = 6;
const THRESHOLD: f64 = 0.0;

/// Parameters of a simulated run.
#[derive(Clone)]
struct Plan {
    number: u64,
    events: u64,
    start_ns: i64,
    rate_hz: f64,
    /// Additional share of events that pass at the source.
    excess: f64,
    /// Start and duration of bad weather [s after the start].
    bad: Option<[f64; 2]>,
}

impl Plan {
    fn new(number: u64) -> Plan {
        let start_ns = EVENING + number as i64 * 3600 * SECOND;
        Plan { number, events: 2000, start_ns, rate_hz: 8.0, excess: 0.02, bad: None }
    }

    /// Draws scores at six positions; about one in fifty passes at each.
    fn scores(&self) -> Scores {
        let stream = |name: &str| Stream::new(seed(), name, &[self.number]);
        let (steps, draws, sizes) = (stream("steps"), stream("draws"), stream("sizes"));
        let mut scores = Scores {
            positions: (0..POSITIONS).map(|k| 60.0 * k as f64).collect(),
            threshold: THRESHOLD,
            keys: Vec::new(),
            at_positions: Vec::new(),
            status: vec![0; self.events as usize * POSITIONS],
            copied: Vec::new(),
            quality: None,
            source_offset: Some([1.2, 1.2]),
            model: "ab".repeat(32),
            input: format!("{}.h5", self.number),
        };
        let (mut times, mut bits, mut all, mut size) = (vec![], vec![], vec![], vec![]);
        let mut seconds = 0.0;
        for event in 0..self.events {
            seconds -= (1.0 - steps.uniform(event)).ln() / self.rate_hz;
            let bad = self.bad.is_some_and(|[from, long]| (0.0..long).contains(&(seconds - from)));
            times.push(self.start_ns + (seconds * 1e9) as i64);
            bits.push(u32::from(bad));
            size.push((200.0 * (1.5 * sizes.normal(event)).exp()) as f32);
            for k in 0..POSITIONS as u64 {
                let at = event * POSITIONS as u64 + k;
                let least = 0.98 - if k == 0 { self.excess } else { 0.0 };
                all.push((draws.uniform(at) - least) as f32);
            }
        }
        scores.keys = vec![
            ("event_id".to_string(), (0..self.events as i64).collect()),
            ("unix_time_ns".to_string(), times),
        ];
        scores.quality = Some((vec!["weather_mark > 5".to_string()], bits));
        scores.at_positions = vec![
            ("score".to_string(), "nat".to_string(), all.clone()),
            ("log_prob".to_string(), "nat".to_string(), all),
        ];
        scores.copied = vec![("size".to_string(), "p.e.".to_string(), size)];
        scores
    }
}

/// Adds a key with one value for all rows.
fn with_key(mut scores: Scores, name: &str, value: i64) -> Scores {
    let rows = scores.rows();
    scores.keys.push((name.to_string(), vec![value; rows]));
    scores
}

/// Returns a key of 63 random bits, like a hash.
fn hash_key(number: u64) -> i64 {
    (mix(number ^ 0x5eed) >> 1 | 1 << 61) as i64
}

/// Writes the files and creates their report.
fn season(at: &Path, files: &[(&str, Scores)], settings: &str) -> (Value, String) {
    let listed: Vec<(&str, &Scores)> = files.iter().map(|(name, s)| (*name, s)).collect();
    let scores = write_folder(&at.join("scores"), &listed);
    let path = at.join("season.toml");
    std::fs::write(&path, settings).expect("settings");
    let output = at.join("report");
    let report = json(&arguments!["season", &scores, "-o", &output, "-c", &path]);
    (report, std::fs::read_to_string(output.join("season.html")).expect("a page"))
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("no number: {value}"))
}

fn texts(value: &Value) -> Vec<String> {
    let all = value.as_array().expect("a list").iter();
    all.map(|text| text.as_str().expect("a text").to_string()).collect()
}

/// Returns the counts of a row of the report.
fn counts(of: &Value) -> OnOff {
    let off: Vec<u64> = of["off"]
        .as_array()
        .expect("counts")
        .iter()
        .map(|n| n.as_u64().expect("a count"))
        .collect();
    OnOff::new(of["on"].as_u64().expect("a count"), &off).expect("positions")
}

#[test]
fn rate_excludes_hours_of_bad_weather() {
    let folder = folder();
    // 7 Hz; the last of 4 h are bad, and only the first count.
    let mut plan = Plan { rate_hz: 7.0, events: 60_000, ..Plan::new(0) };
    plan.bad = Some([2000.0, 1e9]);
    let (report, page) = season(folder.path(), &[("night.h5", plan.scores())], "");
    let total = &report["total"];
    let (live, rate) = (number(&total["live_s"]), number(&total["rate_hz"]));
    let error = (7.0 / live).sqrt();
    assert!((live - 2000.0).abs() < 2.0, "{live} s");
    assert!((rate - 7.0).abs() < 5.0 * error, "{rate} ± {error} Hz");
    assert!((number(&total["live_events"]) / live - rate).abs() < 1e-9);
    // All events divided by the live time would give four times the rate.
    assert!(number(&total["events"]) / live > 4.0 * rate);
    assert!(page.contains("events in live time"));
}

#[test]
fn portions_join_runs_in_time_order() {
    let folder = folder();
    // Two telescopes, three runs, two portions each. run_id is a hash per file and portion, and
    // the order of the hashes differs from the order in time.
    let mut files = Vec::new();
    for (index, (name, telescope, run)) in [
        ("IACT02/021222.01_a.h5", 2, 20_221_202_001),
        ("IACT01/021222.01_a.h5", 1, 20_221_202_001),
        ("IACT01/011222.05_a.h5", 1, 20_221_201_005),
        ("IACT01/011222.04_a.h5", 1, 20_221_201_004),
    ]
    .into_iter()
    .enumerate()
    {
        let start = match run {
            20_221_201_004 => 0,
            20_221_201_005 => 3600,
            _ => 86_400 + 40_000 * (telescope - 1),
        };
        let plan = Plan { start_ns: EVENING + start * SECOND, ..Plan::new(index as u64) };
        let mut scores = with_key(plan.scores(), "run", run);
        let half = scores.rows() / 2;
        let portion = |row: usize| u64::from(row >= half);
        let hashes = (0..scores.rows()).map(|row| hash_key(2 * index as u64 + portion(row)));
        scores.keys.push(("run_id".to_string(), hashes.collect()));
        if index != 2 {
            let portions = (0..scores.rows()).map(|row| 1 + portion(row) as i64);
            scores.keys.push(("portion".to_string(), portions.collect()));
        }
        files.push((name, scores));
    }
    let (report, page) = season(folder.path(), &files, "");
    let runs = report["runs"].as_array().expect("runs");
    let found: Vec<(&str, i64)> = runs
        .iter()
        .map(|r| (r["run"].as_str().unwrap(), r["telescope"].as_i64().unwrap()))
        .collect();
    assert_eq!(
        found,
        [("20221201004", 1), ("20221201005", 1), ("20221202001", 1), ("20221202001", 2)]
    );
    assert!(runs.iter().all(|run| run["portions"] == 2), "{runs:?}");
    let portions = report["portions"].as_array().expect("portions");
    let names: Vec<&str> = portions.iter().map(|p| p["name"].as_str().unwrap()).collect();
    let short = |number: u64| format!("{:016x}", hash_key(number))[..12].to_string();
    let [fourth, fifth] = [short(4), short(5)];
    assert_eq!(names, ["1", "2", &fourth, &fifth, "1", "2", "1", "2"]);
    // Live time continues between portions.
    let live = number(&report["total"]["live_s"]);
    let spans: f64 =
        runs.iter().map(|r| (number(&r["end_ns"]) - number(&r["start_ns"])) / 1e9).sum();
    assert!((live - spans).abs() < 1e-3 && (live - 1000.0).abs() < 100.0, "{live} {spans}");
    assert_eq!(report["candidates"][0]["run"].as_i64().map(|run| run / 100_000), Some(202_212));
    for hash in 0..8 {
        assert!(!page.contains(&hash_key(hash).to_string()), "a hash is shown as a number");
    }
    assert!(page.contains("20221201004"));
    // The same telescopes at other times have no showers in common.
    assert_eq!(report["total"]["showers"], "distinct");
    let compared =
        json(&arguments!["compare", folder.path().join("scores"), folder.path().join("scores")]);
    let compared = texts(&compared["runs"]);
    assert_eq!(compared, ["20221201004", "20221201005", "20221202001", "20221202001"]);
}

#[test]
fn season_of_a_folder_with_links_is_read_once() {
    let folder = folder();
    let files = [("night-0/a.h5", Plan::new(0).scores()), ("night-1/b.h5", Plan::new(1).scores())];
    let (plain, _) = season(folder.path(), &files, "");
    let at = |name: &str| folder.path().join(name);
    for (target, link) in [(".", "here"), ("..", "night-1/up"), ("../..", "night-0/above")] {
        std::os::unix::fs::symlink(target, at("scores").join(link)).expect("a link");
    }
    let (scores, settings) = (at("scores"), at("season.toml"));
    let ask = arguments!["season", &scores, "-o", at("again"), "-c", &settings];
    assert_eq!(json(&ask)["total"], plain["total"]);
}

#[test]
fn hashed_runs_are_short_and_warned_of() {
    let folder = folder();
    let plan = Plan { events: 400, ..Plan::new(0) };
    let mut scores = plan.scores();
    let of_row = |row: usize| u64::from(row >= 200);
    scores.keys.push(("run_id".to_string(), (0..400).map(|r| hash_key(of_row(r))).collect()));
    scores.keys.push(("portion".to_string(), (0..400).map(|r| of_row(r) as i64).collect()));
    let (report, page) = season(folder.path(), &[("table.h5", scores)], "");
    let runs: Vec<&str> =
        report["runs"].as_array().unwrap().iter().map(|run| run["run"].as_str().unwrap()).collect();
    let short = |number: u64| format!("{:016x}", hash_key(number))[..12].to_string();
    assert_eq!(runs, [short(0), short(1)], "in time order");
    assert!(report["warnings"].to_string().contains("a portion counts as a run"), "{report}");
    assert!(page.contains(&short(0)) && !page.contains(&hash_key(0).to_string()));
}

#[test]
fn run_with_times_in_seconds_is_excluded() {
    let folder = folder();
    let timed = with_key(Plan { events: 4000, ..Plan::new(0) }.scores(), "run", 20_221_201_001);
    let mut other = with_key(Plan::new(1).scores(), "run", 20_221_201_002);
    other.key("unix_time_ns").iter_mut().for_each(|time| *time /= SECOND);
    let files = [("a.h5", timed.clone()), ("b.h5", other)];
    let (report, page) = season(folder.path(), &files, "");
    let alone = crate::support::folder();
    let (only, _) = season(alone.path(), &[("a.h5", timed)], "");
    let (total, of_timed) = (&report["total"], &only["total"]);
    for same in ["live_s", "live_events", "rate_hz", "per_root_hour", "gaps"] {
        assert_eq!(total[same], of_timed[same], "{same}");
    }
    // Counts of all runs divided by the hours of some of them would not be a rate.
    let found = |of: &Value| {
        let points = of["scan"]["points"].as_array().expect("points").iter();
        points.filter(|point| !point["needed_of_found"].is_null()).count()
    };
    assert!(found(&report) == 0 && found(&only) > 0, "{}", report["scan"]);
    assert_eq!((&total["events"], &total["without_time"]), (&6000.into(), &2000.into()));
    assert!(total["on"].as_u64() > of_timed["on"].as_u64(), "counts are kept");
    let hours = number(&of_timed["live_s"]) / 3600.0;
    let sigma = counts(of_timed).significance();
    assert!((number(&total["per_root_hour"]) - sigma / hours.sqrt()).abs() < 1e-9);
    let run = &report["runs"][1];
    assert_eq!(run["run"], "20221201002");
    for absent in ["live_s", "rate_hz", "per_root_hour", "night", "season", "start_ns"] {
        assert!(run[absent].is_null(), "{absent}: {run}");
    }
    assert_eq!(report["cumulative"].as_array().expect("steps").len(), 1);
    let warnings = texts(&report["warnings"]);
    let named = "run 20221201002: times outside of 2000 to 2100: unix_time_ns holds s?; left out of live time, rates and σ/√h";
    assert!(warnings.iter().any(|warning| warning == named), "{warnings:?}");
    assert!(!page.contains("1969-12") && !page.contains("1970-01"), "an impossible year");
    assert!(page.contains("without times"));
    // One or two wrong times only cause a warning.
    let third = crate::support::folder();
    let mut few = Plan::new(0).scores();
    few.key("unix_time_ns")[7] = 0;
    few.key("unix_time_ns")[9] = 0;
    let (report, _) = season(third.path(), &[("few.h5", few)], "");
    assert!(number(&report["total"]["live_s"]) > 100.0);
    let warnings = report["warnings"].to_string();
    assert!(
        warnings.contains("2 time(s) outside of 2000 to 2100, first 0 at few.h5, row 7"),
        "{warnings}"
    );
}

#[test]
fn one_name_for_two_thresholds_is_refused() {
    let folder = folder();
    let one = Plan::new(0).scores();
    let with = |threshold: f64, model: &str| {
        let mut scores = Plan::new(1).scores();
        scores.threshold = threshold;
        scores.model = model.repeat(32);
        scores
    };
    for (other, code) in [
        (with(THRESHOLD + 1.0, "ab"), 3),
        // Another model with its own threshold.
        (with(THRESHOLD + 1.0, "cd"), 0),
        (with(THRESHOLD, "ab"), 0),
    ] {
        let scores = folder.path().join(format!("{}-{}", other.threshold, other.model));
        write_folder(&scores, &[("a.h5", &one), ("b.h5", &other)]);
        let (output, settings) = (folder.path().join("season"), folder.path().join("season.toml"));
        std::fs::write(&settings, "other_model = \"flag\"\n").expect("settings");
        let season = arguments!["season", &scores, "-o", &output, "-c", &settings, "--overwrite"];
        let outcome = run_program(&season);
        assert_eq!(outcome.code, Some(code), "{}", outcome.stderr);
        let named = outcome.stderr.contains("different thresholds");
        assert_eq!(named, code == 3, "{}", outcome.stderr);
    }
}

#[test]
fn season_of_two_models_is_refused() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    let of = |number: u64, model: &str| Scores {
        model: model.repeat(32),
        ..with_key(Plan::new(number).scores(), "run", 20_221_201_001 + number as i64)
    };
    let [one, same, other] = [of(0, "ab"), of(1, "ab"), of(2, "cd")];
    let season = |folders: &[&Path], settings: &str| {
        std::fs::write(at("season.toml"), settings).expect("settings");
        let mut all = arguments!["season", "--overwrite", "-o", at("report")].to_vec();
        all.extend(arguments!["-c", at("season.toml")]);
        all.extend(folders.iter().map(|folder| folder.as_os_str().to_os_string()));
        run_program(&all)
    };
    let a = write_folder(&at("a"), &[("a.h5", &one)]);
    let b = write_folder(&at("b"), &[("b.h5", &same)]);
    let c = write_folder(&at("c"), &[("c.h5", &other)]);
    let both = write_folder(&at("both"), &[("a.h5", &one), ("c.h5", &other)]);
    assert_eq!(season(&[&a, &b], "").code, Some(0), "two scorings of one model");
    for folders in [&[a.as_path(), &c][..], &[both.as_path()]] {
        let outcome = season(folders, "");
        assert_eq!(outcome.code, Some(3), "{}", outcome.stderr);
        for part in ["several models", "abababababab", "cdcdcdcdcdcd", "[[models]]"] {
            assert!(outcome.stderr.contains(part), "no '{part}' in {}", outcome.stderr);
        }
    }
    assert_eq!(season(&[&a, &c], "other_model = \"flag\"\n").code, Some(0));
    // The entry decides: the run of the other model is not counted.
    let entry = format!("[[models]]\nmodel = \"{}\"\n", "ab".repeat(8));
    assert_eq!(season(&[&a, &c], &entry).code, Some(4));
    // Folds leave out the runs of their own training.
    for (path, left_out) in [(&a, "c.h5"), (&c, "a.h5")] {
        let manifest = path.join("manifest.json");
        let text = std::fs::read_to_string(&manifest).expect("a manifest");
        let mut value: Value = serde_json::from_str(&text).expect("JSON");
        value["left_out"] = serde_json::json!([left_out]);
        std::fs::write(&manifest, value.to_string()).expect("a manifest");
    }
    let outcome = season(&[&a, &c], "");
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    assert!([outcome.stdout, outcome.stderr].concat().contains("Several models have scored"));
}

#[test]
fn season_without_one_manifest_is_refused() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    let of =
        |number: u64| with_key(Plan::new(number).scores(), "run", 20_221_201_001 + number as i64);
    let nights: Vec<PathBuf> = (0..3)
        .map(|n| write_folder(&at(&format!("scores/night-{n}")), &[("a.h5", &of(n))]))
        .collect();
    let season = |folders: &[PathBuf]| {
        let mut all = arguments!["season", "--overwrite", "-o", at("report")].to_vec();
        all.extend(folders.iter().map(|folder| folder.as_os_str().to_os_string()));
        run_program(&all)
    };
    assert_eq!(season(&nights).code, Some(0));
    // The parent has no manifest, and one of the nights has none.
    assert_eq!(season(&[at("scores")]).code, Some(3));
    std::fs::rename(nights[1].join("manifest.json"), at("moved.json")).expect("a manifest");
    let outcome = season(&nights);
    assert_eq!(outcome.code, Some(3), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("night-1/manifest.json"), "{}", outcome.stderr);
    // Score files of a night without a manifest below a folder that has one.
    std::fs::rename(&nights[1], nights[0].join("night-1")).expect("a folder");
    let outcome = season(&nights[..1]);
    assert_eq!(outcome.code, Some(3), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("the manifest does not list"), "{}", outcome.stderr);
}

#[test]
fn warnings_of_the_scoring_are_repeated() {
    let folder = folder();
    let scores = with_key(Plan::new(0).scores(), "run", 20_221_201_001);
    let files = [("a.h5", scores)];
    let (report, _) = season(folder.path(), &files, "");
    assert!(!report["warnings"].to_string().contains("no telescope"), "{report}");
    let manifest = folder.path().join("scores/manifest.json");
    let text = std::fs::read_to_string(&manifest).expect("a manifest");
    let mut value: Value = serde_json::from_str(&text).expect("JSON");
    value["files"][0]["warnings"] = serde_json::json!(["'alpha': radians?"]);
    std::fs::write(&manifest, value.to_string()).expect("a manifest");
    let scores = folder.path().join("scores");
    let report = json(&arguments!["season", &scores, "-o", folder.path().join("again")]);
    let warnings = report["warnings"].to_string();
    assert!(warnings.contains("values that no telescope records, such as a.h5"), "{warnings}");
    assert!(warnings.contains("'alpha': radians?"), "{warnings}");
}

#[test]
fn run_number_of_another_date_is_warned_of() {
    let folder = folder();
    let of = |number: u64, run: i64| with_key(Plan::new(number).scores(), "run", run);
    let files = [("a.h5", of(0, 20_221_201_001)), ("b.h5", of(1, 20_230_105_002))];
    let (report, _) = season(folder.path(), &files, "");
    let warnings = texts(&report["warnings"]).join("; ");
    assert!(warnings.contains("20230105002: its number has the date 2023-01-05"), "{warnings}");
    assert!(!warnings.contains("date 2022-12-01"), "{warnings}");
}

#[test]
fn telescopes_of_one_shower_are_warned_of() {
    let folder = folder();
    // Both telescopes record the same showers, so their sum overstates the significance.
    let scores = with_key(Plan { excess: 0.05, ..Plan::new(0) }.scores(), "run", 20_221_201_001);
    let mut second = scores.clone();
    second.input = "other.h5".to_string();
    let files = [("IACT01/a.h5", scores), ("IACT02/a.h5", second)];
    let (report, page) = season(folder.path(), &files, "");
    let sigma = |of: &Value| number(&of["significance"]);
    let (one, sum) = (sigma(&report["groups"][0]), sigma(&report["total"]));
    assert!(one > 2.0 && (sum / one - std::f64::consts::SQRT_2).abs() < 1e-6, "{one} {sum}");
    assert_eq!(report["total"]["showers"], "independent");
    assert!(report["groups"].as_array().unwrap().iter().all(|g| g["showers"] == "distinct"));
    let warning = "telescopes are counted as independent: the same shower may count several times";
    assert!(report["warnings"].to_string().contains(warning), "{report}");
    assert!(page.contains(warning) && page.contains("≤ "), "no upper limit on the page");
    let text = succeed(&mut program(&arguments![
        "season",
        folder.path().join("scores"),
        "-o",
        folder.path().join("second")
    ]))
    .stdout;
    assert!(text.contains(warning), "{text}");
}

#[test]
fn telescopes_that_share_showers_are_combined() {
    let folder = folder();
    // The second telescope records the same showers with half the size, and has a run of its own.
    let plan = Plan { excess: 0.05, ..Plan::new(0) };
    let run = |scores| with_key(with_key(scores, "run", 20_221_201_001), "run_id", 77);
    let first = run(plan.scores());
    let mut second = first.clone();
    second.input = "second.h5".to_string();
    second.column("size").iter_mut().for_each(|size| *size *= 0.5);
    // Its best positions differ and must not count.
    let scores = second.column("score");
    scores.chunks_mut(POSITIONS).for_each(|of_event| of_event.rotate_right(1));
    let own = with_key(Plan::new(9).scores(), "run", 20_221_201_002);
    let own = with_key(own, "run_id", 78);
    let files = [("IACT01/a.h5", first), ("IACT02/a.h5", second), ("IACT02/b.h5", own)];
    let key = "shower_key = [\"run_id\", \"event_id\"]\n";
    let (report, page) = season(folder.path(), &files, key);
    let total = &report["total"];
    assert_eq!(total["showers"], "combined");
    // Expected: counts of the first telescope and of the separate run, and showers that only the
    // second telescope counts.
    let counted = |scores: &Scores| -> Vec<Option<(f32, usize)>> {
        let of = &scores.at_positions[0].2;
        let best = |event: &[f32]| {
            let passing = event.iter().enumerate().filter(|(_, score)| **score >= 0.0);
            passing.map(|(k, score)| (*score, k)).max_by(|a, b| a.0.total_cmp(&b.0))
        };
        of.chunks(POSITIONS).map(best).collect()
    };
    let (mut expected, mut repeated) = ([0_u64; POSITIONS], 0_u64);
    let of_both = counted(&files[0].1).into_iter().zip(counted(&files[1].1));
    for (one, two) in of_both {
        repeated += u64::from(one.is_some() && two.is_some());
        if let Some((_, k)) = one.or(two) {
            expected[k] += 1;
        }
    }
    counted(&files[2].1).into_iter().flatten().for_each(|(_, k)| expected[k] += 1);
    assert!(repeated > 100);
    assert_eq!(total["repeated_images"], repeated);
    // Images of one shower are not scanned, because they are not independent.
    assert!(report["scan"].is_null(), "{}", report["scan"]);
    assert_eq!((&total["on"], &total["off"]), (&expected[0].into(), &expected[1..].into()));
    let sigma = OnOff::new(expected[0], &expected[1..]).expect("positions").significance();
    assert!((number(&total["significance"]) - sigma).abs() < 1e-9);
    let steps = report["cumulative"].as_array().expect("steps");
    assert!((number(&steps[steps.len() - 1]["significance"]) - sigma).abs() < 1e-9);
    assert!(!report["warnings"].to_string().contains("independent") && !page.contains("≤ "));
    for count in [2, 3] {
        let (scores, settings) = (folder.path().join("scores"), folder.path().join("season.toml"));
        let output = folder.path().join(format!("ranks-{count}"));
        let ask = arguments!["season", &scores, "-o", &output, "-c", &settings];
        succeed(&mut ranks(count, &ask));
        let file = |of: &Path| hash(&of.join("season.json"));
        assert_eq!(file(&output), file(&folder.path().join("report")), "{count} ranks");
    }
    // Keys that do not exist, or are equal for two events of one telescope.
    let refused = |key: &str, code: i32, text: &str| {
        let path = folder.path().join("wrong.toml");
        std::fs::write(&path, key).expect("settings");
        let (scores, output) = (folder.path().join("scores"), folder.path().join("no"));
        let outcome = run_program(&arguments!["season", &scores, "-o", &output, "-c", &path]);
        assert_eq!(outcome.code, Some(code), "{}", outcome.stderr);
        assert!(outcome.stderr.contains(text), "{}", outcome.stderr);
    };
    refused("shower_key = [\"obs_id\"]\n", 2, "no such key for shower_key");
    refused("shower_key = [\"event_id\"]\n", 3, "several events of one telescope");
}

fn run_program(arguments: &[std::ffi::OsString]) -> crate::support::Outcome {
    run(&mut program(arguments))
}

#[test]
fn shifted_size_flagged_not_a_moving_telescope() {
    let folder = folder();
    let mut files: Vec<(String, Scores)> = (0..6)
        .map(|n| (format!("{n}.h5"), Plan { events: 20_000, ..Plan::new(n) }.scores()))
        .collect();
    for (n, (_, scores)) in files.iter_mut().enumerate() {
        let rows = scores.rows();
        let elevation = (0..rows).map(|row| (40 + 5 * n) as f32 + 1e-3 * row as f32).collect();
        scores.copied.push(("tel_el".to_string(), "deg".to_string(), elevation));
        *scores = with_key(scores.clone(), "run", 20_221_201_000 + n as i64);
    }
    // 30 % larger sizes: KS 0.07 for a size distribution this wide.
    files[3].1.column("size").iter_mut().for_each(|size| *size *= 1.3);
    let files: Vec<(&str, Scores)> = files.iter().map(|(n, s)| (n.as_str(), s.clone())).collect();
    let (report, _) = season(folder.path(), &files, "");
    for (n, run) in report["runs"].as_array().expect("runs").iter().enumerate() {
        let drift = run["drift"].as_array().expect("drift");
        let columns: Vec<&str> = drift.iter().map(|d| d["column"].as_str().unwrap()).collect();
        assert_eq!(columns, ["log_prob", "size"], "columns that change by design are excluded");
        for of in drift {
            let expected = n == 3 && of["column"] == "size";
            assert_eq!(of["flagged"], expected, "run {n}: {of}");
            if expected {
                let ks = number(&of["ks"]);
                assert!((0.05..0.1).contains(&ks), "not detected by the old limits: {of}");
            }
        }
    }
    // The list of columns is a setting.
    let again = crate::support::folder();
    let (report, _) = season(again.path(), &files, "[drift]\nleave_out = [\"log_prob\"]\n");
    let drift = report["runs"][0]["drift"].as_array().expect("drift");
    assert_eq!(drift.len(), 2);
    assert!(drift.iter().any(|d| d["column"] == "tel_el" && d["flagged"] == true), "{drift:?}");
}

fn taiga_table() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/taiga-experiment.csv");
    std::fs::read_to_string(path).expect("a table")
}

#[test]
fn convert_refuses_times_in_seconds() {
    let folder = folder();
    let path = folder.path().join("011222.05_out.csv");
    let table = taiga_table().replace("1700000000000000003", "1700000000");
    assert!(table.contains(",1700000000,"));
    std::fs::write(&path, table).expect("a table");
    let output = folder.path().join("out.h5");
    let outcome = run(&mut program(&arguments!["convert", "-o", &output, &path]));
    assert_eq!(outcome.code, Some(3), "{}", outcome.stderr);
    let expected = [
        "outside of 2000 to 2100",
        "unix_time_ns",
        "row 4",
        "1700000000",
        "may be in s; TAIGA writes ns",
    ];
    for text in expected {
        assert!(outcome.stderr.contains(text), "no '{text}' in {}", outcome.stderr);
    }
    assert!(!output.exists());
}

#[test]
fn copies_differing_in_a_byte_are_found() {
    let folder = folder();
    let outputs: Vec<PathBuf> = ["", "\n"]
        .iter()
        .enumerate()
        .map(|(number, end)| {
            let path = folder.path().join(format!("{number}/011222.05_out.csv"));
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
            std::fs::write(&path, format!("{}{end}", taiga_table().trim_end())).expect("a table");
            let output = folder.path().join(format!("{number}.h5"));
            succeed(&mut program(&arguments!["convert", "-o", &output, &path]));
            output
        })
        .collect();
    let outcome = run(&mut program(&arguments!["check", &outputs[0], &outputs[1]]));
    let printed = [outcome.stdout, outcome.stderr].concat();
    assert!(
        outcome.code == Some(3) && printed.contains("60 of 60 rows"),
        "{:?}: {printed}",
        outcome.code
    );
}

/// Writes toy hadrons with times; the first `in_seconds` rows have seconds.
fn with_times(path: &Path, in_seconds: usize) -> PathBuf {
    let mut events = Events::read(&trained().hadron).chosen(&(0..2000).collect::<Vec<usize>>());
    let time = |row: usize| EVENING + row as i64 * SECOND / 8;
    let times = (0..2000).map(|row| if row < in_seconds { time(row) / SECOND } else { time(row) });
    events.keys.push(("unix_time_ns".to_string(), times.collect()));
    let run = 20_221_201_001 + in_seconds as i64;
    events.keys.push(("run".to_string(), vec![run; 2000]));
    events.write(path);
    path.to_path_buf()
}

#[test]
fn check_and_score_find_times_in_seconds() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    let good = with_times(&at("good.h5"), 0);
    let bad = with_times(&at("bad.h5"), 2000);
    succeed(&mut program(&arguments!["check", &good]));
    let outcome = run(&mut program(&arguments!["check", &bad]));
    assert_eq!(outcome.code, Some(3), "{}{}", outcome.stdout, outcome.stderr);
    let expected = "'unix_time_ns' is outside of 2000 to 2100 in 2000 of 2000 rows: 1669914000 (plausible in s) in row 0";
    assert!(outcome.stdout.contains(expected), "{}", outcome.stdout);
    // One wrong row of 2000 is a warning.
    succeed(&mut program(&arguments!["check", with_times(&at("one.h5"), 1)]));
    // Scores do not depend on times: wrong times are counted with a warning, also when the outputs
    // are read again.
    let score = |output: &str| {
        let score = arguments!["score", "-m", &trained().model, "-o", &at(output), &good, &bad];
        let printed = succeed(&mut program(&score)).stderr;
        let text = std::fs::read_to_string(at(output).join("manifest.json")).expect("a manifest");
        (printed, text)
    };
    let (printed, manifest) = score("scores");
    assert!(printed.contains("bad.h5: 2000 of 2000 rows have a time"), "{printed}");
    assert!(!printed.contains("good.h5: "), "{printed}");
    let files: Value = serde_json::from_str(&manifest).expect("JSON");
    let of = |n: usize| files["files"][n]["implausible_times"].as_u64();
    assert_eq!((of(0), of(1)), (Some(2000), None), "{manifest}");
    std::fs::remove_dir_all(at("scores/ledger")).expect("a ledger");
    let (printed, again) = score("scores");
    assert!(printed.contains("bad.h5: 2000 of 2000 rows"), "{printed}");
    assert_eq!(again, manifest);
    // `season` excludes the file from all times.
    let threshold = ["--threshold", "-1e9"].map(std::ffi::OsString::from);
    let ask = arguments!["season", &at("scores"), "-o", &at("report")];
    let season = json(&[&ask[..], &threshold[..]].concat());
    assert_eq!(season["total"]["without_time"], 2000);
}

#[test]
fn nan_counts_of_card_score_and_evaluate_agree() {
    let folder = folder();
    let mut events = Events::read(&trained().gamma).chosen(&(0..3000).collect::<Vec<usize>>());
    let stream = Stream::new(seed(), "holes", &[]);
    let mut holes = [0_u64; 2];
    for row in 0..3000 {
        match stream.bits(row as u64) % 10 {
            // Not finite, inside and outside the cuts.
            0 | 1 => {
                let outside = stream.bits(row as u64) % 10 == 1;
                events.feature("width")[row] = f32::NAN;
                events.feature("size")[row] = if outside { 10.0 } else { 200.0 };
                holes[0] += 1;
            }
            2 => {
                events.feature("con2")[row] = -1.0; // outside the domain of its transform
                holes[1] += 1;
            }
            _ => {}
        }
    }
    let path = folder.path().join("holes.h5");
    events.write(&path);
    let configuration = configuration(folder.path(), &path, "[train]\nepochs = 1\n");
    let output = folder.path().join("run");
    let train =
        arguments!["train", "-c", &configuration, "-o", &output, "--set", "data.bad_rows=0.9"];
    let card = json(&train);
    let model = output.join("model.safetensors");
    let scores = folder.path().join("scores");
    succeed(&mut program(&arguments!["score", "-m", &model, "-o", &scores, &path]));
    let text = std::fs::read_to_string(scores.join("manifest.json")).expect("a manifest");
    let manifest: Value = serde_json::from_str(&text).expect("JSON");
    let evaluate = folder.path().join("evaluation");
    let evaluation = json(&arguments![
        "evaluate",
        "-m",
        &model,
        "--gamma",
        &path,
        "--hadron",
        &trained().hadron,
        "-o",
        &evaluate,
        "--part",
        "all"
    ]);
    let file = &manifest["files"][0];
    println!("{file}\n{}", evaluation["about"]["files"]);
    let of_card = [&card["rows"]["not_finite"], &card["rows"]["out_of_domain"]];
    let of = |status: &Value| {
        ["not finite", "outside a transform's domain"].map(|name| status[name].as_u64())
    };
    assert_eq!(of_card.map(Value::as_u64), holes.map(Some));
    assert_eq!(of(&file["status"]), holes.map(Some));
    assert_eq!(of(&evaluation["about"]["files"][0]["unusable"]), holes.map(Some));
    assert_eq!(file["unusable"].as_u64(), Some(holes[0] + holes[1]));
}

#[test]
fn counts_over_positions_are_named_as_pairs() {
    let folder = folder();
    let configuration = folder.path().join("score.toml");
    std::fs::write(&configuration, "[score]\npositions = 6\n").expect("a configuration");
    let scores = folder.path().join("scores");
    let score = arguments![
        "score",
        "-c",
        &configuration,
        "-m",
        &trained().model,
        "-o",
        &scores,
        &trained().hadron
    ];
    let printed = succeed(&mut program(&score)).stdout;
    let text = std::fs::read_to_string(scores.join("manifest.json")).expect("a manifest");
    let manifest: Value = serde_json::from_str(&text).expect("JSON");
    let cut = manifest["files"][0]["status"]["outside the cuts"].as_u64().expect("a count");
    let line = format!("{cut} of 180000 (event, position) pairs outside the cuts");
    assert!(printed.contains(&line), "no '{line}' in {printed}");
    assert_eq!(manifest["status_counts"], "(event, position) pairs");
    let plain = folder.path().join("plain");
    let score = arguments!["score", "-m", &trained().model, "-o", &plain, &trained().hadron];
    let printed = succeed(&mut program(&score)).stdout;
    assert!(printed.contains("rows outside the cuts") && !printed.contains("pairs"), "{printed}");
    let text = std::fs::read_to_string(plain.join("manifest.json")).expect("a manifest");
    assert!(!text.contains("status_counts"));
}

#[test]
fn duplicate_events_in_a_season_are_refused() {
    let refused = |files: &[(&str, Scores)], settings: &str, texts: &[&str]| {
        let folder = folder();
        let at = folder.path();
        let listed: Vec<(&str, &Scores)> = files.iter().map(|(name, s)| (*name, s)).collect();
        let scores = write_folder(&at.join("scores"), &listed);
        std::fs::write(at.join("season.toml"), settings).expect("settings");
        let command =
            arguments!["season", &scores, "-o", &at.join("report"), "-c", &at.join("season.toml")];
        for mut command in [program(&command), ranks(2, &command)] {
            let outcome = run(&mut command);
            let is_made = at.join("report/season.json").exists();
            assert_eq!(is_made, texts.is_empty(), "{}", outcome.stderr);
            std::fs::remove_dir_all(at.join("report")).ok();
            if texts.is_empty() {
                assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
                continue;
            }
            assert_eq!(outcome.code, Some(3), "{}", outcome.stderr);
            for text in texts {
                assert!(outcome.stderr.contains(text), "no '{text}' in {}", outcome.stderr);
            }
        }
    };
    let numbered = |number: u64| {
        let mut scores = with_key(Plan::new(number).scores(), "run", 20_221_201_001);
        let first = 100_000 * number as i64;
        scores.key("event_id").iter_mut().for_each(|event| *event += first);
        scores
    };
    let [one, other] = [1, 2].map(numbered);
    refused(&[("a.h5", one.clone()), ("b.h5", other.clone())], "", &[]);
    // The same events with another name and content hash.
    let copy = Scores { input: "copy.h5".to_string(), ..one.clone() };
    let files = [("a.h5", one.clone()), ("b.h5", other), ("c.h5", copy.clone())];
    let says = ["duplicate events", " duplicates among", "a.h5", "c.h5"];
    refused(&files, "", &says);
    refused(&files, "allow_repeated_events = true\n", &[]);
    // The same events with other keys.
    let mut renamed = Scores { input: "renamed.h5".to_string(), ..one.clone() };
    renamed.key("run").fill(20_221_201_002);
    let at = folder();
    let (report, _) = season(at.path(), &[("a.h5", one.clone()), ("c.h5", renamed)], "");
    let warnings = texts(&report["warnings"]).join("; ");
    assert!(warnings.contains("equal values and other keys"), "{warnings}");
    // Duplicates within one file.
    let mut twice = one.clone();
    for (_, values) in &mut twice.keys {
        values.extend_from_within(..);
    }
    for (_, _, values) in twice.copied.iter_mut().chain(&mut twice.at_positions) {
        values.extend_from_within(..);
    }
    twice.status.extend_from_within(..);
    if let Some((_, bits)) = &mut twice.quality {
        bits.extend_from_within(..);
    }
    refused(&[("a.h5", twice)], "", &["duplicate events", "a.h5"]);
    // Other scores with the same keys are the same event only if the telescope is known.
    let mut again = copy;
    again.column("size").iter_mut().for_each(|size| *size *= 1.01);
    let files = [("IACT01/a.h5", one.clone()), ("IACT01/b.h5", again.clone())];
    refused(&files, "", &["duplicate events"]);
    let files = [("IACT01/a.h5", one), ("IACT02/b.h5", again)];
    refused(&files, "", &[]);
}

#[test]
fn misplaced_simulations_and_scores_are_found() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    let [one, other, mc] = [1, 2, 3].map(|number| Plan::new(number).scores());
    let scores = write_folder(&at("scores"), &[("a.h5", &one), ("b.h5", &other)]);
    let gammas = write_folder(&at("mc"), &[("g.h5", &mc)]);
    // Another scoring of an input of the season, in another folder.
    let own = write_folder(&at("own"), &[("g.h5", &mc), ("h.h5", &one)]);
    let season = |output: &str, more: &[std::ffi::OsString]| {
        let command = arguments!["season", &scores, "-o", &at(output)];
        [command.as_slice(), more].concat()
    };
    for folder in [&scores, &own] {
        let command = season("refused", &arguments!["--gamma-mc", folder]);
        for mut command in [program(&command), ranks(2, &command)] {
            let outcome = run(&mut command);
            assert_eq!(outcome.code, Some(3), "{}", outcome.stderr);
            for part in ["--gamma-mc has events of the season", "scores/a.h5"] {
                assert!(outcome.stderr.contains(part), "no '{part}' in {}", outcome.stderr);
            }
        }
    }
    let good = run_program(&season("good", &arguments!["--gamma-mc", &gammas]));
    assert!(!good.stdout.contains("known class"), "{}", good.stdout);
    let referred = run_program(&season("referred", &arguments!["--reference", &own]));
    let warning = "1 of 2 files of --reference are files of the season, such as h.h5";
    assert!(referred.stdout.contains(warning), "{}", referred.stdout);
    assert!(good.stdout.contains("spectrum thrown"), "{}", good.stdout);
    // Without OFF positions there is no leak, and no warning about it.
    let [one_alone, mc_alone] = [&one, &mc].map(|scores| {
        let mut alone = scores.clone();
        alone.positions.truncate(1);
        alone.status = alone.status.into_iter().step_by(POSITIONS).collect();
        for (_, _, values) in &mut alone.at_positions {
            *values = values.iter().copied().step_by(POSITIONS).collect();
        }
        alone
    });
    let on = write_folder(&at("on"), &[("a.h5", &one_alone)]);
    let gammas_on = write_folder(&at("mc-on"), &[("g.h5", &mc_alone)]);
    let alone =
        run_program(&arguments!["season", &on, "-o", &at("alone"), "--gamma-mc", &gammas_on]);
    assert_eq!(alone.code, Some(0), "{}", alone.stderr);
    assert!(!alone.stdout.contains("spectrum thrown"), "{}", alone.stdout);
    // The second file is a labelled simulation.
    let file = hdf5::File::open_rw(scores.join("b.h5")).expect("a score file");
    let classes: Vec<i8> = (0..other.rows()).map(|row| [1, 0, 0, -1][row % 4]).collect();
    let group = file.group("scores").expect("the group");
    group.new_dataset_builder().with_data(&classes).create("class").expect("a class column");
    drop((group, file));
    // Update the manifest to the changed file.
    let path = scores.join("manifest.json");
    let text = std::fs::read_to_string(&path).expect("a manifest");
    let mut manifest: Value = serde_json::from_str(&text).expect("JSON");
    manifest["files"][1]["output_blake3"] = hash(&scores.join("b.h5")).into();
    std::fs::write(&path, manifest.to_string()).expect("a manifest");
    let labelled = run_program(&season("labelled", &[]));
    for part in ["1 of 2 score files", "b.h5 (500 gammas, 1000 hadrons)", "--gamma-mc"] {
        assert!(labelled.stdout.contains(part), "no '{part}' in {}", labelled.stdout);
    }
    // The manifest of a file with almost no row inside the cuts.
    manifest["files"][0]["outside"] = 1995.into();
    std::fs::write(&path, manifest.to_string()).expect("a manifest");
    let outside = run_program(&season("outside", &[]));
    let warning = "1 of 2 score files have less than 1 % of their rows inside the model's cuts, such as a.h5 (5 of 2000)";
    assert!(outside.stdout.contains(warning), "{}", outside.stdout);
    // No event passes, so no excess is reported.
    let none = run_program(&season("none", &arguments!["--threshold", "9"]));
    assert!(none.stdout.contains("none: no event counts at any position"), "{}", none.stdout);
    assert!(!none.stdout.contains("0.0000"), "{}", none.stdout);
    for absent in ["significance (Li & Ma)", "σ/√h", "counted wherever"] {
        assert!(!none.stdout.contains(absent), "{absent}: {}", none.stdout);
    }
    assert!(none.stdout.contains("excess below, at 95 %"), "{}", none.stdout);
}

#[test]
fn zero_counts_have_a_limit_and_no_sigma() {
    let folder = folder();
    let [one, mut cut] = [1, 2].map(|number| Plan::new(number).scores());
    // The cuts of the model remove all events of the second run.
    cut.status.fill(4);
    let files = [
        ("a.h5", with_key(one, "run", 20_221_201_001)),
        ("b.h5", with_key(cut, "run", 20_221_201_002)),
    ];
    let (report, page) = season(folder.path(), &files, "");
    let [full, empty] = [&report["runs"][0], &report["runs"][1]];
    assert!(full["significance"].is_number());
    for absent in ["significance", "per_root_hour", "naive"] {
        assert!(empty[absent].is_null(), "{absent}: {empty}");
    }
    let none = OnOff::new(0, &[0; POSITIONS - 1]).expect("positions");
    assert!((number(&empty["upper_limit"]) - none.upper_limit()).abs() < 1e-9, "{empty}");
    assert!(!page.contains("NaN"));
}

#[test]
fn overlapping_runs_are_warned_of() {
    let run = |number: u64, start_s: i64, run: i64| {
        let start_ns = EVENING + start_s * SECOND;
        with_key(Plan { start_ns, ..Plan::new(number) }.scores(), "run", 20_221_201_000 + run)
    };
    let warnings = |files: &[(&str, Scores)]| {
        let folder = folder();
        let (report, _) = season(folder.path(), files, "");
        texts(&report["warnings"]).join("; ")
    };
    // 2000 events at 8 Hz take about 250 s.
    let files = [("a.h5", run(1, 0, 1)), ("b.h5", run(2, 60, 2)), ("c.h5", run(3, 3600, 3))];
    let printed = warnings(&files);
    let named = "runs of one telescope overlap in time, and their live time counts twice: \
                 run 20221201001 and run 20221201002 by ";
    assert!(printed.contains(named), "{printed}");
    assert!(!printed.contains("and run 20221201003 by"), "{printed}");
    let [a, b, c] = files;
    let apart = [("IACT01/a.h5", a.1.clone()), ("IACT02/b.h5", b.1)];
    let printed = warnings(&apart);
    assert!(!printed.contains("overlap in time"), "{printed}");
    let printed = warnings(&[a, c]);
    assert!(!printed.contains("overlap in time"), "{printed}");
}

#[test]
fn runs_with_rows_without_a_score_are_named() {
    let folder = folder();
    let [whole, mut broken] =
        [1, 2].map(|n| with_key(Plan::new(n).scores(), "run", 20_221_201_000 + n as i64));
    // 5 % of the rows have no source position.
    for row in (0..broken.rows()).step_by(20) {
        let of_row = row * POSITIONS..(row + 1) * POSITIONS;
        broken.status[of_row.clone()].fill(1);
        broken.column("score")[of_row].fill(f32::NAN);
    }
    let (report, _) = season(folder.path(), &[("a.h5", whole), ("b.h5", broken)], "");
    let warnings = texts(&report["warnings"]).join("; ");
    assert!(warnings.contains("have no score"), "{warnings}");
    assert!(warnings.contains("run 20221201002 (100 of 2000 rows)"), "{warnings}");
    assert!(!warnings.contains("run 20221201001 ("), "{warnings}");
}

#[test]
fn energies_outside_simulation_are_warned_of() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    let scores = write_folder(&at("scores"), &[("a.h5", &Plan::new(1).scores())]);
    let stream = Stream::new(seed(), "energies", &[]);
    let season = |name: &str, unit: f64, settings: &str| {
        let mut mc = Plan { excess: 0.5, ..Plan::new(7) }.scores();
        mc.input = format!("{name}.h5");
        // Spectral index 2, from 1 to 100 TeV.
        let energy = |row: u64| (unit / (1.0 - 0.99 * stream.uniform(row))) as f32;
        let energies = (0..mc.rows() as u64).map(energy).collect();
        mc.copied.push(("energy_true".to_string(), "TeV".to_string(), energies));
        let mc = write_folder(&at(&format!("{name}-mc")), &[("g.h5", &mc)]);
        let path = at(&format!("{name}.toml"));
        let text =
            format!("[simulation]\nevents = 1000000\nradius_m = 500.0\nindex = 2.0\n{settings}");
        std::fs::write(&path, text).expect("settings");
        let command =
            arguments!["season", &scores, "-o", &at(name), "-c", &path, "--gamma-mc", &mc];
        let report = json(&command);
        let areas = report["simulation"]["area"].as_array().expect("areas").len();
        (areas, texts(&report["warnings"]).join("; "))
    };
    let (areas, printed) = season("right", 1.0, "energy_tev = [1.0, 100.0]\n");
    assert!(areas > 0 && !printed.contains("true energ"), "{printed}");
    let (areas, printed) = season("gev", 1000.0, "energy_tev = [1.0, 100.0]\n");
    assert_eq!(areas, 0);
    assert!(printed.contains("no effective areas: the true energies"), "{printed}");
    assert!(printed.contains("outside of all bins of energy, 2 to 200 TeV"), "{printed}");
    assert!(
        printed.contains("outside of 1 to 100 TeV, which [simulation] energy_tev"),
        "{printed}"
    );
    // About half of them are below 2 TeV.
    let (areas, printed) = season("narrow", 1.0, "energy_tev = [2.0, 100.0]\n");
    assert!(areas > 0 && printed.contains("outside of 2 to 100 TeV"), "{printed}");
}
