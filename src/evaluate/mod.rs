//! Evaluation of a model on labelled files: the loop from files to scores and labels;
//! what follows from those is in `statistics`.

mod baseline;
mod cuts;
mod importance;
mod known;
mod latent;
mod left_out;

use crate::comm::{Communicator, Work, gather_slots, is_root, mark_shared, sync_result, watch};
use crate::config::{Class, Hardware, Observation, Transform};
use crate::data::files::output_kind::OutputKind;
use crate::data::files::{list, stamp};
use crate::data::schema::features::ScaledFeature;
use crate::data::selection::split::{Part, Splitter};
use crate::data::selection::{NOT_FINITE, STATUS_BITS, Selection};
use crate::data::table::{Block, InputFile, Request, Table};
use crate::dataset::catalog::{self, Catalog};
use crate::dataset::classes;
use crate::dataset::duplicates;
use crate::dataset::event_store::{class_of, names_of, part};
use crate::dataset::roles;
use crate::dataset::sketch::{SketchShape, Sketches};
use crate::dataset::source::Source;
use crate::dataset::values;
use crate::engine::{self, RankResources, Scored, Scorer};
use crate::error::{Error, Fault, Result};
use crate::model::{Card, DataFile, Model};
use crate::statistics::comparison::baseline::Baseline;
use crate::statistics::evaluation::{FORMAT, Importance};
use crate::statistics::{
    About, Auc, Bounds, ClassCounts, CutEvent, CutsBaseline, Evaluation, EventWeights, FileCounts,
    LikenessTally, ParameterHistogram, Rule, Sample, Threshold, WeightSum, parameters,
};
use crate::storage;
use baseline::Forest;
use cuts::Cuts;
use importance::FeatureValues;
use known::Known;
use latent::LatentSample;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// Rows read at a time; window w of a file belongs to rank w mod ranks.
const WINDOW: u64 = 65_536;
pub const EVALUATION: &str = "evaluation.json";

/// Which part of the split is evaluated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EvaluatedParts {
    /// The test part of files the model was trained on, all of others.
    Default,
    Only(Part),
    All,
}

/// What to evaluate, and how.
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
    /// Whether to measure the reliance on each feature, which takes as many scorings more.
    pub importance: bool,
    /// Files to grow a random forest from, which is then measured beside the model.
    pub baseline: Vec<PathBuf>,
    /// Whether data unlike those of the training are refused.
    pub strict: bool,
    /// Whether standard cuts are applied to the same events.
    pub baseline_cuts: bool,
    /// Rates and time to expect significances for, in place of the model's own.
    pub observation: Option<Observation>,
    /// How long a rank may be missing before the job is ended; for ever if absent.
    pub watchdog: Option<Duration>,
}

/// Scores all files and writes `evaluation.json`; every rank gets the evaluation.
pub fn run(comm: &dyn Communicator, options: &Options) -> Result<Evaluation> {
    let path = options.output.join(EVALUATION);
    let kind = OutputKind::Json(FORMAT);
    sync_result(comm, kind.refuse_existing(&path, options.overwrite))?;
    let root = is_root(comm);
    let made = root.then(|| storage::outermost_missing(&options.output)).flatten();
    let outcome = watched(comm, options);
    // What is refused leaves nothing behind.
    if let (Err(_), Some(outermost)) = (&outcome, &made) {
        storage::remove_if_empty(&options.output, outermost);
    }
    outcome
}

