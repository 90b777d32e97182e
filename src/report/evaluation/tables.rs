//! Tables of one evaluation.

use super::mixture;
use crate::report::elements::{ReportTable, heads};
use crate::report::format::{dash, measured, number};
use crate::statistics::comparison::baseline::Baseline;
use crate::statistics::confusion::PositiveClass;
use crate::statistics::evaluation::Importance;
use crate::statistics::latent::{Departure, LatentAxis, LatentPoints};
use crate::statistics::measured::{compared, grouped, probability};
use crate::statistics::roc::auc_text;
use crate::statistics::survival::AtSurvival;
use crate::statistics::thresholds::bins::{AtBin, AtBins, range_text};
use crate::statistics::thresholds::reliability::ReliabilityBin;
use crate::statistics::thresholds::scan::ScanPoint;
use crate::statistics::{
    Auc, ClassCounts, CutsBaseline, Evaluation, Expected, FileCounts, Measured, Scan, Selected,
    Separation,
};

const MAX_FILES: usize = 200;

/// Lists the confusion matrix.
pub(super) fn confusion(evaluation: &Evaluation) -> ReportTable {
    let c = &evaluation.at_threshold.confusion;
    ReportTable {
        title: "Confusion matrix at the threshold".into(),
        head: heads(&["true class", "classified as gamma", "classified as hadron", "all"]),
        rows: vec![
            confusion_row("gamma", c.gamma_as_gamma, c.gamma_as_hadron),
            confusion_row("hadron", c.hadron_as_gamma, c.hadron_as_hadron),
        ],
    }
}

/// Formats a row of the confusion matrix.
fn confusion_row(name: &str, a: u64, b: u64) -> Vec<String> {
    vec![name.to_owned(), grouped(a), grouped(b), grouped(a + b)]
}

/// Lists precision and recall of both classes.
pub(super) fn positives(evaluation: &Evaluation) -> ReportTable {
    let at = &evaluation.at_threshold;
    ReportTable {
        title: format!("Precision and recall at the threshold, for {}", mixture(evaluation.counts)),
        head: heads(&["positive class", "precision", "recall", "F1"]),
        rows: vec![positive_row(&at.gamma_positive), positive_row(&at.hadron_positive)],
    }
}

/// Formats precision, recall and F1 of a class.
fn positive_row(of: &PositiveClass) -> Vec<String> {
    let f1 = dash(of.f1, |x| number(x, 3));
    vec![of.positive.to_string(), measured(of.precision), measured(of.recall), f1]
}

/// Lists efficiencies, Q and purity.
pub(super) fn separations(evaluation: &Evaluation) -> ReportTable {
    let at = &evaluation.at_threshold;
    let mut rows: Vec<Vec<String>> =
        vec![separation_row("events after the pre-cuts", &at.after_cuts)];
    if let Some(before) = &at.before_cuts {
        rows.push(separation_row("triggered and cleaned events", before));
    }
    let prior = format!("purity at {}", at.after_cuts.prior);
    let head =
        ["relative to", "gammas / hadrons", "gamma efficiency", "hadron survival", "Q", &prior];
    ReportTable { title: "Efficiencies at the threshold".into(), head: heads(&head), rows }
}

/// Formats efficiencies, Q and purity.
fn separation_row(name: &str, s: &Separation) -> Vec<String> {
    let of = format!("{} / {}", grouped(s.of.gamma), grouped(s.of.hadron));
    let figures = [s.gamma_efficiency, s.hadron_survival, s.quality, s.purity].map(measured);
    [name.to_owned(), of].into_iter().chain(figures).collect()
}

/// Lists the working points at given hadron survivals.
pub(super) fn survivals(evaluation: &Evaluation) -> ReportTable {
    let rows = evaluation.at_survival.iter().map(|at| {
        let few = || evaluation.why_no_survival();
        vec![
            at.hadron_survival.to_string(),
            dash(at.point, |p| p.gamma_efficiency.to_string()),
            dash(at.point, |p| p.quality().to_string()),
            at.point.map_or_else(few, |p| grouped(p.hadrons)),
            dash(at.point, |p| number(p.threshold, 5)),
        ]
    });
    ReportTable {
        title: "Gamma efficiency at given hadron survival".into(),
        head: heads(&[
            "hadron survival",
            "gamma efficiency",
            "Q",
            "hadrons that pass",
            "threshold",
        ]),
        rows: rows.collect(),
    }
}

