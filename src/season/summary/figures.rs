//! Results of runs, nights and seasons, computed from their counts.

use super::runs::{Dated, sum_of};
use super::types::{
    Cumulative, DriftOf, EnergyBin, EventTally, Group, Naive, PortionRow, RunRow, ScoreHistogram,
};
use crate::data::selection::STATUS_BITS;
use crate::season::counting::area::BinLeak;
use crate::season::counting::combine::Combined;
use crate::season::counting::counts::{OnOffHistogram, Portion, RunCounts, grow};
use crate::season::counting::sums::Sum;
use crate::season::names::number_name;
use crate::season::plan::SeasonPlan;
use crate::season::showers::{self, Showers};
use crate::statistics::{Distribution, Homogeneity, Leak, Measured, OnOff, ThresholdScan};
use std::collections::BTreeSet;

/// Excesses of less significance have an upper limit.
const LIMIT_BELOW: f64 = 3.0;
const SCORE_BINS: usize = 60;
const HOUR: f64 = 3600.0;

/// Returns the upper limit of an excess that is not significant, also of no counts at all.
pub(super) fn limit_of(counts: &OnOff) -> Option<f64> {
    let is_found = counts.counted_significance().is_some_and(|sigma| sigma >= LIMIT_BELOW);
    (!is_found).then(|| counts.upper_limit())
}

/// Settings by which results are computed from counts.
pub(super) struct Figures<'a> {
    pub(super) plan: &'a SeasonPlan,
    pub(super) leak: Option<Leak>,
    pub(super) leaks: &'a [BinLeak], // (bins of energy)
}

impl Figures<'_> {
    pub(super) fn tally(&self, of: &Sum) -> EventTally {
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

    /// Returns the counts at the source and at the counted OFF positions.
    pub(super) fn on_off(&self, counted: &[u64]) -> Option<OnOff> {
        let off: Vec<u64> = self.plan.off().map(|k| counted.get(k).copied().unwrap_or(0)).collect();
        OnOff::new(counted.first().copied().unwrap_or(0), &off)
    }

    pub(super) fn group(
        &self,
        season: Option<String>,
        telescope: Option<i64>,
        runs: &[&Dated],
    ) -> Group {
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

    /// Combines the images of showers that several telescopes have recorded.
    pub(super) fn combined<'b>(&self, runs: impl Iterator<Item = &'b Dated<'b>>) -> Combined {
        let mut all = Combined::new(self.plan);
        runs.for_each(|run| all.add(&run.counts.images, run.key.telescope));
        all
    }

    /// Returns the bins of energy; empty if no energies are known.
    pub(super) fn energy(&self, runs: &[&Dated], repeated: &Combined) -> Vec<EnergyBin> {
        let edges = &self.plan.edges;
        let mut sums = vec![Vec::new(); edges.len() - 1];
        // A run with energies of some events only would have a different exposure.
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

    pub(super) fn run(&self, run: &Dated, drift: Vec<DriftOf>) -> RunRow {
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

    pub(super) fn portions(&self, run: &Dated) -> Vec<PortionRow> {
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

    /// Returns the counts after each run with a live time, in the order of their starts.
    pub(super) fn cumulative(&self, runs: &[Dated], showers: Showers) -> Vec<Cumulative> {
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

pub(super) fn pair(runs: &[Dated], of: impl Fn(&RunCounts) -> &OnOffHistogram) -> OnOffHistogram {
    let mut sum = OnOffHistogram::default();
    for run in runs {
        grow(&mut sum.on, &of(run.counts).on);
        grow(&mut sum.off, &of(run.counts).off);
    }
    sum
}

pub(super) fn scores(runs: &[Dated]) -> Option<ScoreHistogram> {
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

/// Returns the counts of all runs at other thresholds; `None` if images of showers were combined,
/// since the images to combine depend on the threshold.
pub(super) fn scan(runs: &[Dated], plan: &SeasonPlan, total: &Group) -> Option<ThresholdScan> {
    let is_scanned = plan.is_scanned && total.repeated_images == 0;
    let alpha = total.tally.alpha.filter(|_| is_scanned)?;
    let (mut on, mut off) = (Distribution::default(), Distribution::default());
    for run in runs {
        on.merge(&run.counts.highest_on);
        off.merge(&run.counts.highest_off);
    }
    // A rate excludes the counts of runs without times.
    let timed = runs.iter().all(|run| run.sum.clock.live().is_some());
    let hours = total.tally.live_s.filter(|_| timed).map(|s| s / HOUR);
    ThresholdScan::new(&on, &off, alpha, hours)
}
