//! Loads and checks the events of a training on this rank.

use super::few;
use super::flows::{Objective, Population};
use super::objectives::hadron_comparison;
use super::objectives::off_source::of_class;
use super::objectives::synthetic::Synthetic;
use super::plan::TrainingPlan;
use crate::comm::{Communicator, is_root, mark_shared, sync_result};
use crate::config::{Class, Mode};
use crate::data::schema::features::{Moments, ScaledFeature};
use crate::data::selection::shards::Dealing;
use crate::dataset::classes;
use crate::dataset::cut_flow;
use crate::dataset::duplicates;
use crate::dataset::event_store::{EventStore, RowCounts, RowSelection, check_budget};
use crate::dataset::sketch::Sketches;
use crate::dataset::source::Source;
use crate::error::{Error, Fault, Result};
use crate::model::anomalies::AnomalyMaker;
use crate::model::{HadronComparison, OffSourceCard};

/// Steps per epoch below which the batch is probably too large for the sample.
const FEWEST_STEPS: u64 = 4;

/// Fewest events in the files of anomalies.
const FEWEST_EVENTS: u64 = 100;

/// Options for the files of both classes.
const INPUTS: &str = "data.gamma and data.hadron";

/// Events of a training on this rank, scaled.
pub(crate) struct TrainingEvents<'a> {
    pub plan: &'a TrainingPlan,
    pub stores: Vec<EventStore>, // (real populations)
    pub scaler: Vec<ScaledFeature>,
    pub rows: Vec<RowCounts>, // (real populations)
    /// Selection of hadrons from experimental files, if any.
    pub off_source: Option<OffSourceCard>,
    pub synthetic: Option<Synthetic>,
    /// Sketches of this rank's events.
    pub sketches: Sketches,
}

impl<'a> TrainingEvents<'a> {
    /// Reads and checks this rank's shards, and scales their events.
    pub(crate) fn load(
        comm: &dyn Communicator,
        plan: &'a TrainingPlan,
        allow_few_events: bool,
    ) -> Result<TrainingEvents<'a>> {
        let mut loaded = LoadedClasses::new(plan);
        for population in &plan.populations {
            if let Population::Real(class) = population {
                loaded.load(comm, plan, *class, allow_few_events)?;
            }
        }
        let LoadedClasses { mut stores, rows, moments, mut sketches, mut off_source } = loaded;
        check_calibration(comm, plan, &stores)?;
        if !allow_few_events {
            let classes = plan.populations.iter().filter_map(|p| p.class());
            let of_class: Vec<_> = classes.zip(rows.iter().copied()).collect();
            mark_shared(few::check_threshold(&of_class, plan))?;
        }
        let scaler = mark_shared(moments.scaler(plan.selection.features(), &plan.units))?;
        stores.iter_mut().for_each(|store| store.scale(&scaler));
        if let (Some(off), false) = (&mut off_source, plan.compared.is_empty()) {
            off.comparison = compare_hadrons(comm, plan, &scaler, &stores)?;
        }
        let synthetic = match &plan.config.anomalies {
            Some(anomalies) => {
                let mut filed = load_filed(comm, plan, &scaler, &rows[0])?;
                if let Some(of_filed) = filed.as_mut().and_then(|f| f.sketches.take()) {
                    sketches.join(&of_filed);
                }
                let (shards, seed) = (plan.dealing.shards(), plan.config.train.seed);
                let normal = &stores[0];
                Some(Synthetic::learn(comm, anomalies, &scaler, normal, shards, seed, filed)?)
            }
            None => None,
        };
        Ok(TrainingEvents { plan, stores, scaler, rows, off_source, synthetic, sketches })
    }

    /// Returns the number of steps per epoch.
    pub(crate) fn steps(&self) -> u64 {
        let most = self.rows.iter().map(|r| r.train).max().unwrap_or(0);
        most.div_ceil(self.plan.config.train.batch)
    }

    /// Returns the number of steps of a whole stage.
    pub(crate) fn stage_steps(&self, stage: &Objective) -> u64 {
        self.steps() * stage.settings(&self.plan.config.train).epochs
    }

    /// Returns whether there are events for calibration; otherwise the validation events are used.
    pub(crate) fn has_calibration(&self) -> bool {
        self.rows.iter().all(|rows| rows.calibration > 0)
    }

    /// Returns the quantile of normal log p that a stage tracks, if any.
    pub(crate) fn followed_quantile(&self, stage: usize) -> Option<f64> {
        let low_density =
            self.synthetic.as_ref().and_then(|s| AnomalyMaker::low_density_quantile(&s.anomalies));
        match &self.plan.stages[stage] {
            Objective::Push(fine_tune) => Some(fine_tune.push.quantile),
            _ => low_density,
        }
    }

    /// Returns the bins of held-out events of a population on this rank: of the calibration part
    /// or of the validation part.
    pub(crate) fn held_out_bins(&self, population: usize, calibration: bool) -> Vec<u16> {
        let shards = self.stores[population].shards.iter();
        let rows = shards.map(|s| if calibration { &s.calibration } else { &s.validation });
        rows.flat_map(|rows| rows.bins().iter().copied()).collect()
    }
}

