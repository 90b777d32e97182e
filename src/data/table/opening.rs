//! Opens and checks the columns that a request needs of one part of a table.

use super::batch::Want;
use super::plan::{BlockPlan, QuantityPlan};
use super::{Request, Table};
use crate::data::hdf5::numbers::StoredColumn;
use crate::data::hdf5::storage;
use crate::data::schema::layout::TableLayout;
use crate::data::schema::{Quantity, QuantitySource, normal_unit};
use crate::error::{Error, Fault, Result, did_you_mean};
use std::collections::BTreeSet;

/// The columns of one part of a table, as far as they are open and checked.
pub(super) struct PartOpener<'a> {
    table: &'a Table,
    layout: TableLayout,
    rows: u64,  // of the part
    bytes: u64, // of the file
    pub columns: Vec<(StoredColumn, Want)>,
    checked: BTreeSet<String>, // datasets with checked storage
}

impl<'a> PartOpener<'a> {
    /// Starts with no column of a part of `rows` rows, in a file of `bytes` bytes.
    pub(crate) fn new(
        table: &'a Table,
        layout: TableLayout,
        rows: u64,
        bytes: u64,
    ) -> PartOpener<'a> {
        PartOpener { table, layout, rows, bytes, columns: Vec::new(), checked: BTreeSet::new() }
    }

    /// Opens the columns of a request and returns the plan of its blocks.
    pub(crate) fn plan(&mut self, request: &Request) -> Result<BlockPlan> {
        let mut plan = BlockPlan::default();
        for name in &request.quantities {
            plan.quantities.push(self.quantity(name)?);
        }
        for name in &request.keys {
            plan.keys.push(self.key(name)?);
        }
        if request.shower {
            for name in &self.table.shower {
                plan.shower.push(self.integers(name)?);
            }
        }
        if let Some(class) = self.table.class.as_ref().filter(|_| request.class) {
            plan.class = Some((self.integers(&class.column)?, class.clone()));
        }
        Ok(plan)
    }

    /// Opens and checks a column, and returns its index.
    fn column(&mut self, name: &str, want: Want) -> Result<usize> {
        let column = self.layout.column(&self.table.path, name)?;
        if want == Want::I64 {
            column.check_integer("keys and classes")?;
        }
        column.check_rows(self.rows)?;
        if self.checked.insert(column.name.clone()) {
            storage::check(&column, self.bytes)?;
        }
        self.columns.push((column, want));
        Ok(self.columns.len() - 1)
    }

    fn integers(&mut self, name: &str) -> Result<usize> {
        self.column(name, Want::I64)
    }

    fn key(&mut self, name: &str) -> Result<usize> {
        let Some(dataset) = self.table.keys.get(name) else {
            return Err(Fault::new(format!("key '{name}' is not available"))
                .file(&self.table.path)
                .advice(did_you_mean(name, &self.table.key_names()))
                .input());
        };
        self.integers(dataset)
    }

    /// Opens the columns of a quantity; columns of expressions are read once each.
    fn quantity(&mut self, name: &str) -> Result<QuantityPlan> {
        let Some(quantity) = self.table.quantity(name) else {
            return Err(self.missing_quantity(name));
        };
        let column = match &quantity.source {
            QuantitySource::Column(column) => column,
            QuantitySource::Expression(expression) => {
                let mut columns = Vec::new();
                for name in expression.variables() {
                    let index = self.share(name)?;
                    if let Some(unit) = self.table.schema.units.get(name) {
                        check_column_unit(&self.columns[index].0, unit)?;
                    }
                    columns.push(index);
                }
                return Ok(QuantityPlan::Computed {
                    columns,
                    expression: expression.clone(),
                    scale: quantity.scale,
                });
            }
        };
        let stored = self.layout.column(&self.table.path, column)?;
        let scale = scale_of(name, quantity, &stored)?;
        if is_one(scale) {
            return Ok(QuantityPlan::Direct(self.column(column, Want::F32)?));
        }
        Ok(QuantityPlan::Scaled { column: self.share(column)?, scale })
    }

    /// Returns the index of a column that several quantities may be computed from.
    fn share(&mut self, name: &str) -> Result<usize> {
        let known =
            |(column, want): &(StoredColumn, Want)| *want == Want::F64 && column.is_named(name);
        match self.columns.iter().position(known) {
            Some(index) => Ok(index),
            None => self.column(name, Want::F64),
        }
    }

    fn missing_quantity(&self, name: &str) -> Error {
        let table = self.table;
        let columns = match table.schema.quantities.get(name) {
            Some(quantity) => quantity.source.columns().to_vec(),
            None if table.schema.open => vec![name.to_string()],
            None => Vec::new(),
        };
        // The error of a column that is absent or not numeric names the reason.
        let reason = columns.iter().find_map(|column| {
            let opened = self.layout.column(&table.path, column);
            opened.and_then(|column| column.check_rows(self.rows)).err()
        });
        let known = table.schema.quantities.contains_key(name)
            || self.layout.names().iter().any(|known| known == name);
        if let (Some(error), true) = (reason, known) {
            return error;
        }
        Fault::new(format!("quantity '{name}' is not available"))
            .file(&table.path)
            .expected(format!("a quantity of the schema '{}'", table.schema.name))
            .advice(did_you_mean(name, &table.quantities()))
            .input()
    }
}

fn is_one(scale: f64) -> bool {
    scale.to_bits() == 1.0f64.to_bits()
}

/// Returns the factor from a stored column to the canonical unit: 1 if the column declares this
/// unit itself. Any other unit than the schema's is refused.
fn scale_of(name: &str, quantity: &Quantity, column: &StoredColumn) -> Result<f64> {
    match column.unit().map(normal_unit) {
        Some(found) if found == quantity.unit => Ok(quantity.scale),
        Some(found) if found == quantity.canonical => Ok(1.0),
        Some(found) => Err(column
            .fault(&format!("the unit of quantity '{name}' differs from the schema"))
            .expected(&quantity.unit)
            .found(found)
            .advice("correct the unit in the schema (with a factor where needed) or in the file")
            .input()),
        None => Ok(quantity.scale),
    }
}

/// Refuses a column of an expression whose declared unit differs from the schema.
fn check_column_unit(column: &StoredColumn, expected: &str) -> Result<()> {
    match column.unit().map(normal_unit) {
        Some(found) if found != expected => Err(column
            .fault("the unit of the column differs from the schema")
            .expected(expected)
            .found(found)
            .advice("correct the unit and the expressions in the schema, or the file")
            .input()),
        _ => Ok(()),
    }
}
