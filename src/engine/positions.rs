//! Computes the quantities of a block of events that depend on an assumed source position.
//!
//! Centroid, axis and shape of an event are read once. `dist`, `alpha`, the sign of the skewness
//! and θ² are computed at each position in f64 and rounded once to f32, the type of the files.

use crate::config::{Disp, SourcePositions};
use crate::hillas::{self, ImageAxis, Rotation, disp, theta2};
use rayon::prelude::*;

/// Quantities that depend on the position, in the order of [`PositionColumns::column`].
pub(crate) const OF_POSITION: [&str; 4] = ["dist", "alpha", "skewness", "theta2"];

/// Rows that one thread processes at a time.
const ROWS_TOGETHER: usize = 2048;

/// The assumed positions, and the quantities to compute at them.
#[derive(Debug, Clone)]
pub(crate) struct AssumedPositions {
    rotations: Vec<Rotation>,
    disp: Disp,
    theta2: bool,
    skewness: bool,
}

/// Input columns of the quantities at a position; every slice (rows).
#[derive(Debug, Clone, Copy)]
pub(crate) struct ImageColumns<'a> {
    pub centroid: [&'a [f32]; 2], // [deg]
    pub axis: &'a [f32],          // [deg]
    pub source: [&'a [f32]; 2],   // [deg]
    /// size, width, length; empty if θ² is not computed.
    pub shape: [&'a [f32]; 3],
    /// Skewness relative to the source; empty if it is not used.
    pub skewness: &'a [f32],
}

/// Quantities of a block: (positions, rows); columns that are not computed are empty.
#[derive(Debug, Clone, Default)]
pub(crate) struct PositionColumns {
    pub rows: usize,
    pub dist: Vec<f32>,     // [deg]
    pub alpha: Vec<f32>,    // [deg]
    pub skewness: Vec<f32>, // positive: the tail points away from the position
    pub theta2: Vec<f32>,   // [deg²]
    axes: Vec<ImageAxis>,   // (rows)
}

impl AssumedPositions {
    /// Creates the positions; `theta2` and `skewness` select these optional quantities.
    pub(crate) fn new(
        positions: &SourcePositions,
        disp: Disp,
        theta2: bool,
        skewness: bool,
    ) -> AssumedPositions {
        let rotations = match positions {
            SourcePositions::Equal(count) => {
                (0..*count).map(|k| Rotation::step(k, *count)).collect()
            }
            SourcePositions::Angles(angles) => {
                angles.iter().map(|angle| Rotation::degrees(*angle)).collect()
            }
        };
        AssumedPositions { rotations, disp, theta2, skewness }
    }

    /// Returns the number of positions.
    pub(crate) fn count(&self) -> usize {
        self.rotations.len()
    }

    /// Returns whether the skewness is read: as a quantity, or to distinguish head and tail.
    pub(crate) fn needs_skewness(&self) -> bool {
        self.skewness || (self.theta2 && self.disp == Disp::Head)
    }

    /// Returns whether size, width and length are read.
    pub(crate) fn needs_shape(&self) -> bool {
        self.theta2
    }

    /// Computes the quantities of a block at all positions.
    pub(crate) fn compute(&self, images: &ImageColumns, seen: &mut PositionColumns) {
        let rows = images.axis.len();
        let all = rows * self.count();
        seen.rows = rows;
        seen.dist.resize(all, 0.0);
        seen.alpha.resize(all, 0.0);
        seen.skewness.resize(if self.skewness { all } else { 0 }, 0.0);
        seen.theta2.resize(if self.theta2 { all } else { 0 }, 0.0);
        let axis = |row: usize| {
            let centroid = images.centroid.map(|c| f64::from(c[row]));
            ImageAxis::from_degrees(centroid, f64::from(images.axis[row]))
        };
        (0..rows)
            .into_par_iter()
            .with_min_len(ROWS_TOGETHER)
            .map(axis)
            .collect_into_vec(&mut seen.axes);
        for (k, rotation) in self.rotations.iter().enumerate() {
            self.see_from(images, *rotation, k, seen);
        }
    }

    /// Computes the quantities of a block at position k.
    fn see_from(
        &self,
        images: &ImageColumns,
        rotation: Rotation,
        k: usize,
        seen: &mut PositionColumns,
    ) {
        let (rows, axes) = (seen.rows, &seen.axes);
        let skewness = pieces(&mut seen.skewness, k, rows);
        let theta2s = pieces(&mut seen.theta2, k, rows);
        let range = k * rows..(k + 1) * rows;
        seen.dist[range.clone()]
            .par_chunks_mut(ROWS_TOGETHER)
            .zip(seen.alpha[range].par_chunks_mut(ROWS_TOGETHER))
            .zip(skewness)
            .zip(theta2s)
            .enumerate()
            .for_each(|(chunk, (((dist, alpha), skewness), theta2s))| {
                let first = chunk * ROWS_TOGETHER;
                let sources = images.source.map(|s| &s[first..first + dist.len()]);
                dist_and_alpha(&axes[first..], sources, rotation, dist, alpha);
                if !self.needs_skewness() && !self.theta2 {
                    return;
                }
                for i in 0..dist.len() {
                    let row = first + i;
                    let source = images.source.map(|s| f64::from(s[row]));
                    let at = axes[row].relative_to(rotation.of(source));
                    let from_here = self.needs_skewness().then(|| {
                        // The skewness along the axis, then relative to this position.
                        let own = axes[row].relative_to(source);
                        at.skewness(own.skewness(f64::from(images.skewness[row])))
                    });
                    if let (Some(value), Some(cell)) = (from_here, skewness.get_mut(i)) {
                        *cell = value as f32;
                    }
                    if let Some(cell) = theta2s.get_mut(i) {
                        let [size, width, length] = images.shape.map(|s| f64::from(s[row]));
                        let disp = disp(size, width, length, at.dist);
                        let side = from_here.filter(|_| self.disp == Disp::Head);
                        *cell = theta2(&at, disp, side) as f32;
                    }
                }
            });
    }
}

/// Computes distance and angle of each image relative to its rotated source: (rows) each.
fn dist_and_alpha(
    axes: &[ImageAxis],
    [x, y]: [&[f32]; 2],
    rotation: Rotation,
    dist: &mut [f32],
    alpha: &mut [f32],
) {
    // A loop over this many images is vectorised.
    const LANES: usize = 8;
    let mut out = dist.chunks_mut(LANES).zip(alpha.chunks_mut(LANES));
    let images = axes.chunks(LANES).zip(x.chunks(LANES).zip(y.chunks(LANES)));
    for ((dist, alpha), (axes, (x, y))) in out.by_ref().zip(images) {
        let mut seen = [[f64::NAN; LANES]; 2];
        for i in 0..dist.len() {
            let at = axes[i].relative_to(rotation.of([f64::from(x[i]), f64::from(y[i])]));
            (seen[0][i], seen[1][i]) = (at.dist, at.miss);
        }
        let mut angles = [0.0; LANES];
        for i in 0..LANES {
            angles[i] =
                hillas::RelativePosition { dist: seen[0][i], miss: seen[1][i], along: 0.0 }.alpha();
        }
        for i in 0..dist.len() {
            (dist[i], alpha[i]) = (seen[0][i] as f32, angles[i] as f32);
        }
    }
}

impl PositionColumns {
    /// Returns a column of [`OF_POSITION`] at position k: (rows).
    pub(crate) fn column(&self, which: usize, k: usize) -> &[f32] {
        let column = [&self.dist, &self.alpha, &self.skewness, &self.theta2][which];
        column.get(k * self.rows..(k + 1) * self.rows).unwrap_or_default()
    }
}

/// Divides the rows of position k into pieces of [`ROWS_TOGETHER`]; the pieces are empty if the
/// column is not computed.
fn pieces(column: &mut [f32], k: usize, rows: usize) -> Vec<&mut [f32]> {
    let count = rows.div_ceil(ROWS_TOGETHER);
    match column.get_mut(k * rows..(k + 1) * rows) {
        Some(rows) if !rows.is_empty() => rows.chunks_mut(ROWS_TOGETHER).collect(),
        _ => (0..count).map(|_| Default::default()).collect(),
    }
}

#[cfg(test)]
mod tests;
