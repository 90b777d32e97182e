//! Plausible ranges of image parameters and directions of Cherenkov telescopes.
//!
//! Cameras of imaging Cherenkov telescopes have fields of view of 3.5 to 10 deg and pixels of
//! 0.06 to 0.36 deg. Public simulations have median widths of 0.06 (MAGIC), 0.08 to 0.10 (FACT)
//! and 0.15 deg (TAIGA) and median lengths of 0.12 to 0.40 deg. Values with a wrong factor of 10
//! are outside the ranges below. A schema can replace the ranges in its section `[plausible]`.
//! Counts are integers, so that findings do not depend on the sizes of the blocks of rows.

use crate::data::table::Table;
use serde::Deserialize;
use std::f64::consts::{FRAC_PI_2, PI, TAU};

/// Fraction of values outside the range above which there is a finding.
const MOST_OUTSIDE: f64 = 0.01;
/// Fewer values outside than this are attributed to chance, whatever their fraction.
const FEWEST_OUTSIDE: u64 = 3;
/// Smallest number of values with a meaningful median.
const FEWEST_ROWS: u64 = 20;
/// Number of images whose axes certainly span more than π degrees.
const AXIS_ROWS: u64 = 100;
/// Relative tolerance for angles that were rounded to text.
const ROUNDING: f64 = 1e-6;
/// Quantities that vary between images.
const VARYING: [&str; 8] =
    ["size", "width", "length", "dist", "alpha", "con2", "skewness", "kurtosis"];
/// Largest zenith angle, one degree beyond the horizon [deg].
const BELOW_HORIZON_DEG: f64 = 91.0;

/// Plausible values of a quantity, in its canonical unit. Absent parts are not checked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Plausible {
    /// Range of nearly all values.
    pub range: Option<[f64; 2]>,
    /// Range of the median. Below its lower end only positive values count, because an image on
    /// a line has width 0.
    pub median: Option<[f64; 2]>,
    pub direction: Option<Direction>,
}

/// Kinds of angles, by the range of the angle in radians.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// Full turn: azimuth, right ascension.
    Azimuth,
    /// Up to a right angle: zenith angle, elevation, declination.
    Zenith,
    /// Orientation of an axis in the camera, within half a turn.
    Axis,
    /// Angle between an axis and a direction, up to a right angle.
    Alpha,
    /// Not checked.
    None,
}

/// Finding about the values of a quantity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ImplausibleValues {
    /// The quantity as a whole is wrong. Otherwise a part of its rows is, or it may be correct.
    pub severe: bool,
    pub expected: String,
    pub found: String,
    pub advice: &'static str,
}

const WRONG_SCALE: &str = "check the unit of this column in the file (HDF5 attribute `units`) and its unit and factor under [quantities] of the schema; correct a copy of the schema, or widen its [plausible] if images are that large";
const CONSTANT: &str = "the column is not filled or contains a different quantity: inspect the file with `taiga-flow check`; scores of such events are meaningless";
const RADIANS: &str = "these values look like radians: check the unit of this column in the file (HDF5 attribute `units`), and correct the unit under [quantities] in a copy of the schema, or the file";
const DEGREES: &str = "these values look like degrees, declared as radians: check the unit of this column in the file (HDF5 attribute `units`), and correct the unit under [quantities] in a copy of the schema, or the file";

impl Plausible {
    /// Returns the plausible values of a quantity: the `own` ones of a schema, completed by the
    /// default ones for this name and canonical unit.
    pub(crate) fn of(own: Option<&Plausible>, name: &str, unit: &str) -> Plausible {
        let usual = usual(name, unit);
        let Some(own) = own else { return usual };
        Plausible {
            range: own.range.or(usual.range),
            median: own.median.or(usual.median),
            direction: own.direction.or(usual.direction),
        }
    }
}

/// Returns the default ranges for the name and unit of a quantity.
fn usual(name: &str, unit: &str) -> Plausible {
    let ranges = |range, median| Plausible { range: Some(range), median, direction: None };
    match name {
        "width" if unit == "deg" => ranges([0.0, 1.5], Some([0.005, 0.4])),
        "length" if unit == "deg" => ranges([0.0, 3.0], Some([0.02, 1.0])),
        // Simulated hadrons come from any direction in the field of view.
        "dist" | "dist_anti" if unit == "deg" => ranges([0.0, 10.0], Some([0.05, 6.0])),
        "dist_center" if unit == "deg" => ranges([0.0, 6.0], None),
        "xc" | "yc" | "cog_x" | "cog_y" | "source_x" | "source_y" if unit == "deg" => {
            ranges([-6.0, 6.0], None)
        }
        // If the column contains the logarithm of the size, it is below 7.
        "size" if unit == "p.e." => ranges([0.0, 1e8], Some([10.0, 1e7])),
        _ if unit == "deg" || unit == "rad" => {
            Plausible { direction: direction(name), ..Plausible::default() }
        }
        _ => Plausible::default(),
    }
}

/// Returns the kind of an angle, by its name.
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
        // Without a prefix these names may mean any angle.
        "fi" | "phi" if known && !body.is_empty() => Some(Direction::Azimuth),
        "tet" | "theta" if known && !body.is_empty() => Some(Direction::Zenith),
        _ => None,
    }
}

/// Counts of the values of one quantity.
#[derive(Debug, Clone)]
pub(crate) struct ValueTally {
    plausible: Plausible,
    unit: String,
    finite: u64,
    outside: u64,
    below: u64,   // positive, below the range of the median
    above: u64,   // above the range of the median
    largest: f64, // |value|
}

impl ValueTally {
    /// Starts the counts of a quantity; `own` are the plausible values of the schema.
    pub(crate) fn new(own: Option<&Plausible>, name: &str, unit: &str) -> ValueTally {
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

    /// Adds values; NaN and infinity are ignored.
    pub(crate) fn add(&mut self, values: &[f32]) {
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

    /// Returns the findings, the most severe first.
    pub(crate) fn findings(&self) -> Vec<ImplausibleValues> {
        let ranges = self.of_median().or_else(|| self.of_range());
        ranges.into_iter().chain(self.of_direction()).collect()
    }

    /// Returns the finding about the median.
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

    /// Returns the finding about the fraction of values outside the range.
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

    /// Returns the finding about the unit of an angle.
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
            |rows: &str| format!("|values| up to {:.4} {} in {rows}", self.largest, self.unit);
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

/// Returns the findings about columns of a table, with the names of the quantities.
pub(crate) fn findings<'a>(
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

/// Returns the finding about an image parameter with the same value in all images.
fn constant(name: &str, unit: &str, values: &[f32]) -> Option<ImplausibleValues> {
    let mut finite = values.iter().filter(|value| value.is_finite());
    let first = finite.next().filter(|_| VARYING.contains(&name))?;
    let rows = 1 + finite.clone().count() as u64;
    (rows >= FEWEST_ROWS && finite.all(|value| value.to_bits() == first.to_bits())).then(|| {
        ImplausibleValues {
            severe: false,
            expected: "values that differ from image to image".to_string(),
            found: format!("{first} {unit} in all {rows} rows examined"),
            advice: CONSTANT,
        }
    })
}

impl ImplausibleValues {
    /// Returns the finding about the quantity `name` as one line, with advice.
    pub(crate) fn line(&self, name: &str) -> String {
        format!("'{name}': expected {}, found {}; {}", self.expected, self.found, self.advice)
    }
}

#[cfg(test)]
mod tests;
