//! Live time of a portion, from the times of its events.
//!
//! The interval between two consecutive events of a telescope and run is live, except
//!
//! - an interval longer than the allowed pause (a gap): at TAIGA's rates, above 5 Hz, a pause of
//!   10 s does not occur by chance,
//! - a negative interval (the clock went backwards), which is counted, reported and not subtracted,
//! - an interval whose later event fails a quality cut on a time.
//!
//! Sums are integers of nanoseconds. If the table has `delta_time`, the seconds since the previous
//! event of the telescope, its sum is compared with the live time: they differ if rows are missing
//! or times are wrong.
//!
//! The rate is the number of live intervals over the live time. Events of bad quality, events after
//! a pause, and events during which the clock stands still end no live interval and enter neither.
//! An event without a plausible time (`data::schema::unix_time`) is counted separately.

use crate::data::schema::unix_time;
use serde::{Deserialize, Serialize};

/// Least reported difference between live time and the sum of `delta_time`.
pub(crate) const DISAGREEMENT: f64 = 0.02;
/// Largest share of events without a plausible time in a run whose times are used.
const MOST_UNTIMED: f64 = 0.01;
/// Largest share of times that go backwards, or of a clock that stands still, in a run whose
/// times are used; also of unusable `delta_time`, where these are used.
const MOST_UNUSABLE: f64 = 0.05;
/// Number of equal consecutive times from which a clock stands still. A clock that counts seconds
/// gives fewer at 100 Hz.
const STALL: u64 = 200;

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Clock {
    /// First and last time [ns since 1970].
    pub first: Option<i64>,
    pub last: Option<i64>,
    pub live_ns: u64,
    /// Events at the end of a live interval.
    pub live_events: u64,
    /// Events with and without a plausible time.
    pub timed: u64,
    pub untimed: u64,
    /// Events without a plausible time whose time is outside of [`unix_time::PLAUSIBLE`].
    pub implausible: u64,
    /// File, row and value of the first such time.
    pub implausible_at: Option<(String, u64, i64)>,
    pub gaps: u64,
    pub gap_ns: u64,
    /// Time that is not live because of bad quality [ns].
    pub bad_ns: u64,
    pub backwards: u64,
    /// File and row of the first such event.
    pub backwards_at: Option<(String, u64)>,
    /// Events during which the clock stood still.
    #[serde(default)]
    pub stalled: u64,
    /// Current number of equal consecutive times, and those of good quality among them.
    #[serde(skip)]
    stall: (u64, u64),
    /// Sum of `delta_time` up to the allowed pause [ns].
    pub delta_ns: u64,
    /// Events with a usable `delta_time`.
    pub deltas: u64,
    /// Events whose `delta_time` is not above 0, or longer than the allowed pause.
    #[serde(default)]
    pub unusable_deltas: u64,
}

impl Clock {
    /// Adds an event with its time [ns], if it has one, and keeps the time in `previous` for the
    /// next event of the run. `place` returns file and row of the event.
    pub(crate) fn add_time(
        &mut self,
        time: Option<i64>,
        previous: &mut Option<i64>,
        gap_ns: i64,
        good: bool,
        place: impl Fn() -> (String, u64),
    ) {
        let Some(now) = time else {
            self.untimed += 1;
            return;
        };
        match self.tick(now, *previous, gap_ns, good) {
            Tick::Implausible => {
                self.implausible_at.get_or_insert_with(|| {
                    let (file, row) = place();
                    (file, row, now)
                });
                return;
            }
            Tick::Backwards => {
                self.backwards_at.get_or_insert_with(place);
            }
            Tick::First | Tick::Live | Tick::Gap => {}
        }
        *previous = Some(now);
    }

    /// Adds the time of an event [ns]; `previous` is the time of the previous event of the run.
    pub(crate) fn tick(
        &mut self,
        now: i64,
        previous: Option<i64>,
        gap_ns: i64,
        good: bool,
    ) -> Tick {
        if !unix_time::is_plausible(now) {
            self.untimed += 1;
            self.implausible += 1;
            return Tick::Implausible;
        }
        self.timed += 1;
        self.first = Some(self.first.map_or(now, |first| first.min(now)));
        self.last = Some(self.last.map_or(now, |last| last.max(now)));
        let Some(previous) = previous else { return Tick::First };
        match now.checked_sub(previous) {
            Some(passed) if passed < 0 => {
                self.backwards += 1;
                Tick::Backwards
            }
            Some(passed) if passed <= gap_ns => {
                if good {
                    self.live_ns += passed as u64;
                    self.live_events += 1;
                } else {
                    self.bad_ns += passed as u64;
                }
                self.leave_out_stall(passed == 0, good);
                Tick::Live
            }
            passed => {
                self.gaps += 1;
                self.gap_ns += passed.map_or(0, |passed| passed as u64);
                Tick::Gap
            }
        }
    }

