//! Counts and significance expected of an observation, and the threshold of the largest one.
//!
//! The hadron survival at a high threshold is determined by few events. So the gamma efficiency as
//! a function of it is smoothed before the search for the largest significance. Smoothing uses
//! local straight lines between the normal quantiles of both, in which the ROC curve of two normal
//! distributions is a straight line (Hanley 1988). Without smoothing the search prefers thresholds
//! where hadrons are missing by chance, and loses about 2 % more.

use crate::config::Observation;
use crate::statistics::counts::on_off::li_ma;
use crate::statistics::roc::{PassingCounts, enough};
use crate::statistics::tails::normal_below;
use crate::statistics::{Roc, Sample};
use serde::{Deserialize, Serialize};

/// Significance and smallest number of gammas of a detection.
const DETECTED: f64 = 5.0;
const MIN_GAMMAS: f64 = 10.0;
/// Number of compared points of the curve, evenly spaced in the logarithm of the hadrons.
const POINTS: usize = 256;
/// Width of the window of a local line, in the logarithm of the number of hadrons.
const WINDOW: f64 = 0.7;

/// Expected counts at a threshold.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Expected {
    pub on: f64,
    /// Sum over all OFF positions.
    pub off: f64,
    /// Significance by Li and Ma.
    pub significance: f64,
    /// Rate of gammas that gives 5 σ and at least ten gammas in the same time, as a multiple of the
    /// assumed rate; `None` if no gamma passes.
    pub sensitivity: Option<f64>,
}

impl Expected {
    /// Returns the expectation for these passing shares of the events inside the cuts.
    pub(crate) fn of(observation: &Observation, gamma: f64, hadron: f64) -> Expected {
        let (gammas, background) = passing(observation, gamma, hadron);
        let off = background * observation.off_positions as f64;
        Expected {
            on: gammas + background,
            off,
            significance: significance(observation, gamma, hadron),
            sensitivity: sensitivity(gammas, background, off, alpha(observation)),
        }
    }
}

fn alpha(observation: &Observation) -> f64 {
    1.0 / observation.off_positions as f64
}

/// Returns the expected numbers of passing gammas and background events at one position.
fn passing(o: &Observation, gamma: f64, hadron: f64) -> (f64, f64) {
    let gammas = o.gamma_rate_per_hour * o.hours * o.gammas_inside * gamma;
    (gammas, o.background_rate_per_hour * o.hours * o.hadrons_inside * hadron)
}

fn significance(observation: &Observation, gamma: f64, hadron: f64) -> f64 {
    let (gammas, background) = passing(observation, gamma, hadron);
    let off = background * observation.off_positions as f64;
    li_ma(gammas + background, off, alpha(observation))
}

fn sensitivity(gammas: f64, background: f64, off: f64, alpha: f64) -> Option<f64> {
    if gammas.is_nan() || gammas <= 0.0 {
        return None;
    }
    let detected = |n: f64| li_ma(n + background, off, alpha) >= DETECTED;
    let (mut low, mut high) = (0.0, MIN_GAMMAS);
    while !detected(high) {
        (low, high) = (high, 2.0 * high);
    }
    for _ in 0..60 {
        let middle = f64::midpoint(low, high);
        if detected(middle) { high = middle } else { low = middle }
    }
    Some(high.max(MIN_GAMMAS) / gammas)
}

/// Returns the point of the curve with the largest expected significance, among those with at least
/// ten passing hadrons.
pub(super) fn most_significant(
    sample: &Sample,
    observation: &Observation,
) -> Option<PassingCounts> {
    let roc = Roc::of(sample);
    let points = thinned(&roc);
    let smoothed = smoothed(&roc, &points);
    let value = |i: &usize| significance(observation, smoothed[*i], survival(&roc, &points[*i]));
    (0..points.len()).max_by(|a, b| value(a).total_cmp(&value(b))).map(|best| points[best])
}

