//! Vectors of sixteen f32 in the registers of each instruction set, with one trait.
//!
//! The kernels are generic over [`Vector`]. Every operation rounds each lane like its scalar
//! counterpart, so all implementations give the same bits. The code uses intrinsics because
//! automatic vectorisation of such loops changed with unrelated edits, at a cost of up to a factor
//! of fifty.

#![allow(unsafe_code)] // vector instructions

use super::lanes::{LANES, Lanes};

/// Vectors whose lanes are summed together.
pub(crate) const GROUP: usize = 8;

/// Sixteen f32. The methods are `inline(always)`, because they must be inlined into a function that
/// is compiled for the instruction set (see `vectorised`).
pub(crate) trait Vector: Copy {
    /// Whether the registers have space for 24 sums and their inputs, or only for 6.
    const MANY: bool;
    /// Returns a vector with x in all lanes.
    fn splat(x: f32) -> Self;
    /// Loads sixteen aligned numbers.
    fn load(from: &Lanes) -> Self;
    /// Stores sixteen aligned numbers.
    fn store(self, to: &mut Lanes);
    /// Computes a · b + c, rounded once.
    fn fma(a: Self, b: Self, c: Self) -> Self;
    /// Computes a + b.
    fn add(a: Self, b: Self) -> Self;
    /// Computes a − b.
    fn sub(a: Self, b: Self) -> Self;
    /// Computes a · b.
    fn mul(a: Self, b: Self) -> Self;
    /// Computes max(a, 0); a NaN becomes 0.
    fn relu(a: Self) -> Self;
    /// Selects g where a > 0, else 0.
    fn where_positive(a: Self, g: Self) -> Self;
    /// Sums the lanes of each of eight vectors, by the tree 16 → 8 → 4 → 2 → 1 that adds lane i +
    /// half to lane i.
    fn sum_lanes(group: &[Self; GROUP]) -> [f32; GROUP];
    /// Adds sums, rounded to nearest even in units of 2⁻³², to integers. Sums must be below 2³¹ in
    /// magnitude; the result for others (and NaN) must not be used.
    #[inline(always)]
    fn add_fixed(sums: &[f32; GROUP], fixed: &mut [i64; GROUP]) {
        for (sum, total) in sums.iter().zip(fixed) {
            let units = (sum * 4_294_967_296.0).round_ties_even() as i64;
            *total = total.wrapping_add(units);
        }
    }
}

/// Plain Rust, for processors without the sets below.
#[derive(Clone, Copy)]
pub(crate) struct Portable([f32; LANES]);

impl Portable {
    #[inline(always)]
    fn map(f: impl Fn(usize) -> f32) -> Portable {
        Portable(std::array::from_fn(f))
    }
}

impl Vector for Portable {
    const MANY: bool = false;
    #[inline(always)]
    fn splat(x: f32) -> Self {
        Portable([x; LANES])
    }
    #[inline(always)]
    fn load(from: &Lanes) -> Self {
        Portable(from.0)
    }
    #[inline(always)]
    fn store(self, to: &mut Lanes) {
        to.0 = self.0;
    }
    #[inline(always)]
    fn fma(a: Self, b: Self, c: Self) -> Self {
        Portable::map(|i| a.0[i].mul_add(b.0[i], c.0[i]))
    }
    #[inline(always)]
    fn add(a: Self, b: Self) -> Self {
        Portable::map(|i| a.0[i] + b.0[i])
    }
    #[inline(always)]
    fn sub(a: Self, b: Self) -> Self {
        Portable::map(|i| a.0[i] - b.0[i])
    }
    #[inline(always)]
    fn mul(a: Self, b: Self) -> Self {
        Portable::map(|i| a.0[i] * b.0[i])
    }
    #[inline(always)]
    fn relu(a: Self) -> Self {
        Portable::map(|i| if a.0[i] > 0.0 { a.0[i] } else { 0.0 })
    }
    #[inline(always)]
    fn where_positive(a: Self, g: Self) -> Self {
        Portable::map(|i| if a.0[i] > 0.0 { g.0[i] } else { 0.0 })
    }
    #[inline(always)]
    fn sum_lanes(group: &[Self; GROUP]) -> [f32; GROUP] {
        std::array::from_fn(|v| {
            let mut lanes = group[v].0;
            for half in [8, 4, 2, 1] {
                for i in 0..half {
                    lanes[i] += lanes[i + half];
                }
            }
            lanes[0]
        })
    }
}

#[cfg(target_arch = "x86_64")]
pub(crate) use x86::{Avx2, Avx512};

