//! Reads fields of compound datasets, also arrays, with calls of the C library of HDF5.
//!
//! Names and types are checked before anything is read, because the library fills missing fields
//! with zeros and reports success.

#![allow(unsafe_code)] // HDF5 record fields

use crate::data::hdf5;
use crate::data::hdf5::compound::check_record;
use crate::data::hdf5::rows::stored_chunks;
use crate::data::images::MOST_PIXELS;
use crate::error::{Error, Fault, Result};
use ::hdf5::sync::sync;
use ::hdf5::{Dataset, Dataspace};
use hdf5_sys::h5d::H5Dread;
use hdf5_sys::h5i::hid_t;
use hdf5_sys::h5p::H5P_DEFAULT;
use hdf5_sys::h5t::{
    H5T_class_t, H5Tarray_create2, H5Tclose, H5Tcreate, H5Tget_array_dims2, H5Tget_array_ndims,
    H5Tget_class, H5Tget_member_index, H5Tget_member_type, H5Tget_size, H5Tget_super, H5Tinsert,
};
use std::ffi::CString;
use std::ops::Range;
use std::path::Path;

/// Largest number of rows; a table with more has a damaged header.
const MOST_ROWS: u64 = 1 << 36;
/// Largest record [bytes]; a larger one has a damaged header.
const LONGEST_RECORD: usize = 1 << 22;

/// Type of a field in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FieldType {
    Integer,
    Real,
    RealArray(usize),
    /// Booleans, as stored.
    Bytes(usize),
}

impl FieldType {
    /// Returns the size of a field in memory [bytes].
    pub(crate) fn bytes(self) -> usize {
        match self {
            FieldType::Integer | FieldType::Real => 8,
            FieldType::RealArray(items) => 4 * items,
            FieldType::Bytes(items) => items,
        }
    }
}

/// Returns the number of a field in the names of its attributes. PyTables numbers all fields,
/// ctapipe those of its containers.
pub(super) fn field_number(dataset: &Dataset, field: &str) -> Option<u32> {
    let named = |name: String| hdf5::text_attribute(dataset, &name).as_deref() == Some(field);
    (0..64).find(|i| named(format!("FIELD_{i}_NAME")) || named(format!("CTAFIELD_{i}_NAME")))
}

/// Returns the unit of a field.
pub(super) fn unit_of(dataset: &Dataset, field: &str) -> Option<String> {
    let index = field_number(dataset, field)?;
    hdf5::text_attribute(dataset, &format!("CTAFIELD_{index}_UNIT"))
}

/// Reads all values of one numeric field of a small table, as f64.
pub(super) fn numbers(
    path: &Path,
    name: &str,
    dataset: &Dataset,
    field: &str,
    memory: FieldType,
) -> Result<Vec<f64>> {
    let rows = rows_of(path, name, dataset)?;
    let is_numeric = match field_of(dataset, field)? {
        Some((H5T_class_t::H5T_INTEGER, 1)) => true,
        Some((H5T_class_t::H5T_FLOAT, 1)) => memory == FieldType::Real,
        _ => false,
    };
    if !is_numeric || rows > MOST_PIXELS as u64 {
        return Err(Fault::new("not a numeric field of a small table")
            .file(path)
            .dataset(name)
            .column(field)
            .found(format!("{rows} rows"))
            .input());
    }
    let bytes = read(path, name, dataset, &[(field, memory)], 0..rows)?;
    let value = |eight: &[u8; 8]| match memory {
        FieldType::Integer => i64::from_ne_bytes(*eight) as f64,
        _ => f64::from_ne_bytes(*eight),
    };
    Ok(bytes.as_chunks::<8>().0.iter().map(value).collect())
}

/// Returns the number of rows of a compound dataset, after a check of its storage.
pub(super) fn rows_of(path: &Path, name: &str, dataset: &Dataset) -> Result<u64> {
    let fault = |message: &str| Fault::new(message).file(path).dataset(name);
    let damaged = |found: String| Err(damaged(fault("shape and storage do not agree"), found));
    let shape = dataset.get_shape().map_err(|error| hdf5::read_fault(path, name, &error))?;
    let [rows] = shape[..] else {
        return Err(fault("dataset is not a table").found(format!("shape {shape:?}")).input());
    };
    let record = dataset.dtype().map_or(usize::MAX, |dtype| dtype.size());
    if rows as u64 > MOST_ROWS || record > LONGEST_RECORD {
        return damaged(format!("{rows} rows of {record} bytes"));
    }
    let chunk = dataset.chunk().and_then(|chunk| chunk.first().copied()).unwrap_or(0);
    if chunk == 0 {
        let stored = dataset.storage_size();
        let needed = (rows * record) as u64;
        return if stored >= needed { Ok(rows as u64) } else { damaged(format!("{stored} bytes")) };
    }
    let stored =
        stored_chunks(dataset).map_err(|error| hdf5::read_fault(path, name, &error))? as usize;
    let expected = rows.div_ceil(chunk);
    if chunk.saturating_mul(record) > 1 << 28 || stored < expected {
        return damaged(format!("{stored} chunks of {chunk} rows"));
    }
    Ok(rows as u64)
}

/// Returns the error of a damaged table.
fn damaged(fault: Fault, found: String) -> Error {
    fault.found(found).advice("the file is damaged: copy or write it again").input()
}

