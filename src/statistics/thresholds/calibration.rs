//! Calibration of scores to probabilities by isotonic regression on held-out events of both
//! classes.
//!
//! Both classes have the same total weight (gammaness assumes equal numbers, π = 0.5); no events
//! are subsampled. Pooling of adjacent violators (Ayer et al. 1955) gives a rising step function of
//! the score. The events at either end form one pool from the start, with at least ten (effective)
//! events of each class: a pool of one class alone would not determine the share of the other.
//! Inside the end pools the log-odds are those of the pool, which describe its events together;
//! between the means of the other pools they are interpolated. An end pool has one additional event
//! of the class that is rare there. It stops at such an event, where the share of the other class
//! is highest, and would overstate its odds by a tenth. Beyond the mean score of an end pool the
//! log-odds are a bound. Since ten events are few, the stated bound is a confidence limit of the
//! log-odds of the pool, not its estimate.

use crate::error::{Fault, Result};
use crate::statistics::roc::{MIN_HADRONS, enough};
use crate::statistics::{Class, ClassCounts, WeightSum};
use serde::{Deserialize, Serialize};

/// Largest number of points: model cards are also read by people.
const MAX_POINTS: usize = 200;
/// Points at either end that are always kept: the steps there.
const END_POINTS: usize = 3;
/// Standard deviations of a one-sided limit at 95 % confidence.
const LIMIT_SIGMAS: f64 = 1.645;
/// Standard deviations of counts that contradict a limit.
const SIGMAS: f64 = 3.0;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// Ascending scores and the log-odds of a gamma at equal numbers, also ascending.
    pub points: Vec<[f64; 2]>,
    /// Share of gammas that the posterior assumes: among triggered events if `cut_efficiency` is
    /// known, otherwise among events that pass the pre-cuts.
    pub prior: f64,
    /// Numbers of events of the fit.
    pub gammas: u64,
    pub hadrons: u64,
    /// Scores between which log-odds are resolved; below and above they are bounds. Absent in
    /// models of older versions, and if all events have one probability.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolved: Option<[f64; 2]>,
    /// Upper limit of the log-odds below `resolved` and lower limit above it, at equal numbers and
    /// 95 % confidence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<[f64; 2]>,
    /// Efficiencies of the pre-cuts, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cut_efficiency: Option<CutEfficiency>,
}

/// Shares of the triggered events of each class that pass the pre-cuts, unweighted.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct CutEfficiency {
    pub gamma: f64,
    pub hadron: f64,
}

/// Direction of a bound: the side on which the true value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum BoundSide {
    AtMost,
    AtLeast,
}

impl BoundSide {
    /// Returns the direction of the probability at a score, with the scores between which it is
    /// resolved; `None` inside.
    pub(crate) fn of(score: f64, resolved: Option<[f64; 2]>) -> Option<BoundSide> {
        match resolved {
            Some([low, _]) if score < low => Some(BoundSide::AtMost),
            Some([_, high]) if score > high => Some(BoundSide::AtLeast),
            _ => None,
        }
    }

    /// Returns the limit of this direction, of an upper limit below and a lower limit above.
    pub(crate) fn limit(self, [upper, lower]: [f64; 2]) -> f64 {
        match self {
            BoundSide::AtMost => upper,
            BoundSide::AtLeast => lower,
        }
    }

    pub(crate) fn sign(self) -> &'static str {
        match self {
            BoundSide::AtMost => "≤",
            BoundSide::AtLeast => "≥",
        }
    }
}

/// Adjacent events with one probability.
#[derive(Debug, Clone, Copy)]
struct IsotonicBlock {
    low: f64,
    high: f64,
    score: f64, // Σ weight · score
    gamma: f64, // Σ weight of gammas
    all: f64,   // Σ weight
    /// Σ weight² of gammas and of hadrons.
    squares: [f64; 2],
}

impl IsotonicBlock {
    /// Sums events with the weights of their classes scaled; `None` without events.
    fn of(events: &[(f64, Class, f64)], scale: [f64; 2]) -> Option<IsotonicBlock> {
        let one = |&(score, class, weight): &(f64, Class, f64)| {
            let of_class = usize::from(class != Class::Gamma);
            let all = weight * scale[of_class];
            let gamma = if class == Class::Gamma { all } else { 0.0 };
            let mut squares = [0.0; 2];
            squares[of_class] = all * all;
            IsotonicBlock { low: score, high: score, score: all * score, gamma, all, squares }
        };
        events.iter().map(one).reduce(IsotonicBlock::joined)
    }

