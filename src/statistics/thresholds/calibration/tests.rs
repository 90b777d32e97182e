//! Tests calibrations of small samples, and the probabilities they give.

mod planted;

use super::super::reliability::*;
use super::*;
use taiga_flow_gpu::random::Stream;

/// Returns gammas N(1, 1) and hadrons N(−1, 1): the log-odds of a score s are 2·s.
fn events(count: u64, seed: u64) -> Vec<(f64, Class, f64)> {
    let stream = Stream::new(seed, "calibration", &[]);
    let one = |i: u64| match i % 4 {
        0 => (1.0 + stream.normal(i), Class::Gamma, 1.0),
        _ => (-1.0 + stream.normal(i), Class::Hadron, 0.7),
    };
    (0..count).map(one).collect()
}

#[test]
fn gammaness_is_probability_at_equal_numbers() {
    let calibration = Calibration::fit(events(80_000, 3), 1e-3).unwrap();
    calibration.validate().unwrap();
    for s in [-1.5, -0.5, 0.0, 0.3, 1.2] {
        let exact = 1.0 / (1.0 + f64::exp(-2.0 * s));
        assert!((calibration.gammaness(s) - exact).abs() < 0.03, "{s}");
    }
    let odds = |p: f64| p / (1.0 - p);
    let (g, p) = (calibration.gammaness(0.4), calibration.posterior(0.4));
    assert!((odds(p) / odds(g) - 1e-3 / 0.999).abs() < 1e-9);
}

#[test]
fn gammaness_holds_on_fresh_events_other_mixture() {
    let calibration = Calibration::fit(events(40_000, 5), 1e-3).unwrap();
    let other: Vec<_> = events(60_000, 6).into_iter().filter(|e| e.0 > -2.0).collect();
    let said: Vec<f32> = other.iter().map(|e| calibration.gammaness(e.0) as f32).collect();
    let gamma: Vec<bool> = other.iter().map(|e| e.1 == Class::Gamma).collect();
    let bins = reliability(&said, &gamma, None);
    assert_eq!(bins.iter().map(|b| b.gammas + b.hadrons).sum::<u64>(), other.len() as u64);
    for bin in &bins {
        // The error of the calibration itself is as large as that of the other sample.
        let allowed = 5.0 * bin.found.error + 0.02;
        assert!((bin.said - bin.found.value).abs() < allowed, "{bin:?}");
    }
    // Weights that reduce each class in turn change the true probability.
    let weights: Vec<f64> = other.iter().map(|e| if e.0 > 0.0 { 3.0 } else { 1.0 }).collect();
    let weighted = reliability(&said, &gamma, Some(&weights));
    let moved = |(a, b): (&ReliabilityBin, &ReliabilityBin)| a.found.value - b.found.value;
    assert!(weighted.iter().zip(&bins).map(moved).any(|m| m.abs() > 0.05));
    // A reversed calibration is detected.
    let wrong: Vec<f32> = said.iter().map(|g| 1.0 - g).collect();
    assert!(reliability(&wrong, &gamma, None).iter().any(|b| (b.said - b.found.value).abs() > 0.5));
    assert!(reliability(&said, &vec![true; said.len()], None).is_empty());
}

#[test]
fn no_event_is_certain_and_nan_stays_nan() {
    let apart: Vec<(f64, Class, f64)> = (0..200)
        .map(|i| (f64::from(i), if i < 100 { Class::Hadron } else { Class::Gamma }, 1.0))
        .collect();
    let calibration = Calibration::fit(apart, 0.5).unwrap();
    let (low, high) = (calibration.gammaness(-1e9), calibration.gammaness(1e9));
    // Ten events of the other class in the pool at an end, and one more, are odds of 100/11.
    assert!((low - 11.0 / 111.0).abs() < 1e-9 && (high - 100.0 / 111.0).abs() < 1e-9);
    assert!(calibration.gammaness(f64::NAN).is_nan());
    let scores: Vec<f64> = (-20..220).map(|i| calibration.gammaness(f64::from(i))).collect();
    assert!(scores.windows(2).all(|w| w[0] <= w[1]), "a higher score is at least as gamma-like");
}

#[test]
fn ties_few_events_and_bad_points_are_handled() {
    let tied: Vec<(f64, Class, f64)> = (0..40)
        .map(|i| (1.0, if i % 2 == 0 { Class::Gamma } else { Class::Hadron }, 1.0))
        .collect();
    let calibration = Calibration::fit(tied, 0.5).unwrap();
    assert!((calibration.gammaness(1.0) - 0.5).abs() < 1e-12);
    assert_eq!(Calibration::fit(events(20, 1), 0.5).unwrap_err().exit_code(), 3);
    let broken = Calibration { points: vec![[0.0, 1.0], [1.0, 0.0]], ..calibration };
    assert_eq!(broken.validate().unwrap_err().exit_code(), 3);
}
