//! The kernels, generic over the runtime.

// What looks like plain code is translated into another language: conditions known when a
// kernel is made stand apart from those that are not, and shared memory goes by reference.
#![allow(clippy::collapsible_if, clippy::trivially_copy_pass_by_ref)]
#![allow(clippy::approx_constant, clippy::float_cmp)]

pub(crate) mod fixed;
pub(crate) mod flow;
pub(crate) mod gradient;
pub(crate) mod layered;
pub(crate) mod math;
pub(crate) mod network;
pub(crate) mod peak;
pub(crate) mod training;