    fn joined(self, above: IsotonicBlock) -> IsotonicBlock {
        IsotonicBlock {
            low: self.low,
            high: above.high,
            score: self.score + above.score,
            gamma: self.gamma + above.gamma,
            all: self.all + above.all,
            squares: [0, 1].map(|class| self.squares[class] + above.squares[class]),
        }
    }

    /// Adds weight of gammas and of hadrons.
    fn with(self, [gamma, hadron]: [f64; 2]) -> IsotonicBlock {
        IsotonicBlock { gamma: self.gamma + gamma, all: self.all + gamma + hadron, ..self }
    }

    fn share(&self) -> f64 {
        self.gamma / self.all
    }

    fn log_odds(&self) -> f64 {
        libm::log(self.gamma / (self.all - self.gamma))
    }

    /// Returns the error of the log-odds, from the effective events of each class.
    fn error(&self) -> f64 {
        let weights = [self.gamma, self.all - self.gamma];
        let relative = [0, 1].map(|class| self.squares[class] / (weights[class] * weights[class]));
        libm::sqrt(relative[0] + relative[1])
    }

    fn mean(&self) -> f64 {
        (self.score / self.all).clamp(self.low, self.high)
    }
}

impl Calibration {
    /// Fits (score, class, weight).
    ///
    /// # Errors
    /// `Input` with fewer than ten effective events of a class.
    pub(crate) fn fit(mut events: Vec<(f64, Class, f64)>, prior: f64) -> Result<Calibration> {
        events.retain(|(score, _, weight)| score.is_finite() && *weight > 0.0);
        events.sort_by(|a, b| {
            a.0.total_cmp(&b.0).then(a.1.code().cmp(&b.1.code())).then(a.2.total_cmp(&b.2))
        });
        let of = |class| events.iter().filter(move |e| e.1 == class);
        let sums = [Class::Gamma, Class::Hadron]
            .map(|class| of(class).fold(WeightSum::default(), |sum, event| sum.with(event.2)));
        Calibration::refuse_few(sums)?;
        let one = sums.map(|sum| 0.5 / sum.effective());
        let Fitted { points, ends } = fitted(&events, sums.map(|sum| 0.5 / sum.weight), one);
        let [gammas, hadrons] = sums.map(|sum| sum.events);
        let (resolved, limits) = ends.map(|Ends { resolved, limits }| (resolved, limits)).unzip();
        Ok(Calibration { points, prior, gammas, hadrons, resolved, limits, cut_efficiency: None })
    }

    /// Refuses fewer than ten effective events of a class, given the sums of held-out gammas and
    /// hadrons.
    ///
    /// # Errors
    /// `Input`.
    pub(crate) fn refuse_few(sums: [WeightSum; 2]) -> Result<()> {
        if sums.iter().all(enough) {
            return Ok(());
        }
        let text = |sum: WeightSum| format!("{:.1} of {}", sum.effective(), sum.events);
        let [gammas, hadrons] = sums.map(text);
        Err(Fault::new("too few held-out events to calibrate")
            .expected(format!("at least {MIN_HADRONS} effective events of each class, (Σw)²/Σw²"))
            .found(format!("{gammas} gammas, {hadrons} hadrons"))
            .advice("raise split.calibration or split.validation, or give data.weight that is less uneven")
            .input())
    }

    /// Sets the efficiencies of the pre-cuts, so that the prior is that of triggered events. Shares
    /// of 0 are ignored.
    #[must_use]
    pub(crate) fn with_cut_efficiency(self, shares: Option<CutEfficiency>) -> Calibration {
        let cut_efficiency = shares.filter(CutEfficiency::is_known);
        Calibration { cut_efficiency, ..self }
    }

    /// Returns the probability of a gamma at equal numbers; NaN for a NaN score.
    pub(crate) fn gammaness(&self, score: f64) -> f64 {
        probability(self.log_odds(score))
    }