fn watched(comm: &dyn Communicator, options: &Options) -> Result<Evaluation> {
    let folder = is_root(comm).then_some(options.output.as_path());
    sync_result(comm, folder.map_or(Ok(()), storage::create_folder))?;
    let comm: &dyn Communicator = &watch(comm, folder, options.watchdog)?;
    let (model, hash) = sync_result(comm, Model::load(&options.model))?;
    let place = RankResources::new(comm, options.hardware)?;
    engine::use_threads(place.threads);
    let weight = options.weight.clone().or(model.card.training.weight.clone());
    let weight = weight.filter(|text| text.trim() != "1");
    let scorer = Scorer::new(model.clone(), &place).and_then(|s| s.weighted(weight.as_deref()));
    let (sources, lacking) = sources(comm, options, &model.card)?;
    catalog::refuse_copies(comm, &sources)?;
    let thresholds = model.card.thresholds.as_ref().filter(|_| lacking.is_none());
    let scorer = match thresholds {
        Some(bins) => scorer.and_then(|s| s.binned(&bins.per, &bins.edges)),
        None => scorer,
    };
    let scorer = sync_result(comm, scorer)?;
    let duplicates = duplicates::find(comm, &sources)?;
    let implausible = values::find(comm, &sources, scorer.selection())?;
    let first_implausible = implausible.first().map(|first| first.refusal(&sources[first.file]));
    let implausible: Vec<String> = implausible.iter().map(|found| found.line(&sources)).collect();
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
    let rows = sources.iter().map(|source| source.rows).sum();
    let mut events = EvaluatedEvents::new(pool.features());
    events.contents = Some([(); 2].map(|()| Sketches::new(SketchShape::new(rows))));
    let (mut files, mut unlabelled) = (Vec::new(), Vec::new());
    for (number, (source, known)) in sources.iter().zip(&known).enumerate() {
        let place = (number as u64, source, known);
        files.push(evaluate_file(comm, &scorer, &more, place, &mut events, &mut unlabelled)?);
    }
    let copies = events.copies(comm)?;
    let parts: Vec<EvaluatedParts> = known.iter().map(|known| known.parts).collect();
    let all = events.gather(comm, scorer.card.features.len())?;
    mark_shared(all.refuse_weights(weight.as_deref()))?;
    let unlike = all.likeness_warnings(&bounds);
    if let (Some(first), true) = (unlike.first(), options.strict) {
        return mark_shared(Err(refused_as_unlike(first)));
    }
    if let (Some(error), true) = (first_implausible, options.strict) {
        return mark_shared(Err(error));
    }
    let latent = all.choice.latent(&scorer.card, &model);
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
    let baseline = forest.map(|forest| all.baseline(&forest, about.weights.is_some()));
    let baseline = mark_shared(baseline.transpose())?;
    let baseline_cuts =
        cuts.map(|cuts| CutsBaseline::of(cuts::NAME, &cuts.text(), all.of_cuts.clone()));
    let baseline_cuts = mark_shared(baseline_cuts.transpose())?.flatten();
    let evaluation = mark_shared(all.evaluate(&scorer.card, about, lacking.is_none()))?;
    let mut evaluation =
        evaluation.with_latent(latent).with_baseline(baseline).with_baseline_cuts(baseline_cuts);
    if let Some(lacking) = lacking {
        evaluation = evaluation.with_warning(lacking);
    }
    let duplicates =
        duplicates.map(|fault| format!("{fault}. The errors of all figures are too small."));
    let recognised = known.into_iter().filter_map(|known| known.warning);
    let of_values = left_out::warnings(&evaluation).into_iter().chain(unlabelled);
    // Copies that duplicate keys have named are not named again.
    let copies = if duplicates.is_none() { copies } else { Vec::new() };
    let of_events = duplicates.into_iter().chain(copies).chain(recognised).chain(unlike);
    for warning in of_values.chain(implausible).chain(of_events) {
        evaluation = evaluation.with_warning(warning);
    }
    let written = if is_root(comm) { write(options, &evaluation) } else { Ok(()) };
    sync_result(comm, written)?;
    Ok(evaluation)
}

/// What is computed of the evaluated events beside the model's scores.
struct MeasureContext<'a> {
    pool: &'a FeatureValues,
    forest: Option<&'a Forest>,
    /// What gammas and hadrons are compared with, where the model describes its training.
    bounds: &'a [Option<Bounds>; 2],
    cuts: Option<&'a Cuts>,
}

/// The forest to measure beside the model, where it was asked for.
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

/// Scores and labels of the events that are evaluated.
#[derive(Debug, Default)]
struct EvaluatedEvents {
    score: Vec<f32>,
    log_prob: Vec<f32>,
    gammaness: Vec<f32>,    // NaN where the model is not calibrated
    of_forest: Vec<f32>,    // empty where there is none
    of_cuts: Vec<CutEvent>, // all triggered events; empty where no cuts are asked for
    without: Vec<Vec<f32>>, // (features)(events): scores without a feature, where asked for
    gamma: Vec<bool>,
    bin: Vec<u16>,        // of the thresholds, where the model has them by bins
    weight: Vec<f64>,     // as given; 1 where events have none
    choice: LatentSample, // of whose latent points is told
    /// (features, classes, bins): how often a scaled feature is where.
    parameters: Vec<i64>,
    before_cuts: ClassCounts,
    /// Gammas and hadrons compared with those of the training.
    likeness: [LikenessTally; 2],
    /// Gammas and hadrons before the cuts, of all ranks.
    before_weights: [Weighed; 2],
    /// Names of the features of the rows of gammas and hadrons.
    contents: Option<[Sketches; 2]>,
}

/// Bytes of a [`CutEvent`] that travels between ranks.
const CUT_EVENT: usize = 13;

fn cut_event_bytes(event: &CutEvent) -> [u8; CUT_EVENT] {
    let mut bytes = [0; CUT_EVENT];
    bytes[0] = u8::from(event.gamma) | u8::from(event.passes) << 1;
    bytes[1..5].copy_from_slice(&event.score.to_le_bytes());
    bytes[5..].copy_from_slice(&event.weight.to_le_bytes());
    bytes
}

