//! State that the threads of a rank share while they score.

use crate::data::schema::Schema;
use crate::dataset::assignment::Assignment;
use crate::error::{Fault, Result};
use crate::score::Options;
use crate::score::extracted::Extracted;
use crate::score::scoring_plan::ScoringPlan;
use crate::statistics::LikenessTally;
use crate::storage::FolderIdentity;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

/// State that the threads of a rank share.
pub struct PipelineContext<'a> {
    pub assignment: &'a Assignment,
    pub options: &'a Options,
    /// The output folder when the scoring began.
    pub folder: &'a FolderIdentity,
    /// Schema of the option `--schema`; without it each file has the schema that fits it.
    pub schema: Option<&'a Arc<Schema>>,
    pub plan: &'a ScoringPlan,
    pub model_blake3: &'a str,
    pub extracted: &'a Extracted,
    /// Row ranges of the pieces of each file.
    pub pieces: &'a [Vec<(u64, u64)>],
    /// Progress counter of the threads, for the watchdog.
    pub progress: AtomicU64,
}

impl PipelineContext<'_> {
    /// Warns of a file whose first rows are unlike the events that the model was trained on; with
    /// `--strict` refuses it.
    ///
    /// # Errors
    /// `Input`.
    pub(super) fn check_likeness(
        &self,
        input: &Path,
        likeness: Option<LikenessTally>,
    ) -> Result<()> {
        let Some(found) = likeness.and_then(|tally| self.plan.describe_difference(&tally)) else {
            return Ok(());
        };
        if !self.options.strict {
            log::warn!("{}: {found}; --strict refuses such files", input.display());
            return Ok(());
        }
        Err(Fault::new("the events are unlike those that the model was trained on")
            .file(input)
            .found(found)
            .advice("look at units, telescope and processing; without --strict this is a warning")
            .input())
    }
}
