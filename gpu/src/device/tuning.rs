//! Launch configurations for each class of device.
//!
//! They are constants and not measured at run time, so a repeated run launches the same kernels.
//! None of them changes a bit of the result.

use super::kernels::gradient::GradientTiling;
use super::kernels::layered::GemmTiling;

/// Class of a device, which selects the launch configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceClass {
    Cuda,
    /// A GPU on Vulkan.
    Vulkan,
    /// Vulkan emulated by the processor, for tests.
    Software,
}

/// Sizes of cubes and tiles for one class of device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LaunchConfig {
    /// Threads per cube, forward and backward.
    pub(crate) threads: usize,
    /// Events per thread, forward and inverse.
    pub(crate) forward_events: usize,
    /// Events per thread, backward.
    pub(crate) backward_events: usize,
    /// Largest number of hidden units in shared memory at a time.
    pub(crate) tile: usize,
    pub(crate) gradient_tiling: GradientTiling,
    /// Smallest number of cubes that a launch of the weight gradient should have, if there are
    /// enough events.
    pub(crate) cubes: usize,
    /// Tiling of the matrix products of networks with several hidden layers.
    pub(crate) gemm_tiling: GemmTiling,
}

/// Returns the configuration for `half` features in the larger half, on a device with `processors`
/// multiprocessors.
pub(crate) fn launch_config(class: DeviceClass, half: usize, processors: usize) -> LaunchConfig {
    // The registers that an event or a hidden unit needs grow with `half`: use as many as fit.
    match class {
        DeviceClass::Cuda => LaunchConfig {
            threads: 128,
            forward_events: floor_power_of_two(32 / half).clamp(2, 8),
            backward_events: floor_power_of_two(16 / half).clamp(2, 4),
            tile: 256,
            gradient_tiling: GradientTiling {
                threads: 64,
                owned: floor_power_of_two(26 / half).min(8),
                stage: 128,
            },
            cubes: 16 * processors,
            gemm_tiling: GemmTiling { side: 16, each: 8, depth: 16 },
        },
        DeviceClass::Vulkan => LaunchConfig {
            threads: 128,
            forward_events: floor_power_of_two(12 / half).min(4),
            backward_events: floor_power_of_two(6 / half).min(2),
            tile: 128,
            gradient_tiling: GradientTiling {
                threads: 64,
                owned: floor_power_of_two(13 / half).min(4),
                stage: 64,
            },
            cubes: 8 * processors,
            gemm_tiling: GemmTiling { side: 16, each: 4, depth: 16 },
        },
        DeviceClass::Software => LaunchConfig {
            threads: 32,
            forward_events: floor_power_of_two(6 / half).min(2),
            backward_events: 1,
            tile: 64,
            gradient_tiling: GradientTiling {
                threads: 32,
                owned: floor_power_of_two(6 / half).min(2),
                stage: 32,
            },
            cubes: 8,
            gemm_tiling: GemmTiling { side: 8, each: 4, depth: 8 },
        },
    }
}

/// Returns the largest power of two that is at most n, and at least 1.
fn floor_power_of_two(n: usize) -> usize {
    1 << n.max(1).ilog2()
}
