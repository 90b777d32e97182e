//! The kernels, generic over the runtime.

pub(crate) mod fixed;
pub(crate) mod flow;
pub(crate) mod gradient;
pub(crate) mod layered;
pub(crate) mod math;
pub(crate) mod network;
pub(crate) mod peak;
pub(crate) mod training;
