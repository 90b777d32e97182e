//! A two-dimensional dataset of images: checked before anything is allocated, and read by
//! ranges of images.

use crate::data::hdf5::read_fault;
use crate::data::hdf5::rows;
use crate::error::{Error, Fault, Result, did_you_mean};
use hdf5::dataset::Layout;
use hdf5::types::{FloatSize, IntSize, TypeDescriptor};
use hdf5::{Dataset, Group, H5Type};
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::MOST_PIXELS;

/// More images than this in one file is a damaged header.
const MOST_IMAGES: u64 = 1 << 36;
/// A chunk is read as a whole; a larger one is a damaged header, or unusable.
const LARGEST_CHUNK: u64 = 1 << 28; // bytes
/// Up to this many chunks are looked up in the index before it is read.
const MOST_CHUNKS_CHECKED: u64 = 4096;

/// How charges are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stored {
    Real,
    U16,
    OtherInteger,
}

/// A dataset (images, pixels).
#[derive(Debug, Clone)]
pub(super) struct Table2 {
    dataset: Dataset,
    path: PathBuf,
    pub name: String,
    pub images: u64,
    pub pixels: usize,
    pub stored: Stored,
}

impl Table2 {
    /// Opens the dataset `name` of a group and checks shape, type and storage.
    pub fn open(path: &Path, group: &Group, name: &str, file_bytes: u64) -> Result<Table2> {
        let full = format!("{}/{name}", group.name()).trim_start_matches('/').to_string();
        let fault = |what: &str| Fault::new(what).file(path).dataset(&full);
        let dataset = group.dataset(name).map_err(|error| {
            let names = group.member_names().unwrap_or_default();
            if names.iter().any(|known| known == name) {
                return read_fault(path, &full, &error);
            }
            let known: Vec<&str> = names.iter().map(String::as_str).collect();
            fault("dataset not found").advice(did_you_mean(name, &known)).input()
        })?;
        let stored = stored(&dataset).map_err(|found| {
            fault("charges are no numbers").expected("f32, f64 or integers").found(found).input()
        })?;
        let shape = dataset.get_shape().map_err(|error| read_fault(path, &full, &error))?;
        let [images, pixels] = shape[..] else {
            return Err(fault("not a table of images")
                .expected("two dimensions: images, pixels")
                .found(format!("shape {shape:?}"))
                .input());
        };
        if images as u64 > MOST_IMAGES || !(7..=MOST_PIXELS).contains(&pixels) {
            return Err(fault("impossible number of images or pixels")
                .expected(format!("at most {MOST_IMAGES} images of 7 to {MOST_PIXELS} pixels"))
                .found(format!("{images} images of {pixels} pixels"))
                .advice("leave the file out, or write it again")
                .input());
        }
        let table = Table2 {
            dataset,
            path: path.into(),
            name: full,
            images: images as u64,
            pixels,
            stored,
        };
        table.check_storage(file_bytes)?;
        Ok(table)
    }

    pub fn attribute(&self, name: &str) -> Option<f64> {
        self.dataset.attr(name).ok()?.read_scalar::<f64>().ok()
    }

    pub fn unit(&self) -> Option<String> {
        ["units", "unit"]
            .iter()
            .find_map(|name| crate::data::hdf5::text_attribute(&self.dataset, name))
    }

    /// Images of a chunk; 0 without chunks.
    pub fn chunk_images(&self) -> usize {
        self.dataset.chunk().and_then(|chunk| chunk.first().copied()).unwrap_or(0)
    }

    /// Bytes of all chunks that one block of `images` images touches.
    pub fn cache_bytes(&self, images: usize) -> usize {
        let Some(chunk) = self.dataset.chunk() else { return 0 };
        let item = self.dataset.dtype().map_or(8, |dtype| dtype.size());
        let across = self.pixels.div_ceil(chunk.get(1).copied().unwrap_or(1).max(1));
        let along = images.div_ceil(chunk[0].max(1)) + 1;
        let bytes = chunk.iter().product::<usize>().saturating_mul(item);
        bytes.saturating_mul(across).saturating_mul(along).min(1 << 30)
    }

