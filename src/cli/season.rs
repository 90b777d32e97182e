//! `season`: the arguments as typed, and what they ask for.

use crate::comm::{World, agree, is_root};
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
    selection: Selection,
    /// Folder of scores of simulated gammas, made as the others: for the leak and for areas
    #[arg(long, value_name = "DIR")]
    gamma_mc: Option<PathBuf>,
    /// Folder of scores that each run is compared with for drift [default: the other runs]
    #[arg(long, value_name = "DIR")]
    reference: Option<PathBuf>,
    /// Folder of the images that the scored events were extracted from: for pictures of the
    /// best candidates
    #[arg(long, value_name = "DIR")]
    images: Option<PathBuf>,
    /// Count the season although at most so many files could not be scored or read; the page names
    /// them
    #[arg(long, value_name = "N", default_value_t = 0)]
    allow_failed: usize,
}

/// What is counted, for season and compare.
#[derive(Debug, Args)]
pub struct Selection {
    /// Settings (TOML, see configs/season/season.toml)
    #[arg(short, long)]
    config: Option<PathBuf>,
    /// Working point of the score files [default: the settings', else their first]
    #[arg(long, conflicts_with = "threshold")]
    point: Option<String>,
    /// Instead of a working point: a least score
    #[arg(long, allow_hyphen_values = true)]
    threshold: Option<f64>,
}

impl Selection {
    pub(super) fn config(&self) -> Option<&Path> {
        self.config.as_deref()
    }

    pub fn settings(&self) -> Result<SeasonSettings> {
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

    pub fn run(&self, world: &dyn World, overwrite: bool) -> Result<Season> {
        let options = Options {
            scores: self.scores.clone(),
            output: self.output.clone(),
            settings: agree(world, self.selection.settings())?,
            gamma_mc: self.gamma_mc.clone(),
            reference: self.reference.clone(),
            images: self.images.clone(),
            allow_failed: self.allow_failed,
            overwrite,
        };
        let page = self.output.join(report::SEASON_PAGE);
        let check = || OutputKind::Page.refuse_existing(&page, overwrite);
        agree(world, if is_root(world) { check() } else { Ok(()) })?;
        let season = season::run(world, &options)?;
        let write = || report::write_season(&season, &page);
        agree(world, if is_root(world) { write() } else { Ok(()) })?;
        Ok(season)
    }
}
