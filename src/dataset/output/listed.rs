//! Finished files as manifests and ledgers list them.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// A finished file as manifests and ledgers list it.
pub(crate) trait ListedFile: Clone + PartialEq + Serialize + DeserializeOwned {
    /// Key of the number of rows, by which the lines of commands differ.
    const ROWS_KEY: &str;
    /// Path of the output, relative to the output folder.
    fn output(&self) -> &str;
    fn rows(&self) -> u64;
    fn input_blake3(&self) -> &str;
    fn output_blake3(&self) -> &str;
}