    /// Removes the events during which the clock stands still from the live ones.
    fn leave_out_stall(&mut self, is_equal: bool, good: bool) {
        if !is_equal {
            self.stall = (0, 0);
            return;
        }
        let (equal, live) = (self.stall.0 + 1, self.stall.1 + u64::from(good));
        self.stall = (equal, live);
        if equal == STALL {
            self.stalled += equal;
            self.live_events -= live;
        } else if equal > STALL {
            self.stalled += 1;
            self.live_events -= u64::from(good);
        }
    }

    /// Adds the `delta_time` of an event [s].
    pub(crate) fn delta(&mut self, seconds: f32, gap_ns: i64, good: bool) {
        let passed = f64::from(seconds) * 1e9;
        if !(passed > 0.0 && passed <= gap_ns as f64) {
            self.unusable_deltas += 1;
        } else if good {
            self.deltas += 1;
            self.delta_ns += passed.round() as u64;
        }
    }

    pub(crate) fn merge(&mut self, other: &Clock) {
        let either = |a: Option<i64>, b: Option<i64>, of: fn(i64, i64) -> i64| match (a, b) {
            (Some(a), Some(b)) => Some(of(a, b)),
            (a, b) => a.or(b),
        };
        self.live_events += other.live_events;
        self.timed += other.timed;
        self.untimed += other.untimed;
        self.implausible += other.implausible;
        self.implausible_at = first_of(self.implausible_at.take(), other.implausible_at.as_ref());
        self.first = either(self.first, other.first, i64::min);
        self.last = either(self.last, other.last, i64::max);
        self.live_ns += other.live_ns;
        self.gaps += other.gaps;
        self.gap_ns += other.gap_ns;
        self.bad_ns += other.bad_ns;
        self.backwards += other.backwards;
        self.backwards_at = first_of(self.backwards_at.take(), other.backwards_at.as_ref());
        self.stalled += other.stalled;
        self.delta_ns += other.delta_ns;
        self.deltas += other.deltas;
        self.unusable_deltas += other.unusable_deltas;
    }

    /// Returns whether the times can be used: at most 1 % of the events have none.
    pub(crate) fn has_times(&self) -> bool {
        let all = self.timed + self.untimed;
        self.timed > 0 && self.untimed as f64 <= MOST_UNTIMED * all as f64
    }

    /// Returns the first and the last time, if times can be used.
    pub(crate) fn span(&self) -> Option<(i64, i64)> {
        self.first.zip(self.last).filter(|_| self.has_times())
    }

    /// Returns the live time [ns] and its events: from the times, otherwise from `delta_time`.
    pub(crate) fn live(&self) -> Option<(u64, u64)> {
        if self.has_times() && !self.is_unordered() && !self.stands_still() {
            return Some((self.live_ns, self.live_events));
        }
        self.has_deltas().then_some((self.delta_ns, self.deltas))
    }

    /// Returns whether `delta_time` can be used; that of the first event may be unusable.
    pub(crate) fn has_deltas(&self) -> bool {
        let all = self.deltas + self.unusable_deltas;
        let unusable = self.unusable_deltas.saturating_sub(1);
        self.deltas > 0 && unusable as f64 <= MOST_UNUSABLE * all as f64
    }

    /// Returns whether too many times go backwards for the intervals to be used.
    pub(crate) fn is_unordered(&self) -> bool {
        self.backwards as f64 > MOST_UNUSABLE * self.timed as f64
    }

    /// Returns whether the clock stands still for too many events.
    pub(crate) fn stands_still(&self) -> bool {
        self.stalled as f64 > MOST_UNUSABLE * self.timed as f64
            || (self.live_ns == 0 && self.live_events > 0)
    }

    /// Returns the live time [s].
    #[cfg(test)]
    pub(crate) fn live_s(&self) -> Option<f64> {
        self.live().map(|(ns, _)| ns as f64 / 1e9)
    }

    /// Returns the sum of `delta_time` over the live time, if both exist.
    pub(crate) fn delta_share(&self) -> Option<f64> {
        let both = self.has_times() && self.deltas > 0 && self.live_ns > 0;
        both.then(|| self.delta_ns as f64 / self.live_ns as f64)
    }
}

