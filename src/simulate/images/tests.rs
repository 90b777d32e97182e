//! Checks reproducibility, shared keys of showers, and differences between gammas and hadrons.

use super::*;
use crate::comm::StopFlag;
use crate::data::images::ImageFile;
use crate::extract;
use std::path::Path;

fn options(output: &Path, class: Class, events: u64, seed: u64) -> Options {
    Options {
        output: output.to_path_buf(),
        class,
        events,
        seed,
        camera: "taiga-560".to_string(),
        noise_pe: 4.0,
        offset_deg: 1.2,
        overwrite: false,
    }
}

fn thrown(class: Class, showers: std::ops::Range<u64>) -> Vec<Vec<TriggeredImage>> {
    let camera = Camera::by_name("taiga-595").unwrap();
    let sigma = vec![4.0f32; 595];
    let thrower = Thrower::new(class, 5, 1.2, &camera, &sigma);
    showers.map(|shower| thrower.shower(shower, MEMBERS[(shower % 4) as usize]).unwrap()).collect()
}

#[test]
fn same_options_give_same_bytes_on_any_threads() {
    let folder = tempfile::tempdir().unwrap();
    let [a, b, c] = ["a.h5", "b.h5", "c.h5"].map(|name| folder.path().join(name));
    let threads = |n: usize| rayon::ThreadPoolBuilder::new().num_threads(n).build().unwrap();
    threads(1).install(|| run(&options(&a, Class::Hadron, 137, 1))).unwrap();
    threads(5).install(|| run(&options(&b, Class::Hadron, 137, 1))).unwrap();
    run(&options(&c, Class::Hadron, 137, 2)).unwrap();
    let bytes = std::fs::read(&a).unwrap();
    assert!(bytes == std::fs::read(&b).unwrap());
    assert!(bytes != std::fs::read(&c).unwrap());
}

#[test]
fn file_contains_format_camera_noise_and_keys() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("images.h5");
    let summary = run(&options(&path, Class::Gamma, 23, 3)).unwrap();
    assert_eq!(summary.events, 23);
    let file = ImageFile::open(&path, None).unwrap();
    let set = &file.sets()[0];
    assert_eq!(set.pixels, 560);
    assert_eq!(set.keys, ["axis_scatter", "event_id", "run_id"]);
    let camera = Camera::by_name("taiga-560").unwrap();
    let geometry = set.geometry.as_ref().unwrap();
    assert_eq!(geometry.x_cm, camera.x_cm());
    assert_eq!(geometry.focal_length_cm, Some(FOCAL_LENGTH_CM));
    let origin = file.origin();
    assert!(origin.iter().any(|(name, text)| name == "simulation" && text == NOTICE));
    assert!(origin.iter().any(|(name, text)| name == "class" && text == "gamma"));
    let mut block = crate::data::images::ImageBlock::default();
    let mut reader = file.reader(0).unwrap();
    assert!(reader.next(1000, &mut block).unwrap());
    assert_eq!((block.rows, block.class.as_deref()), (23, Some(&[1i8; 23][..])));
    // Four, three, two and one images of a shower share its key and differ in core position.
    let showers: Vec<(i64, i64)> =
        block.keys[2].iter().copied().zip(block.keys[1].iter().copied()).collect();
    let sizes: Vec<usize> = showers.chunk_by(|a, b| a == b).map(<[_]>::len).collect();
    assert_eq!(sizes, [4, 3, 2, 1, 4, 3, 2, 1, 3]);
    let scatters: std::collections::HashSet<_> = showers.iter().zip(&block.keys[0]).collect();
    assert_eq!(scatters.len(), 23);
    assert!(block.keys[0].iter().all(|scatter| (0..10).contains(scatter)));
    assert!(!reader.next(1000, &mut block).unwrap());
}

