//! Reads the contents of a page from run folders and evaluation folders.

use super::{ReportInputs, RunData};
use crate::bounded;
use crate::data::files::output_kind::OutputKind;
use crate::error::{Error, Fault, Result};
use crate::evaluate::EVALUATION;
use crate::metrics::EpochMetrics;
use crate::model::Model;
use crate::season::{COMPARISON, SEASON};
use crate::storage;
use crate::train::{CONFIG, METRICS, MODEL, PROVENANCE};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Name of the page in run folders and evaluation folders.
pub const PAGE: &str = "report.html";
/// Size limit of a text file.
const MAX_FILE_BYTES: u64 = 256 << 20;

/// Reads the first run among the folders, all evaluations in them or one level below, and
/// comparisons of two scorings. Each is read once, since an evaluation may be in the run folder.
///
/// # Errors
/// `Usage` for a folder that adds nothing to the page.
pub fn load(folders: &[PathBuf]) -> Result<ReportInputs> {
    let mut inputs = ReportInputs::default();
    let mut seen = BTreeSet::new();
    for folder in folders {
        add(folder, &mut inputs, &mut seen)?;
    }
    if inputs.title.is_empty() {
        inputs.title = folders.first().map_or(String::new(), |f| title(f));
    }
    Ok(inputs)
}

/// Adds the content of a folder; `seen` are the folders of runs, evaluations and comparisons read
/// so far.
fn add(folder: &Path, inputs: &mut ReportInputs, seen: &mut BTreeSet<PathBuf>) -> Result<()> {
    let place = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
    let run = folder.join(CONFIG);
    let is_run = run.is_file();
    if is_run && inputs.run.is_none() {
        inputs.run = Some(load_run(folder)?);
        inputs.title = title(folder);
        seen.insert(place(&run));
    }
    let comparison = folder.join(COMPARISON);
    let has_comparison = comparison.is_file();
    if has_comparison && seen.insert(place(&comparison)) {
        inputs.comparisons.push(parse(&comparison)?);
    }
    let evaluations = evaluations(folder);
    for path in &evaluations {
        if seen.insert(place(path)) {
            inputs.evaluations.push(parse(path)?);
        }
    }
    let adds = has_comparison || !evaluations.is_empty();
    if is_run && !seen.contains(&place(&run)) {
        return refuse_second_run(folder, adds);
    }
    if is_run || adds { Ok(()) } else { Err(nothing_to_report(folder)) }
}

/// Returns the evaluations of a folder and of the folders in it.
fn evaluations(folder: &Path) -> Vec<PathBuf> {
    let mut found = vec![folder.join(EVALUATION)];
    if let Ok(entries) = std::fs::read_dir(folder) {
        let mut below: Vec<PathBuf> =
            entries.flatten().map(|e| e.path().join(EVALUATION)).collect();
        below.sort();
        found.extend(below);
    }
    for path in found.iter().skip(1).filter(|path| !path.is_file()) {
        if path.with_file_name(PAGE).is_file() && !path.with_file_name(CONFIG).is_file() {
            log::warn!("{} is missing: the page omits this evaluation", path.display());
        }
    }
    found.retain(|path| path.is_file());
    found
}

/// Refuses a second run, or warns of it if its folder adds an evaluation.
fn refuse_second_run(folder: &Path, adds: bool) -> Result<()> {
    if adds {
        log::warn!(
            "{}: the page shows its evaluations, but not its run, which is not the first",
            folder.display()
        );
        return Ok(());
    }
    Err(Fault::new("a page shows one run")
        .file(folder)
        .found("a second run without evaluations")
        .advice("write a page for each run, or give the folders of their evaluations")
        .usage())
}

fn nothing_to_report(folder: &Path) -> Error {
    let found = match std::fs::metadata(folder) {
        Ok(data) if data.is_dir() && folder.join(SEASON).is_file() => "a season",
        Ok(data) if data.is_dir() => "a folder without any of these",
        Ok(_) => "not a folder",
        Err(_) => "no such folder",
    };
    let advice = match found {
        "a season" => "open season.html, which `season` wrote next to it",
        _ => "remove the argument, or write its run or evaluation again",
    };
    Fault::new("nothing to report on")
        .file(folder)
        .expected(format!(
            "a run folder ({CONFIG}), an evaluation ({EVALUATION}) or a comparison ({COMPARISON})"
        ))
        .found(found)
        .advice(advice)
        .usage()
}

/// Renders the page and writes it as a whole file.
///
/// # Errors
/// `Usage` if the page exists and may not be replaced, `Environment` if the disk fails.
pub fn write(inputs: &ReportInputs, output: &Path, overwrite: bool) -> Result<()> {
    OutputKind::Page.refuse_existing(output, overwrite)?;
    storage::write_file(output, super::page(inputs)?.as_bytes())
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
        .map_err(|e| Fault::new("cannot parse").file(path).found(e).input())
}

fn parse_lines(path: &Path) -> Result<Vec<EpochMetrics>> {
    let text = read(path)?;
    let line = |(i, line): (usize, &str)| {
        serde_json::from_str(line)
            .map_err(|e| Fault::new("cannot parse").file(path).row(i as u64 + 1).found(e).input())
    };
    text.lines().enumerate().map(line).collect()
}

fn read(path: &Path) -> Result<String> {
    let unreadable =
        |e: &dyn std::fmt::Display| Fault::new("cannot read").file(path).found(e).input();
    bounded::read_text(path, MAX_FILE_BYTES).map_err(|e| unreadable(&e))
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
    fn evaluation_in_run_folder_is_read_once() {
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
