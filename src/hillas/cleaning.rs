//! Cleans images by two-level tail cuts, and counts islands.
//!
//! A pixel above the high threshold is kept if a neighbour is above the low one; a pixel between
//! the two thresholds is kept if a neighbour is above the high one. Both comparisons are
//! supported: greater than the threshold (TAIGA), and at least the threshold (ctapipe). A charge
//! that is not finite is never part of an image. Almost all pixels of an image are noise.
//! Therefore one vectorised pass over the charges makes bit masks, and only set bits are visited.

use super::Camera;
use crate::error::{Fault, Result};

/// Pixels of a word of a mask.
const WORD: usize = 64;

/// Settings of the cleaning.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cleaning {
    pub thresholds: CleaningThresholds,
    pub comparison: ThresholdComparison,
    pub islands: Islands,
}

/// Two thresholds, or the pixels selected in the input.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum CleaningThresholds {
    /// Thresholds in p.e.
    Fixed { high: f64, low: f64 },
    /// Thresholds in units of the pedestal σ of each pixel.
    Sigma { high: f64, low: f64 },
    /// The pixels that the input selects.
    Given,
}

/// Comparison of a charge with a threshold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ThresholdComparison {
    /// Greater than, as in the program of TAIGA.
    Above,
    /// Greater than or equal, as in `tailcuts_clean` of ctapipe.
    AtLeast,
}

/// Selection of connected parts of the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Islands {
    All,
    /// Only the island with the largest charge.
    Largest,
}

impl Default for Cleaning {
    /// Returns the cleaning of TAIGA: above 14 and 7 p.e., all islands.
    fn default() -> Cleaning {
        Cleaning {
            thresholds: CleaningThresholds::Fixed { high: 14.0, low: 7.0 },
            comparison: ThresholdComparison::Above,
            islands: Islands::All,
        }
    }
}

impl Cleaning {
    /// Checks that 0 < low ≤ high.
    ///
    /// # Errors
    /// `Usage` with the invalid thresholds.
    pub(crate) fn check(&self) -> Result<()> {
        let (CleaningThresholds::Fixed { high, low } | CleaningThresholds::Sigma { high, low }) =
            self.thresholds
        else {
            return Ok(());
        };
        if low > 0.0 && high >= low && high.is_finite() {
            return Ok(());
        }
        Err(Fault::new("invalid cleaning thresholds")
            .expected("0 < low ≤ high")
            .found(format!("low {low}, high {high}"))
            .usage())
    }

    /// Returns whether the thresholds need the pedestal σ.
    pub fn needs_sigma(&self) -> bool {
        matches!(self.thresholds, CleaningThresholds::Sigma { .. })
    }
}

/// Pixels of one cleaned image, in the order of the camera.
#[derive(Debug, Clone, Default)]
pub struct ImagePixels {
    pub kept: Vec<u16>,
    /// Connected parts before the selection of islands.
    pub islands: u32,
    /// Charge of the largest island divided by that of all; NaN without islands.
    pub largest_share: f64,
    /// At least one charge is not finite.
    pub broken: bool,
}

/// Cleaner of the images of one camera, with the buffers of one thread.
#[derive(Debug, Clone)]
pub struct Cleaner {
    cleaning: Cleaning,
    /// Thresholds of each pixel (pixels) from its pedestal σ; empty for fixed thresholds.
    sigma_low: Vec<f32>,
    sigma_high: Vec<f32>,
    low: Vec<u64>,  // bit per pixel: above the low threshold
    high: Vec<u64>, // above the high threshold
    open: Vec<u64>, // kept, and not yet assigned to an island
    stack: Vec<u16>,
    island: Vec<u16>,
    largest: Vec<u16>,
}

impl Cleaner {
    /// Returns a cleaner for images of `pixels` pixels.
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

    /// Sets the pedestal σ (pixels) of the next images [p.e.]. A pixel whose σ is not a positive
    /// finite number is dead and never part of an image.
    pub(crate) fn set_sigma(&mut self, sigma: &[f32]) {
        let CleaningThresholds::Sigma { high, low } = self.cleaning.thresholds else { return };
        let comparison = self.cleaning.comparison;
        self.sigma_low.clear();
        self.sigma_low.extend(sigma.iter().map(|sigma| comparison.of_sigma(low, *sigma)));
        self.sigma_high.clear();
        self.sigma_high.extend(sigma.iter().map(|sigma| comparison.of_sigma(high, *sigma)));
    }

    /// Selects the pixels of an image. `charge` (pixels) is in p.e. `given` (pixels) is not 0 for
    /// pixels that the input selects; only [`CleaningThresholds::Given`] uses it.
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

    /// Adds the pixels that survive, from the mask of those above the low threshold.
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
                let required = if is_set(high, i) { low } else { high };
                let others = camera.neighbours(i).iter().map(|j| *j as usize);
                if others.filter(|j| *j != i).any(|j| is_set(required, j)) {
                    image.kept.push(i as u16);
                }
            });
        }
    }

    /// Counts the islands, and keeps only the one with the largest charge if the settings require
    /// it. Among equal ones, the island with the lowest pixel number is kept.
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
            // The bits of the sum depend on the order, so it is that of the pixels.
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

    /// Moves a pixel from the mask to the stack.
    fn take(&mut self, pixel: u16) {
        self.open[pixel as usize / WORD] &= !(1 << (pixel as usize % WORD));
        self.stack.push(pixel);
    }
}

impl ThresholdComparison {
    /// Returns the threshold of a pixel at `level` times its pedestal σ; infinity for a dead pixel.
    #[inline]
    fn of_sigma(self, level: f64, sigma: f32) -> f32 {
        let is_usable = sigma > 0.0 && sigma.is_finite();
        if is_usable { self.exclusive(level * f64::from(sigma)) } else { f32::INFINITY }
    }

    /// Returns the f32 that a charge must exceed to pass `level` by this comparison, exactly.
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

/// Returns whether bit `i` is set.
fn is_set(mask: &[u64], i: usize) -> bool {
    mask[i / WORD] >> (i % WORD) & 1 == 1
}

/// Calls `visit` with the number of every set bit, from the lowest.
#[inline(always)]
fn each(mut word: u64, mut visit: impl FnMut(usize)) {
    while word != 0 {
        visit(word.trailing_zeros() as usize);
        word &= word - 1;
    }
}

/// Sets the bits of charges that are finite and above their threshold. Returns whether any charge
/// is not finite. No charge passes a threshold that is not finite.
#[inline(always)]
fn above(charge: &[f32], threshold: impl Fn(usize) -> f32, mask: &mut [u64]) -> bool {
    let mut broken = 0u8;
    for (word, (bits, charge)) in mask.iter_mut().zip(charge.chunks(WORD)).enumerate() {
        // The compiler vectorises comparisons whose results are bytes.
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

/// Returns bytes of 0 and 1 as bits, the first byte as the lowest bit.
#[inline(always)]
fn packed(flags: &[u8; WORD]) -> u64 {
    // The product moves bit 0 of byte i to bit 56 + i, without overlaps of terms.
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
