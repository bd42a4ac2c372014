//! Weights as they come from a safetensors file: read whole, bounded, hashed, and checked against what a network needs.

mod check;
mod read;

pub use check::{Problem, Problems};
pub(crate) use check::{Requirement, check};
#[cfg(feature = "train")]
pub(crate) use read::read_file;

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor};

use crate::Result;

/// Named tensors in the type they were stored in, with the SHA-256 of their file.
#[derive(Debug, Clone)]
pub struct Weights {
    tensors: BTreeMap<String, Tensor>,
    sha256: String,
    origin: String,
}

impl Weights {
    /// Tensors from elsewhere, such as a model file; `sha256` is the identity of the file that they were read from first.
    pub(crate) fn from_parts(tensors: BTreeMap<String, Tensor>, sha256: String, origin: String) -> Self {
        Self { tensors, sha256, origin }
    }

    /// The same weights under another name in messages.
    #[cfg(feature = "hub")]
    pub(crate) fn with_origin(self, origin: String) -> Self {
        Self { origin, ..self }
    }

    /// SHA-256 of the file, hexadecimal: the identity of the weights.
    pub fn sha256(&self) -> &str {
        &self.sha256
    }

    /// The file, or what the bytes are; for messages.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// The tensors by name, in the type they were stored in, on the CPU.
    pub fn tensors(&self) -> impl ExactSizeIterator<Item = (&str, &Tensor)> {
        self.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor))
    }

    /// A tensor that [`check`] has found to be there, as `f32` on a device.
    pub(crate) fn get(&self, name: &str, device: &Device) -> Result<Tensor> {
        let tensor =
            self.tensors.get(name).ok_or_else(|| candle_core::Error::CannotFindTensor { path: name.into() })?;
        Ok(tensor.to_dtype(DType::F32)?.to_device(device)?)
    }

    /// Forgets all tensors but those that `wanted` names.
    pub(crate) fn retain(&mut self, wanted: impl Fn(&str) -> bool) {
        self.tensors.retain(|name, _| wanted(name));
    }
}
