//! Folder of score files, as its manifest lists them.

use crate::bounded;
use crate::data::files::finished::FinishedFile;
use crate::data::files::stamp::{hash_file_with_progress, hash_text};
use crate::data::files::walk::hdf5_files;
use crate::data::table::scores::{self, Head, ScoreFile};
use crate::dataset::failures::FailedFile;
use crate::error::{Fault, Result};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

pub const MANIFEST: &str = "manifest.json";
/// Largest manifest read.
const LARGEST_MANIFEST: u64 = 1 << 30;
/// Most rows in a file; larger numbers are damaged.
const MOST_ROWS: u64 = 1 << 40;

/// Score files of one scoring or several.
#[derive(Debug)]
pub struct Folder {
    pub label: String,
    pub files: Vec<ScoreFileEntry>, // by name
    /// Inputs that could not be scored, with the reason.
    pub failed: BTreeMap<String, FailedFile>,
    /// Outputs that are missing in all folders because the models were trained on their runs.
    pub left_out: Vec<String>,
    /// Whether there are several scorings, each of which leaves out runs of its training.
    pub are_folds: bool,
}

#[derive(Debug, Clone)]
pub struct ScoreFileEntry {
    /// Path below the folder; with several folders, including that of the folder.
    pub name: String,
    pub path: PathBuf,
    pub rows: u64,
    /// Rows inside the cuts of the model at any position, from the manifest.
    pub inside: u64,
    pub input_blake3: String,
    /// Hash of the file when it was written; empty if unknown.
    pub output_blake3: String,
    /// Warnings of the scoring about the input.
    pub warnings: Vec<String>,
}

impl ScoreFileEntry {
    /// Refuses a file that was changed since it was written.
    pub(super) fn refuse_altered(&self, progress: impl Fn()) -> Result<()> {
        // The reader reports a missing file.
        if self.output_blake3.is_empty() || !self.path.exists() {
            return Ok(());
        }
        let found = hash_text(&hash_file_with_progress(&self.path, progress)?);
        if found == self.output_blake3 {
            return Ok(());
        }
        Err(Fault::new("the file is not as it was written")
            .file(&self.path)
            .expected(format!("blake3 {}, as in the manifest", self.output_blake3))
            .found(found)
            .advice("run `taiga-flow verify` on the folder, and score its input again")
            .input())
    }
}

#[derive(Deserialize)]
struct ScoreManifest {
    files: Vec<OfManifest>,
    #[serde(default)]
    failed: BTreeMap<String, FailedFile>,
    #[serde(default)]
    left_out: Vec<String>,
    #[serde(default = "complete")]
    complete: bool,
}

fn complete() -> bool {
    true
}

#[derive(Deserialize)]
struct OfManifest {
    output: String,
    rows: u64,
    #[serde(default)]
    unusable: u64,
    #[serde(default)]
    outside: u64,
    input_blake3: String,
    #[serde(default)]
    output_blake3: String,
    #[serde(default)]
    warnings: Vec<String>,
}

impl Folder {
    pub fn open(paths: &[PathBuf]) -> Result<Folder> {
        let labels: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
        let mut all = Folder {
            label: labels.join(", "),
            files: Vec::new(),
            failed: BTreeMap::new(),
            left_out: Vec::new(),
            are_folds: paths.len() > 1,
        };
        let mut scored = BTreeSet::new();
        for path in paths {
            let manifest = read_manifest(path)?;
            refuse_unlisted(path, &manifest)?;
            scored.extend(manifest.files.iter().map(|file| file.output.clone()));
            all.are_folds &= !manifest.left_out.is_empty();
            all.left_out.extend(manifest.left_out);
            for file in manifest.files {
                let below = path.join(&file.output);
                let name = if paths.len() > 1 { below.display().to_string() } else { file.output };
                let OfManifest { rows, unusable, outside, warnings, .. } = file;
                let (input_blake3, output_blake3) = (file.input_blake3, file.output_blake3);
                let inside = rows.saturating_sub(unusable).saturating_sub(outside);
                let path = below;
                all.files.push(ScoreFileEntry {
                    name,
                    path,
                    rows,
                    inside,
                    input_blake3,
                    output_blake3,
                    warnings,
                });
            }
            all.failed.extend(manifest.failed);
        }
        all.left_out.retain(|name| !scored.contains(name));
        all.left_out.sort();
        all.left_out.dedup();
        all.files.sort_by(|a, b| a.name.cmp(&b.name));
        let mut inputs: BTreeMap<&str, &str> = BTreeMap::new();
        for file in all.files.iter().filter(|file| file.rows > 0) {
            if let Some(other) = inputs.insert(&file.input_blake3, &file.name) {
                return Err(Fault::new("two score files have the same input")
                    .file(&all.label)
                    .found(format!("{other} and {}", file.name))
                    .advice("leave one of them out: its events would count twice")
                    .input());
            }
        }
        Ok(all)
    }

