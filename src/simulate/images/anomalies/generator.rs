//! Generates one anomaly from a gamma image, a second image, islands or a muon.

use super::{AnomalyKind, Options};
use crate::data::images::{ImageBlock, ImageSet};
use crate::hillas::{Camera, Cleaner, Cleaning, CleaningThresholds, ImagePixels, Parameters};
use crate::simulate::images::shower::{Lookup, Muon, SINGLE_PE, pair};
use rayon::prelude::*;
use std::f64::consts::TAU;
use taiga_flow_gpu::random::{Draws, Stream};

/// Columns of the source position.
pub(super) const SOURCE: [&str; 2] = ["source_x", "source_y"];
/// Attempts to find a second image, before the image remains unchanged.
const PARTNERS: u64 = 16;

/// Smallest light of a sub-shower as a fraction of the first image. A weaker one would not be
/// visible.
const LEAST_SHARE: f64 = 0.2;
/// Standard deviation of the displacement of a sub-shower [deg]: transverse momenta of some
/// 0.4 GeV/c in particles of some 100 GeV, as for the toy hadrons.
const SUB_SHOWER_DEG: f64 = 0.25;
/// Standard deviation of the axis of a sub-shower relative to the source direction [deg].
const SUB_SHOWER_TURN_DEG: f64 = 10.0;
/// Distance of islands from the image [deg]. They come from particles outside the shower core.
const ISLAND_DEG: [f64; 2] = [0.8, 2.0];
/// Light of an island as a fraction of the image.
const ISLAND_SHARE: [f64; 2] = [0.1, 0.4];
/// Smallest light of an island in units of the high threshold, so that it survives the cleaning.
const ISLAND_LEAST: f64 = 7.0;
/// Standard deviation of the light of an island [deg].
const ISLAND_SPREAD_DEG: f64 = 0.2;
/// High threshold for images that were cleaned elsewhere [p.e.].
const USUAL_HIGH_PE: f64 = 14.0;
/// Light of a muon arc [p.e.], a part of the some 10³ p.e. of a whole ring.
const MUON_PE: [f64; 2] = [100.0, 500.0];

/// A generated image.
pub(super) struct AnomalyImage {
    pub row: usize, // of the first image in the block
    pub kind: AnomalyKind,
    pub charge: Vec<f32>,         // (pixels) [p.e.]
    pub source: Option<[f64; 2]>, // [deg]
}

/// Pixels of an image that survive the cleaning.
struct Light {
    pixels: Vec<([f64; 2], f64)>, // position [deg], charge [p.e.]
    parameters: Parameters,
}

impl Light {
    /// Returns whether the image has a shape.
    fn has_shape(&self) -> bool {
        self.pixels.len() > 3 && self.parameters.size > 0.0 && self.parameters.length > 0.0
    }

    /// Returns the centroid [deg].
    fn centroid(&self) -> [f64; 2] {
        [self.parameters.x, self.parameters.y]
    }

    /// Returns the direction of the tail of the image [rad]: away from the source, if it is known.
    fn direction(&self, source: Option<[f64; 2]>) -> f64 {
        let [cos, sin] = self.parameters.axis;
        let [x, y] = self.centroid();
        let away = source.map_or(1.0, |[sx, sy]| (x - sx) * cos + (y - sy) * sin);
        if away < 0.0 { libm::atan2(-sin, -cos) } else { libm::atan2(sin, cos) }
    }
}

/// Generator of anomalies of one file.
pub(super) struct AnomalyGenerator<'a> {
    camera: &'a Camera,
    lookup: Lookup,
    sigma: &'a [f32],
    cleaning: Cleaning,
    cumulative: [f64; 4],
    seed: u64,
    source: Option<[usize; 2]>, // columns of the source position
    threshold_pe: f64,
}

