//! Tests the posterior against a known truth.
//!
//! Gammas are N(1, 1) and hadrons N(−1, 1), so the log-odds at a score s are 2·s.

use super::super::*;
use crate::statistics::tails::normal_below;
use crate::statistics::thresholds::reliability::*;
use taiga_flow_gpu::random::Stream;

/// Limits of the scores over which the truth is integrated, and the width of a step.
const FAR: f64 = 9.0;
const STEP: f64 = 2e-3;

fn events(gammas: u64, hadrons: u64, seed: u64) -> Vec<(f64, Class, f64)> {
    let stream = Stream::new(seed, "planted", &[gammas, hadrons]);
    let one = |i: u64| {
        let (class, mean) = if i < gammas { (Class::Gamma, 1.0) } else { (Class::Hadron, -1.0) };
        (mean + stream.normal(i), class, 1.0)
    };
    (0..gammas + hadrons).map(one).collect()
}

/// A range of log-odds with at least ten calibration events of each class.
#[derive(Debug, Clone, Copy, Default)]
struct Row {
    /// Calibration events: gammas, hadrons.
    fitted: [f64; 2],
    /// Σ posterior · mass, Σ mass of gammas, Σ mass.
    truth: [f64; 3],
}

impl Row {
    fn joined(self, above: Row) -> Row {
        let mut sum = self;
        sum.fitted.iter_mut().zip(above.fitted).for_each(|(a, b)| *a += b);
        sum.truth.iter_mut().zip(above.truth).for_each(|(a, b)| *a += b);
        sum
    }

    fn enough(&self) -> bool {
        self.fitted.iter().all(|count| *count >= 10.0)
    }

    /// Returns ln of the stated odds divided by the true ones, and its error from the events on
    /// which the calibration was fitted.
    fn deviation(&self) -> (f64, f64) {
        let [said, gammas, all] = self.truth;
        let log_odds = |share: f64| (share / (1.0 - share)).ln();
        let error = self.fitted.iter().map(|count| 1.0 / count).sum::<f64>().sqrt();
        (log_odds(said / all) - log_odds(gammas / all), error)
    }
}

/// Returns stated and true probabilities of infinitely many events, in bins of log-odds of width 1.
fn rows(calibration: &Calibration, fitted: &[(f64, Class, f64)]) -> Vec<Row> {
    let bin = |score: f64| (calibration.posterior_log_odds(score).floor() + 40.0) as usize;
    let mut bins = [Row::default(); 80];
    for (score, class, _) in fitted {
        bins[bin(*score)].fitted[usize::from(*class != Class::Gamma)] += 1.0;
    }
    let prior = calibration.prior;
    for i in 0..(2.0 * FAR / STEP) as u32 {
        let from = -FAR + f64::from(i) * STEP;
        let mass = |mean: f64| normal_below(from + STEP - mean) - normal_below(from - mean);
        let [gammas, hadrons] = [prior * mass(1.0), (1.0 - prior) * mass(-1.0)];
        let said = calibration.posterior(from + 0.5 * STEP) * (gammas + hadrons);
        let terms = [said, gammas, gammas + hadrons];
        let row = &mut bins[bin(from + 0.5 * STEP)];
        row.truth.iter_mut().zip(terms).for_each(|(sum, term)| *sum += term);
    }
    let mut rows: Vec<Row> = Vec::new();
    for bin in bins {
        match rows.last_mut().filter(|last| !last.enough()) {
            Some(last) => *last = last.joined(bin),
            None => rows.push(bin),
        }
    }
    if rows.len() > 1 && !rows[rows.len() - 1].enough() {
        let last = rows.pop().unwrap();
        let before = rows.pop().unwrap();
        rows.push(before.joined(last));
    }
    rows
}

