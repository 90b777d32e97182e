//! Reads small files whole, but never more than a limit.
//!
//! Devices and pipes have no length: they are read up to a limit too, so that a wrong path
//! neither fills the memory nor takes for ever.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::path::Path;

/// Most bytes read from a device or a pipe.
const LONGEST_STREAM: u64 = 16 << 20;

/// Returns the content of a file of at most `limit` bytes.
///
/// # Errors
/// What the system says; `FileTooLarge` for a longer file.
pub fn read(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
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
/// What the system says.
pub fn read_head(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Returns the content of a text file of at most `limit` bytes.
///
/// # Errors
/// As [`read`]; `InvalidData` if it is not UTF-8.
pub fn read_text(path: &Path, limit: u64) -> io::Result<String> {
    String::from_utf8(read(path, limit)?).map_err(|e| io::Error::new(ErrorKind::InvalidData, e))
}

#[cfg(test)]
mod tests {
    use super::*;

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
