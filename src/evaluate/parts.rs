//! Parts of the split that are evaluated, per file.

use crate::data::files::stamp;
use crate::data::selection::split::Part;
use crate::dataset::source::Source;
use crate::error::Result;
use crate::model::{Card, DataFile};
use std::collections::BTreeMap;

/// Part of the split that is evaluated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EvaluatedParts {
    /// The test part of files the model was trained on, all of others.
    Default,
    Only(Part),
    All,
}

impl EvaluatedParts {
    pub fn name(self) -> &'static str {
        match self {
            EvaluatedParts::Default => "default",
            EvaluatedParts::All => "all",
            EvaluatedParts::Only(Part::Train) => "train",
            EvaluatedParts::Only(Part::Validation) => "validation",
            EvaluatedParts::Only(Part::Calibration) => "calibration",
            EvaluatedParts::Only(Part::Test) => "test",
        }
    }
}

/// Returns the part of all files, or how many files each part is taken of.
pub(super) fn parts_text(parts: &[EvaluatedParts]) -> String {
    let mut files: BTreeMap<&str, usize> = BTreeMap::new();
    parts.iter().for_each(|part| *files.entry(part.name()).or_default() += 1);
    let of = |(name, files): (&&str, &usize)| format!("'{name}' of {files} file(s)");
    match files.len() {
        1 => files.keys().map(|name| (*name).to_string()).collect(),
        _ => files.iter().map(of).collect::<Vec<_>>().join(", "),
    }
}

/// Returns the parts of a file to evaluate.
pub(super) fn parts_of(trained: Option<&DataFile>, asked: EvaluatedParts) -> EvaluatedParts {
    match asked {
        EvaluatedParts::Default if trained.is_some() => EvaluatedParts::Only(Part::Test),
        EvaluatedParts::Default => EvaluatedParts::All,
        chosen => chosen,
    }
}

/// Returns the file among those that the model was trained on, by its hash.
pub(super) fn trained_as<'c>(card: &'c Card, source: &Source) -> Result<Option<&'c DataFile>> {
    if !card.training.data.iter().any(|f| f.rows == source.rows) {
        return Ok(None);
    }
    let hash = stamp::hash_text(&stamp::hash_file(&source.path)?);
    Ok(card.training.data.iter().find(|f| f.blake3 == hash))
}

/// Returns whether a row without a class counts as the class that its file is given as: experimental
/// files have no classes.
pub(super) fn is_unknown(source: &Source, class: i8) -> bool {
    class < 0 && source.class.is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differing_parts_are_listed_with_files() {
        let (all, test) = (EvaluatedParts::All, EvaluatedParts::Only(Part::Test));
        assert_eq!(parts_text(&[test, test]), "test");
        assert_eq!(parts_text(&[all, test, all]), "'all' of 2 file(s), 'test' of 1 file(s)");
    }
}
