//! Errors, classified by who is at fault.

use std::path::PathBuf;

use masf_core::Fault;

use crate::Size;

/// The result of this crate's functions.
pub type Result<T, E = DataError> = std::result::Result<T, E>;

/// What can go wrong on the way from a file to a tensor.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
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
    /// The file system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The path concerned.
        path: PathBuf,
        /// The error of the system.
        source: std::io::Error,
    },
    /// An image cannot be used.
    #[error("{image}: {problem}")]
    Image {
        /// The path of the image, or its description where it came from memory.
        image: String,
        /// What is wrong with it.
        problem: ImageProblem,
    },
    /// A mask has another size than its image.
    #[error("mask {} is {mask_size} (height x width), but its image {image} is {image_size}; they must be equal", mask.display())]
    MaskSize {
        /// The path of the mask.
        mask: PathBuf,
        /// Its size.
        mask_size: Size,
        /// The image that it belongs to.
        image: String,
        /// The size of that image, upright.
        image_size: Size,
    },
    /// A folder does not have the form of a data set.
    #[error("{}: {problem}", path.display())]
    Layout {
        /// The folder or file concerned.
        path: PathBuf,
        /// What is wrong and what to do.
        problem: String,
    },
    /// The tensor library failed.
    #[error("tensor computation failed: {0}")]
    Backend(#[from] candle_core::Error),
    /// The work was cancelled on request.
    #[error("cancelled")]
    Cancelled,
}

/// Why an image cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ImageProblem {
    /// The content is of no format that is read here.
    #[error(
        "not an image that can be read: expected the content of a PNG, JPEG, BMP, TIFF or WebP file, whatever its name"
    )]
    Unrecognised,
    /// There is nothing in it.
    #[error("the file is empty")]
    Empty,
    /// The data end early.
    #[error("the {format} file is truncated; copy or export it again")]
    Truncated {
        /// The format.
        format: &'static str,
    },
    /// The data contradict themselves.
    #[error("the {format} data are corrupt ({reason}); export the image again")]
    Corrupt {
        /// The format.
        format: &'static str,
        /// What the decoder says.
        reason: String,
    },
    /// A variant of the format that is refused, and what to do about it.
    #[error("{what}")]
    Unsupported {
        /// The variant and what to do.
        what: String,
    },
    /// A limit would be exceeded. Nothing was allocated for the pixels.
    #[error(
        "its {what}, {value}, is above the limit of {limit}; resize the image, or raise the limit if you trust the file"
    )]
    Limit {
        /// The limited quantity.
        what: &'static str,
        /// Its value in the image.
        value: u64,
        /// The largest value that is accepted.
        limit: u64,
    },
    /// The values are not what they were said to be.
    #[error("{0}")]
    Values(String),
}

impl DataError {
    pub(crate) fn argument(what: &'static str, value: impl ToString, expected: impl Into<String>) -> Self {
        Self::Argument { what, value: value.to_string(), expected: expected.into() }
    }

    pub(crate) fn layout(path: impl Into<PathBuf>, problem: impl Into<String>) -> Self {
        Self::Layout { path: path.into(), problem: problem.into() }
    }

    pub(crate) fn io(path: impl Into<PathBuf>, source: std::io::Error) -> Self {
        Self::Io { path: path.into(), source }
    }

    /// The same error under the name of the image that it happened to.
    #[must_use]
    pub fn named(self, name: String) -> Self {
        match self {
            Self::Image { problem, .. } => Self::Image { image: name, problem },
            other => other,
        }
    }

    /// Who is at fault.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Argument { .. } => Fault::Argument,
            Self::Io { .. } => Fault::Io,
            Self::Image { .. } | Self::MaskSize { .. } | Self::Layout { .. } => Fault::Data,
            Self::Backend(_) => Fault::Backend,
            Self::Cancelled => Fault::Cancelled,
        }
    }
}

impl From<DataError> for masf_core::Error {
    fn from(error: DataError) -> Self {
        match error {
            DataError::Cancelled => Self::Cancelled,
            error => Self::Component { part: "masf-data", fault: error.fault(), source: Box::new(error) },
        }
    }
}
