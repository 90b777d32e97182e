//! Columns that extraction adds to an event, in the order of the output.
//!
//! A quantity that is also in the Hillas tables of TAIGA has the name that `convert` uses.

use super::Options;
use crate::data::schema::columns::{ColumnSpec, ColumnType};
use crate::hillas::{AtPosition, Parameters, rotated, status};

/// A parameter that depends on the image alone: name, unit, value.
type Own = (&'static str, &'static str, fn(&ParametrisedImage) -> f64);

/// Parameters and islands of an image.
pub(crate) struct ParametrisedImage {
    pub parameters: Parameters,
    pub islands: u32,
    pub largest_share: f64,
}

/// Columns that depend on the image alone.
const OWN: [Own; 19] = [
    ("size", "p.e.", |i| i.parameters.size),
    ("length", "deg", |i| i.parameters.length),
    ("width", "deg", |i| i.parameters.width),
    ("xc", "deg", |i| i.parameters.x),
    ("yc", "deg", |i| i.parameters.y),
    ("axis", "deg", |i| i.parameters.axis_deg()),
    ("con1", "1", |i| i.parameters.con[0]),
    ("con2", "1", |i| i.parameters.con[1]),
    ("con3", "1", |i| i.parameters.con[2]),
    ("skewness_l", "1", |i| i.parameters.skewness),
    ("kurtosis", "1", |i| i.parameters.kurtosis),
    ("skewness_trans", "1", |i| i.parameters.skewness_across),
    ("kurtosis_trans", "1", |i| i.parameters.kurtosis_across),
    ("num_pixels", "1", |i| f64::from(i.parameters.pixels)),
    ("num_islands", "1", |i| f64::from(i.islands)),
    ("con_selected_island", "1", |i| i.largest_share),
    ("edge", "1", |i| f64::from(u8::from(i.parameters.is_at_edge()))),
    ("leakage", "1", |i| i.parameters.leakage),
    ("dist_center", "deg", |i| i.parameters.at([0.0, 0.0]).dist),
];

/// Columns that depend on the source; they exist only with a source position.
const AT_SOURCE: [(&str, &str); 8] = [
    ("dist", "deg"),
    ("alpha", "deg"),
    ("miss", "deg"),
    ("azwidth", "deg"),
    ("skewness", "1"),
    ("dist_anti", "deg"),
    ("alpha_anti", "deg"),
    ("alpha_center", "deg"),
];

/// Columns of the output.
#[derive(Debug, Clone)]
pub struct ColumnLayout {
    names: Vec<(String, &'static str)>,
    at_source: bool,
    positions: usize,
}

impl ColumnLayout {
    /// Returns the columns of images with or without a source position.
    pub fn new(options: &Options, at_source: bool) -> ColumnLayout {
        let positions = if at_source { options.positions } else { 0 };
        let own = OWN.iter().map(|(name, unit, _)| ((*name).to_string(), *unit));
        let mut names: Vec<(String, &'static str)> = own.collect();
        if at_source {
            names.extend(AT_SOURCE.iter().map(|(name, unit)| ((*name).to_string(), *unit)));
        } else {
            names.push(("alpha_center".to_string(), "deg"));
        }
        for k in 1..positions {
            names.push((format!("dist_off{k}"), "deg"));
            names.push((format!("alpha_off{k}"), "deg"));
        }
        ColumnLayout { names, at_source, positions }
    }

    /// Returns the number of columns.
    pub fn width(&self) -> usize {
        self.names.len()
    }

    /// Returns whether there is a column, or it is `status`.
    pub(crate) fn has(&self, name: &str) -> bool {
        name == "status" || self.names.iter().any(|(own, _)| own == name)
    }

    /// Returns the columns to write.
    pub(crate) fn specs(&self) -> impl Iterator<Item = ColumnSpec> {
        self.names
            .iter()
            .map(|(name, unit)| ColumnSpec::new(name.clone(), ColumnType::F32, Some(unit)))
    }

    /// Fills the row of one image and returns its status.
    pub(crate) fn fill(
        &self,
        image: &ParametrisedImage,
        source: Option<[f64; 2]>,
        row: &mut [f32],
    ) -> u32 {
        let mut status = image.parameters.status;
        let mut cells = row.iter_mut();
        let mut put = |value: f64| {
            if let Some(cell) = cells.next() {
                *cell = value as f32;
            }
        };
        OWN.iter().for_each(|(_, _, value)| put(value(image)));
        let mut at = |reference: [f64; 2]| position_at(&image.parameters, reference, &mut status);
        let center = at([0.0, 0.0]);
        if !self.at_source {
            put(center.alpha);
            return status;
        }
        let source = source.unwrap_or([f64::NAN; 2]);
        let on = at(source);
        let anti = at([-source[0], -source[1]]);
        for value in [
            on.dist,
            on.alpha,
            on.miss,
            on.azwidth,
            on.skewness,
            anti.dist,
            anti.alpha,
            center.alpha,
        ] {
            put(value);
        }
        for k in 1..self.positions {
            let off = at(rotated(source, k, self.positions));
            put(off.dist);
            put(off.alpha);
        }
        status
    }
}

/// Returns the parameters relative to a reference point, and sets its status bit.
#[inline]
fn position_at(parameters: &Parameters, reference: [f64; 2], status: &mut u32) -> AtPosition {
    let position = parameters.at(reference);
    if position.dist <= 0.0 {
        *status |= status::AT_REFERENCE;
    }
    position
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hillas::Camera;

    #[test]
    fn every_cell_has_the_value_of_its_column() {
        let camera = Camera::by_name("taiga-595").unwrap();
        let charge: Vec<f32> = (0..595).map(|i| 10.0 + (i * 31 % 17) as f32).collect();
        let kept: Vec<u16> = (21..33).collect();
        let parameters = Parameters::of(&camera, &charge, &kept);
        let image = ParametrisedImage { parameters, islands: 1, largest_share: 1.0 };
        for (at_source, positions) in [(false, 1), (true, 1), (true, 6)] {
            let options = Options { positions, ..Options::default() };
            let layout = ColumnLayout::new(&options, at_source);
            let mut row = vec![f32::NEG_INFINITY; layout.width()];
            let source = [1.0, -0.5];
            layout.fill(&image, at_source.then_some(source), &mut row);
            assert!(row.iter().all(|cell| *cell > f32::NEG_INFINITY), "{row:?}");
            let cell = |name: &str| {
                let place = layout.names.iter().position(|(own, _)| own == name);
                row[place.unwrap_or_else(|| panic!("no column {name}"))]
            };
            assert_eq!(cell("con2"), parameters.con[1] as f32);
            assert_eq!(cell("alpha_center"), parameters.at([0.0; 2]).alpha as f32);
            if at_source {
                assert_eq!(cell("alpha"), parameters.at(source).alpha as f32);
                assert_eq!(cell("dist_anti"), parameters.at([-1.0, 0.5]).dist as f32);
            }
            if positions == 6 {
                assert_eq!(cell("alpha_off3"), cell("alpha_anti"));
                assert_eq!(cell("dist_off5"), parameters.at(rotated(source, 5, 6)).dist as f32);
            }
        }
    }
}
