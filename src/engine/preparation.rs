//! From a block of a table to the scaled features of its rows: what scoring does before the
//! engine, on any thread.
//!
//! Rows without a likelihood are zeros, with their status bits. At several assumed positions
//! of the source, what does not depend on them is worked out once per row.

use super::positions::{OF_POSITION, Seen};
use crate::data::features::{self, ScaledFeature};
use crate::data::selection::{NOT_FINITE, Selection, UNUSABLE};
use crate::data::table::Block;
use rayon::prelude::*;

/// Rows that are worked on by one thread at a time.
pub(super) const ROWS_TOGETHER: usize = 2048;

/// What is asked of every row.
#[derive(Debug, Clone)]
pub struct Preparation {
    pub(super) selection: Selection,
    features: Vec<ScaledFeature>,
    /// Whether Jacobians are wanted.
    pub(super) raw: bool,
}

/// Rows ready for an engine: (positions, rows), with one position where none are assumed.
#[derive(Debug, Clone, Default)]
pub struct Prepared {
    pub(super) status: Vec<u32>,
    pub(super) scaled: Vec<f32>,   // (positions, rows, features)
    pub(super) jacobian: Vec<f64>, // (positions, rows)
    features: usize,
    fixed: Fixed,
}

/// What is the same at every position: (rows).
#[derive(Debug, Clone, Default)]
struct Fixed {
    status: Vec<u32>,
    scaled: Vec<f32>, // (rows, features), 0 where a feature varies
    jacobian: Vec<f64>,
}

impl Preparation {
    pub fn new(selection: Selection, features: &[ScaledFeature]) -> Preparation {
        Preparation { selection, features: features.to_vec(), raw: false }
    }

    /// Status, scaled features and Jacobian of every row; unusable rows are zeros.
    pub fn prepare(&self, block: &Block, prepared: &mut Prepared) {
        let Preparation { features, selection, raw } = self;
        prepared.resize(block.rows, features.len());
        let width = ROWS_TOGETHER * features.len();
        prepared
            .status
            .par_chunks_mut(ROWS_TOGETHER)
            .zip(prepared.scaled.par_chunks_mut(width))
            .zip(prepared.jacobian.par_chunks_mut(ROWS_TOGETHER))
            .enumerate()
            .for_each(|(chunk, ((status, scaled), jacobian))| {
                let mut coordinates = vec![0.0; features.len()];
                for (i, row) in scaled.chunks_exact_mut(features.len()).enumerate() {
                    let at = chunk * ROWS_TOGETHER + i;
                    status[i] = selection.status(block, at, &mut coordinates);
                    if status[i] & UNUSABLE != 0 {
                        row.fill(0.0);
                        continue;
                    }
                    if *raw {
                        let quantity = |d: usize| f64::from(block.quantities[d][at]);
                        jacobian[i] = log_jacobian(features, quantity, |_| true);
                    }
                    for ((z, coordinate), feature) in row.iter_mut().zip(&coordinates).zip(features)
                    {
                        *z = feature.scale(*coordinate);
                    }
                }
            });
    }

    /// The same for a block at the positions it was seen from. Its quantities are those of
    /// `selection.quantities()`, empty where they vary, then any others.
    pub fn prepare_all(&self, block: &Block, seen: &Seen, prepared: &mut Prepared) {
        let positions = seen.dist.len() / seen.rows.max(1);
        prepared.resize(block.rows * positions, self.features.len());
        self.prepare_fixed(block, &mut prepared.fixed);
        for k in 0..positions {
            self.prepare_at(block, seen, k, prepared);
        }
    }

