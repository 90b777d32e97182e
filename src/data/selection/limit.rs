//! Bounds, weights and bins of a selection: a number or an expression of columns.

use crate::config::CutBound;
use crate::data::schema::expression::Expression;
use crate::error::Result;

/// A number, or an expression of columns.
#[derive(Debug, Clone)]
pub(super) enum Limit {
    Number(f64),
    Expression { expression: Expression, columns: Vec<usize> },
}

/// Largest number of columns of an expression that is evaluated without an allocation.
const FEW: usize = 8;

impl Limit {
    /// Returns the columns of the expression.
    pub(crate) fn columns(&self) -> &[usize] {
        match self {
            Limit::Number(_) => &[],
            Limit::Expression { columns, .. } => columns,
        }
    }

    /// Returns the value of a row; `of` returns the value of a column.
    pub(crate) fn value(&self, of: impl Fn(usize) -> f64) -> f64 {
        match self {
            Limit::Number(x) => *x,
            Limit::Expression { expression, columns } if columns.len() <= FEW => {
                let mut values = [0.0; FEW];
                values.iter_mut().zip(columns).for_each(|(value, column)| *value = of(*column));
                expression.evaluate(&values[..columns.len()])
            }
            Limit::Expression { expression, columns } => {
                let values: Vec<f64> = columns.iter().map(|c| of(*c)).collect();
                expression.evaluate(&values)
            }
        }
    }

    /// Sets `out` to the values of `rows` rows; `variables` is a buffer for the columns.
    pub(crate) fn values<'a>(
        &self,
        column: impl Fn(usize) -> &'a [f32],
        rows: usize,
        out: &mut Vec<f64>,
        variables: &mut Vec<Vec<f64>>,
    ) {
        out.clear();
        match self {
            Limit::Number(x) => out.resize(rows, *x),
            Limit::Expression { expression, columns } => {
                variables.resize(variables.len().max(columns.len()), Vec::new());
                for (values, c) in variables.iter_mut().zip(columns) {
                    values.clear();
                    values.extend(column(*c).iter().copied().map(f64::from));
                }
                let given: Vec<&[f64]> =
                    variables[..columns.len()].iter().map(Vec::as_slice).collect();
                expression.evaluate_rows(&given, rows, |value| out.push(value));
            }
        }
    }

    /// Returns the value of a row; `None` if the value of a column is not known.
    pub(crate) fn value_of(&self, of: impl Fn(usize) -> Option<f64>) -> Option<f64> {
        match self {
            Limit::Number(x) => Some(*x),
            Limit::Expression { expression, columns } => {
                let values: Option<Vec<f64>> = columns.iter().map(|c| of(*c)).collect();
                Some(expression.evaluate(&values?))
            }
        }
    }
}

/// Returns the index of a quantity, and adds it if necessary.
pub(super) fn index_of(quantities: &mut Vec<String>, name: &str) -> usize {
    quantities.iter().position(|q| q == name).unwrap_or_else(|| {
        quantities.push(name.to_string());
        quantities.len() - 1
    })
}

/// Binds a bound to the columns of its quantities, which are added if necessary.
///
/// # Errors
/// `Usage` if the expression is not valid.
pub(super) fn limit(
    quantities: &mut Vec<String>,
    bound: Option<&CutBound>,
) -> Result<Option<Limit>> {
    Ok(match bound {
        None => None,
        Some(CutBound::Number(x)) => Some(Limit::Number(*x)),
        Some(CutBound::Expression(text)) => {
            let expression = Expression::parse(text)?;
            let columns = expression.variables().iter().map(|v| index_of(quantities, v)).collect();
            Some(Limit::Expression { expression, columns })
        }
    })
}