    /// Returns the probability of a gamma at the prior share of gammas.
    pub(crate) fn posterior(&self, score: f64) -> f64 {
        probability(self.posterior_log_odds(score))
    }

    pub(super) fn posterior_log_odds(&self, score: f64) -> f64 {
        self.log_odds(score) + self.prior_log_odds()
    }

    /// Returns the upper limit of the gammaness below `resolved`, and the lower limit above it.
    pub(crate) fn gammaness_limits(&self) -> Option<[f64; 2]> {
        self.limits.map(|limits| limits.map(probability))
    }

    /// Returns the same limits of the posterior.
    pub(crate) fn posterior_limits(&self) -> Option<[f64; 2]> {
        self.limits.map(|limits| limits.map(|limit| probability(limit + self.prior_log_odds())))
    }

    /// Returns the prior log-odds of the events that pass the pre-cuts: ln(π/(1 − π)), plus
    /// `ln(ε_γ/ε_h)` of the cuts.
    pub(crate) fn prior_log_odds(&self) -> f64 {
        let of_cuts = self.cut_efficiency.map_or(0.0, |of| libm::log(of.gamma / of.hadron));
        libm::log(self.prior / (1.0 - self.prior)) + of_cuts
    }

    fn log_odds(&self, score: f64) -> f64 {
        let after = self.points.partition_point(|p| p[0] <= score);
        match (after.checked_sub(1).and_then(|i| self.points.get(i)), self.points.get(after)) {
            _ if score.is_nan() => f64::NAN,
            (Some([x0, y0]), Some([x1, y1])) => y0 + (y1 - y0) * (score - x0) / (x1 - x0),
            (Some([_, y]), None) | (None, Some([_, y])) => *y,
            (None, None) => f64::NAN,
        }
    }

    /// Refuses points that are not a rising function.
    ///
    /// # Errors
    /// `Input`.
    pub(crate) fn validate(&self) -> Result<()> {
        let ends = self.resolved.iter().chain(&self.limits);
        let finite = self.points.iter().chain(ends).flatten().all(|x| x.is_finite());
        let rising = self.points.windows(2).all(|w| w[0][0] < w[1][0] && w[0][1] <= w[1][1]);
        let ordered = self.resolved.is_none_or(|[low, high]| low <= high);
        let known = self.cut_efficiency.as_ref().is_none_or(CutEfficiency::is_known);
        let prior = self.prior > 0.0 && self.prior < 1.0;
        if finite && rising && ordered && known && prior && !self.points.is_empty() {
            return Ok(());
        }
        Err(Fault::new("an unusable calibration")
            .expected(
                "ascending scores with ascending log-odds, a prior between 0 and 1, and shares \
                 above 0 that pass the cuts",
            )
            .input())
    }

    /// Returns the resolved range, and the numbers of evaluated events beyond it (true = gamma).
    pub(crate) fn range(&self, scores: &[f32], gamma: &[bool]) -> CalibratedRange {
        let mut beyond = [ClassCounts::default(); 2];
        let mut all = ClassCounts::default();
        for (score, gamma) in scores.iter().zip(gamma) {
            *(if *gamma { &mut all.gamma } else { &mut all.hadron }) += 1;
            let bound = BoundSide::of(f64::from(*score), self.resolved);
            let Some(bound) = bound else { continue };
            let counts = &mut beyond[usize::from(bound == BoundSide::AtLeast)];
            *(if *gamma { &mut counts.gamma } else { &mut counts.hadron }) += 1;
        }
        let ends = |of: fn(&Calibration, f64) -> f64| {
            self.resolved.map(|scores| scores.map(|score| of(self, score)))
        };
        CalibratedRange {
            prior: self.prior,
            cut_efficiency: self.cut_efficiency,
            scores: self.resolved,
            gammaness: ends(Calibration::gammaness),
            posterior: ends(Calibration::posterior),
            posterior_limits: self.posterior_limits(),
            below: beyond[0],
            above: beyond[1],
            contradicted: self.contradicted(beyond, all),
        }
    }

