//! How the work is shared out on each kind of device. Fixed numbers, not measured at run
//! time: the same run takes the same kernels. None of them changes a bit of the result.

use super::kernels::gradient::GradientTiling;
use super::kernels::layered::GemmTiling;

/// Kinds of devices that want different shapes of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceClass {
    Cuda,
    /// A GPU on Vulkan.
    Vulkan,
    /// Vulkan computed by the processor: for tests.
    Software,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LaunchConfig {
    /// Units per cube, forward and backward.
    pub(crate) threads: usize,
    /// Events per unit, forward and inverse.
    pub(crate) forward_events: usize,
    /// Events per unit, backward.
    pub(crate) backward_events: usize,
    /// Hidden units in shared memory at a time, at most.
    pub(crate) tile: usize,
    pub(crate) gradient_tiling: GradientTiling,
    /// Cubes of the weight gradient that a launch should have at least, if the events
    /// suffice.
    pub(crate) cubes: usize,
    /// Products of networks with several hidden layers.
    pub(crate) gemm_tiling: GemmTiling,
}

/// For P features in the larger half, and processors of the device.
pub(crate) fn launch_config(class: DeviceClass, half: usize, processors: usize) -> LaunchConfig {
    // What an event or a hidden unit takes of a unit's registers grows with P: as many as fit.
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

/// The largest power of two up to n, at least 1.
fn floor_power_of_two(n: usize) -> usize {
    1 << n.max(1).ilog2()
}
