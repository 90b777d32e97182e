//! Tests of latent points against a normal distribution.
//!
//! A flow that fits its class maps it to a standard normal distribution. Then |z|² follows χ² with
//! as many degrees of freedom as there are features, and each axis a normal distribution.
//! Deviations show where the density is wrong, and how far a χ² rule is valid.

use super::tails::{chi2_above, distance_p_value, normal_below};
use super::{Measured, WeightSum};
use serde::{Deserialize, Serialize};

/// Share of χ² outside of the two-sigma ball.
const OUTSIDE: f64 = super::thresholds::threshold::TWO_SIGMA_TAIL;

/// Latent points of held-out events of the class that a flow models.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct LatentPoints {
    pub flow: String,
    /// Number of events; a seeded selection of large samples.
    pub events: u64,
    /// Degrees of freedom of χ²: the number of features.
    pub degrees: u64,
    /// Mean of |z|², ideally `degrees`.
    pub mean_chi2: f64,
    /// Share of events within the ball that contains 95.45 % of a normal distribution.
    pub inside_two_sigma: Measured,
    /// Deviation of |z|² from χ².
    pub departure: Departure,
    pub axes: Vec<LatentAxis>,
}

/// One axis of the latent space, named after the feature with the same index.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct LatentAxis {
    pub feature: String,
    pub mean: f64,
    pub std: f64,
    pub departure: Departure,
}

/// Kolmogorov–Smirnov distance from the expected distribution, with its p-value (of weighted events
/// at their effective number).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Departure {
    pub distance: f64,
    pub p_value: f64,
}

impl LatentPoints {
    /// Computes the tests of points z (events, features) with their weights; `None` without finite
    /// points of positive weight.
    pub(crate) fn of(
        flow: &str,
        features: &[String],
        points: &[(Vec<f64>, f64)],
    ) -> Option<LatentPoints> {
        let usable = |p: &&(Vec<f64>, f64)| p.0.iter().all(|z| z.is_finite()) && p.1 > 0.0;
        let points: Vec<_> = points.iter().filter(usable).collect();
        let degrees = features.len() as u64;
        let square = |z: &[f64]| z.iter().map(|z| z * z).sum::<f64>();
        let chi2: Vec<(f64, f64)> = points.iter().map(|(z, w)| (square(z), *w)).collect();
        let sum = |of: &dyn Fn(f64) -> bool| {
            let kept = chi2.iter().filter(|(x, _)| of(*x));
            kept.fold(WeightSum::default(), |sum, (_, w)| sum.with(*w))
        };
        let inside = sum(&|x| chi2_above(x, degrees) >= OUTSIDE);
        let axis = |(d, feature): (usize, &String)| {
            let values: Vec<(f64, f64)> = points.iter().map(|(z, w)| (z[d], *w)).collect();
            let mean = mean(&values);
            let squares: Vec<_> =
                values.iter().map(|(z, w)| ((z - mean) * (z - mean), *w)).collect();
            LatentAxis {
                feature: feature.clone(),
                mean,
                std: self::mean(&squares).sqrt(),
                departure: Departure::of(values, normal_below),
            }
        };
        Some(LatentPoints {
            flow: flow.to_owned(),
            events: points.len() as u64,
            degrees,
            mean_chi2: mean(&chi2),
            inside_two_sigma: Measured::share(inside, sum(&|_| true))?,
            axes: features.iter().enumerate().map(axis).collect(),
            departure: Departure::of(chi2, |x| 1.0 - chi2_above(x, degrees)),
        })
    }
}

/// Returns the mean of (value, weight) pairs.
fn mean(values: &[(f64, f64)]) -> f64 {
    let all: f64 = values.iter().map(|(_, w)| w).sum();
    values.iter().map(|(x, w)| x * w).sum::<f64>() / all
}

impl Departure {
    /// Compares (value, weight) pairs with the distribution whose share below a value is `below`.
    fn of(mut values: Vec<(f64, f64)>, below: impl Fn(f64) -> f64) -> Departure {
        values.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
        let all = values.iter().fold(WeightSum::default(), |sum, (_, w)| sum.with(*w));
        let (mut so_far, mut distance) = (0.0, 0.0_f64);
        for (value, weight) in &values {
            let expected = below(*value);
            distance = distance.max((expected - so_far / all.weight).abs());
            so_far += weight;
            distance = distance.max((expected - so_far / all.weight).abs());
        }
        Departure { distance, p_value: distance_p_value(distance, all.effective()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use taiga_flow_gpu::random::Stream;

    fn points(seed: u64, count: u64, of: impl Fn(usize, f64) -> f64) -> Vec<(Vec<f64>, f64)> {
        let stream = Stream::new(seed, "latent", &[]);
        let point = |i: u64| {
            let z = (0..3).map(|d| of(d, stream.normal(3 * i + d as u64))).collect();
            (z, 0.5 + stream.uniform(1_000_000 + i))
        };
        (0..count).map(point).collect()
    }

    fn names() -> [String; 3] {
        ["size", "width", "alpha"].map(String::from)
    }

    #[test]
    fn normal_points_depart_only_by_chance() {
        let mut low = 0;
        for seed in 0..60 {
            let latent = LatentPoints::of("main", &names(), &points(seed, 700, |_, z| z)).unwrap();
            assert_eq!((latent.events, latent.degrees), (700, 3));
            assert!((latent.mean_chi2 - 3.0).abs() < 0.6, "{latent:?}");
            let inside = latent.inside_two_sigma;
            assert!((inside.value - 0.9545).abs() < 5.0 * inside.error.max(0.006), "{inside}");
            let all = latent.axes.iter().map(|a| a.departure).chain([latent.departure]);
            low += all.filter(|d| d.p_value < 0.05).count();
        }
        // Of 240 p-values, 12 ± 3.4 are below 0.05 (the four of a sample are not independent).
        assert!((2..=30).contains(&low), "{low}");
    }

    #[test]
    fn deviating_axis_is_named() {
        let wrong = points(7, 4000, |d, z| if d == 1 { 0.3 + 1.2 * z } else { z });
        let latent = LatentPoints::of("gamma", &names(), &wrong).unwrap();
        let [size, width, alpha] = &latent.axes[..] else { panic!("{latent:?}") };
        assert_eq!(width.feature, "width");
        assert!((width.mean - 0.3).abs() < 0.1 && (width.std - 1.2).abs() < 0.06, "{width:?}");
        assert!(width.departure.p_value < 1e-6);
        assert!(size.departure.p_value.min(alpha.departure.p_value) > 1e-4, "{latent:?}");
        assert!(latent.departure.p_value < 1e-6 && latent.inside_two_sigma.value < 0.94);
    }

    #[test]
    fn non_finite_or_weightless_points_are_left_out() {
        let points = [(vec![f64::NAN, 0.0, 0.0], 1.0), (vec![0.0; 3], 0.0)];
        assert_eq!(LatentPoints::of("main", &names(), &points), None);
        let one = LatentPoints::of("main", &names(), &[(vec![0.1; 3], 2.0)]).unwrap();
        assert_eq!(one.events, 1);
        assert!(one.departure.p_value.is_finite());
    }
}
