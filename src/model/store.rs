//! Reads and writes model files: safetensors with the card as JSON in one metadata key.
//!
//! There is only one key, because the order of several is random and equal models must have equal
//! bytes. A file is checked against its card before any weight is used: names, shapes, finite
//! values, checksum. Any difference is an error that names it.

use super::card::Card;
use super::reference::{Reference, SketchCard};
use crate::bounded;
use crate::dataset::sketch::Sketch;
use crate::error::{Error, Fault, Result};
use crate::storage;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use taiga_flow_gpu::layout::Layout;

const CARD_KEY: &str = "taiga-flow";
/// Largest model file that is read; the largest flow within the limits is much smaller.
const LARGEST_FILE: u64 = 4 << 30;

/// Tensors with the bits of the sketches.
const KEYS: &str = "reference.keys";
const CONTENTS: &str = "reference.contents";

/// Sketches of the training events.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ModelSketches {
    pub keys: Option<Sketch>,
    pub contents: Option<Sketch>,
}

/// A model: its card, and the parameters of each flow by name.
#[derive(Debug, Clone, PartialEq)]
pub struct Model {
    pub card: Card,
    pub flows: BTreeMap<String, Vec<f32>>,
    pub sketches: ModelSketches,
}

impl Model {
    /// Returns the bytes of the model file, a function of the model alone.
    ///
    /// # Errors
    /// `Internal` if the card or the weights cannot be serialised.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let broken =
            |e: &dyn std::fmt::Display| Fault::new("cannot write the model").found(e).internal();
        let card = Card { checksum: self.checksum()?, ..self.card.clone() };
        let card = serde_json::to_string(&card).map_err(|e| broken(&e))?;
        let mut tensors: Vec<(String, Dtype, Vec<usize>, Vec<u8>)> = Vec::new();
        for (name, flow) in &self.card.flows {
            let params = self
                .flows
                .get(name)
                .ok_or_else(|| broken(&format!("no parameters of flow {name}")))?;
            for tensor in Layout::new(&flow.spec).tensors() {
                let bytes = params[tensor.range].iter().flat_map(|p| p.to_le_bytes()).collect();
                tensors.push((format!("{name}.{}", tensor.name), Dtype::F32, tensor.shape, bytes));
            }
        }
        for (name, sketch) in self.sketches.named() {
            let shape = vec![sketch.bits.len()];
            tensors.push((name.to_string(), Dtype::U8, shape, sketch.bits.clone()));
        }
        let views: Vec<(&str, TensorView)> = tensors
            .iter()
            .map(|(name, dtype, shape, bytes)| {
                let view = TensorView::new(*dtype, shape.clone(), bytes).map_err(|e| broken(&e))?;
                Ok((name.as_str(), view))
            })
            .collect::<Result<_>>()?;
        let metadata = HashMap::from([(CARD_KEY.to_string(), card)]);
        safetensors::serialize(views, Some(metadata)).map_err(|e| broken(&e))
    }

    /// Writes the file atomically; returns its blake3.
    ///
    /// # Errors
    /// Environment error if the file cannot be written.
    pub(crate) fn save(&self, path: &Path) -> Result<String> {
        let bytes = self.to_bytes()?;
        storage::write_file(path, &bytes)?;
        Ok(blake3::hash(&bytes).to_hex().to_string())
    }

    /// Reads and checks a model file; returns it with its blake3.
    ///
    /// # Errors
    /// Input error if the file cannot be read, or does not match its card.
    pub fn load(path: &Path) -> Result<(Model, String)> {
        let unreadable = |e: &dyn std::fmt::Display| {
            Fault::new("cannot read the model").file(path).found(e).input()
        };
        let bytes = bounded::read(path, LARGEST_FILE).map_err(|e| unreadable(&e))?;
        let model = Model::from_bytes(&bytes).map_err(|e| e.in_file(path))?;
        Ok((model, blake3::hash(&bytes).to_hex().to_string()))
    }

    /// Parses and checks the bytes of a model file.
    ///
    /// # Errors
    /// Input error if the bytes are not a model, or do not match the card.
    pub fn from_bytes(bytes: &[u8]) -> Result<Model> {
        let (_, metadata) = SafeTensors::read_metadata(bytes).map_err(|e| not_a_model(&e))?;
        let card = metadata.metadata().as_ref().and_then(|m| m.get(CARD_KEY));
        let text = card.ok_or_else(|| not_a_model(&"no card"))?;
        let card: Card =
            serde_json::from_str(text).map_err(|e| not_a_model(&format!("a card with {e}")))?;
        card.validate()?;
        // A field with a damaged name would be read as absent.
        if serde_json::to_string(&card).is_ok_and(|written| written != *text) {
            return Err(damaged("the card as written", "different text with the same meaning"));
        }
        let tensors = SafeTensors::deserialize(bytes).map_err(|e| not_a_model(&e))?;
        let mut flows = BTreeMap::new();
        for (name, flow) in &card.flows {
            let layout = Layout::new(&flow.spec);
            // Check before allocating the memory that the card asks for.
            if layout.len() > bytes.len() / size_of::<f32>() {
                return Err(not_a_model(&format!(
                    "{} weights in {} bytes",
                    layout.len(),
                    bytes.len()
                )));
            }
            flows.insert(name.clone(), read_flow(&tensors, name, &layout)?);
        }
        let sketches = match &card.reference {
            Some(reference) => ModelSketches::read(&tensors, reference)?,
            None => ModelSketches::default(),
        };
        let model = Model { card, flows, sketches };
        let (expected, found) = (&model.card.checksum, model.checksum()?);
        if *expected != found {
            return Err(damaged(&format!("checksum {expected}"), &found));
        }
        Ok(model)
    }

    /// Computes the value of the card's `checksum`.
    fn checksum(&self) -> Result<String> {
        let card = Card { checksum: String::new(), ..self.card.clone() };
        let json = serde_json::to_vec(&card)
            .map_err(|e| Fault::new("cannot write the model").found(e).internal())?;
        let mut hasher = blake3::Hasher::new();
        hasher.update(&json);
        for params in self.flows.values() {
            let bytes: Vec<u8> = params.iter().flat_map(|p| p.to_le_bytes()).collect();
            hasher.update(&bytes);
        }
        Ok(hasher.finalize().to_hex().to_string())
    }
}

