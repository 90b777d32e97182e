//! Rows of a block with their scores, reused from block to block.

use crate::config::ScoreColumn;
use crate::data::table::Block;
use crate::engine::{PositionColumns, Prepared, Scored};

/// Rows of a block: quantities, scores and derived columns.
#[derive(Debug, Default)]
pub(crate) struct ScoredRows {
    pub block: Block,
    pub scored: Scored,
    pub(super) prepared: Prepared,
    pub(super) seen: PositionColumns,
    pub(super) quality: Vec<u32>, // (rows)
    pub(super) energy: Vec<f32>,  // (positions, rows), TeV
    pub(super) p_value: Vec<f32>, // (positions, rows)
    pub(super) bin: Vec<u16>,     // (positions, rows), where thresholds have bins
    pub(super) pass: Vec<u8>,     // (positions, rows)
}

impl ScoredRows {
    /// Returns `dist` and `alpha` at the first position [deg].
    pub(crate) fn at_source(&self) -> [&[f32]; 2] {
        [0, 1].map(|which| self.seen.column(which, 0))
    }

    /// Returns the values (positions, rows) of a column of f32.
    pub(super) fn figure(&self, column: ScoreColumn, flow: usize) -> &[f32] {
        match column {
            ScoreColumn::Score => &self.scored.score,
            ScoreColumn::LogProb => &self.scored.log_prob[flow],
            ScoreColumn::LogProbRaw => &self.scored.log_prob_raw[flow],
            ScoreColumn::Gammaness => &self.scored.gammaness,
            ScoreColumn::Posterior => &self.scored.posterior,
            ScoreColumn::PValue => &self.p_value,
            ScoreColumn::Chi2 => &self.scored.chi2,
            ScoreColumn::Dist => &self.seen.dist,
            ScoreColumn::Alpha => &self.seen.alpha,
            ScoreColumn::Theta2 => &self.seen.theta2,
            ScoreColumn::Pass => &[],
        }
    }
}