#[cfg(target_arch = "x86_64")]
mod x86 {
    //! Vectors of AVX2 and AVX-512.
    //!
    //! Values of these types exist only inside functions that `vectorised!` compiles for the
    //! instruction set, and calls if the processor has it.

    use super::{GROUP, Lanes, Vector};
    #[allow(clippy::wildcard_imports)] // three dozen intrinsics
    use std::arch::x86_64::*;

    /// Two registers of eight.
    #[derive(Clone, Copy)]
    pub(crate) struct Avx2(__m256, __m256);

    /// One register of sixteen.
    #[derive(Clone, Copy)]
    pub(crate) struct Avx512(__m512);

    impl Vector for Avx2 {
        const MANY: bool = false;
        #[inline(always)]
        fn splat(x: f32) -> Self {
            // SAFETY: registers only; the processor has the instruction set (see the module).
            unsafe { Avx2(_mm256_set1_ps(x), _mm256_set1_ps(x)) }
        }
        #[inline(always)]
        fn load(from: &Lanes) -> Self {
            let at = from.0.as_ptr();
            // SAFETY: `Lanes` has sixteen numbers aligned to 64 bytes; the set is as for registers.
            unsafe { Avx2(_mm256_load_ps(at), _mm256_load_ps(at.add(8))) }
        }
        #[inline(always)]
        fn store(self, to: &mut Lanes) {
            let at = to.0.as_mut_ptr();
            // SAFETY: `Lanes` has sixteen numbers aligned to 64 bytes; the set is as for registers.
            unsafe {
                _mm256_store_ps(at, self.0);
                _mm256_store_ps(at.add(8), self.1);
            }
        }
        #[inline(always)]
        fn fma(a: Self, b: Self, c: Self) -> Self {
            // SAFETY: registers only; the processor has the instruction set (see the module).
            unsafe { Avx2(_mm256_fmadd_ps(a.0, b.0, c.0), _mm256_fmadd_ps(a.1, b.1, c.1)) }
        }
        #[inline(always)]
        fn add(a: Self, b: Self) -> Self {
            // SAFETY: registers only; the processor has the instruction set (see the module).
            unsafe { Avx2(_mm256_add_ps(a.0, b.0), _mm256_add_ps(a.1, b.1)) }
        }
        #[inline(always)]
        fn sub(a: Self, b: Self) -> Self {
            // SAFETY: registers only; the processor has the instruction set (see the module).
            unsafe { Avx2(_mm256_sub_ps(a.0, b.0), _mm256_sub_ps(a.1, b.1)) }
        }
        #[inline(always)]
        fn mul(a: Self, b: Self) -> Self {
            // SAFETY: registers only; the processor has the instruction set (see the module).
            unsafe { Avx2(_mm256_mul_ps(a.0, b.0), _mm256_mul_ps(a.1, b.1)) }
        }
        #[inline(always)]
        fn relu(a: Self) -> Self {
            // SAFETY: registers only; the processor has the instruction set (see the module).
            unsafe {
                let zero = _mm256_setzero_ps();
                Avx2(_mm256_max_ps(a.0, zero), _mm256_max_ps(a.1, zero))
            }
        }
        #[inline(always)]
        fn where_positive(a: Self, g: Self) -> Self {
            // SAFETY: registers only; the processor has the instruction set (see the module).
            unsafe {
                let zero = _mm256_setzero_ps();
                let keep = |a, g| _mm256_and_ps(_mm256_cmp_ps::<_CMP_GT_OQ>(a, zero), g);
                Avx2(keep(a.0, g.0), keep(a.1, g.1))
            }
        }
        #[inline(always)]
        fn sum_lanes(group: &[Self; GROUP]) -> [f32; GROUP] {
            // SAFETY: registers only; the processor has the instruction set (see the module).
            unsafe {
                let mut halves = [_mm256_setzero_ps(); GROUP];
                for v in 0..GROUP {
                    halves[v] = _mm256_add_ps(group[v].0, group[v].1);
                }
                sum_eight(&halves)
            }
        }
    }

