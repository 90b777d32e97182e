//! Reads compound tables: their numeric fields, and some of the fields at once.
//!
//! The bindings lack some calls of the C library that are made here. Members of a type are read one
//! by one, so that a member of an unknown type does not hide the others.
//!
//! - The type of a field is checked before it is read by name: the library fills a field that it
//!   does not find with zeros, without an error.
//! - Fields lie within their record and do not overlap, which the library does not check.
//! - A record, an array in it and the memory of a read are bounded.
//! - Numbers are read as they are stored and converted here: the conversion of the library takes
//!   longer than unpacking them.

#![allow(unsafe_code)] // HDF5 records

use super::rows;
use super::types::{NumberClass, class_of, describe_type, is_unusual, numbers_of_type};
use hdf5::sync::sync;
use hdf5::types::{FloatSize, IntSize, TypeDescriptor};
use hdf5::{Dataset, Datatype, Error, Result};
use hdf5_sys::h5::H5free_memory;
use hdf5_sys::h5i::hid_t;
use hdf5_sys::h5t::{
    H5T_class_t, H5Tcreate, H5Tget_array_dims2, H5Tget_array_ndims, H5Tget_member_name,
    H5Tget_member_offset, H5Tget_member_type, H5Tget_nmembers, H5Tget_super, H5Tinsert,
    H5Tis_variable_str,
};
use std::ffi::{CStr, CString};
use std::ops::Range;

/// A longer record is a damaged header.
const LONGEST_RECORD: usize = 1 << 20; // bytes
const MOST_FIELDS: usize = 4096;
/// Most items of one array within a record.
const MOST_ITEMS: usize = 4096;
/// Memory of one call of the library: it stays in the cache of a core.
const LARGEST_READ: usize = 1 << 20; // bytes

/// A member of a record.
#[derive(Debug, Clone)]
pub(crate) struct Field {
    pub name: String,
    /// Class of one item; a description if it is not a number.
    pub numbers: Result<NumberClass, String>,
    /// Length of an array; 1 for a scalar.
    pub items: usize,
    pub is_array: bool,
    /// Offset in the record of the file [bytes].
    offset: usize,
    memory: Option<MemoryField>,
}

/// A field in memory: the native number type of the stored width.
#[derive(Debug, Clone)]
struct MemoryField {
    dtype: Datatype,
    item: Item,
    /// Whether the bytes in the file and in memory are equal.
    is_stored: bool,
}

/// One number in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Item {
    F32,
    F64,
    Integer(IntSize),
    Unsigned(IntSize),
}

/// One column in the records of a read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Slot {
    offset: usize, // in a record [bytes]
    item: Item,
}

/// Returns whether a dataset is a table of records.
pub(crate) fn is_record(dataset: &Dataset) -> bool {
    dataset.dtype().is_ok_and(|dtype| class_of(&dtype) == H5T_class_t::H5T_COMPOUND)
}

/// Returns all members of a compound dataset, in their order.
pub(crate) fn fields(dataset: &Dataset) -> Result<Vec<Field>> {
    let (dtype, count) = checked_type(dataset)?;
    (0..count).map(|index| field(&dtype, index)).collect()
}

/// Refuses a compound type with fields that the library would read outside of their record.
pub(crate) fn check_record(dataset: &Dataset) -> Result<()> {
    checked_type(dataset).map(|_| ())
}

/// Returns the type of a compound dataset and the number of its members.
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

/// Refuses fields that overlap or end outside of their record: the library would read foreign
/// bytes, or crash.
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
    // SAFETY: the index is below the number of members; the returned id is new and has no other
    // owner.
    sync(|| unsafe { own(H5Tget_member_type(record.id(), index)) })
}

fn field(record: &Datatype, index: u32) -> Result<Field> {
    let name = member_name(record, index)?;
    let dtype = member_type(record, index)?;
    let array = array_of(&dtype)?;
    let is_array = array.is_some();
    let (item, items) = array.unwrap_or_else(|| (dtype.clone(), 1));
    let (numbers, memory) = match numbers_of(&item, items) {
        Ok(numbers) => (Ok(numbers), Some(memory_of(&dtype, &item, numbers, items, is_array)?)),
        Err(what) => (Err(what), None),
    };
    // SAFETY: the index is below the number of members of a living type.
    let offset = sync(|| unsafe { H5Tget_member_offset(record.id(), index) });
    Ok(Field { name, numbers, items, is_array, offset, memory })
}

