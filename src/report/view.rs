//! Builds the values that the template prints: texts and tables, with no computation left.
//!
//! Numbers are formatted here, with suitable digits and a true minus sign; a missing value is an en
//! dash.

use super::outline::{Node, outline};
use super::{ReportInputs, RunData, comparison, plots, training};
use crate::error::Result;
use crate::statistics::comparison::baseline::Baseline;
use crate::statistics::confusion::PositiveClass;
use crate::statistics::evaluation::{AtSurvival, Importance, auc_text};
use crate::statistics::latent::{Departure, LatentAxis, LatentPoints};
use crate::statistics::measured::{compared, grouped, probability, significant};
use crate::statistics::thresholds::bins::{AtBin, AtBins, range_text};
use crate::statistics::thresholds::calibration::ReliabilityBin;
use crate::statistics::thresholds::scan::ScanPoint;
use crate::statistics::{
    Auc, ClassCounts, CutsBaseline, Evaluation, Expected, FileCounts, Histogram, Measured,
    ParameterHistogram, Scan, Selected, Separation,
};
use serde::Serialize;

const MAX_FILES: usize = 200;

#[derive(Serialize)]
pub struct Page {
    pub title: String,
    pub program: String,
    pub overview: Option<ReportTable>,
    pub evaluations: Vec<Assessed>,
    run: Option<Trained>,
}

/// One evaluation, or another section of a page.
#[derive(Default, Serialize)]
pub struct Assessed {
    pub heading: String,
    pub facts: Vec<Fact>,
    pub headline: Vec<Fact>,
    pub warnings: Vec<String>,
    /// Distributions of the features.
    pub parameters: Vec<ReportFigure>,
    pub figures: Vec<ReportFigure>,
    pub tables: Vec<ReportTable>,
}

#[derive(Serialize)]
struct Trained {
    figures: Vec<ReportFigure>,
    tables: Vec<ReportTable>,
    model: Vec<Node>,
    provenance: Vec<Node>,
    configuration: String,
}

/// A named value with a note in small print.
#[derive(Serialize)]
pub struct Fact {
    pub name: String,
    pub value: String,
    pub note: String,
}

#[derive(Serialize)]
pub struct ReportFigure {
    pub title: String,
    pub svg: String,
    pub keys: Vec<LegendEntry>,
    pub caption: String,
}

/// An entry of the legend of a figure; `mark` is a class of the style sheet.
#[derive(Serialize)]
pub struct LegendEntry {
    mark: String,
    text: String,
}

#[derive(Serialize)]
pub struct ReportTable {
    pub title: String,
    pub head: Vec<String>,
    pub rows: Vec<Vec<String>>,
}

impl LegendEntry {
    pub fn new(mark: &str, text: impl Into<String>) -> LegendEntry {
        LegendEntry { mark: mark.to_owned(), text: text.into() }
    }
}

impl Page {
    /// Builds a page of sections that are not evaluations.
    pub fn of_sections(title: String, sections: Vec<Assessed>) -> Page {
        Page { title, program: program(), overview: None, evaluations: sections, run: None }
    }

    pub fn of(inputs: &ReportInputs) -> Result<Page> {
        let evaluations: Result<Vec<Assessed>> =
            inputs.evaluations.iter().map(Assessed::of).collect();
        let mut sections = evaluations?;
        sections.extend(inputs.comparisons.iter().map(comparison::section));
        Ok(Page {
            title: inputs.title.clone(),
            program: program(),
            overview: (inputs.evaluations.len() > 1).then(|| overview(&inputs.evaluations)),
            evaluations: sections,
            run: inputs.run.as_ref().map(Trained::of).transpose()?,
        })
    }
}

fn program() -> String {
    format!("taiga-flow {}", env!("CARGO_PKG_VERSION"))
}

impl Trained {
    fn of(run: &RunData) -> Result<Trained> {
        Ok(Trained {
            figures: training::figure(&run.metrics)?.into_iter().collect(),
            tables: training::table(&run.metrics).into_iter().collect(),
            model: outline(&run.model),
            provenance: outline(&run.provenance),
            configuration: run.configuration.clone(),
        })
    }
}

