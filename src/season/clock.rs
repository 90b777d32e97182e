//! The live time of a portion, from the times of its events.
//!
//! The time between two events of a telescope and run, one after the other in the file, is
//! live unless it is longer than the allowed pause (a gap), unless it is negative (the clock
//! went backwards: counted, told, never subtracted), and unless the later event fails a
//! quality cut that speaks of a time. At TAIGA's rates, above 5 Hz, a pause of 10 s does not
//! happen by chance. Sums are integers of nanoseconds. Where the table has `delta_time`, the
//! seconds since the telescope's previous event, its sum stands beside: the two disagree
//! where rows are missing from a table, or times are wrong.

use serde::{Deserialize, Serialize};

/// A difference between live time and the sum of `delta_time` that is told.
pub const DISAGREEMENT: f64 = 0.02;

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Clock {
    /// First and last time [ns since 1970].
    pub first: Option<i64>,
    pub last: Option<i64>,
    pub live_ns: u64,
    pub gaps: u64,
    pub gap_ns: u64,
    /// Not live for its quality [ns].
    pub bad_ns: u64,
    pub backwards: u64,
    /// The first of these: file and row.
    pub backwards_at: Option<(String, u64)>,
    /// Sum of `delta_time` up to the allowed pause [ns].
    pub delta_ns: u64,
    /// Events with a usable `delta_time`.
    pub deltas: u64,
}

impl Clock {
    /// Takes the time of an event; `previous` is that of the event before it in the run.
    pub fn tick(&mut self, now: i64, previous: Option<i64>, gap_ns: i64, good: bool) -> Tick {
        self.first = Some(self.first.map_or(now, |first| first.min(now)));
        self.last = Some(self.last.map_or(now, |last| last.max(now)));
        let Some(previous) = previous else { return Tick::First };
        match now.checked_sub(previous) {
            Some(passed) if passed < 0 => {
                self.backwards += 1;
                Tick::Backwards
            }
            Some(passed) if passed <= gap_ns => {
                *(if good { &mut self.live_ns } else { &mut self.bad_ns }) += passed as u64;
                Tick::Live
            }
            passed => {
                self.gaps += 1;
                self.gap_ns += passed.map_or(0, |passed| passed as u64);
                Tick::Gap
            }
        }
    }

    /// Takes an event's `delta_time` [s].
    pub fn delta(&mut self, seconds: f32, gap_ns: i64, good: bool) {
        let passed = f64::from(seconds) * 1e9;
        if good && passed >= 0.0 && passed <= gap_ns as f64 {
            self.deltas += 1;
            self.delta_ns += passed.round() as u64;
        }
    }

    pub fn merge(&mut self, other: &Clock) {
        let either = |a: Option<i64>, b: Option<i64>, of: fn(i64, i64) -> i64| match (a, b) {
            (Some(a), Some(b)) => Some(of(a, b)),
            (a, b) => a.or(b),
        };
        self.first = either(self.first, other.first, i64::min);
        self.last = either(self.last, other.last, i64::max);
        self.live_ns += other.live_ns;
        self.gaps += other.gaps;
        self.gap_ns += other.gap_ns;
        self.bad_ns += other.bad_ns;
        self.backwards += other.backwards;
        self.backwards_at = match (self.backwards_at.take(), &other.backwards_at) {
            (Some(own), Some(its)) => Some(own.min(its.clone())),
            (own, its) => own.or_else(|| its.clone()),
        };
        self.delta_ns += other.delta_ns;
        self.deltas += other.deltas;
    }

    /// Live time [s]: that of the events' times, else of `delta_time`.
    pub fn live_s(&self) -> Option<f64> {
        let of_times = self.first.map(|_| self.live_ns);
        of_times.or((self.deltas > 0).then_some(self.delta_ns)).map(|ns| ns as f64 / 1e9)
    }

    /// Sum of `delta_time` over live time, where there are both.
    pub fn delta_share(&self) -> Option<f64> {
        let both = self.first.is_some() && self.deltas > 0 && self.live_ns > 0;
        both.then(|| self.delta_ns as f64 / self.live_ns as f64)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tick {
    First,
    Live,
    Gap,
    Backwards,
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000_000;

    fn clock(times: &[i64]) -> Clock {
        let (mut clock, mut previous) = (Clock::default(), None);
        for time in times {
            clock.tick(*time, previous, 10 * SECOND, true);
            previous = Some(*time);
        }
        clock
    }

    #[test]
    fn pauses_are_not_live_and_a_clock_that_goes_back_is_counted() {
        let told = clock(&[0, SECOND, 3 * SECOND, 100 * SECOND, 99 * SECOND, 101 * SECOND]);
        assert_eq!(told.live_ns, 5 * SECOND as u64);
        assert_eq!((told.gaps, told.gap_ns, told.backwards), (1, 97 * SECOND as u64, 1));
        assert_eq!((told.first, told.last), (Some(0), Some(101 * SECOND)));
        let wild = clock(&[i64::MIN, i64::MAX, i64::MIN]);
        assert_eq!((wild.live_ns, wild.gaps), (0, 2));
    }

    #[test]
    fn pieces_add_up_in_any_order() {
        let (mut a, b) = (clock(&[0, SECOND]), clock(&[5 * SECOND, 7 * SECOND]));
        let mut other = b.clone();
        other.merge(&a);
        a.merge(&b);
        assert_eq!(a, other);
        assert_eq!(a.live_s(), Some(3.0));
        assert_eq!(Clock::default().live_s(), None);
    }

    #[test]
    fn delta_times_stand_beside_or_in_for_missing_times() {
        let mut only = Clock::default();
        for seconds in [0.5, 0.25, -1.0, 60.0, f32::NAN] {
            only.delta(seconds, 10 * SECOND, true);
        }
        assert_eq!((only.deltas, only.live_s()), (2, Some(0.75)));
        assert_eq!(only.delta_share(), None);
        let mut both = clock(&[0, SECOND]);
        both.delta(0.5, 10 * SECOND, true);
        assert_eq!(both.delta_share(), Some(0.5));
    }
}
