//! The output folder of a job: its ledgers, its inputs, and its verification.

pub mod earlier;
pub mod extraction;
pub mod given;
pub mod ledger;
pub mod listed;
pub mod reading;
pub mod started;
pub mod verification;
