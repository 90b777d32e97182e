//! Reads the camera of a telescope from the description of the subarray.

use super::fields::{FieldType, field_of, numbers, unit_of};
use crate::data::hdf5;
use crate::data::images::Geometry;
use crate::error::{Fault, Result};
use ::hdf5::{Dataset, File};
use std::path::Path;

/// Group of the description of the subarray.
const INSTRUMENT: &str = "configuration/instrument";

/// Returns the camera of a telescope; `None` if the file does not describe it.
///
/// # Errors
/// `Input` if positions are not in m, or the number of pixels differs from that of the images.
pub(super) fn camera_of(
    path: &Path,
    file: &File,
    telescope: Option<i64>,
    pixels: usize,
) -> Result<Option<Geometry>> {
    let layout_name = format!("{INSTRUMENT}/subarray/layout");
    let layout = hdf5::optional_dataset(path, file, &layout_name)?;
    let (Some(telescope), Some(layout)) = (telescope, layout) else {
        return Ok(None);
    };
    let integers = |name: &str| numbers(path, &layout_name, &layout, name, FieldType::Integer);
    let (ids, cameras) = (integers("tel_id")?, integers("camera_index")?);
    let optics = integers("optics_index")?;
    let Some(row) = ids.iter().position(|id| (*id - telescope as f64).abs() < 0.5) else {
        return Ok(None);
    };
    let name = format!("{INSTRUMENT}/telescope/camera/geometry_{}", cameras[row] as i64);
    let Some(dataset) = hdf5::optional_dataset(path, file, &name)? else { return Ok(None) };
    let x_cm = positions_cm(path, &name, &dataset, "pix_x")?;
    let y_cm = positions_cm(path, &name, &dataset, "pix_y")?;
    if x_cm.len() != pixels {
        return Err(Fault::new("camera and images differ in the number of pixels")
            .file(path)
            .dataset(&name)
            .expected(format!("{pixels} pixels"))
            .found(format!("{} pixels", x_cm.len()))
            .input());
    }
    let focal_length_cm = focal_length(path, file, optics[row])?;
    Ok(Some(Geometry { x_cm, y_cm, focal_length_cm }))
}

/// Reads one coordinate of the pixels [cm], which the file has in m.
fn positions_cm(path: &Path, name: &str, dataset: &Dataset, field: &str) -> Result<Vec<f64>> {
    let unit = unit_of(dataset, field);
    if unit.as_deref().is_none_or(|unit| unit != "m") {
        return Err(Fault::new("wrong unit of pixel positions")
            .file(path)
            .dataset(name)
            .column(field)
            .expected("m")
            .found(unit.unwrap_or_else(|| "none".to_string()))
            .input());
    }
    let values = numbers(path, name, dataset, field, FieldType::Real)?;
    Ok(values.into_iter().map(|m| 100.0 * m).collect())
}

/// Returns the effective focal length, which maps the camera to the sky, else the equivalent one
/// [cm].
fn focal_length(path: &Path, file: &File, row: f64) -> Result<Option<f64>> {
    let name = format!("{INSTRUMENT}/telescope/optics");
    let Some(dataset) = hdf5::optional_dataset(path, file, &name)? else { return Ok(None) };
    for field in ["effective_focal_length", "equivalent_focal_length"] {
        if field_of(&dataset, field)?.is_none() {
            continue;
        }
        let lengths = numbers(path, &name, &dataset, field, FieldType::Real)?;
        let length = lengths.get(row as usize).copied().filter(|m| m.is_finite() && *m > 0.0);
        if length.is_some() {
            return Ok(length.map(|m| 100.0 * m));
        }
    }
    Ok(None)
}
