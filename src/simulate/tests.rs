//! Checks reproducibility, physical ranges, and the differences between gammas and hadrons that a
//! classifier should find.

use super::*;
use std::collections::HashSet;
use std::path::Path;

fn options(output: &Path, class: Class, events: u64, seed: u64) -> Options {
    Options { output: output.to_path_buf(), class, events, seed, overwrite: false }
}

fn sample(class: Class, events: u64) -> Vec<ToyEvent> {
    simulate(class, toy::stream(5, class), 0..events).unwrap()
}

fn quantile(events: &[ToyEvent], feature: fn(&ToyEvent) -> f32, q: f64) -> f32 {
    let mut values: Vec<f32> = events.iter().map(feature).collect();
    values.sort_by(f32::total_cmp);
    values[(q * (values.len() - 1) as f64) as usize]
}

/// Returns the probability that a gamma has the smaller value.
fn auc(gammas: &[ToyEvent], hadrons: &[ToyEvent], feature: fn(&ToyEvent) -> f32) -> f64 {
    let mut all: Vec<(f32, bool)> = gammas.iter().map(|e| (feature(e), true)).collect();
    all.extend(hadrons.iter().map(|e| (feature(e), false)));
    all.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (mut seen, mut sum) = (0u64, 0u64);
    for (_, is_gamma) in all {
        if is_gamma {
            seen += 1;
        } else {
            sum += seen;
        }
    }
    sum as f64 / (gammas.len() * hadrons.len()) as f64
}

#[test]
fn bytes_depend_on_options_alone() {
    let folder = tempfile::tempdir().unwrap();
    let [a, b, c] = ["a.h5", "b.h5", "c.h5"].map(|name| folder.path().join(name));
    let events = CHUNK_ROWS as u64 + 77;
    let summary = run(&options(&a, Class::Gamma, events, 1)).unwrap();
    assert_eq!(summary.events, events);
    run(&options(&b, Class::Gamma, events, 1)).unwrap();
    run(&options(&c, Class::Gamma, events, 2)).unwrap();
    let bytes = std::fs::read(&a).unwrap();
    assert!(bytes == std::fs::read(&b).unwrap());
    assert!(bytes != std::fs::read(&c).unwrap());
}

#[test]
fn bytes_do_not_depend_on_number_of_threads() {
    let draw = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| sample(Class::Hadron, 5_000))
    };
    let one = draw(1);
    assert_eq!(one, draw(7));
    let tail = simulate(Class::Hadron, toy::stream(5, Class::Hadron), 4_000..5_000).unwrap();
    assert_eq!(one[4_000..], tail[..]);
}

#[test]
fn every_feature_is_in_its_physical_range() {
    for class in [Class::Gamma, Class::Hadron] {
        for event in sample(class, 50_000) {
            assert!(FEATURES.iter().all(|(_, _, feature)| feature(&event).is_finite()));
            assert!(event.size > 0.0 && (2.0..=400.0).contains(&event.energy_tev), "{event:?}");
            assert!(event.length > 0.0 && (0.0..=event.length).contains(&event.width), "{event:?}");
            assert!(event.con2 > 0.0 && event.con2 < 1.0, "{event:?}");
            assert!((0.0..=90.0).contains(&event.alpha), "{event:?}");
            assert!((-90.0..=90.0).contains(&event.axis), "{event:?}");
            assert!(event.xc.hypot(event.yc) < 4.3001, "{event:?}");
            assert!((event.source_x.hypot(event.source_y) - 1.2).abs() < 1e-5, "{event:?}");
        }
    }
}

