//! Metrics of one model on one set of events, as written to `evaluation.json` and read by the
//! report.
//!
//! [`Evaluation::new`] computes everything that follows from scores and labels. The caller adds the
//! rest: files, rows without a score, likelihoods of the normal class. Every number is finite or
//! absent. Warnings state that the sample is too small, or that the score is inverted.

use super::band::{BandPoint, band};
use super::comparison::baseline::Baseline;
use super::confusion::DEFAULT_PRIOR;
use super::latent::LatentPoints;
use super::roc::MIN_HADRONS;
use super::sample::weighted_rank;
use super::survival::AtSurvival;
use super::thresholds::calibration::CalibratedRange;
use super::thresholds::reliability::{ReliabilityBin, reliability, reliability_odds};
use super::warnings::WarningBasis;
use super::{
    AtBins, AtThreshold, Auc, BinnedThresholds, Calibration, Class, ClassCounts, CutsBaseline,
    Histogram, ParameterHistogram, Roc, RocPoint, Sample, Scan, Threshold, WeightSum,
};
use crate::config::Observation;
use crate::error::{Fault, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Format version written into every file.
pub(crate) const FORMAT: &str = "taiga-flow-evaluation 1";
const CURVE_POINTS: usize = 400;
const HISTOGRAM_BINS: usize = 50;

/// Description of the evaluated model and events.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct About {
    /// blake3 of the model file.
    pub model: String,
    /// As in the model card, e.g. "one-class, gammas normal".
    pub mode: String,
    /// The class modelled, in one-class modes.
    pub normal: Option<Class>,
    /// Definition of the score, for axis labels, e.g. "log p" or "log p(gamma) − log p(hadron)".
    pub score: String,
    /// The part of the split: "test", "all", …
    pub part: String,
    pub files: Vec<FileCounts>,
    /// Triggered and cleaned events of the same showers, before the pre-cuts.
    pub before_cuts: Option<ClassCounts>,
    /// Share of gammas among triggered events that the purity assumes.
    pub prior: f64,
    /// Rates and time for expected significances, if given; rates are those before the pre-cuts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observation: Option<Observation>,
    /// Weights of events, if they have any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights: Option<EventWeights>,
}

/// Weights of events. They are relative within a class; the mixture of the classes remains that of
/// their numbers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct EventWeights {
    pub expression: String,
    /// Triggered and cleaned events of [`About::before_cuts`], with their given weights.
    pub gamma_before_cuts: WeightSum,
    pub hadron_before_cuts: WeightSum,
}

impl Default for About {
    fn default() -> About {
        About {
            model: String::new(),
            mode: String::new(),
            normal: None,
            score: "score".to_owned(),
            part: "all".to_owned(),
            files: Vec::new(),
            before_cuts: None,
            prior: DEFAULT_PRIOR,
            observation: None,
            weights: None,
        }
    }
}

impl About {
    /// Returns gammas and hadrons before the cuts, with weights.
    fn weighed_before_cuts(&self) -> Option<[WeightSum; 2]> {
        let counts = self.before_cuts?;
        Some(match &self.weights {
            Some(weights) => [weights.gamma_before_cuts, weights.hadron_before_cuts],
            None => [counts.gamma, counts.hadron].map(WeightSum::of),
        })
    }
}

/// Effective numbers of weighted events, (Σw)²/Σw² (Kish 1965): the number of events of equal
/// weight with the same precision.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Effective {
    pub gamma: f64,
    pub hadron: f64,
}

/// Events of one file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FileCounts {
    pub path: String,
    pub gamma: u64,
    pub hadron: u64,
    /// Rows excluded from the metrics, by reason.
    pub unusable: BTreeMap<String, u64>,
    /// Those of known class among them that are excluded because of their values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub left_out: BTreeMap<String, ClassCounts>,
}

