//! Standard cuts of TAIGA for one telescope, as a baseline on the evaluated rows.

use crate::data::schema::canonical_unit;
use crate::data::table::Table;
use crate::dataset::source::Source;
use crate::error::{Fault, Result};
use crate::hillas::{RelativePosition, disp, theta2};

pub const NAME: &str = "TAIGA's standard cuts";
const NEEDED: [&str; 4] = ["size", "dist", "width", "length"];
const SHAPE: &str = "size > 120 p.e., 0.36 < dist < 1.44 deg, 0.024 < width < 0.068 log10(size) − \
                     0.047 deg, length < 0.145 log10(size) deg";
const MOST_THETA2: f64 = 0.05; // deg²

/// Cuts on a set of files.
pub struct Cuts {
    theta2: Theta2,
}

/// Source of the squared angle to the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Theta2 {
    /// A column of the files.
    Column,
    /// DISP, from alpha: the nearer one of two points.
    Disp,
    /// Unknown, without a cut.
    Unknown,
}

impl Cuts {
    /// Returns the cuts that all files support.
    ///
    /// # Errors
    /// An input error where a file lacks size, dist, width or length, or has them in other units.
    pub fn new(sources: &[Source]) -> Result<Cuts> {
        let (mut column, mut alpha) = (true, true);
        for source in sources {
            let table = Table::open(&source.path, &source.schema)?;
            let known = table.quantities();
            let has = |name: &str| known.contains(&name);
            if let Some(name) = NEEDED.iter().find(|name| !has(name)) {
                return Err(Fault::new("the standard cuts need a quantity that is not there")
                    .file(&source.path)
                    .column(*name)
                    .expected(NEEDED.join(", "))
                    .advice("evaluate without --baseline cuts")
                    .input());
            }
            for name in NEEDED.into_iter().chain(["alpha"]).filter(|name| has(name)) {
                let canonical = canonical_unit(name).unwrap_or("1");
                let unit = table.unit(name).unwrap_or(canonical);
                if unit != canonical {
                    return Err(Fault::new("the standard cuts need another unit")
                        .file(&source.path)
                        .column(name)
                        .expected(canonical)
                        .found(unit)
                        .advice("convert the column in a schema file (see configs/schema)")
                        .input());
                }
            }
            column &= has("theta2");
            alpha &= has("alpha");
        }
        let theta2 = match (column, alpha) {
            (true, _) => Theta2::Column,
            (false, true) => Theta2::Disp,
            (false, false) => Theta2::Unknown,
        };
        Ok(Cuts { theta2 })
    }

    /// Returns the quantities that the cuts read, in the order of [`Cuts::passes`].
    pub fn quantities(&self) -> Vec<&'static str> {
        let more = match self.theta2 {
            Theta2::Column => Some("theta2"),
            Theta2::Disp => Some("alpha"),
            Theta2::Unknown => None,
        };
        NEEDED.into_iter().chain(more).collect()
    }

    /// Returns whether values of [`Cuts::quantities`] pass; values that are not finite do not.
    pub fn passes(&self, value: impl Fn(usize) -> f64) -> bool {
        let [size, dist, width, length] = [0, 1, 2, 3].map(&value);
        let log_size = libm::log10(size);
        let shape = size > 120.0
            && dist > 0.36
            && dist < 1.44
            && width > 0.024
            && width < 0.068 * log_size - 0.047
            && length < 0.145 * log_size;
        shape
            && match self.theta2 {
                Theta2::Unknown => true,
                Theta2::Column => value(4) < MOST_THETA2,
                Theta2::Disp => {
                    let alpha = value(4).to_radians();
                    let (miss, along) = (dist * libm::sin(alpha), dist * libm::cos(alpha));
                    let seen = RelativePosition { dist, miss: miss.abs(), along };
                    theta2(&seen, disp(size, width, length, dist), None) < MOST_THETA2
                }
            }
    }

    /// Returns the cuts as text.
    pub fn text(&self) -> String {
        let theta2 = match self.theta2 {
            Theta2::Column => ", θ² < 0.05 deg²",
            Theta2::Disp => ", θ² < 0.05 deg² by DISP from alpha",
            Theta2::Unknown => "; θ² is not known and not cut on",
        };
        format!("{SHAPE}{theta2}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn standard_cuts_have_the_stated_bounds() {
        let shape = Cuts { theta2: Theta2::Unknown };
        // At size 1000 width lies below 0.157 and length below 0.435.
        let good = [1000.0, 0.9, 0.1, 0.3];
        let passes = |at: usize, x: f64| {
            let mut values = good;
            values[at] = x;
            shape.passes(|i| values[i])
        };
        assert!(passes(0, 1000.0));
        for (at, inside, outside) in [
            (1, 0.361, 0.359),
            (1, 1.439, 1.441),
            (2, 0.0241, 0.0239),
            (2, 0.156_9, 0.157_1),
            (3, 0.434_9, 0.435_1),
        ] {
            assert!(passes(at, inside) && !passes(at, outside), "{at} {inside}");
            assert!(!passes(at, f64::NAN), "{at}");
        }
        let small = |size: f64| shape.passes(|i| [size, 0.9, 0.05, 0.2][i]);
        assert!(small(121.0) && !small(119.0));
        // DISP of 1.3 · (1 − ⅓) at dist 0.8666: on the source at alpha 0, off it at 30 deg.
        let disp = Cuts { theta2: Theta2::Disp };
        let at = |alpha: f64| disp.passes(|i| [1000.0, 0.8666, 0.1, 0.3, alpha][i]);
        assert!(at(0.0) && at(14.0) && !at(16.0) && !at(-30.0));
        let column = Cuts { theta2: Theta2::Column };
        assert!(column.passes(|i| [1000.0, 0.9, 0.1, 0.3, 0.049][i]));
        assert!(!column.passes(|i| [1000.0, 0.9, 0.1, 0.3, 0.051][i]));
    }
}
