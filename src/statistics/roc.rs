//! The ROC curve and its derived values: area with standard error, and gamma efficiency at a given
//! hadron survival.
//!
//! Ties are exact: the curve has one point per distinct score, and the area counts a tied pair of a
//! gamma and a hadron as one half (Mann & Whitney 1947). This is the area under the straight lines
//! between the points. Weighted events count with their weights.

use super::measured::significant;
use super::tails::beta_below;
use super::{Class, Measured, Sample, WeightSum};
use serde::{Deserialize, Serialize};

/// Fewer hadrons than this do not determine a survival.
pub(crate) const MIN_HADRONS: u64 = 10;

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Auc {
    pub value: f64,
    /// `None` if a class has fewer than two events.
    pub error: Option<f64>,
}

impl Auc {
    /// Computes the area by the Mann–Whitney statistic, with the standard error by `DeLong`,
    /// `DeLong` and Clarke-Pearson (1988), Biometrics 44, 837. `None` if a class is empty.
    pub(crate) fn of(sample: &Sample) -> Option<Auc> {
        let (gamma, hadron) = (sample.gamma(), sample.hadron());
        let (m, n) = (gamma.len() as u64, hadron.len() as u64);
        if m == 0 || n == 0 {
            return None;
        }
        if sample.weights(Class::Gamma).is_some() || sample.weights(Class::Hadron).is_some() {
            return weighted_area(sample);
        }
        let wins: u128 = placements(gamma, hadron).map(u128::from).sum();
        let value = wins as f64 / (2.0 * m as f64 * n as f64);
        // The structural component of a hadron is 1 minus its placement, with the same variance.
        let error = placement_variance(gamma, hadron)
            .zip(placement_variance(hadron, gamma))
            .map(|(v10, v01)| (v10 / m as f64 + v01 / n as f64).sqrt());
        Some(Auc { value, error }.with_min_error(m.min(n) as f64))
    }

    /// Gives an area of 0 or 1 the error of a share of none or all: without a pair in the reverse
    /// order its variance is unknown.
    fn with_min_error(self, events: f64) -> Auc {
        let is_perfect = self.value <= 0.0 || self.value >= 1.0;
        let error = self.error.map(|e| if is_perfect { e.max(1.0 / (events + 1.0)) } else { e });
        Auc { error, ..self }
    }

    /// Returns the distance of the area above one half in standard errors (negative: below).
    pub(crate) fn sigmas_above_half(&self) -> Option<f64> {
        self.error.filter(|e| *e > 0.0).map(|e| (self.value - 0.5) / e)
    }
}

/// Formats the area with its error, if it has one.
pub(crate) fn auc_text(auc: &Auc) -> String {
    match auc.error {
        Some(error) => Measured { value: auc.value, error }.to_string(),
        None => significant(auc.value, 4),
    }
}

/// Computes the area with weights: each event counts with its weight, in the mean and in the
/// variance of the mean of its structural components.
fn weighted_area(sample: &Sample) -> Option<Auc> {
    let of = |class: Class| {
        let placements = weighted_placements(sample, sample.of(class), class.other())?;
        let ones = || vec![1.0; placements.len()];
        let weights = sample.weights(class).map_or_else(ones, <[f64]>::to_vec);
        weighted_mean(&placements, &weights)
    };
    let ((value, from_gammas), (_, from_hadrons)) = of(Class::Gamma).zip(of(Class::Hadron))?;
    let error = from_gammas.zip(from_hadrons).map(|(a, b)| (a + b).sqrt());
    let events = [Class::Gamma, Class::Hadron].map(|class| sample.from(class, 0).effective());
    Some(Auc { value, error }.with_min_error(events[0].min(events[1])))
}

/// Returns for each score the share of the weight of a class below it, with equal scores counted
/// half; `None` if the class has no weight.
pub(super) fn weighted_placements(
    sample: &Sample,
    scores: &[f64],
    among: Class,
) -> Option<Vec<f64>> {
    let (others, all) = (sample.of(among), sample.from(among, 0).weight);
    let placement = |x: &f64| {
        let from = sample.from(among, others.partition_point(|y| y < x)).weight;
        let above = sample.from(among, others.partition_point(|y| y <= x)).weight;
        1.0 - 0.5 * (from + above) / all
    };
    (all > 0.0).then(|| scores.iter().map(placement).collect())
}

/// Returns the weighted mean of values, and the variance of that mean (`None` with fewer than two).
pub(super) fn weighted_mean(values: &[f64], weights: &[f64]) -> Option<(f64, Option<f64>)> {
    let all: f64 = weights.iter().sum();
    if all.is_nan() || all <= 0.0 {
        return None;
    }
    let mean = weights.iter().zip(values).map(|(w, x)| w * x).sum::<f64>() / all;
    let square = |(w, x): (&f64, &f64)| w * w * (x - mean) * (x - mean);
    let squares: f64 = weights.iter().zip(values).map(square).sum();
    let n = values.len() as f64;
    let variance = squares / (all * all) * n / (n - 1.0);
    Some((mean, (values.len() > 1).then_some(variance)))
}

