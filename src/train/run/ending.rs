//! Writes and reads lines of a run's log: how a start begins, and how it has ended.

use crate::error::Error;

/// How the line of a start begins, and that of a published model.
pub const STARTED: &str = "training on ";
pub const FINISHED: &str = "finished: ";
const PREFIX: &str = "ended with exit code ";

/// Why a start has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ending {
    /// Exit code of the program.
    pub code: u8,
    pub reason: String,
}

/// Returns the line of an error.
pub fn line(error: &Error) -> String {
    let reason = error.to_string().replace(['\n', '\r'], " ");
    format!("{PREFIX}{}: {reason}", error.exit_code())
}

/// Whether the last start in a log has published its model.
pub fn has_finished(log: &str) -> bool {
    let last = log.lines().rfind(|line| line.starts_with(STARTED) || line.starts_with(FINISHED));
    last.is_some_and(|line| line.starts_with(FINISHED))
}

/// Reads a line that [`line`] has written; `None` for any other one.
pub fn read(line: &str) -> Option<Ending> {
    let (code, reason) = line.strip_prefix(PREFIX)?.split_once(": ")?;
    Some(Ending { code: code.parse().ok()?, reason: reason.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Fault;

    #[test]
    fn log_of_a_later_start_is_not_finished() {
        let finished = format!("{STARTED}9 events\nepoch 1\n{FINISHED}model with blake3 a\n");
        assert!(has_finished(&finished));
        assert!(!has_finished(&format!("{finished}{STARTED}9 events\nepoch 2\n")));
        assert!(!has_finished(""));
    }

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
