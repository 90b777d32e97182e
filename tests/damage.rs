//! Damaged and hostile files are never loaded without an error, and never cause a crash, a hang or
//! unlimited memory use.

use crate::support::{
    arguments, folder, fuzz, print_line, program, repetitions, run, seed, simulated, succeed,
    trained,
};
use std::collections::BTreeMap;
use std::path::Path;
use taiga_flow::comm::SingleRank;
use taiga_flow::config::{self, Class, Hardware, SeasonSettings};
use taiga_flow::data::images::{ImageBlock, ImageFile, camera_file};
use taiga_flow::data::schema::expression::Expression;
use taiga_flow::data::{Schema, text};
use taiga_flow::engine::{RankResources, Scorer};
use taiga_flow::hillas::{Camera, FOCAL_LENGTH_CM};
use taiga_flow::model::{Card, Model};
use taiga_flow::score::{Summary, verify};
use taiga_flow::train::run::checkpoint::{self, CheckpointIdentity};
use taiga_flow::train::state::TrainState;
use taiga_flow_gpu::random::Stream;

const INPUT: i32 = 3;
const PARTIAL: i32 = 4;

#[test]
fn damaged_model_file_never_loads_silently() {
    let whole = std::fs::read(&trained().model).expect("a model");
    let model = Model::from_bytes(&whole).expect("a model");
    for cut in (0..whole.len()).step_by(512).chain([whole.len() - 1]) {
        assert!(Model::from_bytes(&whole[..cut]).is_err(), "cut at {cut}");
    }
    let stream = Stream::new(seed(), "flips", &[]);
    let (flips, mut harmless) = (repetitions(1000, 100_000) as u64, 0);
    for flip in 0..flips {
        let at = (stream.bits(2 * flip) % whole.len() as u64) as usize;
        let by = (stream.bits(2 * flip + 1) % 255 + 1) as u8;
        let mut flipped = whole.clone();
        flipped[at] ^= by;
        // Spaces pad the header: another whitespace character there changes nothing.
        match Model::from_bytes(&flipped) {
            Err(error) => {
                assert_eq!(i32::from(error.exit_code()), INPUT, "byte {at} by {by}: {error}");
            }
            Ok(found) => {
                assert!(found == model && whole[at] == b' ', "byte {at} by {by} was not detected");
                harmless += 1;
            }
        }
    }
    print_line(&format!("model file: {flips} flips, {harmless} of them of one blank to another"));
}

#[test]
fn damaged_model_is_refused_by_name() {
    let folder = folder();
    let whole = std::fs::read(&trained().model).expect("a model");
    let path = folder.path().join("model.safetensors");
    let (gamma, output) = (&trained().gamma, folder.path().join("output"));
    let mut flipped = whole.clone();
    flipped[whole.len() - 100] ^= 4;
    for bytes in [&whole[..whole.len() / 2], &flipped, b"", &whole[..7]] {
        std::fs::write(&path, bytes).expect("a file");
        for command in [
            arguments!["score", "-m", &path, "-o", &output, gamma].to_vec(),
            arguments!["evaluate", "-m", &path, "-o", &output, "--gamma", gamma].to_vec(),
        ] {
            let outcome = run(&mut program(&command));
            assert_eq!(outcome.code, Some(INPUT), "{}", outcome.stderr);
            assert!(outcome.stderr.contains("model.safetensors"), "{}", outcome.stderr);
        }
    }
}

#[test]
fn fuzz_model_file() {
    let model = Model::load(&trained().model).expect("a model").0;
    let small = std::fs::read(&trained().model).expect("a model");
    fuzz("model", seed(), &[small], |bytes| {
        if let Ok(found) = Model::from_bytes(bytes) {
            assert_eq!(found, model, "altered, but not detected");
        }
    });
}

fn state(parameters: usize) -> TrainState {
    let mut state = TrainState::new((0..parameters).map(|i| i as f32 / 7.0).collect(), 1, 4);
    state.progress.step = 3;
    state.progress.best[0].nll = Some(1.5);
    state
}

