//! Two scorings of the same inputs against each other: how the scores are ordered, which
//! events change sides of the threshold, and what both find on the same runs.
//!
//! The rank correlation (Spearman 1904) is of all events that both scored at the source.
//! Scores are told apart to 12 of their 23 bits of mantissa and equal ones share the mean of
//! their ranks; ranks are then whole numbers (doubled), so that sums over files and ranks
//! are exact in any order. Where events have a class, the same bins give the areas under both
//! ROC curves and the error of their difference.

use super::counting::event_classifier::EventClassifier;
use super::folder::{Counted, Folder, ScoreFileEntry, count};
use super::models::Models;
use super::plan::{SeasonPlan, refuse_selections};
use super::refuse_failed;
use super::summary::{EventTally, Season, SeasonParts};
use crate::comm::{Communicator, gather_values, is_root, mark_shared, sync_result};
use crate::config::Class;
use crate::config::SeasonSettings;
use crate::data::files::output_kind::OutputKind;
use crate::data::selection::{NOT_FINITE, OUT_OF_DOMAIN};
use crate::data::table::scores::{ScoreBlock, ScoreFile};
use crate::error::{Error, Fault, Result};
use crate::statistics::comparison::paired::{PlacementSums, doubled_placements};
use crate::statistics::distribution::ordered_bits;
use crate::statistics::{Crossed, Measured, Paired, Selected, WeightSum};
use crate::storage;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};

/// Text of a comparison of a scoring with itself.
pub const IDENTICAL: &str =
    "Both scorings have the same score files: the comparison is of a scoring with itself.";
pub const COMPARISON: &str = "comparison.json";
const FORMAT: &str = "taiga-flow-comparison 1";
const BLOCK_ROWS: u64 = 65_536;
/// Bits of a score that ranks do not tell apart, and the bins that are left.
const DROPPED_BITS: u32 = 12;
const RANK_BINS: usize = 1 << (32 - DROPPED_BITS);
/// Changed events that are listed, the first by file and row.
const MOST_CHANGED: usize = 100_000;

#[derive(Debug, Clone)]
pub struct Options {
    /// Two folders of score files.
    pub scores: [PathBuf; 2],
    pub settings: SeasonSettings,
    /// Folder for `comparison.json`.
    pub output: Option<PathBuf>,
    /// Most files of either that may be missing because they could not be scored.
    pub allow_failed: usize,
    pub overwrite: bool,
}

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
    /// The two as classifiers, where events have a class; those that a model was trained on
    /// are among them.
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
    /// Index of the position that each counts it at.
    pub counted_at: [Option<usize>; 2],
}

/// What one pass over all pairs of files finds.
#[derive(Debug, Default, Serialize, Deserialize)]
struct PairCounts {
    events: u64,
    at_source: Migration,
    off_source: Migration,
    counted: Migration,
    changed: Vec<Changed>,
    /// Labelled events by whether they pass at the source.
    labelled: Crossed,
}

impl PairCounts {
    fn keep_first(&mut self) {
        self.changed.sort_by(|a, b| a.file.cmp(&b.file).then(a.row.cmp(&b.row)));
        self.changed.truncate(MOST_CHANGED);
    }
}

