//! What can go wrong in the memory bank, classified by who is at fault.

use masf_core::{Fault, Progress};

/// The result of this crate's own functions; trait methods return [`masf_core::Result`].
pub type Result<T, E = MemoryError> = std::result::Result<T, E>;

/// Why a memory bank could not be learned, searched or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MemoryError {
    /// A hyper-parameter or argument is out of its range.
    #[error("{name} is {value}; expected {expected}")]
    Parameter {
        /// The name of the parameter.
        name: &'static str,
        /// The value that was given.
        value: String,
        /// What would be accepted.
        expected: String,
    },
    /// The byte budget cannot hold the prototypes that were asked for.
    #[error(
        "memory_budget is {budget} bytes; {prototypes} prototypes of {dimensions} dimensions need at least {least} \
         (raise the budget or lower `prototypes`)"
    )]
    Budget {
        /// The budget that was given, in bytes.
        budget: usize,
        /// The smallest budget that would do, in bytes.
        least: usize,
        /// The number of prototypes.
        prototypes: usize,
        /// The dimensions of a descriptor.
        dimensions: usize,
    },
    /// The byte budget is too small for descriptors of this length, however few prototypes there are.
    #[error(
        "memory_budget is {budget} bytes; {prototypes} prototypes of {dimensions} dimensions need at least {least} \
         (raise the budget or use fewer levels: it is too small for a single prototype, too)"
    )]
    LeastBudget {
        /// The budget that was given, in bytes.
        budget: usize,
        /// The smallest budget that would do, in bytes.
        least: usize,
        /// The number of prototypes.
        prototypes: usize,
        /// The dimensions of a descriptor.
        dimensions: usize,
    },
    /// The byte budget cannot hold the patches that banks have already, which no setting makes fewer.
    #[error(
        "memory_budget is {budget} bytes; the {held} patches that are held already, of {dimensions} dimensions, need \
         at least {least} (raise the budget)"
    )]
    Held {
        /// The budget that was given, in bytes.
        budget: usize,
        /// The smallest budget that would do, in bytes.
        least: usize,
        /// The number of patches.
        held: usize,
        /// The dimensions of a descriptor.
        dimensions: usize,
    },
    /// There is nothing to learn from.
    #[error("there are no images; a memory bank needs at least 1 normal image with at least 1 position")]
    NoImages,
    /// A pyramid does not have a level that the bank uses.
    #[error("the bank uses stride {stride} with {channels} channels; the pyramid has {found}")]
    Level {
        /// The stride of the level.
        stride: usize,
        /// The channels that it should have.
        channels: usize,
        /// What the pyramid has.
        found: String,
    },
    /// A feature is NaN or infinite.
    #[error(
        "image {image}: the feature at stride {stride}, row {row}, column {column}, channel {channel} is \
         {value}; features must be finite"
    )]
    NonFinite {
        /// The image, counted from 0: among all while learning, in its batch while scoring.
        image: usize,
        /// The stride of the level.
        stride: usize,
        /// The row of the map.
        row: usize,
        /// The column of the map.
        column: usize,
        /// The channel.
        channel: usize,
        /// The value.
        value: f32,
    },
    /// A descriptor is NaN, infinite, or so large that its distances would not be finite.
    #[error("{what} {index} has squared norm {squared_norm}; descriptors must be finite and of norm below 1e18")]
    Magnitude {
        /// What it is, such as `query`.
        what: &'static str,
        /// Its index.
        index: usize,
        /// Its squared norm.
        squared_norm: f32,
    },
    /// Descriptors of another length than the bank's.
    #[error("{what} have {found} values in all, which is no whole number of {dimensions}-dimensional descriptors")]
    Dimensions {
        /// What they are, such as `queries`.
        what: &'static str,
        /// How many values there are.
        found: usize,
        /// The dimensions of a descriptor.
        dimensions: usize,
    },
    /// The matrix product refused; this is a defect of this crate.
    #[error("matrix product failed: {0}")]
    MatrixProduct(String),
    /// The spectral anchors could not be computed.
    #[error("spectral anchors: {0}")]
    Spectral(#[from] masf_spectral::Error),
    /// Two banks do not fit together.
    #[error("the banks cannot be joined: {0}")]
    Unlike(String),
    /// Cancellation was asked for; [`masf_core::Error::Cancelled`] where that is the error.
    #[error("cancelled")]
    Cancelled,
    /// The tensor library failed.
    #[error("tensor computation failed: {0}")]
    Backend(#[from] candle_core::Error),
}

impl MemoryError {
    /// An out-of-range parameter: its name, the value given, and what is accepted.
    pub(crate) fn parameter(name: &'static str, value: impl ToString, expected: impl Into<String>) -> Self {
        Self::Parameter { name, value: value.to_string(), expected: expected.into() }
    }

    /// The same about a batch of some images of a source, naming an image as the source does.
    pub(crate) fn of(mut self, images: &[usize]) -> Self {
        if let Self::NonFinite { image, .. } = &mut self {
            *image = images.get(*image).copied().unwrap_or(*image);
        }
        self
    }

    /// The same about an image of a source, which a descriptor alone does not tell.
    pub(crate) fn in_image(self, image: usize) -> masf_core::Error {
        match self {
            Self::Magnitude { .. } => masf_core::Error::data(format!("image {image}"), self.to_string()),
            _ => self.into(),
        }
    }

    /// [`MemoryError::Cancelled`] once cancellation was asked for.
    pub(crate) fn if_cancelled(progress: &dyn Progress) -> Result<()> {
        if progress.is_cancelled() { Err(Self::Cancelled) } else { Ok(()) }
    }

    /// Who is at fault.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Parameter { .. }
            | Self::Budget { .. }
            | Self::LeastBudget { .. }
            | Self::Held { .. }
            | Self::Dimensions { .. }
            | Self::Unlike(_) => Fault::Argument,
            Self::NoImages | Self::Level { .. } | Self::NonFinite { .. } | Self::Magnitude { .. } => Fault::Data,
            Self::Cancelled => Fault::Cancelled,
            Self::MatrixProduct(_) | Self::Spectral(_) | Self::Backend(_) => Fault::Backend,
        }
    }
}

impl From<MemoryError> for masf_core::Error {
    fn from(error: MemoryError) -> Self {
        if let MemoryError::Cancelled = error {
            return Self::Cancelled;
        }
        Self::Component { part: "masf-memory", fault: error.fault(), source: Box::new(error) }
    }
}

impl From<rten_gemm::GemmError> for MemoryError {
    fn from(error: rten_gemm::GemmError) -> Self {
        Self::MatrixProduct(error.to_string())
    }
}
