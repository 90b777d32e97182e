//! Builds the section of one evaluation, and the overview of several.

mod tables;
use super::elements::{Assessed, Fact, LegendEntry, ReportFigure, ReportTable, fact, heads};
use super::format::{dash, measured, number};
use super::plots;
use crate::error::Result;
use crate::statistics::measured::grouped;
use crate::statistics::roc::auc_text;
use crate::statistics::{ClassCounts, Evaluation, Histogram, ParameterHistogram};
use tables::{
    baseline_cuts, baseline_table, by_bins, confusion, files, importance, latent, positives,
    reliability, reliability_odds, scan, separations, survivals, unusable,
};

/// Builds the section of an evaluation.
pub(super) fn section(evaluation: &Evaluation) -> Result<Assessed> {
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

/// Returns the heading of an evaluation.
fn heading(evaluation: &Evaluation) -> String {
    let about = &evaluation.about;
    let mode = if about.mode.is_empty() { "Evaluation" } else { &about.mode };
    format!("{mode} · {}", about.part)
}

/// Returns the model, score, part and events.
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

/// Draws the figures of an evaluation.
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
        let (title, threshold) = (score_title(evaluation), evaluation.threshold.value);
        let threshold_key = [LegendEntry::new("ink line", "threshold")];
        figures.push(ReportFigure {
            title: "Scores".into(),
            svg: plots::scores(histogram, &title, Some(threshold))?,
            keys: class_keys(evaluation).into_iter().chain(threshold_key).collect(),
            caption: clipped(histogram.below, histogram.above),
        });
    }
    if !evaluation.roc.is_empty() {
        figures.extend(roc_figures(evaluation)?);
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

/// Draws the ROC curve on linear and logarithmic axes.
fn roc_figures(evaluation: &Evaluation) -> Result<[ReportFigure; 2]> {
    let after = &evaluation.at_threshold.after_cuts;
    let working =
        after.gamma_efficiency.zip(after.hadron_survival).map(|(g, h)| (g.value, h.value));
    let other = evaluation.baseline.as_ref().map_or(&[][..], |other| &other.roc);
    let (curve, band) = (&evaluation.roc, &evaluation.roc_band);
    let linear = plots::roc(curve, band, other, working)?;
    let logarithmic = plots::roc_logarithmic(curve, band, other, working)?;
    let caption = "Relative to events that pass the pre-cuts.";
    let low = "The same curve; below ten surviving hadrons it is not well measured.";
    Ok([
        roc_figure(evaluation, "ROC", linear, caption),
        roc_figure(evaluation, "ROC at low hadron survival", logarithmic, low),
    ])
}

/// Returns a drawn ROC curve with its legend.
fn roc_figure(evaluation: &Evaluation, title: &str, svg: String, caption: &str) -> ReportFigure {
    let mut keys = vec![LegendEntry::new("gamma line", "this score, with 68 % of a bootstrap")];
    let other = evaluation.baseline.as_ref();
    keys.extend(other.map(|other| LegendEntry::new("hadron dashed", &other.name)));
    keys.push(LegendEntry::new("muted dashed", "no separation"));
    keys.push(LegendEntry::new("dot", "threshold"));
    ReportFigure { title: title.into(), svg, keys, caption: caption.into() }
}

/// Returns the legend of both classes.
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

/// Returns the axis title of the score.
fn score_title(evaluation: &Evaluation) -> String {
    let score = &evaluation.about.score;
    if score.contains("log") { format!("{score} [nats]") } else { score.clone() }
}

/// Returns the caption of a histogram with end bins.
fn clipped(below: ClassCounts, above: ClassCounts) -> String {
    let of =
        |c: ClassCounts| format!("{} gammas and {} hadrons", grouped(c.gamma), grouped(c.hadron));
    format!(
        "Each class is normalised separately. The end bins also contain outliers: {} below, {} above.",
        of(below),
        of(above)
    )
}

/// Builds the table of several evaluations.
pub(super) fn overview(evaluations: &[Evaluation]) -> ReportTable {
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
        rows: evaluations.iter().map(overview_row).collect(),
    }
}

/// Formats the main metrics of an evaluation.
fn overview_row(e: &Evaluation) -> Vec<String> {
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
}

/// Returns the gamma efficiency at a hadron survival of the table.
fn at_survival(evaluation: &Evaluation, survival: f64) -> String {
    let at = evaluation.at_survival.iter().find(|at| (at.hadron_survival - survival).abs() < 1e-9);
    measured(at.and_then(|at| at.point).map(|point| point.gamma_efficiency))
}

/// Formats the numbers of gammas and hadrons.
fn mixture(counts: ClassCounts) -> String {
    let (gamma, hadron) = (grouped(counts.gamma), grouped(counts.hadron));
    let share = counts
        .gamma_fraction()
        .map_or(String::new(), |s| format!(" ({} % gammas)", number(100.0 * s, 3)));
    format!("{gamma} gammas, {hadron} hadrons{share}")
}

/// Formats a share as one in N.
fn one_in(prior: f64) -> String {
    grouped((1.0 / prior).round() as u64)
}

/// Formats a number of events and their total.
fn of_all(passed: u64, all: u64) -> String {
    format!("{} of {}", grouped(passed), grouped(all))
}