    /// Returns a warning of files with a share of rows inside the cuts of the model below `least`, as
    /// the scoring gave it.
    pub fn few_inside(&self, least: f64) -> Option<String> {
        let few = |file: &&ScoreFileEntry| (file.inside as f64) < least * file.rows as f64;
        let few: Vec<&ScoreFileEntry> = self.files.iter().filter(few).collect();
        let first = few.first()?;
        Some(format!(
            "{} of {} score files have less than {} % of their rows inside the model's cuts, such as {} ({} of {}): are units and schema of the scored files right?",
            few.len(),
            self.files.len(),
            100.0 * least,
            first.name,
            first.inside,
            first.rows
        ))
    }

    /// Returns a warning of files whose inputs have values that are not plausible, as the scoring
    /// gave it.
    pub fn implausible(&self) -> Option<String> {
        let warned = || self.files.iter().filter(|file| !file.warnings.is_empty());
        let first = warned().next()?;
        Some(format!(
            "The inputs of {} of {} score files have values that no telescope records, such as {}: {}",
            warned().count(),
            self.files.len(),
            first.name,
            first.warnings.join("; ")
        ))
    }

    /// Returns pairs of files with rows in this and the other folder that have the same input.
    pub fn shared<'a>(
        &'a self,
        other: &'a Folder,
    ) -> Vec<(&'a ScoreFileEntry, &'a ScoreFileEntry)> {
        let with_rows = |file: &&ScoreFileEntry| file.rows > 0;
        let inputs: BTreeMap<&str, &ScoreFileEntry> =
            other.files.iter().filter(with_rows).map(|f| (f.input_blake3.as_str(), f)).collect();
        let own = self.files.iter().filter(with_rows);
        own.filter_map(|file| Some((file, *inputs.get(file.input_blake3.as_str())?))).collect()
    }

    /// Returns the attributes of the first file that can be opened.
    pub fn head(&self) -> Result<Head> {
        let mut first = None;
        for file in &self.files {
            match ScoreFile::open(&file.path) {
                Ok(opened) => return Ok(opened.head),
                Err(error) => first = first.or(Some(error)),
            }
        }
        Err(first.unwrap_or_else(|| Fault::new("no score files").file(&self.label).input()))
    }

    /// Returns the files that a rank reads, longest first; each file is read by one rank.
    pub fn of_rank(&self, rank: usize, ranks: usize) -> Vec<&ScoreFileEntry> {
        let mut order: Vec<&ScoreFileEntry> = self.files.iter().collect();
        order.sort_by(|a, b| b.rows.cmp(&a.rows).then(a.name.cmp(&b.name)));
        let mut load = vec![0_u64; ranks];
        let mut mine = Vec::new();
        for file in order {
            let least = (0..ranks).min_by_key(|r| load[*r]).unwrap_or(0);
            load[least] += file.rows + 1;
            if least == rank {
                mine.push(file);
            }
        }
        mine
    }
}

/// Refuses a folder with score files that its manifest does not list, since their events would not
/// be counted.
fn refuse_unlisted(folder: &Path, manifest: &ScoreManifest) -> Result<()> {
    let listed: BTreeSet<PathBuf> =
        manifest.files.iter().map(|file| folder.join(&file.output)).collect();
    let mut found = hdf5_files(folder)?;
    found.retain(|path| !listed.contains(path));
    let is_scores = |path: &&PathBuf| FinishedFile::open(path, scores::FORMAT).is_some();
    let mut unlisted = found.iter().filter(is_scores);
    let Some(first) = unlisted.next() else { return Ok(()) };
    Err(Fault::new("score files that the manifest does not list")
        .file(folder)
        .found(format!("{} and {} more", first.display(), unlisted.count()))
        .advice("run `taiga-flow verify` on the folder; score their inputs again, or remove them")
        .input())
}

fn read_manifest(folder: &Path) -> Result<ScoreManifest> {
    let path = folder.join(MANIFEST);
    let fault = |what: &str| Fault::new(what.to_string()).file(&path);
    std::fs::metadata(&path).map_err(|e| {
        fault("no manifest: not a folder of scores, or the scoring is unfinished")
            .found(e)
            .advice("give the folder that `taiga-flow score -o` wrote, when it is finished")
            .input()
    })?;
    bounded::refuse_irregular(&path)?;
    let text = bounded::read_text(&path, LARGEST_MANIFEST)
        .map_err(|e| fault("cannot read the manifest").found(e).input())?;
    let manifest: ScoreManifest = serde_json::from_str(&text)
        .map_err(|e| fault("cannot understand the manifest").found(e).input())?;
    if !manifest.complete {
        return Err(fault("the scoring is not complete")
            .advice("run the same `taiga-flow score` again to finish it")
            .input());
    }
    if manifest.files.is_empty() {
        return Err(fault("the manifest lists no files").input());
    }
    if let Some(file) = manifest.files.iter().find(|file| file.rows > MOST_ROWS) {
        return Err(fault("the manifest is damaged")
            .expected(format!("at most {MOST_ROWS} rows in a file"))
            .found(format!("{} in {}", file.rows, file.output))
            .input());
    }
    let inside = |file: &&OfManifest| {
        Path::new(&file.output).components().all(|c| matches!(c, Component::Normal(_)))
    };
    match manifest.files.iter().find(|file| !inside(file)) {
        Some(file) => {
            Err(fault("the manifest names a file outside its folder").found(&file.output).input())
        }
        None => Ok(manifest),
    }
}
