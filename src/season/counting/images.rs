//! Images that count, by the key of their shower.

use serde::{Deserialize, Serialize};

/// Image that counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TelescopeImage {
    /// Key of its shower: the words of one or two keys, otherwise a hash.
    pub shower: [u64; 2],
    /// Bits of the size, in an order that is that of the sizes.
    pub size: u32,
    /// Index of the position at which it counts.
    pub place: u8,
    /// Bin of energy; absent outside of all bins.
    pub bin: Option<u16>,
}

/// Returns the 128 bits of a key: the words of one or two keys, otherwise a hash.
pub fn shower_of(words: impl ExactSizeIterator<Item = i64>) -> [u64; 2] {
    let many = words.len();
    let words: Vec<u64> = words.map(|word| word as u64).collect();
    if many <= 2 {
        return [words.first().copied().unwrap_or(0), words.get(1).copied().unwrap_or(0)];
    }
    let mut hasher = blake3::Hasher::new();
    words.iter().for_each(|word| {
        hasher.update(&word.to_le_bytes());
    });
    let bytes = hasher.finalize();
    let word =
        |at: usize| bytes.as_bytes()[at..at + 8].iter().fold(0, |w, b| w << 8 | u64::from(*b));
    [word(0), word(8)]
}
