//! Evaluates a model on labelled files. `statistics` computes the results from scores and classes.

mod baseline;
mod cuts;
mod events;
mod file;
mod importance;
mod known;
mod latent;
mod left_out;
mod parts;
mod results;
mod sources;
mod warnings;

pub use parts::EvaluatedParts;

use crate::comm::{Communicator, is_root, mark_shared, sync_result, watch};
use crate::config::{Class, Hardware, Observation};
use crate::data::files::output_kind::OutputKind;
use crate::dataset::catalog;
use crate::dataset::source::Source;
use crate::engine::{self, RankResources, Scorer};
use crate::error::{Fault, Result};
use crate::model::{Card, Model};
use crate::statistics::evaluation::FORMAT;
use crate::statistics::latent::LatentPoints;
use crate::statistics::{About, CutsBaseline, Evaluation, Rule};
use crate::storage;
use baseline::Forest;
use cuts::Cuts;
use events::EvaluatedEvents;
use file::{MeasureContext, evaluate_file};
use importance::FeatureValues;
use known::Known;
use parts::parts_text;
use std::path::PathBuf;
use std::time::Duration;
use warnings::Warnings;

/// Rows read at a time; window w of a file belongs to rank w mod ranks.
const WINDOW: u64 = 65_536;
pub const EVALUATION: &str = "evaluation.json";

/// Settings of an evaluation.
#[derive(Debug, Clone)]
#[allow(clippy::struct_excessive_bools)] // independent flags of the command line
pub struct Options {
    pub model: PathBuf,
    /// Files with a class column.
    pub files: Vec<PathBuf>,
    pub gamma: Vec<PathBuf>,
    pub hadron: Vec<PathBuf>,
    pub schema: Option<String>,
    pub part: EvaluatedParts,
    pub output: PathBuf,
    pub overwrite: bool,
    pub hardware: Hardware,
    /// Weight of an event, in place of the one that the model was trained with.
    pub weight: Option<String>,
    /// Whether to measure the reliance on each feature, with one more scoring per feature.
    pub importance: bool,
    /// Files to grow a random forest from, which the model is compared with.
    pub baseline: Vec<PathBuf>,
    /// Whether data unlike those of the training are refused.
    pub strict: bool,
    /// Whether standard cuts are applied to the same events.
    pub baseline_cuts: bool,
    /// Rates and time to expect significances for, in place of the model's own.
    pub observation: Option<Observation>,
    /// Time after which a missing rank ends the job; unlimited if absent.
    pub watchdog: Option<Duration>,
}

/// Scores all files and writes `evaluation.json`; every rank gets the evaluation.
pub fn run(comm: &dyn Communicator, options: &Options) -> Result<Evaluation> {
    let path = options.output.join(EVALUATION);
    let kind = OutputKind::Json(FORMAT);
    sync_result(comm, kind.refuse_existing(&path, options.overwrite))?;
    let root = is_root(comm);
    let made = root.then(|| storage::outermost_missing(&options.output)).flatten();
    let outcome = evaluate(comm, options);
    // A refused command leaves no folder behind.
    if let (Err(_), Some(outermost)) = (&outcome, &made) {
        storage::remove_if_empty(&options.output, outermost);
    }
    outcome
}

