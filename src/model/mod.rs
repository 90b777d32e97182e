//! A flow as a thing to keep: first parameters, the card, the file.

mod card;
mod init;
mod store;

pub use card::{Card, DataFile, FORMAT, FlowCard, Training, VERSION};
pub use init::initial_params;
pub use store::Model;
