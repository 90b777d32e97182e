//! Reads image files in the project's own format.
//!
//! Their datasets are `images/charge` (events, pixels), `images/pedestal_sigma`, `camera/x`,
//! `camera/y`, and one dataset per column in `events`. Only `images/charge` is required; without
//! the camera, the user must give one. Integer charges are fixed-point numbers,
//! charge = `offset` + `scale` · value, with attributes of these names. Every integer column of
//! 64 bits is a key, as in event files.

use super::read::{ImageDataset, Stored, has_link, number_attribute};
use super::{Charge, Geometry, ImageBlock, ImageReader, ImageSet, MOST_PIXELS, Sigma};
use crate::data::hdf5;
use crate::data::hdf5::numbers::StoredColumn;
use crate::data::hdf5::storage;
use crate::data::hdf5::types::NumberClass;
use crate::data::schema::normal_unit;
use crate::data::table::events;
use crate::error::{Fault, Result};
use ::hdf5::types::IntSize;
use ::hdf5::{File, Group};
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Root attribute `format` of the project's own image files.
pub(crate) const FORMAT: &str = "taiga-flow-images";
/// Root attribute `version`.
pub(crate) const VERSION: i64 = 1;

/// Root attributes of a simulated file that are copied to files computed from it.
const ORIGIN: [&str; 5] = ["simulation", "generator", "class", "seed", "noise_pe"];
/// Dataset of pedestal σ in the group of images.
const SIGMA: &str = "pedestal_sigma";

/// Image file in the project's own format.
pub(super) struct OwnFile {
    path: PathBuf,
    set: [ImageSet; 1],
    origin: Vec<(String, String)>,
}

impl OwnFile {
    /// Opens a file and checks all datasets.
    ///
    /// # Errors
    /// `Input` if the file is damaged or has no images; `Environment` if the system fails.
    pub(crate) fn open(path: &Path) -> Result<OwnFile> {
        let file = hdf5::open(path)?;
        check_format(path, &file)?;
        let opened = ImageDatasets::new(path, &file)?;
        let set = ImageSet {
            pixels: opened.charge.pixels,
            geometry: geometry(path, &file, opened.charge.pixels)?,
            keys: opened.keys.iter().map(|(name, _)| name.clone()).collect(),
            columns: opened
                .columns
                .iter()
                .map(|(name, unit, _)| (name.clone(), unit.clone()))
                .collect(),
            has_class: opened.class.is_some(),
            has_given: false,
            sigma: opened.camera_sigma(path, &file)?,
            is_cleaned: false,
        };
        let text =
            |name: &&str| hdf5::text_attribute(&file, name).map(|text| ((*name).to_string(), text));
        Ok(OwnFile {
            path: path.into(),
            set: [set],
            origin: ORIGIN.iter().filter_map(text).collect(),
        })
    }

    /// Returns the only set of images.
    pub(crate) fn sets(&self) -> &[ImageSet] {
        &self.set
    }

    /// Returns the attributes (name, text) that describe a simulated file.
    pub(crate) fn origin(&self) -> Vec<(String, String)> {
        self.origin.clone()
    }

    /// Returns a reader, with a chunk cache for the chunks of one image.
    ///
    /// # Errors
    /// As [`OwnFile::open`].
    pub(crate) fn reader(&self) -> Result<OwnReader> {
        let opened = ImageDatasets::new(&self.path, &hdf5::open(&self.path)?)?;
        let bytes = opened.charge.cache_bytes(1);
        // While a file is open, HDF5 ignores the cache size of a second opening.
        drop(opened);
        let file = hdf5::open_with_cache(&self.path, bytes.max(1 << 20))?;
        let opened = ImageDatasets::new(&self.path, &file)?;
        Ok(OwnReader { opened, _file: file, next: 0 })
    }
}

/// Open datasets of a file, after all checks.
struct ImageDatasets {
    charge: ImageDataset,
    sigma: Option<ImageDataset>,
    keys: Vec<(String, StoredColumn)>,
    columns: Vec<(String, String, StoredColumn)>, // name, unit
    class: Option<StoredColumn>,
}

impl ImageDatasets {
    /// Opens and checks all datasets.
    fn new(path: &Path, file: &File) -> Result<ImageDatasets> {
        let bytes = hdf5::file_length(path)?;
        let images = hdf5::group(path, file, "images")?;
        let charge = ImageDataset::open(path, &images, "charge", bytes)?;
        if let Some(unit) = charge.unit().map(|unit| normal_unit(&unit)).filter(|u| u != "p.e.") {
            return Err(Fault::new("wrong unit of charges")
                .file(path)
                .dataset(&charge.name)
                .expected("p.e.")
                .found(unit)
                .advice("calibrate the images to photoelectrons first")
                .input());
        }
        let sigma = per_image_sigma(path, &images, &charge, bytes)?;
        let mut opened =
            ImageDatasets { charge, sigma, keys: Vec::new(), columns: Vec::new(), class: None };
        if has_link(path, file, "events")? {
            opened.take_columns(path, &hdf5::group(path, file, "events")?, bytes)?;
        }
        if let Some(declared) = hdf5::integer_attribute(file, "rows")
            && declared != opened.charge.images as i64
        {
            return Err(Fault::new("number of images differs from the attribute `rows`")
                .file(path)
                .expected(format!("{declared} images"))
                .found(opened.charge.images)
                .advice("the file is damaged: copy or write it again")
                .input());
        }
        Ok(opened)
    }

