//! Appends rows of a dataset to a buffer.
//!
//! The bindings allocate an array per read. At the size of a block the system takes its pages back
//! each time and clears them again, which costs more than copying the numbers. Here a buffer keeps
//! its memory from block to block. Callers check selection and type before.

#![allow(unsafe_code)] // HDF5 reads into buffers

use hdf5::sync::sync;
use hdf5::{Dataset, Dataspace, Datatype, Error, H5Type, Result, Selection};
use hdf5_sys::h5d::H5Dread;
use hdf5_sys::h5p::H5P_DEFAULT;
use std::ffi::c_void;
use std::ops::Range;

/// Appends the rows of a one-dimensional dataset.
pub(crate) fn append<T: H5Type + Copy>(
    dataset: &Dataset,
    rows: &Range<u64>,
    values: &mut Vec<T>,
) -> Result<()> {
    append_selected(dataset, rows, (rows.start as usize..rows.end as usize).into(), 1, values)
}

/// Appends some columns of the rows of a two-dimensional dataset: (rows, columns).
pub(crate) fn append_columns<T: H5Type + Copy>(
    dataset: &Dataset,
    rows: &Range<u64>,
    columns: Range<usize>,
    values: &mut Vec<T>,
) -> Result<()> {
    let width = columns.len();
    let selection = (rows.start as usize..rows.end as usize, columns).into();
    append_selected(dataset, rows, selection, width, values)
}

fn append_selected<T: H5Type + Copy>(
    dataset: &Dataset,
    rows: &Range<u64>,
    selection: Selection,
    width: usize,
    values: &mut Vec<T>,
) -> Result<()> {
    let count = (rows.end.saturating_sub(rows.start) as usize).saturating_mul(width);
    let memory = Datatype::from_type::<T>()?;
    if memory.size() != size_of::<T>() {
        return Err("the type has a different size in memory".into());
    }
    values.reserve(count);
    // SAFETY: room for `count` items of the memory type was reserved; any bytes that the
    // library writes there are a `T`, since the type is its own; they count as values only
    // after all of them were written.
    unsafe {
        let end = values.as_mut_ptr().add(values.len());
        read(dataset, &memory, selection, count, end.cast())?;
        values.set_len(values.len() + count);
    }
    Ok(())
}

/// Appends the rows of a compound dataset as bytes of records of the type `memory`.
pub(crate) fn append_records(
    dataset: &Dataset,
    rows: &Range<u64>,
    memory: &Datatype,
    bytes: &mut Vec<u8>,
) -> Result<()> {
    let count = rows.end.saturating_sub(rows.start) as usize;
    let first = bytes.len();
    // Zeroed, because the library does not write between the fields.
    bytes.resize(first.saturating_add(count.saturating_mul(memory.size())), 0);
    let selection = (rows.start as usize..rows.end as usize).into();
    // SAFETY: the buffer has `count` records of the memory type behind `first`; its caller
    // has seen that they hold plain numbers and texts of fixed length, so that no pointer
    // is written and any bytes are valid.
    unsafe { read(dataset, memory, selection, count, bytes.as_mut_ptr().add(first).cast()) }
}

/// Most chunks that are read to reproduce an error of their index.
const MOST_CHUNKS_READ: usize = 65_536;

/// Returns the number of chunks that are stored of a dataset with chunks.
///
/// # Errors
/// That of the library if the index of the chunks cannot be read. The bindings do not return its
/// reason, so a row of each chunk is read to reproduce it.
pub(crate) fn stored_chunks(dataset: &Dataset) -> Result<u64> {
    if let Some(count) = dataset.num_chunks() {
        return Ok(count as u64);
    }
    let chunk = dataset.chunk().and_then(|chunk| chunk.first().copied()).unwrap_or(1);
    let (rows, memory) = (dataset.shape().first().copied().unwrap_or(0), dataset.dtype()?);
    let mut bytes = Vec::new();
    for row in (0..rows as u64).step_by(chunk.max(1)).take(MOST_CHUNKS_READ) {
        bytes.clear();
        match dataset.ndim() {
            1 => append_records(dataset, &(row..row + 1), &memory, &mut bytes)?,
            _ => append_columns(
                dataset,
                &(row..row + 1),
                0..dataset.shape()[1],
                &mut Vec::<f64>::new(),
            )?,
        }
    }
    Err("Input/output error, now gone, in the index of the chunks".into())
}

/// Reads the selected items into `buffer`.
///
/// # Safety
/// `buffer` must have room for `count` items of the type `memory`.
unsafe fn read(
    dataset: &Dataset,
    memory: &Datatype,
    selection: Selection,
    count: usize,
    buffer: *mut c_void,
) -> Result<()> {
    let stored = dataset.space()?.select(selection)?;
    if stored.selection_size() != count {
        return Err("the selection has a different size".into());
    }
    let space = Dataspace::try_new((count,))?;
    let (dataset, memory, space, stored) = (dataset.id(), memory.id(), space.id(), stored.id());
    // SAFETY: the ids live until the end of the call; as many items are written as were
    // selected, which the buffer can hold.
    let outcome = sync(|| unsafe { H5Dread(dataset, memory, space, stored, H5P_DEFAULT, buffer) });
    if outcome < 0 { Err(Error::query().unwrap_or_else(|error| error)) } else { Ok(()) }
}