fn cut_event(bytes: &[u8; CUT_EVENT]) -> CutEvent {
    let [flags, a, b, c, d, weight @ ..] = *bytes;
    CutEvent {
        gamma: flags & 1 != 0,
        passes: flags & 2 != 0,
        score: f32::from_le_bytes([a, b, c, d]),
        weight: f64::from_le_bytes(weight),
    }
}

/// Weights of events of a class, in sums that do not depend on the ranks.
#[derive(Debug, Clone, Copy, Default)]
struct Weighed {
    sum: WeightSum,
    /// Events whose weight cannot be known, as a quantity in it is not finite.
    unknown: u64,
}

impl Weighed {
    /// Words that travel between ranks, per window and class.
    const WORDS: usize = 4;

    fn add(&mut self, weight: Option<f64>) {
        match weight {
            Some(weight) => self.sum = self.sum.with(weight),
            None => self.unknown += 1,
        }
    }

    fn words(self) -> [f64; Weighed::WORDS] {
        let WeightSum { events, weight, squares } = self.sum;
        [events as f64, weight, squares, self.unknown as f64]
    }

    fn add_words(&mut self, words: &[f64]) {
        let [events, weight, squares, unknown] = [0, 1, 2, 3].map(|i| words[i]);
        self.sum = self.sum.plus(WeightSum { events: events as u64, weight, squares });
        self.unknown += unknown as u64;
    }

    /// Those of unknown weight count as the mean one.
    fn all(self) -> WeightSum {
        let mean = self.sum.weight / self.sum.events.max(1) as f64;
        let unknown = WeightSum::of(self.unknown).scaled(mean);
        self.sum.plus(unknown)
    }
}

impl EvaluatedEvents {
    fn new(features: usize) -> EvaluatedEvents {
        EvaluatedEvents { without: vec![Vec::new(); features], ..EvaluatedEvents::default() }
    }

