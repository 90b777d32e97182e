//! The figures of a season, from its counts: what `season.json` holds.

use super::counting::area::{BinLeak, Simulation, TrueEnergies};
use super::counting::candidates::Candidate;
use super::counting::clock::DISAGREEMENT;
use super::counting::combine::{self, Combined};
use super::counting::counts::{OnOffHistogram, Portion, RunCounts, RunKey, grow};
use super::counting::sums::Sum;
use super::folder::{Counted, Folder};
use super::models::Models;
use super::names::{is_hash, number_name};
use super::overlaps;
use super::pages::pictures::Picture;
use super::plan::{SeasonPlan, refuse_selections};
use super::showers::{self, INDEPENDENT, RunTimes, Showers};
use super::time;
use crate::config::{Interval, OtherModel, SeasonSettings};
use crate::data::schema::unix_time;
use crate::data::selection::STATUS_BITS;
use crate::error::{Fault, Result};
use crate::statistics::measured::significant;
use crate::statistics::{Distribution, Drift, Homogeneity, Leak, Measured, OnOff, ThresholdScan};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

pub const FORMAT: &str = "taiga-flow-season 1";
/// An upper limit stands beside excesses of less significance.
pub const LIMIT_BELOW: f64 = 3.0;
const SCORE_BINS: usize = 60;
const HOUR: f64 = 3600.0;
/// Difference of source offsets that matters for the leak [deg].
const OFFSET_MARGIN: f64 = 0.2;
/// Counts at OFF positions that are less likely than this are warned of.
const LEAST_HOMOGENEITY: f64 = 1e-6;
/// So is a significance below this.
const LEAST_SIGNIFICANCE: f64 = -5.0;
/// A smaller share of the events inside the model's cuts is warned of.
const LEAST_INSIDE: f64 = 0.01;
/// Share of the counted events outside all bins of energy above which a warning says so.
const MOST_OUTSIDE: f64 = 0.1;
/// Share of the rows of a run without a score above which a warning says so.
const MOST_WITHOUT_SCORE: f64 = 0.01;
/// Share of the simulated gammas outside of the energies thrown above which a warning says so.
const MOST_NOT_THROWN: f64 = 0.05;
/// Runs that are all named where the same is odd about them.
const NAMED_RUNS: usize = 4;

/// What a season is made of.
pub struct SeasonParts<'a> {
    pub folder: &'a Folder,
    pub plan: &'a SeasonPlan,
    pub settings: &'a SeasonSettings,
    pub models: &'a Models,
    pub counted: &'a Counted,
    pub simulation: Option<Simulation>,
    pub reference: Option<&'a Counted>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Season {
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
    /// What runs are compared with for drift.
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

/// Figures of any set of events.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct EventTally {
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
    /// The excess with what leaks into OFF given back.
    pub corrected: Option<Measured>,
    /// Absent without counts.
    pub significance: Option<f64>,
    /// Of the runs with a live time alone.
    pub per_root_hour: Option<f64>,
    /// Of the excess at 95 %, where the significance is low; and given back the leak.
    pub upper_limit: Option<f64>,
    pub upper_limit_corrected: Option<f64>,
    pub homogeneity: Option<Homogeneity>,
    pub naive: Option<Naive>,
}

