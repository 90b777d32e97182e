//! Recognises the outputs of a command, so that `--overwrite` replaces no other file.
//!
//! The contents of a file name its command: HDF5 files by their root attributes, JSON files by
//! their field `format`, pages and tables by their first bytes. Any command may replace an empty
//! file.

use crate::bounded;
use crate::data::hdf5;
use crate::data::images::FORMAT as IMAGE_FORMAT;
use crate::data::schema::EVENT_FORMAT;
use crate::data::table::scores::FORMAT as SCORE_FORMAT;
use crate::error::{Fault, Result};
use crate::storage;
use std::path::Path;

const PAGE_START: &str = "<!doctype html";
/// Bytes of a page, a JSON file or a table in which its mark is searched.
const LONGEST_HEAD: u64 = 4096;

/// Kind of an output.
#[derive(Debug, Clone, Copy)]
pub(crate) enum OutputKind {
    /// Toy events or images of `simulate`.
    Simulation,
    /// Events of `convert`.
    Conversion,
    /// Events of `extract`.
    Extraction,
    /// Images of `anomalies`.
    Anomalies,
    /// Scores of `score`, as HDF5.
    Scores,
    /// A JSON object of this format, in any version.
    Json(&'static str),
    /// An HTML page.
    Page,
    /// A text that begins with these words.
    Text(&'static str),
    /// Files that a function recognises, with their name.
    Other(&'static str, fn(&Path) -> bool),
}

/// Content of a path.
enum Content {
    Own,
    Other,
    /// Bytes of an unknown format.
    Unreadable,
}

impl OutputKind {
    /// Refuses an output that exists, unless it is of this kind and may be replaced; call it
    /// before any work.
    ///
    /// # Errors
    /// `Usage`.
    pub(crate) fn refuse_existing(self, path: &Path, overwrite: bool) -> Result<()> {
        storage::refuse_existing(path, overwrite)?;
        self.refuse_other(path, false)
    }

    /// Refuses to replace anything but a regular file of this kind. A damaged file may be replaced
    /// if the records of the folder list it (`is_recorded`).
    ///
    /// # Errors
    /// `Usage`.
    pub(crate) fn refuse_other(self, path: &Path, is_recorded: bool) -> Result<()> {
        storage::refuse_existing(path, true)?;
        match self.content(path) {
            Content::Own => Ok(()),
            Content::Unreadable if is_recorded => Ok(()),
            Content::Other | Content::Unreadable => {
                Err(Fault::new("the file to replace is not an output of this command")
                    .file(path)
                    .expected(format!("{}, or a name that is not in use", self.name()))
                    .found(format_of(path).unwrap_or_else(|| "another file".to_string()))
                    .advice("choose another output, or remove the file yourself")
                    .usage())
            }
        }
    }

    fn content(self, path: &Path) -> Content {
        match std::fs::metadata(path) {
            Ok(data) if data.len() > 0 => {}
            // An empty file has nothing to lose.
            _ => return Content::Own,
        }
        let known = |is_own: bool| if is_own { Content::Own } else { Content::Other };
        match self {
            OutputKind::Json(format) => known(
                json_format(path)
                    .is_some_and(|found| without_version(&found) == without_version(format)),
            ),
            OutputKind::Page => known(begins_with(path, PAGE_START)),
            OutputKind::Text(start) => known(begins_with(path, start)),
            OutputKind::Other(_, is_own) => known(is_own(path)),
            _ => match Attributes::read(path) {
                Some(attributes) => known(self.has_attributes(&attributes)),
                None => Content::Unreadable,
            },
        }
    }

    fn has_attributes(self, of: &Attributes) -> bool {
        let is_made_by = |generator: &str| of.generator.starts_with(generator);
        let is_events = of.format == EVENT_FORMAT;
        match self {
            OutputKind::Simulation if of.is_extracted => false,
            OutputKind::Simulation => {
                is_events && is_made_by("toy-hillas")
                    || of.format == IMAGE_FORMAT && is_made_by("toy-camera")
            }
            OutputKind::Conversion => is_events && of.is_converted && !of.is_extracted,
            OutputKind::Extraction => is_events && of.is_extracted,
            OutputKind::Anomalies => of.format == IMAGE_FORMAT && is_made_by("image-anomalies"),
            OutputKind::Scores => of.format == SCORE_FORMAT,
            _ => false,
        }
    }

    fn name(self) -> String {
        match self {
            OutputKind::Simulation => "a file that `simulate` wrote".to_string(),
            OutputKind::Conversion => "a file that `convert` wrote".to_string(),
            OutputKind::Extraction => "a file that `extract` wrote".to_string(),
            OutputKind::Anomalies => "a file that `anomalies` wrote".to_string(),
            OutputKind::Scores => "a file that `score` wrote".to_string(),
            OutputKind::Json(format) => format!("a file of the format {}", without_version(format)),
            OutputKind::Page => "an HTML page".to_string(),
            OutputKind::Text(start) => format!("a text that begins with '{}'", start.trim()),
            OutputKind::Other(name, _) => name.to_string(),
        }
    }
}

/// Root attributes that name the command of an HDF5 file.
struct Attributes {
    format: String,
    generator: String,
    is_converted: bool,
    is_extracted: bool,
}

impl Attributes {
    /// Reads the attributes; returns `None` for a file that is damaged or not HDF5.
    fn read(path: &Path) -> Option<Attributes> {
        let file = hdf5::open(path).ok()?;
        let text = |name: &str| hdf5::text_attribute(&file, name);
        Some(Attributes {
            format: text("format").unwrap_or_default(),
            generator: text("generator").unwrap_or_default(),
            is_converted: text("dialect").is_some(),
            is_extracted: text("extracted_from").is_some(),
        })
    }
}

/// Returns the format that a file declares, for messages.
fn format_of(path: &Path) -> Option<String> {
    let of_hdf5 = || Attributes::read(path).map(|of| of.format).filter(|format| !format.is_empty());
    json_format(path).or_else(of_hdf5).map(|format| format!("a file of the format {format}"))
}

/// Returns the field `format` near the beginning of a JSON object.
fn json_format(path: &Path) -> Option<String> {
    let head = head(path)?;
    let value = head.strip_prefix('{')?.split_once("\"format\"")?.1.trim_start();
    let text = value.strip_prefix(':')?.trim_start().strip_prefix('"')?;
    text.split_once('"').map(|(format, _)| format.to_string())
}

/// Returns the name of a format: `taiga-flow-season` of `taiga-flow-season 1`.
fn without_version(format: &str) -> &str {
    format.split(' ').next().unwrap_or_default()
}

/// Returns whether a text begins with words, in any case, after blanks.
fn begins_with(path: &Path, start: &str) -> bool {
    let head = head(path);
    head.is_some_and(|head| head.get(..start.len()).is_some_and(|t| t.eq_ignore_ascii_case(start)))
}

/// Returns the beginning of a file without leading blanks.
fn head(path: &Path) -> Option<String> {
    let bytes = bounded::read_head(path, LONGEST_HEAD).ok()?;
    Some(String::from_utf8_lossy(bytes.trim_ascii_start()).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_another_kind_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("output");
        let (page, season) = (OutputKind::Page, OutputKind::Json("taiga-flow-season 1"));
        let table = OutputKind::Text("point\t");
        for (kind, text, code) in [
            (page, "\n\n<!DOCTYPE html>\n<html>", None),
            (page, "", None),
            (page, "{\"__metadata__\": {}}", Some(2)),
            (page, "<!", Some(2)),
            (season, "{\n  \"format\": \"taiga-flow-season 1\",", None),
            (season, "{\"format\":\"taiga-flow-season 2\"}", None),
            (season, "{\n  \"format\": \"taiga-flow-comparison 1\"}", Some(2)),
            (season, "[\"format\"]", Some(2)),
            (table, "point\tstate\n", None),
            (table, "points\n", Some(2)),
        ] {
            std::fs::write(&path, text).unwrap();
            let refused = kind.refuse_existing(&path, true).err().map(|error| error.exit_code());
            assert_eq!(refused, code, "{kind:?}: {text}");
            assert_eq!(kind.refuse_existing(&path, false).unwrap_err().exit_code(), 2);
        }
        for kind in [page, season, table, OutputKind::Scores] {
            kind.refuse_existing(&folder.path().join("new"), false).unwrap();
        }
    }

    #[test]
    fn damaged_file_is_replaced_where_it_is_recorded() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("scores.h5");
        std::fs::write(&path, "not HDF5").unwrap();
        let refused = |is_recorded| OutputKind::Scores.refuse_other(&path, is_recorded).is_err();
        assert!(refused(false) && !refused(true));
    }
}