impl<'a> AnomalyGenerator<'a> {
    /// Returns a generator. `sigma` (pixels) is the pedestal σ [p.e.].
    pub(crate) fn new(
        camera: &'a Camera,
        sigma: &'a [f32],
        set: &ImageSet,
        cleaning: Cleaning,
        options: &Options,
    ) -> AnomalyGenerator<'a> {
        let place = |name: &str| set.columns.iter().position(|(known, _)| known == name);
        let mean = sigma.iter().map(|s| f64::from(*s)).sum::<f64>() / sigma.len().max(1) as f64;
        let threshold_pe = match cleaning.thresholds {
            CleaningThresholds::Fixed { high, .. } => high,
            CleaningThresholds::Sigma { high, .. } => high * mean,
            CleaningThresholds::Given => USUAL_HIGH_PE,
        };
        let total: f64 = options.weights.iter().sum();
        let mut cumulative = [0.0; 4];
        let mut sum = 0.0;
        for (edge, weight) in cumulative.iter_mut().zip(options.weights) {
            sum += weight / total;
            *edge = sum;
        }
        AnomalyGenerator {
            camera,
            lookup: Lookup::new(camera),
            sigma,
            cleaning,
            cumulative,
            seed: options.seed,
            source: place(SOURCE[0]).zip(place(SOURCE[1])).map(|(x, y)| [x, y]),
            threshold_pe,
        }
    }

    /// Returns an anomaly for each gamma of a block, in order; `first` is the number of its first
    /// row.
    pub(crate) fn block(&self, block: &ImageBlock, first: u64) -> Vec<AnomalyImage> {
        let pixels = self.camera.pixels();
        let is_gamma = |row: usize| block.class.as_ref().is_none_or(|class| class[row] != 0);
        let rows: Vec<usize> = (0..block.rows).filter(|row| is_gamma(*row)).collect();
        let lights = self.lights(block, &rows);
        (0..rows.len())
            .into_par_iter()
            .map_init(Vec::new, |buffer, i| {
                let keys = block.keys.iter().map(|key| key[rows[i]] as u64);
                let words: Vec<u64> = [first + rows[i] as u64].into_iter().chain(keys).collect();
                let mut draws = Draws::new(Stream::new(self.seed, "image anomaly", &words));
                let charge = block.charge.image(rows[i], pixels, buffer).to_vec();
                self.anomaly(block, &rows, &lights, i, charge, &mut draws)
            })
            .collect()
    }

    /// Cleans the images of some rows.
    fn lights(&self, block: &ImageBlock, rows: &[usize]) -> Vec<Light> {
        let pixels = self.camera.pixels();
        let worker = || (self.cleaner(), ImagePixels::default(), Vec::new());
        rows.par_iter()
            .map_init(worker, |(cleaner, image, buffer), row| {
                let charge = block.charge.image(*row, pixels, buffer);
                let range = row * pixels..(row + 1) * pixels;
                let given = if block.given.is_empty() { &[] } else { &block.given[range] };
                cleaner.clean(self.camera, charge, given, image);
                let light = |pixel: &u16| {
                    let pixel = usize::from(*pixel);
                    (self.camera.position_deg(pixel), f64::from(charge[pixel]))
                };
                Light {
                    pixels: image.kept.iter().map(light).collect(),
                    parameters: Parameters::of(self.camera, charge, &image.kept),
                }
            })
            .collect()
    }

    /// Returns a cleaner of the images.
    fn cleaner(&self) -> Cleaner {
        let mut cleaner = Cleaner::new(self.cleaning, self.camera.pixels());
        if self.cleaning.needs_sigma() {
            cleaner.set_sigma(self.sigma);
        }
        cleaner
    }

    /// Returns the anomaly of image `i` of `rows`.
    fn anomaly(
        &self,
        block: &ImageBlock,
        rows: &[usize],
        lights: &[Light],
        i: usize,
        mut charge: Vec<f32>,
        draws: &mut Draws,
    ) -> AnomalyImage {
        let source_of = |i: usize| -> Option<[f64; 2]> {
            let source = self.source?.map(|c| f64::from(block.columns[c][rows[i]]));
            source.iter().all(|x| x.is_finite()).then_some(source)
        };
        let azimuth = TAU * draws.uniform();
        let choice = draws.uniform();
        let drawn = self.cumulative.iter().position(|edge| choice < *edge);
        let drawn = AnomalyKind::ALL[drawn.unwrap_or(AnomalyKind::ALL.len() - 1)];
        let light = &lights[i];
        // Light is added only to images with a shape.
        let mut kind = if light.has_shape() { drawn } else { AnomalyKind::Turned };
        match kind {
            AnomalyKind::Turned => {}
            AnomalyKind::Merged => match partner(lights, i, draws) {
                Some(other) => {
                    let sources = [source_of(i), source_of(other)];
                    self.merge(light, &lights[other], sources, draws, &mut charge);
                }
                None => kind = AnomalyKind::Turned,
            },
            AnomalyKind::Islands => self.add_islands(light, draws, &mut charge),
            AnomalyKind::Muon => self.add_muon(light, source_of(i), draws, &mut charge),
        }
        let source = source_of(i).map(|[x, y]| {
            let offset = libm::hypot(x, y);
            [offset * libm::cos(azimuth), offset * libm::sin(azimuth)]
        });
        AnomalyImage { row: rows[i], kind, charge, source }
    }

    /// Adds a second image as a sub-shower, with at most the light of the first one, rotated to its
    /// axis and displaced.
    fn merge(
        &self,
        light: &Light,
        other: &Light,
        [source, of_other]: [Option<[f64; 2]>; 2],
        draws: &mut Draws,
        charge: &mut [f32],
    ) {
        let share = LEAST_SHARE + (1.0 - LEAST_SHARE) * draws.uniform();
        let scale = share * light.parameters.size / other.parameters.size;
        let off = [0, 1].map(|_| SUB_SHOWER_DEG * draws.normal());
        let turn = light.direction(source) - other.direction(of_other)
            + SUB_SHOWER_TURN_DEG.to_radians() * draws.normal();
        let (sin, cos) = libm::sincos(turn);
        let ([x0, y0], [x1, y1]) = (other.centroid(), light.centroid());
        for ([x, y], q) in &other.pixels {
            // A pixel is added as its centre and six points half way to its edges, so that a pixel
            // between others shares its light among them.
            for point in 0..7 {
                let [dx, dy] = self.within_pixel(point);
                let (x, y) = (x + dx - x0, y + dy - y0);
                let place = [x1 + off[0] + cos * x - sin * y, y1 + off[1] + sin * x + cos * y];
                if let Some(pixel) = self.lookup.pixel(place) {
                    charge[pixel] += (scale * q / 7.0) as f32;
                }
            }
        }
    }

    /// Returns the offset of point 0…6 of a pixel from its centre [deg].
    fn within_pixel(&self, point: u32) -> [f64; 2] {
        if point == 0 {
            return [0.0; 2];
        }
        let azimuth = TAU * f64::from(point) / 6.0;
        let radius = self.camera.pitch_deg() / 4.0;
        [radius * libm::cos(azimuth), radius * libm::sin(azimuth)]
    }

    /// Adds one to three islands.
    fn add_islands(&self, light: &Light, draws: &mut Draws, charge: &mut [f32]) {
        let islands = 1 + draws.poisson(0.5).min(2);
        for _ in 0..islands {
            let azimuth = TAU * draws.uniform();
            let far = between(ISLAND_DEG, draws.uniform());
            let [x, y] = light.centroid();
            let place = [x + far * libm::cos(azimuth), y + far * libm::sin(azimuth)];
            let share = between(ISLAND_SHARE, draws.uniform());
            let mean = (share * light.parameters.size).max(ISLAND_LEAST * self.threshold_pe);
            self.shine(mean, draws, charge, |draws| {
                let [x, y] = pair(draws);
                [place[0] + ISLAND_SPREAD_DEG * x, place[1] + ISLAND_SPREAD_DEG * y]
            });
        }
    }

    /// Adds the arc of a muon with about the direction of the shower.
    fn add_muon(
        &self,
        light: &Light,
        source: Option<[f64; 2]>,
        draws: &mut Draws,
        charge: &mut [f32],
    ) {
        let muon = Muon::passing(source.unwrap_or(light.centroid()), draws);
        let [least, most] = MUON_PE;
        let mean = least * libm::pow(most / least, draws.uniform());
        self.shine(mean, draws, charge, |draws| muon.photoelectron(draws));
    }

    /// Adds a Poisson number of photoelectrons with this mean, at positions drawn by `one`.
    fn shine(
        &self,
        mean: f64,
        draws: &mut Draws,
        charge: &mut [f32],
        one: impl Fn(&mut Draws) -> [f64; 2],
    ) {
        for _ in 0..draws.poisson(mean) {
            let place = one(draws);
            let q = (1.0 + SINGLE_PE * draws.normal()).max(0.0);
            if let Some(pixel) = self.lookup.pixel(place) {
                charge[pixel] += q as f32;
            }
        }
    }
}

/// Draws a second image from the block; `None` if all attempts give images without shape.
fn partner(lights: &[Light], i: usize, draws: &mut Draws) -> Option<usize> {
    (0..PARTNERS)
        .map(|_| ((draws.uniform() * lights.len() as f64) as usize).min(lights.len() - 1))
        .find(|other| *other != i && lights[*other].has_shape())
}

/// Interpolates linearly.
fn between([low, high]: [f64; 2], u: f64) -> f64 {
    low + (high - low) * u
}
