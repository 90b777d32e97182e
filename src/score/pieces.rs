//! Merges the pieces of a long file, which several ranks have scored.
//!
//! Each piece is an HDF5 file of its own below `.pieces`. The merged output has the same bytes as
//! that of a file scored without pieces. Pieces that a killed job left are used again, provided that
//! their settings, their input and their own content are the same: a piece is complete when its
//! hash is on disk, in a file next to it.

use super::input::Facts;
use super::output::{GROUP, PIECE_FORMAT, ScoreOutput, StatusCounts};
use crate::bounded;
use crate::data::files::finished::{FinishedColumn, FinishedFile};
use crate::data::files::stamp::{Stamp, hash_file_with_progress, hash_text};
use crate::data::schema::columns::{CHUNK_ROWS, ColumnSpec, ColumnValues};
use crate::error::{Fault, Result};
use crate::storage;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Folder within the output folder, removed at the end.
pub const FOLDER: &str = ".pieces";
/// Extension of the file with the hash of a piece.
const HASH_EXTENSION: &str = "blake3";
/// Length of a hash as text [bytes].
const HASH_LENGTH: u64 = 64;

/// Returns the row ranges of the pieces of a file. They are whole chunks, so that no chunk is read
/// twice.
pub fn cut(rows: u64, bound: u64) -> Vec<(u64, u64)> {
    let chunk = CHUNK_ROWS as u64;
    let pieces = rows.div_ceil(bound.max(1)).max(1);
    let length = rows.div_ceil(pieces).div_ceil(chunk) * chunk;
    (0..rows.div_ceil(length)).map(|i| (i * length, rows.min((i + 1) * length))).collect()
}

/// Returns the folder of the pieces of an output.
pub fn folder_of(output: &Path, name: &str) -> PathBuf {
    output.join(FOLDER).join(name)
}

/// Returns the path of a piece of an output.
pub fn path_of(output: &Path, name: &str, rows: &Range<u64>) -> PathBuf {
    folder_of(output, name).join(format!("{}-{}.h5", rows.start, rows.end))
}

/// Returns whether a piece is complete, has its recorded hash, and was made with these settings
/// from the file as it is. `progress` is called while the piece is hashed.
pub fn is_finished(
    path: &Path,
    (settings, stamp): (&str, &str),
    rows: &Range<u64>,
    progress: impl Fn(),
) -> bool {
    let file = open(path, settings, stamp);
    file.is_some_and(|file| file.rows() == Some(rows.end - rows.start))
        && has_recorded_hash(path, progress)
}

/// Records the hash of a piece, which completes it.
pub fn record_hash(path: &Path, progress: impl Fn()) -> Result<()> {
    let hash = hash_text(&hash_file_with_progress(path, progress)?);
    storage::write_file(&hash_path(path), hash.as_bytes())
}

fn has_recorded_hash(path: &Path, progress: impl Fn()) -> bool {
    let Ok(recorded) = bounded::read(&hash_path(path), HASH_LENGTH) else { return false };
    hash_file_with_progress(path, progress)
        .is_ok_and(|found| hash_text(&found).as_bytes() == recorded)
}

fn hash_path(piece: &Path) -> PathBuf {
    piece.with_extension(HASH_EXTENSION)
}

/// Removes the pieces of an output that an earlier start made from a different file, or from the
/// input before a change. The portable stamp, which ranks on different hosts compare, does not
/// show such a change.
pub fn remove_stale(folder: &Path, input: &Path) -> Result<()> {
    let exact = Stamp::of(input).map(|stamp| stamp.exact());
    for path in std::fs::read_dir(folder).into_iter().flatten().flatten().map(|e| e.path()) {
        if path.extension().is_some_and(|extension| extension == HASH_EXTENSION) {
            continue;
        }
        let made_of = FinishedFile::open(&path, PIECE_FORMAT)
            .and_then(|piece| piece.text("input_exact_stamp"));
        if made_of.is_none() || made_of != exact {
            storage::remove_file(&path)?;
            storage::remove_file(&hash_path(&path))?;
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

/// Appends all pieces in their order to the output and returns the facts about their rows.
/// `progress` is called after each block.
///
/// # Errors
/// `Input` if a piece is missing or was changed since it was written.
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
        let file = open(path, settings, stamp)
            .filter(|f| f.rows() == Some(length as u64) && has_recorded_hash(path, &progress));
        let Some(file) = file else {
            return Err(Fault::new("a piece of the output was changed since it was written")
                .file(path)
                .advice("the piece or the input changed: run the same command again")
                .input());
        };
        let warnings = file.text("warnings").map_or(Ok(Vec::new()), |text| {
            serde_json::from_str(&text)
                .map_err(|e| Fault::new("a piece is damaged").file(path).found(e).input())
        })?;
        facts.merge(&Facts::from_numbers(&file.numbers("facts")?, warnings));
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
