//! Assigns models to telescopes and seasons (`[[models]]`), and finds scorings of several models.

use crate::config::{ModelOf, OtherModel, SeasonSettings};
use crate::data::files::stamp;
use crate::error::{Fault, Result};
use std::collections::BTreeMap;
use std::path::Path;

/// Least number of digits of a hash that name a model.
const FEWEST_DIGITS: usize = 8;

/// A counted run: its telescope, its season, and the blake3 of its model.
pub(crate) type ScoredRun<'a> = (Option<i64>, Option<&'a str>, &'a str);

/// Entries of `[[models]]`, with model files replaced by their blake3.
#[derive(Debug)]
pub(crate) struct Models {
    entries: Vec<ModelOf>,
    pub other: OtherModel,
}

/// Number of runs by model, for each telescope and season.
type ModelRuns<'a> = BTreeMap<(Option<i64>, Option<&'a str>), BTreeMap<&'a str, u64>>;

impl Models {
    pub(crate) fn new(settings: &SeasonSettings) -> Result<Models> {
        let resolved =
            |entry: &ModelOf| Ok(ModelOf { model: hash_of(&entry.model)?, ..entry.clone() });
        let entries = settings.models.iter().map(resolved).collect::<Result<_>>()?;
        Ok(Models { entries, other: settings.other_model })
    }

    /// Refuses runs of one telescope and season that several models have scored: their scores
    /// have different scales, and their thresholds different efficiencies. `other_model = "flag"`
    /// counts them, and so do folds, each of which leaves out the runs of its training
    /// (`are_folds`). Returns a warning that names the models.
    ///
    /// # Errors
    /// `Input`.
    pub(crate) fn refuse_mixed<'a>(
        &self,
        runs: impl Iterator<Item = ScoredRun<'a>>,
        are_folds: bool,
    ) -> Result<Option<String>> {
        let mut groups = ModelRuns::new();
        for (telescope, season, model) in runs {
            *groups.entry((telescope, season)).or_default().entry(model).or_default() += 1;
        }
        let mut mixed = groups.iter().filter(|(_, models)| models.len() > 1);
        let Some((of, models)) = mixed.next() else {
            return Ok(self.describe_groups(&groups));
        };
        let found = describe(of, models);
        if are_folds || self.other == OtherModel::Flag {
            return Ok(Some(format!(
                "Several models have scored the runs of one telescope and season: {found}. Their scores have different scales."
            )));
        }
        Err(Fault::new("several models have scored the runs of one telescope and season")
            .expected("runs of one model, as each has a scale of scores of its own")
            .found(found)
            .advice(
                "give the scores of one model; or name the right one with [[models]] in the settings; or set other_model = \"flag\" to count all of them",
            )
            .input())
    }

    /// Returns a warning where telescopes or seasons have different models that no entry names.
    fn describe_groups(&self, groups: &ModelRuns) -> Option<String> {
        let is_named = |(telescope, season): &(Option<i64>, Option<&str>)| {
            self.entries.iter().any(|entry| fits(entry, *telescope, *season))
        };
        let mut models: Vec<&str> = groups.values().flat_map(|of| of.keys().copied()).collect();
        models.sort_unstable();
        models.dedup();
        if models.len() < 2 || groups.keys().all(is_named) {
            return None;
        }
        let all: Vec<String> = groups.iter().map(|(of, models)| describe(of, models)).collect();
        Some(format!(
            "Telescopes or seasons have different models: {}. [[models]] in the settings assigns models to them.",
            all.join("; ")
        ))
    }

    /// Returns why a run's model is wrong. The first entry that fits decides; where none fits,
    /// any model is right.
    pub(crate) fn rejection_reason(
        &self,
        telescope: Option<i64>,
        season: Option<&str>,
        model: &str,
    ) -> Option<String> {
        let entry = self.entries.iter().find(|entry| fits(entry, telescope, season))?;
        (!model.starts_with(&entry.model)).then(|| {
            format!(
                "scored with model {}, but model {} belongs to this telescope and season",
                short(model),
                short(&entry.model)
            )
        })
    }
}

fn fits(entry: &ModelOf, telescope: Option<i64>, season: Option<&str>) -> bool {
    entry.telescope.is_none_or(|t| Some(t) == telescope)
        && entry.season.as_deref().is_none_or(|s| Some(s) == season)
}

/// Names a telescope and season with its models and their numbers of runs.
fn describe(
    (telescope, season): &(Option<i64>, Option<&str>),
    models: &BTreeMap<&str, u64>,
) -> String {
    let models: Vec<String> =
        models.iter().map(|(model, runs)| format!("{} ({runs} runs)", short(model))).collect();
    let telescope = telescope.map(|telescope| format!("telescope {telescope}"));
    let season = season.map(|season| format!("season {season}"));
    let of: Vec<String> = telescope.into_iter().chain(season).collect();
    let models = models.join(", ");
    if of.is_empty() {
        format!("models {models}")
    } else {
        format!("{}: models {models}", of.join(", "))
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
    fn models_mixed_in_a_season_refused() {
        let models = |other| Models { entries: Vec::new(), other };
        let (a, b) = ("a".repeat(64), "b".repeat(64));
        let run = |telescope, season, model| (Some(telescope), Some(season), model);
        let one = [run(1, "2022-2023", a.as_str()), run(2, "2022-2023", &a)];
        let each = [run(1, "2022-2023", a.as_str()), run(2, "2022-2023", &b)];
        let mixed = [run(1, "2022-2023", a.as_str()), run(1, "2022-2023", &b)];
        let check = |runs: &[ScoredRun; 2], other, are_folds| {
            models(other).refuse_mixed(runs.iter().copied(), are_folds)
        };
        assert_eq!(check(&one, OtherModel::Refuse, false).unwrap(), None);
        let warning = check(&each, OtherModel::Refuse, false).unwrap().unwrap();
        assert!(warning.contains("telescope 2, season 2022-2023: models bbbb"), "{warning}");
        let error = check(&mixed, OtherModel::Refuse, false).unwrap_err();
        assert_eq!(error.exit_code(), 3);
        assert!(check(&mixed, OtherModel::Flag, false).unwrap().is_some());
        assert!(check(&mixed, OtherModel::Refuse, true).unwrap().is_some());
    }

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
