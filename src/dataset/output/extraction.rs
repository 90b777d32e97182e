//! Compares event files with the manifest of the extraction that wrote them.
//!
//! An output folder of `extract` is an input of `train`, `evaluate` and `score`. Its manifest states
//! whether the extraction has finished, which files are its outputs, and which images are missing.
//! The folder is found from the files, so a user can give the folder, one above or below it, a
//! pattern or a list.

use super::ledger;
use super::started::Started;
use crate::bounded;
use crate::data::files::list::expand_lists;
use crate::dataset::failures::FailedFile;
use crate::error::{Error, Fault, Result, path_text};
use serde::Deserialize;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

/// File name of the manifest.
pub const MANIFEST: &str = "manifest.json";
/// Format of the manifest.
pub const FORMAT: &str = "taiga-flow-extraction 1";
/// Bytes at the beginning of a ledger that are searched for a line of an extraction.
const LEDGER_HEAD: u64 = 1 << 16;

/// The part of the manifest that readers of the event files need.
#[derive(Deserialize)]
struct ExtractionManifest {
    #[serde(default)]
    format: String,
    #[serde(default)]
    files: Vec<ManifestOutput>,
    #[serde(default)]
    failed: BTreeMap<String, FailedFile>,
    #[serde(default = "complete")]
    complete: bool,
}

#[derive(Deserialize)]
struct ManifestOutput {
    output: String,
    output_blake3: String,
}

fn complete() -> bool {
    true
}

/// An extraction that has finished.
#[derive(Debug)]
struct Extraction {
    /// Canonical path.
    folder: PathBuf,
    /// Output → hash of its content.
    outputs: BTreeMap<String, String>,
    /// Input → reason why it has no output.
    failed: BTreeMap<String, FailedFile>,
}

/// Name of a file within an extraction.
#[derive(Debug, Clone)]
struct ExtractedMember {
    extraction: usize,
    name: String,
}

/// Extractions that event files belong to.
#[derive(Debug)]
pub struct Extractions<'a> {
    files: Vec<&'a Path>,
    /// Extraction of each file; `None` for a file of no extraction.
    members: Vec<Option<ExtractedMember>>,
    all: Vec<Extraction>,
}

/// Missing output of an extraction.
#[derive(Debug)]
pub struct AbsentOutput {
    /// The input of the extraction, or the output if it was lost later.
    pub file: String,
    /// Path of the output below the given path; `None` if it is unknown.
    pub output: Option<PathBuf>,
    /// Given path that covers the output.
    pub given: PathBuf,
    /// Folder of the extraction.
    pub extraction: String,
    pub reason: String,
    pub exit_code: u8,
}

