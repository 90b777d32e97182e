//! Checks headers of datasets that would end the process inside the HDF5 library.
//!
//! The object headers of older files have no checksum. If one flipped bit sets the length of a
//! dataset's chunks to zero, HDF5 1.10.8 divides by it when the dataset is opened, and a signal
//! ends the process. So the layout message of each dataset is checked before any dataset is opened,
//! as in the HDF5 file format specification (version 3.0, IV.A.1 and IV.A.2.i). Files with newer
//! superblocks have checksums and are not checked; the library refuses other damage itself.

#![allow(unsafe_code)] // HDF5 object headers

use super::descriptor::{BytesFrom, unreadable};
use crate::error::{Fault, Result};
use hdf5::{File, sync::sync};
use hdf5_sys::h5::{H5_index_t, H5_iter_order_t, herr_t};
use hdf5_sys::h5i::hid_t;
use hdf5_sys::h5l::{H5L_type_t, H5Lunregister};
use hdf5_sys::h5o::{H5O_INFO_BASIC, H5O_info1_t, H5O_type_t, H5Ovisit2};
use std::ffi::{CStr, c_char, c_void};
use std::io::{ErrorKind, Read};
use std::path::Path;
use std::sync::Once;

/// Most objects of one file that are checked: a table has hundreds of columns at most.
const MOST_OBJECTS: usize = 100_000;
/// Largest block of a header [bytes], and most blocks of one header.
const LARGEST_BLOCK: u64 = 1 << 20;
const MOST_BLOCKS: usize = 64;
const LAYOUT: u16 = 0x0008;
const CONTINUATION: u16 = 0x0010;

/// Disables links into other files, because no hash of an input covers their targets. An external
/// link then fails to open like any link of an unknown class.
pub(super) fn refuse_external_links() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        sync(|| {
            // SAFETY: a call without pointers; the lock of the library is held.
            unsafe { H5Lunregister(H5L_type_t::H5L_TYPE_EXTERNAL) }
        });
    });
}

/// Returns whether a reason of the library names such a link.
pub(super) fn is_unknown_link(reason: &str) -> bool {
    reason.contains("link class") || reason.contains("user-defined link")
}

/// Refuses a file with a dataset whose chunks have length 0; `bytes` is its descriptor.
pub(super) fn check(path: &Path, file: &File, bytes: &std::fs::File) -> Result<()> {
    let mut superblock = [0; 36];
    match BytesFrom::new(bytes, 0).read_exact(&mut superblock) {
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(()),
        outcome => outcome.map_err(|error| unreadable(path, &error))?,
    }
    // Offsets and lengths of 8 bytes each, counted from the base address.
    let base = match superblock[8] {
        0 => number(&superblock[24..32]),
        1 => number(&superblock[28..36]),
        _ => return Ok(()),
    };
    if superblock[13..15] != [8, 8] {
        return Ok(());
    }
    for (name, address) in datasets(file) {
        let is_damaged = has_empty_chunks(bytes, base, address);
        if is_damaged.map_err(|error| unreadable(path, &error))? {
            return Err(Fault::new("a dataset whose chunks have length 0")
                .file(path)
                .dataset(name)
                .advice("the file is damaged: copy or write it again")
                .input());
        }
    }
    Ok(())
}

/// Returns names and addresses of all datasets that the library finds.
fn datasets(file: &File) -> Vec<(String, u64)> {
    let mut found: Vec<(String, u64)> = Vec::new();
    sync(|| {
        // SAFETY: the file is open; `take` gets the address of `found`, which lives until the
        // end of the call and is not used elsewhere.
        unsafe {
            H5Ovisit2(
                file.id(),
                H5_index_t::H5_INDEX_NAME,
                H5_iter_order_t::H5_ITER_NATIVE,
                Some(take),
                (&raw mut found).cast(),
                H5O_INFO_BASIC,
            )
        }
    });
    // The library refuses to open a dataset that it did not find.
    found
}

/// Adds one object; called by the library.
extern "C" fn take(
    _: hid_t,
    name: *const c_char,
    info: *const H5O_info1_t,
    found: *mut c_void,
) -> herr_t {
    // SAFETY: the library passes a name that ends with 0 and a whole record, which live during
    // the call; `found` is the address that `datasets` passed.
    let (name, info, found) =
        unsafe { (CStr::from_ptr(name), &*info, &mut *found.cast::<Vec<(String, u64)>>()) };
    if info.type_ == H5O_type_t::H5O_TYPE_DATASET {
        found.push((name.to_string_lossy().to_string(), info.addr));
    }
    // Any other value than 0 ends the visit.
    herr_t::from(found.len() >= MOST_OBJECTS)
}