    impl Vector for Avx512 {
        const MANY: bool = true;
        #[inline(always)]
        fn splat(x: f32) -> Self {
            // SAFETY: registers only; the processor has the instruction set (see the module).
            unsafe { Avx512(_mm512_set1_ps(x)) }
        }
        #[inline(always)]
        fn load(from: &Lanes) -> Self {
            // SAFETY: `Lanes` has sixteen numbers aligned to 64 bytes; the set is as for registers.
            unsafe { Avx512(_mm512_load_ps(from.0.as_ptr())) }
        }
        #[inline(always)]
        fn store(self, to: &mut Lanes) {
            // SAFETY: `Lanes` has sixteen numbers aligned to 64 bytes; the set is as for registers.
            unsafe { _mm512_store_ps(to.0.as_mut_ptr(), self.0) }
        }
        #[inline(always)]
        fn fma(a: Self, b: Self, c: Self) -> Self {
            // SAFETY: registers only; the processor has the instruction set (see the module).
            unsafe { Avx512(_mm512_fmadd_ps(a.0, b.0, c.0)) }
        }
        #[inline(always)]
        fn add(a: Self, b: Self) -> Self {
            // SAFETY: registers only; the processor has the instruction set (see the module).
            unsafe { Avx512(_mm512_add_ps(a.0, b.0)) }
        }
        #[inline(always)]
        fn sub(a: Self, b: Self) -> Self {
            // SAFETY: registers only; the processor has the instruction set (see the module).
            unsafe { Avx512(_mm512_sub_ps(a.0, b.0)) }
        }
        #[inline(always)]
        fn mul(a: Self, b: Self) -> Self {
            // SAFETY: registers only; the processor has the instruction set (see the module).
            unsafe { Avx512(_mm512_mul_ps(a.0, b.0)) }
        }
        #[inline(always)]
        fn relu(a: Self) -> Self {
            // SAFETY: registers only; the processor has the instruction set (see the module).
            unsafe { Avx512(_mm512_max_ps(a.0, _mm512_setzero_ps())) }
        }
        #[inline(always)]
        fn where_positive(a: Self, g: Self) -> Self {
            // SAFETY: registers only; the processor has the instruction set (see the module).
            unsafe {
                let positive = _mm512_cmp_ps_mask::<_CMP_GT_OQ>(a.0, _mm512_setzero_ps());
                Avx512(_mm512_maskz_mov_ps(positive, g.0))
            }
        }
        #[inline(always)]
        fn sum_lanes(group: &[Self; GROUP]) -> [f32; GROUP] {
            // SAFETY: registers only; the processor has the instruction set (see the module).
            unsafe {
                let mut halves = [_mm256_setzero_ps(); GROUP];
                for v in 0..GROUP {
                    let low = _mm512_castps512_ps256(group[v].0);
                    let high = _mm512_extractf32x8_ps::<1>(group[v].0);
                    halves[v] = _mm256_add_ps(low, high);
                }
                sum_eight(&halves)
            }
        }
        #[inline(always)]
        fn add_fixed(sums: &[f32; GROUP], fixed: &mut [i64; GROUP]) {
            // SAFETY: unaligned access to whole arrays of eight; the set is as for registers.
            unsafe {
                let scaled =
                    _mm256_mul_ps(_mm256_loadu_ps(sums.as_ptr()), _mm256_set1_ps(4_294_967_296.0));
                let units = _mm512_cvt_roundps_epi64::<
                    { _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC },
                >(scaled);
                let at = fixed.as_mut_ptr().cast();
                _mm512_storeu_si512(at, _mm512_add_epi64(_mm512_loadu_si512(at), units));
            }
        }
    }

    /// Sums the eight lanes of each of eight registers: lane i + 4 to lane i, then i + 2, then i +
    /// 1, several registers at a time.
    ///
    /// # Safety
    /// The processor has AVX2.
    #[inline(always)]
    unsafe fn sum_eight(v: &[__m256; GROUP]) -> [f32; GROUP] {
        // SAFETY: unaligned access to whole arrays of eight; the set is as for registers.
        unsafe {
            // [a | b] with four lanes of each
            let fours = |a, b| {
                let low = _mm256_permute2f128_ps::<0x20>(a, b);
                let high = _mm256_permute2f128_ps::<0x31>(a, b);
                _mm256_add_ps(low, high)
            };
            let (ae, bf) = (fours(v[0], v[4]), fours(v[1], v[5]));
            let (cg, dh) = (fours(v[2], v[6]), fours(v[3], v[7]));
            // Within each half: two lanes of p, two of q.
            let twos = |p, q| {
                let low = _mm256_shuffle_ps::<0b01_00_01_00>(p, q);
                let high = _mm256_shuffle_ps::<0b11_10_11_10>(p, q);
                _mm256_add_ps(low, high)
            };
            let (p, q) = (twos(ae, bf), twos(cg, dh));
            let even = _mm256_shuffle_ps::<0b10_00_10_00>(p, q);
            let odd = _mm256_shuffle_ps::<0b11_01_11_01>(p, q);
            let mut sums = [0.0; GROUP];
            _mm256_storeu_ps(sums.as_mut_ptr(), _mm256_add_ps(even, odd));
            sums
        }
    }
}
