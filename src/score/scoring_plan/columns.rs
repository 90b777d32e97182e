//! Columns of an output and their types.

use crate::config::{Score, ScoreColumn};
use crate::data::schema::columns::ColumnType;
use crate::engine::Scorer;
use crate::error::{Fault, Result};

/// Returns kind, index of the flow, and name of each column that the model computes. A model of
/// several flows has one column of log-likelihoods per flow: `log_prob_gamma`, `log_prob_hadron`.
///
/// # Errors
/// `Usage` if the model cannot compute a column.
pub(super) fn columns(
    score: &Score,
    scorer: &Scorer,
    calibrated: bool,
) -> Result<Vec<(ScoreColumn, usize, String)>> {
    let flows = scorer.flow_names();
    let mut columns = Vec::new();
    let points = score.working_points.iter().map(|point| point.column);
    for column in score.columns.iter().copied().chain(points) {
        let missing = |expected: &str| {
            let fault = Fault::new(format!("the model cannot compute {}", column.name()));
            Err(fault.expected(expected).advice("leave the column out of [score]").usage())
        };
        match column {
            ScoreColumn::Gammaness | ScoreColumn::Posterior if !calibrated => {
                return missing(
                    "a model calibrated on held-out events of both classes (mode = \"ratio\")",
                );
            }
            ScoreColumn::PValue if scorer.card.normals.is_none() => {
                return missing("a one-class model trained by this version, with held-out events");
            }
            _ => {}
        }
    }
    for column in &score.columns {
        let stem = column.name();
        match column {
            ScoreColumn::LogProb | ScoreColumn::LogProbRaw if flows.len() > 1 => {
                for (flow, name) in flows.iter().enumerate() {
                    columns.push((*column, flow, format!("{stem}_{name}")));
                }
            }
            _ => columns.push((*column, 0, stem.to_string())),
        }
    }
    Ok(columns)
}

/// Returns type and unit of a column.
pub(super) fn kind_and_unit(column: ScoreColumn) -> (ColumnType, Option<&'static str>) {
    match column {
        ScoreColumn::Gammaness
        | ScoreColumn::Posterior
        | ScoreColumn::PValue
        | ScoreColumn::Chi2 => (ColumnType::F32, Some("1")),
        ScoreColumn::Dist | ScoreColumn::Alpha => (ColumnType::F32, Some("deg")),
        ScoreColumn::Theta2 => (ColumnType::F32, Some("deg^2")),
        ScoreColumn::Pass => (ColumnType::U8, None),
        ScoreColumn::Score | ScoreColumn::LogProb | ScoreColumn::LogProbRaw => {
            (ColumnType::F32, Some("nat"))
        }
    }
}
