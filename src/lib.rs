//! Training of normalizing flows on Hillas parameters over MPI ranks, and scoring of archives with
//! them. `ARCHITECTURE.md` describes the layers and the invariants.

#![cfg_attr(test, allow(clippy::float_cmp))]

pub mod bounded;
pub mod cli;
pub mod comm;
pub mod config;
pub mod data;
pub mod dataset;
pub mod engine;
pub mod error;
pub mod evaluate;
pub mod extract;
pub mod hillas;
pub mod memory;
pub mod metrics;
pub mod model;
pub mod report;
pub mod score;
pub mod season;
pub mod simulate;
pub mod statistics;
pub mod storage;
pub mod terminal;
pub mod train;