/// Returns whether the object header at an address declares chunks of length 0.
fn has_empty_chunks(file: &std::fs::File, base: u64, address: u64) -> std::io::Result<bool> {
    let prefix = block(file, base, address, 16)?;
    // Newer headers begin with a signature, and have a checksum.
    if prefix.len() < 16 || prefix[0] != 1 {
        return Ok(false);
    }
    let mut blocks = vec![(address.saturating_add(16), number(&prefix[8..12]))];
    let mut next = 0;
    while let Some((at, length)) = blocks.get(next).copied().filter(|_| next < MOST_BLOCKS) {
        next += 1;
        let bytes = block(file, base, at, length)?;
        let mut rest = &bytes[..];
        while let Some((head, after)) = rest.split_at_checked(8) {
            let kind = u16::from_le_bytes([head[0], head[1]]);
            let size = usize::from(u16::from_le_bytes([head[2], head[3]]));
            let Some((message, after)) = after.split_at_checked(size) else { break };
            match kind {
                LAYOUT if is_empty(message) => return Ok(true),
                CONTINUATION if size >= 16 => {
                    blocks.push((number(&message[..8]), number(&message[8..16])));
                }
                _ => {}
            }
            rest = after;
        }
    }
    Ok(false)
}

/// Returns whether a layout message declares chunks of length 0.
fn is_empty(message: &[u8]) -> bool {
    let lengths = |from: usize, count: u8, bytes: usize| {
        let all = message.get(from..).unwrap_or_default().chunks_exact(bytes);
        all.take(usize::from(count)).any(|length| number(length) == 0)
    };
    match *message {
        // Dimensions, class, five reserved bytes, address.
        [1 | 2, count, 2, ..] => lengths(16, count, 4),
        // Class, dimensions, address.
        [3, 2, count, ..] => lengths(11, count, 4),
        // Class, flags, dimensions, bytes of a length.
        [4, 2, _, count, bytes @ 1..=8, ..] => lengths(5, count, usize::from(bytes)),
        _ => false,
    }
}

/// Reads bytes of the file from an address on; fewer at its end.
fn block(file: &std::fs::File, base: u64, at: u64, length: u64) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let Some(start) = base.checked_add(at).filter(|start| *start < 1 << 62) else {
        return Ok(bytes);
    };
    BytesFrom::new(file, start).take(length.min(LARGEST_BLOCK)).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Returns the little-endian number of up to 8 bytes.
fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    fn old_file(folder: &Path) -> PathBuf {
        let path = folder.join("old.h5");
        let file = File::create(&path).unwrap();
        let group = file.create_group("deep/er").unwrap();
        // Attributes push the layout into another block of the header.
        let column = group.new_dataset::<f32>().shape(1000).chunk(167).create("width").unwrap();
        for i in 0..40 {
            column.new_attr::<f64>().create(format!("a{i}").as_str()).unwrap();
        }
        group.new_dataset::<f32>().shape(1000).create("contiguous").unwrap();
        path
    }

    #[test]
    fn only_chunks_of_length_zero_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = old_file(folder.path());
        let opened = |path: &Path| {
            let file = File::open(path).unwrap();
            check(path, &file, &std::fs::File::open(path).unwrap()).map(|()| datasets(&file).len())
        };
        assert_eq!(opened(&path).unwrap(), 2);
        let mut bytes = std::fs::read(&path).unwrap();
        let length = 167_u32.to_le_bytes();
        let places: Vec<usize> =
            (0..bytes.len() - 4).filter(|at| bytes[*at..*at + 4] == length).collect();
        let mut refused = 0;
        for at in places {
            bytes[at] = 0;
            std::fs::write(&path, &bytes).unwrap();
            if let Err(error) = opened(&path) {
                assert_eq!(error.exit_code(), 3);
                let text = error.to_string();
                assert!(text.contains("deep/er/width") && text.contains("length 0"), "{text}");
                refused += 1;
            }
            bytes[at] = 167;
        }
        assert_eq!(refused, 1);
    }

    #[test]
    fn every_version_of_the_layout_is_understood() {
        let address = [0xff; 8];
        let v1 = [&[1, 2, 2, 0, 0, 0, 0, 0][..], &address, &[9, 0, 0, 0, 4, 0, 0, 0]].concat();
        let v3 = [&[3, 2, 2][..], &address, &[9, 0, 0, 0, 4, 0, 0, 0]].concat();
        let v4 = vec![4, 2, 0, 2, 2, 9, 0, 4, 0, 1];
        for (message, at) in [(v1, 16), (v3, 11), (v4, 5)] {
            assert!(!is_empty(&message));
            let mut empty = message.clone();
            empty[at] = 0;
            assert!(is_empty(&empty), "{empty:?}");
            // A message cut anywhere is accepted.
            (0..message.len()).for_each(|end| assert!(!is_empty(&message[..end])));
        }
        // Contiguous and compact ones have no chunks.
        assert!(!is_empty(&[3, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]));
        assert!(!is_empty(&[3, 0, 0, 0]));
    }
}
