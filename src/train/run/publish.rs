//! Publishes the model: threshold, calibration, card, model file, summary.

use super::ending::FINISHED;
use super::journal::Journal;
use super::run_folder::{Existing, MODEL};
use crate::comm::{Communicator, is_root, mark_shared, sync_result};
use crate::config::{Anomalies, Class, Config, Mode};
use crate::data::schema::features::MEASURE;
use crate::dataset::event_store::RowCounts;
use crate::error::{Fault, Result};
use crate::model::{
    self, Card, FlowCard, FlowTraining, Model, ModelSketches, Reference, TrainingRecord,
};
use crate::statistics::{
    BinnedThresholds, Calibration, CutEfficiency, NullDistribution, Rule, Sample, Threshold,
};
use crate::train::bins;
use crate::train::checkpoints::Checkpoints;
use crate::train::engines::FlowEngines;
use crate::train::events::TrainingEvents;
use crate::train::flows::FlowPlan;
use crate::train::objectives::quantile;
use crate::train::options::{Options, Summary};
use crate::train::plan::TrainingPlan;
use crate::train::reference;
use crate::train::replicas;
use crate::train::state::TrainState;
use crate::train::stop::diverged;
use crate::train::validation::Validation;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Results on held-out events.
struct HeldOutChoices {
    threshold: Option<Threshold>,
    thresholds: Option<BinnedThresholds>,
    calibration: Option<Calibration>,
    normals: Option<NullDistribution>,
    reference: Reference,
    sketches: ModelSketches,
}

/// Chooses the threshold, calibrates, and writes the model file.
pub fn publish(
    comm: &dyn Communicator,
    events: &mut TrainingEvents,
    flows: &mut FlowEngines,
    journal: Option<&mut Journal>,
    checkpoints: &Checkpoints,
    state: &TrainState,
) -> Result<Summary> {
    replicas::check(comm, state)?;
    if state.best.iter().any(|p| !p.is_finite()) {
        let skipped = state.progress.skipped_in_a_row;
        return mark_shared(Err(diverged(skipped, "the weights to publish are not finite")));
    }
    flows.set_params(&state.best)?;
    let validation = Validation { events, flows };
    let threshold = threshold(comm, validation)?;
    let thresholds = bins::thresholds(comm, validation, threshold)?;
    let calibration = calibration(comm, validation)?;
    let normals = normals(comm, validation)?;
    let classes = reference::classes(comm, validation)?;
    let (reference, sketches) = reference::with_sketches(comm, &mut events.sketches, classes)?;
    let chosen =
        HeldOutChoices { threshold, thresholds, calibration, normals, reference, sketches };
    let model = model(events, state, chosen)?;
    let written = journal.map(|journal| write(journal, &model, checkpoints));
    let run = sync_result(comm, written.transpose())?;
    // Only rank 0 has a folder, and only its summary is printed.
    summary(&model, run.unwrap_or(PathBuf::new()), model.card.training.rows, false)
}

/// Writes the model file, and logs its hash; returns the run folder.
fn write(journal: &mut Journal, model: &Model, checkpoints: &Checkpoints) -> Result<PathBuf> {
    journal.say(&checkpoints.summary())?;
    journal.folder.identity.check()?;
    let path = journal.folder.file(MODEL);
    let hash = model.save(&path)?;
    journal.folder.forget_replaced()?;
    journal.say(&format!("{FINISHED}{} with blake3 {hash}", path.display()))?;
    Ok(journal.folder.path.clone())
}

/// Chooses the threshold by the configured rule; by default it is a quantile of the score among
/// held-out normal events. The score is log p, or the difference of two.
fn threshold(comm: &dyn Communicator, validation: Validation) -> Result<Option<Threshold>> {
    let events = validation.events;
    let config = &events.plan.config;
    if config.calibration.rule.is_some() {
        return threshold_by_rule(comm, validation).map(Some);
    }
    let (fraction, normal) = (config.calibration.quantile, config.model.normal);
    let rows = &events.rows[0];
    let calibration = rows.calibration > 0;
    let (mut scores, weights) = validation.scores(0, calibration)?;
    if normal == Class::Hadron {
        scores.iter_mut().for_each(|s| *s = -*s);
    }
    let events = if calibration { rows.calibration } else { rows.validation };
    let quantile = quantile::weighted(comm, &scores, weights.as_deref(), fraction)?;
    Ok(quantile.map(|q| {
        let value = match normal {
            Class::Gamma => f64::from(q),
            Class::Hadron => (-f64::from(q)).next_up(),
        };
        let rule = Rule::Quantile { normal, fraction };
        Threshold { rule, value, events, limited_by_hadrons: None }
    }))
}

