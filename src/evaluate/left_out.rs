//! Warns of classes of which few events are evaluated, and of values that are not finite.

use crate::config::Class;
use crate::data::selection::{NOT_FINITE, OUT_OF_DOMAIN, STATUS_BITS};
use crate::statistics::{ClassCounts, Evaluation};

/// A smaller share of a class with a score is warned of.
const LEAST_SCORED: f64 = 0.01;
/// A larger share without one for its values is warned of: what training allows by default.
const MOST_UNUSABLE: f64 = 0.01;

/// Returns a warning for each class that has few scores, or many values that cannot be used.
pub(crate) fn warnings(evaluation: &Evaluation) -> Vec<String> {
    let Some(before) = evaluation.about.before_cuts else { return Vec::new() };
    let classes = [Class::Gamma, Class::Hadron];
    classes.into_iter().filter_map(|class| warning(evaluation, class, before)).collect()
}

fn warning(evaluation: &Evaluation, class: Class, before: ClassCounts) -> Option<String> {
    let of = |counts: &ClassCounts| match class {
        Class::Gamma => counts.gamma,
        Class::Hadron => counts.hadron,
    };
    let (all, scored) = (of(&before), of(&evaluation.counts));
    let count = |name: &str| evaluation.left_out.get(name).map_or(0, of);
    let percent = |part: u64| 100.0 * part as f64 / all as f64;
    if all == 0 {
        return None;
    }
    if (scored as f64) < LEAST_SCORED * all as f64 {
        let reasons = STATUS_BITS.iter().map(|(_, name)| (count(name), name));
        let reasons: Vec<String> =
            reasons.filter(|(n, _)| *n > 0).map(|(n, name)| format!("{n} {name}")).collect();
        return Some(format!(
            "Only {scored} of {all} {class}s ({:.2} %) are evaluated: {}. All figures are of these few. Check units and schema of the files with `taiga-flow check`.",
            percent(scored),
            reasons.join(", ")
        ));
    }
    let is_unusable = |bit: &u32| bit & (NOT_FINITE | OUT_OF_DOMAIN) != 0;
    let unusable = STATUS_BITS.iter().filter(|(bit, _)| is_unusable(bit));
    let unusable: u64 = unusable.map(|(_, name)| count(name)).sum();
    (unusable as f64 > MOST_UNUSABLE * all as f64).then(|| {
        format!(
            "{unusable} of {all} {class}s ({:.2} %) have values that are not finite or outside a transform's domain, and are in no figure. `taiga-flow check` names the columns.",
            percent(unusable)
        )
    })
}
