use super::*;
use taiga_flow_gpu::random::Stream;

fn feature(transform: Transform, offset: f64) -> Feature {
    let exponent = if transform == Transform::Power { -0.7 } else { 0.0 };
    Feature { name: "x".into(), transform, offset, exponent, quantum: 0.0 }
}

fn every_transform() -> [Feature; 6] {
    [
        feature(Transform::None, 0.0),
        feature(Transform::Log10, 0.0),
        feature(Transform::Ln, 0.3),
        feature(Transform::Logit, 0.0),
        feature(Transform::Power, 0.0),
        feature(Transform::Signed, 0.0),
    ]
}

#[test]
fn inverse_of_transform_returns_the_quantity() {
    for f in every_transform() {
        for x in [0.1, 0.5, 0.93] {
            assert!((inverse(&f, transform(&f, x)) - x).abs() < 1e-12, "{f:?}");
        }
    }
}

#[test]
fn log_jacobian_equals_finite_differences() {
    for f in every_transform() {
        for x in [0.1, 0.5, 0.93] {
            let slope = (transform(&f, x + 1e-6) - transform(&f, x - 1e-6)) / 2e-6;
            assert!((log_jacobian(&f, x) - slope.abs().ln()).abs() < 1e-7, "{f:?}");
        }
    }
}

#[test]
fn merged_moments_equal_those_of_all_events() {
    let stream = Stream::new(1, "moments", &[]);
    let events: Vec<[f64; 2]> =
        (0..500).map(|i| [1e3 + stream.normal(2 * i), stream.normal(2 * i + 1)]).collect();
    let mut all = Moments::new(2);
    events.iter().for_each(|e| all.add(e));
    let mut merged = Moments::new(2);
    for part in events.chunks(77) {
        let mut moments = Moments::new(2);
        part.iter().for_each(|e| moments.add(e));
        merged.merge(&moments);
    }
    for d in 0..2 {
        assert!((all.mean[d] - merged.mean[d]).abs() < 1e-10);
        assert!((all.deviation[d] / merged.deviation[d] - 1.0).abs() < 1e-10);
    }
}

#[test]
fn constant_feature_is_refused_by_name() {
    let mut moments = Moments::new(1);
    (0..10).for_each(|_| moments.add(&[3.0]));
    let error = moments.scaler(&[feature(Transform::None, 0.0)], &["deg".into()]).unwrap_err();
    assert_eq!(error.exit_code(), 3);
    assert!(error.to_string().contains("'x'"));
}

#[test]
fn signed_feature_has_zero_mean_symmetric_scale() {
    let mut moments = Moments::new(1);
    for x in [1.0, 2.0, 3.0] {
        moments.add(&[x]);
    }
    let scaled = &moments.scaler(&[feature(Transform::Signed, 0.0)], &["deg".into()]).unwrap()[0];
    assert_eq!(scaled.mean, 0.0);
    assert!((scaled.std - (14.0_f64 / 3.0).sqrt()).abs() < 1e-12);
    assert_eq!(scaled.scaled(2.0), -scaled.scaled(-2.0));
}
