//! Reads a score file and counts its events per run.

use super::candidates::{BestCandidates, Candidate};
use super::counts::{
    ALPHA_BINS, ALPHA_MAX, CountedGammas, Portion, RunCounts, RunKey, THETA2_BINS, THETA2_MAX,
    TrueEnergy,
};
use super::event_classifier::{EventClassifier, PositionOutcome, ScoreColumns};
use super::images::{TelescopeImage, shower_of};
use super::labels::Labels;
use super::repeated::CountedEvents;
use crate::config::SeasonSettings;
use crate::data::selection::{NOT_FINITE, OUT_OF_DOMAIN};
use crate::data::table::scores::{Head, ScoreBlock, ScoreFile};
use crate::error::Result;
use crate::season::names::telescope_of;
use crate::season::plan::SeasonPlan;
use crate::statistics::BoundSide;
use crate::statistics::distribution::ordered_bits;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

/// Rows read at a time, a chunk of the files; limits the memory.
const BLOCK_ROWS: u64 = 65_536;

const GAMMA: i8 = 1;

/// Counts of one file.
#[derive(Debug, Default)]
pub(crate) struct Scanned {
    pub runs: BTreeMap<RunKey, RunCounts>,
    pub best: BestCandidates,
    pub events: CountedEvents,
    pub labels: Labels,
}

/// Counts the events of a file; `name` is its name in reports.
pub(crate) fn scan(
    path: &Path,
    name: &str,
    plan: &SeasonPlan,
    settings: &SeasonSettings,
) -> Result<Scanned> {
    let file = ScoreFile::open(path)?;
    let selection = plan.check(&file.head, path, settings)?;
    let classifier = EventClassifier::new(&file.head, plan, name);
    let mut counting = FileScan::new(name, &file.head, &classifier);
    let mut block = ScoreBlock::default();
    let mut first = 0;
    while first < file.head.rows {
        let next = (first + BLOCK_ROWS).min(file.head.rows);
        file.read(first..next, classifier.request(), &mut block)?;
        counting.take(&block, first);
        first = next;
    }
    Ok(counting.finish(&selection))
}

/// Counts of a file while it is read.
struct FileScan<'a> {
    name: &'a str,
    head: &'a Head,
    plan: &'a SeasonPlan,
    classifier: &'a EventClassifier<'a>,
    /// Telescope of a file without a key for it.
    telescope: Option<i64>,
    numbers: HashMap<(Option<i64>, Option<i64>), usize>,
    runs: Vec<OfRun>,
    best: BestCandidates,
    events: CountedEvents,
    labels: Labels,
}

/// One run of the file.
struct OfRun {
    key: RunKey,
    counts: RunCounts,
    portions: BTreeMap<Option<i64>, Portion>,
    current: Option<(Option<i64>, Portion)>,
    previous: Option<i64>, // time of the event before [ns]
}

impl OfRun {
    fn new(key: RunKey, plan: &SeasonPlan) -> OfRun {
        let mut counts = RunCounts::default();
        counts.theta2.on = vec![0; THETA2_BINS];
        counts.theta2.off = vec![0; THETA2_BINS];
        counts.alpha.on = vec![0; ALPHA_BINS];
        counts.alpha.off = vec![0; ALPHA_BINS];
        OfRun { key, counts, portions: BTreeMap::new(), current: None, previous: None }
            .with_bins(plan)
    }

    fn with_bins(mut self, plan: &SeasonPlan) -> OfRun {
        let bins = plan.edges.len() - 1;
        self.counts.energy = vec![vec![0; plan.positions.len()]; bins];
        self.counts.true_energy =
            vec![TrueEnergy::default(); if plan.simulated { bins } else { 0 }];
        self.counts.gammas =
            vec![CountedGammas::default(); if plan.simulated { bins + 1 } else { 0 }];
        self
    }

    /// Makes a portion the current one.
    fn enter(&mut self, number: Option<i64>, plan: &SeasonPlan) {
        if self.current.as_ref().is_some_and(|(known, _)| *known == number) {
            return;
        }
        let fresh = || Portion::new(plan.positions.len(), plan.quality_bits.len());
        let portion = self.portions.remove(&number).unwrap_or_else(fresh);
        if let Some((known, before)) = self.current.replace((number, portion)) {
            self.portions.insert(known, before);
        }
    }
}

