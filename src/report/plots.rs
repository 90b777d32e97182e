//! Draws plots as inline SVG.
//!
//! A plot is drawn on a canvas of quarter units (plotters rounds to integers) and scales with the
//! page. Colours are defined only here; the style sheet of the page finds them by value and
//! replaces them in the dark scheme. The two classes differ in colour (Okabe & Ito 2008) and in
//! line style, so that no plot depends on colour alone.

use super::format::number;
use crate::error::{Fault, Result};
use crate::metrics::{EpochMetrics, best_epoch};
use crate::statistics::band::BandPoint;
use crate::statistics::thresholds::reliability::ReliabilityBin;
use crate::statistics::{Class, Histogram, ParameterHistogram, RocPoint};
use plotters::chart::ChartContext;
use plotters::coord::Shift;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use std::io;

/// Units of the canvas per unit of the view box.
pub(super) const FINE: u32 = 4;
const WIDTH: u32 = 460 * FINE;
const HEIGHT: u32 = 330 * FINE;
/// plotters divides the font size by 1.24 when it writes SVG.
const TEXT: u32 = 19 * FINE;

/// Limit of the losses that fit on an axis.
const MAX_LOSS: f64 = 1e30;

pub(super) const INK: RGBColor = RGBColor(0x1F, 0x23, 0x28);
pub(super) const GRID: RGBColor = RGBColor(0xD9, 0xDD, 0xE2);
pub(super) const MUTED: RGBColor = RGBColor(0x6B, 0x72, 0x7B);
pub(super) const GAMMA: RGBColor = RGBColor(0x00, 0x72, 0xB2);
pub(super) const HADRON: RGBColor = RGBColor(0xD5, 0x5E, 0x00);

pub(super) type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
pub(super) type Chart<'a, 'b> =
    ChartContext<'a, SVGBackend<'b>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;
pub(super) type Drawn<T = ()> = std::result::Result<T, DrawingAreaErrorKind<io::Error>>;

/// Shares of gammas and of hadrons that pass the threshold.
pub(super) type PlotPoint = Option<(f64, f64)>;

pub(super) struct PlotAxis<'t> {
    pub low: f64,
    pub high: f64,
    pub title: &'t str,
    pub label: &'t dyn Fn(&f64) -> String,
}

/// Draws the ROC curve on linear axes with its band, the diagonal and the point of the threshold.
pub(super) fn roc(
    points: &[RocPoint],
    band: &[BandPoint],
    other: &[RocPoint],
    working: PlotPoint,
) -> Result<String> {
    let share = |x: &f64| axis_number(*x, 1.0);
    let x = PlotAxis { low: 0.0, high: 1.0, title: "hadron survival", label: &share };
    let y = PlotAxis { low: 0.0, high: 1.0, title: "gamma efficiency", label: &share };
    let curve_of = |points: &[RocPoint]| -> Vec<_> {
        points.iter().map(|p| (p.hadron_survival, p.gamma_efficiency)).collect()
    };
    let (curve, other) = (curve_of(points), curve_of(other));
    svg("ROC curve", |area| {
        let mut chart = axes(area, &x, &y)?;
        between(&mut chart, band, |survival| survival)?;
        dashed(&mut chart, &[(0.0, 0.0), (1.0, 1.0)], MUTED, 1)?;
        dashed(&mut chart, &other, HADRON, 2)?;
        line(&mut chart, &curve, GAMMA, 2)?;
        working.map_or(Ok(()), |(gamma, hadron)| dot(&mut chart, (hadron, gamma), INK))
    })
}

