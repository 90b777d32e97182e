//! Training of normalizing flows on Hillas parameters over MPI ranks, and scoring
//! of archives with them. `ARCHITECTURE.md` tells the floors and the promises.

pub mod error;
pub mod evaluate;
pub mod metrics;
pub mod report;
pub mod world;
