//! Types of the report (`season.json`).

use crate::config::Interval;
use crate::season::counting::area::{BinLeak, Simulation};
use crate::season::counting::candidates::Candidate;
use crate::season::counting::counts::OnOffHistogram;
use crate::season::pages::pictures::Picture;
use crate::season::showers::Showers;
use crate::statistics::{Drift, Homogeneity, Measured, ThresholdScan};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Season {
    pub format: String,
    pub scores: String,
    pub models: Vec<String>,
    /// Name of the working point, or the least score; and the threshold.
    pub point: String,
    pub threshold: Option<f64>,
    pub cuts: BTreeMap<String, Interval>,
    /// Rotation of each position [deg]; the first is the source.
    pub positions: Vec<f64>,
    /// Those of the OFF positions that are counted [deg], in the order of all counts.
    pub off_positions: Vec<f64>,
    pub total: Group,
    /// By season and telescope.
    pub groups: Vec<Group>,
    pub nights: Vec<Night>,
    pub runs: Vec<RunRow>,
    pub portions: Vec<PortionRow>,
    /// Run after run in time.
    pub cumulative: Vec<Cumulative>,
    pub theta2: OnOffHistogram,
    pub alpha: OnOffHistogram,
    pub score: Option<ScoreHistogram>,
    /// Other thresholds; absent without OFF positions or one threshold of the score.
    #[serde(default)]
    pub scan: Option<ThresholdScan>,
    pub simulation: Option<Simulation>,
    /// Distributions that runs are compared with for drift.
    pub drift_reference: String,
    pub candidates: Vec<Candidate>,
    /// Images of the first candidates, for the page.
    #[serde(skip)]
    pub pictures: Vec<Picture>,
    /// Runs that were not counted.
    pub refused: Vec<Refused>,
    /// Files that could not be scored or read.
    pub failed: BTreeMap<String, String>,
    pub warnings: Vec<String>,
}

/// Results of a set of events.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct EventTally {
    pub events: u64,
    /// Cut flow at the source.
    pub scored: u64,
    pub inside: u64,
    pub good: u64,
    pub selected: u64,
    pub passing: u64,
    pub on: u64,
    /// Rejected, by reason; an event can have several.
    pub status: BTreeMap<String, u64>,
    pub quality: BTreeMap<String, u64>,
    pub live_s: Option<f64>,
    /// Events at the end of a live interval, and these per live time.
    #[serde(default)]
    pub live_events: u64,
    pub rate_hz: Option<f64>,
    /// Events of runs without plausible times: in no live time, rate or σ/√h.
    #[serde(default)]
    pub without_time: u64,
    pub gaps: u64,
    pub gap_s: f64,
    pub bad_s: f64,
    /// Sum of `delta_time` over live time.
    pub delta_share: Option<f64>,
    /// Events counted once, per OFF position.
    pub off: Vec<u64>,
    pub alpha: Option<f64>,
    pub excess: Option<Measured>,
    /// Excess, corrected for the leak into the OFF positions.
    pub corrected: Option<Measured>,
    /// Absent without counts.
    pub significance: Option<f64>,
    /// Significance of the runs with a live time, per root of hours.
    pub per_root_hour: Option<f64>,
    /// Upper limit of the excess at 95 % if the significance is low, and corrected for the leak.
    pub upper_limit: Option<f64>,
    pub upper_limit_corrected: Option<f64>,
    pub homogeneity: Option<Homogeneity>,
    pub naive: Option<Naive>,
}

/// Counts of the same events at every position where they pass.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Naive {
    pub on: u64,
    pub off: Vec<u64>,
    pub excess: Measured,
    pub significance: f64,
    /// Events that pass at several positions, and those of them that pass at the source.
    pub overlapping: u64,
    pub overlapping_on: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Group {
    pub season: Option<String>,
    pub telescope: Option<i64>,
    pub runs: u64,
    pub nights: u64,
    /// How showers seen by several telescopes count.
    #[serde(default)]
    pub showers: Showers,
    /// Images that do not count, since another image of their shower does.
    #[serde(default)]
    pub repeated_images: u64,
    #[serde(flatten)]
    pub tally: EventTally,
    pub energy: Vec<EnergyBin>,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct EnergyBin {
    pub low_tev: f64,
    pub high_tev: f64,
    pub on: u64,
    pub off: u64,
    pub excess: Measured,
    /// Excess, corrected for the leak of this bin, if it is resolved.
    pub corrected: Option<Measured>,
    /// Leak of simulated gammas in this bin; absent without them.
    #[serde(default)]
    pub leak: Option<BinLeak>,
    /// Absent without counts.
    pub significance: Option<f64>,
    pub upper_limit: Option<f64>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[allow(clippy::struct_field_names)] // the key in season.json
pub(crate) struct Night {
    pub night: Option<String>,
    pub telescope: Option<i64>,
    pub runs: u64,
    #[serde(flatten)]
    pub tally: EventTally,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct RunRow {
    pub run: String,
    pub telescope: Option<i64>,
    pub season: Option<String>,
    pub night: Option<String>,
    pub start_ns: Option<i64>,
    pub end_ns: Option<i64>,
    pub files: Vec<String>,
    pub models: Vec<String>,
    /// Least and greatest source offset [deg].
    pub offset: Option<[f64; 2]>,
    pub portions: u64,
    #[serde(flatten)]
    pub tally: EventTally,
    pub drift: Vec<DriftOf>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct PortionRow {
    pub run: String,
    pub telescope: Option<i64>,
    pub portion: Option<i64>,
    /// The portion's number, or the first digits of its hash.
    #[serde(default)]
    pub name: String,
    pub start_ns: Option<i64>,
    #[serde(flatten)]
    pub tally: EventTally,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct DriftOf {
    pub column: String,
    #[serde(flatten)]
    pub drift: Drift,
    pub flagged: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Cumulative {
    pub end_ns: Option<i64>,
    /// Live time so far, telescope-hours.
    pub hours: f64,
    pub on: u64,
    pub off: u64,
    pub excess: f64,
    pub significance: f64,
}

/// Scores inside the cuts, at the source and at all counted OFF positions together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct ScoreHistogram {
    pub low: f64,
    pub high: f64,
    pub on: Vec<u64>,
    pub off: Vec<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Refused {
    pub run: String,
    pub telescope: Option<i64>,
    pub events: u64,
    pub reason: String,
}
