//! Finds duplicate events over all ranks.
//!
//! - The search is exact: names of 64 bits only choose the rows that are then compared key by key.
//! - The message is the same on any number of ranks.
//! - A rank holds 8 bytes per row of its share, and about as much while shares are exchanged.
//! - Events of tables without a key of the event are not compared: rows of equal text
//!   (`row_hash`) may be different events with rounded values. Training compares their features
//!   instead, and allows some repeats (`classes::refuse_repeated`).
//! - Equal keys of gammas and of hadrons are not duplicates, since simulations number their runs
//!   alike.

use super::event_store::class_of;
use super::source::Source;
use crate::comm::{Communicator, Work, gather_values, mark_shared, sync_result};
use crate::data::schema::columns::CHUNK_ROWS;
use crate::data::table::{Block, InputFile, Request, TableReader};
use crate::error::{Fault, Result};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// Most repeated names, and most rows with such a name, that are compared. If there are more, the
/// least ones are enough: so many rows of so few names contain a name twice.
const MOST_NAMES: usize = 1 << 14;
const MOST_ROWS: usize = 1 << 16;

/// A row: its file, its place in the file, its class and key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct EventRow {
    source: usize,
    place: u64,
    class: i8,
    key: Vec<i64>,
}

/// Refuses duplicate events. A collective.
///
/// # Errors
/// `Input`, with an example; those of reading the files.
pub(crate) fn refuse(comm: &dyn Communicator, sources: &[Source]) -> Result<()> {
    const ADVICE: &str = "`taiga-flow check` lists all; remove the copies, or set data.allow_repeated_events = true where other events have the same numbers";
    match find(comm, sources)? {
        None => Ok(()),
        Some(fault) => mark_shared(Err(fault.advice(ADVICE).input())),
    }
}

/// Returns the fault of duplicate events; `None` if there are none. A collective.
pub(crate) fn find(comm: &dyn Communicator, sources: &[Source]) -> Result<Option<Fault>> {
    let mut names = Vec::new();
    let read = for_each_row(comm, sources, |row| names.push(name(sources, row)));
    sync_result(comm, read)?;
    let shared = shared_names(comm, &mut names)?;
    drop(names);
    if shared.is_empty() {
        return Ok(None);
    }
    let mut mine = Vec::new();
    let read = for_each_row(comm, sources, |row| {
        if mine.len() < MOST_ROWS && shared.contains(&name(sources, row)) {
            mine.push(row.clone());
        }
    });
    sync_result(comm, read)?;
    let rows = gather(comm, &mine)?;
    let all = shared.len() < MOST_NAMES && rows.len() < MOST_ROWS;
    mark_shared(compare(sources, rows, all))
}

