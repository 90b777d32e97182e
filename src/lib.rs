//! Training of normalizing flows on Hillas parameters over MPI ranks, and scoring
//! of archives with them. `ARCHITECTURE.md` tells the floors and the promises.

pub mod data;
pub mod error;
pub mod simulate;
pub mod world;
