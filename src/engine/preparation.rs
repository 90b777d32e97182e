//! Computes the scaled features of the rows of a block, without an engine and on any thread.
//!
//! Rows without a likelihood are zeros and have status bits. With several assumed source positions,
//! values that do not depend on the position are computed once per row.

use super::positions::{OF_POSITION, PositionColumns};
use crate::data::schema::features::{self, ScaledFeature};
use crate::data::selection::{Selection, SelectionOutcome, UNUSABLE, Which, alone};
use crate::data::table::Block;
use rayon::prelude::*;

/// Rows that one thread processes at a time.
pub(super) const ROWS_TOGETHER: usize = 2048;

/// Selection and features that are computed for every row.
#[derive(Debug, Clone)]
pub struct Preparation {
    pub(super) selection: Selection,
    features: Vec<ScaledFeature>,
    /// Whether Jacobians are computed.
    pub(super) raw: bool,
}

/// Scaled rows for an engine: (positions, rows), with one position if none are assumed.
#[derive(Debug, Clone, Default)]
pub struct Prepared {
    pub(super) status: Vec<u32>,
    pub(super) scaled: Vec<f32>,   // (positions, rows, features)
    pub(super) jacobian: Vec<f64>, // (positions, rows)
    features: usize,
    fixed: Fixed,
}

/// Values that are the same at every position: (rows).
#[derive(Debug, Clone, Default)]
struct Fixed {
    status: Vec<u32>,
    scaled: Vec<f32>, // (rows, features), 0 for features that depend on the position
    jacobian: Vec<f64>,
}

impl Preparation {
    /// Creates the preparation of `features` for the rows of `selection`.
    pub fn new(selection: Selection, features: &[ScaledFeature]) -> Preparation {
        Preparation { selection, features: features.to_vec(), raw: false }
    }

    /// Computes status, scaled features and Jacobian of every row; unusable rows are zeros.
    pub fn prepare(&self, block: &Block, prepared: &mut Prepared) {
        let columns: Vec<&[f32]> = block.quantities.iter().map(Vec::as_slice).collect();
        prepared.resize(block.rows, self.features.len());
        let Prepared { status, scaled, jacobian, .. } = prepared;
        self.prepare_part(Which::All, &columns, None, status, scaled, jacobian);
    }

    /// Prepares a block at several positions. Its quantities are those of `selection.quantities()`,
    /// empty if they depend on the position, followed by any others.
    pub fn prepare_all(&self, block: &Block, seen: &PositionColumns, prepared: &mut Prepared) {
        let positions = seen.dist.len() / seen.rows.max(1);
        let (rows, width) = (block.rows, self.features.len());
        prepared.resize(rows * positions, width);
        let Prepared { status, scaled, jacobian, fixed, .. } = prepared;
        let columns: Vec<&[f32]> = block.quantities.iter().map(Vec::as_slice).collect();
        fixed.status.resize(rows, 0);
        fixed.scaled.resize(rows * width, 0.0);
        fixed.jacobian.resize(rows, 0.0);
        let Fixed { status: s, scaled: x, jacobian: j } = fixed;
        self.prepare_part(Which::Fixed, &columns, None, s, x, j);
        for k in 0..positions {
            let columns = columns_at(self.selection.quantities(), &columns, seen, k);
            let at = k * rows..(k + 1) * rows;
            let scaled = &mut scaled[at.start * width..at.end * width];
            let (status, jacobian) = (&mut status[at.clone()], &mut jacobian[at]);
            self.prepare_part(Which::Varying, &columns, Some(fixed), status, scaled, jacobian);
        }
    }

    /// Computes the features of `which`; the other features are copied from `fixed`.
    fn prepare_part(
        &self,
        which: Which,
        columns: &[&[f32]],
        fixed: Option<&Fixed>,
        status: &mut [u32],
        scaled: &mut [f32],
        jacobian: &mut [f64],
    ) {
        let Preparation { features, selection, raw } = self;
        let (width, own) = (features.len(), selection.features_of(which));
        status
            .par_chunks_mut(ROWS_TOGETHER)
            .zip(scaled.par_chunks_mut(ROWS_TOGETHER * width))
            .zip(jacobian.par_chunks_mut(ROWS_TOGETHER))
            .enumerate()
            .for_each_init(
                SelectionOutcome::default,
                |outcome, (chunk, ((status, scaled), jacobian))| {
                    let first = chunk * ROWS_TOGETHER;
                    let rows = first..first + status.len();
                    selection.evaluate(which, columns, rows.clone(), outcome);
                    match fixed {
                        None => {
                            status.copy_from_slice(&outcome.status);
                            scaled.fill(0.0);
                            jacobian.fill(0.0);
                        }
                        Some(fixed) => {
                            let verdicts = outcome.status.iter().zip(&fixed.status[rows.clone()]);
                            let both = status.iter_mut().zip(verdicts);
                            both.for_each(|(status, (own, fixed))| *status = alone(own | fixed));
                            let of = rows.start * width..rows.end * width;
                            scaled.copy_from_slice(&fixed.scaled[of]);
                            jacobian.copy_from_slice(&fixed.jacobian[rows.clone()]);
                        }
                    }
                    for d in own.iter().copied() {
                        let feature = &features[d];
                        let cells = scaled.iter_mut().skip(d).step_by(width);
                        cells.zip(outcome.coordinates(d)).for_each(|(z, c)| *z = feature.scale(*c));
                    }
                    let unusable = |i: &usize| status[*i] & UNUSABLE != 0;
                    if *raw {
                        for i in (0..status.len()).filter(|i| !unusable(i)) {
                            let quantity = |d: usize| f64::from(columns[d][first + i]);
                            jacobian[i] += log_jacobian(features, own, quantity);
                        }
                    }
                    for i in (0..status.len()).filter(unusable) {
                        scaled[i * width..(i + 1) * width].fill(0.0);
                    }
                },
            );
    }
}

/// Returns the columns of `quantities` at position k: those of the position, else fixed ones.
fn columns_at<'c>(
    quantities: &[String],
    fixed: &[&'c [f32]],
    seen: &'c PositionColumns,
    k: usize,
) -> Vec<&'c [f32]> {
    let column = |(name, fixed): (&String, &&'c [f32])| {
        let which = OF_POSITION.iter().position(|known| known == name);
        which.map_or(*fixed, |which| seen.column(which, k))
    };
    quantities.iter().zip(fixed).map(column).collect()
}

/// Returns Σ ln|dc/dx| of the features `of`.
fn log_jacobian(features: &[ScaledFeature], of: &[usize], quantity: impl Fn(usize) -> f64) -> f64 {
    of.iter().map(|d| features::log_jacobian(&features[*d].feature, quantity(*d))).sum()
}

impl Prepared {
    /// Returns the scaled features of a row.
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