fn threshold_by_rule(comm: &dyn Communicator, validation: Validation) -> Result<Threshold> {
    let rule = mark_shared(bins::threshold_rule(validation.events))?;
    let events = validation.gathered_scores(comm)?;
    let scores: Vec<f64> = events.iter().map(|e| e.score).collect();
    let gamma: Vec<bool> = events.iter().map(|e| e.class == Class::Gamma).collect();
    let weights: Vec<f64> = events.iter().map(|e| e.weight).collect();
    let has_weight = validation.events.plan.selection.has_weight();
    let sample = Sample::weighted(&scores, &gamma, has_weight.then_some(weights.as_slice()));
    let chosen = mark_shared(sample.and_then(|s| rule.choose(&s)))?;
    if let Some(limit) = chosen.limit_text().filter(|_| is_root(comm)) {
        log::warn!(
            "threshold by {rule}: {limit}; a higher one may be better (hold more events out: \
             split.calibration)"
        );
    }
    Ok(chosen)
}

/// Fits the conversion of scores to probabilities on held-out events of both classes, if both are
/// real.
fn calibration(comm: &dyn Communicator, validation: Validation) -> Result<Option<Calibration>> {
    let config = &validation.events.plan.config;
    if config.model.mode != Mode::Ratio {
        return Ok(None);
    }
    let prior = config.calibration.prior;
    let events = validation.gathered_scores(comm)?;
    let events = events.iter().map(|e| (e.score, e.class, e.weight)).collect();
    let shares = cut_efficiency(validation.events);
    if shares.is_none() && is_root(comm) {
        log::warn!(
            "the prior of the posterior refers to events that pass the pre-cuts: the share of \
             triggered events that pass them is unknown"
        );
    }
    let fitted = Calibration::fit(events, prior);
    mark_shared(fitted.map(|calibration| Some(calibration.with_cut_efficiency(shares))))
}

/// Returns the shares of the rows of each real class that are usable and pass the pre-cuts, of all
/// parts and unweighted.
fn cut_efficiency(events: &TrainingEvents) -> Option<CutEfficiency> {
    let share = |of: Class| {
        let population = events.plan.populations.iter().position(|p| p.class() == Some(of))?;
        events.rows.get(population)?.share_inside_cuts()
    };
    let (gamma, hadron) = share(Class::Gamma).zip(share(Class::Hadron))?;
    Some(CutEfficiency { gamma, hadron })
}

/// Returns the distribution for p-values of a single flow: the events that chose the threshold,
/// with equal weights. Weighted events cannot be counted.
fn normals(comm: &dyn Communicator, validation: Validation) -> Result<Option<NullDistribution>> {
    let plan = validation.events.plan;
    if plan.flows.len() > 1 || plan.selection.has_weight() {
        return Ok(None);
    }
    let calibration = validation.events.rows[0].calibration > 0;
    let (scores, _) = validation.scores(0, calibration)?;
    let mine: Vec<u8> = scores.iter().flat_map(|score| score.to_le_bytes()).collect();
    let normal = plan.config.model.normal;
    let sign = if normal == Class::Gamma { 1.0 } else { -1.0 };
    let mut log_prob = Vec::new();
    for bytes in comm.all_gather(&mine)? {
        let scores = bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b));
        log_prob.extend(scores.map(|score| sign * f64::from(score)));
    }
    Ok(NullDistribution::of(normal, log_prob))
}

