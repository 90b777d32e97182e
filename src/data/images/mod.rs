//! Reads and writes files of camera images, as blocks of charges and columns.
//!
//! Three formats are recognised by their content: the project's own image files (and any HDF5
//! file with `images/charge`), DL1 files of ctapipe, and TAIGA text files of cleaned images. A
//! file has one or more [`ImageSet`]s, one per camera. An [`ImageReader`] reads the images of one
//! set in order, in blocks of bounded size. Faults that can be detected without reading images
//! are reported when the file is opened.

mod camera;
mod dl1;
mod own;
mod read;
mod text;
mod write;

pub(crate) use crate::hillas::MOST_PIXELS;
pub use camera::camera_file;
pub(crate) use own::FORMAT;
pub(crate) use write::{ImageSettings, ImageWriter};

use crate::data::hdf5;
use crate::error::{Fault, Result};
use std::io::Read;
use std::path::Path;

/// Positions of the pixels of a camera.
#[derive(Debug, Clone, PartialEq)]
pub struct Geometry {
    pub x_cm: Vec<f64>, // (pixels)
    pub y_cm: Vec<f64>, // (pixels)
    /// Absent if the file does not contain it.
    pub focal_length_cm: Option<f64>,
}

/// Images of one camera in a file.
#[derive(Debug, Clone)]
pub struct ImageSet {
    /// Pixels of an image.
    pub pixels: usize,
    /// Absent if the file does not contain pixel positions.
    pub geometry: Option<Geometry>,
    /// Integer columns that are copied to outputs.
    pub keys: Vec<String>,
    /// Names and units of the other columns.
    pub columns: Vec<(String, String)>,
    pub has_class: bool,
    /// The file marks the pixels that belong to an image.
    pub has_given: bool,
    pub sigma: Sigma,
    /// The images are cleaned: the file contains only the pixels that survived.
    pub is_cleaned: bool,
}

/// Pedestal σ of the pixels [p.e.].
#[derive(Debug, Clone, PartialEq)]
pub enum Sigma {
    None,
    /// The same for all images: (pixels).
    Camera(Vec<f32>),
    /// One value per image and pixel, in the blocks.
    PerImage,
}

/// Charges as stored in the file; [`Charge::image`] converts them to p.e.
#[derive(Debug, Clone)]
pub enum Charge {
    F32(Vec<f32>),
    /// Charge = offset + scale · value.
    U16 {
        values: Vec<u16>,
        scale: f32,
        offset: f32,
    },
}

/// Consecutive images and their columns.
#[derive(Debug, Clone, Default)]
pub struct ImageBlock {
    pub rows: usize,
    pub charge: Charge,         // (rows, pixels) [p.e.]
    pub given: Vec<u8>,         // (rows, pixels): not 0 in the image; empty if not marked
    pub sigma: Vec<f32>,        // (rows, pixels) [p.e.]; empty if not per image
    pub keys: Vec<Vec<i64>>,    // (keys, rows)
    pub columns: Vec<Vec<f32>>, // (columns, rows)
    pub class: Option<Vec<i8>>, // (rows): 1 gamma, 0 hadron, −1 unknown
}

impl Default for Charge {
    fn default() -> Charge {
        Charge::F32(Vec::new())
    }
}

impl Charge {
    /// Returns the charges (pixels) of image `row` [p.e.]; `buffer` is used if they need conversion.
    pub fn image<'a>(&'a self, row: usize, pixels: usize, buffer: &'a mut Vec<f32>) -> &'a [f32] {
        let range = row * pixels..(row + 1) * pixels;
        match self {
            Charge::F32(values) => &values[range],
            Charge::U16 { values, scale, offset } => {
                buffer.clear();
                // Multiplication and addition round separately; a fused operation would round once.
                buffer.extend(values[range].iter().map(|value| f32::from(*value) * scale + offset));
                buffer
            }
        }
    }
}

/// An open file of images.
pub struct ImageFile(ImageFormat);

enum ImageFormat {
    Own(own::OwnFile),
    Dl1(dl1::Dl1File),
    Text(text::TextFile),
}

/// Reader of the images of one set.
pub trait ImageReader: Send {
    /// Replaces the block by about `rows` next images. Returns false at the end.
    ///
    /// # Errors
    /// `Input` if the file is damaged; `Environment` if the system fails to read it.
    fn next(&mut self, rows: usize, block: &mut ImageBlock) -> Result<bool>;
}

impl ImageFile {
    /// Opens a file of any format. `camera` are the pixel positions x and y [cm] for text files;
    /// it is not used for other formats.
    ///
    /// # Errors
    /// `Input` if the file has no valid images; `Environment` if the system fails to read it.
    pub fn open(path: &Path, camera: Option<(&[f64], &[f64])>) -> Result<ImageFile> {
        hdf5::file_length(path)?;
        if !hdf5::is_hdf5(path) && is_text(path) {
            return Ok(ImageFile(ImageFormat::Text(text::TextFile::open(path, camera)?)));
        }
        if dl1::is_dl1(&hdf5::open(path)?) {
            return Ok(ImageFile(ImageFormat::Dl1(dl1::Dl1File::open(path)?)));
        }
        Ok(ImageFile(ImageFormat::Own(own::OwnFile::open(path)?)))
    }

    /// Returns the name of the format, for outputs.
    pub(crate) fn kind(&self) -> &'static str {
        match &self.0 {
            ImageFormat::Own(_) => own::FORMAT,
            ImageFormat::Dl1(_) => "ctapipe DL1",
            ImageFormat::Text(_) => "TAIGA cleaned images",
        }
    }

    /// Returns the sets of images.
    pub fn sets(&self) -> &[ImageSet] {
        match &self.0 {
            ImageFormat::Own(file) => file.sets(),
            ImageFormat::Dl1(file) => file.sets(),
            ImageFormat::Text(file) => file.sets(),
        }
    }

    /// Returns a reader of the set `index`.
    ///
    /// # Errors
    /// `Input` if the file is damaged; `Internal` if there is no such set.
    pub fn reader(&self, index: usize) -> Result<Box<dyn ImageReader>> {
        if index >= self.sets().len() {
            return Err(Fault::new("no such set of images").found(index).internal());
        }
        Ok(match &self.0 {
            ImageFormat::Own(file) => Box::new(file.reader()?),
            ImageFormat::Dl1(file) => Box::new(file.reader(index)?),
            ImageFormat::Text(file) => Box::new(file.reader()?),
        })
    }

    /// Returns the attributes (name, text) that describe a simulated file, for outputs.
    pub(crate) fn origin(&self) -> Vec<(String, String)> {
        match &self.0 {
            ImageFormat::Own(file) => file.origin(),
            ImageFormat::Dl1(_) | ImageFormat::Text(_) => Vec::new(),
        }
    }
}

/// Returns whether a file begins with printable text.
fn is_text(path: &Path) -> bool {
    let mut head = [0u8; 256];
    let read = std::fs::File::open(path).and_then(|mut file| file.read(&mut head));
    let head = &head[..read.unwrap_or(0)];
    !head.is_empty() && head.iter().all(|b| b.is_ascii_graphic() || b.is_ascii_whitespace())
}