/// Returns for each of `of` twice the number of `among` below it, plus the number equal to it. Both
/// must be ascending.
fn placements<'a>(of: &'a [f64], among: &'a [f64]) -> impl Iterator<Item = u64> + 'a {
    let (mut below, mut up_to) = (0, 0);
    of.iter().map(move |x| {
        while among.get(below).is_some_and(|y| y < x) {
            below += 1;
        }
        while among.get(up_to).is_some_and(|y| y <= x) {
            up_to += 1;
        }
        (below + up_to) as u64
    })
}

/// Returns the sample variance of the placements as fractions of `among`.
fn placement_variance(of: &[f64], among: &[f64]) -> Option<f64> {
    if of.len() < 2 {
        return None;
    }
    let scale = 0.5 / among.len() as f64;
    let count = of.len() as f64;
    let mean = placements(of, among).map(|p| p as f64 * scale).sum::<f64>() / count;
    let square = |p: u64| (p as f64 * scale - mean) * (p as f64 * scale - mean);
    Some(placements(of, among).map(square).sum::<f64>() / (count - 1.0))
}

/// Events with `score >= threshold`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct PassingCounts {
    pub threshold: f64,
    pub gammas: WeightSum,
    pub hadrons: WeightSum,
}

/// The whole curve in counts, from "nothing passes" to "everything passes".
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Roc {
    pub points: Vec<PassingCounts>,
    pub gammas: WeightSum,
    pub hadrons: WeightSum,
}

/// A point of the plotted curve.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct RocPoint {
    pub threshold: f64,
    pub gamma_efficiency: f64,
    pub hadron_survival: f64,
}

/// The curve at a given hadron survival.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct RocWorkingPoint {
    pub threshold: f64,
    /// The error is that of the efficiency at this survival: it includes the number of passing
    /// gammas, and the threshold, which the hadrons determine.
    pub gamma_efficiency: Measured,
    /// With its error at this threshold.
    pub hadron_survival: Measured,
    /// Hadrons that pass.
    pub hadrons: u64,
}

impl RocWorkingPoint {
    /// Returns the gamma efficiency divided by the root of the hadron survival. The survival is
    /// given; the uncertainty due to the number of hadrons is part of the error of the efficiency.
    pub(crate) fn quality(&self) -> Measured {
        let root = libm::sqrt(self.hadron_survival.value);
        let Measured { value, error } = self.gamma_efficiency;
        Measured { value: value / root, error: error / root }
    }
}

impl Roc {
    pub(crate) fn of(sample: &Sample) -> Roc {
        let (gamma, hadron) = (sample.gamma(), sample.hadron());
        let (mut below_gamma, mut below_hadron) = (gamma.len(), hadron.len());
        let mut points = Vec::new();
        while let Some(threshold) = highest(&gamma[..below_gamma], &hadron[..below_hadron]) {
            if points.is_empty() {
                let (gammas, hadrons) = (WeightSum::default(), WeightSum::default());
                points.push(PassingCounts { threshold: threshold.next_up(), gammas, hadrons });
            }
            below_gamma = gamma[..below_gamma].partition_point(|s| *s < threshold);
            below_hadron = hadron[..below_hadron].partition_point(|s| *s < threshold);
            let gammas = sample.from(Class::Gamma, below_gamma);
            let hadrons = sample.from(Class::Hadron, below_hadron);
            points.push(PassingCounts { threshold, gammas, hadrons });
        }
        let [gammas, hadrons] = [Class::Gamma, Class::Hadron].map(|c| sample.from(c, 0));
        Roc { points, gammas, hadrons }
    }

    /// Returns at most `limit` (at least 2) points, including both ends; empty if a class is empty
    /// or has no weight. The points are spread evenly over gamma efficiency, hadron survival and
    /// its logarithm, so that a linear and a logarithmic axis are both well covered.
    pub(crate) fn thinned(&self, limit: usize) -> Vec<RocPoint> {
        if self.gammas.weight <= 0.0 || self.hadrons.weight <= 0.0 {
            return Vec::new();
        }
        let bins = limit.saturating_sub(1).max(1) as f64;
        let mut taken = None;
        let mut thinned = Vec::new();
        for point in &self.points {
            let bin = (self.position(point) * bins) as u64;
            if taken.is_none_or(|t| bin > t) {
                taken = Some(bin);
                thinned.push(self.rates(point));
            }
        }
        // The last point, where everything passes, has a bin of its own unless rounding has put it
        // into the one before.
        if let (Some(end), Some(last)) = (self.points.last(), thinned.last_mut())
            && last.threshold > end.threshold
        {
            *last = self.rates(end);
        }
        thinned
    }