/// Returns points with enough hadrons, evenly spaced in the logarithm of their weight.
fn thinned(roc: &Roc) -> Vec<PassingCounts> {
    let usable = |p: &&PassingCounts| enough(&p.hadrons) && p.gammas.weight > 0.0;
    let points: Vec<&PassingCounts> = roc.points.iter().filter(usable).collect();
    let (Some(first), Some(last)) = (points.first(), points.last()) else { return Vec::new() };
    let [low, high] = [first, last].map(|p| libm::log(p.hadrons.weight));
    let step = (high - low).max(1e-9) / POINTS as f64;
    let mut taken = None;
    let mut thinned = Vec::new();
    for point in points {
        let bin = ((libm::log(point.hadrons.weight) - low) / step) as usize;
        // The first point of each step has the highest threshold.
        if taken != Some(bin) {
            taken = Some(bin);
            thinned.push(*point);
        }
    }
    thinned
}

/// Returns smoothed gamma efficiencies at points of the curve.
fn smoothed(roc: &Roc, points: &[PassingCounts]) -> Vec<f64> {
    let shares = |p: &PassingCounts| [p.gammas.weight / roc.gammas.weight, survival(roc, p)];
    // (quantile of hadrons, quantile of gammas, logarithm of hadrons, weight) of each point that
    // has both.
    let coordinates = |p: &PassingCounts| {
        let [gamma, hadron] = shares(p);
        let inside = |share: f64| share > 0.0 && share < 1.0 - 1e-9;
        (inside(gamma) && inside(hadron)).then(|| {
            let effective = p.hadrons.effective();
            [
                normal_quantile(hadron),
                normal_quantile(gamma),
                libm::log(effective),
                effective.sqrt(),
            ]
        })
    };
    let known: Vec<[f64; 4]> = points.iter().filter_map(coordinates).collect();
    let smooth = |p: &PassingCounts| {
        let at = coordinates(p).and_then(|[x, _, log, _]| local_line(&known, x, log));
        at.map_or(shares(p)[0], normal_below)
    };
    points.iter().map(smooth).collect()
}

fn survival(roc: &Roc, point: &PassingCounts) -> f64 {
    point.hadrons.weight / roc.hadrons.weight
}

/// Returns the value at `x` of the best line through the points near `log`; `None` with fewer than
/// two different points.
fn local_line(points: &[[f64; 4]], x: f64, log: f64) -> Option<f64> {
    let [mut w, mut wx, mut wy, mut wxx, mut wxy] = [0.0; 5];
    for [px, py, plog, weight] in points {
        let away = (plog - log) / WINDOW;
        let weight = weight * libm::exp(-0.5 * away * away);
        let dx = px - x;
        w += weight;
        wx += weight * dx;
        wy += weight * py;
        wxx += weight * dx * dx;
        wxy += weight * dx * py;
    }
    let determinant = w * wxx - wx * wx;
    (determinant > 1e-12 * w * w).then(|| (wxx * wy - wx * wxy) / determinant)
}

