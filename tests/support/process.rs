//! Runs the program with a time limit: as one process, over MPI ranks, or in the background.

use serde_json::Value;
use std::ffi::OsString;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

const PROGRAM: &str = env!("CARGO_BIN_EXE_taiga-flow");
/// Time limit of everything that a test starts.
const LIMIT: Duration = Duration::from_secs(240);

#[derive(Debug)]
pub struct Outcome {
    /// `None` if a signal ended the process.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

pub fn program(arguments: &[OsString]) -> Command {
    let mut command = Command::new(PROGRAM);
    command.args(arguments).env_remove("TAIGA_FLOW_LOG");
    command
}

/// Returns the program as `ranks` MPI ranks on this machine, also as root and on few cores.
pub fn ranks(ranks: usize, arguments: &[OsString]) -> Command {
    let mut command = Command::new("mpirun");
    command
        .args(["-n", &ranks.to_string(), PROGRAM])
        .args(arguments)
        .env_remove("TAIGA_FLOW_LOG")
        .env("OMPI_ALLOW_RUN_AS_ROOT", "1")
        .env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1")
        .env("OMPI_MCA_rmaps_base_oversubscribe", "1")
        .env("OMPI_MCA_hwloc_base_binding_policy", "none")
        .env("OMPI_MCA_mpi_yield_when_idle", "1");
    command
}

pub fn run(command: &mut Command) -> Outcome {
    let started = std::mem::replace(command, Command::new("true"));
    let context = format!("{started:?}");
    let output = assert_cmd::Command::from_std(started)
        .timeout(LIMIT)
        .output()
        .unwrap_or_else(|e| panic!("cannot run {context}: {e}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).to_string();
    Outcome {
        code: output.status.code(),
        stdout: text(&output.stdout),
        stderr: format!("{context}\n{}", text(&output.stderr)),
    }
}

/// Runs a command that must succeed, and returns its output.
pub fn succeed(command: &mut Command) -> Outcome {
    let outcome = run(command);
    assert_eq!(outcome.code, Some(0), "{}{}", outcome.stdout, outcome.stderr);
    outcome
}

/// Runs a command with `--json` that must succeed, and parses its one object.
pub fn json(arguments: &[OsString]) -> Value {
    let outcome = succeed(program(arguments).arg("--json"));
    let object: Value = serde_json::from_str(&outcome.stdout)
        .unwrap_or_else(|e| panic!("not one JSON value ({e}): {}", outcome.stdout));
    assert!(object.is_object(), "not an object: {}", outcome.stdout);
    object
}

/// A program that runs in the background.
pub struct Watched {
    child: Child,
    started: Instant,
}

impl Watched {
    /// Starts a command and discards its output, because no thread reads the pipes meanwhile.
    pub fn start(command: &mut Command) -> Watched {
        let child = command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|e| panic!("cannot start {command:?}: {e}"));
        Watched { child, started: Instant::now() }
    }

    /// Starts a command and writes its messages to a file.
    pub fn start_with_log(command: &mut Command, log_path: &Path) -> Watched {
        let file = std::fs::File::create(log_path).expect("a file for messages");
        let child = command
            .stdout(Stdio::null())
            .stderr(file)
            .spawn()
            .unwrap_or_else(|e| panic!("cannot start {command:?}: {e}"));
        Watched { child, started: Instant::now() }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Returns the exit status if the process has ended.
    pub fn exit_status(&mut self) -> Option<ExitStatus> {
        assert!(self.started.elapsed() < LIMIT, "still running after {LIMIT:?}");
        self.child.try_wait().expect("a child")
    }

    pub fn wait(mut self) -> ExitStatus {
        loop {
            if let Some(status) = self.exit_status() {
                return status;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits until the command succeeds, and returns the largest resident memory of any of its
    /// processes of the program, in bytes.
    pub fn peak_memory(mut self) -> u64 {
        let mut peak = 0;
        loop {
            // `/proc` of an ended process is empty, so the peak is polled.
            let processes = descendants(self.id()).into_iter().chain([self.id()]);
            peak = peak.max(processes.filter_map(resident_peak).max().unwrap_or(0));
            if let Some(status) = self.exit_status() {
                assert!(status.success(), "{status}");
                return peak;
            }
            std::thread::sleep(Duration::from_millis(3));
        }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        // A failing test must not leave ranks behind.
        for process in descendants(self.id()) {
            kill(process);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns the peak resident memory of a process of the program (not of a launcher), in bytes.
fn resident_peak(process: u32) -> Option<u64> {
    let folder = format!("/proc/{process}");
    let program = std::fs::read_link(format!("{folder}/exe")).ok()?;
    if program != Path::new(PROGRAM).canonicalize().ok()? {
        return None;
    }
    let status = std::fs::read_to_string(format!("{folder}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    Some(1024 * line.split_whitespace().nth(1)?.parse::<u64>().ok()?)
}

/// Returns all descendants of a process.
pub fn descendants(process: u32) -> Vec<u32> {
    let mut parents = Vec::new();
    for entry in std::fs::read_dir("/proc").expect("/proc").flatten() {
        let Some(id) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        // The name of the program, in parentheses, may contain spaces.
        let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let parent = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(1));
        if let Some(parent) = parent.and_then(|parent| parent.parse::<u32>().ok()) {
            parents.push((id, parent));
        }
    }
    let mut found = vec![process];
    let mut next = 0;
    while next < found.len() {
        let of = |parent: u32| move |(id, p): &(u32, u32)| (*p == parent).then_some(*id);
        found.extend(parents.iter().filter_map(of(found[next])).collect::<Vec<u32>>());
        next += 1;
    }
    found.split_off(1)
}

/// Kills a process without warning, like a crash of its node.
pub fn kill(process: u32) {
    signal(process, libc::SIGKILL);
}

/// Sends SIGUSR1, which Slurm sends some minutes before the time limit.
pub fn send_user1(process: u32) {
    signal(process, libc::SIGUSR1);
}

/// Sends a signal to one process.
pub fn signal(process: u32, signal: i32) {
    // SAFETY: kill(2) takes numbers and touches no memory of this process.
    unsafe { libc::kill(process as i32, signal) };
}
