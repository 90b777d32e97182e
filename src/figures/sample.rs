//! Scores with true classes, in the one form the figures of merit read: sorted
//! ascending per class, free of NaN.
//!
//! NaN marks an unusable row in a score file: such rows are **excluded and
//! counted**. Infinite scores have a place in the order and are kept, at the ends
//! of the `f32` range that scores are stored in (JSON has no infinity either).

use super::{Class, ClassCounts};
use crate::error::{Fault, Result};

const LARGEST_SCORE: f64 = f32::MAX as f64;

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Sample {
    gamma: Vec<f64>,
    hadron: Vec<f64>,
    excluded: ClassCounts,
    infinite: u64,
}

impl Sample {
    /// `scores` and `gamma` (true = gamma) have one entry per event.
    pub fn new<S: Copy + Into<f64>>(scores: &[S], gamma: &[bool]) -> Result<Sample> {
        if scores.len() != gamma.len() {
            return Err(Fault::new("scores and classes differ in number")
                .expected(format!("{} classes", scores.len()))
                .found(gamma.len())
                .internal());
        }
        let mut sample = Sample::default();
        for (&score, &is_gamma) in scores.iter().zip(gamma) {
            sample.push(score.into(), if is_gamma { Class::Gamma } else { Class::Hadron });
        }
        sample.gamma.sort_unstable_by(f64::total_cmp);
        sample.hadron.sort_unstable_by(f64::total_cmp);
        Ok(sample)
    }

    fn push(&mut self, score: f64, class: Class) {
        let (kept, excluded) = match class {
            Class::Gamma => (&mut self.gamma, &mut self.excluded.gamma),
            Class::Hadron => (&mut self.hadron, &mut self.excluded.hadron),
        };
        if score.is_nan() {
            *excluded += 1;
            return;
        }
        self.infinite += u64::from(score.is_infinite());
        // Adding 0 turns -0 into +0, which the total order would set apart.
        kept.push(score.clamp(-LARGEST_SCORE, LARGEST_SCORE) + 0.0);
    }

    /// Scores of the gammas, ascending.
    pub fn gamma(&self) -> &[f64] {
        &self.gamma
    }

    /// Scores of the hadrons, ascending.
    pub fn hadron(&self) -> &[f64] {
        &self.hadron
    }

    pub fn of(&self, class: Class) -> &[f64] {
        match class {
            Class::Gamma => &self.gamma,
            Class::Hadron => &self.hadron,
        }
    }

    /// Events with a usable score.
    pub fn counts(&self) -> ClassCounts {
        ClassCounts { gamma: self.gamma.len() as u64, hadron: self.hadron.len() as u64 }
    }

    /// Events whose score is NaN.
    pub fn excluded(&self) -> ClassCounts {
        self.excluded
    }

    /// Events whose score is infinite (kept, at the end of the range).
    pub fn infinite(&self) -> u64 {
        self.infinite
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nan_is_excluded_and_counted_and_infinity_is_kept_in_order() {
        let scores = [f32::NAN, 2.0, f32::NEG_INFINITY, f32::NAN, -0.0, f32::INFINITY];
        let sample = Sample::new(&scores, &[true, true, false, false, false, true]).unwrap();
        assert_eq!(sample.gamma(), [2.0, LARGEST_SCORE]);
        assert_eq!(sample.hadron(), [-LARGEST_SCORE, 0.0]);
        assert!(sample.hadron()[1].is_sign_positive());
        assert_eq!(sample.excluded(), ClassCounts { gamma: 1, hadron: 1 });
        assert_eq!(sample.infinite(), 2);
    }

    #[test]
    fn unequal_lengths_are_refused() {
        assert_eq!(Sample::new(&[1.0_f32], &[]).unwrap_err().exit_code(), 1);
    }
}
