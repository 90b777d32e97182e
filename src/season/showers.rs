//! Showers that several telescopes record, in sums over telescopes.
//!
//! An image counts once per telescope. If two telescopes observe at the same time, a shower may have
//! an image in each. The counts of their sum are then not independent, and its significance is an
//! upper bound: it may be too high by up to the square root of the number of telescopes.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Counting of the showers of a sum.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Showers {
    /// Each shower is recorded by one telescope.
    #[default]
    Distinct,
    /// Each shower counts once per telescope: the significance is an upper bound.
    Independent,
    /// Showers of several telescopes count once, by the image with the largest size.
    Combined,
}

/// Warning of [`Showers::Independent`] on the page and in the text.
pub const INDEPENDENT: &str = "telescopes are counted as independent: the same shower may count \
                               several times, and the significance of the sum is an upper bound";

/// Times of one run, per file.
#[derive(Debug, Clone, Copy)]
pub struct RunTimes<'a> {
    pub telescope: Option<i64>,
    /// First and last time of each file [ns]; empty if unknown.
    pub segments: &'a [(i64, i64, String)],
    /// Whether two files of the run overlap, as those of two telescopes do.
    pub overlaps: bool,
}

/// Returns how the showers of runs count: independently if two telescopes observed at the same time,
/// or may have.
pub fn of(runs: &[RunTimes]) -> Showers {
    if runs.iter().any(|run| run.overlaps) {
        return Showers::Independent;
    }
    let first = runs.first().map(|run| run.telescope);
    if runs.iter().all(|run| Some(run.telescope) == first) {
        return Showers::Distinct;
    }
    if runs.iter().any(|run| run.segments.is_empty()) {
        return Showers::Independent;
    }
    let mut all: Vec<(i64, i64, Option<i64>)> = runs
        .iter()
        .flat_map(|run| run.segments.iter().map(|(a, b, _)| (*a, *b, run.telescope)))
        .collect();
    all.sort_unstable();
    let mut ends: BTreeMap<Option<i64>, i64> = BTreeMap::new();
    for (start, end, telescope) in all {
        if ends.iter().any(|(other, last)| *other != telescope && *last >= start) {
            return Showers::Independent;
        }
        let last = ends.entry(telescope).or_insert(end);
        *last = end.max(*last);
    }
    Showers::Distinct
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(start: i64, end: i64) -> Vec<(i64, i64, String)> {
        vec![(start, end, "a.h5".to_string())]
    }

    #[test]
    fn telescopes_share_showers_when_they_overlap() {
        let (early, late, long) = (segment(0, 10), segment(20, 30), segment(5, 25));
        let watch = |telescope: i64, segments| RunTimes {
            telescope: Some(telescope),
            segments,
            overlaps: false,
        };
        assert_eq!(of(&[]), Showers::Distinct);
        assert_eq!(of(&[watch(1, &early), watch(1, &long)]), Showers::Distinct);
        assert_eq!(of(&[watch(1, &early), watch(2, &late)]), Showers::Distinct);
        assert_eq!(of(&[watch(2, &late), watch(1, &long)]), Showers::Independent);
        assert_eq!(of(&[watch(1, &early), watch(1, &late), watch(2, &long)]), Showers::Independent);
        // Without times they may.
        assert_eq!(of(&[watch(1, &early), watch(2, &[])]), Showers::Independent);
        // Files of one run that overlap are those of several telescopes.
        let overlaps = RunTimes { telescope: None, segments: &early, overlaps: true };
        assert_eq!(of(&[overlaps]), Showers::Independent);
    }
}
