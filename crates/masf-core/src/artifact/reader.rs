//! Reading model files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use safetensors::{Dtype, SafeTensors};

use super::writer::join;
use super::{Checksum, FORMAT_VERSION, METADATA_KEY, ModelFileError, Section, canonical_json};
use crate::{DeviceChoice, Error, Result, read_within};

/// Longest header, in bytes: those of masf's own models take some tens of kilobytes. As values, what a header holds takes up to eighty
/// times its length.
const MAX_HEADER: u64 = 2 << 20;

/// Says what is wrong with the length of a header, with which a file begins.
///
/// # Errors
/// A header of more than 2 MiB: its values take up to eighty times as much.
pub fn check_header(file: &[u8]) -> Result<(), String> {
    let header = file.first_chunk::<8>().map_or(0, |length| u64::from_le_bytes(*length));
    if header > MAX_HEADER {
        return Err(format!("header too large: {header} bytes, more than {MAX_HEADER}"));
    }
    Ok(())
}

/// Says what is wrong with the shape of a tensor in a safetensors file, whose reader takes a side of 0 for an end to all counting; strides are
/// products of the other sides.
///
/// # Errors
/// A shape whose strides cannot be counted.
pub fn check_shape(shape: &[usize]) -> Result<(), String> {
    match shape.iter().try_fold(1usize, |product, side| product.checked_mul((*side).max(1))) {
        Some(_) => Ok(()),
        None => Err(format!("its shape is {shape:?}")),
    }
}

/// What the reader accepts, and where it finds what the model file does not hold.
#[derive(Debug, Clone)]
pub struct ReadOptions {
    /// Largest file accepted, in bytes; 4 GiB by default.
    pub max_bytes: u64,
    /// The file of weights of a model that was saved with [`SaveOptions::reference_weights`](super::SaveOptions).
    pub weights: Option<PathBuf>,
    /// Where the parts that can choose compute; the CPU by default, wherever the model was fitted.
    pub device: DeviceChoice,
}

impl Default for ReadOptions {
    fn default() -> Self {
        Self { max_bytes: 4 << 30, weights: None, device: DeviceChoice::Cpu }
    }
}

/// A model file whose version, checksum and values have been verified.
#[derive(Debug)]
pub struct ModelFile {
    sections: BTreeMap<String, Section>,
    tensors: BTreeMap<String, Tensor>,
    options: ReadOptions,
}

#[derive(serde::Deserialize)]
struct Version {
    format_version: u32,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    #[serde(rename = "format_version")]
    _format_version: u32,
    sections: serde_json::Value,
    sha256: String,
}

impl ModelFile {
    /// Reads and verifies a file.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be read, [`ModelFileError`] for anything wrong with its content.
    pub fn open(path: &Path, options: ReadOptions) -> Result<Self> {
        let refused = |source| Error::io(path, source);
        let file = std::fs::File::open(path).map_err(refused)?;
        let metadata = file.metadata().map_err(refused)?;
        if metadata.is_dir() {
            return Err(refused(std::io::ErrorKind::IsADirectory.into()));
        }
        let bytes = metadata.len();
        if bytes > options.max_bytes {
            return Err(ModelFileError::TooLarge { bytes, limit: options.max_bytes }.into());
        }
        let content = read_within(file, bytes, options.max_bytes).map_err(refused)?;
        Self::from_bytes(&content, options)
    }

    /// Verifies the bytes of a file.
    ///
    /// # Errors
    /// [`ModelFileError`] for anything wrong with them.
    pub fn from_bytes(bytes: &[u8], options: ReadOptions) -> Result<Self> {
        if bytes.len() as u64 > options.max_bytes {
            return Err(ModelFileError::TooLarge { bytes: bytes.len() as u64, limit: options.max_bytes }.into());
        }
        check_header(bytes).map_err(ModelFileError::Container)?;
        let container = |error: safetensors::SafeTensorError| ModelFileError::Container(error.to_string());
        let (_, metadata) = SafeTensors::read_metadata(bytes).map_err(container)?;
        let text = metadata
            .metadata()
            .as_ref()
            .and_then(|entries| entries.get(METADATA_KEY))
            .ok_or_else(|| ModelFileError::NotAModel(format!("the metadata have no entry `{METADATA_KEY}`")))?;
        let not_a_model = |error: serde_json::Error| ModelFileError::NotAModel(error.to_string());
        // The version first: a newer format may differ in everything else.
        let Version { format_version } = serde_json::from_str(text).map_err(not_a_model)?;
        if format_version > FORMAT_VERSION {
            let error = ModelFileError::NewerVersion { found: format_version, supported: FORMAT_VERSION };
            return Err(error.into());
        }
        let document: Document = serde_json::from_str(text).map_err(not_a_model)?;
        let mut canonical = String::new();
        canonical_json(&document.sections, &mut canonical);
        let views = SafeTensors::deserialize(bytes).map_err(container)?;
        let mut views = views.tensors();
        views.sort_by(|(a, _), (b, _)| a.cmp(b));
        let mut checksum = Checksum::new(&canonical);
        for (name, view) in &views {
            checksum.tensor(name, view.dtype(), view.shape(), view.data());
        }
        if checksum.finish() != document.sha256 {
            return Err(ModelFileError::Checksum.into());
        }
        let mut tensors = BTreeMap::new();
        for (name, view) in views {
            if !is_finite(view.dtype(), view.data()) {
                return Err(ModelFileError::NotFinite(name).into());
            }
            check_shape(view.shape())
                .map_err(|problem| ModelFileError::Container(format!("tensor `{name}`: {problem}")))?;
            let dtype = DType::try_from(view.dtype())
                .map_err(|_| ModelFileError::Container(format!("tensor `{name}` has type {:?}", view.dtype())))?;
            let tensor = Tensor::from_raw_buffer(view.data(), dtype, view.shape(), &Device::Cpu)?;
            tensors.insert(name, tensor);
        }
        let sections = serde_json::from_value(document.sections).map_err(not_a_model)?;
        Ok(Self { sections, tensors, options })
    }

