//! Input files of every kind with flipped bits or truncated: the program never crashes, hangs or
//! allocates without limit. A file that is not read is refused with exit code 3.
//!
//! The files of one kind are read in a separate process with little memory, so that a crash of the
//! HDF5 library is noticed. By default the test damages 60 files of each kind, differently in
//! every run. A soak damages 2000, or as many as `TAIGA_FLOW_FUZZ` states.

use crate::support::{
    arguments, folder, keep_failure, print_line, program, repetitions, seed, simulated, succeed,
    trained,
};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use taiga_flow::config::Class;
use taiga_flow::data::images::{ImageBlock, ImageFile};
use taiga_flow::data::table::scores::ScoreFile;
use taiga_flow::data::text::convert;
use taiga_flow::dataset::check;
use taiga_flow::error::Result;
use taiga_flow_gpu::random::Stream;

/// Address space limit of the process that reads [bytes]; it normally uses a fifth of this.
const MEMORY: u64 = 3 << 30;
/// Time limit between two files.
const LIMIT: Duration = Duration::from_secs(60);
const JOB: &str = "TAIGA_FLOW_FUZZ_JOB";

/// Returns how many files of a kind are damaged.
fn cases() -> u64 {
    let asked = std::env::var("TAIGA_FLOW_FUZZ").ok().and_then(|text| text.parse().ok());
    asked.unwrap_or(repetitions(60, 2000) as u64)
}

/// Returns a file with damage number `case`, and a description of the damage.
fn damaged(whole: &[u8], seed: u64, case: u64) -> (Vec<u8>, String) {
    let stream = Stream::new(seed, "fuzz", &[whole.len() as u64]);
    let bits = |word: u64| stream.bits(8 * case + word);
    let mut bytes = whole.to_vec();
    if case % 4 == 3 {
        bytes.truncate((bits(0) % whole.len() as u64) as usize);
        let description = format!("cut to {} bytes", bytes.len());
        return (bytes, description);
    }
    let count = 1 + bits(1) % 3;
    let places: Vec<usize> =
        (0..count).map(|i| (bits(2 + i) % whole.len() as u64) as usize).collect();
    places.iter().for_each(|at| bytes[*at] ^= 1 << (bits(6) % 8));
    (bytes, format!("bit {} flipped in bytes {places:?}", bits(6) % 8))
}

