//! An input file with its schema, rows and class, and how its rows are seen.

use crate::config::Class;
use crate::data::schema::Schema;
use crate::data::selection::Selection;
use crate::data::table::{Block, InputFile, Request, Table};
use crate::error::{Fault, Result};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A file to train on, and its class where the file does not say.
#[derive(Debug, Clone)]
pub struct Source {
    pub path: PathBuf,
    pub schema: Arc<Schema>,
    pub rows: u64,
    pub class: Option<Class>,
    /// Where its rows are not seen as they stand in the file.
    pub view: Option<Arc<dyn RowTransform>>,
}

/// Rows seen in another way than they stand in a file, such as from another source position.
pub trait RowTransform: std::fmt::Debug + Send + Sync {
    /// What is to be read of a table for the quantities of a request to be known.
    fn request(&self, table: &Table, wanted: Request) -> Result<Request>;
    /// From a block that was read by `read` to one of `wanted`, with a note on every row;
    /// `first` is the global number of the first. A block holds rows of other ranks too.
    fn apply(
        &self,
        read: &Request,
        wanted: &Request,
        first: u64,
        block: &mut Block,
    ) -> Result<Vec<RowNote>>;
    /// Hears of each row of this rank, once, and whether it can be used but for its verdict.
    fn observe(&self, wanted: &Request, block: &Block, row: usize, note: &RowNote, usable: bool);
}

/// What a view says of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowNote {
    pub row_use: RowUse,
    /// The run, by its key.
    pub run: i64,
    /// What the view wants to be reminded of.
    pub bits: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowUse {
    Use,
    /// Left out, as it may come from the source.
    OnSource,
    /// Of a run that is kept for scoring: to the test part.
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
                .expected("a column that tells gammas from hadrons")
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

/// What training asks of every row of a source.
pub fn request(source: &Source, selection: &Selection, key: Option<&[String]>) -> Request {
    Request {
        quantities: selection.quantities().to_vec(),
        keys: key.map(<[String]>::to_vec).unwrap_or_default(),
        shower: key.is_none(),
        class: source.class.is_none(),
    }
}