/// The same events, each counted wherever it passes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Naive {
    pub on: u64,
    pub off: Vec<u64>,
    pub excess: Measured,
    pub significance: f64,
    /// Events that pass at several positions, and those of them that pass at the source.
    pub overlapping: u64,
    pub overlapping_on: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Group {
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
pub struct EnergyBin {
    pub low_tev: f64,
    pub high_tev: f64,
    pub on: u64,
    pub off: u64,
    pub excess: Measured,
    /// The excess with the leak of this bin given back, where it is resolved.
    pub corrected: Option<Measured>,
    /// Of simulated gammas in this bin; absent without them.
    #[serde(default)]
    pub leak: Option<BinLeak>,
    /// Absent without counts.
    pub significance: Option<f64>,
    pub upper_limit: Option<f64>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Night {
    pub night: Option<String>,
    pub telescope: Option<i64>,
    pub runs: u64,
    #[serde(flatten)]
    pub tally: EventTally,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunRow {
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
pub struct PortionRow {
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
pub struct DriftOf {
    pub column: String,
    #[serde(flatten)]
    pub drift: Drift,
    pub flagged: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Cumulative {
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
pub struct ScoreHistogram {
    pub low: f64,
    pub high: f64,
    pub on: Vec<u64>,
    pub off: Vec<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    pub run: String,
    pub telescope: Option<i64>,
    pub events: u64,
    pub reason: String,
}

/// A run with its place in time.
struct Dated<'a> {
    key: &'a RunKey,
    counts: &'a RunCounts,
    sum: Portion,
    season: Option<String>,
    night: Option<String>,
    utc_offset: f64,
}

impl Season {
    pub fn new(parts: SeasonParts) -> Result<Season> {
        let SeasonParts { folder, plan, settings, models, counted, simulation, reference } = parts;
        let mut warnings: Vec<String> = counted.warning.iter().cloned().collect();
        warnings.extend(counted.labels.warning(folder.files.len()));
        warnings.extend(folder.few_inside(LEAST_INSIDE));
        warnings.extend(folder.implausible());
        let (mut used, mut refused) = (Vec::new(), Vec::new());
        let mut all: Vec<Dated> =
            counted.runs.iter().map(|(key, counts)| Dated::new(key, counts, settings)).collect();
        all.sort_by_key(Dated::order);
        for run in all {
            run.warn(&mut warnings);
            match run.rejection_reason(plan, models, &mut warnings) {
                None => used.push(run),
                Some(reason) => refused.push((run, reason)),
            }
        }
        warnings.extend(overlapping(&used));
        warnings.extend(without_score(&used));
        let not_counted: BTreeSet<&RunKey> = refused.iter().map(|(run, _)| run.key).collect();
        let refused: Vec<Refused> =
            refused.iter().map(|(run, reason)| run.refused(reason.clone())).collect();
        if let (true, Some(first)) = (used.is_empty(), refused.first()) {
            return Err(Fault::new(format!("no run can be counted; run {}", first.run))
                .found(&first.reason)
                .input());
        }
        let scored = used.iter().flat_map(|run| {
            let of = (run.key.telescope, run.season.as_deref());
            run.counts.models.iter().map(move |model| (of.0, of.1, model.as_str()))
        });
        warnings.extend(models.refuse_mixed(scored, folder.are_folds)?);
        let selections = used.iter().flat_map(|run| &run.counts.selections);
        let of_simulation = simulation.iter().flat_map(|s| &s.selections);
        refuse_selections(&plan.label, selections.chain(of_simulation))?;
        let images = used.iter().map(|run| (run.key.telescope, &run.counts.images[..]));
        combine::check_keys(&plan.shower_key, images)?;
        let figures = Figures {
            plan,
            leak: simulation.as_ref().map(|s| s.leak),
            leaks: simulation.as_ref().map_or(&[], |s| &s.leaks),
        };
        let whole: Vec<&Dated> = used.iter().collect();
        let total = figures.group(None, None, &whole);
        if let Some(simulation) = &simulation {
            warn_of_simulation(simulation, &used, &total, &plan.edges, &mut warnings);
        }
        warn_of_energies(&total, &mut warnings);
        warn_of_background(&total.tally, &mut warnings);
        if total.showers == Showers::Independent {
            warnings.push(INDEPENDENT.to_string());
        }
        let groups = grouped_by(&used, |run| (run.season.clone(), run.key.telescope))
            .into_iter()
            .map(|((season, telescope), runs)| figures.group(season, telescope, &runs));
        let nights = grouped_by(&used, |run| (run.night.clone(), run.key.telescope))
            .into_iter()
            .map(|((night, telescope), runs)| Night {
                night,
                telescope,
                runs: runs.len() as u64,
                tally: figures.tally(&sum_of(&runs)),
            });
        let nights = by_date(nights.collect());
        let drifts = Drifts::new(&used, reference, settings);
        let mut drift = drifts.all(&used).into_iter();
        let failed = not_in_figures(folder, counted);
        let used_models: BTreeSet<&String> = used.iter().flat_map(|r| &r.counts.models).collect();
        let (theta2, alpha) = (pair(&used, |c| &c.theta2), pair(&used, |c| &c.alpha));
        let season = Season {
            format: FORMAT.to_string(),
            scores: folder.label.clone(),
            models: used_models.into_iter().cloned().collect(),
            point: plan.label.clone(),
            threshold: plan.threshold,
            cuts: settings.cuts.clone(),
            positions: plan.positions.clone(),
            off_positions: plan.off().map(|k| plan.positions[k]).collect(),
            groups: groups.collect(),
            nights,
            runs: used
                .iter()
                .map(|run| figures.run(run, drift.next().unwrap_or_default()))
                .collect(),
            portions: used.iter().flat_map(|run| figures.portions(run)).collect(),
            cumulative: figures.cumulative(&used, total.showers),
            theta2,
            alpha,
            score: scores(&used),
            scan: scan(&used, plan, &total),
            drift_reference: drifts.label,
            candidates: counted
                .candidates
                .iter()
                .filter(|c| !not_counted.contains(&key_of(c)))
                .cloned()
                .collect(),
            pictures: Vec::new(),
            total,
            simulation,
            refused,
            failed,
            warnings: merge_warnings(warnings),
        };
        Ok(season)
    }
}

/// Returns the files that could not be scored or read, with the reason.
pub fn not_in_figures(folder: &Folder, counted: &Counted) -> BTreeMap<String, String> {
    let of_scoring = folder.failed.iter().map(|(file, why)| (file.clone(), why.to_string()));
    of_scoring.chain(counted.failed.clone()).collect()
}

/// Returns the run that a candidate belongs to.
fn key_of(candidate: &Candidate) -> RunKey {
    let Candidate { telescope, run, .. } = *candidate;
    let file = if run.is_none() { candidate.file.clone() } else { String::new() };
    RunKey { telescope, run, file }
}

/// Orders nights by date, those without one last.
fn by_date(mut nights: Vec<Night>) -> Vec<Night> {
    nights.sort_by_key(|night| night.night.is_none());
    nights
}

impl RunKey {
    /// The run's number, the first digits of its hash, or its file.
    pub fn label(&self) -> String {
        self.run.map_or_else(|| self.file.clone(), number_name)
    }
}

impl<'a> Dated<'a> {
    fn new(key: &'a RunKey, counts: &'a RunCounts, settings: &SeasonSettings) -> Dated<'a> {
        let sum = counts.sum();
        let of = |name: fn(i64, f64) -> String| {
            sum.clock.span().map(|(first, _)| name(first, settings.time.utc_offset))
        };
        let utc_offset = settings.time.utc_offset;
        Dated { key, counts, season: of(time::season), night: of(time::night), utc_offset, sum }
    }

    fn start(&self) -> Option<i64> {
        self.sum.clock.span().map(|(first, _)| first)
    }

    /// The order of runs: by their beginnings, then by name; those without times last.
    fn order(&self) -> (bool, Option<i64>, Option<i64>, String, Option<i64>) {
        let start = self.start();
        let number = self.key.run.filter(|run| !is_hash(*run));
        (start.is_none(), start, number, self.key.label(), self.key.telescope)
    }

    fn watch(&self) -> RunTimes<'a> {
        RunTimes {
            telescope: self.key.telescope,
            segments: if self.start().is_some() { &self.counts.segments } else { &[] },
            overlaps: self.counts.overlapping_files().is_some(),
        }
    }

    fn refused(&self, reason: String) -> Refused {
        let (run, telescope) = (self.key.label(), self.key.telescope);
        Refused { run, telescope, events: self.sum.events, reason }
    }

    fn label(&self) -> String {
        match self.key.telescope {
            Some(telescope) => format!("run {} of telescope {telescope}", self.key.label()),
            None => format!("run {}", self.key.label()),
        }
    }

    /// What is odd about the run and does not forbid to count it.
    fn warn(&self, warnings: &mut Vec<String>) {
        let (run, clock) = (self.label(), &self.sum.clock);
        if clock.backwards > 0 {
            let place = clock.backwards_at.as_ref();
            let place =
                place.map_or(String::new(), |(file, row)| format!(", first at {file}, row {row}"));
            warnings.push(format!(
                "{run}: the clock goes backwards {} time(s){place}; {}",
                clock.backwards,
                if clock.is_unordered() {
                    "its events are not in the order of time: it has no live time from them"
                } else {
                    "these intervals are not live time"
                }
            ));
        }
        if let Some((a, b)) = self.counts.overlapping_files() {
            warnings.push(format!(
                "{run}: the times of {a} and {b} overlap, live time counts twice; if they are of two telescopes, score them below folders IACT01, IACT02, or with a key telescope_id"
            ));
        }
        let hashed = |number: Option<i64>| number.is_some_and(is_hash);
        if hashed(self.key.run) && self.counts.portions.iter().any(|(p, _)| p.is_some()) {
            warnings.push(format!(
                "{run}: named by a hash of file and portion, so a portion counts as a run; convert tables whose names tell the run (DDMMYY.RR…)"
            ));
        }
        if self.counts.portions.iter().all(|(number, _)| number.is_none()) {
            warnings.push(format!("{run}: no portions; the run counts as one"));
        }
        if self.counts.energy_of_source {
            warnings.push(format!(
                "{run}: not in the bins of energy: its score files hold energies at the source alone (format 2); score again with this version"
            ));
        }
        self.warn_of_times(warnings);
        warnings.extend(self.date_warning());
        if let Some(share) = clock.delta_share().filter(|s| (s - 1.0).abs() > DISAGREEMENT) {
            let (by, less) = (100.0 * DISAGREEMENT, if share < 1.0 { "below" } else { "above" });
            warnings.push(format!(
                "{run}: the sum of delta_time is more than {by} % {less} the live time: rows are missing, or times are wrong"
            ));
        }
    }

    /// Returns a warning where the date in the run number is not that of its times.
    fn date_warning(&self) -> Option<String> {
        let (run, start) = (self.key.run?, self.start()?);
        let (nights, date) = time::nights_from_number(run, start, self.utc_offset)?;
        // The number may have the date of the evening, of the morning, or of the day in UTC.
        (nights.abs() > 1).then(|| {
            let night = self.night.as_deref().unwrap_or_default();
            format!(
                "{}: its number has the date {date}, its times are of the night {night}: is the key `run` or the clock wrong?",
                self.label()
            )
        })
    }

    /// Warns of times that are absent or not plausible.
    fn warn_of_times(&self, warnings: &mut Vec<String>) {
        let (run, clock) = (self.label(), &self.sum.clock);
        if clock.unusable_deltas > 1 && !clock.has_deltas() {
            warnings.push(format!(
                "{run}: delta_time is not used: {} of {} values are not above 0 or exceed the allowed pause; seconds are expected",
                clock.unusable_deltas,
                clock.unusable_deltas + clock.deltas
            ));
        }
        let instead = if clock.has_deltas() {
            "live time is the sum of delta_time"
        } else {
            "left out of live time, rates and σ/√h"
        };
        if clock.has_times() {
            if let Some((file, row, time)) = &clock.implausible_at {
                warnings.push(format!(
                    "{run}: {} time(s) outside of 2000 to 2100, first {} at {file}, row {row}",
                    clock.implausible,
                    unix_time::describe(*time)
                ));
            }
            if clock.stalled > 0 || clock.stands_still() {
                let events = clock.stalled.max(clock.live_events);
                let then = if clock.stands_still() { instead } else { "these are not live" };
                warnings
                    .push(format!("{run}: the clock stands still during {events} events; {then}"));
            }
            return;
        }
        let what = match &clock.implausible_at {
            None => "no times (unix_time_ns)".to_string(),
            Some((.., time)) => match unix_time::likely_unit(*time) {
                Some(unit) => format!("times outside of 2000 to 2100: unix_time_ns holds {unit}?"),
                None => "times outside of 2000 to 2100 (unix_time_ns)".to_string(),
            },
        };
        warnings.push(format!("{run}: {what}; {instead}"));
    }

    /// Why the run must not be counted.
    fn rejection_reason(
        &self,
        plan: &SeasonPlan,
        models: &Models,
        warnings: &mut Vec<String>,
    ) -> Option<String> {
        for model in &self.counts.models {
            let reason = models.rejection_reason(self.key.telescope, self.season.as_deref(), model);
            match (reason, models.other) {
                (Some(reason), OtherModel::Refuse) => return Some(reason),
                (Some(reason), OtherModel::Flag) => {
                    warnings.push(format!("{}: {reason}", self.label()));
                }
                (None, _) => {}
            }
        }
        if self.counts.models.len() > 1 {
            return Some("its files were scored with several models".to_string());
        }
        plan.offset_rejection(self.counts.offset)
    }
}

/// The same of several runs is told once: with all of them, or with the first and the last of more
/// than [`NAMED_RUNS`].
fn merge_warnings(warnings: Vec<String>) -> Vec<String> {
    let parts = |warning: &str| {
        warning.split_once(": ").map(|(run, text)| (run.to_string(), text.to_string()))
    };
    let mut runs: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (run, text) in warnings.iter().filter_map(|w| parts(w)) {
        runs.entry(text).or_default().push(run);
    }
    let mut merged = Vec::new();
    for warning in warnings {
        let of = parts(&warning).and_then(|(_, text)| Some((runs.get_mut(&text)?, text)));
        match of {
            Some((runs, text)) if runs.len() > 1 && runs.len() <= NAMED_RUNS => {
                merged.push(format!("{}: {text}", std::mem::take(runs).join(", ")));
            }
            Some((runs, text)) if runs.len() > NAMED_RUNS => {
                let all = std::mem::take(runs);
                let first = &all[0];
                merged.push(format!("{} runs, such as {first}: {text}", all.len()));
            }
            // Told with the first of them.
            Some((runs, _)) if runs.is_empty() => {}
            _ => merged.push(warning),
        }
    }
    merged
}

/// Joins the first [`NAMED_RUNS`] names, and says how many more there are.
fn first_named(names: &[String]) -> String {
    let first = names[..names.len().min(NAMED_RUNS)].join(", ");
    match names.len().saturating_sub(NAMED_RUNS) {
        0 => first,
        more => format!("{first} and {more} more"),
    }
}

/// Returns a warning of runs of one telescope that overlap in time.
fn overlapping(runs: &[Dated]) -> Option<String> {
    let found = overlaps::of(&runs.iter().map(Dated::watch).collect::<Vec<_>>());
    let pair = |of: &overlaps::Overlap| {
        let [one, other] = of.runs.map(|run| runs[run].label());
        format!("{one} and {other} by {:.1} s", of.ns as f64 / 1e9)
    };
    let pairs: Vec<String> = found.iter().map(pair).collect();
    (!pairs.is_empty()).then(|| {
        format!(
            "runs of one telescope overlap in time, and their live time counts twice: {}; leave copies out; score runs of two telescopes below folders IACT01, IACT02, or with a key telescope_id",
            first_named(&pairs)
        )
    })
}

/// Returns a warning of runs with many rows that have no score at the source.
fn without_score(runs: &[Dated]) -> Option<String> {
    let many = |run: &&Dated| {
        let without = run.sum.events - run.sum.scored;
        without as f64 > MOST_WITHOUT_SCORE * run.sum.events as f64
    };
    let counted = |run: &Dated| {
        let Portion { events, scored, .. } = run.sum;
        format!("{} ({} of {events} rows)", run.label(), events - scored)
    };
    let named: Vec<String> = runs.iter().filter(many).map(counted).collect();
    (!named.is_empty()).then(|| {
        format!(
            "more than {} % of the rows have no score (not finite, or outside a transform's domain): {}; live time includes them, so excess and counts per hour are too small by this share",
            100.0 * MOST_WITHOUT_SCORE,
            first_named(&named)
        )
    })
}

/// Warns if many of the events that count are outside all bins of energy.
fn warn_of_energies(total: &Group, warnings: &mut Vec<String>) {
    let counted = total.tally.on + total.tally.off.iter().sum::<u64>();
    let binned: u64 = total.energy.iter().map(|bin| bin.on + bin.off).sum();
    if !total.energy.is_empty()
        && counted.saturating_sub(binned) as f64 > MOST_OUTSIDE * counted as f64
    {
        warnings.push(format!(
            "{} of {counted} counted events are outside all bins of energy: the energy table or [energy] edges do not cover them",
            counted - binned
        ));
    }
}

/// Advice where OFF positions do not see one background.
const ADVICE: &str = "are the units of centroid, axis and source position right, and is there no star at a position?";

/// Warns of counts that no background gives, whatever the source.
fn warn_of_background(total: &EventTally, warnings: &mut Vec<String>) {
    if (total.inside as f64) < LEAST_INSIDE * total.events as f64 {
        let few = match total.inside {
            0 => format!("none of {} events is", total.events),
            few => format!("only {few} of {} events are", total.events),
        };
        warnings.push(format!(
            "{few} inside the model's cuts: are units and schema of the scored files right?"
        ));
    }
    if let Some(of) = total.homogeneity.filter(|of| of.p_value < LEAST_HOMOGENEITY) {
        warnings.push(format!(
            "the counts at the OFF positions differ by more than chance (chi2 {:.1} of {}, p {:.1e}): the positions do not see one background; {ADVICE}",
            of.chi2, of.degrees, of.p_value
        ));
    }
    if let Some(significance) = total.significance.filter(|sigma| *sigma < LEAST_SIGNIFICANCE) {
        warnings.push(format!(
            "fewer events at the source than at the OFF positions, by {:.1} sigma: the positions do not see one background; {ADVICE}",
            -significance
        ));
    }
}

fn warn_of_simulation(
    simulation: &Simulation,
    used: &[Dated],
    total: &Group,
    edges: &[f64],
    warnings: &mut Vec<String>,
) {
    // Without OFF positions nothing leaks.
    if let Some(reason) = simulation.unweighted.as_ref().filter(|_| simulation.leak.positions > 0) {
        warnings.push(format!(
            "the leak is that of the spectrum thrown, not of the source's; {reason}"
        ));
    }
    if simulation.leaks.is_empty() && !total.energy.is_empty() {
        warnings.push(
            "the simulated gammas have no energies at each position: no corrected excess per bin of energy; score them again with the energy table of the season".to_string(),
        );
    }
    let unresolved = |bin: &&EnergyBin| bin.leak.is_some_and(|leak| !leak.resolved);
    let bins = total.energy.iter().filter(unresolved).filter(|bin| bin.on + bin.off > 0);
    let bins: Vec<String> =
        bins.map(|bin| format!("{} to {}", bin.low_tev, bin.high_tev)).collect();
    if !bins.is_empty() {
        warnings.push(format!(
            "the simulated gammas do not resolve the leak at {} TeV (under {} counted at the source, or 1 − leak known to worse than {:.0} %): no corrected excess there; simulate more gammas",
            bins.join(", "),
            Leak::MIN_GAMMAS,
            100.0 * Leak::MAX_ERROR
        ));
    }
    for bin in simulation.area.iter().filter(|bin| bin.exceeds_thrown) {
        warnings.push(format!(
            "more simulated gammas were scored at {:.3} to {:.3} TeV than [simulation] says were thrown: no area there; check its index, energies and number of events",
            bin.low_tev, bin.high_tev
        ));
    }
    warn_of_true_energies(simulation, edges, warnings);
    let offsets = used.iter().filter_map(|run| run.counts.offset);
    let offsets = offsets.reduce(|a, b| [a[0].min(b[0]), a[1].max(b[1])]);
    if let (Some([least, most]), Some([low, high])) = (offsets, simulation.offset)
        && (low < least - OFFSET_MARGIN || high > most + OFFSET_MARGIN)
    {
        warnings.push(format!(
            "the simulated gammas come from {low:.2} to {high:.2} deg off the camera's centre, the season's source is at {least:.2} to {most:.2} deg: leak and areas are not those of its selection"
        ));
    }
    if let Some(thrown) = simulation.thrown.as_ref()
        && simulation.leak.events > thrown.events
    {
        warnings.push(format!(
            "{} simulated gammas were scored, but [simulation] events says that {} were thrown: efficiencies and areas are too large",
            simulation.leak.events, thrown.events
        ));
    }
    let models: BTreeSet<&String> = used.iter().flat_map(|run| &run.counts.models).collect();
    let own: BTreeSet<&String> = simulation.models.iter().collect();
    if models != own {
        warnings.push(
            "the simulated gammas were scored with other models than the season: leak and areas are not those of its selection".to_string(),
        );
    }
}

/// Warns of true energies outside of all bins, and outside of those thrown.
fn warn_of_true_energies(simulation: &Simulation, edges: &[f64], warnings: &mut Vec<String>) {
    let Some(TrueEnergies { low_tev, high_tev, events, not_thrown }) = simulation.true_energies
    else {
        // With OFF positions the warning of the leak says so.
        if simulation.thrown.is_some() && simulation.leak.positions == 0 {
            warnings.push(
                "the scores of the simulated gammas have no energy_true: no effective areas; score them with copy = [\"energy\"]".to_string(),
            );
        }
        return;
    };
    let [low, high] = [low_tev, high_tev].map(|energy| significant(energy, 3));
    if simulation.area.is_empty() {
        let [first, last] = [edges.first(), edges.last()].map(|edge| edge.copied().unwrap_or(0.0));
        warnings.push(format!(
            "no effective areas: the true energies of the simulated gammas, {low} to {high} TeV, are outside of all bins of energy, {first} to {last} TeV; is their unit TeV, and do [energy] edges cover them?"
        ));
    }
    if let Some(thrown) = &simulation.thrown
        && not_thrown as f64 > MOST_NOT_THROWN * events as f64
    {
        let [first, last] = thrown.energy_tev;
        warnings.push(format!(
            "{not_thrown} of {events} simulated gammas have a true energy outside of {first} to {last} TeV, which [simulation] energy_tev says were thrown: they have {low} to {high} TeV; correct energy_tev, or the unit of their energies; effective areas and leak are wrong"
        ));
    }
}

fn grouped_by<'a, 'b, K: Ord>(
    runs: &'b [Dated<'a>],
    key: impl Fn(&Dated<'a>) -> K,
) -> BTreeMap<K, Vec<&'b Dated<'a>>> {
    let mut groups: BTreeMap<K, Vec<&Dated>> = BTreeMap::new();
    for run in runs {
        groups.entry(key(run)).or_default().push(run);
    }
    groups
}

fn sum_of(runs: &[&Dated]) -> Sum {
    let mut sum = Sum::default();
    runs.iter().for_each(|run| sum.add(&run.sum));
    sum
}

fn pair(runs: &[Dated], of: impl Fn(&RunCounts) -> &OnOffHistogram) -> OnOffHistogram {
    let mut sum = OnOffHistogram::default();
    for run in runs {
        grow(&mut sum.on, &of(run.counts).on);
        grow(&mut sum.off, &of(run.counts).off);
    }
    sum
}

fn scores(runs: &[Dated]) -> Option<ScoreHistogram> {
    let (mut on, mut off) = (Distribution::default(), Distribution::default());
    for run in runs {
        on.merge(&run.counts.score_on);
        off.merge(&run.counts.score_off);
    }
    let mut all = on.clone();
    all.merge(&off);
    let (low, high) = all.quantile(0.02).zip(all.quantile(0.999))?;
    let least = 1e-3 * low.abs().max(high.abs()).max(1e-3);
    let high = high.max(low + least);
    let bins = |of: &Distribution| of.histogram(low, high, SCORE_BINS);
    Some(ScoreHistogram { low, high, on: bins(&on), off: bins(&off) })
}

/// Counts at other thresholds, of all runs; `None` where images of a shower were combined,
/// since each threshold leaves other images to choose from.
fn scan(runs: &[Dated], plan: &SeasonPlan, total: &Group) -> Option<ThresholdScan> {
    let is_scanned = plan.is_scanned && total.repeated_images == 0;
    let alpha = total.tally.alpha.filter(|_| is_scanned)?;
    let (mut on, mut off) = (Distribution::default(), Distribution::default());
    for run in runs {
        on.merge(&run.counts.highest_on);
        off.merge(&run.counts.highest_off);
    }
    // Counts of a run without times are no part of a rate.
    let timed = runs.iter().all(|run| run.sum.clock.live().is_some());
    let hours = total.tally.live_s.filter(|_| timed).map(|s| s / HOUR);
    ThresholdScan::new(&on, &off, alpha, hours)
}

/// Returns the upper limit of an excess that is not significant, also of no counts at all.
fn limit_of(counts: &OnOff) -> Option<f64> {
    let is_found = counts.counted_significance().is_some_and(|sigma| sigma >= LIMIT_BELOW);
    (!is_found).then(|| counts.upper_limit())
}

/// How counts become figures.
struct Figures<'a> {
    plan: &'a SeasonPlan,
    leak: Option<Leak>,
    leaks: &'a [BinLeak], // (bins of energy)
}

impl Figures<'_> {
    fn tally(&self, of: &Sum) -> EventTally {
        let (sum, clock, live_s) = (&of.all, &of.clock, of.live_s());
        let status = STATUS_BITS.iter().zip(sum.status);
        let quality = self.plan.quality_bits.iter().zip(&sum.quality);
        let mut tally = EventTally {
            events: sum.events,
            scored: sum.scored,
            inside: sum.inside,
            good: sum.good,
            selected: sum.selected,
            passing: sum.passing.first().copied().unwrap_or(0),
            on: sum.counted.first().copied().unwrap_or(0),
            status: status.map(|((_, name), n)| ((*name).to_string(), n)).collect(),
            quality: quality.map(|(name, n)| (name.clone(), *n)).collect(),
            live_s,
            live_events: of.live.map_or(0, |(_, events)| events),
            rate_hz: of.rate_hz(),
            without_time: of.without_time(),
            gaps: clock.gaps,
            gap_s: clock.gap_ns as f64 / 1e9,
            bad_s: clock.bad_ns as f64 / 1e9,
            delta_share: clock.delta_share(),
            ..EventTally::default()
        };
        let timed = self.on_off(&of.timed.counted);
        let of = |counts: &[u64]| -> Vec<u64> {
            self.plan.off().map(|k| counts.get(k).copied().unwrap_or(0)).collect()
        };
        tally.off = of(&sum.counted);
        let Some(counts) = OnOff::new(tally.on, &tally.off) else { return tally };
        let excess = counts.excess();
        tally.alpha = Some(counts.alpha);
        tally.excess = Some(excess);
        tally.corrected = self.leak.and_then(|leak| leak.corrected(excess));
        tally.significance = counts.counted_significance();
        let hours = live_s.filter(|s| *s > 0.0).map(|s| s / HOUR);
        tally.per_root_hour = timed
            .zip(hours)
            .and_then(|(of, hours)| Some(of.counted_significance()? / hours.sqrt()));
        tally.upper_limit = limit_of(&counts);
        let given_back = |limit: f64| {
            let of = Measured { value: limit, error: 0.0 };
            self.leak.and_then(|leak| leak.corrected(of)).map(|limit| limit.value)
        };
        tally.upper_limit_corrected = tally.upper_limit.and_then(given_back);
        tally.homogeneity = Homogeneity::of(&tally.off);
        let naive_off = of(&sum.passing);
        tally.naive = OnOff::new(tally.passing, &naive_off).and_then(|naive| {
            Some(Naive {
                on: tally.passing,
                excess: naive.excess(),
                significance: naive.counted_significance()?,
                off: naive_off,
                overlapping: sum.overlapping,
                overlapping_on: sum.overlapping_on,
            })
        });
        tally
    }

    /// Counts at the source and at the counted OFF positions.
    fn on_off(&self, counted: &[u64]) -> Option<OnOff> {
        let off: Vec<u64> = self.plan.off().map(|k| counted.get(k).copied().unwrap_or(0)).collect();
        OnOff::new(counted.first().copied().unwrap_or(0), &off)
    }

    fn group(&self, season: Option<String>, telescope: Option<i64>, runs: &[&Dated]) -> Group {
        let nights: BTreeSet<&Option<String>> = runs.iter().map(|run| &run.night).collect();
        let mut showers = showers::of(&runs.iter().map(|run| run.watch()).collect::<Vec<_>>());
        let mut sum = sum_of(runs);
        let mut repeated = Combined::new(self.plan);
        if showers == Showers::Independent && !self.plan.shower_key.is_empty() {
            showers = Showers::Combined;
            repeated = self.combined(runs.iter().copied());
            repeated.take_from(&mut sum.all.counted);
            let timed = runs.iter().copied().filter(|run| run.sum.clock.live().is_some());
            self.combined(timed).take_from(&mut sum.timed.counted);
        }
        Group {
            season,
            telescope,
            runs: runs.len() as u64,
            nights: nights.len() as u64,
            showers,
            repeated_images: repeated.images(),
            tally: self.tally(&sum),
            energy: self.energy(runs, &repeated),
        }
    }

    /// The showers of runs that several telescopes have seen.
    fn combined<'b>(&self, runs: impl Iterator<Item = &'b Dated<'b>>) -> Combined {
        let mut all = Combined::new(self.plan);
        runs.for_each(|run| all.add(&run.counts.images, run.key.telescope));
        all
    }

    /// Empty where no energies are known.
    fn energy(&self, runs: &[&Dated], repeated: &Combined) -> Vec<EnergyBin> {
        let edges = &self.plan.edges;
        let mut sums = vec![Vec::new(); edges.len() - 1];
        // A part of a run's events would be a spectrum of another exposure.
        for run in runs.iter().filter(|run| !run.counts.energy_of_source) {
            sums.iter_mut().zip(&run.counts.energy).for_each(|(sum, of)| grow(sum, of));
        }
        repeated.take_from_bins(&mut sums);
        if sums.iter().flatten().all(|n| *n == 0) {
            return Vec::new();
        }
        let bin = |(index, (pair, sum)): (usize, (&[f64], &Vec<u64>))| {
            let leak = self.leaks.get(index).copied();
            let count = |k: usize| sum.get(k).copied().unwrap_or(0);
            let off: Vec<u64> = self.plan.off().map(count).collect();
            let counts = OnOff::new(count(0), &off)?;
            let excess = counts.excess();
            Some(EnergyBin {
                low_tev: pair[0],
                high_tev: pair[1],
                on: counts.on,
                off: counts.off,
                excess,
                corrected: leak
                    .filter(|leak| leak.resolved)
                    .and_then(|leak| leak.counts.corrected(excess)),
                leak,
                significance: counts.counted_significance(),
                upper_limit: limit_of(&counts),
            })
        };
        edges.windows(2).zip(&sums).enumerate().filter_map(bin).collect()
    }

    fn run(&self, run: &Dated, drift: Vec<DriftOf>) -> RunRow {
        RunRow {
            run: run.key.label(),
            telescope: run.key.telescope,
            season: run.season.clone(),
            night: run.night.clone(),
            start_ns: run.start(),
            end_ns: run.sum.clock.span().map(|(_, last)| last),
            files: run.counts.files.iter().cloned().collect(),
            models: run.counts.models.iter().cloned().collect(),
            offset: run.counts.offset,
            portions: run.counts.portions.len() as u64,
            tally: self.tally(&Sum::of(&run.sum)),
            drift,
        }
    }

    fn portions(&self, run: &Dated) -> Vec<PortionRow> {
        let row = |(portion, counts): &(Option<i64>, Portion)| PortionRow {
            run: run.key.label(),
            telescope: run.key.telescope,
            portion: *portion,
            name: portion.map_or_else(String::new, number_name),
            start_ns: counts.clock.span().map(|(first, _)| first),
            tally: self.tally(&Sum::of(counts)),
        };
        let mut rows: Vec<PortionRow> = run.counts.portions.iter().map(row).collect();
        rows.sort_by_key(|row| (row.start_ns.is_none(), row.start_ns));
        rows
    }

    /// The counts after each run with a live time, in the order of their beginnings.
    fn cumulative(&self, runs: &[Dated], showers: Showers) -> Vec<Cumulative> {
        let (mut sum, mut points) = (Sum::default(), Vec::new());
        let mut repeated = Combined::new(self.plan);
        for run in runs.iter().filter(|run| run.sum.clock.live().is_some()) {
            sum.add(&run.sum);
            let mut counted = sum.timed.counted.clone();
            if showers == Showers::Combined {
                repeated.add(&run.counts.images, run.key.telescope);
                repeated.take_from(&mut counted);
            }
            let Some(counts) = self.on_off(&counted) else { continue };
            points.push(Cumulative {
                end_ns: run.sum.clock.span().map(|(_, last)| last),
                hours: sum.live_s().unwrap_or(0.0) / HOUR,
                on: counts.on,
                off: counts.off,
                excess: counts.excess().value,
                significance: counts.significance(),
            });
        }
        points
    }
}

/// What the distributions of a run are compared with.
struct Drifts<'a> {
    label: String,
    reference: Option<BTreeMap<String, Distribution>>,
    /// All runs of a season and telescope.
    sums: BTreeMap<(Option<String>, Option<i64>), BTreeMap<String, Distribution>>,
    settings: &'a SeasonSettings,
}