impl Assessed {
    fn of(evaluation: &Evaluation) -> Result<Assessed> {
        let mut tables = vec![confusion(evaluation), positives(evaluation)];
        tables.extend([separations(evaluation), survivals(evaluation)]);
        tables.extend(evaluation.scan.as_ref().map(scan));
        tables.extend(evaluation.at_bins.as_ref().map(by_bins));
        tables.extend(evaluation.baseline.as_ref().map(|other| baseline_table(evaluation, other)));
        tables.extend(evaluation.baseline_cuts.as_ref().map(baseline_cuts));
        tables.extend(files(&evaluation.about.files));
        tables.extend(reliability(evaluation));
        tables.extend(reliability_odds(evaluation));
        tables.extend(evaluation.latent.iter().map(latent));
        tables.extend(importance(evaluation));
        tables.extend(unusable(evaluation));
        Ok(Assessed {
            heading: heading(evaluation),
            facts: facts(evaluation),
            headline: headline(evaluation),
            warnings: evaluation.warnings.clone(),
            parameters: parameters(evaluation)?,
            figures: figures(evaluation)?,
            tables,
        })
    }
}

fn heading(evaluation: &Evaluation) -> String {
    let about = &evaluation.about;
    let mode = if about.mode.is_empty() { "Evaluation" } else { &about.mode };
    format!("{mode} · {}", about.part)
}

fn facts(evaluation: &Evaluation) -> Vec<Fact> {
    let about = &evaluation.about;
    let mut facts = vec![
        fact("model", &about.model, ""),
        fact("score", &about.score, "higher = more gamma-like"),
        fact("part evaluated", &about.part, ""),
        fact("events", mixture(evaluation.counts), ""),
    ];
    if let (Some(weights), Some(of)) = (&about.weights, &evaluation.effective) {
        let text = format!("{} gammas, {} hadrons", number(of.gamma, 5), number(of.hadron, 5));
        facts.push(fact("effective events", text, format!("weight {}", weights.expression)));
    }
    if let Some(nll) = &evaluation.normal_nll {
        let mean = dash(nll.mean, |x| number(x, 5));
        let text = format!("mean {mean}, median {} nats", number(nll.median, 5));
        let events = format!("{} events", grouped(nll.events));
        facts.push(fact("held-out NLL of the normal class", text, events));
    }
    facts
}

/// Returns the most important values.
fn headline(evaluation: &Evaluation) -> Vec<Fact> {
    let at = &evaluation.at_threshold;
    let (after, threshold) = (&at.after_cuts, &evaluation.threshold);
    let kept = &at.confusion;
    let chosen_on = match threshold.events {
        0 => String::new(),
        events => format!(", on {} events", grouped(events)),
    };
    let limit = threshold.limit_text().map_or(String::new(), |limit| format!(", {limit}"));
    let auc = dash(evaluation.auc.as_ref(), auc_text);
    // A prior refers to triggered events: the efficiencies before the cuts, if known.
    let (of, which) = match &at.before_cuts {
        Some(before) => (before, "triggered events"),
        None => (after, "events after the pre-cuts"),
    };
    vec![
        fact(
            "AUC",
            auc,
            format!(
                "{}; ± test sampling, spread over training seeds not included",
                mixture(evaluation.counts)
            ),
        ),
        fact(
            "threshold",
            number(threshold.value, 5),
            format!("{}{chosen_on}{limit}", threshold.rule.of_score(&evaluation.about.score)),
        ),
        fact(
            "gamma efficiency",
            measured(after.gamma_efficiency),
            of_all(kept.gamma_as_gamma, after.of.gamma),
        ),
        fact(
            "hadron survival",
            measured(after.hadron_survival),
            of_all(kept.hadron_as_gamma, after.of.hadron),
        ),
        fact("Q", measured(after.quality), "gamma efficiency / √hadron survival"),
        fact(
            "purity",
            measured(of.purity),
            format!("if 1 in {} {which} is a gamma", one_in(of.prior)),
        ),
    ]
}

