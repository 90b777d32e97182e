//! Which model belongs to which telescope and season.

use crate::config::{ModelOf, OtherModel, SeasonSettings};
use crate::data::files::stamp;
use crate::error::{Fault, Result};
use std::path::Path;

/// Fewer digits of a hash than this name no model.
const FEWEST_DIGITS: usize = 8;

/// The map, with model files replaced by their blake3.
#[derive(Debug)]
pub struct Models {
    entries: Vec<ModelOf>,
    pub other: OtherModel,
}

impl Models {
    pub fn new(settings: &SeasonSettings) -> Result<Models> {
        let resolved =
            |entry: &ModelOf| Ok(ModelOf { model: hash_of(&entry.model)?, ..entry.clone() });
        let entries = settings.models.iter().map(resolved).collect::<Result<_>>()?;
        Ok(Models { entries, other: settings.other_model })
    }

    /// What speaks against a run's model; the first entry that fits decides, and where none
    /// fits any model is right.
    pub fn rejection_reason(
        &self,
        telescope: Option<i64>,
        season: Option<&str>,
        model: &str,
    ) -> Option<String> {
        let fits = |entry: &&ModelOf| {
            entry.telescope.is_none_or(|t| Some(t) == telescope)
                && entry.season.as_deref().is_none_or(|s| Some(s) == season)
        };
        let entry = self.entries.iter().find(fits)?;
        (!model.starts_with(&entry.model)).then(|| {
            format!(
                "scored with model {}, but model {} belongs to this telescope and season",
                short(model),
                short(&entry.model)
            )
        })
    }
}

fn short(hash: &str) -> &str {
    hash.get(..12).unwrap_or(hash)
}

fn hash_of(model: &str) -> Result<String> {
    let path = Path::new(model);
    if path.is_file() {
        return Ok(stamp::hash_text(&stamp::hash_file(path)?));
    }
    if model.len() >= FEWEST_DIGITS && model.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Ok(model.to_lowercase());
    }
    Err(Fault::new("not a model")
        .column("models.model")
        .expected(format!("a model file, or {FEWEST_DIGITS} or more digits of its blake3"))
        .found(model)
        .usage())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn model_of_other_telescope_or_season_rejected() {
        let entry = |telescope, season: Option<&str>, model: &str| ModelOf {
            telescope,
            season: season.map(str::to_string),
            model: model.to_string(),
        };
        let settings = SeasonSettings {
            models: vec![
                entry(Some(1), Some("2022-2023"), "aaaaaaaa"),
                entry(Some(1), None, "BBBBBBBB"),
            ],
            ..SeasonSettings::default()
        };
        let models = Models::new(&settings).unwrap();
        let objects = |telescope, season: &str, model: &str| {
            models.rejection_reason(telescope, Some(season), &model.repeat(64)).is_some()
        };
        assert!(!objects(Some(1), "2022-2023", "a") && objects(Some(1), "2022-2023", "b"));
        assert!(!objects(Some(1), "2023-2024", "b") && objects(Some(1), "2023-2024", "a"));
        assert!(!objects(Some(2), "2022-2023", "c") && !objects(None, "2022-2023", "c"));
        let wrong = SeasonSettings { models: vec![entry(None, None, "runs/no")], ..settings };
        assert_eq!(Models::new(&wrong).unwrap_err().exit_code(), 2);
    }
}