/// Compares; every rank gets the comparison.
pub fn run(comm: &dyn Communicator, options: &Options) -> Result<SeasonComparison> {
    let path = options.output.as_ref().map(|folder| folder.join(COMPARISON));
    if let Some(path) = &path {
        let kind = OutputKind::Json(FORMAT);
        sync_result(comm, kind.refuse_existing(path, options.overwrite))?;
    }
    let settings = &options.settings;
    let open = || -> Result<[Folder; 2]> {
        let [a, b] = &options.scores;
        let open = |path: &PathBuf| Folder::open(std::slice::from_ref(path));
        let folders = [open(a)?, open(b)?];
        check_inputs(&folders)?;
        Ok(folders)
    };
    let folders = sync_result(comm, open())?;
    for folder in &folders {
        mark_shared(refuse_failed(folder, &Counted::default(), options.allow_failed))?;
    }
    let plan = |folder: &Folder| SeasonPlan::new(&folder.head()?, settings, false);
    let plans = || -> Result<[SeasonPlan; 2]> { Ok([plan(&folders[0])?, plan(&folders[1])?]) };
    let plans = sync_result(comm, plans())?;
    if plans[0].positions != plans[1].positions {
        return mark_shared(Err(Fault::new("the two were scored at other positions")
            .expected(format!("{:?} deg", plans[0].positions))
            .found(format!("{:?} deg", plans[1].positions))
            .advice("score both with the same configuration")
            .input()));
    }
    let counts = [
        count(comm, &folders[0], &plans[0], settings)?,
        count(comm, &folders[1], &plans[1], settings)?,
    ];
    mark_shared(refuse_unreadable(&counts))?;
    for (plan, counted) in plans.iter().zip(&counts) {
        let selections = counted.runs.values().flat_map(|run| &run.selections);
        mark_shared(refuse_selections(&plan.label, selections))?;
    }
    let (sides, runs) = mark_shared(sides(&folders, &plans, counts, settings))?;
    let pairs = FilePairs { comm, folders: &folders, plans: &plans };
    let (found, bins) = pairs.go_through()?;
    let events: i64 = bins.all[0].iter().sum();
    let (products, sums) = pairs.second_pass(&bins)?;
    let rank_correlation = bins.correlation(events, products);
    let labelled = has_events(&found.labelled).then(|| Paired::of(sums, &found.labelled));
    let [first, second] = sides;
    let comparison = SeasonComparison {
        format: FORMAT.to_string(),
        first,
        second,
        runs,
        events: found.events,
        scored: events as u64,
        rank_correlation,
        labelled,
        at_source: found.at_source,
        off_source: found.off_source,
        counted: found.counted,
        identical: are_identical(&folders),
        changed: found.changed,
    };
    let written = match path.filter(|_| is_root(comm)) {
        Some(path) => write(&path, &comparison),
        None => Ok(()),
    };
    sync_result(comm, written)?;
    Ok(comparison)
}

fn write(path: &Path, comparison: &SeasonComparison) -> Result<()> {
    let json = serde_json::to_vec_pretty(comparison)
        .map_err(|e| Fault::new("cannot write the comparison").found(e).internal())?;
    storage::write_file(path, &json)
}

/// Refuses score files that cannot be used: their events would be missing from one side.
fn refuse_unreadable(counts: &[Counted; 2]) -> Result<()> {
    let mut failed = counts.iter().flat_map(|counted| &counted.failed);
    let Some((file, why)) = failed.next() else { return Ok(()) };
    Err(Fault::new("a score file cannot be compared")
        .file(file)
        .found(format!("{why}, and {} more", failed.count()))
        .advice("run `taiga-flow verify` on both folders, and score these inputs again")
        .input())
}

/// Refuses scorings of different inputs.
fn check_inputs(folders: &[Folder; 2]) -> Result<()> {
    let [a, b] = folders;
    let refuse = |what: &str, expected: String, found: String| {
        Err(Fault::new(what.to_string())
            .file(&b.label)
            .expected(expected)
            .found(found)
            .advice("compare scorings of the same inputs")
            .input())
    };
    let names = |folder: &Folder| -> BTreeSet<String> {
        folder.files.iter().map(|file| file.name.clone()).collect()
    };
    let (of_a, of_b) = (names(a), names(b));
    if let Some(name) = of_a.symmetric_difference(&of_b).next() {
        let only = if of_a.contains(name) { "the first" } else { "the second" };
        return refuse(
            "the two are scorings of different inputs",
            format!("the files of {}", a.label),
            format!("{name} in {only} alone"),
        );
    }
    for (x, y) in a.files.iter().zip(&b.files) {
        if x.input_blake3 != y.input_blake3 || x.rows != y.rows {
            return refuse(
                "the two are scorings of different inputs",
                format!("{} of {} rows, input {}", x.name, x.rows, x.input_blake3),
                format!("{} rows, input {}", y.rows, y.input_blake3),
            );
        }
    }
    Ok(())
}