/// Negative log-likelihood of held-out events of the normal class [nats].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct NormalNll {
    /// `None` if it is not finite; rare events can make it infinite.
    pub mean: Option<f64>,
    pub median: f64,
    pub events: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Evaluation {
    pub format: String,
    pub about: About,
    /// Events with a score.
    pub counts: ClassCounts,
    /// Effective number of events, if they have weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effective: Option<Effective>,
    /// Rows without a usable score, by reason: of all files, and NaN scores.
    pub unusable: BTreeMap<String, u64>,
    /// Gammas and hadrons among them that are excluded because of their values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub left_out: BTreeMap<String, ClassCounts>,
    pub auc: Option<Auc>,
    pub threshold: Threshold,
    pub at_threshold: AtThreshold,
    pub at_survival: Vec<AtSurvival>,
    /// Results at other thresholds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scan: Option<Scan>,
    /// Results of the thresholds by bins, if the model has them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_bins: Option<AtBins>,
    pub normal_nll: Option<NormalNll>,
    /// Tests of the latent points of each flow, for its own class.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub latent: Vec<LatentPoints>,
    /// A conventional classifier on the same events, if requested.
    #[serde(rename = "yardstick", default, skip_serializing_if = "Option::is_none")]
    pub baseline: Option<Baseline>,
    /// Standard cuts on the same events, if requested.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub baseline_cuts: Option<CutsBaseline>,
    /// Reliability of gammaness, if the model has one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reliability: Vec<ReliabilityBin>,
    /// Reliability of the posterior, in bins of its log-odds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reliability_odds: Vec<ReliabilityBin>,
    /// Ranges in which gammaness and posterior are values and in which they are bounds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calibrated: Option<CalibratedRange>,
    pub warnings: Vec<String>,
    pub roc: Vec<RocPoint>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub roc_band: Vec<BandPoint>,
    /// Reliance of this model on each feature, if requested.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub importance: Vec<Importance>,
    pub histogram: Option<Histogram>,
    /// Distributions of the features in either class.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parameters: Vec<ParameterHistogram>,
    /// Log-likelihood in the first flow, if the score is something else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_likelihood: Option<LogLikelihood>,
}

/// Log p of either class in one flow.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct LogLikelihood {
    pub flow: String,
    pub histogram: Histogram,
}

/// The area under the curve when the values of a feature are permuted between events (permutation
/// importance, Breiman 2001): the reliance of this model on the feature. It is not the value of the
/// feature: a model trained without it takes shared information from correlated features.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Importance {
    pub feature: String,
    pub auc_without: Auc,
}

impl Evaluation {
    /// Computes the metrics of a sample at a threshold.
    ///
    /// # Errors
    /// A usage error if the threshold or the prior is out of range.
    pub(crate) fn new(about: About, sample: &Sample, threshold: Threshold) -> Result<Evaluation> {
        check(&about, threshold)?;
        let roc = Roc::of(sample);
        let curve = roc.thinned(CURVE_POINTS);
        let before_cuts = about.weighed_before_cuts();
        let at_threshold = AtThreshold::of(sample, threshold.value, before_cuts, about.prior)?;
        let observation = about.observation.map(|o| match before_cuts {
            Some(before) => o.with_inside(inside(sample, before)),
            None => o,
        });
        let scan = Scan::of(sample, threshold, observation);
        let [gammas, hadrons] = [roc.gammas, roc.hadrons].map(|sum| sum.effective());
        let auc = Auc::of(sample);
        let is_weighted = about.weights.is_some();
        let basis = WarningBasis {
            sample,
            threshold,
            auc,
            effective: is_weighted.then_some([gammas, hadrons]),
            normal: about.normal,
            passing: at_threshold.confusion.hadron_as_gamma,
        };
        Ok(Evaluation {
            format: FORMAT.to_owned(),
            counts: sample.counts(),
            effective: is_weighted.then_some(Effective { gamma: gammas, hadron: hadrons }),
            unusable: unusable(&about.files, sample.excluded()),
            left_out: left_out(&about.files),
            auc,
            threshold,
            at_threshold,
            at_survival: AtSurvival::all(&roc),
            scan,
            at_bins: None,
            normal_nll: None,
            latent: Vec::new(),
            baseline: None,
            baseline_cuts: None,
            reliability: Vec::new(),
            reliability_odds: Vec::new(),
            calibrated: None,
            warnings: basis.warnings(),
            roc_band: band(&curve, gammas, hadrons),
            roc: curve,
            importance: Vec::new(),
            histogram: Histogram::of(sample, HISTOGRAM_BINS),
            parameters: Vec::new(),
            log_likelihood: None,
            about,
        })
    }

