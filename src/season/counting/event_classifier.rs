//! Classifies events: the positions at which they pass, and the position at which they count.

use crate::data::schema::unix_time;
use crate::data::table::scores::{ColumnRequest, Head, ScoreBlock};
use crate::season::plan::{PassCriterion, SeasonPlan};
use crate::statistics::counts::disjoint::{MAX_POSITIONS, counted_at};
use taiga_flow_gpu::random::mix;

/// Plan and columns by which the rows of a file are classified.
pub struct EventClassifier<'a> {
    pub plan: &'a SeasonPlan,
    pub columns: ScoreColumns,
    /// Hash of the file, which replaces the keys of events without keys.
    file_number: i64,
}

/// Outcome of an event at one position.
pub struct PositionOutcome<'a> {
    pub passing: bool,
    /// Whether the event is inside the cuts of the report; otherwise the cut that fails, if it is
    /// the only one.
    pub inside: bool,
    pub only: Option<&'a str>,
}

impl<'a> EventClassifier<'a> {
    /// Creates the classifier of a file with this name.
    pub fn new(head: &Head, plan: &'a SeasonPlan, name: &str) -> EventClassifier<'a> {
        let file_number = name.bytes().fold(0, |state, byte| mix(state ^ u64::from(byte))) as i64;
        EventClassifier { plan, columns: ScoreColumns::of(head, plan), file_number }
    }

    pub fn request(&self) -> &ColumnRequest {
        &self.columns.wanted
    }

    pub fn score(&self, block: &ScoreBlock, row: usize) -> f32 {
        block.at_all[self.columns.score][0][row]
    }

    /// Returns the time of an event [ns], if it is plausible.
    pub fn time_ns(&self, block: &ScoreBlock, row: usize) -> Option<i64> {
        let time = self.columns.keys.time.map(|time| block.keys[time][row]);
        time.filter(|time| unix_time::is_plausible(*time))
    }

    /// Returns a mask whose bit k says whether the event passes at position k.
    pub fn passes(&self, block: &ScoreBlock, row: usize) -> u64 {
        if block.quality[row] & self.plan.quality != 0 {
            return 0;
        }
        let pass = |k: &usize| self.at(block, row, *k).is_some_and(|v| v.passing && v.inside);
        (0..self.plan.positions.len()).filter(pass).fold(0, |bits, k| bits | 1 << k)
    }

    /// Returns the outcome at a position; `None` without a score, or outside the cuts of the model.
    pub fn at(&self, block: &ScoreBlock, row: usize, k: usize) -> Option<PositionOutcome<'a>> {
        if block.status[k][row] != 0 {
            return None;
        }
        let passing = match self.plan.passing {
            PassCriterion::Point(bit) => block.pass[k][row] >> bit & 1 == 1,
            PassCriterion::Threshold(threshold) => {
                f64::from(block.at_all[self.columns.score][k][row]) >= threshold
            }
        };
        let cuts = self.plan.cuts.iter().zip(&self.columns.cuts);
        let mut failed =
            cuts.filter(|((_, cut), column)| !cut.contains(block.at_all[**column][k][row]));
        let (first, second) = (failed.next(), failed.next());
        let only = first.filter(|_| second.is_none()).map(|((name, _), _)| name.as_str());
        Some(PositionOutcome { passing, inside: first.is_none(), only })
    }

    /// Returns the position at which a passing event counts. Ties are decided by a hash of its run
    /// and number, or of file and row if it lacks one of them.
    pub fn place(
        &self,
        passes: u64,
        block: &ScoreBlock,
        row: usize,
        file_row: u64,
    ) -> Option<usize> {
        let scores = &block.at_all[self.columns.score];
        let mut of_event = [0.0; MAX_POSITIONS];
        for (own, of_position) in of_event.iter_mut().zip(scores) {
            *own = of_position[row];
        }
        let Keys { run, run_id, event, .. } = self.columns.keys;
        let key = match (run_id.or(run), event) {
            (Some(run), Some(event)) => [block.keys[run][row], block.keys[event][row]],
            _ => [self.file_number, file_row as i64],
        };
        counted_at(passes, &of_event[..scores.len()], &key)
    }
}

