//! Random forest (Breiman 2001) that the model is compared with, on the same features, cuts, split
//! and weights, grown from the training events of the model.
//!
//! The forest is the same on every rank: it is grown from a seed, with the events in the order of a
//! hash of file and row.

use super::EvaluatedParts;
use crate::comm::{Communicator, Work};
use crate::config::Class;
use crate::data::files::stamp;
use crate::data::selection::split::{Part, Splitter};
use crate::data::table::{Block, Request, Table};
use crate::dataset::event_store::{class_of, part};
use crate::dataset::source::Source;
use crate::engine::{Scored, Scorer};
use crate::error::{Error, Fault, Result};
use crate::statistics::ClassCounts;
use crate::statistics::roc::MIN_HADRONS;
use smartcore::ensemble::random_forest_regressor::{
    RandomForestRegressor, RandomForestRegressorParameters,
};
use smartcore::linalg::basic::matrix::DenseMatrix;
use taiga_flow_gpu::random::Stream;

const TREES: usize = 100;
const LEAST_IN_LEAF: usize = 5;
/// Most events of a class that a forest is grown from: more take minutes and gain little.
const MOST: usize = 50_000;
/// Rows read at a time.
const WINDOW: u64 = 65_536;

type FittedForest = RandomForestRegressor<f64, f64, DenseMatrix<f64>, Vec<f64>>;

/// Forest that returns the share of gammas in the leaves of an event.
pub struct Forest {
    model: FittedForest,
    pub trees: u64,
    pub events: ClassCounts,
}

/// Event that a forest is grown from.
struct TrainingEvent {
    key: u64,
    features: Vec<f64>, // scaled
    weight: f64,
}

impl Forest {
    /// Grows a forest from the train and validation parts of files with a class column.
    pub fn grow(comm: &dyn Communicator, scorer: &Scorer, sources: &[Source]) -> Result<Forest> {
        let mut classes = [Vec::new(), Vec::new()];
        for (number, source) in sources.iter().enumerate() {
            take(comm, scorer, source, number as u64, &mut classes)
                .map_err(|e| e.in_file(&source.path))?;
        }
        let [gamma, hadron] = classes.each_ref().map(|events| events.len() as u64);
        if gamma.min(hadron) < MIN_HADRONS {
            return Err(Fault::new("too few events to grow a forest from")
                .expected(format!(
                    "at least {MIN_HADRONS} of each class in the train and validation parts"
                ))
                .found(format!("{gamma} gammas, {hadron} hadrons"))
                .advice("give --yardstick the files that the model was trained on")
                .input());
        }
        let labelled = classes.iter().zip([1.0, 0.0]);
        let events: Vec<(&TrainingEvent, f64)> =
            labelled.flat_map(|(events, label)| events.iter().map(move |e| (e, label))).collect();
        let weights: Vec<f64> = events.iter().map(|(event, _)| event.weight).collect();
        let labels: Vec<f64> = events.iter().map(|(_, label)| *label).collect();
        let rows = matrix(events.iter().map(|(event, _)| event.features.as_slice()))?;
        let width = scorer.card.features.len();
        let parameters = RandomForestRegressorParameters::default()
            .with_n_trees(TREES)
            .with_min_samples_leaf(LEAST_IN_LEAF)
            .with_m((libm::sqrt(width as f64) as usize).max(1))
            .with_seed(scorer.card.training.seed);
        let weighted = scorer.selection().has_weight();
        let model = if weighted {
            RandomForestRegressor::fit_with_weights(&rows, &labels, &weights, parameters)
        } else {
            RandomForestRegressor::fit(&rows, &labels, parameters)
        };
        let model = model.map_err(|e| broken(&e))?;
        Ok(Forest { model, trees: TREES as u64, events: ClassCounts { gamma, hadron } })
    }

