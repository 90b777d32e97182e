//! Data on disk: durable writing, HDF5 in and out, schemas, catalogues of files.
//!
//! `durable` is the only writer to disk, and `hdf5::` appears only in this folder.
//! A table is opened through a schema, which maps the columns of a file to the
//! project's quantities in canonical units; a reader then yields blocks of rows.

pub mod assign;
mod batch;
pub mod catalog;
pub mod check;
pub mod classes;
pub mod columns;
pub mod convert;
pub mod csv;
pub mod cut_flow;
pub mod durable;
pub mod earlier;
pub mod events;
pub mod expression;
pub mod extraction;
pub mod features;
pub mod finished;
pub mod given;
mod h5;
mod header;
mod host_copies;
pub mod images;
mod layout;
pub mod ledger;
pub mod lock;
mod pattern;
pub mod plausible;
pub mod probe;
pub mod protected;
pub mod reading;
mod record;
pub mod repeated;
pub mod report;
pub mod roles;
mod rows;
pub mod schema;
pub mod scores;
pub mod selection;
pub mod shards;
pub mod shower_key;
pub mod sketch;
pub mod split;
pub mod started;
pub mod store;
mod stored;
pub mod table;
pub mod text;
mod told;
pub mod unix_time;
pub mod values;
pub mod verification;
pub mod walk;

pub use columns::{Attribute, ColumnSpec, ColumnWriter, Kind, Values};
pub use expression::Expression;
pub use schema::Schema;
pub use table::{Block, Reader, Request, Table};
