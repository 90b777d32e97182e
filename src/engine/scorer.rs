//! Scores the blocks of a table with the card of a model and an engine.
//!
//! Scoring and evaluation both use this code: selection, coordinates and scaler are those of
//! training. Rows without a likelihood get NaN and status bits. Rows outside the cuts get both a
//! likelihood and the status bit.

use super::interface::Engine;
use super::positions::OF_POSITION;
use super::preparation::{Preparation, Prepared, ROWS_TOGETHER};
use super::resources::RankResources;
use super::start::start;
use crate::config::Class;
use crate::data::schema::canonical_unit;
use crate::data::schema::features::scaler_log_det;
use crate::data::selection::{CUT, Selection, UNUSABLE};
use crate::data::table::{Block, InputFile, Request, Table};
use crate::error::{Fault, Result};
use crate::model::{Card, Model, OffSourceCard};
use crate::statistics::{Bounds, Calibration};
use rayon::prelude::*;
use std::time::{Duration, Instant};

/// Rows per block when only the run numbers are read.
const ROWS_READ: usize = 1 << 18;

/// A model with its engines.
pub struct Scorer {
    pub card: Card,
    preparation: Preparation,
    flows: Vec<(String, Box<dyn Engine>)>, // the numerator of a ratio first
    normal: Class,
    log_det: f64,
    more: ExtraOutputs,
}

/// Optional outputs in addition to the scores.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ExtraOutputs {
    /// Densities per raw units.
    pub raw: bool,
    /// |z|² in the first flow.
    pub chi2: bool,
}

/// Scores of a block; every vector (positions, rows), with one position if none are assumed.
#[derive(Debug, Clone, Default)]
pub struct Scored {
    pub status: Vec<u32>,
    /// Higher is more gamma-like.
    pub score: Vec<f32>,
    /// Density of the transformed, unscaled features, per flow.
    pub log_prob: Vec<Vec<f32>>, // (flows)(positions, rows)
    /// Density per raw units; empty unless requested.
    pub log_prob_raw: Vec<Vec<f32>>, // (flows)(positions, rows)
    /// |z|² of the latent point in the first flow; empty unless requested.
    pub chi2: Vec<f32>,
    /// Probability of a gamma for equal numbers of both classes; empty if the model is not
    /// calibrated.
    pub gammaness: Vec<f32>,
    /// Probability of a gamma at the model's prior share of gammas among triggered events. For
    /// models of older versions, the share is that among events that pass the pre-cuts.
    pub posterior: Vec<f32>,
    /// Total time in the engine.
    pub engine_time: Duration,
    prepared: Prepared,
}

impl Scorer {
    /// Starts one engine per flow of the model and sets its parameters.
    ///
    /// # Errors
    /// Errors of the engine, or of the cuts of the card.
    pub fn new(model: Model, place: &RankResources) -> Result<Scorer> {
        let Model { card, flows: mut params, .. } = model;
        let normal = card.score_class();
        let mut flows = Vec::new();
        for (number, (name, flow)) in card.flows_in_order().enumerate() {
            let mut engine = start(&place.for_flow(number), &flow.spec)?;
            let params = params.remove(name).ok_or_else(|| {
                Fault::new("the model has no parameters of a flow").dataset(name).internal()
            })?;
            engine.set_params(&params)?;
            flows.push((name.clone(), engine));
        }
        let features: Vec<_> = card.features.iter().map(|f| f.feature.clone()).collect();
        Ok(Scorer {
            preparation: Preparation::new(Selection::new(&features, &card.cuts)?, &card.features),
            log_det: scaler_log_det(&card.features),
            normal,
            flows,
            card,
            more: ExtraOutputs::default(),
        })
    }

    /// Enables optional outputs.
    #[must_use]
    pub(crate) fn with(mut self, more: ExtraOutputs) -> Scorer {
        self.preparation.raw = more.raw;
        Scorer { more, ..self }
    }

    /// Adds the expression for the weight of an event (`selection.weight`) and its quantities.
    ///
    /// # Errors
    /// Usage error if the expression is invalid.
    pub(crate) fn weighted(mut self, weight: Option<&str>) -> Result<Scorer> {
        self.preparation.selection = self.preparation.selection.with_weight(weight)?;
        Ok(self)
    }