impl<'a> Extractions<'a> {
    /// Finds the extractions of event files.
    ///
    /// # Errors
    /// `Input` if an extraction has not finished, or its manifest cannot be read.
    pub fn of(files: impl IntoIterator<Item = &'a Path>) -> Result<Extractions<'a>> {
        let mut search = ExtractionSearch::default();
        let files: Vec<&Path> = files.into_iter().collect();
        let members = files.iter().map(|file| search.member(file)).collect::<Result<_>>()?;
        Ok(Extractions { files, members, all: search.extractions })
    }

    /// Returns the files below the folder of an extraction that are not outputs of it, with the
    /// reason not to use them.
    pub fn unlisted(&self) -> impl Iterator<Item = (&Path, Error)> {
        let files = self.files.iter().zip(&self.members);
        files.filter_map(|(file, member)| {
            let ExtractedMember { extraction, name } = member.as_ref()?;
            let Extraction { folder, outputs, .. } = &self.all[*extraction];
            (!outputs.contains_key(name)).then(|| (*file, unlisted(file, folder)))
        })
    }

    /// Returns the hash of a file when it was extracted, by its index in the list.
    pub fn recorded_hash(&self, file: usize) -> Option<&str> {
        let ExtractedMember { extraction, name } = self.members.get(file)?.as_ref()?;
        self.all[*extraction].outputs.get(name).map(String::as_str)
    }

    /// Returns the outputs that are missing from the extractions and that the paths `given`
    /// would cover.
    pub fn absent(&self, given: &[PathBuf]) -> Vec<AbsentOutput> {
        let mut absent = Vec::new();
        for (index, extraction) in self.all.iter().enumerate() {
            let covers = self.covers(given, index);
            absent.extend(extraction.absent(&covers));
        }
        absent
    }

    /// Returns the folders of the extractions of which the paths `given` cover all outputs.
    pub fn covered_whole(&self, given: &[PathBuf]) -> Vec<String> {
        let is_below = |folder: &Path| {
            let folders = given.iter().filter_map(|given| given.canonicalize().ok());
            folders.into_iter().any(|given| folder.starts_with(given))
        };
        let whole = self.all.iter().filter(|extraction| is_below(&extraction.folder));
        whole.map(|extraction| path_text(&extraction.folder)).collect()
    }

    /// Warns of images that are missing from the extractions.
    pub fn warn_of_absent(&self, given: &[PathBuf]) {
        for (index, extraction) in self.all.iter().enumerate() {
            let covers = self.covers(given, index);
            extraction.warn_of_absent(&covers);
        }
    }

    /// Warns of failed inputs of extractions of which single files are given: it is unknown whether
    /// they were meant.
    pub fn warn_of_uncovered(&self, given: &[PathBuf]) {
        for (index, extraction) in self.all.iter().enumerate() {
            if self.covers(given, index).is_empty() {
                extraction.warn_of_absent(&[]);
            }
        }
    }

    /// Refuses files that are not outputs of the extraction whose folder they are in.
    ///
    /// # Errors
    /// `Input`, for the first one.
    pub fn refuse_unlisted(&self) -> Result<()> {
        self.unlisted().next().map_or(Ok(()), |(_, error)| Err(error))
    }

    /// Refuses files whose content, of the hashes `found`, is not the one that was extracted.
    ///
    /// # Errors
    /// `Input`, for the first one.
    pub fn refuse_altered(&self, found: &[String]) -> Result<()> {
        for (index, (file, found)) in self.files.iter().zip(found).enumerate() {
            if let Some(recorded) = self.recorded_hash(index) {
                refuse_altered(file, recorded, found)?;
            }
        }
        Ok(())
    }

    /// Returns what the given paths cover, including those in lists.
    fn covers(&self, given: &[PathBuf], extraction: usize) -> Vec<Cover> {
        let covers = given.iter().flat_map(|given| {
            let paths = expand_lists(given).into_iter();
            paths.filter_map(|path| Some((given.clone(), self.reach(&path, extraction)?)))
        });
        covers.map(|(given, reach)| Cover { given, reach }).collect()
    }

    /// Returns the outputs that a path covers: all below a folder, or those that match a pattern.
    fn reach(&self, given: &Path, extraction: usize) -> Option<Reach> {
        let folder = &self.all[extraction].folder;
        if given.is_dir() {
            let place = given.canonicalize().ok()?;
            let is_related = place.starts_with(folder) || folder.starts_with(&place);
            return is_related.then(|| Reach::Folder { path: given.to_path_buf(), place });
        }
        if given.exists() {
            return None;
        }
        let pattern = glob::Pattern::new(given.to_str()?).ok()?;
        let base = self.files.iter().zip(&self.members).find_map(|(file, member)| {
            let member = member.as_ref().filter(|member| member.extraction == extraction)?;
            let depth = Path::new(&member.name).components().count();
            file.ancestors().nth(depth)
        });
        let base = base?.to_path_buf();
        Some(Reach::Pattern { pattern, base })
    }
}

/// Refuses an event file whose content is not the one that was extracted.
///
/// # Errors
/// `Input`.
pub fn refuse_altered(file: &Path, recorded: &str, found: &str) -> Result<()> {
    if recorded == found {
        return Ok(());
    }
    Err(Fault::new("the file was changed since it was extracted")
        .file(file)
        .expected(format!("blake3 {recorded}, as in the manifest of the extraction"))
        .found(found)
        .advice("extract it again; a file that was changed on purpose belongs in another folder")
        .input())
}

fn unlisted(file: &Path, folder: &Path) -> Error {
    Fault::new("the file is not in the manifest of the extraction whose folder it is in")
        .file(file)
        .expected(format!("an output listed in {}", path_text(&folder.join(MANIFEST))))
        .found("a file left from an earlier extraction, or put there by hand")
        .advice("extract its images again, or move it to another folder")
        .input()
}

/// Part of an extraction that a given path covers.
struct Cover {
    given: PathBuf,
    reach: Reach,
}

enum Reach {
    /// A folder, and its canonical path.
    Folder { path: PathBuf, place: PathBuf },
    /// `base` is the folder of the extraction as the pattern spells it.
    Pattern { pattern: glob::Pattern, base: PathBuf },
}

impl Reach {
    /// Returns the path of an output in the form of the given path; `None` if it is not covered.
    fn path_of(&self, folder: &Path, output: &str) -> Option<PathBuf> {
        match self {
            Reach::Folder { path, place } => {
                let below = folder.join(output);
                Some(path.join(below.strip_prefix(place).ok()?))
            }
            Reach::Pattern { pattern, base } => {
                let path = base.join(output);
                let options = glob::MatchOptions {
                    require_literal_separator: true,
                    ..glob::MatchOptions::new()
                };
                let fits = |path: &Path| pattern.matches_path_with(path, options);
                path.ancestors().any(fits).then_some(path)
            }
        }
    }

