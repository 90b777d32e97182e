//! Synthetic anomalies of a training: one for each normal event of a step or of the held-out part.
//!
//! The name of an anomaly is (seed, epoch, shard, place), a function of the plan.

use crate::comm::{Communicator, gather_slots};
use crate::config::{Anomalies, Generator};
use crate::data::schema::features::ScaledFeature;
use crate::data::selection::Selection;
use crate::dataset::event_store::{EventRows, EventStore, Gathered, Shard};
use crate::engine::Engine;
use crate::error::Result;
use crate::model::anomalies::{AnomalyMaker, AnomalyOutcome, NormalStatistics, Regression};
use rayon::prelude::*;
use taiga_flow_gpu::random::Stream;

use super::quantile;

/// Epoch in the names of held-out anomalies: they are the same in every epoch.
const HELD_OUT: u64 = u64::MAX;

/// Mixture of anomalies, with statistics of the normal events.
#[derive(Debug)]
pub struct Synthetic {
    pub anomalies: Anomalies,
    normals: NormalStatistics,
    seed: u64,
    /// Events of `anomalies.files`, in the shards of the normal events.
    filed: Option<EventStore>,
}

/// Flow that converts a latent point into an event, with a limit on its density.
pub struct LatentContext<'a> {
    pub engine: &'a dyn Engine,
    /// Quantile of normal log p; low-density events must be below it.
    pub quantile: f64,
}

impl Synthetic {
    /// Computes the statistics for the generators from the scaled training events of all ranks.
    pub fn learn(
        comm: &dyn Communicator,
        anomalies: &Anomalies,
        features: &[ScaledFeature],
        store: &EventStore,
        shards: u64,
        seed: u64,
        filed: Option<EventStore>,
    ) -> Result<Synthetic> {
        let mut slots = vec![None; Regression::WORDS * shards as usize];
        let mut complete = true;
        for shard in &store.shards {
            match Regression::sums(features, shard.train.rows()) {
                None => complete = false,
                Some(words) => {
                    let at = Regression::WORDS * shard.id as usize;
                    slots[at..at + words.len()]
                        .iter_mut()
                        .zip(words)
                        .for_each(|(s, w)| *s = Some(w));
                }
            }
        }
        let mut sums = [0.0; Regression::WORDS];
        for words in gather_slots(comm, &slots)?.chunks(Regression::WORDS) {
            sums.iter_mut().zip(words).for_each(|(s, w)| *s += w);
        }
        let con2 = if complete { Regression::solve(&sums) } else { None };
        let mut normals = NormalStatistics { con2, dist: Vec::new() };
        let place = features.iter().position(|f| f.feature.name == "dist");
        for draw in &anomalies.generators {
            let (Generator::Physics(p), Some(d)) = (&draw.generator, place) else { continue };
            let all: Vec<f32> = store
                .shards
                .iter()
                .flat_map(|s| s.train.rows().map(|row| features[d].quantity(row[d]) as f32))
                .collect();
            let limit = quantile::quantile(comm, &all, p.dist_quantile)?;
            normals.dist.extend(limit.map(f64::from));
        }
        Ok(Synthetic { anomalies: anomalies.clone(), normals, seed, filed })
    }

    /// Makes an anomaly for each gathered event of a step; impossible ones get weight 0.
    #[allow(clippy::too_many_arguments)] // the name of a draw, and the inputs of the generators
    pub fn of_step(
        &self,
        features: &[ScaledFeature],
        selection: &Selection,
        store: &EventStore,
        epoch: u64,
        normal: &Gathered,
        latent: &LatentContext,
        out: &mut Gathered,
    ) -> Result<()> {
        out.offsets.clone_from(&normal.offsets);
        out.places.clone_from(&normal.places);
        out.rows.resize(normal.rows.len(), 0.0);
        out.weights.clear();
        for (shard, range) in store.shards.iter().zip(normal.offsets.windows(2)) {
            let of = range[0] * features.len()..range[1] * features.len();
            let named = normal.places[range[0]..range[1]].iter().copied();
            let base = normal.weights().map(|w| &w[range[0]..range[1]]);
            let events = Named { shard, epoch, places: named.collect(), weights: base };
            let weights = self.fill(
                features,
                selection,
                &events,
                &normal.rows[of.clone()],
                latent,
                &mut out.rows[of],
            )?;
            out.weights.extend(weights);
        }
        Ok(())
    }