    /// Adds bins of a quantity or an expression (`selection.bin`) and its quantities.
    ///
    /// # Errors
    /// Usage error if the expression is invalid.
    pub(crate) fn binned(mut self, per: &str, edges: &[f64]) -> Result<Scorer> {
        self.preparation.selection = self.preparation.selection.with_bins(per, edges)?;
        Ok(self)
    }

    /// Prepares for several assumed source positions ([`Scorer::score_at`]).
    #[must_use]
    pub(crate) fn at_positions(mut self) -> Scorer {
        self.preparation.selection = self.preparation.selection.with_varying(&OF_POSITION);
        self
    }

    /// Returns the selection, which lists the quantities to read.
    pub(crate) fn selection(&self) -> &Selection {
        &self.preparation.selection
    }

    /// Returns the part that needs no engine, for use on another thread.
    pub(crate) fn preparation(&self) -> &Preparation {
        &self.preparation
    }

    /// Returns the description of the first engine for logs.
    pub(crate) fn describe(&self) -> String {
        self.flows.first().map_or_else(String::new, |(_, engine)| engine.describe())
    }

    /// Returns the names of the flows, in the order of `Scored::log_prob`.
    pub(crate) fn flow_names(&self) -> Vec<&str> {
        self.flows.iter().map(|(name, _)| name.as_str()).collect()
    }

    /// Returns the bounds to compare events of a class with, or of unknown class; `None` if the
    /// model does not describe its training events.
    pub(crate) fn bounds(&self, class: Option<Class>) -> Option<Bounds> {
        let flows: Vec<Class> = self.card.flows_in_order().map(|(_, flow)| flow.class).collect();
        let reference = self.card.reference.as_ref()?;
        Some(reference.bounds(&self.card.features, &flows, class))
    }

    /// Returns an error if a feature of the table has a different unit than in the model.
    ///
    /// # Errors
    /// `Input`, with both units.
    pub fn check_units(&self, table: &Table) -> Result<()> {
        check_units(&self.card, table)
    }

    /// Scores a block that was read with `selection().quantities()`.
    ///
    /// # Errors
    /// Errors of the engine.
    pub fn score(&self, block: &Block, scored: &mut Scored) -> Result<()> {
        let mut prepared = std::mem::take(&mut scored.prepared);
        self.preparation.prepare(block, &mut prepared);
        let outcome = self.score_prepared(&mut prepared, scored);
        scored.prepared = prepared;
        outcome
    }

    /// Computes status and scaled features of a block, without scores.
    pub(crate) fn prepare_only(&self, block: &Block, scored: &mut Scored) {
        self.preparation.prepare(block, &mut scored.prepared);
        std::mem::swap(&mut scored.prepared.status, &mut scored.status);
    }

