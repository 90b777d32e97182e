//! Plausible values of quantities: what the images and directions of Cherenkov telescopes can be.
//!
//! Cameras of imaging Cherenkov telescopes have fields of view of 3.5 to 10 deg and pixels of
//! 0.06 to 0.36 deg. Public simulations have median widths of 0.06 (MAGIC), 0.08 to 0.10 (FACT)
//! and 0.15 deg (TAIGA) and median lengths of 0.12 to 0.40 deg; a wrong factor of 10 leaves the
//! ranges below. A schema replaces them in its section `[plausible]`. Counts are integers, so
//! that findings do not depend on how the rows were read.

use crate::data::table::Table;
use serde::Deserialize;
use std::f64::consts::{FRAC_PI_2, PI, TAU};

/// More of the values than this outside the range are a finding.
const MOST_OUTSIDE: f64 = 0.01;
/// So few values outside are chance, whatever their share.
const FEWEST_OUTSIDE: u64 = 3;
/// A median is of so many values at least.
const FEWEST_ROWS: u64 = 20;
/// Axes of so many images span more than π degrees.
const AXIS_ROWS: u64 = 100;
/// Rounding of angles that were written as text.
const ROUNDING: f64 = 1e-6;
/// Quantities that differ from image to image.
const VARYING: [&str; 8] =
    ["size", "width", "length", "dist", "alpha", "con2", "skewness", "kurtosis"];
/// A zenith angle beyond the horizon [deg].
const BELOW_HORIZON_DEG: f64 = 91.0;

/// What values of a quantity can be, in its canonical unit. Absent parts are not checked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Plausible {
    /// Nearly all values.
    pub range: Option<[f64; 2]>,
    /// The median; below its lower end only positive values count, as width 0 is an image on a
    /// line.
    pub median: Option<[f64; 2]>,
    pub direction: Option<Direction>,
}

/// Kinds of angles by the range that radians of them would have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// A whole turn: azimuth, right ascension.
    Azimuth,
    /// Half a turn: zenith angle, elevation, declination.
    Zenith,
    /// Of an axis in the camera, all over half a turn.
    Axis,
    /// Between an axis and a direction, from 0 to a right angle.
    Alpha,
    /// Not checked.
    None,
}

/// What is wrong with the values of a quantity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImplausibleValues {
    /// The quantity as a whole is wrong; else a part of its rows, or it may be right.
    pub severe: bool,
    pub expected: String,
    pub found: String,
    pub advice: &'static str,
}

const WRONG_SCALE: &str = "check in which unit the file holds this column (in HDF5 its attribute `units`), and the unit and factor under [quantities] of the schema; correct a copy of the schema, or widen its [plausible] where images are that large";
const CONSTANT: &str = "the column is not filled, or holds another quantity: look at the file with `taiga-flow check`; scores of such events mean nothing";
const RADIANS: &str = "these look like radians: check in which unit the file holds this column (in HDF5 its attribute `units`), and correct the unit under [quantities] in a copy of the schema, or the file";
const DEGREES: &str = "these look like degrees that are taken for radians: check in which unit the file holds this column (in HDF5 its attribute `units`), and correct the unit under [quantities] in a copy of the schema, or the file";

impl Plausible {
    /// Of a quantity of this name and canonical unit: what a schema says, else by its name.
    pub fn of(own: Option<&Plausible>, name: &str, unit: &str) -> Plausible {
        let usual = usual(name, unit);
        let Some(own) = own else { return usual };
        Plausible {
            range: own.range.or(usual.range),
            median: own.median.or(usual.median),
            direction: own.direction.or(usual.direction),
        }
    }
}

/// Ranges by the name and unit of a quantity.
fn usual(name: &str, unit: &str) -> Plausible {
    let ranges = |range, median| Plausible { range: Some(range), median, direction: None };
    match name {
        "width" if unit == "deg" => ranges([0.0, 1.5], Some([0.005, 0.4])),
        "length" if unit == "deg" => ranges([0.0, 3.0], Some([0.02, 1.0])),
        // Simulated hadrons have their source anywhere in the field of view.
        "dist" | "dist_anti" if unit == "deg" => ranges([0.0, 10.0], Some([0.05, 6.0])),
        "dist_center" if unit == "deg" => ranges([0.0, 6.0], None),
        "xc" | "yc" | "cog_x" | "cog_y" | "source_x" | "source_y" if unit == "deg" => {
            ranges([-6.0, 6.0], None)
        }
        // A logarithm of the size is below 7.
        "size" if unit == "p.e." => ranges([0.0, 1e8], Some([10.0, 1e7])),
        _ if unit == "deg" || unit == "rad" => {
            Plausible { direction: direction(name), ..Plausible::default() }
        }
        _ => Plausible::default(),
    }
}