    /// Appends the share of gammas of some rows of a scored block.
    pub fn scores(&self, scored: &Scored, rows: &[usize], out: &mut Vec<f32>) -> Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        let features: Vec<Vec<f64>> = rows.iter().map(|row| wide(scored.scaled(*row))).collect();
        let rows = matrix(features.iter().map(Vec::as_slice))?;
        let shares: Vec<f64> = self.model.predict(&rows).map_err(|e| broken(&e))?;
        out.extend(shares.into_iter().map(|share| share as f32));
        Ok(())
    }
}

/// Refuses to grow a forest from evaluated events: train and validation parts of a file in both
/// lists must not be evaluated.
pub fn refuse_overlap(model: &[Source], evaluated: &[(&Source, EvaluatedParts)]) -> Result<()> {
    for (source, parts) in evaluated {
        let apart = matches!(parts, EvaluatedParts::Only(Part::Test | Part::Calibration));
        if apart || !model.iter().any(|own| own.rows == source.rows) {
            continue;
        }
        let hash = stamp::hash_file(&source.path)?;
        for own in model.iter().filter(|own| own.rows == source.rows) {
            if stamp::hash_file(&own.path)? == hash {
                return Err(Fault::new("the forest would be measured on events it was grown from")
                    .file(&own.path)
                    .expected("--part test or calibration, or other files in --yardstick")
                    .found(format!("part {}", parts.name()))
                    .usage());
            }
        }
    }
    Ok(())
}

/// Adds the usable events of the train and validation parts of a file, by class.
fn take(
    comm: &dyn Communicator,
    scorer: &Scorer,
    source: &Source,
    number: u64,
    classes: &mut [Vec<TrainingEvent>; 2], // gammas, hadrons
) -> Result<()> {
    let table = Table::open(&source.path, &source.schema)?;
    scorer.check_units(&table)?;
    let split = &scorer.card.split;
    let splitter = Splitter::new(split);
    let mut reader = table.reader(&Request {
        quantities: scorer.selection().quantities().to_vec(),
        keys: split.key.clone().unwrap_or_default(),
        shower: split.key.is_none(),
        class: table.has_class(),
    })?;
    let (mut block, mut scored) = (Block::default(), Scored::default());
    for start in (0..source.rows).step_by(WINDOW as usize) {
        comm.progress(Work::Reading, start);
        reader.read(start..(start + WINDOW).min(source.rows), &mut block)?;
        scorer.prepare_only(&block, &mut scored);
        for row in (0..block.rows).filter(|row| scored.status[*row] == 0) {
            let Some(class @ 0..=1) = class_of(source, &block, row) else { continue };
            let keyed = split.key.is_some();
            let own = part(&splitter, scorer.selection(), &block, row, class, keyed);
            if !matches!(own, Part::Train | Part::Validation) {
                continue;
            }
            let events = &mut classes[usize::from(class != Class::Gamma.code())];
            events.push(TrainingEvent {
                key: Stream::new(0, "forest", &[number]).bits(start + row as u64),
                features: wide(scored.scaled(row)),
                weight: scorer.selection().weight(&block, row)?,
            });
            if events.len() >= 2 * MOST {
                lowest(events);
            }
        }
    }
    classes.iter_mut().for_each(lowest);
    Ok(())
}

fn lowest(events: &mut Vec<TrainingEvent>) {
    events.sort_by_key(|event| event.key);
    events.truncate(MOST);
}

fn wide(row: &[f32]) -> Vec<f64> {
    row.iter().map(|x| f64::from(*x)).collect()
}

fn matrix<'a>(rows: impl Iterator<Item = &'a [f64]>) -> Result<DenseMatrix<f64>> {
    let rows: Vec<Vec<f64>> = rows.map(<[f64]>::to_vec).collect();
    DenseMatrix::from_2d_vec(&rows).map_err(|e| broken(&e))
}

fn broken(error: &dyn std::fmt::Display) -> Error {
    Fault::new("the random forest cannot be used").found(error).internal()
}