/// Lists other thresholds, with the expected counts of an observation.
pub(super) fn scan(scan: &Scan) -> ReportTable {
    let (best, is_expected) = (scan.best(), scan.observation.is_some());
    let points = scan.points.iter().enumerate();
    let mut head =
        vec!["threshold", "gamma efficiency", "hadron survival", "hadrons that pass", "Q"];
    if is_expected {
        head.extend(["N_on", "N_off", "σ", "5 σ at this × the gamma rate"]);
    }
    head.push("");
    let title = match &scan.observation {
        Some(o) => format!("Scan over thresholds; counts expected of {o}"),
        None => "Scan over thresholds".to_owned(),
    };
    ReportTable {
        title,
        head: heads(&head),
        rows: points.map(|(i, point)| scan_row(point, best == Some(i), is_expected)).collect(),
    }
}

/// Formats a threshold of the scan, with expected counts if there is an observation.
fn scan_row(point: &ScanPoint, is_best: bool, is_expected: bool) -> Vec<String> {
    let notes = [(point.own, "of the model"), (is_best, "largest σ")];
    let notes: Vec<&str> = notes.iter().filter(|(is, _)| *is).map(|(_, n)| *n).collect();
    let mut row = vec![
        number(point.threshold, 5),
        measured(Some(point.gamma_efficiency)),
        measured(Some(point.hadron_survival)),
        grouped(point.hadrons),
        measured(Some(point.quality)),
    ];
    if is_expected {
        let of = |figure: fn(&Expected) -> f64, digits| {
            dash(point.expected.as_ref(), |e| number(figure(e), digits))
        };
        let reach = point.expected.and_then(|e| e.sensitivity);
        row.extend([of(|e| e.on, 4), of(|e| e.off, 4), of(|e| e.significance, 3)]);
        row.push(dash(reach, |r| number(r, 3)));
    }
    row.push(notes.join(", "));
    row
}

/// Lists the thresholds by bins, with their results.
pub(super) fn by_bins(at: &AtBins) -> ReportTable {
    let of_bin = |(i, bin): (usize, &AtBin)| {
        let note = if bin.global { ", threshold of all" } else { "" };
        let threshold = format!("{}{note}", number(bin.threshold, 5));
        let auc = dash(bin.auc.as_ref(), auc_text);
        bin_row(range_text(&at.edges, i), auc, threshold, &bin.after_cuts)
    };
    let mut rows: Vec<Vec<String>> = at.bins.iter().enumerate().map(of_bin).collect();
    rows.push(bin_row("all bins".into(), "–".into(), "of its bin".into(), &at.all.after_cuts));
    if let Some(before) = &at.all.before_cuts {
        rows.push(bin_row("of all triggered".into(), "–".into(), "of its bin".into(), before));
    }
    ReportTable {
        title: format!("Thresholds per bin of {}", at.per),
        head: heads(&[
            &at.per,
            "gammas / hadrons",
            "AUC",
            "threshold",
            "gamma efficiency",
            "hadron survival",
            "Q",
        ]),
        rows,
    }
}

/// Formats a row of the thresholds by bins.
fn bin_row(range: String, auc: String, threshold: String, of: &Separation) -> Vec<String> {
    let counts = format!("{} / {}", grouped(of.of.gamma), grouped(of.of.hadron));
    let [gamma, hadron, quality] =
        [of.gamma_efficiency, of.hadron_survival, of.quality].map(measured);
    vec![range, counts, auc, threshold, gamma, hadron, quality]
}

/// Lists the reliability of gammaness; `None` without it.
pub(super) fn reliability(evaluation: &Evaluation) -> Option<ReportTable> {
    (!evaluation.reliability.is_empty()).then(|| ReportTable {
        title: "Reliability of gammaness, at equal numbers of both classes".into(),
        head: heads(&["gammaness", "mean", "share of gammas", "gammas", "hadrons"]),
        rows: evaluation.reliability.iter().map(reliability_row).collect(),
    })
}

