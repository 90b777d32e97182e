//! Counts the rows of a table that repeat the keys of an earlier table.
//!
//! - The keys are those that `check` compares: run, event number and time (and telescope), else the
//!   hash of the text of a row.
//! - Memory is bounded: of more than [`MOST_KEYS`] different keys, a sample is compared.

use crate::data::table::{OBSERVED_EVENT, TELESCOPE};
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

/// Largest number of keys in memory (about 100 MB).
const MOST_KEYS: usize = 1 << 22;

/// Keys of the rows of all tables so far.
#[derive(Debug, Default)]
pub(super) struct RepeatedRows {
    identity: Vec<(usize, String)>, // indices and names of the key columns
    first_tables: HashMap<u64, usize>, // by the hash of the keys
    sample_bits: u32,               // a sampled hash has as many zeros at its end
    table: usize,
    counts: RepeatCounts,
}

/// Sampled rows of one table.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct RepeatCounts {
    pub rows: u64,
    pub repeated: u64,
    /// The earlier table of the first repeated row.
    pub first_table: usize,
}

impl RepeatCounts {
    /// Returns the share of repeated rows.
    pub fn share(&self) -> f64 {
        self.repeated as f64 / self.rows.max(1) as f64
    }
}

impl RepeatedRows {
    /// Starts without rows of tables with these key columns.
    pub fn new(keys: &[String]) -> RepeatedRows {
        let place = |name: &str| keys.iter().position(|key| key == name);
        let found = |names: &[&str]| -> Vec<(usize, String)> {
            names.iter().filter_map(|name| Some((place(name)?, (*name).to_string()))).collect()
        };
        let mut identity = found(&OBSERVED_EVENT);
        if identity.len() < OBSERVED_EVENT.len() {
            identity = found(&["row_hash"]);
        } else {
            identity.extend(found(&TELESCOPE));
        }
        RepeatedRows { identity, ..RepeatedRows::default() }
    }

    /// Returns the names of the key columns that are compared.
    pub fn names(&self) -> String {
        let names: Vec<&str> = self.identity.iter().map(|(_, name)| name.as_str()).collect();
        names.join(", ")
    }

    /// Adds a block of rows of the current table; `keys` is (keys, rows).
    pub fn add(&mut self, keys: &[Vec<i64>], rows: usize) {
        if self.identity.is_empty() {
            return;
        }
        for row in 0..rows {
            let mut hasher = DefaultHasher::new();
            self.identity.iter().for_each(|(key, _)| keys[*key][row].hash(&mut hasher));
            let hash = hasher.finish();
            if hash.trailing_zeros() < self.sample_bits {
                continue;
            }
            self.counts.rows += 1;
            let first = *self.first_tables.entry(hash).or_insert(self.table);
            if first != self.table {
                if self.counts.repeated == 0 {
                    self.counts.first_table = first;
                }
                self.counts.repeated += 1;
            }
            if self.first_tables.len() > MOST_KEYS {
                self.sample_bits += 1;
                let bits = self.sample_bits;
                self.first_tables.retain(|hash, _| hash.trailing_zeros() >= bits);
            }
        }
    }

    /// Ends the current table and returns its counts.
    pub fn finish_table(&mut self) -> RepeatCounts {
        self.table += 1;
        std::mem::take(&mut self.counts)
    }
}
