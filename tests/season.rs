//! The season report is correct: planted sources have their true excess, nights without a source
//! are consistent with no signal, and the report agrees with the files.

use crate::support::nights::{ANGLES, Cuts, POSITIONS, Pool, calibration, events, poisson};
use crate::support::scores::{Scores, write_folder};
use crate::support::{arguments, folder, hash, json, program, ranks, run, seed, succeed};
use rayon::prelude::*;
use serde_json::Value;
use std::path::Path;
use taiga_flow::config::Class;
use taiga_flow::simulate::toy::ToyEvent;
use taiga_flow::statistics::counts::disjoint::counted_at;
use taiga_flow::statistics::tails::{distance_p_value, normal_below};
use taiga_flow::statistics::{Leak, OnOff};
use taiga_flow_gpu::random::Stream;

/// Seed of the study; it is fixed because the limits belong to one experiment.
const STUDY_SEED: u64 = 20_261_122;
const NULL_NIGHTS: u64 = 1000;
const PLANTED_NIGHTS: u64 = 100;
const MEAN_ON: f64 = 60.0;
/// Mean excess of a planted night.
const MEAN_EXCESS: f64 = 40.0;
/// Triggered hadrons that nights are drawn from.
const POOL: u64 = 500_000;

/// Counts of a night: at one position per event, and at every position where an event passes.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Counts {
    counted: [u64; POSITIONS],
    passing: [u64; POSITIONS],
    overlapping_on: u64,
}

impl Counts {
    fn take(&mut self, cuts: Cuts, event: &ToyEvent, key: [i64; 2]) {
        let projections = cuts.project_all(event);
        let passes = cuts.passes(&projections);
        self.overlapping_on += u64::from(passes & 1 == 1 && passes.count_ones() > 1);
        for (k, count) in self.passing.iter_mut().enumerate() {
            *count += passes >> k & 1;
        }
        if let Some(k) = counted_at(passes, &projections.map(|at| at.score), &key) {
            self.counted[k] += 1;
        }
    }

    fn once(&self) -> OnOff {
        OnOff::new(self.counted[0], &self.counted[1..]).expect("positions")
    }

    fn naive(&self) -> OnOff {
        OnOff::new(self.passing[0], &self.passing[1..]).expect("positions")
    }
}

/// Simulates a night with mean numbers of triggered `hadrons` and of `gammas` from the source.
fn night(cuts: Cuts, pool: &Pool, number: u64, hadrons: f64, gammas: f64) -> Counts {
    let seed = STUDY_SEED + number;
    let stream = |name: &str| Stream::new(seed, name, &[cuts as u64]);
    let shape = pool.hadrons.len() as f64 / pool.thrown as f64;
    let draws = poisson(hadrons * shape, stream("hadrons"));
    let mut counts = Counts::default();
    for draw in 0..draws {
        let event = pool.draw(stream("which hadron"), draw);
        counts.take(cuts, &event, [seed as i64, draw as i64]);
    }
    // The two selections use different gammas, so that the two studies are independent.
    let first = cuts as u64 * (1 << 40);
    let gammas = events(Class::Gamma, seed, first..first + poisson(gammas, stream("gammas")));
    for (number, event) in gammas.iter().enumerate() {
        counts.take(cuts, event, [-(seed as i64), number as i64]);
    }
    counts
}

/// Returns the hadrons per night for a mean count of MEAN_ON per position, from other draws.
fn hadrons_per_night(cuts: Cuts, pool: &Pool) -> f64 {
    let mut counts = Counts::default();
    let (stream, draws) = (Stream::new(5, "rate", &[]), 400_000);
    for draw in 0..draws {
        counts.take(cuts, &pool.draw(stream, draw), [0, draw as i64]);
    }
    let per_position = counts.counted.iter().sum::<u64>() as f64 / POSITIONS as f64;
    MEAN_ON / per_position * draws as f64 * pool.thrown as f64 / pool.hadrons.len() as f64
}

/// Returns the Kolmogorov–Smirnov distance of values from a standard normal distribution, with its
/// p-value; `None` without values.
fn distance_from_normal(values: &[f64]) -> Option<(f64, f64)> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let n = sorted.len() as f64;
    let distance = |(i, x): (usize, &f64)| {
        let below = normal_below(*x);
        (below - i as f64 / n).abs().max((below - (i + 1) as f64 / n).abs())
    };
    let largest = sorted.iter().enumerate().map(distance).reduce(f64::max)?;
    Some((largest, distance_p_value(largest, n)))
}

fn mean_and_width(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let square = values.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>();
    (mean, (square / (n - 1.0)).sqrt())
}

/// Returns the factor by which more nights than stated are simulated.
fn closer_look() -> u64 {
    let asked = std::env::var("TAIGA_FLOW_NIGHTS_TIMES").ok();
    asked.map_or(1, |text| text.parse().expect("a number"))
}

