//! What can go wrong on a device, as data.

/// An error of a device or of its use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    /// There is nothing to run on.
    #[error("no {device}: {reason}")]
    Missing { device: &'static str, reason: String },
    /// The kernels need more than the device has of something.
    #[error("the device has too little {what}: {needed} needed, {available} there")]
    TooLittle { what: &'static str, needed: u64, available: u64 },
    /// Arguments that do not fit together.
    #[error("{what}: expected {expected}, found {found}")]
    Argument { what: &'static str, expected: usize, found: usize },
    /// A launch, a copy or the device itself failed.
    #[error("the device failed: {reason}")]
    Failed { reason: String },
}

pub type Result<T> = std::result::Result<T, DeviceError>;

/// Refuses what has another length than expected.
pub(crate) fn expect_len(what: &'static str, expected: usize, found: usize) -> Result<()> {
    if expected == found {
        return Ok(());
    }
    Err(DeviceError::Argument { what, expected, found })
}
