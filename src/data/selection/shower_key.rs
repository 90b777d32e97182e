//! Refuses tables whose images of one shower would be in different parts of a split.
//!
//! Simulations use one shower with several core positions (`axis_scatter` of TAIGA). Its images
//! are similar, so a model would be tested on showers that it was trained on.

use crate::data::schema::columns::CHUNK_ROWS;
use crate::data::table::{Block, Request, Table};
use crate::error::{Error, Fault, Result};
use std::collections::HashMap;

/// Rows examined. The images of a shower are consecutive, so the first rows are enough.
const ROWS: u64 = 1 << 20;

/// Refuses a table without a shower key in which one event number has several values of a column
/// that counts the uses of a shower.
///
/// # Errors
/// `Input` with the names of both columns, and the error of reading them.
pub(crate) fn refuse_scattered(table: &Table) -> Result<()> {
    if !table.shower_columns().is_empty() {
        return Ok(());
    }
    let columns = table.columns();
    let throws = columns.iter().find(|name| counts_throws(name));
    let events = columns.iter().filter(|name| numbers_events(name));
    let Some(throw) = throws else { return Ok(()) };
    for event in events {
        let keyed = table.with_shower(vec![event.clone(), throw.clone()]);
        let request = Request { shower: true, ..Request::default() };
        // Columns that are not integers cannot be keys.
        let Ok(mut reader) = keyed.reader(&request) else { continue };
        let mut seen: HashMap<i64, i64> = HashMap::new();
        let mut block = Block::default();
        for first in (0..table.rows().min(ROWS)).step_by(CHUNK_ROWS) {
            reader.read(first..table.rows().min(first + CHUNK_ROWS as u64), &mut block)?;
            for (number, value) in block.shower[0].iter().zip(&block.shower[1]) {
                let known = *seen.entry(*number).or_insert(*value);
                if known != *value {
                    return Err(scattered(table, [event, throw], [*number, known, *value]));
                }
            }
        }
    }
    Ok(())
}

/// Returns whether the name is that of a column that counts the uses of a shower.
fn counts_throws(name: &str) -> bool {
    let name = name.to_lowercase();
    name.contains("scatter") || name.contains("reuse")
}

/// Returns whether the name is that of a column of event numbers.
fn numbers_events(name: &str) -> bool {
    let name = name.to_lowercase();
    name == "event" || name.contains("event") && (name.contains("num") || name.contains("id"))
}

/// Returns the error of a table with several images of one shower and no shower key.
fn scattered(table: &Table, [event, throw]: [&str; 2], [number, one, other]: [i64; 3]) -> Error {
    Fault::new("images of one shower would be in different parts of the split")
        .file(table.path())
        .column(throw)
        .expected("a shower key (run_id and event_id in event files, keys.shower in a schema)")
        .found(format!("{event} {number} with {throw} {one} and {other}"))
        .advice(format!(
            "extract or convert the file again, which writes the key; or name it with split.key = [\"{event}\"], if event numbers do not repeat between runs"
        ))
        .input()
}
