//! Errors of views and their averages.

use masf_core::{Error, Fault};

/// What can be wrong with views.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ViewError {
    /// A setting is out of its range.
    #[error("{name} is {value}; expected {expected}")]
    Parameter {
        /// Name of the setting.
        name: &'static str,
        /// The value given.
        value: String,
        /// What is accepted.
        expected: String,
    },
    /// Images of a shape that cannot be viewed.
    #[error("images have shape {found:?}; expected {expected}")]
    Images {
        /// The shape.
        found: Vec<usize>,
        /// What is accepted.
        expected: String,
    },
    /// Score maps that are not those of the first view, or whose grid cannot be shifted back.
    #[error("score map `{name}` of view {view}: {problem}")]
    Map {
        /// The map.
        name: String,
        /// The view, 0 for the image itself.
        view: usize,
        /// What is wrong with it.
        problem: String,
    },
    /// The Fourier transform failed.
    #[error(transparent)]
    Spectral(#[from] masf_spectral::Error),
    /// The tensor library failed.
    #[error("tensor computation failed: {0}")]
    Backend(#[from] candle_core::Error),
}

impl ViewError {
    /// Who is at fault.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Parameter { .. } => Fault::Argument,
            Self::Images { .. } | Self::Map { .. } => Fault::Data,
            Self::Spectral(error) => match error.fault() {
                masf_spectral::Fault::Argument => Fault::Argument,
                masf_spectral::Fault::Input => Fault::Data,
                _ => Fault::Backend,
            },
            Self::Backend(_) => Fault::Backend,
        }
    }
}

impl From<ViewError> for Error {
    fn from(error: ViewError) -> Self {
        Error::Component { part: "masf-tta", fault: error.fault(), source: Box::new(error) }
    }
}
