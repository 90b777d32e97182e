//! Compares the settings that score files state in their root attribute `settings`.
//!
//! Files of earlier versions do not state them and are not compared.

use super::folder::Folder;
use super::plan::{PassCriterion, SeasonPlan};
use crate::comm::{Communicator, Work, gather_values};
use crate::config::SeasonSettings;
use crate::data::files::finished::FinishedFile;
use crate::data::table::scores::FORMAT;
use crate::error::{Fault, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

const ATTRIBUTE: &str = "settings";
const ENERGY_TABLE: &str = "energy_table";
const QUALITY: &str = "quality.";
const WORKING_POINTS: &str = "working_points.";
/// Text of a setting that a file does not have.
const NONE: &str = "none";

/// Settings of a file as text, by key such as `quality.width`.
type ByKey = BTreeMap<String, String>;

/// Different settings in a folder, each with its first file.
#[derive(Debug)]
pub struct FolderSettings {
    different: Vec<FileSettings>, // by file
    are_folds: bool,
}

/// Settings of a file.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct FileSettings {
    /// Index in the folder.
    file: usize,
    model: String,
    values: ByKey,
}

/// A setting that differs between two scorings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettingDifference {
    pub key: String,
    pub first: String,
    pub second: String,
}

/// Selects the settings that the counts of a season depend on.
pub struct ComparedSettings<'a> {
    plan: &'a SeasonPlan,
    settings: &'a SeasonSettings,
}

impl FolderSettings {
    /// Reads the settings of all files, each by one rank. Files that cannot be opened are skipped:
    /// their reader names them. A collective.
    ///
    /// # Errors
    /// Those of the exchange between ranks.
    pub fn read(comm: &dyn Communicator, folder: &Folder) -> Result<FolderSettings> {
        let mut mine = BTreeMap::new();
        for (file, entry) in folder.files.iter().enumerate() {
            if file % comm.size() != comm.rank() {
                continue;
            }
            comm.progress(Work::Reading, file as u64);
            if let Some((model, values)) = stated(&entry.path) {
                mine.entry((model, values)).or_insert(file);
            }
        }
        let of_rank: Vec<FileSettings> = mine
            .into_iter()
            .map(|((model, values), file)| FileSettings { file, model, values })
            .collect();
        let mut different: Vec<FileSettings> =
            gather_values(comm, &of_rank)?.into_iter().flatten().collect();
        different.sort_by_key(|of| of.file);
        Ok(FolderSettings { different, are_folds: folder.are_folds })
    }

    /// Refuses files of a folder with other settings than its first file.
    ///
    /// # Errors
    /// `Input`, with the file, the key and both values.
    pub fn refuse_mixed(&self, folder: &Folder, compared: &ComparedSettings) -> Result<()> {
        self.refuse_others(self, folder, &|of: &SettingDifference| compared.includes(&of.key))
    }

    /// Refuses scores of simulated gammas with other settings than those of the season. Quality
    /// cuts on quantities that speak of a time, such as the weather, may be missing.
    ///
    /// # Errors
    /// `Input`, with the file, the key and both values.
    pub fn refuse_simulation(
        &self,
        simulation: &FolderSettings,
        folder: &Folder,
        compared: &ComparedSettings,
    ) -> Result<()> {
        self.refuse_others(simulation, folder, &|of: &SettingDifference| {
            let is_missing = of.second == NONE && compared.is_of_time(&of.key);
            compared.includes(&of.key) && !is_missing
        })
    }

    fn refuse_others(
        &self,
        others: &FolderSettings,
        folder: &Folder,
        counts: &dyn Fn(&SettingDifference) -> bool,
    ) -> Result<()> {
        for other in &others.different {
            let differences = self.differences_from(other);
            let Some(of) = differences.into_iter().find(counts) else { continue };
            let fault = Fault::new(format!("scored with other settings: {}", of.key));
            let fault = match folder.files.get(other.file) {
                Some(entry) => fault.file(&entry.path),
                None => fault,
            };
            return Err(fault
                .expected(format!("{}, as in the other score files", of.first))
                .found(of.second)
                .advice("score all files with one configuration")
                .input());
        }
        Ok(())
    }

    /// Returns the settings that differ between the first files of two folders.
    pub fn differences(&self, other: &FolderSettings) -> Vec<SettingDifference> {
        other.different.first().map_or(Vec::new(), |other| self.differences_from(other))
    }