#[test]
fn fuzz_checkpoint() {
    // The contents without their checksums, which would refuse nearly all changes.
    let (weights, progress) = state(9).to_bytes().expect("bytes");
    let corpus = [weights.clone(), progress.clone()];
    fuzz("checkpoint contents", seed(), &corpus, |bytes| {
        let _ = TrainState::from_bytes(bytes, &progress, 9);
        let _ = TrainState::from_bytes(&weights, bytes, 9);
    });
    // The folder on disk.
    let folder = in_memory();
    let identity = CheckpointIdentity { run_hash: "abc", engine: "cpu", shards: 4 };
    checkpoint::save(folder.path(), &state(9), identity, 1).expect("a checkpoint");
    let path = folder.path().join("step-3/manifest.json");
    let whole = std::fs::read(&path).expect("a manifest");
    log::set_max_level(log::LevelFilter::Off);
    fuzz("checkpoint manifest", seed(), &[whole], |bytes| {
        std::fs::write(&path, bytes).expect("a manifest");
        if let Ok(Some(found)) = checkpoint::newest(folder.path(), identity, 9, false) {
            assert_eq!(found, state(9));
        }
    });
}

#[test]
fn fuzz_configuration() {
    let configs = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs");
    let mut corpus = vec![std::fs::read(&trained().configuration).expect("one")];
    for name in ["quickstart.toml", "reference-study.toml", "magic.toml"] {
        corpus.push(std::fs::read(configs.join(name)).expect("one"));
    }
    fuzz("configuration", seed(), &corpus, |bytes| {
        let Ok(text) = std::str::from_utf8(bytes) else { return };
        if let Ok(config) = config::parse(text, &[]) {
            // An accepted configuration can be written and read again.
            let written = config.to_toml().expect("TOML");
            assert_eq!(config::parse(&written, &[]).expect("the same"), config);
        }
    });
}

#[test]
fn fuzz_csv_table() {
    let rows = "28.8,16.0,2.6,0.39,0.2,27.7,22.0,-8.2,40.1,81.9,g\n\
                31.6,11.7,2.5,0.53,0.38,26.3,23.8,-9.9,6.4,205.3,h\n";
    let corpus = [rows.as_bytes().to_vec(), rows.repeat(40).replace('\n', "\r\n").into_bytes()];
    let folder = in_memory();
    let path = folder.path().join("table.csv");
    fuzz("CSV table", seed(), &corpus, |bytes| {
        std::fs::write(&path, bytes).expect("a table");
        let Ok(dialect) = text::detect(&path) else { return };
        let Ok(mut rows) = text::TextRows::open(&path, &dialect, [7; 32], None) else { return };
        let (mut columns, mut read) = (text::ParsedColumns::default(), 0);
        while let Ok(true) = rows.read(&mut columns) {
            read += columns.rows;
            assert!(columns.values.iter().flatten().all(|value| value.is_finite()));
        }
        assert!(read <= bytes.len());
    });
}

/// Creates a folder in memory where possible, because it gets a million small files.
fn in_memory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| folder())
}

/// The card without its checksum, which is recomputed for every card that can be parsed.
#[test]
fn fuzz_model_card() {
    let model = Model::load(&trained().model).expect("a model").0;
    let whole = model.to_bytes().expect("bytes");
    let place = RankResources::new(&SingleRank, Hardware { threads: 1, ..Hardware::default() })
        .expect("a place");
    let length_of_header = u64::from_le_bytes(whole[..8].try_into().expect("8 bytes")) as usize;
    let header: serde_json::Value =
        serde_json::from_slice(&whole[8..8 + length_of_header]).expect("JSON");
    let card = header["__metadata__"]["taiga-flow"].as_str().expect("a card").to_string();
    fuzz("model card", seed(), &[card.into_bytes()], |bytes| {
        let Ok(card) = serde_json::from_slice::<Card>(bytes) else { return };
        let text = serde_json::to_string(&with_checksum(card, &model.flows)).expect("JSON");
        let mut header = header.clone();
        header["__metadata__"]["taiga-flow"] = text.into();
        let header = header.to_string();
        let length = (header.len() as u64).to_le_bytes();
        let weights = &whole[8 + length_of_header..];
        let file = [&length[..], header.as_bytes(), weights].concat();
        if let Ok(found) = Model::from_bytes(&file) {
            let _ = Scorer::new(found, &place);
        }
    });
}

