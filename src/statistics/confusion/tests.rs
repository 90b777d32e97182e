use super::*;

/// Returns gammas 1 2 3 4 and hadrons 0 1 2; at threshold 2, 3 of 4 and 1 of 3 pass.
fn small() -> Sample {
    let scores = [1.0, 2.0, 3.0, 4.0, 0.0, 1.0, 2.0];
    Sample::new(&scores, &[true, true, true, true, false, false, false]).unwrap()
}

fn near(figure: Option<Measured>, value: f64) -> bool {
    figure.is_some_and(|f| (f.value - value).abs() < 1e-12)
}

#[test]
fn small_table_agrees_with_hand_calculation() {
    let at = AtThreshold::of(&small(), 2.0, None, 0.5).unwrap();
    let expected = Confusion {
        gamma_as_gamma: 3,
        gamma_as_hadron: 1,
        hadron_as_gamma: 1,
        hadron_as_hadron: 2,
    };
    assert_eq!(at.confusion, expected);
    assert!(near(at.gamma_positive.precision, 0.75));
    assert!(near(at.gamma_positive.recall, 0.75));
    assert!((at.gamma_positive.f1.unwrap() - 0.75).abs() < 1e-12);
    assert!(near(at.hadron_positive.precision, 2.0 / 3.0));
    assert!(near(at.hadron_positive.recall, 2.0 / 3.0));
    assert!((at.gamma_fraction.unwrap() - 4.0 / 7.0).abs() < 1e-12);
    assert!(near(at.after_cuts.quality, 0.75 * 3.0_f64.sqrt()));
    assert!(near(at.after_cuts.purity, 0.75 / (0.75 + 1.0 / 3.0)));
}

type Metric = fn(Measured, Measured) -> Measured;

#[test]
fn quality_and_purity_errors_follow_differences() {
    let gamma = Measured { value: 0.775, error: 0.01 };
    let hadron = Measured { value: 0.1, error: 0.004 };
    for figure in [quality as Metric, |g, h| purity(g, h, 1e-3)] {
        let slope = |g: f64, h: f64| {
            let shifted = |sign: f64| {
                figure(
                    Measured { value: gamma.value + sign * g, ..gamma },
                    Measured { value: hadron.value + sign * h, ..hadron },
                )
                .value
            };
            (shifted(1e-6) - shifted(-1e-6)) / 2e-6
        };
        let expected = libm::hypot(slope(1.0, 0.0) * 0.01, slope(0.0, 1.0) * 0.004);
        assert!((figure(gamma, hadron).error / expected - 1.0).abs() < 1e-6);
    }
}

#[test]
fn efficiencies_before_cuts_are_of_all_triggered() {
    let before = [WeightSum::of(8), WeightSum::of(30)];
    let at = AtThreshold::of(&small(), 2.0, Some(before), 0.5).unwrap();
    let separation = at.before_cuts.unwrap();
    assert!(near(separation.gamma_efficiency, 3.0 / 8.0));
    assert!(near(separation.hadron_survival, 1.0 / 30.0));
    let fewer = [WeightSum::of(3), WeightSum::of(30)];
    assert!(AtThreshold::of(&small(), 2.0, Some(fewer), 0.5).is_err());
}

/// Events with keys as weights: those kept, all, and those before the cuts.
#[test]
fn shares_at_a_threshold_are_shares_of_weight() {
    let scores = [1.0, 2.0, 3.0, 0.0, 1.0, 2.0];
    let gamma = [true, true, true, false, false, false];
    let weights = [5.0, 1.0, 4.0, 0.5, 0.25, 0.25];
    let sample = Sample::weighted(&scores, &gamma, Some(&weights)).unwrap();
    let before = [WeightSum::default().with(20.0).with(0.0).with(0.0), WeightSum::of(3)];
    let at = AtThreshold::of(&sample, 2.0, Some(before), 0.5).unwrap();
    assert_eq!((at.confusion.gamma_as_gamma, at.confusion.hadron_as_gamma), (2, 1));
    assert!(near(at.after_cuts.gamma_efficiency, 0.5));
    assert!(near(at.after_cuts.hadron_survival, 0.25));
    let triggered = at.before_cuts.unwrap();
    assert!(near(triggered.gamma_efficiency, 0.25));
    assert!(near(triggered.hadron_survival, 0.25 / 3.0));
    // Each class keeps the weight of its number: 1.5 of 3 gammas, 0.75 of 3 hadrons.
    assert!(near(at.gamma_positive.precision, 1.5 / 2.25));
    assert!(near(at.hadron_positive.recall, 0.75));
}

#[test]
fn empty_classes_and_decisions_give_none() {
    let gammas = Sample::new(&[1.0, 2.0], &[true, true]).unwrap();
    let at = AtThreshold::of(&gammas, 1.5, None, 1e-3).unwrap();
    assert!(near(at.gamma_positive.recall, 0.5));
    assert_eq!(at.hadron_positive.recall, None);
    assert_eq!(at.after_cuts.hadron_survival, None);
    assert_eq!(at.after_cuts.quality, None);
    let nothing_passes = AtThreshold::of(&small(), 9.0, None, 1e-3).unwrap();
    assert_eq!(nothing_passes.gamma_positive.precision, None);
    assert_eq!(nothing_passes.after_cuts.purity, None);
    let nothing = AtThreshold::of(&Sample::default(), 0.0, None, 1e-3).unwrap();
    assert_eq!(nothing.gamma_fraction, None);
    assert_eq!(nothing.gamma_positive.f1, None);
}
