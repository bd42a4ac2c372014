//! What can go wrong in the baselines, classified by who is at fault.

use masf_core::Fault;
use masf_memory::MemoryError;

/// The result of this crate's own functions; trait methods return [`masf_core::Result`].
pub type Result<T, E = BaselineError> = std::result::Result<T, E>;

/// Why a baseline could not be learned or read, or could not score.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BaselineError {
    /// A hyper-parameter is out of its range.
    #[error("{name} is {value}; expected {expected}")]
    Parameter {
        /// The name of the parameter.
        name: &'static str,
        /// The value that was given.
        value: String,
        /// What would be accepted.
        expected: String,
    },
    /// The byte budget cannot hold the model.
    #[error(
        "memory_budget is {budget} bytes; {positions} Gaussians of {dimensions} dimensions need {needed} (raise the budget or \
         lower `dimensions`)"
    )]
    Budget {
        /// The budget that was given, in bytes.
        budget: usize,
        /// What learning would hold, in bytes.
        needed: usize,
        /// The number of Gaussians, one for each position of the grid.
        positions: usize,
        /// The dimensions of each.
        dimensions: usize,
    },
    /// There is nothing to learn from.
    #[error("there are no images; at least 1 normal image is needed")]
    NoImages,
    /// The coarsest level has a single position, so that nothing is left to restore it from.
    #[error(
        "the coarsest level has 1 position; ISSTAD restores positions from others and needs at least 2 (larger images, or a finer level)"
    )]
    OneToken,
    /// A pyramid does not have the levels and sizes that the model was learned on.
    #[error("the model uses {expected}; the pyramid has {found}")]
    Levels {
        /// The levels of the model.
        expected: String,
        /// The levels of the pyramid.
        found: String,
    },
    /// A feature is NaN or infinite, or so large that its score is not finite.
    #[error(
        "image {image}: the features at row {row}, column {column} give the score {value}; features must be finite"
    )]
    NonFinite {
        /// The image, counted from 0: among all while learning, in its batch while scoring.
        image: usize,
        /// The row of the grid.
        row: usize,
        /// The column of the grid.
        column: usize,
        /// The value.
        value: f32,
    },
    /// A covariance is not positive definite in 64-bit numbers, or its factor not finite in 32-bit ones: `regularisation` is too small
    /// beside the features' spread.
    #[error(
        "the covariance at row {row}, column {column} has no Cholesky factor (pivot {pivot} is {value}); \
         `regularisation` is too small for these features"
    )]
    Covariance {
        /// The row of the grid.
        row: usize,
        /// The column of the grid.
        column: usize,
        /// The index of the pivot that failed.
        pivot: usize,
        /// Its value.
        value: f64,
    },
    /// A training went astray: its loss or a gradient is not finite.
    #[error("{method}: the loss is {loss} at step {step} of {steps}; a lower learning_rate may help")]
    Diverged {
        /// The method.
        method: &'static str,
        /// The loss.
        loss: f32,
        /// The step, counted from 0.
        step: usize,
        /// All steps.
        steps: usize,
    },
    /// The tensor library failed.
    #[error("tensor computation failed: {0}")]
    Backend(#[from] candle_core::Error),
}

impl BaselineError {
    pub(crate) fn parameter(name: &'static str, value: impl ToString, expected: impl Into<String>) -> Self {
        Self::Parameter { name, value: value.to_string(), expected: expected.into() }
    }

    /// An error about a batch of some images of a source, naming an image as the source does.
    pub(crate) fn of(mut error: masf_core::Error, images: &[usize]) -> masf_core::Error {
        if let masf_core::Error::Component { source, .. } = &mut error {
            let own = |image: usize| images.get(image).copied().unwrap_or(image);
            if let Some(Self::NonFinite { image, .. }) = source.downcast_mut::<Self>() {
                *image = own(*image);
            }
            if let Some(MemoryError::NonFinite { image, .. }) = source.downcast_mut::<MemoryError>() {
                *image = own(*image);
            }
        }
        error
    }

    /// Who is at fault.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Parameter { .. } | Self::Budget { .. } | Self::Covariance { .. } | Self::Diverged { .. } => {
                Fault::Argument
            }
            Self::NoImages | Self::OneToken | Self::Levels { .. } | Self::NonFinite { .. } => Fault::Data,
            Self::Backend(_) => Fault::Backend,
        }
    }
}

impl From<BaselineError> for masf_core::Error {
    fn from(error: BaselineError) -> Self {
        Self::Component { part: "masf-baselines", fault: error.fault(), source: Box::new(error) }
    }
}