fn member_name(record: &Datatype, index: u32) -> Result<String> {
    sync(|| {
        // SAFETY: the library returns its own text that ends in zero, or null, and frees it
        // once.
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

/// Returns type and number of the items of an array; `None` for other types. The number is 0 for
/// several dimensions, which are not a column.
fn array_of(dtype: &Datatype) -> Result<Option<(Datatype, usize)>> {
    if class_of(dtype) != H5T_class_t::H5T_ARRAY {
        return Ok(None);
    }
    sync(|| {
        // SAFETY: the type is an array; dimensions are read only if there is exactly one, which
        // the buffer can hold.
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

fn numbers_of(item: &Datatype, items: usize) -> Result<NumberClass, String> {
    if items == 0 || items > MOST_ITEMS {
        return Err("an array of several dimensions or of absurd length".to_string());
    }
    // PyTables stores booleans as bit fields of one byte.
    let bits = class_of(item) == H5T_class_t::H5T_BITFIELD && item.size() == 1;
    let numbers = if bits { Some(NumberClass::Boolean) } else { numbers_of_type(item) };
    match numbers {
        Some(NumberClass::Boolean) if items > 1 => Err("an array of truth values".to_string()),
        Some(_) if !bits && is_unusual(item) => Err("an unusual number format".to_string()),
        Some(numbers) => Ok(numbers),
        None => Err(describe_type(item)),
    }
}

fn memory_of(
    stored: &Datatype,
    stored_item: &Datatype,
    numbers: NumberClass,
    items: usize,
    is_array: bool,
) -> Result<MemoryField> {
    let (item, word) = match numbers {
        NumberClass::Real if stored_item.size() == 4 => {
            (Item::F32, TypeDescriptor::Float(FloatSize::U4))
        }
        // Includes numbers of two bytes.
        NumberClass::Real => (Item::F64, TypeDescriptor::Float(FloatSize::U8)),
        NumberClass::Integer(size) => (Item::Integer(size), TypeDescriptor::Integer(size)),
        NumberClass::Unsigned(size) => (Item::Unsigned(size), TypeDescriptor::Unsigned(size)),
        // A boolean stays a byte.
        NumberClass::Boolean => {
            let item = Item::Unsigned(IntSize::U1);
            return Ok(MemoryField { dtype: stored.clone(), item, is_stored: true });
        }
    };
    let array = |word| TypeDescriptor::FixedArray(Box::new(word), items);
    let dtype = Datatype::from_descriptor(&if is_array { array(word) } else { word })?;
    let is_stored = dtype == *stored;
    Ok(MemoryField { dtype, item, is_stored })
}

/// Returns whether the library writes the bytes of a record as they are in the file: no member is a
/// pointer in memory, such as a text of variable length.
fn is_plain(record: &Datatype, count: u32) -> Result<bool> {
    for index in 0..count {
        let dtype = member_type(record, index)?;
        let dtype = match array_of(&dtype)? {
            Some((item, _)) => item,
            None => dtype,
        };
        // SAFETY: the type lives.
        let variable = || sync(|| unsafe { H5Tis_variable_str(dtype.id()) }) != 0;
        let plain = match class_of(&dtype) {
            H5T_class_t::H5T_INTEGER
            | H5T_class_t::H5T_FLOAT
            | H5T_class_t::H5T_ENUM
            | H5T_class_t::H5T_BITFIELD => true,
            H5T_class_t::H5T_STRING => !variable(),
            _ => false,
        };
        if !plain {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Takes ownership of the id of a type.
///
/// # Safety
/// The id must be new: no other owner may close it.
unsafe fn own(id: hid_t) -> Result<Datatype> {
    // SAFETY: the caller guarantees a new id; an invalid id is refused.
    unsafe { hdf5::from_id(id) }
}

/// Reader of some fields of a table. One field costs as much time as all of them, because whole
/// records are read.
#[derive(Debug)]
pub(crate) struct RecordReader {
    dataset: Dataset,
    memory: Datatype,
}

impl RecordReader {
    /// Returns the reader, and the slot of the first item of each field in its records.
    pub(crate) fn new(dataset: &Dataset, fields: &[&Field]) -> Result<(RecordReader, Vec<Slot>)> {
        let mut wanted = Vec::with_capacity(fields.len());
        for field in fields {
            let Some(memory) = &field.memory else {
                return Err(format!("'{}' is not a number", field.name).into());
            };
            wanted.push((*field, memory));
        }
        let (record, count) = checked_type(dataset)?;
        let dataset = dataset.clone();
        // Records that are read as stored need no conversion.
        if wanted.iter().all(|(_, memory)| memory.is_stored) && is_plain(&record, count)? {
            let slots = wanted.iter().map(|(field, m)| Slot { offset: field.offset, item: m.item });
            return Ok((RecordReader { dataset, memory: record }, slots.collect()));
        }
        let bytes: usize = wanted.iter().map(|(_, memory)| memory.dtype.size()).sum();
        if bytes == 0 {
            return Err("no field to read".into());
        }
        // SAFETY: a new type of a positive size, owned at once.
        let memory = sync(|| unsafe { own(H5Tcreate(H5T_class_t::H5T_COMPOUND, bytes)) })?;
        let (mut slots, mut offset) = (Vec::with_capacity(wanted.len()), 0);
        for (field, MemoryField { dtype, item, .. }) in wanted {
            let name = CString::new(field.name.as_str()).map_err(|e| e.to_string())?;
            // SAFETY: both types live; the field ends within the record, which is as long as all
            // fields together.
            let outcome =
                sync(|| unsafe { H5Tinsert(memory.id(), name.as_ptr(), offset, dtype.id()) });
            if outcome < 0 {
                return Err(Error::query().unwrap_or_else(|error| error));
            }
            slots.push(Slot { offset, item: *item });
            offset += dtype.size();
        }
        Ok((RecordReader { dataset, memory }, slots))
    }

    /// Returns the bytes of a record in memory.
    pub(crate) fn record_bytes(&self) -> usize {
        self.memory.size()
    }

    /// Calls `take` with whole records, some rows at a time; `bytes` is working space.
    pub(crate) fn read(
        &self,
        rows: Range<u64>,
        bytes: &mut Vec<u8>,
        mut take: impl FnMut(&[u8]),
    ) -> Result<()> {
        let step = (LARGEST_READ / self.record_bytes()).max(1) as u64;
        let mut start = rows.start;
        while start < rows.end {
            let end = rows.end.min(start + step);
            bytes.clear();
            rows::append_records(&self.dataset, &(start..end), &self.memory, bytes)?;
            take(bytes);
            start = end;
        }
        Ok(())
    }
}

impl Slot {
    /// Returns the slot of an item of the same array.
    pub(crate) fn item(self, item: usize) -> Slot {
        Slot { offset: self.offset + item * self.item.bytes(), ..self }
    }

    /// Appends the stored numbers if they have 4 bytes; returns whether they have.
    pub(crate) fn append_f32(
        self,
        records: &[u8],
        record_bytes: usize,
        values: &mut Vec<f32>,
    ) -> bool {
        if self.item != Item::F32 {
            return false;
        }
        let number = |record| f32::from_ne_bytes(at(record, self.offset));
        values.extend(records.chunks_exact(record_bytes).map(number));
        true
    }

    /// Replaces `words` by the numbers, each widened to 8 bytes of its own class: (records).
    pub(crate) fn words(self, records: &[u8], record_bytes: usize, words: &mut Vec<u64>) {
        let at_offset = self.offset;
        words.clear();
        let records = records.chunks_exact(record_bytes);
        macro_rules! widen {
            ($number:ty, $widen:expr) => {
                words.extend(records.map(|record| {
                    let widen: fn($number) -> u64 = $widen;
                    widen(<$number>::from_ne_bytes(at(record, at_offset)))
                }))
            };
        }
        match self.item {
            Item::F32 => widen!(f32, |v| f64::from(v).to_bits()),
            Item::F64 => widen!(f64, f64::to_bits),
            Item::Integer(IntSize::U1) => widen!(i8, |v| i64::from(v) as u64),
            Item::Integer(IntSize::U2) => widen!(i16, |v| i64::from(v) as u64),
            Item::Integer(IntSize::U4) => widen!(i32, |v| i64::from(v) as u64),
            Item::Unsigned(IntSize::U1) => widen!(u8, u64::from),
            Item::Unsigned(IntSize::U2) => widen!(u16, u64::from),
            Item::Unsigned(IntSize::U4) => widen!(u32, u64::from),
            Item::Integer(IntSize::U8) | Item::Unsigned(IntSize::U8) => widen!(u64, |v| v),
        }
    }
}

impl Field {
    /// Returns the bytes of one number in its stored type, or in the next wider native type.
    pub(crate) fn item_bytes(&self) -> usize {
        self.memory.as_ref().map_or(8, |memory| memory.item.bytes())
    }
}

impl Item {
    fn bytes(self) -> usize {
        match self {
            Item::F32 => 4,
            Item::F64 => 8,
            Item::Integer(size) | Item::Unsigned(size) => size as usize,
        }
    }
}

/// Returns bytes of a record; zeros beyond its end, which no slot of its table reaches.
fn at<const N: usize>(record: &[u8], offset: usize) -> [u8; N] {
    record.get(offset..offset + N).and_then(|bytes| bytes.try_into().ok()).unwrap_or([0; N])
}
