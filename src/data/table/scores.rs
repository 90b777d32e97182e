//! Reads score files: their attributes, and their columns block by block.
//!
//! - A file is refused by name, before any row is read, if it is incomplete, of a newer version, or
//!   if its columns do not belong together.
//! - Units other than deg, deg² and TeV are refused.
//! - Columns of `scores` have one value per event, or one per event and source position.

use crate::data::hdf5::numbers::StoredColumn;
use crate::data::hdf5::storage;
use crate::data::hdf5::types::NumberClass;
use crate::data::hdf5::{
    self, integer_attribute, number_list_attribute, pair_attribute, text_attribute,
};
use crate::error::{Fault, Result};
use ::hdf5::types::IntSize;
use ::hdf5::{Dataset, File, H5Type};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

pub(crate) const FORMAT: &str = "taiga-flow-scores";
const GROUP: &str = "scores";
/// 1: one value per event; 2: one per event and source position; 3: as 2, and `energy` has
/// positions too.
const NEWEST: i64 = 3;
/// Columns that have a value per source position, even if there is only one position.
const OF_POSITION: [&str; 13] = [
    "dist",
    "alpha",
    "theta2",
    "score",
    "log_prob",
    "log_prob_raw",
    "gammaness",
    "posterior",
    "p_value",
    "chi2",
    "energy",
    "status",
    "pass",
];
/// Units that a column may declare.
const UNITS: [(&str, &[&str]); 5] = [
    ("dist", &["deg"]),
    ("alpha", &["deg"]),
    ("theta2", &["deg2", "deg^2", "deg²"]),
    ("energy", &["TeV"]),
    ("energy_true", &["TeV"]),
];

/// A threshold that the scoring applied; the i-th one sets bit i of `pass`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct AppliedThreshold {
    pub name: String,
    /// Absent if it differs between bins of a quantity.
    #[serde(default)]
    pub threshold: Option<f64>,
    #[serde(default)]
    pub column: String,
}

/// Attributes and columns of a score file.
#[derive(Debug, Clone, PartialEq)]
pub struct Head {
    pub rows: u64,
    /// Rotation of each source position relative to the real source [deg]; the first is 0.
    pub positions: Vec<f64>,
    pub working_points: Vec<AppliedThreshold>,
    /// Names of the quality cuts, by bit.
    pub quality_bits: Vec<String>,
    /// Least and greatest distance of the source from the centre of the camera [deg].
    pub source_offset: Option<[f64; 2]>,
    /// Scores beyond which `gammaness` and `posterior` are bounds.
    pub resolved_scores: Option<[f64; 2]>,
    /// Upper limit below these scores and lower limit above; `None` if the file has none.
    pub gammaness_limits: Option<[f64; 2]>,
    pub posterior_limits: Option<[f64; 2]>,
    pub input: Option<String>,
    pub input_blake3: Option<String>,
    pub model_blake3: String,
    /// Names of the 64-bit integer columns.
    pub keys: Vec<String>,
    /// Columns of one f32 per event, without the keys.
    pub copied: Vec<String>,
    /// Columns of one f32 per event and position.
    pub of_position: Vec<String>,
    pub has_class: bool,
    pub has_quality: bool,
    pub has_pass: bool,
}

impl Head {
    /// Returns whether `energy` has one value per event although the file has positions: the value
    /// at the source, which is wrong for events that count at other positions.
    pub(crate) fn has_energy_of_source(&self) -> bool {
        self.copied.iter().any(|name| name == "energy")
    }

    /// Returns the column of log p, of the first flow if there are several; the score if the file
    /// has none.
    pub(crate) fn log_prob(&self) -> &str {
        let is_log_prob =
            |name: &&String| name.starts_with("log_prob") && !name.starts_with("log_prob_raw");
        let exact = self.of_position.iter().find(|name| *name == "log_prob");
        exact.or_else(|| self.of_position.iter().find(is_log_prob)).map_or("score", String::as_str)
    }
}

/// Columns to read: keys, f32 per event, and f32 per event and position, at all positions or at the
/// first.
#[derive(Debug, Clone, Default)]
pub(crate) struct ColumnRequest {
    pub keys: Vec<String>,
    pub copied: Vec<String>,
    pub at_all: Vec<String>,
    pub at_source: Vec<String>,
    pub pass: bool,
}

/// Rows of the requested columns; every innermost vector: (rows).
#[derive(Debug, Clone, Default)]
pub(crate) struct ScoreBlock {
    pub rows: usize,
    pub keys: Vec<Vec<i64>>,
    pub copied: Vec<Vec<f32>>,
    pub at_all: Vec<Vec<Vec<f32>>>, // (columns, positions, rows)
    pub at_source: Vec<Vec<f32>>,
    pub status: Vec<Vec<u32>>, // (positions, rows)
    pub pass: Vec<Vec<u8>>,    // (positions, rows); empty if not requested
    pub quality: Vec<u32>,     // zeros if the file has none
    pub class: Vec<i8>,        // empty if the file has none
}

