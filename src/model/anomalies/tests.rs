use super::*;
use crate::config::{Cut, CutBound, Feature, Physics, Transform};
use std::collections::BTreeMap;

fn scaled(name: &str, transform: Transform, mean: f64, std: f64) -> ScaledFeature {
    let offset = if transform == Transform::Ln { 0.01 } else { 0.0 };
    let feature = Feature { name: name.into(), transform, offset, exponent: 0.0, quantum: 0.0 };
    ScaledFeature { feature, unit: "1".into(), mean, std }
}

fn features() -> Vec<ScaledFeature> {
    vec![
        scaled("size", Transform::Log10, 2.8, 0.4),
        scaled("width", Transform::Ln, -2.6, 0.4),
        scaled("length", Transform::Ln, -1.8, 0.4),
        scaled("con2", Transform::Logit, -0.6, 0.7),
        scaled("dist", Transform::None, 0.6, 0.25),
        scaled("alpha", Transform::Signed, 0.0, 25.0),
    ]
}

fn selection() -> Selection {
    let features: Vec<Feature> = features().into_iter().map(|f| f.feature).collect();
    let cut = |min| Cut { min: Some(CutBound::Number(min)), max: None };
    let cuts: BTreeMap<String, Cut> =
        [("size".to_string(), cut(100.0)), ("leakage".to_string(), cut(3.0))].into();
    Selection::new(&features, &cuts).unwrap()
}

fn mixture(generator: Generator) -> Anomalies {
    Anomalies { generators: vec![Draw { weight: 1.0, generator }], files: Vec::new(), attempts: 64 }
}

fn all_pointwise() -> Vec<Generator> {
    vec![
        Generator::Box { reach: 3.0 },
        Generator::Permutation { fraction: 0.4 },
        Generator::Permutation { fraction: 1.0 },
        Generator::Noise { spread: 0.8 },
        Generator::Extrapolation { reach: 1.5 },
        Generator::Physics(Physics::default()),
    ]
}

/// Returns normal events: independent standard normals, most of which are valid images.
fn normals(count: usize, seed: u64) -> Vec<f32> {
    let stream = Stream::new(seed, "normals", &[]);
    (0..count as u64 * 6).map(|i| 0.7 * stream.normal(i) as f32).collect()
}

fn context(features: &[ScaledFeature], events: &[f32]) -> NormalStatistics {
    let con2 = Regression::solve(&Regression::sums(features, events.chunks(6)).unwrap());
    NormalStatistics { con2, dist: vec![1.2] }
}

fn make(anomalies: &Anomalies, seed: u64) -> Vec<(AnomalyOutcome, Vec<f32>)> {
    let (features, selection, events) = (features(), selection(), normals(500, 3));
    let normals = context(&features, &events);
    let maker = AnomalyMaker::new(anomalies, &features, &selection, &normals);
    let partner = |u: f64| &events[(u * 500.0) as usize * 6..][..6];
    let kept = filed_events();
    let filed = |u: f64| kept.get((u * 7.0) as usize * 6..).and_then(|rest| rest.get(..6));
    let one = |(i, event): (usize, &[f32])| {
        let mut out = vec![f32::NAN; 6];
        let stream = Stream::new(seed, "anomaly", &[i as u64]);
        let made = maker.make(stream, event, partner, filed, &mut out);
        (made, out)
    };
    events.chunks(6).enumerate().map(one).collect()
}

#[test]
fn every_anomaly_is_possible_and_inside_cuts() {
    let (features, selection) = (features(), selection());
    for generator in all_pointwise() {
        let anomalies = mixture(generator.clone());
        let maker =
            AnomalyMaker::new(&anomalies, &features, &selection, &NormalStatistics::default());
        let made = make(&anomalies, 5);
        let whole = made.iter().filter(|(m, _)| *m == AnomalyOutcome::Whole).count();
        assert!(whole > 450, "{generator:?}: {whole}");
        for (_, event) in made.iter().filter(|(m, _)| *m == AnomalyOutcome::Whole) {
            let of = |d: usize| features[d].quantity(event[d]);
            assert!(of(0) > 100.0 && of(1) <= of(2) && of(1) >= 0.0, "{generator:?}");
            assert!(of(3) > 0.0 && of(3) <= 1.0 && of(4) >= 0.0 && (0.0..=90.0).contains(&of(5)));
            assert!(maker.is_valid(event));
        }
    }
}

#[test]
fn anomaly_is_a_function_of_its_stream_alone() {
    for generator in all_pointwise() {
        let anomalies = mixture(generator);
        assert_eq!(make(&anomalies, 5), make(&anomalies, 5));
        assert_ne!(make(&anomalies, 5), make(&anomalies, 6));
    }
}