/// Returns whether all score files of two scorings have the same content.
fn are_identical([a, b]: &[Folder; 2]) -> bool {
    let mut pairs = a.files.iter().zip(&b.files);
    pairs.all(|(x, y)| !x.output_blake3.is_empty() && x.output_blake3 == y.output_blake3)
}

/// What both find on the runs that both can count.
fn sides(
    folders: &[Folder; 2],
    plans: &[SeasonPlan; 2],
    mut counts: [Counted; 2],
    settings: &SeasonSettings,
) -> Result<([Side; 2], Vec<String>)> {
    let models = Models::new(settings)?;
    let season = |which: usize, counted: &Counted| {
        Season::new(SeasonParts {
            folder: &folders[which],
            plan: &plans[which],
            settings,
            models: &models,
            counted,
            simulation: None,
            reference: None,
        })
    };
    let used = |season: &Season| -> BTreeSet<(Option<i64>, String)> {
        season.runs.iter().map(|run| (run.telescope, run.run.clone())).collect()
    };
    let (first, second) = (season(0, &counts[0])?, season(1, &counts[1])?);
    let both = &used(&first) & &used(&second);
    // In the order of the report: by their beginnings.
    let in_both = first.runs.iter().filter(|run| both.contains(&(run.telescope, run.run.clone())));
    let names = in_both.map(|run| run.run.clone()).collect();
    for counted in &mut counts {
        counted.runs.retain(|key, _| both.contains(&(key.telescope, key.label())));
    }
    let side = |which: usize| -> Result<Side> {
        let season = season(which, &counts[which])?;
        Ok(Side {
            scores: season.scores,
            models: season.models,
            point: season.point,
            threshold: season.threshold,
            failed: season.failed,
            tally: season.total.tally,
        })
    };
    Ok(([side(0)?, side(1)?], names))
}

/// Pairs of files, each read by one rank.
struct FilePairs<'a> {
    comm: &'a dyn Communicator,
    folders: &'a [Folder; 2],
    plans: &'a [SeasonPlan; 2],
}

/// Events per bin of the scores of either side.
struct ScoreBins {
    /// Of all events that both scored.
    all: [Vec<i64>; 2],
    /// Of those with a class, inside the cuts of both: (sides)(gammas, hadrons)(bins). Empty
    /// where no event has a class.
    labelled: [[Vec<i64>; 2]; 2],
}

impl ScoreBins {
    fn new() -> ScoreBins {
        ScoreBins { all: [(); 2].map(|()| vec![0; RANK_BINS]), labelled: Default::default() }
    }

    fn add_labelled(&mut self, gamma: bool, of_event: [usize; 2]) {
        for (classes, bin) in self.labelled.iter_mut().zip(of_event) {
            let bins = &mut classes[usize::from(!gamma)];
            bins.resize(RANK_BINS, 0);
            bins[bin] += 1;
        }
    }

    /// The bins of all ranks, on every rank.
    fn reduce(&mut self, comm: &dyn Communicator) -> Result<()> {
        for of_side in &mut self.all {
            comm.all_reduce_sum(of_side)?;
        }
        for bins in self.labelled.iter_mut().flatten() {
            let mut ranks = [i64::from(!bins.is_empty())];
            comm.all_reduce_sum(&mut ranks)?;
            if ranks[0] > 0 {
                bins.resize(RANK_BINS, 0);
                comm.all_reduce_sum(bins)?;
            }
        }
        Ok(())
    }

