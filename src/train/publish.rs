//! From the best weights to a model file: the threshold, the card, the summary.

use super::job::{Job, diverged};
use super::plan::Plan;
use super::quantile;
use super::replicas;
use super::state::TrainState;
use super::{Existing, MODEL, Options, Summary};
use crate::config::{Class, Config};
use crate::data::features::{MEASURE, scaler_log_det};
use crate::data::store::RowCounts;
use crate::error::{Fault, Result};
use crate::figures::{Rule, Threshold};
use crate::model::{self, Card, FlowCard, Model, Training};
use crate::world::{World, agree, common, is_root};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Name of the only flow of a one-class model.
const FLOW: &str = "main";

impl Job<'_> {
    /// Chooses the threshold and writes the model file.
    pub fn publish(&mut self, world: &dyn World, state: &TrainState) -> Result<Summary> {
        replicas::check(world, state)?;
        if state.best.iter().any(|p| !p.is_finite()) {
            let skipped = state.progress.skipped_in_a_row;
            return common(Err(diverged(skipped, "the weights to publish are not finite")));
        }
        self.engine.set_params(&state.best)?;
        let threshold = self.threshold(world)?;
        let model = self.model(state, threshold)?;
        let ((checkpoints, saving), all) = (self.saved, self.began.elapsed());
        let written = self.journal.as_mut().map(|journal| {
            let share = 100.0 * saving.as_secs_f64() / all.as_secs_f64();
            journal.say(&format!(
                "{checkpoints} checkpoint(s) took {share:.2} % of {:.1} s",
                all.as_secs_f64()
            ))?;
            let path = journal.folder.file(MODEL);
            let hash = model.save(&path)?;
            journal.folder.forget_replaced()?;
            journal.say(&format!("finished: {} with blake3 {hash}", path.display()))?;
            Ok(journal.folder.path.clone())
        });
        let run = agree(world, written.transpose())?.unwrap_or_default();
        summary(&model, run, self.rows, false)
    }

    /// The quantile of log p of held-out normal events, as a score.
    fn threshold(&self, world: &dyn World) -> Result<Option<Threshold>> {
        let fraction = self.plan.config.calibration.quantile;
        let normal = self.plan.config.model.normal;
        let calibration = self.rows.calibration > 0;
        let mut all = Vec::new();
        for shard in &self.store.shards {
            self.log_prob(
                if calibration { &shard.calibration } else { &shard.validation },
                &mut all,
            )?;
        }
        let events = if calibration { self.rows.calibration } else { self.rows.validation };
        let quantile = quantile::quantile(world, &all, fraction)?;
        let log_det = scaler_log_det(&self.scaler);
        Ok(quantile.map(|q| {
            // Exactly as a score is computed: f32 log p plus the scaler's part, in f32.
            let log_p = f64::from((f64::from(q) + log_det) as f32);
            let value = match normal {
                Class::Gamma => log_p,
                Class::Hadron => (-log_p).next_up(),
            };
            Threshold { rule: Rule::Quantile { normal, fraction }, value, events }
        }))
    }

    fn model(&self, state: &TrainState, threshold: Option<Threshold>) -> Result<Model> {
        let (config, p) = (&self.plan.config, &state.progress);
        let name = FLOW.to_string();
        let flow = FlowCard::new(config.model.normal, &self.plan.spec);
        let card = Card {
            format: model::FORMAT.to_string(),
            version: model::VERSION,
            code_version: env!("CARGO_PKG_VERSION").to_string(),
            mode: config.model.mode,
            normal: Some(config.model.normal),
            measure: MEASURE.to_string(),
            features: self.scaler.clone(),
            cuts: config.cuts.clone(),
            flows: BTreeMap::from([(name.clone(), flow)]),
            split: config.split.clone(),
            threshold,
            training: Training {
                seed: config.train.seed,
                configuration: training_hash(config)?,
                data: self.plan.data.clone(),
                rows: self.rows,
                epochs: p.epoch,
                best_epoch: p.best_epoch,
                steps: p.step,
                skipped_steps: p.skipped,
                validation_nll: p.best_nll,
                validation_nll_median: p.best_median,
            },
            checksum: String::new(), // the model file's business
        };
        Ok(Model { card, flows: BTreeMap::from([(name, state.best.clone())]) })
    }
}

/// Hash of what shapes the weights, without the paths of the files.
fn training_hash(config: &Config) -> Result<String> {
    let mut shape = config.clone();
    shape.data.gamma.clear();
    shape.data.hadron.clear();
    shape.data.mixed.clear();
    shape.hash()
}

/// The summary of a run that is finished already, on all ranks.
pub fn finished(world: &dyn World, options: &Options, plan: &Plan) -> Result<Option<Summary>> {
    if options.existing == Existing::Replace {
        return Ok(None);
    }
    let path = options.output.join(MODEL);
    let loaded = is_root(world)
        .then(|| if path.is_file() { Model::load(&path).map(Some) } else { Ok(None) });
    let loaded = agree(world, loaded.transpose())?.flatten();
    let mut bytes = match &loaded {
        Some((model, _)) => model.to_bytes()?,
        None => Vec::new(),
    };
    world.broadcast(&mut bytes)?;
    if bytes.is_empty() {
        return Ok(None);
    }
    let model = Model::from_bytes(&bytes)?;
    if model.card.training.data != plan.data {
        return common(Err(Fault::new("the run is finished, on other data")
            .file(&path)
            .advice("choose another folder, or give --overwrite to begin anew")
            .usage()));
    }
    let rows = model.card.training.rows;
    summary(&model, options.output.clone(), rows, true).map(Some)
}

fn summary(
    model: &Model,
    run: PathBuf,
    rows: RowCounts,
    already_finished: bool,
) -> Result<Summary> {
    let training = &model.card.training;
    Ok(Summary {
        model: run.join(MODEL),
        run,
        model_blake3: blake3::hash(&model.to_bytes()?).to_hex().to_string(),
        rows,
        epochs: training.epochs,
        best_epoch: training.best_epoch,
        validation_nll: training.validation_nll,
        threshold: model.card.threshold.map(|t| t.value),
        already_finished,
    })
}

impl std::fmt::Display for Summary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = if self.already_finished { "finished before" } else { "finished" };
        writeln!(f, "{state}: {} epochs, best {}", self.epochs, self.best_epoch)?;
        if let Some(nll) = self.validation_nll {
            writeln!(f, "held-out NLL: {nll:.4}")?;
        }
        if let Some(threshold) = self.threshold {
            writeln!(f, "threshold:    {threshold:.4}")?;
        }
        writeln!(f, "model:        {}", self.model.display())?;
        write!(f, "blake3:       {}", self.model_blake3)
    }
}
