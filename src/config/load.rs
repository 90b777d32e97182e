//! Loads a [`Config`] from a TOML file and `--set key=value`, and checks it.

use super::parse::{parse_table, parse_toml};
use super::{Config, Run, Score};
use crate::bounded;
use crate::error::{Fault, Result};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::path::Path;

/// Largest configuration file read.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// The sections that scoring uses: of a training configuration, or a file with only these.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ScoringConfig {
    pub score: Score,
    pub run: Run,
    pub data: ScoringData,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ScoringData {
    /// As in [`super::Data`].
    pub schema: Option<String>,
}

/// Reads the sections for scoring from a configuration file, if there is one, and overrides keys.
///
/// # Errors
/// `Usage`, with the file, line and key.
pub fn load_for_scoring(path: Option<&Path>, overrides: &[String]) -> Result<ScoringConfig> {
    let text = path.map(read).transpose()?.unwrap_or_default();
    let parsed = parse_for_scoring(&text, overrides);
    parsed.map_err(|e| if let Some(path) = path { e.in_file(path) } else { e })
}

fn parse_for_scoring(text: &str, overrides: &[String]) -> Result<ScoringConfig> {
    let table: toml::Table = parse_toml(text)?;
    if table.contains_key("features") {
        let Config { score, run, data, .. } = parse(text, overrides)?;
        return Ok(ScoringConfig { score, run, data: ScoringData { schema: data.schema } });
    }
    let scoring: ScoringConfig = with_overrides(text, overrides)?;
    scoring.score.validate()?;
    Ok(scoring)
}

/// Reads a configuration file and overrides keys of it: `train.epochs=5`.
///
/// # Errors
/// `Usage`, with the file, line and key.
pub fn load(path: &Path, overrides: &[String]) -> Result<Config> {
    parse(&read(path)?, overrides).map_err(|e| e.in_file(path))
}

fn read(path: &Path) -> Result<String> {
    let unreadable = |e: &dyn std::fmt::Display| {
        Fault::new("cannot read the configuration").file(path).found(e).usage()
    };
    bounded::read_text(path, MAX_FILE_BYTES).map_err(|e| unreadable(&e))
}

/// Parses a configuration and overrides keys of it.
///
/// # Errors
/// `Usage`, with line and key.
pub fn parse(text: &str, overrides: &[String]) -> Result<Config> {
    let config: Config = with_overrides(text, overrides)?;
    config.validate()?;
    Ok(config)
}

/// Parses a text and overrides keys of it.
fn with_overrides<T: DeserializeOwned>(text: &str, overrides: &[String]) -> Result<T> {
    // The file is parsed without overrides first, so that its errors name their line.
    let config: T = parse_toml(text)?;
    if overrides.is_empty() {
        return Ok(config);
    }
    let mut table: toml::Table = parse_toml(text)?;
    for assignment in overrides {
        set(&mut table, assignment)?;
    }
    parse_table(&table)
}

/// Sets `a.b=value` in the table; a value that is not TOML is taken as text.
fn set(table: &mut toml::Table, assignment: &str) -> Result<()> {
    let usage = || {
        Fault::new("cannot parse --set")
            .expected("section.key=value, such as train.epochs=5")
            .found(format!("'{assignment}'"))
            .usage()
    };
    let (key, value) = assignment.split_once('=').ok_or_else(usage)?;
    let value = value.trim();
    let parsed = toml::from_str::<toml::Table>(&format!("value = {value}"))
        .ok()
        .and_then(|mut t| t.remove("value"))
        .unwrap_or_else(|| toml::Value::String(value.to_string()));
    let mut place = table;
    let mut parts: Vec<&str> = key.trim().split('.').collect();
    let last = parts.pop().filter(|k| !k.is_empty()).ok_or_else(usage)?;
    for part in parts {
        let next = place.entry(part).or_insert_with(|| toml::Value::Table(toml::Table::new()));
        place = next.as_table_mut().ok_or_else(usage)?;
    }
    place.insert(last.to_string(), parsed);
    Ok(())
}