impl<'a> FileScan<'a> {
    fn new(name: &'a str, head: &'a Head, classifier: &'a EventClassifier<'a>) -> FileScan<'a> {
        let plan = classifier.plan;
        FileScan {
            name,
            head,
            plan,
            classifier,
            telescope: telescope_of(name).or_else(|| head.input.as_deref().and_then(telescope_of)),
            numbers: HashMap::new(),
            runs: Vec::new(),
            best: BestCandidates::new(if plan.offset_rejection(head.source_offset).is_some() {
                0 // the run is not counted
            } else {
                plan.candidates
            }),
            events: CountedEvents::default(),
            labels: Labels::default(),
        }
    }

    fn take(&mut self, block: &ScoreBlock, first: u64) {
        self.labels.add(self.name, &block.class);
        let keys = &self.classifier.columns.keys;
        let at = |column: Option<usize>, row: usize| column.map(|c| block.keys[c][row]);
        for row in 0..block.rows {
            if self.plan.simulated && block.class.get(row).is_some_and(|class| *class != GAMMA) {
                continue;
            }
            let telescope = at(keys.telescope, row).or(self.telescope);
            let run = self.run(telescope, at(keys.run, row));
            self.runs[run].enter(at(keys.portion, row), self.plan);
            self.event(run, block, row, first + row as u64);
        }
    }

    /// Returns the index of a run of the file.
    fn run(&mut self, telescope: Option<i64>, run: Option<i64>) -> usize {
        // Simulated gammas form a single sample.
        let (telescope, run) = if self.plan.simulated { (None, None) } else { (telescope, run) };
        let runs = &mut self.runs;
        *self.numbers.entry((telescope, run)).or_insert_with(|| {
            let unnamed = run.is_none() && !self.plan.simulated;
            let file = if unnamed { self.name.to_string() } else { String::new() };
            runs.push(OfRun::new(RunKey { telescope, run, file }, self.plan));
            runs.len() - 1
        })
    }

    fn event(&mut self, run: usize, block: &ScoreBlock, row: usize, file_row: u64) {
        let FileScan { plan, classifier, runs, .. } = self;
        let columns = &classifier.columns;
        let of_run = &mut runs[run];
        let Some((_, portion)) = &mut of_run.current else { return };
        let counts = &mut of_run.counts;
        let (status, quality) = (block.status[0][row], block.quality[row]);
        portion.events += 1;
        for (bit, count) in portion.status.iter_mut().enumerate() {
            *count += u64::from(status >> bit & 1);
        }
        for (bit, count) in portion.quality.iter_mut().enumerate() {
            *count += u64::from(quality >> bit & 1);
        }
        let good_time = quality & plan.of_time == 0;
        let time = columns.keys.time.map(|time| block.keys[time][row]);
        let delta = columns.delta.map(|delta| block.copied[delta][row]);
        let previous = &mut of_run.previous;
        let place = || (self.name.to_string(), file_row);
        portion.clock.add_time(time, previous, plan.gap_ns, good_time, place);
        if let Some(delta) = delta {
            portion.clock.delta(delta, plan.gap_ns, good_time);
        }
        let scored = status & (NOT_FINITE | OUT_OF_DOMAIN) == 0;
        let good = quality & plan.quality == 0;
        portion.scored += u64::from(scored);
        portion.inside += u64::from(status == 0);
        portion.good += u64::from(status == 0 && good);
        if status == 0 && good {
            drift(counts, columns, block, row);
        }
        if let (Some(energy), true) = (columns.true_energy, plan.simulated) {
            let energy = block.copied[energy][row];
            counts.true_energies.add(energy);
            if let Some(bin) = bin_of(energy, &plan.edges) {
                counts.true_energy[bin].events += 1;
            }
        }
        if !good {
            return;
        }
        let (passes, inside) = self.classify(run, block, row);
        if self.plan.is_scanned && inside != 0 {
            self.scan_highest(run, inside, block, row, file_row);
        }
        if passes != 0 {
            self.count(run, passes, block, row, file_row);
        }
    }

    /// Adds the highest score of an event, at the position where it counts at any low threshold.
    fn scan_highest(
        &mut self,
        run: usize,
        inside: u64,
        block: &ScoreBlock,
        row: usize,
        file_row: u64,
    ) {
        let FileScan { plan, classifier, runs, .. } = self;
        let Some(place) = classifier.place(inside, block, row, file_row) else { return };
        let counts = &mut runs[run].counts;
        let of = if place == 0 { &mut counts.highest_on } else { &mut counts.highest_off };
        if plan.kept[place] {
            of.add(block.at_all[classifier.columns.score][place][row]);
        }
    }

    /// Fills the histograms and returns two masks, whose bit k says whether the event passes at
    /// position k, and whether it is inside all cuts there.
    fn classify(&mut self, run: usize, block: &ScoreBlock, row: usize) -> (u64, u64) {
        let FileScan { plan, classifier, runs, .. } = self;
        let columns = &classifier.columns;
        let of_run = &mut runs[run];
        let Some((_, portion)) = &mut of_run.current else { return (0, 0) };
        let counts = &mut of_run.counts;
        let (mut passes, mut all_inside) = (0, 0);
        for k in 0..plan.positions.len() {
            let Some(PositionOutcome { passing, inside, only }) = classifier.at(block, row, k)
            else {
                continue;
            };
            if k == 0 {
                portion.selected += u64::from(inside);
            }
            all_inside |= u64::from(inside) << k;
            if inside && plan.kept[k] {
                let of = if k == 0 { &mut counts.score_on } else { &mut counts.score_off };
                of.add(block.at_all[columns.score][k][row]);
            }
            if passing && plan.kept[k] {
                // A histogram shows events that fail no cut except that on its quantity.
                let shown = [
                    ("theta2", columns.theta2, &mut counts.theta2, THETA2_MAX),
                    ("alpha", columns.alpha, &mut counts.alpha, ALPHA_MAX),
                ];
                for (name, column, pair, high) in shown {
                    let Some(column) = column.filter(|_| inside || only == Some(name)) else {
                        continue;
                    };
                    let bins = if k == 0 { &mut pair.on } else { &mut pair.off };
                    fill(bins, block.at_all[column][k][row], high);
                }
            }
            if passing && inside {
                passes |= 1 << k;
                portion.passing[k] += 1;
            }
        }
        (passes, all_inside)
    }

    /// Counts a passing event once.
    fn count(&mut self, run: usize, passes: u64, block: &ScoreBlock, row: usize, file_row: u64) {
        let FileScan { plan, classifier, runs, events, .. } = self;
        let columns = &classifier.columns;
        let of_run = &mut runs[run];
        let Some((_, portion)) = &mut of_run.current else { return };
        if passes & (passes - 1) != 0 {
            portion.overlapping += 1;
            portion.overlapping_on += passes & 1;
        }
        let Some(place) = classifier.place(passes, block, row, file_row) else { return };
        portion.counted[place] += 1;
        events.add(columns, block, row, file_row, of_run.key.telescope);
        let counts = &mut of_run.counts;
        let energy = columns.energy.map(|c| block.at_all[c][place][row]);
        let bin = energy.and_then(|energy| bin_of(energy, &plan.edges));
        if let Some(bin) = bin {
            counts.energy[bin][place] += 1;
        }
        if let (Some(energy), true) = (columns.true_energy, plan.simulated && plan.kept[place]) {
            let energy = block.copied[energy][row];
            counts.add_gamma(bin, place == 0, energy);
            if let Some(of_bin) = bin_of(energy, &plan.edges).map(|b| &mut counts.true_energy[b]) {
                of_bin.on += u64::from(place == 0);
                of_bin.off += u64::from(place > 0);
            }
        }
        if let (false, Some(size)) = (columns.shower.is_empty(), columns.size) {
            let words = columns.shower.iter().map(|key| block.keys[*key][row]);
            counts.images.push(TelescopeImage {
                shower: shower_of(words),
                size: ordered_bits(block.copied[size][row]),
                place: place as u8,
                bin: bin.map(|bin| bin as u16),
            });
        }
        let score = classifier.score(block, row);
        if place == 0 && self.best.accepts(score) {
            let candidate = self.candidate(&self.runs[run].key, block, row, file_row);
            self.best.add(candidate);
        }
    }

    /// Returns a row that is counted at the source, as it is listed in the report.
    fn candidate(&self, run: &RunKey, block: &ScoreBlock, row: usize, file_row: u64) -> Candidate {
        let FileScan { head, classifier, .. } = self;
        let columns = &classifier.columns;
        let finite = |value: f32| value.is_finite().then_some(value);
        let at_source =
            |column: Option<usize>| column.and_then(|c| finite(block.at_all[c][0][row]));
        let for_source =
            |column: Option<usize>| column.and_then(|c| finite(block.at_source[c][row]));
        let score = classifier.score(block, row);
        let bound = BoundSide::of(f64::from(score), head.resolved_scores);
        let limited = |column, limits: Option<[f64; 2]>| {
            let limit = bound.zip(limits).map(|(bound, limits)| bound.limit(limits) as f32);
            for_source(column).map(|value| limit.unwrap_or(value))
        };
        let gammaness = limited(columns.gammaness, head.gammaness_limits);
        let posterior = limited(columns.posterior, head.posterior_limits);
        let keys = head.keys.iter().enumerate();
        Candidate {
            score,
            gammaness,
            posterior,
            bound: bound.filter(|_| gammaness.or(posterior).is_some()),
            file: self.name.to_string(),
            row: file_row,
            keys: keys.map(|(c, name)| (name.clone(), block.keys[c][row])).collect(),
            telescope: run.telescope,
            run: run.run,
            time_ns: classifier.time_ns(block, row),
            dist: for_source(columns.dist),
            alpha: at_source(columns.alpha),
            theta2: at_source(columns.theta2),
            energy: at_source(columns.energy),
            size: columns.size.and_then(|c| finite(block.copied[c][row])),
        }
    }

    fn finish(self, selection: &str) -> Scanned {
        let FileScan { name, head, runs, best, events, labels, .. } = self;
        let mut scanned = Scanned { runs: BTreeMap::new(), best, events, labels };
        for mut run in runs {
            if let Some((number, portion)) = run.current.take() {
                run.portions.insert(number, portion);
            }
            let mut counts = run.counts;
            counts.portions = run.portions.into_iter().collect();
            counts.files.insert(name.to_string());
            counts.models.insert(head.model_blake3.clone());
            counts.selections.insert((head.model_blake3.clone(), selection.to_string()));
            counts.offset = head.source_offset;
            counts.energy_of_source = head.has_energy_of_source();
            if let Some((first, last)) = counts.sum().clock.span() {
                counts.segments.push((first, last, name.to_string()));
            }
            scanned.runs.insert(run.key, counts);
        }
        scanned
    }
}

