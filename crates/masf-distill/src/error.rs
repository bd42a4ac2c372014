//! Errors of the student and its training.

use masf_core::Fault;

/// The result of this crate's functions.
pub type Result<T, E = DistillError> = std::result::Result<T, E>;

/// What can go wrong with a masked student.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DistillError {
    /// A hyper-parameter is out of its range.
    #[error("{name} is {value}; expected {expected}")]
    Parameter {
        /// Name of the hyper-parameter.
        name: &'static str,
        /// The value given.
        value: String,
        /// What is accepted.
        expected: String,
    },
    /// There is nothing to learn from.
    #[error("there are no images; a student needs at least 1 normal image")]
    NoImages,
    /// A pyramid does not have the levels or sizes that the student was built for.
    #[error("the student restores levels {expected}; the pyramid has {found}")]
    Levels {
        /// Stride, channels and size of every level that it needs.
        expected: String,
        /// What the pyramid has.
        found: String,
    },
    /// A feature is NaN or infinite.
    #[error("the features at stride {stride} hold values that are not finite")]
    NonFinite {
        /// The stride of the level.
        stride: usize,
    },
    /// The loss or its gradient left the numbers.
    #[error(
        "the loss is {loss} with a gradient of norm {norm} at step {step} of {steps}; training diverged (lower \
         `learning_rate`, or look for extreme values in the features)"
    )]
    Diverged {
        /// The loss.
        loss: f32,
        /// The norm of its gradient.
        norm: f64,
        /// The step, from 0.
        step: usize,
        /// All steps.
        steps: usize,
    },
    /// A checkpoint belongs to another training.
    #[error("the checkpoint {path} does not fit: {problem}")]
    Checkpoint {
        /// The file.
        path: String,
        /// What differs.
        problem: String,
    },
    /// A training would replace a checkpoint that it does not go on from.
    #[error("there is a checkpoint already: {path}; resume from it, or remove it")]
    CheckpointExists {
        /// The file.
        path: String,
    },
    /// The tensor library failed.
    #[error("tensor computation failed: {0}")]
    Backend(#[from] candle_core::Error),
    /// A transform failed.
    #[error(transparent)]
    Spectral(#[from] masf_spectral::Error),
    /// The source of features, the file system, or a cancellation.
    #[error(transparent)]
    Core(#[from] masf_core::Error),
}

impl DistillError {
    pub(crate) fn parameter(name: &'static str, value: impl ToString, expected: impl Into<String>) -> Self {
        Self::Parameter { name, value: value.to_string(), expected: expected.into() }
    }

    /// Who is at fault.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Parameter { .. } | Self::Checkpoint { .. } | Self::CheckpointExists { .. } => Fault::Argument,
            Self::NoImages | Self::Levels { .. } | Self::NonFinite { .. } | Self::Diverged { .. } => Fault::Data,
            Self::Backend(_) | Self::Spectral(_) => Fault::Backend,
            Self::Core(error) => error.fault(),
        }
    }
}

impl From<DistillError> for masf_core::Error {
    fn from(error: DistillError) -> Self {
        match error {
            DistillError::Core(inner) => inner,
            error => Self::Component { part: "masf-distill", fault: error.fault(), source: Box::new(error) },
        }
    }
}