/// Damages a file in many ways; the process below reads each version.
fn fuzz(original: &Path) -> Result<(), String> {
    let folder = folder();
    let name = original.file_name().and_then(|name| name.to_str()).expect("a name");
    let log = folder.path().join("log");
    std::fs::write(&log, "").expect("a file");
    let (cases, seed) = (cases(), seed());
    let job = format!("{}\n{}\n{seed}\n{cases}", original.display(), folder.path().display());
    let mut child = Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "fuzz::reader_process", "--ignored", "--nocapture"])
        .env(JOB, job)
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(folder.path().join("errors")).expect("a file"))
        .spawn()
        .expect("a process");
    let lines = || std::fs::read_to_string(&log).unwrap_or_default();
    let (mut seen, mut since) = (0, Instant::now());
    let status = loop {
        if let Some(status) = child.try_wait().expect("a child") {
            break Some(status);
        }
        let length = lines().len();
        if length != seen {
            (seen, since) = (length, Instant::now());
        }
        if since.elapsed() > LIMIT {
            let _ = child.kill();
            let _ = child.wait();
            break None;
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let log = lines();
    let case = log.lines().rfind(|line| line.starts_with("case")).unwrap_or("at its start");
    let errors = std::fs::read_to_string(folder.path().join("errors")).unwrap_or_default();
    let reason = match status {
        Some(status) if status.success() => None,
        Some(status) => Some(format!("{status}\n{errors}")),
        None => Some(format!("no progress for {} s\n{errors}", LIMIT.as_secs())),
    };
    if let Some(reason) = reason {
        let reason = format!("{name}, {case}, seed {seed}: {reason}");
        let number = case.split([' ', ',']).nth(1).unwrap_or("start");
        let input = std::fs::read(folder.path().join(name)).unwrap_or_default();
        let kept = keep_failure(&format!("{seed}-{number}-{name}"), &input, &reason);
        print_line(&kept);
        return Err(format!("{kept}\n{reason}"));
    }
    print_line(&format!("fuzz: {name}, seed {seed}: {}", log.lines().last().unwrap_or_default()));
    Ok(())
}

#[test]
#[ignore = "a child process of the other tests of this file"]
fn reader_process() {
    let Ok(job) = std::env::var(JOB) else { return };
    let words: Vec<&str> = job.lines().collect();
    let (original, folder) = (Path::new(words[0]), Path::new(words[1]));
    let (seed, cases): (u64, u64) =
        (words[2].parse().expect("a seed"), words[3].parse().expect("a number"));
    let limit = libc::rlimit { rlim_cur: MEMORY, rlim_max: MEMORY };
    // SAFETY: the structure lives during the call.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_AS, &raw const limit) }, 0);
    let whole = std::fs::read(original).expect("a file");
    let path = folder.join(original.file_name().expect("a name"));
    let log = std::fs::OpenOptions::new().append(true).open(folder.join("log"));
    let mut log = log.expect("the file");
    let mut log_line = |line: String| log.write_all(line.as_bytes()).expect("a line");
    let (mut refused, mut read_whole) = (0, 0);
    for case in 0..cases {
        let (bytes, description) = damaged(&whole, seed, case);
        log_line(format!("case {case}, {description}\n"));
        std::fs::write(&path, bytes).expect("a file");
        let outcome = read(&path);
        match outcome {
            Ok(()) => read_whole += 1,
            Err(error) => {
                assert_eq!(error.exit_code(), 3, "{error}");
                refused += 1;
            }
        }
    }
    log_line(format!("{refused} refused, {read_whole} read, of {cases}\n"));
}

/// Reads a file as the command does whose input it is; its name determines the kind.
fn read(path: &Path) -> Result<()> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    if name.starts_with("images") || name.contains("dl1") {
        return read_images(path);
    }
    if name.starts_with("scores") {
        return ScoreFile::open(path).map(|_| ());
    }
    if name.ends_with("csv") {
        let options = convert::Options {
            inputs: vec![path.to_path_buf()],
            output: path.with_extension("h5"),
            dialect: None,
            class: None,
            placement: None,
            overwrite: true,
        };
        return convert::run(&options).map(|_| ());
    }
    let options = check::Options { files: vec![path.to_path_buf()], ..Default::default() };
    check::run(&options).and_then(|report| report.outcome())
}

fn read_images(path: &Path) -> Result<()> {
    let file = ImageFile::open(path, None)?;
    let mut block = ImageBlock::default();
    for set in 0..file.sets().len() {
        let mut reader = file.reader(set)?;
        while reader.next(64, &mut block)? {}
    }
    Ok(())
}

fn generated(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

/// Damages files of several kinds, and continues after a failure.
fn fuzz_all(originals: &[PathBuf]) {
    let failed: Vec<String> = originals.iter().filter_map(|path| fuzz(path).err()).collect();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[test]
fn damaged_event_files_never_crash() {
    let folder = folder();
    fuzz_all(&[simulated(folder.path().join("events.h5"), Class::Gamma, 300, seed())]);
}

#[test]
fn damaged_compound_tables_never_crash() {
    let names =
        ["ctapipe.h5", "lstchain.h5", "pandas-table.h5", "pandas-columns.h5", "pytables.h5"];
    fuzz_all(&names.map(generated));
}

#[test]
fn damaged_columns_and_matrices_never_crash() {
    fuzz_all(&["fact-like.h5", "pandas-fixed.h5", "matrix.h5"].map(generated));
}

#[test]
fn damaged_text_tables_never_crash() {
    fuzz_all(&["taiga-experiment.csv", "taiga-mc.csv", "taiga-mc-newer.csv"].map(generated));
}

#[test]
fn fuzzed_image_files_never_crash() {
    let folder = folder();
    let own = folder.path().join("images.h5");
    let simulate = arguments!["simulate", "--level", "images", "-o", &own];
    let more = arguments!["--class", "gamma", "--events", "40", "--seed", seed().to_string()];
    succeed(&mut program(&[&simulate[..], &more].concat()));
    let independent = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/independent");
    fuzz_all(&[own, independent.join("ctapipe-dl1.h5")]);
}

#[test]
fn damaged_score_files_never_crash() {
    let (trained, folder) = (trained(), folder());
    let input = simulated(folder.path().join("scores.h5"), Class::Gamma, 300, seed());
    let output = folder.path().join("output");
    succeed(&mut program(&arguments!["score", "-m", &trained.model, "-o", &output, &input]));
    fuzz_all(&[output.join("scores.h5")]);
}
