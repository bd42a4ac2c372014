//! The model file: what an [`Artifact`] writes and how it is read back.
//!
//! One file, a [safetensors](https://github.com/huggingface/safetensors) container. Its metadata hold a single JSON document
//! (key `masf`, object keys sorted, so that two writes of one model are the same bytes):
//!
//! ```json
//! { "format_version": 1,
//!   "sections": { "": { "data": {}, "tag": "masf.detector" }, "fusion": { "data": {}, "tag": "masf.fusion" } },
//!   "sha256": "..." }
//! ```
//!
//! Artifacts nest: the path of a section is that of its parent, a dot, and a name; the tensors of a section carry its path
//! as prefix. The SHA-256 covers the sections and every tensor's name, type, shape and bytes.
//!
//! Reading trusts nothing: size, header, version, checksum, and the finiteness of every tensor are verified before an
//! artifact sees any of it, and an artifact asks for each tensor by name, type and shape. Files are read into memory, never
//! mapped, since another process may change a mapped file under the reader.

mod error;
mod reader;
mod registry;
mod writer;

pub use error::ModelFileError;
pub use reader::{ArtifactReader, ModelFile, ReadOptions, check_header, check_shape};
pub use registry::Registry;
pub use writer::{ArtifactWriter, SaveOptions, fingerprint, save};

use sha2::{Digest, Sha256};

use crate::Result;

/// The version of the format that this library writes; it reads this one and older ones.
pub const FORMAT_VERSION: u32 = 1;

/// The metadata key of the JSON document.
const METADATA_KEY: &str = "masf";

/// A part of a model that can be written to a model file and read back.
///
/// Reading returns an artifact that behaves bit for bit like the one that was written.
///
/// Every artifact is [`Any`](std::any::Any), so that one behind a trait object can be told by its type.
pub trait Artifact: std::any::Any + Send + Sync {
    /// The type tag under which a [`Registry`] finds the reader, such as `masf.memory-bank`.
    fn tag(&self) -> &'static str;

    /// Writes settings ([`ArtifactWriter::section`]), tensors and nested artifacts.
    ///
    /// # Errors
    /// Settings or tensors that cannot be represented: not finite, or a name used twice.
    fn write(&self, writer: &mut ArtifactWriter) -> Result<()>;

    /// Reads what [`write`](Self::write) wrote.
    ///
    /// # Errors
    /// [`ModelFileError`] names what is missing, of another shape or out of range.
    fn read(reader: &ArtifactReader<'_>) -> Result<Self>
    where
        Self: Sized;
}

/// One section as it stands in the JSON document.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Section {
    data: serde_json::Value,
    tag: String,
}

/// JSON with sorted keys, whatever map type `serde_json` was compiled with.
fn canonical_json(value: &serde_json::Value, out: &mut String) {
    use serde_json::Value;
    match value {
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_by_key(|(key, _)| key.as_str());
            out.push('{');
            for (index, (key, value)) in entries.into_iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                out.push_str(&Value::from(key.as_str()).to_string());
                out.push(':');
                canonical_json(value, out);
            }
            out.push('}');
        }
        Value::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                canonical_json(item, out);
            }
            out.push(']');
        }
        scalar => out.push_str(&scalar.to_string()),
    }
}

/// The checksum over sections and tensors.
struct Checksum(Sha256);

impl Checksum {
    fn new(sections: &str) -> Self {
        let mut checksum = Self(Sha256::new());
        checksum.field(sections.as_bytes());
        checksum
    }

    /// Adds a field with its length, so that bytes cannot move from one field to the next unnoticed.
    fn field(&mut self, bytes: &[u8]) {
        self.0.update((bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
    }

    /// Adds a tensor; tensors must come in the order of their names.
    fn tensor(&mut self, name: &str, dtype: safetensors::Dtype, shape: &[usize], bytes: &[u8]) {
        self.field(name.as_bytes());
        self.field(format!("{dtype:?} {shape:?}").as_bytes());
        self.field(bytes);
    }

    fn finish(self) -> String {
        self.0.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

#[cfg(test)]
mod tests;
