//! Shared parts of the tests: running the program, generated inputs, a trained model, and
//! comparison of folders.

mod case;
mod events;
mod failures;
mod fuzz;
mod inject;
pub mod nights;
mod process;
pub mod scores;
mod slurm;
pub mod writers;

pub use case::{
    Case, EVERY_STEP, LONG, TwoClasses, has_extension, ledger, result, text, train_on_threads,
    training,
};
pub use events::{Defect, Events, write_with_defect};
pub use failures::keep_failure;
pub use fuzz::fuzz;
pub use inject::{
    FAULT_KINDS, is_soak, newest_checkpoint, print_line, rank_processes, ranks_with_clock_skew,
    ranks_with_disk_fault, ranks_with_signal, repetitions, wait_for_step, with_bad_reads,
    with_disk_fault,
};
pub use process::{
    Outcome, Watched, descendants, json, kill, program, ranks, run, send_user1, signal, succeed,
};
pub use slurm::{Job, Slurm};

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use taiga_flow::config::Class;
use taiga_flow::simulate;
use tempfile::TempDir;

/// Converts texts and paths to the arguments of a command line.
macro_rules! arguments {
    ($($argument:expr),* $(,)?) => { [$(std::ffi::OsString::from($argument)),*] };
}
pub(crate) use arguments;

/// Returns the seed of the random inputs of this run, and prints it.
pub fn seed() -> u64 {
    static SEED: OnceLock<u64> = OnceLock::new();
    let seed = *SEED.get_or_init(|| {
        let given = std::env::var("TAIGA_FLOW_TEST_SEED").ok();
        given.map_or_else(random_seed, |text| text.parse().expect("a number"))
    });
    println!("random inputs from TAIGA_FLOW_TEST_SEED={seed}");
    seed
}

fn random_seed() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    u64::from(now.expect("a clock after 1970").subsec_nanos())
}

/// Creates a folder for one test, on the disk of the build.
pub fn folder() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a temporary folder")
}

/// Writes a file of toy events.
pub fn simulated(path: PathBuf, class: Class, events: u64, seed: u64) -> PathBuf {
    let output = path.clone();
    let options = simulate::Options { output, class, events, seed, overwrite: false };
    simulate::run(&options).expect("simulated events");
    path
}

/// Header of the tables of [`table_dialect`].
pub const TABLE_HEADER: &str = "event_number,size,length,width,con2,dist,alpha";

/// Writes a schema of text tables with the features and one key, and returns its path.
pub fn table_dialect(folder: &Path) -> PathBuf {
    let path = folder.join("tables.toml");
    let text = r#"
name = "tables"
description = "tables with a header"

[text]
header = true

[quantities]
size = { column = "size", unit = "p.e." }
length = { column = "length", unit = "deg" }
width = { column = "width", unit = "deg" }
con2 = { column = "con2", unit = "1" }
dist = { column = "dist", unit = "deg" }
alpha = { column = "alpha", unit = "deg" }

[keys]
copy = { event_id = "event_number" }
"#;
    std::fs::write(&path, text).expect("a schema");
    path
}

/// Writes a file of toy images; `class` is `gamma` or `hadron`.
pub fn simulated_images(path: &Path, class: &str, events: u64, seed: u64) {
    let simulate = arguments![
        "simulate",
        "-q",
        "--level",
        "images",
        "--class",
        class,
        "--events",
        events.to_string(),
        "--seed",
        seed.to_string(),
        "-o",
        path
    ];
    succeed(&mut program(&simulate));
}

/// Writes a small configuration for one file of gammas; `more` is appended to it.
pub fn configuration(folder: &Path, gamma: &Path, more: &str) -> PathBuf {
    let path = folder.join("configuration.toml");
    let text = format!(
        r#"
[data]
gamma = ["{}"]

[features]
columns = [
  {{ name = "size", transform = "log10" }},
  {{ name = "width", transform = "ln", offset = 0.01 }},
  {{ name = "length", transform = "ln", offset = 0.01 }},
  {{ name = "con2", transform = "logit" }},
  {{ name = "dist" }},
  {{ name = "alpha", transform = "signed" }},
]

[cuts]
size = {{ min = 60 }}

[model]
blocks = 4
hidden = [24]
permutation = {{ seeded = 1 }}

{more}
"#,
        gamma.display()
    );
    std::fs::write(&path, text).expect("a configuration");
    path
}

