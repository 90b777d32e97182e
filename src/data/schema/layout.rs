//! How the columns of a table lie in a file: a dataset each in a group, fields of a
//! compound dataset (PyTables, pandas `table`, ctapipe), or columns of matrices with
//! names (pandas `fixed`, h5py).
//!
//! Owns finding a table by its place, which may hold `*` for tables that continue each
//! other, or be `**` for the only table of a file; names, units and number formats of
//! columns as each writer states them. Left to others: what the columns mean (`table`),
//! and reading them (`batch`).

use crate::data::hdf5;
use crate::data::hdf5::compound::{self, Field};
use crate::data::hdf5::numbers::{FieldMeta, FixedPoint, StoredColumn};
use crate::error::{Fault, Result, did_you_mean};
use ::hdf5::types::{FixedAscii, FixedUnicode, TypeDescriptor, VarLenAscii, VarLenUnicode};
use ::hdf5::{Dataset, File, Group, Location, LocationType};
use std::path::Path;

/// The only table of a file, wherever it is.
pub(crate) const ANYWHERE: &str = "**";

const DEEPEST_GROUP: usize = 16;
/// Objects looked at when a table is searched for.
const MOST_OBJECTS: usize = 10_000;
const MOST_COLUMNS: usize = 4096;
/// Where a matrix, or the group it is in, has the names of its columns.
const NAMES: [&str; 3] = ["columns", "column_names", "names"];

/// Kinds of tables that a schema may be restricted to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LayoutKind {
    Columns,
    Compound,
    Pandas,
    Matrix,
}

/// A table that was found, or one of several that continue each other.
#[derive(Debug)]
pub(crate) struct TableLayout {
    /// Its path in the file.
    pub name: String,
    pub kind: LayoutKind,
    columns: LayoutColumns,
}

#[derive(Debug)]
enum LayoutColumns {
    Datasets(Group),
    Record { dataset: Dataset, columns: Vec<FieldColumn> },
    Matrices(Vec<MatrixDataset>),
}

#[derive(Debug)]
struct FieldColumn {
    name: String,
    field: Field,
    index: usize, // of the field in the record
    item: usize,
}

/// A dataset (rows, columns).
#[derive(Debug)]
struct MatrixDataset {
    dataset: Dataset,
    names: Vec<String>,
    units: Vec<String>,
}

impl TableLayout {
    /// Names of all columns.
    pub fn names(&self) -> Vec<String> {
        match &self.columns {
            LayoutColumns::Datasets(group) => group.member_names().unwrap_or_default(),
            LayoutColumns::Record { columns, .. } => {
                columns.iter().map(|c| c.name.clone()).collect()
            }
            LayoutColumns::Matrices(matrices) => {
                matrices.iter().flat_map(|matrix| matrix.names.iter().cloned()).collect()
            }
        }
    }

    /// The column of that name, if it is one of numbers.
    pub fn column(&self, path: &Path, name: &str) -> Result<StoredColumn> {
        match &self.columns {
            LayoutColumns::Datasets(group) => StoredColumn::open(path, group, name),
            LayoutColumns::Record { dataset, columns } => {
                let Some(column) = columns.iter().find(|column| column.name == name) else {
                    return Err(self.missing(path, name));
                };
                let FieldColumn { field, index, item, .. } = column;
                let meta = field_meta(path, dataset, *index, &field.name)?;
                StoredColumn::field(path, dataset, name, field, *item, meta)
            }
            LayoutColumns::Matrices(matrices) => {
                for matrix in matrices {
                    if let Some(index) = matrix.names.iter().position(|known| known == name) {
                        let unit = matrix.units.get(index).filter(|unit| !unit.is_empty());
                        let place = (index, matrix.names.len());
                        return StoredColumn::matrix(
                            path,
                            &matrix.dataset,
                            name,
                            place,
                            unit.cloned(),
                        );
                    }
                }
                Err(self.missing(path, name))
            }
        }
    }

