//! Check of a value against its allowed range.

use crate::error::{Error, Fault, Result};

/// Refuses a value that is not allowed; `expected` describes the allowed ones.
pub(super) fn check(
    name: &str,
    value: impl std::fmt::Display,
    allowed: bool,
    expected: &str,
) -> Result<(), Error> {
    if allowed {
        return Ok(());
    }
    Err(Fault::new(format!("configuration: {name} is out of range"))
        .expected(expected)
        .found(value)
        .usage())
}
