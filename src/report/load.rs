//! What a page is made of, read from run folders and evaluation folders.

use super::{ReportInputs, RunData};
use crate::bounded;
use crate::error::{Fault, Result};
use crate::evaluate::EVALUATION;
use crate::metrics::EpochMetrics;
use crate::model::Model;
use crate::season::COMPARISON;
use crate::storage;
use crate::train::{CONFIG, METRICS, MODEL, PROVENANCE};
use std::collections::BTreeSet;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Name of the page in run folders and evaluation folders.
pub const PAGE: &str = "report.html";
const PAGE_START: &[u8; 14] = b"<!doctype html";
/// Of a page, before its first tag [bytes].
const LONGEST_HEAD: u64 = 4096;
/// Largest text file read.
const LARGEST_FILE: u64 = 256 << 20;

/// Reads the first run among the folders, all evaluations in them or one below, each once (an
/// evaluation may lie in the run's own folder), and comparisons of two scorings.
pub fn load(folders: &[PathBuf]) -> Result<ReportInputs> {
    let mut inputs = ReportInputs::default();
    let mut seen = BTreeSet::new();
    for folder in folders {
        if inputs.run.is_none() && folder.join(CONFIG).is_file() {
            inputs.run = Some(load_run(folder)?);
            inputs.title = title(folder);
        }
        let comparison = folder.join(COMPARISON);
        if comparison.is_file() && seen.insert(comparison.canonicalize().unwrap_or_default()) {
            inputs.comparisons.push(parse(&comparison)?);
        }
        let mut found = vec![folder.join(EVALUATION)];
        if let Ok(entries) = std::fs::read_dir(folder) {
            let mut below: Vec<PathBuf> =
                entries.flatten().map(|e| e.path().join(EVALUATION)).collect();
            below.sort();
            found.extend(below);
        }
        for path in found.iter().filter(|p| p.is_file()) {
            if !seen.insert(path.canonicalize().unwrap_or_else(|_| path.clone())) {
                continue;
            }
            inputs.evaluations.push(parse(path)?);
        }
    }
    let nothing = inputs.evaluations.is_empty() && inputs.comparisons.is_empty();
    if inputs.run.is_none() && nothing {
        return Err(Fault::new("nothing to report on")
            .expected(format!(
                "a run folder ({CONFIG}), an evaluation ({EVALUATION}) or a comparison ({COMPARISON})"
            ))
            .found(folders.iter().map(|f| f.display().to_string()).collect::<Vec<_>>().join(", "))
            .usage());
    }
    if inputs.title.is_empty() {
        inputs.title = folders.first().map_or(String::new(), |f| title(f));
    }
    Ok(inputs)
}

/// Renders the page and writes it, whole.
pub fn write(inputs: &ReportInputs, output: &Path, overwrite: bool) -> Result<()> {
    storage::refuse_existing(output, overwrite)?;
    refuse_other_file(output)?;
    storage::write_file(output, super::page(inputs)?.as_bytes())
}

/// Refuses to replace a file that is not a page, such as a model or a log.
fn refuse_other_file(output: &Path) -> Result<()> {
    let mut head = Vec::new();
    let Ok(file) = std::fs::File::open(output) else { return Ok(()) };
    let read = file.take(LONGEST_HEAD).read_to_end(&mut head);
    let text = head.trim_ascii_start();
    let is_page = text.get(..PAGE_START.len()).is_some_and(|t| t.eq_ignore_ascii_case(PAGE_START));
    if read.is_ok() && (text.is_empty() || is_page) {
        return Ok(());
    }
    Err(Fault::new("the file to replace is not a page")
        .file(output)
        .expected("an HTML page, or a name that is not in use")
        .advice("choose another output, such as report.html")
        .usage())
}

fn load_run(folder: &Path) -> Result<RunData> {
    let model = folder.join(MODEL);
    let card = if model.is_file() {
        let (model, _) = Model::load(&model)?;
        serde_json::to_value(&model.card)
            .map_err(|e| Fault::new("cannot read the card").found(e).internal())?
    } else {
        serde_json::Value::Null
    };
    let provenance = folder.join(PROVENANCE);
    let metrics = folder.join(METRICS);
    Ok(RunData {
        configuration: read(&folder.join(CONFIG))?,
        provenance: if provenance.is_file() {
            parse(&provenance)?
        } else {
            serde_json::Value::Null
        },
        metrics: if metrics.is_file() { parse_lines(&metrics)? } else { Vec::new() },
        model: card,
    })
}

fn parse<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T> {
    serde_json::from_str(&read(path)?)
        .map_err(|e| Fault::new("cannot understand").file(path).found(e).input())
}

fn parse_lines(path: &Path) -> Result<Vec<EpochMetrics>> {
    let text = read(path)?;
    let line = |(i, line): (usize, &str)| {
        serde_json::from_str(line).map_err(|e| {
            Fault::new("cannot understand").file(path).row(i as u64 + 1).found(e).input()
        })
    };
    text.lines().enumerate().map(line).collect()
}

fn read(path: &Path) -> Result<String> {
    let unreadable =
        |e: &dyn std::fmt::Display| Fault::new("cannot read").file(path).found(e).input();
    bounded::read_text(path, LARGEST_FILE).map_err(|e| unreadable(&e))
}

fn title(folder: &Path) -> String {
    folder
        .file_name()
        .map_or_else(|| folder.display().to_string(), |n| n.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statistics::{About, Evaluation, Rule, Sample};

    #[test]
    fn only_a_page_is_replaced_by_a_page() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for (name, text, code) in [
            ("page.html", "\n\n<!DOCTYPE html>\n<html>", None),
            ("empty", "", None),
            ("new.html", "", None),
            ("model.safetensors", "{\"__metadata__\": {}}", Some(2)),
            ("short", "<!", Some(2)),
        ] {
            if name != "new.html" {
                std::fs::write(at(name), text).unwrap();
            }
            let refused = refuse_other_file(&at(name)).err().map(|error| error.exit_code());
            assert_eq!(refused, code, "{name}");
        }
    }

    #[test]
    fn an_evaluation_in_its_runs_folder_is_read_once() {
        let run = tempfile::tempdir().unwrap();
        let below = run.path().join("evaluation");
        std::fs::create_dir(&below).unwrap();
        let sample = Sample::new(&[1.0, 2.0, 0.0, 1.0], &[true, true, false, false]).unwrap();
        let threshold = Rule::Fixed { value: 1.0 }.choose(&sample).unwrap();
        let evaluation = Evaluation::new(About::default(), &sample, threshold).unwrap();
        std::fs::write(below.join(EVALUATION), serde_json::to_vec(&evaluation).unwrap()).unwrap();
        let inputs = load(&[below, run.path().to_path_buf()]).unwrap();
        assert_eq!(inputs.evaluations.len(), 1);
    }
}
