use super::*;
use crate::statistics::quantile::quantile;

#[test]
fn quantile_is_inverse_distribution_function() {
    let ten: Vec<f64> = (1..=10).map(f64::from).collect();
    for (fraction, value) in
        [(0.0, 1.0), (0.05, 1.0), (0.1, 1.0), (0.11, 2.0), (0.5, 5.0), (1.0, 10.0)]
    {
        assert_eq!(quantile(&ten, fraction), Some(value), "{fraction}");
    }
    let thirty: Vec<f64> = (1..=30).map(f64::from).collect();
    assert_eq!(quantile(&thirty, 0.1), Some(3.0));
    assert_eq!(quantile(&[], 0.5), None);
    assert_eq!(quantile(&ten, f64::NAN), None);
    assert_eq!(quantile(&ten, 1.5), None);
}

#[test]
fn either_normal_class_loses_the_same_tail() {
    let log_p: Vec<f64> = (0..1000).map(|i| -f64::from(i) / 100.0).collect();
    let gammas = Sample::new(&log_p, &[true; 1000]).unwrap();
    let of_gamma = Rule::two_sigma(Class::Gamma).choose(&gammas).unwrap();
    let lost = log_p.iter().filter(|s| **s < of_gamma.value).count();
    let score: Vec<f64> = log_p.iter().map(|l| -l).collect();
    let hadrons = Sample::new(&score, &[false; 1000]).unwrap();
    let of_hadron = Rule::two_sigma(Class::Hadron).choose(&hadrons).unwrap();
    let kept = score.iter().filter(|s| **s >= of_hadron.value).count();
    assert_eq!((lost, kept), (45, 45));
}

#[test]
fn rule_without_events_or_number_is_refused() {
    let error = Rule::two_sigma(Class::Gamma).choose(&Sample::default()).unwrap_err();
    assert_eq!(error.exit_code(), 3);
    let error = Rule::Fixed { value: f64::NAN }.choose(&Sample::default()).unwrap_err();
    assert_eq!(error.exit_code(), 2);
}

#[test]
fn rules_on_both_classes_hold_or_are_refused() {
    let scores: Vec<f64> = (0..2000).map(|i| f64::from(i * 7919 % 2000)).collect();
    let gamma: Vec<bool> =
        scores.iter().map(|s| (*s as u32).is_multiple_of(2) && *s > 500.0).collect();
    let sample = Sample::new(&scores, &gamma).unwrap();
    let passing = |of: Class, value: f64| {
        let all = sample.of(of);
        all.iter().filter(|s| **s >= value).count() as f64 / all.len() as f64
    };
    let at = Rule::GammaEfficiency { efficiency: 0.8 }.choose(&sample).unwrap();
    assert!(passing(Class::Gamma, at.value) >= 0.8);
    assert!(passing(Class::Gamma, at.value.next_up()) < 0.8);
    let at = Rule::HadronSurvival { survival: 0.1 }.choose(&sample).unwrap();
    assert!(passing(Class::Hadron, at.value) <= 0.1 && passing(Class::Hadron, at.value) > 0.09);
    let quality = |v: f64| passing(Class::Gamma, v) / passing(Class::Hadron, v).sqrt();
    let best = Rule::LargestQ.choose(&sample).unwrap();
    let counted = |v: &f64| sample.hadron().iter().filter(|s| **s >= *v).count() >= 10;
    for value in scores.iter().copied().filter(counted) {
        assert!(quality(value) <= quality(best.value) + 1e-12, "{value}");
    }
    let refused = Rule::HadronSurvival { survival: 1e-4 }.choose(&sample).unwrap_err();
    assert_eq!(refused.exit_code(), 3);
    let text = refused.to_string();
    assert!(text.contains("at least 100000 held-out hadrons"), "{text}");
    assert!(text.contains(&format!("found {} held-out hadrons", sample.hadron().len())), "{text}");
    assert!(Rule::LargestQ.choose(&Sample::default()).is_err());
    for rule in [Rule::LargestQ, Rule::HadronSurvival { survival: 0.01 }] {
        let text = serde_json::to_string(&rule).unwrap();
        assert_eq!(serde_json::from_str::<Rule>(&text).unwrap(), rule);
    }
}

#[test]
fn largest_q_at_ten_hadrons_says_limited() {
    // Q rises up to the highest score: gammas are above all hadrons but the last few.
    let scores: Vec<f64> = (0..3000).map(f64::from).collect();
    let steep: Vec<bool> =
        scores.iter().map(|s| *s > 2000.0 && !(*s as u64).is_multiple_of(20)).collect();
    let sample = Sample::new(&scores, &steep).unwrap();
    let best = Rule::LargestQ.choose(&sample).unwrap();
    let passing = sample.hadron().iter().filter(|s| **s >= best.value).count() as u64;
    assert_eq!(passing, 49, "all gammas at 49 of 2050 hadrons is the best");
    assert_eq!(best.limited_by_hadrons, None);
    // The number of hadrons falls geometrically and that of gammas does not: the fewer hadrons,
    // the larger Q.
    let scores: Vec<f64> = (0..2000).map(|i| 20.0 * libm::sqrt(f64::from(i) / 2000.0)).collect();
    let hadrons: Vec<f64> = (1..=2000).map(|i| -2.0 * libm::log(f64::from(i) / 2000.0)).collect();
    let all: Vec<f64> = scores.iter().chain(&hadrons).copied().collect();
    let gamma: Vec<bool> = (0..4000).map(|i| i < 2000).collect();
    let best = Rule::LargestQ.choose(&Sample::new(&all, &gamma).unwrap()).unwrap();
    assert_eq!(best.limited_by_hadrons, Some(10), "{best:?}");
    assert_eq!(best.limit_text().unwrap(), "limited by 10 held-out hadrons");
}

#[test]
fn threshold_round_trips_through_json() {
    let threshold = Threshold {
        rule: Rule::two_sigma(Class::Gamma),
        value: -9.25,
        events: 1200,
        limited_by_hadrons: None,
    };
    let text = serde_json::to_string(&threshold).unwrap();
    assert_eq!(serde_json::from_str::<Threshold>(&text).unwrap(), threshold, "{text}");
    let observation = Observation::new(str::to_string, [2.5, 3600.0, 85.0], 5).unwrap();
    let rule = Rule::Significance(observation.with_inside([0.5, 1.0]));
    let significance = Threshold { rule, limited_by_hadrons: Some(12), ..threshold };
    let text = serde_json::to_string(&significance).unwrap();
    assert_eq!(serde_json::from_str::<Threshold>(&text).unwrap(), significance, "{text}");
    let fixed = Rule::Fixed { value: 0.1 }.choose(&Sample::default()).unwrap();
    let text = serde_json::to_string(&fixed).unwrap();
    assert_eq!(serde_json::from_str::<Threshold>(&text).unwrap(), fixed, "{text}");
}