/// Draws the same curve against the logarithm of hadron survival, the range of analyses.
pub(super) fn roc_logarithmic(
    points: &[RocPoint],
    band: &[BandPoint],
    other: &[RocPoint],
    working: PlotPoint,
) -> Result<String> {
    let passing = |p: &&RocPoint| p.hadron_survival > 0.0;
    let curve_of = |points: &[RocPoint]| -> Vec<_> {
        let passing = points.iter().filter(passing);
        passing.map(|p| (libm::log10(p.hadron_survival), p.gamma_efficiency)).collect()
    };
    let curve = curve_of(points);
    let low = curve.first().map_or(-1.0, |p| libm::floor(p.0).min(-1.0));
    let share = |x: &f64| axis_number(*x, 1.0);
    let decade = |x: &f64| {
        let whole = (x - x.round()).abs() < 1e-6;
        if whole { power_of_ten(x.round() as i32) } else { String::new() }
    };
    let x = PlotAxis { low, high: 0.0, title: "hadron survival", label: &decade };
    let y = PlotAxis { low: 0.0, high: 1.0, title: "gamma efficiency", label: &share };
    let diagonal: Vec<_> = (0..=100)
        .map(|i| low * (1.0 - f64::from(i) / 100.0))
        .map(|x| (x, libm::pow(10.0, x)))
        .collect();
    svg("ROC curve, logarithmic", |area| {
        let mut chart = axes(area, &x, &y)?;
        let passing: Vec<_> = band.iter().filter(|b| b.hadron_survival > 0.0).copied().collect();
        between(&mut chart, &passing, libm::log10)?;
        dashed(&mut chart, &diagonal, MUTED, 1)?;
        let other: Vec<_> = curve_of(other).into_iter().filter(|p| p.0 >= low).collect();
        dashed(&mut chart, &other, HADRON, 2)?;
        line(&mut chart, &curve, GAMMA, 2)?;
        match working.filter(|(_, hadron)| *hadron > 0.0) {
            Some((gamma, hadron)) => dot(&mut chart, (libm::log10(hadron), gamma), INK),
            None => Ok(()),
        }
    })
}

/// Draws stated against true probabilities, with errors; a calibrated score is on the diagonal.
pub(super) fn reliability(bins: &[ReliabilityBin]) -> Result<String> {
    let share = |x: &f64| axis_number(*x, 1.0);
    let x = PlotAxis { low: 0.0, high: 1.0, title: "gammaness", label: &share };
    let y = PlotAxis { low: 0.0, high: 1.0, title: "share of gammas", label: &share };
    svg("Reliability of gammaness", |area| {
        let mut chart = axes(area, &x, &y)?;
        dashed(&mut chart, &[(0.0, 0.0), (1.0, 1.0)], MUTED, 1)?;
        for bin in bins {
            let (low, high) =
                (bin.found.value - bin.found.error, bin.found.value + bin.found.error);
            let ends = [(bin.said, low.max(0.0)), (bin.said, high.min(1.0))];
            line(&mut chart, &ends, GAMMA, 1)?;
            dot(&mut chart, (bin.said, bin.found.value), GAMMA)?;
        }
        Ok(())
    })
}

/// Draws the area of a band; `place` returns the abscissa of a hadron survival.
fn between(chart: &mut Chart, band: &[BandPoint], place: impl Fn(f64) -> f64) -> Drawn {
    let upper = band.iter().map(|b| (place(b.hadron_survival), b.high));
    let lower = band.iter().rev().map(|b| (place(b.hadron_survival), b.low));
    let outline: Vec<_> = upper.chain(lower).collect();
    if outline.is_empty() {
        return Ok(());
    }
    chart.draw_series([Polygon::new(outline, GAMMA.mix(0.22))])?;
    Ok(())
}

/// Draws the scores of both classes, each normalised separately, with the threshold.
pub(super) fn scores(histogram: &Histogram, title: &str, threshold: Option<f64>) -> Result<String> {
    let gamma = steps(histogram, &histogram.shares(Class::Gamma));
    let hadron = steps(histogram, &histogram.shares(Class::Hadron));
    let top = gamma.iter().chain(&hadron).map(|p| p.1).fold(0.0, f64::max).max(1e-9);
    let span = histogram.high - histogram.low;
    // A histogram of this program always has a width; one from an edited file may not, and has no
    // ticks.
    if span <= 1e-9 * histogram.low.abs() {
        let fault = Fault::new("a histogram of scores without width").found(span);
        return Err(fault.advice("evaluate again").input());
    }
    let tick = |x: &f64| axis_number(*x, span);
    let share = |y: &f64| axis_number(*y, top);
    let x = PlotAxis { low: histogram.low, high: histogram.high, title, label: &tick };
    let y =
        PlotAxis { low: 0.0, high: 1.08 * top, title: "share of the class per bin", label: &share };
    svg("Scores of both classes", |area| {
        let mut chart = axes(area, &x, &y)?;
        chart.draw_series([Polygon::new(gamma.clone(), GAMMA.mix(0.22))])?;
        line(&mut chart, &gamma, GAMMA, 2)?;
        dashed(&mut chart, &hadron, HADRON, 2)?;
        match threshold.filter(|threshold| (x.low..=x.high).contains(threshold)) {
            Some(threshold) => line(&mut chart, &[(threshold, 0.0), (threshold, y.high)], INK, 1),
            None => Ok(()),
        }
    })
}

