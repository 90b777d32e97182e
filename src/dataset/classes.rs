//! Compares gammas with hadrons: events that are in both classes, and exchanged classes.
//!
//! Keys cannot identify an event that is in both classes, because simulations number both alike.
//! The bits of all features identify it in any file and row. `train` compares the events that it
//! has read; `check` reads the files for the comparison.

use super::event_store::{class_of, names_of};
use super::sketch::{Name, SketchShape, Sketches};
use super::source::Source;
use crate::comm::{Communicator, SingleRank, mark_shared};
use crate::config::{Class, Transform};
use crate::data::schema::columns::CHUNK_ROWS;
use crate::data::schema::features::Moments;
use crate::data::selection::{Selection, SelectionOutcome, Which};
pub use crate::data::table::events::MOST_REPEATED;
use crate::data::table::{Block, InputFile, Request};
use crate::error::{Error, Fault, Result};

/// Largest share of the smaller class that may be in both classes.
const MOST_SHARED: f64 = 0.01;
/// Standard deviations of the estimate that are allowed; one is below the root of the number of
/// names.
const SIGMAS: f64 = 5.0;

/// Features that are smaller for gammas: images of showers from the source are narrower and point
/// to the source.
const SMALLER: [&str; 2] = ["alpha", "width"];
/// Least difference of means that counts [standard deviations].
const DIFFERENCE: f64 = 0.2;