    /// Opens the columns of the group `events`.
    fn take_columns(&mut self, path: &Path, group: &Group, bytes: u64) -> Result<()> {
        let mut names =
            group.member_names().map_err(|error| hdf5::read_fault(path, "events", &error))?;
        names.sort();
        for name in names {
            let column = StoredColumn::open(path, group, &name)?;
            column.check_rows(self.charge.images)?;
            storage::check(&column, bytes)?;
            if name == "class" {
                column.check_integer("classes")?;
                self.class = Some(column);
            } else if column.numbers == NumberClass::Integer(IntSize::U8)
                || events::KEYS.contains(&name.as_str())
            {
                self.keys.push((name, column));
            } else {
                let unit = column.unit().map_or("1".to_string(), normal_unit);
                self.columns.push((name, unit, column));
            }
        }
        Ok(())
    }

    /// Returns the pedestal σ: one value per pixel, one per image and pixel, or none.
    fn camera_sigma(&self, path: &Path, file: &File) -> Result<Sigma> {
        if self.sigma.is_some() {
            return Ok(Sigma::PerImage);
        }
        let images = hdf5::group(path, file, "images")?;
        if !has_link(path, &images, SIGMA)? {
            return Ok(Sigma::None);
        }
        let column = StoredColumn::open(path, &images, SIGMA)?;
        column.check_rows(self.charge.pixels as u64).map_err(|_| {
            column
                .fault("pedestal σ does not fit the images")
                .expected(format!(
                    "one value per pixel ({}), or per image and pixel",
                    self.charge.pixels
                ))
                .found(format!("{} values", column.rows))
                .input()
        })?;
        storage::check(&column, hdf5::file_length(path)?)?;
        Ok(Sigma::Camera(column.read_f32(0..column.rows)?))
    }
}

/// Returns the dataset of pedestal σ if it is two-dimensional.
fn per_image_sigma(
    path: &Path,
    images: &Group,
    charge: &ImageDataset,
    bytes: u64,
) -> Result<Option<ImageDataset>> {
    let two = |dataset: ::hdf5::Dataset| dataset.ndim() == 2;
    if !images.dataset(SIGMA).is_ok_and(two) {
        return Ok(None);
    }
    let sigma = ImageDataset::open(path, images, SIGMA, bytes)?;
    if (sigma.images, sigma.pixels) == (charge.images, charge.pixels) {
        return Ok(Some(sigma));
    }
    Err(Fault::new("pedestal σ does not fit the images")
        .file(path)
        .dataset(&sigma.name)
        .expected(format!("shape ({}, {})", charge.images, charge.pixels))
        .found(format!("shape ({}, {})", sigma.images, sigma.pixels))
        .input())
}

/// Refuses a file whose root attributes name a different format or version.
fn check_format(path: &Path, file: &File) -> Result<()> {
    let Some(format) = hdf5::text_attribute(file, "format") else { return Ok(()) };
    if format != FORMAT {
        return Err(Fault::new("not an image file")
            .file(path)
            .expected(format!("root attribute format = '{FORMAT}'"))
            .found(format!("'{format}'"))
            .advice("give camera images here, not tables of events or scores")
            .input());
    }
    match hdf5::integer_attribute(file, "version") {
        Some(VERSION) => Ok(()),
        found => Err(Fault::new("unsupported version of an image file")
            .file(path)
            .expected(format!("version {VERSION}"))
            .found(found.map_or("no version".to_string(), |v| format!("version {v}")))
            .advice("use the program version that wrote the file, or write the file again")
            .input()),
    }
}

/// Returns the camera of a file, after a check of its number of pixels.
fn geometry(path: &Path, file: &File, pixels: usize) -> Result<Option<Geometry>> {
    let geometry = geometry_of(path, file)?;
    match geometry.as_ref().map(|geometry| (geometry.x_cm.len(), geometry.y_cm.len())) {
        Some(found) if found != (pixels, pixels) => {
            Err(Fault::new("camera and images differ in the number of pixels")
                .file(path)
                .expected(format!("{pixels} pixels"))
                .found(format!("{} x and {} y", found.0, found.1))
                .input())
        }
        _ => Ok(geometry),
    }
}

