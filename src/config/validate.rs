//! Checks of the configuration that need no file.

use super::range::check;
use super::{
    Anomalies, BinnedThresholdConfig, Class, Config, Cut, CutBound, FineTune, Mode, ThresholdRule,
    Transform,
};
use crate::error::{Error, Fault, Result};

impl Cut {
    /// Checks the bounds of the cut with the key `name` as far as they are numbers.
    pub(super) fn validate(&self, name: &str) -> Result<()> {
        for (end, bound) in [("min", &self.min), ("max", &self.max)] {
            if let Some(CutBound::Number(bound)) = bound {
                // Every comparison with NaN is false: no row would remain.
                check(&format!("{name}.{end}"), bound, !bound.is_nan(), "a number")?;
            }
        }
        match (&self.min, &self.max) {
            (Some(CutBound::Number(min)), Some(CutBound::Number(max))) => {
                check(name, format!("min {min}, max {max}"), min < max, "min below max")
            }
            _ => Ok(()),
        }
    }
}

impl Config {
    /// Runs the checks that need no file.
    ///
    /// # Errors
    /// `Usage`, with the key and its value.
    pub(crate) fn validate(&self) -> Result<()> {
        self.flow_spec().validate().map_err(|e| {
            Fault::new("model out of limits")
                .column(e.field)
                .expected(e.expected)
                .found(e.found)
                .usage()
        })?;
        self.validate_features()?;
        self.validate_cuts()?;
        self.validate_split()?;
        self.validate_train()?;
        let watchdog = self.run.watchdog_seconds;
        let allowed = watchdog == 0.0 || (1.0..=1e6).contains(&watchdog);
        check("run.watchdog_seconds", watchdog, allowed, "0, or 1 to a million")?;
        self.validate_modes()?;
        self.validate_off_source()?;
        self.validate_score()?;
        self.thresholds.iter().try_for_each(BinnedThresholdConfig::validate)?;
        let quantile = self.calibration.quantile;
        check(
            "calibration.quantile",
            quantile,
            quantile > 0.0 && quantile < 1.0,
            "between 0 and 1",
        )?;
        let prior = self.calibration.prior;
        check("calibration.prior", prior, prior > 0.0 && prior < 1.0, "between 0 and 1")?;
        let bad = self.data.bad_rows;
        check("data.bad_rows", bad, (0.0..=1.0).contains(&bad), "between 0 and 1")
    }

    fn validate_features(&self) -> Result<()> {
        for (i, feature) in self.features.columns.iter().enumerate() {
            let name = &feature.name;
            if self.features.columns[..i].iter().any(|other| other.name == *name) {
                return Err(Fault::new("a duplicate feature").column(name).usage());
            }
            let offset = feature.offset;
            let allowed = offset == 0.0 || feature.transform == Transform::Ln;
            check(
                &format!("offset of {name}"),
                offset,
                allowed && offset >= 0.0,
                "0, or above 0 with transform = \"ln\"",
            )?;
            let exponent = feature.exponent;
            let allowed = (exponent != 0.0) == (feature.transform == Transform::Power);
            check(
                &format!("exponent of {name}"),
                exponent,
                allowed && exponent.is_finite(),
                "other than 0 with transform = \"power\", and only there",
            )?;
            let quantum = feature.quantum;
            check(
                &format!("quantum of {name}"),
                quantum,
                quantum.is_finite() && quantum >= 0.0,
                "0 or more",
            )?;
        }
        Ok(())
    }

    fn validate_cuts(&self) -> Result<()> {
        for (name, cut) in &self.cuts {
            cut.validate(&format!("cuts.{name}"))?;
        }
        Ok(())
    }

    fn validate_split(&self) -> Result<()> {
        let s = &self.split;
        let parts = [s.train, s.validation, s.calibration, s.test];
        for (name, part) in ["train", "validation", "calibration", "test"].iter().zip(parts) {
            check(&format!("split.{name}"), part, (0.0..=1.0).contains(&part), "between 0 and 1")?;
        }
        let sum: f64 = parts.iter().sum();
        check("sum of the fractions in [split]", sum, (sum - 1.0).abs() < 1e-9, "1")?;
        check("split.train", s.train, s.train > 0.0, "above 0")
    }

