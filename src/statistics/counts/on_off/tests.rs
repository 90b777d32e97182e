use super::*;
use crate::statistics::tests::lines;
use taiga_flow_gpu::random::Stream;

#[test]
fn significance_agrees_with_gammapy() {
    let line = lines("li_ma");
    assert!(line.len() >= 100);
    let mut largest = 0.0_f64;
    for line in line {
        let (counts, expected) = OnOff::of_line(&line);
        // The sign of gammapy at N_on = αN_off is that of rounding; the size is 0 there.
        let difference = (counts.significance() - expected).abs();
        assert!(difference < 1e-6, "{counts:?}: {}, {expected}", counts.significance());
        largest = largest.max(difference);
    }
    println!("largest difference from gammapy: {largest:.1e}");
}

#[test]
fn limits_where_a_count_is_zero_are_taken() {
    let counts = |on, off| OnOff { on, off, alpha: 0.2 };
    assert!(counts(0, 0).significance().abs() < 1e-12);
    let none_on = -(2.0 * 10.0 * libm::log(1.2)).sqrt();
    assert!((counts(0, 10).significance() - none_on).abs() < 1e-12);
    let none_off = (2.0 * 10.0 * libm::log(6.0)).sqrt();
    assert!((counts(10, 0).significance() - none_off).abs() < 1e-12);
    assert!(OnOff::new(3, &[]).is_none());
}

#[test]
fn uneven_positions_have_an_unlikely_chi_square() {
    let even = Homogeneity::of(&[100, 103, 98, 101, 99]).unwrap();
    assert!(even.degrees == 4 && even.p_value > 0.9, "{even:?}");
    let uneven = Homogeneity::of(&[100, 103, 180, 101, 99]).unwrap();
    assert!(uneven.p_value < 1e-6, "{uneven:?}");
    assert_eq!((Homogeneity::of(&[5]), Homogeneity::of(&[0, 0])), (None, None));
}

#[test]
fn leakage_correction_restores_the_excess() {
    let leak = Leak { on: 8000, off: 5600, positions: 5, events: 10_000, weights: None };
    assert!((leak.share().unwrap().value - 0.14).abs() < 1e-12);
    let corrected = leak.corrected(Measured { value: 86.0, error: 10.0 }).unwrap();
    assert!((corrected.value - 100.0).abs() < 1e-9, "{corrected:?}");
    assert!((11.6..11.9).contains(&corrected.error), "{corrected:?}");
    assert_eq!(Leak { on: 0, ..leak }.corrected(corrected), None);
}

fn leak(on: u64, off: u64) -> Leak {
    Leak { on, off, positions: 5, events: 2 * (on + off), weights: None }
}

#[test]
fn leak_error_at_zero_and_all_is_not_zero() {
    // Wilson's interval of 0 of n extends to 1/(n + 1).
    for n in [1_u64, 12, 400] {
        let none = leak(n, 0).share().unwrap();
        let expected = n as f64 / (n + 1) as f64;
        let back = 1.0 - none.error * 5.0;
        assert!(none.value.abs() < 1e-15 && (back - expected).abs() < 1e-12, "{none:?}");
    }
    assert!((wilson_error(1.0, 0.0, 12.0) - 1.0 / 13.0).abs() < 1e-12);
    // With many counts: the error of a ratio of Poisson numbers.
    let many = leak(10_000, 2500).share().unwrap();
    let expected = many.value * (1.0_f64 / 10_000.0 + 1.0 / 2500.0).sqrt();
    assert!((many.error / expected - 1.0).abs() < 0.01, "{many:?}, {expected}");
}

#[test]
fn leak_few_gammas_is_not_resolved() {
    assert!(leak(400, 300).is_resolved());
    assert!(!leak(9, 0).is_resolved(), "fewer than ten");
    assert!(!leak(12, 40).is_resolved(), "a large error of 1 − leakage");
    assert!(!leak(100, 500).is_resolved(), "no excess remains");
    assert!(!leak(0, 500).is_resolved());
}

#[test]
fn leak_weighted_equals_sum_of_weights() {
    let stream = Stream::new(crate::test_seed(), "weights", &[]);
    let one = |replica: u64| {
        let mut sums = [WeightSum::default(); 2];
        for i in 0..600 {
            let at = 2 * (600 * replica + i);
            let which = usize::from(stream.uniform(at) < 0.4);
            // Gammas of any weight are lost to OFF equally often.
            sums[which] = sums[which].with(0.2 + 2.0 * stream.uniform(at + 1));
        }
        let [on, off] = sums.map(|sum| sum.events);
        Leak { weights: Some(sums), ..leak(on, off) }.share().unwrap()
    };
    let found: Vec<Measured> = (0..400).map(one).collect();
    let n = found.len() as f64;
    let mean = found.iter().map(|m| m.value).sum::<f64>() / n;
    let spread = found.iter().map(|m| (m.value - mean) * (m.value - mean)).sum::<f64>() / n;
    let said = found.iter().map(|m| m.error * m.error).sum::<f64>() / n;
    assert!((mean - 0.4 / 0.6 / 5.0).abs() < 5.0 * (spread / n).sqrt() + 1e-3, "{mean}");
    assert!((said / spread).ln().abs() < 0.35, "{said} {spread}");
    let same = Leak { weights: Some([WeightSum::of(80), WeightSum::of(30)]), ..leak(80, 30) };
    assert_eq!(same.share(), leak(80, 30).share());
}
