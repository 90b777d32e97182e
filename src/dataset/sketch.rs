//! Sketches of sets of events: Bloom filters of their names (Bloom 1970).
//!
//! A name that was inserted is always found; of other names about 1 in 1400 is. If there are more
//! names than space, one in a power of two is kept, chosen by the name alone, so that shares can
//! still be measured. The bits depend only on the set of names, not on ranks or order.

use crate::comm::Communicator;
use crate::error::Result;

/// Bits set per name.
const HASHES: u64 = 10;
const BITS_PER_NAME: u64 = 15;
/// The largest sketch [bytes].
pub(crate) const LARGEST: usize = 1 << 19;
/// Numbers of ranks that have set a bit are packed into one integer: numbers per integer, and bits
/// per number.
const PER_WORD: usize = 3;
const COUNT_BITS: usize = 20;
/// Integers of one reduction.
const WORDS: usize = 1 << 16;

/// Hash of an event, of 128 bits.
pub(crate) type Name = [u64; 2];

/// The size of a sketch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SketchShape {
    pub bytes: usize,
    /// One name in this number is kept: a power of 2.
    pub one_in: u64,
}

impl SketchShape {
    /// Returns the shape for at most `names` names.
    pub(crate) fn new(names: u64) -> SketchShape {
        let most = 8 * LARGEST as u64 / BITS_PER_NAME;
        let one_in = names.div_ceil(most).max(1).next_power_of_two();
        let bytes = (names.div_ceil(one_in) * BITS_PER_NAME).div_ceil(8).max(64);
        SketchShape { bytes: (bytes as usize).min(LARGEST), one_in }
    }

    /// Returns whether a name is among those that are kept.
    pub(crate) fn keeps(self, name: Name) -> bool {
        (name[0] >> 32) & (self.one_in - 1) == 0
    }
}

/// A set of names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sketch {
    pub shape: SketchShape,
    pub bits: Vec<u8>,
    /// Number of insertions of names that are kept, with repetitions.
    pub names: u64,
}

impl Sketch {
    pub(crate) fn new(shape: SketchShape) -> Sketch {
        Sketch { shape, bits: vec![0; shape.bytes], names: 0 }
    }

    pub(crate) fn insert(&mut self, name: Name) {
        if self.shape.keeps(name) {
            self.names += 1;
            for place in places(name, self.bits.len()) {
                self.bits[place / 8] |= 1 << (place % 8);
            }
        }
    }

    /// Returns whether a name that [`SketchShape::keeps`] was inserted.
    pub(crate) fn contains(&self, name: Name) -> bool {
        places(name, self.bits.len()).all(|place| self.bits[place / 8] >> (place % 8) & 1 == 1)
    }

    /// Returns the estimated number of different names (Swamidass and Baldi 2007).
    pub(crate) fn distinct(&self) -> f64 {
        let all = 8.0 * self.bits.len() as f64;
        let set: u32 = self.bits.iter().map(|byte| byte.count_ones()).sum();
        let free = (1.0 - f64::from(set) / all).max(1.0 / all);
        -all / HASHES as f64 * libm::log(free)
    }

    /// Returns the estimated number of different kept names that are also in `other`, a sketch of
    /// the same shape.
    pub(crate) fn shared(&self, other: &Sketch) -> f64 {
        let mut both = self.clone();
        both.bits.iter_mut().zip(&other.bits).for_each(|(both, other)| *both |= other);
        self.distinct() + other.distinct() - both.distinct()
    }

    /// Adds the names of all ranks, by sums of integers. A collective.
    ///
    /// # Errors
    /// Those of the reduction.
    pub(crate) fn merge(&mut self, comm: &dyn Communicator) -> Result<()> {
        if comm.size() == 1 {
            return Ok(());
        }
        let mut names = [self.names as i64];
        comm.all_reduce_sum(&mut names)?;
        self.names = names[0] as u64;
        let all = 8 * self.bits.len();
        for first in (0..all).step_by(PER_WORD * WORDS) {
            let range = first..(first + PER_WORD * WORDS).min(all);
            let mut words = vec![0_i64; range.len().div_ceil(PER_WORD)];
            for (i, place) in range.clone().enumerate() {
                let bit = i64::from(self.bits[place / 8] >> (place % 8) & 1);
                words[i / PER_WORD] |= bit << (COUNT_BITS * (i % PER_WORD));
            }
            comm.all_reduce_sum(&mut words)?;
            for (i, place) in range.enumerate() {
                let count = words[i / PER_WORD] >> (COUNT_BITS * (i % PER_WORD));
                let set = count & ((1 << COUNT_BITS) - 1) != 0;
                self.bits[place / 8] |= u8::from(set) << (place % 8);
            }
        }
        Ok(())
    }
}

/// The names of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Names {
    /// Name of its shower; `None` without a key.
    pub key: Option<Name>,
    pub content: Name,
}

/// Sketches of showers and of rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sketches {
    pub keys: Sketch,
    pub contents: Sketch,
}

impl Sketches {
    pub(crate) fn new(shape: SketchShape) -> Sketches {
        Sketches { keys: Sketch::new(shape), contents: Sketch::new(shape) }
    }

