//! Text of a comparison for the terminal.

use super::types::{Migration, SeasonComparison, Side};
use crate::statistics::{Measured, Paired, Selected};
use std::collections::BTreeMap;
use std::fmt;

/// Text of a comparison of a scoring with itself.
pub const IDENTICAL: &str =
    "Both scorings have the same score files: the comparison is of a scoring with itself.";
impl fmt::Display for SeasonComparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NAME: usize = 36;
        let (a, b) = (&self.first, &self.second);
        writeln!(f, "  {:NAME$}{:>24}{:>24}", "", a.scores, b.scores)?;
        let mut line = |name: &str, of: &dyn Fn(&Side) -> String| {
            writeln!(f, "  {name:NAME$}{:>24}{:>24}", of(a), of(b))
        };
        let dash = || "-".to_string();
        let short = |model: &String| model.chars().take(12).collect::<String>();
        line("model", &|s| s.models.iter().map(short).collect::<Vec<_>>().join(", "))?;
        line("working point", &|s| s.point.clone())?;
        line("N_on", &|s| s.tally.on.to_string())?;
        line("N_off", &|s| s.tally.off.iter().sum::<u64>().to_string())?;
        line("excess", &|s| s.tally.excess.map_or_else(dash, |x| x.to_string()))?;
        line("significance", &|s| s.tally.significance.map_or_else(dash, |x| format!("{x:.2}")))?;
        if self.identical {
            writeln!(f, "  {IDENTICAL}")?;
        }
        let correlation = self.rank_correlation.map_or_else(dash, |rho| format!("{rho:.5}"));
        writeln!(
            f,
            "  {:NAME$}{correlation:>24} of {} events",
            "rank correlation at the source", self.scored
        )?;
        if let Some(labelled) = &self.labelled {
            paired(f, labelled)?;
        }
        writeln!(
            f,
            "  {:NAME$}{:>12}{:>12}{:>12}{:>12}",
            "events", "both", "first", "second", "neither"
        )?;
        let rows = [
            ("pass at the source", self.at_source),
            ("pass at an OFF position", self.off_source),
            ("counted at the source", self.counted),
        ];
        for (name, m) in rows {
            let Migration { both, first_alone, second_alone, neither } = m;
            writeln!(
                f,
                "  {name:NAME$}{both:>12}{first_alone:>12}{second_alone:>12}{neither:>12}"
            )?;
        }
        for (file, why) in a.failed.iter().chain(&b.failed).collect::<BTreeMap<_, _>>() {
            writeln!(f, "  in no figure: {file}: {why}")?;
        }
        Ok(())
    }
}

/// Writes both as classifiers of labelled events.
fn paired(f: &mut fmt::Formatter<'_>, of: &Paired) -> fmt::Result {
    const NAME: usize = 36;
    let dash = || "-".to_string();
    let mut line = |name: &str, [a, b]: [String; 2]| writeln!(f, "  {name:NAME$}{a:>24}{b:>24}");
    let auc = of.auc.map(|auc| auc.map(|auc| format!("{auc:.4}")));
    line("AUC", auc.unwrap_or_else(|| [dash(), dash()]))?;
    if let Some(selected) = &of.selected {
        let each = |figure: &dyn Fn(&Selected) -> String| selected.each_ref().map(figure);
        line("gamma efficiency of all", each(&|s| s.gamma_efficiency.to_string()))?;
        line("hadron survival of all", each(&|s| s.hadron_survival.to_string()))?;
        line("Q", each(&|s| s.quality.map_or_else(dash, |q| q.to_string())))?;
    }
    let first =
        |d: Option<Measured>| d.map_or_else(dash, |d| format!("the first is {}", d.compared()));
    let of_area = format!("{} gammas, {} hadrons", of.events.gamma, of.events.hadron);
    writeln!(f, "  {:NAME$}{}, on {of_area}", "AUC, paired", first(of.auc_difference))?;
    let of_all = format!("{} gammas, {} hadrons", of.all.gamma, of.all.hadron);
    writeln!(f, "  {:NAME$}{}, on {of_all}", "Q, paired", first(of.quality_difference))?;
    writeln!(f, "  {:NAME$}events that a model was trained on may be among them", "")
}