/// Adds log p at the source and the copied quantities to the distributions.
fn drift(counts: &mut RunCounts, columns: &ScoreColumns, block: &ScoreBlock, row: usize) {
    let mut add = |name: &str, value: f32| match counts.drift.get_mut(name) {
        Some(of) => of.add(value),
        None => counts.drift.entry(name.to_string()).or_default().add(value),
    };
    add(&columns.wanted.at_source[columns.log_prob], block.at_source[columns.log_prob][row]);
    for column in &columns.drift {
        add(&columns.wanted.copied[*column], block.copied[*column][row]);
    }
}

/// Returns the bin of an energy, if it is in one.
fn bin_of(energy: f32, edges: &[f64]) -> Option<usize> {
    let energy = f64::from(energy);
    let above = edges.partition_point(|edge| *edge <= energy);
    (above > 0 && above < edges.len() && energy.is_finite()).then(|| above - 1)
}

fn fill(bins: &mut [u64], value: f32, high: f64) {
    let place = f64::from(value) / high * bins.len() as f64;
    // A right angle belongs to the last bin.
    let place = if value >= 90.0 && high >= 90.0 { bins.len() as f64 - 1.0 } else { place };
    if place >= 0.0 && place < bins.len() as f64 {
        bins[place as usize] += 1;
    }
}
