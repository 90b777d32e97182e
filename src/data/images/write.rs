//! Writes an image file: charges in fixed point, camera, and one dataset per column.
//!
//! - Equal images give equal bytes.
//! - Memory is bounded.
//! - The file gets its final name only when it is complete.
//! - Charges are stored as u16 in steps of [`SCALE`] p.e., from [`OFFSET`]. Values outside this
//!   range are stored as the nearest limit, like the saturation of a digitiser.

use super::own::{FORMAT, VERSION};
use crate::data::hdf5::write_fault;
use crate::data::schema::columns::{Attribute, ColumnSpec, ColumnValues, ColumnWriter, write_text};
use crate::error::{Fault, Result};
use hdf5::Dataset;
use std::path::Path;

/// Images of a chunk of `images/charge`.
const CHUNK_IMAGES: usize = 256;
/// Step of a stored charge [p.e.].
pub(crate) const SCALE: f32 = 0.1;
/// Charge that is stored as 0 [p.e.].
pub(crate) const OFFSET: f32 = -200.0;

/// Camera and noise of all images of a file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ImageSettings<'a> {
    pub x_cm: &'a [f64], // (pixels)
    pub y_cm: &'a [f64], // (pixels)
    pub focal_length_cm: f64,
    pub pedestal_sigma: &'a [f32], // (pixels) [p.e.]
}

/// Writer of one image file.
pub(crate) struct ImageWriter {
    // Fields are dropped in this order: the dataset closes before the file.
    charge: Dataset,
    columns: ColumnWriter,
    waiting: Vec<u16>, // charges of images whose chunk is not full
    pixels: usize,
    written: usize, // images
}

impl ImageWriter {
    /// Creates the file with camera and columns.
    ///
    /// # Errors
    /// `Usage` if the file exists and `overwrite` is false; `Environment` if writing fails.
    pub(crate) fn create(
        path: &Path,
        images: &ImageSettings,
        columns: &[ColumnSpec],
        overwrite: bool,
    ) -> Result<ImageWriter> {
        let pixels = images.x_cm.len();
        let columns = ColumnWriter::create(path, "events", columns, overwrite)?;
        let charge = start(&columns, images)
            .map_err(|error| write_fault("create", columns.part(), &error))?;
        Ok(ImageWriter { charge, columns, waiting: Vec::new(), pixels, written: 0 })
    }

    /// Appends images with their columns; `charge` is (images, pixels) [p.e.].
    ///
    /// # Errors
    /// `Internal` if charges and columns differ in length; `Environment` if writing fails.
    pub(crate) fn append(&mut self, charge: &[f32], columns: &[ColumnValues]) -> Result<()> {
        let images = columns.first().map_or(0, ColumnValues::len);
        if charge.len() != images * self.pixels {
            return Err(Fault::new("images and columns differ in length")
                .expected(images * self.pixels)
                .found(charge.len())
                .internal());
        }
        self.columns.append(columns)?;
        for image in charge.chunks_exact(self.pixels) {
            self.waiting.extend(image.iter().map(|q| fixed(*q)));
            if self.waiting.len() == CHUNK_IMAGES * self.pixels {
                self.flush()?;
            }
        }
        Ok(())
    }

    /// Writes the remaining images and the attributes of the root, and renames the file to its
    /// final name. Returns the number of images.
    ///
    /// # Errors
    /// `Environment` if writing fails.
    pub(crate) fn finish(mut self, origin: &[(&str, &str)]) -> Result<u64> {
        self.flush()?;
        let text = |text: &str| Attribute::Text(text.to_string());
        let own = [("format", text(FORMAT)), ("version", Attribute::Integer(VERSION))];
        let all = own.into_iter().chain(origin.iter().map(|(name, value)| (*name, text(value))));
        let attributes: Vec<(String, Attribute)> =
            all.map(|(name, value)| (name.to_string(), value)).collect();
        let ImageWriter { charge, columns, .. } = self;
        charge.flush().map_err(|error| write_fault("write", columns.part(), &error))?;
        drop(charge);
        columns.finish(&attributes)
    }

    /// Writes the waiting images.
    fn flush(&mut self) -> Result<()> {
        let images = self.waiting.len() / self.pixels;
        if images == 0 {
            return Ok(());
        }
        let rows = self.written..self.written + images;
        let write = || {
            self.charge.resize((rows.end, self.pixels))?;
            let view = ndarray_view(&self.waiting, images, self.pixels)?;
            self.charge.write_slice(view, (rows.clone(), 0..self.pixels))
        };
        write().map_err(|error| write_fault("write", self.columns.part(), &error))?;
        self.written = rows.end;
        self.waiting.clear();
        Ok(())
    }
}

/// Returns charges as an array (images, pixels).
fn ndarray_view(
    values: &[u16],
    images: usize,
    pixels: usize,
) -> hdf5::Result<ndarray::ArrayView2<'_, u16>> {
    ndarray::ArrayView2::from_shape((images, pixels), values)
        .map_err(|error| hdf5::Error::Internal(error.to_string()))
}

/// Creates the groups `camera` and `images`, and returns the dataset of charges.
fn start(columns: &ColumnWriter, images: &ImageSettings) -> hdf5::Result<Dataset> {
    let file = columns.file();
    let group = |name: &str| file.create_group_builder().obj_track_times(false).create(name);
    let camera = group("camera")?;
    for (name, values) in [("x", images.x_cm), ("y", images.y_cm)] {
        let dataset =
            camera.new_dataset_builder().with_data(values).obj_track_times(false).create(name)?;
        write_text(&dataset, "units", "cm")?;
    }
    let focal = camera.new_attr::<f64>().create("focal_length_m")?;
    focal.write_scalar(&(images.focal_length_cm / 100.0))?;
    let images_group = group("images")?;
    let sigma = images_group
        .new_dataset_builder()
        .with_data(images.pedestal_sigma)
        .obj_track_times(false)
        .create("pedestal_sigma")?;
    write_text(&sigma, "units", "p.e.")?;
    let pixels = images.x_cm.len();
    let charge = images_group
        .new_dataset::<u16>()
        .shape((0.., pixels))
        .chunk((CHUNK_IMAGES, pixels))
        .shuffle()
        .lzf()
        .fletcher32()
        .obj_track_times(false)
        .create("charge")?;
    write_text(&charge, "units", "p.e.")?;
    charge.new_attr::<f64>().create("scale")?.write_scalar(&f64::from(SCALE))?;
    charge.new_attr::<f64>().create("offset")?.write_scalar(&f64::from(OFFSET))?;
    Ok(charge)
}

/// Returns a charge in steps of [`SCALE`]; NaN gives 0, the smallest one.
fn fixed(charge: f32) -> u16 {
    // The conversion saturates.
    ((charge - OFFSET) / SCALE).round_ties_even() as u16
}
