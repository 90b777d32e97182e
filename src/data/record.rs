//! Compound tables: which numeric fields a record has, and reading some of them at once.
//!
//! Owns the calls of the C library that the bindings lack: members of a type one by one
//! (a member of an unknown type must not hide the others), and reading a subset of them.
//! Promises: fields are read by name after their type was seen, since the library fills
//! what it does not find with zeros and says that all is well; fields lie within their
//! record and apart, which it does not look at; a record, an array in it and the memory of
//! a read are bounded.

use super::stored::{Numbers, describe_type, is_unusual, numbers_of_type};
use hdf5::sync::sync;
use hdf5::types::{FloatSize, IntSize, TypeDescriptor};
use hdf5::{Dataset, Dataspace, Datatype, Error, Result};
use hdf5_sys::h5::H5free_memory;
use hdf5_sys::h5d::H5Dread;
use hdf5_sys::h5i::hid_t;
use hdf5_sys::h5p::H5P_DEFAULT;
use hdf5_sys::h5t::{
    H5T_class_t, H5Tcreate, H5Tget_array_dims2, H5Tget_array_ndims, H5Tget_class,
    H5Tget_member_name, H5Tget_member_offset, H5Tget_member_type, H5Tget_nmembers, H5Tget_super,
    H5Tinsert,
};
use std::ffi::{CStr, CString};
use std::ops::Range;
use std::ptr;

/// A longer record is a damaged header.
const LONGEST_RECORD: usize = 1 << 20; // bytes
const MOST_FIELDS: usize = 4096;
/// Of one array within a record.
const MOST_ITEMS: usize = 4096;
/// Memory of one call of the library.
const LARGEST_READ: usize = 32 << 20; // bytes

/// A member of a record.
#[derive(Debug, Clone)]
pub(super) struct Field {
    pub name: String,
    /// Of one item; a text that says what it is if it is no number.
    pub numbers: Result<Numbers, String>,
    /// Length of an array; 1 for a scalar.
    pub items: usize,
    pub is_array: bool,
    /// As it lies in memory: 8 bytes per item, or the file's own byte of a truth value.
    memory: Option<Datatype>,
}

/// Whether a dataset is a table of records.
pub(super) fn is_record(dataset: &Dataset) -> bool {
    dataset.dtype().is_ok_and(|dtype| class_of(&dtype) == H5T_class_t::H5T_COMPOUND)
}

/// Floating point of two bytes, which the bindings do not describe.
pub(super) fn is_half(dtype: &Datatype) -> bool {
    dtype.size() == 2 && class_of(dtype) == H5T_class_t::H5T_FLOAT
}

/// All members of a compound dataset, in their order.
pub(super) fn fields(dataset: &Dataset) -> Result<Vec<Field>> {
    let (dtype, count) = checked_type(dataset)?;
    (0..count).map(|index| field(&dtype, index)).collect()
}

/// Refuses a compound type that the library would read astray by.
pub(super) fn check_record(dataset: &Dataset) -> Result<()> {
    checked_type(dataset).map(|_| ())
}

/// The type of a compound dataset and the number of its members.
fn checked_type(dataset: &Dataset) -> Result<(Datatype, u32)> {
    let dtype = dataset.dtype()?;
    if dtype.size() > LONGEST_RECORD {
        return Err(format!("a record of {} bytes", dtype.size()).into());
    }
    // SAFETY: the id is that of a type that lives until the end of this function.
    let count = sync(|| unsafe { H5Tget_nmembers(dtype.id()) });
    let count = match u32::try_from(count) {
        Ok(count) if count as usize <= MOST_FIELDS => count,
        _ => return Err(format!("a record of {count} fields").into()),
    };
    check_extents(&dtype, count)?;
    Ok((dtype, count))
}