fn study(cuts: Cuts) {
    println!("selection {cuts:?}, threshold {:.4} frozen on other seeds", cuts.threshold());
    let mut of_gammas = Counts::default();
    for (number, event) in calibration().iter().enumerate() {
        of_gammas.take(cuts, event, [0, number as i64]);
    }
    let leak = Leak {
        on: of_gammas.counted[0],
        off: of_gammas.counted[1..].iter().sum(),
        positions: POSITIONS as u64 - 1,
        events: calibration().len() as u64,
        weights: None,
    };
    let share = leak.share().expect("a leakage");
    let net = (leak.on as f64 - leak.off as f64 / leak.positions as f64) / leak.events as f64;
    println!(
        "  gammas: counted at the source {:.4}, net {net:.4}, leak into an OFF position {:.4} ± {:.4}",
        leak.on as f64 / leak.events as f64,
        share.value,
        share.error
    );
    let pool = cuts.pool(POOL);
    let hadrons = hadrons_per_night(cuts, &pool);
    let null_nights = NULL_NIGHTS * closer_look();
    let planted_nights = PLANTED_NIGHTS * closer_look();
    let nulls: Vec<Counts> =
        (0..null_nights).into_par_iter().map(|n| night(cuts, &pool, n, hadrons, 0.0)).collect();
    let mean_on = nulls.iter().map(|c| c.counted[0]).sum::<u64>() as f64 / null_nights as f64;
    let overlap = nulls.iter().map(|c| c.overlapping_on).sum::<u64>() as f64
        / nulls.iter().map(|c| c.passing[0]).sum::<u64>() as f64;
    println!("  hadrons per night {hadrons:.0}, mean N_on {mean_on:.2}");
    println!("  share of hadrons at the source that also pass at an OFF position {overlap:.3}");
    let significances: Vec<f64> = nulls.iter().map(|c| c.once().significance()).collect();
    let naive: Vec<f64> = nulls.iter().map(|c| c.naive().significance()).collect();
    let (mean, width) = mean_and_width(&significances);
    let (naive_mean, naive_width) = mean_and_width(&naive);
    let (distance, p) = distance_from_normal(&significances).expect("nights");
    println!(
        "  {null_nights} nights without a source: mean {mean:.3}, width {width:.3}, KS distance {distance:.4}, p {p:.3}"
    );
    println!("    counted wherever they pass: mean {naive_mean:.3}, width {naive_width:.3}");
    let gammas = MEAN_EXCESS / net;
    let planted: Vec<Counts> = (0..planted_nights)
        .into_par_iter()
        .map(|n| night(cuts, &pool, 10_000_000 + n, hadrons, gammas))
        .collect();
    let expected = gammas * net;
    let pull = |c: &Counts| {
        let excess = c.once().excess();
        (excess.value - expected) / excess.error
    };
    let pulls: Vec<f64> = planted.iter().map(pull).collect();
    let (pull_mean, pull_width) = mean_and_width(&pulls);
    let on = planted.iter().map(|c| c.counted[0]).sum::<u64>() as f64 / planted_nights as f64;
    let excess: f64 = planted.iter().map(|c| c.once().excess().value).sum();
    println!(
        "  {planted_nights} nights of {gammas:.0} gammas: mean N_on {on:.1}, mean excess {:.2}, expected {expected:.2}; pulls: mean {pull_mean:.3}, width {pull_width:.3}",
        excess / planted_nights as f64
    );
    assert!(mean_on >= 50.0);
    assert!(p > 0.01, "KS p {p}");
    assert!((width - 1.0).abs() <= 0.05, "width {width}");
    assert!(pull_mean.abs() <= 0.3, "pulls {pull_mean}");
    assert!((pull_width - 1.0).abs() <= 0.2, "width of the pulls {pull_width}");
}

#[test]
fn planted_sources_are_found_by_theta2() {
    study(Cuts::Theta2);
}

#[test]
fn planted_sources_are_found_by_reference_cuts() {
    study(Cuts::Study);
}

