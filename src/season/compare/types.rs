//! Types of a comparison (`comparison.json`).

use crate::season::summary::EventTally;
use crate::statistics::Paired;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SeasonComparison {
    pub format: String,
    pub first: Side,
    pub second: Side,
    /// Runs that both could count.
    pub runs: Vec<String>,
    pub events: u64,
    /// Events that both scored at the source, and their rank correlation.
    pub scored: u64,
    pub rank_correlation: Option<f64>,
    /// Both as classifiers, if events have a class; training events are among them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labelled: Option<Paired>,
    /// Events by whether they pass at the source.
    pub at_source: Migration,
    /// Pairs of event and OFF position by whether they pass.
    pub off_source: Migration,
    /// Events by whether they are counted at the source.
    pub counted: Migration,
    /// Events counted at the source by one of the two alone.
    pub changed: Vec<Changed>,
    /// Whether all score files of the two have the same content.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub identical: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Side {
    pub scores: String,
    pub models: Vec<String>,
    pub point: String,
    pub threshold: Option<f64>,
    /// Files that are in no figure, with the reason.
    #[serde(default)]
    pub failed: BTreeMap<String, String>,
    #[serde(flatten)]
    pub tally: EventTally,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Migration {
    pub both: u64,
    pub first_alone: u64,
    pub second_alone: u64,
    pub neither: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Changed {
    pub file: String,
    pub row: u64,
    pub keys: Vec<(String, i64)>,
    pub time_ns: Option<i64>,
    pub scores: [Option<f32>; 2],
    /// Index of the position at which each counts it.
    pub counted_at: [Option<usize>; 2],
}

impl Migration {
    pub(super) fn add(&mut self, first: bool, second: bool) {
        *match (first, second) {
            (true, true) => &mut self.both,
            (true, false) => &mut self.first_alone,
            (false, true) => &mut self.second_alone,
            (false, false) => &mut self.neither,
        } += 1;
    }

    pub(super) fn merge(&mut self, other: Migration) {
        self.both += other.both;
        self.first_alone += other.first_alone;
        self.second_alone += other.second_alone;
        self.neither += other.neither;
    }
}