    fn missing(&self, path: &Path, name: &str) -> crate::error::Error {
        let names = self.names();
        let known: Vec<&str> = names.iter().map(String::as_str).collect();
        let fault = Fault::new("column not found").file(path).dataset(&self.name).column(name);
        fault.advice(did_you_mean(name, &known)).input()
    }
}

/// The tables at a place, in the order of their names; at least one.
pub(crate) fn find(
    path: &Path,
    file: &File,
    place: &str,
    kind: Option<LayoutKind>,
) -> Result<Vec<TableLayout>> {
    let root = file.as_group().map_err(|error| hdf5::read_fault(path, "/", &error))?;
    if place == ANYWHERE {
        return only_table(path, &root, kind).map(|layout| vec![layout]);
    }
    if !place.contains('*') {
        return open(path, file, place).map(|layout| vec![layout]);
    }
    let mut places = vec![String::new()];
    for component in place.split('/') {
        let mut next = Vec::new();
        for parent in &places {
            let names = if component.contains('*') {
                hdf5::member_names(path, file, if parent.is_empty() { "/" } else { parent })?
            } else {
                vec![component.to_string()]
            };
            let fitting = names.into_iter().filter(|name| fits(component, name));
            next.extend(
                fitting.map(|name| format!("{parent}/{name}").trim_matches('/').to_string()),
            );
        }
        places.clear();
        for place in next {
            // The question for a link does not tell a failed read from a missing link.
            let is_there = root.link_exists_deep(&place)
                || hdf5::present(path, &place, root.loc_type_by_name(&place))?.is_some();
            places.extend(is_there.then_some(place));
        }
    }
    if places.is_empty() {
        return Err(Fault::new(format!("no table '{place}' found"))
            .file(path)
            .found(hdf5::describe_root(file))
            .advice("name the place of the table in a schema of your own")
            .input());
    }
    places.iter().map(|place| open(path, file, place)).collect()
}

