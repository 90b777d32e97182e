//! Units: the canonical unit of each quantity, spellings, and conversions.

/// Canonical unit by quantity.
const CANONICAL: [(&str, &str); 26] = [
    ("size", "p.e."),
    ("length", "deg"),
    ("width", "deg"),
    ("dist", "deg"),
    ("dist_center", "deg"),
    ("dist_anti", "deg"),
    ("alpha", "deg"),
    ("alpha_anti", "deg"),
    ("con1", "1"),
    ("con2", "1"),
    ("con3", "1"),
    ("leakage", "1"),
    ("leakage1", "1"),
    ("leakage2", "1"),
    ("skewness", "1"),
    ("kurtosis", "1"),
    ("energy", "TeV"),
    ("zenith", "deg"),
    ("cog_x", "deg"),
    ("cog_y", "deg"),
    ("delta", "deg"),
    ("xc", "deg"),
    ("yc", "deg"),
    ("axis", "deg"),
    ("source_x", "deg"),
    ("source_y", "deg"),
];

/// Returns the canonical unit of a quantity; `None` for a name outside the fixed list.
pub fn canonical_unit(quantity: &str) -> Option<&'static str> {
    CANONICAL.iter().find(|(name, _)| *name == quantity).map(|(_, unit)| *unit)
}

/// Returns the one spelling of a unit, so that `degree` and `deg` compare equal.
pub fn normal_unit(unit: &str) -> String {
    let unit = unit.trim();
    let known = match unit.to_lowercase().as_str() {
        "pe" | "p.e." | "p.e" | "phe" | "photoelectron" | "photoelectrons" | "photo-electrons" => {
            "p.e."
        }
        "deg" | "degree" | "degrees" | "°" => "deg",
        "rad" | "radian" | "radians" => "rad",
        "mm" | "millimeter" | "millimetre" => "mm",
        "cm" | "centimeter" | "centimetre" => "cm",
        "m" | "meter" | "metre" => "m",
        "" | "1" | "none" | "dimensionless" => "1",
        _ => unit,
    };
    known.to_string()
}

/// Returns the factor between two units that does not depend on the camera.
pub(super) fn known_conversion(from: &str, to: &str) -> Option<f64> {
    match (from, to) {
        (from, to) if from == to => Some(1.0),
        ("rad", "deg") => Some(180.0 / std::f64::consts::PI),
        ("GeV", "TeV") => Some(1e-3),
        ("MeV", "TeV") => Some(1e-6),
        ("eV", "TeV") => Some(1e-12),
        _ => None,
    }
}