/// An open score file.
pub struct ScoreFile {
    pub head: Head,
    path: PathBuf,
    columns: BTreeMap<String, ScoreDataset>,
    _file: File,
}

struct ScoreDataset {
    dataset: Dataset,
    is_matrix: bool,
}

impl ScoreFile {
    /// Opens a score file and checks its attributes and columns.
    ///
    /// # Errors
    /// `Input`, with the attribute or column.
    pub fn open(path: &Path) -> Result<ScoreFile> {
        let bytes = hdf5::file_length(path)?;
        let file = hdf5::open_with_cache(path, 4 << 20)?;
        let fault = |what: &str| Fault::new(what.to_string()).file(path);
        if text_attribute(&file, "format").as_deref() != Some(FORMAT) {
            return Err(fault("not a score file")
                .expected(format!("the attribute format = '{FORMAT}'"))
                .found(text_attribute(&file, "format").unwrap_or_else(|| "none".to_string()))
                .input());
        }
        let version = integer_attribute(&file, "version").unwrap_or(0);
        if !(1..=NEWEST).contains(&version) {
            return Err(fault("a score file of a different version")
                .expected(format!("at most {NEWEST}"))
                .found(version)
                .advice("use the taiga-flow version that wrote it, or score again")
                .input());
        }
        if integer_attribute(&file, "complete") != Some(1) {
            return Err(fault("the score file is not complete").advice("score again").input());
        }
        let rows = integer_attribute(&file, "rows").and_then(|rows| u64::try_from(rows).ok());
        let rows = rows.ok_or_else(|| fault("the score file has no number of rows").input())?;
        let group = hdf5::group(path, &file, GROUP)?;
        let positions = number_list_attribute(&group, "positions");
        let many = positions.as_ref().map_or(1, Vec::len);
        let mut file = ScoreFile {
            head: Head {
                rows,
                positions: positions.unwrap_or_else(|| vec![0.0]),
                working_points: list(path, &group, "working_points")?,
                quality_bits: list(path, &group, "quality_bits")?,
                source_offset: pair_attribute(&file, "source_offset"),
                resolved_scores: pair_attribute(&group, "resolved_scores"),
                gammaness_limits: pair_attribute(&group, "gammaness_limits"),
                posterior_limits: pair_attribute(&group, "posterior_limits"),
                input: text_attribute(&file, "input"),
                input_blake3: text_attribute(&file, "input_blake3"),
                model_blake3: text_attribute(&file, "model_blake3").unwrap_or_default(),
                keys: Vec::new(),
                copied: Vec::new(),
                of_position: Vec::new(),
                has_class: false,
                has_quality: false,
                has_pass: false,
            },
            path: path.to_path_buf(),
            columns: BTreeMap::new(),
            _file: file,
        };
        for name in group.member_names().map_err(|e| hdf5::read_fault(path, GROUP, &e))? {
            file.take(&group, &name, many, bytes)?;
        }
        file.check()?;
        Ok(file)
    }

    /// Adds a column if the program knows its kind.
    fn take(&mut self, group: &::hdf5::Group, name: &str, many: usize, bytes: u64) -> Result<()> {
        let full = format!("{GROUP}/{name}");
        let dataset = group.dataset(name).map_err(|e| hdf5::read_fault(&self.path, &full, &e))?;
        let dimensions = dataset.ndim();
        let column = if dimensions == 2 {
            let found = dataset.shape();
            if found[1] != many {
                return Err(Fault::new("a column whose positions differ from those of the file")
                    .file(&self.path)
                    .dataset(full)
                    .expected(format!("{many} positions"))
                    .found(format!("shape {found:?}"))
                    .input());
            }
            StoredColumn::matrix(&self.path, &dataset, name, (0, many), None)?
        } else {
            StoredColumn::open(&self.path, group, name)?
        };
        column.check_rows(self.head.rows)?;
        storage::check(&column, bytes)?;
        self.check_unit(name, &dataset)?;
        let head = &mut self.head;
        match (column.numbers, name) {
            (_, "status" | "pass") => head.has_pass |= name == "pass",
            (_, "class") => head.has_class = true,
            (_, "quality") => head.has_quality = true,
            (NumberClass::Integer(IntSize::U8), _) if dimensions == 1 => {
                head.keys.push(name.to_string());
            }
            (NumberClass::Real, _) if dimensions == 2 || many == 1 && is_of_position(name) => {
                head.of_position.push(name.to_string());
            }
            (NumberClass::Real, _) => head.copied.push(name.to_string()),
            _ => return Ok(()),
        }
        self.columns.insert(name.to_string(), ScoreDataset { dataset, is_matrix: dimensions == 2 });
        Ok(())
    }

