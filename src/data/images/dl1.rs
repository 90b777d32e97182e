//! DL1 files of ctapipe: `dl1/event/telescope/images/tel_NNN`, a table of records with the
//! image as an array, one per telescope; each telescope is a set of its own.
//!
//! The camera comes from the file's own description of the subarray. Fixed-point images
//! (`CTAFIELD_n_TRANSFORM`) are turned back into charges. Owns the calls of the C library
//! for fields that are arrays: names and types are looked at before anything is read, since
//! the library fills what it does not find with zeros and says that all is well.

use super::{Charge, Geometry, ImageBlock, ImageReader, ImageSet, MOST_PIXELS, Sigma};
use crate::data::hdf5;
use crate::data::hdf5::rows::stored_chunks;
use crate::error::{Error, Fault, Result};
use ::hdf5::sync::sync;
use ::hdf5::{Dataset, Dataspace, File};
use hdf5_sys::h5d::H5Dread;
use hdf5_sys::h5i::hid_t;
use hdf5_sys::h5p::H5P_DEFAULT;
use hdf5_sys::h5t::{
    H5T_class_t, H5Tarray_create2, H5Tclose, H5Tcreate, H5Tget_array_dims2, H5Tget_array_ndims,
    H5Tget_class, H5Tget_member_index, H5Tget_member_type, H5Tget_size, H5Tget_super, H5Tinsert,
};
use std::ffi::CString;
use std::ops::Range;
use std::path::{Path, PathBuf};

const IMAGES: &str = "dl1/event/telescope/images";
const INSTRUMENT: &str = "configuration/instrument";
/// More rows than this, or a longer record, is a damaged header.
const MOST_ROWS: u64 = 1 << 36;
const LONGEST_RECORD: usize = 1 << 22; // bytes
/// Memory of one read.
const LARGEST_READ: usize = 32 << 20; // bytes
const KEYS: [&str; 3] = ["obs_id", "event_id", "tel_id"];

pub(super) struct Dl1File {
    path: PathBuf,
    sets: Vec<ImageSet>,
    tables: Vec<String>, // (sets)
}

/// How a field is wanted in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FieldType {
    Integer,
    Real,
    RealArray(usize),
    /// As stored: truth values.
    Bytes(usize),
}

impl FieldType {
    fn bytes(self) -> usize {
        match self {
            FieldType::Integer | FieldType::Real => 8,
            FieldType::RealArray(items) => 4 * items,
            FieldType::Bytes(items) => items,
        }
    }
}

/// Whether a file has images as ctapipe stores them.
pub(super) fn is_dl1(file: &File) -> bool {
    file.group(IMAGES).is_ok()
}

impl Dl1File {
    pub fn open(path: &Path) -> Result<Dl1File> {
        let file = hdf5::open(path)?;
        let group = hdf5::group(path, &file, IMAGES)?;
        let mut names =
            group.member_names().map_err(|error| hdf5::read_fault(path, IMAGES, &error))?;
        names.retain(|name| name.starts_with("tel_"));
        names.sort();
        let (mut sets, mut tables) = (Vec::new(), Vec::new());
        let last = names.last().cloned();
        for name in names {
            let table = format!("{IMAGES}/{name}");
            let telescope = name["tel_".len()..].parse::<i64>().ok();
            let opened = Dl1Table::open(path, &file, &table)?;
            // One without images stands for all where there are none at all.
            if opened.rows == 0 && !(sets.is_empty() && Some(&name) == last.as_ref()) {
                continue;
            }
            sets.push(ImageSet {
                pixels: opened.pixels,
                geometry: camera_of(path, &file, telescope, opened.pixels)?,
                keys: KEYS.map(String::from).to_vec(),
                columns: Vec::new(),
                has_class: false,
                has_given: opened.has_mask,
                sigma: Sigma::None,
                is_cleaned: false,
            });
            tables.push(table);
        }
        if sets.is_empty() {
            return Err(Fault::new("no images in the file").file(path).dataset(IMAGES).input());
        }
        let masks = sets.iter().all(|set| set.has_given);
        sets.iter_mut().for_each(|set| set.has_given = masks);
        Ok(Dl1File { path: path.into(), sets, tables })
    }

    pub fn sets(&self) -> &[ImageSet] {
        &self.sets
    }

