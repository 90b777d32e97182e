//! Reads images from DL1 files of ctapipe.
//!
//! A file has one table `dl1/event/telescope/images/tel_NNN` per telescope, with the image as an
//! array field. Each telescope is a separate set of images. The camera is read from the
//! description of the subarray in the file. Fixed-point images (`CTAFIELD_n_TRANSFORM`) are
//! converted to charges.

mod camera;
mod fields;

use super::read::number_attribute;
use super::{Charge, ImageBlock, ImageReader, ImageSet, MOST_PIXELS, Sigma};
use crate::data::hdf5;
use crate::error::{Error, Fault, Result};
use ::hdf5::{Dataset, File};
use camera::camera_of;
use fields::{FieldType, field_number, field_of, read, rows_of};
use hdf5_sys::h5t::H5T_class_t;
use std::path::{Path, PathBuf};

/// Group of the tables of images.
const IMAGES: &str = "dl1/event/telescope/images";
/// Memory of one read [bytes].
const LARGEST_READ: usize = 32 << 20;
/// Key columns of an image.
const KEYS: [&str; 3] = ["obs_id", "event_id", "tel_id"];

/// DL1 file of ctapipe.
pub(super) struct Dl1File {
    path: PathBuf,
    sets: Vec<ImageSet>,
    tables: Vec<String>, // (sets)
}

/// Returns whether a file has images in the layout of ctapipe.
pub(super) fn is_dl1(file: &File) -> bool {
    file.group(IMAGES).is_ok()
}

impl Dl1File {
    /// Opens a file and checks its tables of images. Telescopes without images are skipped,
    /// unless all of them have none.
    ///
    /// # Errors
    /// `Input` if the file is damaged or has no images; `Environment` if the system fails.
    pub(crate) fn open(path: &Path) -> Result<Dl1File> {
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
            // If no telescope has images, the last one remains as an empty set.
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

    /// Returns the sets of images, one per telescope.
    pub(crate) fn sets(&self) -> &[ImageSet] {
        &self.sets
    }

    /// Returns a reader of the images of one telescope.
    ///
    /// # Errors
    /// As [`Dl1File::open`].
    pub(crate) fn reader(&self, index: usize) -> Result<Dl1Reader> {
        let file = hdf5::open_with_cache(&self.path, LARGEST_READ)?;
        let table = Dl1Table::open(&self.path, &file, &self.tables[index])?;
        Ok(Dl1Reader { table, next: 0, reads_mask: self.sets[index].has_given, _file: file })
    }
}

/// One table of images, after all checks.
struct Dl1Table {
    path: PathBuf,
    name: String,
    dataset: Dataset,
    rows: u64,
    pixels: usize,
    has_mask: bool,
    transform: Option<ChargeScale>,
}

/// Fixed-point format: charge = (stored − offset)/scale, with stored values for NaN and ±infinity.
#[derive(Debug, Clone, Copy)]
struct ChargeScale {
    scale: f64,
    offset: f64,
    special: [Option<(f64, f32)>; 3], // stored value, charge
}

impl Dl1Table {
    /// Opens a table and checks shape, storage and fields.
    fn open(path: &Path, file: &File, name: &str) -> Result<Dl1Table> {
        let dataset = file.dataset(name).map_err(|error| hdf5::read_fault(path, name, &error))?;
        let rows = rows_of(path, name, &dataset)?;
        let fault = |message: &str| Fault::new(message).file(path).dataset(name);
        let Some((H5T_class_t::H5T_INTEGER | H5T_class_t::H5T_FLOAT, pixels)) =
            field_of(&dataset, "image")?
        else {
            return Err(fault("no images in the table").expected("an array field 'image'").input());
        };
        if !(7..=MOST_PIXELS).contains(&pixels) {
            return Err(fault("number of pixels out of range")
                .expected(format!("7 to {MOST_PIXELS}"))
                .found(pixels)
                .input());
        }
        for key in KEYS {
            if !matches!(field_of(&dataset, key)?, Some((H5T_class_t::H5T_INTEGER, 1))) {
                return Err(fault("missing key").column(key).expected("integers").input());
            }
        }
        let mask = field_of(&dataset, "image_mask")?;
        let has_mask = mask.is_some_and(|(_, items)| items == pixels);
        let transform = ChargeScale::of(path, name, &dataset)?;
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
    /// Returns the fixed-point format of the field `image`; `None` if it contains charges.
    ///
    /// # Errors
    /// `Input` if the format is fixed point and its numbers cannot be read.
    fn of(path: &Path, table: &str, dataset: &Dataset) -> Result<Option<ChargeScale>> {
        let Some(index) = field_number(dataset, "image") else { return Ok(None) };
        let attribute = |suffix: &str| format!("CTAFIELD_{index}_{suffix}");
        let transform = hdf5::checked_text(path, dataset, &attribute("TRANSFORM"))?;
        if transform.as_deref() != Some("fixed_point") {
            return Ok(None);
        }
        let number = |suffix: &str| number_attribute(path, table, dataset, &attribute(suffix));
        let needed = |suffix: &str| {
            number(suffix)?.ok_or_else(|| missing_attribute(path, table, &attribute(suffix)))
        };
        let special = |suffix: &str, charge: f32| -> Result<Option<(f64, f32)>> {
            Ok(number(suffix)?.map(|stored| (stored, charge)))
        };
        Ok(Some(ChargeScale {
            scale: needed("TRANSFORM_SCALE")?,
            offset: needed("TRANSFORM_OFFSET")?,
            special: [
                special("NAN_VALUE", f32::NAN)?,
                special("POSINF_VALUE", f32::INFINITY)?,
                special("NEGINF_VALUE", f32::NEG_INFINITY)?,
            ],
        }))
    }

    /// Returns the charge of a stored value.
    fn charge(&self, stored: f32) -> f32 {
        let stored = f64::from(stored);
        let special = self.special.iter().flatten().find(|(value, _)| (stored - value).abs() < 0.5);
        special.map_or(((stored - self.offset) / self.scale) as f32, |(_, charge)| *charge)
    }
}

/// Returns the error of a missing attribute of a fixed-point image.
fn missing_attribute(path: &Path, table: &str, name: &str) -> Error {
    Fault::new(format!("missing attribute '{name}'"))
        .file(path)
        .dataset(table)
        .expected("scale and offset of a fixed-point image")
        .input()
}

/// Reader of the images of one telescope.
pub(super) struct Dl1Reader {
    table: Dl1Table,
    next: u64,
    reads_mask: bool,
    _file: File, // keeps the chunk cache
}

impl ImageReader for Dl1Reader {
    fn next(&mut self, rows: usize, block: &mut ImageBlock) -> Result<bool> {
        let table = &self.table;
        let mut fields: Vec<(&str, FieldType)> =
            KEYS.iter().map(|name| (*name, FieldType::Integer)).collect();
        fields.push(("image", FieldType::RealArray(table.pixels)));
        if self.reads_mask {
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
