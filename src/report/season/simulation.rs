//! The section of simulated gammas: leakage and effective areas.

use super::columns::edges;
use super::plots;
use crate::error::Result;
use crate::report::elements::{
    Assessed, Fact, LegendEntry, ReportFigure, ReportTable, fact, heads,
};
use crate::report::format::{dash, measured, number};
use crate::season::{AreaBin, Season, Simulation};
use crate::statistics::Measured;
use crate::statistics::measured::grouped;

/// Builds the section of simulated gammas; `None` without them.
pub(super) fn simulation(season: &Season) -> Result<Option<Assessed>> {
    let Some(simulation) = &season.simulation else { return Ok(None) };
    let mut section = Assessed {
        heading: "Simulated gammas".into(),
        facts: facts(simulation),
        ..Assessed::default()
    };
    if let Some(svg) = plots::areas(&simulation.area)? {
        section.figures.push(ReportFigure {
            title: "Effective area".into(),
            svg,
            keys: vec![
                LegendEntry::new("gamma line", "counted at the source"),
                LegendEntry::new("muted dashed", "scored"),
            ],
            caption: "Against the true energy.".into(),
        });
    }
    if !simulation.area.is_empty() {
        let head = [
            "true energy [TeV]",
            "scored",
            "counted",
            "efficiency",
            "area scored [m²]",
            "area counted [m²]",
        ];
        section.tables.push(ReportTable {
            title: "Efficiency and effective area".into(),
            head: heads(&head),
            rows: simulation.area.iter().map(area_row).collect(),
        });
    }
    Ok(Some(section))
}

/// Returns the counts of gammas and the simulated spectrum.
fn facts(simulation: &Simulation) -> Vec<Fact> {
    let leak = &simulation.leak;
    let positions = format!("{} positions", leak.positions);
    let mut facts = vec![
        fact("scores", &simulation.scores, ""),
        fact("gammas", grouped(leak.events), "scored"),
        fact("counted at the source", grouped(leak.on), ""),
        fact("counted at OFF positions", grouped(leak.off), positions),
    ];
    let Some(thrown) = &simulation.thrown else { return facts };
    let [low, high] = thrown.energy_tev;
    facts.push(fact(
        "simulated showers",
        format!(
            "{} over a radius of {} m, E^−{} from {} to {} TeV",
            grouped(thrown.events),
            number(thrown.radius_m, 4),
            number(thrown.index, 3),
            number(low, 3),
            number(high, 4)
        ),
        "assumed: uniform over the area, all triggered ones scored",
    ));
    let weighted = match &simulation.unweighted {
        Some(reason) => format!("as simulated: {reason}"),
        None => format!("weighted to E^−{} of the source", number(thrown.source_index, 3)),
    };
    facts.push(fact("spectrum of the leakage", weighted, ""));
    facts
}

fn area_row(bin: &AreaBin) -> Vec<String> {
    vec![
        edges(bin.low_tev, bin.high_tev),
        grouped(bin.events),
        grouped(bin.on),
        measured(bin.efficiency),
        area(bin.area_before_m2),
        area(bin.area_m2),
    ]
}

/// Formats an area in whole square metres.
fn area(area: Option<Measured>) -> String {
    let whole = |x: f64| grouped(x.round() as u64);
    dash(area, |m| format!("{} ± {}", whole(m.value), whole(m.error)))
}