    /// Computes all scores from prepared features; moves the status to `scored`.
    ///
    /// # Errors
    /// Errors of the engine.
    pub(crate) fn score_prepared(
        &self,
        prepared: &mut Prepared,
        scored: &mut Scored,
    ) -> Result<()> {
        std::mem::swap(&mut prepared.status, &mut scored.status);
        let (all, flows) = (scored.status.len(), self.flows.len());
        scored.log_prob.resize(flows, Vec::new());
        scored.log_prob_raw.resize(if self.more.raw { flows } else { 0 }, Vec::new());
        let started = Instant::now();
        for (f, (_, engine)) in self.flows.iter().enumerate() {
            scored.log_prob[f].resize(all, f32::NAN);
            let log_prob = &mut scored.log_prob[f];
            if self.more.chi2 && f == 0 {
                scored.chi2.resize(all, f32::NAN);
                engine.log_prob_and_chi2(&prepared.scaled, log_prob, &mut scored.chi2)?;
            } else {
                engine.log_prob(&prepared.scaled, log_prob)?;
            }
        }
        scored.engine_time += started.elapsed();
        let (status, log_det) = (&scored.status, self.log_det);
        let with_scaler = |row: usize, log_prob: f32| {
            let unusable = status[row] & UNUSABLE != 0;
            if unusable { f64::NAN } else { f64::from(log_prob) + log_det }
        };
        let (of_flows, normal) = (&scored.log_prob, self.normal);
        (0..all)
            .into_par_iter()
            .with_min_len(ROWS_TOGETHER)
            .map(|row| score(normal, of_flows.iter().map(|flow| with_scaler(row, flow[row]))))
            .collect_into_vec(&mut scored.score);
        let jacobian = &prepared.jacobian;
        for (raw, log_prob) in scored.log_prob_raw.iter_mut().zip(&scored.log_prob) {
            let per_raw_unit =
                |(row, l): (usize, &f32)| (with_scaler(row, *l) + jacobian[row]) as f32;
            log_prob
                .par_iter()
                .with_min_len(ROWS_TOGETHER)
                .enumerate()
                .map(per_raw_unit)
                .collect_into_vec(raw);
        }
        for log_prob in &mut scored.log_prob {
            let rows = log_prob.par_iter_mut().with_min_len(ROWS_TOGETHER).enumerate();
            rows.for_each(|(row, l)| *l = with_scaler(row, *l) as f32);
        }
        let rows = scored.chi2.par_iter_mut().with_min_len(ROWS_TOGETHER).zip(status);
        rows.filter(|(_, status)| *status & UNUSABLE != 0).for_each(|(chi2, _)| *chi2 = f32::NAN);
        if let Some(calibration) = &self.card.calibration {
            calibrate(calibration, scored);
        }
        Ok(())
    }
}

/// Computes gammaness and posterior of all scores.
fn calibrate(calibration: &Calibration, scored: &mut Scored) {
    let scores = || scored.score.par_iter().with_min_len(ROWS_TOGETHER);
    let gammaness = |s: &f32| calibration.gammaness(f64::from(*s)) as f32;
    scores().map(gammaness).collect_into_vec(&mut scored.gammaness);
    let posterior = |s: &f32| calibration.posterior(f64::from(*s)) as f32;
    scores().map(posterior).collect_into_vec(&mut scored.posterior);
    // The prior is the share among events that pass the cuts.
    if calibration.cut_efficiency.is_some() {
        let rows = scored.posterior.par_iter_mut().with_min_len(ROWS_TOGETHER).zip(&scored.status);
        let outside = rows.filter(|(_, status)| *status & CUT != 0);
        outside.for_each(|(posterior, _)| *posterior = f32::NAN);
    }
}

/// Returns an error if a feature of the table has a different unit than in the card.
///
/// # Errors
/// `Input`, with both units.
pub fn check_units(card: &Card, table: &Table) -> Result<()> {
    for feature in &card.features {
        let name = &feature.feature.name;
        let unit = table.unit(name).or(canonical_unit(name)).unwrap_or("1");
        if unit != feature.unit {
            return Err(Fault::new("the unit in the file differs from that of the model")
                .file(table.path())
                .column(name)
                .expected(&feature.unit)
                .found(unit)
                .advice("convert the column in a schema file (see configs/schema)")
                .input());
        }
    }
    Ok(())
}

/// Returns the first row, and its run, of a run that the model was trained on. Scores of the
/// model's own training hadrons are biased. Simulated gammas have no such run. `progress` is called
/// with the number of rows read so far.
///
/// # Errors
/// `Input` if the file lacks the key of the run and has other rows than gammas; those of reading.
pub fn used_run(
    card: &Card,
    file: &mut InputFile,
    progress: impl Fn(u64),
) -> Result<Option<(u64, i64)>> {
    find_run(card, file, progress, OffSourceCard::has_used)
}

/// Returns whether another fold scores a file: the hash of its first run gives the fold. So one
/// fold scores each file, also of runs that are in no training.
///
/// # Errors
/// Those of reading the runs of the file.
pub fn is_of_other_fold(card: &Card, file: &mut InputFile, progress: impl Fn(u64)) -> Result<bool> {
    let first = find_run(card, file, progress, |_, _| true)?;
    let of = first.zip(card.training.off_source.as_ref());
    Ok(of.is_some_and(|((_, run), off)| {
        OffSourceCard::fold_of(off.seed, run, off.folds) != off.fold
    }))
}

