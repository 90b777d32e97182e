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
            let again: Vec<f64> =
                (0..500).map(|i| if i < 300 { pick(of_gamma) } else { pick(of_hadron) }).collect();
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
    let weights: Vec<f64> =
        (0..all).map(|i| if weighted { 0.2 + stream.uniform(4 * all + i) } else { 1.0 }).collect();
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
        let again = |i| if i < gammas { pick(0, gammas) } else { pick(gammas, hadrons) } as usize;
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
    let seed = crate::test_seed();
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
            println!("{sizes:?} at {survival}: {said:.5}, of bootstraps {found:.5}, {ratio:.3}");
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