#[test]
fn charges_round_trip_within_one_step() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("images.h5");
    let camera = Camera::by_name("taiga-560").unwrap();
    let options = options(&path, Class::Gamma, 10, 7);
    run(&options).unwrap();
    let sigma = pedestal_sigma(&options, 560);
    let thrower = Thrower::new(Class::Gamma, 7, 1.2, &camera, &sigma);
    let drawn = simulate(&thrower, 0..1).unwrap();
    let mut block = crate::data::images::ImageBlock::default();
    ImageFile::open(&path, None).unwrap().reader(0).unwrap().next(10, &mut block).unwrap();
    let mut buffer = Vec::new();
    for (row, event) in drawn.iter().enumerate() {
        let read = block.charge.image(row, 560, &mut buffer);
        for (read, drawn) in read.iter().zip(&event.thrown.charge) {
            assert!((read - drawn).abs() < 0.051, "{read} {drawn}");
        }
    }
}

#[test]
fn every_image_triggers_and_is_in_range() {
    for class in [Class::Gamma, Class::Hadron] {
        for image in thrown(class, 0..60).into_iter().flatten() {
            assert!(image.charge.iter().all(|q| q.is_finite()));
            assert!(image.charge.iter().filter(|q| **q > 15.0).count() >= 2);
            assert!((2.0..=400.0).contains(&image.energy_tev));
            assert!((0.0..=0.4).contains(&image.impact_km));
            assert!((image.source[0].hypot(image.source[1]) - 1.2).abs() < 1e-9);
        }
    }
}

/// Checks the whole pipeline: images, their parameters, and known properties of these.
#[test]
fn gammas_point_to_the_source_and_hadrons_do_not() {
    let folder = tempfile::tempdir().unwrap();
    let extracted = |class: Class| {
        let images = folder.path().join(format!("{class}.h5"));
        run(&Options { camera: "taiga-595".to_string(), ..options(&images, class, 1500, 11) })
            .unwrap();
        let output = folder.path().join(format!("{class}-hillas"));
        let options =
            extract::Options { inputs: vec![images], output: output.clone(), ..Default::default() };
        let summary =
            extract::run(&crate::comm::SingleRank, &options, &StopFlag::default()).unwrap();
        assert_eq!(summary.images, 1500);
        let file = hdf5::File::open(output.join(format!("{class}.h5"))).unwrap();
        let size = file.dataset("events/size").unwrap().read_raw::<f32>().unwrap();
        ["alpha", "width", "length", "skewness"].map(|name| {
            let values =
                file.dataset(&format!("events/{name}")).unwrap().read_raw::<f32>().unwrap();
            let bright =
                values.iter().zip(&size).filter(|(v, size)| **size > 150.0 && v.is_finite());
            let mut values: Vec<f32> = bright.map(|(value, _)| *value).collect();
            values.sort_by(f32::total_cmp);
            values[values.len() / 2]
        })
    };
    let [alpha, width, length, skewness] = extracted(Class::Gamma);
    let [alpha_h, width_h, length_h, _] = extracted(Class::Hadron);
    println!("gamma {alpha} {width} {length} {skewness}, hadron {alpha_h} {width_h} {length_h}");
    assert!(alpha < 15.0 && (30.0..55.0).contains(&alpha_h));
    assert!(width_h > 1.15 * width && length_h > 1.0 * length);
    assert!(width < 0.7 * length && skewness > 0.0);
}

#[test]
fn wrong_options_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.h5");
    let good = options(&path, Class::Gamma, 10, 1);
    let wrong = [
        Options { events: 0, ..good.clone() },
        Options { camera: "taiga-600".to_string(), ..good.clone() },
        Options { noise_pe: f64::NAN, ..good.clone() },
        Options { noise_pe: -1.0, ..good.clone() },
        Options { offset_deg: 5.0, ..good.clone() },
    ];
    for options in wrong {
        assert_eq!(run(&options).unwrap_err().exit_code(), 2, "{options:?}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    run(&good).unwrap();
    assert_eq!(run(&good).unwrap_err().exit_code(), 2);
}
