//! Attributes that describe columns: lists of texts, pickled names, units and number formats.

use super::MOST_COLUMNS;
use crate::data::hdf5;
use crate::data::hdf5::numbers::{FieldMeta, FixedPoint};
use crate::error::Result;
use ::hdf5::types::{FixedAscii, FixedUnicode, TypeDescriptor, VarLenAscii, VarLenUnicode};
use ::hdf5::{Dataset, Location};
use std::path::Path;

/// Returns a list of texts in pickle format 0, such as `(lp0\nVsize\np1\naVwidth\np2\na.`;
/// `None` for any other object.
pub(super) fn pickled_names(text: &str) -> Option<Vec<String>> {
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

/// Returns unit and number format of a field, as ctapipe stores them.
pub(super) fn field_meta(
    path: &Path,
    dataset: &Dataset,
    index: usize,
    name: &str,
) -> Result<FieldMeta> {
    // Older versions name the attributes after the field, newer ones after its number.
    let names = |suffix: &str| [format!("CTAFIELD_{index}_{suffix}"), format!("{name}_{suffix}")];
    let text = |suffix: &str| first_text(path, dataset, &names(suffix));
    let number =
        |suffix: &str| names(suffix).iter().find_map(|key| hdf5::number_attribute(dataset, key));
    let special = |suffix: &str| number(suffix).map_or(i64::MIN, |value| value as i64);
    let fixed_point = (text("TRANSFORM")?.as_deref() == Some("fixed_point")).then(|| FixedPoint {
        scale: number("TRANSFORM_SCALE").unwrap_or(f64::NAN),
        offset: number("TRANSFORM_OFFSET").unwrap_or(0.0),
        nan: special("NAN_VALUE"),
        plus_infinity: special("POSINF_VALUE"),
        minus_infinity: special("NEGINF_VALUE"),
    });
    Ok(FieldMeta { unit: text("UNIT")?, fixed_point })
}

/// Returns the first of some text attributes that exists.
fn first_text(path: &Path, dataset: &Dataset, names: &[String; 2]) -> Result<Option<String>> {
    match hdf5::checked_text(path, dataset, &names[0])? {
        Some(text) => Ok(Some(text)),
        None => hdf5::checked_text(path, dataset, &names[1]),
    }
}

/// Returns an attribute that is a list of texts, or one text with commas.
pub(super) fn text_list(place: &Location, name: &str) -> Option<Vec<String>> {
    let attribute = place.attr(name).ok()?;
    if attribute.is_scalar() {
        let text = hdf5::text_attribute(place, name)?;
        return Some(text.split(',').map(|name| name.trim().to_string()).collect());
    }
    texts(&attribute)
}

/// Returns the texts of a one-dimensional dataset or attribute.
pub(super) fn texts(place: &::hdf5::Container) -> Option<Vec<String>> {
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
    fn names_are_read_only_from_a_pickled_list() {
        let expected = Some(vec!["size".to_string(), "a b".to_string()]);
        assert_eq!(pickled_names("(lp0\nVsize\np1\naVa b\np2\na."), expected);
        assert_eq!(pickled_names("(lp1\nS'size'\np2\naS'a b'\np3\na."), expected);
        assert_eq!(pickled_names("cos\nsystem\n(S'x'\ntR."), None);
        assert_eq!(pickled_names(""), None);
        assert_eq!(pickled_names("(lp0\nI5\na."), None);
    }
}