/// Makes the model with its card.
fn model(events: &TrainingEvents, state: &TrainState, chosen: HeldOutChoices) -> Result<Model> {
    let HeldOutChoices { threshold, thresholds, calibration, normals, reference, sketches } =
        chosen;
    let (config, p, plan) = (&events.plan.config, &state.progress, events.plan);
    let each = plan.flow_parameters();
    let (mut flows, mut params, mut trained) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    for (f, flow) in plan.flows.iter().enumerate() {
        let name = flow.name.to_string();
        let best = p.best[f];
        flows.insert(name.clone(), FlowCard::new(flow.class, &plan.spec));
        params.insert(name.clone(), state.best[FlowPlan::range(f, each)].to_vec());
        let flow = FlowTraining {
            rows: events.rows.get(flow.population).copied(),
            best_epoch: best.epoch,
            validation_nll: best.nll,
            validation_nll_median: best.median,
        };
        trained.insert(name, flow);
    }
    let several = config.model.mode != Mode::OneClass;
    let card = Card {
        format: model::FORMAT.to_string(),
        version: model::VERSION_WITH_REFERENCE,
        code_version: env!("CARGO_PKG_VERSION").to_string(),
        mode: config.model.mode,
        normal: (config.model.mode != Mode::Ratio).then_some(config.model.normal),
        measure: MEASURE.to_string(),
        features: events.scaler.clone(),
        cuts: config.cuts.clone(),
        flows,
        split: config.split.clone(),
        threshold,
        thresholds,
        calibration,
        normals,
        reference: Some(reference),
        training: TrainingRecord {
            seed: config.train.seed,
            configuration: training_hash(config)?,
            data: plan.data.clone(),
            rows: events.rows[0],
            epochs: p.epoch,
            best_epoch: p.best_epoch,
            steps: p.step,
            skipped_steps: p.skipped,
            validation_nll: p.best_nll(),
            validation_nll_median: p.best.iter().map(|b| b.median).sum(),
            flows: if several { trained } else { BTreeMap::new() },
            anomalies: config.anomalies.clone().map(without_paths),
            weight: config.data.weight.clone(),
            off_source: events.off_source.clone(),
        },
        checksum: String::new(), // set when the file is written
    };
    Ok(Model { card, flows: params, sketches })
}

fn without_paths(mut anomalies: Anomalies) -> Anomalies {
    anomalies.files.clear();
    anomalies
}

/// Computes the hash of the settings that affect the weights, without paths of files.
pub(crate) fn training_hash(config: &Config) -> Result<String> {
    let mut shape = config.clone();
    shape.data.gamma.clear();
    shape.data.hadron.clear();
    shape.data.mixed.clear();
    shape.data.off.clear();
    shape.anomalies = shape.anomalies.map(without_paths);
    shape.hash()
}

/// Returns the summary of an already finished run, on all ranks.
pub fn finished(
    comm: &dyn Communicator,
    options: &Options,
    plan: &TrainingPlan,
) -> Result<Option<Summary>> {
    if options.existing == Existing::Replace {
        return Ok(None);
    }
    let path = options.output.join(MODEL);
    let loaded =
        is_root(comm).then(|| if path.is_file() { Model::load(&path).map(Some) } else { Ok(None) });
    let loaded = sync_result(comm, loaded.transpose())?.flatten();
    let mut bytes = match &loaded {
        Some((model, _)) => model.to_bytes()?,
        None => Vec::new(),
    };
    comm.broadcast(&mut bytes)?;
    if bytes.is_empty() {
        return Ok(None);
    }
    let model = Model::from_bytes(&bytes)?;
    if model.card.training.data != plan.data {
        return mark_shared(Err(Fault::new("the run is finished, with different data")
            .file(&path)
            .advice("choose another folder, or use --overwrite to start from scratch")
            .usage()));
    }
    let same_version = model.card.code_version == env!("CARGO_PKG_VERSION");
    if same_version && model.card.training.configuration != training_hash(&plan.config)? {
        return mark_shared(Err(Fault::new("the run is finished, with a different configuration")
            .file(&path)
            .expected("the same configuration apart from [run]")
            .advice("choose another folder, or use --overwrite to start from scratch")
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
        flows: model.card.flows.len(),
        threshold: model.card.threshold.map(|t| t.value),
        limited_by_hadrons: model.card.threshold.and_then(|t| t.limited_by_hadrons),
        already_finished,
    })
}
