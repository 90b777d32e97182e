//! Output folder of a job: ledgers, records of inputs, and verification.

pub(crate) mod earlier;
pub(crate) mod extraction;
pub(crate) mod given;
pub(crate) mod ledger;
pub(crate) mod listed;
pub(crate) mod reading;
pub(crate) mod started;
pub(crate) mod verification;
