//! Reads TAIGA text files of cleaned images: a header per event, then a line per surviving pixel.
//!
//! - A header contains the number of the cleaned event, the event number, `axis_scatter`, the
//!   number of pixels and the energy. Newer programs add source position [cm], core [m] and axis.
//! - A pixel line contains cluster, pixel in the cluster, x and y [cm] and amplitude [p.e.].
//! - Keys have the names that `convert` uses for Hillas tables: `run_id`, `event_id`,
//!   `axis_scatter`, `clean_number`, and `run` if the name of the file contains it. `run_id` is
//!   computed from the content, because event numbers repeat between simulation runs.
//! - Without a given camera, the camera consists of all pixels in the file. Therefore the file is
//!   read twice.
//! - An invalid line is an error with its number; no line is skipped.
//! - Memory is bounded by a block and the camera.

use super::{Charge, Geometry, ImageBlock, ImageReader, ImageSet, MOST_PIXELS, Sigma};
use crate::data::text::convert::run_of_name;
use crate::data::text::key_of_bytes;
use crate::data::text::lines::{BYTE_ORDER_MARK, warn_of_last_line};
use crate::error::{Error, Fault, Result};
use crate::hillas::FOCAL_LENGTH_CM;
use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

/// Longest line [bytes].
const LONGEST_LINE: u64 = 4096;
/// Difference below which positions are equal [cm]. They are written with three or four digits.
const STEP_CM: f64 = 0.01;
/// Largest distance between a pixel of the given camera and its position in the text [cm].
const NEAR_CM: f64 = 0.5;
/// Energy from which the unit is eV, below it TeV: no shower has 10⁹ TeV or 10⁹ eV.
const EV_FROM: f64 = 1e9;

/// Text file of cleaned images.
pub(super) struct TextFile {
    path: PathBuf,
    sets: [ImageSet; 1],
    pixels: PixelLookup,
    columns: HeaderColumns,
    file_keys: Vec<i64>,
}

/// Keys with the same value for all images of a file; `run` only if its name contains it.
const FILE_KEYS: [&str; 2] = ["run_id", "run"];
/// Keys of an image, in the order of their names.
const IMAGE_KEYS: [&str; 3] = ["axis_scatter", "clean_number", "event_id"];

/// Optional columns and unit, the same for all headers of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct HeaderColumns {
    source: bool,
    energy_in_ev: bool,
}

/// Lookup table from positions to pixels.
#[derive(Debug, Clone, Default)]
struct PixelLookup {
    at: HashMap<[i64; 2], u16>,
}

impl PixelLookup {
    /// Returns the cell of a position.
    fn cell(x: f64, y: f64, step: f64) -> [i64; 2] {
        [libm::rint(x / step) as i64, libm::rint(y / step) as i64]
    }

    /// Returns the pixel at a position [cm].
    fn find(&self, x: f64, y: f64) -> Option<u16> {
        let [column, row] = PixelLookup::cell(x, y, STEP_CM);
        // Rounding may put equal positions into neighbouring cells.
        let near = [(0, 0), (-1, 0), (1, 0), (0, -1), (0, 1), (-1, -1), (-1, 1), (1, -1), (1, 1)];
        near.iter().find_map(|(dx, dy)| self.at.get(&[column + dx, row + dy]).copied())
    }
}

impl TextFile {
    /// Opens a file and reads it once. `camera` are the pixel positions x and y [cm], if known.
    ///
    /// # Errors
    /// `Input` with the line that is not valid.
    pub(crate) fn open(path: &Path, camera: Option<(&[f64], &[f64])>) -> Result<TextFile> {
        let mut lines = HashedLines::open(path)?.hashed();
        let (columns, positions) = scan(&mut lines)?;
        let (pixels, geometry) = match camera {
            Some((x_cm, y_cm)) => assign(path, &positions, x_cm, y_cm)?,
            None => union(positions),
        };
        let mut names = vec![("energy".to_string(), "TeV".to_string())];
        if columns.source {
            names
                .extend(["source_x", "source_y"].map(|name| (name.to_string(), "deg".to_string())));
        }
        let run_id = lines.hash.map_or(0, |hash| key_of_bytes(hash.finalize().as_bytes()));
        let file_keys: Vec<i64> = [run_id].into_iter().chain(run_of_name(path)).collect();
        let keys = FILE_KEYS[..file_keys.len()].iter().chain(&IMAGE_KEYS);
        let set = ImageSet {
            pixels: geometry.x_cm.len(),
            geometry: Some(geometry),
            keys: keys.map(ToString::to_string).collect(),
            columns: names,
            has_class: false,
            has_given: true,
            sigma: Sigma::None,
            is_cleaned: true,
        };
        Ok(TextFile { path: path.into(), sets: [set], pixels, columns, file_keys })
    }

