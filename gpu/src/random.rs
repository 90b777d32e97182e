//! Random numbers as functions of seed, purpose and index.
//!
//! A [`Stream`] is named by a seed and a few words (purpose, epoch, shard, …). Its n-th number is a
//! function of the name and n alone. So a draw for global event i is the same on any rank, in any
//! order, after any restart.
//!
//! The mixing function is the finaliser of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
//! Logarithms and cosines are those of `libm`, so that bits do not depend on the platform.

const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// Mixes a word by SplitMix64's finaliser: a bijection of 64-bit words with full avalanche.
#[must_use]
pub const fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// A named sequence of 64-bit words with random access.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stream {
    key: u64,
}

impl Stream {
    /// Creates the stream of a name: `Stream::new(seed, "init", &[block])`. Streams of different
    /// `purpose` are independent.
    #[must_use]
    pub fn new(seed: u64, purpose: &str, words: &[u64]) -> Stream {
        let mut key = mix(seed.wrapping_add(GOLDEN));
        for byte in purpose.bytes() {
            key = mix(key.wrapping_add(GOLDEN) ^ u64::from(byte));
        }
        for word in words {
            key = mix(key.wrapping_add(GOLDEN) ^ mix(word.wrapping_add(GOLDEN)));
        }
        Stream { key }
    }

    /// Returns the n-th word.
    #[must_use]
    pub const fn bits(self, n: u64) -> u64 {
        mix(self.key.wrapping_add(n.wrapping_add(1).wrapping_mul(GOLDEN)))
    }

    /// Returns a uniform number in [0, 1) with 53 random bits.
    #[must_use]
    pub fn uniform(self, n: u64) -> f64 {
        (self.bits(n) >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// Returns a standard normal number (Box and Muller 1958); uses words 2n and 2n + 1.
    #[must_use]
    pub fn normal(self, n: u64) -> f64 {
        let radius = libm::sqrt(-2.0 * libm::log(1.0 - self.uniform(2 * n)));
        radius * libm::cos(std::f64::consts::TAU * self.uniform(2 * n + 1))
    }
}

/// A stream that is read in order; every draw uses two words.
#[derive(Debug, Clone)]
pub struct Draws {
    pub stream: Stream,
    pub next: u64,
}

impl Draws {
    /// Starts at the first word of `stream`.
    #[must_use]
    pub fn new(stream: Stream) -> Draws {
        Draws { stream, next: 0 }
    }

    /// Draws a uniform number in [0, 1).
    pub fn uniform(&mut self) -> f64 {
        self.next += 1;
        self.stream.uniform(2 * (self.next - 1))
    }

    /// Draws a standard normal number.
    pub fn normal(&mut self) -> f64 {
        self.next += 1;
        self.stream.normal(self.next - 1)
    }

    /// Draws a Poisson number (Knuth, 3.4.1); above a mean of 30 a rounded normal number.
    pub fn poisson(&mut self, mean: f64) -> u64 {
        if mean > 30.0 {
            return (mean + libm::sqrt(mean) * self.normal()).max(0.0).round_ties_even() as u64;
        }
        let limit = libm::exp(-mean);
        let (mut product, mut count) = (self.uniform(), 0);
        while product > limit {
            product *= self.uniform();
            count += 1;
        }
        count
    }
}

/// A seeded permutation of 0…n−1 with random access and without a table: a four-round Feistel
/// network on the next even number of bits, repeated until the result is below n.
#[derive(Debug, Clone, Copy)]
pub struct RandomPermutation {
    len: u64,
    half_bits: u32,
    stream: Stream,
}

impl RandomPermutation {
    /// Creates the permutation of 0…`len`−1 that `stream` defines.
    #[must_use]
    pub fn new(len: u64, stream: Stream) -> RandomPermutation {
        let bits = u64::BITS - len.saturating_sub(1).leading_zeros();
        RandomPermutation { len, half_bits: bits.div_ceil(2).max(1), stream }
    }

    /// Returns the image of position `i`, which must be below the length.
    #[must_use]
    pub fn at(&self, i: u64) -> u64 {
        debug_assert!(i < self.len);
        let mut x = self.feistel(i);
        while x >= self.len {
            x = self.feistel(x);
        }
        x
    }

    fn feistel(&self, x: u64) -> u64 {
        let mask = (1u64 << self.half_bits) - 1;
        let (mut left, mut right) = (x >> self.half_bits, x & mask);
        for round in 0..4u64 {
            let f = self.stream.bits((round << 56) | right) & mask;
            (left, right) = (right, left ^ f);
        }
        (left << self.half_bits) | right
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permutation_visits_every_position_once() {
        for len in [1u64, 2, 3, 5, 64, 65, 1000, 4097] {
            let permutation = RandomPermutation::new(len, Stream::new(7, "test", &[len]));
            let mut seen = vec![false; len as usize];
            for i in 0..len {
                let j = permutation.at(i) as usize;
                assert!(!seen[j], "length {len}: duplicate {j}");
                seen[j] = true;
            }
        }
    }

    #[test]
    fn normals_and_uniforms_have_expected_moments() {
        let stream = Stream::new(3, "moments", &[]);
        let n = 200_000u64;
        let (mut sum, mut square, mut uniform) = (0.0, 0.0, 0.0);
        for i in 0..n {
            let x = stream.normal(i);
            sum += x;
            square += x * x;
            uniform += stream.uniform(i);
        }
        let count = n as f64;
        assert!((sum / count).abs() < 0.01);
        assert!((square / count - 1.0).abs() < 0.02);
        assert!((uniform / count - 0.5).abs() < 0.005);
    }

    #[test]
    fn streams_of_different_names_differ() {
        let a = Stream::new(1, "split", &[0]);
        assert_ne!(a.bits(0), Stream::new(1, "split", &[1]).bits(0));
        assert_ne!(a.bits(0), Stream::new(1, "init", &[0]).bits(0));
        assert_ne!(a.bits(0), Stream::new(2, "split", &[0]).bits(0));
    }
}