    /// Returns whether events beyond the range contradict the upper limit below it, and the lower
    /// limit above it, by more than three standard deviations of their own counts.
    fn contradicted(&self, [below, above]: [ClassCounts; 2], all: ClassCounts) -> [bool; 2] {
        let Some([upper, lower]) = self.limits else { return [false; 2] };
        let most = |n: u64| n as f64 + SIGMAS * libm::sqrt(n as f64 + 1.0) + 1.0;
        let least = |n: u64| n as f64 - SIGMAS * libm::sqrt(n as f64);
        // Log-odds at equal numbers, NaN if a class has too few events.
        let log_odds = |gammas: f64, hadrons: f64| {
            libm::log(gammas / hadrons * (all.hadron as f64 / all.gamma as f64))
        };
        [
            log_odds(least(below.gamma), most(below.hadron)) > upper,
            log_odds(most(above.gamma), least(above.hadron)) < lower,
        ]
    }
}

impl CutEfficiency {
    fn is_known(&self) -> bool {
        [self.gamma, self.hadron].iter().all(|share| *share > 0.0 && *share <= 1.0)
    }
}

/// The range that a calibration resolves, and the evaluated events beyond it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct CalibratedRange {
    pub prior: f64,
    pub cut_efficiency: Option<CutEfficiency>,
    /// Absent if unknown.
    pub scores: Option<[f64; 2]>,
    /// At these scores, like the posterior.
    pub gammaness: Option<[f64; 2]>,
    pub posterior: Option<[f64; 2]>,
    /// Upper limit of the posterior below these scores and lower limit above, at 95 % confidence.
    pub posterior_limits: Option<[f64; 2]>,
    pub below: ClassCounts,
    pub above: ClassCounts,
    /// Whether these counts contradict the limit below, and the one above.
    #[serde(default)]
    pub contradicted: [bool; 2],
}

impl CalibratedRange {
    /// Returns the population to which the prior refers, as a suffix of "posterior at …".
    pub(crate) fn basis(&self) -> &'static str {
        if self.cut_efficiency.is_some() { " of all triggered" } else { " after the cuts" }
    }
}

/// Points of the calibration, and its ends if they differ.
struct Fitted {
    points: Vec<[f64; 2]>,
    ends: Option<Ends>,
}

/// Scores between which log-odds are resolved, and the limits beyond.
struct Ends {
    resolved: [f64; 2],
    limits: [f64; 2],
}

impl Ends {
    /// Returns the ends; `None` if the log-odds of the end pools do not rise. The test uses
    /// log-odds, since those of shares that differ in their last bit can have either order.
    fn of([below, above]: &[IsotonicBlock; 2], resolved: [f64; 2]) -> Option<Ends> {
        let limits = [
            below.log_odds() + LIMIT_SIGMAS * below.error(),
            above.log_odds() - LIMIT_SIGMAS * above.error(),
        ];
        (below.log_odds() < above.log_odds()).then_some(Ends { resolved, limits })
    }
}

/// Fits ascending events; `one` is the scaled weight of an effective event of each class.
fn fitted(events: &[(f64, Class, f64)], scale: [f64; 2], one: [f64; 2]) -> Fitted {
    let lower = resolving(events.iter());
    let upper = events.len() - resolving(events.iter().rev());
    let fitted = if lower > upper {
        overlapping(&events[..lower], &events[upper..], scale, one)
    } else {
        apart(&pools(events, lower..upper, scale), one)
    };
    let unresolved = || {
        let all = IsotonicBlock::of(events, scale);
        let points = all.iter().map(|all| [all.mean(), all.log_odds()]).collect();
        Fitted { points, ends: None }
    };
    fitted.map_or_else(unresolved, |fit| Fitted { points: thinned(fit.points), ..fit })
}

/// Fits pools whose ends do not overlap; `None` if the ends do not differ.
fn apart(pools: &[IsotonicBlock], one: [f64; 2]) -> Option<Fitted> {
    let [first, inner @ .., last] = pools else { return None };
    let ends = [first.with([one[0], 0.0]), last.with([0.0, one[1]])];
    let found = Ends::of(&ends, [first.mean(), last.mean()])?;
    Some(Fitted { points: points(ends, inner), ends: Some(found) })
}