/// The kind of an angle, by its name.
fn direction(name: &str) -> Option<Direction> {
    const BODIES: [&str; 10] = [
        "tel",
        "telescope",
        "source",
        "pointing",
        "position",
        "mc",
        "true",
        "shower",
        "array",
        "event",
    ];
    if ["alpha", "alpha_anti", "alpha_center"].contains(&name) {
        return Some(Direction::Alpha);
    }
    if ["axis", "delta", "psi"].contains(&name) {
        return Some(Direction::Axis);
    }
    let (body, angle) = name.rsplit_once('_').unwrap_or(("", name));
    let known = body.is_empty() || body.split('_').any(|word| BODIES.contains(&word));
    match angle {
        "az" | "azimuth" | "ra" if known => Some(Direction::Azimuth),
        "el" | "elevation" | "alt" | "altitude" | "zd" | "zenith" | "dec" if known => {
            Some(Direction::Zenith)
        }
        // Alone these may be any angle.
        "fi" | "phi" if known && !body.is_empty() => Some(Direction::Azimuth),
        "tet" | "theta" if known && !body.is_empty() => Some(Direction::Zenith),
        _ => None,
    }
}

/// Counts of the values of one quantity.
#[derive(Debug, Clone)]
pub struct ValueTally {
    plausible: Plausible,
    unit: String,
    finite: u64,
    outside: u64,
    below: u64,   // positive, below the median's range
    above: u64,   // above the median's range
    largest: f64, // |value|
}

impl ValueTally {
    /// Of a quantity; `own` is what a schema says of it.
    pub fn new(own: Option<&Plausible>, name: &str, unit: &str) -> ValueTally {
        ValueTally {
            plausible: Plausible::of(own, name, unit),
            unit: unit.to_string(),
            finite: 0,
            outside: 0,
            below: 0,
            above: 0,
            largest: 0.0,
        }
    }

    pub fn add(&mut self, values: &[f32]) {
        let Plausible { range, median, direction } = self.plausible;
        if range.is_none() && median.is_none() && direction.is_none() {
            return;
        }
        for value in values.iter().map(|value| f64::from(*value)).filter(|value| value.is_finite())
        {
            self.finite += 1;
            self.largest = self.largest.max(value.abs());
            if let Some([low, high]) = range {
                self.outside += u64::from(value < low || value > high);
            }
            if let Some([low, high]) = median {
                self.below += u64::from(value > 0.0 && value < low);
                self.above += u64::from(value > high);
            }
        }
    }

    /// What is wrong, the worst first.
    pub fn findings(&self) -> Vec<ImplausibleValues> {
        let ranges = self.of_median().or_else(|| self.of_range());
        ranges.into_iter().chain(self.of_direction()).collect()
    }

    fn of_median(&self) -> Option<ImplausibleValues> {
        let [low, high] = self.plausible.median?;
        let (count, side) = if 2 * self.above > self.finite {
            (self.above, format!("above {high}"))
        } else if 2 * self.below > self.finite {
            (self.below, format!("below {low}"))
        } else {
            return None;
        };
        (self.finite >= FEWEST_ROWS).then(|| ImplausibleValues {
            severe: true,
            expected: format!("a median from {low} to {high} {}", self.unit),
            found: format!("{count} of {} values {side} {}", self.finite, self.unit),
            advice: WRONG_SCALE,
        })
    }

    fn of_range(&self) -> Option<ImplausibleValues> {
        let [low, high] = self.plausible.range?;
        let many = self.outside as f64 > MOST_OUTSIDE * self.finite as f64;
        (many && self.outside >= FEWEST_OUTSIDE).then(|| ImplausibleValues {
            severe: false,
            expected: format!("values from {low} to {high} {}", self.unit),
            found: format!("{} of {} values outside", self.outside, self.finite),
            advice: WRONG_SCALE,
        })
    }

