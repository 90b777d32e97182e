//! The ROC curve and its derived values: area with standard error, and gamma efficiency at a given
//! hadron survival.
//!
//! Ties are exact: the curve has one point per distinct score, and the area counts a tied pair of a
//! gamma and a hadron as one half (Mann & Whitney 1947), which is the area under the straight lines
//! between the points. Weighted events count with their weights.

use super::tails::beta_below;
use super::{Class, Measured, Sample, WeightSum};
use serde::{Deserialize, Serialize};

/// Fewer hadrons than this do not determine a survival.
pub const MIN_HADRONS: u64 = 10;

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Auc {
    pub value: f64,
    /// `None` if a class has fewer than two events.
    pub error: Option<f64>,
}

impl Auc {
    /// Computes the area by the Mann–Whitney statistic, with the standard error by `DeLong`,
    /// `DeLong` and Clarke-Pearson (1988), Biometrics 44, 837. `None` if a class is empty.
    pub fn of(sample: &Sample) -> Option<Auc> {
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
    pub fn sigmas_above_half(&self) -> Option<f64> {
        self.error.filter(|e| *e > 0.0).map(|e| (self.value - 0.5) / e)
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
pub struct PassingCounts {
    pub threshold: f64,
    pub gammas: WeightSum,
    pub hadrons: WeightSum,
}

/// The whole curve in counts, from "nothing passes" to "everything passes".
#[derive(Debug, Clone, PartialEq)]
pub struct Roc {
    pub points: Vec<PassingCounts>,
    pub gammas: WeightSum,
    pub hadrons: WeightSum,
}

/// A point of the plotted curve.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct RocPoint {
    pub threshold: f64,
    pub gamma_efficiency: f64,
    pub hadron_survival: f64,
}

/// The curve at a given hadron survival.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct RocWorkingPoint {
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
    pub fn quality(&self) -> Measured {
        let root = libm::sqrt(self.hadron_survival.value);
        let Measured { value, error } = self.gamma_efficiency;
        Measured { value: value / root, error: error / root }
    }
}

impl Roc {
    pub fn of(sample: &Sample) -> Roc {
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
    pub fn thinned(&self, limit: usize) -> Vec<RocPoint> {
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
    pub fn at_hadron_survival(&self, survival: f64) -> Option<RocWorkingPoint> {
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
mod tests {
    use super::*;
    use proptest::prelude::*;
    use taiga_flow_gpu::random::{self as stream, Stream};

    /// A small linear congruential generator: tests need the same numbers everywhere.
    struct Generator(u64);

    impl Generator {
        fn uniform(&mut self) -> f64 {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (self.0 >> 11) as f64 / (1_u64 << 53) as f64
        }
        fn normal(&mut self) -> f64 {
            (0..12).map(|_| self.uniform()).sum::<f64>() - 6.0
        }
    }

    fn two_normals(gammas: usize, hadrons: usize) -> (Vec<f64>, Vec<bool>) {
        let mut draws = Generator(7);
        let gamma: Vec<bool> = (0..gammas + hadrons).map(|i| i < gammas).collect();
        let scores = gamma.iter().map(|&g| draws.normal() + if g { 1.0 } else { 0.0 }).collect();
        (scores, gamma)
    }

    fn by_pairs(scores: &[f64], gamma: &[bool]) -> f64 {
        let (mut wins, mut pairs) = (0.0, 0.0);
        for (i, _) in gamma.iter().enumerate().filter(|(_, g)| **g) {
            for (j, _) in gamma.iter().enumerate().filter(|(_, g)| !**g) {
                pairs += 1.0;
                wins += match scores[i].total_cmp(&scores[j]) {
                    std::cmp::Ordering::Greater => 1.0,
                    std::cmp::Ordering::Equal => 0.5,
                    std::cmp::Ordering::Less => 0.0,
                };
            }
        }
        wins / pairs
    }

    fn area_of_trapezoids(roc: &Roc) -> f64 {
        let points = roc.thinned(usize::MAX >> 12);
        let step = |w: &[RocPoint]| {
            (w[1].hadron_survival - w[0].hadron_survival)
                * (w[1].gamma_efficiency + w[0].gamma_efficiency)
                / 2.0
        };
        points.windows(2).map(step).sum()
    }

    proptest! {
        #[test]
        fn area_agrees_with_all_pairs_and_the_curve(
            events in prop::collection::vec((0_u8..12, any::<bool>()), 2..80)
        ) {
            let scores: Vec<f64> = events.iter().map(|(s, _)| f64::from(*s) - 5.0).collect();
            let gamma: Vec<bool> = events.iter().map(|(_, g)| *g).collect();
            prop_assume!(gamma.iter().any(|g| *g) && gamma.iter().any(|g| !*g));
            let sample = Sample::new(&scores, &gamma).unwrap();
            let auc = Auc::of(&sample).unwrap().value;
            prop_assert!((auc - by_pairs(&scores, &gamma)).abs() < 1e-12);
            prop_assert!((auc - area_of_trapezoids(&Roc::of(&sample))).abs() < 1e-9);
            let reversed: Vec<f64> = scores.iter().map(|s| -s).collect();
            let reversed = Auc::of(&Sample::new(&reversed, &gamma).unwrap()).unwrap().value;
            prop_assert!((auc + reversed - 1.0).abs() < 1e-12);
        }
    }

    #[test]
    fn weight_n_equals_n_events_in_area_and_curve() {
        let (scores, gamma) = two_normals(400, 300);
        let times = |i: usize| 1 + (i * 7 + i / 3) % 4;
        let weights: Vec<f64> = (0..700).map(|i| 2.5 * times(i) as f64).collect();
        let weighted = Sample::weighted(&scores, &gamma, Some(&weights)).unwrap();
        let again = |i: usize| std::iter::repeat_n(i, times(i));
        let indices: Vec<usize> = (0..700).flat_map(again).collect();
        let repeated: Vec<f64> = indices.iter().map(|i| scores[*i]).collect();
        let of: Vec<bool> = indices.iter().map(|i| gamma[*i]).collect();
        let repeated = Sample::new(&repeated, &of).unwrap();
        let (area, plain) = (Auc::of(&weighted).unwrap(), Auc::of(&repeated).unwrap());
        assert!((area.value - plain.value).abs() < 1e-12);
        let unweighted = Auc::of(&Sample::new(&scores, &gamma).unwrap()).unwrap();
        assert!((area.value - unweighted.value).abs() > 1e-5, "weights mean something");
        // Repeated events are not independent: the true error is larger.
        assert!(area.error.unwrap() > 1.1 * plain.error.unwrap());
        let (a, b) = (Roc::of(&weighted), Roc::of(&repeated));
        let at = |roc: &Roc| roc.at_hadron_survival(0.1).unwrap();
        assert!((at(&a).gamma_efficiency.value - at(&b).gamma_efficiency.value).abs() < 1e-9);
        assert!((at(&a).threshold - at(&b).threshold).abs() < 1e-12);
    }

    #[test]
    fn weighted_area_error_agrees_with_bootstrap() {
        let (scores, gamma) = two_normals(300, 200);
        let weights: Vec<f64> = (0..500).map(|i| 1.0 / (0.1 + (i % 17) as f64)).collect();
        let sample = Sample::weighted(&scores, &gamma, Some(&weights)).unwrap();
        let error = Auc::of(&sample).unwrap().error.unwrap();
        let mut draws = Generator(13);
        let areas: Vec<f64> = (0..1000)
            .map(|_| {
                let mut pick = |i: usize| {
                    let (low, many) = if i < 300 { (0, 300) } else { (300, 200) };
                    low + (draws.uniform() * f64::from(many)) as usize
                };
                let again: Vec<usize> = (0..500).map(&mut pick).collect();
                let scores: Vec<f64> = again.iter().map(|i| scores[*i]).collect();
                let weights: Vec<f64> = again.iter().map(|i| weights[*i]).collect();
                Auc::of(&Sample::weighted(&scores, &gamma, Some(&weights)).unwrap()).unwrap().value
            })
            .collect();
        let mean = areas.iter().sum::<f64>() / 1000.0;
        let variance = areas.iter().map(|a| (a - mean) * (a - mean)).sum::<f64>() / 999.0;
        assert!((error / variance.sqrt() - 1.0).abs() < 0.2, "{error} {}", variance.sqrt());
    }

    #[test]
    fn equal_scores_give_one_half_and_two_points() {
        let sample = Sample::new(&[3.0; 9], &[true, false].repeat(5)[..9]).unwrap();
        let auc = Auc::of(&sample).unwrap();
        assert!((auc.value - 0.5).abs() < 1e-15);
        assert_eq!(auc.error, Some(0.0));
        assert_eq!(Roc::of(&sample).points.len(), 2);
    }

    #[test]
    fn empty_class_has_no_area_and_no_curve() {
        let sample = Sample::new(&[1.0, 2.0], &[true, true]).unwrap();
        assert_eq!(Auc::of(&sample), None);
        assert!(Roc::of(&sample).thinned(100).is_empty());
        assert_eq!(Roc::of(&sample).at_hadron_survival(0.1), None);
        let nothing = Sample::default();
        assert_eq!(Auc::of(&nothing), None);
        assert!(Roc::of(&nothing).points.is_empty());
        let one_each = Sample::new(&[1.0, 2.0], &[true, false]).unwrap();
        assert_eq!(Auc::of(&one_each), Some(Auc { value: 0.0, error: None }));
    }

    #[test]
    fn area_error_agrees_with_bootstrap() {
        let (scores, gamma) = two_normals(300, 200);
        let error = Auc::of(&Sample::new(&scores, &gamma).unwrap()).unwrap().error.unwrap();
        let (of_gamma, of_hadron) = scores.split_at(300);
        let mut draws = Generator(11);
        let mut pick = |from: &[f64]| from[(draws.uniform() * from.len() as f64) as usize];
        let areas: Vec<f64> = (0..1000)
            .map(|_| {
                let again: Vec<f64> = (0..500)
                    .map(|i| if i < 300 { pick(of_gamma) } else { pick(of_hadron) })
                    .collect();
                Auc::of(&Sample::new(&again, &gamma).unwrap()).unwrap().value
            })
            .collect();
        let mean = areas.iter().sum::<f64>() / 1000.0;
        let variance = areas.iter().map(|a| (a - mean) * (a - mean)).sum::<f64>() / 999.0;
        assert!((error / variance.sqrt() - 1.0).abs() < 0.15, "{error} {}", variance.sqrt());
    }

    #[test]
    fn thinned_curve_is_bounded_and_keeps_its_ends() {
        let (scores, gamma) = two_normals(3000, 2000);
        let roc = Roc::of(&Sample::new(&scores, &gamma).unwrap());
        for limit in [2, 3, 50, 400] {
            let thinned = roc.thinned(limit);
            assert!(thinned.len() <= limit, "{} over {limit}", thinned.len());
            let (first, last) = (thinned[0], thinned[thinned.len() - 1]);
            assert!(first.gamma_efficiency + first.hadron_survival < 1e-15);
            assert!(last.gamma_efficiency + last.hadron_survival > 2.0 - 1e-15);
        }
        assert!(roc.thinned(400).len() > 200);
    }

    /// Returns the errors of the gamma efficiency and of Q at a survival: as computed, and as the
    /// spread over bootstraps of both classes.
    fn errors_at_survival(
        [gammas, hadrons]: [u64; 2],
        survival: f64,
        weighted: bool,
        seed: u64,
    ) -> [[f64; 2]; 2] {
        let stream = Stream::new(seed, "survival", &[gammas, hadrons]);
        let all = gammas + hadrons;
        let gamma: Vec<bool> = (0..all).map(|i| i < gammas).collect();
        let shift = |i: u64| if i < gammas { 1.5 } else { 0.0 };
        let scores: Vec<f64> = (0..all).map(|i| stream.normal(i) + shift(i)).collect();
        let weights: Vec<f64> = (0..all)
            .map(|i| if weighted { 0.2 + stream.uniform(4 * all + i) } else { 1.0 })
            .collect();
        let at = |of: &[usize]| {
            let scores: Vec<f64> = of.iter().map(|i| scores[*i]).collect();
            let gamma: Vec<bool> = of.iter().map(|i| gamma[*i]).collect();
            let weights: Vec<f64> = of.iter().map(|i| weights[*i]).collect();
            let weights = weighted.then_some(weights.as_slice());
            let sample = Sample::weighted(&scores, &gamma, weights).unwrap();
            Roc::of(&sample).at_hadron_survival(survival)
        };
        let said = at(&(0..all as usize).collect::<Vec<_>>()).unwrap();
        let mut draws = stream::Draws::new(Stream::new(seed, "again", &[gammas, hadrons]));
        let mut pick = |low: u64, count: u64| low + (draws.uniform() * count as f64) as u64;
        let mut found = [Vec::new(), Vec::new()];
        for _ in 0..500 {
            let again =
                |i| if i < gammas { pick(0, gammas) } else { pick(gammas, hadrons) } as usize;
            if let Some(point) = at(&(0..all).map(again).collect::<Vec<_>>()) {
                found[0].push(point.gamma_efficiency.value);
                found[1].push(point.quality().value);
            }
        }
        let spread = |values: Vec<f64>| {
            let n = values.len() as f64;
            let mean = values.iter().sum::<f64>() / n;
            (values.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / (n - 1.0)).sqrt()
        };
        let [efficiency, quality] = found.map(spread);
        [[said.gamma_efficiency.error, efficiency], [said.quality().error, quality]]
    }

    #[test]
    fn errors_at_survival_agree_with_bootstraps() {
        let seed = u64::from(std::process::id());
        let cases = [
            ([400, 300], 0.1, false),
            ([3000, 400], 0.1, false),
            ([150, 4000], 0.1, false),
            ([2000, 3000], 0.01, false),
            ([8000, 2000], 0.02, false),
            ([1000, 1000], 0.1, true),
            ([3000, 2000], 0.03, true),
        ];
        for (sizes, survival, weighted) in cases {
            for [said, found] in errors_at_survival(sizes, survival, weighted, seed) {
                let ratio = said / found;
                println!(
                    "{sizes:?} at {survival}: {said:.5}, of bootstraps {found:.5}, {ratio:.3}"
                );
                assert!((ratio - 1.0).abs() < 0.2, "seed {seed}: {sizes:?}, weights {weighted}");
            }
        }
    }

    #[test]
    fn efficiency_at_survival_needs_ten_hadrons() {
        let (scores, gamma) = two_normals(500, 500);
        let roc = Roc::of(&Sample::new(&scores, &gamma).unwrap());
        let at = roc.at_hadron_survival(0.1).unwrap();
        assert_eq!(at.hadrons, 50);
        let kept = scores.iter().zip(&gamma).filter(|(s, g)| **g && **s >= at.threshold).count();
        assert!((at.gamma_efficiency.value - kept as f64 / 500.0).abs() < 1e-12);
        assert_eq!(roc.at_hadron_survival(0.02).unwrap().hadrons, 10);
        assert_eq!(roc.at_hadron_survival(0.01), None);
    }
}
