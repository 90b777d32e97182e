//! Data of one file, without ranks: HDF5 and text in and out, schemas, tables, selections.
//!
//! `hdf5::` appears only in this folder.
//! A table is opened through a schema, which maps the columns of a file to the
//! project's quantities in canonical units; a reader then yields blocks of rows.

pub(crate) mod files;
mod hdf5;
pub mod images;
pub mod schema;
pub mod selection;
pub mod table;
pub mod text;

pub use schema::Schema;
pub use schema::columns::{Attribute, ColumnSpec, ColumnType, ColumnValues, ColumnWriter};
pub use table::{Block, InputFile, Request, Table, TableReader};
