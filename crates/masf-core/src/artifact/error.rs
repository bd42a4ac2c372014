//! What can be wrong with a model file.

use std::path::PathBuf;

/// A model file cannot be written or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelFileError {
    /// The file is larger than the reader accepts.
    #[error("model file has {bytes} bytes, more than the limit of {limit}")]
    TooLarge {
        /// Size of the file.
        bytes: u64,
        /// Largest size accepted.
        limit: u64,
    },
    /// The container is damaged, truncated or no safetensors file.
    #[error("not a valid model file (damaged or truncated?): {0}")]
    Container(String),
    /// A safetensors file, but not a masf model.
    #[error("not a masf model: {0}")]
    NotAModel(String),
    /// Written by a newer version of the library.
    #[error("model format version {found} is newer than {supported}, the newest this library reads; update masf")]
    NewerVersion {
        /// The version in the file.
        found: u32,
        /// The newest version that this library reads.
        supported: u32,
    },
    /// The content is not what was written.
    #[error("checksum mismatch: the model file was changed or damaged after it was written")]
    Checksum,
    /// A value that is NaN or infinite.
    #[error("tensor `{0}` holds values that are not finite")]
    NotFinite(String),
    /// A part that should be there is not.
    #[error("{0} is missing from the model file")]
    Missing(String),
    /// A tensor has another type or shape than the part that reads it needs.
    #[error("tensor `{name}` is {found}; expected {expected}")]
    Tensor {
        /// Full name of the tensor.
        name: String,
        /// Type and shape in the file.
        found: String,
        /// Type and shape needed.
        expected: String,
    },
    /// Settings that cannot be understood or are out of range.
    #[error("settings of `{section}`: {problem}")]
    Settings {
        /// Path of the section.
        section: String,
        /// What is wrong.
        problem: String,
    },
    /// No reader is registered for a type of part.
    #[error("no reader for `{tag}` is registered; known: {known}")]
    UnknownTag {
        /// The tag in the file.
        tag: String,
        /// The tags that have readers.
        known: String,
    },
    /// The model refers to weights in another file, which was not given or is another one.
    #[error("{0}")]
    Weights(String),
    /// A name is used twice while writing.
    #[error("`{0}` was written twice")]
    Duplicate(String),
    /// The file could not be replaced.
    #[error("{}: cannot save: {source}", path.display())]
    Save {
        /// Where the model should have gone.
        path: PathBuf,
        /// The error of the system.
        source: std::io::Error,
    },
}
