//! Camera images of the best candidates.
//!
//! A score file has the relative path of its input, which has that of the file of images it was
//! extracted from, with the same rows. The image of a candidate is therefore the same row of the
//! file with the same name. If keys of both differ, the picture is left out with a warning. Pictures
//! that cannot be read do not fail the report.

use crate::data::images::{ImageBlock, ImageFile};
use crate::error::{Fault, Result};
use crate::hillas::{Camera, FOCAL_LENGTH_CM};
use crate::season::counting::candidates::Candidate;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Most pictures of a report.
const MOST_PICTURES: usize = 24;
/// Images read at a time.
const TOGETHER: usize = 1024;
const EXTENSIONS: [&str; 4] = ["h5", "hdf5", "hdf", "txt"];

/// Image of a candidate.
#[derive(Debug, Clone, PartialEq)]
pub struct Picture {
    /// Index of the candidate.
    pub candidate: usize,
    pub x_deg: Vec<f64>,
    pub y_deg: Vec<f64>,
    pub pitch_deg: f64,
    pub charge: Vec<f32>, // (pixels) [p.e.]
}

/// Reads pictures of the first candidates from the files below `folder`; returns them with warnings
/// of missing ones.
pub fn pictures(candidates: &[Candidate], folder: &Path) -> (Vec<Picture>, Vec<String>) {
    let mut of_file: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (index, candidate) in candidates.iter().take(MOST_PICTURES).enumerate() {
        of_file.entry(&candidate.file).or_default().push(index);
    }
    let (mut found, mut missing) = (Vec::new(), Vec::new());
    for (name, wanted) in of_file {
        match read(candidates, &wanted, &folder.join(name)) {
            Ok(pictures) => {
                if pictures.len() < wanted.len() {
                    missing
                        .push(format!("not all candidates of {name} have an image of their keys"));
                }
                found.extend(pictures);
            }
            Err(error) => missing.push(format!("no images of the candidates of {name}: {error}")),
        }
    }
    found.sort_by_key(|picture| picture.candidate);
    (found, missing)
}

/// Returns the file of images at a path, which may have a different extension.
fn file_at(path: &Path) -> Result<PathBuf> {
    let known = EXTENSIONS.map(|extension| path.with_extension(extension));
    let found = known.into_iter().find(|path| path.is_file());
    found.ok_or_else(|| Fault::new("file not found").file(path).input())
}

fn read(candidates: &[Candidate], wanted: &[usize], path: &Path) -> Result<Vec<Picture>> {
    let path = file_at(path)?;
    let file = ImageFile::open(&path, None)?;
    let Some(set) = file.sets().first().filter(|_| file.sets().len() == 1) else {
        return Err(Fault::new("not one set of images").file(&path).input());
    };
    let Some(geometry) = &set.geometry else {
        return Err(Fault::new("the file does not say where the pixels are").file(&path).input());
    };
    let focal = geometry.focal_length_cm.unwrap_or(FOCAL_LENGTH_CM);
    let camera = Camera::new(geometry.x_cm.clone(), geometry.y_cm.clone(), focal)?;
    let places = (0..camera.pixels()).map(|pixel| camera.position_deg(pixel));
    let (x_deg, y_deg): (Vec<f64>, Vec<f64>) = places.map(|[x, y]| (x, y)).unzip();
    let last = wanted.iter().map(|index| candidates[*index].row).max().unwrap_or(0);
    let mut reader = file.reader(0)?;
    let (mut block, mut buffer, mut found) = (ImageBlock::default(), Vec::new(), Vec::new());
    let mut first = 0;
    while first <= last && reader.next(TOGETHER, &mut block)? {
        let rows = first..first + block.rows as u64;
        for index in wanted.iter().copied().filter(|i| rows.contains(&candidates[*i].row)) {
            let row = (candidates[index].row - first) as usize;
            if has_keys_of(&candidates[index], &set.keys, &block, row) {
                found.push(Picture {
                    candidate: index,
                    x_deg: x_deg.clone(),
                    y_deg: y_deg.clone(),
                    pitch_deg: camera.pitch_deg(),
                    charge: block.charge.image(row, set.pixels, &mut buffer).to_vec(),
                });
            }
        }
        first = rows.end;
    }
    Ok(found)
}

/// Returns whether the common keys agree; without common keys the event cannot be identified.
fn has_keys_of(candidate: &Candidate, names: &[String], block: &ImageBlock, row: usize) -> bool {
    let value = |name: &String| candidate.keys.iter().find(|(known, _)| known == name);
    let both = names.iter().enumerate().filter_map(|(k, name)| Some((k, value(name)?.1)));
    let agree: Vec<bool> = both.map(|(k, value)| block.keys[k][row] == value).collect();
    !agree.is_empty() && agree.into_iter().all(|same| same)
}