/// Returns the score file of a run: events of a night in time order.
fn scores_of(cuts: Cuts, all: &[ToyEvent], run_id: i64, start_ns: i64, seed: u64) -> Scores {
    let stream = Stream::new(seed, "times and order", &[run_id as u64]);
    let mut time = start_ns;
    let (mut ids, mut times, mut portions) = (Vec::new(), Vec::new(), Vec::new());
    let mut columns = vec![Vec::new(); 6];
    let mut status = Vec::new();
    let (mut size, mut quality) = (Vec::new(), Vec::new());
    for (number, event) in all.iter().enumerate() {
        time += (-(1.0 - stream.uniform(number as u64)).ln() / 8.0 * 1e9) as i64;
        ids.push(number as i64);
        times.push(time);
        portions.push((time - start_ns) / 120_000_000_000);
        for at in cuts.project_all(event) {
            // Some rows have no score.
            let broken = number % 97 == 13;
            let values = [at.dist, at.alpha, at.theta2].map(|v| v as f32);
            columns.iter_mut().zip(values).for_each(|(column, value)| column.push(value));
            columns[3].push(if broken { f32::NAN } else { at.score });
            columns[4].push(if broken { f32::NAN } else { at.score });
            columns[5].push(event.energy_tev);
            status.push(match (broken, at.inside) {
                (true, _) => 1,
                (false, true) => 0,
                (false, false) => 4,
            });
        }
        size.push(event.size);
        quality.push(u32::from(number % 50 == 7) | u32::from(number % 31 == 3) << 1);
    }
    let mut columns = columns.into_iter();
    let mut next = |name: &str, unit: &str| {
        (name.to_string(), unit.to_string(), columns.next().expect("a column"))
    };
    Scores {
        positions: ANGLES.to_vec(),
        threshold: f64::from(cuts.threshold()),
        at_positions: vec![
            next("dist", "deg"),
            next("alpha", "deg"),
            next("theta2", "deg^2"),
            next("score", "nat"),
            next("log_prob", "nat"),
            next("energy", "TeV"),
        ],
        keys: vec![
            ("run_id".to_string(), vec![run_id; all.len()]),
            ("event_id".to_string(), ids),
            ("portion".to_string(), portions),
            ("unix_time_ns".to_string(), times),
            ("telescope_id".to_string(), vec![1; all.len()]),
        ],
        status,
        copied: vec![("size".to_string(), "p.e.".to_string(), size)],
        quality: Some((vec!["star".to_string(), "weather_mark > 5".to_string()], quality)),
        source_offset: Some([1.2, 1.2]),
        model: "ab".repeat(32),
        input: format!("run-{run_id}.h5"),
    }
}

/// 2022-12-01 17:00 UTC.
const EVENING: i64 = 1_669_914_000_000_000_000;
const DAY: i64 = 86_400_000_000_000;

/// Returns a season of runs on a source, two per night.
fn runs(cuts: Cuts, count: u64, hadrons: u64, gammas: u64) -> Vec<Scores> {
    let one = |n: u64| {
        let seed = seed() + 1000 * n;
        let mut all = events(Class::Hadron, seed, 0..hadrons);
        all.extend(events(Class::Gamma, seed, 0..gammas));
        let order = taiga_flow_gpu::random::RandomPermutation::new(
            all.len() as u64,
            Stream::new(seed, "order", &[]),
        );
        let all: Vec<ToyEvent> = (0..all.len() as u64).map(|i| all[order.at(i) as usize]).collect();
        let start = EVENING + (n / 2) as i64 * DAY + (n % 2) as i64 * 7_200_000_000_000;
        scores_of(cuts, &all, n as i64 + 1, start, seed)
    };
    (0..count).map(one).collect()
}

fn named(runs: &[Scores]) -> Vec<(String, &Scores)> {
    runs.iter()
        .enumerate()
        .map(|(i, scores)| (format!("night-{}/run-{}.h5", i / 2, i + 1), scores))
        .collect()
}

fn written(folder: &Path, runs: &[Scores]) -> std::path::PathBuf {
    let names = named(runs);
    let files: Vec<(&str, &Scores)> = names.iter().map(|(name, s)| (name.as_str(), *s)).collect();
    write_folder(folder, &files)
}

/// Counts the events of files from their columns by the rules of the documentation.
fn recount(runs: &[Scores]) -> Counts {
    let mut counts = Counts::default();
    for scores in runs {
        let score = &scores.at_positions.iter().find(|(name, _, _)| name == "score").unwrap().2;
        let key = |name: &str| &scores.keys.iter().find(|(known, _)| known == name).unwrap().1;
        for row in 0..scores.rows() {
            if scores.quality.as_ref().is_some_and(|(_, bits)| bits[row] != 0) {
                continue;
            }
            let at = row * POSITIONS..(row + 1) * POSITIONS;
            let of_row: [f32; POSITIONS] = score[at.clone()].try_into().unwrap();
            let pass = |k: &usize| {
                scores.status[at.start + k] == 0 && f64::from(of_row[*k]) >= scores.threshold
            };
            let passing: Vec<usize> = (0..POSITIONS).filter(pass).collect();
            passing.iter().for_each(|k| counts.passing[*k] += 1);
            counts.overlapping_on += u64::from(passing.len() > 1 && passing[0] == 0);
            let bits = passing.iter().fold(0, |bits, k| bits | 1 << k);
            if let Some(k) = counted_at(bits, &of_row, &[key("run_id")[row], key("event_id")[row]])
            {
                counts.counted[k] += 1;
            }
        }
    }
    counts
}

fn read_json(path: &Path) -> Value {
    let text = std::fs::read_to_string(path).expect("a file");
    serde_json::from_str(&text).expect("JSON")
}

