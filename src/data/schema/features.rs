//! From quantities to what the flow sees: coordinates (transforms), then the scaler.
//!
//! log p is the density in the *coordinates*: the scaler's constant Jacobian is part of
//! it, that of the coordinates is not (see ARCHITECTURE, "The measure"). Everything is
//! computed in f64 from the f32 quantity and rounded to f32 once.

use crate::config::{Feature, Transform};
use crate::error::{Fault, Result};
use serde::{Deserialize, Serialize};
use std::f64::consts::LN_10;

/// The name of the measure in model cards: models are comparable only where it is equal.
pub const MEASURE: &str = "density of the transformed, unscaled features";

/// One feature with its coordinate and scaler.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScaledFeature {
    #[serde(flatten)]
    pub feature: Feature,
    /// Canonical unit of the quantity.
    pub unit: String,
    /// Mean and standard deviation of the coordinate over training events; the mean of a
    /// signed coordinate is 0, so that a change of sign is one of the scaled value.
    pub mean: f64,
    pub std: f64,
}

/// The coordinate of a quantity; not finite outside the transform's domain.
pub fn transform(feature: &Feature, x: f64) -> f64 {
    match feature.transform {
        Transform::None | Transform::Signed => x,
        Transform::Log10 => libm::log10(x),
        Transform::Ln => libm::log(x + feature.offset),
        Transform::Logit => libm::log(x / (1.0 - x)),
        Transform::Power if x < 0.0 => f64::NAN,
        Transform::Power => libm::pow(x, feature.exponent),
    }
}

/// The quantity at a coordinate; a signed one is a magnitude.
pub fn inverse(feature: &Feature, coordinate: f64) -> f64 {
    match feature.transform {
        Transform::None => coordinate,
        Transform::Signed => coordinate.abs(),
        Transform::Log10 => libm::exp10(coordinate),
        Transform::Ln => libm::exp(coordinate) - feature.offset,
        Transform::Logit => 1.0 / (1.0 + libm::exp(-coordinate)),
        Transform::Power => libm::pow(coordinate, 1.0 / feature.exponent),
    }
}

/// ln |d transform / dx|: what turns log p into a density per raw units.
pub fn log_jacobian(feature: &Feature, x: f64) -> f64 {
    match feature.transform {
        Transform::None | Transform::Signed => 0.0,
        Transform::Log10 => -libm::log(x * LN_10),
        Transform::Ln => -libm::log(x + feature.offset),
        Transform::Logit => -libm::log(x * (1.0 - x)),
        Transform::Power => {
            let k = feature.exponent;
            libm::log(k.abs()) + (k - 1.0) * libm::log(x)
        }
    }
}

impl ScaledFeature {
    /// Scaled coordinate of a quantity.
    pub fn scaled(&self, x: f32) -> f32 {
        self.scale(transform(&self.feature, f64::from(x)))
    }

    /// The quantity that a scaled coordinate stands for.
    pub fn quantity(&self, scaled: f32) -> f64 {
        inverse(&self.feature, f64::from(scaled) * self.std + self.mean)
    }

    /// The same from the coordinate.
    pub fn scale(&self, coordinate: f64) -> f32 {
        ((coordinate - self.mean) / self.std) as f32
    }
}

/// ln |det| of the scaler: Σ −ln σ, part of log p.
pub fn scaler_log_det(features: &[ScaledFeature]) -> f64 {
    features.iter().map(|f| -libm::log(f.std)).sum()
}

/// Count, mean and sum of squared deviations of the coordinates of some events.
#[derive(Debug, Clone, PartialEq)]
pub struct Moments {
    pub count: f64,
    pub mean: Vec<f64>,      // (features)
    pub deviation: Vec<f64>, // (features)
}

impl Moments {
    pub fn new(features: usize) -> Moments {
        Moments { count: 0.0, mean: vec![0.0; features], deviation: vec![0.0; features] }
    }

    /// Adds one event's coordinates (Welford 1962).
    pub fn add(&mut self, coordinates: &[f64]) {
        self.count += 1.0;
        for (d, x) in coordinates.iter().enumerate() {
            let delta = x - self.mean[d];
            self.mean[d] += delta / self.count;
            self.deviation[d] += delta * (x - self.mean[d]);
        }
    }

    /// Adds another set's moments (Chan, Golub and LeVeque 1979).
    pub fn merge(&mut self, other: &Moments) {
        if other.count == 0.0 {
            return;
        }
        let count = self.count + other.count;
        for d in 0..self.mean.len() {
            let delta = other.mean[d] - self.mean[d];
            self.mean[d] += delta * other.count / count;
            self.deviation[d] +=
                other.deviation[d] + delta * delta * self.count * other.count / count;
        }
        self.count = count;
    }

    /// The scaler. A feature that does not vary is refused.
    pub fn scaler(&self, features: &[Feature], units: &[String]) -> Result<Vec<ScaledFeature>> {
        let scaled = |(d, feature): (usize, &Feature)| {
            let signed = feature.transform == Transform::Signed;
            let square = if signed { self.mean[d] * self.mean[d] } else { 0.0 };
            let std = libm::sqrt(self.deviation[d] / self.count + square);
            if !(std.is_finite() && std > 1e-9 * self.mean[d].abs() && std > 0.0) {
                return Err(Fault::new("a feature that does not vary")
                    .column(&feature.name)
                    .expected("different values over the training events")
                    .found(format!("mean {}, standard deviation {std}", self.mean[d]))
                    .advice("leave it out of features.columns, or look at the file with `taiga-flow check`")
                    .input());
            }
            let mean = if signed { 0.0 } else { self.mean[d] };
            Ok(ScaledFeature { feature: feature.clone(), unit: units[d].clone(), mean, std })
        };
        features.iter().enumerate().map(scaled).collect()
    }
}

#[cfg(test)]
mod tests {
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
    fn the_inverse_of_a_coordinate_is_the_quantity() {
        for f in every_transform() {
            for x in [0.1, 0.5, 0.93] {
                assert!((inverse(&f, transform(&f, x)) - x).abs() < 1e-12, "{f:?}");
            }
        }
    }

    #[test]
    fn log_jacobians_are_those_of_finite_differences() {
        for f in every_transform() {
            for x in [0.1, 0.5, 0.93] {
                let slope = (transform(&f, x + 1e-6) - transform(&f, x - 1e-6)) / 2e-6;
                assert!((log_jacobian(&f, x) - slope.abs().ln()).abs() < 1e-7, "{f:?}");
            }
        }
    }

    #[test]
    fn merged_moments_are_those_of_all_events() {
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
    fn a_constant_feature_is_refused_by_name() {
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
        let scaled =
            &moments.scaler(&[feature(Transform::Signed, 0.0)], &["deg".into()]).unwrap()[0];
        assert_eq!(scaled.mean, 0.0);
        assert!((scaled.std - (14.0_f64 / 3.0).sqrt()).abs() < 1e-12);
        assert_eq!(scaled.scaled(2.0), -scaled.scaled(-2.0));
    }
}
