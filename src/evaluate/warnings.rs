//! Warnings of an evaluation, in the order of its report.

use super::left_out;
use crate::comm::Communicator;
use crate::dataset::source::Source;
use crate::dataset::{duplicates, values};
use crate::engine::Scorer;
use crate::error::{Error, Fault, Result};
use crate::statistics::Evaluation;

/// Warnings by their origin.
#[derive(Debug, Default)]
pub(super) struct Warnings {
    /// Files whose rows have no class of their own.
    pub(super) unlabelled: Vec<String>,
    implausible: Vec<String>,
    /// The first implausible value, as an error.
    first_implausible: Option<Error>,
    duplicates: Option<String>,
    /// Rows with the features of other rows.
    pub(super) copies: Vec<String>,
    /// Files with events of the training.
    pub(super) recognised: Vec<String>,
    /// Classes that differ from those of the training.
    pub(super) unlike: Vec<String>,
}

impl Warnings {
    /// Finds duplicate events and implausible values of the files. A collective.
    pub(super) fn of_files(
        comm: &dyn Communicator,
        sources: &[Source],
        scorer: &Scorer,
    ) -> Result<Warnings> {
        let duplicates = duplicates::find(comm, sources)?;
        let implausible = values::find(comm, sources, scorer.selection())?;
        let first = implausible.first();
        Ok(Warnings {
            first_implausible: first.map(|first| first.refusal(&sources[first.file])),
            implausible: implausible.iter().map(|found| found.line(sources)).collect(),
            duplicates: duplicates
                .map(|fault| format!("{fault}. The errors of all figures are too small.")),
            ..Warnings::default()
        })
    }

    /// Refuses events unlike those of the training, and implausible values, with `--strict`.
    ///
    /// # Errors
    /// `Input`.
    pub(super) fn refuse_if_strict(&self, is_strict: bool) -> Result<()> {
        match (self.unlike.first(), &self.first_implausible) {
            (Some(first), _) if is_strict => Err(refused_as_unlike(first)),
            (None, Some(error)) if is_strict => Err(error.clone()),
            _ => Ok(()),
        }
    }

    /// Adds all warnings to an evaluation; `lacking` is that of thresholds that are left out.
    pub(super) fn add_to(self, evaluation: Evaluation, lacking: Option<String>) -> Evaluation {
        let mut evaluation = evaluation;
        if let Some(lacking) = lacking {
            evaluation = evaluation.with_warning(lacking);
        }
        // Copies that duplicate keys have named are not named again.
        let copies = if self.duplicates.is_none() { self.copies } else { Vec::new() };
        let of_values = left_out::warnings(&evaluation).into_iter().chain(self.unlabelled);
        let of_events = self.duplicates.into_iter().chain(copies).chain(self.recognised);
        for warning in of_values.chain(self.implausible).chain(of_events).chain(self.unlike) {
            evaluation = evaluation.with_warning(warning);
        }
        evaluation
    }
}

fn refused_as_unlike(text: &str) -> Error {
    Fault::new("the events are unlike those that the model was trained on")
        .found(text)
        .advice("look at units, telescope and processing; without --strict this is a warning")
        .input()
}