/// Returns the quantile of a share of the standard normal distribution, by bisection.
fn normal_quantile(share: f64) -> f64 {
    let (mut low, mut high) = (-40.0, 40.0);
    for _ in 0..80 {
        let middle = f64::midpoint(low, high);
        if normal_below(middle) < share { low = middle } else { high = middle }
    }
    f64::midpoint(low, high)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statistics::{Rule, Threshold};
    use taiga_flow_gpu::random::Stream;

    fn observation(gammas: f64, background: f64) -> Observation {
        Observation::new(str::to_string, [gammas, background, 10.0], 5).unwrap()
    }

    /// Returns gammas at 2 and hadrons at 0; one in fifty hadrons is gamma-like.
    fn planted(stream: Stream, gammas: u64, hadrons: u64, mixed: bool) -> Sample {
        let gamma: Vec<bool> = (0..gammas + hadrons).map(|i| i < gammas).collect();
        let score = |(i, gamma): (usize, &bool)| {
            let like = mixed && stream.uniform(4 * i as u64 + 2) < 0.02;
            stream.normal(2 * i as u64) + if *gamma || like { 2.0 } else { 0.0 }
        };
        let scores: Vec<f64> = gamma.iter().enumerate().map(score).collect();
        Sample::new(&scores, &gamma).unwrap()
    }

    /// Returns the significance at a threshold with the true efficiencies.
    fn true_significance(o: &Observation, threshold: f64, mixed: bool) -> f64 {
        let above = |mean: f64| normal_below(mean - threshold);
        let like = if mixed { 0.02 } else { 0.0 };
        significance(o, above(2.0), (1.0 - like) * above(0.0) + like * above(2.0))
    }

    fn chosen(sample: &Sample, o: Observation) -> Threshold {
        Rule::Significance(o).choose(sample).unwrap()
    }

    #[test]
    fn significance_rule_is_near_the_best_of_a_scan() {
        let seed = crate::test_seed();
        for (case, (mixed, gammas, background)) in
            [(false, 50.0, 2e3), (false, 300.0, 2e4), (true, 50.0, 2e3), (true, 10.0, 2e3)]
                .into_iter()
                .enumerate()
        {
            let o = observation(gammas, background);
            let scan = (0..8000).map(|i| true_significance(&o, f64::from(i) / 1000.0 - 2.0, mixed));
            let best = scan.fold(0.0, f64::max);
            let stream = Stream::new(seed, "planted", &[case as u64]);
            let threshold = chosen(&planted(stream, 20_000, 200_000, mixed), o);
            let reached = true_significance(&o, threshold.value, mixed) / best;
            println!("case {case}: {reached:.4} of {best:.2} at {}", threshold.value);
            assert!(reached > 0.98 && reached <= 1.0 + 1e-9, "case {case}: {reached}");
            assert_eq!(threshold.limited_by_hadrons, None, "case {case}");
        }
    }

    #[test]
    fn significance_rule_reports_few_hadrons() {
        let stream = Stream::new(crate::test_seed(), "few", &[]);
        // Of 1000 hadrons ten pass near 2.3; the best threshold is above 3.
        let o = observation(1.0, 1e5);
        let threshold = chosen(&planted(stream, 1000, 1000, false), o);
        let limit = threshold.limited_by_hadrons.expect("limited");
        assert!((10..20).contains(&limit), "{limit}");
        assert!(Rule::Significance(o).choose(&planted(stream, 50, 9, false)).is_err());
    }

    #[test]
    fn expected_counts_are_rates_times_shares() {
        let o = observation(4.0, 100.0).with_inside([0.5, 0.2]);
        let expected = Expected::of(&o, 0.8, 0.01);
        // 40 gammas and 1000 others in 10 h: 16 and 2 pass.
        assert!((expected.on - 18.0).abs() < 1e-9 && (expected.off - 10.0).abs() < 1e-9);
        assert!((expected.significance - li_ma(18.0, 10.0, 0.2)).abs() < 1e-12);
        let needed = expected.sensitivity.unwrap() * 16.0;
        assert!((li_ma(needed + 2.0, 10.0, 0.2) - 5.0).abs() < 1e-6 || needed <= 10.0 + 1e-9);
        assert_eq!(Expected::of(&o, 0.0, 0.01).sensitivity, None);
        // Without background ten gammas are required.
        let none = Expected::of(&o, 0.5, 0.0);
        assert!((none.sensitivity.unwrap() - 1.0).abs() < 1e-9, "{none:?}");
    }

    #[test]
    fn normal_quantiles_are_those_of_the_tables() {
        for (share, value) in [(0.5, 0.0), (0.975, 1.959_963_984_540_054), (1e-6, -4.753_424_308_8)]
        {
            assert!((normal_quantile(share) - value).abs() < 1e-8, "{share}");
        }
    }
}