#[test]
fn impossible_images_are_invalid() {
    let (features, selection) = (features(), selection());
    let anomalies = mixture(Generator::Noise { spread: 1.0 });
    let maker = AnomalyMaker::new(&anomalies, &features, &selection, &NormalStatistics::default());
    assert!(maker.is_valid(&[0.0; 6]));
    for (d, z) in [(0, -5.0), (1, 9.0), (1, f32::NAN), (3, 1e4), (4, -9.0), (5, 4.0), (5, -4.0)] {
        let mut event = [0.0; 6];
        event[d] = z;
        assert!(!maker.is_valid(&event), "{d}: {z}");
    }
}

#[test]
fn physics_anomalies_are_isotropic_and_broader() {
    let made = make(&mixture(Generator::Physics(Physics::default())), 8);
    let (features, events) = (features(), normals(500, 3));
    let mean = |d: usize, of: &dyn Fn(usize) -> f32| {
        (0..500).map(|i| features[d].quantity(of(i))).sum::<f64>() / 500.0
    };
    let anomaly = |d: usize| mean(d, &|i| made[i].1[d]);
    let normal = |d: usize| mean(d, &|i| events[6 * i + d]);
    // Uniform in 0…90: mean 45 ± 26/√500; dist ∝ √u up to 1.2: mean 0.8 ± 0.28/√500.
    assert!((anomaly(5) - 45.0).abs() < 5.0, "{}", anomaly(5));
    assert!((anomaly(4) - 0.8).abs() < 0.06, "{}", anomaly(4));
    assert!(anomaly(1) > 1.2 * normal(1) && anomaly(2) > 1.2 * normal(2));
    assert!((anomaly(0) - normal(0)).abs() < 1e-9 * normal(0), "the size is kept");
}

#[test]
fn regression_recovers_an_exact_relation() {
    let features = features();
    let mut events = normals(300, 9);
    for event in events.chunks_mut(6) {
        let of = |d: usize| features[d].quantity(event[d]);
        let y = 0.3 - 0.2 * of(0).ln() - 0.5 * of(1).max(0.003).ln() + 0.1 * of(2).max(0.003).ln();
        event[3] = features[3].scale(y);
    }
    let found = Regression::solve(&Regression::sums(&features, events.chunks(6)).unwrap()).unwrap();
    for (c, expected) in found.coefficients.iter().zip([0.3, -0.2, -0.5, 0.1]) {
        assert!((c - expected).abs() < 1e-3, "{found:?}");
    }
    assert!(Regression::sums(&features[..3], events.chunks(6)).is_none());
    assert!(Regression::solve(&[0.0; Regression::WORDS]).is_none());
}

#[test]
fn mixture_draws_its_generators_by_weight() {
    let draw = |weight, generator| Draw { weight, generator };
    let anomalies = Anomalies {
        generators: vec![
            draw(3.0, Generator::LatentShell { quantile: 0.99 }),
            draw(1.0, Generator::Noise { spread: 0.1 }),
        ],
        files: Vec::new(),
        attempts: 64,
    };
    let made = make(&anomalies, 4);
    let latent = made.iter().filter(|(m, _)| matches!(m, AnomalyOutcome::Latent { .. })).count();
    assert!((320..430).contains(&latent), "{latent} of 500");
    for (_, z) in made.iter().filter(|(m, _)| matches!(m, AnomalyOutcome::Latent { .. })) {
        let square: f32 = z.iter().map(|z| z * z).sum();
        assert!(square > 16.8, "inside the shell: {square}"); // χ²₆ at 0.99
    }
}

/// Returns seven events of a file of anomalies; all are valid images.
fn filed_events() -> Vec<f32> {
    (0..42).map(|i| 0.1 * ((i % 6) as f32 - 2.0) + 0.01 * (i / 6) as f32).collect()
}

#[test]
fn file_events_are_unchanged_except_signs() {
    let made = make(&mixture(Generator::File {}), 9);
    let filed = filed_events();
    let signed: Vec<bool> =
        features().iter().map(|f| f.feature.transform == Transform::Signed).collect();
    let (mut seen, mut flipped) = (std::collections::BTreeSet::new(), 0);
    for (outcome, event) in &made {
        assert_eq!(*outcome, AnomalyOutcome::Whole);
        let from = filed.chunks(6).position(|row| {
            let same = |(d, (x, y)): (usize, (&f32, &f32))| x == y || signed[d] && *x == -*y;
            event.iter().zip(row).enumerate().all(same)
        });
        let from = from.expect("one of the file's events");
        let differs = |d: &usize| signed[*d] && event[*d] != filed[from * 6 + d];
        flipped += usize::from((0..6).any(|d| differs(&d)));
        seen.insert(from);
    }
    assert_eq!(seen.len(), 7, "all of them are drawn");
    assert!((190..310).contains(&flipped), "{flipped} of 500");
}