/// Formats a range of gammaness.
fn reliability_row(bin: &ReliabilityBin) -> Vec<String> {
    vec![
        format!("{} … {}", number(bin.low, 2), number(bin.high, 2)),
        number(bin.said, 3),
        measured(Some(bin.found)),
        grouped(bin.gammas),
        grouped(bin.hadrons),
    ]
}

/// Lists the reliability of the posterior, with the bounds of the calibration.
pub(super) fn reliability_odds(evaluation: &Evaluation) -> Option<ReportTable> {
    let range = evaluation.calibrated.as_ref()?;
    let counts = |of: ClassCounts| {
        format!("{} gammas and {} hadrons", grouped(of.gamma), grouped(of.hadron))
    };
    let bounds = range.posterior_limits.or(range.posterior).map_or(String::new(), |[low, high]| {
        format!(
            "; ≤ {} for {}, ≥ {} for {} beyond the resolved range of the calibration",
            probability(low, 2).replace('-', "−"),
            counts(range.below),
            probability(high, 2).replace('-', "−"),
            counts(range.above)
        )
    });
    let title = format!(
        "Reliability of the posterior at {}{}, in bins of log-odds{}",
        range.prior,
        range.basis(),
        bounds
    );
    (!evaluation.reliability_odds.is_empty()).then(|| ReportTable {
        title,
        head: heads(&["log-odds", "mean", "share of gammas", "ratio", "gammas", "hadrons"]),
        rows: evaluation.reliability_odds.iter().map(odds_row).collect(),
    })
}

/// Formats a range of log-odds.
fn odds_row(bin: &ReliabilityBin) -> Vec<String> {
    let ratio = (bin.found.value > 0.0).then(|| bin.said / bin.found.value);
    vec![
        format!("{} … {}", number(bin.low, 2), number(bin.high, 2)),
        number(bin.said, 3),
        measured(Some(bin.found)),
        dash(ratio, |ratio| number(ratio, 3)),
        grouped(bin.gammas),
        grouped(bin.hadrons),
    ]
}

/// Compares the model with a conventional classifier.
pub(super) fn baseline_table(evaluation: &Evaluation, other: &Baseline) -> ReportTable {
    let trained_on = mixture(other.trained_on);
    ReportTable {
        title: format!(
            "Compared with a {} trained on {trained_on}: AUC {}, paired",
            other.name,
            dash(other.difference, Measured::compared)
        ),
        head: heads(&["", "AUC", "gammas at hadrons 0.1", "Q", "gammas at hadrons 0.01", "Q"]),
        rows: vec![
            classifier_row("this score", evaluation.auc.as_ref(), &evaluation.at_survival),
            classifier_row(&other.name, other.auc.as_ref(), &other.at_survival),
        ],
    }
}

/// Formats the area of a classifier, and its efficiency and Q at two hadron survivals.
fn classifier_row(name: &str, auc: Option<&Auc>, at: &[AtSurvival]) -> Vec<String> {
    let mut row = vec![name.to_owned(), dash(auc, auc_text)];
    for survival in [0.1, 0.01] {
        let wanted = |at: &&AtSurvival| (at.hadron_survival - survival).abs() < 1e-9;
        let point = at.iter().find(wanted).and_then(|at| at.point);
        row.push(dash(point, |p| p.gamma_efficiency.to_string()));
        row.push(dash(point, |p| p.quality().to_string()));
    }
    row
}

/// Compares standard cuts with the model at the same hadron survival.
pub(super) fn baseline_cuts(of: &CutsBaseline) -> ReportTable {
    let mut rows = vec![selection_row(of.name.clone(), &of.selected)];
    rows.extend(of.model.as_ref().map(|model| {
        selection_row(format!("this score from {}", number(model.threshold, 5)), &model.selected)
    }));
    ReportTable {
        title: format!(
            "Compared with {} ({}), of {} triggered gammas and {} hadrons: Q of the model is {}, paired",
            of.name,
            of.cuts,
            grouped(of.of.gamma),
            grouped(of.of.hadron),
            dash(of.difference, Measured::compared)
        ),
        head: heads(&["", "gamma efficiency", "hadron survival", "hadrons that pass", "Q"]),
        rows,
    }
}

