//! Errors, classified by who is at fault.

use std::path::{Path, PathBuf};

/// The result of masf's trait methods.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Who is at fault: what a caller can do about an error depends on this alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Fault {
    /// An argument or option of the caller.
    Argument,
    /// The images, masks or tensors given as data.
    Data,
    /// A model file or a file of weights.
    Model,
    /// The file system or the network.
    Io,
    /// The tensor library or the device.
    Backend,
    /// Nobody: the work was cancelled on request.
    Cancelled,
}

/// What can go wrong in any part of masf.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An argument is out of its range.
    #[error("{what} is {value}; expected {expected}")]
    Argument {
        /// The name of the argument.
        what: &'static str,
        /// The value that was given.
        value: String,
        /// What would be accepted.
        expected: String,
    },
    /// Data do not have the form that they should have.
    #[error("{what}: {problem}")]
    Data {
        /// Which data.
        what: String,
        /// What is wrong with them and what to do.
        problem: String,
    },
    /// A model file cannot be used.
    #[error(transparent)]
    Model(#[from] crate::artifact::ModelFileError),
    /// The file system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The path concerned.
        path: PathBuf,
        /// The error of the system.
        source: std::io::Error,
    },
    /// The tensor library failed.
    #[error("tensor computation failed: {0}")]
    Backend(#[from] candle_core::Error),
    /// The work was cancelled through [`Progress::is_cancelled`](crate::Progress::is_cancelled).
    #[error("cancelled")]
    Cancelled,
    /// An error of one of the component crates.
    #[error("{source}")]
    Component {
        /// The crate, such as `masf-memory`.
        part: &'static str,
        /// Who is at fault.
        fault: Fault,
        /// The component's own error.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl Error {
    /// An out-of-range argument: its name, the value given, and what is accepted.
    pub fn argument(what: &'static str, value: impl ToString, expected: impl Into<String>) -> Self {
        Self::Argument { what, value: value.to_string(), expected: expected.into() }
    }

    /// Unusable data: which, and what is wrong with them.
    pub fn data(what: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Data { what: what.into(), problem: problem.into() }
    }

    /// A refusal of the file system at a path.
    pub fn io(path: impl AsRef<Path>, source: std::io::Error) -> Self {
        Self::Io { path: path.as_ref().to_path_buf(), source }
    }

    /// Who is at fault.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Argument { .. } => Fault::Argument,
            Self::Data { .. } => Fault::Data,
            Self::Model(_) => Fault::Model,
            Self::Io { .. } => Fault::Io,
            Self::Backend(_) => Fault::Backend,
            Self::Cancelled => Fault::Cancelled,
            Self::Component { fault, .. } => *fault,
        }
    }
}