/// Events of the real classes during loading.
struct LoadedClasses {
    stores: Vec<EventStore>,
    rows: Vec<RowCounts>,
    moments: Moments,
    sketches: Sketches,
    off_source: Option<OffSourceCard>,
}

impl LoadedClasses {
    fn new(plan: &TrainingPlan) -> LoadedClasses {
        LoadedClasses {
            stores: Vec::new(),
            rows: Vec::new(),
            moments: Moments::new(plan.spec.features),
            sketches: Sketches::new(plan.sketched()),
            off_source: None,
        }
    }

    /// Loads and checks the events of a class.
    fn load(
        &mut self,
        comm: &dyn Communicator,
        plan: &TrainingPlan,
        class: Class,
        allow_few_events: bool,
    ) -> Result<()> {
        let row_selection =
            RowSelection { sketched: Some(plan.sketched()), ..plan.row_selection(class) };
        let (mut store, counts) =
            sync_result(comm, EventStore::load(comm, &plan.sources, &row_selection))?;
        let counts = counts.reduce(comm)?;
        if let Some(of_class) = store.sketches.take() {
            let repeated = classes::refuse_shared(comm, &self.sketches, &of_class)?;
            let is_allowed = plan.config.data.allow_repeated_events;
            if let (Some(repeated), false) = (&repeated, is_allowed)
                && sync_result(comm, duplicates::lack_event_keys(&plan.sources))?
            {
                mark_shared(classes::refuse_repeated(repeated))?;
            }
            warn(comm, repeated);
            self.sketches.join(&of_class);
        }
        if let Some(off) = plan.off.as_ref().filter(|_| class == Class::Hadron) {
            let gammas = of_class(&plan.sources, Class::Gamma);
            self.off_source = Some(off.conclude(comm, &gammas)?);
        }
        mark_shared(check_budget(&counts, plan.config.data.bad_rows))?;
        let checked = few::check_training(&counts, plan, class, allow_few_events)
            .and_then(|()| check_events(&counts, plan, class));
        if let Err(error) = checked {
            let error = explained(comm, plan, &plan.sources, &counts, class, error);
            return mark_shared(Err(error));
        }
        if is_root(comm) {
            few::warn_of_parameters(counts.train, class, plan);
        }
        let effective = mark_shared(store.normalise_weights(comm, plan.dealing.shards()))?;
        if let Some(effective) = effective.filter(|_| is_root(comm)) {
            let events = counts.train;
            log::info!(
                "weights: the effective number of {events} {class} events is {effective:.1}"
            );
        }
        let moments = store.moments(comm, &row_selection)?;
        self.add_moments(comm, plan, moments, class)?;
        self.stores.push(store);
        self.rows.push(counts);
        Ok(())
    }

    /// Checks the moments of a class, and adds them to those of the other class.
    fn add_moments(
        &mut self,
        comm: &dyn Communicator,
        plan: &TrainingPlan,
        moments: Moments,
        class: Class,
    ) -> Result<()> {
        let (selection, units) = (&plan.selection, &plan.units);
        mark_shared(classes::refuse_constant(&moments, selection, units, class))?;
        // Merging with empty moments would round: a model of one class keeps the bits of its
        // moments.
        if self.stores.is_empty() {
            self.moments = moments;
            return Ok(());
        }
        let [gammas, hadrons] = match class {
            Class::Gamma => [&moments, &self.moments],
            Class::Hadron => [&self.moments, &moments],
        };
        warn(comm, classes::swapped(gammas, hadrons, selection, INPUTS));
        self.moments.merge(&moments);
        Ok(())
    }
}

fn warn(comm: &dyn Communicator, text: Option<String>) {
    if let Some(text) = text.filter(|_| is_root(comm)) {
        log::warn!("{text}");
    }
}

/// Compares simulated hadrons with the real ones that are trained on.
fn compare_hadrons(
    comm: &dyn Communicator,
    plan: &TrainingPlan,
    scaler: &[ScaledFeature],
    stores: &[EventStore],
) -> Result<Option<HadronComparison>> {
    let is_hadron = |p: &Population| p.class() == Some(Class::Hadron);
    let Some(real) = plan.populations.iter().position(is_hadron) else { return Ok(None) };
    let row_selection = RowSelection {
        dealing: dealing(plan, &plan.compared),
        ..plan.row_selection(Class::Hadron)
    };
    let loaded = EventStore::load(comm, &plan.compared, &row_selection);
    let (mut simulated, _) = sync_result(comm, loaded)?;
    simulated.scale(scaler);
    let names: Vec<String> = plan.selection.features().iter().map(|f| f.name.clone()).collect();
    let shards = plan.dealing.shards();
    let found = hadron_comparison::compare(comm, &names, &stores[real], &simulated, shards)?;
    if let Some(found) = found.as_ref().filter(|_| is_root(comm)) {
        log::info!("{}", hadron_comparison::describe(found));
        if found.differs() {
            log::warn!("{}", found.warning());
        }
    }
    Ok(found)
}

