//! Measures the value of each feature to a model.
//!
//! Models are trained with all features and with each one left out, for several seeds, and
//! evaluated on the same events.
//!
//! This differs from the reliance of one model on a feature (`evaluate --importance`): a model
//! trained without a feature uses the features that are correlated with it.

use super::sweep_points::SweepPoint;
use crate::config::{Config, Feature};
use crate::error::{Fault, Result};
use crate::storage;
use serde::Serialize;
use std::fmt::Write;
use std::path::Path;

pub(super) const TABLE: &str = "leave-one-out.tsv";
pub(super) const TABLE_START: &str = "feature\tseeds\t";
/// Name of the set of all features.
pub(super) const NOTHING: &str = "-";

/// A training of a sweep: the displayed settings and the overridden keys.
#[derive(Debug, Clone, PartialEq)]
pub struct Planned {
    pub shown: Vec<String>,
    pub set: Vec<String>,
}

/// The difference of AUC between models with all features and models without one.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Worth {
    pub feature: String,
    /// Number of seeds with which both sets were trained and evaluated.
    pub seeds: u64,
    /// Mean AUC without the feature, over the seeds.
    pub auc_without: f64,
    /// Mean loss of AUC, over the seeds.
    pub lost: f64,
    /// Standard deviation of the loss over the seeds; absent with one.
    pub spread: Option<f64>,
    /// Standard error of the mean, `spread`/√seeds.
    pub error: Option<f64>,
}

/// Returns the trainings: all features first, then without each of them, `seeds` of each set.
///
/// # Errors
/// A usage error with one feature.
pub(super) fn plan(config: &Config, seeds: u64) -> Result<Vec<Planned>> {
    let columns = &config.features.columns;
    if columns.len() < 2 {
        return Err(Fault::new("no feature can be left out")
            .expected("two features or more in [features] columns")
            .found(columns.len())
            .usage());
    }
    let mut planned = Vec::new();
    for left_out in std::iter::once(None).chain(columns.iter().map(Some)) {
        let name = left_out.map_or(NOTHING, |feature| &feature.name);
        let kept = columns.iter().filter(|f| Some(f.name.as_str()) != left_out.map(|l| &*l.name));
        let columns = format!("features.columns={}", inline(kept)?);
        for seed in (0..seeds).map(|i| config.train.seed + i) {
            let seed = format!("train.seed={seed}");
            let all = left_out.is_none();
            let set = if all { vec![seed.clone()] } else { vec![columns.clone(), seed.clone()] };
            planned.push(Planned { shown: vec![format!("without={name}"), seed], set });
        }
    }
    Ok(planned)
}

/// Formats features as the value of a TOML key, on one line.
fn inline<'a>(features: impl Iterator<Item = &'a Feature>) -> Result<String> {
    let broken = |e: toml::ser::Error| Fault::new("cannot write the features").found(e).internal();
    let tables = features.map(toml::Value::try_from).collect::<Result<Vec<_>, _>>();
    Ok(toml::Value::Array(tables.map_err(broken)?).to_string())
}

/// Returns the value of each feature, the largest first, from the points of a sweep; features
/// without an AUC of the same seed in both sets are omitted.
pub(super) fn worth(points: &[SweepPoint]) -> Vec<Worth> {
    let of = |point: &SweepPoint, key: &str| {
        let value = point.settings.iter().find_map(|s| s.strip_prefix(key)?.strip_prefix('='));
        value.unwrap_or_default().to_string()
    };
    let mut names: Vec<String> = points.iter().map(|p| of(p, "without")).collect();
    names.dedup();
    let auc = |name: &str, seed: &str| {
        let wanted = |p: &&SweepPoint| of(p, "without") == name && of(p, "train.seed") == seed;
        points.iter().find(wanted).and_then(|p| p.auc)
    };
    let mut all = Vec::new();
    for name in names.into_iter().filter(|name| name != NOTHING) {
        let seeds = points.iter().filter(|p| of(p, "without") == name);
        let pairs = seeds.filter_map(|p| Some((auc(NOTHING, &of(p, "train.seed"))?, p.auc?)));
        let pairs: Vec<(f64, f64)> = pairs.collect();
        if pairs.is_empty() {
            continue;
        }
        let count = pairs.len() as f64;
        let lost: Vec<f64> = pairs.iter().map(|(with, without)| with - without).collect();
        let mean = lost.iter().sum::<f64>() / count;
        let squares: f64 = lost.iter().map(|x| (x - mean) * (x - mean)).sum();
        let spread = (lost.len() > 1).then(|| (squares / (count - 1.0)).sqrt());
        all.push(Worth {
            feature: name,
            seeds: pairs.len() as u64,
            auc_without: pairs.iter().map(|(_, without)| without).sum::<f64>() / count,
            lost: mean,
            spread,
            error: spread.map(|spread| spread / count.sqrt()),
        });
    }
    all.sort_by(|a, b| b.lost.total_cmp(&a.lost));
    all
}