    /// Makes an anomaly for each held-out event of a shard; returns events and weights.
    pub fn held_out(
        &self,
        features: &[ScaledFeature],
        selection: &Selection,
        shard: &Shard,
        rows: &EventRows,
        latent: &LatentContext,
    ) -> Result<(Vec<f32>, Vec<f32>)> {
        let events: Vec<f32> = rows.rows().flatten().copied().collect();
        let mut made = vec![0.0; events.len()];
        let places = (0..rows.len() as u64).collect();
        let named = Named { shard, epoch: HELD_OUT, places, weights: rows.weights() };
        let weights = self.fill(features, selection, &named, &events, latent, &mut made)?;
        Ok((made, weights))
    }

    /// Makes an anomaly for each named event; returns the weights.
    fn fill(
        &self,
        features: &[ScaledFeature],
        selection: &Selection,
        named: &Named,
        events: &[f32],
        latent: &LatentContext,
        out: &mut [f32],
    ) -> Result<Vec<f32>> {
        let (width, train) = (features.len(), &named.shard.train);
        let maker = AnomalyMaker::new(&self.anomalies, features, selection, &self.normals);
        let partner = |u: f64| train.get(((u * train.len() as f64) as usize).min(train.len() - 1));
        let rows = self.filed.as_ref().and_then(|store| {
            let shard = store.shards.iter().find(|shard| shard.id == named.shard.id)?;
            Some(if named.epoch == HELD_OUT { &shard.validation } else { &shard.train })
        });
        let filed = |u: f64| {
            let rows = rows.filter(|rows| !rows.is_empty())?;
            Some(rows.get(((u * rows.len() as f64) as usize).min(rows.len() - 1)))
        };
        let made: Vec<AnomalyOutcome> = out
            .par_chunks_mut(width)
            .zip(events.par_chunks(width))
            .zip(&named.places)
            .map(|((out, event), place)| {
                // A held-out event of a shard without training events has no partner.
                if train.is_empty() {
                    return AnomalyOutcome::Nothing;
                }
                let words = [named.epoch, named.shard.id, *place];
                let stream = Stream::new(self.seed, "anomaly", &words);
                maker.make(stream, event, partner, filed, out)
            })
            .collect();
        let kept = through_the_flow(&maker, &made, width, latent, out)?;
        let own = |i: usize| named.weights.map_or(1.0, |weights| weights[i]);
        let kept = kept.into_iter().enumerate();
        Ok(kept.map(|(i, kept)| if kept { own(i) } else { 0.0 }).collect())
    }
}

/// Normal events with the names of the anomalies made from them.
struct Named<'a> {
    shard: &'a Shard,
    epoch: u64,
    places: Vec<u64>,
    weights: Option<&'a [f32]>,
}

/// Converts latent points into events; returns which events are valid.
fn through_the_flow(
    maker: &AnomalyMaker,
    made: &[AnomalyOutcome],
    width: usize,
    latent: &LatentContext,
    out: &mut [f32],
) -> Result<Vec<bool>> {
    let mut kept: Vec<bool> = made.iter().map(|m| *m != AnomalyOutcome::Nothing).collect();
    for (row, made) in out.chunks_mut(width).zip(made) {
        if *made == AnomalyOutcome::Nothing {
            row.fill(0.0); // has weight 0, but its likelihood must be finite
        }
    }
    let points: Vec<usize> =
        (0..made.len()).filter(|i| matches!(made[*i], AnomalyOutcome::Latent { .. })).collect();
    if points.is_empty() {
        return Ok(kept);
    }
    let z: Vec<f32> =
        points.iter().flat_map(|i| &out[i * width..(i + 1) * width]).copied().collect();
    let mut x = vec![0.0; z.len()];
    latent.engine.inverse(&z, &mut x)?;
    let mut log_prob = vec![0.0; points.len()];
    latent.engine.log_prob(&x, &mut log_prob)?;
    for ((i, event), log_prob) in points.into_iter().zip(x.chunks(width)).zip(log_prob) {
        let dense = made[i] == AnomalyOutcome::Latent { below_quantile: true }
            && f64::from(log_prob) >= latent.quantile;
        kept[i] = maker.is_valid(event) && !dense;
        let row = &mut out[i * width..(i + 1) * width];
        if kept[i] { row.copy_from_slice(event) } else { row.fill(0.0) }
    }
    Ok(kept)
}
