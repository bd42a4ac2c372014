//! Writing model files.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::Read;
use std::path::Path;

use candle_core::{Device, Tensor};
use safetensors::View;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Artifact, Checksum, FORMAT_VERSION, METADATA_KEY, ModelFileError, Section, canonical_json};
use crate::Result;

/// Choices of the one who saves.
#[derive(Debug, Clone, Copy, Default)]
pub struct SaveOptions {
    /// Leave the backbone's weights out and record their SHA-256 only; reading then needs the file of weights.
    pub reference_weights: bool,
}

/// Collects what an artifact writes; see [`save`].
pub struct ArtifactWriter {
    options: SaveOptions,
    path: String,
    sections: BTreeMap<String, Section>,
    tensors: BTreeMap<String, Tensor>,
}

impl ArtifactWriter {
    fn new(options: SaveOptions) -> Self {
        Self { options, path: String::new(), sections: BTreeMap::new(), tensors: BTreeMap::new() }
    }

    /// What the one who saves chose.
    pub fn options(&self) -> SaveOptions {
        self.options
    }

    /// Writes the settings of this artifact.
    ///
    /// # Errors
    /// Settings that JSON cannot hold, such as a number that is NaN or infinite, or settings written before. Within an `Option` such a number
    /// is read back as `None`: check it before.
    pub fn section<T: Serialize + DeserializeOwned>(&mut self, settings: &T) -> Result<()> {
        let problem = |problem: String| ModelFileError::Settings { section: self.path.clone(), problem };
        let data = serde_json::to_value(settings).map_err(|error| problem(error.to_string()))?;
        // JSON has no NaN and no infinity: they become `null`, which is no number when it is read.
        T::deserialize(&data).map_err(|error| problem(format!("it could not be read back: {error}")))?;
        match self.sections.get_mut(&self.path) {
            Some(section) if section.data.is_null() => section.data = data,
            _ => {
                return Err(ModelFileError::Duplicate(format!("settings of {}", self.path)).into());
            }
        }
        Ok(())
    }

    /// Writes a tensor of this artifact.
    ///
    /// # Errors
    /// A name used before, or values that are not finite.
    pub fn tensor(&mut self, name: &str, tensor: &Tensor) -> Result<()> {
        let name = join(&self.path, name);
        let tensor = tensor.to_device(&Device::Cpu)?.contiguous()?;
        if !super::reader::is_finite(tensor.dtype().into(), &tensor.data()) {
            return Err(ModelFileError::NotFinite(name).into());
        }
        if self.tensors.insert(name.clone(), tensor).is_some() {
            return Err(ModelFileError::Duplicate(name).into());
        }
        Ok(())
    }

    /// Writes a nested artifact under a name.
    ///
    /// # Errors
    /// Those of the artifact, or a name used before.
    pub fn child(&mut self, name: &str, artifact: &dyn Artifact) -> Result<()> {
        let path = join(&self.path, name);
        let parent = std::mem::replace(&mut self.path, path);
        let written = self.write(artifact);
        self.path = parent;
        written
    }

    fn write(&mut self, artifact: &dyn Artifact) -> Result<()> {
        let section = Section { data: serde_json::Value::Null, tag: artifact.tag().to_owned() };
        if self.sections.insert(self.path.clone(), section).is_some() {
            return Err(ModelFileError::Duplicate(self.path.clone()).into());
        }
        artifact.write(self)
    }

    /// The metadata document.
    fn document(&self) -> Result<String> {
        let problem = |error: serde_json::Error| ModelFileError::Container(error.to_string());
        let sections = serde_json::to_value(&self.sections).map_err(problem)?;
        let mut text = String::new();
        canonical_json(&sections, &mut text);
        let mut checksum = Checksum::new(&text);
        for (name, tensor) in &self.tensors {
            checksum.tensor(name, tensor.dtype().into(), tensor.dims(), &tensor.data());
        }
        let sha256 = checksum.finish();
        Ok(format!("{{\"format_version\":{FORMAT_VERSION},\"sections\":{text},\"sha256\":\"{sha256}\"}}"))
    }
}

/// `a.b`, or `b` at the root.
pub(super) fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// What an artifact writes, as one text: its settings, and a SHA-256 over them and its tensors. Equal for artifacts that behave
/// alike bit for bit.
///
/// # Errors
/// Those of the artifact.
pub fn fingerprint(artifact: &dyn Artifact, options: SaveOptions) -> Result<String> {
    let mut writer = ArtifactWriter::new(options);
    writer.write(artifact)?;
    writer.document()
}

/// Writes an artifact to a file: to a temporary one beside it, synced, then renamed over it.
///
/// A failure or interruption leaves an older file at `path` as it was; see [`replace_file`](crate::replace_file). Two writes of the same
/// artifact give the same bytes.
///
/// # Errors
/// Those of the artifact, or [`ModelFileError::Save`] if the file system refuses, settings and names are too long to be read back, or the file
/// would be larger than what [`ReadOptions`](super::ReadOptions) accept by default.
pub fn save(artifact: &dyn Artifact, path: &Path, options: SaveOptions) -> Result<()> {
    let mut writer = ArtifactWriter::new(options);
    writer.write(artifact)?;
    let metadata = HashMap::from([(METADATA_KEY.to_owned(), writer.document()?)]);
    crate::replace_file(path, |temporary| {
        safetensors::serialize_to_file(&writer.tensors, Some(metadata), temporary).map_err(|error| match error {
            safetensors::SafeTensorError::IoError(source) => source,
            other => std::io::Error::other(other),
        })?;
        let mut length = [0; 8];
        let mut written = File::open(temporary)?;
        written.read_exact(&mut length)?;
        super::reader::check_header(&length).map_err(std::io::Error::other)?;
        check_size(written.metadata()?.len()).map_err(std::io::Error::other)
    })
    .map_err(|source| ModelFileError::Save { path: path.to_path_buf(), source }.into())
}

/// Refuses a file that nobody could read who does not know how large it is.
fn check_size(bytes: u64) -> Result<(), String> {
    let limit = super::ReadOptions::default().max_bytes;
    if bytes <= limit {
        return Ok(());
    }
    Err(format!("it would have {bytes} bytes, more than the {limit} that are read; fewer or shorter vectors take less"))
}
