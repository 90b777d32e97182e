//! Schema files: the TOML as deserialised, and its resolution into a [`Schema`].

use super::expression::Expression;
use super::layout::LayoutKind;
use super::plausible::Plausible;
use super::units::{canonical_unit, known_conversion, normal_unit};
use super::{ClassColumn, Compare, Quantity, QuantitySource, Schema, Text};
use crate::error::{Fault, Result, did_you_mean};
use serde::Deserialize;
use std::collections::BTreeMap;

/// Content of a schema file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SchemaEntry {
    name: String,
    #[serde(default)]
    description: String,
    group: Option<String>,
    table: Option<String>,
    layout: Option<LayoutKind>,
    #[serde(default)]
    open: bool,
    format: Option<String>,
    version: Option<i64>,
    #[serde(default)]
    constants: BTreeMap<String, f64>,
    #[serde(default)]
    quantities: BTreeMap<String, QuantityEntry>,
    /// Units of columns that are used in expressions only.
    #[serde(default)]
    units: BTreeMap<String, String>,
    #[serde(default)]
    keys: KeysEntry,
    class: Option<ClassEntry>,
    #[serde(default)]
    compare: BTreeMap<String, CompareEntry>,
    #[serde(default)]
    plausible: BTreeMap<String, Plausible>,
    #[serde(default)]
    aliases: BTreeMap<String, String>,
    text: Option<Text>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CompareEntry {
    column: Option<String>,
    expression: Option<String>,
    unit: String,
    within: f64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Larger {
    than: f64,
    unit: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct QuantityEntry {
    column: Option<String>,
    expression: Option<String>,
    unit: String,
    factor: Option<Factor>,
    canonical: Option<String>,
    larger: Option<Larger>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "wrong type, expected a number or the name of a constant")]
enum Factor {
    Number(f64),
    Constant(String),
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct KeysEntry {
    #[serde(default)]
    copy: BTreeMap<String, String>,
    #[serde(default)]
    shower: Vec<String>,
    #[serde(default)]
    shower_else: Vec<String>,
    #[serde(default)]
    event: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ClassEntry {
    column: String,
    #[serde(default)]
    gamma: Vec<i64>,
    #[serde(default)]
    hadron: Vec<i64>,
}

impl SchemaEntry {
    /// Returns the complete schema.
    ///
    /// # Errors
    /// `Usage` with the name of the quantity that is not valid.
    pub(super) fn resolve(self) -> Result<Schema> {
        if self.quantities.is_empty() && !self.open {
            return Err(Fault::new("schema without quantities")
                .advice("add [quantities.NAME] tables, or open = true")
                .usage());
        }
        let place = resolve_place(self.group, self.table, self.text.is_some())?;
        let constants = &self.constants;
        let quantities = self
            .quantities
            .into_iter()
            .map(|(name, entry)| {
                let quantity = entry.resolve(&name, constants)?;
                Ok((name, quantity))
            })
            .collect::<Result<BTreeMap<_, _>>>()?;
        let shower = [self.keys.shower, self.keys.shower_else];
        let compare = self
            .compare
            .into_iter()
            .map(|(name, entry)| {
                let compare = entry.resolve(&name, constants)?;
                Ok((name, compare))
            })
            .collect::<Result<BTreeMap<_, _>>>()?;
        self.plausible.iter().try_for_each(|(name, plausible)| check_plausible(name, plausible))?;
        Ok(Schema {
            name: self.name,
            description: self.description,
            place,
            layout: self.layout,
            units: self
                .units
                .iter()
                .map(|(name, unit)| (name.clone(), normal_unit(unit)))
                .collect(),
            open: self.open,
            format: self.format.map(|format| (format, self.version.unwrap_or(1))),
            quantities,
            copy: self.keys.copy,
            shower: shower.into_iter().filter(|columns| !columns.is_empty()).collect(),
            class: self.class.map(|entry| ClassColumn {
                column: entry.column,
                gamma: entry.gamma,
                hadron: entry.hadron,
            }),
            event: self.keys.event,
            compare,
            plausible: self.plausible,
            aliases: self.aliases,
            text: self.text,
        })
    }
}

/// Returns the place of the table; `None` for text tables.
fn resolve_place(
    group: Option<String>,
    table: Option<String>,
    is_text: bool,
) -> Result<Option<String>> {
    match (group, table, is_text) {
        (Some(place), None, false) | (None, Some(place), false) => {
            Ok(Some(place.trim_matches('/').to_string()))
        }
        (None, None, true) => Ok(None),
        _ => Err(Fault::new("schema without exactly one place of the table")
            .expected("one of `group` (one dataset per column), `table` or [text]")
            .usage()),
    }
}

impl CompareEntry {
    /// Returns the second definition of the quantity `name`.
    fn resolve(self, name: &str, constants: &BTreeMap<String, f64>) -> Result<Compare> {
        let CompareEntry { column, expression, unit, within } = self;
        let entry =
            QuantityEntry { column, expression, unit, factor: None, canonical: None, larger: None };
        Ok(Compare { quantity: entry.resolve(name, constants)?, within })
    }
}

impl QuantityEntry {
    /// Returns the quantity `name` with its scale to the canonical unit.
    fn resolve(self, name: &str, constants: &BTreeMap<String, f64>) -> Result<Quantity> {
        let source = match (self.column, self.expression) {
            (Some(column), None) => QuantitySource::Column(column),
            (None, Some(text)) => {
                QuantitySource::Expression(Expression::parse(&text)?.with_constants(constants))
            }
            _ => {
                return Err(quantity_fault(name, "needs a source")
                    .expected("either `column` or `expression`")
                    .usage());
            }
        };
        if source.columns().is_empty() {
            return Err(quantity_fault(name, "does not use any column").usage());
        }
        let unit = normal_unit(&self.unit);
        let canonical = match (canonical_unit(name), self.canonical) {
            (Some(known), Some(given)) if normal_unit(&given) != known => {
                return Err(quantity_fault(name, "has a different canonical unit")
                    .expected(known)
                    .found(given)
                    .usage());
            }
            (Some(known), _) => known.to_string(),
            (None, Some(given)) => normal_unit(&given),
            (None, None) => unit.clone(),
        };
        let scale = resolve_scale(name, self.factor, &unit, &canonical, constants)?;
        let larger = self.larger.map(|larger| {
            let unit = normal_unit(&larger.unit);
            resolve_scale(name, None, &unit, &canonical, constants)
                .map(|scale| (larger.than, scale))
        });
        Ok(Quantity { source, unit, canonical, scale, larger: larger.transpose()? })
    }
}

/// Returns the factor from the unit of the source to the canonical unit.
fn resolve_scale(
    name: &str,
    factor: Option<Factor>,
    unit: &str,
    canonical: &str,
    constants: &BTreeMap<String, f64>,
) -> Result<f64> {
    let scale = match factor {
        Some(Factor::Number(value)) => value,
        Some(Factor::Constant(constant)) => *constants.get(&constant).ok_or_else(|| {
            let known: Vec<&str> = constants.keys().map(String::as_str).collect();
            quantity_fault(name, "has an unknown factor")
                .found(format!("'{constant}'"))
                .advice(did_you_mean(&constant, &known))
                .usage()
        })?,
        None => known_conversion(unit, canonical).ok_or_else(|| {
            quantity_fault(name, &format!("cannot be converted from '{unit}' to '{canonical}'"))
                .advice("give a factor, such as the plate scale in deg per mm")
                .usage()
        })?,
    };
    if scale.is_finite() && scale != 0.0 {
        return Ok(scale);
    }
    Err(quantity_fault(name, "has an invalid factor").found(scale).usage())
}

/// Refuses a range with exchanged ends or with NaN.
fn check_plausible(name: &str, plausible: &Plausible) -> Result<()> {
    let mut ranges = [plausible.range, plausible.median].into_iter().flatten();
    match ranges.find(|[low, high]| low.is_nan() || high.is_nan() || low > high) {
        None => Ok(()),
        Some(range) => Err(quantity_fault(name, "has an invalid plausible range")
            .expected("[lowest, highest]")
            .found(format!("{range:?}"))
            .usage()),
    }
}

/// Returns a fault about the quantity `name`.
fn quantity_fault(name: &str, fault: &str) -> Fault {
    Fault::new(format!("quantity '{name}' {fault}"))
}
