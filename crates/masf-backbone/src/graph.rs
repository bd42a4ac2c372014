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

/// The factors of an affine map per channel.
#[derive(Debug, Clone)]
pub struct Factors {
    /// `[C]`, `f32`.
    pub scale: Tensor,
    /// `[C]`, `f32`.
    pub shift: Tensor,
}

/// What a node computes. `C` stands for a convolution and `A` for the factors of an affine map: tensors, or what a stage before
/// or after this one has in their place.
#[derive(Debug, Clone)]
pub enum Op<C = Conv, A = Factors> {
    /// The input image.
    Input,
    /// `activation(conv(x) + bias + residual)`.
    Conv {
        /// The convolved value.
        input: NodeId,
        /// Weights and geometry.
        conv: C,
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
        /// Scale and shift.
        factors: A,
        /// Applied last.
        activation: Activation,
    },
}

impl<C, A> Op<C, A> {
    /// The nodes whose values it reads.
    pub fn inputs(&self) -> impl Iterator<Item = NodeId> + use<C, A> {
        let inputs = match *self {
            Self::Input => [None, None],
            Self::Conv { input, residual, .. } => [Some(input), residual],
            Self::MaxPool { input, .. } | Self::Affine { input, .. } => [Some(input), None],
        };
        inputs.into_iter().flatten()
    }

    /// The same operation on other nodes, with convolutions and factors in another form.
    pub(crate) fn try_map<D, B, E>(
        &self,
        node: impl Fn(NodeId) -> NodeId,
        conv: impl FnOnce(&C) -> Result<D, E>,
        factors: impl FnOnce(&A) -> Result<B, E>,
    ) -> Result<Op<D, B>, E> {
        Ok(match self {
            Self::Input => Op::Input,
            Self::Conv { input, conv: from, residual } => {
                Op::Conv { input: node(*input), conv: conv(from)?, residual: residual.map(node) }
            }
            &Self::MaxPool { input, kernel, stride, padding } => {
                Op::MaxPool { input: node(input), kernel, stride, padding }
            }
            Self::Affine { input, factors: from, activation } => {
                Op::Affine { input: node(*input), factors: factors(from)?, activation: *activation }
            }
        })
    }
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
