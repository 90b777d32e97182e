//! Which vector instructions the running machine has, and how a kernel is compiled
//! for each of them.
//!
//! `vectorised!` makes a function whose always-inlined body is compiled three times.
//! The choice costs one branch per call of a kernel on a whole tile.

/// Instruction sets a kernel is compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Isa {
    Portable,
    Avx2,
    Avx512,
}

impl Isa {
    /// The widest set of this machine.
    pub fn detect() -> Isa {
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("fma")
            {
                return Isa::Avx512;
            }
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                return Isa::Avx2;
            }
        }
        Isa::Portable
    }

    pub fn name(self) -> &'static str {
        match self {
            Isa::Portable => "portable",
            Isa::Avx2 => "AVX2",
            Isa::Avx512 => "AVX-512",
        }
    }

    /// This set and those below it.
    pub fn usable() -> Vec<Isa> {
        let best = Isa::detect();
        [Isa::Portable, Isa::Avx2, Isa::Avx512].into_iter().filter(|isa| *isa <= best).collect()
    }
}

/// `vectorised!(pub fn kernel<P>(a: &A, b: &mut B) = body);` defines
/// `kernel::<P>(isa, a, b)`, which runs `body::<V, P>(a, b)` compiled for `isa` with its
/// vectors V; without `<P>`, `kernel(isa, a, b)` runs `body::<V>(a, b)`. Bodies must be
/// `inline(always)` and free of closures around large code: a closure would be compiled
/// without the instruction set.
macro_rules! vectorised {
    ($vis:vis fn $name:ident$(<$p:ident>)?($($arg:ident: $type:ty),* $(,)?) = $body:ident) => {
        #[allow(clippy::too_many_arguments)]
        $vis fn $name$(<const $p: usize>)?(isa: $crate::engine::cpu::Isa, $($arg: $type),*) {
            use $crate::engine::cpu::{Isa, vector};
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
            match isa {
                // SAFETY: `Isa` values other than `Portable` come from `Isa::detect`
                // (or `usable`), which asked this machine for these very features.
                #[cfg(target_arch = "x86_64")]
                Isa::Avx512 => unsafe { avx512$(::<$p>)?($($arg),*) },
                #[cfg(target_arch = "x86_64")]
                Isa::Avx2 => unsafe { avx2$(::<$p>)?($($arg),*) },
                _ => $body::<vector::Portable $(, $p)?>($($arg),*),
            }
        }
    };
}
pub(crate) use vectorised;
