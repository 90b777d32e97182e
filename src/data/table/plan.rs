//! Plans of blocks: the derivation of their contents from the columns that are read.

use super::batch::ColumnData;
use crate::data::schema::ClassColumn;
use crate::data::schema::expression::Expression;

/// Derivation of one quantity from the columns that are read.
#[derive(Debug)]
pub(super) enum QuantityPlan {
    Direct(usize),
    Scaled { column: usize, scale: f64 },
    Computed { expression: Expression, columns: Vec<usize>, scale: f64 },
}

/// Contents of a block, as indices of columns.
#[derive(Debug, Default)]
pub(super) struct BlockPlan {
    pub quantities: Vec<QuantityPlan>,
    pub keys: Vec<usize>,
    pub shower: Vec<usize>,
    pub class: Option<(usize, ClassColumn)>,
}

impl QuantityPlan {
    /// Computes a quantity that differs from its column.
    pub fn compute(&self, read: &[ColumnData], rows: usize, quantity: &mut Vec<f32>) {
        match self {
            QuantityPlan::Direct(_) => {}
            QuantityPlan::Scaled { column, scale } => {
                quantity.clear();
                quantity.extend(read[*column].f64().iter().map(|value| (value * scale) as f32));
            }
            QuantityPlan::Computed { expression, columns, scale } => {
                let columns: Vec<&[f64]> =
                    columns.iter().map(|column| read[*column].f64()).collect();
                quantity.clear();
                expression.evaluate_rows(&columns, rows, |value| {
                    quantity.push((value * scale) as f32);
                });
            }
        }
    }
}
