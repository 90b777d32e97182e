//! Errors of devices, as data.

/// An error of a device or of its use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    /// No device was found.
    #[error("no {device}: {reason}")]
    Missing { device: &'static str, reason: String },
    /// The kernels need more of a resource than the device has.
    #[error("the device has too little {what}: {needed} needed, {available} available")]
    TooLittle { what: &'static str, needed: u64, available: u64 },
    /// Lengths or indices of arguments do not match.
    #[error("{what}: expected {expected}, found {found}")]
    Argument { what: &'static str, expected: usize, found: usize },
    /// A launch, a copy or the device itself failed.
    #[error("the device failed: {reason}")]
    Failed { reason: String },
}

pub type Result<T> = std::result::Result<T, DeviceError>;

/// Returns an error if a length differs from the expected one.
pub(crate) fn expect_len(what: &'static str, expected: usize, found: usize) -> Result<()> {
    if expected == found {
        return Ok(());
    }
    Err(DeviceError::Argument { what, expected, found })
}