    /// All ranks' events on every rank; their order depends on the ranks, and nothing
    /// in an evaluation on their order.
    fn gather(self, comm: &dyn Communicator, features: usize) -> Result<EvaluatedEvents> {
        let mut all = EvaluatedEvents::new(self.without.len());
        all.before_weights = self.before_weights;
        let mut counts = [self.before_cuts.gamma as i64, self.before_cuts.hadron as i64];
        comm.all_reduce_sum(&mut counts)?;
        all.before_cuts = ClassCounts { gamma: counts[0] as u64, hadron: counts[1] as u64 };
        for (mine, all) in [(&self.score, &mut all.score), (&self.log_prob, &mut all.log_prob)]
            .into_iter()
            .chain([(&self.gammaness, &mut all.gammaness)])
            .chain([(&self.of_forest, &mut all.of_forest)])
            .chain(self.without.iter().zip(&mut all.without))
        {
            let bytes: Vec<u8> = mine.iter().flat_map(|x| x.to_le_bytes()).collect();
            for of_rank in comm.all_gather(&bytes)? {
                all.extend(of_rank.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)));
            }
        }
        let mine: Vec<u8> = self.gamma.iter().map(|gamma| u8::from(*gamma)).collect();
        all.gamma = comm.all_gather(&mine)?.concat().iter().map(|gamma| *gamma == 1).collect();
        let bytes: Vec<u8> = self.bin.iter().flat_map(|b| b.to_le_bytes()).collect();
        for of_rank in comm.all_gather(&bytes)? {
            all.bin.extend(of_rank.as_chunks::<2>().0.iter().map(|b| u16::from_le_bytes(*b)));
        }
        let bytes: Vec<u8> = self.weight.iter().flat_map(|w| w.to_le_bytes()).collect();
        for of_rank in comm.all_gather(&bytes)? {
            all.weight.extend(of_rank.as_chunks::<8>().0.iter().map(|b| f64::from_le_bytes(*b)));
        }
        let bytes: Vec<u8> = self.of_cuts.iter().flat_map(cut_event_bytes).collect();
        for of_rank in comm.all_gather(&bytes)? {
            all.of_cuts.extend(of_rank.as_chunks::<CUT_EVENT>().0.iter().map(cut_event));
        }
        all.choice = self.choice.gather(comm, features)?;
        all.parameters = self.parameters;
        all.parameters.resize(features * 2 * parameters::BINS, 0);
        comm.all_reduce_sum(&mut all.parameters)?;
        for (all, mine) in all.likeness.iter_mut().zip(&self.likeness) {
            let mut words = mine.words(features);
            comm.all_reduce_sum(&mut words)?;
            *all = LikenessTally::from_words(&words);
        }
        Ok(all)
    }

    /// Returns warnings of rows with the features of another row: copies under other keys, or
    /// events given as gammas and as hadrons. A collective.
    fn copies(&self, comm: &dyn Communicator) -> Result<Vec<String>> {
        let Some([gammas, hadrons]) = &self.contents else { return Ok(Vec::new()) };
        let none = Sketches::new(gammas.contents.shape);
        let mut found = Vec::new();
        for (before, of_class) in [(&none, gammas), (gammas, hadrons)] {
            match classes::refuse_shared(comm, before, of_class) {
                Ok(repeated) => found.extend(repeated),
                Err(Error::Input(fault)) => found.push(format!("{fault}.")),
                Err(other) => return Err(other),
            }
        }
        Ok(found
            .into_iter()
            .map(|text| format!("{text} The errors of all figures are too small."))
            .collect())
    }

    /// How the events of each class differ from those of the training, where they do.
    fn likeness_warnings(&self, bounds: &[Option<Bounds>; 2]) -> Vec<String> {
        let names = [Class::Gamma, Class::Hadron];
        let each = names.iter().zip(&self.likeness).zip(bounds);
        let found = each.filter_map(|((class, tally), bounds)| {
            Some(format!("{class}s: {}", tally.describe(bounds.as_ref()?)?))
        });
        found.collect()
    }

    fn count_parameters(&mut self, card: &Card, scaled: &[f32], gamma: bool) {
        self.parameters.resize(scaled.len() * 2 * parameters::BINS, 0);
        for (d, (z, feature)) in scaled.iter().zip(&card.features).enumerate() {
            let signed = feature.feature.transform == Transform::Signed;
            let first = (2 * d + usize::from(!gamma)) * parameters::BINS;
            self.parameters[first + parameters::bin_of(*z, signed)] += 1;
        }
    }

    fn parameters(&self, card: &Card) -> Vec<ParameterHistogram> {
        let counts = |class: usize| -> Vec<u64> {
            let bins = &self.parameters[class * parameters::BINS..][..parameters::BINS];
            bins.iter().map(|count| *count as u64).collect()
        };
        let of = |(d, feature): (usize, &ScaledFeature)| {
            let signed = feature.feature.transform == Transform::Signed;
            let edge = |i| {
                let z = parameters::edge(i, signed);
                // No value has a coordinate below 0: there the inverse means nothing.
                let is_power = feature.feature.transform == Transform::Power;
                let z = if is_power { z.max(-feature.mean / feature.std) } else { z };
                feature.quantity(z as f32).max(if is_power { 0.0 } else { f64::MIN })
            };
            ParameterHistogram {
                name: feature.feature.name.clone(),
                unit: feature.unit.clone(),
                edges: (0..=parameters::BINS).map(edge).collect(),
                gamma: counts(2 * d),
                hadron: counts(2 * d + 1),
            }
        };
        let features = card.features.iter().enumerate().map(of);
        // JSON has no infinity: a coordinate may lie where no value of the parameter does.
        features.filter(|f| f.edges.iter().all(|edge| edge.is_finite())).collect()
    }

    /// Refuses an expression that gives all events of a class the weight 0.
    fn refuse_weights(&self, expression: Option<&str>) -> Result<()> {
        let Some(expression) = expression else { return Ok(()) };
        for class in [Class::Gamma, Class::Hadron] {
            let own = self.gamma.iter().zip(&self.weight);
            let own = own.filter(|(gamma, _)| **gamma == (class == Class::Gamma));
            let sum = own.fold(WeightSum::default(), |sum, (_, weight)| sum.with(*weight));
            if sum.events > 0 && sum.weight <= 0.0 {
                return Err(Fault::new(format!("all weights of the {class}s are 0"))
                    .expected("a weight that gives some events of each class a number above 0")
                    .found(format!("{expression}, 0 for {} events", sum.events))
                    .advice(
                        "--weight gives another expression, --weight 1 evaluates without weights",
                    )
                    .input());
            }
        }
        Ok(())
    }

    fn weights_before_cuts(&self, expression: String) -> EventWeights {
        let [gamma_before_cuts, hadron_before_cuts] = self.before_weights.map(Weighed::all);
        EventWeights { expression, gamma_before_cuts, hadron_before_cuts }
    }

    fn baseline(&self, forest: &Forest, weighted: bool) -> Result<Baseline> {
        let name = format!("random forest of {} trees", forest.trees);
        let scores = [self.of_forest.as_slice(), &self.score];
        let weights = weighted.then_some(self.weight.as_slice());
        Baseline::of(name, forest.events, scores, &self.gamma, weights)
    }

    fn evaluate(&self, card: &Card, about: About, binned: bool) -> Result<Evaluation> {
        let weights = about.weights.is_some().then_some(self.weight.as_slice());
        let sample = Sample::weighted(&self.score, &self.gamma, weights)?;
        let threshold = match card.threshold {
            Some(threshold) => threshold,
            None => fallback_threshold(&sample, card)?,
        };
        let mut importance = Vec::new();
        for (feature, scores) in card.features.iter().zip(&self.without) {
            let auc_without = Auc::of(&Sample::weighted(scores, &self.gamma, weights)?);
            let feature = feature.feature.name.clone();
            importance.extend(auc_without.map(|auc_without| Importance { feature, auc_without }));
        }
        let mut evaluation =
            Evaluation::new(about, &sample, threshold)?.with_importance(importance);
        if let Some(normal) = card.normal {
            let of_normal = |gamma: &bool| *gamma == (normal == Class::Gamma);
            let own = |i: &usize| of_normal(&self.gamma[*i]);
            let own: Vec<usize> = (0..self.gamma.len()).filter(own).collect();
            let log_prob: Vec<f32> = own.iter().map(|i| self.log_prob[*i]).collect();
            let weights = weights.map(|w| own.iter().map(|i| w[*i]).collect::<Vec<f64>>());
            evaluation = evaluation.with_normal_log_p(&log_prob, weights.as_deref());
        }
        if let Some(thresholds) = card.thresholds.as_ref().filter(|_| binned) {
            evaluation =
                evaluation.with_bins(thresholds, &self.score, &self.gamma, &self.bin, weights)?;
        }
        evaluation = evaluation.with_parameters(self.parameters(card));
        if card.score_text() != "log p" {
            let log_p = Sample::weighted(&self.log_prob, &self.gamma, weights)?;
            let flow = card.flows_in_order().next().map_or("", |(name, _)| name.as_str());
            evaluation = evaluation.with_log_likelihood(flow, &log_p);
        }
        if let Some(calibration) = &card.calibration {
            evaluation = evaluation
                .with_gammaness(&self.gammaness, &self.gamma, weights)
                .with_posterior(calibration, &self.score, &self.gamma, weights);
        }
        let compared = card.training.off_source.as_ref().and_then(|off| off.comparison.as_ref());
        if let Some(comparison) = compared.filter(|c| c.differs()) {
            evaluation = evaluation.with_warning(comparison.warning());
        }
        if let Some(caveat) = card.mode.caveat() {
            evaluation = evaluation.with_warning(caveat);
        }
        if card.threshold.is_none() {
            evaluation = evaluation.with_warning(
                "The model has no threshold (it was trained without held-out events): it was chosen on the evaluated events.",
            );
        }
        Ok(evaluation)
    }
}

