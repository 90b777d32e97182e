//! Reads the bytes of a file through the descriptor that the HDF5 library has open.
//!
//! The descriptor is duplicated, so it stays valid when the library closes its own. Reads are
//! positioned: they leave the offset alone, which both descriptors share.

#![allow(unsafe_code)] // the descriptor that HDF5 has open

use crate::error::{Error, Fault, Result};
use hdf5::{File, sync::sync};
use hdf5_sys::h5f::H5Fget_vfd_handle;
use hdf5_sys::h5p::H5P_DEFAULT;
use std::io::{self, Read};
use std::os::fd::{BorrowedFd, RawFd};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Returns a duplicate of the descriptor of a file that was opened with the driver `sec2`.
pub(super) fn duplicate(path: &Path, file: &File) -> Result<std::fs::File> {
    let mut handle = std::ptr::null_mut();
    // SAFETY: the file is open, `handle` lives until the end of the call, and the lock of the
    // library is held.
    let status = sync(|| unsafe { H5Fget_vfd_handle(file.id(), H5P_DEFAULT, &raw mut handle) });
    if status < 0 || handle.is_null() {
        return Err(Fault::new("an HDF5 file without a descriptor").file(path).internal());
    }
    // SAFETY: the handle of the driver `sec2` is the address of its descriptor, an `int`, which
    // stays open as long as `file`.
    let descriptor = unsafe { BorrowedFd::borrow_raw(*handle.cast::<RawFd>()) };
    let duplicate = descriptor.try_clone_to_owned().map_err(|error| unreadable(path, &error))?;
    Ok(duplicate.into())
}

/// Returns the error of bytes that the system does not read.
pub(super) fn unreadable(path: &Path, error: &io::Error) -> Error {
    Fault::new("cannot read the file").file(path).found(error).input()
}

/// The bytes of a file from a position on.
pub(in crate::data) struct BytesFrom<'a> {
    file: &'a std::fs::File,
    position: u64,
}

impl<'a> BytesFrom<'a> {
    pub(crate) fn new(file: &'a std::fs::File, position: u64) -> BytesFrom<'a> {
        BytesFrom { file, position }
    }
}

impl Read for BytesFrom<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(buffer, self.position)?;
        self.position += count as u64;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptor_closed_file_still_reads() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.h5");
        File::create(&path).unwrap().create_group("events").unwrap();
        let file = File::with_options().with_fapl(|access| access.sec2()).open(&path).unwrap();
        let descriptor = duplicate(&path, &file).unwrap();
        file.group("events").unwrap();
        drop(file);
        let mut bytes = Vec::new();
        BytesFrom::new(&descriptor, 1).read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes, std::fs::read(&path).unwrap()[1..]);
    }
}
