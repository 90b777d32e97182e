//! Packs 64-bit integers into as few bytes as they need, for slow networks.
//!
//! Most gradient sums have 30 to 45 significant bits. Words are packed in blocks of 64. One byte
//! gives the number of bytes per word of the block (0 to 8). The words follow with that width,
//! little-endian, with the sign in the lowest bit (zigzag). Every block carries its own width. So
//! any words are packed exactly, and ranks need no agreement about widths.

/// Number of words with one width.
const BLOCK: usize = 64;
/// Every word is written as 8 bytes, so the last one may extend this far beyond its end.
const SLACK: usize = 8;

/// Returns the largest number of bytes that `words` words take.
pub(super) fn largest(words: usize) -> usize {
    words * 8 + words.div_ceil(BLOCK) + SLACK
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

fn unzigzag(word: u64) -> i64 {
    (word >> 1) as i64 ^ -((word & 1) as i64)
}

/// Packs `values` into the start of `bytes`, which grows as needed; returns the number of bytes.
pub(super) fn pack(values: &[i64], bytes: &mut Vec<u8>) -> usize {
    if bytes.len() < largest(values.len()) {
        bytes.resize(largest(values.len()), 0);
    }
    let mut end = 0;
    for block in values.chunks(BLOCK) {
        let all = block.iter().fold(0, |bits, value| bits | zigzag(*value));
        let width = (64 - all.leading_zeros() as usize).div_ceil(8);
        bytes[end] = width as u8;
        end += 1;
        for value in block {
            bytes[end..end + 8].copy_from_slice(&zigzag(*value).to_le_bytes());
            end += width;
        }
    }
    end
}

/// Passes the words of `bytes` to `take`, in order, with their index. Returns `false` if the bytes
/// do not encode this many words.
#[must_use]
pub(super) fn unpack(bytes: &[u8], words: usize, mut take: impl FnMut(usize, i64)) -> bool {
    let mut at = 0;
    for first in (0..words).step_by(BLOCK) {
        let count = BLOCK.min(words - first);
        let Some(width) = bytes.get(at).map(|width| usize::from(*width)) else { return false };
        at += 1;
        if width > 8 || bytes.len() < at + count * width {
            return false;
        }
        let mask = if width == 8 { u64::MAX } else { (1 << (8 * width)) - 1 };
        for place in first..first + count {
            let word = match bytes.get(at..at + 8).and_then(|eight| eight.try_into().ok()) {
                Some(eight) => u64::from_le_bytes(eight) & mask,
                None => tail(&bytes[at..at + width]),
            };
            take(place, unzigzag(word));
            at += width;
        }
    }
    at == bytes.len()
}

/// Reads a word that is too near the end of the buffer to be read as eight bytes.
fn tail(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use taiga_flow_gpu::random::Stream;

    fn unpacked(bytes: &[u8], words: usize) -> Option<Vec<i64>> {
        let mut values = vec![i64::MIN; words];
        unpack(bytes, words, |place, value| values[place] = value).then_some(values)
    }

    #[test]
    fn words_round_trip_and_small_ones_are_short() {
        let stream = Stream::new(3, "packing", &[]);
        let mut bytes = vec![0xab; 5];
        for words in [0, 1, 63, 64, 65, 1000] {
            for bits in [0, 1, 7, 8, 30, 39, 40, 62, 63] {
                let value = |i: u64| stream.bits(i) as i64 >> (63 - bits);
                let mut values: Vec<i64> = (0..words as u64).map(value).collect();
                let end = pack(&values, &mut bytes);
                assert_eq!(unpacked(&bytes[..end], words), Some(values.clone()), "{words}, {bits}");
                let most = words * (bits as usize + 1).div_ceil(8) + words.div_ceil(BLOCK);
                assert!(end <= most, "{words} words of {bits} bits: {end} bytes");
                if let Some(last) = values.last_mut() {
                    *last = [i64::MIN, i64::MAX][bits as usize % 2];
                    let end = pack(&values, &mut bytes);
                    assert_eq!(unpacked(&bytes[..end], words), Some(values));
                }
            }
        }
    }

    #[test]
    fn wrong_number_or_kind_of_bytes_is_refused() {
        let mut bytes = Vec::new();
        let end = pack(&(0..100).map(|i| i << 33).collect::<Vec<i64>>(), &mut bytes);
        bytes.truncate(end);
        assert!(unpacked(&bytes, 100).is_some());
        assert!(unpacked(&bytes, 99).is_none() && unpacked(&bytes, 101).is_none());
        assert!(unpacked(&bytes[..bytes.len() - 1], 100).is_none());
        bytes[0] = 9;
        assert!(unpacked(&bytes, 100).is_none());
    }
}
