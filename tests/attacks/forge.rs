//! Model files with any content and a right checksum: what somebody can make who knows the format.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use masf::core::artifact::{ModelFile, ReadOptions};
use masf::core::{Artifact, Result};
use masf::{Config, Detector};
use safetensors::{Dtype, SafeTensors, View};
use serde_json::Value;
use sha2::{Digest, Sha256};

/// A tensor of a model file.
#[derive(Clone)]
pub(crate) struct Stored {
    pub(crate) dtype: Dtype,
    pub(crate) shape: Vec<usize>,
    pub(crate) data: Vec<u8>,
}

impl Stored {
    /// The same values with one of them, an `f32`, replaced.
    pub(crate) fn with_value(&self, index: usize, value: f32) -> Self {
        let mut changed = self.clone();
        changed.data[4 * index..4 * index + 4].copy_from_slice(&value.to_le_bytes());
        changed
    }
}

impl View for &Stored {
    fn dtype(&self) -> Dtype {
        self.dtype
    }
    fn shape(&self) -> &[usize] {
        &self.shape
    }
    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.data)
    }
    fn data_len(&self) -> usize {
        self.data.len()
    }
}

/// The content of a model file.
#[derive(Clone)]
pub(crate) struct Model {
    pub(crate) sections: Value,
    pub(crate) tensors: BTreeMap<String, Stored>,
}

impl Model {
    /// Takes a file apart.
    pub(crate) fn of(bytes: &[u8]) -> Self {
        let (_, metadata) = SafeTensors::read_metadata(bytes).expect("a container");
        let text = &metadata.metadata().as_ref().expect("metadata")["masf"];
        let mut document: Value = serde_json::from_str(text).expect("a document");
        let stored = |view: safetensors::tensor::TensorView<'_>| Stored {
            dtype: view.dtype(),
            shape: view.shape().to_vec(),
            data: view.data().to_vec(),
        };
        let container = SafeTensors::deserialize(bytes).expect("a container");
        let tensors = container.tensors().into_iter().map(|(name, view)| (name, stored(view))).collect();
        Self { sections: document["sections"].take(), tensors }
    }

    /// A detector, fitted on the synthetic data set and taken apart.
    pub(crate) fn fitted(config: Config, images: usize) -> Result<Self> {
        let detector = Detector::builder().config(config).fit(&masf_tests::training_images()?[..images])?;
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("model.masf");
        detector.save(&path)?;
        Ok(Self::of(&std::fs::read(path).expect("the model")))
    }

    /// The checksum as `docs/model-file.md` describes it.
    pub(crate) fn checksum(&self) -> String {
        let mut hash = Sha256::new();
        let mut field = |bytes: &[u8]| {
            hash.update((bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        };
        field(self.sections.to_string().as_bytes());
        for (name, Stored { dtype, shape, data }) in &self.tensors {
            field(name.as_bytes());
            field(format!("{dtype:?} {shape:?}").as_bytes());
            field(data);
        }
        hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The file.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.bytes_with(1, &self.checksum())
    }

    /// The file, with another version or checksum.
    pub(crate) fn bytes_with(&self, version: u64, checksum: &str) -> Vec<u8> {
        let document = format!(r#"{{"format_version":{version},"sections":{},"sha256":"{checksum}"}}"#, self.sections);
        let metadata = HashMap::from([("masf".to_owned(), document)]);
        safetensors::serialize(&self.tensors, Some(metadata)).expect("a container")
    }

    /// What the library makes of it.
    pub(crate) fn load(&self) -> Result<Detector> {
        load(&self.bytes())
    }
}

/// What the library makes of the bytes of a model file.
pub(crate) fn load(bytes: &[u8]) -> Result<Detector> {
    Detector::read(&ModelFile::from_bytes(bytes, ReadOptions::default())?.root()?)
}

/// A safetensors file with any header before any data.
pub(crate) fn container(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()
}
