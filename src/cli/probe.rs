//! Reads a file in a separate process, which the HDF5 library may end.

use crate::comm::StopFlag;
use crate::dataset::probe;
use crate::error::Result;
use crate::terminal;
use clap::Args;
use std::path::PathBuf;
use std::time::Duration;

#[derive(Debug, Args)]
pub struct Arguments {
    /// File to read
    file: PathBuf,
    /// Built-in schema or schema file [default: detected from the file]
    #[arg(long)]
    schema: Option<String>,
    /// End after this many seconds
    #[arg(long, value_name = "SECONDS")]
    limit: u64,
}

impl Arguments {
    pub(super) fn run(&self) -> Result<()> {
        // Signals to the job are handled by the parent, which ends this process.
        let _stop = StopFlag::on_signals()?;
        let limit = Duration::from_secs(self.limit);
        let outcome = probe::read_through(&self.file, self.schema.as_deref(), limit);
        if let Err(error) = &outcome {
            terminal::print_result(&error.to_string())?;
        }
        outcome
    }
}
