//! Engines: log-likelihood, inverse, gradient and update of one flow on one device.
//!
//! Events are scaled (see `data::schema::features`), row by row; an engine does not know raw
//! columns, files or ranks. It returns gradient sums as integers, so sums over shards, threads and
//! ranks have the same bits in any order.

pub mod cpu;
#[cfg(feature = "gpu")]
mod cube;
pub(crate) mod fixed;
mod interface;
pub(crate) mod optimiser;
mod positions;
mod preparation;
mod resources;
mod scorer;
mod simd;
mod start;

pub(crate) use fixed::FixedSum;
pub use interface::{Batch, Engine};
pub(crate) use positions::{AssumedPositions, ImageColumns, OF_POSITION, PositionColumns};
pub(crate) use preparation::{Preparation, Prepared};
pub use resources::{RankResources, most_threads, use_threads};
pub use scorer::{
    ExtraOutputs, Scored, Scorer, check_units, is_of_other_fold, refuse_used_runs, score, used_run,
};
pub use simd::Isa;
pub use start::start;
pub use taiga_flow_gpu::training::{Adam, Events, Weights};
