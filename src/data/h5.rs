//! What the HDF5 library says, told so that a physicist can act on it, and the few
//! calls that readers and writers share.
//!
//! Owns: the text of library errors (the inner frame names the cause, the outer ones
//! only the way to it) and their sorting into input and environment faults. Left to
//! others: which datasets are wanted, and where.

use super::durable::disk_fault;
use crate::error::Error;
use std::io::ErrorKind;
use std::path::Path;

/// All frames of a library error, outermost first, without repetitions.
pub(super) fn reason(error: &hdf5::Error) -> String {
    let Some(stack) = error.stack() else { return error.to_string() };
    let mut lines: Vec<String> = Vec::new();
    for frame in stack.iter() {
        let line = frame.desc().trim().to_string();
        if !line.is_empty() && lines.last() != Some(&line) {
            lines.push(line);
        }
    }
    if lines.is_empty() { error.to_string() } else { lines.join("; ") }
}

/// The fault of a library call that wrote to `path`.
pub(super) fn write_fault(operation: &str, path: &Path, error: &hdf5::Error) -> Error {
    let reason = reason(error);
    let kind = if reason.contains("No space left") {
        ErrorKind::StorageFull
    } else if reason.contains("quota exceeded") {
        ErrorKind::QuotaExceeded
    } else if reason.contains("Permission denied") {
        ErrorKind::PermissionDenied
    } else {
        ErrorKind::Other
    };
    disk_fault(operation, path, &reason, kind)
}
