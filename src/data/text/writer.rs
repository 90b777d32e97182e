//! Writes columns as comma-separated text with a header.
//!
//! - Numbers are the shortest decimals that parse to the same bits.
//! - Two-dimensional columns are `name[0]`, `name[1]`, …
//! - Equal data give equal bytes.
//! - The file gets its final name only when it is complete.

use crate::data::schema::columns::{ColumnSpec, ColumnValues};
use crate::error::Result;
use crate::storage::StagedFile;
use std::fmt::Write;
use std::path::Path;

/// Rows per write.
const BLOCK_ROWS: usize = 4096;

/// Writer of one table. If it is dropped before [`TextWriter::finish`], it removes the
/// incomplete file.
pub(crate) struct TextWriter {
    file: StagedFile,
    widths: Vec<usize>, // values per row
    text: String,
    rows: u64,
}

impl TextWriter {
    /// Creates the file and writes the header.
    ///
    /// # Errors
    /// `Usage` if the file exists and `overwrite` is false; `Environment` if writing fails.
    pub(crate) fn create(path: &Path, specs: &[ColumnSpec], overwrite: bool) -> Result<TextWriter> {
        let mut writer = TextWriter {
            file: StagedFile::create(path, overwrite)?,
            widths: specs.iter().map(ColumnSpec::width).collect(),
            text: String::new(),
            rows: 0,
        };
        writer.file.write(header(specs).as_bytes())?;
        Ok(writer)
    }

    /// Returns the number of rows appended so far.
    pub(crate) fn rows(&self) -> u64 {
        self.rows
    }

    /// Appends the same number of rows to every column, in the order of the specs. Values of
    /// two-dimensional columns are (positions, rows).
    ///
    /// # Errors
    /// `Environment` if writing fails.
    pub(crate) fn append(&mut self, values: &[ColumnValues]) -> Result<()> {
        let rows = values.first().zip(self.widths.first()).map_or(0, |(v, w)| v.len() / w);
        for first in (0..rows).step_by(BLOCK_ROWS) {
            self.text.clear();
            for row in first..rows.min(first + BLOCK_ROWS) {
                for (column, (values, width)) in values.iter().zip(&self.widths).enumerate() {
                    for k in 0..*width {
                        let separator = if column == 0 && k == 0 { "" } else { "," };
                        self.text.push_str(separator);
                        push(&mut self.text, values, k * rows + row);
                    }
                }
                self.text.push('\n');
            }
            self.file.write(self.text.as_bytes())?;
        }
        self.rows += rows as u64;
        Ok(())
    }

    /// Renames the file to its final name.
    ///
    /// # Errors
    /// `Environment` if writing fails.
    pub(crate) fn finish(self) -> Result<()> {
        self.file.commit()
    }
}

/// Returns the first line of a table with these columns.
pub(crate) fn header(specs: &[ColumnSpec]) -> String {
    let names = specs.iter().flat_map(|spec| match spec.positions {
        None => vec![spec.name.clone()],
        Some(positions) => (0..positions).map(|k| format!("{}[{k}]", spec.name)).collect(),
    });
    names.collect::<Vec<_>>().join(",") + "\n"
}

/// Appends the value at an index to the text.
fn push(text: &mut String, values: &ColumnValues, at: usize) {
    // Writing to a `String` cannot fail.
    let _ = match values {
        ColumnValues::F32(values) => write!(text, "{}", values[at]),
        ColumnValues::F64(values) => write!(text, "{}", values[at]),
        ColumnValues::I64(values) => write!(text, "{}", values[at]),
        ColumnValues::I8(values) => write!(text, "{}", values[at]),
        ColumnValues::U8(values) => write!(text, "{}", values[at]),
        ColumnValues::U32(values) => write!(text, "{}", values[at]),
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::ColumnType;

    #[test]
    fn numbers_parse_to_the_same_bits() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.csv");
        let rows = BLOCK_ROWS + 3;
        let score: Vec<f32> =
            (0..2 * rows as u32).map(|i| f32::from_bits(i.wrapping_mul(2_654_435_761))).collect();
        let key: Vec<i64> = (0..rows as i64).map(|i| i64::MAX - i).collect();
        let specs = [
            ColumnSpec::new("event_id", ColumnType::I64, None),
            ColumnSpec::new("score", ColumnType::F32, Some("nat")).at_positions(Some(2)),
        ];
        let mut writer = TextWriter::create(&path, &specs, false).unwrap();
        writer.append(&[ColumnValues::I64(&key), ColumnValues::F32(&score)]).unwrap();
        assert_eq!(writer.rows(), rows as u64);
        assert!(!path.exists());
        writer.finish().unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let mut lines = text.lines();
        assert_eq!(lines.next(), Some("event_id,score[0],score[1]"));
        for (row, line) in lines.enumerate() {
            let cells: Vec<&str> = line.split(',').collect();
            assert_eq!(cells[0].parse::<i64>().unwrap(), key[row]);
            for k in 0..2 {
                let (read, written) = (cells[1 + k].parse::<f32>().unwrap(), score[k * rows + row]);
                assert!(read.to_bits() == written.to_bits() || (read.is_nan() && written.is_nan()));
            }
        }
        assert_eq!(text.lines().count(), rows + 1);
    }
}
