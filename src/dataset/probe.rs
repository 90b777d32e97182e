//! Reads a file in a child process, because the HDF5 library may end or stop its process.
//!
//! The child is the program itself with a hidden command. It does not start MPI, has no variables of
//! the launcher, and ends with its parent.

use crate::comm::is_launcher_variable;
use crate::data::schema::Schema;
use crate::data::table::{Block, InputFile, Request};
use crate::error::{Error, Fault, Result};
use std::io::Read;
use std::os::unix::process::{ExitStatusExt, parent_id};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// The hidden command of the program.
pub(crate) const COMMAND: &str = "probe-file";
/// Least speed of a child [bytes/s]; a slower one counts as stopped.
const SLOWEST: f64 = 1e6;
const ROWS: u64 = 65_536;
const PAUSE: Duration = Duration::from_millis(10);
/// Time for a killed child to end; a child that waits for a disk never ends.
const PATIENCE: Duration = Duration::from_secs(2);
/// Time after the limit of its parent when a child ends itself.
const MARGIN: Duration = Duration::from_secs(30);
/// Longest message of a child [bytes].
const LONGEST_MESSAGE: u64 = 4096;

/// Reads a file in a child process within `base` and a time proportional to its length. `poll` is
/// called regularly, and its error ends the child.
///
/// Returns the reason that this process must not read the file for; `None` if it can read the file:
/// then it reports any other damage itself.
///
/// # Errors
/// Those of `poll`.
pub(crate) fn run(
    path: &Path,
    schema: Option<&str>,
    base: Duration,
    poll: &dyn Fn() -> Result<()>,
) -> Result<Option<Error>> {
    let bytes = std::fs::metadata(path).map_or(0, |metadata| metadata.len());
    let limit = base + Duration::from_secs_f64(bytes as f64 / SLOWEST);
    let child = match command(path, schema, limit).spawn() {
        Ok(child) => child,
        Err(error) => {
            return Ok(Some(unreadable(path, &format!("no child process: {error}")).environment()));
        }
    };
    let mut child = ProbeProcess(child);
    let since = Instant::now();
    let status = loop {
        // An unknown status counts as running.
        if let Some(status) = child.0.try_wait().ok().flatten() {
            break status;
        }
        poll()?;
        if since.elapsed() >= limit {
            let found = format!("a child process did not read it in {:.0} s", limit.as_secs_f64());
            return Ok(Some(unreadable(path, &found).input()));
        }
        std::thread::sleep(PAUSE);
    };
    // A request to stop may have ended the child too.
    poll()?;
    Ok(probe_error(path, status, &child.message()))
}

fn command(path: &Path, schema: Option<&str>, limit: Duration) -> Command {
    // This program, even if its file was replaced.
    let mut command = Command::new("/proc/self/exe");
    command.arg(COMMAND).arg("--limit").arg((limit + MARGIN).as_secs().to_string());
    if let Some(schema) = schema {
        command.arg("--schema").arg(schema);
    }
    command.arg("--").arg(path);
    for (name, _) in std::env::vars_os().filter(|(name, _)| is_launcher_variable(name)) {
        command.env_remove(name);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    command
}

fn probe_error(path: &Path, status: ExitStatus, message: &str) -> Option<Error> {
    let environment = Error::Environment(Box::default()).exit_code();
    match (status.signal(), status.code()) {
        (None, Some(0)) => None,
        (None, Some(code)) if code == i32::from(environment) => {
            let fault = unreadable(path, message);
            Some(fault.environment())
        }
        (None, code) => {
            let code = code.unwrap_or_default();
            let found = format!("exit code {code} of a child process {message}");
            Some(unreadable(path, found.trim_end()).input())
        }
        (Some(signal), _) => {
            let name = signal_hook::low_level::signal_name(signal).unwrap_or("a signal");
            let found = format!("a child process that read it ended by {name} ({signal})");
            Some(unreadable(path, &found).input())
        }
    }
}

fn unreadable(path: &Path, found: &str) -> Fault {
    Fault::new("the file ends or stops the process that reads it")
        .file(path)
        .found(found)
        .advice("copy or write it again; the same command then scores it")
}

/// A child process that is killed when the value is dropped.
struct ProbeProcess(Child);

impl ProbeProcess {
    fn message(&mut self) -> String {
        let mut text = Vec::new();
        if let Some(output) = self.0.stdout.take() {
            let _ = output.take(LONGEST_MESSAGE).read_to_end(&mut text);
        }
        String::from_utf8_lossy(&text).trim().to_string()
    }
}

impl Drop for ProbeProcess {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let since = Instant::now();
        while self.0.try_wait().is_ok_and(|status| status.is_none()) && since.elapsed() < PATIENCE {
            std::thread::sleep(PAUSE);
        }
    }
}

/// Reads all columns of a table; the child process calls it.
///
/// # Errors
/// `Environment` if the system cannot read the file. Other damage is not an error here.
pub(crate) fn read_through(path: &Path, schema: Option<&str>, limit: Duration) -> Result<()> {
    std::thread::spawn(move || end_with_parent(limit));
    match read_all(path, schema) {
        Err(error @ Error::Environment(_)) => Err(error),
        _ => Ok(()),
    }
}

fn read_all(path: &Path, schema: Option<&str>) -> Result<()> {
    let mut file = InputFile::open(path, Schema::of_option(schema)?.as_ref())?;
    let table = file.table();
    let quantities: Vec<String> = table.quantities().into_iter().map(str::to_string).collect();
    let request = Request {
        quantities: quantities.clone(),
        keys: table.key_names().into_iter().map(str::to_string).collect(),
        shower: true,
        class: table.has_class(),
    };
    let whole = read_rows(&mut file, &request);
    if let Ok(()) | Err(Error::Environment(_)) = whole {
        return whole;
    }
    // A column that cannot be read must not hide the others.
    let keys = Request { quantities: Vec::new(), ..request };
    let one = |name| Request { quantities: vec![name], ..Request::default() };
    for request in quantities.into_iter().map(one).chain([keys]) {
        if let Err(error @ Error::Environment(_)) = read_rows(&mut file, &request) {
            return Err(error);
        }
    }
    Ok(())
}

fn read_rows(file: &mut InputFile, request: &Request) -> Result<()> {
    let mut reader = file.reader(request)?;
    let mut block = Block::default();
    let rows = file.rows();
    for first in (0..rows.div_ceil(ROWS)).map(|block| block * ROWS) {
        reader.read(first..rows.min(first + ROWS), &mut block)?;
    }
    Ok(())
}

/// Ends this process when its parent has ended, or after a time.
fn end_with_parent(limit: Duration) {
    let (parent, since) = (parent_id(), Instant::now());
    while parent_id() == parent && since.elapsed() < limit {
        std::thread::sleep(Duration::from_millis(200));
    }
    signal_hook::low_level::exit(1);
}