    /// Returns the only set of images.
    pub(crate) fn sets(&self) -> &[ImageSet] {
        &self.sets
    }

    /// Returns a reader of the images.
    ///
    /// # Errors
    /// `Input` if the file cannot be opened.
    pub(crate) fn reader(&self) -> Result<TextReader> {
        Ok(TextReader {
            lines: HashedLines::open(&self.path)?,
            pixels: self.pixels.clone(),
            count: self.sets[0].pixels,
            columns: self.columns,
            file_keys: self.file_keys.clone(),
        })
    }
}

/// Reads all lines and returns the columns of the headers and the positions of all pixels [cm].
fn scan(lines: &mut HashedLines) -> Result<(HeaderColumns, Vec<[f64; 2]>)> {
    let mut positions: HashMap<[i64; 2], [f64; 2]> = HashMap::new();
    let mut columns: Option<HeaderColumns> = None;
    while let Some(header) = lines.header()? {
        let known = *columns.get_or_insert(header.columns());
        // An energy of 0 is valid in both units.
        if header.source.is_some() != known.source
            || (header.energy > 0.0 && (header.energy >= EV_FROM) != known.energy_in_ev)
        {
            return Err(lines.fault("headers differ in columns, or in the unit of the energy"));
        }
        for _ in 0..header.pixels {
            let pixel = lines.pixel()?;
            positions
                .entry(PixelLookup::cell(pixel.x, pixel.y, STEP_CM))
                .or_insert([pixel.x, pixel.y]);
            if positions.len() > 4 * MOST_PIXELS {
                return Err(lines.fault("more pixels than a camera can have"));
            }
        }
    }
    let Some(columns) = columns else {
        return Err(Fault::new("text file without images").file(&lines.path).input());
    };
    Ok((columns, positions.into_values().collect()))
}

/// Returns the camera of all pixels in a file, sorted by y, then x. Positions that differ by
/// rounding are one pixel.
fn union(mut positions: Vec<[f64; 2]>) -> (PixelLookup, Geometry) {
    positions.sort_by(|a, b| a[1].total_cmp(&b[1]).then(a[0].total_cmp(&b[0])));
    let mut pixels = PixelLookup::default();
    let mut geometry =
        Geometry { x_cm: vec![], y_cm: vec![], focal_length_cm: Some(FOCAL_LENGTH_CM) };
    for [x, y] in positions {
        if pixels.find(x, y).is_none() {
            pixels.at.insert(PixelLookup::cell(x, y, STEP_CM), geometry.x_cm.len() as u16);
            geometry.x_cm.push(x);
            geometry.y_cm.push(y);
        }
    }
    (pixels, geometry)
}

/// Returns the given camera, with every position of the file assigned to its nearest pixel.
fn assign(
    path: &Path,
    positions: &[[f64; 2]],
    x_cm: &[f64],
    y_cm: &[f64],
) -> Result<(PixelLookup, Geometry)> {
    let mut pixels = PixelLookup::default();
    for [x, y] in positions {
        let distance = |i: usize| libm::hypot(x_cm[i] - x, y_cm[i] - y);
        let nearest = (0..x_cm.len()).min_by(|a, b| distance(*a).total_cmp(&distance(*b)));
        match nearest.filter(|i| distance(*i) < NEAR_CM) {
            Some(pixel) => pixels.at.insert(PixelLookup::cell(*x, *y, STEP_CM), pixel as u16),
            None => {
                return Err(Fault::new("pixel of an image is not in the camera")
                    .file(path)
                    .found(format!("x = {x} cm, y = {y} cm"))
                    .advice("change or omit --camera: TAIGA files differ in orientation")
                    .input());
            }
        };
    }
    let geometry = Geometry {
        x_cm: x_cm.to_vec(),
        y_cm: y_cm.to_vec(),
        focal_length_cm: Some(FOCAL_LENGTH_CM),
    };
    Ok((pixels, geometry))
}

