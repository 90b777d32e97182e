//! Computes a block of rows from a block of images, on all threads.

use super::columns::{ColumnLayout, ParametrisedImage};
use crate::data::images::ImageBlock;
use crate::error::{Fault, Result};
use crate::hillas::{Camera, Cleaner, Cleaning, ImagePixels, Parameters};
use rayon::prelude::*;

/// Images per task of a thread.
const PIECE: usize = 128;

/// Extractor of the images of one camera.
#[derive(Debug, Clone)]
pub struct Extractor {
    pub camera: Camera,
    pub cleaning: Cleaning,
    pub layout: ColumnLayout,
    /// Pedestal σ (pixels) if it is the same for all images.
    pub sigma: Option<Vec<f32>>,
}

/// Parameters of a block of images.
#[derive(Debug, Clone, Default)]
pub struct ParameterRows {
    /// (rows, columns of the layout)
    pub cells: Vec<f32>,
    pub status: Vec<u32>, // (rows)
}

impl Extractor {
    /// Sets `rows` to the parameters of the images of the block, in their order. `source` returns
    /// the source position of a row [deg]. Each row is a function of its image, so the bits do not
    /// depend on the number of threads.
    ///
    /// # Errors
    /// `Internal` if the pedestal σ does not have the shape of the images.
    pub fn extract(
        &self,
        block: &ImageBlock,
        source: &(dyn Fn(usize) -> Option<[f64; 2]> + Sync),
        rows: &mut ParameterRows,
    ) -> Result<()> {
        let pixels = self.camera.pixels();
        if let Some(sigma) = self.sigma.as_ref().filter(|sigma| sigma.len() != pixels) {
            return Err(misfit("pedestal σ", pixels, sigma.len()));
        }
        if !block.sigma.is_empty() && block.sigma.len() != block.rows * pixels {
            return Err(misfit("pedestal σ", block.rows * pixels, block.sigma.len()));
        }
        let width = self.layout.width();
        rows.cells.resize(block.rows * width, f32::NAN);
        rows.status.resize(block.rows, 0);
        let pieces =
            rows.cells.par_chunks_mut(PIECE * width).zip(rows.status.par_chunks_mut(PIECE));
        pieces.enumerate().for_each_init(
            || BlockWorker::new(self),
            |worker, (piece, (cells, status))| {
                let first = piece * PIECE;
                for (i, (cells, status)) in cells.chunks_mut(width).zip(status).enumerate() {
                    *status = worker.image(self, block, first + i, source(first + i), cells);
                }
            },
        );
        Ok(())
    }
}

/// Returns the error of values without the shape of the images.
fn misfit(name: &str, expected: usize, found: usize) -> crate::error::Error {
    Fault::new(format!("{name} does not fit the images")).expected(expected).found(found).internal()
}

/// Buffers of one thread.
struct BlockWorker {
    cleaner: Cleaner,
    found: ImagePixels,
    buffer: Vec<f32>,
}

impl BlockWorker {
    /// Returns the buffers for an extractor.
    fn new(extractor: &Extractor) -> BlockWorker {
        let mut cleaner = Cleaner::new(extractor.cleaning, extractor.camera.pixels());
        if let Some(sigma) = &extractor.sigma {
            cleaner.set_sigma(sigma);
        }
        BlockWorker { cleaner, found: ImagePixels::default(), buffer: Vec::new() }
    }

    /// Fills the row of one image and returns its status.
    fn image(
        &mut self,
        extractor: &Extractor,
        block: &ImageBlock,
        row: usize,
        source: Option<[f64; 2]>,
        cells: &mut [f32],
    ) -> u32 {
        let pixels = extractor.camera.pixels();
        let range = row * pixels..(row + 1) * pixels;
        if !block.sigma.is_empty() {
            self.cleaner.set_sigma(&block.sigma[range.clone()]);
        }
        let given = if block.given.is_empty() { &[] } else { &block.given[range] };
        let charge = block.charge.image(row, pixels, &mut self.buffer);
        self.cleaner.clean(&extractor.camera, charge, given, &mut self.found);
        let mut parameters = Parameters::of(&extractor.camera, charge, &self.found.kept);
        if self.found.broken {
            parameters.status |= crate::hillas::status::BROKEN;
        }
        let (islands, largest_share) = (self.found.islands, self.found.largest_share);
        extractor.layout.fill(
            &ParametrisedImage { parameters, islands, largest_share },
            source,
            cells,
        )
    }
}