    /// The reader of the outermost artifact.
    ///
    /// # Errors
    /// [`ModelFileError::Missing`] if the file has none.
    pub fn root(&self) -> Result<ArtifactReader<'_>> {
        ArtifactReader::at(self, String::new())
    }
}

/// Whether all values of a floating-point buffer are finite; true for integers.
pub(super) fn is_finite(dtype: Dtype, bytes: &[u8]) -> bool {
    // All bits of the exponent set means infinity or NaN.
    let halves = |mask: u16| bytes.chunks_exact(2).all(|b| u16::from_le_bytes([b[0], b[1]]) & mask != mask);
    match dtype {
        Dtype::F16 => halves(0x7c00),
        Dtype::BF16 => halves(0x7f80),
        Dtype::F32 => bytes.chunks_exact(4).all(|b| u16::from_le_bytes([b[2], b[3]]) & 0x7f80 != 0x7f80),
        Dtype::F64 => bytes.chunks_exact(8).all(|b| u16::from_le_bytes([b[6], b[7]]) & 0x7ff0 != 0x7ff0),
        // NaN alone: these have no infinity. Those of 4 and 6 bits have neither.
        Dtype::F8_E4M3 => bytes.iter().all(|b| b & 0x7f != 0x7f),
        Dtype::F8_E8M0 => !bytes.contains(&0xff),
        _ => true,
    }
}

/// Gives an artifact the parts that it wrote.
#[derive(Debug)]
pub struct ArtifactReader<'a> {
    file: &'a ModelFile,
    path: String,
    section: &'a Section,
}

impl<'a> ArtifactReader<'a> {
    fn at(file: &'a ModelFile, path: String) -> Result<Self> {
        match file.sections.get(&path) {
            Some(section) => Ok(Self { file, path, section }),
            None => Err(ModelFileError::Missing(format!("section `{path}`")).into()),
        }
    }

    /// The type tag of the artifact that was written here.
    pub fn tag(&self) -> &'a str {
        &self.section.tag
    }

    /// What the one who reads chose.
    pub fn options(&self) -> &'a ReadOptions {
        &self.file.options
    }

    /// The settings of this artifact.
    ///
    /// # Errors
    /// [`ModelFileError::Settings`] if they do not have the form of `T`.
    pub fn section<T: serde::de::DeserializeOwned>(&self) -> Result<T> {
        T::deserialize(&self.section.data).map_err(|error| self.invalid(error.to_string()))
    }

    /// An error that says what is wrong with this artifact's settings.
    pub fn invalid(&self, problem: impl Into<String>) -> Error {
        ModelFileError::Settings { section: self.path.clone(), problem: problem.into() }.into()
    }

    /// A tensor of this artifact, of the given type and shape; `None` stands for any length of that axis.
    ///
    /// # Errors
    /// [`ModelFileError::Missing`] or [`ModelFileError::Tensor`].
    pub fn tensor(&self, name: &str, dtype: DType, shape: &[Option<usize>]) -> Result<Tensor> {
        let tensor = self.any_tensor(name)?;
        let fits = tensor.rank() == shape.len()
            && tensor.dims().iter().zip(shape).all(|(found, wanted)| wanted.is_none_or(|wanted| wanted == *found));
        if tensor.dtype() != dtype || !fits {
            let wanted: Vec<_> =
                shape.iter().map(|axis| axis.map_or("any".to_owned(), |length| length.to_string())).collect();
            return Err(ModelFileError::Tensor {
                name: join(&self.path, name),
                found: format!("{:?} {:?}", tensor.dtype(), tensor.dims()),
                expected: format!("{dtype:?} [{}]", wanted.join(", ")),
            }
            .into());
        }
        Ok(tensor)
    }

    /// A tensor of this artifact, whatever its type and shape; the caller checks them.
    ///
    /// # Errors
    /// [`ModelFileError::Missing`].
    pub fn any_tensor(&self, name: &str) -> Result<Tensor> {
        let name = join(&self.path, name);
        match self.file.tensors.get(&name) {
            Some(tensor) => Ok(tensor.clone()),
            None => Err(ModelFileError::Missing(format!("tensor `{name}`")).into()),
        }
    }

    /// The names of the tensors of this artifact and of those nested in it, sorted, without the artifact's own path.
    pub fn tensor_names(&self) -> Vec<&'a str> {
        let prefix = if self.path.is_empty() { String::new() } else { format!("{}.", self.path) };
        self.file.tensors.keys().filter_map(|name| name.strip_prefix(&prefix)).collect()
    }

    /// The reader of a nested artifact.
    ///
    /// # Errors
    /// [`ModelFileError::Missing`].
    pub fn child(&self, name: &str) -> Result<ArtifactReader<'a>> {
        Self::at(self.file, join(&self.path, name))
    }
}