    fn correlation(&self, events: i64, products: i128) -> Option<f64> {
        let ranks = [doubled_ranks(&self.all[0]), doubled_ranks(&self.all[1])];
        correlation(&self.all, &ranks, events, products)
    }
}

impl FilePairs<'_> {
    fn go_through(&self) -> Result<(PairCounts, ScoreBins)> {
        let mut found = PairCounts::default();
        let mut bins = ScoreBins::new();
        let mut outcome = Ok(());
        for file in self.folders[0].of_rank(self.comm.rank(), self.comm.size()) {
            outcome = self.file(file, |pair| pair.take(&mut found, &mut bins));
            if outcome.is_err() {
                break;
            }
        }
        sync_result(self.comm, outcome)?;
        bins.reduce(self.comm)?;
        Ok((self.gather(&found)?, bins))
    }

    /// Calls `each` with every row of a pair of files.
    fn file(&self, file: &ScoreFileEntry, mut each: impl FnMut(&RowPair)) -> Result<()> {
        // Both list the same names in the same order.
        let of_second = self.folders[1].files.iter().find(|other| other.name == file.name);
        let paths = [&file.path, of_second.map_or(&file.path, |other| &other.path)];
        let files = [ScoreFile::open(paths[0])?, ScoreFile::open(paths[1])?];
        let classifiers = [0, 1]
            .map(|which| EventClassifier::new(&files[which].head, &self.plans[which], &file.name));
        if files[0].head.keys != files[1].head.keys {
            return Err(different_keys(paths[1], None));
        }
        let mut blocks = [ScoreBlock::default(), ScoreBlock::default()];
        let mut first = 0;
        while first < file.rows {
            let next = (first + BLOCK_ROWS).min(file.rows);
            for which in [0, 1] {
                if files[which].head.rows != file.rows {
                    return Err(Fault::new("the rows are not those of the manifest")
                        .file(paths[which])
                        .expected(file.rows)
                        .found(files[which].head.rows)
                        .input());
                }
                files[which].read(first..next, classifiers[which].request(), &mut blocks[which])?;
            }
            for row in 0..blocks[0].rows {
                if (0..blocks[0].keys.len())
                    .any(|k| blocks[0].keys[k][row] != blocks[1].keys[k][row])
                {
                    return Err(different_keys(paths[1], Some(first + row as u64)));
                }
                each(&RowPair {
                    file,
                    classifiers: &classifiers,
                    blocks: &blocks,
                    keys: &files[0].head.keys,
                    row,
                    file_row: first + row as u64,
                });
            }
            first = next;
        }
        Ok(())
    }

    fn gather(&self, mine: &PairCounts) -> Result<PairCounts> {
        let mut all = PairCounts::default();
        for found in gather_values(self.comm, mine)? {
            all.events += found.events;
            all.at_source.merge(found.at_source);
            all.off_source.merge(found.off_source);
            all.counted.merge(found.counted);
            all.labelled.merge(&found.labelled);
            all.changed.extend(found.changed);
        }
        all.keep_first();
        Ok(all)
    }

    /// What needs the bins of all events: the sum of the products of ranks, and the placements
    /// of labelled gammas and hadrons.
    fn second_pass(&self, bins: &ScoreBins) -> Result<(i128, [PlacementSums; 2])> {
        let ranks = [doubled_ranks(&bins.all[0]), doubled_ranks(&bins.all[1])];
        let placements =
            bins.labelled.each_ref().map(|side| side.each_ref().map(|b| doubled_placements(b)));
        let (mut products, mut sums) = (0_i128, [PlacementSums::default(); 2]);
        let mut outcome = Ok(());
        for file in self.folders[0].of_rank(self.comm.rank(), self.comm.size()) {
            outcome = self.file(file, |pair| {
                let Some(of_event) = pair.rank_bins() else { return };
                let [a, b] = of_event;
                products += i128::from(ranks[0][a]) * i128::from(ranks[1][b]);
                if let Some(gamma) = pair.gamma().filter(|_| pair.inside_both()) {
                    // Among the events of the other class; none of it, and all are level.
                    let placed = [0, 1].map(|which| {
                        placements[which][usize::from(gamma)].get(of_event[which]).map_or(0, |p| *p)
                    });
                    sums[usize::from(!gamma)].add(placed);
                }
            });
            if outcome.is_err() {
                break;
            }
        }
        sync_result(self.comm, outcome)?;
        self.gather_sums(products, sums)
    }

    fn gather_sums(
        &self,
        products: i128,
        sums: [PlacementSums; 2],
    ) -> Result<(i128, [PlacementSums; 2])> {
        let words = |s: &PlacementSums| [i128::from(s.events), s.first, s.second, s.squares];
        let mine = std::iter::once(products).chain(sums.iter().flat_map(words));
        let bytes: Vec<u8> = mine.flat_map(i128::to_le_bytes).collect();
        let (mut products, mut all) = (0, [PlacementSums::default(); 2]);
        for bytes in self.comm.all_gather(&bytes)? {
            let numbers = bytes.as_chunks::<16>().0.iter().map(|b| i128::from_le_bytes(*b));
            let numbers: Vec<i128> = numbers.collect();
            let [product, own @ ..] = numbers.as_slice() else { continue };
            products += product;
            for (sums, of_class) in all.iter_mut().zip(own.chunks_exact(4)) {
                let events = u64::try_from(of_class[0]).unwrap_or_default();
                let [first, second, squares] = [1, 2, 3].map(|i| of_class[i]);
                sums.merge(&PlacementSums { events, first, second, squares });
            }
        }
        Ok((products, all))
    }
}