/// Reads `camera/x` and `camera/y`, in any unit of length; `None` without the group.
pub(super) fn geometry_of(path: &Path, file: &File) -> Result<Option<Geometry>> {
    if !has_link(path, file, "camera")? {
        return Ok(None);
    }
    let group = hdf5::group(path, file, "camera")?;
    let focal = number_attribute(path, "camera", &group, "focal_length_m")?;
    Ok(Some(Geometry {
        x_cm: positions_cm(path, &group, "x")?,
        y_cm: positions_cm(path, &group, "y")?,
        focal_length_cm: focal.map(|m| 100.0 * m),
    }))
}

/// Reads one coordinate of the pixels [cm].
fn positions_cm(path: &Path, group: &Group, name: &str) -> Result<Vec<f64>> {
    let column = StoredColumn::open(path, group, name)?;
    if column.rows > MOST_PIXELS as u64 {
        return Err(column
            .fault("too many pixels for a camera")
            .expected(format!("at most {MOST_PIXELS}"))
            .found(column.rows)
            .input());
    }
    storage::check(&column, hdf5::file_length(path)?)?;
    let unit = column.unit().map_or("cm".to_string(), normal_unit);
    let Some(scale) = cm(&unit) else {
        return Err(column
            .fault("wrong unit of pixel positions")
            .expected("mm, cm or m")
            .found(unit)
            .advice("write the attribute `units` of camera/x and camera/y")
            .input());
    };
    Ok(column.read_f64(0..column.rows)?.into_iter().map(|v| v * scale).collect())
}

/// Returns the number of cm of a unit of length.
fn cm(unit: &str) -> Option<f64> {
    match unit {
        "cm" => Some(1.0),
        "mm" => Some(0.1),
        "m" => Some(100.0),
        _ => None,
    }
}

/// Reader of the images of an own file.
pub(super) struct OwnReader {
    opened: ImageDatasets,
    _file: File, // keeps the chunk cache
    next: u64,
}

impl ImageReader for OwnReader {
    fn next(&mut self, rows: usize, block: &mut ImageBlock) -> Result<bool> {
        let ImageDatasets { charge, sigma, keys, columns, class } = &self.opened;
        // A block consists of whole chunks, so that no chunk is decompressed twice.
        let chunk = charge.chunk_images().max(1);
        let rows = rows.div_ceil(chunk).max(1) * chunk;
        let first = self.next;
        let range = first..charge.images.min(first + rows as u64);
        if range.is_empty() {
            return Ok(false);
        }
        self.next = range.end;
        block.rows = (range.end - range.start) as usize;
        block.charge = charges(charge, &range, std::mem::take(&mut block.charge))?;
        block.given.clear();
        match sigma {
            Some(sigma) => sigma.read(&range, &mut block.sigma)?,
            None => block.sigma.clear(),
        }
        block.keys.resize_with(keys.len(), Vec::new);
        for ((_, column), values) in keys.iter().zip(&mut block.keys) {
            values.clear();
            column.append_i64(&range, values)?;
        }
        block.columns.resize_with(columns.len(), Vec::new);
        for ((_, _, column), values) in columns.iter().zip(&mut block.columns) {
            values.clear();
            column.append_f32(&range, values)?;
        }
        block.class = match class {
            Some(column) => Some(classes(column, &range)?),
            None => None,
        };
        Ok(true)
    }
}

/// Reads the charges of a range of images into the memory of an earlier block.
fn charges(charge: &ImageDataset, range: &Range<u64>, earlier: Charge) -> Result<Charge> {
    let (mut reals, mut integers) = match earlier {
        Charge::F32(values) => (values, Vec::new()),
        Charge::U16 { values, .. } => (Vec::new(), values),
    };
    let number = |name: &str, default: f64| -> Result<f32> {
        Ok(charge.attribute(name)?.unwrap_or(default) as f32)
    };
    match charge.stored {
        Stored::U16 => {
            charge.read(range, &mut integers)?;
            let (scale, offset) = (number("scale", 1.0)?, number("offset", 0.0)?);
            Ok(Charge::U16 { values: integers, scale, offset })
        }
        Stored::Real => {
            charge.read(range, &mut reals)?;
            Ok(Charge::F32(reals))
        }
        Stored::OtherInteger => {
            charge.read(range, &mut reals)?;
            let (scale, offset) = (number("scale", 1.0)?, number("offset", 0.0)?);
            reals.iter_mut().for_each(|value| *value = *value * scale + offset);
            Ok(Charge::F32(reals))
        }
    }
}

/// Reads classes and checks their values.
fn classes(column: &StoredColumn, range: &Range<u64>) -> Result<Vec<i8>> {
    let values = column.read_i64(range.clone())?;
    let rows = range.clone().zip(values);
    rows.map(|(row, value)| class_of(column, row, value)).collect()
}

/// Returns the class of a row.
fn class_of(column: &StoredColumn, row: u64, value: i64) -> Result<i8> {
    match value {
        -1..=1 => Ok(value as i8),
        _ => Err(column
            .fault("invalid class")
            .row(row)
            .expected("1 gamma, 0 hadron or -1 unknown")
            .found(value)
            .input()),
    }
}