#[test]
fn season_equals_plain_counts_on_any_ranks() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    let planted = 320; // gammas in each of the runs
    let runs = runs(Cuts::Study, 6, 2500, planted);
    let scores = written(&at("scores"), &runs);
    let mut gammas = scores_of(Cuts::Study, &calibration()[..20_000], 900, EVENING, 3);
    let energies = gammas.column("energy").iter().step_by(POSITIONS).copied().collect();
    gammas.copied.push(("energy_true".to_string(), "TeV".to_string(), energies));
    gammas.quality =
        Some((vec!["star".to_string(), "weather_mark > 5".to_string()], vec![0; 20_000]));
    let mc = write_folder(&at("mc"), &[("gamma.h5", &gammas)]);
    let settings = at("season.toml");
    let text =
        "[simulation]\nevents = 100000\nradius_m = 700.0\nindex = 2.6\nenergy_tev = [2.0, 200.0]\n";
    std::fs::write(&settings, text).expect("settings");
    let ask = |name: &str| {
        arguments!["season", &scores, "-o", &at(name), "-c", &settings, "--gamma-mc", &mc]
    };
    let report = json(&ask("report"));
    let season = read_json(&at("report/season.json"));
    let counts = recount(&runs);
    let (once, naive) = (counts.once(), counts.naive());
    let total = &season["total"];
    assert_eq!(total["on"], once.on);
    assert_eq!(total["off"], serde_json::json!(counts.counted[1..]));
    assert_eq!(total["naive"]["on"], naive.on);
    assert_eq!(total["naive"]["off"], serde_json::json!(counts.passing[1..]));
    assert_eq!(total["naive"]["overlapping_on"], counts.overlapping_on);
    assert!((total["significance"].as_f64().unwrap() - once.significance()).abs() < 1e-9);
    assert!(once.significance() > 5.0, "the planted source: {}", once.significance());
    let rows: usize = runs.iter().map(Scores::rows).sum();
    assert_eq!(total["events"], rows);
    // Live time: from the first to the last event of each run, without bad weather at its end.
    let expected: i64 = runs
        .iter()
        .map(|scores| {
            let times = &scores.keys[3].1;
            let bits = &scores.quality.as_ref().unwrap().1;
            (1..times.len())
                .filter(|i| bits[*i] & 2 == 0)
                .map(|i| times[i] - times[i - 1])
                .sum::<i64>()
        })
        .sum();
    let live = total["live_s"].as_f64().unwrap();
    assert!((live - expected as f64 / 1e9).abs() < 1e-6, "{live} {expected}");
    assert_eq!(season["nights"].as_array().unwrap().len(), 3);
    assert_eq!(season["nights"][0]["night"], "2022-12-01");
    assert_eq!(season["groups"][0]["season"], "2022-2023");
    assert_eq!(season["runs"].as_array().unwrap().len(), 6);
    let of_portions: u64 =
        season["portions"].as_array().unwrap().iter().map(|p| p["on"].as_u64().unwrap()).sum();
    assert_eq!(of_portions, once.on);
    assert!(season["portions"].as_array().unwrap().len() > 12);
    // The leak and the corrected number of gammas.
    let leak = &season["simulation"]["leak"];
    assert!(leak["on"].as_u64().unwrap() > 1000);
    let corrected = &total["corrected"];
    let good = 1.0 - (1.0 / 50.0 + 1.0 / 31.0 + 1.0 / 97.0);
    let of_mc = leak["on"].as_f64().unwrap() / leak["events"].as_f64().unwrap();
    // 1 of 97 simulated events has no score either.
    let planted = (6 * planted) as f64 * of_mc / (1.0 - 1.0 / 97.0) * good;
    let (value, error) =
        (corrected["value"].as_f64().unwrap(), corrected["error"].as_f64().unwrap());
    assert!((value - planted).abs() < 5.0 * error, "{value} ± {error}, planted {planted}");
    assert!(!season["simulation"]["area"].as_array().unwrap().is_empty());
    let candidates = season["candidates"].as_array().unwrap();
    assert_eq!(candidates.len() as u64, once.on.min(1000));
    assert!(candidates[0]["score"].as_f64() >= candidates[1]["score"].as_f64());
    assert!(report["total"]["on"] == once.on && season["failed"].as_object().unwrap().is_empty());
    let page = std::fs::read_to_string(at("report/season.html")).expect("a page");
    assert!(page.matches("<svg").count() >= 7, "{}", page.matches("<svg").count());
    for outside in ["src=", "href=", "url(", "@import", "<script", "NaN"] {
        assert!(!page.contains(outside), "{outside}");
    }
    for count in [2, 3, 5] {
        let name = format!("report-{count}");
        succeed(&mut ranks(count, &ask(&name)));
        for file in ["season.json", "season.html"] {
            assert_eq!(hash(&at(&name).join(file)), hash(&at("report").join(file)), "{count}");
        }
    }
    if let Some(keep) = std::env::var_os("TAIGA_FLOW_KEEP_SEASON") {
        for file in ["season.json", "season.html"] {
            std::fs::create_dir_all(&keep).expect("a folder");
            std::fs::copy(at("report").join(file), Path::new(&keep).join(file)).expect("a copy");
        }
    }
}