fn has_events(labelled: &Crossed) -> bool {
    let events = |sum: &WeightSum| sum.events > 0;
    labelled.gamma.iter().flatten().any(events) || labelled.hadron.iter().flatten().any(events)
}

/// Twice the mean rank of the events of each bin, from 2 on.
fn doubled_ranks(bins: &[i64]) -> Vec<i64> {
    let mut below = 0;
    let rank = |count: &i64| {
        let doubled = 2 * below + count + 1;
        below += count;
        doubled
    };
    bins.iter().map(rank).collect()
}

fn correlation(
    bins: &[Vec<i64>; 2],
    ranks: &[Vec<i64>; 2],
    events: i64,
    products: i128,
) -> Option<f64> {
    let n = i128::from(events);
    // Doubled ranks have the mean n + 1.
    let at_mean = n * (n + 1) * (n + 1);
    let variance = |which: usize| {
        let terms = bins[which].iter().zip(&ranks[which]);
        let squares: i128 =
            terms.map(|(n, r)| i128::from(*n) * i128::from(*r) * i128::from(*r)).sum();
        (squares - at_mean) as f64
    };
    let (a, b) = (variance(0), variance(1));
    (a > 0.0 && b > 0.0).then(|| (products - at_mean) as f64 / (a.sqrt() * b.sqrt()))
}

/// One row of both scorings.
struct RowPair<'a> {
    file: &'a ScoreFileEntry,
    classifiers: &'a [EventClassifier<'a>; 2],
    blocks: &'a [ScoreBlock; 2],
    keys: &'a [String],
    row: usize,
    file_row: u64,
}

