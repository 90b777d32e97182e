//! What a training would refuse before its first step: all of it, without a run folder.

use super::job::Job;
use super::plan::Plan;
use super::{Existing, Options};
use crate::config::{Config, EngineChoice, Hardware};
use crate::data::repeated;
use crate::engine::{self, Place};
use crate::error::Result;
use crate::world::{World, agree};
use std::path::PathBuf;

/// Finds, reads and judges the files of a configuration as a training would; with `quick` their
/// metadata alone.
pub fn rehearse(world: &dyn World, config: &Config, quick: bool) -> Result<()> {
    let plan = Plan::new(world, config)?;
    if quick {
        return Ok(());
    }
    if !config.data.allow_repeated_events {
        repeated::refuse(world, &plan.sources)?;
    }
    let hardware =
        Hardware { engine: EngineChoice::Cpu, threads: config.run.threads, share_devices: false };
    let place = Place::new(world, hardware)?;
    engine::use_threads(place.threads);
    let start = |_| engine::start(&place, &plan.spec);
    let engines = agree(world, plan.flows.iter().map(start).collect::<Result<Vec<_>>>())?;
    let options = Options {
        config: config.clone(),
        output: PathBuf::new(),
        existing: Existing::Refuse,
        allow_engine_change: false,
        stop_after: None,
        dry_run: true,
        command: String::new(),
    };
    Job::prepare(world, &options, &plan, None, engines)?.check_bins(world)
}
