//! Images become Hillas parameters: the values of ctapipe, one row per image in order, and the
//! same bytes on any number of ranks and threads, from every kind of file.

use crate::support::{
    Outcome, arguments, folder, hash, json, program, ranks, run, seed, succeed, tree,
};
use std::path::{Path, PathBuf};
use taiga_flow::data::images::{ImageBlock, ImageFile};
use taiga_flow::hillas::{
    Camera, Cleaner, Cleaning, CleaningThresholds, ImagePixels, Parameters, ThresholdComparison,
};
use taiga_flow_gpu::random::Stream;

/// Writes toy images by the program itself.
fn images(path: &Path, class: &str, events: u64, seed: u64) -> PathBuf {
    succeed(&mut program(&arguments![
        "simulate",
        "--level",
        "images",
        "-o",
        path,
        "--class",
        class,
        "--events",
        events.to_string(),
        "--seed",
        seed.to_string()
    ]));
    path.to_path_buf()
}

fn column(path: &Path, name: &str) -> Vec<f32> {
    let file = hdf5::File::open(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let dataset = file.dataset(&format!("events/{name}")).unwrap_or_else(|e| panic!("{name}: {e}"));
    dataset.read_raw().expect("values")
}

fn status(path: &Path) -> Vec<u32> {
    let file = hdf5::File::open(path).expect("an event file");
    file.dataset("events/status").and_then(|d| d.read_raw()).expect("status")
}

/// Compares cleaning and parameters with ctapipe, pixel by pixel and parameter by parameter, and
/// tests where TAIGA's rule differs. The script `tests/independent/hillas_reference.py` describes
/// how the reference numbers were made.
#[test]
fn cleaning_and_parameters_equal_ctapipe() {
    let folder = folder();
    let reference = include_str!("independent/hillas_reference.txt");
    let mut lines = reference.lines().filter(|line| !line.starts_with('#'));
    let at_least = Cleaning { comparison: ThresholdComparison::AtLeast, ..Cleaning::default() };
    let (mut compared, mut ties) = (0, 0);
    for class in ["gamma", "hadron"] {
        let path = images(&folder.path().join(format!("{class}.h5")), class, 60, 7);
        let mut block = ImageBlock::default();
        ImageFile::open(&path, None)
            .and_then(|file| file.reader(0)?.next(60, &mut block))
            .expect("images");
        let camera = Camera::by_name("taiga-595").expect("a camera");
        let mut buffer = Vec::new();
        for row in 0..60 {
            let charge = block.charge.image(row, 595, &mut buffer);
            let fields: Vec<&str> = lines.next().expect("a line").split(' ').collect();
            let sum: f64 = charge.iter().map(|q| f64::from(*q)).sum();
            let expected: f64 = fields[0].parse().expect("a sum");
            assert!(
                (sum - expected).abs() < 1e-3,
                "the images have changed: create the reference again"
            );
            let mut found = ImagePixels::default();
            Cleaner::new(at_least, 595).clean(&camera, charge, &[], &mut found);
            let kept: Vec<String> = found.kept.iter().map(u16::to_string).collect();
            let kept = if kept.is_empty() { "-".to_string() } else { kept.join(",") };
            assert_eq!(kept, fields[1], "{class} {row}");
            // The two rules differ only for charges exactly on a threshold.
            let mut strictly = ImagePixels::default();
            Cleaner::new(Cleaning::default(), 595).clean(&camera, charge, &[], &mut strictly);
            let on_a_threshold = |q: &f32| [7.0f32, 14.0].contains(q);
            if strictly.kept != found.kept {
                assert!(charge.iter().any(on_a_threshold), "{class} {row}");
                ties += 1;
            }
            if fields.len() < 3 {
                continue;
            }
            let expected: Vec<f64> =
                fields[2..].iter().map(|x| x.parse().expect("a number")).collect();
            let image = Parameters::of(&camera, charge, &found.kept);
            let near = |found: f64, expected: f64, what: &str| {
                let same = (found - expected).abs() <= 1e-4 * expected.abs().max(1e-3);
                assert!(same, "{class} {row} {what}: {found}, ctapipe {expected}");
            };
            near(image.size, expected[0], "size");
            near(image.x, expected[1], "x");
            near(image.y, expected[2], "y");
            if image.pixels < 3 {
                continue;
            }
            near(image.length, expected[3], "length");
            // ctapipe's width of a line is a rounding error; ours is 0.
            if image.width > 0.0 {
                near(image.width, expected[4], "width");
            } else {
                assert!(expected[4] < 1e-6, "{class} {row}: {}", expected[4]);
            }
            let turn = (image.axis_deg() - expected[5]).rem_euclid(180.0);
            assert!(turn.min(180.0 - turn) < 1e-4, "{class} {row}: {}", image.axis_deg());
            near(image.skewness.abs(), expected[6].abs(), "skewness");
            near(image.kurtosis, expected[7], "kurtosis");
            compared += 1;
        }
    }
    println!("{compared} images compared, {ties} with charges on a threshold");
    assert!(compared > 80);
}

#[test]
fn images_have_one_row_on_any_ranks_and_threads() {
    let folder = folder();
    let archive = folder.path().join("night 1");
    for (i, events) in [1u64, 37, 300].into_iter().enumerate() {
        let class = ["gamma", "hadron"][i % 2];
        std::fs::create_dir_all(&archive).expect("a folder");
        images(&archive.join(format!("run {i}.h5")), class, events, seed());
    }
    let output = folder.path().join("one");
    let report = json(&arguments!["extract", "-o", &output, "--threads", "1", &archive]);
    assert_eq!(report["images"], 338);
    assert_eq!(report["files"].as_array().map(Vec::len), Some(3));
    let expected = tree(&output);
    for count in [1usize, 2, 3] {
        let output = folder.path().join(format!("of {count}"));
        let command = arguments!["extract", "-o", &output, "--threads", "3", &archive];
        succeed(&mut ranks(count, &command));
        assert_eq!(tree(&output), expected, "{count} ranks");
    }
    for (i, events) in [1usize, 37, 300].into_iter().enumerate() {
        let (input, output) =
            (archive.join(format!("run {i}.h5")), output.join(format!("run {i}.h5")));
        let keys = |path: &Path, name: &str| -> Vec<i64> {
            let file = hdf5::File::open(path).expect("a file");
            file.dataset(&format!("events/{name}")).and_then(|d| d.read_raw()).expect("keys")
        };
        for name in ["run_id", "event_id", "axis_scatter"] {
            assert_eq!(keys(&input, name), keys(&output, name));
            assert_eq!(keys(&output, name).len(), events);
        }
        assert_eq!(column(&input, "energy"), column(&output, "energy"));
    }
    // The output can be checked and used for training without changes.
    let report = json(&arguments!["check", &output.join("run 2.h5")]);
    assert_eq!(report["files"][0]["contents"]["shower"][0], "run_id");
}

#[test]
fn unparametrised_images_are_rows_with_reason() {
    let folder = folder();
    let path = images(&folder.path().join("images.h5"), "gamma", 30, seed());
    {
        let file = hdf5::File::open_rw(&path).expect("images");
        let charge = file.dataset("images/charge").expect("charges");
        let mut values: Vec<u16> = charge.read_raw().expect("values");
        values[5 * 595..6 * 595].fill(2000); // 0 p.e. everywhere
        charge.write_raw(&values).expect("values");
    }
    let output = folder.path().join("hillas");
    let report = json(&arguments!["extract", "-o", &output, &path]);
    assert_eq!(report["files"][0]["status"]["no pixel survived"], 1);
    let output = output.join("images.h5");
    assert_eq!(status(&output)[5] & 1, 1);
    assert_eq!((column(&output, "size")[5], column(&output, "num_pixels")[5]), (0.0, 0.0));
    assert!(column(&output, "width")[5].is_nan() && column(&output, "alpha")[5].is_nan());
    assert!(column(&output, "size").iter().enumerate().all(|(i, size)| i == 5 || *size > 0.0));
}

#[test]
fn off_positions_and_random_sources_as_requested() {
    let folder = folder();
    let path = images(&folder.path().join("images.h5"), "hadron", 40, seed());
    let output = folder.path().join("off");
    json(&arguments!["extract", "-o", &output, "--positions", "6", &path]);
    let file = output.join("images.h5");
    assert_eq!(column(&file, "alpha_off3"), column(&file, "alpha_anti"));
    let output = folder.path().join("random");
    json(&arguments!["extract", "-o", &output, "--random-source", "0.9", &path]);
    let file = output.join("images.h5");
    let (x, y) = (column(&file, "source_x"), column(&file, "source_y"));
    let (xc, yc, dist) = (column(&file, "xc"), column(&file, "yc"), column(&file, "dist"));
    for i in 0..40 {
        assert!((x[i].hypot(y[i]) - 0.9).abs() < 1e-5);
        if xc[i].is_finite() {
            assert!(((xc[i] - x[i]).hypot(yc[i] - y[i]) - dist[i]).abs() < 1e-4);
        }
    }
    assert!(x.windows(2).any(|pair| (pair[0] - pair[1]).abs() > 1e-3));
}

/// A file by ctapipe's own writer (`make_dl1.py`): two telescopes, fixed point.
#[test]
fn ctapipe_dl1_files_are_read_with_cameras() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/independent/ctapipe-dl1.h5");
    let folder = folder();
    let output = folder.path().join("out");
    let report = json(&arguments!["extract", "-o", &output, "--compare", "at-least", &path]);
    assert_eq!(report["images"], 13);
    let file = ImageFile::open(&path, None).expect("images");
    assert_eq!(file.sets().iter().map(|set| set.pixels).collect::<Vec<_>>(), [91, 127]);
    let geometry = file.sets()[1].geometry.as_ref().expect("a camera");
    assert!((geometry.focal_length_cm.expect("a length") - 565.6).abs() < 1e-6);
    // Results of ctapipe's `tailcuts_clean` and `hillas_parameters` for these images: size,
    // length, width and x; lengths are angles by the effective focal length.
    let reference: [[f32; 4]; 13] = [
        [1509.6, 0.823_683, 0.441_608, 0.171_738],
        [2237.4, 0.838_479, 0.722_992, 0.075_767_7],
        [493.2, 0.550_585, 0.258_711, 0.629_251],
        [2142.0, 0.839_175, 0.547_088, 0.215_607],
        [2835.3, 0.903_473, 0.738_422, 0.041_100_5],
        [815.6, 0.695_402, 0.334_027, -0.376_055],
        [2073.9, 1.445_64, 0.862_628, 0.831_645],
        [1005.2, 1.169_47, 0.465_585, 0.390_284],
        [1018.7, 0.969_441, 0.496_98, -1.888_86],
        [2493.4, 1.467_37, 1.039_71, -0.215_235],
        [1893.1, 1.307_71, 0.904_374, 1.246_78],
        [1996.1, 1.348_15, 0.868_123, -0.291_505],
        [429.7, 0.667_424, 0.404_528, -1.189_94],
    ];
    for (place, name) in ["size", "length", "width", "xc"].into_iter().enumerate() {
        let found = column(&output.join("ctapipe-dl1.h5"), name);
        assert_eq!(found.len(), 13);
        for (found, reference) in found.iter().zip(reference.map(|image| image[place])) {
            assert!(
                (found - reference).abs() < 1e-4 * reference.abs(),
                "{name}: {found}, ctapipe {reference}"
            );
        }
    }
    let tel: Vec<i64> = hdf5::File::open(output.join("ctapipe-dl1.h5"))
        .and_then(|file| file.dataset("events/tel_id")?.read_raw())
        .expect("telescopes");
    assert_eq!(tel.iter().filter(|tel| **tel == 7).count(), 7);
}

