//! Output folder of a job: ledgers, records of inputs, and verification.

pub mod earlier;
pub mod extraction;
pub mod given;
pub mod ledger;
pub mod listed;
pub mod reading;
pub mod started;
pub mod verification;