#[test]
fn cuts_thresholds_and_positions_as_requested() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    let runs = runs(Cuts::Study, 2, 3000, 50);
    let scores = written(&at("scores"), &runs);
    let season = |name: &str, settings: &str, more: &[&str]| {
        let path = at(&format!("{name}.toml"));
        std::fs::write(&path, settings).expect("settings");
        let mut ask = Vec::from(arguments!["season", &scores, "-o", &at(name), "-c", &path]);
        ask.extend(more.iter().map(std::ffi::OsString::from));
        json(&ask)
    };
    let whole = season("whole", "", &[]);
    let dropped = season("dropped", "[positions]\ndrop = [180.0]\n", &[]);
    assert_eq!(dropped["off_positions"], serde_json::json!([60.0, 120.0, 240.0, 300.0]));
    // Events counted at the dropped position stay there: the other counts do not change.
    for (k, of_whole) in [0, 1, 3, 4].into_iter().enumerate() {
        assert_eq!(dropped["total"]["off"][k], whole["total"]["off"][of_whole]);
    }
    assert_eq!(dropped["total"]["on"], whole["total"]["on"]);
    assert!((dropped["total"]["alpha"].as_f64().unwrap() - 0.25).abs() < 1e-12);
    let cut = season("cut", "[cuts]\nalpha = { max = 10.0 }\n", &[]);
    let mut narrow = runs.clone();
    for scores in &mut narrow {
        let alpha = scores.column("alpha").clone();
        scores.status.iter_mut().zip(alpha).for_each(|(status, alpha)| {
            *status |= if alpha < 10.0 { 0 } else { 4 };
        });
    }
    let counts = recount(&narrow);
    assert_eq!(cut["total"]["on"], counts.counted[0]);
    assert_eq!(cut["total"]["off"], serde_json::json!(counts.counted[1..]));
    assert!(cut["total"]["passing"].as_u64() < whole["total"]["passing"].as_u64());
    // The cut on alpha does not change the distribution of alpha.
    assert_eq!(cut["alpha"], whole["alpha"]);
    let mut higher = runs.clone();
    higher.iter_mut().for_each(|scores| scores.threshold += 0.7);
    let threshold = format!("{}", higher[0].threshold);
    let report = season("higher", "", &["--threshold", &threshold]);
    assert_eq!(report["total"]["on"], recount(&higher).counted[0]);
    let ignored = season("ignored", "[quality]\nignore = [\"star\"]\n", &[]);
    assert!(ignored["total"]["good"].as_u64() > whole["total"]["good"].as_u64());
    for wrong in
        ["[positions]\ndrop = [45.0]\n", "[cuts]\nwidth = { max = 1.0 }\n", "point = \"no\"\n"]
    {
        let path = at("wrong.toml");
        std::fs::write(&path, wrong).expect("settings");
        let ask = arguments!["season", &scores, "-o", &at("wrong"), "-c", &path];
        let outcome = run(&mut program(&ask));
        assert_eq!(outcome.code, Some(2), "{wrong}{}", outcome.stderr);
    }
}

#[test]
fn unusable_runs_are_reported_and_not_counted() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    let mut runs = runs(Cuts::Study, 8, 800, 20);
    runs[1].source_offset = Some([0.31, 0.31]);
    runs[2].source_offset = Some([1.0, 1.3]);
    runs[3].source_offset = None;
    runs[4].model = "cd".repeat(32);
    // Unusual, but counted.
    runs[5].key("unix_time_ns")[100] -= 3_000_000_000;
    runs[6].keys.retain(|(name, _)| name != "portion");
    runs[7].keys.retain(|(name, _)| name != "unix_time_ns");
    let scores = written(&at("scores"), &runs);
    let settings = at("season.toml");
    std::fs::write(
        &settings,
        format!("[[models]]\ntelescope = 1\nmodel = \"{}\"\n", "ab".repeat(8)),
    )
    .unwrap();
    let ask = arguments!["season", &scores, "-o", &at("report"), "-c", &settings];
    let outcome = run(&mut program(&ask));
    assert_eq!(outcome.code, Some(4), "{}", outcome.stderr);
    let season = read_json(&at("report/season.json"));
    // A run without times belongs to no season; the entry of `[[models]]` applies to any season.
    let refused: Vec<&str> =
        season["refused"].as_array().unwrap().iter().map(|r| r["run"].as_str().unwrap()).collect();
    assert_eq!(refused, ["2", "3", "4", "5"]);
    for (index, reason) in
        ["too near", "not alike", "do not state", "belongs to"].iter().enumerate()
    {
        let found_reason = season["refused"][index]["reason"].as_str().unwrap();
        assert!(found_reason.contains(reason), "{found_reason}");
        assert!(outcome.stderr.contains(found_reason), "{}", outcome.stderr);
    }
    let kept: Vec<Scores> = [0, 5, 6, 7].into_iter().map(|i| runs[i].clone()).collect();
    assert_eq!(season["total"]["on"], recount(&kept).counted[0]);
    let warnings = season["warnings"].as_array().unwrap();
    let warns_of = |text: &str| warnings.iter().any(|w| w.as_str().unwrap().contains(text));
    assert!(
        warns_of(
            "run 6 of telescope 1: the clock goes backwards 1 time(s), first at night-2/run-6.h5, row 100"
        ),
        "{warnings:?}"
    );
    assert!(
        warns_of("run 7 of telescope 1: no portions") && warns_of("run 8 of telescope 1: no times")
    );
    assert!(
        season["candidates"]
            .as_array()
            .unwrap()
            .iter()
            .all(|c| !refused.contains(&c["run"].to_string().as_str()))
    );
    // Flagged instead of refused.
    let text = std::fs::read_to_string(&settings).unwrap();
    std::fs::write(&settings, format!("other_model = \"flag\"\n{text}")).unwrap();
    let ask = arguments!["season", &scores, "-o", &at("flagged"), "-c", &settings];
    assert_eq!(run(&mut program(&ask)).code, Some(4));
    let season = read_json(&at("flagged/season.json"));
    assert_eq!(season["refused"].as_array().unwrap().len(), 3);
    assert!(season["warnings"].to_string().contains("belongs to this telescope"));
}

