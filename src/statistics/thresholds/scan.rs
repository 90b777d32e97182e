//! Scans over thresholds: efficiencies, Q, and the expected counts and significance of an
//! observation.

use crate::config::Observation;
use crate::statistics::confusion::quality;
use crate::statistics::{Class, Expected, Measured, Roc, Sample, Threshold};
use serde::{Deserialize, Serialize};

/// Hadron survivals of the rows; those with fewer than ten hadrons are omitted.
const SURVIVALS: [f64; 17] = [
    1.0, 0.5, 0.3, 0.2, 0.1, 0.05, 0.03, 0.02, 0.01, 5e-3, 3e-3, 2e-3, 1e-3, 5e-4, 3e-4, 2e-4, 1e-4,
];

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Scan {
    /// Rates and time of the expected counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observation: Option<Observation>,
    /// Rows of ascending threshold.
    pub points: Vec<ScanPoint>,
}

/// One row; efficiencies are relative to the events inside the cuts.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct ScanPoint {
    pub threshold: f64,
    /// Whether it is the threshold of the model, and not one of a round hadron survival.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub own: bool,
    pub gamma_efficiency: Measured,
    pub hadron_survival: Measured,
    /// Number of passing hadrons.
    pub hadrons: u64,
    pub quality: Measured,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected: Option<Expected>,
}

impl Scan {
    /// Scans a sample, including the threshold of the model; `None` if a class is empty or there
    /// are fewer than ten hadrons.
    pub(crate) fn of(
        sample: &Sample,
        threshold: Threshold,
        observation: Option<Observation>,
    ) -> Option<Scan> {
        let roc = Roc::of(sample);
        let expected =
            |gamma: f64, hadron: f64| observation.as_ref().map(|o| Expected::of(o, gamma, hadron));
        let mut points: Vec<ScanPoint> = Vec::new();
        for point in SURVIVALS.iter().filter_map(|s| roc.at_hadron_survival(*s)) {
            let (gamma, hadron) = (point.gamma_efficiency, point.hadron_survival);
            points.push(ScanPoint {
                threshold: point.threshold,
                own: false,
                gamma_efficiency: gamma,
                hadron_survival: hadron,
                hadrons: point.hadrons,
                quality: point.quality(),
                expected: expected(gamma.value, hadron.value),
            });
        }
        points.dedup_by(|b, a| b.threshold <= a.threshold);
        if points.is_empty() {
            return None;
        }
        let passing = |class: Class| {
            let first = sample.of(class).partition_point(|s| *s < threshold.value);
            sample.from(class, first)
        };
        let hadrons = passing(Class::Hadron);
        let gamma = Measured::share(passing(Class::Gamma), roc.gammas)?;
        let hadron = Measured::share(hadrons, roc.hadrons)?;
        if hadron.value > 0.0 {
            points.push(ScanPoint {
                threshold: threshold.value,
                own: true,
                gamma_efficiency: gamma,
                hadron_survival: hadron,
                hadrons: hadrons.events,
                quality: quality(gamma, hadron),
                expected: expected(gamma.value, hadron.value),
            });
        }
        points.sort_by(|a, b| a.threshold.total_cmp(&b.threshold));
        Some(Scan { observation, points })
    }

    /// Returns the index of the row with the largest expected significance.
    pub(crate) fn best(&self) -> Option<usize> {
        let values = self.points.iter().enumerate();
        let values = values.filter_map(|(i, p)| Some((i, p.expected?.significance)));
        values.max_by(|a, b| a.1.total_cmp(&b.1)).map(|(i, _)| i)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statistics::Rule;
    use taiga_flow_gpu::random::Stream;

    #[test]
    fn scan_rows_are_efficiencies_and_counts() {
        let seed = crate::test_seed();
        let stream = Stream::new(seed, "scan", &[]);
        let gamma: Vec<bool> = (0..6000).map(|i| i % 3 == 0).collect();
        let score = |(i, g): (usize, &bool)| stream.normal(i as u64) + if *g { 2.0 } else { 0.0 };
        let scores: Vec<f64> = gamma.iter().enumerate().map(score).collect();
        let sample = Sample::new(&scores, &gamma).unwrap();
        let own = Rule::Fixed { value: 1.25 }.choose(&sample).unwrap();
        let o = Observation::new(str::to_string, [3.0, 500.0, 20.0], 5).unwrap();
        let o = o.with_inside([0.5, 0.25]);
        let scan = Scan::of(&sample, own, Some(o)).unwrap();
        assert!((12..=20).contains(&scan.points.len()), "{}", scan.points.len());
        assert_eq!(scan.points.iter().filter(|p| p.own).count(), 1);
        assert!(scan.points.windows(2).all(|w| w[0].threshold <= w[1].threshold));
        for point in &scan.points {
            let passing =
                |of: Class| sample.of(of).iter().filter(|s| **s >= point.threshold).count() as f64;
            let (g, h) = (passing(Class::Gamma) / 2000.0, passing(Class::Hadron) / 4000.0);
            assert!((point.gamma_efficiency.value - g).abs() < 1e-12);
            assert!((point.hadron_survival.value - h).abs() < 1e-12);
            assert!((point.quality.value - g / h.sqrt()).abs() < 1e-9);
            let expected = point.expected.unwrap();
            assert!((expected.off - 5.0 * 10_000.0 * 0.25 * h).abs() < 1e-6);
            assert!((expected.on - 60.0 * 0.5 * g - expected.off / 5.0).abs() < 1e-6);
        }
        let best = scan.points[scan.best().unwrap()].expected.unwrap().significance;
        assert!(scan.points.iter().all(|p| p.expected.unwrap().significance <= best));
        assert_eq!(Scan::of(&Sample::default(), own, None), None);
        let text = serde_json::to_string(&scan).unwrap();
        assert_eq!(serde_json::from_str::<Scan>(&text).unwrap(), scan);
    }
}