#[test]
fn posterior_at_the_ends_agrees_with_the_truth() {
    const REPLICAS: u64 = 80;
    let seed = 1000 * crate::test_seed();
    for (gammas, hadrons) in [(2000, 8000), (10_000, 10_000), (400, 20_000), (5000, 300)] {
        let (mut all, mut outside) = (0_u32, 0_u32);
        let mut ends = [Vec::new(), Vec::new()];
        for replica in 0..REPLICAS {
            let fitted = events(gammas, hadrons, seed + replica);
            let calibration = Calibration::fit(fitted.clone(), 1e-3).unwrap();
            calibration.validate().unwrap();
            let rows = rows(&calibration, &fitted);
            for row in &rows {
                let (deviation, error) = row.deviation();
                all += 1;
                outside += u32::from(deviation.abs() > 1.96 * error);
                assert!(deviation.abs() < 6.0 * error, "seed {seed}: {row:?} {deviation} {error}");
            }
            for (end, row) in ends.iter_mut().zip([rows.first(), rows.last()]) {
                end.push(row.unwrap().deviation().0);
            }
        }
        let n = REPLICAS as f64;
        let mean = |of: &Vec<f64>| of.iter().sum::<f64>() / n;
        let [low, high] = [mean(&ends[0]), mean(&ends[1])];
        let scatter = |of: &Vec<f64>, mean: f64| {
            let squares = of.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>();
            (squares / (n - 1.0) / n).sqrt()
        };
        let scatter = [scatter(&ends[0], low), scatter(&ends[1], high)];
        println!("{gammas} gammas, {hadrons} hadrons: {outside} of {all} bins outside 95 %");
        println!("  mean ln(said/true) of the odds in the end bins: {low:.3}, {high:.3}");
        // Binomial, five sigma.
        let most = 0.05 * f64::from(all) + 5.0 * (0.05 * 0.95 * f64::from(all)).sqrt();
        assert!(f64::from(outside) < most, "seed {seed}: {outside} of {all}");
        // On average over samples less than half of the error 1/√10 of an end pool, up to four
        // errors of the average.
        for (mean, error) in [low, high].into_iter().zip(scatter) {
            assert!(mean.abs() < 0.158 + 4.0 * error, "seed {seed}: {mean} ± {error}");
        }
    }
}

#[test]
fn end_pools_hold_ten_of_each_class() {
    let seed = crate::test_seed();
    let mut fitted = events(3000, 5000, seed);
    let weight = |i: u64| 0.2 + Stream::new(seed, "weight", &[]).uniform(i);
    fitted.iter_mut().zip(0..).for_each(|(event, i)| event.2 = weight(i));
    let calibration = Calibration::fit(fitted.clone(), 1e-3).unwrap();
    let [first, .., last] = calibration.points[..] else { panic!("seed {seed}") };
    let [low, high] = calibration.resolved.unwrap();
    assert!(low < first[0] && high > last[0], "the ends are inside the end pools");
    for below in [true, false] {
        let inside = |e: &&(f64, Class, f64)| if below { e.0 <= first[0] } else { e.0 >= last[0] };
        let of = |class: Class| {
            let own = fitted.iter().filter(inside).filter(|e| e.1 == class);
            own.fold(WeightSum::default(), |sum, event| sum.with(event.2))
        };
        let sums = [Class::Gamma, Class::Hadron].map(of);
        assert!(sums.iter().all(enough), "seed {seed}: {sums:?}");
        // The log-odds are those of all its events, plus one of the class that is rare there.
        let total = [Class::Gamma, Class::Hadron].map(|class| {
            let own = fitted.iter().filter(|e| e.1 == class);
            own.fold(WeightSum::default(), |sum, event| sum.with(event.2))
        });
        let shares = [0, 1].map(|class| {
            let one = if (class == 0) == below { 1.0 / total[class].effective() } else { 0.0 };
            sums[class].weight / total[class].weight + one
        });
        let odds = shares[0] / shares[1];
        let said = if below { first[1] } else { last[1] };
        assert!((said - odds.ln()).abs() < 1e-9, "seed {seed}");
    }
    let bound = |score| BoundSide::of(score, calibration.resolved);
    assert_eq!(bound(low - 0.1), Some(BoundSide::AtMost));
    assert_eq!(bound(high + 0.1), Some(BoundSide::AtLeast));
    assert_eq!(bound(0.0), None);
}