    pub fn reader(&self, index: usize) -> Result<Dl1Reader> {
        let file = hdf5::open_with_cache(&self.path, LARGEST_READ)?;
        let table = Dl1Table::open(&self.path, &file, &self.tables[index])?;
        Ok(Dl1Reader { table, next: 0, wants_mask: self.sets[index].has_given, _file: file })
    }
}

/// One table of images, checked.
struct Dl1Table {
    path: PathBuf,
    name: String,
    dataset: Dataset,
    rows: u64,
    pixels: usize,
    has_mask: bool,
    transform: Option<ChargeScale>,
}

/// Charge = (stored − offset)/scale, with three stored values that mean no number.
#[derive(Debug, Clone, Copy)]
struct ChargeScale {
    scale: f64,
    offset: f64,
    special: [Option<(f64, f32)>; 3], // stored value, meaning
}

impl Dl1Table {
    fn open(path: &Path, file: &File, name: &str) -> Result<Dl1Table> {
        let dataset = file.dataset(name).map_err(|error| hdf5::read_fault(path, name, &error))?;
        let rows = rows_of(path, name, &dataset)?;
        let fault = |what: &str| Fault::new(what).file(path).dataset(name);
        let Some((H5T_class_t::H5T_INTEGER | H5T_class_t::H5T_FLOAT, pixels)) =
            field_of(&dataset, "image")?
        else {
            return Err(fault("no images in the table").expected("an array field 'image'").input());
        };
        if !(7..=MOST_PIXELS).contains(&pixels) {
            return Err(fault("impossible number of pixels")
                .expected(format!("7 to {MOST_PIXELS}"))
                .found(pixels)
                .input());
        }
        for key in KEYS {
            if !matches!(field_of(&dataset, key)?, Some((H5T_class_t::H5T_INTEGER, 1))) {
                return Err(fault("a key is missing").column(key).expected("integers").input());
            }
        }
        let mask = field_of(&dataset, "image_mask")?;
        let has_mask = mask.is_some_and(|(_, items)| items == pixels);
        let transform = ChargeScale::of(&dataset, "image");
        Ok(Dl1Table {
            path: path.into(),
            name: name.into(),
            dataset,
            rows,
            pixels,
            has_mask,
            transform,
        })
    }
}

impl ChargeScale {
    fn of(dataset: &Dataset, field: &str) -> Option<ChargeScale> {
        let index = field_number(dataset, field)?;
        let text = |what: &str| hdf5::text_attribute(dataset, &format!("CTAFIELD_{index}_{what}"));
        if text("TRANSFORM").as_deref() != Some("fixed_point") {
            return None;
        }
        let number = |what: &str| {
            let attribute = dataset.attr(&format!("CTAFIELD_{index}_{what}")).ok()?;
            attribute.read_scalar::<f64>().ok()
        };
        let special = |what: &str, meaning: f32| number(what).map(|stored| (stored, meaning));
        Some(ChargeScale {
            scale: number("TRANSFORM_SCALE")?,
            offset: number("TRANSFORM_OFFSET")?,
            special: [
                special("NAN_VALUE", f32::NAN),
                special("POSINF_VALUE", f32::INFINITY),
                special("NEGINF_VALUE", f32::NEG_INFINITY),
            ],
        })
    }

    fn charge(&self, stored: f32) -> f32 {
        let stored = f64::from(stored);
        let special = self.special.iter().flatten().find(|(value, _)| (stored - value).abs() < 0.5);
        special.map_or(((stored - self.offset) / self.scale) as f32, |(_, meaning)| *meaning)
    }
}

pub(super) struct Dl1Reader {
    table: Dl1Table,
    next: u64,
    wants_mask: bool,
    _file: File, // keeps the chunk cache
}

