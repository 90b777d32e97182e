//! Compares the class column of a file with the class that the file was given as.

use super::source::Source;
use crate::comm::{Communicator, Work, is_root, mark_shared, sync_result};
use crate::config::Class;
use crate::data::schema::columns::CHUNK_ROWS;
use crate::data::table::{Block, InputFile, Request};
use crate::error::{Error, Fault, Result};

/// Refuses files given as one class whose rows are all of the other class, and warns of files with
/// some such rows. Files with a view are not checked: hadrons off a source are used whatever their
/// class. A collective.
///
/// # Errors
/// `Input`, with the first such file; those of reading a file.
pub(crate) fn refuse_swapped(
    comm: &dyn Communicator,
    sources: &[Source],
    advice: &str,
) -> Result<()> {
    // Per file: rows of the other class, and rows without a class.
    let mut others = vec![0_i64; 2 * sources.len()];
    let mine = (0..sources.len()).filter(|i| i % comm.size() == comm.rank());
    let counted = mine.map(|i| others_of(comm, &sources[i]).map(|count| (i, count)));
    let counted = sync_result(comm, counted.collect::<Result<Vec<_>>>())?;
    for (i, count) in counted {
        others[2 * i..2 * i + 2].copy_from_slice(&count.map(|rows| rows as i64));
    }
    comm.all_reduce_sum(&mut others)?;
    for (source, counts) in sources.iter().zip(others.as_chunks::<2>().0) {
        let [others, unknown] = counts.map(|rows| rows as u64);
        if others > 0 && others == source.rows {
            return mark_shared(Err(swapped(source, others, advice)));
        }
        if let (true, true, Some(class)) = (others > 0, is_root(comm), source.class) {
            log::warn!(
                "{}: given as {class}s, but {others} of {} rows are {}s by its class column; list \
                 the file under data.mixed to train on its {class}s alone",
                source.path.display(),
                source.rows,
                class.other()
            );
        }
        if let (true, true, Some(class)) = (unknown > 0, is_root(comm), source.class) {
            log::warn!("{}: {}", source.path.display(), unlabelled(unknown, source.rows, class));
        }
    }
    Ok(())
}

/// Returns the error of a file whose rows all have the other class than the file.
pub(crate) fn swapped(source: &Source, others: u64, advice: &str) -> Error {
    let class = source.class.map_or_else(String::new, |class| format!("{class}s"));
    Fault::new("the file is wholly of the other class")
        .file(&source.path)
        .expected(class)
        .found(format!("{others} events of the other class"))
        .advice(advice)
        .input()
}

/// Returns a warning of rows that count as a class because their file is given as this class.
pub(crate) fn unlabelled(unknown: u64, rows: u64, class: Class) -> String {
    format!(
        "{unknown} of {rows} rows have no class in the class column, and count as {class}s, as the file is given"
    )
}

/// Counts the rows whose class differs from the class of the file, and the rows without a known
/// class.
fn others_of(comm: &dyn Communicator, source: &Source) -> Result<[u64; 2]> {
    let (Some(class), None) = (source.class, &source.view) else { return Ok([0; 2]) };
    let mut file = InputFile::open(&source.path, Some(&source.schema))?;
    if !file.table().has_class() {
        return Ok([0; 2]);
    }
    let mut reader = file.reader(&Request { class: true, ..Request::default() })?;
    let (mut block, mut others, mut unknown) = (Block::default(), 0, 0);
    for start in (0..source.rows).step_by(CHUNK_ROWS) {
        comm.progress(Work::Reading, start);
        reader.read(start..(start + CHUNK_ROWS as u64).min(source.rows), &mut block)?;
        let classes = block.class.as_deref().unwrap_or_default();
        others += classes.iter().filter(|code| **code >= 0 && **code != class.code()).count();
        unknown += classes.iter().filter(|code| **code < 0).count();
    }
    Ok([others, unknown].map(|rows| rows as u64))
}