    fn check_unit(&self, name: &str, dataset: &Dataset) -> Result<()> {
        let known = UNITS.iter().find(|(column, _)| *column == name).map(|(_, units)| *units);
        let found = text_attribute(dataset, "units");
        match (known, found) {
            (Some(units), Some(found)) if !units.contains(&found.as_str()) => {
                Err(Fault::new("a column in a different unit")
                    .file(&self.path)
                    .dataset(format!("{GROUP}/{name}"))
                    .expected(units[0])
                    .found(found)
                    .advice("score again with the right units in the schema")
                    .input())
            }
            _ => Ok(()),
        }
    }

    /// Refuses a file without the columns that every score file has.
    fn check(&self) -> Result<()> {
        let head = &self.head;
        let fault = |what: String| Fault::new(what).file(&self.path);
        for name in ["status", "score"] {
            let Some(column) = self.columns.get(name) else {
                return Err(fault(format!("the score file has no column '{name}'"))
                    .advice("leave it in [score] columns and score again")
                    .input());
            };
            if head.positions.len() > 1 && !column.is_matrix {
                return Err(fault(format!("the column '{name}' has no positions"))
                    .expected(format!("{} of them", head.positions.len()))
                    .input());
            }
        }
        let usable = head.positions.iter().all(|angle| angle.is_finite());
        if head.positions.is_empty() || !usable || head.positions[0].abs() > 1e-9 {
            return Err(fault("positions that cannot be used".to_string())
                .expected("angles in deg, the first 0")
                .found(format!("{:?}", head.positions))
                .input());
        }
        Ok(())
    }

    /// Reads rows into a block and replaces its contents.
    pub(crate) fn read(
        &self,
        rows: Range<u64>,
        wanted: &ColumnRequest,
        block: &mut ScoreBlock,
    ) -> Result<()> {
        let positions = self.head.positions.len();
        block.rows = (rows.end - rows.start) as usize;
        block.keys = self.all(&wanted.keys, &rows)?;
        block.copied = self.all(&wanted.copied, &rows)?;
        block.at_source = wanted
            .at_source
            .iter()
            .map(|name| self.column(name, 0, &rows))
            .collect::<Result<_>>()?;
        let at_all = |name: &String| self.at_all(name, positions, &rows);
        block.at_all = wanted.at_all.iter().map(at_all).collect::<Result<_>>()?;
        block.status = self.at_all("status", positions, &rows)?;
        block.pass = if wanted.pass && self.head.has_pass {
            self.at_all("pass", positions, &rows)?
        } else {
            Vec::new()
        };
        block.quality = if self.head.has_quality {
            self.column("quality", 0, &rows)?
        } else {
            vec![0; block.rows]
        };
        block.class =
            if self.head.has_class { self.column("class", 0, &rows)? } else { Vec::new() };
        Ok(())
    }

    fn all<T: H5Type>(&self, names: &[String], rows: &Range<u64>) -> Result<Vec<Vec<T>>> {
        names.iter().map(|name| self.column(name, 0, rows)).collect()
    }

    fn at_all<T: H5Type>(
        &self,
        name: &str,
        positions: usize,
        rows: &Range<u64>,
    ) -> Result<Vec<Vec<T>>> {
        (0..positions).map(|position| self.column(name, position, rows)).collect()
    }

    fn column<T: H5Type>(&self, name: &str, position: usize, rows: &Range<u64>) -> Result<Vec<T>> {
        let Some(column) = self.columns.get(name) else {
            return Err(Fault::new(format!("the score file has no column '{name}'"))
                .file(&self.path)
                .advice("name it in [score] columns or copy, and score again")
                .input());
        };
        let rows = rows.start as usize..rows.end as usize;
        let read = if column.is_matrix {
            column.dataset.read_slice_1d::<T, _>((rows, position))
        } else {
            column.dataset.read_slice_1d::<T, _>(rows)
        };
        read.map(|values| values.into_raw_vec_and_offset().0)
            .map_err(|error| hdf5::read_fault(&self.path, &format!("{GROUP}/{name}"), &error))
    }
}

fn is_of_position(name: &str) -> bool {
    OF_POSITION.contains(&name) || name.starts_with("log_prob")
}

/// Reads a list from an attribute of JSON text; empty if it is absent.
fn list<T: for<'a> Deserialize<'a>>(
    path: &Path,
    group: &::hdf5::Group,
    name: &str,
) -> Result<Vec<T>> {
    let Some(text) = text_attribute(group, name) else { return Ok(Vec::new()) };
    serde_json::from_str(&text).map_err(|e| {
        Fault::new(format!("cannot understand the attribute '{name}'"))
            .file(path)
            .dataset(GROUP)
            .found(e)
            .input()
    })
}
