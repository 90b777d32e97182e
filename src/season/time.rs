//! Dates of nights and seasons, from nanoseconds since 1970.

const NS: i64 = 1_000_000_000;
const DAY: i64 = 86_400;

/// Converts days since 1970-01-01 to year, month, day (Gregorian; with years from March, after
/// Fliegel and Van Flandern 1968).
fn date(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year + i64::from(month <= 2), month, day)
}

/// Returns the night of a time by the date of its evening: from noon to noon of local time.
pub fn night(time_ns: i64, utc_offset_h: f64) -> String {
    let local = time_ns.div_euclid(NS) + (utc_offset_h * 3600.0) as i64;
    let (year, month, day) = date((local - DAY / 2).div_euclid(DAY));
    format!("{year:04}-{month:02}-{day:02}")
}

/// Returns how many nights lie between a time and the date in a run number (YYYYMMDD, or
/// YYYYMMDDRRR with a number of the run), and that date; `None` for other numbers.
pub fn nights_from_number(run: i64, time_ns: i64, utc_offset_h: f64) -> Option<(i64, String)> {
    let number = match run {
        20_000_101..=21_001_231 => run,
        20_000_101_000..=21_001_231_999 => run / 1000,
        _ => return None,
    };
    let (year, month, day) = (number / 10_000, number / 100 % 100, number % 100);
    let local = time_ns.div_euclid(NS) + (utc_offset_h * 3600.0) as i64;
    let night = (local - DAY / 2).div_euclid(DAY);
    // Days of the number, by the dates around that of the same ordinal.
    let about = (year - 1970) * 365 + (year - 1969) / 4 + (month - 1) * 30 + day - 1;
    let days = (about - 3..about + 10).find(|days| date(*days) == (year, month, day))?;
    Some((night - days, format!("{year:04}-{month:02}-{day:02}")))
}

/// Returns the observing season of a time, from July to June: `2022-2023`.
pub fn season(time_ns: i64, utc_offset_h: f64) -> String {
    let local = time_ns.div_euclid(NS) + (utc_offset_h * 3600.0) as i64;
    let (year, month, _) = date((local - DAY / 2).div_euclid(DAY));
    let first = if month >= 7 { year } else { year - 1 };
    format!("{first:04}-{:04}", first + 1)
}

/// Returns a time in UTC: `2022-12-01 17:03:20.123`.
pub fn utc(time_ns: i64) -> String {
    let seconds = time_ns.div_euclid(NS);
    let (year, month, day) = date(seconds.div_euclid(DAY));
    let second = seconds.rem_euclid(DAY);
    format!(
        "{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}.{:03}",
        second / 3600,
        second / 60 % 60,
        second % 60,
        time_ns.rem_euclid(NS) / 1_000_000
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn run_numbers_are_compared_with_nights() {
        let evening = 1_669_914_200 * NS; // 2022-12-01
        let nights = |run| nights_from_number(run, evening, 8.0).map(|(nights, _)| nights);
        assert_eq!(nights(20_221_201_001), Some(0));
        assert_eq!(nights(20_221_130), Some(1));
        assert_eq!(nights(20_231_201_005), Some(-365));
        assert_eq!(nights(20_240_229_001), Some(-455));
        for other in [7, 20_221_301_001, 20_230_229_001, -1, i64::MAX] {
            assert_eq!(nights(other), None, "{other}");
        }
    }

    #[test]
    fn times_have_their_dates_nights_and_seasons() {
        assert_eq!(utc(0), "1970-01-01 00:00:00.000");
        assert_eq!(utc(951_782_400 * NS), "2000-02-29 00:00:00.000");
        assert_eq!(utc(1_669_914_200 * NS + 123_456_789), "2022-12-01 17:03:20.123");
        assert_eq!(utc(-NS), "1969-12-31 23:59:59.000");
        // 17:03 UTC is 01:03 of the next day in Tunka, still the night of 1 December.
        assert_eq!(night(1_669_914_200 * NS, 8.0), "2022-12-01");
        assert_eq!(season(1_669_914_200 * NS, 8.0), "2022-2023");
        assert_eq!(season(1_656_676_800 * NS, 8.0), "2022-2023"); // 2022-07-01 12:00 UTC
        assert_eq!(season(1_656_500_000 * NS, 8.0), "2021-2022");
    }
}
