//! The section of the events with the highest scores.

use super::columns::{shortened, telescope};
use super::plots;
use crate::report::elements::{Assessed, ReportFigure, heads};
use crate::report::format::{dash, number};
use crate::season::{Candidate, Picture, Season, number_name, time};

/// Largest number of candidates shown; season.json contains all.
const MAX_CANDIDATES: usize = 100;

/// Columns of values that only calibrated models have.
const CALIBRATED: std::ops::Range<usize> = 5..7;
const HEAD: [&str; 13] = [
    "event",
    "run",
    "telescope",
    "time (UTC)",
    "score",
    "gammaness",
    "posterior",
    "θ² [deg²]",
    "alpha [deg]",
    "dist [deg]",
    "size [p.e.]",
    "energy [TeV]",
    "file",
];

/// Builds the section of the events with the highest scores; `None` without any.
pub(super) fn candidates(season: &Season) -> Option<Assessed> {
    let candidates = &season.candidates;
    let is_calibrated = candidates.iter().any(|c| c.gammaness.or(c.posterior).is_some());
    let dropped = if is_calibrated { 0..0 } else { CALIBRATED };
    let mut head = heads(&HEAD);
    head.drain(dropped.clone());
    let row = |c: &Candidate| {
        let mut row = row(c);
        row.drain(dropped.clone());
        row
    };
    let title = "Events counted at the source, the highest scores first";
    (!candidates.is_empty()).then(|| Assessed {
        heading: "Candidates".into(),
        figures: season.pictures.iter().map(|p| figure(p, &candidates[p.candidate])).collect(),
        tables: vec![shortened(title, head, candidates, row, MAX_CANDIDATES)],
        ..Assessed::default()
    })
}

/// Returns the columns of [`HEAD`].
fn row(c: &Candidate) -> Vec<String> {
    vec![
        event(c),
        run(c),
        telescope(c.telescope),
        dash(c.time_ns, time::utc),
        number(f64::from(c.score), 5),
        probability(c, c.gammaness),
        probability(c, c.posterior),
        value(c.theta2, 3),
        value(c.alpha, 3),
        value(c.dist, 3),
        value(c.size, 4),
        value(c.energy, 3),
        format!("{}, row {}", c.file, c.row),
    ]
}

/// Draws the image of a candidate.
fn figure(picture: &Picture, of: &Candidate) -> ReportFigure {
    let brightest = picture.charge.iter().copied().fold(0.0, f32::max);
    let [score, charge] = [of.score, brightest].map(f64::from);
    ReportFigure {
        title: format!("Event {}, run {}", event(of), run(of)),
        svg: plots::image(picture),
        keys: Vec::new(),
        caption: format!("Score {}; brightest pixel {} p.e.", number(score, 4), number(charge, 3)),
    }
}

fn event(c: &Candidate) -> String {
    dash(c.keys.iter().find(|(name, _)| name == "event_id"), |(_, value)| value.to_string())
}

fn run(c: &Candidate) -> String {
    c.run.map_or_else(|| c.file.clone(), number_name)
}

fn value(value: Option<f32>, digits: u8) -> String {
    dash(value, |v| number(f64::from(v), digits))
}

fn probability(c: &Candidate, p: Option<f32>) -> String {
    dash(p, |p| c.probability(p).replace('-', "−"))
}
