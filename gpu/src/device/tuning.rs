//! How the work is shared out on each kind of device. Fixed numbers, not measured at run
//! time: the same run takes the same kernels. None of them changes a bit of the result.

use super::kernels::gradient::Grip;
use super::kernels::layered::Square;

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
pub(crate) struct Knobs {
    /// Units per cube, forward and backward.
    pub(crate) threads: usize,
    /// Events per unit, forward and inverse.
    pub(crate) forward_events: usize,
    /// Events per unit, backward.
    pub(crate) backward_events: usize,
    /// Hidden units in shared memory at a time, at most.
    pub(crate) tile: usize,
    pub(crate) grip: Grip,
    /// Cubes of the weight gradient that a launch should have at least, if the events
    /// suffice.
    pub(crate) cubes: usize,
    /// Products of networks with several hidden layers.
    pub(crate) square: Square,
}

/// For P features in the larger half, and processors of the device.
pub(crate) fn knobs(class: DeviceClass, half: usize, processors: usize) -> Knobs {
    // What an event or a hidden unit takes of a unit's registers grows with P: as many as fit.
    match class {
        DeviceClass::Cuda => Knobs {
            threads: 128,
            forward_events: floor_power_of_two(32 / half).clamp(2, 8),
            backward_events: floor_power_of_two(16 / half).clamp(2, 4),
            tile: 256,
            grip: Grip { threads: 64, owned: floor_power_of_two(26 / half).min(8), stage: 128 },
            cubes: 16 * processors,
            square: Square { side: 16, each: 8, depth: 16 },
        },
        DeviceClass::Vulkan => Knobs {
            threads: 128,
            forward_events: floor_power_of_two(12 / half).min(4),
            backward_events: floor_power_of_two(6 / half).min(2),
            tile: 128,
            grip: Grip { threads: 64, owned: floor_power_of_two(13 / half).min(4), stage: 64 },
            cubes: 8 * processors,
            square: Square { side: 16, each: 4, depth: 16 },
        },
        DeviceClass::Software => Knobs {
            threads: 32,
            forward_events: floor_power_of_two(6 / half).min(2),
            backward_events: 1,
            tile: 64,
            grip: Grip { threads: 32, owned: floor_power_of_two(6 / half).min(2), stage: 32 },
            cubes: 8,
            square: Square { side: 8, each: 4, depth: 8 },
        },
    }
}

/// The largest power of two up to n, at least 1.
fn floor_power_of_two(n: usize) -> usize {
    1 << n.max(1).ilog2()
}