    /// Adds the NLL of the normal class from `log_p` of held-out events and their weights, if any;
    /// NaN are excluded.
    #[must_use]
    pub(crate) fn with_normal_log_p<S: Copy + Into<f64>>(
        mut self,
        log_p: &[S],
        weights: Option<&[f64]>,
    ) -> Evaluation {
        let weight = |i: usize| weights.and_then(|w| w.get(i)).copied().unwrap_or(1.0);
        let nll = log_p.iter().enumerate().map(|(i, l)| (-(*l).into(), weight(i)));
        let mut nll: Vec<(f64, f64)> = nll.filter(|(l, _): &(f64, f64)| !l.is_nan()).collect();
        nll.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
        let all: f64 = nll.iter().map(|(_, w)| w).sum();
        // An event of weight 0 is ignored, whatever its log p.
        let terms = nll.iter().filter(|(_, w)| *w > 0.0).map(|(l, w)| l * w);
        let mean = Some(terms.sum::<f64>() / all).filter(|m| m.is_finite());
        let ranked: Vec<f64> = nll.iter().map(|(_, w)| *w).collect();
        let median = weighted_rank(ranked.iter(), 0.5).map(|rank| nll[rank].0);
        let events = nll.len() as u64;
        self.normal_nll = median.filter(|median| median.is_finite()).map(|median| NormalNll {
            mean,
            median,
            events,
        });
        self
    }

    /// Adds the reliability of `gammaness`, from the true classes (true = gamma) and weights, if
    /// any.
    #[must_use]
    pub(crate) fn with_gammaness(
        mut self,
        gammaness: &[f32],
        gamma: &[bool],
        weights: Option<&[f64]>,
    ) -> Evaluation {
        self.reliability = reliability(gammaness, gamma, weights);
        self
    }

    /// Adds the reliability of a calibration for the evaluated events: their scores, true classes
    /// (true = gamma), and weights, if any.
    #[must_use]
    pub(crate) fn with_posterior(
        mut self,
        calibration: &Calibration,
        scores: &[f32],
        gamma: &[bool],
        weights: Option<&[f64]>,
    ) -> Evaluation {
        self.reliability_odds = reliability_odds(calibration, scores, gamma, weights);
        let range = calibration.range(scores, gamma);
        for (contradicted, side) in range.contradicted.into_iter().zip(["lowest", "highest"]) {
            if contradicted {
                self.warnings.push(format!(
                    "The share of gammas among events with the {side} scores contradicts the bound of \
                     the posterior by more than 3 sigma: these events differ from those that the \
                     model was calibrated on. Run `check` on the files."
                ));
            }
        }
        self.calibrated = Some(range);
        self
    }

    /// Adds the results of the thresholds by bins for the evaluated events: their scores, true
    /// classes (true = gamma), bins, and weights, if any.
    ///
    /// # Errors
    /// `Internal` if there are fewer events before the cuts than after them.
    pub(crate) fn with_bins(
        mut self,
        thresholds: &BinnedThresholds,
        scores: &[f32],
        gamma: &[bool],
        bin: &[u16],
        weights: Option<&[f64]>,
    ) -> Result<Evaluation> {
        let before_cuts = self.about.weighed_before_cuts();
        let prior = self.about.prior;
        let at = AtBins::of(thresholds, scores, gamma, bin, weights, before_cuts, prior)?;
        let fallen_back = thresholds.with_global();
        if !fallen_back.is_empty() {
            self.warnings.push(format!(
                "Bins of {} with too few held-out events have the threshold of all events: {}.",
                at.per,
                fallen_back.join(", ")
            ));
        }
        let outside = at.outside;
        if outside != ClassCounts::default() {
            self.warnings.push(format!(
                "Outside of all bins of {}, and so always classified as hadrons: {} gammas, {} hadrons.",
                at.per, outside.gamma, outside.hadron
            ));
        }
        self.at_bins = Some(at);
        Ok(self)
    }

    #[must_use]
    pub(crate) fn with_parameters(mut self, parameters: Vec<ParameterHistogram>) -> Evaluation {
        self.parameters = parameters;
        self
    }

    /// Adds a histogram of log p of the events in a flow with this name.
    #[must_use]
    pub(crate) fn with_log_likelihood(mut self, flow: &str, log_p: &Sample) -> Evaluation {
        let histogram = Histogram::of(log_p, HISTOGRAM_BINS);
        let of = |histogram| LogLikelihood { flow: flow.to_owned(), histogram };
        self.log_likelihood = histogram.map(of);
        self
    }

