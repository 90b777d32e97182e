//! Warnings of a report.

use super::runs::Dated;
use super::types::{EnergyBin, EventTally, Group};
use crate::season::counting::area::{Simulation, TrueEnergies};
use crate::season::counting::counts::Portion;
use crate::season::overlaps;
use crate::statistics::Leak;
use crate::statistics::measured::significant;
use std::collections::{BTreeMap, BTreeSet};

/// Difference of source offsets that matters for the leak [deg].
const OFFSET_MARGIN: f64 = 0.2;
/// Least probability of the counts at OFF positions without a warning.
const LEAST_HOMOGENEITY: f64 = 1e-6;
/// Least significance without a warning.
const LEAST_SIGNIFICANCE: f64 = -5.0;
/// Least share of the events inside the cuts of the model without a warning.
pub(super) const LEAST_INSIDE: f64 = 0.01;
/// Largest share of the counted events outside all bins of energy without a warning.
const MOST_OUTSIDE: f64 = 0.1;
/// Largest share of the rows of a run without a score and without a warning.
const MOST_WITHOUT_SCORE: f64 = 0.01;
/// Largest share of the simulated gammas outside of the thrown energies without a warning.
const MOST_NOT_THROWN: f64 = 0.05;
/// Most runs that a warning names one by one.
const NAMED_RUNS: usize = 4;

/// Merges equal warnings of several runs: with all names, or with the first one of more than
/// [`NAMED_RUNS`].
pub(super) fn merge_warnings(warnings: Vec<String>) -> Vec<String> {
    let parts = |warning: &str| {
        warning.split_once(": ").map(|(run, text)| (run.to_string(), text.to_string()))
    };
    let mut runs: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (run, text) in warnings.iter().filter_map(|w| parts(w)) {
        runs.entry(text).or_default().push(run);
    }
    let mut merged = Vec::new();
    for warning in warnings {
        let of = parts(&warning).and_then(|(_, text)| Some((runs.get_mut(&text)?, text)));
        match of {
            Some((runs, text)) if runs.len() > 1 && runs.len() <= NAMED_RUNS => {
                merged.push(format!("{}: {text}", std::mem::take(runs).join(", ")));
            }
            Some((runs, text)) if runs.len() > NAMED_RUNS => {
                let all = std::mem::take(runs);
                let first = &all[0];
                merged.push(format!("{} runs, such as {first}: {text}", all.len()));
            }
            // Merged with the first of them.
            Some((runs, _)) if runs.is_empty() => {}
            _ => merged.push(warning),
        }
    }
    merged
}

/// Joins the first [`NAMED_RUNS`] names, and adds the number of the others.
pub(super) fn first_named(names: &[String]) -> String {
    let first = names[..names.len().min(NAMED_RUNS)].join(", ");
    match names.len().saturating_sub(NAMED_RUNS) {
        0 => first,
        more => format!("{first} and {more} more"),
    }
}

/// Returns a warning of runs of one telescope that overlap in time.
pub(super) fn overlapping(runs: &[Dated]) -> Option<String> {
    let found = overlaps::of(&runs.iter().map(Dated::watch).collect::<Vec<_>>());
    let pair = |of: &overlaps::Overlap| {
        let [one, other] = of.runs.map(|run| runs[run].label());
        format!("{one} and {other} by {:.1} s", of.ns as f64 / 1e9)
    };
    let pairs: Vec<String> = found.iter().map(pair).collect();
    (!pairs.is_empty()).then(|| {
        format!(
            "runs of one telescope overlap in time, and their live time counts twice: {}; leave copies out; score runs of two telescopes below folders IACT01, IACT02, or with a key telescope_id",
            first_named(&pairs)
        )
    })
}

