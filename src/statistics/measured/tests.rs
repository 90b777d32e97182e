use super::*;
use taiga_flow_gpu::random::Stream;

#[test]
fn values_are_written_to_their_errors_digits() {
    assert_eq!(Measured { value: 0.913_84, error: 0.001_21 }.to_string(), "0.9138 ± 0.0012");
    assert_eq!(Measured { value: 3.051, error: 0.14 }.to_string(), "3.05 ± 0.14");
    assert_eq!(Measured { value: 1.0, error: 0.0 }.to_string(), "1.0000");
}

#[test]
fn small_values_avoid_rows_of_zeros() {
    let text = |value, error| Measured { value, error }.to_string();
    assert_eq!(text(0.0, 0.0), "0");
    assert_eq!(text(0.0, 0.0099), "0 ± 0.0099");
    assert_eq!(text(0.0, 3.1e-9), "0 ± 3.1e-9");
    assert_eq!(text(4.21e-7, 3.4e-8), "(4.21 ± 0.34)e-7");
    assert_eq!(text(-2.0e-9, 3.0e-8), "(-0.2 ± 3.0)e-8");
}

#[test]
fn probabilities_near_one_do_not_round_to_it() {
    for (p, text) in [
        (0.0361, "0.0361"),
        (0.62, "0.620"),
        (0.999_873, "0.999873"),
        (1.0 - 3.2e-8, "1 − 3.20e-8"),
        (1.0, "1 − 2.98e-8"),
        (1.25e-7, "1.25e-7"),
    ] {
        assert_eq!(probability(p, 3), text);
    }
}

#[test]
fn difference_shows_direction_and_size() {
    let describe = |value| Measured { value, error: 0.0012 }.compared();
    assert_eq!(describe(-0.0106), "lower by 0.0106 ± 0.0012");
    assert_eq!(describe(0.0106), "higher by 0.0106 ± 0.0012");
    assert_eq!(describe(0.0), "equal within 0.0012");
    assert_eq!(Measured { value: 0.0, error: 0.0 }.compared(), "equal");
    assert_eq!(compared(0.0, |size| significant(size, 3)), "equal");
}

#[test]
fn numbers_and_counts_are_formatted() {
    assert_eq!(significant(-9.123_45, 4), "-9.123");
    assert_eq!(significant(0.0, 4), "0");
    assert_eq!(significant(3.4e38, 3), "3.40e38");
    assert_eq!(grouped(12), "12");
    assert_eq!(grouped(1_234_567), "1\u{202f}234\u{202f}567");
}

#[test]
fn weighted_share_error_agrees_with_samples() {
    let stream = Stream::new(crate::test_seed(), "shares", &[]);
    let sample = |replica: u64| {
        let (mut passed, mut all) = (WeightSum::default(), WeightSum::default());
        for i in 0..300 {
            let at = 2 * (300 * replica + i);
            let weight = 1.0 / (0.05 + stream.uniform(at));
            all = all.with(weight);
            if stream.uniform(at + 1) < 0.3 {
                passed = passed.with(weight);
            }
        }
        Measured::share(passed, all).unwrap()
    };
    let found: Vec<Measured> = (0..600).map(sample).collect();
    let mean = found.iter().map(|m| m.value).sum::<f64>() / 600.0;
    let spread = found.iter().map(|m| (m.value - mean) * (m.value - mean)).sum::<f64>() / 599.0;
    let said = found.iter().map(|m| m.error * m.error).sum::<f64>() / 600.0;
    assert!((mean - 0.3).abs() < 0.01, "{mean}");
    // Four standard errors of a variance of 600.
    assert!((said / spread).ln().abs() < 0.25, "{said} {spread}");
    let binomial = Measured::share(WeightSum::of(50), WeightSum::of(100)).unwrap();
    assert!((binomial.error - 0.05).abs() < 1e-15);
    assert_eq!(Measured::share(WeightSum::default(), WeightSum::default()), None);
}

/// Returns the Wilson interval at z = 1 of k of n events, by its formula.
fn wilson(k: f64, n: f64) -> [f64; 2] {
    let p = k / n;
    let centre = (p + 0.5 / n) / (1.0 + 1.0 / n);
    let half = libm::sqrt(p * (1.0 - p) / n + 0.25 / (n * n)) / (1.0 + 1.0 / n);
    [centre - half, centre + half]
}

#[test]
fn shares_of_none_and_all_have_wilson_errors() {
    for n in [1_u64, 10, 137, 100_000] {
        let [none, all] = [0, n].map(|k| Measured::fraction(k, n).unwrap());
        let width = wilson(0.0, n as f64)[1];
        assert!((none.error / width - 1.0).abs() < 1e-9, "{none:?}, {width}");
        assert!((none.error - all.error).abs() < 1e-15 && all.value > 0.999);
        // The error is not smaller than with one passing event, within a few per cent.
        let one = Measured::fraction(1, n + 1).unwrap();
        assert!(none.error < 1.5 * one.error && none.error > 0.9 * one.error);
    }
    // Equal weights of any size act as none; unequal weights leave fewer effective events.
    let equal = Measured::share(WeightSum::default(), WeightSum::of(50).scaled(7.0)).unwrap();
    assert!((equal.error - 1.0 / 51.0).abs() < 1e-12);
    let unequal = WeightSum::default().with(10.0).with(1.0).with(1.0);
    let all = Measured::share(unequal, unequal).unwrap();
    assert!(all.error > 0.4, "{all:?}");
}

#[test]
fn fraction_without_events_is_none() {
    assert_eq!(Measured::fraction(0, 0), None);
    let half = Measured::fraction(50, 100).unwrap();
    assert!((half.value - 0.5).abs() < 1e-15 && (half.error - 0.05).abs() < 1e-15);
}
