//! The one error type of this crate, classified by who is at fault.

use candle_core::DType;

/// Result with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// Why a spectral operation was refused or failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The caller passed an argument or configuration value outside its domain.
    #[error("invalid {name}: {value}; {hint}")]
    Argument {
        /// Name of the argument or configuration field.
        name: &'static str,
        /// The offending value, as text.
        value: String,
        /// What to pass instead.
        hint: &'static str,
    },
    /// A tensor has a shape that the operation cannot take.
    #[error("{operation}: shape {shape:?} does not fit; {hint}")]
    Shape {
        /// The operation that was asked for.
        operation: &'static str,
        /// The offending shape.
        shape: Vec<usize>,
        /// The shape that is expected.
        hint: &'static str,
    },
    /// A tensor has a dtype that the operation cannot take.
    #[error("{operation}: dtype {dtype:?} is not a floating-point type; use f32, f64, f16 or bf16")]
    Dtype {
        /// The operation that was asked for.
        operation: &'static str,
        /// The offending dtype.
        dtype: DType,
    },
    /// Candle failed: out of memory, device mismatch, missing kernel.
    #[error("compute backend: {0}")]
    Compute(#[from] candle_core::Error),
}

/// Who can mend an [`Error`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// The caller: an argument or a configuration value is wrong.
    Argument,
    /// The data: a tensor's shape or dtype is wrong.
    Input,
    /// The compute backend.
    Compute,
}

impl Error {
    /// Who is at fault.
    pub fn fault(&self) -> Fault {
        match self {
            Error::Argument { .. } => Fault::Argument,
            Error::Shape { .. } | Error::Dtype { .. } => Fault::Input,
            Error::Compute(_) => Fault::Compute,
        }
    }

    pub(crate) fn argument(name: &'static str, value: impl std::fmt::Debug, hint: &'static str) -> Self {
        Error::Argument { name, value: format!("{value:?}"), hint }
    }

    pub(crate) fn shape(operation: &'static str, shape: &[usize], hint: &'static str) -> Self {
        Error::Shape { operation, shape: shape.to_vec(), hint }
    }
}

impl From<Error> for candle_core::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Compute(inner) => inner,
            other => candle_core::Error::wrap(other),
        }
    }
}
