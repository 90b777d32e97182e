//! Files in pieces: rows of one long file that several ranks score, each into a file of its
//! own below `.pieces`, until one of them puts them together to the very bytes that scoring
//! it in one go gives. Pieces that a killed job left are used again.

use super::input::Facts;
use super::output::{GROUP, PIECE_FORMAT, ScoreOutput, StatusCounts};
use crate::data::files::finished::{FinishedColumn, FinishedFile};
use crate::data::files::stamp::Stamp;
use crate::data::schema::columns::{CHUNK_ROWS, ColumnSpec, ColumnValues};
use crate::error::{Fault, Result};
use crate::storage;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Folder within the output folder; nothing is left of it at the end.
pub const FOLDER: &str = ".pieces";

/// Rows of the pieces of a file of so many rows; whole chunks, so that no chunk is read
/// twice.
pub fn cut(rows: u64, bound: u64) -> Vec<(u64, u64)> {
    let chunk = CHUNK_ROWS as u64;
    let pieces = rows.div_ceil(bound.max(1)).max(1);
    let length = rows.div_ceil(pieces).div_ceil(chunk) * chunk;
    (0..rows.div_ceil(length)).map(|i| (i * length, rows.min((i + 1) * length))).collect()
}

/// The folder of the pieces of an output.
pub fn folder_of(output: &Path, name: &str) -> PathBuf {
    output.join(FOLDER).join(name)
}

/// Where a piece of an output is.
pub fn path_of(output: &Path, name: &str, rows: &Range<u64>) -> PathBuf {
    folder_of(output, name).join(format!("{}-{}.h5", rows.start, rows.end))
}

/// Whether a piece is there, made with these settings from the file as it is.
pub fn is_finished(path: &Path, settings: &str, stamp: &str, rows: &Range<u64>) -> bool {
    open(path, settings, stamp).is_some_and(|file| file.rows() == Some(rows.end - rows.start))
}

/// Removes the pieces of an output that an earlier start made of another file, or of the input
/// as it was before a change: the stamp that ranks on different hosts compare does not tell.
pub fn remove_stale(folder: &Path, input: &Path) -> Result<()> {
    let exact = Stamp::of(input).map(|stamp| stamp.exact());
    for path in std::fs::read_dir(folder).into_iter().flatten().flatten().map(|e| e.path()) {
        let made_of = FinishedFile::open(&path, PIECE_FORMAT)
            .and_then(|piece| piece.text("input_exact_stamp"));
        if made_of.is_none() || made_of != exact {
            storage::remove_file(&path)?;
        }
    }
    Ok(())
}

fn open(path: &Path, settings: &str, stamp: &str) -> Option<FinishedFile> {
    FinishedFile::open(path, PIECE_FORMAT).filter(|file| {
        file.text("settings_blake3").as_deref() == Some(settings)
            && file.text("input_stamp").as_deref() == Some(stamp)
    })
}

/// Appends all pieces in their order to the output; gives what was found in their rows.
/// `progress` is called on the way.
pub fn merge(
    paths: &[(PathBuf, Range<u64>)],
    (settings, stamp): (&str, &str),
    specs: &[ColumnSpec],
    output: &mut ScoreOutput,
    progress: impl Fn(),
) -> Result<Facts> {
    let mut facts = Facts::default();
    for (path, rows) in paths {
        let length = (rows.end - rows.start) as usize;
        let file = open(path, settings, stamp).filter(|f| f.rows() == Some(length as u64));
        let Some(file) = file else {
            return Err(Fault::new("a piece of the output is not what it was")
                .file(path)
                .advice("the input changed while it was scored: run the same command again")
                .input());
        };
        facts.merge(&Facts::from_numbers(&file.numbers("facts")?));
        output.counts.merge(&StatusCounts::from_numbers(&file.numbers("counts")?));
        for first in (0..length).step_by(CHUNK_ROWS) {
            let block = first..length.min(first + CHUNK_ROWS);
            let columns: Vec<FinishedColumn> = specs
                .iter()
                .map(|spec| file.read(GROUP, spec, block.clone()))
                .collect::<Result<_>>()?;
            let values: Vec<ColumnValues> = columns.iter().map(FinishedColumn::values).collect();
            output.append_values(&values)?;
            progress();
        }
    }
    Ok(facts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_whole_chunks_and_together_the_file() {
        for rows in [1, 65_536, 65_537, 1_000_000, 5_000_001] {
            for bound in [0, 1, 65_536, 100_000, 4_000_000, 10_000_000] {
                let pieces = cut(rows, bound);
                assert_eq!((pieces[0].0, pieces[pieces.len() - 1].1), (0, rows));
                for pair in pieces.windows(2) {
                    assert_eq!(pair[0].1, pair[1].0);
                    assert_eq!(pair[0].1 % CHUNK_ROWS as u64, 0);
                }
                assert!(pieces.iter().all(|(a, b)| a < b));
                let most = bound.max(1).div_ceil(65_536) * 65_536;
                assert!(pieces.iter().all(|(a, b)| b - a <= most), "{rows} {bound}: {pieces:?}");
            }
        }
    }
}
