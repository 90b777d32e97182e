//! Reads the points of a sweep from their run folders.
//!
//! A run folder counts for a point only if its configuration is that of the point, and its files
//! had the same content as those of the other points. The grid, the other settings or the data may
//! have changed since the training.

use crate::config::Config;
use crate::error::{Error, Result};
use crate::model::Model;
use crate::train::run::records::{self, RecordedFiles};
use crate::train::run::run_status::{State, run_status};
use crate::train::{CONFIG, MODEL};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// One point of the grid and its result.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SweepPoint {
    #[serde(rename = "point")]
    pub number: usize,
    /// Overridden keys, in the syntax of `--set`.
    pub settings: Vec<String>,
    pub run: PathBuf,
    pub state: PointState,
    /// Reason why the training ended without a model, or why the run in the folder does not count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended: Option<String>,
    pub epochs: u64,
    pub best_epoch: Option<u64>,
    /// Validation NLL of the published weights: lower is better.
    pub validation_nll: Option<f64>,
    pub threshold: Option<f64>,
    pub model_blake3: Option<String>,
    /// AUC of the evaluation, in a sweep over sets of features.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auc: Option<f64>,
}

/// State of a point.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum PointState {
    Run(State),
    Foreign(Foreign),
}

/// Reason why the run in the folder of a point is not that of the point.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Foreign {
    OtherSettings,
    OtherData,
}

/// Hashes of the configuration of a point.
#[derive(Debug, Clone)]
pub struct Expected {
    configuration: records::Configuration,
    /// Everything except the weights on which the validation NLL depends: NLLs are comparable if it
    /// is equal.
    measure: String,
}

impl Expected {
    pub(super) fn new(config: &Config) -> Result<Expected> {
        let Config { data, features, cuts, split, model, off_source, .. } = config;
        let (mode, normal) = (model.mode, model.normal);
        let measure =
            format!("{data:?}{features:?}{cuts:?}{split:?}{off_source:?}{mode:?}{normal:?}");
        Ok(Expected { configuration: records::Configuration::new(config)?, measure })
    }
}

/// Returns whether the validation NLLs of all points use the same events and the same features.
pub(super) fn are_comparable(all: &[Expected]) -> bool {
    all.windows(2).all(|pair| pair[0].measure == pair[1].measure)
}

impl SweepPoint {
    /// Reads a point from its run folder.
    pub(super) fn read(
        number: usize,
        settings: &[String],
        run: PathBuf,
        expected: &Expected,
    ) -> SweepPoint {
        let status = run_status(&run).ok();
        let model = Model::load(&run.join(MODEL)).ok();
        let card = model.as_ref().map(|(model, _)| &model.card);
        if !expected.configuration.is_of(&run, card) {
            let reason = format!(
                "its folder contains a run with other settings ({}): choose another folder for the sweep, or use --overwrite",
                run.join(CONFIG).display()
            );
            return SweepPoint::foreign(number, settings, run, Foreign::OtherSettings, reason);
        }
        let training = card.map(|card| &card.training);
        SweepPoint {
            number,
            settings: settings.to_vec(),
            state: PointState::Run(status.as_ref().map_or(State::NotBegun, |s| s.state)),
            ended: status.as_ref().and_then(|s| s.ended.clone()),
            epochs: training.map_or(status.as_ref().map_or(0, |s| s.epoch), |t| t.epochs),
            best_epoch: training.map(|t| t.best_epoch),
            validation_nll: training.and_then(|t| t.validation_nll),
            threshold: card.and_then(|card| card.threshold.map(|t| t.value)),
            model_blake3: model.as_ref().map(|(_, hash)| hash.clone()),
            auc: None,
            run,
        }
    }

    fn foreign(
        number: usize,
        settings: &[String],
        run: PathBuf,
        why: Foreign,
        reason: String,
    ) -> SweepPoint {
        SweepPoint {
            number,
            settings: settings.to_vec(),
            run,
            state: PointState::Foreign(why),
            ended: Some(reason),
            epochs: 0,
            best_epoch: None,
            validation_nll: None,
            threshold: None,
            model_blake3: None,
            auc: None,
        }
    }

    pub(super) fn is_foreign(&self) -> bool {
        matches!(self.state, PointState::Foreign(_))
    }

    /// Returns whether its training has ended, with a model or without.
    pub(super) fn is_over(&self) -> bool {
        const OVER: [State; 3] = [State::Finished, State::Diverged, State::Failed];
        matches!(self.state, PointState::Run(state) if OVER.contains(&state))
    }

    /// Returns the point, or its state after its training in this call has failed.
    pub(super) fn with_outcome(self, error: Option<&Error>) -> SweepPoint {
        let stays = self.is_foreign() || self.state == PointState::Run(State::Finished);
        let Some(error) = error.filter(|_| !stays) else { return self };
        let is_diverged = matches!(error, Error::Diverged(_));
        let state = if is_diverged { State::Diverged } else { State::Failed };
        SweepPoint { state: PointState::Run(state), ended: Some(error.to_string()), ..self }
    }
}

/// Marks points whose files had a different content. The reference is a point of this call (`own`)
/// or, without one, the point that was started last.
pub(super) fn mark_other_data(points: &mut [SweepPoint], own: &[usize]) {
    let files: Vec<Option<RecordedFiles>> = points
        .iter()
        .map(|point| (!point.is_foreign()).then(|| records::files(&point.run)).flatten())
        .collect();
    let of_call = own.iter().find_map(|i| files.get(*i)?.as_ref());
    let last = || files.iter().flatten().max_by_key(|files| files.started_unix);
    let Some(reference) = of_call.or_else(last) else { return };
    for (point, files) in points.iter_mut().zip(&files) {
        let Some(path) = files.as_ref().and_then(|files| files.other_content(reference)) else {
            continue;
        };
        let reason = format!(
            "it was trained on a different content of {}: choose another folder for the sweep, or use --overwrite",
            path.display()
        );
        let (number, run) = (point.number, point.run.clone());
        *point = SweepPoint::foreign(number, &point.settings, run, Foreign::OtherData, reason);
    }
}

/// Returns a path relative to a folder.
pub(super) fn relative(path: &Path, folder: &Path) -> String {
    path.strip_prefix(folder).unwrap_or(path).display().to_string()
}
