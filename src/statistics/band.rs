//! Confidence band of a ROC curve by the bootstrap (Efron 1979).
//!
//! Both classes are resampled with a Poisson number of copies of each event (the Poisson bootstrap,
//! Hanley and MacGibbon 2006). The events between two points of the thinned curve are drawn
//! together, since a sum of Poisson numbers is a Poisson number.

use super::RocPoint;
use serde::{Deserialize, Serialize};
use taiga_flow_gpu::random::{Draws, Stream};

const REPLICAS: u64 = 400;
/// Tail of one σ on either side.
const TAIL: f64 = 0.158_655_25;

/// Gamma efficiencies that contain 68.3 % of the replicas, at the hadron survival of a point of the
/// curve.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct BandPoint {
    pub hadron_survival: f64,
    pub low: f64,
    pub high: f64,
}

/// Computes the band of a thinned curve of this many gammas and hadrons (effective numbers of
/// weighted events); empty for an empty curve.
pub(crate) fn band(points: &[RocPoint], gammas: f64, hadrons: f64) -> Vec<BandPoint> {
    let mut found: Vec<Vec<f64>> = vec![Vec::new(); points.len()];
    for replica in 0..REPLICAS {
        let mut draws = Draws::new(Stream::new(0, "bootstrap", &[replica]));
        let curve = draw_replica(points, gammas, hadrons, &mut draws);
        let mut at = 0;
        for (point, found) in points.iter().zip(&mut found) {
            found.extend(efficiency_at(&curve, point.hadron_survival, &mut at));
        }
    }
    let point = |(point, mut found): (&RocPoint, Vec<f64>)| {
        found.sort_unstable_by(f64::total_cmp);
        let quantile = |q: f64| found[((q * found.len() as f64) as usize).min(found.len() - 1)];
        let hadron_survival = point.hadron_survival;
        (!found.is_empty()).then(|| BandPoint {
            hadron_survival,
            low: quantile(TAIL).min(point.gamma_efficiency),
            high: quantile(1.0 - TAIL).max(point.gamma_efficiency),
        })
    };
    points.iter().zip(found).filter_map(point).collect()
}

/// Draws a replica; returns hadron survival and gamma efficiency along its curve.
fn draw_replica(
    points: &[RocPoint],
    gammas: f64,
    hadrons: f64,
    draws: &mut Draws,
) -> Vec<[f64; 2]> {
    let mut passed = [0.0; 2];
    let mut before = [0.0; 2];
    let mut curve = Vec::with_capacity(points.len());
    for point in points {
        let now = [point.hadron_survival * hadrons, point.gamma_efficiency * gammas];
        for i in 0..2 {
            passed[i] += draws.poisson((now[i] - before[i]).max(0.0)) as f64;
        }
        before = now;
        curve.push(passed);
    }
    // A replica without events of a class has no curve: none of its points is finite.
    curve.iter().map(|p| [p[0] / passed[0], p[1] / passed[1]]).collect()
}

/// Returns the curve at a hadron survival, by linear interpolation; `at` grows with it.
fn efficiency_at(curve: &[[f64; 2]], survival: f64, at: &mut usize) -> Option<f64> {
    while curve.get(*at + 1).is_some_and(|next| next[0] < survival) {
        *at += 1;
    }
    let (from, to) = (curve.get(*at)?, curve.get(*at + 1).or(curve.get(*at))?);
    let width = to[0] - from[0];
    let share = if width > 0.0 { ((survival - from[0]) / width).clamp(0.0, 1.0) } else { 1.0 };
    Some(share.mul_add(to[1] - from[1], from[1])).filter(|e| e.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statistics::{Roc, Sample};

    fn normals(gammas: usize, hadrons: usize, seed: u64) -> Sample {
        let stream = Stream::new(seed, "band", &[]);
        let gamma: Vec<bool> = (0..gammas + hadrons).map(|i| i < gammas).collect();
        let shift = |g: &bool| if *g { 1.5 } else { 0.0 };
        let score = |(i, g): (usize, &bool)| stream.normal(i as u64) + shift(g);
        let scores: Vec<f64> = gamma.iter().enumerate().map(score).collect();
        Sample::new(&scores, &gamma).unwrap()
    }

    #[test]
    fn two_thirds_of_new_samples_are_in_the_band() {
        // The true curve of two normal distributions: gammas at 1.5, cut at the 0.9 quantile of the
        // hadrons.
        let truth = 0.5 * libm::erfc((1.281_551_565_5 - 1.5) / std::f64::consts::SQRT_2);
        let mut inside = 0;
        for seed in 0..120 {
            let sample = normals(300, 400, seed);
            let points = Roc::of(&sample).thinned(400);
            let band = band(&points, 300.0, 400.0);
            assert_eq!(band.len(), points.len());
            assert!(band.iter().all(|b| 0.0 <= b.low && b.low <= b.high && b.high <= 1.0));
            let at = band.iter().min_by(|a, b| {
                (a.hadron_survival - 0.1).abs().total_cmp(&(b.hadron_survival - 0.1).abs())
            });
            inside += u64::from(at.is_some_and(|b| b.low <= truth && truth <= b.high));
        }
        // 0.683 of 120 is 82 ± 5; four σ.
        assert!((60..=104).contains(&inside), "{inside}");
    }

    #[test]
    fn empty_curve_has_no_band() {
        assert!(band(&[], 0.0, 0.0).is_empty());
        let points = Roc::of(&normals(1, 1, 3)).thinned(10);
        assert!(band(&points, 1.0, 1.0).iter().all(|b| b.low.is_finite() && b.high.is_finite()));
    }
}
