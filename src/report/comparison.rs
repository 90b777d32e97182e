//! Builds the section on two scorings of the same inputs.

use super::elements::{Assessed, ReportTable, fact, heads};
use super::format::{dash, measured, number};
use crate::season::compare::IDENTICAL;
use crate::season::{Migration, SeasonComparison, Side};
use crate::statistics::measured::grouped;
use crate::statistics::{ClassCounts, Paired};

/// Returns the section of a comparison.
pub(super) fn section(of: &SeasonComparison) -> Assessed {
    let correlation = dash(of.rank_correlation, |rho| number(rho, 5));
    let mut headline = vec![fact(
        "rank correlation",
        correlation,
        format!("of {} events at the source", grouped(of.scored)),
    )];
    let mut warnings = Vec::new();
    if of.identical {
        warnings.push(IDENTICAL.to_owned());
    }
    if let Some(labelled) = &of.labelled {
        let (auc, quality) = (labelled.auc_difference, labelled.quality_difference);
        headline.push(fact("ΔAUC", measured(auc), labelled_note(labelled.events)));
        headline.push(fact("ΔQ", measured(quality), labelled_note(labelled.all)));
        warnings.push(
            "Events that a model was trained on are among the labelled ones: compare on files that \
             neither was trained on."
                .to_owned(),
        );
    }
    for (name, side) in [("first", &of.first), ("second", &of.second)] {
        let failed = side.failed.iter();
        warnings
            .extend(failed.map(|(file, why)| format!("Not counted in the {name}: {file}: {why}")));
    }
    let facts = [("first", &of.first), ("second", &of.second)]
        .map(|(name, side)| fact(name, &side.scores, side.models.join(", ")));
    let mut tables = vec![sides([&of.first, &of.second])];
    tables.extend(of.labelled.as_ref().map(classifiers));
    tables.push(migrations(of));
    Assessed {
        heading: "Two scorings of the same events".to_owned(),
        facts: facts.into(),
        headline,
        warnings,
        tables,
        ..Assessed::default()
    }
}

fn sides(sides: [&Side; 2]) -> ReportTable {
    let row = |name: &str, text: &dyn Fn(&Side) -> String| {
        [name.to_owned()].into_iter().chain(sides.map(text)).collect()
    };
    ReportTable {
        title: "Counts on the runs that both can count".to_owned(),
        head: heads(&["", "first", "second"]),
        rows: vec![
            row("working point", &|s| s.point.clone()),
            row("N_on", &|s| grouped(s.tally.on)),
            row("N_off", &|s| grouped(s.tally.off.iter().sum())),
            row("excess", &|s| measured(s.tally.excess)),
            row("significance", &|s| dash(s.tally.significance, |x| number(x, 3))),
        ],
    }
}

/// Formats the numbers of labelled events.
fn labelled_note(c: ClassCounts) -> String {
    let (gammas, hadrons) = (grouped(c.gamma), grouped(c.hadron));
    format!("first minus second, on {gammas} gammas, {hadrons} hadrons")
}

/// Compares the two as classifiers of labelled events, with paired differences.
fn classifiers(of: &Paired) -> ReportTable {
    let auc = |which: usize| dash(of.auc, |auc| number(auc[which], 4));
    let mut rows = vec![vec!["AUC".to_owned(), auc(0), auc(1), measured(of.auc_difference)]];
    if let Some([a, b]) = &of.selected {
        let own = |m| measured(Some(m));
        let none = String::new;
        let name = |text: &str| text.to_owned();
        rows.push(vec![
            name("gamma efficiency of all"),
            own(a.gamma_efficiency),
            own(b.gamma_efficiency),
            none(),
        ]);
        rows.push(vec![
            name("hadron survival of all"),
            own(a.hadron_survival),
            own(b.hadron_survival),
            none(),
        ]);
        let difference = measured(of.quality_difference);
        rows.push(vec![name("Q"), measured(a.quality), measured(b.quality), difference]);
    }
    ReportTable {
        title: "As classifiers of labelled events, differences paired event by event".to_owned(),
        head: heads(&["", "first", "second", "first minus second"]),
        rows,
    }
}

fn migrations(of: &SeasonComparison) -> ReportTable {
    let row = |name: &str, m: &Migration| {
        let counts = [m.both, m.first_alone, m.second_alone, m.neither].map(grouped);
        [name.to_owned()].into_iter().chain(counts).collect()
    };
    ReportTable {
        title: "Events by the decisions of both".to_owned(),
        head: heads(&["events", "both", "first alone", "second alone", "neither"]),
        rows: vec![
            row("pass at the source", &of.at_source),
            row("pass at an OFF position", &of.off_source),
            row("counted at the source", &of.counted),
        ],
    }
}
