//! The ROC curve and what is read off it: area, its standard error, gamma
//! efficiency at a given hadron survival.
//!
//! Ties are exact: the curve has one point per distinct score, and the area counts
//! a tied pair of a gamma and a hadron one half (Mann & Whitney 1947), which is the
//! area under the straight lines between the points.

use super::confusion::quality;
use super::{Measured, Sample};
use serde::{Deserialize, Serialize};

/// Fewer hadrons than this do not measure a survival.
pub const LEAST_HADRONS: u64 = 10;

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Auc {
    pub value: f64,
    /// `None` where a class has fewer than two events.
    pub error: Option<f64>,
}

impl Auc {
    /// Area by the Mann–Whitney statistic; standard error by `DeLong`, `DeLong` and
    /// Clarke-Pearson (1988), Biometrics 44, 837. `None` where a class is empty.
    pub fn of(sample: &Sample) -> Option<Auc> {
        let (gamma, hadron) = (sample.gamma(), sample.hadron());
        let (m, n) = (gamma.len() as u64, hadron.len() as u64);
        if m == 0 || n == 0 {
            return None;
        }
        let wins: u128 = placements(gamma, hadron).map(u128::from).sum();
        let value = wins as f64 / (2.0 * m as f64 * n as f64);
        // A hadron's structural component is 1 minus its placement: same variance.
        let error = placement_variance(gamma, hadron)
            .zip(placement_variance(hadron, gamma))
            .map(|(v10, v01)| (v10 / m as f64 + v01 / n as f64).sqrt());
        Some(Auc { value, error })
    }

    /// How many standard errors the area lies above one half (negative: below).
    pub fn sigmas_above_half(&self) -> Option<f64> {
        self.error.filter(|e| *e > 0.0).map(|e| (self.value - 0.5) / e)
    }
}

/// For each of `of`: twice the number of `among` below it, plus the number equal to
/// it. Both ascending.
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

/// Sample variance of the placements as fractions of `among`.
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
pub struct Passing {
    pub threshold: f64,
    pub gammas: u64,
    pub hadrons: u64,
}

/// The whole curve in counts, from "nothing passes" to "everything passes".
#[derive(Debug, Clone, PartialEq)]
pub struct Roc {
    pub points: Vec<Passing>,
    pub gammas: u64,
    pub hadrons: u64,
}

/// A point of the curve as plotted.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct RocPoint {
    pub threshold: f64,
    pub gamma_efficiency: f64,
    pub hadron_survival: f64,
}

/// The curve read at a given hadron survival.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct WorkingPoint {
    pub threshold: f64,
    /// Binomial error; the error of the threshold itself is not in it.
    pub gamma_efficiency: Measured,
    pub hadron_survival: Measured,
    /// Hadrons that pass.
    pub hadrons: u64,
}

impl WorkingPoint {
    /// Gamma efficiency over the root of hadron survival, with binomial errors.
    pub fn quality(&self) -> Measured {
        quality(self.gamma_efficiency, self.hadron_survival)
    }
}

impl Roc {
    pub fn of(sample: &Sample) -> Roc {
        let (gamma, hadron) = (sample.gamma(), sample.hadron());
        let (mut below_gamma, mut below_hadron) = (gamma.len(), hadron.len());
        let mut points = Vec::new();
        while let Some(threshold) = highest(&gamma[..below_gamma], &hadron[..below_hadron]) {
            if points.is_empty() {
                points.push(Passing { threshold: threshold.next_up(), gammas: 0, hadrons: 0 });
            }
            below_gamma = gamma[..below_gamma].partition_point(|s| *s < threshold);
            below_hadron = hadron[..below_hadron].partition_point(|s| *s < threshold);
            let gammas = (gamma.len() - below_gamma) as u64;
            let hadrons = (hadron.len() - below_hadron) as u64;
            points.push(Passing { threshold, gammas, hadrons });
        }
        Roc { points, gammas: gamma.len() as u64, hadrons: hadron.len() as u64 }
    }