    fn of_direction(&self) -> Option<ImplausibleValues> {
        let direction = self.plausible.direction?;
        let degrees = self.unit == "deg";
        let (radians, most, rows) = match direction {
            Direction::Azimuth => (TAU, if degrees { 360.0 } else { TAU }, 1),
            Direction::Zenith => (
                FRAC_PI_2,
                if degrees { BELOW_HORIZON_DEG } else { BELOW_HORIZON_DEG.to_radians() },
                1,
            ),
            Direction::Axis => (PI, if degrees { 360.0 } else { TAU }, AXIS_ROWS),
            Direction::Alpha => (FRAC_PI_2, if degrees { 90.0 } else { FRAC_PI_2 }, AXIS_ROWS),
            Direction::None => return None,
        };
        let found =
            |what: &str| format!("|values| up to {:.4} {} in {what}", self.largest, self.unit);
        if self.largest > most * (1.0 + ROUNDING) {
            return Some(ImplausibleValues {
                severe: false,
                expected: format!("a direction of at most {most:.4} {}", self.unit),
                found: found(&format!("{} rows", self.finite)),
                advice: DEGREES,
            });
        }
        let small = self.largest > 0.0 && self.largest <= radians * (1.0 + ROUNDING);
        (degrees && small && self.finite >= rows).then(|| ImplausibleValues {
            severe: direction == Direction::Alpha,
            expected: "a direction in deg".to_string(),
            found: found(&format!("all {} rows", self.finite)),
            advice: RADIANS,
        })
    }
}

/// Returns what is wrong with columns of a table, by quantity.
pub fn findings<'a>(
    table: &'a Table,
    names: &'a [String],
    columns: &'a [Vec<f32>],
) -> impl Iterator<Item = (&'a String, ImplausibleValues)> {
    names.iter().zip(columns).flat_map(|(name, values)| {
        let unit = table.unit(name).unwrap_or_default();
        let mut tally = ValueTally::new(table.schema().plausible.get(name), name, unit);
        tally.add(values);
        let constant = constant(name, unit, values);
        tally.findings().into_iter().chain(constant).map(move |finding| (name, finding))
    })
}

/// Returns a finding on a quantity of images that has one value in all of them.
fn constant(name: &str, unit: &str, values: &[f32]) -> Option<ImplausibleValues> {
    let mut finite = values.iter().filter(|value| value.is_finite());
    let first = finite.next().filter(|_| VARYING.contains(&name))?;
    let rows = 1 + finite.clone().count() as u64;
    (rows >= FEWEST_ROWS && finite.all(|value| value.to_bits() == first.to_bits())).then(|| {
        ImplausibleValues {
            severe: false,
            expected: "values that differ from image to image".to_string(),
            found: format!("{first} {unit} in all {rows} rows that were looked at"),
            advice: CONSTANT,
        }
    })
}

