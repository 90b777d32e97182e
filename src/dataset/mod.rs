//! Files of a job, shared by its ranks: catalog, assignment, duplicates, events in memory and
//! failures.

pub mod assignment;
pub mod catalog;
pub mod check;
pub mod classes;
pub mod cut_flow;
pub mod duplicates;
mod event_rows;
pub mod event_store;
pub mod failures;
mod gathered;
mod host_copies;
mod opened_source;
pub mod output;
pub mod probe;
pub mod rank_report;
pub mod roles;
mod row_counts;
pub mod sketch;
pub mod source;
pub mod values;
