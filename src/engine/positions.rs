//! Computes the quantities of a block of events that depend on an assumed source position.
//!
//! Centroid, axis and shape of an event are read once. `dist`, `alpha`, the sign of the skewness
//! and θ² are computed at each position in f64 and rounded once to f32, the type of the files.

use crate::config::{Disp, SourcePositions};
use crate::hillas::{self, ImageAxis, Rotation, disp, theta2};
use rayon::prelude::*;

/// Quantities that depend on the position, in the order of [`PositionColumns::column`].
pub const OF_POSITION: [&str; 4] = ["dist", "alpha", "skewness", "theta2"];

/// Rows that one thread processes at a time.
const ROWS_TOGETHER: usize = 2048;

/// The assumed positions, and the quantities to compute at them.
#[derive(Debug, Clone)]
pub struct AssumedPositions {
    rotations: Vec<Rotation>,
    disp: Disp,
    theta2: bool,
    skewness: bool,
}

/// Input columns of the quantities at a position; every slice (rows).
#[derive(Debug, Clone, Copy)]
pub struct ImageColumns<'a> {
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
pub struct PositionColumns {
    pub rows: usize,
    pub dist: Vec<f32>,     // [deg]
    pub alpha: Vec<f32>,    // [deg]
    pub skewness: Vec<f32>, // positive: the tail points away from the position
    pub theta2: Vec<f32>,   // [deg²]
    axes: Vec<ImageAxis>,   // (rows)
}

impl AssumedPositions {
    /// Creates the positions; `theta2` and `skewness` select these optional quantities.
    pub fn new(
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
    pub fn count(&self) -> usize {
        self.rotations.len()
    }

    /// Returns whether the skewness is read: as a quantity, or to distinguish head and tail.
    pub fn needs_skewness(&self) -> bool {
        self.skewness || (self.theta2 && self.disp == Disp::Head)
    }

    /// Returns whether size, width and length are read.
    pub fn needs_shape(&self) -> bool {
        self.theta2
    }

    /// Computes the quantities of a block at all positions.
    pub fn compute(&self, images: &ImageColumns, seen: &mut PositionColumns) {
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
    pub fn column(&self, which: usize, k: usize) -> &[f32] {
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
mod tests {
    use super::*;
    use taiga_flow_gpu::random::Stream;

    /// Compares with plain f64 code for one event at a time, by angles and the published formulae.
    #[test]
    fn position_columns_match_plain_computation() {
        let stream = Stream::new(crate::test_seed(), "images", &[]);
        let rows = 2 * ROWS_TOGETHER + 17;
        let column = |c: u64, low: f64, high: f64| -> Vec<f32> {
            let value = |row: usize| low + (high - low) * stream.uniform(8 * row as u64 + c);
            (0..rows).map(|row| value(row) as f32).collect()
        };
        let columns = [
            column(0, -3.0, 3.0),
            column(1, -3.0, 3.0),
            column(2, -90.0, 90.0),
            column(3, 80.0, 2000.0),
            column(4, 0.02, 0.2),
            column(5, 0.2, 0.6),
            column(6, -1.0, 1.0),
        ];
        let [x, y, axis, size, width, length, skewness] = &columns;
        let azimuth = column(7, 0.0, 6.0);
        let on = |f: fn(f64) -> f64| -> Vec<f32> {
            azimuth.iter().map(|a| (1.2 * f(f64::from(*a))) as f32).collect()
        };
        let (source_x, source_y) = (on(libm::cos), on(libm::sin));
        let images = ImageColumns {
            centroid: [x, y],
            axis,
            source: [&source_x, &source_y],
            shape: [size, width, length],
            skewness,
        };
        let given = [
            SourcePositions::Equal(6),
            SourcePositions::Equal(1),
            SourcePositions::Angles(vec![0.0, 51.5, -100.0, 180.0]),
        ];
        for (given, side) in given.iter().flat_map(|g| [(g, Disp::Near), (g, Disp::Head)]) {
            let positions = AssumedPositions::new(given, side, true, true);
            let mut seen = PositionColumns::default();
            positions.compute(&images, &mut seen);
            for (k, angle) in given.angles().iter().enumerate() {
                for row in 0..rows {
                    let value = |column: &[f32]| f64::from(column[row]);
                    let turn = angle.to_radians();
                    let (sx, sy) = (value(&source_x), value(&source_y));
                    let px = sx * libm::cos(turn) - sy * libm::sin(turn);
                    let py = sx * libm::sin(turn) + sy * libm::cos(turn);
                    let dist = libm::hypot(value(x) - px, value(y) - py);
                    let psi = value(axis).to_radians();
                    let between = psi - libm::atan2(value(y) - py, value(x) - px);
                    let cos = libm::cos(between);
                    let alpha = libm::acos(cos.abs().min(1.0)).to_degrees();
                    let own = psi - libm::atan2(value(y) - sy, value(x) - sx);
                    let same_side = (cos < 0.0) == (libm::cos(own) < 0.0);
                    let skew = if same_side { value(skewness) } else { -value(skewness) };
                    let d = disp(value(size), value(width), value(length), dist);
                    let sign = if side == Disp::Head && skew < 0.0 { -1.0 } else { 1.0 };
                    let theta2 = d * d + dist * dist - sign * 2.0 * d * dist * cos.abs();
                    let at = |which: usize| f64::from(seen.column(which, k)[row]);
                    let context = format!("position {k}, row {row}");
                    assert!((at(0) - dist).abs() < 1e-6, "{context}");
                    // acos is steep near 0 deg, asin near 90 deg.
                    assert!((at(1) - alpha).abs() < 1e-4, "{context}: {} {alpha}", at(1));
                    // If rounding decides about a step of DISP, a difference is not an error of
                    // geometry.
                    let steps = [0.9045, 1.206].iter().any(|s| (dist - s).abs() < 1e-6);
                    assert!(steps || (at(3) - theta2).abs() < 1e-5 * (1.0 + theta2), "{context}");
                    let near_right_angle = cos.abs() < 1e-6;
                    assert!(near_right_angle || (at(2) - skew).abs() < 1e-6, "{context}");
                }
            }
        }
    }

    #[test]
    fn only_undefined_values_are_nan() {
        let images = ImageColumns {
            centroid: [&[1.0, 1.0, f32::NAN], &[0.5, 0.5, 0.0]],
            axis: &[f32::NAN, 30.0, 30.0],
            source: [&[1.2, 1.0, 1.0], &[0.0, 0.5, 0.5]],
            shape: [&[100.0; 3], &[0.1; 3], &[0.3; 3]],
            skewness: &[],
        };
        let positions = AssumedPositions::new(&SourcePositions::Equal(2), Disp::Near, true, false);
        let mut seen = PositionColumns::default();
        positions.compute(&images, &mut seen);
        let nan = |values: &[f32]| values.iter().map(|v| v.is_nan()).collect::<Vec<_>>();
        assert_eq!(nan(&seen.dist), [false, false, true, false, false, true]);
        // The centroid of the second row is at the source: there is no angle.
        assert_eq!(nan(&seen.alpha), [true, true, true, true, false, true]);
        assert_eq!(nan(&seen.theta2), [true, false, true, true, false, true]);
        assert!(seen.skewness.is_empty());
    }
}
