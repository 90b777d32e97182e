//! Which pixels belong to the image: two-level tail cuts, and islands.
//!
//! A pixel above the high threshold stays if a neighbour is above the low one, a pixel
//! between the two if a neighbour is above the high one. TAIGA asks for more than the
//! threshold, ctapipe for as much; both are here. What is no finite number is never part of
//! an image. Almost all pixels of an image are noise: one pass over the charges, in vectors
//! of the compiler's, leaves bit masks, and only the few bits that are set are looked at.

use super::Camera;
use crate::error::{Fault, Result};

/// Pixels of a word of a mask.
const WORD: usize = 64;

/// How images are cleaned.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cleaning {
    pub thresholds: CleaningThresholds,
    pub comparison: ThresholdComparison,
    pub islands: Islands,
}

/// Two levels, or the choice that came with the image.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum CleaningThresholds {
    /// In p.e.
    Fixed { high: f64, low: f64 },
    /// In units of the pixel's pedestal σ.
    Sigma { high: f64, low: f64 },
    /// The pixels that the input names.
    Given,
}

/// What a charge must do to pass a threshold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ThresholdComparison {
    /// Be greater, as in TAIGA's program.
    Above,
    /// Be as great or greater, as in ctapipe's `tailcuts_clean`.
    AtLeast,
}

/// Which connected parts of the image are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Islands {
    All,
    /// The one with the largest charge.
    Largest,
}

impl Default for Cleaning {
    /// TAIGA's: more than 14 and 7 p.e., all islands.
    fn default() -> Cleaning {
        Cleaning {
            thresholds: CleaningThresholds::Fixed { high: 14.0, low: 7.0 },
            comparison: ThresholdComparison::Above,
            islands: Islands::All,
        }
    }
}

impl Cleaning {
    /// Refuses thresholds that are none.
    pub fn check(&self) -> Result<()> {
        let (CleaningThresholds::Fixed { high, low } | CleaningThresholds::Sigma { high, low }) =
            self.thresholds
        else {
            return Ok(());
        };
        if low > 0.0 && high >= low && high.is_finite() {
            return Ok(());
        }
        Err(Fault::new("impossible thresholds")
            .expected("0 < low ≤ high")
            .found(format!("low {low}, high {high}"))
            .usage())
    }

    pub fn needs_sigma(&self) -> bool {
        matches!(self.thresholds, CleaningThresholds::Sigma { .. })
    }
}

/// What belongs to one image, in the order of the pixels.
#[derive(Debug, Clone, Default)]
pub struct ImagePixels {
    pub kept: Vec<u16>,
    /// Connected parts before any was left out.
    pub islands: u32,
    /// Charge of the largest island over that of all; NaN where there is none.
    pub largest_share: f64,
    /// A charge is no finite number.
    pub broken: bool,
}

/// Cleans the images of one camera; holds the working space of one thread.
#[derive(Debug, Clone)]
pub struct Cleaner {
    cleaning: Cleaning,
    /// Pedestal σ of each pixel as thresholds (pixels): low, high; empty without.
    sigma_low: Vec<f32>,
    sigma_high: Vec<f32>,
    low: Vec<u64>,  // bit per pixel: above the low threshold
    high: Vec<u64>, // above the high one
    open: Vec<u64>, // kept, and not yet given to an island
    stack: Vec<u16>,
    island: Vec<u16>,
    largest: Vec<u16>,
}

impl Cleaner {
    /// A cleaner for images of `pixels` pixels.
    pub fn new(cleaning: Cleaning, pixels: usize) -> Cleaner {
        let words = pixels.div_ceil(WORD);
        Cleaner {
            cleaning,
            sigma_low: Vec::new(),
            sigma_high: Vec::new(),
            low: vec![0; words],
            high: vec![0; words],
            open: vec![0; words],
            stack: Vec::new(),
            island: Vec::new(),
            largest: Vec::new(),
        }
    }

    /// Takes the pedestal σ (pixels) of the images that follow [p.e.]. A pixel whose σ is
    /// no positive number is dead: it is part of no image.
    pub fn set_sigma(&mut self, sigma: &[f32]) {
        let CleaningThresholds::Sigma { high, low } = self.cleaning.thresholds else { return };
        let comparison = self.cleaning.comparison;
        let level = |level: f64| {
            sigma.iter().map(move |sigma| {
                let usable = *sigma > 0.0 && sigma.is_finite();
                if usable { comparison.exclusive(level * f64::from(*sigma)) } else { f32::INFINITY }
            })
        };
        self.sigma_low.clear();
        self.sigma_low.extend(level(low));
        self.sigma_high.clear();
        self.sigma_high.extend(level(high));
    }

    /// Chooses the pixels of an image. `charge` (pixels) in p.e.; `given` (pixels) is not 0
    /// where the input says that a pixel belongs to the image, and needed for
    /// [`CleaningThresholds::Given`] alone.
    pub fn clean(
        &mut self,
        camera: &Camera,
        charge: &[f32],
        given: &[u8],
        image: &mut ImagePixels,
    ) {
        image.kept.clear();
        image.broken = false;
        match self.cleaning.thresholds {
            CleaningThresholds::Given => {
                for (i, (charge, given)) in charge.iter().zip(given).enumerate() {
                    image.broken |= !charge.is_finite();
                    if *given != 0 && charge.is_finite() {
                        image.kept.push(i as u16);
                    }
                }
            }
            CleaningThresholds::Fixed { high, low } => {
                let [low, high] =
                    [low, high].map(|level| self.cleaning.comparison.exclusive(level));
                image.broken |= above(charge, |_| low, &mut self.low);
                self.choose(camera, |i| charge[i] > high, image);
            }
            CleaningThresholds::Sigma { .. } => {
                let (low, high) =
                    (std::mem::take(&mut self.sigma_low), std::mem::take(&mut self.sigma_high));
                let levels = &low[..charge.len()];
                image.broken |= above(charge, |i| levels[i], &mut self.low);
                self.choose(camera, |i| charge[i] > high[i], image);
                (self.sigma_low, self.sigma_high) = (low, high);
            }
        }
        self.islands(camera, charge, image);
    }

