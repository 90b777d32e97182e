//! Counts of a run: exact integers, whose sums do not depend on the order of files, blocks and
//! ranks.

use super::clock::Clock;
use super::images::TelescopeImage;
use crate::statistics::{Distribution, WeightSum};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Upper end of the histogram of θ² [deg²].
pub const THETA2_MAX: f64 = 0.4;
pub const THETA2_BINS: usize = 40;
pub const ALPHA_MAX: f64 = 90.0;
pub const ALPHA_BINS: usize = 36;
/// Meanings of a status bit, see `data::selection`.
pub const STATUS_BITS: usize = 3;

/// Key of a run: its number if the files have one, otherwise the file. TAIGA's tables have the
/// number in `run`; their `run_id` is a hash of file and portion.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RunKey {
    pub telescope: Option<i64>,
    pub run: Option<i64>,
    /// Empty if there is a number.
    pub file: String,
}

/// One run of one telescope.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RunCounts {
    pub files: BTreeSet<String>,
    pub models: BTreeSet<String>,
    /// Model and threshold of the selection of its files.
    #[serde(default)]
    pub selections: BTreeSet<(String, String)>,
    /// Least and greatest source offset [deg]; absent if a file does not state it.
    pub offset: Option<[f64; 2]>,
    pub portions: Vec<(Option<i64>, Portion)>, // rising
    pub theta2: OnOffHistogram,
    pub alpha: OnOffHistogram,
    pub score_on: Distribution,
    pub score_off: Distribution,
    /// Highest score of each event inside the cuts, at the position where it occurs: at the source,
    /// and at all counted OFF positions together.
    #[serde(default)]
    pub highest_on: Distribution,
    #[serde(default)]
    pub highest_off: Distribution,
    /// Counted events per bin of `energy` (at the position where they count) and position.
    pub energy: Vec<Vec<u64>>,
    /// Whether a file has energies at the source only; its events are in no bin.
    #[serde(default)]
    pub energy_of_source: bool,
    /// Simulated events per bin of the true energy.
    pub true_energy: Vec<TrueEnergy>,
    /// True energies of all simulated events [TeV].
    #[serde(default)]
    pub true_energies: Distribution,
    /// Simulated gammas that count, per bin of `energy` and, last, all of them.
    #[serde(default)]
    pub gammas: Vec<CountedGammas>,
    /// Log p at the source, and the copied quantities.
    pub drift: BTreeMap<String, Distribution>,
    /// Images that count, if those of a shower are combined.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<TelescopeImage>,
    /// First and last time of the run in each file [ns].
    pub segments: Vec<(i64, i64, String)>, // rising
}

/// Histograms at the source and at all counted OFF positions together.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OnOffHistogram {
    pub on: Vec<u64>,
    pub off: Vec<u64>,
}

/// Simulated gammas of one bin of energy.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrueEnergy {
    pub events: u64,
    pub on: u64,
    pub off: u64,
}

/// True energies of simulated gammas that count at the source, or at a counted OFF position.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CountedGammas {
    pub on: Distribution,
    pub off: Distribution,
}

impl CountedGammas {
    pub fn merge(&mut self, other: &CountedGammas) {
        self.on.merge(&other.on);
        self.off.merge(&other.off);
    }

    /// Returns the sums of a weight by true energy, ON and OFF.
    pub fn weighted(&self, weight: impl Fn(f64) -> f64) -> [WeightSum; 2] {
        [self.on.weighted(&weight), self.off.weighted(&weight)]
    }
}

/// One portion of a run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Portion {
    pub events: u64,
    /// Events by status bit, at the source.
    pub status: [u64; STATUS_BITS],
    /// Events by quality bit; an event can fail several.
    pub quality: Vec<u64>,
    /// Cut flow at the source: with a score; inside the model's cuts; of good quality;
    /// inside the report's own cuts.
    pub scored: u64,
    pub inside: u64,
    pub good: u64,
    pub selected: u64,
    /// Events per position: counted wherever they pass, and counted once.
    pub passing: Vec<u64>,
    pub counted: Vec<u64>,
    /// Events that pass at several positions, and those of them that pass at the source.
    pub overlapping: u64,
    pub overlapping_on: u64,
    pub clock: Clock,
}

impl Portion {
    pub fn new(positions: usize, quality_bits: usize) -> Portion {
        Portion {
            quality: vec![0; quality_bits],
            passing: vec![0; positions],
            counted: vec![0; positions],
            ..Portion::default()
        }
    }

