//! Reads small files whole, but never more than a limit.
//!
//! Devices and pipes have no length: they are also read up to a limit, so that a wrong path neither
//! fills the memory nor takes indefinitely. Inputs that are opened more than once must be regular
//! files ([`refuse_irregular`]).

use crate::error::{Fault, Result as Checked};
use std::fs::{File, FileType};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

/// Most bytes read from a device or a pipe.
const LONGEST_STREAM: u64 = 16 << 20;

/// Refuses a device, pipe or socket in place of an input file. Opening a pipe waits for its
/// writer, and a second reading of it finds nothing. A folder or a missing file is left to the
/// reader.
///
/// # Errors
/// `Input`, with the kind of file.
pub(crate) fn refuse_irregular(path: &Path) -> Checked<()> {
    irregular(path).map_or(Ok(()), |fault| Err(fault.input()))
}

/// Returns the fault of a device, pipe or socket in place of an input file; `None` for any other
/// path.
pub(crate) fn irregular(path: &Path) -> Option<Fault> {
    irregular_kind(path, std::fs::metadata(path).ok()?.file_type())
}

/// Returns the same fault for a path of a known kind.
pub(crate) fn irregular_kind(path: &Path, kind: FileType) -> Option<Fault> {
    (!kind.is_file() && !kind.is_dir()).then(|| {
        Fault::new("not a regular file")
            .file(path)
            .found(kind_name(kind))
            .advice("write its content to a file first")
    })
}

/// Returns the name of a kind of file, for messages.
pub(crate) fn kind_name(kind: FileType) -> &'static str {
    match kind {
        _ if kind.is_file() => "a regular file",
        _ if kind.is_dir() => "a folder",
        _ if kind.is_symlink() => "a symbolic link",
        _ if kind.is_fifo() => "a pipe",
        _ if kind.is_socket() => "a socket",
        _ => "a device",
    }
}

/// Returns the content of a file of at most `limit` bytes.
///
/// # Errors
/// The error of the system; `FileTooLarge` for a longer file.
pub(crate) fn read(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    let limit = if metadata.is_file() { limit } else { limit.min(LONGEST_STREAM) };
    let too_large = |bytes: &str| {
        let text = format!("{bytes} bytes; at most {limit} are read");
        Err(io::Error::new(ErrorKind::FileTooLarge, text))
    };
    if metadata.len() > limit {
        return too_large(&metadata.len().to_string());
    }
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return too_large(&format!("more than {limit}"));
    }
    Ok(bytes)
}

/// Returns at most the first `limit` bytes of a file.
///
/// # Errors
/// The error of the system.
pub(crate) fn read_head(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Returns the content of a text file of at most `limit` bytes.
///
/// # Errors
/// As [`read`]; `InvalidData` if it is not UTF-8.
pub(crate) fn read_text(path: &Path, limit: u64) -> io::Result<String> {
    String::from_utf8(read(path, limit)?).map_err(|e| io::Error::new(ErrorKind::InvalidData, e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pipe_is_refused_before_it_is_opened() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let error = refuse_irregular(&pipe).unwrap_err();
        assert_eq!(error.exit_code(), 3);
        let text = error.to_string();
        for part in ["not a regular file", "found a pipe", "write its content to a file first"] {
            assert!(text.contains(part), "'{part}' is not in: {text}");
        }
        assert!(refuse_irregular(Path::new("/dev/zero")).is_err());
        refuse_irregular(folder.path()).unwrap();
        refuse_irregular(&folder.path().join("missing")).unwrap();
    }

    #[test]
    fn file_or_device_beyond_the_limit_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        std::fs::write(&path, "12345").unwrap();
        assert_eq!(read_text(&path, 5).unwrap(), "12345");
        for (path, limit) in [(path.as_path(), 4), (Path::new("/dev/zero"), u64::MAX - 1)] {
            assert_eq!(read(path, limit).unwrap_err().kind(), ErrorKind::FileTooLarge);
        }
        assert!(read(Path::new("/dev/null"), 9).unwrap().is_empty());
        std::fs::write(&path, b"\xff").unwrap();
        assert_eq!(read_text(&path, 9).unwrap_err().kind(), ErrorKind::InvalidData);
    }
}