/// Returns whether a file has no key that identifies an event, such as run and event number.
///
/// # Errors
/// Those of opening the first file of each schema.
pub(crate) fn lack_event_keys(sources: &[Source]) -> Result<bool> {
    let mut known = BTreeSet::new();
    for source in sources.iter().filter(|source| known.insert(source.schema.name.as_str())) {
        let file = InputFile::open(&source.path, Some(&source.schema))?;
        if file.table().event_columns().is_empty() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Calls `take` for each row of the share of this rank.
fn for_each_row(
    comm: &dyn Communicator,
    sources: &[Source],
    mut take: impl FnMut(&EventRow),
) -> Result<()> {
    let total: u128 = sources.iter().map(|source| u128::from(source.rows)).sum();
    let cut = |rank: usize| (total * rank as u128 / comm.size() as u128) as u64;
    let mine = cut(comm.rank())..cut(comm.rank() + 1);
    let (mut first, mut block) = (0, Block::default());
    let mut current = EventRow { source: 0, place: 0, class: 0, key: Vec::new() };
    for (index, source) in sources.iter().enumerate() {
        let file = first..first + source.rows;
        let rows = mine.start.clamp(file.start, file.end)..mine.end.clamp(file.start, file.end);
        first = file.end;
        if rows.is_empty() {
            continue;
        }
        let Some(mut reader) = open(source)? else { continue };
        for (start, rows) in pieces(rows.start - file.start..rows.end - file.start) {
            comm.progress(Work::Reading, start);
            reader.read(rows, &mut block)?;
            for row in 0..block.rows {
                (current.source, current.place) = (index, start + row as u64);
                current.class = class_of(source, &block, row).unwrap_or(0);
                current.key.clear();
                current.key.extend(block.shower.iter().map(|column| column[row]));
                take(&current);
            }
        }
    }
    Ok(())
}

fn pieces(rows: Range<u64>) -> impl Iterator<Item = (u64, Range<u64>)> {
    let end = rows.end;
    rows.step_by(CHUNK_ROWS).map(move |start| (start, start..end.min(start + CHUNK_ROWS as u64)))
}

/// Opens a reader of the keys of a file; returns `None` if the file has no key of a row.
fn open(source: &Source) -> Result<Option<TableReader>> {
    let mut file = InputFile::open(&source.path, Some(&source.schema))?;
    let columns = file.table().event_columns();
    if columns.is_empty() {
        return Ok(None);
    }
    let request = Request { shower: true, class: source.class.is_none(), ..Request::default() };
    let keyed = file.table().with_shower(columns);
    file.reader_of(&keyed, &request).map(Some)
}

/// Returns a hash of class and key, of 64 bits. Keys of different columns most likely have
/// different names; the comparison of keys separates the others.
fn name(sources: &[Source], row: &EventRow) -> u64 {
    let words = row.key.iter().map(|word| *word as u64);
    let schema = sources[row.source].schema.name.len() as u64;
    words.fold(row.class as u64 ^ schema << 32, mixed)
}

/// Returns the next state of a hash of words: the finaliser of splitmix64 (Steele, Lea and Flood
/// 2014).
pub(crate) fn mixed(state: u64, word: u64) -> u64 {
    let mut z = (state ^ word).wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

/// Returns the least names that occur more than once over all ranks. Each rank compares its share
/// of the names, which it receives from all others. A collective.
fn shared_names(comm: &dyn Communicator, names: &mut [u64]) -> Result<BTreeSet<u64>> {
    let ranks = comm.size();
    let mut doubled = Vec::new();
    if ranks == 1 {
        doubled = repeated(names);
    } else {
        for owner in 0..ranks {
            let share = names.iter().filter(|name| **name % ranks as u64 == owner as u64);
            let bytes: Vec<u8> = share.flat_map(|name| name.to_le_bytes()).collect();
            let messages = comm.all_gather(&bytes)?;
            if owner == comm.rank() {
                doubled = repeated(
                    &mut messages.iter().flat_map(|bytes| words(bytes)).collect::<Vec<_>>(),
                );
            }
        }
    }
    let bytes: Vec<u8> = doubled.iter().flat_map(|name| name.to_le_bytes()).collect();
    let messages = comm.all_gather(&bytes)?;
    let all: BTreeSet<u64> = messages.iter().flat_map(|bytes| words(bytes)).collect();
    Ok(all.into_iter().take(MOST_NAMES).collect())
}

fn words(bytes: &[u8]) -> impl Iterator<Item = u64> {
    bytes.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word))
}

fn repeated(names: &mut [u64]) -> Vec<u64> {
    names.sort_unstable();
    let runs = names.chunk_by(|a, b| a == b).filter(|run| run.len() > 1);
    runs.map(|run| run[0]).take(MOST_NAMES).collect()
}

/// Returns the first rows of all ranks, on every rank. A collective.
fn gather(comm: &dyn Communicator, mine: &[EventRow]) -> Result<Vec<EventRow>> {
    let mut rows: Vec<EventRow> =
        gather_values(comm, &mine.to_vec())?.into_iter().flatten().collect();
    rows.sort();
    rows.truncate(MOST_ROWS);
    Ok(rows)
}

/// Compares whole keys with the names of their columns; `all` is whether `rows` contains all rows
/// with repeated names.
fn compare(sources: &[Source], rows: Vec<EventRow>, all: bool) -> Result<Option<Fault>> {
    let mut columns = Vec::with_capacity(sources.len());
    for source in sources {
        let file = InputFile::open(&source.path, Some(&source.schema))?;
        columns.push(file.table().event_columns());
    }
    let mut known = BTreeMap::new();
    let (mut count, mut example) = (0u64, None);
    for EventRow { source, place, class, key } in rows {
        let first = *known
            .entry((columns[source].as_slice(), class, key.clone()))
            .or_insert((source, place));
        if first != (source, place) {
            count += 1;
            example = example.or(Some((first, (source, place), key)));
        }
    }
    let Some(((other, other_row), (source, row), key)) = example else { return Ok(None) };
    let named = columns[source].iter().zip(&key).map(|(name, word)| format!("{name} {word}"));
    let named: Vec<String> = named.collect();
    Ok(Some(
        Fault::new("duplicate events")
            .file(&sources[source].path)
            .row(row)
            .expected("every event once")
            .found(format!(
                "{}{count} rows with the key of another, such as row {other_row} of {} ({})",
                if all { "" } else { "at least " },
                sources[other].path.display(),
                named.join(", ")
            )),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comm::{SingleRank, Threads};
    use crate::config::Class;
    use crate::data::table::events;
    use crate::data::{ColumnSpec, ColumnType, ColumnValues, ColumnWriter};
    use std::path::Path;

    const GAMMA: Option<Class> = Some(Class::Gamma);

    fn file(path: &Path, key: &str, run: i64, events: &[i64], class: Option<Class>) -> Source {
        let specs = [
            ColumnSpec::new("size", ColumnType::F32, None),
            ColumnSpec::new("run_id", ColumnType::I64, None),
            ColumnSpec::new(key, ColumnType::I64, None),
        ];
        let mut writer = ColumnWriter::create(path, "events", &specs, false).unwrap();
        let (size, runs) = (vec![1.0; events.len()], vec![run; events.len()]);
        writer
            .append(&[
                ColumnValues::F32(&size),
                ColumnValues::I64(&runs),
                ColumnValues::I64(events),
            ])
            .unwrap();
        writer.finish(&events::attributes(&[])).unwrap();
        Source::open(path, None, class).unwrap().0
    }

    /// Returns the error on one, two and three ranks, which must be the same.
    fn refusal(sources: &[Source]) -> Option<String> {
        let one = refuse(&SingleRank, sources).err().map(|error| error.to_string());
        for ranks in [2, 3] {
            for messages in Threads::run(ranks, |comm| refuse(comm, sources)) {
                assert_eq!(messages.err().map(|error| error.to_string()), one, "{ranks} ranks");
            }
        }
        one
    }

    #[test]
    fn duplicate_event_is_found_with_both_places() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let n = CHUNK_ROWS as i64 + 1000;
        let (a, b): (Vec<i64>, Vec<i64>) = ((0..n).collect(), (0..n).collect());
        let mut c: Vec<i64> = (n..n + 500).collect();
        let first = file(&at("a.h5"), "event_id", 1, &a, GAMMA);
        let other_run = file(&at("b.h5"), "event_id", 2, &b, GAMMA);
        let more = file(&at("c.h5"), "event_id", 1, &c, GAMMA);
        let once = [first, other_run, more];
        assert_eq!(refusal(&once), None);
        // Two copies of events in a.h5, and one within d.h5.
        (c[17], c[33], c[400]) = (n - 5, 3, n);
        let sources = [once.as_slice(), &[file(&at("d.h5"), "event_id", 1, &c, GAMMA)]].concat();
        let [a, b, _, d] = [0, 1, 2, 3].map(|i| sources[i].clone());
        let text = refusal(&[a, b, d]).unwrap();
        assert!(text.contains("3 rows with the key of another"), "{text}");
        let places = ["d.h5", "row 17", &format!("row {}", n - 5), "a.h5", "run_id 1"];
        assert!(places.iter().all(|place| text.contains(place)), "{text}");
    }

    #[test]
    fn many_copies_are_reported_alike_on_any_ranks() {
        let folder = tempfile::tempdir().unwrap();
        let n = MOST_ROWS as i64 + 77;
        // The same event in many rows, then many events twice.
        for (i, of) in [|_| 5, |row: i64| row % 40_000].into_iter().enumerate() {
            let events: Vec<i64> = (0..n).map(of).collect();
            let path = folder.path().join(format!("{i}.h5"));
            let text = refusal(&[file(&path, "event_id", 1, &events, GAMMA)]).unwrap();
            assert!(text.contains("at least ") && text.contains("rows with the key"), "{text}");
        }
    }

    #[test]
    fn equal_keys_of_other_class_are_not_copies() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let events: Vec<i64> = (0..300).collect();
        let hadron = Some(Class::Hadron);
        let gammas = file(&at("a.h5"), "event_id", 1, &events, GAMMA);
        assert_eq!(
            refusal(&[gammas.clone(), file(&at("b.h5"), "event_id", 1, &events, hadron)]),
            None
        );
        assert!(
            refusal(&[gammas, file(&at("c.h5"), "event_id", 1, &events[..7], GAMMA)]).is_some()
        );
        let rows = file(&at("d.h5"), "row_hash", 1, &[5; 40], GAMMA);
        assert_eq!(refusal(&[rows]), None);
    }
}
