//! The files of a job as its ranks share them: catalog, assignment, duplicates, events in
//! memory, failures.

pub mod assignment;
pub mod catalog;
pub mod check;
pub mod classes;
pub mod cut_flow;
pub mod duplicates;
pub mod event_store;
pub mod failures;
mod host_copies;
pub mod output;
pub mod probe;
pub mod roles;
pub mod sketch;
pub mod source;
pub mod values;
