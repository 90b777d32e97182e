//! Compares events with those that a model was trained on.
//!
//! It counts events outside of generous bounds, so that the result depends on the events alone:
//! - a feature differs if more than half of the events are outside its usual range in training,
//!   widened on both sides by a number of its widths;
//! - log p differs if more than half of the events are below the log p of the least likely 1 % of
//!   the held-out events, minus some nats.

use super::measured::significant;

/// With fewer events nothing is reported.
const MIN_EVENTS: u64 = 20;
/// A larger share of differing events is reported.
const MAX_UNLIKE: f64 = 0.5;

/// The usual values of one feature.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct FeatureBounds {
    pub name: String,
    pub unit: String,
    /// The 1 % and 99 % quantiles of the training events, in the unit.
    pub usual: [f64; 2],
    /// The bounds of the scaled coordinate, widened.
    pub low: f32,
    pub high: f32,
    /// Whether only the magnitude is compared.
    pub signed: bool,
}

/// Bounds that events are compared with.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Bounds {
    pub features: Vec<FeatureBounds>,
    /// The smallest log p of each flow that describes the events; `None` for other flows.
    pub min_log_prob: Vec<Option<f64>>, // (flows)
}

/// Counts of events, and of those outside the bounds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct LikenessTally {
    pub events: u64,
    pub outside: Vec<u64>, // (features)
    /// Events with a log p below the bound in every flow that has one.
    pub unlikely: u64,
}

impl LikenessTally {
    /// Adds an event with scaled features and log p (flows).
    pub(crate) fn add(
        &mut self,
        bounds: &Bounds,
        scaled: &[f32],
        log_prob: impl Iterator<Item = f32>,
    ) {
        self.events += 1;
        self.outside.resize(bounds.features.len(), 0);
        for ((count, bound), z) in self.outside.iter_mut().zip(&bounds.features).zip(scaled) {
            let z = if bound.signed { z.abs() } else { *z };
            *count += u64::from(!(bound.low..=bound.high).contains(&z));
        }
        let mut compared = bounds.min_log_prob.iter().zip(log_prob);
        let likely = |(least, l): (&Option<f64>, f32)| least.is_some_and(|m| f64::from(l) >= m);
        self.unlikely += u64::from(!compared.any(likely));
    }

    /// Returns the counts in a fixed order, for a sum over ranks.
    pub(crate) fn words(&self, features: usize) -> Vec<i64> {
        let mut words = vec![self.events as i64, self.unlikely as i64];
        words.extend(self.outside.iter().map(|n| *n as i64));
        words.resize(2 + features, 0);
        words
    }

    pub(crate) fn from_words(words: &[i64]) -> LikenessTally {
        let word = |i: usize| words.get(i).map_or(0, |n| *n as u64);
        let outside = words.iter().skip(2).map(|n| *n as u64).collect();
        LikenessTally { events: word(0), unlikely: word(1), outside }
    }

    /// Describes the differences from the training events; `None` without any, or with too few
    /// events.
    pub(crate) fn describe(&self, bounds: &Bounds) -> Option<String> {
        let share = |count: u64| count as f64 / self.events as f64;
        if self.events < MIN_EVENTS {
            return None;
        }
        let number = |x: f64| significant(x, 3);
        let percent = |count: u64| significant(100.0 * share(count), 2);
        let mut found = Vec::new();
        for (bound, count) in bounds.features.iter().zip(&self.outside) {
            if share(*count) > MAX_UNLIKE {
                let FeatureBounds { name, unit, usual: [low, high], .. } = bound;
                let (low, high, percent) = (number(*low), number(*high), percent(*count));
                found.push(format!("{name} far outside {low} to {high} {unit} in {percent} %"));
            }
        }
        let least = bounds.min_log_prob.iter().flatten();
        let least = least.copied().reduce(f64::min);
        if let (Some(least), true) = (least, share(self.unlikely) > MAX_UNLIKE) {
            let percent = percent(self.unlikely);
            found.push(format!("log p below {} in {percent} %", number(least)));
        }
        let found = found.join("; ");
        (!found.is_empty()).then(|| {
            format!(
                "{} events are unlike those that the model was trained on: {found}",
                self.events
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use taiga_flow_gpu::random::Stream;

    fn bounds() -> Bounds {
        let feature = |name: &str| FeatureBounds {
            name: name.to_string(),
            unit: "deg".to_string(),
            usual: [0.1, 0.9],
            low: -6.0,
            high: 6.0,
            signed: name == "skewness",
        };
        Bounds {
            features: ["width", "skewness"].map(feature).to_vec(),
            min_log_prob: vec![Some(-60.0), None],
        }
    }

    fn tally(events: u64, shift: f64, log_prob: f64) -> LikenessTally {
        let seed = crate::test_seed();
        let (stream, bounds) = (Stream::new(seed, "likeness", &[]), bounds());
        let mut tally = LikenessTally::default();
        for i in 0..events {
            let draw = |k: u64| stream.normal(3 * i + k);
            let scaled = [(shift + draw(0)) as f32, draw(1) as f32];
            let log_prob = [(log_prob + draw(2)) as f32, 1e9];
            tally.add(&bounds, &scaled, log_prob.into_iter());
        }
        tally
    }

    #[test]
    fn shifted_feature_and_low_log_p_are_named() {
        let text = |t: &LikenessTally| t.describe(&bounds());
        assert_eq!(text(&tally(1000, 0.0, -9.0)), None);
        assert_eq!(text(&tally(1000, 5.0, -50.0)), None);
        let shifted = text(&tally(1000, 9.0, -9.0)).unwrap();
        assert!(shifted.contains("width far outside 0.1") && !shifted.contains("skewness"));
        assert!(!shifted.contains("log p"), "{shifted}");
        let unlikely = text(&tally(1000, 0.0, -1692.0)).unwrap();
        assert!(unlikely.contains("log p below -60") && unlikely.contains("100 %"), "{unlikely}");
        assert_eq!(text(&tally(19, 9.0, -1692.0)), None);
    }

    #[test]
    fn tally_of_ranks_is_the_sum_of_words() {
        let (one, other) = (tally(100, 9.0, -9.0), tally(50, 0.0, -99.0));
        let words = one.words(2).into_iter().zip(other.words(2)).map(|(a, b)| a + b);
        let sum = LikenessTally::from_words(&words.collect::<Vec<_>>());
        assert_eq!([sum.events, sum.unlikely], [150, one.unlikely + other.unlikely]);
        assert_eq!(sum.outside[0], one.outside[0] + other.outside[0]);
        assert_eq!(LikenessTally::default().words(2), [0; 4]);
    }
}
