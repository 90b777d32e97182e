//! Draws the plots of a season.

use crate::error::Result;
use crate::report::format::number;
use crate::report::plots::{
    Chart, Drawn, FINE, GAMMA, HADRON, INK, MUTED, PlotAxis, axes, axis_number, dashed, line,
    power_of_ten, svg,
};
use crate::season::{AreaBin, Cumulative, EnergyBin, OnOffHistogram, Picture, ScoreHistogram};
use crate::statistics::Measured;
use plotters::prelude::*;
use std::fmt::Write;

/// A value with its error at a position on an axis.
type PlottedValue = (f64, Measured);

/// Draws N per position against its rotation, with the mean of the OFF positions as a line.
pub(super) fn positions(on: u64, off: &[(f64, u64)]) -> Result<String> {
    let poisson = |n: u64| Measured { value: n as f64, error: (n as f64).sqrt() };
    let of_off: Vec<PlottedValue> = off.iter().map(|(angle, n)| (*angle, poisson(*n))).collect();
    let of_on = [(0.0, poisson(on))];
    let mean = off.iter().map(|(_, n)| *n as f64).sum::<f64>() / off.len().max(1) as f64;
    let (low, high) = range(of_off.iter().chain(&of_on), Some(mean));
    let degrees = |x: &f64| format!("{x:.0}°");
    let counts = |y: &f64| axis_number(*y, high - low);
    let x = PlotAxis { low: -30.0, high: 360.0, title: "rotation of the source", label: &degrees };
    let y = PlotAxis { low, high, title: "events counted", label: &counts };
    svg("Events per position", |area| {
        let mut chart = axes(area, &x, &y)?;
        dashed(&mut chart, &[(x.low, mean), (x.high, mean)], HADRON, 1)?;
        points(&mut chart, &of_off, HADRON)?;
        points(&mut chart, &of_on, GAMMA)
    })
}

/// Draws events at the source as points over the mean of the OFF positions as an area; `None`
/// without events.
pub(super) fn on_and_off(
    pair: &OnOffHistogram,
    high: f64,
    alpha: f64,
    title: &str,
) -> Result<Option<String>> {
    over_off(&pair.on, &pair.off, (0.0, high), alpha, title)
}

/// Draws the scores in the same way.
pub(super) fn scores(scores: &ScoreHistogram, alpha: f64) -> Result<Option<String>> {
    over_off(&scores.on, &scores.off, (scores.low, scores.high), alpha, "score")
}

fn over_off(
    on: &[u64],
    off: &[u64],
    (first, last): (f64, f64),
    alpha: f64,
    title: &str,
) -> Result<Option<String>> {
    let used = on.iter().zip(off).rposition(|(a, b)| a + b > 0);
    let Some(used) = used else { return Ok(None) };
    let width = (last - first) / on.len() as f64;
    // Empty bins at the end would only compress the others.
    let bins = (used + 1).max(on.len() / 4);
    let last = first + width * bins as f64;
    let at = |bin: usize| first + (bin as f64 + 0.5) * width;
    let poisson = |n: u64| Measured { value: n as f64, error: (n as f64).sqrt() };
    let of_on: Vec<PlottedValue> = (0..bins).map(|bin| (at(bin), poisson(on[bin]))).collect();
    let mut outline = vec![(first, 0.0)];
    for (bin, count) in off.iter().take(bins).enumerate() {
        let mean = alpha * *count as f64;
        outline.push((first + bin as f64 * width, mean));
        outline.push((first + (bin + 1) as f64 * width, mean));
    }
    outline.push((last, 0.0));
    let top = of_on.iter().map(|(_, n)| n.value + n.error).chain(outline.iter().map(|p| p.1));
    let top = 1.05 * top.fold(1.0, f64::max);
    let span = last - first;
    let tick = |x: &f64| axis_number(*x, span);
    let counts = |y: &f64| axis_number(*y, top);
    let x = PlotAxis { low: first, high: last, title, label: &tick };
    let y = PlotAxis { low: 0.0, high: top, title: "events per bin", label: &counts };
    svg(title, |area| {
        let mut chart = axes(area, &x, &y)?;
        chart.draw_series([Polygon::new(outline.clone(), HADRON.mix(0.22))])?;
        line(&mut chart, &outline, HADRON, 1)?;
        points(&mut chart, &of_on, GAMMA)
    })
    .map(Some)
}