impl ImplausibleValues {
    /// The finding as one line on the quantity `name`, with advice where to check.
    pub fn line(&self, name: &str) -> String {
        format!("'{name}': expected {}, found {}; {}", self.expected, self.found, self.advice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Schema;

    fn findings(name: &str, values: &[f32]) -> Vec<ImplausibleValues> {
        let mut tally = ValueTally::new(None, name, "deg");
        values.chunks(7).for_each(|values| tally.add(values));
        tally.findings()
    }

    #[test]
    fn widths_ten_times_too_large_are_severe() {
        let widths: Vec<f32> = (0..200).map(|i| 0.03 + 0.001 * i as f32).collect();
        assert_eq!(findings("width", &widths), []);
        for factor in [10.0, 17.0, 0.017_453] {
            let wrong: Vec<f32> = widths.iter().map(|width| width * factor).collect();
            let found = findings("width", &wrong);
            assert!(found.len() == 1 && found[0].severe, "{factor}: {found:?}");
        }
        assert_eq!(findings("width", &[0.6; 19]), [], "too few for a median");
    }

    #[test]
    fn images_on_a_line_are_no_finding() {
        let mut widths = vec![0.0; 150];
        widths.extend([0.1; 50]);
        assert_eq!(findings("width", &widths), []);
    }

    #[test]
    fn more_than_one_percent_outside_is_a_finding() {
        let with = |count: usize| {
            let mut lengths = vec![0.3; 1000 - count];
            lengths.extend(vec![3.5; count]);
            findings("length", &lengths)
        };
        assert_eq!(with(10), []);
        let found = with(11);
        assert!(found.len() == 1 && !found[0].severe, "{found:?}");
        assert_eq!(found[0].found, "11 of 1000 values outside");
        assert_eq!(findings("length", &[0.3, 3.5, 3.5]), [], "chance");
    }

    #[test]
    fn image_quantity_of_one_value_is_a_finding() {
        let mut widths = vec![0.12_f32; 400];
        widths[7] = f32::NAN;
        let found = constant("width", "deg", &widths).unwrap();
        assert_eq!(found.found, "0.12 deg in all 399 rows that were looked at");
        assert!(!found.severe);
        assert_eq!(constant("tel_el", "deg", &widths), None, "of a run");
        assert_eq!(constant("width", "deg", &widths[8..20]), None, "too few");
        widths[8] = 0.13;
        assert_eq!(constant("width", "deg", &widths), None);
    }

    #[test]
    fn directions_in_the_other_unit_are_found() {
        let advice = |name: &str, values: &[f32]| -> Option<&'static str> {
            findings(name, values).first().map(|finding| finding.advice)
        };
        assert_eq!(advice("tel_tet", &[0.5, 0.61]), Some(RADIANS));
        assert_eq!(advice("tel_fi", &[3.1]), Some(RADIANS));
        assert_eq!(advice("zenith", &[0.35; 5]), Some(RADIANS));
        assert_eq!(advice("tel_tet", &[2005.4]), Some(DEGREES));
        assert_eq!(advice("tel_az", &[-2005.4, 10.0]), Some(DEGREES));
        for (name, values) in [
            ("tel_tet", [0.0, 0.0]), // not filled
            ("tel_tet", [5.0, 35.0]),
            ("tel_fi", [0.0, 359.0]),
            ("zenith", [6.8, 10.0]),
            ("tel_el", [55.0, 56.0]),
            ("theta", [0.1, 0.2]), // an angle between directions
            ("alpha", [0.1, 0.2]),
            ("width", [0.1, 0.2]),
            ("delta_ra", [0.1, 0.2]),
            ("axis", [0.1, 0.2]), // two rows
        ] {
            assert_eq!(advice(name, &values), None, "{name}");
        }
        let alphas: Vec<f32> = (0..100).map(|i| 0.9 * i as f32).collect();
        assert_eq!(advice("alpha", &alphas), None);
        let radians: Vec<f32> = alphas.iter().map(|alpha| alpha.to_radians()).collect();
        let found = findings("alpha", &radians);
        assert!(found.len() == 1 && found[0].severe && found[0].advice == RADIANS, "{found:?}");
        assert_eq!(advice("alpha", &radians[..99]), None);
        let axes: Vec<f32> = (0..100).map(|i| -1.5 + 0.03 * i as f32).collect();
        assert_eq!(advice("axis", &axes), Some(RADIANS));
    }

    #[test]
    fn log_sizes_and_radian_distances_are_severe() {
        let severe = |name: &str, unit: &str, values: &[f32]| {
            let mut tally = ValueTally::new(None, name, unit);
            tally.add(values);
            tally.findings().iter().any(|finding| finding.severe)
        };
        let sizes: Vec<f32> = (0..40).map(|i| 60.0 * 1.2_f32.powi(i)).collect();
        let logarithms: Vec<f32> = sizes.iter().map(|size| size.log10()).collect();
        assert!(!severe("size", "p.e.", &sizes));
        assert!(severe("size", "p.e.", &logarithms));
        assert!(!severe("size", "1", &logarithms), "another quantity of this name");
        let distances: Vec<f32> = (0..40).map(|i| 0.04 * i as f32).collect();
        assert!(!severe("dist", "deg", &distances));
        let radians: Vec<f32> = distances.iter().map(|dist| dist.to_radians()).collect();
        assert!(severe("dist", "deg", &radians));
    }

    #[test]
    fn a_schema_replaces_ranges() {
        let text = "name = \"x\"\ngroup = \"e\"\nopen = true\n\
                    [plausible]\nwidth = { median = [0, 5] }\ntel_tet = { direction = \"none\" }\n";
        let schema = Schema::parse(text, "own.toml").unwrap();
        let width = Plausible::of(schema.plausible.get("width"), "width", "deg");
        assert_eq!((width.range, width.median), (Some([0.0, 1.5]), Some([0.0, 5.0])));
        let mut tally = ValueTally::new(schema.plausible.get("tel_tet"), "tel_tet", "deg");
        tally.add(&[0.5]);
        assert_eq!(tally.findings(), []);
        let text =
            "name = \"x\"\ngroup = \"e\"\nopen = true\n[plausible]\nwidth = { range = [2, 1] }\n";
        let error = Schema::parse(text, "own.toml").unwrap_err();
        assert_eq!(error.exit_code(), 2);
    }
}
