//! Sums of the counts of runs: over all runs, and over runs with a live time.
//!
//! Values per time (rates, σ/√h) use the second kind only. A run without plausible times and without
//! `delta_time` is in the first kind alone.

use super::clock::Clock;
use super::counts::Portion;

/// Counts of runs, or of a portion.
#[derive(Debug, Clone, Default)]
pub struct Sum {
    pub all: Portion,
    /// Counts of the runs with a live time.
    pub timed: Portion,
    /// Clock of the runs whose events have times.
    pub clock: Clock,
    /// Live time [ns] and its events; absent if no run has one.
    pub live: Option<(u64, u64)>,
}

impl Sum {
    /// Returns the sum of one run or portion.
    pub fn of(portion: &Portion) -> Sum {
        let mut sum = Sum::default();
        sum.add(portion);
        sum
    }

    /// Adds a run.
    pub fn add(&mut self, run: &Portion) {
        self.all.merge(run);
        let Some((ns, events)) = run.clock.live() else { return };
        self.timed.merge(run);
        let (sum_ns, sum_events) = self.live.unwrap_or((0, 0));
        self.live = Some((sum_ns + ns, sum_events + events));
        if run.clock.has_times() {
            self.clock.merge(&run.clock);
        }
    }

    /// Returns the live time [s].
    pub fn live_s(&self) -> Option<f64> {
        self.live.map(|(ns, _)| ns as f64 / 1e9)
    }

    /// Returns the rate of events in live time [Hz].
    pub fn rate_hz(&self) -> Option<f64> {
        let (ns, events) = self.live.filter(|(ns, _)| *ns > 0)?;
        Some(events as f64 / (ns as f64 / 1e9))
    }

    /// Returns the events of runs without a live time.
    pub fn without_time(&self) -> u64 {
        self.all.events - self.timed.events
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000_000;

    /// A run of events a second apart, the first at `start` [s].
    fn run(start: i64, events: i64) -> Portion {
        let mut portion = Portion { events: events as u64, ..Portion::default() };
        let mut previous = None;
        for event in 0..events {
            let now = (start + event) * SECOND;
            portion.clock.tick(now, previous, 10 * SECOND, true);
            previous = Some(now);
        }
        portion
    }

    #[test]
    fn run_without_times_enters_no_live_time() {
        let mut sum = Sum::of(&run(1_669_914_000, 11));
        sum.add(&run(0, 500)); // 1970
        assert_eq!((sum.live, sum.without_time()), (Some((10 * SECOND as u64, 10)), 500));
        assert_eq!((sum.all.events, sum.timed.events), (511, 11));
        assert_eq!(sum.rate_hz(), Some(1.0));
        // delta_time is used instead.
        let mut other = run(0, 3);
        other.clock.delta(0.5, 10 * SECOND, true);
        other.clock.delta(0.25, 10 * SECOND, true);
        sum.add(&other);
        assert_eq!(sum.live, Some((10_750_000_000, 12)));
        assert_eq!(Sum::of(&run(0, 5)).rate_hz(), None);
    }
}