/// A change that makes a file invalid.
type Change<'a> = &'a dyn Fn(&mut Scores);

#[test]
fn bad_files_are_refused_and_others_continue() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    let mut number = 0;
    let mut season = |scores: &Path, code: i32, expected: &[&str]| {
        number += 1;
        let output = folder.path().join(format!("report-{number}"));
        let ask = arguments!["season", scores, "-o", &output];
        let outcome = run(&mut program(&ask));
        assert_eq!(outcome.code, Some(code), "{}{}", outcome.stdout, outcome.stderr);
        for text in expected {
            assert!(outcome.stderr.contains(text), "no '{text}' in {}", outcome.stderr);
        }
        assert!(!output.join("season.json").exists());
        (code == 4).then(|| {
            succeed(program(&ask).args(["--allow-failed", "1"]));
            read_json(&output.join("season.json"))
        })
    };
    season(&at("nothing"), 3, &["manifest"]);
    let runs = runs(Cuts::Study, 4, 600, 20);
    // One bad file of four, in each way.
    let spoil: [(&str, Change); 4] = [
        ("other positions", &|s| s.positions[1] = 72.0),
        ("a different unit", &|s| s.at_positions[2].1 = "rad".to_string()),
        ("'score'", &|s| s.at_positions.retain(|(name, _, _)| name != "score")),
        ("quality cuts", &|s| s.quality = None),
    ];
    for (what, change) in spoil {
        let mut bad = runs.clone();
        change(&mut bad[2]);
        let name = what.replace([' ', '\''], "");
        let scores = written(&at(&name), &bad);
        let expected = season(&scores, 4, &[what, "night-1/run-3.h5"]).expect("a season");
        let good: Vec<Scores> = [0, 1, 3].into_iter().map(|i| runs[i].clone()).collect();
        assert_eq!(expected["total"]["on"], recount(&good).counted[0], "{what}");
        assert!(expected["failed"]["night-1/run-3.h5"].is_string(), "{what}");
    }
    let scores = written(&at("damaged"), &runs);
    let victim = scores.join("night-0/run-2.h5");
    let bytes = std::fs::read(&victim).unwrap();
    std::fs::write(&victim, &bytes[..bytes.len() / 2]).unwrap();
    season(&scores, 4, &["run-2.h5", "not as it was written"]);
    std::fs::remove_file(&victim).unwrap();
    season(&scores, 4, &["run-2.h5", "not found"]);
    let mut twice = runs.clone();
    twice[3].input = twice[0].input.clone();
    season(&written(&at("twice"), &twice), 3, &["same input"]);
    let mut near = runs.clone();
    near.iter_mut().for_each(|s| s.source_offset = Some([0.2, 0.2]));
    season(&written(&at("near"), &near), 3, &["too near"]);
    // An output folder that is a file.
    let scores = written(&at("good"), &runs);
    let in_the_way = at("in-the-way");
    std::fs::write(&in_the_way, "a file").unwrap();
    let outcome = run(&mut program(&arguments!["season", &scores, "-o", &in_the_way]));
    assert_eq!(outcome.code, Some(2), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("not a folder"), "{}", outcome.stderr);
    // An existing report is refused without `--overwrite`.
    let again = arguments!["season", &scores, "-o", &at("again")];
    succeed(&mut program(&again));
    assert_eq!(run(&mut program(&again)).code, Some(2));
    succeed(program(&again).arg("--overwrite"));
}

