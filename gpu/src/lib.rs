//! The flow itself: specification, flat parameter layout, the f64 reference that
//! defines every number, and (behind the feature `device`) kernels for GPUs.

#![cfg_attr(test, allow(clippy::float_cmp))]

#[cfg(feature = "device")]
pub mod device;
pub mod layout;
pub mod panics;
pub mod random;
pub mod reference;
pub mod spec;
pub mod training;