fn refused_as_unlike(text: &str) -> Error {
    Fault::new("the events are unlike those that the model was trained on")
        .found(text)
        .advice("look at units, telescope and processing; without --strict this is a warning")
        .input()
}

/// The observation that the threshold of a model was chosen for.
fn observation_of(card: &Card) -> Option<Observation> {
    match card.threshold?.rule {
        Rule::Significance(observation) => Some(observation),
        _ => None,
    }
}

fn fallback_threshold(sample: &Sample, card: &Card) -> Result<Threshold> {
    Rule::two_sigma(card.normal.unwrap_or(Class::Gamma)).choose(sample)
}

/// Returns the part of all files, or how many files each part is taken of.
fn parts_text(parts: &[EvaluatedParts]) -> String {
    let mut files: BTreeMap<&str, usize> = BTreeMap::new();
    parts.iter().for_each(|part| *files.entry(part.name()).or_default() += 1);
    let of = |(name, files): (&&str, &usize)| format!("'{name}' of {files} file(s)");
    match files.len() {
        1 => files.keys().map(|name| (*name).to_string()).collect(),
        _ => files.iter().map(of).collect::<Vec<_>>().join(", "),
    }
}

impl EvaluatedParts {
    pub fn name(self) -> &'static str {
        match self {
            EvaluatedParts::Default => "default",
            EvaluatedParts::All => "all",
            EvaluatedParts::Only(Part::Train) => "train",
            EvaluatedParts::Only(Part::Validation) => "validation",
            EvaluatedParts::Only(Part::Calibration) => "calibration",
            EvaluatedParts::Only(Part::Test) => "test",
        }
    }
}