/// Returns a card with its correct checksum (see docs/src/reference/formats/model.md).
fn with_checksum(card: Card, flows: &BTreeMap<String, Vec<f32>>) -> Card {
    let card = Card { checksum: String::new(), ..card };
    let mut hasher = blake3::Hasher::new();
    hasher.update(&serde_json::to_vec(&card).expect("JSON"));
    for params in flows.values() {
        let bytes: Vec<u8> = params.iter().flat_map(|p| p.to_le_bytes()).collect();
        hasher.update(&bytes);
    }
    Card { checksum: hasher.finalize().to_hex().to_string(), ..card }
}

/// Writes a folder of score tables, and returns the paths of its ledger and manifest.
fn scored(folder: &Path) -> [std::path::PathBuf; 2] {
    let archive = folder.join("archive");
    for i in 0..3 {
        simulated(archive.join(format!("{i}.h5")), config::Class::Gamma, 20, seed() + i);
    }
    let output = folder.join("scores");
    let score = arguments!["score", "-m", &trained().model, "-o", &output, &archive];
    succeed(&mut program(&[&score[..], &arguments!["--format", "csv"]].concat()));
    [output.join("ledger/1-of-1.jsonl"), output.join("manifest.json")]
}

#[test]
fn fuzz_scoring_ledger() {
    let folder = in_memory();
    let [ledger, manifest] = scored(folder.path());
    let output = manifest.parent().expect("a folder");
    let whole = std::fs::read(&ledger).expect("a ledger");
    let files = Summary::read(&manifest).expect("a manifest").expect("one").files;
    let lines: Vec<&str> = std::str::from_utf8(&whole).expect("a text").lines().collect();
    fuzz("scoring ledger", seed(), std::slice::from_ref(&whole), |bytes| {
        std::fs::write(&ledger, bytes).expect("a ledger");
        let found = verify::verify(&SingleRank, output).expect("a verification");
        // A changed or lost line is reported, unless no valid line is left. A torn last line leaves
        // a file without a line.
        let text = String::from_utf8_lossy(bytes);
        let all = files.iter().all(|file| text.contains(&file.output_blake3));
        let none = !text.lines().any(|line| lines.contains(&line));
        assert!(!found.wrong.is_empty() || !found.unrecorded.is_empty() || all || none);
    });
}

#[test]
fn fuzz_scoring_manifest() {
    let folder = in_memory();
    let [_, manifest] = scored(folder.path());
    let output = manifest.parent().expect("a folder");
    let whole = std::fs::read(&manifest).expect("a manifest");
    // The manifest of a shard has the same format.
    fuzz("scoring manifest", seed(), &[whole], |bytes| {
        std::fs::write(&manifest, bytes).expect("a manifest");
        match verify::verify(&SingleRank, output) {
            Ok(found) => assert!(found.files < 1000),
            Err(error) => assert_eq!(i32::from(error.exit_code()), INPUT, "{error}"),
        }
    });
}

