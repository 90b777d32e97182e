//! Compares the two classes of a training: the same events in both, and classes that look
//! exchanged.
//!
//! Keys cannot tell events of both: simulations number them alike. The bits of all features
//! can, whatever the file and the row.

use super::plan::Plan;
use crate::config::{Class, Transform};
use crate::data::features::Moments;
use crate::data::selection::Selection;
use crate::data::sketch::Sketches;
use crate::error::{Error, Fault, Result};
use crate::world::{World, common, is_root};

/// Larger shares of the smaller class are refused.
const MOST_SHARED: f64 = 0.01;
/// Errors of the estimate that are allowed for: its standard deviation is below the root of the
/// number of names.
const SIGMAS: f64 = 5.0;

/// Features that are smaller for gammas: images of showers from the source point to it, and
/// are narrower.
const SMALLER: [&str; 2] = ["alpha", "width"];
/// Differences of means that count, in standard deviations.
const DIFFERENCE: f64 = 0.2;

/// Warns where gammas are wider than hadrons and point to the source less often.
pub fn warn_of_swapped(gammas: &Moments, hadrons: &Moments, selection: &Selection) {
    if look_swapped(gammas, hadrons, selection) {
        log::warn!(
            "the gammas' images are wider, or point to the source less often, than the hadrons': are data.gamma and data.hadron exchanged?"
        );
    }
}

fn look_swapped(gammas: &Moments, hadrons: &Moments, selection: &Selection) -> bool {
    let rising = [Transform::None, Transform::Log10, Transform::Ln, Transform::Signed];
    let features = selection.features().iter().enumerate();
    let features = features
        .filter(|(_, of)| SMALLER.contains(&of.name.as_str()) && rising.contains(&of.transform));
    let differences: Vec<f64> = features
        .map(|(d, _)| {
            let variance = [gammas, hadrons].map(|of| of.deviation[d] / of.count);
            (gammas.mean[d] - hadrons.mean[d]) / (0.5 * (variance[0] + variance[1])).sqrt()
        })
        .collect();
    differences.iter().any(|x| *x > DIFFERENCE) && differences.iter().all(|x| *x > 0.0)
}

/// Refuses a feature that has one value in all events of a class: a model would tell the classes
/// by it.
///
/// # Errors
/// Input, with the class and the feature.
pub fn refuse_constant(moments: &Moments, plan: &Plan, class: Class) -> Result<()> {
    let scaler = moments.scaler(plan.selection.features(), &plan.units);
    scaler.map(drop).map_err(|error| match error {
        Error::Input(mut fault) => {
            fault.what = format!("{} in the {class}s", fault.what);
            Error::Input(fault)
        }
        other => other,
    })
}

/// Share of repeated rows of a class above which they are warned of.
const MOST_REPEATED: f64 = 0.02;

/// Compares the rows of a class with those of the classes before, on all ranks alike.
///
/// # Errors
/// Input, where too many are equal.
pub fn refuse_shared(world: &dyn World, before: &Sketches, of_class: &Sketches) -> Result<()> {
    let (mut before, mut of_class) = (before.contents.clone(), of_class.contents.clone());
    before.merge(world)?;
    of_class.merge(world)?;
    let repeated = of_class.names as f64 - of_class.distinct();
    let names = of_class.names as f64;
    if is_root(world) && repeated > (MOST_REPEATED * names).max(SIGMAS * names.sqrt()) {
        log::warn!(
            "about {:.0} % of the rows of a class have the features of another one: copies with other keys?",
            100.0 * repeated / names
        );
    }
    if before.names == 0 || of_class.names == 0 {
        return Ok(());
    }
    let (first, second) = (before.distinct(), of_class.distinct());
    let shared = before.shared(&of_class);
    let allowed = (MOST_SHARED * first.min(second)).max(SIGMAS * (first + second).sqrt());
    if shared <= allowed {
        return Ok(());
    }
    let percent = (100.0 * shared / first.min(second)).min(100.0);
    common(Err(Fault::new("gammas and hadrons share events")
        .expected("no event of both classes")
        .found(format!(
            "about {percent:.0} % of the events of the smaller class are also in the other"
        ))
        .advice("remove the copies: each event belongs to one class")
        .input()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::sketch::{Names, Shape, name_of_content};
    use crate::world::{Solo, Threads};
    use std::ops::Range;

    fn of(rows: Range<u32>, rank: usize, ranks: usize) -> Sketches {
        let mut sketches = Sketches::new(Shape::new(60_000));
        for row in rows.skip(rank).step_by(ranks) {
            let content = name_of_content([f32::from_bits(row), 1.0].into_iter());
            sketches.insert(&Names { key: None, content });
        }
        sketches
    }

    #[test]
    fn classes_that_share_events_are_refused_on_any_ranks() {
        let first = std::process::id() % 1000;
        let verdict = |gammas: Range<u32>, hadrons: Range<u32>| {
            let one = refuse_shared(&Solo, &of(gammas.clone(), 0, 1), &of(hadrons.clone(), 0, 1));
            let one = one.err().map(|error| error.to_string());
            for told in Threads::run(3, |world| {
                let of = |rows: &Range<u32>| of(rows.clone(), world.rank(), 3);
                refuse_shared(world, &of(&gammas), &of(&hadrons))
            }) {
                assert_eq!(told.err().map(|error| error.to_string()), one);
            }
            one
        };
        assert_eq!(verdict(first..first + 20_000, 30_000..60_000), None);
        assert_eq!(verdict(first..first, 30_000..60_000), None);
        let text = verdict(first..first + 20_000, first + 15_000..first + 25_000).unwrap();
        assert!(text.contains("50 %") || text.contains("49 %") || text.contains("51 %"), "{text}");
    }
}