/// Returns cleaned images as text in the format of TAIGA's program: it must give the same
/// parameters.
fn as_text(path: &Path, camera: &Camera, events: u64) -> String {
    use std::fmt::Write;
    let mut block = ImageBlock::default();
    ImageFile::open(path, None)
        .and_then(|file| file.reader(0)?.next(events as usize, &mut block))
        .expect("images");
    let (mut text, mut buffer) = (String::new(), Vec::new());
    let mut cleaner = Cleaner::new(Cleaning::default(), 595);
    for row in 0..block.rows {
        let charge = block.charge.image(row, 595, &mut buffer);
        let mut found = ImagePixels::default();
        cleaner.clean(camera, charge, &[], &mut found);
        let count = found.kept.len();
        let [scatter, event, _] = [0, 1, 2].map(|key| block.keys[key][row]);
        let energy = block.columns[0][row];
        writeln!(
            text,
            "{row:6}{event:7}{scatter:6}{count:6}{energy:13}{:13}{:13}{:13}{:13}{:13}{:13}",
            9.0, -4.0, 12.5, -77.0, 0.5, -1.25
        )
        .expect("text");
        for i in found.kept {
            let (x, y) = (camera.x_cm()[i as usize], camera.y_cm()[i as usize]);
            let q = charge[i as usize];
            writeln!(text, "{} {:9} {x:9.3} {y:9.3} {q:9.3}", i / 28 + 1, i % 28).expect("text");
        }
    }
    text
}