/// The files with their roles. A file given as of one class that has a class column is
/// filtered by it.
/// The files, and why the model's thresholds by bins are left out, if they are: one lacks a
/// quantity that bins are made of.
fn sources(
    comm: &dyn Communicator,
    options: &Options,
    card: &Card,
) -> Result<(Vec<Source>, Option<String>)> {
    let roles: [catalog::Role; 3] = [
        (&options.files, None),
        (&options.gamma, Some(Class::Gamma)),
        (&options.hadron, Some(Class::Hadron)),
    ];
    let lists: [(&str, &[PathBuf]); 3] =
        [("FILES", &options.files), ("--gamma", &options.gamma), ("--hadron", &options.hadron)];
    sync_result(comm, if is_root(comm) { list::refuse_shared(&lists) } else { Ok(()) })?;
    let per = card.thresholds.as_ref().map_or("", |thresholds| &thresholds.per);
    let mut bins = Selection::new(&[], &BTreeMap::new())?;
    if card.thresholds.is_some() {
        bins = bins.with_bins(per, &[])?;
    }
    let look = |_: &Source, file: &mut InputFile| {
        let known = file.table().quantities();
        let mut needed = bins.quantities().iter();
        let lacking = needed.find(|name| !known.contains(&name.as_str()));
        Ok(lacking.cloned().unwrap_or_default())
    };
    let Catalog { sources, said } =
        catalog::catalogue(comm, &roles, options.schema.as_deref(), &look)?;
    if sources.is_empty() {
        return mark_shared(Err(Fault::new("no files to evaluate")
            .advice("give files, --gamma or --hadron")
            .usage()));
    }
    let lacking = said.iter().find(|(_, name)| !name.is_empty()).map(|(file, name)| {
        let path = sources[*file].path.display();
        format!("Thresholds per {per} are left out: {path} has no {name}.")
    });
    Ok((sources, lacking))
}

fn evaluate_file(
    comm: &dyn Communicator,
    scorer: &Scorer,
    more: &MeasureContext,
    (number, source, known): (u64, &Source, &Known),
    events: &mut EvaluatedEvents,
    warnings: &mut Vec<String>,
) -> Result<FileCounts> {
    let mut slots = vec![None; source.rows.div_ceil(WINDOW) as usize * 2 * Weighed::WORDS];
    let place = (number, source, known);
    let outcome = score_windows(comm, scorer, more, place, events, &mut slots);
    let tally = sync_result(comm, outcome)?.reduce(comm)?;
    for words in gather_slots(comm, &slots)?.chunks_exact(2 * Weighed::WORDS) {
        let classes = words.chunks_exact(Weighed::WORDS);
        events.before_weights.iter_mut().zip(classes).for_each(|(of, words)| of.add_words(words));
    }
    if source.class.is_some() && tally.other_class == source.rows {
        let advice = "the files are swapped: exchange --gamma and --hadron";
        return mark_shared(Err(roles::swapped(source, tally.other_class, advice)));
    }
    let names = STATUS_BITS.iter().map(|(_, name)| (*name).to_string());
    let mut left_out: BTreeMap<String, ClassCounts> = names.zip(tally.status).collect();
    left_out.retain(|_, of| *of != ClassCounts::default());
    let mut unusable: BTreeMap<String, u64> =
        left_out.iter().map(|(name, of)| (name.clone(), of.gamma + of.hadron)).collect();
    unusable.insert("of another class".to_string(), tally.other_class);
    unusable.insert("of unknown class".to_string(), tally.no_class);
    unusable.insert("of another part".to_string(), tally.other_part);
    unusable.insert("of a run the model was trained on".to_string(), tally.used_run);
    unusable.retain(|_, n| *n > 0);
    let path = source.path.display().to_string();
    if let (Some(class), true) = (source.class, tally.unlabelled > 0) {
        let text = roles::unlabelled(tally.unlabelled, source.rows, class);
        warnings.push(format!("{path}: {text}."));
    }
    Ok(FileCounts { path, gamma: tally.gamma, hadron: tally.hadron, unusable, left_out })
}

/// Rows of one file by what became of them.
#[derive(Debug, Clone, Default)]
struct RowTally {
    gamma: u64,
    hadron: u64,
    other_class: u64,
    /// Rows without a class of their own, in a file without one.
    no_class: u64,
    other_part: u64,
    used_run: u64,
    /// Rows without a class of their own that count as the file's.
    unlabelled: u64,
    status: [ClassCounts; STATUS_BITS.len()],
}

impl RowTally {
    /// Counts a row whose class, by the column of its file, is not evaluated.
    fn leave_out(&mut self, class: Option<i8>) {
        let is_known = class.is_some_and(|class| class >= 0);
        *(if is_known { &mut self.other_class } else { &mut self.no_class }) += 1;
    }