    /// Returns the position along the curve, monotone from 0 to 1.
    fn position(&self, point: &PassingCounts) -> f64 {
        let gamma = point.gammas.weight / self.gammas.weight;
        let hadron = point.hadrons.weight / self.hadrons.weight;
        let decades = libm::log1p(point.hadrons.weight) / libm::log1p(self.hadrons.weight);
        (gamma + hadron + decades) / 3.0
    }

    fn rates(&self, point: &PassingCounts) -> RocPoint {
        RocPoint {
            threshold: point.threshold,
            gamma_efficiency: point.gammas.weight / self.gammas.weight,
            hadron_survival: point.hadrons.weight / self.hadrons.weight,
        }
    }

    /// Returns the lowest threshold that at most a share `survival` of the hadrons pass; `None` if
    /// fewer than [`MIN_HADRONS`] effective ones do, or without gammas.
    pub(crate) fn at_hadron_survival(&self, survival: f64) -> Option<RocWorkingPoint> {
        let allowed = survival * self.hadrons.weight * (1.0 + 1e-12);
        let after = self.points.partition_point(|p| p.hadrons.weight <= allowed);
        let point = self.points.get(after.checked_sub(1)?)?;
        if !enough(&point.hadrons) {
            return None;
        }
        let gamma_efficiency = Measured::share(point.gammas, self.gammas)?;
        let of_threshold = libm::sqrt(self.variance_of_threshold(point, survival));
        Some(RocWorkingPoint {
            threshold: point.threshold,
            gamma_efficiency: Measured {
                error: libm::hypot(gamma_efficiency.error, of_threshold),
                ..gamma_efficiency
            },
            hadron_survival: Measured::share(point.hadrons, self.hadrons)?,
            hadrons: point.hadrons.events,
        })
    }

    /// Returns the variance of the gamma efficiency at a hadron survival due to the finite number
    /// of hadrons. It equals that of a bootstrap of the hadrons in the limit of many replicas
    /// (Maritz and Jarrett 1978). The threshold is above the hadron with which more than k of n
    /// pass. With s the survival of that hadron in the sample, the threshold of a replica is there
    /// or above with probability `I_s(k + 1, n − k)`. The variance is (`dε_γ/dε_h`)²
    /// `ε_h`(1−`ε_h`)/n where the curve is straight. Weighted events count as the effective number
    /// that passes.
    fn variance_of_threshold(&self, point: &PassingCounts, survival: f64) -> f64 {
        let all = self.hadrons.weight;
        let n = point.hadrons.effective() * all / point.hadrons.weight;
        let k = libm::floor(survival * n * (1.0 + 1e-12));
        if n - k <= 0.0 {
            return 0.0;
        }
        // Beyond this the probabilities are 0 or 1 within rounding.
        let far = WIDE * libm::sqrt(k + 1.0) + WIDE;
        let first = self.points.partition_point(|p| p.hadrons.weight / all * n < k - far);
        let last = self.points.partition_point(|p| p.hadrons.weight / all * n <= k + far);
        let points = &self.points[first.saturating_sub(1)..last];
        let (mut below, mut moments) = (0.0, [0.0; 3]);
        // Moments of differences, to avoid cancellation.
        let centre = point.gammas.weight / self.gammas.weight;
        for pair in points.windows(2).filter(|p| p[1].hadrons.weight > p[0].hadrons.weight) {
            let up_to = beta_below(pair[1].hadrons.weight / all, k + 1.0, n - k);
            let (probability, x) =
                (up_to - below, pair[0].gammas.weight / self.gammas.weight - centre);
            below = up_to;
            let terms = [probability, probability * x, probability * x * x];
            moments.iter_mut().zip(terms).for_each(|(sum, term)| *sum += term);
        }
        let [sum, first, second] = moments;
        if sum > 0.0 { (second / sum - first * first / (sum * sum)).max(0.0) } else { 0.0 }
    }
}

/// Range of a count that is summed, in standard deviations on either side.
const WIDE: f64 = 9.0;

/// Returns whether this many hadrons determine a survival.
pub(super) fn enough(hadrons: &WeightSum) -> bool {
    hadrons.effective() >= MIN_HADRONS as f64 * (1.0 - 1e-9)
}

fn highest(a: &[f64], b: &[f64]) -> Option<f64> {
    match (a.last(), b.last()) {
        (Some(x), Some(y)) => Some(x.max(*y)),
        (x, y) => x.or(y).copied(),
    }
}

#[cfg(test)]
mod tests;