/// Draws significance against live time, with the growth of a steady source; `None` without time.
pub(super) fn cumulative(steps: &[Cumulative]) -> Result<Option<String>> {
    let Some(last) = steps.last().filter(|last| last.hours > 0.0) else { return Ok(None) };
    let mut curve = vec![(0.0, 0.0)];
    curve.extend(steps.iter().map(|step| (step.hours, step.significance)));
    let steady: Vec<(f64, f64)> = (0..=60)
        .map(|i| f64::from(i) / 60.0)
        .map(|share| (share * last.hours, share.sqrt() * last.significance))
        .collect();
    let all = || curve.iter().chain(&steady).map(|p| p.1);
    let (low, high) = padded(all().fold(0.0, f64::min), all().fold(1.0, f64::max));
    let hours = |x: &f64| axis_number(*x, last.hours);
    let sigma = |y: &f64| axis_number(*y, high - low);
    let x = PlotAxis { low: 0.0, high: last.hours, title: "live time [h]", label: &hours };
    let y = PlotAxis { low, high, title: "significance [σ]", label: &sigma };
    svg("Significance against live time", |area| {
        let mut chart = axes(area, &x, &y)?;
        dashed(&mut chart, &steady, MUTED, 1)?;
        line(&mut chart, &curve, GAMMA, 2)
    })
    .map(Some)
}

/// Draws values with errors in their order, such as excess per hour by night.
pub(super) fn in_order(values: &[Measured], title: &str, unit: &str) -> Result<Option<String>> {
    if values.is_empty() {
        return Ok(None);
    }
    let of: Vec<PlottedValue> =
        values.iter().enumerate().map(|(i, v)| ((i + 1) as f64, *v)).collect();
    let (low, high) = range(of.iter(), Some(0.0));
    let whole = |x: &f64| {
        if x.fract().abs() < 1e-6 { format!("{x:.0}") } else { String::new() }
    };
    let tick = |y: &f64| axis_number(*y, high - low);
    let x = PlotAxis { low: 0.0, high: values.len() as f64 + 1.0, title, label: &whole };
    let y = PlotAxis { low, high, title: unit, label: &tick };
    svg(unit, |area| {
        let mut chart = axes(area, &x, &y)?;
        line(&mut chart, &[(x.low, 0.0), (x.high, 0.0)], INK, 1)?;
        points(&mut chart, &of, GAMMA)
    })
    .map(Some)
}

/// Draws the excess per bin of energy.
pub(super) fn energies(bins: &[EnergyBin]) -> Result<Option<String>> {
    let of: Vec<PlottedValue> =
        bins.iter().map(|bin| (middle(bin.low_tev, bin.high_tev), bin.excess)).collect();
    let Some((first, last)) = bins.first().zip(bins.last()) else { return Ok(None) };
    let (low, high) = range(of.iter(), Some(0.0));
    let tick = |y: &f64| axis_number(*y, high - low);
    let x = energy_axis(first.low_tev, last.high_tev);
    let y = PlotAxis { low, high, title: "excess", label: &tick };
    svg("Excess against energy", |area| {
        let mut chart = axes(area, &x, &y)?;
        line(&mut chart, &[(x.low, 0.0), (x.high, 0.0)], INK, 1)?;
        points(&mut chart, &of, GAMMA)
    })
    .map(Some)
}

/// Draws effective areas before and after the selection; `None` if none is known.
pub(super) fn areas(bins: &[AreaBin]) -> Result<Option<String>> {
    let curve = |area: &dyn Fn(&AreaBin) -> Option<Measured>| -> Vec<(f64, f64)> {
        let point = |bin: &AreaBin| {
            let area = area(bin).filter(|area| area.value > 0.0)?;
            Some((middle(bin.low_tev, bin.high_tev), libm::log10(area.value)))
        };
        bins.iter().filter_map(point).collect()
    };
    let (before, after) = (curve(&|b| b.area_before_m2), curve(&|b| b.area_m2));
    let all = || before.iter().chain(&after).map(|p| p.1);
    let ends = bins.first().zip(bins.last());
    let Some((first, last)) = ends.filter(|_| all().next().is_some()) else { return Ok(None) };
    let low = libm::floor(all().fold(f64::INFINITY, f64::min));
    let high = libm::ceil(all().fold(f64::NEG_INFINITY, f64::max)).max(low + 1.0);
    let decade = |y: &f64| {
        if (y - y.round()).abs() < 1e-6 { power_of_ten(y.round() as i32) } else { String::new() }
    };
    let x = energy_axis(first.low_tev, last.high_tev);
    let y = PlotAxis { low, high, title: "effective area [m²]", label: &decade };
    svg("Effective area against energy", |area| {
        let mut chart = axes(area, &x, &y)?;
        dashed(&mut chart, &before, MUTED, 2)?;
        line(&mut chart, &after, GAMMA, 2)?;
        chart.draw_series(after.iter().map(|at| Circle::new(*at, 3 * FINE, GAMMA.filled())))?;
        Ok(())
    })
    .map(Some)
}

