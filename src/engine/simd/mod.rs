//! Instruction sets of the processor, and functions that are compiled for each of them.
//!
//! `vectorised!` defines a function whose body is compiled three times. A call costs one branch,
//! which is small compared with a kernel on a whole tile.

#![allow(unsafe_code)] // functions compiled for one instruction set

pub(super) mod lanes;
pub(super) mod vector;

/// An instruction set that the running processor has. Only detection creates values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Isa(Level);

/// Instruction sets that kernels are compiled for, in ascending order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    Portable,
    Avx2,
    Avx512,
}

impl Isa {
    /// Returns the widest set of this processor.
    pub fn detect() -> Isa {
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("fma")
            {
                return Isa(Level::Avx512);
            }
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                return Isa(Level::Avx2);
            }
        }
        Isa(Level::Portable)
    }

    /// Returns all sets of this processor, in ascending order.
    pub fn supported() -> Vec<Isa> {
        let best = Isa::detect();
        let all = [Level::Portable, Level::Avx2, Level::Avx512];
        all.into_iter().map(Isa).filter(|isa| *isa <= best).collect()
    }

    /// Returns the name for logs.
    pub fn name(self) -> &'static str {
        match self.0 {
            Level::Portable => "portable",
            Level::Avx2 => "AVX2",
            Level::Avx512 => "AVX-512",
        }
    }

    /// Returns the set to dispatch on.
    pub(super) fn level(self) -> Level {
        self.0
    }
}

/// `vectorised!(pub fn kernel<P>(a: &A, b: &mut B) = body);` defines `kernel::<P>(isa, a, b)`, which
/// runs `body::<V, P>(a, b)` compiled for `isa` with its vectors V. Without `<P>`,
/// `kernel(isa, a, b)` runs `body::<V>(a, b)`. Bodies must be `inline(always)` and must not have
/// closures with much code: a closure would be compiled without the instruction set.
macro_rules! vectorised {
    ($vis:vis fn $name:ident$(<$p:ident>)?($($arg:ident: $type:ty),* $(,)?) = $body:ident) => {
        #[allow(clippy::too_many_arguments, unsafe_code)]
        $vis fn $name$(<const $p: usize>)?(isa: $crate::engine::simd::Isa, $($arg: $type),*) {
            use $crate::engine::simd::{Level, vector};
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512dq,avx512vl,avx2,fma")]
            #[allow(clippy::too_many_arguments)]
            fn avx512$(<const $p: usize>)?($($arg: $type),*) {
                $body::<vector::Avx512 $(, $p)?>($($arg),*);
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            #[allow(clippy::too_many_arguments)]
            fn avx2$(<const $p: usize>)?($($arg: $type),*) {
                $body::<vector::Avx2 $(, $p)?>($($arg),*);
            }
            match isa.level() {
                // SAFETY: an `Isa` of this level exists only if `Isa::detect` found these very
                // features in this processor.
                #[cfg(target_arch = "x86_64")]
                Level::Avx512 => unsafe { avx512$(::<$p>)?($($arg),*) },
                // SAFETY: as for AVX-512.
                #[cfg(target_arch = "x86_64")]
                Level::Avx2 => unsafe { avx2$(::<$p>)?($($arg),*) },
                _ => $body::<vector::Portable $(, $p)?>($($arg),*),
            }
        }
    };
}
pub(super) use vectorised;
