//! Kernels, generic over the runtime.

// The macro translates this code to another language. Conditions that are known at compile time
// must stay separate from others, and shared memory is passed by reference.
#![allow(clippy::collapsible_if, clippy::trivially_copy_pass_by_ref)]
#![allow(clippy::approx_constant, clippy::float_cmp)]

pub(crate) mod columns;
pub(crate) mod fixed;
pub(crate) mod flow;
pub(crate) mod flow_backward;
pub(crate) mod gradient;
pub(crate) mod layered;
pub(crate) mod math;
pub(crate) mod network;
pub(crate) mod peak;
pub(crate) mod training;