    fn reduce(self, comm: &dyn Communicator) -> Result<RowTally> {
        let RowTally { gamma, hadron, other_class, no_class, other_part, .. } = self;
        let RowTally { used_run, unlabelled, status, .. } = self;
        let counts = [gamma, hadron, other_class, no_class, other_part, used_run, unlabelled];
        let mut sums = counts.to_vec();
        sums.extend(status.iter().flat_map(|of| [of.gamma, of.hadron]));
        let mut sums: Vec<i64> = sums.into_iter().map(|n| n as i64).collect();
        comm.all_reduce_sum(&mut sums)?;
        let mut status = [ClassCounts::default(); STATUS_BITS.len()];
        for (of, [gamma, hadron]) in status.iter_mut().zip(sums[counts.len()..].as_chunks::<2>().0)
        {
            *of = ClassCounts { gamma: *gamma as u64, hadron: *hadron as u64 };
        }
        let [gamma, hadron, other_class, no_class, other_part, used_run, unlabelled] =
            std::array::from_fn(|i| sums[i] as u64);
        let unknown =
            RowTally { other_class, no_class, other_part, used_run, ..RowTally::default() };
        Ok(RowTally { gamma, hadron, unlabelled, status, ..unknown })
    }
}

/// Scores this rank's windows of a file; `slots` take what the events of each weigh
/// (windows, classes, words).
fn score_windows(
    comm: &dyn Communicator,
    scorer: &Scorer,
    more: &MeasureContext,
    (number, source, known): (u64, &Source, &Known),
    events: &mut EvaluatedEvents,
    slots: &mut [Option<f64>],
) -> Result<RowTally> {
    let table = Table::open(&source.path, &source.schema)?;
    scorer.check_units(&table)?;
    refuse_unknown_weight(scorer, &table)?;
    let split = &scorer.card.split;
    let off = scorer.card.training.off_source.as_ref();
    let off = off.filter(|off| table.key_names().contains(&off.run.as_str()));
    let mut keys = split.key.clone().unwrap_or_default();
    keys.extend(off.map(|off| off.run.clone()));
    // What only the standard cuts read follows what the model reads.
    let mut quantities = scorer.selection().quantities().to_vec();
    let cut_columns: Vec<usize> = more.cuts.map_or(Vec::new(), |cuts| {
        cuts.quantities().iter().map(|name| column_of(&mut quantities, name)).collect()
    });
    let mut reader = table.reader(&Request {
        quantities,
        keys,
        shower: split.key.is_none(),
        class: table.has_class(),
    })?;
    let parts = known.parts;
    // Anomalies from a file are split as the normal events that they are made of.
    let as_trained = known.file.and_then(|file| file.class).map(Class::code);
    let splitter = Splitter::new(split);
    let (mut block, mut scored, mut tally) =
        (Block::default(), Scored::default(), RowTally::default());
    let windows = source.rows.div_ceil(WINDOW);
    for window in (0..windows).filter(|w| w % comm.size() as u64 == comm.rank() as u64) {
        let start = window * WINDOW;
        comm.progress(Work::Scoring, start);
        reader.read(start..(start + WINDOW).min(source.rows), &mut block)?;
        let runs = off.and_then(|_| block.keys.pop());
        scorer.score(&block, &mut scored)?;
        let mut taken = Vec::new();
        let mut weighed = [Weighed::default(); 2];
        for row in 0..block.rows {
            let of_file = block.class.as_ref().map(|c| c[row]);
            let Some(class) = class_of(source, &block, row)
                .filter(|c| *c >= 0 && of_file.is_none_or(|f| f == *c || is_unknown(source, f)))
            else {
                tally.leave_out(of_file);
                continue;
            };
            let keyed = split.key.is_some();
            let real = off.zip(runs.as_ref()).filter(|_| class == Class::Hadron.code());
            if real.is_some_and(|(off, runs)| off.has_used(runs[row])) {
                tally.used_run += 1;
                continue;
            }
            // Of real hadrons the runs that were never used are the test part.
            let own_part = || {
                if real.is_some() {
                    return Part::Test;
                }
                let class = as_trained.unwrap_or(class);
                part(&splitter, scorer.selection(), &block, row, class, keyed)
            };
            if let EvaluatedParts::Only(wanted) = parts
                && own_part() != wanted
            {
                tally.other_part += 1;
                continue;
            }
            tally.unlabelled += u64::from(of_file.is_some_and(|of| is_unknown(source, of)));
            let gamma = class == Class::Gamma.code();
            let weight = match scorer.selection().weight(&block, row) {
                Ok(weight) => Some(weight),
                // What it is made of is not known.
                Err(_) if scored.status[row] & NOT_FINITE != 0 => None,
                Err(error) => return Err(error.in_file(&source.path)),
            };
            weighed[usize::from(!gamma)].add(weight);
            let weight = weight.unwrap_or(f64::NAN);
            if let Some(cuts) = more.cuts {
                let value = |i: usize| f64::from(block.quantities[cut_columns[i]][row]);
                let passes = cuts.passes(value);
                let score = if scored.status[row] == 0 { scored.score[row] } else { f32::NAN };
                events.of_cuts.push(CutEvent { gamma, passes, score, weight });
            }
            if take(&scored, row, gamma, weight, events, &mut tally) {
                if scorer.selection().has_bins() {
                    let value = |column: usize| f64::from(block.quantities[column][row]);
                    events.bin.push(scorer.selection().bin(value));
                }
                events.count_parameters(&scorer.card, scored.scaled(row), gamma);
                let class = if gamma { Class::Gamma } else { Class::Hadron };
                let place = [number, start + row as u64];
                events.choice.consider(class, place, weight, scored.scaled(row));
                let of_class = usize::from(!gamma);
                if let Some(contents) = &mut events.contents {
                    let code = class.code();
                    let names = names_of(scorer.selection(), &block, row, code, false);
                    contents[of_class].contents.insert(names.content);
                }
                if let Some(bounds) = &more.bounds[of_class] {
                    let log_prob = scored.log_prob.iter().map(|flow| flow[row]);
                    events.likeness[of_class].add(bounds, scored.scaled(row), log_prob);
                }
                taken.push(row);
            }
        }
        let words = weighed.into_iter().flat_map(Weighed::words).map(Some);
        let of_window = &mut slots[window as usize * 2 * Weighed::WORDS..];
        of_window.iter_mut().zip(words).for_each(|(slot, word)| *slot = word);
        if let Some(forest) = more.forest {
            forest.scores(&scored, &taken, &mut events.of_forest)?;
        }
        more.pool.scores(scorer, &mut block, &taken, [number, start], &mut events.without)?;
    }
    Ok(tally)
}