/// Writes the table of all features: one line each, fields separated by tabs.
pub(super) fn write_table(worth: &[Worth], folder: &Path) -> Result<()> {
    let own = folder.join(format!(".{TABLE}-{}", std::process::id()));
    storage::write_file(&own, table(worth).as_bytes())?;
    storage::move_to(&own, &folder.join(TABLE))
}

fn table(worth: &[Worth]) -> String {
    let mut text = "feature\tseeds\tauc_without\tauc_lost\tspread\terror\n".to_string();
    for w in worth {
        let number = |x: Option<f64>| x.map_or("-".to_string(), |x| format!("{x:.6}"));
        let _ = writeln!(
            text,
            "{}\t{}\t{:.6}\t{:.6}\t{}\t{}",
            w.feature,
            w.seeds,
            w.auc_without,
            w.lost,
            number(w.spread),
            number(w.error)
        );
    }
    text
}

/// Formats the values of the features as text, the largest first.
pub(super) fn text(worth: &[Worth]) -> String {
    let mut text =
        "AUC lost by training without a feature, mean over seeds ± its error (of the seeds, not of the test sample):\n".to_string();
    for w in worth {
        let error = w.error.map_or("(one seed)".to_string(), |e| format!("± {e:.4}"));
        let spread = w.spread.map_or(String::new(), |s| format!(", spread over seeds {s:.4}"));
        let _ = writeln!(text, "  {:<20}{:>9.4} {error}{spread}", w.feature, w.lost);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::sweep_points::PointState;
    use crate::config;
    use crate::train::run::run_status::State;

    const TOML: &str = r#"
        data.mixed = ["a.h5"]
        train.seed = 5
        [features]
        columns = [
          { name = "size", transform = "log10" },
          { name = "width", transform = "ln", offset = 0.01 },
          { name = "dist" },
        ]
    "#;

    fn point(settings: &[&str], auc: f64) -> SweepPoint {
        SweepPoint {
            number: 0,
            settings: settings.iter().map(|s| (*s).to_string()).collect(),
            run: "run".into(),
            state: PointState::Run(State::Finished),
            ended: None,
            epochs: 1,
            best_epoch: None,
            validation_nll: None,
            threshold: None,
            model_blake3: None,
            auc: Some(auc),
        }
    }

    #[test]
    fn every_feature_is_left_out_once_per_seed() {
        let config = config::parse(TOML, &[]).unwrap();
        let planned = plan(&config, 2).unwrap();
        assert_eq!(planned.len(), 8);
        assert_eq!(planned[1].shown, ["without=-", "train.seed=6"]);
        assert_eq!(planned[4].shown, ["without=width", "train.seed=5"]);
        let set = config::parse(TOML, &planned[4].set).unwrap();
        let mut expected = config.clone();
        expected.features.columns.remove(1);
        assert_eq!(set, expected, "all other settings are equal");
        let full = config::parse(TOML, &planned[0].set).unwrap();
        assert_eq!(full, config);
        let mut one = config;
        one.features.columns.truncate(1);
        assert_eq!(plan(&one, 2).unwrap_err().exit_code(), 2);
    }

    #[test]
    fn worth_is_the_mean_difference_with_its_spread() {
        let points = [
            point(&["without=-", "train.seed=1"], 0.90),
            point(&["without=-", "train.seed=2"], 0.92),
            point(&["without=a", "train.seed=1"], 0.89),
            point(&["without=a", "train.seed=2"], 0.89),
            point(&["without=b", "train.seed=1"], 0.70),
            point(&["without=b", "train.seed=3"], 0.10),
        ];
        let worth = worth(&points);
        let names: Vec<&str> = worth.iter().map(|w| w.feature.as_str()).collect();
        assert_eq!(names, ["b", "a"], "most first; a seed without its pair is left out");
        assert!((worth[0].lost - 0.2).abs() < 1e-12 && worth[0].spread.is_none());
        // 0.01 and 0.03.
        assert!((worth[1].lost - 0.02).abs() < 1e-12);
        assert!((worth[1].spread.unwrap() - 0.02 / 2.0_f64.sqrt()).abs() < 1e-12);
        assert!((worth[1].error.unwrap() - 0.01).abs() < 1e-12);
        assert_eq!(table(&worth).lines().count(), 3);
    }
}
