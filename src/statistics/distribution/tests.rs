use super::*;
use taiga_flow_gpu::random::Stream;

fn normals(seed: u64, count: u64, mean: f64, width: f64) -> Distribution {
    let stream = Stream::new(seed, "normals", &[]);
    let mut of = Distribution::default();
    (0..count).for_each(|i| of.add((mean + width * stream.normal(i)) as f32));
    of
}

#[test]
fn bins_keep_order_and_stay_close_to_numbers() {
    let values = [-3e38_f32, -7.03, -7.0, -1e-3, -1e-30, 0.0, 1e-30, 0.5, 0.51, 8.0, 8.05, 3e38];
    for pair in values.windows(2) {
        assert!(bin_of(pair[0]) < bin_of(pair[1]), "{pair:?}");
    }
    assert_eq!(bin_of(-0.0), bin_of(0.0));
    for value in values.into_iter().filter(|v| *v != 0.0) {
        let relative = (middle(bin_of(value)) / f64::from(value) - 1.0).abs();
        assert!(relative < 0.004, "{value}: {relative}");
    }
}

#[test]
fn weights_and_minima_equal_those_of_values() {
    let of = normals(3, 4000, 8.0, 2.0);
    let stream = Stream::new(3, "normals", &[]);
    let values: Vec<f64> = (0..4000).map(|i| 8.0 + 2.0 * stream.normal(i)).collect();
    let expected: f64 = values.iter().map(|x| x.abs().powf(-0.6)).sum();
    let found = of.weighted(|x| libm::pow(x.abs(), -0.6));
    assert!((found.weight / expected - 1.0).abs() < 1e-3 && found.events == 4000);
    assert_eq!(of.weighted(|_| 1.0), WeightSum::of(4000));
    let mut below = 0;
    for (least, count) in of.by_least_value() {
        let expected = values.iter().filter(|x| (**x as f32) < least as f32).count() as u64;
        assert_eq!(below, expected, "{least}");
        below += count;
    }
}

#[test]
fn pieces_add_up_and_can_be_subtracted() {
    let (a, b) = (normals(1, 3000, 0.0, 1.0), normals(2, 1777, 0.5, 1.0));
    let mut both = a.clone();
    both.merge(&b);
    assert_eq!(both.events(), 4777);
    assert_eq!(both.without(&b), a);
    assert_eq!(both.histogram(-3.0, 3.0, 7).iter().sum::<u64>(), 4777);
    let median = a.quantile(0.5).unwrap();
    assert!(median.abs() < 0.08, "{median}");
    let mut odd = Distribution::default();
    [f32::NAN, f32::INFINITY, f32::NEG_INFINITY].into_iter().for_each(|x| odd.add(x));
    assert_eq!((odd.events(), odd.quantile(0.5)), (0, None));
    assert_eq!(odd.drift_from(&a), None);
}

#[test]
fn binned_distance_is_near_the_exact_one() {
    let (mean, n) = (0.3, 40_000);
    let drift = normals(5, n, mean, 1.0).drift_from(&normals(6, n, 0.0, 1.0)).unwrap();
    // Two normal distributions of width 1 at a distance d differ by Φ(d/2) − Φ(−d/2).
    let expected = 2.0 * crate::statistics::tails::normal_below(mean / 2.0) - 1.0;
    assert!((drift.ks - expected).abs() < 0.01, "{drift:?}, expected {expected}");
    assert!(drift.p_value < 1e-6);
    // Their index is near d².
    assert!((drift.psi - mean * mean).abs() < 0.02, "{drift:?}");
}

#[test]
fn drift_is_found_only_in_different_populations() {
    let reference = normals(7, 50_000, -8.0, 2.0);
    let mut least = 1.0_f64;
    for seed in 0..20 {
        let drift = normals(100 + seed, 2000, -8.0, 2.0).drift_from(&reference).unwrap();
        assert!(drift.psi < 0.03, "{drift:?}");
        least = least.min(drift.p_value);
    }
    assert!(least > 1e-4, "{least}");
    let shifted = normals(9, 2000, -7.0, 2.0).drift_from(&reference).unwrap();
    assert!(shifted.psi > 0.15 && shifted.p_value < 1e-9, "{shifted:?}");
    let elsewhere = normals(9, 2000, 90.0, 2.0).drift_from(&reference).unwrap();
    assert!(elsewhere.ks > 0.99 && elsewhere.psi.is_finite() && elsewhere.psi > 1.0);
}

#[test]
fn drift_needs_an_effect_beyond_chance() {
    let limits = DriftLimits::default();
    let drift = |ks: f64, p_value: f64, psi: f64| Drift {
        events: 20_000,
        reference_events: 200_000,
        ks,
        p_value,
        psi,
    };
    // A size that is 25 % larger.
    assert!(drift(0.070, 3e-38, 0.03).is_flagged(&limits, 1000));
    assert!(drift(0.04, 3e-38, 0.11).is_flagged(&limits, 1000));
    // Certain and small; large and by chance; by chance among many comparisons.
    assert!(!drift(0.04, 3e-38, 0.03).is_flagged(&limits, 1000));
    assert!(!drift(0.070, 0.02, 0.03).is_flagged(&limits, 1));
    assert!(drift(0.070, 1e-4, 0.03).is_flagged(&limits, 99));
    assert!(!drift(0.070, 1e-4, 0.03).is_flagged(&limits, 101));
    let few = Drift { events: 99, ..drift(0.5, 1e-30, 1.0) };
    assert!(!few.is_flagged(&limits, 1));
}
