//! Refuses samples that are too small for training or for choosing a threshold.

use super::plan::TrainingPlan;
use crate::comm::{Communicator, mark_shared, sync_result};
use crate::config::{Class, Mode};
use crate::data::selection::shards::Dealing;
use crate::dataset::event_store::{EventStore, RowCounts, RowSelection};
use crate::error::{Error, Fault, Result};
use crate::statistics::{Calibration, Rule, WeightSum};

/// Fewest training events of a class; with fewer, a flow only learns the sample.
pub(crate) const LEAST_TO_TRAIN: u64 = 50;
/// Fewest training events of each class if two densities are compared; cannot be waived.
const LEAST_OF_TWO: u64 = 100;
/// Fewest held-out events of a class for a threshold; with fewer, it is random.
const LEAST_TO_CHOOSE: u64 = 20;
/// Parameters per training event above which a warning is given.
const MOST_PARAMETERS: u64 = 10;

const ALLOW: &str = "--allow-few-events skips this check";

/// Returns an error if a class has fewer training events than [`LEAST_TO_TRAIN`].
///
/// # Errors
/// Input error.
pub(crate) fn check_training(
    rows: &RowCounts,
    plan: &TrainingPlan,
    class: Class,
    allowed: bool,
) -> Result<()> {
    let least = match plan.config.model.mode {
        Mode::OneClass if allowed => 1,
        Mode::OneClass => LEAST_TO_TRAIN,
        _ => LEAST_OF_TWO,
    };
    if rows.train >= least {
        return Ok(());
    }
    let what = if rows.train == 0 { "no" } else { "too few" };
    let advice = "look at the files with `taiga-flow check`, and at [cuts] and [split]";
    let waivable = rows.train > 0 && least == LEAST_TO_TRAIN;
    Err(Fault::new(format!("{what} {class} events to train on"))
        .expected(format!("at least {least} usable rows of the class in the training part"))
        .found(format!(
                        "{} for training of {} rows read: {} of the other or unknown class, {} outside the cuts, {} not usable",
            rows.train,
            rows.read,
            rows.other_class,
            rows.cut,
            rows.not_finite + rows.out_of_domain
        ))
        .advice(if waivable {
            format!("{advice}; {ALLOW}")
        } else if rows.train > 0 && least == LEAST_OF_TWO {
            format!("{advice}; a model of two densities needs {LEAST_OF_TWO} of each, also with --allow-few-events")
        } else {
            advice.to_string()
        })
        .input())
}

/// Returns an error if a class has fewer held-out events than [`LEAST_TO_CHOOSE`] for the
/// threshold. Without any held-out events, the quantile of a single class is not chosen.
///
/// # Errors
/// Input error.
pub(crate) fn check_threshold(rows: &[(Class, RowCounts)], plan: &TrainingPlan) -> Result<()> {
    let rule = Rule::configured(&plan.config.calibration)?;
    let normal = plan.config.model.normal;
    let classes = rule.map_or(vec![normal], Rule::classes);
    // A rule uses the calibration part if every class has one, a quantile that of its class.
    let calibration = match rule {
        Some(_) => rows.iter().all(|(_, rows)| rows.calibration > 0),
        None => rows.iter().any(|(class, rows)| *class == normal && rows.calibration > 0),
    };
    for (class, rows) in rows.iter().filter(|(class, _)| classes.contains(class)) {
        let held_out = if calibration { rows.calibration } else { rows.validation };
        if held_out >= LEAST_TO_CHOOSE || (held_out == 0 && rule.is_none()) {
            continue;
        }
        let part = if calibration { "calibration" } else { "validation" };
        return Err(Fault::new("too few events to choose a threshold on")
            .expected(format!("at least {LEAST_TO_CHOOSE} {class} events held out"))
            .found(format!("{held_out} in the {part} part"))
            .advice(format!("give more events, or hold more out (split.{part}); {ALLOW}"))
            .input());
    }
    Ok(())
}

/// Returns an error if the files cannot have enough events, before they are read.
pub(crate) fn check_rows(training: u64, allowed: bool) -> Result<()> {
    if allowed || training >= LEAST_TO_TRAIN {
        return Ok(());
    }
    let fault: Error = Fault::new("too few events to train on")
        .expected(format!("at least {LEAST_TO_TRAIN} rows in the training part"))
        .found(format!("at most {training}"))
        .advice(format!("give more events, or look at [split]; {ALLOW}"))
        .input();
    Err(fault)
}

/// Returns an error if weights leave too few effective held-out events to calibrate a ratio. The
/// arguments are the sums over the events for validation and for calibration.
///
/// # Errors
/// Input error.
pub(crate) fn check_calibration(gammas: [WeightSum; 2], hadrons: [WeightSum; 2]) -> Result<()> {
    // The calibration part is used if both classes have one.
    let part = usize::from(gammas[1].events > 0 && hadrons[1].events > 0);
    Calibration::refuse_few([gammas[part], hadrons[part]])
}

/// Checks these weights before a training, file by file, with only one file in memory.
///
/// # Errors
/// Input error, or an error of reading the files.
pub(crate) fn check_weights(comm: &dyn Communicator, plan: &TrainingPlan) -> Result<()> {
    if plan.config.model.mode != Mode::Ratio || !plan.selection.has_weight() {
        return Ok(());
    }
    let mut of_class = [[WeightSum::default(); 2]; 2];
    for (class, sums) in [Class::Gamma, Class::Hadron].into_iter().zip(&mut of_class) {
        let row_selection = plan.row_selection(class);
        for source in plan.sources.iter().filter(|s| s.class.is_none_or(|own| own == class)) {
            let shards = row_selection.dealing.shards();
            let dealing = Dealing::new(source.rows, shards, row_selection.seed);
            let row_selection = RowSelection { dealing, ..row_selection };
            let loaded = EventStore::load(comm, std::slice::from_ref(source), &row_selection);
            let (store, _) = sync_result(comm, loaded)?;
            let held_out = store.held_out(comm, shards)?;
            sums.iter_mut().zip(held_out).for_each(|(sum, of_file)| *sum = sum.plus(of_file));
        }
    }
    let [gammas, hadrons] = of_class;
    mark_shared(check_calibration(gammas, hadrons))
}

/// Logs a warning if a flow has many parameters for its events.
pub(crate) fn warn_of_parameters(events: u64, class: Class, plan: &TrainingPlan) {
    let parameters = (plan.parameters / plan.flows.len()) as u64;
    if events * MOST_PARAMETERS < parameters {
        log::warn!(
            "{events} {class} events to train a flow of {parameters} parameters: fewer than a \
             tenth; expect overfitting, and lower model.blocks or model.hidden"
        );
    }
}
