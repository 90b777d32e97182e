//! Computes the inputs of the flow from quantities: coordinates (transforms), then scaling.
//!
//! log p is the density in the *coordinates*: it contains the constant Jacobian of the scaler,
//! but not that of the transforms. All is computed in f64 from the f32 quantity and rounded to
//! f32 once.

use crate::config::{Feature, Transform};
use crate::error::{Fault, Result};
use serde::{Deserialize, Serialize};
use std::f64::consts::LN_10;

/// Name of the measure in model cards. Only models with the same measure are comparable.
pub(crate) const MEASURE: &str = "density of the transformed, unscaled features";

/// One feature with its coordinate and scaler.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScaledFeature {
    #[serde(flatten)]
    pub feature: Feature,
    /// Canonical unit of the quantity.
    pub unit: String,
    /// Mean and standard deviation of the coordinate over training events. The mean of a signed
    /// coordinate is 0, so that the scaled value changes sign with the quantity.
    pub mean: f64,
    pub std: f64,
}

/// Returns the coordinate of a quantity; not finite outside the domain of the transform.
pub(crate) fn transform(feature: &Feature, x: f64) -> f64 {
    match feature.transform {
        Transform::None | Transform::Signed => x,
        Transform::Log10 => libm::log10(x),
        Transform::Ln => libm::log(x + feature.offset),
        Transform::Logit => libm::log(x / (1.0 - x)),
        Transform::Power if x < 0.0 => f64::NAN,
        Transform::Power => libm::pow(x, feature.exponent),
    }
}

/// Returns the quantity of a coordinate; for a signed one, the magnitude.
pub(crate) fn inverse(feature: &Feature, coordinate: f64) -> f64 {
    match feature.transform {
        Transform::None => coordinate,
        Transform::Signed => coordinate.abs(),
        Transform::Log10 => libm::exp10(coordinate),
        Transform::Ln => libm::exp(coordinate) - feature.offset,
        Transform::Logit => 1.0 / (1.0 + libm::exp(-coordinate)),
        Transform::Power => libm::pow(coordinate, 1.0 / feature.exponent),
    }
}

/// Returns ln |d transform / dx|. Its sum with log p is the log density of the raw quantities.
pub(crate) fn log_jacobian(feature: &Feature, x: f64) -> f64 {
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
    /// Returns the scaled coordinate of a quantity.
    pub fn scaled(&self, x: f32) -> f32 {
        self.scale(transform(&self.feature, f64::from(x)))
    }

    /// Returns the quantity of a scaled coordinate.
    pub(crate) fn quantity(&self, scaled: f32) -> f64 {
        inverse(&self.feature, f64::from(scaled) * self.std + self.mean)
    }

    /// Returns the scaled value of a coordinate.
    pub(crate) fn scale(&self, coordinate: f64) -> f32 {
        ((coordinate - self.mean) / self.std) as f32
    }
}

/// Returns ln |det| of the scaler, Σ −ln σ, which is a part of log p.
pub(crate) fn scaler_log_det(features: &[ScaledFeature]) -> f64 {
    features.iter().map(|f| -libm::log(f.std)).sum()
}

/// Count, mean and sum of squared deviations of the coordinates of a set of events.
#[derive(Debug, Clone, PartialEq)]
pub struct Moments {
    pub count: f64,
    pub mean: Vec<f64>,      // (features)
    pub deviation: Vec<f64>, // (features)
}

impl Moments {
    /// Returns the moments of an empty set.
    pub(crate) fn new(features: usize) -> Moments {
        Moments { count: 0.0, mean: vec![0.0; features], deviation: vec![0.0; features] }
    }

    /// Adds the coordinates of one event (Welford 1962).
    pub(crate) fn add(&mut self, coordinates: &[f64]) {
        self.count += 1.0;
        for (d, x) in coordinates.iter().enumerate() {
            let delta = x - self.mean[d];
            self.mean[d] += delta / self.count;
            self.deviation[d] += delta * (x - self.mean[d]);
        }
    }

    /// Adds the moments of a second set (Chan, Golub and LeVeque 1979).
    pub(crate) fn merge(&mut self, other: &Moments) {
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

    /// Returns the features with their scales.
    ///
    /// # Errors
    /// `Input` for a feature that does not vary.
    pub fn scaler(&self, features: &[Feature], units: &[String]) -> Result<Vec<ScaledFeature>> {
        features
            .iter()
            .enumerate()
            .map(|(d, feature)| self.scaled_feature(d, feature, &units[d]))
            .collect()
    }

    /// Returns feature `d` with its scale.
    fn scaled_feature(&self, d: usize, feature: &Feature, unit: &str) -> Result<ScaledFeature> {
        let signed = feature.transform == Transform::Signed;
        let square = if signed { self.mean[d] * self.mean[d] } else { 0.0 };
        let std = libm::sqrt(self.deviation[d] / self.count + square);
        if !(std.is_finite() && std > 1e-9 * self.mean[d].abs() && std > 0.0) {
            return Err(Fault::new("feature does not vary")
                .column(&feature.name)
                .expected("different values over the training events")
                .found(format!("mean {}, standard deviation {std}", self.mean[d]))
                .advice(
                    "remove it from features.columns, or inspect the file with `taiga-flow check`",
                )
                .input());
        }
        let mean = if signed { 0.0 } else { self.mean[d] };
        Ok(ScaledFeature { feature: feature.clone(), unit: unit.to_string(), mean, std })
    }
}

#[cfg(test)]
mod tests;