#[test]
fn manifest_naming_outside_file_is_refused() {
    let folder = folder();
    let [_, manifest] = scored(folder.path());
    let text = std::fs::read_to_string(&manifest).expect("a manifest");
    for outside in ["/dev/zero", "../archive/0.h5", "a/../../b.csv"] {
        std::fs::write(&manifest, text.replace("0.csv", outside)).expect("a manifest");
        let outcome = run(program(&arguments!["verify"]).arg(manifest.parent().expect("a folder")));
        assert_eq!(outcome.code, Some(INPUT), "{}", outcome.stderr);
        for part in ["manifest.json", "outside of its folder", outside] {
            assert!(outcome.stderr.contains(part), "'{part}' is not in: {}", outcome.stderr);
        }
    }
}

#[test]
fn fuzz_cleaned_image_text() {
    let pixels = |shift: f64| {
        let line = |i: i32| {
            format!(
                "{} {i} {:.3} {:.3} {:.2}\n",
                i / 7,
                3.0 * f64::from(i) + shift,
                5.196 * f64::from(i % 4),
                7.0 + f64::from(i)
            )
        };
        (0..9).map(line).collect::<String>()
    };
    let plain = format!("1 17 0 9 12.5\n{}2 18 1 9 3.25\n{}", pixels(0.0), pixels(9.0));
    let wide = format!("1 17 0 9 2.5e12 10.0 -3.5 120 80 0.1 0.2\n{}", pixels(0.0));
    let corpus =
        [plain.clone().into_bytes(), wide.into_bytes(), plain.replace('\n', "\r\n").into_bytes()];
    let camera: (Vec<f64>, Vec<f64>) =
        (0..12).map(|i| (3.0 * f64::from(i), 5.196 * f64::from(i % 4))).unzip();
    let folder = in_memory();
    let path = folder.path().join("images.txt");
    fuzz("cleaned-image text", seed(), &corpus, |bytes| {
        std::fs::write(&path, bytes).expect("a text");
        for camera in [None, Some((&camera.0[..], &camera.1[..]))] {
            let Ok(file) = ImageFile::open(&path, camera) else { continue };
            for (index, set) in file.sets().iter().enumerate() {
                let Ok(mut reader) = file.reader(index) else { continue };
                let (mut block, mut images) = (ImageBlock::default(), 0);
                while let Ok(true) = reader.next(64, &mut block) {
                    images += block.rows;
                    assert_eq!(block.given.len(), block.rows * set.pixels);
                    assert!(block.keys.iter().all(|key| key.len() == block.rows));
                }
                // An image has at least one line.
                assert!(images <= bytes.len() / 2);
            }
        }
    });
}

#[test]
fn fuzz_camera_text() {
    let lines = |count: u32, line: &dyn Fn(u32) -> String| -> String {
        (0..count).map(line).collect::<Vec<_>>().join("\n") + "\n"
    };
    let positions = lines(40, &|i| {
        format!("{:.2}\t{:.3} # pixel", 3.0 * f64::from(i % 7), 2.598 * f64::from(i / 7))
    });
    let taiga = lines(20, &|i| {
        let (x, y) = (1.5 * f64::from(i), f64::from(i % 3));
        format!("{} {} {i} {x:.2} {y:.2} 0 0 0", i / 7, i % 7)
    });
    let folder = in_memory();
    let path = folder.path().join("camera.txt");
    fuzz("camera text", seed(), &[positions.into_bytes(), taiga.into_bytes()], |bytes| {
        std::fs::write(&path, bytes).expect("a text");
        if let Ok(found) = camera_file(&path) {
            assert_eq!(found.x_cm.len(), found.y_cm.len());
            let _ = Camera::new(found.x_cm, found.y_cm, FOCAL_LENGTH_CM);
        }
    });
}

#[test]
fn fuzz_season_settings() {
    let configs = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/season/season.toml");
    let commented = std::fs::read_to_string(configs).expect("settings");
    // The same settings with every key active.
    let is_key = |line: &&str| line.starts_with('[') || line.contains(" = ");
    let plain = commented.lines().map(|line| line.trim_start_matches("# "));
    let all = plain.filter(is_key).collect::<Vec<&str>>().join("\n");
    let corpus = [commented.into_bytes(), all.into_bytes()];
    fuzz("season settings", seed(), &corpus, |bytes| {
        let Ok(text) = std::str::from_utf8(bytes) else { return };
        if let Ok(settings) = SeasonSettings::parse(text) {
            settings.validate().expect("accepted settings");
            for pair in settings.energy.edges.windows(2) {
                let thrown = settings.simulation.as_ref().map(|s| s.between(pair[0], pair[1]));
                assert!(thrown.is_none_or(|n| n.is_nan() || n >= 0.0));
            }
        }
    });
}