#[test]
fn only_the_drifting_run_is_flagged() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    let mut runs = runs(Cuts::Study, 6, 6000, 20);
    let reference = written(&at("reference"), &runs);
    let bright: Vec<f32> = runs[4].column("size").iter().map(|size| 1.8 * size).collect();
    *runs[4].column("size") = bright;
    let shifted: Vec<f32> = runs[4].column("log_prob").iter().map(|x| x - 2.0).collect();
    *runs[4].column("log_prob") = shifted;
    let scores = written(&at("scores"), &runs);
    let drift = |report: &Value, index: usize, column: &str| -> Value {
        let all = report["runs"][index]["drift"].as_array().expect("drift").clone();
        all.into_iter().find(|d| d["column"] == column).expect("a column")
    };
    // Compared with the other runs: the changed run is part of their reference.
    let report = json(&arguments!["season", &scores, "-o", &at("report")]);
    let ask = arguments!["season", &scores, "-o", &at("second"), "--reference", &reference];
    let against = json(&ask);
    assert!(against["drift_reference"].as_str().unwrap().contains("reference"));
    for column in ["log_prob", "size"] {
        let psi = |index: usize| drift(&report, index, column)["psi"].as_f64().unwrap();
        assert_eq!(drift(&report, 4, column)["flagged"], true, "{column}");
        for index in 0..6 {
            assert!(psi(index) <= psi(4), "{column}, run {index}");
            let of_run = drift(&against, index, column);
            assert_eq!(of_run["flagged"], index == 4, "{column}, run {index}: {of_run}");
        }
    }
}

#[test]
fn scores_without_positions_give_rates_only() {
    let folder = folder();
    let trained = crate::support::trained();
    let scores = folder.path().join("scores");
    succeed(&mut program(&arguments![
        "score",
        "-q",
        "-m",
        &trained.model,
        "-o",
        &scores,
        &trained.hadron
    ]));
    let output = folder.path().join("report");
    let ask = arguments!["season", &scores, "-o", &output, "--threshold", "-9"];
    let report = json(&ask);
    assert_eq!(report["total"]["events"], 30_000);
    assert!(report["total"]["on"].as_u64().is_some_and(|on| on > 0));
    assert!(report["total"]["significance"].is_null() && report["total"]["excess"].is_null());
    let status = &report["total"]["status"];
    let manifest = read_json(&scores.join("manifest.json"));
    assert_eq!(status["outside the cuts"], manifest["files"][0]["status"]["outside the cuts"]);
    let asked = run(&mut program(&arguments!["season", &scores, "-o", &folder.path().join("no")]));
    assert_eq!(asked.code, Some(2), "{}", asked.stderr);
    assert!(asked.stderr.contains("--threshold"), "{}", asked.stderr);
}

#[test]
fn two_scorings_are_compared_event_by_event() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    let first = runs(Cuts::Study, 4, 2000, 60);
    let mut second = first.clone();
    let stream = Stream::new(seed(), "another model", &[]);
    for (i, scores) in second.iter_mut().enumerate() {
        scores.model = "ef".repeat(32);
        let mut n = 1_000_000 * i as u64;
        for score in scores.column("score") {
            n += 1;
            *score += (0.2 * stream.normal(n)) as f32;
        }
    }
    let (a, b) = (written(&at("a"), &first), written(&at("b"), &second));
    let same = json(&arguments!["compare", &a, &a]);
    assert!((same["rank_correlation"].as_f64().unwrap() - 1.0).abs() < 1e-12);
    assert_eq!(same["changed"], serde_json::json!([]));
    assert_eq!(same["identical"], true);
    let printed = run(&mut program(&arguments!["compare", &a, &a])).stdout;
    assert!(printed.contains("comparison is of a scoring with itself"), "{printed}");
    assert_eq!(same["counted"]["both"], recount(&first).counted[0]);
    let report = json(&arguments!["compare", &a, &b, "-o", &at("compared")]);
    assert!(report["identical"].is_null());
    let (of_a, of_b) = (recount(&first), recount(&second));
    for (side, counts) in [("first", of_a), ("second", of_b)] {
        assert_eq!(report[side]["on"], counts.counted[0]);
        let significance = report[side]["significance"].as_f64().unwrap();
        assert!((significance - counts.once().significance()).abs() < 1e-9);
    }
    let count = |of: &str, which: &str| report[of][which].as_u64().unwrap();
    assert_eq!(count("at_source", "both") + count("at_source", "first_alone"), of_a.passing[0]);
    assert_eq!(count("at_source", "both") + count("at_source", "second_alone"), of_b.passing[0]);
    assert_eq!(count("counted", "both") + count("counted", "first_alone"), of_a.counted[0]);
    let changed = report["changed"].as_array().unwrap().len() as u64;
    assert_eq!(changed, count("counted", "first_alone") + count("counted", "second_alone"));
    assert!(changed > 10);
    let rows: usize = first.iter().map(Scores::rows).sum();
    assert_eq!(report["events"], rows);
    let expected = spearman(&first, &second);
    let found = report["rank_correlation"].as_f64().unwrap();
    assert!((found - expected).abs() < 1e-4, "{found} {expected}");
    for count in [2, 3] {
        let name = format!("compared-{count}");
        succeed(&mut ranks(count, &arguments!["compare", &a, &b, "-o", &at(&name)]));
        let path = |name: &str| at(name).join("comparison.json");
        assert_eq!(hash(&path(&name)), hash(&path("compared")));
    }
    // Other inputs, other keys, other positions.
    let refused = |other: &[Scores], name: &str, report: &str| {
        let outcome = run(&mut program(&arguments!["compare", &a, &written(&at(name), other)]));
        assert_eq!(outcome.code, Some(3), "{name}: {}{}", outcome.stdout, outcome.stderr);
        assert!(outcome.stderr.contains(report), "{}", outcome.stderr);
    };
    refused(&second[..3], "fewer", "different inputs");
    let mut other = second.clone();
    other[1].input = "something else".to_string();
    refused(&other, "other", "different inputs");
    let mut keys = second.clone();
    keys[3].key("event_id")[17] += 1;
    refused(&keys, "keys", "row 17");
    let mut turned = second.clone();
    turned.iter_mut().for_each(|s| s.positions[3] = 170.0);
    refused(&turned, "turned", "other positions");
}