    #[must_use]
    pub(crate) fn with_latent(mut self, latent: Vec<LatentPoints>) -> Evaluation {
        self.latent = latent;
        self
    }

    #[must_use]
    pub(crate) fn with_baseline(mut self, baseline: Option<Baseline>) -> Evaluation {
        self.baseline = baseline;
        self
    }

    #[must_use]
    pub(crate) fn with_baseline_cuts(mut self, cuts: Option<CutsBaseline>) -> Evaluation {
        if let Some(of) = cuts.as_ref().filter(|of| of.selected.hadrons < MIN_HADRONS) {
            self.warnings.push(format!(
                "Hadrons that pass {}: {}. Their Q is not well measured here.",
                of.name, of.selected.hadrons
            ));
        }
        self.baseline_cuts = cuts;
        self
    }

    #[must_use]
    pub(crate) fn with_importance(mut self, importance: Vec<Importance>) -> Evaluation {
        self.importance = importance;
        self
    }

    #[must_use]
    pub(crate) fn with_warning(mut self, warning: impl Into<String>) -> Evaluation {
        self.warnings.push(warning.into());
        self
    }

    /// Returns the reason for a missing gamma efficiency at a hadron survival.
    pub(crate) fn why_no_survival(&self) -> String {
        match (self.counts.gamma, self.counts.hadron) {
            (0, 0) => "no event has a score".to_owned(),
            (0, _) => "there are no gammas".to_owned(),
            (_, 0) => "there are no hadrons".to_owned(),
            _ => format!("fewer than {MIN_HADRONS} hadrons pass"),
        }
    }
}

/// Returns the shares of the weight of gammas and hadrons before the cuts that the sample contains.
fn inside(sample: &Sample, before_cuts: [WeightSum; 2]) -> [f64; 2] {
    let [gammas, hadrons] = before_cuts;
    [(Class::Gamma, gammas), (Class::Hadron, hadrons)].map(|(class, before)| {
        let before = before.weight * sample.scale(class);
        if before > 0.0 { sample.from(class, 0).weight / before } else { 1.0 }
    })
}

fn check(about: &About, threshold: Threshold) -> Result<()> {
    if !threshold.value.is_finite() {
        let fault = Fault::new("the threshold is not a finite number").found(threshold.value);
        return Err(fault.usage());
    }
    if !(about.prior > 0.0 && about.prior < 1.0) {
        let fault = Fault::new("the prior share of gammas is out of range");
        return Err(fault.expected("a number between 0 and 1").found(about.prior).usage());
    }
    Ok(())
}

fn unusable(files: &[FileCounts], excluded: ClassCounts) -> BTreeMap<String, u64> {
    let mut all = BTreeMap::new();
    for (reason, rows) in files.iter().flat_map(|file| &file.unusable) {
        *all.entry(reason.clone()).or_insert(0) += rows;
    }
    let nan = excluded.gamma + excluded.hadron;
    if nan > 0 {
        *all.entry("score is NaN".to_owned()).or_insert(0) += nan;
    }
    all
}