    pub(crate) fn insert(&mut self, names: &Names) {
        if let Some(key) = names.key {
            self.keys.insert(key);
        }
        self.contents.insert(names.content);
    }

    /// Adds the names of a pair of sketches of the same shape.
    pub(crate) fn join(&mut self, other: &Sketches) {
        for (all, more) in [(&mut self.keys, &other.keys), (&mut self.contents, &other.contents)] {
            all.names += more.names;
            all.bits.iter_mut().zip(&more.bits).for_each(|(all, more)| *all |= more);
        }
    }

    /// Adds the names of all ranks. A collective.
    ///
    /// # Errors
    /// Those of the reduction.
    pub(crate) fn merge(&mut self, comm: &dyn Communicator) -> Result<()> {
        self.keys.merge(comm)?;
        self.contents.merge(comm)
    }
}

/// Returns the bits of a name, by double hashing (Kirsch and Mitzenmacher 2008).
fn places(name: Name, bytes: usize) -> impl Iterator<Item = usize> {
    let bits = 8 * bytes as u64;
    let [first, step] = [name[0] % bits, 1 + name[1] % (bits - 1)];
    (0..HASHES).map(move |i| ((first + i * step) % bits) as usize)
}

/// Returns the name of a shower: a hash of its class and the values of its key.
pub(crate) fn name_of_key(class: i8, key: impl Iterator<Item = i64>) -> Name {
    name(&[b'k', class as u8], key.map(i64::to_le_bytes))
}

/// Returns the name of a row: a hash of the bits of its features.
pub(crate) fn name_of_content(features: impl Iterator<Item = f32>) -> Name {
    name(b"c", features.map(|x| x.to_bits().to_le_bytes()))
}

fn name<const N: usize>(kind: &[u8], words: impl Iterator<Item = [u8; N]>) -> Name {
    let mut hasher = blake3::Hasher::new();
    hasher.update(kind);
    words.for_each(|word| {
        hasher.update(&word);
    });
    let hash = hasher.finalize();
    let (words, _) = hash.as_bytes().as_chunks::<8>();
    [u64::from_le_bytes(words[0]), u64::from_le_bytes(words[1])]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comm::Threads;

    fn named(i: i64) -> Name {
        name_of_key(1, [7, i].into_iter())
    }

    #[test]
    fn names_inserted_are_found_and_few_others() {
        let seed = crate::test_seed() as i64;
        for (count, one_in) in [(20, 1), (5000, 1), (1_000_000, 4)] {
            let shape = SketchShape::new(count as u64);
            assert_eq!(shape.one_in, one_in);
            let mut sketch = Sketch::new(shape);
            (seed..seed + count).for_each(|i| sketch.insert(named(i)));
            let kept = |i: &i64| shape.keeps(named(*i));
            assert!((seed..seed + count).filter(kept).all(|i| sketch.contains(named(i))));
            let share = sketch.names as f64 / count as f64;
            assert!((share * one_in as f64 - 1.0).abs() < 0.02, "{share}");
            // 0.7 in a thousand are expected; a small sketch has free bits.
            let others = (seed + count..seed + count + 200_000).filter(kept);
            let (mut found, mut all) = (0_u32, 0_u32);
            for i in others {
                all += 1;
                found += u32::from(sketch.contains(named(i)));
            }
            assert!(f64::from(found) < 0.0012 * f64::from(all), "{found} of {all}");
            let distinct = sketch.distinct() / sketch.names as f64;
            assert!(count < 100 || (distinct - 1.0).abs() < 0.02, "{distinct}");
        }
    }

    #[test]
    fn sketch_of_any_ranks_has_the_same_bits() {
        let mut one = Sketch::new(SketchShape::new(40_000));
        (0..40_000).for_each(|i| one.insert(named(i % 30_000)));
        for ranks in [2, 3] {
            let all = Threads::run(ranks, |comm| {
                let mut mine = Sketch::new(SketchShape::new(40_000));
                let rows = (0..40_000).skip(comm.rank()).step_by(ranks);
                rows.for_each(|i| mine.insert(named(i % 30_000)));
                mine.merge(comm).map(|()| mine)
            });
            assert!(all.into_iter().all(|sketch| sketch.unwrap() == one), "{ranks} ranks");
        }
        let distinct = one.distinct();
        assert!((distinct / 30_000.0 - 1.0).abs() < 0.02, "{distinct}");
        let mut other = Sketch::new(one.shape);
        (28_000..60_000).for_each(|i| other.insert(named(i)));
        let shared = one.shared(&other);
        assert!((shared - 2000.0).abs() < 300.0, "{shared}");
    }

    #[test]
    fn names_differ_by_class_key_and_content() {
        let of = |class: i8, key: [i64; 2]| name_of_key(class, key.into_iter());
        let names = [of(1, [3, 4]), of(0, [3, 4]), of(1, [4, 3])];
        let contents = [[1.0, 2.0], [2.0, 1.0], [1.0, f32::NAN]];
        let contents = contents.map(|x: [f32; 2]| name_of_content(x.into_iter()));
        let mut all = [names, contents].concat();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 6);
    }
}
