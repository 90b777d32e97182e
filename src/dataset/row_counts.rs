//! Counts of the rows that a training reads, by their use.

use crate::comm::Communicator;
use crate::data::selection::{CUT, NOT_FINITE, OUT_OF_DOMAIN};
use crate::error::{Fault, Result};

/// Numbers of rows by their use, of one rank or of all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct RowCounts {
    pub read: u64,
    pub other_class: u64,
    /// By the first condition that holds, as in the status of scores: not finite, outside a
    /// transform's domain, outside the cuts.
    pub not_finite: u64,
    pub out_of_domain: u64,
    pub cut: u64,
    pub train: u64,
    pub validation: u64,
    pub calibration: u64,
    pub test: u64,
    /// Rows of experimental files that are left out because they may come from the source.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub on_source: u64,
    /// The rows of `not_finite` and `out_of_domain` that fail the cuts too. The budget for bad
    /// rows ignores them.
    #[serde(skip)]
    pub excused: [u64; 2],
}

#[allow(clippy::trivially_copy_pass_by_ref)] // the signature serde asks for
fn is_zero(x: &u64) -> bool {
    *x == 0
}

impl RowCounts {
    fn words(&mut self) -> [&mut u64; 12] {
        let [not_finite, out_of_domain] = &mut self.excused;
        [
            not_finite,
            out_of_domain,
            &mut self.read,
            &mut self.other_class,
            &mut self.not_finite,
            &mut self.out_of_domain,
            &mut self.cut,
            &mut self.train,
            &mut self.validation,
            &mut self.calibration,
            &mut self.test,
            &mut self.on_source,
        ]
    }

    /// Counts a row with a status by the first condition that holds; `fails_cut` is whether a row
    /// that is not finite fails a cut.
    pub(super) fn add_unusable(&mut self, status: u32, fails_cut: impl FnOnce() -> bool) {
        if status & NOT_FINITE != 0 {
            self.not_finite += 1;
            self.excused[0] += u64::from(fails_cut());
        } else if status & OUT_OF_DOMAIN != 0 {
            self.out_of_domain += 1;
            self.excused[1] += u64::from(status & CUT != 0);
        } else {
            self.cut += u64::from(status & CUT != 0);
        }
    }

    /// Returns the share of the rows of the class that are usable and pass the cuts; `None` if the
    /// class has no rows. Rows that may come from the source count as passing.
    pub(crate) fn share_inside_cuts(&self) -> Option<f64> {
        let all = self.read.checked_sub(self.other_class).filter(|all| *all > 0)?;
        let parts = [self.train, self.validation, self.calibration, self.test, self.on_source];
        Some(parts.iter().sum::<u64>() as f64 / all as f64)
    }

    /// Returns the sums of the counts of all ranks, on every rank. A collective.
    pub(crate) fn reduce(mut self, comm: &dyn Communicator) -> Result<RowCounts> {
        let mut sums: Vec<i64> = self.words().iter().map(|w| **w as i64).collect();
        comm.all_reduce_sum(&mut sums)?;
        for (word, sum) in self.words().into_iter().zip(sums) {
            *word = sum as u64;
        }
        Ok(self)
    }
}

/// Refuses a share of unusable rows above `budget`; rows outside the cuts do not count.
///
/// # Errors
/// `Input`, with the numbers of rows.
pub(crate) fn check_budget(counts: &RowCounts, budget: f64) -> Result<()> {
    let not_finite = counts.not_finite - counts.excused[0];
    let out_of_domain = counts.out_of_domain - counts.excused[1];
    let bad = not_finite + out_of_domain;
    let seen = counts.read - counts.other_class;
    if bad as f64 <= budget * seen as f64 {
        return Ok(());
    }
    Err(Fault::new("too many rows with values that cannot be used")
        .expected(format!("at most {budget} of {seen} rows (data.bad_rows)"))
        .found(format!("{not_finite} not finite, {out_of_domain} outside a transform's domain"))
        .advice("look at the columns with `taiga-flow check`; raise data.bad_rows if this is as it should be")
        .input())
}