fn left_out(files: &[FileCounts]) -> BTreeMap<String, ClassCounts> {
    let mut all: BTreeMap<String, ClassCounts> = BTreeMap::new();
    for (reason, of) in files.iter().flat_map(|file| &file.left_out) {
        let sum = all.entry(reason.clone()).or_default();
        sum.gamma += of.gamma;
        sum.hadron += of.hadron;
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statistics::Rule;

    fn ramp(flip: f64) -> Sample {
        let scores: Vec<f64> = (0..400).map(|i| flip * f64::from(i * 37 % 400)).collect();
        let gamma: Vec<bool> = scores.iter().map(|s| (flip * s) as u32 % 400 > 150).collect();
        Sample::new(&scores, &gamma).unwrap()
    }

    fn fixed(value: f64) -> Threshold {
        Rule::Fixed { value }.choose(&Sample::default()).unwrap()
    }

    #[test]
    fn evaluation_round_trips_with_or_without_class() {
        let one_class = Sample::new(&[1.0, f64::NAN, f64::INFINITY], &[true; 3]).unwrap();
        for sample in [ramp(1.0), one_class, Sample::default()] {
            let evaluation = Evaluation::new(About::default(), &sample, fixed(100.0))
                .unwrap()
                .with_normal_log_p(&[-8.0_f32, -7.0, f32::NEG_INFINITY], None);
            let text = serde_json::to_string_pretty(&evaluation).unwrap();
            assert_eq!(serde_json::from_str::<Evaluation>(&text).unwrap(), evaluation);
            let nll = evaluation.normal_nll.unwrap();
            assert_eq!((nll.mean, nll.events), (None, 3));
            assert!((nll.median - 8.0).abs() < 1e-12);
        }
    }

    #[test]
    fn inverted_score_causes_a_warning() {
        let about = About { normal: Some(Class::Hadron), ..About::default() };
        let evaluation = Evaluation::new(about, &ramp(-1.0), fixed(0.0)).unwrap();
        assert!(evaluation.warnings[0].contains("is inverted"), "{:?}", evaluation.warnings);
        assert!(evaluation.warnings[0].contains("dense core"));
        let upright = Evaluation::new(About::default(), &ramp(1.0), fixed(100.0)).unwrap();
        assert_eq!(upright.warnings, Vec::<String>::new());
    }

    #[test]
    fn unusable_rows_are_counted_by_reason() {
        let file = |rows| FileCounts {
            unusable: BTreeMap::from([("width is NaN".to_owned(), rows)]),
            ..FileCounts::default()
        };
        let about = About { files: vec![file(2), file(3)], ..About::default() };
        let sample = Sample::new(&[f64::NAN, 1.0], &[true, true]).unwrap();
        let evaluation = Evaluation::new(about, &sample, fixed(0.0)).unwrap();
        assert_eq!(evaluation.unusable["width is NaN"], 5);
        assert_eq!(evaluation.unusable["score is NaN"], 1);
        assert!(evaluation.warnings.iter().any(|w| w.contains("no hadrons")));
    }

    #[test]
    fn weights_enter_metrics_and_few_events_warn() {
        let scores: Vec<f64> = (0..400).map(|i| f64::from(i * 37 % 400)).collect();
        let gamma: Vec<bool> = scores.iter().map(|s| *s > 150.0).collect();
        let weights: Vec<f64> = (0..400).map(|i| if i % 90 == 0 { 1e4 } else { 1.0 }).collect();
        let sample = Sample::weighted(&scores, &gamma, Some(&weights)).unwrap();
        let of = |class| sample.from(class, 0).scaled(1.0 / sample.scale(class));
        let weights_told = EventWeights {
            expression: "energy^-1".to_owned(),
            gamma_before_cuts: of(Class::Gamma),
            hadron_before_cuts: of(Class::Hadron),
        };
        let about = About {
            before_cuts: Some(sample.counts()),
            weights: Some(weights_told),
            ..About::default()
        };
        let nll: Vec<f64> = scores.iter().map(|s| s / 100.0).collect();
        let evaluation = Evaluation::new(about, &sample, fixed(200.0))
            .unwrap()
            .with_normal_log_p(&nll, Some(&weights));
        let effective = evaluation.effective.unwrap();
        assert!(effective.gamma < 10.0 && effective.hadron < 10.0, "{effective:?}");
        assert!(evaluation.warnings.iter().any(|w| w.contains("effective")));
        let at = &evaluation.at_threshold;
        let [after, before] = [at.after_cuts, at.before_cuts.unwrap()];
        let efficiency = |s: &crate::statistics::Separation| s.gamma_efficiency.unwrap().value;
        assert!((efficiency(&after) - efficiency(&before)).abs() < 1e-9);
        let all: f64 = weights.iter().sum();
        let mean = -nll.iter().zip(&weights).map(|(l, w)| l * w).sum::<f64>() / all;
        assert!((evaluation.normal_nll.unwrap().mean.unwrap() - mean).abs() < 1e-9);
        let text = serde_json::to_string(&evaluation).unwrap();
        assert_eq!(serde_json::from_str::<Evaluation>(&text).unwrap(), evaluation);
        assert!(evaluation.to_string().contains("effective"), "{evaluation}");
    }

    #[test]
    fn prior_out_of_range_is_refused() {
        for prior in [0.0, 1.0, f64::NAN] {
            let about = About { prior, ..About::default() };
            let error = Evaluation::new(about, &ramp(1.0), fixed(0.0)).unwrap_err();
            assert_eq!(error.exit_code(), 2);
        }
    }
}
