//! Settings of `season` and `compare`, from a TOML file.
//!
//! Every key has a default; an unknown key is refused, and the error names the nearest known one.

use super::parse::parse_toml;
use crate::bounded;
use crate::error::{Fault, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// Size limit of a settings file.
const MAX_FILE_BYTES: u64 = 1 << 20;
/// Largest number of candidates: all of them are kept in memory and shown on the page.
const MAX_CANDIDATES: usize = 1_000_000;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SeasonSettings {
    /// Working point of the score files; their first one if absent.
    pub point: Option<String>,
    /// Instead of a working point: smallest score of a passing event, inside the cuts.
    pub threshold: Option<f64>,
    /// Further cuts per event and position, by column of the score files.
    pub cuts: BTreeMap<String, Interval>,
    /// Keys of the score files that identify a shower for all telescopes: its image with most size
    /// counts in sums over telescopes. Empty: every image counts.
    pub shower_key: Vec<String>,
    /// Counts events with equal keys as different ones.
    pub allow_repeated_events: bool,
    pub quality: QualitySettings,
    pub positions: OffPositionSettings,
    pub time: Time,
    pub energy: Energy,
    pub drift: DriftLimits,
    /// Number of kept candidates, those with the highest scores.
    pub candidates: usize,
    /// Simulated showers of the gammas.
    pub simulation: Option<Thrown>,
    /// The model that belongs to a telescope and season.
    pub models: Vec<ModelOf>,
    /// Treatment of runs scored with a different model.
    pub other_model: OtherModel,
}

/// An open interval; `None` means no bound.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Interval {
    pub min: Option<f64>,
    pub max: Option<f64>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct QualitySettings {
    /// Quality cuts that are not applied.
    pub ignore: Vec<String>,
    /// Quality cuts that describe a time and not an image: the time before an event that fails one
    /// of them does not count as live time.
    pub of_time: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OffPositionSettings {
    /// OFF positions that are not counted, such as one with a bright star [deg].
    pub drop: Vec<f64>,
    /// A source nearer to the camera centre than this is not rotated [deg].
    pub least_offset: f64,
    /// A source whose offset changes by more than this within a run is not rotated [deg].
    pub offset_change: f64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Time {
    /// A longer pause between two events of a run is not live time [s].
    pub gap: f64,
    /// Local time of the nights, in hours ahead of UTC.
    pub utc_offset: f64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Energy {
    /// Edges of the bins [TeV].
    pub edges: Vec<f64>,
}

/// Limits of the drift test. A run is flagged if a column differs by more than chance and by more
/// than an effect size: p × (number of comparisons) below `p_value`, and `psi` or `ks` exceeded.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DriftLimits {
    /// Probability that any of the comparisons of a report flags a run by chance.
    pub p_value: f64,
    /// Population stability index.
    pub psi: f64,
    /// Kolmogorov–Smirnov distance.
    pub ks: f64,
    /// Runs with fewer events are not compared.
    pub least_events: u64,
    /// Columns that are not compared, because they change by design from run to run or describe a
    /// time and not an event; upper and lower case are equivalent.
    pub leave_out: Vec<String>,
}

/// Quantities that are never below 0, and their largest values.
const GREATEST: [(&str, f64); 6] = [
    ("theta2", f64::INFINITY),
    ("alpha", 90.0),
    ("dist", f64::INFINITY),
    ("energy", f64::INFINITY),
    ("gammaness", 1.0),
    ("posterior", 1.0),
];

/// Spectral index of the Crab Nebula at 0.5 to 80 TeV, 2.62 ± 0.02 (HEGRA; Aharonian et al.
/// 2004, ApJ 614, 897).
const SOURCE_INDEX: f64 = 2.6;

fn source_index() -> f64 {
    SOURCE_INDEX
}
/// Columns that move with the telescope and its source, and columns with one value per portion.
const MOVING: [&str; 20] = [
    "tel_az",
    "tel_el",
    "tel_ra",
    "tel_dec",
    "tel_tet",
    "tel_fi",
    "source_az",
    "source_el",
    "source_ra",
    "source_dec",
    "source_tet",
    "source_fi",
    "source_x",
    "source_y",
    "zenith",
    "azimuth",
    "delta_time",
    "CR100phe",
    "CR_portion",
    "weather_mark",
];

/// Simulated showers on the area of the telescope, with the spectrum dN/dE ∝ E^−index.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Thrown {
    /// Number of throws: showers times the positions at which each was used.
    pub events: u64,
    /// Radius of the area, perpendicular to the shower [m].
    pub radius_m: f64,
    pub index: f64,
    pub energy_tev: [f64; 2],
    /// Spectral index of the source, dN/dE ∝ E^−`source_index`: the leakage is weighted to it.
    #[serde(default = "source_index")]
    pub source_index: f64,
}

/// The model of a pair of telescope and season; an absent key matches any value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelOf {
    pub telescope: Option<i64>,
    /// Season such as `2022-2023`.
    pub season: Option<String>,
    /// Path of a model file, or the first digits of its blake3 hash.
    pub model: String,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OtherModel {
    /// Not counted, and reported.
    #[default]
    Refuse,
    /// Counted, with a warning.
    Flag,
}

impl Default for SeasonSettings {
    fn default() -> SeasonSettings {
        SeasonSettings {
            point: None,
            threshold: None,
            cuts: BTreeMap::new(),
            shower_key: Vec::new(),
            allow_repeated_events: false,
            quality: QualitySettings::default(),
            positions: OffPositionSettings::default(),
            time: Time::default(),
            energy: Energy::default(),
            drift: DriftLimits::default(),
            candidates: 1000,
            simulation: None,
            models: Vec::new(),
            other_model: OtherModel::Refuse,
        }
    }
}

impl Default for QualitySettings {
    fn default() -> QualitySettings {
        let of_time = ["tracking", "good", "weather_mark", "cr_portion", "tel_el"];
        QualitySettings { ignore: Vec::new(), of_time: of_time.map(str::to_string).to_vec() }
    }
}

impl Default for OffPositionSettings {
    fn default() -> OffPositionSettings {
        OffPositionSettings { drop: Vec::new(), least_offset: 0.4, offset_change: 0.05 }
    }
}

impl Default for Time {
    /// Returns the local time of the Tunka valley, UTC + 8 h.
    fn default() -> Time {
        Time { gap: 10.0, utc_offset: 8.0 }
    }
}

impl Default for Energy {
    /// Returns five bins per decade, from 2 to 200 TeV.
    fn default() -> Energy {
        let edges = vec![2.0, 3.2, 5.0, 7.9, 12.6, 20.0, 31.7, 50.2, 79.6, 126.2, 200.0];
        Energy { edges }
    }
}

impl Default for DriftLimits {
    fn default() -> DriftLimits {
        let leave_out = MOVING.map(str::to_string).to_vec();
        DriftLimits { p_value: 0.01, psi: 0.1, ks: 0.05, least_events: 100, leave_out }
    }
}

impl DriftLimits {
    /// Returns whether a column is not compared.
    pub(crate) fn leaves_out(&self, column: &str) -> bool {
        self.leave_out.iter().any(|name| name.to_lowercase() == column.to_lowercase())
    }
}

impl Interval {
    /// Returns whether the value is inside; NaN is outside.
    pub(crate) fn contains(&self, value: f32) -> bool {
        let value = f64::from(value);
        !value.is_nan()
            && self.min.is_none_or(|min| value > min)
            && self.max.is_none_or(|max| value < max)
    }
}

impl Thrown {
    /// Checks that numbers are positive and finite.
    fn validate(&self) -> Result<()> {
        let [low, high] = self.energy_tev;
        let usable = self.events > 0
            && self.radius_m > 0.0
            && self.radius_m.is_finite()
            && self.index.is_finite()
            && self.source_index.is_finite()
            && low > 0.0
            && high > low
            && high.is_finite();
        if usable {
            return Ok(());
        }
        let expected = "events, radius and rising energies above 0, finite indices";
        refuse("simulation", expected, format!("{self:?}"))
    }

    /// Returns the number of throws between two energies [TeV].
    pub fn between(&self, low: f64, high: f64) -> f64 {
        let [first, last] = self.energy_tev;
        let (low, high) = (low.clamp(first, last), high.clamp(first, last));
        self.events as f64 * self.integral(low, high) / self.integral(first, last)
    }

    fn integral(&self, low: f64, high: f64) -> f64 {
        let k = 1.0 - self.index;
        if k.abs() < 1e-9 {
            return libm::log(high / low);
        }
        (libm::pow(high, k) - libm::pow(low, k)) / k
    }

    /// Returns the weight of a throw of this energy [TeV] in the spectrum of the source, up to a
    /// constant factor.
    pub(crate) fn weight(&self, energy: f64) -> f64 {
        libm::pow(energy, self.index - self.source_index)
    }

    /// Returns the area of the throws [m²].
    pub(crate) fn area_m2(&self) -> f64 {
        std::f64::consts::PI * self.radius_m * self.radius_m
    }
}

impl SeasonSettings {
    /// Reads a settings file.
    ///
    /// # Errors
    /// `Usage`, with the file.
    pub fn load(path: &Path) -> Result<SeasonSettings> {
        let unreadable = |e: &dyn std::fmt::Display| {
            Fault::new("cannot read the settings").file(path).found(e).usage()
        };
        let text = bounded::read_text(path, MAX_FILE_BYTES).map_err(|e| unreadable(&e))?;
        SeasonSettings::parse(&text).map_err(|e| e.in_file(path))
    }

    /// Parses and checks settings.
    ///
    /// # Errors
    /// `Usage`.
    pub fn parse(text: &str) -> Result<SeasonSettings> {
        let settings: SeasonSettings = parse_toml(text)?;
        settings.validate()?;
        Ok(settings)
    }

    /// Runs the checks that need no score files.
    ///
    /// # Errors
    /// `Usage`, with the key and its value.
    pub fn validate(&self) -> Result<()> {
        if self.point.is_some() && self.threshold.is_some() {
            return refuse("threshold", "a working point or a threshold", "both");
        }
        if let Some(threshold) = self.threshold.filter(|t| !t.is_finite()) {
            return refuse("threshold", "a finite number", threshold);
        }
        self.validate_cuts()?;
        self.validate_numbers()?;
        self.validate_energies()?;
        self.simulation.iter().try_for_each(Thrown::validate)
    }

    fn validate_cuts(&self) -> Result<()> {
        for (name, cut) in &self.cuts {
            if [cut.min, cut.max].into_iter().flatten().any(f64::is_nan)
                || cut.min.zip(cut.max).is_some_and(|(min, max)| min >= max)
            {
                return refuse(&format!("cuts.{name}"), "min below max", format!("{cut:?}"));
            }
        }
        for (name, greatest) in GREATEST {
            let Some(cut) = self.cuts.get(name) else { continue };
            let (column, found) = (format!("cuts.{name}"), format!("{cut:?}"));
            if cut.max.is_some_and(|max| max <= 0.0) {
                return refuse(&column, "a maximum above 0: no value passes this cut", found);
            }
            if cut.min.is_some_and(|min| min >= greatest) {
                let expected = format!("a minimum below {greatest}: no value passes this cut");
                return refuse(&column, &expected, found);
            }
        }
        Ok(())
    }

    fn validate_numbers(&self) -> Result<()> {
        let positive = [
            ("time.gap", self.time.gap),
            ("positions.offset_change", self.positions.offset_change),
            ("drift.p_value", self.drift.p_value),
            ("drift.psi", self.drift.psi),
            ("drift.ks", self.drift.ks),
        ];
        for (name, value) in positive {
            if !(value > 0.0 && value.is_finite()) {
                return refuse(name, "a number above 0", value);
            }
        }
        let offset = self.positions.least_offset;
        if !(offset >= 0.0 && offset.is_finite()) {
            return refuse("positions.least_offset", "0 deg or more", offset);
        }
        if self.candidates > MAX_CANDIDATES {
            return refuse("candidates", &format!("at most {MAX_CANDIDATES}"), self.candidates);
        }
        if !(-24.0..=24.0).contains(&self.time.utc_offset) {
            return refuse("time.utc_offset", "hours within ±24", self.time.utc_offset);
        }
        Ok(())
    }

    fn validate_energies(&self) -> Result<()> {
        let edges = &self.energy.edges;
        let rising = edges.windows(2).all(|pair| pair[0] < pair[1]);
        let usable = edges.iter().all(|edge| *edge > 0.0 && edge.is_finite());
        if edges.len() < 2 || edges.len() > 1000 || !rising || !usable {
            return refuse("energy.edges", "two or more rising energies", format!("{edges:?}"));
        }
        Ok(())
    }
}

/// Returns the error of a setting that is out of range.
fn refuse(column: &str, expected: &str, found: impl std::fmt::Display) -> Result<()> {
    let fault = Fault::new("a setting is out of range").column(column);
    Err(fault.expected(expected).found(found).usage())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commented_settings_are_the_defaults() {
        let text = include_str!("../../configs/season/season.toml");
        assert_eq!(SeasonSettings::parse(text).unwrap(), SeasonSettings::default());
        // Without the comment signs every key is known, and the values are equal.
        let key = |line: &str| {
            let line = line.strip_prefix("# ").unwrap_or(line).to_string();
            let is_key = line.starts_with('[')
                || line.split_once(" = ").is_some_and(|(name, _)| !name.contains(' '));
            is_key.then_some(line)
        };
        let all: Vec<String> = text.lines().filter_map(key).collect();
        assert!(all.len() > 20, "{all:?}");
        let settings: SeasonSettings = toml::from_str(&all.join("\n")).unwrap();
        let defaults = SeasonSettings::default();
        assert_eq!(settings.positions.least_offset, defaults.positions.least_offset);
        assert_eq!((settings.energy, settings.drift), (defaults.energy, defaults.drift));
        assert_eq!(settings.quality.of_time, defaults.quality.of_time);
        assert_eq!(settings.time, defaults.time);
    }

    #[test]
    fn unknown_and_impossible_settings_are_refused() {
        for wrong in [
            "treshold = 3.0",
            "point = \"a\"\nthreshold = 1.0",
            "threshold = nan",
            "[cuts]\ntheta2 = { max = 1, min = 2 }",
            "[cuts]\ntheta2 = { max = -1 }",
            "[cuts]\nalpha = { max = 0 }",
            "[cuts]\nalpha = { min = 90.0 }",
            "[cuts]\ndist = { min = -2, max = -0.5 }",
            "[time]\ngap = 0.0",
            "[energy]\nedges = [3.0, 2.0]",
            "[simulation]\nevents = 0\nradius_m = 1.0\nindex = 2.0\nenergy_tev = [1.0, 2.0]",
            "[simulation]\nevents = 9\nradius_m = 1.0\nindex = 2.0\nenergy_tev = [1.0, 2.0]\nsource_index = nan",
            "other_model = \"ignore\"",
            "candidates = 9223372036854775807",
        ] {
            assert_eq!(SeasonSettings::parse(wrong).unwrap_err().exit_code(), 2, "{wrong}");
        }
    }

    #[test]
    fn columns_that_move_are_left_out_of_drift() {
        let limits = DriftLimits::default();
        assert!(limits.leaves_out("Tel_El") && limits.leaves_out("cr_portion"));
        assert!(!limits.leaves_out("size") && !limits.leaves_out("log_prob"));
    }

    #[test]
    fn throws_follow_the_spectrum() {
        let text = "events = 1000\nradius_m = 700.0\nindex = 2.0\nenergy_tev = [1.0, 100.0]";
        let thrown: Thrown = toml::from_str(text).unwrap();
        assert!((thrown.source_index - 2.6).abs() < 1e-12);
        let share = thrown.between(1.0, 2.0) / 1000.0;
        assert!((share - 0.5 / 0.99).abs() < 1e-12);
        assert!((thrown.between(0.1, 1e9) - 1000.0).abs() < 1e-9);
        assert!(thrown.between(200.0, 300.0).abs() < 1e-12);
        let flat = Thrown { index: 1.0, ..thrown };
        assert!((flat.between(1.0, 10.0) - 500.0).abs() < 1e-9);
    }

    #[test]
    fn intervals_are_open_and_hold_no_nan() {
        let cut = Interval { min: Some(0.0), max: Some(0.05) };
        assert!(cut.contains(0.02) && !cut.contains(0.0) && !cut.contains(f32::NAN));
        assert!(Interval::default().contains(-1e30) && !Interval::default().contains(f32::NAN));
    }
}