/// Returns class and number of items of a field; `None` if there is no such field.
pub(super) fn field_of(dataset: &Dataset, name: &str) -> Result<Option<(H5T_class_t, usize)>> {
    let Ok(dtype) = dataset.dtype() else { return Ok(None) };
    let text = c_name(name)?;
    Ok(sync(|| {
        // SAFETY: the type lives until the end of the call, and members are requested only if it
        // is a compound type; returned ids are new and are closed once.
        unsafe {
            if H5Tget_class(dtype.id()) != H5T_class_t::H5T_COMPOUND {
                return None;
            }
            let index = u32::try_from(H5Tget_member_index(dtype.id(), text.as_ptr())).ok()?;
            let member = H5Tget_member_type(dtype.id(), index);
            let described = describe(member);
            H5Tclose(member);
            described
        }
    }))
}

/// Returns class and number of the items of a type.
///
/// # Safety
/// `member` is the id of an open type, and the library's lock is held.
unsafe fn describe(member: hid_t) -> Option<(H5T_class_t, usize)> {
    // SAFETY: guaranteed by the caller; the buffer has space for the one dimension requested.
    unsafe {
        let class = H5Tget_class(member);
        if class != H5T_class_t::H5T_ARRAY {
            return Some((class, 1));
        }
        let mut items = 0;
        if H5Tget_array_ndims(member) != 1 || H5Tget_array_dims2(member, &raw mut items) < 0 {
            return None;
        }
        let item = H5Tget_super(member);
        let (class, size) = (H5Tget_class(item), H5Tget_size(item));
        H5Tclose(item);
        (size <= 16).then_some((class, items as usize))
    }
}

/// Reads some fields of a range of rows, packed without padding in native byte order.
///
/// # Errors
/// `Input` if the data are damaged; `Environment` if the system fails to read them.
pub(super) fn read(
    path: &Path,
    name: &str,
    dataset: &Dataset,
    fields: &[(&str, FieldType)],
    rows: Range<u64>,
) -> Result<Vec<u8>> {
    let record: usize = fields.iter().map(|(_, memory)| memory.bytes()).sum();
    let count = (rows.end - rows.start) as usize;
    let failed = |error: ::hdf5::Error| read_failure(path, name, rows.start, &error);
    hdf5::check_filters(dataset).map_err(failed)?;
    check_record(dataset).map_err(failed)?;
    let selection = rows.start as usize..rows.end as usize;
    let space = dataset.space().and_then(|space| space.select(selection)).map_err(failed)?;
    let memory_space = Dataspace::try_new(count).map_err(failed)?;
    let memory = memory_type(dataset, fields, record)?;
    let mut bytes = vec![0u8; count * record];
    let status = sync(|| {
        // SAFETY: the memory type has `record` bytes and the memory space `count` items, the size
        // of the buffer; all ids are open.
        unsafe {
            let buffer = bytes.as_mut_ptr().cast();
            let status =
                H5Dread(dataset.id(), memory, memory_space.id(), space.id(), H5P_DEFAULT, buffer);
            H5Tclose(memory);
            status
        }
    });
    if status < 0 {
        let error = ::hdf5::Error::query().unwrap_or_else(|error| error);
        return Err(failed(error));
    }
    Ok(bytes)
}

/// Returns the error of a failed read from row `first`.
fn read_failure(path: &Path, name: &str, first: u64, error: &::hdf5::Error) -> Error {
    let error = hdf5::read_fault(path, name, error);
    match error.fault() {
        Some(fault) => Error::from_code(error.exit_code(), fault.clone().row(first)),
        None => error,
    }
}

/// Returns the compound type of some fields. The caller closes it.
fn memory_type(dataset: &Dataset, fields: &[(&str, FieldType)], record: usize) -> Result<hid_t> {
    let dtype = dataset
        .dtype()
        .map_err(|error| Fault::new("cannot read the type of a table").found(error).input())?;
    let natives = [
        ::hdf5::Datatype::from_type::<i64>(),
        ::hdf5::Datatype::from_type::<f64>(),
        ::hdf5::Datatype::from_type::<f32>(),
    ];
    let [Ok(integer), Ok(real), Ok(single)] = natives else {
        return Err(Fault::new("cannot create a numeric type").internal());
    };
    let mut names = Vec::new();
    for (name, _) in fields {
        names.push(c_name(name)?);
    }
    let created = sync(|| {
        // SAFETY: every id is open when it is used and closed once; the sizes of the fields add
        // up to `record`.
        unsafe {
            let memory = H5Tcreate(H5T_class_t::H5T_COMPOUND, record);
            let (mut offset, mut whole) = (0, memory >= 0);
            for ((_, kind), name) in fields.iter().zip(&names) {
                let (item, owned) = match kind {
                    FieldType::Integer => (integer.id(), false),
                    FieldType::Real => (real.id(), false),
                    FieldType::RealArray(items) => {
                        (H5Tarray_create2(single.id(), 1, &(*items as u64)), true)
                    }
                    FieldType::Bytes(items) => {
                        let index = H5Tget_member_index(dtype.id(), name.as_ptr());
                        let member = H5Tget_member_type(dtype.id(), index.max(0) as u32);
                        whole &= index >= 0 && H5Tget_size(member) == *items;
                        (member, true)
                    }
                };
                whole = whole && H5Tinsert(memory, name.as_ptr(), offset, item) >= 0;
                offset += kind.bytes();
                if owned {
                    H5Tclose(item);
                }
            }
            if !whole && memory >= 0 {
                H5Tclose(memory);
            }
            whole.then_some(memory)
        }
    });
    created.ok_or_else(|| {
        Fault::new("fields of a table changed while it was read")
            .advice("write the file again")
            .input()
    })
}

/// Returns a name for the C library.
fn c_name(name: &str) -> Result<CString> {
    CString::new(name).map_err(|_| Fault::new("name with a zero byte").found(name).internal())
}