    pub fn merge(&mut self, other: &Portion) {
        self.events += other.events;
        add(&mut self.status, &other.status);
        grow(&mut self.quality, &other.quality);
        self.scored += other.scored;
        self.inside += other.inside;
        self.good += other.good;
        self.selected += other.selected;
        grow(&mut self.passing, &other.passing);
        grow(&mut self.counted, &other.counted);
        self.overlapping += other.overlapping;
        self.overlapping_on += other.overlapping_on;
        self.clock.merge(&other.clock);
    }
}

impl RunCounts {
    /// Returns the sum of all portions.
    pub fn sum(&self) -> Portion {
        let mut sum = Portion::default();
        self.portions.iter().for_each(|(_, portion)| sum.merge(portion));
        sum
    }

    /// Adds a part of the same run from another file.
    pub fn merge(&mut self, other: &RunCounts) {
        let first = self.files.is_empty();
        self.files.extend(other.files.iter().cloned());
        self.models.extend(other.models.iter().cloned());
        self.selections.extend(other.selections.iter().cloned());
        self.offset = match (self.offset, other.offset) {
            _ if first => other.offset,
            (Some(a), Some(b)) => Some([a[0].min(b[0]), a[1].max(b[1])]),
            _ => None,
        };
        let mut portions: BTreeMap<Option<i64>, Portion> =
            std::mem::take(&mut self.portions).into_iter().collect();
        for (number, portion) in &other.portions {
            portions.entry(*number).or_default().merge(portion);
        }
        self.portions = portions.into_iter().collect();
        for (own, its) in [(&mut self.theta2, &other.theta2), (&mut self.alpha, &other.alpha)] {
            grow(&mut own.on, &its.on);
            grow(&mut own.off, &its.off);
        }
        self.energy_of_source |= other.energy_of_source;
        self.score_on.merge(&other.score_on);
        self.score_off.merge(&other.score_off);
        self.highest_on.merge(&other.highest_on);
        self.highest_off.merge(&other.highest_off);
        self.energy.resize(self.energy.len().max(other.energy.len()), Vec::new());
        self.energy.iter_mut().zip(&other.energy).for_each(|(own, its)| grow(own, its));
        let bins = self.true_energy.len().max(other.true_energy.len());
        self.true_energy.resize(bins, TrueEnergy::default());
        for (own, its) in self.true_energy.iter_mut().zip(&other.true_energy) {
            own.events += its.events;
            own.on += its.on;
            own.off += its.off;
        }
        self.true_energies.merge(&other.true_energies);
        let bins = self.gammas.len().max(other.gammas.len());
        self.gammas.resize(bins, CountedGammas::default());
        for (own, its) in self.gammas.iter_mut().zip(&other.gammas) {
            own.merge(its);
        }
        for (name, of) in &other.drift {
            self.drift.entry(name.clone()).or_default().merge(of);
        }
        self.images.extend_from_slice(&other.images);
        self.segments.extend(other.segments.iter().cloned());
        self.segments.sort();
    }

    /// Adds a simulated gamma that counts, with its bin of `energy` if it is in one.
    pub fn add_gamma(&mut self, bin: Option<usize>, is_on: bool, true_energy: f32) {
        let last = self.gammas.len().checked_sub(1);
        for index in bin.into_iter().chain(last).filter(|_| true_energy > 0.0) {
            let Some(of) = self.gammas.get_mut(index) else { continue };
            let energies = if is_on { &mut of.on } else { &mut of.off };
            energies.add(true_energy);
        }
    }

    /// Returns two files of the run whose times overlap.
    pub fn overlapping_files(&self) -> Option<(&str, &str)> {
        let mut latest: Option<&(i64, i64, String)> = None;
        for segment in &self.segments {
            if let Some(before) = latest.filter(|before| segment.0 < before.1) {
                return Some((&before.2, &segment.2));
            }
            latest = Some(segment);
        }
        None
    }
}

/// Subtracts counts from others that include them.
pub fn take_off(own: &mut [u64], its: &[u64]) {
    own.iter_mut().zip(its).for_each(|(own, its)| *own -= its);
}

fn add(own: &mut [u64], its: &[u64]) {
    own.iter_mut().zip(its).for_each(|(own, its)| *own += its);
}

/// Adds counts to a list, which is extended if it is shorter.
pub fn grow(own: &mut Vec<u64>, its: &[u64]) {
    own.resize(own.len().max(its.len()), 0);
    add(own, its);
}
