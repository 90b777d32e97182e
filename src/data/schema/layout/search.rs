//! Finds tables in an HDF5 file by a place, which may contain patterns.

use super::{LayoutKind, TableLayout, of_dataset, of_group, open};
use crate::data::hdf5;
use crate::error::{Fault, Result};
use ::hdf5::{File, Group, LocationType};
use std::path::Path;

/// Place of a table that is the only one of its file.
const ANYWHERE: &str = "**";

/// Depth of groups in the search for the only table.
const DEEPEST_GROUP: usize = 16;
/// Limit for the objects visited in the search for the only table.
const MOST_OBJECTS: usize = 10_000;

/// Returns the tables at a place, in the order of their names; at least one.
///
/// `*` in a place matches any text within one name, and all matching tables are read as one.
/// [`ANYWHERE`] matches the only table of the file, of the given kind.
///
/// # Errors
/// `Input` if there is no table there, or several for [`ANYWHERE`].
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
    let places = expand(path, file, &root, place)?;
    if places.is_empty() {
        return Err(Fault::new(format!("no table '{place}' found"))
            .file(path)
            .found(hdf5::describe_root(file))
            .advice("give the place of the table in a copy of the schema")
            .input());
    }
    places.iter().map(|place| open(path, file, place)).collect()
}

/// Returns the existing places that match a place with `*`.
fn expand(path: &Path, file: &File, root: &Group, place: &str) -> Result<Vec<String>> {
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
            // `link_exists` returns false for a failed read too, so `present` checks again.
            let exists = link_exists_deep(root, &place)
                || hdf5::present(path, &place, root.loc_type_by_name(&place))?.is_some();
            places.extend(exists.then_some(place));
        }
    }
    Ok(places)
}

/// Returns whether a name matches a pattern in which `*` matches any text.
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

/// Returns whether a link exists. HDF5's own check fails if a group of the path is missing, so
/// each of them is checked first.
fn link_exists_deep(root: &Group, place: &str) -> bool {
    let ends = place.match_indices('/').map(|(at, _)| at).chain([place.len()]);
    ends.into_iter().all(|end| root.link_exists(&place[..end]))
}

/// Returns the only table below a group.
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
            .expected("a compound dataset, a pandas frame or a matrix with column names")
            .advice("give the place of the table in a copy of the schema")
            .input()),
        (_, count) => Err(Fault::new("several tables in this file")
            .file(path)
            .expected("one table")
            .found(format!("{count}: {}", names[..count.min(6)].join(", ")))
            .advice("name one of them as `table` in a copy of the schema")
            .input()),
    }
}

/// Adds the tables below a group to `found`; `seen` counts the objects visited.
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
        // PyTables stores its own indices in groups with this prefix.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pattern_matches_whole_names_only() {
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
}