impl<'a> Drifts<'a> {
    fn new(
        used: &[Dated],
        reference: Option<&Counted>,
        settings: &'a SeasonSettings,
    ) -> Drifts<'a> {
        let merged = |runs: &mut dyn Iterator<Item = &RunCounts>| {
            let mut sum: BTreeMap<String, Distribution> = BTreeMap::new();
            for run in runs {
                for (name, of) in &run.drift {
                    sum.entry(name.clone()).or_default().merge(of);
                }
            }
            sum
        };
        let groups = grouped_by(used, |run| (run.season.clone(), run.key.telescope));
        let sums = groups
            .into_iter()
            .map(|(group, runs)| (group, merged(&mut runs.iter().map(|run| run.counts))));
        let label = match reference {
            Some(_) => "the reference scores that were given",
            None => "the other runs of the same season and telescope",
        };
        Drifts {
            label: label.to_string(),
            reference: reference.map(|counted| merged(&mut counted.runs.values())),
            sums: sums.collect(),
            settings,
        }
    }

    /// The drift of all columns of each run, flagged.
    fn all(&self, runs: &[Dated]) -> Vec<Vec<DriftOf>> {
        let mut all: Vec<Vec<DriftOf>> = runs.iter().map(|run| self.of(run)).collect();
        let limits = &self.settings.drift;
        let tests = all.iter().flatten().filter(|d| d.drift.is_enough(limits)).count();
        for of in all.iter_mut().flatten() {
            of.flagged = of.drift.is_flagged(limits, tests);
        }
        all
    }

    fn of(&self, run: &Dated) -> Vec<DriftOf> {
        let sum = self.sums.get(&(run.season.clone(), run.key.telescope));
        let against = |name: &String, own: &Distribution| match &self.reference {
            Some(reference) => reference.get(name).and_then(|its| own.drift_from(its)),
            None => sum.and_then(|sum| own.drift_from(&sum.get(name)?.without(own))),
        };
        let judged = |(name, own): (&String, &Distribution)| {
            let drift = against(name, own)?;
            Some(DriftOf { column: name.clone(), drift, flagged: false })
        };
        let moves = &self.settings.drift;
        let columns = run.counts.drift.iter().filter(|(name, _)| !moves.leaves_out(name));
        columns.filter_map(judged).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_odd_about_many_runs_is_told_once() {
        let mut warnings = vec!["all is well".to_string()];
        for run in 0..6 {
            warnings.push(format!("run {run}: no times"));
            if run < 4 {
                warnings.push(format!("run {run}: no portions"));
            }
        }
        let merged = merge_warnings(warnings);
        assert_eq!(merged[..2], ["all is well", "6 runs, such as run 0: no times"]);
        assert_eq!(merged[2..], ["run 0, run 1, run 2, run 3: no portions"]);
        let mixed = ["run 1: a", "b", "run 2: c"].map(str::to_string).to_vec();
        assert_eq!(merge_warnings(mixed.clone()), mixed);
    }
}
