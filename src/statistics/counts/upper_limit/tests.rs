use super::*;
use crate::statistics::tests::lines;
use std::collections::HashMap;

impl OnOff {
    /// Parses N_on, N_off, α and the expected value of a line of the reference.
    ///
    /// # Panics
    /// If the line does not have four numbers.
    pub(crate) fn of_line(line: &[f64]) -> (OnOff, f64) {
        let [on, off, alpha, expected] = line[..] else { panic!("{line:?}") };
        (OnOff { on: on as u64, off: off as u64, alpha }, expected)
    }
}

#[test]
fn limit_many_counts_equals_gammapy() {
    let mut compared = 0;
    for line in lines("limit") {
        let (counts, expected) = OnOff::of_line(&line);
        let limit = counts.upper_limit();
        // Below an excess of 0 gammapy starts from the unphysical best value, which gives lower
        // limits.
        if counts.excess().value < 0.0 {
            assert!(limit > expected, "{counts:?}: {limit}, {expected}");
            continue;
        }
        let tolerance = 1e-5 * expected.max(1.0);
        assert!((counts.profile_limit() - expected).abs() < tolerance, "{counts:?}");
        if counts.on.min(counts.off) >= FEW {
            assert!((limit - expected).abs() < tolerance, "{counts:?}: {limit}, {expected}");
            compared += 1;
        } else {
            assert!(limit > expected, "{counts:?}: {limit}, {expected}");
        }
    }
    assert!(compared >= 15, "{compared}");
}

#[test]
fn profile_limit_deviance_risen_by_quantile() {
    for (on, off) in [(0, 0), (0, 3), (3, 0), (7, 40), (100, 300)] {
        let counts = OnOff { on, off, alpha: 0.2 };
        let (best, limit) = (counts.excess().value.max(0.0), counts.profile_limit());
        let risen = counts.deviance(limit) - counts.deviance(best);
        assert!(limit > best && (risen - Z_95 * Z_95).abs() < 1e-8, "{on} {off}: {risen}");
    }
}

#[test]
fn limit_no_background_equals_poisson() {
    // 95 % limits of a Poisson mean, χ²(0.95; 2n + 2)/2 (Particle Data Group, Statistics,
    // table of Poisson limits: 3.00, 4.74, 6.30, 7.75, 9.15, 10.51).
    let known = [2.996, 4.744, 6.296, 7.754, 9.154, 10.513];
    for (on, expected) in known.into_iter().enumerate() {
        let limit = OnOff { on: on as u64, off: 0, alpha: 0.2 }.upper_limit();
        assert!((-0.001..0.01).contains(&(limit - expected)), "{on}: {limit}, {expected}");
    }
    let least = -libm::log(0.05);
    for (on, off) in [(0, 0), (0, 7), (0, 200), (1, 90), (10, 60)] {
        let limit = OnOff { on, off, alpha: 1.0 }.upper_limit();
        assert!(limit >= least, "{on} {off}: {limit}");
    }
}

#[test]
fn limit_across_border_rises_with_on_counts() {
    for (alpha, most_off) in [(0.2, 60), (1.0 / 7.0, 80), (1.0, 20)] {
        for off in 0..most_off {
            let limit = |on| OnOff { on, off, alpha }.upper_limit();
            for on in 0..14 {
                // Backgrounds are tried in steps.
                let (fewer, more) = (limit(on), limit(on + 1));
                assert!(more > fewer - 0.02, "{on} {off} {alpha}: {fewer} {more}");
            }
            assert!(limit(FEW - 1) < MAX_OF_FEW);
        }
    }
    for (on, off, alpha) in [(9, 20, 0.2), (9, 45, 0.2), (9, 9, 1.0), (30, 9, 0.2)] {
        let counts = OnOff { on, off, alpha };
        let step = counts.upper_limit() - counts.profile_limit();
        assert!((0.0..1.0).contains(&step), "{counts:?}: {step}");
    }
}

/// Returns the probabilities of the counts of a Poisson number.
fn probabilities(mean: f64) -> Vec<f64> {
    let most = (mean + 8.0 * mean.sqrt() + 20.0) as u64;
    (0..most).map(|count| poisson(count, mean)).collect()
}

#[test]
fn limit_few_counts_covers_94_percent() {
    let signals = [0.5, 1.0, 2.0, 3.0, 4.0, 5.0, 7.0, 10.0, 15.0];
    println!("coverage of 95 % limits; signals {signals:?}");
    for alpha in [0.2, 1.0 / 7.0, 1.0] {
        let mut limits = HashMap::new();
        for b in [0.0, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0] {
            let of_off = probabilities(b / alpha);
            let mut coverage = |s: f64| {
                let mut covered = 0.0;
                for (on, p) in probabilities(s + b).iter().enumerate() {
                    for (off, q) in of_off.iter().enumerate().filter(|(_, q)| p * *q > 1e-9) {
                        let counts = OnOff { on: on as u64, off: off as u64, alpha };
                        let limit =
                            *limits.entry((on, off)).or_insert_with(|| counts.upper_limit());
                        covered += if limit >= s { p * q } else { 0.0 };
                    }
                }
                covered
            };
            let of_signals = signals.map(&mut coverage);
            let text = of_signals.map(|c| format!("{c:.4}")).join("  ");
            println!("  alpha {alpha:.3}, b {b:4}: {text}");
            assert!(of_signals.iter().all(|c| (0.94..=1.0 + 1e-9).contains(c)));
        }
    }
}