    /// Returns whether outputs of unknown names are covered.
    fn is_whole(&self, folder: &Path) -> bool {
        matches!(self, Reach::Folder { place, .. } if folder.starts_with(place))
    }
}

impl Extraction {
    fn absent(&self, covers: &[Cover]) -> Vec<AbsentOutput> {
        let absent = |cover: &Cover, output: Option<PathBuf>, file: &str| AbsentOutput {
            file: file.to_string(),
            output,
            given: cover.given.clone(),
            extraction: path_text(&self.folder),
            reason: String::new(),
            exit_code: 3,
        };
        let mut all = Vec::new();
        for (input, failed) in &self.failed {
            let covered = covers.iter().find_map(|cover| match failed.output.as_str() {
                "" => cover.reach.is_whole(&self.folder).then_some((cover, None)),
                output => cover.reach.path_of(&self.folder, output).map(|path| (cover, Some(path))),
            });
            if let Some((cover, output)) = covered {
                let reason = format!("was not extracted: {}", failed.reason);
                let exit_code = if failed.exit_code == 0 { 3 } else { failed.exit_code };
                all.push(AbsentOutput { reason, exit_code, ..absent(cover, output, input) });
            }
        }
        for output in self.lost() {
            let covered = covers.iter().find_map(|cover| {
                cover.reach.path_of(&self.folder, output).map(|path| (cover, path))
            });
            if let Some((cover, path)) = covered {
                let reason = "is lost: the manifest of its extraction lists it; extract again";
                let lost = absent(cover, Some(path.clone()), &path_text(&path));
                all.push(AbsentOutput { reason: reason.to_string(), ..lost });
            }
        }
        all
    }

    /// Returns the listed outputs that do not exist.
    fn lost(&self) -> impl Iterator<Item = &String> {
        let is_lost = |output: &&String| std::fs::metadata(self.folder.join(output)).is_err();
        self.outputs.keys().filter(is_lost)
    }

