//! Scores and classes of the evaluated events, gathered from all ranks.

use super::latent::LatentSample;
use crate::comm::Communicator;
use crate::config::{Class, Transform};
use crate::data::schema::features::ScaledFeature;
use crate::dataset::classes;
use crate::dataset::sketch::{SketchShape, Sketches};
use crate::dataset::source::Source;
use crate::error::{Error, Result};
use crate::model::Card;
use crate::statistics::{
    Bounds, ClassCounts, CutEvent, LikenessTally, ParameterHistogram, WeightSum, parameters,
};

/// Scores and labels of the events that are evaluated.
#[derive(Debug, Default)]
pub(super) struct EvaluatedEvents {
    pub(super) score: Vec<f32>,
    pub(super) log_prob: Vec<f32>,
    pub(super) gammaness: Vec<f32>, // NaN where the model is not calibrated
    pub(super) of_forest: Vec<f32>, // empty where there is none
    pub(super) of_cuts: Vec<CutEvent>, // all triggered events; empty without cuts
    pub(super) without: Vec<Vec<f32>>, // (features)(events): scores without a feature, if requested
    pub(super) gamma: Vec<bool>,
    pub(super) bin: Vec<u16>, // of the thresholds, if the model has them by bins
    pub(super) weight: Vec<f64>, // as given; 1 where events have none
    pub(super) choice: LatentSample, // events with latent points
    /// Histograms of the scaled features (features, classes, bins).
    pub(super) parameters: Vec<i64>,
    pub(super) before_cuts: ClassCounts,
    /// Comparison of gammas and hadrons with those of the training.
    pub(super) likeness: [LikenessTally; 2],
    /// Gammas and hadrons before the cuts, of all ranks.
    pub(super) before_weights: [Weighed; 2],
    /// Names of the features of the rows of gammas and hadrons.
    pub(super) contents: Option<[Sketches; 2]>,
}

/// Bytes of an encoded [`CutEvent`].
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

/// Sums of the weights of a class, which do not depend on the ranks.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Weighed {
    sum: WeightSum,
    /// Events whose weight is unknown, because a quantity in it is not finite.
    unknown: u64,
}

impl Weighed {
    /// Number of encoded words per window and class.
    pub(super) const WORDS: usize = 4;

    pub(super) fn add(&mut self, weight: Option<f64>) {
        match weight {
            Some(weight) => self.sum = self.sum.with(weight),
            None => self.unknown += 1,
        }
    }

    pub(super) fn words(self) -> [f64; Weighed::WORDS] {
        let WeightSum { events, weight, squares } = self.sum;
        [events as f64, weight, squares, self.unknown as f64]
    }

    pub(super) fn add_words(&mut self, words: &[f64]) {
        let [events, weight, squares, unknown] = [0, 1, 2, 3].map(|i| words[i]);
        self.sum = self.sum.plus(WeightSum { events: events as u64, weight, squares });
        self.unknown += unknown as u64;
    }

    /// Returns the sum, in which unknown weights count as the mean weight.
    pub(super) fn all(self) -> WeightSum {
        let mean = self.sum.weight / self.sum.events.max(1) as f64;
        let unknown = WeightSum::of(self.unknown).scaled(mean);
        self.sum.plus(unknown)
    }
}

impl EvaluatedEvents {
    /// Creates an empty set for the rows of files, with scores without each of some features.
    pub(super) fn new(features: usize, sources: &[Source]) -> EvaluatedEvents {
        let shape = SketchShape::new(sources.iter().map(|source| source.rows).sum());
        EvaluatedEvents {
            contents: Some([(); 2].map(|()| Sketches::new(shape))),
            ..EvaluatedEvents::empty(features)
        }
    }

    fn empty(features: usize) -> EvaluatedEvents {
        EvaluatedEvents { without: vec![Vec::new(); features], ..EvaluatedEvents::default() }
    }

    /// Gathers the events of all ranks on every rank. Their order depends on the ranks; no result of
    /// an evaluation depends on it.
    pub(super) fn gather(
        self,
        comm: &dyn Communicator,
        features: usize,
    ) -> Result<EvaluatedEvents> {
        let mut all = EvaluatedEvents::empty(self.without.len());
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

    /// Returns warnings of rows with equal features: copies under other keys, or
    /// events given as gammas and as hadrons. A collective.
    pub(super) fn copies(&self, comm: &dyn Communicator) -> Result<Vec<String>> {
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

    /// Returns how the events of each class differ from those of the training, if they do.
    pub(super) fn likeness_warnings(&self, bounds: &[Option<Bounds>; 2]) -> Vec<String> {
        let names = [Class::Gamma, Class::Hadron];
        let each = names.iter().zip(&self.likeness).zip(bounds);
        let found = each.filter_map(|((class, tally), bounds)| {
            Some(format!("{class}s: {}", tally.describe(bounds.as_ref()?)?))
        });
        found.collect()
    }

    pub(super) fn count_parameters(&mut self, card: &Card, scaled: &[f32], gamma: bool) {
        self.parameters.resize(scaled.len() * 2 * parameters::BINS, 0);
        for (d, (z, feature)) in scaled.iter().zip(&card.features).enumerate() {
            let signed = feature.feature.transform == Transform::Signed;
            let first = (2 * d + usize::from(!gamma)) * parameters::BINS;
            self.parameters[first + parameters::bin_of(*z, signed)] += 1;
        }
    }

    pub(super) fn parameters(&self, card: &Card) -> Vec<ParameterHistogram> {
        let counts = |class: usize| -> Vec<u64> {
            let bins = &self.parameters[class * parameters::BINS..][..parameters::BINS];
            bins.iter().map(|count| *count as u64).collect()
        };
        let of = |(d, feature): (usize, &ScaledFeature)| {
            let signed = feature.feature.transform == Transform::Signed;
            let edge = |i| {
                let z = parameters::edge(i, signed);
                // No value has a coordinate below 0, where the inverse is not defined.
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
        // JSON has no infinity, and a coordinate may have no finite inverse.
        features.filter(|f| f.edges.iter().all(|edge| edge.is_finite())).collect()
    }
}
