//! Writes to standard output and standard error.
//!
//! A closed pipe on standard output ends the output quietly; any other failed write there is an
//! error. A failed write to standard error is ignored, because the exit code still shows the
//! outcome. Control characters are escaped, so that a name in a file cannot control a terminal.

use crate::error::{Fault, Result};
use std::borrow::Cow;
use std::fmt::Display;
use std::io::{self, ErrorKind, Write};

/// Writes text and a line end to standard output.
///
/// # Errors
/// `Environment` if it cannot be written, unless the reader has closed the pipe.
pub(crate) fn print_result(text: &str) -> Result<()> {
    written(write_line(&mut io::stdout().lock(), text))
}

/// Writes an error message of the program to standard error.
pub fn print_error(error: &dyn Display) {
    let _ = write_line(&mut io::stderr().lock(), &format!("taiga-flow: {error}"));
}

/// Returns the outcome of writing to standard output.
///
/// # Errors
/// As [`print_result`].
pub fn written(outcome: io::Result<()>) -> Result<()> {
    match outcome {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Fault::new("cannot write to standard output")
                .found(error)
                .advice("redirect it to a file on a disk with free space")
                .environment())
        }
        _ => Ok(()),
    }
}

fn write_line(stream: &mut dyn Write, text: &str) -> io::Result<()> {
    stream.write_all(format!("{}\n", printable(text)).as_bytes())?;
    stream.flush()
}

/// Escapes all control characters except line ends and tabs.
pub fn printable(text: &str) -> Cow<'_, str> {
    let is_unsafe = |c: char| c.is_control() && c != '\n' && c != '\t';
    if !text.contains(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if is_unsafe(c) {
            safe.extend(c.escape_default());
        } else {
            safe.push(c);
        }
    }
    Cow::Owned(safe)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Full;

    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::Error::from(ErrorKind::StorageFull))
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(printable("a\tb\nc µ"), "a\tb\nc µ");
        assert_eq!(printable("run\x1b[2J\r.h5"), "run\\u{1b}[2J\\r.h5");
    }

    #[test]
    fn failed_write_is_an_error_closed_pipe_is_not() {
        let error = written(write_line(&mut Full, "text")).unwrap_err();
        assert_eq!(error.exit_code(), 5);
        written(Err(io::Error::from(ErrorKind::BrokenPipe))).unwrap();
    }
}