/// Returns the number of events from an end inwards with at least ten effective ones of each class;
/// equal scores stay together.
fn resolving<'e>(events: impl ExactSizeIterator<Item = &'e (f64, Class, f64)>) -> usize {
    let count = events.len();
    let mut sums = [WeightSum::default(); 2];
    let mut last = f64::NAN;
    for (i, (score, class, weight)) in events.enumerate() {
        if sums.iter().all(enough) && last.total_cmp(score).is_ne() {
            return i;
        }
        let sum = &mut sums[usize::from(*class != Class::Gamma)];
        *sum = sum.with(*weight);
        last = *score;
    }
    count
}

/// Fits classes so far apart that the end pools overlap: ten events of the class that is rare at
/// one end extend into the other end pool. The result has the odds of either end, and a straight
/// line over the events that are in both. `None` if the ends do not differ.
fn overlapping(
    below: &[(f64, Class, f64)],
    above: &[(f64, Class, f64)],
    scale: [f64; 2],
    one: [f64; 2],
) -> Option<Fitted> {
    let below = IsotonicBlock::of(below, scale)?.with([one[0], 0.0]);
    let above = IsotonicBlock::of(above, scale)?.with([0.0, one[1]]);
    let resolved = [above.low, below.high];
    let points = vec![
        [resolved[0].next_down(), below.log_odds()],
        [resolved[1].next_up(), above.log_odds()],
    ];
    let ends = Ends::of(&[below, above], resolved)?;
    Some(Fitted { points, ends: Some(ends) })
}

/// Returns points of score and log-odds. Those of the end pools begin at their edges, so that all
/// of their events have the odds of the pool; the outer half of the adjacent pools keeps its own.
fn points([first, last]: [IsotonicBlock; 2], inner: &[IsotonicBlock]) -> Vec<[f64; 2]> {
    let (mut least, most) = (first.log_odds(), last.log_odds());
    let mut points = vec![[first.high, least]];
    for (i, pool) in inner.iter().enumerate() {
        // At least the value of the pool before: shares rise, but their log-odds can fall by a
        // rounding.
        let log_odds = pool.log_odds().clamp(least, most);
        least = log_odds;
        points.extend((i == 0).then_some([pool.low, log_odds]));
        points.push([pool.mean(), log_odds]);
        points.extend((i + 1 == inner.len()).then_some([pool.high, log_odds]));
    }
    points.push([last.low, most]);
    points
}

/// Converts log-odds to a probability.
pub(super) fn probability(log_odds: f64) -> f64 {
    1.0 / (1.0 + libm::exp(-log_odds))
}

/// Pools events in the order of scores, with rising shares of gammas; those outside of `inner` form
/// one pool at either end from the start.
fn pools(
    events: &[(f64, Class, f64)],
    inner: std::ops::Range<usize>,
    scale: [f64; 2],
) -> Vec<IsotonicBlock> {
    let mut pools: Vec<IsotonicBlock> = Vec::new();
    let one = inner.clone().map(|i| i..i + 1);
    let ranges =
        std::iter::once(0..inner.start).chain(one).chain(std::iter::once(inner.end..events.len()));
    for mut pool in ranges.filter_map(|range| IsotonicBlock::of(&events[range], scale)) {
        // Equal scores have one probability; a share that does not rise joins the pool before.
        let mut join = pools.last().is_some_and(|before| before.high.total_cmp(&pool.low).is_eq());
        while let Some(before) =
            pools.last().filter(|before| join || before.share() >= pool.share())
        {
            pool = before.joined(pool);
            pools.pop();
            join = false;
        }
        pools.push(pool);
    }
    pools
}

/// Returns at most [`MAX_POINTS`] points, including the steps at both ends, with different scores.
fn thinned(mut points: Vec<[f64; 2]>) -> Vec<[f64; 2]> {
    points.dedup_by(|b, a| b[0] <= a[0]);
    if points.len() <= MAX_POINTS {
        return points;
    }
    let (first, rest) = points.split_at(END_POINTS);
    let (inner, last) = rest.split_at(rest.len() - END_POINTS);
    let kept = MAX_POINTS - 2 * END_POINTS;
    let inner = (0..kept).map(|i| inner[i * (inner.len() - 1) / (kept - 1)]);
    first.iter().copied().chain(inner).chain(last.iter().copied()).collect()
}

#[cfg(test)]
mod tests;