fn figures(evaluation: &Evaluation) -> Result<Vec<ReportFigure>> {
    let mut figures = Vec::new();
    if let Some(of) = &evaluation.log_likelihood {
        let Histogram { below, above, .. } = of.histogram;
        figures.push(ReportFigure {
            title: format!("Log-likelihood in the flow '{}'", of.flow),
            svg: plots::scores(&of.histogram, "log p [nats]", None)?,
            keys: class_keys(evaluation),
            caption: clipped(below, above),
        });
    }
    if let Some(histogram) = &evaluation.histogram {
        figures.push(ReportFigure {
            title: "Scores".into(),
            svg: plots::scores(
                histogram,
                &score_title(evaluation),
                Some(evaluation.threshold.value),
            )?,
            keys: class_keys(evaluation)
                .into_iter()
                .chain([LegendEntry::new("ink line", "threshold")])
                .collect(),
            caption: clipped(histogram.below, histogram.above),
        });
    }
    if !evaluation.roc.is_empty() {
        let after = &evaluation.at_threshold.after_cuts;
        let working =
            after.gamma_efficiency.zip(after.hadron_survival).map(|(g, h)| (g.value, h.value));
        let other = evaluation.baseline.as_ref();
        let keys = || {
            let mut keys =
                vec![LegendEntry::new("gamma line", "this score, with 68 % of a bootstrap")];
            keys.extend(other.map(|other| LegendEntry::new("hadron dashed", &other.name)));
            keys.push(LegendEntry::new("muted dashed", "no separation"));
            keys.push(LegendEntry::new("dot", "threshold"));
            keys
        };
        let of_other = other.map_or(&[][..], |other| &other.roc);
        let figure = |title: &str, svg, caption: &str| ReportFigure {
            title: title.into(),
            svg,
            keys: keys(),
            caption: caption.into(),
        };
        let caption = "Relative to events that pass the pre-cuts.";
        figures.push(figure(
            "ROC",
            plots::roc(&evaluation.roc, &evaluation.roc_band, of_other, working)?,
            caption,
        ));
        let (curve, band) = (&evaluation.roc, &evaluation.roc_band);
        let low = plots::roc_logarithmic(curve, band, of_other, working)?;
        let caption = "The same curve; below ten surviving hadrons it is not well measured.";
        figures.push(figure("ROC at low hadron survival", low, caption));
    }
    if !evaluation.reliability.is_empty() {
        figures.push(ReportFigure {
            title: "Reliability of gammaness".into(),
            svg: plots::reliability(&evaluation.reliability)?,
            keys: vec![
                LegendEntry::new("dot", "events of a tenth"),
                LegendEntry::new("muted dashed", "exact calibration"),
            ],
            caption: "Both classes have equal weight.".into(),
        });
    }
    Ok(figures)
}

fn class_keys(evaluation: &Evaluation) -> Vec<LegendEntry> {
    let counts = evaluation.counts;
    vec![
        LegendEntry::new("gamma area", format!("gammas ({})", grouped(counts.gamma))),
        LegendEntry::new("hadron dashed", format!("hadrons ({})", grouped(counts.hadron))),
    ]
}

/// Plots each feature for both classes.
fn parameters(evaluation: &Evaluation) -> Result<Vec<ReportFigure>> {
    let figure = |of: &ParameterHistogram| {
        let unit = if of.unit == "1" { String::new() } else { format!(" [{}]", of.unit) };
        Ok(ReportFigure {
            title: of.name.clone(),
            svg: plots::parameter(of, &format!("{}{unit}", of.name))?,
            keys: class_keys(evaluation),
            caption: String::new(),
        })
    };
    evaluation.parameters.iter().map(figure).collect()
}

fn score_title(evaluation: &Evaluation) -> String {
    let score = &evaluation.about.score;
    if score.contains("log") { format!("{score} [nats]") } else { score.clone() }
}