    /// At most `limit` (at least 2) points, both ends among them; empty where a
    /// class is empty. The points are spread evenly over gamma efficiency, hadron
    /// survival and its logarithm, so that both a linear and a logarithmic axis
    /// are well covered.
    pub fn thinned(&self, limit: usize) -> Vec<RocPoint> {
        if self.gammas == 0 || self.hadrons == 0 {
            return Vec::new();
        }
        let bins = limit.saturating_sub(1).max(1) as f64;
        let mut taken = None;
        let mut thinned = Vec::new();
        for point in &self.points {
            let bin = (self.way(point) * bins) as u64;
            if taken.is_none_or(|t| bin > t) {
                taken = Some(bin);
                thinned.push(self.rates(point));
            }
        }
        // The last point, where everything passes, has its bin to itself unless
        // rounding put it into the one before.
        if let (Some(end), Some(last)) = (self.points.last(), thinned.last_mut())
            && last.threshold > end.threshold
        {
            *last = self.rates(end);
        }
        thinned
    }

    /// Monotone along the curve, from 0 to 1.
    fn way(&self, point: &Passing) -> f64 {
        let gamma = point.gammas as f64 / self.gammas as f64;
        let hadron = point.hadrons as f64 / self.hadrons as f64;
        let decades = libm::log1p(point.hadrons as f64) / libm::log1p(self.hadrons as f64);
        (gamma + hadron + decades) / 3.0
    }

    fn rates(&self, point: &Passing) -> RocPoint {
        RocPoint {
            threshold: point.threshold,
            gamma_efficiency: point.gammas as f64 / self.gammas as f64,
            hadron_survival: point.hadrons as f64 / self.hadrons as f64,
        }
    }

    /// The lowest threshold that lets at most a share `survival` of the hadrons
    /// pass; `None` where fewer than [`LEAST_HADRONS`] do, or without gammas.
    pub fn at_hadron_survival(&self, survival: f64) -> Option<WorkingPoint> {
        let allowed = survival * self.hadrons as f64 * (1.0 + 1e-12);
        let after = self.points.partition_point(|p| p.hadrons as f64 <= allowed);
        let point = self.points.get(after.checked_sub(1)?)?;
        if point.hadrons < LEAST_HADRONS {
            return None;
        }
        Some(WorkingPoint {
            threshold: point.threshold,
            gamma_efficiency: Measured::fraction(point.gammas, self.gammas)?,
            hadron_survival: Measured::fraction(point.hadrons, self.hadrons)?,
            hadrons: point.hadrons,
        })
    }
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

    /// A small linear congruential generator: tests need the same numbers everywhere.
    struct Draws(u64);

    impl Draws {
        fn uniform(&mut self) -> f64 {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (self.0 >> 11) as f64 / (1_u64 << 53) as f64
        }
        fn normal(&mut self) -> f64 {
            (0..12).map(|_| self.uniform()).sum::<f64>() - 6.0
        }
    }

    fn two_normals(gammas: usize, hadrons: usize) -> (Vec<f64>, Vec<bool>) {
        let mut draws = Draws(7);
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
        fn the_area_is_that_of_all_pairs_and_of_the_curve(
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
    fn equal_scores_give_one_half_and_two_points() {
        let sample = Sample::new(&[3.0; 9], &[true, false].repeat(5)[..9]).unwrap();
        let auc = Auc::of(&sample).unwrap();
        assert!((auc.value - 0.5).abs() < 1e-15);
        assert_eq!(auc.error, Some(0.0));
        assert_eq!(Roc::of(&sample).points.len(), 2);
    }

    #[test]
    fn an_empty_class_has_no_area_and_no_curve() {
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
    fn the_error_of_the_area_agrees_with_a_bootstrap() {
        let (scores, gamma) = two_normals(300, 200);
        let error = Auc::of(&Sample::new(&scores, &gamma).unwrap()).unwrap().error.unwrap();
        let (of_gamma, of_hadron) = scores.split_at(300);
        let mut draws = Draws(11);
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
    fn a_thinned_curve_is_bounded_and_keeps_its_ends() {
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

    #[test]
    fn the_efficiency_at_a_survival_needs_ten_hadrons() {
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
