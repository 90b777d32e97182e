//! Damaged and hostile files: never loaded silently, never a crash, a hang, or memory
//! without bound.

use crate::support::{arguments, count, folder, fuzz, program, report, run, seed, trained};
use std::path::Path;
use taiga_flow::config;
use taiga_flow::data::csv;
use taiga_flow::model::Model;
use taiga_flow::train::checkpoint::{self, Identity};
use taiga_flow::train::state::TrainState;
use taiga_flow_gpu::random::Stream;

const INPUT: i32 = 3;

#[test]
fn a_model_file_truncated_anywhere_or_with_any_byte_flipped_is_never_loaded_silently() {
    let whole = std::fs::read(&trained().model).expect("a model");
    let model = Model::from_bytes(&whole).expect("a model");
    for cut in (0..whole.len()).step_by(512).chain([whole.len() - 1]) {
        assert!(Model::from_bytes(&whole[..cut]).is_err(), "cut at {cut}");
    }
    let stream = Stream::new(seed(), "flips", &[]);
    let (flips, mut harmless) = (count(1000, 100_000) as u64, 0);
    for flip in 0..flips {
        let at = (stream.bits(2 * flip) % whole.len() as u64) as usize;
        let by = (stream.bits(2 * flip + 1) % 255 + 1) as u8;
        let mut flipped = whole.clone();
        flipped[at] ^= by;
        // Blanks pad the header: another kind of blank there changes nothing.
        match Model::from_bytes(&flipped) {
            Err(error) => {
                assert_eq!(i32::from(error.exit_code()), INPUT, "byte {at} by {by}: {error}");
            }
            Ok(found) => {
                assert!(found == model && whole[at] == b' ', "byte {at} by {by} was not noticed");
                harmless += 1;
            }
        }
    }
    report(&format!("model file: {flips} flips, {harmless} of them of one blank to another"));
}

#[test]
fn a_damaged_model_is_refused_by_the_commands_with_its_name() {
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
            assert_eq!(found, model, "altered, and not noticed");
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
    // The contents, past the checksums that would refuse nearly all changes.
    let (weights, progress) = state(9).to_bytes().expect("bytes");
    let corpus = [weights.clone(), progress.clone()];
    fuzz("checkpoint contents", seed(), &corpus, |bytes| {
        let _ = TrainState::from_bytes(bytes, &progress, 9);
        let _ = TrainState::from_bytes(&weights, bytes, 9);
    });
    // The folder as it lies on disk.
    let folder = in_memory();
    let identity = Identity { run_hash: "abc", engine: "cpu", shards: 4 };
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
            // What is accepted can be written and read again.
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
        let Ok(dialect) = csv::detect(&path) else { return };
        let Ok(mut rows) = csv::Rows::open(&path, &dialect, [7; 32], None) else { return };
        let (mut columns, mut read) = (csv::Columns::default(), 0);
        while let Ok(true) = rows.read(&mut columns) {
            read += columns.rows;
            assert!(columns.values.iter().flatten().all(|value| value.is_finite()));
        }
        assert!(read <= bytes.len());
    });
}

/// A folder in memory where there is one: a million small files.
fn in_memory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| folder())
}