/// Returns a warning of runs with many rows that have no score at the source.
pub(super) fn without_score(runs: &[Dated]) -> Option<String> {
    let many = |run: &&Dated| {
        let without = run.sum.events - run.sum.scored;
        without as f64 > MOST_WITHOUT_SCORE * run.sum.events as f64
    };
    let counted = |run: &Dated| {
        let Portion { events, scored, .. } = run.sum;
        format!("{} ({} of {events} rows)", run.label(), events - scored)
    };
    let named: Vec<String> = runs.iter().filter(many).map(counted).collect();
    (!named.is_empty()).then(|| {
        format!(
            "more than {} % of the rows have no score (not finite, or outside a transform's domain): {}; live time includes them, so excess and counts per hour are too small by this share",
            100.0 * MOST_WITHOUT_SCORE,
            first_named(&named)
        )
    })
}

/// Warns if many of the events that count are outside all bins of energy.
pub(super) fn warn_of_energies(total: &Group, warnings: &mut Vec<String>) {
    let counted = total.tally.on + total.tally.off.iter().sum::<u64>();
    let binned: u64 = total.energy.iter().map(|bin| bin.on + bin.off).sum();
    if !total.energy.is_empty()
        && counted.saturating_sub(binned) as f64 > MOST_OUTSIDE * counted as f64
    {
        warnings.push(format!(
            "{} of {counted} counted events are outside all bins of energy: the energy table or [energy] edges do not cover them",
            counted - binned
        ));
    }
}

/// Advice if the OFF positions do not have the same background.
const ADVICE: &str = "are the units of centroid, axis and source position right, and is there no star at a position?";

/// Warns of counts that no background gives with any source.
pub(super) fn warn_of_background(total: &EventTally, warnings: &mut Vec<String>) {
    if (total.inside as f64) < LEAST_INSIDE * total.events as f64 {
        let few = match total.inside {
            0 => format!("none of {} events is", total.events),
            few => format!("only {few} of {} events are", total.events),
        };
        warnings.push(format!(
            "{few} inside the model's cuts: are units and schema of the scored files right?"
        ));
    }
    if let Some(of) = total.homogeneity.filter(|of| of.p_value < LEAST_HOMOGENEITY) {
        warnings.push(format!(
            "the counts at the OFF positions differ by more than chance (chi2 {:.1} of {}, p {:.1e}): the positions do not see one background; {ADVICE}",
            of.chi2, of.degrees, of.p_value
        ));
    }
    if let Some(significance) = total.significance.filter(|sigma| *sigma < LEAST_SIGNIFICANCE) {
        warnings.push(format!(
            "fewer events at the source than at the OFF positions, by {:.1} sigma: the positions do not see one background; {ADVICE}",
            -significance
        ));
    }
}

pub(super) fn warn_of_simulation(
    simulation: &Simulation,
    used: &[Dated],
    total: &Group,
    edges: &[f64],
    warnings: &mut Vec<String>,
) {
    // Without OFF positions nothing leaks.
    if let Some(reason) = simulation.unweighted.as_ref().filter(|_| simulation.leak.positions > 0) {
        warnings.push(format!(
            "the leak is that of the spectrum thrown, not of the source's; {reason}"
        ));
    }
    if simulation.leaks.is_empty() && !total.energy.is_empty() {
        warnings.push(
            "the simulated gammas have no energies at each position: no corrected excess per bin of energy; score them again with the energy table of the season".to_string(),
        );
    }
    let unresolved = |bin: &&EnergyBin| bin.leak.is_some_and(|leak| !leak.resolved);
    let bins = total.energy.iter().filter(unresolved).filter(|bin| bin.on + bin.off > 0);
    let bins: Vec<String> =
        bins.map(|bin| format!("{} to {}", bin.low_tev, bin.high_tev)).collect();
    if !bins.is_empty() {
        warnings.push(format!(
            "the simulated gammas do not resolve the leak at {} TeV (under {} counted at the source, or 1 − leak known to worse than {:.0} %): no corrected excess there; simulate more gammas",
            bins.join(", "),
            Leak::MIN_GAMMAS,
            100.0 * Leak::MAX_ERROR
        ));
    }
    for bin in simulation.area.iter().filter(|bin| bin.exceeds_thrown) {
        warnings.push(format!(
            "more simulated gammas were scored at {:.3} to {:.3} TeV than [simulation] says were thrown: no area there; check its index, energies and number of events",
            bin.low_tev, bin.high_tev
        ));
    }
    warn_of_true_energies(simulation, edges, warnings);
    let offsets = used.iter().filter_map(|run| run.counts.offset);
    let offsets = offsets.reduce(|a, b| [a[0].min(b[0]), a[1].max(b[1])]);
    if let (Some([least, most]), Some([low, high])) = (offsets, simulation.offset)
        && (low < least - OFFSET_MARGIN || high > most + OFFSET_MARGIN)
    {
        warnings.push(format!(
            "the simulated gammas come from {low:.2} to {high:.2} deg off the camera's centre, the season's source is at {least:.2} to {most:.2} deg: leak and areas are not those of its selection"
        ));
    }
    if let Some(thrown) = simulation.thrown.as_ref()
        && simulation.leak.events > thrown.events
    {
        warnings.push(format!(
            "{} simulated gammas were scored, but [simulation] events says that {} were thrown: efficiencies and areas are too large",
            simulation.leak.events, thrown.events
        ));
    }
    warnings.extend(models_differ(simulation, used));
}