    /// The pixels that survive, from the mask of those above the low threshold.
    fn choose(
        &mut self,
        camera: &Camera,
        is_high: impl Fn(usize) -> bool,
        image: &mut ImagePixels,
    ) {
        for (word, (low, high)) in self.low.iter().zip(&mut self.high).enumerate() {
            *high = 0;
            each(*low, |bit| *high |= u64::from(is_high(word * WORD + bit)) << bit);
        }
        let (low, high) = (&self.low, &self.high);
        for word in 0..low.len() {
            each(low[word], |bit| {
                let i = word * WORD + bit;
                let wanted = if is_set(high, i) { low } else { high };
                let others = camera.neighbours(i).iter().map(|j| *j as usize);
                if others.filter(|j| *j != i).any(|j| is_set(wanted, j)) {
                    image.kept.push(i as u16);
                }
            });
        }
    }

    /// Counts the islands; keeps the one with the largest charge if the others are to go.
    /// Of equal ones it is that with the lowest pixel.
    fn islands(&mut self, camera: &Camera, charge: &[f32], image: &mut ImagePixels) {
        self.open.fill(0);
        for i in &image.kept {
            self.open[*i as usize / WORD] |= 1 << (*i as usize % WORD);
        }
        let (mut total, mut most) = (0.0, f64::NEG_INFINITY);
        image.islands = 0;
        self.largest.clear();
        for first in &image.kept {
            if !is_set(&self.open, *first as usize) {
                continue;
            }
            self.island.clear();
            self.take(*first);
            while let Some(i) = self.stack.pop() {
                self.island.push(i);
                for j in camera.neighbours(i as usize) {
                    if is_set(&self.open, *j as usize) {
                        self.take(*j);
                    }
                }
            }
            // The sum depends on the order: that of the pixels.
            self.island.sort_unstable();
            let sum: f64 = self.island.iter().map(|i| f64::from(charge[*i as usize])).sum();
            total += sum;
            image.islands += 1;
            if sum > most {
                most = sum;
                std::mem::swap(&mut self.largest, &mut self.island);
            }
        }
        image.largest_share = if image.islands == 0 { f64::NAN } else { most / total };
        if self.cleaning.islands == Islands::Largest && image.islands > 1 {
            image.kept.clone_from(&self.largest);
        }
    }

    fn take(&mut self, pixel: u16) {
        self.open[pixel as usize / WORD] &= !(1 << (pixel as usize % WORD));
        self.stack.push(pixel);
    }
}

impl ThresholdComparison {
    /// The f32 that a charge must exceed to pass `level` by this comparison, exactly.
    fn exclusive(self, level: f64) -> f32 {
        let nearest = level as f32;
        match self {
            // The largest f32 that is not above the level.
            ThresholdComparison::Above if f64::from(nearest) > level => nearest.next_down(),
            // The largest f32 that is below the level.
            ThresholdComparison::AtLeast if f64::from(nearest) >= level => nearest.next_down(),
            ThresholdComparison::Above | ThresholdComparison::AtLeast => nearest,
        }
    }
}

fn is_set(mask: &[u64], i: usize) -> bool {
    mask[i / WORD] >> (i % WORD) & 1 == 1
}

/// Calls `visit` with every bit that is set, from the lowest.
#[inline(always)]
fn each(mut word: u64, mut visit: impl FnMut(usize)) {
    while word != 0 {
        visit(word.trailing_zeros() as usize);
        word &= word - 1;
    }
}

/// Sets the bits of charges that are finite and above their threshold; whether one is not
/// finite. A threshold that is not finite is never passed.
#[inline(always)]
fn above(charge: &[f32], threshold: impl Fn(usize) -> f32, mask: &mut [u64]) -> bool {
    let mut broken = 0u8;
    for (word, (bits, charge)) in mask.iter_mut().zip(charge.chunks(WORD)).enumerate() {
        // One byte per pixel first: the compiler makes vectors of these comparisons.
        let mut flags = [0u8; WORD];
        for (i, (flag, q)) in flags.iter_mut().zip(charge).enumerate() {
            let finite = q.abs() < f32::INFINITY;
            *flag = u8::from((*q > threshold(word * WORD + i)) & finite);
            broken |= u8::from(!finite);
        }
        *bits = packed(&flags);
    }
    broken != 0
}

/// Bytes of 0 and 1 as bits, the first one lowest.
#[inline(always)]
fn packed(flags: &[u8; WORD]) -> u64 {
    // The product brings bit 0 of byte i to bit 56 + i; no two terms meet.
    const GATHER: u64 = 0x0102_0408_1020_4080;
    let mut word = 0;
    for (i, bytes) in flags.chunks_exact(8).enumerate() {
        let mut eight = [0; 8];
        eight.copy_from_slice(bytes);
        word |= (u64::from_le_bytes(eight).wrapping_mul(GATHER) >> 56) << (8 * i);
    }
    word
}

#[cfg(test)]
mod tests;
