//! The computation of a convolutional backbone as a list of operations on folded weights.
//!
//! Every network of the registry is brought to this one form (batch norm folded into convolutions, activations fused).
//! Two executors run it: the CPU engine (`engine`), and plain Candle operations (`candle`), which serve other devices and
//! are the engine's oracle.

use candle_core::Tensor;

/// Index of a node in [`Graph::nodes`]; the value that the node computes. Node 0 is the input image `[B, 3, H, W]`.
pub type NodeId = usize;

/// Elementwise function that ends an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Activation {
    /// None.
    Identity,
    /// `max(x, 0)`.
    Relu,
    /// `min(max(x, 0), 6)`.
    Relu6,
}

/// Zero padding of a convolution or pooling, in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Padding {
    /// As many rows and columns on every side, as in PyTorch.
    Symmetric(usize),
    /// TensorFlow's SAME: `total = max((ceil(n / s) - 1) * s + k - n, 0)`, of which `total / 2` (rounded down) come before.
    Same,
}

/// A convolution with bias and activation; optionally a second input is added before the activation.
#[derive(Debug, Clone)]
pub struct Conv {
    /// `[O, I / groups, k, k]`, `f32`.
    pub weight: Tensor,
    /// `[O]`, `f32`.
    pub bias: Tensor,
    /// Step in both directions.
    pub stride: usize,
    /// Zero padding.
    pub padding: Padding,
    /// 1, or the channel count (depthwise).
    pub groups: usize,
    /// Applied last.
    pub activation: Activation,
}

/// What a node computes.
#[derive(Debug, Clone)]
pub enum Op {
    /// The input image.
    Input,
    /// `activation(conv(x) + bias + residual)`.
    Conv {
        /// The convolved value.
        input: NodeId,
        /// Weights and geometry.
        conv: Conv,
        /// A value of the output's shape that is added before the activation.
        residual: Option<NodeId>,
    },
    /// Maximum over `kernel x kernel` windows; padding counts as minus infinity.
    MaxPool {
        /// The pooled value.
        input: NodeId,
        /// Window side.
        kernel: usize,
        /// Step.
        stride: usize,
        /// Padding on every side.
        padding: usize,
    },
    /// `activation(x * scale + shift)` per channel (a batch norm that cannot be folded into a convolution).
    Affine {
        /// The value.
        input: NodeId,
        /// `[C]`, `f32`.
        scale: Tensor,
        /// `[C]`, `f32`.
        shift: Tensor,
        /// Applied last.
        activation: Activation,
    },
}

/// A feature map that the network offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tap {
    /// The node whose value is the map.
    pub node: NodeId,
    /// Input pixels per step.
    pub stride: usize,
    /// Channels.
    pub channels: usize,
}

/// A network: nodes in an order in which each one's inputs precede it, and the maps it offers, finest first.
#[derive(Debug, Clone)]
pub struct Graph {
    /// The operations.
    pub nodes: Vec<Op>,
    /// The feature maps, strides ascending.
    pub taps: Vec<Tap>,
}
