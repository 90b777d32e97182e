//! The flow: specification, parameter layout, reference in f64, and GPU kernels.
//!
//! The reference defines every result. The kernels need the feature `device`.

#![cfg_attr(test, allow(clippy::float_cmp))]

#[cfg(feature = "device")]
pub mod device;
pub mod layout;
pub mod panics;
pub mod random;
pub mod reference;
pub mod spec;
pub mod training;