impl ImageReader for Dl1Reader {
    fn next(&mut self, rows: usize, block: &mut ImageBlock) -> Result<bool> {
        let table = &self.table;
        let mut fields: Vec<(&str, FieldType)> =
            KEYS.iter().map(|name| (*name, FieldType::Integer)).collect();
        fields.push(("image", FieldType::RealArray(table.pixels)));
        if self.wants_mask {
            fields.push(("image_mask", FieldType::Bytes(table.pixels)));
        }
        let record: usize = fields.iter().map(|(_, memory)| memory.bytes()).sum();
        let rows = rows.min(LARGEST_READ / record).max(1) as u64;
        let range = self.next..table.rows.min(self.next + rows);
        if range.is_empty() {
            return Ok(false);
        }
        self.next = range.end;
        let bytes = read(&table.path, &table.name, &table.dataset, &fields, range.clone())?;
        block.rows = (range.end - range.start) as usize;
        block.keys = vec![Vec::with_capacity(block.rows); KEYS.len()];
        block.given.clear();
        let mut charges = Vec::with_capacity(block.rows * table.pixels);
        for record in bytes.chunks_exact(record) {
            let (keys, rest) = record.split_at(8 * KEYS.len());
            for (column, key) in block.keys.iter_mut().zip(keys.as_chunks::<8>().0) {
                column.push(i64::from_ne_bytes(*key));
            }
            let (image, mask) = rest.split_at(4 * table.pixels);
            charges.extend(image.as_chunks::<4>().0.iter().map(|four| f32::from_ne_bytes(*four)));
            block.given.extend_from_slice(mask);
        }
        if let Some(transform) = table.transform {
            charges.iter_mut().for_each(|charge| *charge = transform.charge(*charge));
        }
        block.charge = Charge::F32(charges);
        block.sigma.clear();
        block.columns.clear();
        block.class = None;
        Ok(true)
    }
}

/// The camera of a telescope, if the file describes it.
fn camera_of(
    path: &Path,
    file: &File,
    telescope: Option<i64>,
    pixels: usize,
) -> Result<Option<Geometry>> {
    let layout_name = format!("{INSTRUMENT}/subarray/layout");
    let layout = hdf5::optional_dataset(path, file, &layout_name)?;
    let (Some(telescope), Some(layout)) = (telescope, layout) else {
        return Ok(None);
    };
    let integers = |name: &str| numbers(path, &layout_name, &layout, name, FieldType::Integer);
    let (ids, cameras) = (integers("tel_id")?, integers("camera_index")?);
    let optics = integers("optics_index")?;
    let Some(row) = ids.iter().position(|id| (*id - telescope as f64).abs() < 0.5) else {
        return Ok(None);
    };
    let name = format!("{INSTRUMENT}/telescope/camera/geometry_{}", cameras[row] as i64);
    let Some(dataset) = hdf5::optional_dataset(path, file, &name)? else { return Ok(None) };
    let metres = |field: &str| {
        let unit = unit_of(&dataset, field);
        if unit.as_deref().is_none_or(|unit| unit != "m") {
            return Err(Fault::new("pixel positions are in another unit")
                .file(path)
                .dataset(&name)
                .column(field)
                .expected("m")
                .found(unit.unwrap_or_else(|| "none".to_string()))
                .input());
        }
        let values = numbers(path, &name, &dataset, field, FieldType::Real)?;
        Ok(values.into_iter().map(|m| 100.0 * m).collect::<Vec<f64>>())
    };
    let (x_cm, y_cm) = (metres("pix_x")?, metres("pix_y")?);
    if x_cm.len() != pixels {
        return Err(Fault::new("the camera does not have the pixels of the images")
            .file(path)
            .dataset(&name)
            .expected(format!("{pixels} pixels"))
            .found(format!("{} pixels", x_cm.len()))
            .input());
    }
    let focal_length_cm = focal_length(path, file, optics[row])?;
    Ok(Some(Geometry { x_cm, y_cm, focal_length_cm }))
}

/// The effective focal length, which maps the camera to the sky; else the equivalent one.
fn focal_length(path: &Path, file: &File, row: f64) -> Result<Option<f64>> {
    let name = format!("{INSTRUMENT}/telescope/optics");
    let Some(dataset) = hdf5::optional_dataset(path, file, &name)? else { return Ok(None) };
    for field in ["effective_focal_length", "equivalent_focal_length"] {
        if field_of(&dataset, field)?.is_none() {
            continue;
        }
        let lengths = numbers(path, &name, &dataset, field, FieldType::Real)?;
        let length = lengths.get(row as usize).copied().filter(|m| m.is_finite() && *m > 0.0);
        if length.is_some() {
            return Ok(length.map(|m| 100.0 * m));
        }
    }
    Ok(None)
}

