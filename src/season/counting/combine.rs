//! Combines the images of a shower that several telescopes have recorded.
//!
//! Every counted image is kept with the key of its shower (`shower_key` of the settings). Of the
//! images of one shower the one with the largest size counts, at its own position; the telescope
//! decides between equal sizes. Size does not depend on the source position, so counts stay alike at
//! all positions, and showers stay independent. The result does not depend on the order of files and
//! ranks.

use super::counts::{grow, take_off};
use super::images::TelescopeImage;
use crate::error::{Fault, Result};
use crate::season::plan::SeasonPlan;
use std::cmp::Reverse;
use std::collections::HashMap;
use std::collections::hash_map::Entry;

/// Showers of runs that are added one after the other.
#[derive(Debug, Default)]
pub struct Combined {
    best: HashMap<[u64; 2], (TelescopeImage, Option<i64>)>,
    /// Images that do not count, per position, and per bin of energy and position.
    pub removed: Vec<u64>,
    pub removed_energy: Vec<Vec<u64>>,
}

impl Combined {
    pub fn new(plan: &SeasonPlan) -> Combined {
        let positions = plan.positions.len();
        Combined {
            best: HashMap::new(),
            removed: vec![0; positions],
            removed_energy: vec![vec![0; positions]; plan.edges.len() - 1],
        }
    }

    /// Adds the images of a run.
    pub fn add(&mut self, images: &[TelescopeImage], telescope: Option<i64>) {
        let rank =
            |(image, telescope): &(TelescopeImage, Option<i64>)| (image.size, Reverse(*telescope));
        for image in images {
            let new = (*image, telescope);
            let loser = match self.best.entry(image.shower) {
                Entry::Vacant(place) => {
                    place.insert(new);
                    continue;
                }
                Entry::Occupied(mut known) if rank(&new) > rank(known.get()) => known.insert(new),
                Entry::Occupied(_) => new,
            };
            let place = usize::from(loser.0.place);
            self.removed[place] += 1;
            if let Some(bin) = loser.0.bin {
                self.removed_energy[usize::from(bin)][place] += 1;
            }
        }
    }

    /// Returns the number of images that do not count.
    pub fn images(&self) -> u64 {
        self.removed.iter().sum()
    }

    /// Takes the images that do not count from counts per position.
    pub fn take_from(&self, counted: &mut Vec<u64>) {
        grow(counted, &vec![0; self.removed.len()]);
        take_off(counted, &self.removed);
    }

    /// Takes the images that do not count from counts per bin and position.
    pub fn take_from_bins(&self, bins: &mut [Vec<u64>]) {
        for (bin, removed) in bins.iter_mut().zip(&self.removed_energy) {
            grow(bin, &vec![0; removed.len()]);
            take_off(bin, removed);
        }
    }
}

/// Refuses a key that names two images of one telescope.
pub fn check_keys<'a>(
    names: &[String],
    runs: impl Iterator<Item = (Option<i64>, &'a [TelescopeImage])>,
) -> Result<()> {
    let mut all: Vec<(Option<i64>, [u64; 2])> = runs
        .flat_map(|(telescope, images)| images.iter().map(move |image| (telescope, image.shower)))
        .collect();
    all.sort_unstable();
    let Some(twice) = all.windows(2).find(|pair| pair[0] == pair[1]) else { return Ok(()) };
    let telescope =
        twice[0].0.map_or("a telescope without number".to_string(), |t| format!("telescope {t}"));
    let key: Vec<String> = names
        .iter()
        .zip(twice[0].1)
        .filter(|_| names.len() <= 2)
        .map(|(name, word)| format!("{name} {}", word as i64))
        .collect();
    Err(Fault::new("the shower key names several events of one telescope")
        .column(names.join(", "))
        .expected("keys that telescopes share, and that name one event of each")
        .found(format!("{telescope} {}", key.join(", ")).trim().to_string())
        .advice("name all columns of the key in shower_key, or leave it out: telescopes are then counted as independent")
        .input())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::season::counting::images::shower_of;

    fn image(shower: u64, size: u32, place: u8) -> TelescopeImage {
        TelescopeImage { shower: [shower, 0], size, place, bin: (place < 2).then_some(0) }
    }

    fn of(runs: &[(i64, &[TelescopeImage])]) -> Combined {
        let mut all = Combined {
            removed: vec![0; 3],
            removed_energy: vec![vec![0; 3]],
            ..Combined::default()
        };
        runs.iter().for_each(|(telescope, images)| all.add(images, Some(*telescope)));
        all
    }

    #[test]
    fn image_with_most_size_counts_in_any_order() {
        let first = [image(1, 100, 0), image(2, 50, 1), image(3, 7, 2)];
        let second = [image(1, 90, 1), image(2, 60, 2), image(4, 1, 0)];
        let third = [image(1, 100, 2), image(5, 9, 0)];
        let runs: [(i64, &[TelescopeImage]); 3] = [(1, &first), (2, &second), (3, &third)];
        // Shower 1 counts at 0 (telescope 1 before 3), shower 2 at 2.
        let removed = vec![0, 2, 1];
        for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
            let combined = of(&order.map(|i: usize| runs[i]));
            assert_eq!(combined.removed, removed, "{order:?}");
            assert_eq!(combined.removed_energy, [[0, 2, 0]]);
            assert_eq!(combined.images(), 3);
            let mut counted = vec![3, 2, 3];
            combined.take_from(&mut counted);
            assert_eq!(counted, [3, 0, 2], "five showers");
        }
    }

    #[test]
    fn key_of_two_events_of_one_telescope_is_refused() {
        let names = ["run", "event_id"].map(str::to_string);
        let (one, two) = ([image(7, 1, 0), image(8, 1, 0)], [image(7, 1, 1)]);
        let check =
            |runs: &[(Option<i64>, &[TelescopeImage])]| check_keys(&names, runs.iter().copied());
        check(&[(Some(1), &one), (Some(2), &two)]).unwrap();
        let error = check(&[(Some(1), &one), (Some(1), &two)]).unwrap_err();
        assert_eq!(error.exit_code(), 3);
        assert!(error.to_string().contains("telescope 1 run 7"), "{error}");
    }

    #[test]
    fn keys_of_any_length_are_told_apart() {
        let of = |words: &[i64]| shower_of(words.iter().copied());
        assert_eq!(of(&[5]), [5, 0]);
        assert_eq!(of(&[5, -1]), [5, u64::MAX]);
        assert_ne!(of(&[1, 2, 3]), of(&[1, 3, 2]));
    }
}