/// A model trained on toy gammas, shared by all tests of this process.
pub struct Trained {
    pub gamma: PathBuf,
    pub hadron: PathBuf,
    pub configuration: PathBuf,
    pub run: PathBuf,
    pub model: PathBuf,
}

pub fn trained() -> &'static Trained {
    static TRAINED: OnceLock<Trained> = OnceLock::new();
    TRAINED.get_or_init(|| {
        let folder = shared_folder();
        let gamma = simulated(folder.join("gamma.h5"), Class::Gamma, 30_000, seed());
        let hadron = simulated(folder.join("hadron.h5"), Class::Hadron, 30_000, seed());
        let more = "[train]\nepochs = 12\nbatch = 2048\nlearning_rate = 1e-2\n";
        let configuration = configuration(&folder, &gamma, more);
        let output = folder.join("run");
        succeed(&mut program(&arguments!["train", "-q", "-c", &configuration, "-o", &output]));
        let model = output.join("model.safetensors");
        Trained { gamma, hadron, configuration, run: output, model }
    })
}

/// Creates a folder that all tests of this process share. Folders of processes that have ended are
/// removed here, because no code runs at the end of a test binary.
fn shared_folder() -> PathBuf {
    let base = Path::new(env!("CARGO_TARGET_TMPDIR"));
    for entry in std::fs::read_dir(base).expect("the temporary folder").flatten() {
        let name = entry.file_name().to_string_lossy().to_string();
        let owner = name.strip_prefix("promises-").map(str::to_string);
        if owner.is_some_and(|owner| !Path::new("/proc").join(owner).exists()) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
    let folder = base.join(format!("promises-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a temporary folder");
    folder
}

/// Returns the path of a public file. Returns `None` with a message if it is absent and
/// `TAIGA_FLOW_TEST_DATA` is not set.
pub fn public_data(name: &str) -> Option<PathBuf> {
    let asked = std::env::var_os("TAIGA_FLOW_TEST_DATA").map(PathBuf::from);
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data");
    let path = asked.clone().unwrap_or(default).join(name);
    if path.is_file() {
        return Some(path);
    }
    assert!(asked.is_none(), "TAIGA_FLOW_TEST_DATA is set, but there is no {}", path.display());
    skip(&format!("{} is absent; TAIGA_FLOW_TEST_DATA names its folder", path.display()));
    None
}

/// Reports that something was not tested, also past the output capture of the test harness.
pub fn skip(why: &str) {
    let _ = writeln!(std::io::stderr(), "SKIPPED: {why}");
}

/// Returns everything below a folder as relative path → content hash, or `/` for a folder. Ledgers
/// are left out, because they record ranks and times.
pub fn tree(folder: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    walk(folder, folder, &mut found);
    found
}

fn walk(root: &Path, folder: &Path, found: &mut BTreeMap<String, String>) {
    for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        let name = path.strip_prefix(root).expect("a path below").display().to_string();
        if path.is_dir() && name == "ledger" {
            continue;
        }
        if path.is_dir() {
            found.insert(name, "/".to_string());
            walk(root, &path, found);
        } else {
            found.insert(name, hash(&path));
        }
    }
}

/// Copies a file or folder with its times, or with `from` ending in `/.` what is in the folder.
pub fn copy(from: &Path, to: &Path) {
    let status = std::process::Command::new("cp").arg("-a").args([from, to]).status();
    assert!(status.expect("cp").success(), "{} to {}", from.display(), to.display());
}

/// Returns the blake3 hash of a file.
pub fn hash(path: &Path) -> String {
    let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    blake3::hash(&bytes).to_hex().to_string()
}