/// Draws the distribution of a parameter in both classes, each normalised separately. The axis is
/// that of the coordinate; its ticks are values of the parameter.
pub(super) fn parameter(of: &ParameterHistogram, title: &str) -> Result<String> {
    let bins = of.gamma.len().min(of.hadron.len());
    let any = |bin: &usize| of.gamma[*bin] + of.hadron[*bin] > 0;
    let first = (0..bins).find(any).unwrap_or(0);
    let end = (first..bins).rev().find(any).map_or(bins.max(first + 1), |last| last + 1);
    let [gamma, hadron] =
        [Class::Gamma, Class::Hadron].map(|class| outline(&of.shares(class), first, end));
    let top = gamma.iter().chain(&hadron).map(|p| p.1).fold(0.0, f64::max).max(1e-9);
    let tick = |x: &f64| edge_text(&of.edges, *x);
    let share = |y: &f64| axis_number(*y, top);
    let x = PlotAxis { low: first as f64, high: end as f64, title, label: &tick };
    let y =
        PlotAxis { low: 0.0, high: 1.08 * top, title: "share of the class per bin", label: &share };
    svg("Distribution of a parameter", |area| {
        let mut chart = axes(area, &x, &y)?;
        chart.draw_series([Polygon::new(gamma.clone(), GAMMA.mix(0.22))])?;
        line(&mut chart, &gamma, GAMMA, 2)?;
        dashed(&mut chart, &hadron, HADRON, 2)
    })
}

/// Returns the steps of the shares of bins `first` to `end`.
fn outline(shares: &[f64], first: usize, end: usize) -> Vec<(f64, f64)> {
    let Some(shares) = shares.get(first..end) else { return Vec::new() };
    let step = |(bin, share): (usize, &f64)| {
        let low = (first + bin) as f64;
        [(low, *share), (low + 1.0, *share)]
    };
    let steps = shares.iter().enumerate().flat_map(step);
    [(first as f64, 0.0)].into_iter().chain(steps).chain([(end as f64, 0.0)]).collect()
}

/// Formats the edge of a bin as a tick; empty between edges.
fn edge_text(edges: &[f64], x: f64) -> String {
    let whole = (x - x.round()).abs() < 1e-6;
    let value = edges.get(x.round().max(0.0) as usize).filter(|_| whole);
    value.map_or_else(String::new, |value| {
        let large = value.abs() >= 1e4;
        if large { format!("{value:.0e}").replace('-', "−") } else { number(*value, 2) }
    })
}