/// Indices of the columns in a block.
pub struct ScoreColumns {
    pub wanted: ColumnRequest,
    pub keys: Keys,
    pub score: usize,
    pub cuts: Vec<usize>,
    pub theta2: Option<usize>,
    pub alpha: Option<usize>,
    pub log_prob: usize,          // of those at the source
    pub dist: Option<usize>,      // of those at the source
    pub gammaness: Option<usize>, // of those at the source
    pub posterior: Option<usize>, // of those at the source
    pub energy: Option<usize>,    // of those at all positions
    pub true_energy: Option<usize>,
    pub delta: Option<usize>,
    pub size: Option<usize>,
    pub drift: Vec<usize>,
    /// Keys of a shower that telescopes share; empty if images are not combined.
    pub shower: Vec<usize>,
}

#[derive(Default)]
pub struct Keys {
    /// `run` (YYYYMMDDRRR) if it exists, otherwise `run_id`.
    pub run: Option<usize>,
    pub run_id: Option<usize>,
    pub telescope: Option<usize>,
    /// `portion`, otherwise `run_id` of a file that also has `run`.
    pub portion: Option<usize>,
    pub event: Option<usize>,
    pub time: Option<usize>,
}

impl ScoreColumns {
    fn of(head: &Head, plan: &SeasonPlan) -> ScoreColumns {
        let mut wanted = ColumnRequest {
            keys: head.keys.clone(),
            pass: matches!(plan.passing, PassCriterion::Point(_)),
            ..ColumnRequest::default()
        };
        let key = |name: &str| head.keys.iter().position(|known| known == name);
        let (run, run_id) = (key("run"), key("run_id"));
        let keys = Keys {
            run: run.or(run_id),
            run_id,
            telescope: key("telescope_id").or_else(|| key("tel_id")),
            portion: key("portion").or(run_id.filter(|_| run.is_some())),
            event: key("event_id"),
            time: key(unix_time::COLUMN),
        };
        let shower = plan.shower_key.iter().filter_map(|name| key(name)).collect();
        let mut at_all = |name: &str| index_of(&mut wanted.at_all, name);
        let there = |name: &str| head.of_position.iter().any(|known| known == name);
        let score = at_all("score");
        let cuts = plan.cuts.iter().map(|(name, _)| at_all(name)).collect();
        let theta2 = there("theta2").then(|| at_all("theta2"));
        let alpha = there("alpha").then(|| at_all("alpha"));
        let energy = there("energy").then(|| at_all("energy"));
        let log_prob = index_of(&mut wanted.at_source, head.log_prob());
        let mut at_source = |name: &str| there(name).then(|| index_of(&mut wanted.at_source, name));
        let [dist, gammaness, posterior] = ["dist", "gammaness", "posterior"].map(&mut at_source);
        let has = |name: &str| head.copied.iter().any(|known| known == name);
        let mut copied = |name: &str| has(name).then(|| index_of(&mut wanted.copied, name));
        let (delta, size) = (copied("delta_time"), copied("size"));
        let true_energy = if plan.simulated { copied("energy_true") } else { None };
        let not_features = ["energy", "delta_time", "energy_true"];
        let features = head.copied.iter().filter(|name| !not_features.contains(&name.as_str()));
        let drift: Vec<String> = features.cloned().collect();
        let drift = drift.iter().map(|name| index_of(&mut wanted.copied, name)).collect();
        ScoreColumns {
            wanted,
            keys,
            score,
            cuts,
            theta2,
            alpha,
            log_prob,
            dist,
            gammaness,
            posterior,
            energy,
            true_energy,
            delta,
            size,
            drift,
            shower,
        }
    }
}

/// Returns the index of a name in a list, which is appended if it is new.
fn index_of(names: &mut Vec<String>, name: &str) -> usize {
    names.iter().position(|known| known == name).unwrap_or_else(|| {
        names.push(name.to_string());
        names.len() - 1
    })
}