    /// Replaces `values` by the charges of some images: (images, pixels).
    pub fn read<T: H5Type + Copy>(&self, images: &Range<u64>, values: &mut Vec<T>) -> Result<()> {
        values.clear();
        rows::append_columns(&self.dataset, images, 0..self.pixels, values).map_err(|error| {
            let error = read_fault(&self.path, &self.name, &error);
            match error.fault() {
                Some(fault) => Error::from_code(error.exit_code(), fault.clone().row(images.start)),
                None => error,
            }
        })
    }

    fn check_storage(&self, file_bytes: u64) -> Result<()> {
        let item = self.dataset.dtype().map_or(8, |dtype| dtype.size() as u64);
        let needed = self.images.saturating_mul(self.pixels as u64).saturating_mul(item);
        let refuse = |found: String, expected: String| {
            Err(Fault::new("shape and storage do not agree")
                .file(&self.path)
                .dataset(&self.name)
                .expected(expected)
                .found(found)
                .advice("the file is damaged or was never written whole: write it again")
                .input())
        };
        match self.dataset.layout() {
            Layout::Virtual => {
                refuse("a virtual dataset".into(), "the data in the file itself".into())
            }
            _ if self.images == 0 => Ok(()), // nothing is stored of it
            Layout::Chunked => self.check_chunks(item, file_bytes, &refuse),
            Layout::Compact | Layout::Contiguous => {
                if self.dataset.dcpl().is_ok_and(|list| !list.external().is_empty()) {
                    return refuse("external files".into(), "the data in the file itself".into());
                }
                let stored = self.dataset.storage_size();
                if stored == needed && needed <= file_bytes {
                    return Ok(());
                }
                refuse(format!("{stored} bytes"), format!("{needed} bytes"))
            }
        }
    }

    fn check_chunks(
        &self,
        item: u64,
        file_bytes: u64,
        refuse: &dyn Fn(String, String) -> Result<()>,
    ) -> Result<()> {
        let chunk = self.dataset.chunk().unwrap_or_default();
        let [rows, columns] = chunk[..] else {
            return refuse(format!("chunks {chunk:?}"), "chunks of two dimensions".into());
        };
        let bytes = (rows as u64).saturating_mul(columns as u64).saturating_mul(item);
        if rows == 0 || columns == 0 || bytes > LARGEST_CHUNK {
            return refuse(format!("chunks {chunk:?}"), format!("at most {LARGEST_CHUNK} bytes"));
        }
        let across = self.pixels.div_ceil(columns) as u64;
        let expected = self.images.div_ceil(rows as u64) * across;
        let stored = rows::stored_chunks(&self.dataset)
            .map_err(|error| read_fault(&self.path, &self.name, &error))?;
        if stored < expected {
            return refuse(format!("{stored} chunks"), format!("{expected} chunks"));
        }
        for index in (0..expected).filter(|_| expected <= MOST_CHUNKS_CHECKED) {
            let Some(info) = self.dataset.chunk_info(index as usize) else { continue };
            let end = info.addr.saturating_add(info.size);
            let place = [index / across * rows as u64, index % across * columns as u64];
            if info.offset != place || end > file_bytes {
                return refuse(
                    format!("chunk {index} at {:?}, to byte {end}", info.offset),
                    format!("at {place:?}, within {file_bytes} bytes"),
                );
            }
        }
        Ok(())
    }
}

/// How the charges are stored, or what is stored instead.
fn stored(dataset: &Dataset) -> std::result::Result<Stored, String> {
    let dtype = dataset.dtype().map_err(|error| error.to_string())?;
    match dtype.to_descriptor() {
        Ok(TypeDescriptor::Float(FloatSize::U4 | FloatSize::U8)) => Ok(Stored::Real),
        Ok(TypeDescriptor::Unsigned(IntSize::U2)) => Ok(Stored::U16),
        Ok(TypeDescriptor::Integer(_) | TypeDescriptor::Unsigned(_)) => Ok(Stored::OtherInteger),
        Ok(other) => Err(other.to_string()),
        Err(error) => Err(format!("a type that cannot be read ({error})")),
    }
}