/// Refuses fields that overlap or end outside of their record: the library would read
/// whatever lies there, or crash.
fn check_extents(record: &Datatype, count: u32) -> Result<()> {
    let mut extents = Vec::with_capacity(count as usize);
    for index in 0..count {
        let dtype = member_type(record, index)?;
        // SAFETY: the index is below the number of members of a living type.
        let offset = sync(|| unsafe { H5Tget_member_offset(record.id(), index) });
        extents.push((offset, offset.saturating_add(dtype.size())));
    }
    extents.sort_unstable();
    let apart = extents.windows(2).all(|pair| pair[0].1 <= pair[1].0);
    if apart && extents.last().is_none_or(|last| last.1 <= record.size()) {
        return Ok(());
    }
    Err("fields that overlap or end outside of their record".into())
}

fn member_type(record: &Datatype, index: u32) -> Result<Datatype> {
    // SAFETY: the index is below the number of members; the id that comes back is new
    // and owned by nobody else.
    sync(|| unsafe { own(H5Tget_member_type(record.id(), index)) })
}

fn field(record: &Datatype, index: u32) -> Result<Field> {
    let name = member_name(record, index)?;
    let dtype = member_type(record, index)?;
    let array = array_of(&dtype)?;
    let is_array = array.is_some();
    let (item, items) = array.unwrap_or_else(|| (dtype.clone(), 1));
    let (numbers, memory) = match numbers_of(&item, items) {
        Ok(numbers) => (Ok(numbers), Some(memory_type(&dtype, numbers, items, is_array)?)),
        Err(what) => (Err(what), None),
    };
    Ok(Field { name, numbers, items, is_array, memory })
}

fn member_name(record: &Datatype, index: u32) -> Result<String> {
    sync(|| {
        // SAFETY: the library gives a text of its own that ends in zero, or null, and
        // takes it back once.
        unsafe {
            let text = H5Tget_member_name(record.id(), index);
            if text.is_null() {
                return Err(Error::query().unwrap_or_else(|error| error));
            }
            let name = CStr::from_ptr(text).to_string_lossy().to_string();
            H5free_memory(text.cast());
            Ok(name)
        }
    })
}

/// Type and number of the items of an array; several dimensions are no column.
fn array_of(dtype: &Datatype) -> Result<Option<(Datatype, usize)>> {
    if class_of(dtype) != H5T_class_t::H5T_ARRAY {
        return Ok(None);
    }
    sync(|| {
        // SAFETY: the type is an array; dimensions are asked for only where there is
        // exactly one, which is what the buffer holds.
        unsafe {
            let mut items = 0;
            if H5Tget_array_ndims(dtype.id()) != 1
                || H5Tget_array_dims2(dtype.id(), &raw mut items) < 0
            {
                return Ok(Some((own(H5Tget_super(dtype.id()))?, 0)));
            }
            Ok(Some((own(H5Tget_super(dtype.id()))?, items as usize)))
        }
    })
}

fn numbers_of(item: &Datatype, items: usize) -> Result<Numbers, String> {
    if items == 0 || items > MOST_ITEMS {
        return Err("an array of several dimensions or of absurd length".to_string());
    }
    // PyTables stores truth values as bit fields of one byte.
    let bits = class_of(item) == H5T_class_t::H5T_BITFIELD && item.size() == 1;
    let numbers = if bits { Some(Numbers::Boolean) } else { numbers_of_type(item) };
    match numbers {
        Some(Numbers::Boolean) if items > 1 => Err("an array of truth values".to_string()),
        Some(_) if !bits && is_unusual(item) => Err("an unusual number format".to_string()),
        Some(numbers) => Ok(numbers),
        None => Err(describe_type(item)),
    }
}

/// A word of 8 bytes per item; a truth value stays the byte that it is.
fn memory_type(
    stored: &Datatype,
    numbers: Numbers,
    items: usize,
    is_array: bool,
) -> Result<Datatype> {
    let word = match numbers {
        Numbers::Real => TypeDescriptor::Float(FloatSize::U8),
        Numbers::Integer(_) => TypeDescriptor::Integer(IntSize::U8),
        Numbers::Unsigned(_) => TypeDescriptor::Unsigned(IntSize::U8),
        Numbers::Boolean => return Ok(stored.clone()),
    };
    let array = || TypeDescriptor::FixedArray(Box::new(word.clone()), items);
    Datatype::from_descriptor(&if is_array { array() } else { word.clone() })
}