/// Smallest charge of a drawn pixel, as a share of the brightest one.
const FAINTEST: f32 = 0.04;

/// Draws a camera image: pixels as circles whose opacity is the root of their charge.
pub(super) fn image(picture: &Picture) -> String {
    let brightest = picture.charge.iter().copied().filter(|q| q.is_finite()).fold(0.0, f32::max);
    let reach = picture.x_deg.iter().zip(&picture.y_deg).map(|(x, y)| libm::hypot(*x, *y));
    let radius = 0.5 * picture.pitch_deg;
    let edge = reach.fold(0.0, f64::max) + radius;
    let half = 1.04 * edge;
    let mut text = format!(
        "<svg role=\"img\" aria-label=\"Camera image\" viewBox=\"{:.2} {:.2} {:.2} {:.2}\">\
         <circle r=\"{edge:.2}\" fill=\"none\" stroke=\"#6B727B\" stroke-width=\"0.03\"/>",
        -half,
        -half,
        2.0 * half,
        2.0 * half
    );
    let pixels = picture.x_deg.iter().zip(&picture.y_deg).zip(&picture.charge);
    for ((x, y), charge) in pixels.filter(|(_, q)| **q > FAINTEST * brightest) {
        let dark = (charge / brightest).sqrt();
        // The y axis of the picture points down.
        let _ = write!(
            text,
            "<circle cx=\"{x:.2}\" cy=\"{:.2}\" r=\"{radius:.3}\" fill=\"#0072B2\" fill-opacity=\"{dark:.2}\"/>",
            -y
        );
    }
    text + "</svg>"
}

/// Returns the logarithm of the middle of a bin.
fn middle(low: f64, high: f64) -> f64 {
    0.5 * (libm::log10(low) + libm::log10(high))
}

fn energy_axis<'t>(low: f64, high: f64) -> PlotAxis<'t> {
    let label = &|x: &f64| number(libm::pow(10.0, *x), 2);
    PlotAxis { low: libm::log10(low), high: libm::log10(high), title: "energy [TeV]", label }
}

/// Returns the range of all points with their errors, including `also`.
fn range<'p>(points: impl Iterator<Item = &'p PlottedValue>, also: Option<f64>) -> (f64, f64) {
    let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
    for (_, value) in points {
        low = low.min(value.value - value.error);
        high = high.max(value.value + value.error);
    }
    if let Some(also) = also {
        (low, high) = (low.min(also), high.max(also));
    }
    if low.is_finite() && high.is_finite() { padded(low, high) } else { (0.0, 1.0) }
}

fn padded(low: f64, high: f64) -> (f64, f64) {
    let pad = (0.06 * (high - low)).max(1e-3 * high.abs().max(1e-3));
    (low - pad, high + pad)
}

/// Draws points with error bars.
fn points(chart: &mut Chart, of: &[PlottedValue], colour: RGBColor) -> Drawn {
    for (x, value) in of {
        let (low, high) = (value.value - value.error, value.value + value.error);
        line(chart, &[(*x, low), (*x, high)], colour, 2)?;
    }
    let dot = |(x, value): &PlottedValue| Circle::new((*x, value.value), 4 * FINE, colour.filled());
    chart.draw_series(of.iter().map(dot)).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_plots_are_omitted_small_ones_drawn() {
        let empty = OnOffHistogram { on: vec![0; 8], off: vec![0; 8] };
        assert_eq!(on_and_off(&empty, 0.4, 0.2, "θ²").unwrap(), None);
        assert_eq!(on_and_off(&OnOffHistogram::default(), 0.4, 0.2, "θ²").unwrap(), None);
        assert_eq!(cumulative(&[]).unwrap(), None);
        assert_eq!(in_order(&[], "night", "excess").unwrap(), None);
        assert_eq!((energies(&[]).unwrap(), areas(&[]).unwrap()), (None, None));
        let one = OnOffHistogram { on: vec![0, 1, 0, 0], off: vec![0; 4] };
        let zero = Measured { value: 0.0, error: 0.0 };
        for drawing in [
            on_and_off(&one, 0.4, 0.2, "θ²").unwrap().unwrap(),
            in_order(&[zero], "night", "excess").unwrap().unwrap(),
            positions(0, &[(60.0, 0), (300.0, 0)]).unwrap(),
        ] {
            assert!(drawing.contains("<svg") && !drawing.contains("NaN"), "{drawing}");
        }
    }
}