/// Draws training and validation loss by epoch, with the best epoch marked. `None` without a finite
/// loss.
pub(super) fn losses(metrics: &[EpochMetrics]) -> Result<Option<String>> {
    let curve = |loss: &dyn Fn(&EpochMetrics) -> Option<f64>| -> Vec<(f64, f64)> {
        let point = |m: &EpochMetrics| loss(m).map(|l| (m.epoch as f64, l));
        metrics.iter().filter_map(point).filter(|p| p.1.abs() < MAX_LOSS).collect()
    };
    let train = curve(&|m| Some(m.train_nll));
    let held_out = curve(&|m| m.validation_nll);
    let median = curve(&|m| m.validation_nll_median);
    let all: Vec<f64> = [&train, &held_out, &median].into_iter().flatten().map(|p| p.1).collect();
    let Some((low, high)) = loss_range(all) else { return Ok(None) };
    let epochs = |x: &f64| {
        if x.fract().abs() < 1e-6 { format!("{x:.0}") } else { String::new() }
    };
    let nats = |y: &f64| axis_number(*y, high - low);
    let (first, last) = epoch_range(metrics);
    let x = PlotAxis { low: first, high: last, title: "epoch", label: &epochs };
    let y = PlotAxis { low, high, title: "NLL [nats per event]", label: &nats };
    let clipped = |curve: &[(f64, f64)]| -> Vec<(f64, f64)> {
        curve.iter().map(|(x, y)| (*x, y.min(high))).collect()
    };
    let best = best_epoch(metrics).and_then(|m| Some((m.epoch, m.validation_nll?)));
    let drawing = svg("Loss by epoch", |area| {
        let mut chart = axes(area, &x, &y)?;
        line(&mut chart, &clipped(&median), MUTED, 1)?;
        line(&mut chart, &clipped(&train), GAMMA, 2)?;
        dashed(&mut chart, &clipped(&held_out), HADRON, 2)?;
        best.filter(|b| b.1.abs() < MAX_LOSS)
            .map_or(Ok(()), |(epoch, loss)| dot(&mut chart, (epoch as f64, loss.min(high)), INK))
    })?;
    Ok(Some(drawing))
}

fn epoch_range(metrics: &[EpochMetrics]) -> (f64, f64) {
    let first = metrics.iter().map(|m| m.epoch as f64).fold(f64::INFINITY, f64::min);
    let last = metrics.iter().map(|m| m.epoch as f64).fold(0.0, f64::max);
    if last - first < 1.0 { (first - 0.5, last + 0.5) } else { (first, last) }
}

/// Returns the range of the axis; if the first epochs are far above the rest, it follows the rest.
fn loss_range(mut losses: Vec<f64>) -> Option<(f64, f64)> {
    losses.sort_unstable_by(f64::total_cmp);
    let (low, high) = (*losses.first()?, *losses.last()?);
    let usual = losses[losses.len() * 9 / 10] - low;
    let high = if usual > 0.0 { high.min(low + 4.0 * usual) } else { high };
    let least = 1e-3 * low.abs().max(high.abs()).max(1e-3);
    let pad = (0.05 * (high - low)).max(least);
    Some((low - pad, high + pad))
}

fn steps(histogram: &Histogram, shares: &[f64]) -> Vec<(f64, f64)> {
    if shares.is_empty() {
        return Vec::new();
    }
    let mut outline = vec![(histogram.low, 0.0)];
    for (bin, &share) in shares.iter().enumerate() {
        outline.extend([(histogram.edge(bin), share), (histogram.edge(bin + 1), share)]);
    }
    outline.push((histogram.high, 0.0));
    outline
}

/// Formats a tick with decimals that depend on the span of the axis, so that neighbouring ticks
/// differ.
pub(super) fn axis_number(value: f64, span: f64) -> String {
    let decimals = (1.0 - libm::floor(libm::log10(span))).clamp(0.0, 9.0) as usize;
    if value.abs() >= 1e7 {
        return number(value, 3);
    }
    let text = format!("{value:.decimals$}");
    let text =
        if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    if text == "-0" { "0".to_owned() } else { text.replace('-', "−") }
}

pub(super) fn power_of_ten(exponent: i32) -> String {
    match exponent {
        -2..=0 => number(libm::pow(10.0, f64::from(exponent)), 1),
        _ => format!("1e{exponent}").replace('-', "−"),
    }
}

pub(super) fn svg(name: &str, draw: impl FnOnce(&Area) -> Drawn) -> Result<String> {
    let mut text = String::new();
    {
        let area = SVGBackend::with_string(&mut text, (WIDTH, HEIGHT)).into_drawing_area();
        let drawn = draw(&area).and_then(|()| area.present());
        drawn.map_err(|error| {
            Fault::new(format!("plot '{name}' cannot be drawn")).found(error).internal()
        })?;
    }
    Ok(inline(&text, name))
}