impl ModelSketches {
    fn named(&self) -> impl Iterator<Item = (&'static str, &Sketch)> {
        let keys = self.keys.iter().map(|sketch| (KEYS, sketch));
        keys.chain(self.contents.iter().map(|sketch| (CONTENTS, sketch)))
    }

    /// Reads and checks the sketches in the card.
    fn read(tensors: &SafeTensors, reference: &Reference) -> Result<ModelSketches> {
        Ok(ModelSketches {
            keys: read_sketch(tensors, KEYS, reference.keys.as_ref())?,
            contents: read_sketch(tensors, CONTENTS, reference.contents.as_ref())?,
        })
    }
}

/// Reads the sketch of a card, if there is one.
fn read_sketch(
    tensors: &SafeTensors,
    name: &str,
    card: Option<&SketchCard>,
) -> Result<Option<Sketch>> {
    let Some(card) = card else { return Ok(None) };
    let fault = || Fault::new("the model's sketches do not match its card").dataset(name);
    let view = tensors.tensor(name).map_err(|e| fault().found(e).input())?;
    if view.dtype() != Dtype::U8 {
        let found = format!("{:?}", view.dtype());
        return Err(fault().expected("u8").found(found).input());
    }
    card.sketch(view.data()).map(Some)
}

fn not_a_model(found: &dyn std::fmt::Display) -> Error {
    Fault::new("not a taiga-flow model")
        .expected("a safetensors file with a card under 'taiga-flow'")
        .found(found)
        .advice("give the model.safetensors of a finished run")
        .input()
}

fn damaged(expected: &str, found: &str) -> Error {
    Fault::new("the model file is damaged")
        .expected(expected)
        .found(found)
        .advice("copy the file again; it was changed after it was written")
        .input()
}

fn read_flow(tensors: &SafeTensors, flow: &str, layout: &Layout) -> Result<Vec<f32>> {
    let mut params = vec![0.0; layout.len()];
    for tensor in layout.tensors() {
        let name = format!("{flow}.{}", tensor.name);
        let fault = || Fault::new("the model's weights do not match its card").dataset(&name);
        let view = tensors.tensor(&name).map_err(|e| fault().found(e).input())?;
        if view.dtype() != Dtype::F32 || view.shape() != tensor.shape {
            return Err(fault()
                .expected(format!("f32 of shape {:?}", tensor.shape))
                .found(format!("{:?} of shape {:?}", view.dtype(), view.shape()))
                .input());
        }
        for (param, bytes) in params[tensor.range].iter_mut().zip(view.data().as_chunks::<4>().0) {
            *param = f32::from_le_bytes(*bytes);
            if !param.is_finite() {
                return Err(fault().expected("finite weights").found(*param).input());
            }
        }
    }
    Ok(params)
}