fn class_of(dtype: &Datatype) -> H5T_class_t {
    // SAFETY: the id is that of a living type.
    sync(|| unsafe { H5Tget_class(dtype.id()) })
}

/// # Safety
/// The id must be new: closed by nobody else.
unsafe fn own(id: hid_t) -> Result<Datatype> {
    // SAFETY: as demanded above; an invalid id is refused.
    unsafe { hdf5::from_id(id) }
}

/// Some fields of a table, ready to be read together: one field costs as much time as
/// all of them, because whole records are fetched.
#[derive(Debug)]
pub(super) struct RecordReader {
    dataset: Dataset,
    memory: Datatype,
    words: usize, // per record
}

impl RecordReader {
    /// Gives the reader, and the word at which each field begins in a record in memory.
    pub fn new(dataset: &Dataset, fields: &[&Field]) -> Result<(RecordReader, Vec<usize>)> {
        let mut first = Vec::with_capacity(fields.len());
        let mut words = 0;
        for field in fields {
            first.push(words);
            words += field.items;
        }
        if words == 0 {
            return Err("no field to read".into());
        }
        // SAFETY: a new type of a positive size, owned at once.
        let memory = sync(|| unsafe { own(H5Tcreate(H5T_class_t::H5T_COMPOUND, 8 * words)) })?;
        for (field, first) in fields.iter().zip(&first) {
            let Some(dtype) = &field.memory else {
                return Err(format!("'{}' is no number", field.name).into());
            };
            let name = CString::new(field.name.as_str()).map_err(|e| e.to_string())?;
            // SAFETY: both types live; the field ends within the record, since each of
            // its items takes at most the 8 bytes counted for it.
            let outcome =
                sync(|| unsafe { H5Tinsert(memory.id(), name.as_ptr(), 8 * first, dtype.id()) });
            if outcome < 0 {
                return Err(Error::query().unwrap_or_else(|error| error));
            }
        }
        Ok((RecordReader { dataset: dataset.clone(), memory, words }, first))
    }

    /// Calls `take` with records of (rows, words), some rows at a time.
    pub fn read(&self, rows: Range<u64>, mut take: impl FnMut(&[u64], usize)) -> Result<()> {
        let step = (LARGEST_READ / (8 * self.words)).max(1) as u64;
        let mut records = Vec::new();
        let mut start = rows.start;
        while start < rows.end {
            let end = rows.end.min(start + step);
            // Zeroed: a truth value fills only the first byte of its word.
            records.clear();
            records.resize((end - start) as usize * self.words, 0);
            self.read_into(start..end, &mut records)?;
            take(&records, self.words);
            start = end;
        }
        Ok(())
    }

    fn read_into(&self, rows: Range<u64>, records: &mut [u64]) -> Result<()> {
        let count = (rows.end - rows.start) as usize;
        let file = self.dataset.space()?.select(rows.start as usize..rows.end as usize)?;
        let memory = Dataspace::try_new((count,))?;
        if file.selection_size() != count || records.len() != count * self.words {
            return Err("a selection of another size".into());
        }
        // SAFETY: the buffer holds as many records of the memory type as are selected,
        // and every field of that type is a plain number, so any bytes are valid.
        let outcome = sync(|| unsafe {
            H5Dread(
                self.dataset.id(),
                self.memory.id(),
                memory.id(),
                file.id(),
                H5P_DEFAULT,
                ptr::from_mut(records).cast(),
            )
        });
        if outcome < 0 { Err(Error::query().unwrap_or_else(|error| error)) } else { Ok(()) }
    }
}
