//! Measures the peak of fused multiply-adds of the machine.
//!
//! It uses independent accumulators in registers, the widest instruction set, and all threads at
//! once.

#![allow(unsafe_code)] // vector instructions

use std::hint::black_box;
use std::time::{Duration, Instant};

const ACCUMULATORS: usize = 12;
const TURNS: usize = 4096;
const SLICE: Duration = Duration::from_millis(50);

/// Returns giga multiply-adds per second on `threads` threads: the best of `slices` runs of 50 ms.
pub fn gfma_per_s(threads: usize, slices: usize) -> f64 {
    (0..slices).map(|_| one_slice(threads)).fold(0.0, f64::max)
}

fn one_slice(threads: usize) -> f64 {
    let start = Instant::now();
    let done: u64 = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(|| work(start))).collect();
        workers.into_iter().map(|w| w.join().unwrap_or(0)).sum()
    });
    done as f64 / start.elapsed().as_secs_f64() / 1e9
}

fn work(start: Instant) -> u64 {
    let mut done = 0;
    while start.elapsed() < SLICE {
        done += turn();
    }
    done
}

fn turn() -> u64 {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f") {
            // SAFETY: the feature was just detected.
            return unsafe { turn_avx512() };
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            // SAFETY: the features were just detected.
            return unsafe { turn_avx2() };
        }
    }
    let mut a = [black_box(1.0_f32); ACCUMULATORS];
    for _ in 0..TURNS {
        a.iter_mut().for_each(|x| *x = x.mul_add(0.999_999, 1e-6));
    }
    black_box(a);
    (TURNS * ACCUMULATORS) as u64
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn turn_avx512() -> u64 {
    use std::arch::x86_64::{_mm512_fmadd_ps, _mm512_set1_ps};
    let mut a = [_mm512_set1_ps(black_box(1.0)); ACCUMULATORS];
    let (m, c) = (_mm512_set1_ps(black_box(0.999_999)), _mm512_set1_ps(black_box(1e-6)));
    for _ in 0..TURNS {
        for x in &mut a {
            *x = _mm512_fmadd_ps(*x, m, c);
        }
    }
    black_box(a);
    (TURNS * ACCUMULATORS * 16) as u64
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn turn_avx2() -> u64 {
    use std::arch::x86_64::{_mm256_fmadd_ps, _mm256_set1_ps};
    let mut a = [_mm256_set1_ps(black_box(1.0)); ACCUMULATORS];
    let (m, c) = (_mm256_set1_ps(black_box(0.999_999)), _mm256_set1_ps(black_box(1e-6)));
    for _ in 0..TURNS {
        for x in &mut a {
            *x = _mm256_fmadd_ps(*x, m, c);
        }
    }
    black_box(a);
    (TURNS * ACCUMULATORS * 8) as u64
}