#[test]
fn fuzz_schema() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/schema");
    let names = std::fs::read_dir(folder).expect("schemas").flatten();
    let corpus: Vec<Vec<u8>> =
        names.map(|entry| std::fs::read(entry.path()).expect("one")).collect();
    assert!(corpus.len() > 8);
    fuzz("schema", seed(), &corpus, |bytes| {
        let Ok(text) = std::str::from_utf8(bytes) else { return };
        if let Ok(schema) = Schema::parse(text, "fuzz") {
            let _ = schema.text_columns();
        }
    });
}

#[test]
fn fuzz_expression() {
    let corpus = [
        "0.068*log10(size) - 0.047",
        "sqrt((xc - source_x)^2 + (yc - source_y)^2) * 57.29578 / 475",
        "-min(abs(-a), max(1e-3, exp(-(b / c) ^ 2))) + ((((1))))",
    ];
    let corpus = corpus.map(|text| text.as_bytes().to_vec());
    fuzz("expression", seed(), &corpus, |bytes| {
        let Ok(text) = std::str::from_utf8(bytes) else { return };
        if let Ok(expression) = Expression::parse(text) {
            let values = vec![0.5; expression.variables().len()];
            let value = expression.evaluate(&values);
            // A parsed expression has the same value when its text is parsed again.
            let again = Expression::parse(expression.text()).expect("the same").evaluate(&values);
            assert_eq!(value.to_bits(), again.to_bits());
        }
    });
}

/// Writes a copy of an event file in which the object header of one column is damaged.
fn with_damaged_header(events: &Path, copy: &Path, column: &str) {
    let whole = std::fs::read(events).expect("an event file");
    let opens = |name: &str| {
        let file = hdf5::File::open(copy).expect("a file");
        file.dataset(&format!("events/{name}")).is_ok()
    };
    let headers = whole.windows(4).enumerate().filter(|(_, bytes)| bytes == b"OHDR");
    for (at, _) in headers {
        let mut damaged = whole.clone();
        damaged[at + 20] ^= 0xff;
        std::fs::write(copy, damaged).expect("a copy");
        let is_open = std::panic::catch_unwind(|| (opens(column), opens("size")));
        if is_open.is_ok_and(|(own, other)| !own && (other || column == "size")) {
            return;
        }
    }
    panic!("no header of {column}");
}

#[test]
fn key_with_a_damaged_header_fails_its_file() {
    let folder = folder();
    let input = folder.path().join("archive");
    let good = simulated(input.join("good.h5"), Class::Hadron, 300, seed());
    for column in ["event_id", "run_id", "class", "skewness"] {
        let bad = input.join(format!("{column}.h5"));
        with_damaged_header(&good, &bad, column);
        let output = folder.path().join(column);
        let score = arguments!["score", "-m", &trained().model, "-o", &output, &good, &bad];
        let outcome = run(&mut program(&score));
        assert_eq!(outcome.code, Some(PARTIAL), "{column}: {}", outcome.stderr);
        let manifest = std::fs::read_to_string(output.join("manifest.json")).expect("a manifest");
        assert!(manifest.contains(&format!("events/{column}")), "{manifest}");
        assert!(output.join("good.h5").exists() && !output.join(format!("{column}.h5")).exists());
        let checked = run(&mut program(&arguments!["check", &bad]));
        assert_eq!(checked.code, Some(INPUT), "{column}: {}", checked.stdout);
    }
}
