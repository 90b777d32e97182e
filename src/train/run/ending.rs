//! Writes and reads the last line of a run's log: why a start has ended without a model.

use crate::error::Error;

const PREFIX: &str = "ended with exit code ";

/// Why a start has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunEnding {
    /// Exit code of the program.
    pub code: u8,
    pub reason: String,
}

/// Returns the line of an error.
pub fn line(error: &Error) -> String {
    let reason = error.to_string().replace(['\n', '\r'], " ");
    format!("{PREFIX}{}: {reason}", error.exit_code())
}

/// Reads a line that [`line`] has written; `None` for any other one.
pub fn read(line: &str) -> Option<RunEnding> {
    let (code, reason) = line.strip_prefix(PREFIX)?.split_once(": ")?;
    Some(RunEnding { code: code.parse().ok()?, reason: reason.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Fault;

    #[test]
    fn line_is_read_back() {
        let error = Error::Diverged(Box::new(Fault::new("training diverged").found("a\nb: c")));
        let ending = read(&line(&error)).unwrap();
        assert_eq!((ending.code, ending.reason.contains("found a b: c")), (6, true), "{ending:?}");
        for other in ["", "epoch 1: training NLL 2", "ended with exit code x: y"] {
            assert_eq!(read(other), None, "{other}");
        }
    }
}
