//! Refuses tables whose images of one shower would fall into several parts of a split.
//!
//! Simulations throw one shower several times (`axis_scatter` of TAIGA): its images resemble
//! each other, so that a model would be tested on showers it was trained on.

use crate::data::schema::columns::CHUNK_ROWS;
use crate::data::table::{Block, Request, Table};
use crate::error::{Error, Fault, Result};
use std::collections::HashMap;

/// Rows looked at: thrown images of a shower follow each other.
const ROWS: u64 = 1 << 20;

/// Refuses a table without a shower key in which an event number has several values of a column
/// that counts throws of a shower.
///
/// # Errors
/// An input error that names both columns, or that of reading them.
pub fn refuse_scattered(table: &Table) -> Result<()> {
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
        // Columns that are not integers are no keys.
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

fn counts_throws(name: &str) -> bool {
    let name = name.to_lowercase();
    name.contains("scatter") || name.contains("reuse")
}

fn numbers_events(name: &str) -> bool {
    let name = name.to_lowercase();
    name == "event" || name.contains("event") && (name.contains("num") || name.contains("id"))
}

fn scattered(table: &Table, [event, throw]: [&str; 2], [number, one, other]: [i64; 3]) -> Error {
    Fault::new("images of one shower would fall into different parts of the split")
        .file(table.path())
        .column(throw)
        .expected("a shower key (run_id and event_id in event files, keys.shower in a schema)")
        .found(format!("{event} {number} with {throw} {one} and {other}"))
        .advice(format!(
            "extract or convert the file again, which writes the key; or name it: split.key = [\"{event}\"], where numbers do not repeat between runs"
        ))
        .input()
}
