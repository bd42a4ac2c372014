//! Errors of calibration and fusion.

use masf_core::{Error, Fault};

/// What can be wrong with scores or settings of the fusion.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FusionError {
    /// A setting is out of its range.
    #[error("{name} is {value}; expected {expected}")]
    Parameter {
        /// Name of the setting.
        name: &'static str,
        /// The value given.
        value: String,
        /// What is accepted.
        expected: &'static str,
    },
    /// Too few scores of normal images.
    #[error("{found} normal images are too few to calibrate on; at least {needed} are needed")]
    TooFewImages {
        /// The number given.
        found: usize,
        /// The least number.
        needed: usize,
    },
    /// Too few synthetic defects to weigh branches by.
    #[error("{found} synthetic defects are too few to learn weights from; at least {needed} are needed")]
    TooFewDefects {
        /// The number given.
        found: usize,
        /// The least number.
        needed: usize,
    },
    /// A score map of another size than those that a calibration by position was learned from.
    #[error(
        "score map `{name}` has shape {found:?}; its calibration depends on the position and takes maps of {expected:?} only"
    )]
    MapSize {
        /// The map.
        name: String,
        /// Its shape.
        found: Vec<usize>,
        /// Height and width of the calibration.
        expected: (usize, usize),
    },
    /// A calibration by position without its scales, which serde does not keep.
    #[error(
        "the calibration of score map `{0}` depends on the position and has lost its scales: serde does not keep them; save it \
         as part of a `CalibratedFusion`"
    )]
    NoPositions(String),
    /// A score that is NaN or infinite, and where it is.
    #[error("{0} holds values that are not finite")]
    NotFinite(String),
    /// A sample without scores, which cannot be compared with another.
    #[error("a sample of scores is empty; at least one score is needed")]
    EmptySample,
    /// Scores of images alone, of which nothing can be fused.
    #[error("the scores have no maps; at least one is needed")]
    NoMaps,
    /// A scorer gave other maps than it gave for the normal images.
    #[error("score maps are {found:?}; the calibration knows {expected:?}")]
    Maps {
        /// The maps given.
        found: Vec<String>,
        /// The maps of the calibration.
        expected: Vec<String>,
    },
    /// The tensor library failed.
    #[error(transparent)]
    Core(#[from] Error),
}

impl FusionError {
    /// Who can mend it.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Core(inner) => inner.fault(),
            Self::Parameter { .. } => Fault::Argument,
            _ => Fault::Data,
        }
    }

    pub(crate) fn parameter(name: &'static str, value: impl ToString, expected: &'static str) -> Self {
        Self::Parameter { name, value: value.to_string(), expected }
    }
}

impl From<candle_core::Error> for FusionError {
    fn from(error: candle_core::Error) -> Self {
        Self::Core(error.into())
    }
}

impl From<FusionError> for Error {
    fn from(error: FusionError) -> Self {
        match error {
            FusionError::Core(inner) => inner,
            error => Error::Component { part: "masf-fusion", fault: error.fault(), source: Box::new(error) },
        }
    }
}
