//! Finds rows with the same key, within a file and between files.
//!
//! Keys of one or two columns are compared exactly; of more columns, 128 bits of a hash. Memory is
//! bounded: keys are read in as many passes as necessary, and each pass compares its share.

use crate::data::schema::columns::CHUNK_ROWS;
use crate::data::table::{Block, Request, Table};
use crate::error::Result;
use std::collections::BTreeMap;
use taiga_flow_gpu::random::Stream;

/// Most keys in memory, of 32 bytes each.
const KEYS_PER_PASS: u64 = 1 << 23;

/// Rows of one file whose keys are in an earlier file, or earlier in the same file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Duplicates {
    /// Indices of the tables; equal within a file.
    pub first: usize,
    pub second: usize,
    pub rows: u64,
    /// The first pair of such rows, and their key.
    pub example: (u64, u64, Vec<i64>),
}

/// A table with its number and the columns of its key.
pub(crate) type Keyed = (usize, Table, Vec<String>);

/// Finds duplicate rows. Only tables whose keys have the same columns are compared.
///
/// # Errors
/// Those of reading the keys.
pub(crate) fn duplicates(tables: &[Keyed]) -> Result<Vec<Duplicates>> {
    duplicates_in_passes(tables, KEYS_PER_PASS)
}

fn duplicates_in_passes(tables: &[Keyed], keys_per_pass: u64) -> Result<Vec<Duplicates>> {
    let mut groups: BTreeMap<&[String], Vec<&Keyed>> = BTreeMap::new();
    for table in tables.iter().filter(|(_, _, columns)| !columns.is_empty()) {
        groups.entry(&table.2).or_default().push(table);
    }
    let mut found = BTreeMap::new();
    for group in groups.values() {
        let rows: u64 = group.iter().map(|(_, table, _)| table.rows()).sum();
        let passes = rows.div_ceil(keys_per_pass).max(1);
        for pass in 0..passes {
            compare_pass(group, pass, passes, &mut found)?;
        }
    }
    Ok(found.into_values().collect())
}

/// A key, or its hash, with its table and row.
type KeyEntry = (u128, u32, u64);

/// Compares the keys of one pass in tables with the same key columns.
fn compare_pass(
    group: &[&Keyed],
    pass: u64,
    passes: u64,
    found: &mut BTreeMap<(usize, usize), Duplicates>,
) -> Result<()> {
    let mut entries: Vec<KeyEntry> = Vec::new();
    for (slot, (_, table, columns)) in group.iter().enumerate() {
        let table = table.with_shower(columns.clone());
        let mut reader = table.reader(&Request { shower: true, ..Request::default() })?;
        let mut block = Block::default();
        for first in (0..table.rows()).step_by(CHUNK_ROWS) {
            reader.read(first..table.rows().min(first + CHUNK_ROWS as u64), &mut block)?;
            for row in 0..block.rows {
                let key = key_of(&block, row);
                if passes == 1 || share_of(key, passes) == pass {
                    entries.push((key, slot as u32, first + row as u64));
                }
            }
        }
    }
    entries.sort_unstable();
    for run in entries.chunk_by(|a, b| a.0 == b.0).filter(|run| run.len() > 1) {
        let (_, first_slot, first_row) = run[0];
        for pair in run.windows(2) {
            let (_, slot, row) = pair[1];
            let (first, first_row) =
                if slot == pair[0].1 { (slot, pair[0].2) } else { (first_slot, first_row) };
            let files = (group[first as usize].0, group[slot as usize].0);
            let known = found.entry(files).or_insert_with(|| Duplicates {
                first: files.0,
                second: files.1,
                rows: 0,
                example: (first_row, row, Vec::new()),
            });
            known.rows += 1;
            if known.example.2.is_empty() {
                let (_, table, columns) = group[slot as usize];
                known.example.2 = read_key(table, columns, row)?;
            }
        }
    }
    Ok(())
}

/// Returns the key of a row, or its hash.
fn key_of(block: &Block, row: usize) -> u128 {
    match &block.shower[..] {
        [one] => u128::from(one[row] as u64),
        [one, two] => u128::from(one[row] as u64) << 64 | u128::from(two[row] as u64),
        columns => {
            let mut hasher = blake3::Hasher::new();
            columns.iter().for_each(|column| {
                hasher.update(&column[row].to_le_bytes());
            });
            let mut head = [0; 16];
            head.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
            u128::from_le_bytes(head)
        }
    }
}

/// Returns the pass of a key. Consecutive keys are distributed evenly.
fn share_of(key: u128, passes: u64) -> u64 {
    Stream::new(key as u64, "pass", &[(key >> 64) as u64]).bits(0) % passes
}

/// Reads the key of one row.
fn read_key(table: &Table, columns: &[String], row: u64) -> Result<Vec<i64>> {
    let mut block = Block::default();
    let table = table.with_shower(columns.to_vec());
    let request = Request { shower: true, ..Request::default() };
    table.reader(&request)?.read(row..row + 1, &mut block)?;
    Ok(block.shower.iter().map(|column| column[0]).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{ColumnSpec, ColumnType, ColumnValues, ColumnWriter, Schema};
    use std::path::Path;

    fn table(path: &Path, run: &[i64], event: &[i64]) -> Table {
        let specs = [
            ColumnSpec::new("size", ColumnType::F32, None),
            ColumnSpec::new("run_id", ColumnType::I64, None),
            ColumnSpec::new("event_id", ColumnType::I64, None),
        ];
        let mut writer = ColumnWriter::create(path, "events", &specs, false).unwrap();
        let size = vec![1.0; run.len()];
        writer
            .append(&[ColumnValues::F32(&size), ColumnValues::I64(run), ColumnValues::I64(event)])
            .unwrap();
        writer.finish(&[]).unwrap();
        Table::open(path, &Schema::by_name_or_path("taiga-events").unwrap()).unwrap()
    }

    #[test]
    fn duplicates_are_counted_by_pairs_of_files() {
        let folder = tempfile::tempdir().unwrap();
        let columns = ["run_id", "event_id"].map(str::to_string).to_vec();
        let n = 1000i64;
        let count = |from: i64| (from..from + n).collect::<Vec<i64>>();
        let mut second = count(900); // 100 of them in the first
        second[5] = second[4];
        let a = table(&folder.path().join("a.h5"), &vec![1; n as usize], &count(0));
        let b = table(&folder.path().join("b.h5"), &vec![1; n as usize], &second);
        let c = table(&folder.path().join("c.h5"), &vec![2; n as usize], &count(0));
        let tables = [(0, a, columns.clone()), (7, b, columns.clone()), (9, c, columns)];
        let whole = duplicates(&tables).unwrap();
        let counts: Vec<(usize, usize, u64)> =
            whole.iter().map(|d| (d.first, d.second, d.rows)).collect();
        // Row 5 of the second file repeats row 4, which is in the first as well.
        assert_eq!(counts, [(0, 7, 99), (7, 7, 1)]);
        assert_eq!(whole[1].example, (4, 5, vec![1, 904]));
        for keys in [1, 7, 500, 2999] {
            let mut parts = duplicates_in_passes(&tables, keys).unwrap();
            parts.iter_mut().zip(&whole).for_each(|(part, all)| part.example = all.example.clone());
            assert_eq!(parts, whole, "{keys} keys per pass");
        }
    }
}
