//! What can be wrong with a graph or an image that the engine is given.

/// Why the engine cannot run a graph or an image.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// The graph is not one that the engine runs.
    #[error("node {node} of the graph: {what}")]
    Graph {
        /// The faulty node.
        node: usize,
        /// What is wrong with it.
        what: String,
    },
    /// The image is too small or too large for the network.
    #[error("image of {height} x {width} pixels: {what}")]
    ImageSize {
        /// Rows.
        height: usize,
        /// Columns.
        width: usize,
        /// What is wrong with it.
        what: String,
    },
    /// The numbers given are not `batch` images of the size given.
    #[error("{len} numbers are not {batch} images of 3 x {height} x {width}")]
    ImageData {
        /// How many numbers there are.
        len: usize,
        /// How many images there should be.
        batch: usize,
        /// Rows.
        height: usize,
        /// Columns.
        width: usize,
    },
    /// Weights could not be read from their tensors.
    #[error(transparent)]
    Weights(#[from] candle_core::Error),
}