impl RowPair<'_> {
    fn take(&self, found: &mut PairCounts, bins: &mut ScoreBins) {
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

    fn score(&self, which: usize) -> f32 {
        self.classifiers[which].score(&self.blocks[which], self.row)
    }

    /// Whether the event is a gamma, where both say so or both say that it is not.
    fn gamma(&self) -> Option<bool> {
        let class = |which: usize| self.blocks[which].class.get(self.row).copied();
        let gamma = |class: i8| match class {
            c if c == Class::Gamma.code() => Some(true),
            c if c == Class::Hadron.code() => Some(false),
            _ => None,
        };
        let (first, second) = (class(0).and_then(gamma)?, class(1).and_then(gamma)?);
        (first == second).then_some(first)
    }

    /// Whether the event is inside the cuts of both at the source.
    fn inside_both(&self) -> bool {
        self.blocks.iter().all(|block| block.status[0][self.row] == 0)
    }

    /// Bins of both scores at the source, where there are both.
    fn rank_bins(&self) -> Option<[usize; 2]> {
        let scored = |which: usize| {
            self.blocks[which].status[0][self.row] & (NOT_FINITE | OUT_OF_DOMAIN) == 0
                && self.score(which).is_finite()
        };
        (scored(0) && scored(1)).then(|| [0, 1].map(|which| rank_bin(self.score(which))))
    }
}

/// The bin of a score, without its last bits.
fn rank_bin(value: f32) -> usize {
    (ordered_bits(value) >> DROPPED_BITS) as usize
}

fn different_keys(path: &Path, row: Option<u64>) -> Error {
    let fault = Fault::new("the keys are not those of the other scoring").file(path);
    let fault = match row {
        Some(row) => fault.row(row),
        None => fault,
    };
    fault.advice("compare scorings of the same inputs").input()
}

impl Migration {
    fn add(&mut self, first: bool, second: bool) {
        *match (first, second) {
            (true, true) => &mut self.both,
            (true, false) => &mut self.first_alone,
            (false, true) => &mut self.second_alone,
            (false, false) => &mut self.neither,
        } += 1;
    }

    fn merge(&mut self, other: Migration) {
        self.both += other.both;
        self.first_alone += other.first_alone;
        self.second_alone += other.second_alone;
        self.neither += other.neither;
    }
}

impl fmt::Display for SeasonComparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NAME: usize = 36;
        let (a, b) = (&self.first, &self.second);
        writeln!(f, "  {:NAME$}{:>24}{:>24}", "", a.scores, b.scores)?;
        let mut line = |name: &str, of: &dyn Fn(&Side) -> String| {
            writeln!(f, "  {name:NAME$}{:>24}{:>24}", of(a), of(b))
        };
        let dash = || "-".to_string();
        let short = |model: &String| model.chars().take(12).collect::<String>();
        line("model", &|s| s.models.iter().map(short).collect::<Vec<_>>().join(", "))?;
        line("working point", &|s| s.point.clone())?;
        line("N_on", &|s| s.tally.on.to_string())?;
        line("N_off", &|s| s.tally.off.iter().sum::<u64>().to_string())?;
        line("excess", &|s| s.tally.excess.map_or_else(dash, |x| x.to_string()))?;
        line("significance", &|s| s.tally.significance.map_or_else(dash, |x| format!("{x:.2}")))?;
        if self.identical {
            writeln!(f, "  {IDENTICAL}")?;
        }
        let correlation = self.rank_correlation.map_or_else(dash, |rho| format!("{rho:.5}"));
        writeln!(
            f,
            "  {:NAME$}{correlation:>24} of {} events",
            "rank correlation at the source", self.scored
        )?;
        if let Some(labelled) = &self.labelled {
            paired(f, labelled)?;
        }
        writeln!(
            f,
            "  {:NAME$}{:>12}{:>12}{:>12}{:>12}",
            "events", "both", "first", "second", "neither"
        )?;
        let rows = [
            ("pass at the source", self.at_source),
            ("pass at an OFF position", self.off_source),
            ("counted at the source", self.counted),
        ];
        for (name, m) in rows {
            let Migration { both, first_alone, second_alone, neither } = m;
            writeln!(
                f,
                "  {name:NAME$}{both:>12}{first_alone:>12}{second_alone:>12}{neither:>12}"
            )?;
        }
        for (file, why) in a.failed.iter().chain(&b.failed).collect::<BTreeMap<_, _>>() {
            writeln!(f, "  in no figure: {file}: {why}")?;
        }
        Ok(())
    }
}