/// Header of an image.
struct Header {
    clean_number: i64,
    event_number: i64,
    axis_scatter: i64,
    pixels: usize,
    energy: f64,
    source: Option<[f64; 2]>, // [cm]
}

impl Header {
    /// Returns the optional columns and the unit.
    fn columns(&self) -> HeaderColumns {
        HeaderColumns { source: self.source.is_some(), energy_in_ev: self.energy >= EV_FROM }
    }
}

/// Line of a pixel.
struct Pixel {
    x: f64,         // [cm]
    y: f64,         // [cm]
    amplitude: f32, // [p.e.]
}

/// Reader of the lines of a file, with one line in memory.
struct HashedLines {
    reader: BufReader<File>,
    path: PathBuf,
    line: String,
    number: u64,
    /// Hash of the bytes read, if requested.
    hash: Option<blake3::Hasher>,
}

impl HashedLines {
    /// Opens a file.
    fn open(path: &Path) -> Result<HashedLines> {
        let file = File::open(path)
            .map_err(|error| Fault::new("cannot read the file").file(path).found(error).input())?;
        Ok(HashedLines {
            reader: BufReader::with_capacity(1 << 18, file),
            path: path.into(),
            line: String::new(),
            number: 0,
            hash: None,
        })
    }

    /// Requests the hash of the bytes.
    fn hashed(self) -> HashedLines {
        HashedLines { hash: Some(blake3::Hasher::new()), ..self }
    }

    /// Reads the next line that is not blank. Returns false at the end.
    fn advance(&mut self) -> Result<bool> {
        loop {
            self.line.clear();
            self.number += 1;
            let mut limited = (&mut self.reader).take(LONGEST_LINE);
            let read = limited.read_line(&mut self.line);
            let bytes = read.map_err(|error| {
                let text = error.kind() == std::io::ErrorKind::InvalidData;
                self.fault(if text { "not a text file" } else { "cannot read the file" })
            })?;
            if let Some(hash) = &mut self.hash {
                hash.update(self.line.as_bytes());
            }
            if bytes == 0 {
                return Ok(false);
            }
            if !self.line.ends_with('\n') {
                if bytes as u64 == LONGEST_LINE {
                    return Err(self.fault("line is too long"));
                }
                if self.hash.is_some() {
                    warn_of_last_line(&self.path, self.number);
                }
            }
            if self.number == 1 && self.line.starts_with(BYTE_ORDER_MARK) {
                self.line.drain(..BYTE_ORDER_MARK.len());
            }
            if !self.line.trim().is_empty() {
                return Ok(true);
            }
        }
    }

    /// Returns an error about the current line.
    fn fault(&self, message: &str) -> Error {
        let shown: String = self.line.trim().chars().take(60).collect();
        Fault::new(message).file(&self.path).row(self.number).found(format!("'{shown}'")).input()
    }

    /// Reads the next header; `None` at the end of the file.
    fn header(&mut self) -> Result<Option<Header>> {
        if !self.advance()? {
            return Ok(None);
        }
        match self.parsed_header() {
            Some(header) => Ok(Some(header)),
            None => Err(self.fault(
                "not the header of a cleaned image (number, event, axis_scatter, pixels, energy, …)",
            )),
        }
    }

