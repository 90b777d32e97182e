//! Evaluation of a model on labelled files: the loop from files to scores and labels;
//! what follows from those is in `figures`.

mod importance;

use crate::config::{Class, Hardware};
use crate::data::catalog;
use crate::data::durable;
use crate::data::selection::STATUS_BITS;
use crate::data::split::{Part, Splitter};
use crate::data::store::{Source, class_of, part};
use crate::data::table::{Block, Request, Table};
use crate::engine::{self, Place, Scored, Scorer};
use crate::error::{Fault, Result};
use crate::figures::evaluation::Importance;
use crate::figures::{About, Auc, ClassCounts, Evaluation, FileCounts, Rule, Sample, Threshold};
use crate::model::{Card, Model};
use crate::world::{Work, World, agree, common, is_root, watch};
use importance::Pool;
use std::path::PathBuf;
use std::time::Duration;

/// Rows read at a time; window w of a file belongs to rank w mod ranks.
const WINDOW: u64 = 65_536;
pub const EVALUATION: &str = "evaluation.json";

/// Which part of the split is evaluated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parts {
    /// The test part of files the model was trained on, all of others.
    Default,
    Only(Part),
    All,
}

#[derive(Debug, Clone)]
pub struct Options {
    pub model: PathBuf,
    /// Files with a class column.
    pub files: Vec<PathBuf>,
    pub gamma: Vec<PathBuf>,
    pub hadron: Vec<PathBuf>,
    pub schema: Option<String>,
    pub part: Parts,
    pub output: PathBuf,
    pub overwrite: bool,
    pub hardware: Hardware,
    /// Whether to measure what each feature tells, which takes as many scorings more.
    pub importance: bool,
    /// How long a rank may be missing before the job is ended; for ever if absent.
    pub watchdog: Option<Duration>,
}

/// Scores all files and writes `evaluation.json`; every rank gets the evaluation.
pub fn run(world: &dyn World, options: &Options) -> Result<Evaluation> {
    let path = options.output.join(EVALUATION);
    agree(world, durable::refuse_existing(&path, options.overwrite))?;
    let root = is_root(world);
    let made = root.then(|| durable::outermost_missing(&options.output)).flatten();
    let outcome = watched(world, options);
    // What is refused leaves nothing behind.
    if let (Err(_), Some(outermost)) = (&outcome, &made) {
        durable::remove_if_empty(&options.output, outermost);
    }
    outcome
}

fn watched(world: &dyn World, options: &Options) -> Result<Evaluation> {
    let folder = is_root(world).then_some(options.output.as_path());
    agree(world, folder.map_or(Ok(()), durable::create_folder))?;
    let world: &dyn World = &watch(world, folder, options.watchdog)?;
    let (model, hash) = agree(world, Model::load(&options.model))?;
    let place = Place::new(world, options.hardware)?;
    engine::use_threads(place.threads);
    let scorer = agree(world, Scorer::new(model, &place))?;
    let sources = agree(world, sources(options))?;
    let read = || Pool::read(&scorer, &sources);
    let pool = agree(world, options.importance.then(read).unwrap_or(Ok(Pool::default())))?;
    let mut events = Events::new(pool.features());
    let mut files = Vec::new();
    let mut parts = Vec::new();
    for source in &sources {
        let (counts, part) = evaluate_file(world, &scorer, &pool, source, options, &mut events)?;
        files.push(counts);
        parts.push(part);
    }
    let all = events.gather(world)?;
    let evaluation = common(all.evaluate(&scorer.card, hash, files, &parts))?;
    let written = if is_root(world) { write(options, &evaluation) } else { Ok(()) };
    agree(world, written)?;
    Ok(evaluation)
}

fn write(options: &Options, evaluation: &Evaluation) -> Result<()> {
    let json = serde_json::to_vec_pretty(evaluation)
        .map_err(|e| Fault::new("cannot write the evaluation").found(e).internal())?;
    durable::write_file(&options.output.join(EVALUATION), &json)
}

/// Scores and labels of the events that are evaluated.
#[derive(Debug, Default)]
struct Events {
    score: Vec<f32>,
    log_prob: Vec<f32>,
    gammaness: Vec<f32>,    // NaN where the model is not calibrated
    without: Vec<Vec<f32>>, // (features)(events): scores without a feature, where asked for
    gamma: Vec<bool>,
    before_cuts: ClassCounts,
}

impl Events {
    fn new(features: usize) -> Events {
        Events { without: vec![Vec::new(); features], ..Events::default() }
    }