#[test]
fn cleaned_text_gives_parameters_of_its_images() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    let path = images(&at("images.h5"), "gamma", 200, seed());
    let camera = Camera::by_name("taiga-595").expect("a camera");
    std::fs::write(at("clean.txt"), as_text(&path, &camera, 200)).expect("a text");
    json(&arguments!["extract", "-o", &at("direct"), &path]);
    json(&arguments!["extract", "-o", &at("text"), "--camera", "taiga-595", &at("clean.txt")]);
    json(&arguments!["extract", "-o", &at("own"), "--class", "gamma", &at("clean.txt")]);
    let direct = at("direct/images.h5");
    for text in [at("text/clean.h5"), at("own/clean.h5")] {
        for name in ["size", "length", "width", "xc", "con2", "num_pixels", "num_islands", "energy"]
        {
            let (a, b) = (column(&direct, name), column(&text, name));
            for (row, (a, b)) in a.iter().zip(&b).enumerate() {
                let same = (a - b).abs() < 2e-4 * a.abs().max(1.0) || (a.is_nan() && b.is_nan());
                assert!(same, "{name} {row}: {a} {b}");
            }
        }
        let x = column(&text, "source_x");
        assert!(x.iter().all(|x| (x - 9.0 * 0.120_62).abs() < 1e-4));
    }
    assert_eq!(column(&direct, "edge"), column(&at("text/clean.h5"), "edge"));
}