#[test]
fn scores_that_do_not_separate_have_no_bounds() {
    let mut inverted = events(500, 500, crate::test_seed());
    inverted.iter_mut().for_each(|event| event.0 = -event.0);
    let calibration = Calibration::fit(inverted, 0.5).unwrap();
    for score in [-5.0, 0.0, 5.0] {
        assert!((calibration.gammaness(score) - 0.5).abs() < 0.1);
    }
    assert_eq!(calibration.resolved, None);
}

#[test]
fn prior_of_triggered_events_counts_the_cuts() {
    let calibration = Calibration::fit(events(3000, 3000, 7), 1e-3).unwrap();
    let shares = CutEfficiency { gamma: 0.4, hadron: 0.05 };
    let triggered = calibration.clone().with_cut_efficiency(Some(shares));
    triggered.validate().unwrap();
    // Bayes in counts: of 10⁶ triggered events, 10³ are gammas.
    let odds = |p: f64| p / (1.0 - p);
    let likelihood_ratio = odds(calibration.gammaness(0.7));
    let (gammas, hadrons) = (1e3 * 0.4, (1e6 - 1e3) * 0.05);
    let expected = likelihood_ratio * gammas / hadrons;
    assert!((odds(triggered.posterior(0.7)) / expected - 1.0).abs() < 1e-9);
    assert!((triggered.gammaness(0.7) - calibration.gammaness(0.7)).abs() < 1e-15);
    // Unusable shares are ignored.
    for shares in [None, Some(CutEfficiency { gamma: 0.0, hadron: 0.1 })] {
        assert_eq!(calibration.clone().with_cut_efficiency(shares), calibration);
    }
}

#[test]
fn cards_of_older_versions_have_no_bounds() {
    let old =
        r#"{"points": [[-1.0, -2.0], [1.0, 2.0]], "prior": 0.001, "gammas": 90, "hadrons": 70}"#;
    let calibration: Calibration = serde_json::from_str(old).unwrap();
    calibration.validate().unwrap();
    assert_eq!((calibration.resolved, calibration.cut_efficiency), (None, None));
    assert_eq!(BoundSide::of(1e9, calibration.resolved), None);
    assert!((calibration.prior_log_odds() - (1e-3_f64 / 0.999).ln()).abs() < 1e-12);
    let text = serde_json::to_string(&calibration).unwrap();
    assert!(!text.contains("resolved") && !text.contains("cut_efficiency"), "{text}");
    let new = Calibration { resolved: Some([2.0, 1.0]), ..calibration };
    assert_eq!(new.validate().unwrap_err().exit_code(), 3);
}