/// Returns a warning if gammas are wider than hadrons and point to the source less often; `inputs`
/// names the options of the files.
pub(crate) fn swapped(
    gammas: &Moments,
    hadrons: &Moments,
    selection: &Selection,
    inputs: &str,
) -> Option<String> {
    look_swapped(gammas, hadrons, selection).then(|| {
        format!(
            "the gammas' images are wider, or point to the source less often, than the hadrons': are {inputs} exchanged?"
        )
    })
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

/// Refuses a feature with one value in all events of a class: a model would separate the classes by
/// it.
///
/// # Errors
/// `Input`, with the class and the feature.
pub(crate) fn refuse_constant(
    moments: &Moments,
    selection: &Selection,
    units: &[String],
    class: Class,
) -> Result<()> {
    let scaler = moments.scaler(selection.features(), units);
    scaler.map(drop).map_err(|error| match error {
        Error::Input(mut fault) => {
            fault.what = format!("{} in the {class}s", fault.what);
            Error::Input(fault)
        }
        other => other,
    })
}

/// Compares the rows of a class with each other and with those of the classes before. Returns a
/// warning if rows of the class repeat. A collective.
///
/// # Errors
/// `Input` if too many are equal.
pub(crate) fn refuse_shared(
    comm: &dyn Communicator,
    before: &Sketches,
    of_class: &Sketches,
) -> Result<Option<String>> {
    let (mut before, mut of_class) = (before.contents.clone(), of_class.contents.clone());
    before.merge(comm)?;
    of_class.merge(comm)?;
    let repeated = of_class.names as f64 - of_class.distinct();
    let names = of_class.names as f64;
    let warning = (repeated > (MOST_REPEATED * names).max(SIGMAS * names.sqrt())).then(|| {
        format!(
            "about {:.0} % of the rows of a class have the same features as another row of the class: copies with other keys?",
            100.0 * repeated / names
        )
    });
    if before.names == 0 || of_class.names == 0 {
        return Ok(warning);
    }
    let (first, second) = (before.distinct(), of_class.distinct());
    let shared = before.shared(&of_class);
    let allowed = (MOST_SHARED * first.min(second)).max(SIGMAS * (first + second).sqrt());
    if shared <= allowed {
        return Ok(warning);
    }
    let percent = (100.0 * shared / first.min(second)).min(100.0);
    mark_shared(Err(Fault::new("gammas and hadrons share events")
        .expected("no event of both classes")
        .found(format!(
            "about {percent:.0} % of the events of the smaller class are also in the other"
        ))
        .advice("remove the copies: each event belongs to one class")
        .input()))
}

/// Refuses repeated rows, as [`refuse_shared`] describes them, of files without a key that
/// identifies an event: there they are the only sign of copies.
///
/// # Errors
/// `Input`.
pub(crate) fn refuse_repeated(repeated: &str) -> Result<()> {
    Err(Fault::new("duplicate events")
        .expected(format!(
            "at most {} % of equal rows, as the files have no run and event numbers",
            100.0 * MOST_REPEATED
        ))
        .found(repeated)
        .advice(
            "remove the copies, or set data.allow_repeated_events = true if different events have equal values",
        )
        .input())
}

/// Findings on the classes of files, in the words of `train`.
#[derive(Debug, Default)]
pub(crate) struct ClassComparison {
    /// Reason that training refuses the files for, and the files with events of both classes.
    pub shared: Option<(Fault, Vec<usize>)>,
    /// Warning of rows with the features of other rows.
    pub repeated: Option<String>,
    pub swapped: Option<String>,
}

/// Compares the classes of files in this process; `inputs` names the options of the files.
///
/// # Errors
/// Those of opening and reading the files.
pub(crate) fn compare(
    sources: &[Source],
    selection: &Selection,
    inputs: &str,
) -> Result<ClassComparison> {
    let shape = SketchShape::new(sources.iter().map(|source| source.rows).sum());
    let mut sketches = [Sketches::new(shape), Sketches::new(shape)];
    let mut moments = [(); 2].map(|()| Moments::new(selection.features().len()));
    for source in sources {
        for_each_event(source, selection, |class, content, coordinates| {
            sketches[class].contents.insert(content);
            moments[class].add(coordinates);
        })?;
    }
    let [gammas, hadrons] = &sketches;
    let mut found = ClassComparison::default();
    let none = Sketches::new(shape);
    for (before, of_class) in [(&none, gammas), (gammas, hadrons)] {
        match refuse_shared(&SingleRank, before, of_class) {
            Ok(repeated) => found.repeated = found.repeated.or(repeated),
            Err(Error::Input(fault)) => {
                let files = holding_both(sources, selection, &sketches)?;
                found.shared = Some((*fault, files));
            }
            Err(other) => return Err(other),
        }
    }
    if moments.iter().all(|of| of.count > 1.0) {
        found.swapped = swapped(&moments[0], &moments[1], selection, inputs);
    }
    Ok(found)
}

/// Returns the files with a share of events above [`MOST_SHARED`] in the other class.
fn holding_both(
    sources: &[Source],
    selection: &Selection,
    sketches: &[Sketches; 2],
) -> Result<Vec<usize>> {
    let mut found = Vec::new();
    for (i, source) in sources.iter().enumerate() {
        let (mut all, mut shared) = (0_u64, 0_u64);
        for_each_event(source, selection, |class, content, _| {
            let other = &sketches[1 - class].contents;
            if other.shape.keeps(content) {
                all += 1;
                shared += u64::from(other.contains(content));
            }
        })?;
        if shared as f64 > MOST_SHARED * all as f64 {
            found.push(i);
        }
    }
    Ok(found)
}

/// Calls `take` for each usable event of a file with 0 for a gamma or 1 for a hadron, the name of
/// its features, and its coordinates.
fn for_each_event(
    source: &Source,
    selection: &Selection,
    mut take: impl FnMut(usize, Name, &[f64]),
) -> Result<()> {
    let mut file = InputFile::open(&source.path, Some(&source.schema))?;
    let mut reader = file.reader(&Request {
        quantities: selection.quantities().to_vec(),
        class: source.class.is_none(),
        ..Request::default()
    })?;
    let (mut block, mut outcome) = (Block::default(), SelectionOutcome::default());
    let mut coordinates = vec![0.0; selection.features().len()];
    for start in (0..source.rows).step_by(CHUNK_ROWS) {
        reader.read(start..source.rows.min(start + CHUNK_ROWS as u64), &mut block)?;
        let columns: Vec<&[f32]> = block.quantities.iter().map(Vec::as_slice).collect();
        selection.evaluate(Which::All, &columns, 0..block.rows, &mut outcome);
        for row in (0..block.rows).filter(|row| outcome.status[*row] == 0) {
            let Some(class @ (0 | 1)) = class_of(source, &block, row) else { continue };
            for (d, x) in coordinates.iter_mut().enumerate() {
                *x = outcome.coordinates(d)[row];
            }
            let names = names_of(selection, &block, row, class, false);
            take(usize::from(class == Class::Hadron.code()), names.content, &coordinates);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comm::Threads;
    use crate::dataset::sketch::{Names, name_of_content};
    use std::ops::Range;

    fn of(rows: Range<u32>, rank: usize, ranks: usize) -> Sketches {
        let mut sketches = Sketches::new(SketchShape::new(60_000));
        for row in rows.skip(rank).step_by(ranks) {
            let content = name_of_content([f32::from_bits(row), 1.0].into_iter());
            sketches.insert(&Names { key: None, content });
        }
        sketches
    }

    #[test]
    fn classes_sharing_events_refused_on_any_ranks() {
        let first = (crate::test_seed() % 1000) as u32;
        let verdict = |gammas: Range<u32>, hadrons: Range<u32>| {
            let one =
                refuse_shared(&SingleRank, &of(gammas.clone(), 0, 1), &of(hadrons.clone(), 0, 1));
            let one = one.err().map(|error| error.to_string());
            for evaluated in Threads::run(3, |comm| {
                let of = |rows: &Range<u32>| of(rows.clone(), comm.rank(), 3);
                refuse_shared(comm, &of(&gammas), &of(&hadrons))
            }) {
                assert_eq!(evaluated.err().map(|error| error.to_string()), one);
            }
            one
        };
        assert_eq!(verdict(first..first + 20_000, 30_000..60_000), None);
        assert_eq!(verdict(first..first, 30_000..60_000), None);
        let text = verdict(first..first + 20_000, first + 15_000..first + 25_000).unwrap();
        assert!(text.contains("50 %") || text.contains("49 %") || text.contains("51 %"), "{text}");
    }
}
