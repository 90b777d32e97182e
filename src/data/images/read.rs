//! Reads a dataset (images, pixels) by ranges of images, with checks before any allocation.

use crate::data::hdf5::rows;
use crate::data::hdf5::{present, read_fault};
use crate::error::{Error, Fault, Result, did_you_mean};
use hdf5::dataset::Layout;
use hdf5::types::{FloatSize, IntSize, TypeDescriptor};
use hdf5::{Dataset, Group, H5Type, Location};
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::MOST_PIXELS;

/// Largest number of images of one file; a file with more has a damaged header.
const MOST_IMAGES: u64 = 1 << 36;
/// Largest chunk [bytes]. A chunk is read as a whole, so a larger one is damaged or unusable.
const LARGEST_CHUNK: u64 = 1 << 28;
/// Largest number of chunks for which the position of each one is checked.
const MOST_CHUNKS_CHECKED: u64 = 4096;

/// Number type of stored charges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stored {
    Real,
    U16,
    OtherInteger,
}

/// A dataset (images, pixels).
#[derive(Debug, Clone)]
pub(super) struct ImageDataset {
    dataset: Dataset,
    path: PathBuf,
    pub name: String,
    pub images: u64,
    pub pixels: usize,
    pub stored: Stored,
}

impl ImageDataset {
    /// Opens the dataset `name` of a group and checks shape, type and storage.
    ///
    /// # Errors
    /// `Input` if it does not exist or a check fails; `Environment` if the system fails.
    pub(crate) fn open(
        path: &Path,
        group: &Group,
        name: &str,
        file_bytes: u64,
    ) -> Result<ImageDataset> {
        let full = format!("{}/{name}", group.name()).trim_start_matches('/').to_string();
        let fault = |message: &str| Fault::new(message).file(path).dataset(&full);
        let dataset = group.dataset(name).map_err(|error| match group.member_names() {
            Ok(names) if !names.iter().any(|known| known == name) => {
                let known: Vec<&str> = names.iter().map(String::as_str).collect();
                fault("dataset not found").advice(did_you_mean(name, &known)).input()
            }
            _ => read_fault(path, &full, &error),
        })?;
        let stored = stored(&dataset).map_err(|found| {
            fault("charges are not numbers").expected("f32, f64 or integers").found(found).input()
        })?;
        let shape = dataset.get_shape().map_err(|error| read_fault(path, &full, &error))?;
        let [images, pixels] = shape[..] else {
            return Err(fault("dataset is not a table of images")
                .expected("two dimensions: images, pixels")
                .found(format!("shape {shape:?}"))
                .input());
        };
        if images as u64 > MOST_IMAGES || !(7..=MOST_PIXELS).contains(&pixels) {
            return Err(fault("number of images or pixels out of range")
                .expected(format!("at most {MOST_IMAGES} images of 7 to {MOST_PIXELS} pixels"))
                .found(format!("{images} images of {pixels} pixels"))
                .advice("omit the file, or write it again")
                .input());
        }
        let table = ImageDataset {
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

    /// Returns a numeric attribute; `None` if there is none of this name.
    ///
    /// # Errors
    /// `Input` if it is not a number; `Environment` if the system fails to read it.
    pub(crate) fn attribute(&self, name: &str) -> Result<Option<f64>> {
        number_attribute(&self.path, &self.name, &self.dataset, name)
    }

    /// Returns the attribute `units` or `unit`.
    pub(crate) fn unit(&self) -> Option<String> {
        ["units", "unit"]
            .iter()
            .find_map(|name| crate::data::hdf5::text_attribute(&self.dataset, name))
    }

    /// Returns the number of images of a chunk; 0 without chunks.
    pub(crate) fn chunk_images(&self) -> usize {
        self.dataset.chunk().and_then(|chunk| chunk.first().copied()).unwrap_or(0)
    }

    /// Returns the size of all chunks that overlap a block of `images` images [bytes].
    pub(crate) fn cache_bytes(&self, images: usize) -> usize {
        let Some(chunk) = self.dataset.chunk() else { return 0 };
        let item = self.dataset.dtype().map_or(8, |dtype| dtype.size());
        let across = self.pixels.div_ceil(chunk.get(1).copied().unwrap_or(1).max(1));
        let along = images.div_ceil(chunk[0].max(1)) + 1;
        let bytes = chunk.iter().product::<usize>().saturating_mul(item);
        bytes.saturating_mul(across).saturating_mul(along).min(1 << 30)
    }

    /// Replaces `values` by the charges of a range of images: (images, pixels).
    ///
    /// # Errors
    /// `Input` if the data are damaged; `Environment` if the system fails to read them.
    pub(crate) fn read<T: H5Type + Copy>(
        &self,
        images: &Range<u64>,
        values: &mut Vec<T>,
    ) -> Result<()> {
        values.clear();
        rows::append_columns(&self.dataset, images, 0..self.pixels, values).map_err(|error| {
            let error = read_fault(&self.path, &self.name, &error);
            match error.fault() {
                Some(fault) => Error::from_code(error.exit_code(), fault.clone().row(images.start)),
                None => error,
            }
        })
    }

    /// Checks that the stored data have the size of the shape and are within the file.
    fn check_storage(&self, file_bytes: u64) -> Result<()> {
        let item = self.dataset.dtype().map_or(8, |dtype| dtype.size() as u64);
        let needed = self.images.saturating_mul(self.pixels as u64).saturating_mul(item);
        match self.dataset.layout() {
            Layout::Virtual => {
                self.refuse("a virtual dataset".into(), "the data in the file itself".into())
            }
            _ if self.images == 0 => Ok(()), // no data are stored
            Layout::Chunked => self.check_chunks(item, file_bytes),
            Layout::Compact | Layout::Contiguous => {
                if self.dataset.dcpl().is_ok_and(|list| !list.external().is_empty()) {
                    return self
                        .refuse("external files".into(), "the data in the file itself".into());
                }
                let stored = self.dataset.storage_size();
                if stored == needed && needed <= file_bytes {
                    return Ok(());
                }
                self.refuse(format!("{stored} bytes"), format!("{needed} bytes"))
            }
        }
    }

    /// Returns the error of data that do not match the shape.
    fn refuse(&self, found: String, expected: String) -> Result<()> {
        Err(Fault::new("shape and storage do not agree")
            .file(&self.path)
            .dataset(&self.name)
            .expected(expected)
            .found(found)
            .advice("the file is damaged or was not written completely: write it again")
            .input())
    }

    /// Checks number, size and positions of the chunks.
    fn check_chunks(&self, item: u64, file_bytes: u64) -> Result<()> {
        let chunk = self.dataset.chunk().unwrap_or_default();
        let [rows, columns] = chunk[..] else {
            return self.refuse(format!("chunks {chunk:?}"), "chunks of two dimensions".into());
        };
        let bytes = (rows as u64).saturating_mul(columns as u64).saturating_mul(item);
        if rows == 0 || columns == 0 || bytes > LARGEST_CHUNK {
            return self
                .refuse(format!("chunks {chunk:?}"), format!("at most {LARGEST_CHUNK} bytes"));
        }
        let across = self.pixels.div_ceil(columns) as u64;
        let expected = self.images.div_ceil(rows as u64) * across;
        let stored = rows::stored_chunks(&self.dataset)
            .map_err(|error| read_fault(&self.path, &self.name, &error))?;
        if stored < expected {
            return self.refuse(format!("{stored} chunks"), format!("{expected} chunks"));
        }
        for index in (0..expected).filter(|_| expected <= MOST_CHUNKS_CHECKED) {
            let Some(info) = self.dataset.chunk_info(index as usize) else { continue };
            let end = info.addr.saturating_add(info.size);
            let place = [index / across * rows as u64, index % across * columns as u64];
            if info.offset != place || end > file_bytes {
                return self.refuse(
                    format!("chunk {index} at {:?}, to byte {end}", info.offset),
                    format!("at {place:?}, within {file_bytes} bytes"),
                );
            }
        }
        Ok(())
    }
}

/// Returns whether a group has a link of this name.
///
/// # Errors
/// `Environment` if the system fails to read it.
pub(super) fn has_link(path: &Path, group: &Group, name: &str) -> Result<bool> {
    // `link_exists` returns false for a failed read too, so `present` checks again.
    Ok(group.link_exists(name) || present(path, name, group.loc_type_by_name(name))?.is_some())
}

/// Returns a numeric attribute; `None` if there is none of this name. `place_name` is the name of
/// the dataset or group, for messages.
///
/// # Errors
/// `Input` if it is not a number; `Environment` if the system fails to read it.
pub(super) fn number_attribute(
    path: &Path,
    place_name: &str,
    place: &Location,
    name: &str,
) -> Result<Option<f64>> {
    let Some(attribute) = present(path, place_name, place.attr(name))? else { return Ok(None) };
    let number = attribute.read_scalar::<f64>();
    number.map(Some).map_err(|error| read_fault(path, &format!("{place_name}@{name}"), &error))
}

/// Returns the number type of the charges, or the name of a type that is not a number.
fn stored(dataset: &Dataset) -> std::result::Result<Stored, String> {
    let dtype = dataset.dtype().map_err(|error| error.to_string())?;
    match dtype.to_descriptor() {
        Ok(TypeDescriptor::Float(FloatSize::U4 | FloatSize::U8)) => Ok(Stored::Real),
        Ok(TypeDescriptor::Unsigned(IntSize::U2)) => Ok(Stored::U16),
        Ok(TypeDescriptor::Integer(_) | TypeDescriptor::Unsigned(_)) => Ok(Stored::OtherInteger),
        Ok(other) => Err(other.to_string()),
        Err(error) => Err(format!("an unreadable type ({error})")),
    }
}
