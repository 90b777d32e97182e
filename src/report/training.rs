//! Builds the section on a training run: loss curves, the best and the last epoch.

use super::elements::{LegendEntry, ReportFigure, ReportTable};
use super::format::{dash, number};
use super::plots;
use crate::error::Result;
use crate::metrics::{EpochMetrics, best_epoch};
use crate::statistics::measured::grouped;

/// Plots the losses by epoch; `None` without a finite loss.
pub(super) fn figure(metrics: &[EpochMetrics]) -> Result<Option<ReportFigure>> {
    let Some(svg) = plots::losses(metrics)? else { return Ok(None) };
    let held_out = metrics.iter().any(|m| m.validation_nll.is_some());
    let mut keys = vec![LegendEntry::new("gamma line", "training")];
    if held_out {
        keys.push(LegendEntry::new("hadron dashed", "validation"));
        keys.push(LegendEntry::new("muted line", "validation, median"));
        keys.push(LegendEntry::new("dot", "best epoch"));
    }
    let caption = "Mean negative log-likelihood per event. Losses far above the rest are drawn \
                   at the upper edge.";
    Ok(Some(ReportFigure { title: "Loss".into(), svg, keys, caption: caption.into() }))
}

/// Lists the best and the last epoch; `None` without an epoch.
pub(super) fn table(metrics: &[EpochMetrics]) -> Option<ReportTable> {
    let last = metrics.last()?;
    let mut rows = Vec::new();
    if let Some(best) = best_epoch(metrics) {
        rows.push(row("best", best));
    }
    rows.push(row("last", last));
    let skipped: u64 = metrics.iter().map(|m| m.skipped_steps).sum();
    Some(ReportTable {
        title: format!(
            "{} epochs, {} steps, {} skipped for gradients out of range",
            grouped(metrics.len() as u64),
            grouped(last.step),
            grouped(skipped)
        ),
        head: [
            "",
            "epoch",
            "training NLL",
            "validation NLL",
            "median",
            "learning rate",
            "gradient norm",
            "events",
        ]
        .map(str::to_owned)
        .to_vec(),
        rows,
    })
}

fn row(name: &str, m: &EpochMetrics) -> Vec<String> {
    let finite =
        |x: f64, digits: u8| dash(Some(x).filter(|x| x.is_finite()), |x| number(x, digits));
    vec![
        name.to_owned(),
        m.epoch.to_string(),
        finite(m.train_nll, 5),
        dash(m.validation_nll, |x| number(x, 5)),
        dash(m.validation_nll_median, |x| number(x, 5)),
        finite(m.learning_rate, 3),
        finite(m.gradient_norm, 3),
        grouped(m.events),
    ]
}
