//! Opens the columns of a source, and reads its rows through its view.

use super::sketch::{self, Names};
use super::source::{RowNote, RowUse, Source};
use crate::comm::host;
use crate::data::selection::Selection;
use crate::data::selection::split::{Part, Splitter};
use crate::data::table::{Block, InputFile, Request, TableReader};
use crate::error::{Fault, Result};
use std::ops::Range;

/// Opens the columns of a source for a request, and those that its view needs for it. Another
/// rank may have listed the file.
///
/// # Errors
/// `Input` if the file cannot be read, or its rows differ from those at the start of the job.
pub(crate) fn open(source: &Source, wanted: &Request) -> Result<(TableReader, Request)> {
    let mut file = InputFile::open(&source.path, Some(&source.schema))?;
    if file.rows() != source.rows {
        return Err(Fault::new("the file is not what it was when the job began")
            .file(&source.path)
            .expected(format!("{} rows", source.rows))
            .found(format!("{} rows, on {}", file.rows(), host()))
            .advice(
                "give files that no one writes, on a file system that all nodes of the job share",
            )
            .input());
    }
    open_columns(&mut file, source, wanted)
}

/// Opens the columns of a source whose file is open already, as [`open`] does.
pub(crate) fn open_columns(
    file: &mut InputFile,
    source: &Source,
    wanted: &Request,
) -> Result<(TableReader, Request)> {
    let read = match &source.view {
        Some(view) => view.request(file.table(), wanted.clone())?,
        None => wanted.clone(),
    };
    Ok((file.reader(&read)?, read))
}

/// A source with its columns open.
pub(crate) struct OpenedSource<'a> {
    pub source: &'a Source,
    reader: TableReader,
    read: Request,
    wanted: Request,
}

impl<'a> OpenedSource<'a> {
    pub(crate) fn open(source: &'a Source, wanted: Request) -> Result<OpenedSource<'a>> {
        let (reader, read) = open(source, &wanted)?;
        Ok(OpenedSource { source, reader, read, wanted })
    }

    /// Reads rows through the view of the source, and returns its notes; `first` is the global
    /// number of the first row. Without a view the notes are empty.
    pub(crate) fn read(
        &mut self,
        rows: Range<u64>,
        first: u64,
        block: &mut Block,
    ) -> Result<Vec<RowNote>> {
        self.reader.read(rows, block)?;
        let Some(view) = &self.source.view else { return Ok(Vec::new()) };
        let seen = view.apply(&self.read, &self.wanted, first, block);
        seen.map_err(|e| e.in_file(&self.source.path))
    }
}

/// A source with the notes of its view on the rows of a block.
pub(super) struct Viewed<'a> {
    pub opened: &'a OpenedSource<'a>,
    pub notes: &'a [RowNote],
}

impl Viewed<'_> {
    /// Returns the use of a row of this rank, and reports the row to the view.
    pub(crate) fn row_use(&self, block: &Block, row: usize, usable: bool) -> RowUse {
        let Some((view, note)) = self.opened.source.view.as_ref().zip(self.notes.get(row)) else {
            return RowUse::Use;
        };
        view.observe(&self.opened.wanted, block, row, note, usable);
        note.row_use
    }
}

/// Returns the class of a row: that of the file, or of the class column.
pub(crate) fn class_of(source: &Source, block: &Block, row: usize) -> Option<i8> {
    match source.class {
        Some(class) => Some(class.code()),
        None => block.class.as_ref().map(|class| class[row]),
    }
}

/// Returns the part of a row, by the key columns given, by those of the schema, or by its content.
pub(crate) fn part(
    splitter: &Splitter,
    selection: &Selection,
    block: &Block,
    row: usize,
    class: i8,
    keyed: bool,
) -> Part {
    let keys = if keyed { &block.keys } else { &block.shower };
    if keys.is_empty() {
        let features = selection.features().len();
        return splitter.by_content(class, block.quantities[..features].iter().map(|q| q[row]));
    }
    splitter.by_key(class, keys.iter().map(|k| k[row]))
}

/// Returns the hashes that a row is recognised by: of the key that its part depends on, and of the
/// bits of its features.
pub(crate) fn names_of(
    selection: &Selection,
    block: &Block,
    row: usize,
    class: i8,
    keyed: bool,
) -> Names {
    let keys = if keyed { &block.keys } else { &block.shower };
    let key = || sketch::name_of_key(class, keys.iter().map(|k| k[row]));
    let features = selection.features().len();
    let content = block.quantities[..features].iter().map(|q| q[row]);
    Names { key: (!keys.is_empty()).then(key), content: sketch::name_of_content(content) }
}