    fn warn_of_absent(&self, covers: &[Cover]) {
        let is_covered = |output: &str| {
            covers.is_empty()
                || covers.iter().any(|c| c.reach.path_of(&self.folder, output).is_some())
        };
        let folder = path_text(&self.folder);
        let failed: Vec<&String> = self
            .failed
            .iter()
            .filter(|(_, failed)| failed.output.is_empty() || is_covered(&failed.output))
            .map(|(input, _)| input)
            .collect();
        if let Some(first) = failed.first() {
            let more = failed.len() - 1;
            log::warn!(
                "{folder}: {} file(s) of images could not be extracted, so that their events are \
                 missing: {first} and {more} more",
                failed.len()
            );
        }
        let lost: Vec<&String> = self.lost().filter(|output| is_covered(output)).collect();
        if let Some(first) = lost.first() {
            let more = lost.len() - 1;
            log::warn!(
                "{folder}: {} extracted file(s) are lost: {first} and {more} more; extract again",
                lost.len()
            );
        }
    }
}

/// Search for extractions that visits each folder once.
#[derive(Default)]
struct ExtractionSearch {
    extractions: Vec<Extraction>,
    /// Canonical folder → its extraction.
    known: HashMap<PathBuf, Option<usize>>,
    /// Folder as given → its canonical path.
    places: HashMap<PathBuf, PathBuf>,
}

impl ExtractionSearch {
    fn member(&mut self, file: &Path) -> Result<Option<ExtractedMember>> {
        let Some(place) = self.place(file) else { return Ok(None) };
        let Some(folder) = place.parent() else { return Ok(None) };
        let Some(extraction) = self.extraction_of(folder)? else { return Ok(None) };
        let below = place.strip_prefix(&self.extractions[extraction].folder).ok();
        let name = below.and_then(Path::to_str).map(str::to_string);
        Ok(name.map(|name| ExtractedMember { extraction, name }))
    }

    /// Returns the canonical path of a file.
    fn place(&mut self, file: &Path) -> Option<PathBuf> {
        if std::fs::symlink_metadata(file).ok()?.is_symlink() {
            return file.canonicalize().ok();
        }
        let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or(Path::new("."));
        if !self.places.contains_key(folder) {
            self.places.insert(folder.to_path_buf(), folder.canonicalize().ok()?);
        }
        Some(self.places.get(folder)?.join(file.file_name()?))
    }

    fn extraction_of(&mut self, folder: &Path) -> Result<Option<usize>> {
        if let Some(known) = self.known.get(folder) {
            return Ok(*known);
        }
        let found = match read(folder)? {
            Some(extraction) => {
                self.extractions.push(extraction);
                Some(self.extractions.len() - 1)
            }
            None => match folder.parent() {
                Some(parent) => self.extraction_of(parent)?,
                None => None,
            },
        };
        self.known.insert(folder.to_path_buf(), found);
        Ok(found)
    }
}

/// Reads the extraction of an output folder; `None` if the folder is not one.
fn read(folder: &Path) -> Result<Option<Extraction>> {
    let path = folder.join(MANIFEST);
    let manifest = match ledger::read_manifest::<ExtractionManifest>(&path) {
        Ok(Some(manifest)) if manifest.format == FORMAT => manifest,
        Ok(None) if has_begun(folder) => return Err(unfinished(folder, "no manifest")),
        Err(error) if has_begun(folder) => return Err(unfinished(folder, &error.to_string())),
        // There is no manifest, or it is that of scores or of a different program.
        Ok(_) | Err(_) => return Ok(None),
    };
    if !manifest.complete {
        return Err(unfinished(folder, "a manifest that is not complete"));
    }
    let outputs = manifest.files.into_iter().map(|file| (file.output, file.output_blake3));
    let (folder, failed) = (folder.to_path_buf(), manifest.failed);
    Ok(Some(Extraction { folder, outputs: outputs.collect(), failed }))
}

fn unfinished(folder: &Path, found: &str) -> Error {
    Fault::new("the extraction in this folder has not finished")
        .file(folder)
        .expected(format!("a complete {MANIFEST}"))
        .found(found)
        .advice("run the same `taiga-flow extract` again, or copy the files that are wanted")
        .input()
}

/// Returns whether an extraction into the folder has begun.
fn has_begun(folder: &Path) -> bool {
    if Started::read(folder, (0, 1)).is_some_and(|started| started.model_blake3.is_none()) {
        return true;
    }
    let ledgers = std::fs::read_dir(folder.join(ledger::FOLDER)).into_iter().flatten().flatten();
    let is_extraction = |path: &Path| {
        let head = bounded::read_head(path, LEDGER_HEAD).unwrap_or_default();
        let first = head.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let line: Option<serde_json::Value> = serde_json::from_slice(first).ok();
        line.is_some_and(|line| line.get("images").is_some())
    };
    ledgers.map(|entry| entry.path()).any(|path| ledger::is_ledger(&path) && is_extraction(&path))
}
