//! Plausible times of events, in nanoseconds since 1970 (`unix_time_ns`).
//!
//! The range includes all years with such telescopes. Seconds, milliseconds and microseconds
//! since 1970 are outside of it.

use crate::error::Fault;
use std::ops::Range;

/// Name of the key with the time of an event.
pub(crate) const COLUMN: &str = "unix_time_ns";
/// Range from 2000-01-01 to 2100-01-01 UTC [ns since 1970].
pub(crate) const PLAUSIBLE: Range<i64> = 946_684_800_000_000_000..4_102_444_800_000_000_000;

/// Returns whether a time lies in [`PLAUSIBLE`].
pub(crate) fn is_plausible(time_ns: i64) -> bool {
    PLAUSIBLE.contains(&time_ns)
}

/// Returns the unit in which a time would be plausible, if there is one.
pub(crate) fn likely_unit(time: i64) -> Option<&'static str> {
    let units = [("s", 1_000_000_000), ("ms", 1_000_000), ("µs", 1_000)];
    let fits = |scale: &i64| time.checked_mul(*scale).is_some_and(is_plausible);
    units.iter().find(|(_, scale)| fits(scale)).map(|(name, _)| *name)
}

/// Describes a time that is not plausible: `1669914000 (plausible in s)`.
pub(crate) fn describe(time: i64) -> String {
    match likely_unit(time) {
        Some(unit) => format!("{time} (plausible in {unit})"),
        None => time.to_string(),
    }
}

/// Returns the fault of a row whose time is not plausible; the caller adds file and row.
pub(crate) fn fault(time: i64) -> Fault {
    let advice = match likely_unit(time) {
        Some(unit) => format!(
            "the column may be in {unit}; TAIGA writes ns: multiply the column, or remove the key from the schema"
        ),
        None => "correct the row, or remove the key from the schema".to_string(),
    };
    Fault::new("time outside of 2000 to 2100")
        .column(COLUMN)
        .expected("nanoseconds since 1970, from 2000-01-01 to 2100-01-01")
        .found(time)
        .advice(advice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_in_other_units_are_recognised() {
        let seconds = 1_669_914_000; // 2022-12-01 17:00 UTC
        assert!(is_plausible(seconds * 1_000_000_000));
        for (time, unit) in [
            (seconds, Some("s")),
            (seconds * 1_000, Some("ms")),
            (seconds * 1_000_000, Some("µs")),
            (0, None),
            (-1, None),
            (i64::MAX, None),
            (i64::MIN, None),
        ] {
            assert!(!is_plausible(time));
            assert_eq!(likely_unit(time), unit, "{time}");
        }
        assert!(!is_plausible(PLAUSIBLE.start - 1) && is_plausible(PLAUSIBLE.start));
        assert!(is_plausible(PLAUSIBLE.end - 1) && !is_plausible(PLAUSIBLE.end));
    }
}
