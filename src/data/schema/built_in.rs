//! Built-in schemas and the choice of one of them for a file.

use super::{EVENT_FORMAT, Schema, layout, other_format};
use crate::data::hdf5;
use crate::error::{Error, Fault, Result, nearest};
use std::path::Path;
use std::sync::OnceLock;

/// Name and text of every built-in schema. The first one that fits a file is used.
pub(crate) const BUILT_IN: [(&str, &str); 12] = [
    ("taiga-events", include_str!("../../../configs/schema/taiga-events.toml")),
    ("fact", include_str!("../../../configs/schema/fact.toml")),
    ("ctapipe", include_str!("../../../configs/schema/ctapipe.toml")),
    ("ctapipe-camera", include_str!("../../../configs/schema/ctapipe-camera.toml")),
    ("lstchain", include_str!("../../../configs/schema/lstchain.toml")),
    ("pandas", include_str!("../../../configs/schema/pandas.toml")),
    ("pytables", include_str!("../../../configs/schema/pytables.toml")),
    ("matrix", include_str!("../../../configs/schema/matrix.toml")),
    ("magic", include_str!("../../../configs/schema/magic.toml")),
    ("taiga-experiment", include_str!("../../../configs/schema/taiga-experiment.toml")),
    ("taiga-mc", include_str!("../../../configs/schema/taiga-mc.toml")),
    ("taiga-mc-newer", include_str!("../../../configs/schema/taiga-mc-newer.toml")),
];

/// Features of the reference study. A file that lacks one of them does not fit a schema.
pub(super) const NEEDED: [&str; 6] = ["size", "length", "width", "dist", "alpha", "con2"];

/// Returns all built-in schemas. They are parsed once, because an archive has many files.
///
/// # Errors
/// `Usage` if one of them is not valid.
pub(crate) fn built_in() -> Result<&'static [Schema]> {
    static PARSED: OnceLock<Vec<Schema>> = OnceLock::new();
    if let Some(schemas) = PARSED.get() {
        return Ok(schemas);
    }
    let schemas = BUILT_IN
        .iter()
        .map(|(name, text)| Schema::parse(text, name))
        .collect::<Result<Vec<_>>>()?;
    Ok(PARSED.get_or_init(|| schemas))
}

/// A schema that does not fit a file.
struct Misfit<'a> {
    schema: &'a Schema,
    /// Needed columns that the file does not have.
    missing: Vec<String>,
    /// Columns of the file.
    columns: Vec<String>,
}

/// Returns the schema that fits a file: the one of its root attribute `format`, else the first
/// built-in one whose needed columns are all in the file.
///
/// # Errors
/// `Input` if no schema fits, with the two schemas that lack the fewest columns.
pub(super) fn detect(path: &Path, file: &::hdf5::File) -> Result<Schema> {
    let schemas = built_in()?;
    if let Some(format) = hdf5::text_attribute(file, "format") {
        let own = schemas.iter().find(|schema| schema.is_format(&format));
        let own = own.ok_or_else(|| other_format(path, EVENT_FORMAT, &format))?;
        own.check_format(path, file)?;
        return Ok(own.clone());
    }
    let (open, closed): (Vec<&Schema>, Vec<&Schema>) = schemas
        .iter()
        .filter(|schema| schema.place.is_some() && schema.format.is_none())
        .partition(|schema| schema.open);
    let mut misfits = Vec::new();
    for schema in closed {
        let columns = schema.columns_in(path, file)?;
        let missing = schema.missing(&columns);
        if missing.is_empty() {
            return Ok(schema.clone());
        }
        misfits.push(Misfit { schema, missing, columns });
    }
    for schema in open {
        if schema.fits_names(path, file)? {
            return Ok(schema.clone());
        }
    }
    Err(no_schema(path, file, misfits))
}

/// Returns the error of a file that no schema fits.
fn no_schema(path: &Path, file: &::hdf5::File, mut misfits: Vec<Misfit>) -> Error {
    let groups = hdf5::describe_root(file);
    misfits.sort_by_key(|misfit| (misfit.missing.len(), &misfit.schema.name));
    misfits.truncate(2);
    let mut advice = misfits.first().map(spelling_advice).unwrap_or_default();
    advice.push("name a schema: copy configs/schema/fact.toml and map your columns in it".into());
    let misfits: Vec<String> = misfits
        .iter()
        .map(|misfit| format!("'{}' ({} missing)", misfit.schema.name, misfit.missing.join(", ")))
        .collect();
    Fault::new("no built-in schema fits this file")
        .file(path)
        .expected(format!(
            "root attribute format = '{EVENT_FORMAT}', or the columns of {}",
            misfits.join(" or of ")
        ))
        .found(groups)
        .advice(advice.join(" else "))
        .input()
}

/// Returns a question for each missing column that resembles a column of the file.
fn spelling_advice(misfit: &Misfit) -> Vec<String> {
    let known = || misfit.columns.iter().map(String::as_str);
    let question = |column: &String| {
        nearest(column, known()).map(|near| format!("is '{near}' meant to be '{column}'?"))
    };
    misfit.missing.iter().filter_map(question).collect()
}

impl Schema {
    /// Returns whether files of this schema have the root attribute `format` = `found`.
    fn is_format(&self, found: &str) -> bool {
        self.format.as_ref().is_some_and(|(format, _)| format == found)
    }

    /// Returns whether the file has at least two features under their own names, which is
    /// enough for an open schema.
    fn fits_names(&self, path: &Path, file: &::hdf5::File) -> Result<bool> {
        let found = self.columns_in(path, file)?;
        Ok(NEEDED.iter().filter(|name| found.iter().any(|column| column == *name)).count() >= 2)
    }

    /// Returns the columns of a file at the place of this schema; empty if there is no table.
    ///
    /// # Errors
    /// `Environment` if the system fails to read it.
    fn columns_in(&self, path: &Path, file: &::hdf5::File) -> Result<Vec<String>> {
        let Some(place) = &self.place else { return Ok(Vec::new()) };
        let layouts = hdf5::unless_system(layout::find(path, file, place, self.layout))?;
        Ok(layouts.and_then(|all| all.first().map(layout::TableLayout::names)).unwrap_or_default())
    }

    /// Returns the columns of the needed quantities that are not among `found`.
    fn missing(&self, found: &[String]) -> Vec<String> {
        let needed = NEEDED.iter().filter_map(|name| self.quantities.get(*name));
        let mut columns: Vec<String> = needed
            .flat_map(|quantity| quantity.source.columns())
            .filter(|column| !found.contains(column))
            .cloned()
            .collect();
        columns.sort();
        columns.dedup();
        columns
    }
}
