//! Runs with their times: order, warnings, and reasons not to count them.

use super::types::Refused;
use crate::config::{OtherModel, SeasonSettings};
use crate::data::schema::unix_time;
use crate::season::counting::clock::DISAGREEMENT;
use crate::season::counting::counts::{Portion, RunCounts, RunKey};
use crate::season::counting::sums::Sum;
use crate::season::models::Models;
use crate::season::names::{is_hash, number_name};
use crate::season::plan::SeasonPlan;
use crate::season::showers::RunTimes;
use crate::season::time;
use std::collections::BTreeMap;

/// Run with its times.
pub(super) struct Dated<'a> {
    pub(super) key: &'a RunKey,
    pub(super) counts: &'a RunCounts,
    pub(super) sum: Portion,
    pub(super) season: Option<String>,
    pub(super) night: Option<String>,
    pub(super) utc_offset: f64,
}

impl RunKey {
    /// Returns the number of the run, the first digits of its hash, or its file.
    pub fn label(&self) -> String {
        self.run.map_or_else(|| self.file.clone(), number_name)
    }
}

impl<'a> Dated<'a> {
    pub(super) fn new(
        key: &'a RunKey,
        counts: &'a RunCounts,
        settings: &SeasonSettings,
    ) -> Dated<'a> {
        let sum = counts.sum();
        let of = |name: fn(i64, f64) -> String| {
            sum.clock.span().map(|(first, _)| name(first, settings.time.utc_offset))
        };
        let utc_offset = settings.time.utc_offset;
        Dated { key, counts, season: of(time::season), night: of(time::night), utc_offset, sum }
    }

    pub(super) fn start(&self) -> Option<i64> {
        self.sum.clock.span().map(|(first, _)| first)
    }

    /// Returns the sort key of a run: by start, then by name; runs without times last.
    pub(super) fn order(&self) -> (bool, Option<i64>, Option<i64>, String, Option<i64>) {
        let start = self.start();
        let number = self.key.run.filter(|run| !is_hash(*run));
        (start.is_none(), start, number, self.key.label(), self.key.telescope)
    }

    pub(super) fn watch(&self) -> RunTimes<'a> {
        RunTimes {
            telescope: self.key.telescope,
            segments: if self.start().is_some() { &self.counts.segments } else { &[] },
            overlaps: self.counts.overlapping_files().is_some(),
        }
    }

    pub(super) fn refused(&self, reason: String) -> Refused {
        let (run, telescope) = (self.key.label(), self.key.telescope);
        Refused { run, telescope, events: self.sum.events, reason }
    }

    pub(super) fn label(&self) -> String {
        match self.key.telescope {
            Some(telescope) => format!("run {} of telescope {telescope}", self.key.label()),
            None => format!("run {}", self.key.label()),
        }
    }

    /// Adds warnings about the run that do not prevent counting it.
    pub(super) fn warn(&self, warnings: &mut Vec<String>) {
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
                "{run}: named by a hash of file and portion, so a portion counts as a run; convert tables whose names contain the run (DDMMYY.RR…)"
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
    pub(super) fn date_warning(&self) -> Option<String> {
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
    pub(super) fn warn_of_times(&self, warnings: &mut Vec<String>) {
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

    /// Returns why the run must not be counted.
    pub(super) fn rejection_reason(
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

pub(super) fn grouped_by<'a, 'b, K: Ord>(
    runs: &'b [Dated<'a>],
    key: impl Fn(&Dated<'a>) -> K,
) -> BTreeMap<K, Vec<&'b Dated<'a>>> {
    let mut groups: BTreeMap<K, Vec<&Dated>> = BTreeMap::new();
    for run in runs {
        groups.entry(key(run)).or_default().push(run);
    }
    groups
}

pub(super) fn sum_of(runs: &[&Dated]) -> Sum {
    let mut sum = Sum::default();
    runs.iter().for_each(|run| sum.add(&run.sum));
    sum
}
