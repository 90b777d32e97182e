//! Warnings of an evaluation: small samples, and scores that do not separate.

use super::measured::significant;
use super::roc::{Auc, MIN_HADRONS, auc_text, enough};
use super::{Class, ClassCounts, Sample, Threshold};

/// A smaller share of effective events causes a warning.
const FEW_EFFECTIVE: f64 = 0.1;

/// Values of an evaluation that its warnings depend on.
pub(super) struct WarningBasis<'a> {
    pub(super) sample: &'a Sample,
    pub(super) threshold: Threshold,
    pub(super) auc: Option<Auc>,
    /// Effective gammas and hadrons, if events have weights.
    pub(super) effective: Option<[f64; 2]>,
    /// The class modelled, in one-class modes.
    pub(super) normal: Option<Class>,
    /// Hadrons that pass the threshold.
    pub(super) passing: u64,
}

impl WarningBasis<'_> {
    /// Returns all warnings.
    pub(super) fn warnings(&self) -> Vec<String> {
        let parts = [
            self.empty_classes(),
            self.few_effective(),
            self.inverted(),
            self.limited(),
            self.few_passing(),
            self.excluded(),
            self.infinite(),
        ];
        parts.into_iter().flatten().collect()
    }

    /// Returns a warning if too few hadrons pass the threshold.
    fn few_passing(&self) -> Option<String> {
        let (passing, all) = (self.passing, self.sample.counts().hadron);
        let first = self.sample.hadron().partition_point(|s| *s < self.threshold.value);
        let scarce = all > 0 && !enough(&self.sample.from(Class::Hadron, first));
        let by_weight = match self.effective {
            Some(_) => format!(", by weight fewer than {MIN_HADRONS} effective ones"),
            None => String::new(),
        };
        scarce.then(|| {
            format!(
                "Hadrons that pass the threshold: {passing} of {all}{by_weight}. Hadron survival, \
                 Q and purity are not well measured here."
            )
        })
    }

    /// Returns a warning if scores are NaN.
    fn excluded(&self) -> Option<String> {
        let excluded = self.sample.excluded();
        (excluded != ClassCounts::default()).then(|| {
            format!(
                "Excluded from all metrics because their score is NaN: {} gammas, {} hadrons.",
                excluded.gamma, excluded.hadron
            )
        })
    }

    /// Returns a warning if scores are infinite.
    fn infinite(&self) -> Option<String> {
        let infinite = self.sample.infinite();
        (infinite > 0)
            .then(|| format!("Infinite scores, set to the ends of the range: {infinite}."))
    }

    /// Returns a warning if a class has no events.
    fn empty_classes(&self) -> Option<String> {
        let counts = self.sample.counts();
        let what = match (counts.gamma, counts.hadron) {
            (0, 0) => "No event has a score",
            (0, _) => "There are no gammas",
            (_, 0) => "There are no hadrons",
            _ => return None,
        };
        Some(format!("{what}: metrics that need both classes are absent."))
    }

    /// Returns a warning if the weights leave only a few effective events.
    fn few_effective(&self) -> Option<String> {
        let [gamma, hadron] = self.effective?;
        let counts = self.sample.counts();
        let few = |n: f64, of: u64| of > 0 && n < FEW_EFFECTIVE * of as f64;
        (few(gamma, counts.gamma) || few(hadron, counts.hadron)).then(|| {
            format!(
                "The weights leave {} effective gammas of {} and {} effective hadrons of {}: a \
                 few events dominate, and errors are themselves uncertain.",
                significant(gamma, 3),
                counts.gamma,
                significant(hadron, 3),
                counts.hadron
            )
        })
    }

    /// Returns a warning if the choice of the threshold was limited by the number of held-out
    /// hadrons.
    fn limited(&self) -> Option<String> {
        let limit = self.threshold.limit_text()?;
        Some(format!(
            "The threshold is {limit}: its rule requires that {MIN_HADRONS} hadrons \
             pass, and a higher threshold may be better. Hold out more hadrons (split.calibration), or \
             choose from the scan."
        ))
    }

    /// Returns a warning if the score does not separate, or is inverted.
    fn inverted(&self) -> Option<String> {
        let auc = self.auc?;
        let sigmas = auc.sigmas_above_half()?;
        if sigmas > 3.0 || auc.value >= 1.0 {
            return None;
        }
        let area = auc_text(&auc);
        let mut text = if sigmas < -3.0 {
            format!(
                "AUC {area} is below 0.5: the score is inverted, gammas score lower \
                 than hadrons."
            )
        } else {
            format!("AUC {area} is compatible with 0.5: the score does not separate.")
        };
        if self.normal == Some(Class::Hadron) {
            text.push_str(
                " This is expected with hadrons as the normal class: gammas are inside the \
                 dense core of the hadron cloud, so a low likelihood does not mark them.",
            );
        }
        text.push_str(" Do not select gammas with it.");
        Some(text)
    }
}
