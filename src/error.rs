//! Errors as data: location (file, dataset, row, column), expected and found value, one line of
//! advice, and the exit code.
//!
//! Every fallible function of the crate returns [`Result`]. No code below `main` prints an error or
//! ends the process.

use std::fmt;
use std::fmt::Write;
use std::path::Path;

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Text of the system's errors EMFILE and ENFILE, also in the messages of HDF5.
const TOO_MANY_OPEN_FILES: &str = "Too many open files";
const DESCRIPTOR_ADVICE: &str = "raise the limit (ulimit -n), or use fewer ranks on this node";

/// An error: its kind decides the exit code, its [`Fault`] tells the user what to do.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// Wrong flags, wrong configuration, an output that already exists.
    #[error("{0}")]
    Usage(Box<Fault>),
    /// An input file, model or scored archive that must not be used as it is.
    #[error("{0}")]
    Input(Box<Fault>),
    /// Some files failed; everything else is complete.
    #[error("{0}")]
    Partial(Box<Fault>),
    /// MPI, device, memory or disk.
    #[error("{0}")]
    Environment(Box<Fault>),
    /// The training cannot continue.
    #[error("{0}")]
    Diverged(Box<Fault>),
    /// Stopped on request after a checkpoint: run the same command again.
    #[error("{0}")]
    Stopped(Box<Fault>),
    /// Interrupted from the keyboard.
    #[error("interrupted")]
    Interrupted,
    /// A violated invariant of this program.
    #[error("internal error: {0}")]
    Internal(Box<Fault>),
}

impl Error {
    /// Returns the exit code of the process, as listed in `docs/src/reference/exit-codes.md`.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Internal(_) => 1,
            Error::Usage(_) => 2,
            Error::Input(_) => 3,
            Error::Partial(_) => 4,
            Error::Environment(_) => 5,
            Error::Diverged(_) => 6,
            Error::Stopped(_) => 75,
            Error::Interrupted => 130,
        }
    }

    /// Returns an error of the kind with this exit code, for the failure of another rank.
    pub fn from_code(code: u8, fault: Fault) -> Error {
        match code {
            2 => fault.usage(),
            3 => fault.input(),
            4 => Error::Partial(Box::new(fault)),
            5 => fault.environment(),
            6 => Error::Diverged(Box::new(fault)),
            75 => Error::Stopped(Box::new(fault)),
            130 => Error::Interrupted,
            _ => fault.internal(),
        }
    }

    pub fn fault(&self) -> Option<&Fault> {
        match self {
            Error::Usage(f)
            | Error::Input(f)
            | Error::Partial(f)
            | Error::Environment(f)
            | Error::Diverged(f)
            | Error::Stopped(f)
            | Error::Internal(f) => Some(f),
            Error::Interrupted => None,
        }
    }

    /// Returns whether every rank has this error; then all ranks end in order, and one prints it.
    pub fn is_shared(&self) -> bool {
        self.fault().is_none_or(|fault| fault.shared)
    }

    /// Marks an error that every rank has.
    #[must_use]
    pub fn shared(mut self) -> Error {
        if let Some(fault) = self.fault_mut() {
            fault.shared = true;
        }
        self
    }

    /// Adds the file to an error from code that does not know its name.
    #[must_use]
    pub fn in_file(mut self, path: &Path) -> Error {
        if let Some(fault) = self.fault_mut()
            && fault.file.is_none()
        {
            fault.file = Some(path_text(path));
        }
        self
    }

    /// Adds a text to the found value.
    #[must_use]
    pub fn add_finding(mut self, text: &str) -> Error {
        if let Some(fault) = self.fault_mut() {
            let found = fault.found.take();
            fault.found = Some(found.map_or(text.to_string(), |found| format!("{found}; {text}")));
        }
        self
    }

    fn fault_mut(&mut self) -> Option<&mut Fault> {
        match self {
            Error::Usage(f)
            | Error::Input(f)
            | Error::Partial(f)
            | Error::Environment(f)
            | Error::Diverged(f)
            | Error::Stopped(f)
            | Error::Internal(f) => Some(f),
            Error::Interrupted => None,
        }
    }
}

/// Description of one fault. Build it with [`Fault::new`], add the known details, and convert it to
/// an [`Error`] with [`Fault::usage`], [`Fault::input`], …
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fault {
    pub what: String,
    pub file: Option<String>,
    pub dataset: Option<String>,
    pub row: Option<u64>,
    pub column: Option<String>,
    pub expected: Option<String>,
    pub found: Option<String>,
    pub advice: Option<String>,
    /// Whether every rank has this fault.
    pub shared: bool,
}

