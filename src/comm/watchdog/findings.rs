//! Errors about ranks that are missing, make no progress, or wait for each other.

use std::time::Duration;

use super::heartbeats::{Activity, Record};
use super::state::ReadingOf;
use crate::error::{Error, Fault};

/// Describes the missing ranks: the collective, their last positions, and the files they read.
pub(super) fn missing(
    records: &[Option<&Record>],
    ranks: &[usize],
    why: &str,
    reading: &ReadingOf,
) -> Error {
    let is_reading = ranks.iter().any(|rank| reading(*rank).is_some());
    let who: Vec<String> =
        ranks.iter().map(|rank| rank_text(*rank, records[*rank], reading)).collect();
    let waiting = records.iter().flatten().filter_map(|r| match r.activity {
        Activity::Waiting(call) => Some((r.entered, call, r)),
        Activity::Working | Activity::Left => None,
    });
    let furthest = waiting.max_by_key(|(entered, ..)| *entered);
    let collective = if let Some((number, call, r)) = furthest {
        format!("{} {number}, {}", call.name(), r.place())
    } else {
        let reached = records.iter().flatten().map(|r| r.entered).max().unwrap_or(0);
        format!("collective {}", reached + 1)
    };
    Fault::new(format!("a rank is missing from {collective}"))
        .expected(format!("{} ranks", records.len()))
        .found(format!("{why} of {}", who.join("; ")))
        .advice(advice(is_reading))
        .environment()
}

/// Describes ranks that all wait, with their collectives.
pub(super) fn jammed(records: &[Option<&Record>], waited: Duration) -> Error {
    let calls: Vec<String> = records.iter().copied().enumerate().filter_map(waiting_text).collect();
    Fault::new("all ranks wait, and no collective completes")
        .found(format!("for {:.1} s: {}", waited.as_secs_f64(), calls.join(", ")))
        .advice("check the network between these nodes, and run the same command again")
        .environment()
}

/// Describes a rank that waits in a collective; `None` for other ranks.
fn waiting_text((rank, record): (usize, Option<&Record>)) -> Option<String> {
    let Record { activity: Activity::Waiting(call), host, entered, .. } = record? else {
        return None;
    };
    Some(format!("rank {rank} on {host} in {} {entered}", call.name()))
}

/// Describes a rank: host, process, last position, and the file it reads.
fn rank_text(rank: usize, record: Option<&Record>, reading: &ReadingOf) -> String {
    let file = reading(rank).map_or(String::new(), |file| format!(", reading {file}"));
    let Some(r) = record else { return format!("rank {rank}{file}") };
    let (host, process, place) = (&r.host, r.process, r.place());
    format!("rank {rank} on {host} (process {process}), last seen {place}{file}")
}

/// Returns the advice for a rank without progress.
pub(super) fn advice(is_reading: bool) -> &'static str {
    if is_reading {
        "run the same command again: a child process then reads this file first, and the file is \
         skipped if that fails"
    } else {
        "check that node, exclude it if it is broken, and run the same command again"
    }
}
