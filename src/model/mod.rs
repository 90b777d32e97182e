//! Models: initial parameters, card, model file, and synthetic anomalies.

pub(crate) mod anomalies;
mod card;
mod init;
mod reference;
mod store;

pub use card::{
    Card, ComparedFeature, Contamination, DataFile, FORMAT, FlowCard, FlowTraining,
    HadronComparison, OffSourceCard, TrainingRecord, VERSION, VERSION_OF_SEVERAL,
    VERSION_WITH_BINS, VERSION_WITH_NORMALS, VERSION_WITH_REFERENCE, VERSION_WITH_WEIGHT,
};
pub use init::initial_params;
pub(crate) use reference::{ClassReference, FRACTIONS, Reference, SketchCard};
pub use store::{Model, ModelSketches};