fn evaluate(comm: &dyn Communicator, options: &Options) -> Result<Evaluation> {
    let folder = is_root(comm).then_some(options.output.as_path());
    sync_result(comm, folder.map_or(Ok(()), storage::create_folder))?;
    let comm: &dyn Communicator = &watch(comm, folder, options.watchdog)?;
    let (model, hash) = sync_result(comm, Model::load(&options.model))?;
    let place = RankResources::new(comm, options.hardware)?;
    engine::use_threads(place.threads);
    let weight = options.weight.clone().or(model.card.training.weight.clone());
    let weight = weight.filter(|text| text.trim() != "1");
    let (sources, lacking) = sources::open(comm, options, &model.card)?;
    catalog::refuse_copies(comm, &sources)?;
    let scorer = scorer(&model, &place, weight.as_deref(), lacking.is_none());
    let scorer = sync_result(comm, scorer)?;
    let mut warnings = Warnings::of_files(comm, &sources, &scorer)?;
    let known = known::known(comm, &scorer, &model.sketches, &sources, options)?;
    let read = || FeatureValues::read(&scorer, &sources);
    let pool =
        sync_result(comm, options.importance.then(read).unwrap_or(Ok(FeatureValues::default())))?;
    let forest = sync_result(comm, forest(comm, &scorer, &sources, &known, options))?;
    let bounds = [Class::Gamma, Class::Hadron].map(|class| scorer.bounds(Some(class)));
    let cuts = options.baseline_cuts.then(|| Cuts::new(&sources)).transpose();
    let cuts = sync_result(comm, cuts)?;
    let (forest_of, cuts_of) = (forest.as_ref(), cuts.as_ref());
    let more = MeasureContext { pool: &pool, forest: forest_of, bounds: &bounds, cuts: cuts_of };
    let mut events = EvaluatedEvents::new(pool.features(), &sources);
    let mut files = Vec::new();
    for (number, (source, known)) in sources.iter().zip(&known).enumerate() {
        let place = (number as u64, source, known);
        let unlabelled = &mut warnings.unlabelled;
        files.push(evaluate_file(comm, &scorer, &more, place, &mut events, unlabelled)?);
    }
    warnings.copies = events.copies(comm)?;
    let parts: Vec<EvaluatedParts> = known.iter().map(|known| known.parts).collect();
    let all = events.gather(comm, scorer.card.features.len())?;
    mark_shared(all.refuse_weights(weight.as_deref()))?;
    warnings.unlike = all.likeness_warnings(&bounds);
    mark_shared(warnings.refuse_if_strict(options.strict))?;
    let about = About {
        model: hash,
        mode: scorer.card.mode_text(),
        normal: scorer.card.normal,
        score: scorer.card.score_text(),
        part: parts_text(&parts),
        files,
        before_cuts: Some(all.before_cuts),
        observation: options.observation.or_else(|| observation_of(&scorer.card)),
        weights: weight.map(|expression| all.weights_before_cuts(expression)),
        prior: scorer.card.calibration.as_ref().map_or(About::default().prior, |of| of.prior),
    };
    let compared = Comparisons { latent: all.choice.latent(&scorer.card, &model), forest, cuts };
    let evaluation = mark_shared(compared.evaluate(&all, &scorer.card, about, lacking.is_none()))?;
    warnings.recognised = known.into_iter().filter_map(|known| known.warning).collect();
    let evaluation = warnings.add_to(evaluation, lacking);
    let written = if is_root(comm) { write(options, &evaluation) } else { Ok(()) };
    sync_result(comm, written)?;
    Ok(evaluation)
}

/// Creates the scorer of a model; `has_bins` states whether the bins of its thresholds are used.
fn scorer(
    model: &Model,
    place: &RankResources,
    weight: Option<&str>,
    has_bins: bool,
) -> Result<Scorer> {
    let scorer = Scorer::new(model.clone(), place)?.weighted(weight)?;
    match model.card.thresholds.as_ref().filter(|_| has_bins) {
        Some(bins) => scorer.binned(&bins.per, &bins.edges),
        None => Ok(scorer),
    }
}

/// Classifiers and latent points that are shown with the results of the model.
struct Comparisons {
    latent: Vec<LatentPoints>,
    forest: Option<Forest>,
    cuts: Option<Cuts>,
}

impl Comparisons {
    /// Evaluates the model and the classifiers that it is compared with on the same events.
    fn evaluate(
        self,
        all: &EvaluatedEvents,
        card: &Card,
        about: About,
        has_bins: bool,
    ) -> Result<Evaluation> {
        let Comparisons { latent, forest, cuts } = self;
        let baseline = forest.map(|forest| all.baseline(&forest, about.weights.is_some()));
        let baseline = baseline.transpose()?;
        let of_cuts =
            cuts.map(|cuts| CutsBaseline::of(cuts::NAME, &cuts.text(), all.of_cuts.clone()));
        let of_cuts = of_cuts.transpose()?.flatten();
        let evaluation = all.evaluate(card, about, has_bins)?;
        Ok(evaluation.with_latent(latent).with_baseline(baseline).with_baseline_cuts(of_cuts))
    }
}

/// Grows the forest that the model is compared with, if requested.
fn forest(
    comm: &dyn Communicator,
    scorer: &Scorer,
    sources: &[Source],
    known: &[Known],
    options: &Options,
) -> Result<Option<Forest>> {
    if options.baseline.is_empty() {
        return Ok(None);
    }
    let own = catalog::sources(comm, &[(&options.baseline, None)], options.schema.as_deref())?;
    catalog::refuse_copies(comm, &own)?;
    let parts = known.iter().map(|known| known.parts);
    let evaluated: Vec<_> = sources.iter().zip(parts).collect();
    baseline::refuse_overlap(&own, &evaluated)?;
    Forest::grow(comm, scorer, &own).map(Some)
}

fn write(options: &Options, evaluation: &Evaluation) -> Result<()> {
    let json = serde_json::to_vec_pretty(evaluation)
        .map_err(|e| Fault::new("cannot write the evaluation").found(e).internal())?;
    storage::write_file(&options.output.join(EVALUATION), &json)
}

/// Returns the observation that the threshold of a model was chosen for.
fn observation_of(card: &Card) -> Option<Observation> {
    match card.threshold?.rule {
        Rule::Significance(observation) => Some(observation),
        _ => None,
    }
}