    /// Returns the settings in which a file differs from the first file. An energy table belongs to
    /// a telescope, as a model does: it is that of the first file of the same model.
    fn differences_from(&self, other: &FileSettings) -> Vec<SettingDifference> {
        let Some(first) = self.different.first() else { return Vec::new() };
        let same_model = self.different.iter().find(|of| of.model == other.model);
        let of_table = same_model.filter(|_| !self.are_folds).unwrap_or(first);
        let keys: BTreeSet<&String> = first.values.keys().chain(other.values.keys()).collect();
        let value = |of: &FileSettings, key: &String| {
            of.values.get(key).cloned().unwrap_or_else(|| NONE.to_string())
        };
        let difference = |key: &String| {
            let of = if key == ENERGY_TABLE { of_table } else { first };
            let (first, second) = (value(of, key), value(other, key));
            (first != second).then(|| SettingDifference { key: key.clone(), first, second })
        };
        keys.into_iter().filter_map(difference).collect()
    }
}

impl<'a> ComparedSettings<'a> {
    pub fn new(plan: &'a SeasonPlan, settings: &'a SeasonSettings) -> ComparedSettings<'a> {
        ComparedSettings { plan, settings }
    }

    /// Returns whether counts depend on a setting. Thresholds are compared per model, with the
    /// counts of the files.
    fn includes(&self, key: &str) -> bool {
        if let Some(cut) = key.strip_prefix(QUALITY) {
            return !self.settings.quality.ignore.iter().any(|ignored| ignored == cut);
        }
        if let Some(of_point) = key.strip_prefix(WORKING_POINTS) {
            let is_counted = matches!(self.plan.passing, PassCriterion::Point(_));
            return is_counted && of_point == format!("{}.column", self.plan.label);
        }
        true
    }

    fn is_of_time(&self, key: &str) -> bool {
        let Some(cut) = key.strip_prefix(QUALITY) else { return false };
        let bit = self.plan.quality_bits.iter().position(|known| known == cut);
        bit.is_some_and(|bit| bit < 32 && self.plan.of_time >> bit & 1 == 1)
    }
}

/// Returns the model and the settings that a score file states.
fn stated(path: &Path) -> Option<(String, ByKey)> {
    let file = FinishedFile::open(path, FORMAT)?;
    let text = file.text(ATTRIBUTE)?;
    let stated: BTreeMap<String, Value> = serde_json::from_str(&text).ok()?;
    let mut values = ByKey::new();
    stated.iter().for_each(|(key, value)| flatten(key, value, &mut values));
    Some((file.text("model_blake3").unwrap_or_default(), values))
}

/// Adds a setting by its keys; those of a quality cut are one text.
fn flatten(key: &str, value: &Value, values: &mut ByKey) {
    match value {
        Value::Object(entries) if !key.starts_with(QUALITY) => entries
            .iter()
            .for_each(|(name, value)| flatten(&format!("{key}.{name}"), value, values)),
        Value::Null => {}
        _ => {
            values.insert(key.to_string(), text_of(value));
        }
    }
}

/// Returns a value as in a configuration, without quotation marks: `{min: 0.05}`.
fn text_of(value: &Value) -> String {
    match value {
        Value::Object(entries) => {
            let each = entries.iter().map(|(name, value)| format!("{name}: {}", text_of(value)));
            format!("{{{}}}", each.collect::<Vec<_>>().join(", "))
        }
        Value::Array(items) => {
            format!("[{}]", items.iter().map(text_of).collect::<Vec<_>>().join(", "))
        }
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(file: usize, model: &str, text: &str) -> FileSettings {
        let stated: BTreeMap<String, Value> = serde_json::from_str(text).unwrap();
        let mut values = ByKey::new();
        stated.iter().for_each(|(key, value)| flatten(key, value, &mut values));
        FileSettings { file, model: model.to_string(), values }
    }

    #[test]
    fn different_settings_are_named_with_values() {
        let all = |are_folds| FolderSettings {
            different: vec![
                settings(0, "a", r#"{"disp":"near","quality":{},"energy_table":null}"#),
                settings(3, "b", r#"{"disp":"near","quality":{},"energy_table":"ef"}"#),
            ],
            are_folds,
        };
        let other = settings(
            4,
            "b",
            r#"{"disp":"head","quality":{"width":{"min":0.15,"max":2.0}},"energy_table":"ef"}"#,
        );
        let named = |all: &FolderSettings| -> Vec<[String; 3]> {
            let found = all.differences_from(&other).into_iter();
            found.map(|of| [of.key, of.first, of.second]).collect()
        };
        let expected = |text: [&str; 3]| text.map(str::to_string);
        let disp = expected(["disp", "near", "head"]);
        let width = named(&all(false))[1].clone();
        assert_eq!(width[..2], expected(["quality.width", "none", ""])[..2]);
        assert!(width[2].contains("min: 0.15") && width[2].starts_with('{'), "{width:?}");
        assert_eq!(named(&all(false)), [disp.clone(), width.clone()]);
        // Folds are models of one telescope.
        let table = expected(["energy_table", "none", "ef"]);
        assert_eq!(named(&all(true)), [disp, table, width]);
    }
}
