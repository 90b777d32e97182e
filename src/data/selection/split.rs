//! Assigns showers to train, validation, calibration and test parts.
//!
//! The part is a function of the seed, the class and the key of the shower alone, so that it can
//! be computed from a model card for any file. u = blake3(seed, class, key)/2⁶⁴ is compared with
//! the cumulative fractions of the parts. All rows of a shower are in the same part; without
//! keys, rows of equal content are.

use crate::config::SplitConfig;
use serde::{Deserialize, Serialize};

/// Part of a split.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Part {
    Train,
    Validation,
    Calibration,
    Test,
}

/// Assignment of rows to parts.
#[derive(Debug, Clone)]
pub struct Splitter {
    seed: u64,
    cumulative: [f64; 3],
}

impl Splitter {
    /// Returns the assignment for the fractions and seed of a configuration.
    pub(crate) fn new(split: &SplitConfig) -> Splitter {
        let train = split.train;
        let validation = train + split.validation;
        Splitter {
            seed: split.seed,
            cumulative: [train, validation, validation + split.calibration],
        }
    }

    /// Returns the part of a shower by the values of its key columns.
    pub(crate) fn by_key(&self, class: i8, key: impl Iterator<Item = i64>) -> Part {
        self.part(class, b'k', key.map(i64::to_le_bytes))
    }

    /// Returns the part of a row by the bits of its features, for files without keys.
    pub(crate) fn by_content(&self, class: i8, features: impl Iterator<Item = f32>) -> Part {
        self.part(class, b'c', features.map(|x| x.to_bits().to_le_bytes()))
    }

    /// Returns the part for the hash of some words.
    fn part<const N: usize>(
        &self,
        class: i8,
        kind: u8,
        words: impl Iterator<Item = [u8; N]>,
    ) -> Part {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.seed.to_le_bytes());
        hasher.update(&[class as u8, kind]);
        for word in words {
            hasher.update(&word);
        }
        let mut head = [0; 8];
        head.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
        // 53 bits are exact in f64; u is below 1.
        let u = (u64::from_le_bytes(head) >> 11) as f64 / (1u64 << 53) as f64;
        match self.cumulative.iter().position(|c| u < *c) {
            Some(0) => Part::Train,
            Some(1) => Part::Validation,
            Some(2) => Part::Calibration,
            _ => Part::Test,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn splitter(seed: u64) -> Splitter {
        Splitter::new(&SplitConfig {
            train: 0.6,
            validation: 0.1,
            calibration: 0.1,
            test: 0.2,
            seed,
            key: None,
        })
    }

    #[test]
    fn parts_have_their_fractions() {
        let mut counts = [0u32; 4];
        for i in 0..100_000 {
            counts[splitter(3).by_key(1, [7, i].into_iter()) as usize] += 1;
        }
        for (count, fraction) in counts.iter().zip([0.6, 0.1, 0.1, 0.2]) {
            assert!((f64::from(*count) / 1e5 - fraction).abs() < 0.006, "{counts:?}");
        }
    }

    #[test]
    fn equal_showers_share_a_part_per_seed_and_class() {
        let differs =
            |a: &dyn Fn(i64) -> Part, b: &dyn Fn(i64) -> Part| (0..1000).any(|i| a(i) != b(i));
        let assign =
            |seed: u64, class: i8| move |i: i64| splitter(seed).by_key(class, [i].into_iter());
        assert!(!differs(&assign(1, 1), &assign(1, 1)));
        assert!(differs(&assign(1, 1), &assign(2, 1)));
        assert!(differs(&assign(1, 1), &assign(1, 0)));
    }
}
