//! Flows, populations and stages of each training mode.
//!
//! All flows of a model have one specification, one set of coordinates and one scaler, so that
//! their log p have the same measure. They are trained together: each step has a batch of each
//! population. The parameters of all flows are stored one after the other.

use crate::config::{Class, Config, FineTune, Mode, Train};
use std::ops::Range;

/// A flow of the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlowPlan {
    pub name: &'static str,
    /// Class that the flow represents; a flow of anomalies represents the other class.
    pub class: Class,
    /// Index of the population whose density it learns.
    pub population: usize,
}

/// Origin of the events of a population.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Population {
    /// Events of a class in the files.
    Real(Class),
    /// Anomalies made from the events of the first population.
    Synthetic,
}

impl Population {
    /// Returns the class of real events.
    pub(crate) fn class(self) -> Option<Class> {
        match self {
            Population::Real(class) => Some(class),
            Population::Synthetic => None,
        }
    }
}

/// Loss that a stage minimises.
#[derive(Debug, Clone, PartialEq)]
pub enum Objective {
    /// Negative log-likelihood of each flow on its own population.
    Likelihood,
    /// Likelihood, and anomalies are pushed below a quantile of normal events.
    Push(FineTune),
    /// Likelihood, and the cross-entropy of the difference of the two log-likelihoods.
    CrossEntropy(FineTune),
}

impl FlowPlan {
    /// Returns the range of its parameters, if each flow has `parameters`.
    pub(crate) fn range(index: usize, parameters: usize) -> Range<usize> {
        index * parameters..(index + 1) * parameters
    }
}

/// Returns the flows of a mode; the first represents the normal class.
pub(crate) fn flows(mode: Mode, normal: Class) -> Vec<FlowPlan> {
    let first = |name| FlowPlan { name, class: normal, population: 0 };
    let other = |name| FlowPlan { name, class: normal.other(), population: 1 };
    match (mode, normal) {
        (Mode::OneClass | Mode::SyntheticPush, _) => vec![first("main")],
        (Mode::SyntheticRatio, Class::Gamma) => vec![first("gamma"), other("anomaly")],
        (Mode::SyntheticRatio, Class::Hadron) => vec![first("hadron"), other("anomaly")],
        (Mode::Ratio, _) => vec![first("gamma"), other("hadron")],
    }
}

/// Returns the populations of a mode; the first is the normal class.
pub(crate) fn populations(mode: Mode, normal: Class) -> Vec<Population> {
    let first = Population::Real(normal);
    match mode {
        Mode::OneClass => vec![first],
        Mode::SyntheticPush | Mode::SyntheticRatio => vec![first, Population::Synthetic],
        Mode::Ratio => vec![first, Population::Real(normal.other())],
    }
}

/// Returns the stages of a training in order.
pub(crate) fn stages(config: &Config) -> Vec<Objective> {
    let fine_tune = config.fine_tune.clone().map(|fine_tune| match config.model.mode {
        Mode::SyntheticPush => Objective::Push(fine_tune),
        _ => Objective::CrossEntropy(fine_tune),
    });
    [Objective::Likelihood].into_iter().chain(fine_tune).collect()
}

impl Objective {
    /// Returns the name of the stage in metrics.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Objective::Likelihood => "likelihood",
            Objective::Push(_) => "push",
            Objective::CrossEntropy(_) => "cross-entropy",
        }
    }

    /// Returns the settings of a fine-tuning stage.
    pub(crate) fn fine_tune(&self) -> Option<&FineTune> {
        match self {
            Objective::Likelihood => None,
            Objective::Push(fine_tune) | Objective::CrossEntropy(fine_tune) => Some(fine_tune),
        }
    }

    /// Returns the settings of the optimiser in this stage.
    pub(crate) fn settings(&self, train: &Train) -> Train {
        match self.fine_tune() {
            None => train.clone(),
            Some(f) => Train {
                epochs: f.epochs,
                learning_rate: f.learning_rate,
                patience: f.patience,
                ..train.clone()
            },
        }
    }

    /// Returns the weight of the term in addition to the likelihood, at step `step` of `steps` of
    /// the stage.
    pub(crate) fn weight(&self, step: u64, steps: u64) -> f64 {
        let Some(f) = self.fine_tune() else { return 0.0 };
        let ramp = f.ramp * steps as f64;
        if ramp > 0.0 { f.weight * ((step as f64 + 1.0) / ramp).min(1.0) } else { f.weight }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flow_has_population_first_is_normal() {
        for mode in [Mode::OneClass, Mode::SyntheticPush, Mode::SyntheticRatio, Mode::Ratio] {
            for normal in [Class::Gamma, Class::Hadron] {
                let (flows, populations) = (flows(mode, normal), populations(mode, normal));
                assert!(flows.iter().all(|f| f.population < populations.len()));
                assert_eq!(flows[0].class, normal);
                assert_eq!(populations[0], Population::Real(normal));
                assert_eq!(flows.len() == 2, mode.is_ratio());
            }
        }
    }

    #[test]
    fn weight_rises_during_ramp_then_is_constant() {
        let fine_tune = FineTune { weight: 3.0, ramp: 0.5, ..FineTune::default() };
        let stage = Objective::CrossEntropy(fine_tune.clone());
        assert!((stage.weight(0, 100) - 0.06).abs() < 1e-12);
        assert!((stage.weight(49, 100) - 3.0).abs() < 1e-12);
        assert!((stage.weight(99, 100) - 3.0).abs() < 1e-12);
        let at_once = Objective::Push(FineTune { ramp: 0.0, ..fine_tune });
        assert!((at_once.weight(0, 100) - 3.0).abs() < 1e-12);
        assert!(Objective::Likelihood.weight(7, 9).abs() < 1e-12);
    }
}