/// Returns the least of two places that may be absent.
fn first_of<T: Ord + Clone>(own: Option<T>, its: Option<&T>) -> Option<T> {
    match (own, its) {
        (Some(own), Some(its)) => Some(own.min(its.clone())),
        (own, its) => own.or_else(|| its.cloned()),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tick {
    First,
    Live,
    Gap,
    Backwards,
    /// Outside of [`unix_time::PLAUSIBLE`].
    Implausible,
}

#[cfg(test)]
mod tests {
    use super::*;

    use taiga_flow_gpu::random::Stream;

    const SECOND: i64 = 1_000_000_000;
    /// 2022-12-01 17:00 UTC.
    const EVENING: i64 = 1_669_914_000 * SECOND;

    /// Of times since the evening.
    fn clock(times: &[i64]) -> Clock {
        let (mut clock, mut previous) = (Clock::default(), None);
        for time in times {
            clock.tick(EVENING + *time, previous, 10 * SECOND, true);
            previous = Some(EVENING + *time);
        }
        clock
    }

    #[test]
    fn pauses_are_dead_time_and_steps_back_counted() {
        let counted = clock(&[0, SECOND, 3 * SECOND, 100 * SECOND, 99 * SECOND, 101 * SECOND]);
        assert_eq!(counted.live_ns, 5 * SECOND as u64);
        assert_eq!((counted.gaps, counted.gap_ns, counted.backwards), (1, 97 * SECOND as u64, 1));
        assert_eq!((counted.first, counted.last), (Some(EVENING), Some(EVENING + 101 * SECOND)));
        assert_eq!((counted.live_events, counted.timed), (3, 6));
        let mut wild = Clock::default();
        for time in [i64::MIN, 0, i64::MAX] {
            assert_eq!(wild.tick(time, None, 10 * SECOND, true), Tick::Implausible);
        }
        assert_eq!((wild.live_ns, wild.gaps, wild.implausible, wild.first), (0, 0, 3, None));
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
    fn delta_times_complement_or_replace_times() {
        let mut only = Clock::default();
        for seconds in [f32::NAN, 0.5, 0.25] {
            only.delta(seconds, 10 * SECOND, true);
        }
        assert_eq!((only.deltas, only.live_s()), (2, Some(0.75)));
        // Values in a wrong unit, or of a clock that stands still, cannot be used.
        for seconds in [-1.0, 60.0, 0.0, f32::NAN] {
            let mut odd = only.clone();
            (0..2).for_each(|_| odd.delta(seconds, 10 * SECOND, true));
            assert_eq!((odd.deltas, odd.live_s()), (2, None), "{seconds}");
        }
        assert_eq!(only.delta_share(), None);
        let mut both = clock(&[0, SECOND]);
        both.delta(0.5, 10 * SECOND, true);
        assert_eq!(both.delta_share(), Some(0.5));
        // Times cannot be used if most events have none.
        both.untimed += 5;
        assert_eq!(
            (both.live(), both.span(), both.delta_share()),
            (Some((SECOND as u64 / 2, 1)), None, None)
        );
    }

    #[test]
    fn clock_that_stands_still_gives_no_live_time() {
        let frozen = clock(&vec![0; 50]);
        assert_eq!((frozen.live_events, frozen.live()), (49, None));
        let steps = |from: i64, n: i64| (from..from + n).map(|i| i * SECOND / 10);
        // 500 events of 10 000 at one time are left out, the rate is that of the others.
        let times: Vec<i64> = steps(0, 5000)
            .chain(std::iter::repeat_n(500 * SECOND, 500))
            .chain(steps(5001, 4500))
            .collect();
        let part = clock(&times);
        assert_eq!((part.stalled, part.live_ns), (499, 950 * SECOND as u64));
        assert_eq!(part.live(), Some((950 * SECOND as u64, 9500)));
        // Most of them: no live time.
        let times: Vec<i64> = steps(0, 500)
            .chain(std::iter::repeat_n(50 * SECOND, 4500))
            .chain(steps(501, 10))
            .collect();
        assert_eq!(clock(&times).live(), None);
        // A clock that counts seconds at 30 Hz.
        let coarse: Vec<i64> = (0..3000).map(|i| i / 30 * SECOND).collect();
        assert_eq!(clock(&coarse).live(), Some((99 * SECOND as u64, 2999)));
    }

    #[test]
    fn rate_with_bad_stretches_is_the_true_one() {
        // Poisson events at 7 Hz for 4 h; every second ten minutes are of bad quality, and
        // then 40 Hz of something else are there too.
        let (seed, rate, noise) = (crate::test_seed(), 7.0, 40.0);
        let steps = Stream::new(seed, "steps", &[]);
        let (mut clock, mut previous, mut time, mut events) = (Clock::default(), None, 0.0, 0_u64);
        while time < 4.0 * 3600.0 {
            let bad = (time / 600.0) as u64 % 2 == 1;
            let hertz = if bad { rate + noise } else { rate };
            time -= libm::log(1.0 - steps.uniform(events)) / hertz;
            events += 1;
            let bad = (time / 600.0) as u64 % 2 == 1;
            let now = EVENING + (time * 1e9) as i64;
            clock.tick(now, previous, 10 * SECOND, !bad);
            previous = Some(now);
        }
        let (live_ns, counted) = clock.live().unwrap();
        let live = live_ns as f64 / 1e9;
        assert!((live - 7200.0).abs() < 20.0, "{live} s");
        let (found, error) = (counted as f64 / live, (rate / live).sqrt());
        assert!((found - rate).abs() < 5.0 * error, "{found} ± {error} Hz");
        // All events over live time is far from it.
        assert!(events as f64 / live > 6.0 * rate);
    }
}