    /// The same of what is fixed.
    fn prepare_fixed(&self, block: &Block, fixed: &mut Fixed) {
        let Preparation { features, selection, raw } = self;
        let varying = selection.varying();
        let width = features.len();
        fixed.status.resize(block.rows, 0);
        fixed.scaled.resize(block.rows * width, 0.0);
        fixed.jacobian.resize(block.rows, 0.0);
        fixed
            .status
            .par_chunks_mut(ROWS_TOGETHER)
            .zip(fixed.scaled.par_chunks_mut(ROWS_TOGETHER * width))
            .zip(fixed.jacobian.par_chunks_mut(ROWS_TOGETHER))
            .enumerate()
            .for_each(|(chunk, ((status, scaled), jacobian))| {
                let mut coordinates = vec![0.0; width];
                for (i, row) in scaled.chunks_exact_mut(width).enumerate() {
                    let at = chunk * ROWS_TOGETHER + i;
                    let quantity = |d: usize| f64::from(block.quantities[d][at]);
                    status[i] = selection.fixed_status(quantity, &mut coordinates);
                    row.fill(0.0);
                    if status[i] & UNUSABLE != 0 {
                        continue;
                    }
                    if *raw {
                        jacobian[i] = log_jacobian(features, quantity, |d| !varying[d]);
                    }
                    for d in (0..width).filter(|d| !varying[*d]) {
                        row[d] = features[d].scale(coordinates[d]);
                    }
                }
            });
    }

    /// Adds what varies, at position k.
    fn prepare_at(&self, block: &Block, seen: &Seen, k: usize, prepared: &mut Prepared) {
        let Prepared { status, scaled, jacobian, fixed, .. } = prepared;
        let Preparation { features, selection, raw } = self;
        let varying = selection.varying();
        let width = features.len();
        let column = |(c, name): (usize, &String)| -> &[f32] {
            match OF_POSITION.iter().position(|known| known == name) {
                Some(which) => seen.column(which, k),
                None => &block.quantities[c],
            }
        };
        let columns: Vec<&[f32]> = selection.quantities().iter().enumerate().map(column).collect();
        let rows = k * block.rows..(k + 1) * block.rows;
        status[rows.clone()]
            .par_chunks_mut(ROWS_TOGETHER)
            .zip(scaled[rows.start * width..rows.end * width].par_chunks_mut(ROWS_TOGETHER * width))
            .zip(jacobian[rows].par_chunks_mut(ROWS_TOGETHER))
            .enumerate()
            .for_each(|(chunk, ((status, scaled), jacobian))| {
                let mut coordinates = vec![0.0; width];
                for (i, row) in scaled.chunks_exact_mut(width).enumerate() {
                    let at = chunk * ROWS_TOGETHER + i;
                    let quantity = |c: usize| f64::from(columns[c][at]);
                    let fixed_status = fixed.status[at];
                    status[i] = if fixed_status & NOT_FINITE != 0 {
                        NOT_FINITE
                    } else {
                        match selection.varying_status(quantity, &mut coordinates) {
                            NOT_FINITE => NOT_FINITE,
                            varying => fixed_status | varying,
                        }
                    };
                    if status[i] & UNUSABLE != 0 {
                        row.fill(0.0);
                        continue;
                    }
                    if *raw {
                        let own = log_jacobian(features, quantity, |d| varying[d]);
                        jacobian[i] = fixed.jacobian[at] + own;
                    }
                    row.copy_from_slice(&fixed.scaled[at * width..(at + 1) * width]);
                    for d in selection.varying_features().iter().copied() {
                        row[d] = features[d].scale(coordinates[d]);
                    }
                }
            });
    }
}

/// Σ ln|dc/dx| of some features.
fn log_jacobian(
    features: &[ScaledFeature],
    quantity: impl Fn(usize) -> f64,
    of: impl Fn(usize) -> bool,
) -> f64 {
    let one = |d: usize| features::log_jacobian(&features[d].feature, quantity(d));
    (0..features.len()).filter(|d| of(*d)).map(one).sum()
}

impl Prepared {
    /// The scaled features of a row.
    pub fn row(&self, row: usize) -> &[f32] {
        &self.scaled[row * self.features..(row + 1) * self.features]
    }

    fn resize(&mut self, rows: usize, features: usize) {
        self.features = features;
        self.status.resize(rows, 0);
        self.scaled.resize(rows * features, 0.0);
        self.jacobian.resize(rows, 0.0);
    }
}