    fn validate_train(&self) -> Result<()> {
        let t = &self.train;
        check("train.epochs", t.epochs, t.epochs > 0, "1 or more")?;
        check("train.batch", t.batch, (1..=1 << 30).contains(&t.batch), "1 to 2³⁰")?;
        if let Some(shards) = t.shards {
            let allowed = shards.is_power_of_two() && shards <= 65_536 && shards <= t.batch;
            check("train.shards", shards, allowed, "a power of two, at most the batch and 65 536")?;
        }
        let rates = [
            ("train.learning_rate", t.learning_rate, t.learning_rate > 0.0, "above 0"),
            ("train.warm_up", t.warm_up, (0.0..1.0).contains(&t.warm_up), "at least 0, below 1"),
            ("train.final_rate", t.final_rate, (0.0..=1.0).contains(&t.final_rate), "0 to 1"),
            ("train.beta1", t.beta1, (0.0..1.0).contains(&t.beta1), "at least 0, below 1"),
            ("train.beta2", t.beta2, (0.0..1.0).contains(&t.beta2), "at least 0, below 1"),
            ("train.epsilon", t.epsilon, t.epsilon > 0.0, "above 0"),
            ("train.clip_norm", t.clip_norm, t.clip_norm > 0.0, "above 0"),
            ("train.ema", t.ema, (0.0..1.0).contains(&t.ema), "at least 0, below 1"),
        ];
        for (name, value, allowed, expected) in rates {
            check(name, value, allowed && value.is_finite(), expected)?;
        }
        Ok(())
    }
}

impl Config {
    /// Checks that mode, anomalies and fine-tuning match, and their numbers.
    fn validate_modes(&self) -> Result<()> {
        let mode = self.model.mode;
        if mode == Mode::Ratio && self.model.normal == Class::Hadron {
            return Err(wrong(
                "model.normal",
                "gamma: the score of a ratio is log p(gamma) − log p(hadron)",
            ));
        }
        let rule = self.calibration.rule;
        if let Some(ThresholdRule::GammaEfficiency(share) | ThresholdRule::HadronSurvival(share)) =
            rule
        {
            let allowed = share > 0.0 && share < 1.0;
            check("calibration.rule", share, allowed, "a share between 0 and 1")?;
        }
        self.calibration.observation()?;
        let is_usable = match self.calibration.rule {
            None => true,
            Some(ThresholdRule::GammaEfficiency(_)) => {
                mode == Mode::Ratio || self.model.normal == Class::Gamma
            }
            Some(_) => mode == Mode::Ratio,
        };
        if !is_usable {
            return Err(wrong("calibration.rule", "a rule that uses only classes of this mode"));
        }
        match (&self.anomalies, mode.is_synthetic()) {
            (None, true) => {
                return Err(wrong("anomalies", "a section [anomalies] with generators"));
            }
            (Some(_), false) => {
                return Err(wrong(
                    "anomalies",
                    "mode = \"synthetic-push\" or \"synthetic-ratio\", or no section [anomalies]",
                ));
            }
            (anomalies, _) => anomalies.iter().try_for_each(Anomalies::validate)?,
        }
        match (&self.fine_tune, mode) {
            (Some(_), Mode::OneClass) => {
                Err(wrong("fine_tune", "no section [fine_tune] with mode = \"one-class\""))
            }
            (None, Mode::SyntheticPush) => {
                Err(wrong("fine_tune", "a section [fine_tune]: the push follows the likelihood"))
            }
            (fine_tune, _) => fine_tune.iter().try_for_each(FineTune::validate),
        }
    }
}

fn wrong(name: &str, expected: &str) -> Error {
    Fault::new(format!("configuration: {name} does not fit the mode")).expected(expected).usage()
}