/// Returns a warning if the simulated gammas were scored with other models than the season.
fn models_differ(simulation: &Simulation, used: &[Dated]) -> Option<String> {
    let models: BTreeSet<&String> = used.iter().flat_map(|run| &run.counts.models).collect();
    let own: BTreeSet<&String> = simulation.models.iter().collect();
    (models != own).then(|| {
        "the simulated gammas were scored with other models than the season: leak and areas are not those of its selection".to_string()
    })
}

/// Warns of true energies outside of all bins, and outside of those thrown.
pub(super) fn warn_of_true_energies(
    simulation: &Simulation,
    edges: &[f64],
    warnings: &mut Vec<String>,
) {
    let Some(TrueEnergies { low_tev, high_tev, events, not_thrown }) = simulation.true_energies
    else {
        // With OFF positions, the warning of the leak covers this.
        if simulation.thrown.is_some() && simulation.leak.positions == 0 {
            warnings.push(
                "the scores of the simulated gammas have no energy_true: no effective areas; score them with copy = [\"energy\"]".to_string(),
            );
        }
        return;
    };
    let [low, high] = [low_tev, high_tev].map(|energy| significant(energy, 3));
    if simulation.area.is_empty() {
        let [first, last] = [edges.first(), edges.last()].map(|edge| edge.copied().unwrap_or(0.0));
        warnings.push(format!(
            "no effective areas: the true energies of the simulated gammas, {low} to {high} TeV, are outside of all bins of energy, {first} to {last} TeV; is their unit TeV, and do [energy] edges cover them?"
        ));
    }
    if let Some(thrown) = &simulation.thrown
        && not_thrown as f64 > MOST_NOT_THROWN * events as f64
    {
        let [first, last] = thrown.energy_tev;
        warnings.push(format!(
            "{not_thrown} of {events} simulated gammas have a true energy outside of {first} to {last} TeV, which [simulation] energy_tev says were thrown: they have {low} to {high} TeV; correct energy_tev, or the unit of their energies; effective areas and leak are wrong"
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_warnings_of_runs_are_merged() {
        let mut warnings = vec!["all is well".to_string()];
        for run in 0..6 {
            warnings.push(format!("run {run}: no times"));
            if run < 4 {
                warnings.push(format!("run {run}: no portions"));
            }
        }
        let merged = merge_warnings(warnings);
        assert_eq!(merged[..2], ["all is well", "6 runs, such as run 0: no times"]);
        assert_eq!(merged[2..], ["run 0, run 1, run 2, run 3: no portions"]);
        let mixed = ["run 1: a", "b", "run 2: c"].map(str::to_string).to_vec();
        assert_eq!(merge_warnings(mixed.clone()), mixed);
    }
}
