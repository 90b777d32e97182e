//! Reads pairs of score files, each pair on one rank.

use super::ranks::{ScoreBins, doubled_ranks};
use super::rows::{PairCounts, RowPair};
use crate::comm::{Communicator, gather_values, sync_result};
use crate::data::table::scores::{ScoreBlock, ScoreFile};
use crate::error::{Error, Fault, Result};
use crate::season::counting::event_classifier::EventClassifier;
use crate::season::folder::{Folder, ScoreFileEntry};
use crate::season::plan::SeasonPlan;
use crate::statistics::comparison::paired::{PlacementSums, doubled_placements};
use std::path::Path;

const BLOCK_ROWS: u64 = 65_536;
/// Pairs of score files.
pub(super) struct FilePairs<'a> {
    pub(super) comm: &'a dyn Communicator,
    pub(super) folders: &'a [Folder; 2],
    pub(super) plans: &'a [SeasonPlan; 2],
}

impl FilePairs<'_> {
    pub(super) fn go_through(&self) -> Result<(PairCounts, ScoreBins)> {
        let mut found = PairCounts::default();
        let mut bins = ScoreBins::new();
        let mut outcome = Ok(());
        for file in self.folders[0].of_rank(self.comm.rank(), self.comm.size()) {
            outcome = self.file(file, |pair| pair.take(&mut found, &mut bins));
            if outcome.is_err() {
                break;
            }
        }
        sync_result(self.comm, outcome)?;
        bins.reduce(self.comm)?;
        Ok((self.gather(&found)?, bins))
    }

    /// Calls `each` with every row of a pair of files.
    fn file(&self, file: &ScoreFileEntry, mut each: impl FnMut(&RowPair)) -> Result<()> {
        // Both list the same names in the same order.
        let of_second = self.folders[1].files.iter().find(|other| other.name == file.name);
        let paths = [&file.path, of_second.map_or(&file.path, |other| &other.path)];
        let files = [ScoreFile::open(paths[0])?, ScoreFile::open(paths[1])?];
        let classifiers = [0, 1]
            .map(|which| EventClassifier::new(&files[which].head, &self.plans[which], &file.name));
        if files[0].head.keys != files[1].head.keys {
            return Err(different_keys(paths[1], None));
        }
        let mut blocks = [ScoreBlock::default(), ScoreBlock::default()];
        let mut first = 0;
        while first < file.rows {
            let next = (first + BLOCK_ROWS).min(file.rows);
            for which in [0, 1] {
                if files[which].head.rows != file.rows {
                    return Err(Fault::new("the rows are not those of the manifest")
                        .file(paths[which])
                        .expected(file.rows)
                        .found(files[which].head.rows)
                        .input());
                }
                files[which].read(first..next, classifiers[which].request(), &mut blocks[which])?;
            }
            for row in 0..blocks[0].rows {
                if (0..blocks[0].keys.len())
                    .any(|k| blocks[0].keys[k][row] != blocks[1].keys[k][row])
                {
                    return Err(different_keys(paths[1], Some(first + row as u64)));
                }
                each(&RowPair {
                    file,
                    classifiers: &classifiers,
                    blocks: &blocks,
                    keys: &files[0].head.keys,
                    row,
                    file_row: first + row as u64,
                });
            }
            first = next;
        }
        Ok(())
    }

    fn gather(&self, mine: &PairCounts) -> Result<PairCounts> {
        let mut all = PairCounts::default();
        for found in gather_values(self.comm, mine)? {
            all.events += found.events;
            all.at_source.merge(found.at_source);
            all.off_source.merge(found.off_source);
            all.counted.merge(found.counted);
            all.labelled.merge(&found.labelled);
            all.changed.extend(found.changed);
        }
        all.keep_first();
        Ok(all)
    }

    /// Reads all pairs again, with the bins of all events: returns the sum of the products of ranks,
    /// and the placements of labelled gammas and hadrons.
    pub(super) fn second_pass(&self, bins: &ScoreBins) -> Result<(i128, [PlacementSums; 2])> {
        let ranks = [doubled_ranks(&bins.all[0]), doubled_ranks(&bins.all[1])];
        let placements =
            bins.labelled.each_ref().map(|side| side.each_ref().map(|b| doubled_placements(b)));
        let (mut products, mut sums) = (0_i128, [PlacementSums::default(); 2]);
        let mut outcome = Ok(());
        for file in self.folders[0].of_rank(self.comm.rank(), self.comm.size()) {
            outcome = self.file(file, |pair| {
                let Some(of_event) = pair.rank_bins() else { return };
                let [a, b] = of_event;
                products += i128::from(ranks[0][a]) * i128::from(ranks[1][b]);
                if let Some(gamma) = pair.gamma().filter(|_| pair.inside_both()) {
                    // Placement among the events of the other class; 0 if there are none.
                    let placed = [0, 1].map(|which| {
                        placements[which][usize::from(gamma)].get(of_event[which]).map_or(0, |p| *p)
                    });
                    sums[usize::from(!gamma)].add(placed);
                }
            });
            if outcome.is_err() {
                break;
            }
        }
        sync_result(self.comm, outcome)?;
        self.gather_sums(products, sums)
    }

    fn gather_sums(
        &self,
        products: i128,
        sums: [PlacementSums; 2],
    ) -> Result<(i128, [PlacementSums; 2])> {
        let words = |s: &PlacementSums| [i128::from(s.events), s.first, s.second, s.squares];
        let mine = std::iter::once(products).chain(sums.iter().flat_map(words));
        let bytes: Vec<u8> = mine.flat_map(i128::to_le_bytes).collect();
        let (mut products, mut all) = (0, [PlacementSums::default(); 2]);
        for bytes in self.comm.all_gather(&bytes)? {
            let numbers = bytes.as_chunks::<16>().0.iter().map(|b| i128::from_le_bytes(*b));
            let numbers: Vec<i128> = numbers.collect();
            let [product, own @ ..] = numbers.as_slice() else { continue };
            products += product;
            for (sums, of_class) in all.iter_mut().zip(own.chunks_exact(4)) {
                let events = u64::try_from(of_class[0]).map_err(|e| {
                    Fault::new("a rank has sent a wrong number of events").found(e).internal()
                })?;
                let [first, second, squares] = [1, 2, 3].map(|i| of_class[i]);
                sums.merge(&PlacementSums { events, first, second, squares });
            }
        }
        Ok((products, all))
    }
}

fn different_keys(path: &Path, row: Option<u64>) -> Error {
    let fault = Fault::new("the keys are not those of the other scoring").file(path);
    let fault = match row {
        Some(row) => fault.row(row),
        None => fault,
    };
    fault.advice("compare scorings of the same inputs").input()
}