/// Place of a quantity in a list, at its end if it was not there.
fn column_of(quantities: &mut Vec<String>, name: &str) -> usize {
    quantities.iter().position(|known| known == name).unwrap_or_else(|| {
        quantities.push(name.to_string());
        quantities.len() - 1
    })
}

/// Whether the class of a row is the one that its file was given as: experimental files say
/// of no event what it was.
fn is_unknown(source: &Source, class: i8) -> bool {
    class < 0 && source.class.is_some()
}

/// Counts an event by what became of it; tells whether it is evaluated.
fn take(
    scored: &Scored,
    row: usize,
    gamma: bool,
    weight: f64,
    events: &mut EvaluatedEvents,
    tally: &mut RowTally,
) -> bool {
    let before = &mut events.before_cuts;
    *(if gamma { &mut before.gamma } else { &mut before.hadron }) += 1;
    if scored.status[row] != 0 {
        for (of, (bit, _)) in tally.status.iter_mut().zip(STATUS_BITS) {
            let count = if gamma { &mut of.gamma } else { &mut of.hadron };
            *count += u64::from(scored.status[row] & bit != 0);
        }
        return false;
    }
    *(if gamma { &mut tally.gamma } else { &mut tally.hadron }) += 1;
    events.score.push(scored.score[row]);
    events.log_prob.push(scored.log_prob[0][row]);
    events.gammaness.push(scored.gammaness.get(row).copied().unwrap_or(f32::NAN));
    events.gamma.push(gamma);
    events.weight.push(weight);
    true
}

/// Refuses a file that lacks what the weight of an event is made of.
fn refuse_unknown_weight(scorer: &Scorer, table: &Table) -> Result<()> {
    let known = table.quantities();
    match scorer.selection().weight_quantities().find(|name| !known.contains(name)) {
        None => Ok(()),
        Some(name) => Err(Fault::new("the weight of an event needs a quantity that is not there")
            .file(table.path())
            .column(name)
            .expected(known.join(", "))
            .advice("--weight gives another expression, --weight 1 evaluates without weights")
            .input()),
    }
}

/// What of a file is evaluated.
fn parts_of(trained: Option<&DataFile>, asked: EvaluatedParts) -> EvaluatedParts {
    match asked {
        EvaluatedParts::Default if trained.is_some() => EvaluatedParts::Only(Part::Test),
        EvaluatedParts::Default => EvaluatedParts::All,
        chosen => chosen,
    }
}

/// The file among those that the model was trained on.
fn trained_as<'c>(card: &'c Card, source: &Source) -> Result<Option<&'c DataFile>> {
    if !card.training.data.iter().any(|f| f.rows == source.rows) {
        return Ok(None);
    }
    let hash = stamp::hash_text(&stamp::hash_file(&source.path)?);
    Ok(card.training.data.iter().find(|f| f.blake3 == hash))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_that_differ_are_told_with_their_files() {
        let (all, test) = (EvaluatedParts::All, EvaluatedParts::Only(Part::Test));
        assert_eq!(parts_text(&[test, test]), "test");
        assert_eq!(parts_text(&[all, test, all]), "'all' of 2 file(s), 'test' of 1 file(s)");
    }
}