/// Returns the rank correlation at the source, computed by sorting.
fn spearman(first: &[Scores], second: &[Scores]) -> f64 {
    let scores = |runs: &[Scores]| -> Vec<f32> {
        runs.iter()
            .flat_map(|s| {
                let all = &s.at_positions.iter().find(|(name, _, _)| name == "score").unwrap().2;
                all.iter().step_by(POSITIONS).copied().collect::<Vec<f32>>()
            })
            .filter(|score| score.is_finite())
            .collect()
    };
    let ranks = |values: Vec<f32>| -> Vec<f64> {
        let mut order: Vec<usize> = (0..values.len()).collect();
        order.sort_by(|a, b| values[*a].total_cmp(&values[*b]));
        let mut ranks = vec![0.0; values.len()];
        order.iter().enumerate().for_each(|(rank, at)| ranks[*at] = rank as f64);
        ranks
    };
    let (a, b) = (ranks(scores(first)), ranks(scores(second)));
    let mean = (a.len() as f64 - 1.0) / 2.0;
    let product: f64 = a.iter().zip(&b).map(|(x, y)| (x - mean) * (y - mean)).sum();
    let square: f64 = a.iter().map(|x| (x - mean) * (x - mean)).sum();
    product / square
}

#[test]
fn candidates_have_only_their_own_images() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    let mut runs = runs(Cuts::Study, 2, 360, 40);
    for (index, scores) in runs.iter_mut().enumerate() {
        let path = at("images").join(format!("night-0/run-{}.h5", index + 1));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let options = taiga_flow::simulate::images::Options {
            output: path.clone(),
            class: Class::Gamma,
            events: scores.rows() as u64,
            seed: seed() + index as u64,
            camera: "taiga-595".to_string(),
            noise_pe: 4.0,
            offset_deg: 1.2,
            overwrite: false,
        };
        taiga_flow::simulate::images::run(&options).expect("images");
        let file = hdf5::File::open(&path).expect("images");
        let keys = |name: &str| {
            let dataset = file.dataset(&format!("events/{name}")).expect("keys");
            dataset.read_raw::<i64>().expect("keys")
        };
        *scores.key("event_id") = keys("event_id");
        // The second image file has other events.
        *scores.key("run_id") = keys("run_id").iter().map(|run| run + index as i64).collect();
    }
    let scores = written(&at("scores"), &runs);
    let ask = arguments!["season", &scores, "-o", &at("report"), "--images", &at("images")];
    let report = json(&ask);
    let candidates = report["candidates"].as_array().unwrap();
    let shown = candidates.iter().take(24);
    let of_first = shown.filter(|c| c["file"] == "night-0/run-1.h5").count();
    let page = std::fs::read_to_string(at("report/season.html")).expect("a page");
    assert!(of_first > 0 && of_first < 24.min(candidates.len()), "{of_first}");
    assert_eq!(page.matches("Camera image").count(), of_first);
    let warnings = report["warnings"].to_string();
    assert!(warnings.contains("not all candidates of night-0/run-2.h5"), "{warnings}");
}

#[test]
fn scan_counts_equal_those_of_each_threshold() {
    let folder = folder();
    let runs = runs(Cuts::Study, 2, 4000, 200);
    let scores = written(&folder.path().join("scores"), &runs);
    let ask = arguments!["season", &scores, "-o", &folder.path().join("report")];
    let report = json(&ask);
    let scan = &report["scan"];
    let points = scan["points"].as_array().expect("a scan");
    assert!(points.len() >= 15, "{}", points.len());
    let best = &scan["best"];
    for point in points.iter().step_by(4).chain([best]) {
        let mut at = runs.clone();
        let threshold = point["threshold"].as_f64().unwrap();
        at.iter_mut().for_each(|scores| scores.threshold = threshold);
        let once = recount(&at).once();
        assert_eq!((&point["on"], &point["off"]), (&once.on.into(), &once.off.into()));
        let significance = point["significance"].as_f64().unwrap();
        assert!((significance - once.significance()).abs() < 1e-9, "{point}");
    }
    let used = report["total"]["significance"].as_f64().unwrap();
    assert!(best["significance"].as_f64().unwrap() >= 0.98 * used, "{best}, {used}");
    let page = std::fs::read_to_string(folder.path().join("report/season.html")).expect("a page");
    assert!(page.contains("Other thresholds") && page.contains("For planning only"));
}
