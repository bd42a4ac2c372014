//! What can go wrong between a name and features.

use std::path::PathBuf;

use masf_core::Fault;

use crate::engine::EngineError;
use crate::weights::Problems;

/// The result of this crate's functions.
pub type Result<T, E = BackboneError> = std::result::Result<T, E>;

/// A backbone cannot be made or cannot extract.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackboneError {
    /// An argument is out of its range (the caller's fault).
    #[error("{what} is {value}; expected {expected}")]
    Argument {
        /// The name of the argument.
        what: &'static str,
        /// The value that was given.
        value: String,
        /// What would be accepted.
        expected: String,
    },
    /// Images that a backbone cannot take.
    #[error("images {shape:?}: {problem}")]
    Images {
        /// The shape of the tensor.
        shape: Vec<usize>,
        /// What is wrong and what to do.
        problem: String,
    },
    /// Features that are not finite although the images are: the weights do not fit or the images are far out of range.
    #[error("{backbone}: features at stride {stride} are not finite; check the weights and that images are normalised")]
    NotFinite {
        /// The backbone.
        backbone: String,
        /// The level.
        stride: usize,
    },
    /// A file of weights is larger than accepted.
    #[error("{}: {bytes} bytes are more than the limit of {limit} for weights", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
        /// The largest size accepted.
        limit: u64,
    },
    /// Not a safetensors file, or a damaged one.
    #[error("{origin}: not a valid safetensors file (damaged, truncated or of another format?): {reason}")]
    Container {
        /// The file, or what the bytes are.
        origin: String,
        /// What the reader says.
        reason: String,
    },
    /// Weights of another network, or damaged ones.
    #[error("{origin} does not fit `{network}`: {problems}{}", hint.as_deref().unwrap_or(""))]
    Weights {
        /// The file, or what the bytes are.
        origin: String,
        /// The backbone that was asked for.
        network: String,
        /// Every tensor that is missing, unknown or unfit.
        problems: Problems,
        /// The network that the weights belong to, where it is known, and whether a download was not kept.
        hint: Option<String>,
    },
    /// A file whose SHA-256 is not the one that is expected.
    #[error("{origin}: SHA-256 is {found}, expected {expected}; {hint}")]
    Hash {
        /// The file.
        origin: String,
        /// Hash of the file.
        found: String,
        /// Hash of the weights that are asked for.
        expected: String,
        /// What to do.
        hint: String,
    },
    /// A download failed.
    #[error("{url}: {reason}")]
    Download {
        /// What was asked for.
        url: String,
        /// What happened and what to do.
        reason: String,
    },
    /// The file system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The path concerned.
        path: PathBuf,
        /// The error of the system.
        source: std::io::Error,
    },
    /// The CPU engine refused.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The scattering transform refused.
    #[error(transparent)]
    Scattering(#[from] masf_spectral::Error),
    /// The tensor library failed.
    #[error("tensor computation failed: {0}")]
    Backend(#[from] candle_core::Error),
    /// The work was cancelled on request.
    #[error("cancelled")]
    Cancelled,
}

impl BackboneError {
    pub(crate) fn argument(what: &'static str, value: impl ToString, expected: impl Into<String>) -> Self {
        Self::Argument { what, value: value.to_string(), expected: expected.into() }
    }

    pub(crate) fn io(path: impl Into<PathBuf>, source: std::io::Error) -> Self {
        Self::Io { path: path.into(), source }
    }

    /// Who is at fault.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Argument { .. } => Fault::Argument,
            Self::Images { .. } => Fault::Data,
            Self::NotFinite { .. }
            | Self::TooLarge { .. }
            | Self::Container { .. }
            | Self::Weights { .. }
            | Self::Hash { .. } => Fault::Model,
            Self::Download { .. } | Self::Io { .. } => Fault::Io,
            Self::Engine(EngineError::ImageSize { .. } | EngineError::ImageData { .. }) => Fault::Data,
            Self::Engine(_) | Self::Backend(_) => Fault::Backend,
            Self::Scattering(error) => match error.fault() {
                masf_spectral::Fault::Argument => Fault::Argument,
                masf_spectral::Fault::Input => Fault::Data,
                _ => Fault::Backend,
            },
            Self::Cancelled => Fault::Cancelled,
        }
    }
}

impl From<BackboneError> for masf_core::Error {
    fn from(error: BackboneError) -> Self {
        match error {
            BackboneError::Cancelled => Self::Cancelled,
            error => Self::Component { part: "masf-backbone", fault: error.fault(), source: Box::new(error) },
        }
    }
}
