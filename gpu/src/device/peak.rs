//! Measures the peak rate of f32 multiply-adds.

#![allow(unsafe_code)] // kernel launches

use super::device::Device;
use super::error::Result;
use super::kernels::peak::{ACCUMULATORS, multiply_add};
use super::tuning::DeviceClass;
use cubecl::prelude::*;
use std::time::Instant;

const THREADS: usize = 256;

/// Returns the best rate of ten launches, in 10⁹ per second.
pub(crate) fn measure<R: Runtime>(device: &Device<R>) -> Result<f64> {
    let (cubes, turns) = match device.class {
        DeviceClass::Software => (16, 64),
        _ => (device.processors() * 32, 4096),
    };
    let out = device.empty(1)?;
    let mut best = 0.0_f64;
    for _ in 0..=10 {
        let start = Instant::now();
        // SAFETY: the kernel writes only to the first element of `out`.
        unsafe {
            multiply_add::launch_unchecked::<R>(
                &device.client,
                CubeCount::Static(cubes as u32, 1, 1),
                CubeDim::new_1d(THREADS as u32),
                out.arg(),
                0.999_999,
                turns,
            );
        }
        device.finish()?;
        let count = (cubes * THREADS * turns * 8 * ACCUMULATORS) as f64;
        best = best.max(count / start.elapsed().as_secs_f64() / 1e9);
    }
    Ok(best)
}
