//! Writes and reads the lines of a run's log that mark the start and the end.

use crate::error::Error;

/// Prefixes of the lines of a start, and of a published model.
pub(crate) const STARTED: &str = "training on ";
pub(crate) const FINISHED: &str = "finished: ";
const PREFIX: &str = "ended with exit code ";

/// Exit code and reason of the end of a start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RunEnding {
    /// Exit code of the program.
    pub code: u8,
    pub reason: String,
}

/// Returns the line of an error.
pub(crate) fn line(error: &Error) -> String {
    let reason = error.to_string().replace(['\n', '\r'], " ");
    format!("{PREFIX}{}: {reason}", error.exit_code())
}

/// Returns whether the last start in a log has published its model.
pub(crate) fn has_finished(log: &str) -> bool {
    let last = log.lines().rfind(|line| line.starts_with(STARTED) || line.starts_with(FINISHED));
    last.is_some_and(|line| line.starts_with(FINISHED))
}

/// Parses a line of [`line`]; `None` for any other line.
pub(crate) fn read(line: &str) -> Option<RunEnding> {
    let (code, reason) = line.strip_prefix(PREFIX)?.split_once(": ")?;
    Some(RunEnding { code: code.parse().ok()?, reason: reason.to_string() })
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
    fn line_is_parsed_back() {
        let error = Error::Diverged(Box::new(Fault::new("training diverged").found("a\nb: c")));
        let ending = read(&line(&error)).unwrap();
        assert_eq!((ending.code, ending.reason.contains("found a b: c")), (6, true), "{ending:?}");
        for other in ["", "epoch 1: training NLL 2", "ended with exit code x: y"] {
            assert_eq!(read(other), None, "{other}");
        }
    }
}
