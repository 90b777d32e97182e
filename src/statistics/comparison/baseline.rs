//! Compares the model with another classifier on the same events.

use crate::error::Result;
use crate::statistics::roc::{weighted_mean, weighted_placements};
use crate::statistics::survival::AtSurvival;
use crate::statistics::{Auc, Class, ClassCounts, Measured, Roc, RocPoint, Sample};
use serde::{Deserialize, Serialize};

const CURVE_POINTS: usize = 400;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Baseline {
    /// "random forest of 100 trees"
    pub name: String,
    /// Events it was trained on.
    pub trained_on: ClassCounts,
    pub auc: Option<Auc>,
    /// AUC of the model minus that of the baseline, paired event by event.
    pub difference: Option<Measured>,
    pub at_survival: Vec<AtSurvival>,
    pub roc: Vec<RocPoint>,
}

impl Baseline {
    /// Compares `scores` of the baseline with those of the model, given the true class (true =
    /// gamma) and weight of the same events.
    ///
    /// # Errors
    /// `Input` if a weight is unusable.
    pub fn of(
        name: String,
        trained_on: ClassCounts,
        [scores, model]: [&[f32]; 2],
        gamma: &[bool],
        weights: Option<&[f64]>,
    ) -> Result<Baseline> {
        let sample = Sample::weighted(scores, gamma, weights)?;
        let roc = Roc::of(&sample);
        Ok(Baseline {
            name,
            trained_on,
            auc: Auc::of(&sample),
            difference: difference([model, scores], gamma, weights)?,
            at_survival: AtSurvival::all(&roc),
            roc: roc.thinned(CURVE_POINTS),
        })
    }
}

/// Returns the area of the first scores minus that of the second. Its error is that of the
/// difference of their structural components, event by event (`DeLong` et al. 1988). Events that
/// lack a score are excluded; `None` with fewer than two of a class.
fn difference(
    scores: [&[f32]; 2],
    gamma: &[bool],
    weights: Option<&[f64]>,
) -> Result<Option<Measured>> {
    let has_scores = |i: &usize| scores.iter().all(|of| !of[*i].is_nan());
    let mut kept: Vec<usize> = (0..gamma.len()).filter(has_scores).collect();
    // Sums use an order that does not depend on that of the events.
    let weight = |i: usize| weights.map_or(1.0, |w| w[i]);
    kept.sort_by(|a, b| {
        let by = |of: &[f32]| of[*a].total_cmp(&of[*b]);
        by(scores[0]).then(by(scores[1])).then(weight(*a).total_cmp(&weight(*b)))
    });
    let of: Vec<bool> = kept.iter().map(|i| gamma[*i]).collect();
    let weights: Vec<f64> = kept.iter().map(|i| weight(*i)).collect();
    let mut samples = Vec::new();
    for scores in scores {
        let scores: Vec<f32> = kept.iter().map(|i| scores[*i]).collect();
        samples.push(Sample::weighted(&scores, &of, Some(&weights))?);
    }
    let [first, second] = &samples[..] else { return Ok(None) };
    let mut means = Vec::new();
    for class in [Class::Gamma, Class::Hadron] {
        // Events of the class in the order of `kept`, in both samples.
        let own: Vec<usize> = (0..of.len()).filter(|i| of[*i] == (class == Class::Gamma)).collect();
        let of_score = |sample: &Sample, which: usize| {
            let values: Vec<f64> =
                own.iter().map(|i| f64::from(scores[which][kept[*i]]) + 0.0).collect();
            weighted_placements(sample, &values, class.other())
        };
        let Some((a, b)) = of_score(first, 0).zip(of_score(second, 1)) else { return Ok(None) };
        let apart: Vec<f64> = a.iter().zip(b).map(|(a, b)| a - b).collect();
        let own: Vec<f64> = own.iter().map(|i| weights[*i]).collect();
        means.extend(weighted_mean(&apart, &own));
    }
    let [(value, Some(of_gammas)), (_, Some(of_hadrons))] = means[..] else { return Ok(None) };
    Ok(Some(Measured { value, error: (of_gammas + of_hadrons).sqrt() }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use taiga_flow_gpu::random::Stream;

    /// Returns two correlated scores, and the class.
    fn events(seed: u64) -> (Vec<f32>, Vec<f32>, Vec<bool>) {
        let stream = Stream::new(seed, "yardstick", &[]);
        let gamma: Vec<bool> = (0..500).map(|i| i % 5 < 2).collect();
        let event = |(i, gamma): (usize, &bool)| {
            let at = 3 * i as u64;
            let common = stream.normal(at) + if *gamma { 1.2 } else { 0.0 };
            let with = |k: u64, noise: f64| (common + noise * stream.normal(at + k)) as f32;
            (with(1, 0.3), with(2, 0.6))
        };
        let (model, other) = gamma.iter().enumerate().map(event).unzip();
        (model, other, gamma)
    }

    #[test]
    fn paired_difference_error_agrees_with_samples() {
        let mut found = Vec::new();
        for seed in 0..300 {
            let (model, other, gamma) = events(seed);
            let baseline =
                Baseline::of("f".into(), ClassCounts::default(), [&other, &model], &gamma, None)
                    .unwrap();
            let both = |s: &[f32]| Auc::of(&Sample::new(s, &gamma).unwrap()).unwrap();
            let difference = baseline.difference.unwrap();
            let areas = both(&model).value - both(&other).value;
            assert!((difference.value - areas).abs() < 1e-12);
            // Scores with this correlation differ by 0.67 ± 0.04 of the error of one of them.
            assert!(difference.error < 0.85 * both(&model).error.unwrap());
            found.push(difference);
        }
        let mean = found.iter().map(|m| m.value).sum::<f64>() / 300.0;
        let spread = found.iter().map(|m| (m.value - mean) * (m.value - mean)).sum::<f64>() / 299.0;
        let said = found.iter().map(|m| m.error * m.error).sum::<f64>() / 300.0;
        // Four standard errors of a variance of 300.
        assert!((said / spread).ln().abs() < 0.34, "{said} {spread}");
    }

    #[test]
    fn order_changes_no_bit_one_class_no_difference() {
        let (model, other, gamma) = events(7);
        let weights: Vec<f64> = (0..500).map(|i| 1.0 + f64::from(i % 7)).collect();
        let of = |order: &[usize]| {
            let pick = |x: &[f32]| order.iter().map(|i| x[*i]).collect::<Vec<f32>>();
            let (model, other) = (pick(&model), pick(&other));
            let gamma: Vec<bool> = order.iter().map(|i| gamma[*i]).collect();
            let weights: Vec<f64> = order.iter().map(|i| weights[*i]).collect();
            let counts = ClassCounts::default();
            Baseline::of("f".into(), counts, [&other, &model], &gamma, Some(&weights)).unwrap()
        };
        let forward: Vec<usize> = (0..500).collect();
        let backward: Vec<usize> = (0..500).rev().collect();
        assert_eq!(of(&forward), of(&backward));
        let gammas = vec![true; 500];
        let counts = ClassCounts::default();
        let one = Baseline::of("f".into(), counts, [&other, &model], &gammas, None).unwrap();
        assert_eq!((one.auc, one.difference), (None, None));
    }
}
