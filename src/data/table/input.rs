//! An input file that is open: format, schema, columns, rows, stamp and hash from one opening.
//!
//! Detection of the schema, checks, hashing and reading share the opening. Its stamp is taken
//! before the file is opened, and compared whenever rows are read. A file stays open as long as
//! the value or a reader of it: a caller keeps few of them, and one [`Table`] per file.

use super::{Request, Table, TableReader};
use crate::data::files::stamp::{Stamp, hash_bytes, hash_text};
use crate::data::hdf5::descriptor::BytesFrom;
use crate::data::hdf5::{self, DEFAULT_CACHE, OpenInput};
use crate::data::schema::Schema;
use crate::error::{Fault, Result};
use std::path::Path;
use std::sync::Arc;

/// An event file that is open.
pub struct InputFile {
    table: Table,
    /// Absent only while the file is opened again with a larger cache.
    handle: Option<OpenInput>,
    cache: usize, // [bytes]
}

impl InputFile {
    /// Opens an event file through `schema`, or through the one that fits the file.
    ///
    /// # Errors
    /// `Input` if the file cannot be read, no schema fits it, or its table is damaged; `Usage` if
    /// the schema is one of text tables.
    pub(crate) fn open(path: &Path, schema: Option<&Arc<Schema>>) -> Result<InputFile> {
        let open = hdf5::open_input(path, DEFAULT_CACHE)?;
        let schema = match schema {
            Some(schema) => Arc::clone(schema),
            None => Arc::new(Schema::detect_in(path, &open.file)?),
        };
        let table = Table::of(path, &open, schema)?;
        Ok(InputFile { table, handle: Some(open), cache: DEFAULT_CACHE })
    }

    /// Returns the contents of the file.
    pub(crate) fn table(&self) -> &Table {
        &self.table
    }

    /// Closes the file and returns its contents.
    pub(crate) fn into_table(self) -> Table {
        self.table
    }

    pub(crate) fn path(&self) -> &Path {
        &self.table.path
    }

    pub(crate) fn schema(&self) -> &Arc<Schema> {
        &self.table.schema
    }

    pub(crate) fn rows(&self) -> u64 {
        self.table.rows
    }

    /// Returns the stamp of the file from before it was opened.
    pub(crate) fn stamp(&self) -> Stamp {
        self.table.stamp
    }

    /// Returns the blake3 hash of the open file as text, and calls `progress` for each part that
    /// is read.
    pub(crate) fn hash(&self, progress: impl Fn()) -> Result<String> {
        let handle = self.handle()?;
        let hash = hash_bytes(&self.table.path, BytesFrom::new(&handle.bytes, 0), progress)?;
        Ok(hash_text(&hash))
    }

    /// Opens the requested columns and checks them. A shower key or class that the file does not
    /// have is left out of the blocks.
    ///
    /// # Errors
    /// `Input` if a quantity or key is absent, or a column does not fit the request.
    pub(crate) fn reader(&mut self, request: &Request) -> Result<TableReader> {
        let table = self.table.clone();
        self.reader_of(&table, request)
    }

    /// Opens the columns of a table that was derived from this one, as [`InputFile::reader`] does.
    ///
    /// # Errors
    /// Those of [`InputFile::reader`].
    pub(crate) fn reader_of(&mut self, table: &Table, request: &Request) -> Result<TableReader> {
        let reader = TableReader::new(table, self.handle()?, request)?;
        let wanted = reader.cache_bytes();
        if wanted <= self.cache {
            return Ok(reader);
        }
        // The library takes the cache from the first opening of a file, so it is closed before.
        drop(reader);
        self.handle = None;
        self.handle = Some(hdf5::open_input(&self.table.path, wanted)?);
        self.cache = wanted;
        TableReader::new(table, self.handle()?, request)
    }

    fn handle(&self) -> Result<&OpenInput> {
        let path = &self.table.path;
        self.handle
            .as_ref()
            .ok_or_else(|| Fault::new("the input could not be opened again").file(path).input())
    }
}

impl Table {
    /// Opens a file through a schema, describes its contents and closes it.
    ///
    /// # Errors
    /// Those of [`InputFile::open`].
    pub fn open(path: &Path, schema: &Schema) -> Result<Table> {
        let schema = Arc::new(schema.clone());
        Ok(InputFile::open(path, Some(&schema))?.into_table())
    }

    /// Opens the file again for the requested columns, as [`InputFile::reader`] does.
    ///
    /// # Errors
    /// Those of [`InputFile::reader`].
    pub fn reader(&self, request: &Request) -> Result<TableReader> {
        let handle = Some(hdf5::open_input(&self.path, DEFAULT_CACHE)?);
        let mut file = InputFile { table: self.clone(), handle, cache: DEFAULT_CACHE };
        file.reader_of(self, request)
    }
}