/// Number of a field in the names of its attributes: PyTables names all fields, ctapipe
/// those of its containers.
fn field_number(dataset: &Dataset, field: &str) -> Option<u32> {
    let named = |name: String| hdf5::text_attribute(dataset, &name).as_deref() == Some(field);
    (0..64).find(|i| named(format!("FIELD_{i}_NAME")) || named(format!("CTAFIELD_{i}_NAME")))
}

fn unit_of(dataset: &Dataset, field: &str) -> Option<String> {
    let index = field_number(dataset, field)?;
    hdf5::text_attribute(dataset, &format!("CTAFIELD_{index}_UNIT"))
}

/// All values of one numeric field of a small table, as f64.
fn numbers(
    path: &Path,
    name: &str,
    dataset: &Dataset,
    field: &str,
    memory: FieldType,
) -> Result<Vec<f64>> {
    let rows = rows_of(path, name, dataset)?;
    let wanted = match field_of(dataset, field)? {
        Some((H5T_class_t::H5T_INTEGER, 1)) => true,
        Some((H5T_class_t::H5T_FLOAT, 1)) => memory == FieldType::Real,
        _ => false,
    };
    if !wanted || rows > MOST_PIXELS as u64 {
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

/// Rows of a table of records whose storage can hold them.
fn rows_of(path: &Path, name: &str, dataset: &Dataset) -> Result<u64> {
    let fault = |what: &str| Fault::new(what).file(path).dataset(name);
    let damaged = |found: String| {
        Err(fault("shape and storage do not agree")
            .found(found)
            .advice("the file is damaged: copy or write it again")
            .input())
    };
    let shape = dataset.get_shape().map_err(|error| hdf5::read_fault(path, name, &error))?;
    let [rows] = shape[..] else {
        return Err(fault("not a table").found(format!("shape {shape:?}")).input());
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

/// Class and number of items of a field; none if there is no such field.
fn field_of(dataset: &Dataset, name: &str) -> Result<Option<(H5T_class_t, usize)>> {
    let Ok(dtype) = dataset.dtype() else { return Ok(None) };
    let text = c_name(name)?;
    Ok(sync(|| {
        // SAFETY: the type lives until the end of the call and is asked for members only
        // if it is a compound; ids that come back are new and are closed once.
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

/// Class of the items of a type, and their number.
///
/// # Safety
/// `member` is the id of an open type, and the library's lock is held.
unsafe fn describe(member: hid_t) -> Option<(H5T_class_t, usize)> {
    // SAFETY: as the caller promises; the buffer holds the one dimension asked for.
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

/// Some fields of some rows, packed one after the other in native byte order.
fn read(
    path: &Path,
    name: &str,
    dataset: &Dataset,
    fields: &[(&str, FieldType)],
    rows: Range<u64>,
) -> Result<Vec<u8>> {
    let record: usize = fields.iter().map(|(_, memory)| memory.bytes()).sum();
    let count = (rows.end - rows.start) as usize;
    let failed = |error: ::hdf5::Error| {
        let error = hdf5::read_fault(path, name, &error);
        match error.fault() {
            Some(fault) => Error::from_code(error.exit_code(), fault.clone().row(rows.start)),
            None => error,
        }
    };
    hdf5::check_filters(dataset).map_err(failed)?;
    crate::data::hdf5::compound::check_record(dataset).map_err(failed)?;
    let selection = rows.start as usize..rows.end as usize;
    let space = dataset.space().and_then(|space| space.select(selection)).map_err(failed)?;
    let memory_space = Dataspace::try_new(count).map_err(failed)?;
    let memory = memory_type(dataset, fields, record)?;
    let mut bytes = vec![0u8; count * record];
    let status = sync(|| {
        // SAFETY: the memory type has `record` bytes and the memory space `count` items,
        // which is what the buffer holds; all ids are open.
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

/// The compound type of the wanted fields, to be closed by the caller.
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
        return Err(Fault::new("cannot make a type of numbers").internal());
    };
    let mut names = Vec::new();
    for (name, _) in fields {
        names.push(c_name(name)?);
    }
    let made = sync(|| {
        // SAFETY: every id is open where it is used and closed once; offsets and sizes add
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
    made.ok_or_else(|| {
        Fault::new("the fields of a table are not as they were")
            .advice("write the file again")
            .input()
    })
}

fn c_name(name: &str) -> Result<CString> {
    CString::new(name).map_err(|_| Fault::new("a name with a zero byte").found(name).internal())
}