/// Formats the efficiencies and Q of a selection.
fn selection_row(name: String, s: &Selected) -> Vec<String> {
    let [gamma, hadron] = [s.gamma_efficiency, s.hadron_survival].map(|m| measured(Some(m)));
    vec![name, gamma, hadron, grouped(s.hadrons), measured(s.quality)]
}

/// Lists the tests of the latent points of a flow.
pub(super) fn latent(latent: &LatentPoints) -> ReportTable {
    let departure = |d: &Departure| [number(d.distance, 2), number(d.p_value, 2)];
    let whole = [
        "|z|² against χ²".to_owned(),
        format!("{} of {}", number(latent.mean_chi2, 3), latent.degrees),
        String::new(),
    ];
    let axis = |axis: &LatentAxis| {
        let moments = [axis.feature.clone(), number(axis.mean, 2), number(axis.std, 3)];
        moments.into_iter().chain(departure(&axis.departure)).collect()
    };
    let whole = whole.into_iter().chain(departure(&latent.departure)).collect();
    ReportTable {
        title: format!(
            "Latent normality of flow '{}', {} events: {} within two sigma (95.45 % for a normal distribution)",
            latent.flow,
            grouped(latent.events),
            latent.inside_two_sigma
        ),
        head: heads(&["axis", "mean", "standard deviation", "KS distance", "p-value"]),
        rows: std::iter::once(whole).chain(latent.axes.iter().map(axis)).collect(),
    }
}

/// Lists features by the reliance of the model on them, the largest first.
pub(super) fn importance(evaluation: &Evaluation) -> Option<ReportTable> {
    let auc = evaluation.auc?.value;
    let mut features: Vec<_> = evaluation.importance.iter().collect();
    features.sort_by(|a, b| a.auc_without.value.total_cmp(&b.auc_without.value));
    let row = |of: &&Importance| {
        let changed = compared(of.auc_without.value - auc, |size| number(size, 3));
        vec![of.feature.clone(), changed, auc_text(&of.auc_without)]
    };
    (!features.is_empty()).then(|| ReportTable {
        title: "Reliance of this model on each feature: the AUC with its values permuted between \
                events. This is not the value of a feature: correlated features share \
                information, and a model trained without one uses the others (sweep \
                --leave-one-out)"
            .into(),
        head: heads(&[
            "feature",
            "change of the AUC with permuted values",
            "AUC with permuted values",
        ]),
        rows: features.iter().map(row).collect(),
    })
}

/// Lists the events by file.
pub(super) fn files(files: &[FileCounts]) -> Option<ReportTable> {
    let row = |file: &FileCounts| {
        let unusable = file.unusable.values().sum::<u64>();
        vec![file.path.clone(), grouped(file.gamma), grouped(file.hadron), grouped(unusable)]
    };
    let mut rows: Vec<Vec<String>> = files.iter().take(MAX_FILES).map(row).collect();
    if files.len() > MAX_FILES {
        let rest = format!("and {} more files", files.len() - MAX_FILES);
        rows.push(vec![rest, String::new(), String::new(), String::new()]);
    }
    (!rows.is_empty()).then(|| ReportTable {
        title: format!("Events by file ({} files)", grouped(files.len() as u64)),
        head: heads(&["file", "gammas", "hadrons", "rows left out"]),
        rows,
    })
}

/// Lists the excluded rows by reason.
pub(super) fn unusable(evaluation: &Evaluation) -> Option<ReportTable> {
    let rows: Vec<Vec<String>> = evaluation
        .unusable
        .iter()
        .map(|(reason, rows)| {
            let of = evaluation.left_out.get(reason);
            let gammas = dash(of, |of| grouped(of.gamma));
            vec![reason.clone(), grouped(*rows), gammas, dash(of, |of| grouped(of.hadron))]
        })
        .collect();
    (!rows.is_empty()).then(|| ReportTable {
        title: "Rows excluded from the metrics".into(),
        head: heads(&["reason", "rows", "gammas", "hadrons"]),
        rows,
    })
}