    /// All ranks' events on every rank; their order depends on the ranks, and nothing
    /// in an evaluation on their order.
    fn gather(self, world: &dyn World) -> Result<Events> {
        let mut all = Events::new(self.without.len());
        let mut counts = [self.before_cuts.gamma as i64, self.before_cuts.hadron as i64];
        world.all_reduce_sum(&mut counts)?;
        all.before_cuts = ClassCounts { gamma: counts[0] as u64, hadron: counts[1] as u64 };
        for (mine, all) in [(&self.score, &mut all.score), (&self.log_prob, &mut all.log_prob)]
            .into_iter()
            .chain([(&self.gammaness, &mut all.gammaness)])
            .chain(self.without.iter().zip(&mut all.without))
        {
            let bytes: Vec<u8> = mine.iter().flat_map(|x| x.to_le_bytes()).collect();
            for of_rank in world.all_gather(&bytes)? {
                all.extend(of_rank.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)));
            }
        }
        let mine: Vec<u8> = self.gamma.iter().map(|gamma| u8::from(*gamma)).collect();
        all.gamma = world.all_gather(&mine)?.concat().iter().map(|gamma| *gamma == 1).collect();
        Ok(all)
    }

    fn evaluate(
        &self,
        card: &Card,
        model: String,
        files: Vec<FileCounts>,
        parts: &[Parts],
    ) -> Result<Evaluation> {
        let sample = Sample::new(&self.score, &self.gamma)?;
        let threshold = match card.threshold {
            Some(threshold) => threshold,
            None => fallback_threshold(&sample, card)?,
        };
        let about = About {
            model,
            mode: card.mode_text(),
            normal: card.normal,
            score: card.score_text(),
            part: parts_text(parts),
            files,
            before_cuts: Some(self.before_cuts),
            ..About::default()
        };
        let mut importance = Vec::new();
        for (feature, scores) in card.features.iter().zip(&self.without) {
            let auc_without = Auc::of(&Sample::new(scores, &self.gamma)?);
            let feature = feature.feature.name.clone();
            importance.extend(auc_without.map(|auc_without| Importance { feature, auc_without }));
        }
        let mut evaluation =
            Evaluation::new(about, &sample, threshold)?.with_importance(importance);
        if let Some(normal) = card.normal {
            let of_normal = |gamma: &bool| *gamma == (normal == Class::Gamma);
            let log_prob = self.log_prob.iter().zip(&self.gamma).filter(|(_, g)| of_normal(g));
            let log_prob: Vec<f32> = log_prob.map(|(l, _)| *l).collect();
            evaluation = evaluation.with_normal_log_p(&log_prob);
        }
        if card.calibration.is_some() {
            evaluation = evaluation.with_gammaness(&self.gammaness, &self.gamma);
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

fn fallback_threshold(sample: &Sample, card: &Card) -> Result<Threshold> {
    Rule::two_sigma(card.normal.unwrap_or(Class::Gamma)).choose(sample)
}

fn parts_text(parts: &[Parts]) -> String {
    let mut names: Vec<&str> = parts.iter().map(|p| p.name()).collect();
    names.sort_unstable();
    names.dedup();
    names.join(" and ")
}

impl Parts {
    pub fn name(self) -> &'static str {
        match self {
            Parts::Default => "default",
            Parts::All => "all",
            Parts::Only(Part::Train) => "train",
            Parts::Only(Part::Validation) => "validation",
            Parts::Only(Part::Calibration) => "calibration",
            Parts::Only(Part::Test) => "test",
        }
    }
}

/// The files with their roles. A file given as of one class that has a class column is
/// filtered by it.
fn sources(options: &Options) -> Result<Vec<Source>> {
    let roles: [catalog::Role; 3] = [
        (&options.files, None),
        (&options.gamma, Some(Class::Gamma)),
        (&options.hadron, Some(Class::Hadron)),
    ];
    let sources = catalog::sources(&roles, options.schema.as_deref())?;
    if sources.is_empty() {
        return Err(Fault::new("no files to evaluate")
            .advice("give files, --gamma or --hadron")
            .usage());
    }
    Ok(sources)
}

fn evaluate_file(
    world: &dyn World,
    scorer: &Scorer,
    pool: &Pool,
    source: &Source,
    options: &Options,
    events: &mut Events,
) -> Result<(FileCounts, Parts)> {
    let outcome = score_windows(world, scorer, pool, source, options, events);
    let (tally, part) = agree(world, outcome)?;
    let tally = tally.reduce(world)?;
    if let Some(class) = source.class
        && tally.other_class == source.rows
    {
        return common(Err(Fault::new("the file is wholly of the other class")
            .file(&source.path)
            .expected(format!("{class}s"))
            .found(format!("{} events of another class", tally.other_class))
            .advice("the files are swapped: exchange --gamma and --hadron")
            .input()));
    }
    let mut unusable: std::collections::BTreeMap<String, u64> = STATUS_BITS
        .iter()
        .zip(tally.status)
        .map(|((_, name), n)| ((*name).to_string(), n))
        .collect();
    unusable.insert("of another class".to_string(), tally.other_class);
    unusable.insert("of another part".to_string(), tally.other_part);
    unusable.retain(|_, n| *n > 0);
    let path = source.path.display().to_string();
    Ok((FileCounts { path, gamma: tally.gamma, hadron: tally.hadron, unusable }, part))
}

/// Rows of one file by what became of them.
#[derive(Debug, Clone, Default)]
struct Tally {
    gamma: u64,
    hadron: u64,
    other_class: u64,
    other_part: u64,
    status: [u64; STATUS_BITS.len()],
}

impl Tally {
    fn reduce(self, world: &dyn World) -> Result<Tally> {
        let mut sums = vec![self.gamma, self.hadron, self.other_class, self.other_part];
        sums.extend(self.status);
        let mut sums: Vec<i64> = sums.into_iter().map(|n| n as i64).collect();
        world.all_reduce_sum(&mut sums)?;
        let mut status = [0; STATUS_BITS.len()];
        status.iter_mut().zip(&sums[4..]).for_each(|(s, n)| *s = *n as u64);
        let [gamma, hadron, other_class, other_part] = [0, 1, 2, 3].map(|i| sums[i] as u64);
        Ok(Tally { gamma, hadron, other_class, other_part, status })
    }
}

fn score_windows(
    world: &dyn World,
    scorer: &Scorer,
    pool: &Pool,
    source: &Source,
    options: &Options,
    events: &mut Events,
) -> Result<(Tally, Parts)> {
    let table = Table::open(&source.path, &source.schema)?;
    scorer.check_units(&table)?;
    let split = &scorer.card.split;
    let mut reader = table.reader(&Request {
        quantities: scorer.selection().quantities().to_vec(),
        keys: split.key.clone().unwrap_or_default(),
        shower: split.key.is_none(),
        class: table.has_class(),
    })?;
    let parts = match options.part {
        Parts::Default if is_training_file(&scorer.card, source)? => Parts::Only(Part::Test),
        Parts::Default => Parts::All,
        chosen => chosen,
    };
    let splitter = Splitter::new(split);
    let (mut block, mut scored, mut tally) =
        (Block::default(), Scored::default(), Tally::default());
    let windows = source.rows.div_ceil(WINDOW);
    for window in (0..windows).filter(|w| w % world.size() as u64 == world.rank() as u64) {
        let start = window * WINDOW;
        world.progress(Work::Scoring, start);
        reader.read(start..(start + WINDOW).min(source.rows), &mut block)?;
        scorer.score(&block, &mut scored)?;
        let mut taken = Vec::new();
        for row in 0..block.rows {
            let of_file = block.class.as_ref().map(|c| c[row]);
            let Some(class) = class_of(source, &block, row)
                .filter(|c| *c >= 0 && of_file.is_none_or(|f| f == *c))
            else {
                tally.other_class += 1;
                continue;
            };
            let keyed = split.key.is_some();
            if let Parts::Only(wanted) = parts
                && part(&splitter, scorer.selection(), &block, row, class, keyed) != wanted
            {
                tally.other_part += 1;
                continue;
            }
            if take(&scored, row, class == Class::Gamma.code(), events, &mut tally) {
                taken.push(row);
            }
        }
        pool.scores(scorer, &mut block, &taken, start, &mut events.without)?;
    }
    Ok((tally, parts))
}

/// Counts an event by what became of it; tells whether it is evaluated.
fn take(scored: &Scored, row: usize, gamma: bool, events: &mut Events, tally: &mut Tally) -> bool {
    let before = &mut events.before_cuts;
    *(if gamma { &mut before.gamma } else { &mut before.hadron }) += 1;
    if scored.status[row] != 0 {
        for (count, (bit, _)) in tally.status.iter_mut().zip(STATUS_BITS) {
            *count += u64::from(scored.status[row] & bit != 0);
        }
        return false;
    }
    *(if gamma { &mut tally.gamma } else { &mut tally.hadron }) += 1;
    events.score.push(scored.score[row]);
    events.log_prob.push(scored.log_prob[0][row]);
    events.gammaness.push(scored.gammaness.get(row).copied().unwrap_or(f32::NAN));
    events.gamma.push(gamma);
    true
}

fn is_training_file(card: &Card, source: &Source) -> Result<bool> {
    if !card.training.data.iter().any(|f| f.rows == source.rows) {
        return Ok(false);
    }
    let hash = catalog::hash_text(&catalog::hash_file(&source.path)?);
    Ok(card.training.data.iter().any(|f| f.blake3 == hash))
}
