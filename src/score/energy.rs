//! Look-up table of the energy by size and dist.
//!
//! The TOML file has ascending `log10_size` [p.e.] and `dist` [deg], and `log10_energy` [TeV] with
//! a row per size and a column per dist. Values between the points are bilinear. Outside of the
//! points, and where a corner is NaN, the energy is NaN.

use crate::bounded;
use crate::config::parse_toml;
use crate::error::{Fault, Result};
use serde::Deserialize;
use std::path::Path;

/// Largest table read.
const LARGEST_FILE: u64 = 16 << 20;

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct EnergyTable {
    log10_size: Vec<f64>,
    dist: Vec<f64>,
    log10_energy: Vec<Vec<f64>>, // (sizes, dists)
    /// blake3 of the file, part of the hash of the settings.
    #[serde(skip)]
    pub blake3: String,
}

impl EnergyTable {
    pub(crate) fn load(path: &Path) -> Result<EnergyTable> {
        let unreadable = |e: &dyn std::fmt::Display| {
            Fault::new("cannot read the energy table").file(path).found(e).usage()
        };
        let text = bounded::read_text(path, LARGEST_FILE).map_err(|e| unreadable(&e))?;
        EnergyTable::parse(&text).map_err(|e| e.in_file(path))
    }

    fn parse(text: &str) -> Result<EnergyTable> {
        let mut table: EnergyTable = parse_toml(text)?;
        for (name, axis) in [("log10_size", &table.log10_size), ("dist", &table.dist)] {
            let ascending = axis.windows(2).all(|pair| pair[0] < pair[1]);
            if axis.len() < 2 || !ascending || axis.iter().any(|x| !x.is_finite()) {
                return Err(Fault::new("not an axis of an energy table")
                    .column(name)
                    .expected("two or more ascending numbers")
                    .usage());
            }
        }
        let (sizes, dists) = (table.log10_size.len(), table.dist.len());
        let rows = &table.log10_energy;
        if rows.len() != sizes || rows.iter().any(|row| row.len() != dists) {
            return Err(Fault::new("the energy table does not have the shape of its axes")
                .column("log10_energy")
                .expected(format!("{sizes} rows of {dists}"))
                .found(format!("{} rows", rows.len()))
                .usage());
        }
        table.blake3 = blake3::hash(text.as_bytes()).to_hex().to_string();
        Ok(table)
    }

    /// Returns the energy [TeV] at a size [p.e.] and dist [deg]; NaN outside of the table.
    pub(crate) fn energy(&self, size: f64, dist: f64) -> f64 {
        let (Some((i, u)), Some((j, v))) =
            (place(&self.log10_size, libm::log10(size)), place(&self.dist, dist))
        else {
            return f64::NAN;
        };
        let at = |i: usize, j: usize| self.log10_energy[i][j];
        let low = at(i, j) * (1.0 - v) + at(i, j + 1) * v;
        let high = at(i + 1, j) * (1.0 - v) + at(i + 1, j + 1) * v;
        libm::exp10(low * (1.0 - u) + high * u)
    }
}

/// Returns the index of the interval of ascending points that contains x, and the relative
/// position in it (0 to 1).
fn place(points: &[f64], x: f64) -> Option<(usize, f64)> {
    let last = points.len() - 1;
    if !(points[0] <= x && x <= points[last]) {
        return None;
    }
    let i = (points.partition_point(|p| *p <= x) - 1).min(last - 1);
    Some((i, (x - points[i]) / (points[i + 1] - points[i])))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str =
        "log10_size = [2.0, 3.0, 5.0]\ndist = [0.0, 2.0]\nlog10_energy = [[0, 1], [1, 2], [3, 5]]";

    #[test]
    fn energies_are_exact_at_nodes_bilinear_between() {
        let table = EnergyTable::parse(TABLE).unwrap();
        let log = |size: f64, dist: f64| libm::log10(table.energy(size, dist));
        for (size, dist, expected) in [
            (100.0, 0.0, 0.0),
            (1000.0, 2.0, 2.0),
            (1e5, 2.0, 5.0),
            (1e5, 0.0, 3.0),
            (1e4, 1.0, 2.75),
            (libm::exp10(2.25), 0.5, 0.5),
        ] {
            assert!((log(size, dist) - expected).abs() < 1e-12, "{size} {dist}");
        }
        let nowhere = [(99.0, 1.0), (1e5 + 1.0, 1.0), (1e3, -0.1), (1e3, 2.1), (f64::NAN, 1.0)];
        for (size, dist) in nowhere.into_iter().chain([(1e3, f64::NAN), (-5.0, 1.0)]) {
            assert!(table.energy(size, dist).is_nan(), "{size} {dist}");
        }
    }

    #[test]
    fn tables_that_are_none_are_refused() {
        for (from, to) in [
            ("[2.0, 3.0, 5.0]", "[2.0, 2.0, 5.0]"),
            ("[0.0, 2.0]", "[0.0]"),
            ("[3, 5]", "[3]"),
            ("dist", "dits"),
            ("[1, 2], ", ""),
        ] {
            let text = TABLE.replace(from, to);
            assert_eq!(EnergyTable::parse(&text).unwrap_err().exit_code(), 2, "{text}");
        }
    }
}
