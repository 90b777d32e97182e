//! Injects faults: disk faults, bad reads and clock skew by preloaded libraries, and signals.
//!
//! It also defines how often random tests repeat.

use super::process::{Watched, descendants, program, ranks};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

pub const FAULT_KINDS: [&str; 4] = ["eio", "enospc", "short", "death"];

/// Returns whether the full counts are requested, as `tests/soak.sh` does.
pub fn is_soak() -> bool {
    std::env::var_os("TAIGA_FLOW_SOAK").is_some()
}

/// Returns how often a random test repeats.
pub fn repetitions(short: usize, full: usize) -> usize {
    if is_soak() { full } else { short }
}

/// Prints a line that a soak keeps, also past the output capture of the test harness.
pub fn print_line(line: &str) {
    println!("{line}");
    if is_soak() {
        let _ = std::io::Write::write_all(&mut std::io::stderr(), format!("{line}\n").as_bytes());
    }
}

/// Compiles `tests/NAME.c` to a shared library and returns its path.
fn compiled(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let path = folder.join(format!("{name}-{}.so", std::process::id()));
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/{name}.c"));
    let status = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-pthread", "-o"])
        .args([&path, &source])
        .arg("-ldl")
        .status()
        .expect("a C compiler");
    assert!(status.success(), "{name}.c does not compile");
    path
}

/// Returns the library of `tests/faults.c`, compiled once.
fn library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| compiled("faults"))
}

/// Returns a command of ranks of which one gets a signal where MPI begins or ends (see
/// `tests/halt.c`).
pub fn ranks_with_signal(
    count: usize,
    arguments: &[OsString],
    victim: usize,
    place: &str,
    signal: i32,
) -> Command {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    let library = LIBRARY.get_or_init(|| compiled("halt"));
    let halt = format!("{victim}:{place}:{signal}");
    let mut command = ranks(count, arguments);
    command.env("LD_PRELOAD", library).env("HALT", halt);
    command
}

/// Adds bad reads to a command: its processes end or stop where HDF5 reads certain files (see
/// `tests/bad_reads.c`).
pub fn with_bad_reads(mut command: Command, how: &str) -> Command {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    let library = LIBRARY.get_or_init(|| compiled("bad_reads"));
    command.env("LD_PRELOAD", library).env("BAD_READS", how);
    command
}

/// Returns a command of ranks of which one has a clock that is wrong by some seconds (see
/// `tests/clock.c`).
pub fn ranks_with_clock_skew(
    count: usize,
    arguments: &[OsString],
    victim: usize,
    seconds: i64,
) -> Command {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    let library = LIBRARY.get_or_init(|| compiled("clock"));
    let mut command = ranks(count, arguments);
    command.env("LD_PRELOAD", library).env("CLOCK", format!("{victim}:{seconds}"));
    command
}

/// Returns a command of ranks of which one has a disk fault in operation `n` on files below
/// `under`.
pub fn ranks_with_disk_fault(
    count: usize,
    arguments: &[OsString],
    victim: usize,
    under: &Path,
    (n, kind): (u64, &str),
    mark: &Path,
) -> Command {
    let _ = std::fs::remove_file(mark);
    let mut command = ranks(count, arguments);
    command
        .env("LD_PRELOAD", library())
        .env("FAULT_UNDER", under)
        .env("FAULT", format!("{n}:{kind}"))
        .env("FAULT_MARK", mark)
        .env("FAULT_RANK", victim.to_string());
    command
}

/// Returns the program with a disk fault in operation `n` on files below `under`; the fault
/// creates `mark`.
pub fn with_disk_fault(
    arguments: &[OsString],
    under: &Path,
    n: u64,
    kind: &str,
    mark: &Path,
) -> Command {
    let _ = std::fs::remove_file(mark);
    let mut command = program(arguments);
    command
        .env("LD_PRELOAD", library())
        .env("FAULT_UNDER", under)
        .env("FAULT", format!("{n}:{kind}"))
        .env("FAULT_MARK", mark);
    command
}

/// Returns the ranks without the launcher, in the order in which they were started.
pub fn rank_processes(launched: &Watched) -> Vec<u32> {
    let is_rank = |process: &u32| {
        let name = std::fs::read_to_string(format!("/proc/{process}/comm")).unwrap_or_default();
        name.starts_with("taiga-flow")
    };
    let mut ranks: Vec<u32> = descendants(launched.id()).into_iter().filter(is_rank).collect();
    ranks.sort_unstable();
    ranks
}

/// Returns the step of the newest checkpoint that has its final name.
pub fn newest_checkpoint(run: &Path) -> Option<u64> {
    let entries = std::fs::read_dir(run.join("checkpoints")).ok()?.flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names.filter_map(|name| name.strip_prefix("step-")?.parse().ok()).max()
}

/// Waits until a running training has a checkpoint of at least this step.
pub fn wait_for_step(training: &mut Watched, run: &Path, step: u64) {
    while newest_checkpoint(run).is_none_or(|newest| newest < step) {
        assert_eq!(training.exit_status(), None, "it ended before step {step}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