/// Loads the files of anomalies, in the shards and parts of the normal events.
fn load_filed(
    comm: &dyn Communicator,
    plan: &TrainingPlan,
    scaler: &[ScaledFeature],
    normal: &RowCounts,
) -> Result<Option<EventStore>> {
    if plan.filed.is_empty() {
        return Ok(None);
    }
    let row_selection = RowSelection {
        sketched: Some(plan.sketched()),
        dealing: dealing(plan, &plan.filed),
        ..plan.row_selection(plan.config.model.normal)
    };
    let (mut store, counts) =
        sync_result(comm, EventStore::load(comm, &plan.filed, &row_selection))?;
    let counts = counts.reduce(comm)?;
    mark_shared(check_budget(&counts, plan.config.data.bad_rows))?;
    let held_out = normal.validation == 0 || counts.validation > 0;
    if counts.train < FEWEST_EVENTS || !held_out {
        let found = format!("{} to train on, {} held out", counts.train, counts.validation);
        let error = Fault::new("too few events in the files of anomalies")
            .expected(format!("{FEWEST_EVENTS} or more, and some held out"))
            .found(found)
            .advice("give more events in anomalies.files, or check the cuts")
            .input();
        let class = plan.config.model.normal;
        return mark_shared(Err(explained(comm, plan, &plan.filed, &counts, class, error)));
    }
    store.scale(scaler);
    Ok(Some(store))
}

/// Returns the assignment of the rows of additional files to the shards of the plan.
fn dealing(plan: &TrainingPlan, sources: &[Source]) -> Dealing {
    let rows = sources.iter().map(|source| source.rows).sum();
    Dealing::new(rows, plan.dealing.shards(), plan.config.train.seed)
}

/// Returns an error if a ratio cannot be calibrated with the weights of its held-out events.
fn check_calibration(
    comm: &dyn Communicator,
    plan: &TrainingPlan,
    stores: &[EventStore],
) -> Result<()> {
    let of = |class| plan.populations.iter().position(|p| p.class() == Some(class));
    let both = of(Class::Gamma).zip(of(Class::Hadron));
    let Some((gammas, hadrons)) = both.filter(|_| plan.config.model.mode == Mode::Ratio) else {
        return Ok(());
    };
    let held_out = |i: usize| stores[i].held_out(comm, plan.dealing.shards());
    mark_shared(few::check_calibration(held_out(gammas)?, held_out(hadrons)?))
}

/// Checks the split of a class, and warns of settings that rarely give a good model.
fn check_events(rows: &RowCounts, plan: &TrainingPlan, class: Class) -> Result<()> {
    let (mode, normal) = (plan.config.model.mode, plan.config.model.normal);
    if rows.validation == 0 && mode != Mode::OneClass {
        return Err(Fault::new(format!("no held-out {class} showers"))
            .expected(
                "split.validation above 0: fine-tuning and ratios are evaluated on held-out events",
            )
            .found(format!("{} of {} rows for validation", rows.validation, rows.read))
            .usage());
    }
    let steps = rows.train.div_ceil(plan.config.train.batch);
    if steps < FEWEST_STEPS {
        log::warn!(
            "only {steps} step(s) per epoch: {} events in batches of {}; a smaller train.batch learns more per epoch",
            rows.train,
            plan.config.train.batch
        );
    }
    if rows.validation == 0 {
        log::warn!(
            "no held-out events (split.validation): training runs to its last epoch, and no threshold is chosen unless split.calibration is given"
        );
    }
    if normal == Class::Hadron && !mode.is_ratio() {
        log::warn!(
            "hadrons as normal: gammas are inside the dense core of the hadron distribution, so the score of such a model \
             is usually at chance or inverted; train with gammas as normal, or with both classes"
        );
    }
    Ok(())
}

/// Adds the effect of the cuts to an error about too few events, if cuts removed any. All ranks
/// call it with the same counts.
fn explained(
    comm: &dyn Communicator,
    plan: &TrainingPlan,
    sources: &[Source],
    rows: &RowCounts,
    class: Class,
    error: Error,
) -> Error {
    if rows.cut + rows.not_finite + rows.out_of_domain == 0 {
        return error;
    }
    cut_flow::explain(comm, sources, &plan.selection, class, error)
}