/// Adapts SVG to HTML: there the name space is implied, and without a size the drawing takes the
/// width of its column.
fn inline(text: &str, name: &str) -> String {
    let size = format!(r#"width="{WIDTH}" height="{HEIGHT}" "#);
    text.replacen(&size, &format!(r#"role="img" aria-label="{name}" "#), 1).replacen(
        r#" xmlns="http://www.w3.org/2000/svg""#,
        "",
        1,
    )
}

pub(super) fn axes<'a, 'b>(area: &'a Area<'b>, x: &PlotAxis, y: &PlotAxis) -> Drawn<Chart<'a, 'b>> {
    let mut chart = ChartBuilder::on(area)
        .margin_top(10 * FINE)
        .margin_right(16 * FINE)
        .margin_bottom(2 * FINE)
        .margin_left(2 * FINE)
        .x_label_area_size(46 * FINE)
        .y_label_area_size(70 * FINE)
        .build_cartesian_2d(x.low..x.high, y.low..y.high)?;
    let text = ("sans-serif", TEXT).into_font().color(&INK);
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(GRID.stroke_width(FINE))
        .axis_style(INK.stroke_width(FINE))
        .set_all_tick_mark_size(4 * FINE)
        .x_labels(6)
        .y_labels(6)
        .x_label_formatter(x.label)
        .y_label_formatter(y.label)
        .label_style(text.clone())
        .axis_desc_style(text)
        .x_desc(x.title)
        .y_desc(y.title)
        .draw()?;
    Ok(chart)
}

pub(super) fn line(
    chart: &mut Chart,
    points: &[(f64, f64)],
    colour: RGBColor,
    width: u32,
) -> Drawn {
    let style = colour.stroke_width(width * FINE);
    chart.draw_series(LineSeries::new(points.iter().copied(), style)).map(|_| ())
}

pub(super) fn dashed(
    chart: &mut Chart,
    points: &[(f64, f64)],
    colour: RGBColor,
    width: u32,
) -> Drawn {
    let style = colour.stroke_width(width * FINE);
    let (dash, gap) = (6 * FINE, 3 * FINE);
    chart.draw_series(DashedLineSeries::new(points.iter().copied(), dash, gap, style)).map(|_| ())
}

pub(super) fn dot(chart: &mut Chart, at: (f64, f64), colour: RGBColor) -> Drawn {
    chart.draw_series([Circle::new(at, 5 * FINE, colour.filled())]).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statistics::Sample;

    #[test]
    fn plots_of_degenerate_data_are_drawn() {
        assert!(roc(&[], &[], &[], None).unwrap().contains("<svg"));
        assert!(roc_logarithmic(&[], &[], &[], Some((1.0, 0.0))).unwrap().contains("<svg"));
        for scores_of_both in [[0.0, 0.0], [1e9, 1e9 + 1e-6], [-3e38, 3e38]] {
            let sample = Sample::new(&scores_of_both, &[true, false]).unwrap();
            let histogram = Histogram::of(&sample, 50).unwrap();
            let drawing = scores(&histogram, "log p", Some(0.0)).unwrap();
            assert!(drawing.contains("viewBox") && !drawing.contains("http:"));
            assert!(!drawing.contains("NaN"), "{drawing}");
        }
    }

    #[test]
    fn histogram_without_width_is_refused() {
        let sample = Sample::new(&[1.0, 2.0], &[true, false]).unwrap();
        let mut histogram = Histogram::of(&sample, 5).unwrap();
        histogram.high = histogram.low;
        assert_eq!(scores(&histogram, "log p", Some(0.0)).unwrap_err().exit_code(), 3);
    }

    #[test]
    fn ticks_of_one_axis_differ() {
        assert_eq!(axis_number(-12.5, 4.0), "−12.5");
        assert_eq!(axis_number(7.020, 0.05), "7.02");
        assert_eq!(axis_number(-0.0, 2.0), "0");
        assert_eq!(power_of_ten(-4), "1e−4");
    }

    #[test]
    fn large_first_loss_does_not_flatten_the_rest() {
        let mut losses = vec![500.0];
        losses.extend((0..99).map(|i| 8.0 - 0.01 * f64::from(i)));
        let (low, high) = loss_range(losses).unwrap();
        assert!(low > 6.0 && high < 12.0, "{low} {high}");
        assert_eq!(loss_range(Vec::new()), None);
    }
}
