//! Files to train on, with schema, rows, class and view of their rows.

use crate::config::Class;
use crate::data::schema::Schema;
use crate::data::selection::Selection;
use crate::data::table::{Block, InputFile, Request, Table};
use crate::error::{Fault, Result};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A file to train on, and its class if it has no class column.
#[derive(Debug, Clone)]
pub struct Source {
    pub path: PathBuf,
    pub schema: Arc<Schema>,
    pub rows: u64,
    pub class: Option<Class>,
    /// The view of its rows; `None` if they are used as stored.
    pub view: Option<Arc<dyn RowTransform>>,
}

/// A view of rows that changes them, such as one from a different source position.
///
/// Methods return an error if the table lacks a column that they need.
#[allow(clippy::missing_errors_doc)] // described for all methods
pub trait RowTransform: std::fmt::Debug + Send + Sync {
    /// Returns the columns to read of a table to compute the quantities of a request.
    fn request(&self, table: &Table, wanted: Request) -> Result<Request>;
    /// Converts a block of the columns `read` to one of `wanted`, and returns a note on every row;
    /// `first` is the global number of the first row. A block contains rows of other ranks too.
    fn apply(
        &self,
        read: &Request,
        wanted: &Request,
        first: u64,
        block: &mut Block,
    ) -> Result<Vec<RowNote>>;
    /// Records each row of this rank once; `usable` is whether it may be used apart from its note.
    fn observe(&self, wanted: &Request, block: &Block, row: usize, note: &RowNote, usable: bool);
}

/// Note of a view on a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowNote {
    pub row_use: RowUse,
    /// The run, by its key.
    pub run: i64,
    /// Bits that the view stores for itself.
    pub bits: u32,
}

/// Use of a row in training.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowUse {
    Use,
    /// Left out, because it may come from the source.
    OnSource,
    /// In the test part, because its run is kept for scoring.
    HeldOut,
}

impl Source {
    /// Opens a file of events through `schema`, or through the one that fits it.
    ///
    /// # Errors
    /// Those of [`InputFile::open`]; `Input` if it has no rows, or neither a class column nor
    /// `class`.
    pub fn open(
        path: &Path,
        schema: Option<&Arc<Schema>>,
        class: Option<Class>,
    ) -> Result<(Source, InputFile)> {
        let file = InputFile::open(path, schema)?;
        file.table().refuse_empty()?;
        if class.is_none() && !file.table().has_class() {
            return Err(Fault::new("no class column")
                .file(path)
                .expected("a column with the class of each row")
                .advice("name the file as one of gammas or of hadrons instead")
                .input());
        }
        let source = Source {
            path: path.to_path_buf(),
            schema: Arc::clone(file.schema()),
            rows: file.rows(),
            class,
            view: None,
        };
        Ok((source, file))
    }
}

/// Returns the columns that training reads of a source.
pub(crate) fn request(source: &Source, selection: &Selection, key: Option<&[String]>) -> Request {
    Request {
        quantities: selection.quantities().to_vec(),
        keys: key.map(<[String]>::to_vec).unwrap_or_default(),
        shower: key.is_none(),
        class: source.class.is_none(),
    }
}
