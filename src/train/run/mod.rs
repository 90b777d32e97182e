//! The run folder of a training: checkpoints, journal, published model, status.

pub mod checkpoint;
mod ending;
pub(crate) mod journal;
pub(crate) mod publish;
pub(crate) mod records;
pub(crate) mod run_folder;
pub(crate) mod run_status;
pub(crate) mod verify;
