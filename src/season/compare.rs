//! Two scorings of the same inputs against each other: how the scores are ordered, which
//! events change sides of the threshold, and what both find on the same runs.
//!
//! The rank correlation (Spearman 1904) is of all events that both scored at the source.
//! Scores are told apart to 12 of their 23 bits of mantissa and equal ones share the mean of
//! their ranks; ranks are then whole numbers (doubled), so that sums over files and ranks
//! are exact in any order.

use super::folder::{Counted, Folder, Listed, count};
use super::judge::Judge;
use super::models::Models;
use super::plan::Plan;
use super::summary::{Parts, Season, Tally};
use crate::config::SeasonSettings;
use crate::data::durable;
use crate::data::scores::{ScoreBlock, ScoreFile};
use crate::data::selection::{NOT_FINITE, OUT_OF_DOMAIN};
use crate::error::{Error, Fault, Result};
use crate::figures::distribution::ordered_bits;
use crate::world::{World, agree, common, is_root};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

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
    pub overwrite: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    pub format: String,
    pub first: Side,
    pub second: Side,
    /// Runs that both could count.
    pub runs: Vec<String>,
    pub events: u64,
    /// Events that both scored at the source, and their rank correlation.
    pub scored: u64,
    pub rank_correlation: Option<f64>,
    /// Events by whether they pass at the source.
    pub at_source: Migration,
    /// Pairs of event and OFF position by whether they pass.
    pub off_source: Migration,
    /// Events by whether they are counted at the source.
    pub counted: Migration,
    /// Events counted at the source by one of the two alone.
    pub changed: Vec<Changed>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Side {
    pub scores: String,
    pub models: Vec<String>,
    pub point: String,
    pub threshold: Option<f64>,
    #[serde(flatten)]
    pub tally: Tally,
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
struct Found {
    events: u64,
    at_source: Migration,
    off_source: Migration,
    counted: Migration,
    changed: Vec<Changed>,
}

impl Found {
    fn keep_first(&mut self) {
        self.changed.sort_by(|a, b| a.file.cmp(&b.file).then(a.row.cmp(&b.row)));
        self.changed.truncate(MOST_CHANGED);
    }
}

/// Compares; every rank gets the comparison.
pub fn run(world: &dyn World, options: &Options) -> Result<Comparison> {
    let path = options.output.as_ref().map(|folder| folder.join(COMPARISON));
    if let Some(path) = &path {
        agree(world, durable::refuse_existing(path, options.overwrite))?;
    }
    let settings = &options.settings;
    let open = || -> Result<[Folder; 2]> {
        let [a, b] = &options.scores;
        let open = |path: &PathBuf| Folder::open(std::slice::from_ref(path));
        let folders = [open(a)?, open(b)?];
        check_inputs(&folders)?;
        Ok(folders)
    };
    let folders = agree(world, open())?;
    let plan = |folder: &Folder| Plan::new(&folder.head()?, settings, false);
    let plans = || -> Result<[Plan; 2]> { Ok([plan(&folders[0])?, plan(&folders[1])?]) };
    let plans = agree(world, plans())?;
    if plans[0].positions != plans[1].positions {
        return common(Err(Fault::new("the two were scored at other positions")
            .expected(format!("{:?} deg", plans[0].positions))
            .found(format!("{:?} deg", plans[1].positions))
            .advice("score both with the same configuration")
            .input()));
    }
    let counts = [
        count(world, &folders[0], &plans[0], settings)?,
        count(world, &folders[1], &plans[1], settings)?,
    ];
    let (sides, runs) = common(sides(&folders, &plans, counts, settings))?;
    let pairs = Pairs { world, folders: &folders, plans: &plans };
    let (found, bins) = pairs.go_through()?;
    let (scored, rank_correlation) = pairs.rank_correlation(&bins)?;
    let [first, second] = sides;
    let comparison = Comparison {
        format: FORMAT.to_string(),
        first,
        second,
        runs,
        events: found.events,
        scored,
        rank_correlation,
        at_source: found.at_source,
        off_source: found.off_source,
        counted: found.counted,
        changed: found.changed,
    };
    let written = match path.filter(|_| is_root(world)) {
        Some(path) => write(&path, &comparison),
        None => Ok(()),
    };
    agree(world, written)?;
    Ok(comparison)
}

fn write(path: &Path, comparison: &Comparison) -> Result<()> {
    let json = serde_json::to_vec_pretty(comparison)
        .map_err(|e| Fault::new("cannot write the comparison").found(e).internal())?;
    durable::write_file(path, &json)
}

/// Refuses scorings of different inputs.
fn check_inputs(folders: &[Folder; 2]) -> Result<()> {
    let [a, b] = folders;
    let refuse = |what: &str, expected: String, found: String| {
        Err(Fault::new(what.to_string())
            .file(&b.told)
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
            format!("the files of {}", a.told),
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

/// What both find on the runs that both can count.
fn sides(
    folders: &[Folder; 2],
    plans: &[Plan; 2],
    mut counts: [Counted; 2],
    settings: &SeasonSettings,
) -> Result<([Side; 2], Vec<String>)> {
    let models = Models::new(settings)?;
    let season = |which: usize, counted: &Counted| {
        Season::new(Parts {
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
        counted.runs.retain(|key, _| both.contains(&(key.telescope, key.told())));
    }
    let side = |which: usize| -> Result<Side> {
        let season = season(which, &counts[which])?;
        Ok(Side {
            scores: season.scores,
            models: season.models,
            point: season.point,
            threshold: season.threshold,
            tally: season.total.tally,
        })
    };
    Ok(([side(0)?, side(1)?], names))
}

/// Pairs of files, each read by one rank.
struct Pairs<'a> {
    world: &'a dyn World,
    folders: &'a [Folder; 2],
    plans: &'a [Plan; 2],
}

/// Events per bin of the scores of either side.
type Bins = [Vec<i64>; 2];

impl Pairs<'_> {
    fn go_through(&self) -> Result<(Found, Bins)> {
        let mut found = Found::default();
        let mut bins = [vec![0; RANK_BINS], vec![0; RANK_BINS]];
        let mut outcome = Ok(());
        for file in self.folders[0].of_rank(self.world.rank(), self.world.size()) {
            outcome = self.file(file, |pair| pair.take(&mut found, &mut bins));
            if outcome.is_err() {
                break;
            }
        }
        agree(self.world, outcome)?;
        for of_side in &mut bins {
            self.world.all_reduce_sum(of_side)?;
        }
        Ok((self.gather(&found)?, bins))
    }

    /// Calls `each` with every row of a pair of files.
    fn file(&self, file: &Listed, mut each: impl FnMut(&Pair)) -> Result<()> {
        // Both list the same names in the same order.
        let of_second = self.folders[1].files.iter().find(|other| other.name == file.name);
        let paths = [&file.path, of_second.map_or(&file.path, |other| &other.path)];
        let files = [ScoreFile::open(paths[0])?, ScoreFile::open(paths[1])?];
        let judges =
            [0, 1].map(|which| Judge::new(&files[which].head, &self.plans[which], &file.name));
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
                files[which].read(first..next, judges[which].wanted(), &mut blocks[which])?;
            }
            for row in 0..blocks[0].rows {
                if (0..blocks[0].keys.len())
                    .any(|k| blocks[0].keys[k][row] != blocks[1].keys[k][row])
                {
                    return Err(different_keys(paths[1], Some(first + row as u64)));
                }
                each(&Pair {
                    file,
                    judges: &judges,
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

    fn gather(&self, mine: &Found) -> Result<Found> {
        let broken = |e: serde_json::Error| Fault::new("cannot exchange").found(e).internal();
        let bytes = agree(self.world, serde_json::to_vec(mine).map_err(broken))?;
        let mut all = Found::default();
        for bytes in self.world.all_gather(&bytes)? {
            let found: Found = serde_json::from_slice(&bytes).map_err(broken)?;
            all.events += found.events;
            all.at_source.merge(found.at_source);
            all.off_source.merge(found.off_source);
            all.counted.merge(found.counted);
            all.changed.extend(found.changed);
        }
        all.keep_first();
        Ok(all)
    }

    /// Events that both scored, and the correlation of their ranks; `None` where one side
    /// has one score only.
    fn rank_correlation(&self, bins: &Bins) -> Result<(u64, Option<f64>)> {
        let ranks = [doubled_ranks(&bins[0]), doubled_ranks(&bins[1])];
        let mut products = 0_i128;
        let mut outcome = Ok(());
        for file in self.folders[0].of_rank(self.world.rank(), self.world.size()) {
            outcome = self.file(file, |pair| {
                if let Some([a, b]) = pair.rank_bins() {
                    products += i128::from(ranks[0][a]) * i128::from(ranks[1][b]);
                }
            });
            if outcome.is_err() {
                break;
            }
        }
        agree(self.world, outcome)?;
        let mut sum = 0_i128;
        for bytes in self.world.all_gather(&products.to_le_bytes())? {
            let bytes: [u8; 16] = bytes
                .try_into()
                .map_err(|_| Fault::new("a rank told a sum of another size").internal())?;
            sum += i128::from_le_bytes(bytes);
        }
        let events: i64 = bins[0].iter().sum();
        Ok((events as u64, correlation(bins, &ranks, events, sum)))
    }
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

fn correlation(bins: &Bins, ranks: &[Vec<i64>; 2], events: i64, products: i128) -> Option<f64> {
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
struct Pair<'a> {
    file: &'a Listed,
    judges: &'a [Judge<'a>; 2],
    blocks: &'a [ScoreBlock; 2],
    keys: &'a [String],
    row: usize,
    file_row: u64,
}

impl Pair<'_> {
    fn take(&self, found: &mut Found, bins: &mut Bins) {
        found.events += 1;
        if let Some(of_event) = self.rank_bins() {
            bins.iter_mut().zip(of_event).for_each(|(bins, bin)| bins[bin] += 1);
        }
        let passes = [0, 1].map(|w| self.judges[w].passes(&self.blocks[w], self.row));
        let positions = self.blocks[0].status.len();
        for k in 0..positions {
            let [a, b] = passes.map(|passes| passes >> k & 1 == 1);
            let of = if k == 0 { &mut found.at_source } else { &mut found.off_source };
            of.add(a, b);
        }
        let places = [0, 1]
            .map(|w| self.judges[w].place(passes[w], &self.blocks[w], self.row, self.file_row));
        let [a, b] = places.map(|place| place == Some(0));
        found.counted.add(a, b);
        if a != b {
            let keys = self.keys.iter().enumerate();
            let keys = keys.map(|(k, name)| (name.clone(), self.blocks[0].keys[k][self.row]));
            found.changed.push(Changed {
                file: self.file.name.clone(),
                row: self.file_row,
                keys: keys.collect(),
                time_ns: self.judges[0].time_ns(&self.blocks[0], self.row),
                scores: [0, 1].map(|w| Some(self.score(w)).filter(|score| score.is_finite())),
                counted_at: places,
            });
            if found.changed.len() >= 2 * MOST_CHANGED {
                found.keep_first();
            }
        }
    }

    fn score(&self, which: usize) -> f32 {
        self.judges[which].score(&self.blocks[which], self.row)
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

impl fmt::Display for Comparison {
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
        let told = self.rank_correlation.map_or_else(dash, |rho| format!("{rho:.5}"));
        writeln!(
            f,
            "  {:NAME$}{told:>24} of {} events",
            "rank correlation at the source", self.scored
        )?;
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
        Ok(())
    }
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