/// Returns the first row, and its run, of a real event whose run is `wanted`.
fn find_run(
    card: &Card,
    file: &mut InputFile,
    progress: impl Fn(u64),
    wanted: impl Fn(&OffSourceCard, i64) -> bool,
) -> Result<Option<(u64, i64)>> {
    let Some(off) = &card.training.off_source else { return Ok(None) };
    let table = file.table();
    if !table.key_names().contains(&off.run.as_str()) {
        return refuse_without_run(off, file, progress).map(|()| None);
    }
    let class = table.has_class();
    let request = Request { keys: vec![off.run.clone()], class, ..Request::default() };
    let mut reader = file.reader(&request)?;
    let mut block = Block::default();
    for start in (0..reader.rows()).step_by(ROWS_READ) {
        progress(start);
        reader.read(start..(start + ROWS_READ as u64).min(reader.rows()), &mut block)?;
        let gamma =
            |row: usize| block.class.as_ref().is_some_and(|c| c[row] == Class::Gamma.code());
        let is_wanted = |row: &usize| !gamma(*row) && wanted(off, block.keys[0][*row]);
        if let Some(row) = (0..block.rows).find(is_wanted) {
            return Ok(Some((start + row as u64, block.keys[0][row])));
        }
    }
    Ok(None)
}

/// Refuses a file without the key of the run, unless all of its rows are gammas.
fn refuse_without_run(
    off: &OffSourceCard,
    file: &mut InputFile,
    progress: impl Fn(u64),
) -> Result<()> {
    let request = Request { class: file.table().has_class(), ..Request::default() };
    let mut block = Block::default();
    let (rows, mut other) = (file.rows(), (file.rows() > 0).then_some(0u64));
    if request.class {
        let mut reader = file.reader(&request)?;
        other = None;
        for start in (0..rows).step_by(ROWS_READ) {
            progress(start);
            reader.read(start..(start + ROWS_READ as u64).min(rows), &mut block)?;
            let mut classes = block.class.iter().flatten();
            let found = classes.position(|class| *class != Class::Gamma.code());
            if let Some(row) = found {
                other = Some(start + row as u64);
                break;
            }
        }
    }
    let Some(row) = other else { return Ok(()) };
    Err(Fault::new("the file lacks the key of the runs that the model was trained on")
        .file(file.path())
        .row(row)
        .column(&off.run)
        .expected("a run of each event that is not a simulated gamma (class 1)")
        .found("no such key")
        .advice("convert or extract the file again with its run; give simulated gammas a class")
        .input())
}

/// Returns an error if the file has events of a run that the model was trained on.
///
/// # Errors
/// `Input`, with the run and its first row; those of reading the runs of the file.
pub fn refuse_used_runs(card: &Card, file: &mut InputFile, progress: impl Fn(u64)) -> Result<()> {
    let used = used_run(card, file, progress)?;
    let Some(((row, run), off)) = used.zip(card.training.off_source.as_ref()) else {
        return Ok(());
    };
    let fold = OffSourceCard::fold_of(off.seed, run, off.folds);
    Err(Fault::new("the model was trained on events of this run")
        .file(file.path())
        .row(row)
        .column(&off.run)
        .expected(format!("runs of fold {} of {}, or of no training file", off.fold, off.folds))
        .found(format!("run {run} of fold {fold}"))
        .advice("score it with the model of that fold; --own-runs skips such files")
        .input())
}

/// Computes the score of an event from its log p in the flows of a model: log p of the normal class
/// minus log p of the other flow, if any. The sign is reversed if hadrons are normal, so higher is
/// always more gamma-like.
pub fn score(normal: Class, log_prob: impl IntoIterator<Item = f64>) -> f32 {
    let difference = log_prob.into_iter().reduce(|first, second| first - second);
    let difference = difference.unwrap_or(f64::NAN) as f32;
    match normal {
        Class::Gamma => difference,
        Class::Hadron => -difference,
    }
}

impl Scored {
    /// Returns the scaled features of a row; zeros if the row is unusable.
    pub(crate) fn scaled(&self, row: usize) -> &[f32] {
        self.prepared.row(row)
    }
}