/// Runs a command that must be refused.
fn refused(command: &[std::ffi::OsString], code: i32, expected: &[&str]) -> Outcome {
    let outcome = run(&mut program(command));
    assert_eq!(outcome.code, Some(code), "{}{}", outcome.stdout, outcome.stderr);
    for text in expected {
        assert!(outcome.stderr.contains(text), "'{text}' is not in: {}", outcome.stderr);
    }
    assert!(!outcome.stderr.contains("panicked"), "{}", outcome.stderr);
    outcome
}

#[test]
#[allow(clippy::too_many_lines)] // a list of cases
fn non_image_files_are_refused_with_reason() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    let make = |name: &str, write: &dyn Fn(&hdf5::File)| {
        let file = hdf5::File::create(at(name)).expect("a file");
        write(&file);
    };
    let put = |file: &hdf5::File, name: &str, shape: (usize, usize), value: f32| {
        let (group, dataset) = name.split_once('/').expect("a group");
        let group = file.group(group).or_else(|_| file.create_group(group)).expect("a group");
        let created = group.new_dataset::<f32>().shape(shape).create(dataset).expect("a dataset");
        created.write_raw(&vec![value; shape.0 * shape.1]).expect("values");
    };
    make("no-camera.h5", &|file| put(file, "images/charge", (3, 595), 1.0));
    make("no-images.h5", &|file| put(file, "pictures/charge", (3, 595), 1.0));
    make("no-charge.h5", &|file| put(file, "images/charges", (3, 595), 1.0));
    make("narrow.h5", &|file| put(file, "images/charge", (3, 5), 1.0));
    make("flat.h5", &|file| {
        let group = file.create_group("images").expect("a group");
        group.new_dataset_builder().with_data(&[1.0f32; 50]).create("charge").expect("one");
    });
    make("unwritten.h5", &|file| {
        let group = file.create_group("images").expect("a group");
        group
            .new_dataset::<f32>()
            .shape((1000, 595))
            .chunk((10, 595))
            .create("charge")
            .expect("one");
    });
    make("camera.h5", &|file| {
        put(file, "images/charge", (3, 595), 1.0);
        let group = file.create_group("camera").expect("a group");
        for axis in ["x", "y"] {
            group.new_dataset_builder().with_data(&[1.0f64; 560]).create(axis).expect("one");
        }
    });
    make("wide.h5", &|file| {
        put(file, "images/charge", (3, 595), 1.0);
        let camera = Camera::by_name("taiga-595").expect("a camera");
        let group = file.create_group("camera").expect("a group");
        for (axis, values) in [("x", camera.x_cm()), ("y", camera.y_cm())] {
            let mm: Vec<f64> = values.iter().map(|cm| 10.0 * cm).collect();
            group.new_dataset_builder().with_data(&mm).create(axis).expect("one");
        }
    });
    make("sigma.h5", &|file| {
        put(file, "images/charge", (3, 595), 1.0);
        let group = file.group("images").expect("a group");
        group.new_dataset_builder().with_data(&[1.0f32; 7]).create("pedestal_sigma").expect("one");
    });
    std::fs::write(at("csv.txt"), "por,event_numb\n1,2\n").expect("a text");
    std::fs::write(at("cut.txt"), "0 1 0 3 5.5\n1 1 0.0 0.0 20\n").expect("a text");
    std::fs::write(at("negative.txt"), "0 1 0 1 5.5\n1 1 0.0 0.0 -20\n").expect("a text");
    std::fs::write(at("nan.txt"), "0 1 0 1 5.5\n1 1 0.0 nan 20\n").expect("a text");
    std::fs::write(at("units.txt"), "0 1 0 0 5.5\n1 2 0 0 5.5e12\n").expect("a text");
    std::fs::write(at("absurd.txt"), "0 1 0 99999999999 5.5\n").expect("a text");
    std::fs::write(at("empty.h5"), "").expect("a file");
    let cases: [(&str, &[&str]); 16] = [
        ("no-camera.h5", &["no pixel positions", "--camera"]),
        ("no-images.h5", &["group 'images' not found"]),
        ("no-charge.h5", &["dataset not found", "did you mean 'charges'?"]),
        ("narrow.h5", &["out of range", "3 images of 5 pixels"]),
        ("flat.h5", &["two dimensions", "[50]"]),
        ("unwritten.h5", &["shape and storage", "100 chunks"]),
        ("camera.h5", &["expected 595 pixels", "560"]),
        ("wide.h5", &["too wide", "units"]),
        ("sigma.h5", &["pedestal σ does not fit", "595"]),
        ("csv.txt", &["not the header", "row 1"]),
        ("cut.txt", &["ends within an image"]),
        ("negative.txt", &["not a pixel", "row 2"]),
        ("nan.txt", &["not a pixel", "row 2"]),
        ("units.txt", &["unit of the energy", "row 2"]),
        ("absurd.txt", &["not the header", "row 1"]),
        ("empty.h5", &["empty", "0 bytes"]),
    ];
    for (name, expected) in cases {
        let output = at("out");
        let expected: Vec<&str> = expected.iter().copied().chain([name]).collect();
        let outcome = refused(&arguments!["extract", "-o", &output, &at(name)], 3, &expected);
        assert_eq!(outcome.stdout, "");
        let left = if output.exists() { tree(&output).len() } else { 0 };
        assert_eq!(left, 0, "{name} left a file");
    }
    // With the right camera the first file is accepted; with another camera it is refused.
    let output = at("good");
    json(&arguments!["extract", "-o", &output, "--camera", "taiga-595", &at("no-camera.h5")]);
    let command =
        arguments!["extract", "-o", &at("bad"), "--camera", "taiga-560", &at("no-camera.h5")];
    refused(&command, 3, &["expected 595 pixels", "560 pixels"]);
    let command = arguments![
        "extract",
        "-o",
        &at("bad"),
        "--cleaning",
        "sigma",
        "--camera",
        "taiga-595",
        &at("no-camera.h5")
    ];
    refused(&command, 3, &["no pedestal σ"]);
    let wrong = [
        arguments!["extract", "-o", &at("bad"), "--camera", "taiga-550", &at("no-camera.h5")]
            .to_vec(),
        arguments!["extract", "-o", &at("bad"), "--high", "5", &at("no-camera.h5")].to_vec(),
        arguments!["extract", "-o", &at("bad"), "--positions", "0", &at("no-camera.h5")].to_vec(),
        arguments!["extract", "-o", &output, &at("no-camera.h5")].to_vec(),
    ];
    for command in wrong {
        refused(&command, 2, &[]);
    }
    // One bad file does not stop the others.
    let good = images(&at("good.h5"), "gamma", 5, 1);
    let command = arguments!["extract", "-o", &at("mixed"), &good, &at("narrow.h5")];
    refused(&command, 4, &["1 of 2 files failed", "narrow.h5"]);
    assert_eq!(tree(&at("mixed")).len(), 2);
}