fn clipped(below: ClassCounts, above: ClassCounts) -> String {
    let of =
        |c: ClassCounts| format!("{} gammas and {} hadrons", grouped(c.gamma), grouped(c.hadron));
    format!(
        "Each class is normalised separately. The end bins also contain outliers: {} below, {} above.",
        of(below),
        of(above)
    )
}

fn confusion(evaluation: &Evaluation) -> ReportTable {
    let c = &evaluation.at_threshold.confusion;
    let row =
        |name: &str, a: u64, b: u64| vec![name.to_owned(), grouped(a), grouped(b), grouped(a + b)];
    ReportTable {
        title: "Confusion matrix at the threshold".into(),
        head: heads(&["true class", "classified as gamma", "classified as hadron", "all"]),
        rows: vec![
            row("gamma", c.gamma_as_gamma, c.gamma_as_hadron),
            row("hadron", c.hadron_as_gamma, c.hadron_as_hadron),
        ],
    }
}

fn positives(evaluation: &Evaluation) -> ReportTable {
    let at = &evaluation.at_threshold;
    let row = |of: &PositiveClass| {
        let f1 = dash(of.f1, |x| number(x, 3));
        vec![of.positive.to_string(), measured(of.precision), measured(of.recall), f1]
    };
    ReportTable {
        title: format!("Precision and recall at the threshold, for {}", mixture(evaluation.counts)),
        head: heads(&["positive class", "precision", "recall", "F1"]),
        rows: vec![row(&at.gamma_positive), row(&at.hadron_positive)],
    }
}

fn separations(evaluation: &Evaluation) -> ReportTable {
    let at = &evaluation.at_threshold;
    let row = |name: &str, s: &Separation| {
        let of = format!("{} / {}", grouped(s.of.gamma), grouped(s.of.hadron));
        let figures = [s.gamma_efficiency, s.hadron_survival, s.quality, s.purity].map(measured);
        [name.to_owned(), of].into_iter().chain(figures).collect()
    };
    let mut rows: Vec<Vec<String>> = vec![row("events after the pre-cuts", &at.after_cuts)];
    if let Some(before) = &at.before_cuts {
        rows.push(row("triggered and cleaned events", before));
    }
    let prior = format!("purity at {}", at.after_cuts.prior);
    let head =
        ["relative to", "gammas / hadrons", "gamma efficiency", "hadron survival", "Q", &prior];
    ReportTable { title: "Efficiencies at the threshold".into(), head: heads(&head), rows }
}

