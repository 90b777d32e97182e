//! Writes folders of score files with source positions, as `score` does, or with any defect.

use hdf5::types::VarLenUnicode;
use hdf5::{Group, H5Type, Location};
use serde_json::json;
use std::path::{Path, PathBuf};

/// One score file; columns per position are (rows · positions), row by row.
#[derive(Debug, Clone)]
pub struct Scores {
    pub positions: Vec<f64>,
    pub threshold: f64,
    pub keys: Vec<(String, Vec<i64>)>,
    pub at_positions: Vec<(String, String, Vec<f32>)>, // name, unit
    pub status: Vec<u32>,
    pub copied: Vec<(String, String, Vec<f32>)>, // name, unit
    pub quality: Option<(Vec<String>, Vec<u32>)>,
    pub source_offset: Option<[f64; 2]>,
    pub model: String,
    pub input: String,
}

impl Scores {
    pub fn rows(&self) -> usize {
        self.status.len() / self.positions.len()
    }

    pub fn key(&mut self, name: &str) -> &mut Vec<i64> {
        &mut self.keys.iter_mut().find(|(known, _)| known == name).expect("a key").1
    }

    pub fn column(&mut self, name: &str) -> &mut Vec<f32> {
        let all = self.at_positions.iter_mut().chain(&mut self.copied);
        &mut all.into_iter().find(|(known, _, _)| known == name).expect("a column").2
    }

    /// Writes the file; `pass` follows from score, status and threshold.
    pub fn write(&self, path: &Path) {
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        let file = hdf5::File::create(path).expect("a file");
        let (rows, many) = (self.rows(), self.positions.len());
        text(&file, "format", "taiga-flow-scores");
        text(&file, "model_blake3", &self.model);
        text(&file, "input_blake3", &blake3::hash(self.input.as_bytes()).to_hex());
        text(&file, "input", &self.input);
        // Until version 3, the energy was that at the source.
        let is_old = self.copied.iter().any(|(name, _, _)| name == "energy");
        integer(&file, "version", if is_old { 2 } else { 3 });
        integer(&file, "complete", 1);
        integer(&file, "rows", rows as i64);
        if let Some(offset) = self.source_offset {
            numbers(&file, "source_offset", &offset);
        }
        let group = file.create_group("scores").expect("a group");
        numbers(&group, "positions", &self.positions);
        let points = json!([{"name": "two-sigma", "threshold": self.threshold, "column": "score"}]);
        text(&group, "working_points", &points.to_string());
        for (name, values) in &self.keys {
            column(&group, name, values, None);
        }
        for (name, unit, values) in &self.at_positions {
            let dataset = matrix(&group, name, values, many);
            text(&dataset, "units", unit);
        }
        matrix(&group, "status", &self.status, many);
        let scores = self.at_positions.iter().find(|(name, _, _)| name == "score");
        if let Some((_, _, scores)) = scores {
            let passes = scores.iter().zip(&self.status).map(|(score, status)| {
                u8::from(*status == 0 && f64::from(*score) >= self.threshold)
            });
            matrix(&group, "pass", &passes.collect::<Vec<u8>>(), many);
        }
        for (name, unit, values) in &self.copied {
            column(&group, name, values, Some(unit));
        }
        if let Some((names, bits)) = &self.quality {
            text(&group, "quality_bits", &serde_json::to_string(names).expect("JSON"));
            column(&group, "quality", bits, None);
        }
    }
}

/// Writes files below a folder, and the manifest that lists them.
pub fn write_folder(folder: &Path, files: &[(&str, &Scores)]) -> PathBuf {
    for (name, scores) in files {
        scores.write(&folder.join(name));
    }
    let listed: Vec<serde_json::Value> = files
        .iter()
        .map(|(name, scores)| {
            json!({
                "output": name,
                "rows": scores.rows(),
                "input_blake3": blake3::hash(scores.input.as_bytes()).to_hex().to_string(),
                "output_blake3": crate::support::hash(&folder.join(name)),
                "status": {},
            })
        })
        .collect();
    let manifest = json!({
        "format": "taiga-flow-scores 1", "model_blake3": files[0].1.model, "files": listed,
        "rows": files.iter().map(|(_, s)| s.rows()).sum::<usize>(), "failed": {},
    });
    std::fs::write(folder.join("manifest.json"), manifest.to_string()).expect("a manifest");
    folder.to_path_buf()
}

fn column<T: H5Type>(group: &Group, name: &str, values: &[T], unit: Option<&str>) {
    let dataset = group.new_dataset_builder().with_data(values).create(name).expect("a column");
    if let Some(unit) = unit {
        text(&dataset, "units", unit);
    }
}

fn matrix<T: H5Type>(group: &Group, name: &str, values: &[T], many: usize) -> hdf5::Dataset {
    let rows = values.len() / many;
    let array = ndarray::ArrayView2::from_shape((rows, many), values).expect("a shape");
    group
        .new_dataset::<T>()
        .shape((rows, many))
        .chunk((rows.clamp(1, 65_536), 1))
        .shuffle()
        .lzf()
        .fletcher32()
        .create(name)
        .and_then(|dataset| dataset.write(array).map(|()| dataset))
        .expect("a column")
}

fn text(place: &Location, name: &str, value: &str) {
    let value: VarLenUnicode = value.parse().expect("a text");
    let attribute = place.new_attr::<VarLenUnicode>().create(name).expect("an attribute");
    attribute.write_scalar(&value).expect("an attribute");
}

fn integer(place: &Location, name: &str, value: i64) {
    place
        .new_attr::<i64>()
        .create(name)
        .and_then(|a| a.write_scalar(&value))
        .expect("an attribute");
}

fn numbers(place: &Location, name: &str, values: &[f64]) {
    let attribute = place.new_attr::<f64>().shape(values.len()).create(name);
    attribute.and_then(|a| a.write_raw(values)).expect("an attribute");
}