/// Whether a name fits a pattern in which `*` stands for any letters.
fn fits(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = name.strip_prefix(first) else { return false };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else { return rest.is_empty() };
    for part in middle {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

trait Links {
    fn link_exists_deep(&self, place: &str) -> bool;
}

impl Links for Group {
    /// The library's own question fails where a group on the way is missing.
    fn link_exists_deep(&self, place: &str) -> bool {
        let ends = place.match_indices('/').map(|(at, _)| at).chain([place.len()]);
        ends.into_iter().all(|end| self.link_exists(&place[..end]))
    }
}

/// The table at a place without patterns.
pub(crate) fn open(path: &Path, file: &File, place: &str) -> Result<TableLayout> {
    let kind = if place.is_empty() { None } else { file.loc_type_by_name(place).ok() };
    if kind == Some(LocationType::Dataset) {
        let dataset = file.dataset(place).map_err(|error| hdf5::read_fault(path, place, &error))?;
        return of_dataset(path, place, &dataset);
    }
    of_group(path, place, hdf5::group(path, file, place)?)
}

fn of_dataset(path: &Path, place: &str, dataset: &Dataset) -> Result<TableLayout> {
    let name = place.to_string();
    if compound::is_record(dataset) {
        let columns = record_columns(path, place, dataset)?;
        let columns = LayoutColumns::Record { dataset: dataset.clone(), columns };
        return Ok(TableLayout { name, kind: LayoutKind::Compound, columns });
    }
    if let Some(matrix) = matrix(dataset, None) {
        return Ok(TableLayout {
            name,
            kind: LayoutKind::Matrix,
            columns: LayoutColumns::Matrices(vec![matrix]),
        });
    }
    Err(Fault::new("not a table")
        .file(path)
        .dataset(place)
        .expected("a compound dataset, a matrix with names of its columns, or a group of columns")
        .found(format!("shape {:?}", dataset.shape()))
        .advice("name another place in the schema")
        .input())
}

fn of_group(path: &Path, place: &str, group: Group) -> Result<TableLayout> {
    let name = place.to_string();
    match hdf5::text_attribute(&group, "pandas_type").as_deref() {
        Some("frame_table") => {
            let dataset =
                group.dataset("table").map_err(|error| hdf5::read_fault(path, place, &error))?;
            let columns = record_columns(path, place, &dataset)?;
            return Ok(TableLayout {
                name,
                kind: LayoutKind::Pandas,
                columns: LayoutColumns::Record { dataset, columns },
            });
        }
        Some("frame") => {
            let columns = LayoutColumns::Matrices(pandas_blocks(path, place, &group)?);
            return Ok(TableLayout { name, kind: LayoutKind::Pandas, columns });
        }
        Some(other) => {
            return Err(Fault::new("not a table of pandas")
                .file(path)
                .dataset(place)
                .expected("a data frame")
                .found(format!("a '{other}'"))
                .input());
        }
        None => {}
    }
    let names = group.member_names().map_err(|error| hdf5::read_fault(path, place, &error))?;
    let matrices = matrices_of(path, &group, &names)?;
    if !matrices.is_empty() {
        return Ok(TableLayout {
            name,
            kind: LayoutKind::Matrix,
            columns: LayoutColumns::Matrices(matrices),
        });
    }
    Ok(TableLayout { name, kind: LayoutKind::Columns, columns: LayoutColumns::Datasets(group) })
}

/// The matrices of a group that have names.
fn matrices_of(path: &Path, group: &Group, names: &[String]) -> Result<Vec<MatrixDataset>> {
    let open = |name: &String| hdf5::present(path, name, group.dataset(name));
    let beside = NAMES.iter().find_map(|name| names.iter().find(|known| known == name));
    let beside = beside.map(open).transpose()?.flatten().and_then(|dataset| texts(&dataset));
    let mut matrices = Vec::new();
    for name in names {
        let dataset = open(name)?;
        matrices.extend(dataset.and_then(|dataset| matrix(&dataset, beside.as_deref())));
    }
    Ok(matrices)
}

/// A numeric dataset (rows, columns) with as many names as columns: its own, or those
/// beside it.
fn matrix(dataset: &Dataset, beside: Option<&[String]>) -> Option<MatrixDataset> {
    let shape = dataset.shape();
    let [_, columns] = shape[..] else { return None };
    let own = NAMES.iter().find_map(|name| text_list(dataset, name));
    let names = own.or_else(|| beside.map(<[String]>::to_vec))?;
    let units = ["units", "unit"].iter().find_map(|name| text_list(dataset, name));
    (names.len() == columns && columns <= MOST_COLUMNS).then(|| MatrixDataset {
        dataset: dataset.clone(),
        names,
        units: units.unwrap_or_default(),
    })
}

fn record_columns(path: &Path, place: &str, dataset: &Dataset) -> Result<Vec<FieldColumn>> {
    let fields =
        compound::fields(dataset).map_err(|error| hdf5::read_fault(path, place, &error))?;
    let mut columns = Vec::new();
    for (index, field) in fields.into_iter().enumerate() {
        if !field.is_array {
            columns.push(FieldColumn { name: field.name.clone(), field, index, item: 0 });
            continue;
        }
        // pandas packs columns of one type into a block; it pickles their names.
        let names = hdf5::text_attribute(dataset, &format!("{}_kind", field.name));
        let names = names.and_then(|text| pickled_names(&text)).unwrap_or_default();
        // A damaged length is that of no array of numbers.
        let items = if field.numbers.is_ok() { field.items } else { 0 };
        if columns.len() + items > MOST_COLUMNS {
            return Err(Fault::new("too many columns")
                .file(path)
                .dataset(place)
                .expected(format!("at most {MOST_COLUMNS}"))
                .found(format!("an array of {items} in field '{}'", field.name))
                .advice("name another table in the schema; if it is the right one, it is damaged")
                .input());
        }
        for item in 0..items {
            let name = match names.get(item) {
                Some(name) if names.len() == field.items => name.clone(),
                _ => format!("{}[{item}]", field.name),
            };
            columns.push(FieldColumn { name, field: field.clone(), index, item });
        }
    }
    Ok(columns)
}

/// A list of texts in Python's pickle format 0, such as `(lp0\nVsize\np1\naVwidth\np2\na.`;
/// nothing else is read.
fn pickled_names(text: &str) -> Option<Vec<String>> {
    let body = text.strip_prefix("(l").or_else(|| text.strip_prefix("]"))?;
    let mut names = Vec::new();
    for line in body.lines() {
        let line = line.trim_start_matches('a');
        match line.as_bytes().first() {
            Some(b'V') => names.push(line[1..].to_string()),
            Some(b'S') => names.push(line[1..].trim_matches(['\'', '"']).to_string()),
            Some(b'p' | b'g' | b'.') | None => {}
            _ => return None,
        }
    }
    (!names.is_empty()).then_some(names)
}

/// Blocks of a frame in pandas' fixed format: `blockN_values` (rows, columns) with
/// `blockN_items`.
fn pandas_blocks(path: &Path, place: &str, group: &Group) -> Result<Vec<MatrixDataset>> {
    let names = group.member_names().map_err(|error| hdf5::read_fault(path, place, &error))?;
    let blocks = names.iter().filter_map(|name| name.strip_suffix("_values"));
    let mut matrices = Vec::new();
    for block in blocks.filter(|name| name.starts_with("block")) {
        let open = |name: String| {
            group.dataset(&name).map_err(|error| hdf5::read_fault(path, &name, &error))
        };
        let dataset = open(format!("{block}_values"))?;
        let items = open(format!("{block}_items"))?;
        // A block of texts or objects is no matrix of numbers.
        let (Some(names), [_, columns]) = (texts(&items), &dataset.shape()[..]) else { continue };
        if names.len() == *columns && names.len() <= MOST_COLUMNS {
            matrices.push(MatrixDataset { dataset, names, units: Vec::new() });
        }
    }
    if matrices.is_empty() {
        return Err(Fault::new("a frame without columns of numbers")
            .file(path)
            .dataset(place)
            .advice("write it with format='table'")
            .input());
    }
    Ok(matrices)
}

/// The only table below a group.
fn only_table(path: &Path, root: &Group, kind: Option<LayoutKind>) -> Result<TableLayout> {
    let mut found = Vec::new();
    let mut seen = 0;
    search(path, root, "", 0, &mut seen, &mut found)?;
    found.retain(|layout: &TableLayout| kind.is_none_or(|kind| kind == layout.kind));
    let names: Vec<String> = found.iter().map(|layout| layout.name.clone()).collect();
    match (found.pop(), names.len()) {
        (Some(layout), 1) => Ok(layout),
        (_, 0) => Err(Fault::new("no table in this file")
            .file(path)
            .expected("a compound dataset, a frame of pandas or a matrix with names")
            .advice("name the place of the table in a schema of your own")
            .input()),
        (_, count) => Err(Fault::new("several tables in this file")
            .file(path)
            .expected("one table")
            .found(format!("{count}: {}", names[..count.min(6)].join(", ")))
            .advice("name one of them as `table` in a schema of your own")
            .input()),
    }
}

fn search(
    path: &Path,
    group: &Group,
    place: &str,
    depth: usize,
    seen: &mut usize,
    found: &mut Vec<TableLayout>,
) -> Result<()> {
    let names = group.member_names().map_err(|error| hdf5::read_fault(path, place, &error))?;
    for name in names {
        *seen += 1;
        // PyTables keeps its own indices in groups of this name.
        if *seen > MOST_OBJECTS || depth > DEEPEST_GROUP || name.starts_with("_i_") {
            continue;
        }
        let inner = format!("{place}/{name}").trim_matches('/').to_string();
        match group.loc_type_by_name(&name) {
            Ok(LocationType::Group) => {
                let Some(group) = hdf5::present(path, &inner, group.group(&name))? else {
                    continue;
                };
                match hdf5::unless_system(of_group(path, &inner, group.clone()))? {
                    Some(layout) if layout.kind != LayoutKind::Columns => found.push(layout),
                    _ => search(path, &group, &inner, depth + 1, seen, found)?,
                }
            }
            Ok(LocationType::Dataset) => {
                if let Some(dataset) = hdf5::present(path, &inner, group.dataset(&name))? {
                    found.extend(hdf5::unless_system(of_dataset(path, &inner, &dataset))?);
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// Unit and number format of a field as ctapipe states them; older versions name the
/// attributes after the field, newer ones after its number.
fn field_meta(path: &Path, dataset: &Dataset, index: usize, name: &str) -> Result<FieldMeta> {
    let text = |what: &str| match hdf5::checked_text(
        path,
        dataset,
        &format!("CTAFIELD_{index}_{what}"),
    )? {
        Some(text) => Ok(Some(text)),
        None => hdf5::checked_text(path, dataset, &format!("{name}_{what}")),
    };
    let number = |what: &str| {
        hdf5::number_attribute(dataset, &format!("CTAFIELD_{index}_{what}"))
            .or_else(|| hdf5::number_attribute(dataset, &format!("{name}_{what}")))
    };
    let special = |what: &str| number(what).map_or(i64::MIN, |value| value as i64);
    let fixed_point = (text("TRANSFORM")?.as_deref() == Some("fixed_point")).then(|| FixedPoint {
        scale: number("TRANSFORM_SCALE").unwrap_or(f64::NAN),
        offset: number("TRANSFORM_OFFSET").unwrap_or(0.0),
        nan: special("NAN_VALUE"),
        plus_infinity: special("POSINF_VALUE"),
        minus_infinity: special("NEGINF_VALUE"),
    });
    Ok(FieldMeta { unit: text("UNIT")?, fixed_point })
}

/// An attribute that is a list of texts, or one text with commas.
fn text_list(place: &Location, name: &str) -> Option<Vec<String>> {
    let attribute = place.attr(name).ok()?;
    if attribute.is_scalar() {
        let text = hdf5::text_attribute(place, name)?;
        return Some(text.split(',').map(|name| name.trim().to_string()).collect());
    }
    texts(&attribute)
}

/// The texts of a one-dimensional dataset or attribute.
fn texts(place: &::hdf5::Container) -> Option<Vec<String>> {
    if place.size() > MOST_COLUMNS || place.ndim() != 1 {
        return None;
    }
    let own = |text: &[u8]| String::from_utf8_lossy(text).trim_end_matches('\0').to_string();
    match place.dtype().ok()?.to_descriptor().ok()? {
        TypeDescriptor::FixedAscii(length) if length <= 256 => {
            let texts = place.read_raw::<FixedAscii<256>>().ok()?;
            Some(texts.iter().map(|text| own(text.as_bytes())).collect())
        }
        TypeDescriptor::FixedUnicode(length) if length <= 256 => {
            let texts = place.read_raw::<FixedUnicode<256>>().ok()?;
            Some(texts.iter().map(|text| own(text.as_bytes())).collect())
        }
        TypeDescriptor::VarLenUnicode => {
            let texts = place.read_raw::<VarLenUnicode>().ok()?;
            Some(texts.iter().map(|text| own(text.as_bytes())).collect())
        }
        TypeDescriptor::VarLenAscii => {
            let texts = place.read_raw::<VarLenAscii>().ok()?;
            Some(texts.iter().map(|text| own(text.as_bytes())).collect())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_stands_for_what_fits_it() {
        for (pattern, name, expected) in [
            ("tel_*", "tel_001", true),
            ("tel_*", "tal_001", false),
            ("*", "anything", true),
            ("a*c*e", "abcde", true),
            ("a*c*e", "abcd", false),
            ("*_001", "tel_001", true),
            ("tel_001", "tel_001", true),
            ("tel_001", "tel_0011", false),
            ("ab*ba", "aba", false),
        ] {
            assert_eq!(fits(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn names_are_read_only_from_a_pickled_list() {
        let names = |text: &str| pickled_names(text);
        let expected = Some(vec!["size".to_string(), "a b".to_string()]);
        assert_eq!(names("(lp0\nVsize\np1\naVa b\np2\na."), expected);
        assert_eq!(names("(lp1\nS'size'\np2\naS'a b'\np3\na."), expected);
        assert_eq!(names("cos\nsystem\n(S'x'\ntR."), None);
        assert_eq!(names(""), None);
        assert_eq!(names("(lp0\nI5\na."), None);
    }
}