/// The two as classifiers of labelled events.
fn paired(f: &mut fmt::Formatter<'_>, of: &Paired) -> fmt::Result {
    const NAME: usize = 36;
    let dash = || "-".to_string();
    let mut line = |name: &str, [a, b]: [String; 2]| writeln!(f, "  {name:NAME$}{a:>24}{b:>24}");
    let auc = of.auc.map(|auc| auc.map(|auc| format!("{auc:.4}")));
    line("AUC", auc.unwrap_or_else(|| [dash(), dash()]))?;
    if let Some(selected) = &of.selected {
        let each = |figure: &dyn Fn(&Selected) -> String| selected.each_ref().map(figure);
        line("gamma efficiency of all", each(&|s| s.gamma_efficiency.to_string()))?;
        line("hadron survival of all", each(&|s| s.hadron_survival.to_string()))?;
        line("Q", each(&|s| s.quality.map_or_else(dash, |q| q.to_string())))?;
    }
    let first =
        |d: Option<Measured>| d.map_or_else(dash, |d| format!("the first is {}", d.compared()));
    let of_area = format!("{} gammas, {} hadrons", of.events.gamma, of.events.hadron);
    writeln!(f, "  {:NAME$}{}, on {of_area}", "AUC, paired", first(of.auc_difference))?;
    let of_all = format!("{} gammas, {} hadrons", of.all.gamma, of.all.hadron);
    writeln!(f, "  {:NAME$}{}, on {of_all}", "Q, paired", first(of.quality_difference))?;
    writeln!(f, "  {:NAME$}events that a model was trained on may be among them", "")
}

#[cfg(test)]
mod tests {
    use super::*;
    use taiga_flow_gpu::random::Stream;

    fn of(pairs: &[[f32; 2]]) -> Option<f64> {
        let mut bins = [vec![0; RANK_BINS], vec![0; RANK_BINS]];
        for pair in pairs {
            for which in [0, 1] {
                bins[which][rank_bin(pair[which])] += 1;
            }
        }
        let ranks = [doubled_ranks(&bins[0]), doubled_ranks(&bins[1])];
        let product = |p: &[f32; 2]| {
            i128::from(ranks[0][rank_bin(p[0])]) * i128::from(ranks[1][rank_bin(p[1])])
        };
        correlation(&bins, &ranks, pairs.len() as i64, pairs.iter().map(product).sum())
    }

    #[test]
    fn the_rank_correlation_is_spearmans() {
        // scipy.stats.spearmanr([1, 2, 3, 4, 5, 5, 7], [2, 1, 4, 3, 7, 5, 5]) = 0.8454545…
        let a = [1.0, 2.0, 3.0, 4.0, 5.0, 5.0, 7.0];
        let b = [2.0, 1.0, 4.0, 3.0, 7.0, 5.0, 5.0];
        let pairs: Vec<[f32; 2]> = a.into_iter().zip(b).map(|(a, b)| [a, b]).collect();
        assert!((of(&pairs).unwrap() - SCIPY).abs() < 1e-12, "{:?}", of(&pairs));
        let stream = Stream::new(2, "pairs", &[]);
        let same: Vec<[f32; 2]> =
            (0..1000).map(|i| stream.normal(i) as f32 * 8.0).map(|x| [x, x * x * x]).collect();
        assert!((of(&same).unwrap() - 1.0).abs() < 1e-4);
        let turned: Vec<[f32; 2]> = same.iter().map(|[x, _]| [*x, -x]).collect();
        assert!((of(&turned).unwrap() + 1.0).abs() < 1e-4);
        assert_eq!((of(&[]), of(&[[1.0, 2.0]])), (None, None));
    }

    const SCIPY: f64 = 0.845_454_545_454_545_6;
}
