//! Latent points of a seeded sample of the evaluated events of each class.
//!
//! The sample has the lowest hashes of file and row, so that it does not depend on the ranks. The
//! f64 reference computes the points; all engines agree with it.

use crate::comm::Communicator;
use crate::config::{Class, Transform};
use crate::error::Result;
use crate::model::{Card, Model};
use crate::statistics::latent::LatentPoints;
use rayon::prelude::*;
use taiga_flow_gpu::random::Stream;
use taiga_flow_gpu::reference::ReferenceFlow;

/// Most events of a class, with which distances of 0.02 are found.
const MOST: usize = 4096;
/// Name of the flow that was not trained on real events.
const ANOMALY: &str = "anomaly";

/// Sampled event.
#[derive(Debug, Clone, PartialEq)]
struct LatentEvent {
    key: u64,
    weight: f64,
    features: Vec<f32>, // scaled
}

/// Sampled events by class.
#[derive(Debug, Default)]
pub struct LatentSample {
    of: [Vec<LatentEvent>; 2], // gammas, hadrons
}

impl LatentSample {
    /// Considers an event, by the number of its file and its row.
    pub fn consider(&mut self, class: Class, place: [u64; 2], weight: f64, features: &[f32]) {
        let key = Stream::new(0, "latent points", &[place[0]]).bits(place[1]);
        let chosen = &mut self.of[usize::from(class == Class::Hadron)];
        chosen.push(LatentEvent { key, weight, features: features.to_vec() });
        if chosen.len() >= 2 * MOST {
            lowest(chosen);
        }
    }

    /// Merges the samples of all ranks, on every rank.
    pub fn gather(mut self, comm: &dyn Communicator, features: usize) -> Result<LatentSample> {
        let width = 16 + 4 * features;
        let mut all = LatentSample::default();
        for (mine, all) in self.of.iter_mut().zip(&mut all.of) {
            lowest(mine);
            let mut bytes = Vec::with_capacity(mine.len() * width);
            for chosen in mine.iter() {
                bytes.extend(chosen.key.to_le_bytes());
                bytes.extend(chosen.weight.to_le_bytes());
                chosen.features.iter().for_each(|x| bytes.extend(x.to_le_bytes()));
            }
            for of_rank in comm.all_gather(&bytes)? {
                all.extend(of_rank.chunks_exact(width).map(LatentEvent::from_bytes));
            }
            lowest(all);
        }
        Ok(all)
    }

    /// Returns the latent points of the events in each flow of a model.
    pub fn latent(&self, card: &Card, model: &Model) -> Vec<LatentPoints> {
        let names: Vec<String> = card.features.iter().map(|f| f.feature.name.clone()).collect();
        let signed = |d: &usize| card.features[*d].feature.transform == Transform::Signed;
        let signed: Vec<usize> = (0..names.len()).filter(signed).collect();
        let of_flow = |(name, flow): (&String, &crate::model::FlowCard)| {
            let params = model.flows.get(name).filter(|_| name != ANOMALY)?;
            let reference = ReferenceFlow::<f64>::new(&flow.spec, params);
            let point = |chosen: &LatentEvent| {
                let mut x: Vec<f64> = chosen.features.iter().map(|x| f64::from(*x)).collect();
                // The flow was trained on both signs.
                for (i, d) in signed.iter().enumerate() {
                    if chosen.key >> (8 + i) & 1 == 1 {
                        x[*d] = -x[*d];
                    }
                }
                (reference.forward(&x).0, chosen.weight)
            };
            let chosen = &self.of[usize::from(flow.class == Class::Hadron)];
            let points: Vec<_> = chosen.par_iter().map(point).collect();
            LatentPoints::of(name, &names, &points)
        };
        card.flows.iter().filter_map(of_flow).collect()
    }
}

impl LatentEvent {
    fn from_bytes(bytes: &[u8]) -> LatentEvent {
        let (head, features) = bytes.split_at(16);
        let word = |at: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&head[at..at + 8]);
            word
        };
        LatentEvent {
            key: u64::from_le_bytes(word(0)),
            weight: f64::from_le_bytes(word(8)),
            features: features.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
        }
    }
}

/// Keeps the events with the lowest keys, in their order; content decides between equal keys.
fn lowest(chosen: &mut Vec<LatentEvent>) {
    chosen.sort_by(|a, b| {
        let features = |c: &LatentEvent| c.features.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        a.key.cmp(&b.key).then_with(|| features(a).cmp(&features(b)))
    });
    chosen.truncate(MOST);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comm::Threads;

    #[test]
    fn the_choice_does_not_depend_on_ranks() {
        let rows = 3 * MOST as u64;
        let chosen = |ranks: usize| {
            let all = Threads::run(ranks, |comm| {
                let mut choice = LatentSample::default();
                let mine = (0..rows).filter(|row| row / 100 % ranks as u64 == comm.rank() as u64);
                for row in mine {
                    let class = if row % 3 == 0 { Class::Gamma } else { Class::Hadron };
                    choice.consider(class, [row % 2, row], row as f64, &[row as f32, 0.5]);
                }
                choice.gather(comm, 2)
            });
            all.into_iter().next().unwrap().unwrap()
        };
        let [one, three] = [1, 3].map(chosen);
        assert_eq!(one.of, three.of);
        assert_eq!([one.of[0].len(), one.of[1].len()], [MOST; 2]);
        let spread: f64 = one.of[1].iter().map(|c| c.weight).sum::<f64>() / MOST as f64;
        assert!((spread / (rows as f64 / 2.0) - 1.0).abs() < 0.05, "from all rows: {spread}");
    }
}
