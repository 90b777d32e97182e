//! Tests of the program from outside: one module per property.
//!
//! Inputs are generated in every run from a seed that a failing test prints.
//! `TAIGA_FLOW_TEST_SEED` repeats a run with this seed. `TAIGA_FLOW_TEST_DATA` names the folder of
//! public data. `tests/run.sh` sets up everything.

#![allow(clippy::unwrap_used, clippy::expect_used)] // also in helpers of tests
#![allow(unsafe_code)] // signals and limits of processes

mod archive;
mod archive_sequences;
mod bad_input;
mod batch;
mod calibration;
mod choices;
mod commands;
mod damage;
mod dialects;
mod documents;
mod empty_files;
mod energy_bins;
mod exactly_once;
mod extracted_inputs;
mod extractions;
mod failing_disk;
mod fast_path;
mod faults;
mod float_keys;
mod formats;
mod fuzz;
#[cfg(feature = "gpu")]
mod gpu;
mod host_copies;
mod image_anomalies;
mod images;
mod independent;
mod kills;
mod likelihood;
mod limits;
mod magic;
mod memory;
mod odd_inputs;
mod odd_outputs;
mod off_source;
mod opens;
mod plausible_inputs;
mod preflight;
mod ranks;
mod recovery;
mod run_folders;
mod scoring_settings;
mod season;
mod season_runs;
mod separation;
mod shared_outputs;
mod stopping;
mod streams;
mod support;
mod sweep;
mod thresholds;
mod tidy;
mod two_starts;
mod unreadable_files;
mod wrong_inputs;
mod wrong_weights;
