//! Events with the highest scores that count at the source.

use crate::statistics::BoundSide;
use crate::statistics::measured::{probability, significant};
use serde::{Deserialize, Serialize};
use std::cmp::Ordering;

/// Event that counts at the source.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Candidate {
    pub score: f32,
    /// Gammaness of the score file, of calibrated models. Beyond the resolved scores, the limit that
    /// the file states.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gammaness: Option<f32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub posterior: Option<f32>,
    /// Side of the limit, if gammaness and posterior are limits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bound: Option<BoundSide>,
    pub telescope: Option<i64>,
    pub run: Option<i64>,
    /// All keys of the score file.
    pub keys: Vec<(String, i64)>,
    pub time_ns: Option<i64>, // since 1970
    pub dist: Option<f32>,    // [deg]
    pub alpha: Option<f32>,   // [deg]
    pub theta2: Option<f32>,  // [deg²]
    pub energy: Option<f32>,  // [TeV]
    pub size: Option<f32>,    // [p.e.]
    pub file: String,
    pub row: u64,
}

impl Candidate {
    /// Returns a probability of this candidate as text, with "≥" or "≤" if it is a limit.
    pub fn probability(&self, value: f32) -> String {
        let value = f64::from(value);
        match self.bound {
            Some(bound) => format!("{} {}", bound.sign(), probability(value, 3)),
            None if value >= 1.0 => significant(value, 3),
            None => probability(value, 3),
        }
    }

    /// Orders candidates by descending score, and equal scores by file and row.
    fn order(&self, other: &Candidate) -> Ordering {
        let by_score = other.score.total_cmp(&self.score);
        by_score.then_with(|| self.file.cmp(&other.file)).then(self.row.cmp(&other.row))
    }
}

/// Best candidates so far, up to a number.
#[derive(Debug, Default)]
pub struct BestCandidates {
    kept: usize,
    candidates: Vec<Candidate>,
    /// Least score that is added.
    least: Option<f32>,
}

impl BestCandidates {
    pub fn new(kept: usize) -> BestCandidates {
        BestCandidates { kept, candidates: Vec::new(), least: None }
    }

    /// Returns whether a score may belong to the best.
    pub fn accepts(&self, score: f32) -> bool {
        self.kept > 0 && score.is_finite() && self.least.is_none_or(|least| score >= least)
    }

    pub fn add(&mut self, candidate: Candidate) {
        self.candidates.push(candidate);
        if self.candidates.len() >= 2 * self.kept + 64 {
            self.cut();
        }
    }

    pub fn extend(&mut self, others: Vec<Candidate>) {
        self.candidates.extend(others);
    }

    /// Returns the best candidates in their order.
    pub fn finish(mut self) -> Vec<Candidate> {
        self.cut();
        self.candidates
    }

    fn cut(&mut self) {
        self.candidates.sort_by(Candidate::order);
        self.candidates.truncate(self.kept);
        if self.candidates.len() == self.kept {
            self.least = self.candidates.last().map(|last| last.score);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use taiga_flow_gpu::random::Stream;

    fn candidate(score: f32, row: u64) -> Candidate {
        Candidate {
            score,
            gammaness: None,
            posterior: None,
            bound: None,
            telescope: None,
            run: None,
            keys: Vec::new(),
            time_ns: None,
            dist: None,
            alpha: None,
            theta2: None,
            energy: None,
            size: None,
            file: "a.h5".to_string(),
            row,
        }
    }

    #[test]
    fn probabilities_beyond_the_range_are_bounds() {
        let with = |bound| Candidate { bound, ..candidate(1.0, 0) }.probability(0.0361);
        assert_eq!(with(None), "0.0361");
        assert_eq!(with(Some(BoundSide::AtLeast)), "≥ 0.0361");
        assert_eq!(with(Some(BoundSide::AtMost)), "≤ 0.0361");
        let at_least = Candidate { bound: Some(BoundSide::AtLeast), ..candidate(1.0, 0) };
        assert_eq!(at_least.probability(0.999_95), "≥ 0.9999500");
        assert_eq!(at_least.probability(1.0), "≥ 1 − 2.98e-8");
        // Files of older versions have neither.
        let json = serde_json::to_string(&candidate(1.0, 0)).unwrap();
        assert!(!json.contains("bound") && !json.contains("posterior"), "{json}");
        assert_eq!(serde_json::from_str::<Candidate>(&json).unwrap(), candidate(1.0, 0));
    }

    #[test]
    fn best_are_kept_in_any_order_and_pieces() {
        let stream = Stream::new(1, "scores", &[]);
        // Many equal scores.
        let all: Vec<Candidate> =
            (0..3000).map(|i| candidate((stream.bits(i) % 50) as f32, i)).collect();
        let mut expected = all.clone();
        expected.sort_by(Candidate::order);
        expected.truncate(37);
        for pieces in [1, 3, 8] {
            let mut whole = BestCandidates::new(37);
            for piece in 0..pieces {
                let mut best = BestCandidates::new(37);
                for one in all.iter().rev().filter(|c| c.row % pieces == piece) {
                    if best.accepts(one.score) {
                        best.add(one.clone());
                    }
                }
                whole.extend(best.finish());
            }
            assert_eq!(whole.finish(), expected);
        }
        assert!(!BestCandidates::new(0).accepts(1.0) && !BestCandidates::new(3).accepts(f32::NAN));
    }
}
