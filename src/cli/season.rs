//! Arguments of `season`.

use crate::comm::{Communicator, is_root, sync_result};
use crate::config::SeasonSettings;
use crate::data::files::output_kind::OutputKind;
use crate::error::Result;
use crate::report;
use crate::season::{self, Options, Season};
use clap::Args;
use std::path::{Path, PathBuf};

#[derive(Debug, Args)]
pub struct Arguments {
    /// Folders of score files
    #[arg(required = true)]
    scores: Vec<PathBuf>,
    /// Folder for season.json and season.html
    #[arg(short, long)]
    pub(super) output: PathBuf,
    #[command(flatten)]
    selection: SelectionArguments,
    /// Folder of scores of simulated gammas, made with the same settings: for leakage and areas
    #[arg(long, value_name = "DIR")]
    gamma_mc: Option<PathBuf>,
    /// Folder of scores that each run is compared with for drift [default: the other runs]
    #[arg(long, value_name = "DIR")]
    reference: Option<PathBuf>,
    /// Folder of the images from which the scored events were extracted: for pictures of the best
    /// candidates
    #[arg(long, value_name = "DIR")]
    images: Option<PathBuf>,
    /// Count the season even if up to this many files could not be scored or read; the page lists
    /// them
    #[arg(long, value_name = "N", default_value_t = 0)]
    allow_failed: usize,
}

/// Selection of events for `season` and `compare`.
#[derive(Debug, Args)]
pub struct SelectionArguments {
    /// Settings (TOML, see configs/season/season.toml)
    #[arg(short, long)]
    config: Option<PathBuf>,
    /// Working point of the score files [default: that of the settings, else their first]
    #[arg(long, conflicts_with = "threshold")]
    point: Option<String>,
    /// Smallest score of a passing event, instead of a working point
    #[arg(long, allow_hyphen_values = true)]
    threshold: Option<f64>,
}

impl SelectionArguments {
    pub(super) fn config(&self) -> Option<&Path> {
        self.config.as_deref()
    }

    pub(super) fn settings(&self) -> Result<SeasonSettings> {
        let mut settings = match &self.config {
            Some(path) => SeasonSettings::load(path)?,
            None => SeasonSettings::default(),
        };
        if self.point.is_some() || self.threshold.is_some() {
            settings.point.clone_from(&self.point);
            settings.threshold = self.threshold;
        }
        settings.validate()?;
        Ok(settings)
    }
}

impl Arguments {
    pub(super) fn named_inputs(&self) -> Vec<&Path> {
        self.selection.config().into_iter().collect()
    }

    pub(super) fn outputs(&self) -> Vec<PathBuf> {
        [season::SEASON, report::SEASON_PAGE].map(|name| self.output.join(name)).to_vec()
    }

    pub(super) fn run(&self, comm: &dyn Communicator, overwrite: bool) -> Result<Season> {
        let options = Options {
            scores: self.scores.clone(),
            output: self.output.clone(),
            settings: sync_result(comm, self.selection.settings())?,
            gamma_mc: self.gamma_mc.clone(),
            reference: self.reference.clone(),
            images: self.images.clone(),
            allow_failed: self.allow_failed,
            overwrite,
        };
        let page = self.output.join(report::SEASON_PAGE);
        let check = || OutputKind::Page.refuse_existing(&page, overwrite);
        sync_result(comm, if is_root(comm) { check() } else { Ok(()) })?;
        let season = season::run(comm, &options)?;
        let write = || report::write_season(&season, &page);
        sync_result(comm, if is_root(comm) { write() } else { Ok(()) })?;
        Ok(season)
    }
}
