//! Reading a safetensors file (<https://huggingface.co/docs/safetensors>): into memory, since another process may change a mapped file
//! under its reader.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use masf_core::artifact::check_shape;
use safetensors::SafeTensors;
use sha2::{Digest, Sha256};

use super::Weights;
use crate::{BackboneError, Result};

impl Weights {
    /// Largest file that is read: 4 GiB, seven times the largest network of the registry.
    pub const MAX_BYTES: u64 = 4 << 30;

    /// Reads a file.
    ///
    /// # Errors
    /// A file that cannot be read, is larger than [`MAX_BYTES`](Self::MAX_BYTES), or is not safetensors. Which tensors there are is
    /// not looked at before a backbone is made of them.
    pub fn read(path: &Path) -> Result<Self> {
        Self::from_bytes(&read_file(path)?, path.display().to_string())
    }

    /// The weights that are part of `masf-models`, for a model that has such.
    ///
    /// # Errors
    /// As [`from_bytes`](Self::from_bytes).
    pub fn embedded(name: &str) -> Result<Option<Self>> {
        let file = masf_models::embedded(name);
        file.map(|file| Self::from_bytes(file, format!("the embedded weights of `{name}`"))).transpose()
    }

    /// Reads the bytes of a file; `origin` says in messages what they are.
    ///
    /// # Errors
    /// Bytes that are not safetensors.
    pub fn from_bytes(bytes: &[u8], origin: impl Into<String>) -> Result<Self> {
        let origin = origin.into();
        let container = |reason: String| BackboneError::Container { origin: origin.clone(), reason };
        let views = SafeTensors::deserialize(bytes).map_err(|error| container(error.to_string()))?;
        let mut tensors = BTreeMap::new();
        for (name, view) in views.iter() {
            // A type that Candle lacks is no weight; the check reports the tensor as missing if one is needed.
            let Ok(dtype) = DType::try_from(view.dtype()) else { continue };
            check_shape(view.shape()).map_err(|problem| container(format!("tensor `{name}`: {problem}")))?;
            let tensor = Tensor::from_raw_buffer(view.data(), dtype, view.shape(), &Device::Cpu)
                .map_err(|error| container(format!("tensor `{name}`: {error}")))?;
            tensors.insert(name.to_owned(), tensor);
        }
        let sha256 = hexadecimal(&Sha256::digest(bytes));
        Ok(Self { tensors, sha256, origin })
    }
}

/// The bytes of a file of at most [`Weights::MAX_BYTES`].
pub(crate) fn read_file(path: &Path) -> Result<Vec<u8>> {
    let refused = |source| BackboneError::io(path, source);
    let file = std::fs::File::open(path).map_err(refused)?;
    let metadata = file.metadata().map_err(refused)?;
    if metadata.is_dir() {
        return Err(refused(std::io::ErrorKind::IsADirectory.into()));
    }
    let too_large = |bytes| BackboneError::TooLarge { path: path.into(), bytes, limit: Weights::MAX_BYTES };
    if metadata.len() > Weights::MAX_BYTES {
        return Err(too_large(metadata.len()));
    }
    let bytes = masf_core::read_within(file, metadata.len(), Weights::MAX_BYTES).map_err(refused)?;
    if bytes.len() as u64 > Weights::MAX_BYTES {
        return Err(too_large(bytes.len() as u64));
    }
    Ok(bytes)
}

/// Two lower-case digits a byte.
pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_side_of_zero_hides_no_others() {
        let header = r#"{"x":{"dtype":"F32","shape":[0,4294967296,4294967296],"data_offsets":[0,0]}}"#;
        let bytes = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat();
        let error = Weights::from_bytes(&bytes, "forged").unwrap_err().to_string();
        assert!(error.contains("forged") && error.contains("[0, 4294967296, 4294967296]"), "{error}");
    }
}
