//! Options of all commands, and the output of results.

use super::device::parse_duration;
use crate::comm::{Communicator, is_root};
use crate::error::{Fault, Result};
use crate::terminal;
use clap::Args;
use serde::Serialize;
use std::fmt::Display;
use std::time::Duration;

#[derive(Debug, Args)]
pub struct Global {
    /// Print one JSON object on standard output
    #[arg(long, global = true)]
    pub json: bool,
    /// Replace existing outputs
    #[arg(long, global = true)]
    pub overwrite: bool,
    /// Print more messages (repeat for even more)
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// Print errors only
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// Wait at most this long for another job that writes to the same output
    #[arg(long, global = true, value_name = "TIME", default_value = "30s",
          value_parser = parse_duration)]
    pub lock_timeout: Duration,
}

impl Global {
    /// Prints the result of a command on rank 0.
    pub(super) fn print(
        &self,
        comm: &dyn Communicator,
        result: &(impl Serialize + Display),
    ) -> Result<()> {
        if !is_root(comm) {
            return Ok(());
        }
        let text = if self.json {
            serde_json::to_string(result)
                .map_err(|e| Fault::new("cannot write the result").found(e).internal())?
        } else {
            result.to_string().trim_end().to_string()
        };
        terminal::print_result(&text)
    }
}