#[test]
fn reliability_in_log_odds_is_that_at_the_prior() {
    let seed = crate::test_seed();
    let shares = CutEfficiency { gamma: 0.5, hadron: 0.1 };
    let calibration = Calibration::fit(events(20_000, 20_000, seed), 1e-3).unwrap();
    let calibration = calibration.with_cut_efficiency(Some(shares));
    let fresh = events(60_000, 200_000, seed + 1);
    let scores: Vec<f32> = fresh.iter().map(|e| e.0 as f32).collect();
    let gamma: Vec<bool> = fresh.iter().map(|e| e.1 == Class::Gamma).collect();
    let bins = reliability_odds(&calibration, &scores, &gamma, None);
    assert_eq!(bins.iter().map(|b| b.gammas + b.hadrons).sum::<u64>(), 260_000);
    let odds = calibration.prior_log_odds().exp();
    for bin in &bins {
        // The log-odds of the mean are in the bin, except for the curvature inside it.
        let mean = (bin.said / (1.0 - bin.said)).ln();
        assert!(bin.low - 1e-9 <= mean && mean <= bin.high + 1e-9, "{bin:?}");
        let (g, h) = (odds * bin.gammas as f64 / 6e4, bin.hadrons as f64 / 2e5);
        assert!((bin.found.value - g / (g + h)).abs() < 1e-12, "{bin:?}");
    }
    // The same events with gammas of many times the weight: the prior counts, not the mixture.
    let within = |bin: &&ReliabilityBin| bin.gammas > 2000 && bin.hadrons > 2000;
    assert!(bins.iter().filter(within).count() >= 3);
    for bin in bins.iter().filter(within) {
        assert!((bin.said / bin.found.value).ln().abs() < 0.25, "seed {seed}: {bin:?}");
    }
    // A bin without gammas has an error of about one event.
    let hadrons = bins.iter().find(|bin| bin.gammas == 0);
    assert!(hadrons.is_none_or(|bin| bin.found.error > 0.0));
    let range = calibration.range(&scores, &gamma);
    let [low, high] = range.scores.unwrap();
    let beyond = |of: fn(f64, f64) -> bool, end: f64| {
        scores.iter().filter(|s| of(f64::from(**s), end)).count() as u64
    };
    assert_eq!(range.below.gamma + range.below.hadron, beyond(|s, end| s < end, low));
    assert_eq!(range.above.gamma + range.above.hadron, beyond(|s, end| s > end, high));
}

#[test]
fn limits_beyond_resolved_range_hold() {
    let seed = 1000 * crate::test_seed();
    let (mut broken, mut ends) = (0_u32, 0_u32);
    for replica in 0..400 {
        let draw = |what: &str| Stream::new(seed, what, &[replica]).bits(0);
        let (gammas, hadrons) = (20 + draw("gammas") % 3000, 20 + draw("hadrons") % 3000);
        let mut fitted = events(gammas, hadrons, seed + replica);
        let is_coarse = replica % 4 == 0;
        for (score, _, weight) in &mut fitted {
            *weight = 0.1 * (1 + draw("weight") % 3) as f64;
            // Equal scores, and shares that differ by rounding only.
            *score = if is_coarse { (10.0 * *score).round() / 10.0 } else { *score };
        }
        let calibration = Calibration::fit(fitted, 1e-3).unwrap();
        calibration.validate().unwrap_or_else(|e| panic!("seed {seed}, {replica}: {e}"));
        let Some(([low, high], [upper, lower])) = calibration.resolved.zip(calibration.limits)
        else {
            continue;
        };
        ends += 2;
        // The log-odds of a score s are 2·s; beyond an end they are further out.
        broken += u32::from(2.0 * low > upper) + u32::from(2.0 * high < lower);
    }
    println!("{broken} of {ends} limits at 95 % are broken at the end itself");
    let most = 0.05 * f64::from(ends) + 4.0 * (0.05 * 0.95 * f64::from(ends)).sqrt();
    assert!(ends > 500 && f64::from(broken) < most, "seed {seed}: {broken} of {ends}");
}

#[test]
fn events_that_contradict_a_limit_are_found() {
    let seed = crate::test_seed();
    let calibration = Calibration::fit(events(5000, 5000, seed), 1e-3).unwrap();
    let contradicted = |gammas: u64, hadrons: u64, shift: f64, seed: u64| {
        let all = events(gammas, hadrons, seed);
        let is_gamma: Vec<bool> = all.iter().map(|e| e.1 == Class::Gamma).collect();
        let moved = |e: &(f64, Class, f64)| e.0 + if e.1 == Class::Gamma { 0.0 } else { shift };
        let scores: Vec<f32> = all.iter().map(|e| moved(e) as f32).collect();
        calibration.range(&scores, &is_gamma).contradicted
    };
    assert_eq!(contradicted(20_000, 20_000, 0.0, seed + 1), [false; 2], "seed {seed}");
    // Hadrons with higher scores than those of the calibration.
    assert!(contradicted(20_000, 20_000, 2.0, seed + 2)[1], "seed {seed}");
    assert_eq!(contradicted(3, 3, 2.0, seed + 3), [false; 2], "seed {seed}");
}