    /// Parses the current line as a header.
    fn parsed_header(&self) -> Option<Header> {
        let fields: Vec<&str> = self.line.split_ascii_whitespace().collect();
        let [clean, event, scatter, pixels, energy, rest @ ..] = &fields[..] else { return None };
        let numbers: Vec<f64> = rest.iter().map_while(|field| field.parse().ok()).collect();
        let header = Header {
            clean_number: clean.parse().ok()?,
            event_number: event.parse().ok()?,
            axis_scatter: scatter.parse().ok()?,
            pixels: pixels.parse().ok().filter(|pixels| *pixels <= MOST_PIXELS)?,
            energy: energy.parse().ok().filter(|e: &f64| e.is_finite() && *e >= 0.0)?,
            source: (numbers.len() >= 2 && numbers[0].is_finite() && numbers[1].is_finite())
                .then(|| [numbers[0], numbers[1]]),
        };
        (numbers.len() == rest.len()).then_some(header)
    }

    /// Reads the next pixel.
    fn pixel(&mut self) -> Result<Pixel> {
        if !self.advance()? {
            return Err(Fault::new("the file ends within an image")
                .file(&self.path)
                .row(self.number)
                .advice("copying or writing it was interrupted: copy or write it again")
                .input());
        }
        match self.parsed_pixel() {
            Some(pixel) => Ok(pixel),
            None => {
                Err(self
                    .fault("not a pixel (cluster, pixel, x and y in cm, amplitude above 0 p.e.)"))
            }
        }
    }

    /// Parses the current line as a pixel.
    fn parsed_pixel(&self) -> Option<Pixel> {
        let mut fields = self.line.split_ascii_whitespace();
        let _cluster: i64 = fields.next()?.parse().ok()?;
        let _pixel: i64 = fields.next()?.parse().ok()?;
        let mut number = || fields.next()?.parse::<f64>().ok();
        let (x, y, amplitude) = (number()?, number()?, number()?);
        let is_near = x.abs() < 1e4 && y.abs() < 1e4;
        let is_valid = fields.next().is_none() && is_near && amplitude > 0.0 && amplitude < 1e9;
        is_valid.then_some(Pixel { x, y, amplitude: amplitude as f32 })
    }
}

/// Reader of the images of a text file.
pub(super) struct TextReader {
    lines: HashedLines,
    pixels: PixelLookup,
    count: usize,
    columns: HeaderColumns,
    file_keys: Vec<i64>,
}

impl ImageReader for TextReader {
    fn next(&mut self, rows: usize, block: &mut ImageBlock) -> Result<bool> {
        let deg_per_cm = (1.0 / FOCAL_LENGTH_CM).to_degrees();
        let to_tev = if self.columns.energy_in_ev { 1e-12 } else { 1.0 };
        let mut charges = Vec::new();
        block.given.clear();
        block.keys = vec![Vec::new(); self.file_keys.len() + IMAGE_KEYS.len()];
        block.columns = vec![Vec::new(); if self.columns.source { 3 } else { 1 }];
        block.rows = 0;
        while block.rows < rows {
            let Some(header) = self.lines.header()? else { break };
            let first = charges.len();
            charges.resize(first + self.count, 0.0f32);
            block.given.resize(first + self.count, 0);
            for _ in 0..header.pixels {
                let pixel = self.lines.pixel()?;
                let Some(i) = self.pixels.find(pixel.x, pixel.y).map(usize::from) else {
                    return Err(self.lines.fault("the file changed while it was read"));
                };
                if block.given[first + i] != 0 {
                    return Err(self.lines.fault("duplicate pixel in an image"));
                }
                charges[first + i] = pixel.amplitude;
                block.given[first + i] = 1;
            }
            let keys = [header.axis_scatter, header.clean_number, header.event_number];
            let keys = self.file_keys.iter().copied().chain(keys);
            block.keys.iter_mut().zip(keys).for_each(|(column, key)| column.push(key));
            block.columns[0].push((header.energy * to_tev) as f32);
            if let (Some(source), [_, x, y]) = (header.source, &mut block.columns[..]) {
                x.push((source[0] * deg_per_cm) as f32);
                y.push((source[1] * deg_per_cm) as f32);
            }
            block.rows += 1;
        }
        block.charge = Charge::F32(charges);
        block.sigma.clear();
        block.class = None;
        Ok(block.rows > 0)
    }
}
