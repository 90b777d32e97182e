//! Opens the files to evaluate, with their roles.

use super::Options;
use crate::comm::{Communicator, is_root, mark_shared, sync_result};
use crate::config::Class;
use crate::data::files::list;
use crate::data::selection::Selection;
use crate::data::table::InputFile;
use crate::dataset::catalog::{self, Catalog};
use crate::dataset::source::Source;
use crate::error::{Fault, Result};
use crate::model::Card;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Opens the files. A file that is given as one class and has a class column is filtered by it.
/// Returns the files, and a warning if one lacks a quantity of the bins of the model's thresholds,
/// which are then left out.
///
/// # Errors
/// `Input` if a file cannot be opened or is given twice, `Usage` without files.
pub(super) fn open(
    comm: &dyn Communicator,
    options: &Options,
    card: &Card,
) -> Result<(Vec<Source>, Option<String>)> {
    let roles: [catalog::Role; 3] = [
        (&options.files, None),
        (&options.gamma, Some(Class::Gamma)),
        (&options.hadron, Some(Class::Hadron)),
    ];
    let lists: [(&str, &[PathBuf]); 3] =
        [("FILES", &options.files), ("--gamma", &options.gamma), ("--hadron", &options.hadron)];
    sync_result(comm, if is_root(comm) { list::refuse_shared(&lists) } else { Ok(()) })?;
    let per = card.thresholds.as_ref().map_or("", |thresholds| &thresholds.per);
    let mut bins = Selection::new(&[], &BTreeMap::new())?;
    if card.thresholds.is_some() {
        bins = bins.with_bins(per, &[])?;
    }
    let look = |_: &Source, file: &mut InputFile| {
        let known = file.table().quantities();
        let mut needed = bins.quantities().iter();
        let lacking = needed.find(|name| !known.contains(&name.as_str()));
        Ok(lacking.cloned().unwrap_or_default())
    };
    let Catalog { sources, said } =
        catalog::catalogue(comm, &roles, options.schema.as_deref(), &look)?;
    if sources.is_empty() {
        return mark_shared(Err(Fault::new("no files to evaluate")
            .advice("give files, --gamma or --hadron")
            .usage()));
    }
    let lacking = said.iter().find(|(_, name)| !name.is_empty()).map(|(file, name)| {
        let path = sources[*file].path.display();
        format!("Thresholds per {per} are left out: {path} has no {name}.")
    });
    Ok((sources, lacking))
}