/// Flipped bytes and truncation in every kind of input: refused or read, never a crash.
#[test]
fn damaged_image_files_never_crash() {
    use taiga_flow::comm::{SingleRank, StopFlag};
    use taiga_flow::extract::{Options, run};
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    let own = images(&at("own.h5"), "hadron", 20, 3);
    let text = as_text(&own, &Camera::by_name("taiga-595").expect("a camera"), 20);
    std::fs::write(at("clean.txt"), text).expect("a text");
    let dl1 = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/independent/ctapipe-dl1.h5");
    let stream = Stream::new(seed(), "damage", &[]);
    for (kind, input) in [own, at("clean.txt"), dl1].into_iter().enumerate() {
        let whole = std::fs::read(&input).expect("a file");
        let name = ["own.h5", "clean.txt", "dl1.h5"][kind];
        let (mut refused, mut read) = (0, 0);
        for i in 0..250u64 {
            let at_byte = |n: u64| {
                (stream.bits(1000 * kind as u64 + 4 * i + n) % whole.len() as u64) as usize
            };
            let mut damaged = whole.clone();
            if i % 5 == 0 {
                damaged.truncate(at_byte(0));
            } else {
                damaged[at_byte(1)] = stream.bits(7_000_000 + i) as u8;
                // Headers are at the front.
                let front = at_byte(2) % 4096.min(whole.len());
                damaged[front] ^= 1 << (i % 8);
            }
            let path = at("damaged").join(name);
            std::fs::create_dir_all(at("damaged")).expect("a folder");
            std::fs::write(&path, damaged).expect("a file");
            let options = Options {
                inputs: vec![path],
                output: at("out"),
                overwrite: true,
                ..Options::default()
            };
            match run(&SingleRank, &options, &StopFlag::default()) {
                Ok(_) => read += 1,
                Err(error) => {
                    assert!([3, 5].contains(&error.exit_code()), "{name} {i}: {error}");
                    refused += 1;
                }
            }
        }
        println!("{name}: {refused} refused, {read} read");
        assert!(refused > 20);
    }
}

#[test]
fn same_input_gives_same_bytes() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    let path = images(&at("images.h5"), "gamma", 50, seed());
    for name in ["a", "b"] {
        json(&arguments!["extract", "-o", &at(name), &path]);
    }
    assert_eq!(hash(&at("a/images.h5")), hash(&at("b/images.h5")));
    let sigma = Cleaning {
        thresholds: CleaningThresholds::Sigma { high: 6.0, low: 3.0 },
        ..Cleaning::default()
    };
    assert!(sigma.needs_sigma());
    json(&arguments!["extract", "-o", &at("sigma"), "--cleaning", "sigma", &path]);
    assert_ne!(hash(&at("a/images.h5")), hash(&at("sigma/images.h5")));
}