#[test]
fn alpha_and_dist_follow_from_image_geometry() {
    for event in sample(Class::Gamma, 2_000).into_iter().chain(sample(Class::Hadron, 2_000)) {
        let [x, y, sx, sy] = [event.xc, event.yc, event.source_x, event.source_y].map(f64::from);
        // alpha from miss, the distance of the source from the axis.
        let (sin, cos) = f64::from(event.axis).to_radians().sin_cos();
        let miss = ((x - sx) * sin - (y - sy) * cos).abs();
        let dist = (x - sx).hypot(y - sy);
        let alpha = (miss / dist).min(1.0).asin().to_degrees();
        assert!((f64::from(event.dist) - dist).abs() < 1e-6, "{event:?}");
        assert!((f64::from(event.alpha) - alpha).abs() < 1e-3, "{event:?} {alpha}");
    }
}

#[test]
fn hadrons_are_isotropic_after_cut_on_dist() {
    let hadrons = sample(Class::Hadron, 100_000);
    let chosen: Vec<&ToyEvent> =
        hadrons.iter().filter(|e| (0.36..1.44).contains(&e.dist)).collect();
    let mut counts = [0u64; 9];
    for event in &chosen {
        counts[((event.alpha / 10.0) as usize).min(8)] += 1;
    }
    let mean = chosen.len() as f64 / 9.0;
    let chi2: f64 = counts.iter().map(|n| (*n as f64 - mean).powi(2) / mean).sum();
    assert!(chi2 < 26.1, "chi2 {chi2} with 8 degrees of freedom: {counts:?}"); // 0.1 %
}

#[test]
fn hadrons_are_broader_gammas_point_to_source() {
    let (gammas, hadrons) = (sample(Class::Gamma, 50_000), sample(Class::Hadron, 50_000));
    for feature in [|e: &ToyEvent| e.width, |e: &ToyEvent| e.length] {
        let [median, tail] = [0.5, 0.99].map(|q| {
            let of = |events: &[ToyEvent]| f64::from(quantile(events, feature, q));
            of(&hadrons) / of(&gammas)
        });
        assert!(median > 1.1 && tail > median, "{median} {tail}");
    }
    assert!(quantile(&gammas, |e| e.alpha, 0.5) < 20.0);
    let bright: Vec<ToyEvent> = gammas.iter().copied().filter(|e| e.size > 1000.0).collect();
    assert!(quantile(&bright, |e| e.alpha, 0.5) < 0.6 * quantile(&gammas, |e| e.alpha, 0.5));
}

#[test]
fn no_single_feature_separates_the_classes() {
    let (gammas, hadrons) = (sample(Class::Gamma, 50_000), sample(Class::Hadron, 50_000));
    for (name, _, feature) in FEATURES.iter().filter(|(name, ..)| *name != "energy") {
        let auc = auc(&gammas, &hadrons, *feature);
        assert!((0.15..0.85).contains(&auc), "{name}: {auc}");
    }
    let size = auc(&gammas, &hadrons, |e| e.size);
    assert!((size - 0.5).abs() < 0.05, "{size}");
}

#[test]
fn about_one_percent_of_images_have_zero_width() {
    for class in [Class::Gamma, Class::Hadron] {
        let lines = sample(class, 100_000).iter().filter(|e| e.width == 0.0).count();
        assert!((500..2_000).contains(&lines), "{class:?}: {lines}");
    }
}

#[test]
fn keys_are_unique_over_events_classes_and_seeds() {
    let mut seen = HashSet::new();
    for seed in [0, 1, 999_999_999] {
        for class in [Class::Gamma, Class::Hadron] {
            for index in [0, 1, 9_999, 10_000, 10_001, 12_345_678, MAX_EVENTS - 1] {
                assert!(seen.insert(keys(seed, class, index)));
            }
        }
    }
}

#[test]
fn wrong_count_or_existing_output_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.h5");
    assert_eq!(run(&options(&path, Class::Gamma, 0, 1)).unwrap_err().exit_code(), 2);
    run(&options(&path, Class::Gamma, 10, 1)).unwrap();
    assert_eq!(run(&options(&path, Class::Gamma, 10, 1)).unwrap_err().exit_code(), 2);
}