impl Fault {
    pub fn new(what: impl Into<String>) -> Fault {
        Fault { what: what.into(), ..Fault::default() }
    }
    #[must_use]
    pub fn file(mut self, path: impl AsRef<Path>) -> Fault {
        self.file = Some(path_text(path.as_ref()));
        self
    }
    #[must_use]
    pub fn dataset(mut self, name: impl Into<String>) -> Fault {
        self.dataset = Some(name.into());
        self
    }
    #[must_use]
    pub fn row(mut self, row: u64) -> Fault {
        self.row = Some(row);
        self
    }
    #[must_use]
    pub fn column(mut self, name: impl Into<String>) -> Fault {
        self.column = Some(name.into());
        self
    }
    #[must_use]
    pub fn expected(mut self, what: impl fmt::Display) -> Fault {
        self.expected = Some(what.to_string());
        self
    }
    #[must_use]
    pub fn found(mut self, what: impl fmt::Display) -> Fault {
        self.found = Some(what.to_string());
        self
    }
    #[must_use]
    pub fn advice(mut self, line: impl Into<String>) -> Fault {
        self.advice = Some(line.into());
        self
    }

    pub fn usage(self) -> Error {
        Error::Usage(Box::new(self))
    }
    /// Returns an error of the input, or of the environment if the process or the node has no
    /// descriptor left: that is not a fault of the file.
    pub fn input(self) -> Error {
        if self.found.as_ref().is_some_and(|found| found.contains(TOO_MANY_OPEN_FILES)) {
            return self.advice(DESCRIPTOR_ADVICE).environment();
        }
        Error::Input(Box::new(self))
    }
    pub fn environment(self) -> Error {
        Error::Environment(Box::new(self))
    }
    pub fn internal(self) -> Error {
        Error::Internal(Box::new(self))
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{file}: ")?;
        }
        f.write_str(&self.what)?;
        let place = [
            self.dataset.as_ref().map(|d| format!("dataset '{d}'")),
            self.column.as_ref().map(|c| format!("column '{c}'")),
            self.row.map(|r| format!("row {r}")),
        ];
        let place: Vec<String> = place.into_iter().flatten().collect();
        if !place.is_empty() {
            write!(f, " ({})", place.join(", "))?;
        }
        match (&self.expected, &self.found) {
            (Some(e), Some(g)) => write!(f, ": expected {e}, found {g}")?,
            (Some(e), None) => write!(f, ": expected {e}")?,
            (None, Some(g)) => write!(f, ": found {g}")?,
            (None, None) => {}
        }
        if let Some(advice) = &self.advice {
            write!(f, "\n  advice: {advice}")?;
        }
        Ok(())
    }
}

/// Returns a path as text; bytes that are not UTF-8 as `\xNN`, so that different paths differ.
pub fn path_text(path: &Path) -> String {
    let mut text = String::new();
    for chunk in path.as_os_str().as_encoded_bytes().utf8_chunks() {
        text.push_str(chunk.valid());
        for byte in chunk.invalid() {
            // Writing to a string cannot fail.
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

/// Returns the known name nearest to a misspelt one, for messages: at most a third of its letters
/// may differ (Levenshtein distance).
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let limit = name.chars().count().div_ceil(3).max(1);
    known
        .into_iter()
        .map(|candidate| (distance(name, candidate), candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min()
        .map(|(_, candidate)| candidate)
}

/// Returns the Levenshtein distance of two names, ignoring case.
fn distance(a: &str, b: &str) -> usize {
    strsim::levenshtein(&a.to_lowercase(), &b.to_lowercase())
}

/// Returns the advice for a misspelt name: the nearest known name, otherwise the list of them.
pub fn did_you_mean(name: &str, known: &[&str]) -> String {
    match nearest(name, known.iter().copied()) {
        Some(near) => format!("did you mean '{near}'?"),
        None => format!("known names: {}", known.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fault_shows_place_expectation_and_advice() {
        let error = Fault::new("wrong type")
            .file("runs/a b.h5")
            .dataset("events/width")
            .row(7)
            .expected("a number")
            .found("text")
            .advice("fix the schema")
            .input();
        assert_eq!(error.exit_code(), 3);
        assert_eq!(
            error.to_string(),
            "runs/a b.h5: wrong type (dataset 'events/width', row 7): expected a number, found text\n  advice: fix the schema"
        );
    }

    #[test]
    fn exhausted_descriptors_are_no_fault_of_the_input() {
        for code in [libc::EMFILE, libc::ENFILE] {
            let error = std::io::Error::from_raw_os_error(code);
            let error = Fault::new("cannot read the file").found(error).input();
            assert_eq!(error.exit_code(), 5, "{error}");
        }
        assert_eq!(Fault::new("cannot read the file").found("text").input().exit_code(), 3);
    }

    #[test]
    fn path_that_is_not_utf8_is_escaped() {
        use std::os::unix::ffi::OsStrExt;
        let path = Path::new(std::ffi::OsStr::from_bytes("γ/a\u{e9}".as_bytes()));
        assert_eq!(path_text(path), "γ/aé");
        let path = Path::new(std::ffi::OsStr::from_bytes(b"run-\xff\xe9.h5"));
        assert_eq!(path_text(path), "run-\\xff\\xe9.h5");
    }

    #[test]
    fn near_names_are_suggested_and_far_ones_are_not() {
        assert_eq!(nearest("widht", ["width", "length", "size"]), Some("width"));
        assert_eq!(nearest("energy", ["width", "length", "size"]), None);
    }
}
