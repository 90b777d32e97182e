//! Measures the peak rate of f32 multiply-adds with independent accumulators in registers.

use cubecl::prelude::*;

pub(crate) const ACCUMULATORS: usize = 16;

/// Runs `turns` · 8 dependent multiply-adds in each of the accumulators of a thread.
#[cube(launch_unchecked)]
pub(crate) fn multiply_add(out: &mut Array<f32>, factor: f32, #[comptime] turns: usize) {
    let mut a = Array::<f32>::new(ACCUMULATORS);
    #[unroll]
    for i in 0..ACCUMULATORS {
        a[i] = f32::cast_from(UNIT_POS) + comptime!(i as f32);
    }
    for _ in 0..turns {
        #[unroll]
        for _ in 0..8usize {
            #[unroll]
            for i in 0..ACCUMULATORS {
                a[i] = fma(a[i], factor, 1e-6f32);
            }
        }
    }
    let mut sum = 0.0f32;
    #[unroll]
    for i in 0..ACCUMULATORS {
        sum += a[i];
    }
    // Never true, but the compiler cannot know and keeps the loop.
    if sum == -1.0f32 {
        out[0] = sum;
    }
}
