//! One event in both scorings, and the counts of all events.

use super::ranks::{ScoreBins, rank_bin};
use super::types::{Changed, Migration};
use crate::config::Class;
use crate::data::selection::{NOT_FINITE, OUT_OF_DOMAIN};
use crate::data::table::scores::ScoreBlock;
use crate::season::counting::event_classifier::EventClassifier;
use crate::season::folder::ScoreFileEntry;
use crate::statistics::{Crossed, WeightSum};
use serde::{Deserialize, Serialize};

/// Most listed changed events, the first by file and row.
const MOST_CHANGED: usize = 100_000;

/// Counts of one pass over all pairs of files.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct PairCounts {
    pub(super) events: u64,
    pub(super) at_source: Migration,
    pub(super) off_source: Migration,
    pub(super) counted: Migration,
    pub(super) changed: Vec<Changed>,
    /// Labelled events by whether they pass at the source.
    pub(super) labelled: Crossed,
}

impl PairCounts {
    /// Keeps the first [`MOST_CHANGED`] changed events, by file and row.
    pub(super) fn keep_first(&mut self) {
        self.changed.sort_by(|a, b| a.file.cmp(&b.file).then(a.row.cmp(&b.row)));
        self.changed.truncate(MOST_CHANGED);
    }
}

/// Row of both scorings.
pub(super) struct RowPair<'a> {
    pub(super) file: &'a ScoreFileEntry,
    pub(super) classifiers: &'a [EventClassifier<'a>; 2],
    pub(super) blocks: &'a [ScoreBlock; 2],
    pub(super) keys: &'a [String],
    pub(super) row: usize,
    pub(super) file_row: u64,
}

impl RowPair<'_> {
    pub(super) fn take(&self, found: &mut PairCounts, bins: &mut ScoreBins) {
        found.events += 1;
        let gamma = self.gamma();
        if let Some(of_event) = self.rank_bins() {
            bins.all.iter_mut().zip(of_event).for_each(|(bins, bin)| bins[bin] += 1);
            if let Some(gamma) = gamma.filter(|_| self.inside_both()) {
                bins.add_labelled(gamma, of_event);
            }
        }
        let passes = [0, 1].map(|w| self.classifiers[w].passes(&self.blocks[w], self.row));
        if let Some(gamma) = gamma {
            found.labelled.add(gamma, passes.map(|passes| passes & 1 == 1), 1.0);
        }
        let positions = self.blocks[0].status.len();
        for k in 0..positions {
            let [a, b] = passes.map(|passes| passes >> k & 1 == 1);
            let of = if k == 0 { &mut found.at_source } else { &mut found.off_source };
            of.add(a, b);
        }
        let places = [0, 1].map(|w| {
            self.classifiers[w].place(passes[w], &self.blocks[w], self.row, self.file_row)
        });
        let [a, b] = places.map(|place| place == Some(0));
        found.counted.add(a, b);
        if a != b {
            let keys = self.keys.iter().enumerate();
            let keys = keys.map(|(k, name)| (name.clone(), self.blocks[0].keys[k][self.row]));
            found.changed.push(Changed {
                file: self.file.name.clone(),
                row: self.file_row,
                keys: keys.collect(),
                time_ns: self.classifiers[0].time_ns(&self.blocks[0], self.row),
                scores: [0, 1].map(|w| Some(self.score(w)).filter(|score| score.is_finite())),
                counted_at: places,
            });
            if found.changed.len() >= 2 * MOST_CHANGED {
                found.keep_first();
            }
        }
    }

    pub(super) fn score(&self, which: usize) -> f32 {
        self.classifiers[which].score(&self.blocks[which], self.row)
    }

    /// Returns whether the event is a gamma, if both scorings have the same class.
    pub(super) fn gamma(&self) -> Option<bool> {
        let class = |which: usize| self.blocks[which].class.get(self.row).copied();
        let gamma = |class: i8| match class {
            c if c == Class::Gamma.code() => Some(true),
            c if c == Class::Hadron.code() => Some(false),
            _ => None,
        };
        let (first, second) = (class(0).and_then(gamma)?, class(1).and_then(gamma)?);
        (first == second).then_some(first)
    }

    /// Returns whether the event is inside the cuts of both at the source.
    pub(super) fn inside_both(&self) -> bool {
        self.blocks.iter().all(|block| block.status[0][self.row] == 0)
    }

    /// Returns the bins of both scores at the source, if both exist.
    pub(super) fn rank_bins(&self) -> Option<[usize; 2]> {
        let scored = |which: usize| {
            self.blocks[which].status[0][self.row] & (NOT_FINITE | OUT_OF_DOMAIN) == 0
                && self.score(which).is_finite()
        };
        (scored(0) && scored(1)).then(|| [0, 1].map(|which| rank_bin(self.score(which))))
    }
}

pub(super) fn has_events(labelled: &Crossed) -> bool {
    let events = |sum: &WeightSum| sum.events > 0;
    labelled.gamma.iter().flatten().any(events) || labelled.hadron.iter().flatten().any(events)
}
