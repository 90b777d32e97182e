//! Physical limits of quantities.

use serde::Serialize;

/// A camera is about 10 deg across: a larger value has a wrong unit, such as mm.
const CAMERA_DEG: f64 = 20.0;

/// Possible values of a quantity: above `low`, or equal to it if `from`; at most `high`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Limits {
    pub low: f64,
    pub from: bool,
    pub high: Option<f64>,
}

impl Limits {
    const fn from(low: f64, high: f64) -> Limits {
        Limits { low, from: true, high: Some(high) }
    }

    const fn above(low: f64, high: Option<f64>) -> Limits {
        Limits { low, from: false, high }
    }

    pub(crate) fn contain(self, value: f64) -> bool {
        let above = if self.from { value >= self.low } else { value > self.low };
        above && self.high.is_none_or(|high| value <= high)
    }
}

/// Returns the physical limits of a quantity in its canonical unit; `None` if it has none.
pub(crate) fn physical_limits(quantity: &str) -> Option<Limits> {
    Some(match quantity {
        "size" => Limits::above(0.0, None),
        // No shower has 10⁶ TeV: such a value is in GeV or eV.
        "energy" => Limits::above(0.0, Some(1e6)),
        "length" | "width" | "dist" | "dist_center" | "dist_anti" => Limits::from(0.0, CAMERA_DEG),
        "alpha" | "alpha_anti" | "zenith" => Limits::from(0.0, 90.0),
        "con1" | "con2" | "con3" => Limits::above(0.0, Some(1.0)),
        "leakage" | "leakage1" | "leakage2" => Limits::from(0.0, 1.0),
        _ => return None,
    })
}