fn survivals(evaluation: &Evaluation) -> ReportTable {
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
fn scan(scan: &Scan) -> ReportTable {
    let best = scan.best();
    let row = |(i, point): (usize, &ScanPoint)| {
        let notes = [(point.own, "model"), (best == Some(i), "largest σ")];
        let notes: Vec<&str> = notes.iter().filter(|(is, _)| *is).map(|(_, n)| *n).collect();
        let mut row = vec![
            number(point.threshold, 5),
            measured(Some(point.gamma_efficiency)),
            measured(Some(point.hadron_survival)),
            grouped(point.hadrons),
            measured(Some(point.quality)),
        ];
        if scan.observation.is_some() {
            let of = |figure: fn(&Expected) -> f64, digits| {
                dash(point.expected.as_ref(), |e| number(figure(e), digits))
            };
            let reach = point.expected.and_then(|e| e.sensitivity);
            row.extend([of(|e| e.on, 4), of(|e| e.off, 4), of(|e| e.significance, 3)]);
            row.push(dash(reach, |r| number(r, 3)));
        }
        row.push(notes.join(", "));
        row
    };
    let mut head =
        vec!["threshold", "gamma efficiency", "hadron survival", "hadrons that pass", "Q"];
    if scan.observation.is_some() {
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
        rows: scan.points.iter().enumerate().map(row).collect(),
    }
}

/// Lists the thresholds by bins, with their results.
fn by_bins(at: &AtBins) -> ReportTable {
    let row = |range: String, auc: String, threshold: String, of: &Separation| {
        let counts = format!("{} / {}", grouped(of.of.gamma), grouped(of.of.hadron));
        let [gamma, hadron, quality] =
            [of.gamma_efficiency, of.hadron_survival, of.quality].map(measured);
        vec![range, counts, auc, threshold, gamma, hadron, quality]
    };
    let of_bin = |(i, bin): (usize, &AtBin)| {
        let note = if bin.global { ", threshold of all" } else { "" };
        let threshold = format!("{}{note}", number(bin.threshold, 5));
        let auc = dash(bin.auc.as_ref(), auc_text);
        row(range_text(&at.edges, i), auc, threshold, &bin.after_cuts)
    };
    let mut rows: Vec<Vec<String>> = at.bins.iter().enumerate().map(of_bin).collect();
    rows.push(row("all bins".into(), "–".into(), "of its bin".into(), &at.all.after_cuts));
    if let Some(before) = &at.all.before_cuts {
        rows.push(row("of all triggered".into(), "–".into(), "of its bin".into(), before));
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

fn reliability(evaluation: &Evaluation) -> Option<ReportTable> {
    let row = |bin: &ReliabilityBin| {
        vec![
            format!("{} … {}", number(bin.low, 2), number(bin.high, 2)),
            number(bin.said, 3),
            measured(Some(bin.found)),
            grouped(bin.gammas),
            grouped(bin.hadrons),
        ]
    };
    (!evaluation.reliability.is_empty()).then(|| ReportTable {
        title: "Reliability of gammaness, at equal numbers of both classes".into(),
        head: heads(&["gammaness", "mean", "share of gammas", "gammas", "hadrons"]),
        rows: evaluation.reliability.iter().map(row).collect(),
    })
}

/// Lists the reliability of the posterior, with the bounds of the calibration.
fn reliability_odds(evaluation: &Evaluation) -> Option<ReportTable> {
    let range = evaluation.calibrated.as_ref()?;
    let row = |bin: &ReliabilityBin| {
        let ratio = (bin.found.value > 0.0).then(|| bin.said / bin.found.value);
        vec![
            format!("{} … {}", number(bin.low, 2), number(bin.high, 2)),
            number(bin.said, 3),
            measured(Some(bin.found)),
            dash(ratio, |ratio| number(ratio, 3)),
            grouped(bin.gammas),
            grouped(bin.hadrons),
        ]
    };
    let counts = |of: ClassCounts| {
        format!("{} gammas and {} hadrons", grouped(of.gamma), grouped(of.hadron))
    };
    let bounds = range.posterior_limits.or(range.posterior).map(|[low, high]| {
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
        bounds.unwrap_or_default()
    );
    (!evaluation.reliability_odds.is_empty()).then(|| ReportTable {
        title,
        head: heads(&["log-odds", "mean", "share of gammas", "ratio", "gammas", "hadrons"]),
        rows: evaluation.reliability_odds.iter().map(row).collect(),
    })
}

/// Compares the model with a conventional classifier.
fn baseline_table(evaluation: &Evaluation, other: &Baseline) -> ReportTable {
    let row = |name: &str, auc: Option<&Auc>, at: &[AtSurvival]| {
        let mut row = vec![name.to_owned(), dash(auc, auc_text)];
        for survival in [0.1, 0.01] {
            let wanted = |at: &&AtSurvival| (at.hadron_survival - survival).abs() < 1e-9;
            let point = at.iter().find(wanted).and_then(|at| at.point);
            row.push(dash(point, |p| p.gamma_efficiency.to_string()));
            row.push(dash(point, |p| p.quality().to_string()));
        }
        row
    };
    let trained_on = mixture(other.trained_on);
    ReportTable {
        title: format!(
            "Compared with a {} trained on {trained_on}: AUC {}, paired",
            other.name,
            dash(other.difference, Measured::compared)
        ),
        head: heads(&["", "AUC", "gammas at hadrons 0.1", "Q", "gammas at hadrons 0.01", "Q"]),
        rows: vec![
            row("this score", evaluation.auc.as_ref(), &evaluation.at_survival),
            row(&other.name, other.auc.as_ref(), &other.at_survival),
        ],
    }
}

/// Compares standard cuts with the model at the same hadron survival.
fn baseline_cuts(of: &CutsBaseline) -> ReportTable {
    let row = |name: String, s: &Selected| {
        let [gamma, hadron] = [s.gamma_efficiency, s.hadron_survival].map(|m| measured(Some(m)));
        vec![name, gamma, hadron, grouped(s.hadrons), measured(s.quality)]
    };
    let mut rows = vec![row(of.name.clone(), &of.selected)];
    rows.extend(of.model.as_ref().map(|model| {
        row(format!("this score from {}", number(model.threshold, 5)), &model.selected)
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

/// Lists the tests of the latent points of a flow.
fn latent(latent: &LatentPoints) -> ReportTable {
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
fn importance(evaluation: &Evaluation) -> Option<ReportTable> {
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
        head: heads(&["feature", "change of the AUC with permuted values", "AUC with permuted values"]),
        rows: features.iter().map(row).collect(),
    })
}

fn files(files: &[FileCounts]) -> Option<ReportTable> {
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

fn unusable(evaluation: &Evaluation) -> Option<ReportTable> {
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

fn overview(evaluations: &[Evaluation]) -> ReportTable {
    let row = |e: &Evaluation| {
        let after = &e.at_threshold.after_cuts;
        vec![
            heading(e),
            grouped(e.counts.gamma),
            grouped(e.counts.hadron),
            dash(e.auc.as_ref(), auc_text),
            measured(after.gamma_efficiency),
            measured(after.hadron_survival),
            measured(after.quality),
            at_survival(e, 0.1),
            at_survival(e, 0.01),
        ]
    };
    let head = [
        "",
        "gammas",
        "hadrons",
        "AUC",
        "gamma efficiency",
        "hadron survival",
        "Q",
        "gammas at hadrons 0.1",
        "at 0.01",
    ];
    ReportTable {
        title: "Overview; efficiencies at each threshold".into(),
        head: heads(&head),
        rows: evaluations.iter().map(row).collect(),
    }
}

/// Returns the gamma efficiency at a hadron survival of the table.
fn at_survival(evaluation: &Evaluation, survival: f64) -> String {
    let at = evaluation.at_survival.iter().find(|at| (at.hadron_survival - survival).abs() < 1e-9);
    measured(at.and_then(|at| at.point).map(|point| point.gamma_efficiency))
}

pub fn fact(name: &str, value: impl Into<String>, note: impl Into<String>) -> Fact {
    Fact { name: name.to_owned(), value: value.into(), note: note.into() }
}

pub fn heads(names: &[&str]) -> Vec<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

fn mixture(counts: ClassCounts) -> String {
    let (gamma, hadron) = (grouped(counts.gamma), grouped(counts.hadron));
    let share = counts.gamma_fraction().map(|s| format!(" ({} % gammas)", number(100.0 * s, 3)));
    format!("{gamma} gammas, {hadron} hadrons{}", share.unwrap_or_default())
}

fn one_in(prior: f64) -> String {
    grouped((1.0 / prior).round() as u64)
}

fn of_all(passed: u64, all: u64) -> String {
    format!("{} of {}", grouped(passed), grouped(all))
}

pub fn measured(figure: Option<Measured>) -> String {
    dash(figure, |m| m.to_string().replace('-', "−"))
}

/// Formats a value, or returns an en dash without one.
pub fn dash<T>(figure: Option<T>, text: impl FnOnce(T) -> String) -> String {
    figure.map_or_else(|| "–".to_owned(), text)
}

/// Formats a number to `digits` significant digits, with a true minus sign.
pub fn number(value: f64, digits: u8) -> String {
    significant(value, digits).replace('-', "−")
}
