//! Files of a job, shared by its ranks: catalog, assignment, duplicates, events in memory and
//! failures.

pub(crate) mod assignment;
pub(crate) mod catalog;
pub mod check;
pub(crate) mod classes;
pub mod cut_flow;
pub(crate) mod duplicates;
mod event_rows;
pub mod event_store;
pub(crate) mod failures;
mod gathered;
mod host_copies;
mod opened_source;
pub(crate) mod output;
pub(crate) mod probe;
pub(crate) mod rank_report;
pub(crate) mod roles;
mod row_counts;
pub(crate) mod sketch;
pub mod source;
pub(crate) mod values;
